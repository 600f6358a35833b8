"""Faults of statistics that were found by their inputs, each beside the right value."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax import autoencoder as ae
from neurojax import chains, data, metrics, training
from neurojax import receptive_fields as rf
from neurojax.convergence import Status
from neurojax.decomposition import fast_ica, pca

HALF = ["float16", pytest.param("bfloat16", marks=pytest.mark.slow)]
KEY = jax.random.key(0)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-19, 1e19, 1e22, 1e30])
def test_A06_explained_variance_at_any_scale(scale):
    xs = np.float32(scale) * np.array([[1, -1], [-1, 1]], np.float32)
    assert float(metrics.explained_variance(xs, xs / 2)) == pytest.approx(0.75)
    assert float(metrics.explained_energy(xs, xs / 2)) == pytest.approx(0.75)


def test_B18_predicting_the_mean_explains_nothing():
    xs = 10 + np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    mean = np.broadcast_to(xs.mean(axis=0), xs.shape)
    assert abs(float(metrics.explained_variance(xs, mean))) < 1e-5
    assert float(metrics.explained_energy(xs, mean)) == pytest.approx(1 - 1 / 101, abs=1e-3)


@pytest.mark.parametrize("half", HALF)
def test_B20_metrics_of_half_precision(half):
    xs = 1000 * jax.random.normal(jax.random.key(0), (200, 8)).astype(half)
    assert float(metrics.explained_variance(xs, xs / 2)) == pytest.approx(0.75, abs=0.01)
    assert metrics.n_active(jnp.ones(70_000, half)) == 70_000


def test_B21_metrics_of_integers_do_not_wrap(untyped):
    codes = np.arange(256, dtype=np.uint8).reshape(64, 4)
    x = codes.astype(float)
    expected = 1 - np.sum((x / 2) ** 2) / np.sum((x - x.mean(axis=0)) ** 2)
    assert float(metrics.explained_variance(codes, codes * 0.5)) == pytest.approx(expected, abs=1e-6)
    assert float(metrics.explained_energy(codes, codes * 0.5)) == pytest.approx(0.75)
    assert metrics.n_active(np.ones(300, np.int8)) == 300


def test_B22_metrics_do_not_broadcast(untyped):
    with pytest.raises(ValueError, match="labels: expected 1 axes"):
        metrics.classification_error(np.eye(3), np.arange(3)[:, None])
    with pytest.raises(ValueError, match="labels: expected 3 labels"):
        metrics.classification_error(np.eye(3), np.arange(3)[:1])
    for share in (metrics.explained_variance, metrics.explained_energy):
        with pytest.raises(ValueError, match="reconstructions: expected shape"):
            share(np.eye(3), np.ones((3, 1)))
    assert metrics.classification_error(np.eye(3), np.arange(3)) == 0


@pytest.mark.parametrize("n_stuck", [1, 3, 4])
def test_A11_a_chain_that_never_moves_counts_for_nothing(n_stuck, dtype):
    draws = np.random.default_rng(0).normal(size=(4, 1000)).astype(dtype)
    free = float(chains.effective_sample_size(draws[n_stuck:])) if n_stuck < 4 else np.nan
    for value in (0.0, 0.1):
        draws[:n_stuck] = value
        size, r_hat = (float(f(draws)) for f in (chains.effective_sample_size, chains.split_r_hat))
        if n_stuck == 4:
            assert np.isnan(size) and np.isnan(r_hat)
        else:
            assert size <= 1000 * (4 - n_stuck) and r_hat == np.inf
            assert size == pytest.approx(free, rel=1e-5)
    draws[:, 0] = np.nan
    assert np.isnan([chains.effective_sample_size(draws), chains.split_r_hat(draws)]).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25, 1e30])
def test_A06_diagnostics_of_chains_at_any_scale(scale):
    draws = np.random.default_rng(1).normal(size=(2, 400))
    draws = (draws + np.cumsum(draws, axis=1) / 10).astype(np.float32)
    for function in (chains.autocorrelation_time, chains.effective_sample_size, chains.split_r_hat):
        expected, found = function(draws), function(np.float32(scale) * draws)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("half", HALF)
def test_B20_diagnostics_of_chains_in_half_precision(half):
    draws = jax.random.normal(jax.random.key(0), (2, 400)).astype(half)
    for function in (chains.autocorrelation_time, chains.effective_sample_size, chains.split_r_hat):
        found = function(draws)
        assert found.dtype == jnp.float32 and found == function(draws.astype(jnp.float32))


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
def test_A06_ratios_of_principal_components_at_any_scale(scale):
    xs = np.random.default_rng(0).normal(size=(60, 3)) * [3, 2, 1]
    expected = np.linalg.svd(xs - xs.mean(axis=0), compute_uv=False) ** 2
    found = pca(np.float32(scale * xs)).explained_variance_ratio
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("value", [0.1, 1000.3, 1e-25])
def test_A15_data_that_do_not_vary_have_no_ratios(value, dtype):
    assert np.isnan(pca(jnp.full((7, 3), value, dtype)).explained_variance_ratio).all()
    with pytest.raises(ValueError, match="xs: expected data that vary"):
        fast_ica(jnp.full((7, 3), value, dtype), jax.random.key(0))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_A15_independent_components_at_any_scale(scale):
    sources = np.random.default_rng(0).laplace(size=(400, 2))
    xs = np.float32(scale * (sources @ [[1.0, 0.5], [0.3, 1.0]]))
    ica = fast_ica(xs, jax.random.key(1))
    assert ica.status == Status.converged
    correlation = np.abs(np.corrcoef(sources, np.asarray(ica.unmix(xs)), rowvar=False)[:2, 2:])
    assert np.all(correlation.max(axis=1) > 0.98)


@pytest.mark.slow
@pytest.mark.parametrize("feature", ["constant", "repeated"])
def test_A15_a_feature_without_variance_of_its_own(feature):
    xs = np.random.default_rng(0).laplace(size=(400, 3)).astype(np.float32)
    xs[:, 2] = 0.1 if feature == "constant" else xs[:, 0]
    with pytest.raises(ValueError, match="n_components: expected at most 2, the directions in which xs"):
        fast_ica(xs, jax.random.key(0))
    ica = jax.jit(fast_ica)(xs, jax.random.key(0))
    assert ica.status == Status.nonfinite
    assert np.isnan(ica.components).all() and np.isnan(ica.mixing).all()
    assert fast_ica(xs, jax.random.key(0), n_components=2).status == Status.converged


@pytest.mark.slow
@pytest.mark.parametrize("half", HALF)
def test_B20_components_of_half_precision(half):
    xs = jax.random.normal(jax.random.key(0), (40, 3)).astype(half)
    assert pca(xs).components.dtype == fast_ica(xs, jax.random.key(0)).components.dtype == jnp.float32


@pytest.mark.slow
def test_B20_the_threshold_of_batch_top_k_does_not_freeze():
    rows, key = jax.random.normal(KEY, (256, 16)).astype("bfloat16"), jax.random.key(1)
    sae = ae.SparseAutoencoder.from_data(rows, 64, key, selection=ae.BatchTopK(4))
    objective = ae.SparseAutoencoderObjective()
    state, keep = objective.init(sae), ae.SparseAutoencoderUpkeep()
    result = training.fit(
        sae, objective, rows, state=state, n_steps=200, batch_size=64, optimizer=optax.sgd(1e-4),
        key=key, after_update=keep, progress=False,
    )  # fmt: skip
    codes = jax.vmap(result.model.encode)(rows)
    assert codes.dtype == jnp.bfloat16 and result.state.threshold.dtype == jnp.float32
    assert float(jnp.mean(metrics.n_active(codes))) == pytest.approx(4, abs=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("half", HALF)
def test_B20_losses_of_half_precision_are_sums_in_single(half):
    x = jnp.ones(70_000, half)
    losses = (
        (ae.squared_error(0 * x, x), 70_000),
        (ae.cross_entropy(0 * x, x), 70_000 * np.log(2)),
        (ae.GaussianOutput().negative_log_likelihood(x, x), 35_000 * np.log(2 * np.pi)),
        (ae.GaussianPosterior(x, 0 * x).divergence(), 35_000),
        (ae.JumpReLU.from_threshold(70_000, 0.5).n_active(x), 70_000),
    )
    for found, expected in losses:
        assert found.dtype == jnp.float32 and float(found) == pytest.approx(expected, rel=1e-5)
    vae = ae.VariationalAutoencoder.from_sizes(6, [], 2, jax.random.key(0), dtype=half)
    flat = jax.tree.map(lambda leaf: 0 * leaf if isinstance(leaf, jax.Array) else leaf, vae)
    estimate = ae.log_likelihood(flat, x[:6], KEY)  # every weight is 2⁻⁶; in half precision sums stop at 256
    np.testing.assert_allclose([estimate.value, estimate.effective_sample_size], [-6 * np.log(2), 5000], 1e-4)
    assert ae.jacobian_singular_values(vae.encode, x[:6]).shape == (2,)


def test_B22_losses_of_autoencoders_do_not_broadcast(untyped):
    column = np.ones((3, 1), np.float32)
    for loss in (ae.cross_entropy, ae.squared_error, ae.GaussianOutput().negative_log_likelihood):
        with pytest.raises(ValueError, match="x: expected shape"):
            loss(np.ones(3, np.float32), column)
        with pytest.raises(ValueError, match="expected 1 axes"):
            loss(column, column)


@pytest.mark.slow
def test_B23_atoms_in_another_byte_order_are_fitted_as_they_are(untyped):
    truth = rf.Gabor(2.5, 2.5, 30, 0.2, 1.2, 1.5, 40, 1)
    atoms = np.asarray(rf.gabor(truth, (6, 6))).reshape(1, 36)
    expected = rf.fit_gabor_batch(atoms, (6, 6))
    assert expected.r_squared[0] > 0.99
    foreign = rf.fit_gabor_batch(atoms.astype(">f4"), (6, 6))
    jax.tree.map(np.testing.assert_array_equal, foreign, expected)
    half = rf.fit_gabor_batch(jnp.asarray(atoms, "float16"), (6, 6))
    assert half.r_squared.dtype == jnp.float32 and half.r_squared[0] > 0.99


def test_D46_fits_of_frequency_near_zero_are_not_gabor_like():
    one = np.ones(2)
    gabor = rf.Gabor(5 * one, 5 * one, one, [0.016, 0.2], 2 * one, 2 * one, one, one)
    fits = rf.GaborFit(gabor, jnp.full(2, 0.9), jnp.zeros(2, int), jnp.zeros(2, int))
    assert rf.gabor_share(fits) == 0.5


@pytest.mark.parametrize(
    "make", [data.batches, lambda rows, *a, **k: data.patch_batches(rows[None], *a, **k, patch_size=2)]
)
def test_B23_batches_of_other_byte_orders_are_native_and_masks_are_refused(make):
    pytest.importorskip("grain")
    rows = np.arange(24.0, dtype=">f4").reshape(6, 4)
    batch = next(make(rows, 2, seed=0))
    assert batch.dtype.isnative and batch.dtype == np.float32
    with pytest.raises(ValueError, match="expected an array without a mask"):
        make(np.ma.masked_array(rows), 2, seed=0)


def test_masks_are_not_lost_in_shards(tmp_path):
    with pytest.raises(ValueError, match="rows: expected an array without a mask"):
        data.write_shards(tmp_path / "rows", np.ma.masked_array(np.ones((4, 2))), 2)
