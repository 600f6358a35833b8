"""What an encoder has to beat: predictions that know nothing, or nothing but earlier responses."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_at_least, check_rank, check_size, is_concrete
from .._precision import product
from ._angles import circular_difference
from ._ridge import ridge

__all__ = ["linear_baseline", "null_baseline", "paired_mean_baseline", "repeat_mean_baseline"]


def null_baseline(responses: Float[ArrayLike, "stimuli neurons"]) -> Float[Array, "stimuli neurons"]:
    """Predict each neuron's mean over the training stimuli, whatever is shown."""
    check_rank("responses", responses, "stimuli neurons")
    responses = jnp.asarray(responses)
    return jnp.broadcast_to(jnp.mean(responses, axis=0), responses.shape)


def repeat_mean_baseline(
    responses: Float[ArrayLike, "repeats stimuli neurons"],
) -> Float[Array, "repeats stimuli neurons"]:
    """Predict each repeat by the mean of the others to the same stimulus: what repetition alone tells.

    Raises:
        ValueError: for fewer than two repeats.
    """
    check_rank("responses", responses, "repeats stimuli neurons")
    responses = jnp.asarray(responses)
    n_repeats = responses.shape[0]
    check_at_least("responses: number of repeats", n_repeats, 2)
    return (jnp.sum(responses, axis=0) - responses) / (n_repeats - 1)


def paired_mean_baseline(
    responses: Float[ArrayLike, "stimuli neurons"], angles_degrees: Real[ArrayLike, " stimuli"]
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
    check_rank("responses", responses, "stimuli neurons")
    check_rank("angles_degrees", angles_degrees, "stimuli")
    responses = jnp.asarray(responses)
    check_size("angles_degrees", angles_degrees, 0, len(responses), "angles, one for each stimulus,")
    if not is_concrete(angles_degrees):
        raise ValueError("angles_degrees: expected known values, got a tracer.")
    angles = np.asarray(angles_degrees, np.float64)
    distance = np.abs(np.asarray(circular_difference(angles[:, None] + 180, angles)))
    n_opposite = np.sum(distance <= 1e-3, axis=1)
    if np.any(n_opposite != 1):
        first = np.argmax(n_opposite != 1)
        raise ValueError(
            f"angles_degrees: expected each angle with one opposite, got {angles[first]:g} with "
            f"{n_opposite[first]}; average repeats first."
        )
    return 0.5 * (responses + responses[np.argmin(distance, axis=1)])


def linear_baseline(
    inputs: Float[ArrayLike, "samples features"],
    responses: Float[ArrayLike, "samples neurons"],
    new_inputs: Float[ArrayLike, "new_samples features"],
    *,
    strength: Real[ArrayLike, ""] = 0.1,
) -> Float[Array, "new_samples neurons"]:
    """Predict by ridge regression on the pixels, λ = strength · (mean squared length of the centred inputs).

    Args:
        inputs: training stimuli, flattened.
        responses: to them.
        new_inputs: stimuli to predict.
        strength: > 0.
    """
    check_rank("inputs", inputs, "samples features")
    inputs, new_inputs = jnp.asarray(inputs), jnp.asarray(new_inputs)
    centred = inputs - jnp.mean(inputs, axis=0)
    fitted = ridge(inputs, responses, strength * jnp.mean(jnp.sum(centred**2, axis=1)))
    return product(new_inputs, fitted.weights) + fitted.intercept
