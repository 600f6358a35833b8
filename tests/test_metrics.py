"""The metrics against their definitions."""

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
    assert float(explained_variance(xs, guess)) == pytest.approx(expected, rel=1e-5)
    assert explained_variance(xs, xs) == 1
    assert explained_variance(np.zeros((3, 2), np.float32), np.zeros((3, 2), np.float32)) == 0
    assert np.isnan(explained_variance(np.full((1, 2), np.nan, np.float32), xs[:1, :2]))


def test_activity_is_counted_per_code_and_per_unit():
    codes = np.array([[0, 1.5, 0, -2], [0, 0, 0, 1e-30], [0, 0.0, 0, 0]], np.float32)
    np.testing.assert_array_equal(n_active(codes), [2, 1, 0])
    assert n_active(codes[0]) == 2
    assert dead_fraction(codes) == 0.5
