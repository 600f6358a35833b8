"""Pictures of neural coding: what is drawn is the data, sorted, wrapped and averaged as is said."""

import matplotlib

matplotlib.use("Agg")

from itertools import pairwise

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from saved_figures import assert_drawn_alike

from neurojax import neural_coding as nc
from neurojax import plotting

RNG = np.random.default_rng(0)
ANGLES = np.array([270.0, 0.0, 180.0, 90.0])
RESPONSES = RNG.standard_normal((4, 6))
TRUE = np.array([0.0, 10.0, 90.0, 350.0, 359.0])
PREDICTED = np.array([358.0, 12.0, 270.0, 351.0, 1.0])


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return Figure().subplots()


def picture(ax):
    return np.ma.filled(ax.images[0].get_array(), np.nan)


def ticks(axis):
    return {
        text.get_text(): place for text, place in zip(axis.get_ticklabels(), axis.get_ticklocs(), strict=True)
    }


def words(legend):
    return [text.get_text() for text in legend.get_texts()]


def offsets(ax):
    return np.asarray(ax.collections[-1].get_offsets())


# Responses and tuning


def test_responses_are_sorted_by_angle_on_a_scale_symmetric_about_zero(ax):
    plotting.response_matrix(RESPONSES, ANGLES, ax, quantity="z-score")
    np.testing.assert_array_equal(picture(ax), RESPONSES[[1, 3, 2, 0]])
    limit = np.percentile(np.abs(RESPONSES), 99)
    np.testing.assert_allclose(ax.images[0].get_clim(), (-limit, limit))
    assert ticks(ax.yaxis) == {"0°": 0, "90°": 1, "180°": 2, "270°": 3}
    assert ax.get_xlabel() == "neuron" and ax.figure.axes[1].get_ylabel() == "z-score"
    assert ax.images[0].get_extent() == [-0.5, 5.5, 3.5, -0.5]


def test_counts_are_on_a_scale_of_one_sign(ax):
    plotting.response_matrix(np.abs(RESPONSES), ANGLES, ax, limit=2)
    assert ax.images[0].get_clim() == (0, 2)


def test_of_many_neurons_an_even_sample_is_drawn_in_their_order(ax):
    responses = np.arange(404.0).reshape(4, 101)
    plotting.response_matrix(responses, np.arange(4), ax, n_neurons=5)
    np.testing.assert_array_equal(picture(ax), responses[:, ::25])
    assert ax.get_xlabel() == "neuron (5 of 101 shown)" and ax.get_xlim() == (-0.5, 100.5)


def test_neurons_sorted_by_preferred_angle_have_ticks_where_these_lie(ax):
    preferred = np.array([180.0, 90.0, np.nan, 0.0, 90.0, 181.0])
    plotting.response_matrix(RESPONSES, ANGLES, ax, preferred_degrees=preferred)
    np.testing.assert_array_equal(picture(ax), RESPONSES[np.ix_([1, 3, 2, 0], [3, 1, 4, 0, 5, 2])])
    # Two of 90° have the tick between them.
    shown = ticks(ax.xaxis)
    assert [shown[name] for name in ("0°", "90°", "180°")] == [0, 1.5, 3]
    assert ax.get_xlabel() == "neuron, by preferred angle"


def test_tuning_curves_are_lines_in_order_of_angle_with_bands(ax):
    curves, errors = RNG.random((2, 4)), 0.1 * RNG.random((2, 4))
    plotting.tuning_curves(ANGLES, curves, ax, standard_errors=errors, labels=["a", "b"], quantity="Hz")
    for i, order in enumerate([[1, 3, 2, 0]] * 2):
        np.testing.assert_array_equal(ax.lines[i].get_xydata(), np.stack([ANGLES, curves[i]], 1)[order])
        band = ax.collections[i].get_paths()[0].get_extents()
        np.testing.assert_allclose(band.ymin, np.min(curves[i] - errors[i]))
        np.testing.assert_allclose(band.ymax, np.max(curves[i] + errors[i]))
    assert words(ax.get_legend()) == ["a", "b"]
    assert ax.get_ylabel() == "Hz" and ax.get_xlabel() == "angle of the stimulus"
    ax.figure.canvas.draw()
    assert {"0°", "90°", "180°", "270°"} <= set(ticks(ax.xaxis))


