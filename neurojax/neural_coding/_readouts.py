"""From features on a grid of places to neurons."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_rank, check_shape, check_size
from .._precision import network_product
from .._types import PRNGKey

__all__ = ["AbstractReadout", "DenseReadout", "FactorizedReadout"]

Features = Real[ArrayLike, "filters rows columns"]


class AbstractReadout(eqx.Module):
    """A linear map from features (filters, rows, columns) to neurons, and what of it is penalised."""

    bias: eqx.AbstractVar[Float[Array, " neurons"]]

    @abstractmethod
    def __call__(self, features: Features) -> Float[Array, " neurons"]:
        """Return a number for each neuron."""

    @abstractmethod
    def weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return what a penalty falls on: the weights, never the bias."""

    @property
    def n_neurons(self) -> int:
        """The number of neurons."""
        return len(self.bias)


class DenseReadout(AbstractReadout):
    """A weight for each neuron and each feature: rₙ = Σᵢ weightₙᵢ·featureᵢ + biasₙ.

    Attributes:
        weight: features flattened in the order filters, rows, columns.
        bias: of each neuron.

    Raises:
        ValueError: at construction, for shapes that do not fit.
    """

    weight: Float[Array, "neurons features"] = eqx.field(converter=partial(real_array, "weight"))
    bias: Float[Array, " neurons"] = eqx.field(converter=partial(real_array, "bias"))

    def __check_init__(self):
        check_rank("weight", self.weight, "neurons features")
        check_shape("bias", self.bias, (self.weight.shape[0],), "a number for each neuron of the weight")

    @classmethod
    def from_shape(
        cls,
        feature_shape: tuple[int, int, int],
        n_neurons: int,
        key: PRNGKey,
        *,
        weight_scale: float | int = 0.01,
        dtype="float32",
    ) -> "DenseReadout":
        """Draw weights from N(0, weight_scale²), ``weight_scale`` the standard deviation; biases are 0."""
        n_features = feature_shape[0] * feature_shape[1] * feature_shape[2]
        weight = weight_scale * jax.random.normal(key, (n_neurons, n_features), dtype)
        return cls(weight, jnp.zeros(n_neurons, dtype))

    def __call__(self, features: Features) -> Float[Array, " neurons"]:
        """Return a number for each neuron."""
        features = real_array("features", features, "filters rows columns")
        check_size("weight", self.weight, 1, features.size, "features")
        return network_product(self.weight, features.reshape(-1)) + self.bias

    def weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return ``(weight,)``."""
        return (self.weight,)


class FactorizedReadout(AbstractReadout):
    """Product of a spatial mask and feature weights: rₙ = Σ_k weightₙₖ·Σ_p maskₙₚ·featureₖₚ + biasₙ.

    Rows·columns + filters numbers a neuron, where a dense readout has their product.

    Attributes:
        mask: the weight of each place.
        weight: the weight of each filter.
        bias: of each neuron.

    Raises:
        ValueError: at construction, for shapes that do not fit.

    Reference:
        Klindt, Ecker, Euler & Bethge 2017, NeurIPS 30, eq. 2.
    """

    mask: Float[Array, "neurons rows columns"] = eqx.field(converter=partial(real_array, "mask"))
    weight: Float[Array, "neurons filters"] = eqx.field(converter=partial(real_array, "weight"))
    bias: Float[Array, " neurons"] = eqx.field(converter=partial(real_array, "bias"))

    def __check_init__(self):
        check_rank("mask", self.mask, "neurons rows columns")
        check_rank("weight", self.weight, "neurons filters")
        check_size("weight", self.weight, 0, len(self.mask), "neurons as in the mask")
        check_shape("bias", self.bias, (len(self.mask),), "a number for each neuron of the mask")

    @classmethod
    def from_shape(
        cls,
        feature_shape: tuple[int, int, int],
        n_neurons: int,
        key: PRNGKey,
        *,
        weight_scale: float | int = 0.01,
        dtype="float32",
    ) -> "FactorizedReadout":
        """Draw masks from N(0, weight_scale²) and filters' weights from N(0, 1); biases are 0.

        The products have then the spread of a dense readout's weights.
        """
        filters, rows, columns = feature_shape
        mask_key, weight_key = jax.random.split(key)
        mask = weight_scale * jax.random.normal(mask_key, (n_neurons, rows, columns), dtype)
        weight = jax.random.normal(weight_key, (n_neurons, filters), dtype)
        return cls(mask, weight, jnp.zeros(n_neurons, dtype))

    def __call__(self, features: Features) -> Float[Array, " neurons"]:
        """Return a number for each neuron."""
        features = real_array("features", features, "filters rows columns")
        filters, rows, columns = features.shape
        check_shape("mask", self.mask, (self.n_neurons, rows, columns), "a weight for each place")
        check_size("weight", self.weight, 1, filters, "filters")
        seen = network_product(self.mask.reshape(self.n_neurons, -1), features.reshape(filters, -1).T)
        return jnp.sum(self.weight * seen, axis=1) + self.bias

    def weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return ``(mask, weight)``: both are penalised."""
        return (self.mask, self.weight)
