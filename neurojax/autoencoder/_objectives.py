"""Training objectives of plain, denoising, contractive and sparse autoencoders."""

from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._arrays import finite_rows, real_array
from .._checks import check_kind, check_nonnegative, check_share
from .._precision import at_least_single
from .._terms import activity_divergence, is_zero
from .._types import PRNGKey, Scalar
from ..training import AbstractObjective
from ._contraction import contraction
from ._models import AbstractAutoencoder, Autoencoder
from ._noise import AbstractNoise
from ._outputs import squared_error

__all__ = ["ReconstructionObjective", "check_data"]

Rows = Float[Array, "batch features"]
Loss = Literal["likelihood", "squared_error"]


def check_data(model: AbstractAutoencoder, data: Any, name: str = "data") -> Array:
    """Return rows as an array, or raise ``ValueError`` for what the model cannot reconstruct."""
    return finite_rows(
        name, data, model.n_features, "numbers, one for each feature of the model,", model.limits
    )


class ReconstructionObjective(AbstractObjective):
    """The loss of reconstructing a datum, summed over features and averaged over the batch, and penalties.

    loss = meanₙ [−log p(xₙ | decode(encode(corruption(xₙ)))) + contraction·‖∂encode/∂x‖²_F + l1·‖yₙ‖₁]
    + sparsity·Σⱼ KL(sparsity_target ‖ meanₙ yₙⱼ), with −log p in nats: the cross-entropy for
    `BernoulliOutput`. With ``loss="squared_error"`` the first term is ‖x − x̂‖² in place of −log p. The same
    model with another setting is another member of the family: a denoising autoencoder with ``corruption``
    (the target stays clean), a contractive one with ``contraction`` (at the input as the encoder sees it), a
    sparse one with ``sparsity`` or ``l1``.

    Called as ``objective(autoencoder, state, batch, key)`` by ``fit``; ``state`` is ``None``.

    Attributes:
        loss: ``"likelihood"`` or ``"squared_error"``.
        corruption: noise ``(x, key) -> x``, or ``None``.
        contraction: strength, ≥ 0.
        sparsity: strength of the divergence from the target activity, ≥ 0; for codes of ``jax.nn.sigmoid``.
        sparsity_target: mean activity that units are drawn to, in [0, 1].
        l1: strength, ≥ 0.

    Metrics: ``reconstruction_loss``, the first term; and of the penalties in use ``contraction`` (mean of
    ‖J‖²_F), ``activity`` (mean of yₙⱼ), ``l1`` (mean of ‖y‖₁), without their strengths.

    Reference:
        Vincent et al. 2010 (denoising); Rifai et al. 2011 (contractive); Lee, Ekanadham & Ng 2008 and Ng
        2011, CS294A notes (divergence from a target activity).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax import autoencoder as ae
        >>> denoising = ae.ReconstructionObjective(corruption=ae.MaskingNoise(0.3), l1=0.01)
        >>> model = ae.Autoencoder.from_sizes(6, [4], jax.random.key(0))
        >>> loss, (_, metrics) = jax.jit(denoising)(model, None, jnp.ones((5, 6)), jax.random.key(1))
        >>> sorted(metrics)
        ['l1', 'reconstruction_loss']
    """

    loss: Loss = eqx.field(static=True, default="likelihood")
    corruption: AbstractNoise | None = None
    contraction: Scalar | float = 0.0
    sparsity: Scalar | float = 0.0
    sparsity_target: Scalar | float = 0.05
    l1: Scalar | float = 0.0

    def __check_init__(self):
        if self.loss not in get_args(Loss):
            raise ValueError(f"loss: expected one of {get_args(Loss)}, got {self.loss!r}.")
        for name in ("contraction", "sparsity", "l1"):
            check_nonnegative(name, getattr(self, name))
        check_share("sparsity_target", self.sparsity_target)

    def check_data(self, model: Autoencoder, data: Any) -> None:
        """Raise ``ValueError`` for rows that are empty, not finite, of another size, or out of the range.

        Bernoulli units take numbers in [0, 1], Gaussian ones any.
        """
        check_data(model, data)

    def __call__(
        self, model: Autoencoder, state: None, batch: Rows, key: PRNGKey
    ) -> tuple[Scalar, tuple[None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        check_kind("model", model, Autoencoder)
        if not is_zero(self.sparsity) and model.activation is not jax.nn.sigmoid:
            raise ValueError(
                "sparsity: expected 0 unless codes are those of jax.nn.sigmoid, in [0, 1], got "
                f"{self.sparsity} with {getattr(model.activation, '__name__', model.activation)}."
            )
        batch = real_array("batch", batch, "batch features")
        seen = batch if self.corruption is None else self.corruption(batch, key)
        codes = jax.vmap(model.encode)(seen)
        loss = jnp.mean(self.losses(model, codes, batch))
        codes = at_least_single(codes)
        metrics = {"reconstruction_loss": loss}
        if not is_zero(self.contraction):
            metrics["contraction"] = jnp.mean(jax.vmap(contraction, (None, 0))(model, seen))
            loss = loss + self.contraction * metrics["contraction"]
        if not is_zero(self.sparsity):
            activity = jnp.mean(codes, axis=0)
            metrics["activity"] = jnp.mean(activity)
            loss = loss + self.sparsity * activity_divergence(self.sparsity_target, activity)
        if not is_zero(self.l1):
            metrics["l1"] = jnp.mean(jnp.sum(jnp.abs(codes), axis=1))
            loss = loss + self.l1 * metrics["l1"]
        return loss, (state, metrics)

    def losses(
        self, model: Autoencoder, codes: Float[Array, "batch code"], xs: Rows
    ) -> Float[Array, " batch"]:
        """Return the first term for each datum, given codes."""
        parameters = jax.vmap(model.output_parameters)(codes)
        if self.loss == "squared_error":
            return jax.vmap(squared_error)(model.output.mean(parameters), xs)
        return jax.vmap(model.output.negative_log_likelihood)(parameters, xs)
