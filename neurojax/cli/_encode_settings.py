"""The settings of ``neurojax encode``, what each choice of data has, and its stimuli and responses."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax import Array

from .. import data
from .. import neural_coding as nc
from .._checks import check_nonnegative, check_positive, check_share
from ._neural_data import (
    OF_FILES,
    Recorded,
    Recording,
    as_responses,
    check_file_setting,
    read_responses,
    unused,
)
from ._settings import Output, check_counts

__all__ = ["Settings", "Stimuli", "check", "chosen_encoders", "folds", "make_optimizer", "read_stimuli"]

_SETS = ("simulated", "macaque-static", "mouse", "stringer-split")
_NAMES = ("convolutional", "nonlinear", "factorized", "gabor-energy", "poisson-glm")
_STEP_SIZES = {"adam": 3e-3, "sgd": 2.0}
_FEWEST_FOLD_AXES = 2


@dataclass(frozen=True)
class Data(Recorded):
    """The gratings, and the responses to them; half of the trials are for training, the others for tests."""

    data: str = "simulated"
    """simulated, macaque-static (V1, orientations), mouse (V1, directions), stringer-split (the course's two
    sets of 60 gratings, 23,589 neurons), or a path: a .csv or .tsv table with a column of
    angles and one for each neuron, or an .npz or .mat file with the arrays responses (trials, neurons) and
    angles_degrees (trials). Each angle must come at least twice."""
    resolution: float = 0.025
    """Size of the gratings, 1 being 480 x 640 pixels; 0.025 gives the course's 12 x 16."""
    session: int | None = None
    """The session, from 0 (macaque and mouse); by default 0."""
    n_neurons: int | None = None
    """Neurons (simulated); by default 200. The course's recording has 23,589."""
    n_angles: int | None = None
    """Directions, evenly spaced from -180 degrees (simulated); by default 60, 6 degrees apart."""
    n_repeats: int | None = None
    """Trials of each direction (simulated), half of them for training; by default 20. With 2, one each, there
    is no measure of noise in the tests, and so no explainable variance."""
    responses: Literal["calcium", "poisson"] | None = None
    """z-scored calcium-like responses or spike counts (simulated); by default calcium."""
    period_degrees: Literal[180, 360] | None = None
    """After which angles come round, in degrees: 180 for orientations, 360 for directions (mouse and files);
    by default 360."""


@dataclass(frozen=True)
class Encoding:
    """The models, and how they are tried."""

    encoders: tuple[str, ...] | None = None
    """Any of convolutional (the course's: six filters, no nonlinearity, dense readout), nonlinear (with relu
    after the filters), factorized (relu, and a readout of a mask times filter weights), gabor-energy and
    poisson-glm (spike counts); by default the first three, and poisson-glm for spike counts."""
    hold_out: Literal["repeats", "angles", "both"] = "both"
    """Test on other trials of the same gratings, as the course does, or of gratings not seen in training
    (folds of angles; an angle and its opposite, which are one image, are in one fold)."""
    n_folds: int = 5
    """Folds of angles."""
    threshold: float = 0.15
    """Least explainable share of a neuron's variance for which the share of it explained is given."""


@dataclass(frozen=True)
class Learning:
    """Settings of learning encoders from all gratings at once; the Poisson GLM is fitted to its optimum."""

    n_steps: int = 200
    """Number of updates."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser. adam takes the same steps for any number of neurons; the course's sgd does not, as each
    neuron's share in the mean loss falls with their number."""
    step_size: float | None = None
    """Its step size; by default 0.003 for adam, 2 for sgd (the course's, for 23,589 neurons: too large for
    few)."""
    momentum: float | None = None
    """Momentum of sgd; by default 0.9."""
    l2: float = 12.0
    """Strength of the squared readout weights; 12 is what the course's 5e-4 with --penalty-scale sum comes to
    for its 23,589 neurons."""
    l1: float = 0.024
    """Strength of the absolute readout weights; likewise, of the course's 1e-6."""
    penalty_scale: Literal["neuron", "sum"] = "neuron"
    """Penalties are means over neurons of sums over weights, or sums over all, as in the course, which weigh
    more the more neurons there are."""
    glm_l2: float = 0.1
    """Strength of ½ Σ w² of poisson-glm, beside the mean negative log-likelihood in nats."""
    evaluate_every: int = 10
    """Updates between looks at the test trials, which decide nothing."""
    checkpoint_every: int = 100
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Settings:
    """Predict neurons from gratings: the course's convolutional encoder and others, against baselines.

    Leaves a run folder with config.json, encoders/ (for each its checkpoint, metrics.jsonl, model.npz and
    predictions), results.json and the pictures responses.png, stimuli.png, tuning_grid.png, losses.png,
    predictions.png, predictions_angles.png, filters.png, scores.png and neurons.png. Responses are z-scored
    by the training trials. A setting that the data do not have is refused.
    """

    data: Data = field(default_factory=Data)
    encoding: Encoding = field(default_factory=Encoding)
    learning: Learning = field(default_factory=Learning)
    output: Output = field(default_factory=Output)


