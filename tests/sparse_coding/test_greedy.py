"""Pursuits against scikit-learn and against their definitions."""

import equinox as eqx
import jax
import numpy as np
import pytest
from sklearn.linear_model import orthogonal_mp

from neurojax.convergence import Status
from neurojax.sparse_coding import Dictionary, matching_pursuit, orthogonal_matching_pursuit


@eqx.filter_jit
def matched(dictionary, xs, n_steps, **settings):
    return jax.vmap(lambda x: matching_pursuit(dictionary, x, n_steps=n_steps, **settings))(xs)


@eqx.filter_jit
def orthogonally_matched(dictionary, xs, n_steps):
    return jax.vmap(lambda x: orthogonal_matching_pursuit(dictionary, x, n_steps=n_steps))(xs)


@pytest.mark.parametrize("n_steps", [1, 12])
def test_orthogonal_pursuit_is_scikit_learns(n_steps, small, x64):
    atoms, xs = small
    codes = orthogonally_matched(Dictionary(atoms), xs, n_steps).value
    expected = orthogonal_mp(atoms.T, xs.T, n_nonzero_coefs=n_steps).T
    np.testing.assert_allclose(codes, expected, atol=1e-10)


def test_orthogonal_pursuit_recovers_what_is_sparse_and_stops(small, x64):
    atoms, _ = small
    codes = np.zeros((8, 30))
    codes[:, 3], codes[:, 11] = 2.0, -np.arange(1, 9)
    for scale in (np.ones(30), np.linspace(0.5, 3, 30)):  # the length of an atom does not matter
        scaled = atoms * scale[:, None]
        solution = orthogonally_matched(Dictionary(scaled), codes @ scaled, 12)
        np.testing.assert_allclose(solution.value, codes, atol=1e-12)
        assert np.all(solution.n_steps == 2) and np.all(solution.status == Status.converged)


def test_orthogonal_pursuit_survives_duplicate_atoms(small):
    atoms, xs = (np.asarray(a, np.float32) for a in small)
    solution = orthogonally_matched(Dictionary(np.concatenate([atoms, atoms])), xs, 25)
    assert np.all(np.isfinite(solution.value)) and np.all(solution.residual < 1e-3)


def test_matching_pursuit_is_its_definition(small, x64):
    atoms, xs = small
    scaled = atoms * np.linspace(0.5, 3, 30)[:, None]
    errors, codes = xs.copy(), np.zeros((8, 30))
    lengths = np.linalg.norm(scaled, axis=1)
    for error, code in zip(errors, codes, strict=True):
        for _ in range(7):
            best = np.argmax(np.abs(scaled @ error) / lengths)
            change = scaled[best] @ error / lengths[best] ** 2
            code[best] += change
            error -= change * scaled[best]
    solution = matched(Dictionary(scaled), xs, 7)
    np.testing.assert_allclose(solution.value, codes, atol=1e-12)
    residual = np.linalg.norm(errors, axis=1) / np.linalg.norm(xs, axis=1)
    np.testing.assert_allclose(solution.residual, residual)
    loose = matched(Dictionary(scaled), xs, 1000, tol=0.1)
    assert np.all(loose.status == Status.converged)
    assert np.all(loose.residual <= 0.1) and np.all(loose.n_steps < 1000)


def test_zero_datum_needs_no_atom_and_nan_is_a_status(small, x64):
    atoms, xs = small
    xs = xs.copy()
    xs[0], xs[1], xs[2, 5] = 0, np.nan, np.inf
    for pursuit, n_steps in ((matched, 7), (orthogonally_matched, 12)):
        solution = pursuit(Dictionary(atoms), xs, n_steps)
        assert solution.n_steps[0] == 0 and solution.status[0] == Status.converged
        assert not np.any(solution.value[0])
        assert np.all(solution.status[1:3] == Status.nonfinite)
        np.testing.assert_array_equal(
            solution.value[3:], pursuit(Dictionary(atoms), small[1], n_steps).value[3:]
        )


def test_bad_input_is_named(small, untyped):
    atoms, xs = small
    with pytest.raises(ValueError, match="n_steps: expected at most 30, the number of atoms, got 31"):
        orthogonal_matching_pursuit(Dictionary(atoms), xs[0], n_steps=31)
    for pursuit in (matching_pursuit, orthogonal_matching_pursuit):
        with pytest.raises(ValueError, match="n_steps: expected a whole number ≥ 1, got 0"):
            pursuit(Dictionary(atoms), xs[0], n_steps=0)
        with pytest.raises(ValueError, match=r"x: expected 1 axes \(features\), got shape \(8, 20\)"):
            pursuit(Dictionary(atoms), xs, n_steps=2)


@pytest.mark.parametrize("pursuit", [matching_pursuit, orthogonal_matching_pursuit])
def test_slopes_are_finite_differences(pursuit, small, x64):
    atoms, xs = small
    rng = np.random.default_rng(0)
    probe, directions = rng.normal(size=30), (rng.normal(size=atoms.shape), rng.normal(size=20))

    @jax.jit
    @jax.value_and_grad
    def loss(point):
        return probe @ pursuit(Dictionary(point[0]), point[1], n_steps=4).value

    slopes = loss((atoms, xs[0]))[1]
    for which, direction in enumerate(directions):
        ends = []
        for step in (1e-6, -1e-6):
            point = [atoms, xs[0]]
            point[which] = point[which] + step * direction
            ends.append(loss(tuple(point))[0])
        np.testing.assert_allclose(np.sum(slopes[which] * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)
