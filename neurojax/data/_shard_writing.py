"""Writing rows into a folder of shards, whole or not at all."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._arrays import check_unmasked
from .._checks import check_at_least
from .._paths import user_path
from .._untrusted import read_json
from ..runs import write_atomically
from ._shards import FORMAT, INDEX, MAX_SHARDS, ShardedRows

__all__ = ["write_shards"]

_OWN_NAME = re.compile(r"shard-\d{6,}\.npy")


def write_shards(folder: str | Path, rows: Any, rows_per_shard: int) -> ShardedRows:
    """Write rows into a folder of shards, with an index of their names, shapes, dtypes and digests.

    Each file appears whole or not at all, and ``shards.json`` says that the folder is complete only once it
    is: what a killed call leaves is refused by `ShardedRows`, and written anew by the same call.

    Args:
        folder: made if need be; without shards, but for those of a call that did not finish.
        rows: an array or `ShardedRows` (rows, …), or an iterable of such blocks of rows, which need not
            have equal lengths: in memory are only those that hold the rows of one shard, which come to
            less than a shard and two blocks.
        rows_per_shard: rows a file, ≥ 1; the last may have fewer.

    Returns:
        The rows, opened.

    Raises:
        ValueError: for no rows, a block of another row shape or dtype than the first (says which), values
            that are not numbers, more than 65,536 shards, and a folder that holds shards already.
        OSError: if the folder cannot be written to.
    """
    check_at_least("rows_per_shard", rows_per_shard, 1)
    folder, entries = user_path(folder), []
    for parts in _regroup(_blocks(rows, rows_per_shard), rows_per_shard):
        if not entries:
            _prepare(folder)
        if len(entries) == MAX_SHARDS:
            raise ValueError(
                f"rows_per_shard: expected at most {MAX_SHARDS} shards of it, got more: {rows_per_shard}."
            )
        entries.append(_write_shard(folder / f"shard-{len(entries):06d}.npy", parts))
    if not entries:
        raise ValueError("rows: expected at least one row, got none.")
    _write_index(folder, entries, is_complete=True)
    return ShardedRows(folder)


def _blocks(rows: Any, size: int) -> Iterator[np.ndarray]:
    """Return blocks of rows that are alike."""
    is_whole, form = isinstance(rows, (np.ndarray, jax.Array, ShardedRows)), None
    given = (rows[at : at + size] for at in range(0, len(rows), size)) if is_whole else rows
    for number, block in enumerate(given):
        check_unmasked("rows", block)
        block = np.asarray(block)
        form = form or (block.shape[1:], block.dtype)
        if block.ndim == 0 or block.dtype.kind not in "biuf" or 0 in block.shape[1:]:
            raise ValueError(
                f"rows: expected blocks (rows, …) of real numbers, got shape {block.shape} and dtype "
                f"{block.dtype} in block {number}."
            )
        if (block.shape[1:], block.dtype) != form:
            raise ValueError(
                f"rows: expected rows of shape {form[0]} and dtype {form[1]}, got "
                f"{block.shape[1:]} and {block.dtype} in block {number}."
            )
        yield block


def _regroup(blocks: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Return the same rows as parts that together have ``size`` rows, the last ones perhaps fewer."""
    kept, n_kept = [], 0
    for block in blocks:
        while len(block):
            n_new = min(len(block), size - n_kept)
            kept.append(block[:n_new])
            n_kept, block = n_kept + n_new, block[n_new:]
            if n_kept == size:
                yield kept
                # In place: what took them may hold the list while the next block is made.
                kept.clear()
                n_kept = 0
    if n_kept:
        yield kept


def _prepare(folder: Path) -> None:
    """Have an empty folder that is marked as unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [path for path in folder.iterdir() if path.suffix in (".npy", ".npz")]
    index = folder / INDEX
    if (found or index.exists()) and not _is_unfinished(index):
        raise ValueError(
            f"folder: expected one without shards, got {folder} with {len(found)} .npy or .npz files"
            f"{f' and {INDEX}' if index.exists() else ''}."
        )
    for path in found:
        if _OWN_NAME.fullmatch(path.name):
            path.unlink()
    _write_index(folder, [], is_complete=False)


def _is_unfinished(index: Path) -> bool:
    """Return whether an index is that of a call that did not finish."""
    try:
        content = read_json(index)
    except (ValueError, OSError):
        return False
    has_format = isinstance(content, dict) and content.get("format") == FORMAT
    return has_format and content.get("is_complete") is False


def _write_shard(path: Path, parts: Sequence[np.ndarray]) -> dict[str, Any]:
    dtype = parts[0].dtype
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    total = hashlib.sha256()

    def write(file: Any) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            values = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            file.write(values)
            total.update(values)

    write_atomically(path, write)
    return {"name": path.name, "shape": list(shape), "dtype": dtype.str, "sha256": total.hexdigest()}


def _write_index(folder: Path, entries: list[dict], *, is_complete: bool) -> None:
    head = json.dumps({"format": FORMAT, "is_complete": is_complete})[:-1]
    lines = ",\n ".join(map(json.dumps, entries))
    text = f'{head}, "shards": [\n {lines}\n]}}\n'
    write_atomically(folder / INDEX, lambda file: file.write(text.encode()))
