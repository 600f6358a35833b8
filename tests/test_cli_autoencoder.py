"""``neurojax autoencoder``, run as a user runs it, on small models and few digits."""

import dataclasses
import json
import re
import shutil
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runs import one_optimizer, watch, write_digits
from saved_figures import assert_history, assert_pictures, cells, legend, scaled, texts, titles

from neurojax import autoencoder as ae
from neurojax import data, training
from neurojax.cli import _autoencoder, main
from neurojax.cli._autoencoder_measures import sparse_codes
from neurojax.cli._autoencoder_pictures import _generate
from neurojax.cli._autoencoder_settings import Settings, resolve
from neurojax.cli._settings import from_plain
from neurojax.runs import load, load_arrays, plain_settings

SMALL = ["--batch-size=20", "--n-evaluation=30", "--evaluate-every=2", "--checkpoint-every=2"]
PICTURES = ["filters", "reconstructions", "history", "hourglass"]
N_ROWS, N_HELD_OUT, SHAPE = 240, 30, (14, 14)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with one_optimizer(_autoencoder):
        yield


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("data"), N_ROWS)


def run(folder, digits, *flags, n_steps=4):
    return main(
        ["autoencoder", *SMALL, f"--data={digits}", f"--runs={folder}", f"--n-steps={n_steps}", *flags]
    )


def read(folder):
    return json.loads((folder / "results.json").read_text())


def held_out_rows(digits):
    return np.load(digits).reshape(N_ROWS, -1)[-N_HELD_OUT:]


def check_same_parameters(one, other):
    with np.load(one / "parameters.npz") as a, np.load(other / "parameters.npz") as b:
        assert a.files == b.files
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def layer(linear, xs):
    return xs @ np.asarray(linear.weight, np.float64).T + np.asarray(linear.bias, np.float64)


def logits_of(model, xs, activation=sigmoid):
    """Return the log-odds of the pixels that a tied autoencoder of one layer restores."""
    code = activation(layer(model.encoder[0], xs))
    return code @ np.asarray(model.encoder[0].weight, np.float64) + np.asarray(model.decoder[0].bias)


def cross_entropies(logits, xs):
    return np.sum(np.logaddexp(0, logits) - xs * logits, axis=1)


class Seen(NamedTuple):
    """A run: its folder, what it printed, its figures, and what it gave to be drawn."""

    folder: Path
    out: str
    err: str
    figures: dict
    trained: Any
    rows: Any
    key: Any


def seen(folder, digits, *flags, written=()):
    out, err, figures, drawn = watch(_autoencoder, lambda: run(folder, digits, *flags), written)
    run_folder, _, trained, rows, key = drawn
    return Seen(run_folder.path, out, err, figures, trained, rows, key)


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    """A run of the plain kind."""
    flags = ["--n-hidden=8", "--progress=True"]
    return seen(tmp_path_factory.mktemp("runs"), digits, *flags, written=["history"])


def test_a_plain_run_leaves_its_folder_and_its_figures_are_those_of_its_model(plain, digits):
    folder, out, err = plain[:3]
    assert_pictures(folder, ["history"])
    assert (folder / "checkpoint").is_dir() and "step 4, held out: loss" in err
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    cost = np.loadtxt(folder / "cost.txt")
    np.testing.assert_allclose(cost, [[row["step"], row["loss"]] for row in steps], rtol=1e-6)

    like = ae.Autoencoder.from_sizes(196, [8], jax.random.key(0))
    model = load(folder / "autoencoder.npz", like)
    plainly = load_arrays(folder / "parameters.npz", like)
    np.testing.assert_array_equal(model.encoder[0].weight, plainly.encoder[0].weight)
    xs = held_out_rows(digits)
    logits = logits_of(model, xs)
    cost, measured = cross_entropies(logits, xs).mean(), read(folder)
    assert measured["held_out"]["cost"] == pytest.approx(cost, rel=1e-5)
    assert f"{cost:.2f} nats, 30 held-out rows" in out
    assert steps[-1]["evaluation/loss"] == pytest.approx(cost, rel=1e-5)
    explained = 1 - np.sum((xs - sigmoid(logits)) ** 2) / np.sum((xs - xs.mean(axis=0)) ** 2)
    assert measured["held_out"]["explained_variance"] == pytest.approx(explained, abs=1e-5)
    assert measured["n_parameters"] == 196 * 8 + 8 + 196


