"""Thresholding operators: elementwise, exact, with derivatives that are never NaN."""

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_nonnegative
from .._compensated import accurate_sum, power_of_two_near, square_terms
from ._cauchy import cauchy_root
from ._strengths import real_number

__all__ = [
    "cauchy_threshold",
    "hard_threshold",
    "log_threshold",
    "nonnegative_soft_threshold",
    "soft_threshold",
]

Input: TypeAlias = Float[ArrayLike, "*#shape"]
Threshold: TypeAlias = Real[ArrayLike, "*#shape"]


def _arguments(v: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    """Return ``v`` and ``t``, checked, as arrays of one shape and of the dtype of ``v``."""
    v, t = real_array("v", v), real_number("t", t)
    check_nonnegative("t", t)
    v, t = jnp.broadcast_arrays(v, jnp.asarray(t, v.dtype))
    return v, t


def soft_threshold(v: Input, t: Threshold) -> Float[Array, "..."]:
    """Shrink towards zero by t: argmin_u ½(u − v)² + t·|u| = sign(v)·max(|v| − t, 0).

    Args:
        v: real numbers of any shape.
        t: threshold ≥ 0, in the unit of v; broadcast against v and cast to its dtype.

    Returns:
        The minimizer, in the dtype of v and the common shape of v and t.

    Raises:
        ValueError: if v or t does not hold real numbers or a concrete t is negative or NaN.

    Gradient:
        du/dv = 1 and du/dt = −sign(v) where |v| > t, both 0 where |v| ≤ t; for t = 0, du/dv = 1 at v = 0 too.

    Reference:
        Donoho & Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage.

    Example:
        >>> import jax.numpy as jnp
        >>> print(soft_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0))
        [-2.  0.  1.]
    """
    v, t = _arguments(v, t)
    return jnp.where((jnp.abs(v) <= t) & (t > 0), 0, v - jnp.sign(v) * t)


def nonnegative_soft_threshold(v: Input, t: Threshold) -> Float[Array, "..."]:
    """Shrink by t and cut below zero: argmin_{u ≥ 0} ½(u − v)² + t·u = max(v − t, 0).

    Args:
        v: real numbers of any shape.
        t: threshold ≥ 0, in the unit of v; broadcast against v and cast to its dtype.

    Returns:
        The minimizer, ≥ 0, in the dtype of v and the common shape of v and t.

    Raises:
        ValueError: if v or t does not hold real numbers or a concrete t is negative or NaN.

    Gradient:
        du/dv = 1 and du/dt = −1 where v > t, both 0 elsewhere.

    Example:
        >>> import jax.numpy as jnp
        >>> print(nonnegative_soft_threshold(jnp.array([-3.0, 0.5, 2.0]), 1.0))
        [0. 0. 1.]
    """
    v, t = _arguments(v, t)
    return jnp.where(v <= t, 0, v - t)


def hard_threshold(v: Input, t: Threshold) -> Float[Array, "..."]:
    """Keep or cut: argmin_u ½(u − v)² + t·1[u ≠ 0] = v where |v| > √(2t), 0 elsewhere.

    The cut is at √(2t), not at t: pass t = h²/2 to cut at h.

    Args:
        v: real numbers of any shape.
        t: cost of a number that is not zero, ≥ 0, in the squared unit of v; broadcast against v and cast to
            its dtype.

    Returns:
        The minimizer, in the dtype of v and the common shape of v and t; 0 at the tie |v| = √(2t).

    Raises:
        ValueError: if v or t does not hold real numbers or a concrete t is negative or NaN.

    Gradient:
        du/dv = 1 where |v| > √(2t), 0 elsewhere; du/dt = 0. The jump contributes nothing. For t = 0,
        du/dv = 1 everywhere.

    Reference:
        Blumensath & Davies (2008), Iterative thresholding for sparse approximations.

    Example:
        >>> import jax.numpy as jnp
        >>> print(hard_threshold(jnp.array([-3.0, 0.5, 2.5]), 2.0))
        [-3.   0.   2.5]
    """
    v, t = _arguments(v, t)
    cut = jnp.sqrt(2 * jax.lax.stop_gradient(t))
    u = jnp.where((jnp.abs(v) <= cut) & (t > 0), 0, v)
    return jnp.where(jnp.isnan(t), t, u)


def cauchy_threshold(v: Input, t: Threshold) -> Float[Array, "..."]:
    """Shrink small numbers and keep large ones: argmin_u ½(u − v)² + t·ln(1 + u²).

    The global minimizer for every v and t, a root of (u − v)(1 + u²) + 2tu = 0. For t ≤ 4 it is continuous
    in v; for t > 4 it jumps where two minima tie. Nothing becomes exactly zero: ln(1 + u²) is smooth there.

    Args:
        v: real numbers of any shape, in units of the penalty's scale.
        t: strength ≥ 0; broadcast against v and cast to its dtype.

    Returns:
        The minimizer, in the dtype of v and the common shape of v and t; the smaller one at a tie.

    Raises:
        ValueError: if v or t does not hold real numbers or a concrete t is negative or NaN.

    Gradient:
        du/dv = 1/(1 + t·S″(u)) and du/dt = −S′(u)/(1 + t·S″(u)) with S(u) = ln(1 + u²), on the branch taken.
        The slope is infinite at one point, t = 4 and |v| = 3√3: there it is a large finite number.

    Reference:
        Karakuş, Mayo & Achim (2020), Convergence guarantees for non-convex optimisation with Cauchy-based
        penalties.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> [round(u, 4) for u in jax.jit(cauchy_threshold)(jnp.array([-10.0, 0.0, 2.0]), 0.5).tolist()]
        [-9.9, 0.0, 1.5437]
    """
    v, t = _arguments(v, t)
    wide = jnp.promote_types(v.dtype, jnp.float32)
    return cauchy_root(v.astype(wide), t.astype(wide)).astype(v.dtype)


def log_threshold(v: Input, t: Threshold) -> Float[Array, "..."]:
    """Cut small numbers and keep large ones: the outer stationary branch of ½(u − v)² + t·ln|u|.

    u = (v + sign(v)·√(v² − 4t))/2 where |v| ≥ 2√t, 0 elsewhere. ln|u| has no minimum at 0, so this is no
    minimizer: it is the larger root of u(u − v) + t = 0 where there is one. It jumps by √t at |v| = 2√t.

    Args:
        v: real numbers of any shape.
        t: strength ≥ 0, in the squared unit of v; broadcast against v and cast to its dtype.

    Returns:
        The thresholded numbers, in the dtype of v and the common shape of v and t.

    Raises:
        ValueError: if v or t does not hold real numbers or a concrete t is negative or NaN.

    Gradient:
        du/dv = u²/(u² − t) and du/dt = −u/(u² − t) outside, 0 inside. At |v| = 2√t the slope is infinite:
        there it is a large finite number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(jax.jit(log_threshold)(jnp.array([-5.0, 1.0, 2.5]), 1.0))
        [-4.791288  0.        2.      ]
    """
    v, t = _arguments(v, t)
    wide = jnp.promote_types(v.dtype, jnp.float32)
    size, threshold = jnp.abs(v).astype(wide), t.astype(wide)
    u = jnp.where(_log_excess(size, threshold)[0] < 0, 0, (size + _log_root(size, threshold)) / 2)
    u = jnp.where((threshold == 0) & (size == 0), v, jnp.sign(v) * u)
    return u.astype(v.dtype)


def _log_excess(size, t):
    """Return (size² − 4t)/c², accurate where it cancels, and c, a power of two near max(size, 2√t)."""
    size, t = jax.lax.stop_gradient((size, t))
    largest = jnp.maximum(size, 2 * jnp.sqrt(t))
    least = jnp.sqrt(jnp.finfo(size.dtype).tiny) * 8  # c² is a normal number: compilers divide by it
    c = power_of_two_near(jnp.where(jnp.isfinite(largest), jnp.maximum(largest, least), 1))
    excess = accurate_sum(*square_terms(size / c), -4 * (t / c / c))
    return jnp.where(jnp.isinf(t), -jnp.inf, jnp.where(jnp.isinf(size), jnp.inf, excess)), c


@jax.custom_jvp
def _log_root(size, t):
    """Return √max(size² − 4t, 0)."""
    excess, c = _log_excess(size, t)
    return c * jnp.sqrt(jnp.maximum(excess, 0))


@_log_root.defjvp
def _log_root_jvp(primals, tangents):
    size, t = primals
    root = _log_root(size, t)
    largest = jnp.finfo(root.dtype).max * jnp.finfo(root.dtype).eps  # its inverse is a normal number
    size, bounded = jnp.minimum(size, largest), jnp.minimum(root, largest)
    largest = jax.lax.stop_gradient(jnp.maximum(size, 2 * jnp.sqrt(t)))
    floor = jnp.where(largest > 0, largest, 1) * jnp.finfo(size.dtype).eps
    return root, (size * tangents[0] - 2 * tangents[1]) / jnp.maximum(bounded, floor)
