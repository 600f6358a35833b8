"""Solutions of convergence loops: values, and how far they may be trusted."""

from enum import IntEnum
from typing import Generic, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._checks import is_concrete

__all__ = ["NotConvergedError", "Solution", "Status", "raise_unless_converged"]

Value = TypeVar("Value")


class Status(IntEnum):
    """The status with which a sample ended.

    Attributes:
        converged: the residual fell to the tolerance.
        max_steps_reached: the steps ran out first; the value is the last iterate.
        nonfinite: the residual became NaN or infinite; the value is as the solver left it, never mended.
        truncated: the value has more non-zero coefficients than were asked for; the largest are kept. The
            residual and the steps are those of the whole.
        unbounded: the residual fell to the tolerance, yet the objective goes on falling along a direction
            that no penalty holds back: it has no finite optimum, and the value is one of many on the way.
    """

    converged = 0
    max_steps_reached = 1
    nonfinite = 2
    truncated = 3
    unbounded = 4


class Solution(eqx.Module, Generic[Value]):
    """The end of one run of the convergence loop; under ``vmap`` every field gains the batch's axes.

    Attributes:
        value: the last iterate, of the form of ``init``.
        status: a `Status` as int32.
        n_steps: the solver's steps taken.
        residual: the problem's stopping measure at ``value``.
    """

    value: Value
    status: Int[Array | np.ndarray, "*batch"]
    n_steps: Int[Array | np.ndarray, "*batch"]
    residual: Float[Array | np.ndarray, "*batch"]


class NotConvergedError(RuntimeError):
    """Some samples of a solution did not converge, and the caller had asked for all of them."""


def raise_unless_converged(solution: Solution) -> Solution:
    """Return ``solution`` unchanged, or raise if any of its samples did not converge.

    Raises:
        NotConvergedError: with the number of samples for each status and the first that failed. Inside
            ``jit`` the error is raised when the computation runs, by `equinox.error_if`.
    """
    if not is_concrete(solution.status):
        message = "iterate: at least one sample did not converge (see Solution.status)."
        return eqx.error_if(solution, jnp.any(solution.status != Status.converged), message)
    status = np.asarray(solution.status).reshape(-1)
    failed = np.flatnonzero(status != Status.converged)
    if failed.size:
        counts = ", ".join(f"{np.sum(status == s)} {s.name}" for s in Status)
        residual = np.asarray(solution.residual).reshape(-1)[failed[0]]
        raise NotConvergedError(
            f"solution: expected every sample to be converged, got {counts}; "
            f"the first is sample {failed[0]}, with residual {residual:.3g}."
        )
    return solution
