"""The parts of which certificates are made: the largest feasible scale, and the slack of a coefficient."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._types import Scalar

__all__ = ["largest_scale", "ridge_slack", "slack"]

Numbers = Float[ArrayLike, "..."]


def largest_scale(pull: Numbers, bound: Numbers, is_bound: ArrayLike = True) -> Scalar:
    """Return the largest s ≤ 1 with s·pullᵢ ≤ boundᵢ wherever that is asked for: the scale of a certificate.

    Args:
        pull: real numbers, such as |c| for the correlation c of the error with the atoms.
        bound: ≥ 0, such as the strength, of any shape that broadcasts against ``pull``.
        is_bound: where to ask.

    Example:
        >>> import jax.numpy as jnp
        >>> print(largest_scale(jnp.array([2.0, 0.1]), jnp.array(0.5)))
        0.25
    """
    pull, bound = real_array("pull", pull), real_array("bound", bound)
    if is_bound is True and jnp.ndim(bound) == 0:
        pull = jnp.max(pull)
    is_over = is_bound & (pull > bound)
    return jnp.min(jnp.where(is_over, bound / jnp.where(is_over, pull, 1), 1))


def slack(
    strength: Numbers, code: Float[ArrayLike, "*shape"], pull: Float[ArrayLike, "*shape"]
) -> Float[Array, "*shape"]:
    """Return strengthᵢ|zᵢ| − zᵢpᵢ: by how much a coefficient's penalty exceeds what its pull p gains.

    For |pᵢ| ≤ strengthᵢ it is not negative, up to rounding, which is cut off, and at a solution it is 0. At
    zᵢ = 0 it is 0 for an infinite strength too.

    Args:
        strength: ≥ 0, of any shape that broadcasts against the code.
        code: z.
        pull: p, such as the scaled correlation s·c.

    Example:
        >>> import jax.numpy as jnp
        >>> print(slack(0.5, jnp.array([2.0, -1.0, 0.0]), jnp.array([0.5, 0.25, 0.5])))
        [0.   0.75 0.  ]
    """
    strength, code, pull = (
        real_array(name, value) for name, value in (("strength", strength), ("code", code), ("pull", pull))
    )
    return jnp.maximum(jnp.where(code == 0, 0, strength * jnp.abs(code) - code * pull), 0)


def ridge_slack(l2: Numbers, lack: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Return lackᵢ²/2l2ᵢ, which for a lack of l2·z − p is by how much ½·l2·z² − z·p exceeds its minimum.

    It is 0 where the lack is 0. Where l2ᵢ is 0 any other lack gives infinity: there is no minimum.

    Args:
        l2: ≥ 0, of any shape that broadcasts against ``lack``.
        lack: real numbers, 0 at a solution.

    Example:
        >>> import jax.numpy as jnp
        >>> print(ridge_slack(jnp.array([2.0, 0.0, 0.0]), jnp.array([2.0, 0.0, 1.0])))
        [ 1.  0. inf]
    """
    l2, lack = real_array("l2", l2), real_array("lack", lack)
    # A lack of 0 or infinity is its own square, whatever l2 is.
    return lack / 2 * (lack / jnp.where((lack == 0) | jnp.isinf(lack), 1, l2))
