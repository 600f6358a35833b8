"""PCA and FastICA beside scikit-learn's, and on sources that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA as SklearnPCA
from sklearn.decomposition import FastICA as SklearnFastICA

from neurojax.convergence import Status
from neurojax.data import natural_images, random_patches, remove_patch_mean
from neurojax.decomposition import fast_ica, pca

# Compiled: one by one their operations would take longer.
quick_pca = jax.jit(pca, static_argnums=1)
quick_ica = jax.jit(fast_ica, static_argnames=("n_components", "nonlinearity", "tol", "max_steps"))


@jax.jit
def there_and_back(principal, xs):
    """Return scores, and the samples that they stand for."""
    scores = principal.project(xs)
    return scores, principal.reconstruct(scores)


@pytest.fixture(scope="module")
def patches():
    images = natural_images()
    return np.asarray(remove_patch_mean(random_patches(images, jax.random.key(0), 2000, 6)))


@pytest.fixture(scope="module")
def mixture():
    """Five sources of different shapes, and seven mixtures of them."""
    rng = np.random.default_rng(0)
    n = 3000
    sources = np.stack(
        [
            rng.laplace(size=n),
            rng.uniform(-1, 1, size=n),
            np.sign(rng.normal(size=n)) * rng.exponential(size=n) ** 1.5,
            np.sin(np.arange(n) * 0.37),
            rng.choice([-1.0, 1.0], size=n),
        ],
        axis=1,
    )
    return sources, sources @ rng.normal(size=(5, 7)) + rng.normal(size=7)


def _matched(ours, theirs):
    """Our rows in the order and with the signs of theirs, which must be a permutation of ours."""
    correlation = np.asarray(ours) @ np.asarray(theirs).T
    correlation /= np.linalg.norm(ours, axis=1)[:, None] * np.linalg.norm(theirs, axis=1)
    order = np.argmax(np.abs(correlation), axis=0)
    assert sorted(order) == list(range(len(theirs)))
    signs = np.sign(correlation[order, np.arange(len(theirs))])
    return np.asarray(ours)[order] * signs[:, None]


def test_pca_agrees_with_sklearn(x64, patches):
    patches = patches.astype(float)
    ours = quick_pca(patches)
    theirs = SklearnPCA(svd_solver="full").fit(patches)
    np.testing.assert_allclose(ours.mean, theirs.mean_, atol=1e-14)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, rtol=1e-9, atol=1e-15)
    ratio = theirs.explained_variance_ratio_
    np.testing.assert_allclose(ours.explained_variance_ratio, ratio, rtol=1e-9, atol=1e-15)
    # The last component belongs to the empty direction, its mean: the same up to rounding all the same.
    same = np.abs(np.sum(ours.components * theirs.components_, axis=1))
    np.testing.assert_allclose(same, 1, atol=1e-9)
    scores = np.asarray(there_and_back(ours, patches)[0])
    np.testing.assert_allclose(np.abs(scores)[:, :20], np.abs(theirs.transform(patches)[:, :20]), atol=1e-9)


def test_pca_signs_and_reconstruction_in_single_precision(patches):
    whole, part = quick_pca(patches), quick_pca(patches, 20)
    theirs = SklearnPCA(20, svd_solver="full").fit(patches.astype(float))
    for name in ("explained_variance", "explained_variance_ratio"):
        np.testing.assert_allclose(getattr(part, name), getattr(theirs, f"{name}_"), rtol=2e-5)
    components = np.asarray(part.components)
    np.testing.assert_allclose(components @ components.T, np.eye(20), atol=2e-6)
    for ours in (whole, part):
        largest = np.argmax(np.abs(ours.components), axis=1)
        assert np.all(np.take_along_axis(np.asarray(ours.components), largest[:, None], axis=1) > 0)
    np.testing.assert_allclose(there_and_back(whole, patches)[1], patches, atol=2e-6)
    lost = np.sum((np.asarray(there_and_back(part, patches)[1]) - patches) ** 2) / (len(patches) - 1)
    np.testing.assert_allclose(lost, np.sum(whole.explained_variance[20:]), rtol=1e-3)


def test_pca_with_fewer_samples_than_features(x64):
    xs = np.random.default_rng(0).normal(size=(6, 15))
    ours = quick_pca(xs)
    assert ours.components.shape == (6, 15)
    theirs = SklearnPCA().fit(xs)
    np.testing.assert_allclose(ours.explained_variance, theirs.explained_variance_, atol=1e-12)


@pytest.mark.parametrize("nonlinearity", ["logcosh", "cube"])
def test_ica_finds_the_sources(x64, mixture, nonlinearity):
    sources, xs = mixture
    ours = quick_ica(xs, jax.random.key(0), n_components=5, nonlinearity=nonlinearity, tol=1e-12)
    assert ours.status == Status.converged
    assert 0 < ours.n_steps <= 500
    found = _matched(np.asarray(unmix_and_mix(ours, xs)[0]).T, (sources - sources.mean(axis=0)).T)
    for one, other in zip(found, sources.T, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.99
    theirs = SklearnFastICA(
        5, algorithm="parallel", fun=nonlinearity, tol=1e-12, max_iter=500, random_state=1
    ).fit(xs)
    np.testing.assert_allclose(
        _matched(ours.components, theirs.components_), theirs.components_, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        _matched(ours.mixing.T, theirs.mixing_.T), theirs.mixing_.T, rtol=1e-6, atol=1e-6
    )
    _assert_consistent(ours, xs)


@jax.jit
def unmix_and_mix(ica, xs):
    sources = ica.unmix(xs)
    return sources, ica.mix(sources)


def _assert_consistent(ica, xs):
    sources, mixed = map(np.asarray, unmix_and_mix(ica, xs))
    np.testing.assert_allclose(sources.T @ sources / len(xs), np.eye(5), atol=1e-10)
    np.testing.assert_allclose(mixed, xs, atol=1e-10)
    np.testing.assert_allclose(ica.mixing, np.linalg.pinv(ica.components), atol=1e-10)
    whitening = np.asarray(ica.whitening)
    np.testing.assert_allclose(whitening @ np.cov(xs.T, bias=True) @ whitening.T, np.eye(5), atol=1e-10)


def test_ica_of_patches_agrees_with_sklearn(x64, patches):
    """Both rotate the same white data from the same start."""
    patches = patches.astype(float)
    key = jax.random.key(0)
    ours = quick_ica(patches, key, n_components=8, tol=1e-10, max_steps=1000)
    assert ours.status == Status.converged
    white = (patches - ours.mean) @ ours.whitening.T
    start = np.asarray(jax.random.normal(key, (8, 8), float))
    settings = {"whiten": False, "fun": "logcosh", "tol": 1e-10, "max_iter": 1000, "w_init": start}
    theirs = SklearnFastICA(algorithm="parallel", **settings).fit(np.asarray(white))
    assert abs(theirs.n_iter_ - int(ours.n_steps)) <= 5
    rotation = ours.components @ np.linalg.pinv(ours.whitening)
    np.testing.assert_allclose(_matched(rotation, theirs.components_), theirs.components_, atol=1e-4)


def test_ica_under_jit_in_single_precision(mixture):
    sources, xs = mixture
    xs = xs.astype(np.float32)
    ica = quick_ica(xs, jax.random.key(0), n_components=5)
    assert ica.components.dtype == jnp.float32
    assert ica.status == Status.converged
    assert ica.residual <= 1e-5
    found = unmix_and_mix(ica, xs)[0]
    assert found.dtype == np.float32
    for one, other in zip(_matched(found.T, sources.T), sources.T, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.99
    xs[3, 2] = np.nan
    broken = quick_ica(xs, jax.random.key(0), n_components=5)
    assert broken.status == Status.nonfinite


def test_ica_that_runs_out_of_steps(mixture):
    _, xs = mixture
    short = quick_ica(xs.astype(np.float32), jax.random.key(0), n_components=5, tol=1e-6, max_steps=2)
    assert short.status == Status.max_steps_reached
    assert short.n_steps == 2
    assert short.residual > 1e-6


def test_bad_data_is_refused(untyped):
    for xs, n_components, message in (
        (np.ones(4), None, r"xs: expected 2 axes \(samples features\), got shape \(4,\)"),
        (np.ones((1, 4)), None, r"xs: expected at least two samples and one feature, got shape \(1, 4\)"),
        (np.ones((5, 4), complex), None, r"xs: expected real numbers, got dtype complex"),
        (np.full((5, 4), np.nan), None, r"xs: expected finite numbers, got 20"),
        (np.eye(5, 4), 5, r"n_components: expected at most min\(samples, features\) = 4, got 5"),
        (np.eye(5, 4), 0, r"n_components: expected a whole number ≥ 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            pca(xs, n_components)
        with pytest.raises(ValueError, match=message):
            fast_ica(xs, jax.random.key(0), n_components=n_components)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_the_unit_of_the_data_changes_nothing(mixture, scale):
    xs = mixture[1][:500].astype(np.float32)
    one, other = quick_pca(xs), quick_pca(np.float32(scale) * xs)
    np.testing.assert_allclose(other.explained_variance_ratio, one.explained_variance_ratio, atol=1e-6)
    np.testing.assert_allclose(other.components[:5], one.components[:5], atol=1e-5)
    np.testing.assert_allclose(other.mean / np.float32(scale), one.mean, rtol=1e-5, atol=1e-6)
    one, other = (quick_ica(s * xs, jax.random.key(0), n_components=5) for s in np.float32([1, scale]))
    assert other.status == Status.converged
    np.testing.assert_allclose(other.components * np.float32(scale), one.components, rtol=1e-3, atol=1e-3)
    back = unmix_and_mix(other, np.float32(scale) * xs)[1]
    np.testing.assert_allclose(back / np.float32(scale), unmix_and_mix(one, xs)[1], atol=1e-4)


def test_variance_up_to_the_limits_of_the_dtype():
    xs = np.float32([[-3e19, 1], [3e19, 1]])
    np.testing.assert_allclose(quick_pca(xs / 3).explained_variance[0], 2e38, rtol=1e-5)
    assert quick_pca(xs).explained_variance[0] == np.inf and quick_pca(xs).explained_variance_ratio[0] == 1


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(half, untyped):
    xs = jax.random.normal(jax.random.key(0), (40, 3)).astype(half)
    for fitted, same in (
        (quick_pca(xs), quick_pca(xs.astype(jnp.float32))),
        (quick_ica(xs, jax.random.key(1)), quick_ica(xs.astype(jnp.float32), jax.random.key(1))),
    ):
        assert fitted.components.dtype == jnp.float32
        jax.tree.map(np.testing.assert_array_equal, fitted, same)


def test_bad_ica_settings_are_refused(untyped, patches):
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"nonlinearity: expected one of .* got 'tanh'"):
        fast_ica(patches, key, nonlinearity="tanh")
    full = np.random.default_rng(0).normal(size=patches.shape).astype(np.float32)
    with pytest.raises(ValueError, match=r"tol: expected a number > 0, got 0"):
        fast_ica(full, key, tol=0)
    with pytest.raises(ValueError, match=r"max_steps: expected a whole number ≥ 1, got 0"):
        fast_ica(full, key, max_steps=0)
    # Each patch has lost its mean, so one direction is empty.
    with pytest.raises(ValueError, match=r"n_components: expected at most 35, .* got 36"):
        fast_ica(patches, key)
