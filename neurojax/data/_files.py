"""Images and arrays from people's own files: folders of photographs, NumPy and MATLAB files."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import jax.dtypes
import numpy as np
from jaxtyping import Array, Float

from .._arrays import device_array
from .._paths import user_path
from .._untrusted import MOST_BYTES, inflated_limit, read_numpy, read_whole
from ._matlab import read_matlab
from ._photographs import SUFFIXES, image_files, luminance, read_photograph, warn_of_conversions

__all__ = ["as_fractions", "fractions", "load_images", "read_array", "read_arrays"]

_MATLAB_NAMES = ("IMAGES", "IMAGESr")
_ARRAY_SUFFIXES = (".npy", ".npz", ".mat")
_LARGEST = {"?": 1, "B": 255, "H": 65535}  # by NumPy's character of bool, uint8 and uint16


def load_images(
    path: str | Path, *, name: str | None = None, most_bytes: int = MOST_BYTES
) -> Float[Array, "images rows columns"] | tuple[Float[Array, "_ _"], ...]:
    """Load gray images from a folder, an image file, or an .npy, .npz or .mat file.

    Every image becomes floating-point luminance. The files that are understood:

    - a folder: its image files (png, jpeg, bmp, tiff, pgm, ppm, gif, webp) in the order of their names;
      hidden files, other files and sub-folders are passed over;
    - an image file, alone or in a folder: 8 bits divided by 255, 16 bits by 65535, floating-point values as
      they are; transparent pixels are laid on white; color becomes luminance, 0.299 R + 0.587 G + 0.114 B
      (ITU-R BT.601, on the values as stored), upright as the camera noted it;
    - ``.npy`` and ``.npz``: (images, rows, columns), or (rows, columns) for one image. A last axis of 3 or 4
      is color: (images, rows, columns, 3), or one image (rows, columns, 3) where the other axes are larger
      than 4. A fourth channel is opacity, and is laid on white. A last axis of 1 is dropped.
    - ``.mat``: (rows, columns, images), (rows, columns) or (rows, columns, 3, images). Unsigned integers
      (rows, columns, 3) are one color image; floating-point numbers of that shape are three images, and a
      warning says so. An ``.npz`` entry called ``IMAGES`` or ``IMAGESr`` has this layout too. Version 7.3
      (HDF5) needs h5py.

    Floating-point arrays keep their values (and float64 only where JAX has double precision on). Arrays of
    uint8, uint16 and bool are divided by 255, 65535 and 1. Other integers are refused, since their range is
    unknown. One ``UserWarning`` says how many images were converted and how, unless the conversion is that of
    8-bit values or of color files to luminance. Nothing is unpickled.

    No size that a file announces is believed beyond a limit: an image may have ``most_bytes``/16 pixels, the
    images of a folder, as float32, may come to ``most_bytes`` and 64 times the size of its files, and so may
    what is compressed in an .npz or .mat file. What is not compressed may have any size, if the file has it.

    Args:
        path: the folder or file.
        name: the array to read from an .npz or .mat file. By default the one called ``images``, ``IMAGES`` or
            ``IMAGESr``, or else the only one that can be images.
        most_bytes: that limit, 1 GiB if it is not given. Pillow has one of its own, 179 million pixels.

    Returns:
        One array (images, rows, columns) if all images have the same size, and otherwise a tuple of arrays
        (rows, columns); `PatchSampler` and the other patch functions take either.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if the file is corrupt, of another kind or beyond the limit, a folder holds no image,
            several arrays could be meant, or the array is empty, of another rank, of another kind of number,
            or not finite. The message names the file, what was expected, what came, and what to type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/all.npz", left=np.zeros((2, 32, 48), np.float32), right=np.ones((9, 9)))
        ...     load_images(f"{folder}/all.npz", name="left").shape
        (2, 32, 48)
    """
    path = user_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a folder of images or a data file, but it does not exist.")
    suffix = path.suffix.lower()
    if name is not None and (path.is_dir() or suffix not in (".npz", ".mat")):
        raise ValueError(f"{path}: name applies to .npz and .mat files; leave it out, got {name!r}.")
    if path.is_dir():
        return _load_folder(path, most_bytes)
    if suffix in SUFFIXES:
        image = read_photograph(path, most_bytes=most_bytes)
        warn_of_conversions(path, [image.conversion], 1)
        return device_array(image.pixels[None])
    if suffix in _ARRAY_SUFFIXES:
        chosen, array = _choose(
            path, read_arrays(path, most_bytes=most_bytes), name, ("images", *_MATLAB_NAMES), (2, 3, 4)
        )
        is_matlab = suffix == ".mat" or chosen in _MATLAB_NAMES
        return device_array(_as_images(path, chosen, array, images_last=is_matlab))
    expected = ", ".join((*_ARRAY_SUFFIXES, *SUFFIXES))
    raise ValueError(f"{path}: expected a folder or a file that ends in one of {expected}, got {suffix!r}.")


def read_arrays(path: str | Path, *, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays in an .npy, .npz or .mat file by name (``""`` in an .npy); nothing is unpickled.

    Of a MATLAB file only arrays of numbers are returned, not texts, cells, structures or sparse arrays;
    version 7.3 (HDF5) needs h5py. Every size is checked before memory is taken for it. The memory is that of
    the arrays (twice that of a .mat file), where an array that is not compressed is at most as
    large as the file.

    Args:
        path: the file. What does not end in ``.mat`` is read as an .npy or .npz file, as its content says.
        most_bytes: what is compressed may come to this, by default 1 GiB, and 64 times the file's size.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file cannot be read as what its name says, or is beyond the limit.
    """
    path = user_path(path)
    if path.suffix.lower() == ".mat":
        return read_whole(path, "a MATLAB file", lambda file, size: read_matlab(file, size, most_bytes))
    return read_whole(path, "a NumPy array file", lambda file, size: read_numpy(file, size, most_bytes))


