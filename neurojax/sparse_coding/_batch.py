"""Encoding many rows on the device: slots that stay full, SpaRSA where it applies, a certificate a row."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_at_least, check_rank, check_real, check_size, is_concrete
from .._precision import product
from .._proximal import FISTA, unit_of
from .._sparsa import SpaRSA
from .._trees import constant
from .._types import Scalar
from ..convergence import AbstractGradient, AbstractSolver, Detached, Implicit, Solution, iterate_rows
from ..distributed import ambient_mesh, check_mesh, n_shards, over_rows, place, shard_rows
from ..penalties import AbstractPenalty, AbstractProximalPenalty
from ._dictionary import AbstractDictionary, Dictionary, check_atoms
from ._encode import default_tol, encode, problem_settings
from ._leading import leading_axes, with_leading_axes
from ._problem import SparseCodingProblem, in_units, is_certified, make_problem
from ._sparse_codes import keep_largest

__all__ = ["default_solver", "encode_batch"]

_LEAST_FEATURES = 64  # of which half are worth leaving out
_MANY_ATOMS = 256
_PATIENCE = 128  # blocks of SpaRSA; patches of natural images took at most 50 to a gap of 1e-5


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
    max_active: int | None = None,
    mesh: Mesh | None = None,
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
        solver: as for `encode`; ``None``: for L1, non-negative L1 and elastic net 128 blocks of `SpaRSA`,
            then `FISTA` for what has not converged (an ill-conditioned problem); else `FISTA`.
        tol: as for `encode`.
        max_steps: the most solver steps a row, ≥ 1; a block of SpaRSA is a step.
        steps_per_check: steps between two looks, ≥ 1; ``None``: 1 for SpaRSA, else 10.
        gradient: how derivatives pass through the inference.
        init: where to start, one row each; ``None``: zero codes.
        n_slots: rows that are worked on at once, ≥ 1, on each device; ``None``: a quarter of its rows, with
            many atoms three eighths, from 64 to 768 on a CPU, to 8192 on a GPU.
        max_active: return the codes as `SparseCodes` of this width, from 1 to the number of atoms; inside
            ``jit`` a row with more active units has ``Status.truncated``. ``None``: dense.
        mesh: the devices, as `neurojax.distributed.make_mesh` makes it: each takes its share of the rows (a
            number that does not divide is padded), in slots of its own; atoms may lie over ``"model"``.
            ``None``: that which ``jax.set_mesh`` has set, if any.

    Returns:
        A solution whose fields have a leading axis of samples. A row with NaN or infinity has
        ``Status.nonfinite``; the others are not touched by it. Rows do not depend on their order or on the
        slots, to within the tolerance.

    Raises:
        ValueError: as `encode`, and for no rows; outside ``jit`` also for a dictionary that has a
            zero or non-finite row, and for the first code with more active units than ``max_active``.
    """
    if mesh is not None:
        check_mesh(mesh)
        dictionary, penalty = place((dictionary, penalty), mesh)
    xs = xs if isinstance(xs, np.ndarray) else jnp.asarray(xs)
    check_rank("xs", xs, "samples features")
    check_real("xs", xs)
    if xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one row, got shape {xs.shape}.")
    if isinstance(dictionary, Dictionary):
        check_atoms(dictionary.atoms)
    if init is not None:
        init = init if isinstance(init, np.ndarray) else jnp.asarray(init)
        check_rank("init", init, "samples atoms")
        check_size("init", init, 0, xs.shape[0], "rows as in xs")
    then = FISTA() if solver is None and is_certified(penalty) else None
    if solver is None:
        solver = default_solver(penalty)
    if steps_per_check is None:
        steps_per_check = 1 if isinstance(solver, SpaRSA) else 10
    over = ambient_mesh() if mesh is None else mesh
    if n_slots is None:
        n_atoms = jax.eval_shape(lambda x: dictionary.empty_code(x), xs[0]).shape[0]
        n_slots = _slots_for(-(-xs.shape[0] // n_shards(over)), n_atoms)
    check_at_least("n_slots", n_slots, 1)
    settings = {"solver": solver, "tol": tol, "max_steps": max_steps, "steps_per_check": steps_per_check}
    rows, starts = _laid_out((xs, init), mesh, over)
    solution = _encode_rows(dictionary, rows, starts, penalty, gradient, n_slots, then, settings, over)
    if len(solution.status) != len(xs):
        solution = jax.tree.map(lambda leaf: leaf[: len(xs)], solution)
    return solution if max_active is None else keep_largest(solution, max_active)


def default_solver(penalty: AbstractPenalty) -> AbstractSolver:
    """Return the quickest solver for a penalty."""
    return SpaRSA() if is_certified(penalty) else FISTA()


def _slots_for(n_rows: int, n_atoms: int) -> int:
    most = 768 if jax.default_backend() == "cpu" else 8192
    eighths = 3 if n_atoms >= _MANY_ATOMS else 2  # wide products want more rows, narrow ones fewer
    return min(max(64, eighths * n_rows // 8), most)


@eqx.filter_jit
def _encode_rows(dictionary, xs, init, penalty, gradient, n_slots, then, settings, mesh) -> Solution:
    """Encode the rows, each device of a mesh those that it has: between devices nothing is moved."""
    if mesh is None:
        return _encode_here(dictionary, xs, penalty, init, gradient, n_slots, then, settings)

    shared = dictionary, penalty, gradient, settings

    def encode_share(dictionary, penalty, gradient, settings, xs, init):
        return _encode_here(dictionary, xs, penalty, init, gradient, n_slots, then, settings)

    return over_rows(encode_share, mesh, shared=shared, name="xs")(xs, init)


def _laid_out(rows, mesh: Mesh | None, over: Mesh | AbstractMesh | None):
    """Return arrays of rows, with as many of zeros as make them divide, to each device its own."""
    if over is None:
        return jax.tree.map(jnp.asarray, rows)
    n_missing = -jax.tree.leaves(rows)[0].shape[0] % n_shards(over)

    def fill_up(leaf):
        xp = np if isinstance(leaf, np.ndarray) else jnp
        return xp.pad(leaf, [(0, n_missing)] + [(0, 0)] * (leaf.ndim - 1))

    filled = rows if n_missing == 0 else jax.tree.map(fill_up, rows)
    if mesh is None or not all(map(is_concrete, jax.tree.leaves(filled))):
        return jax.tree.map(jnp.asarray, filled)
    return shard_rows(filled, mesh, name="xs")


def _encode_here(dictionary, xs, penalty, init, gradient, n_slots: int, then, settings) -> Solution:
    if not isinstance(gradient, (Detached, Implicit)):
        one = partial(encode, dictionary, penalty=penalty, gradient=gradient, **settings)
        return jax.vmap(lambda x, start: one(x, init=start), in_axes=(0, None if init is None else 0))(
            xs, init
        )
    rows, shared = _problems(dictionary, xs, penalty, settings["solver"])
    solution = _solve(rows, shared, init, then=then, n_slots=n_slots, **settings)
    if isinstance(gradient, Implicit):
        return jax.vmap(lambda row, one: gradient.attach(_problem(shared, row), one))(rows, solution)
    return constant(solution)


class _Rows(NamedTuple):
    """What belongs to one row of a problem; all else is shared by them."""

    x: Array
    drive: Array
    unit: Array  # in which the problem is solved
    leading: Array | None  # x along the leading axes, where these are used


def _problems(dictionary, xs, penalty, solver) -> tuple[_Rows, SparseCodingProblem]:
    make = partial(make_problem, dictionary, penalty=penalty, **problem_settings(solver))

    def row_of(x) -> _Rows:
        problem = make(x)
        return _Rows(problem.x, problem.drive, _unit(problem.x), None)

    return jax.vmap(row_of)(xs), make(xs[0])


def _problem(shared: SparseCodingProblem, row: _Rows) -> SparseCodingProblem:
    """Return a row's problem."""
    return eqx.tree_at(lambda p: (p.x, p.drive), shared, (row.x, row.drive))


def _problem_in_units(shared: SparseCodingProblem, row: _Rows) -> SparseCodingProblem:
    """Return the problem of a row in its own unit: squares of any data are in range there."""
    penalty = in_units(shared.penalty, row.unit)
    return eqx.tree_at(lambda p: p.penalty, _problem(shared, row), penalty)


def _solve(rows, shared, init, *, solver, then, tol, max_steps, steps_per_check, n_slots) -> Solution:
    rows, shared, init, solver = constant((rows, shared, init, solver))
    shape, dtype = rows.drive.shape, rows.drive.dtype
    order = jnp.argsort(-_length(shared.penalty, rows.drive))
    units = rows.unit[:, None] if is_certified(shared.penalty) else jnp.ones((shape[0], 1), dtype)
    rows = _Rows(rows.x / units, rows.drive / units, units[:, 0], None)
    if init is None:
        codes = jnp.zeros(shape, dtype)
    else:
        check_size("init", init, 1, shape[1], "coefficients, one for each atom")
        codes = init.astype(dtype) / units
    plain = problem = partial(_problem_in_units, shared)
    if isinstance(solver, SpaRSA):
        rows, problem = _along_axes(shared, rows)

    def start_from_zero(this: SparseCodingProblem, value: Array):
        if isinstance(solver, SpaRSA):
            return solver.init_at(this, this.point_at_zero())
        return solver.init(this, value)

    tol = default_tol(dtype) if tol is None else tol
    run = partial(iterate_rows, data=rows, init=codes, tol=tol, n_slots=n_slots, order=order)
    start = start_from_zero if init is None else None
    first = max_steps if then is None else min(max_steps, _PATIENCE)
    solution = run(solver, problem, max_steps=first, steps_per_check=steps_per_check, start=start)
    if then is not None:
        solution = run(then, plain, max_steps=max_steps, steps_per_check=10, solution=solution)
    return eqx.tree_at(lambda s: s.value, solution, solution.value * units)


def _along_axes(shared: SparseCodingProblem, rows: _Rows):
    """Return the rows with what they have along the leading axes, and row ↦ problem with these.

    Where there are few features, or gradients go through the Gram matrix, all stays as it is.
    """
    dictionary = shared.dictionary
    if (
        not isinstance(dictionary, Dictionary)
        or shared.gram is not None
        or shared.x.shape[-1] < _LEAST_FEATURES
    ):
        return rows, partial(_problem_in_units, shared)
    axes = leading_axes(dictionary.atoms)
    shared = eqx.tree_at(lambda p: p.lipschitz, shared, axes.lipschitz)

    def problem(row) -> SparseCodingProblem:
        return with_leading_axes(_problem_in_units(shared, row), axes, row.leading)

    return rows._replace(leading=product(rows.x, axes.basis)), problem


def _unit(x: Array) -> Scalar:
    """Return the power of two at or below `unit_of`: dividing by it rounds nothing."""
    return jnp.ldexp(jnp.ones((), x.dtype), jnp.frexp(unit_of(x))[1] - 1)


def _length(penalty: AbstractPenalty, drives: Float[Array, "samples atoms"]) -> Float[Array, " samples"]:
    """Guess which rows take longer; on natural patches Spearman's ρ with the steps taken was 0.95."""
    if not isinstance(penalty, AbstractProximalPenalty):
        return jnp.sum(jnp.abs(drives), axis=1)
    return jax.vmap(lambda drive: jnp.sum(jnp.abs(penalty.prox(drive, jnp.ones((), drive.dtype)))))(drives)
