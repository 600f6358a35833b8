"""`minimize`: a smooth term plus a penalty, over any pytree, and over many rows at once."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._arrays import device_array, native_leaves
from .._checks import check_kind
from .._precision import at_least_single
from ..convergence import AbstractGradient, AbstractSolver, Implicit, Solution, iterate, iterate_rows
from ..convergence._loop import given_tol
from ..convergence._slots import count_rows
from ._leaves import Layout, OfLeaves, OfTree, penalty_of_each
from ._problem import CompositeProblem, make_composite
from ._smooth import AbstractSmooth, FunctionSmooth
from ._steps import FISTA, fixed_step

__all__ = ["minimize", "minimize_batch"]

_MOST_STEPS = 5000


def minimize(
    smooth: AbstractSmooth | Callable[..., Any],
    penalty: PyTree,
    init: PyTree,
    *,
    args: tuple[Any, ...] = (),
    solver: AbstractSolver = FISTA(),  # noqa: B008
    tol: float | None = None,
    max_steps: int = _MOST_STEPS,
    steps_per_check: int = 10,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
) -> Solution:
    """Minimize f(z) + g(z) over a pytree of arrays z. Batch it with ``jax.vmap``, or by `minimize_batch`.

    A least-squares term with a certified penalty stops on the relative duality gap, gap ≤ tol·½Σ w·y²; all
    else on the length of a proximal-gradient step of 1/L, relative to z and to a first step from 0. Where f
    has no bound on its curvature, as a function has none, ISTA and FISTA backtrack, and L is the curvature at
    ``init``.

    Args:
        smooth: a function (z, *args) ↦ f, of one real number, or an `AbstractSmooth` such as `LeastSquares`,
            `Logistic` or `Poisson`. What a function closes over may be differentiated, traced or batched
            like an argument. A function has to be twice differentiable in forward mode: one with a
            ``jax.custom_vjp`` needs an `AbstractSmooth` around it that gives ``hessian_product``.
        penalty: one penalty for every leaf of z, or a tree of penalties that is a prefix of z. ``None`` means
            none. Solvers need a ``prox``.
        init: where to start: an array or a pytree of arrays of one floating-point dtype.
        args: further arguments of the function.
        solver: ``FISTA()``, ``ISTA()``, ``SpaRSA()``, or one of your own.
        tol: the tolerance, ≥ 8 machine epsilons of the dtype; ``None``: 1e-5, in float64 1e-10.
        max_steps: the most gradients, ≥ 1.
        steps_per_check: steps between two looks at the residual, ≥ 1.
        gradient: how derivatives pass through. ``Implicit()``, the default, gives those of the minimizer;
            ``Detached()`` makes it a constant; ``Unrolled()`` and ``Truncated(k)`` differentiate the steps.

    Returns:
        The solution; its ``value`` is of the form of ``init``.

    Raises:
        ValueError: at trace time, for arguments that cannot work; and, when a derivative is taken, for a
            penalty that does not answer for `convergence.Implicit` (one with a ``prox`` alone).

    Gradient:
        With respect to what f and the penalty hold, ``args``, and what a function closes over.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.proximal import minimize
        >>> def loss(z, x):
        ...     return jnp.sum(jnp.cosh(z["w"] - x) - 1) + (z["b"] - 3) ** 2
        >>> start = {"w": jnp.zeros(2), "b": jnp.zeros(())}
        >>> solution = minimize(loss, {"w": L1(0.1), "b": None}, start, args=(jnp.array([1.0, 0.05]),))
        >>> [round(w, 3) for w in solution.value["w"].tolist()], round(float(solution.value["b"]), 3)
        ([0.9, 0.0], 3.0)
    """
    init, layout, dtype = _start("init", init)
    args = _on_device(args)
    tol = given_tol(tol, dtype)
    check_kind("gradient", gradient, AbstractGradient)
    problem = _problem(smooth, penalty, init, layout, args, solver)
    solution = iterate(
        solver,
        problem,
        init,
        tol=tol,
        max_steps=max_steps,
        steps_per_check=steps_per_check,
        gradient=gradient,
    )
    return _in_form(solution, layout, dtype)


def minimize_batch(
    smooth: Callable[..., AbstractSmooth | Callable[[Any], Any]],
    penalty: PyTree,
    inits: PyTree,
    *,
    args: tuple[Any, ...],
    solver: AbstractSolver = FISTA(),  # noqa: B008
    tol: float | None = None,
    max_steps: int = _MOST_STEPS,
    steps_per_check: int = 10,
    n_slots: int = 256,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
) -> Solution:
    """Minimize one problem for each row, in slots: a row that has converged makes room for the next.

    A ``jax.vmap`` of `minimize` takes as many steps as its slowest row, on all rows; this takes about what
    the rows need together.

    Args:
        smooth: a row of ``args`` ↦ its smooth term: an `AbstractSmooth`, such as
            ``lambda x: LeastSquares(matrix, x)``, or a function z ↦ f. What it closes over, all rows share.
        penalty: as for `minimize`, one for all rows.
        inits: where the rows start, with a leading axis of rows.
        args: of each row, with a leading axis of rows.
        solver: as for `minimize`.
        tol: as for `minimize`.
        max_steps: as for `minimize`.
        steps_per_check: as for `minimize`.
        n_slots: rows at once, ≥ 1.
        gradient: ``Implicit()`` or ``Detached()``; with the others use ``jax.vmap(minimize)``.

    Returns:
        A solution whose fields have a leading axis of rows.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.proximal import LeastSquares, minimize_batch
        >>> xs = jnp.array([[3.0, -0.2], [0.1, 1.0]])
        >>> def smooth(x):
        ...     return LeastSquares(jnp.eye(2), x)
        >>> print(minimize_batch(smooth, L1(0.5), jnp.zeros((2, 2)), args=(xs,)).value.round(3))
        [[2.5 0. ]
         [0.  0.5]]
    """
    check_kind("gradient", gradient, AbstractGradient)
    if gradient.needs_steps:
        kind = type(gradient).__name__
        raise ValueError(f"gradient: expected Implicit() or Detached(), got {kind}; use jax.vmap(minimize).")
    inits, args = native_leaves("inits", inits), _on_device(args)
    count_rows("inits", (inits, args))
    _, layout, dtype = _start("inits", jax.tree.map(lambda leaf: leaf[0], inits))
    starts = jax.vmap(lambda init: _start("inits", init)[0])(inits)
    tol = given_tol(tol, dtype)

    def problem(row) -> CompositeProblem:
        init, row_args = row
        return _problem(smooth(*row_args), penalty, init, layout, (), solver)

    solution = iterate_rows(
        solver, problem, (starts, args), starts, tol=tol, max_steps=max_steps,
        steps_per_check=steps_per_check, n_slots=n_slots,
    )  # fmt: skip
    solution = jax.vmap(lambda row, one: gradient.attach(problem(row), one))((starts, args), solution)
    return jax.vmap(partial(_in_form, layout=layout, dtype=dtype))(solution)


def _start(name: str, init: PyTree) -> tuple[Array, Layout | None, Any]:
    """Return the start as one array in single precision at least, its layout, and its dtype.

    The layout is ``None`` for what was one array.
    """
    init = jax.tree.map(jnp.asarray, native_leaves(name, init))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(init)}
    if len(dtypes) != 1 or not jnp.issubdtype(next(iter(dtypes)), jnp.floating):
        came = ", ".join(sorted(map(str, dtypes))) or "no arrays"
        raise ValueError(f"{name}: expected arrays of one floating-point dtype, got {came}.")
    dtype = next(iter(dtypes))
    init = at_least_single(init)
    if isinstance(init, jax.Array):
        return init, None, dtype
    layout = Layout.of(init)
    return layout.flatten(init), layout, dtype


def _on_device(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments with NumPy's arrays as JAX arrays."""
    args = native_leaves("args", args)
    return jax.tree.map(lambda leaf: device_array(leaf) if isinstance(leaf, np.ndarray) else leaf, args)


