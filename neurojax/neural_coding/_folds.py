"""Folds of trials."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import ArrayLike, Real

from .._arrays import real_array
from .._checks import check_at_least, check_finite
from .._types import PRNGKey
from ._angles import warn_unless_degrees, wrap_degrees

__all__ = ["Splits", "check_splits", "stratified_folds"]

Splits = Sequence[tuple[Any, Any]]


def stratified_folds(
    angles_degrees: Real[ArrayLike, " trials"],
    n_folds: int,
    key: PRNGKey,
    *,
    period_degrees: float | int = 360,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split trials at random so that each fold has its share of every angle.

    Trials are sorted by angle, those of equal angle at random, and dealt out in turn, so that each angle has
    as many trials in one fold as in another, but for one. Where angles differ from trial to trial, each run
    of n_folds neighbours is dealt out in a random order, one to each fold.

    Args:
        angles_degrees: of each trial.
        n_folds: at least 2, at most the number of trials.
        key: of the division.
        period_degrees: after which angles come round.

    Returns:
        For each fold the numbers of the trials to train on, and of those to test, as scikit-learn's splitters
        give them.

    Raises:
        ValueError: for fewer trials than folds, and for angles that are not finite.
    """
    check_at_least("n_folds", n_folds, 2)
    angles = real_array("angles_degrees", angles_degrees, "trials")
    check_finite("angles_degrees", angles)
    warn_unless_degrees("angles_degrees", angles, period_degrees)
    angles = np.asarray(wrap_degrees(angles, period_degrees))
    if len(angles) < n_folds:
        raise ValueError(f"n_folds: expected at most {len(angles)}, the number of trials, got {n_folds}.")
    random = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
    order = np.lexsort((random.permutation(len(angles)), angles))
    dealt = np.arange(len(angles)) % n_folds
    _, place, counts = np.unique(angles[order], return_inverse=True, return_counts=True)
    is_alone = counts[place] == 1
    for start in range(0, len(angles), n_folds):
        neighbours = start + np.flatnonzero(is_alone[start : start + n_folds])
        dealt[neighbours] = random.permutation(dealt[neighbours])
    fold = np.empty(len(angles), int)
    fold[order] = dealt
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(n_folds)]


def check_splits(splits: Splits, n_trials: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs as arrays, or raise ``ValueError`` for what is no cross-validation."""
    pairs = [(np.asarray(train), np.asarray(test)) for train, test in splits]
    if len(pairs) < 2:
        raise ValueError(f"splits: expected at least 2 folds, got {len(pairs)}.")
    tested = np.zeros(n_trials, int)
    for f, (train, test) in enumerate(pairs):
        if not len(train) or not len(test):
            raise ValueError(
                f"splits: expected trials to train on and to test in each fold, got {len(train)} and "
                f"{len(test)} in fold {f}; are there fewer trials ({n_trials}) than folds?"
            )
        numbers = np.concatenate([train, test])
        if not np.issubdtype(numbers.dtype, np.integer):
            raise ValueError(f"splits: expected numbers of trials, integers, got dtype {numbers.dtype}.")
        if numbers.min() < 0 or numbers.max() >= n_trials:
            raise ValueError(
                f"splits: expected numbers of trials, 0 to {n_trials - 1}, got {numbers.min()} to "
                f"{numbers.max()}."
            )
        if len(np.intersect1d(train, test)):
            raise ValueError(
                f"splits: expected fold {f} to test other trials than it trains on, got some in both."
            )
        if len(np.unique(numbers)) < len(numbers):
            raise ValueError(
                f"splits: expected each trial once in a training or test set, got more in fold {f}."
            )
        tested[test] += 1
    if tested.max() > 1:
        raise ValueError(
            f"splits: expected each trial in one test set, got trial {tested.argmax()} in {tested.max()}."
        )
    return pairs