_MACAQUE = {"session", "window_ms", "max_contamination", "contrast"}
_OF_DATA = {
    "simulated": {"n_neurons", "n_angles", "n_repeats", "responses"},
    "macaque-static": _MACAQUE,
    "mouse": {"session", "window_s", "period_degrees"},
    "stringer-split": set(),
    "file": OF_FILES,
}
_DATA_DEFAULTS = {
    "session": 0, "n_neurons": 200, "n_angles": 60, "n_repeats": 20, "responses": "calcium",
    "period_degrees": 360, "window_ms": (0.0, 500.0), "window_s": (0.0, 2.0), "max_contamination": 0.05,
}  # fmt: skip


class Stimuli(NamedTuple):
    """Gratings, and the responses to them.

    Attributes:
        images: (stimuli, rows, columns), a grating each.
        angles_degrees: of each.
        period_degrees: after which angles come round.
        train: mean responses of the training trials, (stimuli, neurons), z-scored over stimuli.
        test: (repeats, stimuli, neurons), other trials on the same scale.
        center: what was taken off.
        scale: what was divided by.
        n_train_repeats: trials in a mean of ``train``.
        name: of the recording.
        neurons: the number of each neuron in the recording.
        is_count: whether all responses are counts.
        notes: what a user should know of them, by name.
    """

    images: Array
    angles_degrees: np.ndarray
    period_degrees: float
    train: np.ndarray
    test: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    n_train_repeats: int
    name: str
    neurons: np.ndarray
    is_count: bool
    notes: dict[str, str]


def check(settings: Settings) -> Recording:
    """Check what can be checked without the data, and say which data they are.

    Raises:
        ValueError: at the first setting that cannot work or that the data do not have.
        FileNotFoundError: if the data are a file and there is none.
    """
    values, encoding, learning = settings.data, settings.encoding, settings.learning
    word = check_file_setting(values.data, _SETS)
    unused(values, f"--data {values.data}", _OF_DATA[word])
    given = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    known = {name: value for name, value in _DATA_DEFAULTS.items() if name in _OF_DATA[word]}
    known |= {name: value for name, value in given.items() if name in _OF_DATA[word] and value is not None}
    check_counts(values, session=0, n_neurons=1, n_angles=2, n_repeats=2)
    if known.get("n_angles", 2) % 2:
        raise ValueError(
            f"n_angles: expected an even number, so that each has its opposite, got {values.n_angles}."
        )
    check_counts(encoding, n_folds=2)
    check_counts(learning, n_steps=1, evaluate_every=1, checkpoint_every=1)
    check_share("threshold", encoding.threshold)
    for name in ("l1", "l2", "glm_l2"):
        check_nonnegative(name, getattr(learning, name))
    if learning.step_size is not None:
        check_positive("step_size", learning.step_size)
    if not 0 < values.resolution <= 1:
        raise ValueError(f"resolution: expected a number in (0, 1], got {values.resolution}.")
    if learning.optimizer == "adam":
        unused(learning, "--optimizer adam", {"step_size"})
    elif learning.momentum is not None and not 0 <= learning.momentum < 1:
        raise ValueError(f"momentum: expected a number in [0, 1), got {learning.momentum}.")
    for name in encoding.encoders or ():
        if name not in _NAMES:
            raise ValueError(f"encoders: expected some of {', '.join(_NAMES)}, got {name!r}.")
    if encoding.encoders is not None and len(set(encoding.encoders)) != max(len(encoding.encoders), 1):
        raise ValueError(f"encoders: expected some, each once, got {' '.join(encoding.encoders) or 'none'}.")
    return Recording(word, Path(values.data), known, values.drop_constant)


def chosen_encoders(settings: Settings, stimuli: Stimuli) -> tuple[str, ...]:
    """Return the names of the encoders, by default those that fit the responses.

    Raises:
        ValueError: for one of counts where responses are none.
    """
    names = settings.encoding.encoders
    if names is None:
        return (*_NAMES[:3], "poisson-glm") if stimuli.is_count else _NAMES[:3]
    if "poisson-glm" in names and not stimuli.is_count:
        raise ValueError(
            "encoders: expected none of counts (poisson-glm), as the responses are not spike counts, got "
            f"{' '.join(names)}."
        )
    return names


