"""Pictures of autoencoders: colour on one scale, the diagram, spectra, sheets and planes of codes."""

import matplotlib

matplotlib.use("Agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from saved_figures import assert_drawn_alike

from neurojax import plotting

SHAPE = (4, 2, 3)
RNG = np.random.default_rng(0)
ATOMS = RNG.standard_normal((5, 24)) * np.array([1, 2, 3, 4, 5])[:, None]
CODES = RNG.standard_normal((9, 2))
LABELS = np.array([0, 1, 2, 0, 1, 2, 4, 4, 4])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    plt.close("all")  # what a test elsewhere left open
    return Figure().subplots()


def sheet(ax):
    return np.asarray(ax.images[0].get_array())


def cell(picture, index, n_columns, shape):
    row, column = divmod(index, n_columns)
    return picture[row * shape[0] : (row + 1) * shape[0], column * shape[1] : (column + 1) * shape[1]]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("atom_grid", (ATOMS, SHAPE)),
        ("reconstructions", (ATOMS, 0.9 * ATOMS, SHAPE)),
        ("image_sheet", (RNG.random((3, 5, 6, 3)),)),
        ("hourglass", ([784, 32, 784],)),
        ("latent_scatter", (CODES, LABELS)),
        ("manifold", (RNG.random((2, 3, 4, 5)),)),
        ("manifold", (RNG.random((2, 3, 4, 5, 3)),)),
        ("spectrum", ({"plain": RNG.random((6, 4)), "contractive": RNG.random(4)},)),
    ],
)
def test_each_draws_where_it_is_told_or_on_one_new_figure(ax, name, arguments):
    before = dict(plt.rcParams)
    draw = getattr(plotting, name)
    assert draw(*arguments, ax) is ax
    ax.figure.canvas.draw()
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before
    new = draw(*(jnp.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments))
    assert plt.get_fignums() == [new.figure.number]
    assert_drawn_alike(new, ax)


@pytest.mark.parametrize("scale", ["each", "common"])
def test_colour_atoms_have_zero_in_mid_grey_and_one_scale_for_their_colours(ax, scale):
    atoms = np.concatenate([ATOMS, np.zeros((1, 24))])
    plotting.atom_grid(atoms, SHAPE, ax, scale=scale, n_columns=4)
    picture = sheet(ax)
    assert picture.shape == (8, 8, 3)
    for i in range(5):
        limit = np.abs(ATOMS[i] if scale == "each" else ATOMS).max()
        expected = 0.5 + 0.5 * ATOMS[i].reshape(SHAPE) / limit
        np.testing.assert_allclose(cell(picture, i, 4, SHAPE), expected)
    assert np.all(cell(picture, 5, 4, SHAPE) == 0.5)
    assert np.all(cell(picture, 6, 4, SHAPE) == 1)


@pytest.mark.parametrize("is_signed", [True, False])
def test_colour_reconstructions_lie_below_their_originals_on_the_same_scale(ax, is_signed):
    originals = ATOMS if is_signed else np.abs(ATOMS)
    plotting.reconstructions(originals, 2 * originals, SHAPE, ax, n_columns=5)
    for i in range(5):
        pair = np.concatenate([originals[i].reshape(SHAPE), 2 * originals[i].reshape(SHAPE)])
        pair /= np.abs(originals[i]).max()
        expected = np.clip((pair + 1) / 2 if is_signed else pair, 0, 1)
        np.testing.assert_allclose(cell(sheet(ax), i, 5, (8, 2)), expected)


def test_colour_images_are_stretched_whole_and_the_rest_is_white(ax):
    images = [np.arange(72.0).reshape(4, 6, 3), 5 + np.arange(72.0).reshape(6, 4, 3)]
    plotting.image_sheet(images, ax, saturated=0, n_columns=2)
    first, second = (cell(sheet(ax), i, 2, (6, 6)) for i in range(2))
    np.testing.assert_allclose(first[1:5], images[0] / 71)
    assert np.all(first[[0, 5]] == 1)
    np.testing.assert_allclose(second[:, 1:5], (images[1] - 5) / 71)


