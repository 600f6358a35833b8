"""An accelerator against the CPU of the same process: products, codes, gradients, estimates and updates.

The tests skip themselves where JAX's default device is a CPU, unless NEUROJAX_GPU_TESTS=cpu asks for the CPU
in both roles, which shows that the tests themselves still run. They need pytest, but no plugin of it and no
fixture from elsewhere, so that they run in a bare environment:

    pytest -o addopts= --noconftest -m gpu tests/gpu
"""

import os
from functools import partial

# Several processes may use the device at once; by default the first would take three quarters of its memory.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from neurojax import autoencoder as ae
from neurojax import boltzmann
from neurojax.convergence import Implicit, Status
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    Dictionary,
    SparseCodingObjective,
    duality_gap,
    encode_batch,
    fit_dictionary_online,
    random_dictionary,
)
from neurojax.training import fit

pytestmark = pytest.mark.gpu
STRENGTH, TOL = 0.5, 1e-5
SGD = optax.sgd(0.1)  # one object for all: `fit` compiles anew for another


@pytest.fixture(scope="module")
def both():
    """Return a function that runs a computation on the CPU and on the accelerator, with NumPy results."""
    accelerator = jax.devices()[0]
    if accelerator.platform == "cpu" and os.environ.get("NEUROJAX_GPU_TESTS") != "cpu":
        pytest.skip("no accelerator")
    devices = jax.devices("cpu")[0], accelerator

    def run(compute):
        results = []
        for device in devices:
            with jax.default_device(device):
                result = jax.block_until_ready(compute())
                for leaf in jax.tree.leaves(result):
                    assert leaf.devices() == {device}
                results.append(jax.tree.map(np.asarray, result))
        return results

    return run


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def binary(seed, *shape):
    return np.float32(np.random.default_rng(seed).random(shape) < 0.3)


def relative_error(value, truth):
    """Return ‖value − truth‖/‖truth‖ over all arrays of two trees together, in float64."""

    def flat(tree):
        return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])

    return np.linalg.norm(flat(value) - flat(truth)) / np.linalg.norm(flat(truth))


def moved(model, fitted):
    """Return what an update added to the parameters."""
    return jax.tree.map(jnp.subtract, *(eqx.filter(tree, eqx.is_inexact_array) for tree in (fitted, model)))


def products(atoms, xs, codes):
    """Return products that inference and learning take, each with its float64 value."""
    wide = [np.asarray(array, np.float64) for array in (atoms, xs, codes)]

    def compute():
        dictionary, rows, z = Dictionary(jnp.asarray(atoms)), jnp.asarray(xs), jnp.asarray(codes)
        rbm = boltzmann.BernoulliRBM(dictionary.atoms.T, jnp.zeros(len(xs[0])), jnp.zeros(len(atoms)))

        def error(atoms):
            return 0.5 * jnp.sum((rows - jax.vmap(Dictionary(atoms).reconstruct)(z)) ** 2)

        return {
            "reconstruct": jax.vmap(dictionary.reconstruct)(z),
            "correlate": jax.vmap(dictionary.correlate)(rows),
            "gradient": jax.grad(error)(dictionary.atoms),
            "hidden input": jax.vmap(rbm.hidden_input)(rows),
        }

    atoms, xs, codes = wide
    truth = {"reconstruct": codes @ atoms, "correlate": xs @ atoms.T, "hidden input": xs @ atoms.T}
    return compute, truth | {"gradient": -codes.T @ (xs - codes @ atoms)}


def test_products_are_those_of_float64_to_1e_6(both):
    atoms, xs, codes = normal(0, 512, 256), normal(1, 1024, 256), normal(2, 1024, 512)
    compute, truth = products(atoms, xs, codes)
    for result in both(compute):
        errors = {name: relative_error(result[name], truth[name]) for name in truth}
        assert all(error <= 1e-6 for error in errors.values()), errors


def test_codes_agree_as_far_as_their_certificates_say(both):
    atoms, xs = np.asarray(random_dictionary(jax.random.key(0), 128, 64).atoms), normal(3, 300, 64)

    def encode():
        return encode_batch(Dictionary(jnp.asarray(atoms)), jnp.asarray(xs), L1(STRENGTH), tol=TOL)

    cpu, gpu = both(encode)
    halves = 0.5 * np.sum(xs.astype(np.float64) ** 2, axis=1)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        wide = Dictionary(jnp.asarray(atoms, jnp.float64))
        gap = jax.jit(jax.vmap(lambda x, z: duality_gap(wide, x, z, L1(jnp.float64(STRENGTH)))))
        for solution in (cpu, gpu):
            assert np.all(solution.status == Status.converged)
            gaps = gap(jnp.asarray(xs, jnp.float64), jnp.asarray(solution.value, jnp.float64))
            assert np.max(np.asarray(gaps) / halves) <= 1.01 * TOL
    # ½‖z @ atoms − z* @ atoms‖² is at most the gap.
    apart = np.linalg.norm((gpu.value.astype(np.float64) - cpu.value) @ atoms, axis=1)
    assert np.all(apart <= 2 * np.sqrt(2 * 1.01 * TOL * halves))
    assert relative_error(gpu.value, cpu.value) <= 1e-3


