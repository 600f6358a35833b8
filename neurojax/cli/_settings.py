"""Settings of the commands as nested dataclasses, read from flags and from a run's ``config.json``."""

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array

from .. import data
from .._checks import check_at_least
from .._paths import user_path
from .._terminal import is_shown
from ..data._files import fractions
from ..distributed import all_processes
from ..runs import RunFolder, changed_settings, create_run, open_run, plain_settings, write_atomically
from ._continuation import claim
from ._devices import only_on_main, say, together, with_own_devices

__all__ = [
    "Output",
    "check_counts",
    "check_file_settings",
    "decisive",
    "describe_rows",
    "from_plain",
    "image_shape",
    "is_progress_shown",
    "parse",
    "plain_data",
    "read_rows_file",
    "start_run",
    "table",
    "write_json",
]

_Settings = TypeVar("_Settings")

_FEWEST_ROWS = 16  # so that two are held out
_ADDED = ("array", "layout", "angle_column", "leave_out")  # settings that checkpoints of older runs lack

# What a resumed run may change: how far it goes, and where and how it is shown.
_MAY_CHANGE = ("learning.n_steps", "output.resume", "output.runs", "output.name", "output.progress")


@dataclass(frozen=True)
class Output:
    """The folder of the run."""

    runs: Path = Path("runs")
    """Folder that holds runs."""
    name: str | None = None
    """Name of the run, by default that of the command; a number is added if it is taken."""
    resume: Path | None = None
    """A run folder to go on with; its settings are the defaults, and n-steps may grow."""
    progress: bool | None = None
    """Progress bar; by default if standard error is a terminal."""


def parse(
    kind: type[_Settings], command: str, arguments: Sequence[str], default: _Settings | None = None
) -> tuple[_Settings, RunFolder | None]:
    """Read flags into ``kind``; with ``--resume RUN`` the run's own settings are the defaults.

    Args:
        kind: a dataclass of dataclasses.
        command: its name.
        arguments: the flags.
        default: the settings that flags change, if they are not those of ``kind``.

    Raises:
        ValueError: for a run whose ``config.json`` does not fit.
        FileNotFoundError: if ``RUN`` is no run folder.
    """
    words = list(arguments)
    run, default = None, kind() if default is None else default
    at = next((i for i, word in enumerate(words) if word.split("=")[0] == "--resume"), None)
    if at is not None and at + 1 < len(words) + ("=" in words[at]):
        folder = words[at].split("=", 1)[1] if "=" in words[at] else words[at + 1]
        run = open_run(folder)
        plain = with_own_devices(run.read_config(), kind)
        default = from_plain(kind, plain, str(run.config_path))
    settings = tyro.cli(
        kind, args=words, prog=f"neurojax {command}", default=default, config=(tyro.conf.OmitArgPrefixes,)
    )
    return settings, run


def check_counts(settings: Any, **least: int) -> None:
    """Check the whole numbers of ``settings`` named, each of at least the number given, or ``None``."""
    for name, number in least.items():
        count = getattr(settings, name)
        if count is not None:
            check_at_least(name, count, number)


def start_run(
    command: str, settings: Any, run: RunFolder | None, *, may_change: Sequence[str] = ()
) -> RunFolder:
    """Make the run's folder, or check the settings of a resumed run; say where, and tell all processes.

    Args:
        command: the name of a run without one.
        settings: of the command, with ``learning.n_steps`` and ``output``.
        run: the run to go on with, if any.
        may_change: the sections whose settings a resumed run may change, as it may what no result depends on.

    Raises:
        ValueError: if a setting differs that may not; says which, from what to what.
        OSError: if the folder cannot be made, or is not the same in all processes.
    """
    with only_on_main() as is_main:
        if is_main and run is None:
            run = create_run(settings.output.runs, settings.output.name or command, settings)
            claim(run.path, "--runs")
        elif is_main and run is not None:
            claim(run.path, "--resume")
            _check_changes(settings, run.read_config(), (*may_change, "devices"))
            write_json(run.config_path, plain_settings(settings))
    run = RunFolder(Path(all_processes(None if run is None else str(run.path))[0]))
    with together():
        if not run.config_path.is_file():
            raise OSError(f"runs: expected a folder that all processes share, but {run.path} is not here.")
    say(f"run folder: {run.path}")
    return run


