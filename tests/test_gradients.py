"""Gradient modes of the convergence loop, on a small problem whose derivatives are known in closed form."""

import warnings
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
from bowl import (
    BATCH,
    WEIGHT,
    Bowl,
    Case,
    HeavyBall,
    Learner,
    N,
    cases,
    cases_of_all_lengths,
    hessian_of,
    solve,
)
from conftest_gradients import assert_close, compiled, dot, modes, moved, row, stack

from neurojax.convergence import Detached, Implicit, Status, Truncated, Unrolled, conditioning, trace

pytestmark = pytest.mark.usefixtures("x64")
MODES = modes(60)
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))


def differentiate(case, mode, *settings):
    """Return the solution, and the gradient of weight·value."""

    def loss(learner):
        solution = solve(learner, case.free, case.tol, mode, *settings)
        return solution.value @ case.weight, solution

    (_, solution), slope = jax.value_and_grad(loss, has_aux=True)(case.learner)
    return solution, slope


@cache
def batched(mode, *settings):
    """Return the gradients of a batch; no settings are those of `solve`."""
    return compiled(jax.vmap(lambda case: differentiate(case, mode, *settings)))


@cache
def forward(mode):
    return compiled(jax.vmap(lambda case: solve(case.learner, case.free, case.tol, mode)))


@cache
def traced():
    """Return derivatives through a whole trajectory, of which the steps asked for are taken."""

    def one(case, n_steps):
        def loss(learner):
            problem = Bowl(learner.root, learner.target, learner.bend, case.free, case.tol)
            return trace(HeavyBall(learner.rate), problem, learner.init, 400).value[n_steps] @ case.weight

        return jax.grad(loss)(case.learner)

    return compiled(jax.vmap(one))


def assert_is_implicit(slope, case, value):
    """Compare with the derivative of weight·solution by a dense solve, in NumPy."""
    free, root = case.free, case.learner.root
    dual = np.zeros(N)
    dual[free] = np.linalg.solve(hessian_of(case.learner, value)[np.ix_(free, free)], case.weight[free])
    assert_close(slope.target, dual)
    assert_close(slope.root, -(np.outer(dual, value @ root) + np.outer(value, dual @ root)))
    assert_close(slope.bend, -dual @ np.tanh(value))


@pytest.mark.parametrize("mode", [Implicit(), Unrolled()], ids=["implicit", "unrolled"])
def test_derivative_is_that_of_finite_differences_and_of_the_closed_form(mode):
    """One direction in each thing that the solution depends on, and one in all of them together."""
    base, rng, step = row(cases(), 0), np.random.default_rng(1), 1e-5
    everywhere = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), base.learner)
    everywhere.init[2] = 0
    nowhere = jax.tree.map(np.zeros_like, everywhere)
    directions = [nowhere._replace(**{name: getattr(everywhere, name)}) for name in Learner._fields]
    directions.append(everywhere)
    points = [moved(base.learner, d, s) for d in directions for s in (step, -step)]
    batch = stack([base._replace(learner=point) for point in points])
    solution, slope = batched(mode)(batch)
    assert np.all(solution.status == Status.converged) and not np.any(solution.value[:, 2])
    _, at_base = batched(mode)(cases())
    ends = solution.value @ WEIGHT
    for i, direction in enumerate(directions):
        numeric = (ends[2 * i] - ends[2 * i + 1]) / (2 * step)
        assert_close(dot(row(at_base, 0), direction), numeric, rtol=1e-6)
    for i in range(BATCH):
        assert_is_implicit(row(slope, i), row(batch, i), solution.value[i])


@pytest.mark.parametrize(("max_steps", "every"), [(399, 3), (60, 7)])
def test_unrolled_is_the_derivative_of_the_steps_taken(max_steps, every):
    """Runs that never end, end at once, and end in many of the stretches between two checkpoints."""
    batch = cases_of_all_lengths()
    settings = () if (max_steps, every) == (399, 3) else (max_steps, every)
    solution, slope = batched(Unrolled(), *settings)(batch)
    n_steps = solution.n_steps
    assert n_steps[0] == max_steps and solution.status[0] == Status.max_steps_reached and n_steps[1] == 0
    assert len(set(n_steps.tolist())) >= (10 if max_steps == 399 else 2)
    expected = traced()(batch, n_steps)
    jax.tree.map(partial(assert_close, rtol=1e-12, atol=1e-13), slope, expected)
    assert np.all(slope.rate[n_steps > 1] != 0)
    np.testing.assert_array_equal(slope.init[1], WEIGHT)


