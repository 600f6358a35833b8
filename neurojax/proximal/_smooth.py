"""Smooth terms: what a composite problem minimizes beside its penalty, and what solvers may ask of it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar

__all__ = ["AbstractSmooth", "FunctionSmooth", "Misfit", "Point"]

Value = Float[Array, "*shape"]

_ROUNDING = 128  # epsilons of f: a difference below it says nothing


class Point(NamedTuple):
    """A value, and what is known of f there.

    Attributes:
        value: z.
        gradient: ∇f(z).
        kept: whatever else a smooth term keeps of its evaluation.
    """

    value: Array
    gradient: Array
    kept: Any = None


class Misfit(NamedTuple):
    """The terms of a sum of squares ½‖r(z)‖² in a duality gap, with a residual r that is affine in z.

    Attributes:
        squared_error: ‖r(z)‖².
        correlation: c = −∇f(z).
        drive: −∇f(0).
        energy: f(0), which gaps are relative to.
    """

    squared_error: Scalar
    correlation: Array
    drive: Array
    energy: Scalar


class AbstractSmooth(eqx.Module):
    """A differentiable function f of an array. Only its value is required; the rest has a default.

    What is answered beyond that makes more possible: with a ``curvature_bound`` solvers take steps of a fixed
    size and `SpaRSA` applies; with a ``misfit`` a problem whose penalty is certified stops on its duality
    gap.
    """

    @abstractmethod
    def value(self, z: Value) -> Scalar:
        """Return f(z)."""

    def gradient(self, z: Value) -> Value:
        """Return ∇f(z); here by differentiating the value."""
        return jax.grad(self.value)(z)

    def gradient_at_zero(self, like: Value) -> Value:
        """Return ∇f(0), for an array of z's shape and dtype."""
        return self.gradient(jnp.zeros_like(like))

    def hessian_product(self, z: Value, direction: Value) -> Value:
        """Return ∇²f(z)·direction; here by differentiating the gradient."""
        return jax.jvp(self.gradient, (z,), (direction,))[1]

    def curvature_bound(self, like: Any) -> Scalar | None:
        """Return a bound on the largest eigenvalue of ∇²f everywhere, or ``None``, as here.

        Without one solvers backtrack.

        Args:
            like: an array of the shape and dtype of z.
        """
        del like
        return None

    def curvature_along(self, point: Point, step: Value) -> Scalar:
        """Return C with f(z + step) ≤ f(z) + ⟨∇f(z), step⟩ + ½C, by which backtracking judges a step.

        Here C is twice what makes this an equality, from the values of f; and where rounding hides that
        difference, ⟨∇f(z + step) − ∇f(z), step⟩, which is the same to second order.

        Reference:
            Becker, Candès & Grant 2011, Templates for convex cone problems, section 5.3.
        """
        before = self.value(point.value)
        after, gradient = jax.value_and_grad(self.value)(point.value + step)
        excess = after - before - jnp.sum(point.gradient * step)
        size = jnp.maximum(jnp.abs(before), jnp.abs(after))
        is_told = jnp.abs(excess) > _ROUNDING * jnp.finfo(size.dtype).eps * size
        return jnp.where(is_told, 2 * excess, jnp.sum((gradient - point.gradient) * step))

    def point(self, z: Value) -> Point:
        """Evaluate f at z, with what makes ``value_at`` and ``curvature_between`` cheap. `SpaRSA` asks."""
        value, gradient = jax.value_and_grad(self.value)(z)
        return Point(z, gradient, value)

    def point_near(self, point: Point, z: Value) -> Point:
        """Evaluate f at a value near an exact ``point``, more cheaply if less exactly; here exactly.

        The gradient may be ∇f(point) + M·(z − point) with any ∇²f − (L/8)·I ≼ M ≼ ∇²f. `SpaRSA` asks.
        """
        del point
        return self.point(z)

    def value_at(self, point: Point) -> Scalar:
        """Return f at an exact point, up to a constant."""
        return point.kept

    def curvature_between(self, old: Point, new: Point, unit: Scalar) -> Scalar:
        """Return ⟨d, ∇f(new) − ∇f(old)⟩/unit² for the step d between two points."""
        return jnp.sum((new.value - old.value) / unit * ((new.gradient - old.gradient) / unit))

    def exact_point(self, z: Value) -> Point:
        """Evaluate f at z without short cuts whose rounding a certificate would inherit."""
        return self.point(z)

    def misfit(self, point: Point, unit: Scalar | None = None) -> Misfit | None:
        """Return the terms of a duality gap at a point, or ``None``, as here, for no sum of squares.

        Args:
            point: where f has been evaluated.
            unit: of the data, in which to return them: those of z/unit and data/unit; ``None``: 1.
        """
        del point, unit
        return None

    def unit(self) -> Scalar | None:
        """Return the unit of the data, a power of two in which their squares are in range; ``None``: 1."""
        return None


class FunctionSmooth(AbstractSmooth):
    """A smooth term from a function z, *args ↦ f.

    What the function closes over is hoisted: an array that it closes over, even a tracer of ``grad`` or
    ``jit``, becomes a leaf of this module, so that derivatives with respect to it are those of an argument.

    Attributes:
        function: with its closed-over arrays as leaves.
        args: further arguments.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()

    @classmethod
    def of(cls, function: Callable[..., Any], z: Any, args: tuple[Any, ...] = ()) -> "FunctionSmooth":
        """Hoist what a function closes over.

        Raises:
            ValueError: for a function whose value is not one real number.
        """
        form = jax.eval_shape(function, z, *args)
        if not hasattr(form, "shape") or form.shape or not jnp.issubdtype(form.dtype, jnp.floating):
            raise ValueError(f"smooth: expected a function whose value is one real number, got {form}.")
        return cls(eqx.filter_closure_convert(function, z, *args), args)

    def value(self, z: Any) -> Scalar:
        """Return function(z, *args)."""
        return self.function(z, *self.args)
