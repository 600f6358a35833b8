"""Settings that reach what they name, and baselines that see what they may."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.cli._decode_settings import Learning, network_of
from neurojax.cli._encode import _baselines
from neurojax.cli._encode_settings import Stimuli
from neurojax.cli._rbm import _prepare
from neurojax.cli._rbm_settings import Settings

NOTHING = np.zeros(0)


def stimuli(images, train):
    return Stimuli(
        images, NOTHING, 360.0, train, train[None], NOTHING, NOTHING, 1, "none", NOTHING, False, {}
    )


def test_baselines_of_held_out_angles_see_the_other_angles_alone():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(6, 3)).astype(np.float32)
    images = jnp.asarray(rng.normal(size=(6, 2, 2)), jnp.float32)
    of_folds = [np.array([0, 3]), np.array([1, 4]), np.array([2, 5])]
    found = _baselines(stimuli(images, train), of_folds)
    for held in of_folds:
        others = np.setdiff1d(np.arange(6), held)
        expected = np.tile(train[others].mean(axis=0), (2, 1))
        np.testing.assert_allclose(found["null"][held], expected, rtol=1e-5, atol=1e-6)
        changed = train.copy()
        changed[held] += 1  # what is held out must not reach its own prediction
        again = _baselines(stimuli(images, changed), of_folds)
        np.testing.assert_array_equal(again["linear"][held], found["linear"][held])


@pytest.mark.parametrize(
    "name, l1, l2",
    [
        ("network-classifier", 0.0, 0.0),
        ("network-classifier-l1", 0.25, 0.0),
        ("network-classifier-l2", 0.0, 0.5),
        ("network-classifier-l1-l2", 0.25, 0.5),
    ],
)
def test_a_network_has_the_strengths_of_its_name(name, l1, l2):
    network = network_of(name, Learning(l1=0.25, l2=0.5), n_neurons=10)
    assert (network.l1, network.l2) == (l1, l2)


def test_the_weights_of_a_machine_have_the_scale_that_was_asked_for():
    settings = Settings()
    plain = _prepare(settings, None).rbm.weights
    scaled = dataclasses.replace(settings, model=dataclasses.replace(settings.model, weight_scale=0.5))
    found = _prepare(scaled, None).rbm.weights
    np.testing.assert_allclose(found, plain * 0.5 / settings.model.weight_scale, rtol=1e-5)
