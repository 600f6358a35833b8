"""The settings of ``neurojax autoencoder``, each kind's defaults, and which settings it has."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .._checks import check_nonnegative, check_positive, check_share
from ._devices import Devices
from ._settings import Output, check_counts

__all__ = ["Kind", "Settings", "check", "known", "resolve"]

Kind = Literal["plain", "denoising", "stacked", "sparse", "contractive", "variational"]
Activation = Literal["sigmoid", "relu", "tanh"]

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Model:
    """The autoencoder."""

    kind: Kind = "plain"
    """The member of the family."""
    n_hidden: tuple[int, ...] | None = None
    """Units of each hidden layer, the last being the code (variational: before the latent units); by default
    500, 500 500 (stacked), 1000 (sparse; 200 with --selection kl), 400 (variational)."""
    tied: bool = True
    """Whether the decoder's weights are the encoder's; not for variational, nor sparse but with kl."""
    activation: Activation | None = None
    """Activation of hidden units; by default sigmoid, tanh for variational. Sparse units: see --selection."""
    decoder_activation: Activation | None = None
    """Activation of the decoder's hidden layers, where there are several; by default the encoder's."""
    output: Literal["bernoulli", "gaussian"] | None = None
    """The kind of data: probabilities of binary units, whose cost is the cross-entropy in nats, or real
    numbers, whose cost is the squared error (variational: nats, one standard deviation learned). By default
    bernoulli, gaussian for whitened data and for sparse."""


@dataclass(frozen=True)
class Learning:
    """Settings of learning."""

    n_steps: int | None = None
    """Number of updates, for stacked those of fine-tuning; by default a number that takes some 20 seconds."""
    batch_size: int | None = None
    """Rows an update; by default 20, 100 for sparse and variational."""
    optimizer: Literal["sgd", "adam"] | None = None
    """The optimiser; by default sgd, adam for sparse, variational, gaussian outputs and cifar10."""
    step_size: float | None = None
    """Its step size; by default 0.1 for sgd, 0.001 for adam (0.002 for variational)."""
    evaluate_every: int = 250
    """Updates between evaluations on held-out rows."""
    n_evaluation: int = 500
    """Held-out rows for them, at most."""
    checkpoint_every: int = 1000
    """Updates between checkpoints."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class Denoising:
    """Corruption of the data before they are encoded (denoising, and stacked while it is pretrained)."""

    corruption: Literal["masking", "salt-and-pepper", "gaussian", "bit-flip"] = "masking"
    """Numbers become 0; become 0 or 1; get noise added; or x becomes 1 - x."""
    rate: tuple[float, ...] | None = None
    """Share of the numbers that are hit, below 1; for gaussian the noise's standard deviation. Stacked: one,
    or one for each layer. By default 0.3; stacked: 0.1, 0.2, and 0.3 from there."""


@dataclass(frozen=True)
class Contractive:
    """The penalty on the encoder's Jacobian (contractive)."""

    contraction: float = 0.1
    """Strength of the squared norm of the Jacobian."""


@dataclass(frozen=True)
class Stacked:
    """Layers learned one after the other, then together (stacked)."""

    pretrain: bool = True
    """Whether layers are learned one after the other first, each to reconstruct the codes below it."""
    pretraining_steps: int = 2500
    """Updates of each layer then; unlike n-steps they cannot grow in a resumed run."""
    finetuning: Literal["labels", "reconstruction"] | None = None
    """Fine-tuning of all layers together at the end, to classify or to reconstruct; by default labels, where
    the data have them."""