def make_optimizer(settings: Learning) -> optax.GradientTransformation:
    """Return the optimiser."""
    step_size = _STEP_SIZES[settings.optimizer] if settings.step_size is None else settings.step_size
    if settings.optimizer == "adam":
        return optax.adam(step_size)
    return optax.sgd(step_size, 0.9 if settings.momentum is None else settings.momentum or None)


def folds(settings: Settings, stimuli: Stimuli) -> list[np.ndarray]:
    """Return the numbers of the stimuli of each fold; an angle and its opposite are in the same one.

    Raises:
        ValueError: for fewer orientations than folds.
    """
    axes = np.mod(np.round(stimuli.angles_degrees, 3), 180)
    distinct, of_stimulus = np.unique(axes, return_inverse=True)
    n_folds = settings.encoding.n_folds
    if len(distinct) < n_folds or len(distinct) < _FEWEST_FOLD_AXES:
        raise ValueError(
            f"n_folds: expected at most {len(distinct)}, the number of distinct orientations, got {n_folds}."
        )
    return [np.flatnonzero(of_stimulus % n_folds == f) for f in range(n_folds)]


def read_stimuli(settings: Settings, recording: Recording, key: Array) -> Stimuli:
    """Draw the gratings, and load or simulate the responses to them.

    Raises:
        ValueError: for data that do not have each angle at least twice, and as ``read_responses``.
    """
    known, (first_key, second_key) = recording.settings, jax.random.split(key)
    match recording.word:
        case "simulated":
            n_angles, n_repeats = known["n_angles"], known["n_repeats"]
            angles = np.tile(-180 + np.arange(n_angles) * (360 / n_angles), n_repeats).astype(np.float32)
            drawn = nc.simulate(
                first_key, n_neurons=known["n_neurons"], angles_degrees=angles, responses=known["responses"]
            )
            read = as_responses(drawn.responses, angles, 360.0, "simulated", recording)
            return _stimuli(settings, read, second_key)
        case "stringer-split":
            split = data.stringer_split()
            values = np.concatenate([split.train, split.test])
            angles = np.tile(split.angles_degrees, 2)
            read = as_responses(values, angles, 360.0, "stringer-split", recording)
            # The two sets are the course's: the first is for training.
            return _stimuli(settings, read, None)
        case _:
            return _stimuli(settings, read_responses(recording, first_key), second_key)


def _stimuli(settings: Settings, read: Any, key: Array | None) -> Stimuli:
    """Deal the trials of each angle out, at random if there is a key: half for training, half for tests."""
    period = read.period_degrees
    angles, responses = np.asarray(read.angles_degrees, np.float64), np.asarray(read.responses)
    # As they were shown, but for a whole period, which would make two stimuli of one.
    places = np.mod(np.round(np.mod(angles, period), 3), period)
    distinct, first, of_stimulus, counts = np.unique(
        places, return_index=True, return_inverse=True, return_counts=True
    )
    n_repeats = int(counts.min())
    if len(distinct) < 2 or n_repeats < 2:
        raise ValueError(
            f"data: expected at least two angles with two trials each, got {len(distinct)} angles, one of "
            f"them with {n_repeats} trials."
        )
    order = np.arange(len(angles)) if key is None else np.asarray(jax.random.permutation(key, len(angles)))
    rows = np.stack([order[of_stimulus[order] == s][:n_repeats] for s in range(len(distinct))], axis=1)
    n_train = n_repeats // 2
    train = responses[rows[:n_train]].mean(axis=0, dtype=np.float64)
    center, scale = train.mean(axis=0), train.std(axis=0)
    is_flat = scale <= 1e-6 * np.abs(center)
    scale = np.where(is_flat | (scale == 0), 1, scale)
    images = nc.course_gratings(np.asarray(angles[first], np.float32), settings.data.resolution)
    notes = dict(read.notes)
    if counts.max() > n_repeats:
        notes["trials left out"] = f"{len(angles) - n_repeats * len(distinct)}, for equal numbers an angle"
    return Stimuli(
        images=images,
        angles_degrees=distinct,
        period_degrees=period,
        train=((train - center) / scale).astype(np.float32),
        test=((responses[rows[n_train:]] - center) / scale).astype(np.float32),
        center=center,
        scale=scale,
        n_train_repeats=n_train,
        name=read.name,
        neurons=read.neurons,
        is_count=read.is_count,
        notes=notes,
    )
