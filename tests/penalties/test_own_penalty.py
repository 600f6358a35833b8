"""A penalty that a user writes, with a proximal operator and nothing else."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from neurojax.convergence import Status
from neurojax.penalties import AbstractProximalPenalty
from neurojax.sparse_coding import ISTA, Dictionary, encode


class OwnL1(AbstractProximalPenalty):
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def prox(self, v, step_size):
        v = jnp.asarray(v)
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - 0.1 * step_size, 0)


def test_a_prox_is_enough_to_infer_and_what_else_is_needed_is_named():
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(12, 8))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    x = rng.normal(size=8).astype(np.float32)

    def code(x, **settings):
        settings = {"solver": ISTA(), "max_steps": 20000, "tol": 1e-6, **settings}
        return encode(Dictionary(atoms), x, OwnL1(), **settings)

    solution = jax.jit(code)(x)
    assert solution.status == Status.converged
    model = Lasso(0.1 / 8, fit_intercept=False, tol=1e-12, max_iter=10**6)
    np.testing.assert_allclose(solution.value, model.fit(atoms.T, x).coef_, atol=1e-3)
    with pytest.raises(ValueError, match=r"got OwnL1, which does not; pass gradient=Detached\(\)"):
        jax.jit(jax.grad(lambda x: code(x).value.sum()))(x)
