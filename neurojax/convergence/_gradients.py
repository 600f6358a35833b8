"""How derivatives pass through a convergence loop, as an object that can be swapped."""

from abc import abstractmethod
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from .._checks import check_at_least
from .._trees import bounded, constant
from ._interfaces import AbstractProblem, AbstractSolver
from ._loop import RUNNING, Loop
from ._solution import Solution, Status

__all__ = ["AbstractGradient", "Detached", "Truncated"]


class AbstractGradient(eqx.Module):
    """A rule for the derivative of a solution with respect to its problem, its solver and its start."""

    @abstractmethod
    def solve(self, loop: Loop, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Solution:
        """Return the solution that ``loop`` comes to, with this rule's derivative attached to its value."""


class Detached(AbstractGradient):
    """No derivative: the solution is a constant.

    Gradient:
        Exactly zero with respect to the problem, the solver and the start. By the envelope theorem this
        is all that learning needs when the loss is the energy that the solution minimises.
    """

    def solve(self, loop: Loop, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Solution:
        """Return the solution as a constant."""
        return loop.run(*constant((solver, problem, init)))


class Truncated(AbstractGradient):
    """Through the last ``n_steps`` steps; what came before them is a constant.

    The loop runs as ever, but at most to ``max_steps − n_steps``; then ``n_steps`` more steps are taken, and
    only these are differentiated. So the value is that of a run which goes on a little after its stop, and
    status and residual are those of that value. With ``n_steps ≥ max_steps`` all ``max_steps`` steps are
    taken, without a stop, and nothing is a constant.

    Gradient:
        Biased. For a step z ← T(z; θ) that contracts by ρ < 1 near the solution, dz/dθ is the sum
        Σ_{j<k} (∂T/∂z)ʲ ∂T/∂θ in place of the whole series: a relative error of the order ρᵏ, mostly in
        the directions that converge slowest. Momentum, and solver arrays that the state holds (a step size),
        are constants too. Any order of derivative, forward and reverse; memory grows with ``n_steps``. A
        sample whose status is ``nonfinite`` contributes zero.

    Attributes:
        n_steps: k, ≥ 1.

    Raises:
        ValueError: at construction, for a count below 1.

    Reference:
        Williams & Peng 1990, truncated backpropagation through time.
    """

    n_steps: int = eqx.field(static=True)

    def __check_init__(self):
        check_at_least("n_steps", self.n_steps, 1)

    def solve(self, loop: Loop, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Solution:
        """Return the solution, ``n_steps`` differentiable steps on."""
        n_steps = min(self.n_steps, loop.max_steps)
        n_free = loop.max_steps - n_steps
        method, fixed, start = constant((solver, problem, init))
        progress = loop.advance(method, fixed, loop.start(method, fixed, start), n_free)
        # The last steps once without a derivative, to know which samples break in them ...
        end = lax.fori_loop(0, n_steps, lambda _, state: method.step(fixed, state), progress.state)
        had_broken = progress.status == Status.nonfinite
        end = jax.tree.map(partial(jnp.where, had_broken), progress.state, end)
        residual, status = loop.look(fixed, method.value(end))
        broken = status == Status.nonfinite

        def step(state, _):
            # ... and those stand still: zero times NaN would be NaN for everything that samples share.
            return jax.tree.map(partial(jnp.where, broken), state, solver.step(safe, state)), None

        safe = bounded(problem)
        state = constant(bounded(progress.state)) if n_free else solver.init(safe, bounded(init))
        state, _ = lax.scan(step, state, length=n_steps)
        value = jax.tree.map(partial(jnp.where, broken), constant(method.value(end)), solver.value(state))
        status = jnp.where(status == RUNNING, Status.max_steps_reached, status).astype(jnp.int32)
        n_taken = progress.n_steps + jnp.where(had_broken, 0, n_steps)
        return Solution(value, status, n_taken, residual)
