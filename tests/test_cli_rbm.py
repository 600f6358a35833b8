"""``neurojax rbm``, run as a user runs it, on a small machine and few digits."""

import dataclasses
import json
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runs import one_optimizer, watch, write_digits
from saved_figures import assert_history, assert_pictures, cells, legend, scaled, titles

from neurojax import boltzmann, training
from neurojax.cli import _rbm, main
from neurojax.cli._rbm_settings import Data, Settings, make_objective, make_optimizer, read_rows
from neurojax.cli._settings import from_plain
from neurojax.runs import load, plain_settings

SMALL = [
    "--n-hidden=6", "--batch-size=20", "--n-chains=10", "--n-evaluation=30", "--evaluate-every=2",
    "--checkpoint-every=2", "--ais-chains=8", "--ais-temperatures=10", "--n-burn-in=3", "--snapshot-every=3",
]  # fmt: skip
PICTURES = ["filters", "data", "samples", "reconstructions", "history"]
N_ROWS, N_HELD_OUT, SHAPE = 240, 30, (14, 14)
N_VISIBLE = SHAPE[0] * SHAPE[1]


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with one_optimizer(_rbm):
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("data"), N_ROWS)


def run(folder, digits, *flags, n_steps=4):
    return main(["rbm", *SMALL, f"--data={digits}", f"--runs={folder}", f"--n-steps={n_steps}", *flags])


class Whole(NamedTuple):
    """A run: its folder, what it printed, its figures, and what it gave to be drawn."""

    folder: Any
    out: str
    err: str
    figures: dict
    result: Any
    rows: Any
    snapshots: Any


def seen(folder, digits, *flags, written=()):
    out, err, figures, drawn = watch(_rbm, lambda: run(folder, digits, *flags), written)
    run_folder, result, rows, snapshots, settings, is_crossed = drawn
    assert settings.data.data == str(digits) and is_crossed == ("CROSSED" in out)
    for figure in figures.values():
        number = f"{len(rows.train)} training and {len(rows.reported)} held-out rows"
        assert f"data: digits.npy; {number}" in figure.get_supxlabel().replace("\n", " ")
    return Whole(run_folder.path, out, err, figures, result, rows, snapshots)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    return seen(tmp_path_factory.mktemp("runs"), digits, "--progress=True", written=["filters"])


def test_a_run_leaves_its_folder(whole):
    folder, out, err = whole[:3]
    for name in ["config.json", "metrics.jsonl", "checkpoint", "rbm.npz", "samples.npy", "likelihood.json"]:
        assert (folder / name).exists(), name
    assert_pictures(folder, ["filters"])
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (8, N_VISIBLE) and set(np.unique(samples)) == {0, 1}
    assert re.search(r"step 4, held out: .*pseudo log likelihood -\d", err)
    for words in ("pseudo-log-likelihood", "free-energy gap", "base rate", "adversarial accuracy", "at 0.5"):
        assert words in out, words


def hidden_inputs(rbm, visible):
    return visible @ np.asarray(rbm.weights, np.float64) + np.asarray(rbm.hidden_bias, np.float64)


def free_energies(rbm, visible):
    bias = np.asarray(rbm.visible_bias, np.float64)
    return -visible @ bias - np.sum(np.logaddexp(0, hidden_inputs(rbm, visible)), axis=-1)


def log_partition(rbm):
    """Return log Z, summed over the states of the hidden units."""
    n = rbm.hidden_bias.shape[0]
    hidden = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    inputs = hidden @ np.asarray(rbm.weights, np.float64).T + np.asarray(rbm.visible_bias, np.float64)
    return np.logaddexp.reduce(hidden @ np.asarray(rbm.hidden_bias) + np.logaddexp(0, inputs).sum(axis=1))


def pseudo_log_likelihoods(rbm, visible):
    """Return Σᵢ log p(vᵢ | the other units) of each row."""
    change = (1 - 2 * visible)[:, :, None] * np.asarray(rbm.weights, np.float64)
    before = hidden_inputs(rbm, visible)[:, None]
    gain = np.sum(np.logaddexp(0, before + change) - np.logaddexp(0, before), axis=2)
    gain += (1 - 2 * visible) * np.asarray(rbm.visible_bias, np.float64)
    return -np.sum(np.logaddexp(0, gain), axis=1)


