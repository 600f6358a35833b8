"""Rows in files: a folder of .npy or .npz shards, looked at as one array that need not fit into memory."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .._paths import user_path
from .._untrusted import read_json
from ._shard_headers import Shard, memory_size, read_header

__all__ = ["FORMAT", "INDEX", "MAX_SHARDS", "ShardedRows"]

INDEX, FORMAT = "shards.json", "neurojax shards 1"
MAX_SHARDS = 2**16  # so many entries does an index have that read_json accepts
_MAX_OPEN = 128  # each mapped file holds a file descriptor
_CHUNK_BYTES = 2**20
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d{1,18})(?P<after>\D*)")
_WITH_TOTAL = re.compile(r"(?P<before>.*?)(?P<number>\d{1,18})(?P<after>-of-(?P<total>\d{1,18})\D*)")


class ShardedRows:
    """The rows of all .npy and .npz files of a folder, as one array that stays on disk.

    Files that differ in one number only, such as ``part-3.npy``, come in the order of that number; such sets,
    and other files, in the order of their names; hidden files and files of other kinds are passed over.
    Opening reads the headers alone: all files must have rows of one shape and dtype, and the length that
    their header says. A file that is missing is noticed where ``shards.json`` (written by `write_shards`)
    lists the files, where names say how many there are (``0003-of-0010``), and where the numbers of a set
    leave a gap.

    An .npz must hold its array as it is (``numpy.savez``); compressed ones are refused. Nothing is
    unpickled.

    ``rows[i]`` and ``rows[[3, 1, 2]]`` copy rows out of memory-mapped files, ``rows[a:b]`` reads that range
    into memory (of more than half the machine's the system is told not to keep it); ``len``, ``shape``,
    ``dtype``, iteration and ``numpy.asarray`` (all of it) work as for an array. It serves as ``rows`` of
    ``sparse_coding.encode_stream`` and as the source of `batches`. Threads may share it. Files must not be
    shortened while they are in use.

    Attributes:
        folder: the folder.
        shape: (rows, …).
        dtype: of the rows, in native byte order.
        n_shards: the number of files.

    Example:
        >>> import tempfile
        >>> from neurojax.data import write_shards
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = write_shards(folder, np.arange(10.0).reshape(5, 2), rows_per_shard=2)
        ...     rows.n_shards, len(rows), rows[-1].tolist(), rows[[3, 0], 0].tolist()
        (3, 5, [8.0, 9.0], [6.0, 0.0])
    """

    def __init__(self, folder: str | Path, *, name: str | None = None, verify: bool = False):
        """Open the folder.

        Args:
            folder: where the shards are.
            name: of the array in .npz files that hold more than one.
            verify: whether to read everything once and compare it with the digests in ``shards.json``.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: for a folder without shards, a missing or an additional one, and one that is damaged,
                compressed, pickled or cut off, that holds no numbers or no rows, is in Fortran order, or
                whose rows differ from the first one's; the message names the file.
        """
        self.folder = user_path(folder)
        paths, index = _list(self.folder)
        self._shards: list[Shard] = [read_header(path, name) for path in paths]
        self._index = index
        _check_alike(self._shards, index)
        first = self._shards[0]
        self._ends = np.cumsum([shard.shape[0] for shard in self._shards])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *first.shape[1:])
        self.dtype: np.dtype = first.dtype.newbyteorder("=")
        self._fits_memory = (
            sum(shard.shape[0] * shard.row_bytes for shard in self._shards) < memory_size() / 2
        )
        self._map = lru_cache(_MAX_OPEN)(lambda number: self._shards[number].map())
        if verify:
            self._verify(index)

    @property
    def digest(self) -> str:
        """SHA-256 of the files' names, shapes and dtypes in their order, and of the digests that are listed.

        The rows are not read for it: without ``shards.json``, other rows of the same shape have the same.
        """
        files = [[shard.path.name, shard.shape, shard.dtype.str] for shard in self._shards]
        listed = [entry["sha256"] for entry in (self._index or {}).values()]
        return _digest([json.dumps([files, listed]).encode()])

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def n_shards(self) -> int:
        """The number of files."""
        return len(self._shards)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ShardedRows({str(self.folder)!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> Any:
        """Return a row, a range of rows, or the rows with the given numbers; further axes follow."""
        if isinstance(index, tuple):
            rows, rest = index[0], index[1:]
            is_one = isinstance(rows, (int, np.integer))
            return self[rows][rest] if is_one else self[rows][(slice(None), *rest)]
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._range(start, stop) if step == 1 else self._gather(np.arange(start, stop, step))
        numbers = np.asarray(index)
        if numbers.dtype.kind not in "iu" and numbers.size:
            raise TypeError(f"index: expected whole numbers or a slice, got {index!r:.80}.")
        rows = self._gather(numbers.reshape(-1).astype(np.int64))
        return rows.reshape(*numbers.shape, *self.shape[1:]) if numbers.ndim else rows[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        size = max(1, _CHUNK_BYTES // self._shards[0].row_bytes)
        for start in range(0, len(self), size):
            yield from self[start : start + size]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy: expected None or True, as the rows are on disk, got False.")
        return self[:] if dtype is None else self[:].astype(dtype)

    def _gather(self, numbers: np.ndarray) -> np.ndarray:
        outside = (numbers < -len(self)) | (numbers >= len(self))
        if np.any(outside):
            raise IndexError(f"index: expected less than the {len(self)} rows, got {numbers[outside][0]}.")
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        rows = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        of_shard = np.searchsorted(self._ends, numbers, side="right")
        order = np.argsort(of_shard, kind="stable")
        shards, starts = np.unique(of_shard[order], return_index=True)
        for shard, chosen in zip(shards, np.split(order, starts[1:]), strict=False):
            first = self._ends[shard] - self._shards[shard].shape[0]
            rows[chosen] = self._map(int(shard))[numbers[chosen] - first]
        return rows

    def _range(self, start: int, stop: int) -> np.ndarray:
        # Reading keeps memory flat, where the pages of a map would count as the process's own.
        rows = np.empty((max(0, stop - start), *self.shape[1:]), self._shards[0].dtype)
        n_read = 0
        while n_read < len(rows):
            number = int(np.searchsorted(self._ends, start + n_read, side="right"))
            shard = self._shards[number]
            first = start + n_read - int(self._ends[number] - shard.shape[0])
            n_new = min(shard.shape[0] - first, len(rows) - n_read)
            shard.read_into(rows[n_read : n_read + n_new], first, is_kept=self._fits_memory)
            n_read += n_new
        return rows.astype(self.dtype, copy=False)

    def _verify(self, index: dict[str, dict] | None) -> None:
        if index is None:
            raise ValueError(f"verify: expected {INDEX} with the digests in {self.folder}, got none.")
        for shard in self._shards:
            expected, came = index[shard.path.name]["sha256"], _digest(shard.chunks(_CHUNK_BYTES))
            if came != expected:
                raise ValueError(
                    f"{shard.path}: expected rows of the digest in {INDEX}, {expected:.80}, got {came}."
                )


def _list(folder: Path) -> tuple[list[Path], dict[str, dict] | None]:
    """Return the shards in order, and what the index says of each."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of shards, but there is none.")
    paths = sorted(
        path
        for path in folder.iterdir()
        if path.suffix in (".npy", ".npz") and not path.name.startswith(".") and path.is_file()
    )
    index = _read_index(folder / INDEX)
    if index is None:
        if not paths:
            raise ValueError(f"{folder}: expected at least one .npy or .npz file, got a folder without.")
        return _in_order(folder, paths), None
    by_name = {path.name: path for path in paths}
    _check_names(folder, f"{INDEX} lists", set(by_name), set(index))
    return [by_name[name] for name in index], index


