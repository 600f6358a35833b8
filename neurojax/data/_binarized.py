"""Binary handwritten digits: the fixed binarisation of MNIST on which likelihoods are compared."""

import hashlib
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Array, Float

from .._arrays import device_array
from .._untrusted import open_regular, read_all
from ._files import read_arrays
from ._sets import download_file, find_file

__all__ = ["binarized_mnist", "parse_amat"]

Split = Literal["train", "valid", "test"]

_URL = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/"
_N_PIXELS = 784
_MOST_ROWS = 50_000
_SHA256 = {  # of the text files as distributed
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


def binarized_mnist(split: Split = "train") -> Float[Array, "samples 784"]:
    """Load the fixed stochastic binarisation of MNIST, on which log-likelihoods of the literature are given.

    Each pixel was drawn once, 1 with the probability of its grey value. Looked for in this order:
    ``mnist_fixed_binarized.npz`` (uint8 arrays ``train``, ``valid`` and ``test``) or the original text file
    ``binarized_mnist_{split}.amat`` in the folder that the environment variable ``NEUROJAX_DATA`` names; the
    same in the cache (``pooch.os_cache("neurojax")``); the text file downloaded into the cache from its
    public address (train 78 MB, valid and test 16 MB each). Either is accepted by the SHA-256 of the text.

    Args:
        split: ``"train"`` for 50,000 digits, ``"valid"`` and ``"test"`` for 10,000 each.

    Returns:
        float32 (samples, 784), 0 or 1, each row a 28 × 28 image row by row. No labels; the rows are in the
        published order, which is not that of `mnist`. The training rows take 157 MB, the others 31 MB.

    Raises:
        ValueError: if ``split`` is another word, or the file found is corrupt or holds other values.
        ConnectionError: if there is no file and the download fails.

    Reference: Salakhutdinov, Murray (2008), On the quantitative analysis of deep belief networks, ICML,
    872-879; files by H. Larochelle. Terms as `mnist`.
    """
    if split not in get_args(Split):
        raise ValueError(f"split: expected one of {get_args(Split)}, got {split!r}.")
    text_name = f"binarized_mnist_{split}.amat"
    path = find_file(("mnist_fixed_binarized.npz", text_name))
    if path is None:
        path = download_file(_URL + text_name, text_name, f"sha256:{_SHA256[split]}")
    rows = _read_npz(path, split) if path.suffix == ".npz" else _read_amat(path)
    came = hashlib.sha256(_as_text(rows).data).hexdigest()
    if came != _SHA256[split]:
        raise ValueError(
            f"{path}: expected the published {split} rows (SHA-256 {_SHA256[split]} as text), got "
            f"{len(rows)} rows with {came}. Remove the file to have it downloaded again."
        )
    return device_array(rows.astype(np.float32))


def parse_amat(text: bytes, n_columns: int) -> np.ndarray:
    r"""Parse rows of ``n_columns`` digits 0 or 1, a space between two digits, a newline after each row.

    Returns:
        uint8 (rows, n_columns).

    Raises:
        ValueError: if the text is empty or has another form. The message says where.

    Example:
        >>> parse_amat(b"0 1 1\n1 0 0\n", 3)
        array([[0, 1, 1],
               [1, 0, 0]], dtype=uint8)
    """
    n_bytes = 2 * n_columns
    if not text or len(text) % n_bytes:
        raise ValueError(
            f"expected rows of {n_columns} digits, each row {n_bytes} bytes, got {len(text)} bytes."
        )
    characters = np.frombuffer(text, np.uint8).reshape(-1, n_columns, 2)
    digits, between = characters[..., 0], characters[..., 1]
    is_wrong = np.stack([(digits != ord("0")) & (digits != ord("1")), between != ord(" ")], axis=-1)
    is_wrong[:, -1, 1] = between[:, -1] != ord("\n")
    if is_wrong.any():
        place = int(np.argmax(is_wrong))
        row, column = divmod(place, n_bytes)
        raise ValueError(
            "expected digits 0 or 1 with a space between two and a newline after a row, got "
            f"{text[place : place + 1]!r} in row {row}, character {column}."
        )
    return digits - np.uint8(ord("0"))


def _as_text(rows: np.ndarray) -> np.ndarray:
    text = np.full((*rows.shape, 2), ord(" "), np.uint8)
    text[..., 0] = rows + np.uint8(ord("0"))
    text[:, -1, 1] = ord("\n")
    return text


def _read_amat(path: Path) -> np.ndarray:
    most = _MOST_ROWS * 2 * _N_PIXELS
    file, n_bytes = open_regular(path)
    with file:
        if n_bytes > most:
            raise ValueError(f"{path}: expected a file of at most {most} bytes, got {n_bytes}.")
        text = bytes(read_all(file, most))
    try:
        return parse_amat(text, _N_PIXELS)
    except ValueError as error:
        raise ValueError(f"{path}: {error} Remove the file to have it downloaded again.") from error


def _read_npz(path: Path, split: str) -> np.ndarray:
    arrays = read_arrays(path)
    if split not in arrays:
        raise ValueError(f"{path}: expected an array named {split}, got {', '.join(arrays) or 'none'}.")
    rows = arrays[split]
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _N_PIXELS:
        raise ValueError(
            f"{path}: expected {split} to be uint8 of shape (samples, {_N_PIXELS}), "
            f"got {rows.dtype} of shape {rows.shape}."
        )
    return rows
