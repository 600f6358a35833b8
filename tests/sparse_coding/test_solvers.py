"""Every solver against scikit-learn, against each other and against the optimality conditions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import SOLVERS, encode, energy, make_problem, trace
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import Lasso

from neurojax.convergence import Status
from neurojax.penalties import L0, L1, Cauchy, ElasticNet, Gaussian, GroupL2, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import (
    FISTA,
    ISTA,
    LCA,
    CoordinateDescent,
    Dictionary,
    Gradient,
    encode_batch,
)

THREE = FISTA(), LCA(), CoordinateDescent()


def lasso(atoms, x, strength, **settings):
    model = Lasso(strength / x.size, fit_intercept=False, tol=1e-14, max_iter=10**6, **settings)
    return model.fit(atoms.T, x).coef_


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_l1_codes_are_scikit_learns(solver, small, x64):
    atoms, xs = small
    solution = encode_batch(Dictionary(atoms), xs, L1(0.1), solver=solver, tol=1e-13, max_steps=50000)
    assert np.all(solution.status == Status.converged)
    np.testing.assert_allclose(solution.value, [lasso(atoms, x, 0.1) for x in xs], atol=1e-6)


@pytest.mark.parametrize("solver", THREE, ids=repr)
def test_nonnegative_and_elastic_net_codes_are_scikit_learns(solver, small, x64):
    atoms, xs = small
    settings = {"solver": solver, "tol": 1e-13, "max_steps": 50000}
    codes = encode_batch(Dictionary(atoms), xs[:3], NonNegativeL1(0.1), **settings).value
    np.testing.assert_allclose(codes, [lasso(atoms, x, 0.1, positive=True) for x in xs[:3]], atol=1e-6)
    codes = encode_batch(Dictionary(atoms), xs[:3], ElasticNet(0.1, 0.3), **settings).value
    for code, x in zip(codes, xs, strict=False):
        model = SkElasticNet(0.4 / 20, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=10**6)
        np.testing.assert_allclose(code, model.fit(atoms.T, x).coef_, atol=1e-6)


def test_strengths_per_atom_and_solvers_agree(small, x64):
    atoms, xs = small
    penalty = L1(jnp.linspace(0.02, 0.4, 30))
    codes = [encode(Dictionary(atoms), xs[0], penalty, solver=s, tol=1e-13).value for s in THREE]
    for code in codes[1:]:
        np.testing.assert_allclose(code, codes[0], atol=1e-6)


@pytest.mark.parametrize("solver", THREE, ids=repr)
@pytest.mark.parametrize("penalty", [L0(0.02), Cauchy(0.1, 0.2), Log(0.01), GroupL2(0.1, 3)], ids=repr)
def test_other_penalties_end_at_fixed_points(solver, penalty, small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    if isinstance(solver, CoordinateDescent) and isinstance(penalty, GroupL2):
        with pytest.raises(ValueError, match="CoordinateDescent: expected a separable penalty, got GroupL2"):
            encode(dictionary, xs[0], penalty, solver=solver)
        return
    solution = encode(dictionary, xs[0], penalty, solver=solver, max_steps=50000)
    assert solution.status == Status.converged and np.any(solution.value)
    problem = make_problem(dictionary, xs[0], penalty)
    np.testing.assert_allclose(problem.fixed_point(solution.value), solution.value, atol=1e-8)
    # On the support the energy is stationary.
    if not isinstance(penalty, Log):
        slope = jax.grad(lambda z: energy(dictionary, xs[0], z, penalty))(solution.value)
        np.testing.assert_allclose(np.where(solution.value == 0, 0, slope), 0, atol=1e-7)


def test_convex_group_codes_do_not_depend_on_the_solver(small, x64):
    atoms, xs = small
    codes = [
        encode(Dictionary(atoms), xs[0], GroupL2(0.1, 3), solver=s, tol=1e-12, max_steps=50000).value
        for s in (ISTA(), FISTA(), LCA())
    ]
    np.testing.assert_allclose(codes[1:], [codes[0]] * 2, atol=1e-6)


@pytest.mark.parametrize("solver", [ISTA(), FISTA()], ids=repr)
def test_energy_never_rises_under_ista_and_ends_lower_under_fista(solver, small, x64):
    atoms, xs = small
    dictionary, penalty = Dictionary(atoms), L1(0.1)
    problem = make_problem(dictionary, xs[0], penalty)
    states = trace(solver, problem, jnp.zeros(30), 60)
    energies = jax.vmap(lambda s: energy(dictionary, xs[0], solver.value(s), penalty))(states)
    assert energies.shape == (61,) and energies[0] == 0.5 * np.sum(xs[0] ** 2)
    if isinstance(solver, ISTA):
        assert np.all(np.diff(energies) <= 1e-12)
    assert energies[-1] < 0.9 * energies[0]


def test_step_size_estimate_is_close_and_on_the_safe_side(small, x64):
    rng = np.random.default_rng(0)
    for atoms in (small[0], rng.normal(size=(200, 50)), rng.normal(size=(64, 256)) / 16):
        largest = np.linalg.norm(atoms, 2) ** 2
        estimate = make_problem(Dictionary(atoms), np.ones(atoms.shape[1]), L1(0.1)).lipschitz
        assert 0.98 * largest <= estimate <= 1.0501 * largest


@pytest.mark.parametrize("penalty", [SmoothL1(0.1, 1e-3), Gaussian(0.1, 0.5), Cauchy(0.05, 0.5)], ids=repr)
def test_gradient_solver_reaches_a_stationary_point(penalty, small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    transform = optax.sgd(0.08, momentum=0.9)
    solution = encode(dictionary, xs[0], penalty, solver=Gradient(transform), max_steps=20000)
    assert solution.status == Status.converged
    slope = jax.grad(lambda z: energy(dictionary, xs[0], z, penalty))(solution.value)
    np.testing.assert_allclose(slope, 0, atol=1e-7)


def test_lca_follows_its_differential_equation(small, x64):
    """Small steps against SciPy's integrator, soft and hard thresholds."""
    from scipy.integrate import solve_ivp

    atoms, xs = small
    gram, drive = atoms @ atoms.T, atoms @ xs[0]
    for penalty, threshold in [
        (L1(0.2), lambda u: np.sign(u) * np.maximum(np.abs(u) - 0.2, 0)),
        (L0(0.02), lambda u: u * (np.abs(u) > 0.2)),
    ]:
        problem = make_problem(Dictionary(atoms), xs[0], penalty)
        states = trace(LCA(time_constant=10.0, time_step=0.01), problem, jnp.zeros(30), 1000)

        def velocity(_, u, threshold=threshold):
            a = threshold(u)
            return (drive - u - (gram - np.eye(30)) @ a) / 10.0

        exact = solve_ivp(velocity, (0, 10), np.zeros(30), rtol=1e-8, atol=1e-10, max_step=0.05).y[:, -1]
        np.testing.assert_allclose(states.potential[-1], exact, atol=2e-3)
        np.testing.assert_allclose(states.activity[-1], threshold(np.asarray(states.potential[-1])))


