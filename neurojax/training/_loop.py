"""The loop over blocks: what happens on the host between them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from .._terminal import warn
from ..distributed import any_process, gather, place
from ._block import Program, finite_leaves, laid_out, metric_buffers, numbers_of, run_block
from ._checkpoint import Checkpoint, CheckpointStore, Snapshot
from ._history import Evaluation
from ._identity import check_first_update, summarize_update
from ._interruption import Interruption
from ._sources import AbstractSource, next_batch

__all__ = ["NonFiniteLossError", "Plan", "Stepper", "resume", "run_blocks"]


class NonFiniteLossError(ArithmeticError):
    """Training met a loss, a metric or a number of the learner that is NaN or infinite.

    Attributes:
        step: the update at which it was met, counted from 1.
        metric: its name: ``"loss"``, another metric, ``"evaluation/..."``, or the path of an array in the
            ``model``, the ``opt_state`` or the ``state``.
        checkpoint: where the last checkpoint is and its step, or ``None``.
    """

    def __init__(self, step: int, metric: str, value: float | complex, checkpoint: str | None):
        self.step, self.metric, self.checkpoint = step, metric, checkpoint
        back = f"go back to the {checkpoint}" if checkpoint else "there is no checkpoint to go back to"
        super().__init__(f"step {step}: expected a finite {metric}, got {value}; {back}.")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The settings of one call that are no part of an update."""

    n_steps: int
    steps_per_block: int
    evaluate: Evaluation | None
    evaluation_key: jax.Array
    checkpoint: Checkpoint | None
    callback: Callable[..., Any] | None
    progress: bool
    mesh: Mesh | None = None


class Stepper:
    """Takes updates in blocks; keeps what lasts from block to block on the device."""

    def __init__(self, program: Program, source: AbstractSource | None, first: Any, data: Any, plan: Plan):
        """Take batches from ``source``, or else from the iterator ``data``, whose first is ``first``."""
        self.program, self.source, self.first, self.data = program, source, first, data
        self.n_slots, self.mesh = plan.steps_per_block, plan.mesh
        self.buffers = None
        self.began_finite = self.began_without_nan = np.array(True)

    def take(self, learner: Any, start: int, n_steps: int):
        """Return ``(learner, metrics, finite)`` after ``n_steps`` updates, metrics as NumPy arrays."""
        if self.source is not None:
            return self._block(self.source, learner, start, n_steps, self.n_slots)
        parts, finite = [], True
        for step in range(start, start + n_steps):
            try:
                batch = next_batch(self.data, self.mesh)
            except StopIteration as error:
                raise ValueError(
                    f"data: expected batches for all n_steps, got {step}, then no more."
                ) from error
            learner, metrics, finite = self._block(batch, learner, step, 1, 1)
            parts.append(metrics)
            if not finite:
                break
        return learner, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, finite

    def take_first(self, learner: Any) -> dict[str, float]:
        """Return what the first update from a fresh learner does; nothing of an iterator at its end."""
        if self.first is None:
            return {}
        n_slots = 1 if self.source is None else self.n_slots
        after, metrics, _ = self._block(self.first, learner, 0, 1, n_slots)
        return summarize_update(self.program, learner, after, metrics)

    def watch(self, fresh: Any) -> None:
        """Know which arrays were not finite when the run began, and so need not be."""
        self.began_finite, self.began_without_nan = np.asarray(finite_leaves(fresh))

    def is_sound(self, flags: np.ndarray) -> np.ndarray:
        """Return which arrays are finite, or as they began: infinite in places, or with NaN."""
        is_finite, has_no_nan = flags
        return np.where(self.began_finite, is_finite, has_no_nan | ~self.began_without_nan)

    def prepare(self, learner: Any) -> None:
        """Trace an update, and so check the objective, where a batch is known."""
        if self.first is not None:
            n_slots = 1 if self.source is None else self.n_slots
            self.buffers = place(metric_buffers(self.program, self.first, learner, n_slots), self.mesh)

    def _block(self, source: AbstractSource, learner: Any, start: int, n_steps: int, n_slots: int):
        if self.buffers is None:
            buffers = metric_buffers(self.program, source, learner, n_slots)
            self.buffers = place(buffers, self.mesh)
        counts = jnp.int32(start), jnp.int32(n_steps)
        learner, metrics, flags = run_block(self.program, source, learner, self.buffers, *counts)
        metrics = {name: np.asarray(values)[:n_steps] for name, values in metrics.items()}
        return learner, metrics, bool(np.all(self.is_sound(np.asarray(flags))))


