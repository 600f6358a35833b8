"""`encode_batch` against scikit-learn, against `encode` row by row, and against a certificate in NumPy."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_problem
from conftest_encode import relative_gap
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import Lasso

from neurojax.convergence import Implicit, Status, Truncated, Unrolled
from neurojax.penalties import L0, L1, Cauchy, ElasticNet, GroupL2, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import (
    FISTA,
    ISTA,
    LCA,
    CoordinateDescent,
    Dictionary,
    Gradient,
    SpaRSA,
    encode,
    encode_batch,
)

ATOMS, XS = random_problem(8, 20, 30)
PER_ATOM = np.linspace(0.02, 0.4, 30)
FORBIDDEN = np.where(np.arange(30) % 7 == 3, np.inf, 0.1)
# One setting for most of the tests: what they share is compiled once. Fewer slots than rows, so rows queue.
TIGHT = {"tol": 1e-13, "max_steps": 20000, "n_slots": 3}


def by_scikit_learn(x, l1, l2=0.0, is_nonnegative=False):
    """Return the code by coordinate descent; strengths per atom by scaling the atoms."""
    weights = np.broadcast_to(l1, 30)
    atoms = ATOMS / weights[:, None] if l2 == 0 else ATOMS
    run = {"fit_intercept": False, "tol": 1e-12, "max_iter": 10**6, "positive": is_nonnegative}
    if l2:
        return SkElasticNet((l1 + l2) / 20, l1_ratio=l1 / (l1 + l2), **run).fit(atoms.T, x).coef_
    return Lasso(1 / 20, **run).fit(atoms.T, x).coef_ / weights


EQUAL, ZEROS = np.full(30, 0.1), np.zeros((8, 30))


@jax.jit
def encode_l1(atoms, xs, strength, init):
    """Encode under L1, with everything a tracer."""
    return encode_batch(Dictionary(atoms), xs, L1(strength), init=init, **TIGHT)


def solve(xs, init=ZEROS, strength=EQUAL):
    return jax.device_get(encode_l1(ATOMS, xs, strength, init))


FREE_IN_PART = np.where(np.arange(30) < 8, 0.0, 0.1)
STRENGTHS = {
    "l1": EQUAL,
    "per-atom": PER_ATOM,
    "forbidden": FORBIDDEN,
    "weak": np.full(30, 1e-3),
    "weaker": np.full(30, 1e-4),
}


def assert_certified(found, truth, tol):
    assert np.all(found.status == Status.converged)
    gaps = [relative_gap(ATOMS, x, code, **truth) for x, code in zip(XS, found.value, strict=True)]
    assert np.max(gaps) <= 1.1 * tol
    np.testing.assert_allclose(found.residual, gaps, rtol=0.01, atol=2e-15)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")  # scikit-learn's, at atoms of 0
@pytest.mark.parametrize("kind", ["l1", "per-atom", "forbidden"])
def test_l1_codes_are_scikit_learns_and_each_is_certified(kind, x64):
    found, truth = solve(XS, strength=STRENGTHS[kind]), {"l1": STRENGTHS[kind]}
    assert_certified(found, truth, 1e-13)
    np.testing.assert_allclose(found.value, [by_scikit_learn(x, **truth) for x in XS], atol=1e-6)


@pytest.mark.parametrize("kind", ["weak", "weaker"])
def test_where_the_penalty_is_weak_rows_need_fista_as_well(kind, x64):
    found = solve(XS, strength=STRENGTHS[kind])
    assert_certified(found, {"l1": STRENGTHS[kind]}, 1e-13)
    assert np.max(found.n_steps) > 128  # some rows needed more than SpaRSA was given


def nonnegative(strength):
    """Encode from a start below zero, which codes have to leave."""
    init = np.random.default_rng(0).normal(size=(8, 30)) - 0.5
    return encode_batch(Dictionary(ATOMS), XS, NonNegativeL1(strength), init=init, **TIGHT)


def elastic(l1, l2):
    """Encode at the default tolerance."""
    return encode_batch(Dictionary(ATOMS), XS, ElasticNet(l1, l2), n_slots=3)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
@pytest.mark.parametrize("strength", [EQUAL, FORBIDDEN], ids=["equal", "forbidden"])
def test_nonnegative_codes_are_scikit_learns_and_each_is_certified(strength, x64):
    found, truth = nonnegative(strength), {"l1": strength, "is_nonnegative": True}
    assert_certified(found, truth, 1e-13)
    np.testing.assert_allclose(found.value, [by_scikit_learn(x, **truth) for x in XS], atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found, nonnegative(strength))


def distance_at(tol, l2):
    """Return how far a code of a relative gap may lie: the energy is convex by ½·l2·‖z − z*‖² ≤ gap."""
    return np.sqrt(tol * np.max(np.sum(XS**2, axis=1)) / l2)


@pytest.mark.slow
def test_elastic_net_codes_are_scikit_learns_and_each_is_certified(x64):
    found, truth = elastic(0.1, 0.3), {"l1": 0.1, "l2": 0.3}
    assert_certified(found, truth, 1e-10)
    expected = [by_scikit_learn(x, **truth) for x in XS]
    np.testing.assert_allclose(found.value, expected, rtol=0, atol=distance_at(1e-10, 0.3))


def assert_least_squares(found, strength, is_nonnegative=False):
    assert np.all(found.status == Status.converged)
    codes = np.asarray(found.value)
    pull = (XS - codes @ ATOMS) @ ATOMS.T
    np.testing.assert_allclose(np.where(codes != 0, pull - strength * np.sign(codes), 0), 0, atol=1e-9)
    assert np.all((pull if is_nonnegative else np.abs(pull)) <= strength + 1e-9)
    assert np.all(codes >= 0) or not is_nonnegative


def test_where_the_strength_is_zero_codes_are_least_squares(x64):
    for strength in (0 * EQUAL, FREE_IN_PART):
        assert_least_squares(solve(XS, strength=strength), strength)
        assert_least_squares(nonnegative(strength), strength, is_nonnegative=True)


@pytest.mark.slow
def test_where_the_elastic_net_has_no_l1_codes_are_those_of_ridge_regression(x64):
    found = elastic(0.0, 0.3)
    ridge = XS @ ATOMS.T @ np.linalg.inv(ATOMS @ ATOMS.T + 0.3 * np.eye(len(ATOMS)))
    assert np.all(found.status == Status.converged)
    np.testing.assert_allclose(found.value, ridge, rtol=0, atol=distance_at(1e-10, 0.3))


@pytest.mark.slow
def test_strengths_may_be_mapped(x64):
    strengths = np.array([EQUAL, PER_ATOM])
    found = jax.jit(jax.vmap(encode_l1, (None, None, 0, None)))(ATOMS, XS, strengths, ZEROS)
    for codes, strength in zip(found.value, strengths, strict=True):
        np.testing.assert_allclose(codes, [by_scikit_learn(x, strength) for x in XS], atol=1e-6)


OTHERS = {
    "fista": (FISTA(), lambda: L1(0.1)),
    "ista": (ISTA(), lambda: L1(0.1)),
    "lca": (LCA(), lambda: L1(0.1)),
    "coordinates": (CoordinateDescent(), lambda: L1(0.1)),
    "gradient": (Gradient(optax.sgd(0.2, momentum=0.8)), lambda: SmoothL1(0.1, 0.01)),
    "l0": (None, lambda: L0(0.005)),
    "log": (None, lambda: Log(0.01)),
    "cauchy": (None, lambda: Cauchy(0.1, 0.5)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_solvers_and_penalties_give_what_each_row_gives_alone(name, x64):
    solver, penalty = OTHERS[name]
    run = {"tol": 1e-11, "max_steps": 20000, "steps_per_check": 10}
    found = encode_batch(Dictionary(ATOMS), XS, penalty(), solver=solver, n_slots=2, **run)
    one = partial(encode, Dictionary(ATOMS), penalty=penalty(), solver=solver or FISTA(), **run)
    expected = eqx.filter_jit(jax.vmap(one))(XS)
    assert np.all(found.status == Status.converged)
    assert np.all(expected.status == Status.converged)
    np.testing.assert_allclose(found.value, expected.value, atol=1e-5)
    np.testing.assert_array_equal(found.n_steps, expected.n_steps)
    assert np.all(found.residual <= 1e-11)


@pytest.mark.slow
def test_sparsa_takes_groups(x64):
    """Group codes, against the conditions of optimality group by group."""
    run = {"tol": 4e-15, "max_steps": 20000, "steps_per_check": 10}
    found = encode_batch(Dictionary(ATOMS), XS, GroupL2(0.2, 2), solver=SpaRSA(), **run)
    assert np.all(found.status == Status.converged)
    codes = np.asarray(found.value)
    pull = ((XS - codes @ ATOMS) @ ATOMS.T).reshape(8, 15, 2)
    groups = codes.reshape(8, 15, 2)
    length = np.linalg.norm(groups, axis=2, keepdims=True)
    is_on = length > 0
    assert 0 < np.mean(is_on) < 1
    np.testing.assert_allclose(
        np.where(is_on, pull - 0.2 * groups / np.where(is_on, length, 1), 0), 0, atol=1e-9
    )
    assert np.all(np.linalg.norm(pull, axis=2, keepdims=True)[~is_on] <= 0.2)


def test_no_row_takes_more_steps_than_it_may():
    """Though 7 is no multiple of the 3 steps between two looks."""
    found = encode_batch(Dictionary(ATOMS), XS, L1(0.001), tol=1e-6, max_steps=7, steps_per_check=3)
    assert np.all(found.n_steps == 7)
    assert np.all(found.status == Status.max_steps_reached)
    gaps = [relative_gap(ATOMS, x, code, 0.001) for x, code in zip(XS, found.value, strict=True)]
    np.testing.assert_allclose(found.residual, gaps, rtol=1e-3)


def test_broken_and_zero_rows_leave_the_others_alone_in_any_order(x64):
    clean = solve(XS)
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    broken = XS[order]
    broken[1, 3], broken[4, 0], broken[6, :], broken[7] = np.nan, np.inf, -np.inf, 0
    dirty = solve(broken)
    assert dirty.status.tolist() == [0, 2, 0, 0, 2, 0, 2, 0]
    others = np.array([0, 2, 3, 5])
    assert np.all(dirty.residual[others] <= 1e-13)
    np.testing.assert_allclose(dirty.value[others], clean.value[order[others]], atol=1e-6)
    assert dirty.n_steps[7] == dirty.residual[7] == 0
    np.testing.assert_array_equal(dirty.value[7], 0)
    all_zero = solve(0 * XS)
    assert np.all(all_zero.status == Status.converged)
    np.testing.assert_array_equal(all_zero.value, 0)


def test_rows_do_not_touch_each_other_bit_for_bit(x64):
    clean = solve(XS)
    broken = XS.copy()
    broken[3, 7] = np.nan
    dirty = solve(broken)
    others = np.delete(np.arange(8), 3)
    np.testing.assert_allclose(dirty.value[others], clean.value[others], atol=1e-14)
    np.testing.assert_array_equal(dirty.n_steps[others], clean.n_steps[others])


@pytest.mark.slow
@pytest.mark.parametrize("n_slots", [1, 5, 100])
def test_order_and_slots_change_nothing_beyond_the_certificate(n_slots, x64):
    order = np.random.default_rng(0).permutation(24)
    xs = np.concatenate([XS, 3 * XS, XS[::-1]])
    expected = encode_batch(Dictionary(ATOMS), xs, L1(0.1), tol=1e-12)
    found = encode_batch(Dictionary(ATOMS), xs[order], L1(0.1), tol=1e-12, n_slots=n_slots)
    assert np.all(found.residual <= 1e-12)
    np.testing.assert_allclose(found.value, expected.value[order], atol=1e-5)
    np.testing.assert_allclose(expected.value[:8], expected.value[:15:-1], atol=1e-5)


def square_problem():
    """As many atoms as features, well conditioned: quick at any strength, in any unit."""
    rng = np.random.default_rng(2)
    atoms = np.linalg.qr(rng.normal(size=(12, 12)))[0] + 0.05 * rng.normal(size=(12, 12))
    return np.asarray(atoms, np.float32), rng.normal(size=(13, 12))


SCALES = 10.0 ** np.arange(-18, 19, 3)


@pytest.mark.parametrize("strength", [1e-9, 0.1, pytest.param(1e9, marks=pytest.mark.slow)])
def test_rows_of_every_scale_in_one_batch_are_certified_in_their_own_dtype(strength, x64):
    """Single precision, which a strength of double precision leaves as it is."""
    atoms, xs = square_problem()
    xs = (xs * SCALES[:, None]).astype(np.float32)
    found = encode_batch(Dictionary(atoms), xs, L1(strength), n_slots=5)
    assert found.value.dtype == found.residual.dtype == np.float32
    np.testing.assert_array_equal(found.status, Status.converged)
    atoms = atoms.astype(float)
    gaps = [relative_gap(atoms, x, code, strength) for x, code in zip(xs, found.value, strict=True)]
    assert np.max(gaps) <= 1.02e-5
    np.testing.assert_allclose(found.residual, gaps, rtol=0.05, atol=5e-7)


@pytest.mark.slow
def test_a_row_of_any_scale_alone_is_the_same_in_its_unit():
    atoms, xs = square_problem()
    expected = encode_batch(Dictionary(atoms), xs[:1].astype(np.float32), L1(jnp.float32(0.1))).value
    for scale in 2.0 ** np.array([-60, -30, 30, 60]):
        x = (xs[:1] * scale).astype(np.float32)
        found = encode_batch(Dictionary(atoms), x, L1(jnp.float32(0.1 * scale)))
        assert found.status[0] == Status.converged
        np.testing.assert_array_equal(found.value / scale, expected)


@pytest.mark.slow
def test_a_solvers_array_may_be_a_tracer():
    sizes = jnp.float32(0.2), jnp.float32(0.1)
    found = [
        eqx.filter_jit(encode_batch)(Dictionary(ATOMS), XS, L1(0.1), solver=FISTA(step_size=s)) for s in sizes
    ]
    np.testing.assert_allclose(found[0].value, found[1].value, atol=2e-2)


def exact_codes(atoms, xs, strength, codes):
    """Solve for the codes on their supports and signs, and check that these are optimal."""
    exact = np.zeros_like(codes)
    for found, x, code in zip(exact, xs, codes, strict=True):
        on = code != 0
        signs = np.sign(code[on])
        found[on] = np.linalg.solve(atoms[on] @ atoms[on].T, atoms[on] @ x - strength * signs)
        assert np.all(np.sign(found[on]) == signs)
        assert np.all(np.abs(atoms @ (x - found @ atoms)) <= strength + 1e-9)
    return exact


def test_a_start_is_left_and_at_the_solution_it_stays(x64):
    exact = exact_codes(ATOMS, XS, 0.1, np.array([by_scikit_learn(x, EQUAL) for x in XS]))
    found = solve(XS, exact)
    np.testing.assert_array_equal(found.n_steps, 0)
    np.testing.assert_array_equal(found.value, exact)
    np.testing.assert_allclose(solve(XS, XS @ ATOMS.T).value, exact, atol=1e-6)


def test_a_zero_row_with_a_start_is_held_to_the_absolute_gap(x64):
    """Its relative gap would be a number by zero."""
    is_third = np.arange(8)[:, None] == 2
    found = solve(np.where(is_third, 0, 1e3 * XS), np.where(is_third, 5.0, ZEROS))
    assert found.status[2] == Status.converged
    assert found.n_steps[2] > 0
    code = found.value[2]
    assert 0.5 * np.sum((code @ ATOMS) ** 2) + 0.1 * np.abs(code).sum() <= 1e-13  # the least energy is 0


@pytest.mark.parametrize(
    ("mode", "solver", "accuracy"),
    [
        pytest.param(Implicit(), FISTA(), 1e-5, marks=pytest.mark.slow),
        (Unrolled(), FISTA(), 1e-3),
        pytest.param(Truncated(300), FISTA(), 1e-3, marks=pytest.mark.slow),
        pytest.param(Implicit(), None, 1e-5, marks=pytest.mark.slow),
        pytest.param(Unrolled(), None, 1e-3, marks=pytest.mark.slow),
        pytest.param(Truncated(300), None, 1e-3, marks=pytest.mark.slow),
    ],
    ids=["implicit-fista", "unrolled-fista", "truncated-fista", "implicit", "unrolled", "truncated"],
)
def test_gradients_in_atoms_data_and_strength_are_finite_differences(mode, solver, accuracy, x64):
    rng = np.random.default_rng(5)
    weights = rng.normal(size=(8, 30))
    point = ATOMS, XS, np.array(0.1)
    direction = rng.normal(size=ATOMS.shape), rng.normal(size=XS.shape), np.array(0.7)

    def loss(atoms, xs, strength):
        run = {"gradient": mode, "solver": solver, "n_slots": 3, "tol": 1e-13, "max_steps": 2000}
        return jnp.sum(weights * encode_batch(Dictionary(atoms), xs, L1(strength), **run).value)

    codes = np.array([by_scikit_learn(x, EQUAL) for x in XS])
    slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*point)
    moves = list(zip(point, direction, strict=True))
    for i in range(3):

        def moved(step, i=i):
            atoms, xs, strength = (p + step * d * (j == i) for j, (p, d) in enumerate(moves))
            return np.sum(weights * exact_codes(atoms, xs, strength, codes))

        expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
        np.testing.assert_allclose(np.sum(slopes[i] * direction[i]), expected, rtol=accuracy)
