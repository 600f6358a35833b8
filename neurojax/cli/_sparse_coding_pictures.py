"""The pictures of a sparse-coding run."""

import numpy as np
from matplotlib.figure import Figure

from .. import plotting, receptive_fields
from ..runs import RunFolder
from ..training import FitResult
from ._figures import save_figures
from ._sparse_coding_settings import Settings, name_of_images

__all__ = ["draw"]

_MOST_FITS = 60


def draw(
    run: RunFolder, result: FitResult, patches, codes: np.ndarray, fits, settings: Settings, seen
) -> None:
    """Draw and save every picture of a run.

    Args:
        run: the folder.
        result: of training.
        patches: held out.
        codes: of ``patches``.
        fits: Gabor functions fitted to the atoms.
        settings: of the run.
        seen: patches of the regions that were learned from, whose contrast is compared with ``patches``.
    """
    side = settings.model.patch_size
    atoms, patches = np.asarray(result.model.atoms), np.asarray(patches)
    figures = {
        "receptive_fields": _receptive_fields(atoms, fits, side),
        "gabor_fits": _gabor_fits(atoms, fits, side),
        "loss": _loss(result, _energy_at_zero(seen), _energy_at_zero(patches)),
        "codes": _codes(codes),
        "reconstructions": _reconstructions(patches, codes @ atoms, side),
    }
    numbers = f"{len(atoms)} atoms of {side} × {side} pixels; {len(patches):,} held-out patches"
    updates = f"{len(result.history):,} updates of {settings.learning.batch_size} patches"
    save_figures(run, figures, f"{name_of_images(settings.data)}; {numbers}; {updates}")


def _receptive_fields(atoms, fits, side: int) -> Figure:
    figure = Figure((11, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(5, 4))
    plotting.atom_grid(atoms, (side, side), left).set_title(f"{len(atoms)} atoms, each scaled alone")
    is_good = receptive_fields.is_gabor_like(fits)
    orientation, frequency = (np.asarray(a)[is_good] for a in (fits.gabor.orientation, fits.gabor.frequency))
    plotting.orientation_frequency(orientation, frequency, right)
    right.set_title(f"the {is_good.sum()} of {len(atoms)} atoms that are like a Gabor function")
    return figure


def _gabor_fits(atoms, fits, side: int) -> Figure:
    figure = Figure((8, 9), layout="constrained")
    ax = figure.subplots()
    ranked = np.argsort(-np.asarray(fits.r_squared), kind="stable")
    n_shown = min(len(ranked), _MOST_FITS)
    shown = ranked[np.round(np.linspace(0, len(ranked) - 1, n_shown)).astype(int)]
    fitted = np.asarray(receptive_fields.gabor_batch(fits.gabor, (side, side)))
    r_squared = np.asarray(fits.r_squared)[shown]
    plotting.gabor_fits(atoms[shown], fitted[shown], (side, side), ax, r_squared=r_squared, n_columns=10)
    ax.set_title(
        f"{n_shown} of {len(atoms)} atoms above their Gabor fits, with R²,\n"
        f"from the best to the worst{'' if n_shown == len(atoms) else ', at even steps of rank'}"
    )
    return figure


def _energy_at_zero(patches) -> float:
    """Return the mean of ½‖x‖²: the energy of patches whose code is zero."""
    return float(np.mean(np.sum(np.square(np.asarray(patches, float)), axis=1)) / 2)


def _loss(result: FitResult, of_training: float, of_held_out: float) -> Figure:
    """Draw the energy as it is, and as a share of the energy of the zero code.

    Regions of images differ in contrast, and the energy grows with it. Only the share says whether held-out
    patches are described as well as those that were learned from.
    """
    figure = Figure((11, 4), layout="constrained")
    history = result.history
    is_evaluated = len(history.evaluation_steps) > 0
    for ax, training, held_out, quantity in zip(
        figure.subplots(1, 2),
        (1.0, of_training),
        (1.0, of_held_out),
        ("mean energy", "mean energy / mean ½‖x‖²"),
        strict=True,
    ):
        plotting.history(
            np.arange(1, len(history) + 1),
            history["loss"] / training,
            ax,
            evaluation=(
                (history.evaluation_steps, history.evaluation["loss"] / held_out) if is_evaluated else None
            ),
            smoothing=max(len(history) // 20, 1),
            quantity=quantity,
            label="training batches, before each update",
        )
    ax.set_title(f"½‖x‖² of a patch: {of_training:.2f} in training, {of_held_out:.2f} held out")
    return figure


def _codes(codes: np.ndarray) -> Figure:
    figure = Figure((10, 7), layout="constrained")
    ((raster, histogram), (active, activity)) = figure.subplots(2, 2)
    plotting.code_raster(codes[:100], raster).set_title(f"codes of {min(100, len(codes))} held-out patches")
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
