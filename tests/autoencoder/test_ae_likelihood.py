"""Bounds and likelihoods against a linear Gaussian model, whose log p(x) is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    DIAGONAL,
    POINTS,
    SKEWED,
    array,
    quick,
    standard_scores,
    zeros,
)
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from neurojax import autoencoder as ae

KEY = jax.random.key(0)
X = array(POINTS[0], "float32")


log_likelihood = quick(ae.log_likelihood, static_argnames=("n_samples", "n_at_once"))


@partial(quick, static_argnums=0, static_argnames="n_samples")
def over_keys(function, vae, x, keys, n_samples):
    return jax.vmap(lambda key: function(vae, x, key, n_samples=n_samples))(keys)


def test_the_posterior_is_that_of_the_closed_form(x64):
    """The truth the others lean on, against Bayes' rule on densities."""
    for truth in (DIAGONAL, SKEWED):
        zs = np.random.default_rng(0).normal(size=(4, 2))
        for x in POINTS:
            joint = multivariate_normal(np.zeros(2)).logpdf(zs)
            joint += [norm(truth.weights @ z + truth.bias, truth.scale).logpdf(x).sum() for z in zs]
            posterior = multivariate_normal(truth.gain @ (x - truth.bias), truth.posterior_covariance)
            np.testing.assert_allclose(joint - posterior.logpdf(zs), truth.log_p(x), rtol=1e-12)
    assert abs(DIAGONAL.posterior_covariance[0, 1]) < 1e-15 and abs(SKEWED.posterior_covariance[0, 1]) > 0.1


def test_with_the_exact_posterior_one_draw_tells_all(x64):
    vae = DIAGONAL.vae()

    @quick
    @jax.vmap
    def told(x):
        zs = jax.random.normal(KEY, (7, 2), x.dtype)  # wherever z is, the weight is the same
        return ae.importance_weighted_bound(vae, x, KEY, n_samples=1), ae.log_weights(
            vae, x, zs, vae.posterior(x)
        )

    bound, weights = told(array(POINTS))
    exact = DIAGONAL.log_p(POINTS)
    np.testing.assert_allclose(bound, exact, rtol=1e-12)
    np.testing.assert_allclose(weights, np.tile(exact, (7, 1)).T, rtol=1e-11)


@pytest.mark.parametrize(("truth", "inflation"), [(DIAGONAL, 1.0), (SKEWED, 1.0), (SKEWED, 1.4)])
def test_elbo_is_below_by_the_divergence_from_the_exact_posterior(x64, truth, inflation):
    vae, x = truth.vae(inflation), array(POINTS[1])
    values = over_keys(ae.elbo, vae, x, jax.random.split(KEY, 4000), n_samples=2)
    gap = truth.gap(x, vae)
    if truth is DIAGONAL:
        assert abs(gap) < 1e-12
    assert abs(standard_scores(values, truth.log_p(x) - gap)) < 4
    assert gap < 1e-12 or abs(standard_scores(values, truth.log_p(x))) > 6


