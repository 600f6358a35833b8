"""Corruptions of a datum, for denoising: ``noise(x, key)``, for x of any shape."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._arrays import real_array
from .._checks import check_nonnegative, is_concrete
from .._random import bernoulli
from .._types import PRNGKey, Scalar
from ._layers import setting

__all__ = ["AbstractNoise", "BitFlipNoise", "GaussianNoise", "MaskingNoise", "SaltAndPepperNoise"]

Numbers = Float[Array, "*shape"]


class AbstractNoise(eqx.Module):
    """A random change of a datum, each number on its own."""

    @abstractmethod
    def __call__(self, x: Numbers, key: PRNGKey) -> Numbers:
        """Return x corrupted."""


def _check_rate(rate) -> None:
    if is_concrete(rate) and not np.all((np.asarray(rate) >= 0) & (np.asarray(rate) < 1)):
        raise ValueError(f"rate: expected a number in [0, 1), got {rate}.")


def _chosen(rate, x: Array, key: PRNGKey) -> Array:
    """Draw which numbers are hit; in half precision the rate itself would be rounded."""
    rate = jnp.asarray(rate, jnp.promote_types(x.dtype, jnp.float32))
    return bernoulli(key, jnp.broadcast_to(rate, x.shape)) > 0


class MaskingNoise(AbstractNoise):
    """Each number becomes 0 with probability ``rate``; the others stay as they are, not rescaled.

    Attributes:
        rate: in [0, 1).

    Reference:
        Vincent et al. 2010, Stacked denoising autoencoders.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.jit(MaskingNoise(0.25))(jnp.ones(10_000), jax.random.key(0))
        >>> round(float(1 - x.mean()), 2)
        0.25
    """

    rate: Scalar | float = eqx.field(converter=setting("rate"))

    def __check_init__(self):
        _check_rate(self.rate)

    def __call__(self, x, key):
        """Return x with some numbers 0."""
        x = real_array("x", x)
        return jnp.where(_chosen(self.rate, x, key), 0, x)


class SaltAndPepperNoise(AbstractNoise):
    """Each number becomes 0 or 1, with probability ``rate``/2 either.

    Attributes:
        rate: in [0, 1).

    Reference:
        Vincent et al. 2010.
    """

    rate: Scalar | float = eqx.field(converter=setting("rate"))

    def __check_init__(self):
        _check_rate(self.rate)

    def __call__(self, x, key):
        """Return x with some numbers at an end of [0, 1]."""
        x = real_array("x", x)
        which, salt = jax.random.split(key)
        ends = bernoulli(salt, jnp.full(x.shape, 0.5, x.dtype))
        return jnp.where(_chosen(self.rate, x, which), ends, x)


class BitFlipNoise(AbstractNoise):
    """Each number x becomes 1 − x with probability ``rate``: of a binary unit, the other state.

    Attributes:
        rate: in [0, 1).
    """

    rate: Scalar | float = eqx.field(converter=setting("rate"))

    def __check_init__(self):
        _check_rate(self.rate)

    def __call__(self, x, key):
        """Return x with some numbers turned over."""
        x = real_array("x", x)
        return jnp.where(_chosen(self.rate, x, key), 1 - x, x)


class GaussianNoise(AbstractNoise):
    """x + scale·normal, each number on its own; what comes out is not clipped.

    Attributes:
        scale: the standard deviation, ≥ 0, in the units of x.
    """

    scale: Scalar | float = eqx.field(converter=setting("scale"))

    def __check_init__(self):
        check_nonnegative("scale", self.scale)

    def __call__(self, x, key):
        """Return x with noise added."""
        x = real_array("x", x)
        return x + jnp.asarray(self.scale, x.dtype) * jax.random.normal(key, x.shape, x.dtype)
