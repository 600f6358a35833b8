"""Baselines of encoders: predictions from nothing, or from nothing but earlier responses."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import host_array, real_array
from .._checks import check_at_least, check_finite, check_positive, check_size, is_concrete
from .._precision import at_least_single, product
from ._angles import warn_unless_degrees
from ._ridge import ridge

__all__ = ["linear_baseline", "null_baseline", "paired_mean_baseline", "repeat_mean_baseline"]


def null_baseline(responses: Real[ArrayLike, "stimuli neurons"]) -> Float[Array, "stimuli neurons"]:
    """Predict each neuron's mean over the training stimuli, whatever is shown; NaN without any stimulus."""
    responses = real_array("responses", responses, "stimuli neurons")
    return jnp.broadcast_to(jnp.mean(responses, axis=0), responses.shape)


def repeat_mean_baseline(
    responses: Real[ArrayLike, "repeats stimuli neurons"],
) -> Float[Array, "repeats stimuli neurons"]:
    """Predict each repeat by the mean of the others to the same stimulus: what repetition alone tells.

    Raises:
        ValueError: for fewer than two repeats.
    """
    responses = real_array("responses", responses, "repeats stimuli neurons")
    n_repeats = responses.shape[0]
    check_at_least("responses: number of repeats", n_repeats, 2)
    return (jnp.sum(responses, axis=0) - responses) / (n_repeats - 1)


def paired_mean_baseline(
    responses: Real[ArrayLike, "stimuli neurons"], angles_degrees: Real[ArrayLike, " stimuli"]
) -> Float[Array, "stimuli neurons"]:
    """Predict (r(θ) + r(θ + 180°))/2 from training responses r.

    A full-field grating at θ is the same image as at θ + 180°, pixel for pixel, so that no model of the image
    can tell them apart: it gives one answer for both, and the best answer is the mean of the two tuning
    curves. This estimates it from the training responses, whose noise a regularised model may smooth away.

    Args:
        responses: one stimulus a row.
        angles_degrees: of the stimuli, known now; each once, and its opposite once.

    Raises:
        ValueError: for angles without an opposite, to a thousandth of a degree, and for repeated ones.
    """
    responses = real_array("responses", responses, "stimuli neurons")
    if not is_concrete(angles_degrees):
        raise ValueError("angles_degrees: expected known values, got a tracer.")
    angles = host_array("angles_degrees", angles_degrees, "stimuli").astype(np.float64)
    check_size("angles_degrees", angles, 0, len(responses), "angles, one for each stimulus,")
    check_finite("angles_degrees", angles)
    warn_unless_degrees("angles_degrees", angles, 360)
    distance = np.abs(np.mod(angles[:, None] - angles, 360) - 180)
    n_opposite = np.sum(distance <= 1e-3, axis=1)
    if np.any(n_opposite != 1):
        first = np.argmax(n_opposite != 1)
        raise ValueError(
            f"angles_degrees: expected each angle with one opposite, got {angles[first]:g} with "
            f"{n_opposite[first]}; average repeats first."
        )
    return 0.5 * (responses + responses[np.argmin(distance, axis=1)])


def linear_baseline(
    inputs: Real[ArrayLike, "samples features"],
    responses: Real[ArrayLike, "samples neurons"],
    new_inputs: Real[ArrayLike, "new_samples features"],
    *,
    strength: Real[ArrayLike, ""] = 0.1,
) -> Float[Array, "new_samples neurons"]:
    """Predict by ridge regression on the pixels, λ = strength · (mean squared length of the centred inputs).

    Args:
        inputs: training stimuli, flattened.
        responses: to them.
        new_inputs: stimuli to predict.
        strength: > 0.

    Raises:
        ValueError: for sizes that do not fit, for numbers that are not finite, and for a strength that is not
            positive.
    """
    inputs = at_least_single(real_array("inputs", inputs, "samples features"))
    responses = real_array("responses", responses, "samples neurons")
    new_inputs = real_array("new_inputs", new_inputs, "new_samples features")
    check_size("responses", responses, 0, len(inputs), "samples, as inputs,")
    check_size("new_inputs", new_inputs, 1, inputs.shape[1], "features, as inputs,")
    for name, value in (("inputs", inputs), ("responses", responses)):
        check_finite(name, value)
    check_positive("strength", strength)
    centred = inputs - jnp.mean(inputs, axis=0)
    mean_square = jnp.mean(jnp.sum(centred**2, axis=1))
    # Where nothing varies there is nothing to shrink, and any positive number will do.
    fitted = ridge(inputs, responses, strength * jnp.where(mean_square > 0, mean_square, 1))
    return product(new_inputs, fitted.weights) + fitted.intercept
