"""Metrics against their definitions in NumPy, at the wrap, and on simulated responses of known variance."""

from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import d2_tweedie_score

from neurojax.neural_coding import (
    bits_per_spike,
    circular_errors,
    confusion_matrix,
    explainable_variance,
    feve,
    fraction_correct,
    mean_circular_error,
    median_circular_error,
    poisson_pseudo_r2,
    response_correlation,
)

RNG = np.random.default_rng(0)
# Compiled: one by one their operations would take longer.
pseudo_r2 = eqx.filter_jit(poisson_pseudo_r2)
bits = eqx.filter_jit(bits_per_spike)
correlate = eqx.filter_jit(response_correlation)
explained = eqx.filter_jit(feve)
variance = eqx.filter_jit(explainable_variance)


@eqx.filter_jit
def errors_of(predicted, true, period):
    """Errors of angles, their mean and their median."""
    parts = circular_errors, mean_circular_error, median_circular_error
    return [part(predicted, true, period) for part in parts]


def test_errors_at_the_wrap():
    for predicted, true, period, error in (
        (359.0, 1.0, 360, 2.0),
        (1.0, 359.0, 360, 2.0),
        (179.0, 1.0, 180, 2.0),
        (360.0, 0.0, 360, 0.0),
        (0.0, 360.0, 180, 0.0),
        (180.0, 0.0, 360, 180.0),
        (90.0, 0.0, 180, 90.0),
        (190.0, 10.0, 180, 0.0),
        (-10.0, 725.0, 360, 15.0),
    ):
        assert float(circular_errors(predicted, true, period)) == error, (predicted, true, period)


def test_errors_are_the_angle_between_unit_vectors(x64):
    predicted, true = RNG.uniform(-720, 720, (2, 300))
    for period in (360, 180):
        phases = np.exp(2j * np.pi * (predicted - true) / period)
        expected = np.abs(np.angle(phases)) * period / (2 * np.pi)
        errors, mean, median = errors_of(predicted, true, period)
        np.testing.assert_allclose(errors, expected, atol=1e-9)
        np.testing.assert_allclose(mean, expected.mean())
        np.testing.assert_allclose(median, np.median(expected))


def test_errors_want_one_shape(untyped):
    with pytest.raises(ValueError, match=r"predicted_degrees: expected shape \(3,\), that of true_degrees"):
        circular_errors(jnp.zeros(2), jnp.zeros(3))


def test_confusion_and_fraction_against_scikit_learn():
    predicted, true = RNG.integers(0, 5, (2, 200))
    matrix, fraction = jax.jit(lambda p, t: (confusion_matrix(p, t, 6), fraction_correct(p, t)))(
        predicted, true
    )
    np.testing.assert_array_equal(matrix, sklearn_confusion(true, predicted, labels=range(6)))
    assert float(fraction) == pytest.approx(np.trace(matrix) / 200)


def test_classes_out_of_range():
    with pytest.raises(ValueError, match="predicted: expected classes 0 to 1, got 0 to 2"):
        confusion_matrix(jnp.array([0, 2]), jnp.array([0, 1]), 2)
    count = jax.jit(confusion_matrix, static_argnums=2)
    assert int(count(jnp.array([0, 2, -1]), jnp.array([0, 1, 1]), 2).sum()) == 1


def test_correlation_against_numpy_and_for_constants(x64):
    predicted, measured = RNG.normal(size=(2, 40, 4))
    predicted[:, 1], measured[:, 2], measured[3, 3] = 0.3, 0.1, np.nan
    correlation = np.asarray(correlate(predicted, measured))
    assert correlation[0] == pytest.approx(np.corrcoef(predicted[:, 0], measured[:, 0])[0, 1])
    assert correlation[1] == 0
    assert np.isnan(correlation[2:]).all()


def test_pseudo_r2_against_scikit_learn(x64):
    rates = RNG.gamma(2, 2, (100, 3))
    counts = RNG.poisson(rates).astype(float)
    rates = rates * RNG.uniform(0.8, 1.2, rates.shape)
    expected = [d2_tweedie_score(counts[:, i], rates[:, i], power=1) for i in range(3)]
    np.testing.assert_allclose(pseudo_r2(rates, counts), expected, rtol=1e-10)
    means = np.broadcast_to(counts.mean(0), counts.shape)
    np.testing.assert_allclose(pseudo_r2(means, counts), 0, atol=1e-12)
    # At rates equal to the counts the deviance is 0, also where a count is.
    np.testing.assert_allclose(pseudo_r2(counts, counts), 1, atol=1e-12)


def test_bits_per_spike_is_the_difference_of_log_likelihoods(x64):
    rates = RNG.gamma(2, 1, (80, 2))
    counts = RNG.poisson(rates).astype(float)
    null = np.array([1.5, 2.5])
    likelihood = [(counts * np.log(m) - m - gammaln(counts + 1)).sum(0) for m in (rates, null)]
    expected = (likelihood[0] - likelihood[1]) / np.log(2) / counts.sum(0)
    np.testing.assert_allclose(bits(rates, counts, null), expected, rtol=1e-10)


def test_silent_neurons_and_impossible_spikes():
    counts = np.float32([[0, 1, 2], [0, 0, 2]])
    rates = np.float32([[0.5, 0, 1], [0.5, 1, 3]])
    r2, gain = np.asarray(pseudo_r2(rates, counts)), np.asarray(bits(rates, counts))
    assert np.isnan(r2[[0, 2]]).all() and r2[1] == -np.inf
    assert np.isnan(gain[0]) and gain[1] == -np.inf and gain[2] < 0
    with pytest.raises(ValueError, match="rates: expected a number ≥ 0"):
        poisson_pseudo_r2(rates - 1, counts)


