"""Settings as plain values that JSON can hold, and what differs between two of them."""

import dataclasses
import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from neurojax._checks import differ, is_key

__all__ = ["ABSENT", "as_numpy", "as_plain", "changed_settings", "plain_settings"]

ABSENT = "nothing"


def as_numpy(array) -> np.ndarray:
    """Return an array as NumPy's; typed PRNG keys as their key data."""
    return np.asarray(jax.random.key_data(array) if is_key(array) else array)


def as_plain(value):
    """Return what JSON can hold of a value: itself, such containers, or the name of a function or class."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        return as_numpy(value).tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): as_plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_plain(item) for item in value]
    if isinstance(value, (Path, enum.Enum, complex)):
        return str(value)
    return getattr(value, "__name__", type(value).__name__)


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
    return json.loads(json.dumps(as_plain(config)))


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
        before, after = old.get(name, ABSENT), new.get(name, ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes |= {f"{name}.{inner}": pair for inner, pair in changed_settings(before, after).items()}
        elif differ(before, after):
            changes[name] = (before, after)
    return changes
