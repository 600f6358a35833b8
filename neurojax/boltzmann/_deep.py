"""Deep belief networks: machines stacked greedily, each on the hidden units of the one below."""

from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import check_at_least, check_size
from .._random import bernoulli
from .._types import PRNGKey
from ..training import Checkpoint, fit
from ._checks import check_data, truth_array, visible_sample
from ._energy import hidden_probabilities
from ._labels import clamped_gibbs_step
from ._learning import ContrastiveObjective
from ._models import AbstractRBM, BernoulliRBM

__all__ = ["DeepBeliefNetwork", "fit_deep_belief_network"]


class DeepBeliefNetwork(eqx.Module):
    """Machines in a stack: the top one is a prior over its visible units, those below generate downwards.

    p(v, h₁, …) = p(v | h₁) ⋯ p(hₙ₋₂ | hₙ₋₁) p(hₙ₋₁, hₙ), the last factor that of the top machine.

    Attributes:
        machines: from the data upwards; the visible units of each are the hidden ones of that below. The
            top one may have more (labels), behind them.

    Raises:
        ValueError: at construction, for sizes that do not fit.

    Reference:
        Hinton, Osindero & Teh 2006, A fast learning algorithm for deep belief nets.
    """

    machines: tuple[AbstractRBM, ...]

    def __check_init__(self):
        check_at_least("number of machines", len(self.machines), 1)
        for i, (below, above) in enumerate(zip(self.machines, self.machines[1:], strict=False)):
            is_top = i + 2 == len(self.machines)
            if above.n_visible < below.n_hidden or (above.n_visible > below.n_hidden and not is_top):
                raise ValueError(
                    f"machines: expected {below.n_hidden} visible units in machine {i + 1}, the hidden ones "
                    f"of machine {i}, got {above.n_visible}."
                )

    @property
    def n_labels(self) -> int:
        """The number of visible units of the top machine that are not hidden units of the one below."""
        *below, top = self.machines
        return top.n_visible - below[-1].n_hidden if below else 0

    def features(self, v: Float[ArrayLike, " visible"]) -> Float[Array, " top_visible"]:
        """Compute what the top machine sees of a datum: probabilities, passed upwards, without labels."""
        v = visible_sample("v", self.machines[0], v)
        for machine in self.machines[:-1]:
            v = hidden_probabilities(machine, v)
        return v

    def generate(
        self, top_visible: Float[ArrayLike, " top_visible"], key: PRNGKey
    ) -> Float[Array, " visible"]:
        """Draw downwards from the top machine's visible units; at the lowest layer return probabilities."""
        below = self.machines[:-1]
        top_visible = visible_sample("top_visible", self.machines[-1], top_visible)
        value = top_visible[: below[-1].n_hidden] if below else top_visible
        for i, machine in reversed(list(enumerate(below))):
            mean = machine.visible_mean(machine.visible_input(value))
            value = mean if i == 0 else bernoulli(jax.random.fold_in(key, i), mean)
        return value

    def sample(
        self,
        key: PRNGKey,
        *,
        n_steps: int,
        init: Float[ArrayLike, " top_visible"] | None = None,
        is_clamped: Bool[ArrayLike, " top_visible"] | None = None,
    ) -> Float[Array, " visible"]:
        """Draw one sample: ``n_steps`` Gibbs transitions of the top machine, then downwards.

        Args:
            key: a typed PRNG key.
            n_steps: ≥ 1; the top machine mixes as slowly as any.
            init: where it starts, labels behind; ``None``: fair coins.
            is_clamped: units of the top machine that are held at ``init``, such as labels.
        """
        check_at_least("n_steps", n_steps, 1)
        top = self.machines[-1]
        start_key, chain_key, down_key = jax.random.split(key, 3)
        if init is None:
            init = bernoulli(start_key, jnp.full(top.n_visible, 0.5, top.weights.dtype))
        init = visible_sample("init", top, init).astype(top.weights.dtype)
        held = jnp.zeros(top.n_visible, bool) if is_clamped is None else is_clamped
        held = truth_array("is_clamped", held, top.n_visible)

        def move(i, v):
            return clamped_gibbs_step(top, v, held, jax.random.fold_in(chain_key, i))

        return self.generate(lax.fori_loop(0, n_steps, move, init), down_key)


def fit_deep_belief_network(
    data: Float[ArrayLike, "samples visible"],
    n_hidden: Sequence[int],
    *,
    optimizer: optax.GradientTransformation,
    n_steps: int,
    batch_size: int,
    key: PRNGKey,
    objective: ContrastiveObjective | None = None,
    labels: Float[ArrayLike, "samples classes"] | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 1000,
    progress: bool | None = None,
) -> DeepBeliefNetwork:
    """Train a deep belief network greedily: one machine after the other, on the probabilities of that below.

    Args:
        data: rows in [0, 1].
        n_hidden: hidden units of each machine, from the data upwards.
        optimizer: for every machine.
        n_steps: updates of each machine.
        batch_size: rows an update; PCD has as many chains.
        key: a typed PRNG key.
        objective: the learning rule; ``None``: PCD-1.
        labels: one unit a class, 1 at the row's own; the top machine sees them behind the features.
        folder: where each machine's run is saved (``machine_0``, …); the same call goes on from there.
        checkpoint_every: updates between two checkpoints.
        progress: as in ``fit``.

    Raises:
        ValueError: for data outside [0, 1], empty or not finite, and counts out of range.
    """
    rows = check_data("data", data, limits=(0.0, 1.0))
    if labels is not None:
        labels = check_data("labels", labels, limits=(0.0, 1.0))
        check_size("labels", labels, 0, rows.shape[0], "rows, as many as data,")
    if not n_hidden:
        raise ValueError("n_hidden: expected at least one number of hidden units, got none.")
    objective = ContrastiveObjective() if objective is None else objective
    machines = []
    for i, size in enumerate(n_hidden):
        if labels is not None and i == len(n_hidden) - 1:
            rows = jnp.concatenate([rows, labels.astype(rows.dtype)], axis=1)
        model_key, chain_key, fit_key = jax.random.split(jax.random.fold_in(key, i), 3)
        rbm = BernoulliRBM.from_data(rows, size, model_key)
        result = fit(
            rbm,
            objective,
            rows,
            optimizer=optimizer,
            n_steps=n_steps,
            batch_size=batch_size,
            key=fit_key,
            state=objective.init(rbm, batch_size, chain_key),
            checkpoint=None
            if folder is None
            else Checkpoint(Path(folder) / f"machine_{i}", checkpoint_every),
            progress=progress,
        )
        machines.append(result.model)
        rows = jax.vmap(lambda v, rbm=result.model: hidden_probabilities(rbm, v))(rows)
    return DeepBeliefNetwork(tuple(machines))
