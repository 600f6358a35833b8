"""Penalties of a code's order of magnitude: weights by rank, and the largest coefficients alone.

The operator of SLOPE is the isotonic regression of |v|_(k) − t·λₖ, the sorted magnitudes less their
thresholds: the nearest sequence that does not rise, cut off at 0. It is constant on pools of neighbors, at
their mean. Here every pool whose mean is above that of the pool before it joins that one, all at once, until
none is: a few rounds for strengths that fall evenly, at most one for each member of a pool. The loop only
finds the pools. The means are taken afterwards, where they can be differentiated, by sums of a fixed order,
which a GPU's scatter-add does not have.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._arrays import real_array
from .._checks import check_at_least, check_nonnegative, is_concrete
from .._compensated import exact_sum
from .._types import Scalar
from ._abstract import AbstractCertifiedPenalty, AbstractProximalPenalty, Certificate
from ._certificates import largest_scale
from ._strengths import (
    as_code,
    check_one_step,
    converted,
    in_unit,
    magnitude,
    step_times,
    weighted_sum,
    widened,
)
from ._thresholds import soft_threshold

__all__ = ["SLOPE", "TopK"]


def _check_strengths(name: str, value) -> None:
    """Raise ``ValueError`` unless there is a last axis along which concrete numbers ≥ 0 do not rise."""
    if np.ndim(value) == 0:
        raise ValueError(f"{name}: expected one for each coefficient, largest first, got a single number.")
    check_nonnegative(name, value)
    if is_concrete(value) and np.any(np.asarray(value)[..., 1:] > np.asarray(value)[..., :-1]):
        raise ValueError(f"{name}: expected numbers that do not rise, largest first, got {value}.")


class SLOPE(AbstractCertifiedPenalty):
    """The sorted L1 norm: Σₖ λₖ·|z|_(k), with |z|_(1) ≥ |z|_(2) ≥ … and λ₁ ≥ λ₂ ≥ … ≥ 0.

    The larger a coefficient, the larger its strength λ. Coefficients with similar pulls are tied: they form a
    cluster that shares one magnitude. With equal strengths it is L1. It sorts along the last axis and sums
    over all others.

    Attributes:
        strengths: λ, ≥ 0, largest first, one for each coefficient of the last axis; with leading axes that
            broadcast against those of the code, if any.

    Raises:
        ValueError: at construction, for a single number, and for concrete strengths that are negative or not
            in order; in use, if they are not as many as the coefficients of the last axis.

    Gradient:
        Of the value: sign(zᵢ)·λₖ for the k-th largest, of equal magnitudes the earlier first, and 0 at 0.
        Of the operator: that of a mean within a pool.

    Reference:
        Bogdan, van den Berg, Sabatti, Su & Candès (2015), SLOPE: adaptive variable selection via convex
        optimization, sections 1 and 2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> penalty = SLOPE([2.0, 1.0, 0.0])
        >>> value_and_prox = jax.jit(lambda code: (penalty.value(code), penalty.prox(code, 1.0)))
        >>> print(*value_and_prox(jnp.array([0.5, -4.0, 3.5])))
        11.5 [ 0.5  -2.25  2.25]
    """

    strengths: Float[Array, "..."] = eqx.field(converter=partial(converted, "strengths", _check_strengths))
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def value(self, code: Float[ArrayLike, "*batch atoms"]) -> Scalar:
        """Return Σₖ λₖ·|code|_(k)."""
        code, strengths = as_code(code, self.strengths)
        self._check_size("code", code)
        return weighted_sum(strengths, -jnp.sort(-magnitude(code), axis=-1))

    def prox(
        self, v: Float[ArrayLike, "*batch atoms"], step_size: Real[ArrayLike, "..."]
    ) -> Float[Array, "..."]:
        """Return argmin_u ½‖u − v‖² + step_size·Σₖ λₖ·|u|_(k).

        ``step_size`` is one number, or one for each of the leading axes: then its last axis is of size 1.

        Raises:
            ValueError: for step sizes that differ along the last axis, which the strengths couple.
        """
        given = real_array("v", v)
        v = widened(given)
        self._check_size("v", v)
        check_one_step(step_size)
        return _shrunk(v, step_times(step_size, self.strengths, v)).astype(given.dtype)

    def support(self, code: Float[ArrayLike, "*batch atoms"]) -> Bool[Array, "*batch atoms"]:
        """Return which coefficients are not zero, and the zeros too if none of their strengths is above 0."""
        code = real_array("code", code)
        self._check_size("code", code)
        return (code != 0) | _is_free_at_zero(code, self.strengths)

    def tangent(self, code: Float[ArrayLike, "*batch atoms"]) -> Callable[[Array], Array]:
        """Return the orthogonal projector onto the directions in which a solution moves.

        Within a cluster of equal magnitudes that are not 0, it is sign(zᵢ)·mean over the cluster of
        sign(zⱼ)·vⱼ: a tie stays a tie. Where all strengths of a cluster are equal, nothing ties it, and its
        coefficients move freely. Off the ``support`` it is 0.
        """
        support, code = self.support(code), real_array("code", code)

        def project(direction: Array) -> Array:
            return jnp.where(support, _tied(real_array("direction", direction), code, self.strengths), 0)

        return project

    def certificate(
        self, code: Float[Array, "*batch atoms"], correlation: Float[Array, "*batch atoms"]
    ) -> Certificate:
        """Return s = min(1, minₖ Λₖ/Cₖ) and Σₖ (|z|_(k) − |z|_(k+1))·(Λₖ − s·Pₖ).

        Λₖ is λ₁ + … + λₖ, Cₖ is |c|_(1) + … + |c|_(k), Pₖ is the sum of sign(zᵢ)·cᵢ over the k largest |zᵢ|,
        and |z|_(n+1) is 0: the sum is Σₖ λₖ|z|_(k) − s⟨z, c⟩ by parts.
        """
        self._check_size("code", code)
        strengths = self.strengths.astype(code.dtype)
        pulls = -jnp.sort(-jnp.abs(correlation), axis=-1)
        scale = largest_scale(jnp.cumsum(pulls, axis=-1), jnp.cumsum(strengths, axis=-1))
        order = _descending(code)
        sizes, along = (
            jnp.take_along_axis(x, order, axis=-1) for x in (jnp.abs(code), jnp.sign(code) * correlation)
        )
        steps = sizes - jnp.concatenate([sizes[..., 1:], jnp.zeros_like(sizes[..., :1])], axis=-1)
        # Sums of the differences: at a solution they are small, those of each are not.
        excess = jnp.cumsum(strengths - scale * along, axis=-1)
        rest = jnp.maximum(jnp.where(steps == 0, 0, steps * excess), 0)
        return Certificate(scale, jnp.sum(rest), jnp.all(strengths[..., 0] > 0))

    def in_units(self, unit: Scalar) -> "SLOPE":
        """Return the same penalty with strengths/unit."""
        return SLOPE(in_unit(self.strengths, unit))

    def _check_size(self, name: str, code: Array) -> None:
        if np.shape(code)[-1:] != self.strengths.shape[-1:]:
            raise ValueError(
                f"strengths: expected one for each coefficient on the last axis of {name}, whose shape is "
                f"{np.shape(code)}, got shape {self.strengths.shape}."
            )


class TopK(AbstractProximalPenalty):
    """Keep the k coefficients of largest magnitude and set all others to 0, whatever the step size.

    This is a prox without a value: the projection on the codes with at most k coefficients that are not 0.
    Under ISTA it is iterative hard thresholding. A code that is stationary in its k coefficients is a fixed
    point if step_size·|cᵢ| is at most its least magnitude wherever zᵢ = 0, with c the negative gradient of
    the data term: the fixed points depend on the step size.

    Attributes:
        k: how many coefficients to keep, ≥ 1, of all axes of a code together; static.

    Raises:
        ValueError: at construction, if k < 1; in use, if a code has fewer than k coefficients.

    Gradient:
        Of the operator: 1 for what is kept, 0 elsewhere.

    Reference:
        Blumensath & Davies (2009), Iterative hard thresholding for compressed sensing.

    Example:
        >>> import jax.numpy as jnp
        >>> print(TopK(2).prox(jnp.array([3.0, -1.0, 0.5, -1.0]), 1.0))
        [ 3. -1.  0.  0.]
    """

    k: int = eqx.field(static=True)
    is_smooth: ClassVar[bool] = False
    is_separable: ClassVar[bool] = False

    def __check_init__(self):
        check_at_least("k", self.k, 1)

    def prox(self, v: Float[ArrayLike, "*shape"], step_size: Real[ArrayLike, "..."]) -> Float[Array, "..."]:
        """Return v where |v| is among the k largest, the earlier of equal ones first, else 0; NaN stays."""
        del step_size
        v = real_array("v", v)
        if v.size < self.k:
            raise ValueError(f"k: expected at most the {v.size} coefficients of a code, got {self.k}.")
        _, kept = lax.top_k(lax.stop_gradient(jnp.abs(v)).ravel(), self.k)
        is_kept = jnp.zeros(v.size, bool).at[kept].set(True).reshape(v.shape)
        return jnp.where(is_kept | jnp.isnan(v), v, 0)

    def gradient(self, code: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
        """Return 0: along what is kept, nothing is penalized."""
        return jnp.zeros_like(real_array("code", code))

    def support(self, code: Float[ArrayLike, "*shape"]) -> Bool[Array, "*shape"]:
        """Return which coefficients are not zero."""
        return real_array("code", code) != 0

    def in_units(self, unit: Scalar) -> "TopK":
        """Return this penalty: which coefficients are the largest does not depend on the unit."""
        del unit
        return self


def _descending(code: Array) -> Int[Array, "..."]:
    """Return the order of decreasing magnitude along the last axis, equal ones as they come, NaN last."""
    return jnp.argsort(-lax.stop_gradient(jnp.abs(code)), axis=-1, stable=True)


def _is_free_at_zero(code: Array, strengths: Array) -> Bool[Array, "..."]:
    """Return whether the largest strength that a zero of the code has is 0, for each row."""
    n_active = jnp.sum(code != 0, axis=-1, keepdims=True)
    first = jnp.minimum(n_active, code.shape[-1] - 1)
    strengths = jnp.broadcast_to(strengths, code.shape)
    return jnp.take_along_axis(strengths, first, axis=-1) == 0


@jax.jit
@partial(jnp.vectorize, signature="(n),(n)->(n)")
def _shrunk(v: Float[Array, " n"], thresholds: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return the operator of SLOPE: a soft threshold of pooled magnitudes by pooled thresholds."""
    # An infinite first threshold forbids any code but 0, as infinite thresholds for all do.
    thresholds = jnp.where(jnp.isinf(thresholds[0]), jnp.inf, thresholds)
    sign = jnp.where(v < 0, -1, 1).astype(v.dtype)  # not 0 at 0, where v has a derivative without a threshold
    order = _descending(v)
    sizes = (sign * v)[order]
    start, end = _pools(lax.stop_gradient(sizes - thresholds))
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(v.size), unique_indices=True)
    sizes, thresholds = (_means(x, start, end)[rank] for x in (sizes, thresholds))
    return soft_threshold(sign * sizes, thresholds)


