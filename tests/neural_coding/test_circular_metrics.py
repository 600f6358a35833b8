"""Metrics against their definitions in NumPy, at the wrap, and on simulated responses of known variance."""

from itertools import permutations, product

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
    total = flat.var(0, ddof=1)
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
    total, n_responses = responses.reshape(-1, means.shape[1]).var(0, ddof=1), responses[..., 0].size
    noise = responses.var(0, ddof=1).mean(0)
    expected = total / n_responses / (total - noise)  # 0 but for the mean's own error
    np.testing.assert_allclose(explained(grand_mean, responses).feve, expected, atol=1e-4)


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


def test_explainable_variance_of_noise_alone_is_zero_on_average(x64):
    """Over all orders of the same numbers, with equal and with unequal repeats."""
    orders = np.array(list(permutations([0.0, 1.0, 3.0, 7.0, 8.0, 20.0])))
    responses = orders.T.reshape(3, 2, -1)
    assert float(np.mean(variance(responses))) == pytest.approx(0, abs=1e-14)
    unequal = explainable_variance(orders.T, np.array([0, 0, 1, 1, 1, 1]), 2)
    assert float(np.mean(unequal)) == pytest.approx(0, abs=1e-14)


def test_unequal_repeats_are_unbiased_whatever_the_noise_of_each_stimulus(x64):
    """By enumeration: each response is its mean ± a deviation of its own stimulus, all signs alike."""
    labels, means, deviations = np.array([0, 0, 1, 1, 1, 2, 2]), np.array([0.0, 1.0, 5.0]), [3.0, 1.0, 0.5]
    signs = np.array(list(product([-1, 1], repeat=7)))
    responses = means[labels][:, None] + np.take(deviations, labels)[:, None] * signs.T
    share = np.asarray(explainable_variance(responses, labels, 3))
    total = responses.var(0, ddof=1)
    expected = np.sum((means[labels] - means[labels].mean()) ** 2) / 6
    assert np.mean(share * total) == pytest.approx(expected, rel=1e-12)
    # The true means explain all of it, on average.
    fraction = feve(np.repeat(means[:, None], 128, 1), responses, labels=labels, threshold=0)
    missing = (1 - np.asarray(fraction.feve)) * share * total
    counted = np.isfinite(missing)
    error = np.mean((responses - means[labels][:, None]) ** 2, 0)
    by_stimulus = [np.sum(labels == s) * responses[labels == s].var(0, ddof=1) for s in range(3)]
    np.testing.assert_allclose(missing[counted], (error - np.sum(by_stimulus, 0) / 7)[counted], atol=1e-12)
    assert np.mean(error - np.sum(by_stimulus, 0) / 7) == pytest.approx(0, abs=1e-14)


def test_three_forms_of_unequal_repeats_are_one():
    """Labelled trials, repeats filled up with NaN, and, where repeats are equal, plain repeats."""
    means, responses = noisy_responses(1.0, 1.0, 4, 12, 3)
    labels = np.tile(np.arange(12), 4)
    plain = explained(means, responses)
    labelled = feve(means, responses.reshape(48, 3), labels=labels)
    np.testing.assert_allclose(labelled.feve, plain.feve, rtol=1e-5)
    holes = responses.copy()
    holes[3, ::2] = np.nan
    kept = np.isfinite(holes.reshape(48, 3)[:, 0])
    expected = feve(means, responses.reshape(48, 3)[kept], labels=labels[kept])
    for found, value in zip(explained(means, holes), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-5)
    # A hole in one neuron alone is not a missing trial.
    holes[:] = responses
    holes[1, 2, 0] = np.nan
    np.testing.assert_array_equal(np.isnan(explained(means, holes).feve), [True, False, False])


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e18, 1e30])
def test_scores_do_not_depend_on_the_unit(scale):
    means, responses = noisy_responses(1.0, 1.0, 3, 12, 4)
    scale, counts = np.float32(scale), np.float32(RNG.poisson(3.0, (12, 4)) + 1)
    means, responses = np.float32(means), np.float32(responses)
    expected = [np.corrcoef(means[:, i], responses[0, :, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(correlate(scale * means, responses[0]), expected, atol=1e-5)
    np.testing.assert_allclose(correlate(means, scale * responses[0]), expected, atol=1e-5)
    np.testing.assert_allclose(variance(scale * responses), variance(responses), rtol=1e-4)
    found = explained(scale * means, scale * responses, threshold=0)
    np.testing.assert_allclose(found.feve, explained(means, responses, threshold=0).feve, rtol=1e-4)
    rates = counts + np.float32(0.5)
    for metric in (pseudo_r2, bits):
        np.testing.assert_allclose(metric(scale * rates, scale * counts), metric(rates, counts), rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_single(dtype):
    means, responses = noisy_responses(100.0, 100.0, 3, 12, 4)
    means, responses = jnp.asarray(means, dtype), jnp.asarray(responses, dtype)
    single, double = means.astype(jnp.float32), responses.astype(jnp.float32)
    np.testing.assert_array_equal(correlate(means, responses[0]), correlate(single, double[0]))
    np.testing.assert_array_equal(variance(responses), variance(double))
    np.testing.assert_array_equal(explained(means, responses).feve, explained(single, double).feve)


def test_small_integers_do_not_wrap():
    true = np.arange(200, dtype=np.uint8) % 20
    counts = confusion_matrix(true, true, 20)
    np.testing.assert_array_equal(counts, 10 * np.eye(20))


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
    with pytest.raises(ValueError, match="measured: expected real numbers, got dtype complex64"):
        response_correlation(jnp.zeros((3, 2)), jnp.zeros((3, 2), complex))


def test_feve_of_bad_input(untyped):
    with pytest.raises(ValueError, match="at least 2 repeats"):
        explainable_variance(jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match=r"predicted: expected shape \(3, 2\)"):
        feve(jnp.zeros((2, 2)), jnp.zeros((2, 3, 2)))
    with pytest.raises(ValueError, match="threshold: expected a number in"):
        feve(jnp.zeros((3, 2)), jnp.zeros((2, 3, 2)), threshold=2)
    trials = jnp.zeros((4, 2))
    with pytest.raises(ValueError, match="labels: expected at least 2 repeats of each stimulus, got 1"):
        feve(jnp.zeros((2, 2)), trials, labels=jnp.array([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="labels: expected labels 0 to 1, got 0 to 2"):
        explainable_variance(trials, jnp.array([0, 0, 2, 2]), 2)
    with pytest.raises(ValueError, match="labels: expected 4 labels, one for each trial"):
        explainable_variance(trials, jnp.array([0, 0, 0]), 1)
    with pytest.raises(ValueError, match="predicted: expected classes 0 to 2, got 0 to 3"):
        confusion_matrix(jnp.array([0, 3]), jnp.array([0, 1]), 3)
    with pytest.raises(ValueError, match="predicted: expected integers"):
        fraction_correct(jnp.array([0.0, 1.0]), jnp.array([0, 1]))
    with pytest.raises(ValueError, match="predicted: expected shape"):
        fraction_correct(jnp.array([[0], [1]]), jnp.array([0, 1]))


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
