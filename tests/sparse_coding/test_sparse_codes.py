"""Codes held by their active units: the dense codes again, under jit and grad, and never cut in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import lasso
from scipy.sparse import csr_array

from neurojax.convergence import (
    Detached,
    Implicit,
    NotConvergedError,
    Solution,
    Status,
    raise_unless_converged,
)
from neurojax.penalties import L1
from neurojax.sparse_coding import FISTA, Dictionary, SparseCodes, encode_batch, sparse_codes
from neurojax.sparse_coding._sparse_codes import keep_largest

PENALTY = L1(0.1)


@pytest.fixture(scope="module")
def problem(small):
    """The dictionary, the data, their dense solution and how many units of each code are active."""
    atoms, xs = (np.asarray(a, np.float32) for a in small)
    solution = encode_batch(Dictionary(atoms), xs, PENALTY, solver=FISTA())
    return Dictionary(atoms), xs, solution, np.sum(np.asarray(solution.value) != 0, axis=1)


def test_both_forms_give_the_dense_codes_back(problem):
    dictionary, xs, dense, n_active = problem
    width = int(np.max(n_active)) + 2
    sparse = encode_batch(dictionary, xs, PENALTY, solver=FISTA(), max_active=width)
    assert isinstance(sparse.value, SparseCodes) and sparse.value.indices.shape == (len(xs), width)
    np.testing.assert_array_equal(sparse.value.to_dense(), dense.value)
    matrix = sparse.value.to_scipy()
    assert isinstance(matrix, csr_array) and matrix.nnz == np.sum(n_active) and matrix.has_sorted_indices
    np.testing.assert_array_equal(matrix.toarray(), dense.value)
    for name in ("status", "n_steps", "residual"):
        np.testing.assert_array_equal(getattr(sparse, name), getattr(dense, name))


def test_the_largest_come_first_and_unused_places_are_marked(problem):
    dense, n_active = np.asarray(problem[2].value), problem[3]
    codes = sparse_codes(dense, 30)
    for row, n, indices, values in zip(dense, n_active, codes.indices, codes.values, strict=True):
        expected = np.argsort(-np.abs(row), kind="stable")[:n]
        np.testing.assert_array_equal(indices, np.concatenate([expected, np.full(30 - n, 30)]))
        np.testing.assert_array_equal(values, np.concatenate([row[expected], np.zeros(30 - n)]))


def test_narrow_codes_keep_the_largest(problem):
    dense = np.asarray(problem[2].value)
    kept = np.asarray(sparse_codes(dense, 2).to_dense())
    least_kept = np.sort(np.abs(dense), axis=1)[:, -2:-1]
    np.testing.assert_array_equal(kept, np.where(np.abs(dense) >= least_kept, dense, 0))


def test_outside_jit_a_code_that_does_not_fit_is_an_error(problem):
    dictionary, xs, _, n_active = problem
    allowed = int(np.min(n_active))
    first = int(np.flatnonzero(n_active > allowed)[0])
    message = rf"at most {allowed} non-zero .* got {n_active[first]} in row {first}, the first of "
    with pytest.raises(ValueError, match=message):
        encode_batch(dictionary, xs, PENALTY, solver=FISTA(), max_active=allowed)


def test_a_broken_row_is_nonfinite_and_no_error(problem):
    dictionary, xs, _, n_active = problem
    broken = xs.copy()
    broken[3, 1] = np.nan
    solution = encode_batch(dictionary, broken, PENALTY, solver=FISTA(), max_active=int(np.max(n_active)))
    expected = np.where(np.arange(len(xs)) == 3, Status.nonfinite, Status.converged)
    np.testing.assert_array_equal(solution.status, expected)
    lost = Solution(np.full((1, 30), np.nan, np.float32), *(jnp.array([x]) for x in (2, 5, np.nan)))
    kept = keep_largest(lost, 2)
    assert kept.status == Status.nonfinite and np.all(np.isnan(kept.value.values))


WIDTH = 6
WEIGHTS = np.random.default_rng(0).normal(size=(8, 30))


def encode(point, gradient):
    atoms, strength, xs = point
    settings = {"solver": FISTA(), "gradient": gradient, "tol": 1e-13, "max_active": WIDTH}
    return encode_batch(Dictionary(atoms), xs, L1(strength), **settings)


inside_jit = jax.jit(lambda point: encode(point, Detached()))


@pytest.fixture
def narrow(small, x64):
    """Atoms, strength and data; the codes; and which of these do not fit into the width."""
    atoms, xs = small
    codes = np.array([lasso(atoms, x, 0.1) for x in xs])
    is_cut = np.sum(codes != 0, axis=1) > WIDTH
    assert 0 < np.sum(is_cut) < 8
    return (atoms, np.array(0.1), xs), codes, is_cut


def test_inside_jit_a_code_that_does_not_fit_has_a_status(narrow):
    point, codes, is_cut = narrow
    solution = inside_jit(point)
    np.testing.assert_array_equal(solution.status, np.where(is_cut, Status.truncated, Status.converged))
    found = np.asarray(solution.value.to_dense())
    np.testing.assert_allclose(found[~is_cut], codes[~is_cut], atol=1e-6)
    assert np.all(np.sum(found != 0, axis=1) == np.minimum(np.sum(codes != 0, axis=1), WIDTH))
    with pytest.raises(NotConvergedError, match=f"{np.sum(is_cut)} truncated"):
        raise_unless_converged(solution)


# Not jitted, a gradient sees statuses that may or may not be tracers.
@pytest.mark.parametrize("is_jitted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_implicit_gradients_flow_through_the_values(narrow, is_jitted):
    (atoms, strength, xs), _, is_cut = narrow
    point = atoms, strength, xs[np.flatnonzero(~is_cut)[np.arange(8) % np.sum(~is_cut)]]

    def loss(point):
        return jnp.sum(WEIGHTS * encode(point, Implicit()).value.to_dense() ** 2)

    slopes = (jax.jit(jax.grad(loss)) if is_jitted else jax.grad(loss))(point)
    rng = np.random.default_rng(1)
    for i in range(3):
        direction = [rng.normal(size=np.shape(leaf)) * (i == k) for k, leaf in enumerate(point)]

        def value(step, direction=direction):
            codes = inside_jit(tuple(p + step * d for p, d in zip(point, direction, strict=True))).value
            return np.sum(WEIGHTS * np.asarray(codes.to_dense()) ** 2)

        slope = np.sum(slopes[i] * direction[i])
        np.testing.assert_allclose(slope, (value(1e-6) - value(-1e-6)) / 2e-6, rtol=1e-5)


def test_bad_input_is_named(problem, untyped):
    dictionary, xs, dense, _ = problem
    cases = [
        (lambda: sparse_codes(dense.value, 0), "width: expected a whole number ≥ 1, got 0"),
        (lambda: sparse_codes(dense.value, 31), "width: expected at most the number of atoms, 30, got 31"),
        (lambda: sparse_codes(dense.value[0], 3), r"codes: expected 2 axes \(samples atoms\), got shape"),
        (lambda: sparse_codes(np.ones((2, 3), complex), 2), "codes: expected real .* got dtype complex"),
        (lambda: SparseCodes(np.ones((2, 3), int), np.ones((2, 2)), 5), "indices: expected shape"),
        (lambda: SparseCodes(np.ones((2, 3), int), np.ones((2, 3)), 0), "n_atoms: expected a whole number"),
        (
            lambda: encode_batch(dictionary, xs, PENALTY, solver=FISTA(), max_active=0),
            "max_active: expected a whole number ≥ 1, got 0",
        ),
        (
            lambda: encode_batch(dictionary, xs, PENALTY, solver=FISTA(), max_active=31),
            "max_active: expected at most the number of atoms, 30, got 31",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
