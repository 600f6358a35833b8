"""Slots against plain loops, whatever the order, the queue and the slots; and how many steps they take."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurojax.convergence import run_in_slots

NUMBERS = np.array(
    [1, 6, 7, 27, 1, 9, 97, 2, 2, 31, 54, 1, 3, 703, 871, 12, 19, 25, 1, 63, 64, 5, 8], np.int32
)
ROWS = np.arange(NUMBERS.size)


def begin(number):
    return {"number": number, "path": (jnp.int32(0), number)}


def step(state):
    number, (n_steps, largest) = state["number"], state["path"]
    number = jnp.where(number % 2 == 0, number // 2, 3 * number + 1)
    return {"number": number, "path": (n_steps + 1, jnp.maximum(number, largest))}


def done(state):
    return state["number"] == 1


def path(state):
    return jnp.stack(state["path"])


def plain_path(number):
    n_steps, largest = 0, number
    while number != 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        n_steps, largest = n_steps + 1, max(largest, number)
    return n_steps, largest


PATHS = np.array([plain_path(int(n)) for n in NUMBERS])


@partial(jax.jit, static_argnums=1)
def paths(numbers, n_slots, order=None, n_queued=None, results=None):
    return run_in_slots(
        begin,
        step,
        done,
        numbers,
        n_slots=n_slots,
        finish=path,
        order=order,
        n_queued=n_queued,
        results=results,
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 3, 60]), st.permutations(range(NUMBERS.size)), st.integers(0, NUMBERS.size + 3))
def test_every_queue_gives_the_plain_loops_results(n_slots, order, n_queued):
    rest = np.stack([-ROWS, ROWS], axis=1).astype(np.int32)
    found = paths(NUMBERS, n_slots, np.array(order, np.int32), n_queued, rest)
    was_run = np.isin(ROWS, order[:n_queued])
    np.testing.assert_array_equal(found, np.where(was_run[:, None], PATHS, rest))


@pytest.mark.parametrize("n_slots", [1, 24])
def test_all_rows_in_their_own_order_need_no_queue(n_slots):
    np.testing.assert_array_equal(paths(NUMBERS, n_slots), PATHS)


def test_a_short_queue_leaves_zeros_for_the_rest():
    found = paths(NUMBERS, 3, np.array([13, 3], np.int32))
    np.testing.assert_array_equal(found, np.where(np.isin(ROWS, [3, 13])[:, None], PATHS, 0))


@pytest.mark.parametrize("number", [1, 27])
def test_equal_rows_that_are_done_at_once_or_end_together(number):
    found = paths(np.full(23, number, np.int32), 24)
    np.testing.assert_array_equal(found, [plain_path(number)] * 23)


def test_it_maps_over_batches_of_rows_and_over_orders():
    batches = np.stack([NUMBERS, NUMBERS[::-1], np.ones_like(NUMBERS)])
    found = jax.jit(jax.vmap(lambda numbers: paths(numbers, 3)))(batches)
    np.testing.assert_array_equal(found, [PATHS, PATHS[::-1], np.stack([0 * ROWS, ROWS * 0 + 1], 1)])
    orders = np.stack([ROWS, ROWS[::-1], np.roll(ROWS, 5)]).astype(np.int32)
    found = jax.jit(jax.vmap(lambda order, n: paths(NUMBERS, 3, order, n)))(orders, np.array([23, 0, 2]))
    was_run = np.stack([ROWS >= 0, ROWS < 0, np.isin(ROWS, orders[2, :2])])
    np.testing.assert_array_equal(found, np.where(was_run[..., None], PATHS, 0))


def walk_begin(row):
    key, goal = row
    return key, jnp.zeros((2,), jnp.float32), goal


def walk_step(state):
    key, place, goal = state
    key, draw = jax.random.split(key)
    return key, place + jax.random.normal(draw, (2,), jnp.float32), goal


def walk_done(state):
    return jnp.sum(jnp.abs(state[1])) > state[2]


def test_random_walks_with_their_keys_are_those_of_the_plain_loop_bit_for_bit():
    rows = jax.random.split(jax.random.key(1), 17), jnp.linspace(0.5, 6, 17, dtype=jnp.float32)

    def alone(row):
        return jax.lax.while_loop(lambda s: ~walk_done(s), walk_step, walk_begin(row))

    key, place, _ = jax.jit(lambda rows: run_in_slots(walk_begin, walk_step, walk_done, rows, n_slots=4))(
        rows
    )
    expected = jax.jit(jax.vmap(alone))(rows)
    np.testing.assert_array_equal(place, expected[1])
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected[0]))


N_CALLS: list[tuple[int, ...]] = []


def count(left):
    N_CALLS.append(left.shape)
    return left - 1


def counted(left):
    return jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.int32), left, vmap_method="broadcast_all")


@jax.jit
def count_down(lengths, order):
    return run_in_slots(lambda n: n, counted, lambda n: n <= 0, lengths, n_slots=16, order=order)


def n_batch_steps(lengths, order):
    """Run loops of given lengths in 16 slots; return how often the whole batch of slots was stepped."""
    N_CALLS.clear()
    left = count_down(lengths.astype(np.int32), order.astype(np.int32))
    np.testing.assert_array_equal(left, np.minimum(lengths, 0))
    assert set(N_CALLS) == {(16,)}
    return len(N_CALLS)


def test_steps_are_at_most_the_work_by_the_slots_and_the_longest():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        lengths = rng.geometric(0.08, size=500)
        n_steps = n_batch_steps(lengths, rng.permutation(500))
        assert lengths.sum() / 16 <= n_steps <= lengths.sum() / 16 + lengths.max()


def test_stragglers_cost_at_most_three_tenths_more_than_the_work_by_the_slots():
    lengths = np.random.default_rng(0).integers(5, 16, size=500)
    lengths[::100] *= 20
    hardest_first = np.argsort(-lengths)
    n_steps = n_batch_steps(lengths, hardest_first)
    assert n_steps <= 1.3 * lengths.sum() / 16
    assert n_steps < n_batch_steps(lengths, hardest_first[::-1])


def test_a_row_that_turns_to_nan_ends_alone():
    rows = np.linspace(0.1, 3, 20, dtype=np.float32)
    is_bad = np.isin(np.arange(20), [0, 7])

    @jax.jit
    def run(rows):
        return run_in_slots(
            lambda x: (x, jnp.int32(0)),
            lambda s: (jnp.cos(s[0]), s[1] + 1),
            lambda s: ~(jnp.abs(jnp.cos(s[0]) - s[0]) > 1e-3),
            rows,
            n_slots=6,
        )

    clean, dirty = run(rows), run(np.where(is_bad, np.nan, rows))
    np.testing.assert_array_equal(dirty[0][~is_bad], clean[0][~is_bad])
    np.testing.assert_array_equal(dirty[1][is_bad], 0)


def test_an_order_of_narrow_whole_numbers_will_do():
    np.testing.assert_array_equal(paths(NUMBERS, 3, ROWS[::-1].astype(np.uint8)), PATHS)


def test_an_order_of_64_bits_will_do_in_double_precision(x64):
    np.testing.assert_array_equal(paths(NUMBERS, 3, ROWS[::-1]), PATHS)


def test_small_whole_numbers_that_cannot_count_the_rows_still_number_them():
    numbers = np.tile(NUMBERS, 10)[:200]
    found = paths(numbers, 3, np.arange(100, dtype=np.int8))
    np.testing.assert_array_equal(found[:100], np.tile(PATHS, (10, 1))[:100])
    np.testing.assert_array_equal(found[100:], 0)


def test_an_empty_queue_runs_nothing():
    np.testing.assert_array_equal(paths(NUMBERS, 3, np.zeros(0, np.int32)), 0 * PATHS)


def bad(rows: Any = NUMBERS, n_slots: Any = 3, order: Any = None):
    return lambda: run_in_slots(
        lambda row: row, lambda s: s, lambda s: s >= 0, rows, n_slots=n_slots, order=order
    )


BAD = [
    (bad(NUMBERS[:0]), r"rows: expected .* at least one row, got shape \(0,\)"),
    (bad(()), "rows: expected .* at least one row"),
    (bad(jnp.int32(3)), r"rows: expected .* at least one row, got shape \(\)"),
    (bad((NUMBERS, NUMBERS[:-1])), r"rows: expected 23 rows .* got shape \(22,\)"),
    (bad((NUMBERS, jnp.int32(3))), r"rows: expected .* got shape \(\)"),
    (bad(n_slots=0), "n_slots: expected a whole number ≥ 1, got 0"),
    (bad(n_slots=2.0), "n_slots: expected a whole number ≥ 1, got 2.0"),
    (bad(order=jnp.zeros((2, 2), jnp.int32)), r"order: expected 1 axes .* got shape \(2, 2\)"),
    (bad(order=jnp.int32(2)), r"order: expected 1 axes .* got shape \(\)"),
    (bad(order=jnp.zeros(3)), "order: expected .* float32"),
]


def test_bad_input_is_named(untyped):
    for call, message in BAD:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert re.match(r"\w+: expected", str(error.value))
