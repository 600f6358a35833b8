"""The choice of a strength: by what codes predict of data held out, or by how many units are to be active."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_at_least, check_positive, check_share
from .._types import PRNGKey, Scalar
from ..convergence import Detached, Status
from ..penalties import L1, AbstractPenalty
from ._batch import encode_batch, encode_path_batch
from ._dictionary import AbstractDictionary

__all__ = ["StrengthChoice", "strength_by_activity", "strength_by_held_out"]

_MOST_DOUBLINGS = 20


class StrengthChoice(NamedTuple):
    """A strength chosen by `strength_by_held_out`, and the scores of all that were tried.

    Attributes:
        strength: the one of the least held-out energy; NaN where there is none.
        strengths: all that were tried.
        held_out: for each, the mean of ½(x − reconstruct(z))² over the entries held out, at codes of the
            others: over the rows that converged at all strengths, and infinite where no row did.
        n_active: for each, the mean number of active units of these rows.
        converged: for each, the share of all rows that converged.
    """

    strength: Scalar
    strengths: Float[Array, " strengths"]
    held_out: Float[Array, " strengths"]
    n_active: Float[Array, " strengths"]
    converged: Float[Array, " strengths"]


def strength_by_held_out(
    dictionary: AbstractDictionary,
    xs: Float[ArrayLike, " samples *datum"],
    strengths: Float[ArrayLike, " strengths"],
    key: PRNGKey,
    *,
    penalty: Callable[[Array], AbstractPenalty] = L1,
    share: float = 0.1,
    **settings,
) -> StrengthChoice:
    """Choose a strength by cross-validation of entries: codes of some predict the others.

    A random ``share`` of the entries of each row is held out by a weight of 0. Rows are encoded along the
    strengths, each from the codes of the one before, and judged by the energy of what was held out.

    Args:
        dictionary: the dictionary.
        xs: the data, one per row.
        strengths: to try; the strongest first is fastest. For example
            ``λ * jnp.geomspace(1, 0.01, 20)`` with λ the largest `max_strength` of the data.
        key: of what is held out.
        penalty: a strength ↦ the penalty.
        share: of the entries to hold out, in (0, 1).
        **settings: the keyword arguments of `encode_batch`, except ``init``, ``weights``, ``penalty_axis``,
            ``max_active`` and ``gradient``.

    Returns:
        The choice. Rows that did not converge at one of the strengths are left out of all means, and so are
        entries that are not finite.

    Raises:
        ValueError: as `encode_batch`, and for a share that is not between 0 and 1.

    Reference:
        Wold 1978, Cross-validatory estimation of the number of components: entries, not rows, are held out.
    """
    check_share("share", share)
    _refuse_settings(settings)
    xs, strengths = real_array("xs", xs), real_array("strengths", strengths, "strengths")
    is_held = jax.random.uniform(key, xs.shape, xs.dtype) < share
    weights = jnp.where(is_held, 0, 1).astype(xs.dtype)
    solution = encode_path_batch(
        dictionary, xs, jax.vmap(penalty)(strengths), weights=weights, gradient=Detached(), **settings
    )
    is_converged = solution.status == Status.converged
    counts = jnp.all(is_converged, axis=0)
    held_out, n_active = _judge(dictionary, xs, is_held & jnp.isfinite(xs), solution.value, counts)
    best = jnp.where(jnp.any(jnp.isfinite(held_out)), strengths[jnp.argmin(held_out)], jnp.nan)
    return StrengthChoice(best, strengths, held_out, n_active, jnp.mean(is_converged, axis=1, dtype=xs.dtype))


def _refuse_settings(settings: dict[str, Any]) -> None:
    for name in ("init", "weights", "penalty_axis", "max_active", "gradient"):
        if name in settings:
            raise ValueError(f"{name}: expected no such argument here, which sets it itself, got one.")


@eqx.filter_jit
def _judge(dictionary, xs, is_held, codes, counts) -> tuple[Array, Array]:
    """Return the energy held out and the active units of each strength, over the rows that count."""
    is_judged = is_held & counts.reshape(-1, *[1] * (xs.ndim - 1))

    def one(codes):
        errors = jnp.where(is_judged, xs - jax.vmap(dictionary.reconstruct)(codes), 0)
        return 0.5 * jnp.sum(errors**2) / jnp.maximum(jnp.sum(is_judged), 1), _mean_active(codes, counts)

    held_out, n_active = jax.vmap(one)(codes)
    return jnp.where(jnp.any(is_judged), held_out, jnp.inf), n_active


def _mean_active(codes: Array, counts: Array) -> Scalar:
    """Return the mean number of active units of the rows that count."""
    active = jnp.sum(codes.reshape(len(codes), -1) != 0, axis=1)
    return jnp.sum(jnp.where(counts, active, 0)) / jnp.maximum(jnp.sum(counts), 1).astype(codes.dtype)


def strength_by_activity(
    dictionary: AbstractDictionary,
    xs: Float[ArrayLike, " samples *datum"],
    n_active: float | int,
    *,
    penalty: Callable[[Array], AbstractPenalty] = L1,
    n_steps: int = 12,
    **settings,
) -> Scalar:
    """Find the strength at which codes have ``n_active`` active units on the mean, by bisection.

    From a strength at which all codes are zero (the largest |x·a|, doubled until it is) to 10⁻⁴ of the
    largest |x·a|, on a logarithmic scale, each code from the last. Codes count as they are found, converged
    or not, unless they are not finite.

    Args:
        dictionary: the dictionary.
        xs: the data, one per row, at least one of them not zero.
        n_active: the mean number of non-zero coefficients that is wanted, > 0.
        penalty: a strength ↦ the penalty, whose codes have fewer active units the stronger it is.
        n_steps: of bisection, ≥ 1.
        **settings: as for `strength_by_held_out`.

    Returns:
        The strength, at which at least ``n_active`` units are active; the weakest where even that has fewer.
        NaN where the data are all zero or no code is finite.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.sparse_coding import Dictionary, strength_by_activity
        >>> xs = jnp.array([[4.0, 3.0, 2.0, 1.0]])
        >>> strength = strength_by_activity(Dictionary(jnp.eye(4)), xs, 2)
        >>> bool(strength >= 2), bool(strength < 3)
        (True, True)
    """
    check_positive("n_active", n_active)
    check_at_least("n_steps", n_steps, 1)
    _refuse_settings(settings)
    xs = real_array("xs", xs)
    largest = jnp.nanmax(jnp.abs(jax.vmap(dictionary.correlate)(xs)))

    def active_at(logarithm, codes):
        whole = penalty(largest * jnp.exp(logarithm))
        solution = encode_batch(dictionary, xs, whole, init=codes, gradient=Detached(), **settings)
        is_finite = solution.status != Status.nonfinite
        codes = jnp.where(jnp.isfinite(solution.value), solution.value, 0)
        return jnp.where(jnp.any(is_finite), _mean_active(codes, is_finite), jnp.nan), codes

    def double(carry):
        high, codes, _, n_doublings = carry
        n_found, codes = active_at(high, codes)
        return high + math.log(2), codes, n_found, n_doublings + 1

    def is_active(carry):
        return (carry[2] > 0) & (carry[3] < _MOST_DOUBLINGS)

    def halve(carry, _):
        low, high, codes = carry  # logarithms; at low there are enough active units, or it is the least
        middle = (low + high) / 2
        n_found, codes = active_at(middle, codes)
        is_weak = n_found >= n_active
        return (jnp.where(is_weak, middle, low), jnp.where(is_weak, high, middle), codes), n_found

    codes = jax.vmap(dictionary.empty_code)(xs)
    zero, one = jnp.zeros((), codes.dtype), jnp.ones((), codes.dtype)
    high, codes, *_ = lax.while_loop(is_active, double, (zero, codes, one, jnp.int32(0)))
    start = jnp.asarray(math.log(1e-4), codes.dtype), high, codes
    (low, _, _), found = lax.scan(halve, start, length=n_steps)
    is_known = (largest > 0) & jnp.all(jnp.isfinite(found))
    return jnp.where(is_known, largest * jnp.exp(low), jnp.nan)
