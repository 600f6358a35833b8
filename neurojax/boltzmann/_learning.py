"""Learning rules as objectives for `neurojax.training.fit`."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_nonnegative, check_rank, check_share
from .._precision import at_least_single, product
from .._terms import activity_divergence, is_zero
from .._trees import constant
from .._types import PRNGKey, Scalar
from ..training import AbstractGradientObjective, AbstractObjective
from ._checks import check_data, number, visible_array, visible_sample
from ._energy import free_energies
from ._models import AbstractRBM
from ._phases import AbstractNegativePhase, PersistentContrastiveDivergence

__all__ = ["CentredGradient", "CentredState", "ContrastiveObjective"]

Rows = Float[Array, "batch visible"]


class ContrastiveObjective(AbstractObjective):
    """The free energy of data above that of the machine's own samples.

    loss = mean F(data) − mean F(samples) + ½·weight_decay·Σ W² + sparsity·Σⱼ KL(target ‖ q̄ⱼ), q̄ the mean
    of p(h = 1 | v) over the batch. The samples are constants, so the gradient of the difference is
    ⟨∂E⟩_data − ⟨∂E⟩_samples with hidden probabilities in both phases: for exact samples that of −log p(data).
    The loss itself says little (it hovers about zero); watch a likelihood.

    Called as ``objective(rbm, state, batch, key)`` by ``fit``, with
    ``state=objective.init(rbm, n_chains, key)``.

    Attributes:
        negative_phase: where samples come from: `ContrastiveDivergence`, `PersistentContrastiveDivergence`
            (the default, one step) or `ParallelTempering`.
        weight_decay: of the weights alone, ≥ 0.
        sparsity: the penalty's strength, ≥ 0.
        sparsity_target: the mean activity that it pulls hidden units to, in [0, 1].

    Metrics: ``free_energy`` of the batch, ``hidden_activity`` (mean of q̄), and those of the negative phase.

    Reference:
        Hinton 2010, sections 3, 10 and 11; the free-energy form: Swersky et al. 2010.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, ContrastiveObjective
        >>> rbm = BernoulliRBM(jnp.zeros((6, 4)), jnp.zeros(6), jnp.zeros(4))
        >>> objective = ContrastiveObjective(weight_decay=1e-4)
        >>> chains = objective.init(rbm, 20, jax.random.key(0))  # for ``fit(..., state=chains)``
        >>> chains.hidden.shape
        (20, 4)
    """

    negative_phase: AbstractNegativePhase = PersistentContrastiveDivergence()
    weight_decay: Float[Array, ""] | float = eqx.field(default=0.0, converter=number("weight_decay"))
    sparsity: Float[Array, ""] | float = eqx.field(default=0.0, converter=number("sparsity"))
    sparsity_target: Float[Array, ""] | float = eqx.field(default=0.1, converter=number("sparsity_target"))

    def __check_init__(self):
        check_nonnegative("weight_decay", self.weight_decay)
        check_nonnegative("sparsity", self.sparsity)
        check_share("sparsity_target", self.sparsity_target)

    def init(self, rbm: AbstractRBM, n_chains: int, key: PRNGKey) -> Any:
        """Return the state to begin with: fresh chains, or ``None``."""
        return self.negative_phase.init(rbm, n_chains, key)

    def check_data(self, model: AbstractRBM, data: Any) -> None:
        """Raise ``ValueError`` for rows that are empty, not finite, of another size, or outside [0, 1].

        Real visible units take any finite number. Grey values are taken as probabilities of being on.
        """
        check_data("data", data, model, model.visible_limits)

    def __call__(
        self, model: AbstractRBM, state: Any, batch: Rows, key: PRNGKey
    ) -> tuple[Scalar, tuple[Any, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        batch = visible_array("data", model, batch).astype(model.weights.dtype)
        check_rank("data", batch, "batch visible")
        samples, state, metrics = self.negative_phase.draw(constant(model), state, batch, key)
        data_energy = jnp.mean(free_energies(model, batch))
        loss = data_energy - jnp.mean(free_energies(model, samples))
        hidden = at_least_single(jax.nn.sigmoid(model.hidden_input(batch)))
        if not is_zero(self.weight_decay):
            loss = loss + 0.5 * self.weight_decay * jnp.sum(at_least_single(model.weights) ** 2)
        if not is_zero(self.sparsity):
            loss = loss + self.sparsity * activity_divergence(self.sparsity_target, jnp.mean(hidden, axis=0))
        return loss, (state, {"free_energy": data_energy, "hidden_activity": jnp.mean(hidden), **metrics})


class CentredState(NamedTuple):
    """State of centered learning: the chains and the offsets.

    Attributes:
        chains: the state of the objective that is centred.
        visible_offset: μ, the sliding mean of the data.
        hidden_offset: λ, the sliding mean of the hidden probabilities given data.
    """

    chains: Any
    visible_offset: Float[Array, " visible"]
    hidden_offset: Float[Array, " hidden"]


class CentredGradient(AbstractGradientObjective):
    """The gradient of an objective in centred parameters, as an update of the machine's own.

    Binary units with E = −(v − μ)@W@(h − λ) − b'·v − c'·h are the same machine with b = b' − W λ and
    c = c' − μ@W (others likewise, s(μ) for μ). Descending in (W, b', c') at fixed offsets changes the plain
    parameters along g_W' = g_W − g_b λᵀ − s(μ) g_cᵀ, g_b' = g_b − g_W' λ and g_c' = g_c − s(μ)@g_W', g the
    plain gradient; for the contrastive objective −g_W' is
    ⟨s(v − μ)(h − λ)ᵀ⟩_data − ⟨s(v − μ)(h − λ)ᵀ⟩_samples. Learning no longer depends on which state of a
    unit is called 0. The offsets follow the data at ``offset_rate``. An adaptive optimiser rescales the
    gradient afterwards, and the rule is then no longer centred exactly.

    Attributes:
        objective: what is centred.
        offset_rate: of the sliding means, in [0, 1].

    Reference:
        Melchior, Fischer & Wiskott 2016, How to center deep Boltzmann machines, eqs. 7-13.
    """

    objective: ContrastiveObjective = ContrastiveObjective()
    offset_rate: Float[Array, ""] | float = eqx.field(default=0.01, converter=number("offset_rate"))

    def __check_init__(self):
        check_share("offset_rate", self.offset_rate)

    def init(
        self, rbm: AbstractRBM, n_chains: int, key: PRNGKey, *, data_mean: Float[ArrayLike, " visible"]
    ) -> CentredState:
        """Return fresh chains, offsets at the data's mean and the hidden units' probabilities there."""
        mean, single = visible_sample("data_mean", rbm, data_mean), at_least_single(rbm)
        mean = mean.astype(single.weights.dtype)
        hidden = jax.nn.sigmoid(single.hidden_input(mean))
        return CentredState(self.objective.init(rbm, n_chains, key), mean, hidden)

    def check_data(self, model: AbstractRBM, data: Any) -> None:
        """Raise ``ValueError`` as the objective does that is centred."""
        self.objective.check_data(model, data)

    def value_and_grad(
        self, model: AbstractRBM, state: CentredState, batch: Rows, key: PRNGKey
    ) -> tuple[tuple[Scalar, tuple[CentredState, dict[str, Array]]], AbstractRBM]:
        """Return ``((loss, (state, metrics)), gradient)``."""
        if not isinstance(state, CentredState):
            raise ValueError(
                "state: expected CentredState, from objective.init(rbm, n_chains, key, data_mean=...), "
                f"got {type(state).__name__}."
            )
        batch = visible_array("data", model, batch)
        output, gradient = eqx.filter_value_and_grad(self.objective, has_aux=True)(
            model, state.chains, batch, key
        )
        loss, (chains, metrics) = output
        # The offsets of a machine of half precision are float32: a sliding mean would come to rest in it.
        model, batch = at_least_single((model, batch.astype(model.weights.dtype)))
        gradient = centred(gradient, model.scaled(state.visible_offset), state.hidden_offset)
        rate = self.offset_rate
        hidden_mean = jnp.mean(jax.nn.sigmoid(model.hidden_input(batch)), axis=0)
        visible_offset = (1 - rate) * state.visible_offset + rate * jnp.mean(batch, axis=0)
        hidden_offset = (1 - rate) * state.hidden_offset + rate * hidden_mean
        return (loss, (CentredState(chains, visible_offset, hidden_offset), metrics)), gradient


def centred(gradient: AbstractRBM, visible_offset: Array, hidden_offset: Array) -> AbstractRBM:
    """Return the centred gradient of a plain one, for offsets s(μ) and λ."""
    plain, gradient = gradient, at_least_single(gradient)
    weights = (
        gradient.weights
        - jnp.outer(gradient.visible_bias, hidden_offset)
        - jnp.outer(visible_offset, gradient.hidden_bias)
    )
    visible_bias = gradient.visible_bias - product(weights, hidden_offset)
    hidden_bias = gradient.hidden_bias - product(visible_offset, weights)
    parts = (weights, visible_bias, hidden_bias)
    gradient = eqx.tree_at(lambda g: (g.weights, g.visible_bias, g.hidden_bias), gradient, parts)
    return jax.tree.map(lambda new, old: new.astype(old.dtype), gradient, plain)