def _block_end(plan: Plan, step: int) -> int:
    """Return the first step after ``step`` at which the host has something to do."""
    periods = [plan.steps_per_block]
    periods += [plan.evaluate.every] if plan.evaluate is not None else []
    periods += [plan.checkpoint.every] if plan.checkpoint is not None else []
    return int(min(plan.n_steps, *(step - step % period + period for period in periods)))


def _last_checkpoint(store: CheckpointStore | None) -> str | None:
    if store is None or store.last_step() is None:
        return None
    return f"checkpoint of step {store.last_step()} in {store.run.checkpoint_path}"


def _check_finite(stepper: Stepper, before: Any, learner: Any, start: int, metrics, finite, store) -> None:
    """Raise ``NonFiniteLossError`` for the first metric, or else an array, that is not finite."""
    bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in metrics.items()}
    first = [(at[0], name != "loss", name) for name, at in bad.items() if len(at)]
    step = start + min(first)[0] + 1 if first else start + len(metrics["loss"])
    if not finite and stepper.source is not None and step > start + 1:
        # Taken again one by one, to tell the step at which the numbers broke.
        for at in range(start, step):
            before, _, is_finite = stepper.take(before, at, 1)
            if not is_finite:
                step, learner = at + 1, before
                break
    if first and min(first)[0] + start + 1 <= step:
        at, _, name = min(first)
        raise NonFiniteLossError(start + int(at) + 1, name, float(metrics[name][at]), _last_checkpoint(store))
    if not finite:
        name, value = _broken(stepper, learner)
        raise NonFiniteLossError(step, name, value, _last_checkpoint(store))


def _broken(stepper: Stepper, learner: Any) -> tuple[str, float | complex]:
    """Return the path of the first array that broke, and the first of its numbers that is not finite."""
    is_sound = stepper.is_sound(np.asarray(finite_leaves(learner)))
    path, leaf = list(numbers_of(learner).items())[int(np.argmin(is_sound))]
    values = np.asarray(gather(leaf))
    values = values if np.iscomplexobj(values) else values.astype(np.float64)
    return path, values[~np.isfinite(values)][0].item()


def _evaluate(plan: Plan, snapshot: Snapshot, store: CheckpointStore | None) -> Snapshot:
    """Return the snapshot with one more evaluation, the best learner so far and whether to stop."""
    evaluate, learner = plan.evaluate, snapshot.learner
    if evaluate is None or snapshot.step % evaluate.every:
        return snapshot
    output = evaluate.function(learner.model, learner.state, plan.evaluation_key)
    if not isinstance(output, dict) or any(np.shape(value) != () for value in output.values()):
        raise ValueError(f"evaluate.function: expected a dict of scalars, got {output!r:.80}.")
    values = {name: float(value) for name, value in output.items()}
    for name, value in values.items():
        if not np.isfinite(value):
            raise NonFiniteLossError(snapshot.step, f"evaluation/{name}", value, _last_checkpoint(store))
    history = snapshot.history.evaluated(snapshot.step, values)
    snapshot = dataclasses.replace(snapshot, history=history)
    if evaluate.patience is None and not evaluate.keep_best:
        return snapshot
    if "loss" not in values:
        raise ValueError(f"evaluate.function: expected a 'loss' to watch, got {sorted(values)}.")
    since = history.evaluations_since_best()
    best = learner if evaluate.keep_best and since == 0 else snapshot.best
    stop = evaluate.patience is not None and since >= evaluate.patience
    return dataclasses.replace(snapshot, best=best, stopped_early=stop)


