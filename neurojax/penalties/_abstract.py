"""What a penalty is: interfaces for its value and its proximal operator."""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, Real

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


class AbstractValuedPenalty(AbstractPenalty):
    """A penalty that has a value."""

    @abstractmethod
    def value(self, code: Float[ArrayLike, "*shape"]) -> Scalar:
        """Return the penalty of ``code``, summed over all its entries, in its dtype."""


class AbstractProximalPenalty(AbstractPenalty):
    """A penalty whose proximal operator has a closed form."""

    @abstractmethod
    def prox(self, v: Float[ArrayLike, "*shape"], step_size: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Return argmin_u ½‖u − v‖² + step_size·value(u)."""
