"""Partition functions: exact by enumeration, and estimated by annealed importance sampling both ways."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._arrays import real_array
from .._checks import check_at_least
from .._compensated import exact_sum
from .._precision import at_least_single, product
from .._types import PRNGKey, Scalar
from ._checks import state_array, visible_sample
from ._energy import free_energies
from ._models import AbstractRBM, BernoulliRBM
from ._path import TemperedPath, tempered_path

__all__ = [
    "MOST_ENUMERATED_UNITS",
    "Bracket",
    "Estimate",
    "log_likelihood",
    "log_partition_ais",
    "log_partition_bracket",
    "log_partition_exact",
    "log_partition_reverse_ais",
]

MOST_ENUMERATED_UNITS = 20  # on the smaller side of a machine
_CROSSED_ERRORS = 3  # standard errors beyond which a bracket counts as crossed
_BLOCK_UNITS = 10  # states are enumerated in blocks of 2¹⁰


class Estimate(NamedTuple):
    """An estimate of log Z from independent chains.

    Attributes:
        value: in nats.
        standard_error: of the value, in nats, from the spread of the chains' weights: std(w)/(mean(w)·√n). It
            knows nothing of modes that no chain has visited. Over redrawn keys ± 1.96 of it held the truth in
            94 % of runs where nearly all of 50 chains counted, in 92 % where 30 did, and in 87 % (reverse:
            79 %) where 11 did: where few count it is too small, and it is never above 1.
        effective_sample_size: (Σw)²/Σw², from 1 to the number of chains.
    """

    value: Scalar
    standard_error: Scalar
    effective_sample_size: Scalar


class Bracket(NamedTuple):
    """Bounds of log Z that hold in expectation, from annealing both ways.

    Attributes:
        lower: annealed importance sampling; E[lower] ≤ log Z.
        upper: its reverse; E[upper] ≥ log Z for exact samples.
        gap: upper.value − lower.value, in nats.
        gap_standard_error: √(lower.standard_error² + upper.standard_error²), in nats.
        is_crossed: whether the gap lies below zero by more than three of its standard errors (and more than
            rounding). Exact samples do not do that: those given come from chains that have not mixed, and
            neither bound holds.
    """

    lower: Estimate
    upper: Estimate
    gap: Scalar
    gap_standard_error: Scalar
    is_crossed: Bool[Array, ""]


def log_likelihood(
    rbm: AbstractRBM, v: Float[ArrayLike, " visible"], log_partition: Float[ArrayLike, ""]
) -> Scalar:
    """Compute log p(v) = −F(v) − log Z in nats, for one sample.

    Args:
        rbm: the machine.
        v: a state of the visible units.
        log_partition: log Z. A value that is too small flatters the machine.

    Raises:
        ValueError: for binary or categorical units whose (concrete) values are no states.
    """
    v = visible_sample("v", rbm, state_array("v", rbm, v))
    return -free_energies(rbm, v) - real_array("log_partition", log_partition, "")


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
    rbm, n_block = at_least_single(rbm), min(n, _BLOCK_UNITS)

    @jax.checkpoint
    def log_sum(start):
        h = _states(start + jnp.arange(2**n_block), n, rbm.weights.dtype)
        terms = product(h, rbm.hidden_bias) + rbm.visible_log_partition(rbm.visible_input(h))
        return jax.nn.logsumexp(terms)

    # The blocks are added once, not one to another: each addition to log Z would round it.
    return jax.nn.logsumexp(lax.map(log_sum, jnp.arange(2 ** (n - n_block)) * 2**n_block))


def _states(index: Array, n_units: int, dtype) -> Float[Array, "states units"]:
    """Return the binary digits of whole numbers, the lowest first."""
    return ((index[:, None] >> jnp.arange(n_units)) & 1).astype(dtype)


def log_partition_ais(
    rbm: AbstractRBM,
    key: PRNGKey,
    *,
    base_visible_bias: Float[ArrayLike, " visible"],
    n_chains: int = 100,
    n_temperatures: int = 1000,
) -> Estimate:
    """Estimate log Z by annealed importance sampling, from independent units to the machine.

    Chains start from the machine with no weights and ``base_visible_bias``, whose log Z is known, and go
    through evenly spaced β, a Gibbs transition each; log Ẑ = log Z₀ + log mean w with
    log w = Σₖ F_βₖ(vₖ) − F_βₖ₊₁(vₖ).

    **What it bounds.** E[Ẑ] = Z, so E[log Ẑ] ≤ log Z: an estimate tends to be too low, and a likelihood
    from it too high. AIS flatters. Where the chains miss modes it can be nats off while the standard error
    looks small; compare `log_partition_reverse_ais`, which `log_partition_bracket` does. A reverse estimate
    that lies *below* this one by more than three standard errors says that its samples come from chains
    that have not mixed.

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
    path = tempered_path(rbm, base_visible_bias)
    start_key, key = jax.random.split(key)
    v = path.sample_base(start_key, (n_chains,))
    log_weights = _anneal(path, v, key, n_temperatures, is_reverse=False)
    return _estimate(log_weights, path.log_partition_base(), 1)


