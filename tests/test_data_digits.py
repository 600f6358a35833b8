"""The MNIST loader: the idx reader against made files and arbitrary bytes, the search, and the real set."""

import gzip
import hashlib
import math
import os
import struct
import tempfile
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest
from hypothesis import given, settings
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


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("code", CODES)
def test_every_type_of_number_is_read(tmp_path, code, pack):
    array = np.random.default_rng(code).uniform(-99, 99, (3, 1, 4)).astype(CODES[code])
    path = tmp_path / "numbers"
    path.write_bytes(pack(idx(array, code)))
    loaded = read_idx(path, sha256=hashlib.sha256(idx(array, code)).hexdigest())
    assert loaded.dtype == array.dtype
    assert loaded.dtype.isnative
    np.testing.assert_array_equal(loaded, array)
    np.testing.assert_array_equal(read_idx(str(path)), array)


SOUND = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))
LONE = gzip.compress(SOUND, mtime=0)
BAD_FILES = {
    "empty": (b"", r"expected an idx file, that begins with 00 00, .* got no bytes"),
    "text": (b"no numbers", r"expected an idx file, that begins with 00 00, .* got 6e 6f 20 6e"),
    "magic": (b"\0\1" + SOUND[2:], r"expected an idx file, that begins with 00 00, .* got 00 01 08 02"),
    "type": (b"\0\0\x0a" + SOUND[3:], r"one of 08, 09, 0b, 0c, 0d, 0e, .* got 00 00 0a 02"),
    "brief": (SOUND[:3], r"expected an idx file, .* got 00 00 08\."),
    "scalar": (header(0x08) + b"\7", r"1 to 8 axes, got 0\."),
    "axes": (header(0x08, *[1] * 9) + b"\7", r"1 to 8 axes, got 9\."),
    "sizes": (SOUND[:9], r"expected 8 bytes for the sizes of 2 axes, got 5\."),
    "nothing": (header(0x08, 3, 0), r"expected 1 to 1073741824 bytes .* uint8 of shape \(3, 0\), 0 bytes"),
    "large": (header(0x08, 2**30 + 1), r"expected 1 to 1073741824 .* \(1073741825,\), 1073741825 bytes"),
    "wide": (header(0x0E, 2**27 + 1), r"expected 1 to 1073741824 .* float64 .* 1073741832 bytes"),
    "absurd": (header(0x0C, *[2**32 - 1] * 8), rf"int32 of shape \(4294967295, .* {4 * (2**32 - 1) ** 8} "),
    "short": (SOUND[:-1], r"expected 12 bytes after the header, .* uint8 of shape \(3, 4\), got 11\."),
    "bare": (SOUND[:12], r"expected 12 bytes after the header, .* uint8 of shape \(3, 4\), got 0\."),
    "long": (SOUND + b"\0", r"expected 12 bytes after the header, .* uint8 of shape \(3, 4\), got more\."),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path, name, pack):
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(pack(content))
    with pytest.raises(ValueError, match=message) as raised:
        read_idx(tmp_path / name)
    assert str(raised.value).startswith(f"{tmp_path / name}: expected ")


BAD_GZIP = {
    "truncated": (LONE[:-12], "EOFError"),
    "tail": (LONE[:-1], "EOFError"),
    "stub": (LONE[:2], "EOFError"),
    "checksum": (LONE[:-8] + bytes([LONE[-8] ^ 1]) + LONE[-7:], "BadGzipFile: CRC"),
    "length": (LONE[:-1] + b"\1", "BadGzipFile: Incorrect length"),
    "stream": (LONE[:10] + b"\xff" * 20, "error: Error -3"),
    "method": (LONE[:2] + b"\7" + LONE[3:], "BadGzipFile: Unknown compression method"),
    "more": (LONE + b"more", "BadGzipFile: Not a gzipped file"),
}


@pytest.mark.parametrize("name", BAD_GZIP)
def test_damaged_gzip_is_refused_by_name(tmp_path, name):
    content, message = BAD_GZIP[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"expected a whole gzip file, got .* cannot be read \({message}"
    ) as e:
        read_idx(tmp_path / name)
    assert str(e.value).startswith(f"{tmp_path / name}: ")


