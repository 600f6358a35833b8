"""Products at the full precision of their numbers, and statistics in single precision at least."""

from functools import partial
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["at_least_single", "network_precision", "network_product", "product"]

_Tree = TypeVar("_Tree")

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


def at_least_single(tree: _Tree) -> _Tree:
    """Return arrays in float32 where they are of half precision, for sums and for decompositions.

    A sum in half precision overflows at 65,504 (float16) or stands still at 256 (bfloat16), and LAPACK takes
    neither.

    Args:
        tree: an array, or a tree of which all other leaves stay as they are.
    """

    def widened(leaf):
        is_half = eqx.is_inexact_array(leaf) and jnp.finfo(leaf.dtype).bits < 32
        return leaf.astype(jnp.float32) if is_half else leaf

    return jax.tree.map(widened, tree)
