"""Parameters of penalties: checked when a penalty is made, cast where they are used."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from neurojax._checks import check_nonnegative, check_positive, check_real

__all__ = ["as_code", "magnitude", "nonnegative", "positive", "step_times", "weighted_sum"]

Parameter: TypeAlias = Real[ArrayLike, "..."]


def nonnegative(name: str) -> Callable[[Parameter], Float[Array, "..."]]:
    """Return a converter to a floating-point array that refuses concrete negative numbers by ``name``."""

    def convert(value: Parameter) -> Float[Array, "..."]:
        check_nonnegative(name, value)
        return _as_floating(value)

    return convert


def positive(name: str) -> Callable[[Parameter], Float[Array, "..."]]:
    """Return a converter to a floating-point array that refuses concrete numbers ≤ 0 by ``name``."""

    def convert(value: Parameter) -> Float[Array, "..."]:
        check_positive(name, value)
        return _as_floating(value)

    return convert


def _as_floating(value):
    dtype = jnp.result_type(value)
    is_number = isinstance(value, (int, float)) or not jnp.issubdtype(dtype, jnp.floating)
    return jnp.asarray(value, jnp.result_type(float) if is_number else dtype)


def magnitude(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return |x|, with derivative 0 at 0."""
    return x * jnp.sign(x)


def weighted_sum(strength: Float[Array, "..."], terms: Float[Array, "*shape"]) -> Float[Array, ""]:
    """Return Σ strength·termᵢ, where infinity times zero is zero: such a strength forbids all else."""
    if jnp.ndim(strength) == 0:
        terms = jnp.sum(terms)
    return jnp.sum(jnp.where(terms == 0, 0, strength * terms))


def as_code(code: ArrayLike, *parameters: Array) -> tuple[Array, ...]:
    """Return ``code`` as an array of real numbers, and ``parameters`` cast to its dtype."""
    check_real("code", code)
    code = jnp.asarray(code)
    return code, *(parameter.astype(code.dtype) for parameter in parameters)


def step_times(step_size: ArrayLike, parameter: Array, v: ArrayLike) -> Array:
    """Return step_size·parameter in the dtype of ``v``."""
    check_real("v", v)
    check_nonnegative("step_size", step_size)
    dtype = jnp.asarray(v).dtype
    return jnp.asarray(step_size, dtype) * parameter.astype(dtype)
