"""What decoders ask of trials: shapes, weights, finite numbers; and responses brought to one scale."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_finite, check_nonnegative, check_rank, check_real, check_size, is_concrete
from .._precision import product
from .._types import Scalar

__all__ = ["Standardizer", "Trials", "check_response", "check_trials", "standardizer"]


class Trials(eqx.Module):
    """Responses, the angle shown and the weight of each trial, checked.

    Attributes:
        responses: real numbers.
        angles_degrees: in the dtype of the responses.
        weights: ≥ 0; a trial of weight 0 is left out.
    """

    responses: Float[Array, "trials neurons"]
    angles_degrees: Float[Array, " trials"]
    weights: Float[Array, " trials"]

    @property
    def n_effective(self) -> Scalar:
        """The sum of the weights."""
        return jnp.sum(self.weights)


def check_trials(
    responses: Real[ArrayLike, "trials neurons"],
    angles_degrees: Real[ArrayLike, " trials"],
    weights: Real[ArrayLike, " trials"] | None = None,
) -> Trials:
    """Return trials as arrays of one dtype, or raise ``ValueError`` for what cannot be decoded.

    Args:
        responses: one trial a row; integers (spike counts) become floating-point numbers.
        angles_degrees: of the stimulus of each trial.
        weights: of each trial, ≥ 0; ``None``: 1 each.

    Raises:
        ValueError: for lengths that differ, no trial or no neuron, for concrete values that are NaN or
            infinite (the message names the first neurons that have them), and for weights that are all 0.
    """
    check_rank("responses", responses, "trials neurons")
    check_rank("angles_degrees", angles_degrees, "trials")
    n_trials, n_neurons = np.shape(responses)
    if not n_trials or not n_neurons:
        raise ValueError(f"responses: expected at least one trial and neuron, got {np.shape(responses)}.")
    responses = jnp.asarray(responses)
    if jnp.issubdtype(responses.dtype, jnp.integer):
        responses = responses.astype(float)
    check_real("responses", responses)
    check_size("angles_degrees", angles_degrees, 0, n_trials, "angles, one for each trial,")
    _check_neurons(responses)
    angles = jnp.asarray(angles_degrees).astype(responses.dtype)
    if is_concrete(angles) and not np.all(np.isfinite(np.asarray(angles))):
        raise ValueError("angles_degrees: expected finite numbers, got NaN or infinity.")
    if weights is None:
        return Trials(responses, angles, jnp.ones_like(angles))
    check_rank("weights", weights, "trials")
    check_size("weights", weights, 0, n_trials, "weights, one for each trial,")
    check_finite("weights", weights)
    check_nonnegative("weights", weights)
    if is_concrete(weights) and not np.any(np.asarray(weights)):
        raise ValueError("weights: expected a trial of weight > 0, got none.")
    return Trials(responses, angles, jnp.asarray(weights).astype(responses.dtype))


def _check_neurons(responses) -> None:
    if not is_concrete(responses):
        return
    is_broken = ~np.all(np.isfinite(np.asarray(responses)), axis=0)
    if np.any(is_broken):
        first = ", ".join(map(str, np.flatnonzero(is_broken)[:5]))
        raise ValueError(
            f"responses: expected finite numbers, got NaN or infinity in {is_broken.sum()} of "
            f"{len(is_broken)} neurons (the first: {first}); leave them out by responses[:, is_kept]."
        )


def check_response(
    response: Float[ArrayLike, "*trials neurons"], of_neurons: Float[Array, " neurons"]
) -> Float[Array, "*trials neurons"]:
    """Return a response in the dtype of what was fitted, or raise ``ValueError`` for another population."""
    if np.shape(response)[-1:] != of_neurons.shape:
        raise ValueError(
            f"response: expected the {len(of_neurons)} neurons that the decoder was fitted to, got shape "
            f"{np.shape(response)}."
        )
    return jnp.asarray(response, of_neurons.dtype)


class Standardizer(eqx.Module):
    """x ↦ (x − mean)/scale.

    Attributes:
        mean: of each neuron.
        scale: its standard deviation; infinite for a neuron that did not vary, which so stays at 0.
    """

    mean: Float[Array, " neurons"]
    scale: Float[Array, " neurons"]

    def __call__(self, responses: Float[ArrayLike, "*trials neurons"]) -> Float[Array, "*trials neurons"]:
        """Return the responses on the scale of the trials that this was made from."""
        return (check_response(responses, self.mean) - self.mean) / self.scale


def standardizer(responses: Float[Array, "trials neurons"], weights: Float[Array, " trials"]) -> Standardizer:
    """Measure mean and standard deviation (division by Σ weights) of each neuron over weighted trials."""
    share = weights / jnp.sum(weights)
    mean = product(share, responses)
    variance = product(share, (responses - mean) ** 2)
    # What rounding leaves of a neuron that does not vary must not be blown up.
    is_constant = variance <= (8 * jnp.finfo(responses.dtype).eps) ** 2 * product(share, responses**2)
    return Standardizer(mean, jnp.where(is_constant, jnp.inf, jnp.sqrt(jnp.where(is_constant, 1, variance))))
