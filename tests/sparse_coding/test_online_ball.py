"""The unit ball of online learning: long atoms are cut back, and short ones are left short."""

import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.sparse_coding import Dictionary, DictionaryStatistics, update_atoms


@pytest.mark.parametrize("unit_length, expected", [(False, [0.3, 1.0]), (True, [1.0, 1.0])])
def test_only_atoms_outside_the_ball_are_scaled(unit_length, expected):
    dictionary = Dictionary(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    pulls = jnp.array([[0.3, 0.0], [0.0, 3.0]])
    statistics = DictionaryStatistics.init(dictionary)._replace(code_products=jnp.eye(2), data_products=pulls)
    found = update_atoms(dictionary, statistics, unit_length=unit_length).atoms
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-6)
