"""Every solver against scikit-learn, against each other and against the optimality conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import SOLVERS, encode, encode_rows, lasso, make_problem, trace
from scipy.integrate import solve_ivp
from sklearn.linear_model import ElasticNet as SkElasticNet

from neurojax.convergence import Status
from neurojax.penalties import L0, L1, Cauchy, ElasticNet, Gaussian, GroupL2, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import FISTA, ISTA, LCA, CoordinateDescent, Dictionary, Gradient

STRENGTHS = {"equal": np.full(30, 0.1), "per-atom": np.linspace(0.02, 0.4, 30)}


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_l1_codes_are_scikit_learns(solver, small, x64):
    atoms, xs = small
    for name, strength in STRENGTHS.items():
        solution = encode_rows(atoms, xs, L1(strength), solver=solver, tol=1e-13, max_steps=50000)
        assert np.all(solution.status == Status.converged), name
        expected = [lasso(atoms, x, strength) for x in xs]
        np.testing.assert_allclose(solution.value, expected, atol=1e-6, err_msg=name)


def pairs(quick, penalties):
    """Return (solver, penalty) for each of three solvers; pairs that are not quick are slow."""
    every = [(solver, penalty) for penalty in penalties for solver in ("fista", "lca", "coordinates")]
    if "group" in penalties:
        every.remove(
            ("coordinates", "group")
        )  # groups couple atoms, which coordinate descent refuses by name
    return [pytest.param(*pair, marks=[] if pair in quick else pytest.mark.slow) for pair in every]


@pytest.mark.parametrize(
    ("solver", "penalty"),
    pairs([("fista", "nonnegative"), ("coordinates", "elastic")], ["nonnegative", "elastic"]),
)
def test_nonnegative_and_elastic_net_codes_are_scikit_learns(solver, penalty, small, x64):
    atoms, xs = small
    value = NonNegativeL1(0.1) if penalty == "nonnegative" else ElasticNet(0.1, 0.3)
    model = SkElasticNet(0.4 / 20, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=10**6)
    codes = encode_rows(atoms, xs, value, solver=SOLVERS[solver], tol=1e-13, max_steps=50000).value
    for code, x in zip(codes, xs, strict=True):
        is_elastic = penalty == "elastic"
        expected = model.fit(atoms.T, x).coef_ if is_elastic else lasso(atoms, x, 0.1, positive=True)
        np.testing.assert_allclose(code, expected, atol=1e-6)


def group_lengths(codes):
    lengths = np.linalg.norm(codes.reshape(8, 10, 3), axis=2)
    return np.repeat(lengths, 3, axis=1)


# The penalty, its slope where a code is not 0, and how large the pull of an atom of code 0 may be when steps
# are 1/L. The Cauchy penalty has no kink at 0, so the pull is 0 there.
OTHERS = {
    "l0": (L0(0.02), lambda z: 0 * z, lambda largest: np.sqrt(2 * 0.02 * largest)),
    "cauchy": (Cauchy(0.1, 0.2), lambda z: 0.1 * 2 * z / (0.04 + z**2), lambda largest: 1e-7),
    "log": (Log(0.01), lambda z: 0.01 / z, lambda largest: 2 * np.sqrt(0.01 * largest)),
    "group": (GroupL2(0.1, 3), lambda z: 0.1 * z / group_lengths(z), lambda largest: 0.1 + 1e-7),
}
COMPLEMENTS = [("fista", "l0"), ("coordinates", "cauchy"), ("lca", "log"), ("fista", "group")]


@pytest.mark.parametrize(("solver", "penalty"), pairs(COMPLEMENTS, OTHERS))
def test_other_penalties_end_where_their_slope_is_the_pull_of_the_error(solver, penalty, small, x64):
    atoms, xs = small
    value, slope, most = OTHERS[penalty]
    solution = encode_rows(atoms, xs, value, solver=SOLVERS[solver], max_steps=50000)
    assert np.all(solution.status == Status.converged)
    codes = np.asarray(solution.value)
    pull, is_on = (xs - codes @ atoms) @ atoms.T, codes != 0
    assert np.mean(np.any(is_on, axis=1)) > 0.8
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_allclose(np.where(is_on, pull - slope(codes), 0), 0, atol=1e-7)
    size = group_lengths(pull) if penalty == "group" else np.abs(pull)
    largest = 1.0501 * np.linalg.norm(atoms, 2) ** 2  # what L is at most
    assert np.all(size[~is_on] <= most(largest))


def test_energy_never_rises_under_ista_and_ends_lower_under_fista(small, x64):
    atoms, xs = small

    @jax.jit
    def trajectories(x):
        problem = make_problem(Dictionary(atoms), x, L1(0.1))
        return [jax.vmap(s.value)(trace(s, problem, jnp.zeros(30), 60)) for s in (ISTA(), FISTA())]

    by_ista, by_fista = (
        0.5 * np.sum((xs[0] - codes @ atoms) ** 2, axis=1) + 0.1 * np.sum(np.abs(codes), axis=1)
        for codes in jax.device_get(trajectories(xs[0]))
    )
    assert by_ista.shape == by_fista.shape == (61,)
    assert by_ista[0] == by_fista[0] == 0.5 * np.sum(xs[0] ** 2)
    assert np.all(np.diff(by_ista) <= 1e-12)
    assert by_fista[-1] < by_ista[-1] < 0.9 * by_ista[0]


def test_step_size_estimate_is_close_and_on_the_safe_side(small, x64):
    """Through the Gram matrix, and through two products where there are many atoms."""
    for atoms in (small[0], np.random.default_rng(0).normal(size=(200, 50))):
        largest = np.linalg.norm(atoms, 2) ** 2
        estimate = make_problem(Dictionary(atoms), np.ones(atoms.shape[1]), L1(0.1)).lipschitz
        assert 0.98 * largest <= estimate <= 1.0501 * largest


@pytest.mark.parametrize(
    ("penalty", "slope"),
    [
        (SmoothL1(0.1, 1e-3), lambda z: 0.1 * z / np.sqrt(z**2 + 1e-3)),
        pytest.param(Gaussian(0.1, 0.5), lambda z: 0.1 * 8 * z * np.exp(-4 * z**2), marks=pytest.mark.slow),
        pytest.param(Cauchy(0.05, 0.5), lambda z: 0.05 * 2 * z / (0.25 + z**2), marks=pytest.mark.slow),
    ],
    ids=["smooth-l1", "gaussian", "cauchy"],
)
def test_gradient_solver_reaches_a_stationary_point(penalty, slope, small, x64):
    atoms, xs = small
    solver = Gradient(optax.sgd(0.08, momentum=0.9))
    solution = encode_rows(atoms, xs, penalty, solver=solver, max_steps=20000)
    assert np.all(solution.status == Status.converged)
    codes = np.asarray(solution.value)
    np.testing.assert_allclose(slope(codes), (xs - codes @ atoms) @ atoms.T, atol=1e-7)


def test_lca_follows_its_differential_equation(small, x64):
    """Small steps against SciPy's integrator, soft and hard thresholds."""
    atoms, xs = small
    gram, drive = atoms @ atoms.T, atoms @ xs[0]
    for penalty, threshold in [
        (L1(0.2), lambda u: np.sign(u) * np.maximum(np.abs(u) - 0.2, 0)),
        (L0(0.02), lambda u: u * (np.abs(u) > 0.2)),
    ]:
        problem = make_problem(Dictionary(atoms), xs[0], penalty)
        states = trace(LCA(time_constant=10.0, time_step=0.01), problem, np.zeros(30), 1000)

        def velocity(_, u, threshold=threshold):
            a = threshold(u)
            return (drive - u - (gram - np.eye(30)) @ a) / 10.0

        exact = solve_ivp(velocity, (0, 10), np.zeros(30), rtol=1e-8, atol=1e-10, max_step=0.05).y[:, -1]
        np.testing.assert_allclose(states.potential[-1], exact, atol=2e-3)
        np.testing.assert_allclose(states.activity[-1], threshold(np.asarray(states.potential[-1])))


