"""Permutations taken entry by entry: each number once, and no order more likely than another."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from neurojax._random import permuted

some = jax.jit(permuted, static_argnums=2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 63, 64, 65, 1000, 4096, 65_537])
def test_every_number_comes_once(n):
    came = np.asarray(some(jax.random.key(n), jnp.arange(n), n))
    assert np.array_equal(np.sort(came), np.arange(n))


def test_an_entry_is_the_same_whatever_else_is_asked():
    whole = some(jax.random.key(0), jnp.arange(1000), 1000)
    asked = jnp.array([[7, 999], [0, 123], [7, 500]])
    np.testing.assert_array_equal(some(jax.random.key(0), asked, 1000), whole[asked])


def test_numbers_near_the_largest_do_not_overflow():
    n = 2**31 - 1
    came = np.asarray(some(jax.random.key(1), jnp.arange(n - 10_000, n, dtype=jnp.int32), n))
    assert len(np.unique(came)) == 10_000
    assert came.dtype == np.int32
    assert came.min() >= 0
    assert stats.kstest(came / n, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("n", [2, 4, 5])
def test_all_orders_are_as_likely(n):
    keys = jax.random.split(jax.random.key(2), 60_000)
    came = np.asarray(jax.vmap(lambda key: some(key, jnp.arange(n), n))(keys))
    counts = np.unique(came @ n ** np.arange(n), return_counts=True)[1]
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbours_are_as_far_apart_as_by_chance():
    n = 50_000
    came = np.asarray(some(jax.random.key(3), jnp.arange(n), n)).astype(np.float64)
    for lag in (1, 2, 223, 224, 225, n // 2):  # the side of the square is 224
        assert abs(np.corrcoef(came[:-lag], came[lag:])[0, 1]) < 4 / math.sqrt(n - lag)
        assert stats.kstest((came[lag:] - came[:-lag]) % n / n, "uniform").pvalue > 1e-3


def test_permutations_of_other_keys_are_others():
    n, keys = 100, jax.random.split(jax.random.key(4), 2000)
    came = np.asarray(jax.vmap(lambda key: some(key, jnp.arange(n), n))(keys))
    in_place = np.sum(came[1:] == came[:-1], axis=1)  # of two permutations: one on average, variance one
    assert abs(in_place.mean() - 1) < 4 / math.sqrt(len(in_place))
