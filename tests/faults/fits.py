"""Fits of neural coding: each fault that was found, with the input that showed it and the right value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import penalties
from neurojax.convergence import Status
from neurojax.neural_coding import (
    AngleBins,
    GaussianDecoder,
    SinCosRidge,
    fit_multinomial,
    fit_poisson,
    fit_von_mises_batch,
    linear_baseline,
    ridge,
)

RNG = np.random.default_rng(0)
ON = np.repeat([1.0, 0.0], [50, 150])[:, None].astype(np.float32)
SPIKES = np.r_[np.zeros(50), RNG.poisson(2, 150)].astype(np.float32)

fit_neuron = jax.jit(fit_poisson, static_argnames=("nonlinearity", "tol"))
fit_classes = jax.jit(fit_multinomial, static_argnames="n_classes")


@pytest.mark.parametrize("nonlinearity", ["exp", "softplus"])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_A10_a_feature_that_is_on_only_where_no_spike_came(tol, nonlinearity):
    """The optimal weight is −∞: more weight always lowers the rate where there was no spike."""
    assert fit_neuron(ON, SPIKES, tol=tol, nonlinearity=nonlinearity).status == Status.unbounded
    one_spike = SPIKES.copy()
    one_spike[7] = 1  # the optimum is finite: the mean count where the feature is on is 1/50
    found = fit_neuron(ON, one_spike, tol=tol, nonlinearity=nonlinearity)
    assert found.status == Status.converged
    if nonlinearity == "exp" and tol == 1e-5:
        expected = np.log(1 / 50) - np.log(SPIKES[50:].mean())
        np.testing.assert_allclose(found.model.weights, [expected], rtol=1e-3)


def test_A10_a_penalty_holds_the_weights():
    bounded = penalties.ElasticNet(0.0, 0.01)
    assert fit_neuron(ON, SPIKES, bounded).status == Status.converged
    assert fit_neuron(ON, SPIKES, penalties.ElasticNet(0.0, 0.0)).status == Status.unbounded


def test_A10_a_neuron_without_spikes():
    assert fit_neuron(ON, np.zeros(200, np.float32)).status == Status.nonfinite


def test_A10_classes_that_can_be_told_apart_without_a_penalty():
    xs = np.array([[-2.0], [-1.0], [1.0], [2.0]], np.float32)
    for classes, expected in (([0, 0, 1, 1], Status.unbounded), ([0, 1, 0, 1], Status.converged)):
        found = fit_classes(xs, np.array(classes), n_classes=2, penalty=penalties.L1(0.0))
        assert found.status == expected
        bounded = fit_classes(xs, np.array(classes), n_classes=2, penalty=penalties.ElasticNet(0.0, 0.1))
        assert bounded.status == Status.converged


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_B26_equal_columns_share_their_weight(form):
    independent = RNG.normal(size=(30, 3)).astype(np.float32)
    xs, ys = independent[:, [0, 1, 2, 0]], independent.sum(1, keepdims=True)
    fitted = jax.jit(ridge, static_argnames="form")(xs, ys, 1e-6, form=form)
    # What is common to equal columns is sharp; their difference is rounding over the least λ, 3e-5.
    np.testing.assert_allclose(fitted.weights[:, 0], [0.5, 1, 1, 0.5], atol=3e-3)
    np.testing.assert_allclose(fitted.weights[0] + fitted.weights[3], 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_B26_a_linear_baseline_of_constant_inputs_is_the_mean(value):
    inputs, responses = np.full((30, 4), value, np.float32), RNG.normal(size=(30, 2)).astype(np.float32)
    found = jax.jit(linear_baseline)(inputs, responses, inputs[:3])
    np.testing.assert_allclose(found, np.tile(responses.mean(0), (3, 1)), rtol=1e-4)
    assert np.all(jnp.isfinite(linear_baseline(inputs, responses, inputs[:3])))


@pytest.mark.slow
def test_B23_B24_fits_of_other_byte_orders_lists_and_double_precision(untyped):
    expected = fit_poisson(ON, SPIKES, penalties.ElasticNet(0.0, 0.1)).model
    others = [(ON.astype(">f4"), SPIKES.astype(">f8")), (ON.tolist(), SPIKES.astype(int).tolist())]
    for xs, counts in [*others, (ON.astype(float), SPIKES)]:
        found = fit_poisson(xs, counts, penalties.ElasticNet(0.0, 0.1)).model
        np.testing.assert_array_equal(found.weights, expected.weights)
        np.testing.assert_array_equal(found.bias, expected.bias)
    curves, angles = RNG.uniform(1, 2, (3, 12)).astype(np.float32), np.arange(0, 360, 30.0)
    one, other = fit_von_mises_batch(curves, angles), fit_von_mises_batch(curves.astype(">f4"), angles)
    np.testing.assert_array_equal(one.r_squared, other.r_squared)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_B20_decoders_and_fits_of_half_precision_compute_in_float32(dtype):
    angles = jnp.arange(0, 360, 22.5)
    responses = jnp.round(4 + 4 * jnp.cos(jnp.deg2rad(angles[:, None] - jnp.array([0.0, 100, 250]))), 1)
    half = responses.astype(dtype)
    for decoder in (SinCosRidge(), GaussianDecoder(AngleBins(4))):
        wide, found = decoder.fit(half.astype(jnp.float32), angles), decoder.fit(half, angles)
        np.testing.assert_allclose(found.predict(half[3]), wide.predict(half[3].astype(jnp.float32)))
    fitted = ridge(half, half[:, :1], 0.1)
    assert fitted.weights.dtype == jnp.float32 and np.isfinite(fitted.weights).all()