def log_partition_reverse_ais(
    rbm: AbstractRBM,
    samples: Float[ArrayLike, "chains visible"],
    key: PRNGKey,
    *,
    base_visible_bias: Float[ArrayLike, " visible"],
    n_temperatures: int = 1000,
) -> Estimate:
    """Estimate log Z by annealing backwards, from samples of the machine to independent units.

    log Ẑ = log Z₀ − log mean w with log w = Σₖ F_βₖ(vₖ) − F_βₖ₋₁(vₖ) along β from 1 to 0, a chain for each
    sample.

    **What it bounds.** For exact samples E[mean w] = Z₀/Z, so E[log Ẑ] ≥ log Z: with `log_partition_ais` it
    makes a bracket (`log_partition_bracket`), though in expectation only. Samples from chains that have not
    mixed can put it on either side: it bounds no better than they are drawn. An estimate that lies *below*
    that of `log_partition_ais` by more than three standard errors shows that they have not.

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
    samples = state_array("samples", rbm, samples)
    if samples.ndim != 2 or len(samples) < 2:
        raise ValueError(f"samples: expected at least 2 rows (samples visible), got shape {samples.shape}.")
    path = tempered_path(rbm, base_visible_bias)
    log_weights = _anneal(path, samples.astype(path.rbm.weights.dtype), key, n_temperatures, is_reverse=True)
    return _estimate(log_weights, path.log_partition_base(), -1)


def log_partition_bracket(
    rbm: AbstractRBM,
    samples: Float[ArrayLike, "chains visible"],
    key: PRNGKey,
    *,
    base_visible_bias: Float[ArrayLike, " visible"],
    n_chains: int = 100,
    n_temperatures: int = 1000,
) -> Bracket:
    """Estimate log Z from both sides: by annealed importance sampling, and by its reverse from samples.

    The key is split in two, the first for `log_partition_ais`, the second for `log_partition_reverse_ais`. A
    narrow bracket that is not crossed is no proof: chains of both can miss the same modes.

    Args:
        rbm: the machine.
        samples: as in `log_partition_reverse_ais`.
        key: a typed PRNG key.
        base_visible_bias: as in `log_partition_ais`.
        n_chains: of annealed importance sampling, ≥ 2; the reverse has one for each sample.
        n_temperatures: of both.

    Raises:
        ValueError: as the two estimates.

    Reference:
        Grosse, Ghahramani & Adams 2015, Sandwiching the marginal likelihood using bidirectional Monte Carlo.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, log_partition_bracket
        >>> rbm = BernoulliRBM(jnp.full((8, 2), 6.0), jnp.full(8, -6.0), jnp.array([-22.0, -22.0]))
        >>> off, zero = jnp.zeros((50, 8)), jnp.zeros(8)
        >>> bracket = jax.jit(log_partition_bracket)(rbm, off, jax.random.key(0), base_visible_bias=zero)
        >>> bool(bracket.is_crossed)  # from samples of one mode, all units off, and not the likelier: all on
        True
    """
    forward_key, reverse_key = jax.random.split(key)
    shared = {"base_visible_bias": base_visible_bias, "n_temperatures": n_temperatures}
    lower = log_partition_ais(rbm, forward_key, n_chains=n_chains, **shared)
    upper = log_partition_reverse_ais(rbm, samples, reverse_key, **shared)
    gap, error = upper.value - lower.value, jnp.hypot(lower.standard_error, upper.standard_error)
    start = tempered_path(rbm, base_visible_bias).log_partition_base()
    size = jnp.abs(start) + jnp.maximum(jnp.abs(lower.value), jnp.abs(upper.value))
    rounding = 4 * jnp.finfo(size.dtype).eps * size
    return Bracket(lower, upper, gap, error, gap < -(_CROSSED_ERRORS * error + rounding))


def _anneal(path: TemperedPath, v, key: PRNGKey, n_temperatures: int, *, is_reverse: bool) -> Array:
    """Return the log weight of each chain along evenly spaced β, from 0 to 1 or back."""
    check_at_least("n_temperatures", n_temperatures, 2)
    last = n_temperatures - 1

    def beta(i):
        share = jnp.asarray(i, v.dtype) / last
        return 1 - share if is_reverse else share

    def move(i, carry):
        v, log_weights, lost = carry
        hidden_input = path.rbm.hidden_input(v)
        log_ratios = path.log_ratio(v, hidden_input, beta(i), beta(i + 1))
        # Thousands of small terms: what rounding takes from each sum is kept.
        log_weights, error = exact_sum(log_weights, log_ratios)
        v = path.step(v, hidden_input, beta(i + 1), jax.random.fold_in(key, i))
        return v, log_weights, lost + error

    zeros = jnp.zeros(v.shape[0], v.dtype)
    _, log_weights, lost = lax.fori_loop(0, last, move, (v, zeros, zeros))
    return log_weights + lost


def _estimate(log_weights: Array, log_partition_base: Array, sign: int) -> Estimate:
    """Return log Z₀ ± log mean w, with the delta method's standard error."""
    n = log_weights.shape[0]
    weights = jnp.exp(log_weights - jnp.max(log_weights))
    value = log_partition_base + sign * (jax.nn.logsumexp(log_weights) - jnp.log(float(n)))
    error = jnp.std(weights, ddof=1) / (jnp.mean(weights) * jnp.sqrt(float(n)))
    return Estimate(value, error, jnp.sum(weights) ** 2 / jnp.sum(weights**2))
