"""Losses against sums in float64, saturated units included, and the Jacobian's penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import drawn, finite_differences, flat, layer, quick

from neurojax import autoencoder as ae

LOGITS = np.array([-1e4, -200.0, -30.0, -1.0, -1e-6, 0.0, 1e-6, 1.0, 30.0, 200.0, 1e4])
XS = np.array([0.0, 1.0, 0.3, 0.999])
KEY = jax.random.key(0)


def one(logit, x):
    return ae.cross_entropy(logit[None], x[None])


def each(function):
    """For every pair, a row for each x."""
    return quick(jax.vmap(jax.vmap(function, (0, None)), (None, 0)))


losses, slopes = each(one), each(jax.grad(one, (0, 1)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_cross_entropy_is_the_sum_in_float64(x64, dtype, tolerance):
    logits, xs = LOGITS.astype(dtype), XS.astype(dtype)
    came = losses(logits, xs)
    assert came.dtype == dtype and np.isfinite(came).all() and (came >= 0).all()
    # −log p = log(1 + e^{−l}) and −log(1 − p) = log(1 + e^l), each without cancellation.
    logits, xs = logits.astype(float), xs.astype(float)[:, None]
    expected = xs * np.logaddexp(0, -logits) + (1 - xs) * np.logaddexp(0, logits)
    np.testing.assert_allclose(came, expected, rtol=tolerance, atol=np.finfo(dtype).tiny)


def test_a_unit_that_is_right_costs_its_exponential(x64):
    right = losses(jnp.array([-80.0, 80.0], "float32"), jnp.array([0.0, 1.0], "float32"))
    np.testing.assert_allclose(np.diag(right), np.exp(-80.0), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_slopes_of_the_cross_entropy_saturated_and_at_zero(x64, dtype, tolerance):
    of_logits, of_x = slopes(jnp.asarray(LOGITS, dtype), jnp.asarray(XS, dtype))
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-LOGITS))
    np.testing.assert_allclose(of_logits, p - XS[:, None], atol=tolerance)
    np.testing.assert_array_equal(of_x, np.tile(-LOGITS, (len(XS), 1)).astype(dtype))
    assert of_logits[0, 5] == 0.5 and of_logits[1, 5] == -0.5
    assert of_logits[0, 0] == 0 and of_logits[1, 0] == -1 and of_logits[1, -1] == 0


def test_gradients_of_the_losses_are_finite_differences(x64):
    rng = np.random.default_rng(0)
    point = jnp.asarray(rng.normal(size=5)), jnp.asarray(rng.random(5))
    point = point[0].at[0].set(0.0), point[1]
    outputs = [ae.BernoulliOutput(), ae.GaussianOutput(0.6), ae.GaussianOutput(jnp.arange(1.0, 6.0))]
    functions = [lambda p, o=o: o.negative_log_likelihood(*p) for o in outputs]
    for function in [*functions, lambda p: ae.squared_error(*p)]:
        np.testing.assert_allclose(
            flat(quick(jax.grad(function))(point)), finite_differences(function, point), rtol=1e-8, atol=1e-9
        )
    learned = finite_differences(lambda o: o.negative_log_likelihood(*point), outputs[2])
    slope = quick(jax.grad(lambda o: o.negative_log_likelihood(*point)))(outputs[2])
    np.testing.assert_allclose(flat(slope), learned, rtol=1e-8)


def test_curvature_of_the_cross_entropy_at_zero(x64):
    came = quick(jax.hessian(ae.cross_entropy))(jnp.array([0.0, 2.0]), jnp.array([0.3, 0.3]))
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(came, np.diag([0.25, p * (1 - p)]), rtol=1e-12)


@pytest.mark.parametrize("scale", [0.6, (0.5, 1.0, 2.0)])
def test_gaussian_likelihood_and_draws(x64, scale):
    from scipy.stats import norm

    output = ae.GaussianOutput(scale if isinstance(scale, float) else jnp.array(scale))
    mean, x = np.array([0.1, -2.0, 3.0]), np.array([0.4, -1.0, 2.5])
    came = output.negative_log_likelihood(jnp.asarray(mean), jnp.asarray(x))
    np.testing.assert_allclose(came, -norm(mean, scale).logpdf(x).sum(), rtol=1e-13)
    draws = quick(jax.vmap(output.sample, (None, 0)))(jnp.asarray(mean), jax.random.split(KEY, 4000))
    assert np.abs((draws.mean(axis=0) - mean) / (np.array(scale) / 4000**0.5)).max() < 4
    np.testing.assert_allclose(draws.std(axis=0), np.broadcast_to(scale, 3), rtol=4 / 8000**0.5)


def test_bernoulli_draws(x64):
    logits = jnp.array([-1e4, -1.0, 0.0, 2.0, 1e4])
    output = ae.BernoulliOutput()
    draws = quick(jax.vmap(output.sample, (None, 0)))(logits, jax.random.split(KEY, 4000))
    p = np.asarray(output.mean(logits))
    assert np.isin(draws, [0, 1]).all()
    assert (np.abs(draws.mean(axis=0) - p) <= 4 * np.sqrt(p * (1 - p) / 4000)).all()


def test_losses_are_summed_over_features_and_averaged_over_samples():
    """Two columns: their products' sums are 50, 250 and 610, and the loss of the batch 910/3."""
    left = np.array([[1.0, 2], [3, 4], [5, 6]])
    right = np.array([[10.0, 20], [30, 40], [50, 60]])
    # A code is passed through as it is; the squared errors are then these products.
    model = ae.Autoencoder(
        (layer(np.zeros((1, 2)), np.zeros(1), "float32"),),
        (layer(np.zeros((2, 1)), np.zeros(2), "float32"),),
        ae.GaussianOutput(),
    )
    rows = jnp.asarray(np.sqrt(left * right), "float32")
    objective = ae.ReconstructionObjective(loss="squared_error")
    each_loss = quick(lambda rows: objective.losses(model, jax.vmap(model.encode)(rows), rows))
    np.testing.assert_allclose(each_loss(rows), [50, 250, 610], rtol=1e-6)
    loss, (_, metrics) = quick(objective)(model, None, rows, KEY)
    np.testing.assert_allclose([loss, metrics["reconstruction_loss"]], [910 / 3, 910 / 3], rtol=1e-6)
    # −log p of unit variance: half of that, and the constant of each feature.
    likelihood = quick(ae.ReconstructionObjective())(model, None, rows, KEY)[0]
    np.testing.assert_allclose(likelihood, 910 / 6 + np.log(2 * np.pi), rtol=1e-6)


