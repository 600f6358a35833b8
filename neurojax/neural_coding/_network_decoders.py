"""The source's decoders: a network that regresses on degrees or the circle, and one that classifies."""

from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_at_least, check_nonnegative, check_positive
from .._types import PRNGKey, Scalar
from ..training import Evaluation, History, fit
from ._angles import AngleBins, from_phase, to_phase, wrap_degrees
from ._decoding import (
    AbstractClassDecoder,
    AbstractDecoder,
    AbstractFittedDecoder,
    AbstractProbabilisticDecoder,
)
from ._network import DecodingNetwork, DecodingObjective, as_targets, data_loss
from ._row_space import RowSpaceNetwork, RowSpaceObjective, RowSpaceTrials
from ._trials import Trials, check_response, check_trials

__all__ = ["NetworkClassifier", "NetworkRegression", "fit_decoding_network"]


def fit_decoding_network(
    network: DecodingNetwork,
    responses: Float[Array, "trials neurons"],
    targets: Array,
    *,
    step_size: float | int,
    n_steps: int,
    key: PRNGKey,
    l1: float | int = 0,
    l2: float | int = 0,
    in_row_space: bool | None = None,
    held_out: tuple[Array, Array] | None = None,
    evaluate_every: int = 10,
    progress: bool | None = False,
) -> tuple[DecodingNetwork, History]:
    """Train a network by gradient descent on all trials, as the source does.

    Args:
        network: the start.
        responses: one trial a row.
        targets: as in `data_loss`: numbers for each output, or a class for each trial.
        step_size: of plain gradient descent, > 0.
        n_steps: ≥ 1.
        key: required by ``fit``; full batches draw nothing.
        l1: strength of Σ|W_in|.
        l2: strength of ΣW_in².
        in_row_space: whether to learn in the span of the trials (`RowSpaceNetwork`), which takes the same
            steps to rounding and is much faster for neurons ≫ trials; ``None``: where l1 is 0 and there are
            more neurons than trials.
        held_out: responses and targets whose data loss is recorded, as ``history.evaluation["loss"]``.
        evaluate_every: steps between two looks at ``held_out``.
        progress: as in ``fit``.

    Returns:
        The trained network, and the history with ``loss`` and ``data_loss`` of each step.

    Raises:
        ValueError: for an L1 penalty in row space, and as ``fit`` does.
    """
    check_positive("step_size", step_size)
    responses = real_array("responses", responses, "trials neurons")
    targets = as_targets(targets)
    if held_out is not None:
        held_out = real_array("held_out[0]", held_out[0], "trials neurons"), as_targets(held_out[1])
    if in_row_space is None:
        in_row_space = not l1 and responses.shape[1] > responses.shape[0]
    if in_row_space and l1:
        raise ValueError(f"in_row_space: expected no L1 penalty, which leaves the span, got l1 {l1}.")
    shared = {"optimizer": _gradient_descent(float(step_size)), "n_steps": n_steps, "key": key}
    shared["progress"] = progress

    def evaluation(of):
        return None if held_out is None else _evaluation(of(*held_out), evaluate_every)

    if not in_row_space:
        objective = DecodingObjective(l1=float(l1), l2=float(l2))
        held = evaluation(lambda *pair: pair)
        result = fit(network, objective, (responses, targets), evaluate=held, **shared)
        return result.model, result.history
    trials_of = partial(_row_space_trials, network, responses)
    held = evaluation(lambda *pair: ((trials := trials_of(*pair)), trials.targets))
    model = RowSpaceNetwork.from_network(network, len(responses))
    trials = trials_of(responses, targets)
    result = fit(model, RowSpaceObjective(l2=float(l2)), trials, evaluate=held, **shared)
    return result.model.to_network(network, responses), result.history


@lru_cache
def _gradient_descent(step_size: float) -> optax.GradientTransformation:
    # One object for equal settings, so that fit compiles once for all folds.
    return optax.sgd(step_size)


_row_space_trials = eqx.filter_jit(RowSpaceTrials.from_responses)


def _evaluation(held_out, evaluate_every: int) -> Evaluation:
    def measure(model: Any, state: Any, key: Any) -> dict[str, Array]:
        return {"loss": _held_out_loss(model, *held_out)}

    return Evaluation(measure, evaluate_every)


@eqx.filter_jit
def _held_out_loss(model, inputs, targets) -> Scalar:
    return data_loss(model(inputs), targets)


