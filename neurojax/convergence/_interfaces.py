"""The interfaces of what the convergence loop runs: problems and solvers."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
from jaxtyping import PyTree

from .._types import Scalar

__all__ = ["AbstractProblem", "AbstractSolver", "AbstractStationaryProblem", "Picard", "Tangent"]


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


class Tangent(NamedTuple):
    """A problem linearised at a solution: what `Implicit` solves for the solution's derivative.

    Attributes:
        mask: which entries of the value move; booleans of the value's form.
        operator: the symmetric linear map v ↦ ∂stationarity/∂value·v. Only its block on the mask counts,
            positive definite at a strict minimum.
        diagonal: positive numbers near the operator's diagonal: the preconditioner, and the scale in which
            a degenerate operator is damped.
    """

    mask: PyTree
    operator: Callable[[Any], Any]
    diagonal: PyTree


class AbstractStationaryProblem(AbstractProblem):
    """A problem whose solutions make an energy stationary, so that they can be differentiated implicitly."""

    @abstractmethod
    def stationarity(self, value: Any) -> Any:
        """Return the energy's gradient, zero at a solution on the mask of its tangent.

        The derivative with respect to the problem is taken through this method: it should reach every array
        that the solution depends on, each by one way only.
        """

    @abstractmethod
    def tangent(self, value: Any) -> Tangent:
        """Return the linearisation in ``value``, with the problem fixed."""


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

    def estimate(self, problem: Any, state: Any) -> Scalar:
        """Return ``problem.residual(self.value(state))``, or what comes near it and costs less.

        `iterate_batch` stops on it, and checks the residual itself afterwards.
        """
        return problem.residual(self.value(state))


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
