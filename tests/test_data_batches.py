import json
import sys
import threading
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from streams import ROWS, numbers, same, take, write_five

from neurojax.data import ShardedRows, batches, patch_batches, write_shards
from neurojax.data._pipeline import rows_at, shuffled
from neurojax.training import BatchIterator, Checkpoint, fit

PIXELS = np.arange(3 * 10 * 12, dtype=np.float32).reshape(3, 10, 12)


@pytest.fixture
def folder(tmp_path):
    return write_five(tmp_path)


def test_every_epoch_visits_every_row_once_and_in_an_order_of_its_own(folder):
    stream = batches(ShardedRows(folder), 4, seed=3, n_epochs=40)
    assert isinstance(stream, BatchIterator)
    epochs = [take(stream, 5) for _ in range(40)]
    assert all(len({n for batch in epoch for n in numbers(batch)}) == 20 for epoch in epochs)
    orders = {tuple(np.concatenate(epoch)[:, 0].tolist()) for epoch in epochs}
    assert len(orders) == 40
    # The remainder of three is another one each time: no row misses half of the epochs.
    visits = np.bincount([n for epoch in epochs for batch in epoch for n in numbers(batch)])
    assert len(visits) == 23 and visits.min() > 20
    with pytest.raises(StopIteration):
        next(stream)
    assert not same(take(batches(ROWS, 4, seed=4), 5), take(batches(ROWS, 4, seed=3), 5))


def test_batches_from_files_are_those_from_memory(folder):
    from_disk, in_memory = (take(batches(r, 4, seed=1), 12) for r in (ShardedRows(folder), ROWS))
    assert same(from_disk, in_memory)
    assert same(from_disk, take(batches(jnp.asarray(ROWS), 4, seed=1, n_threads=3, n_ahead=1), 12))
    pairs = batches((ROWS, np.arange(23)), 4, seed=1)
    assert all(numbers(rows) == sorted(labels.tolist()) for rows, labels in take(pairs, 5))


@pytest.mark.parametrize("kind", ["rows", "patches"])
@pytest.mark.parametrize("count", [2, 4])
def test_a_batch_is_the_same_set_for_any_number_of_processes(kind, count):
    def stream(index, count):
        at = {"process_index": index, "process_count": count}
        if kind == "rows":
            return batches(ROWS, 8, seed=5, **at)
        return patch_batches(PIXELS, 8, patch_size=3, seed=5, **at)

    whole = take(stream(0, 1), 6)
    parts = [take(stream(index, count), 6) for index in range(count)]
    for number, batch in enumerate(whole):
        for index in range(count):
            np.testing.assert_array_equal(parts[index][number], batch[index::count], strict=True)


@pytest.mark.parametrize("given", [0, 1, 4, 5, 7])
def test_a_position_is_exact_at_any_batch(folder, given):
    rows = ShardedRows(folder)
    expected = take(batches(rows, 4, seed=2), 14)
    stream = batches(rows, 4, seed=2)
    take(stream, given)
    state = json.loads(json.dumps(stream.get_state()))
    other = batches(rows, 4, seed=2, process_index=1, process_count=2)
    assert other.get_state() == {**state, "n_batches": 0}
    other.set_state(state)
    assert same(take(other, 14 - given), [batch[1::2] for batch in expected[given:]])
    assert other.get_state()["n_batches"] == 14
    other.set_state({**state, "n_batches": 1})
    assert same(take(other, 2), [batch[1::2] for batch in expected[1:3]])
    assert same(take(stream, 14 - given), expected[given:])


def watched(model, state, batch, key):
    return jnp.mean((batch - model) ** 2), (state, {"total": jnp.sum(batch)})