def assert_filters(figure, before, after, n_columns):
    """Check filters before and after learning: the same units, those first that were turned the most."""
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = np.sum(before * after, axis=1) / norms
    first, last = (cells(ax, len(after), SHAPE, n_columns) for ax in figure.axes)
    order = np.argsort(cosine, kind="stable")
    np.testing.assert_allclose(last, scaled(after, SHAPE)[order], atol=1e-6)
    np.testing.assert_allclose(first, scaled(before, SHAPE)[order], atol=1e-6)
    assert f"{np.median(cosine):.2f}" in figure.get_suptitle()


def test_the_pictures_of_a_plain_run_show_its_model(plain):
    figures, trained, rows = plain.figures, plain.trained, plain.rows
    assert set(figures) == set(PICTURES)
    weights, xs = np.asarray(trained.autoencoder.encoder[0].weight), np.asarray(rows.held_out)
    assert_filters(figures["filters"], np.asarray(trained.first.encoder[0].weight), weights, 3)
    assert titles(figures["filters"])[1] == "weights of 8 units, after learning"
    for figure in figures.values():
        caption = figure.get_supxlabel().replace("\n", " ")
        assert caption.startswith("data: digits.npy; plain autoencoder; "), caption
        assert f"{len(rows.train)} training and {len(xs)} held-out rows; 4 updates" in caption
    pairs = cells(figures["reconstructions"].axes[0], 30, (28, 14), 10)
    np.testing.assert_allclose(pairs[:, :14], scaled(xs, SHAPE), atol=1e-6)
    restored = sigmoid(logits_of(trained.autoencoder, xs)) / xs.max(axis=1, keepdims=True)
    np.testing.assert_allclose(pairs[:, 14:], np.clip(restored, 0, 1).reshape(-1, *SHAPE), atol=1e-5)
    history, ax = trained.history, figures["history"].axes[0]
    measured = history.evaluation_steps, history.evaluation["loss"]
    assert_history(ax, np.arange(1, 5), history["loss"], measured)
    assert ax.get_ylabel() == "cost (nats)" and list(measured[0]) == [2, 4]
    shown = np.concatenate([history["loss"], measured[1]])
    low, high = shown.min(), np.quantile(shown, 0.995)
    np.testing.assert_allclose(ax.get_ylim(), (1.05 * low - 0.05 * high, 1.05 * high - 0.05 * low), rtol=1e-6)
    assert texts(figures["hourglass"].axes[0]) == ["196\ninput", "8\ncode", "196\noutput"]


