import json
import os
import signal
import struct
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from streams import ROWS, cut, write_five

from neurojax.data import ShardedRows, _shards, batches, write_shards
from neurojax.penalties import L1
from neurojax.sparse_coding import encode_stream, random_dictionary

RANDOM = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    return write_five(tmp_path)


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
    with pytest.raises(
        ValueError, match=r"shard-000001\.npy: expected rows of the digest in shards.json, [0-9a-f]{64}, got"
    ):
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


@pytest.mark.parametrize(
    "stray", ["more.npy", "b-0-of-3.npy", "other-7.npy"], ids=["no number", "another total", "another set"]
)
def test_a_stray_name_hides_no_missing_shard(tmp_path, stray):
    np.save(tmp_path / "a-0-of-3.npy", ROWS)
    np.save(tmp_path / stray, ROWS)
    with pytest.raises(ValueError, match=r"\(a-0-of-3.npy, …\) with every .* got 1 shards; missing: 1, 2"):
        ShardedRows(tmp_path)
    (tmp_path / "a-0-of-3.npy").unlink()
    (tmp_path / stray).rename(tmp_path / "more.npy")
    np.save(tmp_path / "part-0.npy", ROWS)
    np.save(tmp_path / "part-2.npy", ROWS)
    with pytest.raises(ValueError, match=r"\(part-0.npy, …\) with every .* got 2 shards; missing: 1"):
        ShardedRows(tmp_path)


def test_sets_of_shards_come_one_after_another_each_by_number(tmp_path):
    names = [*(f"a-{number}-of-11" for number in range(11)), "a-0-of-1", *(f"b{n}" for n in range(9, 12))]
    for number, name in enumerate(names):
        np.save(tmp_path / f"{name}.npy", np.full((1, 1), number))
    came = ShardedRows(tmp_path)[:, 0].tolist()
    assert [number for number in came if number != 11] == [*range(11), 12, 13, 14]


@pytest.fixture
def impatient():
    """Have a test that hangs fail."""

    def too_slow(signum, frame):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_an_index_that_is_no_file_is_not_waited_for(tmp_path, impatient, make):
    write_five(tmp_path)
    make(tmp_path / "shards.json")
    with pytest.raises(ValueError, match=r"shards\.json: expected a regular file"):
        ShardedRows(tmp_path)
    with pytest.raises(ValueError, match=r"without shards, got .* with 5 \.npy or \.npz files and shards"):
        write_shards(tmp_path, ROWS, 5)


def test_an_index_is_read_within_the_limits_of_all_json(tmp_path):
    write_five(tmp_path)
    for text, message in ((" " * (2**24 + 1), "at most 16777216 bytes"), ("[" * 65 + "]" * 65, "64 levels")):
        (tmp_path / "shards.json").write_text(text)
        with pytest.raises(ValueError, match=rf"shards\.json: .*{message}"):
            ShardedRows(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"name": 1},
        {"name": ["a"]},
        {"shape": [True, 2]},
        {"shape": [5.0, 2]},
        {"shape": [0, 2]},
        {"shape": "5, 2"},
        {"dtype": 4},
        {"sha256": None},
        {"more": 0},
    ],
    ids=repr,
)
def test_an_entry_of_the_index_has_what_it_must(tmp_path, change):
    write_shards(tmp_path, ROWS, 5)
    index = json.loads((tmp_path / "shards.json").read_text())
    index["shards"][2] |= change
    (tmp_path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"shards\.json: expected entry 2 to have a name, a shape"):
        ShardedRows(tmp_path)
    index["shards"][2] = 5
    (tmp_path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"shards\.json: expected entry 2 .*, got 5\."):
        ShardedRows(tmp_path)


def test_long_names_in_an_index_are_cut_short(tmp_path):
    write_shards(tmp_path, ROWS, 5)
    index = json.loads((tmp_path / "shards.json").read_text())
    index["shards"][2]["name"] = "9" * 10_000
    (tmp_path / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"got no 999") as caught:
        ShardedRows(tmp_path)
    assert len(str(caught.value)) < 1000


