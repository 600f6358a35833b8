"""Gradients through `encode`: finite differences for every solver and penalty, closed forms, odd samples."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_problem
from conftest_encode import SOLVERS
from conftest_gradients import assert_close, compiled, dot, modes, moved, repeat, row, stack
from jax.flatten_util import ravel_pytree
from sklearn.linear_model import Lasso

from neurojax import penalties
from neurojax.convergence import Implicit, Status, Unrolled, conditioning, trace
from neurojax.penalties import L1
from neurojax.sparse_coding import FISTA, LCA, Dictionary, Gradient, encode, make_problem

pytestmark = pytest.mark.usefixtures("x64")
FEATURES, ATOMS, STEP = 6, 8, 1e-5
WEIGHT = np.random.default_rng(9).normal(size=ATOMS)


def unit_atoms(rng, *shape):
    atoms = rng.normal(size=shape)
    return atoms / np.linalg.norm(atoms, axis=-1, keepdims=True)


class Learner(NamedTuple):
    """All that a code depends on; ``shared`` moves dictionary and datum together."""

    atoms: Any
    x: Any
    penalty: Any
    shared: Any


def problem_of(learner: Learner):
    tilt = np.random.default_rng(3).normal(size=learner.atoms.shape)
    dictionary = Dictionary(learner.atoms + learner.shared * tilt)
    return dictionary, learner.x + jnp.sin(learner.shared) * tilt[0], learner.penalty


SOLVERS = SOLVERS | {
    "sgd": Gradient(optax.sgd(0.2, momentum=0.8)),
    # With a small eps the last steps of these two are as long as the first: nothing would converge.
    "adam": Gradient(optax.adam(0.3, eps=1.0)),
    "rmsprop": Gradient(optax.rmsprop(0.2, eps=1.0, momentum=0.5, nesterov=True)),
}
PER_ATOM = np.linspace(0.15, 0.25, ATOMS)
PENALTIES = {
    "l1": lambda: L1(0.2),
    "nonnegative": lambda: penalties.NonNegativeL1(PER_ATOM),
    "elastic": lambda: penalties.ElasticNet(PER_ATOM, 0.3),
    "elastic-per-atom": lambda: penalties.ElasticNet(0.2, 2 * PER_ATOM),
    "l0": lambda: penalties.L0(0.1),
    "log": lambda: penalties.Log(PER_ATOM / 10),
    "cauchy": lambda: penalties.Cauchy(0.1, 4 * PER_ATOM),
    "cauchy-per-atom": lambda: penalties.Cauchy(PER_ATOM / 2, 0.7),
    "group": lambda: penalties.GroupL2(0.3, 2),
    "group-per-group": lambda: penalties.GroupL2(2 * PER_ATOM[::2], 2),
    "smooth": lambda: penalties.SmoothL1(0.2, PER_ATOM / 2),
    "smooth-per-atom": lambda: penalties.SmoothL1(PER_ATOM, 0.1),
    "gaussian": lambda: penalties.Gaussian(0.1, 7 * PER_ATOM),
    "gaussian-per-atom": lambda: penalties.Gaussian(PER_ATOM / 2, 1.4),
}
SMOOTH = ("smooth", "gaussian", "cauchy")


def base_learner(penalty: str) -> Learner:
    rng = np.random.default_rng(2)
    atoms = unit_atoms(rng, ATOMS, FEATURES)
    x = np.array([1.2, 0, -0.9, 0.8, 0, 0, 1.1, -0.7]) @ atoms + 0.3 * rng.normal(size=FEATURES)
    return Learner(atoms, x, PENALTIES[penalty](), np.array(0.0))


@cache
def derivatives(solver: str, penalty: str, mode):
    """Return solutions and gradients at a point, and at steps to both sides of it in random directions.

    One direction for each leaf of a `Learner`, and one for all of them together. A run ends after a multiple
    of 500 steps, most of them beyond the tolerance.
    """
    base = jax.tree.map(np.asarray, base_learner(penalty))
    leaves, tree = jax.tree.flatten(base)
    rng = np.random.default_rng(4)
    parts = [rng.normal(size=leaf.shape) * (0.3 if leaf.ndim == 0 else leaf) for leaf in leaves]
    zeros = [np.zeros_like(leaf) for leaf in leaves]
    directions = [tree.unflatten([*zeros[:i], parts[i], *zeros[i + 1 :]]) for i in range(len(leaves))]
    directions.append(tree.unflatten(parts))

    def one(learner):
        def loss(learner):
            settings = {"tol": 1e-13, "max_steps": 20000, "steps_per_check": 500}
            solution = encode(*problem_of(learner), solver=SOLVERS[solver], gradient=mode, **settings)
            return solution.value @ WEIGHT, solution

        (_, solution), slope = jax.value_and_grad(loss, has_aux=True)(learner)
        return solution, slope

    steps = [(d, s) for d in directions for s in (STEP, -STEP)]
    points = [base, *(moved(base, d, s) for d, s in steps)]
    return *compiled(lambda points: jax.lax.map(one, points))(stack(points)), directions


def assert_finite_differences(solver, penalty, mode):
    solution, slope, directions = derivatives(solver, penalty, mode)
    assert np.all(solution.status == Status.converged)
    support = solution.value[0] != 0
    np.testing.assert_array_equal(solution.value != 0, np.broadcast_to(support, solution.value.shape))
    is_smooth = penalty.startswith(SMOOTH)
    assert np.all(support) if is_smooth else 2 <= np.sum(support) < ATOMS
    ends = solution.value @ WEIGHT
    for i, direction in enumerate(directions):
        numeric = (ends[2 * i + 1] - ends[2 * i + 2]) / (2 * STEP)
        assert_close(dot(row(slope, 0), direction), numeric, rtol=1e-6, atol=2e-9)


# Every penalty, in parameters of both shapes, and every solver. Implicit derivatives do not know the solver:
# one pair for each form of a penalty's slope is quick. Unrolled ones do not know the penalty.
PAIRS = {
    ("fista", "l1"): "implicit",
    ("fista-backtracking", "nonnegative"): "",
    ("ista-backtracking", "elastic"): "implicit",
    ("coordinates", "elastic-per-atom"): "unrolled",
    ("lca", "l0"): "",
    ("coordinates", "log"): "implicit",
    ("fista", "cauchy"): "",
    ("sgd", "cauchy-per-atom"): "implicit",
    ("lca", "group"): "",
    ("ista", "group-per-group"): "implicit",
    ("sgd", "smooth"): "",
    ("adam", "smooth-per-atom"): "",
    ("sgd", "gaussian"): "",
    ("rmsprop", "gaussian-per-atom"): "",
}


def pairs(mode):
    """Return all pairs; those that are not quick in this mode are slow."""
    marks = {pair: [] if quick == mode else pytest.mark.slow for pair, quick in PAIRS.items()}
    return [pytest.param(*pair, marks=mark) for pair, mark in marks.items()]


@pytest.mark.parametrize(("solver", "penalty"), pairs("implicit"))
def test_implicit_is_finite_differences(solver, penalty):
    assert_finite_differences(solver, penalty, Implicit())


@pytest.mark.parametrize(("solver", "penalty"), pairs("unrolled"))
def test_unrolled_is_finite_differences(solver, penalty):
    assert_finite_differences(solver, penalty, Unrolled())


def test_l1_derivatives_are_the_closed_form_on_the_support():
    """dz_S/dx = (A_S A_Sᵀ)⁻¹A_S, dz_S/dλ = −(A_S A_Sᵀ)⁻¹ sign z_S, and by the atoms from the same system."""
    solution, slope, _ = derivatives("fista", "l1", Implicit())
    base, code = base_learner("l1"), solution.value[0]
    support = code != 0
    atoms, error = base.atoms[support], base.x - code @ base.atoms
    dual = np.linalg.solve(atoms @ atoms.T, WEIGHT[support])
    assert_close(slope.x[0], dual @ atoms)
    assert_close(slope.penalty.strength[0], -dual @ np.sign(code[support]))
    assert_close(slope.atoms[0][support], np.outer(dual, error) - np.outer(code[support], dual @ atoms))
    assert not np.any(slope.atoms[0][~support])


@pytest.mark.slow
@pytest.mark.parametrize("penalty", ["cauchy", "group"])
def test_implicit_hessian_is_finite_differences_of_gradients(penalty):
    base = base_learner(penalty)
    at, tree = ravel_pytree(base)

    def loss(flat):
        learner = tree(flat)
        settings = {"tol": 1e-13, "max_steps": 20000, "steps_per_check": 500, "gradient": Implicit()}
        return jnp.sum(encode(*problem_of(learner), **settings).value ** 2 * WEIGHT)

    hessian, slope = compiled(jax.hessian(loss)), compiled(jax.grad(loss))
    direction = np.random.default_rng(4).normal(size=at.size) * 0.3
    matrix = hessian(at)
    numeric = (slope(at + STEP * direction) - slope(at - STEP * direction)) / (2 * STEP)
    assert_close(matrix @ direction, numeric, rtol=1e-6, atol=1e-6 * np.max(np.abs(numeric)))
    assert_close(matrix, matrix.T, rtol=1e-7, atol=1e-7 * np.max(np.abs(matrix)))


def test_unrolled_is_the_derivative_of_the_trajectory():
    """Far from convergence, by the problem, the start and an array of the solver's."""
    base, start, n_steps = base_learner("elastic"), np.random.default_rng(6).normal(size=ATOMS), 23
    settings = {"tol": 1e-13, "max_steps": n_steps, "steps_per_check": 4, "gradient": Unrolled()}

    def by_encode(learner, start, rate):
        solution = encode(*problem_of(learner), solver=LCA(time_step=10 * rate), init=start, **settings)
        return solution.value @ WEIGHT, solution.status

    def by_trace(learner, start, rate):
        solver, problem = LCA(time_step=10 * rate), make_problem(*problem_of(learner), step_size=rate)
        return solver.value(trace(solver, problem, start, n_steps))[-1] @ WEIGHT

    @compiled
    def both(*args):
        ours = jax.value_and_grad(by_encode, (0, 1, 2), has_aux=True)(*args)
        return ours, jax.value_and_grad(by_trace, (0, 1, 2))(*args)

    ((value, status), slope), expected = both(base, start, np.array(0.1))
    assert status == Status.max_steps_reached and np.all(slope[1] != 0) and slope[2] != 0
    jax.tree.map(partial(assert_close, rtol=1e-12, atol=1e-13), (value, slope), expected)


