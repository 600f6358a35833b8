"""Angles on a circle, at the wrap, in both precisions, and bins of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurojax.neural_coding import AngleBins, circular_difference, circular_mean, wrap_degrees

ANGLES = st.floats(-1080, 1080, width=32, allow_subnormal=False)
PERIODS = st.sampled_from([90, 180, 360.0])


@given(ANGLES, PERIODS)
@settings(max_examples=40, deadline=None)
def test_wrapped_angles_are_in_the_half_open_circle_and_the_same_angles(angle, period):
    wrapped = float(wrap_degrees(jnp.float32(angle), period))
    assert 0 <= wrapped < period
    turned = np.exp(2j * np.pi * (wrapped - angle) / period)
    assert abs(turned - 1) < 1e-5


@pytest.mark.parametrize("angle", [-1e-9, -1e-30, 360.0, -360.0, 720.0, 0.0])
def test_what_rounds_to_a_whole_period_is_zero(angle):
    assert float(wrap_degrees(jnp.float32(angle))) == 0


@given(ANGLES, ANGLES, PERIODS)
@settings(max_examples=40, deadline=None)
def test_difference_is_the_short_way_round_and_odd(first, second, period):
    difference = float(circular_difference(jnp.float32(first), jnp.float32(second), period))
    exact = np.mod(np.float64(first) - np.float64(second), period)
    assert -period / 2 <= difference < period / 2
    assert abs(abs(difference) - min(exact, period - exact)) < 1e-3
    back = float(circular_difference(jnp.float32(second), jnp.float32(first), period))
    assert abs(difference + back) < 1e-3 or abs(abs(difference) - period / 2) < 1e-3


def test_difference_of_opposites_is_minus_half():
    np.testing.assert_array_equal(
        circular_difference(jnp.array([180.0, 0, 90]), jnp.zeros(3), 180), [0, 0, -90]
    )
    assert float(circular_difference(180, 0)) == -180 == float(circular_difference(0, 180))


def test_gradient_of_difference_is_one_at_the_wrap():
    slope = jax.vmap(jax.grad(circular_difference), (0, None))(jnp.array([359.0, 0.0, 180.0]), 1.0)
    np.testing.assert_array_equal(slope, np.ones(3))


@pytest.mark.parametrize("period", [180, 360])
def test_mean_is_that_of_vectors(x64, period):
    random = np.random.default_rng(0)
    angles, weights = random.normal(2, 20, 30), random.uniform(size=30)
    mean = np.angle(np.sum(weights * np.exp(2j * np.pi * angles / period))) * period / (2 * np.pi)
    found = circular_mean(jnp.asarray(angles), period, jnp.asarray(weights))
    np.testing.assert_allclose(found, np.mod(mean, period), rtol=1e-12)
    turned = circular_mean(jnp.asarray(angles) + 77, period, jnp.asarray(weights))
    np.testing.assert_allclose(turned, np.mod(mean + 77, period), rtol=1e-12)


@given(
    st.sampled_from([2, 7, 20]),
    PERIODS,
    st.floats(-400, 400, width=32),
    st.lists(ANGLES, min_size=4, max_size=4),
)
@settings(max_examples=20, deadline=None)
def test_every_angle_is_in_its_bin(n_bins, period, start, angles):
    bins = AngleBins(n_bins, period, start)
    index = np.asarray(bins.index(np.float32(angles)))
    assert index.min() >= 0 and index.max() < n_bins
    away = np.asarray(circular_difference(np.float32(angles), bins.centers_degrees[index], period))
    assert np.abs(away).max() <= bins.width_degrees / 2 + 1e-3
    np.testing.assert_array_equal(bins.index(bins.centers_degrees), np.arange(n_bins))


def test_bins_are_half_open_and_the_period_is_zero():
    bins = AngleBins(20)
    np.testing.assert_array_equal(bins.index(bins.edges_degrees), [*range(20), 0])
    np.testing.assert_array_equal(bins.index(np.nextafter(np.float32(18), np.float32(0))), 0)
    np.testing.assert_array_equal(bins.edges_degrees, np.arange(0, 361, 18))
    np.testing.assert_array_equal(bins.centers_degrees, np.arange(9, 360, 18))
    # The source's bins, without its class that does not exist.
    angles = np.arange(0, 360)
    np.testing.assert_array_equal(bins.index(angles), np.digitize(angles, np.linspace(0, 360, 21)) - 1)


@pytest.mark.parametrize(
    "angles, period, n_bins, first",
    [
        (np.arange(0, 360, 30), 360, 12, 0),
        ([0, 22, 45, 67, 90, 112, 135, 157], 180, 8, 0),
        ([0, 22, 45, 67, 90, 112, 135], 180, 8, 0),
        ([45, 135, 225, 315, 405], 360, 4, 45),
        ([0, 90, 360, 270], 360, 4, 0),
        ([-45, 0, 45, 90], 180, 4, 0),
        ([10, 100], 180, 2, 10),
        (np.float32(np.arange(7) * (360 / 7)), 360, 7, 0),
    ],
)
def test_bins_around_the_angles_of_an_experiment(angles, period, n_bins, first):
    angles = np.asarray(angles)
    bins = AngleBins.around(angles, period)
    assert bins.n_bins == n_bins and bins.period_degrees == period
    np.testing.assert_allclose(bins.centers_degrees[0], first, atol=1e-6)
    nearest = bins.centers_degrees[np.asarray(bins.index(angles))]
    away = np.asarray(circular_difference(angles, nearest, period))
    assert np.abs(away).max() <= bins.width_degrees / 10 + 1e-6
    # Distinct angles have distinct bins.
    assert len(np.unique(bins.index(angles))) == len(np.unique(np.mod(angles, period)))


def test_both_precisions_agree_on_bins_and_wraps():
    angles = np.random.default_rng(0).uniform(-1000, 1000, 200)
    small = AngleBins(7, 180, 3).index(np.float32(angles))
    with jax.enable_x64(True):
        large = AngleBins(7, 180, 3).index(angles)
        assert wrap_degrees(angles).dtype == jnp.float64
    np.testing.assert_array_equal(small, large)
    assert wrap_degrees(np.float32(angles)).dtype == jnp.float32
    assert wrap_degrees(np.int32([1, 2])).dtype == jnp.float32
