"""The pictures of ``neurojax decode`` and ``neurojax encode`` against what was decoded and encoded."""

import jax.numpy as jnp
import numpy as np
from saved_figures import assert_history, assert_line, cells, legend, picture, scaled, texts, titles

from neurojax import neural_coding as nc

N_PANELS = 4


def stand_in_fits(curves, angles_degrees, *, n_peaks, period_degrees):
    """Return curves that rise from each minimum to its maximum, in place of fits that compile for long."""
    assert (n_peaks, period_degrees) == (2, 360)
    tuning = nc.VonMises(
        preferred_degrees=jnp.asarray(angles_degrees[np.argmax(curves, axis=1)], jnp.float32),
        amplitude=jnp.asarray(np.ptp(curves, axis=1)),
        concentration=jnp.full(len(curves), 2.0),
        baseline=jnp.asarray(curves.min(axis=1)),
        opposite_amplitude=jnp.zeros(len(curves)),
        period_degrees=360.0,
    )
    shares, steps = jnp.linspace(0.9, 0.6, len(curves)), jnp.zeros(len(curves), int)
    return nc.VonMisesFit(tuning, shares, steps, steps)


def trials_by_bin(angles, n_bins):
    return np.floor(np.asarray(angles, float) % 360 / (360 / n_bins)).astype(int)


def means_by_bin(values, angles, n_bins):
    """Return the tuning curve of each column, NaN where a bin has no trial."""
    index = trials_by_bin(angles, n_bins)
    rows = [values[index == k].mean(0) if np.any(index == k) else values[0] * np.nan for k in range(n_bins)]
    return np.stack(rows, axis=1)


def numbers_in(names):
    return [int(name.split()[1].strip(",")) for name in names]


def assert_tuning(figures, decoded, n_bins):
    """Check the responses and the tuning curves of decoded trials, with as many bins of equal width."""
    responses, angles = np.asarray(decoded.responses.responses), np.asarray(decoded.responses.angles_degrees)
    shown = picture(figures["responses"].axes[0])
    np.testing.assert_array_equal(np.sort(shown, axis=1), np.sort(responses[np.argsort(angles)], axis=1))
    peaks = np.argmax(means_by_bin(shown, np.sort(angles), n_bins), axis=1)
    assert np.all(np.diff(peaks) >= 0) and np.ptp(peaks) > n_bins / 2, "neurons by preferred angle"

    curves, index = means_by_bin(responses, angles, n_bins), trials_by_bin(angles, n_bins)
    ax, centers = figures["tuning"].axes[0], (np.arange(n_bins) + 0.5) * 360 / n_bins
    neurons = numbers_in(legend(ax))
    share = np.var(curves, axis=1) / np.var(responses, axis=0)
    assert neurons == np.argsort(-share, kind="stable")[:4].tolist()
    fits = stand_in_fits(curves[neurons], centers, n_peaks=2, period_degrees=360)
    assert [name.split("R² ")[1] for name in legend(ax)] == [f"{share:.2f}" for share in fits.r_squared]
    for i, neuron in enumerate(neurons):
        line, dots = ax.lines[2 * i : 2 * i + 2]
        assert_line(dots, centers, curves[neuron], rtol=1e-4, atol=1e-4)
        phase = np.deg2rad(np.linspace(0, 360, 181) - fits.tuning.preferred_degrees[i])
        fitted = fits.tuning.baseline[i] + fits.tuning.amplitude[i] * np.exp(2 * (np.cos(phase) - 1))
        assert_line(line, np.linspace(0, 360, 181), fitted, rtol=1e-4, atol=1e-4)
        bars = np.array(ax.collections[i].get_segments())
        errors = [np.std(r := responses[index == k, neuron], ddof=1) / len(r) ** 0.5 for k in range(n_bins)]
        np.testing.assert_allclose((bars[:, 1, 1] - bars[:, 0, 1]) / 2, errors, rtol=1e-2, atol=1e-3)

    panels = figures["tuning_grid"].axes[0].child_axes
    neurons = numbers_in(panel.get_title() for panel in panels)
    assert neurons[:4] == np.argsort(-share, kind="stable")[:4].tolist() and len(neurons) == N_PANELS
    for part, rows in enumerate((decoded.train, decoded.test)):
        of_part = means_by_bin(responses[rows], angles[rows], n_bins)
        for neuron, panel in zip(neurons, panels, strict=True):
            assert_line(panel.lines[part], centers, of_part[neuron], rtol=1e-4, atol=1e-4)
    assert legend(figures["tuning_grid"].axes[0]) == [
        f"{len(decoded.train)} training trials", f"{len(decoded.test)} test trials"
    ]  # fmt: skip


