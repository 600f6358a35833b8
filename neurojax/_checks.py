"""Argument checks. Each error names the argument, what was expected and what came.

Shapes and dtypes are known while JAX traces, values often are not: a value check
runs only on concrete numbers and stays silent on tracers.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, dtypes
from jax.core import Tracer

__all__ = [
    "check_at_least",
    "check_finite",
    "check_kind",
    "check_limits",
    "check_nonnegative",
    "check_positive",
    "check_rank",
    "check_real",
    "check_shape",
    "check_share",
    "check_size",
    "differ",
    "is_concrete",
    "is_elsewhere",
    "is_key",
]


def is_concrete(value) -> bool:
    """Return whether the values (not only the shape) of ``value`` are known now."""
    return not isinstance(value, Tracer)


def is_key(array) -> bool:
    """Return whether an array holds typed PRNG keys."""
    return jnp.issubdtype(array.dtype, dtypes.prng_key)


def is_elsewhere(value) -> bool:
    """Return whether a concrete array lies in other processes too: it can be worked on only where it lies."""
    return isinstance(value, Array) and not value.is_fully_addressable


def differ(one, other) -> bool:
    """Return whether two plain values differ; NaN is the same as NaN."""
    return one != other and repr(one) != repr(other)


def check_kind(name: str, value, kind: type) -> None:
    """Raise ``ValueError`` unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        came = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise ValueError(f"{name}: expected an instance of {kind.__name__}, got {came}.")


def check_rank(name: str, value, axes: str) -> None:
    """Raise ``ValueError`` unless ``value`` has one axis for each word of ``axes``."""
    expected = len(axes.split())
    if np.ndim(value) != expected:
        raise ValueError(f"{name}: expected {expected} axes ({axes}), got shape {np.shape(value)}.")


def check_size(name: str, value, axis: int, size: int, meaning: str) -> None:
    """Raise ``ValueError`` unless ``value.shape[axis] == size``; ``meaning`` says what fixes the size."""
    if np.shape(value)[axis] != size:
        raise ValueError(f"{name}: expected {size} {meaning} on axis {axis}, got shape {np.shape(value)}.")


def check_real(name: str, value) -> None:
    """Raise ``ValueError`` unless ``value`` holds real floating-point numbers."""
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name}: expected real floating-point numbers, got dtype {dtype}.")


def check_finite(name: str, value) -> None:
    """Raise ``ValueError`` if a concrete ``value`` holds NaN or infinity."""
    if not is_concrete(value):
        return
    finite = jnp.isfinite(value) if is_elsewhere(value) else np.isfinite(np.asarray(value))
    if count := int((~finite).sum()):
        raise ValueError(f"{name}: expected finite numbers, got {count} that are NaN or infinite.")


def check_nonnegative(name: str, value) -> None:
    """Raise ``ValueError`` if a concrete ``value`` is below zero anywhere, or NaN."""
    if is_concrete(value) and not np.all(np.asarray(value) >= 0):
        raise ValueError(f"{name}: expected a number ≥ 0, got {value}.")


def check_positive(name: str, value) -> None:
    """Raise ``ValueError`` unless a concrete ``value`` is above zero everywhere."""
    if is_concrete(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name}: expected a number > 0, got {value}.")


def check_share(name: str, value) -> None:
    """Raise ``ValueError`` unless a concrete ``value`` lies in [0, 1] everywhere."""
    if is_concrete(value) and not np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)):
        raise ValueError(f"{name}: expected a number in [0, 1], got {value}.")


def check_limits(name: str, value, limits: tuple[float, float]) -> None:
    """Raise ``ValueError`` if a concrete ``value`` of this process has numbers outside ``limits``."""
    if not is_concrete(value) or is_elsewhere(value) or not np.size(value):
        return
    value = np.asarray(value)
    least, largest = np.min(value), np.max(value)
    if not (limits[0] <= least and largest <= limits[1]):
        raise ValueError(
            f"{name}: expected numbers in [{limits[0]:g}, {limits[1]:g}], got {least:.4g} to {largest:.4g}."
        )


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise ``ValueError`` unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name}: expected a whole number ≥ {least}, got {value!r}.")


def check_shape(name: str, value, shape: tuple[int, ...], meaning: str) -> None:
    """Raise ``ValueError`` unless ``value`` has ``shape``; ``meaning`` says what fixes it."""
    if np.shape(value) != shape:
        raise ValueError(f"{name}: expected shape {shape}, {meaning}, got shape {np.shape(value)}.")
