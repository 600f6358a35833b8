"""Penalized Poisson regression as a composite problem."""

from functools import partial
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import real_array
from .._checks import check_nonnegative
from .._precision import product
from .._rows import norm, relative_norm
from .._trees import constant
from .._types import Scalar
from ..penalties import AbstractProximalPenalty
from ..proximal import AbstractSmooth, Point, Poisson, largest_eigenvalue
from ..proximal._poisson_loss import Nonlinearity, inverse_rate
from ..proximal._problem import curvature_at
from ._intercept import OnWeights
from ._separation import AbstractLikelihoodProblem

__all__ = ["PoissonProblem", "Smoothness", "likelihood_problem", "make_problem"]

Vector = Float[Array, " features"]
Value = Float[Array, " unknowns"]


class Smoothness(eqx.Module):
    """A prior that neighbouring pixels have like weights: ½·strength·‖D w‖².

    (D w)ᵢ = Σⱼ (wᵢ − wⱼ) over the neighbours j of pixel i above, below, left and right, inside the image:
    minus the discrete Laplacian. Constant images are free. Weights of several lags are smoothed lag by lag.

    Attributes:
        strength: ≥ 0.
        image_shape: rows and columns.

    Raises:
        ValueError: at construction, for a negative strength and a shape that is not (rows, columns).

    Reference:
        Smyth, Willmore, Baker, Thompson & Tolhurst 2003; Wu, David & Gallant 2006, Annu. Rev. Neurosci. 29.

    Example:
        >>> import jax.numpy as jnp
        >>> print(Smoothness(0.5, (1, 3)).differences(jnp.array([0.0, 1.0, 0.0])))
        [-1.  2. -1.]
    """

    strength: Float[Array, ""] = eqx.field(converter=partial(real_array, "strength"))
    image_shape: tuple[int, int] = eqx.field(static=True)

    def __check_init__(self):
        check_nonnegative("strength", self.strength)
        if len(self.image_shape) != 2 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape: expected (rows, columns) ≥ 1, got {tuple(self.image_shape)}.")

    def check_width(self, name: str, n_features: int) -> None:
        """Raise ``ValueError`` unless features are whole images."""
        rows, columns = self.image_shape
        if n_features % (rows * columns):
            raise ValueError(
                f"{name}: expected a multiple of {rows * columns} features (smoothness over {rows} x "
                f"{columns} pixels), got {n_features}."
            )

    def differences(self, weights: Real[ArrayLike, " features"]) -> Vector:
        """Return D w."""
        weights = real_array("weights", weights, "features")
        self.check_width("weights", weights.shape[0])
        images = weights.reshape(-1, *self.image_shape)
        total = jnp.zeros_like(images)
        for axis in (1, 2):
            steps = jnp.diff(images, axis=axis)
            before, after = [(0, 0)] * 3, [(0, 0)] * 3
            before[axis], after[axis] = (1, 0), (0, 1)
            total = total + jnp.pad(steps, before) - jnp.pad(steps, after)
        return total.reshape(-1)

    def value(self, weights: Real[ArrayLike, " features"]) -> Scalar:
        """Return ½·strength·‖D w‖²."""
        differences = self.differences(weights)
        return 0.5 * self.strength.astype(differences.dtype) * jnp.sum(differences**2)

    def gradient(self, weights: Real[ArrayLike, " features"]) -> Vector:
        """Return strength·DᵀD w; D is symmetric."""
        differences = self.differences(weights)
        return self.strength.astype(differences.dtype) * self.differences(differences)


class _SmoothedPoisson(AbstractSmooth):
    """A Poisson likelihood with a smoothness prior on all inputs but the last, which is the bias.

    Attributes:
        likelihood: mean negative log-likelihood.
        smoothness: the prior, or ``None``.
    """

    likelihood: Poisson
    smoothness: Smoothness | None

    def value(self, z: Value) -> Scalar:
        """Return the sum of both."""
        value = self.likelihood.value(z)
        return value if self.smoothness is None else value + self.smoothness.value(z[:-1])

    def gradient(self, z: Value) -> Value:
        """Return the sum of both gradients."""
        return self._with_prior(self.likelihood.gradient(z), z)

    def hessian_product(self, z: Value, direction: Value) -> Value:
        """Return the sum of both Hessians times ``direction``."""
        return self._with_prior(self.likelihood.hessian_product(z, direction), direction)

    def curvature_along(self, point: Point, step: Value) -> Scalar:
        """Return a bound on the curvature on the way from z to z + step."""
        bent = self.likelihood.curvature_along(point, step)
        return bent if self.smoothness is None else bent + 2 * self.smoothness.value(step[:-1])

    def _with_prior(self, pull: Value, z: Value) -> Value:
        return pull if self.smoothness is None else pull.at[:-1].add(self.smoothness.gradient(z[:-1]))


