"""The negative phase of learning: where the samples of the machine itself come from."""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from .._checks import check_at_least
from .._random import bernoulli
from .._types import PRNGKey, Scalar
from ._checks import real_converter
from ._models import AbstractRBM
from ._path import TemperedPath, tempered_path

__all__ = [
    "AbstractNegativePhase",
    "ContrastiveDivergence",
    "ParallelTempering",
    "PersistentChains",
    "PersistentContrastiveDivergence",
    "Replicas",
]

Rows = Float[Array, "batch visible"]


class AbstractNegativePhase(eqx.Module):
    """Draws visible samples from (about) the machine's distribution, and carries its chains along."""

    @abstractmethod
    def init(self, rbm: AbstractRBM, n_chains: int, key: PRNGKey) -> Any:
        """Return fresh chains: the state to give to ``fit``."""

    @abstractmethod
    def draw(
        self, rbm: AbstractRBM, state: Any, batch: Rows, key: PRNGKey
    ) -> tuple[Float[Array, "chains visible"], Any, dict[str, Array]]:
        """Return the samples, the chains after drawing them, and metrics."""


class ContrastiveDivergence(AbstractNegativePhase):
    """CD-k: ``n_steps`` Gibbs transitions from the data of the batch; no state.

    The samples stay near the data, so modes far from any datum are never found: a machine trained by CD can
    put most of its probability there.

    Attributes:
        n_steps: k, ≥ 1.

    Reference:
        Hinton 2002, Training products of experts by minimizing contrastive divergence.
    """

    n_steps: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        check_at_least("n_steps", self.n_steps, 1)

    def init(self, rbm, n_chains, key):
        """Return ``None``: there are no chains to keep."""
        return None

    def draw(self, rbm, state, batch, key):
        """Return k transitions from the batch."""
        if state is not None:
            raise ValueError(f"state: expected None, CD keeps no chains, got {type(state).__name__}.")

        def move(i, v):
            hidden_key, visible_key = jax.random.split(jax.random.fold_in(key, i))
            h = bernoulli(hidden_key, jax.nn.sigmoid(rbm.hidden_input(v)))
            return rbm.sample_visible(rbm.visible_input(h), visible_key)

        return _repeat(self.n_steps, move, batch), state, {}


class PersistentChains(NamedTuple):
    """The chains of PCD, at their hidden units (from which the next transition starts)."""

    hidden: Float[Array, "chains hidden"]


class PersistentContrastiveDivergence(AbstractNegativePhase):
    """PCD-k: chains that go on from update to update, ``n_steps`` Gibbs transitions each.

    A transition draws v given h, then h given v: one product less than the other way round. Pass
    ``state=objective.init(rbm, n_chains, key)`` to ``fit``.

    Attributes:
        n_steps: k, ≥ 1.

    Reference:
        Tieleman 2008, Training restricted Boltzmann machines using approximations to the likelihood gradient.
    """

    n_steps: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        check_at_least("n_steps", self.n_steps, 1)

    def init(self, rbm, n_chains, key):
        """Return chains at fair coins."""
        check_at_least("n_chains", n_chains, 1)
        half = jnp.full((n_chains, rbm.n_hidden), 0.5, rbm.weights.dtype)
        return PersistentChains(bernoulli(key, half))

    def draw(self, rbm, state, batch, key):
        """Return the chains' visible units after k transitions."""
        _check_chains(state, PersistentChains, (rbm.n_hidden,))
        v = jnp.zeros((state.hidden.shape[0], rbm.n_visible), rbm.weights.dtype)

        def move(i, carry):
            visible_key, hidden_key = jax.random.split(jax.random.fold_in(key, i))
            v = rbm.sample_visible(rbm.visible_input(carry[1]), visible_key)
            return v, bernoulli(hidden_key, jax.nn.sigmoid(rbm.hidden_input(v)))

        v, hidden = _repeat(self.n_steps, move, (v, state.hidden))
        return v, PersistentChains(hidden), {}


class Replicas(NamedTuple):
    """The chains of parallel tempering: one set at each temperature, β = 0 first, β = 1 last."""

    hidden: Float[Array, "temperatures chains hidden"]
    n_sweeps: Int[Array, ""]


