"""The loop itself, and the interfaces of what it runs."""

from abc import abstractmethod
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .._checks import check_at_least, check_positive, check_real, check_shape, is_concrete
from .._types import Scalar
from ._gradients import AbstractGradient, Detached
from ._solution import Solution, Status

__all__ = ["AbstractProblem", "AbstractSolver", "Picard", "iterate", "trace"]

_RUNNING = -1


class AbstractProblem(eqx.Module):
    """What is to be solved, for one sample.

    A problem is a pytree that holds every array the solution depends on; nothing may be closed over.
    """

    @abstractmethod
    def residual(self, value: Any) -> Scalar:
        """Return the stopping measure at ``value``: non-negative, zero at a solution, NaN if it broke."""

    @abstractmethod
    def fixed_point(self, value: Any) -> Any:
        """Apply the map whose fixed points are the solutions."""


class AbstractSolver(eqx.Module):
    """A method of solution: hyper-parameters, and what to do with them. Looping is not its business."""

    @abstractmethod
    def init(self, problem: Any, value: Any) -> Any:
        """Return the state that starts from ``value``: all that the next step needs, arrays only."""

    @abstractmethod
    def step(self, problem: Any, state: Any) -> Any:
        """Return the state one step on."""

    @abstractmethod
    def value(self, state: Any) -> Any:
        """Return the iterate that a state stands for."""


class Picard(AbstractSolver):
    """Fixed-point iteration, the method that every problem has: value ← problem.fixed_point(value)."""

    def init(self, problem: AbstractProblem, value: Any) -> Any:
        """Start from ``value``."""
        return value

    def step(self, problem: AbstractProblem, state: Any) -> Any:
        """Apply the problem's map once."""
        return problem.fixed_point(state)

    def value(self, state: Any) -> Any:
        """Return the iterate, which is the whole state."""
        return state


def iterate(
    solver: AbstractSolver,
    problem: AbstractProblem,
    init: Any,
    *,
    tol: float,
    max_steps: int,
    steps_per_check: int = 10,
    gradient: AbstractGradient = Detached(),  # noqa: B008
) -> Solution:
    """Step a solver until ``problem.residual(value) ≤ tol``.

    The residual is looked at on the start and then after every ``steps_per_check`` steps. Under ``vmap``
    each sample stops for itself: its value, status and step count are those it would have alone.

    Args:
        solver: the method.
        problem: what is solved.
        init: the first iterate, of the form of the solution.
        tol: the tolerance, in the residual's units; at least 8 machine epsilons of the residual's dtype.
        max_steps: the most steps one sample may take, ≥ 1.
        steps_per_check: steps between two looks at the residual, ≥ 1.
        gradient: how derivatives pass through; see `Detached`.

    Returns:
        The solution. Running out of steps and non-finite values are statuses, never exceptions.

    Raises:
        ValueError: at trace time, for a ``tol`` that is not positive or below 8 epsilons, for counts
            below 1 and for a residual that is not one real number.
    """
    check_at_least("max_steps", max_steps, 1)
    check_at_least("steps_per_check", steps_per_check, 1)
    _check_tol(tol, problem, init)
    run = partial(_run, tol=tol, max_steps=max_steps, steps_per_check=min(steps_per_check, max_steps))
    return gradient.solve(run, solver, problem, init)


def trace(solver: AbstractSolver, problem: AbstractProblem, init: Any, n_steps: int) -> Any:
    """Record a solver's trajectory: its states before the first and after each of ``n_steps`` steps.

    Args:
        solver: the method.
        problem: what is solved.
        init: the first iterate.
        n_steps: how many steps to take, ≥ 1; there is no early stop.

    Returns:
        The solver's state with a leading axis of length ``n_steps + 1``; map ``solver.value`` over it for
        the iterates.

    Gradient: through every step.
    """
    check_at_least("n_steps", n_steps, 1)
    start = solver.init(problem, init)

    def step(state, _):
        state = solver.step(problem, state)
        return state, state

    _, states = lax.scan(step, start, length=n_steps)
    return jax.tree.map(lambda first, rest: jnp.concatenate([jnp.asarray(first)[None], rest]), start, states)


def _run(solver, problem, init, *, tol, max_steps, steps_per_check) -> Solution:
    def look(state):
        residual = problem.residual(solver.value(state))
        status = jnp.where(residual <= tol, Status.converged, _RUNNING)
        return residual, jnp.where(jnp.isfinite(residual), status, Status.nonfinite).astype(jnp.int32)

    def take(n_steps, carry):
        state, n_taken, *_ = carry
        state = lax.fori_loop(0, n_steps, lambda _, s: solver.step(problem, s), state)
        return (state, n_taken + n_steps, *look(state))

    def has_room_for(n_steps, carry):
        _, n_taken, _, status = carry
        return (status == _RUNNING) & (n_taken + n_steps <= max_steps)

    state = solver.init(problem, init)
    carry = (state, jnp.int32(0), *look(state))
    # The last block is shorter where steps_per_check does not divide max_steps.
    for n_steps in filter(None, (steps_per_check, max_steps % steps_per_check)):
        carry = lax.while_loop(partial(has_room_for, n_steps), partial(take, n_steps), carry)
    state, n_taken, residual, status = carry
    status = jnp.where(status == _RUNNING, Status.max_steps_reached, status).astype(jnp.int32)
    return Solution(solver.value(state), status, n_taken, residual)


def _check_tol(tol, problem, init) -> None:
    check_positive("tol", tol)
    residual = jax.eval_shape(problem.residual, init)
    check_shape("residual", residual, (), "one number for all that is solved together")
    check_real("residual", residual)
    if is_concrete(tol):
        dtype = residual.dtype
        least = 8 * float(jnp.finfo(dtype).eps)
        if tol < least:
            raise ValueError(
                f"tol: expected at least 8 machine epsilons of {dtype} ({least:.2g}), got {tol}."
            )
