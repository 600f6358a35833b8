"""Arrays that lie in pieces over several devices, and the checksums and digests of arrays."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from .._checks import is_key
from .._random import mixed_bits

__all__ = ["checksum", "digest_of", "spread_arrays", "without_spread"]

_MIXERS = (0x9E3779B1, 0x85EBCA77)  # odd; the second is that of xxHash


def _is_spread(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and not leaf.is_fully_replicated


def spread_arrays(tree: Any) -> dict[str, jax.Array]:
    """Return, by path, the arrays of which no device has the whole; of typed keys their key data."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(keys): jax.random.key_data(leaf) if is_key(leaf) else leaf
        for keys, leaf in flat
        if _is_spread(leaf)
    }


def without_spread(tree: Any) -> Any:
    """Return the tree with ``None`` in the place of each of these."""
    return jax.tree.map(lambda leaf: None if _is_spread(leaf) else leaf, tree)


def checksum(array: Any) -> list[int]:
    """Return two 32-bit sums of an array's bits, each bit pattern mixed with its place.

    Sums modulo 2³² do not depend on order: every layout over devices gives the same, and only these two
    numbers are moved between them. For damage, not for malice.
    """
    return [int(total) for total in _sums(jnp.asarray(array))]


@jax.jit
def _sums(array: Array) -> tuple[Array, ...]:
    words, place = _words(array), jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # Odd factors, one for each place: a change of a word is a change of the sum.
    factors = (mixed_bits((place + jnp.uint32(1)) * jnp.uint32(mixer)) | jnp.uint32(1) for mixer in _MIXERS)
    return tuple(jnp.sum(each * words, dtype=jnp.uint32) for each in factors)


def _words(array: Array) -> UInt32[Array, "*words"]:
    """Return the bits as whole numbers of 32: eight bytes become two, along a new axis."""
    if array.dtype.itemsize >= 4:
        return lax.bitcast_convert_type(array, jnp.uint32)
    narrow = jnp.uint8 if array.dtype.itemsize == 1 else jnp.uint16
    bits = array.astype(narrow) if array.dtype == bool else lax.bitcast_convert_type(array, narrow)
    return bits.astype(jnp.uint32)


def digest_of(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """Return the digest of all that a checkpoint holds; ``meta`` as JSON gives it back."""
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()
