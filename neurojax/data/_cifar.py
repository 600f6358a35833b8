"""Small colour photographs of ten classes: the CIFAR-10 set, whole or its first rows."""

import gzip
import hashlib
import lzma
import tarfile
import zlib
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast, get_args

import numpy as np
from jaxtyping import Array, Float, Int

from .._arrays import device_array
from ._sets import download_file, find_file

__all__ = ["CIFAR10_CLASSES", "LabelledColourImages", "cifar10"]

Split = Literal["train", "test"]

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


class _Batch(NamedTuple):
    name: str
    n_images: int
    digest: str  # of the bytes when decompressed


_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_ARCHIVE = "cifar-10-binary.tar.gz"
_ARCHIVE_DIGEST = "md5:c32a1d4ab5d03f1284b67883e8d87530"
_ARCHIVE_FOLDER = "cifar-10-batches-bin"
_BATCH_1_DIGEST = "sha256:cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"
_WHOLE = {
    "train": (
        _Batch("data_batch_1.bin", 10_000, _BATCH_1_DIGEST),
        _Batch("data_batch_2.bin", 10_000, "sha1:c0ba65cce70568cd57b4e03e9ac8d2a5367c1795"),
        _Batch("data_batch_3.bin", 10_000, "sha1:1dd00a74ab1d17a6e7d73e185b69dbf31242f295"),
        _Batch("data_batch_4.bin", 10_000, "sha1:aab85764eb3584312d3c7f65fd2fd016e36a258e"),
        _Batch("data_batch_5.bin", 10_000, "sha1:26e2849e66a845b7f1e4614ae70f4889ae604628"),
    ),
    "test": (_Batch("test_batch.bin", 10_000, "sha1:67eb016db431130d61cd03c7ad570b013799c88c"),),
}
_PART = {
    "train": _Batch("data_batch_1.bin.xz", 10_000, _BATCH_1_DIGEST),
    "test": _Batch(
        "test_batch_first1000.bin.xz",
        1_000,
        "sha256:8314c96d7cd65618193bab23acdd5d4c4af15bf6dd00a1781d55beedf3be1ef5",
    ),
}

_SIDE, _N_CHANNELS = 32, 3
_RECORD = 1 + _N_CHANNELS * _SIDE * _SIDE  # the class, then the red, the green and the blue plane
_MOST_XZ_MEMORY = 2**27  # what xz asks for at its highest setting is half of it
_MOST_ARCHIVE = 60_000 * _RECORD + 2**20  # the six batches, and what lies between them
_AGAIN = "Remove the file to have it looked for elsewhere or downloaded again."


class LabelledColourImages(NamedTuple):
    """Colour images and the class of each.

    Attributes:
        images: red, green and blue, pixel by pixel, row by row, in [0, 1].
        labels: classes, whole numbers from 0.
    """

    images: Float[Array, "samples rows columns channels=3"]
    labels: Int[Array, " samples"]


def cifar10(split: Split = "train") -> LabelledColourImages:
    """Load the CIFAR-10 photographs, all of them or the first, whichever are at hand.

    Looked for in the folder ``cifar10`` of the folder that the environment variable ``NEUROJAX_DATA`` names,
    then in ``cifar10`` in the cache (``pooch.os_cache("neurojax")``); in each, in this order:

    - the original binary files, ``data_batch_1.bin`` to ``data_batch_5.bin`` or ``test_batch.bin``;
    - the archive ``cifar-10-binary.tar.gz``, read without extracting it or following links;
    - the first rows alone: ``data_batch_1.bin.xz`` (10,000 training images) or
      ``test_batch_first1000.bin.xz`` (1,000 test images).

    Otherwise the archive is downloaded into the cache (170 MB). Each file is accepted by its digest (those
    compressed by xz: of what they decompress to). ``len(labels)`` says whether the set is whole.

    Args:
        split: ``"train"`` for the training images, 50,000 or the first 10,000; ``"test"`` for the test
            images, 10,000 or the first 1,000.

    Returns:
        ``images`` float32 (samples, 32, 32, 3) in [0, 1], the stored value / 255, and ``labels`` int32
        (samples,), 0 to 9, named by ``CIFAR10_CLASSES``; both in the order of the files. 50,000 images take
        614 MB, 10,000 take 123 MB.

    Raises:
        ValueError: if ``split`` is another word, or a file is damaged, short, long, missing from its set, or
            holds other values.
        ConnectionError: if there is no file and the download fails.

    Reference: Krizhevsky (2009), Learning multiple layers of features from tiny images, technical report,
    University of Toronto; https://www.cs.toronto.edu/~kriz/cifar.html. No licence is stated; cite the report.
    """
    if split not in get_args(Split):
        raise ValueError(f"split: expected one of {get_args(Split)}, got {split!r}.")
    whole, part = _WHOLE[split], _PART[split]
    # A set of plain files is known by its last one: the first may lie alone beside what it was packed in.
    path = find_file(tuple(f"cifar10/{name}" for name in (whole[-1].name, _ARCHIVE, part.name)))
    if path is None:
        path = download_file(_URL, f"cifar10/{_ARCHIVE}", _ARCHIVE_DIGEST)
    if path.name == _ARCHIVE:
        return _labelled(_read_archive(path, whole))
    if path.name == part.name:
        return _labelled([_read_xz(path, part)])
    return _labelled([_read_plain(path.with_name(batch.name), batch) for batch in whole])


