"""A simulated population of visual neurons, of any size: the data set that is always at hand."""

from dataclasses import replace
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import real_array
from .._checks import check_at_least, check_finite, check_nonnegative, check_positive, is_concrete
from .._precision import product
from .._types import PRNGKey, Scalar
from ._angles import warn_unless_degrees
from ._von_mises import VonMises, von_mises

__all__ = ["SimulatedPopulation", "simulate"]

# A Poisson count is drawn as a sum of counts of at most this rate, so that exp(−rate) is no underflow.
_LARGEST_RATE = 32.0
_MOST_SPIKES = 1e5  # in a trial; far beyond any neuron


class SimulatedPopulation(eqx.Module):
    """Responses of simulated neurons, and the neurons: `draw` has the same ones respond again.

    Attributes:
        responses: of each neuron in each trial: counts, or z-scores.
        angles_degrees: what was shown in each trial.
        mean_rates: the tuning at these angles, spikes a trial, before any noise and any z-scoring.
        tuning: the parameters of each neuron, in spikes a trial.
        loadings: how much each shared fluctuation adds to each neuron, spikes a trial.
        center: the mean of each neuron over the trials of `simulate`; 0 for counts.
        scale: the standard deviation (ddof 0) over those trials; 1 for counts.
        gain_deviation: the standard deviation of the logarithm of the gain that neurons share in a trial.
        noise_deviation: the standard deviation of the logarithm of a calcium-like response.
        kind: what ``responses`` are, "calcium" or "poisson".
    """

    responses: Float[Array, "trials neurons"]
    angles_degrees: Float[Array, " trials"]
    mean_rates: Float[Array, "trials neurons"]
    tuning: VonMises
    loadings: Float[Array, "fluctuations neurons"]
    center: Float[Array, " neurons"]
    scale: Float[Array, " neurons"]
    gain_deviation: Scalar
    noise_deviation: Scalar
    kind: str = eqx.field(static=True)

    def draw(self, key: PRNGKey, angles_degrees: Real[ArrayLike, " trials"]) -> "SimulatedPopulation":
        """Have the same neurons respond once more.

        Calcium-like responses are z-scored as those of `simulate` were, by that mean and deviation, so that
        any number of trials can be drawn.

        Args:
            key: of the trials' noise.
            angles_degrees: what to show in each trial.

        Returns:
            The population with these responses, angles and mean rates.

        Raises:
            ValueError: for angles that are not one finite number a trial, and for neurons that fire too much
                (`simulate`).
        """
        angles = _angles(angles_degrees, self.tuning.period_degrees).astype(self.responses.dtype)
        mean_rates, responses = _draw(self, key, angles)
        _check_responses(responses)
        if self.kind == "calcium":
            responses = _standardized(responses, self.center, self.scale)
        return replace(self, responses=responses, angles_degrees=angles, mean_rates=mean_rates)


