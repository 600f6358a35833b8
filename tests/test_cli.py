"""The command line, run as a user runs it, on a small setting."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.io
from PIL import Image

from neurojax.cli import main
from neurojax.cli._settings import from_plain
from neurojax.cli._sparse_coding_settings import Settings
from neurojax.runs import plain_settings

SMALL = [
    "--n-atoms=20", "--patch-size=8", "--batch-size=50", "--n-evaluation=60", "--evaluate-every=10",
    "--checkpoint-every=10",
]  # fmt: skip
PICTURES = ["receptive_fields", "gabor_fits", "loss", "codes", "reconstructions"]


def run(folder, *flags, n_steps=20):
    return main(["sparse-coding", *SMALL, f"--runs={folder}", f"--n-steps={n_steps}", *flags])


def test_a_run_leaves_its_folder_and_a_resumed_one_is_the_uninterrupted_one(tmp_path, capsys):
    assert run(tmp_path, "--name=whole") == 0
    summary = capsys.readouterr().out
    whole = tmp_path / "whole"
    for name in [
        "config.json",
        "metrics.jsonl",
        "checkpoint",
        "dictionary.npz",
        *(f"{p}.png" for p in PICTURES),
    ]:
        assert (whole / name).exists(), name
    for picture in PICTURES:
        with Image.open(whole / f"{picture}.png") as image:
            assert min(image.size) > 300 and np.ptp(np.asarray(image.convert("L"))) > 100
    gap = re.search(r"worst relative duality gap  (\S+) \(60 of 60 converged\)", summary)
    assert gap and float(gap[1]) <= 1e-5
    for words in ("explained variance", "mean active units", "of 20", "Gabor-like atoms", "time", str(whole)):
        assert words in summary

    assert run(tmp_path, "--name=parts", n_steps=10) == 0
    assert main(["sparse-coding", "--resume", str(tmp_path / "parts"), "--n-steps", "20"]) == 0
    parts = tmp_path / "parts"
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    with np.load(parts / "dictionary.npz") as one, np.load(whole / "dictionary.npz") as other:
        np.testing.assert_array_equal(one["array_0"], other["array_0"])
    assert json.loads((parts / "config.json").read_text())["learning"]["n_steps"] == 20

    capsys.readouterr()
    assert main(["sparse-coding", "--resume", str(parts), "--n-atoms", "30", "--strength", "0.25"]) == 2
    message = capsys.readouterr().err
    assert "n_atoms 20 → 30" in message and "strength 0.3 → 0.25" in message
    assert main(["sparse-coding", "--resume", str(parts), "--n-steps", "15"]) == 2
    assert "n_steps: expected at least 20, as before, got 15" in capsys.readouterr().err
    assert json.loads((parts / "config.json").read_text())["learning"]["n_steps"] == 20


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


@pytest.mark.parametrize(
    "kind",
    ["mat", pytest.param("folder", marks=pytest.mark.slow), pytest.param("npy", marks=pytest.mark.slow)],
)
def test_own_images_and_other_models(kind, tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 40, 48), dtype=np.uint8)
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
    assert run(tmp_path, f"--data={path}", "--steps-per-check=20", *flags, n_steps=10) == 0
    measure = "duality gap" if kind == "npy" else "movement"
    assert measure in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
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
    ],
)
def test_settings_that_cannot_work_leave_no_folder(flags, message, tmp_path, capsys, untyped):
    assert run(tmp_path / "runs", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_bad_folders_and_commands_are_named(tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(blocked / "runs") == 2
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
    assert process.returncode == 130 and "--resume" in errors
