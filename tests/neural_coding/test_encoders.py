"""Encoders: what they compute, what they minimise, and the course's exercise step by step."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.signal import correlate2d
from scipy.special import gammaln

from neurojax import neural_coding as nc
from neurojax.training import fit

KEY = jax.random.key(0)
SHAPE = (4, 5)


@cache
def encoder(dtype="float64", **settings):
    filters = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(dtype)
    return nc.ConvolutionalEncoder.from_filters(jnp.asarray(filters), SHAPE, 3, KEY, **settings)


def trials(n_samples=6, n_neurons=3, dtype="float64"):
    random = np.random.default_rng(1)
    images = random.normal(size=(n_samples, *SHAPE))
    return images.astype(dtype), random.poisson(2.0, size=(n_samples, n_neurons)).astype(dtype)


@eqx.filter_jit
def evaluate(objective, model, data):
    return objective(model, None, data, KEY)


@eqx.filter_jit
def slopes(objective, model, data):
    return eqx.filter_grad(lambda model: objective(model, None, data, KEY)[0])(model)


@eqx.filter_jit
def respond(model, images):
    """Return features and responses."""
    return eqx.filter_vmap(model.features)(images), eqx.filter_vmap(model)(images)


def features_of(filters, bias, image):
    return np.array([correlate2d(image, f, mode="same") + b for f, b in zip(filters, bias, strict=True)])


def test_features_are_cross_correlations_with_a_dense_readout(x64):
    model = eqx.tree_at(
        lambda m: (m.bias, m.readout.bias), encoder(), (np.array([0.5, -2.0]), np.arange(3.0))
    )
    images = trials()[0]
    features, responses = respond(model, images)
    seen = features_of(np.asarray(model.filters), model.bias, images[0])
    np.testing.assert_allclose(features[0], seen, rtol=1e-12)
    came = np.asarray(model.readout.weight) @ seen.ravel() + np.arange(3)
    np.testing.assert_allclose(responses[0], came, rtol=1e-12)
    assert model.n_parameters == 2 * 9 + 2 + 3 * 40 + 3 and model.n_neurons == 3


def test_nonlinearities_and_the_factorised_readout(x64):
    model = encoder(readout="factorized", activation=jax.nn.relu, output=jax.nn.softplus)
    images = trials()[0]
    seen = np.maximum(features_of(np.asarray(model.filters), [0, 0], images[0]), 0)
    mask, weight = (np.asarray(part) for part in model.readout_weights())
    came = np.einsum("nk,nrc,krc->n", weight, mask, seen)
    np.testing.assert_allclose(respond(model, images)[1][0], np.logaddexp(0, came), rtol=1e-12)
    assert model.n_parameters == 2 * 9 + 2 + 3 * 20 + 3 * 2 + 3


@pytest.mark.parametrize("readout", [nc.DenseReadout, nc.FactorizedReadout])
def test_weights_start_with_the_spread_that_was_asked_for(readout):
    drawn = readout.from_shape((6, 12, 16), 50, KEY, weight_scale=0.02)
    parts = [np.asarray(part).reshape(50, -1) for part in drawn.weights()]
    products = np.einsum("nk,np->nkp", parts[1], parts[0]) if len(parts) == 2 else parts[0]
    np.testing.assert_allclose(np.std(products), 0.02, rtol=0.05)
    assert not np.any(drawn.bias) and drawn.n_neurons == 50


def test_the_course_exercise_step_by_step(x64):
    """Squared error, penalties on sums, torch's momentum: five steps of gradients written out by hand."""
    model, (images, responses) = encoder(), trials()
    filters, weight = (np.asarray(leaf) for leaf in (model.filters, model.readout.weight))
    parts = [filters, np.zeros(2), weight, np.zeros(3)]
    x, y, losses = np.asarray(images), np.asarray(responses), []
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    velocity = [np.zeros_like(part) for part in parts]
    for _ in range(5):
        filters, bias, weight, out_bias = parts
        seen = np.array([features_of(filters, bias, image).ravel() for image in x])
        error = seen @ weight.T + out_bias - y
        losses.append(np.mean(error**2) + 5e-4 * np.sum(weight**2) + 1e-6 * np.sum(np.abs(weight)))
        error = 2 * error / error.size
        back = (error @ weight).reshape(-1, 2, *SHAPE)
        gradient = [
            np.einsum("tkrc,trcij->kij", back, windows),
            back.sum(axis=(0, 2, 3)),
            error.T @ seen + 1e-3 * weight + 1e-6 * np.sign(weight),
            error.sum(axis=0),
        ]
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
        parts = [part - 0.02 * v for part, v in zip(parts, velocity, strict=True)]
    objective = nc.EncodingObjective(l2=5e-4, l1=1e-6, penalty_scale="sum")
    optimizer = optax.sgd(0.02, momentum=0.9)
    result = fit(model, objective, (images, responses), optimizer=optimizer, n_steps=5, key=KEY)
    end = result.model
    came = [end.filters, end.bias, end.readout.weight, end.readout.bias]
    for ours, theirs in zip(came, parts, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(result.history["loss"], losses, rtol=1e-10)
    assert np.all(result.history["data_loss"] < result.history["loss"])


def test_losses_and_penalties_are_those_of_their_formulas(x64):
    model, (images, responses) = encoder(output=jax.nn.softplus), trials()
    rates = np.asarray(respond(model, images)[1])
    weight, y = np.asarray(model.readout.weight), np.asarray(responses)
    squared, (_, metrics) = evaluate(nc.EncodingObjective(l2=0.3, l1=0.2), model, (images, responses))
    penalty = 0.3 * np.mean(np.sum(weight**2, axis=1)) + 0.2 * np.mean(np.sum(np.abs(weight), axis=1))
    np.testing.assert_allclose(metrics["data_loss"], np.mean((rates - y) ** 2), rtol=1e-12)
    np.testing.assert_allclose(squared, np.mean((rates - y) ** 2) + penalty, rtol=1e-12)
    poisson = evaluate(nc.EncodingObjective("poisson"), model, (images, responses))[0]
    log_p = y * np.log(rates) - rates - gammaln(y + 1)
    np.testing.assert_allclose(poisson, -np.mean(log_p) - np.mean(gammaln(y + 1)), rtol=1e-7)


def test_the_scale_does_not_change_with_neurons_batch_or_time(x64):
    model, (images, responses) = encoder(), trials()
    objective = nc.EncodingObjective(l2=0.3, l1=0.2)
    both = eqx.tree_at(
        lambda m: (m.readout.weight, m.readout.bias),
        model,
        (np.tile(model.readout.weight, (2, 1)), np.tile(model.readout.bias, 2)),
    )
    doubled = (np.tile(images, (2, 1, 1)), np.tile(responses, (2, 2)))
    in_time = jax.tree.map(lambda part: part.reshape(2, 6, *part.shape[1:]), doubled)
    alone = evaluate(objective, model, (images, responses))[0]
    for data in (doubled, in_time):
        np.testing.assert_allclose(evaluate(objective, both, data)[0], alone, rtol=1e-12)
    # Half of the weight each, of loss and penalty alike, so the optimum of a neuron is where it was.
    of_all = slopes(objective, both, doubled).readout.weight[:3]
    of_one = slopes(objective, model, (images, responses)).readout.weight
    np.testing.assert_allclose(2 * of_all, of_one, rtol=1e-10)


def test_the_two_penalty_scales_differ_by_the_number_of_neurons(x64):
    for model in (encoder(), encoder(readout="factorized")):
        summed = evaluate(nc.EncodingObjective(l2=0.1, l1=0.01, penalty_scale="sum"), model, trials())[0]
        shared = evaluate(nc.EncodingObjective(l2=0.3, l1=0.03), model, trials())[0]
        np.testing.assert_allclose(summed, shared, rtol=1e-12)


def test_directions_that_look_alike_leave_a_floor():
    """60 directions, 30 images: a pair's mean response is the best that a model of images can do."""
    angles = np.deg2rad(np.arange(-180, 180, 6))
    rows, columns = np.indices((6, 8))
    waves = np.cos(
        (columns - 3.5) * np.cos(angles)[:, None, None] + (rows - 2.5) * np.sin(angles)[:, None, None]
    )
    images = np.round(waves, 9)
    np.testing.assert_array_equal(images[:30], images[30:])
    preferred = np.random.default_rng(0).uniform(0, 2 * np.pi, 8)
    responses = np.exp(2 * np.cos(angles[:, None] - preferred) - 2)
    paired = np.tile((responses[:30] + responses[30:]) / 2, (2, 1))
    floor = np.mean((responses - paired) ** 2)
    data = np.float32(images), np.float32(responses)
    model = nc.ConvolutionalEncoder.from_filters(
        jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3)), "float32"), (6, 8), 8, KEY
    )
    objective = nc.EncodingObjective()
    result = fit(model, objective, data, optimizer=optax.adam(3e-3), n_steps=300, key=KEY)
    came = np.asarray(respond(result.model, data[0])[1])
    np.testing.assert_allclose(came[:30], came[30:], atol=1e-5)
    assert floor > 0.02 and result.history["data_loss"].min() >= floor * (1 - 1e-5)
    assert result.history["data_loss"][-1] < 1.01 * floor < result.history["data_loss"][0]
    np.testing.assert_allclose(came, paired, atol=0.05)
    # The same as a statement about any prediction: what is left of it is the distance to the paired mean.
    left = np.mean((came - responses) ** 2) - floor
    np.testing.assert_allclose(left, np.mean((came - paired) ** 2), atol=1e-6)