def test_fits_are_lines_over_dots_with_error_bars(ax):
    curves, fine, fits = RNG.random((1, 4)), np.linspace(0, 360, 9), RNG.random((1, 9))
    plotting.tuning_curves(ANGLES, curves, ax, fits=(fine, fits), standard_errors=np.full((1, 4), 0.5))
    line, dots = ax.lines
    np.testing.assert_array_equal(line.get_xydata(), np.stack([fine, fits[0]], 1))
    assert line.get_marker() == "None" and dots.get_linestyle() == "None"
    np.testing.assert_array_equal(np.sort(dots.get_xdata()), [0, 90, 180, 270])
    bars = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(bars[:, 1, 1] - bars[:, 0, 1], 1.0)
    np.testing.assert_allclose(bars.mean(1)[:, 1], curves[0][[1, 3, 2, 0]])
    assert ax.get_legend() is None


def test_a_grid_has_a_panel_a_neuron_with_both_curves(ax):
    first, second = RNG.random((5, 4)), RNG.random((5, 4))
    plotting.tuning_grid(ANGLES, first, second, ax, labels=("measured", "predicted"), n_columns=3)
    assert len(ax.child_axes) == 5
    for i, panel in enumerate(ax.child_axes):
        for line, values in zip(panel.lines, (first, second), strict=False):
            np.testing.assert_array_equal(line.get_ydata(), values[i, [1, 3, 2, 0]])
            np.testing.assert_array_equal(line.get_xdata(), [0, 90, 180, 270])
        assert panel.get_title() == f"neuron {i}"
    assert words(ax.get_legend()) == ["measured", "predicted"]
    key = [line.get_color() for line in ax.get_legend().get_lines()]
    assert key == [line.get_color() for line in ax.child_axes[0].lines[:2]]
    # Row by row, inside of the Axes, apart from each other.
    ax.figure.canvas.draw()
    boxes = [panel.get_position() for panel in ax.child_axes]
    assert boxes[0].y0 == boxes[2].y0 > boxes[3].y1 and boxes[0].x1 < boxes[1].x0
    assert boxes[3].y0 >= ax.get_position().y0 - 1e-9 and boxes[2].x1 <= ax.get_position().x1 + 1e-9
    # Angles are written below the panels that have none beneath them.
    shown = [any(label.get_visible() for label in panel.get_xticklabels()) for panel in ax.child_axes]
    assert shown == [False, False, True, True, True]


# Weights and filters


