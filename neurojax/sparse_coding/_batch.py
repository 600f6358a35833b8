"""Encoding many rows on the device: slots that stay full, SpaRSA where it applies, a certificate a row."""

from functools import partial
from typing import Any, Literal, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Array, ArrayLike, Float

from .._arrays import native, real_array
from .._checks import check_at_least, check_nonnegative, check_rank, check_shape, check_size, is_concrete
from .._precision import product
from .._trees import constant
from ..convergence import AbstractGradient, AbstractSolver, Implicit, Solution, iterate_rows
from ..convergence._batch import largest_divisor
from ..convergence._loop import given_tol
from ..distributed import ambient_mesh, check_mesh, n_shards, over_rows, place, shard_rows
from ..penalties import AbstractPenalty, AbstractProximalPenalty
from ..proximal import FISTA, CompositeProblem, LeastSquares, SpaRSA
from ..proximal._problem import is_certified
from ._dictionary import AbstractDictionary
from ._encode import check_path, encode, own_unit, problem_settings, rounded
from ._leading import LeadingSquares, leading_axes
from ._problem import Reconstruction, make_problem
from ._sparse_codes import keep_largest

__all__ = ["default_solver", "encode_batch", "encode_path_batch"]

_LEAST_FEATURES = 64  # of which half are worth leaving out
_MANY_ATOMS = 256
_PATIENCE = 128  # blocks of SpaRSA, of 4 steps; patches of natural images took at most 50 to a gap of 1e-5


