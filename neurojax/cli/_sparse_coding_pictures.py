"""The pictures of a sparse-coding run."""

import numpy as np
from matplotlib.figure import Figure

from .. import plotting, receptive_fields
from ..runs import RunFolder
from ..training import FitResult
from ._sparse_coding_settings import Settings

__all__ = ["draw"]


def draw(run: RunFolder, result: FitResult, patches, codes: np.ndarray, fits, settings: Settings) -> None:
    """Draw and save every picture of a run."""
    side = settings.model.patch_size
    atoms = np.asarray(result.model.atoms)
    for name, figure in {
        "receptive_fields": _receptive_fields(atoms, fits, side),
        "gabor_fits": _gabor_fits(atoms, fits, side),
        "loss": _loss(result),
        "codes": _codes(codes),
        "reconstructions": _reconstructions(np.asarray(patches), codes @ atoms, side),
    }.items():
        figure.savefig(run.picture_path(name), dpi=150)


def _receptive_fields(atoms, fits, side: int) -> Figure:
    figure = Figure((11, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    plotting.atom_grid(atoms, (side, side), left).set_title(f"{len(atoms)} atoms, each scaled alone")
    is_good = np.asarray(fits.r_squared) >= 0.7
    orientation, frequency = (np.asarray(a)[is_good] for a in (fits.gabor.orientation, fits.gabor.frequency))
    plotting.orientation_frequency(orientation, frequency, right)
    right.set_title(f"Gabor fits with R² ≥ 0.7: {is_good.mean():.0%} of the atoms")
    return figure


def _gabor_fits(atoms, fits, side: int) -> Figure:
    figure = Figure((8, 9), layout="constrained")
    ax = figure.subplots()
    order = np.argsort(-np.asarray(fits.r_squared))[:60]
    fitted = np.asarray(receptive_fields.gabor_batch(fits.gabor, (side, side)))
    r_squared = np.asarray(fits.r_squared)[order]
    plotting.gabor_fits(atoms[order], fitted[order], (side, side), ax, r_squared=r_squared, n_columns=10)
    ax.set_title(f"the {len(order)} best fitted atoms above their Gabor fits, with R²")
    return figure


def _loss(result: FitResult) -> Figure:
    figure = Figure((6, 4), layout="constrained")
    history = result.history
    evaluation = None
    if len(history.evaluation_steps):
        evaluation = (history.evaluation_steps, history.evaluation["loss"])
    plotting.history(
        np.arange(1, len(history) + 1),
        history["loss"],
        figure.subplots(),
        evaluation=evaluation,
        smoothing=max(len(history) // 20, 1),
        quantity="mean energy",
    )
    return figure


def _codes(codes: np.ndarray) -> Figure:
    figure = Figure((10, 7), layout="constrained")
    ((raster, histogram), (active, activity)) = figure.subplots(2, 2)
    plotting.code_raster(codes[:100], raster).set_title("codes of 100 held-out patches")
    plotting.code_histogram(codes, histogram).set_title("coefficients")
    plotting.active_units(codes, active).set_title("sparsity")
    plotting.unit_activity(codes, activity).set_title("activity")
    return figure


def _reconstructions(patches: np.ndarray, reconstructed: np.ndarray, side: int) -> Figure:
    figure = Figure((8, 5), layout="constrained")
    ax = figure.subplots()
    plotting.reconstructions(patches[:32], reconstructed[:32], (side, side), ax, n_columns=8, is_signed=True)
    ax.set_title("held-out patches above their reconstructions")
    return figure
