"""Independent components are constants: no derivative reaches the data."""

import jax
import jax.numpy as jnp
import numpy as np

from neurojax.decomposition import fast_ica


def test_no_derivative_of_independent_components_reaches_the_data():
    xs = jnp.asarray(np.random.default_rng(0).uniform(size=(50, 2)), jnp.float32)

    def total(xs):
        found = fast_ica(xs, jax.random.key(0), max_steps=5)
        return jnp.sum(found.mean) + jnp.sum(found.components) + jnp.sum(found.mixing)

    np.testing.assert_array_equal(jax.grad(total)(xs), 0)
