"""Partition functions: exact ones against enumeration; estimates within their standard errors."""

from functools import partial

import jax
import numpy as np
import pytest
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    binary_states,
    enumerate_rbm,
    free_energies,
    gaussian_rbm,
    log_partition_exact,
    negative_energies,
    one_hot_states,
    parameters,
    random_parameters,
    zeros,
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


@pytest.mark.parametrize("shape", [(1, 1), (3, 12), (12, 3)], ids=str)
def test_log_partition_by_enumeration_in_both_orientations(x64, shape):
    rbm = bernoulli_rbm(sum(shape), *shape)
    np.testing.assert_allclose(log_partition_exact(rbm), enumerate_rbm(*parameters(rbm)).log_z, rtol=1e-13)


def test_more_hidden_units_than_a_block_and_visible_units_that_no_one_can_enumerate(x64):
    w, b, c = random_parameters(5, 30, 13, 0.5)
    h = binary_states(13)
    expected = np.logaddexp.reduce(h @ c + np.sum(np.logaddexp(0, b + h @ w.T), axis=1))
    for arrays in ((w, b, c), (w.T, c, b)):
        rbm = bm.BernoulliRBM(*map(array, arrays))
        np.testing.assert_allclose(log_partition_exact(rbm), expected, rtol=1e-13)
    came = log_partition_exact(bm.BernoulliRBM(*(array(x, "float32") for x in (w, b, c))))
    assert came.dtype == "float32"
    np.testing.assert_allclose(came, expected, rtol=2e-6)
    potts = bm.PottsRBM(*map(array, (w, b, c)), n_states=5)
    sites = (b + h @ w.T).reshape(-1, 6, 5)
    expected = np.logaddexp.reduce(h @ c + np.logaddexp.reduce(sites, axis=2).sum(axis=1))
    np.testing.assert_allclose(log_partition_exact(potts), expected, rtol=1e-13)


def test_published_value_of_bars_and_stripes(x64):
    # The 4 by 4 machine of PyDeep's unit tests (M. Melchior), and its log Z.
    weights = array([
        [0.12179488, 2.95950177, 0.33513356, 35.05380642],
        [0.20318085, -28.62372894, 26.52611278, 28.41793445],
        [-0.19105386, -28.58530584, -26.52747507, 28.78447320],
        [0.08953740, -59.82556859, -0.06665933, -27.71723459],
    ])  # fmt: skip
    visible_bias = array([-19.24399659, -13.26258696, 13.25909850, 43.74408543])
    hidden_bias = array([-0.11155958, 57.02097584, -0.13331758, -32.25991501])
    rbm = bm.BernoulliRBM(weights, visible_bias, hidden_bias)
    np.testing.assert_allclose(log_partition_exact(rbm), 59.6749019726, atol=1e-9)
    # Its data: bars and stripes of 2 by 2 pixels, the empty and the full image twice.
    rows = [[0, 0, 0, 0]] * 2 + [[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]] + [[1, 1, 1, 1]] * 2
    mean = -np.mean(free_energies(rbm, array(rows, float))) - float(log_partition_exact(rbm))
    np.testing.assert_allclose(mean, -1.7328699078, atol=1e-9)


def test_gradient_of_the_log_partition_is_the_mean_of_minus_the_energys(x64):
    rbm = bernoulli_rbm(6, 5, 12)  # the visible units are enumerated
    truth = enumerate_rbm(*parameters(rbm))
    gradient = log_partition_gradient(rbm)
    np.testing.assert_allclose(gradient.weights, truth.v.T @ truth.joint @ truth.h, rtol=1e-10)
    np.testing.assert_allclose(gradient.visible_bias, truth.p @ truth.v, rtol=1e-10)
    np.testing.assert_allclose(gradient.hidden_bias, truth.joint.sum(axis=0) @ truth.h, rtol=1e-10)


def test_larger_machines_are_refused(untyped):
    for shape in ((22, 25), (25, 22), (21, 21)):
        rbm = bm.BernoulliRBM(zeros(*shape), zeros(shape[0]), zeros(shape[1]))
        message = (
            rf"at most 20 units .*got {min(shape)} .*shape \({shape[0]}, {shape[1]}\).*log_partition_ais"
        )
        with pytest.raises(ValueError, match=message):
            bm.log_partition_exact(rbm)
    wide = bm.GaussianBernoulliRBM(zeros(2, 21), zeros(2), zeros(21))
    with pytest.raises(ValueError, match="got 21"):
        bm.log_partition_exact(wide)


N_MACHINES, N_CHAINS, N_TEMPERATURES = 64, 40, 40


@jax.jit
def forward_of_many(machines, key, bases):
    """Annealing of 64 machines of 8 by 6 units."""
    settings = {"n_chains": N_CHAINS, "n_temperatures": N_TEMPERATURES}
    return jax.vmap(lambda r, k, b: ais(r, k, b, **settings))(
        machines, jax.random.split(key, N_MACHINES), bases
    )


