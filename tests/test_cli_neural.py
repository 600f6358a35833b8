"""``neurojax decode`` and ``neurojax encode``, run as a user runs them, on few neurons and trials."""

import contextlib
import dataclasses
import io
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runs import one_optimizer
from neural_pictures import (
    N_PANELS,
    assert_answers,
    assert_captions,
    assert_encoded,
    assert_networks,
    assert_regression,
    assert_scores,
    assert_tuning,
    stand_in_fits,
)
from saved_figures import assert_pictures, keep_figures

from neurojax import data
from neurojax import neural_coding as nc
from neurojax.cli import (
    _decode,
    _decode_network_pictures,
    _decode_pictures,
    _decode_settings,
    _encode,
    _encode_models,
    _encode_pictures,
    _encode_settings,
    main,
)
from neurojax.cli._neural_data import Responses, angle_bins, read_responses
from neurojax.cli._settings import from_plain, parse
from neurojax.neural_coding import _validation
from neurojax.runs import load, plain_settings

DECODERS = ["sincos-ridge", "gaussian", "network-classifier"]
# One shape for all: what was compiled for one run serves the others.
N_NEURONS, N_TRIALS = 30, 64
POPULATION = [f"--n-neurons={N_NEURONS}", f"--n-trials={N_TRIALS}"]
SMALL_DECODE = [
    "decode", *POPULATION, "--bins=4", "--n-folds=2", "--n-permutations=2", "--n-steps=5", "--n-hidden=6",
    "--train-share=0.5", "--progress=False",
]  # fmt: skip
GRATINGS = [f"--n-neurons={N_NEURONS}", "--n-angles=16", "--n-repeats=4"]
SMALL_ENCODE = [
    "encode", *GRATINGS, "--n-folds=2", "--n-steps=4", "--evaluate-every=2", "--checkpoint-every=2",
    "--progress=False",
]  # fmt: skip
DECODE_PICTURES = {
    "responses", "tuning", "tuning_grid", "scores", "decoded", "errors", "error_histogram", "circle",
    "confusion", "losses", "input_weights", "input_weights_penalties", "output_weights", "hidden",
    "hidden_tuning",
}  # fmt: skip
ENCODE_PICTURES = {
    "responses", "stimuli", "tuning_grid", "scores", "neurons", "predictions", "predictions_angles", "losses",
    "filters",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with one_optimizer(_encode):
        yield


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """Bootstrap each standard error of a score from few resamples: they are tested with the scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_validation, "_N_RESAMPLES", 10)
        yield


def draw_few_panels(patch):
    """Draw few neurons in each grid, as a panel takes as long as a whole figure."""
    for pictures, name in ((_decode_pictures, "_N_GRID"), (_encode_pictures, "_N_GRID")):
        patch.setattr(pictures, name, N_PANELS)
    patch.setattr(_encode_pictures, "_N_PREDICTED", N_PANELS)


def captured(arguments, status=0):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(arguments) == status, err.getvalue()
    return out.getvalue(), err.getvalue()


def captured_run(command, arguments, picture):
    """Return the folder of a run, what it printed, the figures it saved, and what it gave to be drawn."""
    drawn, draw = [], command.draw
    with pytest.MonkeyPatch.context() as patch, keep_figures(picture) as kept:
        patch.setattr(command, "draw", lambda run, what: drawn.append((run, what)) or draw(run, what))
        patch.setattr(nc, "fit_von_mises_batch", stand_in_fits)  # fits are tested on their own
        draw_few_panels(patch)
        out, _ = captured(arguments)
    ((run, what),) = drawn
    assert kept.written == [run.path / f"{picture}.png"]
    return run.path, out, kept.figures, what


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decode")
    arguments = [*SMALL_DECODE, f"--runs={folder}", "--decoders", *DECODERS]
    return captured_run(_decode, arguments, "output_weights")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encode")
    arguments = [*SMALL_ENCODE, f"--runs={folder}", "--encoders", "convolutional"]
    return captured_run(_encode, arguments, "losses")


def test_the_pictures_of_decoders_show_what_was_decoded(decoded):
    folder, _, figures, what = decoded
    assert_pictures(folder, ["output_weights"])
    assert set(figures) == DECODE_PICTURES
    assert_tuning(figures, what, 16)
    assert_answers(figures, what, 4)
    assert_networks(figures, what, 16)
    n_trials, n_neurons = what.responses.responses.shape
    assert_captions(figures, [what.responses.name, f"{n_trials} trials, {n_neurons} neurons", "2 folds"])
    assert [ax.get_xscale() for ax in figures["scores"].axes] == ["log", "linear"]
    for ax, kind, chance in zip(
        figures["scores"].axes, ("median_error_360", "fraction_correct"), (90, 0.25), strict=True
    ):
        scores = {name: of[kind] for name, of in what.measured["decoders"].items()}
        assert_scores(ax, scores, kind.split("_360")[0].replace("_", " "))
        assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [chance]


def test_the_pictures_of_an_encoder_show_what_was_encoded(encoded):
    folder, _, figures, what = encoded
    assert_pictures(folder, ["losses"])
    assert set(figures) == ENCODE_PICTURES
    assert_encoded(figures, what, "convolutional")
    n_neurons = what.stimuli.train.shape[1]
    assert_captions(figures, [what.stimuli.name, f"16 gratings, {n_neurons} neurons"])


def test_the_regression_on_degrees_is_drawn_with_its_signed_errors():
    rng, period = np.random.default_rng(0), 360
    angles = np.arange(0, period, 10.0)
    said, rows = angles + rng.normal(0, 90, len(angles)), rng.permutation(len(angles))
    figure = _decode_network_pictures._regression(said, jnp.asarray(angles), 360.0, rows[:20], rows[20:])
    assert_regression(figure, said, angles, period, rows[:20], rows[20:])


def test_the_table_of_decoders_is_that_of_their_held_out_answers(decoded):
    folder, out, *_ = decoded
    measured = json.loads((folder / "results.json").read_text())
    assert list(measured["decoders"]) == DECODERS
    names = re.findall(r"^ *([a-z0-9-]+)  +[\d.]+ ± [\d.]+°", out, re.MULTILINE)
    assert names == DECODERS
    for name in DECODERS:
        with np.load(folder / "decoders" / f"{name}.npz") as file:
            predicted, true, fold = file["predicted_degrees"], file["true_degrees"], file["fold"]
        np.testing.assert_allclose(true, np.arange(64) * 360 / 64)
        assert np.bincount(fold).tolist() == [32, 32]
        apart = np.abs((predicted - true + 180) % 360 - 180)
        correct = np.floor(predicted / 90) == np.floor(true / 90)
        row = re.search(rf"^ *{name}  +([\d.]+) ± ([\d.]+)°", out, re.MULTILINE)
        # The median of all trials, as in the histogram of errors.
        assert float(row[1]) == pytest.approx(np.median(apart), abs=0.006)
        score = measured["decoders"][name]["median_error_360"]
        assert float(row[2]) == pytest.approx(score["standard_error"], abs=0.006)
        score = measured["decoders"][name]["fraction_correct"]
        assert score["value"] == pytest.approx(np.mean(correct), abs=1e-6)
        error = np.sqrt((1 / 2 + 1) * np.var(correct, ddof=1) / 32)
        assert score["standard_error"] == pytest.approx(error, rel=1e-6)
        folded = np.minimum(apart, 180 - apart)
        expected = np.mean(folded)
        assert measured["decoders"][name]["mean_error_180"]["value"] == pytest.approx(expected, abs=1e-3)
    assert measured["chance"]["median_error"] == 90 and measured["chance"]["fraction_correct"] == 0.25
    with np.load(folder / "decoders" / "permutations.npz") as file:
        permuted = {name: file[name] for name in ("median_error", "fraction_correct")}
    for name, values in permuted.items():
        told = measured["chance"]["permuted"][name]
        assert (told["mean"], told["deviation"]) == pytest.approx((values.mean(), values.std(ddof=1)))
    (error, spread), (correct, _) = ((values.mean(), values.std(ddof=1)) for values in permuted.values())
    chance = f"{error:.1f}° ± {spread:.1f}° (deviation), {100 * correct:.1f}% ±"
    assert chance in out and "2 permutations of the angles" in out


def without_error(responses):
    """Return a cross-validation in two folds that decodes each angle as it was, at no cost."""
    true = np.asarray(responses.angles_degrees, float)
    return nc.CrossValidation(true, true, np.arange(N_TRIALS) % 2, None, 360.0, None)


@pytest.mark.slow
def test_a_run_of_decoders_that_was_cut_off_does_what_is_missing(decoded, tmp_path, monkeypatch):
    folder = tmp_path / "decode"
    shutil.copytree(decoded[0], folder)
    before = (folder / "decoders" / "gaussian.npz").read_bytes()
    (folder / "decoders" / "sincos-ridge.npz").unlink()
    (folder / "results.json").unlink()
    tried, networks = [], []
    cross_validate, learn = _decode._cross_validate, _decode.learn

    def counted(decoder, *rest):
        tried.append(type(decoder).__name__)
        is_new = isinstance(decoder, nc.PopulationVector)
        return without_error(rest[0]) if is_new else cross_validate(decoder, *rest)

    monkeypatch.setattr(_decode, "_cross_validate", counted)
    monkeypatch.setattr(_decode, "learn", lambda *args: networks.append(args) or learn(*args))
    monkeypatch.setattr(_decode, "draw", lambda *args: None)
    # One more decoder is asked for as well.
    names = [*DECODERS, "population-vector"]
    captured(["decode", "--resume", str(folder), "--decoders", *names])
    assert tried == ["SinCosRidge", "PopulationVector"] and not networks
    assert (folder / "decoders" / "gaussian.npz").read_bytes() == before
    measured = json.loads((folder / "results.json").read_text())
    whole = json.loads((decoded[0] / "results.json").read_text())
    assert list(measured["decoders"]) == names
    assert (
        measured["decoders"]["sincos-ridge"]["mean_error_360"]
        == whole["decoders"]["sincos-ridge"]["mean_error_360"]
    )
    # Other folds make other answers.
    tried.clear()
    monkeypatch.setattr(
        _decode, "_cross_validate", lambda *args: tried.append(args) or without_error(args[1])
    )
    flags = ["--n-folds=5", "--n-permutations=0", "--decoders", "sincos-ridge"]
    captured(["decode", "--resume", str(folder), *flags])
    ((_, _, splits),) = tried
    assert len(splits) == 5

    _, err = captured(["decode", "--resume", str(folder), "--n-neurons=31"], 2)
    assert "n_neurons 30 → 31" in err


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A file of counts at eight directions, one neuron silent; and another in which one has a NaN."""
    angles = np.tile(np.arange(0.0, 360, 45), 8)
    preferred = np.arange(N_NEURONS) * 360 / N_NEURONS
    cosine = np.cos(np.deg2rad(angles[:, None] - preferred))
    # Neurons respond to the opposite direction as well, a little less.
    rates = 0.2 + 3 * np.exp(2 * (cosine - 1)) + 2 * np.exp(2 * (-cosine - 1))
    counts = np.random.default_rng(3).poisson(rates).astype(np.float32)
    counts[:, 4] = 0
    path = tmp_path_factory.mktemp("data") / "trials.npz"
    np.savez(path, responses=counts, angles_degrees=angles)
    counts[3, 7] = np.nan
    np.savez(path.with_name("broken.npz"), responses=counts, angles_degrees=angles)
    return path


def poisson_answers(counts, angles, fold):
    """Decode counts at eight directions, each fold by the others, with one trial at the mean as the prior."""
    decoded, bins = np.empty(len(counts)), np.round(angles / 45).astype(int)
    for f in np.unique(fold):
        seen, index = counts[fold != f], bins[fold != f]
        sums = np.stack([seen[index == k].sum(axis=0) for k in range(8)])
        n_trials = np.bincount(index, minlength=8)[:, None]
        rates = (sums + np.mean(sums / n_trials, axis=0)) / (n_trials + 1)
        scores = counts[fold == f] @ np.log(rates).T - rates.sum(axis=1)
        decoded[fold == f] = 45 * np.argmax(scores, axis=1)
    return decoded


def test_a_file_of_counts_is_decoded_by_its_stimuli(trials, tmp_path, monkeypatch):
    monkeypatch.setattr(_decode, "draw", lambda *args: None)
    flags = ["--decoders", "poisson", f"--runs={tmp_path}", "--n-permutations=0"]
    out, _ = captured(["decode", f"--data={trials}", "--n-folds=2", *flags])
    assert "8 of 45°, the first round 0°" in out and "spike counts" in out
    assert "1 of 30 neurons (4), kept" in out and "64 trials, 30 neurons" in out
    with np.load(trials) as file:
        counts, angles = file["responses"], file["angles_degrees"]
    with np.load(tmp_path / "decode" / "decoders" / "poisson.npz") as file:
        fold, predicted = file["fold"], file["predicted_degrees"]
    assert all(np.bincount(fold[angles == angle]).tolist() == [4] * 2 for angle in np.unique(angles))
    expected = poisson_answers(counts[:, np.arange(N_NEURONS) != 4], angles, fold)
    np.testing.assert_allclose(np.mod(predicted, 360), expected, atol=1e-3)
    errors = np.abs((expected - angles + 180) % 360 - 180)
    measured = json.loads((tmp_path / "decode" / "results.json").read_text())["decoders"]["poisson"]
    assert measured["median_error_360"]["value"] == pytest.approx(np.median(errors), abs=1e-3)
    assert 0 < measured["mean_error_360"]["value"] == pytest.approx(np.mean(errors), abs=1e-3)

    broken = f"--data={trials.with_name('broken.npz')}"
    _, err = captured(["decode", broken, *flags], 2)
    assert "NaN or infinity in 1 of 30 neurons (7); --drop-constant" in err
    settings, _ = parse(_decode_settings.Settings, "decode", [broken, "--drop-constant"])
    read = read_responses(_decode_settings.check(settings), jax.random.key(0))
    assert read.notes == {"neurons without change": "2 of 30 neurons (4, 7), left out"}
    kept = np.setdiff1d(np.arange(N_NEURONS), [4, 7])
    np.testing.assert_array_equal(read.neurons, kept)
    np.testing.assert_array_equal(read.responses, counts[:, kept])


def test_bins_are_the_stimuli_where_they_repeat():
    for angles, n_bins in ((np.tile(np.arange(0.0, 360, 90), 4), 4), (np.arange(360.0), 20)):
        responses = np.zeros((len(angles), 2), np.float32), np.asarray(angles, np.float32)
        assert angle_bins(Responses(*responses, 360.0, "made", np.arange(2), False, {})).n_bins == n_bins


def test_the_scores_of_an_encoder_are_those_of_its_predictions(encoded):
    folder, out, *_ = encoded
    measured = json.loads((folder / "results.json").read_text())
    assert list(measured["scores"]) == ["repeats", "angles"]
    settings = from_plain(
        _encode_settings.Settings, json.loads((folder / "config.json").read_text()), "config"
    )
    keys = jax.random.split(jax.random.key(0))
    stimuli = _encode_settings.read_stimuli(settings, _encode_settings.check(settings), keys[0])
    np.testing.assert_array_equal(stimuli.images, nc.course_gratings(stimuli.angles_degrees, 0.025))
    assert stimuli.train.shape == (16, 30) and stimuli.test.shape == (2, 16, 30)
    np.testing.assert_allclose(stimuli.train.mean(axis=0), 0, atol=1e-6)
    test = stimuli.test.mean(axis=0)

    like = nc.ConvolutionalEncoder.from_filters(nc.course_filters(), (12, 16), 30, jax.random.key(0))
    model = load(folder / "encoders" / "convolutional" / "model.npz", like)
    errors = np.mean((np.asarray(_encode_models._predictions(model, stimuli.images)) - test) ** 2, axis=0)
    score = measured["scores"]["repeats"]["convolutional"]["squared_error"]
    assert score["mean"] == pytest.approx(errors.mean(), rel=1e-4)
    assert score["standard_error"] == pytest.approx(errors.std(ddof=1) / 30**0.5, rel=1e-4)
    assert f"{errors.mean():.3f} ± " in out
    # Opposite directions are one image, so they are predicted alike, and the floor is the mean of the two.
    pairs = np.arange(16), (np.arange(16) + 8) % 16
    floor = np.mean(((stimuli.train[pairs[0]] + stimuli.train[pairs[1]]) / 2 - test) ** 2)
    assert measured["scores"]["repeats"]["paired mean"]["squared_error"]["mean"] == pytest.approx(
        floor, rel=1e-4
    )
    assert measured["n_distinct_images"] == 8 and "16 gratings are 8 distinct images" in out

    for fold in range(2):
        with np.load(folder / "encoders" / "convolutional" / f"fold_{fold}.npz") as file:
            assert file["predicted"].shape == (8, 30)
            np.testing.assert_allclose(file["predicted"][:4], file["predicted"][4:], atol=1e-5)
        assert not (folder / "encoders" / "convolutional" / f"fold_{fold}").exists()


def test_folds_of_angles_keep_opposites_together(encoded):
    settings = from_plain(
        _encode_settings.Settings, json.loads((encoded[0] / "config.json").read_text()), "config"
    )
    stimuli = _encode_settings.read_stimuli(settings, _encode_settings.check(settings), jax.random.key(0))
    of_folds = _encode_settings.folds(settings, stimuli)
    assert sorted(np.concatenate(of_folds)) == list(range(16))
    for held in of_folds:
        assert {(n + 8) % 16 for n in held} == set(held)


def test_baselines_of_angles_know_the_other_angles_alone(encoded):
    stimuli, predicted = encoded[3].stimuli, encoded[3].predicted
    pixels = stimuli.images.reshape(16, -1)
    for fold in range(2):
        held, rows = np.arange(fold, 16, 2), np.arange(1 - fold, 16, 2)
        linear = nc.linear_baseline(pixels[rows], jnp.asarray(stimuli.train[rows]), pixels[held])
        np.testing.assert_allclose(predicted["angles"]["linear"][held], linear, atol=1e-5)
        null = np.tile(stimuli.train[rows].mean(axis=0), (8, 1))
        np.testing.assert_allclose(predicted["angles"]["null"][held], null, atol=1e-6)
    np.testing.assert_array_equal(predicted["repeats"]["repeat mean"], stimuli.train)
    np.testing.assert_allclose(predicted["repeats"]["null"], 0, atol=1e-6)


def test_flags_decide_how_networks_and_encoders_learn():
    flags = [
        "--l1=0.3",
        "--l2=0.7",
        "--n-steps=9",
        "--step-size=0.2",
        "--n-hidden=3",
        "--regression-hidden=4",
    ]
    settings, _ = parse(_decode_settings.Settings, "decode", [*flags, "--regression-steps=5"])
    networks = {
        name: _decode_settings.network_of(name, settings.learning, 30) for name in _decode_settings.NETWORKS
    }
    for name, network in networks.items():
        if "classifier" in name:
            penalties = 0.3 * ("-l1" in name), 0.7 * ("-l2" in name)
            assert network == ("bins", 3, 0.2, 9, *penalties), name
    assert networks["network-regression"] == ("circle", 4, 0.05, 5, 0.0, 0.0)
    # 50 steps for the neurons of the course, in proportion more for fewer, and 1000 at most.
    assert networks["network-degrees"] == ("degrees", 4, 1e-4, 1000, 0.0, 0.0)
    assert _decode_settings.network_of("network-degrees", settings.learning, 2 * 23_589).n_steps == 25

    flags = ["--l1=0.3", "--l2=0.7", "--penalty-scale=sum"]
    settings, _ = parse(_encode_settings.Settings, "encode", flags)
    objectives = [_encode_models._objective(name, settings) for name in ("convolutional", "gabor-energy")]
    assert [(o.loss, o.l1, o.l2) for o in objectives] == [("squared", 0.3, 0.7), ("squared", 0, 0)]
    assert [o.penalty_scale for o in objectives] == ["sum", "sum"]
    three = jnp.float32(3)
    for flags, expected in (
        ([], [-0.003, -0.003]),
        (["--optimizer=sgd"], [-6, -11.4]),
        (["--optimizer=sgd", "--step-size=0.1", "--momentum=0"], [-0.3, -0.3]),
    ):
        learning = parse(_encode_settings.Settings, "encode", flags)[0].learning
        optimizer, updates = _encode_settings.make_optimizer(learning), []
        state = optimizer.init(three)
        for _ in range(2):
            update, state = optimizer.update(three, state)
            updates.append(float(update))
        assert updates == pytest.approx(expected, rel=1e-3), flags


def test_a_resumed_encoder_is_the_uninterrupted_one(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(_encode, "draw", lambda *args: None)
    whole, folder = encoded[0], "encoders/convolutional"
    results = json.loads((whole / "results.json").read_text())
    flags = [*SMALL_ENCODE, f"--runs={tmp_path}", "--name=parts", "--hold-out=repeats"]
    captured([*flags, "--n-steps=2", "--encoders", "convolutional"])
    parts = tmp_path / "parts"
    captured(["encode", "--resume", str(parts), "--n-steps=4"])
    scores = json.loads((parts / "results.json").read_text())["scores"]
    assert scores == {"repeats": results["scores"]["repeats"]}
    with np.load(parts / folder / "model.npz") as one, np.load(whole / folder / "model.npz") as other:
        for array in one.files:
            np.testing.assert_array_equal(one[array], other[array])
    metrics = f"{folder}/repeats/metrics.jsonl"
    assert (parts / metrics).read_bytes() == (whole / metrics).read_bytes()
    _, err = captured(["encode", "--resume", str(parts), "--n-steps=3"], 2)
    assert "n_steps: expected at least 4, as before, got 3" in err


def test_an_encoder_killed_in_its_last_fold_trains_that_fold_alone(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(_encode, "draw", lambda *args: None)
    shutil.copytree(encoded[0], tmp_path / "encode")
    (tmp_path / "encode" / "encoders" / "convolutional" / "fold_1.npz").unlink()
    (tmp_path / "encode" / "results.json").unlink()
    trained, of_fold = [], _encode_models._of_fold
    monkeypatch.setattr(_encode_models, "_of_fold", lambda *args: trained.append(args) or of_fold(*args))
    captured(["encode", "--resume", str(tmp_path / "encode")])
    ((_, folder, _, _, rows, *_),) = trained
    assert folder.name == "fold_1"
    # Orientations are dealt out in turn, and the odd ones are held out.
    np.testing.assert_array_equal(rows, np.arange(0, 16, 2))
    results = (path / "results.json" for path in (tmp_path / "encode", encoded[0]))
    assert len({path.read_text() for path in results}) == 1


@pytest.mark.slow
def test_a_file_is_encoded_with_its_trials_dealt_in_halves(trials, tmp_path, monkeypatch):
    monkeypatch.setattr(_encode, "draw", lambda *args: None)
    out, _ = captured(
        [
            "encode",
            f"--data={trials}",
            f"--runs={tmp_path}",
            "--encoders",
            "poisson-glm",
            "--hold-out=repeats",
        ]
    )
    assert "4 of each grating for training, 4 for tests" in out and "8 gratings are 4 distinct images" in out
    scores = json.loads((tmp_path / "encode" / "results.json").read_text())["scores"]
    assert list(scores) == ["repeats"] and scores["repeats"]["poisson-glm"]["correlation"]["n_neurons"] == 29
    best, null = (scores["repeats"][name]["correlation"]["mean"] for name in ("poisson-glm", "null"))
    assert best > 0.2 and null == 0


@pytest.mark.slow
def test_every_decoder_and_encoder_runs(tmp_path, monkeypatch):
    draw_few_panels(monkeypatch)
    names = [name for name in _decode_settings._NAMES if name != "poisson"]
    out, _ = captured([*SMALL_DECODE, f"--runs={tmp_path}", "--tune", "--decoders", *names])
    assert_pictures(tmp_path / "decode", DECODE_PICTURES | {"regression"})
    assert all(re.search(rf"^ *{name}  ", out, re.MULTILINE) for name in names)
    with keep_figures():
        out, _ = captured([*SMALL_DECODE, f"--runs={tmp_path}", "--responses=poisson"])
    assert re.search(r"^ *poisson  ", out, re.MULTILINE)
    flags = ["--responses=poisson", "--encoders", *_encode_settings._NAMES]
    out, _ = captured([*SMALL_ENCODE, f"--runs={tmp_path}", *flags])
    assert_pictures(tmp_path / "encode", ENCODE_PICTURES)
    assert all(len(re.findall(rf"^ *{name}  ", out, re.MULTILINE)) == 2 for name in _encode_settings._NAMES)
    course = ["--optimizer=sgd", "--step-size=0.001", "--penalty-scale=sum", "--l2=5e-4", "--l1=1e-6"]
    with keep_figures() as kept:
        captured([*SMALL_ENCODE, f"--runs={tmp_path}", *course, "--hold-out=repeats", "--n-repeats=2"])
    assert kept.figures


@pytest.mark.slow
def test_recordings_are_read(tmp_path):
    try:
        data.mouse_sessions(), data.macaque_sessions("static")
    except FileNotFoundError:
        pytest.skip("the recordings are not at hand")
    flags = [f"--runs={tmp_path}", "--decoders", "gaussian", "--n-permutations=0"]
    out, _ = captured(["decode", "--data=macaque-static", "--session=8", *flags])
    correct = re.search(r"gaussian .* ([\d.]+) ± [\d.]+%", out)
    assert float(correct[1]) > 85 and "static 8" in out
    out, _ = captured(["decode", "--data=mouse", "--session=4", "--period-degrees=180", *flags])
    assert "4 of 45°" in out
    flags = [f"--runs={tmp_path}", "--n-folds=4", "--n-steps=5"]
    out, _ = captured(["encode", "--data=mouse", "--session=4", *flags])
    assert "8 of each grating for training" in out


@pytest.mark.parametrize(
    ("command", "settings"), [("decode", _decode_settings), ("encode", _encode_settings)]
)
def test_settings_survive_their_file_and_help_documents_them(command, settings, capsys):
    kind = settings.Settings
    window = dataclasses.replace(kind(), data=dataclasses.replace(kind().data, window_ms=(0.0, 300.0)))
    assert from_plain(kind, plain_settings(window), "config.json") == window
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    text = capsys.readouterr().out
    for section in dataclasses.fields(kind):
        for setting in dataclasses.fields(section.default_factory):
            assert f"--{setting.name.replace('_', '-')}" in text
    assert main(["--help"]) == 0 and command in capsys.readouterr().out


MADE, SHOWN = " ".join(POPULATION), " ".join(GRATINGS)
REFUSED = [
    ("decode --data=monkey", "data: expected simulated, macaque-static, macaque-moving, mouse, stringer"),
    ("decode --data=nowhere.npz", "data: expected a file, but there is none at nowhere.npz"),
    ("decode --data=mouse --n-neurons=9", "n_neurons: expected None, as by default, since --data mouse"),
    ("decode --session=1", "session: expected None, as by default, since --data simulated does not use"),
    ("decode --n-trials=3", "n_trials: expected a whole number ≥ 4, got 3"),
    ("decode --decoders ridge", "decoders: expected some of bump-ridge"),
    ("decode --decoders gaussian gaussian", "decoders: expected each once"),
    (f"decode {MADE} --decoders poisson", "decoders: expected none of counts (poisson)"),
    ("decode --n-folds=1", "n_folds: expected a whole number ≥ 2, got 1"),
    (f"decode {MADE} --n-folds=65", "n_folds: expected at most 64, the number of trials"),
    (f"decode {MADE} --bins=64", "bins: expected trials of each bin in every training set"),
    ("decode --n-permutations=-1", "n_permutations: expected a whole number ≥ 0"),
    ("decode --step-size=0", "step_size: expected a number > 0"),
    ("decode --l2=-1", "l2: expected a number ≥ 0"),
    ("decode --train-share=1", "train_share: expected a number in (0, 1), got 1"),
    ("decode --resume=none", "expected a run folder (with config.json), got none"),
    ("encode --data=stringer", "data: expected simulated, macaque-static, mouse, stringer-split"),
    ("encode --window-s 0 1", "window_s: expected None, as by default, since --data simulated does not"),
    ("encode --n-angles=7", "n_angles: expected an even number"),
    ("encode --n-repeats=1", "n_repeats: expected a whole number ≥ 2, got 1"),
    ("encode --momentum=0.5", "momentum: expected None, as by default, since --optimizer adam"),
    ("encode --optimizer=sgd --momentum=1", "momentum: expected a number in [0, 1), got 1"),
    ("encode --threshold=2", "threshold: expected a number in [0, 1], got 2"),
    ("encode --resolution=0", "resolution: expected a number in (0, 1], got 0"),
    ("encode --encoders linear", "encoders: expected some of convolutional"),
    (f"encode {SHOWN} --encoders poisson-glm", "encoders: expected none of counts (poisson-glm)"),
    (f"encode {SHOWN} --n-folds=9", "n_folds: expected at most 8, the number of distinct"),
]


def test_settings_that_cannot_work_leave_no_folder(tmp_path, untyped):
    for flags, message in REFUSED:
        _, err = captured([*flags.split(), f"--runs={tmp_path / 'runs'}"], 2)
        assert message in err, flags
    assert not (tmp_path / "runs").exists()


FLAT = {"responses": np.ones((N_TRIALS, N_NEURONS)), "angles_degrees": np.arange(N_TRIALS)}
NO_TRIALS = [
    ({"resp": np.ones((4, 2))}, "expected an array of angles called angles_degrees, got resp (4, 2)"),
    (FLAT | {"angles_degrees": np.arange(3)}, "an angle for each of 64 trials"),
    (FLAT | {"responses": np.ones(N_TRIALS)}, "(trials, neurons) and angles_degrees"),
    (FLAT | {"angles_degrees": np.full(N_TRIALS, np.nan)}, "finite angles_degrees"),
    (FLAT, "expected neurons that vary, got 30"),
]


def test_files_that_are_no_trials_are_refused(tmp_path, untyped):
    flags = [f"--data={tmp_path / 'trials.npz'}", f"--runs={tmp_path / 'runs'}"]
    for arrays, message in NO_TRIALS:
        np.savez(tmp_path / "trials.npz", **arrays)
        _, err = captured(["decode", *flags], 2)
        assert message in err, message
    assert not (tmp_path / "runs").exists()


def test_angles_shown_once_cannot_be_encoded(tmp_path):
    np.savez(
        tmp_path / "trials.npz", responses=np.eye(N_TRIALS, N_NEURONS), angles_degrees=np.arange(N_TRIALS)
    )
    _, err = captured(["encode", f"--data={tmp_path / 'trials.npz'}", f"--runs={tmp_path / 'runs'}"], 2)
    assert "at least two angles with two trials each, got 64 angles, one of them with 1" in err
