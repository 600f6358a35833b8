"""Parameters as plain arrays: a NumPy ``.npz`` of named arrays and nothing else, for any program to read."""

import zipfile
from pathlib import Path

import jax
import numpy as np

from .._paths import user_path
from .._untrusted import read_numpy, read_whole
from ._settings import as_numpy
from ._trees import ARRAYS, check_description, check_unmasked_leaves, describe_stored, fill_leaf
from ._writing import write_atomically

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: str | Path, model) -> None:
    """Save the arrays of any model in one ``.npz`` file, named by their place in it; no pickle.

    The entry ``encoder.0.weight`` is ``model.encoder[0].weight``, the entry ``weights`` of a mapping its item
    ``"weights"``. Whatever is no array (Python numbers, functions, static settings) is left out: `save` keeps
    that too. Typed PRNG keys are stored as their key data. The file is written whole or not at all.

    Args:
        path: the file; what was there is replaced.
        model: any pytree, such as an Equinox module.

    Raises:
        ValueError: if the model is a lone array, two arrays would have one name, or an array's dtype is none
            of NumPy's own (bfloat16, Python objects), which only pickle or `save` could store, has named
            fields, or is masked.

    Example:
        >>> import pathlib, tempfile, jax.numpy as jnp
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "arrays.npz"
        >>> save_arrays(path, {"layers": [{"weights": jnp.ones((2, 3))}]})
        >>> with np.load(path) as file:
        ...     {name: file[name].shape for name in file.files}
        {'layers.0.weights': (2, 3)}
    """
    arrays: dict[str, np.ndarray] = {}
    check_unmasked_leaves("model", model)
    for name, leaf in _named_leaves("model", model).items():
        array = as_numpy(leaf)
        if array.dtype.hasobject or array.dtype.kind == "V":
            raise ValueError(
                f"model, {name}: expected an array of NumPy's own dtypes, got dtype {array.dtype}."
            )
        arrays[name] = array

    def write(file) -> None:
        # As np.savez does, which however takes no array called "file" or "allow_pickle".
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)

    write_atomically(user_path(path), write)


def load_arrays(path: str | Path, like):
    """Load the arrays of a model that `save_arrays`, or any program in the same form, wrote.

    Nothing is cast, renamed or left out: a file of float32 does not fill a model of float64. Sizes are
    checked before memory is taken: that of the file, and for compressed entries at most 1 GiB and 64 times
    its size.

    Args:
        path: the file.
        like: a model of the same structure; its arrays may be ``jax.ShapeDtypeStruct`` (as
            ``equinox.filter_eval_shape`` makes them), their values are not used.

    Returns:
        A model like ``like`` with the arrays of the file (NumPy where ``like`` has NumPy, else JAX); whatever
        is no array is that of ``like``.

    Raises:
        ValueError: if the file is no ``.npz`` of plain arrays, or at the first entry that is missing, has
            another shape or dtype, or is not expected.
        FileNotFoundError: if there is no such file.
    """
    leaves = _named_leaves("like", like)
    try:
        arrays = read_whole(path, "an .npz file", read_numpy)
        if "" in arrays:
            raise ValueError("expected named arrays, got one without a name")
    except ValueError as error:
        raise ValueError(f"path: expected an .npz file of plain arrays, got {path} ({error}).") from error
    expected = {name: describe_stored(leaf) for name, leaf in leaves.items()}
    check_description(expected, {name: describe_stored(array) for name, array in arrays.items()}, str(path))

    def fill(keys, leaf):
        return fill_leaf(leaf, arrays[_name(keys)]) if isinstance(leaf, ARRAYS) else leaf

    return jax.tree_util.tree_map_with_path(fill, like)


def _name(keys) -> str:
    return jax.tree_util.keystr(keys, simple=True, separator=".")


def _named_leaves(argument: str, tree) -> dict:
    """Return the arrays of a tree, as they are, by their dotted names."""
    leaves = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not isinstance(leaf, ARRAYS):
            continue
        name = _name(keys)
        if not name:
            raise ValueError(f"{argument}: expected a model, whose arrays have names, got a lone array.")
        if name in leaves:
            raise ValueError(f"{argument}: expected one array for each name, got two called {name}.")
        leaves[name] = leaf
    return leaves
