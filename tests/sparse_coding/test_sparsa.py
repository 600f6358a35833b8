"""SpaRSA: it converges, its safeguard holds where plain Barzilai–Borwein steps fail; what it refuses."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_problem
from conftest_encode import encode, encode_rows, make_problem, trace
from hypothesis import given, settings
from hypothesis import strategies as st

from neurojax import convergence, sparse_coding
from neurojax.convergence import Status
from neurojax.penalties import L1, Cauchy, GroupL2, Log, SmoothL1
from neurojax.sparse_coding import FISTA, Dictionary, SpaRSA


def steep(seed=1, condition=1e4, n=20):
    """As many atoms as features, of singular values from 1 down to 1/√condition, and one datum."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    return (left * np.geomspace(1, condition**-0.5, n)) @ right, rng.normal(size=n)


def least_energy(atoms, x, strength):
    """Return the least energy up to ½‖x‖², by cyclic coordinate descent in NumPy until nothing moves."""
    gram, drive, code = atoms @ atoms.T, atoms @ x, np.zeros(len(atoms))
    for _ in range(20000):
        before = code.copy()
        for i in range(len(atoms)):
            pull = drive[i] - gram[i] @ code + gram[i, i] * code[i]
            code[i] = np.sign(pull) * max(abs(pull) - strength, 0) / gram[i, i]
        if np.max(np.abs(code - before)) < 1e-13:
            break
    return energy_of(gram, drive, code, strength)


def energy_of(gram, drive, code, strength):
    return 0.5 * code @ gram @ code - code @ drive + strength * np.abs(code).sum()


@eqx.filter_jit
def solve(atoms, x, strength, init, solver):
    """Encode to a gap of 1e-9, looked at after every block of four steps."""
    settings = {"tol": 1e-9, "steps_per_check": 1, "max_steps": 100_000}
    return sparse_coding.encode(Dictionary(atoms), x, L1(strength), solver=solver, init=init, **settings)


PENALTIES = {
    "l1": L1(np.full(30, 0.1)),
    "some-free": L1(np.linspace(0, 0.4, 30)),
    "group": GroupL2(0.2, 2),
}


@pytest.mark.parametrize("name", ["l1", "some-free", pytest.param("group", marks=pytest.mark.slow)])
def test_codes_are_fistas(name, small, x64):
    found, expected = (
        encode_rows(*small, PENALTIES[name], solver=solver, tol=1e-12, max_steps=20000)
        for solver in (SpaRSA(), FISTA())
    )
    assert np.all(found.status == Status.converged) and np.all(expected.status == Status.converged)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.floats(0, 30), strength=st.floats(0.01, 0.5))
def test_it_converges_from_anywhere(seed, spread, strength):
    with jax.enable_x64(True):
        atoms, xs = random_problem(1, 20, 30, seed)
        start = spread * np.random.default_rng(seed).normal(size=30)
        found = solve(atoms, xs[0], np.array(strength), start, SpaRSA())
    assert found.status == Status.converged


def watched(states):
    """Return energies in the order of the blocks, and which were careful, from a trace."""
    return np.asarray(states.energies[:, 0]), np.asarray(states.is_careful)


@pytest.mark.parametrize("memory", [1, 8])
@pytest.mark.parametrize("strength", [1e-4, 1e-2])
def test_no_block_ends_above_what_the_safeguard_allows(strength, memory, x64):
    atoms, x = steep()
    problem = make_problem(Dictionary(atoms), x, L1(strength), use_gram=True)
    states = trace(SpaRSA(memory=memory), problem, jnp.zeros(20), 600)
    energies = np.asarray(states.energies)
    slack = 1e-14 * np.abs(energies).max()
    highest, n_blocks = energies[:-1].max(axis=1), np.arange(600)
    rise = (0 - highest) / (1 + n_blocks / 64) ** 4  # F is 0 at the start
    was_careful = np.asarray(states.is_careful)[:-1]
    assert np.all((energies[1:, 0] <= highest + rise + slack) | was_careful)
    assert np.all(energies[1:, 0][was_careful] <= energies[:-1, 0][was_careful] + slack)
    gram, drive = atoms @ atoms.T, atoms @ x
    codes = np.asarray(states.point.value)
    own = [energy_of(gram, drive, code, strength) for code in codes]
    np.testing.assert_allclose(energies[:, 0], own, atol=1e-12)
    np.testing.assert_allclose(states.point.gradient, codes @ gram - drive, atol=1e-12)


