"""The interface of the family, and the plain autoencoder."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_at_least
from .._types import PRNGKey
from ._layers import TiedLinear, affine, check_layers, dense_layers, run_layers, vector
from ._outputs import AbstractOutput, BernoulliOutput

__all__ = ["AbstractAutoencoder", "Autoencoder"]

Features = Float[Array, " features"]
Code = Float[Array, " code"]


class AbstractAutoencoder(eqx.Module):
    """A code of a datum, and the datum that a code stands for. One sample each; ``vmap`` for many."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """The number of features of a datum."""

    @property
    @abstractmethod
    def n_code(self) -> int:
        """The number of units of the code."""

    @property
    @abstractmethod
    def limits(self) -> tuple[float, float] | None:
        """The least and the largest number that a datum may have, or ``None``."""

    @abstractmethod
    def encode(self, x: Features) -> Code:
        """Return the code of a datum."""

    @abstractmethod
    def decode(self, code: Code) -> Features:
        """Return the datum that a code stands for (a mean)."""

    def reconstruct(self, x: Features) -> Features:
        """Return decode(encode(x))."""
        return self.decode(self.encode(x))


class Autoencoder(AbstractAutoencoder):
    """y = s(x @ Wᵀ + b), x̂ = the output's mean at t(y @ W' + b'), of any depth, W' = W where tied.

    Layers are Equinox's: ``weight`` has a row for each unit, which for the first layer is its filter. The
    last layer of the decoder gives the output's parameters (log-odds for `BernoulliOutput`, means for
    `GaussianOutput`); every other is followed by its side's activation.

    Attributes:
        encoder: layers from the datum to the code.
        decoder: layers from the code to the datum: as many `TiedLinear`, or layers of its own.
        output: what the last layer's numbers mean.
        activation: s, of every encoder layer, the code included.
        decoder_activation: t, of every decoder layer but the last.

    Raises:
        ValueError: at construction, for sizes that do not fit; in ``encode`` and ``decode`` at trace time,
            for another number of features or units.

    Reference:
        Bengio, Lamblin, Popovici & Larochelle 2007, Greedy layer-wise training of deep networks.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> autoencoder = Autoencoder.from_sizes(784, [500], jax.random.key(0))
        >>> images = jnp.zeros((3, 784))
        >>> jax.vmap(autoencoder.encode)(images).shape, jax.vmap(autoencoder.reconstruct)(images).shape
        ((3, 500), (3, 784))
    """

    encoder: tuple[eqx.nn.Linear, ...]
    decoder: tuple[TiedLinear | eqx.nn.Linear, ...]
    output: AbstractOutput = BernoulliOutput()
    activation: Callable = eqx.field(static=True, default=jax.nn.sigmoid)
    decoder_activation: Callable = eqx.field(static=True, default=jax.nn.sigmoid)

    def __check_init__(self):
        check_at_least("encoder: number of layers", len(self.encoder), 1)
        check_layers("encoder", self.encoder)
        self.output.check_size(self.n_features)
        check_at_least("decoder: number of layers", len(self.decoder), 1)
        if self.is_tied:
            _check_tied(self.encoder, self.decoder)
            return
        layers = [layer for layer in self.decoder if isinstance(layer, eqx.nn.Linear)]
        check_layers("decoder", layers)
        ends = (layers[0].in_features, layers[-1].out_features)
        if ends != (self.n_code, self.n_features):
            raise ValueError(
                f"decoder: expected layers from the {self.n_code} units of the code to the {self.n_features} "
                f"features, got {ends[0]} to {ends[1]}."
            )

    @classmethod
    def from_sizes(
        cls,
        n_features: int,
        n_hidden: Sequence[int],
        key: PRNGKey,
        *,
        is_tied: bool = True,
        output: AbstractOutput | None = None,
        activation: Callable = jax.nn.sigmoid,
        decoder_activation: Callable | None = None,
        dtype=None,
    ) -> "Autoencoder":
        """Start an autoencoder: Glorot's uniform weights (four times as wide for the sigmoid), biases 0.

        Args:
            n_features: of a datum.
            n_hidden: units of each encoder layer, the last being the code; the decoder mirrors them.
            key: a typed PRNG key.
            is_tied: whether the decoder's weights are the encoder's, transposed.
            output: ``None``: `BernoulliOutput`.
            activation: of the encoder.
            decoder_activation: of the decoder; ``None``: the encoder's.
            dtype: of the parameters; ``None``: JAX's default.

        Raises:
            ValueError: for a size < 1, and no layer at all.
        """
        check_at_least("n_features", n_features, 1)
        check_at_least("n_hidden: number of layers", len(n_hidden), 1)
        for size in n_hidden:
            check_at_least("n_hidden", size, 1)
        decoder_activation = activation if decoder_activation is None else decoder_activation
        dtype = jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)
        encoder_key, decoder_key = jax.random.split(key)
        sizes = [n_features, *n_hidden]
        encoder = dense_layers(sizes, encoder_key, activation, dtype, last=activation)
        output = BernoulliOutput() if output is None else output
        if is_tied:
            decoder = tuple(TiedLinear(jnp.zeros(size, dtype)) for size in sizes[-2::-1])
        else:
            # What follows the last layer is the output's mean: a sigmoid, or nothing.
            last = decoder_activation if isinstance(output, BernoulliOutput) else None
            decoder = dense_layers(sizes[::-1], decoder_key, decoder_activation, dtype, last=last)
        return cls(encoder, decoder, output, activation, decoder_activation)

    @property
    def is_tied(self) -> bool:
        """True if the decoder's weights are the encoder's."""
        return any(isinstance(layer, TiedLinear) for layer in self.decoder)

    @property
    def n_features(self) -> int:
        """The number of features of a datum."""
        return int(self.encoder[0].in_features)

    @property
    def n_code(self) -> int:
        """The number of units of the code."""
        return int(self.encoder[-1].out_features)

    @property
    def limits(self) -> tuple[float, float] | None:
        """The output's limits."""
        return self.output.limits

    def encode(self, x: Features) -> Code:
        """Return s(⋯s(x @ W₁ᵀ + b₁)⋯)."""
        x = vector("x", x, self.n_features, "a number for each feature of a datum")
        return run_layers(self.encoder, self.activation, x)

    def output_parameters(self, code: Code) -> Features:
        """Return the output's parameters for a code: log-odds, or means."""
        code = vector("code", code, self.n_code, "a number for each unit of the code")
        value = self._decoder_layer(0, code)
        for i in range(1, len(self.decoder)):
            value = self._decoder_layer(i, self.decoder_activation(value))
        return value

    def _decoder_layer(self, i: int, value: Array) -> Array:
        layer = self.decoder[i]
        if isinstance(layer, TiedLinear):
            return layer(value, self.encoder[-1 - i])
        return affine(layer, value)

    def decode(self, code: Code) -> Features:
        """Return the output's mean for a code."""
        return self.output.mean(self.output_parameters(code))


def _check_tied(encoder, decoder) -> None:
    """Raise ``ValueError`` unless each layer of the encoder has its transpose in the decoder."""
    sizes = [layer.in_features for layer in reversed(encoder)]
    biases = [jnp.shape(layer.bias) if isinstance(layer, TiedLinear) else None for layer in decoder]
    if biases != [(size,) for size in sizes]:
        raise ValueError(
            f"decoder: expected {len(encoder)} tied layers with biases of {sizes} numbers, the sizes of the "
            f"encoder backwards, got biases of shapes {biases}."
        )
