import json

import numpy as np
import pytest
from lying_parts import png
from PIL import Image
from streams import cut, same, take

from neurojax import data
from neurojax.data import ImageFolder, patch_batches, write_shards

RANDOM = np.random.default_rng(0)

# Each pixel is its own number, so a patch says where it comes from.
PIXELS = np.arange(3 * 10 * 12, dtype=np.float32).reshape(3, 10, 12)
UNEQUAL = [
    np.arange(4 * 4, dtype=np.float32).reshape(4, 4),
    16 + np.arange(9 * 7.0).reshape(9, 7).astype("f4"),
]


def plain(images, **settings):
    return patch_batches(
        images, **{"batch_size": 40, "patch_size": 3, "seed": 0, "preprocess": "none"} | settings
    )


def test_patches_are_cut_out_of_the_images():
    corners = set()
    for patches in take(plain(PIXELS), 100):
        for patch in patches:
            image, row, column = np.unravel_index(int(patch[0]), PIXELS.shape)
            cut_out = PIXELS[image, row : row + 3, column : column + 3].ravel()
            np.testing.assert_array_equal(patch, cut_out)
            corners.add((image, row, column))
    assert len(corners) == 3 * 8 * 10


@pytest.mark.parametrize("images_per_batch", [None, 2])
def test_every_position_in_unequal_images_is_equally_likely(images_per_batch):
    drawn = take(plain(UNEQUAL, batch_size=500, images_per_batch=images_per_batch), 60)
    first = np.concatenate(drawn)[:, 0].astype(int)
    counts = np.bincount(first, minlength=16 + 63)
    possible = np.flatnonzero(counts)
    assert len(possible) == 2 * 2 + 7 * 5
    share = counts[:16].sum() / counts.sum()
    n_draws = counts.sum() if images_per_batch is None else 60 * images_per_batch
    assert abs(share - 4 / 39) < 4 * np.sqrt(4 / 39 * 35 / 39 / n_draws)
    if images_per_batch is None:
        expected = counts.sum() / 39
        assert np.sum((counts[possible] - expected) ** 2 / expected) < 77  # χ² with 38: p = 2e-4


def test_a_folder_of_images_is_decoded_whitened_and_preprocessed(tmp_path):
    photographs = [RANDOM.integers(0, 256, (20, 24), np.uint8), RANDOM.integers(0, 256, (18, 30), np.uint8)]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photographs[0]).save(tmp_path / "a.png")
    Image.fromarray(photographs[1]).save(tmp_path / "b.png", exif=exif)
    folder = ImageFolder(tmp_path)
    loaded = data.load_images(tmp_path)
    assert folder.sizes.tolist() == [[20, 24], [30, 18]] == [list(image.shape) for image in loaded]
    np.testing.assert_array_equal(folder[1], loaded[1])
    assert same(take(plain(tmp_path), 2), take(plain([np.asarray(image) for image in loaded]), 2))
    white = [np.asarray(data.whiten_1996(image)) for image in loaded]
    on_the_fly = take(plain(tmp_path, prepare=data.whiten_1996, preprocess="variance", floor=0.1), 2)
    for came, patches in zip(on_the_fly, take(plain(white), 2), strict=True):
        np.testing.assert_allclose(came, data.normalize_variance(patches, 0.1), atol=1e-5)
    halves = patch_batches(tmp_path, 40, patch_size=3, seed=0, transform=lambda patches: patches / 2)
    np.testing.assert_allclose(next(halves).mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(
        2 * next(halves), data.remove_patch_mean(take(plain(tmp_path), 2)[1]), atol=1e-6
    )
    eight_bits = np.stack([photographs[0], photographs[0]])
    np.testing.assert_array_equal(
        next(plain(eight_bits)), next(plain(eight_bits.astype(np.float32) / np.float32(255)))
    )


class Counted(list):
    """A sequence that notes which of its images are asked for."""

    def __init__(self, images):
        super().__init__(images)
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        return super().__getitem__(index)


def test_images_are_kept_within_the_bound_and_only_those_needed_are_loaded():
    images = Counted([np.full((8, 8), number, np.float32) for number in range(50)])
    once = plain(images, n_threads=1, cache_bytes=50 * 256)
    take(once, 30)
    once.close()
    assert sorted(images.asked) == sorted(set(images.asked))
    images.asked.clear()
    stream = plain(images, n_threads=1, cache_bytes=10 * 256, images_per_batch=2, n_batches=6)
    drawn = list(stream)
    assert all(len(np.unique(batch)) <= 2 for batch in drawn)
    assert len(images.asked) <= 12
    bounded = data._patch_stream._Images(images, None, cache_bytes=3 * 256)
    for index in (0, 1, 2, 0, 3):
        bounded[index]
    assert list(bounded.kept) == [2, 0, 3] and bounded.n_bytes == 3 * 256


def test_patches_resume_exactly_and_end(tmp_path):
    shards = write_shards(tmp_path, PIXELS, 2)
    expected = take(plain(PIXELS), 9)
    stream = plain(shards, n_batches=9)
    take(stream, 4)
    again = plain(shards, n_batches=9)
    again.set_state(json.loads(json.dumps(stream.get_state())))
    assert same(list(again), expected[4:])
    with pytest.raises(ValueError, match="patch_size: expected 3, with which"):
        plain(PIXELS, patch_size=4).set_state(stream.get_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": []}, "images: expected a folder, an array or a sequence of images"),
        ({"images": PIXELS[0]}, r"images: expected 3 axes \(images, rows, columns\), got shape \(10, 12\)"),
        (
            {"images": PIXELS.astype(int)},
            "images: expected real floating-point numbers, or bool, uint8 or uint16, got dtype int64",
        ),
        ({"images": [PIXELS[0], PIXELS]}, r"images\[1\]: expected 2 axes"),
        ({"images": UNEQUAL, "patch_size": 5}, r"least side of images\[0\], of shape \(4, 4\), got 5"),
        ({"patch_size": 0}, "patch_size: expected a whole number ≥ 1"),
        ({"n_batches": 0}, "n_batches: expected a whole number ≥ 1"),
        ({"images_per_batch": 0}, "images_per_batch: expected a whole number ≥ 1"),
        ({"cache_bytes": -1}, "cache_bytes: expected a whole number ≥ 0"),
        ({"preprocess": "median"}, "preprocess: expected one of"),
        ({"floor": -1.0}, "floor: expected a number ≥ 0"),
        (
            {"process_index": 0, "process_count": 3},
            "batch_size: expected a multiple of the 3 processes, got 40",
        ),
    ],
)
def test_settings_of_patches_that_cannot_be_meant(settings, message, untyped):
    with pytest.raises(ValueError, match=message):
        plain(**{"images": PIXELS} | settings)


