"""A penalty that a user writes, with a proximal operator and nothing else."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.convergence import Implicit, Status
from neurojax.penalties import L1, AbstractProximalPenalty
from neurojax.sparse_coding import ISTA, encode, random_dictionary


class OwnL1(AbstractProximalPenalty):
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def prox(self, v, step_size):
        v = jnp.asarray(v)
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - 0.1 * step_size, 0)


def test_a_prox_is_enough_to_infer_and_what_else_is_needed_is_named():
    dictionary = random_dictionary(jax.random.key(0), 12, 8)
    x = jax.random.normal(jax.random.key(1), (8,))
    settings = {"solver": ISTA(), "max_steps": 20000}
    solution = encode(dictionary, x, OwnL1(), tol=1e-6, **settings)
    assert solution.status == Status.converged
    expected = encode(dictionary, x, L1(0.1), tol=1e-6, **settings).value
    np.testing.assert_allclose(solution.value, expected, atol=1e-3)
    with pytest.raises(ValueError, match="expected one with a gradient, got OwnL1"):
        jax.grad(lambda x: encode(dictionary, x, OwnL1(), gradient=Implicit(), **settings).value.sum())(x)
