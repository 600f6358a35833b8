"""Angles on a circle, in degrees: differences, means and bins.

Orientations come round after 180°, directions of motion after 360°; every function says which by
``period_degrees``. Units are in the names, as degrees and radians cannot be told apart by their values.
Functions that take the angles of stimuli warn about values that look like radians or like another period
(`warn_unless_degrees`); functions of single angles, such as `wrap_degrees`, take every number.
"""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import check_same_shape, host_array, real_array
from .._checks import check_at_least, check_finite, check_positive, is_concrete, is_elsewhere
from .._precision import at_least_single

__all__ = [
    "AngleBins",
    "bump_concentration",
    "circular_bump",
    "circular_difference",
    "circular_mean",
    "from_phase",
    "short_way",
    "to_phase",
    "warn_unless_degrees",
    "wrap_degrees",
]

_LEAST_SPREAD_RADIANS = 1.5  # of radians that go round half a circle; less may well be a few degrees


def wrap_degrees(
    angles_degrees: Real[ArrayLike, "*shape"], period_degrees: float | int = 360
) -> Float[Array, "*shape"]:
    """Return the same angles in [0, period_degrees); a whole period is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(wrap_degrees(jnp.array([-90.0, 360.0, 365.0])))
        [270.   0.   5.]
    """
    _check_period(period_degrees)
    return _wrap(real_array("angles_degrees", angles_degrees), period_degrees)


@jax.jit
def _wrap(angles, period):
    wrapped = jnp.mod(angles, period)
    # The remainder of a number just below 0 rounds to the whole period.
    return jnp.where(wrapped >= period, 0, wrapped)


def circular_difference(
    first_degrees: Real[ArrayLike, "..."],
    second_degrees: Real[ArrayLike, "..."],
    period_degrees: float | int = 360,
) -> Float[Array, "..."]:
    """Return first − second the short way round, in [−period_degrees/2, period_degrees/2).

    Args:
        first_degrees: angles.
        second_degrees: angles with as many axes, which are broadcast, as (n, 1) and (1, m) for all pairs;
            either may be a single number instead.
        period_degrees: after which angles come round.

    Raises:
        ValueError: for arrays that differ in their number of axes, as (n, 1) and (n,), for shapes that do not
            fit, and for a period that is not positive.

    Example:
        >>> float(circular_difference(359.0, 1.0)), float(circular_difference(179.0, 1.0, 180))
        (-2.0, -2.0)
    """
    _check_period(period_degrees)
    first, second = real_array("first_degrees", first_degrees), real_array("second_degrees", second_degrees)
    is_number = not (first.ndim and second.ndim)
    if not is_number and (
        first.ndim != second.ndim
        or any(n != m and 1 not in (n, m) for n, m in zip(first.shape, second.shape, strict=True))
    ):
        raise ValueError(
            f"second_degrees: expected axes as first_degrees has them, shape {first.shape}, got shape "
            f"{second.shape}."
        )
    return short_way(first, second, period_degrees / 2)


@jax.jit
def short_way(first: Array, second: Array, half: float | Array) -> Array:
    """Return first − second in [−half, half), with broadcasting and without checks."""
    return _wrap(first - second + half, 2 * half) - half


def circular_mean(
    angles_degrees: Real[ArrayLike, " samples"],
    period_degrees: float | int = 360,
    weights: Real[ArrayLike, " samples"] | None = None,
) -> Float[Array, ""]:
    """Return the angle of Σₙ wₙ exp(i·2π·θₙ/period), in [0, period_degrees).

    Where the vectors cancel there is no mean direction, and the result is rounding's choice. Without any
    angle, and with weights that are all 0, it is NaN.

    Args:
        angles_degrees: the angles.
        period_degrees: after which they come round.
        weights: of the angles, in any unit; ``None``: 1 each.

    Raises:
        ValueError: for weights of another shape than the angles, and for a period that is not positive.

    Example:
        >>> round(float(circular_mean(jnp.array([350.0, 20.0]))), 3)
        5.0
    """
    angles = at_least_single(real_array("angles_degrees", angles_degrees, "samples"))
    _check_period(period_degrees)
    warn_unless_degrees("angles_degrees", angles_degrees, np.inf)
    phase = to_phase(angles, period_degrees)
    if weights is None:
        weights = jnp.ones_like(phase)
    else:
        weights = real_array("weights", weights)
        check_same_shape("weights", weights, "angles_degrees", angles)
    is_empty = ~jnp.any(weights != 0)
    turned = jnp.arctan2(jnp.sum(weights * jnp.sin(phase)), jnp.sum(weights * jnp.cos(phase)))
    return jnp.where(is_empty, jnp.nan, from_phase(turned, period_degrees))


