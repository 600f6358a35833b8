"""Gabor fits against known Gabors, against SciPy's least squares, and against the FFT."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.optimize import least_squares

from neurojax import receptive_fields as rf
from neurojax.convergence import Status
from neurojax.receptive_fields._errors import standard_errors
from neurojax.receptive_fields._fit import physical
from neurojax.receptive_fields._gabor import pixel_grid, quadrature_pair
from neurojax.receptive_fields._projection import Projection, bounds

SHAPE = (12, 10)
N_KNOWN, N_NOISY = 8, 5
ZERO, CONSTANT, NAN, NEGATED, SCALED, FAINT, BAR = range(N_KNOWN, N_KNOWN + 7)
BAR_AT_45 = np.eye(*SHAPE)[::-1]  # from bottom left to top right, as drawn


@jax.jit
def draw(parameters):
    return rf.gabor_batch(parameters, SHAPE)


def known_gabors(dtype):
    rng = np.random.default_rng(3)
    ranges = [(3, 8), (3, 6), (0, 180), (0.12, 0.35), (1.2, 2.2), (1.2, 3), (-180, 180), (0.5, 2)]
    return rf.Gabor(
        *(jnp.asarray(rng.uniform(low, high, 12)[:N_KNOWN].astype(dtype)) for low, high in ranges)
    )


@cache
def make_atoms(dtype):
    atoms = np.asarray(draw(known_gabors(dtype)))
    special = np.stack(
        [
            np.zeros(120),
            np.full(120, 0.3),
            np.full(120, np.nan),
            -atoms[0],
            1e22 * atoms[1],
            1e-24 * atoms[1],
            BAR_AT_45.reshape(-1),
        ]
    )
    return np.concatenate([atoms, special.astype(dtype)])


@pytest.fixture(scope="module")
def fits_and_gradient():
    """The fits, and the gradient of each atom's R² with respect to that atom."""

    def total(atoms):
        fits = rf.fit_gabor_batch(atoms, SHAPE)
        return jnp.sum(fits.r_squared), fits

    (_, fits), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(make_atoms(np.float32))
    return fits, np.asarray(gradient)


@pytest.fixture(scope="module")
def fits(fits_and_gradient):
    return fits_and_gradient[0]


def angle_between(a, b, period):
    return np.abs((np.asarray(a) - np.asarray(b) + period / 2) % period - period / 2)


def gabor_by_loops(p, shape):
    """Write the documented formula out, pixel by pixel."""
    image = np.zeros(shape)
    theta, phase = np.deg2rad(p["orientation"]), np.deg2rad(p["phase"])
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = row - p["row"], column - p["column"]
            u, w = y * np.cos(theta) + x * np.sin(theta), x * np.cos(theta) - y * np.sin(theta)
            envelope = np.exp(-(u**2) / (2 * p["width_across"] ** 2) - w**2 / (2 * p["width_along"] ** 2))
            image[row, column] = p["amplitude"] * envelope * np.cos(2 * np.pi * p["frequency"] * u + phase)
    return image


def test_gabor_is_the_documented_formula(x64):
    p = {"row": 4.2, "column": 6.1, "orientation": 25.0, "frequency": 0.17}
    p |= {"width_across": 1.7, "width_along": 2.9, "phase": 70.0, "amplitude": 1.3}
    parameters = rf.Gabor(**{k: jnp.asarray(v) for k, v in p.items()})
    drawn = jax.jit(lambda parameters: rf.gabor(parameters, (9, 11)))(parameters)
    np.testing.assert_allclose(drawn, gabor_by_loops(p, (9, 11)), atol=1e-12)


def test_orientation_is_that_of_the_bars_counter_clockwise_as_drawn(fits):
    assert float(fits.gabor.orientation[BAR]) == pytest.approx(45, abs=1)
    assert float(rf.aspect_ratio(fits.gabor)[BAR]) > 2


