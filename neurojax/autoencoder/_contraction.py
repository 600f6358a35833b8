"""Sensitivity of an encoder to its datum: the norm and the spectrum of the Jacobian."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._arrays import real_array
from .._precision import at_least_single
from .._types import Scalar
from ._layers import affine
from ._models import AbstractAutoencoder, Autoencoder

__all__ = ["contraction", "jacobian_norm", "jacobian_singular_values"]


def contraction(autoencoder: AbstractAutoencoder, x: Float[Array, " features"]) -> Scalar:
    """Compute ‖J‖²_F = Σⱼᵢ (∂yⱼ/∂xᵢ)² of the encoder at a datum, the penalty of contractive autoencoders.

    One layer of ``jax.nn.sigmoid`` has it in closed form, Σⱼ (yⱼ(1 − yⱼ))² ‖Wⱼ‖²; any other encoder goes
    through `jacobian_norm`.

    Args:
        autoencoder: whose ``encode`` is looked at.
        x: a datum.

    Gradient: that of the formula, in the parameters and in x.

    Reference:
        Rifai, Vincent, Muller, Glorot & Bengio 2011, Contractive auto-encoders.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.autoencoder import Autoencoder
        >>> autoencoder = Autoencoder.from_sizes(6, [4], jax.random.key(0))
        >>> both = jax.jit(lambda x: (contraction(autoencoder, x), jacobian_norm(autoencoder.encode, x)))
        >>> closed_form, differentiated = both(jnp.ones(6))
        >>> bool(abs(closed_form - differentiated) < 1e-5)
        True
    """
    x = real_array("x", x, "features")
    if not isinstance(autoencoder, Autoencoder) or not _is_one_sigmoid_layer(autoencoder):
        return jacobian_norm(autoencoder.encode, x)
    (layer,) = autoencoder.encoder
    y = at_least_single(jax.nn.sigmoid(affine(layer, x)))
    return jnp.sum((y * (1 - y)) ** 2 * jnp.sum(at_least_single(layer.weight) ** 2, axis=1))


def _is_one_sigmoid_layer(autoencoder: Autoencoder) -> bool:
    return len(autoencoder.encoder) == 1 and autoencoder.activation is jax.nn.sigmoid


def _jacobian(encode: Callable, x: Array) -> Array:
    """Return the Jacobian in float32 at least, by the mode that takes fewer passes."""
    x = real_array("x", x, "features")
    n_units = jax.eval_shape(encode, x).size
    return at_least_single((jax.jacrev if n_units < x.size else jax.jacfwd)(encode)(x))


def jacobian_norm(
    encode: Callable[[Float[Array, " features"]], Float[Array, " code"]], x: Float[Array, " features"]
) -> Scalar:
    """Compute ‖∂encode(x)/∂x‖²_F by automatic differentiation, exactly, for any function.

    Takes as many passes as the smaller of features and units.

    Args:
        encode: of one datum.
        x: where.
    """
    return jnp.sum(_jacobian(encode, x) ** 2)


def jacobian_singular_values(
    encode: Callable[[Float[Array, " features"]], Float[Array, " code"]], x: Float[Array, " features"]
) -> Float[Array, " values"]:
    """Compute the singular values of ∂encode(x)/∂x, largest first.

    Few large ones and many near 0 mean a code that follows few directions of the data: the contraction
    spectrum.

    Args:
        encode: of one datum.
        x: where.

    Reference:
        Rifai et al. 2011.
    """
    return jnp.linalg.svd(_jacobian(encode, x), compute_uv=False)
