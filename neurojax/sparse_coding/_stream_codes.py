"""The codes of a stream as they come: in memory, or in a file with a record of how far it is filled."""

import contextlib
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from .._untrusted import parse_json, read_numpy, read_whole
from ..convergence import Solution
from ..runs import check_writable, write_atomically
from ._stream_identity import changed_identity

__all__ = ["CodesInFile", "CodesInMemory"]

_PAUSE = 20  # between two records of the progress, in units of the time that one takes
_OUTCOME = ("status", "n_steps", "residual")


class CodesInMemory:
    """The codes of a stream whose result fits into memory."""

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


class CodesInFile:
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
        changes = changed_identity(identity, self.identity)
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
