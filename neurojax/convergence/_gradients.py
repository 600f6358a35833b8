"""How derivatives pass through a convergence loop, as an object that can be swapped."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax

from ._solution import Solution

__all__ = ["AbstractGradient", "Detached"]


class AbstractGradient(eqx.Module):
    """A rule for the derivative of a solution with respect to its problem and its start."""

    @abstractmethod
    def solve(self, run: Callable[..., Solution], solver, problem, init) -> Solution:
        """Return ``run(solver, problem, init)`` with this rule's derivative attached."""


class Detached(AbstractGradient):
    """No derivative: the solution is a constant.

    Gradient:
        Exactly zero with respect to the problem, the solver and the start. By the envelope theorem this
        is all that learning needs when the loss is the energy that the solution minimises.
    """

    def solve(self, run: Callable[..., Solution], solver, problem, init) -> Solution:
        """Return ``run(solver, problem, init)`` as a constant."""
        return run(*_stop_gradient((solver, problem, init)))


def _stop_gradient(tree):
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)
