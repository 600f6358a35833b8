"""Stacked autoencoders: layers learned one after the other."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import finite_rows
from .._checks import check_at_least
from .._types import PRNGKey
from ..training import Checkpoint, History, fit
from ._models import Autoencoder
from ._objectives import ReconstructionObjective
from ._outputs import AbstractOutput, BernoulliOutput, GaussianOutput

__all__ = ["StackedAutoencoder", "fit_stacked_autoencoder"]


class StackedAutoencoder(NamedTuple):
    """The result of greedy learning.

    Attributes:
        autoencoder: all layers, one deep autoencoder: it encodes to the top and reconstructs through all.
        histories: the course of learning of each layer, from the data upwards; empty without pretraining.
    """

    autoencoder: Autoencoder
    histories: tuple[History, ...]


def fit_stacked_autoencoder(
    data: Float[ArrayLike, "samples features"],
    n_hidden: Sequence[int],
    *,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    batch_size: int,
    key: PRNGKey,
    objectives: ReconstructionObjective | Sequence[ReconstructionObjective] | None = None,
    is_pretrained: bool = True,
    is_tied: bool = True,
    output: AbstractOutput | None = None,
    activation: Callable = jax.nn.sigmoid,
    folder: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool | None = None,
) -> StackedAutoencoder:
    """Learn a deep autoencoder greedily: each layer an autoencoder of the codes of the one below.

    Codes of all rows are computed once, between two layers. The layers above the first are autoencoders of
    the same kind, with `BernoulliOutput` where the activation is the sigmoid, else `GaussianOutput`; the
    stack decodes from layer to layer by these outputs' means, as each layer learned to.

    Args:
        data: rows, in the range of the output.
        n_hidden: units of each layer, from the data upwards.
        optimizer: for every layer.
        n_steps: updates of each layer.
        batch_size: rows an update.
        key: a typed PRNG key.
        objectives: of every layer, or one for each; ``None``: plain reconstruction.
        is_pretrained: whether to learn at all: ``False`` returns what learning would have started from.
        is_tied: whether decoders are transposes.
        output: of the lowest layer; ``None``: `BernoulliOutput`.
        activation: of every code.
        folder: where each layer's run is saved (``layer_0``, …); the same call goes on from there.
        checkpoint_every: updates between two checkpoints.
        progress: as in ``fit``.

    Raises:
        ValueError: before learning, for rows out of the output's range, sizes < 1, another number of
            objectives than layers; and what ``fit`` raises.

    Reference:
        Bengio et al. 2007; Vincent et al. 2010.
    """
    check_at_least("n_hidden: number of layers", len(n_hidden), 1)
    output = BernoulliOutput() if output is None else output
    rows = finite_rows("data", data, limits=output.limits)
    for size in n_hidden:
        check_at_least("n_hidden", size, 1)
    chosen = _objective_of_each(objectives, len(n_hidden))
    layers, histories = [], []
    for i, size in enumerate(n_hidden):
        model_key, fit_key = jax.random.split(jax.random.fold_in(key, i))
        settings = {"output": output if i == 0 else _output_of_codes(activation), "activation": activation}
        layer = Autoencoder.from_sizes(
            rows.shape[1], [size], model_key, is_tied=is_tied, dtype=rows.dtype, **settings
        )
        if is_pretrained:
            saved = None if folder is None else Checkpoint(Path(folder) / f"layer_{i}", checkpoint_every)
            result = fit(
                layer,
                chosen[i],
                rows,
                optimizer=optimizer,
                n_steps=n_steps,
                batch_size=batch_size,
                key=fit_key,
                checkpoint=saved,
                progress=progress,
            )
            layer = result.model
            histories.append(result.history)
        layers.append(layer)
        # Without learning only the width of the codes matters.
        is_needed = is_pretrained and i + 1 < len(n_hidden)
        rows = _codes(layer, rows) if is_needed else jnp.zeros((1, size), rows.dtype)
    return StackedAutoencoder(_stacked(layers), tuple(histories))


@eqx.filter_jit
def _codes(layer: Autoencoder, rows: Array) -> Array:
    return jax.vmap(layer.encode)(rows)


def _objective_of_each(objectives, n_layers: int) -> list[ReconstructionObjective]:
    if objectives is None:
        objectives = ReconstructionObjective()
    if isinstance(objectives, ReconstructionObjective):
        return [objectives] * n_layers
    if len(objectives) != n_layers:
        raise ValueError(
            f"objectives: expected one, or one for each of {n_layers} layers, got {len(objectives)}."
        )
    return list(objectives)


def _output_of_codes(activation: Callable) -> AbstractOutput:
    """Return the output of a layer whose data are codes."""
    return BernoulliOutput() if activation is jax.nn.sigmoid else GaussianOutput()


def _unchanged(x: Array) -> Array:
    return x


def _stacked(layers: Sequence[Autoencoder]) -> Autoencoder:
    """Return one autoencoder that encodes through all layers, and decodes back through all."""
    first = layers[0]
    encoder = tuple(layer.encoder[0] for layer in layers)
    decoder = tuple(layer.decoder[0] for layer in reversed(layers))
    # What a decoder gave as the mean of the codes below is what the next decoder takes.
    is_sigmoid = first.activation is jax.nn.sigmoid
    decoder_activation = jax.nn.sigmoid if is_sigmoid else _unchanged
    return Autoencoder(encoder, decoder, first.output, first.activation, decoder_activation)
