"""Units of arrays, lengths of vectors, rows of unit length, and rows about their mean."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._compensated import power_of_two_below, power_of_two_near
from ._precision import at_least_single
from ._types import Scalar

__all__ = ["centered", "hypot", "norm", "product_in_units", "relative_norm", "unit_of", "unit_rows"]

Axis = int | tuple[int, ...] | None


@jax.jit
def centered(
    rows: Float[Array, "rows features"],
) -> tuple[Float[Array, "rows features"], Float[Array, " features"]]:
    """Return rows minus their mean, and the mean; exactly 0 for a feature that is constant.

    The mean of n equal numbers is not exactly that number, so the first row is subtracted before.
    """
    first = jax.lax.stop_gradient(rows[0])
    moved = rows - first
    mean = jnp.mean(moved, axis=0)
    return moved - mean, first + mean


@partial(jax.jit, static_argnames=("axis", "keepdims"))
def unit_of(
    array: Float[Array, "*shape"], axis: Axis = None, *, keepdims: bool = False
) -> Float[Array, "..."]:
    """Return the power of two at or below the largest magnitude along ``axis``; 1 where that is 0, ∞ or NaN.

    Dividing by it rounds nothing, so that results do not depend on how a program is compiled. At least the
    smallest normal number. A constant for gradients. Sums of squares are computed in this unit: squares of
    numbers of 1e±20 are out of float32's range.
    """
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(array), axis, keepdims=keepdims, initial=0))
    unit = jnp.maximum(power_of_two_below(largest), jnp.finfo(largest.dtype).tiny)
    return jnp.where((largest > 0) & jnp.isfinite(largest), unit, 1)


def norm(vector: Float[Array, "*shape"]) -> Scalar:
    """Return ‖vector‖₂ over all entries, without overflow or underflow of the squares."""
    unit = unit_of(vector)
    in_units = at_least_single(jnp.ravel(vector / unit))  # a sum of squares in half precision overflows
    return (unit * jnp.linalg.norm(in_units)).astype(vector.dtype)


def product_in_units(a: Float[Array, "*shape"], b: Float[Array, "*shape"]) -> Scalar:
    """Return ⟨a, b⟩ in the units of both, where the product of very small numbers is not 0."""
    return jnp.sum(at_least_single(a / unit_of(a)) * (b / unit_of(b))).astype(a.dtype)


def relative_norm(change: Float[Array, "*shape"], *norms: Scalar) -> Scalar:
    """Return ‖change‖ divided by the largest of ``norms`` (by 1 where all of them are 0)."""
    scale = jnp.max(jnp.stack(norms))
    return norm(change) / jnp.where(scale > 0, scale, 1)


@jax.jit
def hypot(x: Float[Array, "*shape"], y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return √(x² + y²), value and gradient without overflow or underflow; the gradient is 0 at the origin.

    In some versions of JAX the gradient of `jax.numpy.hypot` is arbitrary or NaN there, and wrong at 1e30.
    """
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.abs(x), jnp.abs(y)))  # a unit, on which nothing depends
    is_zero = largest == 0
    unit = jnp.where(is_zero, 1, largest)
    squares = (x / unit) ** 2 + (y / unit) ** 2
    return jnp.where(is_zero, 0, unit * jnp.sqrt(jnp.where(is_zero, 1, squares)))


@jax.jit
def unit_rows(
    rows: Float[Array, "rows features"], floor: Float[Array, ""] | float = 1e-8
) -> Float[Array, "rows features"]:
    """Scale every row to unit length: a / max(‖a‖₂, floor); the gradient is finite at a row of zeros too."""
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True, initial=0))
    # The squares of long rows overflow. A power of two rounds nothing.
    unit = power_of_two_near(jnp.where(jnp.isfinite(largest), jnp.maximum(largest / 2, 1), 1))
    rows, floor = rows / unit, floor / unit
    squares = jnp.sum(rows**2, axis=1, keepdims=True)
    # The square root's slope at 0 is infinite.
    norms = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)
    return rows / jnp.maximum(norms, floor)
