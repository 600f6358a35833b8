"""The MNIST loader: the idx reader against made files and arbitrary bytes, the search, and the real set."""

import gzip
import hashlib
import math
import os
import struct
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurojax.data import LabelledImages, mnist
from neurojax.data import _digits as digits
from neurojax.data._digits import read_idx

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))
CODES = {
    0x08: np.uint8, 0x09: np.int8, 0x0B: np.int16, 0x0C: np.int32, 0x0D: np.float32, 0x0E: np.float64,
}  # fmt: skip


def header(code, *sizes):
    return bytes([0, 0, code, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes)


def idx(array, code=0x08):
    return header(code, *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


SOUND = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
LONE = gzip.compress(SOUND, mtime=0)
NO_IDX = "expected an idx file, that begins with 00 00, .* got "
NO_GZIP = r"expected a whole gzip file, got .* cannot be read \("
BAD_FILES = {
    "empty": (b"", NO_IDX + "no bytes"),
    "text": (b"no numbers", NO_IDX + "6e 6f 20 6e"),
    "magic": (b"\0\1" + SOUND[2:], NO_IDX + "00 01 08 02"),
    "type": (b"\0\0\x0a" + SOUND[3:], r"one of 08, 09, 0b, 0c, 0d, 0e, .* got 00 00 0a 02"),
    "brief": (SOUND[:3], r"expected an idx file, .* got 00 00 08\."),
    "scalar": (header(0x08) + b"\7", r"1 to 8 axes, got 0\."),
    "axes": (header(0x08, *[1] * 9) + b"\7", r"1 to 8 axes, got 9\."),
    "sizes": (SOUND[:9], r"expected 8 bytes for the sizes of 2 axes, got 5\."),
    "nothing": (header(0x08, 3, 0), r"expected 1 to 1073741824 bytes .* uint8 of shape \(3, 0\), 0 bytes"),
    "wide": (header(0x0E, 2**27 + 1), r"expected 1 to 1073741824 .* float64 .* 1073741832 bytes"),
    "absurd": (header(0x0C, *[2**32 - 1] * 8), rf"int32 of shape \(4294967295, .* {4 * (2**32 - 1) ** 8} "),
    "short": (SOUND[:-1], r"expected 12 bytes after the header, .* uint8 of shape \(3, 4\), got 11\."),
    "long": (SOUND + b"\0", r"expected 12 bytes after the header, .* uint8 of shape \(3, 4\), got more\."),
    "truncated.gz": (LONE[:-12], NO_GZIP + "EOFError"),
    "checksum.gz": (LONE[:-8] + bytes([LONE[-8] ^ 1]) + LONE[-7:], NO_GZIP + "BadGzipFile: CRC"),
    "stream.gz": (LONE[:10] + b"\xff" * 20, NO_GZIP + "error: Error -3"),
    "more.gz": (LONE + b"more", NO_GZIP + "BadGzipFile: Not a gzipped file"),
    # No room is made for 64 MB behind a header that says 5 bytes, nor for the 1 GiB that another says.
    "bomb.gz": (gzip.compress(header(0x08, 5) + bytes(2**26)), r"got more\."),
    "hollow.gz": (gzip.compress(header(0x08, 2**30) + bytes(40)), r"got 40\."),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("code", CODES)
def test_good_files_are_read(tmp_path, code, pack):
    array = np.random.default_rng(code).uniform(-99, 99, (3, 1, 4)).astype(CODES[code])
    path = tmp_path / "numbers"
    path.write_bytes(pack(idx(array, code)))
    loaded = read_idx(str(path), sha256=hashlib.sha256(idx(array, code)).hexdigest())
    assert loaded.dtype == array.dtype and loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, array)
    with pytest.raises(ValueError, match=rf"numbers: expected .* SHA-256 {'0' * 64} .* got .*\. Remove"):
        read_idx(path, sha256="0" * 64)


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name_in_little_memory(tmp_path, name):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as raised:
            read_idx(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6
    assert str(raised.value).startswith(f"{tmp_path / name}: expected ")


@st.composite
def files(draw):
    """From noise to sound idx files, plain or gzip, so that each check is passed and failed often."""
    kind = draw(st.sampled_from(["noise", "sound", "damaged", "any header"]))
    if kind == "noise":
        return draw(st.binary(max_size=60))
    code = draw(st.sampled_from(list(CODES)))
    sizes = st.integers(0, 3) | st.integers(0, 2**32 - 1) if kind == "any header" else st.integers(1, 3)
    shape = draw(
        st.lists(sizes, min_size=int(kind != "any header"), max_size=9 if kind == "any header" else 4)
    )
    n_bytes = min(math.prod(shape) * np.dtype(CODES[code]).itemsize, 700)
    content = header(code, *shape) + draw(st.randoms()).randbytes(n_bytes)
    if draw(st.booleans()):
        content = gzip.compress(content, mtime=0)
    if kind == "damaged":
        place, change = draw(st.integers(0, len(content) - 1)), draw(st.integers(1, 255))
        content = content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]
        content = draw(st.sampled_from([content, content[:-1], content + b"\0"]))
    return content


def decoded(content):
    """The format restated: the array, or None where there is none. Only for content that is not gzip."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in CODES or not 1 <= content[3] <= 8:
        return None
    start, dtype = 4 + 4 * content[3], np.dtype(CODES[content[2]]).newbyteorder(">")
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    is_whole = 0 < math.prod(shape) * dtype.itemsize == len(content) - start
    return np.ndarray(shape, dtype, content, start) if is_whole else None


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=files())
def test_arbitrary_bytes_give_the_right_array_or_a_value_error(tmp_path, content):
    try:
        expected = decoded(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
    except Exception:
        expected = None
    path = tmp_path / "file"
    path.write_bytes(content)
    if expected is None:
        with pytest.raises(ValueError, match="file: expected "):
            read_idx(path)
    else:
        loaded = read_idx(path)
        assert (loaded.shape, loaded.dtype) == (expected.shape, expected.dtype.newbyteorder("="))
        assert loaded.astype(expected.dtype).tobytes() == expected.tobytes()


def made(seed, n_samples=5):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_samples, 28, 28), dtype=np.uint8)
    return pixels, rng.integers(0, 10, n_samples, dtype=np.uint8)


def accept(monkeypatch, split, arrays):
    """Have the loader take a made set for the real one."""
    digests = [hashlib.sha256(idx(array)).hexdigest() for array in arrays]
    pinned = zip(digits._MNIST_FILES[split], digests, strict=True)
    monkeypatch.setitem(digits._MNIST_FILES, split, tuple(f._replace(sha256=d) for f, d in pinned))


def write(folder, split, arrays, ending=".gz"):
    (folder / "mnist").mkdir(parents=True, exist_ok=True)
    for file, array in zip(digits._MNIST_FILES[split], arrays, strict=True):
        content = gzip.compress(idx(array)) if ending else idx(array)
        (folder / "mnist" / f"{file.name}{ending}").write_bytes(content)


@pytest.mark.parametrize(("place", "ending", "split"), [("named", "", "train"), ("neurojax", ".gz", "test")])
def test_found_in_folder_and_cache(x64, empty_cache, tmp_path, monkeypatch, place, ending, split):
    pixels, labels = made(0)
    accept(monkeypatch, split, (pixels, labels))
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path / "named"))
    write(tmp_path / place, split, (pixels, labels), ending)
    loaded = mnist(split)
    assert isinstance(loaded, LabelledImages)
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(loaded.images, pixels / np.float32(255))
    np.testing.assert_array_equal(loaded.labels, labels)


def test_folder_goes_before_cache_and_split_is_train_unless_said(empty_cache, tmp_path, monkeypatch):
    accept(monkeypatch, "train", made(1))
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path / "named"))
    write(tmp_path / "named", "train", made(1))
    write(empty_cache, "train", made(2))
    np.testing.assert_array_equal(mnist().labels, made(1)[1])
    # Fashion-MNIST and others come in files of the same names and shapes.
    write(tmp_path / "named", "train", made(2))
    write(empty_cache, "train", made(1))
    with pytest.raises(ValueError, match=r"named/mnist/train-images-idx3-ubyte\.gz: expected .* SHA-256 "):
        mnist()


def test_downloaded_into_the_cache_once(empty_cache, monkeypatch):
    source = empty_cache.parent / "mirror"
    accept(monkeypatch, "test", made(3))
    write(source, "test", made(3))
    wanted = []

    def fetch(url, known_hash, fname, path):
        wanted.append((url, known_hash, path))
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes((source / "mnist" / fname).read_bytes())
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", fetch)
    for _ in range(2):
        np.testing.assert_array_equal(mnist("test").labels, made(3)[1])
    mirror, cache = "https://ossci-datasets.s3.amazonaws.com/mnist", empty_cache / "mnist"
    assert wanted == [
        (f"{mirror}/t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3", cache),
        (f"{mirror}/t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c", cache),
    ]


def test_what_is_not_to_be_had_is_named(untyped, empty_cache, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read_idx(tmp_path / "missing")
    with pytest.raises(ConnectionError, match=r"train-images-idx3-ubyte\.gz: not found .*no network here"):
        mnist("train")
    with pytest.raises(ValueError, match=r"split: expected one of \('train', 'test'\), got 'valid'\."):
        mnist("valid")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "mnist/t10k-labels-idx1-ubyte.gz").is_file(), reason="needs MNIST")
def test_real_digits():
    """The known counts and moments; upright, and with their labels: a nearest mean is right in 82 %."""
    train, test = mnist("train"), mnist("test")
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    images, labels = np.asarray(train.images), np.asarray(train.labels)
    assert images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert (images.min(), images.max()) == (0, 1)
    # The moments that training images are commonly standardised by.
    mean = images.mean(axis=(1, 2)).mean(dtype=float)
    square = np.einsum("irc,irc->i", images, images).mean(dtype=float) / 784
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt(square - mean**2) == pytest.approx(0.3081, abs=5e-5)
    means = np.stack([images[labels == digit].mean(axis=0) for digit in range(10)])
    flat, centres = np.asarray(test.images).reshape(-1, 784), means.reshape(10, 784)
    nearest = np.argmin((centres**2).sum(axis=1) - 2 * flat @ centres.T, axis=1)
    assert np.mean(nearest == np.asarray(test.labels)) == pytest.approx(0.82, abs=0.005)
    # A one stands along the rows, a zero is hollow.
    one = means[1] / means[1].sum()
    rows, columns = np.mgrid[:28, :28]
    assert np.sum(one * (rows - 13.5) ** 2) > 2 * np.sum(one * (columns - 13.5) ** 2)
    assert means[0][14, 14] < 0.2 < means[0].max()
