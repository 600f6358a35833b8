"""Encoding: the code of one datum, and along a path of strengths."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_shape
from .._rows import unit_of
from .._trees import constant
from ..convergence import (
    AbstractGradient,
    AbstractProblem,
    AbstractSolver,
    Implicit,
    Solution,
    Status,
    iterate,
)
from ..convergence._loop import given_tol
from ..penalties import AbstractPenalty
from ..proximal import FISTA
from ..proximal._least_squares import checked_weights
from ..proximal._steps import fixed_step
from ._dictionary import AbstractDictionary
from ._problem import make_problem

__all__ = ["check_path", "encode", "encode_path", "own_unit", "problem_settings", "rounded"]


def encode(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    penalty: AbstractPenalty,
    *,
    solver: AbstractSolver = FISTA(),  # noqa: B008
    tol: float | None = None,
    max_steps: int = 5000,
    steps_per_check: int = 10,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
    init: Float[ArrayLike, "*code"] | None = None,
    weights: Float[ArrayLike, "*datum"] | None = None,
) -> Solution:
    """Find the code of one datum: argmin_z ½‖x − z @ atoms‖² + penalty(z). Batch it with ``jax.vmap``.

    With ``weights`` the data term is ½ Σ w·(x − z @ atoms)². Data and codes have the shapes that the
    dictionary gives them.

    Penalties with a certificate (L1, non-negative L1, elastic net, group penalties, SLOPE) stop on the
    relative duality gap, gap ≤ tol·½Σ w·x², so a converged code is certified: its energy is within tol·½Σ
    w·x² of the minimum. (For an elastic net so strong that no code takes much off that energy, within
    tol·½Σdᵢ²/l2ᵢ with d = (w·x) @ atomsᵀ.) Other penalties, and strength 0 (of the elastic net: both
    strengths 0), stop when a proximal-gradient step (the solver's own, else 1/L) moves the code by at most
    tol, relative to its length and that of a first step from 0.

    A gap bounds the energy, not the code: where the energy is strongly convex with modulus m, the code is
    within √(tol·‖x‖²/m) of the minimizer, mostly far closer. A tighter tolerance buys closer codes down to
    the floor of the dtype. In float32 the gap itself is rounded by about 4e-7 (measured: at ``tol=1e-6`` the
    true gap was up to 1.8e-6), more for weak penalties, whose codes are long sums that cancel; below that a
    row ends as ``max_steps_reached``. Ask for less than 1e-6 in float64.

    Args:
        dictionary: the dictionary.
        x: one datum.
        penalty: the penalty.
        solver: ``ISTA()``, ``FISTA()``, ``SpaRSA()``, ``LCA()``, ``CoordinateDescent()`` or
            ``Gradient(transform)``.
        tol: the tolerance, ≥ 8 machine epsilons of the code's dtype; ``None``: 1e-5, 1e-10 in float64, and
            in half precision these 8 epsilons.
        max_steps: the most solver steps, ≥ 1: gradients, of which a block of `SpaRSA` takes several.
        steps_per_check: steps between two looks at the residual, ≥ 1.
        gradient: how derivatives pass through the inference. ``Implicit()``, the default, is that of the
            minimizer, and costs nothing until it is asked for; ``Detached()`` makes the code a constant;
            ``Unrolled()`` and ``Truncated(k)`` differentiate the solver's steps, and refuse `SpaRSA`.
        init: where to start (a warm start); ``None``: the zero code.
        weights: w ≥ 0 of the datum's entries, of its shape; ``None``: 1. An entry of weight 0 is missing: it
            may be NaN. Gradients then go through the dictionary, for a Gram matrix knows no weights.

    Returns:
        The solution; ``value`` is the code, ``residual`` the relative gap or the movement. A datum with
        NaN or infinity ends as ``Status.nonfinite``. In half precision all is computed in float32, the code
        is rounded at the end, and status and residual are those of the rounded code.

    Raises:
        ValueError: at trace time, for shapes, dtypes and settings that cannot work; and, when a derivative is
            taken, for a penalty that does not answer for `convergence.Implicit` (one with a ``prox`` alone).

    Gradient:
        Of ``value``, in dictionary, datum and penalty, as ``gradient`` says; status, steps and residual carry
        none. A code that did not converge keeps its status, and has the derivative that the mode documents
        for that.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, encode
        >>> dictionary, x = Dictionary(jnp.eye(2)), jnp.array([3.0, -0.2])
        >>> solution = jax.jit(encode)(dictionary, x, L1(0.5))
        >>> solution.value.tolist(), int(solution.status)
        ([2.5, 0.0], 0)
        >>> jax.jit(jax.grad(lambda strength: encode(dictionary, x, L1(strength)).value.sum()))(0.5).tolist()
        -1.0
    """
    x = real_array("x", x, dictionary.datum_axes)
    start = _start(dictionary, x, init)
    least_gap = given_tol(tol, start.dtype)
    # Half precision is for the numbers, not for sums of their products.
    wide = jnp.promote_types(start.dtype, jnp.float32)
    x = x.astype(wide)
    if weights is not None:
        weights = checked_weights("weights", weights, x)
    unit, in_unit = own_unit(penalty, x, weights)
    problem = make_problem(dictionary, x / unit, in_unit, weights=weights, **problem_settings(solver))
    solution = iterate(
        solver,
        problem,
        start.astype(wide) / unit,
        tol=least_gap,
        max_steps=max_steps,
        steps_per_check=steps_per_check,
        gradient=gradient,
    )
    if start.dtype != wide:
        solution = rounded(problem, solution, unit, start.dtype, least_gap)
    else:
        solution = eqx.tree_at(lambda s: s.value, solution, solution.value * unit)
    return solution


def encode_path(
    dictionary: AbstractDictionary, x: Float[ArrayLike, "*datum"], penalties: AbstractPenalty, **settings
) -> Solution:
    """Encode one datum under a sequence of penalties, each solution the start of the next.

    For many data see `encode_path_batch`. A code that broke is no start: the next begins from 0.

    Args:
        dictionary: the dictionary.
        x: one datum.
        penalties: a penalty whose strengths have a leading axis, for example
            ``L1(max_strength(dictionary, x) * jnp.geomspace(1, 0.01, 50))``; strongest first is fastest.
        **settings: the keyword arguments of `encode`; ``init`` is the start of the first.

    Returns:
        A solution whose fields have the leading axis of ``penalties``.

    Gradient:
        As of `encode`; with ``Implicit()`` each code has its own, whatever it started from.

    Raises:
        ValueError: as `encode`, and for strengths without a common leading axis.
    """
    check_path(penalties)
    x = real_array("x", x, dictionary.datum_axes)
    init = settings.pop("init", None)
    start = _start(dictionary, x, init)

    def following(code, penalty):
        solution = encode(dictionary, x, penalty, init=code, **settings)
        is_sound = solution.status != Status.nonfinite
        return jnp.where(is_sound, solution.value, 0), solution

    return lax.scan(following, start, penalties)[1]


def check_path(penalties: AbstractPenalty) -> None:
    """Raise ``ValueError`` unless all arrays of a sequence of penalties have one common leading axis."""
    leaves = jax.tree_util.tree_flatten_with_path(penalties)[0]
    shapes = {jax.tree_util.keystr(keys)[1:]: jnp.shape(leaf) for keys, leaf in leaves}
    lengths = {shape[:1] for shape in shapes.values()}
    if len(lengths) != 1 or () in lengths:
        came = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        kind = type(penalties).__name__
        raise ValueError(
            f"penalties: expected strengths with one common leading axis, got {came}; "
            f"jax.vmap({kind})(strengths) gives it to all arrays."
        )


def _start(dictionary: AbstractDictionary, x: Array, init: ArrayLike | None) -> Array:
    code = dictionary.empty_code(x)
    if init is None:
        return code
    init = real_array("init", init)
    check_shape("init", init, code.shape, "a coefficient for each atom")
    return init.astype(code.dtype)


def own_unit(
    penalty: AbstractPenalty, x: Array, weights: Array | None = None
) -> tuple[Array, AbstractPenalty]:
    """Return the unit in which to encode a datum, and the penalty in it.

    A power of two near the datum's largest number: squares of data of any scale are in the range of numbers
    then. A penalty that does not answer for another unit keeps the scale that it has, and so do the data.
    """
    x = lax.stop_gradient(x)
    unit = unit_of(x if weights is None else jnp.where(weights == 0, 0, x))
    scaled = penalty.in_units(unit)
    return (jnp.ones((), x.dtype), penalty) if scaled is None else (unit, scaled)


def rounded(problem: AbstractProblem, solution: Solution, unit: Array, dtype, tol: ArrayLike) -> Solution:
    """Return a solution in units, back in its own and in half precision, with the residual that this has."""
    value = (solution.value * unit).astype(dtype)
    residual = constant(problem).residual(constant(value).astype(solution.value.dtype) / unit)
    is_lost = (solution.status == Status.converged) & ~(residual <= tol)
    status = jnp.where(is_lost, Status.max_steps_reached, solution.status).astype(jnp.int32)
    return Solution(value, status, solution.n_steps, residual)


def problem_settings(solver: AbstractSolver) -> dict[str, Any]:
    """Return how `make_problem` has to set up a problem for a solver."""
    use_gram = True if getattr(solver, "needs_gram", False) else None
    return {"use_gram": use_gram, "step_size": fixed_step(solver)}
