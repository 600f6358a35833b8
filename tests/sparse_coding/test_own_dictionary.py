"""The dictionary contract: two dictionaries from outside the library do everything that ours does."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from own_dictionaries import Convolution, Separable

from neurojax import runs, sparse_coding
from neurojax.convergence import Status
from neurojax.distributed import make_mesh
from neurojax.penalties import L1, GroupL2
from neurojax.sparse_coding import (
    AtomUsage,
    Dictionary,
    DictionaryUpkeep,
    SparseCodingLayer,
    SparseCodingObjective,
    encode_batch,
    encode_stream,
)
from neurojax.training import fit

encode = eqx.filter_jit(sparse_coding.encode)
KEY, N_ROWS, PENALTY = jax.random.key(0), 6, L1(0.1)


def make(kind: str):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    if kind == "convolution":
        return Convolution(jnp.asarray(draw(3, 2, 5))).normalize(), draw(N_ROWS, 2, 12)
    return Separable(jnp.asarray(draw(4, 5)), jnp.asarray(draw(3, 6))).normalize(), draw(N_ROWS, 5, 6)


KINDS = ("convolution", pytest.param("separable", marks=pytest.mark.slow))


def atoms_of(dictionary, x):
    """Return the matrix of a dictionary, one atom a row, by reconstructing from each unit code."""
    code = dictionary.empty_code(x)
    units = jnp.eye(code.size).reshape(-1, *code.shape)
    return np.asarray(jax.vmap(dictionary.reconstruct)(units)).reshape(code.size, -1)


def dense_codes(dictionary, xs, **settings):
    """Return the codes of the same problem with the atoms as rows of a matrix."""
    weights = settings.pop("weights", None)
    if weights is not None:
        settings["weights"] = weights.reshape(len(xs), -1)
    dense = Dictionary(atoms_of(dictionary, xs[0]))
    return encode_batch(dense, xs.reshape(len(xs), -1), PENALTY, tol=1e-6, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_the_same_atoms_as_a_matrix(kind, tmp_path):
    dictionary, xs = make(kind)
    expected = np.asarray(dense_codes(dictionary, xs).value)
    alone = encode(dictionary, xs[0], PENALTY, tol=1e-6)
    batch = encode_batch(dictionary, xs, PENALTY, tol=1e-6)
    assert np.all(batch.status == Status.converged) and alone.status == Status.converged
    np.testing.assert_allclose(np.reshape(batch.value, expected.shape), expected, atol=3e-3)
    np.testing.assert_allclose(np.reshape(alone.value, -1), expected[0], atol=3e-3)
    on_mesh = encode_batch(dictionary, xs, PENALTY, tol=1e-6, mesh=make_mesh())
    np.testing.assert_allclose(on_mesh.value, batch.value, atol=1e-4)
    streamed = encode_stream(dictionary, xs, PENALTY, batch_size=4, tol=1e-6, output=tmp_path / "codes.npy")
    np.testing.assert_allclose(streamed.value, batch.value, atol=1e-4)
    from_generator = encode_stream(dictionary, iter(xs), PENALTY, batch_size=4, tol=1e-6)
    np.testing.assert_array_equal(from_generator.value, streamed.value)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_entries_are_not_looked_at(kind):
    dictionary, xs = make(kind)
    weights = (np.random.default_rng(1).random(xs.shape) < 0.6).astype(np.float32)
    expected = np.asarray(dense_codes(dictionary, xs, weights=weights).value)
    found = encode_batch(dictionary, np.where(weights == 0, np.nan, xs), PENALTY, weights=weights, tol=1e-6)
    assert np.all(found.status == Status.converged)
    np.testing.assert_allclose(np.reshape(found.value, expected.shape), expected, atol=3e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_implicit_derivatives_are_those_of_finite_differences(kind, x64):
    dictionary, xs = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), make(kind))
    rng = np.random.default_rng(2)
    push = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), (dictionary, xs[0]))
    seen = rng.normal(size=dictionary.empty_code(xs[0]).shape)

    @jax.jit
    def loss(step):
        moved, x = jax.tree.map(lambda leaf, d: leaf + step * d, (dictionary, xs[0]), push)
        solution = sparse_coding.encode(moved, x, PENALTY, tol=1e-13, max_steps=50_000)
        return jnp.sum(solution.value * seen)

    size = 1e-6
    expected = (loss(size) - loss(-size)) / (2 * size)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(0.0), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_learning_with_upkeep_lowers_the_energy_and_is_kept(kind, tmp_path):
    dictionary, xs = make(kind)
    objective, optimizer = SparseCodingObjective(PENALTY, tol=1e-3), optax.adam(0.03)
    result = fit(
        dictionary, objective, xs, optimizer=optimizer, n_steps=30, key=KEY, progress=False,
        state=AtomUsage.init(dictionary),
        after_update=DictionaryUpkeep(objective, optimizer, replace_after=20),
    )  # fmt: skip
    losses = result.history["loss"]
    assert losses[-1] < 0.9 * losses[0] and result.history["converged"][-1] == 1
    assert result.state.n_unused_steps.shape == (dictionary.n_atoms,)
    runs.save(tmp_path / "model", result.model)
    again = runs.load(tmp_path / "model", dictionary)
    jax.tree.map(np.testing.assert_array_equal, again, result.model)
    layer = SparseCodingLayer(again, PENALTY, returns="reconstruction")
    assert jax.jit(jax.vmap(layer))(xs).shape == xs.shape


@pytest.mark.parametrize("kind", KINDS)
def test_unused_atoms_are_replaced_with_a_fresh_optimizer(kind):
    dictionary, xs = make(kind)
    dead = 1
    unused = jnp.zeros(dictionary.n_atoms, jnp.int32).at[dead].set(9)
    objective, optimizer = SparseCodingObjective(PENALTY, tol=1e-3), optax.adam(0.1)
    opt_state = optimizer.init(dictionary)
    opt_state = jax.tree.map(lambda leaf: leaf + 1, opt_state)
    upkeep = DictionaryUpkeep(objective, optimizer, replace_after=9)
    model, opt_state, state = eqx.filter_jit(upkeep)(dictionary, opt_state, AtomUsage(unused), xs, KEY)
    first = lambda tree: np.asarray(jax.tree.leaves(tree)[0])  # noqa: E731
    others = np.arange(dictionary.n_atoms) != dead
    assert np.any(first(model)[dead] != first(dictionary)[dead])
    np.testing.assert_allclose(first(model)[others], first(dictionary)[others], atol=1e-6)
    moments = first(opt_state[0].mu)
    assert np.all(moments[dead] == 0) and np.all(moments[others] == 1)
    if kind == "separable":
        assert np.all(np.asarray(opt_state[0].mu.columns) == 1)  # the other factor did not change
    np.testing.assert_array_equal(state.n_unused_steps, 0)


def test_usage_is_counted_along_the_axis_of_atoms():
    dictionary, xs = make("convolution")
    objective = SparseCodingObjective(GroupL2(jnp.array([0.1]), 8), tol=1e-3)
    codes = objective.infer(dictionary, xs).value
    _, (usage, metrics) = objective(dictionary, AtomUsage(jnp.full(3, 4, jnp.int32)), xs, KEY)
    is_used = np.any(np.asarray(codes) != 0, axis=(0, 2))
    np.testing.assert_array_equal(usage.n_unused_steps, np.where(is_used, 0, 5))
    np.testing.assert_allclose(metrics["n_active"], np.mean(np.sum(np.asarray(codes) != 0, axis=(1, 2))))


class Bare(sparse_coding.AbstractDictionary):
    """A dictionary that says no more than inference needs."""

    scale: jax.Array

    def reconstruct(self, code):
        return self.scale * code

    def correlate(self, x):
        return self.scale * x

    def gram(self):
        return None

    def empty_code(self, x):
        return jnp.zeros_like(x)


def test_what_a_dictionary_does_not_offer_is_named(untyped):
    bare, xs = Bare(jnp.float32(2)), np.ones((3, 4), np.float32)
    np.testing.assert_allclose(encode_batch(bare, xs, PENALTY).value, 0.5 - 0.1 / 4, rtol=1e-4)
    objective, optimizer = SparseCodingObjective(PENALTY), optax.sgd(0.1)
    settings = {"optimizer": optimizer, "n_steps": 1, "key": KEY, "progress": False}
    with pytest.raises(ValueError, match=r"dictionary: expected one with normalize\(\), .* got Bare"):
        fit(bare, objective, xs, after_update=DictionaryUpkeep(), **settings)
    with pytest.raises(ValueError, match=r"dictionary: expected one with n_atoms, .* got Bare"):
        AtomUsage.init(bare)
    upkeep = DictionaryUpkeep(objective, optimizer, replace_after=1)
    with pytest.raises(ValueError, match=r"expected one with replace_atoms\(\), .* got Bare"):
        fit(bare, objective, xs, state=AtomUsage(jnp.ones(4, jnp.int32)), after_update=upkeep, **settings)
    convolution, data = make("convolution")
    with pytest.raises(ValueError, match=r"xs: expected 3 axes \(samples channels time\), got shape"):
        encode_batch(convolution, data[0], PENALTY)
    with pytest.raises(ValueError, match=r"sparse: expected codes of one axis, got shape \(3, 8\)"):
        encode_stream(convolution, data, PENALTY, sparse=True)
    with pytest.raises(ValueError, match=r"max_active: expected codes of one axis, got shape \(3, 8\)"):
        encode_batch(convolution, data, PENALTY, max_active=3)
