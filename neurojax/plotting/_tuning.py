"""Populations of neurons: their responses by angle, and their tuning curves."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .._checks import check_at_least, check_positive, check_rank, check_shape, check_size
from ._canvas import COLOURS, FAINT, STYLES, AnyArray, new_axes, square_columns, tidy
from ._degrees import angle_ticks, legend_below, matrix, rank_ticks, robust_limit

__all__ = ["response_matrix", "tuning_curves", "tuning_grid"]


def response_matrix(
    responses: Num[AnyArray, "trials neurons"],
    angles_degrees: Num[AnyArray, " trials"],
    ax: Axes | None = None,
    *,
    preferred_degrees: Num[AnyArray, " neurons"] | None = None,
    n_neurons: int = 300,
    limit: float | int | None = None,
    quantity: str = "response",
) -> Axes:
    """Draw responses as an image, one row a trial, the trials sorted by angle.

    Where any response is negative (z-scores) red is above zero, blue below, white at zero; otherwise
    (counts) the scale goes from white at zero to dark blue.

    Args:
        responses: one trial a row.
        angles_degrees: of the stimulus of each trial.
        ax: where to draw; ``None`` makes a new figure.
        preferred_degrees: of each neuron, to sort the neurons by; NaN come last.
        n_neurons: at most so many are drawn, evenly spaced among all in their order.
        limit: the response at which colours saturate; ``None`` takes the 99th percentile of the absolute
            values that are not zero.
        quantity: what is drawn, for the colour bar, with its unit.

    Returns:
        The Axes.

    Raises:
        ValueError: for lengths that do not match, no trials or neurons, ``n_neurons < 1`` and ``limit ≤ 0``.
    """
    values = matrix("responses", responses, "trials neurons")
    check_shape("angles_degrees", angles_degrees, values.shape[:1], "one for each trial")
    check_at_least("n_neurons", n_neurons, 1)
    n_all, order = values.shape[1], np.arange(values.shape[1])
    if preferred_degrees is not None:
        check_shape("preferred_degrees", preferred_degrees, (n_all,), "one for each neuron")
        order = np.argsort(np.asarray(preferred_degrees), kind="stable")
    angles = np.asarray(angles_degrees)
    trials = np.argsort(angles, kind="stable")
    shown = order[_evenly(n_all, n_neurons)]
    values = values[np.ix_(trials, shown)]
    limit = robust_limit(values) if limit is None else limit
    check_positive("limit", limit)
    ax = new_axes(ax, (7, 5))
    is_signed = bool(np.any(values < 0))
    kind = {"cmap": "RdBu_r", "vmin": -limit} if is_signed else {"cmap": "Blues", "vmin": 0}
    extent = (-0.5, n_all - 0.5, len(values) - 0.5, -0.5)
    picture = ax.imshow(values, aspect="auto", vmax=limit, extent=extent, interpolation="auto", **kind)
    bar = ax.figure.colorbar(picture, ax=ax, extend="both" if is_signed else "max", pad=0.02)
    bar.set_label(quantity)
    bar.outline.set_visible(False)
    rank_ticks(ax.yaxis, angles[trials])
    ax.set_ylabel("trial, by angle of the stimulus")
    sample = "" if len(shown) == n_all else f" ({len(shown)} of {n_all:,} shown)"
    ax.set_xlabel("neuron" + sample)
    if preferred_degrees is not None:
        rank_ticks(ax.xaxis, np.asarray(preferred_degrees)[order])
        ax.set_xlabel(f"neuron, by preferred angle{sample}")
    return ax


def tuning_curves(
    angles_degrees: Num[AnyArray, " bins"],
    curves: Num[AnyArray, "neurons bins"],
    ax: Axes | None = None,
    *,
    fits: tuple[Num[AnyArray, " points"], Num[AnyArray, "neurons points"]] | None = None,
    standard_errors: Num[AnyArray, "neurons bins"] | None = None,
    labels: Sequence[str] | None = None,
    quantity: str = "mean response",
) -> Axes:
    """Draw the tuning curves of a few neurons, or of hidden units.

    Without fits each is a line, and standard errors a band; with fits the curves are dots with error bars,
    and the fits the lines.

    Args:
        angles_degrees: of the bins, in any order.
        curves: one neuron a row.
        ax: where to draw; ``None`` makes a new figure.
        fits: angles, of any spacing, and the fitted curves there, in the same order.
        standard_errors: of ``curves``, ≥ 0; NaN where there is none.
        labels: of the neurons, for the legend; ``None`` draws no legend.
        quantity: what is drawn, for the axis, with its unit.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not match, and for no neurons or bins.
    """
    angles, values = _by_angle("curves", curves, angles_degrees)
    lines, n_neurons = (angles, values), len(values)
    if fits is not None:
        lines = _by_angle("fits", fits[1], fits[0])
        check_size("fits", lines[1], 0, n_neurons, "neurons, as in curves,")
    errors = None
    if standard_errors is not None:
        check_shape("standard_errors", standard_errors, values.shape, "that of curves")
        errors = _by_angle("standard_errors", standard_errors, angles_degrees)[1]
    if labels is not None and len(labels) != n_neurons:
        raise ValueError(f"labels: expected {n_neurons}, one for each curve, got {len(labels)}.")
    ax = new_axes(ax)
    marker = "o" if fits is None and len(angles) <= 24 else None
    for i in range(n_neurons):
        kind = {"color": COLOURS[i % 6], "label": None if labels is None else labels[i]}
        ax.plot(lines[0], lines[1][i], lw=1.6, ls=STYLES[i // 6 % 4], marker=marker, ms=4, **kind)
        if fits is not None:
            error = None if errors is None else errors[i]
            ax.errorbar(angles, values[i], error, color=kind["color"], fmt="o", ms=4, alpha=0.7, lw=1)
        elif errors is not None:
            band = values[i] - errors[i], values[i] + errors[i]
            ax.fill_between(angles, *band, color=kind["color"], alpha=0.2, linewidth=0)
    if labels is not None:
        outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "ncols": 1 + (n_neurons - 1) // 14}
        ax.legend(frameon=False, **(outside if n_neurons > 4 else {}))
    angle_ticks(ax.xaxis, np.ptp(lines[0]))
    return tidy(ax, "angle of the stimulus", quantity)


def tuning_grid(
    angles_degrees: Num[AnyArray, " bins"],
    first: Num[AnyArray, "neurons bins"],
    second: Num[AnyArray, "neurons bins"],
    ax: Axes | None = None,
    *,
    labels: tuple[str, str] = ("training trials", "test trials"),
    names: Sequence[str] | None = None,
    n_columns: int | None = None,
    quantity: str = "mean response",
) -> Axes:
    """Draw two tuning curves of each neuron, a panel a neuron: from training and test trials, say.

    The panels lie inside the Axes (its ``child_axes``, in the order of the neurons); each has its own
    vertical scale.

    Args:
        angles_degrees: of the bins, in any order.
        first: one neuron a row.
        second: likewise, of the same neurons: other trials, or what a model predicts.
        ax: where to draw; ``None`` makes a new figure.
        labels: of ``first`` and ``second``, for the legend.
        names: of the neurons, above the panels; ``None`` numbers them from 0.
        n_columns: panels side by side; ``None`` makes the grid about square, and five wide at most.
        quantity: what is drawn, for the axis, with its unit.

    Returns:
        The Axes.

    Raises:
        ValueError: for shapes that do not match, for no neurons or bins, and for ``n_columns < 1``.
    """
    angles, above = _by_angle("first", first, angles_degrees)
    pair, n_panels = [above, _by_angle("second", second, angles_degrees)[1]], len(above)
    check_size("second", pair[1], 0, n_panels, "neurons, as in first,")
    if names is not None and len(names) != n_panels:
        raise ValueError(f"names: expected {n_panels}, one for each neuron, got {len(names)}.")
    n_columns = min(square_columns(n_panels, n_columns), n_panels if n_columns else 5)
    n_rows = -(-n_panels // n_columns)
    ax = new_axes(ax, (2.1 * n_columns + 0.6, 1.5 * n_rows + 0.9))
    colours = [COLOURS[0], COLOURS[1]]
    for i in range(n_panels):
        row, column = divmod(i, n_columns)
        panel = ax.inset_axes(_cell(row, column, n_rows, n_columns))
        for values, colour in zip(pair, colours, strict=True):
            panel.plot(angles, values[i], color=colour, lw=1.3)
        panel.set_title(f"neuron {i}" if names is None else names[i], fontsize=8, pad=2)
        _dress(panel, np.ptp(angles), has_angles=i + n_columns >= n_panels)
    handles = [Line2D([], [], color=c, label=name) for c, name in zip(colours, labels, strict=True)]
    legend_below(ax, handles=handles)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], facecolor="none")
    ax.spines[:].set_visible(False)
    ax.set_xlabel("angle of the stimulus", labelpad=16)
    ax.set_ylabel(quantity, labelpad=20)
    return ax


def _cell(row, column, n_rows, n_columns):
    """Return the place of a panel as shares of the Axes, with gaps for numbers and titles."""
    width, height = 1 / (n_columns + 0.26 * (n_columns - 1)), 1 / (n_rows + 0.34 * n_rows)
    return (1.26 * width * column, 1 - 1.34 * height * (row + 1), width, height)


def _dress(panel: Axes, span, *, has_angles: bool) -> None:
    panel.axhline(0, color=FAINT, lw=0.6, zorder=0)
    angle_ticks(panel.xaxis, span, is_sparse=True)
    panel.yaxis.set_major_locator(MaxNLocator(3))
    panel.tick_params(labelsize=7, length=2, pad=2, labelbottom=has_angles)
    panel.spines[["top", "right"]].set_visible(False)


def _evenly(n_all: int, n_most: int) -> np.ndarray:
    return np.round(np.linspace(0, n_all - 1, min(n_all, n_most))).astype(int)


def _by_angle(name, values, angles) -> tuple[np.ndarray, np.ndarray]:
    """Return angles in increasing order, and curves over them, or raise ``ValueError``."""
    values = matrix(name, values, "neurons bins")
    check_rank("angles_degrees", angles, "bins")
    check_size(name, values, 1, len(angles), "bins, one for each angle,")
    order = np.argsort(np.asarray(angles), kind="stable")
    return np.asarray(angles)[order], values[:, order]
