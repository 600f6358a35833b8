"""Standard errors of fits, from the curvature at the optimum."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._checks import check_kind, check_shape
from .._precision import product
from .._types import Scalar
from .._uncertainty import least_squares_errors, spread_of_hessian
from ..convergence import Solution, Status
from ..penalties import L1, AbstractPenalty, AbstractProximalPenalty
from ..proximal._problem import require_prox
from ._glm import PoissonFit, as_design
from ._multinomial import as_classified, classification_problem
from ._poisson_problem import PoissonProblem, Smoothness, likelihood_problem
from ._von_mises import VonMises, von_mises
from ._von_mises_fit import VonMisesFit, as_curve, concentration_limits

__all__ = [
    "PoissonErrors",
    "multinomial_standard_errors",
    "poisson_standard_errors",
    "von_mises_standard_errors",
]


class PoissonErrors(NamedTuple):
    """Standard errors of a `LinearNonlinearPoisson`.

    Attributes:
        weights: of each weight; NaN for those that the penalty holds at zero, and for those that the data do
            not determine.
        bias: of the bias.
    """

    weights: Float[Array, " features"]
    bias: Scalar


def poisson_standard_errors(
    fit: PoissonFit,
    xs: Real[ArrayLike, "samples features"],
    counts: Real[ArrayLike, " samples"],
    penalty: AbstractPenalty | None = None,
    *,
    smoothness: Smoothness | None = None,
) -> PoissonErrors:
    """Compute standard errors of `fit_poisson`: the roots of the diagonal of (T·∇²F)⁻¹ on the support.

    ∇²F is the Hessian, at the fit, of the objective that `fit_poisson` states; T is the number of samples.

    - Without a penalty this is the inverse of the observed information: the usual asymptotic errors.
    - With a quadratic one (ridge, smoothness) it is the covariance of Laplace's approximation to the
      posterior under the Gaussian prior that the penalty stands for. Its intervals cover the truth as often
      as they say on average over that prior, and not for each weight by itself, as shrinkage is a bias.
    - With L1 it is conditional on the support and the signs that were selected, as if they had been known
      beforehand. Such intervals are no honest post-selection inference: they are too narrow, and centred on a
      shrunken weight.

    Counts are taken to be Poisson given the stimuli; with more variable counts the errors are too small by
    about the root of the Fano factor of the residuals.

    Args:
        fit: of one neuron; batch with ``jax.vmap``.
        xs: the stimuli that it was fitted to.
        counts: the counts that it was fitted to.
        penalty: with which it was fitted; it needs a gradient.
        smoothness: with which it was fitted.

    Returns:
        The errors. NaN where the status of the fit is not ``converged``.

    Raises:
        ValueError: as `fit_poisson` does, and for a fit of another number of features.

    Gradient: with respect to stimuli, counts and fit, each with the others held constant, to the first order.

    Reference: Paninski 2004; Wahba 1983, J. R. Stat. Soc. B 45, 133-150 (coverage under smoothing).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.neural_coding import fit_poisson
        >>> xs = jax.random.normal(jax.random.key(0), (500, 3))
        >>> counts = jax.random.poisson(jax.random.key(1), jnp.exp(xs @ jnp.array([0.5, 0.0, -0.5])))
        >>> fit = fit_poisson(xs, counts)
        >>> print(poisson_standard_errors(fit, xs, counts).weights.round(2))
        [0.04 0.04 0.04]
    """
    check_kind("fit", fit, PoissonFit)
    xs, counts = as_design(xs, counts, smoothness)
    penalty = require_prox("poisson_standard_errors", L1(0.0) if penalty is None else penalty)
    check_shape("fit", fit.model.weights, xs.shape[1:], "a weight for each feature of xs, of one neuron")
    return _poisson_errors(fit, xs, counts, penalty, smoothness)


@eqx.filter_jit
def _poisson_errors(fit, xs, counts, penalty, smoothness) -> PoissonErrors:
    model, n_samples = fit.model, len(xs)
    mean = jnp.mean(xs, axis=0)
    problem: PoissonProblem = likelihood_problem(xs - mean, counts, penalty, smoothness, model.nonlinearity)
    value = jnp.append(model.weights, model.bias + product(mean, model.weights)).astype(xs.dtype)
    support, hessian = problem.penalty.support(value), problem.tangent(value).operator
    columns = jax.vmap(hessian)(jnp.eye(len(value), dtype=value.dtype))
    spread = spread_of_hessian(n_samples * columns, support)
    weights = spread.errors()[:-1]
    bias = spread.errors(jnp.append(-mean, 1)[None])[0]
    is_done = fit.status == Status.converged
    return PoissonErrors(jnp.where(is_done, weights, jnp.nan), jnp.where(is_done, bias, jnp.nan))


def multinomial_standard_errors(
    fit: Solution,
    xs: Real[ArrayLike, "samples features"],
    classes: Int[ArrayLike, " samples"],
    n_classes: int,
    penalty: AbstractProximalPenalty,
    *,
    weights: Real[ArrayLike, " samples"] | None = None,
) -> Float[Array, "inputs classes"]:
    """Compute standard errors of `fit_multinomial`: the roots of the diagonal of (W·∇²F)⁻¹ on the support.

    ∇²F is the Hessian, at the fit, of the objective that `fit_multinomial` states; W = Σ w, so that a weight
    of 2 is the same sample twice. What it means with a penalty `poisson_standard_errors` says. Adding a
    number to an input's weights for all classes changes no probability. So where all its classes are on the
    support, the errors are those of the weights less their mean over the classes, a mean that the fit leaves
    at 0: Hessian and inverse are restricted to such weights.

    Args:
        fit: what `fit_multinomial` returned.
        xs: the samples that it was fitted to.
        classes: as in `fit_multinomial`.
        n_classes: as in `fit_multinomial`.
        penalty: with which it was fitted; it needs a gradient.
        weights: as in `fit_multinomial`.

    Returns:
        An error for each weight, in the last row for each intercept. NaN for weights that the penalty holds
        at zero, for classes without samples, and where the status of the fit is not ``converged``.

    Raises:
        ValueError: as `fit_multinomial` does, and for a fit of another size.

    Gradient: with respect to samples and fit, each with the other held constant, to the first order.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.neural_coding import fit_multinomial
        >>> from neurojax.penalties import L1
        >>> xs, classes = jnp.array([[-2.0], [-1.0], [1.0], [2.0]]), jnp.array([0, 1, 0, 1])
        >>> fit = fit_multinomial(xs, classes, 2, L1(0.0))
        >>> print(multinomial_standard_errors(fit, xs, classes, 2, L1(0.0)).round(2))
        [[0.34 0.34]
         [0.53 0.53]]
    """
    check_kind("fit", fit, Solution)
    check_kind("penalty", penalty, AbstractProximalPenalty)
    xs, classes, weights = as_classified(xs, classes, n_classes, weights)
    check_shape("fit", fit.value, (xs.shape[1] + 1, n_classes), "one row for each feature, and the intercept")
    return _multinomial_errors(fit, xs, classes, n_classes, penalty, weights)


@eqx.filter_jit
def _multinomial_errors(fit, xs, classes, n_classes, penalty, weights):
    problem = classification_problem(xs, classes, n_classes, penalty, weights)
    value = jnp.asarray(fit.value, xs.dtype)
    hessian, is_seen = problem.tangent(value).operator, problem.smooth.is_seen
    is_free = problem.penalty.support(value) & is_seen
    # Inputs whose weights may all be shifted alike.
    is_whole = jnp.all(is_free | ~is_seen, axis=1, keepdims=True)

    def shift(v):
        return jnp.where(is_whole & is_seen, jnp.sum(jnp.where(is_seen, v, 0), 1, keepdims=True), 0)

    def apart(v):
        return jnp.where(is_free, v - shift(v) / jnp.sum(is_seen), 0)

    # The shift gets a curvature of its own, of the size of the others, that nothing else sees.
    size = jnp.mean(problem.curvature_diagonal(value), axis=1, keepdims=True)
    units = jnp.eye(value.size, dtype=value.dtype).reshape(-1, *value.shape)
    columns = jax.vmap(lambda v: apart(hessian(apart(v))) + size * shift(jnp.where(is_free, v, 0)))(units)
    matrix = jnp.sum(weights) * columns.reshape(value.size, value.size)
    spread = spread_of_hessian(matrix, is_free.reshape(-1))
    errors = spread.errors(jax.vmap(apart)(units).reshape(value.size, value.size)).reshape(value.shape)
    return jnp.where(is_free & (fit.status == Status.converged), errors, jnp.nan)


def von_mises_standard_errors(
    fit: VonMisesFit,
    curve: Real[ArrayLike, " bins"],
    angles_degrees: Real[ArrayLike, " bins"],
) -> VonMises:
    """Compute standard errors of `fit_von_mises`: the roots of the diagonal of σ²(JᵀJ)⁻¹.

    J is the derivative of the fitted curve with respect to the parameters, and σ² = Σ(curve − f)²/(bins − p)
    with p parameters that are free. The usual asymptotic errors of least squares: the noise of the bins is
    taken to be independent and of one variance, as that of means over equally many trials is at best. Of
    broad curves, with κ of order 1 or less, errors of κ, baseline and amplitude are large and depend on each
    other, and normal intervals are rough.

    Args:
        fit: of one curve; batch with ``jax.vmap``.
        curve: that it was fitted to.
        angles_degrees: that it was fitted to.

    Returns:
        An error for each parameter, in its unit. NaN for what is not free: a concentration at its limit and
        an amplitude of 0, on which the others are conditional; what the data do not determine, as the angle
        of a constant curve; everything where there are no more bins than parameters, and where the status of
        the fit is not ``converged``.

    Raises:
        ValueError: as `fit_von_mises` does.

    Gradient: with respect to curve and fit, each with the other held constant, to the first order.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> from neurojax.neural_coding import VonMises, fit_von_mises, von_mises
        >>> angles = jnp.arange(0, 360, 10.0)
        >>> noise = 0.1 * np.random.default_rng(0).normal(size=36)
        >>> curve = von_mises(angles, VonMises(*map(jnp.float32, (40, 3, 1, 2, 0)))) + noise
        >>> errors = von_mises_standard_errors(fit_von_mises(curve, angles), curve, angles)
        >>> round(float(errors.preferred_degrees), 1), round(float(errors.amplitude), 2)
        (0.7, 0.04)
    """
    check_kind("fit", fit, VonMisesFit)
    values, angles = as_curve(curve, angles_degrees, 1)
    check_shape("fit", fit.tuning.amplitude, (), "the tuning of one curve (batch with jax.vmap)")
    return _von_mises_errors(fit, values, angles)


@eqx.filter_jit
def _von_mises_errors(fit, values, angles) -> VonMises:
    tuning = fit.tuning
    names = ("preferred_degrees", "concentration", "baseline", "amplitude", "opposite_amplitude")
    point = jnp.stack([jnp.asarray(getattr(tuning, name), values.dtype) for name in names])

    def fitted(parameters):
        return von_mises(angles, VonMises(*tuple(parameters), period_degrees=tuning.period_degrees))

    low, high = (np.exp(limit) for limit in concentration_limits(len(values)))
    rounding = 64 * float(jnp.finfo(values.dtype).eps)
    is_inside = (point[1] > low * (1 + rounding)) & (point[1] < high * (1 - rounding))
    is_free = jnp.stack([point[0] == point[0], is_inside, jnp.bool_(True), point[3] > 0, point[4] > 0])
    errors = least_squares_errors(jax.jacfwd(fitted)(point), values - fitted(point), is_free)
    errors = jnp.where(fit.status == Status.converged, errors, jnp.nan)
    return VonMises(*tuple(errors), period_degrees=tuning.period_degrees)
