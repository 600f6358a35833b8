"""Decoders that are linear in the responses up to the last step, which puts the answer on the circle."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_at_least, check_positive
from .._precision import product
from .._types import Scalar
from ._angles import bump_concentration, circular_bump, from_phase, to_phase
from ._decoding import AbstractDecoder, AbstractFittedDecoder
from ._ridge import LinearMap, ridge
from ._trials import Standardizer, Trials, check_trials, standardizer

__all__ = ["BumpRidge", "PopulationVector", "SinCosRidge"]

_N_GRID = 360
_N_NEWTON = 4


class SinCosRidge(AbstractDecoder):
    """Ridge regression of cosine and sine: θ̂ = P/2π · atan2(ŝ, ĉ).

    Responses are standardised; (c, s) = (cos φ, sin φ), φ = 2πθ/P, by `ridge` with the strength λ below.

    Attributes:
        period_degrees: P.
        strength: the penalty relative to the responses' mean squared length: λ = strength · Σₙ wₙ‖xₙ‖²/Σₙ wₙ
            of the standardised responses, which is the number of neurons that vary. So one value means the
            same for 20 neurons and for 20,000. > 0.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> angles = jnp.arange(0.0, 360.0, 10.0)
        >>> responses = jnp.cos(jnp.deg2rad(angles[:, None] - jnp.array([0.0, 100.0, 250.0])))
        >>> fitted = jax.jit(SinCosRidge(strength=1e-3).fit)(responses, angles)
        >>> round(float(fitted.predict(responses[7])))
        70
    """

    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)
    strength: Real[ArrayLike, ""] = 0.1
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_positive("period_degrees", self.period_degrees)
        check_positive("strength", self.strength)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedSinCosRidge":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        phase = to_phase(trials.angles_degrees, self.period_degrees)
        targets = jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1)
        scale, linear = _fit_linear(trials, targets, self.strength)
        return FittedSinCosRidge(scale=scale, linear=linear, period_degrees=self.period_degrees)


class FittedSinCosRidge(AbstractFittedDecoder):
    """Cosine and sine from responses."""

    scale: Standardizer
    linear: LinearMap
    period_degrees: float = eqx.field(static=True, default=360.0)

    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the decoded angle of one trial, in degrees."""
        cosine, sine = self.linear(self.scale(response))
        return from_phase(jnp.arctan2(sine, cosine), self.period_degrees)


class BumpRidge(AbstractDecoder):
    """Ridge regression onto bumps of activity round the circle, and the angle whose bump fits best.

    Targets y_k = exp(κ(cos(φ − φ_k) − 1)) at n_bumps equally spaced angles, κ = (P/(2π·width))²; the
    decoded angle maximises Σ_k ŷ_k exp(κ(cos(φ − φ_k) − 1)), to rounding. The strength is relative, as in
    `SinCosRidge`; with more neurons than trials the dual is solved.

    Attributes:
        period_degrees: P.
        strength: > 0, relative to the responses' mean squared length.
        n_bumps: ≥ 3. For equal treatment of all angles their spacing should not pass 1.5 widths.
        width_degrees: the bump's width, about its standard deviation, > 0.

    Reference:
        Stringer, Michaelos, Tsyboulski, Lindo & Pachitariu 2021, Cell 184, 2767, methods ("super-neurons").
    """

    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)
    strength: Real[ArrayLike, ""] = 0.1
    n_bumps: int = eqx.field(static=True, default=48)
    width_degrees: float = eqx.field(static=True, default=10.0, converter=float)
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_positive("period_degrees", self.period_degrees)
        check_positive("strength", self.strength)
        check_at_least("n_bumps", self.n_bumps, 3)
        check_positive("width_degrees", self.width_degrees)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedBumpRidge":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        concentration = bump_concentration(self.width_degrees, self.period_degrees)
        targets = _bumps(
            to_phase(trials.angles_degrees, self.period_degrees)[:, None], self.n_bumps, concentration
        )
        scale, linear = _fit_linear(trials, targets, self.strength)
        return FittedBumpRidge(
            scale=scale, linear=linear, period_degrees=self.period_degrees, concentration=concentration
        )


class FittedBumpRidge(AbstractFittedDecoder):
    """A bump of activity from responses."""

    scale: Standardizer
    linear: LinearMap
    period_degrees: float = eqx.field(static=True, default=360.0)
    concentration: float = eqx.field(static=True, default=1.0)

    def bump(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bumps"]:
        """Return the regressed bump at the angles k·period/n_bumps."""
        return self.linear(self.scale(response))

    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the decoded angle of one trial, in degrees."""
        bump = self.bump(response)

        def match(phase):
            return product(_bumps(phase[..., None], len(bump), self.concentration), bump)

        grid = jnp.arange(_N_GRID, dtype=bump.dtype) * (2 * np.pi / _N_GRID)
        phase = grid[jnp.argmax(match(grid))]
        slope = jax.grad(match)
        curvature = jax.grad(slope)
        spacing = 2 * np.pi / _N_GRID
        for _ in range(_N_NEWTON):
            bend = curvature(phase)
            step = jnp.where(bend < 0, -slope(phase) / jnp.where(bend < 0, bend, -1), 0)
            phase = phase + jnp.clip(step, -spacing, spacing)
        return from_phase(phase, self.period_degrees)


class PopulationVector(AbstractDecoder):
    """Each neuron votes for its preferred angle as strongly as it fires: θ̂ = P/2π · arg Σᵢ xᵢ exp(iφᵢ).

    x is the standardised response, and φᵢ = arg Σₙ wₙ xₙᵢ exp(iφₙ), the phase of the first harmonic of the
    neuron's tuning. Nothing else is learned: with uneven preferred angles it is biased, and where responses
    come round after half of the period it fails.

    Attributes:
        period_degrees: P.

    Reference: Georgopoulos, Schwartz & Kettner 1986, Science 233, 1416.
    """

    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_positive("period_degrees", self.period_degrees)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> FittedSinCosRidge:
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        scale = standardizer(trials.responses, trials.weights)
        x, phase = scale(trials.responses), to_phase(trials.angles_degrees, self.period_degrees)
        circle = trials.weights[:, None] * jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1)
        harmonic = product(x.T, circle)
        square = jnp.sum(harmonic**2, axis=1, keepdims=True)
        preferred = harmonic / jnp.sqrt(jnp.where(square > 0, square, 1))
        linear = LinearMap(preferred, jnp.zeros(2, preferred.dtype))
        return FittedSinCosRidge(scale=scale, linear=linear, period_degrees=self.period_degrees)


def _fit_linear(trials: Trials, targets, strength) -> tuple[Standardizer, LinearMap]:
    scale = standardizer(trials.responses, trials.weights)
    x = scale(trials.responses)
    mean_square = product(trials.weights, jnp.sum(x**2, axis=1)) / trials.n_effective
    # Where nothing varies there is nothing to shrink, and any positive number will do.
    strength = strength * jnp.where(mean_square > 0, mean_square, 1)
    return scale, ridge(x, targets, strength, weights=trials.weights)


def _bumps(phase, n_bumps: int, concentration: float):
    centers = jnp.arange(n_bumps, dtype=phase.dtype) * (2 * np.pi / n_bumps)
    return circular_bump(phase - centers, concentration)
