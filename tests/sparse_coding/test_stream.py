"""Streams: the codes of the batch, memory that is bounded, interrupts, and files that go on where they were.

Run as a program, `test_stream.py FILE`, it is the stream that a test kills.
"""

import itertools
import signal
import subprocess
import sys
import time
import weakref
from typing import ClassVar

import jax
import numpy as np
import pytest
from scipy.sparse import csr_array

from neurojax.convergence import Status
from neurojax.penalties import L1, AbstractProximalPenalty, soft_threshold
from neurojax.sparse_coding import (
    FISTA,
    ISTA,
    Dictionary,
    _stream,
    _stream_codes,
    _stream_identity,
    encode_batch,
    encode_stream,
)

PENALTY = L1(0.1)
N_ROWS, BATCH = 22, 4


def make_problem():
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(30, 20))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = rng.normal(size=(N_ROWS, 30)) * (rng.random((N_ROWS, 30)) < 0.1)
    rows = codes @ atoms + 0.05 * rng.normal(size=(N_ROWS, 20))
    return Dictionary(atoms.astype(np.float32)), rows.astype(np.float32)


DICTIONARY, ROWS = make_problem()


class SlowRows:
    """Rows with a length, that take their time, and may fail before row number ``stop``."""

    def __init__(self, pause=0.0, stop=None, error=KeyboardInterrupt, n_rows=N_ROWS):
        self.pause, self.stop, self.error, self.n_rows = pause, stop, error, n_rows

    def __len__(self):
        return self.n_rows

    def __iter__(self):
        for index, row in enumerate(ROWS):
            time.sleep(self.pause)
            if index == self.stop:
                raise self.error
            yield row


def stream(rows=ROWS, **settings):
    return encode_stream(DICTIONARY, rows, PENALTY, **{"batch_size": BATCH, "solver": FISTA(), **settings})