@jax.jit
@partial(jnp.vectorize, signature="(n),(n),(n)->(n)")
def _tied(direction: Array, code: Array, strengths: Array) -> Array:
    """Return sign·mean(sign·direction) over clusters whose strengths differ, and the direction elsewhere."""
    sign = jnp.where(code < 0, -1, 1).astype(direction.dtype)
    order = _descending(code)
    sizes = jnp.abs(code)[order]
    start, end = _runs(jnp.append(sizes[:-1] != sizes[1:], True))
    is_tied = strengths[start] != strengths[end]
    along = (sign * direction)[order]
    along = jnp.where(is_tied, _means(along, start, end), along)
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(code.size), unique_indices=True)
    return sign * along[rank]


def _pools(y: Float[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Return the first and the last place of each place's pool in the isotonic regression of y.

    Pools end where the least concave line above the points (k, y₁ + … + yₖ) bends. The loop starts from all
    points and drops those at which the line that is left bends upwards.
    """
    # Infinities and NaN are in no pool with other numbers: their part in the sums is not needed.
    finite = jnp.where(jnp.isfinite(y), y, 0)
    # Twice the working precision, for differences of the sums are what counts.
    sums = _running(_pair_sum, (finite, jnp.zeros_like(finite)), 0)

    def join(state):
        is_end, _ = state
        start, end = _runs(is_end)
        high, low = (x[end] - jnp.where(start == 0, 0, x[start - 1]) for x in sums)
        mean = (high + low) / (end - start + 1).astype(y.dtype)
        mean = jnp.where(start == end, y, mean)  # so that rounding never pools numbers that are in order
        is_low = is_end & jnp.append(mean[:-1] < mean[1:], False)
        return is_end & ~is_low, is_low

    all_true = jnp.isnan(y) | True  # of the data's varying type, as the state of a loop must be
    is_end, _ = lax.while_loop(lambda state: jnp.any(state[1]), join, (all_true, all_true))
    return _runs(is_end)


def _runs(is_end: Bool[Array, " n"]) -> tuple[Int[Array, " n"], Int[Array, " n"]]:
    """Return the first and the last place of the run that each place is in, from where runs end."""
    n, place = is_end.size, jnp.arange(is_end.size)
    run = _running(jnp.add, is_end.astype(int), 0) - is_end
    ends = jnp.zeros_like(run).at[jnp.where(is_end, run, n)].set(place, mode="drop")
    return jnp.where(run == 0, 0, ends[run - 1] + 1), ends[run]


def _means(x: Float[Array, " n"], start: Int[Array, " n"], end: Int[Array, " n"]) -> Float[Array, " n"]:
    """Return for each place the mean of its run, the same bits for all of a run.

    Numbers of other runs do not enter, be they NaN, infinite or large, as they would in differences of sums.
    """
    return _running(jnp.add, x / (end - start + 1).astype(x.dtype), start)[end]


def _running(combine: Callable, x: Any, start: Any) -> Any:
    """Return x₁, x₁∘x₂, x₁∘x₂∘x₃, … from ``start`` to each place, for arrays or tuples of them.

    Each round of the loop doubles how far back a place has combined. Written out, as `lax.associative_scan`
    does, the rounds take seconds to compile.
    """
    n = jax.tree.leaves(x)[0].size
    place = jnp.arange(n)

    def double(i, x):
        reach = 1 << i
        before = jax.tree.map(lambda leaf: jnp.roll(leaf, reach), x)
        is_within = place - reach >= start
        return jax.tree.map(lambda new, old: jnp.where(is_within, new, old), combine(before, x), x)

    return lax.fori_loop(0, (n - 1).bit_length(), double, x)


def _pair_sum(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return the sum of two numbers that are each a rounded sum and what rounding it lost."""
    total, error = exact_sum(a[0], b[0])
    return total, a[1] + b[1] + error
