"""The training objective of encoders."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Real

from .._arrays import host_array, real_array
from .._checks import check_finite, check_kind, check_nonnegative, check_positive, check_shape
from .._terms import is_zero
from .._types import PRNGKey, Scalar
from ..training import AbstractObjective
from ._encoders import AbstractEncoder

__all__ = ["EncodingObjective"]

Loss = Literal["squared", "poisson"]
PenaltyScale = Literal["neuron", "sum"]
Batch = tuple[Real[ArrayLike, "*samples rows columns"], Real[ArrayLike, "*samples neurons"]]


class EncodingObjective(AbstractObjective):
    """The mean loss over samples and neurons, and penalties on the readout's weights.

    loss = mean over all samples and neurons of ℓ + l2·P₂ + l1·P₁. With prediction r and response y,
    ℓ = (r − y)² for ``"squared"``, and ℓ = r − y·ln(r + epsilon) for ``"poisson"`` (in nats, without ln y!,
    which no model changes). With wₙ all readout weights of neuron n out of N, biases excepted,

    - ``penalty_scale="neuron"``:  P₂ = (1/N) Σₙ Σᵢ wₙᵢ²  and  P₁ = (1/N) Σₙ Σᵢ |wₙᵢ|: for given filters, a
      neuron's optimum is the same whether it is fitted alone or with others, in small or large batches;
    - ``penalty_scale="sum"``:  P₂ = Σₙ Σᵢ wₙᵢ²  and  P₁ = Σₙ Σᵢ |wₙᵢ|, as in the source's exercise. Each
      neuron is then penalised N times as hard, as its own loss has the weight 1/N: l2 there is N·l2 here.

    Neither square has a factor ½. Called as ``objective(encoder, state, batch, key)`` by ``fit``, with
    ``data=(images, responses)``: images (samples, rows, columns) and responses (samples, neurons); images may
    have more leading axes, of time for example, if responses have them too. ``state`` is ``None``.

    Attributes:
        loss: ``"squared"`` or ``"poisson"``.
        l1: strength, ≥ 0.
        l2: strength, ≥ 0.
        penalty_scale: ``"neuron"`` or ``"sum"``.
        epsilon: added to a rate before its logarithm is taken, > 0.

    Metrics: ``data_loss``, without the penalties.

    Raises:
        ValueError: at construction, for an unknown name and a negative strength.

    Reference:
        Neuromatch Academy, Computational Neuroscience, W1D5 (bonus): MSE, L2 5e-4 and L1 1e-6 on sums.
    """

    loss: Loss = eqx.field(static=True, default="squared")
    l1: Scalar | float | int = 0.0
    l2: Scalar | float | int = 0.0
    penalty_scale: PenaltyScale = eqx.field(static=True, default="neuron")
    epsilon: Scalar | float = 1e-8

    def __check_init__(self):
        for name, names in (("loss", get_args(Loss)), ("penalty_scale", get_args(PenaltyScale))):
            if getattr(self, name) not in names:
                raise ValueError(f"{name}: expected one of {names}, got {getattr(self, name)!r}.")
        check_nonnegative("l1", self.l1)
        check_nonnegative("l2", self.l2)
        check_positive("epsilon", self.epsilon)

    def check_data(self, model: AbstractEncoder, data: Any) -> None:
        """Raise ``ValueError`` for images and responses that do not fit each other, the model or the loss."""
        check_kind("model", model, AbstractEncoder)
        try:
            images, responses = data
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: expected (images, responses), got {type(data).__name__}.") from error
        images, responses = host_array("images", images), host_array("responses", responses)
        _check_pair(model, images, responses)
        self._check_penalised(model)
        if self.loss == "poisson":
            check_nonnegative("responses: least (poisson loss)", np.min(np.asarray(responses)))
            some = np.asarray(images).reshape(-1, *model.image_shape)[:16]
            rates = jax.vmap(model)(jnp.asarray(some))
            if not jnp.all(rates >= 0):
                raise ValueError(
                    "model: expected rates ≥ 0 for the poisson loss (give the encoder a positive output, "
                    f"such as jax.nn.softplus), got {float(jnp.min(rates)):.4g}."
                )

    def __call__(
        self, model: AbstractEncoder, state: None, batch: Batch, key: PRNGKey
    ) -> tuple[Scalar, tuple[None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        images, responses = real_array("images", batch[0]), real_array("responses", batch[1])
        check_shape(
            "responses",
            responses,
            (*images.shape[:-2], model.n_neurons),
            "the images' samples and the neurons",
        )
        self._check_penalised(model)
        predictions = jax.vmap(model)(images.reshape(-1, *model.image_shape)).reshape(responses.shape)
        if self.loss == "squared":
            losses = (predictions - responses) ** 2
        else:
            losses = predictions - responses * jnp.log(predictions + self.epsilon)
        data_loss = jnp.mean(losses)
        loss = data_loss
        share = 1 / model.n_neurons if self.penalty_scale == "neuron" else 1.0
        if not is_zero(self.l2):
            loss = loss + self.l2 * share * sum(jnp.sum(weight**2) for weight in model.readout_weights())
        if not is_zero(self.l1):
            loss = loss + self.l1 * share * sum(
                jnp.sum(jnp.abs(weight)) for weight in model.readout_weights()
            )
        return loss, (state, {"data_loss": data_loss})

    def _check_penalised(self, model: AbstractEncoder) -> None:
        if not model.readout_weights() and not (is_zero(self.l1) and is_zero(self.l2)):
            raise ValueError(
                f"l1, l2: expected 0 for {type(model).__name__}, which has no readout weights, got "
                f"{self.l1} and {self.l2}."
            )


def _check_pair(model: AbstractEncoder, images, responses) -> None:
    if images.ndim < 3 or images.shape[-2:] != tuple(model.image_shape):
        raise ValueError(
            f"images: expected shape (samples, rows, columns) with images of {tuple(model.image_shape)}, the "
            f"model's image_shape, got shape {images.shape}."
        )
    expected = (*images.shape[:-2], model.n_neurons)
    check_shape("responses", responses, expected, "the images' samples and the model's neurons")
    if not images.size:
        raise ValueError(f"images: expected at least one, got shape {images.shape}.")
    for name, value in (("images", images), ("responses", responses)):
        check_finite(name, value)
