"""The identity of a run: what it computes, and from where. A run is resumed only as itself.

The source text decides nothing. The model, the optimizer's state and the objective's state are known by
fingerprints of their fresh arrays. The objective, the optimizer, the batches, the hook after an update and
the evaluation are known by the programs that they become. Names, comments and places of code may change.
"""

import importlib.metadata
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import neurojax

from .._checks import differ
from .._terminal import warn
from ..distributed import gather
from ..runs import changed_settings, plain_settings
from ._block import Learner, Program, gradient_of, new_parameters
from ._fingerprints import changed_arrays, fingerprint, kind_of
from ._history import Evaluation
from ._programs import changed_program, describe_program, shapes_of
from ._sources import AbstractSource

__all__ = [
    "PARTS",
    "changed_state",
    "check_first_update",
    "compare_runs",
    "flat_identity",
    "run_identity",
    "summarize_update",
    "versions",
]

PARTS = (
    "settings", "key", "batch_size", "data", "model", "state", "trainable", "objective", "optimizer",
    "after_update", "evaluate",
)  # fmt: skip
"""The parts of an identity, as ``Checkpoint.may_change`` names them."""

_TOLERANCE = 1e-3  # of the first update, between two versions of JAX


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide which program an objective becomes."""
    found = {name: importlib.metadata.version(name) for name in ("jax", "equinox", "optax")}
    return found | {"neurojax": neurojax.__version__}


class _Change(NamedTuple):
    """A difference between two runs.

    Attributes:
        text: in words.
        is_program: whether only programs differ, which other versions of JAX may make otherwise.
    """

    text: str
    is_program: bool


def run_identity(
    settings: Any,
    data: Any,
    *,
    key: jax.Array,
    batch_size: int | None,
    source: AbstractSource | None,
    is_stored: bool,
    program: Program,
    learner: Learner,
    evaluate: Evaluation | None,
    evaluation_key: jax.Array,
) -> dict[str, Any]:
    """Return what a resumed run must have in common with the one that was cut off, by part.

    Collective: every process must call this.

    Args:
        settings: the user's.
        data: as it was given.
        key: of the run.
        batch_size: rows in a batch.
        source: the batches, for an iterator its first; ``None``: unknown, and programs are not described.
        is_stored: whether the data are rows in a store.
        program: the updates.
        learner: as it begins.
        evaluate: the evaluation.
        evaluation_key: of each evaluation.
    """
    programs = {} if source is None else _programs(source, program, learner, evaluate, evaluation_key)
    watched = None if evaluate is None else [evaluate.every, evaluate.patience, evaluate.keep_best]
    has_partitions = jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
    random = {"implementation": f"{jax.random.key_impl(key)}", "threefry_partitionable": bool(has_partitions)}
    parts: dict[str, Any] = {
        "settings": {"settings": _without_n_steps(plain_settings(settings))},
        "key": {"value": jax.random.key_data(key).tolist(), "settings": random},
        "batch_size": {"value": batch_size},
        "data": _data_identity(data, source, is_stored),
        "model": {"arrays": fingerprint(learner.model, is_computed=True)},
        "state": {"arrays": fingerprint(learner.state, is_computed=True)},
        "trainable": {"value": jax.tree.leaves(program.mask)},
        "objective": {"arrays": fingerprint(program.objective)},
        "optimizer": {
            "arrays": fingerprint(learner.opt_state, is_computed=True),
            "settings": fingerprint(program.optimizer),  # arrays in the transformation, if any
        },
        "after_update": {"arrays": fingerprint(program.after_update)},
        "evaluate": {"value": watched},
    }
    parts = {part: {**entry, "program": programs.get(part)} for part, entry in parts.items()}
    parts |= {"is_described": source is not None}
    return json.loads(json.dumps(parts, default=np.generic.item))  # NumPy's whole numbers will do


def _without_n_steps(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_n_steps(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != "n_steps"
    }


def _programs(
    source: AbstractSource,
    program: Program,
    learner: Learner,
    evaluate: Evaluation | None,
    evaluation_key: jax.Array,
) -> dict[str, Any]:
    """Describe the parts of an update, each by itself, so that a difference can be told by name."""
    step, key, model = jnp.int32(0), program.step_key, learner.model
    programs = {"data": describe_program(lambda source, *rest: source.take(*rest), source, step, key, key)}
    batch = eqx.filter_eval_shape(lambda source, *rest: source.take(*rest), source, step, key, key)
    if programs["data"] is not None:  # other batches of the same rows are no other order
        programs["data"]["inputs"] += [kind_of(leaf) for leaf in jax.tree.leaves(batch)]
    arguments = program.objective, program.mask, model, learner.state, batch, key
    programs["objective"] = describe_program(gradient_of, *arguments)
    (loss, _), gradient = eqx.filter_eval_shape(gradient_of, *arguments)
    arguments = program.optimizer, program.mask, model, learner.opt_state, gradient, loss
    programs["optimizer"] = describe_program(new_parameters, *arguments)
    if program.after_update is not None:
        arguments = program.after_update, model, learner.opt_state, learner.state, batch, key
        programs["after_update"] = describe_program(lambda hook, *rest: hook(*rest), *arguments)
    # Any other function may do what tracing would do once more, or do but once.
    function: Any = None if evaluate is None else evaluate.function
    if isinstance(function, eqx.Module) or hasattr(function, "lower"):
        arguments = function, model, learner.state, evaluation_key
        programs["evaluate"] = describe_program(lambda function, *rest: function(*rest), *arguments)
    return programs


def _data_identity(data: Any, source: AbstractSource | None, is_stored: bool) -> dict[str, Any]:
    """Return what decides the batches: arrays, the first batch of a store, the settings of an iterator."""
    if not isinstance(data, Iterator):
        return {"arrays": fingerprint(data)}
    settings = getattr(data, "settings", None)
    settings = plain_settings(settings) if isinstance(settings, Mapping) else {}
    if source is None:
        return {"settings": settings}
    kinds = ", ".join(map(kind_of, jax.tree.leaves(shapes_of(source))))
    arrays = fingerprint(jax.tree.map(_sorted_rows, gather(source))) if is_stored else {}
    return {"value": f"batches of {kinds}", "settings": settings, "arrays": arrays}


def _sorted_rows(batch: Any) -> np.ndarray:
    """Return a batch in an order of its own: where processes each read a part, the rows have another."""
    rows = np.asarray(batch)
    return rows[sorted(range(len(rows)), key=lambda i: rows[i].tobytes())]


def flat_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as one level of entries, for processes to compare."""
    flat = {}
    for part in PARTS:
        entry = identity[part]
        flat |= {f"{part}{path}": leaf for path, leaf in entry.get("arrays", {}).items()}
        flat |= {part: entry["value"]} if "value" in entry else {}
        flat |= {f"{part}.{name}": value for name, value in entry.get("settings", {}).items()}
        flat |= {f"{part} program": entry["program"]} if entry["program"] else {}
    return flat


