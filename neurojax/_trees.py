"""Trees of arrays and other things: what derivatives may see of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["constant", "finite_or_zero"]


def constant(tree):
    """Return ``tree`` with no derivative."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(lax.stop_gradient(arrays), rest)


def finite_or_zero(tree):
    """Return ``tree`` with NaN and infinity replaced by zero: where derivatives are taken, never a value."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), numbers), rest)
