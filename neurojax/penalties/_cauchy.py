"""The proximal operator of ln(1 + u²): the right root of a cubic, to working precision."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._compensated import accurate_sum, power_of_two_near, square_terms

__all__ = ["cauchy_root"]


@jax.custom_jvp
def cauchy_root(v: Float[Array, "*shape"], t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return argmin_u ½(u − v)² + t·ln(1 + u²) for t ≥ 0, in the dtype of ``v`` (32 or 64 bits).

    A minimum solves (u − |v|)(1 + u²) + 2tu = 0. All lengths are first divided by a power of two c, which
    turns the equation into (u − v)(k + u²) + 2tu = 0 with k = 1/c² and every number of order one.

    Gradient:
        Implicit: du/dv = 1/(1 + t·S″(u)) and du/dt = −S′(u)/(1 + t·S″(u)) with S(u) = ln(1 + u²). The
        denominator is held above machine epsilon, so that the one point where it vanishes gives a very
        large number.
    """
    size = jnp.abs(v)
    c = power_of_two_near(jnp.maximum(jnp.where(jnp.isfinite(size), size, 1), jnp.sqrt(1 + 2 * t)))
    u = c * _scaled_root(size / c, t / c / c, 1 / c / c)
    u = jnp.where((t == 0) | jnp.isinf(v), size, u)
    return jnp.copysign(jnp.where(jnp.isinf(t), 0, u), v)


@cauchy_root.defjvp
def _cauchy_root_jvp(primals, tangents):
    v, t = primals
    dv, dt = tangents
    u = cauchy_root(v, t)
    largest = jnp.finfo(v.dtype).max ** 0.5
    bounded = jnp.clip(u, -largest, largest)
    x = 1 / (1 + bounded**2)
    curvature = 2 * x * (2 * x - 1)
    slope = 1 / jnp.maximum(1 + t * curvature, jnp.finfo(v.dtype).eps)
    return u, slope * (dv - 2 * bounded * x * dt)


def _scaled_root(v, t, k):
    """Return the global minimizer in [0, v] of ½(u − v)² + t·ln(k + u²)."""
    # u = v/3 + w gives w³ + p·w + q = 0. With p and q free of cancellation, w is accurate relative to itself.
    squares = [-term for term in square_terms(v)]
    p = accurate_sum(3 * k, 4 * t, 2 * t, *squares) / 3
    q = accurate_sum(8 * t, t, -9 * k, *squares) * (2 * v / 27)
    w = jnp.where(q**2 / 4 + p**3 / 27 < 0, _lower_of_two(v, t, k, p, q), _only_root(p, q))
    slope = 3 * w**2 + p
    w = w - jnp.where(slope > 0, (w**3 + p * w + q) / jnp.where(slope > 0, slope, 1), 0)
    u = jnp.clip(v / 3 + w, 0, v)
    return jnp.where((6 * u < v) | (4 * v < jnp.sqrt(k)), _small_root(u, v, t, k), u)


def _only_root(p, q):
    """Return the real root of w³ + p·w + q (the simple one, where there are others)."""
    a = jnp.cbrt(jnp.abs(q) / 2 + jnp.sqrt(jnp.maximum(q**2 / 4 + p**3 / 27, 0)))
    positive = a > 0
    b = p / (3 * jnp.where(positive, a, 1))
    magnitude = jnp.where(p > 0, jnp.abs(q) / jnp.where(positive, a * a + p / 3 + b * b, 1), a - b)
    return -jnp.sign(q) * jnp.where(positive, magnitude, 0)


def _lower_of_two(v, t, k, p, q):
    """Return, of the smallest and the largest of three real roots, the one with the lower objective."""
    radius = jnp.sqrt(jnp.maximum(-p / 3, jnp.finfo(p.dtype).tiny ** 0.5))
    angle = jnp.arccos(jnp.clip(-q / 2 / radius**3, -1, 1)) / 3
    inner_w, outer_w = -2 * radius * jnp.cos(jnp.pi / 3 - angle), 2 * radius * jnp.cos(angle)
    inner = jnp.clip(v / 3 + inner_w, 0, jnp.sqrt(3 * k))  # the inner minimum lies below √3
    outer = jnp.clip(v / 3 + outer_w, inner, v)
    # Difference of the two objectives, each term a multiple of outer − inner.
    gap, middle = outer - inner, (outer + inner) / 2
    is_outer = t * jnp.log1p(2 * middle * gap / (k + inner**2)) < gap * (v - middle)
    return jnp.where(is_outer, outer_w, inner_w)


def _small_root(u, v, t, k):
    """Return the root near u by Newton steps on u = v(k + u²)/(k + u² + 2t), a quotient of positive sums."""
    u = jnp.minimum(u, jnp.sqrt(3 * k))  # v/3 + w cancels where v is large
    for _ in range(3):
        inside = k + u * u
        total = inside + 2 * t
        image = v * (inside / total)
        slope = 4 * t * v * u / total / total
        u = jnp.where(slope < 1, u - (u - image) / jnp.where(slope < 1, 1 - slope, 1), u)
    return u
