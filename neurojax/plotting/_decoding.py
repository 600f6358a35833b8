"""Pictures of decoded angles, against those shown."""

import numpy as np
from jaxtyping import Num
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

from .._checks import check_at_least, check_positive, check_rank, check_shape, check_size
from ._canvas import ACCENT, COLOURS, FAINT, INK, AnyArray, new_axes, numbers, tidy
from ._degrees import angle_ticks, check_angles, degrees, difference, legend_below, matrix, points, wrap

__all__ = ["confusion", "decoded_against_true", "decoded_on_circle", "error_against_angle", "error_histogram"]

_BY_ERROR = LinearSegmentedColormap.from_list("by error", ["#8FC3E8", COLOURS[0], "#7B4B94", ACCENT])


def decoded_against_true(
    true_degrees: Num[AnyArray, " trials"],
    predicted_degrees: Num[AnyArray, " trials"],
    ax: Axes | None = None,
    *,
    period_degrees: float | int = 360,
    bin_edges_degrees: Num[AnyArray, " edges"] | None = None,
) -> Axes:
    """Draw decoded angles against true ones, with what perfect decoding would be.

    That is the line y = x, which comes in again at the two corners where the circle closes. With bins it is
    a staircase at their centres, and the edges are faint lines. The area of a point grows with the number
    of trials that lie there.

    Args:
        true_degrees: of each trial.
        predicted_degrees: of each trial; NaN for a trial that was not decoded.
        ax: where to draw; ``None`` makes a new figure.
        period_degrees: after which angles come round. All are drawn in [0, period), or, with bins, in one
            period from their first edge.
        bin_edges_degrees: increasing, over one whole period, as ``AngleBins.edges_degrees``.

    Returns:
        The Axes.

    Raises:
        ValueError: for lengths that differ, no trials, a period that is not positive, and edges that do not
            increase or do not cover one period.
    """
    true, predicted = check_angles("true_degrees", true_degrees, "predicted_degrees", predicted_degrees)
    check_positive("period_degrees", period_degrees)
    edges = None if bin_edges_degrees is None else _edges(bin_edges_degrees, period_degrees)
    start = 0.0 if edges is None else float(edges[0])
    end, margin = start + period_degrees, 0.04 * period_degrees
    ax = new_axes(ax, (5, 5))
    limits = (start - margin, end + margin)
    angle_ticks(ax.xaxis, period_degrees)
    angle_ticks(ax.yaxis, period_degrees)
    tidy(ax, "true angle", "decoded angle")
    if edges is None:
        for turn in (-period_degrees, 0, period_degrees):
            label = None if turn else "decoded = true"
            ax.plot(limits, np.add(limits, turn), color=INK, lw=1, ls="--", label=label, zorder=1)
    else:
        ax.grid(False)
        across = [[(start, edge), (end, edge)] for edge in edges]
        down = [[(edge, start), (edge, end)] for edge in edges]
        ax.add_collection(LineCollection(across + down, colors="#DDDDDD", linewidths=0.7, zorder=0.5))
        middles = (edges[:-1] + edges[1:]) / 2
        ax.stairs(middles, edges, baseline=None, color=INK, lw=1.2, label="decoded = true bin", zorder=1)
    _scatter(ax, wrap(true, period_degrees, start), wrap(predicted, period_degrees, start))
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    return ax


