"""Encoding any number of rows from the host."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from .._checks import check_at_least, check_rank
from ..convergence import Solution
from ..penalties import AbstractPenalty
from ._batch import encode_batch
from ._dictionary import AbstractDictionary

__all__ = ["encode_stream"]


def encode_stream(
    dictionary: AbstractDictionary,
    rows: Iterable,
    penalty: AbstractPenalty,
    *,
    output: str | Path | None = None,
    batch_size: int = 1024,
    progress: bool = False,
    **settings,
) -> Solution:
    """Encode any number of rows from the host, batch by batch; a host program, not for ``jit``.

    Args:
        dictionary: the dictionary.
        rows: a matrix with one datum per row (memory-mapped is fine), or an iterable of data.
        penalty: the penalty.
        output: an ``.npy`` file for the codes, written as they come; ``value`` is then the file's memory
            map. It needs a length known beforehand: a matrix.
        batch_size: rows on the device at once, ≥ 1.
        progress: show a progress bar.
        **settings: the keyword arguments of `encode`, except ``init``.

    Returns:
        A solution of NumPy arrays with a leading axis of rows.

    Raises:
        ValueError: as `encode_batch`; for an iterable together with ``output``; for a row of an
            iterable that is not of the first row's shape (says which).
    """
    from tqdm import tqdm

    check_at_least("batch_size", batch_size, 1)
    n_rows = len(rows) if isinstance(rows, (np.ndarray, jax.Array)) else None
    if output is not None and n_rows is None:
        kind = type(rows).__name__
        raise ValueError(f"output: expected rows to be a matrix, got {kind} of unknown length.")
    with tqdm(total=n_rows, unit="row", disable=not progress) as bar:
        parts = _solutions(dictionary, _batches(rows, batch_size), penalty, settings, bar)
        parts = list(parts if output is None else _write_codes(parts, output, n_rows))
    if not parts:
        raise ValueError("rows: expected at least one row, got none.")
    joined = jax.tree.map(lambda *fields: np.concatenate(fields), *parts)
    if output is None:
        return joined
    return Solution(np.load(output, mmap_mode="r+"), joined.status, joined.n_steps, joined.residual)


def _solutions(dictionary, batches: Iterator[np.ndarray], penalty, settings, bar) -> Iterator[Solution]:
    """Encode batch after batch, padded to the size of the first, so that one compilation serves them all."""
    size = None
    for batch in batches:
        n_new = len(batch)
        size = size or n_new
        padded = np.pad(batch, ((0, size - n_new), (0, 0)))
        solution = encode_batch(dictionary, padded, penalty, **settings)
        yield jax.tree.map(lambda field, n=n_new: np.asarray(field)[:n], solution)
        bar.update(n_new)


def _write_codes(parts: Iterable[Solution], output, n_rows) -> Iterator[Solution]:
    """Move the codes into a file, and hand on all else."""
    codes, done = None, 0
    for part in parts:
        if codes is None:
            shape = (n_rows, *part.value.shape[1:])
            codes = np.lib.format.open_memmap(output, "w+", part.value.dtype, shape)
        codes[done : done + len(part.value)] = part.value
        done += len(part.value)
        yield Solution(None, part.status, part.n_steps, part.residual)
    if codes is not None:
        codes.flush()


def _batches(rows, batch_size: int) -> Iterator[np.ndarray]:
    if isinstance(rows, (np.ndarray, jax.Array)):
        check_rank("rows", rows, "samples features")
        for start in range(0, len(rows), batch_size):
            yield np.asarray(rows[start : start + batch_size])
        return
    batch: list[np.ndarray] = []
    shape = None
    for index, row in enumerate(map(np.asarray, rows)):
        if row.ndim != 1 or shape not in (None, row.shape):
            expected = shape or "(features,)"
            raise ValueError(f"rows: expected shape {expected}, got {row.shape} at row {index}.")
        shape = row.shape
        batch.append(row)
        if len(batch) == batch_size:
            yield np.stack(batch)
            batch = []
    if batch:
        yield np.stack(batch)
