"""Whitening: the filter against its formula, inverses, and the spectra of real images."""

import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.data import (
    fit_whitening,
    grid_patches,
    natural_images,
    olshausen_images,
    remove_patch_mean,
    rescale_variance,
    unwhiten_1996,
    whiten_1996,
)

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))


def _slope(images):
    """Exponent of the amplitude spectrum's fall with frequency, from 0.02 to 0.35 cycles per pixel."""
    size = images.shape[-1]
    window = np.outer(np.hanning(size), np.hanning(size))
    images = np.asarray(images, float)
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    amplitude = np.abs(np.fft.fft2(centred * window)).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    edges = np.geomspace(0.02, 0.35, 13)
    rings = [(frequency >= low) & (frequency < high) for low, high in itertools.pairwise(edges)]
    x = [np.log(frequency[ring]).mean() for ring in rings]
    y = [np.log(amplitude[ring].mean()) for ring in rings]
    return np.polyfit(x, y, 1)[0]


@pytest.mark.parametrize(("cutoff", "frequency"), [(0.4, (3, 5)), (0.4, (0, 14)), (0.25, (6, 0))])
def test_gratings_come_out_scaled_by_the_formula(x64, cutoff, frequency):
    n = 32
    row, column = np.mgrid[:n, :n]
    grating = np.cos(2 * np.pi * (frequency[0] * row + frequency[1] * column) / n + 0.3)
    f = np.hypot(*frequency)
    gain = f * np.exp(-((f / (cutoff * n)) ** 4))
    np.testing.assert_allclose(whiten_1996(grating, cutoff), gain * grating, atol=1e-10)


@pytest.mark.parametrize("shape", [(32, 32), (31, 33), (2, 3, 24, 40)])
def test_inverse_restores_all_but_the_mean(x64, shape):
    images = np.random.default_rng(0).random(shape)
    white = whiten_1996(images)
    np.testing.assert_allclose(np.mean(white, axis=(-2, -1)), 0, atol=1e-12)
    back = unwhiten_1996(white)
    np.testing.assert_allclose(back, images - images.mean(axis=(-2, -1), keepdims=True), atol=1e-11)


def test_filter_does_not_care_which_side_is_longer(x64):
    image = np.random.default_rng(0).random((24, 40))
    np.testing.assert_allclose(whiten_1996(image.T), whiten_1996(image).T, atol=1e-12)


def test_single_precision_on_photographs():
    images = natural_images()[:3]
    assert whiten_1996(images).dtype == jnp.float32
    error = unwhiten_1996(whiten_1996(images)) - (images - images.mean(axis=(1, 2), keepdims=True))
    assert float(jnp.abs(error).max() / images.std()) < 2e-4
    assert float(error.std() / images.std()) < 2e-5


def test_the_same_image_comes_out_the_same_bit_for_bit_wherever_it_lies():
    image = np.random.default_rng(0).random((512, 512), np.float32)
    expected = np.asarray(whiten_1996(image))
    for offset in range(24):
        moved = np.empty(image.size + offset, image.dtype)[offset:].reshape(image.shape)
        moved[...] = image
        np.testing.assert_array_equal(whiten_1996(moved), expected)


def test_photographs_become_white():
    images = natural_images()
    assert _slope(images) == pytest.approx(-1, abs=0.15)
    assert _slope(whiten_1996(images)) == pytest.approx(0, abs=0.2)


@pytest.mark.skipif(not (DATA / "olshausen_whitened_images.npz").is_file(), reason="needs the 1996 images")
def test_unwhitened_1996_images_have_a_natural_spectrum():
    white = olshausen_images()
    raw = unwhiten_1996(white)
    assert _slope(raw) == pytest.approx(-1.1, abs=0.15)
    np.testing.assert_allclose(whiten_1996(raw), white, atol=1e-5)


