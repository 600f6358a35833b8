"""``neurojax rbm``, run as a user runs it, on a small machine and few digits."""

import contextlib
import dataclasses
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from neurojax import boltzmann, data
from neurojax.cli import main
from neurojax.cli._rbm_settings import Data, Settings, read_rows
from neurojax.cli._settings import from_plain
from neurojax.runs import load, plain_settings

SMALL = [
    "--n-hidden=6", "--batch-size=20", "--n-chains=10", "--n-evaluation=30", "--evaluate-every=10",
    "--checkpoint-every=10", "--ais-chains=8", "--ais-temperatures=10", "--n-burn-in=5",
    "--snapshot-every=3",
]  # fmt: skip
PICTURES = ["filters", "data", "samples", "reconstructions", "history"]
N_ROWS, N_HELD_OUT = 240, 30


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of the first digits, as grey images."""
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, np.asarray(data.mnist_subset("train").images[:N_ROWS]))
    return path


def run(folder, digits, *flags, n_steps=20):
    return main(["rbm", *SMALL, f"--data={digits}", f"--runs={folder}", f"--n-steps={n_steps}", *flags])


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    """A run's folder, and what it printed."""
    folder, out, err = tmp_path_factory.mktemp("runs"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run(folder, digits, "--progress=True") == 0
    return folder / "rbm", out.getvalue(), err.getvalue()


def test_a_run_leaves_its_folder(whole):
    folder, out, err = whole
    for name in ["config.json", "metrics.jsonl", "checkpoint", "rbm.npz", "samples.npy", "likelihood.json"]:
        assert (folder / name).exists(), name
    for picture in PICTURES:
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) > 300 and np.ptp(np.asarray(image.convert("L"))) > 100, picture
    samples = np.load(folder / "samples.npy")
    assert samples.shape == (8, 784) and set(np.unique(samples)) == {0, 1}
    assert re.search(r"step 20, held out: .*pseudo log likelihood -\d", err)
    for words in ("pseudo-log-likelihood", "free-energy gap", "base rate", "adversarial accuracy", "at 0.5"):
        assert words in out, words


def test_its_likelihood_is_the_exact_one_of_its_machine(whole):
    folder, out, _ = whole
    images = np.asarray(data.mnist_subset("train").images[:N_ROWS]).reshape(N_ROWS, -1)
    held_out = jnp.asarray((images >= 0.5).astype(np.float32)[-N_HELD_OUT:])
    like = boltzmann.BernoulliRBM(jnp.zeros((784, 6)), jnp.zeros(784), jnp.zeros(6))
    rbm = load(folder / "rbm.npz", like)
    log_partition = boltzmann.log_partition_exact(rbm)
    values = jax.vmap(boltzmann.log_likelihood, (None, 0, None))(rbm, held_out, log_partition)
    shown = re.search(r"log-likelihood, exact  (-[\d.]+) nats, 30 held-out rows", out)
    assert shown and float(shown[1]) == pytest.approx(float(values.mean()), abs=0.06)
    pseudo = jax.vmap(boltzmann.pseudo_log_likelihood_exact, (None, 0))(rbm, held_out).mean()
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["evaluation/loss"] == pytest.approx(-float(pseudo), rel=1e-4)
    measured = json.loads((folder / "likelihood.json").read_text())
    assert measured["log_likelihood"]["exact"] == pytest.approx(float(values.mean()), abs=1e-3)