def test_ranges_of_orientation_and_phase():
    """Any angle that iteration ends at, and any phase: stated in range, and still the same picture."""
    degrees = [-720, -190, -180, -1e-7, 0, 1e-7, 90, 180, 359.99, 1000]
    quadratures = [[0.0, 1.0], [-1.0, 0.0], [-1.0, -0.0], [0.6, 0.8]]

    @jax.jit
    @jax.vmap
    def state(angle, weights):
        value = jnp.array([5, 4, angle, jnp.log(0.2), jnp.log(1.5), jnp.log(2)])
        cosine, sine = quadrature_pair(value, pixel_grid(SHAPE, jnp.float32))
        stated = physical(value, weights)
        return stated, rf.gabor(stated, SHAPE).reshape(-1), weights[0] * cosine + weights[1] * sine

    angles = np.repeat(np.deg2rad(degrees), len(quadratures)).astype(np.float32)
    stated, drawn, expected = state(angles, np.tile(np.float32(quadratures), (len(degrees), 1)))
    assert np.all((stated.orientation >= 0) & (stated.orientation < 180))
    assert np.all((stated.phase > -180) & (stated.phase <= 180))
    np.testing.assert_allclose(drawn, expected, atol=1e-4)


def test_known_parameters_are_found(fits):
    truth = known_gabors(np.float32)
    assert np.all(np.asarray(fits.r_squared[:N_KNOWN]) > 0.9999)
    assert np.all(np.asarray(fits.status[:N_KNOWN]) == Status.converged)
    for name in ("row", "column", "frequency", "width_across", "width_along", "amplitude"):
        found = np.asarray(getattr(fits.gabor, name))[:N_KNOWN]
        np.testing.assert_allclose(found, getattr(truth, name), rtol=0.01, err_msg=name)
    assert angle_between(fits.gabor.orientation[:N_KNOWN], truth.orientation, 180).max() < 0.5
    assert angle_between(fits.gabor.phase[:N_KNOWN], truth.phase, 360).max() < 1


def test_the_parameters_draw_the_fit_that_r_squared_judges(fits):
    atoms = make_atoms(np.float32)[:N_KNOWN]
    known = jax.tree.map(lambda field: np.asarray(field)[:N_KNOWN], fits)
    residual = atoms - np.asarray(draw(known.gabor))
    spread = np.sum((atoms - atoms.mean(1, keepdims=True)) ** 2, 1)
    np.testing.assert_allclose(known.r_squared, 1 - np.sum(residual**2, 1) / spread, atol=1e-5)


@cache
def fit_noisy(change=0.0):
    """Fit atoms in noise to double precision, all changed by ``change`` times one random direction."""
    rng = np.random.default_rng(1)
    noise, direction = rng.standard_normal((2, 12, 120))[:, :N_KNOWN]
    truth = known_gabors(np.float64)
    atoms = (np.asarray(draw(truth)) + 0.15 * noise + change * direction)[:N_NOISY]
    fits = rf.fit_gabor_batch(atoms, SHAPE, tol=1e-7, max_steps=200)
    assert np.all(np.asarray(fits.status) == Status.converged)
    return truth, atoms, direction[:N_NOISY], fits


def test_more_starts_find_better_fits_of_noise():
    noise = np.random.default_rng(5).standard_normal((N_KNOWN, SHAPE[0] * SHAPE[1])).astype(np.float32)
    one, four = (np.asarray(rf.fit_gabor_batch(noise, SHAPE, n_starts=n).r_squared) for n in (1, 4))
    assert np.all(four > one - 1e-5)
    assert np.sum(four > one + 0.01) >= N_KNOWN / 4


@pytest.mark.slow
def test_noisy_atoms_reach_the_minimum_that_scipy_finds_from_the_truth(x64):
    truth, atoms, _, fits = fit_noisy()
    names = list(vars(truth))
    for i, atom in enumerate(atoms):

        def misfit(p, atom=atom):
            return gabor_by_grid(p) - atom

        start = np.array([float(getattr(truth, name)[i]) for name in names])
        best = least_squares(misfit, start, x_scale=np.abs(start) + 0.1)
        assert best.success
        found = np.array([float(getattr(fits.gabor, name)[i]) for name in names])
        cost = np.sum(misfit(found) ** 2)
        assert cost <= 2 * best.cost * (1 + 1e-6), (i, cost, 2 * best.cost)
        lower = 0.5, 0.5
        assert np.all(found[4:6] >= lower) and np.all(found[4:6] <= 12 + 1e-9)


def gabor_by_grid(p):
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    theta = np.deg2rad(p[2])
    y, x = rows - p[0], columns - p[1]
    u, w = y * np.cos(theta) + x * np.sin(theta), x * np.cos(theta) - y * np.sin(theta)
    envelope = np.exp(-(u**2) / (2 * p[4] ** 2) - w**2 / (2 * p[5] ** 2))
    return (p[7] * envelope * np.cos(2 * np.pi * p[3] * u + np.deg2rad(p[6]))).reshape(-1)


