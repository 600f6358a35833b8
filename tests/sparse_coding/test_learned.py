"""Learned inference: the networks before training, their layers restated, and what training does to them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from scipy.optimize import minimize

from neurojax.convergence import trace
from neurojax.penalties import L1, Log
from neurojax.sparse_coding import (
    ALISTA,
    ISTA,
    LISTA,
    AmortizedInferenceObjective,
    CodedData,
    CodeRegressionObjective,
    Dictionary,
    analytic_weights,
    encode_batch,
    energy,
    make_problem,
)
from neurojax.training import fit

KEY = jax.random.key(0)
STRENGTH, N_LAYERS = 0.05, 6
NETWORKS = {
    "LISTA": LISTA,
    "tied LISTA": lambda *arguments: LISTA(*arguments, tied=True),
    "ALISTA": ALISTA,
}
PARAMETERS = ("step_sizes", "thresholds", "blends")


@eqx.filter_jit
def layers(network, xs):
    return jax.vmap(network.layers)(xs)


@eqx.filter_jit
def ista(dictionary, xs, strength):
    """Return the iterates of ISTA, from zero, after each step."""

    def one(x):
        problem, solver = make_problem(dictionary, x, L1(strength)), ISTA()
        states = trace(solver, problem, jnp.zeros(dictionary.n_atoms, x.dtype), N_LAYERS)
        return jax.vmap(solver.value)(states)[1:]

    return jax.vmap(one)(xs)


def perturbed(network, seed=0):
    """Return the network with parameters of its own in each layer, as training leaves them."""
    rng = np.random.default_rng(seed)
    names = PARAMETERS if isinstance(network, ALISTA) else ("encoders", "recurrences", "thresholds")
    leaves = [getattr(network, name) for name in names]
    new = [leaf * jnp.asarray(rng.uniform(0.7, 1.3, leaf.shape), leaf.dtype) for leaf in leaves]
    return eqx.tree_at(lambda n: [getattr(n, name) for name in names], network, new)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_before_training_a_network_is_ista(make, dtype, tolerance, small, x64):
    atoms, xs = (jnp.asarray(a, dtype) for a in small)
    network, expected = make(Dictionary(atoms), STRENGTH, N_LAYERS), ista(Dictionary(atoms), xs, STRENGTH)
    assert np.any(expected[:, -1] != 0) and np.any(expected[:, -1] == 0)
    codes = layers(network, xs)
    assert codes.dtype == dtype
    np.testing.assert_allclose(codes, expected, atol=tolerance)


def test_a_strength_for_each_atom_is_that_of_ista(small, x64):
    atoms, xs = map(jnp.asarray, small)
    strength = jnp.linspace(0.01, 0.2, 30)
    codes = layers(LISTA(Dictionary(atoms), strength, N_LAYERS), xs)
    np.testing.assert_allclose(codes, ista(Dictionary(atoms), xs, strength), atol=1e-14)


@pytest.mark.parametrize("tied", [False, True])
def test_lista_is_its_formula(tied, small, x64):
    atoms, xs = small
    network = perturbed(LISTA(Dictionary(atoms), STRENGTH, 3, tied=tied))
    encoders, recurrences, thresholds = map(np.asarray, jax.tree.leaves(network))
    assert len(encoders) == len(recurrences) == (1 if tied else 3)
    code = np.zeros((8, 30))
    for k in range(3):
        shared = 0 if tied else k
        v = xs @ encoders[shared] + code @ recurrences[shared]
        code = np.sign(v) * np.maximum(np.abs(v) - thresholds[k], 0)
        np.testing.assert_allclose(layers(network, xs)[:, k], code, atol=1e-13)


def test_alista_is_its_formula_with_support_selection(small, x64):
    atoms, xs = small
    n_trusted = (0, 4, 30)
    start = ALISTA(Dictionary(atoms), STRENGTH, 3, n_trusted=n_trusted, blend=0.5)
    network = perturbed(start)
    step_sizes, thresholds, blends = (np.asarray(getattr(network, name)) for name in PARAMETERS)
    weights = np.asarray(analytic_weights(Dictionary(atoms)))
    code, n_kept = np.zeros((8, 30)), []
    for k, count in enumerate(n_trusted):
        back = (1 - blends[k]) * atoms + blends[k] * weights
        v = code + step_sizes[k] * (xs - code @ atoms) @ back.T
        shrunk = np.sign(v) * np.maximum(np.abs(v) - thresholds[k], 0)
        rank = np.argsort(np.argsort(-np.abs(v), axis=1), axis=1)
        is_kept = (rank < count) & (np.abs(v) > thresholds[k])
        code = np.where(is_kept, v, shrunk)
        n_kept.append(is_kept.sum(axis=1))
        np.testing.assert_allclose(layers(network, xs)[:, k], code, atol=1e-13)
    assert np.all(n_kept[1] == 4) and np.all(n_kept[2] < 30)
    negative = eqx.tree_at(lambda n: n.thresholds, network, -network.thresholds)
    np.testing.assert_array_equal(layers(negative, xs), layers(network, xs))


def test_the_largest_are_trusted_in_single_precision_and_ties_together(small):
    atoms = np.eye(5, dtype=np.float32)
    network = ALISTA(Dictionary(atoms), 0.5, 1, n_trusted=(2,))
    network = eqx.tree_at(lambda n: (n.step_sizes, n.thresholds), network, (jnp.ones(1), jnp.full(1, 0.5)))
    xs = jnp.array([[3.0, -2.0, 2.0, 1.0, 0.25], [1.0, -4.0, 0.0, 1.5, 0.7], [0.4, 0.0, -0.3, 0.0, 0.0]])
    expected = [[3.0, -2.0, 2.0, 0.5, 0.0], [0.5, -4.0, 0.0, 1.5, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(jax.vmap(network)(xs), expected, rtol=1e-6)


def test_a_broken_datum_breaks_its_own_code_alone(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    xs = xs.at[2, 0].set(jnp.nan)
    for network in (
        LISTA(Dictionary(atoms), STRENGTH, N_LAYERS),
        ALISTA(Dictionary(atoms), STRENGTH, N_LAYERS, n_trusted=[5] * N_LAYERS),
    ):
        is_broken = np.isnan(layers(network, xs)[:, -1])
        np.testing.assert_array_equal(is_broken.any(axis=1), np.arange(8) == 2)
        assert is_broken[2].all()


@pytest.mark.parametrize("n_atoms, n_features", [(7, 4), (4, 4), (3, 5)])
def test_analytic_weights_minimise_under_the_constraint(n_atoms, n_features, x64):
    rng = np.random.default_rng(n_atoms)
    atoms = rng.normal(size=(n_atoms, n_features))
    weights = np.asarray(analytic_weights(Dictionary(atoms)))
    np.testing.assert_allclose(np.sum(weights * atoms, axis=1), 1)
    for atom, row in zip(atoms, weights, strict=True):
        result = minimize(
            lambda w: np.sum((atoms @ w) ** 2),
            atom / np.sum(atom**2),
            constraints={"type": "eq", "fun": lambda w, atom=atom: w @ atom - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert result.success
        np.testing.assert_allclose(atoms @ row, atoms @ result.x, atol=1e-5)
        assert np.linalg.norm(row) <= np.linalg.norm(result.x) + 1e-5


def test_analytic_weights_of_atoms_that_span_less_than_the_features(x64):
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(9, 3)) @ rng.normal(size=(3, 6))
    gram_inverse = np.linalg.pinv(atoms.T @ atoms, rcond=1e-10)
    expected = atoms @ gram_inverse / np.sum((atoms @ gram_inverse) * atoms, axis=1, keepdims=True)
    np.testing.assert_allclose(analytic_weights(Dictionary(atoms)), expected, atol=1e-10)


def test_analytic_weights_are_accurate_in_single_precision():
    """The condition is 2000, its square 4e6: a solve with the Gram matrix would leave nothing of it."""
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=(40, 20)), full_matrices=False)
    atoms = ((left * np.geomspace(1, 1 / 2000, 20)) @ right).astype(np.float32)
    weights = analytic_weights(Dictionary(atoms))
    with jax.enable_x64(True):
        expected = np.asarray(analytic_weights(Dictionary(atoms.astype(np.float64))))
    assert weights.dtype == np.float32
    assert np.max(np.abs(weights - expected)) < 1e-3 * np.max(np.abs(expected))


def test_gradients_are_those_of_finite_differences(small, x64):
    atoms, xs = small
    probe = np.random.default_rng(1).normal(size=(8, 30))
    dictionary = Dictionary(atoms[:, :10])
    for network in (
        perturbed(LISTA(dictionary, STRENGTH, 3)),
        perturbed(ALISTA(dictionary, STRENGTH, 3, n_trusted=(1, 3, 5), blend=0.5)),
    ):
        mask = network.trainable() if isinstance(network, ALISTA) else True
        learned, fixed = eqx.partition(network, mask)

        def total(learned, xs, fixed=fixed):
            return jnp.sum(probe * jax.vmap(eqx.combine(learned, fixed))(xs))

        # Steps so small that none passes a kink.
        point = learned, jnp.asarray(xs[:, :10])
        check_grads(jax.jit(total), point, order=1, eps=1e-7, rtol=1e-6)


class Sampler(eqx.Module):
    """Codes with one coefficient in eight, and their data."""

    atoms: jax.Array

    def __call__(self, key):
        keys = jax.random.split(key, 3)
        is_on = jax.random.bernoulli(keys[0], 1 / 8, (64, self.atoms.shape[0]))
        code = jnp.where(is_on, jax.random.normal(keys[1], is_on.shape), 0)
        noise = 0.01 * jax.random.normal(keys[2], (64, self.atoms.shape[1]))
        return CodedData(code @ self.atoms + noise, code)


def nmse(network, batch):
    error = jax.vmap(network)(batch.x) - batch.code
    return 10 * np.log10(np.sum(error**2) / np.sum(batch.code**2))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_training_improves_the_codes_of_data_it_has_not_seen(make, small):
    """By 3 dB at least: half the squared error of as many steps of ISTA."""
    atoms = jnp.asarray(small[0], jnp.float32)
    network = make(Dictionary(atoms), STRENGTH, N_LAYERS)
    held_out = Sampler(atoms)(jax.random.key(7))
    result = fit(
        network,
        CodeRegressionObjective(),
        Sampler(atoms),
        optimizer=optax.adam(optax.cosine_decay_schedule(0.01, 150)),
        n_steps=150,
        key=KEY,
    )
    before, after = nmse(network, held_out), nmse(result.model, held_out)
    assert after < before - 3
    np.testing.assert_allclose(result.history["nmse"][0], before, atol=1.5)
    if isinstance(network, ALISTA):  # also where every array is handed to the optimiser
        assert eqx.tree_equal(result.model.dictionary, network.dictionary)
        assert eqx.tree_equal(result.model.weights, network.weights)


def test_weight_decay_moves_only_what_is_trainable(small):
    atoms = jnp.asarray(small[0], jnp.float32)
    network = ALISTA(Dictionary(atoms), STRENGTH, 2, blend=1.0)

    model = fit(
        network,
        CodeRegressionObjective(),
        Sampler(atoms),
        optimizer=optax.adamw(0.01, weight_decay=0.1),
        n_steps=3,
        key=KEY,
        trainable=network.trainable(),
    ).model
    assert eqx.tree_equal(model.dictionary, network.dictionary)
    assert eqx.tree_equal(model.weights, network.weights)
    assert all(np.all(getattr(model, name) != getattr(network, name)) for name in PARAMETERS)


def test_regression_loss_is_its_formula(small, x64):
    atoms, xs = small
    network = perturbed(LISTA(Dictionary(atoms), STRENGTH, 3))
    codes = np.random.default_rng(3).normal(size=(8, 30))
    errors = np.sum((np.asarray(layers(network, xs)) - codes[:, None]) ** 2, axis=2)
    decibels = 10 * np.log10(errors[:, -1].sum() / np.sum(codes**2))
    batch = CodedData(jnp.asarray(xs), jnp.asarray(codes))
    for weights in (None, np.array([0.5, 0.0, 2.0]), np.array([0.0, 1.0, 0.0])):
        objective = CodeRegressionObjective(None if weights is None else jnp.asarray(weights))
        loss, (state, metrics) = eqx.filter_jit(objective)(network, None, batch, KEY)
        expected = errors.mean(axis=0) @ (np.array([0, 0, 1.0]) if weights is None else weights)
        np.testing.assert_allclose(loss, expected)
        np.testing.assert_allclose(metrics["nmse"], decibels)
        assert state is None and set(metrics) == {"nmse"}


def test_the_error_in_decibels_stays_finite():
    """Also for a function that is no network of ours, which the objective takes as well."""
    for code in (jnp.zeros((4, 3)), jnp.ones((4, 3))):
        batch = CodedData(jnp.zeros((4, 3)), code)
        loss, (_, metrics) = CodeRegressionObjective()(lambda x: x, None, batch, KEY)
        assert np.isfinite(metrics["nmse"]) and loss == code[0].sum()


def test_amortized_loss_is_the_mean_energy_and_training_lowers_it(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    dictionary, network = Dictionary(atoms), LISTA(Dictionary(atoms), STRENGTH, 3)
    objective = AmortizedInferenceObjective(dictionary, L1(STRENGTH))
    loss, (_, metrics) = eqx.filter_jit(objective)(network, None, xs, KEY)
    codes = layers(network, xs)[:, -1]

    @eqx.filter_jit
    def mean_energy(codes):
        return jnp.mean(jax.vmap(lambda x, code: energy(dictionary, x, code, L1(STRENGTH)))(xs, codes))

    np.testing.assert_allclose(loss, mean_energy(codes), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["squared_error"], np.mean(np.sum((xs - codes @ atoms) ** 2, 1)), rtol=1e-5
    )
    assert metrics["n_active"] == np.mean(np.sum(codes != 0, axis=1))

    result = fit(network, objective, xs, optimizer=optax.adam(3e-3), n_steps=100, key=KEY)
    best = mean_energy(encode_batch(dictionary, xs, L1(STRENGTH)).value)
    assert best < result.history["loss"][-1] < best + 0.5 * (float(loss) - best)


def test_networks_compose(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    network = ALISTA(Dictionary(atoms), STRENGTH, 3, n_trusted=(1, 2, 3))
    head = eqx.nn.Linear(30, 2, key=KEY)
    outputs = eqx.filter_jit(lambda chain, x: chain(x))(eqx.nn.Sequential([network, head]), xs[0])
    np.testing.assert_allclose(outputs, head(layers(network, xs)[0, -1]), atol=1e-5)

    @eqx.filter_jit
    def swept(strengths):
        return jax.vmap(lambda strength: ALISTA(Dictionary(atoms), strength, 3)(xs[0]))(strengths)

    for strength in (0.01, 0.1):
        code = layers(ALISTA(Dictionary(atoms), strength, 3), xs)[0, -1]
        np.testing.assert_allclose(swept(jnp.array([0.03, strength]))[1], code, atol=1e-6)


def test_bad_settings_are_named(small, untyped):
    dictionary = Dictionary(jnp.asarray(small[0], jnp.float32))
    for make in (LISTA, ALISTA):
        with pytest.raises(ValueError, match="n_layers: expected a whole number ≥ 1, got 0"):
            make(dictionary, 0.1, 0)
        with pytest.raises(ValueError, match=r"strength: expected a number ≥ 0, got -0\.1"):
            make(dictionary, -0.1, 2)
    with pytest.raises(
        ValueError, match=r"strength: expected shape \(30,\), one for each atom, got .*\(29,\)"
    ):
        LISTA(dictionary, np.ones(29), 2)
    with pytest.raises(ValueError, match=r"strength: expected 0 axes"):
        ALISTA(dictionary, np.ones(30), 2)
    with pytest.raises(ValueError, match=r"n_trusted: expected shape \(2,\), a count for each layer"):
        ALISTA(dictionary, 0.1, 2, n_trusted=(1, 2, 3))
    with pytest.raises(ValueError, match="n_trusted: expected at most 30, the number of atoms, got 31"):
        ALISTA(dictionary, 0.1, 2, n_trusted=(1, 31))
    counts: list[Any] = [-1, 2.5]
    for count in counts:
        with pytest.raises(ValueError, match=f"n_trusted: expected a whole number ≥ 0, got {count}"):
            ALISTA(dictionary, 0.1, 2, n_trusted=(1, count))


def test_bad_data_are_named(small, untyped):
    dictionary = Dictionary(jnp.asarray(small[0], jnp.float32))
    for network in (LISTA(dictionary, 0.1, 2), ALISTA(dictionary, 0.1, 2)):
        with pytest.raises(
            ValueError, match=r"x: expected 20 features of the dictionary on axis 0, got .*\(19,\)"
        ):
            network(np.ones(19, np.float32))
        with pytest.raises(ValueError, match=r"x: expected 1 axes \(features\), got shape \(8, 20\)"):
            network.layers(np.ones((8, 20), np.float32))
        with pytest.raises(ValueError, match="x: expected real floating-point numbers, got dtype int"):
            network(np.ones(20, np.int32))
    network, xs = LISTA(dictionary, 0.1, 2), jnp.ones((8, 20))
    with pytest.raises(
        ValueError, match=r"code: expected shape \(8, 30\), a code of the network's size a datum"
    ):
        CodeRegressionObjective()(network, None, CodedData(xs, jnp.ones((8, 29))), KEY)
    with pytest.raises(ValueError, match=r"layer_weights: expected shape \(2,\), a weight for each layer"):
        CodeRegressionObjective(jnp.ones(3))(network, None, CodedData(xs, jnp.ones((8, 30))), KEY)
    penalty: Any = Log(0.1)
    with pytest.raises(ValueError, match="energy: expected a penalty with a value, got Log"):
        AmortizedInferenceObjective(dictionary, penalty)(network, None, xs, KEY)
