"""Patches of images: drawn at random, cut on a grid, centred and scaled.

Images come as one array (images, rows, columns), or as a sequence of arrays (rows, columns) that may differ
in size. A patch is a row: ``patch_size`` × ``patch_size`` pixels, row by row. Integers become floating-point
numbers as they are: divide images of 8 bits by 255 to have them in [0, 1] (only `patch_batches` does).
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import real_array
from .._checks import check_at_least, check_finite, check_nonnegative
from .._precision import at_least_single
from .._types import PRNGKey

__all__ = [
    "PatchSampler",
    "grid_patches",
    "normalize_variance",
    "random_patches",
    "remove_patch_mean",
    "remove_pixel_mean",
]

Images = Float[ArrayLike, "images rows columns"] | Sequence[Float[ArrayLike, "_ _"]]
Patches = Float[ArrayLike, "patches features"]
Preprocess = Literal["none", "mean", "variance"]


class PatchSampler(eqx.Module):
    """Draw batches of random patches out of whole images, on the device.

    Every position at which a patch fits, in any image, is equally likely; draws are independent. Images of
    different sizes are kept padded to the largest, and the padding is never drawn.

    Attributes:
        images: the images, each in the top left corner of its (rows, columns).
        n_columns: for each image, the number of columns at which a patch may start.
        last_position: for each image, the number of patch positions in it and in those before it.
        patch_size: side of a patch in pixels.
        batch_size: patches in a batch.
        preprocess: what is done to each patch: ``"none"``; ``"mean"``, minus its own mean; or
            ``"variance"``, that and then divided by max(its standard deviation, floor), see
            `normalize_variance`.
        floor: the least standard deviation that is divided by, in the images' unit.

    Example:
        >>> images = np.random.default_rng(0).random((3, 40, 60), np.float32)
        >>> sampler = PatchSampler(images, patch_size=8, batch_size=5)
        >>> sampler(jax.random.key(0)).shape
        (5, 64)
    """

    images: Float[Array, "images rows columns"]
    n_columns: Int[Array, " images"]
    last_position: Int[Array, " images"]
    patch_size: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    preprocess: Preprocess = eqx.field(static=True)
    floor: float = eqx.field(static=True)

    def __init__(
        self,
        images: Images,
        patch_size: int,
        batch_size: int,
        *,
        preprocess: Preprocess = "mean",
        floor: float = 1e-2,
    ):
        """Hold the images and the settings.

        Args:
            images: (images, rows, columns), or a sequence of (rows, columns).
            patch_size: side of a patch in pixels, ≥ 1.
            batch_size: patches in a batch, ≥ 1.
            preprocess: ``"none"``, ``"mean"`` or ``"variance"``.
            floor: for ``"variance"``, ≥ 0.

        Raises:
            ValueError: for images that are empty, of another rank, not real, not finite or smaller than a
                patch, and for settings out of range.
        """
        check_at_least("batch_size", batch_size, 1)
        check_nonnegative("floor", floor)
        if preprocess not in get_args(Preprocess):
            raise ValueError(f"preprocess: expected one of {get_args(Preprocess)}, got {preprocess!r}.")
        arrays = _arrays_of(images, patch_size)
        shapes = [image.shape for image in arrays]
        counts = [(rows - patch_size + 1) * (columns - patch_size + 1) for rows, columns in shapes]
        if sum(counts) > np.iinfo(np.int32).max:
            raise ValueError(f"images: expected fewer than 2³¹ patch positions, got {sum(counts)}.")
        self.images = _stack(arrays)
        self.n_columns = jnp.array([columns - patch_size + 1 for _, columns in shapes], jnp.int32)
        self.last_position = jnp.array(np.cumsum(counts), jnp.int32)
        self.patch_size = patch_size
        self.batch_size = batch_size
        self.preprocess = preprocess
        self.floor = float(floor)

    @eqx.filter_jit
    def __call__(self, key: PRNGKey) -> Float[Array, "batch features"]:
        """Return ``batch_size`` random patches as rows of ``patch_size²`` features."""
        positions = jax.random.randint(key, (self.batch_size,), 0, self.last_position[-1], jnp.int32)
        patches = jax.vmap(self._cut)(positions)
        if self.preprocess == "none":
            return patches
        if self.preprocess == "mean":
            return remove_patch_mean(patches)
        return normalize_variance(patches, self.floor)

    def _cut(self, position: Int[Array, ""]) -> Float[Array, " features"]:
        image = jnp.searchsorted(self.last_position, position, side="right")
        position = position - jnp.where(image > 0, self.last_position[image - 1], 0)
        row, column = jnp.divmod(position, self.n_columns[image])
        size = self.patch_size
        return lax.dynamic_slice(self.images, (image, row, column), (1, size, size)).reshape(-1)


def random_patches(
    images: Images, key: PRNGKey, n_patches: int, patch_size: int
) -> Float[Array, "patches features"]:
    """Cut patches at random, every position in every image equally likely, pixel values unchanged.

    Args:
        images: (images, rows, columns), or a sequence of (rows, columns).
        key: randomness.
        n_patches: how many, ≥ 1.
        patch_size: side of a patch in pixels, at most the least side of an image.

    Returns:
        The patches as rows of ``patch_size²`` features.

    Raises:
        ValueError: as `PatchSampler`.

    Example:
        >>> images = np.zeros((2, 9, 9), np.float32)
        >>> random_patches(images, jax.random.key(0), n_patches=4, patch_size=3).shape
        (4, 9)
    """
    check_at_least("n_patches", n_patches, 1)
    return PatchSampler(images, patch_size, n_patches, preprocess="none")(key)


def grid_patches(
    images: Images, patch_size: int, stride: int | None = None
) -> Float[Array, "patches features"]:
    """Cut every patch of a regular grid, pixel values unchanged.

    Patches start at rows and columns 0, stride, 2·stride, … as long as they fit; what is left over at the
    right and at the bottom is not covered.

    Args:
        images: (images, rows, columns), or a sequence of (rows, columns).
        patch_size: side of a patch in pixels, at most the least side of an image.
        stride: pixels from one patch to the next, ≥ 1; ``patch_size`` (a tiling) if not given.

    Returns:
        The patches as rows of ``patch_size²`` features, ordered by image, then row, then column.

    Raises:
        ValueError: as `PatchSampler`.

    Example:
        >>> grid_patches(np.arange(16.0, dtype=np.float32).reshape(1, 4, 4), patch_size=2)[1]
        Array([2., 3., 6., 7.], dtype=float32)
    """
    arrays = _arrays_of(images, patch_size)
    stride = patch_size if stride is None else stride
    check_at_least("stride", stride, 1)

    if len({image.shape for image in arrays}) == 1:
        return _cut(_stack(arrays), patch_size, stride)
    return jnp.concatenate([_cut(image[None], patch_size, stride) for image in arrays])


@partial(jax.jit, static_argnames=("patch_size", "stride"))
def _cut(images: Array, patch_size: int, stride: int) -> Array:
    """Return the patches of images of one shape, image by image."""
    rows, columns = (_windows(size, patch_size, stride) for size in images.shape[1:])
    # (images, row windows, column windows, rows in a patch, columns in a patch)
    return images[:, rows[:, None, :, None], columns[None, :, None, :]].reshape(-1, patch_size**2)


def remove_patch_mean(patches: Patches) -> Float[Array, "patches features"]:
    """Subtract from each patch its own mean over pixels.

    Args:
        patches: one patch a row.

    Returns:
        The patches, each with mean 0.

    Example:
        >>> remove_patch_mean(jnp.array([[1.0, 3.0]]))
        Array([[-1.,  1.]], dtype=float32)
    """
    patches = _checked(patches)
    return patches - jnp.mean(patches, axis=1, keepdims=True)


def remove_pixel_mean(
    patches: Patches,
) -> tuple[Float[Array, "patches features"], Float[Array, " features"]]:
    """Subtract from each pixel its mean over all patches.

    Args:
        patches: one patch a row.

    Returns:
        The centred patches, and the mean of each pixel: subtract it from new patches, add it to
        reconstructions.

    Example:
        >>> remove_pixel_mean(jnp.array([[1.0, 5.0], [3.0, 5.0]]))[1]
        Array([2., 5.], dtype=float32)
    """
    patches = _checked(patches)
    mean = jnp.mean(patches, axis=0)
    return patches - mean, mean


def normalize_variance(patches: Patches, floor: float = 1e-2) -> Float[Array, "patches features"]:
    """Give each patch mean 0 and variance 1, unless it is nearly flat.

    Computes (x − mean(x)) / max(std(x), floor), with std² = mean((x − mean(x))²) over the patch's pixels. A
    patch flatter than the floor keeps its low contrast, so noise is not blown up.

    Args:
        patches: one patch a row.
        floor: the least standard deviation that is divided by, in the patches' unit, ≥ 0. The default, 0.01,
            suits images in [0, 1]: it is 2.6 grey levels of 8 bits. With 0, a constant patch gives NaN.

    Returns:
        The scaled patches, in the dtype of ``patches``; half precision is computed in float32.

    Raises:
        ValueError: for a negative floor and for patches of another rank, without rows or not real.

    Example:
        >>> normalize_variance(jnp.array([[1.0, 3.0], [2.0, 2.0]]))
        Array([[-1.,  1.],
               [ 0.,  0.]], dtype=float32)
    """
    check_nonnegative("floor", floor)
    patches = _checked(patches)
    return _scaled(patches, jnp.asarray(floor, at_least_single(patches).dtype))


@jax.jit
def _scaled(patches: Array, least: Array) -> Array:
    moved = at_least_single(patches) - at_least_single(patches[:, :1])  # exactly 0 in a constant patch
    centered = moved - jnp.mean(moved, axis=1, keepdims=True)
    # In a unit of each patch, in which its squares do not leave the dtype's range.
    largest = lax.stop_gradient(jnp.max(jnp.abs(centered), axis=1, keepdims=True))
    unit = jnp.maximum(largest, least)
    squares = jnp.mean((centered / unit) ** 2, axis=1, keepdims=True)
    scaled = centered / unit / jnp.sqrt(jnp.maximum(squares, (least / unit) ** 2))
    return scaled.astype(patches.dtype)


def _checked(patches) -> Float[Array, "patches features"]:
    patches = real_array("patches", patches, "patches features")
    if 0 in np.shape(patches):
        raise ValueError(
            f"patches: expected at least one patch and one pixel, got shape {np.shape(patches)}."
        )
    return patches


def _arrays_of(images, patch_size: int) -> Array | list[Array]:
    """Return images as arrays (rows, columns), or raise ``ValueError`` for what no patch can be cut from."""
    check_at_least("patch_size", patch_size, 1)
    is_array = isinstance(images, (Array, np.ndarray))
    if is_array:
        images = real_array("images", images, "images rows columns")
    if len(images) == 0:
        raise ValueError("images: expected at least one image, got none.")
    if not is_array:
        images = [real_array(f"images[{n}]", image, "rows columns") for n, image in enumerate(images)]
    for number, image in enumerate([images] if is_array else images):
        name = "images" if is_array else f"images[{number}]"
        check_finite(name, image)
        if min(image.shape[-2:]) < patch_size:
            raise ValueError(
                f"patch_size: expected at most the least side of {name}, of shape {image.shape}, "
                f"got {patch_size}."
            )
    return images


def _stack(images: Array | list[Array]) -> Float[Array, "images rows columns"]:
    if isinstance(images, Array):
        return images
    rows, columns = (max(sizes) for sizes in zip(*(image.shape for image in images), strict=True))
    padded = [jnp.pad(image, ((0, rows - image.shape[0]), (0, columns - image.shape[1]))) for image in images]
    return jnp.stack(padded)


def _windows(size: int, patch_size: int, stride: int) -> np.ndarray:
    starts = np.arange(0, size - patch_size + 1, stride)
    return starts[:, None] + np.arange(patch_size)
