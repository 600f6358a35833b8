"""Pictures: the Axes that was given comes back, and what it shows is the data."""

import matplotlib

matplotlib.use("Agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from saved_figures import assert_drawn_alike

from neurojax import plotting

SHAPE = (4, 3)
RNG = np.random.default_rng(0)
ATOMS = RNG.standard_normal((7, 12))
CODES = RNG.standard_normal((9, 20)) * (RNG.random((9, 20)) < 0.2)
X = np.linspace(-3, 3, 61)
TIMES = np.arange(5.0)
DEGREES = np.array([0.0, 90.0, 180.0, 270.0])

CALLS = {
    "active_units": (CODES,),
    "atom_grid": (ATOMS, SHAPE),
    "code_histogram": (CODES,),
    "code_raster": (CODES,),
    "code_stem": (CODES[0],),
    "confusion": (np.array([[3, 1], [0, 2]]),),
    "decoded_against_true": (DEGREES, DEGREES[::-1]),
    "decoded_on_circle": (DEGREES, DEGREES[::-1]),
    "error_against_angle": (DEGREES, DEGREES / 2),
    "error_histogram": (DEGREES / 2,),
    "filter_pairs": (ATOMS.reshape(7, *SHAPE), 0.9 * ATOMS.reshape(7, *SHAPE)),
    "gabor_fits": (ATOMS, 0.9 * ATOMS, SHAPE),
    "gabor_shapes": (np.array([0.2, 0.3]), np.array([0.4, 0.5])),
    "history": (np.arange(10), np.linspace(2, 1, 10)),
    "hourglass": ([256, 100, 256],),
    "image_sheet": (RNG.random((3, 5, 6)),),
    "latent_scatter": (np.eye(2), np.array([0, 3])),
    "lca_trajectories": (TIMES, RNG.standard_normal((5, 4))),
    "manifold": (np.eye(6).reshape(3, 2, 3, 2),),
    "network_diagram": (256, 100),
    "orientation_frequency": (np.array([0.0, 90.0]), np.array([0.1, 0.2])),
    "penalties": (X, {"|x|": np.abs(X)}),
    "reconstructions": (ATOMS, 0.9 * ATOMS, SHAPE),
    "regularization_path": (np.array([0.1, 1.0]), np.array([0.5, 0.6])),
    "response_matrix": (RNG.standard_normal((4, 5)), DEGREES),
    "score_comparison": (["ridge", "network"], np.array([0.8, 0.7]), np.array([0.013, 0.024])),
    "spectrum": ({"plain": np.array([[2.0, 1.0], [0.5, 3.0]])},),
    "thresholds": (X, {"soft": np.sign(X) * np.maximum(np.abs(X) - 1, 0)}),
    "tuning_curves": (DEGREES, RNG.random((2, 4))),
    "tuning_grid": (DEGREES, RNG.random((3, 4)), RNG.random((3, 4))),
    "unit_activity": (CODES,),
    "weight_matrix": (ATOMS,),
}
WITHOUT_AXES = {
    "atom_grid", "filter_pairs", "gabor_fits", "hourglass", "image_sheet", "manifold", "network_diagram",
    "reconstructions",
}  # fmt: skip


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return Figure().subplots()


def sheet(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def cell(picture, index, n_columns, shape):
    row, column = divmod(index, n_columns)
    return picture[row * shape[0] : (row + 1) * shape[0], column * shape[1] : (column + 1) * shape[1]]


def test_every_picture_is_tested():
    assert set(CALLS) == set(plotting.__all__)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_each_returns_its_axes_drawn_and_labelled_and_leaves_pyplot_alone(name, ax):
    before = dict(plt.rcParams)
    assert getattr(plotting, name)(*CALLS[name], ax) is ax
    ax.figure.canvas.draw()
    assert ax.has_data() or ax.patches or ax.collections or ax.child_axes
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before
    if name not in WITHOUT_AXES:
        assert ax.get_xlabel()
    if name not in WITHOUT_AXES | {"decoded_on_circle", "orientation_frequency", "score_comparison"}:
        assert ax.get_ylabel()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_without_axes_each_makes_one_new_figure_and_takes_jax_arrays(name, ax):
    arguments = [jnp.asarray(value) if isinstance(value, np.ndarray) else value for value in CALLS[name]]
    new = getattr(plotting, name)(*arguments)
    assert plt.get_fignums() == [new.figure.number]
    assert_drawn_alike(new, getattr(plotting, name)(*CALLS[name], ax))


def test_atom_grid_scales_each_atom_by_its_own_peak(ax):
    atoms = np.concatenate([ATOMS, np.zeros((1, 12))])
    plotting.atom_grid(atoms, SHAPE, ax)
    picture = sheet(ax)
    for i in range(7):
        expected = (ATOMS[i] / np.abs(ATOMS[i]).max()).reshape(SHAPE)
        np.testing.assert_allclose(cell(picture, i, 3, SHAPE), expected)
    assert np.all(cell(picture, 7, 3, SHAPE) == 0)
    assert np.all(np.isnan(cell(picture, 8, 3, SHAPE)))
    assert ax.images[0].get_clim() == (-1, 1)


def test_atom_grid_on_a_common_scale_shows_the_atoms_themselves(ax):
    plotting.atom_grid(ATOMS, SHAPE, ax, scale="common", n_columns=7)
    for i in range(7):
        np.testing.assert_allclose(cell(sheet(ax), i, 7, SHAPE), ATOMS[i].reshape(SHAPE))
    limit = np.abs(ATOMS).max()
    assert ax.images[0].get_clim() == (-limit, limit)
    assert ax.get_aspect() == 1


def test_gabor_fits_share_the_scale_of_their_atom_and_name_r_squared(ax):
    plotting.gabor_fits(ATOMS, 0.5 * ATOMS, SHAPE, ax, r_squared=np.linspace(0.1, 0.7, 7), n_columns=7)
    pair = cell(sheet(ax), 2, 7, (2 * SHAPE[0] + 3, SHAPE[1]))
    expected = (ATOMS[2] / np.abs(ATOMS[2]).max()).reshape(SHAPE)
    np.testing.assert_allclose(pair[:4], expected)
    np.testing.assert_allclose(pair[4:8], 0.5 * expected)
    assert [text.get_text() for text in ax.texts][:2] == ["0.10", "0.20"]


def test_orientation_is_the_angle_and_frequency_the_radius(ax):
    plotting.orientation_frequency(np.array([0.0, 90.0, 135.0]), np.array([0.1, 0.2, 0.3]), ax)
    points = ax.collections[0].get_offsets()
    half = 0.3 / np.sqrt(2)
    np.testing.assert_allclose(points, [[0.1, 0], [0, 0.2], [-half, half]], atol=1e-12)
    texts = {text.get_text() for text in ax.texts}
    assert {"0°", "90°", "180°", "0.3"} <= texts
    places = {text.get_text(): text.get_position() for text in ax.texts}
    np.testing.assert_allclose(places["0°"], (0.321, 0), atol=1e-9)
    np.testing.assert_allclose(places["90°"], (0, 0.321), atol=1e-9)
    np.testing.assert_allclose(places["0.3"], (0.3, -0.009), atol=1e-9)
    assert "cycles per pixel" in ax.get_xlabel()


def test_reconstructions_lie_below_their_originals_on_the_same_scale(ax):
    plotting.reconstructions(ATOMS, 0.5 * ATOMS, SHAPE, ax, n_columns=4)
    pair = cell(sheet(ax), 5, 4, (2 * SHAPE[0], SHAPE[1]))
    expected = (ATOMS[5] / np.abs(ATOMS[5]).max()).reshape(SHAPE)
    np.testing.assert_allclose(pair, np.concatenate([expected, 0.5 * expected]))
    assert ax.images[0].get_clim() == (-1, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["original", "reconstruction"] * 2


def test_reconstructions_of_unsigned_images_start_at_black(ax):
    plotting.reconstructions(np.abs(ATOMS), np.abs(ATOMS), SHAPE, ax)
    assert ax.images[0].get_clim() == (0, 1)


def test_image_sheet_stretches_each_image_and_centres_smaller_ones(ax):
    images = [np.arange(24.0).reshape(4, 6), 5 + np.arange(24.0).reshape(6, 4)]
    plotting.image_sheet(images, ax, saturated=0, n_columns=2)
    first, second = (cell(sheet(ax), i, 2, (6, 6)) for i in range(2))
    np.testing.assert_allclose(first[1:5], images[0] / 23)
    assert np.all(np.isnan(first[[0, 5]]))
    np.testing.assert_allclose(second[:, 1:5], (images[1] - 5) / 23)


def test_image_sheet_on_a_common_scale_keeps_the_values(ax):
    images = np.stack([np.zeros((3, 3)), np.full((3, 3), 2.0)])
    plotting.image_sheet(images, ax, scale="common", saturated=0)
    assert ax.images[0].get_clim() == (0, 2)
    np.testing.assert_array_equal(sheet(ax), np.repeat([[0.0, 2.0]], 3, axis=1).repeat(3, axis=0))


def test_code_raster_shows_the_codes_symmetrically_about_zero(ax):
    plotting.code_raster(CODES, ax)
    np.testing.assert_array_equal(sheet(ax), CODES)
    low, high = ax.images[0].get_clim()
    assert low == -high == -np.percentile(np.abs(CODES[CODES != 0]), 99)
    plotting.code_raster(np.zeros((2, 3)), ax)


def test_code_stem_draws_the_active_units_only(ax):
    plotting.code_stem(CODES[0], ax, reference=2 * CODES[0])
    units = np.flatnonzero(CODES[0])
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([units, CODES[0][units]], 1))
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), 2 * CODES[0][units])
    assert f"{len(units)} of 20 active" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_code_histogram_holds_the_share_that_is_not_zero(ax):
    plotting.code_histogram(CODES, ax, n_bins=11)
    density, edges, _ = ax.patches[0].get_data()
    assert np.sum(density * np.diff(edges)) == pytest.approx(np.mean(CODES != 0))
    assert edges[0] == -edges[-1] and ax.get_yscale() == "log"
    points, bell = ax.lines[0].get_data()
    np.testing.assert_allclose(bell, scipy.stats.norm.pdf(points, 0, np.sqrt(np.mean(CODES**2))))
    assert f"{100 * np.mean(CODES == 0):.1f} % are zero" in [text.get_text() for text in ax.texts]