def test_blocks_that_rise_are_undone_and_the_next_goes_down(x64):
    atoms, x = steep()
    problem = make_problem(Dictionary(atoms), x, L1(1e-4), use_gram=True)
    states = trace(SpaRSA(memory=1), problem, jnp.zeros(20), 600)
    energies, was_undone = watched(states)
    assert was_undone.sum() > 10  # else this test says nothing
    undone = np.flatnonzero(was_undone)
    np.testing.assert_array_equal(states.point.value[undone], states.point.value[undone - 1])
    np.testing.assert_array_equal(states.energies[undone], states.energies[undone - 1])
    after = undone[undone < 600] + 1
    assert not was_undone[after].any()
    assert np.all(energies[after] <= energies[after - 1])


def test_plain_barzilai_borwein_steps_would_have_risen(x64):
    atoms, x = steep()
    problem = make_problem(Dictionary(atoms), x, L1(1e-4), use_gram=True)
    gram, drive, lipschitz = atoms @ atoms.T, atoms @ x, float(problem.lipschitz)
    code, curvature, energies = np.zeros(20), lipschitz / 2, [0.0]
    for _ in range(600):
        moved = code - (gram @ code - drive) / curvature
        new = np.sign(moved) * np.maximum(np.abs(moved) - 1e-4 / curvature, 0)
        change = new - code
        curvature = np.clip(change @ gram @ change / (change @ change), 1e-3 * lipschitz, lipschitz)
        code = new
        energies.append(energy_of(gram, drive, code, 1e-4))
    blocks = np.array(energies[::4])
    assert np.any(np.diff(blocks) > 1e-6)


@pytest.mark.parametrize("memory", [pytest.param(1, marks=pytest.mark.slow), 8])
@pytest.mark.parametrize("strength", [1e-3, 1e-2])
def test_it_reaches_the_least_energy_of_an_ill_conditioned_problem(strength, memory, x64):
    """Ten of the atoms are there to have the shape of the other problems: no datum needs them."""
    atoms, x = steep(condition=1e3)
    both = np.concatenate([atoms, 1e-6 * np.random.default_rng(5).normal(size=(10, 20))])
    found = solve(both, x, np.array(strength), np.zeros(30), SpaRSA(memory=memory))
    assert found.status == Status.converged and not np.any(found.value[20:])
    energy = energy_of(atoms @ atoms.T, atoms @ x, np.asarray(found.value)[:20], strength)
    assert abs(energy - least_energy(atoms, x, strength)) <= 1e-9 * x @ x


@pytest.mark.parametrize("strength", [1e-1, 1e-2, 1e-3])
def test_where_the_penalty_is_weak_it_takes_at_most_three_times_the_gradients_of_fista(strength, small, x64):
    atoms, xs = small

    def count(solver):
        solutions = [solve(atoms, x, np.array(strength), np.zeros(30), solver) for x in xs[:3]]
        assert all(s.status == Status.converged for s in solutions)
        return sum(int(s.n_steps) for s in solutions)

    assert count(SpaRSA()) <= 3 * count(FISTA())


def test_a_start_far_off_takes_at_most_three_times_the_gradients_of_fista(x64):
    atoms, xs = random_problem(1, 20, 30, 3)
    start = 600 * np.random.default_rng(3).normal(size=30)
    found, other = (solve(atoms, xs[0], np.array(0.1), start, solver) for solver in (SpaRSA(), FISTA()))
    assert found.status == other.status == Status.converged
    assert int(found.n_steps) <= 3 * int(other.n_steps)


