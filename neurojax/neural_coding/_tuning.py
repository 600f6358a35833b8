"""Tuning curves: how they are made of trials, smoothed on the circle, and described by a few figures."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import device_array, host_array, real_array
from .._checks import check_finite, check_kind, check_positive, check_shape, check_size, is_concrete
from .._precision import product
from .._rows import hypot
from ._angles import AngleBins, from_phase, to_phase, warn_unless_degrees
from ._metrics import as_float_responses, in_own_unit

__all__ = [
    "BinnedResponses",
    "bin_responses",
    "circular_smooth",
    "circular_variance",
    "direction_selectivity",
    "orientation_selectivity",
    "peak_angle",
    "preferred_direction",
    "preferred_orientation",
    "tuning_curves",
]

_LARGEST_SHIFT = 0.1  # of an angle from its place on an even division, in steps, as in `AngleBins.around`


class BinnedResponses(NamedTuple):
    """Responses averaged over the trials whose angle falls in a bin.

    Attributes:
        responses: the mean in each bin; NaN in a bin without trials.
        angles_degrees: the centres of the bins.
        n_trials: the number of trials averaged.
    """

    responses: Float[Array, "bins neurons"]
    angles_degrees: Float[Array, " bins"]
    n_trials: Int[Array, " bins"]


def bin_responses(
    responses: Real[ArrayLike, "trials neurons"],
    angles_degrees: Real[ArrayLike, " trials"],
    bins: AngleBins,
) -> BinnedResponses:
    """Average responses over the trials of each bin: fewer, less noisy trials of wider bins.

    Args:
        responses: one trial a row; integers (spike counts) become floating-point numbers.
        angles_degrees: the angle of each trial.
        bins: half-open bins round the circle.

    Raises:
        ValueError: for arrays of other form, lengths that do not match, and angles that are NaN or infinite;
            inside ``jit``, where values are not known, a trial with such an angle is not counted.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> responses = jnp.array([[1.0], [3.0], [5.0]])
        >>> binned = jax.jit(bin_responses)(responses, jnp.array([0.0, 360.0, 200.0]), AngleBins(2))
        >>> print(binned.responses[:, 0], binned.angles_degrees, binned.n_trials)
        [2. 5.] [ 90. 270.] [2 1]
    """
    responses = as_float_responses("responses", responses, "trials neurons")
    angles = real_array("angles_degrees", angles_degrees, "trials")
    check_kind("bins", bins, AngleBins)
    check_size("angles_degrees", angles, 0, len(responses), "trials (as responses)")
    check_finite("angles_degrees", angles_degrees)
    warn_unless_degrees("angles_degrees", angles_degrees, bins.period_degrees)
    # One bin more, which is dropped: trials without an angle.
    index = jnp.where(jnp.isfinite(angles), bins.index(angles), bins.n_bins)
    means, n_trials = _means_of(responses, index, bins.n_bins)
    return BinnedResponses(means, jnp.asarray(bins.centers_degrees, responses.dtype), n_trials)


@partial(jax.jit, static_argnames="n_bins")
def _means_of(responses: Array, index: Array, n_bins: int) -> tuple[Array, Array]:
    """Return the mean response of each bin, NaN without trials, and the number of its trials."""
    sums = jax.ops.segment_sum(responses, index, n_bins + 1)[:-1]
    n_trials = jnp.bincount(index, length=n_bins + 1)[:-1]
    means = sums / jnp.maximum(n_trials, 1)[:, None].astype(responses.dtype)
    return jnp.where(n_trials[:, None] > 0, means, jnp.nan), n_trials


def tuning_curves(
    responses: Real[ArrayLike, "trials neurons"],
    angles_degrees: Real[ArrayLike, " trials"],
    bins: AngleBins,
) -> Float[Array, "neurons bins"]:
    """Compute each neuron's mean response in each bin of the angle; NaN in a bin without trials.

    Arguments and errors are those of `bin_responses`; the angles of the curves are ``bins.centers_degrees``.
    """
    return bin_responses(responses, angles_degrees, bins).responses.T


def circular_smooth(
    curves: Real[ArrayLike, "*neurons bins"], width_bins: Float[ArrayLike, ""] | float | int
) -> Float[Array, "*neurons bins"]:
    """Smooth curves over evenly spaced angles with a Gaussian that goes round the circle.

    The kernel is ∝ Σₘ exp(−(d + m·bins)²/(2·width²)) for a distance of d bins, with sum 1: the mean of a
    curve stays, and rotating it before or after is the same.

    Args:
        curves: over the whole circle, the first angle not repeated at the end.
        width_bins: the standard deviation σ of the Gaussian, in bins, > 0. From a whole circle up the
            result is flat.

    Raises:
        ValueError: for a width that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> print(100 * circular_smooth(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.5).round(2))
        [79. 11.  0. 11.]
    """
    curves, width = as_float_responses("curves", curves), real_array("width_bins", width_bins)
    check_positive("width_bins", width_bins)
    return _smoothed(curves, width.astype(curves.dtype))


@jax.jit
def _smoothed(curves: Array, width: Array) -> Array:
    n_bins = curves.shape[-1]
    # A wider Gaussian is flat to 5e-9 as well, but would need more turns.
    width = jnp.minimum(width, n_bins)
    turns = np.arange(-7, 8)[:, None] * n_bins
    kernel = jnp.sum(jnp.exp(-(((np.arange(n_bins) + turns) / width) ** 2) / 2), 0)
    kernel = (kernel / jnp.sum(kernel)).astype(curves.dtype)
    distance = (np.arange(n_bins)[:, None] - np.arange(n_bins)) % n_bins
    return product(curves, kernel[distance])


def preferred_direction(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Compute the angle of Σ R(θ)·exp(iθ), in [0, 360).

    Over evenly spaced angles a constant added to the curve changes nothing, so z-scores may be used as
    they are. A flat curve has no preferred angle, and the result is rounding's choice; NaN gives NaN.

    Args:
        curves: responses by angle.
        angles_degrees: the angle of each bin, evenly spaced round the whole circle (each to a tenth of a
            step). An angle that comes twice, as 0° and 360° do, counts once, with the mean of its responses.

    Raises:
        ValueError: for angles that are known and are not an even division of the whole circle, over which a
            sum of vectors tells more of the angles than of the curve.

    Example:
        >>> import jax.numpy as jnp
        >>> angles = jnp.linspace(0, 360, 9)
        >>> round(float(preferred_direction(1 + jnp.cos(jnp.deg2rad(angles - 60)), angles)), 2)
        60.0
    """
    return _vector_angle(curves, angles_degrees, 360)


