"""Measures of how well a machine fits data that need no partition function."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import ArrayLike, Float

from .._checks import check_shape
from .._precision import at_least_single
from .._types import PRNGKey, Scalar
from ._checks import check_data, state_array
from ._energy import free_energies
from ._models import AbstractRBM

__all__ = ["free_energy_gap", "pseudo_log_likelihood", "pseudo_log_likelihood_exact"]

Visible = Float[ArrayLike, " visible"]


def pseudo_log_likelihood(rbm: AbstractRBM, v: Visible, key: PRNGKey, *, is_per_unit: bool = False) -> Scalar:
    """Estimate Σᵢ log p(vᵢ | v₋ᵢ) in nats from one unit, drawn at random.

    n·log σ(F(v with unit i flipped) − F(v)), n the number of visible units: unbiased over i. (Scaled by
    another number, such as the size of a batch, it is on no scale on which machines can be compared.)

    Args:
        rbm: a machine of binary visible units.
        v: a state, one sample.
        key: a typed PRNG key.
        is_per_unit: leave out the factor n.

    Raises:
        ValueError: at trace time, for other visible units and another size; for (concrete) values that are
            neither 0 nor 1: a grey value has no flipped state.

    Reference:
        Besag 1975; the one-unit estimate: deep-learning tutorials, RBM.
    """
    rbm, v = at_least_single((rbm, _binary_sample(rbm, v)))
    i = jax.random.randint(key, (), 0, rbm.n_visible)
    log_probability = _log_conditionals(rbm, v, i)
    return log_probability if is_per_unit else rbm.n_visible * log_probability


def pseudo_log_likelihood_exact(rbm: AbstractRBM, v: Visible, *, is_per_unit: bool = False) -> Scalar:
    """Compute Σᵢ log p(vᵢ | v₋ᵢ) in nats over all visible units.

    A flip changes the hidden input by ± a row of the weights: visible × hidden softplus in all, n_visible
    times the free energy's.

    Args:
        rbm: a machine of binary visible units.
        v: a state, one sample.
        is_per_unit: divide by the number of visible units.

    Raises:
        ValueError: as `pseudo_log_likelihood`.
    """
    rbm, v = at_least_single((rbm, _binary_sample(rbm, v)))
    total = jnp.sum(_log_conditionals(rbm, v, slice(None)))
    return total / rbm.n_visible if is_per_unit else total


def free_energy_gap(
    rbm: AbstractRBM,
    train: Float[ArrayLike, "samples visible"],
    validation: Float[ArrayLike, "held_out visible"],
) -> Scalar:
    """Compute mean F(validation) − mean F(train) in nats: how much less likely the held-out data are.

    The partition function cancels, so it is exact. It grows from 0 as the machine overfits.

    Raises:
        ValueError: for data that are empty, not finite or of another size.

    Reference:
        Hinton 2010, section 6.
    """
    train, validation = check_data("train", train, rbm), check_data("validation", validation, rbm)
    return jnp.mean(free_energies(rbm, validation)) - jnp.mean(free_energies(rbm, train))


def _log_conditionals(rbm: AbstractRBM, v: Array, units: Any) -> Array:
    """Return log p(unit | all others) of some units of v, from the change of F when each flips."""
    flipped, hidden_input = 1 - v, rbm.hidden_input(v)
    change = (rbm.scaled(flipped) - rbm.scaled(v))[units]
    hidden = jax.nn.softplus(hidden_input + change[..., None] * rbm.weights[units])
    energies = rbm.visible_energies(v, rbm.visible_bias) - rbm.visible_energies(flipped, rbm.visible_bias)
    gain = jnp.sum(hidden - jax.nn.softplus(hidden_input), axis=-1) + energies[units]
    return jax.nn.log_sigmoid(-gain)


def _binary_sample(rbm: AbstractRBM, v) -> Array:
    if not rbm.is_binary:
        raise ValueError(f"rbm: expected binary visible units, got {type(rbm).__name__}.")
    v = state_array("v", rbm, v)
    check_shape("v", v, (rbm.n_visible,), "one sample (use vmap for many)")
    return v