def test_values_are_the_same_bit_for_bit_in_every_mode():
    batch = cases_of_all_lengths()
    batch.learner.target[5] = np.nan
    same = Detached(), Unrolled(), Implicit(), Truncated(60)
    runs = [forward(mode)(batch) for mode in same[:2]]
    first, *others = runs + [batched(mode)(batch)[0] for mode in same]
    assert set(first.status) == {0, 1, 2} and len(set(first.n_steps)) > 9
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)


def test_detached_is_exactly_zero():
    _, slope = batched(Detached())(cases())
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(slope))
    case = row(cases(), 0)

    def value(learner):
        return solve(learner, case.free, case.tol, Detached()).value

    _, tangent = jax.jit(lambda learner: jax.jvp(value, (learner,), (learner,)))(case.learner)
    assert not np.any(tangent)


def test_truncated_at_all_steps_is_plain_unrolling():
    """All steps are differentiated, also those that a sample which stopped before did not take."""
    batch = cases_of_all_lengths()
    solution, slope = batched(Truncated(31), 30, 7)(batch)
    assert set(solution.n_steps) == {0, 7, 14, 30}
    jax.tree.map(partial(assert_close, rtol=1e-12, atol=1e-13), slope, traced()(batch, np.full(BATCH, 30)))


def test_truncated_keeps_what_the_loop_came_to():
    batch = cases_of_all_lengths()
    batch.learner.target[5] = np.nan
    solution, slope = batched(Truncated(60))(batch)
    jax.tree.map(np.testing.assert_array_equal, solution, forward(Detached())(batch))
    assert set(solution.status) == {0, 1, 2} and not np.any(slope.init) and np.any(slope.target[1])


def test_truncated_tends_to_the_derivative_of_the_minimiser():
    exact, *others = (batched(mode)(cases())[1] for mode in (Implicit(), *map(Truncated, (10, 60))))
    for name in ("root", "target", "bend"):
        errors = [np.max(np.abs(getattr(slope, name) - getattr(exact, name))) for slope in others]
        assert errors[0] > 1e-2 and errors[1] < 1e-4


def test_implicit_at_an_iterate_that_ran_out_of_steps_is_the_same_formula():
    """Finite, and what its docstring says, though the derivative of nothing."""
    batch = cases_of_all_lengths()
    solution, slope = batched(Implicit())(batch)
    assert solution.status[0] == Status.max_steps_reached and solution.residual[0] > 1e9
    for i in range(BATCH):
        assert_is_implicit(row(slope, i), row(batch, i), solution.value[i])
    assert not np.any(slope.init) and not np.any(slope.rate)


HEALTHY, FIXED, TWINS, NEAR, BROKEN, BURST = [0, 1], 2, [3, 4, 5], 6, [7, 8, 9, 10, 11], [10, 11]


def mixed_cases() -> Case:
    """Return healthy samples, one with nothing free, some with (nearly) equal rows in root, broken ones."""
    batch = cases()
    learner, flat = batch.learner, [*TWINS, NEAR]
    learner.init[: BURST[0]] = 0
    batch.free[FIXED], batch.free[flat] = False, True
    learner.bend[flat] = 0
    learner.root[flat, 1] = learner.root[flat, 0]
    learner.root[NEAR, 1] += 1e-3 * np.array([1, -1, 1, 1])
    learner.target[flat, 1] = learner.target[flat, 0]
    batch.weight[3, 1] = batch.weight[3, 0]  # weighs the sum of the twins, which is determined
    batch.weight[5] = [1, -1, 0, 0]  # and here their difference, which is not
    learner.target[7, 1], learner.root[8, 0, 0], learner.init[9, 1] = np.nan, np.inf, np.nan
    learner.rate[BURST] = 20, 6.8  # blow up before, and in, the last steps of `Truncated`
    return batch


@each_mode
def test_one_broken_or_degenerate_sample_leaves_the_others_alone(mode):
    solution, slope = batched(mode)(mixed_cases())
    assert np.all(solution.status[BROKEN] == Status.nonfinite) and solution.n_steps[FIXED] % 60 == 0
    n_steps = forward(Detached())(mixed_cases()).n_steps[BURST]
    assert 100 < n_steps[0] < 399 - 60 < n_steps[1] < 399
    for leaf in jax.tree.leaves(slope):
        assert np.all(np.isfinite(leaf)) and not np.any(leaf[BROKEN])
    for leaf in jax.tree.leaves(slope._replace(init=None)):
        assert not np.any(leaf[FIXED])
    start = cases()
    start.learner.init[:] = 0
    _, clean = batched(mode)(start)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[HEALTHY], b[HEALTHY]), slope, clean)


