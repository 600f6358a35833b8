"""Energies, free energies and conditionals of every kind of machine against sums over all states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    bernoulli_rbm,
    binary_states,
    energies,
    enumerate_rbm,
    free_energies,
    hidden_means,
    hidden_probabilities,
    negative_energies,
    one_hot_states,
    parameters,
    random_parameters,
    visible_probabilities,
)

from neurojax import boltzmann as bm

mean_field = jax.jit(jax.vmap(bm.mean_field_step, (None, 0)))
free_energy, gibbs_step = jax.jit(bm.free_energy), jax.jit(bm.gibbs_step)
free_energy_gradients = jax.jit(jax.vmap(jax.grad(bm.free_energy, argnums=(0, 1)), (None, 0)))


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


def assert_close(came, expected, dtype, factor=1):
    tolerance = factor * (3e-6 if dtype == "float32" else 1e-13)
    assert came.dtype == dtype
    np.testing.assert_allclose(came, expected, rtol=tolerance, atol=tolerance)


def test_bernoulli_machine(dtype):
    rbm = bernoulli_rbm(0, 7, 5, dtype=dtype)
    truth = enumerate_rbm(*parameters(rbm))
    v, h = jnp.asarray(truth.v, dtype), jnp.asarray(truth.h, dtype)
    joint = -np.log(truth.joint) - truth.log_z
    assert_close(energies(rbm, v, h), joint, dtype, 10)
    assert_close(free_energies(rbm, v), -truth.log_p - truth.log_z, dtype, 5)
    assert_close(hidden_probabilities(rbm, v), truth.hidden_given_visible, dtype)
    on = truth.joint.T @ truth.v / truth.joint.sum(axis=0)[:, None]
    assert_close(visible_probabilities(rbm, h), on, dtype)
    # The mean field of a grey input, one scalar at a time.
    w, b, c = parameters(rbm)
    hidden = [1 / (1 + np.exp(-(c[j] + sum(0.3 * w[i, j] for i in range(7))))) for j in range(5)]
    visible = [1 / (1 + np.exp(-(b[i] + sum(w[i, j] * hidden[j] for j in range(5))))) for i in range(7)]
    assert_close(mean_field(rbm, jnp.full((1, 7), 0.3, dtype))[0], visible, dtype)


def test_potts_machine(dtype):
    w, b, c = random_parameters(1, 9, 4)
    rbm = bm.PottsRBM(*(jnp.asarray(x, dtype) for x in (w, b, c)), n_states=3)
    truth = enumerate_rbm(*parameters(rbm), v=one_hot_states(3, 3))
    assert truth.v.shape == (27, 9)
    v, h = jnp.asarray(truth.v, dtype), jnp.asarray(truth.h, dtype)
    assert_close(energies(rbm, v, h), -np.log(truth.joint) - truth.log_z, dtype, 10)
    assert_close(free_energies(rbm, v), -truth.log_p - truth.log_z, dtype, 5)
    assert_close(hidden_probabilities(rbm, v), truth.hidden_given_visible, dtype)
    assert_close(
        visible_probabilities(rbm, h), truth.joint.T @ truth.v / truth.joint.sum(axis=0)[:, None], dtype
    )


def gaussian_rbm(dtype, seed=2, n_visible=2, n_hidden=3):
    w, b, c = random_parameters(seed, n_visible, n_hidden, 0.7)
    variance = np.linspace(0.5, 1.7, n_visible)
    rbm = bm.GaussianBernoulliRBM(
        *(jnp.asarray(x, dtype) for x in (w, b, c, variance)), variance_bounds=(0.2, 3.0)
    )
    return rbm, variance


def grid(n_points=241, width=12.0):
    axis = np.linspace(-width, width, n_points)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def test_gaussian_machine_against_quadrature(dtype):
    rbm, variance = gaussian_rbm(dtype)
    assert_close(rbm.variance, variance, dtype)
    v, area = grid()
    h = binary_states(3)
    minus_e = negative_energies(*parameters(rbm), v, h, variance)
    few = np.arange(0, len(v), 5003)
    rows = jnp.asarray(v[few], dtype)
    assert_close(energies(rbm, rows, jnp.asarray(h, dtype)), -minus_e[few], dtype, 10)
    assert_close(free_energies(rbm, rows), -np.logaddexp.reduce(minus_e[few], axis=1), dtype, 10)
    assert_close(hidden_probabilities(rbm, rows), hidden_means(*parameters(rbm), v[few], variance), dtype, 10)
    joint = np.exp(minus_e)  # the trapezoid rule on a wide grid is exact to rounding for normal densities
    assert_close(
        visible_probabilities(rbm, jnp.asarray(h, dtype)), joint.T @ v / joint.sum(0)[:, None], dtype, 30
    )
    assert_close(jax.jit(bm.log_partition_exact)(rbm), np.log(joint.sum() * area), dtype, 30)
    # The spread of v given h is the variance, however the weights are scaled.
    spread = joint.T @ v**2 / joint.sum(0)[:, None] - (joint.T @ v / joint.sum(0)[:, None]) ** 2
    np.testing.assert_allclose(spread, np.broadcast_to(variance, spread.shape), rtol=1e-9)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian", "potts"])
def test_extreme_inputs_are_finite(dtype, kind):
    w, b, c = (jnp.asarray(x, dtype) for x in random_parameters(3, 4, 3))
    rbm = {
        "bernoulli": lambda: bm.BernoulliRBM(1e4 * w, 1e4 * b, 1e4 * c),
        "gaussian": lambda: bm.GaussianBernoulliRBM(w, b, c, 0.5),
        "potts": lambda: bm.PottsRBM(1e4 * w, 1e4 * b, 1e4 * c, n_states=2),
    }[kind]()
    v = jnp.asarray(binary_states(4), dtype)
    v = 1e4 * (2 * v - 1) if kind == "gaussian" else v
    variance = 0.5 * np.ones(4) if kind == "gaussian" else None
    minus_e = negative_energies(*parameters(rbm), np.asarray(v, float), binary_states(3), variance)
    assert_close(free_energies(rbm, v), -np.logaddexp.reduce(minus_e, axis=1), dtype, 10)
    for leaf in jax.tree.leaves(free_energy_gradients(rbm, v)):
        assert np.isfinite(leaf).all()


def test_inputs_of_ten_thousand_of_either_sign(dtype):
    for sign in (1, -1):
        big = jnp.full((3, 2), sign * 1e4, dtype)
        rbm = bm.BernoulliRBM(big, big[:, 0], big[0])
        expected = -3e4 - 2 * 4e4 if sign == 1 else 3e4  # softplus(x) is x, or 0
        assert_close(free_energies(rbm, jnp.ones((1, 3), dtype))[0], expected, dtype)
        gradient, _ = free_energy_gradients(rbm, jnp.ones((1, 3), dtype))
        assert np.all(gradient.weights == (-1 if sign == 1 else 0))


def test_many_are_the_loop_over_one(dtype):
    rbm = bernoulli_rbm(4, 6, 5, dtype=dtype)
    v = jnp.asarray(binary_states(6)[::9], dtype)
    assert_close(free_energies(rbm, v), [float(free_energy(rbm, row)) for row in v], dtype)
    machines = [bernoulli_rbm(seed, 6, 5, dtype=dtype) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *machines)
    many = jax.jit(jax.vmap(lambda rbm: bm.free_energy(rbm, v[1])))(stacked)
    assert_close(many, [float(free_energy(rbm, v[1])) for rbm in machines], dtype)
    keys = jax.random.split(jax.random.key(0), len(v))
    steps = jax.jit(jax.vmap(bm.gibbs_step, (None, 0, 0)))(rbm, v, keys)
    loop = [gibbs_step(rbm, row, key) for row, key in zip(v, keys, strict=True)]
    np.testing.assert_array_equal(steps, np.stack(loop))


def test_base_visible_bias():
    rng = np.random.default_rng(0)
    data = (rng.random((40, 6)) < 0.3).astype("float32")
    data[:, 0], data[:, 1] = 0, 1  # constant pixels
    rbm = bm.BernoulliRBM.from_data(data, 3, jax.random.key(0))
    counts = data.sum(axis=0)
    np.testing.assert_allclose(jax.nn.sigmoid(rbm.visible_bias), (counts + 1) / 42, rtol=1e-6)
    assert not rbm.hidden_bias.any() and 0.003 < rbm.weights.std() < 0.03
    potts = bm.PottsRBM.from_data(np.repeat(np.eye(3, dtype="float32"), [5, 3, 0], 0), 2, jax.random.key(0),
                                  n_states=3)  # fmt: skip
    np.testing.assert_allclose(jax.nn.softmax(potts.visible_bias), [6 / 11, 4 / 11, 1 / 11], rtol=1e-6)
    grey = rng.normal(3, 2, size=(50, 4)).astype("float32")
    grey[:, 0] = 7
    gaussian = bm.GaussianBernoulliRBM.from_data(grey, 2, jax.random.key(0))
    np.testing.assert_allclose(gaussian.visible_bias, grey.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(gaussian.variance[1:], grey[:, 1:].var(axis=0), rtol=1e-5)
    low, _ = gaussian.variance_bounds
    assert low < gaussian.variance[0] < 1.1 * low