class Sample(NamedTuple):
    """A learner of the L1 problem, a start, and the weights of its code in the loss."""

    atoms: Any
    x: Any
    strength: Any
    init: Any
    weight: Any


MODES = modes(300)
ZERO, DARK, TWINS, APART, NEAR, NAN, INFINITE, CROWDED, FORBIDDEN = range(2, 11)
HEALTHY, SAMPLES, STEP_SIZE = [0, 1, 11], 12, 0.2


def healthy_samples() -> Sample:
    base = base_learner("l1")
    sample = Sample(base.atoms, base.x, np.full(ATOMS, 0.2), np.zeros(ATOMS), WEIGHT)
    return repeat(sample, SAMPLES)


def mixed_samples() -> Sample:
    """Return a batch with a zero datum, an empty code, twins among the atoms, broken numbers and more."""
    batch = healthy_samples()
    batch.x[ZERO], batch.strength[DARK], batch.strength[FORBIDDEN, 0] = 0, 50, np.inf
    for i in (TWINS, APART, NEAR):
        batch.atoms[i, 1] = batch.atoms[i, 0] + (i == NEAR) * 1e-3 * batch.atoms[i, 2]
        batch.x[i] = np.array([2, 0, 0, 0.9, 0, 0, 1.1, 0]) @ batch.atoms[i]
        batch.init[i, :2] = 1.3, 0.7
    batch.weight[TWINS, 1] = batch.weight[TWINS, 0]  # of the sum of the two, which is determined
    batch.weight[APART] = [1, -1, *[0] * (ATOMS - 2)]  # of their difference, which is not
    batch.x[NAN, 2], batch.x[INFINITE, 0] = np.nan, np.inf
    batch.strength[CROWDED], batch.init[CROWDED] = 1e-8, np.random.default_rng(6).normal(size=ATOMS)
    return batch