def same(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.fixture(scope="module")
def whole():
    """The stream that nothing disturbed."""
    return stream()


@pytest.fixture
def every_batch(monkeypatch):
    """Record the progress after every batch, however long that takes."""
    monkeypatch.setattr(_stream_codes, "_PAUSE", 0)


def record_of(path):
    return path.with_name(f"{path.name}.progress.npz")


def rows_recorded(path):
    with np.load(record_of(path)) as record:
        return len(record["status"])


def assert_equivalent(one, other, rows):
    """Both certified to 1e-5·½‖x‖², so each reconstruction is within √1e-5·‖x‖ of the optimum's."""
    for solution in (one, other):
        assert np.all(solution.status == Status.converged) and np.all(solution.residual <= 1e-5)
    distance = np.linalg.norm((one.value - other.value) @ np.asarray(DICTIONARY.atoms), axis=1)
    assert np.all(distance <= 2 * np.sqrt(1e-5) * np.linalg.norm(rows, axis=1))


def test_a_stream_is_the_batch(whole):
    for start in (BATCH, N_ROWS - N_ROWS % BATCH):  # a batch of the middle, and the last, which is padded
        rows = ROWS[start : start + BATCH]
        batch = encode_batch(
            DICTIONARY, np.pad(rows, ((0, BATCH - len(rows)), (0, 0))), PENALTY, solver=FISTA()
        )
        for part, field in zip(jax.tree.leaves(batch), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(part[: len(rows)], field[start : start + BATCH])


@pytest.mark.parametrize("kind", ["generator", "list", "jax", "memory map", "file"])
def test_all_kinds_of_rows_give_the_same_bits(kind, whole, tmp_path):
    if kind == "memory map":
        np.save(tmp_path / "rows.npy", ROWS)
    rows = {
        "generator": lambda: (row for row in ROWS),
        "list": lambda: list(ROWS),
        "jax": lambda: jax.numpy.asarray(ROWS),
        "memory map": lambda: np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "file": lambda: ROWS,
    }[kind]()
    output = tmp_path / "codes.npy" if kind == "file" else None
    solution = stream(rows, output=output, progress=kind == "generator")
    assert same(solution, whole)
    if output is not None:
        assert isinstance(solution.value, np.memmap) and np.array_equal(np.load(output), whole.value)
        assert [path.name for path in tmp_path.iterdir()] == ["codes.npy"]


def test_order_and_batch_size_do_not_matter(whole):
    order = np.random.default_rng(1).permutation(N_ROWS)
    shuffled = stream(ROWS[order])
    ordered = jax.tree.map(lambda field: field[np.argsort(order)], shuffled)
    assert_equivalent(ordered, whole, ROWS)
    assert_equivalent(ordered, stream(batch_size=5 * N_ROWS), ROWS)


def test_double_precision_rows_are_single_where_jax_is(whole, tmp_path):
    rows = ROWS.astype(np.float64)
    for solution in (stream(rows, output=tmp_path / "codes.npy"), stream(iter(rows))):
        assert solution.value.dtype == np.float32 and same(solution, whole)


def test_sparse_codes_are_the_same_codes(whole):
    solution = stream(iter(ROWS), sparse=True)
    assert isinstance(solution.value, csr_array) and solution.value.dtype == np.float32
    assert solution.value.nnz == np.sum(whole.value != 0)
    np.testing.assert_array_equal(solution.value.toarray(), whole.value)
    np.testing.assert_array_equal(solution.residual, whole.residual)


def test_a_broken_row_ends_alone(whole):
    broken = ROWS.copy()
    broken[7, 3] = np.nan
    solution = stream(broken)
    is_bad = np.arange(N_ROWS) == 7
    np.testing.assert_array_equal(solution.status, np.where(is_bad, Status.nonfinite, Status.converged))
    np.testing.assert_allclose(solution.value[~is_bad], whole.value[~is_bad], atol=1e-6)


def test_memory_is_bounded_and_the_next_batch_is_ready(monkeypatch):
    """A generator is never far ahead, and no batch outlives its codes."""
    alive, most_alive, n_read, lead = set(), [0], [0], []

    def counted_encode(dictionary, batch, penalty, **settings):
        memory = batch if batch.base is None else batch.base
        alive.add(id(memory))
        weakref.finalize(memory, alive.discard, id(memory))
        most_alive[0] = max(most_alive[0], len(alive))
        return encode_batch(dictionary, batch, penalty, **settings)

    def counted_rows():
        for row in itertools.chain.from_iterable(itertools.repeat(ROWS, 20)):
            n_read[0] += 1
            yield row

    class Counted(_stream.CodesInMemory):
        def keep(self, start, part):
            lead.append(n_read[0] - start)
            super().keep(start, part)

    monkeypatch.setattr(_stream, "encode_batch", counted_encode)
    monkeypatch.setattr(_stream, "CodesInMemory", Counted)
    solution = stream(counted_rows(), sparse=True)
    assert len(solution.status) == 20 * N_ROWS == n_read[0]
    assert most_alive[0] <= 3
    # When a batch is kept the next one is read and on the device already, and none after that.
    assert set(lead[:-1]) == {2 * BATCH} and lead[-1] == BATCH


def test_one_compilation_serves_all_batches():
    class Counting(AbstractProximalPenalty):
        penalty: L1
        is_smooth: ClassVar[bool] = False
        is_separable: ClassVar[bool] = True
        n_traced: ClassVar[int] = 0

        def prox(self, v, step_size):
            type(self).n_traced += 1
            return self.penalty.prox(v, step_size)

    settings = {"batch_size": BATCH, "solver": FISTA()}
    encode_stream(DICTIONARY, ROWS[:BATCH], Counting(L1(0.1)), **settings)
    for_one_batch = Counting.n_traced
    encode_stream(DICTIONARY, ROWS, Counting(L1(0.1)), **settings)
    assert Counting.n_traced == for_one_batch > 0


@pytest.mark.parametrize("is_sparse", [False, True])
def test_an_interrupt_returns_what_is_done(whole, is_sparse):
    rows = (row for row in SlowRows(stop=10))
    with pytest.warns(RuntimeWarning, match="interrupted after 8 rows; their codes are returned"):
        solution = stream(rows, sparse=is_sparse)
    assert same(solution.status, whole.status[:8]) and same(solution.residual, whole.residual[:8])
    codes = solution.value.toarray() if is_sparse else solution.value
    np.testing.assert_array_equal(codes, whole.value[:8])


def test_an_interrupt_before_the_first_batch_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        stream(SlowRows(stop=2))


@pytest.mark.parametrize("call", range(8))
def test_an_interrupt_may_fall_while_codes_are_kept(whole, call, monkeypatch):
    """Before or after a batch is stored: it is neither lost nor stored twice."""
    n_calls = itertools.count()

    class Interrupted(_stream.CodesInMemory):
        def keep(self, start, part):
            n = next(n_calls)
            if n == call // 2 and call % 2 == 0:
                raise KeyboardInterrupt
            super().keep(start, part)
            if n == call // 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(_stream, "CodesInMemory", Interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted after"):
        solution = stream()
    n_done = len(solution.status)
    assert n_done == BATCH * (call // 2 + 1)
    np.testing.assert_array_equal(solution.value, whole.value[:n_done])


def test_an_interrupt_leaves_a_file_that_goes_on(whole, tmp_path):
    output = tmp_path / "codes.npy"
    with pytest.raises(KeyboardInterrupt) as raised:
        stream(SlowRows(stop=10), output=output)
    note = f"8 of {N_ROWS} rows are in {output}; the same call goes on from there"
    assert note in raised.value.__notes__[0]
    assert rows_recorded(output) == 8
    codes = np.load(output)
    np.testing.assert_array_equal(codes, np.where(np.arange(N_ROWS)[:, None] < 8, whole.value, 0))
    # Rows that are done are not encoded again: what stands in the file is taken as it is.
    codes[0] = 7.0
    np.save(output, codes)
    solution = stream(output=output)
    assert np.all(solution.value[0] == 7.0) and np.array_equal(solution.value[1:], whole.value[1:])
    assert same(solution.status, whole.status) and same(solution.n_steps, whole.n_steps)
    assert not record_of(output).exists()


class Died(BaseException):
    """What stands for the process's end."""


@pytest.mark.parametrize("n_records", range(8))
def test_death_at_any_record_goes_on_bit_for_bit(n_records, whole, tmp_path, every_batch, monkeypatch):
    output, n_calls, write = tmp_path / "codes.npy", itertools.count(), _stream_codes.write_atomically

    def dying(path, fill):
        if next(n_calls) >= n_records:
            raise Died
        write(path, fill)

    with monkeypatch.context() as patch:
        patch.setattr(_stream_codes, "write_atomically", dying)
        if n_records < 7:  # one for each of six batches, and the first
            with pytest.raises(Died):
                stream(output=output)
        else:
            assert same(stream(output=output), whole)
    if 0 < n_records < 7:
        assert rows_recorded(output) == min((n_records - 1) * BATCH, N_ROWS)
    assert same(stream(output=output), whole)


@pytest.mark.slow
def test_a_killed_process_goes_on_bit_for_bit(whole, tmp_path):
    output = tmp_path / "codes.npy"
    with subprocess.Popen([sys.executable, __file__, str(output)]) as process:
        deadline = time.monotonic() + 60
        while not record_of(output).exists() or rows_recorded(output) < 2 * BATCH:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 2 * BATCH <= rows_recorded(output) < N_ROWS
    assert same(stream(output=output), whole)


def test_a_run_that_was_killed_when_all_was_done_ends(whole, tmp_path, monkeypatch):
    output = tmp_path / "codes.npy"
    with monkeypatch.context() as patch, pytest.raises(Died):
        patch.setattr(_stream.CodesInFile, "result", lambda self: (_ for _ in ()).throw(Died))
        stream(output=output)
    assert rows_recorded(output) == N_ROWS
    assert same(stream(output=output), whole)


def test_another_call_is_refused_by_name(tmp_path):
    output = tmp_path / "codes.npy"
    with pytest.raises(KeyboardInterrupt):
        stream(SlowRows(stop=6), output=output)
    settings = {"output": output, "solver": FISTA()}
    atoms = np.asarray(DICTIONARY.atoms)
    cases = [
        (lambda: stream(**settings, tol=1e-4), r"changed: settings\['tol'\] from nothing to 0.0001"),
        (
            lambda: stream(output=output, solver=ISTA()),
            r"settings\['solver'\] \(class\) from FISTA to ISTA",
        ),
        (
            lambda: stream(output=output, solver=FISTA(backtracking=True)),
            r"\['solver'\].backtracking from False to True",
        ),
        (lambda: stream(**settings, batch_size=5), "batch_size from 4 to 5"),
        (lambda: stream(ROWS[:-1], **settings), "number of rows from 22 to 21"),
        (lambda: stream(ROWS[::-1], **settings), "first row from .* to "),
        (
            lambda: encode_stream(DICTIONARY, ROWS, L1(0.2), batch_size=BATCH, **settings),
            r"penalty.strength from float32\(\) 0.1.* to float32\(\) 0.2",
        ),
        (
            lambda: encode_stream(Dictionary(-atoms), ROWS, PENALTY, batch_size=BATCH, **settings),
            r"dictionary.atoms from float32\(30, 20\) [0-9a-f]{16} to ",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert rows_recorded(output) == BATCH
    np.save(output, np.zeros((N_ROWS, 29), np.float32))
    with pytest.raises(ValueError, match=r"the file from float32\(22, 29\) to float32\(22, 30\)"):
        stream(**settings)
    record_of(output).write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"its record codes.npy.progress.npz as a run left them, got"):
        stream(**settings)


def soft(factor):
    class Soft(AbstractProximalPenalty):
        """A stranger's penalty, one of many of this name."""

        is_smooth: ClassVar[bool] = False
        is_separable: ClassVar[bool] = True

        def prox(self, v, step_size):
            return soft_threshold(v, factor * step_size)

    return Soft()


def test_a_penalty_of_the_same_name_is_not_the_same(tmp_path, monkeypatch):
    output = tmp_path / "codes.npy"

    def go_on(factor, rows=ROWS):
        return encode_stream(DICTIONARY, rows, soft(factor), batch_size=BATCH, output=output, solver=FISTA())

    with pytest.raises(KeyboardInterrupt):
        go_on(0.1, SlowRows(stop=6))
    with pytest.raises(ValueError, match="these changed: program from one computation to another"):
        go_on(0.2)
    with monkeypatch.context() as patch:
        patch.setattr(_stream_identity, "versions", lambda: {"jax": "0.0.1"})
        go_on(0.2)  # by another version, which makes other programs of everything


def test_a_bad_row_leaves_a_file_that_goes_on(whole, tmp_path):
    output = tmp_path / "codes.npy"
    with pytest.raises(ValueError, match=r"rows: expected shape \(20,\), got \(4,\) at row 9"):
        stream([*ROWS[:9], ROWS[9][:4], *ROWS[10:]], output=output)
    assert rows_recorded(output) == BATCH  # of two whole batches the second was still on the device
    assert same(stream(list(ROWS), output=output), whole)


def test_bad_input_is_named(untyped, tmp_path):
    output = tmp_path / "codes.npy"
    mixed = [*ROWS[:5], ROWS[5].astype(np.float64)]
    cases = [
        (lambda: stream(batch_size=0), "batch_size: expected a whole number ≥ 1, got 0"),
        (lambda: stream(ROWS[:0]), "rows: expected at least one row, got none"),
        (lambda: stream(iter([])), "rows: expected at least one row, got none"),
        (lambda: stream(ROWS[0]), r"rows: expected 2 axes \(samples features\), got shape \(20,\)"),
        (lambda: stream(ROWS[:, :3]), r"rows: row 0 does not fit the dictionary .*20 features.*\(3,\)"),
        (lambda: stream(iter([1.0, 2.0])), "rows: row 0 does not fit the dictionary .*1 axes"),
        (lambda: stream(ROWS.astype(complex)), "rows: expected real numbers, got dtype complex"),
        (lambda: stream(iter(mixed)), "rows: expected dtype float32, got float64 at row 5"),
        (
            lambda: stream(iter([*ROWS[:2], ROWS[0][:4]])),
            r"rows: expected shape \(20,\), got \(4,\) at row 2",
        ),
        (lambda: stream(SlowRows(n_rows=30)), "rows: expected 30 rows, as len.rows. says, got 22"),
        (lambda: stream(SlowRows(n_rows=10)), "rows: expected 10 rows, as len.rows. says, got more"),
        (
            lambda: stream(iter(ROWS), output=output),
            "output: expected rows to be a matrix, .* got .*iterator",
        ),
        (lambda: stream(output=output, sparse=True), "sparse: expected False together with output"),
        (lambda: stream(init=np.ones((N_ROWS, 30))), "init: expected no such argument of encode_stream"),
        (lambda: stream(max_active=3), "max_active: expected no such argument .*sparse=True"),
        (lambda: stream(output=output, tol=0.0), "tol: expected a number > 0, got 0.0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    _stream_codes._PAUSE = 0
    stream(SlowRows(pause=0.05), output=sys.argv[1])