def test_sign_and_scale_change_phase_and_amplitude_alone(fits):
    gabor = fits.gabor
    assert angle_between(gabor.phase[NEGATED], gabor.phase[0] + 180, 360) < 1e-2
    assert float(gabor.amplitude[SCALED] / gabor.amplitude[1]) == pytest.approx(1e22, rel=1e-4)
    assert float(gabor.amplitude[FAINT] / gabor.amplitude[1]) == pytest.approx(1e-24, rel=1e-4)
    for name in ("row", "column", "orientation", "frequency", "width_across", "width_along"):
        field = np.asarray(getattr(gabor, name))
        changed, same = field[[NEGATED, SCALED, FAINT]], field[[0, 1, 1]]
        np.testing.assert_allclose(changed, same, rtol=1e-3, err_msg=name)


def test_empty_atoms_are_harmless_and_nan_stays_alone(fits):
    assert float(fits.r_squared[ZERO]) == 0 and float(fits.gabor.amplitude[ZERO]) == 0
    assert float(fits.r_squared[CONSTANT]) == 0
    assert int(fits.status[NAN]) == Status.nonfinite and np.isnan(fits.r_squared[NAN])
    others = np.arange(len(fits.status)) != NAN
    for name in vars(fits.gabor):
        assert np.all(np.isfinite(np.asarray(getattr(fits.gabor, name))[others])), name


def r_squared_gradient(atom, fitted):
    """Differentiate R² with the Gabor function held fixed."""
    deviation = atom - atom.mean()
    error, spread = np.sum((atom - fitted) ** 2), np.sum(deviation**2)
    return -2 * (atom - fitted) / spread + 2 * error * deviation / spread**2


@pytest.mark.slow
def test_the_derivative_of_r_squared_needs_no_derivative_of_the_parameters(x64):
    _, atoms, direction, fits = fit_noisy()
    size = 1e-5
    r_squared = [np.asarray(fit_noisy(change)[3].r_squared) for change in (-size, size)]
    measured = (r_squared[1] - r_squared[0]) / (2 * size)
    fitted = [gabor_by_grid(p) for p in np.stack(jax.tree.leaves(fits.gabor), 1)]
    claimed = [
        r_squared_gradient(*pair) @ along for *pair, along in zip(atoms, fitted, direction, strict=True)
    ]
    np.testing.assert_allclose(measured, claimed, rtol=1e-4, atol=1e-6)


def test_r_squared_is_differentiated_at_constant_parameters(fits_and_gradient):
    fits, gradient = fits_and_gradient
    atom = make_atoms(np.float32)[BAR]
    expected = r_squared_gradient(atom, np.asarray(draw(fits.gabor))[BAR])
    np.testing.assert_allclose(gradient[BAR], expected, atol=1e-4)
    assert np.max(np.abs(expected)) > 0.01
    assert np.all(np.isfinite(gradient[[ZERO, CONSTANT]]))


def test_gabor_share_counts_atoms_at_the_threshold_and_not_nan():
    gabor = jax.tree.map(lambda field: field[:4], known_gabors(np.float32))
    r_squared = jnp.array([0.7, 0.69, 0.95, jnp.nan])
    fits = rf.GaborFit(gabor, r_squared, jnp.zeros(4, int), jnp.zeros(4, int))
    assert rf.gabor_share(fits, 0.69) == 0.75
    assert rf.gabor_share(fits, 0.9) == 0.25


def test_a_blob_is_described_but_not_gabor_like():
    rows, columns = np.mgrid[:12, :10]
    blob = np.exp(-((rows - 5) ** 2 + (columns - 5) ** 2) / 8)
    atoms = np.stack([blob.reshape(-1), *np.asarray(make_atoms(np.float32))[: N_KNOWN + 6]])
    fits = rf.fit_gabor_batch(atoms.astype(np.float32), SHAPE)
    assert fits.r_squared[0] > 0.99
    np.testing.assert_array_equal(rf.is_gabor_like(fits)[: N_KNOWN + 1], [False] + N_KNOWN * [True])


def least_squares_errors(parameters, atom):
    """Standard errors by SciPy's Jacobian, taken by differences in the stated parameters."""
    found = least_squares(lambda p: gabor_by_grid(p) - atom, parameters, max_nfev=1, jac="3-point")
    variance = np.sum((gabor_by_grid(parameters) - atom) ** 2) / (len(atom) - 8)
    return np.sqrt(variance * np.diag(np.linalg.inv(found.jac.T @ found.jac)))