@cache
def slopes_of(mode):
    settings = {"solver": FISTA(step_size=STEP_SIZE), "tol": 1e-12, "max_steps": 600, "gradient": mode}

    def one(sample):
        def loss(sample):
            dictionary, penalty = Dictionary(sample.atoms), L1(sample.strength)
            solution = encode(dictionary, sample.x, penalty, init=sample.init, **settings)
            return jnp.sum(solution.value * sample.weight), solution

        (_, solution), slope = jax.value_and_grad(loss, has_aux=True)(sample)
        return solution, slope

    run = jax.jit(jax.vmap(one))
    return lambda batch: jax.device_get(run(batch))


each_mode = pytest.mark.parametrize(
    "mode",
    [pytest.param(m, marks=[] if name == "implicit" else pytest.mark.slow) for name, m in MODES.items()],
    ids=list(MODES),
)


@each_mode
def test_odd_samples_stay_finite_and_leave_the_others_alone(mode):
    solution, slope = slopes_of(mode)(mixed_samples())
    assert np.all(solution.status[[NAN, INFINITE]] == Status.nonfinite)
    assert solution.status[CROWDED] == Status.max_steps_reached
    assert np.sum(solution.value[CROWDED] != 0) > FEATURES
    assert np.all(solution.value[[TWINS, APART], :2] != 0) and not np.any(solution.value[[ZERO, DARK]])
    for leaf in jax.tree.leaves(slope._replace(weight=None)):
        assert np.all(np.isfinite(leaf)) and not np.any(leaf[[NAN, INFINITE]])
    for leaf in jax.tree.leaves(slope._replace(weight=None, init=None)):
        assert not np.any(leaf[[ZERO, DARK]])
    clean, clean_slope = slopes_of(mode)(healthy_samples())
    for a, b in ((solution, clean), (slope, clean_slope)):
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[HEALTHY], b[HEALTHY]), a, b)
    assert np.max(np.abs(slope.atoms[0])) > 0.1


