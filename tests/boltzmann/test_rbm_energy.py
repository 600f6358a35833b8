"""Energies, free energies and conditionals of every kind of machine against sums over all states."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    binary_states,
    enumerate_rbm,
    gaussian_rbm,
    hidden_means,
    negative_energies,
    one_hot_states,
    parameters,
    random_parameters,
)

from neurojax import boltzmann as bm

free_energy_gradients = jax.grad(bm.free_energy, argnums=(0, 1))


@jax.jit
def everything(rbm, v, h):
    """What a machine says of rows of visible and rows of hidden units, in one program."""
    of_v = {
        "free_energy": bm.free_energy,
        "hidden": bm.hidden_probabilities,
        "mean_field": bm.mean_field_step,
        "gradients": free_energy_gradients,
    }
    return {
        **{name: jax.vmap(function, (None, 0))(rbm, v) for name, function in of_v.items()},
        "energy": jax.vmap(jax.vmap(bm.energy, (None, None, 0)), (None, 0, None))(rbm, v, h),
        "visible": jax.vmap(bm.visible_probabilities, (None, 0))(rbm, h),
        "log_partition": bm.log_partition_exact(rbm),
    }


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


def assert_close(came, expected, dtype, factor=1):
    tolerance = factor * (3e-6 if dtype == "float32" else 1e-13)
    assert came.dtype == dtype
    np.testing.assert_allclose(came, expected, rtol=tolerance, atol=tolerance)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_bernoulli_machine(dtype):
    rbm = bernoulli_rbm(0, 7, 5, dtype=dtype)
    w, b, c = parameters(rbm)
    truth = enumerate_rbm(w, b, c)
    came = everything(rbm, array(truth.v, dtype), array(truth.h, dtype))
    assert_close(came["energy"], -np.log(truth.joint) - truth.log_z, dtype, 10)
    assert_close(came["free_energy"], -truth.log_p - truth.log_z, dtype, 5)
    assert_close(came["hidden"], truth.hidden_given_visible, dtype)
    on = truth.joint.T @ truth.v / truth.joint.sum(axis=0)[:, None]
    assert_close(came["visible"], on, dtype)
    assert_close(came["mean_field"], sigmoid(truth.hidden_given_visible @ w.T + b), dtype)
    # Of grey inputs, one scalar at a time.
    hidden = [sigmoid(c[j] + sum(0.3 * w[i, j] for i in range(7))) for j in range(5)]
    visible = [sigmoid(b[i] + sum(w[i, j] * hidden[j] for j in range(5))) for i in range(7)]
    grey = everything(rbm, array(np.full((128, 7), 0.3), dtype), array(truth.h, dtype))["mean_field"]
    assert_close(grey, np.tile(visible, (128, 1)), dtype)


def test_potts_machine(dtype):
    w, b, c = random_parameters(1, 9, 4)
    rbm = bm.PottsRBM(*(array(x, dtype) for x in (w, b, c)), n_states=3)
    truth = enumerate_rbm(*parameters(rbm), v=one_hot_states(3, 3))
    assert truth.v.shape == (27, 9)
    came = everything(rbm, array(truth.v, dtype), array(truth.h, dtype))
    assert_close(came["energy"], -np.log(truth.joint) - truth.log_z, dtype, 10)
    assert_close(came["free_energy"], -truth.log_p - truth.log_z, dtype, 5)
    assert_close(came["hidden"], truth.hidden_given_visible, dtype)
    on = truth.joint.T @ truth.v / truth.joint.sum(axis=0)[:, None]
    assert_close(came["visible"], on, dtype)
    assert_close(came["log_partition"], truth.log_z, dtype, 5)


GAUSSIAN_VARIANCE = np.array([0.5, 1.7])


def gaussian_machine(dtype):
    arrays = (*random_parameters(2, 2, 3, 0.7), GAUSSIAN_VARIANCE)
    return gaussian_rbm(*(array(x, dtype) for x in arrays), variance_bounds=(0.2, 3.0))


def grid(n_points=241, width=12.0):
    axis = np.linspace(-width, width, n_points)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2), (axis[1] - axis[0]) ** 2


def test_gaussian_machine_against_quadrature(dtype):
    rbm, variance = gaussian_machine(dtype), GAUSSIAN_VARIANCE
    assert_close(rbm.variance, variance, dtype)
    v, area = grid()
    h = binary_states(3)
    minus_e = negative_energies(*parameters(rbm), v, h, variance)
    few = np.linspace(0, len(v) - 1, 16, dtype=int)
    came = everything(rbm, array(v[few], dtype), array(h, dtype))
    assert_close(came["energy"], -minus_e[few], dtype, 10)
    assert_close(came["free_energy"], -np.logaddexp.reduce(minus_e[few], axis=1), dtype, 10)
    assert_close(came["hidden"], hidden_means(*parameters(rbm), v[few], variance), dtype, 10)
    joint = np.exp(minus_e)  # the trapezoid rule on a wide grid is exact to rounding for normal densities
    assert_close(came["visible"], joint.T @ v / joint.sum(0)[:, None], dtype, 30)
    assert_close(came["log_partition"], np.log(joint.sum() * area), dtype, 30)
    # The spread of v given h is the variance, however the weights are scaled.
    spread = joint.T @ v**2 / joint.sum(0)[:, None] - (joint.T @ v / joint.sum(0)[:, None]) ** 2
    np.testing.assert_allclose(spread, np.broadcast_to(variance, spread.shape), rtol=1e-9)


def test_extreme_inputs_are_finite(dtype):
    """Machines and rows of the sizes above, so that their programs serve."""
    big = 1e4
    w, b, c = (big * x for x in random_parameters(3, 7, 5))
    bernoulli = bm.BernoulliRBM(*(array(x, dtype) for x in (w, b, c)))
    potts = bm.PottsRBM(*(array(big * x, dtype) for x in random_parameters(3, 9, 4)), n_states=3)
    corners = big * np.array([[i, j] for i in (-1, 1, 0.3, -0.5) for j in (-1, 1, 0.7, -0.2)])
    for rbm, v, variance in (
        (bernoulli, binary_states(7), None),
        (potts, one_hot_states(3, 3), None),
        (gaussian_machine(dtype), corners, GAUSSIAN_VARIANCE),
    ):
        h = binary_states(rbm.n_hidden)
        came = everything(rbm, array(v, dtype), array(h, dtype))
        v = np.asarray(array(v, dtype), float)
        minus_e = negative_energies(*parameters(rbm), v, h, variance)
        assert_close(came["free_energy"], -np.logaddexp.reduce(minus_e, axis=1), dtype, 10)
        for leaf in jax.tree.leaves(came["gradients"]):
            assert np.isfinite(leaf).all(), type(rbm)
    for sign in (1, -1):
        ones = np.full((7, 5), sign * big)
        rbm = bm.BernoulliRBM(*(array(x, dtype) for x in (ones, ones[:, 0], ones[0])))
        came = everything(rbm, array(np.ones((128, 7)), dtype), array(binary_states(5), dtype))
        expected = -7e4 - 5 * 8e4 if sign == 1 else 7e4  # softplus(x) is x, or 0
        assert_close(came["free_energy"], np.full(128, expected), dtype)
        assert np.all(np.asarray(came["gradients"][0].weights) == (-1 if sign == 1 else 0))


def test_many_are_the_loop_over_one():
    def both(rbm, v, key):
        return bm.free_energy(rbm, v), bm.gibbs_step(rbm, v, key)

    one, of_rows, of_machines = (
        jax.jit(f) for f in (both, jax.vmap(both, (None, 0, 0)), jax.vmap(both, (0, None, None)))
    )
    machines, v = [bernoulli_rbm(seed, 7, 5) for seed in range(3)], array(binary_states(7)[::19])
    keys = [jax.random.key(i) for i in range(len(v))]
    loop = [one(machines[0], row, key) for row, key in zip(np.asarray(v), keys, strict=True)]
    many = of_rows(machines[0], v, jnp.stack(keys))
    assert_close(many[0], [float(x) for x, _ in loop], "float32")
    np.testing.assert_array_equal(many[1], [x for _, x in loop])
    stacked = jax.tree.map(lambda *leaves: array(np.stack(leaves)), *machines)
    loop = [one(rbm, np.asarray(v)[1], keys[0]) for rbm in machines]
    many = of_machines(stacked, np.asarray(v)[1], keys[0])
    assert_close(many[0], [float(x) for x, _ in loop], "float32")
    np.testing.assert_array_equal(many[1], [x for _, x in loop])


@partial(jax.jit, static_argnums=(0, 2), static_argnames="n_states")
def from_data(kind, data, n_hidden, key, **settings):
    return kind.from_data(data, n_hidden, key, **settings)


def test_base_visible_bias():
    rng = np.random.default_rng(0)
    data = (rng.random((40, 6)) < 0.3).astype("float32")
    data[:, 0], data[:, 1] = 0, 1  # constant pixels
    key = jax.random.key(0)
    rbm = from_data(bm.BernoulliRBM, data, 3, key)
    counts = data.sum(axis=0)
    np.testing.assert_allclose(sigmoid(np.asarray(rbm.visible_bias)), (counts + 1) / 42, rtol=1e-6)
    assert not np.any(rbm.hidden_bias) and 0.003 < np.std(rbm.weights) < 0.03
    colors = np.repeat(np.eye(3, dtype="float32"), [5, 3, 0], axis=0)
    potts = from_data(bm.PottsRBM, colors, 2, key, n_states=3)
    np.testing.assert_allclose(np.exp(potts.visible_bias), [6 / 11, 4 / 11, 1 / 11], rtol=1e-6)
    grey = rng.normal(3, 2, size=(50, 4)).astype("float32")
    grey[:, 0] = 7
    gaussian = from_data(bm.GaussianBernoulliRBM, grey, 2, key)
    np.testing.assert_allclose(gaussian.visible_bias, grey.mean(axis=0), rtol=1e-6)
    (low, _), variance = gaussian.variance_bounds, np.asarray(gaussian.variance)
    np.testing.assert_allclose(variance[1:], grey[:, 1:].var(axis=0), rtol=1e-5)
    assert low < variance[0] < 1.1 * low