def test_a_run_goes_on_from_its_checkpoint_with_other_processes(folder, tmp_path_factory):
    rows = ShardedRows(folder)

    def run(place, n_steps, may_change=(), **processes):
        settings = {"optimizer": OPTIMIZER, "n_steps": n_steps, "key": jax.random.key(0)}
        checkpoint = Checkpoint(place, every=2, may_change=may_change)
        return fit(
            jnp.zeros(2), watched, batches(rows, 4, seed=9, **processes), checkpoint=checkpoint, **settings
        )

    whole = run(tmp_path_factory.mktemp("whole"), 12)
    place = tmp_path_factory.mktemp("cut")
    run(place, 7)
    resumed = run(place, 12)
    np.testing.assert_array_equal(resumed.model, whole.model)
    np.testing.assert_array_equal(resumed.history["total"], whole.history["total"])
    run(place, 13, process_index=0, process_count=1)
    # Its part of the batches alone, where processes that share a mesh join them.
    with pytest.raises(ValueError, match=r"data: from 'batches of float32\[4, 2\]' to '.*\[2, 2\]'\. Give"):
        run(place, 15, process_index=1, process_count=2)
    elsewhere = run(place, 15, ("data",), process_index=1, process_count=2)
    expected = [batch.sum() for batch in take(batches(rows, 4, seed=9), 15)]
    expected[13:] = [b[1::2].sum() for b in take(batches(rows, 4, seed=9), 15)[13:]]
    np.testing.assert_allclose(elsewhere.history["total"], expected)


OPTIMIZER = optax.sgd(0.1)


def test_positions_of_other_pipelines_are_refused_by_name():
    stream = batches(ROWS, 4, seed=0, n_epochs=2)
    state = batches(ROWS, 4, seed=0).get_state()
    for change, message in (
        ({"seed": 1}, "seed: expected 1, with which the position was saved, got 0"),
        ({"batch_size": 5}, "batch_size: expected 5"),
        ({"n_rows": 22}, "n_rows: expected 22, .* got 23"),
        ({"order": "feistel"}, "order: expected 'feistel', .* got 'grain 4'"),
        ({"patch_size": 3}, "patch_size: expected 3, .* got None"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.set_state({**state, "settings": {**state["settings"], **change}})
    old = {name: value for name, value in state["settings"].items() if name != "order"}
    with pytest.raises(ValueError, match=r"order: expected None, .* got 'grain 4'"):
        stream.set_state({**state, "settings": old})
    for bad in ({}, 3, {**state, "n_batches": -1}, {**state, "n_batches": 11}):
        with pytest.raises(ValueError, match="state"):
            stream.set_state(bad)


@pytest.mark.parametrize("n", [1, 2, 65, 65_537])
def test_an_order_has_every_row_once(n):
    for epoch in (0, 1):
        np.testing.assert_array_equal(np.sort(shuffled(7, epoch, np.arange(n), n)), np.arange(n))


def test_an_entry_of_an_order_is_the_same_whatever_else_is_asked():
    n = 3_000_000_000  # rows whose numbers 32 bits do not hold
    positions = np.random.default_rng(0).integers(0, n, 1000)
    whole = shuffled(1, 2, positions, n)
    assert len(np.unique(whole)) == len(np.unique(positions)) and whole.dtype == np.int64
    assert stats.kstest(whole / n, "uniform").pvalue > 1e-3
    for chosen in (slice(3, 4), slice(None, None, 7), [5, 5, 0]):
        np.testing.assert_array_equal(shuffled(1, 2, positions[chosen], n), whole[chosen])
    for other in ((1, 3), (2, 2), (2**64 - 1, 2)):
        assert np.mean(shuffled(*other, positions, n) == whole) < 0.01


def test_all_orders_of_few_rows_are_as_likely():
    came = np.array([shuffled(0, epoch, np.arange(4), 4) for epoch in range(3000)])
    counts = np.unique(came @ 4 ** np.arange(4), return_counts=True)[1]
    assert len(counts) == 24
    assert stats.chisquare(counts).pvalue > 1e-3


def test_all_places_of_rows_are_as_likely():
    n = 100_000  # beyond what is permuted as a whole
    came = np.concatenate([shuffled(3, epoch, np.array([0, 1, n - 1]), n) for epoch in range(1000)])
    assert stats.kstest(came / n, "uniform").pvalue > 1e-3


def test_orders_of_other_epochs_are_others_and_neighbours_are_far_apart():
    n = 1000
    came = np.array([shuffled(4, epoch, np.arange(n), n) for epoch in range(300)])
    in_place = np.sum(came[1:] == came[:-1], axis=1)  # of two permutations: one on average, variance one
    assert abs(in_place.mean() - 1) < 4 / np.sqrt(len(in_place))
    for lag in (1, 2, 500):
        assert abs(np.corrcoef(came[0, :-lag], came[0, lag:])[0, 1]) < 4 / np.sqrt(n - lag)


class Increasing:
    """Rows of a store that, like h5py, takes increasing numbers only."""

    def __init__(self, rows):
        self.rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, chosen):
        if isinstance(chosen, np.ndarray) and np.any(np.diff(chosen) <= 0):
            raise TypeError("Indexing elements must be in increasing order")
        return self.rows[chosen]


def _check_store(rows, images, array):
    """Check that stores of ROWS and of images give the batches that arrays give."""
    for got, expected in (
        (batches(rows, 4, seed=1), batches(ROWS, 4, seed=1)),
        (patch_batches(images, 6, patch_size=5, seed=1), patch_batches(array, 6, patch_size=5, seed=1)),
    ):
        assert same(take(got, 8), take(expected, 8))
    chosen = np.array([7, 2, 7, 0])
    np.testing.assert_array_equal(rows_at(rows, chosen), ROWS[chosen])


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 20, 24), np.uint8)


