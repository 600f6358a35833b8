"""Kinds of ``neurojax autoencoder``: the data, and each kind's model and objective, from the settings."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from .. import autoencoder as ae
from .. import data
from .._random import bernoulli
from ..runs import RunFolder
from ..training import History
from ._autoencoder_settings import Settings, known
from ._devices import say
from ._settings import check_file_settings, describe_rows, image_shape, read_rows_file

__all__ = [
    "Learner",
    "Rows",
    "cost_objective",
    "is_binary",
    "layer_objectives",
    "make_learner",
    "make_optimizer",
    "pretrain",
    "read_rows",
]

_ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "tanh": jnp.tanh}
_SETS = ("digits", "mnist", "cifar10")


class Rows(NamedTuple):
    """The data as the model sees them.

    Attributes:
        train: what it learns from.
        held_out: what it is measured on, in random order.
        train_labels: classes, or ``None``.
        held_out_labels: likewise.
        image_shape: the form of a row as an image: rows and columns, and 3 for colour.
        whitening: what was done to the rows, or ``None``.
    """

    train: Array
    held_out: Array
    train_labels: Array | None
    held_out_labels: Array | None
    image_shape: tuple[int, int] | tuple[int, int, int]
    whitening: data.Whitening | None

    def to_images(self, rows) -> np.ndarray:
        """Return rows as they were before whitening, for pictures."""
        if self.whitening is None:
            return np.asarray(rows)
        return np.clip(np.asarray(self.whitening.unwhiten(jnp.asarray(rows))), 0, 1)


class Learner(NamedTuple):
    """The arguments of ``fit``.

    Attributes:
        model: as learning starts; of the stacked kind the classifier, or the whole stack.
        objective: what is minimised.
        state: what learning carries along, or ``None``.
        after_update: what is done after an update, or ``None``.
        layer_histories: of the stacked kind, the course of each layer's pretraining.
        stack: of the stacked kind, the stack before fine-tuning.
    """

    model: Any
    objective: Any
    state: Any = None
    after_update: Any = None
    layer_histories: tuple[History, ...] = ()
    stack: ae.Autoencoder | None = None


def is_binary(settings: Settings) -> bool:
    """Return whether the data are binary: drawn with the grey values for probabilities."""
    model = settings.model
    return model.kind == "variational" and model.output == "bernoulli" and settings.variational.binarized


def read_rows(settings: Settings, key: Array) -> Rows:
    """Load the rows, whiten or draw them as asked, and check what depends on how many there are."""
    check_file_settings(settings.data, _SETS)
    parts, labels = _read(settings)
    say(f"data: {describe_rows(parts)}")
    shape = image_shape(parts[0].shape[1:])
    train, held_out = (part.reshape(len(part), -1) for part in parts)
    batch_size = known(settings.learning.batch_size)
    if batch_size > len(train):
        raise ValueError(f"batch_size: expected at most the {len(train)} training rows, got {batch_size}.")
    whitening = None
    if settings.data.whiten:
        whitening = data.fit_whitening(train, epsilon=settings.data.whitening_ridge)
        train, held_out = whitening.whiten(train), whitening.whiten(held_out)
    order_key, binary_key = jax.random.split(key)
    # The first test digits are easier than the last.
    order = jax.random.permutation(order_key, len(held_out))
    held_out = held_out[order]
    if is_binary(settings):
        held_out = bernoulli(binary_key, held_out)
    held_out_labels = None if labels is None else labels[1][order]
    return Rows(train, held_out, None if labels is None else labels[0], held_out_labels, shape, whitening)


def _read(settings: Settings) -> tuple[list[Array], list[Array] | None]:
    """Return images for training and held out, and their labels where there are any."""
    loaders = {"digits": data.mnist_subset, "mnist": data.mnist, "cifar10": data.cifar10}
    if settings.data.data in loaders:
        load = loaders[settings.data.data]
        splits = [load("train"), load("test")]
        return [split.images for split in splits], [split.labels for split in splits]
    is_bounded = settings.model.output == "bernoulli"
    values = read_rows_file(
        Path(settings.data.data), _SETS, name=settings.data.array, is_bounded=is_bounded, has_colour=True
    )
    n_held_out = len(values) // 8
    return [values[:-n_held_out], values[-n_held_out:]], None


def make_optimizer(settings: Settings) -> optax.GradientTransformation:
    """Return the optimiser."""
    step_size = known(settings.learning.step_size)
    return optax.sgd(step_size) if settings.learning.optimizer == "sgd" else optax.adam(step_size)


def make_learner(settings: Settings, rows: Rows, key: Array) -> Learner:
    """Return the model that learning starts from, and its learning rule; for every kind but stacked."""
    match settings.model.kind:
        case "sparse" if settings.sparse.selection != "kl":
            return _sparse_learner(settings, rows, key)
        case "variational":
            return _variational_learner(settings, rows, key)
        case _:
            model = settings.model
            autoencoder = ae.Autoencoder.from_sizes(
                rows.train.shape[1],
                known(model.n_hidden),
                key,
                is_tied=model.tied,
                output=make_output(settings, rows.train),
                activation=_ACTIVATIONS[known(model.activation)],
                decoder_activation=_ACTIVATIONS[model.decoder_activation or known(model.activation)],
                dtype=rows.train.dtype,
            )
            return Learner(autoencoder, _reconstruction(settings))


def make_output(settings: Settings, train: Array) -> ae.AbstractOutput:
    """Return the output units; the standard deviation of a variational Gaussian is learned."""
    if settings.model.output == "bernoulli":
        return ae.BernoulliOutput()
    if settings.model.kind != "variational":
        return ae.GaussianOutput()
    return ae.GaussianOutput(jnp.std(train - jnp.mean(train, axis=0)))


def _loss(output: str | None) -> Any:
    return "likelihood" if output == "bernoulli" else "squared_error"


def _reconstruction(settings: Settings) -> ae.ReconstructionObjective:
    kind, loss = settings.model.kind, _loss(settings.model.output)
    match kind:
        case "denoising":
            (rate,) = known(settings.denoising.rate)
            return ae.ReconstructionObjective(loss, _noise(settings, rate))
        case "contractive":
            return ae.ReconstructionObjective(loss, contraction=settings.contractive.contraction)
        case "sparse":
            sparse = settings.sparse
            if settings.model.activation != "sigmoid":
                raise ValueError(
                    "activation: expected sigmoid with --selection kl, whose activities are probabilities, "
                    f"got {settings.model.activation}."
                )
            return ae.ReconstructionObjective(
                loss, sparsity=sparse.sparsity, sparsity_target=sparse.sparsity_target
            )
        case _:
            return ae.ReconstructionObjective(loss)


def _noise(settings: Settings, rate: float) -> ae.AbstractNoise:
    match settings.denoising.corruption:
        case "masking":
            return ae.MaskingNoise(rate)
        case "salt-and-pepper":
            return ae.SaltAndPepperNoise(rate)
        case "gaussian":
            return ae.GaussianNoise(rate)
        case "bit-flip":
            return ae.BitFlipNoise(rate)


def _sparse_learner(settings: Settings, rows: Rows, key: Array) -> Learner:
    sparse = settings.sparse
    (n_units,) = known(settings.model.n_hidden)
    match sparse.selection:
        case "topk":
            selection = ae.TopK(sparse.k)
        case "batch-topk":
            selection = ae.BatchTopK(sparse.k)
        case "jump-relu":
            selection = ae.JumpReLU.from_threshold(n_units)
        case _:
            selection = ae.ReLU()
    model = ae.SparseAutoencoder.from_data(rows.train, n_units, key, selection=selection)
    objective = ae.SparseAutoencoderObjective(
        l1=sparse.l1 if sparse.selection == "relu-l1" else 0.0,
        l0=sparse.l0 if sparse.selection == "jump-relu" else 0.0,
        auxiliary=sparse.auxiliary,
        dead_after=sparse.dead_after,
    )
    return Learner(model, objective, objective.init(model), ae.SparseAutoencoderUpkeep())


def _variational_learner(settings: Settings, rows: Rows, key: Array) -> Learner:
    model, variational = settings.model, settings.variational
    vae = ae.VariationalAutoencoder.from_sizes(
        rows.train.shape[1],
        known(model.n_hidden),
        variational.n_latent,
        key,
        output=make_output(settings, rows.train),
        activation=_ACTIVATIONS[known(model.activation)],
        dtype=rows.train.dtype,
    )
    binarized = is_binary(settings)
    if variational.importance_samples == 1:
        return Learner(vae, ae.ELBOObjective(variational.beta, is_binarized=binarized))
    n_samples = variational.importance_samples
    return Learner(vae, ae.ImportanceWeightedObjective(n_samples, is_binarized=binarized))


def layer_objectives(settings: Settings) -> list[ae.ReconstructionObjective]:
    """Return what each layer of the stacked kind minimises while it is pretrained."""
    n_layers = len(known(settings.model.n_hidden))
    if not settings.stacked.pretrain:
        return [ae.ReconstructionObjective()] * n_layers
    rates = known(settings.denoising.rate)
    rates = rates * n_layers if len(rates) == 1 else rates
    # Codes of sigmoid units are probabilities, others real numbers.
    of_codes = "bernoulli" if settings.model.activation == "sigmoid" else "gaussian"
    outputs = [settings.model.output] + [of_codes] * (n_layers - 1)
    return [
        ae.ReconstructionObjective(_loss(output), _noise(settings, rate) if rate else None)
        for output, rate in zip(outputs, rates, strict=True)
    ]


def pretrain(
    settings: Settings,
    rows: Rows,
    optimizer: optax.GradientTransformation,
    run: RunFolder,
    key: Array,
    progress,
) -> Learner:
    """Learn the stacked kind's layers one after the other, or go on with that; return what is fine-tuned."""
    model = settings.model
    stack, histories = ae.fit_stacked_autoencoder(
        rows.train,
        known(model.n_hidden),
        optimizer=optimizer,
        n_steps=settings.stacked.pretraining_steps,
        batch_size=known(settings.learning.batch_size),
        key=key,
        objectives=layer_objectives(settings),
        is_pretrained=settings.stacked.pretrain,
        is_tied=model.tied,
        output=make_output(settings, rows.train),
        activation=_ACTIVATIONS[known(model.activation)],
        folder=run.path,
        checkpoint_every=settings.learning.checkpoint_every,
        progress=progress,
    )
    if settings.stacked.finetuning == "labels" and rows.train_labels is not None:
        classifier = ae.Classifier.from_autoencoder(stack, int(jnp.max(rows.train_labels)) + 1)
        return Learner(classifier, ae.ClassificationObjective(), None, None, histories, stack)
    objective = ae.ReconstructionObjective(_loss(model.output))
    return Learner(stack, objective, None, None, histories, stack)


def cost_objective(settings: Settings) -> ae.ReconstructionObjective:
    """Return the cost that reconstructions are reported by: no corruption, no penalty."""
    return ae.ReconstructionObjective(_loss(settings.model.output))
