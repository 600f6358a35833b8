"""Rows of a matrix, each a direction."""

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["unit_rows"]


def unit_rows(rows: Float[Array, "rows features"], floor: float = 1e-8) -> Float[Array, "rows features"]:
    """Scale every row to unit length: a / max(‖a‖₂, floor); the gradient is finite at a row of zeros too."""
    squares = jnp.sum(rows**2, axis=1, keepdims=True)
    # The square root's slope at 0 is infinite.
    norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)
    return rows / jnp.maximum(norms, floor)
