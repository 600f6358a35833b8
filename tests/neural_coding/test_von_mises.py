"""Von Mises tuning: the formula, and fits that recover it, against SciPy and under rotation."""

import equinox as eqx
import jax
import numpy as np
import pytest
from scipy.optimize import least_squares

from neurojax.convergence import Status
from neurojax.neural_coding import VonMises, fit_von_mises, fit_von_mises_batch, von_mises

ANGLES = np.arange(0, 360, 10.0)
KINDS = {"one peak": 1, "two peaks": 2}


def truth(n_peaks, period, n_neurons=64, seed=0):
    """Parameters of neurons with clear peaks, of two the first higher."""
    rng = np.random.default_rng(seed)
    amplitude = rng.uniform(1, 4, n_neurons)
    opposite = amplitude * rng.uniform(0.2, 0.9, n_neurons) * (n_peaks == 2)
    preferred, concentration = rng.uniform(0, period, n_neurons), np.exp(rng.uniform(0, 2.3, n_neurons))
    return VonMises(preferred, concentration, rng.normal(size=n_neurons), amplitude, opposite, period)


def degrees_apart(found, expected, period=360):
    away = np.asarray(found, float) - np.asarray(expected, float)
    return np.abs(np.mod(away + period / 2, period) - period / 2)


def curves_of(tuning, angles):
    """The formula in NumPy: (neurons, bins)."""
    preferred, concentration, baseline, amplitude, opposite = (
        np.asarray(field, np.float64)[:, None]
        for field in (
            tuning.preferred_degrees, tuning.concentration, tuning.baseline, tuning.amplitude,
            tuning.opposite_amplitude,
        )
    )  # fmt: skip
    phase = 2 * np.pi * (angles - preferred) / tuning.period_degrees
    near, far = (np.exp(concentration * (np.cos(phase + turn) - 1)) for turn in (0, np.pi))
    return baseline + amplitude * near + opposite * far


def fit(curves, kind):
    """Fit 64 curves; one shape and one tolerance, compiled once for each kind."""
    return fit_von_mises_batch(curves, ANGLES, n_peaks=KINDS[kind], tol=1e-6)


@jax.jit
def values_of(tuning):
    """Draw the curves of 64 neurons."""
    return jax.vmap(von_mises, (None, 0))(ANGLES, tuning)


@eqx.filter_jit
def fit_and_slope(curve):
    """Fit one curve; with the derivative of R²."""

    def score(curve):
        found = fit_von_mises(curve, ANGLES, tol=1e-6)
        return found.r_squared, found

    slope, found = jax.grad(score, has_aux=True)(curve)
    return found, slope


def test_the_formula(x64):
    tuning = truth(2, 360)
    np.testing.assert_allclose(values_of(tuning), curves_of(tuning, ANGLES), rtol=1e-12)


def test_baseline_and_amplitude_of_broad_and_of_narrow_tuning(x64):
    """The baseline is what a narrow peak leaves; of a cosine it lies far below every response."""
    narrow, broad = (0, 50, 1, 3, 0), (0, 0.1, -8, 11, 0)
    tuning = VonMises(*np.array([narrow] + [broad] * 63, float).T)
    of_narrow, of_broad, *_ = np.asarray(values_of(tuning))
    opposite = np.flatnonzero(ANGLES == 180)
    assert of_narrow[opposite] == pytest.approx(1, abs=1e-12)
    cosine = 2 + np.cos(np.radians(ANGLES))
    np.testing.assert_allclose(of_broad, cosine, atol=0.05)
    assert of_broad[opposite] == pytest.approx(-8 + 11 * np.exp(-0.2))
    found = fit_and_slope(cosine)[0].tuning
    assert float(found.concentration) == pytest.approx(0.1)
    assert float(found.baseline) == pytest.approx(-8, abs=0.05)
    assert float(found.amplitude) == pytest.approx(11, abs=0.05)


@pytest.mark.parametrize("kind", [pytest.param("one peak", marks=pytest.mark.slow), "two peaks"])
def test_noiseless_curves_are_recovered(x64, kind):
    tuning = truth(KINDS[kind], 360)
    found = fit(curves_of(tuning, ANGLES), kind)
    assert np.all(found.status == Status.converged)
    np.testing.assert_allclose(found.r_squared, 1, atol=1e-9)
    assert degrees_apart(found.tuning.preferred_degrees, tuning.preferred_degrees).max() < 1e-3
    for name in ("concentration", "baseline", "amplitude", "opposite_amplitude"):
        np.testing.assert_allclose(
            getattr(found.tuning, name), getattr(tuning, name), atol=1e-3, err_msg=name
        )


