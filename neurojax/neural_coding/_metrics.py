"""Evaluation metrics: errors on a circle, errors of classes, and scores of predicted responses by neuron."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Real

from .._arrays import check_same_shape, real_array, whole_array
from .._checks import check_at_least, check_nonnegative, check_shape, check_size, is_concrete
from .._precision import at_least_single
from .._rows import unit_of
from .._types import Scalar
from ._angles import circular_difference, warn_unless_degrees

__all__ = [
    "as_float_responses",
    "bits_per_spike",
    "check_classes",
    "circular_errors",
    "class_labels",
    "confusion_matrix",
    "fraction_correct",
    "in_own_unit",
    "labelled_trials",
    "mean_circular_error",
    "median_circular_error",
    "poisson_pseudo_r2",
    "response_correlation",
]


def as_float_responses(
    name: str, responses: Real[ArrayLike, "..."], axes: str | None = None
) -> Float[Array, "..."]:
    """Return responses as floating-point numbers in which sums are taken, float32 at least."""
    return at_least_single(real_array(name, responses, axes))


def in_own_unit(
    values: Float[Array, "*axes"], axis: int | tuple[int, ...] = 0
) -> tuple[Float[Array, "*axes"], Float[Array, "..."]]:
    """Return values over the largest magnitude along an axis, and that magnitude; zeros keep the unit 1.

    Ratios of squares are taken in this unit, as squares of numbers beyond 1e±19 leave float32. The unit is a
    power of two, so that it changes no digit, and a constant to derivatives.
    """
    unit = unit_of(values, axis, keepdims=True)
    return values / unit, jnp.squeeze(unit, axis)


def check_classes(
    name: str, classes: Integer[ArrayLike, "..."], n_classes: int, meaning: str = "classes"
) -> None:
    """Raise ``ValueError`` if concrete ``classes`` are not all 0 to n_classes − 1."""
    if is_concrete(classes) and np.size(classes):
        least, most = np.min(np.asarray(classes)), np.max(np.asarray(classes))
        if least < 0 or most >= n_classes:
            raise ValueError(f"{name}: expected {meaning} 0 to {n_classes - 1}, got {least} to {most}.")


def class_labels(name: str, labels: Integer[ArrayLike, "..."], axes: str | None = None) -> Int[Array, "..."]:
    """Return labels as integers wide enough to count with."""
    labels = whole_array(name, labels, axes)
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def labelled_trials(
    responses: Real[ArrayLike, "trials neurons"], labels: Integer[ArrayLike, " trials"], n_labels: int
) -> tuple[Float[Array, "trials neurons"], Int[Array, " trials"], Bool[Array, " trials"]]:
    """Return responses, the label of each trial, and whether it is one of 0 to n_labels − 1.

    Raises:
        ValueError: for lengths that do not match, counts below 1, and known labels out of range.
    """
    check_at_least("n_labels", n_labels, 1)
    responses = as_float_responses("responses", responses, "trials neurons")
    labels = class_labels("labels", labels, "trials")
    check_size("labels", labels, 0, len(responses), "labels, one for each trial of the responses,")
    check_classes("labels", labels, n_labels, "labels")
    return responses, labels, (labels >= 0) & (labels < n_labels)


def circular_errors(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Float[Array, "*shape"]:
    """Compute |predicted − true| the short way round, in [0, period_degrees/2].

    A decoder of directions is judged "in the 180° sense", which forgives taking a direction for its
    opposite, by ``period_degrees=180``.

    Args:
        predicted_degrees: decoded angles.
        true_degrees: the angles shown; of values that look like radians a warning is given.
        period_degrees: after which angles come round.

    Raises:
        ValueError: for arrays of different shape, and for a period that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> predicted, true = jnp.array([359.0, 190.0]), jnp.array([1.0, 10.0])
        >>> print(circular_errors(predicted, true), circular_errors(predicted, true, 180))
        [  2. 180.] [2. 0.]
    """
    predicted, true = (
        real_array("predicted_degrees", predicted_degrees),
        real_array("true_degrees", true_degrees),
    )
    check_shape("predicted_degrees", predicted, true.shape, "that of true_degrees")
    warn_unless_degrees("true_degrees", true_degrees, np.inf)
    return jnp.abs(circular_difference(predicted, true, period_degrees))


def median_circular_error(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Scalar:
    """Compute the median of `circular_errors`, in degrees; chance is period/4 where angles are even.

    NaN without any trial, and where an answer is NaN.
    """
    return jnp.median(circular_errors(predicted_degrees, true_degrees, period_degrees))


def mean_circular_error(
    predicted_degrees: Real[ArrayLike, "*shape"],
    true_degrees: Real[ArrayLike, "*shape"],
    period_degrees: float | int = 360,
) -> Scalar:
    """Compute the mean of `circular_errors`, in degrees; chance is period/4 where angles are even.

    NaN without any trial, and where an answer is NaN.
    """
    return jnp.mean(at_least_single(circular_errors(predicted_degrees, true_degrees, period_degrees)))


def fraction_correct(predicted: Integer[ArrayLike, "*shape"], true: Integer[ArrayLike, "*shape"]) -> Scalar:
    """Compute the share of trials whose class was predicted; NaN without any trial.

    Raises:
        ValueError: for classes that are not integers, and for arrays of different shape.

    Example:
        >>> import jax.numpy as jnp
        >>> float(fraction_correct(jnp.array([0, 1, 2, 2]), jnp.array([0, 1, 1, 2])))
        0.75
    """
    predicted, true = class_labels("predicted", predicted), class_labels("true", true)
    check_same_shape("predicted", predicted, "true", true)
    return jnp.mean(predicted == true, dtype=float)


def confusion_matrix(
    predicted: Integer[ArrayLike, " trials"], true: Integer[ArrayLike, " trials"], n_classes: int
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
    true, predicted = class_labels("true", true, "trials"), class_labels("predicted", predicted)
    check_same_shape("predicted", predicted, "true", true)
    check_classes("predicted", predicted, n_classes)
    check_classes("true", true, n_classes)
    is_counted = (predicted >= 0) & (predicted < n_classes) & (true >= 0) & (true < n_classes)
    cells = jnp.where(is_counted, true * n_classes + predicted, n_classes**2)
    return jnp.bincount(cells, length=n_classes**2 + 1)[:-1].reshape(n_classes, n_classes)


def response_correlation(
    predicted: Real[ArrayLike, "samples neurons"], measured: Real[ArrayLike, "samples neurons"]
) -> Float[Array, " neurons"]:
    """Compute Pearson's correlation of each neuron's predicted and measured responses over samples.

    A constant prediction (a spread below rounding) correlates 0 with anything. For a neuron whose measured
    response is constant (as one sample is), or holds NaN, there is nothing to correlate with: NaN. The units
    of both do not matter.

    Raises:
        ValueError: for arrays of different shape.
    """
    predicted, measured = _pair("predicted", predicted, "measured", measured)
    first, is_first_constant = _centered(predicted)
    second, is_second_constant = _centered(measured)
    is_undefined = is_first_constant | is_second_constant
    power = jnp.where(is_undefined, 1, jnp.sum(first**2, 0) * jnp.sum(second**2, 0))
    correlation = jnp.sum(first * second, 0) / jnp.sqrt(power)
    return jnp.where(is_second_constant, jnp.nan, jnp.where(is_first_constant, 0, correlation))


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


def _centered(values):
    """Return values minus their mean over samples, in a unit of their own, and whether they are constant."""
    values, _ = in_own_unit(values)
    mean = jnp.mean(values, 0)
    centered = values - mean
    # What rounding leaves of a constant is nothing; NaN is no constant, and passes on to the correlation.
    rounding = 8 * jnp.finfo(values.dtype).eps * jnp.abs(mean)
    return in_own_unit(centered)[0], jnp.max(jnp.abs(centered), 0, initial=0) <= rounding


def _deviance(rates, counts):
    return 2 * jnp.sum(xlogy(counts, counts) - xlogy(counts, rates) - (counts - rates), 0)


def _rates_and_counts(rates, counts, null_rates):
    """Return rates, counts and null rates in the unit of the neuron's largest count."""
    rates, counts = _pair("rates", rates, "counts", counts)
    check_nonnegative("rates", rates)
    check_nonnegative("counts", counts)
    if null_rates is not None:
        null_rates = real_array("null_rates", null_rates)
        check_shape("null_rates", null_rates, counts.shape[1:], "a rate for each neuron")
        check_nonnegative("null_rates", null_rates)
    counts, unit = in_own_unit(counts)
    null = jnp.mean(counts, 0) if null_rates is None else null_rates.astype(counts.dtype) / unit
    return rates / unit, counts, null


def _pair(first_name, first, second_name, second):
    first = as_float_responses(first_name, first, "samples neurons")
    second = as_float_responses(second_name, second).astype(first.dtype)
    check_shape(second_name, second, first.shape, f"that of {first_name}")
    return first, second
