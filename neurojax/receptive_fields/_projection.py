"""Variable projection: the six nonlinear parameters by damped Gauss-Newton steps on a box."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._types import Scalar
from ..convergence import AbstractProblem, AbstractSolver
from ._gabor import quadrature_pair

__all__ = ["LevenbergMarquardt", "Projection", "bounds", "project", "solve_pair"]

_SMALLEST_WIDTH = 0.5
_LARGEST_FREQUENCY = 0.5


class Projection(AbstractProblem):
    """Σ(atom − g)² as a function of the six parameters that are not linear, on a box."""

    atom: Float[Array, " pixels"]
    rows: Float[Array, " pixels"]
    columns: Float[Array, " pixels"]
    lower: Float[Array, "6"]
    upper: Float[Array, "6"]

    def linearize(self, value):
        """Return Σr², Jᵀr and JᵀJ of the projected residual r at ``value``."""

        def misfit(value):
            difference = self.atom - project(value, self.atom, (self.rows, self.columns))[1]
            return difference, difference

        jacobian, difference = jax.jacfwd(misfit, has_aux=True)(value)
        gradient = jnp.matmul(difference, jacobian, precision=lax.Precision.HIGHEST)
        curvature = jnp.matmul(jacobian.T, jacobian, precision=lax.Precision.HIGHEST)
        return _Linearization(value, jnp.sum(difference**2), gradient, curvature)

    def clip(self, value):
        """Return the nearest point of the box."""
        return jnp.clip(value, self.lower, self.upper)

    def fixed_point(self, value: Array) -> Array:
        """Apply a projected gradient step, scaled by the diagonal of the curvature."""
        here = self.linearize(value)
        return self.clip(value - here.gradient / _scale(here.curvature))

    def residual(self, value: Array) -> Scalar:
        """Return the largest move of that step."""
        return jnp.max(jnp.abs(value - self.fixed_point(value)))


class _Linearization(NamedTuple):
    value: Array
    cost: Array
    gradient: Array
    curvature: Array


class LevenbergMarquardt(AbstractSolver):
    """Damped Gauss-Newton steps on a box; a step that does not descend is taken back and damped more."""

    def init(self, problem, value):
        return problem.linearize(value), jnp.full((), 1e-2, value.dtype)

    def step(self, problem, state):
        here, damping = state
        damped = here.curvature + jnp.diag(damping * _scale(here.curvature))
        # A parameter that presses against its bound is held there, so that the others still move as a team.
        pressing = jnp.where(here.gradient > 0, here.value <= problem.lower, here.value >= problem.upper)
        is_held = pressing[:, None] | pressing[None, :]
        damped = jnp.where(is_held, jnp.diag(jnp.diagonal(damped)), damped)
        move = jnp.linalg.solve(damped, jnp.where(pressing, 0, here.gradient))
        there = problem.linearize(problem.clip(here.value - move))
        is_better = there.cost < here.cost
        after = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), there, here)
        return after, jnp.clip(jnp.where(is_better, damping / 4, damping * 4), 1e-6, 1e6)

    def value(self, state):
        return state[0].value


def _scale(curvature):
    """Return the curvature's diagonal, kept off zero where a parameter has no effect."""
    diagonal = jnp.diagonal(curvature)
    return diagonal + 1e-3 * jnp.max(diagonal) + jnp.finfo(curvature.dtype).eps


def project(value, atom, grid):
    """Return the best weights of the quadrature pair and the Gabor function that they make."""
    cosine, sine = quadrature_pair(value, grid)
    pairs = (cosine, cosine), (cosine, sine), (sine, sine), (cosine, atom), (sine, atom)
    weights = solve_pair(*(jnp.sum(left * right) for left, right in pairs))
    return weights, weights[0] * cosine + weights[1] * sine


def solve_pair(cc, cs, ss, c_atom, s_atom):
    # At 0.5 cycles per pixel along an axis the sine vanishes at every pixel: the ridge then drops it.
    ridge = 8 * jnp.finfo(cc.dtype).eps * (cc + ss)
    cc, ss = cc + ridge, ss + ridge
    determinant = cc * ss - cs**2
    return (ss * c_atom - cs * s_atom) / determinant, (cc * s_atom - cs * c_atom) / determinant


def bounds(patch_shape, dtype):
    longer = max(patch_shape)
    widths = np.log(_SMALLEST_WIDTH), np.log(longer)
    frequencies = np.log(1 / (4 * longer)), np.log(_LARGEST_FREQUENCY)
    centres = [(-0.5, size - 0.5) for size in patch_shape]
    box = np.array([*centres, (-np.inf, np.inf), frequencies, widths, widths]).T
    return jnp.asarray(box[0], dtype), jnp.asarray(box[1], dtype)