class PoissonProblem(AbstractLikelihoodProblem):
    """Penalized maximum likelihood over z = (w, b/unit), features centered.

    Attributes:
        smooth: the mean negative log-likelihood, whose last input is ``unit`` in each sample, and the prior.
        penalty: on the weights.
        unit: the scale in which the bias is as curved as the weights are along their steepest direction.
        start_slope: the length of the gradient in the weights at the start.
        lipschitz: the largest curvature at the start.
    """

    smooth: _SmoothedPoisson
    penalty: OnWeights
    unit: Scalar
    start_slope: Scalar
    lipschitz: Scalar
    is_bounded: ClassVar[bool] = False

    def split(self, value: Value) -> tuple[Vector, Scalar]:
        """Return weights and bias."""
        return value[:-1], value[-1] * self.unit

    def curvature_diagonal(self, value: Value) -> Value:
        """Return the diagonal of the mean negative log-likelihood's Hessian."""
        likelihood = self.smooth.likelihood
        return product(likelihood.bends(value), likelihood.xs**2)

    def falls(self, value: Value, step: Value) -> tuple[Scalar, Scalar]:
        """Return by how much ln rate falls in a bin without a spike, at the most, and the largest change."""
        del value
        likelihood = self.smooth.likelihood
        change = likelihood.predictor(step)
        return jnp.max(jnp.where(likelihood.counts == 0, change, -jnp.inf)), jnp.max(jnp.abs(change))

    def residual(self, value: Value) -> Scalar:
        """Return the larger of the weights' relative move and the bias's move by a step of 1/lipschitz."""
        weights, bias = self.split(value)
        new_weights, new_bias = self.split(self.fixed_point(value))
        moved = relative_norm(weights - new_weights, norm(weights), self.start_slope / self.lipschitz)
        return jnp.maximum(moved, jnp.abs(bias - new_bias))


def likelihood_problem(
    xs: Float[Array, "samples features"],
    counts: Float[Array, " samples"],
    penalty: AbstractProximalPenalty,
    smoothness: Smoothness | None,
    nonlinearity: Nonlinearity,
    unit: Scalar | None = None,
) -> PoissonProblem:
    """Return the problem of one neuron, over z = (w, b/unit), without the numbers that a solver needs."""
    one = jnp.ones((), xs.dtype)
    unit = one if unit is None else unit
    inputs = jnp.concatenate([xs, jnp.full((len(xs), 1), unit, xs.dtype)], axis=1)
    shares = jnp.full(len(xs), 1 / len(xs), xs.dtype)
    smooth = _SmoothedPoisson(Poisson(inputs, counts, shares, nonlinearity), smoothness)
    return PoissonProblem(smooth, OnWeights(penalty), unit, one, one)


def make_problem(
    xs: Float[Array, "samples features"],
    counts: Float[Array, " samples"],
    penalty: AbstractProximalPenalty,
    smoothness: Smoothness | None,
    nonlinearity: Nonlinearity,
) -> tuple[PoissonProblem, Value]:
    """Return the problem of one neuron, and the start: no weights, and the mean rate.

    A neuron with no spike, or with a count that is none, starts from −∞ or NaN.
    """
    n_samples, n_features = xs.shape
    fixed = jax.lax.stop_gradient(xs)
    spread = largest_eigenvalue(lambda w: product(product(fixed, w), fixed) / n_samples, fixed[0])
    unit = jnp.where(spread > jnp.finfo(xs.dtype).tiny, jnp.sqrt(spread), 1)
    mean = jnp.where(jnp.all(counts >= 0), jnp.mean(counts), jnp.nan)
    bias = inverse_rate(nonlinearity, jax.lax.stop_gradient(mean)) / unit
    start = jnp.append(jnp.zeros(n_features, xs.dtype), bias)
    problem = likelihood_problem(xs, counts, penalty, smoothness, nonlinearity, unit)
    steepest = curvature_at(problem.smooth, start)
    start_slope = norm(constant(problem.smooth).gradient(start)[:-1])
    return eqx.tree_at(lambda p: (p.start_slope, p.lipschitz), problem, (start_slope, steepest)), start
