"""Derivatives of a solution from what it solves, without a look at how it was found."""

import warnings
from functools import partial
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array

from .._checks import check_at_least, check_positive
from .._trees import bounded, constant
from ._gradients import AbstractGradient
from ._interfaces import AbstractProblem, AbstractSolver, AbstractStationaryProblem
from ._loop import Loop
from ._solution import Solution, Status

__all__ = ["Conditioning", "Implicit", "conditioning"]


class Implicit(AbstractGradient):
    """By the implicit function theorem, on the part of the solution that moves: the default of inference.

    With G = problem.stationarity, a solution z(θ) has P·G(z, θ) = 0, with P the projector onto the directions
    in which it moves (``tangent.project``; for L1 the mask of its support), and stays at its kinks otherwise:
    P H P dz = −P ∂G/∂θ dθ,  dz = P dz,  with H = ∂G/∂z. P H P is symmetric, and on P's range positive
    definite at a strict minimum, so it is solved by conjugate gradients. The same forward loop as `Detached`,
    and memory that does not grow with its steps.

    Where P H P is singular there, as for two equal atoms that are both active, the solution is not a
    differentiable function of θ. Directions for which the system has a solution still get one (the shortest
    in the norm of D = ``tangent.diagonal``). A direction that conjugate gradients cannot solve to √ε of its
    length within ``max_steps`` is solved with H + damping·D in place of H, and what is not finite even then
    is 0. ``report=True`` warns when that happens; `conditioning` tells beforehand how near to singular a
    solution's system is.

    Gradient:
        That of the solution, for a converged sample. What limits it is the code: with the support right, the
        derivatives of an L1 code in datum and strength are exact, those in the atoms as good as the code
        times the condition of P H P; with a coefficient on the wrong side of its threshold, that one's share
        is missing or too much. So converge well: a relative gap of 1e-5 or less. For a sample that ran out of
        steps, the same formula at its last iterate and support: finite, not the derivative of anything; mask
        it by its status. A ``nonfinite`` sample contributes zero. Zero with respect to the solver and the
        start. Forward and reverse mode, of any order; the projector and the choice of damping are constants.
        Where a system is damped, forward and reverse mode may differ: each decides for its own direction.

    Attributes:
        tol: relative residual of the linear solve, > 0; ``None``: 1e-6, or 1e-12 in float64.
        max_steps: the most steps of conjugate gradients, ≥ 1; ``None``: twice the size of the solution.
        damping: of a degenerate system, relative to its diagonal, > 0.
        report: warn (`RuntimeWarning`, from the host, when the computation runs) where a system was damped.

    Raises:
        ValueError: when a derivative is taken, at trace time, for a problem that does not answer for its
            linearization: one that is not an `AbstractStationaryProblem`, or whose penalty does not say in
            which directions a solution moves. The forward pass takes any problem.

    Reference:
        Bertrand et al. 2020, Implicit differentiation of Lasso-type models; Blondel et al. 2022, section 2.1.
    """

    tol: float | None = eqx.field(default=None, static=True)
    max_steps: int | None = eqx.field(default=None, static=True)
    damping: float = eqx.field(default=1e-3, static=True)
    report: bool = eqx.field(default=False, static=True)
    needs_steps: ClassVar[bool] = False

    def __check_init__(self):
        if self.tol is not None:
            check_positive("tol", self.tol)
        if self.max_steps is not None:
            check_at_least("max_steps", self.max_steps, 1)
        check_positive("damping", self.damping)

    def solve(self, loop: Loop, solver: AbstractSolver, problem: AbstractProblem, init: Any) -> Solution:
        """Return the solution, differentiable with respect to the problem."""
        return self.attach(problem, loop.run(*constant((solver, problem, init))))

    def attach(self, problem: AbstractProblem, solution: Solution) -> Solution:
        """Give a solution that was found elsewhere its derivative with respect to the problem."""
        solution = constant(solution)
        usable = solution.status != Status.nonfinite
        value = _at_solution(problem, solution.value, usable, self)
        return eqx.tree_at(lambda s: s.value, solution, value)


@eqx.filter_custom_jvp
def _at_solution(problem, value, usable, settings: Implicit):
    """Return ``value``, as a function of the problem that it solves."""
    del problem, usable, settings
    return value


@_at_solution.def_jvp
def _at_solution_jvp(primals, tangents):
    problem, value, usable, settings = primals
    if not isinstance(problem, AbstractStationaryProblem):
        raise ValueError(
            "gradient: Implicit expected an AbstractStationaryProblem, which knows its tangent, "
            f"got {type(problem).__name__}; pass gradient=Detached() for a constant solution, or Unrolled() "
            "or Truncated(k), which take any problem."
        )
    value = _at_solution(problem, value, usable, settings)  # so that a second derivative sees this one
    problem, point = bounded((problem, value))
    project, apply, diagonal = _flat_tangent(problem, point, usable)
    moving, held = eqx.partition(problem, jax.tree.map(_is_given, tangents[0], is_leaf=_is_none))

    def stationarity(moving):
        return ravel_pytree(eqx.combine(moving, held).stationarity(point))[0]

    _, force = jax.jvp(stationarity, (moving,), (tangents[0],))
    change = lax.custom_linear_solve(
        lambda v: project(apply(project(v))),
        project(-force),
        partial(_conjugate_gradients, project=project, diagonal=diagonal, settings=settings),
        symmetric=True,
    )
    unravel = ravel_pytree(value)[1]
    return value, unravel(project(change))


