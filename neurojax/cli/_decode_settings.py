"""The settings of ``neurojax decode``, what each choice of data has, and the decoders by name."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from .. import neural_coding as nc
from .._checks import check_nonnegative, check_positive
from ..neural_coding import AbstractDecoder, AngleBins
from ..penalties import ElasticNet
from ._neural_data import OF_FILES, Recorded, Recording, Responses, check_file_setting, unused
from ._settings import Output, check_counts

__all__ = ["NETWORKS", "Network", "Settings", "check", "chosen_decoders", "make_decoder", "network_of"]

_COURSE_NEURONS, _COURSE_DEGREES_STEPS = 23_589, 50
_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
_NAMES = (
    "bump-ridge",
    "sincos-ridge",
    "population-vector",
    "poisson",
    "gaussian",
    "gaussian-independent",
    "multinomial",
    "network-regression",
    "network-degrees",
    "network-classifier",
    "network-classifier-l2",
    "network-classifier-l1",
    "network-classifier-l1-l2",
)
NETWORKS = tuple(name for name in _NAMES if name.startswith("network"))


@dataclass(frozen=True)
class Data(Recorded):
    """The trials."""

    data: str = "simulated"
    """simulated, macaque-static (V1, orientations), macaque-moving (V1, directions), mouse (V1, calcium),
    stringer (V1, 23,589 neurons of one mouse), or a path: a .csv or .tsv table with a column
    of angles and one for each neuron, or an .npz or .mat file with the arrays responses (trials, neurons) and
    angles_degrees (trials)."""
    session: int | None = None
    """The session, from 0 (macaque and mouse); by default 0."""
    n_neurons: int | None = None
    """Neurons (simulated); by default 2,000. The course's recording has 23,589."""
    n_trials: int | None = None
    """Trials at evenly spaced angles (simulated); by default 360."""
    responses: Literal["calcium", "poisson"] | None = None
    """z-scored calcium-like responses or spike counts (simulated); by default calcium."""
    period_degrees: Literal[180, 360] | None = None
    """After which angles come round, in degrees: 180 for orientations, 360 for directions (simulated, mouse
    and files); by default 360."""


@dataclass(frozen=True)
class Decoding:
    """The decoders and their cross-validation; a resumed run may change this section."""

    decoders: tuple[str, ...] | None = None
    """Any of bump-ridge, sincos-ridge, population-vector, poisson (counts), gaussian, gaussian-independent,
    multinomial, network-regression (onto the circle), network-degrees (squared error on degrees, as in the
    course), network-classifier, network-classifier-l2, network-classifier-l1 and network-classifier-l1-l2;
    by default all that fit the responses."""
    bins: int | None = None
    """Bins of the angle for decoders of classes; by default one a stimulus where stimuli are repeated, else
    bins of 18 degrees."""
    tune: bool = False
    """Choose the strengths of ridge and multinomial decoders from 0.001 to 10 within each training set;
    without it ridge has 0.1 and multinomial 0.01."""
    n_folds: int = 5
    """Folds of the cross-validation, stratified by angle."""
    n_permutations: int = 10
    """Permutations of the angles for the chance level (of sincos-ridge); 0 for none."""


