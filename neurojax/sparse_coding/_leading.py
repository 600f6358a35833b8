"""Gradients along a dictionary's leading axes: half the products, where half the axes carry nearly all."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from .._precision import product
from .._rows import norm
from .._types import Scalar
from ..proximal import AbstractSmooth, LeastSquares, Misfit, Point, largest_eigenvalue
from ..proximal._sparsa import NEGLECTED

__all__ = ["LeadingAxes", "LeadingSquares", "leading_axes"]

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

    lipschitz = largest_eigenvalue(lambda v: product(v, moments), jnp.zeros(n_features, atoms.dtype))
    # Of atoms (I − basis·basisᵀ) atomsᵀ.
    outside = largest_eigenvalue(lambda u: product(rest(product(u, atoms)), atoms.T), atoms[:, 0])
    return LeadingAxes(basis, product(atoms, basis), lipschitz, outside <= NEGLECTED * lipschitz)


def _orthonormal(columns: Float[Array, "features axes"]) -> Float[Array, "features axes"]:
    """Return the polar factor of ``columns``, by Newton and Schulz's iteration; it comes from below."""

    def quintic(_, y):
        gram = product(y.T, y)
        return _QUINTIC[0] * y + product(y, _QUINTIC[1] * gram + _QUINTIC[2] * product(gram, gram))

    def cubic(_, y):
        return 1.5 * y - 0.5 * product(y, product(y.T, y))

    size = norm(columns)
    columns = columns / jnp.where(size > 0, size, 1)
    columns = lax.fori_loop(0, 6, quintic, columns)
    return lax.fori_loop(0, 4, cubic, columns / 1.3)


class LeadingSquares(AbstractSmooth):
    """½‖x − z @ atoms‖², which takes gradients near a point along the leading axes alone.

    Natural images have most of their variance along few axes, and so have dictionaries learned from them:
    half the axes hold all but a few hundredths of what a step changes in the gradient. Where that is not so,
    gradients near a point are exact. Points are.

    A point keeps its error, and the part of it along the axes, which is known near a point too.

    Attributes:
        squares: the term itself.
        axes: the leading axes.
        leading: x along them.
    """

    squares: LeastSquares
    axes: LeadingAxes
    leading: Float[Array, " axes"]

    def value(self, z: Float[Array, " atoms"]) -> Scalar:
        """Return ½‖x − z @ atoms‖²."""
        return self.squares.value(z)

    def gradient(self, z: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Return the gradient, exactly."""
        return self.squares.gradient(z)

    def gradient_at_zero(self, like: Float[Array, " atoms"]) -> Float[Array, " atoms"]:
        """Return −x @ atomsᵀ."""
        return self.squares.gradient_at_zero(like)

    def curvature_bound(self, like: Float[Array, " atoms"]) -> Scalar:
        """Return L."""
        del like
        return self.axes.lipschitz

    def point(self, z: Float[Array, " atoms"]) -> Point:
        """Evaluate exactly."""
        point = self.squares.exact_point(z)
        return point._replace(kept=(point.kept, product(point.kept, self.axes.basis)))

    def point_at_zero(self) -> Point:
        """Evaluate at the zero code, without a product."""
        point = self.squares.point_at_zero()
        return point._replace(kept=(point.kept, -self.leading))

    def point_near(self, point: Point, z: Float[Array, " atoms"]) -> Point:
        """Evaluate at ``z``, with the gradient's change from ``point`` along the leading axes alone."""
        atoms = self.axes.atoms

        def along_leading():
            leading = product(z, atoms) - self.leading
            return leading, product(leading - point.kept[1], atoms.T)

        def exactly():
            exact = self.point(z)
            return exact.kept[1], exact.gradient - point.gradient

        leading, change = lax.cond(self.axes.is_steep, along_leading, exactly)
        return Point(z, point.gradient + change, (None, leading))

    def value_at(self, point: Point) -> Scalar:
        """Return the value at an exact point, less that at 0."""
        return self.squares.value_at(point._replace(kept=point.kept[0]))

    def curvature_between(self, old: Point, new: Point, unit: Scalar) -> Scalar:
        """Return ‖d @ atoms‖²/unit² for the step d between points, along the axes if they are steep."""
        along = lambda: jnp.sum(((new.kept[1] - old.kept[1]) / unit) ** 2)  # noqa: E731
        exactly = lambda: AbstractSmooth.curvature_between(self, old, new, unit)  # noqa: E731
        return lax.cond(self.axes.is_steep, along, exactly)

    def misfit(self, point: Point, unit: Scalar | None = None) -> Misfit:
        """Return the terms of a duality gap, at an exact point."""
        return self.squares.misfit(point._replace(kept=point.kept[0]), unit)

    def unit(self) -> Scalar:
        """Return the power of two near the largest entry of x."""
        return self.squares.unit()