def test_its_likelihood_is_the_exact_one_of_its_machine(whole, digits):
    folder, out = whole.folder, whole.out
    rows = (np.load(digits).reshape(N_ROWS, -1) >= 0.5).astype(np.float64)
    train, held_out = rows[:-N_HELD_OUT], rows[-N_HELD_OUT:]
    like = boltzmann.BernoulliRBM(jnp.zeros((N_VISIBLE, 6)), jnp.zeros(N_VISIBLE), jnp.zeros(6))
    rbm = load(folder / "rbm.npz", like)
    value = np.mean(-free_energies(rbm, held_out)) - log_partition(rbm)
    shown = re.search(r"log-likelihood, exact  (-[\d.]+) nats, 30 held-out rows", out)
    assert shown and float(shown[1]) == pytest.approx(value, abs=0.06)
    pseudo = pseudo_log_likelihoods(rbm, held_out).mean()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["evaluation/loss"] == pytest.approx(-pseudo, rel=1e-4)
    measured = json.loads((folder / "likelihood.json").read_text())
    assert measured["log_likelihood"]["exact"] == pytest.approx(value, abs=1e-3)
    assert measured["pseudo_log_likelihood"] == pytest.approx(pseudo, rel=1e-5)
    gap = free_energies(rbm, held_out).mean() - free_energies(rbm, train[:N_HELD_OUT]).mean()
    assert measured["free_energy_gap"] == pytest.approx(gap, abs=1e-2)
    bias = np.asarray(rbm.base_visible_bias(jnp.asarray(train, jnp.float32)), np.float64)
    of_base = np.mean(held_out @ bias) - np.sum(np.logaddexp(0, bias))
    assert measured["log_likelihood_of_base_rate"] == pytest.approx(of_base, rel=1e-4)


def test_the_pictures_show_the_machine_and_its_data(whole):
    figures, result, rows, snapshots = whole.figures, whole.result, whole.rows, np.asarray(whole.snapshots)
    assert set(figures) == set(PICTURES)
    rbm = result.model
    drawn = cells(figures["filters"].axes[0], 6, SHAPE, 3)
    np.testing.assert_allclose(drawn, scaled(np.asarray(rbm.weights).T, SHAPE), atol=1e-6)
    drawn = cells(figures["data"].axes[0], 72, SHAPE, 12)
    np.testing.assert_array_equal(drawn.reshape(72, -1), rows.train[:72])
    # A chain a row.
    assert snapshots.shape == (8, 10, N_VISIBLE) and snapshots.min() > 0 and snapshots.max() < 1
    drawn = cells(figures["samples"].axes[0], 80, SHAPE, 10)
    np.testing.assert_allclose(drawn.reshape(8, 10, -1), snapshots, atol=1e-6)
    left, right = figures["reconstructions"].axes
    reported = np.asarray(rows.reported, np.float64)
    np.testing.assert_array_equal(cells(left, 30, SHAPE, 8).reshape(30, -1), reported)
    hidden = 1 / (1 + np.exp(-hidden_inputs(rbm, reported)))
    logits = hidden @ np.asarray(rbm.weights).T + np.asarray(rbm.visible_bias)
    np.testing.assert_allclose(
        cells(right, 30, SHAPE, 8).reshape(30, -1), 1 / (1 + np.exp(-logits)), atol=1e-5
    )
    assert titles(figures["reconstructions"])[0] == "held-out rows"
    history, steps = result.history, result.history.evaluation_steps
    pseudo, gap, activity = figures["history"].axes
    assert list(steps) == [2, 4]
    assert_history(pseudo, steps, history.evaluation["pseudo_log_likelihood"])
    assert_history(gap, steps, history.evaluation["free_energy_gap"])
    assert_history(activity, np.arange(1, 5), history["hidden_activity"])
    assert pseudo.get_ylabel() == "pseudo-log-likelihood (nats)" and legend(pseudo) == ["held out"]
    assert gap.get_ylabel() == "free-energy gap (nats)" and legend(gap) == ["held out above training"]