def preferred_orientation(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Compute half the angle of Σ R(θ)·exp(2iθ), in [0, 180).

    Otherwise as `preferred_direction`, with angles that divide a circle of 180° evenly. Opposite directions
    count as one orientation, with the mean of their responses.
    """
    return _vector_angle(curves, angles_degrees, 180)


def peak_angle(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Return the angle of the largest response (of equal ones the first); NaN for a curve that holds NaN."""
    curves, angles = _curves(curves, angles_degrees)
    warn_unless_degrees("angles_degrees", angles_degrees, np.inf)
    peak = angles[jnp.argmax(curves, -1)]
    return jnp.where(jnp.any(jnp.isnan(curves), -1), jnp.nan, peak)


def orientation_selectivity(
    curves: Real[ArrayLike, "*neurons bins"],
    angles_degrees: Real[ArrayLike, " bins"],
    period_degrees: float | int = 360,
) -> Float[Array, "*neurons"]:
    """Compute OSI = (R_pref − R_orth)/(R_pref + R_orth).

    R_pref is the largest response; R_orth the mean of the responses 90° to either side of it, interpolated
    linearly on the circle where no bin lies there.

    Args:
        curves: responses by angle, ≥ 0; a curve with negative responses (z-scores) or without any gives NaN:
            rectify it, or subtract its least response, knowing that this changes the index.
        angles_degrees: the angle of each bin, evenly spaced round the whole circle as for
            `preferred_direction`.
        period_degrees: of the angles, 360 or 180.

    Raises:
        ValueError: for angles that are known and are not an even division of the whole circle.

    Example:
        >>> import jax.numpy as jnp
        >>> curve, angles = jnp.array([3.0, 1.0, 3.0, 1.0]), jnp.array([0.0, 90.0, 180.0, 270.0])
        >>> float(orientation_selectivity(curve, angles))
        0.5
    """
    check_positive("period_degrees", period_degrees)
    curves, angles = _curves(curves, angles_degrees)
    _shares(curves, angles_degrees, period_degrees)
    sides = [_around(curves, angles, shift, period_degrees) for shift in (-90, 90)]
    return _contrast(curves, (sides[0] + sides[1]) / 2)


def direction_selectivity(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Compute DSI = (R_pref − R_opp)/(R_pref + R_opp), R_opp the response 180° from the largest one.

    Angles, negative responses and bins that do not lie there are treated as in `orientation_selectivity`.
    """
    curves, angles = _curves(curves, angles_degrees)
    _shares(curves, angles_degrees, 360)
    return _contrast(curves, _around(curves, angles, 180, 360))


def circular_variance(
    curves: Real[ArrayLike, "*neurons bins"],
    angles_degrees: Real[ArrayLike, " bins"],
    period_degrees: float | int = 180,
) -> Float[Array, "*neurons"]:
    """Compute 1 − |Σ R(θ)·exp(i·2πθ/period)| / Σ R(θ): 0 for one angle alone, 1 for a flat curve.

    Args:
        curves: responses by angle, ≥ 0; a curve with negative responses (z-scores) or without any gives
            NaN, as the ratio is then no share: rectify it, or subtract its least response.
        angles_degrees: the angle of each bin, evenly spaced round the whole circle; one that comes twice, as
            0° and 360° do, counts once, with the mean of its responses.
        period_degrees: 180 for orientation tuning (also by directions), 360 for direction tuning.

    Raises:
        ValueError: for angles that are known and are not an even division of the whole circle.

    Reference:
        Ringach, Shapley & Hawken 2002, J. Neurosci. 22, 5639-5651.
    """
    check_positive("period_degrees", period_degrees)
    curves, angles = _curves(curves, angles_degrees)
    curves, _ = in_own_unit(curves * _shares(curves, angles_degrees, period_degrees), -1)
    resultant = hypot(*_vector(curves, angles, period_degrees))
    total = jnp.sum(curves, -1)
    is_defined = (total > 0) & jnp.all(curves >= 0, -1)
    return jnp.where(is_defined, 1 - resultant / jnp.where(is_defined, total, 1), jnp.nan)


def _vector(curves, angles, period):
    """Return the two parts of the vector sum."""
    phases = to_phase(angles, period)
    return product(curves, jnp.cos(phases)), product(curves, jnp.sin(phases))


def _vector_angle(curves, angles_degrees, period):
    curves, angles = _curves(curves, angles_degrees)
    share = device_array(_shares(curves, angles_degrees, period))
    return _angle_of(curves, share, angles, period)


@eqx.filter_jit
def _angle_of(curves: Array, share: Array, angles: Array, period: float | int) -> Array:
    curves, _ = in_own_unit(curves, -1)
    # Over evenly spaced angles the mean adds nothing but rounding.
    curves = share * (curves - jnp.sum(share * curves, -1, keepdims=True) / jnp.sum(share))
    cosine, sine = _vector(curves, angles, period)
    return from_phase(jnp.arctan2(sine, cosine), period)


def _shares(curves, angles_degrees, period) -> np.ndarray:
    """Return how much each angle counts: 1, or where angles come twice, the inverse of how often.

    Angles that JAX traces count 1 each.

    Raises:
        ValueError: for known angles that are not an even division of the circle.
    """
    if not is_concrete(angles_degrees) or not is_concrete(period):
        return np.ones(np.shape(angles_degrees), curves.dtype)
    known = host_array("angles_degrees", angles_degrees).astype(np.float64)
    check_finite("angles_degrees", known)
    # First those that are one direction (a closed circle), then those that are one angle of the period.
    share = 1 / _counts(known, max(period, 360))
    share /= _counts(known, period, share)
    n_distinct = round(float(share.sum()))
    steps = np.mod(known - known.min(initial=np.inf), period) * n_distinct / period
    is_even = np.all(np.abs(steps - np.round(steps)) <= _LARGEST_SHIFT)
    n_places = len(np.unique(np.mod(np.round(steps), n_distinct))) if is_even else 0
    if n_distinct < 2 or n_places < n_distinct:
        shown = ", ".join(f"{angle:g}" for angle in known[:6]) + (", …" if len(known) > 6 else "")
        raise ValueError(
            f"angles_degrees: expected angles in degrees that divide the whole circle of {period:g}° evenly, "
            f"got {shown or 'none'}; bin or interpolate the curves, or choose the period of the stimuli."
        )
    return share.astype(curves.dtype)


def _counts(angles: np.ndarray, period, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the weights of the angles that equal each angle, to a hundredth of their mean step."""
    weights = np.ones(len(angles)) if weights is None else weights
    apart = np.abs(np.mod(angles[:, None] - angles + period / 2, period) - period / 2)
    return (apart <= period / max(len(angles), 1) / 100) @ weights


def _around(curves, angles, shift, period):
    """Return the response at an angle from each curve's largest one."""
    wanted = angles[jnp.argmax(curves, -1)] + shift
    flat = curves.reshape(-1, curves.shape[-1])
    read = jax.vmap(lambda x, curve: jnp.interp(x, angles, curve, period=period))
    return read(wanted.reshape(-1), flat).reshape(wanted.shape)


def _contrast(curves, other):
    """Return (largest − other)/(largest + other) where responses are not negative."""
    largest = jnp.max(curves, -1)
    is_defined = (largest > 0) & jnp.all(curves >= 0, -1)
    return jnp.where(is_defined, (largest - other) / jnp.where(is_defined, largest + other, 1), jnp.nan)


def _curves(curves, angles_degrees):
    curves = as_float_responses("curves", curves)
    angles = real_array("angles_degrees", angles_degrees, "bins")
    check_shape("angles_degrees", angles, curves.shape[-1:], "an angle for each bin of a curve")
    return curves, angles.astype(curves.dtype)
