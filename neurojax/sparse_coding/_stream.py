"""Encoding any number of rows from the host, with one batch on the device and the next on its way."""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from scipy.sparse import csr_array, vstack

from .._checks import check_at_least, check_rank, check_real
from .._untrusted import parse_json, read_numpy, read_whole
from ..convergence import Solution
from ..distributed import check_mesh, gather
from ..penalties import AbstractPenalty
from ..runs import changed_settings, check_writable, describe_tree, tree_arrays, write_atomically
from ._batch import encode_batch
from ._dictionary import AbstractDictionary

__all__ = ["encode_stream"]

_PAUSE = 20  # between two records of the progress, in units of the time that one takes


def encode_stream(
    dictionary: AbstractDictionary,
    rows: Iterable,
    penalty: AbstractPenalty,
    *,
    output: str | Path | None = None,
    batch_size: int = 4096,
    sparse: bool = False,
    progress: bool = False,
    mesh: Mesh | None = None,
    **settings,
) -> Solution:
    """Encode any number of rows from the host, batch by batch; a host program, not for ``jit``.

    While a batch is computed the next is read and the codes of the last are kept: so two batches and their
    codes are in memory, beside the result. All batches are of one size (the last is filled up with zeros), so
    that there is one compilation. Rows end as in `encode_batch`, each with its own status.

    With ``output``, a record of the progress lies beside the file, ``<output>.progress.npz``, until all is
    done. A run that was cut off, even killed, goes on where it was when it is called again, and ends with the
    same codes bit for bit (same backend). A file without such a record is replaced.

    On Ctrl-C the batch on the device is finished. Then, without ``output``, the codes so far are returned
    with a warning (rows that were read but make no whole batch are lost); with it, they are in the file and
    the interrupt is raised again, with a note that says how many.

    Args:
        dictionary: the dictionary.
        rows: a matrix with one datum per row (memory-mapped, or `neurojax.data.ShardedRows`), or an iterable
            of data, such as a generator, which is read only as far as is needed.
        penalty: the penalty.
        output: an ``.npy`` file for the codes, written as they come; ``value`` is then the file's memory
            map. It needs a length known beforehand, of a matrix or by ``len(rows)``.
        batch_size: rows on the device at once, ≥ 1. On a CPU the time a row was the same for 1024 to 16384;
            a GPU has more slots to fill (see ``n_slots`` of `encode_batch`).
        sparse: return the codes as a ``scipy.sparse.csr_array``, whose memory grows with the active units.
        progress: show a progress bar.
        mesh: the devices that share each batch; in several processes, each has rows of its own (and an
            ``output`` of its own), which its own devices of the mesh encode.
        **settings: the keyword arguments of `encode_batch`, except ``init`` and ``max_active``.

    Returns:
        A solution of NumPy arrays with a leading axis of rows.

    Raises:
        ValueError: as `encode_batch`; for no rows; for a row that is not of the first one's shape and dtype
            (says which); for ``output`` together with ``sparse`` or rows of unknown length, for rows whose
            number is not ``len(rows)``, and for a file begun with other arguments (says which).
        OSError: if ``output`` cannot be written.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, encode_stream
        >>> rows = ([float(n), 0.25] for n in range(5))
        >>> encode_stream(Dictionary(jnp.eye(2)), rows, L1(0.5), batch_size=2).value[:, 0].tolist()
        [0.0, 0.5, 1.5, 2.5, 3.5]
    """
    _check_arguments(batch_size, output, sparse, settings)
    source = _open(dictionary, rows)
    if output is not None and source.n_rows is None:
        kind = type(rows).__name__
        raise ValueError(f"output: expected rows to be a matrix, or to have a length, got {kind} without.")
    size = batch_size if source.n_rows is None else min(batch_size, source.n_rows)

    if mesh is not None:
        check_mesh(mesh)
    if mesh is not None and jax.process_count() > 1:
        # What lies over all processes cannot be sent from here: each has a copy, for its own devices.
        dictionary, penalty, settings = gather((dictionary, penalty, settings))
        mesh = mesh.local_mesh

    def encode(batch):
        return encode_batch(dictionary, batch, penalty, mesh=mesh, **settings)

    if output is None or source.n_rows is None:
        return _encode(encode, source, size, progress, _Memory(sparse))
    # Bad arguments are told before a file is touched.
    one_batch = jax.ShapeDtypeStruct((size, *source.first.shape), jnp.result_type(source.first))
    form = jax.tree.map(
        lambda field: jax.ShapeDtypeStruct((source.n_rows, *field.shape[1:]), field.dtype),
        jax.eval_shape(encode, one_batch),
    )
    identity = {"batch_size": size, **source.identity(), **_identity(dictionary, penalty, settings)}
    return _encode(encode, source, size, progress, _File(Path(output), form, identity))


