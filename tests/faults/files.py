"""Faults of reading people's own files and of saving models, each beside the right value."""

import dataclasses
import sys
import warnings

import jax
import numpy as np
import pytest
import scipy.io
from PIL import Image

from neurojax import data, runs
from neurojax.cli import _decode_settings, _encode_settings
from neurojax.cli._neural_data import read_responses
from neurojax.cli._rbm_settings import Settings as RbmSettings
from neurojax.cli._settings import _check_changes, decisive, describe_rows, from_plain, read_rows_file
from neurojax.cli._sparse_coding_settings import Data, Model, name_of_images, read_images, with_patch_size
from neurojax.runs import plain_settings

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(36)
GRAY = RANDOM.random((7, 9)).astype(np.float32)
COLORS = RANDOM.integers(0, 256, (7, 9, 3), dtype=np.uint8)
WEIGHTS = np.array([0.299, 0.587, 0.114])
DEEP = np.array([[0, 65535], [257, 32768]], np.uint16)
CLEAR = np.array([[[0, 0, 0, 255], [0, 0, 0, 0]], [[255, 0, 0, 255], [0, 0, 0, 51]]], np.uint8)


def _palette():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 0, 0, 255])
    image.info["transparency"] = 0
    return image


IMAGES = {  # what is written, its luminance, and what is said of it
    "deep.png": (lambda: Image.fromarray(DEEP), DEEP / 65535, "16-bit values divided by 65535"),
    "deep.tif": (lambda: Image.fromarray(DEEP), DEEP / 65535, "16-bit values divided by 65535"),
    "whole.tif": (lambda: Image.fromarray(DEEP.astype(np.int32)), DEEP / 65535, "16-bit values"),
    "float.tif": (lambda: Image.fromarray(GRAY - 2), GRAY - 2, "floating-point values kept"),
    "clear.png": (lambda: Image.fromarray(CLEAR), [[0, 1], [0.299, 0.8]], "transparent pixels laid on white"),
    "gray.png": (
        lambda: Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), "LA"),
        [[0, 1]],
        "transparent pixels laid on white",
    ),
    "palette.png": (_palette, [[1, 0.114]], "transparent pixels laid on white"),
    "opaque.png": (lambda: Image.fromarray(COLORS).convert("RGBA"), COLORS / 255 @ WEIGHTS, None),
    "color.jpg": (lambda: Image.new("RGB", (9, 7), (255, 255, 255)), np.ones((7, 9)), None),
}


