"""Checks of what is given to a machine as visible units."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .._checks import check_real, check_rows, is_concrete

__all__ = ["check_data", "check_states", "check_visible"]


def check_visible(name: str, rbm, v) -> None:
    """Raise ``ValueError`` unless the last axis of ``v`` holds real numbers, one for each visible unit."""
    check_real(name, v)
    if np.ndim(v) == 0 or np.shape(v)[-1] != rbm.n_visible:
        raise ValueError(
            f"{name}: expected {rbm.n_visible} numbers, one for each visible unit, got shape {np.shape(v)}."
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
    n_visible = None if rbm is None else rbm.n_visible
    return check_rows(name, data, n_visible, "numbers, one for each visible unit,", limits)
