"""Tuning curves and their figures, against NumPy and under rotation."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.neural_coding import (
    AngleBins,
    bin_responses,
    circular_smooth,
    circular_variance,
    direction_selectivity,
    orientation_selectivity,
    peak_angle,
    preferred_direction,
    preferred_orientation,
    tuning_curves,
)

RNG = np.random.default_rng(0)
ANGLES = np.arange(0, 360, 15.0)
CURVES = RNG.gamma(2, 1, (5, 24))
FIGURES = {
    "circular variance": circular_variance,
    "direction selectivity": direction_selectivity,
    "orientation selectivity": orientation_selectivity,
    "preferred direction": preferred_direction,
    "preferred orientation": preferred_orientation,
    "peak": peak_angle,
    "circular variance of directions": partial(circular_variance, period_degrees=360),
    "orthogonal within 180°": lambda curves, angles: orientation_selectivity(curves, angles / 2, 180),
}
bin_quickly = jax.jit(bin_responses)


@jax.jit
def figures_of(curves, angles):
    """All figures of five curves of 24 bins, in one program."""
    return {name: figure(curves, angles) for name, figure in FIGURES.items()}


@jax.jit
def smooth_widths(curve, widths):
    return jax.vmap(circular_smooth, (None, 0))(curve, widths)


def test_means_by_bin_against_numpy(x64):
    angles, responses = RNG.uniform(-400, 800, 100), RNG.normal(size=(100, 3))
    bins = AngleBins(7, 180)
    index = np.floor(np.mod(angles, 180) / (180 / 7)).astype(int)
    expected = np.stack([responses[index == k].mean(0) for k in range(7)])
    binned = bin_quickly(responses, angles, bins)
    np.testing.assert_allclose(binned.responses, expected, rtol=1e-12)
    np.testing.assert_array_equal(binned.n_trials, np.bincount(index, minlength=7))
    np.testing.assert_allclose(binned.angles_degrees, (np.arange(7) + 0.5) * 180 / 7)
    np.testing.assert_allclose(jax.jit(tuning_curves)(responses, angles, bins), expected.T, rtol=1e-12)


def test_empty_bins_are_nan_and_nan_stays_in_its_bin():
    responses, angles = np.float32([[1, np.nan], [2, 1]]), np.float32([10, 100])

    @jax.jit
    def curves_and_slope(responses):
        def total(responses):
            curves = tuning_curves(responses, angles, AngleBins(4))
            return jnp.nansum(curves), curves

        return jax.grad(total, has_aux=True)(responses)

    curves = curves_and_slope(responses)[1]
    np.testing.assert_array_equal(curves, [[1, 2, np.nan, np.nan], [np.nan, 1, np.nan, np.nan]])
    np.testing.assert_array_equal(curves_and_slope(np.ones((2, 2), np.float32))[0], np.ones((2, 2)))


def test_trials_without_an_angle():
    responses, bins = np.float32([[1], [3], [100]]), AngleBins(2)
    for broken in (np.nan, np.inf):
        angles = np.float32([10, 200, broken])
        for function in (bin_responses, tuning_curves):
            with pytest.raises(ValueError, match="angles_degrees: expected finite numbers, got 1"):
                function(responses, angles, bins)
        binned = bin_quickly(responses, angles, bins)
        np.testing.assert_array_equal(binned.responses, [[1], [3]])
        np.testing.assert_array_equal(binned.n_trials, [1, 1])


def test_counts_are_responses(x64):
    counts, angles = np.array([[1], [2], [4], [7]]), np.array([0, 10, 45, 90])
    binned = bin_quickly(counts, angles, AngleBins(8, 360))
    np.testing.assert_array_equal(binned.angles_degrees, 22.5 + 45 * np.arange(8))
    np.testing.assert_array_equal(binned.responses[:3, 0], [1.5, 4, 7])
    curves, angles = RNG.poisson(3, (5, 24)), 15 * np.arange(24)
    of_counts, expected = (figures_of(c, a) for c, a in ((curves, angles), (1.0 * curves, ANGLES)))
    for name in FIGURES:
        np.testing.assert_array_equal(of_counts[name], expected[name], err_msg=name)
    assert np.all(np.asarray(circular_smooth(np.eye(4, dtype=int)[0], 0.7)) > 0)


def test_lengths_must_match(untyped):
    with pytest.raises(ValueError, match="angles_degrees: expected 3 trials"):
        tuning_curves(jnp.zeros((3, 2)), jnp.zeros(2), AngleBins(4))


def test_smoothing_is_a_wrapped_gaussian(x64):
    curve, widths = RNG.normal(size=(2, 12)), np.array([0.3, 2.0, 11.0, 1000.0])
    smooth = np.asarray(smooth_widths(curve, widths))
    rotated = np.asarray(smooth_widths(np.roll(curve, 5, -1), widths))
    np.testing.assert_allclose(rotated, np.roll(smooth, 5, -1), atol=1e-12)
    # Independently: the kernel's periodic sum over so many turns that none is missed.
    steps = np.arange(-20_004, 20_004)
    for found, width in zip(smooth, widths, strict=True):
        weights = np.bincount(steps % 12, np.exp(-(steps**2) / (2 * width**2)), 12)
        weights /= weights.sum()
        expected = np.stack([sum(weights[d] * np.roll(row, d) for d in range(12)) for row in curve])
        np.testing.assert_allclose(found, expected, atol=1e-7, err_msg=f"width {width}")
        np.testing.assert_allclose(found.mean(-1), curve.mean(-1), atol=1e-12, err_msg=f"width {width}")


def test_width_must_be_positive():
    with pytest.raises(ValueError, match="width_bins: expected a number > 0"):
        circular_smooth(jnp.zeros(4), 0)


def test_preferred_angle_is_that_of_the_vector_sum(x64):
    for period, name in ((360, "preferred direction"), (180, "preferred orientation")):
        vectors = CURVES @ np.exp(2j * np.pi * ANGLES / period)
        expected = np.mod(np.angle(vectors) * period / (2 * np.pi), period)
        np.testing.assert_allclose(figures_of(CURVES, ANGLES)[name], expected, atol=1e-9)
        # A constant (z-scores) changes nothing; rotating the angles rotates the answer.
        np.testing.assert_allclose(figures_of(CURVES - 3, ANGLES)[name], expected, atol=1e-9)
        turned = figures_of(CURVES, ANGLES + 50)[name]
        np.testing.assert_allclose(turned, np.mod(expected + 50, period), atol=1e-9)
    alone = [float(preferred_direction(curve, ANGLES)) for curve in CURVES[:2]]
    np.testing.assert_allclose(alone, figures_of(CURVES, ANGLES)["preferred direction"][:2], atol=1e-9)


def test_peak(x64):
    curves = CURVES.copy()
    curves[2, 7] = np.nan
    expected = np.where(np.arange(5) == 2, np.nan, ANGLES[CURVES.argmax(-1)])
    np.testing.assert_array_equal(figures_of(curves, ANGLES)["peak"], expected)


def test_selectivity_against_numpy(x64):
    peak, found = CURVES.argmax(-1), figures_of(CURVES, ANGLES)
    at = lambda shift: CURVES[np.arange(5), (peak + shift) % 24]  # noqa: E731
    orthogonal = (at(6) + at(-6)) / 2
    expected = (at(0) - orthogonal) / (at(0) + orthogonal)
    np.testing.assert_allclose(found["orientation selectivity"], expected, rtol=1e-12)
    expected = (at(0) - at(12)) / (at(0) + at(12))
    np.testing.assert_allclose(found["direction selectivity"], expected, rtol=1e-12)
    # The same curves over orientations: 24 bins in 180°, of which 12 are 90°.
    np.testing.assert_allclose(found["orthogonal within 180°"], expected, rtol=1e-12)


def test_selectivity_between_bins_is_interpolated():
    curve, angles = np.float32([5, 1, 2]), np.float32([0, 120, 240])
    assert float(jax.jit(direction_selectivity)(curve, angles)) == pytest.approx((5 - 1.5) / 6.5)


def test_circular_variance(x64):
    one, flat = np.tile(np.eye(24)[3], (5, 1)), np.ones((5, 24))
    for period, name in ((180, "circular variance"), (360, "circular variance of directions")):
        expected = 1 - np.abs(CURVES @ np.exp(2j * np.pi * ANGLES / period)) / CURVES.sum(-1)
        np.testing.assert_allclose(figures_of(CURVES, ANGLES)[name], expected, rtol=1e-12)
        np.testing.assert_allclose(figures_of(one, ANGLES)[name], 0, atol=1e-12)
        np.testing.assert_allclose(figures_of(flat, ANGLES)[name], 1, atol=1e-12)


def test_indices_of_negative_silent_and_missing_responses_are_nan(x64):
    curves = np.stack([CURVES[0] - 2, np.zeros(24), np.full(24, np.nan), *CURVES[:2]])
    found = figures_of(curves, ANGLES)
    for name in ("circular variance", "direction selectivity", "orientation selectivity"):
        np.testing.assert_array_equal(np.isnan(found[name]), [True, True, True, False, False], err_msg=name)


def test_gradients_are_finite():
    def variance(curves):
        return jnp.nansum(circular_variance(curves, ANGLES))

    def total(curves):
        parts = direction_selectivity, orientation_selectivity, preferred_direction
        return variance(curves) + jnp.nansum(jnp.stack([part(curves, ANGLES) for part in parts]))

    # The variance alone needs no direction.
    slopes = jax.jit(lambda curves: (jax.grad(total)(curves), jax.grad(variance)(curves)))
    curves = np.float32(CURVES)
    assert np.isfinite(slopes(curves)[0]).all()
    silent = np.concatenate([np.zeros((1, 24), np.float32), curves[1:]])
    assert np.isfinite(slopes(silent)[1]).all()


@pytest.mark.parametrize("period", [360, 180])
def test_a_closed_circle_is_a_circle(period):
    """The first angle again at the end, in float32, in integers, and turned."""
    figures = {360: preferred_direction, 180: preferred_orientation}
    for start in (0.0, -180.0, 33.0):
        angles = start + np.linspace(0, period, 9)
        curve = 2 + np.cos(2 * np.pi * (angles - 60) / period)
        found = float(figures[period](np.float32(curve), np.float32(angles)))
        assert found == pytest.approx(60, abs=1e-3), start
        open_one = circular_variance(curve[:-1], angles[:-1], period)
        assert float(circular_variance(curve, angles, period)) == pytest.approx(float(open_one), abs=1e-6)
    # Directions with a closing angle, read as orientations: 0°, 180° and 360° are one orientation.
    angles = np.linspace(0, 360, 17)
    curve = 2 + np.cos(2 * np.deg2rad(angles - 60)) + 0.5 * np.cos(np.deg2rad(angles - 10))
    assert float(preferred_orientation(curve, angles)) == pytest.approx(60, abs=1e-3)
    assert float(direction_selectivity(curve, angles)) == pytest.approx(
        float(direction_selectivity(curve[:-1], angles[:-1])), abs=1e-6
    )


def test_repeated_angles_count_once_with_their_mean():
    angles = np.float32([0, 0, 0, 90, 180, 270])
    curve = np.float32([1, 2, 6, 5, 1, 0])
    expected = preferred_direction(np.float32([3, 5, 1, 0]), np.float32([0, 90, 180, 270]))
    assert float(preferred_direction(curve, angles)) == pytest.approx(float(expected), abs=1e-4)


def test_angles_that_are_no_whole_circle_are_refused():
    curve = np.ones(8, np.float32)
    sums = (preferred_direction, partial(circular_variance, period_degrees=360), direction_selectivity)
    for figure in (*sums, orientation_selectivity):
        half, radians = np.arange(8) * 22.5, np.arange(8) * np.pi / 4
        for angles in (half, radians, np.array([0, 45, 90, 135, 180, 225, 270, 330.0])):
            with pytest.raises(ValueError, match="angles_degrees: expected angles in degrees that divide"):
                figure(curve, angles)
    for angles in (np.arange(8) * 45.0, np.arange(8) * 22.5, [0, 22, 45, 67, 90, 112, 135, 157]):
        preferred_orientation(curve, np.float32(angles))
    with pytest.raises(ValueError, match=r"divide the whole circle of 360° evenly, got none"):
        preferred_direction(curve[:0], np.zeros(0))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_figures_do_not_depend_on_the_unit(scale):
    found, expected = (figures_of(np.float32(CURVES) * np.float32(s), ANGLES) for s in (scale, 1))
    for name in FIGURES:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_radians_and_other_periods_are_told():
    responses, degrees = np.ones((8, 1), np.float32), np.arange(8) * 45.0
    for angles in (np.deg2rad(degrees), np.deg2rad(degrees - 180), np.deg2rad(degrees / 2)):
        with pytest.warns(UserWarning, match="angles_degrees: .* may be radians"):
            tuning_curves(responses, angles, AngleBins(4))
    with pytest.warns(UserWarning, match="within one period of 180°, got 0° to 315°"):
        tuning_curves(responses, degrees, AngleBins(4, 180))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tuning_curves(responses, degrees - 180, AngleBins(4))
        tuning_curves(responses, np.arange(8) / 8 - 0.5, AngleBins(4))  # discrimination of half a degree
        tuning_curves(responses, np.arange(8) - 4, AngleBins(4))  # of whole degrees
        jax.jit(tuning_curves)(responses, np.deg2rad(degrees), AngleBins(4))
