"""A network of one hidden layer that decodes a population, and what its training minimises."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import real_array, whole_array
from .._checks import check_at_least, check_nonnegative, check_shape, check_size
from .._precision import network_product
from .._terms import is_zero
from .._types import PRNGKey, Scalar
from ..training import AbstractObjective

__all__ = ["DecodingNetwork", "DecodingObjective", "as_targets", "data_loss"]


class DecodingNetwork(eqx.Module):
    """x ↦ max(x @ input_weightsᵀ + input_bias, 0) @ output_weightsᵀ + output_bias.

    Attributes:
        input_weights: W_in, one row a hidden unit.
        input_bias: of the hidden units.
        output_weights: W_out, one row an output.
        output_bias: of the outputs.
    """

    input_weights: Float[Array, "hidden neurons"]
    input_bias: Float[Array, " hidden"]
    output_weights: Float[Array, "outputs hidden"]
    output_bias: Float[Array, " outputs"]

    @classmethod
    def from_sizes(
        cls, n_neurons: int, n_hidden: int, n_outputs: int, key: PRNGKey, *, dtype=jnp.float32
    ) -> "DecodingNetwork":
        """Draw weights and biases uniformly from ±1/√(inputs of the layer), as the source does.

        Args:
            n_neurons: at least 1.
            n_hidden: at least 1.
            n_outputs: at least 1.
            key: of the draw.
            dtype: of all parameters.
        """
        for name, size in (("n_neurons", n_neurons), ("n_hidden", n_hidden), ("n_outputs", n_outputs)):
            check_at_least(name, size, 1)
        keys = jax.random.split(key, 4)
        shapes = (n_hidden, n_neurons), (n_hidden,), (n_outputs, n_hidden), (n_outputs,)
        widths = (n_neurons, n_neurons, n_hidden, n_hidden)
        drawn = [
            jax.random.uniform(k, shape, dtype, -1, 1) / width**0.5
            for k, shape, width in zip(keys, shapes, widths, strict=True)
        ]
        return cls(*drawn)

    @property
    def n_parameters(self) -> int:
        """The number of weights and biases."""
        return sum(leaf.size for leaf in jax.tree.leaves(self))

    def hidden(self, response: Float[Array, "*trials neurons"]) -> Float[Array, "*trials hidden"]:
        """Return the activities of the hidden units."""
        response = real_array("response", response)
        expected = (*response.shape[:-1], self.input_weights.shape[1])
        check_shape("response", response, expected, "the network's neurons on the last axis")
        return jax.nn.relu(network_product(response, self.input_weights.T) + self.input_bias)

    def read_out(self, hidden: Float[Array, "*trials hidden"]) -> Float[Array, "*trials outputs"]:
        """Return the outputs for hidden activities."""
        return network_product(hidden, self.output_weights.T) + self.output_bias

    def __call__(self, response: Float[Array, "*trials neurons"]) -> Float[Array, "*trials outputs"]:
        """Return the outputs: numbers to regress on, or log-odds of classes."""
        return self.read_out(self.hidden(response))


def as_targets(targets: ArrayLike) -> Array:
    """Return targets as an array: real numbers on two axes, or classes on one."""
    return (real_array if np.ndim(targets) == 2 else whole_array)("targets", targets)


def data_loss(
    outputs: Float[Array, "trials outputs"], targets: Float[Array, "trials outputs"] | Int[Array, " trials"]
) -> Scalar:
    """Return what fits the data: the mean square error of all outputs, or −mean log p(class) in nats.

    Args:
        outputs: of a network.
        targets: numbers for each output (squared error), or a class for each trial (softmax).
    """
    targets = as_targets(targets)
    check_size("targets", targets, 0, len(outputs), "targets, one for each trial,")
    if targets.ndim == 2:
        check_shape("targets", targets, outputs.shape, "as the outputs")
        return jnp.mean((outputs - targets) ** 2)
    log_probabilities = jax.nn.log_softmax(outputs)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, targets[:, None], axis=1))


class DecodingObjective(AbstractObjective):
    """Data loss + l2·Σ W_in² + l1·Σ |W_in|, the data loss as in `data_loss`.

    Called by ``fit`` with ``data=(responses, targets)``; ``state`` is ``None``. The sums are over all input
    weights, as the source's code has it (its text speaks of others), so that a strength means more the
    more neurons there are.

    Attributes:
        l1: ≥ 0.
        l2: ≥ 0.

    Metrics: ``data_loss``, without the penalties: plot this one.
    """

    l1: ArrayLike = 0.0
    l2: ArrayLike = 0.0

    def __check_init__(self):
        check_nonnegative("l1", self.l1)
        check_nonnegative("l2", self.l2)

    def __call__(
        self, model: DecodingNetwork, state: None, batch: Any, key: PRNGKey
    ) -> tuple[Scalar, tuple[None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        responses, targets = batch
        loss = fitted = data_loss(model(responses), targets)
        if not is_zero(self.l2):
            loss = loss + self.l2 * jnp.sum(model.input_weights**2)
        if not is_zero(self.l1):
            loss = loss + self.l1 * jnp.sum(jnp.abs(model.input_weights))
        return loss, (state, {"data_loss": fitted})
