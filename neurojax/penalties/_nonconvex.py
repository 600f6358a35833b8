"""Penalties that shrink small coefficients and leave large ones as they are; neither is convex."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._arrays import real_array
from .._types import Scalar
from ._abstract import AbstractPenalty, AbstractProximalPenalty, AbstractValuedPenalty
from ._strengths import (
    above,
    as_code,
    as_step,
    in_unit,
    magnitude,
    nonnegative,
    positive,
    unless_held,
    widened,
)

__all__ = ["MCP", "SCAD"]

Code = Float[ArrayLike, "*shape"]
Step = Real[ArrayLike, "..."]
Result = Float[Array, "..."]
Mask = Bool[Array, "*shape"]


class _AbstractFlat(AbstractValuedPenalty, AbstractProximalPenalty):
    """A penalty of a strength and a gamma that is flat from gamma·strength on."""

    strength: eqx.AbstractVar[Float[Array, "..."]]
    gamma: eqx.AbstractVar[Float[Array, "..."]]
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalized."""
        return (real_array("code", code) != 0) | (self.strength == 0)

    def in_units(self, unit: Scalar) -> AbstractPenalty:
        """Return the same penalty with strength/unit."""
        return type(self)(in_unit(self.strength, unit), self.gamma)  # type: ignore[call-arg]


class MCP(_AbstractFlat):
    """The minimax concave penalty: Σ λ|zᵢ| − zᵢ²/2γ where |zᵢ| ≤ γλ, and ½γλ² beyond.

    λ is the strength and γ is gamma. Near 0 it is L1. Its slope falls evenly to 0 at γλ, so that large
    coefficients are not shrunk. The sum with a quadratic whose least curvature is m, such as ½‖x − z·atoms‖²
    with m the least eigenvalue of the atoms' Gram matrix, is strictly convex for γ > 1/m. For γ → ∞ it
    becomes L1; for γ ≤ step_size its operator is hard thresholding.

    Attributes:
        strength: λ ≥ 0, of any shape that broadcasts against the code, in the unit of the code.
        gamma: γ > 0, likewise, without a unit: 1/γ is the curvature that the penalty takes away.

    Raises:
        ValueError: at construction, if a concrete strength is negative or a concrete gamma not positive.

    Gradient:
        Of the value at zᵢ = 0: 0. The operator's is 1 for strength 0 and beyond γλ, 0 below its threshold,
        and γ/(γ − step_size) in between; the jump where γ ≤ step_size contributes nothing.

    Reference:
        Zhang (2010), Nearly unbiased variable selection under minimax concave penalty, section 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = MCP(1.0, gamma=2.0)
        >>> value_and_prox = jax.jit(lambda code: (penalty.value(code), penalty.prox(code, 1.0)))
        >>> print(*value_and_prox(jnp.array([0.5, -1.5, 6.0])))
        2.375 [ 0. -1.  6.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    gamma: Float[Array, "..."] = eqx.field(converter=positive("gamma"), default=3.0)

    def value(self, code: Code) -> Scalar:
        """Return Σ λm − m²/2γ with m = min(|codeᵢ|, γλ)."""
        code, strength, gamma = as_code(code, self.strength, self.gamma)
        bent = _up_to_flat(code, strength, gamma)
        # Not bent²: large codes would leave the range of numbers before their penalty does.
        return jnp.sum(bent * (unless_held(strength, bent) - bent / (2 * gamma)))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return the global argmin_u ½‖u − v‖² + step_size·value(u), for any step size t ≥ 0.

        For t < γ: 0 where |v| ≤ tλ, sign(v)·(|v| − tλ)/(1 − t/γ) up to |v| = γλ, and v beyond. For t ≥ γ: v
        where |v| > λ√(γt), and 0 elsewhere.
        """
        given = real_array("v", v)
        v, t, strength, gamma = _arguments(given, step_size, self.strength, self.gamma)
        size = jnp.abs(v)
        is_steep = t >= gamma
        cut = jnp.where(is_steep, strength * _geometric_mean(gamma, t), t * strength)
        shrunk = _shrunk(v, _finite(t, strength), _slope(gamma, t))
        u = jnp.where(is_steep | (size > gamma * strength), v, shrunk)
        return _finished(jnp.where(size <= cut, 0, u), v, t * strength, gamma).astype(given.dtype)