def test_poisson_training_learns_a_rate():
    images, _ = trials(60, dtype="float32")
    truth = encoder("float32", output=jax.nn.softplus, weight_scale=0.3)
    rates = np.asarray(respond(truth, images)[1])
    counts = np.random.default_rng(2).poisson(5 * rates).astype("float32")
    start = encoder("float32", readout="factorized", output=jax.nn.softplus)
    objective = nc.EncodingObjective("poisson")
    losses = fit(start, objective, (images, counts), optimizer=optax.adam(0.02), n_steps=200, key=KEY).history
    assert losses["loss"][-1] < losses["loss"][0] - 0.1 and np.array_equal(
        losses["loss"], losses["data_loss"]
    )


def test_a_rate_of_zero_is_no_end():
    model = encoder("float32", output=lambda response: 0 * response)
    images, counts = trials(dtype="float32")
    value = evaluate(nc.EncodingObjective("poisson"), model, (images, counts))[0]
    np.testing.assert_allclose(value, -np.mean(np.asarray(counts)) * np.log(1e-8), rtol=1e-5)


def test_bad_data_are_named(untyped):
    x, y = trials(dtype="float32")
    broken_x, broken_y = x.copy(), y.copy()
    broken_x[0, 0, 0] = broken_y[0, 0] = np.nan
    for data, message in (
        ((x[:5], y), r"responses: expected shape \(5, 3\)"),
        ((x, y[:, :2]), r"responses: expected shape \(6, 3\)"),
        ((x.reshape(6, 5, 4), y), r"images: expected shape .* images of \(4, 5\)"),
        ((broken_x, y), "images: expected finite numbers, got 1"),
        ((x, broken_y), "responses: expected finite numbers, got 1"),
        ((x, -y - 1), "responses: least"),
        (x, r"data: expected \(images, responses\)"),
        ((x, y), "model: expected rates ≥ 0"),
    ):
        with pytest.raises(ValueError, match=message):
            nc.EncodingObjective("poisson").check_data(encoder("float32"), data)


