"""Greedy learning: layers, codes between them, and going on from a folder."""

import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_truth import (
    array,
    flat,
    prototypes,
    quick,
)

from neurojax import autoencoder as ae
from neurojax.training import fit

KEY = jax.random.key(5)
ROWS = array(prototypes(0, 60)[0], "float32")
SIZES = (6, 4)
OBJECTIVES = [
    ae.ReconstructionObjective(corruption=ae.MaskingNoise(0.2)),
    ae.ReconstructionObjective(loss="squared_error"),
]
# One optimiser: a new one would be compiled anew.
RUN = {"optimizer": optax.sgd(0.1), "n_steps": 150, "batch_size": 20, "progress": False}


def stack(**settings):
    settings = {"objectives": OBJECTIVES, "key": KEY, **RUN, **settings}
    return ae.fit_stacked_autoencoder(ROWS, SIZES, **settings)


def start_of_layer(i, n_features):
    """The layer that learning starts with, and the key it goes on with."""
    model_key, fit_key = jax.random.split(jax.random.fold_in(KEY, i))
    return ae.Autoencoder.from_sizes(n_features, [SIZES[i]], model_key), fit_key


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def learned(folder):
    return stack(folder=folder)


def test_each_layer_is_learned_by_its_objective_from_the_codes_below(learned):
    rows, layers = ROWS, []
    for i in range(len(SIZES)):
        layer, fit_key = start_of_layer(i, rows.shape[1])
        result = fit(layer, OBJECTIVES[i], rows, key=fit_key, **RUN)
        history = learned.histories[i]["loss"]
        np.testing.assert_array_equal(history, result.history["loss"])
        assert history[-20:].mean() < 0.9 * history[:5].mean()  # the greedy loss of each falls
        rows = eqx.filter_jit(lambda m, rows: jax.vmap(m.encode)(rows))(result.model, rows)
        layers.append(result.model)
    model = learned.autoencoder
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(flat(model.encoder[i]), flat(layer.encoder))
        np.testing.assert_array_equal(flat(model.decoder[-1 - i]), flat(layer.decoder))
    # The stack encodes and decodes from layer to layer.
    x = ROWS[0]

    @quick
    def by_hand(x):
        code = layers[1].encode(layers[0].encode(x))
        return code, layers[0].decode(layers[1].decode(code))

    came = quick(lambda x: (model.encode(x), model.reconstruct(x)))(x)
    for one, other in zip(came, by_hand(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert model.n_code == 4 and model.n_features == 12 and model.is_tied


def test_without_pretraining_it_is_the_start_of_the_same_key():
    """Of which the test above has that learning goes on from there."""
    start = stack(is_pretrained=False)
    assert start.histories == ()
    for i, n_features in enumerate((12, 6)):
        layer, _ = start_of_layer(i, n_features)
        np.testing.assert_array_equal(flat(start.autoencoder.encoder[i]), flat(layer.encoder))
        np.testing.assert_array_equal(flat(start.autoencoder.decoder[-1 - i]), flat(layer.decoder))
    other = stack(is_pretrained=False, key=jax.random.key(6))
    assert np.abs(flat(other.autoencoder) - flat(start.autoencoder)).max() > 0.1


def test_the_same_call_goes_on_from_its_folder(learned, folder):
    # As if cut off between the layers: the first is read, the second learned again.
    shutil.rmtree(folder / "layer_1")
    again = stack(folder=folder)
    np.testing.assert_array_equal(flat(again.autoencoder), flat(learned.autoencoder))
    for one, other in zip(again.histories, learned.histories, strict=True):
        np.testing.assert_array_equal(one["loss"], other["loss"])
    assert len((folder / "layer_1" / "metrics.jsonl").read_text().splitlines()) == 150


@pytest.mark.slow
def test_other_activations_hand_means_down():
    start = stack(is_pretrained=False, activation=jnp.tanh, output=ae.GaussianOutput(0.5), is_tied=False)
    model, x = start.autoencoder, ROWS[0]
    below = ae.Autoencoder(model.encoder[:1], model.decoder[1:], ae.GaussianOutput(0.5), jnp.tanh)
    above = ae.Autoencoder(model.encoder[1:], model.decoder[:1], ae.GaussianOutput(), jnp.tanh)

    def by_hand(x):
        return below.decode(above.decode(above.encode(below.encode(x))))

    np.testing.assert_allclose(quick(model.reconstruct)(x), quick(by_hand)(x), rtol=1e-5, atol=1e-6)
    assert model.output.scale == 0.5 and not model.is_tied
