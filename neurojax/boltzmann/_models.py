"""Machines of binary hidden units, and of visible units that are binary, Gaussian or categorical."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .._arrays import real_array
from .._checks import check_at_least, check_positive, check_shape, is_concrete
from .._precision import at_least_single, product
from .._random import bernoulli
from .._types import PRNGKey
from ._checks import check_data, visible_array

__all__ = ["AbstractRBM", "BernoulliRBM", "GaussianBernoulliRBM", "PottsRBM"]

Visible = Float[Array, "*batch visible"]
Hidden = Float[Array, "*batch hidden"]


class AbstractRBM(eqx.Module):
    """An energy over visible units v and binary hidden units h, with no connection within a side.

    E(v, h) = Σᵢ Aᵢ(vᵢ) − h·(hidden_bias + s(v) @ weights), A the energies of the visible units alone and
    s(v) = v or, for Gaussian units, v/variance. Sampling, learning and evaluation know a machine by what is
    declared here, for any leading axes: another kind of visible unit is another subclass.
    """

    weights: eqx.AbstractVar[Float[Array, "visible hidden"]]
    visible_bias: eqx.AbstractVar[Float[Array, " visible"]]
    hidden_bias: eqx.AbstractVar[Float[Array, " hidden"]]
    is_binary: eqx.AbstractClassVar[bool]
    visible_limits: eqx.AbstractClassVar[tuple[float, float] | None]

    @property
    def n_visible(self) -> int:
        """The number of visible units."""
        return self.weights.shape[0]

    @property
    def n_hidden(self) -> int:
        """The number of hidden units."""
        return self.weights.shape[1]

    def hidden_input(self, v: Visible) -> Hidden:
        """Return hidden_bias + s(v) @ weights, the log-odds of the hidden units given v."""
        return self.hidden_bias + product(self.scaled(visible_array("v", self, v)), self.weights)

    def visible_input(self, h: Hidden) -> Visible:
        """Return visible_bias + h @ weightsᵀ, which fixes the visible units' distribution given h."""
        h = real_array("h", h)
        if h.ndim == 0 or h.shape[-1] != self.n_hidden:
            raise ValueError(
                f"h: expected {self.n_hidden} numbers, one for each hidden unit, got shape {h.shape}."
            )
        return self.visible_bias + product(h, self.weights.T)

    @abstractmethod
    def scaled(self, v: Visible) -> Visible:
        """Return s(v), the visible units as the weights see them."""

    @abstractmethod
    def visible_energies(self, v: Visible, bias: Visible) -> Visible:
        """Return A of each visible unit, were ``bias`` the visible bias."""

    @abstractmethod
    def is_state(self, v: Visible) -> Bool[Array, "*batch visible"]:
        """Return which numbers can be part of a state: all of them, or v is none."""

    @abstractmethod
    def visible_mean(self, visible_input: Visible) -> Visible:
        """Return E[v] at an input."""

    @abstractmethod
    def sample_visible(self, visible_input: Visible, key: PRNGKey) -> Visible:
        """Draw v at an input."""

    @abstractmethod
    def visible_log_partition(self, visible_input: Visible) -> Float[Array, "*batch"]:
        """Return log Σ_v exp(−Σᵢ Aᵢ(vᵢ) + s(v)·(visible_input − visible_bias)); an integral over real v."""

    @abstractmethod
    def base_visible_bias(
        self, data: Float[ArrayLike, "samples visible"], pseudo_count: float = 1.0
    ) -> Float[Array, " visible"]:
        """Return the visible bias of the machine without weights that fits ``data`` best: the base rate.

        Args:
            data: rows.
            pseudo_count: of each value of a unit added to what was counted, so that a unit that is constant
                in the data has a finite bias.
        """


def _initialise(rbm: AbstractRBM, weights, visible_bias, hidden_bias) -> None:
    """Set the arrays, and check that they fit each other."""
    for name, value, axes in (
        ("weights", weights, "visible hidden"),
        ("visible_bias", visible_bias, "visible"),
        ("hidden_bias", hidden_bias, "hidden"),
    ):
        setattr(rbm, name, real_array(name, value, axes))
    n_visible, n_hidden = rbm.weights.shape
    if not n_visible or not n_hidden:
        raise ValueError(f"weights: expected at least one unit on each side, got shape {rbm.weights.shape}.")
    check_shape("visible_bias", rbm.visible_bias, (n_visible,), "a number for each row of weights")
    check_shape("hidden_bias", rbm.hidden_bias, (n_hidden,), "a number for each column of weights")