@pytest.mark.parametrize(
    "mode",
    [pytest.param(m, marks=pytest.mark.slow if name == "truncated" else []) for name, m in MODES.items()],
    ids=list(MODES),
)
def test_a_shared_parameter_gets_nothing_from_a_broken_sample(mode):
    """One root for the batch, and a loss that is NaN: its gradient is that of the samples that end well."""
    case = row(cases(), 0)

    @compiled
    def shared_slope(targets):
        def total(root):
            def one(target):
                learner = case.learner._replace(root=root, target=target)
                return target @ solve(learner, case.free, case.tol, mode).value ** 2

            return jnp.sum(jax.vmap(one)(targets))

        return jax.value_and_grad(total)(case.learner.root)

    targets = np.random.default_rng(2).normal(size=(3, N))
    each = [shared_slope(np.tile(target, (3, 1)))[1] / 3 for target in targets]
    assert_close(shared_slope(targets)[1], sum(each))
    targets[1, 0] = np.nan
    value, slope = shared_slope(targets)
    assert np.isnan(value)
    assert_close(slope, each[0] + each[2])


@pytest.mark.parametrize(
    "mode", [Implicit(), pytest.param(Unrolled(), marks=pytest.mark.slow)], ids=["implicit", "unrolled"]
)
def test_vmap_is_the_loop(mode):
    batch = mixed_cases()
    solution, slope = batched(mode)(batch)
    alone = compiled(lambda case: differentiate(case, mode))
    for i in range(BATCH):
        solution_alone, slope_alone = alone(row(batch, i))
        jax.tree.map(assert_close, row(slope, i), slope_alone)
        assert solution.n_steps[i] == solution_alone.n_steps


@pytest.mark.parametrize("damping", [pytest.param(1e-3, marks=pytest.mark.slow), 0.1])
def test_singular_systems_are_solved_or_damped_and_reported(damping):
    """The shortest solution where there is one; the damped system's elsewhere, bounded by |rhs|/damping."""
    batch, run = mixed_cases(), batched(Implicit(report=True, damping=damping))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(cases())
        jax.effects_barrier()
        assert not caught
        solution, slope = run(batch)
        jax.effects_barrier()
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2 and "its derivative was damped" in messages[0]  # one a sample
    assert np.all(solution.status[TWINS] == Status.converged)
    hessian = batch.learner.root[3] @ batch.learner.root[3].T
    scale = np.diag(hessian)
    assert_close(slope.target[3], np.linalg.pinv(hessian) @ batch.weight[3])
    for i in (4, 5):
        damped = np.linalg.solve(hessian + damping * np.diag(scale), batch.weight[i])
        assert_close(slope.target[i], damped, rtol=1e-8)
        assert (
            0.05 / damping
            < np.linalg.norm(damped)
            <= np.linalg.norm(batch.weight[i]) / (damping * np.min(scale))
        )
    nearly = batch.learner.root[NEAR] @ batch.learner.root[NEAR].T
    assert_close(slope.target[NEAR], np.linalg.solve(nearly, batch.weight[NEAR]), rtol=1e-6)


def test_conditioning_names_the_degenerate_samples():
    batch = mixed_cases()
    value = batched(Implicit())(batch)[0].value
    learner = batch.learner
    problems = Bowl(learner.root, learner.target, learner.bend, batch.free, batch.tol)
    report = compiled(jax.vmap(conditioning))(problems, value)
    np.testing.assert_array_equal(report.n_free, batch.free.sum(axis=1))
    np.testing.assert_array_equal(np.flatnonzero(report.is_degenerate), TWINS)
    assert report.smallest[FIXED] == report.largest[FIXED] == 1
    for i in (0, NEAR):
        scale = np.sqrt(np.sum(learner.root[i] ** 2, axis=1) + learner.bend[i])
        matrix = hessian_of(row(learner, i), value[i]) / scale / scale[:, None]
        spectrum = np.linalg.eigvalsh(matrix[np.ix_(batch.free[i], batch.free[i])])
        assert_close([report.smallest[i], report.largest[i]], spectrum[[0, -1]])


POINT = np.array([0.7, -0.4, 0.3, 1.1]), np.array(0.5)
DIRECTION = np.array([1.0, 0.5, -2.0, 0.3]), np.array(-0.7)


