"""Online dictionary learning: the sweep, the statistics, and what they learn."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import lasso
from scipy.optimize import minimize

from neurojax.penalties import L1
from neurojax.sparse_coding import (
    FISTA,
    BlockCoordinateUpdate,
    Dictionary,
    DictionaryStatistics,
    OnlineDictionaryObjective,
    SparseCodingObjective,
    fit_dictionary_online,
    random_dictionary,
    update_atoms,
)
from neurojax.training import Checkpoint

KEY = jax.random.key(0)
PENALTY = L1(0.1)
OBJECTIVE = OnlineDictionaryObjective(
    SparseCodingObjective(PENALTY, FISTA(), tol=1e-13, max_steps=20000), forgetting=2.0
)
update = eqx.filter_jit(update_atoms)
N_ATOMS, N_FEATURES = 21, 6


@eqx.filter_jit
def collect(objective, atoms, statistics, batch):
    return objective.value_and_grad(Dictionary(atoms), statistics, batch, KEY)


@pytest.fixture
def surrogate():
    """Statistics of random codes, atom 4 in none of them, and atoms in the unit ball, one of them short."""
    rng = np.random.default_rng(0)
    codes, xs = rng.normal(size=(50, N_ATOMS)), 3 * rng.normal(size=(50, N_FEATURES))
    codes[:, 4] = 0
    atoms = rng.normal(size=(N_ATOMS, N_FEATURES))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms[7] *= 0.3
    return SimpleNamespace(a=codes.T @ codes / 50, b=codes.T @ xs / 50, atoms=atoms, codes=codes, xs=xs)


def statistics_of(surrogate):
    empty = DictionaryStatistics.init(Dictionary(surrogate.atoms))
    return empty._replace(code_products=jnp.asarray(surrogate.a), data_products=jnp.asarray(surrogate.b))


def value(surrogate, atoms):
    return 0.5 * np.trace(atoms.T @ surrogate.a @ atoms) - np.trace(atoms.T @ surrogate.b)


def swept(surrogate, unit_length):
    """One sweep over the atoms, written as it is in the paper; and the surrogate after each atom."""
    atoms, values = surrogate.atoms.copy(), [value(surrogate, surrogate.atoms)]
    for j in np.flatnonzero(np.diag(surrogate.a)):
        u = atoms[j] + (surrogate.b[j] - surrogate.a[j] @ atoms) / surrogate.a[j, j]
        atoms[j] = u / (np.linalg.norm(u) if unit_length else max(np.linalg.norm(u), 1))
        values.append(value(surrogate, atoms))
    return atoms, values


@pytest.mark.parametrize("unit_length", [False, True])
def test_a_sweep_visits_the_atoms_one_after_the_other(surrogate, unit_length, x64):
    expected, _ = swept(surrogate, unit_length)
    statistics = statistics_of(surrogate)
    found = update(Dictionary(surrogate.atoms), statistics, unit_length=unit_length).atoms
    np.testing.assert_allclose(found, expected, atol=1e-12)
    lengths = np.delete(np.linalg.norm(found, axis=1), 4)
    np.testing.assert_array_equal(found[4], surrogate.atoms[4])
    assert np.all(lengths <= 1 + 1e-12) and (np.ptp(lengths) < 1e-12) == unit_length


def test_each_visit_is_the_minimum_over_that_atom_in_the_unit_ball(surrogate, x64):
    """The first visit, against SciPy's constrained minimum over atom 0."""
    only_first = np.where(np.arange(N_ATOMS) == 0, np.diag(surrogate.a), 0)
    a = surrogate.a.copy()
    np.fill_diagonal(a, only_first)  # the others count as unused, so they stay

    def cost(atom):
        atoms = surrogate.atoms.copy()
        atoms[0] = atom
        return value(surrogate, atoms)

    best = minimize(
        cost, surrogate.atoms[0], constraints={"type": "ineq", "fun": lambda d: 1 - d @ d}, tol=1e-12
    )
    statistics = statistics_of(surrogate)._replace(code_products=jnp.asarray(a))
    found = update(Dictionary(surrogate.atoms), statistics).atoms
    np.testing.assert_array_equal(found[1:], surrogate.atoms[1:])
    np.testing.assert_allclose(found[0], best.x, atol=1e-5)
    assert cost(np.asarray(found[0])) <= best.fun + 1e-9


def test_the_surrogate_falls_at_each_sweep_and_is_the_mean_squared_error(surrogate, x64):
    dictionary, statistics = Dictionary(surrogate.atoms), statistics_of(surrogate)
    power = 0.5 * np.mean(np.sum(surrogate.xs**2, 1))
    values = []
    for _ in range(6):
        error = surrogate.xs - surrogate.codes @ np.asarray(dictionary.atoms)
        values.append(float(statistics.surrogate(dictionary.atoms)))
        np.testing.assert_allclose(values[-1] + power, 0.5 * np.mean(np.sum(error**2, 1)))
        dictionary = update(dictionary, statistics)
    assert np.all(np.diff(values) < 0)
    assert np.all(np.diff(swept(surrogate, unit_length=False)[1]) <= 1e-12)
    thrice = update(Dictionary(surrogate.atoms), statistics, n_sweeps=3).atoms
    np.testing.assert_allclose(statistics.surrogate(thrice), values[3])


