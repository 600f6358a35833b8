"""Sums and differences that keep their leading digits through cancellation.

Twice the working precision where a difference of nearly equal numbers decides the result. Every product
formed here is exact, so that a compiler which fuses a multiplication into an addition changes nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = [
    "accurate_sum",
    "accurate_total",
    "exact_sum",
    "power_of_two_below",
    "power_of_two_near",
    "rounded_up",
    "square_terms",
]


def square_terms(x: Float[Array, "*shape"]) -> tuple[Array, Array, Array]:
    """Return three numbers, each exact in the dtype of ``x``, whose exact sum is x².

    Reference:
        Dekker (1971), A floating-point technique for extending the available precision, section 5.
    """
    high = _with_bits(x, 25 if x.dtype == jnp.float64 else 11)
    low = x - high
    return high * high, 2 * high * low, low * low


def accurate_sum(*terms: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the sum of ``terms`` as if taken in twice the working precision.

    Reference:
        Knuth (1997), The Art of Computer Programming 2, section 4.2.2, theorem B.
    """
    total, lost = terms[0], jnp.zeros_like(terms[0])
    for term in terms[1:]:
        total, error = exact_sum(total, term)
        lost = lost + error
    return total + lost


def accurate_total(x: Float[Array, "*shape terms"]) -> Float[Array, "*shape"]:
    """Return the sum over the last axis as `accurate_sum` takes it, but by halves."""
    lost = jnp.zeros_like(x[..., 0])
    while (n_terms := x.shape[-1]) > 1:
        half = n_terms // 2
        total, error = exact_sum(x[..., :half], x[..., half : 2 * half])
        lost = lost + jnp.sum(error, -1)
        x = jnp.concatenate([total, x[..., 2 * half :]], -1)
    return x[..., 0] + lost


def exact_sum(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> tuple[Array, Array]:
    """Return a + b as it is rounded, and the error of rounding it, exactly."""
    total = a + b
    taken = total - a
    return total, (a - (total - taken)) + (b - taken)


def power_of_two_near(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the power of two nearest to a positive ``x``: dividing by it rounds nothing."""
    return _with_bits(x, 0)


def power_of_two_below(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the largest power of two at or below a positive ``x``; 0 below the smallest normal number."""
    bits = {2: jnp.int16, 4: jnp.int32, 8: jnp.int64}[x.dtype.itemsize]
    exponent = lax.bitcast_convert_type(jnp.asarray(jnp.inf, x.dtype), bits)  # has these bits alone
    return lax.bitcast_convert_type(lax.bitcast_convert_type(x, bits) & exponent, x.dtype)


def rounded_up(x: Float[Array, "*shape"], n_bits: int) -> Float[Array, "*shape"]:
    """Return a number with ``n_bits`` bits after the first, from a positive ``x`` to (1 + 2 ** −n_bits) x."""
    return _with_bits(x * (1 + 0.5 ** (n_bits + 1)), n_bits)


def _with_bits(x: Float[Array, "*shape"], n_bits: int) -> Float[Array, "*shape"]:
    """Round to ``n_bits`` bits after the first."""
    return lax.reduce_precision(x, 11 if x.dtype == jnp.float64 else 8, n_bits)
