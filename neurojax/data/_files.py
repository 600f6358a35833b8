"""Images from files: folders of photographs, NumPy arrays, MATLAB files."""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import scipy.io
from jaxtyping import Array, Float
from PIL import Image, ImageOps

__all__ = ["LUMINANCE", "load_images", "read_arrays", "read_photograph"]

LUMINANCE = (0.299, 0.587, 0.114)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif", ".webp")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "CMYK")
_MATLAB_NAMES = ("IMAGES", "IMAGESr")


def load_images(
    path: str | Path,
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

    Args:
        path: the folder or file.

    Returns:
        One array (images, rows, columns) if all images have the same size, and otherwise a tuple of arrays
        (rows, columns); `PatchSampler` and the other patch functions take either.

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if the file is corrupt or of another kind, a folder holds no image, or the array is
            empty, of another rank, of another kind of number, or not finite. The message names the file,
            what was expected and what came.

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
        return _load_folder(path)
    suffix = path.suffix.lower()
    if suffix in _SUFFIXES:
        return jnp.asarray(read_photograph(path))[None]
    if suffix in (".npy", ".npz", ".mat"):
        name, array = _choose(path, read_arrays(path))
        return jnp.asarray(_as_images(path, array, images_last=suffix == ".mat" or name in _MATLAB_NAMES))
    expected = ", ".join((".npy", ".npz", ".mat", *_SUFFIXES))
    raise ValueError(f"{path}: expected a folder or a file that ends in one of {expected}, got {suffix!r}.")


def read_photograph(path: Path, *, colour: bool = False) -> np.ndarray:
    """Read one 8-bit image file.

    Args:
        path: the file.
        colour: whether to keep red, green and blue.

    Returns:
        float32 in [0, 1]: luminance (rows, columns), or (rows, columns, 3).

    Raises:
        ValueError: if it is no image, has not 8 bits a channel, or is transparent somewhere.
    """
    image = _reading(path, "an image file", lambda: _open(path))
    if image.mode not in _MODES:
        raise ValueError(f"{path}: expected 8 bits a channel, got an image of mode {image.mode!r}.")
    if image.has_transparency_data and np.min(np.asarray(image.convert("RGBA"))[..., 3]) < 255:
        raise ValueError(f"{path}: expected an opaque image, got one that is transparent in places.")
    if not colour and image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"), np.float32) / np.float32(255)
    pixels = np.asarray(image.convert("RGB"), np.float32) / np.float32(255)
    return pixels if colour else pixels @ np.asarray(LUMINANCE, np.float32)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in an .npy, .npz or .mat file by name (``""`` in an .npy); nothing is unpickled.

    Raises:
        ValueError: if the file cannot be read as what its name says.
    """
    if path.suffix.lower() == ".mat":
        entries = _reading(path, "a MATLAB file (version 4 to 7.2)", lambda: scipy.io.loadmat(path))
        return {name: value for name, value in entries.items() if isinstance(value, np.ndarray)}
    return _reading(path, "a NumPy array file", lambda: _load_numpy(path))


def _load_folder(folder: Path):
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"{folder}: expected at least one image file ({', '.join(_SUFFIXES)}), got a folder without."
        )
    images = [read_photograph(file) for file in files]
    if len({image.shape for image in images}) == 1:
        return jnp.asarray(np.stack(images))
    return tuple(jnp.asarray(image) for image in images)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return ImageOps.exif_transpose(image)


def _load_numpy(path: Path) -> dict[str, np.ndarray]:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return {"": loaded}
    with loaded:
        return {name: loaded[name] for name in loaded.files}


def _reading(path: Path, expected: str, read: Callable):
    # The decoders raise errors of many unrelated types on damaged files.
    try:
        return read()
    except Exception as error:
        raise ValueError(
            f"{path}: expected {expected}, got one that cannot be read ({type(error).__name__}: {error})."
        ) from error


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
    # JAX takes neither foreign byte order nor extended precision.
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
    array = array.astype(dtype, copy=False)
    if array.ndim == 2:
        return array[None]
    return np.ascontiguousarray(np.moveaxis(array, -1, 0)) if images_last else array
