"""``neurojax sparse-coding``: learn a dictionary from natural images, and show what was learned."""

import dataclasses
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
from ._sparse_coding_settings import (
    Settings,
    make_optimizer,
    make_penalty,
    make_solver,
    read_images,
    with_patch_size,
)

__all__ = ["main"]

_N_SEEN_BATCHES = 8  # whose contrast stands for that of all patches that are learned from
_FEWEST_WHOLE = 6  # images, of which whole ones are held out
_CERTIFIED = ("l1", "nonnegative-l1", "elastic-net")


class Task(NamedTuple):
    """A learning task: the dictionary, its data and its settings.

    Attributes:
        dictionary: as learning starts.
        objective: what is minimised.
        optimizer: of the atoms.
        sampler: of patches to learn from.
        watched: held-out patches for the evaluations.
        patches: held-out patches to report on; others than those watched where these choose the model.
        key: of learning.
    """

    dictionary: Dictionary
    objective: SparseCodingObjective
    optimizer: optax.GradientTransformation
    sampler: data.PatchSampler
    watched: jax.Array
    patches: jax.Array
    key: jax.Array


def main(arguments: Sequence[str]) -> None:
    """Learn, certify, draw, and print a summary."""
    start = time.perf_counter()
    settings, run = parse(Settings, "sparse-coding", arguments)
    mesh = start_devices(settings, has_atoms=True)
    with together():
        task = _prepare(settings, mesh)
        if settings.data.layout == "patches":  # their size is that of the data
            model = dataclasses.replace(settings.model, patch_size=task.sampler.patch_size)
            settings = dataclasses.replace(settings, model=model)
    run = start_run("sparse-coding", settings, run)

    result = _learn(settings, run, task, mesh)
    solution = fetch(_encode(settings, result.model, task.patches, mesh), mesh)
    result = result._replace(model=fetch(result.model, mesh), state=None, opt_state=None)
    with only_on_main() as is_main:
        if is_main:
            fits = _show(settings, run, result, task, solution)
            seconds = time.perf_counter() - start
            print(_summary(settings, run, result.model, task.patches, solution, fits, seconds))


def _prepare(settings: Settings, mesh: Mesh | None) -> Task:
    """Read the images, and find out before a folder is made what `fit` would find out only then."""
    learning = settings.learning
    check_counts(learning, n_steps=1, evaluate_every=1, checkpoint_every=1, patience=1)
    check_divides("batch_size", learning.batch_size, mesh)
    n_model = settings.devices.model_devices
    if settings.model.n_atoms % n_model:
        raise ValueError(
            f"n_atoms: expected a multiple of the {n_model} model devices, got {settings.model.n_atoms}."
        )
    images = read_images(settings.data)
    settings = dataclasses.replace(settings, model=with_patch_size(settings.model, images, settings.data))
    model = settings.model
    if isinstance(images, jax.Array):
        seen, held_out = _hold_out_last(images)
    else:
        seen, held_out = _hold_out(images, model.patch_size)
    parts = (held_out,) if learning.patience is None else _halves(held_out, model.patch_size)
    # Drawn alike: without a choice to be made, the patches watched are those reported on.
    key, n = jax.random.key(learning.seed + 1), learning.n_evaluation
    drawn = [_sampler(part, settings, n)(key) for part in parts]
    model_key, fit_key = jax.random.split(jax.random.key(learning.seed))
    task = Task(
        random_dictionary(model_key, model.n_atoms, model.patch_size**2),
        _make_objective(settings),
        make_optimizer(learning),
        _sampler(seen, settings, learning.batch_size),
        drawn[0],
        drawn[-1],
        fit_key,
    )
    eqx.filter_eval_shape(task.objective, task.dictionary, None, task.patches, fit_key)
    return task


def _show(settings: Settings, run: RunFolder, result: training.FitResult, task: Task, solution: Solution):
    """Save the dictionary, draw the pictures, and return the atoms' Gabor fits."""
    patch_shape = (settings.model.patch_size, settings.model.patch_size)
    fits = receptive_fields.fit_gabor_batch(result.model.atoms, patch_shape)
    save(run.path / "dictionary.npz", result.model)
    seen = np.concatenate([task.sampler(key) for key in jax.random.split(task.key, _N_SEEN_BATCHES)])
    draw(run, result, task.patches, np.asarray(solution.value), fits, settings, seen)
    return fits


def _hold_out(images: Sequence[jax.Array], patch_size: int) -> tuple[list, list]:
    """Split off the last eighth of the images, at least two; of few images, a band in the middle of each.

    The band is an eighth of the columns, or a patch's width if that is more. (The columns at one side would
    adjoin those at the other in the circle on which images are filtered.)
    """
    if len(images) >= _FEWEST_WHOLE:
        n_held_out = max(2, len(images) // 8)
        return list(images[:-n_held_out]), list(images[-n_held_out:])
    seen, held_out = [], []
    for image in images:
        n_rows, n_columns = image.shape
        width = max(n_columns // 8, patch_size)
        if n_rows < patch_size or n_columns < width + patch_size:
            raise ValueError(
                f"patch_size: expected at most the height and half the width of each image, "
                f"got {patch_size} for an image of shape {tuple(image.shape)}."
            )
        start = max((n_columns - width) // 2, patch_size)
        sides = image[:, :start], image[:, start + width :]
        seen += [side for side in sides if side.shape[1] >= patch_size]
        held_out.append(image[:, start : start + width])
    return seen, held_out


def _halves(held_out: Any, patch_size: int) -> tuple[Any, Any]:
    """Split what is held out into a part to choose the model by and one to report on.

    Images by their number, a single one across its height; patches by their number.
    """
    if len(held_out) > 1:
        return held_out[::2], held_out[1::2]
    middle = len(held_out[0]) // 2
    if isinstance(held_out, jax.Array) or middle < patch_size:
        raise ValueError(
            "patience: expected enough held-out data to choose the model by one half and report on the "
            "other; give more images, or leave --patience out."
        )
    return [held_out[0][:middle]], [held_out[0][middle:]]


def _hold_out_last(patches: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split off the last eighth of the patches."""
    n_held_out = len(patches) // 8
    if not n_held_out:
        raise ValueError(f"data: expected at least 8 patches, of which one is held out, got {len(patches)}.")
    return patches[:-n_held_out], patches[-n_held_out:]


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
    learning, held_out, dictionary = settings.learning, place(task.watched, mesh), task.dictionary
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
    gabor = receptive_fields.gabor_summary(fits)
    is_certified = settings.penalty.penalty in _CERTIFIED and settings.penalty.strength > 0
    measure = "worst relative duality gap" if is_certified else "largest relative movement"
    n_converged = int(jnp.sum(solution.status == Status.converged))
    lines = {
        "explained variance": f"{float(explained):.1%} of {len(patches)} held-out patches",
        "mean active units": f"{float(n_active):.1f} of {dictionary.n_atoms}",
        measure: f"{float(jnp.max(solution.residual)):.1e} ({n_converged} of {len(patches)} converged)",
        "Gabor-like atoms": f"{gabor['share']:.0%} (R² ≥ 0.7 and half a period under the envelope), "
        f"{gabor['edge_share']:.0%} single edges or blobs; median R² {gabor['median_r_squared']:.2f}",
        "time": f"{seconds:.1f} s",
        "run folder": str(run.path),
    }
    if settings.penalty.penalty != "log":
        penalty = make_penalty(settings.penalty)
        energies = jax.vmap(energy, (None, 0, 0, None))(dictionary, patches, codes, penalty)
        lines = {"mean energy": f"{float(jnp.mean(energies)):.4f}", **lines}
    return table(lines)