@pytest.mark.parametrize(("n", "most"), [(6, 6), (7, 3), (23_589, 1200)])
def test_weights_are_means_of_neighbours_that_count_every_column_once(ax, n, most):
    weights = RNG.standard_normal((2, n)) + 3
    plotting.weight_matrix(weights, ax, most_columns=most)
    drawn = picture(ax)
    width = -(-n // most)
    assert drawn.shape[1] == -(-n // width) <= most
    edges = [k * n // drawn.shape[1] for k in range(drawn.shape[1] + 1)]
    assert {b - a for a, b in pairwise(edges)} <= {width, width - 1}
    expected = [weights[:, a:b].mean(1) for a, b in pairwise(edges)]
    np.testing.assert_allclose(drawn, np.stack(expected, 1))
    low, high = ax.images[0].get_clim()
    assert -low == high == pytest.approx(np.percentile(np.abs(drawn), 99))
    assert ax.images[0].get_extent() == [-0.5, n - 0.5, 1.5, -0.5]
    label = "weight" if n == 6 else f"weight, mean of {width} neighbors"
    assert ax.figure.axes[1].get_ylabel() == label


def test_weights_are_sorted_before_neighbours_are_averaged(ax):
    preferred = np.array([270.0, 0.0, 180.0, 90.0, 1.0, 271.0])
    weights = RNG.standard_normal((3, 6))
    plotting.weight_matrix(weights, ax, preferred_degrees=preferred, most_columns=3, column="unit")
    pairs = [weights[:, [1, 4]], weights[:, [3, 2]], weights[:, [0, 5]]]
    np.testing.assert_allclose(picture(ax), np.stack([pair.mean(1) for pair in pairs], 1))
    assert ticks(ax.xaxis) == {"0°": 0, "90°": 2, "180°": 3, "270°": 4}
    assert ax.get_xlabel() == "unit, by preferred angle" and ax.get_ylabel() == "hidden unit"


@pytest.mark.parametrize("scale", ["each", "common"])
def test_filters_lie_above_what_has_become_of_them(ax, scale):
    before, after = RNG.standard_normal((3, 4, 5)), 2 * RNG.standard_normal((3, 4, 5))
    plotting.filter_pairs(before, after, ax, scale=scale)
    both = np.stack([before, after])
    largest = np.abs(both).max((2, 3), keepdims=True)
    expected = (both / largest if scale == "each" else both).transpose(0, 2, 1, 3).reshape(8, 15)
    np.testing.assert_allclose(picture(ax), expected)
    limit = 1 if scale == "each" else np.abs(both).max()
    assert ax.images[0].get_clim() == (-limit, limit)
    assert ticks(ax.yaxis) == {"before": 1.5, "after": 5.5}


# Decoders


def test_decoded_angles_are_points_in_one_period_with_the_line_in_its_corners(ax):
    plotting.decoded_against_true(TRUE - 360, PREDICTED + 720, ax)
    np.testing.assert_allclose(offsets(ax), np.stack([TRUE, PREDICTED], 1), atol=1e-9)
    assert ax.get_xlim() == ax.get_ylim() == (-14.4, 374.4) and ax.get_aspect() == 1
    turns = sorted(float(line.get_ydata()[0] - line.get_xdata()[0]) for line in ax.lines)
    np.testing.assert_allclose(turns, [-360, 0, 360], atol=1e-9)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("true angle", "decoded angle")


def test_points_grow_with_the_number_of_trials_and_nan_is_left_out(ax):
    true, predicted = np.array([0.0, 0.0, 0.0, 45.0, 90.0]), np.array([0.0, 0.0, 360.0, 0.0, np.nan])
    plotting.decoded_against_true(true, predicted, ax, period_degrees=180)
    np.testing.assert_array_equal(offsets(ax)[np.argsort(offsets(ax)[:, 0])], [[0, 0], [45, 0]])
    first, second = ax.collections[-1].get_sizes()
    assert first == 3 * second


def test_bins_are_a_staircase_at_their_centres_in_the_period_from_their_first_edge(ax):
    bins = nc.AngleBins(4, start_degrees=-45.0)
    plotting.decoded_against_true(
        np.array([350.0, 80.0]), np.array([0.0, 270.0]), ax, bin_edges_degrees=bins.edges_degrees
    )
    np.testing.assert_allclose(offsets(ax), [[-10, 0], [80, 270]])
    steps = ax.patches[0].get_data()
    np.testing.assert_allclose(steps.values, bins.centers_degrees)
    np.testing.assert_allclose(steps.edges, bins.edges_degrees)
    segments = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(segments[:5, 0, 1], bins.edges_degrees)
    np.testing.assert_allclose(segments[5:, 0, 0], bins.edges_degrees)
    assert not any(line.get_visible() for line in ax.get_xgridlines())


def test_the_running_median_goes_round_the_circle(ax):
    true = np.array([355.0, 5.0, 359.0, 180.0, -175.0])
    errors = np.array([1.0, 2.0, 30.0, 7.0, np.nan])
    plotting.error_against_angle(true, errors, ax, window_degrees=20, chance_degrees=90)
    np.testing.assert_allclose(offsets(ax), [[5, 2], [180, 7], [355, 1], [359, 30]])
    line = ax.lines[0]
    median = dict(zip(np.round(line.get_xdata(), 6), line.get_ydata(), strict=True))
    assert median[0] == median[360] == 2 and median[180] == 7 and np.isnan(median[90])
    assert ax.lines[1].get_ydata()[0] == 90 and words(ax.get_legend())[1] == "chance, 90°"
    assert ax.get_ylabel() == "error, the short way round" and "20°" in words(ax.get_legend())[0]


def test_signed_errors_have_a_line_at_zero_and_chance_on_both_sides(ax):
    errors = np.asarray(nc.circular_difference(PREDICTED, TRUE))
    plotting.error_against_angle(TRUE, errors, ax, chance_degrees=90)
    assert [line.get_ydata()[0] for line in ax.lines[1:]] == [0, -90, 90]
    assert ax.get_ylabel() == "decoded − true"
    np.testing.assert_allclose(offsets(ax)[:, 1], errors)


@pytest.mark.parametrize("period", [360, 180])
def test_the_histogram_of_errors_is_a_density_beside_that_of_chance(ax, period):
    errors = np.array([-1.0, 2.0, 3.0, period / 2, np.nan])
    plotting.error_histogram(errors, ax, period_degrees=period, n_bins=9)
    bars, chance = (patch.get_data() for patch in ax.patches)
    width = period / 18
    np.testing.assert_allclose(bars.values * width, [75, 0, 0, 0, 0, 0, 0, 0, 25])
    np.testing.assert_allclose(np.sum(chance.values * width), 100)
    assert np.ptp(chance.values) == 0 and ax.lines[0].get_xdata()[0] == 2.5
    assert words(ax.get_legend()) == ["median 2.5°", f"chance, median {period / 4:.1f}°"]
    assert ax.get_xlim() == (0, period / 2)


def test_chance_may_be_errors_of_permuted_angles(ax):
    plotting.error_histogram(TRUE / 2, ax, chance_degrees=np.array([10.0, 10.0, -170.0]), n_bins=2)
    np.testing.assert_allclose(ax.patches[1].get_data().values * 90, [200 / 3, 100 / 3])
    assert words(ax.get_legend())[1] == "chance, median 10.0°"


@pytest.mark.parametrize("period", [360, 180])
def test_lines_go_from_true_angles_outside_to_decoded_ones_inside(ax, period):
    true, predicted = TRUE * period / 360, PREDICTED * period / 360
    plotting.decoded_on_circle(true, predicted, ax, period_degrees=period)
    ends = np.array(ax.collections[0].get_segments())
    np.testing.assert_allclose(np.hypot(ends[..., 0], ends[..., 1]), [[1, 0.6]] * 5)
    errors = np.round(nc.circular_errors(predicted, true, period), 3)
    # The largest error is drawn last, equal ones in order of the true angle.
    order = np.lexsort((true, errors))
    phase = 2 * np.pi / period * np.stack([true, predicted], 1)[order]
    expected = np.stack([np.cos(phase), np.sin(phase)], -1) * [[1], [0.6]]
    np.testing.assert_allclose(ends, expected, atol=1e-9)
    np.testing.assert_allclose(ax.collections[0].get_array(), errors[order], atol=1e-3)
    assert ax.collections[0].get_clim() == (0, period / 2)
    around = {text.get_text(): text.get_position() for text in ax.texts}
    np.testing.assert_allclose(around["90°"], (0, 1.13) if period == 360 else (-1.13, 0), atol=1e-9)
    assert f"{period}°" not in around and "45°" in around and "135°" in around


def test_trials_alike_are_one_line_and_a_wider_one(ax):
    true, predicted = np.array([0.0, 360.0, 0.0, 90.0, 0.0]), np.array([90.0, 90.0, 90.0, 90.0, np.nan])
    plotting.decoded_on_circle(true, predicted, ax)
    np.testing.assert_array_equal(ax.collections[0].get_array(), [0, 90])
    alone, three = ax.collections[0].get_linewidths()
    assert three == pytest.approx(3 * alone)


def test_confusion_shows_shares_of_rows_and_writes_counts(ax):
    counts = np.array([[3, 1, 0], [0, 0, 0], [0, 5, 5]])
    plotting.confusion(counts, ax, centers_degrees=np.array([0.0, 22.5, 45.0]))
    np.testing.assert_allclose(picture(ax), [[75, 25, 0], [np.nan] * 3, [0, 50, 50]])
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written == {(c, r): str(counts[r, c]) for r in range(3) for c in range(3)}
    assert ticks(ax.yaxis) == {"0°": 0, "22.5°": 1, "45°": 2} == ticks(ax.xaxis)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("decoded angle", "true angle")
    assert ax.images[0].get_clim() == (0, 100)


def test_large_confusions_have_no_counts_and_fewer_ticks(ax):
    plotting.confusion(np.eye(20), ax)
    assert len(ax.texts) == 0 and ticks(ax.xaxis) == {str(k): k for k in range(0, 20, 2)}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("decoded class", "true class")


# Scores


def test_scores_are_points_with_bars_the_first_on_top(ax):
    names, values, errors = ["ridge", "network", "null"], [0.8, 0.7, 0.05], [0.012, 0.1, np.nan]
    plotting.score_comparison(names, values, errors, ax, chance=0.05)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([values, range(3)], 1))
    bars = np.array(ax.collections[0].get_segments()[:2])
    np.testing.assert_allclose(bars[:, :, 0], [[0.788, 0.812], [0.6, 0.8]])
    assert ticks(ax.yaxis) == {name: i for i, name in enumerate(names)}
    assert ax.get_ylim() == (2.5, -0.5)
    written = [text.get_text() for text in ax.texts]
    assert written == ["chance", "0.800 ± 0.012", "0.70 ± 0.10", "0.05"]
    assert ax.get_xlabel() == "fraction correct, ± standard error"


def test_scores_on_a_logarithmic_axis_keep_all_bars_and_plain_ticks(ax):
    values, errors = [4.0, 7.0, 30.0, 2.0], [0.5, 1.0, np.nan, 3.0]
    plotting.score_comparison(list("abcd"), values, errors, ax, chance=90, quantity="error", is_log=True)
    assert ax.get_xscale() == "log"
    low, high = ax.get_xlim()
    assert 0.5 < low < 1 and 90 < high < 120, "the bar that reaches below 0 is cut, and chance is inside"
    shown = {name: place for name, place in ticks(ax.xaxis).items() if name}
    assert shown == {f"{tick}": tick for tick in (1, 2, 5, 10, 20, 50, 100)}
    ax.figure.canvas.draw()
    # 4° and 7° lie further apart than on an axis from 0° to 90°.
    apart = np.diff(ax.transAxes.inverted().transform(ax.transData.transform([(4, 0), (7, 0)]))[:, 0])
    assert apart[0] > 2 * 3 / 90


def test_a_path_is_drawn_in_order_of_strength_on_a_logarithmic_axis(ax):
    strengths, values = np.array([1.0, 0.01, 0.1]), RNG.random((2, 3))
    errors = 0.1 * RNG.random((2, 3))
    plotting.regularization_path(
        strengths, values, ax, standard_errors=errors, labels=["train", "test"], chance=0.05
    )
    curves = [line for line in ax.lines if len(line.get_xdata()) == 3 and line.get_linestyle() == "-"]
    for i, line in enumerate(curves):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([strengths, values[i]], 1)[[1, 2, 0]])
        bars = np.array(ax.collections[i].get_segments())
        np.testing.assert_allclose((bars[:, 1, 1] - bars[:, 0, 1]) / 2, errors[i, [1, 2, 0]])
    assert len(curves) == 2 and ax.get_xscale() == "log" and words(ax.get_legend()) == ["train", "test"]
    assert ax.get_ylabel() == "fraction correct, ± standard error"


def test_one_curve_needs_no_rows(ax):
    plotting.regularization_path(np.array([1.0, 10.0]), np.array([3, 1]), ax, quantity="neurons")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 3], [10, 1]])
    assert ax.get_ylabel() == "neurons" and ax.get_legend() is None


