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
from PIL import Image

from neurojax import data
from neurojax import neural_coding as nc
from neurojax.cli import _decode, _decode_settings, _encode, _encode_settings, main
from neurojax.cli._neural_data import Responses, angle_bins
from neurojax.cli._settings import from_plain
from neurojax.runs import load, plain_settings

DECODERS = ["sincos-ridge", "gaussian", "network-classifier"]
SMALL_DECODE = [
    "decode", "--n-neurons=30", "--n-trials=64", "--bins=4", "--n-folds=4", "--n-permutations=2",
    "--n-steps=20", "--progress=False",
]  # fmt: skip
SMALL_ENCODE = [
    "encode", "--n-neurons=12", "--n-angles=12", "--n-repeats=4", "--n-folds=3", "--n-steps=6",
    "--evaluate-every=3", "--checkpoint-every=2", "--progress=False",
]  # fmt: skip
DECODE_PICTURES = [
    "responses", "tuning", "tuning_grid", "scores", "decoded", "errors", "error_histogram", "circle",
    "confusion", "losses", "input_weights", "input_weights_penalties", "output_weights", "hidden_tuning",
]  # fmt: skip
ENCODE_PICTURES = [
    "responses", "stimuli", "tuning_grid", "scores", "neurons", "predictions", "predictions_angles", "losses",
    "filters",
]  # fmt: skip


def captured(arguments, status=0):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(arguments) == status, err.getvalue()
    return out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def decoded(tmp_path_factory):
    """A run's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("decode")
    out, _ = captured([*SMALL_DECODE, f"--runs={folder}", "--decoders", *DECODERS])
    return folder / "decode", out


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """A run's folder, and what it printed."""
    folder = tmp_path_factory.mktemp("encode")
    out, _ = captured([*SMALL_ENCODE, f"--runs={folder}", "--encoders", "convolutional"])
    return folder / "encode", out


@pytest.mark.parametrize(("run", "pictures"), [("decoded", DECODE_PICTURES), ("encoded", ENCODE_PICTURES)])
def test_a_run_leaves_its_pictures(run, pictures, request):
    folder, _ = request.getfixturevalue(run)
    assert {path.stem for path in folder.glob("*.png")} == set(pictures)
    for picture in pictures:
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) > 200 and np.ptp(np.asarray(image.convert("L"))) > 100, picture


def test_the_table_of_decoders_is_that_of_their_held_out_answers(decoded):
    folder, out = decoded
    measured = json.loads((folder / "results.json").read_text())
    assert list(measured["decoders"]) == DECODERS
    names = re.findall(r"^ *([a-z0-9-]+)  +[\d.]+ ± [\d.]+°", out, re.MULTILINE)
    assert names == DECODERS
    for name in DECODERS:
        with np.load(folder / "decoders" / f"{name}.npz") as file:
            predicted, true, fold = file["predicted_degrees"], file["true_degrees"], file["fold"]
        np.testing.assert_allclose(true, np.arange(64) * 360 / 64)
        assert np.bincount(fold).tolist() == [16, 16, 16, 16]
        apart = np.abs((predicted - true + 180) % 360 - 180)
        medians = [np.median(apart[fold == f]) for f in range(4)]
        correct = [
            np.mean(np.floor(predicted / 90)[fold == f] == np.floor(true / 90)[fold == f]) for f in range(4)
        ]
        row = re.search(rf"^ *{name}  +([\d.]+) ± ([\d.]+)°", out, re.MULTILINE)
        assert float(row[1]) == pytest.approx(np.mean(medians), abs=0.006)
        assert float(row[2]) == pytest.approx(np.std(medians, ddof=1) / 2, abs=0.006)
        score = measured["decoders"][name]["fraction_correct"]
        assert score["value"] == pytest.approx(np.mean(correct), abs=1e-6)
        folded = np.minimum(apart, 180 - apart)
        expected = np.mean([np.mean(folded[fold == f]) for f in range(4)])
        assert measured["decoders"][name]["mean_error_180"]["value"] == pytest.approx(expected, abs=1e-3)
    assert measured["chance"]["median_error"] == 90 and measured["chance"]["fraction_correct"] == 0.25
    assert "2 permutations of the angles" in out


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
        return cross_validate(decoder, *rest)

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
    captured(["decode", "--resume", str(folder), "--n-folds=5", "--decoders", "sincos-ridge"])
    assert tried == ["SinCosRidge"]

    _, err = captured(["decode", "--resume", str(folder), "--n-neurons=31"], 2)
    assert "n_neurons 30 → 31" in err


