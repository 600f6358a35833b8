"""Encoding many rows on the device: slots that stay full, SpaRSA where it applies, a certificate a row."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_at_least, check_rank, check_real, check_size
from .._proximal import FISTA
from .._sparsa import SpaRSA
from .._trees import constant
from .._types import Scalar
from ..convergence import AbstractGradient, AbstractSolver, Detached, Implicit, Solution, iterate_rows
from ..penalties import AbstractPenalty, AbstractProximalPenalty
from ._dictionary import AbstractDictionary, Dictionary, check_atoms
from ._encode import default_tol, encode, problem_settings
from ._problem import SparseCodingProblem, in_units, is_certified, make_problem

__all__ = ["encode_batch"]


def encode_batch(
    dictionary: AbstractDictionary,
    xs: Float[ArrayLike, "samples features"],
    penalty: AbstractPenalty,
    *,
    solver: AbstractSolver | None = None,
    tol: float | None = None,
    max_steps: int = 5000,
    steps_per_check: int | None = None,
    gradient: AbstractGradient = Detached(),  # noqa: B008
    init: Float[ArrayLike, "samples atoms"] | None = None,
    n_slots: int | None = None,
) -> Solution:
    """Encode many rows at once on the device, jitted: what `encode` returns for each, sooner.

    With ``Detached`` and ``Implicit`` gradients the rows share slots (`convergence.iterate_rows`): a row
    that has converged leaves, the next takes its place, those with the largest Σ|prox(x @ atomsᵀ)| first,
    for they take longest. Each row stops on its own certificate, which is then computed once more from
    the dictionary itself. ``Unrolled`` and ``Truncated`` map `encode` over the rows.

    Args:
        dictionary: the dictionary.
        xs: the data, one per row, at least one.
        penalty: the penalty, one for all rows.
        solver: as for `encode`; ``None``: `SpaRSA` for L1, non-negative L1 and elastic net, else `FISTA`.
        tol: as for `encode`.
        max_steps: the most solver steps a row, ≥ 1.
        steps_per_check: steps between two looks, ≥ 1; ``None``: 1 for SpaRSA, else 10.
        gradient: how derivatives pass through the inference.
        init: where to start, one row each; ``None``: zero codes.
        n_slots: rows that are worked on at once, ≥ 1; ``None``: an eighth of the rows, from 64 to 256 on a
            CPU, to 8192 on a GPU.

    Returns:
        A solution whose fields have a leading axis of samples. A row with NaN or infinity has
        ``Status.nonfinite``; the others are not touched by it. Rows do not depend on their order or on the
        slots, to within the tolerance.

    Raises:
        ValueError: as `encode`, and for no rows; outside ``jit`` also for a dictionary that has a
            zero or non-finite row.
    """
    xs = jnp.asarray(xs)
    check_rank("xs", xs, "samples features")
    check_real("xs", xs)
    if xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one row, got shape {xs.shape}.")
    if isinstance(dictionary, Dictionary):
        check_atoms(dictionary.atoms)
    if init is not None:
        init = jnp.asarray(init)
        check_rank("init", init, "samples atoms")
        check_size("init", init, 0, xs.shape[0], "rows as in xs")
    if solver is None:
        solver = SpaRSA() if is_certified(penalty) else FISTA()
    if steps_per_check is None:
        steps_per_check = 1 if isinstance(solver, SpaRSA) else 10
    if n_slots is None:
        n_slots = _slots_for(xs.shape[0])
    check_at_least("n_slots", n_slots, 1)
    settings = {"solver": solver, "tol": tol, "max_steps": max_steps, "steps_per_check": steps_per_check}
    return _encode_rows(dictionary, xs, penalty, init, gradient, n_slots, settings)


def _slots_for(n_rows: int) -> int:
    most = 256 if jax.default_backend() == "cpu" else 8192
    return min(max(64, n_rows // 8), most)


@eqx.filter_jit
def _encode_rows(dictionary, xs, penalty, init, gradient, n_slots: int, settings) -> Solution:
    if not isinstance(gradient, (Detached, Implicit)):
        one = partial(encode, dictionary, penalty=penalty, gradient=gradient, **settings)
        return jax.vmap(lambda x, start: one(x, init=start), in_axes=(0, None if init is None else 0))(
            xs, init
        )
    rows, shared = _problems(dictionary, xs, penalty, settings["solver"])
    solution = _solve(rows, shared, init, n_slots=n_slots, **settings)
    if isinstance(gradient, Implicit):
        return jax.vmap(lambda row, one: gradient.attach(_problem(shared, row), one))(rows, solution)
    return constant(solution)


class _Rows(NamedTuple):
    """What belongs to one row of a problem; all else is shared by them."""

    x: Array
    drive: Array


def _problems(dictionary, xs, penalty, solver) -> tuple[_Rows, SparseCodingProblem]:
    make = partial(make_problem, dictionary, penalty=penalty, **problem_settings(solver))
    return jax.vmap(lambda x: _row_of(make(x)))(xs), make(xs[0])


def _row_of(problem: SparseCodingProblem) -> _Rows:
    return _Rows(problem.x, problem.drive)


def _problem(shared: SparseCodingProblem, row: _Rows) -> SparseCodingProblem:
    return eqx.tree_at(_row_of, shared, row)


def _solve(rows, shared, init, *, solver, tol, max_steps, steps_per_check, n_slots) -> Solution:
    """Run all rows' problems, in a unit in which squares of small and of large data stay in range."""
    rows, shared, init, solver = constant((rows, shared, init, solver))
    shape, dtype = rows.drive.shape, rows.drive.dtype
    unit = jnp.ones((), dtype)
    if is_certified(shared.penalty):
        unit = _unit(rows.x)
        shared = eqx.tree_at(lambda p: p.penalty, shared, in_units(shared.penalty, unit))
        rows = _Rows(rows.x / unit, rows.drive / unit)
    if init is None:
        codes = jnp.zeros(shape, dtype)
    else:
        check_size("init", init, 1, shape[1], "coefficients, one for each atom")
        codes = init.astype(dtype) / unit

    def start_from_zero(this: SparseCodingProblem, value: Array):
        if isinstance(solver, SpaRSA):
            return solver.init_at(this, this.point_at_zero())
        return solver.init(this, value)

    solution = iterate_rows(
        solver, partial(_problem, shared), rows, codes,
        tol=default_tol(dtype) if tol is None else tol, max_steps=max_steps, steps_per_check=steps_per_check,
        n_slots=n_slots, start=start_from_zero if init is None else None,
        order=jnp.argsort(-_length(shared.penalty, rows.drive)),
    )  # fmt: skip
    return eqx.tree_at(lambda s: s.value, solution, solution.value * unit)


def _unit(xs: Array) -> Scalar:
    """Return a power of two near the largest number: dividing by it rounds nothing. 1 where all are 0."""
    largest = jnp.max(jnp.where(jnp.isfinite(xs), jnp.abs(xs), 0))
    return jnp.where(largest > 0, jnp.ldexp(jnp.ones((), xs.dtype), jnp.frexp(largest)[1] - 1), 1)


def _length(penalty: AbstractPenalty, drives: Float[Array, "samples atoms"]) -> Float[Array, " samples"]:
    """Guess which rows take longer; on natural patches Spearman's ρ with the steps taken was 0.95."""
    if not isinstance(penalty, AbstractProximalPenalty):
        return jnp.sum(jnp.abs(drives), axis=1)
    return jax.vmap(lambda drive: jnp.sum(jnp.abs(penalty.prox(drive, jnp.ones((), drive.dtype)))))(drives)
