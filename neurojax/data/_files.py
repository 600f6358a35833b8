"""Images from files: folders of photographs, NumPy arrays, MATLAB files."""

import math
from io import BufferedIOBase
from pathlib import Path
from typing import IO, cast

import jax.dtypes
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image, ImageOps

from .._untrusted import MOST_BYTES, inflated_limit, read_numpy, read_whole
from ._matlab import read_matlab

__all__ = ["LUMINANCE", "load_images", "photograph_size", "read_arrays", "read_photograph"]

LUMINANCE = (0.299, 0.587, 0.114)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif", ".webp")
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "GIF", "WEBP")  # others have decoders that run programs
_PIXEL_BYTES = 16  # while a colour image is read: its four bytes, and three numbers
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "CMYK")
_ORIENTATION, _TRANSPOSED = 0x0112, (5, 6, 7, 8)  # Exif's tag, and its values that swap rows and columns
_MATLAB_NAMES = ("IMAGES", "IMAGESr")


def load_images(
    path: str | Path, *, most_bytes: int = MOST_BYTES
) -> Float[Array, "images rows columns"] | tuple[Float[Array, "_ _"], ...]:
    """Load greyscale images from a folder, an image file, or an .npy, .npz or .mat file.

    Which files are understood, and how:

    - a folder: its image files (png, jpeg, bmp, tiff, pgm, ppm, gif, webp) in the order of their names;
      hidden files, other files and sub-folders are passed over;
    - an image file, alone or in a folder: 8 bits a channel, divided by 255; colour becomes luminance,
      0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, on the values as stored), upright as the camera noted it;
    - ``.npy``: (images, rows, columns), or (rows, columns) for one image; floating-point values as they
      are, 8-bit unsigned integers divided by 255;
    - ``.npz``: the same, from its only array of numbers, or from the one named ``images``;
    - ``.mat``: (rows, columns, images) or (rows, columns), from the variable ``images``, ``IMAGES`` or
      ``IMAGESr``, or from the only array of numbers there is; an ``.npz`` entry of either of the last two
      names has this layout too.

    Nothing is unpickled. Values that come as float64 stay so only where JAX has double precision on.

    No size that a file announces is believed beyond a limit: an image may have ``most_bytes``/16 pixels, the
    images of a folder, as float32, may come to ``most_bytes`` and 64 times the size of its files, and so may
    what is compressed in an .npz or .mat file. What is not compressed may have any size, if the file has it.

    Args:
        path: the folder or file.
        most_bytes: that limit, 1 GiB if it is not given. Pillow has one of its own, 179 million pixels.

    Returns:
        One array (images, rows, columns) if all images have the same size, and otherwise a tuple of arrays
        (rows, columns); `PatchSampler` and the other patch functions take either.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if the file is corrupt, of another kind or beyond the limit, a folder holds no image, or
            the array is empty, of another rank, of another kind of number, or not finite. The message names
            the file, what was expected and what came.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/two.npy", np.zeros((2, 32, 48), np.float32))
        ...     load_images(f"{folder}/two.npy").shape
        (2, 32, 48)
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a folder of images or a data file, but it does not exist.")
    if path.is_dir():
        return _load_folder(path, most_bytes)
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return jnp.asarray(read_photograph(path, most_bytes=most_bytes)[None])
    if suffix in (".npy", ".npz", ".mat"):
        name, array = _choose(path, read_arrays(path, most_bytes=most_bytes))
        return jnp.asarray(_as_images(path, array, images_last=suffix == ".mat" or name in _MATLAB_NAMES))
    expected = ", ".join((".npy", ".npz", ".mat", *_SUFFIXES))
    raise ValueError(f"{path}: expected a folder or a file that ends in one of {expected}, got {suffix!r}.")


def read_photograph(path: Path, *, colour: bool = False, most_bytes: int = MOST_BYTES) -> np.ndarray:
    """Read one 8-bit image file.

    Args:
        path: the file.
        colour: whether to keep red, green and blue.
        most_bytes: 16 for each pixel that the file may announce. At most twice as many are taken.

    Returns:
        float32 in [0, 1]: luminance (rows, columns), or (rows, columns, 3).

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no image, is too large, has not 8 bits a channel, or is transparent somewhere.
    """
    image = read_whole(path, "an image file", lambda file, _: _decoded(file, most_bytes))
    if image.has_transparency_data and np.min(np.asarray(image.convert("RGBA"))[..., 3]) < 255:
        raise ValueError(f"{path}: expected an opaque image, got one that is transparent in places.")
    is_grey = not colour and image.mode in ("1", "L", "LA")
    pixels = np.array(image.convert("L" if is_grey else "RGB"), np.float32)
    pixels /= np.float32(255)
    return pixels if colour or is_grey else pixels @ np.asarray(LUMINANCE, np.float32)


def read_arrays(path: str | Path, *, most_bytes: int = MOST_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays in an .npy, .npz or .mat file by name (``""`` in an .npy); nothing is unpickled.

    Every size is checked before memory is taken for it. The memory is that of the arrays, where an array that
    is not compressed is at most as large as the file; of a .mat file about four times that, but eight times
    what texts, and twenty times what empty cells take in it.

    Args:
        path: the file. What does not end in ``.mat`` is read as an .npy or .npz file, as its content says.
        most_bytes: what is compressed may come to this, by default 1 GiB, and 64 times the file's size.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file cannot be read as what its name says, or is beyond the limit.
    """
    path = Path(path)
    if path.suffix.lower() == ".mat":
        entries = read_whole(
            path, "a MATLAB file (version 4 to 7.2)", lambda file, size: read_matlab(file, size, most_bytes)
        )
        return {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}
    return read_whole(path, "a NumPy array file", lambda file, size: read_numpy(file, size, most_bytes))


