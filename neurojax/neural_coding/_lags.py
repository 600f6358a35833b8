"""Stimuli beside those before them, from which a filter in time is fitted."""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Real

from .._arrays import real_array, whole_array
from .._checks import check_at_least, check_size

__all__ = ["lagged"]


def lagged(
    stimuli: Real[ArrayLike, "samples *features"],
    n_lags: int,
    *,
    trials: Integer[ArrayLike, " samples"] | None = None,
) -> Float[Array, "samples lags *features"]:
    """Put each stimulus beside those before it: entry [t, k] is stimulus t − k of the same trial, or zeros.

    Args:
        stimuli: one for each time bin.
        n_lags: ≥ 1; lag 0 is the stimulus of the same bin.
        trials: the trial that each time bin belongs to, where the recording is not one stretch of time: lags
            do not reach from the start of a trial into the trial before. The bins of a trial are next to one
            another. ``None``: all are one trial.

    Raises:
        ValueError: for fewer than one lag, and for trials that are not one whole number a time bin.

    Example:
        >>> import jax.numpy as jnp
        >>> print(lagged(jnp.array([1.0, 2.0, 3.0]), 2))
        [[1. 0.]
         [2. 1.]
         [3. 2.]]
        >>> print(lagged(jnp.array([1.0, 2.0, 3.0]), 2, trials=jnp.array([0, 0, 1])))
        [[1. 0.]
         [2. 1.]
         [3. 0.]]
    """
    check_at_least("n_lags", n_lags, 1)
    stimuli = real_array("stimuli", stimuli)
    if not stimuli.ndim:
        raise ValueError("stimuli: expected one for each time bin on axis 0, got a single number.")
    lags = [_delayed(stimuli, lag, 0) for lag in range(n_lags)]
    if trials is not None:
        trials = whole_array("trials", trials, "samples")
        check_size("trials", trials, 0, len(stimuli), "trials, one for each time bin,")
        to_features = (slice(None), *[None] * (stimuli.ndim - 1))
        for lag in range(1, n_lags):
            is_same = _delayed(trials, lag, trials[:1]) == trials
            lags[lag] = jnp.where(is_same[to_features], lags[lag], 0)
    return jnp.stack(lags, axis=1)


def _delayed(values: Array, lag: int, fill) -> Array:
    """Return each value ``lag`` rows later, after rows of another."""
    first = jnp.broadcast_to(jnp.asarray(fill, values.dtype), (min(lag, len(values)), *values.shape[1:]))
    return jnp.concatenate([first, values[: len(values) - len(first)]])