def to_phase(angles_degrees: Float[Array, "*shape"], period_degrees: float | int) -> Float[Array, "*shape"]:
    """Return angles in radians, with the period as one turn."""
    return angles_degrees * (2 * np.pi / period_degrees)


def from_phase(phase: Float[Array, "*shape"], period_degrees: float | int) -> Float[Array, "*shape"]:
    """Return the angles of phases in radians, in [0, period_degrees)."""
    return _wrap(phase * (period_degrees / (2 * np.pi)), period_degrees)


def circular_bump(phase: Float[Array, "*shape"], concentration: float) -> Float[Array, "*shape"]:
    """Return exp(κ(cos φ − 1)), 1 at φ = 0."""
    return jnp.exp(concentration * (jnp.cos(phase) - 1))


def bump_concentration(width_degrees: float, period_degrees: float) -> float:
    """Return κ = (P/(2π·width))², with which a `circular_bump` has about that standard deviation."""
    return (period_degrees / (2 * np.pi * width_degrees)) ** 2


class AngleBins(eqx.Module):
    """Equal half-open bins round the circle: bin k is [start + k·w, start + (k + 1)·w), w = period/n_bins.

    The period itself belongs to the bin of 0.

    Attributes:
        n_bins: how many, ≥ 2.
        period_degrees: 360 for directions, 180 for orientations.
        start_degrees: the lower edge of bin 0.

    Raises:
        ValueError: at construction, for fewer than two bins or a period that is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> bins = AngleBins(20)
        >>> print(bins.index(jnp.array([0.0, 17.9, 18.0, 359.9, 360.0])))
        [ 0  0  1 19  0]
    """

    n_bins: int = eqx.field(static=True)
    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)
    start_degrees: float = eqx.field(static=True, default=0.0, converter=float)

    def __check_init__(self):
        check_at_least("n_bins", self.n_bins, 2)
        _check_period(self.period_degrees)
        check_finite("start_degrees", self.start_degrees)

    @classmethod
    def around(
        cls, angles_degrees: Real[ArrayLike, " trials"], period_degrees: float | int = 360
    ) -> "AngleBins":
        """Make bins whose centres are the distinct angles of an experiment.

        The coarsest even division of the circle is taken that has a centre within a tenth of a bin of
        every angle, the first centre on the smallest angle; some bins may have no angle, as where an
        experiment left out a condition. Angles that were stored rounded find their bin.

        Args:
            angles_degrees: the angle of each trial, known now (not while JAX traces).
            period_degrees: after which angles come round.

        Raises:
            ValueError: for fewer than two distinct angles, and where no division into at most four times as
                many bins as there are angles fits.

        Example:
            >>> import jax.numpy as jnp
            >>> bins = AngleBins.around(jnp.array([0, 22, 45, 67, 90, 112, 135]), 180)
            >>> bins.n_bins, bins.centers_degrees[:3].tolist()
            (8, [0.0, 22.5, 45.0])
        """
        if not is_concrete(angles_degrees):
            raise ValueError("angles_degrees: expected known values, got a tracer; make bins outside of jit.")
        angles = host_array("angles_degrees", angles_degrees, "trials").astype(np.float64)
        _check_period(period_degrees)
        check_finite("angles_degrees", angles)
        warn_unless_degrees("angles_degrees", angles, period_degrees)
        wrapped = np.mod(angles, period_degrees)
        # Of values that differ by rounding alone, and of 0 and a whole period, one is kept.
        distinct = np.unique(np.mod(np.round(wrapped, 3), period_degrees))
        most = 4 * len(distinct) if len(distinct) > 1 else 0
        for n_bins in range(max(len(distinct), 2), most + 1):
            places = (distinct - distinct[0]) * n_bins / period_degrees
            nearest = np.round(places)
            is_apart = len(np.unique(np.mod(nearest, n_bins))) == len(distinct)
            if is_apart and np.max(np.abs(places - nearest)) <= 0.1:
                return cls(n_bins, period_degrees, float(distinct[0]) - period_degrees / n_bins / 2)
        shown = ", ".join(f"{angle:g}" for angle in distinct[:12]) + (", …" if len(distinct) > 12 else "")
        raise ValueError(
            f"angles_degrees: expected at least two angles on an even division of {period_degrees:g}°, got "
            f"{shown or 'none'}; for other angles make AngleBins(n_bins, period_degrees)."
        )

    @property
    def width_degrees(self) -> float:
        """The width of a bin."""
        return self.period_degrees / self.n_bins

    @property
    def centers_degrees(self) -> Float[np.ndarray, " bins"]:
        """The centres of the bins, in [0, period_degrees)."""
        centres = self.start_degrees + (np.arange(self.n_bins) + 0.5) * self.width_degrees
        return np.mod(np.round(centres, 9), self.period_degrees)

    @property
    def edges_degrees(self) -> Float[np.ndarray, " edges"]:
        """The n_bins + 1 edges, from ``start_degrees`` up."""
        return self.start_degrees + np.arange(self.n_bins + 1) * self.width_degrees

    def index(self, angles_degrees: Real[ArrayLike, "*shape"]) -> Int[Array, "*shape"]:
        """Return the bin of each angle, 0 to n_bins − 1.

        Raises:
            ValueError: for angles that are known and not finite.
        """
        angles = real_array("angles_degrees", angles_degrees)
        check_finite("angles_degrees", angles)
        return _bin(angles - self.start_degrees, self.n_bins, self.period_degrees)