def test_a_resumed_run_is_the_uninterrupted_one(whole, digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_rbm, "draw", lambda *args: None)
    whole, parts = whole.folder, tmp_path / "parts"
    assert run(tmp_path, digits, "--name=parts", n_steps=2) == 0
    # What is measured at the end may be measured otherwise.
    assert main(["rbm", "--resume", str(parts), "--n-steps=4", "--ais-temperatures=20"]) == 0
    # The history is that of the loss, and so of the chains; the samples are drawn from the last of them.
    for name in ("metrics.jsonl", "samples.npy"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    with np.load(parts / "rbm.npz") as one, np.load(whole / "rbm.npz") as other:
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])

    capsys.readouterr()
    assert main(["rbm", "--resume", str(parts), "--n-hidden=7", "--rule=cd"]) == 2
    message = capsys.readouterr().err
    assert "n_hidden 6 → 7" in message and "rule 'pcd' → 'cd'" in message
    assert main(["rbm", "--resume", str(parts), "--n-steps=3"]) == 2
    assert "n_steps: expected at least 4, as before, got 3" in capsys.readouterr().err
    assert main(["sparse-coding", "--resume", str(parts)]) == 2
    assert "config.json: expected the settings ['data'" in capsys.readouterr().err
    config = json.loads((parts / "config.json").read_text())
    config["model"]["n_hidden"] = 7
    (parts / "config.json").write_text(json.dumps(config))
    assert main(["rbm", "--resume", str(parts)]) == 2
    message = capsys.readouterr().err
    assert "checkpoint of step 4" in message and "n_hidden from 6 to 7" in message


def test_a_large_machine_of_another_rule_is_bracketed(digits, tmp_path, monkeypatch):
    calls = []

    def fit(model, objective, data, **options):
        """Learn nothing: the machine ends as it begins."""
        calls.append((model, objective, options))
        history = training.History({"loss": np.ones(4), "hidden_activity": np.ones(4)})
        return training.FitResult(model, None, options["state"], history)

    def bracket(rbm, samples, key, *, base_visible_bias, n_temperatures, n_chains):
        """Return the sum of the base in place of log Z, five nats lower from the other side."""
        asked.append((n_chains, len(samples), n_temperatures))
        lower, size = jnp.sum(base_visible_bias), jnp.float32(4)
        estimates = [boltzmann.Estimate(lower - x, jnp.float32(e), size) for x, e in ((0, 0.3), (5, 0.4))]
        return boltzmann.Bracket(*estimates, jnp.float32(-5), jnp.float32(0.5), jnp.bool_(True))

    asked = []
    monkeypatch.setattr(training, "fit", fit)
    monkeypatch.setattr(boltzmann, "MOST_ENUMERATED_UNITS", 5)
    # Annealing is tested on its own.
    monkeypatch.setattr(boltzmann, "log_partition_bracket", bracket)
    flags = (
        "--rule=cd --n-gibbs=2 --no-centred --weight-scale=0.5 --patience=1 --n-evaluation=20 "
        "--binarize=stochastic --optimizer=adam --weight-decay=0.1 --sparsity=0.2 --sparsity-target=0.3"
    )
    done = seen(tmp_path, digits, *flags.split())
    ((rbm, objective, options),) = calls
    assert objective == boltzmann.ContrastiveObjective(boltzmann.ContrastiveDivergence(2), 0.1, 0.2, 0.3)
    assert np.std(rbm.weights) == pytest.approx(0.5, rel=0.1) and options["evaluate"].patience == 1
    assert options["batch_size"] == 20 and options["n_steps"] == 4 and options["evaluate"].keep_best
    for words in (
        "nats, 10 held-out rows (flatters; log Z ±",
        "log-likelihood, reverse AIS",
        "stochastic, drawn once (seed 0)",
        "10 temperatures and 8 chains each way",
        "CROSSED: reverse AIS lies 5.0 ± 0.5 nats below AIS",
        "have not mixed",
    ):
        assert words in done.out, words
    measured = json.loads((done.folder / "likelihood.json").read_text())
    mean = -free_energies(rbm, np.asarray(done.rows.reported, np.float64)).mean()
    for name, estimate in measured["log_partition"].items():
        assert measured["log_likelihood"][name] == pytest.approx(mean - estimate["value"], abs=0.01), name
    forward, reverse = measured["log_partition"]["AIS"], measured["log_partition"]["reverse AIS"]
    base = np.sum(np.asarray(rbm.base_visible_bias(done.rows.train), np.float64))
    assert forward["value"] == pytest.approx(base, rel=1e-4)
    assert reverse["value"] == pytest.approx(base - 5, rel=1e-4)
    expected = {"gap": -5.0, "gap_standard_error": 0.5, "is_crossed": True}
    assert measured["log_partition_bracket"] == expected
    assert asked == [(8, 8, 10)]
    assert "the chains have not mixed" in done.figures["samples"].axes[0].get_title()
    titles = [ax.get_ylabel() for ax in done.figures["history"].axes]
    assert titles == ["mean hidden activity"], "there is nothing that was measured while learning"


