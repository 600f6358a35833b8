"""Partition functions: exact ones against enumeration; estimates within their standard errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    bernoulli_rbm,
    binary_states,
    enumerate_rbm,
    log_partition_exact,
    negative_energies,
    one_hot_states,
    parameters,
    random_parameters,
)

from neurojax import boltzmann as bm

log_partition_gradient = jax.jit(jax.grad(bm.log_partition_exact))


@partial(jax.jit, static_argnames=("n_chains", "n_temperatures"))
def ais(rbm, key, base, **settings):
    return bm.log_partition_ais(rbm, key, base_visible_bias=base, **settings)


@partial(jax.jit, static_argnames="n_temperatures")
def reverse(rbm, samples, key, base, n_temperatures):
    return bm.log_partition_reverse_ais(
        rbm, samples, key, base_visible_bias=base, n_temperatures=n_temperatures
    )


@pytest.mark.parametrize("shape", [(1, 1), (3, 12), (12, 3), (12, 12), (11, 12)], ids=str)
def test_log_partition_by_enumeration_in_both_orientations(x64, shape):
    double = bernoulli_rbm(sum(shape), *shape)
    truth = enumerate_rbm(*parameters(double))
    np.testing.assert_allclose(log_partition_exact(double), truth.log_z, rtol=1e-13)
    single = jax.tree.map(lambda x: x.astype("float32"), double)
    came = log_partition_exact(single)
    assert came.dtype == "float32"
    np.testing.assert_allclose(came, truth.log_z, rtol=2e-6)


def test_more_hidden_units_than_a_block_and_visible_units_that_no_one_can_enumerate(x64):
    w, b, c = random_parameters(5, 30, 13, 0.5)
    h = binary_states(13)
    expected = np.logaddexp.reduce(h @ c + np.sum(np.logaddexp(0, b + h @ w.T), axis=1))
    for rbm in (bm.BernoulliRBM(w, b, c), bm.BernoulliRBM(w.T, c, b)):
        np.testing.assert_allclose(log_partition_exact(rbm), expected, rtol=1e-13)
    potts = bm.PottsRBM(w, b, c, n_states=5)
    sites = (b + h @ w.T).reshape(-1, 6, 5)
    expected = np.logaddexp.reduce(h @ c + np.logaddexp.reduce(sites, axis=2).sum(axis=1))
    np.testing.assert_allclose(log_partition_exact(potts), expected, rtol=1e-13)


def test_published_value_of_bars_and_stripes(x64):
    # The 4 by 4 machine of PyDeep's unit tests (M. Melchior), and its log Z.
    weights = jnp.array([
        [0.12179488, 2.95950177, 0.33513356, 35.05380642],
        [0.20318085, -28.62372894, 26.52611278, 28.41793445],
        [-0.19105386, -28.58530584, -26.52747507, 28.78447320],
        [0.08953740, -59.82556859, -0.06665933, -27.71723459],
    ])  # fmt: skip
    visible_bias = jnp.array([-19.24399659, -13.26258696, 13.25909850, 43.74408543])
    hidden_bias = jnp.array([-0.11155958, 57.02097584, -0.13331758, -32.25991501])
    rbm = bm.BernoulliRBM(weights, visible_bias, hidden_bias)
    np.testing.assert_allclose(log_partition_exact(rbm), 59.6749019726, atol=1e-9)
    # Its data: bars and stripes of 2 by 2 pixels, the empty and the full image twice.
    rows = [[0, 0, 0, 0]] * 2 + [[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]] + [[1, 1, 1, 1]] * 2
    log_likelihoods = jax.vmap(bm.log_likelihood, (None, 0, None))
    mean = log_likelihoods(rbm, jnp.array(rows, float), log_partition_exact(rbm)).mean()
    np.testing.assert_allclose(mean, -1.7328699078, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 12), (6, 3)], ids=str)
def test_gradient_of_the_log_partition_is_the_mean_of_minus_the_energys(x64, shape):
    rbm = bernoulli_rbm(6, *shape)
    truth = enumerate_rbm(*parameters(rbm))
    gradient = log_partition_gradient(rbm)
    np.testing.assert_allclose(gradient.weights, truth.v.T @ truth.joint @ truth.h, rtol=1e-10)
    np.testing.assert_allclose(gradient.visible_bias, truth.p @ truth.v, rtol=1e-10)
    np.testing.assert_allclose(gradient.hidden_bias, truth.joint.sum(axis=0) @ truth.h, rtol=1e-10)


@pytest.mark.parametrize("shape", [(22, 25), (25, 22), (21, 21)], ids=str)
def test_larger_machines_are_refused(shape, untyped):
    rbm = bm.BernoulliRBM(jnp.zeros(shape), jnp.zeros(shape[0]), jnp.zeros(shape[1]))
    with pytest.raises(ValueError, match=rf"at most 20 units .*got {min(shape)} .*log_partition_ais"):
        bm.log_partition_exact(rbm)


def test_the_refusal_names_the_shape_of_the_machine_that_was_given(untyped):
    rbm = bm.BernoulliRBM(jnp.zeros((22, 25)), jnp.zeros(22), jnp.zeros(25))
    with pytest.raises(ValueError, match=r"weights of shape \(22, 25\)"):
        bm.log_partition_exact(rbm)
    wide = bm.GaussianBernoulliRBM(jnp.zeros((2, 21)), jnp.zeros(2), jnp.zeros(21))
    with pytest.raises(ValueError, match="got 21"):
        bm.log_partition_exact(wide)


N_MACHINES = 64


def random_machines(n_visible=8, n_hidden=6):
    """Machines of weights from faint to strong, and bases that are not theirs."""
    scales = np.linspace(0.05, 1.5, N_MACHINES)
    arrays = [random_parameters(100 + i, n_visible, n_hidden, s) for i, s in enumerate(scales)]
    truths = [enumerate_rbm(*a) for a in arrays]
    machines = bm.BernoulliRBM
    stacked = jax.vmap(machines)(*(jnp.stack(list(map(jnp.asarray, x))) for x in zip(*arrays, strict=True)))
    means = np.array([truth.p @ truth.v for truth in truths])
    return stacked, truths, jnp.asarray(np.log(means) - np.log1p(-means))


def test_both_estimates_within_four_standard_errors_on_many_machines(x64):
    machines, truths, bases = random_machines()
    exact = np.array([truth.log_z for truth in truths])
    keys = jax.random.split(jax.random.key(0), N_MACHINES)
    forward = jax.jit(jax.vmap(lambda r, k, b: ais(r, k, b, n_chains=100, n_temperatures=100)))
    rng = np.random.default_rng(0)
    samples = jnp.asarray(np.stack([t.v[rng.choice(len(t.p), 100, p=t.p)] for t in truths]))
    backward = jax.jit(jax.vmap(lambda r, s, k, b: reverse(r, s, k, b, n_temperatures=100)))
    for estimate in (forward(machines, keys, bases), backward(machines, samples, keys, bases)):
        errors = np.asarray(estimate.standard_error)
        scores = (np.asarray(estimate.value) - exact) / errors
        # Of 64 normal deviates 0.004 lie beyond 4: none may.
        assert np.abs(scores).max() < 4
        # The standard errors are those of the estimates: the scores have about unit variance.
        assert 0.7 < np.sqrt(np.mean(scores**2)) < 1.3
        assert errors.min() > 1e-6 and errors[-1] > 10 * errors[0]  # far above rounding, and of varied scale
        sizes = np.asarray(estimate.effective_sample_size)
        np.testing.assert_allclose(errors**2 * 99, 100 / sizes - 1, rtol=1e-6)


@pytest.mark.slow
def test_estimated_partition_functions_are_right_on_average_and_their_logarithms_too_low(x64):
    rbm = bernoulli_rbm(8, 5, 4, 0.8)
    truth = enumerate_rbm(*parameters(rbm))
    keys = jax.random.split(jax.random.key(1), 20_000)
    rough = {"n_temperatures": 4}
    values = jax.jit(jax.vmap(lambda k: ais(rbm, k, jnp.zeros(5), n_chains=2, **rough).value))(keys)
    ratios = np.exp(np.asarray(values) - truth.log_z)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(keys))
    assert np.mean(values) < truth.log_z - 4 * np.std(values) / np.sqrt(len(keys))
    rng = np.random.default_rng(1)
    samples = jnp.asarray(truth.v[rng.choice(len(truth.p), (len(keys), 2), p=truth.p)])
    back = jax.jit(jax.vmap(lambda s, k: reverse(rbm, s, k, jnp.zeros(5), **rough).value))(samples, keys)
    ratios = np.exp(truth.log_z - np.asarray(back))
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(keys))
    assert np.mean(back) > truth.log_z + 4 * np.std(back) / np.sqrt(len(keys))


def test_without_weights_the_base_rate_is_exact(x64):
    base, hidden = jnp.array([-3.0, 0.5, 2.0]), jnp.array([-1.0, 2.0])
    for hidden_bias in (jnp.zeros(2), hidden):
        rbm = bm.BernoulliRBM(jnp.zeros((3, 2)), base, hidden_bias)
        expected = np.logaddexp(0, base).sum() + np.logaddexp(0, hidden_bias).sum()
        samples = jnp.asarray(binary_states(3))
        for estimate in (
            ais(rbm, jax.random.key(0), base, n_chains=8, n_temperatures=7),
            reverse(rbm, samples, jax.random.key(0), base, n_temperatures=7),
        ):
            np.testing.assert_allclose(estimate.value, expected, rtol=1e-14)
            assert estimate.standard_error < 1e-14
            np.testing.assert_allclose(estimate.effective_sample_size, 8, rtol=1e-14)


def two_modes(lead):
    """All units off, or all on: with exp(lead) times the probability; the way between is closed."""
    weights = 6 * np.ones((8, 2))
    return bm.BernoulliRBM(*map(jnp.asarray, (weights, np.full(8, -6.0), np.full(2, -24 + lead / 2))))


def test_annealing_misses_a_mode_with_a_small_standard_error_and_the_reverse_shows_it(x64):
    rbm = two_modes(8.0)
    truth = enumerate_rbm(*parameters(rbm))
    base = jnp.full(8, -4.0)  # a base rate that knows the smaller mode only
    forward = ais(rbm, jax.random.key(0), base, n_chains=100, n_temperatures=1000)
    assert forward.value < truth.log_z - 7  # a likelihood from it is seven nats too good
    assert forward.standard_error < 0.01 and forward.effective_sample_size > 99
    samples = jnp.asarray(truth.v[np.random.default_rng(0).choice(256, 100, p=truth.p)])
    backward = reverse(rbm, samples, jax.random.key(1), base, n_temperatures=1000)
    assert backward.value > truth.log_z  # exact samples: the bracket holds, and does not close
    assert backward.value - forward.value > 7
    # Between modes that weigh the same, a base that leans to neither closes it.
    rbm = two_modes(0.0)
    truth = enumerate_rbm(*parameters(rbm))
    samples = jnp.asarray(truth.v[np.random.default_rng(0).choice(256, 100, p=truth.p)])
    forward = ais(rbm, jax.random.key(2), jnp.zeros(8), n_chains=100, n_temperatures=1000)
    backward = reverse(rbm, samples, jax.random.key(3), jnp.zeros(8), n_temperatures=1000)
    for estimate in (forward, backward):
        assert abs(estimate.value - truth.log_z) < 4 * estimate.standard_error < 1


def test_estimates_of_gaussian_and_categorical_machines(x64):
    w, b, c = (jnp.asarray(x) for x in random_parameters(10, 4, 5, 0.7))
    variance = jnp.array([0.5, 1.0, 1.5, 0.8])
    gaussian = bm.GaussianBernoulliRBM(w, b, c, variance)
    h = binary_states(5)
    mean = np.asarray(b) + h @ np.asarray(w).T  # of v given h, whose weight is closed form
    peaks = negative_energies(w, b, c, mean, h, np.asarray(variance)).diagonal()
    log_z = np.logaddexp.reduce(peaks) + 0.5 * np.sum(np.log(2 * np.pi * variance))
    np.testing.assert_allclose(log_partition_exact(gaussian), log_z, rtol=1e-12)
    rng = np.random.default_rng(0)
    chosen = rng.choice(32, 300, p=np.exp(peaks - np.logaddexp.reduce(peaks)))
    draws = mean[chosen] + np.sqrt(variance) * rng.normal(size=(300, 4))

    potts = bm.PottsRBM(*(jnp.asarray(x) for x in random_parameters(11, 9, 4, 0.8)), n_states=3)
    truth = enumerate_rbm(*parameters(potts), v=one_hot_states(3, 3))
    states = truth.v[rng.choice(27, 300, p=truth.p)]
    for rbm, exact, samples, base in (
        (gaussian, log_z, draws, jnp.array([0.3, -0.2, 0.0, 1.0])),
        (potts, truth.log_z, states, potts.base_visible_bias(jnp.asarray(states))),
    ):
        settings = {"n_temperatures": 200}
        forward = ais(rbm, jax.random.key(0), base, n_chains=300, **settings)
        backward = reverse(rbm, jnp.asarray(samples), jax.random.key(1), base, **settings)
        for estimate in (forward, backward):
            assert abs(estimate.value - exact) < 4 * estimate.standard_error < 0.5
