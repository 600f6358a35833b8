"""Losses against sums in float64, saturated units included, and the Jacobian's penalty."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    array,
    drawn,
    finite_differences,
    flat,
    layer,
    quick,
)

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
    right = losses(array([-80.0, 80.0], "float32"), array([0.0, 1.0], "float32"))
    np.testing.assert_allclose(np.diag(right), np.exp(-80.0), rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
def test_slopes_of_the_cross_entropy_saturated_and_at_zero(x64, dtype, tolerance):
    of_logits, of_x = slopes(array(LOGITS, dtype), array(XS, dtype))
    with np.errstate(over="ignore"):
        p = 1 / (1 + np.exp(-LOGITS))
    np.testing.assert_allclose(of_logits, p - XS[:, None], atol=tolerance)
    np.testing.assert_array_equal(of_x, np.tile(-LOGITS, (len(XS), 1)).astype(dtype))
    assert of_logits[0, 5] == 0.5 and of_logits[1, 5] == -0.5
    assert of_logits[0, 0] == 0 and of_logits[1, 0] == -1 and of_logits[1, -1] == 0


def test_gradients_of_the_losses_are_finite_differences(x64):
    rng = np.random.default_rng(0)
    logits, x, scale = rng.normal(size=5), rng.random(5), np.arange(1.0, 6.0)
    logits[0] = 0.0
    functions = [
        lambda logits, x, scale: ae.BernoulliOutput().negative_log_likelihood(logits, x),
        lambda logits, x, scale: ae.GaussianOutput(0.6).negative_log_likelihood(logits, x),
        lambda logits, x, scale: ae.GaussianOutput(scale).negative_log_likelihood(logits, x),
        lambda logits, x, scale: ae.squared_error(logits, x),
    ]

    @quick
    def values_and_slopes(*point):
        return [jax.value_and_grad(function, argnums=(0, 1, 2))(*point) for function in functions]

    slopes, step = [flat(slope) for _, slope in values_and_slopes(logits, x, scale)], 1e-5
    moves = step * np.eye(15).reshape(15, 3, 5)
    up, down = (
        np.array(
            [[v for v, _ in values_and_slopes(*(np.stack([logits, x, scale]) + m))] for m in sign * moves]
        )
        for sign in (1, -1)
    )
    np.testing.assert_allclose(slopes, ((up - down) / (2 * step)).T, rtol=1e-8, atol=1e-9)


def test_curvature_of_the_cross_entropy_at_zero(x64):
    came = quick(jax.hessian(ae.cross_entropy))(array([0.0, 2.0]), array([0.3, 0.3]))
    p = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(came, np.diag([0.25, p * (1 - p)]), rtol=1e-12)


def test_gaussian_likelihood_and_draws(x64):
    from scipy.stats import norm

    scale = np.array([0.5, 1.0, 2.0])
    output = ae.GaussianOutput(array(scale))
    mean, x = np.array([0.1, -2.0, 3.0]), np.array([0.4, -1.0, 2.5])
    keys = jax.random.split(KEY, 4000)
    came, draws = quick(
        lambda mean, x: (
            output.negative_log_likelihood(mean, x),
            jax.vmap(output.sample, (None, 0))(mean, keys),
        )
    )(mean, x)
    draws = np.asarray(draws)
    np.testing.assert_allclose(came, -norm(mean, scale).logpdf(x).sum(), rtol=1e-13)
    assert np.abs((draws.mean(axis=0) - mean) / (scale / 4000**0.5)).max() < 4
    np.testing.assert_allclose(draws.std(axis=0), scale, rtol=4 / 8000**0.5)


def test_bernoulli_draws(x64):
    logits = array([-1e4, -1.0, 0.0, 2.0, 1e4])
    output = ae.BernoulliOutput()
    keys = jax.random.split(KEY, 4000)
    run = quick(lambda x: (jax.vmap(output.sample, (None, 0))(x, keys), output.mean(x)))
    draws, p = map(np.asarray, run(logits))
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
    rows = array(np.sqrt(left * right), "float32")
    objective = ae.ReconstructionObjective(loss="squared_error")

    @quick
    def run(rows):
        loss, (_, metrics) = objective(model, None, rows, KEY)
        likelihood = ae.ReconstructionObjective()(model, None, rows, KEY)[0]
        return objective.losses(model, jax.vmap(model.encode)(rows), rows), loss, metrics, likelihood

    losses, loss, metrics, likelihood = run(rows)
    np.testing.assert_allclose(losses, [50, 250, 610], rtol=1e-6)
    np.testing.assert_allclose([loss, metrics["reconstruction_loss"]], [910 / 3, 910 / 3], rtol=1e-6)
    # −log p of unit variance: half of that, and the constant of each feature.
    np.testing.assert_allclose(likelihood, 910 / 6 + np.log(2 * np.pi), rtol=1e-6)


def test_cross_entropy_has_the_worked_example_as_its_slope(x64):
    """−Σ x·l is linear in x: of rows l, slopes in x weigh with the rows' sums over 3 samples."""
    left = array([[1.0, 2], [3, 4], [5, 6]])
    right = array([[10.0, 20], [30, 40], [50, 60]])
    rows = quick(jax.vmap(lambda logits, x: ae.cross_entropy(logits, 0 * x) - ae.cross_entropy(logits, x)))(
        left, right
    )
    np.testing.assert_allclose(rows, [50, 250, 610], rtol=1e-13)


