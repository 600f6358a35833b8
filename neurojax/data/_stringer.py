"""Mouse primary visual cortex during gratings, as a course on computational neuroscience hands it out."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from .._arrays import device_array
from .._checks import check_finite
from .._paths import user_path
from ._files import read_arrays
from ._gratings import GratingRecording, check_file_digest
from ._sets import download_file, find_file

__all__ = ["StringerSplit", "stringer_orientations", "stringer_split"]


class _File(NamedTuple):
    name: str
    url: str
    digest: str


_TRIALS = _File(
    "W3D4_stringer_oribinned1.npz",
    "https://osf.io/683xc/download",
    "md5:436599dfd8ebe6019f066c38aed20580",
)
_SPLIT = _File(
    "W3D4_stringer_oribinned6_split.npz",
    "https://osf.io/p3aeb/download",
    "md5:b3f7245c6221234a676b71a1f43c3bb5",
)


class StringerSplit(NamedTuple):
    """Responses of the same neurons to the same gratings, twice.

    Attributes:
        train: responses to learn from.
        test: responses in other trials of the same gratings.
        angles_degrees: the direction of each grating, on a circle of 360°.
    """

    train: Float[Array, "stimuli neurons"]
    test: Float[Array, "stimuli neurons"]
    angles_degrees: Float[Array, " stimuli"]


def stringer_orientations(path: str | Path | None = None, *, check_digest: bool = True) -> GratingRecording:
    """Load responses of 23,589 neurons of mouse primary visual cortex to gratings of 360 directions.

    ``W3D4_stringer_oribinned1.npz`` is looked for in the folder that the environment variable
    ``NEUROJAX_DATA`` names, then in the cache (``pooch.os_cache("neurojax")``), and is downloaded there
    otherwise, from https://osf.io/683xc. It is accepted by its MD5.

    Args:
        path: a file to read in place of that.
        check_digest: whether a file other than the published one is refused; False takes any of its layout,
            ``resp`` (trials, neurons) and ``stimuli`` (trials,) in degrees.

    Returns:
        Two-photon calcium responses, z-scored, float32 (360, 23589), binned by 1°, and the directions, on a
        circle of 360°.

    Raises:
        FileNotFoundError: if there is no file at ``path``.
        ValueError: if the file is damaged, another one, of another layout (the message lists the arrays found
            and wanted), of different numbers of trials, or has numbers that are not finite.
        ConnectionError: if there is no file and the download fails.

    Reference: Stringer, Michaelos, Tsyboulski, Lindo, Pachitariu (2021), High-precision coding in visual
    cortex, Cell 184, 2767-2778; file by Neuromatch Academy, Computational Neuroscience (2021).
    """
    path, arrays = _read(_TRIALS, path, ("resp", "stimuli"), check_digest)
    angles = _angles(path, arrays["stimuli"])
    responses = _responses(path, "resp", arrays["resp"], len(angles))
    return GratingRecording(
        responses=device_array(responses),
        angles_degrees=device_array(angles),
        period_degrees=360.0,
        name=path.stem,
        neurons=np.arange(responses.shape[1]),
        n_recorded=responses.shape[1],
    )


def stringer_split(path: str | Path | None = None, *, check_digest: bool = True) -> StringerSplit:
    """Load responses of the neurons of `stringer_orientations` to 60 gratings, in two sets of trials.

    ``W3D4_stringer_oribinned6_split.npz`` is looked for, downloaded (from https://osf.io/p3aeb) and checked
    as the file of `stringer_orientations`.

    Args:
        path: a file to read in place of that.
        check_digest: whether a file other than the published one is refused; False takes any of its layout,
            ``resp_train`` and ``resp_test`` (stimuli, neurons) and ``stimuli`` (stimuli,) in degrees.

    Returns:
        z-scored responses, float32 (60, 23589) each, binned by 6°, and the directions, on a circle of 360°.

    Raises:
        FileNotFoundError: if there is no file at ``path``.
        ValueError: if the file is damaged, another one, of another layout (the message lists the arrays found
            and wanted), of different numbers of stimuli or neurons, or has numbers that are not finite.
        ConnectionError: if there is no file and the download fails.

    Reference: as `stringer_orientations`.
    """
    path, arrays = _read(_SPLIT, path, ("resp_train", "resp_test", "stimuli"), check_digest)
    angles = _angles(path, arrays["stimuli"])
    train, test = (_responses(path, name, arrays[name], len(angles)) for name in ("resp_train", "resp_test"))
    if train.shape != test.shape:
        raise ValueError(
            f"{path}: expected resp_test to have the neurons of resp_train, {train.shape[1]}, got "
            f"{test.shape[1]}."
        )
    return StringerSplit(device_array(train), device_array(test), device_array(angles))


def _read(wanted: _File, path, names: tuple[str, ...], is_published: bool):
    if path is None:
        path = find_file((wanted.name,)) or download_file(wanted.url, wanted.name, wanted.digest)
    path = user_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file like {wanted.name}, but there is none.")
    if is_published:
        check_file_digest(path, wanted.digest)
    arrays = read_arrays(path)
    if not set(names) <= set(arrays):
        found = ", ".join(sorted(name or "(one without a name)" for name in arrays)) or "none"
        raise ValueError(f"{path}: expected arrays named {', '.join(names)}, got {found}.")
    return path, arrays


def _angles(path: Path, stimuli: np.ndarray) -> np.ndarray:
    if stimuli.ndim != 1 or not len(stimuli) or stimuli.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: expected stimuli to be real numbers (trials,), got {stimuli.dtype} of shape "
            f"{stimuli.shape}."
        )
    return _finite(f"{path}: stimuli", stimuli)


def _responses(path: Path, name: str, responses: np.ndarray, n_trials: int) -> np.ndarray:
    if responses.ndim != 2 or not responses.shape[1] or responses.dtype.kind not in "iuf":
        raise ValueError(
            f"{path}: expected {name} to be real numbers (trials, neurons), got {responses.dtype} of shape "
            f"{responses.shape}."
        )
    if len(responses) != n_trials:
        raise ValueError(
            f"{path}: expected {name} to have a row for each of {n_trials} stimuli, got {len(responses)}."
        )
    return _finite(f"{path}: {name}", responses)


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    check_finite(name, values)
    return values
