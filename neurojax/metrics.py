"""Figures that describe codes, reconstructions and classifications, whatever model they come from."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._types import Scalar

__all__ = ["classification_error", "dead_fraction", "explained_variance", "n_active"]


def classification_error(
    scores: Float[ArrayLike, "samples classes"], labels: Int[ArrayLike, " samples"]
) -> Scalar:
    """Compute the share of samples whose largest score is not that of their label; of equal ones the first.

    Example:
        >>> import jax.numpy as jnp
        >>> float(classification_error(jnp.array([[0.9, 0.1], [0.6, 0.4]]), jnp.array([0, 1])))
        0.5
    """
    scores = jnp.asarray(scores)
    return jnp.mean(jnp.argmax(scores, axis=1) != jnp.asarray(labels), dtype=scores.dtype)


def explained_variance(
    xs: Float[ArrayLike, "samples features"], reconstructions: Float[ArrayLike, "samples features"]
) -> Scalar:
    """Compute 1 − Σ‖x − x̂‖² / Σ‖x‖², over all samples; 0 where the data are all zero.

    The data are taken as they are: for patches minus their mean this is the explained variance.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(explained_variance(jnp.array([[3.0, 4.0]]), jnp.array([[3.0, 0.0]]))), 2)
        0.36
    """
    xs, reconstructions = jnp.asarray(xs), jnp.asarray(reconstructions)
    power = jnp.sum(xs**2)
    error = jnp.sum((xs - reconstructions) ** 2)
    return jnp.where(power == 0, 0, 1 - error / jnp.where(power == 0, 1, power))


def n_active(codes: Float[ArrayLike, "*samples units"]) -> Float[Array, "*samples"]:
    """Count the non-zero coefficients of each code (its L0), in the codes' dtype."""
    codes = jnp.asarray(codes)
    return jnp.sum(codes != 0, axis=-1).astype(codes.dtype)


def dead_fraction(codes: Float[ArrayLike, "samples units"]) -> Scalar:
    """Compute the fraction of units that no sample uses."""
    codes = jnp.asarray(codes)
    return jnp.mean(jnp.all(codes == 0, axis=0), dtype=codes.dtype)
