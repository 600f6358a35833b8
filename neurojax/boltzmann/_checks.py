"""Checks of what is given to a machine as visible units."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._checks import check_finite, check_rank, check_real, check_size, is_concrete

__all__ = ["check_data", "check_limits", "check_states", "check_visible"]


def check_visible(name: str, rbm, v) -> None:
    """Raise ``ValueError`` unless the last axis of ``v`` holds real numbers, one for each visible unit."""
    check_real(name, v)
    if np.ndim(v) == 0 or np.shape(v)[-1] != rbm.n_visible:
        raise ValueError(
            f"{name}: expected {rbm.n_visible} numbers, one for each visible unit, got shape {np.shape(v)}."
        )


def check_limits(name: str, v, limits: tuple[float, float]) -> None:
    """Raise ``ValueError`` if a concrete ``v`` has values outside ``limits``."""
    if not is_concrete(v) or not np.size(v):
        return
    least, largest = np.min(v), np.max(v)
    if not (limits[0] <= least and largest <= limits[1]):
        raise ValueError(
            f"{name}: expected numbers in [{limits[0]:g}, {limits[1]:g}], got {least:.4g} to {largest:.4g}."
        )


def check_states(name: str, rbm, v) -> None:
    """Raise ``ValueError`` unless a concrete ``v`` is a state of the visible units."""
    check_visible(name, rbm, v)
    if not is_concrete(v):
        return
    with jax.ensure_compile_time_eval():
        n_other = int(jnp.sum(~rbm.is_state(jnp.asarray(v))))
    if n_other:
        raise ValueError(
            f"{name}: expected a state of {type(rbm).__name__}, got {n_other} of {np.size(v)} numbers "
            "that are part of none: a binary unit is 0 or 1 (binarise grey values), a site has exactly one 1."
        )


def check_data(name: str, data, rbm=None, limits: tuple[float, float] | None = None) -> Array:
    """Return rows of data as an array, or raise ``ValueError`` for what cannot be data of the machine."""
    data = jnp.asarray(data)
    check_rank(name, data, "samples visible")
    check_real(name, data)
    if not data.shape[0]:
        raise ValueError(f"{name}: expected at least one row, got shape {data.shape}.")
    if rbm is not None:
        check_size(name, data, 1, rbm.n_visible, "numbers, one for each visible unit,")
    check_finite(name, data)
    if limits is not None:
        check_limits(name, data, limits)
    return data
