"""Rows from the host, batch by batch: of a matrix or an iterable, with weights beside them or without."""

from collections.abc import Iterator, Sized
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

import jax
import numpy as np

from .._arrays import host_array
from .._checks import check_rank
from ._dictionary import AbstractDictionary
from ._stream_identity import shown

__all__ = ["RowSource", "open_rows"]

_NAMES = ("rows", "weights")
_FIRST = ("row", "weights")


class RowSource(NamedTuple):
    """Rows, and perhaps weights beside them, of which the first have been looked at."""

    parts: tuple[Any, ...]  # rows, or rows and weights: matrices, or iterators
    first: tuple[np.ndarray, ...]  # of each
    first_code: jax.ShapeDtypeStruct
    n_rows: int | None

    def batches(self, size: int, start: int) -> Iterator[tuple[np.ndarray, ...]]:
        """Read the rows from number ``start`` on; only the last batch may be shorter than ``size``."""
        if is_matrix(self.parts[0]):
            for begin in range(start, len(self.parts[0]), size):
                pairs = zip(_NAMES, self.parts, strict=False)
                yield tuple(host_array(name, part[begin : begin + size]) for name, part in pairs)
            return
        checked = islice(self._checked(), start, None)
        while True:
            batch, n_new = tuple(np.zeros((size, *row.shape), row.dtype) for row in self.first), 0
            for n_new, rows in enumerate(islice(checked, size), 1):
                for part, row in zip(batch, rows, strict=True):
                    part[n_new - 1] = row
            if n_new:
                yield tuple(part[:n_new] for part in batch)
            if n_new < size:
                return

    def _checked(self) -> Iterator[tuple[np.ndarray, ...]]:
        n_read = 0
        for index, rows in enumerate(self._together()):
            n_read = index + 1
            if self.n_rows is not None and n_read > self.n_rows:
                raise ValueError(f"rows: expected {self.n_rows} rows, as len(rows) says, got more.")
            for name, row, first in zip(_NAMES, rows, self.first, strict=False):
                if row.shape != first.shape:
                    raise ValueError(f"{name}: expected shape {first.shape}, got {row.shape} at row {index}.")
                if row.dtype != first.dtype:
                    raise ValueError(f"{name}: expected dtype {first.dtype}, got {row.dtype} at row {index}.")
            yield rows
        if self.n_rows is not None and n_read < self.n_rows:
            raise ValueError(f"rows: expected {self.n_rows} rows, as len(rows) says, got {n_read}.")

    def _together(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Return row after row of all parts, which have to end together."""
        names = _NAMES[: len(self.parts)]
        for rows in zip_longest(*self.parts, fillvalue=None):
            if any(row is None for row in rows):
                raise ValueError("weights: expected as many as rows, got another number.")
            yield tuple(host_array(name, row) for name, row in zip(names, rows, strict=True))

    def identity(self) -> dict[str, Any]:
        firsts = {f"first {name}": shown(row) for name, row in zip(_FIRST, self.first, strict=False)}
        return {"number of rows": self.n_rows, **firsts}


def is_matrix(rows: Any) -> bool:
    """Return whether rows can be had by their numbers: of an array, or of `neurojax.data.ShardedRows`."""
    return all(hasattr(rows, name) for name in ("shape", "dtype", "__getitem__"))


def open_rows(dictionary: AbstractDictionary, rows: Any, weights: Any) -> RowSource:
    """Look at the first row."""
    parts = (rows,) if weights is None else (rows, weights)
    is_whole = is_matrix(rows)
    if is_whole:
        if dictionary.datum_axes is not None:
            check_rank("rows", rows, f"samples {dictionary.datum_axes}")
        if weights is not None and getattr(weights, "shape", None) != rows.shape:
            came = getattr(weights, "shape", type(weights).__name__)
            raise ValueError(f"weights: expected an array of the shape {rows.shape} of rows, got {came}.")
    iterators = [iter(part[:1]) if is_whole else iter(part) for part in parts]
    n_rows = len(rows) if isinstance(rows, Sized) else None
    names = _NAMES[: len(parts)]
    first = [
        host_array(name, row) for name, it in zip(names, iterators, strict=True) for row in islice(it, 1)
    ]
    if len(first) < len(parts):
        raise ValueError(f"{names[len(first)]}: expected at least one row, got none.")
    try:
        if dictionary.datum_axes is not None:
            check_rank("x", first[0], dictionary.datum_axes)
        first_code = jax.eval_shape(dictionary.empty_code, first[0])
    except ValueError as error:
        raise ValueError(f"rows: row 0 does not fit the dictionary ({error})") from error
    if weights is not None and first[1].shape != first[0].shape:
        raise ValueError(
            f"weights: expected one for each entry of a row, shape {first[0].shape}, got {first[1].shape}."
        )
    if not is_whole:
        parts = tuple(chain([row], it) for row, it in zip(first, iterators, strict=True))
    return RowSource(parts, tuple(first), first_code, n_rows)