def assert_answers(figures, decoded, n_bins):
    """Check the pictures that have a panel a decoder."""
    names = list(decoded.answers)
    for kind in ("decoded", "errors", "error_histogram", "circle", "confusion"):
        assert titles(figures[kind]) == names, kind
    panels = {kind: [ax for ax in figures[kind].axes if ax.get_title()] for kind in figures}
    for i, (name, answer) in enumerate(decoded.answers.items()):
        true, predicted = answer.true_degrees, np.asarray(answer.predicted_degrees, float)
        errors = np.abs((predicted - true + 180) % 360 - 180)
        points = np.asarray(panels["decoded"][i].collections[-1].get_offsets())
        np.testing.assert_allclose(points, np.stack([true, predicted % 360], 1), atol=1e-3)
        is_of_bins = name not in ("sincos-ridge",)
        assert len(panels["decoded"][i].patches) == is_of_bins, "a staircase for decoders of bins alone"
        ax = panels["errors"][i]
        np.testing.assert_allclose(
            np.asarray(ax.collections[-1].get_offsets()), np.stack([true, errors], 1), atol=1e-3
        )
        assert legend(ax)[1] == "chance, 90°" and np.allclose(ax.get_ylim(), (-7.2, 187.2))
        shares = panels["error_histogram"][i].patches[0].get_data()
        # Errors that lie on an edge, but for rounding, may be counted on either side of it.
        drawn = np.cumsum(shares.values * np.diff(shares.edges)) / 100
        for total, edge in zip(drawn, shares.edges[1:], strict=True):
            assert np.mean(errors < edge - 0.01) - 1e-6 <= total <= np.mean(errors < edge + 0.01) + 1e-6
        np.testing.assert_allclose(panels["circle"][i].collections[0].get_array(), np.sort(errors), atol=1e-3)
        counts = np.zeros((n_bins, n_bins), int)
        np.add.at(counts, (trials_by_bin(true, n_bins), trials_by_bin(predicted, n_bins)), 1)
        assert texts(panels["confusion"][i]) == [str(n) for n in counts.reshape(-1)]


