"""Batches made ahead on the host: shuffled rows of any source, resumable to the exact sample."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._arrays import check_unmasked, native
from .._checks import check_at_least
from ._shards import ShardedRows

__all__ = ["Batches", "batches", "check_seed", "described", "on_host", "own_part", "rows_at", "shuffled"]

_ENDLESS = 2**62
_ORDER = "grain 4"  # the name of the order of `shuffled`, in the settings of a position
_FEW = 2**16  # rows whose order is drawn as a whole


class Batches(Iterator):
    """An iterator over batches that are made in threads ahead of their use; `batches` makes it.

    Batch k depends on k and the settings alone. The position is the number of batches given, whatever
    is being made ahead, and is the same in each process: a run may go on from it with another number of
    processes. It is a ``training.BatchIterator``, for `training.fit` with checkpoints.

    Attributes:
        n_batches: batches in all, or ``None`` without an end.
    """

    def __init__(
        self,
        make: Callable[[int], Any],
        n_batches: int | None,
        settings: dict[str, Any],
        *,
        n_threads: int,
        n_ahead: int,
    ):
        """Begin at batch 0; nothing is made before the first is asked for.

        Args:
            make: the batch of a number, called in threads.
            n_batches: in all, or ``None``.
            settings: of the pipeline, as JSON can hold them.
            n_threads: that make batches, ≥ 1.
            n_ahead: batches made ahead, ≥ 1.

        Raises:
            ValueError: for settings out of range.
            ImportError: where grain is not installed.
        """
        check_at_least("n_threads", n_threads, 1)
        check_at_least("n_ahead", n_ahead, 1)
        grain = _import_grain()
        self.n_batches, self._settings = n_batches, settings
        self._given, self._iterator = 0, None
        self._dataset = grain.MapDataset.range(_ENDLESS if n_batches is None else n_batches).map(make)
        self._options = grain.ReadOptions(num_threads=n_threads, prefetch_buffer_size=n_ahead)

    def __next__(self) -> Any:
        """Return the next batch, NumPy arrays."""
        if self.n_batches is not None and self._given >= self.n_batches:
            raise StopIteration
        if self._iterator is None:
            self._iterator = iter(self._dataset[self._given :].to_iter_dataset(self._options))
        try:
            batch = next(self._iterator)
        except BaseException:
            # After an error what was made ahead is no longer in step with the position.
            self.close()
            raise
        self._given += 1
        if self._given == self.n_batches:
            self.close()
        return batch

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that determine the batches, the same in all processes, in a form that JSON can hold.

        They are numbers and the shape, dtype and files of the source; other settings are refused.
        """
        return copy.deepcopy(self._settings)

    def get_state(self) -> dict[str, Any]:
        """Return the position, as JSON can hold it."""
        return {"n_batches": self._given, "settings": self.settings}

    def set_state(self, state: Any) -> None:
        """Go to a position that `get_state` returned, in this process or another.

        Raises:
            ValueError: for what is no such position, or one of other settings; the message names them.
        """
        then = state.get("settings") if isinstance(state, dict) else None
        if not isinstance(then, dict) or set(state) != {"n_batches", "settings"}:
            raise ValueError(f"state: expected what get_state returns, got {state!r:.80}.")
        check_at_least("state['n_batches']", state["n_batches"], 0)
        now = self._settings
        for name in {**now, **then}:
            if then.get(name) != now.get(name):
                raise ValueError(
                    f"{name}: expected {then.get(name)!r:.200}, with which the position was saved, got "
                    f"{now.get(name)!r:.200}."
                )
        if self.n_batches is not None and state["n_batches"] > self.n_batches:
            raise ValueError(
                f"state: expected a position in {self.n_batches} batches, got {state['n_batches']}."
            )
        self.close()
        self._given = int(state["n_batches"])

    def close(self) -> None:
        """End the threads and drop what was made ahead; the next batch begins anew from the position."""
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator.close()


