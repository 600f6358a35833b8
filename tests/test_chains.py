"""The sampling loop against a Python loop, and the diagnostics against closed forms and direct sums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import chains
from neurojax.chains import sample_chain, sample_chains

KEY = jax.random.key(7)
assert_equal_trees = jax.tree_util.Partial(jax.tree.map, np.testing.assert_array_equal)
size, r_hat = jax.jit(chains.effective_sample_size), jax.jit(chains.split_r_hat)
time = jax.jit(chains.autocorrelation_time, static_argnames="window")


@jax.jit
def diagnostics(x):
    """Correlation of each chain, their time, effective size and R-hat, in one program."""
    functions = (chains.autocorrelation_time, chains.effective_sample_size, chains.split_r_hat)
    return jax.vmap(chains.autocorrelation)(x), *(function(x) for function in functions)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    if request.param == "float64":
        request.getfixturevalue("x64")
    return request.param


def mixing(state, key):
    """A kernel of whole numbers: exact however it is compiled, and it shows the order of transitions."""
    number, total = state
    number = number * jnp.uint32(1664525) + jax.random.bits(key, (3,), "uint32")
    return number, total + number[0]


START = (np.arange(3, dtype="uint32"), np.uint32(5))


@partial(jax.jit, static_argnames=("n_samples", "n_burn_in", "thin", "record"))
def run(state, key, **settings):
    return sample_chain(mixing, state, key, **settings)


@jax.jit
def step(state, key, i):
    return mixing(state, jax.random.fold_in(key, i))


def loop(state, key, n_transitions):
    states = []
    for i in range(n_transitions):
        states.append(state := step(state, key, i))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *states)


def ar1(rho):
    return lambda x, key: rho * x + jax.random.normal(key, x.shape, x.dtype)


def total(state):
    return {"total": state[1]}


def test_loop_with_burn_in_thinning_and_record(dtype):
    n_burn_in, thin = (4, 3) if dtype == "float32" else (0, 1)
    samples, state = run(START, KEY, n_samples=5, n_burn_in=n_burn_in, thin=thin, record=total)
    every = loop(START, KEY, n_burn_in + 5 * thin)
    assert_equal_trees(samples, {"total": every[1][n_burn_in + thin - 1 :: thin]})
    assert_equal_trees(state, jax.tree.map(lambda s: s[-1], every))


def test_thinning_of_rounded_numbers_is_exact():
    def both(x):
        every = sample_chain(ar1(0.9), x, KEY, n_samples=64).samples
        return every, sample_chain(ar1(0.9), x, KEY, n_samples=10, n_burn_in=4, thin=6).samples

    every, thinned = jax.jit(both)(np.zeros(2, "float32"))
    np.testing.assert_array_equal(thinned, np.asarray(every)[4:][5::6])


def test_a_run_goes_on_from_its_state_with_a_fresh_key():
    first, second = jax.random.split(KEY)
    state = run(START, first, n_samples=6).state
    assert_equal_trees(run(state, second, n_samples=6).samples, loop(state, second, 6))


def test_many_chains_are_the_loop_over_chains():
    states = jax.tree.map(lambda s: np.stack([s, s + np.uint32(1), s + np.uint32(9)]), START)
    settings = {"n_samples": 4, "n_burn_in": 2, "thin": 2, "record": total}
    many = jax.jit(lambda: sample_chains(mixing, states, KEY, **settings))()
    for c, key in enumerate(jax.random.split(KEY, 3)):
        state, expected = jax.tree.map(lambda s, c=c: np.asarray(s)[c], (states, many))
        assert_equal_trees(run(state, key, **settings), expected)


def test_counts_and_states_out_of_range(untyped):
    for name, value in [("n_samples", 0), ("n_burn_in", -1), ("thin", 0), ("thin", 1.5), ("thin", True)]:
        with pytest.raises(ValueError, match=rf"{name}: expected a whole number ≥ [01], got {value}"):
            sample_chain(mixing, START, KEY, **{"n_samples": 2, name: value})
    with pytest.raises(ValueError, match="at most 2147483647 transitions in one run, got 2147483648"):
        sample_chain(mixing, START, KEY, n_samples=2, thin=2**30)
    small = run(START, KEY, n_samples=np.uint8(130), thin=np.uint8(2))  # 260 > 255
    assert_equal_trees(small.state, jax.tree.map(lambda s: s[-1], loop(START, KEY, 260)))
    for states in (START, (), (np.zeros(3), np.zeros(2))):
        with pytest.raises(ValueError, match="states: expected arrays with a leading axis of the chains"):
            sample_chains(ar1(0.5), states, KEY, n_samples=2)


def test_autoregressive_process():
    autoregress = jax.jit(lambda r, x: sample_chains(ar1(r), x, KEY, n_samples=20_000, n_burn_in=200).samples)
    for rho in (0.0, 0.5, 0.9):
        x = np.asarray(autoregress(rho, np.zeros(4, "float32")))
        tau, variance = (1 + rho) / (1 - rho), 1 / (1 - rho**2)
        assert x.dtype == "float32"
        # Standard errors: Sokal 1997, eq. 3.19, for τ; Gaussian fourth moments for the variance.
        error = tau * np.sqrt(2 * (10 * tau + 1) / x.size)
        assert abs(x.size / float(size(x)) - tau) < 3 * error
        assert abs(x.mean()) < 3 * np.sqrt(variance * tau / x.size)
        assert abs(x.var() - variance) < 3 * variance * np.sqrt(2 * (1 + rho**2) / (1 - rho**2) / x.size)


def test_autocorrelation_and_its_time_by_direct_sums(dtype):
    x = np.cumsum(np.random.default_rng(0).normal(size=(3, 151)), axis=1)
    rho = np.zeros((3, 151))
    for c, y in enumerate(x - x.mean(axis=1, keepdims=True)):
        rho[c] = [sum(y[i] * y[i + t] for i in range(151 - t)) / sum(y * y) for t in range(151)]
    x, tolerance = x.astype(dtype), 2e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(jax.jit(jax.vmap(chains.autocorrelation))(x), rho, atol=tolerance)
    for window in (1.0, 5.0):
        times = [1 + 2 * rho.mean(axis=0)[1 : m + 1].sum() for m in range(151)]
        expected = next(tau for m, tau in enumerate(times) if m >= window * tau)
        np.testing.assert_allclose(time(x, window=window), expected, rtol=100 * tolerance)
    with pytest.raises(ValueError, match="window: expected a number > 0, got 0"):
        time(x, window=0.0)


def test_chains_that_never_move_alternate_or_break():
    wave = np.sin(np.arange(1000) ** 1.5).astype("float32")
    arrays = np.stack([wave, wave]), np.stack([wave, 0 * wave]), np.tile(np.float32([1, -1]), (2, 500))
    both, one, alternating = (float(diagnostics(x)[1]) for x in arrays)
    assert both == one > 1 == alternating
    for value in (0.0, 0.1, 1000.3):
        still = np.full((2, 1000), value, "float32")
        rho, *numbers = diagnostics(still)
        assert np.isnan(numbers).all() and not np.any(rho)
        still[1] += 0.7
        assert diagnostics(still)[-1] == np.inf
    wave[3] = np.nan
    rho, _, effective, r = diagnostics(np.stack([wave, wave]))
    assert np.isnan([effective, r, *rho[0]]).all()


def test_r_hat_as_in_the_book(dtype):
    noise = np.random.default_rng(1).normal(size=(3, 1001))
    trend = noise + np.linspace(0, 4, 1001)
    apart, one = noise + np.array([[0], [2], [0]]), trend[:1, 1:]
    rtol = 1e-6 if dtype == "float32" else 1e-12
    for x, is_mixed in [(noise, True), (noise + 1e3, True), (apart, False), (trend, False), (one, False)]:
        x = x.astype(dtype).astype(float)
        psi = np.concatenate(np.split(x[:, -1000:], 2, axis=1))  # Gelman et al. 2013, p. 284-285
        m, n = psi.shape
        b = n / (m - 1) * np.sum((psi.mean(axis=1) - psi.mean()) ** 2)
        w = np.mean(np.sum((psi - psi.mean(axis=1, keepdims=True)) ** 2, axis=1) / (n - 1))
        came = float(r_hat(x.astype(dtype)))
        np.testing.assert_allclose(came, np.sqrt(((n - 1) / n * w + b / n) / w), rtol=rtol)
        assert abs(came - 1) < 0.01 if is_mixed else came > 1.3
    with pytest.raises(ValueError, match=r"at least 4 samples a chain, got shape \(2, 3\)"):
        r_hat(np.zeros((2, 3), "float32"))
