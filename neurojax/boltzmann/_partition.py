"""Partition functions: exact by enumeration, and estimated by annealed importance sampling both ways."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._checks import check_at_least
from .._precision import product
from .._types import PRNGKey, Scalar
from ._checks import check_states
from ._energy import free_energy
from ._models import AbstractRBM, BernoulliRBM
from ._path import TemperedPath

__all__ = [
    "MOST_ENUMERATED_UNITS",
    "Estimate",
    "log_likelihood",
    "log_partition_ais",
    "log_partition_exact",
    "log_partition_reverse_ais",
]

MOST_ENUMERATED_UNITS = 20  # on the smaller side of a machine
_BLOCK_UNITS = 10  # states are enumerated in blocks of 2¹⁰


class Estimate(NamedTuple):
    """An estimate of log Z from independent chains.

    Attributes:
        value: in nats.
        standard_error: of the value, in nats, from the spread of the chains' weights: std(w)/(mean(w)·√n). It
            knows nothing of modes that no chain has visited.
        effective_sample_size: (Σw)²/Σw², from 1 to the number of chains.
    """

    value: Scalar
    standard_error: Scalar
    effective_sample_size: Scalar


def log_likelihood(rbm: AbstractRBM, v: Float[Array, " visible"], log_partition: Scalar) -> Scalar:
    """Compute log p(v) = −F(v) − log Z in nats, for one sample.

    Args:
        rbm: the machine.
        v: a state of the visible units.
        log_partition: log Z. A value that is too small flatters the machine.

    Raises:
        ValueError: for binary or categorical units whose (concrete) values are no states.
    """
    check_states("v", rbm, v)
    return -free_energy(rbm, v) - log_partition


def log_partition_exact(rbm: AbstractRBM) -> Scalar:
    """Compute log Z = log Σ_v Σ_h exp(−E(v, h)) by summing over all states of the smaller side.

    The other side is summed in closed form. States are streamed in blocks, so memory stays small.

    Args:
        rbm: a machine with at most 20 units on its smaller side (hidden, where visible units are not binary).

    Raises:
        ValueError: at trace time, for a larger one.

    Gradient: exact, −E[∂E]; blocks are computed again on the way back.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, log_partition_exact
        >>> rbm = BernoulliRBM(jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(2))
        >>> round(float(jax.jit(log_partition_exact)(rbm)), 4)  # 5 log 2
        3.4657
    """
    n = min(rbm.n_hidden, rbm.n_visible) if rbm.is_binary else rbm.n_hidden
    if n > MOST_ENUMERATED_UNITS:
        raise ValueError(
            f"rbm: expected at most {MOST_ENUMERATED_UNITS} units on the side that is enumerated, got {n} "
            f"(weights of shape {rbm.weights.shape}); log_partition_ais and log_partition_reverse_ais "
            "estimate it."
        )
    if n < rbm.n_hidden:
        rbm = BernoulliRBM(rbm.weights.T, rbm.hidden_bias, rbm.visible_bias)
    n_block = min(n, _BLOCK_UNITS)

    @jax.checkpoint
    def log_sum(start):
        h = _states(start + jnp.arange(2**n_block), n, rbm.weights.dtype)
        terms = product(h, rbm.hidden_bias) + rbm.visible_log_partition(rbm.visible_input(h))
        return jax.nn.logsumexp(terms)

    def add(total, start):
        return jnp.logaddexp(total, log_sum(start)), None

    starts = jnp.arange(2 ** (n - n_block)) * 2**n_block
    return lax.scan(add, log_sum(starts[0]), starts[1:])[0]


def _states(index: Array, n_units: int, dtype) -> Float[Array, "states units"]:
    """Return the binary digits of whole numbers, the lowest first."""
    return ((index[:, None] >> jnp.arange(n_units)) & 1).astype(dtype)


def log_partition_ais(
    rbm: AbstractRBM,
    key: PRNGKey,
    *,
    base_visible_bias: Float[Array, " visible"],
    n_chains: int = 100,
    n_temperatures: int = 1000,
) -> Estimate:
    """Estimate log Z by annealed importance sampling, from independent units to the machine.

    Chains start from the machine with no weights and ``base_visible_bias``, whose log Z is known, and go
    through evenly spaced β, a Gibbs transition each; log Ẑ = log Z₀ + log mean w with
    log w = Σₖ F_βₖ(vₖ) − F_βₖ₊₁(vₖ).

    **What it bounds.** E[Ẑ] = Z, so E[log Ẑ] ≤ log Z: an estimate tends to be too low, and a likelihood
    from it too high. AIS flatters. Where the chains miss modes it can be nats off while the standard error
    looks small; compare `log_partition_reverse_ais`.

    Args:
        rbm: the machine.
        key: a typed PRNG key.
        base_visible_bias: the start; that of the data's base rate (``rbm.base_visible_bias(data)``) is far
            better than zero or the machine's own.
        n_chains: independent chains, ≥ 2.
        n_temperatures: values of β, 0 and 1 among them, ≥ 2; 10,000 for a trained machine of hundreds of
            units.

    Returns:
        The estimate with its standard error and effective sample size.

    Raises:
        ValueError: at trace time, for a base of another size and counts out of range.

    Reference:
        Neal 2001; Salakhutdinov & Murray 2008, section 4.1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, log_partition_ais
        >>> rbm = BernoulliRBM(jnp.zeros((3, 2)), jnp.zeros(3), jnp.zeros(2))
        >>> estimate = jax.jit(log_partition_ais)(rbm, jax.random.key(0), base_visible_bias=jnp.zeros(3))
        >>> round(float(estimate.value), 4)  # without weights it is exact: 5 log 2
        3.4657
    """
    check_at_least("n_chains", n_chains, 2)
    path = TemperedPath(rbm, jnp.asarray(base_visible_bias, rbm.weights.dtype))
    start_key, key = jax.random.split(key)
    v = path.sample_base(start_key, (n_chains,))
    log_weights = _anneal(path, v, key, n_temperatures, is_reverse=False)
    return _estimate(log_weights, path.log_partition_base(), 1)


def log_partition_reverse_ais(
    rbm: AbstractRBM,
    samples: Float[Array, "chains visible"],
    key: PRNGKey,
    *,
    base_visible_bias: Float[Array, " visible"],
    n_temperatures: int = 1000,
) -> Estimate:
    """Estimate log Z by annealing backwards, from samples of the machine to independent units.

    log Ẑ = log Z₀ − log mean w with log w = Σₖ F_βₖ(vₖ) − F_βₖ₋₁(vₖ) along β from 1 to 0, a chain for each
    sample.

    **What it bounds.** For exact samples E[mean w] = Z₀/Z, so E[log Ẑ] ≥ log Z: with `log_partition_ais` it
    makes a bracket, though in expectation only. Samples from chains that have not mixed can put it on either
    side: it bounds no better than they are drawn.

    Args:
        rbm: the machine.
        samples: states of its visible units, as independent and as exact as can be had: the ends of long
            chains, or draws from an enumeration.
        key: a typed PRNG key.
        base_visible_bias: as in `log_partition_ais`.
        n_temperatures: as in `log_partition_ais`.

    Raises:
        ValueError: at trace time, for fewer than 2 samples and sizes that do not fit; for samples that are
            no states.

    Reference:
        Burda, Grosse & Salakhutdinov 2015, Accurate and conservative estimates of MRF log-likelihood using
        reverse annealing.
    """
    check_states("samples", rbm, samples)
    if samples.ndim != 2 or len(samples) < 2:
        raise ValueError(f"samples: expected at least 2 rows (samples visible), got shape {samples.shape}.")
    path = TemperedPath(rbm, jnp.asarray(base_visible_bias, rbm.weights.dtype))
    log_weights = _anneal(path, samples.astype(rbm.weights.dtype), key, n_temperatures, is_reverse=True)
    return _estimate(log_weights, path.log_partition_base(), -1)


def _anneal(path: TemperedPath, v, key: PRNGKey, n_temperatures: int, *, is_reverse: bool) -> Array:
    """Return the log weight of each chain along evenly spaced β, from 0 to 1 or back."""
    check_at_least("n_temperatures", n_temperatures, 2)
    last = n_temperatures - 1

    def beta(i):
        share = jnp.asarray(i, v.dtype) / last
        return 1 - share if is_reverse else share

    def move(i, carry):
        v, log_weights = carry
        hidden_input = path.rbm.hidden_input(v)
        log_weights = log_weights + path.log_ratio(v, hidden_input, beta(i), beta(i + 1))
        return path.step(v, hidden_input, beta(i + 1), jax.random.fold_in(key, i)), log_weights

    zeros = jnp.zeros(v.shape[0], v.dtype)
    return lax.fori_loop(0, last, move, (v, zeros))[1]


def _estimate(log_weights: Array, log_partition_base: Array, sign: int) -> Estimate:
    """Return log Z₀ ± log mean w, with the delta method's standard error."""
    n = log_weights.shape[0]
    weights = jnp.exp(log_weights - jnp.max(log_weights))
    value = log_partition_base + sign * (jax.nn.logsumexp(log_weights) - jnp.log(float(n)))
    error = jnp.std(weights, ddof=1) / (jnp.mean(weights) * jnp.sqrt(float(n)))
    return Estimate(value, error, jnp.sum(weights) ** 2 / jnp.sum(weights**2))
