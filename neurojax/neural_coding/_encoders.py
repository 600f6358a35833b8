"""Models that predict neurons from an image."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_at_least, check_positive, check_rank, check_shape
from .._precision import network_precision
from .._types import PRNGKey
from ._readouts import AbstractReadout, DenseReadout, FactorizedReadout

__all__ = ["AbstractEncoder", "ConvolutionalEncoder"]

Image = Real[ArrayLike, "rows columns"]
_READOUTS = {"dense": DenseReadout, "factorized": FactorizedReadout}


class AbstractEncoder(eqx.Module):
    """A model of neurons that sees one image; batch it with ``jax.vmap``.

    Attributes:
        image_shape: rows and columns of an image, in pixels.
    """

    image_shape: eqx.AbstractVar[tuple[int, int]]

    @abstractmethod
    def __call__(self, image: Image) -> Float[Array, " neurons"]:
        """Return the response of each neuron."""

    @property
    @abstractmethod
    def n_neurons(self) -> int:
        """The number of neurons."""

    @abstractmethod
    def readout_weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return what a penalty on the readout falls on, neurons first; nothing if there is no readout."""

    @property
    def n_parameters(self) -> int:
        """The count of numbers that can be learned."""
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(self, eqx.is_inexact_array)))


class ConvolutionalEncoder(AbstractEncoder):
    """One layer of filters, slid over the image, and a linear readout of every place.

    response = output(readout(activation(image ⋆ filterₖ + biasₖ))), with ⋆ cross-correlation (the filter is
    not flipped, as in PyTorch's ``conv2d``), one pixel a step, the image padded with zeros so that features
    have its shape. Without ``activation`` and ``output`` it is linear in the image.

    Attributes:
        filters: of odd height and width.
        bias: of each filter.
        readout: from (filters, rows, columns) to neurons.
        image_shape: rows and columns, in pixels.
        activation: between filters and readout, or ``None``.
        output: after the readout, or ``None``; the Poisson loss needs one that is positive, such as
            ``jax.nn.softplus``.

    Raises:
        ValueError: at construction, for filters that are not of odd size and for shapes that do not fit.

    Reference:
        Neuromatch Academy, Computational Neuroscience, W1D5 (bonus): ConvFC; Klindt, Ecker, Euler & Bethge
        2017, NeurIPS 30, for the factorised readout.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = ConvolutionalEncoder.from_filters(jnp.ones((6, 7, 7)), (12, 16), 10, jax.random.key(0))
        >>> model(jnp.ones((12, 16))).shape, model.n_parameters
        ((10,), 11830)
    """

    filters: Float[Array, "filters height width"] = eqx.field(converter=partial(real_array, "filters"))
    bias: Float[Array, " filters"] = eqx.field(converter=partial(real_array, "bias"))
    readout: AbstractReadout
    image_shape: tuple[int, int] = eqx.field(static=True)
    activation: Callable[..., Any] | None = eqx.field(static=True, default=None)
    output: Callable[..., Any] | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_filters(self.filters)
        check_shape("bias", self.bias, (len(self.filters),), "a number for each filter")
        features = jax.ShapeDtypeStruct((len(self.filters), *self.image_shape), self.filters.dtype)
        eqx.filter_eval_shape(self.readout, features)

    @classmethod
    def from_filters(
        cls,
        filters: Real[ArrayLike, "filters height width"],
        image_shape: tuple[int, int],
        n_neurons: int,
        key: PRNGKey,
        *,
        readout: Literal["dense", "factorized"] = "dense",
        weight_scale: float | int = 0.01,
        activation: Callable[..., Any] | None = None,
        output: Callable[..., Any] | None = None,
    ) -> "ConvolutionalEncoder":
        """Start from given filters and a random readout, in the filters' dtype; all biases are 0.

        Args:
            filters: such as a bank of Gabor functions; they go on learning.
            image_shape: rows and columns, in pixels.
            n_neurons: ≥ 1.
            key: for the readout's weights.
            readout: ``"dense"`` or ``"factorized"``.
            weight_scale: standard deviation of the readout's weights, > 0 (see the readouts' ``from_shape``).
            activation: between filters and readout, or ``None``.
            output: after the readout, or ``None``.

        Raises:
            ValueError: for filters that are no stack of odd-sized real filters, and values out of range.
        """
        filters = real_array("filters", filters)
        check_filters(filters)
        check_at_least("n_neurons", n_neurons, 1)
        check_positive("weight_scale", weight_scale)
        if readout not in _READOUTS:
            raise ValueError(f"readout: expected one of {tuple(_READOUTS)}, got {readout!r}.")
        if len(image_shape) != 2 or min(image_shape) < 1:
            raise ValueError(f"image_shape: expected (rows, columns) ≥ 1, got {tuple(image_shape)}.")
        shape = (len(filters), int(image_shape[0]), int(image_shape[1]))
        drawn = _READOUTS[readout].from_shape(
            shape, n_neurons, key, weight_scale=weight_scale, dtype=filters.dtype
        )
        bias = jnp.zeros(len(filters), filters.dtype)
        return cls(
            filters=filters,
            bias=bias,
            readout=drawn,
            image_shape=shape[1:],
            activation=activation,
            output=output,
        )

    @property
    def n_neurons(self) -> int:
        """The number of neurons."""
        return self.readout.n_neurons

    def features(self, image: Image) -> Float[Array, "filters rows columns"]:
        """Return what the filters make of an image, after the activation."""
        image = real_array("image", image, "rows columns")
        check_shape("image", image, self.image_shape, "the image_shape of the encoder")
        margins = [(size // 2, size // 2) for size in self.filters.shape[1:]]
        seen = lax.conv_general_dilated(
            image[None, None].astype(self.filters.dtype),
            self.filters[:, None],
            window_strides=(1, 1),
            padding=margins,
            precision=network_precision(),
        )[0]
        seen = seen + self.bias[:, None, None]
        return seen if self.activation is None else self.activation(seen)

    def __call__(self, image: Image) -> Float[Array, " neurons"]:
        """Return the response of each neuron."""
        response = self.readout(self.features(image))
        return response if self.output is None else self.output(response)

    def readout_weights(self) -> tuple[Float[Array, "neurons ..."], ...]:
        """Return the readout's weights."""
        return self.readout.weights()


def check_filters(filters) -> None:
    """Raise ``ValueError`` for what is not a stack of real filters of odd height and width."""
    check_rank("filters", filters, "filters height width")
    n_filters, height, width = filters.shape
    if not n_filters or height % 2 == 0 or width % 2 == 0:
        raise ValueError(
            f"filters: expected at least one, of odd height and width, got shape {filters.shape}."
        )
