"""Variational objectives: the same bounds as the functions, and gradients that are unbiased."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    DIAGONAL,
    POINTS,
    SKEWED,
    array,
    drawn,
    finite_differences,
    flat,
    layer,
    quick,
    standard_scores,
)

from neurojax import autoencoder as ae

KEY = jax.random.key(0)


@pytest.fixture
def vae(x64):
    """A machine that has not learned: its posterior is wrong, its weights are not constant."""
    return drawn(lambda: ae.VariationalAutoencoder.from_sizes(4, [3], 2, KEY, dtype="float64"), 0, 0.3)


@pytest.fixture
def rows(x64):
    return array(np.random.default_rng(1).integers(0, 2, (3, 4)), float)


@quick
def value_and_grad(objective, vae, rows, key):
    return objective.value_and_grad(vae, None, rows, key)


def gradient(objective, vae, rows, key):
    return value_and_grad(objective, vae, rows, key)[1]


@partial(quick, static_argnames="n_keys")
def losses_over_keys(objective, vae, rows, n_keys):
    """Loss and metrics, a row for each key."""

    def one(key):
        loss, (_, metrics) = objective(vae, None, rows, key)
        return loss, metrics

    return jax.vmap(one)(jax.random.split(KEY, n_keys))


def parts(gradient):
    """The gradients in the recognition part, and in the generative one."""
    return flat((gradient.encoder, gradient.posterior_layer)), flat((gradient.decoder, gradient.output))


def gradients_over_keys(vae, rows, n_samples, n_keys):
    """Plain and doubly reparameterised, each with the two parts, a row for each key."""

    def both(key):
        objectives = [ae.ImportanceWeightedObjective(n_samples, is_double) for is_double in (False, True)]
        came = [objective.value_and_grad(vae, None, rows, key)[1] for objective in objectives]
        return [((new.encoder, new.posterior_layer), (new.decoder, new.output)) for new in came]

    came = quick(jax.vmap(both))(jax.random.split(KEY, n_keys))
    return [
        [
            np.concatenate([np.reshape(leaf, (n_keys, -1)) for leaf in jax.tree.leaves(part)], 1)
            for part in new
        ]
        for new in came
    ]


def test_elbo_objective_is_minus_the_mean_of_the_elbo(vae, rows):
    @quick
    def elbos_and_divergences(beta):
        def elbos(key):
            keys = jax.random.split(key, 3)
            return jax.vmap(lambda x, key: ae.elbo(vae, x, key, n_samples=2, beta=beta))(rows, keys)

        elbos_of_keys = jax.vmap(elbos)(jax.random.split(jax.random.key(1), 1000))
        return jnp.mean(elbos_of_keys, axis=1), jax.vmap(lambda x: vae.posterior(x).divergence())(rows)

    for beta in (1.0, 4.0):
        loss, metrics = losses_over_keys(ae.ELBOObjective(array(beta), n_samples=2), vae, rows, n_keys=1000)
        elbos, divergences = map(np.asarray, elbos_and_divergences(array(beta)))
        assert abs(standard_scores(np.asarray(loss) + elbos, 0)) < 4
        divergence = divergences.mean()
        np.testing.assert_allclose(metrics["divergence"], divergence, rtol=1e-12)
        expected = np.asarray(metrics["reconstruction_loss"]) + beta * divergence
        np.testing.assert_allclose(loss, expected, rtol=1e-12)


def test_elbo_objective_of_a_known_model(x64):
    for truth in (DIAGONAL, SKEWED):
        vae = truth.vae()
        values, _ = losses_over_keys(ae.ELBOObjective(n_samples=20), vae, POINTS, n_keys=500)
        gaps = [truth.gap(x, vae) for x in POINTS]
        assert abs(standard_scores(values, np.mean(gaps - truth.log_p(POINTS)))) < 4


def test_elbo_gradient_is_that_of_finite_differences(vae, rows):
    objective = ae.ELBOObjective(beta=0.7, n_samples=3)
    both = quick(jax.value_and_grad(lambda vae: objective(vae, None, rows, KEY)[0]))
    expected = finite_differences(lambda vae: both(vae)[0], vae)
    np.testing.assert_allclose(flat(both(vae)[1]), expected, rtol=1e-6, atol=1e-9)


def same_draws(vae, rows, noise):
    """−meanₙ log meanₖ wₖ by its formula, for noise (draws, rows, latent)."""

    def bound(x, noise):
        q = vae.posterior(x)
        zs = q.mean + jnp.exp(q.log_scale) * noise
        logits = jax.vmap(vae.output_parameters)(zs)
        log_p = jnp.sum(x * jax.nn.log_sigmoid(logits) + (1 - x) * jax.nn.log_sigmoid(-logits), axis=1)
        log_p += jnp.sum(jax.scipy.stats.norm.logpdf(zs), axis=1)
        log_q = jnp.sum(jax.scipy.stats.norm.logpdf(zs, q.mean, jnp.exp(q.log_scale)), axis=1)
        return jax.nn.logsumexp(log_p - log_q) - jnp.log(len(noise)), log_p - log_q

    return jax.vmap(bound, (0, 1))(rows, noise)


@quick
def formula(vae, rows, noise):
    """Minus the bound, the weights' shares and the derivative."""

    def loss(vae):
        bounds, values = same_draws(vae, rows, noise)
        return -jnp.mean(bounds), jax.nn.softmax(values, axis=1)

    (loss, shares), slope = jax.value_and_grad(loss, has_aux=True)(vae)
    return loss, shares, slope


N_DRAWS = 6


def objectives_noise():
    """The noise of an objective, which is drawn from the second half of its key."""
    return jax.random.normal(jax.random.split(KEY)[1], (N_DRAWS, 3, 2))


