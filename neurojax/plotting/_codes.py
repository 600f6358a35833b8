"""Codes: which units are active, how strongly, and how often."""

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes

from .._checks import check_at_least, check_positive, check_rank, check_size
from ._canvas import ACCENT, COLOURS, FAINT, INK, AnyArray, new_axes, numbers, tidy

__all__ = ["active_units", "code_histogram", "code_raster", "code_stem", "unit_activity"]


def code_raster(
    codes: Num[AnyArray, "samples units"], ax: Axes | None = None, *, limit: float | int | None = None
) -> Axes:
    """Draw codes as an image, one row a sample: red above zero, blue below, white at zero.

    Args:
        codes: one code a row.
        ax: where to draw; ``None`` makes a new figure.
        limit: the coefficient at which colours saturate; ``None`` takes the 99th percentile of the
            absolute values that are not zero.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not a matrix, and for ``limit ≤ 0``.
    """
    values = _matrix("codes", codes)
    if limit is None:
        sizes = np.abs(values[np.isfinite(values) & (values != 0)])
        limit = float(np.percentile(sizes, 99)) if sizes.size else 1.0
    check_positive("limit", limit)
    ax = new_axes(ax, (7, 4))
    kind = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "interpolation": "nearest"}
    picture = ax.imshow(values, aspect="auto", **kind)
    bar = ax.figure.colorbar(picture, ax=ax, extend="both", pad=0.02)
    bar.set_label("coefficient")
    bar.outline.set_visible(False)
    ax.set(xlabel="unit", ylabel="sample")
    return ax


def code_stem(
    code: Num[AnyArray, " units"],
    ax: Axes | None = None,
    *,
    reference: Num[AnyArray, " units"] | None = None,
) -> Axes:
    """Draw one code: a stem for each active unit.

    Args:
        code: of one sample.
        ax: where to draw; ``None`` makes a new figure.
        reference: another code of the same sample, drawn as rings.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not vectors of one length.
    """
    values = numbers("code", code, "units")
    other = None if reference is None else numbers("reference", reference)
    if other is not None:
        check_rank("reference", other, "units")
        check_size("reference", other, 0, len(values), "units, as in code,")
    ax = new_axes(ax, (7, 3))
    is_active = values != 0
    units = np.flatnonzero(is_active)
    ax.vlines(units, 0, values[is_active], color=COLOURS[0], lw=1.4)
    label = f"{len(units)} of {len(values)} active"
    ax.plot(units, values[is_active], "o", color=COLOURS[0], markersize=4, label=label)
    if other is not None:
        shown = np.flatnonzero(other)
        ring = {"markerfacecolor": "none", "color": ACCENT, "markersize": 8, "label": "reference"}
        ax.plot(shown, other[shown], "o", **ring)
    ax.axhline(0, color=INK, lw=0.8)
    ax.set_xlim(-1, len(values))
    ax.legend(frameon=False)
    return tidy(ax, "unit", "coefficient")


def code_histogram(
    codes: Num[AnyArray, "samples units"], ax: Axes | None = None, *, n_bins: int = 101
) -> Axes:
    """Draw the distribution of coefficients on a logarithmic axis, beside a Gaussian around 0.

    The Gaussian has mean 0 and the mean square of the coefficients, zeros included (their variance, where
    signs are balanced). The density is that of all coefficients; exact zeros are left out of the bars,
    their share is written on the picture. Bars are symmetric about 0.

    Args:
        codes: one code a row.
        ax: where to draw; ``None`` makes a new figure.
        n_bins: bars, ≥ 1.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not a matrix, and for ``n_bins < 1``.
    """
    values = _matrix("codes", codes).reshape(-1)
    check_at_least("n_bins", n_bins, 1)
    ax = new_axes(ax)
    values = values[np.isfinite(values)]
    active = values[values != 0]
    limit = float(np.max(np.abs(active), initial=0.0)) or 1.0
    counts, edges = np.histogram(active, n_bins, (-limit, limit))
    density = counts / max(len(values), 1) / np.diff(edges)
    ax.stairs(density, edges, fill=True, color=COLOURS[0], alpha=0.8)
    spread = float(np.sqrt(np.mean(values**2))) if active.size else 0.0
    if spread > 0:
        points = np.linspace(-limit, limit, 401)
        bell = np.exp(-(points**2) / (2 * spread**2)) / (spread * np.sqrt(2 * np.pi))
        ax.plot(points, bell, color=INK, lw=1.2, ls="--", label="Gaussian of equal mean square")
        floor = 0.5 * density[density > 0].min()
        ax.set_ylim(floor, 3 * max(density.max(), bell.max()))
        ax.legend(frameon=False, loc="upper right")
    ax.set_yscale("log")
    share = 1 - active.size / max(len(values), 1)
    ax.text(0.03, 0.84, f"{100 * share:.1f} % are zero", transform=ax.transAxes, va="top", color=INK)
    ax.set_xlim(-limit, limit)
    return tidy(ax, "coefficient", "density")


def active_units(codes: Num[AnyArray, "samples units"], ax: Axes | None = None) -> Axes:
    """Draw how many units each sample uses: a histogram over samples, and its mean.

    Args:
        codes: one code a row; a unit is active where its coefficient is not zero.
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not a matrix.
    """
    values = _matrix("codes", codes)
    counts = np.count_nonzero(values, axis=1)
    ax = new_axes(ax)
    step = max(1, int(np.ptp(counts)) // 40)
    edges = np.arange(counts.min(), counts.max() + step + 1, step) - 0.5
    ax.hist(counts, bins=list(edges), color=COLOURS[0], alpha=0.8)
    mean = float(np.mean(counts))
    ax.axvline(mean, color=ACCENT, lw=1.6, ls="--", label=f"mean {mean:.1f} of {values.shape[1]}")
    ax.legend(frameon=False)
    return tidy(ax, "active units", "samples")


def unit_activity(codes: Num[AnyArray, "samples units"], ax: Axes | None = None) -> Axes:
    """Draw in what share of samples each unit is active, the busiest first.

    Args:
        codes: one code a row; a unit is active where its coefficient is not zero.
        ax: where to draw; ``None`` makes a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: for codes that are not a matrix.
    """
    values = _matrix("codes", codes)
    share = np.sort(np.mean(values != 0, axis=0))[::-1]
    ax = new_axes(ax)
    ax.bar(np.arange(len(share)), 100 * share, width=1.0, color=COLOURS[0], alpha=0.8)
    n_dead = int(np.sum(share == 0))
    ax.axhline(100 * share.mean(), color=ACCENT, lw=1.6, ls="--", label=f"mean {100 * share.mean():.1f} %")
    if n_dead:
        ax.axvspan(
            len(share) - n_dead - 0.5,
            len(share) - 0.5,
            color=FAINT,
            alpha=0.4,
            label=f"{n_dead} never active",
        )
    ax.set_xlim(-0.5, len(share) - 0.5)
    ax.legend(frameon=False)
    return tidy(ax, "unit, by activity", "active in (% of samples)")


def _matrix(name, codes) -> np.ndarray:
    values = numbers(name, codes, "samples units")
    if values.size == 0:
        raise ValueError(f"{name}: expected at least one sample and one unit, got shape {values.shape}.")
    return values