def test_active_units_counts_samples(ax):
    plotting.active_units(CODES, ax)
    counts = np.count_nonzero(CODES, axis=1)
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    assert heights == {n: np.sum(counts == n) for n in range(counts.min(), counts.max() + 1)}
    assert ax.get_legend().get_texts()[0].get_text() == f"mean {counts.mean():.1f} of 20"


def test_unit_activity_is_sorted_and_names_the_dead(ax):
    codes = np.array([[0, 1.0, 0], [0, 1.0, -1.0]])
    plotting.unit_activity(codes, ax)
    assert [bar.get_height() for bar in ax.patches[:3]] == [100, 50, 0]
    assert "1 never active" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_thresholds_are_broken_at_a_jump_and_nowhere_else(ax):
    hard = X * (np.abs(X) > 1.05)
    soft = np.sign(X) * np.maximum(np.abs(X) - 1, 0)
    plotting.thresholds(X, {"hard": hard, "soft": soft}, ax)
    identity, broken, whole = ax.lines
    np.testing.assert_array_equal(identity.get_ydata(), X)
    drawn = broken.get_ydata()
    assert np.sum(np.isnan(drawn)) == 2
    np.testing.assert_array_equal(drawn[~np.isnan(drawn)], hard)
    np.testing.assert_array_equal(whole.get_ydata(), soft)


