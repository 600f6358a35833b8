"""Weights of the data: missing entries, certificates, derivatives, learning; and a penalty for each row."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import duality_gap, encode, energy

from neurojax import sparse_coding
from neurojax.convergence import Detached, Implicit, Status, Unrolled
from neurojax.penalties import L0, L1
from neurojax.sparse_coding import (
    AtomUsage,
    BlockCoordinateUpdate,
    CoordinateDescent,
    Dictionary,
    DictionaryStatistics,
    DictionaryUpkeep,
    OnlineDictionaryObjective,
    SparseCodingObjective,
    WeightedData,
    encode_batch,
    encode_stream,
)
from neurojax.training import fit

KEY, PENALTY = jax.random.key(0), L1(0.1)


def make(n_rows=6, dtype=np.float32):
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(30, 20))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(dtype)
    xs = rng.normal(size=(n_rows, 20)).astype(dtype)
    is_known = rng.random(xs.shape) < 0.6
    return atoms, xs, is_known


def missing(xs, is_known):
    return np.where(is_known, xs, np.nan), is_known.astype(xs.dtype)


def test_a_masked_fit_is_the_fit_of_the_features_that_remain(x64):
    atoms, xs, is_known = make(4, np.float64)
    rows, weights = missing(xs, is_known)
    batch = encode_batch(Dictionary(atoms), rows, PENALTY, weights=weights, tol=1e-12)
    streamed = encode_stream(Dictionary(atoms), rows, PENALTY, weights=weights, batch_size=3, tol=1e-12)
    pairs = encode_stream(
        Dictionary(atoms), iter(rows), PENALTY, weights=iter(weights), batch_size=3, tol=1e-12
    )
    alone = encode(Dictionary(atoms), rows[0], PENALTY, weights=weights[0], tol=1e-12)
    for i, known in enumerate(is_known):
        expected = encode(Dictionary(atoms[:, known]), xs[i, known], PENALTY, tol=1e-12).value
        for found in (batch.value[i], streamed.value[i], pairs.value[i], *([alone.value] if i == 0 else [])):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.all(batch.status == Status.converged)


def test_energy_and_gap_are_those_of_weighted_squares(x64):
    atoms, xs, _ = make(1, np.float64)
    x, weights = xs[0], np.random.default_rng(1).uniform(0, 3, 20)
    roots = np.sqrt(weights)
    code = 0.3 * np.random.default_rng(2).normal(size=30)
    for function in (energy, duality_gap):
        expected = function(Dictionary(atoms * roots), x * roots, code, PENALTY)
        np.testing.assert_allclose(function(Dictionary(atoms), x, code, PENALTY, weights=weights), expected)
    solution = encode(Dictionary(atoms), x, PENALTY, weights=weights, tol=1e-11)
    gap = duality_gap(Dictionary(atoms), x, solution.value, PENALTY, weights=weights)
    assert 0 <= gap <= 1e-11 * 0.5 * np.sum(weights * x**2)
    np.testing.assert_allclose(solution.residual, gap / (0.5 * np.sum(weights * x**2)), atol=1e-14)


def test_without_weights_there_is_no_code_and_broken_weights_have_a_status():
    atoms, xs, is_known = make()
    weights = is_known.astype(np.float32)
    weights[0], weights[1, 0], xs[2] = 0, np.nan, np.where(is_known[2], xs[2], np.inf)

    @jax.jit
    def codes(weights):
        return encode_batch(Dictionary(jnp.asarray(atoms)), xs, PENALTY, weights=weights)

    found, negative = codes(weights), codes(-weights)
    np.testing.assert_array_equal(found.value[0], 0)
    assert found.status.tolist() == [0, Status.nonfinite, 0, 0, 0, 0]
    negative = jax.jit(lambda w: encode_batch(Dictionary(jnp.asarray(atoms)), xs, PENALTY, weights=w))(
        -weights
    )
    assert np.all(negative.status[3:] == Status.nonfinite)


def test_derivatives_with_weights_are_those_of_finite_differences(x64):
    atoms, xs, is_known = make(3, np.float64)
    rows, weights = missing(xs, is_known)
    rng = np.random.default_rng(3)
    push = {name: rng.normal(size=np.shape(a)) for name, a in (("atoms", atoms), ("x", xs), ("w", weights))}
    seen = rng.normal(size=(3, 30))

    @eqx.filter_jit
    def loss(step, gradient):
        moved = weights + step * push["w"] * is_known
        data, dictionary = rows + step * push["x"], Dictionary(atoms + step * push["atoms"])
        settings = {"weights": moved, "tol": 1e-13, "max_steps": 50_000, "gradient": gradient}
        return jnp.sum(encode_batch(dictionary, data, L1(0.1 + 0.1 * step), **settings).value * seen)

    size = 1e-6
    expected = (loss(size, Detached()) - loss(-size, Detached())) / (2 * size)
    slope = eqx.filter_jit(jax.grad(loss))
    np.testing.assert_allclose(slope(0.0, Implicit()), expected, rtol=1e-5)


def test_a_weight_of_zero_has_the_derivative_of_the_datum_that_is_there(x64):
    atoms, xs, _ = make(1, np.float64)
    weights = np.where(np.arange(20) % 3 == 0, 0.0, 1.0)

    @jax.jit
    def total(weights):
        settings = {"weights": weights, "tol": 1e-13, "max_steps": 50_000}
        return jnp.sum(sparse_coding.encode(Dictionary(atoms), xs[0], L1(0.1), **settings).value)

    slope, size = jax.jit(jax.grad(total))(weights), 1e-5
    for i in (0, 3, 1):
        moved = weights + size * (np.arange(20) == i)
        np.testing.assert_allclose(slope[i], (total(moved) - total(weights)) / size, rtol=1e-3, atol=1e-4)
    by_energy = jax.grad(lambda w: energy(Dictionary(atoms), xs[0], np.zeros(30), L1(0.1), weights=w))
    np.testing.assert_allclose(by_energy(jnp.asarray(weights)), 0.5 * xs[0] ** 2)


@pytest.mark.parametrize("penalty", [L0(0.1), L1(0.0), L1(0.1)], ids=repr)
def test_without_any_weight_the_code_shrinks_and_nothing_breaks(penalty):
    atoms, xs, _ = make(2)
    found = encode(Dictionary(atoms), xs[0], penalty, weights=0 * xs[0], init=np.full(30, 0.2, np.float32))
    assert found.status == Status.converged
    is_free = isinstance(penalty, L1) and penalty.strength == 0
    np.testing.assert_allclose(found.value, 0.2 if is_free else 0, atol=1e-6)


def test_a_broken_weight_leaves_the_other_rows_to_learn_from():
    atoms, xs, _ = make(4)
    weights = np.ones_like(xs)
    objective = SparseCodingObjective(PENALTY, tol=1e-4)
    judge = jax.jit(lambda w: objective(Dictionary(jnp.asarray(atoms)), None, WeightedData(xs, w), KEY)[0])
    others = jax.jit(lambda: objective(Dictionary(jnp.asarray(atoms)), None, xs[1:], KEY)[0])()
    weights[0, 3] = -1
    np.testing.assert_allclose(judge(jnp.asarray(weights)), others, rtol=1e-4)


@pytest.mark.slow
def test_unrolled_derivatives_with_weights_are_finite_and_near(x64):
    atoms, xs, is_known = make(2, np.float64)
    rows, weights = missing(xs, is_known)

    def loss(strength, gradient):
        settings = {"weights": weights, "tol": 1e-12, "max_steps": 2000, "gradient": gradient}
        return jnp.sum(encode_batch(Dictionary(atoms), rows, L1(strength), **settings).value)

    slopes = [jax.jit(jax.grad(lambda s, g=g: loss(s, g)))(0.1) for g in (Unrolled(), Implicit())]
    np.testing.assert_allclose(*slopes, rtol=1e-4)


def test_learning_from_masked_rows_is_learning_from_weighted_squares(x64):
    atoms, xs, is_known = make(5, np.float64)
    rows, weights = missing(xs, is_known)
    weights = 0.5 * weights
    objective = SparseCodingObjective(PENALTY, tol=1e-13)

    @jax.jit
    def loss(atoms, batch):
        return objective(Dictionary(atoms), None, batch, KEY)

    (value, (_, metrics)), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        jnp.asarray(atoms), WeightedData(rows, weights)
    )
    codes = np.asarray(objective.infer(Dictionary(atoms), WeightedData(rows, weights)).value)
    error = weights * np.nan_to_num(codes @ atoms - np.where(is_known, xs, 0))
    squares = np.sum(error * (codes @ atoms - np.where(is_known, xs, 0)))
    total = 0.5 * squares + float(PENALTY.strength) * np.sum(np.abs(codes))
    np.testing.assert_allclose(value, total / 5, rtol=1e-9)
    np.testing.assert_allclose(slope, codes.T @ error / 5, atol=1e-10)
    np.testing.assert_allclose(metrics["squared_error"], squares / 5, rtol=1e-9)
    share = 1 - squares / np.sum(weights * np.where(is_known, xs, 0) ** 2)
    np.testing.assert_allclose(metrics["explained_energy"], share, rtol=1e-9)


def test_dictionaries_are_learned_from_data_with_holes():
    rng = np.random.default_rng(5)
    true = rng.normal(size=(12, 16))
    true = true / np.linalg.norm(true, axis=1, keepdims=True)
    codes = (rng.random((600, 12)) < 0.12) * rng.laplace(size=(600, 12))
    xs = (codes @ true).astype(np.float32)
    is_known = rng.random(xs.shape) < 0.7
    data = WeightedData(*missing(xs, is_known))
    start = (true + 0.25 * rng.normal(size=(12, 16))).astype(np.float32)
    start = Dictionary(start / np.linalg.norm(start, axis=1, keepdims=True))
    assert np.mean(np.max(np.abs(np.asarray(start.atoms) @ true.T), axis=0) > 0.95) == 0
    inference = SparseCodingObjective(L1(0.05), tol=1e-2)
    optimizer = optax.adam(0.05)
    settings = {"n_steps": 150, "batch_size": 100, "key": KEY, "progress": False}
    learned = [
        fit(
            start, inference, data, optimizer=optimizer, state=AtomUsage.init(start), **settings,
            after_update=DictionaryUpkeep(inference, optimizer, replace_after=30),
        ).model,
        fit(
            start, OnlineDictionaryObjective(inference), data, optimizer=optax.set_to_zero(), **settings,
            state=DictionaryStatistics.init(start), after_update=BlockCoordinateUpdate(replace_after=30),
        ).model,
    ]  # fmt: skip
    found = [np.max(np.abs(np.asarray(model.atoms) @ true.T), axis=0) > 0.95 for model in learned]
    # Of the same rows with zeros in their holes Adam finds a third of the atoms, in twice the steps.
    assert np.mean(found[0]) >= 0.9 and np.mean(found[1]) >= 0.5


def test_each_row_may_have_a_penalty_of_its_own():
    atoms, xs, _ = make()
    dictionary = Dictionary(jnp.asarray(atoms))
    strengths = np.geomspace(0.5, 0.05, 6).astype(np.float32)
    swept = encode_batch(dictionary, xs, L1(strengths), penalty_axis=0)
    for i in (0, 3, 5):
        expected = encode(dictionary, xs[i], L1(strengths[i]), tol=1e-6)
        np.testing.assert_allclose(swept.value[i], expected.value, atol=2e-3)
    assert np.all(swept.status == Status.converged)

    def total(strengths):
        return jnp.sum(encode_batch(dictionary, xs, L1(strengths), penalty_axis=0).value ** 2)

    def of_row(strength):
        return jnp.sum(sparse_coding.encode(dictionary, xs[3], L1(strength), tol=1e-6).value ** 2)

    slopes = jax.jit(jax.grad(total))(jnp.asarray(strengths))
    np.testing.assert_allclose(slopes[3], jax.jit(jax.grad(of_row))(strengths[3]), rtol=1e-3)


def test_what_cannot_be_weighted_is_named(untyped):
    atoms, xs, is_known = make()
    dictionary, weights = Dictionary(atoms), is_known.astype(np.float32)
    alone = partial(sparse_coding.encode, dictionary, xs[0], PENALTY)
    batch, stream = partial(encode_batch, dictionary, xs, PENALTY), partial(encode_stream, dictionary)
    cases = [
        (lambda: alone(weights=weights[0][:3]), r"weights: expected .*\(20,\).* got shape"),
        (lambda: alone(weights=-weights[0]), "weights: expected .* ≥ 0"),
        (lambda: batch(weights=-weights), "weights: expected .* ≥ 0"),
        (lambda: encode_batch(dictionary, xs, L1(np.ones((6, 1)))), r"penalty: expected strengths .*\(30,\)"),
        (lambda: batch(weights=weights[:3]), r"weights: expected shape \(6, 20\)"),
        (
            lambda: alone(weights=weights[0], solver=CoordinateDescent()),
            "CoordinateDescent: expected a problem that holds its dictionary's Gram matrix",
        ),
        (lambda: batch(penalty_axis=0), "penalty: expected a leading axis of 6"),
        (lambda: batch(penalty_axis=1), "penalty_axis: expected 0 or None, got 1"),
        (lambda: stream(xs, PENALTY, weights=weights[:3]), "weights: expected an array of the"),
        (
            lambda: stream(iter(xs), PENALTY, weights=iter(weights[:3]), batch_size=2),
            "weights: expected as many as rows",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
