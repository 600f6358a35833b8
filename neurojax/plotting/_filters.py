"""Learned filters, their Gabor fits, and how these are distributed."""

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.patches import Arc

from .._checks import check_size
from ._canvas import (
    COLOURS,
    FAINT,
    INK,
    AnyArray,
    PatchShape,
    check_patches,
    check_scale,
    draw_sheet,
    new_axes,
    numbers,
    peaks,
    square_columns,
    tidy,
)

__all__ = ["atom_grid", "gabor_fits", "gabor_shapes", "orientation_frequency"]


def atom_grid(
    atoms: Num[AnyArray, "atoms features"],
    patch_shape: PatchShape,
    ax: Axes | None = None,
    *,
    scale: str = "each",
    n_columns: int | None = None,
    cmap: str = "gray",
) -> Axes:
    """Draw atoms as a sheet of small images, zero in mid-gray.

    Args:
        atoms: one flattened patch (row-major) a row.
        patch_shape: rows and columns of a patch, in pixels; (rows, columns, 3) for patches in red, green and
            blue, all three on one scale: what is 0 in all is mid-gray.
        ax: where to draw; ``None`` makes a new figure.
        scale: ``"each"`` divides every atom by its own largest absolute value; ``"common"`` draws all on
            one scale, ± the largest absolute value of all.
        n_columns: atoms side by side; ``None`` makes the sheet about square.
        cmap: a matplotlib colour map, for atoms that are not in colour.

    Returns:
        The Axes.

    Raises:
        ValueError: for atoms whose width is not that of ``patch_shape``, and for another ``scale`` or kind of
            ``patch_shape``.
    """
    check_scale(scale)
    images = check_patches("atoms", atoms, patch_shape)
    limit = 1.0 if scale == "each" else float(np.max(np.abs(images))) or 1.0
    if scale == "each":
        images = images / peaks(images)
    n_columns = square_columns(len(images), n_columns)
    ax = new_axes(ax, (6, 6))
    draw_sheet(ax, images, n_columns, limits=(-limit, limit), cmap=cmap)
    return ax


def gabor_fits(
    atoms: Num[AnyArray, "atoms features"],
    fitted: Num[AnyArray, "atoms features"],
    patch_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    r_squared: Num[AnyArray, " atoms"] | None = None,
    n_columns: int = 10,
) -> Axes:
    """Draw atoms, below each the Gabor function fitted to it on the same scale, and its R².

    Args:
        atoms: one flattened patch (row-major) a row.
        fitted: the fits drawn in the same way (`neurojax.receptive_fields.gabor_batch`).
        patch_shape: rows and columns of a patch, in pixels.
        ax: where to draw; ``None`` makes a new figure.
        r_squared: written below each pair.
        n_columns: pairs side by side.

    Returns:
        The Axes.

    Raises:
        ValueError: for arrays that do not match each other or ``patch_shape``.
    """
    images = check_patches("atoms", atoms, patch_shape, is_grey=True)
    fits = check_patches("fitted", fitted, patch_shape, is_grey=True)
    check_size("fitted", fits, 0, len(images), "fits, one for each atom,")
    scales = peaks(images)
    pairs = np.concatenate([images / scales, np.clip(fits / scales, -1, 1)], axis=1)
    if r_squared is not None:
        check_size("r_squared", r_squared, 0, len(images), "numbers, one for each atom,")
        caption = np.full((len(pairs), max(3, patch_shape[0] // 3), patch_shape[1]), np.nan)
        pairs = np.concatenate([pairs, caption], axis=1)
    n_columns = square_columns(len(pairs), n_columns)
    n_rows = -(-len(pairs) // n_columns)
    height, width = pairs.shape[1:]
    ax = new_axes(ax, (0.8 * n_columns, 0.8 * n_rows * height / width))
    draw_sheet(ax, pairs, n_columns, limits=(-1, 1), border=3.0, fold=patch_shape[0])
    for i, value in enumerate([] if r_squared is None else np.asarray(r_squared)):
        row, column = divmod(i, n_columns)
        place = ((column + 0.5) * width - 0.5, row * height + (2 * patch_shape[0] + height) / 2 - 0.5)
        ax.text(*place, f"{value:.2f}", ha="center", va="center", fontsize=7, color=INK)
    return ax


def orientation_frequency(
    orientation: Num[AnyArray, " atoms"],
    frequency: Num[AnyArray, " atoms"],
    ax: Axes | None = None,
    *,
    limit: float | int | None = None,
) -> Axes:
    """Draw each filter in the half plane: the angle is its orientation, the radius its frequency.

    Args:
        orientation: of the bars, in degrees in [0, 180).
        frequency: in cycles per pixel.
        ax: where to draw (an ordinary, not a polar one); ``None`` makes a new figure.
        limit: the outermost frequency shown; ``None`` takes the next tenth above the largest.

    Returns:
        The Axes.
    """
    radius = numbers("frequency", frequency)
    angle = np.deg2rad(numbers("orientation", orientation))
    check_size("frequency", radius, 0, len(angle), "numbers, one for each orientation,")
    largest = np.max(radius[np.isfinite(radius)], initial=0.0)
    limit = limit or max(0.1, float(np.ceil(largest * 10 - 1e-6) / 10))
    ax = new_axes(ax, (6, 3.6))
    for ring in np.linspace(0, limit, 5)[1:]:
        ax.add_patch(Arc((0, 0), 2 * ring, 2 * ring, theta1=0, theta2=180, color="#DDDDDD", lw=0.8))
        ax.text(ring, -0.03 * limit, f"{ring:.3g}", ha="center", va="top", fontsize=8, color=INK)
    for degrees in range(0, 181, 30):
        x, y = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        ax.plot([0, limit * x], [0, limit * y], color="#DDDDDD", lw=0.8, zorder=1)
        ax.text(1.07 * limit * x, 1.07 * limit * y, f"{degrees}°", ha="center", va="center", fontsize=9)
    points = radius * np.cos(angle), radius * np.sin(angle)
    ax.scatter(*points, s=26, color=COLOURS[0], alpha=0.75, edgecolors="white", linewidths=0.6, zorder=3)
    margin = 1.16 * limit
    ax.set(xlim=(-margin, margin), ylim=(-0.13 * limit, margin), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_xlabel("radius: frequency (cycles per pixel); angle: orientation (degrees)")
    return ax


def gabor_shapes(n_x: Num[AnyArray, " atoms"], n_y: Num[AnyArray, " atoms"], ax: Axes | None = None) -> Axes:
    """Draw the shape of each filter: its envelope's widths in cycles of its grating.

    Args:
        n_x: width across the bars times frequency, in cycles.
        n_y: width along the bars times frequency, in cycles.
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        The Axes.

    Reference:
        Ringach 2002, J. Neurophysiol. 88, 455-463, fig. 6.
    """
    across, along = numbers("n_x", n_x), numbers("n_y", n_y)
    check_size("n_y", along, 0, len(across), "numbers, one for each n_x,")
    ax = new_axes(ax, (4.5, 4.5))
    finite = np.concatenate([across, along, [0.9]])
    limit = 1.08 * float(np.max(finite[np.isfinite(finite)]))
    ax.plot([0, limit], [0, limit], color=FAINT, lw=1, ls="--", zorder=1)
    ax.scatter(across, along, s=26, color=COLOURS[0], alpha=0.75, edgecolors="white", linewidths=0.6)
    ax.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    return tidy(ax, "$n_x$: width across · frequency (cycles)", "$n_y$: width along · frequency (cycles)")
