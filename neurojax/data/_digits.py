"""Handwritten digits: the MNIST set, whole or the bundled part, and the reader of its idx files."""

import gzip
import hashlib
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float, Int

from .._arrays import device_array
from .._paths import user_path
from .._untrusted import open_regular, read_all
from ._sets import download_file, find_file

__all__ = ["LabelledImages", "mnist", "mnist_subset", "read_idx"]

Split = Literal["train", "test"]


class _MnistFile(NamedTuple):
    name: str
    md5: str  # of the file as distributed, gzip
    sha256: str  # of what it decompresses to


_MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MNIST_FILES = {
    "train": (
        _MnistFile(
            "train-images-idx3-ubyte",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _MnistFile(
            "train-labels-idx1-ubyte",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
    ),
    "test": (
        _MnistFile(
            "t10k-images-idx3-ubyte",
            "9fb629c4189551a2d022fa330f9573f3",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _MnistFile(
            "t10k-labels-idx1-ubyte",
            "ec29112dd5afa0611ce80d1b7f02629c",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}

_SUBSET_SHA256 = {  # of what the bundled files decompress to
    "train-images-idx3-ubyte": "1e3ffdb2f57e22d9e5363dde25c2d057542c2e72baa312f0f3b03948bb3802b7",
    "train-labels-idx1-ubyte": "685aeb7baef68233efa643639a5e9c15bb48be09a628f96fb7f606ca2a1ea7bc",
    "t10k-images-idx3-ubyte": "de7c252b04f05e1f8309634180ccdf286dc6dbac8c579b74e76e02ae0331ca52",
    "t10k-labels-idx1-ubyte": "832c0d20f0dc42e575488c75a83a970787d4c8d4d05831b2ef03701b4a478a90",
}
_SUBSET_FOLDER = Path(__file__).parent / "digits"

_GZIP = b"\x1f\x8b"
_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8
_MOST_BYTES = 2**30


class LabelledImages(NamedTuple):
    """Greyscale images and the class of each.

    Attributes:
        images: pixels, row by row, in [0, 1].
        labels: classes, whole numbers from 0.
    """

    images: Float[Array, "samples rows columns"]
    labels: Int[Array, " samples"]


def mnist(split: Split = "train") -> LabelledImages:
    """Load the MNIST handwritten digits.

    The four original files, ``train-images-idx3-ubyte.gz`` and so on (or the same decompressed, without
    ``.gz``), are looked for in the folder ``mnist`` of the folder that the environment variable
    ``NEUROJAX_DATA`` names, then in ``mnist`` in the cache (``pooch.os_cache("neurojax")``), and are
    downloaded there otherwise, a split at a time (train 9.9 MB, test 1.7 MB), from a public mirror. A file is
    accepted by the SHA-256 of its bytes when decompressed: the gzip container may differ from copy to copy.

    Args:
        split: ``"train"`` for the 60,000 training digits, ``"test"`` for the 10,000 test digits.

    Returns:
        ``images`` float32 (samples, 28, 28) in [0, 1], the stored grey value / 255 (0 the background, 1 the
        ink), and ``labels`` int32 (samples,), the digits 0 to 9; both in the order of the files. The training
        images take 188 MB, the test images 31 MB.

    Raises:
        ValueError: if ``split`` is another word, or a file is corrupt or holds other values.
        ConnectionError: if a file is not at hand and its download fails.

    Reference: LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document
    recognition, Proceedings of the IEEE 86(11), 2278-2324; set by LeCun, Cortes and Burges,
    http://yann.lecun.com/exdb/mnist/. LeCun and Cortes hold the copyright; commonly given as CC BY-SA 3.0.
    """
    _check_split(split)
    return _labelled(*(_mnist_array(file) for file in _MNIST_FILES[split]))


def mnist_subset(split: Split = "train") -> LabelledImages:
    """Load the part of MNIST that comes with the library; works offline.

    The first rows of `mnist` of the same ``split``, in the same order and with the same values. Enough to try
    a model; figures to compare with the literature need the whole set.

    Args:
        split: ``"train"`` for the first 5,000 training digits, ``"test"`` for the first 1,000 test digits.

    Returns:
        ``images`` float32 (samples, 28, 28) in [0, 1], the stored grey value / 255 (0 the background, 1 the
        ink), and ``labels`` int32 (samples,), the digits 0 to 9. The training images take 16 MB, the test
        images 3 MB.

    Raises:
        ValueError: if ``split`` is another word, or a bundled file is corrupt or holds other values.

    Reference: as `mnist`. Bundled under the terms of the set, CC BY-SA 3.0, not those of the library
    (``digits/README.md`` in this folder).

    Example:
        >>> images, labels = mnist_subset("test")
        >>> images.shape, [int(label) for label in labels[:4]]
        ((1000, 28, 28), [7, 2, 1, 0])
    """
    _check_split(split)
    names = [file.name for file in _MNIST_FILES[split]]
    return _labelled(*(read_idx(_SUBSET_FOLDER / f"{n}.gz", sha256=_SUBSET_SHA256[n]) for n in names))


def _check_split(split: str) -> None:
    if split not in get_args(Split):
        raise ValueError(f"split: expected one of {get_args(Split)}, got {split!r}.")


def _labelled(pixels: np.ndarray, labels: np.ndarray) -> LabelledImages:
    images = pixels.astype(np.float32)
    images /= np.float32(255)
    return LabelledImages(device_array(images), device_array(labels.astype(np.int32)))


def _mnist_array(file: _MnistFile) -> np.ndarray:
    zipped, plain = f"mnist/{file.name}.gz", f"mnist/{file.name}"
    path = find_file((zipped, plain))
    if path is None:
        path = download_file(f"{_MNIST_URL}{file.name}.gz", zipped, f"md5:{file.md5}")
    return read_idx(path, sha256=file.sha256)


def read_idx(path: str | Path, *, sha256: str | None = None) -> np.ndarray:
    """Read one array from an idx file, plain or compressed by gzip.

    The format: two zero bytes; a byte for the type of number (08 uint8, 09 int8, 0B int16, 0C int32, 0D
    float32, 0E float64); a byte for the number of axes, here 1 to 8; for each axis its size, as a big-endian
    uint32; then the numbers, big-endian, the last axis fastest. The header is checked before anything else is
    read, then no more is decompressed than it announces and one byte, and at most 1 GiB. Memory is taken as
    the numbers come: at most three times what the file holds, decompressed.

    Args:
        path: the file; its first bytes, not its name, say whether it is compressed.
        sha256: if given, the hexadecimal SHA-256 that the (decompressed) bytes must have, header included.

    Returns:
        The array, in the machine's own byte order.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if the file is no idx file, is longer or shorter than its header says, is empty or too
            large, is damaged, or has another digest. The message names the file, what was expected and what
            came.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte.gz"
        ...     _ = path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1])))
        ...     read_idx(path)
        array([7, 2, 1], dtype=uint8)
    """
    path = user_path(path)
    file, _ = open_regular(path)
    with file:
        is_zipped = file.read(len(_GZIP)) == _GZIP
        file.seek(0)
        if not is_zipped:
            return _read_array(path, file, sha256)
        try:
            with gzip.GzipFile(fileobj=file) as unzipped:
                return _read_array(path, unzipped, sha256)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: expected a whole gzip file, got one that cannot be read "
                f"({type(error).__name__}: {error})."
            ) from error


def _read_array(path: Path, file: BufferedIOBase, sha256: str | None) -> np.ndarray:
    header, dtype, shape = _read_header(path, file)
    n_bytes = dtype.itemsize * math.prod(shape)
    if not 0 < n_bytes <= _MOST_BYTES:
        raise ValueError(
            f"{path}: expected 1 to {_MOST_BYTES} bytes of numbers, got a header that says {dtype.name} of "
            f"shape {shape}, {n_bytes} bytes."
        )
    body = read_all(file, n_bytes + 1)
    if len(body) != n_bytes:
        came = "more" if len(body) > n_bytes else f"{len(body)}"
        raise ValueError(
            f"{path}: expected {n_bytes} bytes after the header, which says {dtype.name} of shape {shape}, "
            f"got {came}."
        )
    if sha256 is not None:
        _check_digest(path, sha256, header, body)
    return np.frombuffer(body, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read_header(path: Path, file: BufferedIOBase) -> tuple[bytes, np.dtype, tuple[int, ...]]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise ValueError(
            f"{path}: expected an idx file, that begins with 00 00, one of {codes}, and the number of axes, "
            f"got {magic.hex(' ') or 'no bytes'}."
        )
    n_axes = magic[3]
    if not 1 <= n_axes <= _MOST_AXES:
        raise ValueError(f"{path}: expected an idx file of 1 to {_MOST_AXES} axes, got {n_axes}.")
    sizes = file.read(4 * n_axes)
    if len(sizes) < 4 * n_axes:
        raise ValueError(
            f"{path}: expected {4 * n_axes} bytes for the sizes of {n_axes} axes, got {len(sizes)}."
        )
    return magic + sizes, np.dtype(_IDX_DTYPES[magic[2]]), struct.unpack(f">{n_axes}I", sizes)


def _check_digest(path: Path, sha256: str, header: bytes, body: bytearray) -> None:
    digest = hashlib.sha256(header)
    digest.update(body)
    if digest.hexdigest() != sha256:
        raise ValueError(
            f"{path}: expected a file with SHA-256 {sha256} (decompressed), got {digest.hexdigest()}. "
            "Remove the file to have it downloaded again; install the library again if the file came with it."
        )
