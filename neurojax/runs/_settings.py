"""Settings as plain values that JSON can hold, and what differs between two of them."""

import dataclasses
import enum
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._checks import differ, is_key

__all__ = ["ABSENT", "as_numpy", "as_plain", "changed_settings", "plain_settings"]

ABSENT = "nothing"
_LARGEST = 10**4000  # Python refuses to read longer numbers


def as_numpy(array) -> np.ndarray:
    """Return an array as NumPy's; typed PRNG keys as their key data."""
    return np.asarray(jax.random.key_data(array) if is_key(array) else array)


def as_plain(value):
    """Return what JSON can hold of a value: itself, such containers, or the name of a function or class."""
    return _plain("", value, is_strict=False)


def _plain(name: str, value: Any, *, is_strict: bool) -> Any:
    """Return what JSON gives back for a value; if strict, raise ``ValueError`` where that says less."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic)):
        value = as_numpy(value).tolist()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int) and abs(value) < _LARGEST:
        return int(value)
    if isinstance(value, (str, Path, enum.Enum, complex)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) and not (is_strict and any(not isinstance(key, str) for key in value)):
        inner = {str(key): (f"{name}.{key}".lstrip("."), item) for key, item in value.items()}
        return {key: _plain(*item, is_strict=is_strict) for key, item in inner.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(f"{name}[{i}]", item, is_strict=is_strict) for i, item in enumerate(value)]
    known = getattr(value, "__name__", type(value).__name__)
    if is_strict and known in ("<lambda>", type(value).__name__):
        shown = "over 4000 digits" if isinstance(value, int) else f"{value!r:.80}"
        raise ValueError(
            f"{name or 'config'}: expected numbers, texts, paths, arrays, lists, mappings from texts, or "
            f"named functions and classes, got {shown} of type {type(value).__name__}. Give a text or a list "
            "in its place, such as str(value) or sorted(value)."
        )
    return known


def plain_settings(config) -> dict[str, Any]:
    """Return a dataclass or mapping as the nested dict that JSON gives back for it.

    Args:
        config: a dataclass instance or a mapping from texts; values may be numbers, texts, paths, members of
            an enumeration, arrays, functions and classes (kept by name), and such containers nested.

    Returns:
        A dict of plain numbers, texts, lists and dicts.

    Raises:
        ValueError: if ``config`` is neither a dataclass instance nor a mapping, or holds what JSON cannot
            keep, such as sets, dates, bytes, `decimal.Decimal`, lambda functions or whole numbers beyond
            4000 digits; the message names it.
    """
    is_config = dataclasses.is_dataclass(config) and not isinstance(config, type)
    if not is_config and not isinstance(config, Mapping):
        raise ValueError(f"config: expected a dataclass instance or a mapping, got {type(config).__name__}.")
    return json.loads(json.dumps(_plain("", config, is_strict=True)))


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
