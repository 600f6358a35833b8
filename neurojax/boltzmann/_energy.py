"""Energies, conditionals, and the Gibbs and mean-field steps: pure functions of one sample."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._precision import at_least_single
from .._random import bernoulli
from .._types import PRNGKey, Scalar
from ._checks import hidden_sample, visible_sample
from ._models import AbstractRBM

__all__ = [
    "energy",
    "free_energy",
    "gibbs_step",
    "hidden_probabilities",
    "mean_field_step",
    "sample_hidden",
    "visible_probabilities",
]

Visible = Float[Array, " visible"]
Hidden = Float[Array, " hidden"]
VisibleLike = Float[ArrayLike, " visible"]
HiddenLike = Float[ArrayLike, " hidden"]


def energy(rbm: AbstractRBM, v: VisibleLike, h: HiddenLike) -> Scalar:
    """Compute E(v, h) = Σᵢ Aᵢ(vᵢ) − h·(hidden_bias + s(v) @ weights); −v@W@h − b·v − c·h for binary units.

    Args:
        rbm: the machine.
        v: the visible units, one sample.
        h: the hidden units.

    Returns:
        A scalar, in float32 where units or parameters are of half precision.

    Raises:
        ValueError: at trace time, for sizes that are not the machine's.
    """
    v, h = visible_sample("v", rbm, v), hidden_sample("h", rbm, h)
    rbm, v, h = at_least_single((rbm, v, h))
    return jnp.sum(rbm.visible_energies(v, rbm.visible_bias)) - jnp.sum(h * rbm.hidden_input(v))


def free_energy(rbm: AbstractRBM, v: VisibleLike) -> Scalar:
    """Compute F(v) = −log Σ_h exp(−E(v, h)) = Σᵢ Aᵢ(vᵢ) − Σⱼ softplus((hidden_bias + s(v) @ weights)ⱼ).

    log p(v) = −F(v) − log Z. The softplus never overflows.

    Args:
        rbm: the machine.
        v: the visible units, one sample.

    Returns:
        A scalar, in float32 where units or parameters are of half precision.

    Raises:
        ValueError: at trace time, for a size that is not the machine's.

    Reference:
        Hinton 2010, section 16.1, eq. 25.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, free_energy
        >>> rbm = BernoulliRBM(jnp.zeros((3, 2)), jnp.ones(3), jnp.zeros(2))
        >>> round(float(free_energy(rbm, jnp.array([1.0, 0.0, 1.0]))), 4)  # -2 - 2 log 2
        -3.3863
    """
    return free_energies(rbm, visible_sample("v", rbm, v))


def free_energies(rbm: AbstractRBM, v: Float[Array, "*batch visible"]) -> Float[Array, "*batch"]:
    """Return F of every sample, for any leading axes, in float32 at least."""
    rbm, v = at_least_single((rbm, v))
    on = jnp.sum(jax.nn.softplus(rbm.hidden_input(v)), axis=-1)
    return jnp.sum(rbm.visible_energies(v, rbm.visible_bias), axis=-1) - on


def hidden_probabilities(rbm: AbstractRBM, v: VisibleLike) -> Hidden:
    """Compute p(hⱼ = 1 | v) = σ((hidden_bias + s(v) @ weights)ⱼ)."""
    return jax.nn.sigmoid(rbm.hidden_input(visible_sample("v", rbm, v)))


def visible_probabilities(rbm: AbstractRBM, h: HiddenLike) -> Visible:
    """Compute E[v | h]: p(vᵢ = 1 | h) = σ((visible_bias + h @ weightsᵀ)ᵢ) of binary units.

    Of Gaussian units it is the mean, of categorical ones the probability of each state.
    """
    return rbm.visible_mean(rbm.visible_input(hidden_sample("h", rbm, h)))


def sample_hidden(rbm: AbstractRBM, v: VisibleLike, key: PRNGKey) -> Hidden:
    """Draw h given v: each unit 1 with its `hidden_probabilities`."""
    return bernoulli(key, hidden_probabilities(rbm, v))


def gibbs_step(rbm: AbstractRBM, v: VisibleLike, key: PRNGKey) -> Visible:
    """Draw h given v, then v given h: one transition of the visible chain, which leaves p(v) as it is.

    A kernel for `neurojax.chains.sample_chain`, as ``lambda v, key: gibbs_step(rbm, v, key)``. In float32
    probabilities are rounded to multiples of 2⁻¹⁶.

    Args:
        rbm: the machine.
        v: the visible units, one sample.
        key: a typed PRNG key.

    Returns:
        The new visible units: states (numbers, for Gaussian units), not probabilities.
    """
    hidden_key, visible_key = jax.random.split(key)
    h = sample_hidden(rbm, v, hidden_key)
    return rbm.sample_visible(rbm.visible_input(h), visible_key)


def mean_field_step(rbm: AbstractRBM, v: VisibleLike) -> Visible:
    """Compute E[v | E[h | v]], the reconstruction of v without noise.

    Iterated it is mean-field inference: its fixed points are the stationary points of the mean-field free
    energy (there may be many).
    """
    return visible_probabilities(rbm, hidden_probabilities(rbm, v))
