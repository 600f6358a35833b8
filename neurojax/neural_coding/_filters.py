"""Model receptive fields to look at stimuli with: Gabors, centre and surround, and the six of the course."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import host_array, real_array
from .._checks import check_at_least, check_finite, check_nonnegative, check_positive
from .._gabor import envelope_and_phase
from ._angles import warn_unless_degrees
from ._stimuli import check_image_shape, cos_sin_degrees, finite_number, offsets, positive_number

__all__ = ["center_surround", "course_filters", "gabor_bank", "gabor_filter"]

Scalar = Real[ArrayLike, ""]
Numbers = Sequence[float | int] | Real[Array, " _"] | Real[np.ndarray, " _"]

_COURSE_SIDE, _COURSE_EXTENT = 7, 3.5
_COURSE_SIGMA = 1.1
_COURSE_ORIENTATIONS = (0, 45, 90, 135)


def gabor_filter(
    orientation_degrees: Scalar,
    shape: tuple[int, int],
    *,
    period: Scalar,
    width_across: Scalar,
    width_along: Scalar | None = None,
    phase_degrees: Scalar = 0,
    center: tuple[Scalar, Scalar] | None = None,
    pixels_per_degree: Scalar = 1,
) -> Float[Array, "rows columns"]:
    """Draw a Gabor function, a sinusoid under a Gaussian, in degrees of visual angle as stimuli are.

    With θ the orientation, (y, x) the way down and to the right from the centre, across = y·cos θ + x·sin θ
    and along = x·cos θ − y·sin θ, the value is

        exp(−½(across/width_across)² − ½(along/width_along)²)·cos(2π·across/period + phase).

    The orientation is that of the bars, counter-clockwise from horizontal as drawn (as in
    `neurojax.receptive_fields`), so that a `grating` drives it most that moves at a right angle to it, in the
    directions θ ± 90°.

    Lengths (``period``, the widths, ``center``) are degrees of visual angle, or pixels as long as
    ``pixels_per_degree`` is 1. Batch with ``jax.vmap`` over any of the numbers.

    Args:
        orientation_degrees: θ; fixes the dtype (a Python number: JAX's default).
        shape: rows and columns, in pixels.
        period: of the sinusoid, > 0.
        width_across: standard deviation of the envelope across the bars, > 0.
        width_along: the same along the bars; by default as across them.
        phase_degrees: 0 makes an even function, ±90 an odd one.
        center: (row, column) from the middle of the top left pixel; by default the middle of the image.
        pixels_per_degree: how many pixels a degree of visual angle has, > 0.

    Returns:
        The function at the pixels' centres, in [−1, 1]. Its mean is not 0 for an even function; see
        `gabor_bank`.

    Raises:
        ValueError: for a shape or a length that is not one.

    Example:
        >>> filter = gabor_filter(90.0, (5, 5), period=4, width_across=2)
        >>> print(np.round(np.asarray(filter[2], float), 3) + 0.0)  # upright bars
        [-0.607  0.     1.     0.    -0.607]
    """
    check_image_shape(shape)
    orientation = finite_number("orientation_degrees", orientation_degrees)
    phase_degrees = finite_number("phase_degrees", phase_degrees)
    period = positive_number("period", period)
    width_along = width_across if width_along is None else width_along
    width_across = positive_number("width_across", width_across)
    width_along = positive_number("width_along", width_along)
    pixels_per_degree = positive_number("pixels_per_degree", pixels_per_degree)
    envelope, phase = envelope_and_phase(
        offsets(shape, center, pixels_per_degree, orientation.dtype),
        cos_sin_degrees(orientation),
        across_scale=1 / width_across,
        along_scale=1 / width_along,
        frequency=1 / period,
    )
    return (envelope * jnp.cos(phase + 2 * jnp.pi * phase_degrees / 360)).astype(orientation.dtype)


def gabor_bank(
    shape: tuple[int, int],
    *,
    orientations_degrees: Numbers,
    periods: Numbers,
    phases_degrees: Numbers = (0, 90),
    width_across_periods: float | int = 0.4,
    width_along_periods: float | int = 0.4,
    pixels_per_degree: float | int = 1,
) -> Float[Array, "filters rows columns"]:
    """Draw `gabor_filter` for every period, orientation and phase, in the middle of the image.

    Each has its mean over the image taken away, so that it is blind to uniform light, and is then divided by
    √(Σ value²).

    Args:
        shape: rows and columns, in pixels, at least 2 each.
        orientations_degrees: of the bars.
        periods: in degrees of visual angle, or in pixels as long as ``pixels_per_degree`` is 1; more than two
            pixels each, as a finer wave is not what the pixels would show.
        phases_degrees: by default a quadrature pair.
        width_across_periods: standard deviation of the envelope across the bars, in periods of the filter.
        width_along_periods: the same along the bars.
        pixels_per_degree: how many pixels a degree of visual angle has.

    Returns:
        The filters, in JAX's default precision: periods slowest, then orientations, phases fastest.

    Raises:
        ValueError: for an empty list, for too fine a period, and as `gabor_filter`.

    Example:
        >>> gabor_bank((12, 16), orientations_degrees=(0, 45, 90, 135), periods=(4, 8)).shape
        (16, 12, 16)
    """
    axes = {
        "periods": periods,
        "orientations_degrees": orientations_degrees,
        "phases_degrees": phases_degrees,
    }
    check_image_shape(shape)
    check_at_least("shape", min(shape), 2)
    axes = {name: host_array(name, values, "numbers") for name, values in axes.items()}
    for name, values in axes.items():
        if not len(values):
            raise ValueError(f"{name}: expected at least one number, got none.")
        check_finite(name, values)
    warn_unless_degrees("orientations_degrees", axes["orientations_degrees"], np.inf)
    check_positive("width_across_periods", width_across_periods)
    check_positive("width_along_periods", width_along_periods)
    check_positive("pixels_per_degree", pixels_per_degree)
    finest = axes["periods"].min() * pixels_per_degree
    if finest <= 2:
        raise ValueError(f"periods: expected more than 2 pixels each, got {finest:g}.")
    grid = np.meshgrid(*(np.asarray(values, float) for values in axes.values()), indexing="ij")

    def one(period, orientation, phase):
        return gabor_filter(
            orientation,
            shape,
            period=period,
            width_across=width_across_periods * period,
            width_along=width_along_periods * period,
            phase_degrees=phase,
            pixels_per_degree=pixels_per_degree,
        )

    filters = jax.vmap(one)(*(jnp.asarray(values.reshape(-1)) for values in grid))
    filters = filters - jnp.mean(filters, (1, 2), keepdims=True)
    return filters / jnp.linalg.norm(filters, axis=(1, 2), keepdims=True)


def center_surround(
    shape: tuple[int, int],
    *,
    center_width: Scalar,
    surround_width: Scalar,
    surround_weight: Scalar = 1,
    center: tuple[Scalar, Scalar] | None = None,
    pixels_per_degree: Scalar = 1,
) -> Float[Array, "rows columns"]:
    """Draw a centre that excites and a surround that inhibits, as a difference of Gaussians.

    With r the distance from the centre, c and s the widths and w the weight, the value is

        exp(−r²/2c²) − w·(c/s)²·exp(−r²/2s²),

    so that at w = 1 both have the same volume and uniform light no effect (as far as both fit into the
    image). The negative is a cell with an inhibiting centre.

    Lengths (the widths, ``center``) are degrees of visual angle, or pixels as long as ``pixels_per_degree``
    is 1.

    Args:
        shape: rows and columns, in pixels.
        center_width: c, standard deviation of the centre, > 0; fixes the dtype (a Python number: JAX's
            default).
        surround_width: s, standard deviation of the surround, > 0.
        surround_weight: w, the volume of the surround over that of the centre, ≥ 0.
        center: (row, column) from the middle of the top left pixel; by default the middle of the image.
        pixels_per_degree: how many pixels a degree of visual angle has, > 0.

    Returns:
        The function at the pixels' centres; 1 − w·(c/s)² in its middle.

    Raises:
        ValueError: for a shape, a length or a weight that is not one.

    Reference: Rodieck (1965), Quantitative analysis of cat retinal ganglion cell response to visual stimuli,
    Vision Research 5, 583-601.

    Example:
        >>> filter = center_surround((5, 5), center_width=1, surround_width=2)
        >>> print(np.round(np.asarray(filter[2], float), 3))
        [-0.016  0.386  0.75   0.386 -0.016]
    """
    check_image_shape(shape)
    width = positive_number("center_width", center_width)
    surround_width = positive_number("surround_width", surround_width)
    check_nonnegative("surround_weight", surround_weight)
    surround_weight = real_array("surround_weight", surround_weight)
    pixels_per_degree = positive_number("pixels_per_degree", pixels_per_degree)
    rows, columns = offsets(shape, center, pixels_per_degree, width.dtype)
    squared = rows**2 + columns**2
    surround = (width / surround_width) ** 2 * jnp.exp(-squared / (2 * surround_width**2))
    return (jnp.exp(-squared / (2 * width**2)) - surround_weight * surround).astype(width.dtype)


def course_filters() -> Float[Array, "filters=6 rows=7 columns=7"]:
    """Draw the six 7 × 7 filters that the encoder of the course's tutorial starts from.

    On y (down the rows) and x (along the columns), each 7 points from −3.5 to 3.5, with r = √(x² + y²) and
    σ = 1.1: filter 0 is exp(−r/2σ²) − ½·exp(−r/2(2σ)²), filter 1 its negative, and filters 2 to 5 are
    exp(−r/2(0.4σ)²)·cos(2πu/10 + π/2) with u = y·cos θ + x·sin θ for θ = 0, 45, 90, 135°. Each is divided by
    its largest absolute value, and then its mean is taken away. The envelopes decay with r, not with r² as
    Gaussians do: so they are in the course, and so they are here; `gabor` and `center_surround` are proper.

    Returns:
        The filters, in JAX's default precision.

    Reference: Neuromatch Academy (2021), Computational Neuroscience, Deep Learning 1 (decoding and encoding).

    Example:
        >>> course_filters().shape
        (6, 7, 7)
    """
    y, x = np.meshgrid(*2 * [np.linspace(-_COURSE_EXTENT, _COURSE_EXTENT, _COURSE_SIDE)], indexing="ij")
    radius = np.hypot(x, y)

    def decay(sigma):
        return np.exp(-radius / (2 * sigma**2))

    angles = np.deg2rad(_COURSE_ORIENTATIONS)[:, None, None]
    across = y * np.cos(angles) + x * np.sin(angles)
    waves = decay(0.4 * _COURSE_SIGMA) * np.cos(2 * np.pi * across / 10 + np.pi / 2)
    centre = decay(_COURSE_SIGMA) - decay(2 * _COURSE_SIGMA) / 2
    filters = np.concatenate([[centre, -centre], waves])
    filters /= np.max(np.abs(filters), (1, 2), keepdims=True)
    return jnp.asarray(filters - np.mean(filters, (1, 2), keepdims=True), float)