@jax.jit
def backward_of_many(machines, samples, key, bases):
    return jax.vmap(lambda r, s, k, b: reverse(r, s, k, b, n_temperatures=N_TEMPERATURES))(
        machines, samples, jax.random.split(key, N_MACHINES), bases
    )


def stacked(arrays):
    """The machines of many (weights, visible bias, hidden bias), as `vmap` takes them."""
    first = bm.BernoulliRBM(*map(array, arrays[0]))
    return jax.tree.unflatten(
        jax.tree.structure(first), [array(np.stack(x)) for x in zip(*arrays, strict=True)]
    )


def test_both_estimates_within_four_standard_errors_on_many_machines(x64):
    """Machines of weights from faint to strong, and bases that are not theirs."""
    arrays = [random_parameters(100 + i, 8, 6, s) for i, s in enumerate(np.linspace(0.05, 1.5, N_MACHINES))]
    truths = [enumerate_rbm(*a) for a in arrays]
    exact = np.array([truth.log_z for truth in truths])
    means = np.array([truth.p @ truth.v for truth in truths])
    machines, bases = stacked(arrays), array(np.log(means) - np.log1p(-means))
    rng = np.random.default_rng(0)
    samples = array(np.stack([t.v[rng.choice(len(t.p), N_CHAINS, p=t.p)] for t in truths]))
    key = jax.random.key(0)
    for estimate in (
        forward_of_many(machines, key, bases),
        backward_of_many(machines, samples, key, bases),
    ):
        value, errors, sizes = map(np.asarray, estimate)
        scores = (value - exact) / errors
        # Of 64 normal deviates 0.004 lie beyond 4: none may.
        assert np.abs(scores).max() < 4
        # The standard errors are those of the estimates: the scores have about unit variance.
        assert 0.7 < np.sqrt(np.mean(scores**2)) < 1.3
        assert errors.min() > 1e-6 and errors[-1] > 10 * errors[0]  # far above rounding, and of varied scale
        np.testing.assert_allclose(errors**2 * (N_CHAINS - 1), N_CHAINS / sizes - 1, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_temperatures", "size", "shares"),
    [(100, 0.95, (0.94, 0.94)), (10, 0.6, (0.92, 0.92)), (3, 0.22, (0.87, 0.79))],
    ids=str,
)
def test_the_standard_error_covers_as_documented(n_temperatures, size, shares, x64):
    """Over 2000 redrawn keys: the fewer chains count, the less ± 1.96 standard errors hold."""
    rbm, n_chains, n_redrawn = bernoulli_rbm(1, 10, 8, 1.0), 50, 2000
    truth, rng = enumerate_rbm(*parameters(rbm)), np.random.default_rng(0)
    samples = array(truth.v[rng.choice(len(truth.p), (n_redrawn, n_chains), p=truth.p)])

    @jax.jit
    def brackets(samples, keys):
        settings = {"base_visible_bias": zeros(10), "n_chains": n_chains, "n_temperatures": n_temperatures}
        return jax.vmap(lambda s, k: bm.log_partition_bracket(rbm, s, k, **settings))(samples, keys)

    bracket = brackets(samples, jax.random.split(jax.random.key(0), n_redrawn))
    for estimate, share in zip((bracket.lower, bracket.upper), shares, strict=True):
        value, error, n_effective = map(np.asarray, estimate)
        assert np.median(n_effective) / n_chains == pytest.approx(size, abs=0.03)
        # Of a share of 0.9 among 2000 the standard error is 0.007.
        assert np.mean(np.abs(value - truth.log_z) < 1.96 * error) == pytest.approx(share, abs=0.021)
    # What is missed is missed outwards: exact samples cross hardly any bracket.
    assert np.mean(np.asarray(bracket.is_crossed)) < 0.003


@pytest.mark.slow
def test_estimated_partition_functions_are_right_on_average_and_their_logarithms_too_low(x64):
    rbm = bernoulli_rbm(8, 5, 4, 0.8)
    truth = enumerate_rbm(*parameters(rbm))
    keys = jax.random.split(jax.random.key(1), 20_000)
    rough = {"n_temperatures": 4}
    values = jax.jit(jax.vmap(lambda k: ais(rbm, k, zeros(5), n_chains=2, **rough).value))(keys)
    ratios = np.exp(np.asarray(values) - truth.log_z)
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(keys))
    assert np.mean(values) < truth.log_z - 4 * np.std(values) / np.sqrt(len(keys))
    rng = np.random.default_rng(1)
    samples = array(truth.v[rng.choice(len(truth.p), (len(keys), 2), p=truth.p)])
    back = jax.jit(jax.vmap(lambda s, k: reverse(rbm, s, k, zeros(5), **rough).value))(samples, keys)
    ratios = np.exp(truth.log_z - np.asarray(back))
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / np.sqrt(len(keys))
    assert np.mean(back) > truth.log_z + 4 * np.std(back) / np.sqrt(len(keys))


