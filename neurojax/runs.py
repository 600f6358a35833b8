"""Run folders, and saving and loading any model without pickle.

A model file is a NumPy ``.npz``: its arrays, and beside them a JSON description of the
tree they belong to (class names, leaf paths, shapes, dtypes, plain settings). Loading
fills a model of the same structure; a file that does not fit is refused with the first
mismatch.
"""

import dataclasses
import enum
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "RunFolder",
    "changed_settings",
    "check_description",
    "check_writable",
    "create_run",
    "describe_tree",
    "fill_tree",
    "load",
    "open_run",
    "plain_settings",
    "save",
    "tree_arrays",
    "write_atomically",
]

_ABSENT = "nothing"
_ARRAYS = (jax.Array, np.ndarray, np.generic, jax.ShapeDtypeStruct)


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_numpy(array) -> np.ndarray:
    return np.asarray(jax.random.key_data(array) if _is_key(array) else array)


def _plain(value):
    """Return what JSON can hold of a value: itself, such containers, or the name of a function or class."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return _to_numpy(value).tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (Path, enum.Enum, complex)):
        return str(value)
    return getattr(value, "__name__", type(value).__name__)


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
                entries[name] = {"value": _plain(value)}
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
        if isinstance(leaf, _ARRAYS):
            entries[path] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        else:
            entries[path] = {"value": _plain(leaf)}
    return entries


def tree_arrays(tree) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by leaf path, as NumPy arrays; typed PRNG keys as their key data."""
    arrays = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, _ARRAYS):
            arrays[jax.tree_util.keystr(keys)] = _to_numpy(leaf)
    return arrays


def _differ(one, other) -> bool:
    """Return whether two plain values differ; NaN is the same as NaN."""
    return one != other and repr(one) != repr(other)


def _text(entry: dict | None) -> str:
    if entry is None:
        return _ABSENT
    return repr(entry["value"]) if "value" in entry else f"{entry['dtype']}{entry['shape']}"


def check_description(expected: Mapping[str, dict], came: Mapping[str, dict], source: str) -> None:
    """Raise ``ValueError`` at the first path where two descriptions (``describe_tree``) differ."""
    for path in [*expected, *came]:
        if _differ(expected.get(path), came.get(path)):
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
        if not isinstance(leaf, _ARRAYS):
            return leaf
        value = np.asarray(arrays[jax.tree_util.keystr(keys)])
        if _is_key(leaf):
            return jax.random.wrap_key_data(jnp.asarray(value), impl=_KEY_NAMES[str(leaf.dtype)])
        return value if isinstance(leaf, (np.ndarray, np.generic)) else jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(fill, like)


# A key's dtype carries a short tag where wrap_key_data wants the implementation's name.
_KEY_NAMES = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Let ``write`` fill a temporary binary file beside ``path``, then put it in the place of ``path``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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


def plain_settings(config) -> dict[str, Any]:
    """Return a dataclass or mapping as the nested dict that JSON gives back for it.

    Args:
        config: a dataclass instance or a mapping; values may be numbers, texts, paths,
            arrays, functions and classes (kept by name), and such containers nested.

    Returns:
        A dict of plain numbers, texts, lists and dicts.

    Raises:
        ValueError: if ``config`` is neither a dataclass instance nor a mapping.
    """
    is_config = dataclasses.is_dataclass(config) and not isinstance(config, type)
    if not is_config and not isinstance(config, Mapping):
        raise ValueError(f"config: expected a dataclass instance or a mapping, got {type(config).__name__}.")
    return json.loads(json.dumps(_plain(config)))


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return which settings differ between two nested configurations, as ``name: (old, new)``.

    Args:
        old: a configuration, as ``plain_settings`` returns it.
        new: another.

    Returns:
        The settings that differ, by dotted name; what one of them lacks appears as ``"nothing"``.

    Example:
        >>> changed_settings({"seed": 0, "model": {"n_atoms": 100}}, {"seed": 0, "model": {"n_atoms": 64}})
        {'model.n_atoms': (100, 64)}
    """
    changes: dict[str, tuple[Any, Any]] = {}
    for name in [*old, *(n for n in new if n not in old)]:
        before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= {f"{name}.{inner}": pair for inner, pair in changed_settings(before, after).items()}
        elif _differ(before, after):
            changes[name] = (before, after)
    return changes


def check_writable(name: str, folder: Path) -> None:
    """Make a folder if need be, and raise ``OSError`` that names it unless a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{name}: expected a writable folder, got {folder} ({error.strerror}).") from error


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Where the files of one run lie.

    Attributes:
        path: the folder; ``training.Checkpoint(run.path, ...)`` puts ``checkpoint/`` and ``metrics.jsonl``
            there.
    """

    path: Path

    @property
    def config_path(self) -> Path:
        """The settings of the run, ``config.json``."""
        return self.path / "config.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a step, ``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoints, ``checkpoint/``."""
        return self.path / "checkpoint"

    def picture_path(self, name: str) -> Path:
        """Return where the picture ``name`` goes, ``<name>.png``."""
        return self.path / f"{name}.png"

    def read_config(self) -> dict[str, Any]:
        """Return the settings that ``create_run`` wrote."""
        try:
            return json.loads(self.config_path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{self.config_path}: expected JSON ({error}).") from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``, one dict a step; a last line cut short is left out."""
        lines = self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def create_run(root: str | Path, name: str, config) -> RunFolder:
    """Make a fresh folder for a run and write its settings to ``config.json``.

    Args:
        root: the folder that holds runs; made if need be.
        name: the run's name. If it is taken, ``name-2``, ``name-3``, … is used: nothing is overwritten.
        config: a dataclass instance or a mapping (see ``plain_settings``).

    Returns:
        The new folder.

    Raises:
        OSError: if ``root`` cannot be written to; the message names it.
        ValueError: if ``name`` is no plain folder name.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> create_run(root, "digits", {"seed": 0}).read_config()
        {'seed': 0}
        >>> create_run(root, "digits", {"seed": 1}).path.name
        'digits-2'
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"name: expected a plain folder name, got {name!r}.")
    settings, root = plain_settings(config), Path(root)
    check_writable("root", root)
    path, number = root / name, 1
    while True:
        try:
            path.mkdir()
            break
        except FileExistsError:
            number += 1
            path = root / f"{name}-{number}"
    run = RunFolder(path)
    text = json.dumps(settings, indent=2) + "\n"
    write_atomically(run.config_path, lambda file: file.write(text.encode()))
    return run


def open_run(path: str | Path) -> RunFolder:
    """Return the folder of a run that ``create_run`` made.

    Raises:
        FileNotFoundError: if there is no ``config.json`` in it; the message names the folder.
    """
    run = RunFolder(Path(path))
    if not run.config_path.is_file():
        raise FileNotFoundError(f"path: expected a run folder (with config.json), got {path}.")
    return run
