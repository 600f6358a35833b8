"""What predictions are worth: errors on a circle, classes, and predicted responses neuron by neuron."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import (
    check_at_least,
    check_nonnegative,
    check_rank,
    check_real,
    check_shape,
    check_share,
    is_concrete,
)
from .._types import Scalar
from ._angles import circular_difference

__all__ = [
    "ExplainedFraction",
    "as_float_responses",
    "as_repeats",
    "bits_per_spike",
    "check_classes",
    "circular_errors",
    "confusion_matrix",
    "explainable_variance",
    "feve",
    "fraction_correct",
    "mean_circular_error",
    "median_circular_error",
    "poisson_pseudo_r2",
    "response_correlation",
]


def as_float_responses(name: str, responses: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
    """Return responses as floating-point numbers, which integers (spike counts) become.

    Raises:
        ValueError: for numbers that are neither.
    """
    responses = jnp.asarray(responses)
    if jnp.issubdtype(responses.dtype, jnp.integer):
        responses = responses.astype(float)
    check_real(name, responses)
    return responses


def as_repeats(responses: Real[ArrayLike, "repeats stimuli neurons"]) -> Float[Array, "..."]:
    """Return responses as floating-point numbers, or raise ``ValueError`` for fewer than 2 repeats."""
    check_rank("responses", responses, "repeats stimuli neurons")
    if np.shape(responses)[0] < 2:
        shape = np.shape(responses)
        raise ValueError(f"responses: expected at least 2 repeats on axis 0, got shape {shape}.")
    return as_float_responses("responses", responses)


def check_classes(
    name: str, classes: Int[ArrayLike, "..."], n_classes: int, meaning: str = "classes"
) -> None:
    """Raise ``ValueError`` if concrete ``classes`` are not all 0 to n_classes − 1."""
    if is_concrete(classes) and np.size(classes):
        least, most = np.min(np.asarray(classes)), np.max(np.asarray(classes))
        if least < 0 or most >= n_classes:
            raise ValueError(f"{name}: expected {meaning} 0 to {n_classes - 1}, got {least} to {most}.")


def circular_errors(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Float[Array, "*shape"]:
    """Compute |predicted − true| the short way round, in [0, period_degrees/2].

    A decoder of directions is judged "in the 180° sense", which forgives taking a direction for its
    opposite, by ``period_degrees=180``.

    Raises:
        ValueError: for arrays of different shape, and for a period that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> predicted, true = jnp.array([359.0, 190.0]), jnp.array([1.0, 10.0])
        >>> print(circular_errors(predicted, true), circular_errors(predicted, true, 180))
        [  2. 180.] [2. 0.]
    """
    check_shape("predicted_degrees", predicted_degrees, np.shape(true_degrees), "that of true_degrees")
    return jnp.abs(circular_difference(predicted_degrees, true_degrees, period_degrees))


def median_circular_error(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Scalar:
    """Compute the median of `circular_errors`, in degrees; chance is period/4 where angles are even."""
    return jnp.median(circular_errors(predicted_degrees, true_degrees, period_degrees))


def mean_circular_error(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Scalar:
    """Compute the mean of `circular_errors`, in degrees; chance is period/4 where angles are even."""
    return jnp.mean(circular_errors(predicted_degrees, true_degrees, period_degrees))


def fraction_correct(predicted: Int[ArrayLike, "*shape"], true: Int[ArrayLike, "*shape"]) -> Scalar:
    """Compute the share of trials whose class was predicted.

    Example:
        >>> import jax.numpy as jnp
        >>> float(fraction_correct(jnp.array([0, 1, 2, 2]), jnp.array([0, 1, 1, 2])))
        0.75
    """
    check_shape("predicted", predicted, np.shape(true), "that of true")
    return jnp.mean(jnp.asarray(predicted) == jnp.asarray(true), dtype=float)


def confusion_matrix(
    predicted: Int[ArrayLike, " trials"], true: Int[ArrayLike, " trials"], n_classes: int
) -> Int[Array, "classes classes"]:
    """Count trials by true class (rows) and predicted class (columns).

    Args:
        predicted: class indices, 0 to n_classes − 1.
        true: class indices, 0 to n_classes − 1.
        n_classes: how many classes, ≥ 1.

    Raises:
        ValueError: for arrays of different length, and for classes out of range; inside ``jit``, where
            values are not known, a trial out of range is not counted.

    Example:
        >>> import jax.numpy as jnp
        >>> print(confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 1, 0]), 2))
        [[1 1]
         [0 1]]
    """
    check_at_least("n_classes", n_classes, 1)
    check_rank("true", true, "trials")
    check_shape("predicted", predicted, np.shape(true), "that of true")
    check_classes("predicted", predicted, n_classes)
    check_classes("true", true, n_classes)
    predicted, true = jnp.asarray(predicted), jnp.asarray(true)
    is_counted = (predicted >= 0) & (predicted < n_classes) & (true >= 0) & (true < n_classes)
    cells = jnp.where(is_counted, true * n_classes + predicted, n_classes**2)
    return jnp.bincount(cells, length=n_classes**2 + 1)[:-1].reshape(n_classes, n_classes)


def response_correlation(
    predicted: Real[ArrayLike, "samples neurons"], measured: Real[ArrayLike, "samples neurons"]
) -> Float[Array, " neurons"]:
    """Compute Pearson's correlation of each neuron's predicted and measured responses over samples.

    A constant prediction (a spread below rounding) correlates 0 with anything. For a neuron whose measured
    response is constant, or holds NaN, there is nothing to correlate with: NaN.

    Raises:
        ValueError: for arrays of different shape.
    """
    predicted, measured = _pair("predicted", predicted, "measured", measured)
    first, is_first_constant = _centred(predicted)
    second, is_second_constant = _centred(measured)
    power = jnp.sum(first**2, 0) * jnp.sum(second**2, 0)
    is_undefined = is_first_constant | is_second_constant | (power == 0)
    correlation = jnp.sum(first * second, 0) / jnp.sqrt(jnp.where(is_undefined, 1, power))
    return jnp.where(is_second_constant, jnp.nan, jnp.where(is_undefined, 0, correlation))


def poisson_pseudo_r2(
    rates: Real[ArrayLike, "samples neurons"],
    counts: Real[ArrayLike, "samples neurons"],
    null_rates: Real[ArrayLike, " neurons"] | None = None,
) -> Float[Array, " neurons"]:
    """Compute 1 − D(rates)/D(null rates), D(μ) = 2·Σₙ [yₙ·ln(yₙ/μₙ) − (yₙ − μₙ)], neuron by neuron.

    1 for rates equal to the counts, 0 for the null rates, negative for worse; −∞ where a spike came at
    a rate of 0. NaN where the null deviance is 0 (counts that do not vary, a silent neuron).

    Args:
        rates: predicted counts a sample, ≥ 0.
        counts: what was counted, y.
        null_rates: the rate of each neuron that prediction has to better, say its mean over the training
            samples; by default its mean over ``counts``.

    Raises:
        ValueError: for arrays of different shape, and for rates or counts below 0 where values are known.

    Reference:
        Cameron & Windmeijer 1996, J. Bus. Econ. Stat. 14, 209-220.
    """
    rates, counts, null = _rates_and_counts(rates, counts, null_rates)
    model, base = _deviance(rates, counts), _deviance(null, counts)
    # The deviance of a constant count is rounding, not 0.
    size = jnp.sum(jnp.abs(xlogy(counts, counts)) + counts, 0)
    is_undefined = base <= 8 * jnp.finfo(counts.dtype).eps * size
    return jnp.where(is_undefined, jnp.nan, 1 - model / jnp.where(is_undefined, 1, base))


def bits_per_spike(
    rates: Real[ArrayLike, "samples neurons"],
    counts: Real[ArrayLike, "samples neurons"],
    null_rates: Real[ArrayLike, " neurons"] | None = None,
) -> Float[Array, " neurons"]:
    """Compute Σₙ [yₙ·ln(μₙ/μ̄) − (μₙ − μ̄)] / (ln 2 · Σₙ yₙ): the gain of Poisson log-likelihood a spike.

    0 for the null rates μ̄, −∞ where a spike came at a rate of 0, NaN for a neuron without spikes.

    Args:
        rates: predicted counts a sample, μ ≥ 0.
        counts: what was counted, y.
        null_rates: μ̄, by default each neuron's mean over ``counts``.

    Raises:
        ValueError: for arrays of different shape, and for rates or counts below 0 where values are known.

    Reference:
        Pillow et al. 2008, Nature 454, 995-999.
    """
    rates, counts, null = _rates_and_counts(rates, counts, null_rates)
    gain = jnp.sum(xlogy(counts, rates) - xlogy(counts, null) - (rates - null), 0)
    n_spikes = jnp.sum(counts, 0)
    is_silent = n_spikes == 0
    return jnp.where(is_silent, jnp.nan, gain / (float(np.log(2)) * jnp.where(is_silent, 1, n_spikes)))


class ExplainedFraction(NamedTuple):
    """FEVE of each neuron, and for which neurons it means something.

    Attributes:
        feve: the fraction of explainable variance explained; NaN where ``is_explainable`` is false.
        is_explainable: whether a neuron varies and its explainable fraction is at least the threshold.
        explainable: the explainable fraction of each neuron's variance.
    """

    feve: Float[Array, " neurons"]
    is_explainable: Bool[Array, " neurons"]
    explainable: Float[Array, " neurons"]


def explainable_variance(
    responses: Real[ArrayLike, "repeats stimuli neurons"],
) -> Float[Array, " neurons"]:
    """Compute (Var[y] − σ²)/Var[y]: the fraction of a neuron's variance that stimuli can explain.

    Var[y] is taken over all stimuli and repeats (ddof 0); σ² is the noise, the variance over repeats
    (ddof 1) averaged over stimuli. The difference is on average σ²/(repeats·stimuli) less than the variance
    of the stimuli's true means, so that the estimate is biased low by little where there are many trials:
    for noise alone it scatters round −1/(repeats·stimuli − 1). A neuron that is constant (to rounding) has 0.

    Args:
        responses: to at least 2 repeats of each stimulus.

    Raises:
        ValueError: for responses without three axes or with fewer than 2 repeats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(explainable_variance(jnp.array([[[0.0], [4.0]], [[0.0], [4.0]]])))
        [1.]
    """
    total, noise, is_constant = _variances(as_repeats(responses))
    return jnp.where(is_constant, 0, (total - noise) / jnp.where(is_constant, 1, total))


def feve(
    predicted: Real[ArrayLike, "stimuli neurons"],
    responses: Real[ArrayLike, "repeats stimuli neurons"],
    *,
    threshold: float | int = 0.15,
) -> ExplainedFraction:
    """Compute the fraction of explainable variance explained: 1 − (MSE − σ²)/(Var[y] − σ²).

    MSE is the mean of (response − prediction)² over stimuli and repeats; Var[y] and σ² are those of
    `explainable_variance`. A neuron's mean response as prediction gives 0, its true mean for each stimulus
    about 1; the mean over the very repeats that are predicted gives more than 1.

    Args:
        predicted: one response of each neuron to each stimulus.
        responses: to at least 2 repeats of each stimulus.
        threshold: the least explainable fraction for which the ratio is given, in [0, 1]: the denominator
            of a neuron that is nearly all noise is nearly 0, and its FEVE means nothing.

    Raises:
        ValueError: for predictions that are not (stimuli, neurons) of the responses, fewer than 2 repeats,
            and a threshold outside [0, 1].

    Reference:
        Cadena et al. 2019, PLoS Comput. Biol. 15, e1006897 (threshold 0.15).
    """
    responses = as_repeats(responses)
    predicted = as_float_responses("predicted", predicted)
    check_shape("predicted", predicted, responses.shape[1:], "stimuli and neurons of the responses")
    check_share("threshold", threshold)
    total, noise, is_constant = _variances(responses)
    error = jnp.mean((responses - predicted) ** 2, (0, 1))
    explainable = explainable_variance(responses)
    is_explainable = (explainable >= threshold) & (total > noise) & ~is_constant
    fraction = 1 - (error - noise) / jnp.where(is_explainable, total - noise, 1)
    return ExplainedFraction(jnp.where(is_explainable, fraction, jnp.nan), is_explainable, explainable)


def _variances(responses):
    """Return each neuron's Var[y] (ddof 0), its noise's variance (ddof 1), whether it varies by rounding."""
    total, noise = jnp.var(responses, (0, 1)), jnp.mean(jnp.var(responses, 0, ddof=1), 0)
    spread, size = jnp.ptp(responses, (0, 1)), jnp.max(jnp.abs(responses), (0, 1))
    is_constant = spread <= 8 * jnp.finfo(responses.dtype).eps * size
    # Of small enough responses the variance is 0 all the same.
    return total, noise, is_constant | (total == 0)


def _centred(values):
    """Return values minus their mean over samples, and whether what is left is rounding."""
    mean = jnp.mean(values, 0)
    centred = values - mean
    spread = jnp.max(jnp.abs(centred), 0)
    return centred, spread <= 8 * jnp.finfo(values.dtype).eps * jnp.abs(mean)


def _deviance(rates, counts):
    return 2 * jnp.sum(xlogy(counts, counts) - xlogy(counts, rates) - (counts - rates), 0)


def _rates_and_counts(rates, counts, null_rates):
    rates, counts = _pair("rates", rates, "counts", counts)
    check_nonnegative("rates", rates)
    check_nonnegative("counts", counts)
    if null_rates is None:
        return rates, counts, jnp.mean(counts, 0)
    check_shape("null_rates", null_rates, counts.shape[1:], "a rate for each neuron")
    check_nonnegative("null_rates", null_rates)
    return rates, counts, jnp.asarray(null_rates, counts.dtype)


def _pair(first_name, first, second_name, second):
    first = as_float_responses(first_name, first)
    second = as_float_responses(second_name, second).astype(first.dtype)
    check_rank(first_name, first, "samples neurons")
    check_shape(second_name, second, first.shape, f"that of {first_name}")
    return first, second
