"""The centred gradient against its formula, its parametrisation, and its indifference to coding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    Given,
    array,
    bernoulli_rbm,
    finite_differences,
    hidden_means,
    mean_free_energy,
    parameters,
    random_parameters,
    zeros,
)

from neurojax import boltzmann as bm
from neurojax.boltzmann import AbstractNegativePhase

KEY = jax.random.key(0)


@jax.jit
def centred_gradient(rbm, data, samples, mu, lam, rate=0.0):
    rule = bm.CentredGradient(bm.ContrastiveObjective(Given(samples)), rate)
    state = bm.CentredState(None, mu, lam)
    (_, (state, _)), gradient = rule.value_and_grad(rbm, state, data, KEY)
    return gradient, state


def test_formula(x64):
    rbm = bernoulli_rbm(0, 5, 3)
    rng = np.random.default_rng(0)
    data, samples, mu, lam = rng.random((7, 5)), rng.random((4, 5)), rng.random(5), rng.random(3)
    came, state = centred_gradient(rbm, data, samples, mu, lam, 0.25)
    w, b, c = parameters(rbm)
    h_data, h_samples = (hidden_means(w, b, c, v) for v in (data, samples))
    weights = (data - mu).T @ (h_data - lam) / 7 - (samples - mu).T @ (h_samples - lam) / 4
    visible = data.mean(axis=0) - samples.mean(axis=0) - weights @ lam
    hidden = h_data.mean(axis=0) - h_samples.mean(axis=0) - mu @ weights
    np.testing.assert_allclose(came.weights, -weights, atol=1e-14)
    np.testing.assert_allclose(came.visible_bias, -visible, atol=1e-14)
    np.testing.assert_allclose(came.hidden_bias, -hidden, atol=1e-14)
    np.testing.assert_allclose(state.visible_offset, 0.75 * mu + 0.25 * data.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(state.hidden_offset, 0.75 * lam + 0.25 * h_data.mean(axis=0), rtol=1e-14)


def test_offsets_of_zero_leave_the_plain_gradient_and_start_at_the_data(x64):
    rbm = bernoulli_rbm(0, 5, 3)
    rng = np.random.default_rng(0)
    data, samples = rng.random((7, 5)), rng.random((4, 5))
    came, _ = centred_gradient(rbm, data, samples, np.zeros(5), np.zeros(3))
    objective = bm.ContrastiveObjective(Given(array(samples)))
    plain = jax.jit(jax.grad(lambda rbm: objective(rbm, None, array(data), KEY)[0]))(rbm)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-14), came, plain)
    start = jax.jit(lambda mean: bm.CentredGradient().init(rbm, 3, KEY, data_mean=mean))(data.mean(axis=0))
    np.testing.assert_allclose(start.visible_offset, data.mean(axis=0))
    expected = hidden_means(*parameters(rbm), data.mean(axis=0)[None])[0]
    np.testing.assert_allclose(start.hidden_offset, expected, rtol=1e-13)
    assert start.chains.hidden.shape == (3, 3)


@pytest.mark.parametrize("is_gaussian", [False, True])
def test_descent_in_the_centred_parameters_by_finite_differences(x64, is_gaussian):
    w, b, c = random_parameters(1, 4, 3)
    rng = np.random.default_rng(1)
    if is_gaussian:
        variance = np.array([0.4, 0.8, 1.5, 2.0])
        rbm = bm.GaussianBernoulliRBM(*map(jnp.asarray, (w, b, c, variance)))
        data, samples, mu = rng.normal(size=(6, 4)), rng.normal(1, 1, size=(5, 4)), rng.normal(size=4)
    else:
        variance, rbm = None, bm.BernoulliRBM(*map(jnp.asarray, (w, b, c)))
        data, samples, mu = rng.random((6, 4)), rng.random((5, 4)), rng.random(4)
    lam = rng.random(3)
    scaled = mu / variance if is_gaussian else mu

    def plain(w, b_centred, c_centred):
        return w, b_centred - w @ lam, c_centred - scaled @ w

    def loss(*centred):
        p = plain(*centred)
        return mean_free_energy(*p, data, variance) - mean_free_energy(*p, samples, variance)

    start = [w, b + w @ lam, c + scaled @ w]
    steps = finite_differences(loss, start)
    # The plain parameters are linear in the centred ones: a whole step shows what it changes of them.
    moved = plain(*(x - step for x, step in zip(start, steps, strict=True)))
    came, _ = centred_gradient(rbm, data, samples, mu, lam)
    for name, before, after in zip(("weights", "visible_bias", "hidden_bias"), (w, b, c), moved, strict=True):
        np.testing.assert_allclose(before - after, getattr(came, name), rtol=1e-7, atol=1e-8)


class Reconstructions(AbstractNegativePhase):
    """Reconstructions of the batch by probabilities: a negative phase without chance."""

    def init(self, rbm, n_chains, key):
        return None

    def draw(self, rbm, state, batch, key):
        return jax.vmap(bm.mean_field_step, (None, 0))(rbm, batch), state, {}


RULE = bm.CentredGradient(bm.ContrastiveObjective(Reconstructions()), 0.1)


@partial(jax.jit, static_argnames="is_centred")
def learn(rbm, batches, is_centred):
    """Return the machine and the offsets after 20 updates."""
    mean = batches.mean(axis=(0, 1))

    def update(carry, batch):
        rbm, state = carry
        if is_centred:
            (_, (state, _)), gradient = RULE.value_and_grad(rbm, state, batch, KEY)
        else:
            gradient = jax.grad(lambda rbm: RULE.objective(rbm, None, batch, KEY)[0])(rbm)
        return (jax.tree.map(lambda x, g: x - 0.5 * g, rbm, gradient), state), None

    state = RULE.init(rbm, 1, KEY, data_mean=mean)
    return jax.lax.scan(update, (rbm, state), batches)[0]


def flip(arrays, units):
    """The same machine with the two states of some visible units called by each other's names."""
    weights, visible_bias, hidden_bias = arrays
    sign = np.where(units, -1.0, 1.0)
    return sign[:, None] * weights, sign * visible_bias, hidden_bias + units @ weights