@dataclass(frozen=True)
class Sparse:
    """Selection of the active units (sparse)."""

    selection: Literal["topk", "batch-topk", "jump-relu", "relu-l1", "kl"] = "topk"
    """The k largest of each datum, or of a batch on average; those above learned thresholds; those above 0,
    with an L1 penalty; or sigmoid units with a target for their mean activity (kl, the classic one)."""
    k: int = 32
    """Active units a datum of topk and batch-topk."""
    l0: float = 0.02
    """Price of an active unit of jump-relu."""
    l1: float = 0.5
    """Strength of the L1 penalty of relu-l1."""
    sparsity: float = 10.0
    """Strength of the divergence from the target of kl."""
    sparsity_target: float = 0.05
    """That target, a mean activity."""
    auxiliary: float = 1 / 32
    """Strength of the loss that wakes dead units; not for kl."""
    dead_after: int = 100
    """Updates without use after which a unit is dead; not for kl."""


@dataclass(frozen=True)
class Variational:
    """Latent units and the bound (variational)."""

    n_latent: int = 10
    """Latent units; 2 give a picture of their plane."""
    beta: float = 1.0
    """Weight of the divergence from the prior; with one sample."""
    importance_samples: int = 1
    """Samples of the bound: 1 is the evidence lower bound, more the importance-weighted one."""
    binarized: bool = True
    """Whether grey values are probabilities of binary data, drawn afresh for each batch; those held out are
    drawn once. Without it grey values have no likelihood. For bernoulli outputs."""


@dataclass(frozen=True)
class Likelihood:
    """Settings of the final likelihood estimate (variational); a resumed run may change them."""

    likelihood_samples: int = 500
    """Samples a datum."""
    n_likelihood: int = 500
    """Held-out rows, at most."""


@dataclass(frozen=True)
class Data:
    """The rows. Those held out are the test rows of a set, or the last eighth of a file."""

    data: str = "digits"
    """digits (5,000 and 1,000 of MNIST, bundled), mnist, cifar10, or a path to an .npy, .npz or .mat file of
    rows or images: numbers in [0, 1] (any for gaussian outputs), bool, or integers of 8 or 16 bits."""
    array: str | None = None
    """Name of the array, in an .npz or .mat file with several."""
    whiten: bool = False
    """Whiten (ZCA) by the training rows."""
    whitening_ridge: float = 1e-3
    """Share of the largest variance that is added to each when whitening."""


@dataclass(frozen=True)
class Settings:
    """Train an autoencoder: plain, denoising, stacked, sparse, contractive or variational.

    Leaves a run folder with config.json, metrics.jsonl, cost.txt (step and cost a line), checkpoint/,
    results.json, autoencoder.npz, parameters.npz (plain arrays) and the pictures filters.png,
    reconstructions.png, history.png and hourglass.png; of some kinds also layer_0/ and so on,
    classifier.npz, samples.png, traversal.png, manifold.png, latent.png, spectrum.png and activity.png. A
    setting that the kind does not have is refused.
    """

    model: Model = field(default_factory=Model)
    learning: Learning = field(default_factory=Learning)
    denoising: Denoising = field(default_factory=Denoising)
    contractive: Contractive = field(default_factory=Contractive)
    stacked: Stacked = field(default_factory=Stacked)
    sparse: Sparse = field(default_factory=Sparse)
    variational: Variational = field(default_factory=Variational)
    likelihood: Likelihood = field(default_factory=Likelihood)
    data: Data = field(default_factory=Data)
    devices: Devices = field(default_factory=Devices)
    output: Output = field(default_factory=Output)


_DEFAULTS: dict[str, dict[str, Any]] = {
    "plain": {"n_hidden": (500,), "n_steps": 5000},
    "denoising": {"n_hidden": (500,), "n_steps": 5000, "rate": (0.3,)},
    "stacked": {"n_hidden": (500, 500), "n_steps": 2500},
    "contractive": {"n_hidden": (500,), "n_steps": 5000},
    "kl": {"n_hidden": (200,), "n_steps": 3000, "batch_size": 100, "optimizer": "adam"},
    "sparse": {"n_hidden": (1000,), "n_steps": 1000, "batch_size": 100, "optimizer": "adam"},
    "variational": {
        "n_hidden": (400,), "n_steps": 2500, "batch_size": 100, "optimizer": "adam", "step_size": 0.002,
        "activation": "tanh",
    },
}  # fmt: skip
_STEP_SIZES = {"sgd": 0.1, "adam": 0.001}
_OF_SELECTION = {
    "topk": {"k"},
    "batch-topk": {"k"},
    "jump-relu": {"l0"},
    "relu-l1": {"l1"},
    "kl": {"sparsity", "sparsity_target"},
}
_DENSE = {"tied", "activation", "decoder_activation", "output"}
_NOISE = {"corruption", "rate"}


