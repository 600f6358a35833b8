"""Gradients of the learning rules against exact ones by enumeration and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    Given,
    array,
    bernoulli_rbm,
    enumerate_rbm,
    finite_differences,
    hidden_means,
    mean_free_energy,
    one_hot_states,
    parameters,
    random_parameters,
    standard_scores,
    state_index,
    zeros,
)

from neurojax import boltzmann as bm

KEY = jax.random.key(0)
SIZES = 4, 3  # of most machines, so that one program serves


@jax.jit
def value_and_gradient(objective, rbm, state, batch, key):
    return jax.value_and_grad(objective, has_aux=True)(rbm, state, batch, key)


def gradient(objective, rbm, state, batch, key):
    return value_and_gradient(objective, rbm, state, batch, key)[1]


@partial(jax.jit, static_argnames="n_keys")
def over_keys(objective, rbm, state, batch, n_keys):
    """The gradients of many draws, and the states after them."""

    def one(key):
        (_, (state_after, _)), came = jax.value_and_grad(objective, has_aux=True)(rbm, state, batch, key)
        return came, state_after

    return jax.vmap(one)(jax.random.split(KEY, n_keys))


def arrays(tree):
    return [np.asarray(x, float) for x in (tree.weights, tree.visible_bias, tree.hidden_bias)]


def mean_statistics(rbm, v, variance=1.0):
    """−⟨∂E⟩ of weights and biases, with E[h | v] by enumeration."""
    w, b, c = parameters(rbm)
    h = hidden_means(w, b, c, v, None if np.isscalar(variance) else variance)
    centre = 0 if np.isscalar(variance) else b
    return [(v / variance).T @ h / len(v), np.mean((v - centre) / variance, axis=0), h.mean(axis=0)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient_for_given_samples(x64, dtype):
    rbm = bernoulli_rbm(0, *SIZES, dtype=dtype)
    rng = np.random.default_rng(0)
    data, samples = rng.random((6, 4)), (rng.random((5, 4)) < 0.4).astype(float)
    came = gradient(bm.ContrastiveObjective(Given(array(samples, dtype))), rbm, None, array(data, dtype), KEY)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    pairs = zip(mean_statistics(rbm, data), mean_statistics(rbm, samples), arrays(came), strict=True)
    for positive, negative, x in pairs:
        np.testing.assert_allclose(x, negative - positive, atol=tolerance, rtol=tolerance)


def test_gradient_of_gaussian_units_for_given_samples_with_the_variance(x64):
    w, b, c = random_parameters(1, 4, 3)
    variance = np.array([0.4, 0.7, 1.3, 2.5])
    low, high = 0.1, 4.0
    rbm = bm.GaussianBernoulliRBM(*map(jnp.asarray, (w, b, c, variance)), variance_bounds=(low, high))
    rng = np.random.default_rng(0)
    data, samples = rng.normal(size=(9, 4)), rng.normal(1, 2, size=(5, 4))
    came = gradient(bm.ContrastiveObjective(Given(array(samples))), rbm, None, array(data), KEY)
    statistics = [mean_statistics(rbm, v, variance) for v in (data, samples)]
    for positive, negative, x in zip(*statistics, arrays(came), strict=True):
        np.testing.assert_allclose(x, negative - positive, atol=1e-13)

    def loss(logit):
        s2 = low + (high - low) / (1 + np.exp(-logit))
        return mean_free_energy(w, b, c, data, s2) - mean_free_energy(w, b, c, samples, s2)

    logit = np.log((variance - low) / (high - variance))
    np.testing.assert_allclose(
        came.variance_logit, finite_differences(loss, [logit])[0], rtol=1e-7, atol=1e-8
    )


def bernoulli_and_potts():
    potts = bm.PottsRBM(*(array(x) for x in random_parameters(3, 6, 3)), n_states=3)
    return {"bernoulli": (bernoulli_rbm(2, 5, 3), None), "potts": (potts, one_hot_states(2, 3))}


@pytest.mark.parametrize("kind", ["bernoulli", "potts"])
def test_samples_from_the_machine_make_the_exact_likelihood_gradient(x64, kind):
    rbm, states = bernoulli_and_potts()[kind]
    truth = enumerate_rbm(*parameters(rbm), v=states)
    rows = np.random.default_rng(1).choice(len(truth.p), 4)
    batch = array(truth.v[rows])
    # The gradient is linear in the samples: its mean over all states, each with its probability.
    each = jax.jit(jax.vmap(lambda v: gradient(bm.ContrastiveObjective(Given(v)), rbm, None, batch, KEY)))
    came = [np.tensordot(truth.p, x, 1) for x in arrays(each(truth.v[:, None]))]
    expected = finite_differences(
        lambda *p: -enumerate_rbm(*p, v=states).log_p[rows].mean(), list(parameters(rbm))
    )
    for x, y in zip(came, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


def expected_gradient(truth, p_samples, data):
    """⟨∂E⟩_data − ⟨∂E⟩ over visible states of given probabilities."""
    h = truth.hidden_given_visible
    positive = h[state_index(data)]
    return [
        (truth.v * p_samples[:, None]).T @ h - data.T @ positive / len(data),
        p_samples @ truth.v - data.mean(axis=0),
        p_samples @ h - positive.mean(axis=0),
    ]


@pytest.mark.parametrize("n_steps", [1, 3])
def test_contrastive_divergence_on_average_over_its_draws(x64, n_steps):
    rbm = bernoulli_rbm(4, 5, 3)
    truth = enumerate_rbm(*parameters(rbm))
    data = truth.v[[3, 17, 30]]
    p = np.linalg.matrix_power(truth.transitions, n_steps)[state_index(data)].mean(axis=0)
    objective = bm.ContrastiveObjective(bm.ContrastiveDivergence(n_steps))
    batch = array(np.repeat(data, 20, axis=0))
    came = arrays(over_keys(objective, rbm, None, batch, 500)[0])
    for x, y in zip(came, expected_gradient(truth, p, data), strict=True):
        assert np.abs(standard_scores(x, y)).max() < 4
    if n_steps == 1:  # nor is it the likelihood's, of which this many draws would tell
        exact = expected_gradient(truth, truth.p, data)
        assert np.abs(standard_scores(came[0], exact[0])).max() > 8


def test_persistent_chains_on_average_over_their_draws(x64):
    n_steps = 2  # the first is written out, and the rest a loop; alone it is what the runs of training take
    rbm = bernoulli_rbm(4, 5, 3)
    truth = enumerate_rbm(*parameters(rbm))
    data, start = truth.v[[3, 17, 30]], 5
    p = truth.joint[:, start] / truth.joint[:, start].sum()
    p = p @ np.linalg.matrix_power(truth.transitions, n_steps - 1)
    objective = bm.ContrastiveObjective(bm.PersistentContrastiveDivergence(n_steps))
    chains = bm.PersistentChains(array(np.repeat(truth.h[[start]], 40, axis=0)))

    came, state = over_keys(objective, rbm, chains, array(data), 500)
    for x, y in zip(arrays(came), expected_gradient(truth, p, data), strict=True):
        assert np.abs(standard_scores(x, y)).max() < 4
    # The chains go on from hidden units drawn given the samples.
    hidden = np.asarray(state.hidden).mean(axis=1)
    assert np.abs(standard_scores(hidden, p @ truth.hidden_given_visible)).max() < 4


def test_chains_start_at_fair_coins(x64):
    rbm = bernoulli_rbm(4, 5, 3)
    phase = bm.ParallelTempering(zeros(5), n_temperatures=3)
    chains, replicas = jax.jit(
        lambda key: (bm.ContrastiveObjective().init(rbm, 4000, key), phase.init(rbm, 4000, key))
    )(KEY)
    assert np.abs(standard_scores(chains.hidden, 0.5)).max() < 4
    assert replicas.hidden.shape == (3, 4000, 3)
    assert np.abs(standard_scores(np.asarray(replicas.hidden).swapaxes(0, 1), 0.5)).max() < 4


@pytest.mark.parametrize(("decay", "strength"), [(0.3, 0.0), (0.0, 2.0), (0.3, 2.0)])
def test_weight_decay_and_sparsity_by_finite_differences(x64, decay, strength):
    rbm = bernoulli_rbm(5, *SIZES)
    batch = np.random.default_rng(2).random((5, 4))

    def penalty(w, b, c):
        q = np.mean(hidden_means(w, b, c, batch), axis=0)
        divergence = 0.2 * np.log(0.2 / q) + 0.8 * np.log(0.8 / (1 - q))
        return 0.5 * decay * np.sum(w**2) + strength * np.sum(divergence)

    # Samples that are the batch cancel the contrast: what is left is the penalty.
    objective = bm.ContrastiveObjective(
        Given(array(batch)), weight_decay=decay, sparsity=strength, sparsity_target=0.2
    )
    (loss, _), came = value_and_gradient(objective, rbm, None, array(batch), KEY)
    np.testing.assert_allclose(loss, penalty(*parameters(rbm)), rtol=1e-12)
    for x, y in zip(arrays(came), finite_differences(penalty, list(parameters(rbm))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9)


def test_sparsity_of_units_that_are_always_on_is_finite():
    rbm = bm.BernoulliRBM(array(np.full((3, 2), 1e3)), zeros(3), array([1e4, -1e4]))
    batch = array(np.ones((2, 3)))
    objective = bm.ContrastiveObjective(Given(batch), sparsity=1.0)
    for leaf in jax.tree.leaves(value_and_gradient(objective, rbm, None, batch, KEY)):
        assert np.isfinite(leaf).all()


def test_metrics(x64):
    rbm = bernoulli_rbm(5, *SIZES)
    data, samples = np.eye(6, 4), np.ones((5, 4))
    objective = bm.ContrastiveObjective(Given(array(samples)))
    (loss, (state, metrics)), _ = value_and_gradient(objective, rbm, None, array(data), KEY)
    energy = mean_free_energy(*parameters(rbm), data)
    np.testing.assert_allclose(metrics["free_energy"], energy, rtol=1e-13)
    np.testing.assert_allclose(loss, energy - mean_free_energy(*parameters(rbm), samples), rtol=1e-12)
    np.testing.assert_allclose(metrics["hidden_activity"], hidden_means(*parameters(rbm), data).mean())
    assert state is None