@pytest.fixture(scope="module")
def trials(tmp_path_factory):
    """A file of counts at eight directions, one neuron silent and one with a NaN."""
    angles = jnp.tile(jnp.arange(0.0, 360, 45), 10)
    well_tuned = {"responses": "poisson", "modulation": 5}
    population = nc.simulate(jax.random.key(3), n_neurons=20, angles_degrees=angles, **well_tuned)
    counts = np.array(population.responses)
    counts[:, 4] = 0
    path = tmp_path_factory.mktemp("data") / "trials.npz"
    np.savez(path, responses=counts, angles_degrees=np.asarray(population.angles_degrees))
    counts[3, 7] = np.nan
    np.savez(path.with_name("broken.npz"), responses=counts, angles_degrees=population.angles_degrees)
    return path


def test_a_file_of_counts_is_decoded_by_its_stimuli(trials, tmp_path, monkeypatch):
    monkeypatch.setattr(_decode, "draw", lambda *args: None)
    flags = ["--decoders", "poisson", "gaussian", f"--runs={tmp_path}", "--n-permutations=0"]
    out, _ = captured(["decode", f"--data={trials}", *flags])
    assert "8 of 45°, the first round 0°" in out and "spike counts" in out
    assert "1 of 20 neurons (4), kept" in out
    counts, angles = (np.load(trials)[name] for name in ("responses", "angles_degrees"))
    folds = nc.stratified_folds(angles, 5, jax.random.split(jax.random.key(0), 5)[1])
    decoder, counts = nc.PoissonDecoder(nc.AngleBins.around(angles)), counts[:, np.arange(20) != 4]
    held_out = nc.cross_validate(decoder, counts, angles, folds)
    measured = json.loads((tmp_path / "decode" / "results.json").read_text())
    score = held_out.score(nc.median_circular_error, 360)
    assert measured["decoders"]["poisson"]["median_error_360"]["value"] == pytest.approx(
        score.value, abs=1e-3
    )

    broken = f"--data={trials.with_name('broken.npz')}"
    _, err = captured(["decode", broken, *flags], 2)
    assert "NaN or infinity in 1 of 20 neurons (7); --drop-constant" in err
    out, _ = captured(["decode", broken, *flags, "--drop-constant"])
    assert "2 of 20 neurons (4, 7), left out" in out and "80 trials, 18 neurons" in out


def test_bins_are_the_stimuli_where_they_repeat():
    repeated = nc.simulate(
        jax.random.key(0), n_neurons=2, angles_degrees=jnp.tile(jnp.arange(0.0, 360, 90), 4)
    )
    for population, n_bins in ((repeated, 4), (nc.simulate(jax.random.key(0), n_neurons=2), 20)):
        arrays = population.responses, population.angles_degrees
        assert angle_bins(Responses(*arrays, 360.0, "made", np.arange(2), False, {})).n_bins == n_bins


