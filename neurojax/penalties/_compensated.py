"""Sums and differences that keep their leading digits through cancellation.

Twice the working precision where a difference of nearly equal numbers decides the result. Every product
formed here is exact, so that a compiler which fuses a multiplication into an addition changes nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["accurate_sum", "accurate_total", "power_of_two_near", "square_terms"]


def square_terms(x: Float[Array, "*shape"]) -> tuple[Array, Array, Array]:
    """Return three numbers, each exact in the dtype of ``x``, whose exact sum is x².

    Reference:
        Dekker (1971), A floating-point technique for extending the available precision, section 5.
    """
    high = lax.reduce_precision(x, *((11, 25) if x.dtype == jnp.float64 else (8, 11)))
    low = x - high
    return high * high, 2 * high * low, low * low


def accurate_sum(*terms: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the sum of ``terms`` as if taken in twice the working precision.

    Reference:
        Knuth (1997), The Art of Computer Programming 2, section 4.2.2, theorem B.
    """
    total, lost = terms[0], jnp.zeros_like(terms[0])
    for term in terms[1:]:
        total, error = _add(total, term)
        lost = lost + error
    return total + lost


def accurate_total(x: Float[Array, "*shape terms"]) -> Float[Array, "*shape"]:
    """Return the sum over the last axis as `accurate_sum` takes it, but by halves."""
    lost = jnp.zeros_like(x[..., 0])
    while (n_terms := x.shape[-1]) > 1:
        half = n_terms // 2
        total, error = _add(x[..., :half], x[..., half : 2 * half])
        lost = lost + jnp.sum(error, -1)
        x = jnp.concatenate([total, x[..., 2 * half :]], -1)
    return x[..., 0] + lost


def _add(a, b):
    """Return the rounded sum, and what rounding took from it."""
    total = a + b
    taken = total - a
    return total, (a - (total - taken)) + (b - taken)


def power_of_two_near(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the power of two nearest to a positive ``x``: dividing by it rounds nothing."""
    return lax.reduce_precision(x, 11 if x.dtype == jnp.float64 else 8, 0)