def assert_scores(ax, scores, quantity):
    names = list(scores)
    points = next(line for line in ax.lines if len(line.get_xdata()) == len(names))
    assert_line(
        points, [score.get("value", score.get("mean")) for score in scores.values()], range(len(names))
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == names and quantity in ax.get_xlabel()
    bars = np.array(ax.collections[0].get_segments())[:, :, 0]
    np.testing.assert_allclose(
        (bars[:, 1] - bars[:, 0]) / 2, [score["standard_error"] for score in scores.values()], atol=1e-6
    )


def assert_networks(figures, decoded, n_bins):
    """Check the pictures of networks, with one network."""
    ((name, learned),) = decoded.networks.items()
    history = learned.history
    assert_history(
        figures["losses"].axes[0],
        range(len(history)),
        history["data_loss"],
        (history.evaluation_steps, history.evaluation["loss"]),
    )
    assert "nats" in figures["losses"].axes[0].get_ylabel()
    weights = np.asarray(learned.network.input_weights)
    plain, by_angle = (picture(ax) for ax in figures["input_weights"].axes[:2])
    np.testing.assert_array_equal(plain, weights)
    np.testing.assert_array_equal(np.sort(by_angle, axis=1), np.sort(weights, axis=1))
    before, after = (picture(ax) for ax in figures["input_weights_penalties"].axes[:2])
    order = [np.flatnonzero(np.all(weights == column[:, None], axis=0))[0] for column in by_angle.T]
    np.testing.assert_array_equal(before, np.asarray(learned.first.input_weights)[:, order])
    np.testing.assert_array_equal(after, by_angle)
    assert titles(figures["input_weights_penalties"]) == [
        f"{name}, before learning",
        f"{name}, after learning",
    ]
    np.testing.assert_array_equal(picture(figures["output_weights"].axes[0]), learned.network.output_weights)
    responses, angles = np.asarray(decoded.responses.responses), np.asarray(decoded.responses.angles_degrees)
    train = responses[decoded.train]
    hidden = np.asarray(learned.network.hidden(jnp.asarray((responses - train.mean(0)) / train.std(0))))
    for line, curve in zip(
        figures["hidden_tuning"].axes[0].lines, means_by_bin(hidden, angles, n_bins), strict=True
    ):
        np.testing.assert_allclose(line.get_ydata(), curve, rtol=1e-3, atol=1e-4)
    heat, order = picture(figures["hidden"].axes[0]), np.argsort(angles, kind="stable")
    peaks = np.argsort(angles[np.argmax(hidden, axis=0)], kind="stable")
    np.testing.assert_allclose(heat, hidden[order][:, peaks], rtol=1e-3, atol=1e-4)


def assert_regression(figure, said, angles, period, train, test):
    """Check the outputs of a network on degrees, and their signed errors, which are not wrapped."""
    outputs, errors = figure.axes
    for ax, values in ((outputs, said), (errors, said - angles)):
        for line, rows in zip(ax.lines[:2], (train, test), strict=True):
            assert_line(line, angles[rows], values[rows])
    assert np.allclose(errors.get_ylim(), (-1.05 * period, 1.05 * period))


def assert_captions(figures, words):
    """Check that every figure names its data and how many they are."""
    for name, figure in figures.items():
        caption = figure.get_supxlabel().replace("\n", " ")
        assert all(word in caption for word in words), (name, caption)


def assert_encoded(figures, encoded, name):
    """Check the pictures of a run of one convolutional encoder."""
    stimuli, trained = encoded.stimuli, encoded.trained[name]
    train, test, angles = stimuli.train, stimuli.test.mean(axis=0), stimuli.angles_degrees
    peaks = np.argsort(angles[np.argmax(train, axis=0)], kind="stable")
    np.testing.assert_array_equal(picture(figures["responses"].axes[0]), train[:, peaks])
    sheet = cells(figures["stimuli"].axes[0], len(angles), (14, 18), 6)
    np.testing.assert_allclose(sheet[:, 1:-1, 1:-1], stimuli.images, atol=1e-6)
    assert titles(figures["stimuli"]) == [f"16 of 16 gratings, 0° to {angles[-1]:g}°, row by row"]
    pairs = {
        "tuning_grid": train,
        "predictions": encoded.predicted["repeats"][name],
        "predictions_angles": encoded.predicted["angles"][name],
    }
    with np.errstate(invalid="ignore"):
        alike = [np.corrcoef(train[:, i], test[:, i])[0, 1] for i in range(train.shape[1])]
    for kind, first in pairs.items():
        panels = figures[kind].axes[0].child_axes
        neurons = numbers_in(panel.get_title() for panel in panels)
        assert neurons == np.argsort(-np.array(alike), kind="stable")[: len(neurons)].tolist(), kind
        for neuron, panel in zip(neurons, panels, strict=True):
            assert_line(panel.lines[0], angles, first[:, neuron])
            assert_line(panel.lines[1], angles, test[:, neuron])
    grid = iter(figures["scores"].axes)
    for scheme in ("repeats", "angles"):
        models = encoded.measured["scores"][scheme]
        for kind, quantity in (
            ("squared_error", "squared error"),
            ("correlation", "correlation"),
            ("feve", "explainable"),
        ):
            known = {
                model: {k: np.nan if v is None else v for k, v in of[kind].items()}
                for model, of in models.items()
            }
            assert_scores(next(grid), known, quantity)
    spread = [ax for ax in figures["neurons"].axes if ax.get_title() == name]
    for ax, scheme in zip(spread, ("repeats", "angles"), strict=True):
        values = encoded.scores[scheme][name]["feve"]
        values = values[np.isfinite(values)]
        counts = np.histogram(np.clip(values, -1, 1), np.linspace(-1, 1, 21))[0]
        assert [bar.get_height() for bar in ax.patches] == counts.tolist()
    history = trained.history
    measured = history.evaluation_steps, history.evaluation["loss"]
    assert_history(figures["losses"].axes[0], range(len(history)), history["data_loss"], measured)
    first, last = (np.asarray(model.filters) for model in (trained.first, trained.model))
    n, shape = len(first), first.shape[1:]
    drawn = cells(figures["filters"].axes[0], 2 * n, shape, n)
    flat = np.concatenate([first, last]).reshape(2 * n, -1)
    np.testing.assert_allclose(drawn, scaled(flat, shape), atol=1e-6)
