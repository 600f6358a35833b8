"""The pictures of a run of ``neurojax encode``."""

from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .. import neural_coding as nc
from .. import plotting
from ..runs import RunFolder
from ._encode_models import Trained
from ._encode_settings import Stimuli
from ._figures import save_figures

__all__ = ["Encoded", "draw"]

_N_GRID, _N_PREDICTED, _N_IMAGES = 15, 10, 30
_QUANTITIES = {
    "squared_error": "squared error (z-scored responses)",
    "correlation": "correlation",
    "feve": "share of explainable variance explained",
}
_SCHEMES = {"repeats": "other trials, same gratings", "angles": "gratings not seen"}


class Encoded(NamedTuple):
    """All that a run has to show.

    Attributes:
        stimuli: and responses.
        trained: encoders of all gratings.
        predicted: of each way to test, each encoder and baseline, (stimuli, neurons).
        scores: likewise, of each neuron.
        measured: what ``results.json`` holds.
    """

    stimuli: Stimuli
    trained: dict[str, Trained]
    predicted: dict[str, dict[str, np.ndarray]]
    scores: dict[str, dict[str, dict[str, np.ndarray]]]
    measured: dict[str, Any]


def draw(run: RunFolder, encoded: Encoded) -> None:
    """Draw and save every picture of a run."""
    stimuli = encoded.stimuli
    figures = {
        "responses": _responses(stimuli),
        "stimuli": _images(stimuli),
        "tuning_grid": _tuning_grid(stimuli),
        "scores": _scores(encoded),
        "neurons": _neurons(encoded),
    }
    for scheme, predicted in encoded.predicted.items():
        name = "predictions" if scheme == "repeats" else "predictions_angles"
        figures[name] = _predictions(stimuli, next(iter(predicted.items())), _SCHEMES[scheme])
    learned = {name: of for name, of in encoded.trained.items() if of.history is not None}
    if learned:
        figures["losses"] = _losses(learned)
    convolutional = {name: of for name, of in learned.items() if hasattr(of.first, "readout")}
    if convolutional:
        figures["filters"] = _filters(convolutional)
    n_gratings, n_neurons = stimuli.train.shape
    data = (
        f"{stimuli.name}; {n_gratings} gratings, {n_neurons} neurons; {stimuli.n_train_repeats} training and "
        f"{len(stimuli.test)} test trials of each grating"
    )
    save_figures(run, figures, data, dpi=110)


def _responses(stimuli: Stimuli) -> Figure:
    figure = Figure((9, 5), layout="constrained")
    peak = stimuli.angles_degrees[np.argmax(stimuli.train, axis=0)]
    ax = plotting.response_matrix(
        stimuli.train,
        stimuli.angles_degrees,
        figure.subplots(),
        preferred_degrees=peak,
        quantity="response (z-score)",
    )
    ax.set_title(f"{stimuli.name}: mean of {stimuli.n_train_repeats} training trials a grating")
    ax.set_ylabel("grating, by angle")
    return figure


def _images(stimuli: Stimuli) -> Figure:
    images, angles = np.asarray(stimuli.images), stimuli.angles_degrees
    shown = np.round(np.linspace(0, len(images) - 1, min(len(images), _N_IMAGES))).astype(int)
    figure = Figure((9, 6), layout="constrained")
    # A grey frame, as black and white stripes have no edge of their own.
    framed = np.pad(images[shown], ((0, 0), (1, 1), (1, 1)))
    ax = plotting.image_sheet(framed, figure.subplots(), scale="common", saturated=0, n_columns=6)
    steps = f"{angles[shown[0]]:g}° to {angles[shown[-1]]:g}°, row by row"
    ax.set_title(f"{len(shown)} of {len(images)} gratings, {steps}")
    return figure


def _tuned(stimuli: Stimuli, n_neurons: int) -> np.ndarray:
    """Return the neurons that respond most alike in training and test trials, best first."""
    alike = np.asarray(nc.response_correlation(stimuli.train, stimuli.test.mean(axis=0)))
    return np.argsort(-np.nan_to_num(alike, nan=-2), kind="stable")[:n_neurons]


def _tuning_grid(stimuli: Stimuli) -> Figure:
    chosen = _tuned(stimuli, _N_GRID)
    figure = Figure((10, 6), layout="constrained")
    plotting.tuning_grid(
        stimuli.angles_degrees,
        stimuli.train[:, chosen].T,
        stimuli.test.mean(axis=0)[:, chosen].T,
        figure.subplots(),
        names=[f"neuron {stimuli.neurons[n]}" for n in chosen],
        quantity="response (z-score)",
    )
    return figure


