"""``neurojax sparse-coding``: learn a dictionary from natural images, and show what was learned."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from .. import data, metrics, receptive_fields, training
from ..convergence import Solution, Status
from ..distributed import is_main_process, place, shard_atoms
from ..runs import RunFolder, save
from ..sparse_coding import (
    AtomUsage,
    Dictionary,
    DictionaryUpkeep,
    SparseCodingObjective,
    encode_batch,
    energy,
    random_dictionary,
)
from ._devices import check_divides, fetch, only_on_main, start_devices, together
from ._settings import check_counts, decisive, is_progress_shown, parse, start_run, table
from ._sparse_coding_pictures import draw
from ._sparse_coding_settings import Settings, make_optimizer, make_penalty, make_solver, read_images

__all__ = ["main"]

_CERTIFIED = ("l1", "nonnegative-l1", "elastic-net")


class Task(NamedTuple):
    """What is learned, from what, and how.

    Attributes:
        dictionary: as learning starts.
        objective: what is minimised.
        optimizer: of the atoms.
        sampler: of patches to learn from.
        patches: held out.
        key: of learning.
    """

    dictionary: Dictionary
    objective: SparseCodingObjective
    optimizer: optax.GradientTransformation
    sampler: data.PatchSampler
    patches: jax.Array
    key: jax.Array


def main(arguments: Sequence[str]) -> None:
    """Learn, certify, draw, and print a summary."""
    start = time.perf_counter()
    settings, run = parse(Settings, "sparse-coding", arguments)
    mesh = start_devices(settings, has_atoms=True)
    with together():
        task = _prepare(settings, mesh)
    run = start_run("sparse-coding", settings, run)

    result = _learn(settings, run, task, mesh)
    solution = fetch(_encode(settings, result.model, task.patches, mesh), mesh)
    result = result._replace(model=fetch(result.model, mesh), state=None, opt_state=None)
    with only_on_main() as is_main:
        if is_main:
            fits = _show(settings, run, result, task.patches, solution)
            seconds = time.perf_counter() - start
            print(_summary(settings, run, result.model, task.patches, solution, fits, seconds))


def _prepare(settings: Settings, mesh: Mesh | None) -> Task:
    """Read the images, and find out before a folder is made what `fit` would find out only then."""
    learning, model = settings.learning, settings.model
    check_counts(learning, n_steps=1, evaluate_every=1, checkpoint_every=1, patience=1)
    check_divides("batch_size", learning.batch_size, mesh)
    n_model = settings.devices.model_devices
    if model.n_atoms % n_model:
        raise ValueError(f"n_atoms: expected a multiple of the {n_model} model devices, got {model.n_atoms}.")
    seen, held_out = _hold_out(read_images(settings.data), model.patch_size)
    patches = _sampler(held_out, settings, learning.n_evaluation)(jax.random.key(learning.seed + 1))
    model_key, fit_key = jax.random.split(jax.random.key(learning.seed))
    task = Task(
        random_dictionary(model_key, model.n_atoms, model.patch_size**2),
        _make_objective(settings),
        make_optimizer(learning),
        _sampler(seen, settings, learning.batch_size),
        patches,
        fit_key,
    )
    eqx.filter_eval_shape(task.objective, task.dictionary, None, patches, fit_key)
    return task


def _show(settings: Settings, run: RunFolder, result: training.FitResult, patches, solution: Solution):
    """Save the dictionary, draw the pictures, and return the atoms' Gabor fits."""
    patch_shape = (settings.model.patch_size, settings.model.patch_size)
    fits = receptive_fields.fit_gabor_batch(result.model.atoms, patch_shape)
    save(run.path / "dictionary.npz", result.model)
    draw(run, result, patches, np.asarray(solution.value), fits, settings)
    return fits


