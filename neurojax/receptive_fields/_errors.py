"""Standard errors of the parameters of a Gabor fit."""

import jax
import jax.numpy as jnp
from jax import lax

from .._rows import hypot
from .._uncertainty import least_squares_errors
from ._gabor import Gabor, quadrature_pair

__all__ = ["standard_errors"]


def standard_errors(problem, value, weights) -> Gabor:
    """Return the standard error of each parameter of a fit, in its unit; a constant for gradients.

    Args:
        problem: the `Projection` that was minimized.
        value: its six parameters, as they were iterated.
        weights: the weights of the quadrature pair.
    """
    problem, value, weights = lax.stop_gradient((problem, value, weights))
    phase = -jnp.arctan2(weights[1], weights[0])
    parameters = jnp.concatenate([value, jnp.stack([phase, hypot(*weights)])])

    def draw(parameters):
        cosine, sine = quadrature_pair(parameters[:6], (problem.rows, problem.columns))
        phase, amplitude = parameters[6:]
        return amplitude * (jnp.cos(phase) * cosine - jnp.sin(phase) * sine)

    is_free = (value > problem.lower) & (value < problem.upper)
    errors = least_squares_errors(
        jax.jacfwd(draw)(parameters),
        problem.atom - draw(parameters),
        jnp.concatenate([is_free, jnp.ones(2, bool)]),
    )
    row, column, angle, *_, phase, amplitude = errors
    frequency, across, along = jnp.exp(value[3:]) * errors[3:6]  # from those of the logarithms
    return Gabor(row, column, jnp.rad2deg(angle), frequency, across, along, jnp.rad2deg(phase), amplitude)
