"""Model files: a NumPy ``.npz`` with the arrays and a JSON description of the tree they belong to."""

import json
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._paths import user_path
from .._untrusted import parse_json, read_numpy, read_whole
from ._trees import (
    ARRAYS,
    check_description,
    check_unmasked_leaves,
    describe_stored,
    describe_tree,
    fill_tree,
    tree_arrays,
)
from ._writing import write_atomically

__all__ = ["load", "save"]

_FORMAT = "neurojax model 1"  # since version 0.1


def save(path: str | Path, model) -> None:
    """Save any model in one ``.npz`` file: its arrays, and a description of its structure; no pickle.

    The file is written whole or not at all.

    Args:
        path: the file; what was there is replaced.
        model: any pytree of arrays and settings, such as an Equinox module.

    Raises:
        ValueError: if one of its arrays holds Python objects, which only pickle could store, has named fields
            (a structured array), or is masked.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.npz"
        >>> save(path, {"weights": jnp.ones(3)})
        >>> load(path, {"weights": jnp.zeros(3)})
        {'weights': Array([1., 1., 1.], dtype=float32)}
    """
    arrays = tree_arrays(model)
    check_unmasked_leaves("model", model)
    for name, array in arrays.items():
        if array.dtype.names is not None:
            raise ValueError(
                f"model{name}: expected an array of numbers or texts, got a structured array with the fields "
                f"{', '.join(array.dtype.names)}; save each field as an array of its own."
            )
        if array.dtype.hasobject:
            raise ValueError(f"model{name}: expected an array of numbers or texts, got dtype {array.dtype}.")
    # bfloat16 and its like would need pickle: their bytes go in, and the description has their name.
    plain = [a.view(f"V{a.dtype.itemsize}") if a.dtype.kind == "V" else a for a in arrays.values()]
    stored: dict[str, Any] = {f"array_{i}": a for i, a in enumerate(plain)}
    text = json.dumps({"format": _FORMAT, "tree": describe_tree(model), "arrays": list(arrays)})
    stored["description"] = np.array(text)
    write_atomically(user_path(path), lambda file: np.savez(file, **stored))


def load(path: str | Path, like):
    """Load a model that ``save`` wrote.

    Sizes are checked before memory is taken: that of the file, and for compressed entries at most 1 GiB and
    64 times its size. The description may have 16 Mi characters.

    Args:
        path: the file.
        like: a model of the same structure; its arrays may be ``jax.ShapeDtypeStruct`` (as
            ``equinox.filter_eval_shape`` makes them), their values are not used.

    Returns:
        A model like ``like`` with the arrays of the file.

    Raises:
        ValueError: if the file is none of a model, or at the first path where it does not fit ``like``.
        FileNotFoundError: if there is no such file.
    """
    try:
        stored, description = read_whole(path, "a model", _read)
    except ValueError as error:
        raise ValueError(f"path: expected a file written by save, got {path} ({error}).") from error
    check_description(describe_tree(like), description, str(path))
    # What is described must also be what is there.
    expected = {name: describe_stored(leaf) for name, leaf in _array_leaves(like).items()}
    for name in expected.keys() & stored.keys():
        stored[name] = _as_described(stored[name], expected[name]["dtype"])
    check_description(expected, {name: describe_stored(array) for name, array in stored.items()}, str(path))
    return fill_tree(like, stored, description, str(path))


def _read(file: BufferedIOBase, n_bytes: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of an open model file by their paths, and the description."""
    entries = read_numpy(file, n_bytes)
    text = entries.pop("description")
    if text.shape or text.dtype.kind != "U":
        raise ValueError(f"expected the description to be one text, got {text.dtype} of shape {text.shape}.")
    content = parse_json(str(text))
    if not isinstance(content, dict) or not {"arrays", "tree"} <= content.keys():
        raise ValueError("expected the description to be an object that has arrays and tree.")
    if content.get("format") != _FORMAT:
        raise ValueError(
            f"expected the format {_FORMAT!r}, got {content.get('format')!r:.80}; load it with the version "
            "of neurojax that wrote it, whose save_arrays writes plain arrays that every version reads."
        )
    names, description = content["arrays"], content["tree"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("expected arrays to be a list of names.")
    if not isinstance(description, dict):
        raise ValueError("expected tree to be an object.")
    if len(set(names)) < len(names) or set(entries) != {f"array_{i}" for i in range(len(names))}:
        raise ValueError(f"expected an array for each of {len(names)} names, got {len(entries)}.")
    return {name: entries[f"array_{i}"] for i, name in enumerate(names)}, description


def _as_described(array: np.ndarray, name: str) -> np.ndarray:
    dtype = jnp.dtype(name)
    is_bytes = array.dtype.kind == "V" and array.dtype.fields is None and dtype.kind == "V"
    return array.view(dtype) if is_bytes and array.dtype.itemsize == dtype.itemsize else array


def _array_leaves(tree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(keys): leaf for keys, leaf in leaves if isinstance(leaf, ARRAYS)}