def _load_folder(folder: Path, most_bytes: int):
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"{folder}: expected at least one image file ({', '.join(_SUFFIXES)}), got a folder without."
        )
    limit = inflated_limit(sum(file.stat().st_size for file in files), most_bytes)
    images, n_bytes = [], 0
    for file in files:
        images.append(read_photograph(file, most_bytes=most_bytes))
        n_bytes += images[-1].nbytes
        if n_bytes > limit:
            raise ValueError(
                f"{folder}: expected images of at most {limit} bytes in all as float32, got more, up to "
                f"{file.name}."
            )
    if len({image.shape for image in images}) == 1:
        return jnp.asarray(np.stack(images))
    return tuple(jnp.asarray(image) for image in images)


def photograph_size(path: Path, *, most_bytes: int = MOST_BYTES) -> tuple[int, int]:
    """Return (rows, columns) of what `read_photograph` will read, from the file's headers alone.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no image, is too large, or has not 8 bits a channel.
    """

    def read(file: BufferedIOBase, n_bytes: int) -> tuple[int, int]:
        with _opened(file, most_bytes) as image:
            columns, rows = image.size
            if image.format == "TIFF":  # whose size is upright at once
                return rows, columns
            # The method of PNG files would decode the pixels.
            is_transposed = Image.Image.getexif(image).get(_ORIENTATION) in _TRANSPOSED
            return (columns, rows) if is_transposed else (rows, columns)

    return read_whole(path, "an image file", read)


def _opened(file: BufferedIOBase, most_bytes: int) -> Image.Image:
    image = Image.open(cast(IO[bytes], file), formats=_FORMATS)
    most_pixels = most_bytes // _PIXEL_BYTES
    if math.prod(image.size) > most_pixels:
        columns, rows = image.size
        raise ValueError(f"expected at most {most_pixels} pixels, got {rows} × {columns}")
    if image.mode not in _MODES:
        raise ValueError(f"expected 8 bits a channel, got an image of mode {image.mode!r}")
    return image


def _decoded(file: BufferedIOBase, most_bytes: int) -> Image.Image:
    with _opened(file, most_bytes) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def _choose(path: Path, arrays: dict[str, np.ndarray]) -> tuple[str, np.ndarray]:
    arrays = {name: array for name, array in arrays.items() if not name.startswith("__")}
    for name in ("images", *_MATLAB_NAMES):
        if name in arrays:
            return name, arrays[name]
    numbers = {name: array for name, array in arrays.items() if array.dtype.kind in "biufc"}
    if len(numbers) != 1:
        names = ", ".join(numbers or arrays) or "none"
        raise ValueError(
            f"{path}: expected one array of numbers, or one named 'images' or 'IMAGES', got {names}."
        )
    return next(iter(numbers.items()))


def _as_images(path: Path, array: np.ndarray, *, images_last: bool) -> np.ndarray:
    layout = "(rows, columns, images)" if images_last else "(images, rows, columns)"
    if array.ndim not in (2, 3):
        raise ValueError(f"{path}: expected {layout} or (rows, columns), got shape {array.shape}.")
    if array.size == 0:
        raise ValueError(f"{path}: expected at least one pixel, got an empty array of shape {array.shape}.")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / np.float32(255)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"{path}: expected real floating-point numbers, or 8-bit images (uint8), got dtype {array.dtype}."
        )
    if not np.all(np.isfinite(array)):
        count = int(np.sum(~np.isfinite(array)))
        raise ValueError(f"{path}: expected finite numbers, got {count} that are NaN or infinite.")
    array = _as_numbers_of_jax(path, array)
    if array.ndim == 2:
        return array[None]
    return np.ascontiguousarray(np.moveaxis(array, -1, 0)) if images_last else array


def _as_numbers_of_jax(path: Path, array: np.ndarray) -> np.ndarray:
    # JAX takes neither foreign byte order nor extended precision, and makes infinity of what it cannot hold.
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
    with np.errstate(over="ignore"):
        array = array.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{path}: expected numbers that {array.dtype} can hold, got larger ones.")
    return array
