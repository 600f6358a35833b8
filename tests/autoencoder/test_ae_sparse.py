"""Sparse autoencoders: loss and gradient by their formulas, atoms of length 1, dead units that come back."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_truth import array, drawn, finite_differences, flat, layer, quick, zeros

from neurojax import autoencoder as ae
from neurojax.training import fit

KEY = jax.random.key(0)
UPKEEP, ADAM = ae.SparseAutoencoderUpkeep(), optax.adam(1e-2)


def sparse_data(seed, n_rows, dtype="float32", n_features=8, n_atoms=16):
    """Sums of two of a few directions, and a little noise."""
    rng = np.random.default_rng(7)
    atoms = rng.normal(size=(n_atoms, n_features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    rows = [rng.uniform(0.5, 1.5, 2) @ atoms[rng.choice(n_atoms, 2, replace=False)] for _ in range(n_rows)]
    return (np.array(rows) + 0.01 * rng.normal(size=(n_rows, n_features))).astype(dtype)


def learn(sae, objective, data, n_steps=300):
    return fit(
        sae,
        objective,
        data,
        optimizer=ADAM,
        n_steps=n_steps,
        batch_size=50,
        key=KEY,
        state=objective.init(sae),
        after_update=UPKEEP,
    )


@eqx.filter_jit
def value_and_grad(objective, sae, state, rows):
    return objective.value_and_grad(sae, state, rows, KEY)


def priced(l1=0.0, auxiliary=0.0):
    """An objective whose strengths are arrays, so that all of them share one program."""
    return ae.SparseAutoencoderObjective(
        l1=array(l1), auxiliary=array(auxiliary), n_auxiliary=2, dead_after=4
    )


@partial(quick, static_argnames="n_units")
def its_start(data, n_units):
    return ae.SparseAutoencoder.from_data(data, n_units, KEY, selection=ae.ReLU())


def from_data(data, n_units, selection):
    """The start that the class makes, in one program for all selections."""
    sae = its_start(data, n_units=n_units)
    return ae.SparseAutoencoder(sae.encoder, sae.atoms, sae.decoder_bias, selection)


def start_state(threshold=0.0, n_unused_steps=None):
    unused = np.zeros(12) if n_unused_steps is None else n_unused_steps
    return ae.SparseAutoencoderState(array(unused, "int32"), array(threshold), array(0, "int32"))


def machine(selection, dtype="float64", n_units=12):
    """A machine whose atoms are not of length 1."""
    rows = np.zeros((40, 8), dtype)
    return drawn(lambda: ae.SparseAutoencoder.from_data(rows, n_units, KEY, selection=selection), 1, 0.4)


def pieces(sae, rows):
    """Activations, codes of single rows and errors, in NumPy."""
    w, b, c = (np.asarray(x) for x in (sae.encoder.weight, sae.encoder.bias, sae.decoder_bias))
    activations = (rows - c) @ w.T + b
    return activations, lambda codes: rows - codes @ np.asarray(sae.atoms) - c


def test_loss_metrics_and_counts_are_their_formulas(x64):
    sae, rows = machine(ae.TopK(3)), sparse_data(2, 6, "float64")
    dead = np.array([1, 4, 7, 9, 10])
    unused = np.where(np.isin(np.arange(12), dead), 4, 3)
    (loss, (new, metrics)), _ = value_and_grad(
        priced(l1=0.2, auxiliary=0.5), sae, start_state(n_unused_steps=unused), array(rows)
    )
    activations, errors_of = pieces(sae, rows)
    codes = np.where(activations >= np.sort(activations, axis=1)[:, [-3]], activations, 0)
    errors = errors_of(codes)
    of_dead = np.maximum(activations[:, dead], 0)
    of_dead = np.where(of_dead >= np.sort(of_dead, axis=1)[:, [-2]], of_dead, 0)
    left_over = np.sum((errors - of_dead @ np.asarray(sae.atoms)[dead]) ** 2, axis=1)
    squared = np.sum(errors**2, axis=1).mean()
    l1 = np.abs(codes).sum(axis=1).mean()
    np.testing.assert_allclose(loss, squared + 0.2 * l1 + 0.5 * left_over.mean(), rtol=1e-12)
    expected = {
        "squared_error": squared,
        "explained_variance": 1 - np.sum(errors**2) / np.sum((rows - rows.mean(axis=0)) ** 2),
        "n_active": 3.0,
        "dead_fraction": 5 / 12,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-12)
    np.testing.assert_array_equal(new.n_unused_steps, np.where((codes != 0).any(axis=0), 0, unused + 1))
    assert new.n_steps == 1 and (new.n_unused_steps > 0).any() and (new.n_unused_steps == 0).any()


def top(values, k):
    """NumPy's own selection: the k largest of a row."""
    return np.where(values >= np.sort(values)[..., [-k]], values, 0)