def test_rescaled_variance():
    images = jnp.asarray(np.random.default_rng(0).normal(2, [[[1.0]], [[3.0]]], (2, 30, 30)), jnp.float32)
    scaled = rescale_variance(images)
    np.testing.assert_allclose(np.mean(np.var(scaled, axis=(1, 2))), 0.1, rtol=1e-5)
    np.testing.assert_allclose(scaled / images, (scaled / images)[0, 0, 0], rtol=1e-5)


def test_settings_in_double_precision_leave_single_precision_single(x64):
    images = np.random.default_rng(0).random((5, 4, 4)).astype(np.float32)
    assert rescale_variance(images, np.float64(0.1)).dtype == jnp.float32
    whitening = fit_whitening(images.reshape(-1, 4), epsilon=np.float64(0.1))
    assert {leaf.dtype for leaf in jax.tree.leaves(whitening)} == {jnp.dtype(jnp.float32)}


@pytest.fixture(scope="module")
def patches():
    return remove_patch_mean(grid_patches(natural_images()[:4], 8))


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_whitened_patches_are_white(patches, kind):
    whitening = fit_whitening(patches, kind)
    white = np.asarray(whitening.whiten(patches), float)
    values = np.sort(np.linalg.eigvalsh(white.T @ white / len(white)))
    # One direction is empty: each patch has lost its own mean.
    assert abs(values[0]) < 0.05
    np.testing.assert_allclose(values[1:], 1, atol=0.02)
    np.testing.assert_allclose(whitening.unwhiten(whitening.whiten(patches)), patches, atol=2e-5)


def test_zca_is_symmetric_and_pca_is_ordered(x64, patches):
    patches = np.asarray(patches, float)
    zca = fit_whitening(patches, "zca", epsilon=1e-4)
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-9)
    pca = fit_whitening(patches, "pca", epsilon=1e-4)
    scale = np.linalg.norm(pca.inverse_matrix, axis=1)
    assert np.all(np.diff(scale) <= 0)
    covariance = np.cov(patches.T, bias=True)
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(scale**2, np.maximum(values, 0) + 1e-4 * values[0], rtol=1e-9)
    # Either kind gives the inverse of the covariance plus its ridge.
    precision = np.linalg.inv(covariance + 1e-4 * values[0] * np.eye(64))
    for whitening in (zca, pca):
        np.testing.assert_allclose(whitening.matrix @ whitening.matrix.T, precision, rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(whitening.matrix @ whitening.inverse_matrix, np.eye(64), atol=1e-9)


@pytest.mark.parametrize("kind", ["zca", "pca"])
def test_fewer_components_project(x64, patches, kind):
    patches = np.asarray(patches, float)
    whitening = fit_whitening(patches, kind, n_components=10)
    assert whitening.matrix.shape == ((64, 10) if kind == "pca" else (64, 64))
    _, vectors = np.linalg.eigh(np.cov(patches.T))
    leading = vectors[:, -10:]
    expected = (patches - patches.mean(axis=0)) @ leading @ leading.T + patches.mean(axis=0)
    np.testing.assert_allclose(whitening.unwhiten(whitening.whiten(patches)), expected, atol=1e-8)


def test_filter_and_fit_under_jit(patches):
    images = natural_images()[:1, :32, :32]
    np.testing.assert_allclose(jax.jit(whiten_1996)(images), whiten_1996(images), atol=1e-4)
    np.testing.assert_allclose(jax.jit(rescale_variance)(images), rescale_variance(images), rtol=1e-5)
    white = jax.jit(lambda x: fit_whitening(x).whiten(x))(patches)
    np.testing.assert_allclose(white, fit_whitening(patches).whiten(patches), atol=1e-2)


def test_messages(untyped):
    image = jnp.ones((8, 8))
    for function in (whiten_1996, unwhiten_1996):
        with pytest.raises(ValueError, match=r"cutoff: expected a number > 0, got 0"):
            function(image, 0)
        with pytest.raises(ValueError, match=r"images: expected \(…, rows, columns\) .* got shape \(8,\)"):
            function(image[0])
        with pytest.raises(ValueError, match=r"images: expected real numbers, got dtype complex64"):
            function(image.astype(complex))
    with pytest.raises(ValueError, match=r"cutoff: expected a filter that float32 can invert, got .* 0.25"):
        unwhiten_1996(jnp.ones((64, 64)), 0.25)
    with pytest.raises(ValueError, match=r"variance: expected a number > 0, got -1"):
        rescale_variance(image, -1)
    with pytest.raises(ValueError, match=r"images: expected a mean variance above 0, got 0.0"):
        rescale_variance(image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patches": np.ones(3)}, r"patches: expected 2 axes"),
        (
            {"patches": np.ones((1, 3))},
            r"patches: expected at least two patches and one feature, got \(1, 3\)",
        ),
        ({"patches": np.ones((4, 3), complex)}, r"patches: expected real numbers, got dtype complex"),
        ({"patches": np.full((4, 3), np.inf)}, r"patches: expected finite numbers, got 12"),
        ({"kind": "cholesky"}, r"kind: expected one of .* got 'cholesky'"),
        ({"epsilon": -1.0}, r"epsilon: expected a number ≥ 0, got -1.0"),
        ({"n_components": 0}, r"n_components: expected a whole number ≥ 1, got 0"),
        ({"patches": np.ones((4, 3))}, r"patches: expected patches that vary"),
        (
            {"patches": np.eye(4, 3) - np.eye(4, 3).mean(axis=1, keepdims=True), "epsilon": 0.0},
            r"epsilon: expected a number > 0 for patches without variance in 1 of 3 directions, got 0.0",
        ),
        ({"n_components": 4}, r"n_components: expected at most 3 features, got 4"),
    ],
)
def test_fit_refuses(untyped, changes, message):
    settings = {"patches": np.eye(4, 3)} | changes
    with pytest.raises(ValueError, match=message):
        fit_whitening(**settings)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_whitening_and_scaling_in_any_unit(scale):
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    for kind in ("zca", "pca"):
        one, other = (fit_whitening(s * rows, kind) for s in np.float32([1, scale]))
        np.testing.assert_allclose(other.whiten(np.float32(scale) * rows), one.whiten(rows), atol=1e-4)
        back = other.unwhiten(other.whiten(np.float32(scale) * rows))
        np.testing.assert_allclose(back / np.float32(scale), rows, atol=1e-4)
    images = rows[:36].reshape(3, 6, 6)
    np.testing.assert_allclose(
        rescale_variance(np.float32(scale) * images), rescale_variance(images), rtol=1e-5
    )


