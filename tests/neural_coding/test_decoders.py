"""Decoders against their models in NumPy and SciPy, and what a circle asks of every one of them."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, poisson
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from neurojax.neural_coding import (
    AngleBins,
    BumpRidge,
    GaussianDecoder,
    MultinomialDecoder,
    NetworkClassifier,
    NetworkRegression,
    PoissonDecoder,
    PopulationVector,
    SinCosRidge,
    Tuned,
    circular_difference,
    cross_validate,
    posterior_mean_degrees,
)
from neurojax.penalties import ElasticNet

RNG = np.random.default_rng(0)
N_NEURONS = 20
ANGLES = np.tile(np.arange(8) * 45, 6)  # trial 8·k + d shows direction d
PREFERRED = RNG.uniform(0, 360, N_NEURONS)
RATES = np.exp(1.5 + 0.8 * np.cos(np.deg2rad(ANGLES[:, None] - PREFERRED)))
COUNTS = RNG.poisson(RATES).astype(float)
TRAIN, TEST = np.arange(40), np.arange(40, 48)
SPLITS = [(TRAIN, TEST), (np.arange(8, 48), np.arange(8))]
BINS, HALF = AngleBins(8, 360, -22.5), AngleBins(8, 180, -11.25)


def shrinkage_of(decoder):
    return decoder.shrinkage


# Numbers that tests vary are arrays, so that each kind of decoder is compiled once for all of them.
MAKE = {
    "sine and cosine": lambda bins: SinCosRidge(bins.period_degrees),
    "bumps": lambda bins: BumpRidge(bins.period_degrees, width_degrees=bins.period_degrees / 36),
    "population vector": lambda bins: PopulationVector(bins.period_degrees),
    "Poisson": lambda bins, prior=1.0: PoissonDecoder(bins, np.array(prior)),
    "Poisson, smooth": lambda bins, prior=1.0: PoissonDecoder(
        bins, np.array(prior), smoothing_degrees=bins.period_degrees / 12
    ),
    "Gaussian": partial(GaussianDecoder, square_root=True, prior_count=0.5),
    "Gaussian, smooth": lambda bins: GaussianDecoder(
        bins, np.array(0.3), smoothing_degrees=bins.period_degrees / 12
    ),
    "multinomial": lambda bins, l2=0.01: MultinomialDecoder(bins, ElasticNet(0.0, np.array(l2)), tol=1e-6),
    "tuned": lambda bins: Tuned(
        GaussianDecoder(bins, np.array(0.5)), np.array([0.1, 0.9]), where=shrinkage_of, n_folds=4
    ),
}
CONTINUOUS = ["sine and cosine", "bumps", "population vector"]
every_decoder = pytest.mark.parametrize("name", MAKE)


@eqx.filter_jit
def fit_and_answer(decoder, responses, angles, new, weights=None):
    """Return the fitted decoder, decoded angles, and log-probabilities where there are any, of new trials."""
    fitted = decoder.fit(responses, angles, weights=weights)
    if hasattr(fitted, "log_probabilities"):
        return fitted, jax.vmap(fitted.predict)(new), jax.vmap(fitted.log_probabilities)(new)
    return fitted, jax.vmap(fitted.predict)(new), None


@eqx.filter_jit
def answer_one(fitted, response):
    return fitted.predict(response)


@eqx.filter_jit
def answer_all(fitted, responses):
    return jax.vmap(fitted.predict)(responses)


@eqx.filter_jit
def slopes_of_answers(fitted, responses):
    return jax.vmap(jax.grad(fitted.predict))(responses)


def answers(decoder, responses, angles, new, weights=None):
    return fit_and_answer(decoder, responses, 1.0 * angles, new, weights)[1:]


def answers_weighted(decoder, responses, angles, new, weights=None):
    """Answer by the one program for weights of every kind."""
    weights = np.ones(len(responses)) if weights is None else weights
    return answers(decoder, responses, angles, new, weights)


def assert_same_angles(found, expected, period=360, tolerance=1e-8):
    away = circular_difference(np.asarray(found, float), np.asarray(expected, float), period)
    np.testing.assert_allclose(away, 0, atol=tolerance)
    assert np.all((np.asarray(found) >= 0) & (np.asarray(found) < period))


@every_decoder
def test_rotation_order_and_whole_turns(x64, name):
    decoder = MAKE[name](BINS)
    angles = 1.0 * ANGLES[TRAIN]
    base, log_probabilities = answers(decoder, COUNTS[TRAIN], angles, COUNTS[TEST])
    # It decodes at all: chance is 90°.
    assert np.mean(np.abs(circular_difference(base, 1.0 * ANGLES[TEST]))) < 30
    # Rotated by whole bins, which are whole bumps.
    rotated, of_rotated = answers(decoder, COUNTS[TRAIN], angles + 3 * 45, COUNTS[TEST])
    assert_same_angles(rotated, base + 135, tolerance=1e-6)
    # Written as other turns.
    turned, of_turned = answers(decoder, COUNTS[TRAIN], angles + 360 * (np.arange(40) % 3), COUNTS[TEST])
    assert_same_angles(turned, base, tolerance=1e-6)
    # In another order; the folds of what is tuned are dealt in the order of trials of one angle.
    order = RNG.permutation(40)
    if name == "tuned":
        order = order[np.argsort(order // 8, kind="stable")]
    shuffled, of_shuffled = answers(decoder, COUNTS[TRAIN][order], angles[order], COUNTS[TEST])
    assert_same_angles(shuffled, base, tolerance=1e-6)
    if log_probabilities is not None:
        np.testing.assert_allclose(np.exp(log_probabilities).sum(1), 1, rtol=1e-12)
        np.testing.assert_allclose(of_rotated, np.roll(log_probabilities, 3, axis=1), atol=1e-5)
        np.testing.assert_allclose(of_turned, log_probabilities, atol=1e-7)
        np.testing.assert_allclose(of_shuffled, log_probabilities, atol=1e-5)


@pytest.mark.parametrize(
    "name, tolerance", [("sine and cosine", 1e-9), ("population vector", 1e-9), ("bumps", 0.1)]
)
def test_rotation_by_any_angle(x64, name, tolerance):
    decoder, angles = MAKE[name](BINS), 1.0 * ANGLES[TRAIN]
    base, _ = answers(decoder, COUNTS[TRAIN], angles, COUNTS[TEST])
    rotated, _ = answers(decoder, COUNTS[TRAIN], angles + 61.3, COUNTS[TEST])
    assert_same_angles(rotated, base + 61.3, tolerance=tolerance)


@pytest.mark.parametrize("name", ["Poisson, smooth", "Gaussian, smooth"])
def test_bins_rotate_with_the_angles(x64, name):
    base = answers(MAKE[name](BINS), COUNTS[TRAIN], ANGLES[TRAIN], COUNTS[TEST])
    moved = AngleBins(8, 360, -22.5 + 61.3)
    rotated = answers(MAKE[name](moved), COUNTS[TRAIN], ANGLES[TRAIN] + 61.3, COUNTS[TEST])
    assert_same_angles(rotated[0], base[0] + 61.3)
    np.testing.assert_allclose(rotated[1], base[1], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in MAKE if name not in ("Poisson", "tuned")])
def test_orientations_in_float32_are_half_of_directions_in_float64(name):
    counts = np.float32(COUNTS)
    small, of_small = answers(MAKE[name](HALF), counts[TRAIN], np.float32(ANGLES[TRAIN] / 2), counts[TEST])
    with jax.enable_x64(True):
        large, of_large = answers(MAKE[name](BINS), COUNTS[TRAIN], ANGLES[TRAIN], COUNTS[TEST])
    assert small.dtype == jnp.float32 and large.dtype == jnp.float64
    assert_same_angles(2 * np.asarray(small, float), large, tolerance=5e-3)
    if of_small is not None:
        np.testing.assert_allclose(of_small, of_large, atol=2e-3)


@every_decoder
def test_padding_and_weights_zero_are_exact(x64, name):
    """Cross-validation pads trials and neurons, and leaves test trials out by weights."""
    decoder = MAKE[name](BINS)
    found = cross_validate(decoder, COUNTS, ANGLES, SPLITS)
    direct, of_direct = answers(decoder, COUNTS[TRAIN], ANGLES[TRAIN], COUNTS[TEST])
    assert_same_angles(found.predicted_degrees[TEST], direct)
    np.testing.assert_array_equal(found.fold, np.r_[np.ones(8), np.full(32, -1), np.zeros(8)])
    assert np.all(np.isnan(found.predicted_degrees[8:40]))
    if of_direct is not None:
        np.testing.assert_allclose(found.log_probabilities[TEST], of_direct, atol=1e-8)
        # log_probabilities are aligned with trials.
        best = BINS.centers_degrees[found.log_probabilities[TEST].argmax(1)]
        np.testing.assert_array_equal(best, found.predicted_degrees[TEST])
    # What was shown in the test trials, and how neurons fired in each other's, changes no bit.
    lies, others = ANGLES.copy(), COUNTS.copy()
    lies[TEST], others[45:] = ANGLES[TEST][::-1], 1e3
    lied = cross_validate(decoder, others, lies, SPLITS)
    np.testing.assert_array_equal(lied.predicted_degrees[40:45], found.predicted_degrees[40:45])


@pytest.mark.parametrize("name", ["sine and cosine", "bumps", "Poisson", "Gaussian", "multinomial", "tuned"])
def test_one_trial_alone_is_decoded_as_among_others(x64, name):
    fitted, together, _ = fit_and_answer(MAKE[name](BINS), COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], COUNTS[TEST])
    assert_same_angles(answer_one(fitted, COUNTS[TEST][1]), together[1])
    assert fitted.period_degrees == 360


@pytest.mark.parametrize("name", CONTINUOUS)
def test_gradient_of_the_answer(x64, name):
    arguments = MAKE[name](BINS), COUNTS[TRAIN], 1.0 * ANGLES[TRAIN]
    fitted, *_ = fit_and_answer(*arguments, COUNTS[TEST])
    slope = slopes_of_answers(fitted, COUNTS[TEST])
    away, step = RNG.normal(size=N_NEURONS), 1e-5
    ahead, behind = (answers(*arguments, COUNTS[TEST] + sign * step * away)[0] for sign in (1, -1))
    numeric = circular_difference(ahead, behind) / (2 * step)
    np.testing.assert_allclose(slope @ away, numeric, rtol=1e-5, atol=1e-6)


mean_on_circle = eqx.filter_jit(posterior_mean_degrees)


def test_gradient_of_the_posterior_mean_is_finite_with_a_class_unseen():
    kept = np.flatnonzero(ANGLES != 90)[:40]
    counts = np.float32(COUNTS)
    fitted, *_ = fit_and_answer(GaussianDecoder(BINS), counts[kept], np.float32(ANGLES[kept]), counts[TEST])
    slope = jax.jit(jax.grad(partial(posterior_mean_degrees, fitted)))(counts[0])
    assert np.all(np.isfinite(slope)) and np.any(slope != 0)


def test_posterior_mean_is_the_mean_on_the_circle(x64):
    decoder, new = MAKE["Poisson, smooth"](BINS), np.tile(COUNTS.mean(0), (8, 1))
    fitted, _, log_probabilities = fit_and_answer(decoder, COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], new)
    p = np.exp(np.asarray(log_probabilities[0]))
    mean = np.rad2deg(np.angle(np.sum(p * np.exp(1j * np.deg2rad(BINS.centers_degrees)))))
    assert_same_angles(mean_on_circle(fitted, new[0]), np.mod(mean, 360))


# Models, restated.


def tuning(counts, angles, weights, prior_count=0.0, smoothing=None):
    """Return mean responses, bins by neurons, restated as sums over trials."""
    overall = np.sum(weights[:, None] * counts, axis=0) / weights.sum()
    means = []
    for center in np.arange(8) * 45.0:
        away = np.deg2rad(angles - center)
        share = 1.0 * (np.abs(np.sin(away / 2)) < 0.1)
        if smoothing is not None:
            share = np.exp((np.cos(away) - 1) / np.deg2rad(smoothing) ** 2)
        share = weights * share
        means.append((share @ counts + prior_count * overall) / (share.sum() + prior_count))
    return np.array(means)


@pytest.mark.parametrize("name, smoothing", [("Poisson", None), ("Poisson, smooth", 30.0)])
def test_poisson_is_scipy(x64, name, smoothing):
    counts, weights = COUNTS.copy(), RNG.uniform(0.5, 1.5, 40)
    counts[:, 4] = 0
    arguments = MAKE[name](BINS, 1.5), counts[TRAIN], ANGLES[TRAIN]
    _, found = answers(*arguments, counts[TEST], weights)
    rates = tuning(counts[TRAIN], ANGLES[TRAIN], weights, 1.5, smoothing)
    expected = poisson.logpmf(counts[TEST][:, None], rates).sum(-1)
    np.testing.assert_allclose(found, expected - logsumexp(expected, axis=1, keepdims=True), atol=1e-9)
    # A neuron that was silent in training says nothing, whatever it does later.
    awake = counts[TEST].copy()
    awake[:, 4] = 7
    np.testing.assert_array_equal(answers(*arguments, awake, weights)[1], found)


def test_poisson_in_float32_where_sums_are_large():
    """Hundreds of busy neurons: the sums are of thousands of nats, their differences of a few."""
    rates = 60 * np.exp(0.02 * np.cos(np.deg2rad(ANGLES[:, None] - np.linspace(0, 360, 400))))
    counts = np.random.default_rng(0).poisson(rates).astype(float)
    found = answers(PoissonDecoder(BINS), np.float32(counts), np.float32(ANGLES), np.float32(counts))[1]
    exact = poisson.logpmf(counts[:, None], tuning(counts, ANGLES, np.ones(48), 1.0)).sum(-1)
    exact = exact - logsumexp(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(found, exact, atol=2e-3)


def test_a_single_trial_among_thousands_has_its_bin():
    angles = np.r_[np.zeros(3000), 180.0]
    responses = np.r_[RNG.poisson(1, (3000, 3)), [[9, 9, 9]]].astype(np.float32)
    found, _ = answers(PoissonDecoder(AngleBins(2, 360, -90)), responses, angles, responses[-2:])
    assert found[1] == 180


def covariance(responses, angles, weights, shrinkage=None, smoothing=None):
    """Return means and covariance as the docstring of GaussianDecoder says."""
    means = tuning(responses, angles, weights, smoothing=smoothing)
    residuals = responses - means[angles // 45]
    share = weights / weights.sum()
    variance = share @ residuals**2
    z = residuals / np.sqrt(variance)
    if shrinkage is None:
        _, shrinkage = ledoit_wolf(z, assume_centered=True)
    correlation = (1 - shrinkage) * z.T @ (share[:, None] * z) + shrinkage * np.eye(responses.shape[1])
    return means, np.sqrt(np.outer(variance, variance)) * correlation, shrinkage


def gaussian(shrinkage, **settings):
    return GaussianDecoder(BINS, None if shrinkage is None else np.array(shrinkage), **settings)


@pytest.mark.parametrize(
    "n_trials, shrinkage, smoothing",
    [(40, None, None), (40, 0.2, None), (16, None, None), (16, 0.2, None), (40, 0.2, 30.0)],
    ids=["primal, chosen", "primal", "dual, chosen", "dual", "smooth"],
)
def test_gaussian_is_scipy(x64, n_trials, shrinkage, smoothing):
    kept = TRAIN[:n_trials]
    weights = np.ones(n_trials) if shrinkage is None else RNG.uniform(0.5, 1.5, n_trials)
    decoder = gaussian(shrinkage, smoothing_degrees=0.0 if smoothing is None else smoothing)
    _, found = answers(decoder, COUNTS[kept], ANGLES[kept], COUNTS[TEST], weights)
    means, sigma, used = covariance(COUNTS[kept], ANGLES[kept], weights, shrinkage, smoothing)
    assert 0 < used < 1
    expected = np.stack([multivariate_normal(m, sigma).logpdf(COUNTS[TEST]) for m in means], axis=1)
    np.testing.assert_allclose(found, expected - logsumexp(expected, axis=1, keepdims=True), atol=1e-8)


def test_gaussian_is_linear_discriminant_analysis(x64):
    """Of classes of one size; scikit-learn shrinks towards the mean variance, so all are made 1."""
    _, sigma, _ = covariance(COUNTS[TRAIN], ANGLES[TRAIN], np.ones(40), 0.2)
    scaled = COUNTS / np.sqrt(np.diag(sigma))
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2).fit(scaled[TRAIN], ANGLES[TRAIN])
    _, found = answers_weighted(gaussian(0.2), scaled[TRAIN], ANGLES[TRAIN], scaled[TEST])
    np.testing.assert_allclose(found, lda.predict_log_proba(scaled[TEST]), atol=1e-8)


def test_full_shrinkage_is_independent_gaussians(x64):
    _, found = answers_weighted(gaussian(1.0), COUNTS[TRAIN], ANGLES[TRAIN], COUNTS[TEST])
    means, sigma, _ = covariance(COUNTS[TRAIN], ANGLES[TRAIN], np.ones(40), 1.0)
    expected = -0.5 * np.sum((COUNTS[TEST][:, None] - means) ** 2 / np.diag(sigma), axis=-1)
    np.testing.assert_allclose(found, expected - logsumexp(expected, axis=1, keepdims=True), atol=1e-9)


def test_square_root_is_that_of_the_responses(x64):
    _, found = answers_weighted(gaussian(0.2, square_root=True), COUNTS[TRAIN], ANGLES[TRAIN], COUNTS[TEST])
    roots = np.sqrt(COUNTS)
    _, direct = answers_weighted(gaussian(0.2), roots[TRAIN], ANGLES[TRAIN], roots[TEST])
    np.testing.assert_allclose(found, direct, atol=1e-10)


def test_gaussian_in_float32_does_not_mind_a_large_mean():
    """As raw fluorescence has one: the differences decide."""
    counts, angles = np.float32(COUNTS), np.float32(ANGLES[TRAIN])
    base, by_100, by_1000 = (
        answers(GaussianDecoder(BINS), counts[TRAIN] + shift, angles, counts[TEST] + shift)[1]
        for shift in (0, 100, 1000)
    )
    np.testing.assert_allclose(by_100, base, atol=5e-4)
    np.testing.assert_allclose(by_1000, base, atol=5e-3)


@pytest.mark.parametrize("name", ["sine and cosine", "bumps", "population vector", "Gaussian", "multinomial"])
def test_a_neuron_constant_in_training_says_nothing(name):
    """Nor what rounding leaves of its mean; in the test trials it may fire."""
    counts = np.float32(COUNTS).copy()
    counts[TRAIN, 3] = 0.1
    arguments = MAKE[name](HALF), counts[TRAIN], np.float32(ANGLES[TRAIN] / 2)
    base, _ = answers(*arguments, counts[TEST])
    counts[TEST, 3] = 50
    assert_same_angles(answers(*arguments, counts[TEST])[0], base, 180, tolerance=0)


def test_linear_decoders_are_scikit_learn(x64):
    counts = COUNTS.copy()
    counts[:, 2] = 3.0  # does not vary, and does not count for the relative strength
    mean, scale = counts[TRAIN].mean(0), counts[TRAIN].std(0)
    scale[2] = 1
    x, new = (counts[TRAIN] - mean) / scale, (counts[TEST] - mean) / scale
    phase = np.deg2rad(ANGLES[TRAIN])
    ridge = Ridge(alpha=0.1 * (N_NEURONS - 1), solver="cholesky")
    cosine, sine = ridge.fit(x, np.c_[np.cos(phase), np.sin(phase)]).predict(new).T
    found, _ = answers(MAKE["sine and cosine"](BINS), counts[TRAIN], 1.0 * ANGLES[TRAIN], counts[TEST])
    assert_same_angles(found, np.rad2deg(np.arctan2(sine, cosine)))
    # Bumps: the answer is the largest match on a grid of a thousandth of a degree.
    centers, concentration = np.deg2rad(np.arange(48) * 7.5), 1 / np.deg2rad(10) ** 2
    bumps = ridge.fit(x, np.exp(concentration * (np.cos(phase[:, None] - centers) - 1))).predict(new)
    fitted, found, _ = fit_and_answer(MAKE["bumps"](BINS), counts[TRAIN], 1.0 * ANGLES[TRAIN], counts[TEST])
    bump = jax.jit(jax.vmap(fitted.bump))(counts[TEST])
    np.testing.assert_allclose(bump, bumps, atol=1e-10)
    grid = np.arange(0, 360, 0.002)
    match = np.exp(concentration * (np.cos(np.deg2rad(grid)[:, None] - centers) - 1)) @ bumps.T
    assert_same_angles(found, grid[match.argmax(0)], tolerance=0.0011)
    # And better than any angle of the grid.
    at_found = np.exp(concentration * (np.cos(np.deg2rad(found)[:, None] - centers) - 1))
    assert np.all(np.sum(at_found * bumps, axis=1) >= match.max(0) * (1 - 1e-12))


@pytest.mark.parametrize("period", [180, 360])
def test_population_vector_of_evenly_spread_cosines_is_exact(x64, period):
    preferred = np.arange(20) * period / 20

    def responses(angles):
        return 3 + 2 * np.cos(2 * np.pi * (angles[:, None] - preferred) / period)

    shown, angles = np.arange(0, period, period / 40), RNG.uniform(0, period, 8)
    found, _ = answers(PopulationVector(period), responses(shown), shown, responses(angles))
    assert_same_angles(found, angles, period)


# Networks learn in a host program, from a start that no rotation leaves alone.
NETWORKS = {
    "circle": lambda bins: NetworkRegression(period_degrees=bins.period_degrees, n_steps=100, step_size=0.01),
    "classes": lambda bins: NetworkClassifier(bins, n_hidden=10, n_steps=200, step_size=0.05),
}


@pytest.mark.parametrize("name", ["circle", pytest.param("classes", marks=pytest.mark.slow)])
def test_networks_on_the_circle(x64, name):
    decoder, angles = NETWORKS[name](BINS), 1.0 * ANGLES[TRAIN]

    def answer(decoder, *arguments, **keywords):
        return answer_all(decoder.fit(*arguments, **keywords), COUNTS[TEST])

    base = answer(decoder, COUNTS[TRAIN], angles)
    n_outputs = 2 if name == "circle" else 8
    assert decoder.fit(COUNTS[TRAIN], angles).network.n_parameters == 10 * (20 + 1) + n_outputs * (10 + 1)
    assert np.mean(np.abs(circular_difference(base, 1.0 * ANGLES[TEST]))) < 45
    order = RNG.permutation(40)
    assert_same_angles(answer(decoder, COUNTS[TRAIN][order], angles[order]), base, tolerance=1e-7)
    assert_same_angles(answer(decoder, COUNTS[TRAIN], angles + 360), base, tolerance=1e-7)
    # Left out by weight, or not there.
    weights = 1.0 * (np.arange(48) < 40)
    lies = np.where(weights[:, None] > 0, COUNTS, 1e3)
    np.testing.assert_array_equal(answer(decoder, lies, ANGLES, weights=weights), base)
    np.testing.assert_array_equal(cross_validate(decoder, COUNTS, ANGLES, SPLITS)[0][TEST], base)
    half = NETWORKS[name](HALF)
    assert_same_angles(2 * answer(half, COUNTS[TRAIN], angles / 2), base, tolerance=1e-7)


def test_gradient_of_the_answer_of_a_network(x64):
    fitted = NETWORKS["circle"](BINS).fit(COUNTS[TRAIN], 1.0 * ANGLES[TRAIN])
    slope = slopes_of_answers(fitted, COUNTS[TEST])
    away, step = RNG.normal(size=N_NEURONS), 1e-6
    ahead, behind = (answer_all(fitted, COUNTS[TEST] + sign * step * away) for sign in (1, -1))
    numeric = circular_difference(ahead, behind) / (2 * step)
    np.testing.assert_allclose(slope @ away, numeric, rtol=1e-5, atol=1e-6)


def test_multinomial_uses_its_penalty(x64):
    strong, weak = (
        fit_and_answer(MAKE["multinomial"](BINS, l2), COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], COUNTS[TEST])[0]
        for l2 in (10.0, 0.01)
    )
    assert np.linalg.norm(strong.linear.weights) < 0.1 * np.linalg.norm(weak.linear.weights)


def test_neurons_without_noise_decide_and_single_trials_are_nearest_means():
    noise = np.random.default_rng(0).normal(size=(48, 12))
    exact = np.concatenate([np.tile(np.eye(8), (6, 1)), noise], axis=1).astype(np.float32)
    angles = np.float32(ANGLES)
    for trained in (TRAIN, TRAIN[:8]):
        decoder = GaussianDecoder(BINS)
        found, _ = answers(decoder, exact[trained], angles[trained], exact[trained[:8]])
        np.testing.assert_array_equal(found, angles[trained[:8]])


def test_weights_of_trials_are_repetitions_for_shrinkage_given(x64):
    weights = np.zeros(40, int)
    weights[:20] = 1 + np.arange(20) % 3  # what is left of the weights are trials that are not there
    weights[20] = 40 - weights.sum()
    decoder, ones = gaussian(0.3), np.ones(40)
    weighted = fit_and_answer(decoder, COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], COUNTS[TEST], 1.0 * weights)
    rows, angles = (np.repeat(part[TRAIN], weights, axis=0) for part in (COUNTS, 1.0 * ANGLES))
    repeated = fit_and_answer(decoder, rows, angles, COUNTS[TEST], ones)
    for one, other in zip(jax.tree.leaves(weighted), jax.tree.leaves(repeated), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


def test_ledoit_and_wolf_with_unequal_weights_is_the_sum_over_trials(x64):
    weights = np.random.default_rng(2).uniform(0.5, 2, 40)
    arguments = COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], COUNTS[TEST], weights
    share = weights / weights.sum()
    x = COUNTS[TRAIN] - tuning(COUNTS[TRAIN], ANGLES[TRAIN], weights)[ANGLES[TRAIN] // 45]
    x = x / np.sqrt(share @ x**2)
    covariance = (share[:, None] * x).T @ x
    distance = np.sum((covariance - np.trace(covariance) / N_NEURONS * np.eye(N_NEURONS)) ** 2)
    spread = sum(
        s**2 * np.sum((np.outer(row, row) - covariance) ** 2) for s, row in zip(share, x, strict=True)
    )
    assert 0 < spread / distance < 1
    chosen, given = (fit_and_answer(gaussian(s), *arguments)[0] for s in (None, spread / distance))
    np.testing.assert_allclose(chosen.readout, given.readout, rtol=1e-10)


def test_gradients_are_finite_with_zero_counts_silent_neurons_and_full_shrinkage():
    angles = np.repeat(np.arange(4) * 90.0, 4).astype(np.float32)
    counts = np.random.default_rng(3).poisson(1.0, (16, 5)).astype(np.float32)
    counts[:, 0] = 0
    bins = AngleBins.around(angles)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def slopes(responses, shrinkage):
        """Differentiate a sum, of which no part that is not finite can hide."""
        fitted = GaussianDecoder(bins, shrinkage, square_root=True).fit(responses, angles)
        vector = PopulationVector().fit(responses, angles)
        first_bin = jax.vmap(fitted.log_probabilities)(responses)[:, 0]
        return jnp.sum(first_bin) + jnp.sum(jax.vmap(vector.predict)(responses))

    for gradient in slopes(counts, 1.0):
        assert np.all(np.isfinite(gradient))


def test_an_answer_that_broke_is_nan(x64):
    decoder = MAKE["Gaussian"](BINS)
    fitted, *_ = fit_and_answer(decoder, COUNTS[TRAIN], 1.0 * ANGLES[TRAIN], COUNTS[TEST])
    broken = eqx.tree_at(lambda f: f.offsets, fitted, np.nan * np.asarray(fitted.offsets))
    assert np.isfinite(answer_one(fitted, COUNTS[1])) and np.isnan(answer_one(broken, COUNTS[1]))
