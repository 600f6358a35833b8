"""Standard errors of fitted parameters, from the curvature at the optimum.

The covariance of parameters is the inverse of a matrix A, the curvature of the negative log-likelihood. A is
brought to a unit diagonal first, with the parameters in units of their own, so that neither degrees beside
hertz nor data of 1e±30 lose digits. Directions in which A is singular to rounding are set aside: what they
touch has no standard error and is NaN, the rest keeps its own.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._precision import at_least_single, product

__all__ = ["Spread", "least_squares_errors", "spread_of_hessian", "spread_of_jacobian"]

_ROUNDING = 16  # n·ε times this is what rounding leaves of a number that should be 0


class Spread(NamedTuple):
    """The inverse of the curvature, diag(unit)·core·diag(unit), and what of it is determined.

    Attributes:
        unit: the unit of each parameter.
        core: the inverse of the curvature in these units, without its singular directions.
        lost: the orthogonal projector onto the singular directions, in these units.
        support: which parameters are free.
        rank: the number of directions that are determined.
    """

    unit: Float[Array, " parameters"]
    core: Float[Array, "parameters parameters"]
    lost: Float[Array, "parameters parameters"]
    support: Bool[Array, " parameters"]
    rank: Float[Array, ""]

    def errors(
        self, combinations: Float[Array, "combinations parameters"] | None = None
    ) -> Float[Array, " combinations"]:
        """Return √(cᵀ A⁻¹ c) for each combination c of parameters; NaN where it is not determined.

        Args:
            combinations: one a row, in which parameters off the support are constants; ``None``: each
                parameter alone, where those off the support are not determined.
        """
        if combinations is None:
            rows, size = jnp.eye(len(self.unit), dtype=self.unit.dtype), self.unit
        else:
            rows = combinations * jnp.where(self.support, self.unit, 0)
            size = jnp.max(jnp.abs(rows), axis=1)
            rows = rows / jnp.where(size > 0, size, 1)[:, None]
        square = jnp.sum(product(rows, self.core) * rows, axis=1)
        lost = jnp.sum(product(rows, self.lost) * rows, axis=1)
        rounding = _ROUNDING * len(self.unit) * jnp.finfo(square.dtype).eps
        is_determined = lost <= rounding * jnp.sum(rows**2, axis=1)
        is_zero = square == 0
        root = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
        return jnp.where(is_determined, size * root, jnp.nan)


def spread_of_hessian(
    hessian: Float[Array, "parameters parameters"], support: Bool[Array, " parameters"] | None = None
) -> Spread:
    """Return the spread for A = ``hessian``, the second derivative of the negative log-likelihood.

    Args:
        hessian: symmetric, summed over samples (not their mean).
        support: which parameters are free; the others are constants. ``None``: all.

    With a negative direction, as away from a minimum, nothing is determined.

    Gradient: right to the first order, with respect to ``hessian``.
    """
    hessian = at_least_single(hessian)
    support = _all(hessian) if support is None else support
    curvature = jnp.where(support, jnp.diagonal(hessian), 0)
    unit = jax.lax.stop_gradient(1 / jnp.sqrt(jnp.where(curvature > 0, curvature, 1)))
    # By each unit in turn: their product may be beyond the dtype's range.
    scaled = unit[:, None] * jnp.where(support[:, None] & support, hessian, 0) * unit
    scaled = (scaled + scaled.T) / 2
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(scaled))
    rounding = _ROUNDING * len(unit) * jnp.finfo(unit.dtype).eps * jnp.max(jnp.abs(values))
    kept = (values > rounding) & jnp.all(values >= -rounding)
    return _spread(scaled, unit, support, vectors, jnp.where(kept, values, 0))


def spread_of_jacobian(
    jacobian: Float[Array, "samples parameters"], support: Bool[Array, " parameters"] | None = None
) -> Spread:
    """Return the spread for A = JᵀJ, from J itself: twice the digits that JᵀJ would leave.

    Args:
        jacobian: the derivative of each sample's prediction, in units of its noise.
        support: which parameters are free; the others are constants. ``None``: all.

    Gradient: right to the first order, with respect to ``jacobian``.
    """
    jacobian = at_least_single(jacobian)
    support = _all(jacobian) if support is None else support
    jacobian = jnp.where(support, jacobian, 0)
    largest = jnp.max(jnp.abs(jacobian), axis=0)
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    length = jnp.linalg.norm(jax.lax.stop_gradient(jacobian / largest), axis=0)
    length = jnp.where(length > 0, length, 1)
    scaled = jacobian / largest / length
    _, values, rows = jnp.linalg.svd(jax.lax.stop_gradient(scaled), full_matrices=False)
    rounding = max(jacobian.shape) * jnp.finfo(values.dtype).eps * jnp.max(values)
    values = jnp.where(values > rounding, values, 0)
    return _spread(product(scaled.T, scaled), 1 / largest / length, support, rows.T, values**2)


def least_squares_errors(
    jacobian: Float[Array, "samples parameters"],
    residuals: Float[Array, " samples"],
    support: Bool[Array, " parameters"] | None = None,
) -> Float[Array, " parameters"]:
    """Return √diag(σ²(JᵀJ)⁻¹), σ² = Σ residuals²/(samples − p), of a least-squares fit with p parameters.

    The usual asymptotic errors for samples with independent noise of one unknown variance σ². p counts the
    directions that J determines. NaN for parameters that are not determined, are off the support, or of
    which there are as many as samples.

    Args:
        jacobian: the derivative of each sample's fitted value with respect to each parameter.
        residuals: data minus fitted values.
        support: which parameters are free; the others are constants. ``None``: all.
    """
    spread = spread_of_jacobian(jacobian, support)
    residuals = at_least_single(residuals)
    largest = jnp.max(jnp.abs(residuals))
    unit = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    degrees = len(residuals) - spread.rank
    square = jnp.sum((residuals / unit) ** 2) / jnp.where(degrees > 0, degrees, 1)
    is_zero = square == 0
    noise = jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
    return jnp.where(degrees > 0, unit * spread.errors() * noise, jnp.nan)


def _spread(scaled, unit, support, vectors, values) -> Spread:
    """Return the spread from the eigenvectors and eigenvalues (0: set aside) of the curvature."""
    kept = values > 0
    vectors = jnp.where(kept, vectors, 0)
    core = product(vectors / jnp.where(kept, values, 1), vectors.T)
    lost = jnp.eye(len(unit), dtype=unit.dtype) - product(vectors, vectors.T)
    # d(A⁻¹) = −A⁻¹ dA A⁻¹: the derivative of the decomposition itself is NaN where eigenvalues are equal.
    change = scaled - jax.lax.stop_gradient(scaled)
    core = core - product(product(core, change), core)
    return Spread(unit, core, lost, support, jnp.sum(kept).astype(unit.dtype))


def _all(matrix) -> Bool[Array, " parameters"]:
    return jnp.ones(matrix.shape[1], bool)
