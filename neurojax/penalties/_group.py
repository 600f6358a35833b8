"""A penalty on groups of coefficients."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from neurojax._checks import check_at_least
from neurojax._types import Scalar
from neurojax.penalties._abstract import AbstractProximalPenalty, AbstractValuedPenalty
from neurojax.penalties._compensated import accurate_total, power_of_two_near, square_terms
from neurojax.penalties._strengths import as_code, nonnegative, step_times

__all__ = ["GroupL2"]


class GroupL2(AbstractValuedPenalty, AbstractProximalPenalty):
    """The sum of the lengths of groups: Σ_g strength·‖z_g‖₂, with no factor for the size of a group.

    A group is ``group_size`` coefficients that follow each other on the last axis.

    Attributes:
        strength: ≥ 0, a scalar or one per group (any shape that broadcasts against "... groups").
        group_size: how many coefficients make a group, ≥ 1; static.

    Raises:
        ValueError: at construction, if a concrete strength is negative or group_size < 1; in use, if
            group_size does not divide the number of coefficients.

    Gradient:
        0 at a group that is zero, of the value as of the operator (for strength 0 the operator is the
        identity, and so is its derivative).

    Reference:
        Yuan & Lin (2006), Model selection and estimation in regression with grouped variables, without
        their √size.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = GroupL2(0.5, group_size=2)
        >>> value_and_prox = jax.jit(lambda code: (penalty.value(code), penalty.prox(code, 5.0)))
        >>> print(*value_and_prox(jnp.array([3.0, 4.0, 0.1, 0.0])))
        2.55 [1.5 2.  0.  0. ]
    """

    strength: Float[Array, "..."] = eqx.field(converter=nonnegative("strength"))
    group_size: int = eqx.field(static=True)
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def __check_init__(self):
        check_at_least("group_size", self.group_size, 1)

    def value(self, code: Float[ArrayLike, "*batch atoms"]) -> Scalar:
        """Return Σ_g strength·‖code_g‖₂."""
        code, strength = as_code(code, self.strength)
        return jnp.sum(strength * _length(self._groups("code", code)))

    def prox(
        self, v: Float[ArrayLike, "*batch atoms"], step_size: Real[ArrayLike, "..."]
    ) -> Float[Array, "..."]:
        """Return v_g·max(1 − step_size·strength/‖v_g‖₂, 0) for each group.

        ``step_size`` broadcasts against "... groups", as the strength does.
        """
        t = step_times(step_size, self.strength, v)
        v = jnp.asarray(v)
        groups = self._groups("v", v)
        length = _length(groups)
        excess = _excess(groups, length, t)
        excess = jnp.where((excess <= 0) & (t > 0), 0, excess)
        is_identity = ((length == 0) & (t == 0)) | jnp.isinf(length)
        factor = jnp.where(is_identity, 1, excess / jnp.where(is_identity | (length == 0), 1, length))
        u = factor[..., None] * groups
        return u.reshape(*u.shape[:-2], v.shape[-1])

    def support(self, code: Float[ArrayLike, "*batch atoms"]) -> Bool[Array, "*batch atoms"]:
        """Return which coefficients are in a group that is not zero, or not penalised."""
        code = jnp.asarray(code)
        is_active = jnp.any(self._groups("code", code) != 0, axis=-1) | (self.strength == 0)
        return jnp.repeat(is_active, self.group_size, axis=-1)

    def _groups(self, name, code):
        if np.ndim(code) == 0 or code.shape[-1] % self.group_size:
            raise ValueError(
                f"{name}: expected a number of coefficients that group_size {self.group_size} divides, "
                f"got shape {code.shape}."
            )
        return code.reshape(*code.shape[:-1], -1, self.group_size)


def _length(groups):
    """Return ‖·‖₂ over the last axis, with derivative 0 at zero and without overflow."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(groups), axis=-1, keepdims=True))
    is_zero = largest == 0
    scale = jnp.where(is_zero | jnp.isinf(largest), 1, largest)
    total = jnp.sum((groups / scale) ** 2, axis=-1)
    return jnp.where(is_zero[..., 0], 0, scale[..., 0] * jnp.sqrt(jnp.where(is_zero[..., 0], 1, total)))


def _excess(groups, length, t):
    """Return length − t as (length² − t²)/(length + t), whose numerator is free of cancellation."""
    rounded = length - t
    groups, length, t = jax.lax.stop_gradient((groups, length, t))
    largest = jnp.maximum(length, t)
    c = power_of_two_near(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    squares = square_terms(groups / c[..., None])
    minus = [-term[..., None] for term in square_terms(t / c)]
    terms = jnp.concatenate([jnp.broadcast_to(x, (*c.shape, x.shape[-1])) for x in (*squares, *minus)], -1)
    total = accurate_total(terms)
    accurate = total / jnp.where(largest > 0, length / c + t / c, 1) * c
    # The value of the accurate difference, with the derivative of the rounded one.
    accurate = accurate + (rounded - jax.lax.stop_gradient(rounded))
    return jnp.where(jnp.isfinite(rounded), accurate, rounded)
