"""Checkpoints: written whole or not at all, checked before they are used."""

import contextlib
import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._checks import check_at_least
from .._paths import user_path
from .._terminal import warn
from ..distributed import all_processes, any_process, is_main_process, wait_for_all
from ..runs import RunFolder, check_writable, tree_arrays, write_atomically
from ..runs._lock import FolderLock
from ._history import History
from ._identity import changed_state, compare_runs, versions
from ._leaves import filled, kinds_of, with_fresh_state
from ._positions import decode_position, encode_position
from ._spread import checksum, digest_of, spread_arrays, without_spread

__all__ = ["Checkpoint", "CheckpointStore", "Snapshot"]

_FORMAT = "neurojax training 3"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The folder and the interval of checkpoints, from which an interrupted run goes on.

    ``folder/checkpoint/`` holds the last checkpoints and ``folder/metrics.jsonl`` one JSON object
    a step, appended after the checkpoint of those steps is complete. One call at a time may write there.

    A run is resumed only as itself. The arrays that it begins with, and the programs that its objective,
    optimizer, batches and evaluation become, are compared with those of the call that began it. Names,
    comments and places of code are not compared. An evaluation is compared if it is jitted itself or an
    Equinox module, and an iterator by its ``settings`` and the shape of its batches. With another version of
    JAX, or callbacks in the objective, the first update is computed again and has to be the same to 0.1 %.

    To change something on purpose, name it in ``may_change``. With ``("optimizer",)`` a resumed run takes
    another learning rate, also where ``optax.inject_hyperparams`` keeps it in the optimizer's state. For a
    longer run, give a larger ``n_steps``.

    Attributes:
        folder: the run's folder, ``~`` for the home folder; made if need be. A run found in it is resumed.
        every: how many steps lie between checkpoints; they fall on its multiples, and on the run's end.
        keep: how many checkpoints are kept.
        settings: a mapping or dataclass of plain values that a resumed run must share, but for entries named
            ``n_steps``. They explain a difference better than programs do.
        may_change: parts of the run that need not be those that it began with: ``"settings"``, ``"key"``,
            ``"batch_size"``, ``"data"``, ``"model"``, ``"state"`` (as they begin), ``"trainable"``,
            ``"objective"``, ``"optimizer"``, ``"after_update"``, ``"evaluate"``.
    """

    folder: str | Path
    every: int
    keep: int = 2
    settings: Any = dataclasses.field(default_factory=dict)
    may_change: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on: the learner, the best learner so far, history, and where it stands."""

    step: int
    learner: Any
    best: Any
    history: History
    stopped_early: bool = False
    position: Any = None


