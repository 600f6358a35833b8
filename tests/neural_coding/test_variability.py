"""Correlations and reliability against NumPy, and on simulated responses of known variances."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.neural_coding import (
    constant_neurons,
    noise_correlations,
    signal_correlations,
    split_half_reliability,
    trial_to_trial_reliability,
)

RNG = np.random.default_rng(3)
KEY = jax.random.key(0)
# Compiled: one by one their operations would take longer.
split_half = eqx.filter_jit(split_half_reliability)
trial_to_trial = eqx.filter_jit(trial_to_trial_reliability)
noise_of = eqx.filter_jit(noise_correlations)
signal_of = eqx.filter_jit(signal_correlations)
constant = eqx.filter_jit(constant_neurons)


def test_constant_neurons():
    responses = RNG.normal(size=(20, 6)).astype(np.float32)
    responses[:, 0], responses[:, 1] = 0, 0.1
    responses[4, 2], responses[4, 3] = np.nan, np.inf
    responses[:, 4] = 1e-30 * responses[:, 5]
    np.testing.assert_array_equal(constant(responses), [True, True, True, True, False, False])


def test_signal_correlations_against_numpy(x64):
    tuning = RNG.normal(size=(4, 12))
    np.testing.assert_allclose(signal_of(tuning), np.corrcoef(tuning), atol=1e-12)
    tuning[2] = 0.3
    correlation = np.asarray(signal_of(tuning))
    assert np.isnan(correlation[2]).all() and np.isnan(correlation[:, 2]).all()
    assert np.isfinite(np.delete(np.delete(correlation, 2, 0), 2, 1)).all()


def test_noise_correlations_against_numpy(x64):
    labels, responses = RNG.integers(0, 5, 60), RNG.normal(size=(60, 4))
    responses[:, 3] = labels / 7
    residuals = responses.copy()
    for label in range(5):
        residuals[labels == label] -= responses[labels == label].mean(0)
    correlation = np.asarray(noise_of(responses, labels, 7))
    np.testing.assert_allclose(correlation[:3, :3], np.corrcoef(residuals[:, :3].T), atol=1e-12)
    # A neuron that answers each condition alike has no noise.
    assert np.isnan(correlation[3]).all()


def test_noise_correlations_do_not_see_the_signal():
    labels = np.repeat(np.arange(10), 40)
    shared = RNG.normal(size=(400, 1))
    noise = np.sqrt(0.3) * shared + np.sqrt(0.7) * RNG.normal(size=(400, 2))
    signal = 50 * RNG.normal(size=(10, 2))[labels]
    correlation = np.asarray(noise_of((signal + noise).astype(np.float32), labels, 10))[0, 1]
    # The standard error of a correlation ρ is (1 − ρ²)/√n.
    assert abs(correlation - 0.3) < 4 * (1 - 0.3**2) / np.sqrt(390)


def test_labels_out_of_range():
    labels, responses = np.repeat(np.arange(3), 20), RNG.normal(size=(60, 3)).astype(np.float32)
    for wrong, shown in ((45 * labels, "0 to 90"), (labels - 1, "-1 to 1"), (labels + 1, "1 to 3")):
        with pytest.raises(ValueError, match=f"labels: expected labels 0 to 2, got {shown}"):
            noise_correlations(responses, wrong, 3)


def test_trials_of_no_condition_are_not_counted_under_jit(x64):
    labels, responses = np.arange(60) % 5, RNG.normal(size=(60, 4))
    is_left_out = np.arange(60) % 7 == 0
    responses[is_left_out] += 50 * RNG.normal(size=(is_left_out.sum(), 1))
    residuals = responses[~is_left_out]
    for label in range(5):
        of_label = labels[~is_left_out] == label
        residuals[of_label] -= residuals[of_label].mean(0)
    responses[0] = np.nan
    for beyond in (-1, 7, 90):
        found = noise_of(responses, np.where(is_left_out, beyond, labels), 7)
        np.testing.assert_allclose(found, np.corrcoef(residuals.T), atol=1e-12, err_msg=f"label {beyond}")


def test_counts_are_responses(x64):
    """Integers give what the same numbers in floating point give."""
    halves, repeats, rows = (RNG.poisson(3.0, shape) for shape in ((5, 20, 3), (4, 20, 3), (60, 4)))
    labels, tuning = np.arange(60) % 5, RNG.poisson(3.0, (4, 12))
    for function, counts, *rest in (
        (noise_of, rows, labels, 7),
        (signal_of, tuning),
        (constant, rows),
        (split_half, halves, KEY),
        (trial_to_trial, repeats),
    ):
        np.testing.assert_array_equal(function(counts, *rest), function(counts.astype(float), *rest))


def repeats_of(signal, noise, n_repeats, n_neurons=200, n_stimuli=100):
    means = RNG.normal(scale=np.sqrt(signal), size=(n_stimuli, n_neurons))
    return means + RNG.normal(scale=np.sqrt(noise), size=(n_repeats, n_stimuli, n_neurons))


def standard_error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))


def test_split_half_reliability_of_known_variances():
    responses = repeats_of(1.0, 2.0, 4).astype(np.float32)
    half = np.asarray(split_half(responses, KEY, is_corrected=False))
    whole = np.asarray(split_half(responses, KEY))
    np.testing.assert_allclose(whole, 2 * half / (1 + half), rtol=1e-5)
    # Mean of two: signal 1, noise 1; r has a bias of about −ρ(1 − ρ²)/2n over n stimuli.
    assert abs(half.mean() + 0.5 * 0.75 / 200 - 0.5) < 4 * standard_error(half) < 0.03


@pytest.mark.parametrize("n_repeats", [2, 5])
def test_split_half_reliability_is_exact_for_orthogonal_noise(x64, n_repeats):
    """Signal and noise that correlate with nothing: the mean of all has the reliability S/(S + N/repeats)."""
    vectors = np.random.default_rng(1).normal(size=(20, n_repeats + 1))
    signal, *noise = np.linalg.qr(vectors - vectors.mean(0))[0].T
    variances = np.array([0.2, 1.0, 5.0])
    responses = signal[:, None] + np.sqrt(variances) * np.array(noise)[:, :, None]
    np.testing.assert_allclose(split_half(responses, KEY), 1 / (1 + variances / n_repeats), rtol=1e-10)


def test_split_halves_are_disjoint_and_use_all_repeats(x64):
    responses = RNG.normal(size=(5, 20, 3))
    order = np.asarray(jax.random.permutation(KEY, 5))
    halves = [responses[order[part]].mean(0) for part in (slice(0, 2), slice(2, 5))]
    expected = [np.corrcoef(*pair)[0, 1] for pair in zip(*(half.T for half in halves), strict=True)]
    np.testing.assert_allclose(split_half(responses, KEY, is_corrected=False), expected)


def test_trial_to_trial_reliability_against_numpy(x64):
    responses = repeats_of(1.0, 1.0, 4, 3, 20)
    responses[2, :, 1] = 0.4
    reliability = np.asarray(trial_to_trial(responses))
    for neuron in (0, 2):
        y = responses[:, :, neuron]
        pairs = [np.corrcoef(y[r], np.delete(y, r, 0).mean(0))[0, 1] for r in range(4)]
        assert reliability[neuron] == pytest.approx(np.mean(pairs))
    assert np.isnan(reliability[1])


def test_a_constant_neuron_has_no_reliability(x64):
    responses = RNG.normal(size=(5, 20, 3))
    responses[:, :, 0] = 2
    for value in (split_half(responses, KEY), trial_to_trial(responses[:4])):
        np.testing.assert_array_equal(np.isnan(value), [True, False, False])


def test_bad_input(untyped):
    with pytest.raises(ValueError, match="at least 2 repeats"):
        trial_to_trial_reliability(jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match="labels: expected 4 labels"):
        noise_correlations(jnp.zeros((4, 2)), jnp.zeros(3, int), 2)
    with pytest.raises(ValueError, match="responses: expected real numbers"):
        constant_neurons(jnp.zeros((4, 2), complex))


def test_gradients_are_finite():
    responses = RNG.normal(size=(4, 6, 2)).astype(np.float32)
    responses[:, :, 0] = 0

    @jax.jit
    @jax.grad
    def slope(responses):
        parts = [split_half_reliability(responses, KEY), trial_to_trial_reliability(responses)]
        tuning = responses.reshape(24, 2)
        correlations = noise_correlations(tuning, np.arange(24) % 4, 4), signal_correlations(tuning.T)
        return jnp.nansum(jnp.stack(parts)) + sum(jnp.nansum(c) for c in correlations)

    assert np.isfinite(slope(responses)).all()
