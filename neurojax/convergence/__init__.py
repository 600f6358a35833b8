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

from ._gradients import AbstractGradient, Detached
from ._iterate import AbstractProblem, AbstractSolver, Picard, iterate, trace
from ._solution import NotConvergedError, Solution, Status, raise_unless_converged

__all__ = [
    "AbstractGradient",
    "AbstractProblem",
    "AbstractSolver",
    "Detached",
    "NotConvergedError",
    "Picard",
    "Solution",
    "Status",
    "iterate",
    "raise_unless_converged",
    "trace",
]