def test_a_resumed_run_is_the_uninterrupted_one(whole, digits, tmp_path, capsys):
    whole, parts = whole[0], tmp_path / "parts"
    assert run(tmp_path, digits, "--name=parts", n_steps=10) == 0
    # What is measured at the end may be measured otherwise.
    flags = ["--n-steps=20", "--ais-temperatures=20"]
    assert main(["rbm", "--resume", str(parts), *flags]) == 0
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
    assert main(["rbm", "--resume", str(parts), "--n-steps=15"]) == 2
    assert "n_steps: expected at least 20, as before, got 15" in capsys.readouterr().err
    assert main(["sparse-coding", "--resume", str(parts)]) == 2
    assert "config.json: expected the settings ['data'" in capsys.readouterr().err
    config = json.loads((parts / "config.json").read_text())
    config["model"]["n_hidden"] = 7
    (parts / "config.json").write_text(json.dumps(config))
    assert main(["rbm", "--resume", str(parts)]) == 2
    message = capsys.readouterr().err
    assert "checkpoint of step 20" in message and "n_hidden from 6 to 7" in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            "--rule=cd --no-centred --n-hidden=21 --patience=1 --n-evaluation=20 --binarize=stochastic "
            "--optimizer=adam",
            [
                "nats, 10 held-out rows (flatters; log Z ±",
                "log-likelihood, reverse AIS",
                "stochastic, drawn once (seed 0)",
            ],
        ),
        pytest.param(
            "--rule=tempering --n-temperatures=3 --binarize=none --decay-steps=None",
            ["log Z, exact", "no likelihood and no pseudo-likelihood"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_other_rules_and_data(flags, words, digits, tmp_path, capsys):
    assert run(tmp_path, digits, *flags.split(), n_steps=10) == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out
    assert ("log-likelihood" in out) == ("--binarize=none" not in flags)


@pytest.mark.parametrize("kind", ["states", "bytes", "rows"])
def test_files_of_states_bytes_and_grey_rows_are_the_same_data(kind, digits, tmp_path):
    images = np.load(digits)
    values, file = {
        "states": ((images >= 0.5).astype(np.uint8), tmp_path / "states.npy"),
        "bytes": (np.round(images * 255).astype(np.uint8), tmp_path / "bytes.npz"),
        "rows": (images.reshape(N_ROWS, -1).astype(np.float64), tmp_path / "rows.npy"),
    }[kind]
    (np.save if file.suffix == ".npy" else np.savez)(file, values)

    def read(path, binarize="threshold"):
        learning = dataclasses.replace(Settings().learning, batch_size=20)
        settings = Settings(learning=learning, data=Data(data=str(path), binarize=binarize))
        return read_rows(settings, jax.random.key(0))

    expected, came = read(digits), read(file)
    assert came.image_shape == (28, 28) and came.train.shape == (N_ROWS - N_HELD_OUT, 784)
    np.testing.assert_array_equal(came.train, expected.train)
    np.testing.assert_array_equal(came.reported, expected.reported)
    assert came.is_binary and read(file, "none").is_binary == (kind == "states")


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
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
        (["--n-burn-in=0"], "n_burn_in: expected a whole number ≥ 1, got 0"),
        (["--ais-chains=1"], "ais_chains: expected a whole number ≥ 2, got 1"),
        (["--ais-temperatures=1"], "ais_temperatures: expected a whole number ≥ 2, got 1"),
        (["--data=nowhere.npy"], "data: expected a file, but there is none at nowhere.npy"),
        (["--data=mnits"], "data: expected digits, mnist, binarized-mnist or a path"),
        (["--resume=none"], "expected a run folder (with config.json), got none"),
    ],
)
def test_settings_that_cannot_work_leave_no_folder(flags, message, digits, tmp_path, capsys, untyped):
    assert run(tmp_path / "runs", digits, *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((20, 9), 2.0), "data: expected numbers in [0, 1], got 2 to 2"),
        (np.linspace(-1, 1, 180).reshape(20, 9), "data: expected numbers in [0, 1], got -1 to 1"),
        (np.full((20, 9), np.nan), "data: expected finite numbers, got 180"),
        (np.zeros((15, 9)), "at least 16 of them, got shape (15, 9)"),
        (np.zeros(20), "(rows, values) or (images, rows, columns)"),
        (np.array(["a"] * 20), "data: expected one array of real numbers"),
    ],
)
def test_data_that_cannot_be_states_are_refused(values, message, tmp_path, capsys, untyped):
    np.save(tmp_path / "rows.npy", values)
    assert run(tmp_path / "runs", tmp_path / "rows.npy") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