def _check_arguments(batch_size, output, sparse: bool, settings: dict) -> None:
    check_at_least("batch_size", batch_size, 1)
    if sparse and output is not None:
        raise ValueError(f"sparse: expected False together with output, a dense file, got {sparse}.")
    reasons = {"init": "each row starts from zero", "max_active": "sparse=True holds codes of any width"}
    for name, reason in reasons.items():
        if name in settings:
            raise ValueError(f"{name}: expected no such argument of encode_stream ({reason}), got one.")


class _Source(NamedTuple):
    """Rows, of which the first has been looked at."""

    rows: Any  # a matrix or an iterator
    first: np.ndarray
    n_rows: int | None

    def batches(self, size: int, start: int) -> Iterator[np.ndarray]:
        """Read the rows from number ``start`` on; only the last batch may be shorter than ``size``."""
        if _is_matrix(self.rows):
            for begin in range(start, len(self.rows), size):
                yield np.asarray(self.rows[begin : begin + size])
            return
        checked = islice(self._checked(), start, None)
        while True:
            batch, n_new = np.zeros((size, *self.first.shape), self.first.dtype), 0
            for n_new, row in enumerate(islice(checked, size), 1):
                batch[n_new - 1] = row
            if n_new:
                yield batch[:n_new]
            if n_new < size:
                return

    def _checked(self) -> Iterator[np.ndarray]:
        n_read = 0
        for index, row in enumerate(map(np.asarray, self.rows)):
            n_read = index + 1
            if self.n_rows is not None and n_read > self.n_rows:
                raise ValueError(f"rows: expected {self.n_rows} rows, as len(rows) says, got more.")
            if row.shape != self.first.shape:
                raise ValueError(f"rows: expected shape {self.first.shape}, got {row.shape} at row {index}.")
            if row.dtype != self.first.dtype:
                raise ValueError(f"rows: expected dtype {self.first.dtype}, got {row.dtype} at row {index}.")
            yield row
        if self.n_rows is not None and n_read < self.n_rows:
            raise ValueError(f"rows: expected {self.n_rows} rows, as len(rows) says, got {n_read}.")

    def identity(self) -> dict[str, Any]:
        return {"number of rows": self.n_rows, "first row": _shown(self.first)}


def _is_matrix(rows: Any) -> bool:
    """Return whether rows can be had by their numbers: of an array, or of `neurojax.data.ShardedRows`."""
    return all(hasattr(rows, name) for name in ("shape", "dtype", "__getitem__"))


def _open(dictionary: AbstractDictionary, rows: Any) -> _Source:
    """Look at the first row."""
    is_matrix = _is_matrix(rows)
    if is_matrix:
        check_rank("rows", rows, "samples features")
    iterator = iter(rows[:1]) if is_matrix else iter(rows)
    n_rows = len(rows) if isinstance(rows, Sized) else None
    first = [np.asarray(row) for row in islice(iterator, 1)]
    if not first:
        raise ValueError("rows: expected at least one row, got none.")
    try:
        check_rank("x", first[0], "features")
        check_real("x", first[0])
        jax.eval_shape(dictionary.empty_code, first[0])
    except ValueError as error:
        raise ValueError(f"rows: row 0 does not fit the dictionary ({error})") from error
    return _Source(rows if is_matrix else chain(first, iterator), first[0], n_rows)


