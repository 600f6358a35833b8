"""`encode_batch` against scikit-learn, against `encode` row by row, and against a certificate in NumPy."""

from functools import cache, partial

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


EQUAL = np.full(30, 0.1)
BELOW_ZERO = np.random.default_rng(0).normal(size=(8, 30)) - 0.5
KINDS = {
    "l1": {"l1": EQUAL},
    "per-atom": {"l1": PER_ATOM},
    "forbidden": {"l1": FORBIDDEN},
    "nonnegative": {"l1": EQUAL, "is_nonnegative": True},
    "nonnegative-forbidden": {"l1": FORBIDDEN, "is_nonnegative": True},
    "elastic": {"l1": 0.1, "l2": 0.3},
}


def tightly(l1, l2=None, is_nonnegative=False):
    """Encode under a penalty, the non-negative one from a start below zero, which it has to leave."""
    if l2 is not None:
        return encode_batch(Dictionary(ATOMS), XS, ElasticNet(l1, l2), n_slots=3)  # at the default tolerance
    if is_nonnegative:
        return encode_batch(Dictionary(ATOMS), XS, NonNegativeL1(l1), init=BELOW_ZERO, **TIGHT)
    return encode_batch(Dictionary(ATOMS), XS, L1(l1), **TIGHT)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")  # scikit-learn's, at atoms of 0
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_scikit_learns_and_each_is_certified(kind, x64):
    truth = KINDS[kind]
    found = tightly(**truth)
    assert np.all(found.status == Status.converged)
    tol = 1e-10 if kind == "elastic" else 1e-13
    # The elastic net is strongly convex: ½·l2·‖z − z*‖² ≤ gap.
    atol = np.sqrt(tol * np.max(np.sum(XS**2, axis=1)) / 0.3) if kind == "elastic" else 1e-6
    np.testing.assert_allclose(found.value, [by_scikit_learn(x, **truth) for x in XS], rtol=0, atol=atol)
    gaps = [relative_gap(ATOMS, x, code, **truth) for x, code in zip(XS, found.value, strict=True)]
    assert np.max(gaps) <= 1.1 * tol
    np.testing.assert_allclose(found.residual, gaps, rtol=0.01, atol=2e-15)
    jax.tree.map(np.testing.assert_array_equal, found, tightly(**truth))


@pytest.mark.parametrize("strength", [1e-3, 1e-4])
def test_where_the_penalty_is_weak_rows_need_fista_as_well(strength, x64):
    found = tightly(np.full(30, strength))
    assert np.all(found.status == Status.converged)
    assert np.max(found.n_steps) > 128  # some rows needed more than SpaRSA was given
    gaps = [relative_gap(ATOMS, x, code, l1=strength) for x, code in zip(XS, found.value, strict=True)]
    assert np.max(gaps) <= 1.1e-13


FREE_IN_PART = np.where(np.arange(30) < 8, 0.0, 0.1)
FREE = {
    "l1": {"l1": 0 * EQUAL},
    "nonnegative": {"l1": 0 * EQUAL, "is_nonnegative": True},
    "ridge": {"l1": 0.0, "l2": 0.3},
    "in-part": {"l1": FREE_IN_PART},
    "nonnegative-in-part": {"l1": FREE_IN_PART, "is_nonnegative": True},
}


@pytest.mark.parametrize("kind", FREE)
def test_where_the_strength_is_zero_codes_are_least_squares(kind, x64):
    truth = FREE[kind]
    found = tightly(**truth)
    assert np.all(found.status == Status.converged)
    codes, strength = np.asarray(found.value), truth["l1"]
    pull = (XS - codes @ ATOMS) @ ATOMS.T - truth.get("l2", 0) * codes
    np.testing.assert_allclose(np.where(codes != 0, pull - strength * np.sign(codes), 0), 0, atol=1e-9)
    if truth.get("is_nonnegative"):
        assert np.all(codes >= 0)
        assert np.all(pull <= strength + 1e-9)
    else:
        assert np.all(np.abs(pull) <= strength + 1e-9)


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


def test_sparsa_takes_penalties_without_a_gap(x64):
    """Group codes, against the conditions of optimality group by group."""
    run = {"tol": 1e-11, "max_steps": 20000, "steps_per_check": 10}
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
    clean = encode_batch(Dictionary(ATOMS), XS, L1(EQUAL), **TIGHT)
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    broken = XS[order]
    broken[1, 3], broken[4, 0], broken[6, :], broken[7] = np.nan, np.inf, -np.inf, 0
    dirty = encode_batch(Dictionary(ATOMS), broken, L1(EQUAL), **TIGHT)
    assert dirty.status.tolist() == [0, 2, 0, 0, 2, 0, 2, 0]
    others = np.array([0, 2, 3, 5])
    assert np.all(dirty.residual[others] <= 1e-13)
    np.testing.assert_allclose(dirty.value[others], clean.value[order[others]], atol=1e-6)
    assert dirty.n_steps[7] == dirty.residual[7] == 0
    np.testing.assert_array_equal(dirty.value[7], 0)
    all_zero = encode_batch(Dictionary(ATOMS), 0 * XS, L1(EQUAL), **TIGHT)
    assert np.all(all_zero.status == Status.converged)
    np.testing.assert_array_equal(all_zero.value, 0)


