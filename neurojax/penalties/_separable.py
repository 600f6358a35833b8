"""Penalties that are sums over coefficients."""

from typing import ClassVar, TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from neurojax._types import Scalar
from neurojax.penalties._abstract import AbstractProximalPenalty, AbstractValuedPenalty
from neurojax.penalties._strengths import (
    as_code,
    magnitude,
    nonnegative,
    positive,
    step_times,
    weighted_sum,
)
from neurojax.penalties._thresholds import (
    cauchy_threshold,
    hard_threshold,
    log_threshold,
    nonnegative_soft_threshold,
    soft_threshold,
)

__all__ = ["L0", "L1", "Cauchy", "ElasticNet", "Gaussian", "Log", "NonNegativeL1", "SmoothL1"]

Code: TypeAlias = Float[ArrayLike, "*shape"]
Step: TypeAlias = Real[ArrayLike, "..."]
Result: TypeAlias = Float[Array, "..."]
Mask: TypeAlias = Bool[Array, "*shape"]


class L1(AbstractValuedPenalty, AbstractProximalPenalty):
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
        return soft_threshold(v, step_times(step_size, self.strength, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalised."""
        return (jnp.asarray(code) != 0) | (self.strength == 0)


class NonNegativeL1(AbstractValuedPenalty, AbstractProximalPenalty):
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
        return nonnegative_soft_threshold(v, step_times(step_size, self.strength, v))


class ElasticNet(AbstractValuedPenalty, AbstractProximalPenalty):
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
        return weighted_sum(l1, magnitude(code)) + weighted_sum(l2, code**2) / 2

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return soft(v, step_size·l1)/(1 + step_size·l2)."""
        shrunk = soft_threshold(v, step_times(step_size, self.l1, v))
        return shrunk / (1 + step_times(step_size, self.l2, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalised."""
        return (jnp.asarray(code) != 0) | (self.l1 == 0)


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
        return hard_threshold(v, step_times(step_size, self.strength, v))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalised."""
        return (jnp.asarray(code) != 0) | (self.strength == 0)


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
        return jnp.sum(strength * jnp.log1p((code / scale) ** 2))

    def prox(self, v: Code, step_size: Step) -> Result:
        """Return the global argmin_u ½‖u − v‖² + step_size·Σ strength·ln(1 + (uᵢ/scale)²)."""
        t = step_times(step_size, self.strength, v)
        v, scale = as_code(v, self.scale)
        return scale * cauchy_threshold(v / scale, t / scale / scale)


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
        return log_threshold(v, step_times(step_size, self.strength, v))

    def gradient(self, code: Code) -> Result:
        """Return strength/codeᵢ, and 0 at zero."""
        code, strength = as_code(code, self.strength)
        return jnp.where(code == 0, 0, strength / jnp.where(code == 0, 1, code))

    def support(self, code: Code) -> Mask:
        """Return which coefficients are not zero, or not penalised."""
        return (jnp.asarray(code) != 0) | (self.strength == 0)


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
        return jnp.sum(strength * jnp.sqrt(code**2 + epsilon))


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
        return jnp.sum(-strength * jnp.expm1(-((code / scale) ** 2)))