def _check_names(folder: Path, source: str, found: set[str], expected: set[str]) -> None:
    for what, names in (("no", expected - found), ("also", found - expected)):
        if names:
            shown = ", ".join(f"{name:.100}" for name in sorted(names)[:4]) + (
                ", …" if len(names) > 4 else ""
            )
            raise ValueError(f"{folder}: expected the shards that {source}, got {what} {shown}.")


def _in_order(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Return shards by the names before their numbers, then by number; of none may a number be missing."""
    parts = [(_WITH_TOTAL.fullmatch(path.name) or _NUMBERED.fullmatch(path.name), path) for path in paths]
    sets = {}
    for part, path in parts:
        frame = (part["before"], part["after"]) if part else (path.name, None)
        sets.setdefault(frame, []).append((int(part["number"]) if part else 0, path))
    ordered = []
    for (_, after), members in sorted(sets.items(), key=lambda item: item[0][0]):
        if after is not None:
            _check_numbers(folder, dict(members), len(members))
        ordered += [path for _, path in sorted(members)]
    return ordered


def _check_numbers(folder: Path, by_number: dict[int, Path], n_paths: int) -> None:
    """Check that shards whose names differ in a number only are all there, each once."""
    first, last = min(by_number), max(by_number)
    name = by_number[first].name
    total = _WITH_TOTAL.fullmatch(name)
    if total:
        n_expected = int(total["total"])
        first = 1 if n_expected in by_number else 0
        last = first + n_expected - 1
    missing = islice((number for number in range(first, last + 1) if number not in by_number), 4)
    shown = [f"{number}" for number in missing]
    if shown or not n_paths == len(by_number) == last - first + 1:
        raise ValueError(
            f"{folder}: expected shards ({name}, …) with every number from {first} to {last} once, got "
            f"{n_paths} shards; missing: {', '.join(shown) or 'none'};"
            " where numbers are no count, name the files otherwise."
        )


def _check_alike(shards: Sequence[Shard], index: dict[str, dict] | None) -> None:
    first = shards[0]
    for shard in shards:
        if (shard.shape[1:], shard.dtype) != (first.shape[1:], first.dtype):
            raise ValueError(
                f"{shard.path}: expected rows of shape {first.shape[1:]} and dtype {first.dtype} as in "
                f"{first.path.name}, got {shard.shape[1:]} and {shard.dtype}."
            )
        said = index and index[shard.path.name]
        came = {"shape": list(shard.shape), "dtype": shard.dtype.str}
        if said and {name: said.get(name) for name in came} != came:
            raise ValueError(f"{shard.path}: expected what {INDEX} says, {said!r:.400}, got {came}.")


def _read_index(path: Path) -> dict[str, dict] | None:
    """Return the entries of the index by name; they are compared with the files, never opened by name."""
    try:
        index = read_json(path)
    except FileNotFoundError:
        return None
    shards = index.get("shards") if isinstance(index, dict) else None
    if not isinstance(shards, list) or index.get("format") != FORMAT:
        raise ValueError(f"{path}: expected an index of write_shards of format {FORMAT!r}, got another.")
    for number, entry in enumerate(shards):
        if not _is_entry(entry):
            raise ValueError(
                f"{path}: expected entry {number} to have a name, a shape (positive whole numbers), a dtype "
                f"and a sha256, got {entry!r:.200}."
            )
    entries = {entry["name"]: entry for entry in shards}
    if len(entries) != len(shards):
        raise ValueError(f"{path}: expected each name once, got {len(shards)} of {len(entries)} names.")
    if index.get("is_complete") is not True or not entries:
        raise ValueError(f"{path}: expected shards of a write_shards that finished; call it again.")
    return entries


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"name", "shape", "dtype", "sha256"}:
        return False
    texts, shape = [entry[name] for name in ("name", "dtype", "sha256")], entry["shape"]
    are_sizes = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
    return are_sizes and all(isinstance(text, str) for text in texts)


def _digest(chunks: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for chunk in chunks:
        total.update(chunk)
    return total.hexdigest()