def test_the_divergence_is_the_mean_over_draws_and_beta_its_weight(x64):
    q = ae.GaussianPosterior(array([0.5, -1.0, 0.0]), array([0.3, -0.7, 0.0]))
    prior = ae.GaussianPosterior(zeros(3), zeros(3))

    def difference(key):
        z = q.sample(key)
        return q.log_density(z) - prior.log_density(z), z, q.log_density(z)

    @quick
    def run(key):
        return *jax.vmap(difference)(jax.random.split(key, 5000)), q.divergence(), prior.divergence()

    values, zs, of_q, divergence, none = map(np.asarray, run(KEY))
    assert abs(standard_scores(values, divergence)) < 4
    assert np.abs(standard_scores(zs, q.mean)).max() < 4
    density = norm(q.mean, np.exp(q.log_scale)).logpdf(zs[:5]).sum(axis=1)
    np.testing.assert_allclose(of_q[:5], density, rtol=1e-12)
    variance = np.exp(2 * np.asarray(q.log_scale))
    by_hand = 0.5 * np.sum(np.asarray(q.mean) ** 2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(divergence, by_hand, rtol=1e-13)
    assert none == 0
    vae, x = SKEWED.vae(), array(POINTS[1])
    elbos = quick(jax.vmap(lambda beta: ae.elbo(vae, x, KEY, beta=beta)))
    values, variance = np.asarray(elbos(array([0.0, 1.0, 3.5]))), np.diag(SKEWED.posterior_covariance)
    mean = SKEWED.gain @ (POINTS[1] - SKEWED.bias)
    divergence = 0.5 * np.sum(mean**2 + variance - 1 - np.log(variance))
    np.testing.assert_allclose(values[0] - values[1:], np.array([1.0, 3.5]) * divergence, rtol=1e-12)


def test_the_bound_rises_to_the_likelihood_with_draws(x64):
    vae, x, keys = SKEWED.vae(1.4), array(POINTS[1]), jax.random.split(KEY, 4000)
    exact = SKEWED.log_p(x)
    counts = (1, 100)
    values = [
        over_keys(ae.importance_weighted_bound, vae, x, keys[: 16_000 // n], n_samples=n) for n in counts
    ]
    means = np.array([v.mean() for v in values])
    errors = np.array([v.std() / len(v) ** 0.5 for v in values])
    assert (np.diff(means) > 4 * np.hypot(errors[1:], errors[:-1])).all()
    assert (means < exact + 4 * errors).all() and exact - means[-1] < 0.02
    # One draw: the ELBO, with the divergence sampled.
    assert abs(means[0] - (exact - SKEWED.gap(x, vae))) < 4 * errors[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_likelihood_is_exact_to_two_hundredths_of_a_nat(x64, dtype):
    @quick
    def estimate(xs, vae):
        return jax.vmap(lambda x: ae.log_likelihood(vae, x, KEY, n_samples=20_000, n_at_once=500))(xs)

    for truth, inflation in ((DIAGONAL, 1.3), (SKEWED, 1.0), (SKEWED, 1.4)):
        vae, exact = truth.vae(inflation, dtype), truth.log_p(POINTS)
        value, error, size = map(np.asarray, estimate(array(POINTS, dtype), vae))
        assert value.dtype == error.dtype == dtype
        np.testing.assert_allclose(value, exact, atol=0.02)
        assert (np.abs(value - exact) < 4 * error).all()
        assert ((size > 500) & (size < 19_999)).all()


def test_standard_errors_are_honest(x64):
    vae, x = SKEWED.vae(1.4), array(POINTS[0])
    came = over_keys(ae.log_likelihood, vae, x, jax.random.split(KEY, 200), n_samples=500)
    scatter = np.std(came.value, ddof=1)
    # 200 values tell a standard deviation to 5 %.
    np.testing.assert_allclose(np.mean(came.standard_error), scatter, rtol=0.2)
    assert abs(standard_scores(came.value, SKEWED.log_p(x))) < 4


def test_the_estimate_is_that_of_all_weights_at_once(x64):
    x = array(POINTS[0])

    @quick
    def run(vae):
        q, keys = vae.posterior(x), jax.vmap(partial(jax.random.fold_in, KEY))(jnp.arange(100))
        estimates = [
            ae.log_likelihood(vae, x, KEY, n_samples=100, n_at_once=n_at_once) for n_at_once in (7, 1000)
        ]
        return ae.log_weights(vae, x, jax.vmap(q.sample)(keys), q), *estimates

    values, *estimates = run(SKEWED.vae(1.4))
    w = np.exp(values)
    expected = (
        logsumexp(values) - np.log(100),
        w.std(ddof=1) / 10 / w.mean(),
        w.sum() ** 2 / np.sum(w**2),
    )
    for came in estimates:
        np.testing.assert_allclose(came, expected, rtol=1e-11)
    # With the exact posterior all weights are the same.
    for value, error, size in run(DIAGONAL.vae())[1:]:
        np.testing.assert_allclose(value, DIAGONAL.log_p(POINTS[0]), rtol=1e-12)
        np.testing.assert_allclose(size, 100, rtol=1e-12)
        assert error < 1e-7


def test_memory_does_not_grow_with_draws():
    vae = SKEWED.vae(dtype="float32")

    def needed(function, n_samples):
        compiled = jax.jit(partial(function, vae, n_samples=n_samples)).lower(X, KEY).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    few, many = needed(ae.log_likelihood, 1000), needed(ae.log_likelihood, 100_000)
    assert many <= 1.01 * few
    # The measure does see draws that are held at once.
    assert needed(ae.importance_weighted_bound, 100_000) > 50 * few


def test_far_away_data_underflow_nowhere():
    # Weights of e^{-10⁴} in float32.
    vae, x = DIAGONAL.vae(dtype="float32"), array([100.0, -100.0, 100.0, 100.0])
    came = log_likelihood(vae, x, KEY, n_samples=300)
    np.testing.assert_allclose(came.value, DIAGONAL.log_p(np.asarray(x)), rtol=1e-4)
    assert came.value < -5000 and np.isfinite(came).all()
