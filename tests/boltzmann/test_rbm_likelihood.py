"""Likelihoods and two-sample measures against enumeration, scikit-learn and plain restatements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    bernoulli_rbm,
    binary_states,
    enumerate_rbm,
    free_energies,
    log_partition_exact,
    mean_free_energy,
    parameters,
    standard_scores,
    state_index,
)
from scipy.special import logsumexp
from sklearn.neural_network import BernoulliRBM as SklearnRBM

from neurojax import boltzmann as bm

exact_pseudo_log_likelihoods = jax.jit(
    jax.vmap(bm.pseudo_log_likelihood_exact, (None, 0)), static_argnames="is_per_unit"
)
pseudo_log_likelihoods = jax.jit(
    jax.vmap(lambda rbm, v, key: bm.pseudo_log_likelihood(rbm, v, key), (None, None, 0))
)
log_likelihoods = jax.jit(jax.vmap(bm.log_likelihood, (None, 0, None)))


def brute_pseudo_log_likelihoods(truth):
    """Σᵢ log p(vᵢ | v₋ᵢ) of every state, from the probabilities of the state and its neighbours."""
    total = np.zeros(len(truth.p))
    for i in range(truth.v.shape[1]):
        flipped = truth.v.copy()
        flipped[:, i] = 1 - flipped[:, i]
        total += np.log(truth.p / (truth.p + truth.p[state_index(flipped)]))
    return total


def test_log_likelihoods_are_of_a_distribution(x64):
    rbm = bernoulli_rbm(0, 8, 5)
    truth = enumerate_rbm(*parameters(rbm))
    came = log_likelihoods(rbm, jnp.asarray(truth.v), log_partition_exact(rbm))
    np.testing.assert_allclose(came, truth.log_p, rtol=1e-12)
    assert abs(logsumexp(came)) < 1e-12


def test_pseudo_log_likelihood(x64):
    rbm = bernoulli_rbm(1, 7, 4)
    truth = enumerate_rbm(*parameters(rbm))
    expected = brute_pseudo_log_likelihoods(truth)
    v = jnp.asarray(truth.v)
    np.testing.assert_allclose(exact_pseudo_log_likelihoods(rbm, v), expected, rtol=1e-11)
    per_unit = jax.jit(jax.vmap(lambda v: bm.pseudo_log_likelihood_exact(rbm, v, is_per_unit=True)))(v)
    np.testing.assert_allclose(per_unit, expected / 7, rtol=1e-11)
    keys = jax.random.split(jax.random.key(0), 5000)
    for i in (0, 37, 127):
        draws = pseudo_log_likelihoods(rbm, v[i], keys)
        assert abs(standard_scores(draws, expected[i])) < 4
        assert len(np.unique(np.round(draws, 9))) == 7  # every unit has its turn
    one = bm.pseudo_log_likelihood(rbm, v[3], keys[0], is_per_unit=True)
    np.testing.assert_allclose(7 * one, pseudo_log_likelihoods(rbm, v[3], keys[:1])[0], rtol=1e-13)


def test_scikit_learn(x64):
    rng = np.random.default_rng(2)
    data = (rng.random((60, 9)) < 0.4).astype(float)
    peer = SklearnRBM(n_components=5, n_iter=3, learning_rate=0.5, random_state=0).fit(data)
    peer.components_ *= 3
    rbm = bm.BernoulliRBM(
        *map(jnp.asarray, (peer.components_.T, peer.intercept_visible_, peer.intercept_hidden_))
    )
    np.testing.assert_allclose(free_energies(rbm, jnp.asarray(data)), peer._free_energy(data), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(rbm.hidden_input)(jnp.asarray(data)),
                               np.log(1 / (1 / peer.transform(data) - 1)), rtol=1e-9)  # fmt: skip
    peer.random_state = np.random.RandomState(1)
    scores = [peer.score_samples(data).mean() for _ in range(300)]
    exact = np.asarray(exact_pseudo_log_likelihoods(rbm, jnp.asarray(data))).mean()
    assert abs(standard_scores(scores, exact)) < 4


def test_free_energy_gap(x64):
    rbm = bernoulli_rbm(3, 5, 3)
    rng = np.random.default_rng(3)
    train, validation = rng.random((6, 5)), rng.random((4, 5))
    expected = mean_free_energy(*parameters(rbm), validation) - mean_free_energy(*parameters(rbm), train)
    np.testing.assert_allclose(bm.free_energy_gap(rbm, train, validation), expected, rtol=1e-12)
    assert bm.free_energy_gap(rbm, train, train) == 0


def plain_accuracy(data, samples):
    """The two shares, a pair of rows at a time."""

    def nearest(row, others):
        return min(np.sum((row.astype(float) - other.astype(float)) ** 2) for other in others)

    def share(own, others):
        total = 0.0
        for i, row in enumerate(own):
            across, within = nearest(row, others), nearest(row, np.delete(own, i, axis=0))
            total += 1.0 if across > within else 0.5 if across == within else 0.0
        return total / len(own)

    return share(data, samples), share(samples, data)


@pytest.mark.parametrize("kind", ["binary", "grey", "offset"])
def test_adversarial_accuracy_restated(kind):
    rng = np.random.default_rng(4)
    if kind == "binary":
        data, samples = ((rng.random((40, 8)) < p).astype("float32") for p in (0.3, 0.5))
    else:  # with an offset the products of float32 rows would cancel
        offset = 1000 if kind == "offset" else 0
        data, samples = ((offset + s * rng.normal(size=(40, 5))).astype("float32") for s in (1, 0.7))
    came = bm.adversarial_accuracy(data, samples)
    expected = plain_accuracy(data, samples)
    np.testing.assert_allclose((came.data, came.samples), expected, rtol=1e-6)
    np.testing.assert_allclose(came.value, np.mean(expected), rtol=1e-6)
    copies = bm.adversarial_accuracy(data[:20], data[:20].copy())
    is_distinct = len(np.unique(data[:20], axis=0)) == 20
    assert copies.value == 0 if is_distinct else copies.value <= 0.5


def test_adversarial_accuracy_of_equal_and_disjoint_sets():
    rng = np.random.default_rng(5)
    rows = (rng.random((2000, 20)) < 0.5).astype("float32")
    same = bm.adversarial_accuracy(rows[:1000], rows[1000:])
    # Rows share neighbours, so the variance exceeds that of 1000 coins: twice is generous to neither side.
    assert abs(same.value - 0.5) < 4 * 2 * 0.5 / np.sqrt(1000)
    apart = bm.adversarial_accuracy(rows[:500], rows[500:1000] + 100)
    assert apart == (1, 1, 1)
    copies = np.unique(rows, axis=0)[:500]
    assert bm.adversarial_accuracy(copies, copies) == (0, 0, 0)
    collapsed = np.repeat(copies[:1], 500, axis=0)  # covers nothing: the data see only each other
    came = bm.adversarial_accuracy(copies, collapsed)
    assert came.data > 0.9


def test_class_log_probabilities(x64):
    rbm = bernoulli_rbm(6, 7, 4)
    truth = enumerate_rbm(*parameters(rbm))
    features = binary_states(4)
    came = jax.jit(jax.vmap(lambda f: bm.class_log_probabilities(rbm, f, 3)))(jnp.asarray(features))
    for row, log_p in zip(features, came, strict=True):
        p = np.array([truth.p[state_index(np.concatenate([row, y]))] for y in np.eye(3)])
        np.testing.assert_allclose(log_p, np.log(p / p.sum()), rtol=1e-11)
    rows = bm.append_labels(jnp.asarray(features[:3]), jnp.array([2, 0, 1]), 3)
    np.testing.assert_array_equal(rows, np.hstack([features[:3], np.eye(3)[[2, 0, 1]]]))
