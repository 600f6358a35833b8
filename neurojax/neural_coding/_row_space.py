"""The same network with its input weights in the span of the trials: exact, and small where trials are few.

Gradient descent on a loss of x @ Wᵀ never leaves W = c·W₀ + CX, X the trials (rows) and W₀ the start: each
step adds multiples of the rows, and an L2 penalty shrinks the whole. So C (hidden, trials) and c can be
learned in place of W (hidden, neurons), from the Gram matrix XXᵀ and the start's XW₀ᵀ alone. An L1 penalty
does not respect the span.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import real_array
from .._checks import check_nonnegative
from .._precision import network_product
from .._terms import is_zero
from .._types import PRNGKey, Scalar
from ..training import AbstractGradientObjective
from ._network import DecodingNetwork, as_targets, data_loss

__all__ = ["RowSpaceNetwork", "RowSpaceObjective", "RowSpaceTrials"]


class RowSpaceTrials(eqx.Module):
    """Trials as a network in the span of others sees them.

    Attributes:
        start: x @ W₀ᵀ of each trial.
        gram: x @ Xᵀ of each trial, X the trials that the network learns from.
        targets: as in `data_loss`.
    """

    start: Float[Array, "trials hidden"]
    gram: Float[Array, "trials basis"]
    targets: Float[Array, "trials outputs"] | Int[Array, " trials"]

    @classmethod
    def from_responses(
        cls,
        network: DecodingNetwork,
        basis: Float[Array, "basis neurons"],
        responses: Float[Array, "trials neurons"],
        targets: Float[Array, "trials outputs"] | Int[Array, " trials"],
    ) -> "RowSpaceTrials":
        """Take the products, each once.

        Args:
            network: the start.
            basis: X, the trials to learn from.
            responses: the same for learning, others to try the network on.
            targets: of the responses.
        """
        responses = real_array("responses", responses, "trials neurons")
        basis = real_array("basis", basis, "basis neurons")
        start = network_product(responses, network.input_weights.T)
        return cls(start, network_product(responses, basis.T), as_targets(targets))


class RowSpaceNetwork(eqx.Module):
    """A `DecodingNetwork` with W_in = scale·W₀ + coefficients @ X.

    Attributes:
        scale: c, 1 at the start.
        coefficients: C, 0 at the start.
        start_square: ‖W₀‖², which the L2 penalty needs; not learned.
        input_bias: of the hidden units.
        output_weights: W_out.
        output_bias: of the outputs.
    """

    scale: Scalar
    coefficients: Float[Array, "hidden trials"]
    start_square: Scalar
    input_bias: Float[Array, " hidden"]
    output_weights: Float[Array, "outputs hidden"]
    output_bias: Float[Array, " outputs"]

    @classmethod
    def from_network(cls, network: DecodingNetwork, n_trials: int) -> "RowSpaceNetwork":
        """Begin at a network.

        Args:
            network: the start.
            n_trials: of the trials it will learn from.
        """
        weights = network.input_weights
        return cls(
            jnp.ones((), weights.dtype),
            jnp.zeros((len(weights), n_trials), weights.dtype),
            jnp.sum(weights**2),
            network.input_bias,
            network.output_weights,
            network.output_bias,
        )

    def to_network(
        self, start: DecodingNetwork, responses: Float[Array, "trials neurons"]
    ) -> DecodingNetwork:
        """Return the network with its input weights written out.

        Args:
            start: the network it began at.
            responses: X, the trials it has learned from.
        """
        responses = real_array("responses", responses, "trials neurons")
        weights = self.scale * start.input_weights + network_product(self.coefficients, responses)
        return DecodingNetwork(weights, self.input_bias, self.output_weights, self.output_bias)

    def drive(self, trials: RowSpaceTrials) -> Float[Array, "trials hidden"]:
        """Return x @ W_inᵀ of trials."""
        return self.scale * trials.start + network_product(trials.gram, self.coefficients.T)

    def __call__(self, trials: RowSpaceTrials) -> Float[Array, "trials outputs"]:
        """Return the outputs for trials."""
        hidden = jax.nn.relu(self.drive(trials) + self.input_bias)
        return network_product(hidden, self.output_weights.T) + self.output_bias

    def input_square(self, trials: RowSpaceTrials) -> Scalar:
        """Return ‖W_in‖²; ``trials`` are those it learns from."""
        cross = jnp.sum(self.coefficients.T * trials.start)
        own = jnp.sum(self.coefficients.T * network_product(trials.gram, self.coefficients.T))
        return self.scale**2 * self.start_square + 2 * self.scale * cross + own


class RowSpaceObjective(AbstractGradientObjective):
    """`DecodingObjective` without its L1 term, learned in the span of the trials.

    Its gradient is that of W_in expressed in the span: with δ = ∂(data loss)/∂(x @ W_inᵀ), ∂C = δᵀ + 2·l2·C
    and ∂c = 2·l2·c. So any optimiser whose update is linear in the gradients (SGD, with momentum too) takes
    the very steps of the direct form; one that treats entries apart (Adam) does not. All trials at each
    update.

    Attributes:
        l2: ≥ 0.

    Metrics: ``data_loss``, without the penalty.
    """

    l2: ArrayLike = 0.0

    def __check_init__(self):
        check_nonnegative("l2", self.l2)

    def value_and_grad(
        self, model: RowSpaceNetwork, state: None, batch: RowSpaceTrials, key: PRNGKey
    ) -> tuple[tuple[Scalar, tuple[None, dict[str, Array]]], Any]:
        """Return ``((loss, (state, metrics)), gradient)``."""
        if batch.gram.shape != (model.coefficients.shape[1],) * 2:
            raise ValueError(
                f"batch: expected all {model.coefficients.shape[1]} trials at each update (batch_size None), "
                f"got rows of shape {batch.gram.shape}."
            )

        def loss_of(drive, input_bias, output_weights, output_bias):
            hidden = jax.nn.relu(drive + input_bias)
            return data_loss(network_product(hidden, output_weights.T) + output_bias, batch.targets)

        drive = model.drive(batch)
        parameters = model.input_bias, model.output_weights, model.output_bias
        fitted, (error, *rest) = jax.value_and_grad(loss_of, argnums=(0, 1, 2, 3))(drive, *parameters)
        loss, scale_gradient, coefficients_gradient = fitted, jnp.zeros_like(model.scale), error.T
        if not is_zero(self.l2):
            loss = loss + self.l2 * model.input_square(batch)
            scale_gradient = 2 * self.l2 * model.scale
            coefficients_gradient = coefficients_gradient + 2 * self.l2 * model.coefficients
        gradient = RowSpaceNetwork(
            jnp.asarray(scale_gradient), coefficients_gradient, jnp.zeros_like(model.start_square), *rest
        )
        return (loss, (state, {"data_loss": fitted})), gradient
