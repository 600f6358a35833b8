"""Natural data for tests, from the bundled photographs."""

from functools import cache

import jax
import numpy as np

from neurojax import data


@cache
def whitened_images() -> np.ndarray:
    """Bundled photographs through the 1996 filter, scaled to the standard deviation of the 1996 images."""
    images = np.stack([np.asarray(data.whiten_1996(image)) for image in data.natural_images()])
    return (images * (0.28 / images.std())).astype(np.float32)


@cache
def whitened_patches(n_patches: int, patch_size: int) -> np.ndarray:
    """Random mean-free patches."""
    patches = data.random_patches(whitened_images(), jax.random.key(0), n_patches, patch_size)
    return np.asarray(patches - patches.mean(axis=1, keepdims=True))
