"""Von Mises tuning: a bump on the circle, or two that are opposite."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_positive

__all__ = ["VonMises", "von_mises"]

PerNeuron = Float[Array | np.ndarray, "*neurons"]


class VonMises(eqx.Module):
    """Tuning of one neuron; of many, where the arrays have axes.

    Attributes:
        preferred_degrees: where the (first) peak is, in [0, period_degrees).
        concentration: κ ≥ 0, no unit: the peak is at half its height arccos(1 − ln 2/κ)·period/2π degrees
            from its middle, for κ > ln(2)/2.
        baseline: the limit of the response far from every peak for large κ, in the units of responses. The
            response never comes down to it: one peak leaves amplitude·exp(−2κ) on its far side. For κ of
            order 1 or less that is much of the curve, and baseline and amplitude trade off: 2 + cos φ is, to
            0.05, the tuning with κ = 0.1, baseline −8 and amplitude 11.
        amplitude: the height of the peak above the baseline.
        opposite_amplitude: the height of a second peak half a period away; 0 for none.
        period_degrees: 360 for directions, 180 for orientations.
    """

    preferred_degrees: Float[Array | np.ndarray, "*neurons"] = eqx.field(
        converter=partial(real_array, "preferred_degrees")
    )
    concentration: Float[Array | np.ndarray, "*neurons"] = eqx.field(
        converter=partial(real_array, "concentration")
    )
    baseline: PerNeuron = eqx.field(converter=partial(real_array, "baseline"))
    amplitude: PerNeuron = eqx.field(converter=partial(real_array, "amplitude"))
    opposite_amplitude: Float[Array | np.ndarray, "*neurons"] = eqx.field(
        converter=partial(real_array, "opposite_amplitude")
    )
    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)

    def __check_init__(self):
        check_positive("period_degrees", self.period_degrees)


def von_mises(angles_degrees: Real[ArrayLike, "*shape"], parameters: VonMises) -> Float[Array, "*shape"]:
    """Compute baseline + a·exp(κ·(cos φ − 1)) + a′·exp(κ·(−cos φ − 1)), φ = 2π·(θ − preferred)/period.

    a is ``amplitude``, a′ is ``opposite_amplitude``, κ is ``concentration``.

    Args:
        angles_degrees: θ, any shape, in degrees.
        parameters: of one neuron; batch with ``jax.vmap``.

    Reference:
        Swindale 1998, Biol. Cybern. 78, 45-56 (equation 4, and its sum of two for directions).

    Example:
        >>> import jax.numpy as jnp
        >>> tuning = VonMises(*map(jnp.float32, (90, 2, 1, 4, 2)))
        >>> print(von_mises(jnp.array([90.0, 270.0]), tuning).round(2))
        [5.04 3.07]
    """
    phase = real_array("angles_degrees", angles_degrees) - jnp.asarray(parameters.preferred_degrees)
    cosine = jnp.cos(phase * (2 * np.pi / parameters.period_degrees))
    near = parameters.amplitude * jnp.exp(parameters.concentration * (cosine - 1))
    opposite = parameters.opposite_amplitude * jnp.exp(-parameters.concentration * (cosine + 1))
    return jnp.asarray(parameters.baseline) + near + opposite
