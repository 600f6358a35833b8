"""Parameters of penalties: checked when a penalty is made, cast where they are used."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import native, real_array
from .._checks import check_nonnegative, check_positive, is_concrete
from .._types import Scalar

__all__ = [
    "above",
    "as_code",
    "as_step",
    "check_one_step",
    "converted",
    "in_unit",
    "magnitude",
    "nonnegative",
    "positive",
    "real_number",
    "step_times",
    "unless_held",
    "weighted_sum",
    "widened",
]

Parameter: TypeAlias = Real[ArrayLike, "..."]
Numbers: TypeAlias = Float[ArrayLike, "..."]


def nonnegative(name: str) -> Callable[[Parameter], Float[Array, "..."]]:
    """Return a converter to an array of real numbers ≥ 0, for the field of a penalty.

    Args:
        name: of the field, for messages.

    Returns:
        A function of a number, an array or a list. It returns a floating-point array and raises
        ``ValueError`` for negative numbers and NaN where the values are known, and for what is not real.

    Example:
        >>> import equinox as eqx, jax
        >>> class Strong(eqx.Module):
        ...     strength: jax.Array = eqx.field(converter=nonnegative("strength"))
        >>> print(Strong([1, 2]).strength)
        [1. 2.]
        >>> Strong(-1)
        Traceback (most recent call last):
        ValueError: strength: expected a number ≥ 0, got -1.
    """
    return partial(converted, name, check_nonnegative)


def positive(name: str) -> Callable[[Parameter], Float[Array, "..."]]:
    """Return a converter to an array of real numbers > 0, for the field of a penalty.

    Args:
        name: of the field, for messages.

    Returns:
        A function like that of `nonnegative`, which refuses 0 as well.

    Example:
        >>> positive("scale")(0.0)
        Traceback (most recent call last):
        ValueError: scale: expected a number > 0, got 0.0.
    """
    return partial(converted, name, check_positive)


def above(name: str, least: float) -> Callable[[Parameter], Float[Array, "..."]]:
    """Return a converter to an array of real numbers > ``least``, for the field of a penalty."""

    def check(name: str, value: Any) -> None:
        if is_concrete(value) and not np.all(np.asarray(value) > least):
            raise ValueError(f"{name}: expected a number > {least:g}, got {value}.")

    return partial(converted, name, check)


def converted(name: str, check: Callable[[str, Any], None], value: Any) -> Float[Array, "..."]:
    """Return ``value`` as a floating-point array, once ``check(name, value)`` has passed it."""
    value = real_number(name, value)
    check(name, value)
    # A Python number would give a weakly typed array, which is another type to compiled functions.
    return jnp.asarray(value, float) if isinstance(value, (int, float)) else real_array(name, value)


def real_number(name: str, value: Any) -> Any:
    """Return what was given for a number or several, as `native` does, unless it is complex."""
    value = native(name, value)
    if jnp.iscomplexobj(value):
        raise ValueError(f"{name}: expected real numbers, got dtype {jnp.result_type(value)}.")
    return value


def magnitude(x: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    """Return |x|, with derivative 0 at 0, where that of ``jnp.abs`` is 1.

    Args:
        x: real numbers of any shape.

    Example:
        >>> import jax
        >>> print(jax.grad(magnitude)(0.0), jax.grad(magnitude)(-2.0))
        0.0 -1.0
    """
    x = real_array("x", x)
    return x * jnp.sign(x)


def weighted_sum(strength: Numbers, terms: Float[ArrayLike, "*shape"]) -> Scalar:
    """Return Σ strength·termᵢ, where infinity times zero is zero: such a strength forbids all else.

    Args:
        strength: of any shape that broadcasts against ``terms``.
        terms: real numbers ≥ 0, such as the magnitudes of a code, in float32 at least (see `as_code`).

    Gradient:
        0 at a term of 0 under an infinite strength; never NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> print(weighted_sum(jnp.array([0.5, jnp.inf]), jnp.array([4.0, 0.0])))
        2.0
    """
    strength, terms = real_array("strength", strength), real_array("terms", terms)
    if jnp.ndim(strength) == 0:
        terms = jnp.sum(terms)
    return jnp.sum(unless_held(strength, terms) * terms)


def unless_held(strength: Array, size: Array) -> Array:
    """Return a strength, 0 where it is infinite and what it multiplies is 0: there it costs nothing.

    It is replaced before the product, for a factor of infinity would make a derivative of 0 NaN.
    """
    return jnp.where(jnp.isinf(strength) & (size == 0), 0, strength)


def widened(array: Array) -> Array:
    """Return ``array`` in float32 at least: sums and squares in half precision overflow or stand still."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_code(code: ArrayLike, *parameters: ArrayLike) -> tuple[Array, ...]:
    """Return a code and the parameters of its penalty in one dtype, to compute a value in.

    Args:
        code: real numbers of any shape; lists and integers are converted.
        parameters: real numbers, such as strengths, of any shapes.

    Returns:
        The code, in its own dtype or float32, whichever is wider; then the parameters, cast to that dtype.

    Raises:
        ValueError: for what does not hold real numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> code, strength = as_code(jnp.ones(3, jnp.bfloat16), jnp.array(0.5))
        >>> print(code.dtype, strength.dtype)
        float32 float32
    """
    code = widened(real_array("code", code))
    return code, *(real_array("parameters", parameter).astype(code.dtype) for parameter in parameters)


