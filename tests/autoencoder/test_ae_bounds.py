"""Variational objectives: the same bounds as the functions, and gradients that are unbiased."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    DIAGONAL,
    POINTS,
    SKEWED,
    finite_differences,
    flat,
    layer,
    moved,
    quick,
    standard_scores,
)

from neurojax import autoencoder as ae

KEY = jax.random.key(0)


@pytest.fixture
def vae(x64):
    """A machine that has not learned: its posterior is wrong, its weights are not constant."""
    return moved(ae.VariationalAutoencoder.from_sizes(4, [3], 2, KEY, dtype="float64"), 0, 0.5)


@pytest.fixture
def rows(x64):
    return jnp.asarray(np.random.default_rng(1).integers(0, 2, (3, 4)), float)


def gradient(objective, vae, rows, key):
    return objective.value_and_grad(vae, None, rows, key)[1]


def parts(gradient):
    """The gradients in the recognition part, and in the generative one."""
    return flat((gradient.encoder, gradient.posterior_layer)), flat((gradient.decoder, gradient.output))


def gradients_over_keys(vae, rows, n_samples, n_keys):
    """Plain and doubly reparameterised, each with the two parts, a row for each key."""

    def both(key):
        objectives = [ae.ImportanceWeightedObjective(n_samples, is_double) for is_double in (False, True)]
        came = [gradient(objective, vae, rows, key) for objective in objectives]
        return [((new.encoder, new.posterior_layer), (new.decoder, new.output)) for new in came]

    came = quick(jax.vmap(both))(jax.random.split(KEY, n_keys))
    return [
        [
            np.concatenate([np.reshape(leaf, (n_keys, -1)) for leaf in jax.tree.leaves(part)], 1)
            for part in new
        ]
        for new in came
    ]


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_elbo_objective_is_minus_the_mean_of_the_elbo(vae, rows, beta):
    objective = ae.ELBOObjective(beta=beta, n_samples=2)
    keys = jax.random.split(KEY, 2000)

    @quick
    @jax.vmap
    def both(key):
        loss, (_, metrics) = objective(vae, None, rows, key)
        others = jax.random.split(jax.random.fold_in(key, 1), 3)
        elbos = jax.vmap(lambda x, key: ae.elbo(vae, x, key, n_samples=2, beta=beta))(rows, others)
        return loss, -jnp.mean(elbos), metrics

    loss, elbos, metrics = both(keys)
    assert abs(standard_scores(loss - elbos, 0)) < 4
    divergence = np.mean(quick(jax.vmap(lambda x: vae.posterior(x).divergence()))(rows))
    np.testing.assert_allclose(metrics["divergence"], divergence, rtol=1e-12)
    np.testing.assert_allclose(loss, metrics["reconstruction_loss"] + beta * divergence, rtol=1e-12)


@pytest.mark.parametrize("truth", [DIAGONAL, SKEWED])
def test_elbo_objective_of_a_known_model(x64, truth):
    vae, objective = truth.vae(), ae.ELBOObjective(n_samples=20)
    values = quick(jax.vmap(lambda key: objective(vae, None, jnp.asarray(POINTS), key)[0]))(
        jax.random.split(KEY, 500)
    )
    gaps = [truth.gap(x, vae) for x in POINTS]
    assert abs(standard_scores(values, np.mean(gaps - truth.log_p(POINTS)))) < 4


def test_elbo_gradient_is_that_of_finite_differences(vae, rows):
    objective = ae.ELBOObjective(beta=0.7, n_samples=3)

    def loss(vae):
        return objective(vae, None, rows, KEY)[0]

    came = flat(quick(jax.grad(loss))(vae))
    np.testing.assert_allclose(came, finite_differences(loss, vae), rtol=1e-6, atol=1e-9)


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


def test_the_bound_is_its_formula(vae, rows):
    x, n = rows[0], 6
    noise = jax.vmap(lambda key: jax.random.normal(key, (2,)))(jax.random.split(KEY, n))
    bound = quick(jax.value_and_grad(lambda vae: ae.importance_weighted_bound(vae, x, KEY, n_samples=n)))
    (value, slope), (expected, _, expected_slope) = bound(vae), formula(vae, x[None], noise[:, None])
    np.testing.assert_allclose(value, -expected, rtol=1e-12)
    np.testing.assert_allclose(flat(slope), -flat(expected_slope), rtol=1e-9, atol=1e-12)


def test_the_plain_gradient_is_the_derivative_of_the_bound(vae, rows):
    # The objective draws its noise from the second half of its key.
    n = 6
    noise = jax.random.normal(jax.random.split(KEY)[1], (n, 3, 2))
    objective = ae.ImportanceWeightedObjective(n, is_doubly_reparameterized=False)
    came = quick(lambda vae: objective.value_and_grad(vae, None, rows, KEY))(vae)
    loss, v, slope = formula(vae, rows, noise)
    np.testing.assert_allclose(came[0][0], loss, rtol=1e-12)
    np.testing.assert_allclose(flat(came[1]), flat(slope), rtol=1e-9, atol=1e-12)
    metrics = came[0][1][1]
    np.testing.assert_allclose(metrics["effective_sample_size"], np.mean(1 / np.sum(v**2, axis=1)), rtol=1e-9)
    assert metrics["effective_sample_size"] < 0.95 * n


def test_doubly_reparameterised_gradient(vae, rows):
    ratios = []
    for n_samples, n_keys in ((5, 2000), (100, 200)):
        (encoder, decoder), (other, other_decoder) = gradients_over_keys(vae, rows, n_samples, n_keys)
        np.testing.assert_allclose(other_decoder, decoder, rtol=1e-9, atol=1e-12)
        assert np.abs(standard_scores(encoder - other, 0)).max() < 4
        assert np.abs(standard_scores(other, 0)).max() > 10  # nor are both nothing
        ratios.append(np.sum(other.var(axis=0)) / np.sum(encoder.var(axis=0)))
    assert ratios[1] < 0.5 and ratios[1] < ratios[0]


def test_doubly_reparameterised_gradient_is_its_formula(vae, rows):
    """Σₖ vₖ² (∂ log wₖ/∂zₖ)(∂zₖ), with q's own parameters held."""
    x, n = rows[:1], 4
    noise = jax.random.normal(jax.random.split(KEY)[1], (n, 1, 2))

    def surrogate(encoding, v):
        moving = eqx.tree_at(lambda m: (m.encoder, m.posterior_layer), vae, encoding)
        q, held = moving.posterior(x[0]), vae.posterior(x[0])
        zs = q.mean + jnp.exp(q.log_scale) * noise[:, 0]
        return -jnp.sum(v**2 * ae.log_weights(vae, x[0], zs, held))

    v = formula(vae, x, noise)[1][0]
    expected = quick(jax.grad(surrogate))((vae.encoder, vae.posterior_layer), v)
    came = quick(lambda vae: gradient(ae.ImportanceWeightedObjective(n), vae, x, KEY))(vae)
    np.testing.assert_allclose(parts(came)[0], flat(expected), rtol=1e-9, atol=1e-12)