def noisy_responses(signal, noise, n_repeats=8, n_stimuli=200, n_neurons=100, seed=1):
    rng = np.random.default_rng(seed)
    means = rng.normal(scale=np.sqrt(signal), size=(n_stimuli, n_neurons))
    return means, means + rng.normal(scale=np.sqrt(noise), size=(n_repeats, n_stimuli, n_neurons))


def test_explainable_variance_and_feve_against_their_definitions(x64):
    means, responses = noisy_responses(1.0, 2.0, 4, 30, 5)
    flat = responses.reshape(-1, 5)
    noise = np.stack([np.var(responses[:, s], axis=0, ddof=1) for s in range(30)]).mean(0)
    total = flat.var(0)
    np.testing.assert_allclose(variance(responses), (total - noise) / total, rtol=1e-12)
    predicted = 0.7 * means
    error = np.mean((responses - predicted) ** 2, axis=(0, 1))
    result = explained(predicted, responses, threshold=0)
    np.testing.assert_allclose(result.feve, 1 - (error - noise) / (total - noise), rtol=1e-12)


def test_explainable_variance_and_feve_of_known_variances():
    means, responses = noisy_responses(1.0, 3.0)
    explainable = np.asarray(variance(responses.astype(np.float32)))
    standard_error = explainable.std(ddof=1) / np.sqrt(100)
    assert abs(explainable.mean() - 0.25) < 4 * standard_error < 0.02
    true_mean = np.asarray(explained(means, responses).feve)
    assert abs(true_mean.mean() - 1) < 4 * true_mean.std(ddof=1) / 10 < 0.05
    grand_mean = np.broadcast_to(responses.mean((0, 1)), means.shape)
    np.testing.assert_allclose(explained(grand_mean, responses).feve, 0, atol=1e-4)


def test_neurons_below_the_threshold_are_masked():
    _, responses = noisy_responses(1.0, 1.0, 3, 50, 3)
    responses[:, :, 1] = np.random.default_rng(2).normal(size=(3, 50))
    responses[:, :, 2] = 1
    result = explained(responses.mean(0), responses)
    np.testing.assert_array_equal(result.is_explainable, [True, False, False])
    np.testing.assert_array_equal(np.isnan(result.feve), [False, True, True])
    assert float(result.explainable[2]) == 0


def test_constant_responses_explain_nothing():
    for constant in (0.0, 0.1, 7.7, -7.7):
        responses = np.full((3, 30, 2), constant, np.float32)
        # Next to it a neuron of the same size whose variation is small, but no rounding.
        responses[:, :, 1] += 1e-3 * np.arange(30, dtype=np.float32)
        np.testing.assert_allclose(variance(responses), [0, 1], atol=1e-5)
        for threshold in (0, 0.15):
            result = explained(responses.mean(0), responses, threshold=threshold)
            np.testing.assert_array_equal(result.is_explainable, [False, True], err_msg=f"{constant}")
            np.testing.assert_array_equal(np.isnan(result.feve), [True, False], err_msg=f"{constant}")


def test_explainable_variance_of_noise_is_biased_as_stated(x64):
    """Over all orders of the same numbers, as of noise alone, the mean is −1/(repeats·stimuli − 1)."""
    orders = np.array(list(permutations([0.0, 1.0, 3.0, 7.0, 8.0, 20.0])))
    responses = orders.T.reshape(3, 2, -1)
    assert float(np.mean(variance(responses))) == pytest.approx(-1 / 5, rel=1e-12)


def test_counts_are_responses():
    """Integers give what the same numbers in floating point give."""
    counts = RNG.poisson(3.0, (3, 20, 4))
    rates = np.round(counts.mean(0))
    for metric in (correlate, pseudo_r2, bits):
        expected = metric(rates, counts[0].astype(float))
        np.testing.assert_array_equal(metric(rates.astype(int), counts[0]), expected)
    for ours, expected in zip(
        explained(rates.astype(int), counts, threshold=0),
        explained(rates, counts.astype(float), threshold=0),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(correlate(counts[0], rates + 0.5), correlate(rates + 0.5, counts[0]))


def test_responses_must_be_numbers(untyped):
    with pytest.raises(ValueError, match="measured: expected real floating-point numbers, got dtype bool"):
        response_correlation(jnp.zeros((3, 2)), jnp.zeros((3, 2), bool))


def test_feve_of_bad_input(untyped):
    with pytest.raises(ValueError, match="at least 2 repeats"):
        explainable_variance(jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match=r"predicted: expected shape \(3, 2\)"):
        feve(jnp.zeros((2, 2)), jnp.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="threshold: expected a number in"):
        feve(jnp.zeros((3, 2)), jnp.zeros((2, 3, 2)), threshold=2)


def test_gradients_are_finite():
    counts = np.float32([[0, 1, 0], [0, 3, 1], [0, 2, 0]])
    rates = np.ones_like(counts)

    @jax.jit
    @jax.grad
    def slope(rates):
        parts = [
            metric(rates, counts) for metric in (response_correlation, poisson_pseudo_r2, bits_per_spike)
        ]
        return jnp.nansum(jnp.stack(parts))

    others = rates.copy()
    others[0] = 2
    for point in (rates, others):
        assert np.isfinite(slope(point)).all()
    assert np.isfinite(jax.jit(jax.grad(circular_errors))(10.0, 10.0))
