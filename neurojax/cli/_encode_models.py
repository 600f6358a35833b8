"""The encoders of ``neurojax encode``: how each begins, is trained on some gratings, and predicts all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .. import neural_coding as nc
from .. import training
from ..neural_coding import GaborEnergy
from ..penalties import ElasticNet
from ..runs import plain_settings
from ..training import History
from ._decode_networks import load_if_same, save_with_identity
from ._encode_settings import Settings, Stimuli
from ._settings import plain_data

__all__ = ["Trained", "first_model", "fit_repeats", "n_parameters", "predict_angles"]

_N_CANDIDATES = 2000


class Trained(NamedTuple):
    """An encoder of all gratings.

    Attributes:
        first: as it began; nothing for the GLM.
        model: as it ended.
        history: of learning; nothing for the GLM.
        predicted: (stimuli, neurons).
    """

    first: Any
    model: Any
    history: History | None
    predicted: np.ndarray


def first_model(name: str, stimuli: Stimuli, rows: np.ndarray, key: Array) -> Any:
    """Return an encoder as it begins; energy models begin near what they are to predict at ``rows``."""
    (_, rows_of_image, columns), n_neurons = stimuli.images.shape, stimuli.train.shape[1]
    if name == "gabor-energy":
        return _first_energy(stimuli.images[rows], jnp.asarray(stimuli.train[rows]), key)
    return nc.ConvolutionalEncoder.from_filters(
        nc.course_filters(),
        (rows_of_image, columns),
        n_neurons,
        key,
        readout="factorized" if name == "factorized" else "dense",
        activation=None if name == "convolutional" else jax.nn.relu,
    )


@eqx.filter_jit
def _first_energy(images: Array, responses: Array, key: Array) -> GaborEnergy:
    """Return for each neuron the one of many random energy models that correlates best, scaled to fit."""
    shape = (int(images.shape[1]), int(images.shape[2]))
    drawn = GaborEnergy.random(shape, _N_CANDIDATES, key)
    energies = jax.vmap(drawn)(images)
    centred, wanted = energies - jnp.mean(energies, axis=0), responses - jnp.mean(responses, axis=0)
    power = jnp.sum(centred**2, axis=0)
    # Of candidates that hardly respond to any grating a huge amplitude would make what it wants.
    power = power + 0.1 * jnp.mean(power)
    covariance = jnp.matmul(centred.T, wanted, precision="highest")
    best = jnp.argmax(covariance / jnp.sqrt(power)[:, None], axis=0)
    chosen = jax.tree.map(lambda leaf: leaf[best], drawn)
    amplitude = covariance[best, jnp.arange(len(best))] / power[best]
    baseline = jnp.mean(responses, axis=0) - amplitude * jnp.mean(energies, axis=0)[best]
    return eqx.tree_at(lambda m: (m.amplitude, m.baseline), chosen, (amplitude, baseline))


def n_parameters(model: Any) -> int:
    """Return how many numbers were learned."""
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


def _objective(name: str, settings: Settings) -> nc.EncodingObjective:
    learning = settings.learning
    # Energy models have no readout that a penalty could fall on.
    l1, l2 = (0.0, 0.0) if name == "gabor-energy" else (learning.l1, learning.l2)
    return nc.EncodingObjective("squared", l1, l2, learning.penalty_scale)


def _decisive(settings: Settings, name: str, **more: Any) -> dict[str, Any]:
    learning = plain_settings(settings.learning)
    return {"data": plain_data(settings.data), "learning": learning, "encoder": name, **more}


def fit_repeats(
    settings: Settings,
    folder: Path,
    name: str,
    stimuli: Stimuli,
    optimizer: optax.GradientTransformation,
    key: Array,
    *,
    progress: bool = False,
) -> Trained:
    """Train on all gratings, going on from the checkpoint in ``folder`` if there is one."""
    rows = np.arange(len(stimuli.images))
    if name == "poisson-glm":
        model = _fit_glm(settings, stimuli, rows)
        return Trained(None, model, None, _glm_predictions(model, stimuli))
    test = stimuli.images, jnp.asarray(stimuli.test.mean(axis=0))
    first, model, history = _fit(settings, folder, name, stimuli, rows, optimizer, test, key, progress)
    return Trained(first, model, history, np.asarray(_predictions(model, stimuli.images)))


def predict_angles(
    settings: Settings,
    folder: Path,
    name: str,
    stimuli: Stimuli,
    of_folds: list[np.ndarray],
    optimizer: optax.GradientTransformation,
    key: Array,
) -> np.ndarray:
    """Predict the gratings of each fold by a model of the others; what the run has already is taken.

    Args:
        settings: of the run.
        folder: for the predictions of each fold, and its checkpoint while it is trained.
        name: of the encoder.
        stimuli: and responses.
        of_folds: the numbers of the stimuli of each fold.
        optimizer: one for all, so that they share a compiled program.
        key: of the start.
    """
    predicted = np.full_like(stimuli.train, np.nan)
    for f, held in enumerate(of_folds):
        path, rows = folder / f"fold_{f}.npz", np.setdiff1d(np.arange(len(stimuli.images)), held)
        decisive = _decisive(settings, name, fold=f, n_folds=len(of_folds))
        identity = json.dumps(decisive, sort_keys=True)
        saved = load_if_same(path, identity)
        if saved is None:
            values = _of_fold(settings, folder / f"fold_{f}", name, stimuli, rows, optimizer, key)
            saved = {"predicted": values[held]}
            save_with_identity(path, identity, saved)
            # At the course's size a checkpoint has hundreds of megabytes.
            shutil.rmtree(folder / f"fold_{f}", ignore_errors=True)
        predicted[held] = saved["predicted"]
    return predicted


def _of_fold(settings: Settings, folder: Path, name: str, stimuli: Stimuli, rows, optimizer, key):
    if name == "poisson-glm":
        return _glm_predictions(_fit_glm(settings, stimuli, rows), stimuli)
    model = _fit(settings, folder, name, stimuli, rows, optimizer, None, key, False)[1]
    return np.asarray(_predictions(model, stimuli.images))


def _fit(
    settings: Settings,
    folder: Path,
    name: str,
    stimuli: Stimuli,
    rows: np.ndarray,
    optimizer: optax.GradientTransformation,
    test: tuple[Array, Array] | None,
    key: Array,
    progress: bool,
) -> tuple[Any, Any, History]:
    learning = settings.learning
    start_key, fit_key = jax.random.split(key)
    first = first_model(name, stimuli, rows, start_key)
    decisive = _decisive(settings, name, n_rows=len(rows))
    # How often it is looked at and saved decides nothing.
    decisive["learning"] = {n: v for n, v in decisive["learning"].items() if not n.endswith("_every")}
    result = training.fit(
        first,
        _objective(name, settings),
        (stimuli.images[rows], jnp.asarray(stimuli.train[rows])),
        optimizer=optimizer,
        n_steps=learning.n_steps,
        key=fit_key,
        evaluate=None if test is None else training.Evaluation(_evaluation(*test), learning.evaluate_every),
        checkpoint=training.Checkpoint(folder, learning.checkpoint_every, keep=1, settings=decisive),
        progress=progress,
    )
    return first, result.model, result.history


def _evaluation(images: Array, responses: Array) -> Callable[..., dict[str, Array]]:
    def measure(model: Any, state: Any, key: Any) -> dict[str, Array]:
        return {"loss": jnp.mean((_predictions(model, images) - responses) ** 2)}

    return measure


@eqx.filter_jit
def _predictions(model: Any, images: Array) -> Array:
    return jax.vmap(model)(images)


def _fit_glm(settings: Settings, stimuli: Stimuli, rows: np.ndarray) -> nc.LinearNonlinearPoisson:
    """Fit one model a neuron to mean counts, by its penalised likelihood."""
    counts = np.maximum(stimuli.train[rows] * stimuli.scale + stimuli.center, 0)
    xs = stimuli.images[rows].reshape(len(rows), -1)
    penalty = ElasticNet(0.0, settings.learning.glm_l2)
    return _glms(xs, jnp.asarray(counts, xs.dtype), penalty)


@eqx.filter_jit
def _glms(xs: Array, counts: Array, penalty: ElasticNet) -> nc.LinearNonlinearPoisson:
    return jax.vmap(lambda one: nc.fit_poisson(xs, one, penalty).model, in_axes=1)(counts)


def _glm_predictions(model: nc.LinearNonlinearPoisson, stimuli: Stimuli) -> np.ndarray:
    xs = stimuli.images.reshape(len(stimuli.images), -1)
    rates = np.asarray(_predictions(model, xs), np.float64)
    return ((rates - stimuli.center) / stimuli.scale).astype(np.float32)
