"""The pictures of a run of ``neurojax decode``."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .. import neural_coding as nc
from .. import plotting
from ..neural_coding import AngleBins, CrossValidation
from ..runs import RunFolder
from ._decode_network_pictures import network_figures
from ._decode_networks import Learned
from ._figures import grid, save_figures
from ._neural_data import Responses

__all__ = ["Decoded", "draw", "tuning_bins"]

_MOST_BINS, _SMOOTHING_DEGREES = 60, 5.0
_N_CURVES, _N_GRID = 4, 15
_N_FINE = 181


class Decoded(NamedTuple):
    """All that a run has to show.

    Attributes:
        responses: the trials.
        bins: of the angle.
        answers: of each decoder, held out.
        measured: what ``results.json`` holds.
        networks: trained on ``train``.
        train: the numbers of some trials.
        test: of the others.
    """

    responses: Responses
    bins: AngleBins
    answers: dict[str, CrossValidation]
    measured: dict[str, Any]
    networks: dict[str, Learned]
    train: np.ndarray
    test: np.ndarray


def draw(run: RunFolder, decoded: Decoded) -> None:
    """Draw and save every picture of a run."""
    responses = decoded.responses
    bins = tuning_bins(decoded.bins, responses)
    curves = np.asarray(nc.tuning_curves(responses.responses, responses.angles_degrees, bins))
    preferred = _preferred(curves, bins)
    figures = {
        "responses": _responses(responses, preferred),
        "tuning": _tuning(responses, curves, bins),
        "tuning_grid": _tuning_grid(decoded, curves, bins),
        "scores": _scores(decoded.measured),
        "decoded": _decoded(decoded),
        "errors": _errors(decoded),
        "error_histogram": _error_histogram(decoded),
        "circle": _circle(decoded),
        "confusion": _confusion(decoded),
    }
    figures |= network_figures(
        decoded.networks, responses, decoded.train, decoded.test, preferred=preferred, bins=bins
    )
    n_trials, n_neurons = responses.responses.shape
    data = (
        f"{responses.name}; {n_trials} trials, {n_neurons} neurons; decoders on held-out trials of "
        f"{_n_folds(decoded)} folds; networks learned from {len(decoded.train)} trials, tested on "
        f"{len(decoded.test)}"
    )
    save_figures(run, figures, data, dpi=110)


def _n_folds(decoded: Decoded) -> int:
    answer = next(iter(decoded.answers.values()))
    return int(np.max(answer.fold)) + 1


def tuning_bins(bins: AngleBins, responses: Responses) -> AngleBins:
    """Return bins for tuning curves: the classes where stimuli repeat, else as fine as leaves none empty."""
    angles, period = responses.angles_degrees, responses.period_degrees
    repeated = len(np.unique(np.round(np.asarray(angles), 3))) <= bins.n_bins
    n_bins = bins.n_bins if repeated else min(_MOST_BINS, len(angles) // 4)
    while (
        not repeated
        and n_bins > 4
        and len(np.unique(np.asarray(AngleBins(n_bins, period).index(angles)))) < n_bins
    ):
        n_bins -= 1
    return bins if repeated else AngleBins(max(n_bins, 2), period)


def _responses(responses: Responses, preferred: np.ndarray) -> Figure:
    figure = Figure((9, 6), layout="constrained")
    quantity = "spikes in a trial" if responses.is_count else "response"
    ax = plotting.response_matrix(
        responses.responses,
        responses.angles_degrees,
        figure.subplots(),
        preferred_degrees=preferred,
        quantity=quantity,
    )
    ax.set_title(responses.name)
    return figure


def _best_tuned(responses: Responses, curves: np.ndarray, n_neurons: int) -> np.ndarray:
    """Return the neurons of whose variance over trials the tuning curve has the largest share, best first."""
    variance = np.var(np.asarray(responses.responses), axis=0)
    share = np.nanvar(curves, axis=1) / np.where(variance > 0, variance, np.inf)
    return np.argsort(-share, kind="stable")[:n_neurons]


def _preferred(curves: np.ndarray, bins: AngleBins) -> np.ndarray:
    """Return where the smoothed curves are largest; with a bin that has no trial, the curves as they are."""
    if np.isnan(curves).any():
        return bins.centers_degrees[np.nanargmax(curves, axis=1)]
    smooth = nc.circular_smooth(curves, _SMOOTHING_DEGREES / bins.width_degrees)
    return np.asarray(nc.peak_angle(smooth, bins.centers_degrees))


def _tuning(responses: Responses, curves: np.ndarray, bins: AngleBins) -> Figure:
    chosen = _best_tuned(responses, curves, _N_CURVES)
    period, seen = responses.period_degrees, ~np.isnan(curves).any(axis=0)
    fits = nc.fit_von_mises_batch(
        curves[np.ix_(chosen, seen)],
        bins.centers_degrees[seen],
        n_peaks=2 if period == 360 and seen.sum() >= 6 else 1,
        period_degrees=period,
    )
    angles = np.linspace(0, period, _N_FINE)
    fitted = jax.vmap(jax.vmap(nc.von_mises, (0, None)), (None, 0))(jnp.asarray(angles), fits.tuning)
    figure = Figure((8, 4.5), layout="constrained")
    labels = [
        f"neuron {responses.neurons[n]}, R² {r2:.2f}" for n, r2 in zip(chosen, fits.r_squared, strict=True)
    ]
    ax = plotting.tuning_curves(
        bins.centers_degrees[seen],
        curves[np.ix_(chosen, seen)],
        figure.subplots(),
        fits=(angles, np.asarray(fitted)),
        standard_errors=_standard_errors(responses, bins)[np.ix_(chosen, seen)],
        labels=labels,
    )
    ax.set_title(f"{len(chosen)} well-tuned neurons, mean ± standard error, and von Mises fits")
    return figure


def _standard_errors(responses: Responses, bins: AngleBins) -> np.ndarray:
    """Return those of tuning curves; NaN in a bin with one trial."""
    binned = nc.bin_responses(responses.responses, responses.angles_degrees, bins)
    index = np.asarray(bins.index(responses.angles_degrees))
    residuals = np.asarray(responses.responses, np.float64) - np.asarray(binned.responses, np.float64)[index]
    squares = nc.bin_responses(residuals**2, responses.angles_degrees, bins).responses
    n_trials = np.asarray(binned.n_trials)[:, None].astype(float)
    return np.sqrt(np.asarray(squares) / np.where(n_trials > 1, n_trials - 1, np.nan)).T


def _tuning_grid(decoded: Decoded, curves: np.ndarray, bins: AngleBins) -> Figure:
    """Draw tuning in the trials that the networks learn from, and in the others."""
    responses = decoded.responses
    chosen = _best_tuned(responses, curves, _N_GRID)
    n_bins = bins.n_bins if bins == decoded.bins else min(bins.n_bins, 36)
    coarse = AngleBins(n_bins, bins.period_degrees, bins.start_degrees)
    values, angles = np.asarray(responses.responses)[:, chosen], np.asarray(responses.angles_degrees)
    first, second = (
        np.asarray(nc.tuning_curves(values[rows], angles[rows], coarse))
        for rows in (decoded.train, decoded.test)
    )
    figure = Figure((10, 6), layout="constrained")
    names = [f"neuron {responses.neurons[n]}" for n in chosen]
    plotting.tuning_grid(
        coarse.centers_degrees,
        first,
        second,
        figure.subplots(),
        names=names,
        labels=(f"{len(decoded.train)} training trials", f"{len(decoded.test)} test trials"),
    )
    return figure


def _scores(measured: dict[str, Any]) -> Figure:
    names, period = list(measured["decoders"]), int(measured["period_degrees"])
    figure = Figure((13, 0.38 * len(names) + 1.6), layout="constrained")
    for ax, kind, chance, quantity in zip(
        figure.subplots(1, 2),
        (f"median_error_{period}", "fraction_correct"),
        ("median_error", "fraction_correct"),
        (f"median error on a circle of {period}° (°)", "fraction correct"),
        strict=True,
    ):
        scores = [measured["decoders"][name][kind] for name in names]
        plotting.score_comparison(
            names,
            [score["value"] for score in scores],
            [score["standard_error"] for score in scores],
            ax,
            chance=measured["chance"][chance],
            quantity=quantity,
            is_log=kind.startswith("median") and all(score["value"] > 0 for score in scores),
        )
    return figure


def _decoded(decoded: Decoded) -> Figure:
    figure, axes = grid(len(decoded.answers), 3.6, 3.8)
    for ax, (name, answer) in zip(axes, decoded.answers.items(), strict=True):
        edges = decoded.bins.edges_degrees if _is_of_classes(answer, decoded.bins) else None
        plotting.decoded_against_true(
            answer.true_degrees,
            answer.predicted_degrees,
            ax,
            period_degrees=answer.period_degrees,
            bin_edges_degrees=edges,
        ).set_title(name)
    return figure


def _is_of_classes(answer: CrossValidation, bins: AngleBins) -> bool:
    """Return whether all answers are centres of bins."""
    predicted, centers = answer.predicted_degrees[:, None], bins.centers_degrees[None]
    apart = np.abs(np.asarray(nc.circular_difference(predicted, centers, bins.period_degrees)))
    return bool(np.all(apart.min(axis=1) < 1e-3))


def _sizes(answer: CrossValidation) -> np.ndarray:
    difference = nc.circular_difference(answer.predicted_degrees, answer.true_degrees, answer.period_degrees)
    return np.abs(np.asarray(difference))


def _errors(decoded: Decoded) -> Figure:
    figure, axes = grid(len(decoded.answers), 3.8, 3.1)
    for ax, (name, answer) in zip(axes, decoded.answers.items(), strict=True):
        period = answer.period_degrees
        plotting.error_against_angle(
            answer.true_degrees, _sizes(answer), ax, period_degrees=period, chance_degrees=period / 4
        ).set_title(name)
        # One scale for all, so that they can be compared.
        ticks = np.linspace(0, period / 2, 5)
        ax.set_ylim(-0.02 * period, 0.52 * period)
        ax.set_yticks(ticks, [f"{tick:g}°" for tick in ticks])
    return figure


def _error_histogram(decoded: Decoded) -> Figure:
    figure, axes = grid(len(decoded.answers), 3.8, 3.1)
    for ax, (name, answer) in zip(axes, decoded.answers.items(), strict=True):
        plotting.error_histogram(_sizes(answer), ax, period_degrees=answer.period_degrees).set_title(name)
    return figure


def _circle(decoded: Decoded) -> Figure:
    figure, axes = grid(len(decoded.answers), 4.4, 3.9)
    for ax, (name, answer) in zip(axes, decoded.answers.items(), strict=True):
        plotting.decoded_on_circle(
            answer.true_degrees, answer.predicted_degrees, ax, period_degrees=answer.period_degrees
        ).set_title(name)
        ax.set_xlabel("")
    figure.suptitle("true angle on the outer ring, decoded angle on the inner ring")
    return figure


def _confusion(decoded: Decoded) -> Figure:
    figure, axes = grid(len(decoded.answers), 4.2, 3.9)
    bins = decoded.bins
    for ax, (name, answer) in zip(axes, decoded.answers.items(), strict=True):
        counts = nc.confusion_matrix(
            bins.index(answer.predicted_degrees), bins.index(answer.true_degrees), bins.n_bins
        )
        plotting.confusion(np.asarray(counts), ax, centers_degrees=bins.centers_degrees).set_title(name)
    return figure
