"""The fixed binarisation of MNIST: its text format, the search, and the real set."""

import hashlib
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest

from neurojax.data import _binarized as binarized
from neurojax.data import binarized_mnist
from neurojax.data._binarized import parse_amat

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))
ROWS = np.random.default_rng(0).integers(0, 2, (5, 784), dtype=np.uint8)


def as_text(rows):
    return "".join(" ".join(str(digit) for digit in row) + "\n" for row in rows).encode()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A data folder and an empty cache, no network, and a made test set taken for the real one."""

    def refuse(*args, **kwargs):
        raise ConnectionRefusedError("no network here")

    folder, cache = tmp_path / "named", tmp_path / "neurojax"
    folder.mkdir()
    cache.mkdir()
    monkeypatch.setenv("NEUROJAX_DATA", str(folder))
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(pooch, "retrieve", refuse)
    monkeypatch.setitem(binarized._SHA256, "test", hashlib.sha256(as_text(ROWS)).hexdigest())
    return folder, cache


def test_text_of_the_layout_is_parsed():
    parsed = parse_amat(as_text(ROWS), 784)
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, ROWS)
    assert binarized._as_text(ROWS).tobytes() == as_text(ROWS)


BAD_TEXTS = {
    "empty": (b"", r"3 digits, each row 6 bytes, got 0 bytes"),
    "short": (b"0 1 1\n1 0 0", r"3 digits, each row 6 bytes, got 11 bytes"),
    "digit": (b"0 1 1\n1 2 0\n", r"got b'2' in row 1, character 2"),
    "space": (b"0 1 1\n1 0,0\n", r"got b',' in row 1, character 3"),
    "newline": (b"0 1 1 1 0 0\n", r"got b' ' in row 0, character 5"),
    "columns": (b"0 1\n1 0\n1 1\n", r"got b'\\n' in row 0, character 3"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_other_text_is_refused(name):
    text, message = BAD_TEXTS[name]
    with pytest.raises(ValueError, match=message):
        parse_amat(text, 3)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("name", ["mnist_fixed_binarized.npz", "binarized_mnist_test.amat"])
def test_found_in_folder_and_cache(places, place, name):
    path = places[place] / name
    np.savez_compressed(path, test=ROWS) if name.endswith("npz") else path.write_bytes(as_text(ROWS))
    loaded = binarized_mnist("test")
    assert loaded.dtype == jnp.float32
    np.testing.assert_array_equal(loaded, ROWS)


def test_downloaded_by_its_digest(places, monkeypatch):
    def fetch(url, known_hash, fname, path):
        wanted.append((url, known_hash, path))
        (path / fname).write_bytes(as_text(ROWS))
        return str(path / fname)

    wanted = []
    with pytest.raises(ConnectionError, match=r"binarized_mnist_test\.amat: not found .*no network here"):
        binarized_mnist("test")
    monkeypatch.setattr(pooch, "retrieve", fetch)
    for _ in range(2):
        np.testing.assert_array_equal(binarized_mnist("test"), ROWS)
    address = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/binarized_mnist_test.amat"
    assert wanted == [(address, f"sha256:{binarized._SHA256['test']}", places[1])]


OTHER = ROWS ^ (np.arange(784) == 700)
BAD_ARRAYS = {
    "value": ({"test": OTHER}, r"published test rows .* got 5 rows with [0-9a-f]{64}"),
    "no digit": ({"test": ROWS * np.uint8(9)}, r"published test rows"),
    "length": ({"test": ROWS[:4]}, r"published test rows .* got 4 rows with"),
    "dtype": ({"test": ROWS.astype(float)}, r"uint8 of shape \(samples, 784\), got float64"),
    "shape": ({"test": ROWS.reshape(5, 28, 28)}, r"got uint8 of shape \(5, 28, 28\)"),
    "name": ({"valid": ROWS}, r"expected an array named test, got valid\."),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_other_arrays_are_refused(places, name):
    arrays, message = BAD_ARRAYS[name]
    np.savez(places[0] / "mnist_fixed_binarized.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        binarized_mnist("test")


def test_other_text_file_is_refused_by_name(places):
    path = places[0] / "binarized_mnist_test.amat"
    path.write_bytes(as_text(ROWS)[:-1])
    with pytest.raises(ValueError, match=r"_test\.amat: expected rows of 784 .* got 7839 bytes"):
        binarized_mnist("test")
    path.write_bytes(as_text(OTHER))
    with pytest.raises(ValueError, match=r"_test\.amat: expected the published test rows"):
        binarized_mnist("test")


def test_unknown_split(untyped):
    with pytest.raises(ValueError, match=r"split: expected one of .*'valid'.*, got 'validation'\."):
        binarized_mnist("validation")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist_fixed_binarized.npz").is_file(), reason="needs binarised MNIST")
@pytest.mark.parametrize(
    ("split", "n_samples", "mean"),
    [("train", 50_000, 0.130562), ("valid", 10_000, 0.131127), ("test", 10_000, 0.132512)],
)
def test_real_set(split, n_samples, mean):
    rows = np.asarray(binarized_mnist(split))
    assert rows.shape == (n_samples, 784)
    assert rows.dtype == np.float32
    assert abs(rows.mean(dtype=float) - mean) <= 0.5e-6
    assert np.all((rows == 0) | (rows == 1))