def test_without_weights_the_base_rate_is_exact(x64):
    rng = np.random.default_rng(2)
    arrays = [(np.zeros((8, 6)), 2 * rng.normal(size=8), 2 * rng.normal(size=6)) for _ in range(N_MACHINES)]
    arrays[0] = (*arrays[0][:2], np.zeros(6))
    bases = array(np.stack([b for _, b, _ in arrays]))
    exact = [np.logaddexp(0, b).sum() + np.logaddexp(0, c).sum() for _, b, c in arrays]
    samples = array(rng.integers(0, 2, (N_MACHINES, N_CHAINS, 8)), float)
    key, machines = jax.random.key(0), stacked(arrays)
    for estimate in (
        forward_of_many(machines, key, bases),
        backward_of_many(machines, samples, key, bases),
    ):
        np.testing.assert_allclose(estimate.value, exact, rtol=1e-13)
        assert np.max(estimate.standard_error) < 1e-13
        np.testing.assert_allclose(estimate.effective_sample_size, N_CHAINS, rtol=1e-13)


def two_modes(lead):
    """Eight units that are all off or, with exp(lead) times the probability, all on; the way is closed."""
    weights = np.zeros((8, 6))
    weights[:, :2] = 6.0
    return weights, np.full(8, -6.0), np.r_[np.full(2, -24 + lead / 2), np.zeros(4)]


def both_of_two_modes(lead, base):
    """The exact log Z, and both estimates of as many runs as there are machines in a call."""
    truth, rng = enumerate_rbm(*two_modes(lead)), np.random.default_rng(0)
    machines, bases = stacked([two_modes(lead)] * N_MACHINES), array(np.full((N_MACHINES, 8), base))
    samples = array(truth.v[rng.choice(256, (N_MACHINES, N_CHAINS), p=truth.p)])
    forward = forward_of_many(machines, jax.random.key(1), bases)
    backward = backward_of_many(machines, samples, jax.random.key(2), bases)
    return truth.log_z, *(jax.tree.map(np.asarray, estimate) for estimate in (forward, backward))


def test_annealing_misses_a_mode_with_a_small_standard_error_and_the_reverse_shows_it(x64):
    # A base rate that knows the smaller mode only.
    log_z, forward, backward = both_of_two_modes(8.0, -4.0)
    # Hardly any run has a chain that crosses; the others are seven nats too good as likelihoods.
    assert np.mean(forward.value + 4 * forward.standard_error < log_z - 7) > 0.9
    assert np.median(forward.standard_error) < 0.02
    assert np.median(forward.effective_sample_size) > 0.98 * N_CHAINS
    # Exact samples: on average the estimates bracket log Z, and the bracket does not close.
    assert backward.value.mean() > log_z and np.median(backward.value - forward.value) > 7
    # Between modes that weigh the same, a base that leans to neither closes it.
    log_z, *estimates = both_of_two_modes(0.0, 0.0)
    for estimate in estimates:
        assert (np.abs(estimate.value - log_z) < 4 * estimate.standard_error).all()
        assert np.median(estimate.standard_error) < 0.25


def test_estimates_of_gaussian_and_categorical_machines(x64):
    w, b, c = random_parameters(10, 4, 5, 0.7)
    variance, h = np.array([0.5, 1.0, 1.5, 0.8]), binary_states(5)
    gaussian = gaussian_rbm(w, b, c, variance)
    mean = b + h @ w.T  # of v given h, whose weight is closed form
    peaks = negative_energies(w, b, c, mean, h, variance).diagonal()
    log_z = np.logaddexp.reduce(peaks) + 0.5 * np.sum(np.log(2 * np.pi * variance))
    np.testing.assert_allclose(log_partition_exact(gaussian), log_z, rtol=1e-12)
    base = np.array([0.3, -0.2, 0.0, 1.0])
    forward = ais(gaussian, jax.random.key(0), base, n_chains=300, n_temperatures=100)

    potts = bm.PottsRBM(*map(array, random_parameters(11, 9, 4, 0.8)), n_states=3)
    truth = enumerate_rbm(*parameters(potts), v=one_hot_states(3, 3))
    samples = array(truth.v[np.random.default_rng(0).choice(27, 300, p=truth.p)])
    base = potts.base_visible_bias(samples)
    backward = reverse(potts, samples, jax.random.key(1), base, n_temperatures=100)
    for (value, error, _), exact in ((forward, log_z), (backward, truth.log_z)):
        assert abs(float(value) - exact) < 4 * float(error) < 0.5
