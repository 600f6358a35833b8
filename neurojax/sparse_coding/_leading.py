"""Gradients along a dictionary's leading axes: half the products, where half the axes carry nearly all."""

from typing import NamedTuple, cast

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from .._precision import product
from .._proximal import Point, largest_eigenvalue, length
from .._sparsa import NEGLECTED
from .._types import Scalar
from ._problem import SparseCodingProblem

__all__ = ["LeadingAxes", "LeadingProblem", "leading_axes", "with_leading_axes"]

_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: lifts small singular values quickly, to 0.7 … 1.2


class LeadingAxes(NamedTuple):
    """The half of the data space in which a dictionary's atoms have most of their squares.

    Attributes:
        basis: nearly orthonormal columns, none longer than 1.
        atoms: the atoms along them, ``atoms @ basis``.
        lipschitz: an upper estimate of the largest eigenvalue L of atomsᵀ·atoms.
        is_steep: whether outside this half the largest eigenvalue is at most L/8.
    """

    basis: Float[Array, "features axes"]
    atoms: Float[Array, "atoms axes"]
    lipschitz: Scalar
    is_steep: Bool[Array, ""]


def leading_axes(atoms: Float[Array, "atoms features"]) -> LeadingAxes:
    """Find the leading half of the axes, by two rounds of subspace iteration.

    All of it products: a decomposition by LAPACK takes as long, and its threads then get in the way.

    Reference:
        Halko, Martinsson & Tropp 2011, Finding structure with randomness, algorithm 4.4.
    """
    n_features = atoms.shape[1]
    moments = product(atoms.T, atoms)
    start = np.random.default_rng(0).normal(size=(n_features, n_features // 2))
    basis = jnp.asarray(start, atoms.dtype)
    for _ in range(2):
        basis = _orthonormal(product(moments, basis))

    def rest(vector):
        return vector - product(basis, product(vector, basis))

    like = jnp.zeros(n_features, atoms.dtype)
    lipschitz = largest_eigenvalue(lambda v: product(v, moments), like)
    # Not symmetric, but with the eigenvalues of atoms (I − basis·basisᵀ) atomsᵀ, beside zeros.
    outside = largest_eigenvalue(lambda v: rest(product(v, moments)), like)
    return LeadingAxes(basis, product(atoms, basis), lipschitz, outside <= NEGLECTED * lipschitz)


def _orthonormal(columns: Float[Array, "features axes"]) -> Float[Array, "features axes"]:
    """Return the polar factor of ``columns``, by Newton and Schulz's iteration; it comes from below."""

    def quintic(_, y):
        gram = product(y.T, y)
        return _QUINTIC[0] * y + product(y, _QUINTIC[1] * gram + _QUINTIC[2] * product(gram, gram))

    def cubic(_, y):
        return 1.5 * y - 0.5 * product(y, product(y.T, y))

    size = length(columns)
    columns = columns / jnp.where(size > 0, size, 1)
    columns = lax.fori_loop(0, 6, quintic, columns)
    return lax.fori_loop(0, 4, cubic, columns / 1.3)


class LeadingProblem(SparseCodingProblem):
    """A sparse-coding problem that takes gradients near a point along the leading axes alone.

    Natural images have most of their variance along few axes, and so have dictionaries learned from them:
    half the axes hold all but a few hundredths of what a step changes in the gradient. Where that is not so,
    gradients near a point are exact. Points are.

    Attributes:
        axes: the leading axes.
        leading: x along them.
    """

    axes: LeadingAxes
    leading: Float[Array, " axes"]

    def point(self, value: Float[Array, "*code"]) -> Point:
        """Evaluate ½‖x − value·atoms‖²."""
        error = self.dictionary.reconstruct(value) - self.x
        return Point(value, self.dictionary.correlate(error), error, product(error, self.axes.basis))

    def point_at_zero(self) -> Point:
        """Evaluate at the zero code, without a product."""
        return super().point_at_zero()._replace(leading=-self.leading)

    def point_near(self, point: Point, value: Float[Array, "*code"]) -> Point:
        """Evaluate at ``value``, with the gradient's change from ``point`` along the leading axes alone."""
        atoms = self.axes.atoms

        def along_leading():
            leading = product(value, atoms) - self.leading
            return leading, product(leading - _leading(point), atoms.T)

        def exactly():
            exact = self.point(value)
            return _leading(exact), exact.gradient - point.gradient

        leading, change = lax.cond(self.axes.is_steep, along_leading, exactly)
        return Point(value, point.gradient + change, leading=leading)

    def bending(self, old: Point, new: Point) -> Scalar:
        """Return ‖d·atoms‖² for the step d between two points, where it is so along the leading axes."""
        along = lambda: jnp.sum((_leading(new) - _leading(old)) ** 2)  # noqa: E731
        exactly = lambda: jnp.sum((new.value - old.value) * (new.gradient - old.gradient))  # noqa: E731
        return lax.cond(self.axes.is_steep, along, exactly)


def _leading(point: Point) -> Array:
    return cast(Array, point.leading)  # a LeadingProblem's points have it


def with_leading_axes(problem: SparseCodingProblem, axes: LeadingAxes, leading: Array) -> LeadingProblem:
    """Return ``problem`` with gradients along the leading axes; ``leading`` is its x along them."""
    return LeadingProblem(**vars(problem), axes=axes, leading=leading)