class NetworkRegression(AbstractDecoder):
    """The source's ReLU network, trained by squared error: on degrees, or on the circle.

    Responses are taken as they are: z-score them, as the source's are, since gradient descent of a given step
    size feels their scale. The start is random, so that rotated angles are not decoded into rotated answers.

    Attributes:
        target: ``"circle"``: outputs (cos φ, sin φ), φ = 2πθ/P, decoded by their angle. ``"degrees"``: one
            output, θ in degrees, as the source has it: near 0 and P the loss punishes right answers, and
            answers outside [0, P) are possible before they are wrapped.
        period_degrees: P.
        n_hidden: hidden units.
        step_size: of gradient descent. The source's 1e-4 is for degrees. On the circle 0.05 suits up to
            some thousand z-scored neurons; what converges goes down as their number goes up (1e-3 for
            23,589).
        n_steps: of gradient descent.
        l1: as in `DecodingObjective`.
        l2: as in `DecodingObjective`.
        seed: of the start.

    ``fit`` takes weights 0 and 1 alone, and is a host program.
    """

    target: Literal["circle", "degrees"] = eqx.field(static=True, default="circle")
    period_degrees: float = eqx.field(static=True, default=360.0, converter=float)
    n_hidden: int = eqx.field(static=True, default=10)
    step_size: float = eqx.field(static=True, default=0.05)
    n_steps: int = eqx.field(static=True, default=500)
    l1: float = eqx.field(static=True, default=0.0)
    l2: float = eqx.field(static=True, default=0.0)
    seed: int = eqx.field(static=True, default=0)
    is_compiled: ClassVar[bool] = False

    def __check_init__(self):
        if self.target not in ("circle", "degrees"):
            raise ValueError(f'target: expected "circle" or "degrees", got {self.target!r}.')
        check_positive("period_degrees", self.period_degrees)
        _check_settings(self)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedNetworkRegression":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = _kept(check_trials(responses, angles_degrees, weights, self.period_degrees))
        angles = wrap_degrees(trials.angles_degrees, self.period_degrees)
        phase = to_phase(angles, self.period_degrees)
        on_circle = jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1)
        targets = on_circle if self.target == "circle" else angles[:, None]
        network = _train(self, trials.responses, targets, targets.shape[1])
        return FittedNetworkRegression(network=network, period_degrees=self.period_degrees)


class FittedNetworkRegression(AbstractFittedDecoder):
    """An angle from a network."""

    network: DecodingNetwork
    period_degrees: float = eqx.field(static=True, default=360.0)

    def predict(self, response: Float[ArrayLike, " neurons"]) -> Scalar:
        """Return the decoded angle of one trial, in [0, period_degrees) degrees."""
        outputs = self.network(check_response(response, self.network.input_weights[0]))
        if len(outputs) == 2:
            return from_phase(jnp.arctan2(outputs[1], outputs[0]), self.period_degrees)
        return wrap_degrees(outputs[0], self.period_degrees)


class NetworkClassifier(AbstractClassDecoder):
    """The source's network with a softmax over bins, trained by −log p(bin), on responses as they are.

    Attributes:
        bins: of the angles; the source has 20.
        n_hidden: hidden units.
        step_size: of gradient descent.
        n_steps: of gradient descent.
        l1: as in `DecodingObjective`.
        l2: as in `DecodingObjective`.
        seed: of the start.

    ``fit`` takes weights 0 and 1 alone, and is a host program.
    """

    bins: AngleBins = AngleBins(20)
    n_hidden: int = eqx.field(static=True, default=20)
    step_size: float = eqx.field(static=True, default=0.1)
    n_steps: int = eqx.field(static=True, default=1000)
    l1: float = eqx.field(static=True, default=0.0)
    l2: float = eqx.field(static=True, default=0.0)
    seed: int = eqx.field(static=True, default=0)
    is_compiled: ClassVar[bool] = False

    def __check_init__(self):
        _check_settings(self)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedNetworkClassifier":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = _kept(check_trials(responses, angles_degrees, weights, self.period_degrees))
        classes = self.bins.index(trials.angles_degrees)
        network = _train(self, trials.responses, classes, self.bins.n_bins)
        return FittedNetworkClassifier(network=network, bins=self.bins)


class FittedNetworkClassifier(AbstractProbabilisticDecoder):
    """Probabilities of bins from a network."""

    network: DecodingNetwork
    bins: AngleBins

    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response), in nats."""
        return jax.nn.log_softmax(self.network(check_response(response, self.network.input_weights[0])))


def _check_settings(decoder) -> None:
    check_at_least("n_hidden", decoder.n_hidden, 1)
    check_at_least("n_steps", decoder.n_steps, 1)
    check_positive("step_size", decoder.step_size)
    check_nonnegative("l1", decoder.l1)
    check_nonnegative("l2", decoder.l2)


def _train(decoder, responses, targets, n_outputs: int) -> DecodingNetwork:
    key = jax.random.key(decoder.seed)
    network = DecodingNetwork.from_sizes(
        responses.shape[1], decoder.n_hidden, n_outputs, key, dtype=responses.dtype
    )
    trained, _ = fit_decoding_network(
        network,
        responses,
        targets,
        step_size=decoder.step_size,
        n_steps=decoder.n_steps,
        key=key,
        l1=decoder.l1,
        l2=decoder.l2,
    )
    return trained


def _kept(trials: Trials) -> Trials:
    """Return the trials of weight 1."""
    weights = np.asarray(trials.weights)
    if not np.all((weights == 0) | (weights == 1)):
        raise ValueError("weights: expected 0 or 1 for a network, got other numbers.")
    return jax.tree.map(lambda leaf: leaf[weights == 1], trials)
