"""MATLAB files, checked element by element before SciPy reads them.

SciPy takes memory for what a file announces, and trusts its counts: 200 bytes can ask for gigabytes, or send
the reader back to where it was. So what is compressed is inflated here, within a limit, and every
count is compared with the bytes that are there; then SciPy reads it from memory.
"""

import math
import struct
import zlib
from io import BufferedIOBase, BytesIO
from typing import Any, NamedTuple

import scipy.io

from .._untrusted import inflated_limit, read_all

__all__ = ["read_matlab"]

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18)
_CELL, _STRUCT, _OBJECT, _CHARACTERS, _SPARSE = 1, 2, 3, 4, 5
_NUMBERS = range(6, 16)
_UNREAD = (16, 17)  # functions, and objects that only MATLAB reads
_COMPLEX = 1 << 11
_MOST_AXES, _MOST_DEPTH, _MOST_ELEMENTS = 32, 32, 2**20
_ITEM_BYTES_4 = (8, 4, 4, 2, 2, 1)


def read_matlab(file: BufferedIOBase, n_bytes: int, most_bytes: int) -> dict[str, Any]:
    """Return what `scipy.io.loadmat` makes of a file of version 4 to 7.2, without functions and such objects.

    Memory, times the file with its compressed parts inflated: about four for numbers, eight for texts of
    one-byte characters, twenty for empty cells (of which no more than 2²⁰ are read). At most 2²⁰ elements, 32
    levels of cells and structures, 32 axes.

    Args:
        file: the open file, at its beginning.
        n_bytes: its size.
        most_bytes: what its compressed parts may come to beside 64 ``n_bytes``.

    Raises:
        ValueError: if a count is not that of the bytes there, or beyond a limit.

    Reference: MAT-File Format (The MathWorks), levels 4 and 5.
    """
    content = bytes(read_all(file, n_bytes))
    if len(content) < 20:
        raise ValueError(f"expected at least 20 bytes, got {len(content)}.")
    if 0 in content[:4]:
        _check_version_4(content)
        return scipy.io.loadmat(BytesIO(content))
    return scipy.io.loadmat(BytesIO(_inflated(content, inflated_limit(n_bytes, most_bytes))))


