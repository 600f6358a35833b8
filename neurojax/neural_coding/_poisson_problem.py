"""Penalised Poisson regression as a composite problem, and a step that is safe for exponential rates."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._checks import check_nonnegative
from .._precision import product
from .._proximal import AbstractCompositeProblem, largest_eigenvalue, length, relative_norm
from .._trees import constant
from .._types import Scalar
from ..convergence import AbstractSolver
from ..penalties import AbstractProximalPenalty
from ._intercept import OnWeights
from ._poisson_loss import Nonlinearity, curvature, curvature_between, inverse_rate, slope

__all__ = ["GuardedFISTA", "PoissonProblem", "Smoothness", "make_problem"]

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

    strength: Float[Array, ""] = eqx.field(
        converter=lambda value: jnp.asarray(value, jnp.result_type(value, float))
    )
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

    def differences(self, weights: Vector) -> Vector:
        """Return D w."""
        images = weights.reshape(-1, *self.image_shape)
        total = jnp.zeros_like(images)
        for axis in (1, 2):
            steps = jnp.diff(images, axis=axis)
            before, after = [(0, 0)] * 3, [(0, 0)] * 3
            before[axis], after[axis] = (1, 0), (0, 1)
            total = total + jnp.pad(steps, before) - jnp.pad(steps, after)
        return total.reshape(-1)

    def value(self, weights: Vector) -> Scalar:
        """Return ½·strength·‖D w‖²."""
        return 0.5 * self.strength.astype(weights.dtype) * jnp.sum(self.differences(weights) ** 2)

    def gradient(self, weights: Vector) -> Vector:
        """Return strength·DᵀD w; D is symmetric."""
        return self.strength.astype(weights.dtype) * self.differences(self.differences(weights))


class PoissonProblem(AbstractCompositeProblem):
    """Penalised maximum likelihood over z = (w, b/unit), features centred.

    Attributes:
        xs: centred features.
        counts: of one neuron.
        penalty: on the weights.
        smoothness: a prior on the weights, or ``None``.
        unit: the scale in which the bias is as curved as the weights are along their steepest direction.
        start_slope: the length of the gradient in the weights at the start.
        lipschitz: the largest curvature at the start.
        nonlinearity: ``"exp"`` or ``"softplus"``.
    """

    xs: Float[Array, "samples features"]
    counts: Float[Array, " samples"]
    penalty: OnWeights
    smoothness: Smoothness | None
    unit: Scalar
    start_slope: Scalar
    lipschitz: Scalar
    nonlinearity: Nonlinearity = eqx.field(static=True)

    def split(self, value: Value) -> tuple[Vector, Scalar]:
        """Return weights and bias."""
        return value[:-1], value[-1] * self.unit

    def predictor(self, value: Value) -> Float[Array, " samples"]:
        """Return xₜ·w + b."""
        weights, bias = self.split(value)
        return product(self.xs, weights) + bias

    def smooth_gradient(self, value: Value) -> Value:
        """Return the gradient of the mean negative log-likelihood and the smoothness prior."""
        slopes = slope(self.nonlinearity, self.predictor(value), self.counts) / len(self.counts)
        return self._pull(slopes, value)

    def curvature_product(self, value: Value, direction: Value) -> Value:
        """Return the smooth part's Hessian at ``value`` times ``direction``."""
        bends = curvature(self.nonlinearity, self.predictor(value), self.counts) / len(self.counts)
        return self._pull(bends * self.predictor(direction), direction)

    def curvature_along(self, value: Value, change: Value) -> Scalar:
        """Bound ⟨∇²f(v)·change, change⟩, f the smooth part, for v on the way to ``value + change``."""
        u, d = self.predictor(value), self.predictor(change)
        bends = curvature_between(self.nonlinearity, u, d, self.counts)
        bent = jnp.mean(bends * d**2)
        return bent if self.smoothness is None else bent + 2 * self.smoothness.value(change[:-1])

    def residual(self, value: Value) -> Scalar:
        """Return the larger of the weights' relative move and the bias's move by a step of 1/lipschitz."""
        weights, bias = self.split(value)
        new_weights, new_bias = self.split(self.fixed_point(value))
        moved = relative_norm(weights - new_weights, length(weights), self.start_slope / self.lipschitz)
        return jnp.maximum(moved, jnp.abs(bias - new_bias))

    def _pull(self, slopes: Float[Array, " samples"], value: Value) -> Value:
        """Return the derivative of Σₜ slopesₜ·predictorₜ, and of the prior at ``value``."""
        pulled = product(slopes, self.xs)
        if self.smoothness is not None:
            pulled = pulled + self.smoothness.gradient(value[:-1])
        return jnp.append(pulled, jnp.sum(slopes) * self.unit)