class SCAD(_AbstractFlat):
    """The smoothly clipped absolute deviation: L1 up to λ, then a slope that falls to 0 at γλ.

    λ is the strength and γ is gamma. A coefficient costs λ|zᵢ| where |zᵢ| ≤ λ, then
    (2γλ|zᵢ| − zᵢ² − λ²)/2(γ − 1) up to |zᵢ| = γλ, and ½λ²(γ + 1) beyond: large ones are not shrunk. The sum
    with a quadratic whose least curvature is m is strictly convex for γ > 1 + 1/m.

    Attributes:
        strength: λ ≥ 0, of any shape that broadcasts against the code, in the unit of the code.
        gamma: γ > 2, likewise, without a unit; 3.7 is the choice of Fan & Li.

    Raises:
        ValueError: at construction, if a concrete strength is negative or a concrete gamma not above 2.

    Gradient:
        Of the value at zᵢ = 0: 0. The operator's is 1 for strength 0, 0 below its threshold, and that of the
        branch taken elsewhere; its jump, for γ ≤ 1 + step_size, contributes nothing.

    Reference:
        Fan & Li (2001), Variable selection via nonconcave penalized likelihood and its oracle properties,
        equations 2.7 and 2.8.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = SCAD(1.0, gamma=3.0)
        >>> value_and_prox = jax.jit(lambda code: (penalty.value(code), penalty.prox(code, 1.0)))
        >>> print(*value_and_prox(jnp.array([0.5, -1.5, 2.5, 6.0])))
        5.875 [ 0.  -0.5  2.   6. ]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    gamma: Float[Array, "..."] = eqx.field(converter=above("gamma", 2.0), default=3.7)

    def value(self, code: Code) -> Scalar:
        """Return Σ λm − max(m − λ, 0)²/2(γ − 1) with m = min(|codeᵢ|, γλ)."""
        code, strength, gamma = as_code(code, self.strength, self.gamma)
        bent = _up_to_flat(code, strength, gamma)
        excess = jnp.maximum(bent - strength, 0)
        return jnp.sum(unless_held(strength, bent) * bent - excess * (excess / (2 * (gamma - 1))))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return the global argmin_u ½‖u − v‖² + step_size·value(u), for any step size t ≥ 0.

        With soft(v) = sign(v)·max(|v| − tλ, 0). For t < γ − 1: soft(v) where |v| ≤ λ(1 + t),
        ((γ − 1)v − sign(v)·tγλ)/(γ − 1 − t) up to |v| = γλ, and v beyond. For γ − 1 ≤ t < γ + 1: soft(v)
        where |v| ≤ ½λ(γ + 1 + t), and v beyond. For t ≥ γ + 1: v where |v| > λ√(t(γ + 1)), and 0 elsewhere.
        """
        given = real_array("v", v)
        v, t, strength, gamma = _arguments(given, step_size, self.strength, self.gamma)
        size, threshold = jnp.abs(v), _finite(t, strength)
        is_concave, is_steep = t >= gamma - 1, t >= gamma + 1
        soft = _shrunk(v, threshold, jnp.ones_like(t))
        bent = _shrunk(v, threshold * (1 + 1 / (gamma - 1)), _slope(gamma - 1, t))
        kept_from = jnp.where(is_concave, strength * (gamma + 1 + t) / 2, gamma * strength)
        u = jnp.where(is_concave | (size <= strength * (1 + t)), soft, bent)
        u = jnp.where(is_steep | (size > kept_from), v, u)
        cut = jnp.where(is_steep, strength * _geometric_mean(gamma + 1, t), t * strength)
        return _finished(jnp.where(size <= cut, 0, u), v, t * strength, gamma).astype(given.dtype)


def _up_to_flat(code: Array, strength: Array, gamma: Array) -> Array:
    """Return min(|code|, γλ): from γλ on the penalty is flat."""
    size, is_plain = magnitude(code), (strength > 0) & jnp.isfinite(strength) & jnp.isfinite(gamma)
    # Factors of infinity are replaced: they would make a derivative of 0 NaN.
    flat = jnp.where(is_plain, gamma, 1) * jnp.where(is_plain, strength, 1)
    flat = jnp.where(is_plain, flat, jnp.where(strength == 0, 0, jnp.inf))
    return jnp.where(size > flat, flat, size)


def _arguments(v: Array, step_size: ArrayLike, *parameters: Array) -> tuple[Array, ...]:
    """Return v, the step size and the parameters, in the dtype of v or float32 and in one shape."""
    v = widened(v)
    return tuple(jnp.broadcast_arrays(v, as_step(step_size, v), *(one.astype(v.dtype) for one in parameters)))


def _finite(t: Array, strength: Array) -> Array:
    """Return t·strength, and 0 in place of infinity, for branches that are not taken then."""
    return t * jnp.where(jnp.isinf(strength), 0, strength)


def _slope(curvature: Array, t: Array) -> Array:
    """Return c/(c − t) for t < c, the slope of an operator whose penalty has curvature −1/c; else 1."""
    is_between = (t < curvature) & jnp.isfinite(curvature)
    return jnp.where(is_between, curvature, 1) / jnp.where(is_between, curvature - t, 1)


def _geometric_mean(a: Array, b: Array) -> Array:
    """Return √(a·b) for 0 < a ≤ b, where the product may leave the range of numbers."""
    return jnp.where(jnp.isinf(b), b, b * jnp.sqrt(a / b))


def _shrunk(v: Array, threshold: Array, slope: Array) -> Array:
    """Return sign(v)·(|v| − threshold)·slope, which rounding makes no larger than v."""
    u = slope * (v - jnp.sign(v) * threshold)
    return jnp.where(jnp.abs(u) > jnp.abs(v), v, u)


def _finished(u: Array, v: Array, threshold: Array, gamma: Array) -> Array:
    """Return u, but v where there is no threshold, and NaN where a parameter is."""
    u = jnp.where(threshold == 0, v, u)
    is_nan = jnp.isnan(threshold) | jnp.isnan(gamma)
    return jnp.where(is_nan, jnp.nan, u)