def test_history_smooths_by_means_of_neighbours(ax):
    steps, losses = np.arange(10, 60, 10), np.array([5.0, 3.0, 4.0, 2.0, 0.0])
    plotting.history(steps, losses, ax, evaluation=([10, 50], [6.0, 1.0]), smoothing=3, quantity="energy")
    raw, smooth, held_out = ax.lines
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    np.testing.assert_allclose(smooth.get_xydata(), [[20, 4], [30, 3], [40, 2]])
    np.testing.assert_array_equal(held_out.get_ydata(), [6, 1])
    assert ax.get_ylabel() == "energy" and ax.get_xlabel() == "step"


def test_penalties_are_drawn_as_they_are_with_their_names(ax):
    plotting.penalties(X, {"|x|": np.abs(X), "x²": X**2}, ax)
    for line, values in zip(ax.lines, (np.abs(X), X**2), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([X, values], axis=1))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["|x|", "x²"]


def test_gabor_shapes_lie_around_the_diagonal_within_the_limits(ax):
    across, along = np.array([0.2, 0.5, np.nan]), np.array([0.4, 2.0, 1.0])
    plotting.gabor_shapes(across, along, ax)
    points = np.ma.filled(ax.collections[0].get_offsets(), np.nan)
    np.testing.assert_array_equal(points[:2], [[0.2, 0.4], [0.5, 2.0]])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0], [2.16, 2.16]])
    np.testing.assert_allclose(ax.get_xlim() + ax.get_ylim(), [0, 2.16, 0, 2.16])


def test_lca_trajectories_mark_the_threshold_and_the_units_beyond_it(ax):
    values = np.array([[0, 0, 0], [0.2, -0.6, 0.9]])
    plotting.lca_trajectories(np.array([0.0, 10.0]), values, ax, threshold=0.5)
    assert sorted(line.get_ydata()[0] for line in ax.lines[-2:]) == [-0.5, 0.5]
    assert [text.get_text() for text in ax.texts] == [" 2", " 1", "threshold"]
    assert ax.get_xlabel() == "time (ms)"


