"""Variational learning rules as objectives for `neurojax.training.fit`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._arrays import real_array
from .._checks import check_at_least, check_kind, check_limits, check_nonnegative
from .._random import bernoulli
from .._types import PRNGKey, Scalar
from ..training import AbstractGradientObjective, AbstractObjective
from ._objectives import check_data
from ._variational import GaussianPosterior, VariationalAutoencoder, log_weights

__all__ = ["ELBOObjective", "ImportanceWeightedObjective"]

Rows = Float[Array, "batch features"]


def _check_data(model: VariationalAutoencoder, data: Any, is_binarized: bool) -> None:
    """Raise ``ValueError`` for what the model cannot take, or what is no probability where bits are drawn."""
    check_kind("model", model, VariationalAutoencoder)
    rows = check_data(model, data)
    if is_binarized:
        check_limits("data", rows, (0.0, 1.0))


class ELBOObjective(AbstractObjective):
    """Minus the evidence lower bound, averaged over the batch, in nats.

    loss = meanₙ [−meanₛ log p(xₙ | zₛ) + β·KL(q(z | xₙ) ‖ N(0, 1))], both summed over their units.

    Called as ``objective(vae, state, batch, key)`` by ``fit``; ``state`` is ``None``.

    Attributes:
        beta: weight of the divergence, ≥ 0.
        n_samples: draws of z a datum, ≥ 1.
        is_binarized: whether each batch is drawn afresh, 1 with the grey value for a probability (dynamic
            binarisation), before it is encoded.

    Metrics: ``reconstruction_loss`` (−log p(x | z)) and ``divergence`` (without β).

    Reference:
        Kingma & Welling 2014; Higgins et al. 2017 (β).
    """

    beta: Scalar | float = 1.0
    n_samples: int = eqx.field(static=True, default=1)
    is_binarized: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_nonnegative("beta", self.beta)
        check_at_least("n_samples", self.n_samples, 1)

    def check_data(self, model: VariationalAutoencoder, data: Any) -> None:
        """Raise ``ValueError`` for rows that are empty, not finite, of another size, or out of the range."""
        _check_data(model, data, self.is_binarized)

    def __call__(
        self, model: VariationalAutoencoder, state: None, batch: Rows, key: PRNGKey
    ) -> tuple[Scalar, tuple[None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        binary_key, draw_key = jax.random.split(key)
        batch = real_array("batch", batch, "batch features")
        batch = bernoulli(binary_key, batch) if self.is_binarized else batch
        posterior = jax.vmap(model.posterior)(batch)
        zs = _draws(posterior, self.n_samples, draw_key)

        def loss_of(z, x):
            return model.output.negative_log_likelihood(model.output_parameters(z), x)

        loss = jnp.mean(jax.vmap(jax.vmap(loss_of), (0, None))(zs, batch))
        divergence = jnp.mean(jax.vmap(GaussianPosterior.divergence)(posterior))
        metrics = {"reconstruction_loss": loss, "divergence": divergence}
        return loss + self.beta * divergence, (state, metrics)


def _draws(posterior: GaussianPosterior, n_samples: int, key: PRNGKey) -> Float[Array, "draws batch code"]:
    """Draw z for each datum of a batch, all with one key."""
    noise = jax.random.normal(key, (n_samples, *posterior.mean.shape), posterior.mean.dtype)
    return posterior.mean + jnp.exp(posterior.log_scale) * noise


class ImportanceWeightedObjective(AbstractGradientObjective):
    """Minus the importance-weighted bound of ``n_samples`` draws, averaged over the batch, in nats.

    loss = meanₙ −log meanₖ wₖ, wₖ = p(xₙ, zₖ)/q(zₖ | xₙ). With v = w/Σw the bound's gradient is
    Σₖ vₖ ∂ log wₖ. The doubly reparameterised one is Σₖ vₖ ∂ log p(x, zₖ) for the decoder and
    Σₖ vₖ² (∂ log wₖ/∂zₖ)(∂zₖ) for the encoder: the same in expectation, and its variance does not
    drown it as draws grow (with few draws from a posterior that is far off it can be the noisier one).

    Called as ``objective.value_and_grad(vae, state, batch, key)`` by ``fit``; ``state`` is ``None``.

    Attributes:
        n_samples: draws of z a datum, ≥ 1.
        is_doubly_reparameterized: which gradient.
        is_binarized: as in `ELBOObjective`.

    Metrics: ``effective_sample_size``, the mean of 1/Σv².

    Reference:
        Burda, Grosse & Salakhutdinov 2016; Tucker, Lawson, Gu & Maddison 2019, Doubly reparameterized
        gradient estimators.
    """

    n_samples: int = eqx.field(static=True, default=50)
    is_doubly_reparameterized: bool = eqx.field(static=True, default=True)
    is_binarized: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_at_least("n_samples", self.n_samples, 1)

    def check_data(self, model: VariationalAutoencoder, data: Any) -> None:
        """Raise ``ValueError`` for rows that are empty, not finite, of another size, or out of the range."""
        _check_data(model, data, self.is_binarized)

    def value_and_grad(
        self, model: VariationalAutoencoder, state: None, batch: Rows, key: PRNGKey
    ) -> tuple[tuple[Scalar, tuple[None, dict[str, Array]]], VariationalAutoencoder]:
        """Return ``((loss, (state, metrics)), gradient)``."""
        binary_key, draw_key = jax.random.split(key)
        batch = real_array("batch", batch, "batch features")
        batch = bernoulli(binary_key, batch) if self.is_binarized else batch

        def draw(model):
            posterior = jax.vmap(model.posterior)(batch)
            return posterior, _draws(posterior, self.n_samples, draw_key)

        def weigh(model, posterior, zs):
            # (draws, batch, code) to weights (batch, draws).
            return jax.vmap(log_weights, (None, 0, 1, 0))(model, batch, zs, posterior)

        (posterior, zs), pull_draws = eqx.filter_vjp(draw, model)
        values, pull_weights = eqx.filter_vjp(weigh, model, posterior, zs)
        shares = jax.nn.softmax(values, axis=1)
        of_model, of_posterior, of_zs = pull_weights(-shares / len(batch))
        if self.is_doubly_reparameterized:
            # log q's own parameters are constants here, and the way through z has the share squared.
            of_posterior = jax.tree.map(jnp.zeros_like, of_posterior)
            of_zs = of_zs * shares.T[..., None].astype(of_zs.dtype)
        (through_draws,) = pull_draws((of_posterior, of_zs))
        gradient = eqx.apply_updates(of_model, through_draws)
        bounds = jax.nn.logsumexp(values, axis=1) - jnp.log(jnp.asarray(self.n_samples, values.dtype))
        metrics = {"effective_sample_size": jnp.mean(1 / jnp.sum(shares**2, axis=1))}
        return (-jnp.mean(bounds), (state, metrics)), gradient
