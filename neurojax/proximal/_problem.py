"""Composite problems: a smooth term and a penalty, and how far a value is from their minimum."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._rows import norm, relative_norm, unit_of
from .._trees import constant
from .._types import Scalar
from ..convergence import AbstractStationaryProblem, Tangent
from ..penalties import (
    AbstractCertifiedPenalty,
    AbstractPenalty,
    AbstractProximalPenalty,
    AbstractValuedPenalty,
)
from ._eigenvalue import largest_eigenvalue
from ._smooth import AbstractSmooth, Misfit, Point

__all__ = [
    "AbstractCompositeProblem",
    "CompositeProblem",
    "curvature_at",
    "gap_of",
    "is_certified",
    "make_composite",
    "require_prox",
    "require_value",
]

Value = Float[Array, "*value"]


class AbstractCompositeProblem(AbstractStationaryProblem):
    """Minimize F(z) = f(z) + g(z) over an array z, with f smooth and g the penalty.

    Attributes:
        smooth: f.
        penalty: g.
        lipschitz: L: a bound on the curvature of f, or its largest curvature at the start.
        is_bounded: whether L bounds the curvature everywhere, so that steps of 1/L are safe.
    """

    smooth: eqx.AbstractVar[AbstractSmooth]
    penalty: eqx.AbstractVar[AbstractPenalty]
    lipschitz: eqx.AbstractVar[Scalar]
    is_bounded: eqx.AbstractVar[bool]

    @abstractmethod
    def residual(self, value: Value) -> Scalar:
        """Return the stopping measure."""

    def residual_at(self, point: Point, movement: Scalar) -> Scalar:
        """Return the residual at a point that a step of length ``movement`` led to, or what comes near it.

        Here: the residual itself.
        """
        del movement
        return self.residual(point.value)

    def fixed_point(self, value: Value) -> Value:
        """Apply z ↦ prox_{g/L}(z − ∇f(z)/L), or z ↦ z − (∇f(z) + ∇g(z))/L where g is smooth."""
        value = real_array("value", value)
        return self.fixed_point_from(value, self.smooth.gradient(value))

    def fixed_point_from(self, value: Value, smooth_gradient: Value) -> Value:
        """Apply the same map where ∇f(value) is known already."""
        if self.penalty.is_smooth:
            return value - (smooth_gradient + self.penalty.gradient(value)) / self.lipschitz
        penalty = require_prox("fixed_point", self.penalty)
        return penalty.prox(value - smooth_gradient / self.lipschitz, 1 / self.lipschitz)

    def stationarity(self, value: Value) -> Value:
        """Return ∇f(value) + ∇g(value), whose part along the tangent is zero at a fixed point."""
        return self.smooth.gradient(value) + self.penalty.gradient(value)

    def tangent(self, value: Value) -> Tangent:
        """Return the penalty's tangent, the Hessian ∇²f + ∇²g, and L plus the positive diagonal of ∇²g.

        Raises:
            ValueError: for a penalty that does not say in which directions a solution moves.
        """
        project = self.penalty.tangent(value)
        _, hessian = jax.linearize(self.stationarity, value)
        diagonal = jnp.full_like(value, self.lipschitz)
        if self.penalty.is_separable:
            _, curvature = jax.jvp(self.penalty.gradient, (value,), (jnp.ones_like(value),))
            diagonal = diagonal + jnp.maximum(curvature, 0)
        return Tangent(project, hessian, diagonal)


class CompositeProblem(AbstractCompositeProblem):
    """Minimize F(z) = f(z) + g(z); stop on the duality gap where there is one, else on movement.

    Attributes:
        smooth: f.
        penalty: g.
        lipschitz: a bound on the curvature of f, or its largest curvature at the start.
        is_bounded: whether ``lipschitz`` is a bound everywhere.
    """

    smooth: AbstractSmooth
    penalty: AbstractPenalty
    lipschitz: Scalar
    is_bounded: bool = eqx.field(static=True)

    def residual(self, value: Value) -> Scalar:
        """Return the stopping measure.

        For a least-squares term and a penalty with a certificate that can close, the relative duality gap
        gap/min(½Σ w·y², g*(∇f(0))), the second where it is less and not 0; else the length of the fixed-point
        map's step, ‖z − T(z)‖ / max(‖z‖, ‖T(z)‖, ‖T₀‖). T₀ is the scale of a step from 0: d/L for a smooth
        penalty, else prox(2d/L) − prox(d/L) with d = −∇f(0), which thresholds do not shorten and curvature
        does. Where L is no bound, but the curvature at the start, both steps are stretched by L over the
        curvature along the step: where that has fallen, a step of 1/L says little. Where y = 0 the gap is
        absolute. A value outside the penalty's domain has the dtype's largest number: a method may start
        there.
        """
        value = real_array("value", value)
        point = self.smooth.exact_point(value)

        def movement() -> Scalar:
            moved = self.fixed_point_from(value, point.gradient)
            stretch = 1 if self.is_bounded else self._stretch(value, value - moved)
            change, first = stretch * (value - moved), stretch * self._first_step(value)
            return relative_norm(change, norm(value), norm(moved), norm(first))

        if not is_certified(self.penalty):
            return movement()
        # In the data's unit the squares of very small and very large ones stay in range.
        penalty, unit = self.penalty, self.smooth.unit()
        scaled = None if unit is None else penalty.in_units(unit)
        if unit is None or scaled is None:
            gap = _relative_gap(penalty, value, self.smooth.misfit(point))
        else:
            gap = _relative_gap(scaled, value / unit, self.smooth.misfit(point, unit))
        return movement() if gap is None else lax.cond(gap[1], lambda: gap[0], movement)

    def residual_at(self, point: Point, movement: Scalar) -> Scalar:
        """Estimate the residual without a product, at a point that a step of length ``movement`` led to.

        The gap right up to rounding, as long as squares stay in range. Without a gap, movement/‖z‖.
        """
        moved = _ratio(movement, jnp.sqrt(jnp.sum(point.value**2)))
        gap = None
        if is_certified(self.penalty):
            gap = _relative_gap(self.penalty, point.value, self.smooth.misfit(point))
        return moved if gap is None else jnp.where(gap[1], gap[0], moved)

    def _stretch(self, value: Value, step: Value) -> Scalar:
        """Return L over the curvature of f along a step, and no more than rounding allows."""
        direction = step / unit_of(step)
        along = jnp.sum(self.smooth.hessian_product(value, direction) * direction)
        squared = jnp.sum(direction**2)
        least = jnp.finfo(value.dtype).eps ** 0.5 * self.lipschitz * squared
        return jnp.where(squared > 0, self.lipschitz * squared / jnp.maximum(along, least), 1)

    def _first_step(self, like: Value) -> Value:
        """Return a step from 0 without its thresholds: its length is the unit of movements."""
        drive = -self.smooth.gradient_at_zero(like) / self.lipschitz
        drive = jnp.where(jnp.all(jnp.isfinite(drive)), drive, 0)  # 0 need not be in the domain of f
        if self.penalty.is_smooth:
            return drive
        prox = require_prox("residual", self.penalty).prox
        return prox(2 * drive, 1 / self.lipschitz) - prox(drive, 1 / self.lipschitz)


def make_composite(
    smooth: AbstractSmooth, penalty: AbstractPenalty, init: Value, *, step_size: ArrayLike | None = None
) -> CompositeProblem:
    """Set up a composite problem, for `neurojax.convergence.iterate`.

    Args:
        smooth: f.
        penalty: g.
        init: an array of z's shape and dtype; where f has no curvature bound, the place where L is taken.
        step_size: that of the fixed-point map; ``None``: 1/L. It matters for penalties that are not convex,
            whose fixed points depend on it.

    Returns:
        The problem.
    """
    if isinstance(penalty, AbstractProximalPenalty):
        step = jax.ShapeDtypeStruct((), init.dtype)
        shape = jax.eval_shape(lambda v, t: penalty.prox(v, t), init, step).shape
        if shape != init.shape:
            raise ValueError(
                f"penalty: expected strengths that broadcast against shape {init.shape}, got such as make it "
                f"{shape} (encode_batch with penalty_axis=0 gives each row a penalty of its own)."
            )
    is_bounded = jax.eval_shape(smooth.curvature_bound, init) is not None
    if step_size is not None:
        lipschitz = 1 / jnp.asarray(step_size, init.dtype)
    else:
        bound = smooth.curvature_bound(init) if is_bounded else None
        lipschitz = _first_curvature(smooth, init) if bound is None else bound
    return CompositeProblem(smooth, penalty, lipschitz, is_bounded)


def _first_curvature(smooth: AbstractSmooth, init: Value) -> Scalar:
    """Return the curvature at the start, or that which makes a step as long as the start; never 0."""
    slope = norm(constant(smooth).gradient(constant(init)))
    curvature = jnp.maximum(curvature_at(smooth, init), slope / jnp.maximum(norm(init), 1))
    return jnp.where(curvature > jnp.finfo(init.dtype).tiny, curvature, 1)


def curvature_at(smooth: AbstractSmooth, z: Value) -> Scalar:
    """Return the largest curvature of a smooth term at a value, as a constant."""
    smooth, z = constant((smooth, z))
    return largest_eigenvalue(lambda direction: smooth.hessian_product(z, direction), z)


def is_certified(penalty: AbstractPenalty) -> bool:
    """Return whether a penalty has a duality gap, beside a least-squares term."""
    return isinstance(penalty, AbstractCertifiedPenalty)


def require_prox(name: str, penalty: AbstractPenalty) -> AbstractProximalPenalty:
    """Return ``penalty`` if it has a proximal operator, else raise a ``ValueError`` for ``name``."""
    if not isinstance(penalty, AbstractProximalPenalty):
        raise ValueError(
            f"{name}: expected a penalty with a proximal operator, got {type(penalty).__name__}, "
            "which has none; smooth penalties are minimized by sparse_coding.Gradient."
        )
    return penalty


def require_value(name: str, penalty: AbstractPenalty) -> AbstractValuedPenalty:
    """Return ``penalty`` if it has a value, else raise a ``ValueError`` for ``name``."""
    if not isinstance(penalty, AbstractValuedPenalty):
        raise ValueError(
            f"{name}: expected a penalty with a value, got {type(penalty).__name__}, which has none."
        )
    return penalty


def _relative_gap(penalty, value: Value, misfit: Misfit | None) -> tuple[Scalar, Array] | None:
    """Return the gap over the energy it is relative to, and whether it can close; ``None`` without one."""
    if misfit is None:
        return None
    gap, energy, can_close = gap_of(penalty, value, misfit)
    return _ratio(gap, energy), can_close


def gap_of(penalty: AbstractCertifiedPenalty, value: Value, misfit: Misfit) -> tuple[Scalar, Scalar, Array]:
    """Return the duality gap, the energy that it is relative to, and whether it can close.

    That energy is f(0), or the conjugate's bound on what can be taken off it, if it is less. Only then dual
    points after the first count: elsewhere the first asks more of a value than its energy.
    """
    certificate = penalty.certificate(value, misfit.correlation)
    most = penalty.conjugate_bound(misfit.drive)
    is_less = (most > 0) & (most < misfit.energy)
    first = certificate._replace(
        scale=certificate.scale.reshape(-1)[:1], rest=certificate.rest.reshape(-1)[:1]
    )
    gaps = first.gap(misfit.squared_error), certificate.gap(misfit.squared_error)
    energy = jnp.where(is_less, most, misfit.energy)
    return jnp.where(is_less, gaps[1], gaps[0]), energy, certificate.can_close


def _ratio(numerator: Scalar, denominator: Scalar) -> Scalar:
    """Return the quotient, at most the largest number; by 1 where the denominator is 0."""
    ratio = numerator / jnp.where(denominator > 0, denominator, 1)
    return jnp.minimum(ratio, jnp.finfo(ratio.dtype).max)
