"""Ridge regression in closed form, in the primal or the dual."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_nonnegative, check_positive, check_rank, check_real, check_size
from .._precision import product

__all__ = ["LinearMap", "ridge", "solve_ridged"]


class LinearMap(eqx.Module):
    """x ↦ x @ weights + intercept.

    Attributes:
        weights: one column a target.
        intercept: one number a target.
    """

    weights: Float[Array, "features targets"]
    intercept: Float[Array, " targets"]

    def __call__(self, x: Float[Array, "*samples features"]) -> Float[Array, "*samples targets"]:
        """Apply the map."""
        return product(x, self.weights) + self.intercept


def ridge(
    xs: Float[ArrayLike, "samples features"],
    ys: Float[ArrayLike, "samples targets"],
    strength: Real[ArrayLike, ""],
    *,
    weights: Float[ArrayLike, " samples"] | None = None,
    form: Literal["primal", "dual"] | None = None,
) -> LinearMap:
    """Minimise ½ Σₙ wₙ‖yₙ − b − xₙB‖² + ½ λ‖B‖² over weights B and intercept b, in closed form.

    With centred data (weighted means taken off) and W = diag(w):
    primal B = (XᵀWX + λI)⁻¹ XᵀWY, a system of features; dual B = XᵀW^½ (W^½XXᵀW^½ + λI)⁻¹ W^½Y, one of
    samples, for features ≫ samples. Both are the same B.

    Args:
        xs: one sample a row.
        ys: one sample a row.
        strength: λ > 0.
        weights: w ≥ 0 of each sample; ``None``: 1 each. A sample of weight 0 is left out exactly.
        form: which system to solve; ``None``: the smaller.

    Returns:
        The map from x to y.

    Raises:
        ValueError: at trace time, for sizes that do not fit, another ``form``, and a strength not positive or
            weights below 0 where they are known.

    Gradient: with respect to all arrays, through the Cholesky factor.

    Reference: Hoerl & Kennard 1970; the dual: Saunders, Gammerman & Vovk 1998.

    Example:
        >>> import jax.numpy as jnp
        >>> xs = jnp.array([[-1.0], [0.0], [1.0]])
        >>> fitted = ridge(xs, 2 * xs + 5, 2.0)
        >>> print(fitted.weights, fitted.intercept)
        [[1.]] [5.]
    """
    check_rank("xs", xs, "samples features")
    check_rank("ys", ys, "samples targets")
    check_positive("strength", strength)
    xs, ys = jnp.asarray(xs), jnp.asarray(ys)
    check_real("xs", xs)
    check_size("ys", ys, 0, xs.shape[0], "rows, one for each sample,")
    if form not in (None, "primal", "dual"):
        raise ValueError(f'form: expected "primal", "dual" or None, got {form!r}.')
    weights = jnp.ones(xs.shape[0], xs.dtype) if weights is None else jnp.asarray(weights, xs.dtype)
    check_size("weights", weights, 0, xs.shape[0], "weights, one for each sample,")
    check_nonnegative("weights", weights)
    share = weights / jnp.sum(weights)
    x_mean, y_mean = product(share, xs), product(share, ys)
    root = jnp.sqrt(weights)[:, None]
    x, y = root * (xs - x_mean), root * (ys - y_mean)
    if (form or _smaller(xs)) == "primal":
        fitted = solve_ridged(product(x.T, x), strength, product(x.T, y))
    else:
        fitted = product(x.T, solve_ridged(product(x, x.T), strength, y))
    return LinearMap(fitted, y_mean - product(x_mean, fitted))


def _smaller(xs) -> str:
    return "primal" if xs.shape[1] <= xs.shape[0] else "dual"


def solve_ridged(
    gram: Float[Array, "n n"], strength, rhs: Float[Array, "n targets"]
) -> Float[Array, "n targets"]:
    """Return (gram + strength·I)⁻¹ rhs, by Cholesky's factor."""
    ridged = gram + jnp.asarray(strength, gram.dtype) * jnp.eye(len(gram), dtype=gram.dtype)
    return jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(ridged, lower=True), rhs)
