"""Permutations taken entry by entry: each number once, and no order more likely than another."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from neurojax._random import permuted

some = jax.jit(permuted, static_argnums=2)


@partial(jax.jit, static_argnames=("n_keys", "n"))
def many(key, n_keys, n):
    """Whole permutations, one for each key."""
    return jax.vmap(lambda key: permuted(key, jnp.arange(n), n))(jax.random.split(key, n_keys))


def whole(key, n):
    return np.asarray(some(jax.random.key(key), np.arange(n, dtype="int32"), n))


# The smallest square, one more than it holds, and many rows.
@pytest.mark.parametrize("n", [1, 65, 1000, 65_537])
def test_every_number_comes_once(n):
    assert np.array_equal(np.sort(whole(n, n)), np.arange(n))


def test_an_entry_is_the_same_whatever_else_is_asked():
    asked = np.array([[7, 999], [0, 123], [7, 500]], "int32")
    np.testing.assert_array_equal(some(jax.random.key(0), asked, 1000), whole(0, 1000)[asked])


def test_numbers_near_the_largest_do_not_overflow():
    n = 2**31 - 1
    came = np.asarray(some(jax.random.key(1), np.arange(n - 10_000, n, dtype="int32"), n))
    assert len(np.unique(came)) == 10_000
    assert came.dtype == np.int32
    assert came.min() >= 0
    assert stats.kstest(came / n, "uniform").pvalue > 1e-3


def test_all_orders_are_as_likely():
    n = 5
    came = np.asarray(many(jax.random.key(2), 20_000, n))
    counts = np.unique(came @ n ** np.arange(n), return_counts=True)[1]
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbors_are_as_far_apart_as_by_chance():
    n = 65_537
    came = whole(n, n).astype(np.float64)
    for lag in (1, 2, 255, 256, 257, 258, n // 2):  # the sides of the square are 257 and 256
        assert abs(np.corrcoef(came[:-lag], came[lag:])[0, 1]) < 4 / math.sqrt(n - lag)
        assert stats.kstest((came[lag:] - came[:-lag]) % n / n, "uniform").pvalue > 1e-3


def test_permutations_of_other_keys_are_others():
    came = np.asarray(many(jax.random.key(4), 20_000, 5))
    in_place = np.sum(came[1:] == came[:-1], axis=1)  # of two permutations: one on average, variance one
    assert abs(in_place.mean() - 1) < 4 / math.sqrt(len(in_place))
