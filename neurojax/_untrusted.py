"""Reading files that nobody vouches for: sizes are checked before memory is taken, and nothing is unpickled.

The bound, for a file of n bytes: what lies in it as it is takes n bytes, as no header is believed that
announces more than the file has; what is compressed in it may come to ``most_bytes`` + 64 n bytes, all its
parts together, and memory is taken only for what n bytes can inflate to. `MOST_BYTES`, 1 GiB, is the limit
unless a caller raises it. A reader may hold a few copies of what it reads; its docstring says how many.
"""

import json
import operator
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from io import BufferedIOBase, BufferedReader, BytesIO, FileIO
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar, cast

import numpy as np

from ._paths import user_path

__all__ = [
    "MOST_BYTES",
    "inflated_limit",
    "open_regular",
    "parse_json",
    "read_all",
    "read_json",
    "read_json_lines",
    "read_numpy",
    "read_whole",
]

MOST_BYTES = 2**30
"""The most bytes that the compressed parts of a file may come to, beside 64 times its size."""

_RATIO = 64  # ten times what photographs and recordings have
_DEFLATE_RATIO = 1032  # more than this no deflate stream inflates to
_PIECE = 2**20
_MOST_HEADER = 10_000  # as NumPy has it
_MOST_JSON, _MOST_DEPTH = 2**24, 64
_KINDS = "biufcmMSUV"

_Read = TypeVar("_Read")


def inflated_limit(n_bytes: int, most_bytes: int = MOST_BYTES) -> int:
    """Return what the compressed parts of a file of ``n_bytes`` may come to."""
    return most_bytes + _RATIO * n_bytes


class _Sized(BufferedReader):
    """A file that takes no memory for what it does not have; others take it before they look."""

    def read(self, size: SupportsIndex | None = -1, /) -> bytes:
        """Read ``size`` bytes, or what there is of them."""
        size = -1 if size is None else operator.index(size)
        if size > _PIECE:
            size = min(size, max(0, os.fstat(self.fileno()).st_size - self.tell()))
        return BufferedReader.read(self, size)


def open_regular(path: str | Path) -> tuple[BufferedIOBase, int]:
    """Open a file for reading, and return it with its size in bytes.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is a folder, a pipe or a device, whose reading might never end.
    """
    path = user_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a file, but there is none.")
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: expected a regular file, got a folder, pipe or device.")
    return _Sized(FileIO(path)), status.st_size


def read_whole(path: str | Path, expected: str, read: Callable[[BufferedIOBase, int], _Read]) -> _Read:
    """Let ``read`` decode a file, given open and with its size, and say of any damage that it is damage.

    Decoders raise errors of many unrelated types, ``MemoryError`` and ``RecursionError`` among them.

    Args:
        path: the file.
        expected: what it should be, for the message.
        read: returns what is in it.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if ``read`` fails. The message names the file, what was expected and what came.
    """
    file, n_bytes = open_regular(path)
    with file:
        try:
            return read(file, n_bytes)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{path}: expected {expected}, got one that cannot be read ({text:.500})."
            ) from error


def read_all(file: BufferedIOBase, n_bytes: int) -> bytearray:
    """Read ``n_bytes`` or what there is of them, taking memory as they come."""
    content = bytearray()
    while piece := file.read(min(_PIECE, n_bytes - len(content))):
        content += piece
    return content


