"""The null distribution of a decoder's score: each entry is the score of a permutation of its own."""

import jax
import numpy as np

from neurojax import neural_coding as nc


def test_every_entry_is_the_score_of_its_own_permutation():
    rng = np.random.default_rng(0)
    angles = np.tile(np.arange(0.0, 360.0, 45.0), 5)
    responses = rng.normal(size=(len(angles), 6)) + np.cos(np.deg2rad(angles))[:, None]
    numbers = np.arange(len(angles))
    splits = [(numbers[numbers % 5 != fold], numbers[numbers % 5 == fold]) for fold in range(5)]
    decoder, key = nc.SinCosRidge(360), jax.random.key(3)
    found = nc.chance_level(decoder, responses, angles, splits, nc.mean_circular_error, key, n_permutations=3)
    assert len(np.unique(found)) == 3
    for value, permutation_key in zip(found, jax.random.split(key, 3), strict=True):
        order = np.asarray(jax.random.permutation(permutation_key, len(angles)))
        scored = nc.cross_validate(decoder, responses, angles[order], splits).score(nc.mean_circular_error)
        np.testing.assert_allclose(value, scored.value, rtol=1e-5)