def _problem(smooth, penalty, init: Array, layout: Layout | None, args, solver) -> CompositeProblem:
    tree = init if layout is None else layout.tree(init)
    penalties = penalty_of_each(penalty, tree)
    if not isinstance(smooth, AbstractSmooth):
        smooth = FunctionSmooth.of(smooth, tree, args)
    elif args:
        raise ValueError(
            f"args: expected none beside a smooth term, got {len(args)}; give them to a function."
        )
    step_size = fixed_step(solver)
    if layout is None:
        slope = jax.eval_shape(smooth.gradient, init)
        if (slope.shape, slope.dtype) != (init.shape, init.dtype):
            came = f"{init.dtype}{list(init.shape)}"
            expected = f"{slope.dtype}{list(slope.shape)}, the form of the smooth term's gradient"
            raise ValueError(f"init: expected {expected}, got {came}.")
        return make_composite(smooth, penalties[0], init, step_size=step_size)
    return make_composite(OfTree(smooth, layout), OfLeaves(penalties, layout), init, step_size=step_size)


def _in_form(solution: Solution, layout: Layout | None, dtype: Any) -> Solution:
    """Return a solution in the form and the dtype of the start."""
    value = solution.value.astype(dtype)
    return eqx.tree_at(lambda s: s.value, solution, value if layout is None else layout.tree(value))
