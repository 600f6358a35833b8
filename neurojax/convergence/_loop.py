"""The loop itself, in parts that a gradient mode can put together."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike

from .._checks import check_at_least, check_kind, check_positive, check_real, check_shape, is_concrete
from ._interfaces import AbstractProblem, AbstractSolver
from ._solution import Solution, Status

__all__ = ["RUNNING", "Loop", "Progress", "check_loop", "check_tol", "default_tol", "given_tol"]

RUNNING = -1


class Progress(NamedTuple):
    """The progress of one run: the solver's state, steps taken, the last residual and its status."""

    state: Any
    n_steps: Array
    residual: Array
    status: Array


class Loop(eqx.Module):
    """A tolerance, and how often to look: all that `iterate` needs beside solver and problem."""

    tol: ArrayLike
    max_steps: int = eqx.field(static=True)
    steps_per_check: int = eqx.field(static=True)

    def assess(self, problem: AbstractProblem, value: Any) -> tuple[Array, Array]:
        """Return the residual at ``value``, and its status; ``RUNNING`` above the tolerance."""
        residual = problem.residual(value)
        status = jnp.where(residual <= self.tol, Status.converged, RUNNING)
        return residual, jnp.where(jnp.isfinite(residual), status, Status.nonfinite).astype(jnp.int32)

    def start(self, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Progress:
        """Assess the start."""
        state = solver.init(problem, init)
        return Progress(state, jnp.int32(0), *self.assess(problem, solver.value(state)))

    def step_and_assess(
        self, n_steps: int, solver: AbstractSolver, problem: AbstractProblem, progress: Progress
    ):
        """Take ``n_steps`` steps and assess the last iterate, not those between."""
        state = lax.fori_loop(0, n_steps, lambda _, s: solver.step(problem, s), progress.state)
        return Progress(state, progress.n_steps + n_steps, *self.assess(problem, solver.value(state)))

    def may_step(self, n_steps: int, most: ArrayLike, progress: Progress) -> Array:
        """Return whether the run goes on and may take ``n_steps`` more of ``most``."""
        return (progress.status == RUNNING) & (progress.n_steps + n_steps <= most)

    def blocks(self, most: int) -> list[int]:
        """Return the sizes of the blocks between looks: the last is shorter where it has to be."""
        return [n for n in (self.steps_per_check, most % self.steps_per_check) if 0 < n <= most]

    def advance(
        self, solver: AbstractSolver, problem: AbstractProblem, progress: Progress, most: int
    ) -> Progress:
        """Step until the run ends or has taken ``most`` steps."""
        for n_steps in self.blocks(most):
            room = partial(self.may_step, n_steps, most)
            progress = lax.while_loop(room, partial(self.step_and_assess, n_steps, solver, problem), progress)
        return progress

    def finish(self, solver: AbstractSolver, progress: Progress) -> Solution:
        """Return the solution that a run has come to."""
        status = jnp.where(progress.status == RUNNING, Status.max_steps_reached, progress.status)
        value = solver.value(progress.state)
        return Solution(
            value, status.astype(jnp.int32), progress.n_steps, lax.stop_gradient(progress.residual)
        )

    def run(self, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Solution:
        """Run from the start to the end."""
        progress = self.advance(solver, problem, self.start(solver, problem, init), self.max_steps)
        return self.finish(solver, progress)


def check_loop(solver, residual, tol: ArrayLike, max_steps: int, steps_per_check: int) -> None:
    """Raise ``ValueError`` for settings that no loop can run on; ``residual`` is one, or its shape."""
    check_kind("solver", solver, AbstractSolver)
    check_at_least("max_steps", max_steps, 1)
    check_at_least("steps_per_check", steps_per_check, 1)
    if max_steps < solver.n_gradients:
        raise ValueError(
            f"max_steps: expected at least {solver.n_gradients}, the gradients of one step of "
            f"{type(solver).__name__}, got {max_steps}."
        )
    check_shape("residual", residual, (), "one number for all that is solved together")
    check_real("residual", residual)
    check_tol(tol, residual.dtype)


def check_tol(tol: ArrayLike, dtype) -> None:
    """Raise ``ValueError`` for a concrete tolerance that is not positive, or below what a dtype resolves."""
    check_positive("tol", tol)
    least = 8 * float(jnp.finfo(dtype).eps)
    if is_concrete(tol) and np.any(np.asarray(tol) < least):
        raise ValueError(f"tol: expected at least 8 machine epsilons of {dtype} ({least:.2g}), got {tol}.")


def default_tol(dtype) -> float:
    """Return the tolerance for a dtype: 1e-5, 1e-10 in float64, and 8 machine epsilons in half precision."""
    return 1e-10 if dtype == jnp.float64 else max(1e-5, 8 * float(jnp.finfo(dtype).eps))


def given_tol(tol: float | None, dtype) -> float:
    """Return a tolerance that values of a dtype can meet, or raise ``ValueError``; ``None``: the default."""
    if tol is None:
        return default_tol(dtype)
    check_tol(tol, dtype)
    return tol