def test_warm_start_at_the_solution_stays_there(small, x64):
    atoms, xs = small
    model = SkElasticNet(0.4 / 20, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=10**6)
    code = model.fit(atoms.T, xs[0]).coef_
    on = code != 0
    system = atoms[on] @ atoms[on].T + 0.3 * np.eye(np.sum(on))
    code[on] = np.linalg.solve(system, atoms[on] @ xs[0] - 0.1 * np.sign(code[on]))

    @jax.jit
    def trajectories(code):
        problem = make_problem(Dictionary(atoms), xs[0], ElasticNet(0.1, 0.3), use_gram=True)
        solvers = FISTA(), LCA(), CoordinateDescent()
        return [jax.vmap(solver.value)(trace(solver, problem, code, 20)) for solver in solvers]

    for values in trajectories(code):
        np.testing.assert_allclose(values, np.broadcast_to(code, (21, 30)), atol=1e-12)


def test_the_residual_is_of_the_solvers_own_step(small, x64):
    """Fixed points of L0 depend on the step: steps below 1/L have fixed points of their own."""
    atoms, xs = small
    step = 0.02
    solution = encode_rows(atoms, xs, L0(0.02), solver=ISTA(step_size=step), tol=1e-9, max_steps=20000)
    assert np.all(solution.status == Status.converged)
    codes = np.asarray(solution.value)
    moved = codes + step * (xs - codes @ atoms) @ atoms.T
    np.testing.assert_allclose(np.where(moved**2 > 2 * 0.02 * step, moved, 0), codes, atol=1e-8)


def test_gram_and_two_product_forms_agree(small, x64):
    atoms, xs = small
    code = np.random.default_rng(3).normal(size=30)

    @jax.jit
    def slopes(code):
        problems = [make_problem(Dictionary(atoms), xs[0], L1(0.1), use_gram=gram) for gram in (True, False)]
        return [problem.smooth.gradient(code) for problem in problems]

    for slope in slopes(code):
        np.testing.assert_allclose(slope, (code @ atoms - xs[0]) @ atoms.T, atol=1e-12)


def test_solvers_that_cannot_serve_a_penalty_say_so(small, untyped):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    for solver, penalty, message in [
        (ISTA(), SmoothL1(0.1, 1e-7), "ISTA: expected a penalty with a proximal operator, got SmoothL1"),
        (FISTA(), Gaussian(0.1, 1.0), "FISTA: expected a penalty with a proximal operator, got Gaussian"),
        (LCA(), SmoothL1(0.1, 1e-7), "LCA: expected a penalty with a proximal operator, got SmoothL1"),
        (CoordinateDescent(), SmoothL1(0.1, 1e-7), "CoordinateDescent: expected a penalty with a proximal"),
        (
            CoordinateDescent(),
            GroupL2(0.1, 3),
            "CoordinateDescent: expected a separable penalty, got GroupL2",
        ),
        (Gradient(optax.sgd(0.1)), L1(0.1), r"Gradient: expected a smooth penalty .*got L1"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(dictionary, xs[0], penalty, solver=solver)
    with pytest.raises(ValueError, match=r"step_size: expected a number > 0, got -0.1"):
        ISTA(step_size=-0.1)
    with pytest.raises(ValueError, match=r"time_constant: expected a number > 0, got 0"):
        LCA(time_constant=0.0)
    assert CoordinateDescent() == CoordinateDescent()  # or nothing would be found compiled
