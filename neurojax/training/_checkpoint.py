"""Checkpoints: written whole or not at all, checked before they are used."""

import base64
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from neurojax._checks import check_at_least
from neurojax.runs import (
    RunFolder,
    changed_settings,
    check_writable,
    describe_tree,
    fill_tree,
    plain_settings,
    tree_arrays,
    write_atomically,
)

from ._history import History

__all__ = ["Checkpoint", "CheckpointStore", "Snapshot"]

_FORMAT = "neurojax training 1"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often a run is saved, so that it can go on when it was cut off.

    ``folder/checkpoint/`` holds the last checkpoints and ``folder/metrics.jsonl`` one JSON object
    a step, appended after the checkpoint of those steps is complete.

    Attributes:
        folder: the run's folder; made if need be. A run found in it is resumed.
        every: how many steps lie between checkpoints; they fall on its multiples, and on the run's end.
        keep: how many checkpoints are kept.
        settings: a mapping or dataclass of whatever decides the run's outcome; a resumed run must have the
            same, but for entries named ``n_steps``. Key, batch size, data, trainable leaves and the settings
            of an objective or sampler that is a module are compared anyway; what functions close over,
            such as an Optax step size, is seen only if it is named here.
    """

    folder: str | Path
    every: int
    keep: int = 2
    settings: Any = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on: the learner, the best learner so far, history, and where it stands."""

    step: int
    learner: Any
    best: Any
    history: History
    stopped_early: bool = False
    position: Any = None


class _CorruptError(Exception):
    """A checkpoint whose content is not what was written."""


def _digest(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """Return the digest of all that a checkpoint holds; ``meta`` as JSON gives it back."""
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(name.encode())
        total.update(np.ascontiguousarray(arrays[name]).tobytes())
    return total.hexdigest()


def _encode_position(position: Any) -> Any:
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    try:
        return {"json": json.loads(json.dumps(position))}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data: expected a get_state that returns bytes or what JSON can hold, got {position!r:.80}."
        ) from error


def _decode_position(stored: Any) -> Any:
    return base64.b64decode(stored["bytes"]) if "bytes" in stored else stored["json"]