def _encode(encode, source: _Source, size: int, progress: bool, kept: "_Memory | _File") -> Solution:
    from tqdm import tqdm

    start = kept.n_done
    with tqdm(total=source.n_rows, initial=start, unit="row", disable=not progress) as bar:

        def keep(begin: int, n_new: int, solution: Solution) -> None:
            kept.keep(begin, jax.tree.map(lambda field: np.asarray(field)[:n_new], solution))
            bar.update(kept.n_done - bar.n)

        try:
            interrupt = _run(encode, source.batches(size, start), size, start, keep)
        finally:
            kept.close()
    return kept.result() if interrupt is None else kept.interrupted(interrupt, source.n_rows)


def _run(
    encode: Callable, batches: Iterator[np.ndarray], size: int, start: int, keep: Callable
) -> KeyboardInterrupt | None:
    """Encode batch after batch: the next is handed to the device before the last is waited for.

    An interrupt may fall anywhere; so ``keep`` may be called twice with the same batch.
    """
    pending, interrupt = None, None
    try:
        for batch in batches:
            n_new = len(batch)
            if start and n_new < size:
                batch = np.pad(batch, ((0, size - n_new), (0, 0)))
            coming = start, n_new, encode(batch)
            if pending is not None:
                keep(*pending)
            pending, start = coming, start + n_new
    except KeyboardInterrupt as raised:
        interrupt = raised
    if pending is not None:
        keep(*pending)
    return interrupt


class _Memory:
    """What is kept of a stream whose result fits into memory."""

    def __init__(self, is_sparse: bool):
        self.parts: dict[int, Solution] = {}
        self.is_sparse = is_sparse
        self.n_done = 0

    def keep(self, start: int, part: Solution) -> None:
        codes = csr_array(part.value) if self.is_sparse else part.value
        self.parts[start] = Solution(codes, part.status, part.n_steps, part.residual)
        self.n_done = start + len(part.status)

    def close(self) -> None:
        pass

    def result(self) -> Solution:
        parts = list(self.parts.values())
        status, n_steps, residual = (
            np.concatenate([getattr(part, name) for part in parts]) for name in _OUTCOME
        )
        if self.is_sparse:
            return Solution(vstack([part.value for part in parts], format="csr"), status, n_steps, residual)
        codes = np.empty((self.n_done, *parts[0].value.shape[1:]), parts[0].value.dtype)
        del parts
        for start in list(self.parts):  # each part is let go when it is copied: nothing is held twice
            part = self.parts.pop(start).value
            codes[start : start + len(part)] = part
        return Solution(codes, status, n_steps, residual)

    def interrupted(self, interrupt: KeyboardInterrupt, n_rows: int | None) -> Solution:
        if not self.n_done:
            raise interrupt
        of_all = "" if n_rows is None else f" of {n_rows}"
        warnings.warn(
            f"encode_stream was interrupted after {self.n_done}{of_all} rows; their codes are returned.",
            RuntimeWarning,
            stacklevel=4,
        )
        return self.result()


_OUTCOME = ("status", "n_steps", "residual")


