"""The table of `neurojax.data`."""

from neurojax import data

from ._entry import Entry, key, normal, others


def _images():
    return {"images": normal(2, 8, 8)}


def _patches():
    return {"patches": normal(12, 4)}


def _whitening(patches):
    fitted = data.fit_whitening(patches, "pca", n_components=3)
    return fitted.unwhiten(fitted.whiten(patches))


ENTRIES = [
    Entry(
        "data.PatchSampler",
        lambda images, key: data.PatchSampler(images, 3, 5, preprocess="variance")(key),
        lambda: _images() | {"key": key()},
        differentiable=("images",),
    ),
    Entry(
        "data.random_patches",
        lambda images, key: data.random_patches(images, key, 5, 3),
        lambda: _images() | {"key": key()},
        differentiable=("images",),
    ),
    Entry(
        "data.grid_patches", lambda images: data.grid_patches(images, 3), _images, differentiable=("images",)
    ),
    Entry("data.Whitening", _whitening, _patches, differentiable=("patches",)),
    Entry("data.fit_whitening", data.fit_whitening, _patches, differentiable=("patches",)),
    *(
        Entry(f"data.{name}", getattr(data, name), _patches, differentiable=("patches",))
        for name in ("normalize_variance", "remove_patch_mean", "remove_pixel_mean")
    ),
    *(
        Entry(f"data.{name}", getattr(data, name), _images, differentiable=("images",))
        for name in ("rescale_variance", "unwhiten_1996", "whiten_1996")
    ),
    *others(
        "data",
        "files",
        "ImageFolder ShardedRows binarized_mnist cifar10 kodak_images load_images load_responses "
        "macaque_sessions mnist mnist_subset mouse_sessions natural_images olshausen_images read_array "
        "read_arrays stringer_orientations stringer_split write_shards",
    ),
    *others("data", "host program", "Batches batches patch_batches"),
    *others(
        "data",
        "record",
        "GratingRecording LabelledColourImages LabelledImages MacaqueSession MouseSession ResponseTable "
        "StringerSplit",
    ),
    *others("data", "constant", "CIFAR10_CLASSES"),
]
