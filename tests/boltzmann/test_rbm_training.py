"""Whole runs: they reach the exact maximum likelihood, stop where they diverge, and go on where cut off."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from boltzmann_truth import bernoulli_rbm, enumerate_rbm, parameters, state_index

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


def start():
    return bm.BernoulliRBM.from_data(DATA, 4, KEY, scale=0.1)


@pytest.fixture(scope="module")
def best():
    """The log-likelihood that ascent along the exact gradient ends at."""
    shares = np.bincount(state_index(DATA), minlength=64) / len(DATA)
    arrays, velocity = list(parameters(start())), [0.0, 0.0, 0.0]
    for _ in range(4000):
        truth = enumerate_rbm(*arrays)
        missing, h = shares - truth.p, truth.hidden_given_visible
        gradient = [(truth.v * missing[:, None]).T @ h, missing @ truth.v, missing @ h]
        velocity = [0.9 * v + g for v, g in zip(velocity, gradient, strict=True)]
        arrays = [x + 0.1 * v for x, v in zip(arrays, velocity, strict=True)]
    return mean_log_likelihood(*arrays)


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
    rule, rbm, n_steps = rules()[name], start(), 4000
    centring = {"data_mean": jnp.asarray(DATA.mean(axis=0))} if "centred" in name else {}
    result = fit(
        rbm, rule, jnp.asarray(DATA), state=rule.init(rbm, 200, jax.random.key(1), **centring),
        optimizer=optax.sgd(optax.linear_schedule(0.5, 0.0, n_steps)), n_steps=n_steps, key=jax.random.key(2),
    )  # fmt: skip
    reached = mean_log_likelihood(*parameters(result.model))
    assert mean_log_likelihood(*parameters(rbm)) < best - 1
    assert best - 0.05 < reached < best + 0.01


def run(rbm, rule, state, **settings):
    settings = {"n_steps": 30, "optimizer": optax.sgd(0.1), "key": KEY, "batch_size": 50} | settings
    return fit(rbm, rule, jnp.asarray(DATA), state=state, **settings)


@slow
def test_a_run_goes_on_with_its_chains_from_its_checkpoint(tmp_path):
    rbm, rule = start(), bm.CentredGradient()
    state = rule.init(rbm, 20, KEY, data_mean=jnp.asarray(DATA.mean(axis=0)))
    whole = run(rbm, rule, state)
    run(rbm, rule, state, n_steps=13, checkpoint=Checkpoint(tmp_path / "run", 13))
    resumed = run(rbm, rule, state, checkpoint=Checkpoint(tmp_path / "run", 13))
    for tree, other in ((whole.model, resumed.model), (whole.state, resumed.state)):
        jax.tree.map(np.testing.assert_array_equal, tree, other)
    assert not np.array_equal(whole.state.chains.hidden, state.chains.hidden)


def test_a_checkpoint_of_another_machine_is_refused(tmp_path):
    rule, checkpoint = bm.ContrastiveObjective(), Checkpoint(tmp_path / "run", 10)
    for n_hidden in (4, 5):
        rbm = bernoulli_rbm(0, 6, n_hidden, dtype="float32")
        if n_hidden == 4:
            run(rbm, rule, rule.init(rbm, 20, KEY), checkpoint=checkpoint)
            continue
        with pytest.raises(ValueError, match=r"checkpoint of step 30 .*weights"):
            run(rbm, rule, rule.init(rbm, 20, KEY), checkpoint=checkpoint)


def test_learning_that_diverges_stops_with_the_step_and_the_metric():
    rbm, rule = start(), bm.ContrastiveObjective(weight_decay=1.0)
    with pytest.raises(NonFiniteLossError, match=r"step \d+: expected a finite loss, got (inf|nan)") as error:
        run(rbm, rule, rule.init(rbm, 20, KEY), optimizer=optax.sgd(1e3), n_steps=100)
    # W is multiplied by −999 at each update, and its square passes 3e38 after about 7.
    assert 4 <= error.value.step <= 12 and error.value.metric == "loss"