def solution_at(point, tol, mode, *settings):
    """Return the solution as a function of target and bend."""
    case = row(cases(), 0)
    learner = case.learner._replace(target=point[0], bend=point[1])
    return solve(learner, case.free, tol, mode, *settings)


def slope_of_squares(point, *args):
    def loss(point):
        solution = solution_at(point, *args)
        return WEIGHT @ solution.value**2, solution.n_steps

    return jax.grad(loss, has_aux=True)(point)


def difference(function, step=1e-5):
    """Return the central difference of a function of a tree, at the point and in the direction above."""
    ends = [function(moved(POINT, DIRECTION, sign * step)) for sign in (1, -1)]
    return jax.tree.map(lambda a, b: (a - b) / (2 * step), *ends)


@pytest.mark.parametrize(
    "mode", [Implicit(), pytest.param(Truncated(20), marks=pytest.mark.slow)], ids=["implicit", "truncated"]
)
def test_forward_mode_is_the_transpose_of_reverse_mode(mode):
    @compiled
    def both(point):
        def value(point):
            return solution_at(point, 1e-13, mode).value

        at, tangent = jax.jvp(value, (point,), (DIRECTION,))
        return at, tangent, jax.vjp(value, point)[1](jnp.asarray(WEIGHT))[0]

    value, tangent, slope = both(POINT)
    assert_close(WEIGHT @ tangent, dot(slope, DIRECTION))
    assert value[2] == tangent[2] == 0 and np.all(tangent[[0, 1, 3]] != 0)
    if isinstance(mode, Implicit):
        assert_close(tangent, difference(lambda point: both(point)[0]), rtol=1e-6)


def test_unrolled_has_no_forward_mode_and_no_reverse_over_reverse():
    def value(point):
        return solution_at(point, 1e-13, Unrolled()).value

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jit(lambda point: jax.jvp(value, (point,), (DIRECTION,))).lower(POINT)
    with pytest.raises(ValueError, match=r"Reverse-mode differentiation does not work for lax\.while_loop"):
        jax.eval_shape(jax.grad(lambda point: slope_of_squares(point, 1e-13, Unrolled())[0][1]), POINT)


@pytest.mark.parametrize(
    ("mode", "max_steps", "is_reverse"),
    [
        pytest.param(Implicit(), 399, False, marks=pytest.mark.slow),
        (Implicit(), 399, True),
        pytest.param(Unrolled(), 399, False, marks=pytest.mark.slow),
        pytest.param(Truncated(12), 12, True, marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_second_derivatives_are_finite_differences_of_gradients(mode, max_steps, is_reverse):
    """At convergence, and of `Unrolled` and `Truncated` also at an iterate far from it."""

    @compiled
    def second(point, tol):
        def slope(point):
            return slope_of_squares(point, tol, mode, max_steps)

        if is_reverse:
            value, back, n_steps = jax.vjp(slope, point, has_aux=True)
            return value, back(DIRECTION)[0], n_steps
        return jax.jvp(slope, (point,), (DIRECTION,), has_aux=True)

    for tol in [1e-13, 1e-1] if isinstance(mode, Unrolled) else [1e-13]:
        _, curved, n_steps = second(POINT, tol)
        assert n_steps < 30 or tol == 1e-13
        numeric = difference(lambda point, tol=tol: second(point, tol)[0])
        jax.tree.map(partial(assert_close, rtol=1e-6, atol=1e-8), curved, numeric)
        assert np.all(np.abs(curved[0][[0, 1, 3]]) > 1e-3) and abs(curved[1]) > 1e-3


@pytest.mark.slow
def test_implicit_agrees_with_optimistix():
    batch = cases()
    batch.free[:] = True
    _, ours = batched(Implicit())(batch)
    newton, adjoint = optimistix.Newton(rtol=1e-13, atol=1e-13), optimistix.ImplicitAdjoint()

    def stationarity(value, learner):
        everything = jnp.ones(N, bool), jnp.ones(())
        return Bowl(learner.root, learner.target, learner.bend, *everything).stationarity(value)

    def loss(learner):
        found = optimistix.root_find(stationarity, newton, learner.init, learner, adjoint=adjoint)
        return found.value @ WEIGHT

    theirs = compiled(jax.grad(loss))(jax.tree.map(jnp.asarray, row(batch.learner, 0)))
    jax.tree.map(assert_close, row(ours, 0), theirs)
