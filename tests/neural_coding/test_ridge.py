"""Ridge regression against the normal equations, scikit-learn and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from neurojax.neural_coding import ridge

RNG = np.random.default_rng(0)
XS, YS, WEIGHTS = RNG.normal(2, 1, (12, 18)), RNG.normal(1, 1, (12, 3)), RNG.uniform(0.1, 2, 12)
quick = jax.jit(ridge, static_argnames="form")


@pytest.mark.parametrize("form", ["primal", "dual"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_normal_equations_and_scikit_learn(x64, form, is_weighted):
    w = WEIGHTS if is_weighted else np.ones(12)
    fitted = quick(XS, YS, 0.7, weights=w, form=form)
    # The normal equations with the intercept as one more feature, which is not penalised.
    inputs = np.c_[XS, np.ones(12)]
    penalty = 0.7 * np.diag(np.r_[np.ones(18), 0])
    expected = np.linalg.solve(inputs.T @ (w[:, None] * inputs) + penalty, inputs.T @ (w[:, None] * YS))
    np.testing.assert_allclose(fitted.weights, expected[:-1], atol=1e-11)
    np.testing.assert_allclose(fitted.intercept, expected[-1], atol=1e-11)
    other = Ridge(alpha=0.7, solver="cholesky").fit(XS, YS, sample_weight=w)
    np.testing.assert_allclose(fitted.weights, other.coef_.T, atol=1e-11)
    np.testing.assert_allclose(fitted.intercept, other.intercept_, atol=1e-11)
    np.testing.assert_allclose(fitted(jnp.asarray(XS)), other.predict(XS), atol=1e-11)


def test_primal_is_dual_for_more_samples_too(x64):
    tall, targets = XS.T, RNG.normal(size=(18, 3))
    primal, dual = (quick(tall, targets, 1e-2, form=form) for form in ("primal", "dual"))
    np.testing.assert_allclose(primal.weights, dual.weights, atol=1e-10)
    np.testing.assert_allclose(primal.intercept, dual.intercept, atol=1e-10)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_weight_zero_leaves_a_sample_out(x64, form):
    w = WEIGHTS.copy()
    w[[2, 7]] = 0
    kept = w > 0
    fitted = quick(XS, YS, 0.7, weights=w, form=form)
    alone = quick(XS[kept], YS[kept], 0.7, weights=w[kept], form=form)
    np.testing.assert_allclose(fitted.weights, alone.weights, atol=1e-13)
    # Whatever the sample says, not a bit of the answer changes.
    xs, ys = XS.copy(), YS.copy()
    xs[[2, 7]], ys[[2, 7]] = 1e6, -1e6
    wild = quick(xs, ys, 0.7, weights=w, form=form)
    np.testing.assert_array_equal(fitted.weights, wild.weights)
    np.testing.assert_array_equal(fitted.intercept, wild.intercept)


def test_weight_two_is_a_sample_twice(x64):
    w = np.ones(12)
    w[3] = 2
    twice = quick(np.r_[XS, XS[3:4]], np.r_[YS, YS[3:4]], 0.7)
    np.testing.assert_allclose(quick(XS, YS, 0.7, weights=w, form="dual").weights, twice.weights, atol=1e-11)


@pytest.mark.parametrize("form", ["primal", "dual"])
def test_gradients_against_finite_differences(x64, form):
    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1))
    def loss(strength, direction):
        fitted = ridge(XS + direction, YS, strength, form=form)
        return jnp.sum(fitted.weights**2) + jnp.sum(jnp.sin(fitted.intercept))

    zero, away, step = np.zeros_like(XS), RNG.normal(size=XS.shape), 1e-5
    by_strength, by_data = loss(0.7, zero)[1]
    numeric = (loss(0.7 + step, zero)[0] - loss(0.7 - step, zero)[0]) / (2 * step)
    np.testing.assert_allclose(by_strength, numeric, rtol=1e-7)
    numeric = (loss(0.7, step * away)[0] - loss(0.7, -step * away)[0]) / (2 * step)
    np.testing.assert_allclose(np.sum(by_data * away), numeric, rtol=1e-6)


def test_vmap_over_strengths_is_the_loop_and_shrinks():
    strengths = jnp.array([0.1, 1.0, 10.0], jnp.float32)
    xs, ys = np.float32(XS), np.float32(YS)
    fitted = jax.jit(jax.vmap(lambda s: ridge(xs, ys, s)))(strengths)
    assert fitted.weights.dtype == jnp.float32
    for weights, strength in zip(fitted.weights, strengths, strict=True):
        np.testing.assert_allclose(weights, quick(xs, ys, strength).weights, atol=2e-6)
    assert np.all(np.diff(np.linalg.norm(fitted.weights, axis=(1, 2))) < 0)
