"""Measures at the end of a run of ``neurojax autoencoder``."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from .. import autoencoder as ae
from .. import metrics
from .._random import bernoulli
from ..training import History
from ._autoencoder_kinds import Rows, cost_objective, is_binary
from ._autoencoder_settings import Settings, known

__all__ = ["Trained", "measure", "posterior_statistics", "sparse_codes", "spectra"]

_ROWS_AT_ONCE = 50
_N_JACOBIANS = 20
_ACTIVE_VARIANCE = 0.01  # of a posterior mean over data, in the variances of the prior


class Trained(NamedTuple):
    """The models that a run has learned.

    Attributes:
        autoencoder: as it is at the end; of the stacked kind fine-tuned with labels, as it was before.
        first: as it was before learning.
        classifier: of the stacked kind fine-tuned with labels.
        objective: of the last phase.
        history: of the last phase.
        layer_histories: of the phases before it, a layer each.
        has_reconstructed: whether reconstruction was learned at all.
    """

    autoencoder: Any
    first: Any
    classifier: ae.Classifier | None
    objective: Any
    history: History
    layer_histories: tuple[History, ...]
    has_reconstructed: bool


def measure(settings: Settings, trained: Trained, rows: Rows, key: Array) -> dict[str, Any]:
    """Return what ``results.json`` holds.

    Costs are means over rows of sums over features; "training" is of as many training rows as are held out.
    The explained variance is that of the rows about their own mean.
    """
    is_squared = settings.model.output != "bernoulli" and settings.model.kind != "variational"
    measured: dict[str, Any] = {
        "kind": settings.model.kind,
        "unit": "squared error" if is_squared else "nats",
        "n_parameters": _n_parameters(trained),
        "n_training_rows": len(rows.train),
        "n_held_out_rows": len(rows.held_out),
        "held_out": {},
        "training": {},
    }
    keys = jax.random.split(key, 4)
    seen_training = rows.train[: len(rows.held_out)]
    if is_binary(settings):
        # As those held out were, when they were read.
        seen_training = bernoulli(keys[3], seen_training)
    for name, part, part_key in (
        ("held_out", rows.held_out, keys[0]),
        ("training", seen_training, keys[1]),
    ):
        if trained.has_reconstructed:
            measured[name] |= _reconstruction(settings, trained, part, part_key)
    if settings.model.kind == "variational":
        measured["held_out"] |= _likelihood(settings, trained.autoencoder, rows.held_out, keys[2])
    if trained.classifier is not None:
        for name, part, labels in (
            ("held_out", rows.held_out, rows.held_out_labels),
            ("training", rows.train, rows.train_labels),
        ):
            error = metrics.classification_error(_scores(trained.classifier, part), known(labels))
            measured[name]["classification_error"] = float(error)
    return measured


def _n_parameters(trained: Trained) -> int:
    chosen = trained.autoencoder if trained.classifier is None else trained.classifier
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(chosen, eqx.is_inexact_array)))


def _reconstruction(settings: Settings, trained: Trained, part: Array, key: Array) -> dict[str, float]:
    """Return the cost and what is said beside it, for one part of the data."""
    model, kind = trained.autoencoder, settings.model.kind
    corruption_key, bound_key = jax.random.split(key)
    if kind == "variational":
        n_samples = settings.variational.importance_samples
        bounds, reconstructions = _bounds(model, part, bound_key, n_samples)
        values = {"bound": jnp.mean(bounds), "cost": -jnp.mean(bounds)}
    else:
        costs, reconstructions = _costs(model, cost_objective(settings), part, part)
        values = {"cost": jnp.mean(costs)}
    if kind == "denoising":
        seen = trained.objective.corruption(part, corruption_key)
        values["cost_of_corrupted"] = jnp.mean(_costs(model, cost_objective(settings), seen, part)[0])
    if kind == "contractive":
        values["contraction"] = jnp.mean(_contractions(model, part))
        values["contraction_at_first"] = jnp.mean(_contractions(trained.first, part))
    if kind == "sparse":
        codes = sparse_codes(settings, model, part)
        values["n_active"] = jnp.mean(metrics.n_active(codes))
        values["dead_fraction"] = metrics.dead_fraction(codes)
        if settings.sparse.selection == "kl":
            values["activity"] = jnp.mean(_codes(model, part))
    values["explained_variance"] = metrics.explained_variance(part, reconstructions)
    return {name: float(value) for name, value in values.items()}


@eqx.filter_jit
def _costs(model: Any, objective: ae.ReconstructionObjective, seen: Array, xs: Array) -> tuple[Array, Array]:
    """Return the cost and the reconstruction of each row, given what the encoder sees of it."""

    def of_one(pair):
        code = model.encode(pair[0])
        reconstruction = model.decode(code)
        if isinstance(model, ae.SparseAutoencoder):
            return ae.squared_error(reconstruction, pair[1]), reconstruction
        return objective.losses(model, code[None], pair[1][None])[0], reconstruction

    return lax.map(of_one, (seen, xs), batch_size=_ROWS_AT_ONCE)


@eqx.filter_jit
def _bounds(vae: ae.VariationalAutoencoder, xs: Array, key: Array, n_samples: int) -> tuple[Array, Array]:
    """Return the bound on log p(x) of each row (β = 1), and what its mean code stands for."""

    def of_one(pair):
        x, key = pair
        if n_samples == 1:
            bound = ae.elbo(vae, x, key)
        else:
            bound = ae.importance_weighted_bound(vae, x, key, n_samples=n_samples)
        return bound, vae.reconstruct(x)

    return lax.map(of_one, (xs, jax.random.split(key, len(xs))), batch_size=_ROWS_AT_ONCE)


@eqx.filter_jit
def _contractions(model: ae.Autoencoder, xs: Array) -> Array:
    return lax.map(lambda x: ae.contraction(model, x), xs, batch_size=_ROWS_AT_ONCE)


@eqx.filter_jit
def _codes(model: Any, xs: Array) -> Array:
    return lax.map(model.encode, xs, batch_size=_ROWS_AT_ONCE)


@eqx.filter_jit
def _scores(classifier: ae.Classifier, xs: Array) -> Array:
    return lax.map(classifier.log_probabilities, xs, batch_size=_ROWS_AT_ONCE)


def sparse_codes(settings: Settings, model: Any, xs: Array) -> Array:
    """Return codes with 0 for units that are not active; sigmoid units are active above ½."""
    codes = _codes(model, xs)
    return jnp.where(codes > 0.5, codes, 0) if settings.sparse.selection == "kl" else codes


def _likelihood(
    settings: Settings, vae: ae.VariationalAutoencoder, held_out: Array, key: Array
) -> dict[str, float]:
    """Estimate −log p(x) by importance sampling; its standard error is that of the mean over rows."""
    xs = held_out[: settings.likelihood.n_likelihood]
    n_samples = settings.likelihood.likelihood_samples
    values = np.asarray(_log_likelihoods(vae, xs, key, n_samples), np.float64)
    _, divergences, variances = posterior_statistics(vae, held_out)
    return {
        "negative_log_likelihood": float(-np.mean(values)),
        "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
        "n_likelihood_rows": len(xs),
        "divergence": float(np.sum(divergences)),
        "n_active_latent": int(np.sum(variances > _ACTIVE_VARIANCE)),
    }


@eqx.filter_jit
def _log_likelihoods(vae: ae.VariationalAutoencoder, xs: Array, key: Array, n_samples: int) -> Array:
    def of_one(pair):
        return ae.log_likelihood(vae, pair[0], pair[1], n_samples=n_samples).value

    return lax.map(of_one, (xs, jax.random.split(key, len(xs))), batch_size=_ROWS_AT_ONCE)


def posterior_statistics(
    vae: ae.VariationalAutoencoder, xs: Array
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the posterior means, and for each latent unit its mean KL(q ‖ N(0, 1)) and their variance."""

    @eqx.filter_jit
    def of_rows(vae, xs):
        posterior = jax.vmap(vae.posterior)(xs)
        return posterior.mean, jnp.mean(jax.vmap(ae.GaussianPosterior.unit_divergences)(posterior), axis=0)

    mean, divergences = map(np.asarray, of_rows(vae, xs))
    return mean, divergences, mean.var(axis=0)


def spectra(trained: Trained, held_out: Array) -> dict[str, np.ndarray]:
    """Return the singular values of the encoder's Jacobian at held-out rows, before and after learning."""
    xs = held_out[:_N_JACOBIANS]

    def values(model):
        return lax.map(lambda x: ae.jacobian_singular_values(model.encode, x), xs)

    models = {"before learning": trained.first, "after": trained.autoencoder}
    return {name: np.asarray(eqx.filter_jit(values)(model)) for name, model in models.items()}
