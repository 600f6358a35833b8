"""Trees of arrays and other things: what derivatives may see of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["bounded", "constant"]


def constant(tree):
    """Return ``tree`` with no derivative."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(lax.stop_gradient(arrays), rest)


def bounded(tree):
    """Return ``tree`` with NaN as 0 and ±infinity as ±√max: for taking derivatives, never as a value.

    Zero times these is zero. Infinity keeps its meaning, as a strength that forbids an atom has it.
    """
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(_bounded, numbers), rest)


def _bounded(leaf):
    largest = float(jnp.finfo(leaf.dtype).max) ** 0.5
    return jnp.nan_to_num(leaf, nan=0.0, posinf=largest, neginf=-largest)
