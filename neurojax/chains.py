"""The sampling loop: one ``lax.scan`` over a Markov kernel, and diagnostics of what it draws.

A kernel is ``kernel(state, key) -> state``: pure, one chain, any pytree of arrays. Many chains are a ``vmap``
over states and keys, or `sample_chains`, which is just that.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from neurojax.chains import sample_chain, split_r_hat
    >>> def kernel(x, key):  # an autoregressive process with a standard normal as its limit
    ...     return 0.5 * x + jnp.sqrt(0.75) * jax.random.normal(key)
    >>> chain = sample_chain(kernel, jnp.zeros(()), jax.random.key(0), n_samples=4000, n_burn_in=50)
    >>> bool(abs(chain.samples.std() - 1) < 0.1)
    True
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, ArrayLike, Bool, Float

from ._arrays import native_leaves, real_array
from ._checks import check_at_least, check_positive
from ._precision import at_least_single
from ._rows import unit_of
from ._types import PRNGKey, Scalar
from .distributed import over_rows, shard_rows

__all__ = [
    "Chain",
    "autocorrelation",
    "autocorrelation_time",
    "effective_sample_size",
    "sample_chain",
    "sample_chains",
    "split_r_hat",
]

Kernel = Callable[[Any, Any], Any]

_MOST_TRANSITIONS = 2**31 - 1  # the number of a transition is an int32


class Chain(NamedTuple):
    """The result of a run of a chain.

    Attributes:
        samples: what was recorded, with a leading axis of ``n_samples`` (after that of the chains, if many).
        state: the last state: give it to the next run as its start, with a fresh key.
    """

    samples: Any
    state: Any


def sample_chain(
    kernel: Kernel,
    state: Any,
    key: PRNGKey,
    *,
    n_samples: int,
    n_burn_in: int = 0,
    thin: int = 1,
    record: Callable[[Any], Any] = lambda state: state,
    mesh: Mesh | None = None,
) -> Chain:
    """Run one Markov chain and record it.

    Transition i (from 0, burn-in included) uses ``jax.random.fold_in(key, i)``, so that thinning leaves the
    course of a chain as it is. Sample s is the state after n_burn_in + (s + 1)·thin transitions.

    To continue a chain, start from its ``state`` with a fresh key. A run with the same key begins again at
    i = 0 with the random numbers of the first, and keys split off from that key are those of its transitions:
    split before the first run.

    >>> first, second = jax.random.split(jax.random.key(0))
    >>> kernel = lambda x, key: 0.5 * x + jax.random.normal(key)
    >>> chain = sample_chain(kernel, jnp.zeros(()), first, n_samples=10)
    >>> chain = sample_chain(kernel, chain.state, second, n_samples=10)

    Args:
        kernel: ``kernel(state, key) -> state``.
        state: where to start: arrays of the form and dtypes that the kernel returns.
        key: a typed PRNG key.
        n_samples: how many states to record, ≥ 1.
        n_burn_in: transitions before the first that counts, ≥ 0.
        thin: transitions for each recorded state, ≥ 1; the last of them is recorded.
        record: what to keep of a state, for example a statistic; by default all of it.
        mesh: the devices over which the leading axis of the state's arrays is laid, where one state holds
            many chains, such as the rows of a batch. For chains of their own see `sample_chains`.

    Returns:
        The samples and the last state.

    Raises:
        ValueError: at trace time, for counts out of range, 2³¹ transitions or more, and for a state that does
            not divide over the mesh.
    """
    check_at_least("n_samples", n_samples, 1)
    check_at_least("n_burn_in", n_burn_in, 0)
    check_at_least("thin", thin, 1)
    n_samples, n_burn_in, thin = int(n_samples), int(n_burn_in), int(thin)
    if n_burn_in + n_samples * thin > _MOST_TRANSITIONS:
        raise ValueError(
            f"n_burn_in + n_samples·thin: expected at most {_MOST_TRANSITIONS} transitions in one run, got "
            f"{n_burn_in + n_samples * thin}. Continue from the last state with a fresh key."
        )

    state = native_leaves("state", state)
    if mesh is not None:
        state = shard_rows(state, mesh, name="state")

    def move(i, state):
        return kernel(state, jax.random.fold_in(key, i))

    def draw(state, i):
        first = n_burn_in + i * thin
        state = lax.fori_loop(0, thin, lambda j, s: move(first + j, s), state)
        return state, record(state)

    state = lax.fori_loop(0, n_burn_in, move, state)
    state, samples = lax.scan(draw, state, jnp.arange(n_samples))
    return Chain(samples, state)


def sample_chains(
    kernel: Kernel, states: Any, key: PRNGKey, *, mesh: Mesh | None = None, **settings
) -> Chain:
    """Run a chain from each of ``states``: ``vmap`` of `sample_chain`.

    Chain c has the key ``jax.random.split(key, n_chains)[c]``.

    Args:
        kernel: of one chain.
        states: where to start: a state whose arrays have a leading axis of the chains.
        key: a typed PRNG key, a fresh one to continue chains.
        mesh: the devices, as `neurojax.distributed.make_mesh` makes it: each runs its share of the chains,
            and nothing is moved between them. ``None``: that which ``jax.set_mesh`` has set, if any.
        **settings: as those of `sample_chain`; ``record`` is given the state of one chain.

    Returns:
        The samples (chains, samples, ...) and the last states.

    Raises:
        ValueError: at trace time, for states without a common leading axis, counts out of range, and chains
            that do not divide over the mesh.
    """
    states = native_leaves("states", states)
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(states)]
    if len({shape[:1] for shape in shapes}) != 1 or shapes[0] == ():
        raise ValueError(f"states: expected arrays with a leading axis of the chains, got shapes {shapes}.")
    keys = jax.random.split(key, shapes[0][0])
    run = jax.vmap(lambda state, key: sample_chain(kernel, state, key, **settings))
    return over_rows(run, mesh, name="states")(states, keys)


def autocorrelation(x: Float[ArrayLike, " samples"]) -> Float[Array, " samples"]:
    """Compute ρ_t = Σᵢ (xᵢ − x̄)(xᵢ₊ₜ − x̄) / Σᵢ (xᵢ − x̄)² for every lag t, by FFT; 0 for a constant series.

    Args:
        x: one chain of a scalar statistic, in any unit; half precision is computed in float32. A value that
            is not finite makes every ρ_t NaN.

    Raises:
        ValueError: at trace time, for another rank and without samples.
    """
    return _autocorrelation(_statistic(x, "samples"))


@jax.jit
def _autocorrelation(x: Float[Array, " samples"]) -> Float[Array, " samples"]:
    n = x.shape[0]
    moved = x - x[0]  # exactly 0 for a constant series, whose mean is not exactly its value
    moved = moved / unit_of(moved)
    spectrum = jnp.fft.rfft(moved - jnp.mean(moved), 2 * n)
    covariance = jnp.fft.irfft(spectrum.real**2 + spectrum.imag**2, 2 * n)[:n]
    is_constant = covariance[0] == 0
    return jnp.where(is_constant, 0, covariance / jnp.where(is_constant, 1, covariance[0]))


def autocorrelation_time(x: Float[ArrayLike, "chains samples"], *, window: float = 5.0) -> Scalar:
    """Estimate the integrated autocorrelation time τ = 1 + 2 Σ_{t ≥ 1} ρ_t, in samples.

    The sum runs to the first lag M ≥ ``window``·τ(M), ρ the mean over the chains that move: where the sum
    stops being signal. An estimate from fewer than some 50 τ samples is too low. Below 1, as for a chain that
    alternates, 1 is returned. A chain that never moves has no ρ and does not enter; `split_r_hat` is infinite
    where there is one. NaN if no chain moves or a value is not finite.

    Args:
        x: chains of a scalar statistic, each about its own mean: whether they agree, `split_r_hat` tells.
        window: the factor, > 0; larger has less bias and more noise.

    Raises:
        ValueError: at trace time, for another rank, without chains or samples, and a window out of range.

    Reference:
        Sokal 1997, section 3; the mean over chains: Foreman-Mackey et al. 2013.
    """
    x = _statistic(x, "chains samples")
    check_positive("window", window)
    return _autocorrelation_time(x, window)


@jax.jit
def _autocorrelation_time(x: Float[Array, "chains samples"], window: ArrayLike) -> Scalar:
    total = jnp.sum(jax.vmap(_autocorrelation)(x), axis=0)
    rho = total / total[0]  # ρ_0 is 1 for a chain that moves and 0 for one that does not
    times = 2 * jnp.cumsum(rho) - rho[0]
    # There is always such a lag: about the mean of the series itself, τ of the last lag is 0.
    last = jnp.argmax(jnp.arange(x.shape[1]) >= window * times)
    return jnp.maximum(times[last], 1)


def effective_sample_size(x: Float[ArrayLike, "chains samples"]) -> Scalar:
    """Return moving chains·samples/τ: how many independent draws would estimate the mean as well.

    Holds for chains that have mixed (`split_r_hat`). A chain that never moves counts for nothing; NaN where
    `autocorrelation_time` is, as where no chain moves.
    """
    x = _statistic(x, "chains samples")
    n_moving = jnp.sum(~_is_stuck(x), dtype=x.dtype)
    return n_moving * x.shape[1] / autocorrelation_time(x)


def split_r_hat(x: Float[ArrayLike, "chains samples"]) -> Scalar:
    """Compute split R̂ = √(((n − 1)/n·W + B/n)/W): near 1 where chains, cut in halves, agree.

    W is the mean of the variances within the 2·chains halves of n samples, B/n the variance between their
    means. Run longer while it is above 1.1 (Gelman et al.) or, more strictly, 1.01 (Vehtari et al.).

    Where one chain never moves and another does, it is infinite, although the formula may be near 1: such
    chains do not agree in their spread, and a chain that stands still has drawn once. If no chain moves, it
    is infinite for chains at different values and NaN for chains at one value, which tell nothing.

    Args:
        x: chains of a scalar statistic, at least 4 samples each; of an odd number the first is left out.

    Reference:
        Gelman et al. 2013, Bayesian Data Analysis, section 11.4; Vehtari et al. 2021, Bayesian Analysis 16.
    """
    x = _statistic(x, "chains samples")
    if x.shape[1] < 4:
        raise ValueError(f"x: expected at least 4 samples a chain, got shape {x.shape}.")
    return _split_r_hat(x)


@jax.jit
def _split_r_hat(x: Float[Array, "chains samples"]) -> Scalar:
    n = x.shape[1] // 2
    halves = x[:, x.shape[1] - 2 * n :].reshape(-1, n)
    start = halves[:, :1]
    unit = unit_of(x - start[0])
    moved = (halves - start) / unit  # so that a half that never moves has no variance by rounding
    within = jnp.mean(jnp.var(moved, axis=1, ddof=1))
    between = jnp.var((start[:, 0] - start[0, 0]) / unit + jnp.mean(moved, axis=1), ddof=1)
    r_hat = jnp.sqrt((n - 1) / n + between / within)
    is_stuck = _is_stuck(x)
    is_apart = jnp.any(is_stuck) & ~jnp.all(is_stuck) & ~jnp.isnan(r_hat)
    return jnp.where(is_apart, jnp.inf, r_hat)


def _statistic(x, axes: str) -> Array:
    """Return chains of a statistic in float32 at least, or raise ``ValueError``."""
    x = at_least_single(real_array("x", x, axes))
    if not x.size:
        raise ValueError(f"x: expected at least one of {axes.replace(' ', ' and of ')}, got shape {x.shape}.")
    return x


def _is_stuck(x: Float[Array, "chains samples"]) -> Bool[Array, " chains"]:
    """Return which chains never move; NaN does."""
    return jnp.all(x == x[:, :1], axis=1)
