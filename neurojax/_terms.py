"""Terms that a loss may have, whatever the model."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._types import Scalar

__all__ = ["activity_divergence", "is_zero"]


def is_zero(strength) -> bool:
    """Return whether a term is left out of the program, rather than multiplied by 0."""
    return isinstance(strength, float | int) and strength == 0


def activity_divergence(target, activity: Float[Array, " units"]) -> Scalar:
    """Return Σⱼ KL(target ‖ activityⱼ) of binary units, activities held off 0 and 1."""
    tiny = jnp.finfo(activity.dtype).eps
    q, target = jnp.clip(activity, tiny, 1 - tiny), jnp.asarray(target, activity.dtype)
    entropies = jax.scipy.special.rel_entr(target, q) + jax.scipy.special.rel_entr(1 - target, 1 - q)
    return jnp.sum(entropies)
