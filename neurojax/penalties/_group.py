"""Penalties on groups of coefficients."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._arrays import real_array
from .._checks import check_at_least
from .._compensated import accurate_total, power_of_two_near, square_terms
from .._types import Scalar
from ._abstract import AbstractCertifiedPenalty, Certificate
from ._certificates import largest_scale, slack
from ._strengths import (
    as_code,
    check_one_step,
    in_unit,
    magnitude,
    nonnegative,
    step_times,
    weighted_sum,
    widened,
)
from ._thresholds import soft_threshold

__all__ = ["GroupL2", "SparseGroupL2"]


class GroupL2(AbstractCertifiedPenalty):
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
        return weighted_sum(strength, _length(self._groups("code", code)))

    def prox(
        self, v: Float[ArrayLike, "*batch atoms"], step_size: Real[ArrayLike, "..."]
    ) -> Float[Array, "..."]:
        """Return v_g·max(1 − step_size·strength/‖v_g‖₂, 0) for each group.

        ``step_size`` broadcasts against "... groups", as the strength does.
        """
        given = real_array("v", v)
        v = widened(given)
        u = _shrunk(self._groups("v", v), step_times(step_size, self.strength, v))
        return _joined(u).astype(given.dtype)

    def support(self, code: Float[ArrayLike, "*batch atoms"]) -> Bool[Array, "*batch atoms"]:
        """Return which coefficients are in a group that is not zero, or not penalized."""
        code = real_array("code", code)
        is_active = jnp.any(self._groups("code", code) != 0, axis=-1) | (self.strength == 0)
        return jnp.repeat(is_active, self.group_size, axis=-1)

    def certificate(
        self, code: Float[Array, "*batch atoms"], correlation: Float[Array, "*batch atoms"]
    ) -> Certificate:
        """Return s = min(1, min_g λ_g/‖c_g‖) and Σ_g (λ_g‖z_g‖ − s⟨z_g, c_g⟩), with λ the strength."""
        strength = self.strength.astype(code.dtype)
        codes, pulls = self._groups("code", code), self._groups("correlation", correlation)
        scale = largest_scale(_length(pulls), strength)
        rest = group_slack(strength, codes, scale * pulls)
        return Certificate(scale, jnp.sum(rest), jnp.all(strength > 0))

    def in_units(self, unit: Scalar) -> "GroupL2":
        """Return the same penalty with strength/unit."""
        return GroupL2(in_unit(self.strength, unit), self.group_size)

    def _groups(self, name: str, code: Array) -> Array:
        return _groups(name, code, self.group_size)


class SparseGroupL2(AbstractCertifiedPenalty):
    """Magnitudes and lengths of groups: l1·Σᵢ |zᵢ| + l2·Σ_g ‖z_g‖₂, with no factor for the size of a group.

    Few groups are not zero, and within these few coefficients. A group is ``group_size`` coefficients that
    follow each other on the last axis. With l1 = 0 it is `GroupL2`, with l2 = 0 or groups of one `L1`.

    Attributes:
        l1: ≥ 0, of any shape that broadcasts against the code, "... atoms".
        l2: ≥ 0, a scalar or one per group (any shape that broadcasts against "... groups").
        group_size: how many coefficients make a group, ≥ 1; static.

    Raises:
        ValueError: at construction, if a concrete l1 or l2 is negative or group_size < 1; in use, if
            group_size does not divide the number of coefficients.

    Gradient:
        0 at a coefficient and at a group that is zero, of the value as of the operator, unless nothing
        penalizes them.

    Reference:
        Simon, Friedman, Hastie & Tibshirani (2013), A sparse-group lasso, without their √size.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = SparseGroupL2(1.0, 2.5, group_size=2)
        >>> value_and_prox = jax.jit(lambda code: (penalty.value(code), penalty.prox(code, 1.0)))
        >>> print(*value_and_prox(jnp.array([4.0, -5.0, 2.0, 0.0])))
        32.00781 [ 1.5 -2.   0.   0. ]
    """

    l1: Float[Array, "..."] = eqx.field(converter=nonnegative("l1"))
    l2: Float[Array, "..."] = eqx.field(converter=nonnegative("l2"))
    group_size: int = eqx.field(static=True)
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def __check_init__(self):
        check_at_least("group_size", self.group_size, 1)

    def value(self, code: Float[ArrayLike, "*batch atoms"]) -> Scalar:
        """Return Σᵢ l1·|codeᵢ| + Σ_g l2·‖code_g‖₂."""
        code, l1, l2 = as_code(code, self.l1, self.l2)
        lengths = _length(self._groups("code", code))
        return weighted_sum(l1, magnitude(code)) + weighted_sum(l2, lengths)

    def prox(
        self, v: Float[ArrayLike, "*batch atoms"], step_size: Real[ArrayLike, "..."]
    ) -> Float[Array, "..."]:
        """Return the operator of `GroupL2` with l2 after that of `L1` with l1, which is exact.

        ``step_size`` is one number, or one for each of the leading axes: then its last axis is of size 1.

        Raises:
            ValueError: for step sizes that differ along the last axis, which the groups couple.
        """
        given = real_array("v", v)
        v = widened(given)
        check_one_step(step_size)
        soft = soft_threshold(v, step_times(step_size, self.l1, v))
        u = _shrunk(self._groups("v", soft), step_times(step_size, self.l2, v))
        return _joined(u).astype(given.dtype)

    def support(self, code: Float[ArrayLike, "*batch atoms"]) -> Bool[Array, "*batch atoms"]:
        """Return which coefficients are not held at 0, by their own penalty or by that of their group.

        They are not zero or have l1 = 0, and their group is not zero or has l2 = 0.
        """
        code = real_array("code", code)
        groups = self._groups("code", code)
        is_open = jnp.any(groups != 0, axis=-1) | (self.l2 == 0)
        return jnp.repeat(is_open, self.group_size, axis=-1) & ((code != 0) | (self.l1 == 0))

    def certificate(
        self, code: Float[Array, "*batch atoms"], correlation: Float[Array, "*batch atoms"]
    ) -> Certificate:
        """Return s and Σᵢ (l1ᵢ|zᵢ| − zᵢpᵢ) + Σ_g (l2_g‖z_g‖ − ⟨z_g, q_g⟩).

        Here p is s·c clipped to [−l1, l1] and q = s·c − p, which is soft(s·c, l1). The scale s is the largest
        s ≤ 1 with ‖q_g‖ ≤ l2_g for every group.
        """
        l1, l2 = self.l1.astype(code.dtype), self.l2.astype(code.dtype)
        members = self._groups("l1", jnp.broadcast_to(l1, correlation.shape))
        scale = _largest_group_scale(self._groups("correlation", jnp.abs(correlation)), members, l2)
        clipped = jnp.clip(scale * correlation, -l1, l1)
        beyond = self._groups("correlation", scale * correlation - clipped)
        rest = jnp.sum(slack(l1, code, clipped))
        rest = rest + jnp.sum(group_slack(l2, self._groups("code", code), beyond))
        is_penalized = (members > 0) | (l2[..., None] > 0)
        return Certificate(scale, rest, jnp.all(is_penalized))

    def in_units(self, unit: Scalar) -> "SparseGroupL2":
        """Return the same penalty with l1/unit and l2/unit."""
        return SparseGroupL2(in_unit(self.l1, unit), in_unit(self.l2, unit), self.group_size)

    def _groups(self, name: str, code: Array) -> Array:
        return _groups(name, code, self.group_size)


def _groups(name: str, code: Array, group_size: int) -> Array:
    """Return a code with an axis of groups in place of its last axis, and one of their members after it."""
    if np.ndim(code) == 0 or code.shape[-1] % group_size:
        raise ValueError(
            f"{name}: expected a number of coefficients that group_size {group_size} divides, "
            f"got shape {code.shape}."
        )
    return code.reshape(*code.shape[:-1], -1, group_size)


def _joined(groups: Array) -> Array:
    """Return groups as the last axis of a code."""
    return groups.reshape(*groups.shape[:-2], groups.shape[-2] * groups.shape[-1])


def _shrunk(groups: Array, t: Array) -> Array:
    """Return each group times max(1 − t/‖group‖, 0)."""
    length = _length(groups)
    excess = _excess(groups, length, t)
    excess = jnp.where((excess <= 0) & (t > 0), 0, excess)
    is_identity = ((length == 0) & (t == 0)) | jnp.isinf(length)
    factor = jnp.where(is_identity, 1, excess / jnp.where(is_identity | (length == 0), 1, length))
    return factor[..., None] * groups


def _largest_group_scale(pulls: Array, l1: Array, l2: Array) -> Scalar:
    """Return the largest s ≤ 1 with ‖max(s·pulls_g − l1_g, 0)‖ ≤ l2_g in every group, for pulls ≥ 0.

    Newton's method from above: the length is a convex function of s, so that no step goes past the root. The
    start is where one coefficient alone reaches its bound; no length is there more than √size·l2_g. A step
    that does not lower s ends it.
    """
    bound = l1 + l2[..., None]

    def lower(scale):
        excess = jnp.maximum(scale * pulls - l1, 0)
        length = _length(excess)
        is_over = length > l2
        slope = jnp.sum(pulls * (excess / jnp.where(is_over, length, 1)[..., None]), axis=-1)
        step = jnp.where(is_over, (length - l2) / jnp.where(is_over, slope, 1), 0)
        return scale - jnp.max(step)

    first = largest_scale(pulls, bound)
    state = lax.while_loop(
        lambda state: state[1] < state[0], lambda state: (state[1], lower(state[1])), (first, lower(first))
    )
    return state[0]


def group_slack(strength: Array, codes: Array, pulls: Array) -> Array:
    """Return strength_g‖z_g‖ − ⟨z_g, p_g⟩ ≥ 0, from ‖p_g‖ ≤ strength_g; rounding alone makes it negative."""
    length = _length(codes)
    terms = strength * length - jnp.sum(codes * pulls, axis=-1)
    return jnp.maximum(jnp.where(length == 0, 0, terms), 0)


def _length(groups):
    """Return ‖·‖₂ over the last axis, with derivative 0 at zero and without overflow."""
    largest = lax.stop_gradient(jnp.max(jnp.abs(groups), axis=-1, keepdims=True))
    is_zero = largest == 0
    scale = jnp.where(is_zero | jnp.isinf(largest), 1, largest)
    total = jnp.sum((groups / scale) ** 2, axis=-1)
    return jnp.where(is_zero[..., 0], 0, scale[..., 0] * jnp.sqrt(jnp.where(is_zero[..., 0], 1, total)))


def _excess(groups, length, t):
    """Return length − t as (length² − t²)/(length + t), whose numerator is free of cancellation."""
    rounded = length - t
    groups, length, t = lax.stop_gradient((groups, length, t))
    largest = jnp.maximum(length, t)
    c = power_of_two_near(jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1))
    squares = square_terms(groups / c[..., None])
    minus = [-term[..., None] for term in square_terms(t / c)]
    terms = jnp.concatenate([jnp.broadcast_to(x, (*c.shape, x.shape[-1])) for x in (*squares, *minus)], -1)
    total = accurate_total(terms)
    accurate = total / jnp.where(largest > 0, length / c + t / c, 1) * c
    # The value of the accurate difference, with the derivative of the rounded one.
    accurate = accurate + (rounded - lax.stop_gradient(rounded))
    return jnp.where(jnp.isfinite(rounded), accurate, rounded)
