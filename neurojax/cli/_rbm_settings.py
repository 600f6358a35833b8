"""The settings of ``neurojax rbm``, and what they stand for."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from .. import boltzmann, data
from .._checks import check_positive
from ..boltzmann import BernoulliRBM, CentredGradient, ContrastiveObjective
from ._devices import Devices, say
from ._settings import (
    Output,
    check_counts,
    check_file_settings,
    describe_rows,
    image_shape,
    read_rows_file,
)

__all__ = [
    "PUBLISHED",
    "Learning",
    "Rows",
    "Settings",
    "check",
    "make_machine",
    "make_objective",
    "make_optimizer",
    "read_rows",
]

_SETS = ("digits", "mnist", "binarized-mnist")
_STEP_SIZES = {"sgd": 0.3, "adam": 0.01}
_WEIGHT_SCALE = 0.01


@dataclass(frozen=True)
class Model:
    """The machine."""

    n_hidden: int = 100
    """Number of hidden units."""
    start: Literal["base-rate", "uniform"] = "base-rate"
    """The machine before learning: normal weights and the visible biases of the data's base rate, or weights
    uniform within ±√(6/(visible + hidden units)) and no biases."""
    weight_scale: float | None = None
    """Standard deviation of the first weights at the base rate, by default 0.01."""


@dataclass(frozen=True)
class Learning:
    """Settings of learning the machine."""

    rule: Literal["pcd", "cd", "tempering"] = "pcd"
    """The source of the machine's own samples: persistent chains, chains from the data at each update, or
    parallel tempering."""
    n_gibbs: int = 1
    """Gibbs transitions an update (the k of CD-k); sweeps of tempering."""
    centred: bool = True
    """Descend in centred parameters (exactly so with sgd)."""
    n_temperatures: int = 10
    """Temperatures of tempering."""
    n_chains: int = 100
    """Chains of pcd and tempering."""
    n_steps: int = 4000
    """Number of updates."""
    batch_size: int = 100
    """Rows an update."""
    order: Literal["random", "file"] = "random"
    """Rows in a new random order each epoch, which drops those that fill no batch; or in their own order,
    every row once an epoch, in batches of at most batch-size rows that differ by one row at most."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """The optimiser."""
    step_size: float | None = None
    """Its step size at first; by default 0.3 for sgd, 0.01 for adam."""
    decay_steps: int | None = 300
    """The step size after s updates is step-size/(1 + s/decay-steps); None keeps it."""
    momentum: float = 0.0
    """Momentum of sgd."""
    weight_decay: float = 0.0
    """Strength of ½·Σ W²."""
    sparsity: float = 0.0
    """Strength of the pull of each hidden unit's mean activity to sparsity-target."""
    sparsity_target: float = 0.1
    """That activity."""
    evaluate_every: int = 250
    """Updates between evaluations on held-out rows."""
    n_evaluation: int = 500
    """Held-out rows for them, at most."""
    pseudo_likelihood: Literal["exact", "one-flip"] = "exact"
    """Over all flips of the rows of an evaluation, where they are states; or, as published, of one flip a row
    (v to 1 - v, grey values too) on each batch just learned from, the mean since the last evaluation."""
    patience: int | None = None
    """Stop after so many evaluations without a better pseudo-likelihood, and keep the best. The likelihood is
    then that of the other held-out rows."""
    checkpoint_every: int = 1000
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Data:
    """The rows. Those held out are the test rows of a set, or the last eighth of a file."""

    data: str = "digits"
    """digits (5,000 and 1,000 of MNIST, bundled), mnist, binarized-mnist (fixed binarisation of the
    literature), or a path to an .npy, .npz or .mat file of rows or images: numbers in [0, 1], bool, or
    integers of 8 or 16 bits."""
    array: str | None = None
    """Name of the array, in an .npz or .mat file with several."""
    binarize: Literal["threshold", "stochastic", "none"] = "threshold"
    """At 0.5; drawn once, 1 with the probability of the grey value; or none: values as they are, grey ones as
    probabilities, which have no likelihood, and a pseudo-likelihood as published alone."""
    hold_out: bool = True
    """Hold rows out. Without, they are learned too, behind the training rows, and nothing is held out."""


