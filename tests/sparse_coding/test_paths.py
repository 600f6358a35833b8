"""Paths over strengths for many rows, and strengths chosen by held-out energy and by activity."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import encode

from neurojax import sparse_coding
from neurojax.convergence import Status
from neurojax.penalties import L1, MCP, GroupL2
from neurojax.sparse_coding import ISTA, Dictionary, max_strength, strength_by_activity, strength_by_held_out

encode_path_batch = eqx.filter_jit(sparse_coding.encode_path_batch)
RNG = np.random.default_rng(0)
ATOMS = RNG.normal(size=(30, 20))
ATOMS = (ATOMS / np.linalg.norm(ATOMS, axis=1, keepdims=True)).astype(np.float32)
CODES = (RNG.random((40, 30)) < 0.1) * RNG.normal(size=(40, 30))
XS = (CODES @ ATOMS + 0.1 * RNG.normal(size=(40, 20))).astype(np.float32)
DICTIONARY = Dictionary(ATOMS)


def test_each_row_has_its_own_path_and_survives_zero_and_broken_data():
    xs = XS[:5].copy()
    xs[1], xs[2, 3] = 0, np.nan
    largest = jax.vmap(partial(max_strength, DICTIONARY))(jnp.asarray(xs))
    strengths = np.asarray(largest) * np.geomspace(1, 0.05, 4, dtype=np.float32)[:, None]
    strengths[:, 2] = 0.1  # a broken datum has no largest strength
    path = encode_path_batch(DICTIONARY, xs, L1(strengths), penalty_axis=0)
    assert path.value.shape == (4, 5, 30)
    expected = np.full((4, 5), Status.converged)
    expected[:, 2] = Status.nonfinite
    np.testing.assert_array_equal(path.status, expected)
    assert not np.any(np.asarray(path.value)[0, [0, 1, 3, 4]]) and not np.any(np.asarray(path.value)[:, 1])
    for row in (0, 4):
        alone = encode(DICTIONARY, xs[row], L1(strengths[-1, row]), tol=1e-6).value
        np.testing.assert_allclose(path.value[-1, row], alone, atol=1e-2)
    cold = encode(DICTIONARY, xs[0], L1(strengths[-1, 0])).n_steps
    assert path.n_steps[-1, 0] <= cold


def test_the_wanted_number_of_units_is_active():
    strength = strength_by_activity(DICTIONARY, XS, 4.0)
    for factor, is_more in ((0.97, True), (1.03, False)):
        codes = sparse_coding.encode_batch(DICTIONARY, XS, L1(factor * strength)).value
        assert (np.mean(np.sum(np.asarray(codes) != 0, axis=1)) >= 4.0) == is_more


def test_where_nothing_is_known_no_strength_is_chosen():
    strengths = np.geomspace(2, 0.02, 3, dtype=np.float32)
    settings = {"solver": ISTA(), "max_steps": 4, "steps_per_check": 4}
    choice = strength_by_held_out(DICTIONARY, XS, strengths, jax.random.key(0), **settings)
    assert np.isnan(choice.strength) and np.all(np.isinf(choice.held_out)) and choice.converged[-1] == 0
    assert np.isnan(strength_by_activity(DICTIONARY, np.full_like(XS, np.nan), 4.0))
    identity, ones = Dictionary(np.eye(4, dtype=np.float32)), np.ones((1, 4), np.float32)
    groups = strength_by_activity(identity, ones, 0.5, penalty=lambda s: GroupL2(s, 4))
    np.testing.assert_allclose(groups, 2, rtol=5e-3)  # the norm of the datum, not its largest entry


def test_held_out_entries_choose_a_strength_between_noise_and_nothing():
    strengths = 2.0 * np.geomspace(1, 1e-3, 9, dtype=np.float32)
    choice = strength_by_held_out(DICTIONARY, XS, strengths, jax.random.key(0), share=0.2)
    held_out = np.asarray(choice.held_out)
    best = int(np.argmin(held_out))
    assert 0 < best < 8 and float(choice.strength) == strengths[best]
    assert held_out[best] < 0.8 * held_out[0] and np.all(np.diff(choice.n_active) >= 0)
    # At the strongest all codes are zero, and the energy held out is that of the data.
    is_held = np.asarray(jax.random.uniform(jax.random.key(0), XS.shape) < 0.2)
    strongest = strength_by_held_out(DICTIONARY, XS, np.float32([100]), jax.random.key(0), share=0.2)
    np.testing.assert_allclose(strongest.held_out[0], 0.5 * np.mean(XS[is_held] ** 2), rtol=1e-5)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="penalties: expected strengths with one common leading axis"):
        sparse_coding.encode_path_batch(DICTIONARY, XS, L1(0.1))
    with pytest.raises(ValueError, match="share: expected"):
        strength_by_held_out(DICTIONARY, XS, np.float32([0.1]), jax.random.key(0), share=1.5)
    with pytest.raises(ValueError, match="weights: expected no such argument here"):
        strength_by_activity(DICTIONARY, XS, 2, weights=XS)
    with pytest.raises(ValueError, match=r"penalties: .* got strength \(2,\), gamma \(\); jax.vmap\(MCP\)"):
        sparse_coding.encode_path_batch(DICTIONARY, XS, MCP(jnp.ones(2)))
    with pytest.raises(ValueError, match="n_active: expected"):
        strength_by_activity(DICTIONARY, XS, 0)