def _small_weights(key, n_visible: int, n_hidden: int, dtype, scale: float):
    check_at_least("n_hidden", n_hidden, 1)
    check_positive("scale", scale)
    return scale * jax.random.normal(key, (n_visible, n_hidden), dtype)


class _AbstractDiscreteRBM(AbstractRBM):
    """Visible units that are 0 or 1, each with an energy −biasᵢvᵢ."""

    visible_limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def scaled(self, v):
        """Return v."""
        return v

    def visible_energies(self, v, bias):
        """Return −biasᵢvᵢ."""
        return -bias * v


class BernoulliRBM(_AbstractDiscreteRBM):
    """Binary visible units: E(v, h) = −v @ weights @ h − visible_bias·v − hidden_bias·h, v and h in {0, 1}.

    Attributes:
        weights: a column holds the filter of a hidden unit.
        visible_bias: log-odds of the visible units where no hidden unit is on.
        hidden_bias: log-odds of the hidden units where no visible unit is on.

    Raises:
        ValueError: at construction, for sizes that do not fit and numbers that are not real.

    Reference:
        Smolensky 1986; Hinton 2010, A practical guide to training RBMs, eqs. 1, 7 and 8.
    """

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    is_binary: ClassVar[bool] = True

    def __init__(
        self,
        weights: Float[ArrayLike, "visible hidden"],
        visible_bias: Float[ArrayLike, " visible"],
        hidden_bias: Float[ArrayLike, " hidden"],
    ):
        _initialise(self, weights, visible_bias, hidden_bias)

    @classmethod
    def from_data(
        cls, data: Float[ArrayLike, "samples visible"], n_hidden: int, key: PRNGKey, *, scale: float = 0.01
    ) -> "BernoulliRBM":
        """Return a machine at the data's base rate: weights scale·N(0, 1), hidden biases 0.

        Args:
            data: rows in [0, 1].
            n_hidden: the number of hidden units.
            key: a typed PRNG key.
            scale: standard deviation of the weights, > 0.

        Reference: Hinton 2010, section 8.
        """
        data = check_data("data", data)
        weights = _small_weights(key, data.shape[1], n_hidden, data.dtype, scale)
        rbm = cls(weights, jnp.zeros_like(weights[:, 0]), jnp.zeros_like(weights[0]))
        return cls(weights, rbm.base_visible_bias(data), rbm.hidden_bias)

    def is_state(self, v):
        """Return which units are 0 or 1."""
        return (v == 0) | (v == 1)

    def visible_mean(self, visible_input):
        """Return σ(input)."""
        return jax.nn.sigmoid(visible_input)

    def sample_visible(self, visible_input, key):
        """Draw 0 or 1, 1 with probability σ(input)."""
        return bernoulli(key, jax.nn.sigmoid(visible_input))

    def visible_log_partition(self, visible_input):
        """Return Σᵢ log(1 + exp(inputᵢ))."""
        return jnp.sum(jax.nn.softplus(visible_input), axis=-1)

    def base_visible_bias(self, data, pseudo_count=1.0):
        """Return the log-odds of the units' means, (Σ v + pseudo_count)/(n + 2·pseudo_count)."""
        data = check_data("data", data, self, self.visible_limits)
        check_positive("pseudo_count", pseudo_count)
        on = jnp.sum(at_least_single(data), axis=0) + pseudo_count
        return (jnp.log(on) - jnp.log(data.shape[0] + 2 * pseudo_count - on)).astype(data.dtype)


