"""The settings of ``neurojax sparse-coding``, and what they stand for."""

from dataclasses import dataclass, field
from typing import Literal

import jax.numpy as jnp
import optax
from jax import Array

from .. import data, penalties, sparse_coding
from .._checks import check_positive
from ..convergence import AbstractSolver
from ._devices import Devices
from ._settings import Output

__all__ = ["Settings", "make_optimizer", "make_penalty", "make_solver", "read_images"]

_VARIANCE_1996 = 0.079  # of the 1996 images; strengths are relative to it


@dataclass(frozen=True)
class Model:
    """The dictionary."""

    n_atoms: int = 100
    """Number of atoms."""
    patch_size: int = 16
    """Side of a patch in pixels."""


@dataclass(frozen=True)
class Penalty:
    """The prior on the code."""

    penalty: Literal[
        "l1", "nonnegative-l1", "elastic-net", "l0", "cauchy", "log", "smooth-l1", "gaussian", "group-l2"
    ] = "l1"
    """Which penalty."""
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
    """How codes are found."""

    solver: Literal["sparsa", "fista", "ista", "lca", "coordinate-descent", "gradient"] | None = None
    """The solver; by default sparsa for penalties with a duality gap, else fista. Smooth penalties without
    a closed proximal operator need gradient."""
    tol: float = 1e-3
    """Tolerance while learning: relative duality gap (L1 kinds), else relative movement."""
    final_tol: float = 1e-5
    """Tolerance for the codes that are reported."""
    max_inference_steps: int = 1000
    """Most solver steps a patch."""
    steps_per_check: int | None = None
    """Solver steps between two looks at the tolerance; by default 1 for sparsa, else 10."""
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
    """How atoms are learned."""

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
    """Stop after so many evaluations without a better one, and keep the best."""
    checkpoint_every: int = 250
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Data:
    """The images. The right eighth of each is held out."""

    data: str = "photographs"
    """photographs (bundled), olshausen (the 1996 set), kodak, or a path: a folder of images, an .npy, .npz
    or .mat file."""
    whitening: Literal["auto", "1996", "none"] = "auto"
    """The filter f·exp(-(f/f₀)⁴) of 1996, then each image at variance 0.079; auto: for all but that set."""
    cutoff: float = 0.4
    """f₀ of that filter, in cycles per pixel."""
    preprocess: Literal["mean", "variance", "none"] = "mean"
    """What is taken from each patch: its mean, also its variance, or nothing."""


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


def read_images(settings: Data) -> list[Array]:
    """Load the images and whiten them as asked."""
    sets = {
        "photographs": data.natural_images,
        "olshausen": data.olshausen_images,
        "kodak": data.kodak_images,
    }
    images = list(sets[settings.data]() if settings.data in sets else data.load_images(settings.data))
    if settings.whitening == "none" or (settings.whitening == "auto" and settings.data == "olshausen"):
        return images
    white = [data.whiten_1996(image, settings.cutoff) for image in images]
    if not all(jnp.var(image) > 0 for image in white):
        raise ValueError("data: expected images that vary, got a constant one.")
    return [image * jnp.sqrt(_VARIANCE_1996 / jnp.var(image)) for image in white]