def test_colour_images_on_a_common_scale(ax):
    images = RNG.random((3, 4, 5, 3)) * np.array([1, 2, 3])[:, None, None, None]
    plotting.image_sheet(images, ax, scale="common", saturated=0, n_columns=3)
    low, high = images.min(), images.max()
    for i in range(3):
        np.testing.assert_allclose(cell(sheet(ax), i, 3, (4, 5)), (images[i] - low) / (high - low))


def test_hourglass_has_a_column_a_layer_and_the_code_in_another_colour(ax):
    sizes = [784, 3, 20, 1, 784]
    plotting.hourglass(sizes, ax)
    lines, scatters = ax.collections[:4], ax.collections[4:]
    nodes, dots = scatters[::2], scatters[1::2]
    assert [len(c.get_offsets()) for c in nodes][1:4:2] == [3, 1]
    assert [len(c.get_offsets()) for c in dots] == [3, 0, 3, 0, 3]
    for i, column in enumerate(nodes):
        assert np.all(column.get_offsets()[:, 0] == i)
    for i, block in enumerate(lines):
        pairs = {(tuple(a), tuple(b)) for a, b in block.get_segments()}
        assert pairs == {
            (tuple(a), tuple(b)) for a in nodes[i].get_offsets() for b in nodes[i + 1].get_offsets()
        }
    # The larger the layer, the taller its column; no column is taller than the input's.
    heights = [np.ptp(c.get_offsets()[:, 1]) for c in nodes]
    assert heights[0] == heights[4] == 2 > heights[2] > heights[1] > heights[3] == 0
    colours = [tuple(c.get_facecolor()[0]) for c in nodes]
    assert colours[2] == to_rgba("#D55E00") and set(colours[:2] + colours[3:]) == {to_rgba("#0072B2")}
    words = ["784\ninput", "3\nhidden", "20\ncode", "1\nhidden", "784\noutput"]
    assert [text.get_text() for text in ax.texts] == words


def test_hourglass_is_narrow_in_proportion_to_its_code(ax):
    plotting.hourglass([784, 500, 784], ax)
    heights = [np.ptp(c.get_offsets()[:, 1]) for c in ax.collections[2::2]]
    assert heights[1] / heights[0] == pytest.approx(500 / 784, abs=0.06)


def test_hourglass_may_have_its_code_off_the_middle(ax):
    plotting.hourglass((9, 2, 5, 9), ax, code_layer=1)
    assert [text.get_text() for text in ax.texts][1:3] == ["2\ncode", "5\nhidden"]


