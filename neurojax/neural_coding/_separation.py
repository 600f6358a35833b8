"""Detection of separation: likelihoods without a finite optimum, which improve along a direction forever.

The gradient of the losses here is G = −Σᵢ pᵢ cᵢ over conditions cᵢ·d ≥ 0, which a direction d must meet if
the loss is not to rise along it: a silent bin of a Poisson neuron, a class that a sample does not have;
pᵢ > 0 is the rate or the probability there. (Bins with spikes have cᵢ·d = 0, and any weight.) By Farkas'
lemma no such direction changes the loss, and the optimum is finite, if and only if some λ with every λᵢ > 0
has Σᵢ λᵢ cᵢ = 0. A Newton step −s, with H s = G, offers λᵢ = pᵢ(1 − fallᵢ), where fallᵢ is the relative fall
of pᵢ that the step promises, to first order. So:

- all fallᵢ < 1: a proof that the optimum is finite. Near one Newton steps, and falls, go to 0.
- with separation Σᵢ λᵢ cᵢ·d = 0 for a d with all cᵢ·d ≥ 0, so some fallᵢ is at least 1, at every point: each
  step takes some rate or probability to a fraction, for ever.
"""

from abc import abstractmethod
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, ArrayLike

from .._trees import constant
from .._types import Scalar
from ..convergence import Solution, Status
from ..penalties import AbstractPenalty, AbstractValuedPenalty
from ..proximal import AbstractCompositeProblem

__all__ = ["AbstractLikelihoodProblem", "with_finite_optimum"]

_LARGEST_FALL = 0.5  # between 0, where falls go near an optimum, and 1, which separation does not leave
_MOST_LOOKS = 10
_FAR = 1e3
_OPEN, _FINITE, _UNKNOWN = 0, 1, 2


class AbstractLikelihoodProblem(AbstractCompositeProblem):
    """A composite problem whose smooth part is a negative log-likelihood that may fall for ever."""

    @abstractmethod
    def curvature_diagonal(self, value: Any) -> Array:
        """Return the diagonal of the Hessian of the smooth part."""

    @abstractmethod
    def falls(self, value: Any, step: Any) -> tuple[Scalar, Scalar]:
        """Return the largest relative fall on ``value − step``, and the largest change of a predictor."""


def with_finite_optimum(
    problem: AbstractLikelihoodProblem, penalty: AbstractPenalty, solution: Solution, tol: ArrayLike
) -> Solution:
    """Return the solution, with ``Status.unbounded`` in place of ``converged`` where there is no optimum.

    That is where after some Newton steps more the next one would still take a rate or a probability to a
    fraction: there is no finite optimum, or one that the tolerance has stopped far short of. If rounding
    prevents a step from being computed, the earlier steps decide, provided that they are at least half of
    those allowed. Where the penalty holds every weight there always is an optimum; a penalty without a value
    is taken to hold them.
    """
    if not isinstance(penalty, AbstractValuedPenalty):
        return solution
    problem, value = constant((problem, solution.value))
    far = jnp.full_like(value[:-1], _FAR)
    may_recede = jnp.any(penalty.prox(far, jnp.ones((), value.dtype)) == far)  # type: ignore[attr-defined]
    may_recede = may_recede & (solution.status == Status.converged)
    # With separation each step takes rates, which are about tol now, to 1/e, and rounding must not hide them.
    n_most = jnp.clip(0.75 * jnp.log(tol / jnp.finfo(value.dtype).eps), 1, _MOST_LOOKS)

    def is_open(carry):
        _, n_looks, verdict = carry
        return may_recede & (verdict == _OPEN) & (n_looks < n_most)

    def look(carry):
        value, n_looks, _ = carry
        step, is_solved = _newton(problem, value)
        fall, change = problem.falls(value, step)
        has_told = (2 * n_looks >= n_most) & jnp.isfinite(change)
        unsolved = jnp.where(has_told, _OPEN, _UNKNOWN)
        verdict = jnp.where(is_solved, jnp.where(fall < _LARGEST_FALL, _FINITE, _OPEN), unsolved)
        # A longer step could overshoot an optimum that is near.
        value = value - step / jnp.maximum(change, 1)
        return value, jnp.where(is_solved, n_looks + 1, _MOST_LOOKS), verdict.astype(jnp.int32)

    _, _, verdict = lax.while_loop(is_open, look, (value, jnp.int32(0), jnp.int32(_OPEN)))
    status = jnp.where(may_recede & (verdict == _OPEN), Status.unbounded, solution.status)
    return Solution(solution.value, status.astype(jnp.int32), solution.n_steps, solution.residual)


def _newton(problem: AbstractLikelihoodProblem, value):
    """Return s of H s = G on the support, and whether conjugate gradients have found it."""
    project, hessian, _ = problem.tangent(value)
    gradient = project(problem.stationarity(value))
    largest = jnp.max(jnp.abs(gradient))
    unit = jnp.where(largest > 0, largest, 1)
    diagonal = problem.curvature_diagonal(value)
    root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))

    def apply(v):  # in units in which the diagonal is 1
        return project(hessian(project(v / root))) / root

    right = gradient / unit / root
    scaled, _ = cg(apply, right, tol=1e-3, maxiter=4 * value.size)
    is_solved = jnp.linalg.norm(apply(scaled) - right) <= 0.03 * jnp.linalg.norm(right)  # false for NaN
    return unit * scaled / root, is_solved
