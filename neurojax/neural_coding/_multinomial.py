"""Regularised multinomial regression by proximal gradient."""

from typing import ClassVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._arrays import real_array, whole_array
from .._checks import check_at_least, check_finite, check_kind, check_nonnegative, check_size, is_concrete
from .._precision import at_least_single, product
from .._rows import norm, relative_norm
from .._types import Scalar
from ..convergence import AbstractGradient, Implicit, Solution, Tangent, iterate
from ..penalties import AbstractPenalty, AbstractProximalPenalty, ElasticNet
from ..proximal import FISTA, Logistic
from ._angles import AngleBins
from ._decoding import AbstractClassDecoder, AbstractProbabilisticDecoder
from ._intercept import OnWeights, with_intercept
from ._ridge import LinearMap, check_some_weight
from ._separation import AbstractLikelihoodProblem, with_finite_optimum
from ._trials import Standardizer, check_trials, standardizer

__all__ = ["MultinomialDecoder", "MultinomialProblem", "fit_multinomial"]


class MultinomialProblem(AbstractLikelihoodProblem):
    """Minimize −Σₙ sₙ log softmax(xₙ V)[kₙ] + penalty(weights of V), with shares sₙ = wₙ/Σ w.

    Attributes:
        smooth: the loss; a 1 is appended to each sample for the intercept, which is the last row of V, and
            the shares are its weights. Classes without samples have probability 0.
        penalty: on the weights.
        lipschitz: a bound on the curvature of the loss.
    """

    smooth: Logistic
    penalty: AbstractPenalty
    lipschitz: Scalar
    is_bounded: ClassVar[bool] = True

    def curvature_diagonal(self, value: Float[Array, "inputs classes"]) -> Float[Array, "inputs classes"]:
        """Return the diagonal of the Hessian of the loss."""
        probabilities = self.smooth.probabilities(value)
        return product((self.smooth.xs**2).T, self._shares() * probabilities * (1 - probabilities))

    def falls(
        self, value: Float[Array, "inputs classes"], step: Float[Array, "inputs classes"]
    ) -> tuple[Scalar, Scalar]:
        """Return by how much ln p of a class that a sample does not have falls, and the largest change."""
        scores = product(self.smooth.xs, step)
        change = scores - jnp.sum(self.smooth.probabilities(value) * scores, axis=1, keepdims=True)
        counts = self.smooth.is_seen & (self._shares() > 0)
        change = jnp.where(counts, change, 0)
        return jnp.max(jnp.where(self.smooth.targets == 0, change, 0)), jnp.max(jnp.abs(change))

    def _shares(self) -> Float[Array, "samples 1"]:
        return cast(Array, self.smooth.weights)[:, None]

    def residual(self, value: Float[Array, "inputs classes"]) -> Scalar:
        """Return ‖V − T(V)‖/max(‖V‖, ‖∇f(0)‖/L), T the fixed-point map."""
        value = real_array("value", value)
        start = norm(self.smooth.gradient_at_zero(value)) / self.lipschitz
        return relative_norm(value - self.fixed_point(value), norm(value), start)

    def tangent(self, value: Float[Array, "inputs classes"]) -> Tangent:
        """Return the linearization, made regular where the loss does not see the intercepts.

        It sees neither their sum over the classes, which a fit leaves at 0, nor that of a class without
        samples. Without this a derivative in reverse mode would have to be damped.
        """
        tangent, is_seen = super().tangent(value), self.smooth.is_seen

        def operator(v):
            mean = jnp.sum(jnp.where(is_seen, v[-1], 0)) / jnp.sum(is_seen)
            held = self.lipschitz * jnp.where(is_seen, mean, v[-1])
            return tangent.operator(v).at[-1].add(held)

        return tangent._replace(operator=operator)


def fit_multinomial(
    xs: Real[ArrayLike, "samples features"],
    classes: Int[ArrayLike, " samples"],
    n_classes: int,
    penalty: AbstractProximalPenalty,
    *,
    weights: Real[ArrayLike, " samples"] | None = None,
    tol: float | int = 1e-5,
    max_steps: int = 10_000,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
) -> Solution:
    """Minimise −Σₙ wₙ log softmax(xₙB + b)[kₙ]/Σ w + penalty(B) over B and b.

    By FISTA with restarts, compiled inside. A class without samples has probability 0, and weights and
    intercept 0. Every other class has its own weights, so that without a penalty they are determined up to
    what is common to all classes. scikit-learn's ``LogisticRegression(C=c)`` is ``ElasticNet(0,
    1/(c·samples))``.

    Args:
        xs: one sample a row. Standardise them: the number of steps grows with the spread of their scales.
        classes: of each sample, 0 to n_classes − 1.
        n_classes: ≥ 2.
        penalty: on B (features, classes), with a proximal operator: ``ElasticNet(l1, l2)``, ``L1``, or
            ``GroupL2(strength, group_size=n_classes)``, which keeps or drops a feature for all classes at
            once.
        weights: w ≥ 0 of each sample; ``None``: 1 each.
        tol: on the relative step of the proximal-gradient map, `MultinomialProblem.residual`.
        max_steps: ≥ 1.
        gradient: how derivatives pass, as in ``convergence.iterate``; ``Implicit()``, the default, gives
            those of the solution with respect to strengths and data.

    Returns:
        The solution, its ``value`` B with b as the last row, its status, steps and residual. The status is
        ``Status.unbounded`` where the residual fell to ``tol`` and yet no optimum is near: some direction of
        the weights, held by no penalty, only ever raises the probability of samples' own classes
        (separation), so that the loss falls along it for ever; or the optimum is so far that ``tol`` stopped
        well short of it. A penalty makes it finite.

    Raises:
        ValueError: at trace time for sizes that do not fit; for concrete classes out of range or weights
            below 0; for a penalty without a proximal operator.

    Reference: Böhning 1992 (the bound on the curvature); Beck & Teboulle 2009.

    Example:
        >>> import jax.numpy as jnp
        >>> xs = jnp.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> solution = fit_multinomial(xs, jnp.array([0, 0, 1, 1]), 2, ElasticNet(0.0, 0.1))
        >>> int(solution.status), bool(solution.value[0, 1] > 0)
        (0, True)
    """
    check_kind("penalty", penalty, AbstractProximalPenalty)
    xs, classes, weights = as_classified(xs, classes, n_classes, weights)
    return _fit(xs, classes, n_classes, penalty, weights, tol, max_steps, gradient)


