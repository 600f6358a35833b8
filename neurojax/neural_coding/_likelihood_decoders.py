"""Decoders by maximum likelihood under a model of the responses to each angle: Poisson or Gaussian."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_nonnegative, check_positive, check_share, is_concrete
from .._precision import product
from ._angles import AngleBins, bump_concentration, circular_bump, to_phase
from ._decoding import AbstractClassDecoder, AbstractDecoder, AbstractProbabilisticDecoder
from ._ridge import solve_ridged
from ._trials import Trials, check_response, check_trials

__all__ = ["GaussianDecoder", "PoissonDecoder", "check_sign"]

_LEAST_NOISE = 1e-6  # of a neuron's whole variance


class PoissonDecoder(AbstractClassDecoder):
    """Independent Poisson neurons: log p(x | k) = Σᵢ xᵢ ln λᵢₖ − λᵢₖ + const, for a flat prior over bins k.

    λᵢₖ = (Σₙ Aₙₖ xₙᵢ + a·mᵢ)/(Σₙ Aₙₖ + a), with mᵢ the mean count of neuron i and A the trials' shares in
    bins (below). A bin that no training trial falls in is never decoded; with smoothing, one whose Σₙ Aₙₖ is
    below a thousandth of the largest.

    Attributes:
        bins: of the angles.
        prior_count: a, in trials at the neuron's mean, > 0: it keeps rates off 0.
        smoothing_degrees: 0: a trial belongs to its bin alone, Aₙₖ = wₙ or 0; else it belongs to all,
            Aₙₖ = wₙ exp(κ(cos(φₙ − φₖ) − 1)), κ = (P/(2π·smoothing))²: tuning curves smoothed round the
            circle.

    Raises:
        ValueError: at construction, for a prior count that is not positive; in use, for concrete responses
            below 0.

    Reference: Ma, Beck, Latham & Pouget 2006, eq. 4 (flat prior); Zhang et al. 1998, eq. 36.
    """

    bins: AngleBins
    prior_count: Real[ArrayLike, ""] = 1.0
    smoothing_degrees: float = eqx.field(static=True, default=0.0, converter=float)
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        check_positive("prior_count", self.prior_count)
        check_nonnegative("smoothing_degrees", self.smoothing_degrees)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedPoissonDecoder":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        _check_counts("responses", trials.responses)
        tuning = _tuning(trials, self.bins, self.smoothing_degrees, self.prior_count)
        return FittedPoissonDecoder(
            rates=tuning.mean, overall=tuning.overall, is_seen=tuning.is_seen, bins=self.bins
        )


class FittedPoissonDecoder(AbstractProbabilisticDecoder):
    """Expected counts of each neuron in each bin, and over all trials."""

    rates: Float[Array, "bins neurons"]
    overall: Float[Array, " neurons"]
    is_seen: Array
    bins: AngleBins

    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response), in nats."""
        response = check_response(response, self.overall)
        _check_counts("response", response)
        # A neuron that never fired says nothing: it is silent in every bin.
        fired = self.overall > 0
        # Against the overall rates, as the sums themselves are large and differ little between bins.
        ratio = jnp.where(fired, self.rates, 1) / jnp.where(fired, self.overall, 1)
        excess = jnp.sum(self.rates - self.overall, axis=1)
        return _posterior(product(jnp.log(ratio), response) - excess, self.is_seen)


