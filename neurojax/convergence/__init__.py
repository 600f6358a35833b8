"""The convergence loop: one ``lax.while_loop`` for everything that is solved to a tolerance.

A *problem* says what is solved (its residual and its fixed-point map), a *solver* says how (its state and
its step), and `iterate` runs the one on the other until the residual is small, sample by sample
under ``vmap``, with a status and a step count each.

Example:
    >>> import equinox as eqx, jax.numpy as jnp
    >>> from neurojax.convergence import AbstractProblem, Picard, Status, iterate
    >>> class SquareRoot(AbstractProblem):
    ...     number: jnp.ndarray
    ...     def fixed_point(self, value):
    ...         return 0.5 * (value + self.number / value)
    ...     def residual(self, value):
    ...         return jnp.abs(value**2 / self.number - 1)
    >>> solution = iterate(Picard(), SquareRoot(jnp.float32(2)), jnp.float32(1), tol=1e-6, max_steps=50)
    >>> bool(solution.status == Status.converged), round(float(solution.value), 4)
    (True, 1.4142)
"""

from ._batch import iterate_rows
from ._gradients import AbstractGradient, Detached, Truncated
from ._implicit import Conditioning, Implicit, conditioning
from ._interfaces import AbstractProblem, AbstractSolver, AbstractStationaryProblem, Picard, Tangent, masked
from ._iterate import iterate, trace
from ._loop import Loop
from ._slots import run_in_slots
from ._solution import NotConvergedError, Solution, Status, raise_unless_converged
from ._unrolled import Unrolled

__all__ = [
    "AbstractGradient",
    "AbstractProblem",
    "AbstractSolver",
    "AbstractStationaryProblem",
    "Conditioning",
    "Detached",
    "Implicit",
    "Loop",
    "NotConvergedError",
    "Picard",
    "Solution",
    "Status",
    "Tangent",
    "Truncated",
    "Unrolled",
    "conditioning",
    "iterate",
    "iterate_rows",
    "masked",
    "raise_unless_converged",
    "run_in_slots",
    "trace",
]
