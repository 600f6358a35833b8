"""Files that lie about themselves: each attack by name, refused in words, in little time and memory."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import fuzz_loaders
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from lying_files import ATTACKS, LIKE, MEMORY, MIB, MOST, PIPE, TRUE, write_true
from lying_parts import element, mat, matrix
from PIL import Image

from neurojax._untrusted import MOST_BYTES, inflated_limit, open_regular, parse_json, read_json, read_whole
from neurojax.cli._rbm_settings import Settings
from neurojax.cli._settings import from_plain
from neurojax.data import load_images, read_arrays
from neurojax.runs import RunFolder, load, plain_settings, save


@pytest.fixture(scope="module")
def came(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    for name, (make, _, _) in ATTACKS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(make())
    os.mkfifo(folder / PIPE)
    n_true = write_true(folder)
    command = [sys.executable, "-W", "ignore", "-c", "import lying_files; lying_files.attack_all()"]
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "JAX_PLATFORMS": "cpu",
        "MALLOC_MMAP_THRESHOLD_": str(MIB),  # so that what is given back is not taken again unseen
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (folder / "unpickled").exists()
    return json.loads(done.stdout) | {"n true": n_true}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_file_that_lies_is_refused_in_little_memory(came, name):
    result = came[name]
    assert result["kind"] == "ValueError", result
    assert name in result["text"] and re.search(ATTACKS[name][2], result["text"]), result["text"]
    assert len(result["text"]) < 2000
    print(f"{result['bytes'] / MIB:.1f} MiB")
    assert result["seconds"] < 5
    assert result["bytes"] < MEMORY.get(name, MOST) * MIB


def test_a_pipe_is_not_waited_for(came):
    assert came[PIPE]["kind"] == "ValueError" and "expected a regular file" in came[PIPE]["text"]


# --- what is true is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRUE)
def test_no_more_memory_is_taken_for_true_files_than_is_stated(came, name):
    assert 0 < came["true"][name] < TRUE[name][1] * came["n true"]


def test_the_limit_may_be_raised(tmp_path):
    path = tmp_path / "a.npz"
    array = np.zeros(8 * MIB, np.uint8)
    np.savez_compressed(path, array)
    with pytest.raises(ValueError, match=r"a\.npz: .*inflate to at most \d+ bytes in all, got 8388"):
        read_arrays(path, most_bytes=0)
    assert inflated_limit(0) == MOST_BYTES
    np.testing.assert_array_equal(read_arrays(path, most_bytes=8 * MIB)["arr_0"], array)


def test_an_image_folder_is_refused_where_its_images_are_too_much_together(tmp_path):
    for i in range(3):
        Image.new("L", (1000, 1000)).save(tmp_path / f"{i}.png")
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    needed = 3 * 4 * 1000**2
    assert load_images(tmp_path, most_bytes=16 * 1000**2).shape == (3, 1000, 1000)
    assert needed > inflated_limit(size, 10**7) > 0
    with pytest.raises(ValueError, match=r"expected at most 625000 pixels, got 1000 × 1000"):
        load_images(tmp_path, most_bytes=10**7)
    for i in range(3, 9):
        Image.new("L", (1000, 1000)).save(tmp_path / f"{i}.png")
    with pytest.raises(ValueError, match=r"images of at most \d+ bytes in all as float32, got more, up to"):
        load_images(tmp_path, most_bytes=16 * 1000**2)


def test_numbers_in_matlab_files_are_read_as_scipy_reads_them(tmp_path):
    cells = np.empty((2, 1), object)
    cells[:] = [[np.arange(3)], [{"a": 1.5}]]
    numbers = {"z": np.eye(2) * 1j, "e": np.zeros((0, 0)), "n": np.int8([[1]]), "big": np.arange(6.0)[None]}
    for form in ({"do_compression": True}, {"do_compression": False}, {"format": "4"}):
        others = {"t": "text"} if "format" in form else {"c": cells, "s": {"x": 1}, "t": "text"}
        scipy.io.savemat(tmp_path / "a.mat", numbers | others, **form)
        expected = scipy.io.loadmat(tmp_path / "a.mat")
        came = read_arrays(tmp_path / "a.mat")
        assert came.keys() == numbers.keys()
        assert all(repr(came[name]) == repr(expected[name]) for name in came)


@pytest.mark.parametrize("dtype", ["f8", ">f4", "?", "U3", "S2", "c8", "M8[s]", "i2,f8"])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_come_back_exactly(tmp_path, dtype, shape):
    array = np.zeros(shape, dtype)
    for order in (array, np.array(array, order="F")):
        np.save(tmp_path / "a.npy", order)
        np.savez_compressed(tmp_path / "a.npz", x=order)
        for read in (read_arrays(tmp_path / "a.npy")[""], read_arrays(tmp_path / "a.npz")["x"]):
            assert (read.dtype, read.shape) == (array.dtype, shape) and np.array_equal(read, array)
            assert read.flags.writeable and read.flags.f_contiguous == order.flags.f_contiguous


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    for name in ("a.npy", "a.npz", "a.mat"):
        with pytest.raises(FileNotFoundError, match=rf"{name}: expected a file, but there is none"):
            read_arrays(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        RunFolder(tmp_path).read_config()
    with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
        RunFolder(tmp_path).read_metrics()
    with pytest.raises(ValueError, match="expected a regular file"):
        read_json(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(JSON)
def test_json_comes_back(value):
    assert parse_json(json.dumps(value)) == value


@settings(max_examples=40, deadline=None)
@given(JSON, st.sampled_from(["n_steps", "batch_size", "rule", "step_size", "centred"]))
def test_a_setting_is_of_its_type_or_refused(value, name):
    plain = plain_settings(Settings())
    plain["learning"][name] = value
    try:
        read = getattr(from_plain(Settings, plain, "config.json").learning, name)
    except ValueError as error:
        assert f"config.json: expected {name} to be of type" in str(error)
    else:
        kinds = {"rule": (str,), "centred": (bool,), "step_size": (float, type(None))}
        assert type(read) in kinds.get(name, (int,))


def test_a_saved_model_is_read_and_a_shortened_one_is_not(tmp_path):
    path = tmp_path / "model.npz"
    save(path, LIKE)
    np.testing.assert_array_equal(load(path, LIKE)["w"], LIKE["w"])
    whole = path.read_bytes()
    for n in range(0, len(whole), 37):
        path.write_bytes(whole[:n])
        with pytest.raises(ValueError, match=r"expected a file written by save"):
            load(path, LIKE)


DENSE = {  # what takes most memory for its size, and how many bytes for each of them are said to be taken
    "numbers.mat": (lambda: mat(matrix(6, (1, 10**6), element(9, bytes(8 * 10**6)))), 2),
    "nested.json": (lambda: b"[" + (b"[" * 60 + b"]" * 60 + b",") * 300 + b"0]", 45),
}


@pytest.mark.parametrize("name", DENSE)
def test_what_is_dense_takes_the_memory_that_is_stated(tmp_path, name):
    make, most = DENSE[name]
    path = tmp_path / name
    path.write_bytes(make())
    tracemalloc.start()
    (read_json if name.endswith("json") else read_arrays)(path)
    ratio = tracemalloc.get_traced_memory()[1] / path.stat().st_size
    tracemalloc.stop()
    assert 0.7 * most < ratio < 1.02 * most


def test_no_memory_is_taken_for_what_a_file_does_not_have(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"short")
    file, n_bytes = open_regular(path)
    with file:
        assert (file.read(2**62), n_bytes, file.read(2**62), file.read(3)) == (b"short", 5, b"", b"")
        file.seek(2)
        assert file.read() == b"ort"


def test_the_fuzzer_sees_memory_that_is_taken(tmp_path, monkeypatch):
    def starved(path):
        def read(file, n_bytes):
            raise MemoryError

        read_whole(path, "anything", read)

    def greedy(path):
        assert np.ones(fuzz_loaders.MOST_GROWN // 8 + 2**18).all()

    for name, read, n, message in (("starved", starved, 3, "out of memory"), ("greedy", greedy, 1, "took ")):
        monkeypatch.setitem(fuzz_loaders.LOADERS, name, fuzz_loaders.LOADERS["npy"]._replace(read=read))
        failures = fuzz_loaders.run(name, range(3), 0, tmp_path).failures
        assert len(failures) == n and all(message in failure for failure in failures)


@pytest.mark.parametrize("name", fuzz_loaders.LOADERS)
def test_damaged_files_end_in_documented_errors(name, tmp_path):
    assert fuzz_loaders.run(name, range(3), 2, tmp_path).failures == []


@pytest.mark.slow
def test_a_thousand_damaged_files_end_in_documented_errors():
    """The committed fuzzer, in small; `python tests/fuzz_loaders.py` runs it at length."""
    script = Path(__file__).with_name("fuzz_loaders.py")
    command = [sys.executable, str(script), "--n", "1000", "--seed", "1"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "0 undocumented failures" in done.stdout
    assert sum(int(row.split()[-9]) for row in done.stdout.splitlines() if row.endswith(" ms")) == 1000