def _has(settings: Settings) -> set[str]:
    """Return which of the settings that not every kind has are those of this one."""
    model, selection = settings.model, settings.sparse.selection
    match model.kind:
        case "plain":
            return _DENSE
        case "denoising":
            return _DENSE | _NOISE
        case "stacked":
            own = {"tied", "activation", "output", "pretrain", "finetuning"}
            return own | (_NOISE | {"pretraining_steps"} if settings.stacked.pretrain else set())
        case "contractive":
            return _DENSE | {"contraction"}
        case "sparse":
            others = _DENSE if selection == "kl" else {"auxiliary", "dead_after"}
            return {"selection"} | _OF_SELECTION[selection] | others
        case "variational":
            own = {
                "activation",
                "output",
                "n_latent",
                "importance_samples",
                "likelihood_samples",
                "n_likelihood",
            }
            own |= {"beta"} if settings.variational.importance_samples == 1 else set()
            return own | ({"binarized"} if model.output != "gaussian" and not settings.data.whiten else set())


def _everyones(settings: Settings) -> set[str]:
    names = {field.name for section in (Model, Learning, Data) for field in dataclasses.fields(section)}
    return names - _DENSE - (set() if settings.data.whiten else {"whitening_ridge"})


def resolve(settings: Settings) -> Settings:
    """Return the settings with the kind's own defaults for those left open; refuse those it does not have.

    Raises:
        ValueError: at the first setting that is not as by default though the kind does not have it.
    """
    present = _everyones(settings) | _has(settings)
    kind = settings.model.kind
    of_sparse = f" with --selection {settings.sparse.selection}" if kind == "sparse" else ""
    for section in dataclasses.fields(Settings):
        if section.name in ("devices", "output"):
            continue
        values = getattr(settings, section.name)
        for setting in dataclasses.fields(values):
            value = getattr(values, setting.name)
            if setting.name not in present and value != setting.default:
                raise ValueError(
                    f"{setting.name}: expected {setting.default}, as by default, since --kind "
                    f"{kind}{of_sparse} as set does not use it, got {value}."
                )
    defaults = _kinds_defaults(settings, present)
    return dataclasses.replace(
        settings,
        **{
            section.name: _filled(getattr(settings, section.name), defaults)
            for section in dataclasses.fields(Settings)
        },
    )


def _filled(section: Any, defaults: dict[str, Any]) -> Any:
    names = [field.name for field in dataclasses.fields(section)]
    is_open = {name for name in names if getattr(section, name) is None and name in defaults}
    return dataclasses.replace(section, **{name: defaults[name] for name in is_open})


def _kinds_defaults(settings: Settings, present: set[str]) -> dict[str, Any]:
    """Return what takes the place of ``None``."""
    model = settings.model
    is_kl = model.kind == "sparse" and settings.sparse.selection == "kl"
    defaults = {"batch_size": 20, "optimizer": "sgd", "activation": "sigmoid"}
    defaults |= _DEFAULTS["kl" if is_kl else model.kind]
    defaults["output"] = "gaussian" if settings.data.whiten else "bernoulli"
    if (model.output or defaults["output"]) == "gaussian" or settings.data.data == "cifar10":
        # Steep costs, for which plain descent would need a step size for each data set.
        defaults["optimizer"] = "adam"
    optimizer = settings.learning.optimizer
    if optimizer not in (None, defaults["optimizer"]) or "step_size" not in defaults:
        defaults["step_size"] = _STEP_SIZES[optimizer or defaults["optimizer"]]
    n_hidden = model.n_hidden or defaults.get("n_hidden", ())
    if len(n_hidden) > 1:
        defaults["decoder_activation"] = model.activation or defaults["activation"]
    if model.kind == "stacked":
        defaults["rate"] = tuple(min(0.1 * (i + 1), 0.3) for i in range(len(n_hidden)))
        has_labels = settings.data.data in ("digits", "mnist", "cifar10")
        defaults["finetuning"] = "labels" if has_labels else "reconstruction"
    return {name: value for name, value in defaults.items() if name in present}


