"""`encode_batch` against scikit-learn, against `encode` row by row, and against a certificate in NumPy."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_problem
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import Lasso

from neurojax.convergence import Detached, Implicit, Status, Truncated, Unrolled
from neurojax.penalties import L0, L1, Cauchy, ElasticNet, GroupL2, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import (
    FISTA,
    ISTA,
    LCA,
    CoordinateDescent,
    Dictionary,
    Gradient,
    SpaRSA,
    SparseCodingObjective,
    encode,
    encode_batch,
)

ATOMS, XS = random_problem(8, 20, 30)
PER_ATOM = np.linspace(0.02, 0.4, 30)
FORBIDDEN = np.where(np.arange(30) % 7 == 3, np.inf, 0.1)
TIGHT = {"tol": 1e-13, "max_steps": 20000}


def relative_gap(x, code, l1, l2=0.0, is_nonnegative=False, atoms=ATOMS):
    """Return the duality gap by ½‖x‖² in float64, with the dual point s·(x − code @ atoms)."""
    x, code = np.asarray(x, float), np.asarray(code, float)
    scale = np.max(np.abs(x))
    x, code, l1 = x / scale, code / scale, np.broadcast_to(l1 / scale, code.shape)
    error = x - code @ atoms
    pull = atoms @ error - l2 * code
    is_allowed = np.isfinite(l1)
    assert np.all(code[~is_allowed] == 0)
    reach = np.max(((pull if is_nonnegative else np.abs(pull)) / l1)[is_allowed])
    dual = min(1, 1 / reach) if reach > 0 else 1
    primal = 0.5 * error @ error + 0.5 * l2 * code @ code + np.sum((l1 * np.abs(code))[is_allowed])
    # The dual of L1 on (x, 0) and the atoms (atoms, √l2): y = dual·(error, −√l2·code).
    other = dual * error @ x - 0.5 * dual**2 * (error @ error + l2 * code @ code)
    return (primal - other) / (0.5 * x @ x)


def by_scikit_learn(x, l1, l2=0.0, is_nonnegative=False):
    """Return the code by coordinate descent; strengths per atom by scaling the atoms."""
    weights = np.broadcast_to(l1, 30)
    atoms = ATOMS / weights[:, None] if l2 == 0 else ATOMS
    run = {"fit_intercept": False, "tol": 1e-12, "max_iter": 10**6, "positive": is_nonnegative}
    if l2:
        return SkElasticNet((l1 + l2) / 20, l1_ratio=l1 / (l1 + l2), **run).fit(atoms.T, x).coef_
    return Lasso(1 / 20, **run).fit(atoms.T, x).coef_ / weights


EQUAL = np.full(30, 0.1)
KINDS = {
    "l1": {"l1": EQUAL},
    "per-atom": {"l1": PER_ATOM},
    "forbidden": {"l1": FORBIDDEN},
    "nonnegative": {"l1": EQUAL, "is_nonnegative": True},
    "nonnegative-forbidden": {"l1": FORBIDDEN, "is_nonnegative": True},
    "elastic": {"l1": 0.1, "l2": 0.3},
}


def penalty_of(l1, l2=None, is_nonnegative=False):
    if l2 is not None:
        return ElasticNet(l1, l2)
    return NonNegativeL1(l1) if is_nonnegative else L1(l1)


@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")  # scikit-learn's, at atoms of 0
@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_scikit_learns_and_each_is_certified(kind, x64):
    truth = KINDS[kind]
    found = encode_batch(Dictionary(ATOMS), XS, penalty_of(**truth), **TIGHT)
    assert np.all(found.status == Status.converged)
    np.testing.assert_allclose(found.value, [by_scikit_learn(x, **truth) for x in XS], atol=1e-6)
    gaps = [relative_gap(x, code, **truth) for x, code in zip(XS, found.value, strict=True)]
    assert np.max(gaps) <= 1.1e-13
    np.testing.assert_allclose(found.residual, gaps, rtol=0.01, atol=2e-15)
    again = encode_batch(Dictionary(ATOMS), XS, penalty_of(**truth), **TIGHT)
    jax.tree.map(np.testing.assert_array_equal, found, again)


@pytest.mark.parametrize("kind", ["l1", "nonnegative", "elastic"])
def test_single_precision_reaches_its_default_tolerance_on_every_row(kind):
    truth = {
        name: value if name == "is_nonnegative" else np.max(value) for name, value in KINDS[kind].items()
    }
    penalty = penalty_of(**truth)
    rng = np.random.default_rng(1)
    xs = jnp.asarray(
        np.concatenate([XS, rng.normal(size=(70, 20)) * rng.gamma(1, size=(70, 1))]), jnp.float32
    )
    found = encode_batch(Dictionary(jnp.asarray(ATOMS, jnp.float32)), xs, penalty)
    assert np.all(found.status == Status.converged)
    assert found.value.dtype == found.residual.dtype == jnp.float32
    atoms = np.asarray(jnp.asarray(ATOMS, jnp.float32), float)
    gaps = [relative_gap(x, code, atoms=atoms, **truth) for x, code in zip(xs, found.value, strict=True)]
    assert np.max(gaps) <= 1.02e-5
    np.testing.assert_allclose(found.residual, gaps, rtol=0.05, atol=5e-7)


def test_double_precision_reaches_its_default_tolerance_on_every_row(x64):
    found = encode_batch(Dictionary(ATOMS), XS, L1(0.02))
    assert np.all(found.status == Status.converged)
    assert max(relative_gap(x, code, 0.02) for x, code in zip(XS, found.value, strict=True)) <= 1.001e-10


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
    found = encode_batch(Dictionary(ATOMS), XS, penalty_of(**truth), **TIGHT)
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
    run = {"tol": 1e-11, "max_steps": 20000, "steps_per_check": 10}
    groups = [
        encode_batch(Dictionary(ATOMS), XS, GroupL2(0.2, 2), solver=solver, **run)
        for solver in (None, SpaRSA())
    ]
    assert all(np.all(solution.status == Status.converged) for solution in groups)
    np.testing.assert_allclose(groups[0].value, groups[1].value, atol=1e-6)
    found = encode_batch(Dictionary(ATOMS), XS, Cauchy(0.1, 0.5), solver=SpaRSA(), **run)
    codes = np.asarray(found.value)
    assert np.all(found.status == Status.converged)
    slope = 0.1 * 2 * codes / (0.25 + codes**2) - (XS - codes @ ATOMS) @ ATOMS.T
    np.testing.assert_allclose(slope, 0, atol=1e-9)


@pytest.mark.parametrize(("max_steps", "steps_per_check"), [(7, 3), (10, 4)])
def test_no_row_takes_more_steps_than_it_may(max_steps, steps_per_check):
    found = encode_batch(
        Dictionary(ATOMS), XS, L1(0.001), tol=1e-6, max_steps=max_steps, steps_per_check=steps_per_check
    )
    assert np.all(found.n_steps == max_steps)
    assert np.all(found.status == Status.max_steps_reached)
    gaps = [relative_gap(x, code, 0.001) for x, code in zip(XS, found.value, strict=True)]
    np.testing.assert_allclose(found.residual, gaps, rtol=1e-3)


def test_broken_and_zero_rows_leave_the_others_alone_in_any_order_and_slots(x64):
    clean = encode_batch(Dictionary(ATOMS), XS, L1(EQUAL), **TIGHT)
    order = np.array([5, 2, 7, 0, 3, 6, 1, 4])
    broken = XS[order]
    broken[1, 3], broken[4, 0], broken[6, :], broken[7] = np.nan, np.inf, -np.inf, 0
    dirty = encode_batch(Dictionary(ATOMS), broken, L1(EQUAL), n_slots=3, **TIGHT)
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
def test_rows_of_every_scale_in_one_batch_are_certified(strength):
    atoms, xs = square_problem()
    xs = jnp.asarray(xs * SCALES[:, None], jnp.float32)
    penalty = L1(jnp.float32(strength))
    expected = eqx.filter_jit(jax.vmap(partial(encode, Dictionary(atoms), penalty=penalty)))(xs)
    assert np.all(expected.status == Status.converged)  # each row can be had
    found = encode_batch(Dictionary(atoms), xs, penalty)
    np.testing.assert_array_equal(found.status, Status.converged)
    gaps = [
        relative_gap(x, z, strength, atoms=atoms.astype(float)) for x, z in zip(xs, found.value, strict=True)
    ]
    assert np.max(gaps) <= 1.02e-5


@pytest.mark.slow
def test_a_row_of_any_scale_alone_is_the_same_in_its_unit():
    atoms, xs = square_problem()
    expected = encode_batch(Dictionary(atoms), xs[:1].astype(np.float32), L1(jnp.float32(0.1))).value
    for scale in 2.0 ** np.array([-60, -30, 30, 60]):
        x = (xs[:1] * scale).astype(np.float32)
        found = encode_batch(Dictionary(atoms), x, L1(jnp.float32(0.1 * scale)))
        assert found.status[0] == Status.converged
        np.testing.assert_array_equal(found.value / scale, expected)


def test_a_warm_start_at_the_solution_takes_no_step(x64):
    exact = exact_codes(ATOMS, XS, 0.1, np.array([by_scikit_learn(x, EQUAL) for x in XS]))
    found = encode_batch(Dictionary(ATOMS), XS, L1(EQUAL), init=exact, **TIGHT)
    np.testing.assert_array_equal(found.n_steps, 0)
    np.testing.assert_array_equal(found.value, exact)
    far = encode_batch(Dictionary(ATOMS), XS, L1(EQUAL), init=XS @ ATOMS.T, **TIGHT)
    np.testing.assert_allclose(far.value, exact, atol=1e-6)


def test_a_start_below_zero_is_left_under_nonnegative_l1(x64):
    init = np.random.default_rng(0).normal(size=(8, 30)) - 0.5
    found = encode_batch(Dictionary(ATOMS), XS, NonNegativeL1(EQUAL), init=init, **TIGHT)
    assert np.all(found.status == Status.converged)
    expected = [by_scikit_learn(x, 0.1, is_nonnegative=True) for x in XS]
    np.testing.assert_allclose(found.value, expected, atol=1e-6)


def test_a_zero_row_with_a_start_is_held_to_the_absolute_gap():
    xs = jnp.asarray(XS * 1e3, jnp.float32).at[2].set(0)
    init = jnp.zeros((8, 30)).at[2].set(5.0)
    found = encode_batch(Dictionary(ATOMS), xs, L1(0.1), init=init, max_steps=300)
    code = np.asarray(found.value[2], float)
    gap = 0.5 * np.sum((code @ ATOMS) ** 2) + 0.1 * np.abs(code).sum()  # the least energy is 0
    assert found.status[2] == Status.converged
    assert gap <= 1e-5


def test_tracers_may_stand_for_everything_and_strengths_be_mapped(x64):
    @jax.jit
    def sweep(atoms, xs, strengths, init):
        one = lambda s: encode_batch(Dictionary(atoms), xs, L1(s), init=init, tol=1e-12)  # noqa: E731
        return jax.vmap(one)(strengths)

    strengths = np.array([0.05, 0.1, 0.3])
    found = sweep(ATOMS, XS, strengths, np.zeros((8, 30)))
    assert found.value.shape == (3, 8, 30)
    assert np.all(found.status == Status.converged)
    for codes, strength in zip(found.value, strengths, strict=True):
        expected = [by_scikit_learn(x, strength) for x in XS]
        np.testing.assert_allclose(codes, expected, atol=1e-5)


def test_a_solvers_array_may_be_a_tracer():
    sizes = jnp.float32(0.2), jnp.float32(0.1)
    found = [
        eqx.filter_jit(encode_batch)(Dictionary(ATOMS), XS, L1(0.1), solver=FISTA(step_size=s)) for s in sizes
    ]
    np.testing.assert_allclose(found[0].value, found[1].value, atol=2e-2)


def test_single_precision_data_keep_their_dtype_in_double_precision(x64):
    xs, penalty = XS.astype(np.float32), ElasticNet(0.1, np.full(30, 0.3))
    found = encode_batch(Dictionary(ATOMS.astype(np.float32)), xs, penalty)
    assert found.value.dtype == found.residual.dtype == jnp.float32
    assert np.all(found.status == Status.converged)


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


def test_detached_derivatives_are_exactly_zero():
    def total(atoms, xs, strength, init):
        run = {"gradient": Detached(), "init": init}
        return jnp.sum(encode_batch(Dictionary(atoms), xs, L1(strength), **run).value ** 2)

    point = jnp.asarray(ATOMS), jnp.asarray(XS), jnp.float32(0.1), jnp.zeros((8, 30))
    for slope in jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*point):
        np.testing.assert_array_equal(slope, 0)


def test_the_objectives_gradient_is_that_of_the_energy_at_the_codes(x64):
    objective = SparseCodingObjective(L1(0.1), tol=1e-12)
    key = jax.random.key(0)

    def loss(atoms):
        return objective(Dictionary(atoms), None, jnp.asarray(XS), key)[0]

    value, slope = jax.jit(jax.value_and_grad(loss))(ATOMS)
    codes = np.asarray([by_scikit_learn(x, 0.1) for x in XS])
    errors = XS - codes @ ATOMS
    np.testing.assert_allclose(value, np.mean(0.5 * np.sum(errors**2, 1) + 0.1 * np.abs(codes).sum(1)))
    np.testing.assert_allclose(slope, -codes.T @ errors / 8, atol=1e-6)


@pytest.mark.parametrize("strength", [1e-3, 1e-4])
def test_where_the_penalty_is_weak_rows_end_as_fista_ends_them(strength, x64):
    penalty, run = L1(jnp.asarray(strength)), {"tol": 1e-8, "max_steps": 20_000}
    found = encode_batch(Dictionary(ATOMS), XS, penalty, **run)
    expected = encode_batch(Dictionary(ATOMS), XS, penalty, solver=FISTA(), **run)
    assert np.all(expected.status == Status.converged)
    assert np.all(found.status == Status.converged)
    assert np.max(found.n_steps) > 128  # some rows needed more than SpaRSA was given
    gaps = [relative_gap(x, code, l1=strength) for x, code in zip(XS, found.value, strict=True)]
    assert np.max(gaps) <= 1.01e-8
