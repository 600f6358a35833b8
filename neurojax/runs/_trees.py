"""Trees of arrays and settings: described, taken apart, compared and filled again."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._arrays import check_unmasked
from .._checks import differ, is_key
from ._settings import ABSENT, as_numpy, as_plain

__all__ = [
    "ARRAYS",
    "check_description",
    "check_unmasked_leaves",
    "describe_stored",
    "describe_tree",
    "fill_leaf",
    "fill_tree",
    "tree_arrays",
]

ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def _is_module(node) -> bool:
    return isinstance(node, eqx.Module)


def _static_entries(tree, prefix: str) -> dict[str, dict]:
    """Describe what is no leaf: the class and the static fields of every module."""
    entries = {}
    for keys, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_module)[0]:
        path = prefix + jax.tree_util.keystr(keys)
        if not _is_module(node):
            continue
        entries[f"{path or '.'} (class)"] = {"value": type(node).__qualname__}
        for field in dataclasses.fields(node):
            value, name = getattr(node, field.name, None), f"{path}.{field.name}"
            if field.metadata.get("static", False):
                entries[name] = {"value": as_plain(value)}
            else:
                entries |= _static_entries(value, name)
    return entries


def describe_tree(tree) -> dict[str, dict]:
    """Describe every leaf, class and static field of a tree by its path, in a form that JSON can hold.

    Args:
        tree: any pytree.

    Returns:
        For each path ``{"shape": [...], "dtype": "float32"}`` (an array) or
        ``{"value": ...}`` (a number, a text, the name of a function or class).

    Example:
        >>> import jax.numpy as jnp
        >>> describe_tree({"weights": jnp.zeros((2, 3)), "order": 4})
        {"['order']": {'value': 4}, "['weights']": {'shape': [2, 3], 'dtype': 'float32'}}
    """
    entries = _static_entries(tree, "")
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = jax.tree_util.keystr(keys)
        if isinstance(leaf, ARRAYS):
            entries[path] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        else:
            entries[path] = {"value": as_plain(leaf)}
    return entries


def check_unmasked_leaves(argument: str, tree) -> None:
    """Raise ``ValueError`` for a masked array in a tree, whose mask would be lost."""
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        check_unmasked(argument + jax.tree_util.keystr(keys), leaf)


def tree_arrays(tree) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by leaf path, as NumPy arrays; typed PRNG keys as their key data."""
    arrays = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, ARRAYS):
            arrays[jax.tree_util.keystr(keys)] = as_numpy(leaf)
    return arrays


def describe_stored(leaf) -> dict:
    """Describe what is stored of an array: of typed keys their key data."""
    stored = jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf
    return {"shape": list(stored.shape), "dtype": str(stored.dtype)}


def _text(entry: Any) -> str:
    match entry:
        case None:
            return ABSENT
        case {"value": value}:
            return f"{value!r:.500}"
        case {"dtype": dtype, "shape": shape}:
            return f"{dtype}{shape}"[:500]
    return f"{entry!r:.500}"  # only of files that others wrote


def check_description(expected: Mapping[str, dict], came: Mapping[str, dict], source: str) -> None:
    """Raise ``ValueError`` at the first path where two descriptions (``describe_tree``) differ."""
    for path in [*expected, *came]:
        if differ(expected.get(path), came.get(path)):
            wanted, found = _text(expected.get(path)), _text(came.get(path))
            raise ValueError(
                f"{source}: first mismatch at leaf {path or '.'}: expected {wanted}, got {found}."
            )


def fill_tree(like, arrays: Mapping[str, Any], description: Mapping[str, dict], source: str):
    """Put arrays into a tree of the same structure.

    Args:
        like: a tree of the expected structure; its arrays may be ``jax.ShapeDtypeStruct``.
        arrays: what ``tree_arrays`` returned for the tree that was stored.
        description: what ``describe_tree`` returned for it.
        source: where they come from, to begin an error message.

    Returns:
        A tree like ``like`` with the arrays given (NumPy where ``like`` has NumPy, else JAX).

    Raises:
        ValueError: at the first path where class, shape, dtype or setting differ.
    """
    check_description(describe_tree(like), dict(description), source)

    def fill(keys, leaf):
        return fill_leaf(leaf, arrays[jax.tree_util.keystr(keys)]) if isinstance(leaf, ARRAYS) else leaf

    return jax.tree_util.tree_map_with_path(fill, like)


# A key's dtype carries a short tag where wrap_key_data wants the implementation's name.
_KEY_NAMES = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def fill_leaf(leaf, array):
    """Return an array as the kind of ``leaf``: NumPy's, JAX's, or typed PRNG keys from their key data."""
    # In pieces over several devices, it stays where its reader put it.
    is_spread = isinstance(array, jax.Array) and not array.is_fully_replicated
    value = array if is_spread else np.asarray(array)
    if is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=_KEY_NAMES[str(leaf.dtype)])
    if is_spread:
        return value
    return value if isinstance(leaf, (np.ndarray, np.generic)) else jnp.asarray(value, leaf.dtype)
