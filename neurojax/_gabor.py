"""The Gabor function of all models: a Gaussian envelope and the phase of a grating, on rotated axes."""

import jax.numpy as jnp
from jaxtyping import Array

__all__ = ["envelope_and_phase"]


def envelope_and_phase(offsets, direction, *, across_scale, along_scale, frequency) -> tuple[Array, Array]:
    """Return exp(−½(across·across_scale)² − ½(along·along_scale)²) and 2π·frequency·across, in radians.

    With θ the orientation of the bars, counter-clockwise from horizontal as drawn, and (y, x) the way down
    and to the right from the center: across = y·cos θ + x·sin θ and along = x·cos θ − y·sin θ.

    Args:
        offsets: y and x.
        direction: cos θ and sin θ.
        across_scale: the inverse of the envelope's standard deviation across the bars.
        along_scale: the same along the bars.
        frequency: in cycles per unit of y and x.
    """
    (rows, columns), (cos, sin) = offsets, direction
    across, along = rows * cos + columns * sin, columns * cos - rows * sin
    envelope = jnp.exp(-((across * across_scale) ** 2 + (along * along_scale) ** 2) / 2)
    return envelope, 2 * jnp.pi * frequency * across
