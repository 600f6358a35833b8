"""Recordings of visual cortex during gratings: macaque spike counts and mouse calcium traces."""

import hashlib
import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import pooch
import scipy.io
from jaxtyping import Array, Float, Int, UInt8

from .._arrays import device_array
from ._files import read_arrays
from ._sets import find_file

__all__ = [
    "GratingRecording",
    "MacaqueSession",
    "MouseSession",
    "check_file_digest",
    "macaque_sessions",
    "mouse_sessions",
]

Kind = Literal["static", "moving"]
Window = tuple[float | int, float | int]


class _Set(NamedTuple):
    name: str  # of the file in the data folder
    digest: str
    origin: str


_MACAQUE = {
    kind: _Set(
        f"v1_gratings/data_v1_binned_{kind}.mat",
        digest,
        "It is distributed at http://bethgelab.org/datasets/v1gratings/ (CC BY-NC-ND 3.0)",
    )
    for kind, digest in (
        ("static", "sha256:041e1419a43f243cc3f243f86fce62de6d5276165e2f40b2fd0641d733e86886"),
        ("moving", "sha256:5b3860886488a735b5d00f86b3113a12194f91fc377fa063dc6cfeae07b3fe80"),
    )
}
_MOUSE = _Set(
    "mouse_v1_gratings/park2024_gratings.npz",
    "sha256:51a31b4e6261ab94c6de222b60aa2b8eaf5a6321db7ecf7f7371e2ff271402b5",
    "It holds the sample data of the public repository surlab/Park_et_al (MIT License)",
)
_PERIODS = {"static": 180.0, "moving": 360.0}
_ANGLE_FIELDS = {"static": "orientation", "moving": "direction"}
_MOUSE_CONTROLS = ("mrcuts28", "mrcuts29", "mrcuts30")


class GratingRecording(NamedTuple):
    """Responses of neurons in each trial, and the angle of the grating shown in it.

    Attributes:
        responses: one number a trial and neuron, float32.
        angles_degrees: of the gratings, as the file has them, float32.
        period_degrees: after which angles come round: 180 for orientations, 360 for directions.
        name: of the session.
        neurons: the number of each neuron in the file, from 0.
        n_recorded: how many neurons the file has.
    """

    responses: Float[Array, "trials neurons"]
    angles_degrees: Float[Array, " trials"]
    period_degrees: float
    name: str
    neurons: Int[np.ndarray, " neurons"]
    n_recorded: int

    @property
    def n_dropped(self) -> int:
        """The number of neurons of the file that were left out."""
        return self.n_recorded - len(self.neurons)


class MacaqueSession(NamedTuple):
    """Spike counts of one session in primary visual cortex of a macaque, in bins of 10 ms, as stored.

    Attributes:
        name: the kind and the place in the file, ``"static 0"``.
        kind: ``"static"`` gratings, or ``"moving"`` ones.
        date: of the recording, as the file writes it.
        subject: the monkey, ``"H"`` or ``"D"``.
        spikes: counts. The repetitions are those of the condition: which of two conditions came first is not
            in the file.
        times_ms: the centres of the bins after stimulus onset, −195 to 695. The stimulus lasts 500 ms.
        angles_degrees: orientation or direction of each condition: multiples of 22.5° for monkey H, and for
            monkey D whole degrees as much as 1.5° off them (such as 22 and 158; 336), thus not evenly spaced.
            Four static sessions of seven orientations are without 157.5°. The bins of
            ``AngleBins(8, 180, -11.25)`` and ``AngleBins(16, 360, -11.25)`` each hold one of them.
        contrasts_percent: contrast of each condition. One in moving sessions, two in static ones.
        contamination: estimated share of each unit's spikes that are another neuron's.
        tetrode: on which each unit was recorded.
    """

    name: str
    kind: Kind
    date: str
    subject: str
    spikes: UInt8[np.ndarray, "units conditions bins repetitions"]
    times_ms: Float[np.ndarray, " bins"]
    angles_degrees: Float[np.ndarray, " conditions"]
    contrasts_percent: Float[np.ndarray, " conditions"]
    contamination: Float[np.ndarray, " units"]
    tetrode: Int[np.ndarray, " units"]

    def recording(
        self,
        window_ms: Window = (0, 500),
        *,
        max_contamination: float | int | None = 0.05,
        contrast: Literal["highest"] | float | int = "highest",
    ) -> GratingRecording:
        """Count each unit's spikes in a window.

        Args:
            window_ms: (a, b), after stimulus onset; the bins whose centres lie in [a, b) are summed.
            max_contamination: keep the units whose contamination is below it; None keeps all. The papers used
                0.05.
            contrast: ``"highest"``, or one of ``contrasts_percent``.

        Returns:
            Counts, a trial for each condition and repetition: all conditions of the first repetition, in the
            order of the file, then of the second, and so on.

        Raises:
            ValueError: if no bin's centre lies in the window, no unit is clean enough, or there is no such
                contrast.
        """
        is_in_window = _in_window("window_ms", window_ms, self.times_ms)
        highest = float(np.max(self.contrasts_percent))
        shown = self.contrasts_percent == (highest if contrast == "highest" else contrast)
        if not shown.any():
            known = ", ".join(f"{value:g}" for value in np.unique(self.contrasts_percent))
            raise ValueError(f"contrast: expected 'highest' or one of {known} (percent), got {contrast!r}.")
        is_kept = np.ones(len(self.spikes), bool)
        if max_contamination is not None:
            is_kept = self.contamination < max_contamination
        if not is_kept.any():
            raise ValueError(
                f"max_contamination: expected to keep a unit of {self.name}, whose least is "
                f"{np.min(self.contamination):.3g}, got {max_contamination}."
            )
        counts = self.spikes[is_kept][:, shown][:, :, is_in_window].sum(axis=2, dtype=np.int64)
        n_repetitions = counts.shape[-1]
        return GratingRecording(
            responses=device_array(counts.transpose(2, 1, 0).reshape(-1, len(counts)).astype(np.float32)),
            angles_degrees=device_array(
                np.tile(self.angles_degrees[shown], n_repetitions).astype(np.float32)
            ),
            period_degrees=_PERIODS[self.kind],
            name=self.name,
            neurons=np.flatnonzero(is_kept),
            n_recorded=len(self.spikes),
        )


