"""Linear-nonlinear-Poisson models of a neuron, fitted to a certified optimum."""

from functools import partial
from typing import get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import real_array
from .._checks import check_finite, check_kind, check_nonnegative, check_shape, check_size
from .._precision import at_least_single, product
from ..convergence import AbstractGradient, Implicit, iterate
from ..penalties import L1, AbstractPenalty
from ..proximal import FISTA
from ..proximal._poisson_loss import Nonlinearity, log_rate, rate
from ..proximal._problem import require_prox
from ._poisson_problem import Smoothness, make_problem
from ._separation import with_finite_optimum

__all__ = ["LinearNonlinearPoisson", "PoissonFit", "fit_poisson"]


class LinearNonlinearPoisson(eqx.Module):
    """Counts are Poisson with the rate f(x·w + b), f = exp or softplus(u) = ln(1 + exp(u)).

    Attributes:
        weights: w, the receptive field; of several neurons with their axes first.
        bias: b, of each neuron.
        nonlinearity: ``"exp"`` or ``"softplus"``.

    Raises:
        ValueError: at construction, for an unknown nonlinearity and shapes that do not fit.

    Reference:
        Paninski 2004, Network: Computation in Neural Systems 15, 243-262.

    Example:
        >>> import jax.numpy as jnp
        >>> neuron = LinearNonlinearPoisson(jnp.array([1.0, -1.0]), jnp.array(0.0))
        >>> round(float(neuron(jnp.array([2.0, 1.0]))), 3)
        2.718
    """

    weights: Float[Array, "*neurons features"] = eqx.field(converter=partial(real_array, "weights"))
    bias: Float[Array, "*neurons"] = eqx.field(converter=partial(real_array, "bias"))
    nonlinearity: Nonlinearity = eqx.field(static=True, default="exp")

    def __check_init__(self):
        _check_nonlinearity(self.nonlinearity)
        check_shape("bias", self.bias, self.weights.shape[:-1], "a number for each neuron of the weights")

    def __call__(self, x: Real[ArrayLike, " features"]) -> Float[Array, "*neurons"]:
        """Return the expected count, of each neuron."""
        return rate(self.nonlinearity, self.predictor(x))

    def predictor(self, x: Real[ArrayLike, " features"]) -> Float[Array, "*neurons"]:
        """Return x·w + b."""
        x = real_array("x", x, "features")
        check_size("x", x, 0, self.weights.shape[-1], "features (of the weights)")
        return product(self.weights, x) + self.bias

    def log_rate(self, x: Real[ArrayLike, " features"]) -> Float[Array, "*neurons"]:
        """Return ln f(x·w + b), also where f underflows."""
        return log_rate(self.nonlinearity, self.predictor(x))


class PoissonFit(eqx.Module):
    """A fitted neuron; under ``vmap`` every field gains the batch's axes.

    Attributes:
        model: the last iterate.
        status: a `neurojax.convergence.Status` as int32; ``nonfinite`` for a neuron without a spike,
            ``unbounded`` where there is no finite optimum (see `fit_poisson`).
        n_steps: steps taken.
        residual: the stopping measure at the end (see `fit_poisson`).
    """

    model: LinearNonlinearPoisson
    status: Int[Array | np.ndarray, "*batch"]
    n_steps: Int[Array | np.ndarray, "*batch"]
    residual: Float[Array | np.ndarray, "*batch"]


