"""Small training runs that the tests of training share, and what they left in their folders."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from neurojax.runs import RunFolder
from neurojax.training import AbstractObjective, fit

KEY = jax.random.key(0)
SGD = optax.sgd(0.1)
ROWS = jnp.array([[1.0, 2.0], [3.0, 5.0], [8.0, -1.0], [0.0, 4.0]])


class Distance(AbstractObjective):
    """½ strength · mean squared distance of the rows from the model."""

    strength: jax.Array

    def __call__(self, model, state, batch, key):
        return 0.5 * self.strength * jnp.mean(jnp.sum((batch - model) ** 2, -1)), (state, {})


DISTANCE = Distance(jnp.array(1.0))


def simple(model=None, objective=DISTANCE, data=ROWS, **settings):
    model = jnp.zeros(2) if model is None else model
    return fit(model, objective, data, **({"optimizer": SGD, "n_steps": 6, "key": KEY} | settings))


def same(one, other):
    assert len(one) == len(other)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def watch(model, state, batch, key):
    """Keep the rows of the last three batches in the state."""
    return jnp.sum(model**2), (jnp.concatenate([state[1:], batch[None]]), {})


class Counting:
    """An iterator over rows 0, 1, 2, …, that knows its position."""

    def __init__(self, end=10**6, as_bytes=False):
        self.position, self.end, self.as_bytes = 0, end, as_bytes

    def __iter__(self):
        return self

    def __next__(self):
        if self.position >= self.end:
            raise StopIteration
        self.position += 1
        return np.full(2, self.position - 1, np.float32)

    def get_state(self):
        return str(self.position).encode() if self.as_bytes else {"position": self.position}

    def set_state(self, state):
        self.position = int(state) if self.as_bytes else state["position"]


def newest(folder):
    names = [path.name for path in (folder / "checkpoint").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def rows_of(folder):
    return RunFolder(folder).read_metrics()


def n_rows(folder):
    return len(rows_of(folder))
