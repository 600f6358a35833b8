"""Pytrees as vectors: what solvers, who know arrays only, see of a tree of values and of its penalties."""

from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._types import Scalar
from ..penalties import AbstractPenalty, AbstractProximalPenalty, AbstractValuedPenalty
from ._problem import require_prox, require_value
from ._smooth import AbstractSmooth

__all__ = ["Layout", "NoPenalty", "OfLeaves", "OfTree", "penalty_of_each"]

Vector = Float[Array, " entries"]


@dataclass(frozen=True)
class Layout:
    """The places of a tree's leaves in a vector, by its structure and their shapes."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tree: Any) -> "Layout":
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(leaf.shape for leaf in leaves))

    def flatten(self, tree: Any) -> Vector:
        return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])

    def leaves(self, vector: Vector) -> list[Array]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        parts = jnp.split(vector, ends)
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def tree(self, vector: Vector) -> Any:
        return jax.tree.unflatten(self.structure, self.leaves(vector))


class NoPenalty(AbstractValuedPenalty, AbstractProximalPenalty):
    """No penalty at all: what ``None`` stands for."""

    is_smooth: ClassVar[bool] = True
    is_separable: ClassVar[bool] = True

    def value(self, code: Array) -> Scalar:
        """Return 0."""
        return jnp.zeros((), code.dtype)

    def gradient(self, code: Array) -> Array:
        """Return zeros."""
        return jnp.zeros_like(code)

    def prox(self, v: Array, step_size: Any) -> Array:
        """Return ``v``."""
        del step_size
        return v

    def in_units(self, unit: Scalar) -> "NoPenalty":
        """Return the same."""
        del unit
        return self


class OfTree(AbstractSmooth):
    """A smooth term of a tree, as one of a vector."""

    smooth: AbstractSmooth
    layout: Layout = eqx.field(static=True)

    def value(self, z: Vector) -> Scalar:
        return self.smooth.value(self.layout.tree(z))

    def gradient(self, z: Vector) -> Vector:
        if type(self.smooth).gradient is AbstractSmooth.gradient:
            return super().gradient(z)
        return self.layout.flatten(self.smooth.gradient(self.layout.tree(z)))

    def curvature_bound(self, like: Vector) -> Scalar | None:
        return self.smooth.curvature_bound(self.layout.tree(like))


class OfLeaves(AbstractValuedPenalty, AbstractProximalPenalty):
    """A penalty for each leaf of a tree, as one of a vector."""

    penalties: tuple[AbstractPenalty, ...]
    layout: Layout = eqx.field(static=True)
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def value(self, code: Vector) -> Scalar:
        pairs = self._pairs(code)
        return sum((require_value("penalty", p).value(leaf) for p, leaf in pairs), jnp.zeros((), code.dtype))

    def gradient(self, code: Vector) -> Vector:
        return self.layout.flatten([penalty.gradient(leaf) for penalty, leaf in self._pairs(code)])

    def prox(self, v: Vector, step_size: Any) -> Vector:
        pairs = self._pairs(v)
        return self.layout.flatten([require_prox("penalty", p).prox(leaf, step_size) for p, leaf in pairs])

    def support(self, code: Vector) -> Bool[Array, " entries"]:
        return self.layout.flatten([penalty.support(leaf) for penalty, leaf in self._pairs(code)])

    def tangent(self, code: Vector):
        projectors = [penalty.tangent(leaf) for penalty, leaf in self._pairs(code)]

        def project(direction: Vector) -> Vector:
            leaves = self.layout.leaves(direction)
            return self.layout.flatten([p(leaf) for p, leaf in zip(projectors, leaves, strict=True)])

        return project

    def _pairs(self, vector: Vector):
        return list(zip(self.penalties, self.layout.leaves(vector), strict=True))


def penalty_of_each(penalty: Any, tree: Any) -> tuple[AbstractPenalty, ...]:
    """Return the penalty of each leaf, from one for all or a tree of them that is a prefix of the value's."""

    def is_penalty(node: Any) -> bool:
        return node is None or isinstance(node, AbstractPenalty)

    try:
        spread = jax.tree.map(
            lambda one, part: jax.tree.map(lambda _: NoPenalty() if one is None else one, part),
            penalty,
            tree,
            is_leaf=is_penalty,
        )
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"penalty: expected one penalty, None, or a tree of these that is a prefix of init, got {error}."
        ) from error
    found = jax.tree.leaves(spread, is_leaf=is_penalty)
    for one in found:
        if not isinstance(one, AbstractPenalty):
            raise ValueError(f"penalty: expected penalties or None, got {type(one).__name__}.")
    return tuple(found)