def test_a_smooth_penalty_that_is_not_convex_ends_at_a_stationary_point(small, x64):
    atoms, xs = small
    found = encode_rows(atoms, xs, Cauchy(0.1, 0.5), solver=SpaRSA(), tol=1e-11, max_steps=5000)
    assert np.all(found.status == Status.converged)
    codes = np.asarray(found.value)
    error = xs - codes @ atoms
    np.testing.assert_allclose(0.1 * 2 * codes / (0.25 + codes**2), error @ atoms.T, atol=1e-9)
    energies = 0.5 * np.sum(error**2, axis=1) + 0.1 * np.sum(np.log1p((codes / 0.5) ** 2), axis=1)
    assert np.all(energies < 0.5 * np.sum(xs**2, axis=1))


@pytest.mark.parametrize(("dtype", "use_gram"), [(np.float32, True), (np.float64, False)])
def test_dtypes_stay_what_they_are(dtype, use_gram, small, x64):
    atoms, xs = (a.astype(dtype) for a in small)

    def states(x):
        problem = sparse_coding.make_problem(Dictionary(atoms), x, L1(0.1), use_gram=use_gram)
        return convergence.trace(SpaRSA(block_size=2, memory=3), problem, jnp.zeros(30, dtype), 6)

    kinds = {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(states, xs[0]))}
    assert kinds == {np.dtype(dtype), np.dtype(np.int32), np.dtype(bool)}


def test_a_block_of_careful_size_one_is_one_proximal_step(small, x64):
    atoms, xs = small
    problem = make_problem(Dictionary(atoms), xs[0], L1(0.1))
    solver = SpaRSA(block_size=1)
    states = trace(solver, problem, jnp.zeros(30), 5)
    code = np.asarray(states.point.value)
    for i in range(5):
        used = float(states.curvature[i])
        moved = code[i] - (code[i] @ atoms - xs[0]) @ atoms.T / used
        expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.1 / used, 0)
        np.testing.assert_allclose(code[i + 1], expected, atol=1e-12)
        change = code[i + 1] - code[i]
        measured = np.sum((change @ atoms) ** 2) / np.sum(change**2)
        limits = 1e-3 * problem.lipschitz, problem.lipschitz
        np.testing.assert_allclose(states.curvature[i + 1], np.clip(measured, *limits), rtol=1e-9)
        np.testing.assert_allclose(states.movement[i + 1], np.linalg.norm(change), rtol=1e-9)


def test_at_the_solution_it_stays(small, x64):
    xs = small[1]
    problem = make_problem(Dictionary(np.eye(20)), xs[0], L1(0.1))
    exact = np.sign(xs[0]) * np.maximum(np.abs(xs[0]) - 0.1, 0)
    states = trace(SpaRSA(), problem, jnp.asarray(exact), 5)
    np.testing.assert_allclose(states.point.value, np.tile(exact, (6, 1)), atol=1e-15)
    assert np.all(np.isfinite(states.curvature))
    assert np.all(states.curvature > 0)
    states = trace(SpaRSA(), make_problem(Dictionary(np.eye(20)), 0 * xs[0], L1(0.1)), jnp.zeros(20), 5)
    np.testing.assert_array_equal(states.point.value, 0)
    assert np.all(np.isfinite(states.curvature))


def test_it_names_what_it_cannot_take(small, untyped):
    atoms, xs = small
    dictionary, half = Dictionary(atoms), cast(int, 2.5)
    cases = [
        (lambda: SpaRSA(block_size=0), "block_size: expected a whole number ≥ 1, got 0"),
        (lambda: SpaRSA(memory=0), "memory: expected a whole number ≥ 1, got 0"),
        (lambda: SpaRSA(memory=half), "memory: expected a whole number ≥ 1, got 2.5"),
        (lambda: SpaRSA(block_size=True), "block_size: expected a whole number ≥ 1, got True"),
        (
            lambda: encode(dictionary, xs[0], SmoothL1(0.1, 0.1), solver=SpaRSA()),
            "SpaRSA: expected a penalty with a proximal operator, got SmoothL1",
        ),
        (
            lambda: encode(dictionary, xs[0], Log(0.1), solver=SpaRSA()),
            "SpaRSA: expected a penalty with a value, got Log",
        ),
        (
            lambda: sparse_coding.encode_batch(dictionary, xs, Log(0.1), solver=SpaRSA()),
            "SpaRSA: expected a penalty with a value, got Log",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