# All of them

OPTIONS = [
    ("response_matrix", (RESPONSES, ANGLES), {"preferred_degrees": RNG.random(6)}),
    ("tuning_curves", (ANGLES, RESPONSES[:, :4]), {"fits": (ANGLES, RESPONSES[:, :4])}),
    ("weight_matrix", (RESPONSES,), {"preferred_degrees": RNG.random(6)}),
    ("decoded_against_true", (TRUE, PREDICTED), {"bin_edges_degrees": np.array([0.0, 180.0, 360.0])}),
    ("error_histogram", (TRUE / 2,), {"chance_degrees": TRUE / 2}),
    ("confusion", (np.eye(2),), {"centers_degrees": np.array([0.0, 90.0])}),
    ("regularization_path", (ANGLES + 1, ANGLES), {"standard_errors": ANGLES}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), OPTIONS)
def test_options_may_be_jax_arrays_too(ax, name, arguments, options):
    def as_jax(value):
        return tuple(map(as_jax, value)) if isinstance(value, tuple) else jnp.asarray(value)

    draw, other = getattr(plotting, name), Figure().subplots()
    draw(*arguments, other, **options)
    draw(*as_jax(arguments), ax, **{key: as_jax(value) for key, value in options.items()})
    assert_drawn_alike(ax, other)
    ax.figure.canvas.draw()


