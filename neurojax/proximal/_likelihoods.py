"""Negative log-likelihoods of generalized linear models as smooth terms."""

from functools import partial
from typing import get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._arrays import real_array
from .._checks import check_nonnegative, check_shape, check_size
from .._precision import product
from .._trees import constant
from .._types import Scalar
from ._eigenvalue import largest_eigenvalue
from ._least_squares import weights_array
from ._poisson_loss import Nonlinearity, curvature, curvature_between, log_rate, rate, slope
from ._smooth import AbstractSmooth, Point

__all__ = ["Logistic", "Poisson"]


def _given(weights):
    return None if weights is None else weights_array("weights", weights)


class Logistic(AbstractSmooth):
    """The negative log-likelihood of logistic regression, binary or multinomial, in nats.

    With targets of one axis, yₙ in [0, 1], and z one weight for each input,

        f(z) = Σₙ wₙ [ln(1 + exp uₙ) − yₙ uₙ],  uₙ = xₙ·z;

    with targets of two axes, one row of class probabilities a sample, and z of shape (inputs, classes),

        f(z) = Σₙ wₙ [ln Σₖ exp uₙₖ − Σₖ yₙₖ uₙₖ],  uₙ = xₙ @ z,

    where a class that has no weight in any sample is left out, as if its score were −∞. An intercept is an
    input that is always 1.

    Attributes:
        xs: one sample a row.
        targets: y.
        weights: w ≥ 0 of each sample; ``None``: 1.

    Raises:
        ValueError: for sizes that do not agree, and for concrete negative weights.

    Reference:
        Böhning 1992, Multinomial logistic regression algorithm: the bound on the curvature, ½λ_max(Σ
        wₙxₙxₙᵀ), in the binary case ¼.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.proximal import Logistic, minimize
        >>> xs = jnp.array([[-2.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
        >>> solution = minimize(Logistic(xs, jnp.array([0.0, 1.0, 0.0, 1.0])), L1(0.1), jnp.zeros(2))
        >>> [round(weight, 2) for weight in solution.value.tolist()]
        [0.37, 0.0]
    """

    xs: Float[Array, "samples inputs"] = eqx.field(converter=partial(real_array, "xs", axes="samples inputs"))
    targets: Float[Array, " samples *classes"] = eqx.field(converter=partial(real_array, "targets"))
    weights: Float[Array, " samples"] | None = eqx.field(converter=_given, default=None)

    def __check_init__(self):
        if self.targets.ndim not in (1, 2):
            raise ValueError(
                f"targets: expected axes samples, or samples and classes, got shape {self.targets.shape}."
            )
        check_size("targets", self.targets, 0, len(self.xs), "targets, one a sample,")
        if self.weights is not None:
            check_shape("weights", self.weights, (len(self.xs),), "one a sample")

    @property
    def is_seen(self) -> Bool[Array, " classes"]:
        """Truth values of the classes: whether any sample has weight in them."""
        return jnp.any(self._weighted(self.targets) > 0, axis=0)

    def scores(self, z: Float[Array, " inputs *classes"]) -> Float[Array, " samples *classes"]:
        """Return u, −∞ for a class that has no weight."""
        scores = product(self.xs, z)
        return scores if self.targets.ndim == 1 else jnp.where(self.is_seen, scores, -jnp.inf)

    def probabilities(self, z: Float[Array, " inputs *classes"]) -> Float[Array, " samples *classes"]:
        """Return the probabilities of the classes, or of y = 1."""
        return (jax.nn.sigmoid if self.targets.ndim == 1 else jax.nn.softmax)(self.scores(z))

    def value(self, z: Float[Array, " inputs *classes"]) -> Scalar:
        """Return f(z)."""
        scores = self.scores(z)
        if self.targets.ndim == 1:
            return jnp.sum(self._weighted(jax.nn.softplus(scores) - self.targets * scores))
        explained = jnp.sum(self.targets * jnp.where(self.targets == 0, 0, scores), axis=1)
        return jnp.sum(self._weighted(jax.nn.logsumexp(scores, axis=1) - explained))

    def gradient(self, z: Float[Array, " inputs *classes"]) -> Float[Array, " inputs *classes"]:
        """Return Σₙ wₙ xₙᵀ(pₙ − yₙ)."""
        return product(self.xs.T, self._weighted(self.probabilities(z) - self.targets))

    def curvature_bound(self, like: Float[Array, " inputs *classes"]) -> Scalar:
        """Return ½λ_max(Σₙ wₙxₙxₙᵀ), or ¼ of it for two classes in one score."""
        xs, weights = constant((self.xs, self.weights))
        scale = 1 if weights is None else weights
        column = like if like.ndim == 1 else like[:, 0]
        bound = largest_eigenvalue(lambda u: product(xs.T, scale * product(xs, u)), column)
        return bound * (0.25 if self.targets.ndim == 1 else 0.5)

    def _weighted(self, terms: Float[Array, " samples *classes"]) -> Float[Array, " samples *classes"]:
        if self.weights is None:
            return terms
        return self.weights.reshape(-1, *[1] * (terms.ndim - 1)) * terms