class GaussianBernoulliRBM(AbstractRBM):
    """Real visible units: E(v, h) = Σᵢ (vᵢ − bᵢ)²/(2σᵢ²) − Σᵢⱼ (vᵢ/σᵢ²) Wᵢⱼ hⱼ − c·h, h in {0, 1}.

    Given h, vᵢ is normal with mean bᵢ + (W h)ᵢ and variance σᵢ², which is learned within fixed bounds:
    σ² = low + (high − low)·sigmoid(variance_logit). Without a lower bound learning can drive a variance to
    zero and the energy to −∞.

    Attributes:
        weights: a column holds the filter of a hidden unit, in the unit of v.
        visible_bias: b, the mean where no hidden unit is on.
        hidden_bias: c.
        variance_logit: what is learned of the variances.
        variance_bounds: (low, high), in the unit of v squared.

    Args:
        variance: σ², a number or one for each visible unit, within the bounds.

    Raises:
        ValueError: at construction, for sizes that do not fit, and a variance outside its bounds.

    Reference:
        Cho, Ilin & Raiko 2011, Improved learning of Gaussian-Bernoulli restricted Boltzmann machines, eq. 3.
    """

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    variance_logit: Float[Array, " visible"]
    variance_bounds: tuple[float, float] = eqx.field(static=True)
    is_binary: ClassVar[bool] = False
    visible_limits: ClassVar[tuple[float, float] | None] = None

    def __init__(
        self,
        weights: Float[ArrayLike, "visible hidden"],
        visible_bias: Float[ArrayLike, " visible"],
        hidden_bias: Float[ArrayLike, " hidden"],
        variance: Float[ArrayLike, "..."] = 1.0,
        *,
        variance_bounds: tuple[float, float] = (1e-2, 1e2),
    ):
        _initialise(self, weights, visible_bias, hidden_bias)
        low, high = variance_bounds
        if not 0 < low < high < np.inf:
            raise ValueError(f"variance_bounds: expected 0 < low < high, got {variance_bounds}.")
        variance = at_least_single(real_array("variance", variance))
        if variance.ndim:
            check_shape(
                "variance", variance, self.visible_bias.shape, "a number or one for each visible unit"
            )
        if is_concrete(variance) and not np.all((np.asarray(variance) > low) & (np.asarray(variance) < high)):
            raise ValueError(f"variance: expected numbers inside {variance_bounds} (variance_bounds).")
        logit = jnp.log(variance - low) - jnp.log(high - variance)
        self.variance_logit = jnp.broadcast_to(logit.astype(self.weights.dtype), self.visible_bias.shape)
        self.variance_bounds = (float(low), float(high))

    @classmethod
    def from_data(
        cls,
        data: Float[ArrayLike, "samples visible"],
        n_hidden: int,
        key: PRNGKey,
        *,
        scale: float = 0.01,
        variance_bounds: tuple[float, float] = (1e-2, 1e2),
    ) -> "GaussianBernoulliRBM":
        """Return a machine with the data's means and variances (held inside the bounds), weights small."""
        data = check_data("data", data)
        weights = _small_weights(key, data.shape[1], n_hidden, data.dtype, scale)
        low, high = variance_bounds
        rows = at_least_single(data)
        variance = jnp.clip(jnp.var(rows, axis=0), 1.01 * low, 0.99 * high)
        bias = jnp.mean(rows, axis=0).astype(data.dtype)
        return cls(weights, bias, jnp.zeros_like(weights[0]), variance, variance_bounds=variance_bounds)

    @property
    def variance(self) -> Float[Array, " visible"]:
        """σ² of each visible unit given the hidden ones."""
        low, high = self.variance_bounds
        return low + (high - low) * jax.nn.sigmoid(self.variance_logit)

    def scaled(self, v):
        """Return v/σ²."""
        return v / self.variance

    def visible_energies(self, v, bias):
        """Return (vᵢ − biasᵢ)²/(2σᵢ²)."""
        return 0.5 * (v - bias) ** 2 / self.variance

    def is_state(self, v):
        """Return which units are finite."""
        return jnp.isfinite(v)

    def visible_mean(self, visible_input):
        """Return the input."""
        return visible_input

    def sample_visible(self, visible_input, key):
        """Draw from N(input, σ²)."""
        noise = jax.random.normal(key, visible_input.shape, visible_input.dtype)
        return visible_input + jnp.sqrt(self.variance) * noise

    def visible_log_partition(self, visible_input):
        """Return Σᵢ (inputᵢ² − bᵢ²)/(2σᵢ²) + ½ log(2πσᵢ²)."""
        gain = 0.5 * (visible_input**2 - self.visible_bias**2) / self.variance
        return jnp.sum(gain + 0.5 * jnp.log(2 * jnp.pi * self.variance), axis=-1)

    def base_visible_bias(self, data, pseudo_count=1.0):
        """Return the units' means; ``pseudo_count`` has no part in it."""
        del pseudo_count
        data = check_data("data", data, self)
        return jnp.mean(at_least_single(data), axis=0).astype(data.dtype)


