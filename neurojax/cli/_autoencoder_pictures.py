"""The pictures of a run of ``neurojax autoencoder``."""

from statistics import NormalDist
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure

from .. import autoencoder as ae
from .. import plotting
from ..runs import RunFolder
from ._autoencoder_kinds import Rows
from ._autoencoder_measures import Trained, posterior_statistics, sparse_codes, spectra
from ._autoencoder_settings import Settings
from ._figures import name_of, save_figures

__all__ = ["draw"]

_NAMES = {"digits": "bundled MNIST digits", "mnist": "MNIST", "cifar10": "CIFAR-10"}
_MOST_FILTERS = 100
_MOST_LATENT = 10
_N_PAIRS, _N_TRIPLES, _N_COLUMNS = 40, 3, 10
_TRAVERSED = np.linspace(-3, 3, 13)
_N_PLANE = 20


def draw(run: RunFolder, settings: Settings, trained: Trained, rows: Rows, key: Array) -> None:
    """Draw and save every picture of a run."""
    kind, model = settings.model.kind, trained.autoencoder
    figures = {
        "filters": _filters(settings, trained, rows),
        "history": _history(settings, trained),
        "hourglass": _hourglass(model),
    }
    if trained.has_reconstructed:
        figures["reconstructions"] = _reconstructions(settings, trained, rows, key)
    if kind == "variational":
        figures["samples"] = _samples(model, rows, key)
        figures["traversal"] = _traversal(model, rows)
        if settings.variational.n_latent == 2:
            figures["manifold"] = _manifold(model, rows)
            if rows.held_out_labels is not None:
                figures["latent"] = _latent(model, rows)
    if kind == "contractive":
        figures["spectrum"] = _spectrum(trained, rows)
    if kind == "sparse":
        figures["activity"] = _activity(settings, model, rows)
    name = name_of(settings.data.data, _NAMES) + (", whitened" if settings.data.whiten else "")
    numbers = f"{len(rows.train):,} training and {len(rows.held_out):,} held-out rows"
    updates = f"{len(trained.history):,} updates on batches of {settings.learning.batch_size}"
    save_figures(run, figures, f"{name}; {kind} autoencoder; {numbers}; {updates}")


@eqx.filter_jit
def _reconstruct(model: Any, xs: Array) -> Array:
    return jax.vmap(model.reconstruct)(xs)


@eqx.filter_jit
def _decode(model: Any, codes: Array) -> Array:
    return jax.vmap(model.decode)(codes)


@eqx.filter_jit
def _generate(vae: ae.VariationalAutoencoder, keys: Array) -> Array:
    return jax.vmap(vae.generate)(keys)


def _images(rows: Rows, values: Any) -> np.ndarray:
    return rows.to_images(values).reshape(-1, *rows.image_shape)


def _filters(settings: Settings, trained: Trained, rows: Rows) -> Figure:
    """Draw filters before and after learning, those first that learning has turned the most.

    Where units are many, most keep the random weights that they began with, and look like noise to the end.
    """
    model = trained.autoencoder if trained.classifier is None else trained.classifier
    before, after = (np.asarray(_weights(part)) for part in (trained.first, model))
    overlap = _cosines(before, after)
    shown = np.argsort(overlap, kind="stable")[:_MOST_FILTERS]
    figure = Figure((13, 7.25), layout="constrained")
    phase = "fine-tuning" if trained.layer_histories else "learning"
    what = "decoder atoms" if isinstance(model, ae.SparseAutoencoder) else "weights"
    number = f"{len(shown)} of {len(after)}" if len(shown) < len(after) else f"{len(after)}"
    for ax, filters, name in zip(
        figure.subplots(1, 2), (before, after), (f"before {phase}", f"after {phase}"), strict=True
    ):
        plotting.atom_grid(filters[shown], rows.image_shape, ax).set_title(
            f"{what} of {number} units, {name}"
        )
    figure.suptitle(
        f"each scaled alone, 0 is mid-gray; the units that {phase} has turned the most come first\n"
        f"median cosine between a filter before and after it: {np.median(overlap):.2f}",
        fontsize=10,
    )
    return figure


def _weights(model: Any) -> Array:
    """Return the filters of the first layer, or the atoms of a sparse autoencoder."""
    match model:
        case ae.SparseAutoencoder():
            return model.atoms
        case ae.VariationalAutoencoder():
            return (*model.encoder, model.posterior_layer)[0].weight
        case ae.Classifier():
            return model.layers[0].weight
        case _:
            return model.encoder[0].weight