def changed_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, _Change]:
    """Return which parts of two identities differ.

    Where the arrays that learning begins with differ by rounding, as on another processor, that is no change.
    Nor are programs compared where one of the two is not known, as that of an iterator at its end.
    """
    are_known = old["is_described"] and new["is_described"]
    changes = {}
    for part in PARTS:
        arrays = changed_arrays(old[part].get("arrays", {}), new[part].get("arrays", {}))
        values = [
            *_changed_values(old[part], new[part]),
            *(change.text for change in arrays if not change.is_rounding),
        ]
        programs = [identity[part]["program"] for identity in (old, new)]
        # Whether there is an evaluation, its settings say; not every one is described.
        is_compared = are_known and not (part == "evaluate" and None in programs)
        program = changed_program(*programs) if is_compared else None
        if values:
            changes[part] = _Change("; ".join(values[:3]), is_program=False)
        elif program is not None:
            changes[part] = _Change(program, is_program=True)
    return changes


def _changed_values(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    pairs = changed_settings(old.get("settings", {}), new.get("settings", {}))
    yield from (f"{name} from {before!r} to {after!r}" for name, (before, after) in pairs.items())
    if "value" in old and "value" in new and differ(old["value"], new["value"]):
        yield f"from {old.get('value')!r} to {new.get('value')!r}"


def rounded_parts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the parts in which some array differs by rounding."""
    pairs = ((part, old[part].get("arrays", {}), new[part].get("arrays", {})) for part in PARTS)
    return [part for part, *arrays in pairs if any(change.is_rounding for change in changed_arrays(*arrays))]


def other_shapes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the parts whose programs cannot be compared, as their arrays have other shapes."""
    pairs = ((part, old[part]["program"], new[part]["program"]) for part in PARTS)
    return [part for part, one, other in pairs if one and other and one["inputs"] != other["inputs"]]


def changed_state(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    """Return the paths of the optimizer's state that begin otherwise, and not because the model does.

    From another model, only single numbers count, such as a learning rate.
    """
    pairs = {part: (old[part]["arrays"], new[part]["arrays"]) for part in ("model", "optimizer")}
    has_same_model = all(change.is_rounding for change in changed_arrays(*pairs["model"]))
    state = pairs["optimizer"][1]
    return {
        change.path
        for change in changed_arrays(*pairs["optimizer"])
        if not change.is_rounding and (has_same_model or state[change.path]["kind"].endswith("[]"))
    }


def is_opaque(identity: Mapping[str, Any]) -> bool:
    """Return whether some program runs in part where no description reaches, as on the host."""
    return any(identity[part]["program"] and identity[part]["program"]["is_opaque"] for part in PARTS)


def compare_runs(
    where: str,
    old: tuple[Mapping[str, Any], Mapping[str, Any]],
    new: tuple[Mapping[str, Any], Mapping[str, Any]],
    may_change: Collection[str],
) -> tuple[str | None, bool]:
    """Refuse to resume a run as another one.

    Args:
        where: the checkpoint, for messages.
        old: identity and versions with which the run was saved.
        new: those of this call.
        may_change: the parts that may be others.

    Returns:
        A doubt in words that the first update has to settle, or ``None``; and whether that update is another
        one, as something was changed on purpose.

    Raises:
        ValueError: for another run; the message names what changed.
    """
    found = changed_parts(old[0], new[0])
    changes = {part: change for part, change in found.items() if part not in may_change}
    listed = "; ".join(f"{part}: {change.text}" for part, change in changes.items())
    pairs = {name: (old[1].get(name), version) for name, version in new[1].items()}
    updated = [f"{name} {then} then, {now} now" for name, (then, now) in pairs.items() if then != now]
    if changes and not (updated and all(change.is_program for change in changes.values())):
        raise ValueError(
            f"{where}: expected the run that it belongs to, but these changed: {listed}. Give what it "
            f"began with, another folder, or Checkpoint(..., may_change={tuple(changes)})."
        )
    if rounded := rounded_parts(old[0], new[0]):
        warn(
            f"{where}: {', '.join(rounded)} began with numbers that differ by rounding, as on another "
            "processor; the run goes on.",
            stacklevel=7,
        )
    has_other_update = bool(found.keys() & set(may_change))
    uncompared = {*other_shapes(old[0], new[0]), *changes} - set(may_change)
    if has_other_update and uncompared:
        parts = ", ".join(sorted(uncompared))
        warn(f"{where}: beside what was changed on purpose, {parts} cannot be compared.", stacklevel=7)
    if has_other_update or not (updated or is_opaque(new[0])):
        return None, has_other_update
    return f"{where}: {listed or 'it may differ'} ({', '.join(updated) or 'by callbacks'})", False


def summarize_update(
    program: Program, before: Learner, after: Learner, metrics: Mapping[str, Any]
) -> dict[str, float]:
    """Return what an update measured, and how far it moved each trained array. Collective."""
    trained = [gather(eqx.filter(learner.model, program.mask)) for learner in (before, after)]
    pairs = zip(*(jax.tree.leaves(model) for model in trained), strict=True)
    moved = (np.asarray(new, np.complex128) - np.asarray(old, np.complex128) for old, new in pairs)
    lengths = {f"change of array {i}": float(np.linalg.norm(change)) for i, change in enumerate(moved)}
    return {name: float(values[0]) for name, values in metrics.items()} | lengths


def check_first_update(doubt: str, expected: Mapping[str, float] | None, came: Mapping[str, float]) -> None:
    """Raise ``ValueError`` unless two programs make the same first update, to 0.1 %.

    Args:
        doubt: why they may not, in words.
        expected: the update by the program that began the run, or was given leave to go on with it.
        came: the update by the other one.
    """
    expected = expected or {}
    pairs = {name: (expected.get(name, np.nan), came.get(name, np.nan)) for name in {**expected, **came}}
    sizes = np.abs([number for pair in pairs.values() for number in pair])
    atol = 1e-6 * np.max(sizes[np.isfinite(sizes)], initial=0)
    others = {
        name: pair for name, pair in pairs.items() if not np.isclose(*pair, _TOLERANCE, atol, equal_nan=True)
    }
    if others:
        listed = ", ".join(f"{name} {then:.6g} then, {now:.6g} now" for name, (then, now) in others.items())
        raise ValueError(
            f"{doubt}: expected the first update that began the run, but it differs: {listed}. Give what it "
            "began with, or name what changed in Checkpoint(..., may_change=...)."
        )
