"""``neurojax autoencoder``, run as a user runs it, on small models and few digits."""

import contextlib
import dataclasses
import io
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from neurojax import autoencoder as ae
from neurojax import data
from neurojax.cli import main
from neurojax.cli._autoencoder_settings import Settings, resolve
from neurojax.cli._settings import from_plain
from neurojax.runs import load, load_arrays, plain_settings

SMALL = ["--batch-size=20", "--n-evaluation=30", "--evaluate-every=10", "--checkpoint-every=10"]
PICTURES = ["filters", "reconstructions", "history", "hourglass"]
N_ROWS, N_HELD_OUT = 240, 30


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of the first digits, every other pixel, as grey images of 14 by 14."""
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, np.asarray(data.mnist_subset("train").images[:N_ROWS, ::2, ::2]))
    return path


def run(folder, digits, *flags, n_steps=20):
    return main(
        ["autoencoder", *SMALL, f"--data={digits}", f"--runs={folder}", f"--n-steps={n_steps}", *flags]
    )


def read(folder):
    return json.loads((folder / "results.json").read_text())


def held_out_rows(digits):
    return jnp.asarray(np.load(digits).reshape(N_ROWS, -1)[-N_HELD_OUT:])


def check_pictures(folder, names):
    for name in names:
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 200 and np.ptp(np.asarray(image.convert("L"))) > 100, name


def check_same_parameters(one, other):
    with np.load(one / "parameters.npz") as a, np.load(other / "parameters.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    """The folder of a run of the plain kind, and what it printed."""
    folder, out, err = tmp_path_factory.mktemp("runs"), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run(folder, digits, "--n-hidden=8", "--progress=True") == 0
    return folder / "autoencoder", out.getvalue(), err.getvalue()


def test_a_plain_run_leaves_its_folder_and_its_figures_are_those_of_its_model(plain, digits):
    folder, out, err = plain
    check_pictures(folder, PICTURES)
    assert (folder / "checkpoint").is_dir() and "step 20, held out: loss" in err
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    cost = np.loadtxt(folder / "cost.txt")
    np.testing.assert_allclose(cost, [[row["step"], row["loss"]] for row in steps], rtol=1e-6)

    like = ae.Autoencoder.from_sizes(196, [8], jax.random.key(0))
    model = load(folder / "autoencoder.npz", like)
    plainly = load_arrays(folder / "parameters.npz", like)
    np.testing.assert_array_equal(model.encoder[0].weight, plainly.encoder[0].weight)
    xs = held_out_rows(digits)
    costs = jax.vmap(lambda x: ae.cross_entropy(model.output_parameters(model.encode(x)), x))(xs)
    measured = read(folder)
    assert measured["held_out"]["cost"] == pytest.approx(float(costs.mean()), rel=1e-5)
    assert f"{float(costs.mean()):.2f} nats, 30 held-out rows" in out
    assert steps[-1]["evaluation/loss"] == pytest.approx(float(costs.mean()), rel=1e-5)
    mean = np.load(digits).reshape(N_ROWS, -1)[:-N_HELD_OUT].mean(axis=0)
    errors = jnp.sum((xs - jax.vmap(model.reconstruct)(xs)) ** 2)
    explained = float(1 - errors / jnp.sum((xs - mean) ** 2))
    assert measured["held_out"]["explained_variance"] == pytest.approx(explained, abs=1e-5)
    assert measured["n_parameters"] == 196 * 8 + 8 + 196


def test_a_resumed_plain_run_is_the_uninterrupted_one(plain, digits, tmp_path, capsys):
    parts = tmp_path / "parts"
    assert run(tmp_path, digits, "--n-hidden=8", "--name=parts", n_steps=10) == 0
    assert main(["autoencoder", "--resume", str(parts), "--n-steps=20"]) == 0
    for name in ("metrics.jsonl", "cost.txt", "results.json"):
        assert (parts / name).read_bytes() == (plain[0] / name).read_bytes(), name
    check_same_parameters(parts, plain[0])

    capsys.readouterr()
    assert main(["autoencoder", "--resume", str(parts), "--n-hidden=7", "--seed=1"]) == 2
    message = capsys.readouterr().err
    assert "n_hidden [8] → [7]" in message and "seed 0 → 1" in message
    assert main(["autoencoder", "--resume", str(parts), "--n-steps=15"]) == 2
    assert "n_steps: expected at least 20, as before, got 15" in capsys.readouterr().err


STACKED = ["--kind=stacked", "--n-hidden", "8", "6", "--pretraining-steps=20"]


def check_classifier(folder, out):
    like = ae.Classifier.from_autoencoder(ae.Autoencoder.from_sizes(784, [8, 6], jax.random.key(0)), 10)
    classifier = load(folder / "classifier.npz", like)
    unseen = data.mnist_subset("test")
    classes = jax.vmap(classifier.predict)(unseen.images.reshape(-1, 784))
    error = float(jnp.mean(classes != unseen.labels))
    assert read(folder)["held_out"]["classification_error"] == pytest.approx(error, abs=1e-6)
    assert f"{error:.2%} ±" in out


@pytest.mark.slow
def test_a_stack_goes_on_from_whatever_phase_it_was_cut_off_in(tmp_path, capsys):
    assert run(tmp_path, "digits", *STACKED, "--name=whole") == 0
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    check_classifier(whole, capsys.readouterr().out)
    check_pictures(whole, PICTURES)
    # Cut off while the second layer was being learned: the first alone is there.
    shutil.copytree(whole, parts)
    for name in ("checkpoint", "layer_1"):
        shutil.rmtree(parts / name)
    for file in parts.glob("*.*"):
        if file.name != "config.json":
            file.unlink()
    before = [(path, path.stat().st_mtime_ns) for path in sorted(parts.glob("layer_0/checkpoint/*"))]
    assert main(["autoencoder", "--resume", str(parts)]) == 0
    after = [(path, path.stat().st_mtime_ns) for path in sorted(parts.glob("layer_0/checkpoint/*"))]
    assert before and after == before
    for name in ("metrics.jsonl", "layer_1/metrics.jsonl", "layer_1/cost.txt", "results.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    check_same_parameters(parts, whole)


@pytest.mark.slow
def test_a_stack_without_pretraining_has_learned_no_reconstruction(tmp_path, capsys):
    assert run(tmp_path, "digits", *STACKED[:-1], "--no-pretrain") == 0
    folder, out = tmp_path / "autoencoder", capsys.readouterr().out
    check_classifier(folder, out)
    assert not (folder / "layer_0").exists() and not (folder / "reconstructions.png").exists()
    assert "explained variance" not in out


@pytest.mark.slow
def test_a_stack_without_labels_is_fine_tuned_to_reconstruct(digits, tmp_path):
    assert run(tmp_path, digits, *STACKED) == 0
    like = ae.Autoencoder.from_sizes(196, [8, 6], jax.random.key(0))
    model, xs = load(tmp_path / "autoencoder" / "autoencoder.npz", like), held_out_rows(digits)
    costs = jax.vmap(lambda x: ae.cross_entropy(model.output_parameters(model.encode(x)), x))(xs)
    measured = read(tmp_path / "autoencoder")["held_out"]
    assert measured["cost"] == pytest.approx(float(costs.mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "files", "words"),
    [
        ("--kind=denoising --corruption=bit-flip --n-hidden=8", [], ["from corrupted rows"]),
        ("--kind=contractive --n-hidden=8 --activation=tanh", ["spectrum"], ["‖J‖²", "before learning"]),
        ("--kind=sparse --n-hidden=16 --k=3", ["activity"], ["squared error", "3.0 a datum", "dead units"]),
        pytest.param(
            "--kind=sparse --selection=kl --n-hidden=8 --no-tied",
            ["activity"],
            ["(above ½)", "target 0.05"],
            marks=pytest.mark.slow,
        ),
        (
            "--kind=variational --n-hidden=8 --n-latent=2 --likelihood-samples=4",
            ["samples", "traversal", "manifold"],
            ["ELBO  -", "30 held-out rows, 4 samples each", "of 2 latent units active"],
        ),
        pytest.param(
            "--kind=variational --n-hidden=8 --output=gaussian --importance-samples=3 --n-likelihood=9",
            ["samples", "traversal"],
            ["bound, 3 samples", "9 held-out rows, 500 samples each"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "--kind=denoising --n-hidden=8 --whiten --corruption=gaussian --rate=2 --step-size=0.001",
            [],
            ["squared error"],
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param(
                f"--kind=sparse --n-hidden=16 --selection={name}", [], ["dead"], marks=pytest.mark.slow
            )
            for name in ("batch-topk", "jump-relu", "relu-l1")
        ),
    ],
)
def test_every_kind_leaves_its_pictures_and_figures(flags, files, words, digits, tmp_path, capsys):
    batch = ["--k=3"] if "batch-topk" in flags else []
    assert run(tmp_path, digits, *flags.split(), *batch) == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out, word
    check_pictures(tmp_path / "autoencoder", PICTURES + files)
    measured = read(tmp_path / "autoencoder")
    assert np.all(np.isfinite(list(measured["held_out"].values())))


@pytest.mark.slow
def test_colour_images_and_rows_of_real_numbers(tmp_path, capsys):
    values = np.random.default_rng(0).random((40, 6, 5, 3))
    np.save(tmp_path / "colour.npy", values)
    flags = ["--n-hidden=8", f"--runs={tmp_path}", "--batch-size=8", "--n-steps=5"]
    assert main(["autoencoder", *flags, f"--data={tmp_path}/colour.npy", "--name=colour"]) == 0
    check_pictures(tmp_path / "colour", PICTURES)
    np.save(tmp_path / "rows.npy", 10 * values.reshape(40, -1) - 5)
    assert main(["autoencoder", *flags, f"--data={tmp_path}/rows.npy"]) == 2
    assert "data: expected numbers in [0, 1], got -" in capsys.readouterr().err
    assert main(["autoencoder", *flags, f"--data={tmp_path}/rows.npy", "--output=gaussian"]) == 0
    assert "squared error" in capsys.readouterr().out


def test_settings_survive_their_file_and_help_documents_them(capsys):
    settings = resolve(Settings(model=dataclasses.replace(Settings().model, kind="stacked")))
    assert settings.model.n_hidden == (500, 500) and settings.denoising.rate == (0.1, 0.2)
    assert from_plain(Settings, plain_settings(settings), "config.json") == settings
    with pytest.raises(SystemExit, match="0"):
        main(["autoencoder", "--help"])
    text = capsys.readouterr().out
    for section in dataclasses.fields(Settings):
        for setting in dataclasses.fields(section.default_factory):
            assert f"--{setting.name.replace('_', '-')}" in text
    assert main(["--help"]) == 0 and "autoencoder" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--n-hidden=0", "n_hidden: expected a whole number ≥ 1, got 0"),
        ("--n-steps=0", "n_steps: expected a whole number ≥ 1, got 0"),
        ("--batch-size=211", "batch_size: expected at most the 210 training rows, got 211"),
        ("--step-size=-1", "step_size: expected a number > 0, got -1"),
        ("--evaluate-every=0", "evaluate_every: expected a whole number ≥ 1"),
        ("--k=3", "k: expected 32, as by default, since --kind plain as set does not use it, got 3"),
        ("--kind=contractive --rate=0.1", "rate: expected None, as by default, since --kind contractive"),
        ("--kind=sparse --n-hidden=8 --k=9", "k: expected at most the 8 units there are, got 9"),
        ("--kind=sparse --n-hidden 8 8", "n_hidden: expected one number, got 8 8"),
        ("--kind=sparse --activation=relu", "activation: expected None, as by default, since --kind sparse"),
        (
            "--kind=sparse --selection=jump-relu --k=3",
            "since --kind sparse with --selection jump-relu as set",
        ),
        (
            "--kind=sparse --selection=kl --activation=tanh",
            "activation: expected sigmoid with --selection kl",
        ),
        ("--kind=sparse --selection=kl --sparsity-target=2", "sparsity_target: expected a number in [0, 1]"),
        ("--kind=denoising --rate=1", "rate: expected a number in [0, 1), got 1"),
        ("--kind=denoising --rate 0.1 0.2", "rate: expected 1 numbers, got 2"),
        ("--kind=denoising --corruption=gaussian --rate=-1", "rate: expected a number ≥ 0, got -1"),
        ("--kind=contractive --contraction=-1", "contraction: expected a number ≥ 0, got -1"),
        ("--kind=stacked --no-pretrain --rate=0.1", "rate: expected None, as by default"),
        ("--kind=stacked --finetuning=labels", "finetuning: expected reconstruction for a file"),
        ("--kind=variational --n-latent=0", "n_latent: expected a whole number ≥ 1, got 0"),
        ("--kind=variational --importance-samples=5 --beta=2", "beta: expected 1.0, as by default"),
        ("--kind=variational --likelihood-samples=1", "likelihood_samples: expected a whole number ≥ 2"),
        ("--decoder-activation=relu --n-hidden=8", "decoder_activation: expected None with one hidden layer"),
        ("--whiten --output=bernoulli", "output: expected gaussian for whitened data, got bernoulli"),
        ("--data=nowhere.npy", "data: expected a file, but there is none at nowhere.npy"),
        ("--data=mnits", "data: expected digits, mnist, cifar10 or a path to an .npy or .npz file"),
        ("--resume=none", "expected a run folder (with config.json), got none"),
    ],
)
def test_settings_that_cannot_work_leave_no_folder(flags, message, digits, tmp_path, capsys, untyped):
    assert run(tmp_path / "runs", digits, *flags.split()) == 2 or "--n-steps" in flags
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
