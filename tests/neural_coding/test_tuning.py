"""Tuning curves and their figures, against NumPy and under rotation."""

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


def test_means_by_bin_against_numpy(x64):
    angles, responses = RNG.uniform(-400, 800, 100), RNG.normal(size=(100, 3))
    bins = AngleBins(7, 180)
    index = np.floor(np.mod(angles, 180) / (180 / 7)).astype(int)
    expected = np.stack([responses[index == k].mean(0) for k in range(7)])
    binned = jax.jit(bin_responses)(responses, angles, bins)
    np.testing.assert_allclose(binned.responses, expected, rtol=1e-12)
    np.testing.assert_array_equal(binned.n_trials, np.bincount(index, minlength=7))
    np.testing.assert_allclose(binned.angles_degrees, (np.arange(7) + 0.5) * 180 / 7)
    np.testing.assert_allclose(jax.jit(tuning_curves)(responses, angles, bins), expected.T, rtol=1e-12)


def test_empty_bins_are_nan_and_nan_stays_in_its_bin():
    responses = jnp.array([[1.0, jnp.nan], [2.0, 1.0]])
    curves = np.asarray(tuning_curves(responses, jnp.array([10.0, 100.0]), AngleBins(4)))
    np.testing.assert_array_equal(curves, [[1, 2, np.nan, np.nan], [np.nan, 1, np.nan, np.nan]])

    def total(responses):
        return jnp.nansum(tuning_curves(responses, jnp.array([10.0, 100.0]), AngleBins(4)))

    np.testing.assert_array_equal(jax.grad(total)(jnp.ones((2, 2))), np.ones((2, 2)))


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_trials_without_an_angle(broken):
    responses, bins = jnp.array([[1.0], [3.0], [100.0]]), AngleBins(2)
    angles = jnp.array([10.0, 200.0, broken])
    for function in (bin_responses, tuning_curves):
        with pytest.raises(ValueError, match="angles_degrees: expected finite numbers, got 1"):
            function(responses, angles, bins)
    binned = jax.jit(bin_responses)(responses, angles, bins)
    np.testing.assert_array_equal(binned.responses, [[1], [3]])
    np.testing.assert_array_equal(binned.n_trials, [1, 1])


def test_counts_are_responses():
    counts, angles = jnp.array([[1], [2], [4], [7]]), jnp.array([0, 10, 45, 90])
    binned = bin_responses(counts, angles, AngleBins(8, 360))
    np.testing.assert_array_equal(binned.angles_degrees, 22.5 + 45 * np.arange(8))
    np.testing.assert_array_equal(binned.responses[:3, 0], [1.5, 4, 7])
    curve, even = jnp.array([4, 0, 1, 0]), jnp.array([0, 90, 180, 270])
    figures = (circular_variance, direction_selectivity, orientation_selectivity, preferred_direction)
    figures += (preferred_orientation, peak_angle, lambda c, a: circular_smooth(c, 0.7))
    for figure in figures:
        np.testing.assert_array_equal(figure(curve, even), figure(curve.astype(float), even))
    assert np.all(np.asarray(circular_smooth(curve, 0.7)) > 0)


def test_lengths_must_match(untyped):
    with pytest.raises(ValueError, match="angles_degrees: expected 3 trials"):
        tuning_curves(jnp.zeros((3, 2)), jnp.zeros(2), AngleBins(4))


@pytest.mark.parametrize("width", [0.3, 2.0, 11.0, 1000.0])
def test_smoothing_is_a_wrapped_gaussian(x64, width):
    curve = RNG.normal(size=(2, 12))
    smooth = np.asarray(circular_smooth(curve, width))
    # Independently: the kernel's periodic sum over so many turns that none is missed.
    steps = np.arange(-20_004, 20_004)
    weights = np.bincount(steps % 12, np.exp(-(steps**2) / (2 * width**2)), 12)
    weights /= weights.sum()
    expected = np.stack([sum(weights[d] * np.roll(row, d) for d in range(12)) for row in curve])
    np.testing.assert_allclose(smooth, expected, atol=1e-7)
    np.testing.assert_allclose(smooth.mean(-1), curve.mean(-1), atol=1e-12)
    np.testing.assert_allclose(
        circular_smooth(np.roll(curve, 5, -1), width), np.roll(smooth, 5, -1), atol=1e-12
    )