@eqx.filter_jit
def _fit(xs, classes, n_classes, penalty, weights, tol, max_steps, gradient) -> Solution:
    problem = classification_problem(xs, classes, n_classes, penalty, weights)
    start = jnp.zeros((problem.smooth.xs.shape[1], n_classes), xs.dtype)
    problem = eqx.tree_at(lambda p: p.lipschitz, problem, problem.smooth.curvature_bound(start))
    solution = iterate(FISTA(), problem, start, tol=tol, max_steps=max_steps, gradient=gradient)
    return with_finite_optimum(problem, penalty, solution, tol)


def classification_problem(
    xs: Float[Array, "samples features"],
    classes: Int[Array, " samples"],
    n_classes: int,
    penalty: AbstractProximalPenalty,
    weights: Float[Array, " samples"],
) -> MultinomialProblem:
    """Return the problem without its Lipschitz constant, which a solver needs."""
    targets = jax.nn.one_hot(classes, n_classes, dtype=xs.dtype)
    smooth = Logistic(with_intercept(xs), targets, weights / jnp.sum(weights))
    return MultinomialProblem(smooth, OnWeights(penalty), jnp.ones((), xs.dtype))


def as_classified(xs, classes, n_classes: int, weights) -> tuple[Array, Array, Array]:
    """Return samples in single precision at least, their classes and weights, or raise ``ValueError``."""
    xs = at_least_single(real_array("xs", xs, "samples features"))
    if not xs.size:
        raise ValueError(f"xs: expected at least one sample and feature, got shape {xs.shape}.")
    check_finite("xs", xs)
    check_at_least("n_classes", n_classes, 2)
    classes = whole_array("classes", classes, "samples")
    check_size("classes", classes, 0, len(xs), "classes, one for each sample,")
    if is_concrete(classes):
        values = np.asarray(classes)
        if not (values.min() >= 0 and values.max() < n_classes):
            expected = f"expected 0 to {n_classes - 1}"
            raise ValueError(f"classes: {expected}, got {values.min()} to {values.max()}.")
    if weights is None:
        return xs, classes, jnp.ones(len(xs), xs.dtype)
    weights = real_array("weights", weights, "samples").astype(xs.dtype)
    check_size("weights", weights, 0, len(xs), "weights, one for each sample,")
    check_finite("weights", weights)
    check_nonnegative("weights", weights)
    check_some_weight("weights", weights)
    return xs, classes, weights


class MultinomialDecoder(AbstractClassDecoder):
    """Multinomial regression of the bin on standardised responses, by `fit_multinomial`.

    Attributes:
        bins: of the angles.
        penalty: on the weights (neurons, bins), beside a loss that is a mean over trials, in nats.
        tol: as in `fit_multinomial`.
        max_steps: as in `fit_multinomial`.
        gradient: as in `fit_multinomial`.
    """

    bins: AngleBins
    penalty: AbstractProximalPenalty = ElasticNet(0.0, 0.01)
    tol: float = eqx.field(static=True, default=1e-4)
    max_steps: int = eqx.field(static=True, default=5000)
    gradient: AbstractGradient = Implicit()
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_kind("penalty", self.penalty, AbstractProximalPenalty)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedMultinomialDecoder":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        scale = standardizer(trials.responses, trials.weights)
        classes = self.bins.index(trials.angles_degrees)
        solution = fit_multinomial(
            scale(trials.responses),
            classes,
            self.bins.n_bins,
            self.penalty,
            weights=trials.weights,
            tol=self.tol,
            max_steps=self.max_steps,
            gradient=self.gradient,
        )
        linear = LinearMap(solution.value[:-1], solution.value[-1])
        return FittedMultinomialDecoder(
            scale=scale,
            linear=linear,
            is_seen=product(
                trials.weights, jax.nn.one_hot(classes, self.bins.n_bins, dtype=trials.weights.dtype)
            )
            > 0,
            bins=self.bins,
            status=jnp.asarray(solution.status),
            n_steps=jnp.asarray(solution.n_steps),
        )


class FittedMultinomialDecoder(AbstractProbabilisticDecoder):
    """Log-odds of the bins from responses, and how their fit ended (a ``convergence.Status``)."""

    scale: Standardizer
    linear: LinearMap
    is_seen: Bool[Array, " bins"]
    bins: AngleBins
    status: Int[Array, ""]
    n_steps: Int[Array, ""]

    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response), in nats."""
        scores = self.linear(self.scale(response))
        return jax.nn.log_softmax(jnp.where(self.is_seen, scores, -jnp.inf))