def test_missing_file_and_other_digest(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read_idx(tmp_path / "missing")
    (tmp_path / "sound").write_bytes(LONE)
    came = hashlib.sha256(SOUND).hexdigest()
    with pytest.raises(ValueError, match=rf"sound: expected .* SHA-256 {'0' * 64} .* got {came}\. Remove"):
        read_idx(tmp_path / "sound", sha256="0" * 64)


@pytest.mark.parametrize("sizes", [(5,), (2**30,)])
def test_memory_is_bounded_by_header_and_content(tmp_path, sizes):
    """Neither 64 MB behind a header that says 5 bytes, nor 40 bytes behind one that says 1 GiB."""
    (tmp_path / "file").write_bytes(
        gzip.compress(header(0x08, *sizes) + bytes(2**26 if sizes[0] == 5 else 40))
    )
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"got (more|40)\."):
            read_idx(tmp_path / "file")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6


ANY_SHAPE = st.lists(st.integers(0, 3) | st.integers(0, 2**32 - 1), max_size=9)
SMALL_SHAPE = st.lists(st.integers(1, 3), min_size=1, max_size=4)
BLOW = st.tuples(st.integers(0, 200), st.integers(1, 255))


@st.composite
def files(draw):
    """From noise to sound idx files, plain or gzip, so that each check is passed and failed often."""
    kind = draw(st.sampled_from(["noise", "sound", "damaged", "any header"]))
    if kind == "noise":
        return draw(st.binary(max_size=60))
    code = draw(st.sampled_from(list(CODES)))
    shape = draw(ANY_SHAPE if kind == "any header" else SMALL_SHAPE)
    n_bytes = min(math.prod(shape) * np.dtype(CODES[code]).itemsize, 700)
    content = header(code, *shape) + draw(st.randoms()).randbytes(n_bytes)
    if draw(st.booleans()):
        content = gzip.compress(content, mtime=0)
    if kind == "damaged":
        place, change = draw(BLOW)
        place %= len(content)
        content = content[:place] + bytes([content[place] ^ change]) + content[place + 1 :]
        content = draw(st.sampled_from([content, content[:-1], content + b"\0"]))
    return content


def decoded(content):
    """The format restated: the array, or None where there is none. Only for content that is not gzip."""
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in CODES or not 1 <= content[3] <= 8:
        return None
    start = 4 + 4 * content[3]
    if len(content) < start:
        return None
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    size = np.dtype(CODES[content[2]]).itemsize
    for n in shape:
        size *= n
    if size == 0 or size != len(content) - start:
        return None
    return np.ndarray(shape, np.dtype(CODES[content[2]]).newbyteorder(">"), content, start)


@settings(deadline=None, max_examples=400)
@given(content=files())
def test_arbitrary_bytes_give_the_right_array_or_a_value_error(content):
    try:
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except Exception:
        plain = b""
    expected = decoded(plain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        if expected is None:
            with pytest.raises(ValueError, match="file: expected "):
                read_idx(path)
        else:
            loaded = read_idx(path)
            assert loaded.shape == expected.shape
            assert loaded.dtype == expected.dtype.newbyteorder("=")
            assert loaded.astype(expected.dtype).tobytes() == expected.tobytes()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """No data folder, an empty cache, and a download that fails."""
    monkeypatch.delenv("NEUROJAX_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)

    def refuse(*args, **kwargs):
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    return tmp_path / "neurojax"


def made(seed, n_samples=5):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n_samples, 28, 28), dtype=np.uint8)
    return pixels, rng.integers(0, 10, n_samples, dtype=np.uint8)


def accept(monkeypatch, split, pixels, labels):
    """Have the loader take a made set for the real one."""
    pinned = tuple(
        file._replace(sha256=hashlib.sha256(idx(array)).hexdigest())
        for file, array in zip(digits._MNIST_FILES[split], (pixels, labels), strict=True)
    )
    monkeypatch.setitem(digits._MNIST_FILES, split, pinned)


def write(folder, split, pixels, labels, ending=".gz"):
    (folder / "mnist").mkdir(parents=True, exist_ok=True)
    for file, array in zip(digits._MNIST_FILES[split], (pixels, labels), strict=True):
        content = gzip.compress(idx(array)) if ending else idx(array)
        (folder / "mnist" / f"{file.name}{ending}").write_bytes(content)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("place", ["folder", "cache"])
def test_found_in_folder_and_cache(empty_cache, tmp_path, monkeypatch, place, ending, split):
    pixels, labels = made(0)
    accept(monkeypatch, split, pixels, labels)
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path / "named"))
    write(tmp_path / "named" if place == "folder" else empty_cache, split, pixels, labels, ending)
    loaded = mnist(split)
    assert isinstance(loaded, LabelledImages)
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(loaded.images, pixels / np.float32(255))
    np.testing.assert_array_equal(loaded.labels, labels)


