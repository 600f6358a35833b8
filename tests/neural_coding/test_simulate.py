"""The simulated population: its moments are those it states, and the same neurons can be drawn again."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from neurojax.neural_coding import simulate, von_mises
from neurojax.neural_coding._simulate import _poisson

KEY = jax.random.key(7)
QUIET = {"gain_deviation": 0, "shared_deviation": 0}


@pytest.fixture(scope="module")
def calcium():
    return simulate(KEY, n_neurons=40, n_trials=360)


@pytest.fixture(scope="module")
def repeats():
    """2000 trials of one angle, without shared noise."""
    return simulate(KEY, n_neurons=40, angles_degrees=np.full(2000, 30.0), responses="poisson", **QUIET)


def test_calcium_responses_are_z_scored_and_skewed(calcium):
    responses = np.asarray(calcium.responses)
    assert responses.shape == (360, 40) and responses.dtype == np.float32
    np.testing.assert_allclose(responses.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(responses.std(0), 1, rtol=1e-4)
    # Before z-scoring they are positive, and most of them lean to one side.
    assert (responses * np.asarray(calcium.scale) + np.asarray(calcium.center)).min() > -1e-4
    assert (stats.skew(responses) > 0).mean() > 0.95


def test_same_key_same_population(calcium):
    again = simulate(KEY, n_neurons=40, n_trials=360)
    assert eqx.tree_equal(calcium, again)
    other = simulate(jax.random.key(8), n_neurons=40, n_trials=360)
    assert not np.array_equal(calcium.responses, other.responses)
    assert not np.array_equal(calcium.tuning.preferred_degrees, other.tuning.preferred_degrees)


def test_drawn_again_are_the_same_neurons(calcium):
    repeat = calcium.draw(jax.random.key(1), calcium.angles_degrees)
    assert eqx.tree_equal(repeat.tuning, calcium.tuning)
    np.testing.assert_array_equal(repeat.mean_rates, calcium.mean_rates)
    assert not np.array_equal(repeat.responses, calcium.responses)
    # z-scores by the first draw, so that one trial can be drawn; shared noise moves the mean by a little.
    assert np.abs(np.asarray(repeat.responses).mean(0)).mean() < 0.1
    one = calcium.draw(jax.random.key(1), jnp.array([90]))
    assert one.responses.shape == (1, 40) and np.isfinite(one.responses).all()


def test_mean_rates_are_the_stated_tuning(calcium):
    tuning, angles = calcium.tuning, np.asarray(calcium.angles_degrees)
    phase = np.deg2rad(angles[:, None] - np.asarray(tuning.preferred_degrees))
    bumps = [np.exp(np.asarray(tuning.concentration) * (sign * np.cos(phase) - 1)) for sign in (1, -1)]
    expected = tuning.baseline + tuning.amplitude * bumps[0] + tuning.opposite_amplitude * bumps[1]
    np.testing.assert_allclose(calcium.mean_rates, expected, rtol=1e-4)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(von_mises, (None, 0), 1))(calcium.angles_degrees, tuning),
        calcium.mean_rates,
        rtol=1e-5,
    )
    assert np.all(tuning.opposite_amplitude <= tuning.amplitude)


def test_counts_have_poisson_mean_and_variance(repeats):
    counts, rates = np.asarray(repeats.responses), np.asarray(repeats.mean_rates)[0]
    assert np.all(counts == np.round(counts)) and counts.min() >= 0
    error = (counts.mean(0) - rates) / np.sqrt(rates / 2000)
    assert np.abs(error).max() < 4.5 and 0.5 < np.mean(error**2) < 1.7
    # The variance of a sample variance of Poisson counts is (μ + 2μ²)/n.
    spread = (counts.var(0, ddof=1) - rates) / np.sqrt((rates + 2 * rates**2) / 2000)
    assert np.abs(spread).max() < 4.5 and 0.5 < np.mean(spread**2) < 1.7


def test_poisson_counts_against_their_distribution():
    rates = np.repeat(np.float32([0.05, 3.0, 200.0, 0.0]), 20_000)
    of_all = np.asarray(jax.jit(_poisson)(KEY, rates)).reshape(4, -1)
    for rate, counts in zip(rates[::20_000], of_all[:3], strict=False):
        edges = np.unique(stats.poisson.ppf([0.1, 0.3, 0.5, 0.7, 0.9, 0.99], rate))
        cells = np.diff(np.concatenate([[0.0], stats.poisson.cdf(edges, rate), [1.0]]))
        seen = np.bincount(np.searchsorted(edges, counts), minlength=len(cells))
        assert stats.chisquare(seen[: len(cells)], 20_000 * cells).pvalue > 1e-3, rate
    assert not of_all[3].any()


def test_shared_noise_makes_noise_correlations():
    angles = np.zeros(360, np.float32)
    loud = simulate(KEY, n_neurons=40, angles_degrees=angles, gain_deviation=0.5, noise_deviation=0.2)
    quiet = simulate(KEY, n_neurons=40, angles_degrees=angles, noise_deviation=0.2, **QUIET)
    off = ~np.eye(40, dtype=bool)
    shared, alone = (np.corrcoef(np.asarray(p.responses).T)[off] for p in (loud, quiet))
    assert shared.mean() > 0.5 and abs(alone.mean()) < 4 / np.sqrt(360 * 40)


def test_orientations_have_one_peak_in_180_degrees():
    population = simulate(KEY, n_neurons=40, n_trials=36, period_degrees=180)
    assert not np.asarray(population.tuning.opposite_amplitude).any()
    assert float(population.angles_degrees[-1]) == 175
    turned = population.draw(KEY, population.angles_degrees + 180)
    np.testing.assert_allclose(turned.mean_rates, population.mean_rates, rtol=1e-4)


def test_double_precision(x64):
    population = simulate(KEY, n_neurons=5, n_trials=8, responses="poisson")
    assert {leaf.dtype for leaf in jax.tree.leaves(population)} == {np.dtype("float64")}


def test_bad_arguments(untyped):
    for arguments, message in (
        ({"n_neurons": 0}, "n_neurons: expected a whole number ≥ 1"),
        ({"responses": "spikes"}, "responses: expected 'calcium' or 'poisson'"),
        ({"period_degrees": 90}, "period_degrees: expected 180 or 360"),
        ({"n_trials": 3, "angles_degrees": np.zeros(3)}, "n_trials: expected None beside angles_degrees"),
        ({"gain_deviation": -1}, "gain_deviation: expected a number ≥ 0"),
        ({"angles_degrees": np.array([np.nan])}, "angles_degrees: expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            simulate(KEY, **arguments)