def _said(read):
    """Return what was read, and the one warning or None."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = read()
    texts = [str(w.message) for w in caught if w.category is UserWarning]
    assert len(texts) < 2
    return value, texts[0] if texts else None


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_C36_images_of_16_bits_and_transparent_ones_are_converted_with_a_word(tmp_path, name):
    make, expected, message = IMAGES[name]
    make().save(tmp_path / name)
    loaded, said = _said(lambda: data.load_images(tmp_path))
    np.testing.assert_allclose(loaded[0], expected, atol=1e-6)
    assert (said is None) == (message is None)
    if message is not None:
        assert said.startswith(f"{tmp_path}: converted 1 of 1 images: {message}")
    one, of_one = _said(lambda: data.load_images(tmp_path / name))
    np.testing.assert_array_equal(one, loaded)
    assert (of_one is None) == (message is None)


def test_C36_a_folder_of_odd_images_has_one_warning_and_the_size_and_color_of_each(tmp_path):
    for number in range(3):
        Image.fromarray(DEEP).save(tmp_path / f"{number}.png")
    Image.fromarray(CLEAR).save(tmp_path / "3.png")
    loaded, said = _said(lambda: data.load_images(tmp_path))
    assert loaded.shape == (4, 2, 2) and "3 of 4 images: 16-bit" in said and "1 of 4 images: tr" in said
    folder, said = _said(lambda: data.ImageFolder(tmp_path))
    assert folder.sizes.tolist() == [[2, 2]] * 4 and "3 of 4 images: 16-bit" in said
    np.testing.assert_array_equal(np.stack([folder[i] for i in range(4)]), loaded)


STACK = RANDOM.random((6, 7, 9)).astype(np.float32)
HUES = RANDOM.random((6, 7, 9, 3)).astype(np.float32)
LAYOUTS = {  # what is in the file, the images, and what is said of them
    "stack": (STACK, STACK, None),
    "one": (STACK[0], STACK[:1], None),
    "bytes": (COLORS[..., 0], COLORS[None, ..., 0] / 255, None),
    "shorts": (DEEP, DEEP[None] / 65535, None),
    "truth": (STACK > 0.5, (STACK > 0.5).astype(float), None),
    "color": (COLORS, (COLORS / 255 @ WEIGHTS)[None], "1 of 1 images: color to luminance"),
    "colors": (HUES, HUES @ WEIGHTS, "6 of 6 images: color to luminance"),
    "last": (STACK[..., None], STACK, "6 of 6 images: the last axis of 1 dropped"),
    "opacity": (
        np.concatenate([HUES, np.full((6, 7, 9, 1), 0.25, np.float32)], -1),
        HUES @ WEIGHTS / 4 + 0.75,
        "transparent pixels laid on white",
    ),
    "four columns": (STACK[:, :4, :4], STACK[:, :4, :4], None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_C36_arrays_of_every_layout_are_read_as_images(tmp_path, name):
    array, expected, message = LAYOUTS[name]
    np.save(tmp_path / "a.npy", array)
    loaded, said = _said(lambda: data.load_images(tmp_path / "a.npy"))
    np.testing.assert_allclose(loaded, expected, atol=1e-6)
    assert (said is None) == (message is None) and (said is None or message in said)


def test_C36_matlab_color_images_are_read_and_three_images_are_said(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.moveaxis(HUES, 0, -1), "label": "leaves"})
    np.testing.assert_allclose(data.load_images(tmp_path / "a.mat"), HUES @ WEIGHTS, atol=1e-6)
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.moveaxis(STACK[:3], 0, -1)})
    loaded, said = _said(lambda: data.load_images(tmp_path / "a.mat"))
    np.testing.assert_array_equal(loaded, STACK[:3])
    assert "read as 3 images of 7 × 9" in said and "rgb2gray(x)" in said
    scipy.io.savemat(tmp_path / "a.mat", {"x": COLORS})  # as imread returns it
    loaded, said = _said(lambda: data.load_images(tmp_path / "a.mat"))
    np.testing.assert_allclose(loaded[0], COLORS / 255 @ WEIGHTS, atol=1e-6)
    assert "1 of 1 images: color to luminance" in said


def test_C36_one_of_several_arrays_is_chosen_by_name(tmp_path):
    arrays = {"left": STACK, "right": 2 * STACK, "labels": np.arange(6)}
    np.savez(tmp_path / "a.npz", **arrays)
    scipy.io.savemat(tmp_path / "a.mat", {name: array.T for name, array in arrays.items()})
    for suffix in ("npz", "mat"):
        path = tmp_path / f"a.{suffix}"
        with pytest.raises(ValueError, match=r'left \(.*right \(.*name="left" .*--array left'):
            data.load_images(path)
        loaded = np.asarray(data.load_images(path, name="right"))
        assert np.array_equal(loaded if suffix == "npz" else np.swapaxes(loaded, 1, 2), 2 * STACK)
        with pytest.raises(ValueError, match=r"an array called 'top', got left"):
            data.load_images(path, name="top")
        assert data.read_array(path, n_axes=(1,)).size == 6  # the labels
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(ValueError, match="name applies to"):
        data.load_images(tmp_path / "a.npy", name="left")


def _write_hdf5(path, **arrays):
    """Write arrays as MATLAB 7.3 does: behind a header of 512 bytes, with axes in reverse."""
    h5py = pytest.importorskip("h5py")
    kinds = {"float64": "double", "float32": "single", "uint8": "uint8", "bool": "logical"}
    with h5py.File(path, "w", userblock_size=512) as store:
        for name, array in arrays.items():
            stored = array.astype(np.uint8) if array.dtype == bool else array
            store.create_dataset(name, data=stored.T, compression="gzip")
            store[name].attrs["MATLAB_class"] = np.bytes_(kinds[str(array.dtype)])
        store["text"] = np.frombuffer("leaf".encode("utf-16-le"), np.uint16)[:, None]
        store["text"].attrs["MATLAB_class"] = np.bytes_("char")
        store.create_group("settings")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM")


def test_C36_matlab_7_3_is_read_or_says_what_to_type(tmp_path, monkeypatch):
    path = tmp_path / "new.mat"
    _write_hdf5(path, images=STACK.transpose(1, 2, 0), mask=STACK[0] > 0.5)
    came = data.read_arrays(path)
    assert came.keys() == {"images", "mask"} and came["mask"].dtype == bool
    np.testing.assert_array_equal(came["mask"], STACK[0] > 0.5)
    np.testing.assert_array_equal(data.load_images(path), STACK)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match=r"HDF5: pip install h5py, .*save\('file.mat', 'name', '-v7'\)"):
        data.load_images(path)


def test_C36_no_memory_is_taken_for_what_matlab_7_3_announces(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.mat", "w") as store:
        store.create_dataset("x", (10**6, 10**6), "f8", chunks=(64, 64), compression="gzip")
    with pytest.raises(ValueError, match=r"a\.mat: .*arrays of at most \d+ bytes in all, got 8000000000000"):
        data.read_arrays(tmp_path / "a.mat")
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "a.mat", "w") as store:
        store.create_dataset("x", (8,), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
        store["y"] = h5py.ExternalLink("other.h5", "y")
    with pytest.raises(ValueError, match=r"expected an array of numbers, got x .*, y \(a link\)"):
        data.read_arrays(tmp_path / "a.mat")


NAN = float("nan")
ROWS = [[1.5, 2.0], [NAN, -3.0]]
TABLES = {  # a name and its text; all hold the same trials
    "plain.csv": "angle,n1,n2\n0,1.5,2\n90,,-3\n",
    "crlf.csv": "\ufeffDirection,n1,n2\r\n0,1.5,2\r\n\r\n90,NaN,-3\r\n",
    "quoted.csv": '"n1","Theta","n2"\n"1.5","0","2"\nNA,90,-3\n',
    "tabs.tsv": "n1\tn2\tangles_degrees\n1.5\t2\t0\nn/a\t-3\t90",
    "commas.csv": "angle;n1;n2\n0;1,5;2,0\n90;;-3\n",
    "pandas.csv": ",orientation,n1,n2\n0,0,1.5,2\n1,90,,-3\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_C36_tables_of_responses(tmp_path, name):
    path = tmp_path / name
    path.write_text(TABLES[name], encoding="utf-8", newline="")
    table, said = _said(lambda: data.load_responses(path))
    np.testing.assert_array_equal(table.responses, np.array(ROWS, np.float32))
    assert table.angles_degrees.tolist() == [0, 90] and table.neurons == ("n1", "n2")
    words = {"commas.csv": "decimal commas", "pandas.csv": "no name, is left out"}
    assert (said is None) == (name not in words) and (said is None or words[name] in said)


BAD_TABLES = {  # the text, the settings, and what is said
    "word": (
        "angle,n1\n0,one\n",
        {},
        r"line 2, column 'n1': expected a number, got 'one'; .*leave_out=",
    ),
    "id": ("angle,cell,n1\n0,b7,1\n", {}, r"line 2, column 'cell': .*--leave-out cell"),
    "no header": (
        "0,1\n90,2\n",
        {},
        r"header line .*got numbers \(0, 1\); add .*such as angle,n1,n2",
    ),
    "no angle": (
        "a,b\n0,1\n",
        {},
        r"column called 'angle', got a, b; .*angle=\"NAME\" .*--angle-column",
    ),
    "other angle": ("a,b\n0,1\n", {"angle": "c"}, r"column called 'c', got a, b"),
    "two angles": ("angle,theta,n1\n0,1,2\n", {}, r"choose the one of the angle"),
    "short": ("angle,n1\n0\n", {}, r"line 2: expected 2 cells, as in the header, got 1"),
    "nan angle": ("angle,n1\n0,1\n,2\n", {}, r"line 3, column 'angle': expected a finite angle, got ''"),
    "twice": ("angle,n1,n1\n0,1,2\n", {}, r"one column of each name, got 2 called 'n1'"),
    "alone": ("angle\n0\n", {}, r"expected columns of neurons beside angle, got none"),
    "empty": ("", {}, r"expected a header line, got an empty file"),
    "no trial": ("angle,n1\n", {}, r"a line for each trial"),
    "open": ('angle,n1\n0,"1\n', {}, r"line 2: .*quotation marks"),
    "leave": ("angle,n1\n0,1\n", {"leave_out": ["x"]}, r"columns called \['x'\] to leave out"),
    "array": ("angle,n1\n0,1\n", {"responses": "x"}, r"responses applies to \.npz and \.mat"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_C36_tables_that_cannot_be_read_say_where_and_what_to_type(tmp_path, name):
    text, settings, message = BAD_TABLES[name]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as raised:
        data.load_responses(tmp_path / "t.csv", **settings)
    assert "t.csv" in str(raised.value)


def test_C36_responses_from_arrays(tmp_path):
    responses, angles = RANDOM.random((5, 3)).astype(np.float32), np.arange(5) * 72.0
    np.savez(tmp_path / "a.npz", responses=responses, angles_degrees=angles)
    scipy.io.savemat(tmp_path / "a.mat", {"spikes": responses, "Theta": angles})  # angles become (1, 5)
    for name in ("a.npz", "a.mat"):
        table = data.load_responses(tmp_path / name)
        np.testing.assert_array_equal(table.responses, responses)
        np.testing.assert_array_equal(table.angles_degrees, angles.astype(np.float32))
        assert table.neurons == ("0", "1", "2")
    np.savez(tmp_path / "b.npz", a=responses, b=responses.T, shown=angles)
    with pytest.raises(ValueError, match=r"called angles_degrees, got a \(5, 3\).*angle=\"NAME\""):
        data.load_responses(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"called responses, got a .*responses=\"NAME\""):
        data.load_responses(tmp_path / "b.npz", angle="shown")
    with pytest.raises(ValueError, match=r"an angle for each of 3 trials in b, got 5; transpose it, b\.T"):
        data.load_responses(tmp_path / "b.npz", angle="shown", responses="b")


def test_C36_decode_and_encode_read_tables(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("cell,seen,n1,n2\na,0,1,2\nb,90,0,4\nc,180,3,5\n")
    flags = {"data": str(tmp_path / "t.csv"), "angle_column": "seen", "leave_out": ("cell",)}
    for module in (_decode_settings, _encode_settings):
        recording = module.check(module.Settings(data=module.Data(**flags)))
        read = read_responses(recording, KEY)
        np.testing.assert_array_equal(read.responses, [[1, 2], [0, 4], [3, 5]])
        np.testing.assert_array_equal(read.angles_degrees, [0, 90, 180])
        assert capsys.readouterr().out == "data: 3 trials of 2 neurons, angles 0° to 180°\n"
        with pytest.raises(ValueError, match="angle_column: expected None"):
            module.check(module.Settings(data=module.Data(angle_column="seen")))
        with pytest.raises(ValueError, match=r"\.csv, \.tsv, \.npz or \.mat file, got a\.xlsx"):
            module.check(module.Settings(data=module.Data(data="a.xlsx")))
    (tmp_path / "t.csv").write_text("cell,seen,n1,n2\na,0,1,2\nb,90,,4\n")
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 2 neurons \(0\); --drop-constant"):
        read_responses(recording, KEY)


def test_C36_patches_are_not_read_as_one_photograph(tmp_path, capsys):
    path = tmp_path / "patches.npy"
    np.save(path, RANDOM.normal(size=(24, 64)).astype(np.float32))
    with pytest.raises(ValueError) as raised:
        read_images(Data(data=str(path)))
    for line in (
        f"--data {path} --layout patches    for 24 patches of 8 × 8",
        f"--data {path} --layout images     for one image of 24 × 64",
    ):
        assert line in str(raised.value)
    settings = Data(data=str(path), layout="patches")
    patches = read_images(settings)
    np.testing.assert_array_equal(np.asarray(patches).reshape(24, 64), np.load(path))
    out = capsys.readouterr().out
    assert out.startswith("data: 24 patches of 8 × 8, ") and "not whitened" in out
    assert name_of_images(settings) == "patches.npy"
    assert with_patch_size(Model(), patches, settings).patch_size == 8
    with pytest.raises(ValueError, match=r"patch_size: expected 8, .* got 12"):
        with_patch_size(Model(patch_size=12), patches, settings)
    with pytest.raises(ValueError, match="whitening: expected auto or none for patches"):
        read_images(Data(data=str(path), layout="patches", whitening="1996"))
    assert read_images(Data(data=str(path), layout="images", whitening="none"))[0].shape == (24, 64)
    assert capsys.readouterr().out.startswith("data: 1 image of 24 × 64, ")
    np.save(path, STACK)  # three axes are images
    assert len(read_images(Data(data=str(path), whitening="none"))) == 6
    with pytest.raises(ValueError, match=r"layout: applies to a file"):
        read_images(Data(layout="patches"))


def test_C36_rows_of_every_kind_are_read_by_the_commands(tmp_path):
    rows = RANDOM.integers(0, 65536, (16, 6)).astype(np.uint16)
    rows[0, 0] = 65535
    np.savez(tmp_path / "a.npz", rows=rows, other=rows > 99)
    scipy.io.savemat(tmp_path / "a.mat", {"rows": rows, "labels": np.arange(16)})
    with pytest.raises(ValueError, match=r"rows \(16, 6\), other \(16, 6\); .*--array rows"):
        read_rows_file(tmp_path / "a.npz", ())
    for came in (
        read_rows_file(tmp_path / "a.npz", (), name="rows"),
        read_rows_file(tmp_path / "a.mat", ()),
    ):
        np.testing.assert_allclose(came, rows / 65535, rtol=1e-6)
    np.testing.assert_array_equal(read_rows_file(tmp_path / "a.npz", (), name="other"), rows > 99)
    assert describe_rows([rows[:4], rows[4:]]) == f"16 rows of 6 values, {rows.min():.3g} to 6.55e+04"


def test_C36_the_settings_of_an_older_run_take_the_defaults_of_newer_settings():
    plain = plain_settings(RbmSettings())
    del plain["data"]["array"]
    assert from_plain(RbmSettings, plain, "config.json") == RbmSettings()
    _check_changes(RbmSettings(), plain, ("devices",))
    named = RbmSettings(data=dataclasses.replace(RbmSettings().data, array="x"))
    with pytest.raises(ValueError, match="array None → 'x'"):
        _check_changes(named, plain, ("devices",))
    # The checkpoints of that run fit too.
    assert "array" not in decisive(RbmSettings())["data"] and decisive(named)["data"]["array"] == "x"
    with pytest.raises(ValueError, match="expected the settings"):
        from_plain(RbmSettings, plain | {"unknown": 1}, "config.json")


@pytest.mark.parametrize("save", [runs.save, runs.save_arrays])
def test_C37_models_that_could_not_be_loaded_are_refused_by_name(tmp_path, save):
    for leaf, message in (
        (np.zeros(3, [("a", "i4"), ("b", "f8")]), r"model.*layers.*a.*b"),
        (
            np.ma.masked_array(np.zeros(3), [1, 0, 0]),
            r"model\['layers'\]\[0\]: .*without a mask",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "model.npz", {"layers": [leaf]})
    assert not list(tmp_path.iterdir())
