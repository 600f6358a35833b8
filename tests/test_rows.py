"""Units and lengths of vectors: values at every scale, and gradients at the origin too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import _rows
from neurojax._compensated import rounded_up
from neurojax._rows import hypot, unit_of
from neurojax.receptive_fields import fit_gabor


def test_lengths_and_their_gradients_are_the_closed_forms():
    x = np.float32([3, -3e-30, 3e30, 0, 0])
    y = np.float32([4, 4e-30, -4e30, -2, 0])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(hypot, (0, 1))))(x, y)
    np.testing.assert_allclose(values, [5, 5e-30, 5e30, 2, 0], rtol=1e-6)
    np.testing.assert_allclose(slopes[0], [0.6, -0.6, 0.6, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(slopes[1], [0.8, 0.8, -0.8, -1, 0], rtol=1e-6)


@pytest.mark.slow
def test_the_amplitude_of_an_atom_of_zeros_has_a_gradient():
    amplitude = jax.jit(jax.value_and_grad(lambda atom: fit_gabor(atom).gabor.amplitude))
    value, slope = amplitude(np.zeros((8, 8), np.float32))
    assert value == 0 and np.isfinite(slope).all()


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.float16, jnp.bfloat16])
def test_units_are_the_powers_of_two_below(dtype, x64):
    info = jnp.finfo(dtype)
    powers = 2.0 ** np.arange(-10, 11)
    numbers = jnp.concatenate([powers, 1.25 * powers, np.array([info.max, info.tiny, 1.9])]).astype(dtype)
    units = unit_of(numbers[:, None], 1)
    assert units.dtype == dtype
    expected = np.ldexp(1.0, np.frexp(np.asarray(numbers, float))[1] - 1)
    np.testing.assert_array_equal(np.asarray(units, float), expected)
    np.testing.assert_array_equal(unit_of(jnp.array([[0], [jnp.inf], [jnp.nan]], dtype), 1), 1)
    assert unit_of(jnp.array([-3, 2], dtype)) == 2


def test_bounds_are_rounded_up_and_hardly():
    numbers = np.float32(10.0) ** np.random.default_rng(0).uniform(-30, 30, 1000).astype(np.float32)
    rounded = np.asarray(rounded_up(jnp.array(numbers), n_bits=12))
    assert np.all(rounded >= numbers) and np.all(rounded <= numbers * (1 + 2.0**-12))
    assert len(np.unique(np.frexp(rounded)[0] * 2**13 % 1)) == 1  # no bits beyond


def test_lengths_in_half_precision_do_not_overflow():
    ones = jnp.ones(20_000, jnp.float16)
    assert _rows.norm(1.99 * ones) == np.float16(1.99 * np.sqrt(20_000))