def test_width_must_be_positive():
    with pytest.raises(ValueError, match="width_bins: expected a number > 0"):
        circular_smooth(jnp.zeros(4), 0)


@pytest.mark.parametrize(("preferred", "period"), [(preferred_direction, 360), (preferred_orientation, 180)])
def test_preferred_angle_is_that_of_the_vector_sum(x64, preferred, period):
    vectors = CURVES @ np.exp(2j * np.pi * ANGLES / period)
    expected = np.mod(np.angle(vectors) * period / (2 * np.pi), period)
    np.testing.assert_allclose(preferred(CURVES, ANGLES), expected, atol=1e-9)
    # A constant (z-scores) changes nothing; rotating the angles rotates the answer.
    np.testing.assert_allclose(preferred(CURVES - 3, ANGLES), expected, atol=1e-9)
    np.testing.assert_allclose(preferred(CURVES, ANGLES + 50), np.mod(expected + 50, period), atol=1e-9)
    loop = [float(preferred(curve, ANGLES)) for curve in CURVES[:2]]
    np.testing.assert_allclose(loop, expected[:2], atol=1e-9)


def test_peak():
    np.testing.assert_array_equal(peak_angle(CURVES, ANGLES), ANGLES[CURVES.argmax(-1)])
    assert np.isnan(peak_angle(jnp.array([1.0, jnp.nan]), jnp.array([0.0, 180.0])))


def test_selectivity_against_numpy(x64):
    peak = CURVES.argmax(-1)
    at = lambda shift: CURVES[np.arange(5), (peak + shift) % 24]  # noqa: E731
    orthogonal = (at(6) + at(-6)) / 2
    expected = (at(0) - orthogonal) / (at(0) + orthogonal)
    np.testing.assert_allclose(orientation_selectivity(CURVES, ANGLES), expected, rtol=1e-12)
    np.testing.assert_allclose(
        direction_selectivity(CURVES, ANGLES), (at(0) - at(12)) / (at(0) + at(12)), rtol=1e-12
    )
    # The same curves over orientations: 24 bins in 180°, of which 12 are 90°.
    np.testing.assert_allclose(
        orientation_selectivity(CURVES, ANGLES / 2, 180), (at(0) - at(12)) / (at(0) + at(12)), rtol=1e-12
    )


def test_selectivity_between_bins_is_interpolated():
    curve, angles = jnp.array([5.0, 1.0, 2.0]), jnp.array([0.0, 120.0, 240.0])
    assert float(direction_selectivity(curve, angles)) == pytest.approx((5 - 1.5) / 6.5)


@pytest.mark.parametrize("period", [180, 360])
def test_circular_variance(x64, period):
    expected = 1 - np.abs(CURVES @ np.exp(2j * np.pi * ANGLES / period)) / CURVES.sum(-1)
    np.testing.assert_allclose(circular_variance(CURVES, ANGLES, period), expected, rtol=1e-12)
    one, flat = np.eye(24)[3], np.ones(24)
    np.testing.assert_allclose(circular_variance(one, ANGLES, period), 0, atol=1e-12)
    np.testing.assert_allclose(circular_variance(flat, ANGLES, period), 1, atol=1e-12)


@pytest.mark.parametrize("curve", [CURVES[0] - 2, np.zeros(24), np.full(24, np.nan)])
def test_indices_of_negative_silent_and_missing_responses_are_nan(curve):
    for index in (circular_variance, direction_selectivity, orientation_selectivity):
        assert np.isnan(index(curve, ANGLES)), index


def test_gradients_are_finite():
    @jax.jit
    @jax.grad
    def slope(curves):
        parts = [circular_variance(curves, ANGLES), direction_selectivity(curves, ANGLES)]
        parts += [orientation_selectivity(curves, ANGLES), preferred_direction(curves, ANGLES)]
        return jnp.nansum(jnp.stack(parts))

    assert np.isfinite(slope(jnp.asarray(CURVES, jnp.float32))).all()
    silent = jnp.asarray(np.concatenate([np.zeros((1, 24)), CURVES[1:]]), jnp.float32)
    no_vector = jax.grad(lambda curves: jnp.nansum(circular_variance(curves, ANGLES)))
    assert np.isfinite(no_vector(silent)).all()
