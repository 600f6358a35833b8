"""Penalties that are smooth everywhere, each a sum over coefficients."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._compensated import power_of_two_near
from .._types import Scalar
from ._abstract import (
    AbstractCertifiedPenalty,
    AbstractProximalPenalty,
    AbstractValuedPenalty,
    Certificate,
)
from ._certificates import largest_scale, ridge_slack
from ._strengths import as_code, nonnegative, positive, step_times, unless_held, weighted_sum
from ._thresholds import cauchy_threshold

__all__ = ["Cauchy", "Gaussian", "Quadratic", "SmoothL1"]

Code = Float[ArrayLike, "*shape"]
Step = Real[ArrayLike, "..."]
Result = Float[Array, "..."]


class Cauchy(AbstractValuedPenalty, AbstractProximalPenalty):
    """The negative logarithm of a Cauchy density: Σ strength·ln(1 + (zᵢ/scale)²).

    Smooth everywhere and not convex. Its operator jumps, and so makes gaps in the code, only where
    step_size·strength/scale² > 4; it sets nothing exactly to zero.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.
        scale: > 0, likewise, in the unit of the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative or a concrete scale not positive.

    Reference:
        Olshausen & Field (1996), Emergence of simple-cell receptive field properties, S(x) = ln(1 + x²).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = Cauchy(1.0, scale=2.0)
        >>> prox = jax.jit(lambda code: penalty.prox(code, 2.0))
        >>> [round(u, 4) for u in prox(jnp.array([20.0, 0.0])).tolist()]
        [19.8, 0.0]
        >>> round(float(penalty.value(jnp.array([2.0, 0.0]))), 4)  # ln 2
        0.6931
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    scale: Float[Array, "..."] = eqx.field(converter=positive("scale"))
    is_smooth: ClassVar[bool] = True
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·ln(1 + (codeᵢ/scale)²)."""
        code, strength, scale = as_code(code, self.strength, self.scale)
        return weighted_sum(strength, _log1p_square(code / scale))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return the global argmin_u ½‖u − v‖² + step_size·Σ strength·ln(1 + (uᵢ/scale)²)."""
        v = real_array("v", v)
        t = step_times(step_size, self.strength, v)
        scale = self.scale.astype(v.dtype)
        return scale * cauchy_threshold(v / scale, t / scale / scale)


class SmoothL1(AbstractValuedPenalty):
    """Magnitudes rounded at zero: Σ strength·√(zᵢ² + epsilon). Not Huber's function.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.
        epsilon: > 0, likewise, in the squared unit of the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative or a concrete epsilon not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> print(SmoothL1(0.5, epsilon=9.0).value(jnp.array([4.0, 0.0])))
        4.0
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    epsilon: Float[Array, "..."] = eqx.field(converter=positive("epsilon"))
    is_smooth: ClassVar[bool] = True
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·√(codeᵢ² + epsilon)."""
        code, strength, epsilon = as_code(code, self.strength, self.epsilon)
        is_held = jnp.isinf(strength) & (code == 0)  # where the value is infinite, and its derivative 0
        terms = jnp.where(is_held, 0, strength) * _rounded_magnitude(code, epsilon)
        return jnp.sum(jnp.where(is_held, jnp.inf, terms))


class Gaussian(AbstractValuedPenalty):
    """An inverted Gaussian bell: Σ strength·(1 − exp(−(zᵢ/scale)²)).

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.
        scale: > 0, likewise, in the unit of the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative or a concrete scale not positive.

    Reference:
        Olshausen & Field (1996), Emergence of simple-cell receptive field properties, S(x) = −exp(−x²),
        here plus 1 so that it is 0 at 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(Gaussian(2.0, scale=1.0).value(jnp.array([0.0, 100.0])))
        2.0
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    scale: Float[Array, "..."] = eqx.field(converter=positive("scale"))
    is_smooth: ClassVar[bool] = True
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·(1 − exp(−(codeᵢ/scale)²))."""
        code, strength, scale = as_code(code, self.strength, self.scale)
        return weighted_sum(strength, -jnp.expm1(-((code / scale) ** 2)))


class Quadratic(AbstractCertifiedPenalty):
    """Half the squares: ½·Σ strength·zᵢ², the negative logarithm of a Gaussian prior of precision strength.

    `Gaussian` is something else: the bell 1 − exp(−x²), which is not convex.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code; mind the ½.

    Raises:
        ValueError: at construction, if a concrete strength is negative.

    Reference:
        Hoerl & Kennard (1970), Ridge regression: biased estimation for nonorthogonal problems.

    Example:
        >>> import jax.numpy as jnp
        >>> penalty = Quadratic(0.5)
        >>> print(penalty.value(jnp.array([2.0, -4.0])), penalty.prox(jnp.array([2.0, -4.0]), 2.0))
        5.0 [ 1. -2.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    is_smooth: ClassVar[bool] = True
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return ½·Σ strength·codeᵢ²."""
        code, strength = as_code(code, self.strength)
        # Not strength·code²: beside a very large strength the squares of codes leave the range of numbers.
        return jnp.sum(unless_held(strength, code) * code / 2 * code)

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return v/(1 + step_size·strength)."""
        v = real_array("v", v)
        return v / (1 + step_times(step_size, self.strength, v))

    def certificate(self, code: Float[Array, "*shape"], correlation: Float[Array, "*shape"]) -> Certificate:
        """Return s = 1 and Σᵢ (λᵢzᵢ − cᵢ)²/2λᵢ, with λ the strength.

        A coefficient of strength 0 has a finite conjugate at 0 alone. Where one has cᵢ ≠ 0, it is s = 0 that
        bounds, with ½·Σᵢ λᵢzᵢ².
        """
        strength = self.strength.astype(code.dtype)
        scale = largest_scale(jnp.abs(correlation), strength, strength == 0)
        rest = jnp.sum(ridge_slack(strength, unless_held(strength, code) * code - scale * correlation))
        return Certificate(scale, rest, jnp.all(strength > 0))

    def conjugate_bound(self, correlation: Float[Array, "*shape"]) -> Scalar:
        """Return Σᵢ cᵢ²/2λᵢ, with λ the strength, or infinity where one is 0 and its cᵢ is not."""
        return jnp.sum(ridge_slack(self.strength.astype(correlation.dtype), correlation))

    def in_units(self, unit: Scalar) -> "Quadratic":
        """Return this penalty: it grows like the squares of data."""
        del unit
        return self


def _log1p_square(x: Array) -> Array:
    """Return ln(1 + x²), also where x² overflows."""
    is_large = jnp.abs(x) > float(jnp.finfo(x.dtype).max) ** 0.25
    large, ordinary = jnp.where(is_large, x, 1), jnp.where(is_large, 0, x)
    return jnp.where(is_large, 2 * jnp.log(jnp.abs(large)), jnp.log1p(ordinary**2))


def _rounded_magnitude(x: Array, epsilon: Array) -> Array:
    """Return √(x² + epsilon), value and derivative also where squares leave the range of numbers."""
    largest = lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.sqrt(epsilon)))
    # A power of two: dividing by it rounds nothing, so that ordinary numbers come out as without it.
    unit = power_of_two_near(jnp.maximum(largest / 2, jnp.finfo(x.dtype).tiny))
    unit = jnp.where(jnp.isfinite(unit), unit, 1)
    return unit * jnp.sqrt((x / unit) ** 2 + epsilon / unit / unit)
