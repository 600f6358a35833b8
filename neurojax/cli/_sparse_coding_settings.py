"""The settings of ``neurojax sparse-coding``, and what they stand for."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import optax
from jax import Array

from .. import data, penalties, sparse_coding
from .._checks import check_positive
from ..convergence import AbstractSolver
from ._devices import Devices, say
from ._figures import name_of
from ._settings import Output, check_file_settings, describe_rows

__all__ = [
    "Settings",
    "make_optimizer",
    "make_penalty",
    "make_solver",
    "name_of_images",
    "read_images",
    "with_patch_size",
]

_SETS = {"photographs": "natural_images", "olshausen": "olshausen_images", "kodak": "kodak_images"}
_VARIANCE_1996 = 0.079  # of the 1996 images; strengths are relative to it


@dataclass(frozen=True)
class Model:
    """The dictionary."""

    n_atoms: int = 100
    """Number of atoms."""
    patch_size: int = 16
    """Side of a patch in pixels; that of the data where these are patches."""


@dataclass(frozen=True)
class Penalty:
    """The prior on the code."""

    penalty: Literal[
        "l1", "nonnegative-l1", "elastic-net", "l0", "cauchy", "log", "smooth-l1", "gaussian", "group-l2"
    ] = "l1"
    """The penalty."""
    strength: float = 0.3
    """Its strength, for patches of images whose pixels have variance 0.079."""
    l2: float = 0.1
    """Quadratic part of elastic-net."""
    scale: float = 1.0
    """Scale of the coefficients for cauchy and gaussian."""
    epsilon: float = 1e-7
    """Smoothing of smooth-l1."""
    group_size: int = 2
    """Atoms in a group of group-l2."""


@dataclass(frozen=True)
class Inference:
    """Settings of inference."""

    solver: Literal["sparsa", "fista", "ista", "lca", "coordinate-descent", "gradient"] | None = None
    """The solver; by default sparsa for penalties with a duality gap, else fista. Smooth penalties without
    a closed proximal operator need gradient."""
    tol: float = 1e-3
    """Tolerance while learning: relative duality gap (L1 kinds), else relative movement."""
    final_tol: float = 1e-5
    """Tolerance for the codes that are reported."""
    max_inference_steps: int = 5000
    """Most solver steps a patch."""
    steps_per_check: int | None = None
    """Solver steps between two looks at the tolerance; by default a block for sparsa, else 10."""
    inference_step_size: float | None = None
    """Step size of ista, fista and gradient; by default 1/L (gradient: 0.05)."""
    backtracking: bool = False
    """Let ista and fista find their step size."""
    time_constant: float = 10.0
    """Membrane time constant of lca, in ms."""
    time_step: float | None = None
    """Time step of lca, in ms; by default a tenth of the time constant or the stability limit."""


@dataclass(frozen=True)
class Learning:
    """Settings of learning the atoms."""

    n_steps: int = 1000
    """Number of updates."""
    batch_size: int = 250
    """Patches an update."""
    optimizer: Literal["sgd", "adam", "rmsprop", "adagrad"] = "sgd"
    """The optimiser of the atoms."""
    step_size: float | None = None
    """Its step size, for the mean over a batch; by default 2.5 for sgd (that of 1996 on the sum of 250), else
    0.01."""
    momentum: float = 0.0
    """Momentum of sgd and rmsprop."""
    replace_after: int | None = None
    """Replace an atom after so many steps without use."""
    evaluate_every: int = 100
    """Updates between evaluations on held-out patches."""
    n_evaluation: int = 1000
    """Held-out patches."""
    patience: int | None = None
    """Stop after so many evaluations without a better one, and keep the best; then half of what is held out
    decides, and the other half is reported on."""
    checkpoint_every: int = 250
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Data:
    """Images, of which some are held out (of fewer than six, a band in the middle of each), or patches."""

    data: str = "photographs"
    """photographs (bundled), olshausen (the 1996 set), kodak, or a path: a folder of images, an image, an
    .npy, .npz or .mat file."""
    array: str | None = None
    """Name of the array, in an .npz or .mat file with several."""
    layout: Literal["images", "patches"] | None = None
    """The meaning of an array of two axes: one image, or patches, one a row. By default one image, unless its
    rows could be square patches: then it must be given."""
    whitening: Literal["auto", "1996", "none"] = "auto"
    """The filter f·exp(-(f/f₀)⁴) of 1996, then each image at variance 0.079; auto: for all but that set and
    patches."""
    cutoff: float = 0.4
    """f₀ of that filter, in cycles per pixel."""
    preprocess: Literal["mean", "variance", "none"] = "mean"
    """Normalization of each patch: minus its mean, also over its standard deviation, or none."""


@dataclass(frozen=True)
class Settings:
    """Learn a dictionary of receptive fields from natural images (Olshausen & Field 1996).

    Leaves a run folder with config.json, metrics.jsonl, checkpoint/, dictionary.npz and the pictures
    receptive_fields.png, gabor_fits.png, loss.png, codes.png and reconstructions.png.
    """

    model: Model = field(default_factory=Model)
    penalty: Penalty = field(default_factory=Penalty)
    inference: Inference = field(default_factory=Inference)
    learning: Learning = field(default_factory=Learning)
    data: Data = field(default_factory=Data)
    devices: Devices = field(default_factory=Devices)
    output: Output = field(default_factory=Output)


def make_penalty(settings: Penalty) -> penalties.AbstractPenalty:
    """Return the penalty."""
    strength = settings.strength
    match settings.penalty:
        case "l1":
            return penalties.L1(strength)
        case "nonnegative-l1":
            return penalties.NonNegativeL1(strength)
        case "elastic-net":
            return penalties.ElasticNet(strength, settings.l2)
        case "l0":
            return penalties.L0(strength)
        case "cauchy":
            return penalties.Cauchy(strength, settings.scale)
        case "log":
            return penalties.Log(strength)
        case "smooth-l1":
            return penalties.SmoothL1(strength, settings.epsilon)
        case "gaussian":
            return penalties.Gaussian(strength, settings.scale)
        case "group-l2":
            return penalties.GroupL2(strength, settings.group_size)


def make_solver(settings: Inference) -> AbstractSolver | None:
    """Return the solver; ``None`` is the choice of `sparse_coding.encode_batch`."""
    match settings.solver:
        case None:
            return None
        case "sparsa":
            return sparse_coding.SpaRSA()
        case "fista":
            return sparse_coding.FISTA(settings.inference_step_size, settings.backtracking)
        case "ista":
            return sparse_coding.ISTA(settings.inference_step_size, settings.backtracking)
        case "lca":
            return sparse_coding.LCA(settings.time_constant, settings.time_step)
        case "coordinate-descent":
            return sparse_coding.CoordinateDescent()
        case "gradient":
            return sparse_coding.Gradient(
                optax.sgd(settings.inference_step_size or 0.05, momentum=0.9, nesterov=True)
            )


def make_optimizer(settings: Learning) -> optax.GradientTransformation:
    """Return the optimiser."""
    step_size = settings.step_size
    if step_size is None:
        step_size = 2.5 if settings.optimizer == "sgd" else 0.01
    check_positive("step_size", step_size)
    momentum = settings.momentum or None
    match settings.optimizer:
        case "sgd":
            return optax.sgd(step_size, momentum)
        case "adam":
            return optax.adam(step_size)
        case "rmsprop":
            return optax.rmsprop(step_size, momentum=momentum)
        case "adagrad":
            return optax.adagrad(step_size)


def name_of_images(settings: Data) -> str:
    """Return what the images are, in words, for the captions of pictures."""
    names = {
        "photographs": "bundled photographs",
        "olshausen": "the images of 1996",
        "kodak": "Kodak photographs",
    }
    return name_of(settings.data, names) + (", whitened" if _is_whitened(settings) else "")


def read_images(settings: Data) -> list[Array] | Array:
    """Load the images, or the patches as images, say what was read, and whiten them as asked.

    Raises:
        ValueError: for a file that cannot be read, or that may hold patches or one image, and images that do
            not vary.
    """
    check_file_settings(settings, _SETS, ("array", "layout"))
    if settings.data in _SETS:
        images = list(getattr(data, _SETS[settings.data])())
    elif settings.layout == "patches":
        return _read_patches(settings)
    else:
        images = list(data.load_images(settings.data, name=settings.array))
        _check_layout(settings, images)
    say(f"data: {describe_rows([image[None] for image in images])}")
    if not _is_whitened(settings):
        return images
    white = [data.whiten_1996(image, settings.cutoff) for image in images]
    if not all(jnp.var(image) > 0 for image in white):
        raise ValueError("data: expected images that vary, got a constant one.")
    return [image * jnp.sqrt(_VARIANCE_1996 / jnp.var(image)) for image in white]


def with_patch_size(model: Model, images: Sequence[Any] | Array, settings: Data) -> Model:
    """Return the model with the side of patches that were given as rows.

    Raises:
        ValueError: if another side was asked for.
    """
    if settings.layout != "patches":
        return model
    side = images[0].shape[0]
    if model.patch_size not in (side, Model.patch_size):
        raise ValueError(f"patch_size: expected {side}, the side of the patches, got {model.patch_size}.")
    return dataclasses.replace(model, patch_size=side)


def _is_whitened(settings: Data) -> bool:
    is_raw = settings.data != "olshausen" and settings.layout != "patches"
    return settings.whitening == "1996" or (settings.whitening == "auto" and is_raw)


def _read_patches(settings: Data) -> Array:
    """Return the rows of an array as square images."""
    if settings.whitening == "1996":
        raise ValueError("whitening: expected auto or none for patches, which are too small for the filter.")
    images = data.load_images(settings.data, name=settings.array)
    rows = images[0]
    if len(images) > 1 or (side := _side(rows.shape[1])) is None:
        raise ValueError(
            "layout: expected an array (patches, pixels) whose number of columns is a square, got "
            f"{len(images)} of shape {rows.shape}; if the patches are columns, transpose it, array.T."
        )
    patches = rows.reshape(-1, side, side)
    text = " (not whitened: the filter is for whole images)" if settings.whitening == "auto" else ""
    say(f"data: {describe_rows([patches], 'patches')}{text}")
    return patches


def _side(n_pixels: int) -> int | None:
    """Return the side of a square patch of so many pixels, or ``None`` if there is none."""
    side = math.isqrt(n_pixels)
    return side if side**2 == n_pixels and side > 1 else None


def _check_layout(settings: Data, images: list[Array]) -> None:
    """Raise ``ValueError`` for a matrix that may be one image or patches, unless the layout was given."""
    is_array = Path(settings.data).suffix.lower() in (".npy", ".npz", ".mat")
    if settings.layout is not None or len(images) > 1 or not is_array:
        return
    n_rows, n_columns = images[0].shape
    side = _side(n_columns)
    if side is None:
        return
    arrays = data.read_arrays(settings.data)  # once more, as images have lost the number of their axes
    if not any(array.shape == (n_rows, n_columns) for array in arrays.values()):
        return
    command = f"neurojax sparse-coding --data {settings.data}"
    command += f" --array {settings.array}" if settings.array is not None else ""
    raise ValueError(
        f"layout: {settings.data} may hold patches or an image. Type\n"
        f"  {command} --layout patches    for {n_rows} patches of {side} × {side}, or\n"
        f"  {command} --layout images     for one image of {n_rows} × {n_columns}."
    )