def test_stores_and_memory_maps_are_read_in_the_order_of_arrays(tmp_path):
    _check_store(Increasing(ROWS), Increasing(IMAGES), IMAGES)
    for name, array in (("rows", ROWS), ("images", IMAGES)):
        np.save(tmp_path / f"{name}.npy", array)
    rows, images = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("rows", "images"))
    assert isinstance(rows, np.memmap)
    _check_store(rows, images, IMAGES)


def test_h5py_datasets_are_read_in_the_order_of_arrays(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "all.h5", "w") as store:
        store["rows"], store["images"] = ROWS, IMAGES
        with pytest.raises(TypeError, match="increasing order"):
            store["rows"][np.array([2, 1])]
        _check_store(store["rows"], store["images"], IMAGES)


class Endless:
    """A thousand million rows that lie nowhere."""

    shape, dtype = (10**9, 1), np.dtype(np.int64)

    def __len__(self):
        return 10**9

    def __getitem__(self, chosen):
        return np.asarray(chosen)[:, None]


def test_an_order_takes_no_memory_a_row():
    tracemalloc.start()
    stream = batches(Endless(), 512, seed=0, n_threads=1)
    stream.set_state({**stream.get_state(), "n_batches": 10**9 // 512 - 2})
    before, after = take(stream, 2), take(stream, 2)  # an epoch ends between them
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stream.close()
    assert peak < 10e6
    assert len(np.unique(np.concatenate(before))) == len(np.unique(np.concatenate(after))) == 1024


def test_no_thread_stays_when_the_last_batch_is_given():
    def threads():
        return {thread for thread in threading.enumerate() if "grain" in thread.name}

    before = threads()
    stream = batches(ROWS, 4, seed=0, n_epochs=2)
    take(stream, 9)
    assert threads() - before
    next(stream)
    for thread in threads() - before:
        thread.join(10)
        assert not thread.is_alive()
    with pytest.raises(StopIteration):
        next(stream)


def test_settings_are_the_same_in_all_processes_and_cannot_be_changed(folder):
    stream = batches({"x": ShardedRows(folder), "y": ROWS}, 4, seed=2)
    other = batches({"x": ShardedRows(folder), "y": ROWS}, 4, seed=2, process_index=1, process_count=2)
    assert stream.settings == other.settings == json.loads(json.dumps(stream.settings))
    assert stream.settings == {
        "seed": 2, "batch_size": 4, "n_rows": 23, "order": "grain 4",
        "source['x'].shape": [23, 2], "source['y'].shape": [23, 2],
        "source['x'].dtype": "float32", "source['y'].dtype": "float32", "source['x'].n_shards": 5,
        "source['x'].digest": ShardedRows(folder).digest,
    }  # fmt: skip
    stream.settings["source['y'].shape"].append(1)
    stream.settings["seed"] = 3
    assert stream.settings == other.settings
    with pytest.raises(AttributeError):
        stream.settings = {}


def test_the_position_in_another_source_is_refused_by_name(folder, tmp_path_factory):
    shards = [write_shards(tmp_path_factory.mktemp("rows"), ROWS + number, 5) for number in range(2)]
    sources = [ROWS, ROWS.astype(np.float64), ROWS[:, :1], ShardedRows(folder), *shards]
    streams = [batches(source, 4, seed=0) for source in sources]
    for one, two, name in (
        (0, 1, "dtype"),
        (0, 2, "shape"),
        (0, 3, "n_shards"),
        (3, 4, "digest"),
        (4, 5, "digest"),
    ):
        for given, taking in ((one, two), (two, one)):
            with pytest.raises(ValueError, match=rf"source\.{name}: expected .*, with which the position"):
                streams[taking].set_state(streams[given].get_state())
    batches(shards[0], 4, seed=0).set_state(streams[4].get_state())


def test_a_transform_runs_on_the_host_and_an_error_in_it_reaches_the_caller():
    stream = batches(ROWS, 4, seed=0, transform=lambda rows: jnp.asarray(rows) * 2)
    plain = take(batches(ROWS, 4, seed=0), 3)
    assert same(take(stream, 3), [2 * batch for batch in plain])
    with jax.enable_x64(True):
        double = batches(ROWS.astype(np.float64), 4, seed=0, transform=jnp.sin)
    assert next(double).dtype == np.float64
    is_broken = [True]

    def fragile(rows):
        if is_broken[0]:
            raise ArithmeticError("no luck")
        return rows

    stream = batches(ROWS, 4, seed=0, transform=fragile)
    with pytest.raises(ArithmeticError, match="no luck"):
        next(stream)
    is_broken[0] = False
    assert same(take(stream, 3), plain)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 24}, "batch_size: expected at most the 23 rows of source, got 24"),
        ({"batch_size": 0}, "batch_size: expected a whole number ≥ 1"),
        (
            {"process_index": 0, "process_count": 3},
            "batch_size: expected a multiple of the 3 processes, got 4",
        ),
        (
            {"process_index": 2, "process_count": 2},
            "process_index: expected less than the 2 processes, got 2",
        ),
        ({"process_count": 2}, "process_count: expected it together with process_index"),
        ({"seed": -1}, "seed: expected a whole number ≥ 0"),
        ({"seed": 2**64}, "seed: expected less than 2⁶⁴"),
        ({"n_epochs": 0}, "n_epochs: expected a whole number ≥ 1"),
        ({"n_threads": 0}, "n_threads: expected a whole number ≥ 1"),
        ({"n_ahead": 0}, "n_ahead: expected a whole number ≥ 1"),
        ({"source": (ROWS, ROWS[:5])}, r"source: expected equally many rows .*'source\[1\]': 5"),
        ({"source": ROWS[:0]}, "source: expected at least one row"),
        ({"source": [1.0, 2.0]}, r"source\[0\]: expected rows with len"),
    ],
)
def test_settings_of_batches_that_cannot_be_meant(settings, message, untyped):
    with pytest.raises(ValueError, match=message):
        batches(**{"source": ROWS, "batch_size": 4, "seed": 0} | settings)


def test_without_grain_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ImportError, match=r"pip install 'grain"):
        batches(ROWS, 4, seed=0)


def test_fit_takes_shards_like_an_array(tmp_path):
    from training_runs import simple

    rows = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    shards = write_shards(tmp_path / "rows", rows, 5)
    settings = {"batch_size": 4, "n_steps": 30, "checkpoint": Checkpoint(tmp_path / "run", 10)}
    simple(data=shards, **settings | {"n_steps": 13})
    result = simple(data=shards, **settings)
    expected = simple(data=shards, **settings | {"checkpoint": None})
    np.testing.assert_array_equal(result.model, expected.model)
    np.testing.assert_allclose(simple(data=shards, batch_size=12, n_steps=200).model, rows.mean(0), atol=1e-4)
    with pytest.raises(ValueError, match="batch_size: expected a number, for rows that lie outside memory"):
        simple(data=shards)
