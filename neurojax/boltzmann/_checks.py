"""The gate of what is given to a machine: visible and hidden units, rows of data and truth values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from .._arrays import finite_rows, native, real_array
from .._checks import check_shape, is_concrete

__all__ = [
    "check_data",
    "hidden_sample",
    "number",
    "real_converter",
    "state_array",
    "truth_array",
    "visible_array",
    "visible_sample",
]


def visible_array(name: str, rbm: Any, v: Any) -> Array:
    """Return real numbers whose last axis has one for each visible unit, or raise ``ValueError``."""
    v = real_array(name, v)
    if v.ndim == 0 or v.shape[-1] != rbm.n_visible:
        raise ValueError(
            f"{name}: expected {rbm.n_visible} numbers, one for each visible unit, got shape {v.shape}."
        )
    return v


def visible_sample(name: str, rbm: Any, v: Any) -> Array:
    """Return the visible units of one sample, or raise ``ValueError``."""
    v = visible_array(name, rbm, v)
    check_shape(name, v, (rbm.n_visible,), "one sample (use vmap for many)")
    return v


def hidden_sample(name: str, rbm: Any, h: Any) -> Array:
    """Return the hidden units of one sample, or raise ``ValueError``."""
    h = real_array(name, h)
    check_shape(name, h, (rbm.n_hidden,), "a number for each hidden unit of one sample (use vmap for many)")
    return h


def state_array(name: str, rbm: Any, v: Any) -> Array:
    """Return a state of the visible units, or raise ``ValueError`` for concrete numbers that are none."""
    v = visible_array(name, rbm, v)
    if not is_concrete(v):
        return v
    with jax.ensure_compile_time_eval():
        n_other = int(jnp.sum(~rbm.is_state(v)))
    if n_other:
        raise ValueError(
            f"{name}: expected a state of {type(rbm).__name__}, got {n_other} of {v.size} numbers "
            "that are part of none: a binary unit is 0 or 1 (binarize grey values), a site has exactly one 1."
        )
    return v


def truth_array(name: str, value: Any, size: int) -> Array:
    """Return a truth value for each visible unit, or raise ``ValueError``."""
    value = native(name, value)
    check_shape(name, value, (size,), "a truth value for each visible unit")
    if not jnp.issubdtype(jnp.result_type(value), jnp.bool_):
        raise ValueError(
            f"{name}: expected truth values, got dtype {jnp.result_type(value)}; compare, as in value > 0."
        )
    return jnp.asarray(value)


def check_data(name: str, data: Any, rbm: Any = None, limits: tuple[float, float] | None = None) -> Array:
    """Return rows of data as an array, or raise ``ValueError`` for what cannot be data of the machine."""
    n_visible = None if rbm is None else rbm.n_visible
    return finite_rows(name, data, n_visible, "numbers, one for each visible unit,", limits)


def real_converter(name: str, axes: str) -> Callable[[Any], Array]:
    """Return the converter of a module's array of real numbers."""
    return lambda value: real_array(name, value, axes)


def number(name: str) -> Callable[[Any], Any]:
    """Return the converter of a module's number, which leaves those of Python as they are."""
    return lambda value: value if isinstance(value, (int, float)) else real_array(name, value, "")