def encode_batch(
    dictionary: AbstractDictionary,
    xs: Float[ArrayLike, " samples *datum"],
    penalty: AbstractPenalty,
    *,
    solver: AbstractSolver | None = None,
    tol: float | None = None,
    max_steps: int = 5000,
    steps_per_check: int | None = None,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
    init: Float[ArrayLike, " samples *code"] | None = None,
    weights: Float[ArrayLike, " samples *datum"] | None = None,
    penalty_axis: Literal[0] | None = None,
    n_slots: int | None = None,
    max_active: int | None = None,
    mesh: Mesh | None = None,
) -> Solution:
    """Encode many rows at once on the device, jitted: what `encode` returns for each, sooner.

    With ``Implicit`` and ``Detached`` gradients the rows share slots (`convergence.iterate_rows`): a row
    that has converged leaves, the next takes its place, those with the largest Σ|prox(x @ atomsᵀ)| first,
    for they take longest. Each row stops on its own certificate, which is then computed once more from
    the dictionary itself. ``Unrolled`` and ``Truncated`` map `encode` over the rows.

    Sweeps belong in slots too: give each row a penalty of its own, and repeat the data. A ``jax.vmap`` of
    this function over penalties runs all of its slots until the slowest row of any penalty has converged.

    Args:
        dictionary: the dictionary.
        xs: the data, one per row, at least one.
        penalty: the penalty, one for all rows unless ``penalty_axis`` says otherwise.
        solver: as for `encode`; ``None``: for penalties with a certificate 512 steps of `SpaRSA`, then
            `FISTA` for what has not converged (an ill-conditioned problem); else, and where ``gradient``
            differentiates the steps, `FISTA`.
        tol: as for `encode`.
        max_steps: the most solver steps a row, ≥ 1, as for `encode`: whichever solvers a row meets, no more.
        steps_per_check: steps between two looks, ≥ 1; ``None``: a block for SpaRSA, else 10.
        gradient: how derivatives pass through the inference, as for `encode`.
        init: where to start, one row each; ``None``: zero codes.
        weights: w ≥ 0 of the data's entries, one row each, as for `encode`; ``None``: 1.
        penalty_axis: 0 for a penalty whose arrays all have a leading axis of rows, one for each row;
            ``None``: the same for all.
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

    Gradient:
        As of `encode`. With ``max_active`` each coefficient that is kept has its own.
    """
    if mesh is not None:
        check_mesh(mesh)
        dictionary = place(dictionary, mesh)
        penalty = penalty if penalty_axis == 0 else place(penalty, mesh)
    xs = _rows_as_given("xs", xs)
    if dictionary.datum_axes is not None:
        check_rank("xs", xs, f"samples {dictionary.datum_axes}")
    if np.ndim(xs) == 0 or xs.shape[0] == 0:
        raise ValueError(f"xs: expected at least one row, got shape {np.shape(xs)}.")
    dictionary.check_values()
    code = jax.eval_shape(lambda x: dictionary.empty_code(x), jax.ShapeDtypeStruct(xs.shape[1:], xs.dtype))
    if max_active is not None and len(code.shape) != 1:
        raise ValueError(f"max_active: expected codes of one axis, got shape {code.shape}.")
    if init is not None:
        init = _rows_as_given("init", init)
        check_size("init", init, 0, len(xs), "rows as in xs")
        check_shape("init", init, (len(xs), *code.shape), "a coefficient for each atom, one row each")
    if weights is not None:
        weights = _rows_as_given("weights", weights)
        check_shape("weights", weights, xs.shape, "a weight for each entry of xs")
        check_nonnegative("weights", weights)
    then = None
    if solver is None:
        solver, then = default_solver(penalty, gradient)
        if then is not None and max_steps < solver.n_gradients:
            solver, then = then, None
    if steps_per_check is None:
        steps_per_check = 10 if solver.n_gradients == 1 else 1
    over = ambient_mesh() if mesh is None else mesh
    if n_slots is None:
        n_slots = _slots_for(-(-xs.shape[0] // n_shards(over)), int(np.prod(code.shape)))
    check_at_least("n_slots", n_slots, 1)
    settings = {"solver": solver, "tol": tol, "max_steps": max_steps, "steps_per_check": steps_per_check}
    own, shared = _split_penalty(penalty, penalty_axis, len(xs))
    rows = _laid_out(_Given(xs, init, weights, own), mesh, over)
    solution = _encode_rows(dictionary, rows, shared, gradient, n_slots, then, settings, over)
    if len(solution.status) != len(xs):
        solution = jax.tree.map(lambda leaf: leaf[: len(xs)], solution)
    return solution if max_active is None else keep_largest(solution, max_active)


def encode_path_batch(
    dictionary: AbstractDictionary,
    xs: Float[ArrayLike, " samples *datum"],
    penalties: AbstractPenalty,
    *,
    init: Float[ArrayLike, " samples *code"] | None = None,
    **settings: Any,
) -> Solution:
    """Encode many rows under a sequence of penalties, each row's solution the start of its next.

    A code that broke is no start: the next begins from 0.

    Args:
        dictionary: the dictionary.
        xs: the data, one per row.
        penalties: a penalty whose strengths have a leading axis, as for `encode_path`; strongest first is
            fastest. With ``penalty_axis=0`` a second axis is that of the rows:
            ``L1(jax.vmap(partial(max_strength, dictionary))(xs) * jnp.geomspace(1, 0.01, 50)[:, None])``
            begins each row at its own λ_max.
        init: the start of the first, one row each; ``None``: zero codes.
        **settings: the keyword arguments of `encode_batch`, except ``max_active``.

    Returns:
        A solution whose fields have the leading axes of ``penalties`` and of the rows.

    Raises:
        ValueError: as `encode_batch`, and for strengths without a common leading axis.

    Gradient:
        As of `encode_batch`.
    """
    check_path(penalties)
    xs = real_array("xs", xs)
    start = jax.vmap(dictionary.empty_code)(xs) if init is None else real_array("init", init)

    def following(codes, penalty):
        solution = encode_batch(dictionary, xs, penalty, init=codes, **settings)
        return jnp.where(jnp.isfinite(solution.value), solution.value, 0), solution

    return jax.lax.scan(following, start, penalties)[1]


class _Given(NamedTuple):
    """The data, starts, weights and penalties of rows, each with a leading axis of rows, or ``None``."""

    x: Any
    start: Any
    weights: Any
    penalty: Any  # the arrays of a penalty that each row has of its own


def _rows_as_given(name: str, rows) -> Array | np.ndarray:
    """Return rows of real numbers where they lie: on the host, if they are NumPy's, for their devices."""
    rows = native(name, rows)
    if not isinstance(rows, np.ndarray) or not jnp.issubdtype(rows.dtype, jnp.floating):
        return real_array(name, rows)
    return rows


def _split_penalty(penalty: AbstractPenalty, axis: int | None, n_rows: int):
    """Return the part of a penalty that has an axis of rows, and the rest, as `equinox.partition` does."""
    if axis not in (None, 0):
        raise ValueError(f"penalty_axis: expected 0 or None, got {axis!r}.")
    own, shared = eqx.partition(penalty, eqx.is_array if axis == 0 else False)
    for leaf in jax.tree.leaves(own):
        if not leaf.shape or leaf.shape[0] != n_rows:
            raise ValueError(
                f"penalty: expected a leading axis of {n_rows} rows, as in xs, with penalty_axis=0, "
                f"got shape {leaf.shape}."
            )
    return own, shared


def default_solver(
    penalty: AbstractPenalty, gradient: AbstractGradient
) -> tuple[AbstractSolver, AbstractSolver | None]:
    """Return the quickest solver, with steps that the gradient can differentiate, and one behind it."""
    return (FISTA(), None) if gradient.needs_steps or not is_certified(penalty) else (SpaRSA(), FISTA())


def _slots_for(n_rows: int, n_atoms: int) -> int:
    most = 768 if jax.default_backend() == "cpu" else 8192
    eighths = 3 if n_atoms >= _MANY_ATOMS else 2  # wide products want more rows, narrow ones fewer
    return min(max(64, eighths * n_rows // 8), most)


@eqx.filter_jit
def _encode_rows(dictionary, rows, penalty, gradient, n_slots, then, settings, mesh) -> Solution:
    """Encode the rows, each device of a mesh those that it has: between devices nothing is moved."""
    if mesh is None:
        return _encode_here(dictionary, rows, penalty, gradient, n_slots, then, settings)

    shared = dictionary, penalty, gradient, settings

    def encode_share(dictionary, penalty, gradient, settings, rows):
        return _encode_here(dictionary, rows, penalty, gradient, n_slots, then, settings)

    return over_rows(encode_share, mesh, shared=shared, name="xs")(rows)


def _laid_out(rows: _Given, mesh: Mesh | None, over: Mesh | AbstractMesh | None) -> _Given:
    """Return arrays of rows, with as many of zeros as make them divide, to each device its own."""
    if over is None:
        return jax.tree.map(jnp.asarray, rows)
    n_missing = -rows.x.shape[0] % n_shards(over)

    def fill_up(leaf):
        xp = np if isinstance(leaf, np.ndarray) else jnp
        return xp.pad(leaf, [(0, n_missing)] + [(0, 0)] * (leaf.ndim - 1))

    filled = rows if n_missing == 0 else jax.tree.map(fill_up, rows)
    if mesh is None or not all(map(is_concrete, jax.tree.leaves(filled))):
        return jax.tree.map(jnp.asarray, filled)
    return shard_rows(filled, mesh, name="xs")


def _encode_here(dictionary, rows: _Given, penalty, gradient, n_slots: int, then, settings) -> Solution:
    if gradient.needs_steps:

        def encode_one(row: _Given) -> Solution:
            whole = eqx.combine(row.penalty, penalty)
            return encode(
                dictionary, row.x, whole, init=row.start, weights=row.weights, gradient=gradient, **settings
            )

        return jax.vmap(encode_one)(rows)
    dtype = jnp.result_type(rows.x, dictionary.empty_code(rows.x[0]))
    settings = settings | {"tol": given_tol(settings["tol"], dtype)}
    wide = jnp.promote_types(dtype, jnp.float32)
    in_wide = rows._replace(x=rows.x.astype(wide))
    own, shared = _problems(dictionary, in_wide, penalty, settings["solver"])
    solution = _solve(own, shared, rows.start, then=then, n_slots=n_slots, **settings)
    solution = jax.vmap(lambda row, one: gradient.attach(_problem(shared, row), one))(own, solution)
    if dtype == own.x.dtype:
        return solution
    one = partial(rounded, dtype=dtype, tol=settings["tol"], unit=jnp.ones((), own.x.dtype))
    return jax.vmap(lambda row, found: one(_problem(shared, row), found))(own, solution)


class _Rows(NamedTuple):
    """The parts of a problem that belong to one row; all rows share the others."""

    x: Array
    drive: Array
    weights: Array | None
    lipschitz: Array | None  # with weights
    penalty: Any  # the arrays of a penalty of the row's own
    unit: Array  # in which the problem is solved
    leading: Array | None  # x along the leading axes, where these are used


def _problems(dictionary, rows: _Given, penalty, solver) -> tuple[_Rows, CompositeProblem]:
    """Return what the problems of the rows have of their own, and the first row's, which holds the rest."""

    def make(row: _Given) -> CompositeProblem:
        whole = eqx.combine(row.penalty, penalty)
        return make_problem(dictionary, row.x, whole, weights=row.weights, **problem_settings(solver))

    def row_of(row: _Given) -> _Rows:
        problem = make(row)
        smooth = _squares(problem)
        unit, _ = own_unit(problem.penalty, row.x, row.weights)
        lipschitz = None if row.weights is None else problem.lipschitz
        return _Rows(smooth.target, smooth.drive, smooth.weights, lipschitz, row.penalty, unit, None)

    return jax.vmap(row_of)(rows), make(jax.tree.map(lambda leaf: leaf[0], rows))


def _squares(problem: CompositeProblem) -> LeastSquares:
    return cast(LeastSquares, problem.smooth)  # as `make_problem` makes it


def _problem(shared: CompositeProblem, row: _Rows) -> CompositeProblem:
    """Return a row's problem."""
    problem = eqx.tree_at(lambda p: (p.smooth.target, p.smooth.drive), shared, (row.x, row.drive))
    if row.weights is not None:
        where = lambda p: (p.smooth.weights, p.lipschitz)  # noqa: E731
        problem = eqx.tree_at(where, problem, (row.weights, row.lipschitz))
    whole = eqx.combine(row.penalty, shared.penalty)
    return eqx.tree_at(lambda p: p.penalty, problem, whole)


def _problem_in_units(shared: CompositeProblem, row: _Rows) -> CompositeProblem:
    """Return the problem of a row whose x and drive are in its own unit, in which squares are in range."""
    problem = _problem(shared, row)
    penalty = problem.penalty.in_units(row.unit)
    return problem if penalty is None else eqx.tree_at(lambda p: p.penalty, problem, penalty)


def _solve(rows, shared, init, *, solver, then, tol, max_steps, steps_per_check, n_slots) -> Solution:
    rows, shared, init, solver = constant((rows, shared, init, solver))
    shape, dtype = rows.drive.shape, rows.drive.dtype
    order = jnp.argsort(-jax.vmap(partial(_guessed_length, shared.penalty))(rows.penalty, rows.drive))
    rows = rows._replace(x=_over(rows.x, rows.unit), drive=_over(rows.drive, rows.unit))
    codes = jnp.zeros(shape, dtype) if init is None else _over(init.astype(dtype), rows.unit)
    plain = problem = partial(_problem_in_units, shared)
    if hasattr(solver, "init_at"):  # a solver that asks for points, near ones too
        rows, problem = _along_axes(shared, rows)

    def start_from_zero(this: CompositeProblem, value: Array):
        if hasattr(solver, "init_at"):  # spares a product
            return solver.init_at(this, cast(Any, this.smooth).point_at_zero())
        return solver.init(this, value)

    run = partial(iterate_rows, data=rows, init=codes, tol=tol, n_slots=n_slots, order=order)
    start = start_from_zero if init is None else None
    size = solver.n_gradients
    first = max_steps if then is None else min(max_steps // size, _PATIENCE) * size
    solution = run(solver, problem, max_steps=first, steps_per_check=steps_per_check, start=start)
    if then is not None and first < max_steps:
        interval = largest_divisor(max_steps - first, 10)
        solution = run(then, plain, max_steps=max_steps, steps_per_check=interval, solution=solution)
    return eqx.tree_at(lambda s: s.value, solution, _over(solution.value, 1 / rows.unit))


def _along_axes(shared: CompositeProblem, rows: _Rows):
    """Return the rows with what they have along the leading axes, and row ↦ problem with these.

    Where there are few features, data are weighted, or gradients go through the Gram matrix, all stays as it
    is.
    """
    smooth, is_weighted = _squares(shared), rows.weights is not None
    atoms = cast(Reconstruction, smooth.map).dictionary.dense_atoms()
    if is_weighted or smooth.gram is not None or atoms is None or atoms.shape[1] < _LEAST_FEATURES:
        return rows, partial(_problem_in_units, shared)
    axes = leading_axes(atoms.astype(rows.x.dtype))
    shared = eqx.tree_at(lambda p: p.lipschitz, shared, axes.lipschitz)

    def problem(row: _Rows) -> CompositeProblem:
        this = _problem_in_units(shared, row)
        return eqx.tree_at(
            lambda p: p.smooth, this, LeadingSquares(_squares(this), axes, cast(Array, row.leading))
        )

    return rows._replace(leading=product(rows.x, axes.basis)), problem


def _over(rows: Array, unit: Array) -> Array:
    """Return each row divided by its unit, a power of two."""
    return jax.vmap(jnp.divide)(rows, unit)


def _guessed_length(shared: AbstractPenalty, own: Any, drive: Array) -> Array:
    """Guess which rows take longer; on natural patches Spearman's ρ with the steps taken was 0.95."""
    penalty = eqx.combine(own, shared)
    if not isinstance(penalty, AbstractProximalPenalty):
        return jnp.sum(jnp.abs(drive))
    return jnp.sum(jnp.abs(penalty.prox(drive, jnp.ones((), drive.dtype))))
