"""Sums and differences that keep their leading digits through cancellation.

Twice the working precision where a difference of nearly equal numbers decides the result. Every product
formed here is exact, so that a compiler which fuses a multiplication into an addition changes nothing.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

__all__ = ["accurate_sum", "power_of_two_near", "square_terms"]


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
        new = total + term
        taken = new - total
        lost = lost + ((total - (new - taken)) + (term - taken))
        total = new
    return total + lost


def power_of_two_near(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the power of two nearest to a positive ``x``: dividing by it rounds nothing."""
    return lax.reduce_precision(x, 11 if x.dtype == jnp.float64 else 8, 0)
