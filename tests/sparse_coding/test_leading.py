"""Gradients along a dictionary's leading axes: what they leave out, and that codes do not depend on it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import relative_gap
from sklearn.decomposition import sparse_encode

from neurojax.convergence import Status
from neurojax.penalties import L1, ElasticNet, NonNegativeL1
from neurojax.sparse_coding import Dictionary, SpaRSA, encode_batch
from neurojax.sparse_coding._leading import LeadingSquares, leading_axes
from neurojax.sparse_coding._problem import make_problem

N_FEATURES, N_ATOMS = 64, 160


def make_dictionary(decay: float, dtype=np.float32) -> Dictionary:
    """Atoms whose variance along the k-th axis falls like exp(−decay·k), in a basis at an angle."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(N_FEATURES, N_FEATURES)))[0]
    spread = np.exp(-decay * np.arange(N_FEATURES) / 2)
    atoms = (rng.normal(size=(N_ATOMS, N_FEATURES)) * spread) @ turn
    return Dictionary((atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(dtype))


STEEP, FLAT = make_dictionary(0.15), make_dictionary(0.0)


def draw_data(dictionary: Dictionary, n: int = 40):
    rng = np.random.default_rng(1)
    codes = rng.laplace(size=(n, N_ATOMS)) * (rng.random((n, N_ATOMS)) < 0.1)
    x = codes @ np.asarray(dictionary.atoms) + 0.05 * rng.normal(size=(n, N_FEATURES))
    return x.astype(dictionary.atoms.dtype)


axes_of = jax.jit(leading_axes)


@jax.jit
def problem_of(dictionary, x):
    axes = leading_axes(dictionary.atoms)
    problem = make_problem(dictionary, x, L1(0.1))
    return eqx.tree_at(lambda p: p.smooth, problem, LeadingSquares(problem.smooth, axes, x @ axes.basis))


@pytest.mark.parametrize(("dictionary", "expected"), [(STEEP, True), (FLAT, False)])
def test_is_steep_is_what_the_eigenvalues_say(dictionary, expected):
    axes = axes_of(dictionary.atoms)
    atoms, basis = np.asarray(dictionary.atoms, np.float64), np.asarray(axes.basis, np.float64)
    largest = np.linalg.eigvalsh(atoms.T @ atoms)[-1]
    left_out = np.linalg.eigvalsh(atoms @ (np.eye(N_FEATURES) - basis @ basis.T) @ atoms.T)
    assert bool(axes.is_steep) == expected
    assert (left_out[-1] <= largest / 8) == expected
    assert left_out[0] > -1e-5 * largest  # M ≼ G: the basis does not overshoot
    assert largest < float(axes.lipschitz) < 1.1 * largest


def test_the_basis_is_nearly_orthonormal_and_leads():
    axes = axes_of(STEEP.atoms)
    lengths = np.linalg.svd(np.asarray(axes.basis, np.float64), compute_uv=False)
    assert lengths.max() < 1 + 1e-5
    assert lengths.min() > 0.9
    atoms = np.asarray(STEEP.atoms, np.float64)
    best = np.linalg.svd(atoms, compute_uv=False)[: N_FEATURES // 2]
    found = np.linalg.svd(atoms @ np.asarray(axes.basis, np.float64), compute_uv=False)
    assert np.sum(found**2) > 0.99 * np.sum(best**2)


@jax.jit
def points_of(problem, start, value):
    smooth = problem.smooth
    point = smooth.point(start)
    near = smooth.point_near(point, value)
    return point, near, smooth.curvature_between(point, near, jnp.ones(())), smooth.point_at_zero()


@pytest.mark.parametrize("dictionary", [STEEP, FLAT])
def test_a_point_near_has_the_gradient_of_the_leading_axes_or_the_exact_one(dictionary):
    problem = problem_of(dictionary, draw_data(dictionary)[0])
    axes = axes_of(dictionary.atoms)
    rng = np.random.default_rng(2)
    start, value = rng.normal(size=(2, N_ATOMS)).astype(np.float32)
    point, near, bent, _ = points_of(problem, start, value)
    atoms = np.asarray(dictionary.atoms, np.float64)
    along = atoms @ np.asarray(axes.basis, np.float64) if bool(axes.is_steep) else atoms
    change = (value.astype(np.float64) - start) @ along
    np.testing.assert_allclose(near.gradient, point.gradient + change @ along.T, rtol=0, atol=1e-4)
    np.testing.assert_allclose(bent, np.sum(change**2), rtol=1e-4)


def test_from_zero_the_same_point_is_known_without_a_product():
    zero = np.zeros(N_ATOMS, np.float32)
    computed, _, _, known = points_of(problem_of(STEEP, draw_data(STEEP)[0]), zero, zero)
    for one, other in zip(jax.tree.leaves(known), jax.tree.leaves(computed), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "penalty",
    [
        ElasticNet(0.05, 0.01),
        pytest.param(L1(0.05), marks=pytest.mark.slow),
        pytest.param(NonNegativeL1(0.05), marks=pytest.mark.slow),
    ],
    ids=["elastic", "l1", "nonnegative"],
)
@pytest.mark.parametrize("dictionary", [STEEP, FLAT], ids=["steep", "flat"])
def test_every_code_is_certified_from_the_dictionary_itself(dictionary, penalty):
    xs, atoms = draw_data(dictionary), np.asarray(dictionary.atoms, np.float64)
    solution = encode_batch(dictionary, xs, penalty, tol=1e-5)
    assert np.all(solution.status == Status.converged)
    terms = 0.05, 0.01 if isinstance(penalty, ElasticNet) else 0.0, isinstance(penalty, NonNegativeL1)
    gaps = [relative_gap(atoms, x, z, *terms) for x, z in zip(xs, solution.value, strict=True)]
    assert np.max(gaps) <= 1.05e-5
    np.testing.assert_allclose(
        solution.residual, gaps, atol=8 * np.finfo(np.float32).eps
    )  # the least tolerance


@pytest.mark.slow
def test_in_double_precision_codes_are_exact(x64):
    dictionary = make_dictionary(0.15, np.float64)
    xs = draw_data(dictionary, 8)
    solution = encode_batch(dictionary, xs, L1(0.05), tol=1e-13)
    assert np.all(solution.status == Status.converged)
    expected = sparse_encode(xs, np.asarray(dictionary.atoms), algorithm="lasso_lars", alpha=0.05)
    np.testing.assert_allclose(solution.value, expected, atol=1e-6)


def test_careful_blocks_do_not_raise_the_energy_though_axes_are_left_out():
    solver = SpaRSA(block_size=16)

    @jax.jit
    def careful_blocks(problem):
        def block(state, _):
            state = solver.step(problem, state._replace(is_careful=jnp.ones((), bool)))
            energy = problem.smooth.value_at(state.point) + 0.1 * jnp.sum(jnp.abs(state.point.value))
            return state, energy

        return jax.lax.scan(block, solver.init(problem, jnp.zeros(N_ATOMS)), length=20)[1]

    energies = careful_blocks(problem_of(STEEP, draw_data(STEEP)[0]))
    assert np.all(np.diff(energies) <= 1e-5 * abs(energies[0]))
    assert energies[-1] < energies[0]