@dataclass(frozen=True)
class Likelihood:
    """Settings of the likelihood that is estimated at the end; a resumed run may change them."""

    ais_chains: int = 100
    """Chains of annealed importance sampling each way, and samples; beyond n-chains they start as copies."""
    ais_temperatures: int = 1000
    """Temperatures of annealed importance sampling; 10,000 for a tighter bracket."""
    n_burn_in: int = 1000
    """Gibbs transitions before samples are taken, from the chains of learning or (cd) from data."""
    snapshot_every: int = 300
    """Gibbs transitions between two columns of samples.png."""


@dataclass(frozen=True)
class Preset:
    """Many settings at once."""

    published: bool = False
    """The published NumPy machine, as the default of all other flags: grey values of all 70,000 digits in
    their own order, a uniform start, CD-1 on 1,094 batches an epoch, ten epochs, its pseudo-likelihood."""


@dataclass(frozen=True)
class Settings:
    """Train a restricted Boltzmann machine on handwritten digits, and bracket its likelihood.

    Leaves a run folder with config.json, metrics.jsonl, checkpoint/, rbm.npz, samples.npy, likelihood.json
    and the pictures filters.png, data.png, samples.png, reconstructions.png and history.png.
    """

    preset: Preset = field(default_factory=Preset)
    model: Model = field(default_factory=Model)
    learning: Learning = field(default_factory=Learning)
    data: Data = field(default_factory=Data)
    likelihood: Likelihood = field(default_factory=Likelihood)
    devices: Devices = field(default_factory=Devices)
    output: Output = field(default_factory=Output)


PUBLISHED = Settings(
    Preset(published=True),
    Model(n_hidden=64, start="uniform"),
    Learning(
        rule="cd",
        centred=False,
        n_steps=10_940,
        batch_size=64,
        order="file",
        step_size=0.1,
        decay_steps=None,
        evaluate_every=1094,
        pseudo_likelihood="one-flip",
        checkpoint_every=1094,
    ),
    Data("mnist", binarize="none", hold_out=False),
)


class Rows(NamedTuple):
    """The data as the machine sees them.

    Attributes:
        train: what it learns from.
        watched: held-out rows for the evaluations.
        reported: held-out rows for the likelihood: all, or where the evaluations decide, the others.
        image_shape: the form of a row as an image.
        is_binary: whether all are states; grey values have no likelihood.
        is_held_out: whether the rows watched and reported are not among those learned from.
    """

    train: Array
    watched: Array
    reported: Array
    image_shape: tuple[int, int] | tuple[int, int, int]
    is_binary: bool
    is_held_out: bool = True

    @property
    def kind(self) -> str:
        """The word for rows that are watched and reported."""
        return "held-out" if self.is_held_out else "training"


def check(settings: Settings) -> None:
    """Check what no other function checks by the name of the flag, or only after a folder was made."""
    learning, likelihood = settings.learning, settings.likelihood
    check_counts(settings.model, n_hidden=1)
    if settings.model.weight_scale is not None:
        check_positive("weight_scale", settings.model.weight_scale)
        if settings.model.start != "base-rate":
            raise ValueError("weight_scale: applies only to start base-rate.")
    if learning.patience is not None and (
        learning.pseudo_likelihood != "exact" or not settings.data.hold_out
    ):
        raise ValueError(
            "patience: expected None without held-out rows and their exact pseudo-likelihood to watch."
        )
    check_counts(learning, n_gibbs=1, n_temperatures=2, n_chains=1, n_steps=1, batch_size=1, decay_steps=1)
    check_counts(learning, evaluate_every=1, n_evaluation=1, patience=1, checkpoint_every=1)
    if not 0 <= learning.momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), got {learning.momentum}.")
    check_counts(likelihood, ais_chains=2, ais_temperatures=2, n_burn_in=1, snapshot_every=1)


def make_machine(settings: Model, train: Array, key: Array) -> BernoulliRBM:
    """Return the machine as learning starts."""
    if settings.start == "base-rate":
        scale = _WEIGHT_SCALE if settings.weight_scale is None else settings.weight_scale
        return BernoulliRBM.from_data(train, settings.n_hidden, key, scale=scale)
    shape = train.shape[1], settings.n_hidden
    limit = math.sqrt(6 / sum(shape))
    weights = jax.random.uniform(key, shape, minval=-limit, maxval=limit)
    return BernoulliRBM(weights, jnp.zeros(shape[0]), jnp.zeros(shape[1]))