def fit_poisson(
    xs: Real[ArrayLike, "samples features"],
    counts: Real[ArrayLike, " samples"],
    penalty: AbstractPenalty | None = None,
    *,
    smoothness: Smoothness | None = None,
    nonlinearity: Nonlinearity = "exp",
    tol: float | None = None,
    max_steps: int = 10_000,
    gradient: AbstractGradient = Implicit(),  # noqa: B008
) -> PoissonFit:
    """Fit one neuron by penalised maximum likelihood; compiled inside; ``vmap`` over neurons and strengths.

    Minimises, over weights w and bias b, with T samples xₜ and counts yₜ,

        F(w, b) = (1/T) Σₜ [rateₜ − yₜ·ln rateₜ] + penalty.value(w) + ½·strength·‖D w‖²,  rateₜ = f(xₜ·w + b),

    the last term with ``smoothness`` only. The first is the mean negative log-likelihood in nats, but for
    ln yₜ!. Nothing is penalised in b. Ridge is ``penalties.ElasticNet(0.0, l2)``, which adds ½·l2·‖w‖² (l2 is
    scikit-learn's ``alpha`` of ``PoissonRegressor``), lasso ``penalties.L1``.

    The method is FISTA on centred features, whose step is halved wherever a bound on the curvature along
    it exceeds one over the step. The residual is max(‖w − w⁺‖/max(‖w‖, ‖∇₀‖/L), |b − b⁺|), with (w⁺, b⁺)
    a proximal-gradient step of size 1/L from (w, b), b that of the centred features, L the largest curvature
    at the start (w = 0, mean rate) and ∇₀ the weights' gradient there. Times the problem's condition number
    it is about the weights' relative error.

    Args:
        xs: stimuli, one a row; images flattened row-major, several lags with the lags first.
        counts: ≥ 0, of one neuron.
        penalty: any with a proximal operator; ``None``: none.
        smoothness: a prior that neighbouring pixels have like weights, or ``None``.
        nonlinearity: ``"exp"`` or ``"softplus"``.
        tol: of the residual; ``None``: 1e-8 in float64, 1e-5 in float32.
        max_steps: the most steps.
        gradient: how derivatives pass through (`neurojax.convergence`); ``Implicit()``, the default, gives
            those of the solution in strengths, stimuli and counts.

    Returns:
        The fit, in the dtype of ``xs``, for half precision in float32. A neuron without a spike has no finite
        optimum: weights 0, bias −∞ (rate 0) and ``Status.nonfinite``. The same status for NaN, infinities and
        negative counts that only show at run time. ``Status.unbounded`` where the residual fell to ``tol``
        and yet no optimum is near: some direction of the weights, held by no penalty, lowers the rate only
        where no spike came (separation), so that F falls along it for ever; or the optimum is so far that
        ``tol`` stopped well short of it. A penalty or more data makes it finite.

    Raises:
        ValueError: for shapes that do not fit and a penalty without a proximal operator (at trace time), and
            for concrete data that are not finite or counts below 0.

    Reference:
        Paninski 2004; Beck & Teboulle 2009 (FISTA); Sahani & Linden 2003 (smoothness priors).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax import penalties
        >>> xs = jax.random.normal(jax.random.key(0), (500, 3))
        >>> counts = jax.random.poisson(jax.random.key(1), jnp.exp(xs @ jnp.array([0.5, 0.0, -0.5])))
        >>> fit = fit_poisson(xs, counts, penalties.L1(0.1))
        >>> int(fit.status), [round(weight, 1) for weight in fit.model.weights.tolist()]
        (0, [0.4, 0.0, -0.5])
    """
    xs, counts = as_design(xs, counts, smoothness)
    _check_nonlinearity(nonlinearity)
    penalty = require_prox("fit_poisson", L1(0.0) if penalty is None else penalty)
    check_kind("gradient", gradient, AbstractGradient)
    if tol is None:
        tol = 1e-8 if xs.dtype == jnp.float64 else 1e-5
    return _fit(xs, counts, penalty, smoothness, nonlinearity, tol, max_steps, gradient)


@eqx.filter_jit
def _fit(xs, counts, penalty, smoothness, nonlinearity, tol, max_steps, gradient) -> PoissonFit:
    mean = jnp.mean(xs, axis=0)
    problem, start = make_problem(xs - mean, counts, penalty, smoothness, nonlinearity)
    solution = iterate(FISTA(), problem, start, tol=tol, max_steps=max_steps, gradient=gradient)
    solution = with_finite_optimum(problem, penalty, solution, tol)
    weights, bias = problem.split(solution.value)
    model = LinearNonlinearPoisson(weights, bias - product(mean, weights), nonlinearity)
    return PoissonFit(model, solution.status, solution.n_steps, solution.residual)


def as_design(xs, counts, smoothness) -> tuple[Array, Array]:
    """Return stimuli and counts in one dtype, single precision at least, or raise ``ValueError``."""
    xs = at_least_single(real_array("xs", xs, "samples features"))
    counts = real_array("counts", counts)
    if not xs.size:
        raise ValueError(f"xs: expected at least one sample and feature, got shape {xs.shape}.")
    check_shape("counts", counts, (len(xs),), "a count for each sample")
    for name, value in (("xs", xs), ("counts", counts)):
        check_finite(name, value)
    check_nonnegative("counts", counts)
    if smoothness is not None:
        check_kind("smoothness", smoothness, Smoothness)
        smoothness.check_width("xs", xs.shape[1])
    return xs, counts.astype(xs.dtype)


def _check_nonlinearity(nonlinearity) -> None:
    if nonlinearity not in get_args(Nonlinearity):
        raise ValueError(f"nonlinearity: expected one of {get_args(Nonlinearity)}, got {nonlinearity!r}.")