def batches(
    source: Any,
    batch_size: int,
    *,
    seed: int,
    n_epochs: int | None = None,
    transform: Callable[[Any], Any] | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
    n_threads: int = 2,
    n_ahead: int = 4,
) -> Batches:
    """Return shuffled batches of rows, for data that memory does not hold, by Grain.

    Each epoch visits the rows in a random order of its own, drawn from (seed, epoch), and drops the
    remainder that fills no batch. Batch k is the same set of rows for any number of processes: process p of P
    gets its rows p, p + P, p + 2P, …. The order is Grain's, computed entry by entry: it takes no memory a
    row, and an epoch ends without a pause. (Up to 65,536 rows are permuted as a whole by NumPy.)

    Args:
        source: `ShardedRows`, an array (memory-mapped ones too), or a pytree of them with equal lengths (rows
            and their labels); any object with ``len`` and ``[row numbers]`` will do, such as a dataset of
            h5py. Such stores are asked for rows in increasing order, each once.
        batch_size: rows a batch, of all processes together; divisible by their number.
        seed: of the orders, 0 to 2⁶⁴ − 1.
        n_epochs: ≥ 1; ``None``: without an end.
        transform: what is done to this process's part of a batch on the host, in the threads; it must
            treat each row by itself (``whitening.whiten``, or cutting and scaling).
        process_index: which process this is; ``None``: as JAX says.
        process_count: how many there are; ``None``: as JAX says.
        n_threads: threads that make batches.
        n_ahead: batches made ahead: so many are in memory.

    Returns:
        The batches, NumPy arrays in the form of ``source``.

    Raises:
        ValueError: for a source without rows, lengths that differ, a batch larger than the source or that
            does not divide over the processes, and settings out of range.
        ImportError: where grain is not installed (``pip install 'grain>=0.2.15'``).

    Example:
        >>> rows = np.arange(6.0)
        >>> stream = batches(rows, 3, seed=0, n_epochs=1)
        >>> sorted(np.concatenate(list(stream)).tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    n_rows = _count_rows(source)
    check_at_least("batch_size", batch_size, 1)
    if batch_size > n_rows:
        raise ValueError(f"batch_size: expected at most the {n_rows} rows of source, got {batch_size}.")
    check_seed(seed)
    if n_epochs is not None:
        check_at_least("n_epochs", n_epochs, 1)
    part = own_part(batch_size, process_index, process_count)
    finish, per_epoch = on_host(transform), n_rows // batch_size

    def make(number: int) -> Any:
        epoch, position = divmod(number, per_epoch)
        positions = np.arange(position * batch_size, (position + 1) * batch_size)[part]
        chosen = shuffled(seed, epoch, positions, n_rows)
        return finish(jax.tree.map(lambda rows: native("source", rows_at(rows, chosen)), source))

    settings = {"seed": int(seed), "batch_size": int(batch_size), "n_rows": n_rows, "order": _ORDER}
    for name, leaf in _named(source):
        settings |= described(name, leaf)
    n_batches = None if n_epochs is None else n_epochs * per_epoch
    return Batches(make, n_batches, settings, n_threads=n_threads, n_ahead=n_ahead)


def shuffled(seed: int, epoch: int, positions: np.ndarray, n: int) -> np.ndarray:
    """Return the entries at these positions of the random permutation of 0 … n − 1 of an epoch.

    Args:
        seed: 0 to 2⁶⁴ − 1.
        epoch: the same range.
        positions: integers from 0 to n − 1; not checked.
        n: the number of rows.
    """
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    if n <= _FEW:  # for a few dozen rows, the orders of Grain are visibly unequal in frequency
        return np.random.Generator(bits).permutation(n)[positions]
    # Grain's seeds have 32 bits: each (seed, epoch) is hashed to one. Its own shuffle has 4 rounds too.
    shuffle, hashed = _import_grain().experimental.index_shuffle, int(bits.random_raw()) >> 32
    # Where the largest index is a power of four, Grain returns one index twice and another never; there
    # the order of one more row is used, and followed past that row.
    largest = n - 1 if (n - 1) & (n - 2) else n
    entries = [shuffle(position, largest, hashed, 4) for position in positions.tolist()]
    return np.array([shuffle(e, largest, hashed, 4) if e >= n else e for e in entries], np.int64)


def rows_at(rows: Any, chosen: np.ndarray) -> np.ndarray:
    """Return the rows of these numbers, in this order; numbers may repeat.

    Stores other than arrays and `ShardedRows` are asked for increasing numbers only, as h5py requires.
    """
    if isinstance(rows, (np.ndarray, jax.Array, ShardedRows)):
        return np.asarray(rows[chosen])
    numbers, places = np.unique(chosen, return_inverse=True)
    return np.asarray(rows[numbers])[places]


def own_part(batch_size: int, process_index: int | None, process_count: int | None) -> slice:
    """Return which rows of a batch are this process's.

    Raises:
        ValueError: for a process that there is not, and a batch that does not divide over the processes.
    """
    if (process_index is None) != (process_count is None):
        raise ValueError(
            f"process_count: expected it together with process_index, got {process_count}, {process_index}."
        )
    count = jax.process_count() if process_count is None else process_count
    index = jax.process_index() if process_index is None else process_index
    check_at_least("process_count", count, 1)
    check_at_least("process_index", index, 0)
    if index >= count:
        raise ValueError(f"process_index: expected less than the {count} processes, got {index}.")
    if batch_size % count:
        raise ValueError(f"batch_size: expected a multiple of the {count} processes, got {batch_size}.")
    return slice(index, None, count)


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` unless ``seed`` is a whole number in [0, 2⁶⁴)."""
    check_at_least("seed", seed, 0)
    if seed >= 2**64:
        raise ValueError(f"seed: expected less than 2⁶⁴, got {seed}.")