def _check_changes(settings: Any, before: Mapping[str, Any], may_change: Sequence[str]) -> None:
    """Raise ``ValueError`` for what a resumed run must not change."""
    # The config of an older run lacks newer settings: it ran with their defaults.
    kind = type(settings)
    before = plain_settings(from_plain(kind, with_own_devices(dict(before), kind), "config.json"))
    n_before = before["learning"]["n_steps"]
    if settings.learning.n_steps < n_before:
        raise ValueError(
            f"n_steps: expected at least {n_before}, as before, got {settings.learning.n_steps}."
        )
    fixed = {
        name: pair
        for name, pair in changed_settings(before, plain_settings(settings)).items()
        if name not in _MAY_CHANGE and name.split(".")[0] not in may_change
    }
    if fixed:
        text = ", ".join(f"{name.split('.')[-1]} {old!r} → {new!r}" for name, (old, new) in fixed.items())
        raise ValueError(f"--resume: expected the settings of the run, got changes: {text}.")


def decisive(settings: Any) -> dict[str, Any]:
    """Return the settings that decide what is learned: not where, on what, and how it is measured after."""
    apart = ("likelihood", "devices", "output")
    plain = {name: value for name, value in plain_settings(settings).items() if name not in apart}
    return plain | {"data": plain_data(settings.data)}


def plain_data(settings: Any) -> dict[str, Any]:
    """Return the settings of the data, as older runs have them too: a newer one only where it was given."""
    plain = plain_settings(settings)
    return {name: value for name, value in plain.items() if value is not None or name not in _ADDED}


def is_progress_shown(output: Output) -> bool:
    """Return whether there is a progress bar: as asked, or if standard error is a terminal."""
    return is_shown(output.progress)


def write_json(path: Path, values: Any) -> None:
    """Write plain values as indented JSON, whole or not at all."""
    text = json.dumps(values, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_rows_file(
    path: Path,
    sets: Sequence[str],
    *,
    name: str | None = None,
    is_bounded: bool = True,
    has_colour: bool = False,
) -> Array:
    """Read rows or images from an array in a file; uint8 and uint16 become fractions of their largest value.

    Args:
        path: an .npy, .npz or .mat file.
        sets: the words that the setting ``data`` knows besides a path, for its message.
        name: the array, where the file has several.
        is_bounded: whether numbers must be in [0, 1].
        has_colour: whether images may have a last axis of red, green and blue.

    Raises:
        ValueError: for what is no such file.
        FileNotFoundError: if there is none.
    """
    path = user_path(path)
    if path.suffix.lower() not in (".npy", ".npz", ".mat"):
        words = ", ".join(sets)
        raise ValueError(f"data: expected {words} or a path to an .npy, .npz or .mat file, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"data: expected a file, but there is none at {path}.")
    values = data.read_array(path, name, n_axes=(2, 3, 4) if has_colour else (2, 3))
    is_coloured = has_colour and values.ndim == 4 and values.shape[-1] == 3
    is_rows = values.ndim in (2, 3) or is_coloured
    if values.dtype.kind not in "biuf" or not is_rows or len(values) < _FEWEST_ROWS or not values.size:
        colour = " or (images, rows, columns, 3)" if has_colour else ""
        raise ValueError(
            f"data: expected real (rows, values) or (images, rows, columns){colour}, at least {_FEWEST_ROWS} "
            f"of them, got {values.dtype} of shape {values.shape} in {path}."
        )
    with np.errstate(over="ignore"):  # integers of 0 and 1 are no shades
        values = (fractions(values) if values.max() > 1 else values).astype(np.float32)
    if n_wrong := np.count_nonzero(~np.isfinite(values)):
        raise ValueError(f"data: expected finite numbers, got {n_wrong} that are NaN or infinite in {path}.")
    if is_bounded and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"data: expected numbers in [0, 1], got {values.min():.4g} to {values.max():.4g} in {path}."
        )
    return jnp.asarray(values)


def check_file_settings(settings: Any, sets: Collection[str], names: Sequence[str] = ("array",)) -> None:
    """Raise ``ValueError`` if a setting of files was given though the data are no file."""
    for name in names:
        if getattr(settings, name) is not None and settings.data in sets:
            raise ValueError(f"{name}: applies to a file; leave it out for --data {settings.data}.")


def describe_rows(parts: Sequence[Any], word: str | None = None) -> str:
    """Return in words what was read: the number of rows or images, their shapes and their range.

    Args:
        parts: arrays (rows, values) or (images, rows, columns, …).
        word: the word for several rows, whose singular lacks its last letter; by default rows or images.
    """
    shapes = sorted({part.shape[1:] for part in parts})
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    sizes = [" × ".join(map(str, shape)) for shape in shapes]
    size = sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}"
    is_flat = len(shapes[0]) == 1
    word, unit = word or ("rows" if is_flat else "images"), " values" if is_flat else ""
    count = sum(map(len, parts))
    return f"{count} {word if count > 1 else word[:-1]} of {size}{unit}, {low:.3g} to {high:.3g}"


