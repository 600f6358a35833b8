"""What is checked and prepared before the first update."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from neurojax._checks import check_at_least, check_finite, is_key
from neurojax.distributed import check_same_settings, gather
from neurojax.runs import describe_tree, plain_settings, tree_arrays

from ._block import Program
from ._checkpoint import Checkpoint
from ._history import Evaluation
from ._sources import on_device

__all__ = [
    "check_arguments",
    "check_processes_agree",
    "fingerprint",
    "numbers_to_arrays",
    "run_identity",
    "trainable_mask",
]

_SHOWN_SIZE = 4


def check_arguments(key, n_steps, steps_per_block, evaluate, checkpoint) -> None:
    """Raise ``ValueError`` for the first setting of ``fit`` that cannot be meant."""
    if not (isinstance(key, jax.Array) and is_key(key) and key.shape == ()):
        raise ValueError(f"key: expected one typed key, as jax.random.key makes it, got {key!r:.80}.")
    check_at_least("n_steps", n_steps, 1)
    check_at_least("steps_per_block", steps_per_block, 1)
    if evaluate is not None:
        if not isinstance(evaluate, Evaluation):
            raise ValueError(f"evaluate: expected an Evaluation, got {type(evaluate).__name__}.")
        check_at_least("evaluate.every", evaluate.every, 1)
        if evaluate.patience is not None:
            check_at_least("evaluate.patience", evaluate.patience, 1)
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        raise ValueError(f"checkpoint: expected a Checkpoint, got {type(checkpoint).__name__}.")


def numbers_to_arrays(state: Any) -> Any:
    """Return the state with its Python numbers as arrays, which a loop on the device can carry."""
    return jax.tree.map(lambda x: on_device(np.asarray(x)) if isinstance(x, (int, float)) else x, state)


def trainable_mask(model: Any, trainable: Any) -> Any:
    """Return a truth value for each leaf; raise ``ValueError`` unless what it selects can be trained."""

    def spread(choice, part):
        return jax.tree.map(lambda leaf: bool(choice(leaf) if callable(choice) else choice), part)

    # A mask has the model's own form, and a model may well be callable.
    is_predicate = callable(trainable) and not isinstance(trainable, eqx.Module)
    try:
        mask = spread(trainable, model) if is_predicate else jax.tree.map(spread, trainable, model)
    except ValueError as error:
        raise ValueError(
            f"trainable: expected truth values in a tree that fits the model ({error})."
        ) from error
    chosen = jax.tree_util.tree_flatten_with_path(eqx.filter(model, mask))[0]
    if not chosen:
        raise ValueError("trainable: expected at least one leaf of the model to be selected, got none.")
    for keys, leaf in chosen:
        name = "model" + jax.tree_util.keystr(keys)
        if not eqx.is_inexact_array(leaf):
            raise ValueError(
                f"trainable: expected arrays of real numbers, but it selects {name} = {leaf!r:.60}."
            )
        check_finite(name, leaf)
    return mask


def fingerprint(name: str, tree: Any) -> dict[str, Any]:
    """Return by path what a tree holds: settings and small arrays as they are, large ones by a checksum."""
    arrays, entries = tree_arrays(gather(tree)), {}
    for path, entry in describe_tree(tree).items():
        if "value" in entry:
            entries[name + path] = entry["value"]
            continue
        array = np.ascontiguousarray(arrays[path])
        shown = array.tolist() if array.size <= _SHOWN_SIZE else f"checksum {zlib.crc32(array.tobytes()):08x}"
        entries[name + path] = f"{entry['dtype']}{entry['shape']} {shown}"
    return entries


def _data_identity(data: Any) -> dict[str, Any]:
    """Return what decides the batches: the data themselves, or what an iterator says of its own."""
    settings = getattr(data, "settings", None)
    if isinstance(data, Iterator) and isinstance(settings, Mapping):
        return {f"data.{name}": value for name, value in plain_settings(settings).items()}
    return fingerprint("data", "an iterator" if isinstance(data, Iterator) else data)


def check_processes_agree(
    checkpoint: Checkpoint | None, callback: Any, mesh: Mesh | None, settings: Mapping[str, Any]
) -> None:
    """Raise ``ValueError``, in every process, for the first setting of ``fit`` that differs between them."""
    laid = None if mesh is None else [list(mesh.shape.items()), [device.id for device in mesh.devices.flat]]
    own: dict[str, Any] = {"mesh": laid, "callback": "none" if callback is None else "one"}
    if checkpoint is not None:
        own |= {"checkpoint.every": checkpoint.every, "checkpoint.keep": checkpoint.keep}
        own["checkpoint.settings"] = plain_settings(checkpoint.settings)
    check_same_settings("fit", own | dict(settings))


def run_identity(
    key: Any, batch_size: int | None, data: Any, program: Program, evaluate: Evaluation | None
) -> dict:
    """Return what a resumed run must have in common with the one that was cut off."""
    watched = None if evaluate is None else [evaluate.every, evaluate.patience, evaluate.keep_best]
    return {
        "key": jax.random.key_data(key).tolist(),
        "batch_size": batch_size,
        **_data_identity(data),
        **fingerprint("objective", program.objective),
        **fingerprint("after_update", program.after_update),
        **fingerprint("trainable", program.mask),
        "evaluate (every, patience, keep_best)": watched,
        **fingerprint("evaluate.function", None if evaluate is None else evaluate.function),
    }
