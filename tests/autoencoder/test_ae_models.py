"""Models: their formulas and starts; vmap, jit, precisions, and files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    array,
    drawn,
    flat,
    quick,
)

from neurojax import autoencoder as ae
from neurojax.runs import load, save

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).random((4, 7))


def sparse(selection):
    return lambda dtype, key: ae.SparseAutoencoder.from_data(array(DATA, dtype), 9, key, selection=selection)


def plain(*args, **settings):
    return lambda dtype, key: ae.Autoencoder.from_sizes(*args, key, dtype=dtype, **settings)


MODELS = {
    "tied": plain(7, [5, 3]),
    "untied, tanh": plain(7, [5, 3], is_tied=False, activation=jnp.tanh, output=ae.GaussianOutput(0.5)),
    "variational": lambda dtype, key: ae.VariationalAutoencoder.from_sizes(7, [5], 3, key, dtype=dtype),
    "learned scale": lambda dtype, key: ae.VariationalAutoencoder.from_sizes(
        7, [], 3, key, output=ae.GaussianOutput(array(np.ones(7, dtype))), dtype=dtype
    ),
    "TopK": sparse(ae.TopK(2)),
    "BatchTopK": sparse(ae.BatchTopK(2, array(0.1, "float32"))),
    "JumpReLU": sparse(ae.JumpReLU(array(np.full(9, -2.0, "float32")), 0.1)),
    "classifier": lambda dtype, key: ae.Classifier.from_autoencoder(plain(7, [5, 3])(dtype, key), 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_vmap_is_the_loop_and_a_file_brings_the_model_back(x64, tmp_path, name):
    model, rows = drawn(lambda: MODELS[name]("float64", KEY), 1), DATA

    def one(model, x):
        output = model.log_probabilities if name == "classifier" else model.reconstruct
        return model.encode(x), output(x)

    many = eqx.filter_jit(jax.vmap(one, (None, 0)))(model, rows)
    single = eqx.filter_jit(one)
    alone = [single(model, x) for x in DATA]
    for i in range(2):
        expected = np.stack([values[i] for values in alone])
        np.testing.assert_allclose(many[i], expected, rtol=1e-12, atol=1e-14)
        assert many[i].dtype == "float64" and many[i].ndim == 2
    model = drawn(lambda: MODELS[name]("float32", KEY), 1)
    shapes = eqx.filter_eval_shape(one, model, rows[0].astype("float32"))
    assert all(x.dtype == "float32" for x in shapes)
    save(tmp_path / "model.npz", model)
    back = load(tmp_path / "model.npz", drawn(lambda: MODELS[name]("float32", KEY), 2))
    assert jax.tree.structure(back) == jax.tree.structure(model)
    np.testing.assert_array_equal(flat(back), flat(model))
    with pytest.raises(ValueError, match="mismatch"):
        load(tmp_path / "model.npz", drawn(lambda: MODELS[name]("float64", KEY), 1))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_deep_autoencoders_by_their_formula(x64):
    x = DATA[0]
    tied = drawn(lambda: ae.Autoencoder.from_sizes(7, [5, 3], KEY, decoder_activation=jnp.tanh), 1)
    (w1, b1), (w2, b2) = ((np.asarray(layer.weight), np.asarray(layer.bias)) for layer in tied.encoder)
    c1, c2 = (np.asarray(layer.bias) for layer in tied.decoder)
    y = sigmoid(sigmoid(x @ w1.T + b1) @ w2.T + b2)
    logits = np.tanh(y @ w2 + c1) @ w1 + c2
    came = quick(lambda x, y: (tied.encode(x), tied.output_parameters(y), tied.decode(y)))(x, y)
    for value, expected in zip(came, (y, logits, sigmoid(logits)), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    assert tied.limits == (0.0, 1.0) and (tied.n_features, tied.n_code) == (7, 3)


def test_the_variational_machine_by_its_formula(x64):
    vae = drawn(lambda: ae.VariationalAutoencoder.from_sizes(7, [5], 2, KEY), 1)
    hidden, last, (first, out) = vae.encoder[0], vae.posterior_layer, vae.decoder
    arrays = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in (hidden, last, first, out)]
    (w, b), (v, c), (g, d), (u, e) = arrays
    both = np.tanh(DATA[0] @ w.T + b) @ v.T + c
    mean = sigmoid(np.tanh(both[:2] @ g.T + d) @ u.T + e)
    run = quick(lambda x: (jnp.concatenate(vae.posterior(x)), vae.encode(x), vae.reconstruct(x)))
    for value, expected in zip(run(DATA[0]), (both, both[:2], mean), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    # From the prior: the mean of what the draws would be decoded to.
    means = np.asarray(quick(jax.vmap(vae.generate))(jax.random.split(KEY, 4000)))
    zs = np.random.default_rng(0).normal(size=(100_000, 2))
    expected = sigmoid(np.tanh(zs @ g.T + d) @ u.T + e).mean(axis=0)
    error = np.std(means, axis=0) / 4000**0.5
    assert (np.abs(means.mean(axis=0) - expected) < 4.1 * error).all()


@pytest.mark.parametrize(("activation", "gain"), [(jax.nn.sigmoid, 4.0), (jnp.tanh, 1.0)])
def test_weights_start_uniform_between_glorots_bounds(activation, gain):
    model = ae.Autoencoder.from_sizes(60, [40], KEY, is_tied=False, activation=activation)
    bound = gain * (6 / 100) ** 0.5
    for layer in (*model.encoder, *model.decoder):
        w = np.asarray(layer.weight)
        assert np.abs(w).max() <= bound < 1.01 * np.abs(w).max()
        assert abs(w.std() - bound / 3**0.5) < 0.02 * bound and abs(w.mean()) < 4 * bound / (3 * 2400) ** 0.5
        assert not np.any(layer.bias)
    first, last = np.asarray(model.encoder[0].weight), np.asarray(model.decoder[0].weight)
    assert np.abs(np.corrcoef(first.ravel(), last.T.ravel())[0, 1]) < 0.1


def test_the_last_layer_alone_gives_log_odds():
    settings = {"activation": jax.nn.relu, "output": ae.GaussianOutput()}
    model = drawn(lambda: ae.Autoencoder.from_sizes(7, [3], KEY, **settings), 0)
    mean, parameters = quick(lambda code: (model.decode(code), model.output_parameters(code)))(
        np.array([1, 0, 2], "float32")
    )
    np.testing.assert_array_equal(mean, parameters)
    assert (np.asarray(mean) < 0).any()


def test_strengths_may_be_swept():
    model, rows = drawn(lambda: ae.Autoencoder.from_sizes(7, [3], KEY), 1), array(DATA, "float32")

    def loss(strength):
        return ae.ReconstructionObjective(l1=strength)(model, None, rows, KEY)[0]

    losses = np.asarray(quick(jax.vmap(loss))(np.array([0, 1, 2], "float32")))
    np.testing.assert_allclose(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-4)
    assert losses[1] > losses[0]


def test_what_is_learned_and_what_is_not():
    fixed, learned = (ae.GaussianOutput(scale) for scale in (1.0, array(np.ones(7))))
    for output, expected in ((fixed, 0), (learned, 1)):
        model = drawn(lambda o=output: ae.Autoencoder.from_sizes(7, [3], KEY, output=o), 0)
        assert len(jax.tree.leaves(eqx.filter(model.output, eqx.is_inexact_array))) == expected