class _Iterate(NamedTuple):
    value: Array
    point: Array
    age: Array
    step_size: Array


class GuardedFISTA(AbstractSolver):
    """FISTA that takes a step only where the smooth part lies below the quadratic which the step assumes.

    From y, z⁺ = prox_{ηg}(y − η∇f(y)) is taken if η·C ≤ ‖z⁺ − y‖², with C ≥ max ⟨∇²f(y + s(z⁺ − y))(z⁺ − y),
    z⁺ − y⟩ over s in [0, 1] the problem's ``curvature_along``; else η is halved and momentum starts anew. So
    f(z⁺) ≤ f(y) + ⟨∇f(y), z⁺ − y⟩ + ‖z⁺ − y‖²/2η at every step taken, exponential rates included. Momentum
    that points uphill starts anew too, with η doubled.
    """

    def init(self, problem: PoissonProblem, value: Value) -> _Iterate:
        """Start from ``value`` with η = 1/lipschitz."""
        return _Iterate(value, value, jnp.ones((), value.dtype), 1 / problem.lipschitz)

    def step(self, problem: PoissonProblem, state: _Iterate) -> _Iterate:
        """Take one step, or halve it."""
        step_size = state.step_size
        gradient = problem.smooth_gradient(state.point)
        value = problem.penalty.prox(state.point - step_size * gradient, step_size)
        move = value - state.point
        # False for NaN: broken values go on, and end as a status.
        is_rejected = step_size * problem.curvature_along(state.point, move) > jnp.sum(move**2)
        value = jnp.where(is_rejected, state.value, value)
        change = value - state.value
        is_uphill = jnp.sum((state.point - value) * change) > 0
        restart = is_rejected | is_uphill
        age = jnp.where(restart, 1, (1 + jnp.sqrt(1 + 4 * state.age**2)) / 2)
        momentum = jnp.where(restart, 0, (state.age - 1) / age)
        step_size = step_size * jnp.where(is_rejected, 0.5, jnp.where(is_uphill, 2.0, 1.0))
        return _Iterate(value, value + momentum * change, age, step_size)

    def value(self, state: _Iterate) -> Value:
        """Return the iterate."""
        return state.value


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
    one = jnp.ones((), xs.dtype)
    fixed = jax.lax.stop_gradient(xs)
    spread = largest_eigenvalue(lambda w: product(product(fixed, w), fixed) / n_samples, fixed[0])
    unit = jnp.where(spread > jnp.finfo(xs.dtype).tiny, jnp.sqrt(spread), 1)
    mean = jnp.where(jnp.all(counts >= 0), jnp.mean(counts), jnp.nan)
    bias = inverse_rate(nonlinearity, jax.lax.stop_gradient(mean)) / unit
    start = jnp.append(jnp.zeros(n_features, xs.dtype), bias)
    problem = PoissonProblem(
        xs=xs,
        counts=counts,
        penalty=OnWeights(penalty),
        smoothness=smoothness,
        unit=unit,
        start_slope=one,
        lipschitz=one,
        nonlinearity=nonlinearity,
    )
    still = constant(problem)
    steepest = largest_eigenvalue(lambda z: still.curvature_product(start, z), start)
    start_slope = length(still.smooth_gradient(start)[:-1])
    return eqx.tree_at(lambda p: (p.start_slope, p.lipschitz), problem, (start_slope, steepest)), start
