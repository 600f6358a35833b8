"""Sources of batches: arrays in shuffled epochs, a sampler, or an iterator on the host."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from .._arrays import device_array, native_leaves
from .._checks import check_at_least, is_key
from .._random import permuted
from ..data import batches
from ..distributed import (
    ambient_mesh,
    constrain_rows,
    join_rows,
    n_shards,
    over_rows,
    place,
    shard_rows,
)
from ._positions import position_as_json

__all__ = [
    "AbstractSource",
    "BatchIterator",
    "GivenBatch",
    "as_source",
    "from_store",
    "is_store",
    "next_batch",
    "on_device",
    "peek",
]

_MOST_ROWS = 2**31 - 1  # the number of a row is an int32


@runtime_checkable
class BatchIterator(Protocol):
    """An iterator over batches that knows its position, as Grain's iterators do.

    ``get_state`` returns bytes, or anything that JSON can hold; ``set_state`` takes it back. What a mapping
    ``settings`` says of the data, if there is one, must be the same in a resumed run and in all processes.
    """

    def __iter__(self) -> Any:
        """Return the iterator itself."""
        ...

    def __next__(self) -> Any:
        """Return the next batch, a pytree of arrays of the same shapes each time."""
        ...

    def get_state(self) -> Any:
        """Return the position: what the next batch will be."""
        ...

    def set_state(self, state: Any) -> Any:
        """Go to a position that ``get_state`` returned."""
        ...


class AbstractSource(eqx.Module):
    """Batches taken on the device."""

    @abstractmethod
    def take(self, step, epoch_key, batch_key) -> Any:
        """Return the batch of ``step``: of its own key, or of that which all of an epoch share."""


class GivenBatch(AbstractSource):
    """The same batch whenever asked: all the data, or what a host iterator has just given."""

    batch: Any

    def take(self, step, epoch_key, batch_key):
        """Return the batch."""
        return self.batch


class Sampled(AbstractSource):
    """A fresh batch drawn by a sampler ``key -> batch``."""

    sampler: Callable

    def take(self, step, epoch_key, batch_key):
        """Draw a batch."""
        return constrain_rows(self.sampler(batch_key))


class ShuffledRows(AbstractSource):
    """Rows without replacement; each epoch has a permutation of its own, and drops its remainder."""

    rows: Any
    n_rows: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def take(self, step, epoch_key, batch_key):
        """Return the rows that are next in the epoch's permutation; on a mesh, each device its own."""
        epoch, position = jnp.divmod(step, self.n_rows // self.batch_size)

        def pick(rows, key, positions):
            chosen = permuted(key, positions, self.n_rows)
            return jax.tree.map(lambda leaf: leaf.at[chosen].get(mode="promise_in_bounds"), rows)

        shared = self.rows, jax.random.fold_in(epoch_key, epoch)
        positions = position * self.batch_size + jnp.arange(self.batch_size)
        return over_rows(pick, None, shared=shared)(positions)


def is_store(data: Any) -> bool:
    """Return whether the data are rows in a store, which are read by their indices."""
    return not isinstance(data, (jax.Array, np.ndarray)) and all(
        hasattr(data, name) for name in ("shape", "dtype", "__getitem__", "__len__")
    )


def from_store(data: Any, batch_size: int | None, key: jax.Array) -> BatchIterator:
    """Return batches of such rows in shuffled epochs, of an order that the key decides."""
    if batch_size is None:
        raise ValueError("batch_size: expected a number, for rows that lie outside memory, got None.")
    seed = int(np.asarray(jax.random.key_data(key)).ravel().astype(np.uint32)[-1])
    return batches(data, batch_size, seed=seed)


def on_device(tree, name: str = "data"):
    """Return the tree with its NumPy arrays as JAX arrays, and no dtype weak."""

    def convert(leaf):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
            return leaf
        if is_key(leaf):
            return leaf
        if isinstance(leaf, jax.Array):
            return jax.lax.convert_element_type(leaf, leaf.dtype) if leaf.weak_type else leaf
        return device_array(np.asarray(leaf))

    return jax.tree.map(convert, native_leaves(name, tree))


def peek(data: Any, mesh: Mesh | None) -> GivenBatch | None:
    """Return the next batch of an iterator, which then stands where it stood; ``None`` at its end."""
    if not isinstance(data, BatchIterator):
        raise ValueError("data: expected an iterator with get_state and set_state, got one without.")
    position = data.get_state()
    position_as_json(position)
    try:
        return next_batch(data, mesh)
    except StopIteration:
        return None
    finally:
        data.set_state(position)


def next_batch(data: Iterator, mesh: Mesh | None) -> GivenBatch:
    """Take a batch from an iterator on the host."""
    batch = on_device(next(data))
    return GivenBatch(batch if mesh is None else join_rows(batch, mesh, name="data"))


def _count_rows(data) -> int:
    """Return the common length of the leading axes; raise ``ValueError`` that names the leaf at fault."""
    leaves = jax.tree_util.tree_flatten_with_path(data)[0]
    if not leaves:
        raise ValueError("data: expected at least one array, got none.")
    first, n_rows = "data" + jax.tree_util.keystr(leaves[0][0]), None
    for keys, leaf in leaves:
        name = "data" + jax.tree_util.keystr(keys)
        if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.ndim == 0:
            raise ValueError(f"{name}: expected an array with a leading axis of rows, got {leaf!r:.80}.")
        n_rows = leaf.shape[0] if n_rows is None else n_rows
        if leaf.shape[0] != n_rows:
            raise ValueError(f"{name}: expected {n_rows} rows as in {first}, got {leaf.shape[0]}.")
    if not n_rows:
        raise ValueError("data: expected at least one row, got none.")
    return n_rows


def as_source(data: Any, batch_size: int | None, mesh: Mesh | None = None) -> AbstractSource | None:
    """Return how batches are taken from ``data``; ``None`` for an iterator on the host."""
    is_iterator = isinstance(data, Iterator)
    if is_iterator or callable(data):
        if batch_size is not None:
            kind = "an iterator" if is_iterator else "a sampler"
            raise ValueError(f"batch_size: expected None with {kind}, which fixes it, got {batch_size}.")
        return None if is_iterator else Sampled(place(on_device(data), mesh))
    n_rows = _count_rows(data)
    if batch_size is None:
        rows = on_device(data)
        return GivenBatch(rows if mesh is None else shard_rows(rows, mesh, name="data"))
    check_at_least("batch_size", batch_size, 1)
    if batch_size > n_rows:
        raise ValueError(f"batch_size: expected at most the {n_rows} rows of data, got {batch_size}.")
    n = n_shards(ambient_mesh() if mesh is None else mesh)
    if batch_size % n:
        raise ValueError(
            f"batch_size: expected a multiple of the mesh's {n} devices along 'data', got {batch_size}."
        )
    if n_rows > _MOST_ROWS:
        raise ValueError(f"data: expected at most {_MOST_ROWS} rows, got {n_rows}; give batches, or shards.")
    # Whole on every device: each takes its part of a batch, in any order, from its own memory.
    return ShuffledRows(place(on_device(data), mesh), n_rows, int(batch_size))
