"""Curves: penalties, thresholds, learning, and the dynamics of inference."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes

from .._checks import check_at_least, check_size
from ._canvas import ACCENT, COLOURS, FAINT, INK, STYLES, AnyArray, new_axes, numbers, tidy

__all__ = ["history", "lca_trajectories", "penalties", "thresholds"]


def penalties(
    x: Num[AnyArray, " points"], curves: Mapping[str, Num[AnyArray, " points"]], ax: Axes | None = None
) -> Axes:
    """Draw penalties S(x) against the coefficient x.

    Args:
        x: coefficients.
        curves: a label (for the legend) for each array of values S(x).
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: for a curve that is not as long as ``x``.
    """
    checked = _checked("x", x, curves)
    ax = new_axes(ax)
    for i, (label, values) in enumerate(checked.items()):
        ax.plot(np.asarray(x), values, label=label, color=COLOURS[i % 6], ls=STYLES[i // 6 % 4], lw=2)
    ax.legend(frameon=False)
    return tidy(ax, "coefficient $x$", "penalty $S(x)$")


def thresholds(
    v: Num[AnyArray, " points"], curves: Mapping[str, Num[AnyArray, " points"]], ax: Axes | None = None
) -> Axes:
    """Draw thresholding operators: output against input, broken where they jump, with the identity.

    A jump is a rise more than ten times as steep as the identity between two neighbouring points.

    Args:
        v: inputs, increasing.
        curves: a label (for the legend) for each array of outputs.
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: for a curve that is not as long as ``v``.
    """
    checked = _checked("v", v, curves)
    ax = new_axes(ax, (5, 5))
    inputs = np.asarray(v, float)
    ax.plot(inputs, inputs, color=FAINT, lw=1, ls="--", label="identity", zorder=1)
    for i, (label, values) in enumerate(checked.items()):
        jumps = np.flatnonzero(np.abs(np.diff(values)) > 10 * np.abs(np.diff(inputs))) + 1
        broken = np.insert(inputs, jumps, np.nan), np.insert(values.astype(float), jumps, np.nan)
        ax.plot(*broken, label=label, color=COLOURS[i % 6], lw=1.6 + 0.9 * (len(curves) - 1 - i))
    ax.set_aspect("equal")
    ax.legend(frameon=False)
    return tidy(ax, "input $v$", "output $u$")


def history(
    step: Num[AnyArray, " steps"] | Sequence,
    loss: Num[AnyArray, " steps"] | Sequence,
    ax: Axes | None = None,
    *,
    evaluation: tuple[Sequence | AnyArray, Sequence | AnyArray] | None = None,
    smoothing: int = 1,
    quantity: str = "loss",
    label: str = "training",
    is_log: bool = False,
) -> Axes:
    """Draw the course of learning.

    Args:
        step: at which step each loss was met.
        loss: the training loss, or another quantity.
        ax: where to draw; ``None`` makes a new figure.
        evaluation: steps and held-out losses, drawn as points on a line.
        smoothing: draws the mean of this many neighbouring losses over the losses themselves; 1 for none.
        quantity: what is drawn, for the axis, with its unit.
        label: of ``loss``, for the legend.
        is_log: whether the vertical axis is logarithmic.

    Returns:
        The Axes.

    Raises:
        ValueError: for series of unequal length, none at all, or ``smoothing < 1``.
    """
    check_at_least("smoothing", smoothing, 1)
    steps, losses = _series("loss", step, loss)
    held_out = None if evaluation is None else _series("evaluation", *evaluation)
    ax = new_axes(ax)
    width = min(smoothing, len(losses))
    if width > 1:
        ax.plot(steps, losses, color=COLOURS[0], alpha=0.25, lw=0.8)
        window = np.ones(width) / width
        means = np.convolve(losses, window, "valid"), np.convolve(steps, window, "valid")
        ax.plot(means[1], means[0], color=COLOURS[0], lw=2, label=f"{label}, mean of {width}")
    else:
        # A line through one point would not be seen.
        marker = "o" if len(losses) == 1 else None
        ax.plot(steps, losses, color=COLOURS[0], lw=1.6, marker=marker, label=label)
    if held_out is not None:
        ax.plot(*held_out, color=ACCENT, lw=1.2, marker="o", markersize=4, label="held out")
    if is_log:
        ax.set_yscale("log")
    ax.legend(frameon=False)
    return tidy(ax, "step", quantity)


def lca_trajectories(
    time: Num[AnyArray, " times"],
    values: Num[AnyArray, "times units"],
    ax: Axes | None = None,
    *,
    threshold: float | int | None = None,
    quantity: str = "membrane potential",
    n_labels: int = 6,
) -> Axes:
    """Draw the units of a locally competitive algorithm against time.

    Units that end beyond the threshold (without one: that end other than 0) are coloured, and the
    ``n_labels`` largest of them named at the right; the others are grey.

    Args:
        time: in milliseconds.
        values: potentials or activities, one column a unit.
        ax: where to draw; ``None`` makes a new figure.
        threshold: drawn as dashed lines at ± its value, ≥ 0.
        quantity: what is drawn, for the axis.
        n_labels: how many units to name.

    Returns:
        The Axes.

    Raises:
        ValueError: for values that are not one row for each time, and for no times.
    """
    times, traces = numbers("time", time), numbers("values", values, "times units")
    check_size("values", traces, 0, len(times), "rows, one for each time,")
    if len(times) == 0:
        raise ValueError("time: expected at least one time, got none.")
    ax = new_axes(ax, (7, 4))
    last = np.abs(traces[-1])
    is_active = last > (0 if threshold is None else threshold)
    ax.plot(times, traces[:, ~is_active], color=FAINT, lw=0.7, alpha=0.8)
    ranked = [unit for unit in np.argsort(-last) if is_active[unit]]
    for rank, unit in enumerate(ranked):
        colour = COLOURS[rank % 6]
        ax.plot(times, traces[:, unit], color=colour, lw=1.6)
        if rank < n_labels:
            ax.annotate(f" {unit}", (times[-1], traces[-1, unit]), color=colour, va="center", fontsize=8)
    if threshold is not None:
        for sign in (-1, 1):
            ax.axhline(sign * threshold, color=INK, lw=1, ls="--")
        place = {"xycoords": ax.get_yaxis_transform(), "xytext": (4, 0), "textcoords": "offset points"}
        ax.annotate("threshold", (1, threshold), color=INK, fontsize=8, va="center", **place)
    ax.set_xlim(times[0], times[-1] + 0.04 * (times[-1] - times[0]))
    return tidy(ax, "time (ms)", quantity)


def _checked(name, x, curves):
    numbers(name, x, "points")
    for label, values in curves.items():
        if np.shape(values) != np.shape(x):
            raise ValueError(f"curves[{label!r}]: expected shape {np.shape(x)}, got {np.shape(values)}.")
    return {label: numbers(f"curves[{label!r}]", values) for label, values in curves.items()}


def _series(name, steps, values):
    steps, values = numbers("step", steps).astype(float), numbers(name, values).astype(float)
    if steps.ndim != 1 or steps.shape != values.shape or len(steps) == 0:
        raise ValueError(
            f"{name}: expected as many values as steps, at least one, got {steps.shape} and {values.shape}."
        )
    return steps, values