def test_whitening_of_patches_without_variance_under_jit():
    fit = jax.jit(fit_whitening, static_argnames=("kind", "epsilon"))
    rows = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows[:, 2] = rows[:, 0]
    assert np.isnan(fit(rows, epsilon=0.0).matrix).all()
    assert np.isfinite(fit(rows, epsilon=1e-6).matrix).all()
    for kind in ("zca", "pca"):
        assert np.isnan(fit(np.full((5, 3), 0.1, np.float32), kind).matrix).all()
    with pytest.raises(ValueError, match="patches: expected patches that vary"):
        fit_whitening(np.full((5, 3), 0.1, np.float32))
    with pytest.raises(ValueError, match="images: expected a mean variance above 0"):
        rescale_variance(np.full((5, 7), 0.1, np.float32))


def test_whitening_of_half_precision_is_in_single():
    rows = jax.random.normal(jax.random.key(0), (40, 3)).astype("float16")
    single = fit_whitening(rows.astype(jnp.float32))
    jax.tree.map(np.testing.assert_array_equal, fit_whitening(rows), single)
    assert whiten_1996(rows[:36].reshape(3, 6, 6)).dtype == jnp.float32


def test_whitening_takes_as_many_numbers_as_it_was_fitted_to(untyped):
    fitted = fit_whitening(np.random.default_rng(0).normal(size=(40, 3)), "pca", n_components=2)
    with pytest.raises(ValueError, match="patches: expected 3 features on axis -1"):
        fitted.whiten(np.ones((4, 1)))
    with pytest.raises(ValueError, match="white: expected 2 components on axis -1"):
        fitted.unwhiten(np.ones((4, 1)))