def test_cross_entropy_has_the_worked_example_as_its_slope(x64):
    """−Σ x·l is linear in x: of rows l, slopes in x weigh with the rows' sums over 3 samples."""
    left = jnp.array([[1.0, 2], [3, 4], [5, 6]])
    right = jnp.array([[10.0, 20], [30, 40], [50, 60]])
    rows = quick(jax.vmap(lambda logits, x: ae.cross_entropy(logits, 0 * x) - ae.cross_entropy(logits, x)))(
        left, right
    )
    np.testing.assert_allclose(rows, [50, 250, 610], rtol=1e-13)


def test_every_term_of_the_objective_is_what_its_formula_says(x64):
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, [3], KEY), 0)
    rows = jnp.asarray(np.random.default_rng(1).random((4, 5)))
    objective = ae.ReconstructionObjective(contraction=0.3, sparsity=0.7, sparsity_target=0.2, l1=0.05)
    loss, (state, metrics) = quick(objective)(model, None, rows, KEY)
    w, b = np.asarray(model.encoder[0].weight), np.asarray(model.encoder[0].bias)
    y = 1 / (1 + np.exp(-(rows @ w.T + b)))
    p = 1 / (1 + np.exp(-(y @ w + np.asarray(model.decoder[0].bias))))
    entropy = -np.sum(rows * np.log(p) + (1 - rows) * np.log(1 - p), axis=1).mean()
    jacobian = np.sum(((y * (1 - y))[:, :, None] * w) ** 2, axis=(1, 2)).mean()
    q = y.mean(axis=0)
    divergence = np.sum(0.2 * np.log(0.2 / q) + 0.8 * np.log(0.8 / (1 - q)))
    absolute = np.abs(y).sum(axis=1).mean()
    expected = {"reconstruction_loss": entropy, "contraction": jacobian, "activity": q.mean(), "l1": absolute}
    assert state is None and set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-12)
    total = entropy + 0.3 * jacobian + 0.7 * divergence + 0.05 * absolute
    np.testing.assert_allclose(loss, total, rtol=1e-12)

    def value(model):
        return objective(model, None, rows, KEY)[0]

    came = flat(quick(jax.grad(value))(model))
    np.testing.assert_allclose(came, finite_differences(value, model), rtol=1e-7, atol=1e-9)


