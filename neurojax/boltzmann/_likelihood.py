"""Measures of how well a machine fits data that need no partition function."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._types import PRNGKey, Scalar
from ._checks import check_data, check_states
from ._energy import free_energies, free_energy
from ._models import AbstractRBM

__all__ = ["free_energy_gap", "pseudo_log_likelihood", "pseudo_log_likelihood_exact"]

Visible = Float[Array, " visible"]


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
    _check_binary(rbm, v)
    i = jax.random.randint(key, (), 0, rbm.n_visible)
    flipped = v.at[i].set(1 - v[i])
    log_probability = jax.nn.log_sigmoid(free_energy(rbm, flipped) - free_energy(rbm, v))
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
    _check_binary(rbm, v)
    hidden_input = rbm.hidden_input(v)
    change = 1 - 2 * v
    flipped = jax.nn.softplus(hidden_input + change[:, None] * rbm.weights)
    gain = jnp.sum(flipped - jax.nn.softplus(hidden_input), axis=1) + change * rbm.visible_bias
    total = jnp.sum(jax.nn.log_sigmoid(-gain))
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


def _check_binary(rbm: AbstractRBM, v) -> None:
    if not rbm.is_binary:
        raise ValueError(f"rbm: expected binary visible units, got {type(rbm).__name__}.")
    check_states("v", rbm, v)