class GaussianDecoder(AbstractClassDecoder):
    """Gaussian responses with one covariance at all angles: log p(x | k) = −½(x − μₖ)ᵀΣ⁻¹(x − μₖ) + const.

    All bins are equally likely before. μₖ is estimated as the rates of `PoissonDecoder` are, with its
    ``prior_count`` and ``smoothing_degrees``; the residuals around it have variances vᵢ, and, divided by √vᵢ,
    the correlation matrix R, both over Σ w trials; vᵢ is at least 1e-6 of the neuron's whole variance, which
    tells neurons without noise from those that do not vary, and say nothing. Then Σ = V^½((1 − s)R + sI)V^½:
    s = 1 makes neurons independent (the tuning curves alone decide), smaller s uses noise correlations, with
    which this is linear discriminant analysis. With more neurons than trials the inverse is taken in the
    dual.

    Attributes:
        bins: of the angles.
        shrinkage: s in [0, 1], or ``None`` for Ledoit and Wolf's estimate, which needs no tuning.
        square_root: whether to take √x first, which gives counts a variance that hardly depends on the mean.
        prior_count: pseudo-trials at the neuron's mean, ≥ 0.
        smoothing_degrees: width of the kernel that smooths tuning curves; 0 for none.

    Raises:
        ValueError: in use, with ``square_root``, for concrete responses below 0.

    Reference: Fisher 1936; Ledoit & Wolf 2004, J. Multivariate Anal. 88, lemma 3.2 to 3.4.
    """

    bins: AngleBins
    shrinkage: Real[ArrayLike, ""] | None = None
    square_root: bool = eqx.field(static=True, default=False)
    prior_count: Real[ArrayLike, ""] = 0.0
    smoothing_degrees: float = eqx.field(static=True, default=0.0, converter=float)
    is_compiled: ClassVar[bool] = True

    def __check_init__(self):
        if self.shrinkage is not None:
            check_share("shrinkage", self.shrinkage)
        check_nonnegative("prior_count", self.prior_count)
        check_nonnegative("smoothing_degrees", self.smoothing_degrees)

    def fit(
        self,
        responses: Real[ArrayLike, "trials neurons"],
        angles_degrees: Real[ArrayLike, " trials"],
        *,
        weights: Real[ArrayLike, " trials"] | None = None,
    ) -> "FittedGaussianDecoder":
        """Fit to trials, as `AbstractDecoder.fit` says."""
        trials = check_trials(responses, angles_degrees, weights, self.period_degrees)
        if self.square_root:
            _check_counts("responses", trials.responses)
            trials = eqx.tree_at(lambda t: t.responses, trials, _root(trials.responses))
        tuning = _tuning(trials, self.bins, self.smoothing_degrees, self.prior_count)
        residuals = trials.responses - tuning.mean[self.bins.index(trials.angles_degrees)]
        share = trials.weights / trials.n_effective
        total = product(share, (trials.responses - tuning.overall) ** 2)
        floor = (8 * jnp.finfo(total.dtype).eps) ** 2 * product(share, trials.responses**2)
        is_varying = total > floor
        variance = jnp.maximum(product(share, residuals**2), _LEAST_NOISE * total)
        precision_root = jnp.where(is_varying, 1 / jnp.sqrt(jnp.where(is_varying, variance, 1)), 0)
        z = jnp.sqrt(share)[:, None] * residuals * precision_root
        shrinkage = _ledoit_wolf(z, trials, is_varying) if self.shrinkage is None else self.shrinkage
        means = (tuning.mean - tuning.overall) * precision_root
        readout = _whiten(z, jnp.asarray(shrinkage, z.dtype), means)
        offsets = -0.5 * jnp.sum(readout * means, axis=1)
        return FittedGaussianDecoder(
            readout=readout * precision_root,
            offsets=offsets,
            center=tuning.overall,
            is_seen=tuning.is_seen,
            bins=self.bins,
            square_root=self.square_root,
        )


class FittedGaussianDecoder(AbstractProbabilisticDecoder):
    """Linear discriminants: ln p(bin | x) = (x − center)·readout + offset + const."""

    readout: Float[Array, "bins neurons"]
    offsets: Float[Array, " bins"]
    center: Float[Array, " neurons"]
    is_seen: Array
    bins: AngleBins
    square_root: bool = eqx.field(static=True)

    def log_probabilities(self, response: Float[ArrayLike, " neurons"]) -> Float[Array, " bins"]:
        """Return log p(bin | response), in nats."""
        response = check_response(response, self.center)
        if self.square_root:
            _check_counts("response", response)
            response = _root(response)
        return _posterior(product(self.readout, response - self.center) + self.offsets, self.is_seen)