class ParallelTempering(AbstractNegativePhase):
    """Chains at β from 0 (independent units) to 1 (the machine), with exchanges between neighbours.

    A sweep is a Gibbs transition at every β, then exchanges of v between neighbours k, k + 1 (even k and
    odd k by turns), accepted with probability min(1, exp(F_k(v_k) + F_k+1(v_k+1) − F_k(v_k+1) − F_k+1(v_k))).
    The chains at β = 1 are the samples. It costs n_temperatures times PCD, and crosses between modes.

    Attributes:
        base_visible_bias: the visible bias at β = 0; that of the data (``rbm.base_visible_bias(data)``).
        n_temperatures: ≥ 2; evenly spaced.
        n_steps: sweeps an update, ≥ 1.

    Metrics: ``exchanged``, the share of proposed exchanges that were accepted in the last sweep.

    Reference:
        Desjardins et al. 2010, Tempered Markov chain Monte Carlo for training of RBMs.
    """

    base_visible_bias: Float[ArrayLike, " visible"] = eqx.field(
        converter=real_converter("base_visible_bias", "visible")
    )
    n_temperatures: int = eqx.field(default=10, static=True)
    n_steps: int = eqx.field(default=1, static=True)

    def __check_init__(self):
        check_at_least("n_temperatures", self.n_temperatures, 2)
        check_at_least("n_steps", self.n_steps, 1)

    def init(self, rbm, n_chains, key):
        """Return replicas at fair coins."""
        check_at_least("n_chains", n_chains, 1)
        half = jnp.full((self.n_temperatures, n_chains, rbm.n_hidden), 0.5, rbm.weights.dtype)
        return Replicas(bernoulli(key, half), jnp.int32(0))

    def draw(self, rbm, state, batch, key):
        """Return the visible units at β = 1 after the sweeps."""
        _check_chains(state, Replicas, (self.n_temperatures, rbm.n_hidden))
        path = tempered_path(rbm, self.base_visible_bias)
        dtype = path.rbm.weights.dtype
        beta = jnp.linspace(0, 1, self.n_temperatures, dtype=dtype)[:, None]
        v = jnp.zeros((*state.hidden.shape[:2], rbm.n_visible), dtype)

        def move(i, carry):
            _, replicas, _ = carry
            keys = jax.random.split(jax.random.fold_in(key, i), 3)
            v = path.sample_visible(replicas.hidden, beta, keys[0])
            v, hidden_input, exchanged = _exchange(path, v, beta, replicas.n_sweeps, keys[1])
            hidden = path.sample_hidden(hidden_input, beta, keys[2]).astype(state.hidden.dtype)
            return v, Replicas(hidden, replicas.n_sweeps + 1), exchanged

        v, state, exchanged = _repeat(self.n_steps, move, (v, state, jnp.zeros((), v.dtype)))
        return v[-1].astype(rbm.weights.dtype), state, {"exchanged": exchanged}


def _exchange(path: TemperedPath, v, beta, n_sweeps, key) -> tuple[Array, Array, Scalar]:
    """Exchange samples of neighbouring temperatures; return them, their hidden inputs and the share taken."""
    n_temperatures, n_chains = v.shape[:2]
    hidden_input = path.rbm.hidden_input(v)
    # F_k(v_k) − F_k+1(v_k), and the same of v_k+1.
    down = path.log_ratio(v[:-1], hidden_input[:-1], beta[:-1], beta[1:])
    up = path.log_ratio(v[1:], hidden_input[1:], beta[:-1], beta[1:])
    is_turn = (jnp.arange(n_temperatures - 1)[:, None] + n_sweeps) % 2 == 0
    threshold = jnp.log(jax.random.uniform(key, (n_temperatures - 1, n_chains), v.dtype))
    is_taken = is_turn & (threshold < down - up)
    no = jnp.zeros((1, n_chains), bool)
    from_above, from_below = jnp.concatenate([is_taken, no]), jnp.concatenate([no, is_taken])

    def exchange(values):
        above, below = jnp.roll(values, -1, axis=0), jnp.roll(values, 1, axis=0)
        return jnp.where(from_above[..., None], above, jnp.where(from_below[..., None], below, values))

    share = jnp.sum(is_taken, dtype=v.dtype) / jnp.maximum(jnp.sum(is_turn) * n_chains, 1)
    return exchange(v), exchange(hidden_input), share


def _repeat(n_steps: int, move, carry):
    # One step is written out, so that the compiler can share its products with the loss.
    return move(0, carry) if n_steps == 1 else lax.fori_loop(0, n_steps, move, carry)


def _check_chains(state, kind: type, sizes: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless ``state`` holds chains of the kind, of ``sizes`` but for their number."""
    is_kind = isinstance(state, kind)
    came = state.hidden.shape if is_kind else type(state).__name__
    if not is_kind or state.hidden.ndim != len(sizes) + 1 or (*came[:-2], came[-1]) != sizes:
        raise ValueError(
            f"state: expected {kind.__name__} from objective.init(rbm, n_chains, key), of sizes {sizes} "
            f"beside the number of chains, got {came}."
        )
