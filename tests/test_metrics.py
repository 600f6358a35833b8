"""The metrics against their definitions."""

import jax
import numpy as np
import pytest

from neurojax.metrics import dead_fraction, explained_variance, n_active


def test_explained_variance_is_scikit_learns_for_centred_data():
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    xs = rng.normal(size=(50, 4)).astype(np.float32)
    xs -= xs.mean(axis=0)
    guess = (xs + 0.3 * rng.normal(size=xs.shape)).astype(np.float32)
    expected = r2_score(xs, guess, multioutput="variance_weighted")
    share = jax.jit(explained_variance)
    assert float(share(xs, guess)) == pytest.approx(expected, rel=1e-5)
    assert share(xs, xs) == 1
    zeros = np.zeros_like(xs)
    assert share(zeros, zeros) == 0
    assert np.isnan(share(np.full_like(xs, np.nan), xs))


def test_activity_is_counted_per_code_and_per_unit():
    codes = np.array([[0, 1.5, 0, -2], [0, 0, 0, 1e-30], [0, 0.0, 0, 0]], np.float32)
    of_all, of_one, dead = jax.jit(lambda x: (n_active(x), n_active(x[0]), dead_fraction(x)))(codes)
    np.testing.assert_array_equal(of_all, [2, 1, 0])
    assert of_one == 2 and dead == 0.5
