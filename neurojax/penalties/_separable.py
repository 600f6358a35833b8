"""Penalties that are sums over coefficients."""

from typing import ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._arrays import real_array
from .._types import Scalar
from ._abstract import (
    AbstractCertifiedPenalty,
    AbstractProximalPenalty,
    AbstractValuedPenalty,
    Certificate,
)
from ._certificates import largest_scale, ridge_slack, slack
from ._strengths import as_code, in_unit, magnitude, nonnegative, step_times, unless_held, weighted_sum
from ._thresholds import hard_threshold, log_threshold, nonnegative_soft_threshold, soft_threshold

__all__ = ["L0", "L1", "ElasticNet", "Log", "NonNegativeL1"]

Code: TypeAlias = Float[ArrayLike, "*shape"]
Step: TypeAlias = Real[ArrayLike, "..."]
Result: TypeAlias = Float[Array, "..."]
Mask: TypeAlias = Bool[Array, "*shape"]


class L1(AbstractCertifiedPenalty):
    """The sum of magnitudes: Σ strength·|zᵢ|.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative.

    Gradient:
        Of the value at zᵢ = 0: 0.

    Reference:
        Tibshirani (1996), Regression shrinkage and selection via the lasso.

    Example:
        >>> import jax.numpy as jnp
        >>> penalty = L1(0.5)
        >>> print(penalty.value(jnp.array([1.0, -3.0])), penalty.prox(jnp.array([1.0, -3.0]), 2.0))
        2.0 [ 0. -2.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·|codeᵢ|."""
        code, strength = as_code(code, self.strength)
        return weighted_sum(strength, magnitude(code))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return argmin_u ½‖u − v‖² + step_size·Σ strength·|uᵢ|: soft thresholding."""
        v = real_array("v", v)
        return soft_threshold(v, step_times(step_size, self.strength, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalized."""
        return (real_array("code", code) != 0) | (self.strength == 0)

    def certificate(self, code: Float[Array, "*shape"], correlation: Float[Array, "*shape"]) -> Certificate:
        """Return s = min(1, minᵢ λᵢ/|cᵢ|) and Σᵢ (λᵢ|zᵢ| − s·zᵢcᵢ), with λ the strength."""
        strength = self.strength.astype(code.dtype)
        scale = largest_scale(jnp.abs(correlation), strength)
        rest = jnp.sum(slack(strength, code, scale * correlation))
        return Certificate(scale, rest, jnp.all(strength > 0))

    def in_units(self, unit: Scalar) -> "L1":
        """Return the same penalty with strength/unit."""
        return L1(in_unit(self.strength, unit))


class NonNegativeL1(AbstractCertifiedPenalty):
    """The sum of coefficients that may not be negative: Σ strength·zᵢ if every zᵢ ≥ 0, else +∞.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative.

    Gradient:
        Of the value: strength where zᵢ > 0, 0 elsewhere; never NaN, also where the value is infinite.

    Reference:
        Hoyer (2002), Non-negative sparse coding.

    Example:
        >>> import jax.numpy as jnp
        >>> penalty = NonNegativeL1(0.5)
        >>> print(penalty.value(jnp.array([1.0, 3.0])), penalty.value(jnp.array([1.0, -3.0])))
        2.0 inf
        >>> print(penalty.prox(jnp.array([3.0, -3.0]), 2.0))
        [2. 0.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·codeᵢ, or +∞ if a coefficient is negative."""
        code, strength = as_code(code, self.strength)
        allowed = weighted_sum(strength, jnp.where(code < 0, 0, magnitude(code)))
        return allowed + jnp.where(jnp.any(code < 0), jnp.asarray(jnp.inf, code.dtype), 0)

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return argmin_{u ≥ 0} ½‖u − v‖² + step_size·Σ strength·uᵢ."""
        v = real_array("v", v)
        return nonnegative_soft_threshold(v, step_times(step_size, self.strength, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero: one whose strength is 0 is held by the constraint."""
        return real_array("code", code) != 0

    def certificate(self, code: Float[Array, "*shape"], correlation: Float[Array, "*shape"]) -> Certificate:
        """Return s = min(1, minᵢ λᵢ/cᵢ over cᵢ > 0) and Σᵢ (λᵢzᵢ − s·zᵢcᵢ); infinity for a negative zᵢ."""
        strength = self.strength.astype(code.dtype)
        scale = largest_scale(correlation, strength)
        rest = jnp.sum(slack(strength, code, scale * correlation))
        rest = jnp.where(jnp.any(code < 0), jnp.inf, rest)
        return Certificate(scale, rest, jnp.all(strength > 0))

    def in_units(self, unit: Scalar) -> "NonNegativeL1":
        """Return the same penalty with strength/unit."""
        return NonNegativeL1(in_unit(self.strength, unit))