def test_warm_start_at_the_solution_stays_there(small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)

    @eqx.filter_jit
    def trajectories(penalty, code):
        problem = make_problem(dictionary, xs[0], penalty, use_gram=True)
        solvers = FISTA(), LCA(), CoordinateDescent()
        return [jax.vmap(solver.value)(trace(solver, problem, code, 20)) for solver in solvers]

    for penalty in (ElasticNet(0.1, 0.2), L0(0.02)):
        code = encode(dictionary, xs[0], penalty, tol=1e-12).value
        assert encode(dictionary, xs[0], penalty, init=code, tol=1e-10).n_steps == 0
        for values in trajectories(penalty, code):
            np.testing.assert_allclose(values, np.broadcast_to(code, (21, 30)), atol=1e-6)


@pytest.mark.parametrize("penalty", [Log(0.02), L0(0.02)], ids=repr)
def test_the_residual_is_of_the_solvers_own_step(penalty, small, x64):
    """Fixed points of these penalties depend on the step: steps below 1/L have fixed points of their own."""
    atoms, xs = small
    solution = encode_batch(
        Dictionary(atoms), xs, penalty, solver=ISTA(step_size=0.02), tol=1e-9, max_steps=20000
    )
    assert np.all(solution.status == Status.converged)
    for x, code in zip(xs, np.asarray(solution.value), strict=True):
        moved = penalty.prox(code + 0.02 * atoms @ (x - code @ atoms), 0.02)
        np.testing.assert_allclose(moved, code, atol=1e-8)


def test_gram_and_two_product_forms_agree(small, x64):
    atoms, xs = small
    problems = [make_problem(Dictionary(atoms), xs[0], L1(0.1), use_gram=g) for g in (True, False)]
    code = jnp.asarray(np.random.default_rng(3).normal(size=30))
    np.testing.assert_allclose(*(p.smooth_gradient(code) for p in problems), atol=1e-12)


def test_solvers_that_cannot_serve_a_penalty_say_so(small, untyped):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    for solver, penalty, message in [
        (ISTA(), SmoothL1(0.1, 1e-7), "ISTA: expected a penalty with a proximal operator, got SmoothL1"),
        (FISTA(), Gaussian(0.1, 1.0), "FISTA: expected a penalty with a proximal operator, got Gaussian"),
        (LCA(), SmoothL1(0.1, 1e-7), "LCA: expected a penalty with a proximal operator, got SmoothL1"),
        (CoordinateDescent(), SmoothL1(0.1, 1e-7), "CoordinateDescent: expected a penalty with a proximal"),
        (Gradient(optax.sgd(0.1)), L1(0.1), r"Gradient: expected a smooth penalty .*got L1"),
    ]:
        with pytest.raises(ValueError, match=message):
            encode(dictionary, xs[0], penalty, solver=solver)
    with pytest.raises(ValueError, match=r"step_size: expected a number > 0, got -0.1"):
        ISTA(step_size=-0.1)
    with pytest.raises(ValueError, match=r"time_constant: expected a number > 0, got 0"):
        LCA(time_constant=0.0)
