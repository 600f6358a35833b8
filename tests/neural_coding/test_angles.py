"""Angles on a circle, at the wrap, in both precisions, and bins of them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


def test_what_rounds_to_a_whole_period_is_zero():
    angles = np.float32([-1e-9, -1e-30, 360.0, -360.0, 720.0, 0.0])
    np.testing.assert_array_equal(wrap_degrees(angles), np.zeros(6))


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
        circular_difference(np.float32([180, 0, 90]), np.zeros(3, np.float32), 180), [0, 0, -90]
    )
    assert float(circular_difference(180, 0)) == -180 == float(circular_difference(0, 180))


def test_gradient_of_difference_is_one_at_the_wrap():
    slope = jax.jit(jax.vmap(jax.grad(circular_difference), (0, None)))(np.float32([359, 0, 180]), 1.0)
    np.testing.assert_array_equal(slope, np.ones(3))


def test_mean_is_that_of_vectors(x64):
    random = np.random.default_rng(0)
    angles, weights = random.normal(2, 20, 30), random.uniform(size=30)
    mean_of = eqx.filter_jit(circular_mean)
    for period in (180.0, 360.0):
        mean = np.angle(np.sum(weights * np.exp(2j * np.pi * angles / period))) * period / (2 * np.pi)
        for turn in (0, 77):
            found = mean_of(angles + turn, period, weights)
            np.testing.assert_allclose(found, np.mod(mean + turn, period), rtol=1e-12)


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
    centers = np.resize(bins.centers_degrees, 20)  # one shape for all, by repetition
    np.testing.assert_array_equal(bins.index(centers), np.arange(20) % n_bins)


def test_bins_are_half_open_and_the_period_is_zero():
    bins, angles = AngleBins(20), np.arange(0, 360)
    below = np.nextafter(np.float32(18), np.float32(0))
    index = np.asarray(bins.index(np.float32([*bins.edges_degrees, below, *angles])))
    np.testing.assert_array_equal(index[:22], [*range(20), 0, 0])
    np.testing.assert_array_equal(bins.edges_degrees, np.arange(0, 361, 18))
    np.testing.assert_array_equal(bins.centers_degrees, np.arange(9, 360, 18))
    # The source's bins, without its class that does not exist.
    np.testing.assert_array_equal(index[22:], np.digitize(angles, np.linspace(0, 360, 21)) - 1)


def test_bins_around_the_angles_of_an_experiment():
    for angles, period, n_bins, first in (
        (np.arange(0, 360, 30), 360, 12, 0),
        ([0, 22, 45, 67, 90, 112, 135, 157], 180, 8, 0),
        ([0, 22, 45, 67, 90, 112, 135], 180, 8, 0),
        ([45, 135, 225, 315, 405], 360, 4, 45),
        ([0, 90, 360, 270], 360, 4, 0),
        ([-45, 0, 45, 90], 180, 4, 0),
        ([10, 100], 180, 2, 10),
        (np.float32(np.arange(7) * (360 / 7)), 360, 7, 0),
    ):
        case = f"{angles} in {period}°"
        bins = AngleBins.around(np.asarray(angles), period)
        assert bins.n_bins == n_bins and bins.period_degrees == period, case
        np.testing.assert_allclose(bins.centers_degrees[0], first, atol=1e-6, err_msg=case)
        angles = np.resize(np.asarray(angles, np.float32), 12)  # one shape for all, by repetition
        index = np.asarray(bins.index(angles))
        away = np.mod(angles - bins.centers_degrees[index] + period / 2, period) - period / 2
        assert np.abs(away).max() <= bins.width_degrees / 10 + 1e-4, case
        # Distinct angles have distinct bins.
        assert len(np.unique(index)) == len(np.unique(np.mod(angles, period))), case


def test_both_precisions_agree_on_bins_and_wraps():
    angles = np.random.default_rng(0).uniform(-1000, 1000, 200)
    small = AngleBins(7, 180, 3).index(np.float32(angles))
    with jax.enable_x64(True):
        large = AngleBins(7, 180, 3).index(angles)
        assert wrap_degrees(angles).dtype == jnp.float64
    np.testing.assert_array_equal(small, large)
    assert wrap_degrees(np.float32(angles)).dtype == jnp.float32
    assert wrap_degrees(np.int32([1, 2])).dtype == jnp.float32
