"""Pictures of autoencoders: spectra, the plane of codes, and sheets of decoded images."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Int, Num
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from .._arrays import whole_array
from .._checks import check_rank, check_shape, check_size
from ._canvas import COLOURS, STYLES, AnyArray, draw_sheet, new_axes, numbers, tidy

__all__ = ["latent_scatter", "manifold", "spectrum"]


def spectrum(
    curves: Mapping[str, Num[AnyArray, " _directions"] | Num[AnyArray, "_samples _directions"]],
    ax: Axes | None = None,
    *,
    quantity: str = "singular value",
) -> Axes:
    """Draw singular values against their rank on a logarithmic scale, the largest first.

    For a contractive autoencoder: the singular values of the encoder's Jacobian, a row a sample; what is
    drawn is the mean over samples of the k-th largest. Zeros, for which the scale has no place, are left out.

    Args:
        curves: a label (for the legend) for each array of singular values ≥ 0, in any order.
        ax: where to draw; ``None`` makes a new figure.
        quantity: what is drawn, for the axis.

    Returns:
        The Axes.

    Raises:
        ValueError: for no curves, an empty one, one of another rank, and values that are negative or not
            finite.

    Reference: Rifai, Vincent, Muller, Glorot, Bengio (2011), Contractive auto-encoders: explicit invariance
    during feature extraction, ICML, 833-840.
    """
    if len(curves) == 0:
        raise ValueError("curves: expected at least one curve, got none.")
    means = {label: _mean_spectrum(f"curves[{label!r}]", values) for label, values in curves.items()}
    ax = new_axes(ax)
    for i, (label, values) in enumerate(means.items()):
        rank, shown = np.arange(1, len(values) + 1), np.where(values > 0, values, np.nan)
        ax.plot(rank, shown, label=label, color=COLOURS[i % 6], ls=STYLES[i // 6 % 4], lw=2)
    ax.set_yscale("log")
    ax.legend(frameon=False)
    label = f"mean {quantity}" if any(np.ndim(values) == 2 for values in curves.values()) else quantity
    return tidy(ax, "rank", label)


def latent_scatter(
    codes: Num[AnyArray, "samples 2"],
    labels: Int[AnyArray, " samples"],
    ax: Axes | None = None,
    *,
    names: Sequence[str] | None = None,
    size: float | int = 9,
) -> Axes:
    """Draw codes in the plane, each in the colour of its class.

    Points lie upon each other in the order of the samples, so that no class hides another.

    Args:
        codes: two coordinates a sample.
        labels: classes, whole numbers ≥ 0.
        ax: where to draw; ``None`` makes a new figure.
        names: of the classes 0, 1, …, for the legend; ``None`` writes their numbers.
        size: area of a point, in square points.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not two columns, labels that do not match them, are negative, or have
            no name, and for no samples.
    """
    codes = numbers("codes", codes, "samples coordinates")
    check_size("codes", codes, 1, 2, "coordinates")
    check_shape("labels", labels, np.shape(codes)[:1], "one for each code")
    points, classes = codes, np.asarray(whole_array("labels", labels))
    if len(points) == 0:
        raise ValueError("codes: expected at least one sample, got none.")
    if classes.min() < 0 or (names is not None and classes.max() >= len(names)):
        most = "" if names is None else f" and below {len(names)}, the number of names"
        raise ValueError(f"labels: expected classes ≥ 0{most}, got {classes.min()} to {classes.max()}.")
    present = np.unique(classes)
    colours = _class_colours(int(present[-1]) + 1)
    ax = new_axes(ax, (6, 5))
    ax.scatter(*points.T, s=size, c=[colours[label] for label in classes], alpha=0.75, linewidths=0)
    handles = []
    for label in present:
        name = str(label) if names is None else names[label]
        handles.append(Line2D([], [], marker="o", ls="", color=colours[label], label=name))
    ax.legend(handles=handles, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.set_aspect("equal", adjustable="datalim")
    return tidy(ax, "code $z_1$", "code $z_2$")


def manifold(
    images: Num[AnyArray, "rows columns height width"]
    | Num[AnyArray, "rows columns height width channels=3"],
    ax: Axes | None = None,
    *,
    limits: tuple[float | int, float | int] = (0.0, 1.0),
    cmap: str = "gray",
) -> Axes:
    """Draw a sheet of images without borders, in the rows and columns they come in.

    For what a decoder makes of a grid of codes, or of one code moved along one dimension a row.

    Args:
        images: grey, or with a last axis of red, green and blue; the first row of images is drawn on top.
        ax: where to draw; ``None`` makes a new figure.
        limits: the values that become black and white; those beyond saturate.
        cmap: a matplotlib colour map, for grey images.

    Returns:
        The Axes.

    Raises:
        ValueError: for no images, images that are neither grey nor in colour, and limits that do not rise.
    """
    values = numbers("images", images)
    has_colour = values.ndim == 5
    axes = "rows columns height width"
    check_rank("images", images, f"{axes} colours" if has_colour else axes)
    if has_colour:
        check_size("images", images, 4, 3, "colours")
    if not limits[0] < limits[1]:
        raise ValueError(f"limits: expected the value of black below that of white, got {limits}.")
    if values.size == 0:
        raise ValueError(
            f"images: expected at least one image, of at least one pixel, got shape {values.shape}."
        )
    n_rows, n_columns, height, width = values.shape[:4]
    ax = new_axes(ax, (8, 8 * n_rows * height / (n_columns * width)))
    cells = values.reshape(n_rows * n_columns, *values.shape[2:])
    draw_sheet(ax, cells, n_columns, limits=limits, cmap=cmap, border=0)
    return ax


def _mean_spectrum(name: str, values) -> np.ndarray:
    values = numbers(name, values).astype(float)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(
            f"{name}: expected shape (directions,) or (samples, directions), neither 0, got {values.shape}."
        )
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"{name}: expected finite numbers ≥ 0, got {values.min()} to {values.max()}.")
    return np.mean(np.sort(np.atleast_2d(values), axis=1)[:, ::-1], axis=0)


def _class_colours(n_classes: int) -> list:
    """Return as many colours: the library's own as long as they last, else matplotlib's ten, or a wheel."""
    if n_classes <= len(COLOURS):
        return COLOURS
    if n_classes <= 10:
        return list(mpl.colormaps["tab10"](np.arange(10)))
    return list(mpl.colormaps["hsv"](np.arange(n_classes) / n_classes))
