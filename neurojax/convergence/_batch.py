"""`iterate_rows`: the convergence loop for many rows, in slots that stay full."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Int, PyTree

from .._arrays import native_leaves
from ._interfaces import AbstractProblem, AbstractSolver
from ._loop import RUNNING, Progress, check_loop
from ._slots import count_rows, run_in_slots
from ._solution import Solution, Status

__all__ = ["iterate_rows", "largest_divisor"]

_MARGIN = 0.95  # of the tolerance, where the estimate is not the residual itself
_N_ROUNDS = 4


class _Work(NamedTuple):
    """The contents of a slot: the data of a row and the progress of its solver."""

    data: PyTree
    progress: Progress


@dataclass(frozen=True, eq=False)
class _Round:
    """One pass over the rows that are open: what `run_in_slots` is to do with each."""

    solver: AbstractSolver
    problem: Callable[[Any], AbstractProblem]
    start: Callable[[Any, Any], Any]
    n_calls: int  # of the solver's step between two looks
    max_steps: int
    target: Array

    def begin(self, row) -> _Work:
        data, value, n_steps = row
        problem = self.problem(data)
        return _Work(data, self.assess(problem, self.start(problem, value), n_steps))

    def step(self, work: _Work) -> _Work:
        problem = self.problem(work.data)
        state = work.progress.state
        if self.n_calls == 1:  # a loop would copy its carry
            state = self.solver.step(problem, state)
        else:
            state = lax.fori_loop(0, self.n_calls, lambda _, s: self.solver.step(problem, s), state)
        return _Work(work.data, self.assess(problem, state, work.progress.n_steps + self.interval))

    @property
    def interval(self) -> int:
        """The steps between two looks, as they are counted."""
        return self.n_calls * self.solver.n_gradients

    def assess(self, problem, state, n_steps) -> Progress:
        residual = self.solver.estimate(problem, state)
        status = jnp.where(residual <= self.target, Status.converged, RUNNING)
        is_spent = (status == RUNNING) & (n_steps + self.interval > self.max_steps)
        status = jnp.where(is_spent, Status.max_steps_reached, status)
        status = jnp.where(jnp.isfinite(residual), status, Status.nonfinite)
        return Progress(state, n_steps, residual, status.astype(jnp.int32))

    def done(self, work: _Work) -> Array:
        return work.progress.status != RUNNING

    def finish(self, work: _Work) -> Solution:
        state, n_steps, residual, status = work.progress
        return Solution(self.solver.value(state), status, n_steps, residual)


def iterate_rows(
    solver: AbstractSolver,
    problem: Callable[[Any], AbstractProblem],
    data: PyTree,
    init: PyTree,
    *,
    tol: ArrayLike,
    max_steps: int,
    steps_per_check: int,
    n_slots: int,
    start: Callable[[Any, Any], Any] | None = None,
    order: Int[Array, " rows"] | None = None,
    solution: Solution | None = None,
) -> Solution:
    """Step a solver on each row's problem until its residual is ≤ tol, ``n_slots`` rows at a time.

    The rows run in the slots of `run_in_slots` until ``solver.estimate`` is below the tolerance; then the
    residual of every value is computed itself. Rows above the tolerance go back with half the target, from
    where they are, up to three times: so a converged row's ``residual`` is the problem's own.

    Args:
        solver: the method.
        problem: a row of ``data`` ↦ its problem; arrays that all share belong in its closure.
        data: a pytree with a leading axis of rows.
        init: the first iterates, with a leading axis of rows.
        tol: the tolerance, in the residual's units.
        max_steps: the most steps a row may take, ≥ 1, counted as by `iterate`. No row takes more.
        steps_per_check: steps between two looks at the estimate, ≥ 1, or a block of the solver's; without
            ``solution`` rounded down to a divisor of max_steps. A stretch between looks for which there is no
            room is not begun.
        n_slots: rows at once, ≥ 1.
        start: (problem, value) ↦ the solver's state, where the first is cheaper than ``solver.init``.
        order: which rows come first; the longest should.
        solution: what another solver has come to: only its rows that ran out of steps are worked on, from
            their values (``init`` is not looked at), and their steps are counted on.

    Returns:
        A solution with a leading axis of rows. Carries no gradient; rows that need more than ``max_steps``,
        or break, have their status.
    """
    data, init = native_leaves("data", data), native_leaves("init", init)
    n_rows = count_rows("init", init)
    residual = jax.eval_shape(lambda d, v: problem(_first(d)).residual(_first(v)), data, init)
    check_loop(solver, residual, tol, max_steps, steps_per_check)
    margin = 1 if type(solver).estimate is AbstractSolver.estimate else _MARGIN
    size = solver.n_gradients
    n_calls = max(1, min(steps_per_check, max_steps) // size)
    n_calls = n_calls if solution is not None else largest_divisor(max_steps // size, n_calls)

    def one_round(carry):
        solution, round_number = carry
        target = jnp.asarray(tol * margin * 0.5**round_number, residual.dtype)
        this = _Round(solver, problem, _begin(solver, start, round_number), n_calls, max_steps, target)
        is_open = solution.status == RUNNING
        first = jnp.arange(n_rows) if order is None else order
        queue = first[jnp.argsort(~is_open[first], stable=True)]
        solution = run_in_slots(
            this.begin, this.step, this.done, (data, solution.value, solution.n_steps), n_slots=n_slots,
            finish=this.finish, order=queue, n_queued=jnp.sum(is_open), results=solution,
        )  # fmt: skip
        return _certify(problem, data, solution, tol, max_steps, n_slots), round_number + 1

    def goes_on(carry):
        solution, round_number = carry
        return (round_number < _N_ROUNDS) & jnp.any(solution.status == RUNNING)

    if solution is None:
        counts = jnp.zeros(n_rows, jnp.int32)
        solution = Solution(init, counts + RUNNING, counts, jnp.zeros(n_rows, residual.dtype))
    else:
        is_open = (solution.status == Status.max_steps_reached) & (solution.n_steps < max_steps)
        status = jnp.where(is_open, RUNNING, solution.status)
        solution = Solution(solution.value, status, solution.n_steps, solution.residual)
    solution, _ = lax.while_loop(goes_on, one_round, (solution, jnp.int32(0)))
    status = jnp.where(solution.status == RUNNING, Status.max_steps_reached, solution.status)
    return Solution(solution.value, status, solution.n_steps, solution.residual)


def _begin(solver: AbstractSolver, start, round_number) -> Callable[[Any, Any], Any]:
    """Return how a row begins: the first round may have a start of its own."""
    if start is None:
        return solver.init

    def begin(problem, value):
        later = lambda *row: solver.init(*row)  # noqa: E731  (a bound method would be hashed, with its arrays)
        return lax.cond(round_number == 0, lambda *row: start(*row), later, problem, value)

    return begin


def _certify(problem, data, solution: Solution, tol, max_steps: int, n_slots: int) -> Solution:
    """Put the residual itself in place of the estimate; what is above the tolerance is running again."""
    residual = lax.map(
        lambda row: problem(row[0]).residual(row[1]), (data, solution.value), batch_size=n_slots
    )
    is_short = (solution.status == Status.converged) & (residual > tol)
    status = jnp.where(residual <= tol, Status.converged, solution.status)
    again = jnp.where(solution.n_steps < max_steps, RUNNING, Status.max_steps_reached)
    status = jnp.where(is_short, again, status)
    status = jnp.where(jnp.isfinite(residual), status, Status.nonfinite).astype(jnp.int32)
    return Solution(solution.value, status, solution.n_steps, residual)


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of a positive number that is at most ``most``."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)


def _first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[0], tree)