def read_numpy(file: BufferedIOBase, n_bytes: int, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Read an .npy or .npz file; which of them, its first bytes say.

    Memory: the arrays once, and 1 MiB; beside that, what the list of an archive's entries takes. An entry
    inflates to exactly what the archive says, which is what its own header says. The header of every array is
    checked before memory is taken for the array.

    Args:
        file: the open file, at its beginning.
        n_bytes: its size.
        most_bytes: what compressed entries may come to beside 64 ``n_bytes``.

    Returns:
        The arrays by their names, ``""`` in an .npy. None holds Python objects.

    Raises:
        ValueError: if it is neither, is damaged, longer or shorter than its headers say, beyond the limit, or
            has two entries of one name or an entry that is no array.
    """
    magic = file.read(4)
    file.seek(0)
    if magic not in (b"PK\3\4", b"PK\5\6"):
        return {"": _read_npy(file, n_bytes)}
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        _check_entries(entries, n_bytes, inflated_limit(n_bytes, most_bytes))
        return {_name(entry): _read_entry(archive, entry) for entry in entries}


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename.removesuffix(".npy")


def _check_entries(entries: Sequence[zipfile.ZipInfo], n_bytes: int, limit: int) -> None:
    stored = inflated = 0
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{_name(entry)}: expected it stored or deflated, got {entry.compress_type}.")
        ratio = 1 if entry.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
        if entry.file_size > ratio * entry.compress_size:
            raise ValueError(
                f"{_name(entry)}: expected an entry that {entry.compress_size} bytes can inflate to, got one "
                f"that says {entry.file_size} bytes."
            )
        stored += entry.compress_size
        inflated += entry.file_size if entry.compress_type == zipfile.ZIP_DEFLATED else 0
    if stored > n_bytes:
        raise ValueError(f"expected entries that lie in {n_bytes} bytes side by side, got {stored} of them.")
    if inflated > limit:
        raise ValueError(f"expected entries that inflate to at most {limit} bytes in all, got {inflated}.")
    name, count = max(Counter(map(_name, entries)).items(), key=lambda item: item[1], default=("", 0))
    if count > 1:
        raise ValueError(f"expected one entry for each name, got {count} called {name}.")


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    try:
        with archive.open(entry) as file:
            return _read_npy(cast(BufferedIOBase, file), entry.file_size)
    except Exception as error:
        raise ValueError(f"{_name(entry)}: {type(error).__name__}: {error}") from error


def _read_npy(file: BufferedIOBase, n_bytes: int) -> np.ndarray:
    """Read one array, whose file or entry has ``n_bytes`` bytes, header included."""
    shape, is_fortran, dtype, n_header = _read_header(file)
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != n_bytes - n_header:
        raise ValueError(
            f"expected {count * dtype.itemsize} bytes after the header, which says {dtype} of shape {shape}, "
            f"got {n_bytes - n_header}."
        )
    if not count:
        return np.empty(shape, dtype)
    content = np.empty(n_bytes - n_header, np.uint8)
    n_read = 0
    while piece := file.read(min(_PIECE, len(content) - n_read)):
        content[n_read : n_read + len(piece)] = np.frombuffer(piece, np.uint8)
        n_read += len(piece)
    if n_read < len(content):
        raise ValueError(f"expected {len(content)} bytes after the header, got {n_read}.")
    return np.ndarray(shape, dtype, content.data, order="F" if is_fortran else "C")


def _read_header(file: BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    magic = file.read(8)
    if len(magic) < 8 or magic[:6] != b"\x93NUMPY" or tuple(magic[6:]) not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"expected an array to begin with 93 'NUMPY' and a version, got {magic!r}.")
    size = file.read(2 if magic[6] == 1 else 4)
    length = int.from_bytes(size, "little")
    if length > _MOST_HEADER:
        raise ValueError(f"expected a header of at most {_MOST_HEADER} bytes, got {length}.")
    text = file.read(length)
    if len(text) < length:
        raise ValueError(f"expected a header of {length} bytes, got {len(text)}.")
    n_header = len(magic) + len(size) + length
    if magic[6] == 3:  # which differs by this alone
        text = text.decode("utf-8").encode("latin1")
    header = BytesIO(len(text).to_bytes(4, "little") + text)
    shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(header)
    if dtype.hasobject:
        raise ValueError("got Python objects, which are never unpickled (allow_pickle=False).")
    if dtype.kind not in _KINDS or dtype.subdtype is not None or not 0 < dtype.itemsize <= _PIECE:
        raise ValueError(f"expected numbers, texts or records of at most {_PIECE} bytes each, got {dtype}.")
    if any(size < 0 for size in shape):
        raise ValueError(f"expected sizes of at least 0, got shape {shape}.")
    return shape, is_fortran, dtype, n_header


def read_json(path: str | Path) -> Any:
    """Read a JSON file of at most 16 MiB and at most 64 levels.

    Memory: at most about 45 bytes for each byte of the file.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is larger, deeper, or no JSON.
    """

    def read(file: BufferedIOBase, n_bytes: int) -> Any:
        if n_bytes > _MOST_JSON:
            raise ValueError(f"expected at most {_MOST_JSON} bytes, got {n_bytes}.")
        return parse_json(read_all(file, n_bytes).decode("utf-8"))

    return read_whole(path, "JSON", read)


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line, each as `read_json` has it; a last line cut short is left out.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if a line is no JSON object; says which.
    """

    def read(file: BufferedIOBase, n_bytes: int) -> list[dict[str, Any]]:
        return list(_json_objects(file))

    return read_whole(path, "a JSON object a line", read)


def _json_objects(file: BufferedIOBase) -> Iterable[dict[str, Any]]:
    number = 0
    while (line := file.readline(_MOST_JSON + 1)).endswith(b"\n"):
        number += 1
        try:
            row = parse_json(line.decode("utf-8"))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number}: expected an object, got {type(row).__name__}.")
        yield row
    if len(line) > _MOST_JSON:
        raise ValueError(f"line {number + 1}: expected at most {_MOST_JSON} bytes, got more.")


def parse_json(text: str) -> Any:
    """Parse JSON of at most 16 Mi characters and 64 levels of lists and objects.

    Raises:
        ValueError: if it is longer, deeper, or no JSON.

    Example:
        >>> parse_json('{"seed": [0, 1]}')
        {'seed': [0, 1]}
    """
    if len(text) > _MOST_JSON:
        raise ValueError(f"expected JSON of at most {_MOST_JSON} characters, got {len(text)}.")
    too_deep = f"expected JSON of at most {_MOST_DEPTH} levels, got more."
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(too_deep) from error
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in _items(outer)]
    if any(isinstance(inner, (dict, list)) for inner in level):
        raise ValueError(too_deep)
    return value


def _items(outer: dict | list) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer
