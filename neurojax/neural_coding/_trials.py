"""Checks of the trials that decoders take, and responses brought to one scale."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_finite, check_nonnegative, check_size, is_concrete
from .._precision import at_least_single, product
from .._types import Scalar
from ._angles import warn_unless_degrees
from ._metrics import in_own_unit

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
    period_degrees: float | int | None = None,
) -> Trials:
    """Return trials as arrays of one dtype, or raise ``ValueError`` for what cannot be decoded.

    Args:
        responses: one trial a row; integers (spike counts) become floating-point numbers, and numbers of
            half precision become float32, in which sums and linear algebra are done.
        angles_degrees: of the stimulus of each trial.
        weights: of each trial, ≥ 0; ``None``: 1 each.
        period_degrees: after which the decoder's angles come round, to warn about angles in radians or of
            another period; ``None`` does not warn.

    Raises:
        ValueError: for lengths that differ, no trial or no neuron, for concrete values that are NaN or
            infinite (the message names the first neurons that have them), and for weights that are all 0.
    """
    responses = at_least_single(real_array("responses", responses, "trials neurons"))
    angles = real_array("angles_degrees", angles_degrees, "trials").astype(responses.dtype)
    n_trials, n_neurons = responses.shape
    if not n_trials or not n_neurons:
        raise ValueError(f"responses: expected at least one trial and neuron, got {responses.shape}.")
    check_size("angles_degrees", angles, 0, n_trials, "angles, one for each trial,")
    _check_neurons(responses)
    if is_concrete(angles) and not np.all(np.isfinite(np.asarray(angles))):
        raise ValueError("angles_degrees: expected finite numbers, got NaN or infinity.")
    if period_degrees is not None:
        warn_unless_degrees("angles_degrees", angles, period_degrees)
    if weights is None:
        return Trials(responses, angles, jnp.ones_like(angles))
    weights = real_array("weights", weights, "trials")
    check_size("weights", weights, 0, n_trials, "weights, one for each trial,")
    check_finite("weights", weights)
    check_nonnegative("weights", weights)
    if is_concrete(weights) and not np.any(np.asarray(weights)):
        raise ValueError("weights: expected a trial of weight > 0, got none.")
    return Trials(responses, angles, weights.astype(responses.dtype))


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
    response = real_array("response", response)
    if response.shape[-1:] != of_neurons.shape:
        raise ValueError(
            f"response: expected the {len(of_neurons)} neurons that the decoder was fitted to, got shape "
            f"{response.shape}."
        )
    return response.astype(of_neurons.dtype)


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
    values, unit = in_own_unit(responses)
    mean = product(share, values)
    variance = product(share, (values - mean) ** 2)
    # What rounding leaves of a neuron that does not vary must not be blown up.
    is_constant = variance <= (8 * jnp.finfo(values.dtype).eps) ** 2 * product(share, values**2)
    deviation = unit * jnp.sqrt(jnp.where(is_constant, 1, variance))
    return Standardizer(unit * mean, jnp.where(is_constant, jnp.inf, deviation))
