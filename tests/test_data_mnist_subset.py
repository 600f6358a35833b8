"""The bundled part of MNIST: offline, whole by digest, and the first rows of the set."""

import gzip
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest

from neurojax.data import LabelledImages, mnist, mnist_subset
from neurojax.data import _digits as digits

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))
SIZES = {"train": 5000, "test": 1000}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked for a download")

    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    monkeypatch.setattr(pooch, "retrieve", refuse)


@pytest.mark.parametrize("split", SIZES)
def test_works_offline(offline, split):
    loaded = mnist_subset(split)
    assert isinstance(loaded, LabelledImages)
    assert loaded.images.shape == (SIZES[split], 28, 28)
    assert loaded.labels.shape == (SIZES[split],)
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)
    assert (float(loaded.images.min()), float(loaded.images.max())) == (0, 1)
    assert set(np.unique(loaded.labels)) == set(range(10))


def test_dtypes_in_double_precision(x64):
    loaded = mnist_subset("test")
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)


@pytest.mark.skipif(not (DATA / "mnist/t10k-labels-idx1-ubyte.gz").is_file(), reason="needs MNIST")
@pytest.mark.parametrize("split", SIZES)
def test_the_first_rows_of_the_set(split):
    for part, whole in zip(mnist_subset(split), mnist(split), strict=True):
        np.testing.assert_array_equal(part, whole[: SIZES[split]])


def test_train_unless_said():
    np.testing.assert_array_equal(mnist_subset().labels, mnist_subset("train").labels)


def test_unknown_split(untyped):
    with pytest.raises(ValueError, match=r"split: expected one of \('train', 'test'\), got 'valid'\."):
        mnist_subset("valid")  # pyright: ignore[reportArgumentType]


def test_another_file_is_refused(tmp_path, monkeypatch):
    for file in digits._SUBSET_FOLDER.glob("*.gz"):
        content = bytearray(gzip.decompress(file.read_bytes()))
        content[-1] ^= 1
        (tmp_path / file.name).write_bytes(gzip.compress(content, 1))
    monkeypatch.setattr(digits, "_SUBSET_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=r"t10k-images.* SHA-256 de7c252b.* install the library again"):
        mnist_subset("test")


def test_small_and_with_its_terms():
    files = {file.name: file.stat().st_size for file in digits._SUBSET_FOLDER.iterdir()}
    assert "README.md" in files
    assert sum(files.values()) < 2e6
    assert "ShareAlike 3.0" in (digits._SUBSET_FOLDER / "README.md").read_text(encoding="utf-8")
