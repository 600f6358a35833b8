"""The trials that ``neurojax decode`` and ``neurojax encode`` read: simulated, recorded, or from a file."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import data
from .. import neural_coding as nc
from .._paths import user_path
from ..neural_coding import AngleBins
from ._devices import say

__all__ = [
    "OF_FILES",
    "Recorded",
    "Recording",
    "Responses",
    "angle_bins",
    "as_responses",
    "check_file_setting",
    "read_responses",
    "unused",
]

_BIN_DEGREES = 18  # of continuous angles, as in the course
_LEAST_REPEATS = 4  # of a stimulus, to be a class of its own
_N_NAMED = 5
_SUFFIXES = (".csv", ".tsv", ".npz", ".mat")
OF_FILES = frozenset({"period_degrees", "angle_column", "array", "leave_out"})  # settings that files have


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Settings of the recording, which both commands have."""

    window_ms: tuple[float, float] | None = None
    """Milliseconds after stimulus onset in which spikes are counted, a and b of [a, b) (macaque); by default
    0 500."""
    window_s: tuple[float, float] | None = None
    """Seconds after stimulus onset over which traces are averaged (mouse; a baseline of the second before is
    taken off); by default 0 2."""
    max_contamination: float | None = None
    """Units whose contamination, a share of their spikes, is below it are kept (macaque); by default 0.05;
    above 1 for all units."""
    contrast: float | None = None
    """Contrast of the gratings in percent (macaque); by default the highest of the session."""
    drop_constant: bool = False
    """Leave out neurons that do not vary or hold NaN; they are reported in any case."""
    angle_column: str | None = None
    """Name of the column or array of angles in degrees (files); by default one called angle, angles,
    angle_degrees, angles_degrees, direction, orientation or theta."""
    array: str | None = None
    """Name of the array of responses (.npz and .mat files); by default responses, or the only matrix."""
    leave_out: tuple[str, ...] | None = None
    """Names of columns that are not neurons (.csv and .tsv files)."""


class Recording(NamedTuple):
    """The trials to read.

    Attributes:
        word: of the data, ``"file"`` for a path.
        path: of the file.
        settings: those that such data have, by name, each with a value.
        drop_constant: whether neurons that do not vary or hold NaN are left out.
    """

    word: str
    path: Path
    settings: Mapping[str, Any]
    drop_constant: bool


class Responses(NamedTuple):
    """Trials as the commands see them.

    Attributes:
        responses: (trials, neurons), finite.
        angles_degrees: of each trial.
        period_degrees: after which they come round.
        name: of the recording.
        neurons: the number of each neuron in the recording, from 0.
        is_count: whether all are whole numbers ≥ 0.
        notes: what a user should know of them, by name.
    """

    responses: Array
    angles_degrees: Array
    period_degrees: float
    name: str
    neurons: np.ndarray
    is_count: bool
    notes: Mapping[str, str]


def check_file_setting(value: str, words: Sequence[str]) -> str:
    """Return the word of the data, ``"file"`` for the path of one that is there.

    Raises:
        ValueError: for what is neither a word nor the path of such a file.
        FileNotFoundError: if there is no such file.
    """
    if value in words:
        return value
    path = user_path(value)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"data: expected {', '.join(words)} or a path to a .csv, .tsv, .npz or .mat file, got {value}."
        )
    if not path.is_file():
        raise FileNotFoundError(f"data: expected a file, but there is none at {value}.")
    return "file"


def unused(section: Any, of_what: str, present: Collection[str]) -> None:
    """Raise ``ValueError`` for a setting with default ``None`` that was given though it has no use."""
    for setting in dataclasses.fields(section):
        value = getattr(section, setting.name)
        if setting.default is None and value is not None and setting.name not in present:
            raise ValueError(
                f"{setting.name}: expected None, as by default, since {of_what} does not use it, got {value}."
            )


