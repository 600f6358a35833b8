"""The way from a machine without weights to the machine itself, which tempering and annealing walk."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_finite, check_shape
from .._precision import at_least_single
from .._random import bernoulli
from .._types import PRNGKey, Scalar
from ._models import AbstractRBM

__all__ = ["TemperedPath", "tempered_path"]

Visible = Float[Array, "*batch visible"]
Hidden = Float[Array, "*batch hidden"]
Beta = Float[Array, "..."]


class TemperedPath(eqx.Module):
    """The machines with parameters β·weights, (1 − β)·base + β·visible_bias and β·hidden_bias, β in [0, 1].

    At β = 0 the visible units are independent. ``β`` broadcasts against the samples' leading axes, and the
    input of the hidden units at β = 1, which everything needs, is computed once and handed on.

    Attributes:
        rbm: the machine at β = 1.
        base_visible_bias: the visible bias at β = 0.

    Reference:
        Salakhutdinov & Murray 2008, On the quantitative analysis of deep belief networks, section 4.1.
    """

    rbm: AbstractRBM
    base_visible_bias: Float[Array, " visible"]

    def log_ratio(self, v: Visible, hidden_input: Hidden, start: Beta, end: Beta) -> Float[Array, "*batch"]:
        """Return F_start(v) − F_end(v), summed over the units' own differences.

        softplus(βx) = β·max(x, 0) + log(1 + exp(−β|x|)): the first part is linear in β, and the second at
        most log 2, so that nothing large cancels between two β that are close.
        """
        size = jnp.abs(hidden_input)
        bounded = [jnp.log1p(jnp.exp(-_times(beta, size))) for beta in (start, end)]
        hidden = _times(end - start, jax.nn.relu(hidden_input)) + (bounded[1] - bounded[0])
        energies = self.rbm.visible_energies
        visible = energies(v, self._bias(start)) - energies(v, self._bias(end))
        return jnp.sum(hidden, axis=-1) + jnp.sum(visible, axis=-1)

    def sample_hidden(self, hidden_input: Hidden, beta: Beta, key: PRNGKey) -> Hidden:
        """Draw h given the input that the visible units make at β = 1."""
        return bernoulli(key, jax.nn.sigmoid(_times(beta, hidden_input)))

    def sample_visible(self, h: Hidden, beta: Beta, key: PRNGKey) -> Visible:
        """Draw v given h."""
        change = self.rbm.visible_input(h) - self.base_visible_bias
        return self.rbm.sample_visible(self.base_visible_bias + _times(beta, change), key)

    def step(self, v: Visible, hidden_input: Hidden, beta: Beta, key: PRNGKey) -> Visible:
        """Take one Gibbs transition at β from v, whose hidden input (at β = 1) is given."""
        hidden_key, visible_key = jax.random.split(key)
        return self.sample_visible(self.sample_hidden(hidden_input, beta, hidden_key), beta, visible_key)

    def sample_base(self, key: PRNGKey, shape: tuple[int, ...]) -> Visible:
        """Draw independent samples at β = 0."""
        base = jnp.broadcast_to(self.base_visible_bias, (*shape, self.rbm.n_visible))
        return self.rbm.sample_visible(base, key)

    def log_partition_base(self) -> Scalar:
        """Return log Z at β = 0: that of the visible units, and log 2 for each hidden one."""
        base = eqx.tree_at(lambda rbm: rbm.visible_bias, self.rbm, self.base_visible_bias)
        return base.visible_log_partition(self.base_visible_bias) + self.rbm.n_hidden * jnp.log(2.0)

    def _bias(self, beta):
        return self.base_visible_bias + _times(beta, self.rbm.visible_bias - self.base_visible_bias)


def tempered_path(rbm: AbstractRBM, base_visible_bias: Float[ArrayLike, " visible"]) -> TemperedPath:
    """Return the way to a machine from a base; in float32 where the machine is of half precision.

    Raises:
        ValueError: for a base of another size, and a concrete one that is not finite.
    """
    rbm, base = at_least_single(rbm), real_array("base_visible_bias", base_visible_bias)
    check_shape("base_visible_bias", base, (rbm.n_visible,), "a number for each visible unit")
    check_finite("base_visible_bias", base)
    return TemperedPath(rbm, base.astype(rbm.weights.dtype))


def _times(beta, values):
    """Return β·values, β without the axis of units."""
    return jnp.asarray(beta, values.dtype)[..., None] * values