def error_against_angle(
    true_degrees: Num[AnyArray, " trials"],
    errors_degrees: Num[AnyArray, " trials"],
    ax: Axes | None = None,
    *,
    period_degrees: float | int = 360,
    window_degrees: float | int | None = None,
    chance_degrees: float | int | None = None,
) -> Axes:
    """Draw the error of each trial against its angle, with the running median.

    The area of a point grows with the number of trials that lie there.

    Args:
        true_degrees: of each trial, drawn in [0, period).
        errors_degrees: of each trial the short way round: absolute, or decoded − true where any is negative
            (their median is then that of signed numbers, not of a circle); NaN for a trial that was not
            decoded.
        ax: where to draw; ``None`` makes a new figure.
        period_degrees: after which true angles come round.
        window_degrees: of the median, which goes round the circle; ``None`` takes a twelfth of it. Where no
            trial lies in the window the line is broken.
        chance_degrees: the median absolute error of knowing nothing (a quarter of the errors' period where
            angles are even), drawn as a dashed line.

    Returns:
        The Axes.

    Raises:
        ValueError: for lengths that differ, no trials, and a period or window that is not positive.
    """
    true, errors = check_angles("true_degrees", true_degrees, "errors_degrees", errors_degrees)
    check_positive("period_degrees", period_degrees)
    window = period_degrees / 12 if window_degrees is None else window_degrees
    check_positive("window_degrees", window)
    ax = new_axes(ax)
    true, is_signed = wrap(true, period_degrees), bool(np.any(errors < 0))
    _scatter(ax, true, errors)
    centers = np.linspace(0, period_degrees, 241)
    medians = _running_median(true, errors, centers, window, period_degrees)
    ax.plot(centers, medians, color=ACCENT, lw=2, label=f"median over {degrees(window)}")
    if is_signed:
        ax.axhline(0, color=INK, lw=0.8, zorder=1)
    for sign in (-1, 1) if is_signed else (1,):
        if chance_degrees is not None:
            label = f"chance, {degrees(chance_degrees)}" if sign == 1 else None
            ax.axhline(sign * chance_degrees, color=INK, lw=1, ls="--", label=label)
    angle_ticks(ax.xaxis, period_degrees)
    largest = np.max(np.abs(errors[np.isfinite(errors)]), initial=0.0)
    angle_ticks(ax.yaxis, 2 * largest if is_signed else largest)
    ax.set_xlim(-0.02 * period_degrees, 1.02 * period_degrees)
    legend_below(ax)
    return tidy(ax, "true angle", "decoded − true" if is_signed else "error, the short way round")


def error_histogram(
    errors_degrees: Num[AnyArray, " trials"],
    ax: Axes | None = None,
    *,
    period_degrees: float | int = 360,
    chance_degrees: Num[AnyArray, " samples"] | None = None,
    n_bins: int = 36,
) -> Axes:
    """Draw the distribution of absolute errors, their median, and what chance would give.

    Args:
        errors_degrees: of each trial the short way round, absolute or signed (drawn without their sign);
            NaN for a trial that was not decoded.
        ax: where to draw; ``None`` makes a new figure.
        period_degrees: of the errors: their range is [0, period/2].
        chance_degrees: errors of decoding with permuted angles; ``None`` takes an even density over the
            circle, 2/period.
        n_bins: of equal width over the range, ≥ 1.

    Returns:
        The Axes.

    Raises:
        ValueError: for no errors, errors beyond period/2, and ``n_bins < 1``.
    """
    check_positive("period_degrees", period_degrees)
    check_at_least("n_bins", n_bins, 1)
    errors = _sizes("errors_degrees", errors_degrees, period_degrees)
    edges = np.linspace(0, period_degrees / 2, n_bins + 1)
    chance, middle = np.full(n_bins, 200 / period_degrees), period_degrees / 4
    if chance_degrees is not None:
        permuted = _sizes("chance_degrees", chance_degrees, period_degrees)
        chance, middle = _percent_per_degree(permuted, edges), float(np.median(permuted))
    ax = new_axes(ax)
    ax.stairs(_percent_per_degree(errors, edges), edges, fill=True, color=COLOURS[0], alpha=0.8)
    median = float(np.median(errors))
    ax.axvline(median, color=ACCENT, lw=1.8, label=f"median {median:.1f}°")
    kind = {"color": INK, "lw": 1.2, "ls": "--", "baseline": None}
    ax.stairs(chance, edges, label=f"chance, median {middle:.1f}°", **kind)
    ax.set_xlim(0, period_degrees / 2)
    angle_ticks(ax.xaxis, period_degrees / 2)
    ax.legend(frameon=False, loc="upper right")
    return tidy(ax, "error, the short way round", "trials (% per degree)")


