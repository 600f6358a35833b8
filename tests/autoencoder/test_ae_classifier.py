"""The softmax head: its probabilities, gradient, and a task that it learns without error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from autoencoder_truth import finite_differences, flat, moved, prototypes, quick

from neurojax import autoencoder as ae
from neurojax.metrics import classification_error
from neurojax.training import fit

KEY = jax.random.key(0)


def classifier(dtype="float64"):
    return moved(
        ae.Classifier.from_autoencoder(ae.Autoencoder.from_sizes(12, [6, 5], KEY, dtype=dtype), 4), 0
    )


def test_log_probabilities_are_those_of_a_softmax(x64):
    model = classifier()
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(5, 12)))
    came = np.asarray(quick(jax.vmap(model.log_probabilities))(rows))
    y = np.asarray(rows)
    for layer in model.layers:
        y = 1 / (1 + np.exp(-(y @ np.asarray(layer.weight).T + np.asarray(layer.bias))))
    scores = np.exp(y @ np.asarray(model.head.weight).T + np.asarray(model.head.bias))
    np.testing.assert_allclose(np.exp(came), scores / scores.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(np.exp(came).sum(axis=1), np.ones(5), rtol=1e-13)
    np.testing.assert_array_equal(quick(jax.vmap(model.predict))(rows), scores.argmax(axis=1))


def test_probabilities_of_scores_that_saturate():
    model = jax.tree.map(lambda x: 1e4 * x, classifier("float32"))
    rows, labels = jnp.ones((2, 12)), jnp.array([0, 1])

    def loss(model):
        return ae.ClassificationObjective()(model, None, (rows, labels), KEY)[0]

    value, slope = quick(jax.value_and_grad(loss))(model)
    assert np.isfinite(value) and value > 100 and np.isfinite(flat(slope)).all()


def test_loss_and_gradient(x64):
    model, labels = classifier(), jnp.array([0, 3, 2, 1, 3])
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(5, 12)))
    objective = ae.ClassificationObjective(ae.GaussianNoise(0.1))

    def loss(model):
        return objective(model, None, (rows, labels), KEY)[0]

    log_p = np.asarray(quick(jax.vmap(model.log_probabilities))(ae.GaussianNoise(0.1)(rows, KEY)))
    value, (state, metrics) = quick(objective)(model, None, (rows, labels), KEY)
    np.testing.assert_allclose(value, -log_p[np.arange(5), labels].mean(), rtol=1e-12)
    assert state is None
    np.testing.assert_allclose(metrics["classification_error"], np.mean(log_p.argmax(axis=1) != labels))
    came = flat(quick(jax.grad(loss))(model))
    np.testing.assert_allclose(came, finite_differences(loss, model), rtol=1e-6, atol=1e-9)


def test_the_start_knows_nothing_and_takes_the_encoder(x64):
    autoencoder = ae.Autoencoder.from_sizes(12, [6], KEY, activation=jnp.tanh)
    model, x = ae.Classifier.from_autoencoder(autoencoder, 3), jnp.ones(12)
    np.testing.assert_allclose(model.log_probabilities(x), np.full(3, -np.log(3)), rtol=1e-14)
    np.testing.assert_array_equal(model.encode(x), autoencoder.encode(x))
    assert model.n_classes == 3 and model.n_features == 12 and model.head.weight.dtype == "float64"


def test_a_separable_task_is_learned_without_error():
    rows, labels = prototypes(0, 80, flip=0.02)
    autoencoder = ae.Autoencoder.from_sizes(12, [8], KEY)
    result = fit(
        ae.Classifier.from_autoencoder(autoencoder, 4),
        ae.ClassificationObjective(),
        (jnp.asarray(rows, "float32"), jnp.asarray(labels)),
        optimizer=optax.adam(0.02),
        n_steps=200,
        batch_size=20,
        key=KEY,
        progress=False,
    )
    assert result.history["classification_error"][-1] == 0 < result.history["classification_error"][0]
    rows, labels = prototypes(1, 80, flip=0.0)
    scores = quick(jax.vmap(result.model.log_probabilities))(jnp.asarray(rows, "float32"))
    assert classification_error(scores, labels) == 0 and len(set(labels)) == 4
    # The encoder is fine-tuned as well.
    assert np.abs(result.model.layers[0].weight - autoencoder.encoder[0].weight).max() > 0.01
