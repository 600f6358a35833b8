"""Greedy pursuits: one atom a step, by `neurojax.convergence.iterate` like everything else."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_at_least
from .._precision import product
from .._rows import norm, relative_norm, unit_of
from .._types import Scalar
from ..convergence import AbstractProblem, AbstractSolver, Solution, Status, Unrolled, iterate
from ..convergence._loop import check_tol
from ._dictionary import Dictionary

__all__ = ["matching_pursuit", "orthogonal_matching_pursuit"]


def matching_pursuit(
    dictionary: Dictionary, x: Float[ArrayLike, " features"], *, n_steps: int, tol: float | None = None
) -> Solution:
    """Code one datum greedily: zᵢ ← zᵢ + ⟨r, aᵢ⟩/‖aᵢ‖² for the atom with the largest |⟨r, aᵢ⟩|/‖aᵢ‖.

    Args:
        dictionary: the dictionary.
        x: one datum.
        n_steps: the picks asked for, ≥ 1; an atom may be picked again.
        tol: stop early when ‖x − z @ atoms‖ ≤ tol·‖x‖, ≥ 8 machine epsilons; ``None``: these.

    Returns:
        The solution; ``n_steps`` counts the picks and ``residual`` is ‖x − z @ atoms‖/‖x‖. A pursuit is
        ``Status.converged`` when it has made all the picks that were asked for, or fewer and met ``tol``.
        Scales of data and atoms change nothing; in half precision the code is rounded at the end.

    Raises:
        ValueError: at trace time, for shapes, dtypes and counts that cannot work.

    Gradient:
        That of the code with the picks held constant; reverse mode only.

    Gradient:
        Of ``value``, in datum and atoms, with the picks as constants; reverse mode only.

    Reference:
        Mallat & Zhang 1993.
    """
    return _pursue(_MatchingPursuit(), dictionary, x, n_steps, tol)


def orthogonal_matching_pursuit(
    dictionary: Dictionary, x: Float[ArrayLike, " features"], *, n_steps: int, tol: float | None = None
) -> Solution:
    """Code one datum greedily, refitting all picked atoms by least squares after every pick.

    The pick is the atom with the largest |⟨r, aᵢ⟩|/‖aᵢ‖ among those not yet picked.

    Args:
        dictionary: the dictionary.
        x: one datum.
        n_steps: the picks asked for, hence the most non-zero coefficients; between 1 and the number of atoms.
        tol: stop early when ‖x − z @ atoms‖ ≤ tol·‖x‖, ≥ 8 machine epsilons; ``None``: these.

    Returns:
        The solution; ``n_steps`` counts the picks and ``residual`` is ‖x − z @ atoms‖/‖x‖. A pursuit is
        ``Status.converged`` when it has made all the picks that were asked for, or fewer and met ``tol``.
        Scales of data and atoms change nothing; in half precision the code is rounded at the end.

    Raises:
        ValueError: at trace time, for shapes, dtypes and counts that cannot work.

    Gradient:
        That of the code with the picks held constant; reverse mode only.

    Gradient:
        Of ``value``, in datum and atoms, with the picks as constants; reverse mode only.

    Reference:
        Pati, Rezaiifar & Krishnaprasad 1993; the orthogonal basis: Chen, Billings & Luo 1989.
    """
    if n_steps > dictionary.n_atoms:
        raise ValueError(
            f"n_steps: expected at most {dictionary.n_atoms}, the number of atoms, got {n_steps}."
        )
    return _pursue(_OrthogonalMatchingPursuit(n_steps), dictionary, x, n_steps, tol)


class _PursuitProblem(AbstractProblem):
    """A pursuit, in a unit of the datum and one for each atom, so that all products are in range."""

    dictionary: Dictionary
    x: Float[Array, " features"]

    def residual(self, value: Array) -> Scalar:
        return relative_norm(self.x - self.dictionary.reconstruct(value), norm(self.x))

    def fixed_point(self, value: Array) -> Array:
        solver = _MatchingPursuit()
        return solver.value(solver.step(self, solver.init(self, value)))

    def norms(self) -> Array:
        return jnp.linalg.norm(self.dictionary.atoms, axis=1)


class _MatchingState(NamedTuple):
    code: Array
    error: Array


class _MatchingPursuit(AbstractSolver):
    def init(self, problem, value):
        return _MatchingState(value, problem.x - problem.dictionary.reconstruct(value))

    def step(self, problem, state):
        norms = problem.norms()
        amplitude = problem.dictionary.correlate(state.error) / norms
        best = jnp.argmax(jnp.abs(amplitude))
        change = amplitude[best] / norms[best]
        error = state.error - change * problem.dictionary.atoms[best]
        return _MatchingState(state.code.at[best].add(change), error)

    def value(self, state):
        return state.code


class _OrthogonalState(NamedTuple):
    code: Array  # zeros of the code's shape
    basis: Array  # orthonormal rows that span the picked atoms
    triangle: Array  # picked atoms = triangle @ basis, lower triangular; identity where unused
    picks: Array
    weights: Array  # coefficients on the basis
    count: Array
    error: Array


class _OrthogonalMatchingPursuit(AbstractSolver):
    n_picks: int

    def init(self, problem, value):
        n, x = self.n_picks, problem.x
        return _OrthogonalState(
            code=jnp.zeros_like(value),
            basis=jnp.zeros((n, x.shape[0]), x.dtype),
            triangle=jnp.eye(n, dtype=x.dtype),
            picks=jnp.full(n, value.shape[0], jnp.int32),
            weights=jnp.zeros(n, x.dtype),
            count=jnp.int32(0),
            error=x,
        )

    def step(self, problem, state):
        amplitude = jnp.abs(problem.dictionary.correlate(state.error)) / problem.norms()
        best = jnp.argmax(amplitude.at[state.picks].set(-1, mode="drop")).astype(jnp.int32)
        atom = problem.dictionary.atoms[best].astype(problem.x.dtype)
        # Gram-Schmidt, twice: once loses orthogonality between similar atoms.
        first = product(state.basis, atom)
        rest = atom - product(first, state.basis)
        second = product(state.basis, rest)
        rest = rest - product(second, state.basis)
        is_zero = ~jnp.any(rest != 0)  # where the norm has no derivative
        left = jnp.where(is_zero, 0, jnp.linalg.norm(jnp.where(is_zero, 1, rest)))
        is_new = left > 8 * jnp.finfo(rest.dtype).eps * jnp.linalg.norm(atom)
        direction = jnp.where(is_new, rest / jnp.where(is_new, left, 1), 0)
        weight = product(direction, state.error)
        row = (first + second).at[state.count].set(jnp.where(is_new, left, 1))
        return _OrthogonalState(
            code=state.code,
            basis=state.basis.at[state.count].set(direction),
            triangle=state.triangle.at[state.count].set(row),
            picks=state.picks.at[state.count].set(best),
            weights=state.weights.at[state.count].set(weight),
            count=state.count + 1,
            error=state.error - weight * direction,
        )

    def value(self, state):
        coefficients = solve_triangular(state.triangle, state.weights, trans="T", lower=True)
        return state.code.at[state.picks].add(coefficients, mode="drop")


def _pursue(solver: AbstractSolver, dictionary: Dictionary, x, n_steps: int, tol: float | None) -> Solution:
    check_at_least("n_steps", n_steps, 1)
    x = real_array("x", x, "features")
    code = dictionary.empty_code(x)
    wide = jnp.promote_types(code.dtype, jnp.float32)
    x, atoms = x.astype(wide), dictionary.atoms.astype(wide)
    unit, lengths = unit_of(lax.stop_gradient(x)), jax.vmap(unit_of)(lax.stop_gradient(atoms))
    dictionary = eqx.tree_at(lambda d: d.atoms, dictionary, atoms / lengths[:, None])
    problem = _PursuitProblem(dictionary, x / unit)
    tol = 8 * float(jnp.finfo(code.dtype).eps) if tol is None else tol
    check_tol(tol, code.dtype)
    settings = {"tol": tol, "max_steps": n_steps, "steps_per_check": 1, "gradient": Unrolled()}
    solution = iterate(solver, problem, jnp.zeros(code.shape, wide), **settings)
    is_zero = solution.value == 0
    value = jnp.where(is_zero, 0, solution.value * jnp.where(is_zero, 1, unit / lengths)).astype(code.dtype)
    has_all = solution.status == Status.max_steps_reached  # the picks that were asked for
    status = jnp.where(has_all, Status.converged, solution.status)
    status = jnp.where(jnp.all(jnp.isfinite(value)), status, Status.nonfinite).astype(jnp.int32)
    return Solution(value, status, solution.n_steps, solution.residual)