def _flat_tangent(problem: AbstractStationaryProblem, value, usable=True):
    """Return the tangent's projector (of what is usable), operator and diagonal as those of one vector."""
    project_tree, operator, diagonal = problem.tangent(value)
    unravel = ravel_pytree(value)[1]

    def project(v):
        return jnp.where(usable, ravel_pytree(project_tree(unravel(v)))[0], 0)

    def apply(v):
        return ravel_pytree(operator(unravel(v)))[0]

    return project, apply, ravel_pytree(diagonal)[0]


def _conjugate_gradients(apply, force, *, project, diagonal, settings: Implicit):
    """Solve ``apply(v) = force``; where that cannot be done, with ``damping·diagonal`` added.

    The preconditioner is projected too, so that no step leaves the tangent space.
    """
    tol = settings.tol or (1e-12 if force.dtype == jnp.float64 else 1e-6)
    max_steps = settings.max_steps or 2 * force.size
    # In units of the right-hand side, whose squares would leave float32's range.
    unit = jnp.max(jnp.abs(force))
    unit = jnp.where(unit > 0, unit, 1)
    force = force / unit

    def solve(apply, force):
        return cg(apply, force, tol=tol, maxiter=max_steps, M=lambda v: project(v / diagonal))[0]

    exact = solve(apply, force)
    error = jnp.linalg.norm(apply(exact) - force)
    is_solved = error <= jnp.finfo(force.dtype).eps ** 0.5 * jnp.linalg.norm(force)  # false for NaN
    if settings.report:
        jax.debug.callback(_warn, is_solved)
    # A zero right-hand side ends at once: in a batch without degenerate samples this costs nothing.
    damped = lambda v: apply(v) + project(settings.damping * diagonal * v)  # noqa: E731
    rest = solve(damped, jnp.where(is_solved, 0, force))
    return unit * jnp.where(is_solved, exact, jnp.where(jnp.isfinite(rest), rest, 0))


class Conditioning(NamedTuple):
    """The conditioning of a solution's own derivative; a field each, with the batch's axes under ``vmap``.

    Attributes:
        n_free: the number of directions in which the solution moves, for L1 the size of the support.
        smallest: the least eigenvalue of D^−½ H D^−½ in these directions (D: ``tangent.diagonal``, averaged
            over what moves together).
        largest: its largest eigenvalue.
        is_degenerate: ``smallest ≤ 8·n·ε·largest`` for a solution of n entries: numerically singular, or not
            a minimum.
    """

    n_free: Array
    smallest: Array
    largest: Array
    is_degenerate: Array


def conditioning(problem: AbstractStationaryProblem, value: Any) -> Conditioning:
    """Report the spectrum of the system that `Implicit` solves at ``value``, by a dense eigenvalue problem.

    For a look at a model's samples, not for the training loop: n² numbers and n³ operations for a solution
    of n entries.

    Args:
        problem: the problem, for example of `neurojax.sparse_coding.make_problem`.
        value: its solution.

    Returns:
        The report; for an empty support both eigenvalues are 1 and nothing is degenerate.
    """
    problem, value = constant(bounded((problem, value)))
    project, apply, diagonal = _flat_tangent(problem, value)
    flat = ravel_pytree(value)[0]
    projector = jax.vmap(project)(jnp.eye(flat.size, dtype=flat.dtype))
    # P D P keeps its range: what P mixes has one scale.
    share = jnp.sum(projector**2, axis=1)
    mean = jnp.sum(projector**2 * diagonal, axis=1) / jnp.where(share > 0, share, 1)
    scale = jnp.sqrt(jnp.where(share > 0, mean, 1))
    columns = jax.vmap(lambda v: project(apply(v)))(projector)
    matrix = columns / scale / scale[:, None]
    # Off the tangent space: an eigenvalue above all others, to be left out.
    bound = jnp.maximum(jnp.max(jnp.sum(jnp.abs(matrix), axis=0)), 1)
    eigenvalues = jnp.linalg.eigvalsh(matrix + bound * (jnp.eye(flat.size, dtype=flat.dtype) - projector))
    n_free = jnp.round(jnp.trace(projector)).astype(jnp.int32)
    smallest = jnp.where(n_free > 0, eigenvalues[0], 1)
    largest = jnp.where(n_free > 0, eigenvalues[jnp.maximum(n_free - 1, 0)], 1)
    threshold = 8 * flat.size * jnp.finfo(flat.dtype).eps * largest
    return Conditioning(n_free, smallest, largest, smallest <= threshold)


def _warn(is_solved) -> None:
    if not is_solved:
        warnings.warn(
            "Implicit: the system of a sample is degenerate on its support, or needs more than max_steps; "
            "its derivative was damped.",
            RuntimeWarning,
            stacklevel=2,
        )


def _is_none(leaf) -> bool:
    return leaf is None


def _is_given(leaf) -> bool:
    return leaf is not None
