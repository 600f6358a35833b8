"""Axes of angles: ticks in degrees, also over what is sorted by angle, legends, checks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MultipleLocator

from .._checks import check_shape
from ._canvas import numbers

__all__ = [
    "angle_ticks",
    "check_angles",
    "degrees",
    "difference",
    "legend_below",
    "matrix",
    "points",
    "rank_ticks",
    "robust_limit",
    "wrap",
]


def degrees(angle) -> str:
    """Return an angle in words."""
    # Adding 0 makes −0 an ordinary zero.
    return f"{angle + 0.0:g}°".replace("-", "−")


def wrap(angles, period_degrees, start_degrees=0.0) -> np.ndarray:
    """Return the same angles in [start, start + period)."""
    return np.mod(np.asarray(angles, float) - start_degrees, period_degrees) + start_degrees


def difference(first, second, period_degrees) -> np.ndarray:
    """Return first − second the short way round, in [−period/2, period/2)."""
    return wrap(np.asarray(first, float) - np.asarray(second, float), period_degrees, -period_degrees / 2)


def angle_ticks(axis: Axis, span_degrees, *, is_sparse: bool = False) -> None:
    """Put ticks at multiples of 90°, or of 45° and less on shorter axes; twice as far apart if sparse."""
    axis.set_major_locator(MultipleLocator(_step(span_degrees) * (2 if is_sparse else 1)))
    axis.set_major_formatter(FuncFormatter(lambda angle, place: degrees(angle)))


def rank_ticks(axis: Axis, ordered) -> None:
    """Put ticks where round angles lie along rows or columns that are sorted by angle; NaN come last.

    Several of just that angle have the tick in their middle.
    """
    ordered = np.asarray(ordered, float)
    ordered = ordered[np.isfinite(ordered)]
    if len(ordered) == 0:
        axis.set_ticks([])
        return
    span = np.ptp(ordered)
    step, slack = _step(span), 0.02 * span
    multiples = np.arange(np.ceil((ordered[0] - slack) / step), np.floor((ordered[-1] + slack) / step) + 1)
    angles = step * multiples
    sides = [np.searchsorted(ordered, angles, side) for side in ("left", "right")]
    # Among few columns several round angles may lie at one place, where the labels would cover each other.
    places, first = np.unique((sides[0] + sides[1]) / 2 - 0.5, return_index=True)
    axis.set_ticks(places, [degrees(angle) for angle in angles[first]])


def robust_limit(values, percentile: float = 99.0) -> float:
    """Return a percentile of the absolute values that are not zero; 1 where there are none."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return float(np.percentile(sizes, percentile)) if sizes.size else 1.0


def matrix(name: str, values, axes: str) -> np.ndarray:
    """Return a matrix that is not empty, or raise ``ValueError``."""
    values = numbers(name, values, axes)
    if values.size == 0:
        raise ValueError(f"{name}: expected at least one row and one column, got shape {values.shape}.")
    return values


def legend_below(ax: Axes, **kind) -> None:
    """Put the legend below the label of the horizontal axis, where it hides nothing and no title either."""
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3.2, ncols=2, **kind)


def points(x, y) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct points among those that are finite, and how many lie on each."""
    pairs = np.stack([x, y], 1)
    return np.unique(pairs[np.all(np.isfinite(pairs), axis=1)], axis=0, return_counts=True)


def check_angles(name: str, angles, other_name: str, other) -> tuple[np.ndarray, np.ndarray]:
    """Return two vectors of one length ≥ 1, or raise ``ValueError``."""
    angles, other = numbers(name, angles, "trials"), numbers(other_name, other)
    check_shape(other_name, other, np.shape(angles), f"that of {name}")
    if len(angles) == 0:
        raise ValueError(f"{name}: expected at least one trial, got none.")
    return angles.astype(float), other.astype(float)


def _step(span_degrees):
    return next((step for step in (90, 45, 15, 5, 1, 0.2) if span_degrees >= 3 * step), 0.05)
