"""The proximal-gradient core: step, momentum, restart, for any smooth loss and any penalty.

A composite problem is F(z) = f(z) + g(z) with f smooth and g a penalty; the solvers here know nothing
else about it.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ._checks import check_positive
from ._types import Scalar
from .convergence import AbstractSolver, AbstractStationaryProblem, Tangent
from .penalties import AbstractPenalty, AbstractProximalPenalty, AbstractValuedPenalty

__all__ = [
    "FISTA",
    "ISTA",
    "AbstractCompositeProblem",
    "AbstractProximalGradient",
    "Code",
    "Point",
    "largest_eigenvalue",
    "length",
    "relative_norm",
    "require_prox",
    "require_value",
    "unit_of",
]

Code = Float[Array, "*code"]


class Point(NamedTuple):
    """A value, and what is known of f there.

    Attributes:
        value: z.
        gradient: ∇f(z).
        error: z·atoms − x, or whatever else of f a problem keeps; ``None`` if nothing.
        leading: that part of the error which is known near a point, too.
    """

    value: Array
    gradient: Array
    error: Array | None = None
    leading: Array | None = None


class AbstractCompositeProblem(AbstractStationaryProblem):
    """Minimise F(z) = f(z) + g(z) over an array z: f smooth with L-Lipschitz gradient, g the penalty."""

    penalty: eqx.AbstractVar[AbstractPenalty]
    lipschitz: eqx.AbstractVar[Scalar]

    @abstractmethod
    def smooth_gradient(self, value: Code) -> Code:
        """Return ∇f(value)."""

    def point(self, value: Code) -> "Point":
        """Evaluate f at ``value``."""
        return Point(value, self.smooth_gradient(value))

    def point_near(self, point: "Point", value: Code) -> "Point":
        """Evaluate f at a value near an exact ``point``, more cheaply if less exactly.

        The gradient may be ∇f(point) + M·(value − point) with any ∇²f − (L/8)·I ≼ M ≼ ∇²f. Here: exact.
        """
        del point
        return self.point(value)

    def smooth_value_at(self, point: "Point") -> Scalar:
        """Return f at a point, less f(0).

        Raises:
            ValueError: here, for a problem that has not said how.
        """
        raise ValueError(f"problem: expected one with smooth_value_at, got {type(self).__name__}.")

    def bending(self, old: "Point", new: "Point") -> Scalar:
        """Return ⟨d, ∇f(new) − ∇f(old)⟩ for the step d between two points."""
        return jnp.sum((new.value - old.value) * (new.gradient - old.gradient))

    def residual_at(self, point: "Point", penalty_value: Scalar, movement: Scalar) -> Scalar:
        """Return the residual at a point that a step of length ``movement`` led to, or what comes near it.

        Here: the residual itself.
        """
        del penalty_value, movement
        return self.residual(point.value)

    def fixed_point(self, value: Code) -> Code:
        """Apply z ↦ prox_{g/L}(z − ∇f(z)/L), or z ↦ z − (∇f(z) + ∇g(z))/L where g is smooth."""
        return self.fixed_point_from(value, self.smooth_gradient(value))

    def fixed_point_from(self, value: Code, smooth_gradient: Code) -> Code:
        """Apply the same map where ∇f(value) is known already."""
        if self.penalty.is_smooth:
            return value - (smooth_gradient + self.penalty.gradient(value)) / self.lipschitz
        penalty = require_prox("fixed_point", self.penalty)
        return penalty.prox(value - smooth_gradient / self.lipschitz, 1 / self.lipschitz)

    def stationarity(self, value: Code) -> Code:
        """Return ∇f(value) + ∇g(value), which a fixed point makes zero on the penalty's support."""
        return self.smooth_gradient(value) + self.penalty.gradient(value)

    def tangent(self, value: Code) -> Tangent:
        """Return the support, the Hessian ∇²f + ∇²g, and L plus the positive part of ∇²g's diagonal."""
        _, hessian = jax.linearize(lambda v: self.smooth_gradient(v) + self.penalty.gradient(v), value)
        diagonal = jnp.full_like(value, self.lipschitz)
        if self.penalty.is_separable:
            _, curvature = jax.jvp(self.penalty.gradient, (value,), (jnp.ones_like(value),))
            diagonal = diagonal + jnp.maximum(curvature, 0)
        return Tangent(self.penalty.support(value), hessian, diagonal)


class _Iterate(NamedTuple):
    value: Array
    point: Array  # where the next gradient is taken; the value itself without momentum
    age: Array  # t_k of Beck & Teboulle
    step_size: Array


class AbstractProximalGradient(AbstractSolver):
    """What ISTA and FISTA share: the step size, the start, and the iterate of a state."""

    step_size: ArrayLike | None = None
    backtracking: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        if self.step_size is not None:
            check_positive("step_size", self.step_size)

    def init(self, problem: AbstractCompositeProblem, value: Code) -> _Iterate:
        """Start from ``value``, without momentum."""
        require_prox(type(self).__name__, problem.penalty)
        first = 1.0 if self.backtracking else 1 / problem.lipschitz
        step_size = jnp.asarray(first if self.step_size is None else self.step_size, value.dtype)
        return _Iterate(value, value, jnp.ones((), value.dtype), step_size)

    def value(self, state: _Iterate) -> Code:
        """Return the iterate (not the point where the next gradient is taken)."""
        return state.value


