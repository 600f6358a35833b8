"""The identity of a stream of codes: what a call must share with the one whose file it goes on with."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..convergence import Detached
from ..runs import changed_settings, describe_tree, tree_arrays
from ..training._identity import versions
from ..training._programs import describe_program
from ._batch import encode_batch

__all__ = ["changed_identity", "shown", "stream_identity"]


def stream_identity(dictionary, penalty, settings: dict[str, Any], batch: Any) -> dict[str, Any]:
    """Name all that decides the codes: settings as they are, large arrays by a digest, and the program.

    The program tells apart penalties and dictionaries of the same name.

    Args:
        dictionary: the dictionary.
        penalty: the penalty.
        settings: the keyword arguments of `encode_batch`.
        batch: the shapes of a batch of rows, and of weights if there are any.
    """
    entries = {}
    for name, tree in (("dictionary", dictionary), ("penalty", penalty), ("settings", settings)):
        arrays = tree_arrays(tree)
        for path, entry in describe_tree(tree).items():
            entries[name + path] = entry["value"] if "value" in entry else shown(arrays[path])

    def encode(batch, weights=None):
        return encode_batch(dictionary, batch, penalty, weights=weights, gradient=Detached(), **settings)

    described = describe_program(encode, *batch) or {}
    return entries | {
        "versions": versions(),
        "program": [described.get("structure"), described.get("numbers")],
    }


def changed_identity(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs by name, as `changed_settings` does.

    Another version of JAX makes other programs of everything; and where a setting differs, the program does.
    """
    changes = changed_settings(*({**each, "versions": 0, "program": 0} for each in (old, new)))
    is_comparable = not changes and old.get("versions") == new["versions"]
    if is_comparable and old.get("program") != new["program"]:
        changes["program"] = "one computation", "another"
    return changes


def shown(array: np.ndarray) -> str:
    """Return a small array as it is, and a large one by a digest."""
    short = array.tolist() if array.size <= 8 else hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.dtype}{array.shape} {short}"
