"""The softmax head: its probabilities, gradient, and a task that it learns without error."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_truth import (
    array,
    drawn,
    finite_differences,
    flat,
    prototypes,
    quick,
)

from neurojax import autoencoder as ae
from neurojax.training import fit

KEY = jax.random.key(0)


def classifier(dtype="float64", scale=0.8):
    def make():
        return ae.Classifier.from_autoencoder(ae.Autoencoder.from_sizes(12, [6, 5], KEY, dtype=dtype), 4)

    return drawn(make, 0, scale)


def scores_of(model, rows):
    """The scores before the softmax, in NumPy."""
    y = rows
    for layer in model.layers:
        y = 1 / (1 + np.exp(-(y @ np.asarray(layer.weight).T + np.asarray(layer.bias))))
    return y @ np.asarray(model.head.weight).T + np.asarray(model.head.bias)


ROWS = np.random.default_rng(0).normal(size=(5, 12))


def test_log_probabilities_are_those_of_a_softmax(x64):
    model = classifier()
    run = quick(lambda rows: (jax.vmap(model.log_probabilities)(rows), jax.vmap(model.predict)(rows)))
    log_p, predicted = map(np.asarray, run(ROWS))
    scores = np.exp(scores_of(model, ROWS))
    np.testing.assert_allclose(np.exp(log_p), scores / scores.sum(axis=1, keepdims=True), rtol=1e-12)
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), np.ones(5), rtol=1e-13)
    np.testing.assert_array_equal(predicted, scores.argmax(axis=1))


def test_probabilities_of_scores_that_saturate():
    model = classifier("float32", 1e4)

    def loss(model, rows, labels):
        return ae.ClassificationObjective()(model, None, (rows, labels), KEY)[0]

    value, slope = quick(jax.value_and_grad(loss))(
        model, np.ones((2, 12), "float32"), np.array([0, 1], "int32")
    )
    assert np.isfinite(value) and value > 100 and np.isfinite(flat(slope)).all()


def test_loss_and_gradient(x64):
    model, labels = classifier(), np.array([0, 3, 2, 1, 3])
    objective = ae.ClassificationObjective(ae.GaussianNoise(0.1))

    @quick
    def run(model, rows, labels):
        came = jax.value_and_grad(objective, has_aux=True)(model, None, (rows, labels), KEY)
        return *came, ae.GaussianNoise(0.1)(rows, KEY)

    (value, (state, metrics)), slope, noisy = run(model, ROWS, labels)
    scores = scores_of(model, np.asarray(noisy))
    losses = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(5), labels]
    np.testing.assert_allclose(value, losses.mean(), rtol=1e-12)
    assert state is None
    np.testing.assert_allclose(metrics["classification_error"], np.mean(scores.argmax(axis=1) != labels))
    expected = finite_differences(lambda model: run(model, ROWS, labels)[0][0], model)
    np.testing.assert_allclose(flat(slope), expected, rtol=1e-6, atol=1e-9)


def test_the_start_knows_nothing_and_takes_the_encoder(x64):
    autoencoder = drawn(lambda: ae.Autoencoder.from_sizes(12, [6], KEY, activation=jnp.tanh), 0)
    model, x = ae.Classifier.from_autoencoder(autoencoder, 3), np.ones(12)
    run = quick(lambda x: (model.log_probabilities(x), model.encode(x), autoencoder.encode(x)))
    log_p, code, expected = run(x)
    np.testing.assert_allclose(log_p, np.full(3, -np.log(3)), rtol=1e-14)
    np.testing.assert_array_equal(code, expected)
    assert model.n_classes == 3 and model.n_features == 12 and model.head.weight.dtype == "float64"


@pytest.mark.slow
def test_a_separable_task_is_learned_without_error():
    rows, labels = prototypes(0, 80, flip=0.02)
    autoencoder = ae.Autoencoder.from_sizes(12, [8], KEY)
    result = fit(
        ae.Classifier.from_autoencoder(autoencoder, 4),
        ae.ClassificationObjective(),
        (array(rows, "float32"), array(labels)),
        optimizer=optax.adam(0.02),
        n_steps=200,
        batch_size=20,
        key=KEY,
        progress=False,
    )
    assert result.history["classification_error"][-1] == 0 < result.history["classification_error"][0]
    rows, labels = prototypes(1, 80, flip=0.0)
    scores = quick(lambda rows: jax.vmap(result.model.log_probabilities)(rows))(rows.astype("float32"))
    assert np.all(np.argmax(scores, axis=1) == labels) and len(set(labels)) == 4
    # The encoder is fine-tuned as well.
    change = np.subtract(result.model.layers[0].weight, autoencoder.encoder[0].weight)
    assert np.abs(change).max() > 0.01
