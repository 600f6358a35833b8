"""Multinomial regression against scikit-learn, its optimality conditions and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from neurojax.convergence import Implicit, Status
from neurojax.neural_coding import AngleBins, MultinomialDecoder, fit_multinomial
from neurojax.penalties import L1, ElasticNet, GroupL2

N_CLASSES = 4
RNG = np.random.default_rng(0)
CENTRES = RNG.normal(size=(N_CLASSES, 5))
CLASSES = np.arange(60) % N_CLASSES
XS = CENTRES[CLASSES] + RNG.normal(size=(60, 5)) + 0.5
WEIGHTS = RNG.uniform(0.2, 2, 60)

quick = jax.jit(
    partial(fit_multinomial, tol=1e-10, max_steps=20_000),
    static_argnames=("n_classes", "gradient"),
)


@jax.jit
def fit_decoder(penalty, weights):
    """Fit a decoder of four orientations to responses that are not standardised."""
    decoder = MultinomialDecoder(AngleBins(4, 180, -22.5), penalty, tol=1e-9)
    return decoder.fit(10 * XS + 3, 45.0 * CLASSES, weights=weights)


@jax.jit
def decode(fitted):
    xs = 10 * XS + 3
    return jax.vmap(fitted.log_probabilities)(xs), jax.vmap(fitted.predict)(xs)


def slopes(value, weights=None, n_classes=N_CLASSES):
    """Return the gradient of the mean loss by (weights, intercept), restated in NumPy."""
    weights = np.ones(60) if weights is None else weights
    inputs = np.c_[XS, np.ones(60)]
    error = softmax(inputs @ np.asarray(value), axis=1) - np.eye(n_classes)[CLASSES]
    gradient = inputs.T @ (weights[:, None] * error) / weights.sum()
    return gradient[:-1], gradient[-1]


@pytest.mark.parametrize("weights, l2", [(None, 0.01), (WEIGHTS, 0.3)], ids=["equal", "weighted"])
def test_l2_is_scikit_learn(x64, weights, l2):
    total = 60 if weights is None else weights.sum()
    w = np.ones(60) if weights is None else weights
    solution = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=ElasticNet(0.0, l2), weights=w)
    other = LogisticRegression(C=1 / (l2 * total), tol=1e-12, max_iter=10_000)
    other.fit(XS, CLASSES, sample_weight=weights)
    assert solution.status == Status.converged
    np.testing.assert_allclose(solution.value[:-1], other.coef_.T, atol=1e-6)
    # Intercepts are determined up to what is common to all.
    intercept = np.asarray(solution.value[-1])
    np.testing.assert_allclose(
        intercept - intercept.mean(), other.intercept_ - other.intercept_.mean(), atol=1e-6
    )
    found = softmax(np.c_[XS, np.ones(60)] @ np.asarray(solution.value), axis=1)
    np.testing.assert_allclose(found, other.predict_proba(XS), atol=1e-6)
    of_weights, of_intercept = slopes(solution.value, w)
    # The intercept's slope is 0 without a term for it: it is not penalised.
    assert np.abs(of_weights + l2 * np.asarray(solution.value[:-1])).max() < 1e-8
    assert np.abs(of_intercept).max() < 1e-8 and np.abs(intercept).max() > 0.05


@pytest.mark.parametrize("l1, l2", [(0.05, 0.0), (0.03, 0.05)])
def test_subgradient_conditions_of_l1_and_of_the_elastic_net(x64, l1, l2):
    solution = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=ElasticNet(l1, l2), weights=WEIGHTS)
    weights = np.asarray(solution.value[:-1])
    of_weights, of_intercept = slopes(solution.value, WEIGHTS)
    is_zero = weights == 0
    assert 3 < is_zero.sum() < is_zero.size - 3
    smooth = of_weights + l2 * weights
    assert np.abs(smooth[is_zero]).max() <= l1 + 1e-8
    np.testing.assert_allclose(smooth[~is_zero], -l1 * np.sign(weights[~is_zero]), atol=1e-8)
    assert np.abs(of_intercept).max() < 1e-8


def test_l1_is_the_elastic_net_without_squares(x64):
    pair = [
        quick(XS, CLASSES, n_classes=N_CLASSES, penalty=penalty, weights=WEIGHTS).value
        for penalty in (L1(0.05), ElasticNet(0.05, 0.0))
    ]
    np.testing.assert_allclose(*pair, atol=1e-7)


def test_groups_drop_whole_neurons(x64):
    strength = 0.12
    penalty = GroupL2(strength, group_size=N_CLASSES)
    solution = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=penalty, weights=np.ones(60))
    weights = np.asarray(solution.value[:-1])
    length = np.linalg.norm(weights, axis=1)
    assert 1 <= np.sum(length == 0) <= 4 and np.all((weights == 0).all(1) == (weights == 0).any(1))
    of_weights, of_intercept = slopes(solution.value)
    assert np.linalg.norm(of_weights[length == 0], axis=1).max() <= strength + 1e-8
    kept = length > 0
    np.testing.assert_allclose(of_weights[kept], -strength * weights[kept] / length[kept, None], atol=1e-8)
    assert np.abs(of_intercept).max() < 1e-8


def test_a_class_without_samples_is_as_if_it_did_not_exist(x64):
    w = 1.0 * (CLASSES != 1)
    found = np.asarray(quick(XS, CLASSES, n_classes=4, penalty=ElasticNet(0.0, 0.05), weights=w).value)
    other = LogisticRegression(C=1 / (0.05 * w.sum()), tol=1e-12, max_iter=10_000)
    other.fit(XS[CLASSES != 1], CLASSES[CLASSES != 1])
    np.testing.assert_array_equal(found[:, 1], 0)
    np.testing.assert_allclose(found[:-1, [0, 2, 3]], other.coef_.T, atol=1e-6)
    fitted = fit_decoder(ElasticNet(0.0, 0.05), w)
    log_probabilities = np.asarray(decode(fitted)[0])
    assert np.all(log_probabilities[:, 1] == -np.inf) and np.all(np.isfinite(log_probabilities[:, [0, 2, 3]]))
    np.testing.assert_allclose(np.exp(log_probabilities).sum(1), 1, rtol=1e-12)


def test_weight_zero_leaves_a_sample_out_and_two_is_twice(x64):
    w = np.ones(60)
    w[:5], w[7] = 0, 2
    penalty = ElasticNet(0.0, 0.05)
    found = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=penalty, weights=w).value
    rows = np.r_[5:60, 7]
    rows = np.r_[rows, np.full(4, -1)]
    padded = np.where(rows[:, None] < 0, 1e3, XS[rows])
    other = quick(
        padded, CLASSES[rows], n_classes=N_CLASSES, penalty=penalty, weights=1.0 * (rows >= 0)
    ).value
    np.testing.assert_allclose(found, other, atol=1e-7)


def test_implicit_gradient_and_vmap_over_strengths(x64):
    is_kept, held = 1.0 * (np.arange(60) < 40), np.arange(40, 60)

    def loss_of_others(l2):
        penalty = ElasticNet(0.0, l2)
        solution = fit_multinomial(
            XS, CLASSES, N_CLASSES, penalty, weights=is_kept, tol=1e-12, gradient=Implicit()
        )
        scores = XS[held] @ solution.value[:-1] + solution.value[-1]
        return -jnp.mean(jax.nn.log_softmax(scores)[np.arange(20), CLASSES[held]]), solution.value

    step, strengths = 1e-4, np.array([0.01, 0.05 - 1e-4, 0.05, 0.05 + 1e-4, 0.5])
    (losses, values), slopes = jax.jit(jax.vmap(jax.value_and_grad(loss_of_others, has_aux=True)))(strengths)
    np.testing.assert_allclose(slopes[2], (losses[3] - losses[1]) / (2 * step), rtol=1e-5)
    for strength, value in zip(strengths, values, strict=True):
        penalty = ElasticNet(0.0, strength)
        alone = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=penalty, weights=is_kept).value
        np.testing.assert_allclose(value, alone, atol=1e-7)


def test_both_precisions_agree_and_the_fit_tells_how_it_ended():
    penalty = ElasticNet(0.0, 0.05)
    fit = jax.jit(partial(fit_multinomial, n_classes=N_CLASSES, tol=2e-6))  # a movement is not an error
    small = fit(np.float32(XS), CLASSES, penalty=penalty)
    with jax.enable_x64(True):
        large = quick(XS, CLASSES, n_classes=N_CLASSES, penalty=penalty, weights=np.ones(60)).value
    assert small.value.dtype == jnp.float32 and small.status == Status.converged
    assert 1 < small.n_steps < 10_000 and small.residual <= 2e-6
    np.testing.assert_allclose(small.value, large, atol=1e-4)


def test_decoder_is_scikit_learn_on_standardised_responses(x64):
    fitted = fit_decoder(ElasticNet(0.0, 0.02), np.ones(60))
    standard = (XS - XS.mean(0)) / XS.std(0)
    other = LogisticRegression(C=1 / (0.02 * 60), tol=1e-12, max_iter=10_000).fit(standard, CLASSES)
    log_probabilities, degrees = decode(fitted)
    found = np.exp(log_probabilities)
    np.testing.assert_allclose(found, other.predict_proba(standard), atol=1e-6)
    np.testing.assert_array_equal(degrees, 45 * other.predict(standard))
    assert fitted.status == Status.converged