class Poisson(AbstractSmooth):
    """The negative log-likelihood of counts, f(z) = Σₙ wₙ [rateₙ − yₙ ln rateₙ], in nats but for ln yₙ!.

    rateₙ = exp(uₙ) or ln(1 + exp uₙ), uₙ = xₙ·z. Its curvature has no bound for ``"exp"``: solvers backtrack,
    by a bound on the curvature along each step.

    Attributes:
        xs: one sample a row.
        counts: y ≥ 0.
        weights: w ≥ 0 of each sample; ``None``: 1.
        nonlinearity: ``"exp"`` or ``"softplus"``.

    Raises:
        ValueError: for sizes that do not agree, and for concrete negative weights.

    Reference:
        Paninski 2004, Maximum likelihood estimation of cascade point-process neural encoding models.
    """

    xs: Float[Array, "samples inputs"] = eqx.field(converter=partial(real_array, "xs", axes="samples inputs"))
    counts: Float[Array, " samples"] = eqx.field(converter=partial(real_array, "counts"))
    weights: Float[Array, " samples"] | None = eqx.field(converter=_given, default=None)
    nonlinearity: Nonlinearity = eqx.field(static=True, default="exp")

    def __check_init__(self):
        check_shape("counts", self.counts, (len(self.xs),), "one a sample")
        check_nonnegative("counts", self.counts)
        if self.nonlinearity not in get_args(Nonlinearity):
            expected = get_args(Nonlinearity)
            raise ValueError(f"nonlinearity: expected one of {expected}, got {self.nonlinearity!r}.")
        if self.weights is not None:
            check_shape("weights", self.weights, (len(self.xs),), "one a sample")

    def predictor(self, z: Float[Array, " inputs"]) -> Float[Array, " samples"]:
        """Return u."""
        return product(self.xs, z)

    def value(self, z: Float[Array, " inputs"]) -> Scalar:
        """Return f(z)."""
        u = self.predictor(z)
        return jnp.sum(
            self._weighted(rate(self.nonlinearity, u) - self.counts * log_rate(self.nonlinearity, u))
        )

    def gradient(self, z: Float[Array, " inputs"]) -> Float[Array, " inputs"]:
        """Return Σₙ wₙ ℓ'(uₙ) xₙ."""
        return product(self._weighted(slope(self.nonlinearity, self.predictor(z), self.counts)), self.xs)

    def hessian_product(
        self, z: Float[Array, " inputs"], direction: Float[Array, " inputs"]
    ) -> Float[Array, " inputs"]:
        """Return Σₙ wₙ ℓ''(uₙ) (xₙ·direction) xₙ."""
        return product(self.bends(z) * self.predictor(direction), self.xs)

    def bends(self, z: Float[Array, " inputs"]) -> Float[Array, " samples"]:
        """Return wₙ ℓ''(uₙ)."""
        return self._weighted(curvature(self.nonlinearity, self.predictor(z), self.counts))

    def curvature_along(self, point: Point, step: Float[Array, " inputs"]) -> Scalar:
        """Return a bound on ⟨∇²f(v) step, step⟩ for every v on the way from z to z + step."""
        u, d = self.predictor(point.value), self.predictor(step)
        return jnp.sum(self._weighted(curvature_between(self.nonlinearity, u, d, self.counts)) * d**2)

    def _weighted(self, terms: Float[Array, " samples"]) -> Float[Array, " samples"]:
        return terms if self.weights is None else self.weights * terms
