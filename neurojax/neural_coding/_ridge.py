"""Ridge regression in closed form, in the primal or the dual."""

from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_finite, check_nonnegative, check_positive, check_shape, check_size, is_concrete
from .._precision import at_least_single, product

__all__ = ["LinearMap", "ridge", "solve_ridged"]

_N_REFINEMENTS = 4


class LinearMap(eqx.Module):
    """x ↦ x @ weights + intercept.

    Attributes:
        weights: one column a target.
        intercept: one number a target.
    """

    weights: Float[Array, "features targets"] = eqx.field(converter=partial(real_array, "weights"))
    intercept: Float[Array, " targets"] = eqx.field(converter=partial(real_array, "intercept"))

    def __call__(self, x: Real[ArrayLike, "*samples features"]) -> Float[Array, "*samples targets"]:
        """Apply the map."""
        x = real_array("x", x)
        check_shape("x", x, (*x.shape[:-1], self.weights.shape[0]), "as many features as the weights")
        return product(x, self.weights) + self.intercept


def ridge(
    xs: Real[ArrayLike, "samples features"],
    ys: Real[ArrayLike, "samples targets"],
    strength: Real[ArrayLike, ""],
    *,
    weights: Real[ArrayLike, " samples"] | None = None,
    form: Literal["primal", "dual"] | None = None,
) -> LinearMap:
    """Minimise ½ Σₙ wₙ‖yₙ − b − xₙB‖² + ½ λ‖B‖² over weights B and intercept b, in closed form.

    With centred data (weighted means taken off) and W = diag(w):
    primal B = (XᵀWX + λI)⁻¹ XᵀWY, a system of features; dual B = XᵀW^½ (W^½XXᵀW^½ + λI)⁻¹ W^½Y, one of
    samples, for features ≫ samples. Both are the same B. A feature that does not vary has weights 0.

    A λ that rounding would lose beside a feature's squares (128·ε·√n of them, in a system of n) is replaced
    by that, and the solution refined four times against the λ that was given. So equal features share their
    weight as they do in the limit of small λ. Only directions in which samples vary by less than about 1e-2
    of the widest (float32; 1e-7 in float64) may be shrunk by more than so small a λ would shrink them.

    Args:
        xs: one sample a row.
        ys: one sample a row.
        strength: λ > 0.
        weights: w ≥ 0 of each sample; ``None``: 1 each. A sample of weight 0 is left out exactly.
        form: which system to solve; ``None``: the smaller.

    Returns:
        The map from x to y, in the dtype of ``xs``, for half precision in float32.

    Raises:
        ValueError: at trace time, for sizes that do not fit and another ``form``; where they are known, for
            numbers that are not finite, a strength that is not positive, and weights below 0 or all 0.

    Gradient: with respect to all arrays, through the Cholesky factor.

    Reference: Hoerl & Kennard 1970; the dual: Saunders, Gammerman & Vovk 1998.

    Example:
        >>> import jax.numpy as jnp
        >>> xs = jnp.array([[-1.0], [0.0], [1.0]])
        >>> fitted = ridge(xs, 2 * xs + 5, 2.0)
        >>> print(fitted.weights.round(3), fitted.intercept.round(3))
        [[1.]] [5.]
    """
    xs, ys, weights = _checked(xs, ys, weights)
    strength = real_array("strength", strength, "")
    check_positive("strength", strength)
    if form not in (None, "primal", "dual"):
        raise ValueError(f'form: expected "primal", "dual" or None, got {form!r}.')
    return _fitted(xs, ys, strength.astype(xs.dtype), weights, form=form or _smaller(xs))


@partial(jax.jit, static_argnames="form")
def _fitted(xs, ys, strength, weights, *, form: str) -> LinearMap:
    share = weights / jnp.sum(weights)
    x_mean, y_mean = product(share, xs), product(share, ys)
    root = jnp.sqrt(weights)[:, None]
    x, y = root * _varying(xs, x_mean, weights), root * (ys - y_mean)
    # In a unit in which neither the squares of x nor λ leave the range of the dtype.
    unit = jnp.maximum(jnp.max(jnp.abs(x)), jnp.sqrt(strength))
    unit = jax.lax.stop_gradient(jnp.where(unit > 0, unit, 1))
    fitted = _solve(x / unit, y, strength / unit / unit, form) / unit
    return LinearMap(fitted, y_mean - product(x_mean, fitted))


def _checked(xs, ys, weights):
    """Return arrays of one dtype, whose sizes fit."""
    xs = at_least_single(real_array("xs", xs, "samples features"))
    ys = real_array("ys", ys, "samples targets")
    if not xs.size:
        raise ValueError(f"xs: expected at least one sample and feature, got shape {xs.shape}.")
    check_size("ys", ys, 0, xs.shape[0], "rows, one for each sample,")
    weights = jnp.ones(len(xs), xs.dtype) if weights is None else real_array("weights", weights, "samples")
    check_size("weights", weights, 0, xs.shape[0], "weights, one for each sample,")
    for name, value in (("xs", xs), ("ys", ys), ("weights", weights)):
        check_finite(name, value)
    check_nonnegative("weights", weights)
    check_some_weight("weights", weights)
    return xs, ys.astype(xs.dtype), weights.astype(xs.dtype)


def check_some_weight(name: str, weights) -> None:
    """Raise ``ValueError`` if all concrete weights are 0."""
    if is_concrete(weights) and not np.any(np.asarray(weights)):
        raise ValueError(f"{name}: expected a sample of weight > 0, got none.")


def _varying(xs, mean, weights):
    """Return samples less their mean, and 0 for features that rounding alone makes vary."""
    centred = xs - mean
    size = jnp.max(jnp.where(weights[:, None] > 0, jnp.abs(centred), 0), axis=0)
    return jnp.where(size <= 8 * jnp.finfo(xs.dtype).eps * jnp.abs(mean), 0, centred)


def _smaller(xs) -> str:
    return "primal" if xs.shape[1] <= xs.shape[0] else "dual"


def _solve(x, y, strength, form: str):
    """Return the weights, from centred samples."""
    if form == "primal":
        solve = _ridged(product(x.T, x), strength)
        fitted = solve(product(x.T, y))
        for _ in range(_N_REFINEMENTS):
            # From the samples themselves, which have twice the digits of their products.
            fitted = fitted + solve(product(x.T, y - product(x, fitted)) - strength * fitted)
        return fitted
    solve = _ridged(product(x, x.T), strength)
    dual = solve(y)
    for _ in range(_N_REFINEMENTS):
        dual = dual + solve(y - product(x, product(x.T, dual)) - strength * dual)
    return product(x.T, dual)


def _ridged(gram: Float[Array, "n n"], strength):
    """Return rhs ↦ (gram + strength·I)⁻¹ rhs, by Cholesky's factor, which rounding must not make singular."""
    squares = jax.lax.stop_gradient(jnp.diagonal(gram))
    floor = 128 * jnp.finfo(gram.dtype).eps * len(gram) ** 0.5 * squares
    ridged = gram + jnp.diag(jnp.maximum(jnp.asarray(strength, gram.dtype), floor))
    factor = jax.scipy.linalg.cho_factor(ridged, lower=True)
    return lambda rhs: jax.scipy.linalg.cho_solve(factor, rhs)


def solve_ridged(
    gram: Float[Array, "n n"], strength, rhs: Float[Array, "n targets"]
) -> Float[Array, "n targets"]:
    """Return (gram + strength·I)⁻¹ rhs, with the strength no smaller than rounding."""
    return _ridged(gram, strength)(rhs)
