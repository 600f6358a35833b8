"""Figures that describe codes, reconstructions and classifications, whatever model they come from.

Each is computed in float32 at least, and in the unit of its own data, so that neither half precision nor
numbers of 1e±30 change what comes out. Integers are converted to floating-point numbers first.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int

from ._arrays import check_same_shape, real_array, whole_array
from ._checks import check_limits, check_size
from ._precision import at_least_single
from ._rows import centered, unit_of
from ._types import Scalar

__all__ = ["classification_error", "dead_fraction", "explained_energy", "explained_variance", "n_active"]


def classification_error(
    scores: Float[ArrayLike, "samples classes"], labels: Int[ArrayLike, " samples"]
) -> Scalar:
    """Compute the share of samples whose largest score is not that of their label; of equal ones the first.

    Args:
        scores: a number for each sample and class.
        labels: the right class of each sample, from 0.

    Returns:
        The share; NaN if a score is NaN, and without samples.

    Raises:
        ValueError: for scores without classes, other than one label for each sample, and (where values are
            known) labels that are no class.

    Example:
        >>> import jax.numpy as jnp
        >>> float(classification_error(jnp.array([[0.9, 0.1], [0.6, 0.4]]), jnp.array([0, 1])))
        0.5
    """
    scores = at_least_single(real_array("scores", scores, "samples classes"))
    labels = whole_array("labels", labels, "samples")
    n_samples, n_classes = scores.shape
    if not n_classes:
        raise ValueError(f"scores: expected at least one class, got shape {scores.shape}.")
    check_size("labels", labels, 0, n_samples, "labels, one for each row of scores,")
    check_limits("labels", labels, (0.0, n_classes - 1.0))
    error = jnp.mean(jnp.argmax(scores, axis=1) != labels, dtype=scores.dtype)
    return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, error)


def explained_variance(
    xs: Float[ArrayLike, "samples features"], reconstructions: Float[ArrayLike, "samples features"]
) -> Scalar:
    """Compute 1 − Σ‖x − x̂‖² / Σ‖x − x̄‖², over all samples, x̄ their mean (one number for each feature).

    The coefficient of determination R², with the variances of all features added up: 1 for x̂ = x, 0 for
    x̂ = x̄, and negative for what is worse than the mean. A reconstruction that is off by a constant loses by
    it. For the share of the sum of squares, whatever the mean, see `explained_energy`.

    Args:
        xs: the data, at least one sample.
        reconstructions: of the same shape.

    Returns:
        The share; 0 where the samples do not vary (all the same, or just one), as there is nothing to
        explain.

    Raises:
        ValueError: for arrays of another rank or of unequal shapes, and without samples.

    Gradient: that of the formula; 0 where the samples do not vary.

    Example:
        >>> import jax.numpy as jnp
        >>> xs = jnp.array([[9.0], [11.0]])
        >>> [float(explained_variance(xs, guess)) for guess in (xs, jnp.full((2, 1), 10.0))]
        [1.0, 0.0]
    """
    xs, reconstructions = _pair(xs, reconstructions)
    return _explained(centered(xs)[0], xs - reconstructions)


def explained_energy(
    xs: Float[ArrayLike, "samples features"], reconstructions: Float[ArrayLike, "samples features"]
) -> Scalar:
    """Compute 1 − Σ‖x − x̂‖² / Σ‖x‖², over all samples: the share of the sum of squares.

    The measure of models without a mean, in which a code of zeros stands for x̂ = 0 and scores 0. Where the
    data have a mean, the mean alone scores high: for the share of the variance see `explained_variance`, with
    which it agrees where every feature has mean 0.

    Args:
        xs: the data, at least one sample.
        reconstructions: of the same shape.

    Returns:
        The share; 0 where the data are all zero.

    Raises:
        ValueError: as `explained_variance`.

    Gradient: that of the formula; 0 where the data are all zero.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(explained_energy(jnp.array([[3.0, 4.0]]), jnp.array([[3.0, 0.0]]))), 2)
        0.36
    """
    xs, reconstructions = _pair(xs, reconstructions)
    return _explained(xs, xs - reconstructions)


def n_active(codes: Float[ArrayLike, "*samples units"]) -> Float[Array, "*samples"]:
    """Count the non-zero coefficients of each code (its L0), in float32 at least; NaN for a code with NaN."""
    codes = at_least_single(real_array("codes", codes))
    if not codes.ndim:
        raise ValueError(f"codes: expected an axis of units, got shape {codes.shape}.")
    count = jnp.sum(codes != 0, axis=-1).astype(codes.dtype)
    return jnp.where(jnp.any(jnp.isnan(codes), axis=-1), jnp.nan, count)


def dead_fraction(codes: Float[ArrayLike, "samples units"]) -> Scalar:
    """Compute the fraction of units that no sample uses, in float32 at least; NaN where a code is NaN.

    Without samples no unit is used, and the fraction is 1.
    """
    codes = at_least_single(real_array("codes", codes, "samples units"))
    fraction = jnp.mean(jnp.all(codes == 0, axis=0), dtype=codes.dtype)
    return jnp.where(jnp.any(jnp.isnan(codes)), jnp.nan, fraction)


def _pair(xs, reconstructions) -> tuple[Array, Array]:
    xs = real_array("xs", xs, "samples features")
    reconstructions = real_array("reconstructions", reconstructions, "samples features")
    check_same_shape("reconstructions", reconstructions, "xs", xs)
    if not xs.size:
        raise ValueError(f"xs: expected at least one sample and one feature, got shape {xs.shape}.")
    return at_least_single(xs), at_least_single(reconstructions)


@jax.jit
def _explained(reference: Array, errors: Array) -> Scalar:
    """Return 1 − Σ errors²/Σ reference²; 0 where the reference is 0."""
    unit = unit_of(reference)
    power, error = jnp.sum((reference / unit) ** 2), jnp.sum((errors / unit) ** 2)
    return jnp.where(power == 0, 0, 1 - error / jnp.where(power == 0, 1, power))
