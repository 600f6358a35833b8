"""Cross-validation of decoders: folds, held-out answers with standard errors, tuned strengths, chance."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, Float, Int, Real

from .._checks import check_at_least, check_kind
from .._types import PRNGKey
from ..convergence import Status
from ._angles import AngleBins
from ._decoding import (
    AbstractClassDecoder,
    AbstractDecoder,
    AbstractProbabilisticDecoder,
)
from ._folds import Splits, check_splits
from ._likelihood_decoders import check_sign
from ._multinomial import FittedMultinomialDecoder
from ._trials import Trials, check_trials
from ._tuned import FittedTunedProbabilities, Tuned

__all__ = [
    "CrossValidation",
    "MeanWithError",
    "chance_level",
    "cross_validate",
]

_LEAST_PADDED, _LARGEST_PADDED = 16, 2**18
_N_RESAMPLES = 200  # which leave 5 % of a standard error to chance


class MeanWithError(NamedTuple):
    """A score over held-out trials and its standard error.

    Attributes:
        value: the score of all held-out trials together.
        standard_error: of the score over recordings of the same neurons with as many trials, in each of which
            the decoder is fitted anew (`CrossValidation.score`); NaN for fewer than two trials.
    """

    value: float
    standard_error: float


class CrossValidation(NamedTuple):
    """The answers of a decoder to trials that it had not seen.

    Attributes:
        predicted_degrees: of each trial; NaN for a trial that no fold tests.
        true_degrees: of each trial.
        fold: in which each trial was tested; −1 for none.
        log_probabilities: of each bin, where the decoder has them, else ``None``.
        period_degrees: after which the angles come round.
        status: how the fit of each fold ended, a ``convergence.Status``, where it is iterated, else ``None``.
        n_train: the number of trials that each fold was fitted to; ``None``: all those of the other folds.
    """

    predicted_degrees: Float[np.ndarray, " trials"]
    true_degrees: Float[np.ndarray, " trials"]
    fold: Int[np.ndarray, " trials"]
    log_probabilities: Float[np.ndarray, "trials bins"] | None
    period_degrees: float
    status: Int[np.ndarray, " folds"] | None
    n_train: Int[np.ndarray, " folds"] | None = None

    def score(
        self, measure: Callable[[Any, Any, Any], Any], period_degrees: float | int | None = None
    ) -> MeanWithError:
        """Return a measure of all held-out trials together, and its standard error.

        The standard error is √((1/k + n_test/n_train)·s²) of Nadeau and Bengio, for k folds of n_test trials
        fitted to n_train others: 1/k is what averaging over folds leaves of the variance s² of a fold's
        score, and n_test/n_train is for what the folds have in common, as they are fitted to much the same
        trials. s² is k times the variance of the measure under resampling of all held-out trials (a bootstrap
        of 200 resamples, the same at each call), which is surer than the variance of k numbers.

        Over recordings drawn anew, trials and all, value ± 1.96 standard errors holds the expected score of
        the decoder, fitted to n_train trials, in about 95 % of cases: 94 to 99 % in simulations of 48 to 160
        trials, where the standard deviation over folds over √k, which takes folds for independent, holds it
        in 76 to 87 %. It does not tell of other neurons or animals. Two decoders of the same trials are
        compared by the differences of their errors, trial by trial, as they err on the same trials.

        Args:
            measure: ``measure(predicted_degrees, true_degrees, period_degrees) -> number``, such as
                `median_circular_error`.
            period_degrees: what the measure is given: ``None`` for the decoder's own, 180 to judge directions
                as orientations.

        Reference: Nadeau & Bengio 2003, Machine Learning 52, 239-281, eq. 8 (the corrected variance).
        """
        is_tested, period = self.fold >= 0, self._period(period_degrees)
        predicted, true = self.predicted_degrees[is_tested], self.true_degrees[is_tested]
        n_trials, value = len(true), self._measured(measure, period)
        if n_trials < 2:
            return MeanWithError(value, float("nan"))
        random = np.random.default_rng(0)
        resamples = random.integers(0, n_trials, (_N_RESAMPLES, n_trials))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what there is to warn about was said of the trials as they are
            values = [float(measure(predicted[rows], true[rows], period)) for rows in resamples]
        variance = np.var(values) * n_trials / (n_trials - 1)  # ddof 1
        return MeanWithError(value, self._standard_error(float(variance)))

    def _measured(
        self, measure: Callable[[Any, Any, Any], Any], period_degrees: float | int | None = None
    ) -> float:
        """Return what `score` does, without the standard error."""
        is_tested = self.fold >= 0
        angles = self.predicted_degrees[is_tested], self.true_degrees[is_tested]
        return float(measure(*angles, self._period(period_degrees)))

    def _period(self, period_degrees: float | int | None) -> float | int:
        return self.period_degrees if period_degrees is None else period_degrees

    def _standard_error(self, variance: float) -> float:
        """Return the standard error, from the variance of the score over resampled trials."""
        n_test = np.bincount(self.fold[self.fold >= 0])
        n_train = np.sum(n_test) - n_test if self.n_train is None else self.n_train
        if np.any(n_train < 1):
            return float("nan")
        n_folds = len(n_test)
        fold_variance = n_folds * variance
        return float(np.sqrt((1 / n_folds + np.mean(n_test / n_train)) * fold_variance))

    def fraction_correct(self, bins: AngleBins) -> MeanWithError:
        """Return the share of trials decoded into the bin of their angle; an answer of NaN is wrong.

        The standard error is that of `score`, with the variance of a share that resampling would have.

        Raises:
            ValueError: for bins of another period.
        """
        if bins.period_degrees != self.period_degrees:
            raise ValueError(
                f"bins: expected a period of {self.period_degrees:g}°, as decoded, got "
                f"{bins.period_degrees:g}°."
            )
        is_tested = self.fold >= 0
        predicted, true = self.predicted_degrees[is_tested], self.true_degrees[is_tested]
        is_told = np.isfinite(predicted)
        index = np.asarray(bins.index(np.where(is_told, predicted, 0)))
        is_correct = is_told & (index == np.asarray(bins.index(true)))
        variance = np.var(is_correct, ddof=1) / len(true) if len(true) > 1 else np.nan
        return MeanWithError(float(np.mean(is_correct)), self._standard_error(float(variance)))


def cross_validate(
    decoder: AbstractDecoder,
    responses: Real[ArrayLike, "trials neurons"],
    angles_degrees: Real[ArrayLike, " trials"],
    splits: Splits,
    *,
    drop_constant: bool = False,
) -> CrossValidation:
    """Fit a decoder to the training trials of each split, and have it decode the others.

    All folds share one compiled program; small recordings are padded to round sizes with trials of weight 0
    and neurons that never fire, so that the sessions of a data set share it too.

    Args:
        decoder: settings; `Tuned` chooses its strength within each training set.
        responses: one trial a row.
        angles_degrees: of each trial.
        splits: pairs of the numbers of training and test trials, as from `stratified_folds` or, as a list,
            from the ``split`` of a scikit-learn splitter. No trial may be tested twice.
        drop_constant: whether to leave out neurons that do not vary, which are reported by a warning
            otherwise; they carry no information, and harm no decoder here.

    Returns:
        The held-out answers.

    Raises:
        ValueError: for bad trials (`check_trials`), fewer than two splits, a trial in both sets of a split or
            tested twice, a class of the decoder's bins that a test set has and its training set lacks, and
            responses below 0 for a decoder of counts.
    """
    check_kind("decoder", decoder, AbstractDecoder)
    trials = check_trials(responses, angles_degrees, period_degrees=decoder.period_degrees)
    splits = check_splits(splits, len(trials.angles_degrees))
    _check_classes(decoder, trials, splits)
    check_sign(_inner(decoder), trials.responses)
    trials = _report_constant(trials, drop_constant)
    found = _held_out(decoder, trials, splits)
    _report_failures(found)
    return found


def chance_level(
    decoder: AbstractDecoder,
    responses: Real[ArrayLike, "trials neurons"],
    angles_degrees: Real[ArrayLike, " trials"],
    splits: Splits,
    measure: Callable[[Any, Any, Any], Any],
    key: PRNGKey,
    *,
    n_permutations: int = 20,
) -> Float[np.ndarray, " permutations"]:
    """Return scores of a decoder under permuted angles: the null distribution of its cross-validated score.

    The splits stay, so that a class may be missing from a training set by chance; it is then not decoded
    there.

    Args:
        decoder: as for `cross_validate`.
        responses: one trial a row.
        angles_degrees: of each trial.
        splits: as for `cross_validate`.
        measure: as for `CrossValidation.score`.
        key: of the permutations.
        n_permutations: ≥ 1.

    Returns:
        The score of each permutation, of all held-out trials together as in `CrossValidation.score`. Their
        standard deviation is that of the null distribution, not an error of its mean. With b of n at least as
        good as the score of the angles as they are, p = (b + 1)/(n + 1).
    """
    check_at_least("n_permutations", n_permutations, 1)
    check_kind("decoder", decoder, AbstractDecoder)
    trials = check_trials(responses, angles_degrees, period_degrees=decoder.period_degrees)
    check_sign(_inner(decoder), trials.responses)
    splits, scores = check_splits(splits, len(trials.angles_degrees)), []
    for permutation_key in jax.random.split(key, n_permutations):
        order = np.asarray(jax.random.permutation(permutation_key, len(trials.angles_degrees)))
        permuted = eqx.tree_at(lambda t: t.angles_degrees, trials, trials.angles_degrees[order])
        scores.append(_held_out(decoder, permuted, splits)._measured(measure))
    return np.asarray(scores)


def _held_out(decoder: AbstractDecoder, trials: Trials, splits: Splits) -> CrossValidation:
    n_trials = len(trials.angles_degrees)
    padded = _padded(decoder, trials) if decoder.is_compiled else trials
    run = _compiled_answers if decoder.is_compiled else _answers
    predicted, fold = np.full(n_trials, np.nan), np.full(n_trials, -1)
    log_probabilities, statuses = None, []
    for f, (train, test) in enumerate(splits):
        weights = np.zeros(len(padded.weights), padded.responses.dtype)
        weights[train] = 1
        angles, of_bins, status = run(decoder, padded.responses, padded.angles_degrees, jnp.asarray(weights))
        predicted[test], fold[test] = np.asarray(angles)[test], f
        if of_bins is not None:
            of_bins = np.asarray(of_bins)
            if log_probabilities is None:
                log_probabilities = np.full((n_trials, of_bins.shape[1]), np.nan)
            log_probabilities[test] = of_bins[test]
        statuses += [] if status is None else [int(status)]
    true, period = np.asarray(trials.angles_degrees, float), float(decoder.period_degrees)
    status = np.asarray(statuses) if statuses else None
    n_train = np.array([len(train) for train, _ in splits])
    return CrossValidation(predicted, true, fold, log_probabilities, period, status, n_train)


def _answers(decoder, responses, angles_degrees, weights):
    fitted = decoder.fit(responses, angles_degrees, weights=weights)
    probabilities = None
    if isinstance(fitted, AbstractProbabilisticDecoder):
        probabilities = jax.vmap(fitted.log_probabilities)(responses)
    inner = fitted.fitted if isinstance(fitted, FittedTunedProbabilities) else fitted
    status = inner.status if isinstance(inner, FittedMultinomialDecoder) else None
    return jax.vmap(fitted.predict)(responses), probabilities, status


_compiled_answers = eqx.filter_jit(_answers)


def _padded(decoder: AbstractDecoder, trials: Trials) -> Trials:
    """Return small recordings with silent neurons and trials of no weight, up to round sizes.

    A decoder that has settings for each neuron keeps its neurons.
    """
    n_trials, n_neurons = trials.responses.shape
    if n_trials * n_neurons > _LARGEST_PADDED:
        return trials
    rows, columns = (max(_LEAST_PADDED, 1 << (n - 1).bit_length()) for n in (n_trials, n_neurons))
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(_inner(decoder))):
        columns = n_neurons
    responses = jnp.pad(trials.responses, ((0, rows - n_trials), (0, columns - n_neurons)))
    vectors = (jnp.pad(v, (0, rows - n_trials)) for v in (trials.angles_degrees, trials.weights))
    return Trials(responses, *vectors)


def _inner(decoder: AbstractDecoder) -> AbstractDecoder:
    return decoder.decoder if isinstance(decoder, Tuned) else decoder


def _check_classes(decoder: AbstractDecoder, trials: Trials, splits) -> None:
    inner = _inner(decoder)
    if not isinstance(inner, AbstractClassDecoder):
        return
    classes = np.asarray(inner.bins.index(trials.angles_degrees))
    for f, (train, test) in enumerate(splits):
        missing = np.setdiff1d(classes[test], classes[train])
        if len(missing):
            center = inner.bins.centers_degrees[missing[0]]
            raise ValueError(
                f"splits: expected every class in the training set of each fold, got none of bin "
                f"{missing[0]} ({center:g}°) in fold {f} (trials in all: {np.sum(classes == missing[0])})."
            )


def _report_failures(found: CrossValidation) -> None:
    is_broken = ~np.isfinite(found.predicted_degrees[found.fold >= 0])
    if np.any(is_broken):
        warnings.warn(
            f"decoder: {is_broken.sum()} of {len(is_broken)} held-out answers are not finite; a strength may "
            "be too small for the precision of the responses.",
            stacklevel=3,
        )
    if found.status is None:
        return
    n_failed = np.sum(found.status != Status.converged)
    if n_failed:
        warnings.warn(
            f"decoder: the fits of {n_failed} of {len(found.status)} folds did not converge (see status); "
            "raise max_steps or the strength.",
            stacklevel=3,
        )


def _report_constant(trials: Trials, drop: bool) -> Trials:
    is_constant = np.ptp(np.asarray(trials.responses), axis=0) == 0
    if not np.any(is_constant):
        return trials
    if np.all(is_constant):
        raise ValueError(f"responses: expected neurons that vary, got {len(is_constant)} that do not.")
    if drop:
        return eqx.tree_at(lambda t: t.responses, trials, trials.responses[:, ~is_constant])
    first = ", ".join(map(str, np.flatnonzero(is_constant)[:5]))
    warnings.warn(
        f"responses: {is_constant.sum()} of {len(is_constant)} neurons do not vary (the first: {first}); "
        "they are kept and say nothing; drop_constant=True leaves them out.",
        stacklevel=3,
    )
    return trials
