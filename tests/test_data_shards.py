import json
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from neurojax import data
from neurojax.data import ImageFolder, ShardedRows, batches, patch_batches, write_shards
from neurojax.penalties import L1
from neurojax.sparse_coding import encode_stream, random_dictionary
from neurojax.training import BatchIterator, Checkpoint, fit

ROWS = np.arange(46, dtype=np.float32).reshape(23, 2)
RANDOM = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Twenty-three rows in five shards without an index."""
    for number, rows in enumerate(np.split(ROWS, [5, 10, 15, 20])):
        np.save(tmp_path / f"part-{number}.npy", rows)
    return tmp_path


def numbers(batch):
    """Return the sorted numbers of the rows in a batch."""
    return sorted((np.asarray(batch)[:, 0] / 2).astype(int).tolist())


def take(stream, n):
    return [next(stream) for _ in range(n)]


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


# ---- rows in files


def test_rows_are_those_of_the_array(folder):
    rows = ShardedRows(folder)
    assert (rows.shape, rows.ndim, rows.dtype, len(rows), rows.n_shards) == ((23, 2), 2, np.float32, 23, 5)
    chosen = [
        0, -1, np.int64(7), slice(None), slice(3, 19), slice(4, 4), slice(-2, None), slice(20, 1, -3),
        [22, 0, 4, 5, 5], np.array([[1, 22], [9, 10]], np.uint8), [], (slice(2, 8), 1), (3, 0), ([6, 2], 0),
    ]  # fmt: skip
    for index in chosen:
        expected = (
            ROWS[np.asarray(index, int) if index == [] else index] if isinstance(index, list) else ROWS[index]
        )
        np.testing.assert_array_equal(rows[index], expected, err_msg=str(index), strict=True)
    np.testing.assert_array_equal(list(rows), ROWS)
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    np.testing.assert_array_equal(jnp.asarray(rows), ROWS)
    assert np.asarray(rows, np.float64).dtype == np.float64
    for index in (23, -24, [0, 23]):
        with pytest.raises(IndexError, match="expected less than the 23 rows"):
            rows[index]
    with pytest.raises(TypeError, match="expected whole numbers or a slice"):
        rows[np.ones(23)]


def test_stored_npz_big_endian_and_scalars_and_images(tmp_path):
    np.savez(tmp_path / "a.npz", rows=ROWS.astype(">f4")[:9], labels=np.arange(9))
    np.savez(tmp_path / "b.npz", labels=np.arange(9, 23), rows=ROWS.astype(">f4")[9:])
    rows, labels = ShardedRows(tmp_path, name="rows"), ShardedRows(tmp_path, name="labels")
    assert rows.dtype == np.dtype(np.float32) and rows.dtype.isnative
    for index in (4, slice(5, 20), [20, 8, 9]):
        np.testing.assert_array_equal(rows[index], ROWS[index], strict=True)
        np.testing.assert_array_equal(labels[index], np.arange(23)[index])
    with pytest.raises(ValueError, match=r"a\.npz: expected one array, got 2: rows, labels"):
        ShardedRows(tmp_path)
    with pytest.raises(ValueError, match=r"a\.npz: expected one array 'images', got 2"):
        ShardedRows(tmp_path, name="images")


def test_numbered_shards_come_by_number_and_others_by_name(tmp_path):
    for number in range(12):
        np.save(tmp_path / f"part-{number}.npy", np.full((1, 1), number))
    assert ShardedRows(tmp_path)[:, 0].tolist() == list(range(12))
    np.save(tmp_path / "more.npy", np.full((1, 1), -1))
    assert ShardedRows(tmp_path)[:3, 0].tolist() == [-1, 0, 1]
    (tmp_path / ".hidden.npy").write_bytes(b"no shard")
    (tmp_path / "notes.txt").write_text("no shard")
    assert ShardedRows(tmp_path).n_shards == 13


def test_written_shards_are_read_back(tmp_path):
    written = write_shards(tmp_path / "whole", ROWS, 4)
    assert written.n_shards == 6 and len(written._shards[-1:]) == 1
    np.testing.assert_array_equal(written[:], ROWS, strict=True)
    blocks = (ROWS[at : at + 7] for at in range(0, 23, 7))
    np.testing.assert_array_equal(write_shards(tmp_path / "blocks", blocks, 4)[:], ROWS, strict=True)
    again = write_shards(tmp_path / "again", written, 100)
    assert again.n_shards == 1
    np.testing.assert_array_equal(again[:], ROWS)
    index = json.loads((tmp_path / "whole" / "shards.json").read_text())
    assert index == {**index, "is_complete": True} and len(index["shards"]) == 6
    assert index["shards"][5] | {"sha256": ""} == {
        "name": "shard-000005.npy", "shape": [3, 2], "dtype": "<f4", "sha256": "",
    }  # fmt: skip


def test_digests_find_one_changed_bit(tmp_path):
    write_shards(tmp_path, ROWS, 10)
    ShardedRows(tmp_path, verify=True)
    path = tmp_path / "shard-000001.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    ShardedRows(tmp_path)
    with pytest.raises(ValueError, match=r"shard-000001\.npy: expected rows of digest [0-9a-f]{64}, got"):
        ShardedRows(tmp_path, verify=True)


def test_a_call_that_was_killed_is_seen_and_done_again(tmp_path):
    def dying():
        yield ROWS[:10]
        yield ROWS[10:15]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path, dying(), 3)
    assert len(list(tmp_path.glob("*.npy"))) == 5
    with pytest.raises(ValueError, match=r"shards\.json: expected shards of a write_shards that finished"):
        ShardedRows(tmp_path)
    np.testing.assert_array_equal(write_shards(tmp_path, ROWS, 20)[:], ROWS)
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(ValueError, match=r"folder: expected one without shards, got .* with 2"):
        write_shards(tmp_path, ROWS, 20)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "expected at least one row"),
        ([ROWS, ROWS[:, :1]], r"expected rows of shape \(2,\) and dtype float32, got \(1,\) .* in block 1"),
        ([ROWS, ROWS.astype(np.float64)], "got .* and float64 in block 1"),
        ([np.array(["a", "b"])], "of real numbers, got .* dtype <U1 in block 0"),
        ([np.zeros((3, 0))], r"got shape \(3, 0\)"),
    ],
)
def test_blocks_that_cannot_be_written_are_named(tmp_path, blocks, message):
    with pytest.raises(ValueError, match=f"rows: .*{message}"):
        write_shards(tmp_path, blocks, 50)


def cut(path, n_bytes):
    path.write_bytes(path.read_bytes()[:n_bytes])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"1")


FORTRAN = np.asfortranarray(ROWS[10:15])
DAMAGES = {
    "a missing shard": (lambda f: (f / "part-2.npy").unlink(), "got 4 shards; missing: 2"),
    "one twice": (lambda f: np.save(f / "part-02.npy", ROWS[:5]), "once, got 6 shards; missing: none"),
    "cut off": (lambda f: cut(f / "part-2.npy", 160), "part-2.npy: expected 168 .* got 160: it is cut off"),
    "too long": (lambda f: lengthen(f / "part-2.npy"), "part-2.npy: .* got 169: it is too long"),
    "cut in the header": (lambda f: cut(f / "part-2.npy", 60), "part-2.npy: .* header cannot be read"),
    "empty": (lambda f: cut(f / "part-2.npy", 0), "part-2.npy: .* header cannot be read"),
    "another width": (
        lambda f: np.save(f / "part-2.npy", ROWS[:, :1]),
        r"part-2.npy: expected rows of shape \(2,\) and dtype float32 as in part-0.npy, got \(1,\)",
    ),
    "another dtype": (lambda f: np.save(f / "part-2.npy", ROWS.astype(int)), "part-2.npy: .* and int64"),
    "no rows": (lambda f: np.save(f / "part-2.npy", ROWS[:0]), r"at least one row .* got shape \(0, 2\)"),
    "a number": (lambda f: np.save(f / "part-2.npy", 3.0), r"at least one row .* got shape \(\)"),
    "Fortran order": (lambda f: np.save(f / "part-2.npy", FORTRAN), "part-2.npy: .* in Fortran order"),
    "complex": (lambda f: np.save(f / "part-2.npy", ROWS + 1j), "expected real numbers, got dtype complex"),
    "pickled": (
        lambda f: np.save(f / "part-2.npy", np.array([{}, []], object), allow_pickle=True),
        "part-2.npy: expected numbers, got Python objects, which are never unpickled",
    ),
    "a pickle": (lambda f: (f / "part-2.npy").write_bytes(b"\x80\x04}."), "part-2.npy: .* cannot be read"),
    "compressed": (
        lambda f: np.savez_compressed(f / "part-5.npz", ROWS),
        "part-5.npz: .* got a compressed or encrypted one, .* numpy.savez",
    ),
    "no archive": (lambda f: (f / "part-5.npz").write_bytes(b"PK"), "part-5.npz: expected an .npz file"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_folder_is_refused_by_name(folder, name):
    damage, message = DAMAGES[name]
    damage(folder)
    with pytest.raises(ValueError, match=message):
        ShardedRows(folder)


def test_announced_sizes_are_checked_before_anything_is_taken(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999, 9999999), }"
    header += b" " * (118 - 1 - len(header)) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match="it is cut off"):
        ShardedRows(tmp_path)


def test_folders_that_are_not_what_the_index_says(tmp_path):
    write_shards(tmp_path, ROWS, 5)
    one, index = tmp_path / "shard-000003.npy", tmp_path / "shards.json"
    text, content = index.read_text(), one.read_bytes()
    np.save(tmp_path / "another.npy", ROWS)
    with pytest.raises(ValueError, match=r"that shards\.json lists, got also another\.npy"):
        ShardedRows(tmp_path)
    (tmp_path / "another.npy").unlink()
    one.unlink()
    with pytest.raises(ValueError, match=r"that shards\.json lists, got no shard-000003\.npy"):
        ShardedRows(tmp_path)
    np.save(one, ROWS[:4])
    with pytest.raises(
        ValueError, match=r"shard-000003\.npy: expected what shards\.json says, .* got .*\[4, 2\]"
    ):
        ShardedRows(tmp_path)
    one.write_bytes(content)
    for damaged in (
        "{",
        "[" * 100_000,
        text.replace("shards 1", "shards 2"),
        text.replace("name", "path"),
        "[]",
    ):
        index.write_text(damaged)
        with pytest.raises(ValueError, match=r"shards\.json: expected"):
            ShardedRows(tmp_path)


def test_a_total_in_the_names_shows_a_missing_end(tmp_path):
    for number in (1, 2):
        np.save(tmp_path / f"train-{number:05d}-of-00003.npy", ROWS)
    with pytest.raises(ValueError, match="every number from 0 to 2 once, got 2 shards; missing: 0"):
        ShardedRows(tmp_path)
    np.save(tmp_path / "train-00003-of-00003.npy", ROWS)
    assert len(ShardedRows(tmp_path)) == 69


def test_folders_without_shards(tmp_path):
    with pytest.raises(ValueError, match=r"expected at least one \.npy or \.npz file"):
        ShardedRows(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder of shards"):
        ShardedRows(tmp_path / "nowhere")
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(ValueError, match=r"verify: expected shards\.json"):
        ShardedRows(tmp_path, verify=True)


def resident_bytes():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_large_file_is_opened_and_shuffled_without_being_read(tmp_path):
    n_rows, width = 200_000, 256
    np.save(tmp_path / "large.npy", np.zeros((1, width), np.float32))
    header = (tmp_path / "large.npy").read_bytes()[:128]
    header = header.replace(b"(1, 256), }" + b" " * 5, f"({n_rows}, 256), }}".encode())
    with (tmp_path / "large.npy").open("wb") as file:
        file.write(header)
        file.truncate(128 + n_rows * width * 4)
    next(batches(ROWS, 3, seed=0))  # grain's own memory is not what is measured
    tracemalloc.start()
    before = resident_bytes()
    rows = ShardedRows(tmp_path)
    stream = batches(rows, 64, seed=0)
    assert [next(stream).shape for _ in range(3)] == [(64, 256)] * 3
    assert rows[n_rows - 1].sum() == 0
    stream.close()
    assert len(rows) * rows.shape[1] * 4 > 200e6
    assert resident_bytes() - before < 100e6  # around each row the system reads ahead
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_encoding_from_shards_is_encoding_from_memory(tmp_path):
    rows = RANDOM.normal(size=(23, 8)).astype(np.float32)
    dictionary = random_dictionary(jax.random.key(0), 12, 8)
    shards = write_shards(tmp_path, rows, 5)
    in_memory, from_disk = (encode_stream(dictionary, r, L1(0.3), batch_size=10) for r in (rows, shards))
    np.testing.assert_array_equal(from_disk.value, in_memory.value)


# ---- batches


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

    def run(place, n_steps, **processes):
        settings = {"optimizer": OPTIMIZER, "n_steps": n_steps, "key": jax.random.key(0)}
        checkpoint = Checkpoint(place, every=2)
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
    elsewhere = run(place, 15, process_index=1, process_count=2)
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
        ({"patch_size": 3}, "patch_size: expected 3, .* got None"),
    ):
        with pytest.raises(ValueError, match=message):
            stream.set_state({**state, "settings": {**state["settings"], **change}})
    for bad in ({}, 3, {**state, "n_batches": -1}, {**state, "n_batches": 11}):
        with pytest.raises(ValueError, match="state"):
            stream.set_state(bad)


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
    with pytest.raises(ImportError, match=r"pip install 'neurojax\[scale\]'"):
        batches(ROWS, 4, seed=0)


# ---- patches

# Each pixel is its own number, so a patch says where it comes from.
PIXELS = np.arange(3 * 10 * 12, dtype=np.float32).reshape(3, 10, 12)
UNEQUAL = [
    np.arange(4 * 4, dtype=np.float32).reshape(4, 4),
    16 + np.arange(9 * 7.0).reshape(9, 7).astype("f4"),
]


def plain(images, **settings):
    return patch_batches(
        images, **{"batch_size": 40, "patch_size": 3, "seed": 0, "preprocess": "none"} | settings
    )


def test_patches_are_cut_out_of_the_images():
    corners = set()
    for patches in take(plain(PIXELS), 100):
        for patch in patches:
            image, row, column = np.unravel_index(int(patch[0]), PIXELS.shape)
            cut_out = PIXELS[image, row : row + 3, column : column + 3].ravel()
            np.testing.assert_array_equal(patch, cut_out)
            corners.add((image, row, column))
    assert len(corners) == 3 * 8 * 10


@pytest.mark.parametrize("images_per_batch", [None, 2])
def test_every_position_in_unequal_images_is_equally_likely(images_per_batch):
    drawn = take(plain(UNEQUAL, batch_size=500, images_per_batch=images_per_batch), 60)
    first = np.concatenate(drawn)[:, 0].astype(int)
    counts = np.bincount(first, minlength=16 + 63)
    possible = np.flatnonzero(counts)
    assert len(possible) == 2 * 2 + 7 * 5
    share = counts[:16].sum() / counts.sum()
    n_draws = counts.sum() if images_per_batch is None else 60 * images_per_batch
    assert abs(share - 4 / 39) < 4 * np.sqrt(4 / 39 * 35 / 39 / n_draws)
    if images_per_batch is None:
        expected = counts.sum() / 39
        assert np.sum((counts[possible] - expected) ** 2 / expected) < 77  # χ² with 38: p = 2e-4


def test_a_folder_of_images_is_decoded_whitened_and_preprocessed(tmp_path):
    photographs = [RANDOM.integers(0, 256, (20, 24), np.uint8), RANDOM.integers(0, 256, (18, 30), np.uint8)]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photographs[0]).save(tmp_path / "a.png")
    Image.fromarray(photographs[1]).save(tmp_path / "b.png", exif=exif)
    folder = ImageFolder(tmp_path)
    loaded = data.load_images(tmp_path)
    assert folder.sizes.tolist() == [[20, 24], [30, 18]] == [list(image.shape) for image in loaded]
    np.testing.assert_array_equal(folder[1], loaded[1])
    assert same(take(plain(tmp_path), 2), take(plain([np.asarray(image) for image in loaded]), 2))
    white = [np.asarray(data.whiten_1996(image)) for image in loaded]
    on_the_fly = take(plain(tmp_path, prepare=data.whiten_1996, preprocess="variance", floor=0.1), 2)
    for came, patches in zip(on_the_fly, take(plain(white), 2), strict=True):
        np.testing.assert_allclose(came, data.normalize_variance(patches, 0.1), atol=1e-5)
    halves = patch_batches(tmp_path, 40, patch_size=3, seed=0, transform=lambda patches: patches / 2)
    np.testing.assert_allclose(next(halves).mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(
        2 * next(halves), data.remove_patch_mean(take(plain(tmp_path), 2)[1]), atol=1e-6
    )
    eight_bits = np.stack([photographs[0], photographs[0]])
    np.testing.assert_array_equal(
        next(plain(eight_bits)), next(plain(eight_bits.astype(np.float32) / np.float32(255)))
    )


class Counted(list):
    """A sequence that notes which of its images are asked for."""

    def __init__(self, images):
        super().__init__(images)
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


def test_images_are_kept_within_the_bound_and_only_those_needed_are_loaded():
    images = Counted([np.full((8, 8), number, np.float32) for number in range(50)])
    once = plain(images, n_threads=1, cache_bytes=50 * 256)
    take(once, 30)
    once.close()
    assert sorted(images.asked) == sorted(set(images.asked))
    images.asked.clear()
    stream = plain(images, n_threads=1, cache_bytes=10 * 256, images_per_batch=2, n_batches=6)
    drawn = list(stream)
    assert all(len(np.unique(batch)) <= 2 for batch in drawn)
    assert len(images.asked) <= 12
    bounded = data._patch_stream._Images(images, None, cache_bytes=3 * 256)
    for index in (0, 1, 2, 0, 3):
        bounded[index]
    assert list(bounded.kept) == [2, 0, 3] and bounded.n_bytes == 3 * 256


def test_patches_resume_exactly_and_end(tmp_path):
    shards = write_shards(tmp_path, PIXELS, 2)
    expected = take(plain(PIXELS), 9)
    stream = plain(shards, n_batches=9)
    take(stream, 4)
    again = plain(shards, n_batches=9)
    again.set_state(json.loads(json.dumps(stream.get_state())))
    assert same(list(again), expected[4:])
    with pytest.raises(ValueError, match="patch_size: expected 3, with which"):
        plain(PIXELS, patch_size=4).set_state(stream.get_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": []}, "images: expected a folder, an array or a sequence of images"),
        ({"images": PIXELS[0]}, r"images: expected 3 axes \(images, rows, columns\), got shape \(10, 12\)"),
        (
            {"images": PIXELS.astype(int)},
            "images: expected real floating-point numbers or uint8, got dtype int64",
        ),
        ({"images": [PIXELS[0], PIXELS]}, r"images\[1\]: expected 2 axes"),
        ({"images": UNEQUAL, "patch_size": 5}, r"least side of images\[0\], of shape \(4, 4\), got 5"),
        ({"patch_size": 0}, "patch_size: expected a whole number ≥ 1"),
        ({"n_batches": 0}, "n_batches: expected a whole number ≥ 1"),
        ({"images_per_batch": 0}, "images_per_batch: expected a whole number ≥ 1"),
        ({"cache_bytes": -1}, "cache_bytes: expected a whole number ≥ 0"),
        ({"preprocess": "median"}, "preprocess: expected one of"),
        ({"floor": -1.0}, "floor: expected a number ≥ 0"),
        (
            {"process_index": 0, "process_count": 3},
            "batch_size: expected a multiple of the 3 processes, got 40",
        ),
    ],
)
def test_settings_of_patches_that_cannot_be_meant(settings, message, untyped):
    with pytest.raises(ValueError, match=message):
        plain(**{"images": PIXELS} | settings)


def test_images_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        plain(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected at least one image file"):
        plain(tmp_path)
    Image.fromarray(RANDOM.integers(0, 256, (60, 60), np.uint8)).save(tmp_path / "a.png")
    cut(tmp_path / "a.png", 1000)
    with pytest.raises(ValueError, match=r"a\.png: expected an image file, got one that cannot be read"):
        next(plain(tmp_path))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.png: expected an image file"):
        plain(tmp_path)
    holed = PIXELS.copy()
    holed[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"images\[1\]: expected finite numbers, got 1"):
        next(plain(holed))
    with pytest.raises(ValueError, match=r"images\[0\]: expected shape \(10, 12\), also from prepare"):
        next(plain(PIXELS[:1], prepare=lambda image: image[1:]))


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


def test_encode_stream_reads_shards_by_their_numbers(tmp_path):
    from neurojax.penalties import L1
    from neurojax.sparse_coding import encode_stream, random_dictionary

    rows = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    shards = write_shards(tmp_path / "rows", rows, 3)
    dictionary = random_dictionary(jax.random.key(0), 6, 4)
    settings = {"batch_size": 4}
    came = encode_stream(dictionary, shards, L1(0.1), output=tmp_path / "codes.npy", **settings)
    expected = encode_stream(dictionary, rows, L1(0.1), **settings)
    np.testing.assert_array_equal(came.value, expected.value)