def image_shape(shape: Sequence[int]) -> tuple[int, int] | tuple[int, int, int]:
    """Return the form of a row as an image: its own, a square if it can be one, else a line."""
    match list(shape):
        case [rows, columns, colours]:
            return rows, columns, colours
        case [rows, columns]:
            return rows, columns
        case _:
            (size,) = shape
            side = math.isqrt(size)
            return (side, side) if side**2 == size else (1, size)


def table(lines: Mapping[str, str]) -> str:
    """Return names and values as lines, the names flush right."""
    width = max(map(len, lines))
    return "\n".join(f"{name:>{width}}  {value}" for name, value in lines.items())


def from_plain(kind: type[_Settings], plain: Mapping[str, Any], source: str) -> _Settings:
    """Build a nested dataclass from the dict that ``plain_settings`` made of one.

    A setting that is missing takes its default: the run is older than the setting.

    Raises:
        ValueError: at the first name that is unknown, or missing without a default, or has a value of another
            type.
    """
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    required = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if not isinstance(plain, Mapping) or not required <= set(plain) <= set(fields):
        came = sorted(plain) if isinstance(plain, Mapping) else type(plain).__name__
        raise ValueError(f"{source}: expected the settings {sorted(fields)}, got {f'{came}':.500}.")
    values = {name: _from_plain(hints[name], value, source, name) for name, value in plain.items()}
    return kind(**values)


_SCALARS = {bool: bool, int: int, float: float, str: str, type(None): type(None)}


def _from_plain(hint: Any, value: Any, source: str, name: str) -> Any:
    """Return what JSON made of a value of type ``hint`` as that type, or raise ``ValueError``."""
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, source)  # type: ignore[arg-type]
    parts = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        for part in parts:
            with suppress(_OtherTypeError):
                return _from_plain(part, value, source, name)
    elif get_origin(hint) is Literal:
        if any(type(value) is type(part) and value == part for part in parts):
            return value
    elif get_origin(hint) is tuple and isinstance(value, list):
        inner = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(inner) == len(value):
            pairs = zip(inner, value, strict=True)
            return tuple(_from_plain(part, item, source, name) for part, item in pairs)
    elif hint is Path and isinstance(value, str):
        return Path(value)
    elif hint is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    elif isinstance(value, _SCALARS.get(hint, ())) and (hint is bool or not isinstance(value, bool)):
        return value
    wanted = getattr(hint, "__name__", hint) if not parts else hint
    raise _OtherTypeError(f"{source}: expected {name} to be of type {wanted}, got {value!r:.200}.")


class _OtherTypeError(ValueError):
    """A value that is not of its setting's type."""