def _predictions(stimuli: Stimuli, named: tuple[str, np.ndarray], scheme: str) -> Figure:
    name, predicted = named
    chosen = _tuned(stimuli, _N_PREDICTED)
    figure = Figure((10, 4.6), layout="constrained")
    ax = plotting.tuning_grid(
        stimuli.angles_degrees,
        predicted[:, chosen].T,
        stimuli.test.mean(axis=0)[:, chosen].T,
        figure.subplots(),
        names=[f"neuron {stimuli.neurons[n]}" for n in chosen],
        labels=(f"predicted, {name}", "measured, test trials"),
        quantity="response (z-score)",
    )
    ax.set_title(scheme, pad=18)
    return figure


def _losses(trained: dict[str, Trained]) -> Figure:
    figure = Figure((4.4 * len(trained), 3.6), layout="constrained")
    axes = figure.subplots(1, len(trained), squeeze=False)[0]
    for ax, (name, of) in zip(axes, trained.items(), strict=True):
        history = of.history
        assert history is not None
        # A run may be shorter than the time between two looks at the test trials.
        test = (history.evaluation_steps, history.evaluation["loss"]) if history.evaluation else None
        plotting.history(
            np.arange(len(history)),
            history["data_loss"],
            ax,
            evaluation=test,
            quantity="squared error, without penalties",
        ).set_title(name)
    return figure


def _filters(trained: dict[str, Trained]) -> Figure:
    figure = Figure((7, 2.6 * len(trained)), layout="constrained")
    axes = figure.subplots(len(trained), 1, squeeze=False)[:, 0]
    for ax, (name, of) in zip(axes, trained.items(), strict=True):
        plotting.filter_pairs(np.asarray(of.first.filters), np.asarray(of.model.filters), ax).set_title(name)
    return figure


def _scores(encoded: Encoded) -> Figure:
    of_schemes = encoded.measured["scores"]
    kinds = list(next(iter(next(iter(of_schemes.values())).values())))
    n_names = max(map(len, of_schemes.values()))
    figure = Figure((5.2 * len(kinds), (0.38 * n_names + 1.5) * len(of_schemes)), layout="constrained")
    grid = figure.subplots(len(of_schemes), len(kinds), squeeze=False)
    for axes, (scheme, of_scheme) in zip(grid, of_schemes.items(), strict=True):
        for ax, kind in zip(axes, kinds, strict=True):
            scores = [of_scheme[name][kind] for name in of_scheme]
            plotting.score_comparison(
                list(of_scheme),
                [_number(score["mean"]) for score in scores],
                [_number(score["standard_error"]) for score in scores],
                ax,
                quantity=_QUANTITIES[kind],
            ).set_title(_SCHEMES[scheme])
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _neurons(encoded: Encoded) -> Figure:
    """Draw how the scores of single neurons are spread: of explained variance, or else of correlation."""
    schemes = encoded.scores
    kind = "feve" if "feve" in next(iter(next(iter(schemes.values())).values())) else "correlation"
    shown = [(scheme, name) for scheme, models in schemes.items() for name in models if name != "null"]
    n_columns = max(len(models) - 1 for models in schemes.values())
    figure = Figure((2.6 * n_columns, 2.6 * len(schemes)), layout="constrained")
    grid = figure.subplots(len(schemes), n_columns, squeeze=False, sharex=True, sharey="row")
    for row, scheme in zip(grid, schemes, strict=True):
        names = [name for of, name in shown if of == scheme]
        for ax in row[len(names) :]:
            ax.remove()
        for ax, name in zip(row, names, strict=False):
            values = schemes[scheme][name][kind]
            values = values[np.isfinite(values)]
            ax.hist(np.clip(values, -1, 1), np.linspace(-1, 1, 21), color="#0072B2", alpha=0.8)
            if len(values):
                ax.axvline(np.clip(np.mean(values), -1, 1), color="#D55E00", lw=1.6)
            ax.set_title(name, fontsize=10)
            ax.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel(f"neurons\n{_SCHEMES[scheme]}", fontsize=9)
    note = "; below −1 drawn at −1" if kind == "feve" else ""
    figure.supxlabel(f"{_QUANTITIES[kind]}, and its mean{note}", fontsize=10)
    return figure