def test_the_scores_of_an_encoder_are_those_of_its_predictions(encoded):
    folder, out = encoded
    measured = json.loads((folder / "results.json").read_text())
    assert list(measured["scores"]) == ["repeats", "angles"]
    settings = from_plain(
        _encode_settings.Settings, json.loads((folder / "config.json").read_text()), "config"
    )
    keys = jax.random.split(jax.random.key(0))
    stimuli = _encode_settings.read_stimuli(settings, _encode_settings.check(settings), keys[0])
    np.testing.assert_array_equal(stimuli.images, nc.course_gratings(stimuli.angles_degrees, 0.025))
    assert stimuli.train.shape == (12, 12) and stimuli.test.shape == (2, 12, 12)
    np.testing.assert_allclose(stimuli.train.mean(axis=0), 0, atol=1e-6)
    test = stimuli.test.mean(axis=0)

    like = nc.ConvolutionalEncoder.from_filters(nc.course_filters(), (12, 16), 12, jax.random.key(0))
    model = load(folder / "encoders" / "convolutional" / "model.npz", like)
    errors = np.mean((np.asarray(jax.vmap(model)(stimuli.images)) - test) ** 2, axis=0)
    score = measured["scores"]["repeats"]["convolutional"]["squared_error"]
    assert score["mean"] == pytest.approx(errors.mean(), rel=1e-4)
    assert score["standard_error"] == pytest.approx(errors.std(ddof=1) / 12**0.5, rel=1e-4)
    assert f"{errors.mean():.3f} ± " in out
    # Opposite directions are one image, so they are predicted alike, and the floor is the mean of the two.
    pairs = np.arange(12), (np.arange(12) + 6) % 12
    floor = np.mean(((stimuli.train[pairs[0]] + stimuli.train[pairs[1]]) / 2 - test) ** 2)
    assert measured["scores"]["repeats"]["paired mean"]["squared_error"]["mean"] == pytest.approx(
        floor, rel=1e-4
    )
    assert measured["n_distinct_images"] == 6 and "12 gratings are 6 distinct images" in out

    for fold in range(3):
        with np.load(folder / "encoders" / "convolutional" / f"fold_{fold}.npz") as file:
            assert file["predicted"].shape == (4, 12)
            np.testing.assert_allclose(file["predicted"][:2], file["predicted"][2:], atol=1e-5)
        assert not (folder / "encoders" / "convolutional" / f"fold_{fold}").exists()


def test_folds_of_angles_keep_opposites_together(encoded):
    settings = from_plain(
        _encode_settings.Settings, json.loads((encoded[0] / "config.json").read_text()), "config"
    )
    stimuli = _encode_settings.read_stimuli(settings, _encode_settings.check(settings), jax.random.key(0))
    of_folds = _encode_settings.folds(settings, stimuli)
    assert sorted(np.concatenate(of_folds)) == list(range(12))
    for held in of_folds:
        assert {(n + 6) % 12 for n in held} == set(held)


def test_a_resumed_encoder_is_the_uninterrupted_one(encoded, tmp_path, monkeypatch):
    monkeypatch.setattr(_encode, "draw", lambda *args: None)
    flags = [*SMALL_ENCODE, f"--runs={tmp_path}", "--name=parts", "--encoders", "convolutional"]
    captured([*flags, "--n-steps=2"])
    parts, folder = tmp_path / "parts", "encoders/convolutional"
    # As if it was killed while its last fold was trained.
    (parts / folder / "fold_2.npz").unlink()
    captured(["encode", "--resume", str(parts), "--n-steps=6"])
    assert json.loads((parts / "results.json").read_text()) == json.loads(
        (encoded[0] / "results.json").read_text()
    )
    for name in ("model.npz", "repeats/metrics.jsonl"):
        one, other = (path / folder / name for path in (parts, encoded[0]))
        if name.endswith("npz"):
            with np.load(one) as first, np.load(other) as second:
                for array in first.files:
                    np.testing.assert_array_equal(first[array], second[array])
        else:
            assert one.read_bytes() == other.read_bytes()
    _, err = captured(["encode", "--resume", str(parts), "--n-steps=5"], 2)
    assert "n_steps: expected at least 6, as before, got 5" in err


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
    assert "5 of each grating for training, 5 for tests" in out and "8 gratings are 4 distinct images" in out
    scores = json.loads((tmp_path / "encode" / "results.json").read_text())["scores"]
    assert list(scores) == ["repeats"] and scores["repeats"]["poisson-glm"]["correlation"]["n_neurons"] == 19
    best, null = (scores["repeats"][name]["correlation"]["mean"] for name in ("poisson-glm", "null"))
    assert best > 0.2 and null == 0