def resume(store: CheckpointStore, stepper: Stepper, fresh: Snapshot, plan: Plan) -> Snapshot:
    """Return where the run in the store's folder stands, or ``fresh`` if there is none."""
    stepper.watch(fresh.learner)
    found = store.restore(fresh.learner)
    if found is None:
        store.first_update = stepper.take_first(fresh.learner)
        return fresh
    if store.has_other_update:
        store.first_update = stepper.take_first(fresh.learner)
    elif store.doubt is not None and stepper.first is not None:
        check_first_update(store.doubt, store.first_update, stepper.take_first(fresh.learner))
        if "computes" in store.doubt:
            warn(f"{store.doubt}: the first update is the same to 0.1 %, and the run goes on.", stacklevel=4)
    if found.step > plan.n_steps:
        raise ValueError(
            f"n_steps: expected at least {found.step}, which the run in {store.run.path} has taken, "
            f"got {plan.n_steps}."
        )
    if stepper.source is None:
        if found.position is None:
            raise ValueError(f"data: expected rows in memory as before in {store.run.path}, got an iterator.")
        stepper.data.set_state(found.position)
    if found.stopped_early or found.step == plan.n_steps:
        why = f"was stopped early at step {found.step}" if found.stopped_early else "had taken all its steps"
        warn(f"The run in {store.run.path} {why}; it is returned as it is.", stacklevel=4)
    layout = stepper.program.layout
    best = None if found.best is None else laid_out(layout, found.best)
    return dataclasses.replace(found, learner=laid_out(layout, found.learner), best=best)


def run_blocks(stepper: Stepper, snapshot: Snapshot, plan: Plan, store: CheckpointStore | None) -> Snapshot:
    """Return the snapshot after the last block."""
    if snapshot.step >= plan.n_steps or snapshot.stopped_early:
        return snapshot
    if store is None:
        stepper.watch(snapshot.learner)
    interruption = Interruption(is_watched=store is not None)
    bar = tqdm(total=plan.n_steps, initial=snapshot.step, disable=not plan.progress, unit="step")
    with bar, interruption:
        is_over = False
        while not is_over:
            start, end = snapshot.step, _block_end(plan, snapshot.step)
            learner, metrics, finite = stepper.take(snapshot.learner, start, end - start)
            _check_finite(stepper, snapshot.learner, learner, start, metrics, finite, store)
            history = snapshot.history.extended(metrics)
            snapshot = dataclasses.replace(snapshot, step=end, learner=learner, history=history)
            snapshot = _evaluate(plan, snapshot, store)
            bar.update(end - start)
            bar.set_postfix(loss=f"{float(metrics['loss'][-1]):.4g}", refresh=False)
            is_over = end >= plan.n_steps or snapshot.stopped_early
            is_saved = store is None
            if store is not None and (is_over or end % store.every == 0):
                snapshot, is_saved = _save(store, stepper, snapshot), True
            if plan.callback is not None:
                asked_to_end = plan.callback(end, learner.model, learner.state, metrics)
                is_over = any_process(bool(asked_to_end)) or is_over
            asked = interruption.asked()
            if store is not None and not is_saved and (is_over or asked):
                snapshot = _save(store, stepper, snapshot)
            if store is not None and asked:
                raise asked(end, str(store.run.path))
    return snapshot


def _save(store: CheckpointStore, stepper: Stepper, snapshot: Snapshot) -> Snapshot:
    position = stepper.data.get_state() if stepper.source is None else None
    snapshot = dataclasses.replace(snapshot, position=position)
    store.save(snapshot)
    return snapshot
