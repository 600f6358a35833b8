"""Least-squares fits of von Mises tuning: linear parameters in closed form, the other two by Newton steps."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import real_array
from .._checks import check_finite, check_shape
from .._precision import at_least_single, product
from .._types import Scalar
from ..convergence import AbstractProblem, AbstractSolver, Detached, iterate
from ._angles import to_phase
from ._von_mises import VonMises

__all__ = ["VonMisesFit", "fit_von_mises", "fit_von_mises_batch"]

_LEAST_CONCENTRATION, _LARGEST_CONCENTRATION = 0.1, 100.0
_N_PHASES = 72
_START_CONCENTRATIONS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
# Neurons that are solved side by side: their curves stay in the processor's cache.
_CHUNK = 512


class VonMisesFit(eqx.Module):
    """The best von Mises tuning found for a curve; under ``vmap`` every field gains the batch's axes.

    Attributes:
        tuning: its parameters; amplitudes are ≥ 0, and of two peaks the first is the higher.
        r_squared: 1 − Σ(curve − f)²/Σ(curve − mean)², in [0, 1]; 0 for a curve that is constant.
        status: a `neurojax.convergence.Status` as int32; ``nonfinite`` for a curve that holds NaN.
        n_steps: the steps it took.
    """

    tuning: VonMises
    r_squared: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    n_steps: Int[Array, "*batch"]


def fit_von_mises(
    curve: Real[ArrayLike, " bins"],
    angles_degrees: Real[ArrayLike, " bins"],
    *,
    n_peaks: int = 1,
    period_degrees: float | int = 360,
    tol: float = 1e-3,
    max_steps: int = 40,
) -> VonMisesFit:
    """Fit `von_mises` to one tuning curve by least squares; ``jit`` it for speed.

    Minimises Σ(curve − f)² with amplitudes ≥ 0. Baseline and amplitudes are eliminated in closed form
    (variable projection); damped Newton steps find the preferred angle and the logarithm of the
    concentration, from the best match in a bank of 72 angles × 9 concentrations. The concentration stays
    between 0.1 (a cosine to all intents) and the least of 100 and ln 2/(1 − cos(π/bins)), at which half
    the height is reached half a bin from the peak. A peak is never negative: a trough is fitted by what
    rises round it. Of broad curves, with κ of order 1 or less, baseline and amplitude are ill determined (see
    `VonMises`): compare the curve's values, not these.

    Args:
        curve: the mean response at each angle; batch with ``jax.vmap``, or use `fit_von_mises_batch`.
        angles_degrees: at least 4 angles, or 5 for two peaks, in any order, evenly spaced or not.
        n_peaks: 1, or 2 for a second peak at the opposite direction, of the same width and its own
            amplitude.
        period_degrees: 360 or 180; 360 for two peaks.
        tol: a fit has converged when a Newton step promises to raise R² by less than ½·tol²; > 0.
        max_steps: the most steps, ≥ 1.

    Returns:
        The fit. A constant curve has R² = 0 and amplitude 0; one with NaN has ``Status.nonfinite``.

    Raises:
        ValueError: at trace time, for a curve that is not one-dimensional or real, angles of another
            length or too few, other numbers of peaks and periods; where they are known, for angles that
            are not finite.

    Gradient:
        Preferred angle and concentration are constants; baseline, amplitudes and R² are differentiated
        with respect to the curve at those constants. As R² is at a maximum in the two, its derivative
        is the true one (the envelope theorem).

    Reference:
        Swindale 1998, Biol. Cybern. 78, 45-56; Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413-432
        (variable projection).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.neural_coding import VonMises, fit_von_mises, von_mises
        >>> angles = jnp.arange(0, 360, 10.0)
        >>> curve = von_mises(angles, VonMises(*map(jnp.float32, (40, 3, 1, 2, 0))))
        >>> tuning = jax.jit(fit_von_mises)(curve, angles).tuning
        >>> round(float(tuning.preferred_degrees), 2), round(float(tuning.concentration), 2)
        (40.0, 3.0)
    """
    _check_peaks(n_peaks, period_degrees)
    values, angles = as_curve(curve, angles_degrees, n_peaks)
    mean = jnp.mean(values)
    centred = values - mean
    size = lax.stop_gradient(_size(centred, mean))
    phases = to_phase(angles, period_degrees)
    unit = jnp.where(size == 0, 0, centred / jnp.where(size == 0, 1, size))
    problem = _Misfit(unit, jnp.cos(phases), jnp.sin(phases), n_peaks)
    start = problem.look(_start(problem))
    settings = {"tol": tol, "max_steps": max_steps, "steps_per_check": 4, "gradient": Detached()}
    solution = iterate(_Newton(), problem, start, **settings)
    found = solution.value.value
    amplitudes, bumps, offsets = problem.project(found)
    fitted = product(amplitudes, bumps)
    power = jnp.where(size == 0, 1, jnp.sum(unit**2))
    r_squared = jnp.where(size == 0, 0, 1 - jnp.sum((unit - fitted) ** 2) / power)
    amplitudes = size * amplitudes
    baseline = mean - product(amplitudes, offsets)
    tuning = _tuning(found, amplitudes, baseline, float(period_degrees))
    return VonMisesFit(tuning, r_squared, jnp.asarray(solution.status), jnp.asarray(solution.n_steps))


def fit_von_mises_batch(
    curves: Real[ArrayLike, "neurons bins"],
    angles_degrees: Real[ArrayLike, " bins"],
    *,
    n_peaks: int = 1,
    period_degrees: float | int = 360,
    tol: float = 1e-3,
    max_steps: int = 40,
) -> VonMisesFit:
    """Fit `von_mises` to the tuning curve of each neuron; compiled inside.

    Args:
        curves: one tuning curve a row.
        angles_degrees: as in `fit_von_mises`, the same for all.
        n_peaks: as in `fit_von_mises`.
        period_degrees: as in `fit_von_mises`.
        tol: as in `fit_von_mises`.
        max_steps: as in `fit_von_mises`.

    Returns:
        The fits, each field with a leading axis of neurons.

    Raises:
        ValueError: at trace time, for curves without two axes, and as in `fit_von_mises`.
    """
    curves = real_array("curves", curves, "neurons bins")
    angles = real_array("angles_degrees", angles_degrees)
    check_shape("angles_degrees", angles, curves.shape[1:], "an angle for each bin of a curve")
    check_finite("angles_degrees", angles)
    options = {"n_peaks": n_peaks, "period_degrees": period_degrees, "tol": tol, "max_steps": max_steps}
    return _fit_chunks(curves, angles, options)


@eqx.filter_jit
def _fit_chunks(curves, angles, options) -> VonMisesFit:
    fit = partial(fit_von_mises, angles_degrees=angles, **options)
    # Chunks of one size, filled up with zeros, as a last one of another would be compiled once more.
    n_neurons, n_bins = curves.shape
    n_chunks = max(-(-n_neurons // _CHUNK), 1)
    size = -(-n_neurons // n_chunks)
    filled = jnp.pad(curves, ((0, n_chunks * size - n_neurons), (0, 0)))
    fits = lax.map(jax.vmap(fit), filled.reshape(n_chunks, size, n_bins))
    return jax.tree.map(lambda field: field.reshape(-1)[:n_neurons], fits)


class _Misfit(AbstractProblem):
    """1 − R² as a function of preferred phase (radians) and log concentration; the rest is projected out."""

    curve: Float[Array, " bins"]
    cosines: Float[Array, " bins"]
    sines: Float[Array, " bins"]
    n_peaks: int = eqx.field(static=True)

    @property
    def limits(self):
        """The least and the largest log concentration."""
        return concentration_limits(self.curve.shape[0])

    def bumps(self, value):
        """Return one peak, or two that are opposite: (peaks, bins)."""
        # cos(θ − preferred), without a cosine for each bin.
        cosine = self.cosines * jnp.cos(value[0]) + self.sines * jnp.sin(value[0])
        signs = (1, -1)[: self.n_peaks]
        return jnp.stack([jnp.exp(jnp.exp(value[1]) * (sign * cosine - 1)) for sign in signs])

    def project(self, value):
        """Return the best amplitudes, the peaks minus their means, and those means."""
        bumps = self.bumps(value)
        offsets = jnp.mean(bumps, -1)
        bumps = bumps - offsets[:, None]
        matches = jnp.sum(bumps * self.curve, -1)
        return jnp.stack(_amplitudes(*matches, *_gram(bumps))), bumps, offsets

    def cost(self, value):
        amplitudes, bumps, _ = self.project(value)
        return jnp.sum((self.curve - jnp.sum(amplitudes[:, None] * bumps, 0)) ** 2)

    def look(self, value):
        """Return cost, gradient and a positive form of the Hessian; 0 where a limit is pressed against."""

        def with_cost(value):
            cost, gradient = jax.value_and_grad(self.cost)(value)
            return gradient, (cost, gradient)

        hessian, (cost, gradient) = jax.jacfwd(with_cost, has_aux=True)(value)
        low, high = self.limits
        is_held = jnp.where(gradient[1] > 0, value[1] <= low, value[1] >= high)
        is_free = jnp.array([1, 0], value.dtype) + jnp.where(is_held, 0, 1) * jnp.array([0, 1], value.dtype)
        hessian = hessian * is_free[:, None] * is_free
        return _View(value, cost, gradient * is_free, _positive(hessian))

    def clip(self, value):
        return value.at[1].set(jnp.clip(value[1], *self.limits))

    def fixed_point(self, value):
        """Apply one Newton step to a point and what was seen there."""
        return self.look(self.clip(value.value - _solve(value.curvature, value.gradient)))

    def residual(self, value) -> Scalar:
        """Return √(gᵀH⁻¹g): a Newton step promises to lower 1 − R² by half its square."""
        promise = product(value.gradient, _solve(value.curvature, value.gradient))
        return jnp.sqrt(jnp.maximum(promise, 0))


class _View(NamedTuple):
    """A point and what was seen there: the iterate, so that nothing is looked at twice."""

    value: Array
    cost: Array
    gradient: Array
    curvature: Array


class _Newton(AbstractSolver):
    """Damped Newton steps; a step that does not descend is taken back and damped more."""

    def init(self, problem, value):
        return value, jnp.full((), 1e-2, value.cost.dtype)

    def step(self, problem, state):
        here, damping = state
        damped = here.curvature + jnp.diag(damping * jnp.diagonal(here.curvature))
        there = problem.look(problem.clip(here.value - _solve(damped, here.gradient)))
        # Near the minimum a cost is only known to rounding.
        is_better = there.cost <= here.cost + 2 * jnp.finfo(here.cost.dtype).eps
        after = jax.tree.map(partial(jnp.where, is_better), there, here)
        return after, jnp.clip(jnp.where(is_better, damping / 8, damping * 8), 1e-6, 1e6)

    def value(self, state):
        return state[0]


def _gram(bumps):
    """Return the products of the peaks: one number, or three."""
    if len(bumps) == 1:
        return (jnp.sum(bumps[0] ** 2, -1),)
    return jnp.sum(bumps[0] ** 2, -1), jnp.sum(bumps[0] * bumps[1], -1), jnp.sum(bumps[1] ** 2, -1)


def _amplitudes(first, *rest):
    """Return the least-squares amplitudes ≥ 0, from matches with the curve and products of peaks."""
    if len(rest) == 1:
        return (jnp.maximum(first, 0) / rest[0],)
    second, own_first, shared, own_second = rest
    determinant = own_first * own_second - shared**2
    both = (own_second * first - shared * second) / determinant
    both_opposite = (own_first * second - shared * first) / determinant
    alone, alone_opposite = jnp.maximum(first, 0) / own_first, jnp.maximum(second, 0) / own_second
    is_first_best = alone * first >= alone_opposite * second
    is_inside = (both >= 0) & (both_opposite >= 0)
    return (
        jnp.where(is_inside, both, jnp.where(is_first_best, alone, 0)),
        jnp.where(is_inside, both_opposite, jnp.where(is_first_best, 0, alone_opposite)),
    )


def _start(problem):
    """Return the best match in a bank of peaks."""
    dtype = problem.curve.dtype
    # Of two opposite peaks the other half of the circle would only swap the names.
    phases = np.arange(_N_PHASES) * (2 * np.pi / _N_PHASES) / problem.n_peaks
    log_concentrations = np.clip(np.log(_START_CONCENTRATIONS), *problem.limits)
    bank = jnp.asarray(np.stack([axis.ravel() for axis in np.meshgrid(phases, log_concentrations)], 1), dtype)
    # Without the barrier the compiler evaluates the whole bank while it compiles.
    bank = lax.optimization_barrier(bank)
    bumps = jax.vmap(problem.bumps, out_axes=1)(bank)
    bumps = bumps - jnp.mean(bumps, -1, keepdims=True)
    matches = product(bumps, problem.curve)
    amplitudes = _amplitudes(*matches, *_gram(bumps))
    # At the least-squares solution Σf² = Σ y·f, so this is R².
    explained = sum(amplitude * match for amplitude, match in zip(amplitudes, matches, strict=True))
    return bank[jnp.argmax(explained)]


def _tuning(value, amplitudes, baseline, period):
    """Return physical parameters, the higher peak first."""
    opposite = amplitudes[1] if len(amplitudes) == 2 else jnp.zeros_like(amplitudes[0])
    is_swapped = opposite > amplitudes[0]
    higher, lower = jnp.maximum(amplitudes[0], opposite), jnp.minimum(amplitudes[0], opposite)
    turns = value[0] / (2 * np.pi)
    turns = jnp.where(is_swapped, turns + 0.5, turns)
    preferred = jnp.mod(turns, 1) * period
    preferred = jnp.where(preferred >= period, 0, preferred)
    return VonMises(preferred, jnp.exp(value[1]), baseline, higher, lower, period)


def _positive(matrix):
    """Return the symmetric 2 × 2 matrix with its eigenvalues' absolute values, kept off zero."""
    middle = (matrix[0, 0] + matrix[1, 1]) / 2
    off, half = (matrix[0, 1] + matrix[1, 0]) / 2, (matrix[0, 0] - matrix[1, 1]) / 2
    radius = jnp.sqrt(half**2 + off**2)
    high, low = jnp.abs(middle + radius), jnp.abs(middle - radius)
    ratio = jnp.where(radius > 0, (high - low) / (2 * jnp.where(radius > 0, radius, 1)), 0)
    floor = 1e-3 * jnp.maximum(high, low) + jnp.finfo(matrix.dtype).eps
    rest = jnp.stack([jnp.stack([half, off]), jnp.stack([off, -half])])
    return ((high + low) / 2 + floor) * jnp.eye(2, dtype=matrix.dtype) + ratio * rest


