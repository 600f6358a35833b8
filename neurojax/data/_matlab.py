"""MATLAB files of every version: SciPy reads 4 to 7.2, h5py reads 7.3.

SciPy alone can be made to take gigabytes for texts, cells and structures that a small file announces, nested
cells crash it, and so does a number of a type that there is not. So only arrays of numbers are asked of it,
which are first inflated within a limit, and the types and sizes of their parts checked.
"""

import struct
import warnings
import zlib
from io import BufferedIOBase
from typing import Any

import numpy as np
import scipy.io

from .._untrusted import inflated_limit

__all__ = ["read_matlab"]

_HEADER, _COMPRESSED = 128, 15
_NUMBER_CLASSES, _UNREAD, _TYPES = range(6, 16), 16, (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NUMBERS = ("double", "single", "logical", *(f"{sign}int{n}" for sign in ("", "u") for n in (8, 16, 32, 64)))


def read_matlab(file: BufferedIOBase, n_bytes: int, most_bytes: int) -> dict[str, np.ndarray]:
    """Return the arrays of numbers in a MATLAB file; texts, cells, structures and sparse arrays are left out.

    Memory: up to twice that of the arrays.

    Args:
        file: the open file, at its beginning.
        n_bytes: its size.
        most_bytes: compressed parts may inflate to this and 64 ``n_bytes``.

    Raises:
        ValueError: if the file is damaged, beyond the limit, or holds no array of numbers.
        ImportError: for version 7.3, which is HDF5, where h5py is not installed; says what to type.
    """
    start = file.read(_HEADER)
    file.seek(512)
    if start.startswith(_HDF5) or file.read(len(_HDF5)) == _HDF5:
        return _read_hdf5(file, inflated_limit(n_bytes, most_bytes))
    file.seek(0)
    if 0 in start[:4]:  # version 4, whose variables only loadmat can list without going round in circles
        arrays, kinds = scipy.io.loadmat(file), {}
    else:
        _check_elements(file, start, n_bytes, inflated_limit(n_bytes, most_bytes))
        kinds = _kinds(file)
        wanted = [name for name, kind in kinds.items() if kind in _NUMBERS]
        file.seek(0)
        arrays = scipy.io.loadmat(file, variable_names=wanted) if wanted else {}
    return _some({name: array for name, array in arrays.items() if _is_numbers(array)}, kinds)


def _is_numbers(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind in "biufc"


def _some(arrays: dict[str, np.ndarray], kinds: dict[str, str]) -> dict[str, np.ndarray]:
    if not arrays:
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
        raise ValueError(
            f"expected an array of numbers, got {found:.300}; save the numbers themselves, in MATLAB "
            "images = data.images; save('file.mat', 'images', '-v7')"
        )
    return arrays


def _kinds(file: BufferedIOBase) -> dict[str, str]:
    """Return the class of each variable of a file of version 5 to 7.2."""
    file.seek(0)
    kinds: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names, which are refused here
        for name, _, kind in scipy.io.whosmat(file):
            if name in kinds:
                raise ValueError(f"expected one variable of each name, got two called {name}")
            if not name.startswith("__"):
                kinds[name] = kind
    return kinds


def _check_elements(file: BufferedIOBase, start: bytes, n_bytes: int, limit: int) -> None:
    """Raise ``ValueError`` unless the elements lie in the file and inflate within the limit."""
    order, at = ">" if start[126:128] == b"MI" else "<", _HEADER
    while at + 8 <= n_bytes:
        file.seek(at)
        tag = file.read(8)
        kind, size = struct.unpack(f"{order}2I", tag)
        at += 8 + size
        if at > n_bytes:
            raise ValueError(f"expected an element of {size} bytes at byte {at - size}, got a shorter file")
        element = file.read(size)
        if kind == _COMPRESSED:
            tag, element = b"", zlib.decompressobj().decompress(element, limit + 1)
            limit -= len(element)
            if limit < 0:
                raise ValueError("expected compressed parts within the limit of most_bytes, got more")
        _check_types(tag + element, order)


def _check_types(element: bytes, order: str) -> None:
    """Raise ``ValueError`` unless what SciPy reads of an array is numbers that lie in the element.

    That is all of an array of numbers, and the shape and the name of another.
    """
    array_class = struct.unpack_from(f"{order}I", element, 16)[0] & 0xFF if len(element) >= 24 else _UNREAD
    n_parts = len(element) if array_class in _NUMBER_CLASSES else 2
    at = len(element) if array_class >= _UNREAD else 24  # behind the tag of the array and its flags
    for _ in range(n_parts):
        if at + 8 > len(element):
            return
        word, size = struct.unpack_from(f"{order}2I", element, at)
        is_small = word >> 16 > 0  # the tag has the size and the data
        if word & 0xFFFF not in _TYPES:
            raise ValueError(f"expected numbers, got an element of type {word & 0xFFFF}")
        at += 8 if is_small else 8 + size
        if at > len(element):
            raise ValueError(f"expected an element of {size} bytes, got {size + len(element) - at}")
        at += 0 if is_small else -size % 8


def _read_hdf5(file: BufferedIOBase, limit: int) -> dict[str, np.ndarray]:
    try:
        import h5py  # an optional package
    except ImportError as error:
        raise ImportError(
            "this is a MATLAB 7.3 file, which is HDF5: pip install h5py, or save it in MATLAB as "
            "save('file.mat', 'name', '-v7')"
        ) from error
    with h5py.File(file, "r") as store:
        kinds = {name: _hdf5_kind(h5py, store, name) for name in map(str, store)}
        arrays: dict[str, Any] = {name: store[name] for name, kind in kinds.items() if kind in _NUMBERS}
        n_bytes = sum(array.size * array.dtype.itemsize for array in arrays.values())
        if n_bytes > limit:
            raise ValueError(f"expected arrays of at most {limit} bytes in all, got {n_bytes}")
        return _some({name: _matlab_array(array, kinds[name]) for name, array in arrays.items()}, kinds)


def _hdf5_kind(h5py: Any, store: Any, name: str) -> str:
    """Return MATLAB's class of an entry, or a word for what is not read."""
    if not isinstance(store.get(name, getlink=True), h5py.HardLink):
        return "a link"
    item = store[name]
    if not isinstance(item, h5py.Dataset):
        return "struct"
    if item.external or item.is_virtual or item.shape is None or item.dtype.kind not in "biuf":
        return f"dataset of {item.dtype}"
    kind = item.attrs.get("MATLAB_class", b"double")
    return (
        "empty" if "MATLAB_empty" in item.attrs else kind.decode() if isinstance(kind, bytes) else str(kind)
    )


def _matlab_array(dataset: Any, kind: str) -> np.ndarray:
    """Return a dataset with its axes in MATLAB's order, which HDF5 has reversed."""
    array = dataset[()].T
    return array.astype(bool) if kind == "logical" else array