class _Tuning(NamedTuple):
    mean: Array  # bins × neurons
    overall: Array  # of all trials
    is_seen: Array  # whether any trial is in a bin


def _tuning(trials: Trials, bins: AngleBins, smoothing_degrees: float, prior_count) -> _Tuning:
    if smoothing_degrees:
        concentration = bump_concentration(smoothing_degrees, bins.period_degrees)
        centers = jnp.asarray(bins.centers_degrees, trials.angles_degrees.dtype)
        shares = circular_bump(
            to_phase(trials.angles_degrees[:, None] - centers, bins.period_degrees), concentration
        )
    else:
        shares = jax.nn.one_hot(bins.index(trials.angles_degrees), bins.n_bins, dtype=trials.weights.dtype)
    shares = trials.weights[:, None] * shares
    mass = jnp.sum(shares, axis=0)
    overall = product(trials.weights, trials.responses) / trials.n_effective
    total = product(shares.T, trials.responses) + prior_count * overall
    is_seen = mass > (1e-3 * jnp.max(mass) if smoothing_degrees else 0)
    mean = total / jnp.where(is_seen, mass + prior_count, 1)[:, None]
    return _Tuning(jnp.where(is_seen[:, None], mean, overall), overall, is_seen)


def _ledoit_wolf(z, trials: Trials, is_varying):
    """Return the share of the identity; z has rows √share·residual, of weighted covariance zᵀz."""
    share = trials.weights / trials.n_effective
    n_neurons = jnp.maximum(jnp.sum(is_varying), 1)
    gram = product(z, z.T)  # the norm of the covariance is that of the Gram matrix
    square = jnp.sum(gram**2)
    trace = jnp.trace(gram)
    distance = square - trace**2 / n_neurons  # ‖R − μI‖²
    # Σₙ shareₙ²‖xₙxₙᵀ − R‖² of the unweighted xₙ = zₙ/√shareₙ.
    own, cross = jnp.sum(jnp.diag(gram) ** 2), jnp.sum(share * jnp.sum(gram**2, axis=1))
    spread = own - 2 * cross + jnp.sum(share**2) * square
    return jnp.clip(jnp.where(distance > 0, spread / jnp.where(distance > 0, distance, 1), 1), 0, 1)


def _whiten(z, shrinkage, means):
    """Return means @ ((1 − s) zᵀz + s I)⁻¹, by the smaller system."""
    # Rounding alone would make the matrix singular at s = 0; then the largest s that changes nothing visible.
    ridge = jnp.maximum(shrinkage, 8 * jnp.finfo(z.dtype).eps * z.shape[1])
    kept = 1 - shrinkage
    n_trials, n_neurons = z.shape
    if n_neurons <= n_trials:
        return solve_ridged(kept * product(z.T, z), ridge, means.T).T
    projected = solve_ridged(kept * product(z, z.T), ridge, product(z, means.T))
    return (means - kept * product(projected.T, z)) / ridge


def _root(counts):
    """Return √counts, with derivative 0 at 0."""
    is_zero = counts == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, counts)))


def _posterior(log_likelihood, is_seen):
    return jax.nn.log_softmax(jnp.where(is_seen, log_likelihood, -jnp.inf))


def check_sign(decoder: AbstractDecoder, responses) -> None:
    """Raise ``ValueError`` for responses below 0 where the decoder is one of counts."""
    if isinstance(decoder, PoissonDecoder) or (isinstance(decoder, GaussianDecoder) and decoder.square_root):
        _check_counts("responses", responses)


def _check_counts(name: str, responses) -> None:
    if is_concrete(responses) and np.min(np.asarray(responses)) < 0:
        raise ValueError(
            f"{name}: expected counts or rates ≥ 0, got {float(np.min(np.asarray(responses))):.4g}; for "
            "z-scored responses take GaussianDecoder without square_root."
        )
