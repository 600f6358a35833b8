"""Scores with standard errors: of several models, and along a path of regularisation."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes

from .._checks import check_positive, check_shape
from ._canvas import COLOURS, INK, STYLES, AnyArray, new_axes, numbers, tidy

__all__ = ["regularization_path", "score_comparison"]


def score_comparison(
    names: Sequence[str],
    values: Num[AnyArray, " models"] | Sequence[float | int],
    standard_errors: Num[AnyArray, " models"] | Sequence[float | int],
    ax: Axes | None = None,
    *,
    chance: float | int | None = None,
    quantity: str = "fraction correct",
    is_log: bool = False,
) -> Axes:
    """Draw a score of each model with its standard error, the first on top, and write both beside it.

    Args:
        names: of the models.
        values: their scores.
        standard_errors: of the scores, ≥ 0; NaN where there is none.
        ax: where to draw; ``None`` makes a new figure.
        chance: the score of knowing nothing, drawn as a dashed line.
        quantity: what is drawn, for the axis, with its unit.
        is_log: whether the axis is logarithmic, so that errors of 4° and 7° differ beside one of 90°.

    Returns:
        The Axes.

    Raises:
        ValueError: for lengths that differ, no models, negative standard errors, and a score or chance that
            is not positive on a logarithmic axis.
    """
    scores = numbers("values", values).astype(float)
    errors = numbers("standard_errors", standard_errors).astype(float)
    if len(names) == 0:
        raise ValueError("names: expected at least one model, got none.")
    check_shape("values", scores, (len(names),), "one for each name")
    check_shape("standard_errors", errors, (len(names),), "one for each name")
    _check_errors(errors)
    if is_log:
        check_positive("values", scores[~np.isnan(scores)])
        check_positive("chance", 1 if chance is None else chance)
    ax = new_axes(ax, (7, 0.38 * len(names) + 1.2))
    places = np.arange(len(names))
    ax.errorbar(scores, places, xerr=errors, fmt="o", color=COLOURS[0], ms=6, lw=1.6, capsize=3)
    if chance is not None:
        ax.axvline(chance, color=INK, lw=1, ls="--")
        above = {"xycoords": ax.get_xaxis_transform(), "xytext": (3, 1), "textcoords": "offset points"}
        ax.annotate("chance", (chance, 0), color=INK, fontsize=8, va="bottom", **above)
    beside = {"xycoords": ax.get_yaxis_transform(), "xytext": (6, 0), "textcoords": "offset points"}
    for place, score, error in zip(places, scores, errors, strict=True):
        ax.annotate(_number(score, error), (1, place), va="center", fontsize=9, color=INK, **beside)
    ax.set_yticks(places, list(names))
    ax.set_ylim(len(names) - 0.5, -0.5)
    if is_log:
        _log_axis(ax, scores, errors, chance)
    has_errors = bool(np.any(np.isfinite(errors)))
    return tidy(ax, f"{quantity}, ± standard error" if has_errors else quantity, "")


def regularization_path(
    strengths: Num[AnyArray, " strengths"],
    values: Num[AnyArray, " strengths"] | Num[AnyArray, "curves strengths"],
    ax: Axes | None = None,
    *,
    standard_errors: Num[AnyArray, " strengths"] | Num[AnyArray, "curves strengths"] | None = None,
    labels: Sequence[str] | None = None,
    chance: float | int | None = None,
    quantity: str = "fraction correct",
    strength: str = "strength of the penalty",
) -> Axes:
    """Draw what changes with the strength of a penalty, on a logarithmic axis.

    Args:
        strengths: > 0, in any order.
        values: scores, numbers of weights, or weights: one curve, or one a row.
        ax: where to draw; ``None`` makes a new figure.
        standard_errors: of ``values``, ≥ 0; NaN where there is none.
        labels: of the curves, for the legend; ``None`` draws no legend.
        chance: the score of knowing nothing, drawn as a dashed line.
        quantity: what is drawn, for the axis, with its unit.
        strength: which strength, for the axis.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not match, no strengths, a strength that is not positive (0 has no
            place on the axis), and negative standard errors.
    """
    strengths = numbers("strengths", strengths).astype(float)
    if strengths.ndim != 1 or len(strengths) == 0:
        raise ValueError(f"strengths: expected at least one, on one axis, got shape {strengths.shape}.")
    check_positive("strengths", strengths)
    curves = np.atleast_2d(numbers("values", values).astype(float))
    check_shape("values", curves, (len(curves), len(strengths)), "a number for each strength")
    errors = None
    if standard_errors is not None:
        check_shape("standard_errors", standard_errors, np.shape(values), "that of values")
        errors = np.atleast_2d(numbers("standard_errors", standard_errors).astype(float))
        _check_errors(errors)
    if labels is not None and len(labels) != len(curves):
        raise ValueError(f"labels: expected {len(curves)}, one for each curve, got {len(labels)}.")
    order = np.argsort(strengths)
    ax = new_axes(ax)
    for i, curve in enumerate(curves[:, order]):
        error = None if errors is None else errors[i, order]
        kind = {"label": labels[i] if labels else None, "color": COLOURS[i % 6], "ls": STYLES[i // 6 % 4]}
        ax.errorbar(
            strengths[order], curve, error, marker="o", ms=4, lw=1.6, elinewidth=1.2, capsize=2, **kind
        )
    if chance is not None:
        ax.axhline(chance, color=INK, lw=1, ls="--")
        above = {"xycoords": ax.get_yaxis_transform(), "xytext": (3, 1), "textcoords": "offset points"}
        ax.annotate("chance", (0, chance), color=INK, fontsize=8, va="bottom", **above)
    ax.set_xscale("log")
    if labels is not None:
        ax.legend(frameon=False)
    return tidy(ax, strength, quantity if errors is None else f"{quantity}, ± standard error")


def _log_axis(ax: Axes, scores, errors, chance: float | int | None) -> None:
    """Make the horizontal axis logarithmic over what is drawn, with ticks at 1, 2 and 5 times 10ⁿ."""
    lowest = np.where(scores > 2 * errors, scores - errors, scores / 2)  # NaN compares as false
    drawn = np.concatenate([lowest, np.fmax(scores, scores + errors), [] if chance is None else [chance]])
    low, high = np.nanmin(drawn) / 1.15, np.nanmax(drawn) * 1.15
    ax.set_xscale("log", nonpositive="clip")
    ax.set_xlim(low, high)
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
    ticks = np.ravel(np.outer(10.0**decades, [1, 2, 5]))
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()


def _number(score: float, error: float) -> str:
    """Write a score to two digits of its standard error."""
    if not error > 0:
        return f"{score:.3g}"
    decimals = int(np.clip(1 - np.floor(np.log10(error)), 0, 4))
    return f"{score:.{decimals}f} ± {error:.{decimals}f}"


def _check_errors(errors) -> None:
    if np.any(errors < 0):
        raise ValueError(f"standard_errors: expected numbers ≥ 0, got {np.nanmin(errors):g}.")
