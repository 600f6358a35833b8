"""Standard errors of fits against closed forms in NumPy, and against the spread over redrawn data."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from neurojax import penalties
from neurojax.convergence import Status
from neurojax.neural_coding import (
    Smoothness,
    fit_multinomial,
    fit_poisson,
    fit_von_mises,
    multinomial_standard_errors,
    poisson_standard_errors,
    von_mises_standard_errors,
)

RNG = np.random.default_rng(0)
XS = RNG.normal(2, 1, (80, 4)) * [1, 1, 0.1, 1]
COUNTS = RNG.poisson(np.exp(0.3 * XS[:, 0] - 0.4 * XS[:, 1] + 0.3)).astype(float)
INPUTS = np.c_[XS, np.ones(80)]
CLASSES = (XS[:, :3] @ RNG.normal(size=(3, 3)) + 2 * RNG.gumbel(size=(80, 3))).argmax(1)
ANGLES = np.arange(0, 360, 15.0)
TUNING = 100.0, 2.0, 1.0, 3.0  # preferred angle, concentration, baseline, amplitude


@partial(jax.jit, static_argnames=("nonlinearity",))
def neuron(xs, counts, penalty=None, smoothness=None, nonlinearity: Any = "exp"):
    fit = fit_poisson(xs, counts, penalty, smoothness=smoothness, nonlinearity=nonlinearity)
    return fit, poisson_standard_errors(fit, xs, counts, penalty, smoothness=smoothness)


@jax.jit
def classified(xs, classes, penalty, weights):
    fit = fit_multinomial(xs, classes, 3, penalty, weights=weights, tol=1e-6, max_steps=30_000)
    return fit, multinomial_standard_errors(fit, xs, classes, 3, penalty, weights=weights)


@jax.jit
def tuned(curve):
    fit = fit_von_mises(curve, ANGLES, tol=1e-5)
    return fit, von_mises_standard_errors(fit, curve, ANGLES)


def information(fit, nonlinearity, xs=XS, counts=COUNTS):
    """The observed information of weights and bias, summed over samples, in NumPy."""
    inputs = np.c_[xs, np.ones(len(xs))]
    u = inputs @ np.append(fit.model.weights, fit.model.bias).astype(float)
    if nonlinearity == "exp":
        bends = np.exp(u)
    else:  # −∂² (y ln softplus − softplus)/∂u², by its parts
        rate, on = np.logaddexp(0, u), expit(u)
        bends = on * (1 - on) * (1 - counts / rate) + counts * (on / rate) ** 2
    return inputs.T @ (bends[:, None] * inputs)


def roots(covariance):
    return np.sqrt(np.diag(covariance))


@pytest.mark.parametrize("nonlinearity", ["exp", "softplus"])
def test_poisson_errors_are_the_inverse_information(x64, nonlinearity):
    fit, errors = neuron(XS, COUNTS, nonlinearity=nonlinearity)
    expected = roots(np.linalg.inv(information(fit, nonlinearity)))
    np.testing.assert_allclose(np.append(errors.weights, errors.bias), expected, rtol=1e-8)


def test_poisson_errors_in_float32():
    fit, errors = neuron(np.float32(XS), np.float32(COUNTS))
    expected = roots(np.linalg.inv(information(fit, "exp")))
    assert errors.weights.dtype == jnp.float32
    np.testing.assert_allclose(np.append(errors.weights, errors.bias), expected, rtol=1e-4)


def test_penalties_and_smoothness_add_their_curvature(x64):
    prior = Smoothness(0.05, (2, 2))
    fit, errors = neuron(XS, COUNTS, penalties.ElasticNet(0.0, 0.02), prior)
    laplacian = np.array([[2.0, -1, -1, 0], [-1, 2, 0, -1], [-1, 0, 2, -1], [0, -1, -1, 2]])
    curvature = np.zeros((5, 5))
    curvature[:4, :4] = 80 * (0.02 * np.eye(4) + 0.05 * laplacian @ laplacian)
    expected = roots(np.linalg.inv(information(fit, "exp") + curvature))
    np.testing.assert_allclose(np.append(errors.weights, errors.bias), expected, rtol=1e-8)


def test_lasso_errors_are_conditional_on_the_support(x64):
    fit, errors = neuron(XS, COUNTS, penalties.L1(0.08))
    kept = np.append(np.asarray(fit.model.weights) != 0, True)
    assert 1 < kept.sum() < 5
    expected = np.full(5, np.nan)
    expected[kept] = roots(np.linalg.inv(information(fit, "exp")[np.ix_(kept, kept)]))
    np.testing.assert_allclose(np.append(errors.weights, errors.bias), expected, rtol=1e-8)


def test_what_is_not_determined_and_fits_without_an_optimum(x64):
    twice = XS[:, [0, 1, 1, 3]]
    fit, errors = neuron(twice, COUNTS)
    alone = XS[:, [0, 1, 3]]
    total = np.asarray(fit.model.weights) @ np.eye(3)[[0, 1, 1, 2]]
    inputs = np.c_[alone, np.ones(80)]
    bends = np.exp(inputs @ np.append(total, fit.model.bias))
    expected = roots(np.linalg.inv(inputs.T @ (bends[:, None] * inputs)))
    np.testing.assert_allclose(errors.weights, [expected[0], np.nan, np.nan, expected[2]], rtol=1e-6)
    np.testing.assert_allclose(errors.bias, expected[3], rtol=1e-6)
    silent = np.where(XS[:, 0] > 2, 0.0, 1 + COUNTS)
    for counts in (np.zeros(80), silent):
        xs = np.c_[XS[:, 0] > 2, XS[:, 1:]] * 1.0
        fit, errors = neuron(xs, counts)
        assert fit.status != Status.converged
        assert np.isnan(errors.weights).all() and np.isnan(errors.bias)


def multinomial_information(value, weights):
    """Σ w x xᵀ ⊗ (diag p − p pᵀ) in NumPy."""
    p = softmax(INPUTS @ np.asarray(value, float), axis=1)
    blocks = [np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(INPUTS, p, strict=True)]
    return np.tensordot(weights, blocks, 1)


@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_multinomial_errors_are_those_of_deviations_from_the_mean_over_classes(x64, l2):
    weights = RNG.uniform(0.5, 1.5, 80)
    fit, errors = classified(XS, CLASSES, penalties.ElasticNet(0.0, l2), weights)
    assert fit.status == Status.converged
    hessian = multinomial_information(fit.value, weights)
    hessian += weights.sum() * l2 * np.kron(np.diag([1.0, 1, 1, 1, 0]), np.eye(3))
    centre = np.kron(np.eye(5), np.eye(3) - 1 / 3)
    expected = roots(np.linalg.pinv(centre @ hessian @ centre, hermitian=True, rcond=1e-12)).reshape(5, 3)
    np.testing.assert_allclose(errors, expected, rtol=1e-6)
    np.testing.assert_allclose(np.sum(fit.value, axis=1), 0, atol=1e-8)


def test_two_classes_are_logistic_regression(x64):
    """The difference of the two classes has twice the error of either, and a closed form of its own."""
    classes = np.minimum(CLASSES, 1)
    fit, errors = classified(XS, classes, penalties.L1(0.0), np.ones(80))
    p = expit(INPUTS @ np.asarray(fit.value[:, 1] - fit.value[:, 0]))
    expected = roots(np.linalg.inv(INPUTS.T @ ((p * (1 - p))[:, None] * INPUTS)))
    np.testing.assert_allclose(2 * errors[:, :2], np.stack([expected, expected], 1), rtol=1e-6)
    assert np.isnan(errors[:, 2]).all()  # no sample has this class


def test_multinomial_lasso_errors_are_conditional_on_the_support(x64):
    fit, errors = classified(XS, CLASSES, penalties.L1(0.03), np.ones(80))
    kept = np.asarray(fit.value).ravel() != 0
    kept[-3:] = True
    assert 4 < kept.sum() < 13
    whole = kept.reshape(5, 3).all(1)
    centre = np.kron(np.diag(whole), np.eye(3) - 1 / 3) + np.kron(np.diag(~whole), np.eye(3))
    hessian = multinomial_information(fit.value, np.ones(80)) * np.outer(kept, kept)
    expected = roots(np.linalg.pinv(centre @ hessian @ centre, hermitian=True, rcond=1e-12))
    np.testing.assert_allclose(np.ravel(errors), np.where(kept, expected, np.nan), rtol=1e-6)


def test_von_mises_errors_are_those_of_least_squares(x64):
    curve = clean_curve() + 0.2 * RNG.normal(size=24)
    fit, errors = tuned(curve)
    found = np.array(jax.tree.leaves(fit.tuning))[:4]

    def of(p):
        return p[2] + p[3] * np.exp(p[1] * (np.cos(np.deg2rad(ANGLES - p[0])) - 1))

    jacobian = np.stack([(of(found + d) - of(found - d)) / 2e-5 for d in 1e-5 * np.eye(4)], 1)
    noise = np.sum((curve - of(found)) ** 2) / 20
    expected = roots(noise * np.linalg.inv(jacobian.T @ jacobian))
    np.testing.assert_allclose(jax.tree.leaves(errors), np.append(expected, np.nan), rtol=1e-6)
    # A curve of another unit has errors in that unit.
    fit, of_other = tuned(1e9 * curve)
    np.testing.assert_allclose(jax.tree.leaves(of_other)[2:4], 1e9 * expected[2:], rtol=1e-4)
    for bad in (np.ones(24), np.full(24, np.nan)):
        assert np.isnan(jax.tree.leaves(tuned(bad)[1])[:2]).all()


def clean_curve():
    preferred, concentration, baseline, amplitude = TUNING
    return baseline + amplitude * np.exp(concentration * (np.cos(np.deg2rad(ANGLES - preferred)) - 1))


def coverage(estimates, errors, truth):
    """The share of estimates that lie within 1.96 errors of the truth."""
    return np.mean(np.abs(np.asarray(estimates) - truth) < 1.96 * np.asarray(errors), axis=0)


@pytest.mark.slow
def test_coverage_of_poisson_errors():
    xs = RNG.normal(size=(400, 4)).astype(np.float32)
    truth, bias = np.array([0.5, -0.3, 0.0, 0.2]), 0.2
    counts = RNG.poisson(np.exp(xs @ truth + bias), (1500, 400)).astype(np.float32)
    fits, errors = jax.jit(jax.vmap(lambda y: neuron(xs, y)))(counts)
    covered = np.append(
        coverage(fits.model.weights, errors.weights, truth), coverage(fits.model.bias, errors.bias, bias)
    )
    assert np.all((covered > 0.92) & (covered < 0.98)) and abs(covered.mean() - 0.95) < 0.01


@pytest.mark.slow
def test_coverage_of_ridge_errors_over_the_prior():
    """Truths drawn from the prior that the penalty is: intervals cover them as often as they say."""
    xs = RNG.normal(size=(200, 4)).astype(np.float32)
    truths = RNG.normal(0, 0.3, (1500, 4))
    counts = RNG.poisson(np.exp(xs @ truths.T + 0.2).T).astype(np.float32)
    penalty = penalties.ElasticNet(0.0, 1 / (200 * 0.3**2))
    fits, errors = jax.jit(jax.vmap(lambda y: neuron(xs, y, penalty)))(counts)
    covered = coverage(fits.model.weights, errors.weights, truths)
    assert np.all((covered > 0.92) & (covered < 0.98))


@pytest.mark.slow
def test_coverage_of_multinomial_errors():
    xs = RNG.normal(size=(400, 2)).astype(np.float32)
    truth = np.array([[0.6, -0.6, 0.0], [-0.3, 0.1, 0.2], [0.2, 0.0, -0.2]])
    scores = np.c_[xs, np.ones(400)] @ truth
    classes = (scores + RNG.gumbel(size=(800, 400, 3))).argmax(-1)
    penalty, ones = penalties.L1(0.0), np.ones(400, np.float32)
    fits, errors = jax.jit(jax.vmap(lambda k: classified(xs, k, penalty, ones)))(classes)
    covered = coverage(fits.value, errors, truth)
    assert np.all((covered > 0.92) & (covered < 0.98)) and abs(covered.mean() - 0.95) < 0.012


@pytest.mark.slow
def test_coverage_of_von_mises_errors():
    curves = (clean_curve() + 0.2 * RNG.normal(size=(1500, 24))).astype(np.float32)
    fits, errors = jax.jit(jax.vmap(tuned))(curves)
    found = np.stack(jax.tree.leaves(fits.tuning)[:4], 1)
    covered = coverage(found, np.stack(jax.tree.leaves(errors)[:4], 1), TUNING)
    # 20 degrees of freedom: Student's t would widen the normal interval by 6 %.
    assert np.all((covered > 0.92) & (covered < 0.98))
