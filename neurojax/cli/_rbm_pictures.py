"""The pictures of a run of a restricted Boltzmann machine."""

import jax
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from .. import boltzmann, plotting
from ..runs import RunFolder
from ..training import FitResult, History
from ._figures import name_of, save_figures
from ._rbm_settings import Rows, Settings

__all__ = ["draw"]

_NAMES = {"digits": "bundled MNIST digits", "mnist": "MNIST", "binarized-mnist": "binarized MNIST"}
_MOST_FILTERS = 400


def draw(
    run: RunFolder, result: FitResult, rows: Rows, snapshots: Array, settings: Settings, is_crossed: bool
) -> None:
    """Draw and save every picture of a run.

    Args:
        run: where.
        result: of training.
        rows: the data.
        snapshots: (chains, snapshots, visible), p(v = 1 | h).
        settings: of the run.
        is_crossed: whether the likelihood's bracket shows that the chains have not mixed.
    """
    shape, n_between = rows.image_shape, settings.likelihood.snapshot_every
    figures = {
        "filters": _filters(np.asarray(result.model.weights).T, shape),
        "data": _data(_images(rows.train[:72], shape)),
        "samples": _samples(_images(snapshots, shape), snapshots.shape[1], n_between, is_crossed),
        "reconstructions": _reconstructions(result.model, rows.reported[:64], shape, rows.kind),
        "history": _history(result.history, rows.is_held_out),
    }
    n_units, n_reported = result.model.weights.shape[1], f" and {len(rows.reported):,} held-out"
    numbers = (
        f"{len(rows.train):,} training{n_reported if rows.is_held_out else ''} rows; {n_units} hidden units; "
        f"{len(result.history):,} updates"
    )
    save_figures(run, figures, f"{name_of(settings.data.data, _NAMES)}; {numbers}")


def _images(rows: Array, shape: tuple[int, int] | tuple[int, int, int]) -> np.ndarray:
    return np.asarray(rows).reshape(-1, *shape)


def _filters(filters: np.ndarray, shape: tuple[int, int] | tuple[int, int, int]) -> Figure:
    figure = Figure((7, 7.25), layout="constrained")
    ax = plotting.atom_grid(filters[:_MOST_FILTERS], shape, figure.subplots())
    n_shown = f"{_MOST_FILTERS} of {len(filters)}" if len(filters) > _MOST_FILTERS else f"{len(filters)}"
    ax.set_title(f"weights of {n_shown} hidden units, each scaled alone; 0 is mid-gray")
    return figure


def _data(images: np.ndarray) -> Figure:
    figure = Figure((10, 5.3), layout="constrained")
    ax = plotting.image_sheet(images, figure.subplots(), scale="common", saturated=0, n_columns=12)
    ax.set_title("training rows as the machine sees them")
    return figure


def _samples(images: np.ndarray, n_snapshots: int, n_between: int, is_crossed: bool) -> Figure:
    figure = Figure((7, 7.25), layout="constrained")
    ax = plotting.image_sheet(images, figure.subplots(), scale="common", saturated=0, n_columns=n_snapshots)
    title = f"fantasy particles, p(v = 1 | h): a chain a row, {n_between} Gibbs steps a column"
    warning = "\nthe likelihood's bracket is crossed: the chains have not mixed"
    ax.set_title(title + warning if is_crossed else title)
    return figure


def _reconstructions(
    rbm: boltzmann.BernoulliRBM, rows: Array, shape: tuple[int, int] | tuple[int, int, int], kind: str
) -> Figure:
    figure = Figure((10, 5.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    reconstructed = jax.vmap(boltzmann.mean_field_step, (None, 0))(rbm, rows)
    for ax, values in ((left, rows), (right, reconstructed)):
        plotting.image_sheet(_images(values, shape), ax, scale="common", saturated=0, n_columns=8)
    left.set_title(f"{kind} rows")
    right.set_title("their reconstructions, one mean-field step")
    return figure


def _history(history: History, is_held_out: bool) -> Figure:
    curves = {
        "pseudo_log_likelihood": (
            "held out" if is_held_out else "training rows",
            "pseudo-log-likelihood (nats)",
        ),
        "free_energy_gap": ("held out above training", "free-energy gap (nats)"),
    }
    curves = {name: texts for name, texts in curves.items() if name in history.evaluation}
    figure = Figure((4.5 * (len(curves) + 1), 3.8), layout="constrained")
    *axes, last = figure.subplots(1, len(curves) + 1, squeeze=False)[0]
    for ax, (name, (label, quantity)) in zip(axes, curves.items(), strict=True):
        measured = history.evaluation[name]
        plotting.history(history.evaluation_steps, measured, ax, quantity=quantity, label=label)
    steps, smoothing = np.arange(1, len(history) + 1), max(len(history) // 20, 1)
    activity = history["hidden_activity"]
    plotting.history(steps, activity, last, smoothing=smoothing, quantity="mean hidden activity")
    return figure