def in_unit(strength: Numbers, unit: Float[ArrayLike, ""]) -> Float[Array, "..."]:
    """Return strength/unit, in the dtype of ``unit``: the strength of a penalty that grows like ‖z‖.

    With it `AbstractPenalty.in_units` keeps its promise: for p(z) = (strength/unit)·Σ|zᵢ| the product
    unit²·p(z/unit) is strength·Σ|zᵢ|. The strength of a penalty that grows like ‖z‖² stays as it is.

    Args:
        strength: of any shape, in the unit of the data.
        unit: > 0, one number.

    Example:
        >>> import jax.numpy as jnp
        >>> print(in_unit(jnp.array(3.0), jnp.array(2.0)))
        1.5
    """
    strength, unit = real_array("strength", strength), real_array("unit", unit)
    return strength.astype(unit.dtype) / unit


def as_step(step_size: ArrayLike, v: Array) -> Array:
    """Return a step size, refused where it is negative or NaN and known, in the dtype of ``v``."""
    step_size = real_number("step_size", step_size)
    check_nonnegative("step_size", step_size)
    return jnp.asarray(step_size, v.dtype)


def check_one_step(step_size: ArrayLike) -> None:
    """Raise ``ValueError`` for several step sizes along the last axis, whose coefficients are coupled."""
    shape = np.shape(step_size)
    if shape and shape[-1] != 1:
        raise ValueError(f"step_size: expected one for all coefficients of the last axis, got shape {shape}.")


def step_times(step_size: Parameter, parameter: Numbers, v: Numbers) -> Float[Array, "..."]:
    """Return step_size·parameter in the dtype of ``v``: the threshold of a proximal operator.

    Args:
        step_size: ≥ 0, of any shape that broadcasts against ``parameter``.
        parameter: such as a strength.
        v: what the operator is applied to; only its dtype matters.

    Raises:
        ValueError: if a concrete step size is negative or NaN, and for what does not hold real numbers.

    Gradient:
        0 where the parameter is infinite, and not NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> print(step_times(0.5, jnp.array([1.0, 3.0]), jnp.zeros(2)))
        [0.5 1.5]
    """
    parameter, v = real_array("parameter", parameter), real_array("v", v)
    step_size, parameter = as_step(step_size, v), parameter.astype(v.dtype)
    is_infinite = jnp.isinf(parameter)
    product = step_size * jnp.where(is_infinite, 0, parameter)
    return jnp.where(is_infinite, lax.stop_gradient(step_size * parameter), product)