def read_responses(recording: Recording, key: Array) -> Responses:
    """Load or simulate the trials.

    Raises:
        ValueError: for a session that there is not, a file of another layout, and responses that are not
            finite unless they are to be left out.
        FileNotFoundError: for a recording that is not there.
    """
    settings = recording.settings
    match recording.word:
        case "simulated":
            names = ("n_neurons", "n_trials", "period_degrees", "responses")
            drawn = nc.simulate(key, **{name: settings[name] for name in names})
            values, angles = drawn.responses, drawn.angles_degrees
            return as_responses(values, angles, settings["period_degrees"], "simulated", recording)
        case "file":
            values, angles, _ = data.load_responses(
                recording.path,
                angle=settings.get("angle_column"),
                responses=settings.get("array"),
                leave_out=settings.get("leave_out", ()),
            )
            return as_responses(values, angles, settings["period_degrees"], recording.path.name, recording)
        case "stringer":
            return _of_recording(data.stringer_orientations(), recording)
        case "mouse":
            session = _session(data.mouse_sessions(), settings["session"])
            is_orientation = settings["period_degrees"] == 180
            read = session.recording(settings["window_s"], orientation=is_orientation)
            shown = _of_recording(read, recording)
            animal = "control" if session.is_control else "GABA transporter 3 edited"
            return shown._replace(notes={**shown.notes, "animal": animal})
        case word:
            kind = "moving" if word == "macaque-moving" else "static"
            session = _session(data.macaque_sessions(kind), settings["session"])
            return _of_recording(
                session.recording(
                    settings["window_ms"],
                    max_contamination=settings["max_contamination"],
                    contrast=settings.get("contrast", "highest"),
                ),
                recording,
            )


def _session(sessions: Sequence[Any], number: int) -> Any:
    if number >= len(sessions):
        raise ValueError(f"session: expected a number from 0 to {len(sessions) - 1}, got {number}.")
    return sessions[number]


def _of_recording(read: data.GratingRecording, recording: Recording) -> Responses:
    shown = as_responses(read.responses, read.angles_degrees, read.period_degrees, read.name, recording)
    notes = dict(shown.notes)
    if read.n_dropped:
        notes["units left out"] = f"{read.n_dropped} of {read.n_recorded}, by contamination"
    return shown._replace(neurons=read.neurons[shown.neurons], notes=notes)


def as_responses(values, angles, period_degrees, name: str, recording: Recording) -> Responses:
    """Check and describe trials, and leave out neurons as asked."""
    values = np.asarray(values)
    low, high = np.min(angles), np.max(angles)
    say(f"data: {values.shape[0]} trials of {values.shape[1]} neurons, angles {low:.4g}° to {high:.4g}°")
    is_constant = np.asarray(nc.constant_neurons(jnp.asarray(values)))
    is_broken = ~np.all(np.isfinite(values), axis=0)
    notes = {}
    if np.any(is_broken) and not recording.drop_constant:
        raise ValueError(
            f"data: expected finite responses, got NaN or infinity in {_named(is_broken)}; --drop-constant "
            "leaves them out."
        )
    if np.any(is_constant):
        what = "left out" if recording.drop_constant else "kept; --drop-constant leaves them out"
        notes["neurons without change"] = f"{_named(is_constant)}, {what}"
    kept = ~is_constant if recording.drop_constant else np.ones(len(is_constant), bool)
    if np.all(is_constant):
        raise ValueError(f"data: expected neurons that vary, got {len(is_constant)} that do not.")
    values = values[:, kept]
    is_count = bool(np.all(values >= 0) and np.all(values == np.round(values)))
    arrays = jnp.asarray(values), jnp.asarray(angles)
    return Responses(*arrays, float(period_degrees), name, np.flatnonzero(kept), is_count, notes)


def _named(is_such: np.ndarray) -> str:
    numbers = np.flatnonzero(is_such)
    more = ", …" if len(numbers) > _N_NAMED else ""
    return f"{len(numbers)} of {len(is_such)} neurons ({', '.join(map(str, numbers[:_N_NAMED]))}{more})"


def angle_bins(responses: Responses, n_bins: int | None = None) -> AngleBins:
    """Return bins of the angle: so many, or one a stimulus where these are repeated, or of 18°."""
    period = responses.period_degrees
    if n_bins is not None:
        return AngleBins(n_bins, period)
    angles = np.mod(np.round(np.asarray(responses.angles_degrees, np.float64), 3), period)
    if len(np.unique(angles)) * _LEAST_REPEATS <= len(angles):
        return AngleBins.around(responses.angles_degrees, period)
    return AngleBins(round(period / _BIN_DEGREES), period)