def codes_of(atoms, xs):
    """Return scikit-learn's codes, zeros for broken data."""
    return np.array([lasso(atoms, x, 0.1) if np.all(np.isfinite(x)) else np.zeros(30) for x in xs])


def test_the_statistics_are_weighted_means_over_the_batches(small, x64):
    """Batch s of t weighs (s/t)^forgetting; a broken datum weighs nothing."""
    atoms, xs = small
    batches = [xs, xs[::-1] * 1.5, np.where(np.arange(8)[:, None] == 3, np.nan, 0.5 * xs)]
    statistics, a, b, total = DictionaryStatistics.init(Dictionary(atoms)), 0, 0, 0
    for s, batch in enumerate(batches, 1):
        (loss, (statistics, metrics)), gradient = collect(OBJECTIVE, atoms, statistics, batch)
        kept = np.isfinite(batch).all(axis=1)
        codes, weight = codes_of(atoms, batch)[kept], (s / 3) ** 2
        a = a + weight * codes.T @ codes
        b = b + weight * codes.T @ batch[kept]
        total += weight * kept.sum()
        error = batch[kept] - codes @ atoms
        energy = 0.5 * np.sum(error**2) + 0.1 * np.sum(np.abs(codes))
        np.testing.assert_allclose(loss, energy / kept.sum(), rtol=1e-6)
        assert not np.any(gradient.atoms)
    np.testing.assert_allclose(statistics.code_products, a / total, atol=1e-6)
    np.testing.assert_allclose(statistics.data_products, b / total, atol=1e-6)
    np.testing.assert_allclose(statistics.weight, total)
    assert statistics.n_steps == 3 and metrics["converged"] == 7 / 8


def test_the_statistics_do_not_grow_with_the_batch(small, x64):
    """Four data and four broken ones, and the four data twice."""
    atoms, xs = small
    empty = DictionaryStatistics.init(Dictionary(atoms))
    batches = np.concatenate([xs[:4], np.full((4, 20), np.nan)]), np.concatenate([xs[:4], xs[:4]])
    once, twice = (collect(OBJECTIVE, atoms, empty, batch)[0][1][0] for batch in batches)
    np.testing.assert_allclose(once.code_products, twice.code_products, atol=1e-9)
    np.testing.assert_allclose(once.data_products, twice.data_products, atol=1e-9)
    np.testing.assert_allclose(2 * once.weight, twice.weight)


def test_a_batch_without_a_usable_datum_changes_nothing(small, x64):
    atoms, xs = small
    (_, (seen, _)), _ = collect(OBJECTIVE, atoms, DictionaryStatistics.init(Dictionary(atoms)), xs)
    (_, (after, metrics)), _ = collect(OBJECTIVE, atoms, seen, np.full(xs.shape, np.nan))
    assert np.any(seen.code_products)
    np.testing.assert_array_equal(after.code_products, seen.code_products)
    np.testing.assert_array_equal(after.data_products, seen.data_products)
    assert metrics["converged"] == 0 and not np.any(after.candidates)


def planted(n_rows):
    """Return 12 atoms in 16 of 20 features, and data that are sparse in them."""
    rng = np.random.default_rng(1)
    true = rng.normal(size=(12, 16))
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    codes = (rng.random((n_rows, 12)) < 0.12) * rng.laplace(size=(n_rows, 12))
    return np.pad(true, [(0, 0), (0, 4)]), np.pad(codes @ true, [(0, 0), (0, 4)]).astype(np.float32)


def learn(data, n_steps, **settings):
    """Learn from ten random atoms, and two at right angles to all data."""
    start = np.zeros((12, 20), np.float32)
    start[:10, :16] = np.random.default_rng(4).normal(size=(10, 16))
    start[10, 17] = start[11, 18] = 1
    start /= np.linalg.norm(start, axis=1, keepdims=True)
    settings = {"batch_size": 100, "key": KEY, "forgetting": 16.0, "progress": False} | settings
    return fit_dictionary_online(Dictionary(start), PENALTY, data, n_steps=n_steps, **settings)


@pytest.mark.slow
def test_learning_finds_the_atoms_that_made_the_data_and_revives_dead_ones():
    """Nothing uses two of the atoms until they are replaced, so ten would have to be all twelve.

    A run may end in a local optimum, of which its loss tells: of two orders of the data the better counts.
    """
    true, data = planted(2000)
    runs = [learn(data, 300, key=key) for key in jax.random.split(KEY)]
    found = min(runs, key=lambda run: np.mean(run.history["loss"][-20:]))
    overlap = np.abs(np.asarray(found.model.atoms) @ true.T)
    assert np.all(overlap.max(axis=0) > 0.97)
    assert np.all(np.asarray(found.state.n_unused_steps) < 20)
    assert np.all(np.linalg.norm(found.model.atoms, axis=1) < 1 + 1e-5)
    assert np.mean(found.history["loss"][-20:]) < 0.5 * found.history["loss"][0]


