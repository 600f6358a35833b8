"""Random patches on the fly: images are decoded and whitened when first needed, and kept for a while."""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from .._arrays import check_unmasked, native
from .._checks import check_at_least, check_finite, check_nonnegative
from .._paths import user_path
from .._untrusted import MOST_BYTES
from ._files import fractions
from ._patches import Preprocess, normalize_variance, remove_patch_mean
from ._photographs import image_files, photograph_form, read_photograph, warn_of_conversions
from ._pipeline import Batches, check_seed, described, on_host, own_part

__all__ = ["ImageFolder", "patch_batches"]


class ImageFolder(Sequence):
    """The image files of a folder as gray images, each decoded when it is asked for.

    Files come in the order of their names and are read as by `load_images`; opening the folder reads their
    headers alone, refuses what they show could not be read, and warns once of what will be converted (images
    of 16 bits, and images that may be transparent).

    Attributes:
        paths: the files.
        sizes: (rows, columns) of each, pixels.
        most_bytes: the limit of an image.
    """

    def __init__(self, folder: str | Path, *, most_bytes: int = MOST_BYTES):
        """Open the folder.

        Args:
            folder: where the images are.
            most_bytes: an image may have a sixteenth of it in pixels, 67 million if it is not given. Pillow
                has a limit of its own, 179 million pixels.

        Raises:
            FileNotFoundError: if there is no such folder.
            ValueError: for a folder without images, and a file that is no image, is too large, or is of a
                kind that cannot be converted; the message names it.
        """
        check_at_least("most_bytes", most_bytes, 0)
        folder = user_path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: expected a folder of images, but there is none.")
        self.paths = image_files(folder)
        self.most_bytes = most_bytes
        sizes, conversions = zip(
            *(photograph_form(path, most_bytes=most_bytes) for path in self.paths), strict=True
        )
        self.sizes = np.array(sizes, np.int64)
        warn_of_conversions(folder, conversions, len(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        """Return an image (rows, columns), float32, in [0, 1] unless the file has floating-point values."""
        return read_photograph(self.paths[index], most_bytes=self.most_bytes).pixels


def patch_batches(
    images: Any,
    batch_size: int,
    *,
    patch_size: int,
    seed: int,
    n_batches: int | None = None,
    images_per_batch: int | None = None,
    prepare: Callable[[Any], Any] | None = None,
    preprocess: Preprocess = "mean",
    floor: float = 1e-2,
    transform: Callable[[Any], Any] | None = None,
    cache_bytes: int = 2**30,
    process_index: int | None = None,
    process_count: int | None = None,
    n_threads: int = 2,
    n_ahead: int = 4,
) -> Batches:
    """Return batches of random patches out of images that memory does not hold, by Grain.

    Every position at which a patch fits, in any image, is equally likely. The positions of batch k are drawn
    from (seed, k) alone, so it is the same for any number of processes: process p of P gets its patches
    p, p + P, p + 2P, …, and reads the images that these lie in.

    Args:
        images: a folder of image files, an `ImageFolder`, an array, `ShardedRows` or store such as an h5py
            dataset (images, rows, columns), or a sequence of (rows, columns). Values of uint8, uint16 and
            bool are divided by 255, 65535 and 1; images of unequal precision are all taken to the highest.
        batch_size: patches a batch, of all processes together; divisible by their number.
        patch_size: side of a patch in pixels, at most the least side of an image.
        seed: of the positions, 0 to 2⁶⁴ − 1.
        n_batches: ≥ 1; ``None``: without an end.
        images_per_batch: draw the patches of a batch from so many images, themselves drawn in proportion
            to their numbers of positions: far fewer images are decoded where the cache does not hold all.
            Each patch is still equally likely to lie anywhere; those of one batch are not independent.
            ``None``: they are.
        prepare: what is done to a whole image when it is loaded, such as `whiten_1996`; keeps its shape.
        preprocess: of each patch, as in `PatchSampler`: ``"none"``, ``"mean"`` or ``"variance"``.
        floor: the least standard deviation for ``"variance"``, ≥ 0.
        transform: what is done to this process's part of a batch afterwards, each row by itself.
        cache_bytes: of prepared images that are kept, the least recently used given up first, ≥ 0.
        process_index: which process this is; ``None``: as JAX says.
        process_count: how many there are; ``None``: as JAX says.
        n_threads: threads that make batches.
        n_ahead: batches made ahead.

    Returns:
        Batches (batch_size / processes, patch_size²), NumPy.

    Raises:
        ValueError: for no images, one smaller than a patch, and settings out of range; from the iterator, for
            an image that cannot be decoded, is not finite, or changes its shape; the message names it.
        ImportError: where grain is not installed (``pip install 'grain>=0.2.15'``).

    Example:
        >>> photographs = np.random.default_rng(0).random((3, 20, 30), np.float32)
        >>> stream = patch_batches(photographs, 5, patch_size=8, seed=0, preprocess="none")
        >>> next(stream).shape
        (5, 64)
    """
    check_at_least("batch_size", batch_size, 1)
    check_seed(seed)
    check_at_least("cache_bytes", cache_bytes, 0)
    for name, value in (("n_batches", n_batches), ("images_per_batch", images_per_batch)):
        if value is not None:
            check_at_least(name, value, 1)
    loaded = _Images(ImageFolder(images) if isinstance(images, (str, Path)) else images, prepare, cache_bytes)
    positions = _Positions(loaded.sizes, patch_size, seed, batch_size, images_per_batch)
    part = own_part(batch_size, process_index, process_count)
    finish = on_host(_both(_preprocessing(preprocess, floor), transform))

    def make(number: int) -> Any:
        image, row, column = (numbers[part] for numbers in positions[number])
        return finish(loaded.cut(image, row, column, patch_size))

    settings = {
        "seed": int(seed), "batch_size": int(batch_size), "patch_size": int(patch_size),
        "n_images": len(loaded.sizes), "n_positions": int(positions.last[-1]), "preprocess": preprocess,
        "floor": float(floor), "images_per_batch": images_per_batch,
    }  # fmt: skip
    settings |= _described(loaded.images, loaded.sizes, loaded.dtype)
    return Batches(make, n_batches, settings, n_threads=n_threads, n_ahead=n_ahead)


class _Positions:
    """Positions of the patches of each batch: (images, rows, columns)."""

    def __init__(self, sizes, patch_size: int, seed: int, batch_size: int, images_per_batch: int | None):
        check_at_least("patch_size", patch_size, 1)
        if np.min(sizes) < patch_size:
            worst = int(np.argmin(np.min(sizes, axis=1)))
            raise ValueError(
                f"patch_size: expected at most the least side of images[{worst}], of shape "
                f"{tuple(sizes[worst].tolist())}, got {patch_size}."
            )
        self.n_columns = sizes[:, 1] - patch_size + 1
        self.counts = (sizes[:, 0] - patch_size + 1) * self.n_columns
        self.last = np.cumsum(self.counts)
        self.seed, self.batch_size, self.images_per_batch = seed, batch_size, images_per_batch

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        random = np.random.Generator(np.random.Philox(key=np.array([self.seed, batch], np.uint64)))
        positions = random.integers(0, self.last[-1], self.images_per_batch or self.batch_size)
        image = np.searchsorted(self.last, positions, side="right")
        if self.images_per_batch is None:
            position = positions - (self.last - self.counts)[image]
        else:
            image = image[random.integers(0, self.images_per_batch, self.batch_size)]
            position = random.integers(0, self.counts[image])
        return image, *np.divmod(position, self.n_columns[image])


class _Images:
    """Images that are loaded and prepared when they are needed; the last used are kept."""

    def __init__(self, images: Any, prepare: Callable[[Any], Any] | None, cache_bytes: int):
        self.images, self.prepare, self.cache_bytes = images, on_host(prepare), cache_bytes
        self.sizes, self.dtype = _image_forms(images)
        self.kept, self.n_bytes, self.lock = OrderedDict(), 0, threading.Lock()

    def __getitem__(self, index: int) -> np.ndarray:
        with self.lock:
            if index in self.kept:
                self.kept.move_to_end(index)
                return self.kept[index]
        image = self._load(index)
        with self.lock:
            if index not in self.kept and image.nbytes <= self.cache_bytes:
                self.kept[index] = image
                self.n_bytes += image.nbytes
                while self.n_bytes > self.cache_bytes:
                    self.n_bytes -= self.kept.popitem(last=False)[1].nbytes
        return image

    def cut(self, image: np.ndarray, row: np.ndarray, column: np.ndarray, size: int) -> np.ndarray:
        """Return the patches as rows."""
        side, patches = np.arange(size), None
        for index in np.unique(image):
            pixels, chosen = self[int(index)], image == index
            if patches is None:
                patches = np.empty((len(image), size * size), pixels.dtype)
            rows, columns = row[chosen, None] + side, column[chosen, None] + side
            patches[chosen] = pixels[rows[:, :, None], columns[:, None, :]].reshape(-1, size * size)
        assert patches is not None
        return patches

    def _load(self, index: int) -> np.ndarray:
        name, size = f"images[{index}]", tuple(self.sizes[index].tolist())
        image = fractions(np.asarray(native(name, self.images[index])))
        # All alike before they are prepared, as a batch has patches of many.
        image = np.asarray(self.prepare(image.astype(self.dtype, copy=False)))
        if image.shape != size:
            raise ValueError(f"{name}: expected shape {size}, also from prepare, got {image.shape}.")
        check_finite(name, image)
        return image


def _image_forms(images: Any) -> tuple[np.ndarray, np.dtype]:
    """Return (rows, columns) of each image, and the dtype of all, without a look at the pixels."""
    if isinstance(images, ImageFolder):
        return images.sizes, np.dtype(np.float32)
    dtypes = set()
    is_array = _is_one_array(images)
    if is_array and len(images.shape) != 3:
        raise ValueError(f"images: expected 3 axes (images, rows, columns), got shape {images.shape}.")
    if not hasattr(images, "__len__") or not len(images):
        raise ValueError(f"images: expected a folder, an array or a sequence of images, got {images!r:.80}.")
    for number, image in enumerate([images] if is_array else images):
        name = "images" if is_array else f"images[{number}]"
        if not is_array and np.ndim(image) != 2:
            raise ValueError(f"{name}: expected 2 axes (rows, columns), got shape {np.shape(image)}.")
        check_unmasked(name, image)
        dtype = fractions(np.empty(0, image.dtype)).dtype
        if not np.issubdtype(dtype, np.floating):
            raise ValueError(
                f"{name}: expected real floating-point numbers, or bool, uint8 or uint16, got dtype {dtype}; "
                "convert them, array.astype('float32')."
            )
        dtypes.add(dtype.newbyteorder("="))
    shapes = [images.shape[1:]] * len(images) if is_array else [image.shape for image in images]
    return np.array(shapes, np.int64), np.result_type(*dtypes)


def _is_one_array(images: Any) -> bool:
    """Return whether images are one array or store, whose shape holds for all of them."""
    return hasattr(images, "shape") and hasattr(images, "dtype")


def _described(images: Any, sizes: np.ndarray, dtype: np.dtype) -> dict[str, Any]:
    """Return what tells the images from others, as JSON can hold it."""
    if _is_one_array(images):
        return described("images", images)
    names = [path.name for path in images.paths] if isinstance(images, ImageFolder) else None
    digest = hashlib.sha256(json.dumps([names, sizes.tolist()]).encode()).hexdigest()
    return {"images.dtype": dtype.name, "images.digest": digest}


def _preprocessing(preprocess: Preprocess, floor: float | int) -> Callable[[Any], Any] | None:
    check_nonnegative("floor", floor)
    if preprocess not in get_args(Preprocess):
        raise ValueError(f"preprocess: expected one of {get_args(Preprocess)}, got {preprocess!r}.")
    if preprocess == "variance":
        return lambda patches: normalize_variance(patches, floor)
    return remove_patch_mean if preprocess == "mean" else None


def _both(first: Callable | None, second: Callable | None) -> Callable | None:
    """Return one function after the other, where there are any."""
    if first is None or second is None:
        return first or second
    return lambda value: second(first(value))
