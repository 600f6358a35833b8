"""The training loop."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jax.sharding import Mesh

from .._terminal import is_shown
from ..distributed import place, set_mesh
from ._block import Learner, Program, layout_of
from ._checkpoint import Checkpoint, CheckpointStore, Snapshot
from ._history import Evaluation, History
from ._identity import flat_identity, run_identity
from ._loop import Plan, Stepper, resume, run_blocks
from ._objectives import check_rows
from ._sources import as_source, from_store, is_store, on_device, peek
from ._start import (
    check_arguments,
    check_processes_agree,
    numbers_to_arrays,
    trainable_mask,
)

__all__ = ["FitResult", "fit"]


class FitResult(NamedTuple):
    """The result of training.

    Attributes:
        model: the model after the last update, or at the best evaluation if that was asked for.
        opt_state: the optimiser's state beside it.
        state: the objective's state beside it.
        history: what was recorded.
    """

    model: Any
    opt_state: Any
    state: Any
    history: History


def fit(
    model: Any,
    objective: Callable[..., Any] | Any,
    data: Any,
    *,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    key: Any,
    batch_size: int | None = None,
    state: Any = None,
    trainable: Any = eqx.is_inexact_array,
    after_update: Callable[..., Any] | None = None,
    evaluate: Evaluation | None = None,
    checkpoint: Checkpoint | None = None,
    callback: Callable[..., Any] | None = None,
    progress: bool | None = None,
    steps_per_block: int = 100,
    mesh: Mesh | None = None,
) -> FitResult:
    """Train a model by ``n_steps`` updates, in blocks that run on the device.

    Update s (from 0) folds s into a key derived from ``key``, takes a batch, and does
    ``(loss, (state, metrics)), gradient = ∂objective(model, state, batch, key)``, then
    ``model += optimizer.update(gradient)`` on the trainable leaves, then ``after_update``. What it
    does depends on s and ``key`` alone, never on where blocks begin or end.

    With a ``checkpoint``, the run is resumed from the last one in its folder. If the process is killed, run
    the same call again: it ends with the parameters and the history of a run that was never cut off, bit for
    bit (on the same machine). A folder that holds another run is refused; `Checkpoint` says what is compared,
    and how to change a learning rate on purpose. A larger ``n_steps`` continues a finished run. A run that
    has taken all its steps, or was stopped early, is returned as it is, with a warning.

    With a ``checkpoint``, the first update is computed once more at the beginning, to know the run by. After
    a number has become NaN or infinite, the updates of its block are repeated to find the first. Callbacks
    inside the objective then run again.

    Args:
        model: any pytree, such as an Equinox module.
        objective: ``objective(model, state, batch, key) -> (loss, (state, metrics))``, or an
            ``AbstractGradientObjective``.
        data: one of: a pytree of arrays with equal leading axes (rows); `neurojax.data.ShardedRows`, which
            are shuffled and read ahead by `neurojax.data.batches`; a sampler ``key -> batch``,
            run on the device (a module keeps its arrays as arguments, a closure makes constants of
            them); an iterator over batches on the host, with a ``checkpoint`` a ``BatchIterator``.
        optimizer: any Optax transformation; it is given ``value=loss`` too.
        n_steps: the number of updates in all, ≥ 1, earlier ones of a resumed run included.
        key: a typed PRNG key.
        batch_size: rows a batch, in epochs: each visits rows in a random order of its own and drops the
            remainder that fills no batch. ``None``: all rows at each update. Only for arrays.
        state: what the objective carries from step to step, or ``None``.
        trainable: which leaves are learned: a predicate, or a pytree of truth values as for
            ``equinox.partition``.
        after_update: ``after_update(model, opt_state, state, batch, key) -> (model, opt_state, state)``,
            run on the device after each update.
        evaluate: held-out evaluation and early stopping.
        checkpoint: where to save the run, and how often.
        callback: ``callback(step, model, state, metrics)``, called on the host after each block, with the
            updates made so far and the block's metrics, ``(steps,)`` each. A true value ends the run here;
            the same call without that goes on.
        progress: whether to draw a progress bar; ``None``: if standard error is a terminal.
        steps_per_block: blocks end at its multiples, and wherever something else is due.
        mesh: the devices, as `neurojax.distributed.make_mesh` makes it: each takes its part of every batch,
            and the gradient is that of the whole. Arrays that lie over the mesh already (atoms by
            ``shard_atoms``, chains in ``state`` by ``shard_rows``) stay so, beside their optimiser's; the
            rest, rows in memory included, is on every device. In several processes all give the same
            arguments, but an iterator gives each process its own part of the batches.

    Returns:
        The trained model, the states beside it, and the history.

    Raises:
        ValueError: before the first update, if an argument is not as described; the message names it. Also
            for a checkpoint of another run, and for an iterator that ends too soon.
        OSError: if the checkpoint's folder cannot be written to, or another process writes there.
        TerminatedError: on SIGTERM, with a ``checkpoint``: after the block, which is saved first. It is a
            ``SystemExit`` of code 143; the same call goes on.
        InterruptedRunError: on Ctrl-C, likewise. It is a ``KeyboardInterrupt``; a second Ctrl-C raises a
            plain one at once.
        NonFiniteLossError: after a block in which the loss, a metric, or a number in the model, the
            optimizer's state or ``state`` became NaN or infinite; such a block is never saved.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> def objective(mean, state, batch, key):
        ...     return 0.5 * jnp.mean((batch - mean) ** 2), (state, {})
        >>> rows = jnp.array([1.0, 2.0, 6.0])
        >>> key = jax.random.key(0)
        >>> result = fit(jnp.array(0.0), objective, rows, optimizer=optax.sgd(0.5), n_steps=50, key=key)
        >>> round(float(result.model), 4), len(result.history)
        (3.0, 50)
    """
    check_arguments(key, n_steps, steps_per_block, evaluate, checkpoint)
    show = is_shown(progress)
    evaluation_key = jax.random.split(key, 3)[2]
    plan = Plan(n_steps, steps_per_block, evaluate, evaluation_key, checkpoint, callback, show, mesh)
    is_stored = is_store(data)
    if is_stored:
        data, batch_size = from_store(data, batch_size, key), None
    with set_mesh(mesh):
        learner, program = _start(
            model, objective, state, optimizer, key, trainable=trainable, after_update=after_update, mesh=mesh
        )
        source = as_source(data, batch_size, mesh)
        if source is not None and not callable(data):
            check_rows(objective, model, data)
        first = peek(data, mesh) if source is None and checkpoint is not None else source
        stepper = Stepper(program, source, first, data, plan)
        stepper.prepare(learner)
        identity = {}
        if checkpoint is not None or jax.process_count() > 1:
            identity = run_identity(
                {} if checkpoint is None else checkpoint.settings,
                data,
                key=key,
                batch_size=batch_size,
                source=first,
                is_stored=is_stored,
                program=program,
                learner=learner,
                evaluate=evaluate,
                evaluation_key=evaluation_key,
            )
            counts = {"n_steps": n_steps, "steps_per_block": steps_per_block}
            check_processes_agree(checkpoint, callback, mesh, counts | flat_identity(identity))
        snapshot = _run(stepper, learner, plan, identity)
    chosen = snapshot.best if snapshot.best is not None else snapshot.learner
    return FitResult(chosen.model, chosen.opt_state, chosen.state, snapshot.history)


def _start(model, objective, state, optimizer, key, *, trainable, after_update, mesh):
    """Return what an update changes, and what it is, both where they belong."""
    model, state = on_device(model, "model"), numbers_to_arrays(on_device(state, "state"))
    mask = trainable_mask(model, trainable)
    model = place(model, mesh)
    opt_state = on_device(optimizer.init(eqx.filter(model, mask)))
    learner = place(Learner(model, opt_state, state), mesh)
    step_key, epoch_key, _ = jax.random.split(key, 3)
    program = Program(
        on_device(objective, "objective"), optimizer, on_device(after_update), mask, step_key, epoch_key
    )
    if mesh is not None:
        program = dataclasses.replace(place(program, mesh), layout=layout_of(learner))
    return learner, program


def _run(stepper: Stepper, learner: Learner, plan: Plan, identity: dict) -> Snapshot:
    """Go on from the last checkpoint, if there is one, to the end."""
    snapshot = Snapshot(0, learner, None, History())
    if plan.checkpoint is None:
        return run_blocks(stepper, snapshot, plan, None)
    store = CheckpointStore(plan.checkpoint, identity)
    try:
        return run_blocks(stepper, resume(store, stepper, snapshot, plan), plan, store)
    finally:
        store.close()
