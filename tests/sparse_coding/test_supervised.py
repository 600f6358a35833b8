"""Task-driven dictionary learning: the gradient against its closed form, and what only it can learn."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import encode_rows
from scipy.special import log_softmax, softmax
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import LogisticRegression

from neurojax.penalties import L1, ElasticNet
from neurojax.sparse_coding import (
    FISTA,
    Dictionary,
    SparseClassifier,
    TaskDrivenObjective,
    normalize_classifier,
)
from neurojax.training import fit

KEY = jax.random.key(0)
L1_STRENGTH, L2_STRENGTH, WEIGHT_PENALTY = 0.1, 0.05, 0.02
PENALTY = ElasticNet(L1_STRENGTH, L2_STRENGTH)


# One objective and one precision for most of the tests: what they share is compiled once.
OBJECTIVE = TaskDrivenObjective(PENALTY, WEIGHT_PENALTY, tol=1e-13, max_steps=20_000)


@pytest.fixture
def labelled(small):
    """Atoms, data, labels of three classes, weights and bias, in float64."""
    atoms, xs = small
    rng = np.random.default_rng(1)
    return atoms, xs, rng.integers(0, 3, len(xs)), rng.normal(size=(30, 3)), rng.normal(size=3)


@eqx.filter_jit
def loss_and_gradient(objective, model, xs, labels):
    def loss(model):
        return objective(model, None, (xs, labels), KEY)

    (value, (_, metrics)), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(model)
    return value, metrics, gradient


def closed_form(atoms, xs, labels, weights, bias, codes):
    """Proposition 1 of Mairal, Bach & Ponce 2012, sample by sample: loss, gradients, in NumPy."""
    atoms_gradient, weights_gradient, losses = np.zeros_like(atoms), WEIGHT_PENALTY * weights, []
    for x, label, code in zip(xs, labels, codes, strict=True):
        logits = code @ weights + bias
        losses.append(-log_softmax(logits)[label])
        miss = softmax(logits) - np.eye(3)[label]
        on, beta = code != 0, np.zeros_like(code)
        block = atoms[on] @ atoms[on].T + L2_STRENGTH * np.eye(on.sum())
        beta[on] = np.linalg.solve(block, (weights @ miss)[on])
        atoms_gradient += np.outer(beta, x - code @ atoms) - np.outer(code, beta @ atoms)
        weights_gradient = weights_gradient + np.outer(code, miss) / len(xs)
    loss = np.mean(losses) + 0.5 * WEIGHT_PENALTY * np.sum(weights**2)
    return loss, atoms_gradient / len(xs), weights_gradient


def least(atoms, x):
    """Return scikit-learn's code, its support solved for once more."""
    total = L1_STRENGTH + L2_STRENGTH
    model = SkElasticNet(total / x.size, l1_ratio=L1_STRENGTH / total, fit_intercept=False, tol=1e-14)
    code = model.set_params(max_iter=10**6).fit(atoms.T, x).coef_
    on = code != 0
    system = atoms[on] @ atoms[on].T + L2_STRENGTH * np.eye(np.sum(on))
    code[on] = np.linalg.solve(system, atoms[on] @ x - L1_STRENGTH * np.sign(code[on]))
    return code


def test_loss_and_gradients_are_the_closed_forms(labelled, x64):
    atoms, xs, labels, weights, bias = labelled
    model = SparseClassifier(Dictionary(atoms), weights, bias)
    loss, metrics, gradient = loss_and_gradient(OBJECTIVE, model, xs, labels)
    codes = np.array([least(atoms, x) for x in xs])
    expected = closed_form(atoms, xs, labels, weights, bias, codes)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient.dictionary.atoms, expected[1], atol=1e-6)
    assert np.abs(expected[1]).max() > 0.01
    np.testing.assert_allclose(gradient.weights, expected[2], atol=1e-6)
    logits = codes @ weights + bias
    by_bias = np.mean(softmax(logits, axis=1) - np.eye(3)[labels], axis=0)
    np.testing.assert_allclose(gradient.bias, by_bias, atol=1e-6)
    np.testing.assert_allclose(metrics["error"], np.mean(logits.argmax(axis=1) != labels))
    np.testing.assert_allclose(metrics["n_active"], np.mean(np.sum(codes != 0, axis=1)))
    np.testing.assert_allclose(metrics["cross_entropy"], loss - 0.5 * WEIGHT_PENALTY * np.sum(weights**2))
    assert metrics["converged"] == 1 and 0 < metrics["worst_residual"] <= 1e-13


