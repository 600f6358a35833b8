"""The loaders: every format, every refusal, and the named sets."""

import hashlib
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest
import scipy.io
from PIL import Image

from neurojax.data import _sets as sets
from neurojax.data import kodak_images, load_images, natural_images, olshausen_images

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 12, 20), dtype=np.uint8)


def test_folder_is_read_in_order_of_names(tmp_path, pixels):
    for name, image in zip(("b.png", "a.PNG", "c.bmp"), pixels, strict=True):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "README.md").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    loaded = load_images(tmp_path)
    assert loaded.dtype == jnp.float32
    np.testing.assert_array_equal(loaded, pixels[[1, 0, 2]].astype(np.float32) / np.float32(255))


def test_folder_of_mixed_sizes_gives_a_tuple(tmp_path, pixels):
    Image.fromarray(pixels[0]).save(tmp_path / "1.png")
    Image.fromarray(pixels[1, :, :7]).save(tmp_path / "2.png")
    loaded = load_images(str(tmp_path))
    assert isinstance(loaded, tuple)
    assert [image.shape for image in loaded] == [(12, 20), (12, 7)]
    np.testing.assert_allclose(loaded[1], pixels[1, :, :7] / 255, rtol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1"])
def test_colour_becomes_luminance(tmp_path, mode):
    colours = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / "image.png")
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), float) / 255, -1, 0)
    loaded = load_images(tmp_path / "image.png")
    assert loaded.shape == (1, 6, 5)
    np.testing.assert_allclose(loaded[0], 0.299 * red + 0.587 * green + 0.114 * blue, atol=2e-7)


def test_camera_orientation_is_applied(tmp_path, pixels):
    image = Image.fromarray(pixels[0])
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(load_images(tmp_path)[0], np.rot90(pixels[0], -1) / 255, rtol=1e-6)


def test_numpy_files(tmp_path, pixels):
    real = pixels / np.float32(200) - 0.5
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "bytes.npy", pixels)
    np.save(tmp_path / "one.npy", real[0])
    np.savez(tmp_path / "only.npz", anything=real)
    np.savez(tmp_path / "several.npz", labels=np.arange(3), images=real)
    np.savez(tmp_path / "matlab.npz", IMAGES=np.moveaxis(real, 0, -1))
    np.testing.assert_array_equal(load_images(tmp_path / "real.npy"), real)
    np.testing.assert_allclose(load_images(tmp_path / "bytes.npy"), pixels / 255, rtol=1e-6)
    np.testing.assert_array_equal(load_images(tmp_path / "one.npy"), real[:1])
    for name in ("only.npz", "several.npz", "matlab.npz"):
        np.testing.assert_array_equal(load_images(tmp_path / name), real)


def test_foreign_number_formats_are_converted(tmp_path):
    real = np.random.default_rng(4).random((2, 3, 4))
    for dtype in (">f4", ">f8", np.float16, np.longdouble):
        np.save(tmp_path / "foreign.npy", real.astype(dtype))
        loaded = load_images(tmp_path / "foreign.npy")
        np.testing.assert_allclose(loaded, real, rtol=1e-3 if dtype is np.float16 else 1e-6)


def test_matlab_text_beside_the_array_is_passed_over(tmp_path, pixels):
    real = pixels / np.float32(200)
    scipy.io.savemat(tmp_path / "images.mat", {"stack": np.moveaxis(real, 0, -1), "title": "leaves"})
    np.testing.assert_array_equal(load_images(tmp_path / "images.mat"), real)


def test_double_precision_is_kept(x64, tmp_path):
    image = np.random.default_rng(2).random((1, 4, 4))
    np.save(tmp_path / "double.npy", image)
    loaded = load_images(tmp_path / "double.npy")
    assert loaded.dtype == jnp.float64
    np.testing.assert_array_equal(loaded, image)


@pytest.mark.parametrize("name", ["IMAGES", "IMAGESr", "stack"])
def test_matlab_files_have_images_last(tmp_path, pixels, name):
    real = pixels / np.float32(200)
    scipy.io.savemat(tmp_path / "images.mat", {name: np.moveaxis(real, 0, -1)})
    np.testing.assert_array_equal(load_images(tmp_path / "images.mat"), real)


