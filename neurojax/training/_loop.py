"""The loop over blocks: what happens on the host between them."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from neurojax.distributed import any_process, gather, join_rows, place

from ._block import Program, laid_out, metric_buffers, run_block
from ._checkpoint import Checkpoint, CheckpointStore, Snapshot
from ._history import Evaluation
from ._sources import AbstractSource, GivenBatch, on_device
from ._termination import TerminatedError, Termination

__all__ = ["NonFiniteLossError", "Plan", "resume", "run_blocks"]


class NonFiniteLossError(ArithmeticError):
    """Training met a loss, metric or parameter that is NaN or infinite.

    Attributes:
        step: the update at which it was met, counted from 1.
        metric: its name: ``"loss"``, another metric, ``"evaluation/..."`` or the path of a parameter.
        checkpoint: where the last checkpoint is and its step, or ``None``.
    """

    def __init__(self, step: int, metric: str, value: float, checkpoint: str | None):
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


class _Stepper:
    """Takes updates in blocks; keeps what lasts from block to block on the device."""

    def __init__(self, program: Program, source: AbstractSource | None, data: Any, plan: Plan):
        self.program, self.source, self.data = program, source, data
        self.n_slots, self.mesh = plan.steps_per_block, plan.mesh
        self.buffers = None

    def take(self, learner: Any, start: int, n_steps: int):
        """Return ``(learner, metrics, finite)`` after ``n_steps`` updates, metrics as NumPy arrays."""
        if self.source is not None:
            learner, metrics, finite = self._block(self.source, learner, start, n_steps, self.n_slots)
            return learner, {name: np.asarray(values)[:n_steps] for name, values in metrics.items()}, finite
        parts, finite = [], np.zeros(0, bool)
        for step in range(start, start + n_steps):
            try:
                batch = on_device(next(self.data))
                batch = batch if self.mesh is None else join_rows(batch, self.mesh, name="data")
            except StopIteration as error:
                raise ValueError(
                    f"data: expected batches for all n_steps, got {step}, then no more."
                ) from error
            learner, metrics, finite = self._block(GivenBatch(batch), learner, step, 1, 1)
            parts.append(metrics)
        return learner, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, finite

    def _block(self, source: AbstractSource, learner: Any, start: int, n_steps: int, n_slots: int):
        if self.buffers is None:
            buffers = metric_buffers(self.program, source, learner, n_slots)
            self.buffers = place(buffers, self.mesh)
        return run_block(self.program, source, learner, self.buffers, jnp.int32(start), jnp.int32(n_steps))


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


def _check_finite(program: Program, learner: Any, start: int, metrics, finite, store) -> None:
    """Raise ``NonFiniteLossError`` for the first metric, or else a parameter, that is not finite."""
    bad = {name: np.flatnonzero(~np.isfinite(values)) for name, values in metrics.items()}
    first = [(at[0], name != "loss", name) for name, at in bad.items() if len(at)]
    if first:
        at, _, name = min(first)
        raise NonFiniteLossError(start + int(at) + 1, name, float(metrics[name][at]), _last_checkpoint(store))
    if not np.all(finite):
        trained = jax.tree_util.tree_flatten_with_path(eqx.filter(learner.model, program.mask))[0]
        keys, leaf = trained[int(np.argmin(finite))]
        values = np.asarray(gather(leaf))
        step, name = start + len(metrics["loss"]), "model" + jax.tree_util.keystr(keys)
        raise NonFiniteLossError(step, name, float(values[~np.isfinite(values)][0]), _last_checkpoint(store))


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


def resume(
    store: CheckpointStore, fresh: Snapshot, data: Any, is_iterator: bool, n_steps: int, layout: tuple | None
) -> Snapshot:
    """Return where the run in the store's folder stands, or ``fresh`` if there is none."""
    found = store.restore(fresh.learner)
    if found is None:
        return fresh
    if found.step > n_steps:
        raise ValueError(
            f"n_steps: expected at least {found.step}, which the run in {store.run.path} has taken, "
            f"got {n_steps}."
        )
    if is_iterator:
        data.set_state(found.position)
    if found.stopped_early:
        warnings.warn(
            f"The run in {store.run.path} was stopped early at step {found.step}; it is returned as it is.",
            stacklevel=3,
        )
    best = None if found.best is None else laid_out(layout, found.best)
    return dataclasses.replace(found, learner=laid_out(layout, found.learner), best=best)


def run_blocks(
    program: Program,
    source: AbstractSource | None,
    data: Any,
    snapshot: Snapshot,
    plan: Plan,
    store: CheckpointStore | None,
) -> Snapshot:
    """Return the snapshot after the last block."""
    if snapshot.step >= plan.n_steps or snapshot.stopped_early:
        return snapshot
    stepper = _Stepper(program, source, data, plan)
    termination = Termination(is_watched=store is not None)
    bar = tqdm(total=plan.n_steps, initial=snapshot.step, disable=not plan.progress, unit="step")
    with bar, termination:
        is_over = False
        while not is_over:
            start, end = snapshot.step, _block_end(plan, snapshot.step)
            learner, metrics, finite = stepper.take(snapshot.learner, start, end - start)
            _check_finite(program, learner, start, metrics, finite, store)
            history = snapshot.history.extended(metrics)
            snapshot = dataclasses.replace(snapshot, step=end, learner=learner, history=history)
            snapshot = _evaluate(plan, snapshot, store)
            bar.update(end - start)
            bar.set_postfix(loss=f"{float(metrics['loss'][-1]):.4g}", refresh=False)
            is_over = end >= plan.n_steps or snapshot.stopped_early
            is_due = plan.checkpoint is not None and end % plan.checkpoint.every == 0
            if store is not None and (is_due or is_over):
                snapshot = _save(store, snapshot, source is None, data)
            if plan.callback is not None:
                asked = any_process(bool(plan.callback(end, learner.model, learner.state, metrics)))
                if asked and store is not None and not (is_due or is_over):
                    snapshot = _save(store, snapshot, source is None, data)
                is_over = is_over or asked
            if termination.is_asked() and store is not None:
                if not (is_due or is_over):
                    snapshot = _save(store, snapshot, source is None, data)
                raise TerminatedError(end, str(store.run.path))
    return snapshot


def _save(store: CheckpointStore, snapshot: Snapshot, is_iterator: bool, data: Any) -> Snapshot:
    position = data.get_state() if is_iterator else None
    snapshot = dataclasses.replace(snapshot, position=position)
    store.save(snapshot)
    return snapshot
