"""Checks and preparations before the first update."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from .._checks import check_at_least, check_finite, is_key
from ..distributed import check_same_settings
from ._checkpoint import Checkpoint
from ._history import Evaluation
from ._identity import PARTS
from ._sources import on_device

__all__ = [
    "check_arguments",
    "check_processes_agree",
    "numbers_to_arrays",
    "trainable_mask",
]


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
    if checkpoint is not None:
        if not isinstance(checkpoint, Checkpoint):
            raise ValueError(f"checkpoint: expected a Checkpoint, got {type(checkpoint).__name__}.")
        check_part_names("checkpoint.may_change", checkpoint.may_change)


def check_part_names(name: str, parts: Any) -> None:
    """Raise ``ValueError`` unless ``parts`` are names of parts of a run."""
    is_sequence = isinstance(parts, Sequence) and not isinstance(parts, str)
    unknown = [part for part in parts if part not in PARTS] if is_sequence else [parts]
    if unknown:
        raise ValueError(f"{name}: expected a sequence of {', '.join(PARTS)}, got {unknown[0]!r}.")


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


def check_processes_agree(
    checkpoint: Checkpoint | None, callback: Any, mesh: Mesh | None, settings: Mapping[str, Any]
) -> None:
    """Raise ``ValueError``, in every process, for the first setting of ``fit`` that differs between them."""
    laid = None if mesh is None else [list(mesh.shape.items()), [device.id for device in mesh.devices.flat]]
    own: dict[str, Any] = {"mesh": laid, "callback": "none" if callback is None else "one"}
    if checkpoint is not None:
        own |= {"checkpoint.every": checkpoint.every, "checkpoint.keep": checkpoint.keep}
    check_same_settings("fit", own | dict(settings))