def on_host(function: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    """Return a function of NumPy arrays that runs beside the accelerator: JAX code in it runs on the CPU.

    Threads do not inherit double precision where a context has set it; it is taken from here.
    """
    if function is None:
        return lambda tree: tree
    is_double = jnp.result_type(float) == jnp.float64

    def run(tree: Any) -> Any:
        with _cpu(), jax.enable_x64(is_double):
            return jax.tree.map(np.asarray, function(tree))

    return run


def described(name: str, array: Any) -> dict[str, Any]:
    """Return what tells an array, or rows in files, from others, as JSON can hold it; nothing is read."""
    shape, dtype = getattr(array, "shape", (len(array),)), getattr(array, "dtype", None)
    settings = {
        f"{name}.shape": [int(size) for size in shape],
        f"{name}.dtype": None if dtype is None else np.dtype(dtype).name,
    }
    if isinstance(array, ShardedRows):
        settings |= {f"{name}.n_shards": array.n_shards, f"{name}.digest": array.digest}
    return settings


def _cpu() -> contextlib.AbstractContextManager:
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX was told to have no CPU
        return contextlib.nullcontext()


def _named(source: Any) -> list[tuple[str, Any]]:
    leaves = jax.tree_util.tree_flatten_with_path(source)[0]
    return [("source" + jax.tree_util.keystr(keys), leaf) for keys, leaf in leaves]


def _count_rows(source: Any) -> int:
    lengths = {}
    for name, leaf in _named(source):
        check_unmasked(name, leaf)
        if not hasattr(leaf, "__getitem__") or not hasattr(leaf, "__len__") or isinstance(leaf, str):
            raise ValueError(f"{name}: expected rows with len and [numbers], got {leaf!r:.80}.")
        lengths[name] = len(leaf)
    if not lengths or not min(lengths.values()):
        raise ValueError(f"source: expected at least one row, got {lengths or 'nothing'}.")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"source: expected equally many rows in all its parts, got {lengths}.")
    return next(iter(lengths.values()))


def _import_grain() -> Any:
    try:
        import grain  # a slow import of an extra, wanted only here
    except ImportError as error:
        raise ImportError(
            "Data pipelines need the package grain, which is not installed: pip install 'grain>=0.2.15'."
        ) from error
    return grain
