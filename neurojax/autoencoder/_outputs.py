"""Output units, and the losses that belong to them: each summed over units, of one sample.

Sums are in float32 at least: in half precision the sum over a datum of many units would not be one.
"""

import math
from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from .._arrays import check_same_shape, native, real_array
from .._checks import check_positive
from .._precision import at_least_single
from .._random import bernoulli
from .._types import PRNGKey, Scalar

__all__ = ["AbstractOutput", "BernoulliOutput", "GaussianOutput", "cross_entropy", "squared_error"]

Features = Float[Array, " features"]


def cross_entropy(logits: Features, x: Num[Array, " features"] | Bool[Array, " features"]) -> Scalar:
    """Compute −Σᵢ xᵢ log pᵢ + (1 − xᵢ) log(1 − pᵢ), p = sigmoid(logits), in nats.

    Computed from the logits l, as Σᵢ (1 − xᵢ) max(lᵢ, 0) + xᵢ max(−lᵢ, 0) + log(1 + e^{−|lᵢ|}): saturated
    units cost neither NaN nor infinity, and a unit that is right costs e^{−|l|} however small that is. It is
    −log p(x) for binary x; for grey values it is a loss whose minimum, at p = x, is above 0.

    Args:
        logits: log-odds of the units.
        x: in [0, 1], of the same shape.

    Returns:
        The sum over units, in float32 at least.

    Raises:
        ValueError: at trace time, for other than one axis, and for unequal shapes.

    Gradient: sigmoid(logits) − x, and −logits in x.

    Example:
        >>> import jax.numpy as jnp
        >>> [round(float(cross_entropy(jnp.array([l]), jnp.array([1.0]))), 3) for l in (-200.0, 0.0, 200.0)]
        [200.0, 0.693, 0.0]
    """
    logits, x = _units("logits", logits, x)
    return jnp.sum(_unit_cross_entropy(logits, x))


def _units(name: str, values, x) -> tuple[Array, Array]:
    """Return what is said of the units of a datum, and the datum, in float32 at least; or raise."""
    values, x = real_array(name, values, "features"), native("x", x)
    check_same_shape("x", x, name, values)
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        x = jnp.asarray(x, values.dtype)  # bits as whole numbers or truth values, which have no derivative
    return at_least_single(values), at_least_single(real_array("x", x))


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
    """Compute Σᵢ (xᵢ − x̂ᵢ)²; no ½, no mean. In float32 at least.

    Raises:
        ValueError: at trace time, for other than one axis, and for unequal shapes.

    Example:
        >>> import jax.numpy as jnp
        >>> float(squared_error(jnp.array([1.0, 0.0]), jnp.array([0.0, 2.0])))
        5.0
    """
    reconstruction, x = _units("reconstruction", reconstruction, x)
    return jnp.sum((x - reconstruction) ** 2)


class AbstractOutput(eqx.Module):
    """A distribution of x, a unit at a time, whose parameters are the last layer's numbers."""

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

    @abstractmethod
    def check_size(self, n_features: int) -> None:
        """Raise ``ValueError`` unless it can stand for so many features."""


class BernoulliOutput(AbstractOutput):
    """Binary units, x in {0, 1} (or probabilities, grey values in [0, 1]); the parameters are log-odds."""

    limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def mean(self, parameters):
        """Return sigmoid(parameters)."""
        return jax.nn.sigmoid(real_array("parameters", parameters))

    def negative_log_likelihood(self, parameters, x):
        """Return the `cross_entropy`."""
        return jnp.sum(_unit_cross_entropy(*_units("parameters", parameters, x)))

    def sample(self, parameters, key):
        """Draw 0 or 1."""
        return bernoulli(key, self.mean(parameters))

    def check_size(self, n_features):
        """Do nothing: any number will do."""


class GaussianOutput(AbstractOutput):
    """Real units around their means, the parameters, with a standard deviation common to all or for each.

    −log p(x) = Σᵢ ½((xᵢ − mᵢ)/scale)² + log scale + ½ log 2π.

    Args:
        scale: the standard deviation, > 0: a Python number is fixed; an array, one number for all or for each
            feature, is learned with the other leaves.

    Attributes:
        log_scale: its logarithm, which is what is learned, so that the scale stays positive.
    """

    log_scale: Float[Array, "*features"] | float
    limits: ClassVar[tuple[float, float] | None] = None

    def __init__(self, scale: Float[Array, "*features"] | float = 1.0):
        check_positive("scale", scale if isinstance(scale, float | int) else native("scale", scale))
        is_fixed = isinstance(scale, float | int)
        self.log_scale = math.log(scale) if is_fixed else jnp.log(real_array("scale", scale))

    @property
    def scale(self) -> Float[Array, "*features"]:
        """The standard deviation."""
        return jnp.exp(jnp.asarray(self.log_scale))

    def check_size(self, n_features):
        """Raise ``ValueError`` unless the scale is one number or one for each feature."""
        if jnp.shape(self.log_scale) not in ((), (n_features,)):
            raise ValueError(
                f"scale: expected one number, or one for each of {n_features} features, got shape "
                f"{jnp.shape(self.log_scale)}."
            )

    def mean(self, parameters):
        """Return the parameters."""
        return real_array("parameters", parameters)

    def negative_log_likelihood(self, parameters, x):
        """Return −log p(x) in nats."""
        parameters, x = _units("parameters", parameters, x)
        self.check_size(len(x))
        log_scale = jnp.broadcast_to(jnp.asarray(self.log_scale, jnp.result_type(parameters, x)), x.shape)
        standard = (x - parameters) * jnp.exp(-log_scale)
        return jnp.sum(0.5 * standard**2 + log_scale + 0.5 * jnp.log(2 * jnp.pi))

    def sample(self, parameters, key):
        """Draw mean + scale·normal."""
        parameters = real_array("parameters", parameters)
        noise = jax.random.normal(key, parameters.shape, parameters.dtype)
        return parameters + jnp.exp(jnp.asarray(self.log_scale, parameters.dtype)) * noise