def decoded_on_circle(
    true_degrees: Num[AnyArray, " trials"],
    predicted_degrees: Num[AnyArray, " trials"],
    ax: Axes | None = None,
    *,
    period_degrees: float | int = 360,
) -> Axes:
    """Draw each trial as a line from its true angle on an outer ring to its decoded one on an inner ring.

    Lines that point to the centre are trials without error; the larger an error, the warmer its colour and
    the later it is drawn. Of trials with the same two angles one line is drawn, which is the wider the more
    they are. A period of 180° fills the whole circle too.

    Args:
        true_degrees: of each trial.
        predicted_degrees: of each trial; one with NaN is left out.
        ax: where to draw (an ordinary, not a polar one); ``None`` makes a new figure.
        period_degrees: after which angles come round.

    Returns:
        The Axes.

    Raises:
        ValueError: for lengths that differ, no trials, and a period that is not positive.
    """
    true, predicted = check_angles("true_degrees", true_degrees, "predicted_degrees", predicted_degrees)
    check_positive("period_degrees", period_degrees)
    pairs, counts = points(wrap(true, period_degrees), wrap(predicted, period_degrees))
    errors = np.abs(difference(pairs[:, 1], pairs[:, 0], period_degrees))
    order = np.argsort(errors, kind="stable")
    pairs, errors = pairs[order], errors[order]
    ends = np.stack([_on_ring(pairs[:, k], (1.0, 0.6)[k], period_degrees) for k in range(2)], 1)
    widths = np.maximum(min(0.9, 7 / max(counts, default=1)) * counts[order], 0.6)
    ax = new_axes(ax, (6, 5))
    around = np.linspace(0, period_degrees, 361)
    for radius in (1.0, 0.6):
        ax.plot(*_on_ring(around, radius, period_degrees).T, color=FAINT, lw=1, zorder=1)
    lines = LineCollection(list(ends), array=errors, cmap=_BY_ERROR, linewidths=widths)
    lines.set_clim(0, period_degrees / 2)
    ax.add_collection(lines)
    for ring in range(2):
        ax.scatter(*ends[:, ring].T, s=8, color=INK, linewidths=0, zorder=3)
    step = 45 if period_degrees > 200 else 15
    for angle in np.arange(0, period_degrees, step):
        x, y = _on_ring(angle, 1.13, period_degrees)
        ax.text(x, y, degrees(angle), ha="center", va="center", fontsize=9)
    bar = ax.figure.colorbar(lines, ax=ax, pad=0.02, shrink=0.75)
    bar.set_label("error, the short way round")
    bar.outline.set_visible(False)
    angle_ticks(bar.ax.yaxis, period_degrees / 2)
    ax.set(xlim=(-1.25, 1.25), ylim=(-1.25, 1.25), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_xlabel("outer ring: true angle; inner ring: decoded angle")
    return ax


def confusion(
    counts: Num[AnyArray, "classes classes"],
    ax: Axes | None = None,
    *,
    centers_degrees: Num[AnyArray, " classes"] | None = None,
) -> Axes:
    """Draw a confusion matrix: of each true class the shares that were decoded as each class.

    The counts themselves are written into a matrix of up to 12 classes. A class without trials is grey.

    Args:
        counts: of trials by true class (rows) and decoded class (columns), as
            `neurojax.neural_coding.confusion_matrix`.
        ax: where to draw; ``None`` makes a new figure.
        centers_degrees: the angle of each class; ``None`` numbers them from 0.

    Returns:
        The Axes.

    Raises:
        ValueError: for counts that are not a square matrix or are negative, and angles that do not match.
    """
    values = matrix("counts", counts, "classes classes").astype(float)
    n_classes = len(values)
    check_size("counts", values, 1, n_classes, "decoded classes, as true ones,")
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"counts: expected finite numbers ≥ 0, got {values.min()} to {values.max()}.")
    names = [str(k) for k in range(n_classes)]
    if centers_degrees is not None:
        check_shape("centers_degrees", centers_degrees, (n_classes,), "one for each class")
        names = [degrees(round(float(center), 2)) for center in np.asarray(centers_degrees)]
    totals = values.sum(axis=1, keepdims=True)
    shares = np.divide(100 * values, totals, out=np.full_like(values, np.nan), where=totals > 0)
    ax = new_axes(ax, (6, 5))
    ax.set_facecolor("#DDDDDD")
    picture = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    for (row, column), count in np.ndenumerate(values if n_classes <= 12 else np.empty((0, 0))):
        colour = FAINT if count == 0 else "white" if shares[row, column] > 55 else INK
        ax.text(column, row, f"{count:g}", ha="center", va="center", fontsize=8, color=colour)
    bar = ax.figure.colorbar(picture, ax=ax, pad=0.02)
    bar.set_label("share of the true class (%)")
    bar.outline.set_visible(False)
    ticks = np.arange(0, n_classes, -(-n_classes // 12))
    ax.set_xticks(ticks, [names[k] for k in ticks], rotation=45 if n_classes > 8 else 0)
    ax.set_yticks(ticks, [names[k] for k in ticks])
    ax.tick_params(length=2)
    ax.spines[:].set_visible(False)
    ax.set(xlabel="decoded angle" if centers_degrees is not None else "decoded class")
    ax.set(ylabel="true angle" if centers_degrees is not None else "true class")
    return ax


def _edges(edges, period_degrees) -> np.ndarray:
    check_rank("bin_edges_degrees", edges, "edges")
    edges = numbers("bin_edges_degrees", edges).astype(float)
    widths = np.diff(edges)
    if len(widths) == 0 or not np.all(widths > 0) or not np.isclose(np.sum(widths), period_degrees):
        raise ValueError(
            f"bin_edges_degrees: expected increasing angles over {period_degrees:g}°, got {edges.tolist()}."
        )
    return edges


def _sizes(name, errors, period_degrees) -> np.ndarray:
    sizes = np.abs(numbers(name, errors, "trials").astype(float))
    sizes = sizes[~np.isnan(sizes)]
    if len(sizes) == 0:
        raise ValueError(f"{name}: expected at least one number, got none.")
    if sizes.max() > period_degrees / 2 * (1 + 1e-6):
        raise ValueError(
            f"{name}: expected at most {period_degrees / 2:g}° (period/2), got {sizes.max():g}°."
        )
    return np.minimum(sizes, period_degrees / 2)


def _percent_per_degree(errors, edges) -> np.ndarray:
    return 100 * np.histogram(errors, edges)[0] / len(errors) / np.diff(edges)


def _scatter(ax: Axes, x, y) -> None:
    """Draw points whose area grows with the number of trials that lie there."""
    pairs, counts = points(x, y)
    area = min(18.0, 400 / max(counts, default=1)) * counts
    ax.scatter(*pairs.T, s=area, color=COLOURS[0], alpha=0.6, linewidths=0, zorder=2)


def _on_ring(angles, radius, period_degrees) -> np.ndarray:
    phase = 2 * np.pi * np.asarray(angles) / period_degrees
    return radius * np.stack([np.cos(phase), np.sin(phase)], -1)


def _running_median(true, errors, centers, window, period_degrees) -> np.ndarray:
    medians = np.full(len(centers), np.nan)
    for i, center in enumerate(centers):
        is_near = np.abs(difference(true, center, period_degrees)) <= window / 2
        near = errors[is_near & ~np.isnan(errors)]
        if len(near):
            medians[i] = np.median(near)
    return medians