def test_dtypes_in_double_precision(x64, empty_cache, monkeypatch):
    accept(monkeypatch, "test", *made(0))
    write(empty_cache, "test", *made(0))
    loaded = mnist("test")
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)


def test_folder_goes_before_cache_and_split_is_train_unless_said(empty_cache, tmp_path, monkeypatch):
    accept(monkeypatch, "train", *made(1))
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path / "named"))
    write(tmp_path / "named", "train", *made(1))
    write(empty_cache, "train", *made(2))
    np.testing.assert_array_equal(mnist().labels, made(1)[1])
    write(tmp_path / "named", "train", *made(2))
    write(empty_cache, "train", *made(1))
    with pytest.raises(
        ValueError, match=r"named/mnist/train-images-idx3-ubyte\.gz: expected .* got [0-9a-f]{64}"
    ):
        mnist()


def test_downloaded_into_the_cache_once(empty_cache, monkeypatch):
    source = empty_cache.parent / "mirror"
    accept(monkeypatch, "test", *made(3))
    write(source, "test", *made(3))
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


def test_not_to_be_had(empty_cache):
    with pytest.raises(ConnectionError, match=r"train-images-idx3-ubyte\.gz: not found .*no network here"):
        mnist("train")
    with pytest.raises(ConnectionError, match=r"t10k-images-idx3-ubyte\.gz: not found .*ossci-datasets"):
        mnist("test")


def test_another_set_of_the_same_names_is_refused(empty_cache):
    """Fashion-MNIST and others come in files of the same names and shapes."""
    write(empty_cache, "test", *made(4, 10_000))
    sha256 = digits._MNIST_FILES["test"][0].sha256
    with pytest.raises(ValueError, match=rf"t10k-images-idx3-ubyte\.gz: expected .* SHA-256 {sha256} "):
        mnist("test")


def test_unknown_split(untyped):
    with pytest.raises(ValueError, match=r"split: expected one of \('train', 'test'\), got 'valid'\."):
        mnist("valid")  # pyright: ignore[reportArgumentType]


COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.mark.skipif(not (DATA / "mnist/t10k-labels-idx1-ubyte.gz").is_file(), reason="needs MNIST")
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_digits(split):
    images, labels = mnist(split)
    assert images.shape == (sum(COUNTS[split]), 28, 28)
    assert labels.shape == images.shape[:1]
    assert (images.dtype, labels.dtype) == (jnp.float32, jnp.int32)
    assert np.bincount(labels).tolist() == COUNTS[split]
    images = np.asarray(images)
    assert (images.min(), images.max()) == (0, 1)
    grey = np.rint(images[:1000] * 255)
    np.testing.assert_array_equal(images[:1000], grey / np.float32(255))
    if split == "train":  # the moments that training images are commonly standardised by
        mean = images.mean(axis=(1, 2)).mean(dtype=float)
        square = np.einsum("irc,irc->i", images, images).mean(dtype=float) / 784
        assert mean == pytest.approx(0.1307, abs=5e-5)
        assert np.sqrt(square - mean**2) == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.skipif(not (DATA / "mnist/t10k-labels-idx1-ubyte.gz").is_file(), reason="needs MNIST")
def test_real_digits_are_upright_and_go_with_their_labels():
    """The nearest of the ten mean training images is that of the right class for 82 % of the test digits."""
    train, test = mnist("train"), mnist("test")
    labels = np.asarray(train.labels)
    means = np.stack([np.asarray(train.images)[labels == digit].mean(axis=0) for digit in range(10)])
    flat, centres = np.asarray(test.images).reshape(-1, 784), means.reshape(10, 784)
    nearest = np.argmin((centres**2).sum(axis=1) - 2 * flat @ centres.T, axis=1)
    assert np.mean(nearest == np.asarray(test.labels)) == pytest.approx(0.82, abs=0.005)
    # A one stands along the rows, a zero is hollow.
    one = means[1] / means[1].sum()
    rows, columns = np.mgrid[:28, :28]
    assert np.sum(one * (rows - 13.5) ** 2) > 2 * np.sum(one * (columns - 13.5) ** 2)
    assert means[0][14, 14] < 0.2 < means[0].max()