class PottsRBM(_AbstractDiscreteRBM):
    """Categorical visible units: E(v, h) = −v @ weights @ h − visible_bias·v − hidden_bias·h, h in {0, 1}.

    v holds one group of ``n_states`` numbers for each site, 1 at the site's state and 0 elsewhere (a softmax
    unit; of two states: a spin).

    Attributes:
        weights: n_sites·n_states rows; a column holds the filter of a hidden unit.
        visible_bias: one for each state of each site.
        hidden_bias: one for each hidden unit.
        n_states: of a site, ≥ 2.

    Raises:
        ValueError: at construction, for sizes that do not fit.

    Reference:
        Salakhutdinov, Mnih & Hinton 2007, RBMs for collaborative filtering, eqs. 1-3.
    """

    weights: Float[Array, "visible hidden"]
    visible_bias: Float[Array, " visible"]
    hidden_bias: Float[Array, " hidden"]
    n_states: int = eqx.field(static=True)
    is_binary: ClassVar[bool] = False

    def __init__(
        self,
        weights: Float[ArrayLike, "visible hidden"],
        visible_bias: Float[ArrayLike, " visible"],
        hidden_bias: Float[ArrayLike, " hidden"],
        n_states: int,
    ):
        _initialise(self, weights, visible_bias, hidden_bias)
        check_at_least("n_states", n_states, 2)
        if self.n_visible % n_states:
            raise ValueError(
                f"weights: expected a multiple of {n_states} rows (n_states), got shape {self.weights.shape}."
            )
        self.n_states = int(n_states)

    @classmethod
    def from_data(
        cls,
        data: Float[ArrayLike, "samples visible"],
        n_hidden: int,
        key: PRNGKey,
        *,
        n_states: int,
        scale: float = 0.01,
    ) -> "PottsRBM":
        """Return a machine at the data's base rate: weights scale·N(0, 1), hidden biases 0."""
        data = check_data("data", data)
        weights = _small_weights(key, data.shape[1], n_hidden, data.dtype, scale)
        rbm = cls(weights, jnp.zeros_like(weights[:, 0]), jnp.zeros_like(weights[0]), n_states)
        return cls(weights, rbm.base_visible_bias(data), rbm.hidden_bias, n_states)

    def is_state(self, v):
        """Return which units are 0 or 1 and belong to a site with exactly one 1."""
        is_chosen = jnp.sum(self.sites(v), axis=-1) == 1
        return ((v == 0) | (v == 1)) & jnp.repeat(is_chosen, self.n_states, axis=-1)

    def visible_mean(self, visible_input):
        """Return the softmax of each site's inputs."""
        return jax.nn.softmax(self.sites(visible_input), axis=-1).reshape(visible_input.shape)

    def sample_visible(self, visible_input, key):
        """Draw one state a site, with the probabilities of `visible_mean`."""
        states = jax.random.categorical(key, self.sites(visible_input))
        return jax.nn.one_hot(states, self.n_states, dtype=visible_input.dtype).reshape(visible_input.shape)

    def visible_log_partition(self, visible_input):
        """Return the sum over sites of log Σ exp(input)."""
        return jnp.sum(jax.nn.logsumexp(self.sites(visible_input), axis=-1), axis=-1)

    def base_visible_bias(self, data, pseudo_count=1.0):
        """Return the logarithms of the states' frequencies at each site."""
        data = check_data("data", data, self, self.visible_limits)
        check_positive("pseudo_count", pseudo_count)
        counts = jnp.sum(at_least_single(data), axis=0) + pseudo_count
        return (jnp.log(counts) - jnp.log(data.shape[0] + self.n_states * pseudo_count)).astype(data.dtype)

    def sites(self, v: Visible) -> Float[Array, "*batch sites states"]:
        """Return v with an axis of sites and one of states."""
        return v.reshape(*v.shape[:-1], -1, self.n_states)