@pytest.mark.parametrize(("number", "nodes", "dots"), [(100, 6, 3), (5, 5, 0), (1, 1, 0)])
def test_network_diagram_abridges_large_layers(ax, number, nodes, dots):
    plotting.network_diagram(4, number, ax, has_competition=True)
    scatters = [len(c.get_offsets()) for c in ax.collections[1:]]
    assert scatters == [4, 0, nodes, dots]
    assert len(ax.collections[0].get_segments()) == 4 * nodes
    assert len(ax.patches) == nodes - 1
    assert f"{number} units" in [text.get_text() for text in ax.texts]


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("atom_grid", (ATOMS, (5, 3)), {}, r"atoms: expected rows of 5 x 3 pixels .*, got shape \(7, 12\)"),
        ("atom_grid", (ATOMS[0], SHAPE), {}, r"atoms: expected 2 axes \(atoms features\), got shape \(12,\)"),
        ("atom_grid", (ATOMS[:0], SHAPE), {}, "atoms: expected at least one row, got none"),
        ("atom_grid", (ATOMS, SHAPE), {"scale": "all"}, 'scale: expected "each" or "common", got \'all\''),
        ("atom_grid", (ATOMS, SHAPE), {"n_columns": 0}, "n_columns: expected a whole number ≥ 1, got 0"),
        ("gabor_fits", (ATOMS, ATOMS[:3], SHAPE), {}, r"fitted: expected 7 fits.*, got shape \(3, 4, 3\)"),
        ("reconstructions", (ATOMS, ATOMS[:, :6], SHAPE), {}, "reconstructed: expected rows of 4 x 3 pixels"),
        ("reconstructions", (ATOMS, ATOMS[:3], SHAPE), {}, "reconstructed: expected 7 patches"),
        ("image_sheet", ([],), {}, "images: expected at least one image"),
        ("image_sheet", ([ATOMS, ATOMS[0]],), {}, r"images\[1\]: expected 2 axes"),
        ("image_sheet", ([ATOMS],), {"saturated": 0.5}, "saturated: expected a share in"),
        ("code_raster", (CODES[0],), {}, r"codes: expected 2 axes \(samples units\), got shape \(20,\)"),
        ("code_raster", (CODES,), {"limit": 0.0}, "limit: expected a number > 0, got 0.0"),
        ("code_histogram", (CODES[:0],), {}, "codes: expected at least one sample and one unit"),
        ("code_stem", (CODES,), {}, "code: expected 1 axes"),
        ("code_stem", (CODES[0],), {"reference": CODES[0][:4]}, "reference: expected 20 units"),
        ("penalties", (X, {"a": X[:3]}), {}, r"curves\['a'\]: expected shape \(61,\), got \(3,\)"),
        (
            "history",
            (np.arange(3), np.arange(4)),
            {},
            r"loss: expected as many values as steps.*\(3,\).*\(4,\)",
        ),
        ("history", (np.arange(3), np.arange(3)), {"smoothing": 0}, "smoothing: expected a whole number ≥ 1"),
        ("lca_trajectories", (TIMES, np.zeros((4, 2))), {}, "values: expected 5 rows, one for each time"),
        ("lca_trajectories", (TIMES[:0], np.zeros((0, 2))), {}, "time: expected at least one time, got none"),
        ("network_diagram", (0, 3), {}, "n_inputs: expected a whole number ≥ 1, got 0"),
        ("orientation_frequency", (np.zeros(3), np.zeros(2)), {}, "frequency: expected 3 numbers"),
        ("gabor_shapes", (np.zeros(3), np.zeros(2)), {}, "n_y: expected 3 numbers"),
    ],
)
def test_bad_input_is_named_before_anything_is_drawn(untyped, name, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(plotting, name)(*arguments, **options)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "convert", [lambda x: x.astype(">f4"), lambda x: x.tolist(), lambda x: jnp.asarray(x, jnp.bfloat16)]
)
def test_foreign_arrays_are_drawn_as_numbers(convert, untyped):
    values = np.arange(-4, 8.0).reshape(3, 4)
    for draw, rest in (
        (plotting.atom_grid, [(2, 2)]),
        (plotting.code_raster, []),
        (plotting.weight_matrix, []),
    ):
        one, other = (Figure().subplots() for _ in range(2))
        draw(values, *rest, one), draw(convert(values), *rest, other)
        np.testing.assert_allclose(one.images[0].get_array(), other.images[0].get_array())


@pytest.mark.parametrize(
    "name", ["atom_grid", "code_raster", "weight_matrix", "image_sheet", "error_histogram"]
)
def test_masked_and_complex_arrays_are_refused_by_name(name, untyped):
    shape = {"image_sheet": (2, 3, 4), "error_histogram": (4,)}.get(name, (3, 4))
    rest = [(2, 2)] if name == "atom_grid" else []
    for wrong in (np.ma.masked_less(np.zeros(shape), 1), np.zeros(shape, complex)):
        with pytest.raises(ValueError, match=r"^(atoms|codes|weights|images\[0\]|errors_degrees): expected"):
            getattr(plotting, name)(wrong, *rest, Figure().subplots())
