"""The named sets of natural images: bundled, at hand, cached or downloaded."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pooch
from jaxtyping import Array, Float

from .._arrays import device_array
from .._paths import user_path
from ._files import read_arrays
from ._kodak import KODAK_SHA256
from ._photographs import read_photograph

__all__ = ["download_file", "find_file", "kodak_images", "natural_images", "olshausen_images"]

_OLSHAUSEN_URL = "http://www.rctn.org/bruno/sparsenet/IMAGES.mat"
_OLSHAUSEN_FILES = ("olshausen_whitened_images.npz", "IMAGES.mat")
_OLSHAUSEN_SHAPE = (512, 512, 10)
_OLSHAUSEN_SHA256 = "bdc7754847b8044cd06f08eaf361212acd6762329ae0cb1ee801e5d272c46885"
_KODAK_URL = "http://r0k.us/graphics/kodak/kodak/"


def natural_images() -> Float[Array, "images rows columns"]:
    """Load the ten natural photographs that come with the library; works offline.

    Returns:
        float32 (10, 480, 480), luminance in [0, 1] (0 black, 1 white), gamma-encoded as in the files.

    Reference: Eastman Kodak Company, Photo CD PCD0992 sampler, released for unrestricted use; squares of
    original pixels (``photographs/README.md`` in this folder says which).

    Example:
        >>> natural_images().shape
        (10, 480, 480)
    """
    files = sorted((Path(__file__).parent / "photographs").glob("*.png"))
    return device_array(np.stack([read_photograph(file).pixels for file in files]))


def olshausen_images() -> Float[Array, "images rows columns"]:
    """Load the ten whitened natural images of the 1996 sparse coding paper, as distributed.

    Looked for in this order: ``olshausen_whitened_images.npz`` or ``IMAGES.mat`` in the folder that the
    environment variable ``NEUROJAX_DATA`` names; the same in the cache (``pooch.os_cache("neurojax")``);
    ``IMAGES.mat`` downloaded into the cache from the authors' address (20 MB). A file is accepted by its
    shape and by the SHA-256 of its values rounded to float32 (little-endian, image by image, row by row).

    Returns:
        float32 (10, 512, 512) = (image, row, column). Mean 0, range −2.03 to 2.86, mean variance of an
        image 0.079; no unit. Already whitened with `whiten_1996`'s filter.

    Raises:
        ValueError: if the file found is corrupt, has another shape, or holds other values.
        ConnectionError: if there is no file and the download fails.

    Reference: Olshausen, Field (1996), Emergence of simple-cell receptive field properties by learning a
    sparse code for natural images, Nature 381, 607-609. No licence is stated; cite the paper.
    """
    path = find_file(_OLSHAUSEN_FILES) or download_file(_OLSHAUSEN_URL, "IMAGES.mat")
    arrays = read_arrays(path)
    if "IMAGES" not in arrays:
        raise ValueError(f"{path}: expected a variable named IMAGES, got {', '.join(arrays) or 'none'}.")
    images = arrays["IMAGES"]
    if images.shape != _OLSHAUSEN_SHAPE or not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{path}: expected IMAGES to be real of shape {_OLSHAUSEN_SHAPE} (rows, columns, images), "
            f"got {images.dtype} of shape {images.shape}."
        )
    images = np.ascontiguousarray(np.moveaxis(images, -1, 0)).astype(np.float32)
    digest = hashlib.sha256(images.astype("<f4", copy=False).tobytes()).hexdigest()
    if digest != _OLSHAUSEN_SHA256:
        raise ValueError(
            f"{path}: expected the values of the 1996 images (SHA-256 {_OLSHAUSEN_SHA256} as float32), "
            f"got {digest}. Remove the file to have it downloaded again."
        )
    return device_array(images)


def kodak_images(
    *, colour: bool = False
) -> tuple[Float[Array, "_ _"], ...] | tuple[Float[Array, "_ _ channels=3"], ...]:
    """Load the 24 photographs of the Kodak lossless true-colour set.

    Each ``kodimNN.png`` is looked for in the folder ``kodak`` of the folder that the environment variable
    ``NEUROJAX_DATA`` names, then in ``kodak`` in the cache (``pooch.os_cache("neurojax")``), and is
    downloaded there otherwise (15 MB in all). Each file is accepted by its SHA-256.

    Args:
        colour: whether to return red, green and blue in place of luminance.

    Returns:
        24 upright images, in the order of their numbers, so of two sizes: (512, 768), and (768, 512) for the
        portraits 4, 9, 10, 17, 18 and 19; with a last axis of 3 for colour. float32 in [0, 1] as stored
        (gamma-encoded); luminance is 0.299 R + 0.587 G + 0.114 B. Most scans have a frame of 4 or 5 pixels.

    Raises:
        ValueError: if a file has another digest.
        ConnectionError: if a file is not at hand and its download fails.

    Reference: Eastman Kodak Company, Photo CD PCD0992 sampler, released for unrestricted use.
    """
    paths = [_kodak_file(name, digest) for name, digest in KODAK_SHA256.items()]
    return tuple(device_array(read_photograph(path, color=colour).pixels) for path in paths)


def _kodak_file(name: str, digest: str) -> Path:
    path = find_file((f"kodak/{name}",)) or download_file(_KODAK_URL + name, f"kodak/{name}", digest)
    with path.open("rb") as file:
        came = hashlib.file_digest(file, "sha256").hexdigest()
    if came != digest:
        raise ValueError(
            f"{path}: expected the Kodak photograph with SHA-256 {digest}, got {came}. "
            "Remove the file to have it downloaded again."
        )
    return path


def find_file(names: tuple[str, ...]) -> Path | None:
    """Return the first of the files that is there: in the folder ``NEUROJAX_DATA``, then in the cache."""
    named = os.environ.get("NEUROJAX_DATA")
    folders = ([user_path(named)] if named else []) + [_cache()]
    candidates = (folder / name for folder in folders for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _cache() -> Path:
    return Path(pooch.os_cache("neurojax"))


def download_file(url: str, name: str, digest: str | None = None) -> Path:
    """Return the path of a file fetched into the cache, where one with another digest is not kept."""
    target = _cache() / name
    try:
        return Path(pooch.retrieve(url, known_hash=digest, fname=target.name, path=target.parent))
    except OSError as error:
        raise ConnectionError(
            f"{target.name}: not found in NEUROJAX_DATA ({os.environ.get('NEUROJAX_DATA') or 'unset'}) or in "
            f"{target.parent}, and not to be had from {url} ({type(error).__name__}: {error})."
        ) from error