def test_bad_settings_are_named(untyped):
    make, filters = nc.ConvolutionalEncoder.from_filters, jnp.ones((2, 3, 3))
    for call, message in (
        (lambda: nc.EncodingObjective("absolute"), "loss: expected one of"),
        (lambda: nc.EncodingObjective(penalty_scale="mean"), "penalty_scale: expected one of"),
        (lambda: nc.EncodingObjective(l1=-1.0), "l1: expected a number ≥ 0"),
        (lambda: make(jnp.ones((2, 4, 3)), SHAPE, 3, KEY), "filters: expected at least one, of odd"),
        (lambda: make(filters, (4,), 3, KEY), "shape"),
        (lambda: make(filters, SHAPE, 0, KEY), "n_neurons: expected a whole number ≥ 1"),
        (lambda: make(filters, SHAPE, 3, KEY, readout="sparse"), "readout: expected one of"),
        (lambda: make(filters, SHAPE, 3, KEY)(jnp.ones((5, 4))), "image: expected shape"),
        (lambda: nc.DenseReadout(jnp.ones((3, 2)), jnp.ones(2)), "bias: expected shape"),
        (
            lambda: nc.FactorizedReadout(jnp.ones((3, 2, 2)), jnp.ones((2, 2)), jnp.ones(3)),
            "weight: expected 3",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    small = make(filters, SHAPE, 3, KEY).readout
    with pytest.raises(ValueError, match="weight: expected 60 features"):
        nc.ConvolutionalEncoder(jnp.ones((3, 3, 3)), jnp.ones(3), small, SHAPE)
    energy = nc.GaborEnergy.random(SHAPE, 3, KEY)
    with pytest.raises(ValueError, match="l1, l2: expected 0 for GaborEnergy"):
        nc.EncodingObjective(l2=1.0).check_data(energy, trials(dtype="float32"))
