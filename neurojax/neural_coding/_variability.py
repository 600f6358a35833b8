"""Variability of responses to the same stimulus: correlations, reliability, neurons that never vary."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from .._precision import product
from .._types import PRNGKey
from ._explained import as_repeats
from ._metrics import (
    as_float_responses,
    in_own_unit,
    labelled_trials,
    response_correlation,
)

__all__ = [
    "constant_neurons",
    "noise_correlations",
    "signal_correlations",
    "split_half_reliability",
    "trial_to_trial_reliability",
]


def constant_neurons(responses: Real[ArrayLike, "trials neurons"]) -> Bool[Array, " neurons"]:
    """Return which neurons answer every trial alike (to rounding), silent ones among them, or hold NaN.

    Such a neuron can be neither z-scored nor correlated; ``responses[:, ~constant_neurons(responses)]``
    drops them.

    Example:
        >>> import jax.numpy as jnp
        >>> print(constant_neurons(jnp.array([[0.0, 1.0, jnp.nan], [0.0, 2.0, 1.0]])))
        [ True False  True]
    """
    responses = as_float_responses("responses", responses, "trials neurons")
    largest, least = jnp.max(responses, 0), jnp.min(responses, 0)
    size = jnp.maximum(jnp.abs(largest), jnp.abs(least))
    is_varied = largest - least > 8 * _eps(responses) * size
    return ~(is_varied & jnp.all(jnp.isfinite(responses), 0))


def signal_correlations(tuning: Real[ArrayLike, "neurons bins"]) -> Float[Array, "neurons neurons"]:
    """Compute Pearson's correlation between the tuning curves of all pairs of neurons.

    NaN in the rows and columns of neurons whose curve is constant or holds NaN. The result of n neurons
    has n² numbers: choose neurons first.
    """
    return _correlations(as_float_responses("tuning", tuning, "neurons bins").T)


def noise_correlations(
    responses: Real[ArrayLike, "trials neurons"],
    labels: Integer[ArrayLike, " trials"],
    n_labels: int,
    *,
    is_z_scored: bool = False,
) -> Float[Array, "neurons neurons"]:
    """Compute Pearson's correlation of all pairs of neurons in what each trial adds to its condition's mean.

    Residuals of all conditions are pooled. As they are, conditions of large variance, which for counts are
    those that drive a neuron best, weigh most; z-scored by condition, every trial weighs alike, as is usual
    in the field. A condition seen once has a residual of 0 and adds nothing. NaN for neurons whose residuals
    are all 0 or that hold NaN. The unit of a neuron's responses does not matter.

    Args:
        responses: one trial a row.
        labels: the condition of each trial, 0 to n_labels − 1.
        n_labels: how many conditions, ≥ 1.
        is_z_scored: whether to divide the residuals of each neuron by their standard deviation within the
            condition (ddof 1); those of a condition in which it does not vary stay 0.

    Raises:
        ValueError: for lengths that do not match, counts below 1, and labels out of range; inside ``jit``,
            where values are not known, a trial whose label is out of range is not counted.

    Reference:
        Cohen & Kohn 2011, Nat. Neurosci. 14, 811-819.
    """
    responses, labels, is_counted = labelled_trials(responses, labels, n_labels)
    responses, labels = jnp.where(is_counted[:, None], responses, 0), jnp.where(is_counted, labels, n_labels)
    # One label more: trials of no condition, whose responses are now 0, and so their residuals.
    n_trials = jnp.bincount(labels, length=n_labels + 1).astype(responses.dtype)[:, None]

    def by_condition(rows):
        return jax.ops.segment_sum(rows, labels, n_labels + 1)

    responses, _ = in_own_unit(responses)
    residuals = responses - (by_condition(responses) / jnp.maximum(n_trials, 1))[labels]
    # Of a neuron that answers each condition alike only rounding is left.
    rounding = 8 * _eps(responses) * jnp.max(jnp.abs(responses), 0)
    if is_z_scored:
        residuals = _z_scored(residuals, rounding, by_condition, n_trials, labels)
    is_rounding = jnp.max(jnp.abs(residuals), 0) <= rounding
    return _correlations(jnp.where(is_rounding, 0, residuals))


def split_half_reliability(
    responses: Real[ArrayLike, "repeats stimuli neurons"], key: PRNGKey, *, is_corrected: bool = True
) -> Float[Array, " neurons"]:
    """Compute the correlation over stimuli between the means of two halves of the repeats, chosen at random.

    With an odd number of repeats, the second half gets the extra one. With r the correlation and a and
    b the shares of the repeats in the two halves, the reliability of the mean over all repeats is
    2r/(r + √(4ab + (1 − 4ab)·r²)); for equal halves that is Spearman and Brown's 2r/(1 + r).

    Args:
        responses: to at least 2 repeats of each stimulus.
        key: of the choice; average over keys for less scatter.
        is_corrected: whether to give the reliability of the mean over all repeats, and not r, which for
            equal halves is that of the mean over half of them.

    Returns:
        Of each neuron the reliability or r; NaN where a half is constant or holds NaN.

    Raises:
        ValueError: for responses without three axes or with fewer than 2 repeats.

    Reference:
        Spearman 1910, Br. J. Psychol. 3, 271-295; Brown 1910, the same, 296-322; Horst 1951, Educ. Psychol.
        Meas. 11, 368-371 (unequal halves).
    """
    responses = as_repeats(responses)
    n_repeats, half = responses.shape[0], responses.shape[0] // 2
    order = jax.random.permutation(key, n_repeats)
    first, second = (jnp.mean(responses[part], 0) for part in (order[:half], order[half:]))
    correlation = response_correlation(first, second)
    correlation = jnp.where(constant_neurons(first), jnp.nan, correlation)
    if not is_corrected:
        return correlation
    evenness = 4 * half * (n_repeats - half) / n_repeats**2
    # At r = −1 the correction has no value.
    return 2 * correlation / (correlation + jnp.sqrt(evenness + (1 - evenness) * correlation**2))


def trial_to_trial_reliability(
    responses: Real[ArrayLike, "repeats stimuli neurons"],
) -> Float[Array, " neurons"]:
    """Compute the mean, over repeats, of the correlation of a repeat with the mean of the other repeats.

    Correlations are over stimuli; NaN for a neuron of which a repeat is constant or holds NaN.

    Args:
        responses: to at least 2 repeats of each stimulus.

    Raises:
        ValueError: for responses without three axes or with fewer than 2 repeats.
    """
    responses = as_repeats(responses)
    responses, _ = in_own_unit(responses, (0, 1))
    others = (jnp.sum(responses, 0) - responses) / (responses.shape[0] - 1)
    return jnp.mean(jax.vmap(response_correlation)(others, responses), 0)


def _z_scored(residuals, rounding, by_condition, n_trials, labels):
    """Return residuals over their standard deviation in each condition."""
    is_rounding = jnp.abs(residuals) <= rounding
    residuals = jnp.where(is_rounding, 0, residuals)
    squares = by_condition(residuals**2)
    is_still = squares == 0
    deviation = jnp.sqrt(jnp.where(is_still, 1, squares) / jnp.maximum(n_trials - 1, 1))
    return residuals / deviation[labels]


def _correlations(samples):
    """Return the correlations of the columns."""
    is_constant = constant_neurons(samples)
    samples, _ = in_own_unit(samples)
    centered, _ = in_own_unit(samples - jnp.mean(samples, 0))
    length = jnp.sqrt(jnp.sum(jnp.where(is_constant, 1, centered**2), 0))
    # NaN only after the product, whose derivative it would spread to all neurons.
    directions = jnp.where(is_constant, 0, centered / length)
    is_undefined = is_constant[:, None] | is_constant
    return jnp.where(is_undefined, jnp.nan, jnp.clip(product(directions.T, directions), -1, 1))


def _eps(values):
    return jnp.finfo(values.dtype).eps
