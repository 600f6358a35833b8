"""Dictionary learning: the gradient, what it converges to, and the upkeep of the atoms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax.convergence import Status
from neurojax.penalties import L1, Log, SmoothL1
from neurojax.sparse_coding import (
    AtomUsage,
    Dictionary,
    DictionaryUpkeep,
    Gradient,
    SparseCodingObjective,
    encode_batch,
    random_dictionary,
)
from neurojax.training import fit

KEY = jax.random.key(0)


@eqx.filter_jit
def loss_and_gradient(objective, atoms, xs):
    """Return (loss, metrics), and the gradient by the atoms."""

    def loss(dictionary):
        value, (state, metrics) = objective(dictionary, None, xs, KEY)
        assert state is None
        return value, metrics

    outcome, gradient = eqx.filter_value_and_grad(loss, has_aux=True)(Dictionary(atoms))
    return *outcome, gradient.atoms


def test_loss_and_gradient_are_the_docstring_formulas(small, x64):
    atoms, xs = small
    objective = SparseCodingObjective(L1(0.1), tol=1e-13)
    loss, metrics, gradient = loss_and_gradient(objective, atoms, jnp.asarray(xs))
    codes = np.asarray(encode_batch(Dictionary(atoms), xs, L1(0.1), tol=1e-13).value)
    error = xs - codes @ atoms
    np.testing.assert_allclose(loss, np.mean(0.5 * np.sum(error**2, 1) + 0.1 * np.abs(codes).sum(1)))
    np.testing.assert_allclose(gradient, -codes.T @ error / len(xs), atol=1e-10)
    np.testing.assert_allclose(metrics["squared_error"], np.mean(np.sum(error**2, 1)))
    np.testing.assert_allclose(metrics["explained_variance"], 1 - np.sum(error**2) / np.sum(xs**2))
    np.testing.assert_allclose(metrics["n_active"], np.mean(np.sum(codes != 0, 1)))
    assert metrics["converged"] == 1 and metrics["worst_residual"] <= 1e-13


def test_samples_that_do_not_converge_teach_nothing(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    objective, is_third = SparseCodingObjective(L1(0.1)), jnp.arange(8)[:, None] == 3
    _, metrics, gradient = loss_and_gradient(objective, atoms, jnp.where(is_third, jnp.nan, xs))
    all_samples = loss_and_gradient(objective, atoms, xs)[2]
    third_sample = loss_and_gradient(objective, atoms, jnp.where(is_third, xs, jnp.nan))[2]
    np.testing.assert_allclose(gradient, (8 * all_samples - third_sample) / 7, atol=1e-6)
    assert metrics["converged"] == 7 / 8 and all(np.isfinite(value) for value in metrics.values())


def test_a_penalty_without_a_value_teaches_by_the_squared_error(small, x64):
    atoms, xs = small
    objective = SparseCodingObjective(Log(0.02), max_steps=5000)
    loss, _, gradient = loss_and_gradient(objective, atoms, jnp.asarray(xs))
    codes = np.asarray(encode_batch(Dictionary(atoms), xs, Log(0.02)).value)
    error = xs - codes @ atoms
    np.testing.assert_allclose(loss, 0.5 * np.mean(np.sum(error**2, 1)))
    np.testing.assert_allclose(gradient, -codes.T @ error / len(xs), atol=1e-9)


def test_unfinished_samples_add_nothing_to_the_loss_of_a_penalty_that_is_positive_at_zero(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    objective = SparseCodingObjective(SmoothL1(0.1, 1.0), Gradient(optax.sgd(0.1)), tol=1e-3)

    broken, whole = (loss_and_gradient(objective, atoms, x)[0] for x in (xs.at[0, 0].set(jnp.nan), xs))
    only_first = loss_and_gradient(objective, atoms, xs.at[1:].set(jnp.nan))[0]
    np.testing.assert_allclose(broken, (8 * whole - only_first) / 7, rtol=1e-5)


def test_a_batch_that_never_converges_looks_like_nothing_learned(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    objective = SparseCodingObjective(L1(0.01), max_steps=2)
    _, (usage, metrics) = eqx.filter_jit(objective)(
        Dictionary(atoms), AtomUsage(jnp.full(30, 5, jnp.int32)), xs, KEY
    )
    assert metrics["converged"] == 0 and metrics["explained_variance"] == 0
    assert np.mean(np.asarray(usage.n_unused_steps) == 0) > 0.9  # the unfinished codes did use them


def test_learning_finds_the_atoms_that_made_the_data():
    true = random_dictionary(jax.random.key(1), 12, 16).atoms
    keys = jax.random.split(jax.random.key(2), 3)
    is_on = jax.random.uniform(keys[0], (2000, 12)) < 0.12
    data = (is_on * jax.random.laplace(keys[1], (2000, 12))) @ true
    result = fit(
        random_dictionary(jax.random.key(4), 12, 16),
        SparseCodingObjective(L1(0.05), tol=1e-3),
        data,
        optimizer=optax.adam(0.03),
        n_steps=400,
        batch_size=100,
        key=KEY,
        after_update=DictionaryUpkeep(),
    )
    np.testing.assert_allclose(jnp.linalg.norm(result.model.atoms, axis=1), 1, rtol=1e-5)
    overlap = np.abs(result.model.atoms @ true.T)
    assert np.sum(overlap.max(axis=0) > 0.97) >= 10


def test_usage_counts_the_steps_since_an_atom_was_used(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    objective, dictionary = SparseCodingObjective(L1(0.4)), Dictionary(atoms)
    state = AtomUsage(jnp.full(30, 5, jnp.int32))
    _, (state, _) = eqx.filter_jit(objective)(dictionary, state, xs, KEY)
    used = np.any(encode_batch(dictionary, xs, L1(0.4)).value != 0, axis=0)
    assert 0 < used.sum() < 30
    np.testing.assert_array_equal(state.n_unused_steps, np.where(used, 0, 6))


def test_unused_atoms_become_the_worst_explained_data_with_fresh_optimiser_rows(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    objective, optimizer = SparseCodingObjective(L1(0.3)), optax.adagrad(0.1)
    upkeep = DictionaryUpkeep(objective, optimizer, replace_after=7)
    dictionary = Dictionary(atoms)
    opt_state = jax.tree.map(lambda leaf: leaf + 5, optimizer.init(dictionary))
    fresh = optimizer.init(dictionary)
    usage = AtomUsage(jnp.zeros(30, jnp.int32).at[jnp.array([4, 20])].set(7))
    batch = xs.at[0].set(0)
    after = eqx.filter_jit(upkeep)(dictionary, opt_state, usage, batch, KEY)
    model, new_state, new_usage = after

    codes = encode_batch(dictionary, batch, L1(0.3)).value
    worst = np.argsort(-np.sum((batch - codes @ atoms) ** 2, axis=1))
    expected = np.array(atoms)
    for atom, row in zip([4, 20], worst, strict=False):
        expected[atom] = batch[row] / np.linalg.norm(batch[row])
    np.testing.assert_allclose(model.atoms, expected, atol=1e-6)
    assert not np.any(new_usage.n_unused_steps)
    rows = [leaf for leaf in jax.tree.leaves(new_state) if leaf.ndim == 2]
    fresh_rows = [leaf for leaf in jax.tree.leaves(fresh) if leaf.ndim == 2]
    assert rows
    for leaf, start in zip(rows, fresh_rows, strict=True):
        is_dead = np.isin(np.arange(30), [4, 20])
        np.testing.assert_array_equal(leaf[is_dead], start[is_dead])
        np.testing.assert_array_equal(leaf[~is_dead], start[~is_dead] + 5)

    untouched, same_state, _ = eqx.filter_jit(upkeep)(
        dictionary, opt_state, AtomUsage.init(dictionary), batch, KEY
    )
    np.testing.assert_allclose(untouched.atoms, atoms, atol=1e-6)
    assert eqx.tree_equal(same_state, opt_state)


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
