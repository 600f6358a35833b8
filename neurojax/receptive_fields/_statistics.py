"""Statistics of fitted receptive fields, as they are reported for neurons."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._checks import check_nonnegative
from ._fit import GaborFit
from ._gabor import Gabor

__all__ = [
    "aspect_ratio",
    "envelope_cycles",
    "frequency_bandwidth",
    "gabor_share",
    "gabor_summary",
    "is_gabor_like",
    "orientation_bandwidth",
]


def is_gabor_like(
    fits: GaborFit, threshold: float | int = 0.7, *, least_cycles: float | int = 0.125
) -> Bool[np.ndarray, " atoms"]:
    """Return which atoms are like a Gabor function: well fitted, by a grating that can be seen as one.

    An atom counts where R² ≥ ``threshold`` and n_x = width_across · frequency ≥ ``least_cycles``. At the
    default of an eighth of a cycle, ±2 standard deviations of the envelope hold half a period of the
    grating. With less, an even function has one sign over that range and an odd one rises throughout: the
    fit is a blob or an edge, which `fit_gabor` describes ever better by ever lower frequencies.

    Args:
        fits: of a batch of atoms.
        threshold: of R², at most 1.
        least_cycles: of n_x, in cycles, ≥ 0; 0 counts every good fit, blobs and edges too.

    Returns:
        One truth value for each atom; False where R² is NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.receptive_fields import Gabor, fit_gabor_batch, gabor_batch, is_gabor_like
        >>> ones = jnp.ones(2)
        >>> frequency = jnp.array([0.2, 1 / 48])  # a grating of several bars, and one bar: a blob
        >>> truth = Gabor(5.5 * ones, 5.5 * ones, 30 * ones, frequency, 2 * ones, 3 * ones, 0 * ones, ones)
        >>> is_gabor_like(fit_gabor_batch(gabor_batch(truth, (12, 12)), (12, 12))).tolist()
        [True, False]
    """
    check_nonnegative("least_cycles", least_cycles)
    n_x, _ = envelope_cycles(fits.gabor)
    return (np.asarray(fits.r_squared) >= threshold) & (np.asarray(n_x) >= least_cycles)


def gabor_share(fits: GaborFit, threshold: float | int = 0.7, *, least_cycles: float | int = 0.125) -> float:
    """Return the share of atoms that are like a Gabor function, as `is_gabor_like` judges.

    Args:
        fits: of a batch of atoms.
        threshold: of R², at most 1.
        least_cycles: of n_x, in cycles, ≥ 0.

    Returns:
        A share in [0, 1]; an atom whose R² is NaN counts as not described.
    """
    return float(np.mean(is_gabor_like(fits, threshold, least_cycles=least_cycles)))


def frequency_bandwidth(parameters: Gabor) -> Float[Array, "*batch"]:
    """Return the full width of the amplitude spectrum at half its height, in octaves.

    log₂((f + Δ)/(f − Δ)) with Δ = √(2 ln 2)/(2π width_across) cycles per pixel; infinite where Δ ≥ f (a
    low-pass filter). The spectrum is that of the envelope about +f, without the tail of the one about −f.

    Reference:
        van Hateren & van der Schaaf 1998, Proc. R. Soc. B 265, 359-366, fig. 4 (1.1 to 1.5 octaves in V1).
    """
    half = jnp.sqrt(2 * jnp.log(2.0)) / (2 * jnp.pi * parameters.width_across)
    below = parameters.frequency - half
    octaves = jnp.log2((parameters.frequency + half) / jnp.where(below > 0, below, 1))
    return jnp.where(below > 0, octaves, jnp.inf).astype(parameters.frequency.dtype)


def orientation_bandwidth(parameters: Gabor) -> Float[Array, "*batch"]:
    """Return the full width of orientation tuning at half the amplitude, in degrees.

    2 arctan(Δ/f) with Δ = √(2 ln 2)/(2π width_along) cycles per pixel: the angle under which the half-height
    points of the spectrum, taken along the bars through its peak, are seen from the origin.

    Reference:
        van Hateren & van der Schaaf 1998, Proc. R. Soc. B 265, 359-366.
    """
    half = jnp.sqrt(2 * jnp.log(2.0)) / (2 * jnp.pi * parameters.width_along)
    return jnp.rad2deg(2 * jnp.arctan2(half.astype(parameters.frequency.dtype), parameters.frequency))


def aspect_ratio(parameters: Gabor) -> Float[Array, "*batch"]:
    """Return width_along/width_across: above 1 where the field is longer than wide.

    Reference:
        Jones & Palmer 1987, J. Neurophysiol. 58, 1233-1258.
    """
    return parameters.width_along / parameters.width_across


def envelope_cycles(parameters: Gabor) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Return the envelope's two widths counted in cycles of the grating.

    n_x = width_across · frequency and n_y = width_along · frequency: shape without size. Simple cells lie
    between blobs (both near 0) and n_x about 0.5, n_y mostly a little above n_x.

    Returns:
        ``n_x`` and ``n_y``, in cycles.

    Reference:
        Ringach 2002, J. Neurophysiol. 88, 455-463, fig. 6.
    """
    return parameters.width_across * parameters.frequency, parameters.width_along * parameters.frequency


def gabor_summary(
    fits: GaborFit, threshold: float | int = 0.7, *, least_cycles: float | int = 0.125
) -> dict[str, float]:
    """Summarize the fits of a dictionary in a few numbers.

    Args:
        fits: of a batch of atoms.
        threshold: the R² from which an atom counts as described by its fit.
        least_cycles: the n_x, in cycles, from which that fit counts as a Gabor function (`is_gabor_like`).

    Returns:
        ``share`` (see `gabor_share`), ``edge_share`` (the share of atoms whose fit is as good, but a blob or
        an edge) and ``median_r_squared`` of all atoms; then medians over the atoms of ``share`` (NaN if
        there are none): ``frequency`` (cycles per pixel), ``frequency_bandwidth`` (octaves),
        ``orientation_bandwidth`` (degrees), ``aspect_ratio``, ``n_x``, ``n_y`` (cycles).
    """
    described = is_gabor_like(fits, threshold, least_cycles=least_cycles)
    share, all_good = float(np.mean(described)), float(np.mean(np.asarray(fits.r_squared) >= threshold))
    n_x, n_y = envelope_cycles(fits.gabor)
    columns = {
        "frequency": fits.gabor.frequency,
        "frequency_bandwidth": frequency_bandwidth(fits.gabor),
        "orientation_bandwidth": orientation_bandwidth(fits.gabor),
        "aspect_ratio": aspect_ratio(fits.gabor),
        "n_x": n_x,
        "n_y": n_y,
    }
    summary = {
        "share": share,
        "edge_share": all_good - share,
        "median_r_squared": float(np.median(fits.r_squared)),
    }
    for name, column in columns.items():
        chosen = np.asarray(column)[described]
        summary[name] = float(np.median(chosen)) if chosen.size else float("nan")
    return summary