BAD_FILES = {
    "text.png": (lambda p: p.write_text("no image"), r"expected an image file, got .* cannot be read"),
    "deep.tif": (
        lambda p: Image.fromarray(np.full((3, 3), 70_000, np.int32)).save(p),
        r"integers from 0 to 65535, got 70000 to 70000; .*numpy\.save",
    ),
    "nan.tif": (
        lambda p: Image.fromarray(np.full((3, 3), np.nan, np.float32)).save(p),
        r"expected finite numbers.*nan_to_num",
    ),
    "lab.tif": (lambda p: Image.new("LAB", (3, 3)).save(p), r"mode 'LAB'; .*\.convert\('RGB'\)"),
    "text.npy": (lambda p: p.write_text("no array"), r"expected a NumPy array file, got .* cannot be read"),
    "text.npz": (lambda p: p.write_text("no array"), r"expected a NumPy array file, got .* cannot be read"),
    "text.mat": (lambda p: p.write_text("no array"), r"expected a MATLAB file, got .* cannot be read"),
    "pickle.npy": (
        lambda p: np.save(p, np.array([{}, None], object), allow_pickle=True),
        r"expected a NumPy array file, got .*allow_pickle=False",
    ),
    "rank.npy": (
        lambda p: np.save(p, np.zeros((2, 3, 4, 5))),
        r"expected \(images, rows, columns\) or \(rows, columns\), got shape \(2, 3, 4, 5\); .*moveaxis",
    ),
    "opacity.npy": (
        lambda p: np.save(p, np.full((1, 5, 5, 4), 2.0)),
        r"the opacity, in \[0, 1\], got 2 to 2; leave it out, array\[\.\.\., :3\]",
    ),
    "flat.mat": (
        lambda p: scipy.io.savemat(p, {"IMAGES": np.zeros((2, 2, 2, 2))}),
        r"expected \(rows, columns, images\) or .* got shape \(2, 2, 2, 2\)",
    ),
    "integers.npy": (
        lambda p: np.save(p, np.zeros((2, 3, 4), np.int32)),
        r"expected real .* got dtype int32; convert them, array\.astype\('float32'\)",
    ),
    "empty.npy": (lambda p: np.save(p, np.zeros((0, 3, 4))), r"at least one pixel, got .* \(0, 3, 4\)"),
    "nan.npy": (lambda p: np.save(p, np.full((1, 2, 2), np.nan)), r"expected finite numbers, got 4"),
    "two.npz": (
        lambda p: np.savez(p, a=np.zeros((1, 2, 2)), b=np.zeros((1, 2, 2))),
        r"got a \(1, 2, 2\), b \(1, 2, 2\); choose one with name=\"a\" \(on the command line: --array a\)",
    ),
    "story.txt": (lambda p: p.write_text("words"), r"expected a folder or a file that ends in .* got '.txt'"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name(tmp_path, name):
    write, message = BAD_FILES[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as raised:
        load_images(tmp_path / name)
    assert str(raised.value).startswith(str(tmp_path / name))


def test_truncated_image_in_a_folder_is_refused_by_name(tmp_path, pixels):
    Image.fromarray(pixels[0]).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"2\.png: expected an image file"):
        load_images(tmp_path)


def test_nothing_there_and_nothing_in_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing: expected a folder .* does not exist"):
        load_images(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"at least one image file .* got a folder that contains none"):
        load_images(tmp_path)


def test_bundled_photographs():
    images = natural_images()
    assert images.shape == (10, 480, 480)
    assert images.dtype == jnp.float32
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    # Ten different photographs, none of them nearly blank.
    assert float(images.std(axis=(1, 2)).min()) > 0.1
    assert len({np.asarray(image).tobytes() for image in images}) == 10
    folder = Path(sets.__file__).parent / "photographs"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2.5e6


def test_olshausen_not_found(empty_cache):
    with pytest.raises(ConnectionError, match=r"IMAGES\.mat: not found .*www\.rctn\.org.*no network here"):
        olshausen_images()


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_olshausen_is_found_in_folder_and_cache(empty_cache, tmp_path, monkeypatch, place):
    """A made set with its own digest, as float64 in the layout of the original, is found and put in order."""
    monkeypatch.setattr(sets, "_OLSHAUSEN_SHAPE", (6, 5, 4))
    images = np.random.default_rng(3).normal(size=(6, 5, 4))
    expected = np.ascontiguousarray(np.moveaxis(images.astype(np.float32), -1, 0))
    monkeypatch.setattr(sets, "_OLSHAUSEN_SHA256", hashlib.sha256(expected.tobytes()).hexdigest())
    if place == "folder":
        monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path))
        np.savez(tmp_path / "olshausen_whitened_images.npz", IMAGES=images)
    else:
        empty_cache.mkdir()
        scipy.io.savemat(empty_cache / "IMAGES.mat", {"IMAGES": images})
    np.testing.assert_array_equal(olshausen_images(), expected)


