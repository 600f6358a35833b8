"""The inference problem of one datum, and the certificate of its solution."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from .._checks import check_shape
from .._precision import product
from .._proximal import (
    AbstractCompositeProblem,
    Point,
    largest_eigenvalue,
    length,
    relative_norm,
    unit_of,
)
from .._trees import bounded, constant
from .._types import Scalar
from ..penalties import L1, AbstractPenalty, ElasticNet, NonNegativeL1
from ._dictionary import AbstractDictionary

__all__ = ["SparseCodingProblem", "duality_gap", "in_units", "is_certified", "make_problem", "max_strength"]

_CERTIFIED = (L1, NonNegativeL1, ElasticNet)


class SparseCodingProblem(AbstractCompositeProblem):
    """Minimise E(z) = ½‖x − z·atoms‖² + penalty(z) over the code z of one datum x.

    Attributes:
        dictionary: the dictionary.
        x: the datum.
        penalty: the penalty.
        drive: ``correlate(x)``.
        gram: the dictionary's Gram matrix, where that is the cheaper way to the gradient.
        lipschitz: an upper estimate of the Gram matrix's largest eigenvalue, or 1/step_size if that is given.
    """

    dictionary: AbstractDictionary
    x: Float[Array, "*datum"]
    penalty: AbstractPenalty
    drive: Float[Array, "*code"]
    gram: Float[Array, "atoms atoms"] | None
    lipschitz: Scalar

    def correlation(self, value: Float[Array, "*code"]) -> Float[Array, "*code"]:
        """Return ``correlate(x − reconstruct(value))``, the negative gradient of the smooth part."""
        return -self.smooth_gradient(value)

    def smooth_gradient(self, value: Float[Array, "*code"]) -> Float[Array, "*code"]:
        """Return ∇½‖x − value·atoms‖²."""
        return self.point(value).gradient

    def point(self, value: Float[Array, "*code"]) -> Point:
        """Evaluate ½‖x − value·atoms‖²: through the Gram matrix, or through the error, which is then kept."""
        if self.gram is not None:
            return Point(value, product(value, self.gram) - self.drive)
        error = self.dictionary.reconstruct(value) - self.x
        return Point(value, self.dictionary.correlate(error), error)

    def point_at_zero(self) -> Point:
        """Evaluate at the zero code, without a product."""
        error = None if self.gram is not None else -self.x
        return Point(jnp.zeros_like(self.drive), -self.drive, error)

    def smooth_value_at(self, point: Point) -> Scalar:
        """Return ½‖x − z·atoms‖² − ½‖x‖² = ½⟨z, ∇f − drive⟩."""
        if point.error is not None:
            return 0.5 * jnp.sum((point.error - self.x) * (point.error + self.x))
        return 0.5 * jnp.sum(point.value * (point.gradient - self.drive))

    def bending(self, old: Point, new: Point) -> Scalar:
        """Return ‖d·atoms‖² for the step d between two points."""
        if old.error is None or new.error is None:
            return super().bending(old, new)
        return jnp.sum((new.error - old.error) ** 2)

    def residual(self, value: Float[Array, "*code"]) -> Scalar:
        """Return the stopping measure.

        For L1, non-negative L1 and elastic net of positive strength, the relative duality gap
        gap/(½‖x‖²); else the length of the fixed-point map's step, ‖z − T(z)‖ / max(‖z‖, ‖x·atomsᵀ‖/L).
        Where x = 0 the gap is absolute. A code outside the penalty's domain has the dtype's largest number:
        a method may start there.
        """
        error = self.x - self.dictionary.reconstruct(value)
        correlation = self.dictionary.correlate(error)

        def movement():
            step = value - self.fixed_point_from(value, -correlation)
            return relative_norm(step, length(value), length(self.drive) / self.lipschitz)

        def relative_gap():
            # In units of x, so that the squares of very small and very large data stay in range.
            unit = unit_of(self.x)
            scale = 0.5 * jnp.sum((self.x / unit) ** 2)
            gap = _gap(self.penalty, error / unit, correlation / unit, value / unit, unit)
            gap = gap / jnp.where(scale > 0, scale, 1)
            return _where_infeasible(self.penalty, value, gap, jnp.finfo(gap.dtype).max)

        return lax.cond(self._has_gap(), relative_gap, movement) if is_certified(self.penalty) else movement()

    def residual_at(self, point: Point, penalty_value: Scalar, movement: Scalar) -> Scalar:
        """Estimate the residual without a product, at a point that a step of length ``movement`` led to.

        The gap as a difference of energies, ½(1 − s)²‖r‖² + Σλᵢ|zᵢ| + s⟨z, ∇f⟩ in the terms of `duality_gap`:
        right up to rounding, as long as squares stay in range. Without a gap, movement/‖z‖.
        """
        if not is_certified(self.penalty):
            return _ratio(movement, jnp.sqrt(jnp.sum(point.value**2)))
        value, pull, error = point.value, -point.gradient, point.error
        along = (
            jnp.sum(value * point.gradient) if error is None else jnp.sum((error + self.x) * error)
        )  # ⟨z, ∇f⟩
        squared_x = jnp.sum(self.x**2)
        squared_error = squared_x + 2 * self.smooth_value_at(point)
        absolute = penalty_value
        if isinstance(self.penalty, ElasticNet):
            pull = pull - self.penalty.l2 * value
            ridge = jnp.sum(self.penalty.l2 * value**2)
            squared_error, along, absolute = squared_error + ridge, along + ridge, absolute - ridge / 2
        l1 = _strengths(self.penalty, value.dtype)[0]
        scale = 1 / jnp.maximum(_largest_share(self.penalty, pull, l1), 1)
        slack = jnp.maximum(absolute + scale * along, 0)
        gap = 0.5 * (1 - scale) ** 2 * jnp.maximum(squared_error, 0) + slack
        gap = jnp.where(absolute == jnp.inf, jnp.finfo(gap.dtype).max, _ratio(gap, 0.5 * squared_x))
        return jnp.where(self._has_gap(), gap, _ratio(movement, jnp.sqrt(jnp.sum(value**2))))

    def _has_gap(self) -> Bool[Array, ""]:
        return jnp.all(_strengths(self.penalty, self.drive.dtype)[0] > 0)


def make_problem(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    penalty: AbstractPenalty,
    *,
    use_gram: bool | None = None,
    step_size: ArrayLike | None = None,
) -> SparseCodingProblem:
    """Set up the inference problem of one datum.

    Args:
        dictionary: the dictionary.
        x: the datum (or, for a measure over a whole batch, several as one).
        penalty: the penalty.
        use_gram: take gradients through the Gram matrix (atoms² products a step) or through the
            dictionary (2·atoms·features). ``None`` takes the cheaper: Gram where atoms < 2·features.
        step_size: the step of the fixed-point map. ``None``: 1/L, with L from power iteration. It matters for
            L0 and Log, whose fixed points depend on it.

    Returns:
        The problem, for `neurojax.convergence.iterate`.

    Raises:
        ValueError: at trace time, for an x of the wrong width or of integers.
    """
    x = jnp.asarray(x)
    code = dictionary.empty_code(x)
    # All in one dtype: a Gram matrix of lower precision than the residual would never satisfy it.
    arrays, rest = eqx.partition(dictionary, eqx.is_inexact_array)
    arrays = jax.tree.map(lambda leaf: leaf.astype(code.dtype), arrays)
    dictionary = eqx.combine(arrays, rest)
    x = x.astype(code.dtype)
    if use_gram is None:
        use_gram = code.shape[-1] < 2 * x.shape[-1]
    gram = dictionary.gram() if use_gram else None
    if step_size is None:
        lipschitz = largest_eigenvalue(_squared(constant(dictionary), gram), code)
    else:
        lipschitz = 1 / jnp.asarray(step_size, code.dtype)
    # Zero times NaN is NaN: through a broken datum the whole dictionary's derivative would be.
    drive = jnp.where(jnp.all(jnp.isfinite(x)), dictionary.correlate(bounded(x)), jnp.nan)
    return SparseCodingProblem(
        dictionary=dictionary, x=x, penalty=penalty, drive=drive, gram=gram, lipschitz=lipschitz
    )


def _squared(dictionary: AbstractDictionary, gram: Array | None) -> Callable[[Array], Array]:
    """Return ``correlate(reconstruct(·))``, through the Gram matrix where there is one."""
    if gram is None:
        return lambda code: dictionary.correlate(dictionary.reconstruct(code))
    return lambda code: product(code, lax.stop_gradient(gram))


def duality_gap(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    code: Float[ArrayLike, "*code"],
    penalty: L1 | NonNegativeL1 | ElasticNet,
) -> Scalar:
    """Bound how far a code's energy is above the minimum: energy(code) − min energy ≤ gap.

    For L1 of strength λ, with r = x − code @ atoms, c = atoms @ r and s = min(1, minᵢ λᵢ/|cᵢ|):
    gap = ½(1 − s)²‖r‖² + Σᵢ (λᵢ|zᵢ| − s·zᵢcᵢ), a sum of non-negative terms. Non-negative L1 has cᵢ in
    place of |cᵢ|; the elastic net with l2 = μ is L1 on the data (x, 0) and the atoms (atoms, √μ·I):
    ‖r‖² + Σμᵢzᵢ² in place of ‖r‖² and cᵢ − μᵢzᵢ in place of cᵢ.

    Args:
        dictionary: the dictionary.
        x: one datum.
        code: its code.
        penalty: L1, non-negative L1 or elastic net of positive strength.

    Returns:
        The gap; infinite for a negative coefficient under non-negative L1.

    Raises:
        ValueError: at trace time, for another penalty and for mismatched shapes.

    Reference:
        Kim, Koh, Lustig, Boyd & Gorinevsky 2007, section III, with the dual point s·r.
    """
    if not is_certified(penalty):
        names = ", ".join(kind.__name__ for kind in _CERTIFIED)
        raise ValueError(f"penalty: expected one with a duality gap ({names}), got {type(penalty).__name__}.")
    x, code = jnp.asarray(x), jnp.asarray(code)
    check_shape("code", code, dictionary.empty_code(x).shape, "a coefficient for each atom")
    error = x - dictionary.reconstruct(code)
    return _where_infeasible(penalty, code, _gap(penalty, error, dictionary.correlate(error), code), jnp.inf)


def in_units(penalty: AbstractPenalty, unit: Scalar) -> AbstractPenalty:
    """Return p with unit²·p(z/unit) = penalty(z), under which x/unit has the code z/unit.

    For the penalties with a duality gap; another one is returned as it is, and wants a unit of 1.
    """
    if isinstance(penalty, ElasticNet):
        return eqx.tree_at(lambda p: p.l1, penalty, penalty.l1.astype(unit.dtype) / unit)
    if isinstance(penalty, (L1, NonNegativeL1)):
        return eqx.tree_at(lambda p: p.strength, penalty, penalty.strength.astype(unit.dtype) / unit)
    return penalty


def is_certified(penalty: AbstractPenalty) -> bool:
    """Return whether a penalty, of positive strength, has a duality gap."""
    return isinstance(penalty, _CERTIFIED)


def max_strength(
    dictionary: AbstractDictionary, x: Float[ArrayLike, "*datum"], *, nonnegative: bool = False
) -> Scalar:
    """Return λ_max, the least L1 strength for which the zero code is optimal: maxᵢ |x·aᵢ|.

    Args:
        dictionary: the dictionary.
        x: one datum.
        nonnegative: whether codes are non-negative; then maxᵢ max(x·aᵢ, 0).
    """
    x = jnp.asarray(x)
    dictionary.empty_code(x)
    correlation = dictionary.correlate(x)
    return jnp.max(jnp.maximum(correlation, 0) if nonnegative else jnp.abs(correlation))


def _strengths(penalty, dtype) -> tuple[Array, Array]:
    if isinstance(penalty, ElasticNet):
        return penalty.l1.astype(dtype), penalty.l2.astype(dtype)
    return penalty.strength.astype(dtype), jnp.zeros((), dtype)


def _largest_share(penalty, pull: Array, l1: Array) -> Scalar:
    """Return max pullᵢ/λᵢ, of its magnitude where the penalty is symmetric."""
    pull = pull if isinstance(penalty, NonNegativeL1) else jnp.abs(pull)
    return jnp.max(pull) / l1 if jnp.ndim(l1) == 0 else jnp.max(pull / l1)


def _ratio(numerator: Scalar, denominator: Scalar) -> Scalar:
    ratio = numerator / jnp.where(denominator > 0, denominator, 1)
    return jnp.minimum(ratio, jnp.finfo(ratio.dtype).max)


def _where_infeasible(penalty, code: Array, gap: Array, replacement) -> Array:
    if not isinstance(penalty, NonNegativeL1):
        return gap
    return jnp.where(jnp.all(code >= 0) | jnp.isnan(gap), gap, replacement)


def _gap(penalty, error: Array, correlation: Array, code: Array, unit: Array | float = 1.0) -> Scalar:
    """Return gap/unit², from an error, a correlation and a code that are divided by ``unit`` already."""
    l1, l2 = _strengths(penalty, code.dtype)
    l1 = l1 / unit
    correlation = correlation - l2 * code
    pull = correlation if isinstance(penalty, NonNegativeL1) else jnp.abs(correlation)
    # λ/max(λ, pull) is min(1, λ/pull) without a division by zero.
    scale = jnp.min(jnp.where(pull > l1, l1 / jnp.where(pull > l1, pull, 1), 1))
    squared_error = jnp.sum(error**2) + jnp.sum(l2 * code**2)
    # Rounding alone makes a term negative; an infinite strength is met only by 0.
    slack = jnp.maximum(jnp.where(code == 0, 0, l1 * jnp.abs(code) - scale * code * correlation), 0)
    return 0.5 * (1 - scale) ** 2 * squared_error + jnp.sum(slack)
