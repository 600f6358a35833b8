"""The interface of decoders: settings that are fitted to trials, and what comes of it."""

from abc import abstractmethod

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._types import Scalar
from ._angles import AngleBins, circular_mean

__all__ = [
    "AbstractClassDecoder",
    "AbstractDecoder",
    "AbstractFittedDecoder",
    "AbstractProbabilisticDecoder",
    "posterior_mean_degrees",
]


class AbstractFittedDecoder(eqx.Module):
    """Tells the angle of a stimulus from the responses of a population."""

    @property
    @abstractmethod
    def period_degrees(self) -> float:
        """After which its angles come round."""

    @abstractmethod
    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the decoded angle of one trial, in [0, period_degrees) degrees; batch with ``jax.vmap``."""


class AbstractProbabilisticDecoder(AbstractFittedDecoder):
    """A decoder that gives every bin of angles its probability.

    Attributes:
        bins: the bins.
    """

    bins: eqx.AbstractVar[AngleBins]

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.bins.period_degrees

    @abstractmethod
    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response) of one trial, in nats."""

    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the centre of the most probable bin of one trial, in degrees; batch with ``jax.vmap``.

        NaN where a probability is.
        """
        log_probabilities = self.log_probabilities(response)
        centers = jnp.asarray(self.bins.centers_degrees, log_probabilities.dtype)
        is_broken = jnp.any(jnp.isnan(log_probabilities))
        return jnp.where(is_broken, jnp.nan, centers[jnp.argmax(log_probabilities)])


class AbstractDecoder(eqx.Module):
    """Settings of a decoder, to be fitted to trials.

    Attributes:
        is_compiled: whether `fit` may run under ``jax.jit``; if not it is a host program.
    """

    is_compiled: eqx.AbstractClassVar[bool]

    @property
    @abstractmethod
    def period_degrees(self) -> float:
        """After which angles come round: 360 for directions, 180 for orientations."""

    @abstractmethod
    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> AbstractFittedDecoder:
        """Fit to trials.

        Args:
            responses: one trial a row: spike counts, or other real numbers.
            angles_degrees: of the stimulus of each trial.
            weights: of each trial, ≥ 0. A trial of weight 0 is left out exactly: folds of a cross-validation
                are weights, and so share one compiled program.

        Raises:
            ValueError: for lengths that differ and numbers that are not finite.
        """


class AbstractClassDecoder(AbstractDecoder):
    """Settings of a decoder that tells bins of angles apart.

    Attributes:
        bins: the bins.
    """

    bins: eqx.AbstractVar[AngleBins]

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.bins.period_degrees


def posterior_mean_degrees(
    decoder: AbstractProbabilisticDecoder, response: Float[ArrayLike, " neurons"]
) -> Scalar:
    """Return the circular mean of the bins' centres under p(bin | response), in [0, period_degrees).

    For a fine circle of bins it errs less than the most probable bin; for a few distinct stimuli it is
    none of them.
    """
    probabilities = jnp.exp(decoder.log_probabilities(real_array("response", response)))
    centers = jnp.asarray(decoder.bins.centers_degrees, probabilities.dtype)
    return circular_mean(centers, decoder.period_degrees, probabilities)