def test_an_unused_atom_becomes_the_worst_explained_datum_and_is_forgotten(small, x64):
    atoms, xs = small
    batch = xs.copy()
    batch[0], batch[1] = 0, np.nan
    (_, (statistics, _)), _ = collect(OBJECTIVE, atoms, DictionaryStatistics.init(Dictionary(atoms)), batch)
    errors = np.nan_to_num(np.sum((batch - codes_of(atoms, batch) @ atoms) ** 2, axis=1))
    worst = np.argsort(-errors)[:6]
    is_dead = np.isin(np.arange(30), [4, 20])
    statistics = statistics._replace(n_unused_steps=np.where(is_dead, 20, 0).astype(np.int32))

    upkeep = eqx.filter_jit(BlockCoordinateUpdate())
    model, _, after = upkeep(Dictionary(atoms), None, statistics, batch, KEY)
    expected = np.array(update(Dictionary(atoms), statistics).atoms)
    expected[[4, 20]] = batch[worst[:2]] / np.linalg.norm(batch[worst[:2]], axis=1, keepdims=True)
    np.testing.assert_allclose(model.atoms, expected, atol=1e-6)
    assert not np.any(after.n_unused_steps)
    assert not np.any(after.code_products[is_dead]) and not np.any(after.code_products[:, is_dead])
    assert not np.any(after.data_products[is_dead])
    kept = np.ix_(~is_dead, ~is_dead)
    np.testing.assert_array_equal(after.code_products[kept], statistics.code_products[kept])

    all_dead = statistics._replace(n_unused_steps=np.full(30, 20, np.int32))
    model, _, after = upkeep(Dictionary(atoms), None, all_dead, batch, KEY)
    assert np.sum(np.asarray(after.n_unused_steps) == 0) == 6  # of 8 data one is zero, one broken
    np.testing.assert_allclose(np.linalg.norm(model.atoms[:6], axis=1), 1, rtol=1e-5)


def test_a_run_that_was_cut_ends_as_one_that_was_not(tmp_path):
    _, data = planted(2000)
    whole = learn(data, 11)
    learn(data, 7, checkpoint=Checkpoint(tmp_path / "run", 3))
    resumed = learn(data, 11, checkpoint=Checkpoint(tmp_path / "run", 3))
    assert eqx.tree_equal((whole.model, whole.state), (resumed.model, resumed.state))
    np.testing.assert_array_equal(whole.history["loss"], resumed.history["loss"])


def test_bad_arguments_are_named(small, untyped):
    dictionary, xs = Dictionary(jnp.asarray(small[0])), jnp.asarray(small[1])
    with pytest.raises(ValueError, match="forgetting: expected a number ≥ 0, got -1"):
        OnlineDictionaryObjective(SparseCodingObjective(PENALTY), forgetting=-1)
    with pytest.raises(ValueError, match="objective: expected an instance of SparseCodingObjective, got L1"):
        OnlineDictionaryObjective(PENALTY)
    with pytest.raises(ValueError, match="n_sweeps: expected a whole number ≥ 1, got 0"):
        BlockCoordinateUpdate(n_sweeps=0)
    with pytest.raises(ValueError, match="replace_after: expected a whole number ≥ 1, got 0"):
        BlockCoordinateUpdate(replace_after=0)
    with pytest.raises(ValueError, match=r"state: expected DictionaryStatistics.*got NoneType"):
        OBJECTIVE.value_and_grad(dictionary, None, xs, KEY)
    with pytest.raises(ValueError, match=r"state: expected DictionaryStatistics.*got NoneType"):
        BlockCoordinateUpdate()(dictionary, None, None, xs, KEY)
    with pytest.raises(ValueError, match="dictionary: expected an instance of Dictionary, got"):
        fit_dictionary_online(small[0], PENALTY, xs, n_steps=1, key=KEY)
    with pytest.raises(
        ValueError, match=r"data: expected 20 features of the dictionary on axis 1, got shape"
    ):
        fit_dictionary_online(dictionary, PENALTY, xs[:, :5], n_steps=1, key=KEY)


def test_the_unit_of_the_data_changes_nothing():
    """Squares of data of 1e-22 underflow; losses of data of 1e19 and more are refused by ``fit``."""
    keys = jax.random.split(jax.random.key(0), 3)
    rows = jax.random.normal(keys[0], (64, 8))
    start = random_dictionary(keys[1], 12, 8)

    def learned(scale):
        fitted = fit_dictionary_online(
            start, L1(0.5 * scale), scale * rows, n_steps=6, batch_size=16, key=keys[2], replace_after=2
        )
        return fitted.model.atoms, fitted.state

    atoms, state = learned(1.0)
    for scale in (2.0**-73, 2.0**-100, 2.0**50):
        found, scaled = learned(scale)
        np.testing.assert_allclose(found, atoms, atol=1e-6)
        unit = scaled.unit / np.float32(scale)
        np.testing.assert_allclose(scaled.code_products * unit**2, state.code_products, atol=1e-6)
