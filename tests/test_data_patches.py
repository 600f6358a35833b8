"""Patches: what they hold, where they come from, how they are scaled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.data import (
    PatchSampler,
    grid_patches,
    normalize_variance,
    random_patches,
    remove_patch_mean,
    remove_pixel_mean,
)

# Pixel values that say where they are from: image, row, column.
LABELLED = np.fromfunction(lambda i, r, c: 10000 * i + 100 * r + c, (3, 11, 15)).astype(np.float32)


def _corners(patches):
    corner = np.asarray(patches)[:, 0].astype(int)
    return corner // 10000, corner % 10000 // 100, corner % 100


@pytest.mark.parametrize(
    "images", [LABELLED, jnp.asarray(LABELLED), list(LABELLED)], ids=["np", "jax", "list"]
)
def test_patches_are_pieces_of_the_images(images):
    patches = random_patches(images, jax.random.key(0), n_patches=200, patch_size=4)
    for patch, image, row, column in zip(np.asarray(patches), *_corners(patches), strict=True):
        np.testing.assert_array_equal(
            patch.reshape(4, 4), LABELLED[image, row : row + 4, column : column + 4]
        )


def test_every_position_is_equally_likely():
    """Chi-squared over all positions, and images of different sizes in proportion to their positions."""
    images = [LABELLED[0, :6, :5], LABELLED[1, :3, :9], LABELLED[2, :4, :4]]
    counts = {}
    patches = random_patches(images, jax.random.key(1), n_patches=20000, patch_size=3)
    for position in zip(*_corners(patches), strict=True):
        counts[position] = counts.get(position, 0) + 1
    expected = {(0, r, c) for r in range(4) for c in range(3)}
    expected |= {(1, 0, c) for c in range(7)} | {(2, r, c) for r in range(2) for c in range(2)}
    assert set(counts) == expected
    observed = np.array(list(counts.values()))
    mean = 20000 / len(expected)
    freedom = len(expected) - 1
    assert np.sum((observed - mean) ** 2 / mean) < freedom + 4 * np.sqrt(2 * freedom)


def test_patch_as_large_as_an_image():
    image = LABELLED[:1, :4, :4]
    patches = random_patches(image, jax.random.key(0), n_patches=3, patch_size=4)
    np.testing.assert_array_equal(patches, np.repeat(image.reshape(1, 16), 3, axis=0))


def test_sampler_under_jit_follows_its_key():
    sampler = PatchSampler(LABELLED, patch_size=4, batch_size=30, preprocess="none")
    draw = jax.jit(lambda sampler, key: sampler(key))
    first = draw(sampler, jax.random.key(5))
    np.testing.assert_array_equal(first, draw(sampler, jax.random.key(5)))
    np.testing.assert_array_equal(first, sampler(jax.random.key(5)))
    np.testing.assert_array_equal(first, random_patches(LABELLED, jax.random.key(5), 30, 4))
    assert not np.array_equal(first, draw(sampler, jax.random.key(6)))


def test_sampler_preprocesses_each_patch():
    images = np.random.default_rng(0).random((2, 20, 20), np.float32)
    raw = random_patches(images, jax.random.key(0), 50, 4)
    centred = PatchSampler(images, 4, 50)(jax.random.key(0))
    np.testing.assert_allclose(centred, raw - raw.mean(axis=1, keepdims=True), atol=1e-6)
    scaled = PatchSampler(images, 4, 50, preprocess="variance")(jax.random.key(0))
    np.testing.assert_allclose(scaled.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=1), 1, rtol=1e-5)


def test_double_precision(x64):
    images = np.random.default_rng(0).random((2, 9, 9))
    patches = PatchSampler(images, 4, 5, preprocess="variance")(jax.random.key(0))
    assert patches.dtype == jnp.float64
    np.testing.assert_allclose(patches.var(axis=1), 1, rtol=1e-13)


def test_settings_in_double_precision_leave_single_precision_single(x64):
    images = np.random.default_rng(0).random((2, 9, 9), np.float32)
    sampler = PatchSampler(images, 4, 5, preprocess="variance", floor=np.float64(0.01))
    patches = sampler(jax.random.key(0))
    assert patches.dtype == normalize_variance(patches, np.float64(0.01)).dtype == jnp.float32


@pytest.mark.parametrize("stride", [None, 1, 3])
def test_grid_patches_in_order(stride):
    step = 4 if stride is None else stride
    expected = [
        image[row : row + 4, column : column + 4].reshape(-1)
        for image in LABELLED
        for row in range(0, 11 - 3, step)
        for column in range(0, 15 - 3, step)
    ]
    np.testing.assert_array_equal(grid_patches(LABELLED, 4, stride), expected)


def test_grid_patches_of_mixed_sizes():
    images = (LABELLED[0, :4, :8], LABELLED[1, :9, :5])
    _, rows, columns = _corners(grid_patches(images, 4))
    assert list(zip(rows, columns, strict=True)) == [(0, 0), (0, 4), (0, 0), (4, 0)]


def test_removed_pixel_mean_can_be_put_back():
    patches = np.random.default_rng(0).normal(3, 1, (40, 9)).astype(np.float32)
    centred, mean = remove_pixel_mean(patches)
    np.testing.assert_allclose(mean, patches.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(centred.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(centred + mean, patches, rtol=1e-6)


def test_flat_patches_keep_their_low_contrast():
    wave = np.array([1, -1, 1, -1], np.float32)
    patches = np.stack([0.5 * wave + 7, 0.001 * wave + 7, 0 * wave + 7])
    np.testing.assert_allclose(normalize_variance(patches, floor=0.01)[0], wave, rtol=1e-5)
    np.testing.assert_allclose(normalize_variance(patches, floor=0.01)[1], 0.1 * wave, atol=1e-4)
    np.testing.assert_array_equal(normalize_variance(patches, floor=0.01)[2], 0)
    slope = jax.grad(lambda x: jnp.sum(normalize_variance(x, 0.01) ** 2))(jnp.asarray(patches))
    assert np.all(np.isfinite(slope))


REFUSED = [
    ({"patch_size": 12}, r"patch_size: expected at most the least side of images, .* got 12"),
    ({"patch_size": 0}, r"patch_size: expected a whole number ≥ 1, got 0"),
    ({"patch_size": 2.5}, r"patch_size: expected a whole number ≥ 1, got 2.5"),
    ({"batch_size": 0}, r"batch_size: expected a whole number ≥ 1, got 0"),
    ({"images": LABELLED[0]}, r"images: expected 3 axes \(images rows columns\), got shape \(11, 15\)"),
    ({"images": [LABELLED]}, r"images\[0\]: expected 2 axes \(rows columns\), got shape \(3, 11, 15\)"),
    ({"images": LABELLED[:0]}, r"images: expected at least one image, got none"),
    ({"images": []}, r"images: expected at least one image, got none"),
    ({"images": LABELLED.astype(complex)}, r"images: expected real numbers, got dtype complex"),
    ({"images": LABELLED * np.nan}, r"images: expected finite numbers, got 495"),
    (
        {"images": [LABELLED[0], LABELLED[0, :2]]},
        r"patch_size: expected at most the least side of images\[1\], of shape \(2, 15\), got 4",
    ),
    ({"preprocess": "whiten"}, r"preprocess: expected one of .*'variance'.* got 'whiten'"),
    ({"floor": -1.0}, r"floor: expected a number ≥ 0, got -1.0"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_sampler_refuses(untyped, changes, message):
    settings = {"images": LABELLED, "patch_size": 4, "batch_size": 5} | changes
    with pytest.raises(ValueError, match=message):
        PatchSampler(**settings)


def test_functions_refuse(untyped):
    with pytest.raises(ValueError, match=r"n_patches: expected a whole number ≥ 1, got 0"):
        random_patches(LABELLED, jax.random.key(0), 0, 4)
    with pytest.raises(ValueError, match=r"stride: expected a whole number ≥ 1, got 0"):
        grid_patches(LABELLED, 4, 0)
    with pytest.raises(ValueError, match=r"patch_size: expected at most .* got 16"):
        grid_patches(LABELLED, 16)
    for function in (remove_patch_mean, remove_pixel_mean, normalize_variance):
        with pytest.raises(ValueError, match=r"patches: expected 2 axes .* got shape \(4,\)"):
            function(jnp.zeros(4))
        with pytest.raises(ValueError, match=r"patches: expected at least one patch .* got shape \(0, 4\)"):
            function(jnp.zeros((0, 4)))
        with pytest.raises(ValueError, match=r"patches: expected real numbers, got dtype complex64"):
            function(jnp.zeros((2, 4), complex))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_variance_is_normalized_in_any_unit(scale):
    rows = np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32)
    expected = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    np.testing.assert_allclose(normalize_variance(np.float32(scale) * rows, 0.0), expected, atol=1e-5)
    floor = 3 * scale
    np.testing.assert_allclose(
        normalize_variance(np.float32(scale) * rows, floor),
        expected * rows.std(axis=1, keepdims=True) / 3,
        atol=1e-5,
    )


def test_a_constant_patch_without_a_floor_is_undefined():
    patches = np.full((1, 9), 0.1, np.float32)
    assert np.isnan(normalize_variance(patches, 0.0)).all() and not np.any(normalize_variance(patches))


def test_integers_and_other_byte_orders_are_cut_as_they_are(untyped):
    expected = grid_patches(LABELLED, 4)
    for images in (LABELLED.astype(">f4"), [image.tolist() for image in LABELLED], LABELLED.astype(">i8")):
        np.testing.assert_allclose(grid_patches(images, 4), expected.astype(jnp.result_type(float)))
    with pytest.raises(ValueError, match=r"images\[1\]: expected an array without a mask"):
        grid_patches([LABELLED[0], np.ma.masked_array(LABELLED[1])], 4)
