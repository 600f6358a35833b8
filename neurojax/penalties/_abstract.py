"""What a penalty is: interfaces for its value, its gradient and its proximal operator."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from neurojax._types import Scalar

__all__ = ["AbstractPenalty", "AbstractProximalPenalty", "AbstractValuedPenalty"]


class AbstractPenalty(eqx.Module):
    """A function of a code that says what a good code is.

    Attributes:
        is_smooth: whether the value is differentiable everywhere.
        is_separable: whether the value is a sum over coefficients.
    """

    is_smooth: eqx.AbstractClassVar[bool]
    is_separable: eqx.AbstractClassVar[bool]

    def gradient(self, code: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative of the penalty at ``code``, meant where that exists: on the support.

        `convergence.Implicit`, `sparse_coding.LCA` and `sparse_coding.Gradient` need it.

        Raises:
            ValueError: here, for a penalty of one's own that has neither a value nor this.
        """
        raise ValueError(f"penalty: expected one with a gradient, got {type(self).__name__}, which has none.")

    def support(self, code: Float[ArrayLike, "*shape"]) -> Bool[Array, "*shape"]:
        """Return which coefficients of a solution move when the problem does.

        All of them for a smooth penalty; else those that are not held at a kink: the non-zero ones, the
        groups that are not zero, and all whose strength is 0 (unless a constraint holds them). Here: all, or
        the non-zero ones.
        """
        code = jnp.asarray(code)
        return jnp.ones_like(code, bool) if self.is_smooth else code != 0


class AbstractValuedPenalty(AbstractPenalty):
    """A penalty that has a value."""

    @abstractmethod
    def value(self, code: Float[ArrayLike, "*shape"]) -> Scalar:
        """Return the penalty of ``code``, summed over all its entries, in its dtype."""

    def gradient(self, code: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return ∇value(code)."""
        return jax.grad(self.value)(jnp.asarray(code))


class AbstractProximalPenalty(AbstractPenalty):
    """A penalty whose proximal operator has a closed form."""

    @abstractmethod
    def prox(self, v: Float[ArrayLike, "*shape"], step_size: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Return argmin_u ½‖u − v‖² + step_size·value(u)."""