def test_a_member_beyond_the_file_is_refused_by_the_name_of_the_file(tmp_path):
    path = tmp_path / "far.npz"
    np.savez(path, ROWS)
    content = bytearray(path.read_bytes())
    entry, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    struct.pack_into("<I", content, entry + 42, 2**32 - 1)
    struct.pack_into("<H", content, entry + 30, 12)
    struct.pack_into("<I", content, end + 12, end - entry + 12)
    content[end:end] = struct.pack("<2HQ", 1, 8, 2**64 - 1)  # the offset, as zip64 has it
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"far\.npz: .* within \d+ bytes, got one at byte 18446744073709551615"
    ):
        ShardedRows(tmp_path)


def test_so_many_shards_are_written_as_an_index_may_list(tmp_path, monkeypatch):
    monkeypatch.setattr("neurojax.data._shard_writing.MAX_SHARDS", 5)
    assert write_shards(tmp_path / "five", ROWS, 5).n_shards == 5
    with pytest.raises(ValueError, match=r"rows_per_shard: expected at most 5 shards of it, got more: 4"):
        write_shards(tmp_path / "six", ROWS, 4)


@pytest.mark.parametrize("n_block", [300, 700, 1000, 1500])
def test_writing_takes_less_memory_than_a_shard_and_two_blocks(tmp_path, n_block):
    def blocks():
        for number in range(6):
            yield np.full((n_block, 500), float(number))

    tracemalloc.start()
    rows = write_shards(tmp_path, blocks(), 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.shape == (6 * n_block, 500)
    np.testing.assert_array_equal(rows[:, 0], np.repeat(np.arange(6.0), n_block))
    assert peak < (1000 + 2 * n_block) * 500 * 8 + 200_000


def test_the_digest_tells_shards_from_others(folder, tmp_path):
    digests = {ShardedRows(folder).digest}
    for number, (rows, size) in enumerate([(ROWS, 5), (ROWS, 4), (ROWS + 1, 5), (ROWS.astype(">f4"), 5)]):
        shards = write_shards(tmp_path / f"{number}", rows, size)
        assert shards.digest == ShardedRows(tmp_path / f"{number}").digest
        digests.add(shards.digest)
    (folder / "part-4.npy").rename(folder / "part-5.npy")
    np.save(folder / "part-4.npy", ROWS[:1])
    digests.add(ShardedRows(folder).digest)
    assert len(digests) == 6


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


@pytest.mark.slow
def test_encode_stream_reads_shards_by_their_numbers(tmp_path):
    rows = np.random.default_rng(0).normal(size=(11, 4)).astype(np.float32)
    shards = write_shards(tmp_path / "rows", rows, 3)
    dictionary = random_dictionary(jax.random.key(0), 6, 4)
    settings = {"batch_size": 4}
    came = encode_stream(dictionary, shards, L1(0.1), output=tmp_path / "codes.npy", **settings)
    expected = encode_stream(dictionary, rows, L1(0.1), **settings)
    np.testing.assert_array_equal(came.value, expected.value)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="a system that cannot be told")
def test_what_memory_cannot_keep_is_forgotten_and_read_all_the_same(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    write_shards(tmp_path, rows, rows_per_shard=1000)
    told = []
    monkeypatch.setattr(os, "posix_fadvise", lambda *arguments: told.append(arguments[1:]))
    np.testing.assert_array_equal(ShardedRows(tmp_path)[10:2500], rows[10:2500])
    assert not told
    monkeypatch.setattr(_shards, "memory_size", lambda: 2 * rows.nbytes - 1)
    np.testing.assert_array_equal(ShardedRows(tmp_path)[10:2500], rows[10:2500])
    offset = 128  # of the rows in each file
    ranges = [(offset + 320, 31_680), (offset, 32_000), (offset, 16_000)]
    assert told == [(*one, os.POSIX_FADV_DONTNEED) for one in ranges]