@each_mode
def test_codes_with_equal_or_forbidden_atoms_have_the_closed_form(mode):
    """Two copies of an atom together are as one in their place, and one of infinite strength is as none."""
    batch = mixed_samples()
    solution, slope = slopes_of(mode)(batch)
    assert solution.value[FORBIDDEN, 0] == 0 and solution.status[FORBIDDEN] == Status.converged
    assert not np.any(slope.atoms[FORBIDDEN, 0])
    # Unrolling would need far more steps for atoms that are nearly equal.
    for i in (TWINS, FORBIDDEN, NEAR) if isinstance(mode, Implicit) else (TWINS, FORBIDDEN):
        code, sample = solution.value[i], row(batch, i)
        support = (code != 0) & ~((i == TWINS) & (np.arange(ATOMS) == 1))
        atoms = sample.atoms[support]
        dual = np.linalg.solve(atoms @ atoms.T, sample.weight[support])
        assert_close(slope.x[i], dual @ atoms, rtol=1e-6)


def test_a_direction_that_equal_atoms_leave_open_is_damped_and_named():
    batch = mixed_samples()
    solution, slope = slopes_of(Implicit())(batch)
    support = solution.value[APART] != 0
    gram = (batch.atoms[APART] @ batch.atoms[APART].T)[np.ix_(support, support)]
    system = gram + 1e-3 / STEP_SIZE * np.eye(len(gram))
    dual = np.linalg.solve(system, batch.weight[APART][support])
    np.testing.assert_allclose(np.linalg.norm(dual), np.sqrt(2) * STEP_SIZE / 1e-3, rtol=1e-6)
    assert_close(slope.strength[APART][support], -dual * np.sign(solution.value[APART][support]), rtol=1e-6)

    def report(sample, value):
        problem = make_problem(Dictionary(sample.atoms), sample.x, L1(sample.strength), step_size=STEP_SIZE)
        return conditioning(problem, value)

    report = compiled(jax.vmap(report))(batch, solution.value)
    rows = np.array([*HEALTHY, ZERO, DARK, TWINS, APART, NEAR, CROWDED, FORBIDDEN])
    np.testing.assert_array_equal(np.flatnonzero(report.is_degenerate), [TWINS, APART, CROWDED])
    np.testing.assert_array_equal(report.n_free[rows], np.sum(solution.value[rows] != 0, axis=1))


SCALES = np.array([1, 2.0**-40, 2.0**40], np.float32)


def test_implicit_in_float32_is_the_truth_to_one_in_ten_thousand():
    """For codes of 13 to 36 atoms solved to 1e-5, and with data and strength 10¹² times smaller or larger."""
    atoms, xs = (np.asarray(a, np.float32) for a in random_problem(4, 64, 128))
    weight = np.random.default_rng(1).normal(size=128).astype(np.float32)

    def one(x, scale):
        def loss(atoms, x, strength):
            solution = encode(Dictionary(atoms), x, L1(strength), gradient=Implicit(), tol=1e-5)
            return solution.value @ weight, solution.status

        args = jnp.asarray(atoms), x * scale, np.float32(0.1) * scale
        (by_atoms, by_x, by_strength), status = jax.grad(loss, (0, 1, 2), has_aux=True)(*args)
        return by_atoms / scale, by_x, by_strength, status

    with jax.enable_x64(False):
        *slopes, status = compiled(jax.vmap(jax.vmap(one, (0, None)), (None, 0)))(xs, SCALES)
    assert all(slope.dtype == np.float32 for slope in slopes)
    assert np.all(status == Status.converged)
    atoms, xs, weight = (a.astype(float) for a in (atoms, xs, weight))
    for i, x in enumerate(xs):
        code = Lasso(0.1 / x.size, fit_intercept=False, tol=1e-14, max_iter=10**6).fit(atoms.T, x).coef_
        support = code != 0
        inside = atoms[support]
        dual = np.linalg.solve(inside @ inside.T, weight[support])
        by_atoms = np.zeros_like(atoms)
        by_atoms[support] = np.outer(dual, x - code @ atoms) - np.outer(code[support], dual @ inside)
        truths = by_atoms, dual @ inside, -dual @ np.sign(code[support])
        for slope, truth in zip(slopes, truths, strict=True):
            for scaled in slope:
                assert np.linalg.norm(scaled[i] - truth) <= 1e-4 * np.linalg.norm(truth)
