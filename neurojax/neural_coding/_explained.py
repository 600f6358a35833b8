"""Explainable variance: the share of a neuron's variance that stimuli can explain, and that a model does."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Integer, Real

from .._checks import check_shape, check_share, is_concrete
from ._metrics import as_float_responses, in_own_unit, labelled_trials

__all__ = ["ExplainedFraction", "as_repeats", "explainable_variance", "feve"]


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
    responses: Real[ArrayLike, "repeats stimuli neurons"] | Real[ArrayLike, "trials neurons"],
    labels: Integer[ArrayLike, " trials"] | None = None,
    n_labels: int | None = None,
) -> Float[Array, " neurons"]:
    """Compute (Var[y] − σ²)/Var[y]: the fraction of a neuron's variance that stimuli can explain.

    Over N responses yₙₛ, n_s of them to stimulus s, Var[y] is their variance (ddof 1) and
    σ² = Σₛ (n_s/N)·Varₙ[yₙₛ] the variance over the repeats of a stimulus (ddof 1), averaged over responses.
    So Var[y] − σ² is on average Σₛ n_s·(μₛ − μ̄)²/(N − 1) for true means μₛ about their average over
    responses, whatever the noise of each stimulus: without bias, and 0 on average for noise alone. The ratio
    is nearly so where there are many trials. A neuron that is constant (to rounding) has 0.

    Args:
        responses: to at least 2 repeats of each stimulus: (repeats, stimuli, neurons), or with ``labels``
            (trials, neurons), where stimuli may differ in their number of repeats. Where the repeats differ,
            an array of three axes may be filled up with NaN: a response that is NaN for all neurons was not
            recorded and does not count. Any other NaN is kept, as the result of its neuron.
        labels: the stimulus of each trial, 0 to n_labels − 1.
        n_labels: how many stimuli, with ``labels``.

    Raises:
        ValueError: for responses of other axes, labels out of range, and fewer than 2 repeats of a stimulus;
            inside ``jit``, where values are not known, one with a single repeat makes the result NaN.

    Reference:
        Cadena et al. 2019, PLoS Comput. Biol. 15, e1006897, who have equal repeats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(explainable_variance(jnp.array([[[0.0], [4.0]], [[0.0], [4.0]]])))
        [1.]
        >>> trials, labels = jnp.array([[0.0], [2.0], [8.0], [9.0], [10.0]]), jnp.array([0, 0, 1, 1, 1])
        >>> round(float(explainable_variance(trials, labels, 2)[0]), 3)
        0.931
    """
    return _explainable(*_variances(_trials(responses, labels, n_labels)))


def feve(
    predicted: Real[ArrayLike, "stimuli neurons"],
    responses: Real[ArrayLike, "repeats stimuli neurons"] | Real[ArrayLike, "trials neurons"],
    *,
    labels: Integer[ArrayLike, " trials"] | None = None,
    threshold: float | int = 0.15,
) -> ExplainedFraction:
    """Compute the fraction of explainable variance explained: 1 − (MSE − σ²)/(Var[y] − σ²).

    MSE is the mean of (response − prediction)² over responses; Var[y] and σ² are those of
    `explainable_variance`. A neuron's mean response as prediction gives about 0, its true mean for each
    stimulus about 1; the mean over the very repeats that are predicted gives more than 1.

    Args:
        predicted: one response of each neuron to each stimulus.
        responses: to at least 2 repeats of each stimulus, as for `explainable_variance`.
        labels: the row of ``predicted`` that each trial is a response to, where ``responses`` are
            (trials, neurons).
        threshold: the least explainable fraction for which the ratio is given, in [0, 1]: the denominator
            of a neuron that is nearly all noise is nearly 0, and its FEVE means nothing.

    Raises:
        ValueError: for predictions that are not (stimuli, neurons) of the responses, a threshold outside
            [0, 1], and as `explainable_variance`.

    Reference:
        Cadena et al. 2019, PLoS Comput. Biol. 15, e1006897 (threshold 0.15).
    """
    predicted = as_float_responses("predicted", predicted, "stimuli neurons")
    trials = _trials(responses, labels, None if labels is None else len(predicted))
    expected = trials.n_labels, trials.values.shape[1]
    check_shape("predicted", predicted, expected, "stimuli and neurons of the responses")
    check_share("threshold", threshold)
    variances = total, noise, is_constant = _variances(trials)
    residual = trials.values - (predicted.astype(trials.values.dtype) / trials.unit)[trials.labels]
    n_responses = jnp.sum(trials.is_counted)
    error = jnp.sum(jnp.where(trials.is_counted[:, None], residual, 0) ** 2, 0) / n_responses
    explainable = _explainable(*variances)
    is_explainable = (explainable >= threshold) & (total > noise) & ~is_constant
    fraction = 1 - (error - noise) / jnp.where(is_explainable, total - noise, 1)
    return ExplainedFraction(jnp.where(is_explainable, fraction, jnp.nan), is_explainable, explainable)


def as_repeats(responses: Real[ArrayLike, "repeats stimuli neurons"]) -> Float[Array, "..."]:
    """Return responses as floating-point numbers, or raise ``ValueError`` for fewer than 2 repeats."""
    responses = as_float_responses("responses", responses, "repeats stimuli neurons")
    if responses.shape[0] < 2:
        raise ValueError(f"responses: expected at least 2 repeats on axis 0, got shape {responses.shape}.")
    return responses


class _Trials(NamedTuple):
    values: Array  # trials × neurons, in units of the neurons; 0 where it does not count
    unit: Array  # of each neuron
    labels: Array  # of each trial
    is_counted: Array  # whether a trial was recorded
    n_labels: int


def _trials(responses, labels, n_labels: int | None) -> _Trials:
    if labels is None:
        repeats = as_repeats(responses)
        n_repeats, n_stimuli = repeats.shape[:2]
        values = repeats.reshape(-1, repeats.shape[2])
        labels = jnp.tile(jnp.arange(n_stimuli), n_repeats)
        return _counted("responses", values, labels, ~jnp.all(jnp.isnan(values), 1), n_stimuli)
    if n_labels is None:
        raise ValueError("n_labels: expected the number of stimuli beside labels, got None.")
    values, labels, is_counted = labelled_trials(responses, labels, n_labels)
    return _counted("labels", values, jnp.where(is_counted, labels, 0), is_counted, n_labels)


def _counted(name: str, values, labels, is_counted, n_labels: int) -> _Trials:
    """Return trials in the unit of each neuron, of which some may not count."""
    values, unit = in_own_unit(jnp.where(is_counted[:, None], values, 0))
    trials = _Trials(values, unit, labels, is_counted, n_labels)
    _check_repeats(name, trials)
    return trials


def _check_repeats(name: str, trials: _Trials) -> None:
    if not is_concrete(trials.labels) or not is_concrete(trials.is_counted):
        return
    counts = np.bincount(np.asarray(trials.labels)[np.asarray(trials.is_counted)], minlength=trials.n_labels)
    if counts.min(initial=2) < 2:
        raise ValueError(
            f"{name}: expected at least 2 repeats of each stimulus, got {counts.min()} of stimulus "
            f"{counts.argmin()}; leave out stimuli whose noise is not known."
        )


def _explainable(total, noise, is_constant):
    return jnp.where(is_constant, 0, (total - noise) / jnp.where(is_constant, 1, total))


def _variances(trials: _Trials):
    """Return each neuron's Var[y] and noise σ², in its own unit, and whether it varies by rounding alone."""
    return _variances_of(trials.values, trials.labels, trials.is_counted, trials.n_labels)


@partial(jax.jit, static_argnames="n_labels")
def _variances_of(values, labels, is_counted, n_labels: int):
    n_responses = jnp.sum(is_counted).astype(values.dtype)
    counted = is_counted[:, None]
    mean = jnp.sum(values, 0) / n_responses
    total = jnp.sum(jnp.where(counted, values - mean, 0) ** 2, 0) / (n_responses - 1)

    def by_stimulus(rows):
        return jax.ops.segment_sum(rows, labels, n_labels)

    n_repeats = by_stimulus(counted.astype(values.dtype))
    means = by_stimulus(values) / jnp.maximum(n_repeats, 1)
    squares = by_stimulus(jnp.where(counted, values - means[labels], 0) ** 2)
    # A stimulus with one repeat has no variance: 0/0.
    noise = jnp.sum(n_repeats * squares / jnp.where(n_repeats == 0, 1, n_repeats - 1), 0) / n_responses
    largest = jnp.max(jnp.where(counted, values, -jnp.inf), 0)
    spread = largest - jnp.min(jnp.where(counted, values, jnp.inf), 0)
    is_constant = spread <= 8 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values), 0)
    return total, noise, is_constant
