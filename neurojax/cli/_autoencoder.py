"""``neurojax autoencoder``: train an autoencoder of one of six kinds, measure it, show what was learned."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from tqdm import tqdm

from .. import autoencoder as ae
from .. import training
from ..distributed import is_main_process, place
from ..runs import RunFolder, save, save_arrays, write_atomically
from ..training import History
from ._autoencoder_kinds import (
    Learner,
    Rows,
    layer_objectives,
    make_learner,
    make_optimizer,
    pretrain,
    read_rows,
)
from ._autoencoder_measures import Trained, measure
from ._autoencoder_pictures import draw
from ._autoencoder_settings import Settings, check, known, resolve
from ._devices import check_divides, fetch, only_on_main, start_devices, together
from ._settings import decisive, is_progress_shown, parse, start_run, table, write_json

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Learn, measure, draw, and print a summary."""
    start = time.perf_counter()
    settings, run = parse(Settings, "autoencoder", arguments)
    mesh = start_devices(settings)
    keys = _keys(settings.learning.seed)
    with together():
        settings = resolve(settings)
        rows, learner = _prepare(settings, keys, mesh)
    optimizer = make_optimizer(settings)
    run = start_run("autoencoder", settings, run, may_change=("likelihood",))

    if settings.model.kind == "stacked":
        progress = settings.output.progress
        learner = pretrain(settings, rows, optimizer, run, keys["model"], progress)
    result = _learn(settings, run, learner, optimizer, rows, keys["fit"], mesh)
    result = result._replace(model=fetch(result.model, mesh), state=None, opt_state=None)
    with only_on_main() as is_main:
        if is_main:
            trained = _trained(settings, learner, result)
            measured = measure(settings, trained, rows, keys["measure"])
            _write(run, trained, measured)
            draw(run, settings, trained, rows, keys["pictures"])
            print(_summary(settings, run, measured, time.perf_counter() - start))


def _prepare(settings: Settings, keys: dict[str, Array], mesh: Mesh | None) -> tuple[Rows, Learner]:
    """Read the rows and make the model, before a folder is made; a stack is made anew for its pretraining."""
    check(settings)
    if mesh is not None and settings.model.kind == "stacked":
        raise ValueError("kind: expected one that is learned in one piece on many devices, got stacked.")
    check_divides("batch_size", settings.learning.batch_size, mesh)
    rows = read_rows(settings, keys["data"])
    learner = make_learner(settings, rows, keys["model"])
    learner.objective.check_data(learner.model, rows.train)
    make_optimizer(settings)
    if settings.model.kind == "stacked":
        layer_objectives(settings)
    return rows, learner


def _keys(seed: int) -> dict[str, Array]:
    names = ("data", "model", "fit", "measure", "pictures")
    return dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True))


def _learn(
    settings: Settings, run: RunFolder, learner: Learner, optimizer, rows: Rows, key: Array, mesh: Mesh | None
) -> training.FitResult:
    learning = settings.learning
    is_shown = is_main_process() and is_progress_shown(settings.output)
    train, watched = rows.train, rows.held_out[: learning.n_evaluation]
    if isinstance(learner.model, ae.Classifier):
        labels, watched_labels = known(rows.train_labels), known(rows.held_out_labels)
        train, watched = (train, labels), (watched, watched_labels[: learning.n_evaluation])
    watched, last = place(watched, mesh), {}

    def evaluation(model: Any, state: Any, key: Array) -> dict[str, Array]:
        last.update(_held_out(learner.objective, model, state, watched, key))
        return dict(last)

    def report(step: int, model: Any, state: Any, metrics: Any) -> None:
        if is_shown and step % learning.evaluate_every == 0:
            tqdm.write(f"step {step}, held out: loss {float(last['loss']):.4g}", file=sys.stderr)

    return training.fit(
        learner.model,
        learner.objective,
        train,
        optimizer=optimizer,
        n_steps=known(learning.n_steps),
        batch_size=learning.batch_size,
        key=key,
        state=learner.state,
        after_update=learner.after_update,
        evaluate=training.Evaluation(evaluation, learning.evaluate_every),
        checkpoint=training.Checkpoint(run.path, learning.checkpoint_every, settings=decisive(settings)),
        callback=report,
        progress=is_shown,
        mesh=mesh,
    )


@eqx.filter_jit
def _held_out(objective: Any, model: Any, state: Any, watched: Any, key: Array) -> dict[str, Array]:
    """Return what learning minimises, and its metrics, on held-out rows."""
    if isinstance(objective, training.AbstractGradientObjective):
        (loss, (_, measured)), _ = objective.value_and_grad(model, state, watched, key)
    else:
        loss, (_, measured) = objective(model, state, watched, key)
    return {"loss": loss, **measured}


