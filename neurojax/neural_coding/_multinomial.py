"""Regularised multinomial regression by proximal gradient."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .._checks import (
    check_at_least,
    check_kind,
    check_nonnegative,
    check_rank,
    check_real,
    check_size,
    is_concrete,
)
from .._precision import product
from .._proximal import FISTA, AbstractCompositeProblem, largest_eigenvalue, length, relative_norm
from .._trees import constant
from .._types import Scalar
from ..convergence import AbstractGradient, Detached, Solution, iterate
from ..penalties import AbstractPenalty, AbstractProximalPenalty, ElasticNet
from ._angles import AngleBins
from ._decoding import AbstractClassDecoder, AbstractProbabilisticDecoder
from ._intercept import OnWeights, with_intercept
from ._ridge import LinearMap
from ._trials import Standardizer, check_trials, standardizer

__all__ = ["MultinomialDecoder", "MultinomialProblem", "fit_multinomial"]


class MultinomialProblem(AbstractCompositeProblem):
    """Minimise −Σₙ sₙ log softmax(xₙ V)[kₙ] + penalty(weights of V), with shares sₙ = wₙ/Σ w.

    Attributes:
        xs: samples, a 1 appended to each for the intercept, which is the last row of V.
        targets: one-hot classes.
        share: of each sample, together 1.
        is_seen: which classes have samples; the others have probability 0.
        penalty: on the weights.
        lipschitz: an upper estimate of ½ λ_max(Σₙ sₙ xₙxₙᵀ).
    """

    xs: Float[Array, "samples inputs"]
    targets: Float[Array, "samples classes"]
    share: Float[Array, " samples"]
    is_seen: Bool[Array, " classes"]
    penalty: AbstractPenalty
    lipschitz: Scalar

    def smooth_gradient(self, value: Float[Array, "inputs classes"]) -> Float[Array, "inputs classes"]:
        """Return Σₙ sₙ xₙᵀ(softmax(xₙ V) − one-hot(kₙ))."""
        scores = jnp.where(self.is_seen, product(self.xs, value), -jnp.inf)
        error = jax.nn.softmax(scores) - self.targets
        return product(self.xs.T, self.share[:, None] * error)

    def residual(self, value: Float[Array, "inputs classes"]) -> Scalar:
        """Return ‖V − T(V)‖/max(‖V‖, ‖∇f(0)‖/L), T the fixed-point map."""
        start = length(self.smooth_gradient(jnp.zeros_like(value))) / self.lipschitz
        return relative_norm(value - self.fixed_point(value), length(value), start)


def fit_multinomial(
    xs: Float[ArrayLike, "samples features"],
    classes: Int[ArrayLike, " samples"],
    n_classes: int,
    penalty: AbstractProximalPenalty,
    *,
    weights: Real[ArrayLike, " samples"] | None = None,
    tol: float | int = 1e-5,
    max_steps: int = 10_000,
    gradient: AbstractGradient = Detached(),  # noqa: B008
) -> Solution:
    """Minimise −Σₙ wₙ log softmax(xₙB + b)[kₙ]/Σ w + penalty(B) over B and b.

    By FISTA with restarts. A class without samples has probability 0, and weights and intercept 0. Every
    other class has its own weights, so that without a penalty they are determined up
    to what is common to all classes. scikit-learn's ``LogisticRegression(C=c)`` is ``ElasticNet(0,
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
        gradient: how derivatives pass, as in ``convergence.iterate``; ``Implicit()`` for those with respect
            to strengths and data.

    Returns:
        The solution, its ``value`` B with b as the last row, its status, steps and residual.

    Raises:
        ValueError: at trace time for sizes that do not fit; for concrete classes out of range or weights
            below 0; for a penalty without a proximal operator.

    Reference: Böhning 1992 (the bound on the curvature); Beck & Teboulle 2009.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> xs = jnp.array([[-2.0], [-1.0], [1.0], [2.0]])
        >>> fit = jax.jit(fit_multinomial, static_argnames="n_classes")
        >>> solution = fit(xs, jnp.array([0, 0, 1, 1]), n_classes=2, penalty=ElasticNet(0.0, 0.1))
        >>> int(solution.status), bool(solution.value[0, 1] > 0)
        (0, True)
    """
    check_rank("xs", xs, "samples features")
    check_real("xs", xs)
    check_kind("penalty", penalty, AbstractProximalPenalty)
    xs = jnp.asarray(xs)
    check_classes("classes", classes, len(xs), n_classes)
    weights = jnp.ones(len(xs), xs.dtype) if weights is None else jnp.asarray(weights, xs.dtype)
    check_size("weights", weights, 0, len(xs), "weights, one for each sample,")
    check_nonnegative("weights", weights)
    share = weights / jnp.sum(weights)
    inputs = with_intercept(xs)
    start = jnp.zeros((inputs.shape[1], n_classes), xs.dtype)
    fixed, fixed_share = constant(inputs), constant(share)
    bound = largest_eigenvalue(lambda u: product(fixed.T, fixed_share * product(fixed, u)), start[:, 0])
    targets = jax.nn.one_hot(classes, n_classes, dtype=xs.dtype)
    is_seen = product(weights, targets) > 0
    problem = MultinomialProblem(
        xs=inputs,
        targets=targets,
        share=share,
        is_seen=is_seen,
        penalty=OnWeights(penalty),
        lipschitz=0.5 * bound,
    )
    return iterate(FISTA(), problem, start, tol=tol, max_steps=max_steps, gradient=gradient)


def check_classes(name: str, classes, n_samples: int, n_classes: int) -> None:
    """Raise ``ValueError`` unless there is a class for each sample, 0 to n_classes − 1."""
    check_at_least("n_classes", n_classes, 2)
    check_rank(name, classes, "samples")
    check_size(name, classes, 0, n_samples, "classes, one for each sample,")
    if is_concrete(classes):
        values = np.asarray(classes)
        if values.size and not (values.min() >= 0 and values.max() < n_classes):
            raise ValueError(f"{name}: expected 0 to {n_classes - 1}, got {values.min()} to {values.max()}.")


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
    gradient: AbstractGradient = Detached()
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
        trials = check_trials(responses, angles_degrees, weights)
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
