"""Baselines of encoders, restated in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neurojax.neural_coding import linear_baseline, null_baseline, paired_mean_baseline, repeat_mean_baseline

RNG = np.random.default_rng(0)


def test_null_is_the_mean(x64):
    responses = RNG.normal(size=(12, 3))
    np.testing.assert_allclose(null_baseline(responses), np.tile(responses.mean(0), (12, 1)), rtol=1e-13)


@pytest.mark.parametrize("n_repeats", [2, 5])
def test_repeat_mean_leaves_the_repeat_out(x64, n_repeats):
    responses = RNG.normal(size=(n_repeats, 4, 3))
    expected = [np.delete(responses, k, axis=0).mean(0) for k in range(n_repeats)]
    np.testing.assert_allclose(repeat_mean_baseline(responses), expected, atol=1e-13)


@pytest.mark.parametrize(
    "angles", [np.arange(12) * 30.0, np.arange(-180, 180, 30.0), np.arange(12) * 30.0 + 359.9999]
)
def test_paired_mean_is_the_mean_of_opposites(angles):
    order = RNG.permutation(12)
    responses = RNG.normal(size=(12, 3)).astype(np.float32)
    expected = np.empty((12, 3), np.float32)
    expected[order] = (responses[order] + responses[np.roll(order, 6)]) / 2
    shown = np.empty(12)
    shown[order] = angles
    found = paired_mean_baseline(responses, shown)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # What no model of the image can tell: the best it can do is the same at θ and at θ + 180°.
    np.testing.assert_array_equal(found[order], found[np.roll(order, 6)])


def test_paired_mean_needs_opposites(untyped):
    with pytest.raises(
        ValueError, match="angles_degrees: expected each angle with one opposite, got 90 with 0"
    ):
        paired_mean_baseline(jnp.zeros((3, 2)), jnp.array([0.0, 180.0, 90.0]))
    with pytest.raises(ValueError, match="got 0 with 2; average repeats first"):
        paired_mean_baseline(jnp.zeros((3, 2)), jnp.array([0.0, 180.0, 540.0]))
    with pytest.raises(ValueError, match="angles_degrees: expected 3 angles, one for each stimulus"):
        paired_mean_baseline(jnp.zeros((3, 2)), jnp.array([0.0, 180.0]))
    with pytest.raises(ValueError, match="number of repeats: expected a whole number ≥ 2, got 1"):
        repeat_mean_baseline(jnp.zeros((1, 3, 2)))


def test_linear_is_ridge_relative_to_the_inputs(x64):
    inputs, new = RNG.normal(1, 2, (15, 8)), RNG.normal(1, 2, (4, 8))
    responses = RNG.normal(size=(15, 3))
    alpha = 0.3 * np.mean(np.sum((inputs - inputs.mean(0)) ** 2, axis=1))
    expected = Ridge(alpha=alpha, solver="cholesky").fit(inputs, responses).predict(new)
    found = jax.jit(linear_baseline, static_argnames="strength")(inputs, responses, new, strength=0.3)
    np.testing.assert_allclose(found, expected, atol=1e-12)
