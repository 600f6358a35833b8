"""Models: their formulas and starts; vmap, jit, precisions, and files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import drawn, flat, quick

from neurojax import autoencoder as ae
from neurojax.runs import load, save

KEY = jax.random.key(0)
DATA = np.random.default_rng(0).random((4, 7))


def sparse(selection):
    return lambda dtype, key: ae.SparseAutoencoder.from_data(
        jnp.asarray(DATA, dtype), 9, key, selection=selection
    )


def plain(*args, **settings):
    return lambda dtype, key: ae.Autoencoder.from_sizes(*args, key, dtype=dtype, **settings)


MODELS = {
    "tied": plain(7, [5, 3]),
    "untied, tanh": plain(7, [5, 3], is_tied=False, activation=jnp.tanh, output=ae.GaussianOutput(0.5)),
    "variational": lambda dtype, key: ae.VariationalAutoencoder.from_sizes(7, [5], 3, key, dtype=dtype),
    "learned scale": lambda dtype, key: ae.VariationalAutoencoder.from_sizes(
        7, [], 3, key, output=ae.GaussianOutput(jnp.ones(7, dtype)), dtype=dtype
    ),
    "TopK": sparse(ae.TopK(2)),
    "BatchTopK": sparse(ae.BatchTopK(2, jnp.array(0.1, "float32"))),
    "JumpReLU": sparse(ae.JumpReLU(jnp.full(9, -2.0, "float32"), 0.1)),
    "classifier": lambda dtype, key: ae.Classifier.from_autoencoder(plain(7, [5, 3])(dtype, key), 4),
}


@pytest.mark.parametrize("name", MODELS)
def test_vmap_is_the_loop_and_a_file_brings_the_model_back(x64, tmp_path, name):
    model, rows = drawn(lambda: MODELS[name]("float64", KEY), 1), jnp.asarray(DATA)

    def one(model, x):
        output = model.log_probabilities if name == "classifier" else model.reconstruct
        return model.encode(x), output(x)

    many = eqx.filter_jit(jax.vmap(one, (None, 0)))(model, rows)
    alone = [eqx.filter_jit(one)(model, x) for x in rows]
    for i in range(2):
        expected = np.stack([values[i] for values in alone])
        np.testing.assert_allclose(many[i], expected, rtol=1e-12, atol=1e-14)
        assert many[i].dtype == "float64" and many[i].ndim == 2
    model = drawn(lambda: MODELS[name]("float32", KEY), 1)
    shapes = eqx.filter_eval_shape(one, model, rows[0].astype("float32"))
    assert all(x.dtype == "float32" for x in shapes)
    save(tmp_path / "model.npz", model)
    back = load(tmp_path / "model.npz", MODELS[name]("float32", jax.random.key(9)))
    assert jax.tree.structure(back) == jax.tree.structure(model)
    np.testing.assert_array_equal(flat(back), flat(model))
    with pytest.raises(ValueError, match="mismatch"):
        load(tmp_path / "model.npz", MODELS[name]("float64", KEY))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_deep_autoencoders_by_their_formula(x64):
    x = DATA[0]
    tied = drawn(lambda: ae.Autoencoder.from_sizes(7, [5, 3], KEY, decoder_activation=jnp.tanh), 1)
    (w1, b1), (w2, b2) = ((np.asarray(layer.weight), np.asarray(layer.bias)) for layer in tied.encoder)
    c1, c2 = (np.asarray(layer.bias) for layer in tied.decoder)
    y = sigmoid(sigmoid(x @ w1.T + b1) @ w2.T + b2)
    np.testing.assert_allclose(tied.encode(jnp.asarray(x)), y, rtol=1e-13)
    logits = np.tanh(y @ w2 + c1) @ w1 + c2
    np.testing.assert_allclose(tied.output_parameters(jnp.asarray(y)), logits, rtol=1e-12)
    np.testing.assert_allclose(tied.decode(jnp.asarray(y)), sigmoid(logits), rtol=1e-12)
    assert tied.limits == (0.0, 1.0) and (tied.n_features, tied.n_code) == (7, 3)


def test_the_variational_machine_by_its_formula(x64):
    vae = drawn(lambda: ae.VariationalAutoencoder.from_sizes(7, [5], 2, KEY), 1)
    hidden, last, (first, out) = vae.encoder[0], vae.posterior_layer, vae.decoder
    arrays = [(np.asarray(layer.weight), np.asarray(layer.bias)) for layer in (hidden, last, first, out)]
    (w, b), (v, c), (g, d), (u, e) = arrays
    both = np.tanh(DATA[0] @ w.T + b) @ v.T + c
    q = vae.posterior(jnp.asarray(DATA[0]))
    np.testing.assert_allclose(np.concatenate(q), both, rtol=1e-12)
    np.testing.assert_array_equal(vae.encode(jnp.asarray(DATA[0])), q.mean)
    mean = sigmoid(np.tanh(both[:2] @ g.T + d) @ u.T + e)
    np.testing.assert_allclose(vae.reconstruct(jnp.asarray(DATA[0])), mean, rtol=1e-12)
    # From the prior: the mean of what the draws would be decoded to.
    means = quick(jax.vmap(vae.generate))(jax.random.split(KEY, 4000))
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
        assert not layer.bias.any()
    assert np.abs(np.corrcoef(model.encoder[0].weight.ravel(), model.decoder[0].weight.T.ravel())[0, 1]) < 0.1


def test_the_last_layer_alone_gives_log_odds():
    model = ae.Autoencoder.from_sizes(7, [3], KEY, activation=jax.nn.relu, output=ae.GaussianOutput())
    code = jnp.array([1.0, 0.0, 2.0])
    np.testing.assert_array_equal(model.decode(code), model.output_parameters(code))
    assert (np.asarray(model.decode(code)) < 0).any()


def test_strengths_may_be_swept():
    model, rows = drawn(lambda: ae.Autoencoder.from_sizes(7, [3], KEY), 1), jnp.asarray(DATA, "float32")

    def loss(strength):
        return ae.ReconstructionObjective(l1=strength)(model, None, rows, KEY)[0]

    losses = quick(jax.vmap(loss))(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-4)
    assert losses[1] > losses[0]


def test_what_is_learned_and_what_is_not():
    fixed, learned = (ae.GaussianOutput(scale) for scale in (1.0, jnp.ones(7)))
    for output, expected in ((fixed, 0), (learned, 1)):
        model = ae.Autoencoder.from_sizes(7, [3], KEY, output=output)
        assert len(jax.tree.leaves(eqx.filter(model.output, eqx.is_inexact_array))) == expected
