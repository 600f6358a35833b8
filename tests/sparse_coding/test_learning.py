"""Dictionary learning: the gradient, what it converges to, and the upkeep of the atoms."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import lasso

from neurojax.convergence import Status
from neurojax.penalties import L1, Log, SmoothL1
from neurojax.sparse_coding import (
    FISTA,
    AtomUsage,
    Dictionary,
    DictionaryUpkeep,
    Gradient,
    SparseCodingObjective,
    encode_batch,
)
from neurojax.training import fit

KEY = jax.random.key(0)
STRENGTH = 0.1


@eqx.filter_jit
def loss_and_gradient(objective, atoms, xs):
    """Return loss, metrics, gradient by the atoms, and the count of an atom that was unused for 5 steps."""
    usage = AtomUsage(jnp.full(len(atoms), 5, jnp.int32))

    def loss(dictionary):
        value, (usage_after, metrics) = objective(dictionary, usage, xs, KEY)
        return value, (metrics, usage_after.n_unused_steps)

    (value, (metrics, n_unused_steps)), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(
        Dictionary(atoms)
    )
    return value, metrics, gradient.atoms, n_unused_steps


# One objective and one precision for most of the tests: what they share is compiled once.
OBJECTIVE = SparseCodingObjective(L1(STRENGTH), tol=1e-13, max_steps=20000)


def test_loss_and_gradient_are_the_docstring_formulas(small, x64):
    atoms, xs = small
    loss, metrics, gradient, _ = loss_and_gradient(OBJECTIVE, atoms, xs)
    codes = np.array([lasso(atoms, x, STRENGTH) for x in xs])
    error = xs - codes @ atoms
    np.testing.assert_allclose(loss, np.mean(0.5 * np.sum(error**2, 1) + STRENGTH * np.abs(codes).sum(1)))
    np.testing.assert_allclose(gradient, -codes.T @ error / len(xs), atol=1e-6)
    np.testing.assert_allclose(metrics["squared_error"], np.mean(np.sum(error**2, 1)), rtol=1e-5)
    np.testing.assert_allclose(metrics["explained_energy"], 1 - np.sum(error**2) / np.sum(xs**2), rtol=1e-5)
    np.testing.assert_allclose(metrics["n_active"], np.mean(np.sum(codes != 0, 1)))
    assert metrics["converged"] == 1 and metrics["worst_residual"] <= 1e-13


def test_samples_that_do_not_converge_teach_nothing(small, x64):
    atoms, xs = small
    is_third = np.arange(8)[:, None] == 3
    loss, metrics, gradient, _ = loss_and_gradient(OBJECTIVE, atoms, np.where(is_third, np.nan, xs))
    all_loss, _, all_samples, _ = loss_and_gradient(OBJECTIVE, atoms, xs)
    third_loss, _, third_sample, _ = loss_and_gradient(OBJECTIVE, atoms, np.where(is_third, xs, np.nan))
    np.testing.assert_allclose(loss, (8 * all_loss - third_loss) / 7)
    np.testing.assert_allclose(gradient, (8 * all_samples - third_sample) / 7, atol=1e-12)
    assert metrics["converged"] == 7 / 8 and all(np.isfinite(value) for value in metrics.values())


def test_a_penalty_without_a_value_teaches_by_the_squared_error(small, x64):
    atoms, xs = small
    objective = SparseCodingObjective(Log(0.02), max_steps=5000)

    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def judged(atoms):
        loss, metrics, coded = objective.judge(Dictionary(atoms), jnp.asarray(xs))
        return loss, (metrics, coded.codes)

    (loss, (metrics, codes)), gradient = judged(atoms)
    assert metrics["converged"] == 1
    error = xs - codes @ atoms
    np.testing.assert_allclose(loss, 0.5 * np.mean(np.sum(error**2, 1)))
    np.testing.assert_allclose(gradient, -codes.T @ error / len(xs), atol=1e-9)


def test_unfinished_samples_add_nothing_to_the_loss_of_a_penalty_that_is_positive_at_zero(small):
    atoms, xs = (a.astype(np.float32) for a in small)
    objective = SparseCodingObjective(SmoothL1(0.1, 1.0), Gradient(optax.sgd(0.1)), tol=1e-3)
    is_first = np.arange(8)[:, None] == 0
    variants = np.where(is_first, np.nan, xs), xs, np.where(is_first, xs, np.nan)
    broken, whole, only_first = (loss_and_gradient(objective, atoms, x)[0] for x in variants)
    np.testing.assert_allclose(broken, (8 * whole - only_first) / 7, rtol=1e-5)


def test_a_batch_that_never_converges_looks_like_nothing_learned(small):
    atoms, xs = (a.astype(np.float32) for a in small)
    objective = SparseCodingObjective(L1(0.01), FISTA(), max_steps=2)
    _, metrics, _, n_unused_steps = loss_and_gradient(objective, atoms, xs)
    assert metrics["converged"] == 0 and metrics["explained_energy"] == 0
    assert np.mean(np.asarray(n_unused_steps) == 0) > 0.9  # the unfinished codes did use them


def unit_atoms(rng, n_atoms, n_features):
    atoms = rng.normal(size=(n_atoms, n_features))
    return Dictionary((atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32))


def test_learning_finds_the_atoms_that_made_the_data():
    rng = np.random.default_rng(1)
    true = np.asarray(unit_atoms(rng, 12, 16).atoms)
    data = ((rng.random((2000, 12)) < 0.12) * rng.laplace(size=(2000, 12))).astype(np.float32) @ true
    result = fit(
        unit_atoms(rng, 12, 16),
        SparseCodingObjective(L1(0.05), FISTA(), tol=1e-3),
        data,
        optimizer=optax.adam(0.03),
        n_steps=400,
        batch_size=100,
        key=KEY,
        after_update=DictionaryUpkeep(),
    )
    atoms = np.asarray(result.model.atoms)
    np.testing.assert_allclose(np.linalg.norm(atoms, axis=1), 1, rtol=1e-5)
    overlap = np.abs(atoms @ true.T)
    assert np.sum(overlap.max(axis=0) > 0.97) >= 10


def test_usage_counts_the_steps_since_an_atom_was_used(small, x64):
    atoms, xs = small
    few = xs[:2].repeat(4, axis=0)
    n_unused_steps = loss_and_gradient(OBJECTIVE, atoms, few)[3]
    used = np.any([lasso(atoms, x, STRENGTH) != 0 for x in few], axis=0)
    assert 0 < used.sum() < 30
    np.testing.assert_array_equal(n_unused_steps, np.where(used, 0, 6))


def test_unused_atoms_become_the_worst_explained_data_with_fresh_optimiser_rows(small, x64):
    atoms, xs = small
    optimizer = optax.adagrad(0.1)
    objective = SparseCodingObjective(L1(STRENGTH), FISTA(), tol=1e-10)
    upkeep = eqx.filter_jit(DictionaryUpkeep(objective, optimizer, replace_after=7))
    dictionary = Dictionary(atoms)
    fresh = optimizer.init(dictionary)
    opt_state = jax.tree.map(lambda leaf: np.asarray(leaf) + 5, fresh)
    is_dead = np.isin(np.arange(30), [4, 20])
    batch = np.where(np.arange(8)[:, None] == 0, 0, xs)
    model, new_state, new_usage = upkeep(
        dictionary, opt_state, AtomUsage(np.where(is_dead, 7, 0).astype(np.int32)), batch, KEY
    )
    codes = np.array([lasso(atoms, x, STRENGTH) for x in batch])
    worst = np.argsort(-np.sum((batch - codes @ atoms) ** 2, axis=1))
    expected = atoms.copy()
    for atom, row in zip([4, 20], worst, strict=False):
        expected[atom] = batch[row] / np.linalg.norm(batch[row])
    np.testing.assert_allclose(model.atoms, expected, atol=1e-6)
    assert not np.any(new_usage.n_unused_steps)
    rows = [leaf for leaf in jax.tree.leaves(new_state) if leaf.ndim == 2]
    fresh_rows = [leaf for leaf in jax.tree.leaves(fresh) if leaf.ndim == 2]
    assert rows
    for leaf, start in zip(rows, fresh_rows, strict=True):
        np.testing.assert_array_equal(leaf[is_dead], start[is_dead])
        np.testing.assert_array_equal(leaf[~is_dead], np.asarray(start)[~is_dead] + 5)

    usage = AtomUsage(np.zeros(30, np.int32))
    untouched, same_state, _ = upkeep(dictionary, opt_state, usage, batch, KEY)
    np.testing.assert_allclose(untouched.atoms, atoms, atol=1e-6)
    assert eqx.tree_equal(jax.device_get(same_state), opt_state)


@pytest.mark.slow
def test_replaced_atoms_come_alive():
    """Atoms at right angles to all data stay dead for ever unless they are replaced."""
    rng = np.random.default_rng(0)
    data = np.zeros((200, 16), np.float32)
    data[:, :8] = rng.laplace(size=(200, 8)) @ rng.normal(size=(8, 8))
    start = np.concatenate([np.eye(16)[:6, :], np.eye(16)[8:12]]).astype(np.float32)
    objective, optimizer = SparseCodingObjective(L1(0.5), tol=1e-3), optax.adam(0.01)

    def dead(replace_after):
        dictionary = Dictionary(start)
        model = fit(
            dictionary,
            objective,
            data,
            optimizer=optimizer,
            n_steps=60,
            batch_size=50,
            key=KEY,
            state=AtomUsage.init(dictionary),
            after_update=DictionaryUpkeep(objective, optimizer, replace_after),
        ).model
        codes = encode_batch(model, data, L1(0.5), tol=1e-3)
        assert np.all(codes.status == Status.converged)
        return int(np.sum(~np.any(codes.value != 0, axis=0)))

    assert dead(None) == 4 and dead(10) == 0


def test_bad_upkeep_is_named(small, untyped):
    objective = SparseCodingObjective(L1(0.1))
    with pytest.raises(ValueError, match="replace_after: expected a whole number ≥ 1, got 0"):
        DictionaryUpkeep(objective, optax.sgd(0.1), replace_after=0)
    with pytest.raises(ValueError, match="replace_after: expected objective and optimizer beside it"):
        DictionaryUpkeep(replace_after=5)
    upkeep = DictionaryUpkeep(objective, optax.sgd(0.1), replace_after=5)
    with pytest.raises(ValueError, match="state: expected AtomUsage for replace_after, got NoneType"):
        upkeep(Dictionary(small[0]), None, None, small[1], KEY)