def test_terms_without_strength_are_left_out():
    model = ae.Autoencoder.from_sizes(5, [3], KEY)
    _, (_, metrics) = quick(ae.ReconstructionObjective())(model, None, jnp.full((2, 5), 0.5), KEY)
    assert set(metrics) == {"reconstruction_loss"}


ENCODERS = {
    "one sigmoid": ((4,), jax.nn.sigmoid),
    "two sigmoids": ((4, 3), jax.nn.sigmoid),
    "one tanh": ((7,), jnp.tanh),
    "two tanh": ((7, 4), jnp.tanh),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_contraction_is_the_norm_of_the_jacobian_and_so_is_its_gradient(x64, name):
    sizes, activation = ENCODERS[name]
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, sizes, KEY, activation=activation), 2)
    x = jnp.asarray(np.random.default_rng(3).normal(size=5))
    jacobian = quick(jax.jacfwd(model.encode))(x)
    came = quick(
        lambda x: (
            ae.contraction(model, x),
            ae.jacobian_norm(model.encode, x),
            ae.jacobian_singular_values(model.encode, x),
        )
    )(x)
    np.testing.assert_allclose(came[:2], 2 * [np.sum(jacobian**2)], rtol=1e-10)
    np.testing.assert_allclose(came[2], np.linalg.svd(jacobian, compute_uv=False), rtol=1e-10)

    def penalty(both):
        return ae.contraction(*both)

    came = flat(quick(jax.grad(lambda m, x: ae.contraction(m, x), argnums=(0, 1)))(model, x))
    assert np.abs(came).max() > 1e-3
    np.testing.assert_allclose(came, finite_differences(penalty, (model, x)), rtol=1e-6, atol=1e-9)


def test_contraction_of_other_models(x64):
    rows = jnp.asarray(np.random.default_rng(3).normal(size=(6, 5)))
    x, norm = rows[0], quick(ae.contraction)
    sae = ae.SparseAutoencoder.from_data(rows, 8, KEY, selection=ae.TopK(2))
    active = np.argsort(np.asarray(sae.encoder.weight) @ np.asarray(x - sae.decoder_bias))[-2:]
    expected = np.sum(np.asarray(sae.encoder.weight)[active] ** 2)
    np.testing.assert_allclose(norm(sae, x), expected, rtol=1e-12)
    vae = ae.VariationalAutoencoder.from_sizes(5, [], 2, KEY)
    expected = np.sum(np.asarray(vae.posterior_layer.weight)[:2] ** 2)
    np.testing.assert_allclose(norm(vae, x), expected, rtol=1e-12)


def test_contraction_is_taken_where_the_encoder_sees_the_datum(x64):
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, [3], KEY), 0)
    rows, noise = jnp.asarray(np.random.default_rng(1).random((4, 5))), ae.MaskingNoise(0.5)
    objective = ae.ReconstructionObjective(corruption=noise, contraction=1.0)
    _, (_, metrics) = quick(objective)(model, None, rows, KEY)
    norm = quick(lambda rows: jnp.mean(jax.vmap(ae.contraction, (None, 0))(model, rows)))
    expected = norm(noise(rows, KEY))
    np.testing.assert_allclose(metrics["contraction"], expected, rtol=1e-12)
    assert abs(expected - norm(rows)) > 1e-3