@dataclass(frozen=True)
class Learning:
    """Settings of learning the networks: full-batch gradient descent."""

    n_steps: int = 1000
    """Updates of the classifiers."""
    step_size: float = 0.1
    """Step size of the classifiers."""
    n_hidden: int = 20
    """Hidden units of the classifiers."""
    regression_steps: int = 500
    """Updates of network-regression."""
    regression_step_size: float = 0.05
    """Its step size."""
    degrees_steps: int | None = None
    """Updates of network-degrees; by default 50 for 23,589 neurons, as in the course, and in proportion more
    for fewer, 1,000 at most."""
    degrees_step_size: float = 1e-4
    """Its step size."""
    regression_hidden: int = 10
    """Hidden units of both regressions."""
    l2: float = 1e-2
    """Strength of the sum of squared input weights (names with l2)."""
    l1: float = 5e-4
    """Strength of the sum of absolute input weights (names with l1)."""
    train_share: float = 0.6
    """Share of the trials that the networks of the pictures learn from."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Settings:
    """Decode what was shown from a population of neurons, cross-validated, with error bars.

    Leaves a run folder with config.json, decoders/ (the held-out answers of each decoder), networks/ (those
    of the pictures), results.json and the pictures responses.png, tuning.png, tuning_grid.png, scores.png,
    decoded.png, errors.png, error_histogram.png, circle.png and confusion.png; with networks also losses.png,
    input_weights.png, input_weights_penalties.png, output_weights.png, hidden.png, hidden_tuning.png and, of
    network-degrees, regression.png. A resumed run does what is missing. A setting that the data do not have
    is refused.
    """

    data: Data = field(default_factory=Data)
    decoding: Decoding = field(default_factory=Decoding)
    learning: Learning = field(default_factory=Learning)
    output: Output = field(default_factory=Output)


_OF_DATA = {
    "simulated": {"n_neurons", "n_trials", "responses", "period_degrees"},
    "macaque-static": {"session", "window_ms", "max_contamination", "contrast"},
    "macaque-moving": {"session", "window_ms", "max_contamination", "contrast"},
    "mouse": {"session", "window_s", "period_degrees"},
    "stringer": set(),
    "file": OF_FILES,
}
_DATA_DEFAULTS = {
    "session": 0, "n_neurons": 2000, "n_trials": 360, "responses": "calcium", "period_degrees": 360,
    "window_ms": (0.0, 500.0), "window_s": (0.0, 2.0), "max_contamination": 0.05,
}  # fmt: skip
_SETS = ("simulated", "macaque-static", "macaque-moving", "mouse", "stringer")


def check(settings: Settings) -> Recording:
    """Check what can be checked without the data, and say which data they are.

    Raises:
        ValueError: at the first setting that cannot work or that the data do not have.
        FileNotFoundError: if the data are a file and there is none.
    """
    values, decoding, learning = settings.data, settings.decoding, settings.learning
    word = check_file_setting(values.data, _SETS)
    unused(values, f"--data {values.data}", _OF_DATA[word])
    known = {name: value for name, value in _DATA_DEFAULTS.items() if name in _OF_DATA[word]}
    given = {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
    known |= {name: value for name, value in given.items() if name in _OF_DATA[word] and value is not None}
    check_counts(values, session=0, n_neurons=1, n_trials=4)
    check_counts(decoding, n_folds=2, n_permutations=0, bins=2)
    check_counts(learning, n_steps=1, n_hidden=1, regression_steps=1, regression_hidden=1, degrees_steps=1)
    for name in ("step_size", "regression_step_size", "degrees_step_size"):
        check_positive(name, getattr(learning, name))
    check_nonnegative("l1", learning.l1)
    check_nonnegative("l2", learning.l2)
    if not 0 < learning.train_share < 1:
        raise ValueError(f"train_share: expected a number in (0, 1), got {learning.train_share}.")
    _check_names(decoding.decoders)
    if "max_contamination" in known:
        check_positive("max_contamination", known["max_contamination"])
    return Recording(word, Path(values.data), known, values.drop_constant)


def _check_names(names: tuple[str, ...] | None) -> None:
    if names is None:
        return
    if not names:
        raise ValueError("decoders: expected at least one, got none.")
    for name in names:
        if name not in _NAMES:
            raise ValueError(f"decoders: expected some of {', '.join(_NAMES)}, got {name!r}.")
    if len(set(names)) < len(names):
        raise ValueError(f"decoders: expected each once, got {' '.join(names)}.")


def chosen_decoders(settings: Settings, responses: Responses) -> tuple[str, ...]:
    """Return the names of the decoders, by default all that fit the responses.

    Raises:
        ValueError: for one of counts where responses are below 0.
    """
    names = settings.decoding.decoders
    if names is None:
        left_out = set() if responses.is_count else {"poisson"}
        return tuple(name for name in _NAMES if name not in left_out)
    if "poisson" in names and not responses.is_count:
        raise ValueError(
            "decoders: expected none of counts (poisson), as the responses are not spike counts, got "
            f"{' '.join(names)}."
        )
    return names


class Network(NamedTuple):
    """Settings of learning one network.

    Attributes:
        target: what its outputs are.
        n_hidden: hidden units.
        step_size: of gradient descent.
        n_steps: of gradient descent.
        l1: as in ``DecodingObjective``.
        l2: as in ``DecodingObjective``.
    """

    target: Literal["circle", "degrees", "bins"]
    n_hidden: int
    step_size: float
    n_steps: int
    l1: float = 0.0
    l2: float = 0.0


def network_of(name: str, learning: Learning, n_neurons: int) -> Network:
    """Return how the network decoder of that name is learned."""
    if name == "network-regression":
        of_circle = learning.regression_step_size, learning.regression_steps
        return Network("circle", learning.regression_hidden, *of_circle)
    if name == "network-degrees":
        n_steps = learning.degrees_steps
        if n_steps is None:
            n_steps = min(round(_COURSE_DEGREES_STEPS * _COURSE_NEURONS / n_neurons), 1000)
        return Network("degrees", learning.regression_hidden, learning.degrees_step_size, n_steps)
    return Network(
        "bins",
        learning.n_hidden,
        learning.step_size,
        learning.n_steps,
        l1=learning.l1 if "-l1" in name else 0.0,
        l2=learning.l2 if "-l2" in name else 0.0,
    )


def make_decoder(name: str, settings: Settings, responses: Responses, bins: AngleBins) -> AbstractDecoder:
    """Return a decoder by its name."""
    period, is_count = bins.period_degrees, responses.is_count
    if name in NETWORKS:
        learned = network_of(name, settings.learning, responses.responses.shape[1])
        options: dict[str, Any] = {**learned._asdict(), "seed": settings.learning.seed}
        if options.pop("target") == "bins":
            return nc.NetworkClassifier(bins, **options)
        return nc.NetworkRegression(learned.target, period, **options)  # type: ignore[arg-type]
    # Bumps no narrower than what is asked of them, and never wider apart than 1.5 widths.
    width = 10.0 * period / 360
    decoder = {
        "bump-ridge": lambda: nc.BumpRidge(period, width_degrees=width),
        "sincos-ridge": lambda: nc.SinCosRidge(period),
        "population-vector": lambda: nc.PopulationVector(period),
        "poisson": lambda: nc.PoissonDecoder(bins),
        "gaussian": lambda: nc.GaussianDecoder(bins, square_root=is_count),
        "gaussian-independent": lambda: nc.GaussianDecoder(bins, shrinkage=1.0, square_root=is_count),
        "multinomial": lambda: nc.MultinomialDecoder(bins, ElasticNet(0.0, 0.01)),
    }[name]()
    if not settings.decoding.tune or name not in ("bump-ridge", "sincos-ridge", "multinomial"):
        return decoder
    where = _multinomial_strength if name == "multinomial" else _strength
    return nc.Tuned(decoder, jnp.array(_STRENGTHS), where)


def _strength(decoder):
    return decoder.strength


def _multinomial_strength(decoder):
    return decoder.penalty.l2
