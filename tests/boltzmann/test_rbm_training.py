"""Whole runs: they reach the exact maximum likelihood, stop where they diverge, and go on where cut off."""

import jax
import numpy as np
import optax
import pytest
from boltzmann_truth import (
    array,
    bernoulli_rbm,
    enumerate_rbm,
    parameters,
    state_index,
    zeros,
)
from scipy.optimize import minimize

from neurojax import boltzmann as bm
from neurojax.training import Checkpoint, NonFiniteLossError, fit

KEY = jax.random.key(0)


def noisy_patterns():
    rng = np.random.default_rng(0)
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]])
    return np.abs(patterns[rng.integers(0, 3, 150)] - (rng.random((150, 6)) < 0.1)).astype("float32")


DATA = noisy_patterns()


def mean_log_likelihood(weights, visible_bias, hidden_bias):
    return enumerate_rbm(weights, visible_bias, hidden_bias).log_p[state_index(DATA)].mean()


@jax.jit
def start():
    return bm.BernoulliRBM.from_data(DATA, 4, KEY, scale=0.1)


@pytest.fixture(scope="module")
def best():
    """The log-likelihood that ascent along the exact gradient ends at."""
    shares = np.bincount(state_index(DATA), minlength=64) / len(DATA)
    sizes = [(6, 4), (6,), (4,)]

    def arrays_of(row):
        return [x.reshape(size) for x, size in zip(np.split(row, [24, 30]), sizes, strict=True)]

    def loss_and_slope(row):
        truth = enumerate_rbm(*arrays_of(row))
        missing, h = shares - truth.p, truth.hidden_given_visible
        slopes = ((truth.v * missing[:, None]).T @ h, missing @ truth.v, missing @ h)
        return -shares @ truth.log_p, -np.concatenate([np.ravel(x) for x in slopes])

    row = np.concatenate([np.ravel(x) for x in parameters(start())])
    return -minimize(loss_and_slope, row, jac=True, options={"maxiter": 400}).fun


def rules():
    base = start().base_visible_bias(DATA)
    tempering = bm.ContrastiveObjective(bm.ParallelTempering(base, n_temperatures=5))
    return {
        "pcd": bm.ContrastiveObjective(),
        "centred": bm.CentredGradient(),
        "tempering": tempering,
        "centred-tempering": bm.CentredGradient(tempering),
    }


slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["pcd", *(pytest.param(n, marks=slow) for n in ("centred", "tempering", "centred-tempering"))]
)
def test_long_runs_reach_the_maximum_likelihood(name, best):
    rule, rbm, n_steps = rules()[name], start(), 2000 if name == "pcd" else 4000
    centring = {"data_mean": array(DATA.mean(axis=0))} if "centred" in name else {}
    init = jax.jit(lambda rbm: rule.init(rbm, 200, jax.random.key(1), **centring))
    result = fit(
        rbm, rule, array(DATA), state=init(rbm),
        optimizer=optax.sgd(optax.linear_schedule(0.5, 0.0, n_steps)), n_steps=n_steps, key=jax.random.key(2),
    )  # fmt: skip
    reached = mean_log_likelihood(*parameters(result.model))
    assert mean_log_likelihood(*parameters(rbm)) < best - 1
    assert best - 0.05 < reached < best + 0.01


def run(rbm, rule, state, **settings):
    settings = {"n_steps": 30, "optimizer": optax.sgd(0.1), "key": KEY, "batch_size": 50} | settings
    return fit(rbm, rule, array(DATA), state=state, **settings)


@slow
def test_a_run_goes_on_with_its_chains_from_its_checkpoint(tmp_path):
    rbm, rule = start(), bm.CentredGradient()
    state = rule.init(rbm, 20, KEY, data_mean=array(DATA.mean(axis=0)))
    whole = run(rbm, rule, state)
    run(rbm, rule, state, n_steps=13, checkpoint=Checkpoint(tmp_path / "run", 13))
    resumed = run(rbm, rule, state, checkpoint=Checkpoint(tmp_path / "run", 13))
    for tree, other in ((whole.model, resumed.model), (whole.state, resumed.state)):
        jax.tree.map(np.testing.assert_array_equal, tree, other)
    assert not np.array_equal(whole.state.chains.hidden, state.chains.hidden)


# One rule and optimizer for both tests below, which then share their programs.
DIVERGING, HUGE_STEPS = bm.ContrastiveObjective(weight_decay=1.0), optax.sgd(1e3)


def diverge(rbm, n_steps, **settings):
    state = bm.PersistentChains(zeros(20, rbm.n_hidden))
    return run(rbm, DIVERGING, state, optimizer=HUGE_STEPS, n_steps=n_steps, **settings)


@slow
def test_a_checkpoint_of_another_machine_is_refused(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run", 2)
    diverge(bernoulli_rbm(0, 6, 4, dtype="float32"), 2, checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"checkpoint of step 2 .*weights"):
        diverge(bernoulli_rbm(0, 6, 5, dtype="float32"), 2, checkpoint=checkpoint)


@slow
def test_learning_that_diverges_stops_with_the_step_and_the_metric():
    message = r"step \d+: expected a finite loss, got (inf|nan)"
    with pytest.raises(NonFiniteLossError, match=message) as error:
        diverge(bernoulli_rbm(0, 6, 4, 0.01, "float32"), 100)
    # W is multiplied by −999 at each update, and its square passes 3e38 after about 7.
    assert 4 <= error.value.step <= 12 and error.value.metric == "loss"