def read_array(
    path: str | Path,
    name: str | None = None,
    *,
    n_axes: Sequence[int] = (1, 2, 3, 4),
    most_bytes: int = MOST_BYTES,
) -> np.ndarray:
    """Return one array of numbers from an .npy, .npz or .mat file.

    Args:
        path: the file.
        name: the array of an .npz or .mat file; by default the only one that has a fitting number of axes.
        n_axes: the numbers of axes that fit. Rows and columns of MATLAB vectors do not count as two axes.
        most_bytes: as in `read_arrays`.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: as `read_arrays`, and if there is no such array, or several fit; the message lists them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/all.npz", rows=np.zeros((5, 3)), labels=np.arange(5))
        ...     read_array(f"{folder}/all.npz", n_axes=(2,)).shape
        (5, 3)
    """
    return _choose(Path(path), read_arrays(path, most_bytes=most_bytes), name, (), n_axes)[1]


def _choose(
    path: Path,
    arrays: dict[str, np.ndarray],
    name: str | None,
    usual: Sequence[str],
    n_axes: Sequence[int],
) -> tuple[str, np.ndarray]:
    if name is not None:
        if name not in arrays:
            raise ValueError(f"{path}: expected an array called {name!r}, got {_listed(arrays)}.")
        return name, arrays[name]
    for candidate in usual:
        if candidate in arrays:
            return candidate, arrays[candidate]
    numbers = {key: array for key, array in arrays.items() if array.dtype.kind in "biufc"}
    fitting = {key: array for key, array in numbers.items() if _n_axes(array) in n_axes}
    choices = fitting or numbers
    if len(choices) != 1:
        first = next(iter(choices), None)
        advice = first and f'; choose one with name="{first}" (on the command line: --array {first})'
        raise ValueError(
            f"{path}: expected one array of numbers, got {_listed(choices or arrays)}{advice or ''}."
        )
    return next(iter(choices.items()))


def _n_axes(array: np.ndarray) -> int:
    """Return the number of axes, 1 for the rows and columns that are MATLAB's vectors."""
    return 1 if array.ndim == 2 and 1 in array.shape else array.ndim


def _listed(arrays: dict[str, np.ndarray]) -> str:
    names = [f"{name or '(one without a name)'} {array.shape}" for name, array in arrays.items()]
    return f"{', '.join(names) or 'none':.500}"


