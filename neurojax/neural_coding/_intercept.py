"""A penalty on weights that leaves their intercept alone."""

from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._types import Scalar
from ..penalties import AbstractProximalPenalty, AbstractValuedPenalty

__all__ = ["OnWeights", "with_intercept"]


def with_intercept(xs: Float[Array, "*samples features"]) -> Float[Array, "*samples inputs"]:
    """Append a 1 to each sample, for the intercept."""
    return jnp.concatenate([xs, jnp.ones((*xs.shape[:-1], 1), xs.dtype)], axis=-1)


class OnWeights(AbstractValuedPenalty, AbstractProximalPenalty):
    """A penalty on all entries of the first axis but the last, which is the intercept.

    Attributes:
        penalty: with a proximal operator; its strengths broadcast against the weights.
    """

    penalty: AbstractProximalPenalty
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def value(self, code: Float[ArrayLike, "inputs *targets"]) -> Scalar:
        """Return the penalty of the weights."""
        return self.penalty.value(jnp.asarray(code)[:-1])  # type: ignore[attr-defined]

    def gradient(self, code: Float[ArrayLike, "inputs *targets"]) -> Float[Array, "inputs *targets"]:
        """Return the penalty's gradient, 0 for the intercept."""
        code = jnp.asarray(code)
        return _joined(self.penalty.gradient(code[:-1]), jnp.zeros_like(code[-1:]))

    def prox(
        self, v: Float[ArrayLike, "inputs *targets"], step_size: Real[ArrayLike, ""]
    ) -> Float[Array, "inputs *targets"]:
        """Apply the operator to the weights."""
        v = jnp.asarray(v)
        return _joined(self.penalty.prox(v[:-1], step_size), v[-1:])

    def tangent(self, code: Float[ArrayLike, "inputs *targets"]) -> Callable[[Array], Array]:
        """Return the projector of the weights, which leaves the intercept free."""
        project = self.penalty.tangent(jnp.asarray(code)[:-1])
        return lambda direction: _joined(project(direction[:-1]), direction[-1:])

    def support(self, code: Float[ArrayLike, "inputs *targets"]) -> Bool[Array, "inputs *targets"]:
        """Return the support of the weights, and the intercept."""
        code = jnp.asarray(code)
        return _joined(self.penalty.support(code[:-1]), jnp.ones_like(code[-1:], bool))


def _joined(weights, intercept):
    return jnp.concatenate([weights, intercept.astype(weights.dtype)])
