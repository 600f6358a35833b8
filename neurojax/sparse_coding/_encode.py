"""Encoding: the code of one datum, and along a path of strengths."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_rank, check_real, check_shape
from .._proximal import FISTA, AbstractProximalGradient
from ..convergence import AbstractGradient, AbstractSolver, Detached, Solution, iterate
from ..penalties import AbstractPenalty
from ._dictionary import AbstractDictionary
from ._problem import make_problem
from ._solvers import CoordinateDescent

__all__ = ["default_tol", "encode", "encode_path", "problem_settings"]


def encode(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, " features"],
    penalty: AbstractPenalty,
    *,
    solver: AbstractSolver = FISTA(),  # noqa: B008
    tol: float | None = None,
    max_steps: int = 5000,
    steps_per_check: int = 10,
    gradient: AbstractGradient = Detached(),  # noqa: B008
    init: Float[ArrayLike, " atoms"] | None = None,
) -> Solution:
    """Find the code of one datum: argmin_z ½‖x − z @ atoms‖² + penalty(z). Batch it with ``jax.vmap``.

    L1, non-negative L1 and elastic net stop on the relative duality gap, gap ≤ tol·½‖x‖², so a converged
    code is certified: its energy is within tol·½‖x‖² of the minimum. Other penalties, and strength 0, stop
    when a proximal-gradient step (the solver's own, else 1/L) moves the code by at most tol, relative to
    max(‖z‖, ‖x @ atomsᵀ‖/L).

    Args:
        dictionary: the dictionary.
        x: one datum.
        penalty: the penalty.
        solver: ``ISTA()``, ``FISTA()``, ``SpaRSA()``, ``LCA()``, ``CoordinateDescent()`` or
            ``Gradient(transform)``.
        tol: the tolerance, ≥ 8 machine epsilons; ``None``: 1e-5, or 1e-10 in float64.
        max_steps: the most solver steps, ≥ 1.
        steps_per_check: steps between two looks at the residual, ≥ 1.
        gradient: how derivatives pass through the inference.
        init: where to start (a warm start); ``None``: the zero code.

    Returns:
        The solution; ``value`` is the code, ``residual`` the relative gap or the movement. A datum with
        NaN or infinity ends as ``Status.nonfinite``.

    Raises:
        ValueError: at trace time, for shapes, dtypes and settings that cannot work.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, encode
        >>> solution = jax.jit(encode)(Dictionary(jnp.eye(2)), jnp.array([3.0, -0.2]), L1(0.5))
        >>> solution.value.tolist(), int(solution.status)
        ([2.5, 0.0], 0)
    """
    x = jnp.asarray(x)
    check_rank("x", x, "features")
    code = _start(dictionary, x, init)
    return iterate(
        solver,
        make_problem(dictionary, x, penalty, **problem_settings(solver)),
        code,
        tol=default_tol(code.dtype) if tol is None else tol,
        max_steps=max_steps,
        steps_per_check=steps_per_check,
        gradient=gradient,
    )


def encode_path(
    dictionary: AbstractDictionary, x: Float[ArrayLike, " features"], penalties: AbstractPenalty, **settings
) -> Solution:
    """Encode one datum under a sequence of penalties, each solution the start of the next.

    Args:
        dictionary: the dictionary.
        x: one datum.
        penalties: a penalty whose strengths have a leading axis, for example
            ``L1(jnp.geomspace(max_strength(dictionary, x), 0.01, 50))``; strongest first is fastest.
        **settings: the keyword arguments of `encode`; ``init`` is the start of the first.

    Returns:
        A solution whose fields have the leading axis of ``penalties``.

    Raises:
        ValueError: as `encode`, and for strengths without a common leading axis.
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(penalties)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            f"penalties: expected strengths with one common leading axis, got {sorted(lengths)}."
        )
    x = jnp.asarray(x)
    init = settings.pop("init", None)
    start = _start(dictionary, x, init)

    def following(code, penalty):
        solution = encode(dictionary, x, penalty, init=code, **settings)
        return solution.value, solution

    return lax.scan(following, start, penalties)[1]


def _start(dictionary: AbstractDictionary, x: Array, init: ArrayLike | None) -> Array:
    code = dictionary.empty_code(x)
    if init is None:
        return code
    check_real("init", init)
    check_shape("init", init, code.shape, "a coefficient for each atom")
    return jnp.asarray(init, code.dtype)


def default_tol(dtype) -> float:
    """Return the tolerance for a dtype: 1e-5, or 1e-10 in float64."""
    return 1e-10 if dtype == jnp.float64 else 1e-5


def problem_settings(solver: AbstractSolver) -> dict[str, Any]:
    """Return how `make_problem` has to set up a problem for a solver."""
    step_size = None
    if isinstance(solver, AbstractProximalGradient) and not solver.backtracking:
        step_size = solver.step_size
    return {"use_gram": True if isinstance(solver, CoordinateDescent) else None, "step_size": step_size}
