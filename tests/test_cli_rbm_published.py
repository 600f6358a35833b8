"""``neurojax rbm --published``: the published NumPy machine, to the figures printed with it."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runs import one_optimizer, write_digits

from neurojax import boltzmann
from neurojax.cli import _rbm, main
from neurojax.cli._rbm_published import Reader, Reading
from neurojax.cli._rbm_settings import PUBLISHED, make_machine

N_ROWS, BATCH = 200, 23
QUICK = [
    "--n-hidden=6",
    f"--batch-size={BATCH}",
    "--n-steps=18",
    "--evaluate-every=9",
    "--checkpoint-every=9",
]
BRIEF = ["--n-evaluation=20", "--ais-chains=4", "--ais-temperatures=5", "--n-burn-in=2", "--snapshot-every=2"]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with one_optimizer(_rbm):
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("data"), N_ROWS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def free_energies(weights, visible_bias, hidden_bias, v):
    return -v @ visible_bias - np.sum(np.logaddexp(0, v @ weights + hidden_bias), axis=-1)


def published_in_numpy(rows, n_hidden, n_epochs, seed):
    """Return the printed figures of the published rule, in float64: the mean over the batches of an epoch."""
    rng, n_visible = np.random.default_rng(seed), rows.shape[1]
    limit, figures = np.sqrt(6 / (n_visible + n_hidden)), []
    w, b, c = rng.uniform(-limit, limit, (n_visible, n_hidden)), np.zeros(n_visible), np.zeros(n_hidden)
    for _ in range(n_epochs):
        read = []
        for v0 in np.array_split(rows, -(-len(rows) // BATCH)):
            p0 = sigmoid(v0 @ w + c)
            h0 = (rng.random(p0.shape) < p0).astype(float)
            v1 = (rng.random(v0.shape) < sigmoid(h0 @ w.T + b)).astype(float)
            p1 = sigmoid(v1 @ w + c)
            h1 = (rng.random(p1.shape) < p1).astype(float)
            w = w + 0.1 * (v0.T @ p0 - v1.T @ p1) / len(v0)
            b, c = b + 0.1 * (v0 - v1).mean(0), c + 0.1 * (h0 - h1).mean(0)
            flipped, at = v0.copy(), (np.arange(len(v0)), rng.integers(0, n_visible, len(v0)))
            flipped[at] = 1 - flipped[at]
            gain = free_energies(w, b, c, flipped) - free_energies(w, b, c, v0)
            read.append(-np.logaddexp(0, -gain).mean())
        figures.append(BATCH * np.mean(read))
    return figures


@pytest.mark.slow
def test_the_published_setting_on_few_digits(digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_rbm, "draw", lambda *args: None)
    flags = ["--published", f"--data={digits}", f"--runs={tmp_path}", *QUICK, *BRIEF]
    assert main(["rbm", *flags]) == 0
    out = capsys.readouterr().out
    measured = json.loads((tmp_path / "rbm" / "likelihood.json").read_text())
    figures = measured["pseudo_likelihood_as_published"]
    rows = np.load(digits).reshape(N_ROWS, -1).astype(np.float64)
    reference = np.array([published_in_numpy(rows, 6, 2, seed) for seed in range(60)])
    assert np.all(np.abs(figures - reference.mean(0)) < 4 * reference.std(0, ddof=1)), (figures, reference)
    assert np.all(reference.std(0) < 0.05 * -reference.mean(0)), "the spread is small beside the figures"
    for words in (f"{figures[0]:.2f} {figures[1]:.2f} (23 times", "all 196 units: 8.52", "nothing: all rows"):
        assert words in out, words
    assert measured["pseudo_log_likelihood_of_batches"] == pytest.approx(figures[-1] * 196 / 23)
    assert "log_likelihood" not in measured and "free_energy_gap" not in measured
    # Stopped halfway and resumed it is the same run: the place in the file and the reading are kept.
    parts = [*flags, "--name=parts"]
    parts[parts.index("--n-steps=18")] = "--n-steps=12"
    assert main(["rbm", *parts]) == 0
    assert main(["rbm", "--resume", str(tmp_path / "parts"), "--n-steps=18"]) == 0
    whole, other = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("rbm", "parts"))
    assert whole == other
    settings = json.loads((tmp_path / "rbm" / "config.json").read_text())
    assert settings["preset"]["published"] and settings["learning"]["rule"] == "cd"


def test_the_start_is_uniform_and_the_reading_flips_grey_values():
    rbm = make_machine(PUBLISHED.model, jnp.zeros((2, 784)), jax.random.key(0))
    limit = np.sqrt(6 / (784 + 64))
    assert rbm.weights.shape == (784, 64)
    assert 0.999 * limit < np.abs(rbm.weights).max() <= limit
    assert np.std(rbm.weights) == pytest.approx(limit / np.sqrt(3), rel=0.02)
    assert not np.any(rbm.visible_bias) and not np.any(rbm.hidden_bias)

    rng = np.random.default_rng(0)
    w, b, c = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=3)
    small = boltzmann.BernoulliRBM(*(x.astype("float32") for x in (w, b, c)))
    row = np.array([0.0, 1.0, 0.4, 0.5, 0.9])
    flipped = np.where(np.eye(5, dtype=bool), 1 - row, row)
    each = -np.logaddexp(0, free_energies(w, b, c, row) - free_energies(w, b, c, flipped))
    n_rows = 20_000
    batch = jnp.asarray(np.tile(row, (n_rows, 1)), jnp.float32)
    read = jax.jit(lambda state, key: Reader(2)(small, None, state, batch, key)[2])
    state = Reading(None, jnp.zeros(()), jnp.int32(0))
    means = []
    for i in range(3):
        state = read(state, jax.random.key(i))
        means.append(float(state.value))
    assert [int(state.n_read)] == [1], "a mean over two batches begins anew at the third"
    for mean, n in zip(means, (n_rows, 2 * n_rows, n_rows), strict=True):
        assert abs(mean - each.mean()) < 4 * each.std() / np.sqrt(n)
    assert means[2] != means[1]
