"""Deep belief networks against enumeration of their layers, and their greedy training."""

from functools import partial

import jax
import numpy as np
import optax
import pytest
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    chi_square_p_value,
    enumerate_rbm,
    parameters,
    standard_scores,
    state_index,
    zeros,
)

from neurojax import boltzmann as bm

KEY = jax.random.key(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@partial(jax.jit, static_argnames="n_samples")
def samples_of(network, key, n_samples, init=None, is_clamped=None):
    """Samples after thirty steps of the top machine."""
    keys = jax.random.split(key, n_samples)
    return jax.vmap(lambda k: network.sample(k, n_steps=30, init=init, is_clamped=is_clamped))(keys)


def test_features_are_probabilities_passed_upwards(x64):
    machines = (bernoulli_rbm(0, 5, 4), bernoulli_rbm(1, 4, 3), bernoulli_rbm(2, 3, 2))
    network, v = bm.DeepBeliefNetwork(machines), np.array([1.0, 0, 0.3, 1, 0])
    expected = v
    for machine in machines[:-1]:
        w, _, c = parameters(machine)
        expected = sigmoid(expected @ w + c)
    features = jax.jit(lambda network, v: network.features(v))
    np.testing.assert_allclose(features(network, v), expected, rtol=1e-13)
    assert network.n_labels == 0


def test_samples_from_the_top_downwards(x64):
    bottom, middle, top = bernoulli_rbm(3, 5, 3, 1.5), bernoulli_rbm(4, 3, 3, 1.5), bernoulli_rbm(5, 3, 2)
    came = np.asarray(samples_of(bm.DeepBeliefNetwork((bottom, middle, top)), KEY, 4000))
    top, low, lowest = (enumerate_rbm(*parameters(m)) for m in (top, middle, bottom))
    given = low.joint / low.joint.sum(axis=0)  # p(h1 | h2), a column for each h2
    mean = lowest.joint.T @ lowest.v / lowest.joint.sum(axis=0)[:, None]
    p_h1 = given @ top.p
    assert np.abs(standard_scores(came, p_h1 @ mean)).max() < 4
    # Only the middle layer is drawn: the lowest one gives the probabilities of one of its states.
    which = np.argmin(np.abs(came[:, None] - mean).sum(axis=2), axis=1)
    np.testing.assert_allclose(came, mean[which], rtol=1e-10)
    assert chi_square_p_value(np.bincount(which, minlength=8), p_h1) > 1e-3


def test_one_machine_gives_its_own_states(x64):
    rbm = bernoulli_rbm(6, 3, 2)
    network = bm.DeepBeliefNetwork((rbm,))
    assert network.n_labels == 0
    np.testing.assert_array_equal(network.features(array(np.arange(3.0))), np.arange(3.0))
    counts = np.bincount(state_index(samples_of(network, KEY, 4000)), minlength=8)
    assert chi_square_p_value(counts, enumerate_rbm(*parameters(rbm)).p) > 1e-3


def test_clamped_labels(x64):
    bottom, top = bernoulli_rbm(7, 4, 3, 2.0), bernoulli_rbm(8, 5, 3, 1.5)  # two labels behind three units
    network = bm.DeepBeliefNetwork((bottom, top))
    assert network.n_labels == 2
    truth, lowest = enumerate_rbm(*parameters(top)), enumerate_rbm(*parameters(bottom))
    mean = lowest.joint.T @ lowest.v / lowest.joint.sum(axis=0)[:, None]
    for label in np.eye(2):
        init = array(np.concatenate([np.zeros(3), label]))
        came = np.asarray(samples_of(network, KEY, 4000, init, array(np.arange(5) >= 3)))
        p = truth.p * np.all(truth.v[:, 3:] == label, axis=1)
        p_h1 = np.bincount(state_index(truth.v[:, :3]), p, minlength=8) / p.sum()
        assert np.abs(standard_scores(came, p_h1 @ mean)).max() < 4


def stripes():
    rows = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]], "float32")
    return np.repeat(rows, 20, axis=0)


SETTINGS = {"optimizer": optax.sgd(0.2), "n_steps": 400, "batch_size": 20, "key": KEY, "progress": False}


@pytest.mark.slow
def test_greedy_training_learns_and_a_label_calls_up_its_stripe():
    labels = np.repeat(np.eye(2, dtype="float32"), 20, axis=0)
    network = bm.fit_deep_belief_network(stripes(), [4, 3], labels=labels, **SETTINGS)
    assert [m.weights.shape for m in network.machines] == [(6, 4), (6, 3)] and network.n_labels == 2
    lowest = enumerate_rbm(*parameters(network.machines[0]))
    assert lowest.log_p[state_index(stripes())].mean() > -1.2  # at best −log 2; the base rate has −6 log 2
    init, held = array([0.5, 0.5, 0.5, 0.5, 1, 0]), array(np.arange(6) >= 4)
    draws = np.asarray(samples_of(network, jax.random.key(1), 300, init, held))
    assert draws[:, :3].mean() > 0.7 > 0.3 > draws[:, 3:].mean()


@pytest.mark.slow
def test_greedy_training_goes_on_from_its_folder(tmp_path):
    # A run that was cut off after the first machine, the same call again, once more, and one in one go.
    folder = tmp_path / "run"
    bm.fit_deep_belief_network(stripes(), [4], folder=folder, **SETTINGS)
    first, *others = (
        bm.fit_deep_belief_network(stripes(), [4, 3], folder=where, **SETTINGS)
        for where in (folder, folder, None)
    )
    assert [m.weights.shape for m in first.machines] == [(6, 4), (4, 3)]
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)
    assert sorted(p.name for p in folder.iterdir()) == ["machine_0", "machine_1"]


def test_sizes_that_do_not_fit(untyped):
    with pytest.raises(ValueError, match="number of machines: expected a whole number ≥ 1, got 0"):
        bm.DeepBeliefNetwork(())
    for sizes in (((5, 4), (3, 2)), ((5, 4), (6, 3), (3, 2))):
        machines = tuple(bm.BernoulliRBM(zeros(*s), zeros(s[0]), zeros(s[1])) for s in sizes)
        with pytest.raises(ValueError, match=r"machines: expected 4 visible units in machine 1.*got [36]"):
            bm.DeepBeliefNetwork(machines)
    small = {**SETTINGS, "n_steps": 1}
    for data, message in ((2 * stripes(), "0 to 2"), (stripes()[:0], "at least one row")):
        with pytest.raises(ValueError, match=f"data: expected .*{message}"):
            bm.fit_deep_belief_network(data, [2], **small)
    with pytest.raises(ValueError, match="n_hidden: expected at least one number"):
        bm.fit_deep_belief_network(stripes(), [], **small)
    # By name, and not by an error of concatenation.
    with pytest.raises(ValueError, match=r"labels: .*40"):
        bm.fit_deep_belief_network(stripes(), [2], labels=np.ones((39, 2), "float32"), **small)