class ElasticNet(AbstractCertifiedPenalty):
    """Magnitudes and squares: Σ l1·|zᵢ| + ½·Σ l2·zᵢ².

    Attributes:
        l1: ≥ 0, of any shape that broadcasts against the code.
        l2: ≥ 0, likewise; mind the ½.

    Raises:
        ValueError: at construction, if a concrete l1 or l2 is negative.

    Gradient:
        Of the value at zᵢ = 0: 0.

    Reference:
        Zou & Hastie (2005), Regularization and variable selection via the elastic net.

    Example:
        >>> import jax.numpy as jnp
        >>> penalty = ElasticNet(1.0, 0.5)
        >>> print(penalty.value(jnp.array([2.0, 0.0])), penalty.prox(jnp.array([4.0, 0.5]), 2.0))
        3.0 [1. 0.]
    """

    l1: Float[Array, "..."] = eqx.field(converter=nonnegative("l1"))
    l2: Float[Array, "..."] = eqx.field(converter=nonnegative("l2"))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ l1·|codeᵢ| + ½·Σ l2·codeᵢ²."""
        code, l1, l2 = as_code(code, self.l1, self.l2)
        # Not l2·code²: beside a very large l2 the squares of codes leave the range of numbers.
        return weighted_sum(l1, magnitude(code)) + jnp.sum(unless_held(l2, code) * code / 2 * code)

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return soft(v, step_size·l1)/(1 + step_size·l2)."""
        v = real_array("v", v)
        shrunk = soft_threshold(v, step_times(step_size, self.l1, v))
        return shrunk / (1 + step_times(step_size, self.l2, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalized."""
        return (real_array("code", code) != 0) | (self.l1 == 0)

    def certificate(self, code: Float[Array, "*shape"], correlation: Float[Array, "*shape"]) -> Certificate:
        """Return the parts of the gap for two dual points, the second for nets so strong that it counts.

        The first is L1's on the data (x, 0) and the atoms (atoms, √l2·I): with p = c − l2·z it has
        s = min(1, minᵢ l1ᵢ/|pᵢ|) and Σᵢ (l1ᵢ|zᵢ| − s·zᵢpᵢ) + ½(1 − s)²·l2ᵢzᵢ². A coefficient whose l1 is 0,
        or lost in the rounding of c, does not bind s. It adds what all coefficients add at the second point,
        which has s = 1: (l1ᵢ|zᵢ| − zᵢqᵢ) + (l2ᵢzᵢ − (s·cᵢ − qᵢ))²/2l2ᵢ, with q = s·c clipped to [−l1ᵢ, l1ᵢ].
        """
        l1, l2 = self.l1.astype(code.dtype), self.l2.astype(code.dtype)
        curved = unless_held(l2, code) * code
        pull = correlation - curved

        def ridge(scale: Array) -> Array:
            clipped = jnp.clip(scale * correlation, -l1, l1)
            return slack(l1, code, clipped) + ridge_slack(l2, curved - (scale * correlation - clipped))

        least = jnp.finfo(code.dtype).eps ** 0.5 * jnp.max(jnp.abs(correlation))
        is_ridge = (l2 > 0) & (l1 <= least)
        scale = largest_scale(jnp.abs(pull), l1, ~is_ridge)
        bent = slack(l1, code, scale * pull) + 0.5 * (1 - scale) ** 2 * curved * code
        rest = jnp.sum(jnp.where(is_ridge, ridge(scale), bent))
        one = jnp.ones_like(scale)
        second = jnp.where(jnp.all(l2 > 0), jnp.sum(ridge(one)), jnp.inf)
        can_close = jnp.all((l1 > 0) | (l2 > 0))
        return Certificate(jnp.stack([scale, one]), jnp.stack([rest, second]), can_close)

    def conjugate_bound(self, correlation: Float[Array, "*shape"]) -> Scalar:
        """Return Σᵢ cᵢ²/2l2ᵢ, or infinity where an l2 is 0 and its cᵢ is not."""
        return jnp.sum(ridge_slack(self.l2.astype(correlation.dtype), correlation))

    def in_units(self, unit: Scalar) -> "ElasticNet":
        """Return the same penalty with l1/unit."""
        return ElasticNet(in_unit(self.l1, unit), self.l2)


class L0(AbstractValuedPenalty, AbstractProximalPenalty):
    """The number of coefficients that are not zero: Σ strength·1[zᵢ ≠ 0].

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative.

    Gradient:
        Of the value with respect to the code: 0 everywhere.

    Reference:
        Blumensath & Davies (2008), Iterative thresholding for sparse approximations.

    Example:
        >>> import jax.numpy as jnp
        >>> penalty = L0(0.5)
        >>> print(penalty.value(jnp.array([2.0, 0.0])), penalty.prox(jnp.array([2.0, 1.0]), 4.0))
        0.5 [0. 0.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def value(self, code: Code) -> Scalar:
        """Return Σ strength·1[codeᵢ ≠ 0]."""
        code, strength = as_code(code, self.strength)
        counted = jnp.where(code != 0, strength, 0)
        return jnp.sum(jnp.where(jnp.isnan(code), code, counted))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return v where |v| > √(2·step_size·strength), 0 elsewhere."""
        v = real_array("v", v)
        return hard_threshold(v, step_times(step_size, self.strength, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalized."""
        return (real_array("code", code) != 0) | (self.strength == 0)


class Log(AbstractProximalPenalty):
    """The logarithm of magnitudes, strength·ln|zᵢ|, by its outer stationary branch alone.

    It has no value: ln|z| falls without bound at 0.

    Attributes:
        strength: ≥ 0, of any shape that broadcasts against the code.

    Raises:
        ValueError: at construction, if a concrete strength is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> print(Log(0.5).prox(jnp.array([2.5, 1.0]), 2.0))
        [2. 0.]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = True

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return the larger stationary point of ½(u − v)² + step_size·strength·ln|u|, or 0 without one."""
        v = real_array("v", v)
        return log_threshold(v, step_times(step_size, self.strength, v))

    def gradient(self, code: Code) -> Result:
        """Return strength/codeᵢ, and 0 at zero."""
        code = real_array("code", code)
        strength = self.strength.astype(code.dtype)
        return jnp.where(code == 0, 0, strength / jnp.where(code == 0, 1, code))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalized."""
        return (real_array("code", code) != 0) | (self.strength == 0)
