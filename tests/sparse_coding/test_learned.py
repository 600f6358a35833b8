"""Learned inference: the networks before training, their layers restated, and what training does to them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest_encode import lasso
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
def build(name, dictionary, strength, n_layers=N_LAYERS, **settings):
    return NETWORKS[name](dictionary, strength, n_layers, **settings)


weights_of = eqx.filter_jit(analytic_weights)


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
    new = [np.asarray(leaf) * rng.uniform(0.7, 1.3, leaf.shape).astype(leaf.dtype) for leaf in leaves]
    return eqx.tree_at(lambda n: [getattr(n, name) for name in names], network, new)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"),
    [
        ("LISTA", np.float32, 1e-6),
        ("LISTA", np.float64, 1e-14),
        ("tied LISTA", np.float64, 1e-14),
        ("ALISTA", np.float64, 1e-14),
    ],
)
def test_before_training_a_network_is_ista(name, dtype, tolerance, small, x64):
    """With one strength, and for LISTA with one for each atom."""
    atoms, xs = (a.astype(dtype) for a in small)
    per_atom = np.linspace(0.01, 0.2, 30).astype(dtype)
    for strength in (STRENGTH, per_atom) if name == "LISTA" else (STRENGTH,):
        codes = layers(build(name, Dictionary(atoms), strength), xs)
        expected = ista(Dictionary(atoms), xs, np.full(30, strength, dtype))
        assert np.any(expected[:, -1] != 0) and np.any(expected[:, -1] == 0)
        assert codes.dtype == dtype
        np.testing.assert_allclose(codes, expected, atol=tolerance)


@pytest.mark.parametrize("tied", [False, True])
def test_lista_is_its_formula(tied, small, x64):
    """Also at a datum that is NaN, which breaks its own code and no other."""
    atoms, xs = small
    network = perturbed(build("tied LISTA" if tied else "LISTA", Dictionary(atoms), STRENGTH))
    encoders, recurrences, thresholds = map(np.asarray, jax.tree.leaves(network))
    assert len(encoders) == len(recurrences) == (1 if tied else N_LAYERS)
    found, broken = layers(network, xs), layers(network, without_third(xs))
    code = np.zeros((8, 30))
    for k in range(N_LAYERS):
        shared = 0 if tied else k
        v = xs @ encoders[shared] + code @ recurrences[shared]
        code = np.sign(v) * np.maximum(np.abs(v) - thresholds[k], 0)
        np.testing.assert_allclose(found[:, k], code, atol=1e-13)
    assert_third_is_broken(broken, found)


def without_third(xs):
    return np.where((np.arange(8)[:, None] == 2) & (np.arange(20) == 0), np.nan, xs)


def assert_third_is_broken(broken, whole):
    others = np.arange(8) != 2
    assert np.all(np.isnan(broken[2, -1]))
    np.testing.assert_array_equal(broken[others], whole[others])


def test_alista_is_its_formula_with_support_selection(small, x64):
    """Also at a datum that is NaN, which breaks its own code and no other."""
    atoms, xs = small
    n_trusted = (0, 4, 30)
    start = build("ALISTA", Dictionary(atoms), STRENGTH, 3, n_trusted=n_trusted, blend=0.5)
    network = perturbed(start)
    step_sizes, thresholds, blends = (np.asarray(getattr(network, name)) for name in PARAMETERS)
    weights = np.asarray(weights_of(Dictionary(atoms)))
    found = layers(network, xs)
    code, n_kept = np.zeros((8, 30)), []
    for k, count in enumerate(n_trusted):
        back = (1 - blends[k]) * atoms + blends[k] * weights
        v = code + step_sizes[k] * (xs - code @ atoms) @ back.T
        shrunk = np.sign(v) * np.maximum(np.abs(v) - thresholds[k], 0)
        rank = np.argsort(np.argsort(-np.abs(v), axis=1), axis=1)
        is_kept = (rank < count) & (np.abs(v) > thresholds[k])
        code = np.where(is_kept, v, shrunk)
        n_kept.append(is_kept.sum(axis=1))
        np.testing.assert_allclose(found[:, k], code, atol=1e-13)
    assert np.all(n_kept[1] == 4) and np.all(n_kept[2] < 30)
    negative = eqx.tree_at(lambda n: n.thresholds, network, -network.thresholds)
    np.testing.assert_array_equal(layers(negative, xs), found)
    assert_third_is_broken(layers(network, without_third(xs)), found)


def test_the_largest_are_trusted_in_single_precision_and_ties_together():
    atoms = np.eye(5, dtype=np.float32)
    network = build("ALISTA", Dictionary(atoms), 0.5, 1, n_trusted=(2,))
    network = eqx.tree_at(lambda n: (n.step_sizes, n.thresholds), network, (np.ones(1), np.full(1, 0.5)))
    xs = [[3.0, -2.0, 2.0, 1.0, 0.25], [1.0, -4.0, 0.0, 1.5, 0.7], [0.4, 0.0, -0.3, 0.0, 0.0]]
    expected = [[3.0, -2.0, 2.0, 0.5, 0.0], [0.5, -4.0, 0.0, 1.5, 0.2], [0.0, 0.0, 0.0, 0.0, 0.0]]
    np.testing.assert_allclose(layers(network, np.array(xs, np.float32))[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("n_atoms, n_features", [(7, 4), (3, 5)])
def test_analytic_weights_minimise_under_the_constraint(n_atoms, n_features, x64):
    rng = np.random.default_rng(n_atoms)
    atoms = rng.normal(size=(n_atoms, n_features))
    weights = np.asarray(weights_of(Dictionary(atoms)))
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
    np.testing.assert_allclose(weights_of(Dictionary(atoms)), expected, atol=1e-10)


def test_analytic_weights_are_accurate_in_single_precision():
    """The condition is 2000, its square 4e6: a solve with the Gram matrix would leave nothing of it."""
    rng = np.random.default_rng(0)
    left, _, right = np.linalg.svd(rng.normal(size=(40, 20)), full_matrices=False)
    atoms = ((left * np.geomspace(1, 1 / 2000, 20)) @ right).astype(np.float32)
    weights = weights_of(Dictionary(atoms))
    with jax.enable_x64(True):
        expected = np.asarray(weights_of(Dictionary(atoms.astype(np.float64))))
    assert weights.dtype == np.float32
    assert np.max(np.abs(weights - expected)) < 1e-3 * np.max(np.abs(expected))


@eqx.filter_jit
def probed(points, fixed):
    """Return a weighted sum of codes for each of many networks and data, and its gradients."""
    probe = np.random.default_rng(1).normal(size=(8, 30))

    def total(point):
        learned, xs = point
        return jnp.sum(probe * jax.vmap(eqx.combine(learned, fixed))(xs))

    return jax.lax.map(eqx.filter_value_and_grad(total), points)


def test_gradients_are_those_of_finite_differences(small, x64):
    """In random directions of all that is learned, and of the data, in steps that pass no kink."""
    atoms, xs = small
    dictionary, rng, h = Dictionary(atoms[:, :10]), np.random.default_rng(2), 1e-7
    for network in (
        perturbed(build("LISTA", dictionary, STRENGTH, 3)),
        perturbed(build("ALISTA", dictionary, STRENGTH, 3, n_trusted=(1, 3, 5), blend=0.5)),
    ):
        mask = network.trainable() if isinstance(network, ALISTA) else True
        learned, fixed = eqx.partition(network, mask)
        point = jax.tree.map(np.asarray, (learned, xs[:, :10]))
        directions = jax.tree.map(lambda leaf: rng.normal(size=(3, *leaf.shape)), point)

        def line(leaf, d):
            return np.stack([leaf + step * one for one in d for step in (0, h, -h)])

        values, slopes = probed(jax.tree.map(line, point, directions), fixed)
        values = np.asarray(values).reshape(3, 3)
        for i in range(3):
            pairs = zip(jax.tree.leaves(slopes), jax.tree.leaves(directions), strict=True)
            slope = sum(np.sum(leaf[0] * direction[i]) for leaf, direction in pairs)
            np.testing.assert_allclose(slope, (values[i, 1] - values[i, 2]) / (2 * h), rtol=1e-6)


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
    error = layers(network, batch.x)[:, -1] - batch.code
    return 10 * np.log10(np.sum(error**2) / np.sum(batch.code**2))


draw = eqx.filter_jit(lambda sampler, key: sampler(key))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LISTA", "tied LISTA", "ALISTA"])
def test_training_improves_the_codes_of_data_it_has_not_seen(name, small):
    """By 3 dB at least: half the squared error of as many steps of ISTA."""
    sampler = Sampler(jnp.asarray(small[0], jnp.float32))
    network = build(name, Dictionary(sampler.atoms), STRENGTH)
    held_out = jax.device_get(draw(sampler, jax.random.key(7)))
    result = fit(
        network,
        CodeRegressionObjective(),
        sampler,
        optimizer=optax.adam(optax.cosine_decay_schedule(0.01, 150)),
        n_steps=150,
        key=KEY,
    )
    before, after = nmse(network, held_out), nmse(result.model, held_out)
    assert after < before - 3
    np.testing.assert_allclose(result.history["nmse"][0], before, atol=1.5)
    if name == "ALISTA":  # also where every array is handed to the optimiser
        assert eqx.tree_equal(result.model.dictionary, network.dictionary)
        assert eqx.tree_equal(result.model.weights, network.weights)


def test_only_the_parameters_are_trainable(small):
    """So that weight decay leaves dictionary and weights alone."""
    network = build("ALISTA", Dictionary(small[0].astype(np.float32)), STRENGTH, 2, blend=1.0)
    learned, fixed = eqx.partition(network, network.trainable())
    for name in PARAMETERS:
        assert getattr(learned, name) is not None and getattr(fixed, name) is None
    assert len(jax.tree.leaves(learned)) == len(PARAMETERS)
    assert fixed.weights is not None and fixed.dictionary.atoms is not None


def test_regression_loss_is_its_formula(small, x64):
    atoms, xs = small
    network = perturbed(build("LISTA", Dictionary(atoms), STRENGTH))
    codes = np.random.default_rng(3).normal(size=(8, 30))
    errors = np.sum((np.asarray(layers(network, xs)) - codes[:, None]) ** 2, axis=2)
    decibels = 10 * np.log10(errors[:, -1].sum() / np.sum(codes**2))
    batch = CodedData(jnp.asarray(xs), jnp.asarray(codes))
    for weights in (None, np.array([0, 0, 0, 0.5, 0.0, 2.0]), np.array([0, 0, 0, 0, 1.0, 0])):
        objective = CodeRegressionObjective(None if weights is None else jnp.asarray(weights))
        loss, (state, metrics) = eqx.filter_jit(objective)(network, None, batch, KEY)
        expected = errors.mean(axis=0) @ (np.eye(N_LAYERS)[-1] if weights is None else weights)
        np.testing.assert_allclose(loss, expected)
        np.testing.assert_allclose(metrics["nmse"], decibels)
        assert state is None and set(metrics) == {"nmse"}


def test_the_error_in_decibels_stays_finite():
    """Also for a function that is no network of ours, which the objective takes as well."""
    xs = np.zeros((4, 3), np.float32)
    loss_of = eqx.filter_jit(lambda batch: CodeRegressionObjective()(lambda x: x, None, batch, KEY))
    for code in (np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32)):
        loss, (_, metrics) = loss_of(CodedData(xs, code))
        assert np.isfinite(metrics["nmse"]) and loss == code[0].sum()


def test_amortized_loss_is_the_mean_energy_and_training_lowers_it(small):
    atoms, xs = (a.astype(np.float32) for a in small)
    dictionary = Dictionary(atoms)
    network, objective = (
        build("LISTA", dictionary, STRENGTH),
        AmortizedInferenceObjective(dictionary, L1(STRENGTH)),
    )
    loss, (_, metrics) = eqx.filter_jit(objective)(network, None, jnp.asarray(xs), KEY)
    codes = np.asarray(layers(network, xs)[:, -1])

    def mean_energy(codes):
        return np.mean(0.5 * np.sum((xs - codes @ atoms) ** 2, 1) + STRENGTH * np.sum(np.abs(codes), 1))

    np.testing.assert_allclose(loss, mean_energy(codes), rtol=1e-5)
    squared_error = np.mean(np.sum((xs - codes @ atoms) ** 2, 1))
    np.testing.assert_allclose(metrics["squared_error"], squared_error, rtol=1e-5)
    assert metrics["n_active"] == np.mean(np.sum(codes != 0, axis=1))

    result = fit(network, objective, jnp.asarray(xs), optimizer=optax.adam(3e-3), n_steps=100, key=KEY)
    best = mean_energy(np.array([lasso(*(a.astype(float) for a in (atoms, x)), STRENGTH) for x in xs]))
    assert best < result.history["loss"][-1] < best + 0.5 * (float(loss) - best)


def test_networks_are_made_inside_a_sweep(small, x64):
    atoms, xs = small

    @jax.jit
    @jax.vmap
    def swept(strength):
        return jax.vmap(ALISTA(Dictionary(atoms), strength, 3, n_trusted=(1, 2, 3)).layers)(xs)

    found = swept(np.array([STRENGTH, 0.1]))
    for strength, codes in zip((STRENGTH, 0.1), found, strict=True):
        alone = build("ALISTA", Dictionary(atoms), np.array(strength), 3, n_trusted=(1, 2, 3))
        # Its weights are solved for, with step sizes that differ by rounding.
        np.testing.assert_allclose(codes, layers(alone, xs), rtol=1e-6, atol=1e-10)


def test_bad_settings_are_named(small, untyped):
    dictionary = Dictionary(small[0].astype(np.float32))
    for name in ("LISTA", "ALISTA"):
        with pytest.raises(ValueError, match="n_layers: expected a whole number ≥ 1, got 0"):
            build(name, dictionary, 0.1, 0)
        with pytest.raises(ValueError, match=r"strength: expected a number ≥ 0, got -0\.1"):
            build(name, dictionary, -0.1, 2)
    with pytest.raises(
        ValueError, match=r"strength: expected shape \(30,\), one for each atom, got .*\(29,\)"
    ):
        build("LISTA", dictionary, np.ones(29), 2)
    with pytest.raises(ValueError, match=r"strength: expected 0 axes"):
        build("ALISTA", dictionary, np.ones(30), 2)
    with pytest.raises(ValueError, match=r"n_trusted: expected shape \(2,\), a count for each layer"):
        build("ALISTA", dictionary, 0.1, 2, n_trusted=(1, 2, 3))
    with pytest.raises(ValueError, match="n_trusted: expected at most 30, the number of atoms, got 31"):
        build("ALISTA", dictionary, 0.1, 2, n_trusted=(1, 31))
    counts: list[Any] = [-1, 2.5]
    for count in counts:
        with pytest.raises(ValueError, match=f"n_trusted: expected a whole number ≥ 0, got {count}"):
            build("ALISTA", dictionary, 0.1, 2, n_trusted=(1, count))


def test_bad_data_are_named(small, untyped):
    dictionary = Dictionary(small[0].astype(np.float32))
    networks = [build(name, dictionary, 0.1, 2) for name in ("LISTA", "ALISTA")]
    for network in networks:
        with pytest.raises(
            ValueError, match=r"x: expected 20 features of the dictionary on axis 0, got .*\(19,\)"
        ):
            network(np.ones(19, np.float32))
        with pytest.raises(ValueError, match=r"x: expected 1 axes \(features\), got shape \(8, 20\)"):
            network.layers(np.ones((8, 20), np.float32))
        with pytest.raises(ValueError, match="x: expected real numbers, got dtype complex"):
            network(np.ones(20, complex))
    network, xs = networks[0], np.ones((8, 20), np.float32)
    with pytest.raises(
        ValueError, match=r"code: expected shape \(8, 30\), a code of the network's size a datum"
    ):
        CodeRegressionObjective()(network, None, CodedData(xs, np.ones((8, 29), np.float32)), KEY)
    with pytest.raises(ValueError, match=r"layer_weights: expected shape \(2,\), a weight for each layer"):
        CodeRegressionObjective(jnp.ones(3))(network, None, CodedData(xs, np.ones((8, 30), np.float32)), KEY)
    penalty: Any = Log(0.1)
    with pytest.raises(ValueError, match="energy: expected a penalty with a value, got Log"):
        eqx.filter_jit(AmortizedInferenceObjective(dictionary, penalty))(network, None, xs, KEY)