def test_at_the_exact_posterior_the_encoder_has_nothing_to_learn(x64):
    vae, rows = DIAGONAL.vae(), jnp.asarray(POINTS)
    plain, double = (
        parts(quick(lambda vae, o=o: gradient(o, vae, rows, KEY))(vae))
        for o in (ae.ImportanceWeightedObjective(8, False), ae.ImportanceWeightedObjective(8, True))
    )
    assert np.abs(double[0]).max() < 1e-13 < 1e-2 < np.abs(plain[0]).max()
    assert np.abs(double[1]).max() > 1e-2


def test_a_learned_scale_has_its_gradient(x64):
    vae = SKEWED.vae(1.2)
    vae = eqx.tree_at(lambda m: m.output, vae, ae.GaussianOutput(jnp.array(0.7)))
    rows = jnp.asarray(POINTS)
    objective = ae.ImportanceWeightedObjective(5, False)

    def loss(vae):
        return objective.value_and_grad(vae, None, rows, KEY)[0][0]

    came = quick(lambda vae: gradient(objective, vae, rows, KEY))(vae)
    np.testing.assert_allclose(flat(came), finite_differences(loss, vae), rtol=1e-6, atol=1e-8)
    assert abs(came.output.scale) > 1e-2


def test_binarisation_draws_each_batch_afresh():
    """The posterior is the prior, the decoder certain of 0: each unit that is on costs 100 nats."""
    zeros = layer(np.zeros((4, 4)), np.zeros(4), "float32")
    certain = layer(np.zeros((4, 2)), np.full(4, -100.0), "float32")
    vae, grey = ae.VariationalAutoencoder((), zeros, (certain,)), jnp.full((50, 4), 0.3)

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
