"""Draws of binary units: the hidden cost of sampling."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._types import PRNGKey

__all__ = ["bernoulli"]


def bernoulli(key: PRNGKey, probability: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Draw 0 or 1, 1 with the given probability, in its dtype.

    Up to float32 a unit takes half a 32-bit word, so its probability is rounded to a multiple of 2⁻¹⁶ (off
    by at most 7.7e-6); in float64 it takes a word. A probability that is NaN gives 0.
    """
    if probability.dtype == jnp.float64:
        draws, n_values, wide = jax.random.bits(key, probability.shape, jnp.uint32), 2.0**32, jnp.float64
    else:
        draws, n_values, wide = _half_words(key, probability.shape), 2.0**16, jnp.float32
    # Halves between the integers: P(1)·n_values is then p·n_values rounded to the nearest.
    is_on = draws.astype(wide) + 0.5 < probability.astype(wide) * n_values
    return is_on.astype(probability.dtype)


def _half_words(key: PRNGKey, shape: tuple[int, ...]) -> Array:
    """Return uniform 16-bit integers, two out of each 32-bit word."""
    n = 1
    for size in shape:
        n *= size
    words = jax.random.bits(key, (-(-n // 2),), jnp.uint32)
    return lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:n].reshape(shape)