def _load_folder(folder: Path, most_bytes: int):
    files = image_files(folder)
    limit = inflated_limit(sum(file.stat().st_size for file in files), most_bytes)
    images, conversions, n_bytes = [], [], 0
    for file in files:
        image = read_photograph(file, most_bytes=most_bytes)
        images.append(image.pixels)
        conversions.append(image.conversion)
        n_bytes += image.pixels.nbytes
        if n_bytes > limit:
            raise ValueError(
                f"{folder}: expected images of at most {limit} bytes in all as float32, got more, up to "
                f"{file.name}."
            )
    warn_of_conversions(folder, conversions, len(files))
    if len({image.shape for image in images}) == 1:
        return device_array(np.stack(images))
    return tuple(device_array(image) for image in images)


def fractions(array: np.ndarray) -> np.ndarray:
    """Return bool, uint8 and uint16 as float32 in [0, 1], and anything else as it is."""
    if array.dtype.char not in _LARGEST:
        return array
    return array.astype(np.float32) / np.float32(_LARGEST[array.dtype.char])


def as_fractions(place: str | Path, array: np.ndarray) -> np.ndarray:
    """Return floating-point numbers in this machine's form: as they are, or bool, uint8 and uint16 in [0, 1].

    Raises:
        ValueError: for other dtypes, and for numbers that are not finite; the message begins with ``place``.
    """
    dtype, array = array.dtype, fractions(array)
    if not np.issubdtype(array.dtype, np.floating):
        advice = "; convert them, array.astype('float32')" if dtype.kind in "iu" else ""
        raise ValueError(
            f"{place}: expected real floating-point numbers, or bool, uint8 or uint16, got dtype {dtype}"
            f"{advice}."
        )
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise ValueError(f"{place}: expected finite numbers, got {count} that are NaN or infinite.")
    # JAX takes neither foreign byte order nor extended precision, and makes infinity of what it cannot hold.
    native = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
    with np.errstate(over="ignore"):
        array = array.astype(jax.dtypes.canonicalize_dtype(native), copy=False)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{place}: expected numbers that {array.dtype} can hold, got larger ones.")
    return array


def _as_images(path: Path, name: str, array: np.ndarray, *, images_last: bool) -> np.ndarray:
    """Return (images, rows, columns) of an array in any of the layouts, with a word on a conversion."""
    shape, images = array.shape, _images_first(path, name, array, images_last)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3, 4)):
        layout = "(rows, columns, images)" if images_last else "(images, rows, columns)"
        is_torch = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        advice = "; move the channels last, numpy.moveaxis(array, 1, -1)" if is_torch else ""
        raise ValueError(f"{path}: expected {layout} or (rows, columns), got shape {shape}{advice}.")
    if images.size == 0:
        raise ValueError(f"{path}: expected at least one pixel, got an empty array of shape {shape}.")
    images = as_fractions(path, images)
    if images.ndim == 4:
        images, conversion = _gray(path, images)
        warn_of_conversions(path, [conversion] * len(images), len(images))
    return np.ascontiguousarray(images)


def _images_first(path: Path, name: str, array: np.ndarray, images_last: bool) -> np.ndarray:
    """Return (images, rows, columns), or (images, rows, columns, channels) for what is color."""
    if array.ndim == 2:
        return array[None]
    is_thin = array.ndim == 3 and array.shape[-1] in (1, 3, 4) and min(array.shape[:2]) > 4
    if is_thin and name not in _MATLAB_NAMES:
        if not images_last or array.dtype.kind == "u":
            return array[None]
        rows, columns, count = array.shape
        warnings.warn(
            f"{path}: read as {count} images of {rows} × {columns}. If it is one color image, save "
            f"rgb2gray({name}) instead.",
            stacklevel=3,
        )
    return np.moveaxis(array, -1, 0) if images_last and array.ndim > 2 else array


def _gray(path: Path, array: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the luminance of (images, rows, columns, channels), and the conversion in words."""
    n_channels = array.shape[-1]
    if n_channels == 1:
        return array[..., 0], "the last axis of 1 dropped"
    gray = luminance(array[..., :3])
    if n_channels == 3:
        return gray, "color to luminance"
    opacity = array[..., 3]
    if opacity.min() < 0 or opacity.max() > 1:
        raise ValueError(
            f"{path}: expected the fourth channel, the opacity, in [0, 1], got {opacity.min():g} to "
            f"{opacity.max():g}; leave it out, array[..., :3]."
        )
    return gray * opacity + (1 - opacity), "color to luminance, transparent pixels laid on white"
