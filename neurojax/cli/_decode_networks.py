"""The networks of ``neurojax decode``: as decoders, and trained once more on one split for the pictures."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import neural_coding as nc
from .._untrusted import read_numpy, read_whole
from ..neural_coding import AbstractDecoder, AbstractFittedDecoder, AngleBins, DecodingNetwork
from ..runs import write_atomically
from ..training import History
from ._decode_settings import Network

__all__ = [
    "Learned",
    "Scaling",
    "Standardized",
    "from_arrays",
    "learn",
    "load_if_same",
    "save_with_identity",
    "to_arrays",
]

_N_EVALUATIONS = 50


class Scaling(eqx.Module):
    """x ↦ (x − mean)/deviation of some trials; a neuron that did not vary stays at 0."""

    mean: Float[Array, " neurons"]
    deviation: Float[Array, " neurons"]

    @classmethod
    def of(cls, responses: Float[Array, "trials neurons"]) -> "Scaling":
        """Measure them."""
        is_constant = nc.constant_neurons(responses)
        deviation = jnp.where(is_constant, jnp.inf, jnp.std(responses, axis=0))
        return cls(jnp.mean(responses, axis=0), deviation)

    def __call__(self, responses: Float[Array, "*trials neurons"]) -> Float[Array, "*trials neurons"]:
        """Return responses on that scale."""
        return (responses - self.mean) / self.deviation


class Standardized(AbstractDecoder):
    """A decoder that sees responses z-scored by the trials that it is fitted to (weights 0 and 1).

    Attributes:
        decoder: a host program.
    """

    decoder: AbstractDecoder
    is_compiled: ClassVar[bool] = False

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.decoder.period_degrees

    def fit(self, responses: Any, angles_degrees: Any, *, weights: Any = None) -> "FittedStandardized":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        is_kept = np.ones(len(responses), bool) if weights is None else np.asarray(weights) > 0
        scaling = Scaling.of(responses[is_kept])
        fitted = self.decoder.fit(scaling(responses[is_kept]), angles_degrees[is_kept])
        return FittedStandardized(scaling, fitted)


class FittedStandardized(AbstractFittedDecoder):
    """A fitted decoder, and the scale of what it sees."""

    scaling: Scaling
    fitted: AbstractFittedDecoder

    @property
    def period_degrees(self) -> float:
        """After which angles come round."""
        return self.fitted.period_degrees

    def predict(self, response: Any) -> Array:
        """Return the decoded angle of one trial, in degrees."""
        return self.fitted.predict(self.scaling(response))


class Learned(NamedTuple):
    """A network before and after learning.

    Attributes:
        first: as it began.
        network: as it ended.
        history: of learning.
    """

    first: DecodingNetwork
    network: DecodingNetwork
    history: History


def learn(
    network: Network,
    train: tuple[Array, Array],
    test: tuple[Array, Array],
    bins: AngleBins,
    key: Array,
) -> Learned:
    """Train a network on some trials, with its data loss on others.

    Args:
        network: how.
        train: z-scored responses, and angles in degrees.
        test: likewise.
        bins: of classifiers, whose period is that of the angles.
        key: of the start.
    """
    targets = [_targets(network, angles, bins) for _, angles in (train, test)]
    n_outputs = bins.n_bins if targets[0].ndim == 1 else targets[0].shape[1]
    start_key, fit_key = jax.random.split(key)
    first = DecodingNetwork.from_sizes(train[0].shape[1], network.n_hidden, n_outputs, start_key)
    trained, history = nc.fit_decoding_network(
        first,
        train[0],
        targets[0],
        step_size=network.step_size,
        n_steps=network.n_steps,
        key=fit_key,
        l1=network.l1,
        l2=network.l2,
        held_out=(test[0], targets[1]),
        evaluate_every=max(network.n_steps // _N_EVALUATIONS, 1),
    )
    return Learned(first, trained, history)


def _targets(network: Network, angles: Array, bins: AngleBins) -> Array:
    if network.target == "bins":
        return bins.index(angles)
    if network.target == "degrees":
        return nc.wrap_degrees(angles, bins.period_degrees)[:, None]
    phase = angles * (2 * np.pi / bins.period_degrees)
    return jnp.stack([jnp.cos(phase), jnp.sin(phase)], axis=1)


def to_arrays(learned: Learned) -> dict[str, np.ndarray]:
    """Return all of it as arrays by name."""
    arrays = {f"history/{name}": value for name, value in learned.history.to_arrays().items()}
    for part in ("first", "network"):
        for field in dataclasses.fields(DecodingNetwork):
            arrays[f"{part}/{field.name}"] = np.asarray(getattr(getattr(learned, part), field.name))
    return arrays


def from_arrays(arrays: dict[str, np.ndarray]) -> Learned:
    """Return what `to_arrays` has written down."""

    def part(name: str) -> dict[str, np.ndarray]:
        return {n.removeprefix(f"{name}/"): v for n, v in arrays.items() if n.startswith(f"{name}/")}

    first, network = (
        DecodingNetwork(**{n: jnp.asarray(v) for n, v in part(name).items()}) for name in ("first", "network")
    )
    return Learned(first, network, History.from_arrays(part("history")))


def save_with_identity(path: Path, identity: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays to an .npz file, whole or not at all, beside what decided them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = {"identity": np.array(identity), **arrays}
    write_atomically(path, lambda file: np.savez(file, **named))


def load_if_same(path: Path, identity: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of `save_with_identity`, or nothing if they are not there or of other settings."""
    if not path.is_file():
        return None
    arrays = read_whole(path, "arrays that a run has saved", read_numpy)
    if str(arrays.pop("identity", "")) != identity:
        return None
    return arrays
