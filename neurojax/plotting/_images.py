"""Photographs, and patches beside their reconstructions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes

from .._checks import check_rank, check_size
from ._canvas import (
    AnyArray,
    PatchShape,
    check_patches,
    check_scale,
    draw_sheet,
    new_axes,
    numbers,
    peaks,
    square_columns,
)

__all__ = ["image_sheet", "reconstructions"]


def image_sheet(
    images: Num[AnyArray, "images rows columns"]
    | Num[AnyArray, "images rows columns channels=3"]
    | Sequence[AnyArray],
    ax: Axes | None = None,
    *,
    scale: str = "each",
    saturated: float | int = 0.005,
    n_columns: int | None = None,
    cmap: str = "gray",
) -> Axes:
    """Draw photographs side by side.

    Args:
        images: grey images, or all in colour (a last axis of 3: red, green and blue, which are stretched
            alike); they may differ in size and are then centred in cells of the largest.
        ax: where to draw; ``None`` makes a new figure.
        scale: ``"each"`` stretches every image from black to white; ``"common"`` stretches all alike.
        saturated: the share of pixels, in [0, 0.5), that this leaves saturated at either end; 0 takes the
            darkest and the lightest pixel.
        n_columns: images side by side; ``None`` makes the sheet about square.
        cmap: a matplotlib colour map, for grey images.

    Returns:
        The Axes.

    Raises:
        ValueError: for no images, images that are not all matrices or all in colour, and for ``scale`` or
            ``saturated`` out of range.
    """
    check_scale(scale)
    if not 0 <= saturated < 0.5:
        raise ValueError(f"saturated: expected a share in [0, 0.5), got {saturated}.")
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none.")
    has_colour = np.ndim(images[0]) == 3
    for i, image in enumerate(images):
        check_rank(f"images[{i}]", image, "rows columns colours" if has_colour else "rows columns")
        if has_colour:
            check_size(f"images[{i}]", image, 2, 3, "colours")
    values = [numbers(f"images[{i}]", image).astype(float) for i, image in enumerate(images)]
    if scale == "each":
        values = [_stretched(value, *_ends(value, saturated)) for value in values]
        limits = (0.0, 1.0)
    else:
        limits = _ends(np.concatenate([value.reshape(-1) for value in values]), saturated)
    cells = _centred(values)
    n_columns = square_columns(len(cells), n_columns)
    n_rows, (height, width) = -(-len(cells) // n_columns), cells.shape[1:3]
    ax = new_axes(ax, (8, 8 * n_rows * height / (n_columns * width)))
    draw_sheet(ax, cells, n_columns, limits=limits, cmap=cmap, border=2.0)
    return ax


def reconstructions(
    originals: Num[AnyArray, "samples features"],
    reconstructed: Num[AnyArray, "samples features"],
    patch_shape: PatchShape,
    ax: Axes | None = None,
    *,
    n_columns: int = 10,
    is_signed: bool | None = None,
) -> Axes:
    """Draw originals above their reconstructions, each pair on the scale of its original.

    Args:
        originals: one flattened patch (row-major) a row.
        reconstructed: likewise, in the same order; values beyond the original's scale saturate.
        patch_shape: rows and columns of a patch, in pixels; (rows, columns, 3) for patches in red, green and
            blue, all three on one scale.
        ax: where to draw; ``None`` makes a new figure.
        n_columns: pairs side by side.
        is_signed: whether zero is mid-gray and the scale ± the largest absolute value; otherwise zero is
            black. ``None`` asks whether any original is negative.

    Returns:
        The Axes.

    Raises:
        ValueError: for arrays that do not match each other or ``patch_shape``.
    """
    above = check_patches("originals", originals, patch_shape)
    below = check_patches("reconstructed", reconstructed, patch_shape)
    check_size("reconstructed", below, 0, len(above), "patches, one for each original,")
    if is_signed is None:
        is_signed = bool(np.any(above < 0))
    low = -1.0 if is_signed else 0.0
    pairs = np.concatenate([above, below], axis=1) / peaks(above)
    n_columns = square_columns(len(pairs), n_columns)
    n_rows = -(-len(pairs) // n_columns)
    height, width = pairs.shape[1:3]
    ax = new_axes(ax, (0.8 * n_columns + 1.4, 0.8 * n_rows * height / width))
    draw_sheet(ax, np.clip(pairs, low, 1), n_columns, limits=(low, 1.0), border=5.0, fold=height // 2)
    middles = [(row + part) * height - 0.5 for row in range(n_rows) for part in (0.25, 0.75)]
    ax.set_yticks(middles, ["original", "reconstruction"] * n_rows)
    ax.tick_params(length=0)
    return ax


def _ends(values, saturated):
    """Return the values that become black and white."""
    low, high = np.nanquantile(values, [saturated, 1 - saturated])
    return float(low), float(high if high > low else low + 1)


def _stretched(image, low, high):
    return np.clip((image - low) / (high - low), 0, 1)


def _centred(images):
    height = max(image.shape[0] for image in images)
    width = max(image.shape[1] for image in images)
    cells = np.full((len(images), height, width, *images[0].shape[2:]), np.nan)
    for cell, image in zip(cells, images, strict=True):
        top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
        cell[top : top + image.shape[0], left : left + image.shape[1]] = image
    return cells