class MouseSession(NamedTuple):
    """Calcium traces of one session in visual cortex of a mouse during drifting gratings, as stored.

    Attributes:
        name: date, animal and field of view, ``"230809_mrcuts28_fov4"``.
        traces: the neurons' calcium signals.
        directions_degrees: of the gratings, multiples of 45°.
        times_s: of the samples after stimulus onset, −1 to 2 at 16 Hz.
        speed: of the animal's running.
        pupil: its size.
        is_control: whether the animal is of the control group; in the others GABA transporter 3 was edited.
    """

    name: str
    traces: Float[np.ndarray, "trials neurons times"]
    directions_degrees: Float[np.ndarray, " trials"]
    times_s: Float[np.ndarray, " times"]
    speed: Float[np.ndarray, "trials times"]
    pupil: Float[np.ndarray, "trials times"]
    is_control: bool

    def recording(
        self,
        response_window_s: Window = (0, 2),
        baseline_window_s: Window | None = (-1, 0),
        *,
        orientation: bool = False,
    ) -> GratingRecording:
        """Take each neuron's mean in a window, minus its mean in another.

        Args:
            response_window_s: (a, b), after stimulus onset; the samples with a ≤ time < b are averaged.
            baseline_window_s: the same for what is subtracted; None subtracts nothing.
            orientation: whether to take angles modulo 180°, so that opposite directions are one class.

        Returns:
            Means in the units of ``traces``, trials and neurons in the order of the file.

        Raises:
            ValueError: if no sample lies in a window.
        """
        during = _in_window("response_window_s", response_window_s, self.times_s)
        responses = self.traces[..., during].mean(axis=-1, dtype=np.float64)
        if baseline_window_s is not None:
            before = _in_window("baseline_window_s", baseline_window_s, self.times_s)
            responses -= self.traces[..., before].mean(axis=-1, dtype=np.float64)
        period = 180.0 if orientation else 360.0
        return GratingRecording(
            responses=device_array(responses.astype(np.float32)),
            angles_degrees=device_array(np.mod(self.directions_degrees, period).astype(np.float32)),
            period_degrees=period,
            name=self.name,
            neurons=np.arange(responses.shape[1]),
            n_recorded=responses.shape[1],
        )