@jax.jit
def state_errors(atom, value, weights):
    problem = Projection(atom, *pixel_grid(SHAPE, float), *bounds(SHAPE, float))
    return standard_errors(problem, value, weights), physical(value, weights)


def test_standard_errors_are_those_of_scipys_jacobian(x64):
    rng = np.random.default_rng(2)
    value = jnp.array([5.2, 4.1, 2.0, np.log(0.2), np.log(1.5), np.log(2.2)])
    weights = jnp.array([0.6, -0.3])
    atom = 0.1 * rng.standard_normal(120)
    stated = np.stack(jax.tree.leaves(physical(value, weights)))
    atom += gabor_by_grid(stated)
    errors, _ = state_errors(atom, value, weights)
    np.testing.assert_allclose(jax.tree.leaves(errors), least_squares_errors(stated, atom), rtol=1e-5)
    held = value.at[3].set(bounds(SHAPE, float)[1][3])
    errors, stated = state_errors(atom, held, weights)
    stated = np.stack(jax.tree.leaves(stated))
    jacobian = least_squares(lambda p: gabor_by_grid(p), stated, max_nfev=1, jac="3-point").jac
    free = np.arange(8) != 3
    expected = np.linalg.inv(jacobian[:, free].T @ jacobian[:, free])
    variance = np.sum((gabor_by_grid(stated) - atom) ** 2) / (120 - 7)
    assert np.isnan(errors.frequency)
    np.testing.assert_allclose(
        np.array(jax.tree.leaves(errors))[free], np.sqrt(variance * np.diag(expected)), rtol=1e-5
    )


def test_standard_errors_of_a_fit_are_in_the_unit_of_the_atom(fits):
    errors = fits.standard_errors
    np.testing.assert_allclose(errors.amplitude[SCALED] / errors.amplitude[1], 1e22, rtol=0.5)
    for name, error in vars(errors).items():
        known = np.asarray(error)[:N_KNOWN]
        assert np.all(known >= 0) and np.all(known < 0.01 * (180 if name in ("phase", "orientation") else 3))
        assert np.isnan(error[NAN])
    assert np.isnan(errors.phase[ZERO])


@pytest.mark.slow
def test_standard_errors_cover_the_truth_of_redrawn_atoms():
    truth = known_gabors(np.float32)
    n_redrawn = 120
    clean = np.repeat(np.asarray(draw(truth)), n_redrawn, axis=0)
    noise = np.random.default_rng(7).standard_normal(clean.shape)
    fits = rf.fit_gabor_batch((clean + 0.05 * noise).astype(np.float32), SHAPE, tol=1e-4, max_steps=200)
    quantile = scipy.stats.t.ppf(0.975, SHAPE[0] * SHAPE[1] - 8)
    for name in vars(truth):
        found, error, right = (
            np.asarray(getattr(tree, name)) for tree in (fits.gabor, fits.standard_errors, truth)
        )
        right = np.repeat(right, n_redrawn)
        period = {"orientation": 180, "phase": 360}.get(name, np.inf)
        off = angle_between(found, right, period) if np.isfinite(period) else np.abs(found - right)
        is_free = np.isfinite(error)
        assert np.mean(is_free) > 0.95
        assert 0.92 < np.mean(off[is_free] <= quantile * error[is_free]) < 0.98, name


def test_a_good_fit_is_like_a_gabor_function_only_with_half_a_period_under_its_envelope():
    # Over ±2 standard deviations a grating of n_x = 1/8 runs from −90° to 90°: the even one just reaches 0.
    frequency = jnp.array([0.2, 0.0626, 0.0624, 0.01, 0.2])
    ones = jnp.ones(5)
    gabor = rf.Gabor(5 * ones, 5 * ones, 30 * ones, frequency, 2 * ones, 3 * ones, 0 * ones, ones)
    fits = rf.GaborFit(gabor, jnp.array([0.9, 0.8, 0.9, 0.95, 0.6]), jnp.zeros(5, int), jnp.zeros(5, int))
    assert rf.is_gabor_like(fits).tolist() == [True, True, False, False, False]
    assert rf.is_gabor_like(fits, 0.5, least_cycles=0).all()
    assert rf.gabor_share(fits) == 0.4 and rf.gabor_share(fits, 0.85) == 0.2
    summary = rf.gabor_summary(fits)
    assert (summary["share"], summary["edge_share"]) == (0.4, 0.4)
    assert summary["frequency"] == pytest.approx(0.1313), "the median over those that count"
    along = np.exp(-(np.linspace(-2, 2, 401) ** 2) / 2) * np.cos(2 * np.pi * np.linspace(-4, 4, 401) / 16)
    assert along[0] == pytest.approx(0, abs=1e-12) and np.all(along[1:-1] > 0)
    with pytest.raises(ValueError, match="least_cycles: expected a number ≥ 0, got -1"):
        rf.is_gabor_like(fits, least_cycles=-1)


