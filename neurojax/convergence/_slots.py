"""Slots that stay full: many loops of different lengths, run side by side on few rows of memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Int, Integer, PyTree

from .._arrays import device_array, native_leaves
from .._checks import check_at_least, check_rank, check_size
from .._types import Count

__all__ = ["count_rows", "run_in_slots"]

_SHARE_TO_REFILL = 8


class _Slots(NamedTuple):
    state: PyTree  # of each slot
    is_done: Bool[Array, " slots"]
    row: Int[Array, " slots"]  # the row that a slot works on; n_rows where it has none
    n_taken: Count  # how much of the queue has been taken
    log: "_Log"


class _Log(NamedTuple):
    """Results in the order in which they came: written block by block, for a scatter goes row by row."""

    results: PyTree
    row: Int[Array, " log"]  # whose result it is; n_rows for none
    size: Count


def run_in_slots(
    init: Callable[[Any], Any],
    step: Callable[[Any], Any],
    done: Callable[[Any], Bool[Array, ""]],
    rows: PyTree,
    *,
    n_slots: int,
    finish: Callable[[Any], Any] = lambda state: state,
    order: Integer[ArrayLike, " queue"] | None = None,
    n_queued: ArrayLike | None = None,
    results: PyTree = None,
) -> PyTree:
    """Run one loop for each row, ``n_slots`` of them at a time; a loop that ends makes room for the next.

    For each row: ``state = init(row)``; while not ``done(state)``: ``state = step(state)``; its result is
    ``finish(state)``. A ``jax.vmap`` of that ``while_loop`` takes as many steps as the slowest row, on all
    rows; here the steps of a batch of slots come to (all rows' steps)/n_slots, and at the end those of the
    loops that are still running. Put the rows that take longest first, where that can be guessed.

    ``init``, ``step``, ``done`` and ``finish`` take one row, or one state, and are mapped over the slots;
    arrays that all rows share belong in their closures. A slot that is done stands still (its state is held)
    until an eighth of the slots are, then results are written and the slots filled again. The results do not
    depend on order or slots, but for the rounding of products of another shape.

    Args:
        init: row ↦ state, arrays only.
        step: state ↦ state. Several steps of a method at once, if ``done`` is as dear as a step.
        done: state ↦ whether this was the last one; it must come true, by a count of steps if need be.
        rows: a pytree with equal leading axes, of at least one row.
        n_slots: how many rows are worked on at once, ≥ 1.
        finish: state ↦ result.
        order: the queue, as numbers of rows, each at most once; ``None``: as they come.
        n_queued: only so many of the queue are run; ``None``: all.
        results: what rows that are not run return, of the form of the results; ``None``: zeros.

    Returns:
        The results, with the leading axis of ``rows``.

    Raises:
        ValueError: at trace time, for no rows, unequal leading axes, no slots and a queue that is no list.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.convergence import run_in_slots
        >>> def step(state):  # Collatz
        ...     number, n_steps = state
        ...     return jnp.where(number % 2 == 0, number // 2, 3 * number + 1), n_steps + 1
        >>> numbers = jnp.array([1, 6, 7, 27])
        >>> run_in_slots(lambda n: (n, 0), step, lambda s: s[0] == 1, numbers, n_slots=2)[1].tolist()
        [0, 8, 16, 111]
    """
    rows = jax.tree.map(device_array, native_leaves("rows", rows))
    n_rows = count_rows("rows", rows)
    check_at_least("n_slots", n_slots, 1)
    n_slots = min(n_slots, n_rows)
    queue = _as_queue(order, n_rows)
    n_queued = jnp.minimum(queue.shape[0] if n_queued is None else n_queued, queue.shape[0])
    enough = max(1, n_slots // _SHARE_TO_REFILL)

    def refill(slots: _Slots) -> _Slots:
        """Log the results of the slots that are done, and hand these slots the next rows of the queue."""
        state, is_done, row, n_taken, log = slots
        log = _append(log, jax.vmap(finish)(state), jnp.where(is_done, row, n_rows), n_rows)
        place = n_taken + jnp.cumsum(is_done, dtype=n_taken.dtype) - 1
        is_new = is_done & (place < n_queued)
        coming = queue[jnp.minimum(place, queue.shape[0] - 1)]
        fresh = jax.vmap(init)(_take(rows, coming))
        return _Slots(
            jax.tree.map(partial(_where, is_new), fresh, state),
            jnp.where(is_new, jax.vmap(done)(fresh), is_done),
            jnp.where(is_new, coming, jnp.where(is_done, n_rows, row)),
            n_taken + jnp.sum(is_new, dtype=n_taken.dtype),
            log,
        )

    def advance(slots: _Slots) -> _Slots:
        state = jax.tree.map(partial(_where, slots.is_done), slots.state, jax.vmap(step)(slots.state))
        return slots._replace(state=state, is_done=slots.is_done | jax.vmap(done)(state))

    def is_busy(slots: _Slots) -> Bool[Array, ""]:
        n_done = jnp.sum(slots.is_done)
        return n_done < jnp.where(slots.n_taken < n_queued, enough, n_slots)

    def is_unfinished(slots: _Slots) -> Bool[Array, ""]:
        return (slots.n_taken < n_queued) | jnp.any(slots.row < n_rows)

    one = jax.eval_shape(lambda tree: init(_take(tree, 0)), rows)
    idle = jnp.full(n_slots, n_rows, queue.dtype)
    zero = jnp.zeros((), queue.dtype)
    blank = _zeros(jax.eval_shape(finish, one), n_rows + n_slots)
    log = _Log(blank, jnp.full(n_rows + n_slots, n_rows, queue.dtype), zero)
    slots = _Slots(_zeros(one, n_slots), jnp.ones(n_slots, bool), idle, zero, log)
    if not queue.shape[0]:
        return _sort(log, n_rows, results)
    slots = lax.while_loop(is_unfinished, lambda s: refill(lax.while_loop(is_busy, advance, s)), slots)
    return _sort(slots.log, n_rows, results)


def _as_queue(order, n_rows: int) -> Int[Array, " queue"]:
    if order is None:
        return jnp.arange(n_rows, dtype=jnp.int32)
    check_rank("order", order, "queue")
    if not jnp.issubdtype(jnp.result_type(order), jnp.integer):
        raise ValueError(f"order: expected whole numbers, got dtype {jnp.result_type(order)}.")
    return jnp.asarray(order).astype(jnp.int32)


def _append(log: _Log, results: PyTree, row: Int[Array, " slots"], n_rows: int) -> _Log:
    """Write a block of slots at the end of the log, those with a row first: the next covers the rest."""
    order = jnp.argsort(row >= n_rows, stable=True)
    size = log.size + jnp.sum(row < n_rows, dtype=log.size.dtype)

    def write(kept, new):
        return lax.dynamic_update_slice_in_dim(kept, new[order], log.size, 0)

    return _Log(jax.tree.map(write, log.results, results), write(log.row, row), size)


def _sort(log: _Log, n_rows: int, rest: PyTree) -> PyTree:
    """Return the logged results row by row, and the ``rest``, or zeros, where there are none."""
    place = jnp.full(n_rows, -1).at[log.row].set(jnp.arange(log.row.shape[0]), mode="drop")
    was_run = place >= 0

    def pick(logged, other):
        return _where(was_run, logged[place], other)

    if rest is None:
        return jax.tree.map(lambda logged: pick(logged, jnp.zeros((), logged.dtype)), log.results)
    return jax.tree.map(pick, log.results, rest)


def count_rows(name: str, rows: PyTree) -> int:
    """Return the common leading size of the leaves of ``rows``, at least 1, or raise ``ValueError``."""
    leaves = jax.tree.leaves(rows)
    if not leaves:
        raise ValueError(f"{name}: expected arrays with at least one row, got no arrays.")
    for leaf in leaves:
        if not jnp.shape(leaf) or not jnp.shape(leaf)[0]:
            raise ValueError(f"{name}: expected arrays with at least one row, got shape {jnp.shape(leaf)}.")
        check_size(name, leaf, 0, jnp.shape(leaves[0])[0], "rows as in the first leaf")
    return jnp.shape(leaves[0])[0]


def _where(condition: Bool[Array, " slots"], a: Array, b: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (a.ndim - 1)), a, b)


def _take(rows: PyTree, index) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], rows)


def _zeros(shapes: PyTree, n: int) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((n, *leaf.shape), leaf.dtype), shapes)
