"""The data term of linear models: half a weighted sum of squares."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_nonnegative, check_shape
from .._precision import product
from .._rows import unit_of
from .._trees import bounded
from .._types import Scalar
from ._eigenvalue import squared_norm
from ._smooth import AbstractSmooth, Misfit, Point

__all__ = ["AbstractLinearMap", "LeastSquares", "Matrix", "checked_weights", "weights_array", "without_lost"]


class AbstractLinearMap(eqx.Module):
    """A linear map z ↦ A z between arrays of any shapes, and its transpose."""

    @abstractmethod
    def apply(self, z: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return A z."""

    @abstractmethod
    def transpose(self, y: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return Aᵀ y."""


class Matrix(AbstractLinearMap):
    """A matrix: z ↦ A @ z.

    Attributes:
        matrix: A.
    """

    matrix: Float[Array, "outputs inputs"] = eqx.field(converter=partial(real_array, "matrix"))

    def apply(self, z: Float[ArrayLike, " inputs *columns"]) -> Float[Array, " outputs *columns"]:
        """Return A @ z."""
        return product(self.matrix, real_array("z", z))

    def transpose(self, y: Float[ArrayLike, " outputs *columns"]) -> Float[Array, " inputs *columns"]:
        """Return Aᵀ @ y."""
        return product(self.matrix.T, real_array("y", y))


class LeastSquares(AbstractSmooth):
    """Half a weighted sum of squares: f(z) = ½ Σ w·(A z − y)².

    Args:
        matrix: A, or an `AbstractLinearMap`.
        target: y.
        weights: w ≥ 0, of the target's shape; ``None``: 1. An entry of weight 0 may be NaN: it is
            missing.
        gram: the matrix AᵀA of rows z ↦ z @ AᵀA, where it is the cheaper way to the gradient; not with
            weights. Derivatives in A pass through it too, so compute it from A inside what is differentiated.

    Attributes:
        map: A.
        target: y, 0 where it is missing.
        weights: w, or ``None``.
        drive: Aᵀ(w·y).
        gram: AᵀA, or ``None``.

    Raises:
        ValueError: for weights of another shape than the target, and for concrete ones that are negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.proximal import LeastSquares, minimize
        >>> smooth = LeastSquares(jnp.eye(2), jnp.array([3.0, -0.2]))
        >>> minimize(smooth, L1(0.5), jnp.zeros(2)).value.tolist()
        [2.5, 0.0]
    """

    map: AbstractLinearMap
    target: Float[Array, "*data"]
    weights: Float[Array, "*data"] | None
    drive: Float[Array, "*code"]
    gram: Float[Array, "code code"] | None

    def __init__(
        self,
        matrix: Float[ArrayLike, "outputs inputs"] | AbstractLinearMap,
        target: Float[ArrayLike, "*data"],
        weights: Float[ArrayLike, "*data"] | None = None,
        *,
        gram: Float[Array, "code code"] | None = None,
    ):
        target = real_array("target", target)
        if weights is not None and gram is not None:
            raise ValueError("gram: expected None beside weights, of which it knows nothing, got a matrix.")
        self.map = matrix if isinstance(matrix, AbstractLinearMap) else Matrix(matrix)
        self.weights, self.target, self.gram = None, target, gram
        if weights is not None:
            self.target, self.weights = without_lost(target, checked_weights("weights", weights, target))
        # Zero times NaN is NaN: through a broken datum the derivative of the whole map would be.
        is_sound = jnp.all(jnp.isfinite(self.target))
        self.drive = jnp.where(is_sound, self.map.transpose(self._weighted(bounded(self.target))), jnp.nan)
        image = jax.eval_shape(self.map.apply, self.drive).shape
        check_shape("target", self.target, image, "that of A z")

    def value(self, z: Float[Array, "*code"]) -> Scalar:
        """Return ½ Σ w·(A z − y)²."""
        error = self.map.apply(z) - self.target
        return 0.5 * jnp.sum(self._weighted(error) * error)

    def gradient(self, z: Float[Array, "*code"]) -> Float[Array, "*code"]:
        """Return Aᵀ(w·(A z − y))."""
        return self.point(z).gradient

    def gradient_at_zero(self, like: Float[Array, "*code"]) -> Float[Array, "*code"]:
        """Return −Aᵀ(w·y)."""
        del like
        return -self.drive

    def hessian_product(self, z: Float[Array, "*code"], direction: Float[Array, "*code"]) -> Array:
        """Return Aᵀ(w·A direction)."""
        del z
        if self.gram is not None:
            return product(direction, self.gram)
        return self.map.transpose(self._weighted(self.map.apply(direction)))

    def curvature_bound(self, like: Float[Array, "*code"]) -> Scalar:
        """Return max w times a bound on the largest eigenvalue of AᵀA."""
        bound = squared_norm(self.map, self.gram, like)
        if self.weights is None:
            return bound
        bound = bound * jnp.max(self.weights)
        return jnp.where(bound == 0, 1, bound)  # without weights every step is right

    def curvature_along(self, point: Point, step: Float[Array, "*code"]) -> Scalar:
        """Return Σ w·(A step)²."""
        del point
        if self.gram is not None:
            return jnp.sum(step * product(step, self.gram))
        change = self.map.apply(step)
        return jnp.sum(self._weighted(change) * change)

    def point(self, z: Float[Array, "*code"]) -> Point:
        """Evaluate f, through the Gram matrix or through the error, which is then kept."""
        if self.gram is None:
            return self.exact_point(z)
        return Point(z, product(z, self.gram) - self.drive)

    def exact_point(self, z: Float[Array, "*code"]) -> Point:
        """Evaluate f through the error A z − y, which is kept."""
        error = self.map.apply(z) - self.target
        return Point(z, self.map.transpose(self._weighted(error)), error)

    def point_at_zero(self) -> Point:
        """Evaluate f at 0, without a product."""
        error = None if self.gram is not None else -self.target
        return Point(jnp.zeros_like(self.drive), -self.drive, error)

    def value_at(self, point: Point) -> Scalar:
        """Return f(z) − f(0) = ½⟨z, ∇f(z) − Aᵀ(w·y)⟩."""
        if point.kept is not None:
            return 0.5 * jnp.sum(self._weighted(point.kept - self.target) * (point.kept + self.target))
        return 0.5 * jnp.sum(point.value * (point.gradient - self.drive))

    def curvature_between(self, old: Point, new: Point, unit: Scalar) -> Scalar:
        """Return Σ w·(A d)²/unit² for the step d between two points."""
        if old.kept is None or new.kept is None:
            return super().curvature_between(old, new, unit)
        change = (new.kept - old.kept) / unit
        return jnp.sum(self._weighted(change) * change)

    def misfit(self, point: Point, unit: Scalar | None = None) -> Misfit:
        """Return the squared error, the correlations at the point and at 0, and ½ Σ w·y², of data/unit."""
        target, drive = self.target, self.drive
        if unit is not None:
            target, drive, point = jax.tree.map(lambda leaf: leaf / unit, (target, drive, point))
        energy = 0.5 * jnp.sum(self._weighted(target) * target)
        if point.kept is None:
            squared_error = jnp.maximum(2 * energy + jnp.sum(point.value * (point.gradient - drive)), 0)
        else:
            squared_error = jnp.sum(self._weighted(point.kept) * point.kept)
        return Misfit(squared_error, -point.gradient, drive, energy)

    def unit(self) -> Scalar:
        """Return the power of two near the target's largest entry."""
        return unit_of(lax.stop_gradient(self.target))

    def _weighted(self, array: Array) -> Array:
        return array if self.weights is None else self.weights * array


def without_lost(data: Array, weights: Array) -> tuple[Array, Array]:
    """Return data and weights with 0 for data that are not finite and have no weight, which are missing.

    Finite data of weight 0 stay, for the derivative in such a weight is half their squared error.
    """
    is_lost = (weights == 0) & ~jnp.isfinite(data)
    return jnp.where(is_lost, 0, data), jnp.where(is_lost, 0, weights)


def checked_weights(name: str, weights: ArrayLike, like: Array) -> Array:
    """Return weights of an array's shape and dtype, or raise ``ValueError``; as `weights_array`."""
    weights = weights_array(name, weights)
    check_shape(name, weights, like.shape, "a weight for each entry")
    return weights.astype(like.dtype)


def weights_array(name: str, weights: ArrayLike) -> Array:
    """Return weights ≥ 0; a concrete negative one is refused, one that only a run shows becomes NaN."""
    weights = real_array(name, weights)
    check_nonnegative(name, weights)
    return jnp.where(weights >= 0, weights, jnp.nan)
