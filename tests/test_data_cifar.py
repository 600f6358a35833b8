"""The CIFAR-10 loader: made sets in each form it takes, the search, damage, and the real images."""

import functools
import hashlib
import io
import lzma
import os
import tarfile
import tracemalloc
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest

from neurojax.data import CIFAR10_CLASSES, LabelledColourImages, cifar10
from neurojax.data import _cifar as cifar

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))
PART, ARCHIVE = "test_batch_first1000.bin.xz", "cifar-10-binary.tar.gz"
RECORDS = np.random.default_rng(0).integers(0, 256, (10, 3073), dtype=np.uint8)
RECORDS[:, 0] %= 10
CONTENT = [RECORDS[2 * i : 2 * i + 2].tobytes() for i in range(5)]  # five batches of two images


def pack(contents, folder="cifar-10-batches-bin", kind=tarfile.REGTYPE):
    """Return a tar.gz archive of batches by name, with a note beside them as in the real one."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in {"readme.html": b"<html>", **contents}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size, member.type = len(content), kind
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def digest(content, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


# In another order than the loader's: an archive may hold its files in any.
TRAIN = {f"data_batch_{i}.bin": CONTENT[i - 1] for i in (5, 1, 2, 4, 3)}
WHOLE = pack({**TRAIN, "test_batch.bin": CONTENT[0]})


@pytest.fixture
def places(empty_cache, tmp_path, monkeypatch):
    """A data folder and a cache, and a made set taken for the real one: 10 and 2 images, of which 2 and 1."""
    batches = tuple(cifar._Batch(f"data_batch_{i + 1}.bin", 2, digest(CONTENT[i], "sha1")) for i in range(5))
    monkeypatch.setattr(
        cifar,
        "_WHOLE",
        {"train": batches, "test": (cifar._Batch("test_batch.bin", 2, digest(CONTENT[0], "sha1")),)},
    )
    parts = {"train": cifar._Batch("data_batch_1.bin.xz", 2, digest(CONTENT[0]))}
    parts["test"] = cifar._Batch(PART, 1, digest(CONTENT[0][:3073]))
    monkeypatch.setattr(cifar, "_PART", parts)
    monkeypatch.setattr(cifar, "_ARCHIVE_DIGEST", digest(WHOLE, "md5"))
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path / "named"))
    folders = tmp_path / "named/cifar10", empty_cache / "cifar10"
    for folder in folders:
        folder.mkdir(parents=True)
    return folders


def expected(n_images):
    """The layout restated: the class, then red, green and blue, each a plane row by row."""
    images = np.empty((n_images, 32, 32, 3), np.float32)
    for image, record in zip(images, RECORDS, strict=False):
        for channel in range(3):
            for row in range(32):
                start = 1 + 1024 * channel + 32 * row
                image[row, :, channel] = record[start : start + 32] / np.float32(255)
    return images, RECORDS[:n_images, 0]


def assert_first(n_images, loaded):
    images, labels = expected(n_images)
    assert isinstance(loaded, LabelledColourImages)
    assert (loaded.images.dtype, loaded.labels.dtype) == (jnp.float32, jnp.int32)
    np.testing.assert_array_equal(loaded.images, images)
    np.testing.assert_array_equal(loaded.labels, labels)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("form", ["plain", "archive", "part"])
def test_each_form_is_found_in_folder_and_cache(places, x64, place, form):
    folder = places[place]
    if form == "archive":
        (folder / ARCHIVE).write_bytes(WHOLE)
    elif form == "part":
        (folder / "data_batch_1.bin.xz").write_bytes(lzma.compress(CONTENT[0]))
        (folder / PART).write_bytes(lzma.compress(CONTENT[0][:3073]))
        # Unpacked beside it, as one may: no set of five.
        (folder / "data_batch_1.bin").write_bytes(CONTENT[0])
    else:
        for name, content in {**TRAIN, "test_batch.bin": CONTENT[0]}.items():
            (folder / name).write_bytes(content)
    before = sorted(folder.parent.rglob("*"))
    assert_first(2 if form == "part" else 10, cifar10())
    assert_first(1 if form == "part" else 2, cifar10("test"))
    assert sorted(folder.parent.rglob("*")) == before


def test_the_folder_goes_before_the_cache_and_the_whole_set_before_its_part(places):
    (places[1] / "test_batch.bin").write_bytes(CONTENT[0])
    (places[0] / PART).write_bytes(lzma.compress(CONTENT[0][:3073]))
    assert_first(1, cifar10("test"))
    (places[0] / ARCHIVE).write_bytes(WHOLE)
    assert_first(2, cifar10("test"))


def test_downloaded_into_the_cache_once(places, monkeypatch):
    def fetch(url, known_hash, fname, path):
        wanted.append((url, known_hash, path))
        (path / fname).write_bytes(WHOLE)
        return str(path / fname)

    wanted = []
    with pytest.raises(ConnectionError, match=r"cifar-10-binary\.tar\.gz: not found .*no network here"):
        cifar10("test")
    monkeypatch.setattr(pooch, "retrieve", fetch)
    for _ in range(2):
        assert_first(10, cifar10("train"))
    address = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert wanted == [(address, digest(WHOLE, "md5"), places[1])]


IMAGE = CONTENT[0][:3073]
# At this setting unpacking itself takes little memory.
light = functools.partial(lzma.compress, preset=0)
LONE = light(IMAGE)
SIZE = r"expected 1 images of 3073 bytes, 3073 in all, got "
BAD_PARTS = {
    "empty": (b"", SIZE + r"0\."),
    "no xz": (IMAGE, r"expected a whole xz file, got a damaged one \("),
    "cut": (LONE[: len(LONE) // 2], SIZE + r"\d+\."),
    "damaged": (LONE[:40] + bytes([LONE[40] ^ 1]) + LONE[41:], r"damaged one|published bytes"),
    "short": (light(IMAGE[:-1]), SIZE + r"3072\."),
    "long": (light(IMAGE + b"\0"), SIZE + r"more\."),
    "another": (
        light(IMAGE[:-1] + b"\0"),
        r"expected the published bytes \(sha256 [0-9a-f]{64}\), got",
    ),
    "heavy": (bytes(7000), r"expected an xz file of at most 6146 bytes, got more"),
    # 64 MB behind a few bytes: no more is made of them than one image and a byte.
    "bomb": (light(bytes(2**26))[:6000], SIZE + r"more\."),
    "greedy": (
        lzma.compress(IMAGE, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**28}]),
        r"damaged one \(Memory usage limit exceeded",
    ),
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_bad_parts_are_refused_by_name_in_little_memory(places, name):
    content, message = BAD_PARTS[name]
    (places[0] / PART).write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as raised:
            cifar10("test")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
    assert str(raised.value).startswith(f"{places[0] / PART}: expected ")


BAD_SETS = {
    "short": (CONTENT[2][:-1], r"expected 2 images of 3073 bytes, 6146 in all, got 6145\."),
    "long": (CONTENT[2] + b"\0", r"expected 2 images .*, got 6147\."),
    "another": (CONTENT[3], r"expected the published bytes \(sha1 [0-9a-f]{40}\), got [0-9a-f]{40}\."),
    "missing": (None, r"expected (this file beside the others|a file \S+ in it).*, got none\."),
}


@pytest.mark.parametrize("form", ["plain", "archive"])
@pytest.mark.parametrize("name", BAD_SETS)
def test_a_bad_file_of_a_whole_set_is_refused_by_name(places, monkeypatch, name, form):
    content, message = BAD_SETS[name]
    contents = {**TRAIN, "data_batch_3.bin": content}
    if content is None:
        del contents["data_batch_3.bin"]
    if form == "archive":
        (places[0] / ARCHIVE).write_bytes(packed := pack(contents))
        with pytest.raises(ValueError, match=r"binary\.tar\.gz: expected the published bytes \(md5 "):
            cifar10()
        monkeypatch.setattr(cifar, "_ARCHIVE_DIGEST", digest(packed, "md5"))
    for other in contents if form == "plain" else ():
        (places[0] / other).write_bytes(contents[other])
    with pytest.raises(ValueError, match=message) as raised:
        cifar10()
    assert str(places[0]) in str(raised.value) and "data_batch_3.bin" in str(raised.value)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (WHOLE[: len(WHOLE) // 2], r"expected a whole tar\.gz archive, got .* \(EOFError"),
        (b"no archive", r"expected a whole tar\.gz archive, got .* \(ReadError"),
        (pack(TRAIN, folder="../elsewhere"), r"expected a file cifar-10-batches-bin/data_batch_1\.bin in it"),
        (pack(TRAIN, kind=tarfile.SYMTYPE), r"expected a file cifar-10-batches-bin/data_batch_1\.bin in it"),
    ],
)
def test_other_archives_are_refused_even_with_the_right_digest(places, monkeypatch, packed, message):
    monkeypatch.setattr(cifar, "_ARCHIVE_DIGEST", digest(packed, "md5"))
    (places[0] / ARCHIVE).write_bytes(packed)
    with pytest.raises(ValueError, match=message):
        cifar10()
    assert [path.name for path in places[0].iterdir()] == [ARCHIVE]


def test_unknown_split(untyped):
    with pytest.raises(ValueError, match=r"split: expected one of \('train', 'test'\), got 'valid'\."):
        cifar10("valid")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.skipif(
    not all((DATA / f"cifar10/{name}").is_file() for name in ("data_batch_1.bin.xz", PART)),
    reason="needs the first rows of CIFAR-10",
)
def test_real_photographs():
    """The known counts and moments; colours and rows in their places, as the classes show."""
    train, test = cifar10("train"), cifar10("test")
    assert np.bincount(train.labels[:10_000]).tolist() == [
        1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981,
    ]  # fmt: skip
    assert np.bincount(test.labels[:1000]).tolist() == [103, 89, 100, 103, 90, 86, 112, 102, 106, 109]
    assert np.asarray(test.labels[:10]).tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    images, labels = np.asarray(train.images), np.asarray(train.labels)
    assert images.shape[1:] == test.images.shape[1:] == (32, 32, 3)
    assert (images.min(), images.max()) == (0, 1)
    # The moments that all 50,000 images are commonly standardised by; a fifth of them is close.
    means, deviations = images.mean((0, 1, 2), dtype=float), images.std((0, 1, 2), dtype=float)
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.003)
    np.testing.assert_allclose(deviations, [0.2470, 0.2435, 0.2616], atol=0.003)
    # Ships and aeroplanes lie in blue, deer in brown and green; the sky is above the road.
    names = np.array(CIFAR10_CLASSES)[labels]
    blueness = (images[..., 2] - images[..., 0]).mean((1, 2))
    assert blueness[names == "ship"].mean() > 0.02 > -0.02 > blueness[names == "deer"].mean()
    assert blueness[names == "airplane"].mean() > 0.02
    trucks = images[names == "truck"].mean((0, 2, 3))
    assert trucks[:4].mean() > trucks[-4:].mean()
