"""Gratings and filters: the course's restated in plain NumPy, conventions, invariants, bad arguments."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import receptive_fields
from neurojax.neural_coding import (
    center_surround,
    course_filters,
    course_grating,
    course_gratings,
    gabor_bank,
    gabor_filter,
    grating,
)

COURSE_ANGLES = np.arange(-180, 180, 6)


def restated_course_grating(angle_degrees, resolution, is_patch):
    """Plain NumPy, from the description: 0 or 1 by the sign of the cosine, minus a half."""
    angle = math.pi * angle_degrees / 180 + (0.1 if is_patch else 0)
    n_columns, n_rows = round(640 * resolution), round(480 * resolution)
    x, y = np.meshgrid(np.arange(n_columns) / resolution / 28, np.arange(n_rows) / resolution / 28)
    image = np.cos(x * math.cos(angle) + y * math.sin(angle))
    image[image < 0] = 0
    image[image > 0] = 1
    if is_patch:
        columns, rows = np.meshgrid(np.arange(n_columns), np.arange(n_rows))
        outside = (columns - 0.75 * n_columns) ** 2 + (rows - 0.5 * n_rows) ** 2 >= (
            640 / 6 * resolution
        ) ** 2
        image[outside] = 0.5
    return image - 0.5


@pytest.mark.parametrize("is_patch", [False, True])
@pytest.mark.parametrize(("resolution", "step"), [(0.025, 1), (1, 6)])
def test_course_gratings_are_the_source_pixel_for_pixel(resolution, step, is_patch):
    angles = COURSE_ANGLES[::step]
    images = np.asarray(course_gratings(angles, resolution, is_patch=is_patch))
    assert images.dtype == np.float32
    assert images.shape == (len(angles), round(480 * resolution), round(640 * resolution))
    expected = [restated_course_grating(angle, resolution, is_patch) for angle in angles]
    np.testing.assert_array_equal(images, expected)
    single = course_grating(float(angles[7]), resolution, is_patch=is_patch)
    np.testing.assert_array_equal(single, expected[7])


def test_an_angle_that_single_precision_rounds_is_drawn_exactly():
    expected = restated_course_grating(33.3, 1, False)
    np.testing.assert_array_equal(course_grating(33.3), expected)


@pytest.mark.parametrize("is_patch", [False, True])
def test_traced_course_gratings_differ_in_a_pixel_in_a_million_at_most(is_patch):
    angles = jnp.asarray(COURSE_ANGLES[::6], float)
    traced = jax.jit(lambda angles: course_gratings(angles, 1.0, is_patch=is_patch))(angles)
    exact = course_gratings(angles, is_patch=is_patch)
    n_differ = int(np.sum(np.asarray(traced) != np.asarray(exact)))
    assert n_differ <= 1e-6 * exact.size


def test_course_gratings_in_double_precision_also_when_traced(x64):
    angles = jnp.asarray(COURSE_ANGLES[::6], float)
    traced = jax.jit(lambda angles: course_gratings(angles, 0.5))(angles)
    assert traced.dtype == jnp.float64
    np.testing.assert_array_equal(traced, course_gratings(angles, 0.5))
    assert course_gratings(angles.astype(jnp.float32), 0.025).dtype == jnp.float32


@pytest.mark.parametrize("resolution", [0.025, 0.1])
def test_sixty_course_stimuli_are_thirty_images(resolution):
    images = np.asarray(course_gratings(COURSE_ANGLES, resolution)).reshape(60, -1)
    np.testing.assert_array_equal(images[:30], images[30:])
    assert len(np.unique(images, axis=0)) == 30
    patches = np.asarray(course_gratings(COURSE_ANGLES, resolution, is_patch=True)).reshape(60, -1)
    np.testing.assert_array_equal(patches[:30], patches[30:])


def test_opposite_course_gratings_at_full_resolution():
    images = np.asarray(course_gratings(np.array([-168, 12, 42, 222])))
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(images[2], images[3])


def restated_grating(direction, shape, period, phase, contrast, center, radius, pixels_per_degree):
    """Pixel by pixel, with the angle of each pixel from the centre as drawn."""
    image = np.zeros(shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            up, right = center[0] - row / pixels_per_degree, column / pixels_per_degree - center[1]
            distance, angle = math.hypot(up, right), math.degrees(math.atan2(up, right))
            along_direction = distance * math.cos(math.radians(angle - direction))
            if distance < radius:
                image[row, column] = contrast * math.cos(
                    2 * math.pi * along_direction / period - math.radians(phase)
                )
    return image


def test_grating_in_degrees_of_visual_angle(x64):
    arguments = {
        "period": 1.7,
        "contrast": 0.6,
        "center": (1.1, 2.3),
        "radius": 1.4,
        "pixels_per_degree": 6.5,
    }

    @jax.jit
    @jax.vmap
    def draw(direction):
        both = [
            grating(direction, (14, 20), phase_degrees=50, waveform=waveform, **arguments)
            for waveform in ("sinusoidal", "square")
        ]
        return jnp.stack(both)

    directions = [0.0, 30.0, 90.0, 200.0]
    expected = np.stack([restated_grating(d, (14, 20), phase=50, **arguments) for d in directions])
    images = draw(jnp.asarray(directions))
    np.testing.assert_allclose(images[:, 0], expected, atol=1e-14)
    np.testing.assert_array_equal(images[:, 1], 0.6 * np.sign(expected))


@pytest.mark.parametrize("waveform", ["sinusoidal", "square"])
def test_opposite_directions_are_one_image(waveform):
    directions = jnp.asarray(np.concatenate([np.arange(0, 180, 7.5), np.arange(180, 360, 7.5)]), jnp.float32)
    draw = jax.jit(jax.vmap(lambda d: grating(d, (30, 41), period=9.0, waveform=waveform)))
    images = np.asarray(draw(directions))
    np.testing.assert_array_equal(images[:24], images[24:])
    assert len(np.unique(images.reshape(48, -1), axis=0)) == 24


def test_a_growing_phase_moves_the_grating_in_its_direction():
    draw = jax.jit(lambda direction, phase: grating(direction, (20, 20), period=8, phase_degrees=phase))
    np.testing.assert_allclose(draw(0.0, 90.0)[:, 2:], draw(0.0, 0.0)[:, :-2], atol=1e-6)  # 2 to the right
    np.testing.assert_allclose(draw(90.0, 90.0)[:-2], draw(90.0, 0.0)[2:], atol=1e-6)  # 2 up


def test_square_grating_is_zero_on_an_edge_and_balanced():
    @jax.jit
    def draw(direction):
        cornered = grating(direction, (8, 8), period=4, center=(0, 0), waveform="square", contrast=0.5)
        return cornered, grating(direction, (8, 8), period=4, waveform="square")

    cornered, centred = draw(0.0)
    np.testing.assert_array_equal(cornered, np.tile([0.5, 0, -0.5, 0], (8, 2)))
    np.testing.assert_array_equal(np.unique(centred), [-1, 1])
    assert centred.sum() == 0
    np.testing.assert_array_equal(draw(90.0)[0], cornered.T)


def assert_gradients(draw, numbers, step=1e-5):
    """Compare all derivatives of an image by reverse mode with central differences."""
    drawn = jax.jit(draw)
    moves = step * np.eye(len(numbers))
    expected = [np.asarray(drawn(numbers + move) - drawn(numbers - move)) / (2 * step) for move in moves]
    np.testing.assert_allclose(jax.jit(jax.jacrev(draw))(numbers), np.stack(expected, -1), atol=1e-8)


def test_grating_batches_and_differentiates(x64):
    def draw(value):
        return grating(value[0], (6, 7), period=value[1], phase_degrees=value[2], contrast=value[3])

    values = np.array([[33.0, 3.7, 20.0, 0.7], [200.0, 4.7, 0.0, 0.5]])
    single = jax.jit(draw)
    looped = [single(value) for value in values]
    np.testing.assert_allclose(jax.jit(jax.vmap(draw))(values), looped, atol=1e-13)
    assert_gradients(draw, values[0])
    assert jax.jit(jax.grad(lambda angle: jnp.sum(course_grating(angle, 0.025))))(33.0) == 0


def test_gabor_is_that_of_the_receptive_field_fits(x64):
    @jax.jit
    @jax.vmap
    def both(orientation):
        widths = {"width_across": 1.7, "width_along": 2.5}
        drawn = gabor_filter(orientation, (11, 9), period=4.4, phase_degrees=35, center=(4.2, 5.1), **widths)
        others = map(jnp.asarray, (1 / 4.4, 1.7, 2.5, 35.0, 1.0))
        parameters = receptive_fields.Gabor(jnp.asarray(4.2), jnp.asarray(5.1), orientation, *others)
        return drawn, receptive_fields.gabor(parameters, (11, 9))

    drawn, expected = both(jnp.array([0.0, 30.0, 90.0, 135.0]))
    np.testing.assert_allclose(drawn, expected, atol=1e-14)


def test_filters_scale_with_pixels_per_degree(x64):
    @jax.jit
    def draw(scale):
        shape, per_degree = (11, 9), {"pixels_per_degree": scale}
        center = (5 / scale, 3 / scale)
        filter = gabor_filter(
            20.0, shape, period=4 / scale, width_across=2 / scale, center=center, **per_degree
        )
        other = center_surround(shape, center_width=1 / scale, surround_width=2 / scale, **per_degree)
        return filter, other

    for degrees, pixels in zip(draw(8.0), draw(1.0), strict=True):
        np.testing.assert_allclose(degrees, pixels, atol=1e-13)


def test_a_grating_drives_the_gabor_it_moves_across():
    directions = np.arange(0, 180, 15)

    @jax.jit
    def respond():
        axes = {"orientations_degrees": directions, "periods": (8,), "phases_degrees": (0,)}
        images = jax.vmap(lambda d: grating(d, (24, 24), period=8))(jnp.asarray(directions, float))
        return jnp.einsum("frc,drc->fd", gabor_bank((24, 24), **axes), images)

    best = directions[np.argmax(respond(), axis=1)]
    np.testing.assert_array_equal(best, np.mod(directions + 90, 180))


def test_gabor_bank_order_mean_and_norm(x64):
    axes = {"orientations_degrees": (0, 60), "periods": (4, 6, 7), "phases_degrees": (0, 90)}
    bank = np.asarray(jax.jit(lambda: gabor_bank((9, 12), width_across_periods=0.3, **axes))())
    assert bank.shape == (12, 9, 12)
    np.testing.assert_allclose(bank.mean((1, 2)), 0, atol=1e-15)
    np.testing.assert_allclose((bank**2).sum((1, 2)), 1, atol=1e-14)
    index = 2 * 4 + 1 * 2 + 1  # the third period, the second orientation, the second phase
    widths: dict = {"width_across": 2.1, "width_along": 2.8}
    one = jax.jit(lambda: gabor_filter(60.0, (9, 12), period=7, phase_degrees=90, **widths))()
    one = np.asarray(one) - np.mean(one)
    np.testing.assert_allclose(bank[index], one / np.sqrt((one**2).sum()), atol=1e-14)


def test_center_surround_is_a_difference_of_gaussians(x64):
    @jax.jit
    def draw():
        weighted = {"surround_weight": 0.8, "center": (2, 5)}
        drawn = center_surround((7, 9), center_width=1.3, surround_width=2.1, **weighted)
        return drawn, center_surround((61, 61), center_width=2.0, surround_width=4.0)

    drawn, balanced = draw()
    expected = np.empty((7, 9))
    for row, column in np.ndindex(7, 9):
        squared = (row - 2) ** 2 + (column - 5) ** 2
        expected[row, column] = math.exp(-squared / (2 * 1.3**2)) - 0.8 * (1.3 / 2.1) ** 2 * math.exp(
            -squared / (2 * 2.1**2)
        )
    np.testing.assert_allclose(drawn, expected, atol=1e-15)
    assert abs(float(balanced.sum())) < 1e-9  # uniform light has no effect


def test_filters_differentiate(x64):
    def draw(value):
        filter = gabor_filter(
            value[0], (5, 6), period=value[1], width_across=value[2], phase_degrees=value[3]
        )
        return filter + center_surround((5, 6), center_width=value[4], surround_width=value[5])

    assert_gradients(draw, np.array([20.0, 4.0, 1.5, 10.0, 1.0, 2.0]))


def restated_course_filters():
    """Plain Python, pixel by pixel, from the description."""
    places = [-3.5 + 7 * i / 6 for i in range(7)]
    filters = np.empty((6, 7, 7))
    for i, x in enumerate(places):
        for j, y in enumerate(places):
            r, sigma = math.sqrt(x * x + y * y), 1.1
            filters[0, i, j] = math.exp(-r / (2 * sigma**2)) - 0.5 * math.exp(-r / (2 * (2 * sigma) ** 2))
            filters[1, i, j] = -filters[0, i, j]
            for k in range(4):
                u = x * math.cos(k * math.pi / 4) + y * math.sin(k * math.pi / 4)
                envelope = math.exp(-r / (2 * (0.4 * sigma) ** 2))
                filters[2 + k, i, j] = envelope * math.cos(2 * math.pi * u / 10 + math.pi / 2)
    for k in range(6):
        filters[k] /= abs(filters[k]).max()
        filters[k] -= filters[k].sum() / 49
    return filters


def test_course_filters_are_the_source_to_a_millionth():
    filters = course_filters()
    assert filters.dtype == jnp.float32
    np.testing.assert_allclose(filters, restated_course_filters(), atol=1e-6)


def test_course_filters_in_double_precision(x64):
    np.testing.assert_allclose(course_filters(), restated_course_filters(), atol=1e-14)


WRONG: Any = {"shape": (4, 4, 4), "center": (1,), "waveform": "sine"}  # the types forbid these
BAD_CALLS = {
    "rows": (lambda: grating(0.0, (0, 4), period=4), r"shape: expected a whole number ≥ 1, got 0\."),
    "sizes": (
        lambda: gabor_filter(0.0, WRONG["shape"], period=4, width_across=1),
        r"shape: expected 2 sizes",
    ),
    "direction": (lambda: grating(math.nan, (4, 4), period=4), r"direction_degrees: expected finite numbers"),
    "period": (lambda: grating(0.0, (4, 4), period=0), r"period: expected a number > 0, got 0\."),
    "contrast": (lambda: grating(0.0, (4, 4), period=4, contrast=1.5), r"contrast: .*\[0, 1\], got 1\.5"),
    "radius": (lambda: grating(0.0, (4, 4), period=4, radius=-1), r"radius: expected a number > 0, got -1\."),
    "center": (
        lambda: grating(0.0, (4, 4), period=4, center=WRONG["center"]),
        r"center: expected a row and a column",
    ),
    "waveform": (
        lambda: grating(0.0, (4, 4), period=4, waveform=WRONG["waveform"]),
        r"waveform: .*'square'.*'sine'",
    ),
    "scale": (
        lambda: grating(0.0, (4, 4), period=4, pixels_per_degree=0),
        r"pixels_per_degree: expected a number > 0",
    ),
    "width": (
        lambda: gabor_filter(0.0, (4, 4), period=4, width_across=0),
        r"width_across: expected a number > 0",
    ),
    "surround": (
        lambda: center_surround((4, 4), center_width=1, surround_width=2, surround_weight=-1),
        r"surround_weight: expected a number ≥ 0, got -1\.",
    ),
    "resolution": (lambda: course_grating(0.0, 0.0), r"resolution: expected a number in \(0, 1\], got 0\.0"),
    "angle": (lambda: course_grating(math.inf), r"angle_degrees: expected finite numbers"),
    "angles": (lambda: course_gratings(0.0), r"angles_degrees: expected 1 axes \(images\), got shape \(\)"),
    "bank": (
        lambda: gabor_bank((4, 4), orientations_degrees=(), periods=(4,)),
        r"orientations_degrees: expected at least one number, got none\.",
    ),
    "periods": (
        lambda: gabor_bank((4, 4), orientations_degrees=(0,), periods=(4, -1)),
        r"periods: expected more than 2 pixels each, got -1\.",
    ),
}


def test_bad_arguments_are_named(untyped):
    for call, message in BAD_CALLS.values():
        with pytest.raises(ValueError, match=message):
            call()