def test_a_resumed_plain_run_is_the_uninterrupted_one(plain, digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_autoencoder, "draw", lambda *args: None)
    parts, whole = tmp_path / "parts", plain.folder
    assert run(tmp_path, digits, "--n-hidden=8", "--name=parts", n_steps=2) == 0
    assert main(["autoencoder", "--resume", str(parts), "--n-steps=4"]) == 0
    for name in ("metrics.jsonl", "cost.txt", "results.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
    check_same_parameters(parts, whole)

    capsys.readouterr()
    assert main(["autoencoder", "--resume", str(parts), "--n-hidden=7", "--seed=1"]) == 2
    message = capsys.readouterr().err
    assert "n_hidden [8] → [7]" in message and "seed 0 → 1" in message
    assert main(["autoencoder", "--resume", str(parts), "--n-steps=3"]) == 2
    assert "n_steps: expected at least 4, as before, got 3" in capsys.readouterr().err


class Given(NamedTuple):
    """What ``fit`` was given."""

    model: Any
    objective: Any
    data: Any
    options: dict


def unlearned(folder, digits, *flags):
    """Run a command that does not learn: its model is the first one with every parameter times 3/2."""
    calls = []

    def fit(model, objective, data, **options):
        calls.append(Given(model, objective, data, options))
        leaves, tree = jax.tree.flatten(model)
        leaves = [jnp.asarray(1.5 * np.asarray(x)) if eqx.is_inexact_array(x) else x for x in leaves]
        history = training.History({"loss": np.linspace(4, 1, 4)}, {"loss": np.array([3.0])}, np.array([4]))
        return training.FitResult(jax.tree.unflatten(tree, leaves), None, options["state"], history)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fit", fit)
        run = seen(folder, digits, *flags)
    assert np.all(np.isfinite(list(read(run.folder)["held_out"].values())))
    assert calls[0].data is run.rows.train and calls[0].options["n_steps"] == 4
    return run, calls[0], read(run.folder)["held_out"]


def test_a_denoising_run_restores_corrupted_rows(digits, tmp_path):
    flags = ["--kind=denoising", "--corruption=bit-flip", "--rate=0.2", "--n-hidden=8"]
    run, given, measured = unlearned(tmp_path, digits, *flags)
    assert given.objective.corruption == ae.BitFlipNoise(0.2)
    assert set(run.figures) == set(PICTURES)
    ax, xs = run.figures["reconstructions"].axes[0], np.asarray(run.rows.held_out)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["original", "corrupted", "restored"] * 3
    original, corrupted, restored = cells(ax, 90, SHAPE, 10).reshape(3, 3, 10, 196).swapaxes(0, 1)
    np.testing.assert_allclose(original.reshape(30, 196), xs, atol=1e-6)
    is_flipped = np.abs(corrupted - original) > 1e-6
    np.testing.assert_allclose(corrupted, np.where(is_flipped, 1 - original, original), atol=1e-6)
    assert np.mean(is_flipped) == pytest.approx(0.2, abs=4 * (0.16 / xs.size) ** 0.5)
    expected = sigmoid(logits_of(run.trained.autoencoder, corrupted)).clip(xs.min(), xs.max())
    np.testing.assert_allclose(restored, expected, atol=1e-5)
    key = jax.random.split(jax.random.split(_autoencoder._keys(0)["measure"], 4)[0])[0]
    noisy = np.asarray(given.objective.corruption(run.rows.held_out, key))
    costs = cross_entropies(logits_of(run.trained.autoencoder, noisy), xs)
    assert measured["cost_of_corrupted"] == pytest.approx(costs.mean(), rel=1e-5)
    assert f"from corrupted rows  {costs.mean():.2f} nats" in run.out


def test_a_contractive_run_tells_what_it_contracts(digits, tmp_path):
    flags = ["--kind=contractive", "--n-hidden=8", "--activation=tanh", "--contraction=0.3"]
    run, given, measured = unlearned(tmp_path, digits, *flags)
    assert given.objective.contraction == 0.3 and set(run.figures) == {*PICTURES, "spectrum"}
    xs, values = np.asarray(run.rows.held_out), {}
    for name, model in (("before learning", run.trained.first), ("after", run.trained.autoencoder)):
        slopes = 1 - np.tanh(layer(model.encoder[0], xs)) ** 2
        jacobians = slopes[:, :, None] * np.asarray(model.encoder[0].weight)
        values[name] = np.linalg.svd(jacobians, compute_uv=False)
    sizes = {name: np.mean(np.sum(of**2, axis=1)) for name, of in values.items()}
    assert measured["contraction"] == pytest.approx(sizes["after"], rel=1e-4)
    assert measured["contraction_at_first"] == pytest.approx(sizes["before learning"], rel=1e-4)
    assert f"‖J‖² {sizes['after']:.2f} ({sizes['before learning']:.2f} before learning)" in run.out
    ax = run.figures["spectrum"].axes[0]
    assert legend(ax) == list(values)
    for line, of in zip(ax.lines, values.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), of[:20].mean(axis=0), rtol=1e-4)