SELECTIONS = {
    "TopK": (ae.TopK(3), 0.5, lambda a: top(a, 3)),
    "BatchTopK": (ae.BatchTopK(3), 0.0, lambda a: np.maximum(top(a.ravel(), 18).reshape(a.shape), 0)),
    "ReLU": (ae.ReLU(), 0.0, lambda a: np.maximum(a, 0)),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_gradient_is_that_of_finite_differences_at_right_angles_to_atoms(x64, name):
    selection, auxiliary, select = SELECTIONS[name]
    sae, rows = machine(selection), sparse_data(2, 6, "float64")
    unused = np.where(np.arange(12) % 3 == 0, 9, 0)
    came = value_and_grad(
        priced(l1=0.3, auxiliary=auxiliary), sae, start_state(n_unused_steps=unused), array(rows)
    )[1]

    def parts(sae):
        activations, errors_of = pieces(sae, rows)
        codes = select(activations)
        return activations, codes, errors_of(codes)

    # What is left over is a constant to the auxiliary term, whose value is known from the test above.
    held = parts(sae)[2]

    def loss(sae):
        activations, codes, errors = parts(sae)
        of_dead = top(np.where(unused >= 4, np.maximum(activations, 0), 0), 2)
        left_over = np.sum((held - of_dead @ np.asarray(sae.atoms)) ** 2, axis=1)
        return np.mean(np.sum(errors**2, axis=1) + 0.3 * np.abs(codes).sum(axis=1) + auxiliary * left_over)

    expected = finite_differences(loss, sae)
    n, atoms = sae.encoder.weight.size + sae.encoder.bias.size, np.asarray(sae.atoms)
    numeric = expected[n : n + atoms.size].reshape(atoms.shape)
    direction = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    along = np.sum(numeric * direction, axis=1, keepdims=True)
    assert np.abs(along).max() > 0.1
    expected[n : n + atoms.size] = (numeric - along * direction).ravel()
    np.testing.assert_allclose(flat(came), expected, rtol=1e-6, atol=1e-8)
    assert np.abs(np.sum(np.asarray(came.atoms) * atoms, axis=1)).max() < 1e-12


def test_only_kept_units_learn_from_the_squared_error(x64):
    sae, rows = machine(ae.TopK(3)), np.repeat(sparse_data(2, 2, "float64"), 3, axis=0)
    came = value_and_grad(priced(), sae, start_state(), array(rows))[1]
    is_used = (top(pieces(sae, rows)[0], 3) != 0).any(axis=0)
    assert 3 <= is_used.sum() < 12
    for leaf in (came.encoder.weight, came.encoder.bias, came.atoms):
        np.testing.assert_array_equal(np.abs(np.reshape(leaf, (12, -1))).max(axis=1) > 0, is_used)


@pytest.fixture(scope="session")
def batch_top_k():
    """A machine with `BatchTopK` that has learned."""
    data = sparse_data(0, 500)
    sae = from_data(data, 32, ae.BatchTopK(3))
    return sae, learn(sae, ae.SparseAutoencoderObjective(), data)


def test_learning_explains_the_data_with_atoms_of_length_one(batch_top_k):
    sae, result = batch_top_k
    assert result.history["explained_variance"][-1] > 0.9 > 0.7 > result.history["explained_variance"][0]
    np.testing.assert_allclose(np.linalg.norm(result.model.atoms, axis=1), np.ones(32), rtol=1e-6)
    assert np.abs(np.subtract(result.model.atoms, sae.atoms)).max() > 0.1
    assert result.history["n_active"][-1] == 3 and result.state.n_steps == 300


def test_the_threshold_makes_about_k_units_active_on_new_data(batch_top_k):
    sae, result = batch_top_k
    new = array(sparse_data(99, 500))
    active = quick(jax.vmap(lambda x: jnp.sum(result.model.encode(x) != 0)))(new)
    active = np.asarray(active)
    np.testing.assert_allclose(active.mean(), 3, rtol=0.15)
    assert len(np.unique(active)) > 1  # of a datum more, of another fewer
    assert result.model.selection.threshold == result.state.threshold > 0
    # Before learning there is no threshold: an error, or where it cannot be seen NaN.
    with pytest.raises(ValueError, match=r"threshold: expected one ≥ 0, .* got -1"):
        sae.encode(new[0])
    assert jnp.isnan(eqx.filter_jit(lambda sae, x: sae.encode(x))(sae, new[0])).all()


def test_the_threshold_is_the_mean_of_the_least_kept_and_forgets_after_a_hundred_steps(x64):
    sae, state = machine(ae.BatchTopK(3)), start_state()
    batches = sparse_data(4, 720, "float64").reshape(120, 6, 8)
    thresholds, least = [], []
    for batch in batches:
        (_, (state, _)), _ = value_and_grad(priced(), sae, state, batch)
        thresholds.append(float(state.threshold))
        codes = np.sort(pieces(sae, batch)[0], axis=None)[-18:]
        least.append(codes[codes > 0].min())
    np.testing.assert_allclose(thresholds[:100], np.cumsum(least[:100]) / np.arange(1, 101), rtol=1e-10)
    expected = thresholds[99]
    for value in least[100:]:
        expected = 0.99 * expected + 0.01 * value
    np.testing.assert_allclose(thresholds[-1], expected, rtol=1e-10)


def test_a_batch_without_active_units_leaves_the_threshold(x64):
    silent = eqx.tree_at(lambda m: m.encoder.bias, machine(ae.BatchTopK(3)), array(np.full(12, -100.0)))
    rows = sparse_data(2, 6, "float64")
    (loss, (new, _)), came = value_and_grad(priced(), silent, start_state(0.7), rows)
    assert new.threshold == 0.7 and np.all(np.asarray(new.n_unused_steps) == 1)
    assert np.isfinite(loss) and np.isfinite(flat(came)).all()


def test_l0_moves_thresholds_up_and_reconstruction_moves_them_down(x64):
    """Units that are their atoms, data that lie close to the thresholds on either side."""
    selection = ae.JumpReLU(array(np.log(np.full(3, 0.5))), 0.2)
    sae = ae.SparseAutoencoder(layer(np.eye(3), np.zeros(3)), array(np.eye(3)), zeros(3), selection)
    rows = array([[0.45, 0.48, 0.55], [0.52, 0.42, 3.0]])

    @quick
    def slope(l0):
        objective = ae.SparseAutoencoderObjective(l0=l0, auxiliary=0.0)
        (loss, _), came = objective.value_and_grad(sae, objective.init(sae), rows, KEY)
        return loss, came.selection.log_threshold

    plain, penalised = (jax.tree.map(np.asarray, slope(array(l0))) for l0 in (0.0, 2.0))
    squared = np.array([[0.45, 0.48, 0], [0, 0.42, 0]])
    np.testing.assert_allclose(plain[0], np.sum(squared**2) / 2, rtol=1e-12)
    np.testing.assert_allclose(penalised[0] - plain[0], 2.0 * 3 / 2, rtol=1e-12)
    # ∂‖e‖²/∂θ = −2e·∂z/∂θ = 2e·θ/ε, and θ once more for its logarithm.
    np.testing.assert_allclose(plain[1], 2 * squared.mean(axis=0) * 0.5**2 / 0.2, rtol=1e-12)
    np.testing.assert_allclose(penalised[1] - plain[1], -2.0 * 0.5 / 0.2 * np.array([1, 1, 0.5]), rtol=1e-12)
    assert (plain[1][:2] > 0).all() and (penalised[1] < 0).all()


@pytest.mark.slow
def test_the_price_of_active_units_is_obeyed_in_learning():
    data = sparse_data(0, 500)
    selection = ae.JumpReLU.from_threshold(32, 0.1, 0.1)
    sae = from_data(data, 32, selection)
    cheap, dear = (
        learn(sae, ae.SparseAutoencoderObjective(l0=array(l0, "float32")), data, 150) for l0 in (1e-4, 0.03)
    )
    thresholds = [np.mean(r.model.selection.log_threshold) for r in (cheap, dear)]
    assert thresholds[1] > np.log(0.1) + 0.1 and thresholds[1] > thresholds[0] + 0.1
    assert dear.history["n_active"][-1] < 0.7 * cheap.history["n_active"][-1]


@pytest.mark.slow
def test_the_auxiliary_term_wakes_dead_units():
    data = sparse_data(0, 500)
    sae = from_data(data, 32, ae.TopK(2))
    # Half of the units are handicapped: active at times, and never among the largest.
    sae = eqx.tree_at(lambda m: m.encoder.bias, sae, array(np.repeat([0.0, -1.0], 16)))
    with_it, without = (
        learn(sae, ae.SparseAutoencoderObjective(auxiliary=array(strength), dead_after=10), data)
        for strength in (1.0, 0.0)
    )
    for result in (with_it, without):
        assert np.max(result.history["dead_fraction"]) * 32 >= 10  # dead they were
    used = quick(lambda m: jnp.any(jax.vmap(m.encode)(data) != 0, axis=0))
    n_used = [np.asarray(used(result.model))[16:].sum() for result in (with_it, without)]
    assert n_used[0] >= 6 and n_used[1] <= 1
    assert with_it.history["dead_fraction"][-1] < without.history["dead_fraction"][-1] - 0.15


def test_unused_steps_are_counted():
    rows = np.eye(3, dtype="float32")
    sae = ae.SparseAutoencoder(layer(rows, np.zeros(3), "float32"), array(rows), zeros(3), ae.TopK(1))
    objective = ae.SparseAutoencoderObjective(dead_after=2)
    state = objective.init(sae)
    step = quick(lambda state, batch: objective.value_and_grad(sae, state, batch, KEY)[0][1])
    seen = []
    for batch in (rows[:2], rows[1:2].repeat(2, 0), rows[:1].repeat(2, 0)):
        state, metrics = step(state, batch)
        seen.append((*state.n_unused_steps.tolist(), round(3 * float(metrics["dead_fraction"]))))
    # Whether a unit is dead is asked before the step.
    assert seen == [(0, 0, 1, 0), (1, 0, 2, 0), (0, 1, 3, 1)]


def test_models_and_data_of_two_precisions(x64):
    """What `fit` carries from step to step keeps its dtypes."""
    objective = ae.SparseAutoencoderObjective()
    for model, data in (("float32", "float64"), ("float64", "float32")):
        sae, rows = machine(ae.BatchTopK(3), model), array(np.ones((6, 8)), data)
        (loss, (new, _)), came = eqx.filter_eval_shape(
            lambda sae, rows: objective.value_and_grad(sae, objective.init(sae), rows, KEY), sae, rows
        )
        assert loss.dtype == "float64" and new.threshold.dtype == came.atoms.dtype == model


def test_the_start(x64):
    data = sparse_data(0, 40, "float64")
    sae = from_data(data, 12, ae.TopK(3))
    np.testing.assert_allclose(np.linalg.norm(sae.atoms, axis=1), np.ones(12), rtol=1e-13)
    np.testing.assert_array_equal(sae.encoder.weight, sae.atoms)
    np.testing.assert_allclose(sae.decoder_bias, np.mean(data, axis=0), rtol=1e-13)
    assert not np.any(sae.encoder.bias) and sae.atoms.dtype == "float64"
    activations, errors_of = pieces(sae, np.asarray(data))
    code = np.where(activations[0] >= np.sort(activations[0])[-3], activations[0], 0)
    code_of, back = quick(lambda x: (sae.encode(x), sae.reconstruct(x)))(data[0])
    np.testing.assert_allclose(code_of, code, rtol=1e-12)
    np.testing.assert_allclose(data[0] - back, errors_of(code[None])[0], rtol=1e-9)