def _trained(settings: Settings, learner: Learner, result: training.FitResult) -> Trained:
    is_classifier = isinstance(result.model, ae.Classifier)
    return Trained(
        autoencoder=learner.stack if is_classifier else result.model,
        first=learner.model,
        classifier=result.model if is_classifier else None,
        objective=learner.objective,
        history=result.history,
        layer_histories=learner.layer_histories,
        has_reconstructed=not is_classifier or settings.stacked.pretrain,
    )


def _write(run: RunFolder, trained: Trained, measured: dict[str, Any]) -> None:
    save(run.path / "autoencoder.npz", trained.autoencoder)
    if trained.classifier is None:
        save_arrays(run.path / "parameters.npz", trained.autoencoder)
    else:
        save(run.path / "classifier.npz", trained.classifier)
        parts = {"autoencoder": trained.autoencoder, "classifier": trained.classifier}
        save_arrays(run.path / "parameters.npz", parts)
    _write_costs(run.path / "cost.txt", trained.history)
    for i, history in enumerate(trained.layer_histories):
        _write_costs(run.path / f"layer_{i}" / "cost.txt", history)
    write_json(run.path / "results.json", measured)


def _write_costs(path: Path, history: History) -> None:
    """Write the step and its cost, a line each."""
    table = np.column_stack([np.arange(1, len(history) + 1), history["loss"]])
    write_atomically(path, lambda file: np.savetxt(file, table, fmt=["%d", "%.9g"]))


def _summary(settings: Settings, run: RunFolder, measured: dict[str, Any], seconds: float) -> str:
    held_out, training_rows = measured["held_out"], measured["training"]
    n_rows, lines = measured["n_held_out_rows"], {}
    if settings.model.kind == "variational":
        lines |= _variational_lines(settings, measured)
    elif "cost" in held_out:
        unit = measured["unit"]
        lines["cost a datum"] = (
            f"{held_out['cost']:.2f} {unit}, {n_rows} held-out rows (training {training_rows['cost']:.2f})"
        )
    if "cost_of_corrupted" in held_out:
        costs = [part["cost_of_corrupted"] for part in (held_out, training_rows)]
        lines["from corrupted rows"] = f"{costs[0]:.2f} {measured['unit']} (training {costs[1]:.2f})"
    if "explained_variance" in held_out:
        lines["explained variance"] = (
            f"{held_out['explained_variance']:.1%} (training {training_rows['explained_variance']:.1%})"
        )
    if "n_active" in held_out:
        lines |= _sparse_lines(settings, held_out)
    if "contraction" in held_out:
        lines["contraction"] = (
            f"‖J‖² {held_out['contraction']:.2f} ({held_out['contraction_at_first']:.2f} before learning)"
        )
    if "classification_error" in held_out:
        error = held_out["classification_error"]
        spread = np.sqrt(error * (1 - error) / n_rows)
        lines["classification error"] = (
            f"{error:.2%} ± {spread:.2%} of {n_rows} held-out rows "
            f"(training {training_rows['classification_error']:.2%})"
        )
    lines["parameters"] = f"{measured['n_parameters']:,}"
    return table({**lines, "time": f"{seconds:.1f} s", "run folder": str(run.path)})


def _variational_lines(settings: Settings, measured: dict[str, Any]) -> dict[str, str]:
    held_out, training_rows = measured["held_out"], measured["training"]
    n_samples = settings.variational.importance_samples
    name = "ELBO" if n_samples == 1 else f"bound, {n_samples} samples"
    n_draws = settings.likelihood.likelihood_samples
    bounds = f"{held_out['bound']:.2f} nats, {measured['n_held_out_rows']} held-out rows"
    return {
        name: f"{bounds} (training {training_rows['bound']:.2f})",
        "−log p(x)": f"{held_out['negative_log_likelihood']:.2f} ± {held_out['standard_error']:.2f} nats, "
        f"{held_out['n_likelihood_rows']} held-out rows, {n_draws} samples each",
        "divergence": f"{held_out['divergence']:.2f} nats, {held_out['n_active_latent']} of "
        f"{settings.variational.n_latent} latent units active",
    }


def _sparse_lines(settings: Settings, held_out: dict[str, float]) -> dict[str, str]:
    is_kl = settings.sparse.selection == "kl"
    lines = {
        "active units": f"{held_out['n_active']:.1f} a datum" + (" (above ½)" if is_kl else ""),
        "dead units": f"{held_out['dead_fraction']:.1%}, not active at any held-out row",
    }
    if is_kl:
        lines["mean activity"] = f"{held_out['activity']:.3f} (target {settings.sparse.sparsity_target})"
    return lines
