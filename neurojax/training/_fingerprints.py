"""Fingerprints of arrays: a checksum for equality, and sums that tell rounding from another array."""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..distributed import gather
from ..runs._settings import as_numpy, as_plain

__all__ = ["ArrayChange", "changed_arrays", "fingerprint", "kind_of"]

_MOST_SHOWN, _MOST_LISTED = 4, 64
_CHUNK = 2**20
_ROUNDING = 1e-5  # relative: another processor changes less, and another start more


class ArrayChange(NamedTuple):
    """A leaf that differs between two trees.

    Attributes:
        path: of the leaf.
        text: the difference in words.
        is_rounding: whether rounding alone explains it, as on another processor.
    """

    path: str
    text: str
    is_rounding: bool


def kind_of(array: Any) -> str:
    """Return the dtype and the shape of an array as text."""
    return f"{array.dtype}{list(array.shape)}"


def fingerprint(tree: Any, *, is_computed: bool = False) -> dict[str, Any]:
    """Describe the arrays of a tree by path, and its plain values, as JSON can hold them; not its functions.

    Collective where arrays lie in several processes: every process must call this.

    Args:
        tree: any pytree.
        is_computed: whether the arrays come out of computations, which other processors round otherwise.
    """
    flat = jax.tree_util.tree_flatten_with_path(gather(tree))[0]
    return {
        jax.tree_util.keystr(keys): _entry(leaf, is_computed) for keys, leaf in flat if not callable(leaf)
    }


def changed_arrays(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[ArrayChange]:
    """Return which leaves of two fingerprints differ.

    Leaves are compared in their order and not by path, as the name of a field changes nothing.
    """
    if len(old) != len(new):
        return [ArrayChange("", f"{len(old)} arrays before and {len(new)} now", False)]
    changes = []
    for (_, before), (path, after) in zip(old.items(), new.items(), strict=True):
        if before == after:
            continue
        pair = [entry.get("value", entry["kind"]) for entry in (before, after)]
        shown = "" if pair[0] == pair[1] else f", {pair[0]} before and {pair[1]} now"
        text = f"leaf {path} differs{shown}" if path else f"the array differs{shown}"
        changes.append(ArrayChange(path, text, _is_rounding(before, after)))
    return changes


def _is_rounding(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Return whether two arrays have the same entries beyond numbers, and nearly the same numbers."""
    same = ("kind", "beyond")
    if "sums" not in before or any(before[name] != after.get(name) for name in same):
        return False
    one, other = np.array(before["sums"]), np.array(after["sums"])
    # Of listed numbers each for itself; of sums in units of the first, the array's length.
    unit = other if before["is_listed"] else other[0]
    return bool(np.all(np.abs(one - other) <= _ROUNDING * np.abs(unit)))


def _entry(leaf: Any, is_computed: bool) -> dict[str, Any]:
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return {"kind": type(leaf).__name__, "value": as_plain(leaf)}
    array = np.asarray(as_numpy(leaf), order="C")
    entry: dict[str, Any] = {"kind": kind_of(leaf)}
    if array.size <= _MOST_SHOWN:
        entry["value"] = _shown(array.tolist())
    entry["checksum"] = f"{zlib.crc32(array.tobytes()):08x}"
    if is_computed and jnp.issubdtype(array.dtype, jnp.floating):
        entry |= _sums(array.reshape(-1))
    return entry


def _sums(flat: np.ndarray) -> dict[str, Any]:
    """Return few numbers as they are, of many the length and two projections; a checksum of the others."""
    beyond, sums = 0, np.zeros(3)
    for start in range(0, flat.size, _CHUNK):
        values = flat[start : start + _CHUNK].astype(np.float64)
        beyond = zlib.crc32(np.where(np.isfinite(values), 0, values).tobytes(), beyond)
        values = np.where(np.isfinite(values), values, 0)
        place = np.arange(start, start + len(values))
        sums += [values @ values, values @ np.cos(place), values @ np.cos(np.sqrt(2) * place)]
    is_listed = flat.size <= _MOST_LISTED
    sums[0] = np.sqrt(sums[0])
    listed = np.where(np.isfinite(flat), flat, 0).astype(np.float64)
    return {"beyond": beyond, "is_listed": is_listed, "sums": (listed if is_listed else sums).tolist()}


def _shown(value: Any) -> str:
    """Return numbers as text, those of single precision without what double precision adds to them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.7g}" if isinstance(value, float) else str(value)
