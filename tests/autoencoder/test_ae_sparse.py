"""Sparse autoencoders: loss and gradient by their formulas, atoms of length 1, dead units that come back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from autoencoder_truth import finite_differences, flat, moved, quick

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
    return jnp.asarray(np.array(rows) + 0.01 * rng.normal(size=(n_rows, n_features)), dtype)


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


def learning_codes(sae, rows):
    """The codes of a batch as learning takes them."""
    return sae.selection.select_batch(jax.vmap(sae.activations)(rows))


def machine(selection, dtype="float64", n_units=12):
    return moved(
        ae.SparseAutoencoder.from_data(sparse_data(0, 40, dtype), n_units, KEY, selection=selection), 1, 0.1
    )


def pieces(sae, rows):
    """Activations, codes of single rows and errors, in NumPy."""
    w, b, c = (np.asarray(x) for x in (sae.encoder.weight, sae.encoder.bias, sae.decoder_bias))
    activations = (rows - c) @ w.T + b
    return activations, lambda codes: rows - codes @ np.asarray(sae.atoms) - c


def test_loss_metrics_and_counts_are_their_formulas(x64):
    sae, rows = machine(ae.TopK(3)), np.asarray(sparse_data(2, 6, "float64"))
    dead = np.array([1, 4, 7, 9, 10])
    objective = ae.SparseAutoencoderObjective(l1=0.2, auxiliary=0.5, n_auxiliary=2, dead_after=4)
    unused = np.where(np.isin(np.arange(12), dead), 4, 3).astype("int32")
    state = objective.init(sae)._replace(n_unused_steps=jnp.asarray(unused))
    (loss, (new, metrics)), _ = quick(lambda m: objective.value_and_grad(m, state, jnp.asarray(rows), KEY))(
        sae
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


SETTINGS = {
    "TopK": (ae.TopK(3), {"auxiliary": 0.5, "n_auxiliary": 2}),
    "BatchTopK": (ae.BatchTopK(3), {"auxiliary": 0.0}),
    "ReLU": (ae.ReLU(), {"l1": 0.3, "auxiliary": 0.0}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_gradient_is_that_of_finite_differences_at_right_angles_to_atoms(x64, name):
    selection, strengths = SETTINGS[name]
    sae = machine(selection)  # its atoms are not of length 1
    rows = sparse_data(2, 6, "float64")
    objective = ae.SparseAutoencoderObjective(**strengths, dead_after=4)
    unused = jnp.where(jnp.arange(12) % 3 == 0, 9, 0).astype("int32")
    state = objective.init(sae)._replace(n_unused_steps=unused)

    # What is left over is a constant to the auxiliary term, whose value is known from the test above.
    def loss(sae):
        codes = learning_codes(sae, rows)
        errors = rows - jax.vmap(sae.decode)(codes)
        value = jnp.mean(jnp.sum(errors**2, axis=1)) + objective.l1 * jnp.mean(jnp.sum(jnp.abs(codes), 1))
        if strengths["auxiliary"] == 0:
            return value
        of_dead = jnp.where(unused >= 4, jax.nn.relu(jax.vmap(sae.activations)(rows)), 0)
        of_dead = jax.vmap(lambda a: ae.top_k(a, 2))(of_dead)
        return value + 0.5 * jnp.mean(jnp.sum((held - of_dead @ sae.atoms) ** 2, axis=1))

    held = rows - quick(jax.vmap(sae.decode))(quick(learning_codes)(sae, rows))
    came = quick(lambda m: objective.value_and_grad(m, state, rows, KEY)[1])(sae)
    expected = finite_differences(loss, sae)
    n = sae.encoder.weight.size + sae.encoder.bias.size
    numeric = expected[n : n + sae.atoms.size].reshape(sae.atoms.shape)
    direction = np.asarray(sae.atoms) / np.linalg.norm(sae.atoms, axis=1, keepdims=True)
    along = np.sum(numeric * direction, axis=1, keepdims=True)
    assert np.abs(along).max() > 0.1
    expected[n : n + sae.atoms.size] = (numeric - along * direction).ravel()
    np.testing.assert_allclose(flat(came), expected, rtol=1e-6, atol=1e-8)
    assert np.abs(np.sum(came.atoms * sae.atoms, axis=1)).max() < 1e-12


def test_only_kept_units_learn_from_the_squared_error(x64):
    sae, rows = machine(ae.TopK(2)), sparse_data(2, 3, "float64")
    objective = ae.SparseAutoencoderObjective(auxiliary=0.0)
    came = quick(lambda m: objective.value_and_grad(m, objective.init(m), rows, KEY)[1])(sae)
    is_used = np.asarray(quick(learning_codes)(sae, rows) != 0).any(axis=0)
    assert 2 <= is_used.sum() < 12
    for leaf in (came.encoder.weight, came.encoder.bias, came.atoms):
        np.testing.assert_array_equal(np.abs(np.reshape(leaf, (12, -1))).max(axis=1) > 0, is_used)


@pytest.fixture(scope="module")
def batch_top_k():
    """A machine with `BatchTopK` that has learned."""
    data = sparse_data(0, 500)
    sae = ae.SparseAutoencoder.from_data(data, 32, KEY, selection=ae.BatchTopK(3))
    return sae, learn(sae, ae.SparseAutoencoderObjective(), data)


def test_learning_explains_the_data_with_atoms_of_length_one(batch_top_k):
    sae, result = batch_top_k
    assert result.history["explained_variance"][-1] > 0.9 > 0.7 > result.history["explained_variance"][0]
    np.testing.assert_allclose(np.linalg.norm(result.model.atoms, axis=1), np.ones(32), rtol=1e-6)
    assert np.abs(result.model.atoms - sae.atoms).max() > 0.1
    assert result.history["n_active"][-1] == 3 and result.state.n_steps == 300


def test_the_threshold_makes_about_k_units_active_on_new_data(batch_top_k):
    sae, result = batch_top_k
    new = sparse_data(99, 500)
    active = quick(jax.vmap(lambda x: jnp.sum(result.model.encode(x) != 0)))(new)
    np.testing.assert_allclose(np.mean(active), 3, rtol=0.15)
    assert len(np.unique(active)) > 1  # of a datum more, of another fewer
    assert result.model.selection.threshold == result.state.threshold > 0
    # Before learning there is no threshold: an error, or where it cannot be seen NaN.
    with pytest.raises(ValueError, match=r"threshold: expected one ≥ 0, .* got -1"):
        sae.encode(new[0])
    assert jnp.isnan(eqx.filter_jit(lambda sae, x: sae.encode(x))(sae, new[0])).all()


def test_the_threshold_is_the_mean_of_the_least_kept_and_forgets_after_a_hundred_steps(x64):
    sae = machine(ae.BatchTopK(2))
    objective, batches = ae.SparseAutoencoderObjective(), sparse_data(4, 900, "float64").reshape(150, 6, 8)

    @quick
    def run(state, batches):
        def step(state, batch):
            (_, (state, _)), _ = objective.value_and_grad(sae, state, batch, KEY)
            codes = learning_codes(sae, batch)
            return state, (state.threshold, jnp.min(jnp.where(codes > 0, codes, jnp.inf)))

        return jax.lax.scan(step, state, batches)[1]

    thresholds, least = map(np.asarray, run(objective.init(sae), batches))
    np.testing.assert_allclose(thresholds[:100], np.cumsum(least[:100]) / np.arange(1, 101), rtol=1e-10)
    expected = thresholds[99]
    for value in least[100:]:
        expected = 0.99 * expected + 0.01 * value
    np.testing.assert_allclose(thresholds[-1], expected, rtol=1e-10)


def test_a_batch_without_active_units_leaves_the_threshold(x64):
    sae = machine(ae.BatchTopK(2))
    silent = eqx.tree_at(lambda m: m.encoder.bias, sae, jnp.full(12, -100.0))
    objective = ae.SparseAutoencoderObjective()
    state = objective.init(sae)._replace(threshold=jnp.array(0.7))
    (loss, (new, _)), came = quick(
        lambda m: objective.value_and_grad(m, state, sparse_data(2, 6, "float64"), KEY)
    )(silent)
    assert new.threshold == 0.7 and (new.n_unused_steps == 1).all()
    assert np.isfinite(loss) and np.isfinite(flat(came)).all()


def test_l0_moves_thresholds_up_and_reconstruction_moves_them_down(x64):
    """Units that are their atoms, data that lie close to the thresholds on either side."""
    layer = eqx.tree_at(
        lambda x: (x.weight, x.bias), eqx.nn.Linear(3, 3, dtype=float, key=KEY), (jnp.eye(3), jnp.zeros(3))
    )
    selection = ae.JumpReLU(jnp.log(jnp.full(3, 0.5)), 0.2)
    sae = ae.SparseAutoencoder(layer, jnp.eye(3), jnp.zeros(3), selection)
    rows = jnp.array([[0.45, 0.48, 0.55], [0.52, 0.42, 3.0]])

    @quick
    def slope(l0):
        objective = ae.SparseAutoencoderObjective(l0=l0, auxiliary=0.0)
        (loss, _), came = objective.value_and_grad(sae, objective.init(sae), rows, KEY)
        return loss, came.selection.log_threshold

    plain, penalised = slope(jnp.array(0.0)), slope(jnp.array(2.0))
    squared = np.array([[0.45, 0.48, 0], [0, 0.42, 0]])
    np.testing.assert_allclose(plain[0], np.sum(squared**2) / 2, rtol=1e-12)
    np.testing.assert_allclose(penalised[0] - plain[0], 2.0 * 3 / 2, rtol=1e-12)
    # ∂‖e‖²/∂θ = −2e·∂z/∂θ = 2e·θ/ε, and θ once more for its logarithm.
    np.testing.assert_allclose(plain[1], 2 * squared.mean(axis=0) * 0.5**2 / 0.2, rtol=1e-12)
    np.testing.assert_allclose(penalised[1] - plain[1], -2.0 * 0.5 / 0.2 * np.array([1, 1, 0.5]), rtol=1e-12)
    assert (plain[1][:2] > 0).all() and (penalised[1] < 0).all()


def test_the_price_of_active_units_is_obeyed_in_learning():
    data = sparse_data(0, 500)
    selection = ae.JumpReLU.from_threshold(32, 0.1, 0.1)
    sae = ae.SparseAutoencoder.from_data(data, 32, KEY, selection=selection)
    cheap, dear = (
        learn(sae, ae.SparseAutoencoderObjective(l0=jnp.array(l0, "float32")), data, 150)
        for l0 in (1e-4, 0.03)
    )
    thresholds = [np.mean(r.model.selection.log_threshold) for r in (cheap, dear)]
    assert thresholds[1] > np.log(0.1) + 0.1 and thresholds[1] > thresholds[0] + 0.1
    assert dear.history["n_active"][-1] < 0.7 * cheap.history["n_active"][-1]


def test_the_auxiliary_term_wakes_dead_units():
    data = sparse_data(0, 500)
    sae = ae.SparseAutoencoder.from_data(data, 32, KEY, selection=ae.TopK(2))
    # Half of the units are handicapped: active at times, and never among the largest.
    sae = eqx.tree_at(lambda m: m.encoder.bias, sae, jnp.where(jnp.arange(32) < 16, 0.0, -1.0))
    with_it, without = (
        learn(sae, ae.SparseAutoencoderObjective(auxiliary=jnp.array(strength), dead_after=10), data)
        for strength in (1.0, 0.0)
    )
    for result in (with_it, without):
        assert np.max(result.history["dead_fraction"]) * 32 >= 10  # dead they were
    used = quick(lambda m: jnp.any(jax.vmap(m.encode)(data) != 0, axis=0))
    n_used = [int(used(result.model)[16:].sum()) for result in (with_it, without)]
    assert n_used[0] >= 6 and n_used[1] <= 1
    assert with_it.history["dead_fraction"][-1] < without.history["dead_fraction"][-1] - 0.15


def test_unused_steps_are_counted():
    rows = jnp.eye(3)
    sae = ae.SparseAutoencoder(
        eqx.tree_at(lambda x: (x.weight, x.bias), eqx.nn.Linear(3, 3, key=KEY), (jnp.eye(3), jnp.zeros(3))),
        jnp.eye(3),
        jnp.zeros(3),
        ae.TopK(1),
    )
    objective = ae.SparseAutoencoderObjective(dead_after=2)
    state = objective.init(sae)
    step = quick(lambda state, batch: objective.value_and_grad(sae, state, batch, KEY)[0][1])
    seen = []
    for batch in (rows[:2], rows[1:2].repeat(2, 0), rows[:1].repeat(2, 0)):
        state, metrics = step(state, batch)
        seen.append((*state.n_unused_steps.tolist(), round(3 * float(metrics["dead_fraction"]))))
    # Whether a unit is dead is asked before the step.
    assert seen == [(0, 0, 1, 0), (1, 0, 2, 0), (0, 1, 3, 1)]


@pytest.mark.parametrize(("model", "data"), [("float32", "float64"), ("float64", "float32")])
def test_models_and_data_of_two_precisions(x64, model, data):
    """What `fit` carries from step to step keeps its dtypes."""
    sae = ae.SparseAutoencoder.from_data(sparse_data(0, 50, model), 6, KEY, selection=ae.BatchTopK(2))
    objective, rows = ae.SparseAutoencoderObjective(), sparse_data(0, 50, data)
    state = objective.init(sae)
    (loss, (new, _)), came = quick(lambda m: objective.value_and_grad(m, state, rows, KEY))(sae)
    assert loss.dtype == "float64" and new.threshold.dtype == came.atoms.dtype == model
    assert np.isfinite(flat(came)).all() and new.threshold > 0


def test_the_start(x64):
    data = sparse_data(0, 40, "float64")
    sae = ae.SparseAutoencoder.from_data(data, 12, KEY, selection=ae.TopK(3))
    np.testing.assert_allclose(np.linalg.norm(sae.atoms, axis=1), np.ones(12), rtol=1e-13)
    np.testing.assert_array_equal(sae.encoder.weight, sae.atoms)
    np.testing.assert_allclose(sae.decoder_bias, np.mean(data, axis=0), rtol=1e-13)
    assert not sae.encoder.bias.any() and sae.atoms.dtype == "float64"
    activations, errors_of = pieces(sae, np.asarray(data))
    code = np.where(activations[0] >= np.sort(activations[0])[-3], activations[0], 0)
    np.testing.assert_allclose(quick(sae.encode)(data[0]), code, rtol=1e-12)
    np.testing.assert_allclose(data[0] - quick(sae.reconstruct)(data[0]), errors_of(code[None])[0], rtol=1e-9)