def test_rows_do_not_touch_each_other_bit_for_bit(x64):
    clean = encode_batch(Dictionary(ATOMS), XS, L1(EQUAL), **TIGHT)
    broken = XS.copy()
    broken[3, 7] = np.nan
    dirty = encode_batch(Dictionary(ATOMS), broken, L1(EQUAL), **TIGHT)
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


@pytest.mark.parametrize("strength", [1e-9, 0.1, 1e9])
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
    for row, x, code in zip(exact, xs, codes, strict=True):
        on = code != 0
        signs = np.sign(code[on])
        row[on] = np.linalg.solve(atoms[on] @ atoms[on].T, atoms[on] @ x - strength * signs)
        assert np.all(np.sign(row[on]) == signs)
        assert np.all(np.abs(atoms @ (x - row @ atoms)) <= strength + 1e-9)
    return exact


STRENGTHS = np.array([0.1, 0.25])


@cache
def mapped_gradients(mode, solver):
    """Return (atoms, xs, strengths, init) ↦ solutions and gradients of their weighted sums."""
    run = {"gradient": mode, "solver": solver, "n_slots": 3, "tol": 1e-13, "max_steps": 2000}

    def one(atoms, xs, strength, init):
        def loss(point):
            atoms, xs, strength, init = point
            solution = encode_batch(Dictionary(atoms), xs, L1(strength), init=init, **run)
            return jnp.sum(WEIGHTS * solution.value), solution

        slopes, solution = jax.grad(loss, has_aux=True)((atoms, xs, strength, init))
        return solution, slopes

    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, None)))


WEIGHTS = np.random.default_rng(5).normal(size=(8, 30))


@pytest.mark.parametrize(
    ("mode", "solver", "accuracy"),
    [
        (Implicit(), None, 1e-5),
        (Unrolled(), None, 1e-3),
        pytest.param(Truncated(300), None, 1e-3, marks=pytest.mark.slow),
        pytest.param(Unrolled(), FISTA(), 1e-3, marks=pytest.mark.slow),
        pytest.param(Truncated(300), FISTA(), 1e-3, marks=pytest.mark.slow),
    ],
    ids=["implicit", "unrolled", "truncated", "unrolled-fista", "truncated-fista"],
)
def test_gradients_in_atoms_data_and_strength_are_finite_differences(mode, solver, accuracy, x64):
    """Under ``jit``, where everything is a tracer, and under ``vmap`` over strengths."""
    point = ATOMS, XS, STRENGTHS, np.zeros((8, 30))
    found, slopes = mapped_gradients(mode, solver)(*point)
    assert np.all(found.status == Status.converged)
    rng = np.random.default_rng(6)
    direction = rng.normal(size=ATOMS.shape), rng.normal(size=XS.shape), np.array(0.7)
    for k, strength in enumerate(STRENGTHS):
        codes = np.array([by_scikit_learn(x, strength) for x in XS])
        np.testing.assert_allclose(found.value[k], codes, atol=1e-5)
        moves = list(zip((ATOMS, XS, strength), direction, strict=True))
        for i in range(3):

            def moved(step, i=i, moves=moves, codes=codes):
                atoms, xs, strength = (p + step * d * (j == i) for j, (p, d) in enumerate(moves))
                return np.sum(WEIGHTS * exact_codes(atoms, xs, strength, codes))

            expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
            np.testing.assert_allclose(np.sum(slopes[i][k] * direction[i]), expected, rtol=accuracy)
    if isinstance(mode, Implicit):
        np.testing.assert_array_equal(slopes[3], 0)  # a solution does not depend on the start


def test_a_start_is_used_and_left_and_at_the_solution_it_stays(x64):
    solve = mapped_gradients(Implicit(), None)
    exact = exact_codes(ATOMS, XS, 0.1, np.array([by_scikit_learn(x, EQUAL) for x in XS]))
    found, _ = solve(ATOMS, XS, STRENGTHS, exact)
    np.testing.assert_array_equal(found.n_steps[0], 0)
    np.testing.assert_array_equal(found.value[0], exact)
    assert np.all(found.n_steps[1] > 0)
    far, _ = solve(ATOMS, XS, STRENGTHS, XS @ ATOMS.T)
    np.testing.assert_allclose(far.value[0], exact, atol=1e-6)


def test_a_zero_row_with_a_start_is_held_to_the_absolute_gap(x64):
    """Its relative gap would be a number by zero."""
    is_third = np.arange(8)[:, None] == 2
    found, slopes = mapped_gradients(Implicit(), None)(
        ATOMS, np.where(is_third, 0, 1e3 * XS), STRENGTHS, np.where(is_third, 5.0, np.zeros((8, 30)))
    )
    assert found.status[0, 2] == Status.converged
    assert found.n_steps[0, 2] > 0
    code = np.asarray(found.value[0, 2])
    assert 0.5 * np.sum((code @ ATOMS) ** 2) + 0.1 * np.abs(code).sum() <= 1e-13  # the least energy is 0
    assert all(np.all(np.isfinite(slope)) for slope in slopes)