def test_spectrum_is_the_mean_of_sorted_rows_without_zeros(ax):
    rows = np.array([[1.0, 4.0, 0.0], [2.0, 3.0, 0.0]])
    plotting.spectrum({"plain": rows, "flat": np.array([1.0, 2.0])}, ax)
    plain, flat = ax.lines
    np.testing.assert_array_equal(plain.get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(plain.get_ydata(), [3.5, 1.5, np.nan])
    np.testing.assert_array_equal(flat.get_xydata(), [[1, 2], [2, 1]])
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "mean singular value"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["plain", "flat"]


@pytest.mark.parametrize("colours", [(), (3,)])
def test_manifold_keeps_rows_columns_and_values(ax, colours):
    images = RNG.uniform(-0.5, 1.5, (2, 3, 4, 5, *colours))
    plotting.manifold(images, ax, limits=(-0.5, 1.5))
    expected = (images + 0.5) / 2 if colours else images
    for row in range(2):
        for column in range(3):
            np.testing.assert_allclose(cell(sheet(ax), 3 * row + column, 3, (4, 5)), expected[row, column])
    assert len(ax.collections) == 0 and (colours or ax.images[0].get_clim() == (-0.5, 1.5))


@pytest.mark.parametrize("n_classes", [5, 10, 23])
def test_latent_scatter_colours_classes_as_its_legend_says(ax, n_classes):
    labels = LABELS * (n_classes - 1) // 4
    names = [f"class {i}" for i in range(n_classes)]
    plotting.latent_scatter(CODES, labels, ax, names=names)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), CODES)
    legend = ax.get_legend()
    key = {
        text.get_text(): to_rgba(handle.get_color())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert set(key) == {names[label] for label in labels} and len(set(key.values())) == len(key)
    drawn = ax.collections[0].get_facecolor()[:, :3]
    np.testing.assert_allclose(drawn, [key[names[label]][:3] for label in labels])


def test_latent_scatter_writes_numbers_without_names(ax):
    plotting.latent_scatter(CODES, LABELS, ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["0", "1", "2", "4"]


IMAGES = np.zeros((2, 3, 4, 5))


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("atom_grid", (ATOMS, (4, 6, 1)), {}, r"patch_shape: expected .* for colour, got \(4, 6, 1\)"),
        ("atom_grid", (ATOMS, (24,)), {}, r"patch_shape: expected \(rows, columns\), or .*, got \(24,\)"),
        (
            "atom_grid",
            (ATOMS, (4, 3, 3)),
            {},
            r"atoms: expected rows of 4 x 3 pixels of 3 colours .*\(5, 24\)",
        ),
        (
            "gabor_fits",
            (ATOMS, ATOMS, SHAPE),
            {},
            r"patch_shape: expected \(rows, columns\), got \(4, 2, 3\)",
        ),
        (
            "reconstructions",
            (ATOMS, ATOMS[:, :12], SHAPE),
            {},
            "reconstructed: expected rows of 4 x 2 pixels",
        ),
        (
            "image_sheet",
            ([IMAGES[0]],),
            {},
            r"images\[0\]: expected 3 colours on axis 2, got shape \(3, 4, 5\)",
        ),
        ("image_sheet", ([IMAGES[0, ..., :3], IMAGES[0, 0]],), {}, r"images\[1\]: expected 3 axes"),
        ("hourglass", ([784, 2],), {}, "layer_sizes: expected at least three layers, got 2"),
        ("hourglass", ([784, 0, 784],), {}, r"layer_sizes\[1\]: expected a whole number ≥ 1, got 0"),
        ("hourglass", ([9, 4, 2, 9],), {}, "code_layer: expected a number, as 4 layers have no middle one"),
        ("hourglass", ([9, 4, 9],), {"code_layer": 2}, "code_layer: expected a layer from 1 to 1, got 2"),
        ("hourglass", ([9, 4, 9],), {"n_drawn": 3}, "n_drawn: expected a whole number ≥ 4, got 3"),
        ("spectrum", ({},), {}, "curves: expected at least one curve, got none"),
        ("spectrum", ({"a": IMAGES},), {}, r"curves\['a'\]: expected shape .*, got \(2, 3, 4, 5\)"),
        ("spectrum", ({"a": np.zeros((0, 3))},), {}, r"curves\['a'\]: .* neither 0, got \(0, 3\)"),
        (
            "spectrum",
            ({"a": np.array([1.0, -2.0])},),
            {},
            r"curves\['a'\]: expected finite numbers ≥ 0, got -2",
        ),
        ("spectrum", ({"a": np.array([1.0, np.nan])},), {}, r"curves\['a'\]: expected finite numbers ≥ 0"),
        ("manifold", (IMAGES[0],), {}, r"images: expected 4 axes .*, got shape \(3, 4, 5\)"),
        ("manifold", (IMAGES[..., None],), {}, r"images: expected 3 colours on axis 4, got shape"),
        ("manifold", (IMAGES[:0],), {}, r"images: expected at least one image.*, got shape \(0, 3, 4, 5\)"),
        ("manifold", (IMAGES,), {"limits": (1.0, 1.0)}, r"limits: expected .*, got \(1\.0, 1\.0\)"),
        ("latent_scatter", (IMAGES[0, 0], LABELS), {}, r"codes: expected 2 coordinates on axis 1.*\(4, 5\)"),
        ("latent_scatter", (CODES, LABELS[:3]), {}, r"labels: expected shape \(9,\), one for each code, got"),
        ("latent_scatter", (CODES[:0], LABELS[:0]), {}, "codes: expected at least one sample, got none"),
        ("latent_scatter", (CODES, LABELS - 1), {}, "labels: expected classes ≥ 0, got -1 to 3"),
        (
            "latent_scatter",
            (CODES, LABELS),
            {"names": "abcd"},
            "labels: .* below 4, the number of names, got 0",
        ),
    ],
)
def test_bad_input_is_named_before_anything_is_drawn(untyped, name, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(plotting, name)(*arguments, **options)
    assert plt.get_fignums() == []
