"""Draws: binary units, the hidden cost of sampling; permutations, entry by entry."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from ._types import PRNGKey

__all__ = ["bernoulli", "mixed_bits", "permuted"]

N_ROUNDS = 12
MIN_SIDE = 8  # smaller squares mix too slowly: some orders of six rows came more often than others


@jax.jit
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


@partial(jax.jit, static_argnames="n")
def permuted(key: PRNGKey, positions: Int[Array, "*shape"], n: int) -> Int[Array, "*shape"]:
    """Return the entries of a random permutation of 0 … n − 1 at these positions, without the others.

    `jax.random.permutation` sorts all n whenever a few are wanted, on every device; this takes about as long
    for one entry of a hundred million as for one of ten. A Feistel network (Luby and Rackoff 1988) over pairs
    (l, r) that number a square of at least n cells: l and r in turns are shifted, modulo the side, by a hash
    of the other. What falls on a cell beyond n goes through again, until it does not ("cycle walking", Black
    and Rogaway 2002). No secret is kept by it: the hash is fast, not cryptographic.

    Args:
        key: of the permutation.
        positions: from 0 to n − 1; not checked.
        n: how many are permuted, at most 2³¹ − 1.
    """
    n_left = max(MIN_SIDE, math.isqrt(n - 1) + 1)
    n_right = max(MIN_SIDE, -(-n // n_left))
    words = jax.random.bits(key, (N_ROUNDS, 2), jnp.uint32)

    def shifted(value, by, words, size):
        high_half = mixed_bits(mixed_bits(by + words[0]) ^ words[1]) >> 16
        value = value + (high_half * jnp.uint32(size) >> 16)
        return jnp.where(value >= size, value - size, value)

    def go_through(cell):
        left, right = cell // n_right, cell % n_right
        for i in range(0, N_ROUNDS, 2):
            left = shifted(left, right, words[i], n_left)
            right = shifted(right, left, words[i + 1], n_right)
        return left * n_right + right

    cells = go_through(positions.astype(jnp.uint32))
    cells = lax.while_loop(
        lambda cells: jnp.any(cells >= n),
        lambda cells: jnp.where(cells >= n, go_through(cells), cells),
        cells,
    )
    return cells.astype(positions.dtype)


def mixed_bits(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Return words of which about half the bits change with any bit of ``word`` (MurmurHash3's finaliser)."""
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