def test_olshausen_with_other_values_shape_or_name(empty_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path))
    path = tmp_path / "olshausen_whitened_images.npz"
    np.savez(path, IMAGES=np.zeros((512, 512, 10), np.float32))
    with pytest.raises(ValueError, match=rf"{path}: expected the values .*bdc7754847b8.* got [0-9a-f]{{64}}"):
        olshausen_images()
    np.savez(path, IMAGES=np.zeros((10, 512, 512), np.float32))
    with pytest.raises(ValueError, match=r"shape \(512, 512, 10\) .* got float32 of shape \(10, 512, 512\)"):
        olshausen_images()
    np.savez(path, pictures=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected a variable named IMAGES, got pictures"):
        olshausen_images()


def test_kodak_with_another_digest(empty_cache, tmp_path, monkeypatch):
    with pytest.raises(ConnectionError, match=r"kodim01\.png: not found .*r0k\.us"):
        kodak_images()
    monkeypatch.setenv("NEUROJAX_DATA", str(tmp_path))
    (tmp_path / "kodak").mkdir()
    Image.fromarray(np.zeros((512, 768, 3), np.uint8)).save(tmp_path / "kodak/kodim01.png")
    with pytest.raises(ValueError, match=r"kodim01\.png: expected .*SHA-256 a56e27cb.*, got [0-9a-f]{64}"):
        kodak_images()


def test_kodak_is_downloaded_by_its_digest(empty_cache, monkeypatch):
    wanted = []

    def refuse(url, known_hash, fname, path):
        wanted.append((url.rsplit("/", 1)[1], known_hash, fname, path.name))
        raise ConnectionRefusedError("no network here")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(ConnectionError):
        kodak_images()
    assert wanted == [("kodim01.png", sets.KODAK_SHA256["kodim01.png"], "kodim01.png", "kodak")]


@pytest.mark.skipif(not (DATA / "olshausen_whitened_images.npz").is_file(), reason="needs the 1996 images")
def test_real_olshausen_images():
    images = olshausen_images()
    assert images.shape == (10, 512, 512)
    assert images.dtype == jnp.float32
    variances = [0.0994, 0.0423, 0.0771, 0.0724, 0.2004, 0.0998, 0.0805, 0.0578, 0.0471, 0.0139]
    np.testing.assert_allclose(images.var(axis=(1, 2)), variances, atol=6e-5)


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "kodak/kodim24.png").is_file(), reason="needs the Kodak photographs")
def test_real_kodak_images():
    images = kodak_images()
    portraits = [number for number, image in enumerate(images, 1) if image.shape == (768, 512)]
    assert portraits == [4, 9, 10, 17, 18, 19]
    assert all(image.shape == (512, 768) for n, image in enumerate(images, 1) if n not in portraits)
    # The bundled mountain stream is a piece of photograph 13, to within its rounding to 8 bits.
    np.testing.assert_allclose(natural_images()[3], images[12][16:496, 144:624], atol=0.51 / 255)
    assert kodak_images(colour=True)[0].shape == (512, 768, 3)
