"""Responses of neurons and the angle of each trial, from people's own tables and arrays."""

import csv
import io
import math
import warnings
from array import array
from collections import Counter
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from jaxtyping import Array, Float

from .._arrays import device_array
from .._paths import user_path
from .._untrusted import MOST_BYTES, open_regular
from ._files import read_arrays

__all__ = ["ResponseTable", "load_responses"]

_ANGLES = (
    "angle", "angles", "angle_degrees", "angles_degrees", "direction", "orientation", "theta",
)  # fmt: skip
_MISSING = ("", "na", "n/a", "nan", "null", "none")


class ResponseTable(NamedTuple):
    """Responses of neurons in trials.

    Attributes:
        responses: float32; NaN where a table has no number.
        angles_degrees: the angle of each trial, float32.
        neurons: the name of each neuron: its column in a table, else its number from 0.
    """

    responses: Float[Array, "trials neurons"]
    angles_degrees: Float[Array, " trials"]
    neurons: tuple[str, ...]


def load_responses(
    path: str | Path,
    *,
    angle: str | None = None,
    responses: str | None = None,
    leave_out: Sequence[str] = (),
    most_bytes: int = MOST_BYTES,
) -> ResponseTable:
    """Load the responses of neurons, and the angle of each trial, from a .csv, .tsv, .npz or .mat file.

    A table has a header line with the names of the columns, and one line a trial. One column is the angle in
    degrees, called ``angle``, ``angles``, ``angle_degrees``, ``angles_degrees``, ``direction``,
    ``orientation`` or ``theta`` in any case; every other column is a neuron. Columns are divided by commas,
    semicolons or tabs, as the first line shows. Cells that are empty or read NaN or NA become NaN. A first
    column without a name, the row numbers that pandas writes, is left out with a ``UserWarning``; decimal
    commas, between semicolons, are read as points with one.

    An .npz or .mat file has an array ``responses`` (trials, neurons), or only one array of two axes, and an
    array of the angles (trials,) with one of the names above.

    Args:
        path: the file.
        angle: the name of the angle's column or array, if it is another one.
        responses: the name of the array of responses, in an .npz or .mat file.
        leave_out: names of columns that are not neurons.
        most_bytes: as in `read_arrays`. A table takes at most about eight times the memory of its file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file is damaged, has no such column or array, or a cell is no number. The message
            names the line and the column, and says what to type.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "trials.csv"
        >>> _ = path.write_text("Angle,n1,n2" + chr(10) + "0,1.5,2" + chr(10) + "90,0,NA" + chr(10))
        >>> table = load_responses(path)
        >>> table.responses.shape, table.angles_degrees.tolist(), table.neurons
        ((2, 2), [0.0, 90.0], ('n1', 'n2'))
    """
    path = user_path(path)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        if responses is not None:
            raise ValueError(
                f"{path}: responses applies to .npz and .mat files; in a table every column but the angle is "
                f"a neuron. Leave it out, got {responses!r}."
            )
        file, _ = open_regular(path)
        try:
            with file:
                return _read_table(file, angle, leave_out)
        except ValueError as error:
            raise ValueError(f"{path}: {error}.") from error
    if suffix not in (".npz", ".mat"):
        raise ValueError(f"{path}: expected a file that ends in .csv, .tsv, .npz or .mat, got {suffix!r}.")
    if leave_out:
        raise ValueError(f"{path}: leave_out applies to .csv and .tsv files, got {tuple(leave_out)}.")
    return _of_arrays(path, read_arrays(path, most_bytes=most_bytes), angle, responses)


def _result(values: np.ndarray, angles: np.ndarray, names: Sequence[str]) -> ResponseTable:
    with np.errstate(over="ignore"):
        values, angles = values.astype(np.float32, copy=False), angles.astype(np.float32, copy=False)
    return ResponseTable(device_array(values), device_array(angles), tuple(names))


# --- arrays ----------------------------------------------------------------------------------------------


def _of_arrays(path: Path, arrays: dict[str, np.ndarray], angle: str | None, responses: str | None):
    found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    wanted, angle = angle or "angles_degrees", _angle_name(list(arrays), angle)
    if angle is None:
        raise ValueError(
            f"{path}: expected an array of angles called {wanted}, got {found}; choose one with "
            'angle="NAME" (on the command line: --angle-column NAME).'
        )
    if responses is None:
        matrices = [name for name, a in arrays.items() if a.ndim == 2 and 1 not in a.shape and name != angle]
        responses = "responses" if "responses" in arrays or len(matrices) != 1 else matrices[0]
    if responses not in arrays:
        raise ValueError(
            f"{path}: expected an array called {responses}, got {found}; choose the (trials, neurons) one "
            'with responses="NAME" (on the command line: --array NAME).'
        )
    values, angles = arrays[responses], arrays[angle]
    angles = angles.reshape(-1) if angles.ndim == 2 and 1 in angles.shape else angles
    is_real = values.dtype.kind in "biuf" and angles.dtype.kind in "iuf"
    if not is_real or values.ndim != 2 or angles.ndim != 1 or not values.size:
        raise ValueError(
            f"{path}: expected real {responses} (trials, neurons) and {angle} (trials,), got {values.dtype} "
            f"of shape {values.shape} and {angles.dtype} of shape {angles.shape}."
        )
    if len(values) != len(angles):
        advice = f"; transpose it, {responses}.T" if values.shape[1] == len(angles) else ""
        raise ValueError(
            f"{path}: expected an angle for each of {len(values)} trials in {responses}, got {len(angles)}"
            f"{advice}."
        )
    if not np.all(np.isfinite(angles)):
        raise ValueError(f"{path}: expected finite {angle}, got NaN or infinity.")
    return _result(values, angles, [str(number) for number in range(values.shape[1])])


