"""The Poisson loss as a function of a linear predictor, and its derivatives.

ℓ(u; y) = rate(u) − y·ln rate(u), with rate = exp or softplus; convex in u for y ≥ 0. ln rate and
its derivatives stay exact where the rate itself underflows.
"""

from typing import Literal

import jax
import jax.numpy as jnp

__all__ = ["Nonlinearity", "curvature", "curvature_between", "inverse_rate", "log_rate", "rate", "slope"]

Nonlinearity = Literal["exp", "softplus"]

_FAR = -20.0  # below it softplus(u) is eᵘ − e²ᵘ/2 to the last digit
_SMALL = -7.0
_STEEPEST = 0.17  # above max_u of −∂² ln softplus(u), 0.1671…


def rate(nonlinearity: Nonlinearity, u):
    """Return exp(u) or ln(1 + exp(u))."""
    return jnp.exp(u) if nonlinearity == "exp" else jax.nn.softplus(u)


def log_rate(nonlinearity: Nonlinearity, u):
    """Return ln rate(u)."""
    if nonlinearity == "exp":
        return u
    is_far = u < _FAR
    return jnp.where(is_far, u - jnp.exp(u) / 2, jnp.log(jax.nn.softplus(jnp.where(is_far, 0, u))))


def inverse_rate(nonlinearity: Nonlinearity, rate):
    """Return the u of a rate; −∞ for 0."""
    return jnp.log(rate) if nonlinearity == "exp" else rate + jnp.log(-jnp.expm1(-rate))


def slope(nonlinearity: Nonlinearity, u, y):
    """Return ∂ℓ/∂u."""
    if nonlinearity == "exp":
        return jnp.exp(u) - y
    return jax.nn.sigmoid(u) - y * _log_slope(u)


def curvature(nonlinearity: Nonlinearity, u, y):
    """Return ∂²ℓ/∂u² ≥ 0."""
    if nonlinearity == "exp":
        return jnp.exp(u)
    on, off, ratio = jax.nn.sigmoid(u), jax.nn.sigmoid(-u), _log_slope(u)
    # Its series in eᵘ where the difference of two numbers near 1 would be rounding.
    small = jnp.exp(jnp.minimum(u, _SMALL))
    series = small / 2 - 5 / 6 * small**2 + 9 / 8 * small**3
    bend = jnp.where(u < _SMALL, series, ratio * (ratio - off))
    return on * off + y * jnp.maximum(bend, 0)


def curvature_between(nonlinearity: Nonlinearity, u, d, y):
    """Return an upper bound of ∂²ℓ/∂u² on the way from u to u + d.

    exp: that of the end where it is larger. softplus: the logarithm of the curvature changes by at most 1 a
    unit of u, so √(its two ends' product)·exp(|d|/2), and never more than ¼ + 0.17·y.
    """
    if nonlinearity == "exp":
        return jnp.exp(jnp.maximum(u, u + d))
    ends = curvature(nonlinearity, u, y) * curvature(nonlinearity, u + d, y)
    steepest = 0.25 + _STEEPEST * y
    is_near = jnp.abs(d) < 20  # further away the exponential could be infinite where an end is 0
    growth = jnp.exp(jnp.where(is_near, jnp.abs(d), 0) / 2)
    return jnp.where(is_near, jnp.minimum(steepest, jnp.sqrt(ends) * growth), steepest)


def _log_slope(u):
    """Return ∂ ln softplus(u)/∂u."""
    is_far = u < _FAR
    near = jnp.where(is_far, 0, u)
    return jnp.where(is_far, 1 - jnp.exp(u) / 2, jax.nn.sigmoid(near) / jax.nn.softplus(near))