def simulate(
    key: PRNGKey,
    *,
    n_neurons: int = 23_589,
    n_trials: int | None = None,
    angles_degrees: Real[ArrayLike, " trials"] | None = None,
    period_degrees: float | int = 360,
    responses: Literal["calcium", "poisson"] = "calcium",
    mean_rate: float | int = 2,
    modulation: float | int = 1,
    gain_deviation: float | int = 0.2,
    shared_deviation: float | int = 0.2,
    n_shared: int = 5,
    noise_deviation: float | int = 0.6,
) -> SimulatedPopulation:
    """Draw neurons with von Mises tuning, and their responses to gratings.

    Neuron i responds in trial t with the rate rₜᵢ = max(0, gₜ·fᵢ(θₜ) + Σₖ sₜₖ·Lₖᵢ). fᵢ is `von_mises` with a
    baseline bᵢ of median ``mean_rate`` (log-normal, deviation of the logarithm 0.5), an amplitude
    ``modulation``·bᵢ·e² for e exponential with mean 1 (most neurons hardly tuned, a few strongly), evenly
    spread preferred angles and log-normal concentrations (median 4 for directions and 1 for orientations,
    the same width in degrees; deviation of the logarithm 0.5). For directions the opposite peak is lower
    by the share u², u uniform; for orientations there is none. The gain ln gₜ is normal, E[g] = 1; the sₜₖ
    are standard normal and the Lₖᵢ normal with deviation ``shared_deviation``·bᵢ/√n_shared: noise
    correlations of low rank.

    "poisson" responses are counts of that rate. "calcium" responses are rₜᵢ·exp(σ·ε − σ²/2), ε standard
    normal, σ = ``noise_deviation``: positive and skewed; then each neuron is z-scored over the trials.

    The defaults are a choice that makes the population like that of Stringer et al. as the course
    distributes it, 360 trials and 23,589 z-scored neurons; nothing was fitted to recordings.

    Args:
        key: of neurons and trials.
        n_neurons: how many neurons, ≥ 1.
        n_trials: how many angles, evenly spaced from 0 up, one trial each; 360 unless angles are given.
        angles_degrees: the angle of each trial, instead.
        period_degrees: 360 for directions, 180 for orientations.
        responses: "calcium" or "poisson".
        mean_rate: the median baseline, spikes a trial, > 0.
        modulation: the scale of amplitudes as a share of the baseline, ≥ 0.
        gain_deviation: of the logarithm of the shared gain, ≥ 0.
        shared_deviation: of the additive shared fluctuations, as a share of the baseline, ≥ 0.
        n_shared: how many shared fluctuations, ≥ 1.
        noise_deviation: σ of calcium-like responses, ≥ 0.

    Returns:
        The population; the same key gives the same one. Floats are of the dtype of ``angles_degrees``.

    Raises:
        ValueError: for numbers out of range, another kind of responses, a period other than 360 and 180, for
            both ``n_trials`` and ``angles_degrees``, and for responses that are not finite or Poisson neurons
            that fire more than 10⁵ spikes in a trial, whose counts would take minutes; inside ``jit`` such
            counts are NaN.

    Reference:
        Stringer et al. 2021, Cell 184, 2767-2778 (the recordings); Goris, Movshon & Simoncelli 2014,
        Nat. Neurosci. 17, 858-865 (shared gain).

    Example:
        >>> import jax
        >>> population = simulate(jax.random.key(0), n_neurons=50, n_trials=60, responses="poisson")
        >>> population.responses.shape, float(population.angles_degrees[1])
        ((60, 50), 6.0)
    """
    check_at_least("n_neurons", n_neurons, 1)
    check_at_least("n_shared", n_shared, 1)
    check_positive("mean_rate", mean_rate)
    check_finite("mean_rate", mean_rate)
    deviations = {"gain_deviation": gain_deviation, "noise_deviation": noise_deviation}
    scales = {"modulation": modulation, "shared_deviation": shared_deviation}
    for name, value in (deviations | scales).items():
        check_nonnegative(name, value)
        check_finite(name, value)
    if responses not in ("calcium", "poisson"):
        raise ValueError(f"responses: expected 'calcium' or 'poisson', got {responses!r}.")
    if period_degrees not in (180, 360):
        raise ValueError(f"period_degrees: expected 180 or 360, got {period_degrees!r}.")
    if angles_degrees is None:
        n_trials = 360 if n_trials is None else n_trials
        check_at_least("n_trials", n_trials, 1)
        angles_degrees = jnp.arange(n_trials) * (period_degrees / n_trials)
    elif n_trials is not None:
        raise ValueError(f"n_trials: expected None beside angles_degrees, got {n_trials!r}.")
    angles = _angles(angles_degrees, period_degrees)
    sizes = {name: jnp.asarray(value, angles.dtype) for name, value in deviations.items()}
    shares = [jnp.asarray(value, angles.dtype) for value in (mean_rate, *scales.values())]
    key_neurons, key_trials = jax.random.split(key)
    tuning, loadings = _neurons(key_neurons, n_neurons, n_shared, float(period_degrees), *shares)
    nothing = jnp.zeros((len(angles), n_neurons), angles.dtype)
    rest = jnp.zeros(n_neurons, angles.dtype), jnp.ones(n_neurons, angles.dtype)
    population = SimulatedPopulation(
        nothing, angles, nothing, tuning, loadings, *rest, **sizes, kind=responses
    )
    return _first(population, key_trials, angles)


def _first(population, key, angles):
    """Return the population with its first responses, and what z-scores them."""
    mean_rates, responses = _draw(population, key, angles)
    _check_responses(responses)
    if population.kind == "calcium":
        center, scale = jnp.mean(responses, 0), jnp.std(responses, 0)
        responses = _standardized(responses, center, scale)
        population = replace(population, center=center, scale=scale)
    return replace(population, responses=responses, mean_rates=mean_rates)