@jax.jit
def _bin(turned, n_bins, period):
    # Times n over the period, not over the width: exact wherever the edge is a whole number.
    index = jnp.floor(_wrap(turned, period) * n_bins / period).astype(jnp.int32)
    return jnp.mod(index, n_bins)


def warn_unless_degrees(
    name: str, angles_degrees: Real[ArrayLike, "..."], period_degrees: float | int
) -> None:
    """Warn where the angles of stimuli look like radians, or go beyond their period.

    They look like radians where all lie within ±2π, some are not whole numbers, and they spread over at
    least 1.5: eight orientations in radians spread over 2.7. Fine discrimination within a degree of a
    reference does not warn. Angles go beyond the period where one of them or their spread exceeds it, as
    directions do that are read as orientations. Only values that are known now are looked at, not those that
    JAX traces.

    Args:
        name: of the argument.
        angles_degrees: the angles.
        period_degrees: after which they come round; infinite where they may go round several times.
    """
    if not is_concrete(angles_degrees) or not is_concrete(period_degrees) or is_elsewhere(angles_degrees):
        return
    angles = np.asarray(angles_degrees, np.float64)
    angles = angles[np.isfinite(angles)]
    if not angles.size:
        return
    least, largest = float(angles.min()), float(angles.max())
    size, spread = max(-least, largest), largest - least
    if size <= 2 * np.pi * 1.001 and spread >= _LEAST_SPREAD_RADIANS and np.any(angles != np.round(angles)):
        warnings.warn(
            f"{name}: expected degrees, got {least:.3g} to {largest:.3g}, all within ±2π, which may be "
            "radians; convert those by numpy.rad2deg.",
            stacklevel=1,  # in one place, so that Python shows each message once
        )
    elif max(size, spread) > period_degrees * 1.001:
        warnings.warn(
            f"{name}: expected angles within one period of {period_degrees:g}°, got {least:.4g}° to "
            f"{largest:.4g}°, which are taken modulo {period_degrees:g}°; is that the period of the stimuli?",
            stacklevel=1,
        )


def _check_period(period_degrees) -> None:
    check_positive("period_degrees", period_degrees)
    check_finite("period_degrees", period_degrees)