def test_a_sparse_run_counts_the_units_that_are_used(digits, tmp_path):
    run, given, measured = unlearned(tmp_path, digits, "--kind=sparse", "--n-hidden=16", "--k=3")
    model = run.trained.autoencoder
    assert model.selection == ae.TopK(3) and set(run.figures) == {*PICTURES, "activity"}
    assert given.options["state"] is not None
    assert isinstance(given.options["after_update"], ae.SparseAutoencoderUpkeep)
    codes = np.asarray(sparse_codes(Settings(), model, run.rows.held_out))
    assert np.all(np.sum(codes != 0, axis=1) <= 3)
    n_active, dead = np.mean(np.sum(codes != 0, axis=1)), np.mean(np.all(codes == 0, axis=0))
    assert measured["n_active"] == pytest.approx(n_active) and measured["dead_fraction"] == pytest.approx(
        dead
    )
    assert f"{n_active:.1f} a datum" in run.out and f"dead units  {dead:.1%}" in run.out
    errors = np.sum((codes @ np.asarray(model.atoms) + model.decoder_bias - run.rows.held_out) ** 2, axis=1)
    assert measured["cost"] == pytest.approx(float(errors.mean()), rel=1e-4)
    assert f"{measured['cost']:.2f} squared error, 30 held-out rows" in run.out
    active, activity = run.figures["activity"].axes
    assert legend(active) == [f"mean {n_active:.1f} of 16"]
    share = 100 * np.sort(np.mean(codes != 0, axis=0))[::-1]
    np.testing.assert_allclose([bar.get_height() for bar in activity.patches[:16]], share)
    assert_filters(run.figures["filters"], np.asarray(run.trained.first.atoms), np.asarray(model.atoms), 4)


def decoded(vae, codes):
    first, last = vae.decoder
    return sigmoid(layer(last, np.tanh(layer(first, codes)))).reshape(*codes.shape[:-1], *SHAPE)


def test_a_variational_run_shows_what_its_codes_stand_for(digits, tmp_path):
    flags = ["--kind=variational", "--n-hidden=8", "--n-latent=2", "--likelihood-samples=4", "--beta=0.5"]
    run, given, measured = unlearned(tmp_path, digits, *flags)
    assert given.objective == ae.ELBOObjective(0.5, is_binarized=True)
    assert set(run.figures) == {*PICTURES, "samples", "traversal", "manifold"}
    assert f"ELBO  {measured['bound']:.2f} nats, 30 held-out rows" in run.out
    likelihood = f"{measured['negative_log_likelihood']:.2f} ± {measured['standard_error']:.2f} nats"
    assert f"−log p(x)  {likelihood}, 30 held-out rows, 4 samples each" in run.out
    assert f"{measured['n_active_latent']} of 2 latent units active" in run.out
    # The importance-weighted estimate of log p(x) is above the bound, and both are about the same.
    gap = -measured["negative_log_likelihood"] - measured["bound"]
    assert -3 * measured["standard_error"] < gap < measured["divergence"] + 3 * measured["standard_error"]

    vae = run.trained.autoencoder
    xs = np.asarray(run.rows.held_out, np.float64)
    means = layer(vae.posterior_layer, np.tanh(layer(vae.encoder[0], xs)))[:, :2]
    np.testing.assert_allclose(means[0], vae.posterior(run.rows.held_out[0]).mean, atol=1e-5)
    assert measured["n_active_latent"] == np.sum(np.var(means, axis=0) > 0.01)
    z = np.array([NormalDist().inv_cdf((i + 0.5) / 20) for i in range(20)])
    plane = np.stack(np.meshgrid(z, z[::-1]), axis=-1)
    drawn = cells(run.figures["manifold"].axes[0], 400, SHAPE, 20)
    np.testing.assert_allclose(drawn, decoded(vae, plane).reshape(-1, *SHAPE), atol=1e-5)
    generated = _generate(vae, jax.random.split(run.key, 100))
    drawn = cells(run.figures["samples"].axes[0], 100, SHAPE, 10)
    np.testing.assert_allclose(drawn.reshape(100, -1), generated, atol=1e-6)

    ax = run.figures["traversal"].axes[0]
    rows = [re.fullmatch(r"\$z_\{(\d)\}\$  ([\d.]+) nats", t.get_text()) for t in ax.get_yticklabels()]
    divergences = [float(row[2]) for row in rows]
    assert divergences == sorted(divergences, reverse=True)
    assert sum(divergences) == pytest.approx(measured["divergence"], abs=0.11)
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"{z:g}" for z in np.linspace(-3, 3, 13)]
    codes = np.tile(means[0], (2, 13, 1))
    for line, row in enumerate(rows):
        codes[line, :, int(row[1]) - 1] = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(cells(ax, 26, SHAPE, 13), decoded(vae, codes).reshape(-1, *SHAPE), atol=1e-5)
    assert texts(run.figures["hourglass"].axes[0])[2] == "2\ncode"


