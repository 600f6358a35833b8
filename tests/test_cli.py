"""The command line, run as a user runs it, on a small setting."""

import contextlib
import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
from command_runs import one_optimizer
from PIL import Image
from saved_figures import assert_history, assert_pictures, cells, keep_figures, legend, picture, scaled, texts

from neurojax import data, penalties, receptive_fields, sparse_coding, training
from neurojax.cli import _sparse_coding, _sparse_coding_settings, main
from neurojax.cli._settings import from_plain
from neurojax.cli._sparse_coding_settings import Settings, make_penalty, make_solver, read_images
from neurojax.convergence import Solution
from neurojax.runs import RunFolder, plain_settings, save

N_ATOMS, SIDE, N_PATCHES = 12, 8, 20
# As many patches held out as in a batch: they are encoded by one compiled program.
SMALL = [
    f"--n-atoms={N_ATOMS}", f"--patch-size={SIDE}", f"--batch-size={N_PATCHES}",
    f"--n-evaluation={N_PATCHES}", "--evaluate-every=4", "--checkpoint-every=2",
]  # fmt: skip
PICTURES = ["receptive_fields", "gabor_fits", "loss", "codes", "reconstructions"]
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 48), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    with one_optimizer(_sparse_coding):
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of small images with a spectrum like that of photographs."""
    path = tmp_path_factory.mktemp("data") / "images.npy"
    noise = np.cumsum(np.cumsum(IMAGES.astype(np.float32) - 127.5, axis=1), axis=2)
    np.save(path, noise)
    return path


def run(folder, *flags, n_steps=4):
    return main(["sparse-coding", *SMALL, f"--runs={folder}", f"--n-steps={n_steps}", *flags])


def stand_in_fits(atoms, patch_shape):
    """Return Gabor functions of all orientations, in place of fits, which are tested on their own."""
    assert atoms.shape == (N_ATOMS, SIDE**2) and patch_shape == (SIDE, SIDE)
    n, steps = len(atoms), jnp.zeros(len(atoms), int)
    # The frequencies fall while the fits get better, so that the best of them are edges.
    values = np.float32([np.arange(n) / 9, np.arange(n) % 3, np.arange(n) * 15, 0.3 - np.arange(n) / 40])
    widths = np.float32([np.full(n, 1.5), np.full(n, 2), np.zeros(n), np.full(n, 0.1)])
    gabor = receptive_fields.Gabor(*map(jnp.asarray, (*values, *widths)))
    return receptive_fields.GaborFit(gabor, jnp.linspace(0.3, 0.97, n), steps, steps)


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """The folder of a run, what it printed, the figures it saved, and what it gave to be drawn."""
    drawn, draw, folder, out = [], _sparse_coding.draw, tmp_path_factory.mktemp("runs"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, keep_figures("loss") as kept:
        patch.setattr(_sparse_coding, "draw", lambda *args: drawn.append(args) or draw(*args))
        patch.setattr(receptive_fields, "fit_gabor_batch", stand_in_fits)
        with contextlib.redirect_stdout(out):
            assert run(folder, f"--data={images}", "--name=whole") == 0
    return folder / "whole", out.getvalue(), kept.figures, drawn[0]


def test_a_run_leaves_its_folder(whole):
    folder, _, figures, _ = whole
    assert {"config.json", "metrics.jsonl", "checkpoint", "dictionary.npz"} <= {
        p.name for p in folder.iterdir()
    }
    assert set(figures) == set(PICTURES)
    assert_pictures(folder, ["loss"])


def test_the_summary_is_that_of_the_codes(whole):
    folder, summary, _, (_, result, patches, codes, fits, settings, _) = whole
    gap = re.search(r"worst relative duality gap  (\S+) \((\d+) of 20 converged\)", summary)
    assert gap and float(gap[1]) <= 1e-5 and gap[2] == "20"
    patches, reconstructed = np.asarray(patches), codes @ np.asarray(result.model.atoms)
    explained = 1 - np.sum((patches - reconstructed) ** 2) / np.sum((patches - patches.mean(axis=0)) ** 2)
    energies = np.sum((patches - reconstructed) ** 2, axis=1) / 2 + 0.3 * np.sum(np.abs(codes), axis=1)
    n_active, r_squared = np.mean(np.sum(codes != 0, axis=1)), np.asarray(fits.r_squared)
    is_good, n_x = r_squared >= 0.7, np.asarray(fits.gabor.frequency * fits.gabor.width_across)
    is_edge = is_good & (n_x < 0.125)
    for words in (
        f"explained variance  {explained:.1%} of 20 held-out patches",
        f"mean active units  {n_active:.1f} of 12",
        f"mean energy  {energies.mean():.4f}",
        f"{np.mean(is_good & ~is_edge):.0%} (R² ≥ 0.7 and half a period under the envelope)",
        f"{np.mean(is_edge):.0%} single edges or blobs; median R² {np.median(r_squared):.2f}",
        "time", str(folder),
    ):  # fmt: skip
        assert words in summary, (words, summary)

    log = dataclasses.replace(settings, penalty=dataclasses.replace(settings.penalty, penalty="log"))
    steps, movement = np.zeros(N_PATCHES, int), np.linspace(0, 1e-3, N_PATCHES, dtype=np.float32)
    found = Solution(jnp.asarray(codes), steps, steps, movement)
    summary = _sparse_coding._summary(log, RunFolder(folder), result.model, patches, found, fits, 1.0)
    assert "largest relative movement  1.0e-03 (20 of 20 converged)" in summary
    assert "mean energy" not in summary, "the log penalty has no lower bound"


def test_the_pictures_show_the_dictionary_and_the_codes(whole):
    _, _, figures, (_, result, patches, codes, fits, _, seen) = whole
    atoms, shape = np.asarray(result.model.atoms), (SIDE, SIDE)
    sheet, plane = figures["receptive_fields"].axes
    np.testing.assert_allclose(cells(sheet, N_ATOMS, shape, 4), scaled(atoms, shape), atol=1e-6)
    gabor = fits.gabor
    is_good = np.asarray(fits.r_squared >= 0.7) & np.asarray(gabor.frequency * gabor.width_across >= 0.125)
    angle, radius = np.deg2rad(gabor.orientation)[is_good], np.asarray(gabor.frequency)[is_good]
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    np.testing.assert_allclose(
        np.asarray(plane.collections[-1].get_offsets()).reshape(-1, 2), points, atol=1e-6
    )
    assert sheet.get_title() == "12 atoms, each scaled alone"
    assert plane.get_title() == f"the {is_good.sum()} of 12 atoms that are like a Gabor function"

    order, ax = np.argsort(-np.asarray(fits.r_squared), kind="stable"), figures["gabor_fits"].axes[0]
    assert texts(ax) == [f"{value:.2f}" for value in np.asarray(fits.r_squared)[order]]
    drawn = cells(ax, N_ATOMS, (2 * SIDE + 3, SIDE), 10)
    np.testing.assert_allclose(drawn[:, :SIDE], scaled(atoms[order], shape), atol=1e-6)
    fitted = np.asarray(receptive_fields.gabor_batch(fits.gabor, shape))[order].reshape(-1, *shape)
    peaks = np.abs(atoms[order]).max(axis=1)[:, None, None]
    np.testing.assert_allclose(drawn[:, SIDE : 2 * SIDE], np.clip(fitted / peaks, -1, 1), atol=1e-5)

    history = result.history
    measured = history.evaluation_steps, history.evaluation["loss"]
    energy, share = figures["loss"].axes
    assert_history(energy, np.arange(1, 5), history["loss"], measured)
    assert energy.get_ylabel() == "mean energy" and list(measured[0]) == [4]
    at_zero = [np.mean(np.sum(np.asarray(rows) ** 2, axis=1)) / 2 for rows in (seen, patches)]
    measured = measured[0], measured[1] / at_zero[1]
    assert_history(share, np.arange(1, 5), history["loss"] / at_zero[0], measured)
    assert "½‖x‖²" in share.get_ylabel() and f"{at_zero[0]:.2f} in training" in share.get_title()
    assert legend(share) == ["training batches, before each update", "held out"]
    for figure in figures.values():
        caption = figure.get_supxlabel()
        assert "data: images.npy, whitened; 12 atoms" in caption and "20 held-out patches" in caption

    raster, histogram, active, activity = figures["codes"].axes[:4]
    np.testing.assert_array_equal(picture(raster), codes)
    assert texts(histogram) == [f"{100 * np.mean(codes == 0):.1f} % are zero"]
    assert legend(active) == [f"mean {np.mean(np.sum(codes != 0, axis=1)):.1f} of 12"]
    share = 100 * np.sort(np.mean(codes != 0, axis=0))[::-1]
    np.testing.assert_allclose([bar.get_height() for bar in activity.patches[:N_ATOMS]], share)

    pairs = cells(figures["reconstructions"].axes[0], N_PATCHES, (2 * SIDE, SIDE), 8)
    patches = np.asarray(patches)
    np.testing.assert_allclose(pairs[:, :SIDE], scaled(patches, shape), atol=1e-6)
    below = (codes @ atoms / np.abs(patches).max(axis=1, keepdims=True)).reshape(-1, *shape)
    np.testing.assert_allclose(pairs[:, SIDE:], np.clip(below, -1, 1), atol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one(whole, images, tmp_path, capsys, monkeypatch):
    whole, parts = whole[0], tmp_path / "parts"
    # What is shown of a run is another matter.
    monkeypatch.setattr(
        _sparse_coding, "_show", lambda _, run, result, *rest: save(run.path / "dictionary.npz", result.model)
    )
    monkeypatch.setattr(_sparse_coding, "_summary", lambda *args: "")
    assert run(tmp_path, f"--data={images}", "--name=parts", n_steps=2) == 0
    assert main(["sparse-coding", "--resume", str(parts), "--n-steps", "4"]) == 0
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    with np.load(parts / "dictionary.npz") as one, np.load(whole / "dictionary.npz") as other:
        np.testing.assert_array_equal(one["array_0"], other["array_0"])
    assert json.loads((parts / "config.json").read_text())["learning"]["n_steps"] == 4

    capsys.readouterr()
    # Refused after the data were read, which takes long and is another matter.
    monkeypatch.setattr(_sparse_coding, "_prepare", lambda *args: None)
    assert main(["sparse-coding", "--resume", str(parts), "--n-atoms", "30", "--strength", "0.25"]) == 2
    message = capsys.readouterr().err
    assert "n_atoms 12 → 30" in message and "strength 0.3 → 0.25" in message
    assert main(["sparse-coding", "--resume", str(parts), "--n-steps", "3"]) == 2
    assert "n_steps: expected at least 4, as before, got 3" in capsys.readouterr().err
    assert json.loads((parts / "config.json").read_text())["learning"]["n_steps"] == 4


class LearningStarts(Exception):
    pass


def given_to_fit(monkeypatch, *flags):
    """Return what a command is about to learn from, and the arguments of ``fit``."""
    tasks, calls, learn = [], [], _sparse_coding._learn

    def stop(*args, **options):
        calls.append((args, options))
        raise LearningStarts

    monkeypatch.setattr(_sparse_coding, "_learn", lambda *args: tasks.append(args[2]) or learn(*args))
    monkeypatch.setattr(training, "fit", stop)
    with pytest.raises(LearningStarts):
        run(*flags)
    return tasks[0], *calls[0]


def test_flags_decide_how_atoms_are_learned(tmp_path, monkeypatch):
    # Each pixel is the number of its column.
    np.save(tmp_path / "columns.npy", np.tile(np.arange(72.0, dtype=np.float32), (2, 16, 1)))
    flags = [
        f"--data={tmp_path}/columns.npy", "--whitening=none", "--preprocess=none", "--penalty=log",
        "--strength=0.05", "--solver=lca", "--time-constant=5", "--time-step=0.5", "--tol=0.01",
        "--max-inference-steps=70", "--steps-per-check=7", "--replace-after=3", "--patience=1",
    ]  # fmt: skip
    task, (dictionary, objective, sampler), options = given_to_fit(monkeypatch, tmp_path, *flags)
    # A band of nine columns in the middle of each is held out, of one image to choose and of one to report.
    seen = np.concatenate([sampler(key) for key in jax.random.split(jax.random.key(0), 20)])
    assert np.all((seen <= 30) | (seen >= 40)) and np.min(seen) == 0 and np.max(seen) == 71
    assert all(np.min(part) >= 31 and np.max(part) <= 39 for part in (task.watched, task.patches))
    assert dictionary.atoms.shape == (N_ATOMS, SIDE**2) and objective is task.objective
    assert (objective.penalty, objective.solver) == (penalties.Log(0.05), sparse_coding.LCA(5.0, 0.5))
    assert (objective.tol, objective.max_steps, objective.steps_per_check) == (0.01, 70, 7)
    upkeep, evaluate, checkpoint = (options[name] for name in ("after_update", "evaluate", "checkpoint"))
    assert upkeep.replace_after == 3 and upkeep.objective is objective
    assert upkeep.optimizer is options["optimizer"] and isinstance(options["state"], sparse_coding.AtomUsage)
    assert (evaluate.every, evaluate.patience, evaluate.keep_best) == (4, 1, True)
    assert checkpoint.every == 2 and options["n_steps"] == 4


def test_penalties_solvers_and_optimizers_are_found_by_their_names():
    def settings(section, **values):
        return dataclasses.replace(getattr(Settings(), section), **values)

    own = {"strength": 0.2, "l2": 0.5, "scale": 2.0, "epsilon": 0.1, "group_size": 3}
    for name, penalty in {
        "l1": penalties.L1(0.2),
        "nonnegative-l1": penalties.NonNegativeL1(0.2),
        "elastic-net": penalties.ElasticNet(0.2, 0.5),
        "l0": penalties.L0(0.2),
        "cauchy": penalties.Cauchy(0.2, 2.0),
        "log": penalties.Log(0.2),
        "smooth-l1": penalties.SmoothL1(0.2, 0.1),
        "gaussian": penalties.Gaussian(0.2, 2.0),
        "group-l2": penalties.GroupL2(0.2, 3),
    }.items():
        assert make_penalty(settings("penalty", penalty=name, **own)) == penalty, name
    own = {"inference_step_size": 0.1, "backtracking": True, "time_constant": 5.0, "time_step": 0.5}
    for name, solver in {
        None: None,
        "sparsa": sparse_coding.SpaRSA(),
        "fista": sparse_coding.FISTA(0.1, True),
        "ista": sparse_coding.ISTA(0.1, True),
        "lca": sparse_coding.LCA(5.0, 0.5),
        "coordinate-descent": sparse_coding.CoordinateDescent(),
    }.items():
        assert make_solver(settings("inference", solver=name, **own)) == solver, name
    assert isinstance(make_solver(settings("inference", solver="gradient")), sparse_coding.Gradient)
    # The first update of each, for a gradient of 3.
    for name, options, expected in (
        ("sgd", {}, -7.5),
        ("sgd", {"step_size": 0.5}, -1.5),
        ("adam", {}, -0.01),
        ("rmsprop", {"step_size": 0.2}, -0.2 / 0.1**0.5),
        ("adagrad", {"step_size": 0.2}, -0.6 / 9.1**0.5),
    ):
        optimizer = _sparse_coding_settings.make_optimizer(settings("learning", optimizer=name, **options))
        three = jnp.float32(3)
        update, _ = optimizer.update(three, optimizer.init(three))
        assert float(update) == pytest.approx(expected, rel=1e-4), name


def test_photographs_are_the_default_and_whitened(monkeypatch):
    image = jnp.asarray(np.cumsum(IMAGES[0].astype(np.float32), axis=0))
    monkeypatch.setattr(data, "natural_images", lambda: [image])
    ((white,), (plain,)) = (
        read_images(dataclasses.replace(Settings().data, whitening=how)) for how in ("auto", "none")
    )
    assert plain is image and white.shape == image.shape
    assert float(np.var(white)) == pytest.approx(0.079, rel=1e-3)


def test_settings_survive_their_file():
    settings = dataclasses.replace(
        Settings(), learning=dataclasses.replace(Settings().learning, replace_after=9)
    )
    assert from_plain(Settings, plain_settings(settings), "config.json") == settings
    with pytest.raises(ValueError, match=r"config\.json: expected the settings \['data', .*got \['seed'\]"):
        from_plain(Settings, {"seed": 0}, "config.json")


def test_help_documents_every_setting(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["sparse-coding", "--help"])
    text = capsys.readouterr().out
    for section in dataclasses.fields(Settings):
        for setting in dataclasses.fields(section.default_factory):
            assert f"--{setting.name.replace('_', '-')}" in text
    assert main(["--help"]) == 0 and "sparse-coding" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    ["mat", "folder", "npy"],
)
def test_own_images_and_other_models(kind, tmp_path, capsys):
    images = IMAGES
    if kind == "folder":
        path = tmp_path / "images"
        path.mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[: 40 - i]).save(path / f"{i}.png")
        flags = ["--penalty=smooth-l1", "--epsilon=0.01", "--solver=gradient", "--optimizer=adam"]
    elif kind == "npy":
        path = tmp_path / "images.npy"
        np.save(path, images.astype(np.float32))
        flags = ["--penalty=elastic-net", "--solver=coordinate-descent", "--replace-after=3"]
    else:
        path = tmp_path / "IMAGES.mat"
        scipy.io.savemat(path, {"IMAGES": images.transpose(1, 2, 0) / 255})
        flags = ["--penalty=log", "--strength=0.05", "--solver=lca", "--whitening=none", "--patience=1"]
    with contextlib.nullcontext() if kind == "npy" else keep_figures() as kept:
        assert run(tmp_path, f"--data={path}", "--steps-per-check=20", *flags, n_steps=2) == 0
    summary = capsys.readouterr().out
    assert ("duality gap" in summary) == (kind == "npy") != ("movement" in summary)
    assert ("mean energy" in summary) == (kind != "mat"), "the log penalty has no lower bound"
    if kind == "npy":
        assert_pictures(tmp_path / "sparse-coding", PICTURES)
    else:
        assert set(kept.figures) == set(PICTURES)


REFUSED = [
    (["--strength=-1"], "strength: expected a number ≥ 0, got -1"),
    (["--tol=0"], "tol: expected a number > 0, got 0"),
    (["--max-inference-steps=0"], "max_steps: expected a whole number ≥ 1, got 0"),
    (["--n-atoms=0"], "n_atoms: expected a whole number ≥ 1, got 0"),
    (["--patch-size=400"], "patch_size: expected at most the height and half the width"),
    (["--solver=gradient"], "Gradient: expected a smooth penalty"),
    (["--penalty=smooth-l1"], "FISTA: expected a penalty with a proximal operator"),
    (["--data=nowhere"], "nowhere"),
    (["--step-size=-1"], "step_size: expected a number > 0"),
    (["--checkpoint-every=0"], "checkpoint_every: expected a whole number ≥ 1"),
    (["--batch-size=0"], "batch_size: expected a whole number ≥ 1"),
]


def test_settings_that_cannot_work_leave_no_folder(images, tmp_path, capsys, untyped):
    for flags, message in REFUSED:
        assert run(tmp_path / "runs", f"--data={images}", *flags) == 2, flags
        assert message in capsys.readouterr().err, flags
    assert not (tmp_path / "runs").exists()


def test_bad_folders_and_commands_are_named(images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(_sparse_coding, "_prepare", lambda *args: None)
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(blocked / "runs", f"--data={images}") == 2
    assert "expected a writable folder" in capsys.readouterr().err
    assert main(["sparse-coding", "--resume", str(tmp_path / "none")]) == 2
    assert "expected a run folder (with config.json)" in capsys.readouterr().err
    assert main(["sparse-codng"]) == 2
    words = "sparse-coding, autoencoder, rbm, decode, encode"
    assert f"expected one of {words}, got 'sparse-codng'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_interrupted_from_the_keyboard_says_how_to_go_on(tmp_path):
    # A shell's background job starts with SIGINT ignored, and hands that on.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from neurojax.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["sparse-coding", *SMALL, f"--runs={tmp_path}", "--n-steps=1000000"]
    process = subprocess.Popen([sys.executable, "-c", program, *words], stderr=subprocess.PIPE, text=True)
    try:
        metrics = tmp_path / "sparse-coding" / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    again = f"This goes on: neurojax sparse-coding --resume {tmp_path / 'sparse-coding'}\n"
    assert process.returncode == 130 and again in errors
