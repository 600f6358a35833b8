"""Group and sorted penalties under `encode`: a gap certifies them, ties are differentiated."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import duality_gap

from neurojax import sparse_coding
from neurojax.convergence import Status, conditioning
from neurojax.penalties import L1, MCP, SCAD, SLOPE, GroupL2, Quadratic, SparseGroupL2, TopK
from neurojax.sparse_coding import Dictionary, SpaRSA, encode_batch, make_problem

RNG = np.random.default_rng(0)
ATOMS = RNG.normal(size=(24, 16))
ATOMS = ATOMS / np.linalg.norm(ATOMS, axis=1, keepdims=True)
XS = RNG.normal(size=(6, 16))
STRENGTHS = np.linspace(0.4, 0.05, 24)
CERTIFIED = {
    "groups": lambda dtype: GroupL2(dtype(0.3), 3),
    "sparse groups": lambda dtype: SparseGroupL2(dtype(0.1), dtype(0.2), 3),
    "sorted": lambda dtype: SLOPE(STRENGTHS.astype(dtype)),
    "quadratic": lambda dtype: Quadratic(dtype(0.3)),
}


@pytest.mark.parametrize(
    "kind", ["sorted", *(pytest.param(k, marks=pytest.mark.slow) for k in CERTIFIED if k != "sorted")]
)
def test_codes_are_certified_in_single_precision_by_the_gap_in_double(kind, x64):
    single = Dictionary(ATOMS.astype(np.float32))
    penalty = CERTIFIED[kind](np.float32)
    found = encode_batch(single, XS.astype(np.float32), penalty, tol=1e-5)
    assert np.all(found.status == Status.converged)
    exact = Dictionary(np.asarray(single.atoms, float))
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), penalty)
    xs = XS.astype(np.float32).astype(float)
    gaps = [duality_gap(exact, x, np.asarray(z, float), wide) for x, z in zip(xs, found.value, strict=True)]
    assert np.all(np.array(gaps) <= 1.1e-5 * 0.5 * np.sum(xs**2, axis=1))


def sorted_code(step, push, strengths, solver):
    """Return a code under SLOPE along a line of atoms, data and strengths."""
    atoms, x = ATOMS + step * push["atoms"], XS[0] + step * push["x"]
    penalty = SLOPE(strengths + step * push["strengths"])
    settings = {"tol": 1e-14, "max_steps": 100_000, "solver": solver}
    return sparse_coding.encode(Dictionary(atoms), x, penalty, **settings).value


def test_derivatives_through_tied_clusters_are_those_of_finite_differences(x64):
    strengths = np.geomspace(1.2, 0.05, 24)
    push = {"atoms": RNG.normal(size=ATOMS.shape), "x": RNG.normal(size=16)}
    push["strengths"] = -np.sort(RNG.uniform(size=24))
    code = eqx.filter_jit(lambda step: sorted_code(step, push, strengths, SpaRSA()))
    found = np.abs(np.asarray(code(0.0)))
    sizes, counts = np.unique(found[found > 0], return_counts=True)
    assert np.max(counts) >= 3 and len(sizes) >= 2  # several are tied, and not all
    size = 1e-6
    expected = (code(size) - code(-size)) / (2 * size)
    _, slope = eqx.filter_jit(lambda: jax.jvp(code, (0.0,), (1.0,)))()
    np.testing.assert_allclose(slope, expected, atol=1e-6)
    report = conditioning(make_problem(Dictionary(ATOMS), XS[0], SLOPE(strengths)), code(0.0))
    assert int(report.n_free) == len(sizes) and not report.is_degenerate


@pytest.mark.slow
def test_equal_strengths_are_l1_ties_and_all(x64):
    pair = SLOPE(np.full(24, 0.2)), L1(0.2)
    codes = [encode_batch(Dictionary(ATOMS), XS, penalty, tol=1e-12).value for penalty in pair]
    np.testing.assert_allclose(*codes, atol=1e-6)


@pytest.mark.parametrize("penalty", [MCP(0.2, 3.0), SCAD(0.2, 3.7), TopK(4)], ids=["mcp", "scad", "top-k"])
def test_penalties_that_are_not_convex_stop_where_a_step_moves_nothing(penalty):
    atoms, xs = ATOMS.astype(np.float32), XS.astype(np.float32)
    found = encode_batch(Dictionary(atoms), xs, penalty, tol=1e-4, max_steps=20_000)
    assert np.all(found.status == Status.converged)
    lipschitz = 1.001 * np.linalg.eigvalsh(atoms @ atoms.T)[-1]
    codes = np.asarray(found.value)
    moved = penalty_step(penalty, codes - (codes @ atoms - xs) @ atoms.T / lipschitz, lipschitz)
    assert np.max(np.linalg.norm(moved - codes, axis=1)) < 1e-3 * np.max(np.linalg.norm(codes, axis=1))


def penalty_step(penalty, v, lipschitz):
    return np.asarray(jax.vmap(lambda row: penalty.prox(row, 1 / lipschitz))(jnp.asarray(v)))
