"""Checkpoints: written whole or not at all, checked before they are used."""

import base64
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from neurojax._checks import check_at_least
from neurojax.distributed import all_processes, any_process, is_main_process, wait_for_all
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
from ._spread import checksum, spread_arrays, without_spread

__all__ = ["Checkpoint", "CheckpointStore", "Snapshot"]

_FORMAT = "neurojax training 2"


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
    """Return the position for JSON; where processes have different ones, all of them."""
    everyone = all_processes(_as_json(position))
    same = all(other == everyone[0] for other in everyone)
    return everyone[0] if same else {"by_process": everyone}


def _decode_position(stored: Any, where: str) -> Any:
    if "by_process" in stored:
        everyone = stored["by_process"]
        if len(everyone) != jax.process_count():
            raise ValueError(
                f"{where}: expected {len(everyone)} processes as before, in each of which the data was at "
                f"a place of its own, got {jax.process_count()}."
            )
        stored = everyone[jax.process_index()]
    return base64.b64decode(stored["bytes"]) if "bytes" in stored else stored["json"]


def _as_json(position: Any) -> Any:
    if isinstance(position, bytes):
        return {"bytes": base64.b64encode(position).decode()}
    try:
        return {"json": json.loads(json.dumps(position))}
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data: expected a get_state that returns bytes or what JSON can hold, got {position!r:.80}."
        ) from error


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


def _named(history: History) -> dict[str, np.ndarray]:
    return {f"history {name}": array for name, array in history.to_arrays().items()}


def _first(failure: str | None) -> str | None:
    """Return the first process's failure, in all of them; all must ask."""
    return next((each for each in all_processes(failure) if each is not None), None)


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
        spread = spread_arrays(trees)
        whole = tree_arrays(without_spread(trees)) | _named(snapshot.history)
        arrays = whole | spread
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
            "checksums": {name: checksum(array) for name, array in spread.items()},
        }
        meta = json.loads(json.dumps(meta))
        meta["digest"] = _digest(whole, meta)
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
        self._append_metrics(snapshot)

    def _append_metrics(self, snapshot: Snapshot) -> None:
        failure = None
        if is_main_process():
            try:
                with self.run.metrics_path.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in snapshot.history.rows(self.n_rows))
            except OSError as error:
                failure = str(error)
        failure = _first(failure)
        if failure is not None:
            raise OSError(
                f"checkpoint.folder: {self.run.metrics_path} could not be written ({failure}); the "
                f"checkpoint of step {snapshot.step} is whole, and the same call goes on from there."
            )
        self.n_rows = len(snapshot.history)

    def restore(self, learner: Any) -> Snapshot | None:
        """Return the last good checkpoint, or ``None`` where there is none; ``metrics.jsonl`` is cut to it.

        Raises:
            ValueError: if it is of another model, optimiser or settings; the message says what differs.
            RuntimeError: if there are checkpoints and none can be read.
        """
        # What one process sees, all try: a folder may take its time to look the same everywhere.
        steps = all_processes(sorted(self._manager.all_steps(), reverse=True))[0]
        corrupt = []
        for step in steps:
            try:
                meta, arrays = self._read(step, spread_arrays({"learner": learner, "best": learner}))
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

    def _read(self, step: int, spread: Mapping[str, jax.Array]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what was saved; arrays that were spread, and are in ``spread``, lie as those there.

        What one process cannot read, none uses: they go on together.
        """
        meta, arrays, digest, failure = {}, {}, None, None
        try:
            meta = self._restore(step, "meta")
            digest = meta.pop("digest")
            if meta["format"] == _FORMAT:
                arrays = self._read_arrays(step, meta, spread)
        # Whatever a damaged file makes its reader raise, it means the same here.
        except Exception as error:
            failure = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        failure = _first(failure)
        if failure is not None:
            raise _CorruptError(failure)
        if meta["format"] != _FORMAT:
            raise ValueError(
                f"checkpoint.folder: expected checkpoints of the format {_FORMAT!r} in "
                f"{self.run.checkpoint_path}, got {meta['format']!r}, of another version of neurojax."
            )
        checksums = meta["checksums"]
        whole = {name: array for name, array in arrays.items() if name not in checksums}
        is_same = all(checksum(arrays[name]) == expected for name, expected in checksums.items())
        if any_process(not is_same or _digest(whole, meta) != digest):
            raise _CorruptError("its content does not have the digest stored with it")
        return meta, arrays

    def _read_arrays(self, step: int, meta: Mapping[str, Any], spread: Mapping[str, jax.Array]):
        import orbax.checkpoint as ocp

        how, arrays = {}, {}
        for i, (name, shape, dtype) in enumerate(meta["arrays"]):
            like = spread.get(name) if name in meta["checksums"] else None
            if 0 in shape:
                arrays[name] = np.zeros(shape, jnp.dtype(dtype))
            elif like is not None and (list(like.shape), str(like.dtype)) == (shape, dtype):
                how[f"array_{i}"] = ocp.ArrayRestoreArgs(sharding=like.sharding)
            else:
                how[f"array_{i}"] = ocp.RestoreArgs(restore_type=np.ndarray)
        stored = self._restore(step, "arrays", restore_args=how)
        for i, (name, shape, _) in enumerate(meta["arrays"]):
            if 0 not in shape:
                arrays[name] = stored[f"array_{i}"]
        return arrays

    def _restore(self, step: int, item: str, **settings: Any) -> Any:
        import orbax.checkpoint as ocp

        # By the readers themselves: the manager has all processes meet, which one that fails never does.
        path = self._manager.directory / str(step) / item
        if item == "meta":
            return ocp.JsonCheckpointHandler().restore(path, args=ocp.args.JsonRestore(**settings))
        return ocp.PyTreeCheckpointHandler().restore(path, args=ocp.args.PyTreeRestore(**settings))

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
            position=_decode_position(meta["position"], where),
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Move corrupt checkpoints out of the way, so that their steps can be saved again."""
        for step in steps if is_main_process() else ():
            number, target = 1, self.run.path / f"corrupt_checkpoint_{step}"
            while target.exists():
                number, target = number + 1, self.run.path / f"corrupt_checkpoint_{step}-{number + 1}"
            (self.run.checkpoint_path / str(step)).rename(target)
        if steps:
            wait_for_all("neurojax set aside")
            self._manager.close()
            self._manager = self._open()

    def _rewrite_metrics(self, history: History) -> None:
        if is_main_process():
            lines = "".join(json.dumps(row) + "\n" for row in history.rows(0))
            write_atomically(self.run.metrics_path, lambda file: file.write(lines.encode()))
        self.n_rows = len(history)