def macaque_sessions(kind: Kind = "static") -> tuple[MacaqueSession, ...]:
    """Load spike counts of single units in primary visual cortex of macaques during oriented gratings.

    ``data_v1_binned_static.mat`` or ``data_v1_binned_moving.mat`` is looked for in the folder
    ``v1_gratings`` of the folder that the environment variable ``NEUROJAX_DATA`` names, then in
    ``v1_gratings`` in the cache (``pooch.os_cache("neurojax")``). It is not downloaded: it is to be had at
    http://bethgelab.org/datasets/v1gratings/. It is accepted by its SHA-256, and nothing is written.

    Args:
        kind: ``"static"`` for 17 sessions of 10 to 27 units, 7 or 8 orientations, 2 contrasts and 10 to 85
            repetitions; ``"moving"`` for 27 sessions of 14 to 38 units, 16 directions, full contrast and 5 to
            129 repetitions.

    Returns:
        The sessions, in the order of the file.

    Raises:
        FileNotFoundError: if the file is not there. The message says where to get it and where to put it.
        ValueError: if ``kind`` is another word, or the file is not the published one.

    Reference: Ecker, Berens, Keliris, Bethge, Logothetis, Tolias (2010), Decorrelated neuronal firing in
    cortical microcircuits, Science 327, 584-587 (moving); Berens, Ecker, Cotton, Ma, Bethge, Tolias (2012), A
    fast and simple population code for orientation in primate V1, Journal of Neuroscience 32, 10618-10626
    (static). Data by A. S. Tolias, A. S. Ecker, P. Berens and M. Bethge, licensed CC BY-NC-ND 3.0: give this
    attribution, no commercial use, distribute no converted copies.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {get_args(Kind)}, got {kind!r}.")
    # Cells and structures, which read_arrays leaves out; the digest vouches for the file.
    cells = scipy.io.loadmat(_find(_MACAQUE[kind]))["data"].reshape(-1)
    return tuple(_macaque_session(kind, i, cell.reshape(-1)[0]) for i, cell in enumerate(cells))


def mouse_sessions() -> tuple[MouseSession, ...]:
    """Load calcium traces of neurons in visual cortex of mice during drifting gratings.

    ``park2024_gratings.npz`` is looked for in the folder ``mouse_v1_gratings`` of the folder that the
    environment variable ``NEUROJAX_DATA`` names, then in ``mouse_v1_gratings`` in the cache
    (``pooch.os_cache("neurojax")``), and accepted by its SHA-256.

    Returns:
        Seven sessions, of 18 to 74 neurons, each 128 trials (8 directions, 16 times each) of 49 samples.
        Three are of control animals (``is_control``); prefer these for what is said of normal cortex.

    Raises:
        FileNotFoundError: if the file is not there.
        ValueError: if the file is another one.

    Reference: Park et al. (2024), Astrocytic modulation of population encoding in mouse visual cortex via
    GABA transporter 3 revealed by multiplexed CRISPR/Cas9 gene editing; sample data in the public repository
    surlab/Park_et_al, MIT License, Copyright (c) 2024 Jiho.
    """
    arrays = read_arrays(_find(_MOUSE))
    names = sorted(name.removesuffix("_traces") for name in arrays if name.endswith("_traces"))
    return tuple(
        MouseSession(
            name=name,
            traces=arrays[f"{name}_traces"],
            directions_degrees=arrays[f"{name}_direction"].astype(np.float32),
            times_s=arrays["time"],
            speed=arrays[f"{name}_speed"],
            pupil=arrays[f"{name}_pupil"],
            is_control=any(animal in name for animal in _MOUSE_CONTROLS),
        )
        for name in names
    )


def _macaque_session(kind: Kind, number: int, fields: np.void) -> MacaqueSession:
    # MATLAB has no vectors: what is one lies along the rows in some sessions, along the columns in others.
    conditions = fields["conditions"].reshape(-1)

    def of_conditions(name):
        return np.array([condition[name].item() for condition in conditions], np.float64)

    return MacaqueSession(
        name=f"{kind} {number}",
        kind=kind,
        date=fields["date"].item(),
        subject=fields["subject"].item(),
        spikes=fields["spikes"],
        times_ms=fields["times"].reshape(-1).astype(np.float64),
        angles_degrees=of_conditions(_ANGLE_FIELDS[kind]),
        contrasts_percent=of_conditions("contrast"),
        contamination=fields["contamination"].reshape(-1),
        tetrode=fields["tetrode"].reshape(-1).astype(np.int64),
    )


def _find(wanted: _Set) -> Path:
    path = find_file((wanted.name,))
    if path is None:
        raise FileNotFoundError(
            f"{wanted.name}: expected this file in the folder that NEUROJAX_DATA names "
            f"({os.environ.get('NEUROJAX_DATA') or 'unset'}) or in the cache ({pooch.os_cache('neurojax')}), "
            f"got none. {wanted.origin}; put it there under that name, unchanged."
        )
    check_file_digest(path, wanted.digest)
    return path


def check_file_digest(path: Path, expected: str) -> None:
    """Raise ``ValueError`` unless the file has the digest, ``algorithm:hexadecimal``."""
    algorithm, digest = expected.split(":")
    with path.open("rb") as file:
        came = hashlib.file_digest(file, algorithm).hexdigest()
    if came != digest:
        raise ValueError(f"{path}: expected the published file ({algorithm} {digest}), got {came}.")


def _in_window(name: str, window: Window, times: np.ndarray) -> np.ndarray:
    is_inside = (times >= window[0]) & (times < window[1])
    if not is_inside.any():
        raise ValueError(
            f"{name}: expected a window [a, b) with a sample in it, of those from {times[0]:g} to "
            f"{times[-1]:g}, got {window}."
        )
    return is_inside