def test_noisy_curves_are_recovered_within_the_standard_error(x64):
    """The errors, in units of the asymptotic standard errors of least squares, have mean 0 and variance 1."""
    noise, parameters = 0.05, np.array([100.0, 2.5, 1.0, 2.0, 1.2])

    def curve(values):
        return curves_of(VonMises(*values[:, None]), ANGLES)[0]

    steps = 1e-5 * np.eye(5)
    jacobian = np.stack([curve(parameters + step) - curve(parameters - step) for step in steps], 1) / 2e-5
    expected = noise * np.sqrt(np.diag(np.linalg.inv(jacobian.T @ jacobian)))
    rng = np.random.default_rng(1)
    curves = curve(parameters) + noise * rng.normal(size=(64, len(ANGLES)))
    found = np.stack(jax.tree.leaves(fit(curves, "two peaks").tuning), -1)
    scaled = (found - parameters) / expected
    assert np.abs(scaled.mean(0)).max() < 4 / np.sqrt(64)
    # A variance of n normal numbers has the standard error √(2/n).
    np.testing.assert_allclose(scaled.var(0), 1, atol=4 * np.sqrt(2 / 64))


def best_on_a_grid(curves, n_peaks):
    """Return the least Σ(curve − f)² over a grid of angles and widths, and the parameters there.

    At each point of the grid the amplitudes are the best that are not negative: those of the least squares
    of both peaks, or of either peak alone.
    """
    preferred, log_concentration = np.arange(0, 360, 4.0), np.linspace(np.log(0.1), np.log(100), 30)
    grid = [part.ravel() for part in np.meshgrid(preferred, log_concentration, indexing="ij")]
    phase = np.deg2rad(ANGLES - grid[0][:, None])
    peaks = [np.exp(np.exp(grid[1])[:, None] * (sign * np.cos(phase) - 1)) for sign in (1, -1)[:n_peaks]]
    peaks = np.stack(peaks, 1)
    centred = peaks - peaks.mean(-1, keepdims=True)
    y = curves - curves.mean(1, keepdims=True)
    matches, gram = np.einsum("gpb,nb->ngp", centred, y), centred @ centred.swapaxes(1, 2)
    amplitudes = np.zeros((1 + n_peaks, *matches.shape))
    for peak in range(n_peaks):
        amplitudes[peak, ..., peak] = np.maximum(matches[..., peak] / gram[:, peak, peak], 0)
    if n_peaks == 2:
        both = np.linalg.solve(gram, matches[..., None])[..., 0]
        amplitudes[2] = np.where(np.all(both >= 0, -1, keepdims=True), both, 0)
    saved = 2 * np.sum(amplitudes * matches, -1)
    saved -= np.einsum("cngp,gpq,cngq->cng", amplitudes, gram, amplitudes)
    place = [np.unravel_index(of_one.argmax(), of_one.shape) for of_one in saved.swapaxes(0, 1)]
    points = []
    for n, (choice, g) in enumerate(place):
        weights = amplitudes[choice, n, g]
        points.append([grid[0][g], grid[1][g], np.mean(curves[n] - weights @ peaks[g]), *weights])
    return np.sum(y**2, 1) - saved.max((0, 2)), points


def scipy_cost(curve, start):
    """The least Σ(curve − f)² that SciPy finds from a start, within the same limits."""

    def misfit(p):
        opposite = p[4:] if len(p) == 5 else np.zeros(1)
        return curves_of(VonMises(p[:1], np.exp(p[1:2]), p[2:3], p[3:4], opposite), ANGLES)[0] - curve

    lower = [-np.inf, np.log(0.1) - 1e-9, -np.inf, 0, 0][: len(start)]
    upper = [np.inf, np.log(100) + 1e-9, np.inf, np.inf, np.inf][: len(start)]
    return 2 * least_squares(misfit, start, bounds=(lower, upper), x_scale="jac").cost


@pytest.mark.parametrize("kind", KINDS)
def test_costs_are_those_of_scipy_from_the_best_of_a_grid(x64, kind):
    """In loud noise, from a single start: one curve in thirty may end in another minimum, but a near one."""
    noise = np.random.default_rng(2).normal(size=(64, len(ANGLES)))
    curves = curves_of(truth(KINDS[kind], 360), ANGLES) + noise
    found = fit(curves, kind)
    costs = (1 - np.asarray(found.r_squared)) * np.sum((curves - curves.mean(1, keepdims=True)) ** 2, 1)
    best, starts = best_on_a_grid(curves, KINDS[kind])
    best[:16] = [scipy_cost(*pair) for pair in zip(curves[:16], starts, strict=False)]
    excess = np.sort(costs / best - 1)
    assert excess[-3] < 1e-5 and excess[-1] < 0.05
    # R² and parameters describe the same curve.
    np.testing.assert_allclose(np.sum((curves - curves_of(found.tuning, ANGLES)) ** 2, 1), costs, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_scale_and_offset(x64, kind):
    noise = np.random.default_rng(4).normal(size=(64, len(ANGLES)))
    curves = curves_of(truth(KINDS[kind], 360), ANGLES) + 0.3 * noise
    here = fit(curves, kind).tuning
    there = fit(3 * np.roll(curves, 7, 1) - 5, kind).tuning
    assert degrees_apart(there.preferred_degrees, here.preferred_degrees + 70).max() < 1e-3
    np.testing.assert_allclose(there.concentration, here.concentration, rtol=1e-4)
    np.testing.assert_allclose(there.amplitude, 3 * here.amplitude, rtol=1e-4)
    np.testing.assert_allclose(there.baseline, 3 * here.baseline - 5, atol=1e-3)


def test_a_batch_is_its_fits_one_by_one(x64):
    noise = np.random.default_rng(5).normal(size=(64, len(ANGLES)))
    curves = curves_of(truth(1, 360), ANGLES) + 0.3 * noise
    batch = fit(curves, "one peak")
    for neuron in (0, 31, 63):
        alone, _ = fit_and_slope(curves[neuron])
        for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(batch), strict=True):
            np.testing.assert_allclose(many[neuron], one, rtol=1e-6, atol=1e-9)


