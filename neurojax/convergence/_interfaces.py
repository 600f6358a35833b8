"""The interfaces of what the convergence loop runs: problems and solvers."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._arrays import native_leaves
from .._final import check_bases
from .._types import Scalar

__all__ = ["AbstractProblem", "AbstractSolver", "AbstractStationaryProblem", "Picard", "Tangent", "masked"]


class AbstractProblem(eqx.Module):
    """A problem to be solved, for one sample.

    A problem is a pytree that holds every array the solution depends on; nothing may be closed over.
    """

    @abstractmethod
    def residual(self, value: Any) -> Scalar:
        """Return the stopping measure at ``value``: non-negative, zero at a solution, NaN if it broke."""

    @abstractmethod
    def fixed_point(self, value: Any) -> Any:
        """Apply the map whose fixed points are the solutions."""


class Tangent(NamedTuple):
    """A problem linearized at a solution: what `Implicit` solves for the solution's derivative.

    Attributes:
        project: the orthogonal projector P onto the directions in which the solution moves. A mask is the
            special case in which some entries move and the others do not: ``masked`` makes its projector.
        operator: the symmetric linear map v ↦ ∂stationarity/∂value·v. Only P·operator·P counts, which is
            positive definite on P's range at a strict minimum.
        diagonal: positive numbers near the operator's diagonal: the preconditioner, and the scale in which
            a degenerate operator is damped.
    """

    project: Callable[[Any], Any]
    operator: Callable[[Any], Any]
    diagonal: PyTree


def masked(mask: PyTree) -> Callable[[Any], Any]:
    """Return the projector that keeps the entries of a mask, booleans of the value's form."""

    def project(value: PyTree) -> PyTree:
        value = native_leaves("value", value)
        return jax.tree.map(lambda keep, leaf: jnp.where(keep, leaf, 0), mask, value)

    return project


class AbstractStationaryProblem(AbstractProblem):
    """A problem whose solutions make an energy stationary, so that they can be differentiated implicitly."""

    @abstractmethod
    def stationarity(self, value: Any) -> Any:
        """Return the energy's gradient, whose part along the tangent is zero at a solution.

        The derivative with respect to the problem is taken through this method: it should reach every array
        that the solution depends on, each by one way only.
        """

    @abstractmethod
    def tangent(self, value: Any) -> Tangent:
        """Return the linearization in ``value``, with the problem fixed."""


class AbstractSolver(eqx.Module):
    """A method of solution: hyper-parameters, and what to do with them. Looping is not its business.

    Concrete solvers are final: a subclass of one raises ``TypeError`` when it is defined.

    Attributes:
        has_smooth_steps: whether the derivative of the iterates tends to that of the solution, as it does
            where a step is a fixed map, or tends to one. `Unrolled` and `Truncated` refuse a solver that says
            ``False``; `SpaRSA` does, for its step sizes never settle.
    """

    has_smooth_steps: ClassVar[bool] = True

    @property
    def n_gradients(self) -> int:
        """The number of gradients a step evaluates, in which ``n_steps`` and ``max_steps`` count. Here: 1.

        A solver whose step is a block of several says how many, so that all solvers are counted alike.
        """
        return 1

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        check_bases(cls, AbstractSolver)

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

        `iterate_rows` stops on it, and checks the residual itself afterwards.
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
