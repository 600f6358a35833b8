"""Weights: matrices between neurons and hidden units, and filters before and after training."""

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .._checks import check_at_least, check_positive, check_rank, check_shape
from ._canvas import AnyArray, check_scale, draw_sheet, new_axes, numbers, peaks
from ._degrees import matrix, rank_ticks, robust_limit

__all__ = ["filter_pairs", "weight_matrix"]


def weight_matrix(
    weights: Num[AnyArray, "rows columns"],
    ax: Axes | None = None,
    *,
    preferred_degrees: Num[AnyArray, " columns"] | None = None,
    most_columns: int = 1200,
    limit: float | int | None = None,
    row: str = "hidden unit",
    column: str = "neuron",
) -> Axes:
    """Draw weights as an image: red above zero, blue below, white at zero.

    Of more columns than ``most_columns`` groups of neighbors are drawn by their means, as the colour bar
    then says; such means of weights of both signs are smaller than the weights.

    Args:
        weights: a row a unit that receives, a column a neuron (or unit) it receives from.
        ax: where to draw; ``None`` makes a new figure.
        preferred_degrees: of the neuron of each column, to sort the columns by; NaN come last.
        most_columns: of the picture, ≥ 1.
        limit: the weight at which colours saturate; ``None`` takes the 99th percentile of the absolute
            values drawn that are not zero.
        row: what a row is, for the axis.
        column: what a column is, for the axis.

    Returns:
        The Axes.

    Raises:
        ValueError: for weights that are not a matrix, preferred angles that do not match its columns,
            ``most_columns < 1`` and ``limit ≤ 0``.
    """
    values = matrix("weights", weights, "rows columns")
    check_at_least("most_columns", most_columns, 1)
    n_rows, n_columns = values.shape
    ordered = None
    if preferred_degrees is not None:
        check_shape("preferred_degrees", preferred_degrees, (n_columns,), "one for each column")
        order = np.argsort(np.asarray(preferred_degrees), kind="stable")
        values, ordered = values[:, order], np.asarray(preferred_degrees)[order]
    width = -(-n_columns // most_columns)
    values = _means_of_neighbors(values, -(-n_columns // width))
    limit = robust_limit(values) if limit is None else limit
    check_positive("limit", limit)
    ax = new_axes(ax, (8, 3.5))
    kind = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    extent = (-0.5, n_columns - 0.5, n_rows - 0.5, -0.5)
    picture = ax.imshow(values, aspect="auto", extent=extent, **kind)
    bar = ax.figure.colorbar(picture, ax=ax, extend="both", pad=0.02)
    bar.set_label("weight" if width == 1 else f"weight, mean of {width} neighbors")
    bar.outline.set_visible(False)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=column, ylabel=row)
    if ordered is not None:
        rank_ticks(ax.xaxis, ordered)
        ax.set_xlabel(f"{column}, by preferred angle")
    return ax


def filter_pairs(
    before: Num[AnyArray, "filters rows columns"],
    after: Num[AnyArray, "filters rows columns"],
    ax: Axes | None = None,
    *,
    scale: str = "each",
    labels: tuple[str, str] = ("before", "after"),
    cmap: str = "gray",
) -> Axes:
    """Draw filters before training, and below each what it has become; zero is mid-gray.

    Args:
        before: the filters.
        after: the same filters later.
        ax: where to draw; ``None`` makes a new figure.
        scale: ``"each"`` divides every filter by its own largest absolute value, which shows how its shape
            changed; ``"common"`` draws all on one scale, ± the largest absolute value of all.
        labels: of the two rows.
        cmap: a matplotlib colour map.

    Returns:
        The Axes.

    Raises:
        ValueError: for arrays of different shape, no filters, and for another ``scale``.
    """
    check_scale(scale)
    check_rank("before", before, "filters rows columns")
    check_shape("after", after, np.shape(before), "that of before")
    images = np.concatenate([numbers("before", before), numbers("after", after)])
    if images.size == 0:
        raise ValueError(f"before: expected at least one filter of one pixel, got shape {np.shape(before)}.")
    limit = 1.0 if scale == "each" else float(np.max(np.abs(images))) or 1.0
    if scale == "each":
        images = images / peaks(images)
    n_filters, height, width = np.shape(before)
    ax = new_axes(ax, (1.0 * n_filters + 0.8, 2.0 * height / width + 0.2))
    draw_sheet(ax, images, n_filters, limits=(-limit, limit), cmap=cmap, border=4.0)
    ax.set_yticks([height / 2 - 0.5, 1.5 * height - 0.5], labels)
    ax.tick_params(length=0)
    return ax


def _means_of_neighbors(values: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the means of groups of neighbouring columns, whose sizes differ by one at most."""
    edges = np.arange(n_groups + 1) * values.shape[1] // n_groups
    return np.add.reduceat(values, edges[:-1], axis=1, dtype=float) / np.diff(edges)
