"""Faults of decoding, angles and scores, each with the input that showed it and its right value."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import neural_coding as nc
from neurojax import plotting

RNG = np.random.default_rng(0)
DEGREES = np.arange(0.0, 360.0, 45.0)
ANGLES = np.tile(DEGREES, 4)
RESPONSES = np.float32(2 + np.cos(np.deg2rad(ANGLES[:, None] - [0, 100, 250])) + RNG.normal(size=(32, 3)) / 4)
BINS = nc.AngleBins(8, 360, -22.5)


def held_out(errors, n_folds=4):
    """Held-out answers of given errors."""
    true = np.resize(DEGREES, len(errors))
    fold = np.arange(len(errors)) % n_folds
    return nc.CrossValidation(true + errors, true, fold, None, 360.0, None)


def test_A06_response_correlation_in_units_of_1e_minus_12():
    predicted, measured = RNG.normal(size=(2, 40, 3)).astype(np.float32)
    measured = predicted + measured / 9
    expected = [np.corrcoef(predicted[:, i], measured[:, i])[0, 1] for i in range(3)]
    for scale in (1e-30, 1e-12, 1e30):
        small = np.float32(scale) * measured
        np.testing.assert_allclose(nc.response_correlation(predicted, small), expected, rtol=1e-5)
        np.testing.assert_allclose(nc.response_correlation(small, small), 1, rtol=1e-5)


def test_A06_reliability_and_noise_correlations_at_any_scale():
    responses = RNG.normal(size=(4, 12, 3)).astype(np.float32)
    labels = np.arange(48) % 12
    measures = (
        nc.trial_to_trial_reliability,
        lambda r: nc.split_half_reliability(r, jax.random.key(0)),
        lambda r: nc.noise_correlations(r.reshape(48, 3), labels, 12),
        lambda r: nc.signal_correlations(r[0].T),
    )
    for measure in map(jax.jit, measures):
        for scale in (1e-30, 1e30):
            np.testing.assert_allclose(measure(np.float32(scale) * responses), measure(responses), atol=1e-5)


def test_B17_the_standard_error_counts_what_folds_share():
    errors = RNG.normal(scale=30, size=40)
    score = held_out(errors).score(nc.mean_circular_error)
    sizes = np.abs(errors)
    # Nadeau and Bengio 2003: (1/k + n_test/n_train)·s², of all trials; resampling leaves 5 % to chance.
    expected = np.sqrt((1 / 4 + 10 / 30) * sizes.var(ddof=1) / 10)
    np.testing.assert_allclose(score, (sizes.mean(), expected), rtol=0.15)
    np.testing.assert_allclose(score.value, sizes.mean(), rtol=1e-5)


def test_B19_explainable_variance_is_unbiased_with_unequal_repeats():
    labels = np.repeat(np.arange(4), [2, 3, 4, 2])
    means = np.array([0.0, 1.0, 2.0, 4.0])[labels]
    responses = means[:, None] + RNG.normal(size=(11, 20_000))
    share_of = eqx.filter_jit(nc.explainable_variance)
    share = np.asarray(share_of(responses, labels, 4))
    explained = share * responses.var(0, ddof=1)
    expected = np.sum((means - means.mean()) ** 2) / 10
    error = explained.std(ddof=1) / np.sqrt(20_000)
    assert abs(explained.mean() - expected) < 4 * error < 0.05
    # Noise alone has nothing to explain.
    noise = responses - means[:, None]
    nothing = np.asarray(share_of(noise, labels, 4)) * noise.var(0, ddof=1)
    assert abs(nothing.mean()) < 4 * nothing.std(ddof=1) / np.sqrt(20_000)


def test_B19_feve_is_that_of_the_reference_with_ddof_1():
    responses, predicted = RNG.normal(size=(3, 8, 5)) + np.arange(8)[:, None], np.zeros((8, 5)) + 3
    total, noise = responses.reshape(24, 5).var(0, ddof=1), responses.var(0, ddof=1).mean(0)
    error = np.mean((responses - predicted) ** 2, (0, 1))
    found = eqx.filter_jit(nc.feve)(predicted, responses)
    np.testing.assert_allclose(found.feve, 1 - (error - noise) / (total - noise), rtol=1e-4)
    np.testing.assert_allclose(found.explainable, (total - noise) / total, rtol=1e-5)


def test_B21_paired_mean_of_small_integers(untyped):
    responses = np.array([[200], [100]], np.uint8)
    np.testing.assert_array_equal(nc.paired_mean_baseline(responses, np.array([0, 180])), [[150], [150]])
    repeats = np.full((3, 1, 1), 200, np.uint8)
    np.testing.assert_array_equal(nc.repeat_mean_baseline(repeats), repeats)
    np.testing.assert_array_equal(nc.null_baseline(responses), [[150], [150]])


def test_B21_counts_of_many_classes_in_small_integers():
    classes = np.arange(100, dtype=np.int8)
    np.testing.assert_array_equal(nc.confusion_matrix(classes, classes, 100), np.eye(100))


def test_B22_columns_are_not_broadcast(untyped):
    column = DEGREES.astype(np.float32)[:, None]
    for refused in (
        lambda: nc.circular_mean(np.float32(DEGREES), 360, np.ones((8, 1), np.float32)),
        lambda: nc.circular_difference(column, column[:, 0]),
        lambda: nc.circular_errors(column, column[:, 0]),
        lambda: nc.mean_circular_error(column[:, 0], column),
        lambda: nc.fraction_correct(np.arange(8)[:, None], np.arange(8)),
        lambda: nc.response_correlation(column, column[:, 0]),
    ):
        with pytest.raises(ValueError, match=r"shape"):
            refused()
    differences = nc.circular_difference(column, column.T)  # all pairs, as both say so
    np.testing.assert_array_equal(np.abs(differences)[0], [0, 45, 90, 135, 180, 135, 90, 45])


def test_B25_preferred_direction_of_a_closed_circle():
    angles = np.linspace(0, 360, 9)
    curve = 1 + np.cos(np.deg2rad(angles - 60))
    assert float(nc.preferred_direction(curve, angles)) == pytest.approx(60, abs=1e-3)
    half = np.linspace(0, 180, 9)
    curve = 1 + np.cos(2 * np.deg2rad(half - 60))
    assert float(nc.preferred_orientation(curve, half)) == pytest.approx(60, abs=1e-3)
    with pytest.raises(ValueError, match="angles_degrees: expected angles in degrees that divide"):
        nc.preferred_direction(curve, half)


def test_B27_tuned_asks_the_decoder_what_it_takes():
    def tuned(strengths):
        return nc.Tuned(nc.GaussianDecoder(BINS), strengths, where=lambda d: d.shrinkage, n_folds=2)

    message = r"strengths: expected numbers that GaussianDecoder takes, got 2: shrinkage: .* in \[0, 1\]"
    with pytest.raises(ValueError, match=message):
        tuned(jnp.array([2.0, 5.0]))
    fitted = eqx.filter_jit(tuned(jnp.array([0.0, 0.5])).fit)(RESPONSES, ANGLES)
    assert np.all(np.isfinite(fitted.scores)) and float(fitted.strength) in (0, 0.5)
    with pytest.raises(ValueError, match="strength: expected a number > 0, got 0"):
        nc.Tuned(nc.SinCosRidge(), jnp.array([0.0]))


def test_B27_simulate_refuses_rates_that_never_end():
    small = {"n_neurons": 4, "n_trials": 6, "n_shared": 2, "responses": "poisson"}
    for rate in (np.inf, 1e12):
        with pytest.raises(ValueError, match="mean_rate: expected"):
            nc.simulate(jax.random.key(0), mean_rate=rate, **small)
    for name in ("modulation", "gain_deviation", "shared_deviation", "noise_deviation"):
        with pytest.raises(ValueError, match=f"{name}: expected finite"):
            nc.simulate(jax.random.key(0), **{name: np.inf}, **small)


def test_B27_lags_do_not_cross_trials(untyped):
    stimuli = np.arange(1.0, 13.0).reshape(6, 2)
    trials = np.array([7, 7, 7, 2, 2, 5])
    expected = np.zeros((6, 3, 2))
    for t in range(6):
        for k in range(3):
            if t >= k and trials[t - k] == trials[t]:
                expected[t, k] = stimuli[t - k]
    np.testing.assert_array_equal(nc.lagged(stimuli, 3, trials=trials), expected)
    whole = nc.lagged(stimuli, 3, trials=np.zeros(6, int))
    np.testing.assert_array_equal(whole, nc.lagged(stimuli, 3))
    with pytest.raises(ValueError, match="trials: expected 6 trials, one for each time bin"):
        nc.lagged(stimuli, 3, trials=trials[:5])


def test_B27_noise_correlations_of_z_scores():
    labels = np.repeat(np.arange(3), 8)
    responses = RNG.normal(size=(24, 4)) * np.array([1, 20, 300.0])[labels, None]
    residuals = np.concatenate([r - r.mean(0) for r in responses.reshape(3, 8, 4)])
    scores = np.concatenate([r / r.std(0, ddof=1) for r in residuals.reshape(3, 8, 4)])
    correlations = eqx.filter_jit(nc.noise_correlations)
    raw, scored = (correlations(responses, labels, 3, is_z_scored=z) for z in (False, True))
    np.testing.assert_allclose(raw, np.corrcoef(residuals.T), atol=1e-5)
    np.testing.assert_allclose(scored, np.corrcoef(scores.T), atol=1e-5)


def test_B28_radians_and_other_periods_are_told_once():
    folds = nc.stratified_folds(ANGLES, 4, jax.random.key(0))
    radians, half = np.deg2rad(ANGLES), nc.SinCosRidge(180)
    for told, call in (
        ("may be radians", lambda: nc.SinCosRidge().fit(RESPONSES, radians)),
        ("may be radians", lambda: nc.PopulationVector().fit(RESPONSES, radians - np.pi)),
        ("may be radians", lambda: nc.stratified_folds(radians, 4, jax.random.key(0))),
        ("may be radians", lambda: nc.cross_validate(nc.SinCosRidge(), RESPONSES, radians, folds)),
        ("may be radians", lambda: nc.mean_circular_error(radians, radians)),
        ("may be radians", lambda: nc.circular_mean(np.float32(radians))),
        ("within one period of 180°", lambda: half.fit(RESPONSES, ANGLES)),
        ("within one period of 180°", lambda: nc.AngleBins.around(ANGLES, 180)),
    ):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("default")
            call()
        assert [w for w in seen if told in str(w.message) and "_degrees: " in str(w.message)] == seen != []
        assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nc.SinCosRidge().fit(RESPONSES, ANGLES - 180)
        nc.SinCosRidge().fit(RESPONSES, np.linspace(-0.5, 0.5, 32))


def test_D46_the_histogram_of_errors_says_what_the_table_says():
    found = held_out(RNG.gamma(1, 20, 30), n_folds=3)
    sizes = np.abs(found.predicted_degrees - found.true_degrees)
    labels = plotting.error_histogram(sizes).get_legend_handles_labels()[1]
    assert f"median {found.score(nc.median_circular_error).value:.1f}°" in labels