def test_learning_does_not_depend_on_which_state_is_called_zero(x64):
    rbm = bernoulli_rbm(3, 5, 3, 0.5)
    batches = (np.random.default_rng(3).random((20, 10, 5)) < 0.3).astype(float)
    units = np.array([True, False, True, False, False])
    flipped = bm.BernoulliRBM(*map(array, flip(parameters(rbm), units)))
    differences = {}
    for is_centred in (True, False):
        trained, offsets = learn(rbm, batches, is_centred)
        other, other_offsets = learn(flipped, np.where(units, 1 - batches, batches), is_centred)
        pairs = zip(flip(parameters(trained), units), parameters(other), strict=True)
        differences[is_centred] = max(np.abs(x - y).max() for x, y in pairs)
        if is_centred:
            mean = np.asarray(offsets.visible_offset)
            expected = np.where(units, 1 - mean, mean)
            np.testing.assert_allclose(other_offsets.visible_offset, expected, rtol=1e-10)
            np.testing.assert_allclose(other_offsets.hidden_offset, offsets.hidden_offset, rtol=1e-10)
            assert np.abs(parameters(trained)[0] - parameters(rbm)[0]).max() > 0.1
    assert differences[True] < 1e-10
    assert differences[False] > 0.05


def test_state_of_another_rule_is_refused(untyped):
    rbm = bm.BernoulliRBM(zeros(3, 2), zeros(3), zeros(2))
    with pytest.raises(ValueError, match=r"state: expected CentredState.*objective\.init.*got NoneType"):
        bm.CentredGradient().value_and_grad(rbm, None, zeros(2, 3), KEY)
