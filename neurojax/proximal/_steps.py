"""Proximal-gradient steps: the step, momentum, restart and backtracking, for any smooth term and penalty."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_positive
from .._rows import product_in_units
from ..convergence import AbstractSolver
from ._problem import AbstractCompositeProblem, require_prox
from ._smooth import Point

__all__ = ["FISTA", "ISTA", "AbstractProximalGradient", "fixed_step"]

Value = Float[Array, "*value"]

_GROWTH = 1.1  # of the step size in a step, where only trying tells how far it may grow


class _Iterate(NamedTuple):
    """The state of ISTA and FISTA.

    Attributes:
        value: x_k of Beck & Teboulle.
        point: y_{k+1}, where the next gradient is taken; without momentum the value itself.
        t: t_{k+1}.
        step_size: the next one.
    """

    value: Array
    point: Array
    t: Array
    step_size: Array


class AbstractProximalGradient(AbstractSolver):
    """The base of ISTA and FISTA: the step size, the start, and the iterate of a state."""

    step_size: ArrayLike | None = None
    backtracking: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        if self.step_size is not None:
            check_positive("step_size", self.step_size)

    def init(self, problem: AbstractCompositeProblem, value: Value) -> _Iterate:
        """Start from ``value``, without momentum."""
        require_prox(type(self).__name__, problem.penalty)
        is_blind = self.backtracking and problem.is_bounded
        first = 1.0 if is_blind else 1 / problem.lipschitz
        step_size = jnp.asarray(first if self.step_size is None else self.step_size, value.dtype)
        return _Iterate(value, value, jnp.ones((), value.dtype), step_size)

    def value(self, state: _Iterate) -> Value:
        """Return the iterate (not the point where the next gradient is taken)."""
        return state.value


class ISTA(AbstractProximalGradient):
    """Iterative shrinkage-thresholding: z ← prox_{ηg}(z − η∇f(z)).

    Attributes:
        step_size: η, > 0. ``None`` takes 1/L, with L by Lanczos's method; with backtracking it is the
            first guess (``None``: 1, or the inverse of the curvature at the start where f has no bound).
        backtracking: halve η, and repeat the step, whenever it is too long: where η·C > ‖Δ‖² for
            Δ = z⁺ − z and the C of `AbstractSmooth.curvature_along`, for a quadratic f its curvature along
            the step, ⟨∇²f Δ, Δ⟩. Costs more evaluations a step, and no L. A smooth term without a bound on
            its curvature is always treated so.

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator.

    Reference:
        Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, section 3, for backtracking.
    """

    def step(self, problem: AbstractCompositeProblem, state: _Iterate) -> _Iterate:
        """Take one proximal-gradient step."""
        value, step_size, is_accepted = _proximal_step(problem, state, self.backtracking)
        if not problem.is_bounded:
            step_size = jnp.where(is_accepted, _GROWTH * step_size, step_size)
        return state._replace(value=value, point=value, step_size=step_size)


class FISTA(AbstractProximalGradient):
    """ISTA with Nesterov's momentum, restarted for each sample when the momentum points uphill.

    From y = z₀, t = 1:  z⁺ = prox_{ηg}(y − η∇f(y));  t⁺ = (1 + √(1 + 4t²))/2;
    y⁺ = z⁺ + (t − 1)/t⁺ · (z⁺ − z);  and where ⟨y − z⁺, z⁺ − z⟩ > 0: y⁺ = z⁺, t⁺ = 1. For a smooth term
    without a bound on its curvature such a restart also doubles η, so that it can grow again.

    Attributes:
        step_size: as for `ISTA`.
        backtracking: as for `ISTA`.

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator.

    Reference:
        Beck & Teboulle 2009; the restart: O'Donoghue & Candès 2015, section 3.2 (gradient scheme).
    """

    def step(self, problem: AbstractCompositeProblem, state: _Iterate) -> _Iterate:
        """Take one accelerated step, or restart."""
        value, step_size, is_accepted = _proximal_step(problem, state, self.backtracking)
        change = value - state.value
        is_uphill = product_in_units(state.point - value, change) > 0
        restart = is_uphill | jnp.logical_not(is_accepted)
        if not problem.is_bounded:
            step_size = jnp.where(is_accepted & is_uphill, 2 * step_size, step_size)
        t = jnp.where(restart, 1, (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2)
        momentum = jnp.where(restart, 0, (state.t - 1) / t)
        return _Iterate(value, value + momentum * change, t, step_size)


def fixed_step(solver: AbstractSolver) -> ArrayLike | None:
    """Return the step size of a solver that keeps the one it was given; ``None`` for any other."""
    if isinstance(solver, AbstractProximalGradient) and not solver.backtracking:
        return solver.step_size
    return None


def _proximal_step(
    problem: AbstractCompositeProblem, state: _Iterate, backtracking: bool
) -> tuple[Array, Array, Array]:
    """Return the next value and step size, and whether the step was taken; else the step size is halved."""
    step_size, penalty = state.step_size, require_prox("step", problem.penalty)
    gradient = problem.smooth.gradient(state.point)
    value = penalty.prox(state.point - step_size * gradient, step_size)
    if problem.is_bounded and not backtracking:
        return value, step_size, jnp.bool_(True)
    step = value - state.point
    curvature = problem.smooth.curvature_along(Point(state.point, gradient), step)
    is_rejected = ~(step_size * curvature <= jnp.sum(step**2))  # also where f is not finite after the step
    step_size = jnp.where(is_rejected, step_size / 2, step_size)
    return jnp.where(is_rejected, state.value, value), step_size, ~is_rejected