def known(value: _Value | None) -> _Value:
    """Return a setting that `resolve` has filled in."""
    if value is None:
        raise ValueError("setting: expected one that the kind has, got None.")
    return value


def check(settings: Settings) -> None:
    """Check, by the name of the flag, what can be checked without the data.

    Args:
        settings: as `resolve` returns them.
    """
    model, learning, sparse = settings.model, settings.learning, settings.sparse
    check_counts(learning, n_steps=1, batch_size=1, evaluate_every=1, n_evaluation=1, checkpoint_every=1)
    check_counts(settings.stacked, pretraining_steps=1)
    check_counts(sparse, k=1, dead_after=1)
    check_counts(settings.variational, n_latent=1, importance_samples=1)
    check_counts(settings.likelihood, likelihood_samples=2, n_likelihood=2)
    _check_layers(settings)
    check_positive("step_size", learning.step_size)
    check_positive("whitening_ridge", settings.data.whitening_ridge)
    for section, names in (
        (settings.contractive, ["contraction"]),
        (sparse, ["l0", "l1", "sparsity", "auxiliary"]),
        (settings.variational, ["beta"]),
    ):
        for name in names:
            check_nonnegative(name, getattr(section, name))
    check_share("sparsity_target", sparse.sparsity_target)
    _check_rates(settings)
    if settings.data.whiten and model.output == "bernoulli":
        raise ValueError("output: expected gaussian for whitened data, got bernoulli.")
    if settings.stacked.finetuning == "labels" and settings.data.data not in ("digits", "mnist", "cifar10"):
        raise ValueError("finetuning: expected reconstruction for a file, which has no labels, got labels.")


def _check_layers(settings: Settings) -> None:
    sizes, kind = settings.model.n_hidden, settings.model.kind
    if sizes is None:
        return
    for size in sizes:
        check_counts(_Size(size), n_hidden=1)
    is_one_layer = kind == "sparse" and settings.sparse.selection != "kl"
    if not sizes or (is_one_layer and len(sizes) > 1):
        came = " ".join(map(str, sizes)) or "none"
        raise ValueError(f"n_hidden: expected {'one number' if is_one_layer else 'a number'}, got {came}.")
    if len(sizes) == 1 and settings.model.decoder_activation is not None:
        raise ValueError(
            "decoder_activation: expected None with one hidden layer, whose decoder has no hidden one, got "
            f"{settings.model.decoder_activation}."
        )


@dataclass(frozen=True)
class _Size:
    n_hidden: int


def _check_rates(settings: Settings) -> None:
    rates, corruption = settings.denoising.rate, settings.denoising.corruption
    if rates is None:
        return
    n_layers = len(known(settings.model.n_hidden))
    allowed = {1, n_layers} if settings.model.kind == "stacked" else {1}
    if len(rates) not in allowed:
        expected = " or ".join(map(str, sorted(allowed)))
        raise ValueError(f"rate: expected {expected} numbers, got {len(rates)}.")
    for rate in rates:
        if corruption == "gaussian":
            check_nonnegative("rate", rate)
        elif not 0 <= rate < 1:
            raise ValueError(f"rate: expected a number in [0, 1), got {rate}.")