def _angle_name(names: Sequence[str], chosen: str | None) -> str | None:
    """Return the name of the angles among these, or ``None`` if there is none or more than one."""
    if chosen is not None:
        return chosen if chosen in names else None
    usual = [name for name in names if name.strip().lower() in _ANGLES]
    return usual[0] if len(usual) == 1 else None


# --- tables ----------------------------------------------------------------------------------------------


class _Columns(NamedTuple):
    """The columns of a table: all names, the angle's place, and the neurons' places."""

    names: list[str]
    angle: int
    neurons: list[int]
    has_commas: bool  # whether decimal commas may occur: columns are divided by semicolons
    comma_lines: list[int]  # the lines where they did


def _read_table(file: BufferedIOBase, angle: str | None, leave_out: Sequence[str]) -> ResponseTable:
    values = array("f")
    with io.TextIOWrapper(cast(io.BufferedReader, file), encoding="utf-8-sig", newline="") as text:
        try:
            first = next((line for line in text if line.strip()), "")
            delimiter = max(",;\t", key=first.count)
            text.seek(0)
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            rows = (cells for cells in reader if any(map(str.strip, cells)))
            columns = _columns([name.strip() for name in next(rows, [])], angle, leave_out, delimiter)
            for cells in rows:
                values.extend(_numbers(cells, reader.line_num, columns))
        except UnicodeDecodeError as error:
            raise ValueError("expected text in UTF-8; save the table as 'CSV UTF-8'") from error
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}; check the quotation marks there") from error
    if not values:
        raise ValueError("expected a line for each trial after the header, got none")
    if columns.comma_lines:
        warnings.warn(
            f"decimal commas were read as points, first in line {columns.comma_lines[0]}.", stacklevel=4
        )
    table = np.frombuffer(values, np.float32).reshape(-1, 1 + len(columns.neurons))
    return _result(table[:, 1:], table[:, 0], [columns.names[place] for place in columns.neurons])


def _columns(header: list[str], angle: str | None, leave_out: Sequence[str], delimiter: str) -> _Columns:
    if not header:
        raise ValueError("expected a header line, got an empty file")
    if all(_is_number(name) for name in header):
        raise ValueError(
            f"expected a header line with the names of the columns, got numbers ({', '.join(header)[:60]}); "
            "add a first line such as angle,n1,n2"
        )
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise ValueError(f"expected one column of each name, got {count} called {name!r:.60}; rename them")
    chosen = _angle_name(header, angle)
    if chosen is None:
        raise ValueError(
            f"expected a column called {angle or 'angle'!r}, got {', '.join(header)[:200]}; choose the one "
            'of the angle with angle="NAME" (on the command line: --angle-column NAME)'
        )
    if missing := set(leave_out) - set(header):
        raise ValueError(
            f"expected columns called {sorted(missing)} to leave out, got {', '.join(header)[:200]}"
        )
    if not header[0]:
        warnings.warn("the first column, which has no name, is left out.", stacklevel=5)
    left = {chosen, "", *leave_out}
    neurons = [place for place, name in enumerate(header) if name not in left]
    if not neurons:
        raise ValueError(f"expected columns of neurons beside {chosen:.60}, got none")
    return _Columns(header, header.index(chosen), neurons, delimiter == ";", [])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(cells: list[str], line: int, columns: _Columns) -> list[float]:
    """Return the angle and the responses of one line."""
    if len(cells) != len(columns.names):
        raise ValueError(
            f"line {line}: expected {len(columns.names)} cells, as in the header, got {len(cells)}"
        )
    places = [columns.angle, *columns.neurons]
    try:
        row = [float(cells[place]) for place in places]
    except ValueError:
        row = [_number(cells[place], line, place, columns) for place in places]
    if not math.isfinite(row[0]):
        raise ValueError(
            f"line {line}, column {columns.names[columns.angle]!r:.60}: expected a finite angle, got "
            f"{cells[columns.angle]!r:.60}; fill it in, or remove the line"
        )
    return row


def _number(cell: str, line: int, place: int, columns: _Columns) -> float:
    text = cell.strip()
    if text.lower() in _MISSING:
        return float("nan")
    if columns.has_commas and text.count(",") == 1:
        text = text.replace(",", ".")
        columns.comma_lines.append(line)
    try:
        return float(text)
    except ValueError as error:
        name = columns.names[place]
        raise ValueError(
            f"line {line}, column {name!r:.60}: expected a number, got {cell!r:.60}; if the column is no "
            f"neuron, type leave_out=[{name!r:.60}] (on the command line: --leave-out {name:.60})"
        ) from error
