"""The metrics against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.metrics import (
    classification_error,
    dead_fraction,
    explained_energy,
    explained_variance,
    n_active,
)

variance, energy = jax.jit(explained_variance), jax.jit(explained_energy)


def _pair():
    rng = np.random.default_rng(0)
    xs = 10 + rng.normal(size=(50, 4)) * [1, 2, 0.5, 1]
    return xs, xs + 0.2 + 0.3 * rng.normal(size=xs.shape)


def test_explained_variance_is_scikit_learns_r_squared():
    from sklearn.metrics import r2_score

    xs, guess = (array.astype(np.float32) for array in _pair())
    expected = r2_score(xs, guess, multioutput="variance_weighted")
    assert float(variance(xs, guess)) == pytest.approx(expected, rel=1e-5)
    assert variance(xs, xs) == 1 == energy(xs, xs)
    assert abs(float(variance(xs, np.broadcast_to(xs.mean(axis=0), xs.shape)))) < 1e-6
    assert np.isnan(variance(np.full_like(xs, np.nan), xs))


def test_explained_energy_is_the_share_of_the_sum_of_squares():
    xs, guess = (array.astype(np.float32) for array in _pair())
    expected = 1 - np.sum((xs - guess.astype(float)) ** 2) / np.sum(xs.astype(float) ** 2)
    assert float(energy(xs, guess)) == pytest.approx(expected, rel=1e-6)
    assert energy(xs, np.zeros_like(xs)) == 0
    centered = xs - xs.mean(axis=0)
    assert float(energy(centered, guess)) == pytest.approx(float(variance(centered, guess)), rel=1e-5)


@pytest.mark.parametrize("rows", [np.zeros((50, 4)), np.full((50, 4), 0.1), np.ones((1, 4))])
def test_nothing_is_explained_of_data_that_do_not_vary(rows):
    rows = rows.astype(np.float32)
    assert variance(rows, rows) == 0 == variance(rows, 2 * rows + 1)
    gradient = jax.grad(explained_variance, argnums=(0, 1))(rows, 2 * rows + 1)
    assert not np.any(gradient)


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-19, 1.0, 1e19, 1e22, 1e30])
def test_the_unit_of_the_data_changes_nothing(scale):
    xs, guess = (np.float32(array * scale) for array in _pair())
    for share, value in ((variance, 1 - _rest(xs, guess, True)), (energy, 1 - _rest(xs, guess, False))):
        assert float(share(xs, guess)) == pytest.approx(value, rel=1e-5)


def _rest(xs, guess, is_centered):
    xs, guess = xs.astype(float), guess.astype(float)
    return np.sum((xs - guess) ** 2) / np.sum((xs - is_centered * xs.mean(axis=0)) ** 2)


@pytest.mark.parametrize("share", [explained_variance, explained_energy])
def test_gradients_are_those_of_finite_differences(share, x64):
    xs, guess = (jnp.asarray(array[:5]) for array in _pair())
    step = jnp.asarray(np.random.default_rng(1).normal(size=xs.shape)) * 1e-5
    for i in range(2):
        slope = jnp.vdot(jax.grad(share, argnums=i)(xs, guess), step)
        ends = [share(xs + s * step, guess) if i == 0 else share(xs, guess + s * step) for s in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(dtype):
    xs, guess = (jnp.asarray(array, dtype) for array in _pair())
    for share in (variance, energy):
        value = share(xs, guess)
        assert value.dtype == jnp.float32
        assert value == share(xs.astype(jnp.float32), guess.astype(jnp.float32))
    codes = jnp.ones((2, 70_000), dtype)
    assert n_active(codes).tolist() == [70_000, 70_000]
    error = classification_error(jnp.zeros((700, 2), dtype), (np.arange(700) == 0).astype(int))
    assert float(error) == pytest.approx(1 / 700)


def test_activity_is_counted_per_code_and_per_unit():
    codes = np.array([[0, 1.5, 0, -2], [0, 0, 0, 1e-30], [0, 0.0, 0, 0]], np.float32)
    of_all, of_one, dead = jax.jit(lambda x: (n_active(x), n_active(x[0]), dead_fraction(x)))(codes)
    np.testing.assert_array_equal(of_all, [2, 1, 0])
    assert of_one == 2 and dead == 0.5
    assert dead_fraction(codes[:0]) == 1
    broken = np.where(codes == 1.5, np.nan, codes)
    np.testing.assert_array_equal(n_active(broken), [np.nan, 1, 0])
    assert np.isnan(dead_fraction(broken)) and np.isnan(classification_error(broken, np.zeros(3, int)))


REFUSED = [
    (classification_error, (np.eye(3), np.arange(3)[:, None]), "labels: expected 1 axes"),
    (classification_error, (np.eye(3), np.arange(3)[:1]), "labels: expected 3 labels, one for each row"),
    (classification_error, (np.eye(3), np.arange(3.0)), "labels: expected integers"),
    (classification_error, (np.eye(3), np.arange(3) + 1), r"labels: expected numbers in \[0, 2\]"),
    (classification_error, (np.zeros((3, 0)), np.arange(3)), "scores: expected at least one class"),
    (explained_variance, (np.eye(3), np.ones((3, 1))), r"reconstructions: expected shape \(3, 3\), as xs"),
    (explained_energy, (np.eye(3), np.ones(3)), "reconstructions: expected 2 axes"),
    (explained_variance, (np.zeros((0, 3)), np.zeros((0, 3))), "xs: expected at least one sample"),
    (n_active, (np.float32(1),), "codes: expected an axis of units"),
    (dead_fraction, (np.ones(3),), "codes: expected 2 axes"),
]


@pytest.mark.parametrize("function, arguments, message", REFUSED)
def test_refused_by_name(function, arguments, message, untyped):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