def test_every_term_of_the_objective_is_what_its_formula_says(x64):
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, [3], KEY), 0)
    rows = np.random.default_rng(1).random((4, 5))
    objective = ae.ReconstructionObjective(contraction=0.3, sparsity=0.7, sparsity_target=0.2, l1=0.05)
    run = quick(lambda model, rows: jax.value_and_grad(objective, has_aux=True)(model, None, rows, KEY))
    (loss, (state, metrics)), came = run(model, rows)
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
    expected = finite_differences(lambda model: run(model, rows)[0][0], model)
    np.testing.assert_allclose(flat(came), expected, rtol=1e-7, atol=1e-9)


def test_terms_without_strength_are_left_out():
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, [3], KEY), 0)
    _, (_, metrics) = jax.eval_shape(ae.ReconstructionObjective(), model, None, jnp.full((2, 5), 0.5), KEY)
    assert set(metrics) == {"reconstruction_loss"}


ENCODERS = {
    "one sigmoid": ((4,), jax.nn.sigmoid),
    "two sigmoids": ((4, 3), jax.nn.sigmoid),
    "one tanh": ((7,), jnp.tanh),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_contraction_is_the_norm_of_the_jacobian_and_so_is_its_gradient(x64, name):
    sizes, activation = ENCODERS[name]
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, sizes, KEY, activation=activation), 2)
    x = np.random.default_rng(3).normal(size=5)

    @quick
    def everything(model, x):
        value, slope = jax.value_and_grad(ae.contraction, argnums=(0, 1))(model, x)
        singular_values = ae.jacobian_singular_values(model.encode, x)
        return value, slope, ae.jacobian_norm(model.encode, x), singular_values, jax.jacfwd(model.encode)(x)

    value, slope, norm, singular_values, jacobian = everything(model, x)
    np.testing.assert_allclose([value, norm], 2 * [np.sum(np.square(jacobian))], rtol=1e-10)
    np.testing.assert_allclose(singular_values, np.linalg.svd(jacobian, compute_uv=False), rtol=1e-10)
    assert np.abs(flat(slope)).max() > 1e-3
    expected = finite_differences(lambda both: everything(*both)[0], (model, array(x)))
    np.testing.assert_allclose(flat(slope), expected, rtol=1e-6, atol=1e-9)


def test_contraction_of_other_models(x64):
    x = np.random.default_rng(3).normal(size=5)
    sae = drawn(lambda: ae.SparseAutoencoder.from_data(x[None], 8, KEY, selection=ae.TopK(2)), 0)
    vae = drawn(lambda: ae.VariationalAutoencoder.from_sizes(5, [], 2, KEY), 0)
    came = quick(lambda x: (ae.contraction(sae, x), ae.contraction(vae, x)))(x)
    weight, bias = np.asarray(sae.encoder.weight), np.asarray(sae.encoder.bias)
    active = np.argsort(weight @ (x - np.asarray(sae.decoder_bias)) + bias)[-2:]
    expected = np.sum(weight[active] ** 2), np.sum(np.asarray(vae.posterior_layer.weight)[:2] ** 2)
    np.testing.assert_allclose(came, expected, rtol=1e-12)


def test_contraction_is_taken_where_the_encoder_sees_the_datum(x64):
    model = drawn(lambda: ae.Autoencoder.from_sizes(5, [3], KEY), 0)
    rows, noise = np.random.default_rng(1).random((4, 5)), ae.MaskingNoise(0.5)
    objective = ae.ReconstructionObjective(corruption=noise, contraction=1.0)

    @quick
    def run(rows):
        def mean(rows):
            return jnp.mean(jax.vmap(ae.contraction, (None, 0))(model, rows))

        return objective(model, None, rows, KEY)[1][1]["contraction"], mean(noise(rows, KEY)), mean(rows)

    came, expected, of_clean_rows = map(float, run(rows))
    np.testing.assert_allclose(came, expected, rtol=1e-12)
    assert abs(expected - of_clean_rows) > 1e-3