STACKED = ["--kind=stacked", "--n-hidden", "8", "6", "--pretraining-steps=4"]


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
    assert_pictures(whole, PICTURES)
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
    model = load(tmp_path / "autoencoder" / "autoencoder.npz", like)
    xs = jnp.asarray(held_out_rows(digits))
    costs = jax.vmap(lambda x: ae.cross_entropy(model.output_parameters(model.encode(x)), x))(xs)
    measured = read(tmp_path / "autoencoder")["held_out"]
    assert measured["cost"] == pytest.approx(float(costs.mean()), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "files", "words"),
    [
        ("--kind=denoising --whiten --corruption=gaussian --rate=2 --step-size=0.001", [], ["squared error"]),
        ("--kind=contractive --activation=tanh", ["spectrum"], ["‖J‖²", "before learning"]),
        ("--kind=sparse --selection=kl --no-tied", ["activity"], ["(above ½)", "target 0.05"]),
        (
            "--kind=variational --n-latent=2 --likelihood-samples=4",
            ["samples", "traversal", "manifold"],
            ["ELBO  -", "30 held-out rows, 4 samples each", "of 2 latent units active"],
        ),
        (
            "--kind=variational --output=gaussian --importance-samples=3 --n-likelihood=9",
            ["samples", "traversal"],
            ["bound, 3 samples", "9 held-out rows, 500 samples each"],
        ),
        ("--kind=sparse --selection=topk --k=3", ["activity"], ["3.0 a datum", "dead units"]),
        ("--kind=sparse --selection=batch-topk --k=3", ["activity"], ["dead units"]),
        ("--kind=sparse --selection=jump-relu", ["activity"], ["dead units"]),
        ("--kind=sparse --selection=relu-l1", ["activity"], ["dead units"]),
    ],
)
def test_every_kind_leaves_its_pictures_and_figures(flags, files, words, digits, tmp_path, capsys):
    assert run(tmp_path, digits, "--n-hidden=8", *flags.split()) == 0
    out = capsys.readouterr().out
    for word in words:
        assert word in out, word
    assert_pictures(tmp_path / "autoencoder", PICTURES + files)
    measured = read(tmp_path / "autoencoder")
    assert np.all(np.isfinite(list(measured["held_out"].values())))


@pytest.mark.slow
def test_colour_images_and_rows_of_real_numbers(tmp_path, capsys):
    values = np.random.default_rng(0).random((40, 6, 5, 3))
    np.save(tmp_path / "colour.npy", values)
    flags = ["--n-hidden=8", f"--runs={tmp_path}", "--batch-size=8", "--n-steps=5"]
    assert main(["autoencoder", *flags, f"--data={tmp_path}/colour.npy", "--name=colour"]) == 0
    assert_pictures(tmp_path / "colour", PICTURES)
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


REFUSED = [
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
    ("--data=mnits", "data: expected digits, mnist, cifar10 or a path to an .npy, .npz or .mat file"),
    ("--resume=none", "expected a run folder (with config.json), got none"),
]


def test_settings_that_cannot_work_leave_no_folder(digits, tmp_path, capsys, untyped):
    for flags, message in REFUSED:
        assert run(tmp_path / "runs", digits, *flags.split()) == 2, flags
        assert message in capsys.readouterr().err, flags
    assert not (tmp_path / "runs").exists()