def test_gradients_through_codes_agree(both):
    atoms = np.asarray(random_dictionary(jax.random.key(0), 96, 64).atoms, np.float64)
    xs = normal(4, 64, 64).astype(np.float64)

    @jax.jit
    @partial(jax.grad, argnums=(0, 1))
    def gradient(atoms, rows):
        penalty = L1(jnp.float64(STRENGTH))
        codes = encode_batch(Dictionary(atoms), rows, penalty, tol=1e-12, gradient=Implicit()).value
        return jnp.mean(jnp.sin(codes))

    # In float64, where a coefficient that is almost zero is not active on one device and inactive on another.
    with jax.enable_x64(True):
        cpu, gpu = both(lambda: gradient(jnp.asarray(atoms), jnp.asarray(xs)))
    assert relative_error(gpu, cpu) <= 1e-6


def test_annealed_importance_sampling_agrees(both):
    weights, visible_bias = normal(5, 40, 12), normal(6, 40)

    def estimates():
        rbm = boltzmann.BernoulliRBM(jnp.asarray(weights), jnp.asarray(visible_bias), jnp.zeros(12))
        ais = boltzmann.log_partition_ais(
            rbm, jax.random.key(1), base_visible_bias=rbm.visible_bias, n_chains=200, n_temperatures=500
        )
        return ais, boltzmann.log_partition_exact(rbm)

    (cpu, _), (gpu, exact) = both(estimates)
    # The draws are the same, but for probabilities that round to the other side of one.
    assert abs(gpu.value - cpu.value) <= gpu.standard_error
    assert abs(gpu.value - exact) <= 5 * gpu.standard_error + 0.05


def test_an_update_of_persistent_contrastive_divergence_agrees(both):
    rows, weights = binary(7, 100, 784), 0.05 * normal(8, 784, 128)

    def update():
        rbm = boltzmann.BernoulliRBM(jnp.asarray(weights), jnp.zeros(784), jnp.zeros(128))
        objective = boltzmann.ContrastiveObjective()
        result = fit(
            rbm, objective, jnp.asarray(rows), optimizer=SGD, n_steps=1, progress=False,
            key=jax.random.key(2), state=objective.init(rbm, 100, jax.random.key(1)),
        )  # fmt: skip
        return moved(rbm, result.model)

    cpu, gpu = both(update)
    assert relative_error(gpu, cpu) <= 1e-2  # a draw in a hundred thousand may be another


def test_an_update_of_a_variational_autoencoder_agrees(both):
    rows = binary(9, 100, 784)

    def update():
        vae = ae.VariationalAutoencoder.from_sizes(784, [64, 64], 10, jax.random.key(0))
        result = fit(
            vae, ae.ELBOObjective(), jnp.asarray(rows), optimizer=SGD, n_steps=1, progress=False,
            key=jax.random.key(1),
        )  # fmt: skip
        return moved(vae, result.model)

    cpu, gpu = both(update)
    assert relative_error(gpu, cpu) <= 1e-4


def test_an_update_of_a_sparse_autoencoder_agrees(both):
    rows = normal(10, 256, 64)

    def update():
        data = jnp.asarray(rows)
        sae = ae.SparseAutoencoder.from_data(data, 512, jax.random.key(0), selection=ae.TopK(8))
        objective = ae.SparseAutoencoderObjective()
        result = fit(
            sae, objective, data, optimizer=SGD, n_steps=1, progress=False,
            key=jax.random.key(1), state=objective.init(sae), after_update=ae.SparseAutoencoderUpkeep(),
        )  # fmt: skip
        return moved(sae, result.model)

    cpu, gpu = both(update)
    assert relative_error(gpu, cpu) <= 1e-3  # units of nearly the same activation may change places


@pytest.mark.parametrize("rule", ["online", "gradient"])
def test_an_update_of_a_dictionary_agrees(both, rule):
    atoms, xs = np.asarray(random_dictionary(jax.random.key(0), 96, 64).atoms), normal(11, 256, 64)

    def update():
        dictionary, rows, key = Dictionary(jnp.asarray(atoms)), jnp.asarray(xs), jax.random.key(1)
        if rule == "online":
            return fit_dictionary_online(
                dictionary, L1(STRENGTH), rows, n_steps=1, key=key, tol=TOL, progress=False
            ).model.atoms
        objective = SparseCodingObjective(L1(STRENGTH), tol=TOL)
        fitted = fit(dictionary, objective, rows, optimizer=SGD, n_steps=1, key=key, progress=False)
        return moved(dictionary, fitted.model)

    cpu, gpu = both(update)
    assert relative_error(gpu, cpu) <= 5e-4