class _File:
    """Codes in an ``.npy`` file, and beside it a record of how far it is filled and how the rows ended.

    Plain writes in place of a memory map: a full disk is then an error, not the end of the process.
    """

    def __init__(self, path: Path, form: Solution, identity: dict[str, Any]):
        self.path, self.record_path = path, Path(f"{path}.progress.npz")
        self.identity = json.loads(json.dumps({"codes": f"{form.value.dtype}{form.value.shape}", **identity}))
        self.outcome = {name: np.zeros(len(form.status), getattr(form, name).dtype) for name in _OUTCOME}
        self.n_done = self.n_recorded = 0
        self.next_record = 0.0
        check_writable("output", path.parent)
        if self.record_path.exists():
            codes = self._resume(form)
        else:
            path.unlink(missing_ok=True)  # not overwritten: it may be in use as a memory map
            codes = np.lib.format.open_memmap(path, "w+", form.value.dtype, form.value.shape)
        self.offset = codes.offset
        self.file = path.open("r+b")
        self._record()

    def _resume(self, form: Solution) -> np.memmap:
        try:
            record = read_whole(self.record_path, "the record of a stream", read_numpy)
            identity = dict(parse_json(str(record["identity"])))
            outcome = {name: record[name] for name in _OUTCOME}
            if any(values.shape != outcome["status"].shape for values in outcome.values()):
                raise ValueError("arrays of different lengths")
            if outcome["status"].ndim != 1 or len(outcome["status"]) > len(form.status):
                raise ValueError(f"at most {len(form.status)} rows, got {outcome['status'].shape}")
            codes = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # whatever a damaged file makes its reader raise
            raise ValueError(
                f"output: expected {self.path} and its record {self.record_path.name} as a run left them, "
                f"got {error!r}; remove the record to begin anew."
            ) from error
        changes = changed_settings(identity, self.identity)
        if (codes.dtype, codes.shape) != (form.value.dtype, form.value.shape):
            changes["the file"] = f"{codes.dtype}{codes.shape}", f"{form.value.dtype}{form.value.shape}"
        if changes:
            listed = "; ".join(f"{name} from {old} to {new}" for name, (old, new) in changes.items())
            raise ValueError(
                f"output: expected the arguments that {self.path} was begun with, but these changed: "
                f"{listed}. Remove {self.record_path.name} to begin anew."
            )
        self.n_done = len(outcome["status"])
        for name, values in outcome.items():
            self.outcome[name][: self.n_done] = values
        return codes

    def keep(self, start: int, part: Solution) -> None:
        codes = np.ascontiguousarray(part.value)
        with self._told():
            self.file.seek(self.offset + start * codes[0].nbytes)
            self.file.write(codes.data)
        stop = start + len(codes)
        for name, values in self.outcome.items():
            values[start:stop] = getattr(part, name)
        self.n_done = stop
        if time.monotonic() >= self.next_record:
            self._record()

    @contextlib.contextmanager
    def _told(self):
        """Say what is safe where writing fails, as on a full disk."""
        try:
            yield
        except OSError as error:
            raise OSError(
                f"output: {self.path} could not be written ({error}); {self.n_recorded} rows are, and the "
                "same call goes on from there."
            ) from error

    def _record(self) -> None:
        """Say how far the codes are on disk, after they are."""
        began, n_done = time.monotonic(), self.n_done
        record: dict[str, Any] = {name: values[:n_done] for name, values in self.outcome.items()}
        record["identity"] = np.array(json.dumps(self.identity))
        with self._told():
            self.file.flush()
            os.fsync(self.file.fileno())
            write_atomically(self.record_path, lambda file: np.savez(file, **record))
        self.n_recorded = n_done
        self.next_record = time.monotonic() + _PAUSE * (time.monotonic() - began)

    def close(self) -> None:
        if self.n_recorded < self.n_done:
            self._record()
        self.file.close()

    def result(self) -> Solution:
        self.record_path.unlink()
        return Solution(np.load(self.path, mmap_mode="r+"), **self.outcome)

    def interrupted(self, interrupt: KeyboardInterrupt, n_rows: int | None) -> Solution:
        interrupt.add_note(
            f"encode_stream: {self.n_done} of {n_rows} rows are in {self.path}; "
            "the same call goes on from there."
        )
        raise interrupt


def _identity(dictionary, penalty, settings: dict[str, Any]) -> dict[str, Any]:
    """Name all that decides the codes: settings as they are, large arrays by a digest."""
    entries = {}
    for name, tree in (("dictionary", dictionary), ("penalty", penalty), ("settings", settings)):
        arrays = tree_arrays(tree)
        for path, entry in describe_tree(tree).items():
            entries[name + path] = entry["value"] if "value" in entry else _shown(arrays[path])
    return entries


def _shown(array: np.ndarray) -> str:
    short = array.tolist() if array.size <= 8 else hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.dtype}{array.shape} {short}"