def test_orientations_in_single_precision_in_more_than_a_chunk():
    """1030 curves are solved in chunks that are filled up; two of them have no tuning to find."""
    noise, angles = np.random.default_rng(5).normal(size=(1030, len(ANGLES))), ANGLES / 2
    tuning = truth(1, 180, 1030)
    curves = (curves_of(tuning, angles) + 0.1 * noise).astype(np.float32)
    curves[7], curves[8] = 0.1, np.nan
    found = fit_von_mises_batch(curves, angles.astype(np.float32), period_degrees=180)
    usual = np.delete(np.arange(1030), [7, 8])
    status, r_squared = np.asarray(found.status), np.asarray(found.r_squared)
    assert r_squared.shape == (1030,) and r_squared.dtype == np.float32
    assert np.all(status[usual] == Status.converged)
    assert status[7] == Status.converged and r_squared[7] == 0 and status[8] == Status.nonfinite
    left = np.sum((curves - curves_of(found.tuning, angles)) ** 2, 1)
    spread = np.sum((curves - curves.mean(1, keepdims=True)) ** 2, 1)
    np.testing.assert_allclose(r_squared[usual], 1 - left[usual] / spread[usual], atol=1e-5)
    # The truth has 4 parameters that fit no noise: the best fit leaves less than it.
    assert np.all(left[usual] <= np.sum((curves - curves_of(tuning, angles)) ** 2, 1)[usual] * (1 + 1e-5))
    preferred = np.asarray(found.tuning.preferred_degrees)[usual]
    assert np.all((preferred >= 0) & (preferred < 180))
    # The standard error of an angle is about a degree, larger for weak and broad tuning.
    assert np.median(degrees_apart(preferred, tuning.preferred_degrees[usual], 180)) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_constant_missing_and_extreme_curves(x64, kind):
    spike = np.eye(36)[5]
    rows = [np.zeros(36), np.full(36, 0.1), np.full(36, np.nan), spike, 1e-200 * spike, 1e200 * spike, -spike]
    curves = np.zeros((64, 36))
    curves[: len(rows)] = rows
    found = fit(curves, kind)
    status, r_squared = np.asarray(found.status), np.asarray(found.r_squared)
    np.testing.assert_array_equal(status[:3], [Status.converged, Status.converged, Status.nonfinite])
    np.testing.assert_array_equal(r_squared[:2], 0)
    np.testing.assert_array_equal(np.asarray(found.tuning.amplitude)[:2], 0)
    np.testing.assert_allclose(np.asarray(found.tuning.baseline)[:2], [0, 0.1], rtol=1e-6)
    assert np.isnan(r_squared[2]) and np.all(status[3:] != Status.nonfinite)
    assert r_squared[3] > 0.5
    np.testing.assert_allclose(r_squared[4:6], r_squared[3], rtol=1e-6)
    assert np.all((r_squared[3:] >= 0) & (r_squared[3:] <= 1))


def test_derivatives_of_r_squared(x64):
    """Finite differences of whole fits: R² is at a maximum in the parameters that are held constant."""
    curve = curves_of(truth(1, 360, 1), ANGLES)[0] + 0.3 * np.random.default_rng(6).normal(size=36)
    slope = np.asarray(fit_and_slope(curve)[1])
    for bin_ in (0, 20):
        move = 1e-4 * np.eye(36)[bin_]
        above, below = (float(fit_and_slope(curve + sign * move)[0].r_squared) for sign in (1, -1))
        assert slope[bin_] == pytest.approx((above - below) / 2e-4, abs=1e-6)
    assert np.isfinite(fit_and_slope(np.ones(36))[1]).all()


def test_bad_arguments(untyped):
    six = {"curve": np.ones(6), "angles_degrees": np.arange(0, 360, 60.0)}
    for arguments, message in (
        ({"n_peaks": 3}, "n_peaks: expected 1 or 2, got 3"),
        ({"period_degrees": 90}, "period_degrees: expected 180 or 360, got 90"),
        ({"n_peaks": 2, "period_degrees": 180}, "period_degrees: expected 360 for two peaks"),
        ({"angles_degrees": np.arange(5.0)}, r"angles_degrees: expected shape \(6,\)"),
        ({"angles_degrees": np.full(6, np.inf)}, "angles_degrees: expected finite numbers, got 6"),
        ({"curve": np.ones(3), "angles_degrees": np.ones(3)}, "expected at least 4 angles, got 3"),
        ({"curve": np.ones(6, complex)}, "curve: expected real numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_von_mises(**(six | arguments))