def make_objective(
    settings: Learning, rbm: BernoulliRBM, train: Array, key: Array
) -> tuple[CentredGradient | ContrastiveObjective, Any]:
    """Return the learning rule, and the state that it begins with."""
    match settings.rule:
        case "pcd":
            phase = boltzmann.PersistentContrastiveDivergence(settings.n_gibbs)
        case "cd":
            phase = boltzmann.ContrastiveDivergence(settings.n_gibbs)
        case "tempering":
            base = rbm.base_visible_bias(train)
            phase = boltzmann.ParallelTempering(base, settings.n_temperatures, settings.n_gibbs)
    plain = ContrastiveObjective(phase, settings.weight_decay, settings.sparsity, settings.sparsity_target)
    if not settings.centred:
        return plain, plain.init(rbm, settings.n_chains, key)
    centred = CentredGradient(plain)
    return centred, centred.init(rbm, settings.n_chains, key, data_mean=jnp.mean(train, axis=0))


def make_optimizer(settings: Learning) -> optax.GradientTransformation:
    """Return the optimiser."""
    first = _STEP_SIZES[settings.optimizer] if settings.step_size is None else settings.step_size
    check_positive("step_size", first)
    n_decay = settings.decay_steps

    def step_size(step):
        return first / (1 + step / n_decay) if n_decay is not None else first

    match settings.optimizer:
        case "sgd":
            return optax.sgd(step_size, settings.momentum or None)
        case "adam":
            return optax.adam(step_size)


def read_rows(settings: Settings, key: Array) -> Rows:
    """Load the rows, binarise them as asked, and check what depends on how many there are."""
    check_file_settings(settings.data, _SETS)
    match settings.data.data:
        case "digits":
            parts = [data.mnist_subset("train").images, data.mnist_subset("test").images]
        case "mnist":
            parts = [data.mnist("train").images, data.mnist("test").images]
        case "binarized-mnist":
            parts = [data.binarized_mnist("train"), data.binarized_mnist("test")]
        case path:
            values = read_rows_file(Path(path), _SETS, name=settings.data.array)
            n_held_out = len(values) // 8
            parts = [values[:-n_held_out], values[-n_held_out:]]
    say(f"data: {describe_rows(parts)}")
    *part_keys, order_key = jax.random.split(key, 3)
    shape = image_shape(parts[0].shape[1:])
    train, held_out = (
        _binarized(part.reshape(len(part), -1), settings.data.binarize, part_key)
        for part, part_key in zip(parts, part_keys, strict=True)
    )
    if not settings.data.hold_out:
        train = jnp.concatenate([train, held_out])
    # The published test rows run class by class: their first would be zeros alone.
    held_out = jax.random.permutation(order_key, held_out)
    is_binary = all(bool(jnp.all((part == 0) | (part == 1))) for part in (train, held_out))
    _check_rows(settings.learning, len(train), len(held_out), is_binary)
    watched = held_out[: settings.learning.n_evaluation]
    reported = held_out if settings.learning.patience is None else held_out[len(watched) :]
    return Rows(train, watched, reported, shape, is_binary, settings.data.hold_out)


def _check_rows(learning: Learning, n_train: int, n_held_out: int, is_binary: bool) -> None:
    if learning.batch_size > n_train:
        raise ValueError(
            f"batch_size: expected at most the {n_train} training rows, got {learning.batch_size}."
        )
    if learning.patience is not None and not is_binary:
        raise ValueError(
            "patience: expected None with grey values, which have no pseudo-likelihood to watch."
        )
    if learning.patience is not None and n_held_out < learning.n_evaluation + 2:
        raise ValueError(
            f"n_evaluation: expected at most {n_held_out - 2} with patience, so that some held-out rows are "
            f"left for the likelihood, got {learning.n_evaluation}."
        )


def _binarized(rows: Array, how: str, key: Array) -> Array:
    match how:
        case "threshold":
            return (rows >= 0.5).astype(rows.dtype)
        case "stochastic":
            return jax.random.bernoulli(key, rows).astype(rows.dtype)
        case _:
            return rows