@eqx.filter_jit
def _neurons(key, n_neurons, n_shared, period_degrees, mean_rate, modulation, shared_deviation):
    """Return tuning and loadings."""
    dtype = mean_rate.dtype
    keys = jax.random.split(key, 6)
    baseline = mean_rate * jnp.exp(0.5 * jax.random.normal(keys[0], (n_neurons,), dtype))
    amplitude = modulation * baseline * jax.random.exponential(keys[1], (n_neurons,), dtype) ** 2
    preferred = jax.random.uniform(keys[2], (n_neurons,), dtype) * period_degrees
    # The same width in degrees wants κ to go as the period squared.
    concentration = (
        jnp.exp(0.5 * jax.random.normal(keys[3], (n_neurons,), dtype)) * (period_degrees / 180) ** 2
    )
    share = jax.random.uniform(keys[4], (n_neurons,), dtype)
    opposite = (1 - share**2) * amplitude if period_degrees == 360 else jnp.zeros_like(amplitude)
    loadings = jax.random.normal(keys[5], (n_shared, n_neurons), dtype) * (n_shared**-0.5)
    tuning = VonMises(preferred, concentration, baseline, amplitude, opposite, period_degrees)
    return tuning, shared_deviation * baseline * loadings


@eqx.filter_jit
def _draw(population, key, angles):
    """Return mean rates, and responses as they are before z-scoring."""
    key_gain, key_shared, key_own = jax.random.split(key, 3)
    dtype, n_trials = angles.dtype, len(angles)
    mean_rates = jax.vmap(jax.vmap(von_mises, (None, 0)), (0, None))(angles, population.tuning)
    spread = population.gain_deviation
    gain = jnp.exp(spread * jax.random.normal(key_gain, (n_trials, 1), dtype) - spread**2 / 2)
    shared = jax.random.normal(key_shared, (n_trials, len(population.loadings)), dtype)
    rates = jnp.maximum(gain * mean_rates + product(shared, population.loadings), 0)
    if population.kind == "poisson":
        keys = jax.random.split(key_own, n_trials)
        is_drawable = rates <= _MOST_SPIKES  # also not where NaN
        safe = jnp.where(is_drawable, rates, 0)
        counts = lax.map(lambda row: _poisson(*row), (keys, safe)).astype(dtype)
        return mean_rates, jnp.where(is_drawable, counts, jnp.nan)
    spread = population.noise_deviation
    noise = jax.random.normal(key_own, rates.shape, dtype)
    return mean_rates, rates * jnp.exp(spread * noise - spread**2 / 2)


@eqx.filter_jit
def _standardized(responses, center, scale):
    return (responses - center) / jnp.where(scale == 0, 1, scale)


def _poisson(key: PRNGKey, rates: Float[Array, " neurons"]) -> Int[Array, " neurons"]:
    """Draw counts, by the inverse of their distribution: `jax.random.poisson` is ten times slower."""

    def add(carry):
        key, rest, counts = carry
        key, key_now = jax.random.split(key)
        rate = jnp.minimum(rest, _LARGEST_RATE)
        return (
            key,
            rest - rate,
            counts + _inverse_poisson(jax.random.uniform(key_now, rate.shape, rate.dtype), rate),
        )

    start = key, rates, jnp.zeros(rates.shape, jnp.int32)
    return lax.while_loop(lambda carry: jnp.any(carry[1] > 0), add, start)[2]


def _inverse_poisson(uniform, rate):
    """Return the least k with P(count ≤ k) > uniform; tails below 1e-9 are cut off."""

    def is_short(k, term, below):
        return (uniform >= below) & ((k < rate) | (term > 1e-9))

    def grow(carry):
        n, k, term, below = carry
        is_up = is_short(k, term, below)
        term = jnp.where(is_up, term * rate / (n + 1), term)
        return n + 1, jnp.where(is_up, n + 1, k), term, jnp.where(is_up, below + term, below)

    none = jnp.exp(-rate)
    start = jnp.int32(0), jnp.zeros(rate.shape, jnp.int32), none, none
    return lax.while_loop(lambda carry: jnp.any(is_short(*carry[1:])), grow, start)[1]


def _angles(angles_degrees, period_degrees: float | int) -> Array:
    angles = real_array("angles_degrees", angles_degrees, "trials")
    check_finite("angles_degrees", angles_degrees)
    warn_unless_degrees("angles_degrees", angles_degrees, period_degrees)
    return angles


def _check_responses(responses: Array) -> None:
    if is_concrete(responses) and not np.all(np.isfinite(np.asarray(responses))):
        raise ValueError(
            f"mean_rate: expected neurons that fire at most {_MOST_SPIKES:g} spikes in a trial (for calcium: "
            "finite responses), got more; lower mean_rate, modulation or the deviations."
        )