@pytest.mark.slow
def test_every_decoder_and_encoder_runs(tmp_path):
    names = [name for name in _decode_settings._NAMES if name != "poisson"]
    out, _ = captured([*SMALL_DECODE, f"--runs={tmp_path}", "--tune", "--decoders", *names])
    assert all(re.search(rf"^ *{name}  ", out, re.MULTILINE) for name in names)
    out, _ = captured([*SMALL_DECODE, f"--runs={tmp_path}", "--responses=poisson"])
    assert re.search(r"^ *poisson  ", out, re.MULTILINE)
    flags = ["--responses=poisson", "--encoders", *_encode_settings._NAMES]
    out, _ = captured([*SMALL_ENCODE, f"--runs={tmp_path}", *flags])
    assert all(len(re.findall(rf"^ *{name}  ", out, re.MULTILINE)) == 2 for name in _encode_settings._NAMES)
    course = ["--optimizer=sgd", "--step-size=0.001", "--penalty-scale=sum", "--l2=5e-4", "--l1=1e-6"]
    captured([*SMALL_ENCODE, f"--runs={tmp_path}", *course, "--hold-out=repeats", "--n-repeats=2"])


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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("decode --data=monkey", "data: expected simulated, macaque-static, macaque-moving, mouse, stringer"),
        ("decode --data=nowhere.npz", "data: expected a file, but there is none at nowhere.npz"),
        ("decode --data=mouse --n-neurons=9", "n_neurons: expected None, as by default, since --data mouse"),
        ("decode --session=1", "session: expected None, as by default, since --data simulated does not use"),
        ("decode --n-trials=3", "n_trials: expected a whole number ≥ 4, got 3"),
        ("decode --decoders ridge", "decoders: expected some of bump-ridge"),
        ("decode --decoders gaussian gaussian", "decoders: expected each once"),
        ("decode --n-neurons=5 --decoders poisson", "decoders: expected none of counts (poisson)"),
        ("decode --n-folds=1", "n_folds: expected a whole number ≥ 2, got 1"),
        (
            "decode --n-neurons=5 --n-trials=8 --n-folds=9",
            "n_folds: expected at most 8, the number of trials",
        ),
        ("decode --n-neurons=5 --n-trials=20", "bins: expected trials of each bin in every training set"),
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
        ("encode --n-neurons=5 --encoders poisson-glm", "encoders: expected none of counts (poisson-glm)"),
        ("encode --n-neurons=5 --n-angles=8", "n_folds: expected at most 4, the number of distinct"),
    ],
)
def test_settings_that_cannot_work_leave_no_folder(flags, message, tmp_path, untyped):
    _, err = captured([*flags.split(), f"--runs={tmp_path / 'runs'}"], 2)
    assert message in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"resp": np.ones((4, 2))}, "data: expected arrays named responses, angles_degrees in"),
        ({"responses": np.ones((4, 2)), "angles_degrees": np.arange(3)}, "an angle for each of 4 trials"),
        ({"responses": np.ones(4), "angles_degrees": np.arange(4)}, "(trials, neurons) and angles_degrees"),
        (
            {"responses": np.ones((4, 2)), "angles_degrees": np.array([0, 1, 2, np.nan])},
            "finite angles_degrees",
        ),
        ({"responses": np.ones((4, 2)), "angles_degrees": np.arange(4)}, "expected neurons that vary, got 2"),
    ],
)
def test_files_that_are_no_trials_are_refused(arrays, message, tmp_path, untyped):
    np.savez(tmp_path / "trials.npz", **arrays)
    flags = [f"--data={tmp_path / 'trials.npz'}", f"--runs={tmp_path / 'runs'}"]
    _, err = captured(["decode", *flags], 2)
    assert message in err
    assert not (tmp_path / "runs").exists()


def test_angles_shown_once_cannot_be_encoded(tmp_path):
    np.savez(tmp_path / "trials.npz", responses=np.eye(8, 3), angles_degrees=np.arange(8) * 45)
    _, err = captured(["encode", f"--data={tmp_path / 'trials.npz'}", f"--runs={tmp_path / 'runs'}"], 2)
    assert "at least two angles with two trials each, got 8 angles, one of them with 1" in err
