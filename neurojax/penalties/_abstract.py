"""Interfaces of penalties: what a penalty may answer, and what is refused where it does not."""

from abc import abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._arrays import real_array
from .._final import check_bases
from .._types import Scalar

__all__ = [
    "AbstractCertifiedPenalty",
    "AbstractPenalty",
    "AbstractProximalPenalty",
    "AbstractValuedPenalty",
    "Certificate",
]


class Certificate(NamedTuple):
    """The terms of a penalty g in the duality gap of ½‖r‖² + g(z), with the data's error r and its code z.

    The gap is ½(1 − s)²‖r‖² + rest: the energy is above its minimum by that at most. With c the correlation
    of r with the atoms, it is the gap to the dual point s·r.

    Attributes:
        scale: s in [0, 1], 1 at a solution.
        rest: a sum of non-negative terms, at least g(z) + g*(s·c) − s⟨z, c⟩ with the conjugate g*, and 0
            at a solution; infinite where the penalty forbids the code.
        can_close: whether the gap falls to 0 at a solution, as it need not where a strength is 0.

    ``scale`` and ``rest`` may also be several numbers, one for each of several dual points. The first is that
    of ordinary data; all count, by the least gap, where ``conjugate_bound`` says that no code takes much off
    the energy of the data.
    """

    scale: Float[Array, "*points"]
    rest: Float[Array, "*points"]
    can_close: Bool[Array, ""]

    def gap(self, squared_error: Scalar) -> Scalar:
        """Return the duality gap, from ‖r‖²."""
        return jnp.min(0.5 * (1 - self.scale) ** 2 * squared_error + self.rest)


class AbstractPenalty(eqx.Module):
    """A function of a code that says what a good code is.

    A penalty answers for itself. With a ``prox`` alone it can be minimized. Whatever else a method needs of
    it, and it does not answer, is refused by name. Concrete penalties are final: a subclass of one raises
    ``TypeError`` when it is defined, for what is known of L1, such as its duality gap, need not be true of
    a class derived from it.

    Attributes:
        is_smooth: whether the value is differentiable everywhere.
        is_separable: whether the value is a sum over coefficients.
    """

    is_smooth: eqx.AbstractClassVar[bool]
    is_separable: eqx.AbstractClassVar[bool]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        check_bases(cls, AbstractPenalty)

    def gradient(self, code: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return the derivative of the penalty at ``code``, meant where that exists: along the tangent.

        `convergence.Implicit`, `sparse_coding.LCA` and `sparse_coding.Gradient` need it.

        Raises:
            ValueError: here, for a penalty of one's own that has neither a value nor this.
        """
        raise ValueError(f"penalty: expected one with a gradient, got {type(self).__name__}, which has none.")

    def support(self, code: Float[ArrayLike, "*shape"]) -> Bool[Array, "*shape"]:
        """Return which coefficients of a solution move when the problem does.

        All of them for a smooth penalty; else those that are not held at a kink: the non-zero ones, the
        groups that are not zero, and all whose strength is 0 (unless a constraint holds them).

        Raises:
            ValueError: here, for a penalty of one's own that is not smooth and does not say.
        """
        if self.is_smooth:
            return jnp.ones_like(real_array("code", code), bool)
        kind = type(self).__name__
        raise ValueError(
            "gradient: Implicit expected a penalty that says which coefficients of a code move (support), "
            f"got {kind}, which does not; pass gradient=Detached() for codes that are constants, or "
            "Unrolled() to differentiate the solver's steps."
        )

    def tangent(self, code: Float[ArrayLike, "*shape"]) -> Callable[[Array], Array]:
        """Return the orthogonal projector onto the directions in which a solution moves.

        `convergence.Implicit` rests on it. Here it keeps what is on the ``support``; a penalty that ties
        coefficients to each other, as `SLOPE` does, has a projector of its own.
        """
        support = self.support(code)
        return lambda direction: jnp.where(support, real_array("direction", direction), 0)

    def in_units(self, unit: Scalar) -> "AbstractPenalty | None":
        """Return the penalty p with unit²·p(z/unit) = self(z), under which x/unit has the code z/unit.

        In the unit of the data, squares of data of any scale are in the range of numbers. ``None``, as here,
        for a penalty that does not say: the data are then taken as they are.
        """
        del unit
        return None


class AbstractValuedPenalty(AbstractPenalty):
    """A penalty that has a value."""

    @abstractmethod
    def value(self, code: Float[ArrayLike, "*shape"]) -> Scalar:
        """Return the penalty of ``code``, summed over all its entries: in its dtype, float32 at least."""

    def gradient(self, code: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return ∇value(code)."""
        return jax.grad(self.value)(real_array("code", code))


class AbstractProximalPenalty(AbstractPenalty):
    """A penalty whose proximal operator has a closed form."""

    @abstractmethod
    def prox(self, v: Float[ArrayLike, "*shape"], step_size: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Return argmin_u ½‖u − v‖² + step_size·value(u)."""


class AbstractCertifiedPenalty(AbstractValuedPenalty, AbstractProximalPenalty):
    """A convex penalty that bounds how far a code is from the minimum, by a duality gap."""

    @abstractmethod
    def certificate(self, code: Float[Array, "*shape"], correlation: Float[Array, "*shape"]) -> Certificate:
        """Return the penalty's part of the gap at a code.

        Args:
            code: z.
            correlation: c, the negative gradient of the data term at z.
        """

    def conjugate_bound(self, correlation: Float[Array, "*shape"]) -> Scalar:
        """Return a bound on sup_z ⟨correlation, z⟩ − value(z); here infinity, which is always one.

        At the correlation of the data it bounds what any code can take off the energy of the zero code: the
        energy that gaps are relative to, if it is less than ½‖x‖².
        """
        return jnp.full((), jnp.inf, correlation.dtype)
