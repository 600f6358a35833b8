"""Settings that reach what they name, and baselines that see what they may."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import training
from neurojax.cli import _sparse_coding
from neurojax.cli._decode_settings import Learning, network_of
from neurojax.cli._encode import _baselines
from neurojax.cli._encode_settings import Settings as EncodeSettings
from neurojax.cli._encode_settings import Stimuli
from neurojax.cli._encode_settings import check as check_encode
from neurojax.cli._rbm import _prepare
from neurojax.cli._rbm_settings import Settings
from neurojax.cli._sparse_coding_settings import Settings as SparseCodingSettings
from neurojax.runs import RunFolder

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


@pytest.mark.slow
def test_the_weights_of_a_machine_have_the_scale_that_was_asked_for():
    def weights(scale):
        model = dataclasses.replace(Settings().model, weight_scale=scale)
        return _prepare(dataclasses.replace(Settings(), model=model), None).rbm.weights

    np.testing.assert_allclose(weights(0.5), 50 * weights(None), rtol=1e-5)  # 0.01 as documented


@pytest.fixture
def sparse_coding_task(monkeypatch):
    """A run that is about to learn from one image, bright in the columns that are held out."""
    image = np.random.default_rng(0).uniform(size=(24, 64)).astype(np.float32)
    image[:, 28:36] += 10
    monkeypatch.setattr(_sparse_coding, "read_images", lambda settings: [jnp.asarray(image)])
    settings = SparseCodingSettings()
    learning = dataclasses.replace(settings.learning, n_steps=7, replace_after=3, patience=5, seed=4)
    settings = dataclasses.replace(
        settings,
        learning=learning,
        data=dataclasses.replace(settings.data, preprocess="none"),
        model=dataclasses.replace(settings.model, n_atoms=8, patch_size=8),
    )
    return settings, _sparse_coding._prepare(settings, None)


def test_evaluation_is_on_columns_that_learning_never_sees(sparse_coding_task):
    _, task = sparse_coding_task
    assert task.patches.min() > 5
    assert task.sampler(jax.random.key(0)).max() < 5


def test_what_was_asked_of_learning_reaches_it(sparse_coding_task, monkeypatch, tmp_path):
    settings, task = sparse_coding_task
    given = {}

    def fit(dictionary, objective, sampler, **settings):
        given.update(settings)
        return training.FitResult(dictionary, None, None, training.History())

    monkeypatch.setattr(training, "fit", fit)
    _sparse_coding._learn(settings, RunFolder(tmp_path), task, None)
    assert given["after_update"].replace_after == 3
    assert given["after_update"].objective is task.objective
    assert (given["n_steps"], given["evaluate"].patience, given["evaluate"].keep_best) == (7, 5, True)
    assert given["checkpoint"].every == settings.learning.checkpoint_every
    assert given["state"].n_unused_steps.shape == (8,)


def test_two_angles_are_enough_and_one_is_not():
    settings = EncodeSettings()
    two, one = (
        dataclasses.replace(settings, data=dataclasses.replace(settings.data, n_angles=n)) for n in (2, 1)
    )
    assert check_encode(two).word == "simulated"
    with pytest.raises(ValueError, match="n_angles: expected a whole number ≥ 2, got 1"):
        check_encode(one)