@pytest.mark.parametrize("order", [1, -1])
def test_patches_of_images_of_unequal_precision_have_one_dtype(order, x64):
    images = [np.full((8, 8), 1.5, np.float32), np.full((8, 8), 2.5), np.full((8, 8), 255, np.uint8)][::order]
    came = take(plain(images, batch_size=1), 20)
    assert {batch.dtype for batch in came} == {np.dtype(np.float64)}
    assert {batch[0, 0].item() for batch in came} == {1.0, 1.5, 2.5}
    assert next(plain(images[::2] if order == 1 else images[::-2])).dtype == np.float32


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_sizes_are_those_of_upright_images(tmp_path, kind):
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (12, 10)).save(tmp_path / f"{orientation}.{kind}", exif=exif)
    folder = ImageFolder(tmp_path)
    assert folder.sizes.tolist() == 4 * [[10, 12]] + 4 * [[12, 10]]
    assert [image.shape for image in folder] == [tuple(size) for size in folder.sizes]


def test_what_cannot_be_read_is_refused_where_a_folder_is_opened(tmp_path):
    Image.fromarray(RANDOM.integers(0, 256, (20, 24), np.uint8)).save(tmp_path / "a.png")
    limit = 16 * 20 * 24
    assert ImageFolder(tmp_path, most_bytes=limit)[0].shape == (20, 24)
    with pytest.raises(ValueError, match=r"a\.png: .*expected at most 479 pixels, got 20 × 24"):
        ImageFolder(tmp_path, most_bytes=limit - 1)
    (tmp_path / "b.png").write_bytes(png(8200, 8200, b""))
    with pytest.raises(ValueError, match=r"b\.png: .*expected at most 67108864 pixels, got 8200 × 8200"):
        plain(tmp_path)
    assert ImageFolder(tmp_path, most_bytes=2**31).sizes.tolist() == [[20, 24], [8200, 8200]]
    Image.new("I;16", (20, 24)).save(tmp_path / "b.png")
    with pytest.warns(UserWarning, match="converted 1 of 2 images: 16-bit values divided by 65535"):
        assert ImageFolder(tmp_path)[1].max() == 0
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    (tmp_path / "b.png").write_bytes(program)
    with pytest.raises(ValueError, match=r"b\.png: expected an image file, .*UnidentifiedImageError"):
        plain(tmp_path)


def test_the_position_in_other_images_is_refused_by_name(tmp_path):
    for folder, name in (("one", "a"), ("one", "b"), ("two", "a"), ("two", "c")):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("L", (12, 10)).save(tmp_path / folder / f"{name}.png")
    one, two = plain(tmp_path / "one"), plain(tmp_path / "two")
    assert plain(tmp_path / "one", process_index=1, process_count=2).settings == one.settings
    assert json.loads(json.dumps(one.settings)) == one.settings
    plain(tmp_path / "one").set_state(one.get_state())
    arrays = [plain(images) for images in (PIXELS, PIXELS.astype(np.float64), [*PIXELS])]
    for given, taking, message in (
        (one, two, "images.digest: expected '"),
        (arrays[0], arrays[1], "images.dtype: expected 'float32', .* got 'float64'"),
        (arrays[2], arrays[0], r"images.shape: expected None, .* got \[3, 10, 12\]"),
        (arrays[2], one, "n_images: expected 3, .* got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            taking.set_state(given.get_state())


def test_images_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a folder of images"):
        plain(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="expected at least one image file"):
        plain(tmp_path)
    Image.fromarray(RANDOM.integers(0, 256, (60, 60), np.uint8)).save(tmp_path / "a.png")
    cut(tmp_path / "a.png", 1000)
    with pytest.raises(ValueError, match=r"a\.png: expected an image file, got one that cannot be read"):
        next(plain(tmp_path))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"b\.png: expected an image file"):
        plain(tmp_path)
    holed = PIXELS.copy()
    holed[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"images\[1\]: expected finite numbers, got 1"):
        next(plain(holed))
    with pytest.raises(ValueError, match=r"images\[0\]: expected shape \(10, 12\), also from prepare"):
        next(plain(PIXELS[:1], prepare=lambda image: image[1:]))
