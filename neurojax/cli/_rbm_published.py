"""Learning as the published machine does: rows in their own order, read as they are learned from."""

import math
import zlib
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from .. import boltzmann
from ..boltzmann import BernoulliRBM, CentredGradient, ContrastiveObjective
from ..training import AbstractGradientObjective

__all__ = ["BatchesInOrder", "Reader", "Reading", "WithReading"]


class BatchesInOrder:
    """An iterator over rows in their own order, epoch after epoch, as ``numpy.array_split`` divides them.

    Every row comes once an epoch; where the batch size does not divide their number, some batches have one
    row less.
    """

    def __init__(self, rows: Array, batch_size: int):
        self._rows, self._step = np.asarray(rows), 0
        n_batches = math.ceil(len(self._rows) / batch_size)
        self._ends = np.cumsum([len(part) for part in np.array_split(np.arange(len(self._rows)), n_batches)])
        checksum = zlib.crc32(np.ascontiguousarray(self._rows).tobytes())
        self.settings = {"order": "file", "shape": list(self._rows.shape), "checksum": f"{checksum:08x}"}

    def __iter__(self) -> "BatchesInOrder":
        return self

    def __next__(self) -> np.ndarray:
        i = self._step % len(self._ends)
        self._step += 1
        return self._rows[0 if i == 0 else self._ends[i - 1] : self._ends[i]]

    def get_state(self) -> int:
        """Return the number of batches taken."""
        return self._step

    def set_state(self, state: int) -> None:
        """Go on after so many batches."""
        self._step = int(state)


class Reading(NamedTuple):
    """The state of an objective, and a running mean over its batches.

    Attributes:
        state: of the objective.
        value: the mean since the last evaluation of log p(unit | the others), in nats a unit.
        n_read: the number of batches in it.
    """

    state: Any
    value: Array
    n_read: Array


class WithReading(AbstractGradientObjective):
    """An objective that carries a `Reading` along, untouched."""

    objective: ContrastiveObjective | CentredGradient

    def value_and_grad(self, model: BernoulliRBM, state: Reading, batch: Array, key: Array) -> Any:
        """Return ``((loss, (state, metrics)), gradient)`` of the objective."""
        if isinstance(self.objective, CentredGradient):
            output, gradient = self.objective.value_and_grad(model, state.state, batch, key)
        else:
            take = eqx.filter_value_and_grad(self.objective, has_aux=True)
            output, gradient = take(model, state.state, batch, key)
        loss, (inner, metrics) = output
        return (loss, (state._replace(state=inner), metrics)), gradient


class Reader(eqx.Module):
    """The ``after_update`` that reads each batch just learned from, in means over ``n_batches`` of them.

    Of each row log σ(F(v with unit i replaced by 1 − vᵢ) − F(v)), i drawn at random. A trace checks no
    values, so grey ones are taken as well, as published.
    """

    n_batches: int = eqx.field(static=True)

    def __call__(self, model: BernoulliRBM, opt_state: Any, state: Reading, batch: Array, key: Array) -> Any:
        """Return model and optimizer state as they are, and the state with one more batch read."""
        one_flip = partial(boltzmann.pseudo_log_likelihood, is_per_unit=True)
        values = jax.vmap(one_flip, (None, 0, 0))(model, batch, jax.random.split(key, len(batch)))
        n_read = jnp.where(state.n_read == self.n_batches, 0, state.n_read) + 1
        before = jnp.where(n_read == 1, 0, state.value)
        return model, opt_state, Reading(state.state, before + (jnp.mean(values) - before) / n_read, n_read)