def _cosines(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.sum(before * after, axis=1) / np.where(lengths > 0, lengths, 1)


def _reconstructions(settings: Settings, trained: Trained, rows: Rows, key: Array) -> Figure:
    xs = rows.held_out[:_N_PAIRS]
    is_denoising = settings.model.kind == "denoising"
    seen = trained.objective.corruption(xs, key) if is_denoising else xs
    reconstructed = _reconstruct(trained.autoencoder, seen)
    n_lines = 3 * _N_TRIPLES if is_denoising else 2 * -(-len(xs) // _N_COLUMNS)
    cell = 8.1 / _N_COLUMNS * rows.image_shape[0] / rows.image_shape[1]
    figure = Figure((9, n_lines * cell + 0.7), layout="constrained")
    ax = figure.subplots()
    if is_denoising:
        _triples(ax, rows, (xs, seen, reconstructed))
        ax.set_title("held-out rows, corrupted, and restored")
        return figure
    above, below = rows.to_images(xs), rows.to_images(reconstructed)
    plotting.reconstructions(above, below, rows.image_shape, ax, n_columns=_N_COLUMNS)
    ax.set_title("held-out rows above their reconstructions")
    return figure


def _triples(ax, rows: Rows, parts: tuple[Array, ...]) -> None:
    """Draw lines of originals, each with a line of corrupted rows and one of reconstructions below it."""
    n = min(len(parts[0]), _N_TRIPLES * _N_COLUMNS)
    n_columns = min(n, _N_COLUMNS)
    n = n // n_columns * n_columns
    images = np.stack([_images(rows, part[:n]) for part in parts])
    low, high = images[0].min(), images[0].max()
    images = np.clip(images.reshape(3, -1, n_columns, *rows.image_shape), low, high)
    sheet = images.swapaxes(0, 1).reshape(-1, *rows.image_shape)
    plotting.image_sheet(sheet, ax, scale="common", saturated=0, n_columns=n_columns)
    middles = (np.arange(len(sheet) // n_columns) + 0.5) * rows.image_shape[0] - 0.5
    ax.set_yticks(middles, ["original", "corrupted", "restored"] * (len(middles) // 3))
    ax.tick_params(length=0)


def _history(settings: Settings, trained: Trained) -> Figure:
    n_panels = len(trained.layer_histories) + 1
    figure = Figure((5 * n_panels, 4), layout="constrained")
    axes = figure.subplots(1, n_panels, squeeze=False)[0]
    for i, (ax, history) in enumerate(zip(axes, (*trained.layer_histories, trained.history), strict=True)):
        held_out = None
        if len(history.evaluation_steps):
            held_out = (history.evaluation_steps, history.evaluation["loss"])
        plotting.history(
            np.arange(1, len(history) + 1),
            history["loss"],
            ax,
            evaluation=held_out,
            smoothing=max(len(history) // 50, 1),
            quantity=_quantity(settings, trained, is_layer=i + 1 < n_panels),
        )
        # The first steps cost many times what the others do, and would flatten them.
        late = history["loss"][len(history) // 50 :]
        shown = np.concatenate([late, history.evaluation.get("loss", late)])
        if trained.classifier is None or i + 1 < n_panels:
            low, high = shown.min(), np.quantile(shown, 0.995)
            ax.set_ylim(low - 0.05 * (high - low + 1e-9), high + 0.05 * (high - low + 1e-9))
        if n_panels > 1:
            ax.set_title(f"layer {i + 1} alone" if i + 1 < n_panels else "fine-tuning")
    return figure


def _quantity(settings: Settings, trained: Trained, *, is_layer: bool) -> str:
    if trained.classifier is not None and not is_layer:
        return "−log p(class | x) (nats)"
    if settings.model.kind == "variational":
        return "minus the bound (nats)"
    is_squared = settings.model.output != "bernoulli"
    return "cost (squared error)" if is_squared else "cost (nats)"


def _hourglass(model: Any) -> Figure:
    match model:
        case ae.SparseAutoencoder():
            sizes = [model.n_features, model.n_code, model.n_features]
        case ae.VariationalAutoencoder():
            half = [model.n_features, *(layer.out_features for layer in model.encoder)]
            sizes = [*half, model.n_code, *half[::-1]]
        case _:
            half = [model.n_features, *(layer.out_features for layer in model.encoder)]
            sizes = [*half, *half[-2::-1]]
    figure = Figure((1.6 * len(sizes) + 1, 4), layout="constrained")
    plotting.hourglass([int(size) for size in sizes], figure.subplots())
    return figure


def _samples(vae: ae.VariationalAutoencoder, rows: Rows, key: Array) -> Figure:
    images = _images(rows, _generate(vae, jax.random.split(key, 100)))
    figure = Figure((7, 7.25), layout="constrained")
    ax = plotting.image_sheet(images, figure.subplots(), scale="common", saturated=0, n_columns=10)
    ax.set_title("means of p(x | z), z drawn from the prior")
    return figure


def _decoded(vae: ae.VariationalAutoencoder, rows: Rows, codes: np.ndarray) -> np.ndarray:
    """Return images for codes with any leading axes."""
    flat = jnp.asarray(codes.reshape(-1, codes.shape[-1]), rows.train.dtype)
    return _images(rows, _decode(vae, flat)).reshape(*codes.shape[:-1], *rows.image_shape)


def _traversal(vae: ae.VariationalAutoencoder, rows: Rows) -> Figure:
    means, divergences, _ = posterior_statistics(vae, rows.held_out)
    units = np.argsort(-divergences)[:_MOST_LATENT]
    codes = np.broadcast_to(means[0], (len(units), len(_TRAVERSED), vae.n_code)).copy()
    for row, unit in enumerate(units):
        codes[row, :, unit] = _TRAVERSED
    images = _decoded(vae, rows, codes)
    height, width = rows.image_shape[:2]
    shape = (8.5, 7.4 * len(units) * height / (len(_TRAVERSED) * width) + 0.8)
    figure = Figure(shape, layout="constrained")
    ax = plotting.manifold(images, figure.subplots(), limits=_limits(images))
    ax.set_yticks(
        (np.arange(len(units)) + 0.5) * height - 0.5,
        [f"$z_{{{unit + 1}}}$  {divergences[unit]:.1f} nats" for unit in units],
    )
    ax.set_xticks((np.arange(len(_TRAVERSED)) + 0.5) * width - 0.5, [f"{z:g}" for z in _TRAVERSED])
    ax.tick_params(length=0)
    ax.set_title("one held-out code, a latent unit a row set to the values below")
    return figure


def _manifold(vae: ae.VariationalAutoencoder, rows: Rows) -> Figure:
    """Draw what the plane of two latent units stands for, at equal steps of the prior's probability."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / _N_PLANE) for i in range(_N_PLANE)])
    codes = np.stack(np.meshgrid(z, z[::-1], indexing="xy"), axis=-1)
    images = _decoded(vae, rows, codes)
    figure = Figure((8, 8.4), layout="constrained")
    ax = plotting.manifold(images, figure.subplots(), limits=_limits(images))
    ax.set_title(f"the plane of both latent units, {z[0]:.1f} to {z[-1]:.1f}, at quantiles of the prior")
    return figure


def _latent(vae: ae.VariationalAutoencoder, rows: Rows) -> Figure:
    figure = Figure((7, 5.5), layout="constrained")
    means = posterior_statistics(vae, rows.held_out)[0]
    ax = plotting.latent_scatter(means, np.asarray(rows.held_out_labels), figure.subplots())
    ax.set_title("posterior means of held-out rows, by class")
    return figure


def _limits(images: np.ndarray) -> tuple[float, float]:
    """Return the values of black and white: [0, 1], or the range where images go beyond it."""
    low, high = min(float(images.min()), 0.0), float(images.max())
    return (low, max(high, 1.0)) if low >= 0 else (low, max(high, low + 1e-6))


def _spectrum(trained: Trained, rows: Rows) -> Figure:
    figure = Figure((6, 4.2), layout="constrained")
    curves = spectra(trained, rows.held_out)
    n_rows = len(next(iter(curves.values())))
    ax = plotting.spectrum(curves, figure.subplots())
    ax.set_title(f"the encoder's Jacobian at {n_rows} held-out rows")
    return figure


def _activity(settings: Settings, model: Any, rows: Rows) -> Figure:
    codes = np.asarray(sparse_codes(settings, model, rows.held_out))
    figure = Figure((10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    note = ", active above ½" if settings.sparse.selection == "kl" else ""
    plotting.active_units(codes, left).set_title(f"units that a held-out row uses{note}")
    plotting.unit_activity(codes, right).set_title("how often each unit is used")
    return figure