def half_height_widths(image, frequency):
    """Measure the amplitude spectrum of a horizontal-bar Gabor: octaves along f, degrees across it."""
    spectrum = np.abs(np.fft.fft2(image, (1024, 1024)))
    peak = round(frequency * 1024)
    line = spectrum[: 1024 // 2, 0]
    above = np.flatnonzero(line >= line[peak] / 2)
    octaves = np.log2(above[-1] / above[0])
    across = np.flatnonzero(spectrum[peak, :512] >= spectrum[peak, 0] / 2)[-1]
    return octaves, 2 * np.rad2deg(np.arctan(across / peak))


@jax.jit
def describe(gabor):
    return {
        "octaves": rf.frequency_bandwidth(gabor),
        "degrees": rf.orientation_bandwidth(gabor),
        "cycles": jnp.stack(rf.envelope_cycles(gabor)),
        "aspect ratio": rf.aspect_ratio(gabor),
    }


def test_bandwidths_are_those_of_the_drawn_spectrum():
    values = (31.5, 31.5, 0, 0.2, 3, 5, 0, 1)
    gabor = rf.Gabor(*(jnp.asarray(v, jnp.float32) for v in values))
    octaves, degrees = half_height_widths(
        np.asarray(jax.jit(rf.gabor, static_argnums=1)(gabor, (64, 64))), 0.2
    )
    found = {name: np.asarray(value) for name, value in describe(gabor).items()}
    assert found["octaves"] == pytest.approx(octaves, abs=0.03)
    assert found["degrees"] == pytest.approx(degrees, abs=0.5)
    assert found["cycles"].tolist() == pytest.approx([0.6, 1.0])
    assert found["aspect ratio"] == pytest.approx(5 / 3)


def test_a_low_pass_filter_has_infinite_bandwidth():
    gabor = rf.Gabor(*(jnp.asarray(v, jnp.float32) for v in (5, 5, 0, 0.05, 2, 2, 0, 1)))
    assert np.isposinf(describe(gabor)["octaves"])


def test_the_summary_takes_medians_over_described_atoms(fits):
    known = jax.tree.map(lambda field: field[: N_KNOWN + 1], fits)  # the last is the atom of zeros
    summary = rf.gabor_summary(known)
    assert summary["share"] == pytest.approx(N_KNOWN / (N_KNOWN + 1))
    assert summary["frequency"] == pytest.approx(float(np.median(known.gabor.frequency[:N_KNOWN])))
    nothing = rf.gabor_summary(jax.tree.map(lambda field: field[np.full(N_KNOWN + 1, ZERO)], fits))
    assert nothing["share"] == 0 and np.isnan(nothing["aspect_ratio"])


def test_bad_arguments_are_named(untyped):
    three = np.zeros((3, 120), np.float32)
    for atoms, shape, message in (
        (three, (11, 10), r"atoms: expected 110 features \(patch_shape 11 x 10\)"),
        (three[0], SHAPE, r"atoms: expected 2 axes .*, got shape \(120,\)"),
        (three.astype(complex), SHAPE, "atoms: expected real numbers, got dtype complex"),
        (three[:, :9], (3, 3), r"patch_shape: expected at least 4 x 4 pixels .*\(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            rf.fit_gabor_batch(atoms, shape)
    with pytest.raises(ValueError, match=r"column: expected shape \(3,\), as row, got shape \(3, 1\)"):
        rf.Gabor(np.ones(3), np.ones((3, 1)), *np.ones((6, 3)))
    for n_starts in (0, 41):
        with pytest.raises(ValueError, match=f"n_starts: expected .* got {n_starts}"):
            rf.fit_gabor_batch(three, SHAPE, n_starts=n_starts)