def test_rules_and_optimizers_are_found_by_their_names():
    rows = jnp.asarray(np.random.default_rng(0).integers(0, 2, (20, 9)), jnp.float32)
    rbm = boltzmann.BernoulliRBM(jnp.zeros((9, 6)), jnp.zeros(9), jnp.zeros(6))
    learning = dataclasses.replace(Settings().learning, n_gibbs=2, n_chains=5, n_temperatures=3)
    phases = {
        "pcd": boltzmann.PersistentContrastiveDivergence,
        "cd": boltzmann.ContrastiveDivergence,
        "tempering": boltzmann.ParallelTempering,
    }
    for rule, phase in phases.items():
        for centred in (True, False):
            chosen = dataclasses.replace(learning, rule=rule, centred=centred)
            objective, state = make_objective(chosen, rbm, rows, jax.random.key(0))
            assert isinstance(objective, boltzmann.CentredGradient) == centred, rule
            plain = objective.objective if centred else objective
            assert type(plain.negative_phase) is phase, rule
            assert plain.negative_phase.n_steps == 2, rule
            chains = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim > 1]
            assert chains == {"pcd": [(5, 6)], "cd": [], "tempering": [(3, 5, 6)]}[rule], (rule, chains)
    three = jnp.float32(3)
    for name, options, expected in (
        ("sgd", {}, (-0.9, -0.9 / (1 + 1 / 300))),
        ("sgd", {"step_size": 0.1, "decay_steps": None}, (-0.3, -0.3)),
        ("sgd", {"step_size": 0.1, "decay_steps": None, "momentum": 0.5}, (-0.3, -0.45)),
        ("adam", {"decay_steps": 1}, (-0.01, -0.005)),
    ):
        optimizer = make_optimizer(dataclasses.replace(Settings().learning, optimizer=name, **options))
        state, updates = optimizer.init(three), []
        for _ in range(2):
            update, state = optimizer.update(three, state)
            updates.append(float(update))
        assert updates == pytest.approx(expected, rel=1e-3), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--rule=cd --no-centred --n-hidden=21 --patience=1 --n-evaluation=20",
            ["log-likelihood, reverse AIS"],
        ),
        (
            "--rule=tempering --n-temperatures=3 --binarize=none --decay-steps=None",
            ["log Z, exact", "no likelihood and no exact pseudo-likelihood"],
        ),
    ],
)
def test_other_rules_and_data(flags, words, digits, tmp_path, capsys):
    assert run(tmp_path, digits, *flags.split()) == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out
    assert ("log-likelihood" in out) == ("--binarize=none" not in flags)
    assert_pictures(tmp_path / "rbm", PICTURES)


def test_files_of_states_bytes_and_grey_rows_are_the_same_data(digits, tmp_path):
    images = np.load(digits)

    def read(path, binarize="threshold"):
        learning = dataclasses.replace(Settings().learning, batch_size=20)
        settings = Settings(learning=learning, data=Data(data=str(path), binarize=binarize))
        return read_rows(settings, jax.random.key(0))

    expected = read(digits)
    for kind, values, file in (
        ("states", (images >= 0.5).astype(np.uint8), tmp_path / "states.npy"),
        ("bytes", np.round(images * 255).astype(np.uint8), tmp_path / "bytes.npz"),
        ("rows", images.reshape(N_ROWS, -1).astype(np.float64), tmp_path / "rows.npy"),
    ):
        (np.save if file.suffix == ".npy" else np.savez)(file, values)
        came = read(file)
        assert came.image_shape == SHAPE and came.train.shape == (N_ROWS - N_HELD_OUT, N_VISIBLE), kind
        np.testing.assert_array_equal(came.train, expected.train, kind)
        np.testing.assert_array_equal(came.reported, expected.reported, kind)
        assert came.is_binary and read(file, "none").is_binary == (kind == "states"), kind


