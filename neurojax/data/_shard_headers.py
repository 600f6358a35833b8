"""Headers of shards, checked against the file before anything else is read."""

import io
import math
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._untrusted import read_whole

__all__ = ["Shard", "memory_size", "read_header"]

_HEADER_BYTES = 2**16
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LOCAL_HEADER = 30  # bytes of a zip member's own header before its name


def memory_size() -> float:
    """Return the machine's memory in bytes; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return math.inf


class Shard(NamedTuple):
    """An array in a file: where its values begin, and what they are."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def map(self) -> np.ndarray:
        """Return the values as a map of the file, read only."""
        return np.asarray(np.memmap(self.path, self.dtype, "r", self.offset, self.shape))

    def read_into(self, rows: np.ndarray, first: int, *, is_kept: bool = True) -> None:
        """Read the rows from number ``first`` on into an array of this dtype.

        Unless ``is_kept``, the system is told to forget them, where it can be: what is read in turn and is
        more than it can keep only costs it the search for room (half the time of reading, measured).

        Raises:
            ValueError: if the file has become shorter.
        """
        target = rows.reshape(-1).view(np.uint8)
        with self.path.open("rb") as file:
            start = file.seek(self.offset + first * self.row_bytes)
            n_read = file.readinto(target.data)
            if not is_kept and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), start, n_read, os.POSIX_FADV_DONTNEED)
        if n_read != target.size:
            raise ValueError(f"{self.path}: expected {target.size} bytes from row {first} on, got {n_read}.")

    def chunks(self, size: int) -> Iterator[bytes]:
        """Return the bytes of the rows, ``size`` at a time."""
        left = self.shape[0] * self.row_bytes
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left and (chunk := file.read(min(size, left))):
                left -= len(chunk)
                yield chunk


def read_header(path: Path, name: str | None = None) -> Shard:
    """Read what an .npy file, or an array in an .npz file that is not compressed, is.

    Args:
        path: the file.
        name: of the array in an .npz file with more than one.

    Raises:
        ValueError: if it is damaged, cut off or longer than it says, if it is compressed, pickled or in
            Fortran order, or holds no numbers or no rows.
    """
    start, size = _find_member(path, name) if path.suffix == ".npz" else (0, path.stat().st_size)
    with path.open("rb") as file:
        file.seek(start)
        head = io.BytesIO(file.read(min(size, _HEADER_BYTES)))
    try:
        shape, is_fortran, dtype = _READERS[np.lib.format.read_magic(head)](head)
    # A damaged header makes its reader raise errors of many unrelated types.
    except Exception as error:
        raise ValueError(
            f"{path}: expected a NumPy array file, got one whose header cannot be read "
            f"({type(error).__name__}: {error})."
        ) from error
    _check_form(path, shape, is_fortran, dtype)
    expected = head.tell() + math.prod(shape) * dtype.itemsize
    if size != expected:
        why = "cut off" if size < expected else "too long"
        raise ValueError(f"{path}: expected {expected} bytes, as its header says, got {size}: it is {why}.")
    return Shard(path, start + head.tell(), shape, dtype)


def _check_form(path: Path, shape: tuple[int, ...], is_fortran: bool, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise ValueError(f"{path}: expected numbers, got Python objects, which are never unpickled.")
    if dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected real numbers, got dtype {dtype}.")
    if not shape or min(shape) < 1:
        raise ValueError(f"{path}: expected at least one row and one value a row, got shape {shape}.")
    if is_fortran and len(shape) > 1:
        raise ValueError(
            f"{path}: expected rows one after another, got an array in Fortran order; save "
            "numpy.ascontiguousarray of it."
        )


def _find_member(path: Path, name: str | None) -> tuple[int, int]:
    """Return where the bytes of an .npz file's array begin, and how many they are."""
    members = read_whole(path, "an .npz file", lambda file, _: zipfile.ZipFile(file).infolist())
    chosen = [member for member in members if name is None or member.filename == f"{name}.npy"]
    if len(chosen) != 1:
        what = "one array" if name is None else f"one array {name!r}"
        shown = ", ".join(f"{member.filename.removesuffix('.npy'):.100}" for member in members[:8])
        raise ValueError(f"{path}: expected {what}, got {len(members)}: {shown or 'none'}.")
    member = chosen[0]
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise ValueError(
            f"{path}: expected an array stored as it is, got a compressed or encrypted one, which cannot be "
            "mapped; save it by numpy.savez or numpy.save."
        )
    n_bytes = path.stat().st_size
    if not 0 <= member.header_offset <= n_bytes - _LOCAL_HEADER:
        raise ValueError(
            f"{path}: expected a member within {n_bytes} bytes, got one at byte {member.header_offset}."
        )
    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise ValueError(f"{path}: expected a member at byte {member.header_offset}, got something else.")
    # The lengths of the name and of the extra field, which the directory's copy need not share.
    start = member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
    if start + member.file_size > n_bytes:
        raise ValueError(f"{path}: expected {member.file_size} bytes of {member.filename:.100}, got fewer.")
    return start, member.file_size