def _steps_in(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a folder."""
    if not folder.is_dir():
        return []
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir()]


class _CorruptError(Exception):
    """A checkpoint whose content is not what was written."""


def _named(history: History) -> dict[str, np.ndarray]:
    return {f"history {name}": array for name, array in history.to_arrays().items()}


def _first(failure: str | None) -> str | None:
    """Return the first failure of any process, in all of them. Collective: every process must call this."""
    return next((each for each in all_processes(failure) if each is not None), None)


class CheckpointStore:
    """The checkpoints of one run folder, and its ``metrics.jsonl``; nobody else writes there meanwhile."""

    def __init__(self, checkpoint: Checkpoint, identity: Mapping[str, Any]):
        """Open the folder; ``identity`` is what a resumed run must share with the one that was cut off."""
        check_at_least("checkpoint.every", checkpoint.every, 1)
        check_at_least("checkpoint.keep", checkpoint.keep, 1)
        self.run = RunFolder(user_path(checkpoint.folder).absolute())
        self.identity, self.may_change = identity, tuple(checkpoint.may_change)
        # The values of the first update, by which another version's program is known as the same.
        self.first_update: dict[str, float] | None = None
        import orbax.checkpoint  # noqa: F401 - a slow import, before anything is claimed

        check_writable("checkpoint.folder", self.run.path)
        check_writable("checkpoint.folder", self.run.checkpoint_path)
        self.n_rows = 0
        self.keep, self.every = checkpoint.keep, checkpoint.every
        self.doubt: str | None = None
        self.has_other_update = False
        self._own_steps: list[int] = []  # that this process has read or written
        self._links: tempfile.TemporaryDirectory | None = None
        self._lock = self._claim()
        try:
            self._manager = self._open()
        except BaseException as error:
            self._release()
            if isinstance(error, OSError):
                raise OSError(
                    f"checkpoint.folder: expected to remove from {self.run.checkpoint_path} what an "
                    f"unfinished save left there ({error}); if no other process writes there, try again."
                ) from error
            raise

    def _claim(self) -> FolderLock | None:
        lock, failure = None, None
        if is_main_process():
            try:
                lock = FolderLock(self.run.path, ".training.lock", "checkpoint.folder")
            except OSError as error:
                failure = str(error)
        failure = _first(failure)
        if failure is not None:
            raise OSError(failure)
        return lock

    def _open(self):
        import orbax.checkpoint as ocp

        options = ocp.CheckpointManagerOptions(
            max_to_keep=self.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        return ocp.CheckpointManager(self._alias(), options=options)

    def _alias(self) -> Path:
        """Return the path of the checkpoints, by a link where its characters mean something to Orbax."""
        path = self.run.checkpoint_path
        if re.fullmatch(r"[\w./=+,@ -]{1,1000}", str(path)):
            return path
        if self._links is None:
            self._links = tempfile.TemporaryDirectory(prefix="neurojax-", ignore_cleanup_errors=True)
            Path(self._links.name, "checkpoint").symlink_to(path, target_is_directory=True)
        return Path(self._links.name, "checkpoint")

    def close(self) -> None:
        """Release what the store holds."""
        try:
            self._manager.close()
        finally:
            self._release()

    def _release(self) -> None:
        if self._links is not None:
            self._links.cleanup()
        if self._lock is not None:
            self._lock.release()

    def last_step(self) -> int | None:
        """Return the step of the newest checkpoint that this process has written or read."""
        return self._own_steps[-1] if self._own_steps else None

    def save(self, snapshot: Snapshot) -> None:
        """Save a checkpoint, and once it is complete append its new steps to ``metrics.jsonl``.

        Raises:
            OSError: if it cannot be written, or another process writes there; says what the last one is.
        """
        import orbax.checkpoint as ocp

        self._check_alone(snapshot.step)
        trees = {"learner": snapshot.learner, "best": snapshot.best}
        spread = spread_arrays(trees)
        whole = tree_arrays(without_spread(trees)) | _named(snapshot.history)
        arrays = whole | spread
        names = list(arrays)
        meta = {
            "format": _FORMAT,
            "step": snapshot.step,
            "stopped_early": snapshot.stopped_early,
            "position": encode_position(snapshot.position),
            "identity": self.identity,
            "versions": versions(),
            "first_update": self.first_update,
            "leaves": kinds_of(trees),
            "has_best": snapshot.best is not None,
            "arrays": [[n, list(arrays[n].shape), str(arrays[n].dtype)] for n in names],
            "checksums": {name: checksum(array) for name, array in spread.items()},
        }
        meta = json.loads(json.dumps(meta))
        meta["digest"] = digest_of(whole, meta)
        # Zero-size arrays cannot be stored, and need not be: their shape and dtype say all.
        stored = {f"array_{i}": arrays[n] for i, n in enumerate(names) if arrays[n].size}
        content = ocp.args.Composite(arrays=ocp.args.PyTreeSave(stored), meta=ocp.args.JsonSave(meta))
        try:
            self._manager.save(snapshot.step, args=content, force=True)
        # A full disk comes as whatever its writer makes of it, ValueError included.
        except Exception as error:
            # Another who begins to write there, without locks, removes what is half written.
            is_taken = self._lock is not None and not self._lock.is_mine()
            why = "another process has begun to write there" if is_taken else error
            raise OSError(
                f"checkpoint.folder: the checkpoint of step {snapshot.step} could not be written in "
                f"{self.run.checkpoint_path} ({why}); {self._last()}."
            ) from error
        self._own_steps.append(snapshot.step)
        self._append_metrics(snapshot)

    def _last(self) -> str:
        last = self.last_step()
        return "there is none" if last is None else f"the last one is of step {last}"

    def _check_alone(self, step: int) -> None:
        """Raise ``OSError`` if somebody else has claimed the folder, or saved there."""
        failure = None
        if self._lock is not None:
            found = max(_steps_in(self.run.checkpoint_path), default=None)
            if not self.run.checkpoint_path.is_dir():
                failure = "it is no longer there"
            elif not self._lock.is_mine():
                failure = "another process has begun to write there"
            elif found is not None and found not in self._own_steps:
                failure = f"another process has saved there, at step {found}"
        failure = _first(failure)
        if failure is not None:
            raise OSError(
                f"checkpoint.folder: expected {self.run.path} as this run left it, but {failure}. Step "
                f"{step} is not saved; of this run's checkpoints, {self._last()}."
            )

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
        steps: list[int] | None = None
        # A process that saves here removes what it replaces: afterwards there are other steps to read.
        while steps != (steps := self._steps()):
            snapshot, corrupt = self._read_one_of(steps, learner)
            if snapshot is not None:
                self._own_steps.append(snapshot.step)
                # First this, so that the file is behind the checkpoints whenever the process dies.
                self._rewrite_metrics(snapshot.history)
                self._set_aside(corrupt)
                return snapshot
            if not corrupt:
                self._rewrite_metrics(History())
                return None
        raise RuntimeError(
            f"checkpoint.folder: expected a checkpoint that can be read in {self.run.checkpoint_path}, "
            f"got corrupt ones at steps {steps}."
        )

    def _steps(self) -> list[int]:
        """Return the steps of the checkpoints that are there now, the last one first."""
        self._manager.reload()
        # What one process sees, all try: a folder may take its time to look the same everywhere.
        return all_processes(sorted(self._manager.all_steps(), reverse=True))[0]

    def _read_one_of(self, steps: list[int], learner: Any) -> tuple[Snapshot | None, list[int]]:
        """Return the first of some checkpoints that can be read, and the steps of those before it."""
        corrupt = []
        for step in steps:
            try:
                meta, arrays = self._read(step, spread_arrays({"learner": learner, "best": learner}))
            except _CorruptError as error:
                warn(
                    f"The checkpoint of step {step} in {self.run.checkpoint_path} is corrupt ({error}); "
                    "the one before it is tried.",
                    stacklevel=4,
                )
                corrupt.append(step)
                continue
            return self._snapshot(meta, arrays, learner), corrupt
        return None, corrupt

    def _read(self, step: int, spread: Mapping[str, jax.Array]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what was saved; arrays that were spread, and are in ``spread``, lie as those there.

        A checkpoint that one process cannot read is used by none of them.
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
                f"{self.run.checkpoint_path}, got {meta['format']!r}, of another version of neurojax. Finish "
                "that run with the version that began it, or begin anew in another folder; model files "
                "written by save can be read by any version."
            )
        checksums = meta["checksums"]
        whole = {name: array for name, array in arrays.items() if name not in checksums}
        is_same = all(checksum(arrays[name]) == expected for name, expected in checksums.items())
        if any_process(not is_same or digest_of(whole, meta) != digest):
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
        self.doubt, self.has_other_update = compare_runs(
            where, (meta["identity"], meta["versions"]), (self.identity, versions()), self.may_change
        )
        self.first_update = meta["first_update"]
        like = {"learner": learner, "best": learner if meta["has_best"] else None}
        trees = filled(like, meta["leaves"], arrays, where)
        if "optimizer" in self.may_change:
            changed = changed_state(meta["identity"], self.identity)
            trees = {name: with_fresh_state(tree, learner, changed) for name, tree in trees.items()}
        if not self.identity["is_described"]:  # what is known of the run is not forgotten
            self.identity = meta["identity"]
        prefix = "history "
        series = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        return Snapshot(
            step=meta["step"],
            learner=trees["learner"],
            best=trees["best"],
            history=History.from_arrays(series),
            stopped_early=meta["stopped_early"],
            position=decode_position(meta["position"], where),
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Move corrupt checkpoints out of the way, so that their steps can be saved again."""
        for step in steps if is_main_process() else ():
            number, target = 1, self.run.path / f"corrupt_checkpoint_{step}"
            while target.exists():
                number, target = number + 1, self.run.path / f"corrupt_checkpoint_{step}-{number + 1}"
            with contextlib.suppress(FileNotFoundError):  # another process has removed it
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