def _without_n_steps(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_n_steps(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != "n_steps"
    }


def _refuse(changes: Mapping[str, tuple[Any, Any]], where: str) -> None:
    if changes:
        listed = "; ".join(f"{name} from {old!r} to {new!r}" for name, (old, new) in changes.items())
        raise ValueError(f"{where}: expected the settings it was made with, but these changed: {listed}.")


class CheckpointStore:
    """The checkpoints of one run folder, and its ``metrics.jsonl``."""

    def __init__(self, checkpoint: Checkpoint, identity: Mapping[str, Any]):
        """Open the folder; ``identity`` is what a resumed run must share with the one that was cut off."""
        check_at_least("checkpoint.every", checkpoint.every, 1)
        check_at_least("checkpoint.keep", checkpoint.keep, 1)
        self.run = RunFolder(Path(checkpoint.folder).absolute())
        settings = _without_n_steps(plain_settings(checkpoint.settings))
        self.identity = plain_settings({"settings": settings, **identity})
        check_writable("checkpoint.folder", self.run.path)
        check_writable("checkpoint.folder", self.run.checkpoint_path)
        self.n_rows = 0
        self.keep = checkpoint.keep
        self._manager = self._open()

    def _open(self):
        import orbax.checkpoint as ocp  # a slow import, wanted only here

        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(self.run.checkpoint_path, options=options)

    def last_step(self) -> int | None:
        """Return the step of the newest checkpoint."""
        return self._manager.latest_step()

    def close(self) -> None:
        """Release what the store holds."""
        self._manager.close()

    def save(self, snapshot: Snapshot) -> None:
        """Save a checkpoint, and once it is complete append its new steps to ``metrics.jsonl``."""
        import orbax.checkpoint as ocp

        trees = {"learner": snapshot.learner, "best": snapshot.best}
        arrays = tree_arrays(trees) | {f"history {n}": a for n, a in snapshot.history.to_arrays().items()}
        names = list(arrays)
        meta = {
            "format": _FORMAT,
            "step": snapshot.step,
            "stopped_early": snapshot.stopped_early,
            "position": _encode_position(snapshot.position),
            "identity": self.identity,
            "tree": describe_tree(trees),
            "has_best": snapshot.best is not None,
            "arrays": [[n, list(arrays[n].shape), str(arrays[n].dtype)] for n in names],
        }
        meta = json.loads(json.dumps(meta))
        meta["digest"] = _digest(arrays, meta)
        # Zero-size arrays cannot be stored, and need not be: their shape and dtype say all.
        stored = {f"array_{i}": arrays[n] for i, n in enumerate(names) if arrays[n].size}
        content = ocp.args.Composite(arrays=ocp.args.PyTreeSave(stored), meta=ocp.args.JsonSave(meta))
        last = self.last_step()
        try:
            self._manager.save(snapshot.step, args=content, force=True)
        # A full disk comes as whatever its writer makes of it, ValueError included.
        except Exception as error:
            raise OSError(
                f"checkpoint.folder: the checkpoint of step {snapshot.step} could not be written in "
                f"{self.run.checkpoint_path} ({error}); the last one is of step {last}."
            ) from error
        with self.run.metrics_path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in snapshot.history.rows(self.n_rows))
        self.n_rows = len(snapshot.history)

    def restore(self, learner: Any) -> Snapshot | None:
        """Return the last good checkpoint, or ``None`` where there is none; ``metrics.jsonl`` is cut to it.

        Raises:
            ValueError: if it is of another model, optimiser or settings; the message says what differs.
            RuntimeError: if there are checkpoints and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        corrupt = []
        for step in steps:
            try:
                meta, arrays = self._read(step)
            except _CorruptError as error:
                warnings.warn(
                    f"The checkpoint of step {step} in {self.run.checkpoint_path} is corrupt ({error}); "
                    "the one before it is tried.",
                    stacklevel=3,
                )
                corrupt.append(step)
                continue
            snapshot = self._snapshot(meta, arrays, learner)
            # First this, so that the file is behind the checkpoints whenever the process dies.
            self._rewrite_metrics(snapshot.history)
            self._set_aside(corrupt)
            return snapshot
        if corrupt:
            raise RuntimeError(
                f"checkpoint.folder: expected a checkpoint that can be read in {self.run.checkpoint_path}, "
                f"got corrupt ones at steps {corrupt}."
            )
        self._rewrite_metrics(History())
        return None

    def _read(self, step: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        import orbax.checkpoint as ocp

        try:
            read = self._manager.restore(
                step, args=ocp.args.Composite(arrays=ocp.args.PyTreeRestore(), meta=ocp.args.JsonRestore())
            )
            meta, stored = read["meta"], read["arrays"]
            digest = meta.pop("digest")
            if meta["format"] != _FORMAT:
                raise ValueError(f"format {meta['format']!r}, not {_FORMAT!r}")
            arrays = {}
            for i, (name, shape, dtype) in enumerate(meta["arrays"]):
                is_stored = 0 not in shape
                arrays[name] = (
                    np.asarray(stored[f"array_{i}"]) if is_stored else np.zeros(shape, jnp.dtype(dtype))
                )
        # Whatever a damaged file makes its reader raise, it means the same here.
        except Exception as error:
            raise _CorruptError(
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        if _digest(arrays, meta) != digest:
            raise _CorruptError("its content does not have the digest stored with it")
        return meta, arrays

    def _snapshot(self, meta: dict[str, Any], arrays: dict[str, np.ndarray], learner: Any) -> Snapshot:
        where = f"checkpoint of step {meta['step']} in {self.run.checkpoint_path}"
        changes = changed_settings(meta["identity"], self.identity)
        # A setting that the user named explains a difference of shapes better than the shapes do.
        _refuse({name: pair for name, pair in changes.items() if name.startswith("settings.")}, where)
        like = {"learner": learner, "best": learner if meta["has_best"] else None}
        trees = fill_tree(like, arrays, meta["tree"], where)
        _refuse(changes, where)
        prefix = "history "
        series = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        return Snapshot(
            step=meta["step"],
            learner=trees["learner"],
            best=trees["best"],
            history=History.from_arrays(series),
            stopped_early=meta["stopped_early"],
            position=_decode_position(meta["position"]),
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Move corrupt checkpoints out of the way, so that their steps can be saved again."""
        for step in steps:
            number, target = 1, self.run.path / f"corrupt_checkpoint_{step}"
            while target.exists():
                number, target = number + 1, self.run.path / f"corrupt_checkpoint_{step}-{number + 1}"
            (self.run.checkpoint_path / str(step)).rename(target)
        if steps:
            self._manager.close()
            self._manager = self._open()

    def _rewrite_metrics(self, history: History) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in history.rows(0))
        write_atomically(self.run.metrics_path, lambda file: file.write(lines.encode()))
        self.n_rows = len(history)
