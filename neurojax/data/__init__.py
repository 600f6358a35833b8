"""Natural images, patches and whitening; handwritten digits; small photographs; recordings of visual cortex.

Photographs and a part of MNIST come with the library; the sets of the literature are found in the folder
that the environment variable ``NEUROJAX_DATA`` names, in the cache, or at their public address, and are
checked by digest. People's own images, arrays and tables of responses come from `load_images`, `read_array`
and `load_responses`. Rows and images that memory does not hold stay in files: `ShardedRows`, `batches`,
`patch_batches`.
"""

from ._binarized import binarized_mnist
from ._cifar import CIFAR10_CLASSES, LabelledColourImages, cifar10
from ._digits import LabelledImages, mnist, mnist_subset
from ._files import load_images, read_array, read_arrays
from ._gratings import GratingRecording, MacaqueSession, MouseSession, macaque_sessions, mouse_sessions
from ._patch_stream import ImageFolder, patch_batches
from ._patches import (
    PatchSampler,
    grid_patches,
    normalize_variance,
    random_patches,
    remove_patch_mean,
    remove_pixel_mean,
)
from ._pipeline import Batches, batches
from ._responses import ResponseTable, load_responses
from ._sets import kodak_images, natural_images, olshausen_images
from ._shard_writing import write_shards
from ._shards import ShardedRows
from ._stringer import StringerSplit, stringer_orientations, stringer_split
from ._whitening import Whitening, fit_whitening, rescale_variance, unwhiten_1996, whiten_1996

__all__ = [
    "CIFAR10_CLASSES",
    "Batches",
    "GratingRecording",
    "ImageFolder",
    "LabelledColourImages",
    "LabelledImages",
    "MacaqueSession",
    "MouseSession",
    "PatchSampler",
    "ResponseTable",
    "ShardedRows",
    "StringerSplit",
    "Whitening",
    "batches",
    "binarized_mnist",
    "cifar10",
    "fit_whitening",
    "grid_patches",
    "kodak_images",
    "load_images",
    "load_responses",
    "macaque_sessions",
    "mnist",
    "mnist_subset",
    "mouse_sessions",
    "natural_images",
    "normalize_variance",
    "olshausen_images",
    "patch_batches",
    "random_patches",
    "read_array",
    "read_arrays",
    "remove_patch_mean",
    "remove_pixel_mean",
    "rescale_variance",
    "stringer_orientations",
    "stringer_split",
    "unwhiten_1996",
    "whiten_1996",
    "write_shards",
]