CURVES = RNG.random((2, 4))


@pytest.mark.parametrize(
    ("name", "arguments", "options", "message"),
    [
        ("response_matrix", (RESPONSES, TRUE), {}, r"angles_degrees: expected shape \(4,\), one for each tr"),
        (
            "response_matrix",
            (RESPONSES[0], ANGLES),
            {},
            r"responses: expected 2 axes \(trials neurons\), got",
        ),
        ("response_matrix", (RESPONSES[:0], ANGLES[:0]), {}, "responses: expected at least one row and one"),
        ("response_matrix", (RESPONSES, ANGLES), {"n_neurons": 0}, "n_neurons: expected a whole number ≥ 1"),
        ("response_matrix", (RESPONSES, ANGLES), {"limit": 0.0}, "limit: expected a number > 0, got 0"),
        ("response_matrix", (RESPONSES, ANGLES), {"preferred_degrees": TRUE}, r"preferred_degrees: .*\(6,\)"),
        ("tuning_curves", (TRUE, CURVES), {}, r"curves: expected 5 bins, one for each angle, on axis 1, got"),
        (
            "tuning_curves",
            (ANGLES, CURVES),
            {"labels": ["a"]},
            "labels: expected 2, one for each curve, got 1",
        ),
        ("tuning_curves", (ANGLES, CURVES), {"standard_errors": CURVES[:1]}, r"standard_errors: .*\(2, 4\)"),
        (
            "tuning_curves",
            (ANGLES, CURVES),
            {"fits": (ANGLES, CURVES[:1])},
            "fits: expected 2 neurons, as in",
        ),
        ("tuning_curves", (ANGLES, CURVES), {"fits": (TRUE, CURVES)}, "fits: expected 5 bins, one for each"),
        ("tuning_grid", (ANGLES, CURVES, CURVES[:1]), {}, "second: expected 2 neurons, as in first, on axis"),
        ("tuning_grid", (ANGLES, CURVES, CURVES), {"names": ["a"]}, "names: expected 2, one for each neuron"),
        ("tuning_grid", (ANGLES, CURVES, CURVES), {"n_columns": 0}, "n_columns: expected a whole number ≥ 1"),
        (
            "weight_matrix",
            (CURVES,),
            {"preferred_degrees": TRUE},
            r"preferred_degrees: expected shape \(4,\)",
        ),
        ("weight_matrix", (CURVES,), {"most_columns": 0}, "most_columns: expected a whole number ≥ 1, got 0"),
        ("weight_matrix", (CURVES,), {"limit": -1.0}, "limit: expected a number > 0, got -1"),
        ("filter_pairs", (np.ones((2, 3, 3)), np.ones((3, 3, 3))), {}, r"after: expected shape \(2, 3, 3\)"),
        (
            "filter_pairs",
            (np.ones((0, 3, 3)), np.ones((0, 3, 3))),
            {},
            "before: expected at least one filter",
        ),
        (
            "filter_pairs",
            (np.ones((2, 3, 3)), np.ones((2, 3, 3))),
            {"scale": "all"},
            'scale: expected "each"',
        ),
        (
            "decoded_against_true",
            (TRUE, ANGLES),
            {},
            r"predicted_degrees: expected shape \(5,\), that of true",
        ),
        (
            "decoded_against_true",
            (TRUE[:0], TRUE[:0]),
            {},
            "true_degrees: expected at least one trial, got no",
        ),
        (
            "decoded_against_true",
            (TRUE, TRUE),
            {"period_degrees": 0},
            "period_degrees: expected a number > 0",
        ),
        (
            "decoded_against_true",
            (TRUE, TRUE),
            {"bin_edges_degrees": np.array([0.0, 90.0, 180.0])},
            r"bin_edges_degrees: expected increasing angles over 360°, got \[0.0, 90.0, 180.0\]",
        ),
        (
            "error_against_angle",
            (TRUE, ANGLES),
            {},
            r"errors_degrees: expected shape \(5,\), that of true_deg",
        ),
        ("error_against_angle", (TRUE, TRUE), {"window_degrees": 0}, "window_degrees: expected a number > 0"),
        ("error_histogram", (TRUE,), {}, r"errors_degrees: expected at most 180° \(period/2\), got 359°"),
        ("error_histogram", (TRUE / 2,), {"chance_degrees": TRUE}, "chance_degrees: expected at most 180°"),
        (
            "error_histogram",
            (np.array([np.nan]),),
            {},
            "errors_degrees: expected at least one number, got non",
        ),
        ("error_histogram", (TRUE / 2,), {"n_bins": 0}, "n_bins: expected a whole number ≥ 1, got 0"),
        ("decoded_on_circle", (TRUE, ANGLES), {}, r"predicted_degrees: expected shape \(5,\), that of true"),
        (
            "confusion",
            (CURVES,),
            {},
            "counts: expected 2 decoded classes, as true ones, on axis 1, got shape",
        ),
        ("confusion", (-np.eye(2),), {}, "counts: expected finite numbers ≥ 0, got -1.0 to"),
        (
            "confusion",
            (np.eye(2),),
            {"centers_degrees": TRUE},
            r"centers_degrees: expected shape \(2,\), one",
        ),
        (
            "score_comparison",
            (["a"], [1.0, 2.0], [0.0, 0.0]),
            {},
            r"values: expected shape \(1,\), one for ea",
        ),
        (
            "score_comparison",
            (["a"], [1.0], [0.0, 0.0]),
            {},
            r"standard_errors: expected shape \(1,\), one fo",
        ),
        ("score_comparison", (["a"], [1.0], [-0.5]), {}, r"standard_errors: expected numbers ≥ 0, got -0\.5"),
        ("score_comparison", ([], [], []), {}, "names: expected at least one model, got none"),
        ("score_comparison", (["a"], [0.0], [1.0]), {"is_log": True}, r"values: expected a number > 0"),
        ("regularization_path", (ANGLES, ANGLES), {}, "strengths: expected a number > 0, got"),
        (
            "regularization_path",
            (TRUE + 1, CURVES),
            {},
            r"values: expected shape \(2, 5\), a number for each",
        ),
        (
            "regularization_path",
            (TRUE[:0], TRUE[:0]),
            {},
            r"strengths: expected at least one, on one axis, g",
        ),
        (
            "regularization_path",
            (ANGLES + 1, CURVES),
            {"labels": ["a"]},
            "labels: expected 2, one for each c",
        ),
        (
            "regularization_path",
            (ANGLES + 1, CURVES),
            {"standard_errors": CURVES[0]},
            r"standard_errors: expected shape \(2, 4\), that of values",
        ),
        (
            "regularization_path",
            (ANGLES + 1, CURVES),
            {"standard_errors": -CURVES},
            "standard_errors: expected numbers ≥ 0, got -0",
        ),
    ],
)
def test_bad_input_is_named_before_anything_is_drawn(untyped, name, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(plotting, name)(*arguments, **options)
    assert plt.get_fignums() == []