def test_the_bound_is_its_formula(vae, rows):
    @quick
    def bounds(vae):
        keys = jax.random.split(KEY, 3)
        noise = jax.vmap(
            lambda key: jax.vmap(lambda k: jax.random.normal(k, (2,)))(jax.random.split(key, N_DRAWS))
        )

        def mean(vae):
            of_rows = jax.vmap(lambda x, k: ae.importance_weighted_bound(vae, x, k, n_samples=N_DRAWS))
            return jnp.mean(of_rows(rows, keys))

        return *jax.value_and_grad(mean)(vae), noise(keys)

    value, slope, noise = bounds(vae)
    expected, _, expected_slope = formula(vae, rows, np.swapaxes(noise, 0, 1))
    np.testing.assert_allclose(value, -expected, rtol=1e-12)
    np.testing.assert_allclose(flat(slope), -flat(expected_slope), rtol=1e-9, atol=1e-12)


def test_the_plain_gradient_is_the_derivative_of_the_bound(vae, rows):
    objective = ae.ImportanceWeightedObjective(N_DRAWS, is_doubly_reparameterized=False)
    (value, (_, metrics)), came = value_and_grad(objective, vae, rows, KEY)
    loss, v, slope = formula(vae, rows, objectives_noise())
    np.testing.assert_allclose(value, loss, rtol=1e-12)
    np.testing.assert_allclose(flat(came), flat(slope), rtol=1e-9, atol=1e-12)
    size = np.mean(1 / np.sum(np.asarray(v) ** 2, axis=1))
    np.testing.assert_allclose(metrics["effective_sample_size"], size, rtol=1e-9)
    assert metrics["effective_sample_size"] < 0.95 * N_DRAWS


def test_doubly_reparameterised_gradient(vae, rows):
    (encoder, decoder), (other, other_decoder) = gradients_over_keys(vae, rows, n_samples=50, n_keys=400)
    np.testing.assert_allclose(other_decoder, decoder, rtol=1e-9, atol=1e-12)
    assert np.abs(standard_scores(encoder - other, 0)).max() < 4
    assert np.abs(standard_scores(other, 0)).max() > 10  # nor are both nothing
    # With this many draws the plain gradient is mostly noise.
    assert np.sum(other.var(axis=0)) < 0.5 * np.sum(encoder.var(axis=0))


def test_doubly_reparameterised_gradient_is_its_formula(vae, rows):
    """Σₖ vₖ² (∂ log wₖ/∂zₖ)(∂zₖ), with q's own parameters held."""
    noise = objectives_noise()

    def surrogate(encoding, v):
        moving = eqx.tree_at(lambda m: (m.encoder, m.posterior_layer), vae, encoding)

        def of_row(x, noise, v):
            q, held = moving.posterior(x), vae.posterior(x)
            zs = q.mean + jnp.exp(q.log_scale) * noise
            return -jnp.sum(v**2 * ae.log_weights(vae, x, zs, held))

        return jnp.mean(jax.vmap(of_row, (0, 1, 0))(rows, noise, v))

    v = formula(vae, rows, noise)[1]
    expected = quick(jax.grad(surrogate))((vae.encoder, vae.posterior_layer), v)
    came = gradient(ae.ImportanceWeightedObjective(N_DRAWS), vae, rows, KEY)
    np.testing.assert_allclose(parts(came)[0], flat(expected), rtol=1e-9, atol=1e-12)


def test_at_the_exact_posterior_the_encoder_has_nothing_to_learn(x64):
    """And a scale that is learned has its gradient, of either objective."""
    vae = eqx.tree_at(lambda m: m.output, DIAGONAL.vae(), ae.GaussianOutput(array(DIAGONAL.scale)))
    objective, other = (ae.ImportanceWeightedObjective(5, is_double) for is_double in (False, True))
    plain, double = (gradient(o, vae, POINTS, KEY) for o in (objective, other))
    assert np.abs(parts(double)[0]).max() < 1e-13 < 1e-2 < np.abs(parts(plain)[0]).max()
    assert np.abs(parts(double)[1]).max() > 1e-2
    vae = eqx.tree_at(lambda m: m.output, SKEWED.vae(1.2), ae.GaussianOutput(array(0.7)))
    expected = finite_differences(lambda vae: value_and_grad(objective, vae, POINTS, KEY)[0][0], vae)
    came = gradient(objective, vae, POINTS, KEY)
    np.testing.assert_allclose(flat(came), expected, rtol=1e-6, atol=1e-8)
    assert abs(float(came.output.scale)) > 1e-2


def test_binarisation_draws_each_batch_afresh():
    """The posterior is the prior, the decoder certain of 0: each unit that is on costs 100 nats."""
    zeros = layer(np.zeros((4, 4)), np.zeros(4), "float32")
    certain = layer(np.zeros((4, 2)), np.full(4, -100.0), "float32")
    vae, grey = ae.VariationalAutoencoder((), zeros, (certain,)), array(np.full((50, 4), 0.3))

    @quick
    @jax.vmap
    def losses(key):
        elbo = ae.ELBOObjective(is_binarized=True)(vae, None, grey, key)[0]
        bound = ae.ImportanceWeightedObjective(2, is_binarized=True)
        return elbo, bound.value_and_grad(vae, None, grey, key)[0][0]

    for loss in losses(jax.random.split(KEY, 100)):
        on = np.asarray(loss, float) * 50 / 100
        np.testing.assert_allclose(on, np.round(on), atol=1e-3)
        assert abs(on.mean() - 60) < 4 * np.sqrt(200 * 0.21 / 100)
        assert abs(on.var(ddof=1) / (200 * 0.21) - 1) < 4 * np.sqrt(2 / 99)
