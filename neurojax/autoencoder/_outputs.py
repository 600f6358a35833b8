"""Output units, and the losses that belong to them: each summed over units, of one sample."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_positive
from .._random import bernoulli
from .._types import PRNGKey, Scalar

__all__ = ["AbstractOutput", "BernoulliOutput", "GaussianOutput", "cross_entropy", "squared_error"]

Features = Float[Array, " features"]


def cross_entropy(logits: Features, x: Features) -> Scalar:
    """Compute −Σᵢ xᵢ log pᵢ + (1 − xᵢ) log(1 − pᵢ), p = sigmoid(logits), in nats.

    Computed from the logits l, as Σᵢ (1 − xᵢ) max(lᵢ, 0) + xᵢ max(−lᵢ, 0) + log(1 + e^{−|lᵢ|}): saturated
    units cost neither NaN nor infinity, and a unit that is right costs e^{−|l|} however small that is. It is
    −log p(x) for binary x; for grey values it is a loss whose minimum, at p = x, is above 0.

    Args:
        logits: log-odds of the units.
        x: in [0, 1].

    Returns:
        The sum over units.

    Gradient: sigmoid(logits) − x, and −logits in x.

    Example:
        >>> import jax.numpy as jnp
        >>> [round(float(cross_entropy(jnp.array([l]), jnp.array([1.0]))), 3) for l in (-200.0, 0.0, 200.0)]
        [200.0, 0.693, 0.0]
    """
    return jnp.sum(_unit_cross_entropy(logits, x))


@jax.custom_jvp
def _unit_cross_entropy(logits, x):
    distance = jnp.abs(logits)
    # As max(l, 0) − x·l, with no difference of large numbers.
    return jnp.where(logits > 0, 1 - x, x) * distance + jnp.log1p(jnp.exp(-distance))


@_unit_cross_entropy.defjvp
def _unit_cross_entropy_jvp(primals, tangents):
    # Derived by parts, it would be off by ½ at a logit of exactly 0, where decoders begin.
    (logits, x), (d_logits, d_x) = primals, tangents
    slope = jax.nn.sigmoid(logits) - x
    return _unit_cross_entropy(logits, x), slope * d_logits - logits * d_x


def squared_error(reconstruction: Features, x: Features) -> Scalar:
    """Compute Σᵢ (xᵢ − x̂ᵢ)²; no ½, no mean.

    Example:
        >>> import jax.numpy as jnp
        >>> float(squared_error(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
        5.0
    """
    return jnp.sum((x - reconstruction) ** 2)


class AbstractOutput(eqx.Module):
    """What the last layer's numbers mean: the parameters of a distribution of x, a unit at a time."""

    limits: eqx.AbstractClassVar[tuple[float, float] | None]

    @abstractmethod
    def mean(self, parameters: Features) -> Features:
        """Return the mean of x."""

    @abstractmethod
    def negative_log_likelihood(self, parameters: Features, x: Features) -> Scalar:
        """Return −log p(x), summed over units, in nats."""

    @abstractmethod
    def sample(self, parameters: Features, key: PRNGKey) -> Features:
        """Draw x."""


class BernoulliOutput(AbstractOutput):
    """Binary units, x in {0, 1} (or probabilities, grey values in [0, 1]); the parameters are log-odds."""

    limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def mean(self, parameters):
        """Return sigmoid(parameters)."""
        return jax.nn.sigmoid(parameters)

    def negative_log_likelihood(self, parameters, x):
        """Return the `cross_entropy`."""
        return cross_entropy(parameters, x)

    def sample(self, parameters, key):
        """Draw 0 or 1."""
        return bernoulli(key, jax.nn.sigmoid(parameters))


class GaussianOutput(AbstractOutput):
    """Real units around their means, the parameters, with a standard deviation common to all or for each.

    −log p(x) = Σᵢ ½((xᵢ − mᵢ)/scale)² + log scale + ½ log 2π.

    Attributes:
        scale: > 0; a Python number is fixed, an array is learned with the other leaves.
    """

    scale: Float[Array, "*features"] | float = 1.0
    limits: ClassVar[tuple[float, float] | None] = None

    def __check_init__(self):
        check_positive("scale", self.scale)

    def mean(self, parameters):
        """Return the parameters."""
        return parameters

    def negative_log_likelihood(self, parameters, x):
        """Return −log p(x) in nats."""
        dtype = jnp.result_type(parameters, x)
        scale = jnp.broadcast_to(jnp.asarray(self.scale, dtype), x.shape)
        return jnp.sum(0.5 * ((x - parameters) / scale) ** 2 + jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi))

    def sample(self, parameters, key):
        """Draw mean + scale·normal."""
        noise = jax.random.normal(key, parameters.shape, parameters.dtype)
        return parameters + jnp.asarray(self.scale, parameters.dtype) * noise
