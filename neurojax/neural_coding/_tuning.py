"""Tuning curves: how they are made of trials, smoothed on the circle, and described by a few figures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import check_finite, check_kind, check_positive, check_rank, check_shape, check_size
from .._precision import product
from ._angles import AngleBins, from_phase, to_phase
from ._metrics import as_float_responses

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


class BinnedResponses(NamedTuple):
    """Responses averaged over the trials whose angle falls in a bin.

    Attributes:
        responses: the mean in each bin; NaN in a bin without trials.
        angles_degrees: the centres of the bins.
        n_trials: how many trials a mean is of.
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
    check_rank("responses", responses, "trials neurons")
    check_kind("bins", bins, AngleBins)
    check_rank("angles_degrees", angles_degrees, "trials")
    check_size("angles_degrees", angles_degrees, 0, np.shape(responses)[0], "trials (as responses)")
    check_finite("angles_degrees", angles_degrees)
    responses = as_float_responses("responses", responses)
    # One bin more, which is dropped: trials without an angle.
    index = jnp.where(jnp.isfinite(jnp.asarray(angles_degrees)), bins.index(angles_degrees), bins.n_bins)
    sums = jax.ops.segment_sum(responses, index, bins.n_bins + 1)[:-1]
    n_trials = jnp.bincount(index, length=bins.n_bins + 1)[:-1]
    means = sums / jnp.maximum(n_trials, 1)[:, None].astype(responses.dtype)
    means = jnp.where(n_trials[:, None] > 0, means, jnp.nan)
    return BinnedResponses(means, jnp.asarray(bins.centers_degrees, responses.dtype), n_trials)


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
        curves: over the whole circle.
        width_bins: the standard deviation σ of the Gaussian, in bins, > 0. From a whole circle up the
            result is flat.

    Raises:
        ValueError: for a width that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> print(100 * circular_smooth(jnp.array([1.0, 0.0, 0.0, 0.0]), 0.5).round(2))
        [79. 11.  0. 11.]
    """
    check_positive("width_bins", width_bins)
    curves = as_float_responses("curves", curves)
    n_bins = curves.shape[-1]
    # A wider Gaussian is flat to 5e-9 as well, but would need more turns.
    width = jnp.minimum(jnp.asarray(width_bins, curves.dtype), n_bins)
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
        angles_degrees: the angle of each bin.
    """
    return _vector_angle(curves, angles_degrees, 360)


def preferred_orientation(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Compute half the angle of Σ R(θ)·exp(2iθ), in [0, 180).

    Otherwise as `preferred_direction`; opposite directions count as one orientation.
    """
    return _vector_angle(curves, angles_degrees, 180)


def peak_angle(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Return the angle of the largest response (of equal ones the first); NaN for a curve that holds NaN."""
    curves, angles = _curves(curves, angles_degrees)
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
        angles_degrees: the angle of each bin.
        period_degrees: of the angles, 360 or 180.

    Example:
        >>> import jax.numpy as jnp
        >>> curve, angles = jnp.array([3.0, 1.0, 3.0, 1.0]), jnp.array([0.0, 90.0, 180.0, 270.0])
        >>> float(orientation_selectivity(curve, angles))
        0.5
    """
    curves, angles = _curves(curves, angles_degrees)
    sides = [_around(curves, angles, shift, period_degrees) for shift in (-90, 90)]
    return _contrast(curves, (sides[0] + sides[1]) / 2)


def direction_selectivity(
    curves: Real[ArrayLike, "*neurons bins"], angles_degrees: Real[ArrayLike, " bins"]
) -> Float[Array, "*neurons"]:
    """Compute DSI = (R_pref − R_opp)/(R_pref + R_opp), R_opp the response 180° from the largest one.

    Negative responses and bins that do not lie there are treated as in `orientation_selectivity`.
    """
    curves, angles = _curves(curves, angles_degrees)
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
        angles_degrees: the angle of each bin, evenly spaced.
        period_degrees: 180 for orientation tuning (also by directions), 360 for direction tuning.

    Reference:
        Ringach, Shapley & Hawken 2002, J. Neurosci. 22, 5639-5651.
    """
    check_positive("period_degrees", period_degrees)
    curves, angles = _curves(curves, angles_degrees)
    cosine, sine = _vector(curves, angles, period_degrees)
    is_flat = (cosine == 0) & (sine == 0)  # where a length has no derivative: 0 is taken
    length = jnp.where(is_flat, 0, jnp.hypot(jnp.where(is_flat, 1, cosine), sine))
    total = jnp.sum(curves, -1)
    is_defined = (total > 0) & jnp.all(curves >= 0, -1)
    return jnp.where(is_defined, 1 - length / jnp.where(is_defined, total, 1), jnp.nan)


def _vector(curves, angles, period):
    """Return the two parts of the vector sum."""
    phases = to_phase(angles, period)
    return product(curves, jnp.cos(phases)), product(curves, jnp.sin(phases))


def _vector_angle(curves, angles_degrees, period):
    curves, angles = _curves(curves, angles_degrees)
    # Over evenly spaced angles the mean adds nothing but rounding.
    curves = curves - jnp.mean(curves, -1, keepdims=True)
    cosine, sine = _vector(curves, angles, period)
    return from_phase(jnp.arctan2(sine, cosine), period)


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
    check_shape("angles_degrees", angles_degrees, curves.shape[-1:], "an angle for each bin of a curve")
    return curves, jnp.asarray(angles_degrees).astype(curves.dtype)
