"""`iterate` and `trace`: a solver run on a problem."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .._arrays import native_leaves
from .._checks import check_at_least, check_kind
from .._trees import constant
from ._gradients import AbstractGradient
from ._implicit import Implicit
from ._interfaces import AbstractProblem, AbstractSolver
from ._loop import Loop, check_loop
from ._solution import Solution

__all__ = ["iterate", "trace"]


def iterate(
    solver: AbstractSolver,
    problem: AbstractProblem,
    init: Any,
    *,
    tol: float,
    max_steps: int,
    steps_per_check: int = 10,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
) -> Solution:
    """Step a solver until ``problem.residual(value) ≤ tol``.

    The residual is looked at on the start and then after every ``steps_per_check`` steps. Under ``vmap``
    each sample stops for itself: its value, status and step count are those it would have alone.

    Args:
        solver: the method.
        problem: what is solved.
        init: the first iterate, of the form of the solution.
        tol: the tolerance, in the residual's units; at least 8 machine epsilons of the residual's dtype.
        max_steps: the most steps one sample may take, ≥ 1. Where the solver's step is a block of several
            (``solver.n_gradients``, as of `SpaRSA`) each of these counts, and only whole blocks are taken.
        steps_per_check: steps between two looks at the residual, ≥ 1, counted likewise; a block at least.
        gradient: how derivatives pass through: `Implicit`, `Detached`, `Unrolled` or `Truncated`. Whatever
            the problem, `Implicit` costs nothing until a derivative is taken.

    Returns:
        The solution. Running out of steps and non-finite values are statuses, never exceptions.

    Raises:
        ValueError: at trace time, for arguments of another kind, for a ``tol`` that is not positive or below
            8 epsilons, for counts below 1 and for a residual that is not one real number; and when a
            derivative is taken by `Implicit` of a problem that does not answer for it.
    """
    check_kind("problem", problem, AbstractProblem)
    check_kind("gradient", gradient, AbstractGradient)
    init = native_leaves("init", init)
    check_loop(solver, jax.eval_shape(problem.residual, init), tol, max_steps, steps_per_check)
    size = solver.n_gradients
    most, between = max_steps // size, max(1, min(steps_per_check, max_steps) // size)
    solution = gradient.solve(Loop(constant(tol), most, between), solver, problem, init)
    return solution if size == 1 else eqx.tree_at(lambda s: s.n_steps, solution, solution.n_steps * size)


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
    start = solver.init(problem, native_leaves("init", init))

    def step(state, _):
        state = solver.step(problem, state)
        return state, state

    _, states = lax.scan(step, start, length=n_steps)
    return jax.tree.map(lambda first, rest: jnp.concatenate([jnp.asarray(first)[None], rest]), start, states)