def test_settings_survive_their_file_and_help_documents_them(capsys):
    learning = dataclasses.replace(Settings().learning, decay_steps=None, patience=3)
    settings = dataclasses.replace(Settings(), learning=learning)
    assert from_plain(Settings, plain_settings(settings), "config.json") == settings
    with pytest.raises(SystemExit, match="0"):
        main(["rbm", "--help"])
    text = capsys.readouterr().out
    for section in dataclasses.fields(Settings):
        for setting in dataclasses.fields(section.default_factory):
            assert f"--{setting.name.replace('_', '-')}" in text
    assert main(["--help"]) == 0 and "rbm" in capsys.readouterr().out


REFUSED = [
    (["--n-hidden=0"], "n_hidden: expected a whole number ≥ 1, got 0"),
    (["--weight-scale=0"], "weight_scale: expected a number > 0, got 0"),
    (["--batch-size=211"], "batch_size: expected at most the 210 training rows, got 211"),
    (["--n-gibbs=0"], "n_gibbs: expected a whole number ≥ 1, got 0"),
    (["--n-chains=0"], "n_chains: expected a whole number ≥ 1, got 0"),
    (["--rule=tempering", "--n-temperatures=1"], "n_temperatures: expected a whole number ≥ 2, got 1"),
    (["--step-size=-1"], "step_size: expected a number > 0"),
    (["--momentum=1"], "momentum: expected a number in [0, 1), got 1"),
    (["--weight-decay=-1"], "weight_decay: expected a number ≥ 0"),
    (
        ["--sparsity=1", "--sparsity-target=1.5"],
        "sparsity_target: expected a number in [0, 1], got 1.5",
    ),
    (["--evaluate-every=0"], "evaluate_every: expected a whole number ≥ 1"),
    (["--patience=1", "--binarize=none"], "patience: expected None with grey values"),
    (["--patience=1", "--n-evaluation=30"], "n_evaluation: expected at most 28 with patience"),
    (["--weight-scale=0.1", "--start=uniform"], "weight_scale: applies only to start base-rate"),
    (["--patience=1", "--no-hold-out"], "patience: expected None without held-out rows"),
    (["--patience=1", "--pseudo-likelihood=one-flip"], "patience: expected None without held-out rows"),
    (["--n-burn-in=0"], "n_burn_in: expected a whole number ≥ 1, got 0"),
    (["--ais-chains=1"], "ais_chains: expected a whole number ≥ 2, got 1"),
    (["--ais-temperatures=1"], "ais_temperatures: expected a whole number ≥ 2, got 1"),
    (["--data=nowhere.npy"], "data: expected a file, but there is none at nowhere.npy"),
    (["--data=mnits"], "data: expected digits, mnist, binarized-mnist or a path"),
    (["--resume=none"], "expected a run folder (with config.json), got none"),
]


def test_settings_that_cannot_work_leave_no_folder(digits, tmp_path, capsys, untyped):
    for flags, message in REFUSED:
        assert run(tmp_path / "runs", digits, *flags) == 2, flags
        assert message in capsys.readouterr().err, flags
    assert not (tmp_path / "runs").exists()


NO_STATES = [
    (np.full((20, 9), 2.0), "data: expected numbers in [0, 1], got 2 to 2"),
    (np.linspace(-1, 1, 180).reshape(20, 9), "data: expected numbers in [0, 1], got -1 to 1"),
    (np.full((20, 9), np.nan), "data: expected finite numbers, got 180"),
    (np.zeros((15, 9)), "at least 16 of them, got float64 of shape (15, 9)"),
    (np.zeros(20), "(rows, values) or (images, rows, columns)"),
    (np.array(["a"] * 20), "expected one array of numbers, got (one without a name) (20,)"),
]


def test_data_that_cannot_be_states_are_refused(tmp_path, capsys, untyped):
    for values, message in NO_STATES:
        np.save(tmp_path / "rows.npy", values)
        assert run(tmp_path / "runs", tmp_path / "rows.npy") == 2, message
        assert message in capsys.readouterr().err, message
    assert not (tmp_path / "runs").exists()
