"""Draws of binary units, Gibbs sampling and tempering against exact distributions and transitions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    binary_states,
    chi_square_p_value,
    enumerate_rbm,
    hidden_probabilities,
    negative_energies,
    one_hot_states,
    parameters,
    random_parameters,
    standard_scores,
    state_index,
    visible_probabilities,
    zeros,
)

from neurojax import boltzmann as bm
from neurojax._random import bernoulli
from neurojax.boltzmann._path import TemperedPath
from neurojax.boltzmann._phases import _exchange
from neurojax.chains import sample_chains


@partial(jax.jit, static_argnames="n_draws")
def gibbs_steps(rbm, v, key, n_draws):
    """Steps from each row of v, so many of each."""
    keys = jax.random.split(key, (len(v), n_draws))
    return jax.vmap(jax.vmap(bm.gibbs_step, (None, None, 0)), (None, 0, 0))(rbm, v, keys)


@partial(jax.jit, static_argnames="n")
def draws_of(key, probabilities, n):
    """Draws of n units for each probability, all from the same random words."""
    return jax.vmap(lambda p: bernoulli(key, jnp.full(n, p)))(probabilities)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


def test_share_of_ones(dtype):
    shares = np.array([0, 1, 0.5, 1e-5, 1 - 1e-5, 0.3, np.nan])
    draws = draws_of(jax.random.key(0), array(shares, dtype), 2**20)
    assert draws.dtype == dtype
    for p, row in zip(shares, np.asarray(draws), strict=True):
        mean = row.mean(dtype=float)
        if p in (0, 1) or np.isnan(p):
            assert mean == (p == 1), p
            continue
        # In float32 p is rounded to a multiple of 2^-16.
        expected = np.round(p * 2**16) / 2**16 if dtype == "float32" else p
        assert abs(expected - p) < 7.7e-6
        assert abs(mean - expected) < 4 * np.sqrt(p * (1 - p) / row.size), p
    if dtype == "float32":  # two draws come from one random word, and are independent
        fair = np.asarray(draws)[2] - np.float32(0.5)
        for lag in (1, 2, 3):
            assert abs(np.mean(fair[lag:] * fair[:-lag], dtype=float) * 4) < 4 / np.sqrt(fair.size)


def test_share_of_ones_in_half_precision():
    # In half precision the product with 2^16 would overflow, and draws be rounded.
    for half in ("float16", "bfloat16"):
        draws = draws_of(jax.random.key(0), array([0.25, 1.0], half), 100_000)
        assert draws.dtype == half
        few, all_of_them = np.asarray(draws, float).mean(axis=1)
        assert abs(few - 0.25) <= 4 * np.sqrt(0.25 * 0.75 / 100_000), half
        assert all_of_them == 1, half


def test_draws_have_the_shape_of_their_probabilities():
    shapes = ((), (3, 5), (0, 2))
    draws = jax.eval_shape(lambda key: [bernoulli(key, jnp.ones(s)) for s in shapes], jax.random.key(0))
    assert tuple(x.shape for x in draws) == shapes


def test_conditionals_make_a_chain_in_detailed_balance(x64):
    rbm = bernoulli_rbm(0, 4, 3)
    truth = enumerate_rbm(*parameters(rbm))

    def probability(on, states):  # of each state, from the units' probabilities
        return np.prod(np.where(states[None], on[:, None], 1 - on[:, None]), axis=2)

    given_v = probability(np.asarray(hidden_probabilities(rbm, array(truth.v))), truth.h)
    given_h = probability(np.asarray(visible_probabilities(rbm, array(truth.h))), truth.v)
    transitions = given_v @ given_h
    np.testing.assert_allclose(transitions.sum(axis=1), 1, rtol=1e-14)
    flow = truth.p[:, None] * transitions
    np.testing.assert_allclose(flow, flow.T, rtol=1e-12)
    np.testing.assert_allclose(truth.p @ transitions, truth.p, rtol=1e-12)
    np.testing.assert_allclose(transitions, truth.transitions, rtol=1e-12)


def test_gibbs_step_has_the_exact_transition_matrix(dtype):
    rbm = bernoulli_rbm(0, 4, 3, dtype=dtype)
    truth = enumerate_rbm(*parameters(rbm))
    after = gibbs_steps(rbm, array(truth.v, dtype), jax.random.key(2), 2000)
    assert after.dtype == dtype
    p_values = [
        chi_square_p_value(np.bincount(state_index(row), minlength=16), expected)
        for row, expected in zip(np.asarray(after), truth.transitions, strict=True)
    ]
    assert min(p_values) > 1e-3 / 16 and np.mean(p_values) > 0.2


def test_gibbs_step_of_categorical_units(x64):
    rbm = bm.PottsRBM(*(array(x) for x in random_parameters(1, 6, 3)), n_states=3)
    truth = enumerate_rbm(*parameters(rbm), v=one_hot_states(2, 3))
    after = gibbs_steps(rbm, array(truth.v), jax.random.key(3), 4000)
    codes = np.asarray(after) @ [0, 3, 6, 0, 1, 2]  # the order of one_hot_states
    np.testing.assert_array_equal(truth.v @ [0, 3, 6, 0, 1, 2], np.arange(9))
    for row, expected in zip(codes.astype(int), truth.transitions, strict=True):
        assert chi_square_p_value(np.bincount(row, minlength=9), expected) > 1e-4


def test_gibbs_step_of_gaussian_units(x64):
    w, b, c = random_parameters(2, 3, 2, 0.8)
    variance = np.array([0.3, 1.0, 2.0])
    rbm = bm.GaussianBernoulliRBM(*map(jnp.asarray, (w, b, c, variance)))
    v = np.array([[0.2, -1.0, 1.5]])
    h = binary_states(2)
    weights = np.exp(negative_energies(w, b, c, v, h, variance)[0])
    weights /= weights.sum()
    means = b + h @ w.T
    mean = weights @ means
    second = np.einsum("k,ki,kj->ij", weights, means, means) + np.diag(variance)
    after = np.asarray(gibbs_steps(rbm, array(v), jax.random.key(4), 20_000))[0]
    assert np.abs(standard_scores(after, mean)).max() < 4
    assert np.abs(standard_scores(after[:, :, None] * after[:, None], second)).max() < 4


@pytest.mark.slow
def test_long_chains_have_the_machines_distribution():
    rbm = bernoulli_rbm(5, 4, 3)
    truth = enumerate_rbm(*parameters(rbm))

    @jax.jit
    def run(states, key):
        def kernel(v, key):
            return bm.gibbs_step(rbm, v, key)

        return sample_chains(kernel, states, key, n_samples=200, n_burn_in=50, thin=2).samples

    samples = run(np.zeros((100, 4), "float32"), jax.random.key(5))
    is_at = state_index(samples)[..., None] == np.arange(16)
    # Chains are independent, samples of a chain are not: standard errors from the spread of chains.
    scores = standard_scores(is_at.mean(axis=1), truth.p)
    assert np.abs(scores).max() < 4


def test_clamped_steps_leave_units_and_draw_the_others_from_their_conditional(x64):
    rbm = bernoulli_rbm(6, 5, 3)
    truth = enumerate_rbm(*parameters(rbm))
    is_clamped, held = array([True, False, False, True, False]), array([1.0, 0, 0, 0, 1])
    n_steps = 30

    @jax.jit
    def run(key):
        def step(v, k):
            keys = jax.random.split(k, 4000)
            return jax.vmap(bm.clamped_gibbs_step, (None, 0, None, 0))(rbm, v, is_clamped, keys), None

        return jax.lax.scan(step, jnp.tile(held, (4000, 1)), jax.random.split(key, n_steps))[0]

    v = np.asarray(run(jax.random.key(6)))
    assert np.all(v[:, [0, 3]] == [1, 0])
    p = truth.p * np.all(truth.v[:, [0, 3]] == [1, 0], axis=1)
    counts = np.bincount(state_index(v), minlength=32)
    assert counts[p == 0].sum() == 0
    assert chi_square_p_value(counts, p / p.sum()) > 1e-3


def test_exchanges_between_temperatures_are_in_detailed_balance(x64):
    rbm = bernoulli_rbm(7, 2, 2, 2.0)
    w, b, c = parameters(rbm)
    base = np.array([1.0, -0.5])
    betas = (0.3, 0.8)
    hot, cold = (enumerate_rbm(t * w, (1 - t) * base + t * b, t * c) for t in betas)
    path = TemperedPath(rbm, array(base))
    i, j = np.divmod(np.arange(16), 4)
    n = 5000  # of each pair of states
    v = np.stack([np.repeat(hot.v[i], n, 0), np.repeat(cold.v[j], n, 0)])

    @jax.jit
    def exchange(v, n_sweeps):
        return _exchange(path, v, array(betas)[:, None], n_sweeps, jax.random.key(8))

    after, hidden_input, share = exchange(v, 0)
    np.testing.assert_allclose(hidden_input, np.asarray(after) @ w + c, rtol=1e-12)
    codes = state_index(after)
    is_swapped = (codes[0] != state_index(v)[0]).reshape(16, -1).mean(axis=1).reshape(4, 4)
    np.testing.assert_array_equal(np.sort(codes, axis=0), np.sort(state_index(v), axis=0))
    p = np.outer(hot.p, cold.p)
    expected = np.minimum(1, p.T / p)
    np.testing.assert_allclose(share, np.mean(expected), atol=0.01)
    apart = ~np.eye(4, dtype=bool)
    error = 4 * np.sqrt((is_swapped * (1 - is_swapped)) / n) * p
    flow = p * is_swapped
    assert np.all(np.abs(flow - flow.T)[apart] <= (error + error.T)[apart])
    scatter = np.sqrt(expected * (1 - expected) / n)
    assert np.all(np.abs(is_swapped - expected)[apart] <= 4 * scatter[apart])
    unchanged, _, share = exchange(v, 1)  # every other sweep has no pair of two temperatures
    np.testing.assert_array_equal(unchanged, v)
    assert share == 0


N_TEMPERATURES, N_SWEEPS, N_CHAINS = 12, 100, 300


@jax.jit
def draw(phase, rbm, state, key):
    return phase.draw(rbm, state, jnp.zeros((1, 8)), key)


def tempering(base):
    return bm.ParallelTempering(array(base), n_temperatures=N_TEMPERATURES, n_steps=N_SWEEPS)


def test_tempering_mixes_where_gibbs_does_not(x64):
    weights = 6 * np.ones((8, 2))  # all units on or all off, and no way between
    rbm = bm.BernoulliRBM(*map(array, (weights, np.full(8, -6.0), np.full(2, -23.5))))
    truth = enumerate_rbm(*parameters(rbm))
    assert truth.p[-1] > 0.6 and truth.p[0] > 0.2
    # All chains start in the smaller mode.
    replicas = bm.Replicas(zeros(N_TEMPERATURES, N_CHAINS, 2), array(0, "int32"))
    samples, state, metrics = draw(tempering(np.zeros(8)), rbm, replicas, jax.random.key(9))
    assert state.n_sweeps == N_SWEEPS and 0.2 < metrics["exchanged"] < 1
    counts = np.bincount(state_index(samples), minlength=256)  # of independent chains
    assert chi_square_p_value(counts, truth.p) > 1e-3
    plain = bm.PersistentContrastiveDivergence(n_steps=N_SWEEPS)
    stuck, _, _ = draw(plain, rbm, bm.PersistentChains(zeros(N_CHAINS, 2)), jax.random.key(9))
    assert np.asarray(stuck).sum(axis=1).max() < 4  # none has crossed


def test_sweeps_of_tempering_leave_every_temperature_its_distribution(x64):
    rbm = bernoulli_rbm(10, 8, 2)
    w, b, c = parameters(rbm)
    base = np.array([0.7, -1.0, 0.2, 0, 0.5, -0.3, 1.0, -0.6])
    rng = np.random.default_rng(0)
    hidden, truths = [], []
    for beta in np.linspace(0, 1, N_TEMPERATURES):
        truths.append(enumerate_rbm(beta * w, (1 - beta) * base + beta * b, beta * c))
        p = truths[-1].joint.sum(axis=0)
        hidden.append(truths[-1].h[rng.choice(4, N_CHAINS, p=p)])
    replicas = bm.Replicas(array(np.stack(hidden)), array(0, "int32"))
    samples, state, _ = draw(tempering(base), rbm, replicas, jax.random.key(11))
    assert chi_square_p_value(np.bincount(state_index(samples), minlength=256), truths[-1].p) > 1e-3
    p_values = []
    for truth, h in zip(truths, np.asarray(state.hidden), strict=True):
        counts = np.bincount(state_index(h), minlength=4)
        p_values.append(chi_square_p_value(counts, truth.joint.sum(axis=0)))
    assert min(p_values) > 1e-3 and np.mean(p_values) > 0.2
