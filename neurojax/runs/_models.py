"""Model files: a NumPy ``.npz`` with the arrays and a JSON description of the tree they belong to."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ._trees import describe_tree, fill_tree, tree_arrays
from ._writing import write_atomically

__all__ = ["load", "save"]


def save(path: str | Path, model) -> None:
    """Save any model in one ``.npz`` file: its arrays, and a description of its structure; no pickle.

    The file is written whole or not at all.

    Args:
        path: the file; what was there is replaced.
        model: any pytree of arrays and settings, such as an Equinox module.

    Raises:
        ValueError: if one of its arrays holds Python objects, which only pickle could store.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.npz"
        >>> save(path, {"weights": jnp.ones(3)})
        >>> load(path, {"weights": jnp.zeros(3)})
        {'weights': Array([1., 1., 1.], dtype=float32)}
    """
    arrays = tree_arrays(model)
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise ValueError(f"model{name}: expected an array of numbers or texts, got dtype {array.dtype}.")
    # bfloat16 and its like would need pickle: their bytes go in, and the description has their name.
    plain = [a.view(f"V{a.dtype.itemsize}") if a.dtype.kind == "V" else a for a in arrays.values()]
    stored: dict[str, Any] = {f"array_{i}": a for i, a in enumerate(plain)}
    text = json.dumps({"format": "neurojax model 1", "tree": describe_tree(model), "arrays": list(arrays)})
    stored["description"] = np.array(text)
    write_atomically(Path(path), lambda file: np.savez(file, **stored))


def load(path: str | Path, like):
    """Load a model that ``save`` wrote.

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
        with np.load(path, allow_pickle=False) as file:
            text = json.loads(str(file["description"]))
            names, description = text["arrays"], text["tree"]
            stored = {name: file[f"array_{i}"] for i, name in enumerate(names)}
    except FileNotFoundError:
        raise
    # Whatever a damaged file makes its reader raise, it means the same here.
    except Exception as error:
        raise ValueError(f"path: expected a file written by save, got {path} ({error}).") from error
    for name, array in stored.items():
        if array.dtype.kind == "V":
            stored[name] = array.view(jnp.dtype(description[name]["dtype"]))
    return fill_tree(like, stored, description, str(path))
