"""Foundations of all pictures: axes, colors, and sheets of small images."""

import math

import matplotlib.pyplot as plt
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from .._arrays import host_array
from .._checks import check_at_least

__all__ = [
    "ACCENT",
    "COLOURS",
    "FAINT",
    "INK",
    "STYLES",
    "AnyArray",
    "PatchShape",
    "check_patches",
    "check_scale",
    "draw_sheet",
    "new_axes",
    "numbers",
    "peaks",
    "square_columns",
    "tidy",
]

AnyArray = np.ndarray | Array
PatchShape = tuple[int, int] | tuple[int, int, int]

# Okabe & Ito's palette without its yellow: told apart with any colour vision.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
# Of lines, once the colours are used up.
STYLES = ["-", "--", "-.", ":"]
INK, FAINT, ACCENT = "#333333", "#BBBBBB", COLOURS[1]


def new_axes(ax: Axes | None, figsize=(6, 4)) -> Axes:
    """Return ``ax``, or the Axes of a new figure of ``figsize`` inches."""
    if ax is not None:
        return ax
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def numbers(name: str, value, axes: str | None = None) -> np.ndarray:
    """Return real numbers as a NumPy array, in single precision at least, as matplotlib wants them.

    Raises:
        ValueError: as `neurojax._arrays.host_array`, for masked arrays and what is no number.
    """
    array = host_array(name, value, axes)
    return array.astype(np.float32) if array.dtype.itemsize < 4 else array


def tidy(ax: Axes, xlabel: str, ylabel: str) -> Axes:
    """Label the axes, draw a light grid, and drop the box around them."""
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def check_patches(name: str, rows, patch_shape: PatchShape, *, is_grey: bool = False) -> np.ndarray:
    """Return flattened patches as images, or raise ``ValueError`` where the width is another.

    Args:
        name: of the argument, to begin an error message.
        rows: one flattened patch a row.
        patch_shape: rows and columns, and 3 for colour.
        is_grey: whether colour is refused.

    Returns:
        Shape (patches, rows, columns) or (patches, rows, columns, 3).
    """
    values = numbers(name, rows, f"{name} features")
    if len(patch_shape) < 2 or tuple(patch_shape[2:]) not in ([()] if is_grey else [(), (3,)]):
        colour = "" if is_grey else ", or (rows, columns, 3) for colour"
        raise ValueError(f"patch_shape: expected (rows, columns){colour}, got {patch_shape}.")
    if values.shape[1] != math.prod(patch_shape):
        expected = " x ".join(map(str, patch_shape[:2])) + " pixels"
        colours = " of 3 colours" if len(patch_shape) == 3 else ""
        raise ValueError(
            f"{name}: expected rows of {expected}{colours} (patch_shape), got shape {values.shape}."
        )
    if len(values) == 0:
        raise ValueError(f"{name}: expected at least one row, got none.")
    return values.reshape(-1, *patch_shape)


def peaks(images) -> np.ndarray:
    """Return each image's largest absolute value (over its colours too), 1 for an image of zeros."""
    largest = np.max(np.abs(images), axis=tuple(range(1, images.ndim)), keepdims=True)
    return np.where(largest == 0, 1, largest)


def check_scale(scale: str) -> None:
    """Raise ``ValueError`` unless ``scale`` is "each" or "common"."""
    if scale not in ("each", "common"):
        raise ValueError(f'scale: expected "each" or "common", got {scale!r}.')


def square_columns(n_images: int, n_columns: int | None) -> int:
    """Return how many columns make a sheet about square, unless that is said."""
    if n_columns is None:
        return int(np.ceil(np.sqrt(n_images)))
    check_at_least("n_columns", n_columns, 1)
    return min(n_columns, n_images)


def draw_sheet(ax: Axes, images, n_columns, *, limits, cmap="gray", border=1.0, fold=None):
    """Draw equally large images side by side, row by row, as one picture with thin white borders.

    Images of a fourth axis, of 3, are in colour: each of red, green and blue goes from 0 at the first of
    ``limits`` to full at the second. ``fold`` draws one more thin line through every image, below that many
    of its rows of pixels.
    """
    n_rows = -(-len(images) // n_columns)
    height, width, *colours = images.shape[1:]
    sheet = np.full((n_rows * n_columns, height, width, *colours), np.nan)
    sheet[: len(images)] = images
    sheet = sheet.reshape(n_rows, n_columns, height, width, *colours).swapaxes(1, 2)
    sheet = sheet.reshape(n_rows * height, n_columns * width, *colours)
    if colours:
        # Only here matplotlib takes values as they are, and has no colour for what is missing.
        sheet = np.nan_to_num(np.clip((sheet - limits[0]) / (limits[1] - limits[0]), 0, 1), nan=1.0)
    picture = ax.imshow(sheet, cmap=cmap, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    right, bottom = n_columns * width - 0.5, n_rows * height - 0.5
    across = [[(-0.5, row * height - 0.5), (right, row * height - 0.5)] for row in range(n_rows + 1)]
    down = [[(col * width - 0.5, -0.5), (col * width - 0.5, bottom)] for col in range(n_columns + 1)]
    if border:
        ax.add_collection(LineCollection(across + down, colors="white", linewidths=border))
    if fold is not None:
        folds = [
            [(-0.5, row * height + fold - 0.5), (right, row * height + fold - 0.5)] for row in range(n_rows)
        ]
        ax.add_collection(LineCollection(folds, colors="white", linewidths=1.0))
    ax.set(xlim=(-0.5, right), ylim=(bottom, -0.5), xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_visible(False)
    return picture