def _solve(matrix, right):
    """Solve a 2 × 2 system."""
    determinant = matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]
    first = matrix[1, 1] * right[0] - matrix[0, 1] * right[1]
    second = matrix[0, 0] * right[1] - matrix[1, 0] * right[0]
    return jnp.stack([first, second]) / determinant


def _size(centred, mean):
    """Return ‖centred‖₂ without overflow, 0 for a curve that is constant to rounding."""
    largest = jnp.max(jnp.abs(centred))
    is_constant = largest <= 8 * jnp.finfo(centred.dtype).eps * jnp.abs(mean)
    safe = jnp.where(is_constant, 1, largest)
    return jnp.where(is_constant, 0, safe * jnp.sqrt(jnp.sum((centred / safe) ** 2)))


def _check_peaks(n_peaks, period_degrees) -> None:
    if n_peaks not in (1, 2):
        raise ValueError(f"n_peaks: expected 1 or 2, got {n_peaks!r}.")
    if period_degrees not in (180, 360):
        raise ValueError(f"period_degrees: expected 180 or 360, got {period_degrees!r}.")
    if n_peaks == 2 and period_degrees != 360:
        raise ValueError(f"period_degrees: expected 360 for two peaks 180° apart, got {period_degrees!r}.")


def as_curve(curve, angles_degrees, n_peaks: int) -> tuple[Array, Array]:
    """Return a curve and its angles in one dtype, single precision at least, or raise ``ValueError``."""
    values = at_least_single(real_array("curve", curve, "bins"))
    angles = real_array("angles_degrees", angles_degrees)
    check_shape("angles_degrees", angles, values.shape, "an angle for each bin of a curve")
    check_finite("angles_degrees", angles)
    if len(values) < 3 + n_peaks:
        raise ValueError(f"angles_degrees: expected at least {3 + n_peaks} angles, got {len(values)}.")
    return values, angles.astype(values.dtype)


def concentration_limits(n_bins: int) -> tuple[float, float]:
    """Return the least and the largest log concentration of a fit."""
    highest = min(np.log(2) / (1 - np.cos(np.pi / n_bins)), _LARGEST_CONCENTRATION)
    return float(np.log(_LEAST_CONCENTRATION)), float(np.log(highest))
