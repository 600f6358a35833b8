"""The gate for foreign arrays: the one place where lists, tables and other arrays become JAX arrays.

Users hold their numbers in lists, in pandas tables, as integer counts, in the byte order of another machine
(as MATLAB and FITS files do), or under a mask. JAX refuses some of these with a message about its internals
and misreads others. Every public function passes its arrays through this gate, which returns JAX arrays of a
dtype that JAX computes with, or raises a ``ValueError`` that names the argument and says what to do. Traced
arrays pass unchanged, except that integers are converted where real numbers are needed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._checks import check_finite, check_limits, check_rank, check_shape, check_size

__all__ = [
    "check_same_shape",
    "check_unmasked",
    "device_array",
    "finite_rows",
    "host_array",
    "native",
    "native_leaves",
    "real_array",
    "whole_array",
]


def native(name: str, value: Any) -> Any:
    """Return numbers in a form that JAX accepts: a JAX array, a NumPy array or a Python number.

    JAX arrays, NumPy arrays in this machine's byte order and Python numbers are returned unchanged. Lists,
    tables and arrays of another byte order or of extended precision are returned as NumPy arrays.

    Raises:
        ValueError: for masked arrays, ragged lists and objects that are not numbers.
    """
    if isinstance(value, (Array, bool, int, float, complex)):
        return value
    check_unmasked(name, value)
    array = value if isinstance(value, (np.ndarray, np.generic)) else _from_foreign(name, value)
    if isinstance(array, Array):
        return array
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.type in (np.longdouble, np.clongdouble):
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise ValueError(f"{name}: expected numbers, got {_kind_of(value)} of dtype {array.dtype}.")
    return array


def real_array(name: str, value: Any, axes: str | None = None) -> Array:
    """Return real floating-point numbers; integers and booleans are converted to the default precision.

    Args:
        name: of the argument.
        value: what was given.
        axes: names of the axes, divided by spaces, if their number is fixed.

    Raises:
        ValueError: as `native`, and for complex numbers and another number of axes.
    """
    array = _real(name, value, axes)
    if jnp.issubdtype(jnp.result_type(array), jnp.floating):
        return device_array(array)
    if isinstance(array, (bool, int)):
        return device_array(float(array))
    return device_array(array.astype(jax.dtypes.canonicalize_dtype(float)))


def whole_array(name: str, value: Any, axes: str | None = None) -> Array:
    """Return integers, as labels and indices are.

    Args:
        name: of the argument.
        value: what was given.
        axes: names of the axes, divided by spaces, if their number is fixed.

    Raises:
        ValueError: as `native`, and for other numbers than integers and another number of axes.
    """
    array = _with_axes(name, value, axes)
    dtype = jnp.result_type(array)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"{name}: expected integers, got dtype {dtype}; convert them with .astype(int).")
    return device_array(array)


def host_array(name: str, value: Any, axes: str | None = None) -> np.ndarray:
    """Return real floating-point numbers as a NumPy array; integers and booleans become float64.

    For functions that work on the host, which keep double precision where it is given.

    Args:
        name: of the argument.
        value: what was given, not traced.
        axes: names of the axes, divided by spaces, if their number is fixed.

    Raises:
        ValueError: as `real_array`.
    """
    array = np.asarray(_real(name, value, axes))
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(np.float64)


def finite_rows(
    name: str,
    rows: Any,
    n_features: int | None = None,
    meaning: str = "features",
    limits: tuple[float, float] | None = None,
) -> Array:
    """Return rows of data as an array, or raise ``ValueError`` for data that no model can learn from.

    Args:
        name: of the argument.
        rows: what was given: at least one row of finite real numbers.
        n_features: how many numbers a row must have, if that is fixed.
        meaning: what fixes it.
        limits: the least and the largest number allowed.
    """
    rows = real_array(name, rows, "samples features")
    if not rows.shape[0]:
        raise ValueError(f"{name}: expected at least one row, got shape {rows.shape}.")
    if n_features is not None:
        check_size(name, rows, 1, n_features, meaning)
    check_finite(name, rows)
    if limits is not None:
        check_limits(name, rows, limits)
    return rows


def native_leaves(name: str, tree: Any) -> Any:
    """Return a pytree with its NumPy leaves in a form that JAX accepts; all other leaves are unchanged.

    Raises:
        ValueError: as `native`; the message names the leaf by its path.
    """

    def convert(keys, leaf):
        if not isinstance(leaf, (np.ndarray, np.generic)):
            return leaf
        return native(name + jax.tree_util.keystr(keys), leaf)

    return jax.tree_util.tree_map_with_path(convert, tree)


def check_unmasked(name: str, value: Any) -> None:
    """Raise ``ValueError`` for a masked array, whose mask JAX and ``np.asarray`` would drop."""
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(
            f"{name}: expected an array without a mask, got a masked array; leave the masked samples out, or "
            "fill them in with .filled(…)."
        )


def check_same_shape(name: str, value: Any, other_name: str, other: Any) -> None:
    """Raise ``ValueError`` unless two arrays have the same shape, so that nothing is broadcast."""
    check_shape(name, value, np.shape(other), f"as {other_name}")


def _with_axes(name: str, value: Any, axes: str | None) -> Any:
    """Return numbers in a form that JAX accepts, with one axis for each word of ``axes``."""
    array = native(name, value)
    if axes is not None:
        check_rank(name, array, axes)
    return array


def _real(name: str, value: Any, axes: str | None) -> Any:
    """Return numbers that are not complex in a form that JAX accepts."""
    array = _with_axes(name, value, axes)
    if jnp.iscomplexobj(array):
        raise ValueError(f"{name}: expected real numbers, got dtype {jnp.result_type(array)}.")
    return array


def device_array(array: Any) -> Array:
    """Return a JAX array on the default device, or over the mesh that is set.

    NumPy arrays are copied because their owner may change them: on a CPU `jax.device_put` may share the
    memory of an aligned array. Without a mesh no program is compiled, whereas ``jnp.array`` and
    ``jnp.asarray`` compile one for each new shape, and the values are known under ``jit`` too.
    """
    if isinstance(array, Array):
        return array
    if not isinstance(array, np.ndarray) or not jax.sharding.get_abstract_mesh().empty:
        return jnp.array(array)
    with jax.ensure_compile_time_eval():
        return jax.device_put(np.array(array))


def _from_foreign(name: str, value: Any) -> Any:
    """Return a list, a table or another foreign container as an array."""
    if isinstance(value, (list, tuple)) and any(isinstance(item, Array) for item in value):
        return jnp.asarray(value)
    try:
        return np.asarray(value)
    except Exception as error:
        raise ValueError(f"{name}: expected an array, got {_kind_of(value)}: {error}") from error


def _kind_of(value: Any) -> str:
    """Name what was given, with what to do about it where that is known."""
    kind = f"a {type(value).__name__}" if not isinstance(value, np.ndarray) else "an array"
    return f"{kind} (convert it with .toarray())" if hasattr(value, "toarray") else kind
