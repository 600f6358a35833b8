"""Pursuits against scikit-learn and against their definitions."""

from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from neurojax.convergence import Status
from neurojax.sparse_coding import Dictionary, matching_pursuit, orthogonal_matching_pursuit


@pytest.mark.parametrize("n_steps", [1, 12])
def test_orthogonal_pursuit_is_scikit_learns(n_steps, small, x64):
    atoms, xs = small
    codes = jax.vmap(lambda x: orthogonal_matching_pursuit(Dictionary(atoms), x, n_steps=n_steps).value)(xs)
    expected = orthogonal_mp(atoms.T, xs.T, n_nonzero_coefs=n_steps).T
    np.testing.assert_allclose(codes, expected, atol=1e-10)


def test_orthogonal_pursuit_recovers_what_is_sparse_and_stops(small, x64):
    atoms, _ = small
    code = np.zeros(30)
    code[[3, 11]] = [2.0, -1.0]
    for scale in (np.ones(30), np.linspace(0.5, 3, 30)):  # the length of an atom does not matter
        scaled = atoms * scale[:, None]
        solution = orthogonal_matching_pursuit(Dictionary(scaled), code @ scaled, n_steps=10)
        np.testing.assert_allclose(solution.value, code, atol=1e-12)
        assert solution.n_steps == 2 and solution.status == Status.converged


def test_orthogonal_pursuit_survives_duplicate_atoms(small):
    atoms, xs = (np.asarray(a, np.float32) for a in small)
    doubled = Dictionary(np.concatenate([atoms, atoms]))
    solution = jax.vmap(lambda x: orthogonal_matching_pursuit(doubled, x, n_steps=25))(xs)
    assert np.all(np.isfinite(solution.value)) and np.all(solution.residual < 1e-3)


def test_matching_pursuit_is_its_definition(small, x64):
    atoms, xs = small
    scaled = atoms * np.linspace(0.5, 3, 30)[:, None]
    error, code = xs[0].copy(), np.zeros(30)
    for _ in range(7):
        lengths = np.linalg.norm(scaled, axis=1)
        best = np.argmax(np.abs(scaled @ error) / lengths)
        change = scaled[best] @ error / lengths[best] ** 2
        code[best] += change
        error -= change * scaled[best]
    solution = matching_pursuit(Dictionary(scaled), xs[0], n_steps=7)
    np.testing.assert_allclose(solution.value, code, atol=1e-12)
    np.testing.assert_allclose(solution.residual, np.linalg.norm(error) / np.linalg.norm(xs[0]))
    loose = matching_pursuit(Dictionary(scaled), xs[0], n_steps=1000, tol=0.1)
    assert loose.status == Status.converged and loose.residual <= 0.1 and loose.n_steps < 1000


def test_zero_datum_needs_no_atom_and_nan_is_a_status(small):
    atoms, _ = small
    for pursuit in (matching_pursuit, orthogonal_matching_pursuit):
        pursuit = eqx.filter_jit(partial(pursuit, Dictionary(atoms), n_steps=4))
        solution = pursuit(np.zeros(20))
        assert solution.n_steps == 0 and solution.status == Status.converged and not np.any(solution.value)
        assert pursuit(np.full(20, np.nan)).status == Status.nonfinite


def test_bad_input_is_named(small, untyped):
    atoms, xs = small
    with pytest.raises(ValueError, match="n_steps: expected at most 30, the number of atoms, got 31"):
        orthogonal_matching_pursuit(Dictionary(atoms), xs[0], n_steps=31)
    for pursuit in (matching_pursuit, orthogonal_matching_pursuit):
        with pytest.raises(ValueError, match="n_steps: expected a whole number ≥ 1, got 0"):
            pursuit(Dictionary(atoms), xs[0], n_steps=0)
        with pytest.raises(ValueError, match=r"x: expected 1 axes \(features\), got shape \(8, 20\)"):
            pursuit(Dictionary(atoms), xs, n_steps=2)
