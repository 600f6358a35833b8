"""Products at the full precision of their numbers."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["network_precision", "network_product", "product"]

# A GPU would otherwise round the factors of a float32 product to tf32.
product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


def network_precision() -> jax.lax.Precision | None:
    """Return the precision of products in a network: the user's, and full precision if none was set.

    ``None`` stands for the setting of ``jax.default_matmul_precision``.
    """
    is_set = jax.config.jax_default_matmul_precision is not None  # type: ignore[attr-defined]
    return None if is_set else jax.lax.Precision.HIGHEST


def network_product(left: Array, right: Array) -> Array:
    """Return ``left @ right`` at the precision of a network."""
    return jnp.matmul(left, right, precision=network_precision())