def test_samples_that_do_not_converge_teach_nothing(labelled, x64):
    atoms, xs, labels, weights, bias = labelled
    model = SparseClassifier(Dictionary(atoms), weights, bias)
    is_third = np.arange(8)[:, None] == 3
    variants = np.where(is_third, np.nan, xs), xs, np.where(is_third, xs, np.nan)
    broken, whole, third = (loss_and_gradient(OBJECTIVE, model, x, labels) for x in variants)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(broken))
    np.testing.assert_allclose(broken[0], (8 * whole[0] - third[0]) / 7)
    # The penalty of the weights is there once, however many samples converge.
    expected = jax.tree.map(lambda a, b: (8 * a - b) / 7, whole[2], third[2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), broken[2], expected)
    assert broken[1]["converged"] == 7 / 8


def test_a_label_that_is_no_class_makes_the_loss_nan(labelled, x64):
    atoms, xs, labels, weights, bias = labelled
    model = SparseClassifier(Dictionary(atoms), weights, bias)
    for label, is_class in [(0, True), (-1, False), (3, False)]:
        loss = loss_and_gradient(OBJECTIVE, model, xs, np.append(label, labels[1:]))[0]
        assert np.isfinite(loss) == is_class, label


@pytest.mark.slow
def test_the_dictionary_learns_what_the_task_needs():
    """Two classes differ in a direction of little variance, which the start's atoms do not see."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 100)
    xs = np.zeros((100, 8), np.float32)
    xs[:, :4] = rng.laplace(size=(100, 4))
    xs[:, 6] = np.where(labels == 1, 0.5, -0.5) + 0.1 * rng.normal(size=100)
    atoms = np.eye(8)[:4] + 0.01 * rng.normal(size=(4, 8))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    start = SparseClassifier(
        Dictionary(atoms.astype(np.float32)), np.zeros((4, 2), np.float32), np.zeros(2, np.float32)
    )
    learned = fit(
        start,
        TaskDrivenObjective(ElasticNet(0.1, 0.1), 1e-4, solver=FISTA()),
        (jnp.asarray(xs), jnp.asarray(labels)),
        optimizer=optax.adam(0.05),
        n_steps=100,
        key=KEY,
        after_update=normalize_classifier,
        progress=False,
    )
    np.testing.assert_allclose(np.linalg.norm(learned.model.dictionary.atoms, axis=1), 1, rtol=1e-5)
    assert learned.history["error"][-1] < 0.02
    # No classifier of the start's codes does as well: they hardly depend on the direction that counts.
    codes = encode_rows(start.dictionary.atoms, xs, ElasticNet(0.1, 0.1)).value
    assert LogisticRegression(C=1e3).fit(codes, labels).score(codes, labels) < 0.7


def test_normalizing_leaves_all_but_the_length_of_atoms(labelled):
    atoms, _, _, weights, bias = (np.asarray(a, np.float32) for a in labelled)
    model = SparseClassifier(Dictionary(3 * atoms), weights, bias)
    normal = normalize_classifier(model, None, None, None, KEY)[0]
    np.testing.assert_allclose(normal.dictionary.atoms, atoms, rtol=1e-5, atol=1e-7)
    assert np.array_equal(normal.weights, weights) and np.array_equal(normal.bias, bias)


def test_what_does_not_fit_is_named(labelled, untyped):
    atoms, xs, labels, weights, bias = (jnp.asarray(a, jnp.float32) for a in labelled)
    labels, dictionary = labels.astype(jnp.int32), Dictionary(atoms)
    model = SparseClassifier(dictionary, weights, bias)
    with pytest.raises(ValueError, match=r"weights: expected 30 atoms of the dictionary on axis 0, got"):
        SparseClassifier(dictionary, weights[1:], bias)
    with pytest.raises(ValueError, match=r"bias: expected 3 classes, .* on axis 0, got shape \(2,\)"):
        SparseClassifier(dictionary, weights, bias[1:])
    assert SparseClassifier(dictionary, weights.astype(jnp.int32), bias).weights.dtype == jnp.float32
    with pytest.raises(ValueError, match="weight_penalty: expected a number ≥ 0, got -1"):
        TaskDrivenObjective(L1(0.1), -1.0)
    objective = TaskDrivenObjective(PENALTY)
    with pytest.raises(ValueError, match="labels: expected 8 labels, one a row of xs, on axis 0, got"):
        objective(model, None, (xs, labels[1:]), KEY)
    with pytest.raises(ValueError, match="labels: expected integers, got dtype float32"):
        objective(model, None, (xs, labels.astype(jnp.float32)), KEY)