def _check_version_4(content: bytes) -> None:
    order = "<" if 0 <= struct.unpack_from("<i", content)[0] <= 5000 else ">"
    at = 0
    while at < len(content):
        if at + 20 > len(content):
            raise ValueError(f"expected a header of 20 bytes at byte {at}, got {len(content) - at}.")
        kind, n_rows, n_columns, is_complex, n_name = struct.unpack_from(f"{order}5i", content, at)
        is_kind = kind >= 0 and kind // 100 % 10 == 0 and kind // 10 % 10 < 6 and kind % 10 < 3
        if not is_kind or min(n_rows, n_columns) < 0 or is_complex not in (0, 1) or n_name < 1:
            raise ValueError(f"expected a header of version 4 at byte {at}, got {content[at : at + 20]!r}.")
        n_parts = 2 if is_complex and kind % 10 != 2 else 1
        at += 20 + n_name + _ITEM_BYTES_4[kind // 10 % 10] * n_rows * n_columns * n_parts
        if at > len(content):
            raise ValueError(f"expected {at} bytes, as a matrix of {n_rows} × {n_columns} says, got fewer.")


def _inflated(content: bytes, limit: int) -> bytes:
    """Return a checked file of version 5, with nothing compressed and without what is not read."""
    if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
        raise ValueError(f"expected a header of {_HEADER} bytes, got {content[:_HEADER][-8:]!r} at its end.")
    order = "<" if content[126:128] == b"IM" else ">"
    out, at, budget = BytesIO(), _HEADER, _Count(_MOST_ELEMENTS)
    out.write(content[:_HEADER])
    while at < len(content):
        if at + 8 > len(content):
            raise ValueError(f"expected a tag of 8 bytes at byte {at}, got {len(content) - at}.")
        kind, size = struct.unpack_from(f"{order}2I", content, at)
        start, at = at, at + 8 + size
        if at > len(content):
            raise ValueError(f"expected {size} bytes after byte {start + 8}, got {len(content) - start - 8}.")
        element = content[start:at]
        if kind == _COMPRESSED:
            element = _unpacked(element[8:], limit)
            limit -= len(element)
        if _Walk(element, order, budget).variable():
            out.write(element)
    return out.getvalue()


def _unpacked(packed: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    element = unpacker.decompress(packed, limit + 1)
    if len(element) > limit:
        raise ValueError(f"expected compressed parts of at most {limit} bytes more, got more.")
    if not unpacker.eof:
        raise ValueError("expected a whole compressed element, got one cut short.")
    return element


class _Count:
    """How many elements may yet come."""

    def __init__(self, most: int):
        self.left = most

    def take(self, n: int = 1) -> None:
        self.left -= n
        if self.left < 0:
            raise ValueError(f"expected at most {_MOST_ELEMENTS} elements, got more.")


class _Element(NamedTuple):
    kind: int
    start: int
    size: int
    stop: int  # with what fills it up to 8 bytes


class _Walk:
    """A walk through one element in the order in which SciPy reads it."""

    def __init__(self, content: bytes, order: str, budget: _Count):
        self.content, self.order, self.budget = content, order, budget

    def variable(self) -> bool:
        """Check a variable, and return whether it is of a kind that is read."""
        whole = self._element(0, len(self.content))
        # SciPy goes on where it is done; so there must be nothing else.
        if whole.kind != _MATRIX or whole.start + whole.size != len(self.content):
            raise ValueError(f"expected one matrix in {len(self.content)} bytes, got {whole}.")
        flags = self._element(whole.start, len(self.content))
        if flags.size == 8 and self._numbers(flags, "I")[0] & 0xFF in _UNREAD:
            return False
        self._matrix(whole, 0)
        return True

    def _element(self, at: int, stop: int) -> _Element:
        self.budget.take()
        if at + 8 > stop:
            raise ValueError(f"expected a tag of 8 bytes, got {stop - at}.")
        word, size = struct.unpack_from(f"{self.order}2I", self.content, at)
        if word >> 16:  # a small element: its tag has its size and its data
            kind, size, start, end = word & 0xFFFF, word >> 16, at + 4, at + 8
            if size > 4:
                raise ValueError(f"expected at most 4 bytes in a small element, got {size}.")
        else:
            kind, start = word, at + 8
            end = start + size + (0 if kind == _MATRIX else -size % 8)
        if end > stop:
            raise ValueError(f"expected an element of {size} bytes, got {stop - start}.")
        return _Element(kind, start, size, end)

    def _numbers(self, element: _Element, code: str) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{element.size // 4}{code}", self.content, element.start)

    def _data(self, at: int, stop: int) -> _Element:
        element = self._element(at, stop)
        if element.kind not in _TYPES:
            raise ValueError(f"expected numbers, got an element of type {element.kind}.")
        return element

    def _matrix(self, whole: _Element, depth: int) -> None:
        if whole.kind != _MATRIX:
            raise ValueError(f"expected a matrix, got an element of type {whole.kind}.")
        if depth > _MOST_DEPTH:
            raise ValueError(f"expected at most {_MOST_DEPTH} levels of cells and structures, got more.")
        if depth and not whole.size:
            return
        stop = whole.start + whole.size
        flags = self._element(whole.start, stop)
        if (flags.kind, flags.size) != (6, 8) or flags.start != whole.start + 8:
            raise ValueError(f"expected 8 bytes of flags, got {flags}.")
        word = self._numbers(flags, "I")[0]
        sizes = self._data(flags.stop, stop)
        shape = self._numbers(sizes, "i")
        if sizes.kind not in (5, 6) or sizes.size % 4 or len(shape) > _MOST_AXES or min(shape, default=0) < 0:
            raise ValueError(f"expected at most {_MOST_AXES} sizes of at least 0, got {shape}.")
        name = self._data(sizes.stop, stop)
        count = math.prod(shape)
        kind = word & 0xFF
        if kind != _SPARSE and count > stop - name.stop:
            raise ValueError(f"expected {stop - name.stop} bytes to hold shape {shape}.")
        end = self._content(kind, bool(word & _COMPLEX), count, _Element(0, name.stop, 0, stop), depth)
        if end != stop:
            raise ValueError(f"expected a matrix to end after {whole.size} bytes, got {end - whole.start}.")

    def _content(self, kind: int, is_complex: bool, count: int, rest: _Element, depth: int) -> int:
        """Check what follows the name of a matrix of so many entries, and return where it ends."""
        at, stop = rest.start, rest.stop
        if kind in (_CELL, _STRUCT, _OBJECT):
            n_fields = 1
            if kind == _OBJECT:
                at = self._data(at, stop).stop
            if kind != _CELL:
                at, n_fields = self._fields(at, stop)
            if 8 * count * n_fields > stop - at:
                raise ValueError(f"expected {count} × {n_fields} entries, got {stop - at} bytes.")
            for _ in range(count * n_fields):
                entry = self._element(at, stop)
                self._matrix(entry, depth + 1)
                at = entry.stop
            return at
        if kind not in (_CHARACTERS, _SPARSE, *_NUMBERS):
            raise ValueError(f"expected numbers, texts, cells or structures, got class {kind}.")
        n_parts = (3 if kind == _SPARSE else 1) + (is_complex and kind != _CHARACTERS)
        for _ in range(n_parts):
            at = self._data(at, stop).stop
        return at

    def _fields(self, at: int, stop: int) -> tuple[int, int]:
        """Return where the names of a structure's fields end, and how many there are."""
        length = self._data(at, stop)
        (n_name,) = self._numbers(length, "i") if length.size == 4 else (0,)
        names = self._data(length.stop, stop)
        if n_name < 1 or names.size % n_name:
            raise ValueError(f"expected names of {n_name} bytes, got {names.size} bytes.")
        return names.stop, names.size // n_name