class ISTA(AbstractProximalGradient):
    """Iterative shrinkage-thresholding: z ← prox_{ηg}(z − η∇f(z)).

    Attributes:
        step_size: η, > 0. ``None`` takes 1/L, with L from power iteration; with backtracking it is the
            first guess (``None``: 1).
        backtracking: halve η, and repeat the step, whenever the curvature along the step exceeds 1/η:
            η⟨∇²f(z)Δ, Δ⟩ > ‖Δ‖² for Δ = z⁺ − z (exact where f is quadratic). Costs a second gradient a
            step, and no L.

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator.

    Reference:
        Daubechies, Defrise & De Mol 2004; Beck & Teboulle 2009, section 3, for backtracking.
    """

    def step(self, problem: AbstractCompositeProblem, state: _Iterate) -> _Iterate:
        """Take one proximal-gradient step."""
        value, step_size, _ = _proximal_step(problem, state, self.backtracking)
        return state._replace(value=value, point=value, step_size=step_size)


class FISTA(AbstractProximalGradient):
    """ISTA with Nesterov's momentum, restarted for each sample when the momentum points uphill.

    From y = z₀, t = 1:  z⁺ = prox_{ηg}(y − η∇f(y));  t⁺ = (1 + √(1 + 4t²))/2;
    y⁺ = z⁺ + (t − 1)/t⁺ · (z⁺ − z);  and where ⟨y − z⁺, z⁺ − z⟩ > 0: y⁺ = z⁺, t⁺ = 1.

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
        value, step_size, accepted = _proximal_step(problem, state, self.backtracking)
        change = value - state.value
        uphill = jnp.sum((state.point - value) * change) > 0
        restart = uphill | jnp.logical_not(accepted)
        age = jnp.where(restart, 1, (1 + jnp.sqrt(1 + 4 * state.age**2)) / 2)
        momentum = jnp.where(restart, 0, (state.age - 1) / age)
        return _Iterate(value, value + momentum * change, age, step_size)


def require_prox(name: str, penalty: AbstractPenalty) -> AbstractProximalPenalty:
    """Return ``penalty`` if it has a proximal operator, else raise a ``ValueError`` for ``name``."""
    if not isinstance(penalty, AbstractProximalPenalty):
        raise ValueError(
            f"{name}: expected a penalty with a proximal operator, got {type(penalty).__name__}, "
            "which has none; smooth penalties are minimised by sparse_coding.Gradient."
        )
    return penalty


def require_value(name: str, penalty: AbstractPenalty) -> AbstractValuedPenalty:
    """Return ``penalty`` if it has a value, else raise a ``ValueError`` for ``name``."""
    if not isinstance(penalty, AbstractValuedPenalty):
        raise ValueError(
            f"{name}: expected a penalty with a value, got {type(penalty).__name__}, which has none."
        )
    return penalty


def length(vector: Code) -> Scalar:
    """Return ‖vector‖₂ over all entries, without overflow or underflow of the squares."""
    unit = unit_of(vector)
    return unit * jnp.linalg.norm(jnp.ravel(vector / unit))


def unit_of(vector: Code) -> Scalar:
    """Return max |vectorᵢ|, or 1 where that is zero or not finite."""
    largest = jnp.max(jnp.abs(vector))
    return jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)


def relative_norm(change: Code, *lengths: Scalar) -> Scalar:
    """Return ‖change‖ divided by the largest of ``lengths`` (by 1 where all of them are 0)."""
    scale = jnp.max(jnp.stack(lengths))
    return length(change) / jnp.where(scale > 0, scale, 1)


def largest_eigenvalue(apply, like: Code, *, n_iterations: int = 30, margin: float = 0.05) -> Scalar:
    """Estimate the largest eigenvalue of a symmetric positive semi-definite operator, on the safe side.

    (1 + margin)·‖M u‖ after ``n_iterations`` power iterations u ← M u/‖M u‖ from a fixed random start.
    Steps of 1/L stay stable down to estimates of 3/4 of the truth, even with momentum; the plain estimate
    is typically 1 to 3 % low.

    Args:
        apply: u ↦ M u.
        like: an array of u's shape and dtype.
        n_iterations: products with M, ≥ 1.
        margin: relative allowance for what power iteration has not reached.

    Returns:
        The estimate; the smallest positive number of the dtype where M is 0. Carries no gradient.
    """
    tiny = jnp.finfo(like.dtype).tiny
    # NumPy's: drawing on the device would be a third of the whole program's compilation.
    start = jnp.asarray(np.random.default_rng(0).normal(size=like.shape), like.dtype)

    def multiply(_, carry):
        vector, _ = carry
        image = apply(vector)
        norm = length(image)
        return image / jnp.maximum(norm, tiny), norm

    start = start / length(start), jnp.zeros((), like.dtype)
    _, norm = jax.lax.fori_loop(0, n_iterations, multiply, start)
    return jax.lax.stop_gradient(jnp.maximum((1 + margin) * norm, tiny))


def _proximal_step(problem, state: _Iterate, backtracking: bool) -> tuple[Array, Array, Array]:
    step_size = state.step_size
    if not backtracking:
        gradient = problem.smooth_gradient(state.point)
        value = problem.penalty.prox(state.point - step_size * gradient, step_size)
        return value, step_size, jnp.bool_(True)
    # A Hessian product, not a difference of gradients, which near the solution is all rounding.
    gradient, hessian_product = jax.linearize(problem.smooth_gradient, state.point)
    value = problem.penalty.prox(state.point - step_size * gradient, step_size)
    change = value - state.point
    direction = change / unit_of(change)
    excess = step_size * jnp.sum(hessian_product(direction) * direction) - jnp.sum(direction**2)
    rejected = excess > 0  # false for NaN: broken values go on, and end as a status
    step_size = jnp.where(rejected, step_size / 2, step_size)
    return jnp.where(rejected, state.value, value), step_size, ~rejected
