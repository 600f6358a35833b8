"""The loop over rows against the loop over one: values, statuses, counts, and solvers whose estimates lie."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from neurojax.convergence import AbstractProblem, AbstractSolver, Picard, Status, iterate, iterate_rows

N_ROWS = 21
TOL = 1e-4


class Pull(AbstractProblem):
    """value → target, at a rate; the residual is the largest distance."""

    target: Array
    rate: Array

    def fixed_point(self, value):
        return self.target + self.rate * (value - self.target)

    def residual(self, value):
        return jnp.max(jnp.abs(value - self.target))


class Guess(AbstractSolver):
    """Fixed-point iteration with an estimate that is ``factor`` times the residual, plus ``offset``."""

    factor: Array
    offset: Array

    def init(self, problem, value):
        return value

    def step(self, problem, state):
        return problem.fixed_point(state)

    def value(self, state):
        return state

    def estimate(self, problem, state):
        return self.factor * problem.residual(state) + self.offset


def problem_of(row):
    return Pull(*row)


def data():
    rng = np.random.default_rng(4)
    rates = np.append(rng.uniform(0, 0.95, N_ROWS - 1), 1.0)  # the last never comes nearer
    return rng.normal(size=(N_ROWS, 3)).astype(np.float32), rates.astype(np.float32)


ZEROS = np.zeros((N_ROWS, 3), np.float32)
INCREASING = np.arange(N_ROWS, dtype=np.int32)


@eqx.filter_jit
def by_rows(
    solver, rows, init, n_slots=4, order=INCREASING, max_steps=200, steps_per_check=5, tol=TOL, start=None
):
    return iterate_rows(
        solver, problem_of, rows, init, tol=tol, max_steps=max_steps, steps_per_check=steps_per_check,
        n_slots=n_slots, order=jnp.asarray(order), start=start,
    )  # fmt: skip


@eqx.filter_jit
def one_by_one(rows, init, max_steps=200, steps_per_check=5):
    def alone(row, start):
        settings = {"tol": TOL, "max_steps": max_steps, "steps_per_check": steps_per_check}
        return iterate(Picard(), problem_of(row), start, **settings)

    return jax.vmap(alone)(rows, init)


def assert_same(found, expected):
    for name in ("value", "status", "n_steps", "residual"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("n_slots", [4, 50])
def test_rows_in_any_order_and_slots_are_what_each_is_alone(n_slots):
    expected = one_by_one(data(), ZEROS)
    assert {0, 1} == set(expected.status.tolist())
    for order in (INCREASING, INCREASING[::-1], np.roll(INCREASING, 7)):
        assert_same(by_rows(Picard(), data(), ZEROS, n_slots, order), expected)


@pytest.mark.parametrize(("max_steps", "steps_per_check"), [(10, 4), (1, 5), (13, 10)])
def test_no_row_takes_more_steps_than_it_may(max_steps, steps_per_check):
    settings = {"max_steps": max_steps, "steps_per_check": steps_per_check}
    found = by_rows(Picard(), data(), ZEROS, **settings)
    assert int(found.n_steps[-1]) == max_steps
    assert int(found.status[-1]) == Status.max_steps_reached
    assert np.all(found.n_steps <= max_steps)
    is_short = np.asarray(found.residual) > TOL
    np.testing.assert_array_equal(found.status, np.where(is_short, Status.max_steps_reached, 0))
    distance = np.max(np.abs(found.value - data()[0]), axis=1)
    np.testing.assert_array_equal(found.residual, distance)


def test_an_estimate_that_is_too_low_sends_rows_back_until_the_residual_itself_is_small():
    found = by_rows(Guess(np.float32(0.2), np.float32(0)), data(), ZEROS)
    expected = one_by_one(data(), ZEROS)
    np.testing.assert_array_equal(found.status, expected.status)
    assert np.all(found.residual[:-1] <= TOL)
    np.testing.assert_allclose(found.value[:-1], data()[0][:-1], atol=TOL)


def test_an_estimate_that_is_worthless_converges_nothing():
    found = by_rows(Guess(np.float32(0), np.float32(0)), data(), ZEROS)
    assert np.all(found.status == Status.max_steps_reached)
    expected = np.max(np.abs(data()[0]), axis=1)
    np.testing.assert_array_equal(found.residual, expected)


def test_an_estimate_that_is_too_high_costs_steps_and_no_more():
    found = by_rows(Guess(np.float32(1), np.float32(1)), data(), ZEROS)
    np.testing.assert_array_equal(found.n_steps, 200)
    np.testing.assert_array_equal(found.status, np.append(np.zeros(N_ROWS - 1), Status.max_steps_reached))


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_leave_the_others_bit_for_bit(broken):
    targets, rates = data()
    rows = np.array([0, 5, 20])
    bad = targets.copy()
    bad[rows, 1] = broken
    clean = by_rows(Picard(), (targets, rates), ZEROS)
    dirty = by_rows(Picard(), (bad, rates), ZEROS)
    assert np.all(dirty.status[rows] == Status.nonfinite)
    others = np.delete(np.arange(N_ROWS), rows)
    assert_same(
        jax.tree.map(lambda leaf: leaf[others], dirty), jax.tree.map(lambda leaf: leaf[others], clean)
    )


def test_rows_that_start_at_the_solution_take_no_step_and_keep_it():
    targets, rates = data()
    found = by_rows(Picard(), (targets, rates), targets)
    assert np.all(found.n_steps == 0)
    assert np.all(found.status == Status.converged)
    np.testing.assert_array_equal(found.value, targets)


def test_a_start_of_its_own_is_used_once_and_init_afterwards():
    def start(problem, value):
        return value + 10.0  # far off, so that it shows in the steps

    near = by_rows(Guess(np.float32(0.2), np.float32(0)), data(), ZEROS)
    far = by_rows(Guess(np.float32(0.2), np.float32(0)), data(), ZEROS, start=start)
    is_slow = np.asarray(data()[1]) > 0.7
    assert np.all(np.asarray(far.n_steps)[is_slow][:-1] > np.asarray(near.n_steps)[is_slow][:-1])
    assert np.all(far.residual[:-1] <= TOL)


def test_it_is_the_same_twice_under_jit_and_under_vmap():
    rows = jax.tree.map(lambda leaf: np.stack([leaf, leaf[::-1]]), data())
    starts = np.stack([ZEROS, ZEROS])
    first = by_rows(Picard(), data(), ZEROS)
    assert_same(by_rows(Picard(), data(), ZEROS), first)
    both = jax.device_get(jax.jit(jax.vmap(partial(by_rows, Picard())))(rows, starts))
    assert_same(jax.tree.map(lambda leaf: leaf[0], both), first)
    assert_same(jax.tree.map(lambda leaf: leaf[1, ::-1], both), first)


def test_values_may_be_trees_and_the_tolerance_an_array():
    class Pair(AbstractProblem):
        target: Array

        def fixed_point(self, value):
            return {"x": 0.5 * (value["x"] + self.target), "y": (value["x"], value["y"][1] + 1)}

        def residual(self, value):
            return jnp.abs(value["y"][0] - self.target)

    targets = np.linspace(-3, 3, 9, dtype=np.float32)
    init = {"x": 0 * targets, "y": (0 * targets, np.zeros(9, np.int32))}
    settings: dict[str, Any] = {"max_steps": 64, "steps_per_check": 1}

    @jax.jit
    def both(targets, init, tol):
        found = iterate_rows(Picard(), Pair, targets, init, n_slots=2, tol=tol, **settings)
        one = partial(iterate, Picard(), tol=1e-3, **settings)
        return found, jax.vmap(lambda target, value: one(Pair(target), value))(targets, init)

    found, expected = both(targets, init, np.float32(1e-3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(found.value["y"][1], found.n_steps)


def test_an_order_of_64_bits_will_do_in_double_precision(x64):
    rows = jax.tree.map(lambda leaf: leaf.astype(float), data())
    found = by_rows(Picard(), rows, np.zeros((N_ROWS, 3)), order=np.arange(N_ROWS)[::-1])
    assert np.all(found.status[:-1] == Status.converged)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"tol": 1e-7}, "tol: expected at least 8 machine epsilons of float32"),
    ({"tol": 0.0}, "tol: expected a number > 0, got 0"),
    ({"max_steps": 0}, "max_steps: expected a whole number ≥ 1, got 0"),
    ({"steps_per_check": 0}, "steps_per_check: expected a whole number ≥ 1, got 0"),
    ({"n_slots": 0}, "n_slots: expected a whole number ≥ 1, got 0"),
    ({"solver": None}, "solver: expected an instance of AbstractSolver, got NoneType"),
    ({"data": data()[1][:-1], "problem": lambda r: Pull(r, r)}, "rows: expected 20 rows"),
    ({"data": (data()[0][:0], data()[1][:0]), "init": ZEROS[:0]}, "expected .* at least one row"),
]


def test_bad_input_is_named(untyped):
    defaults = {
        "solver": Picard(), "problem": problem_of, "data": data(), "init": ZEROS, "tol": TOL,
        "max_steps": 10, "steps_per_check": 1, "n_slots": 4,
    }  # fmt: skip
    for settings, message in BAD:
        with pytest.raises(ValueError, match=message):
            iterate_rows(**(defaults | settings))
