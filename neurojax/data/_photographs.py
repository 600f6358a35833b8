"""The decoder of image files: pixels in [0, 1], color as luminance, and a word on whatever was converted."""

import math
import warnings
from collections import Counter
from collections.abc import Iterable
from io import BufferedIOBase
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np
from PIL import Image, ImageOps

from .._untrusted import MOST_BYTES, read_whole

__all__ = [
    "LUMINANCE",
    "SUFFIXES",
    "Photograph",
    "image_files",
    "luminance",
    "photograph_form",
    "read_photograph",
    "warn_of_conversions",
]

LUMINANCE = (0.299, 0.587, 0.114)
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".gif", ".webp")

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "GIF", "WEBP")  # others have decoders that run programs
_PIXEL_BYTES = 16  # while a color image is read: its four bytes, and three numbers
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr", "CMYK")
_DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
_ORIENTATION, _TRANSPOSED = 0x0112, (5, 6, 7, 8)  # Exif's tag, and its values that swap rows and columns

_ON_WHITE = "transparent pixels laid on white"
_SIXTEEN_BITS = "16-bit values divided by 65535"
_FLOATS = "floating-point values kept as they are"


class Photograph(NamedTuple):
    """The pixels of an image file.

    Attributes:
        pixels: float32 (rows, columns), or (rows, columns, 3) in color.
        conversion: what was done to values that are not 8-bit and opaque, ``""`` for nothing.
    """

    pixels: np.ndarray
    conversion: str


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in the order of their names, hidden files left out.

    Raises:
        ValueError: for a folder that contains none.
    """
    files = sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
    if not files:
        raise ValueError(
            f"{folder}: expected at least one image file ({', '.join(SUFFIXES)}), got a folder that contains "
            "none."
        )
    return files


def read_photograph(path: Path, *, color: bool = False, most_bytes: int = MOST_BYTES) -> Photograph:
    """Decode one image file.

    Integers are divided by 255, or by 65535 if they have 16 bits; floating-point values stay as they are.
    (Of color with 16 bits a channel, Pillow keeps the upper 8.) Transparent pixels are laid on white. Color
    becomes luminance, and the image is upright.

    Args:
        path: the file.
        color: whether to keep red, green and blue.
        most_bytes: the file may announce a sixteenth of it in pixels. Up to twice as many bytes are taken.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no image, is too large, or has values that cannot be converted; the message says
            what to type.
    """

    def read(file: BufferedIOBase, n_bytes: int) -> Photograph:
        with _opened(file, most_bytes) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        if upright.mode in _DEEP_MODES:
            pixels, conversion = _deep_pixels(upright)
            return Photograph(np.repeat(pixels[..., None], 3, -1) if color else pixels, conversion)
        return _byte_pixels(upright, color)

    return read_whole(path, "an image file", read)


def photograph_form(path: Path, *, most_bytes: int = MOST_BYTES) -> tuple[tuple[int, int], str]:
    """Return the (rows, columns) and the likely conversion of an image file, from its headers alone.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it is no image, is too large, or is of a kind that cannot be converted.
    """

    def read(file: BufferedIOBase, n_bytes: int) -> tuple[tuple[int, int], str]:
        with _opened(file, most_bytes) as image:
            conversion = _ON_WHITE if image.has_transparency_data else ""
            if image.mode in _DEEP_MODES:
                conversion = _FLOATS if image.mode == "F" else _SIXTEEN_BITS
            columns, rows = image.size
            # TIFF sizes are upright at once. For PNG, the subclass's own getexif would decode the pixels.
            is_transposed = image.format != "TIFF" and (
                Image.Image.getexif(image).get(_ORIENTATION) in _TRANSPOSED
            )
            return ((columns, rows) if is_transposed else (rows, columns)), conversion

    return read_whole(path, "an image file", read)


def luminance(colors: np.ndarray) -> np.ndarray:
    """Return 0.299 R + 0.587 G + 0.114 B of a last axis of three (ITU-R BT.601, on the values as stored)."""
    return colors @ np.asarray(LUMINANCE, colors.dtype)


def warn_of_conversions(place: Path, conversions: Iterable[str], n_images: int) -> None:
    """Issue one ``UserWarning`` that counts the images converted, by conversion, if there are any."""
    counts = Counter(filter(None, conversions))
    if counts:
        text = "; ".join(f"{count} of {n_images} images: {name}" for name, count in counts.items())
        warnings.warn(f"{place}: converted {text}.", stacklevel=3)


def _opened(file: BufferedIOBase, most_bytes: int) -> Image.Image:
    image = Image.open(cast(IO[bytes], file), formats=_FORMATS)
    most_pixels = most_bytes // _PIXEL_BYTES
    if math.prod(image.size) > most_pixels:
        columns, rows = image.size
        raise ValueError(f"expected at most {most_pixels} pixels, got {rows} × {columns}")
    if image.mode not in (*_MODES, *_DEEP_MODES):
        raise ValueError(
            f"expected gray, color or palette, got an image of mode {image.mode!r}; convert it with "
            "Image.open(path).convert('RGB').save('converted.png')"
        )
    return image


def _deep_pixels(image: Image.Image) -> tuple[np.ndarray, str]:
    """Return the pixels of a gray image of 16 or 32 bits, and the conversion."""
    values = np.asarray(image)
    if image.mode == "F":
        if not np.all(np.isfinite(values)):
            raise ValueError(
                "expected finite numbers, got NaN or infinity; fill them in with numpy.nan_to_num"
            )
        return values.astype(np.float32), _FLOATS
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"expected integers from 0 to 65535, got {values.min()} to {values.max()}; scale them and save "
            "them as an array, numpy.save('image.npy', pixels.astype('float32') / pixels.max())"
        )
    pixels = values.astype(np.float32)
    pixels /= np.float32(65535)
    key = image.info.get("transparency")
    if not isinstance(key, int) or not np.any(is_clear := values == key):
        return pixels, _SIXTEEN_BITS
    pixels[is_clear] = 1
    return pixels, f"{_SIXTEEN_BITS}, {_ON_WHITE}"


def _byte_pixels(image: Image.Image, color: bool) -> Photograph:
    is_gray, conversion = not color and image.mode in ("1", "L", "LA"), ""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:  # type: ignore[index]
            white = Image.new("RGBA", image.size, "white")
            white.alpha_composite(image)
            image, conversion = white, _ON_WHITE
    pixels = np.array(image.convert("L" if is_gray else "RGB"), np.float32)
    pixels /= np.float32(255)
    return Photograph(pixels if color or is_gray else luminance(pixels), conversion)