def _hold_out(images, patch_size: int) -> tuple[list, list]:
    """Split off the right eighth of every image, or a patch's width if that is more."""
    seen, held_out = [], []
    for image in images:
        n_columns = max(image.shape[1] // 8, patch_size)
        if image.shape[0] < patch_size or image.shape[1] < n_columns + patch_size:
            raise ValueError(
                f"patch_size: expected at most the height and half the width of each image, "
                f"got {patch_size} for an image of shape {tuple(image.shape)}."
            )
        seen.append(image[:, :-n_columns])
        held_out.append(image[:, -n_columns:])
    return seen, held_out


def _sampler(images, settings: Settings, batch_size: int) -> data.PatchSampler:
    return data.PatchSampler(
        images, settings.model.patch_size, batch_size, preprocess=settings.data.preprocess
    )


def _make_objective(settings: Settings) -> SparseCodingObjective:
    return SparseCodingObjective(
        make_penalty(settings.penalty),
        make_solver(settings.inference),
        tol=settings.inference.tol,
        max_steps=settings.inference.max_inference_steps,
        steps_per_check=settings.inference.steps_per_check,
    )


def _learn(settings: Settings, run: RunFolder, task: Task, mesh: Mesh | None) -> training.FitResult:
    learning, held_out, dictionary = settings.learning, place(task.patches, mesh), task.dictionary
    if mesh is not None and settings.devices.model_devices > 1:
        dictionary = shard_atoms(dictionary, mesh)
    evaluate = eqx.filter_jit(lambda model, patches: task.objective(model, None, patches, task.key))

    def evaluation(model: Dictionary, state: Any, key: Any) -> dict[str, jax.Array]:
        loss, (_, measured) = evaluate(model, held_out)
        return {"loss": loss, **measured}

    return training.fit(
        dictionary,
        task.objective,
        task.sampler,
        optimizer=task.optimizer,
        n_steps=learning.n_steps,
        key=task.key,
        state=None if learning.replace_after is None else AtomUsage.init(task.dictionary),
        after_update=DictionaryUpkeep(task.objective, task.optimizer, learning.replace_after),
        evaluate=training.Evaluation(
            evaluation, learning.evaluate_every, learning.patience, keep_best=learning.patience is not None
        ),
        checkpoint=training.Checkpoint(run.path, learning.checkpoint_every, settings=decisive(settings)),
        progress=is_main_process() and is_progress_shown(settings.output),
        mesh=mesh,
    )


def _encode(settings: Settings, dictionary: Dictionary, patches: jax.Array, mesh: Mesh | None) -> Solution:
    """Encode the held-out patches to the tolerance of what is reported."""
    inference = settings.inference
    return encode_batch(
        dictionary,
        patches,
        make_penalty(settings.penalty),
        solver=make_solver(inference),
        tol=inference.final_tol,
        max_steps=10 * inference.max_inference_steps,
        steps_per_check=inference.steps_per_check,
        mesh=mesh,
    )


def _summary(settings: Settings, run, dictionary, patches, solution: Solution, fits, seconds: float) -> str:
    codes = solution.value
    explained = metrics.explained_variance(patches, dictionary.reconstruct(codes))
    n_active = jnp.mean(metrics.n_active(codes))
    is_certified = settings.penalty.penalty in _CERTIFIED and settings.penalty.strength > 0
    measure = "worst relative duality gap" if is_certified else "largest relative movement"
    n_converged = int(jnp.sum(solution.status == Status.converged))
    lines = {
        "explained variance": f"{float(explained):.1%} of {len(patches)} held-out patches",
        "mean active units": f"{float(n_active):.1f} of {dictionary.n_atoms}",
        measure: f"{float(jnp.max(solution.residual)):.1e} ({n_converged} of {len(patches)} converged)",
        "Gabor-like atoms": f"{receptive_fields.gabor_share(fits):.0%} with R² ≥ 0.7, "
        f"median R² {float(jnp.median(fits.r_squared)):.2f}",
        "time": f"{seconds:.1f} s",
        "run folder": str(run.path),
    }
    if settings.penalty.penalty != "log":
        penalty = make_penalty(settings.penalty)
        energies = jax.vmap(energy, (None, 0, 0, None))(dictionary, patches, codes, penalty)
        lines = {"mean energy": f"{float(jnp.mean(energies)):.4f}", **lines}
    return table(lines)