def _labelled(batches: list[bytes]) -> LabelledColourImages:
    records = np.concatenate([np.frombuffer(batch, np.uint8).reshape(-1, _RECORD) for batch in batches])
    planes = records[:, 1:].reshape(-1, _N_CHANNELS, _SIDE, _SIDE)
    images = planes.transpose(0, 2, 3, 1).astype(np.float32, order="C")
    images /= np.float32(255)
    return LabelledColourImages(device_array(images), device_array(records[:, 0].astype(np.int32)))


def _read_plain(path: Path, batch: _Batch) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path}: expected this file beside the others of its set, got none.")
    n_bytes = path.stat().st_size
    if n_bytes != batch.n_images * _RECORD:
        raise _wrong_size(str(path), batch, str(n_bytes))
    with path.open("rb") as file:
        return _checked(str(path), batch, file.read(batch.n_images * _RECORD + 1))


def _read_xz(path: Path, batch: _Batch) -> bytes:
    """Return what an xz file decompresses to, of which no more than one byte too many is ever made."""
    most = 2 * batch.n_images * _RECORD
    with path.open("rb") as file:
        packed = file.read(most + 1)
    if len(packed) > most:
        raise ValueError(f"{path}: expected an xz file of at most {most} bytes, got more. {_AGAIN}")
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_MEMORY)
        content = unpacker.decompress(packed, max_length=batch.n_images * _RECORD + 1)
    except lzma.LZMAError as error:
        raise ValueError(
            f"{path}: expected a whole xz file, got a damaged one ({error}). {_AGAIN}"
        ) from error
    return _checked(str(path), batch, content)


def _read_archive(path: Path, batches: tuple[_Batch, ...]) -> list[bytes]:
    """Return the batches out of the archive, each read in memory; nothing is extracted."""
    with path.open("rb") as file:
        _check_digest(str(path), file, _ARCHIVE_DIGEST)
        file.seek(0)
        return _members(path, file, batches)


def _members(path: Path, file: BufferedIOBase, batches: tuple[_Batch, ...]) -> list[bytes]:
    """Return the batches out of an open archive, of which no more is inflated than the whole set takes."""
    wanted = {f"{_ARCHIVE_FOLDER}/{batch.name}": batch for batch in batches}
    found: dict[str, bytes] = {}
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            limited = cast(IO[bytes], _Limited(unzipped, _MOST_ARCHIVE))
            with tarfile.open(fileobj=limited, mode="r:") as archive:
                for member in archive:
                    if member.name in wanted and member.isreg():
                        found[member.name] = _read_member(path, archive, member, wanted[member.name])
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path}: expected a whole tar.gz archive, got one that cannot be read "
            f"({type(error).__name__}: {error}). {_AGAIN}"
        ) from error
    for name in wanted:
        if name not in found:
            raise ValueError(f"{path}: expected a file {name} in it, got none. {_AGAIN}")
    return [found[name] for name in wanted]


class _Limited:
    """A file that ends in an error where more of it is read than a limit; each step is bounded."""

    def __init__(self, file: BufferedIOBase, most: int):
        self.file, self.most = file, most

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, place: int) -> int:
        self._check(place)
        return self.file.seek(place)

    def read(self, n_bytes: int) -> bytes:
        self._check(self.file.tell() + n_bytes)
        try:
            return self.file.read(n_bytes)
        except gzip.BadGzipFile as error:
            raise tarfile.ReadError(str(error)) from error

    def _check(self, place: int) -> None:
        if place > self.most:
            raise tarfile.ReadError(f"expected at most {self.most} bytes inflated, got more")


def _read_member(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, batch: _Batch) -> bytes:
    source = f"{path}, {member.name}"
    if member.size != batch.n_images * _RECORD:
        raise _wrong_size(source, batch, str(member.size))
    file = archive.extractfile(member)
    assert file is not None  # a regular file always has content
    with file:
        return _checked(source, batch, file.read())


def _checked(source: str, batch: _Batch, content: bytes) -> bytes:
    expected = batch.n_images * _RECORD
    if len(content) != expected:
        raise _wrong_size(source, batch, "more" if len(content) > expected else str(len(content)))
    _check_digest(source, BytesIO(content), batch.digest)
    return content


def _wrong_size(source: str, batch: _Batch, came: str) -> ValueError:
    return ValueError(
        f"{source}: expected {batch.n_images} images of {_RECORD} bytes, {batch.n_images * _RECORD} in all, "
        f"got {came}. {_AGAIN}"
    )


def _check_digest(source: str, file: BufferedIOBase, expected: str) -> None:
    algorithm, digest = expected.split(":")
    came = hashlib.file_digest(file, algorithm).hexdigest()
    if came != digest:
        raise ValueError(
            f"{source}: expected the published bytes ({algorithm} {digest}), got {came}. {_AGAIN}"
        )
