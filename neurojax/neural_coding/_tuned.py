"""Strengths chosen by cross-validation within the trials that a decoder is fitted to."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_at_least, check_finite, check_kind, check_rank, is_concrete
from .._types import Scalar
from ._angles import AngleBins, circular_difference, wrap_degrees
from ._decoding import AbstractDecoder, AbstractFittedDecoder, AbstractProbabilisticDecoder
from ._trials import Trials, check_trials

__all__ = ["Tuned"]


class Tuned(AbstractDecoder):
    """A decoder whose strength is chosen by cross-validation within the trials it is fitted to.

    Each strength decodes each of ``n_folds`` held-out parts; the one with the largest mean log p(true bin),
    or for decoders without probabilities the smallest mean absolute circular error, is fitted to all. Ties go
    to the first; a strength too small for the arithmetic, whose score is NaN, is not taken. A held-out trial
    whose bin has no other trial to learn from, and so probability 0, does not count.

    Attributes:
        decoder: of which one number is tuned; compiled.
        strengths: to choose from, each within the range that the decoder takes.
        where: which leaf of the decoder they replace.
        n_folds: trials are dealt out in the order of their angles, so parts are stratified.

    Raises:
        ValueError: at construction, for a decoder that does not compile, for strengths that are not finite
            or that the decoder's own checks refuse, and for fewer than two folds.

    Example:
        >>> import equinox as eqx, jax.numpy as jnp
        >>> from neurojax.neural_coding import SinCosRidge
        >>> angles = jnp.arange(0.0, 360.0, 10.0)
        >>> responses = jnp.cos(jnp.deg2rad(angles[:, None] - jnp.array([0.0, 100.0, 250.0])))
        >>> tuned = Tuned(SinCosRidge(), jnp.array([1e-3, 1.0]))
        >>> fitted = eqx.filter_jit(tuned.fit)(responses, angles)
        >>> round(float(fitted.strength), 3)
        0.001
    """

    decoder: AbstractDecoder
    strengths: Float[Array, " strengths"] = eqx.field(converter=partial(real_array, "strengths"))
    where: Callable = eqx.field(static=True, default=lambda decoder: decoder.strength)
    n_folds: int = eqx.field(static=True, default=5)
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_kind("decoder", self.decoder, AbstractDecoder)
        if not self.decoder.is_compiled:
            raise ValueError(f"decoder: expected one that compiles, got {type(self.decoder).__name__}.")
        try:
            self.where(self.decoder)
        except AttributeError as error:
            raise ValueError(
                f"where: expected a leaf of {type(self.decoder).__name__} for the strengths, such as "
                f"lambda decoder: decoder.shrinkage, got {error}."
            ) from error
        check_rank("strengths", self.strengths, "strengths")
        if not len(self.strengths):
            raise ValueError("strengths: expected at least one, got none.")
        check_finite("strengths", self.strengths)
        check_at_least("n_folds", self.n_folds, 2)
        if is_concrete(self.strengths):
            for strength in np.asarray(self.strengths):
                self._check_strength(np.asarray(strength))

    def _check_strength(self, strength: np.ndarray) -> None:
        """Raise ``ValueError`` for a strength that the decoder refuses at its construction."""
        try:
            _check_anew(self._at(strength))
        except ValueError as error:
            raise ValueError(
                f"strengths: expected numbers that {type(self.decoder).__name__} takes, got {strength:g}: "
                f"{error}"
            ) from error

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.decoder.period_degrees

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedTuned | FittedTunedProbabilities":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        fold = _dealt(trials, self.period_degrees, self.n_folds)
        strengths = self.strengths.astype(trials.responses.dtype)

        def of_fold(f):
            is_held = fold == f
            return jax.vmap(lambda s: self._score(trials, s, is_held))(strengths)

        totals, counts = jax.lax.map(of_fold, jnp.arange(self.n_folds))
        held = jnp.sum(counts, axis=0)
        mean_scores = jnp.sum(totals, axis=0) / jnp.where(held > 0, held, 1)
        best = strengths[jnp.argmax(jnp.where(jnp.isnan(mean_scores), -jnp.inf, mean_scores))]
        fitted = self._at(best).fit(trials.responses, trials.angles_degrees, weights=trials.weights)
        if isinstance(fitted, AbstractProbabilisticDecoder):
            return FittedTunedProbabilities(
                fitted=fitted, strength=best, scores=mean_scores, bins=fitted.bins
            )
        return FittedTuned(fitted, best, mean_scores)

    def _at(self, strength) -> AbstractDecoder:
        return eqx.tree_at(self.where, self.decoder, strength)

    def _score(self, trials: Trials, strength, is_held) -> tuple[Scalar, Scalar]:
        """Return the weighted sum of the held-out trials' scores, and the sum of weights."""
        weights = jnp.where(is_held, 0, trials.weights)
        fitted = self._at(strength).fit(trials.responses, trials.angles_degrees, weights=weights)
        scores = jax.vmap(partial(_trial_score, fitted))(trials.responses, trials.angles_degrees)
        weights = jnp.where(is_held & ~jnp.isneginf(scores), trials.weights, 0)
        return jnp.sum(jnp.where(weights > 0, weights * scores, 0)), jnp.sum(weights)


class FittedTuned(AbstractFittedDecoder):
    """A fitted decoder, and how its strength was chosen.

    Attributes:
        fitted: the decoder at the best strength.
        strength: the best.
        scores: the mean held-out score of each strength.
    """

    fitted: AbstractFittedDecoder
    strength: Scalar
    scores: Float[Array, " strengths"]

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.fitted.period_degrees

    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the decoded angle of one trial, in degrees."""
        return self.fitted.predict(response)


class FittedTunedProbabilities(AbstractProbabilisticDecoder):
    """`FittedTuned`, for decoders that have probabilities."""

    fitted: AbstractProbabilisticDecoder
    strength: Scalar
    scores: Float[Array, " strengths"]
    bins: AngleBins

    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response), in nats."""
        return self.fitted.log_probabilities(response)


def _trial_score(fitted: AbstractFittedDecoder, response, angle) -> Scalar:
    if isinstance(fitted, AbstractProbabilisticDecoder):
        return fitted.log_probabilities(response)[fitted.bins.index(angle)]
    return -jnp.abs(circular_difference(fitted.predict(response), angle, fitted.period_degrees))


def _dealt(trials: Trials, period_degrees: float, n_folds: int) -> Array:
    """Return a fold for each trial: those that count, in the order of their angles, in turn."""
    angles = wrap_degrees(trials.angles_degrees, period_degrees)
    order = jnp.argsort(jnp.where(trials.weights > 0, angles, jnp.inf), stable=True)
    return jnp.argsort(order) % n_folds


def _check_anew(module: eqx.Module) -> None:
    """Run the checks that a module and those within it make at their construction."""
    for field in dataclasses.fields(module):
        child = getattr(module, field.name)
        if isinstance(child, eqx.Module):
            _check_anew(child)
    for kind in type(module).__mro__:
        if "__check_init__" in vars(kind):
            vars(kind)["__check_init__"](module)
