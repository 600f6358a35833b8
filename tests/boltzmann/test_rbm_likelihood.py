"""Likelihoods and two-sample measures against enumeration, scikit-learn and plain restatements."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    binary_states,
    enumerate_rbm,
    free_energies,
    hidden_probabilities,
    log_partition_exact,
    mean_free_energy,
    parameters,
    standard_scores,
    state_index,
)
from scipy.special import logsumexp
from sklearn.neural_network import BernoulliRBM as SklearnRBM

from neurojax import boltzmann as bm


@jax.jit
def exact_pseudo_log_likelihoods(rbm, v):
    """Of every row: in all, and per unit."""

    def both(v):
        return bm.pseudo_log_likelihood_exact(rbm, v), bm.pseudo_log_likelihood_exact(
            rbm, v, is_per_unit=True
        )

    return jax.vmap(both)(v)


@jax.jit
def pseudo_log_likelihoods(rbm, v, key):
    """Of every row and key: in all, and per unit."""

    def both(v, key):
        return bm.pseudo_log_likelihood(rbm, v, key), bm.pseudo_log_likelihood(rbm, v, key, is_per_unit=True)

    return jax.vmap(jax.vmap(both, (None, 0)), (0, None))(v, jax.random.split(key, 3000))


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
    came = log_likelihoods(rbm, array(truth.v), log_partition_exact(rbm))
    np.testing.assert_allclose(came, truth.log_p, rtol=1e-12)
    assert abs(logsumexp(came)) < 1e-12


def test_pseudo_log_likelihood(x64):
    rbm = bernoulli_rbm(1, 7, 4)
    truth = enumerate_rbm(*parameters(rbm))
    expected = brute_pseudo_log_likelihoods(truth)
    total, per_unit = exact_pseudo_log_likelihoods(rbm, truth.v)
    np.testing.assert_allclose(total, expected, rtol=1e-11)
    np.testing.assert_allclose(per_unit, expected / 7, rtol=1e-11)
    rows = [0, 37, 127]
    draws, per_unit = map(np.asarray, pseudo_log_likelihoods(rbm, truth.v[rows], jax.random.key(0)))
    np.testing.assert_allclose(7 * per_unit, draws, rtol=1e-13)
    for values, i in zip(draws, rows, strict=True):
        assert abs(standard_scores(values, expected[i])) < 4
        assert len(np.unique(np.round(values, 9))) == 7  # every unit has its turn


def test_scikit_learn(x64):
    rng = np.random.default_rng(2)
    data = (rng.random((60, 9)) < 0.4).astype(float)
    peer = SklearnRBM(n_components=5, n_iter=3, learning_rate=0.5, random_state=0).fit(data)
    peer.components_ *= 3
    rbm = bm.BernoulliRBM(
        *map(jnp.asarray, (peer.components_.T, peer.intercept_visible_, peer.intercept_hidden_))
    )
    np.testing.assert_allclose(free_energies(rbm, array(data)), peer._free_energy(data), rtol=1e-12)
    np.testing.assert_allclose(hidden_probabilities(rbm, data), peer.transform(data), rtol=1e-12)
    peer.random_state = np.random.RandomState(1)
    scores = [peer.score_samples(data).mean() for _ in range(100)]
    exact = np.asarray(exact_pseudo_log_likelihoods(rbm, data)[0]).mean()
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


def test_adversarial_accuracy_restated():
    rng = np.random.default_rng(4)
    binary = [(rng.random((40, 8)) < p).astype("float32") for p in (0.3, 0.5)]
    grey = [(s * rng.normal(size=(40, 8))).astype("float32") for s in (1, 0.7)]
    far = [(1000 + x).astype("float32") for x in grey]  # the products of float32 rows would cancel
    for name, (data, samples) in {"binary": binary, "grey": grey, "offset": far}.items():
        came = bm.adversarial_accuracy(data, samples)
        expected = plain_accuracy(data, samples)
        np.testing.assert_allclose((came.data, came.samples), expected, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(came.value, np.mean(expected), rtol=1e-6, err_msg=name)
        copies = bm.adversarial_accuracy(data, data.copy())
        is_distinct = len(np.unique(data, axis=0)) == 40
        assert copies.value == 0 if is_distinct else copies.value <= 0.5, name


def test_adversarial_accuracy_of_equal_and_disjoint_sets():
    rng = np.random.default_rng(5)
    rows = (rng.random((2000, 20)) < 0.5).astype("float32")
    same = bm.adversarial_accuracy(rows[:1000], rows[1000:])
    # Rows share neighbors, so the variance exceeds that of 1000 coins: twice is generous to neither side.
    assert abs(float(same.value) - 0.5) < 4 * 2 * 0.5 / np.sqrt(1000)
    apart = bm.adversarial_accuracy(rows[:1000], rows[1000:] + 100)
    assert apart == (1, 1, 1)
    copies = np.unique(rows, axis=0)[:1000]
    assert bm.adversarial_accuracy(copies, copies) == (0, 0, 0)
    collapsed = np.repeat(copies[:1], 1000, axis=0)  # covers nothing: the data see only each other
    came = bm.adversarial_accuracy(copies, collapsed)
    assert float(came.data) > 0.9


def test_class_log_probabilities(x64):
    rbm = bernoulli_rbm(6, 7, 4)
    truth = enumerate_rbm(*parameters(rbm))
    features = binary_states(4)
    came = jax.jit(jax.vmap(lambda f: bm.class_log_probabilities(rbm, f, 3)))(array(features))
    for row, log_p in zip(features, came, strict=True):
        p = np.array([truth.p[state_index(np.concatenate([row, y]))] for y in np.eye(3)])
        np.testing.assert_allclose(log_p, np.log(p / p.sum()), rtol=1e-11)
    rows = bm.append_labels(array(features[:3]), array([2, 0, 1]), 3)
    np.testing.assert_array_equal(rows, np.hstack([features[:3], np.eye(3)[[2, 0, 1]]]))


class SpinRBM(bm.AbstractRBM):
    """Visible units 0 or 1 that the weights see as −1 or 1, with energies −biasᵢ(2vᵢ − 1): a stranger's."""

    weights: jax.Array
    visible_bias: jax.Array
    hidden_bias: jax.Array
    is_binary: ClassVar[bool] = True
    visible_limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def scaled(self, v):
        return 2 * v - 1

    def visible_energies(self, v, bias):
        return -bias * (2 * v - 1)

    def is_state(self, v):
        return (v == 0) | (v == 1)

    def visible_mean(self, visible_input):
        return jax.nn.sigmoid(2 * visible_input)

    def sample_visible(self, visible_input, key):
        mean = self.visible_mean(visible_input)
        return jax.random.bernoulli(key, mean).astype(mean.dtype)

    def visible_log_partition(self, visible_input):
        return jnp.sum(jnp.logaddexp(visible_input, -visible_input), axis=-1)

    def base_visible_bias(self, data, pseudo_count=1.0):
        on = (jnp.sum(data, axis=0) + pseudo_count) / (len(data) + 2 * pseudo_count)
        return (jnp.log(on) - jnp.log1p(-on)) / 2


def test_pseudo_log_likelihoods_of_binary_units_that_the_weights_see_otherwise(x64):
    rng = np.random.default_rng(0)
    rbm = SpinRBM(*(array(rng.normal(size=n)) for n in ((5, 3), 5, 3)))
    v = binary_states(5)[11]
    flipped = np.where(np.eye(5, dtype=bool), 1 - v, v)
    gain = np.asarray(free_energies(rbm, flipped)) - np.asarray(free_energies(rbm, v[None]))
    expected = -np.logaddexp(0, -gain)
    np.testing.assert_allclose(bm.pseudo_log_likelihood_exact(rbm, v), expected.sum(), rtol=1e-12)
    one = float(bm.pseudo_log_likelihood(rbm, v, jax.random.key(0), is_per_unit=True))
    assert np.abs(expected - one).min() < 1e-12
