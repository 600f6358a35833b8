"""Supports: the coefficients that are free to move do not depend on their signs."""

import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.penalties import L0, L1, ElasticNet, GroupL2, Log

CODE = np.array([0.0, -2.0, 0.0, 0.0, 1.0, 3.0])


@pytest.mark.parametrize("penalty", [L1(0.5), L0(0.5), Log(0.5), ElasticNet(0.5, 0.1)], ids=repr)
def test_the_support_is_what_is_not_zero(penalty):
    for sign in (-1, 1):
        np.testing.assert_array_equal(penalty.support(jnp.asarray(sign * CODE)), CODE != 0)


def test_the_support_of_groups_has_every_coefficient_of_a_group_that_is_not_zero():
    for sign in (-1, 1):
        found = GroupL2(0.5, group_size=2).support(jnp.asarray(sign * CODE))
        np.testing.assert_array_equal(found, [True, True, False, False, True, True])
    weightless = GroupL2(jnp.array([0.5, 0.0, 0.5]), group_size=2).support(jnp.zeros(6))
    np.testing.assert_array_equal(weightless, [False, False, True, True, False, False])
