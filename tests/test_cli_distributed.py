"""The command line in several processes: one folder, one summary, and what one process learns."""

import json
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from mesh_programs import environments
from saved_figures import assert_pictures

from neurojax import data
from neurojax.cli import _autoencoder, _devices, _rbm, _sparse_coding, main
from neurojax.cli._continuation import let_go
from neurojax.cli._devices import Devices
from neurojax.cli._settings import parse, start_run
from neurojax.cli._sparse_coding_settings import Settings
from neurojax.distributed import make_mesh
from neurojax.runs import create_run, save

SPARSE = [
    "sparse-coding", "--n-atoms=6", "--patch-size=6", "--batch-size=16", "--n-evaluation=9",
    "--evaluate-every=5", "--checkpoint-every=5", "--n-steps=10",
]  # fmt: skip
RBM = [
    "rbm", "--n-hidden=6", "--batch-size=20", "--n-chains=12", "--n-evaluation=30", "--evaluate-every=5",
    "--checkpoint-every=5", "--ais-chains=8", "--ais-temperatures=10", "--n-burn-in=5", "--snapshot-every=3",
    "--n-steps=10",
]  # fmt: skip
VARIATIONAL = [
    "autoencoder", "--kind=variational", "--n-hidden", "8", "--n-latent=2", "--batch-size=20",
    "--evaluate-every=5", "--checkpoint-every=5", "--n-evaluation=30", "--n-steps=10",
    "--likelihood-samples=5",
]  # fmt: skip
PICTURES = {
    "sparse-coding": {"receptive_fields", "gabor_fits", "loss", "codes", "reconstructions"},
    "autoencoder": {"filters", "reconstructions", "history", "hourglass"},
    "rbm": {"filters", "data", "samples", "reconstructions", "history"},
}
PICTURES["autoencoder"] |= {"samples", "traversal", "manifold"}
# Sums over a batch are added in another order: float32 rounding, and for codes what is made of it by stopping
# at a relative gap of 1e-3 while learning.
# Of the machine, weights agree to 5e-7; its hidden bias moves by the offsets times the weights, a sum of 784
# such roundings (programs of one device, compiled with and without optimisation, are up to 8e-6 apart there).
TOLERANCE = {"sparse-coding": 1e-4, "rbm": 1e-4, "autoencoder": 1e-5}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of the first digits, as grey images."""
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, np.asarray(data.mnist_subset("train").images[:240]))
    return path


@pytest.fixture(scope="module")
def learned_alone(tmp_path_factory):
    """The folder of a run of SPARSE on one device, with its dictionary, once for all that compare with it."""
    root = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        # Pictures and Gabor fits of this run would take half its time.
        patch.setattr(
            _sparse_coding, "_show", lambda _, run, result, *__: save(run.path / "d.npz", result.model)
        )
        patch.setattr(_sparse_coding, "_summary", lambda *_: "")
        assert main([*SPARSE, f"--runs={root}"]) == 0
    return root / "sparse-coding"


def start(words, *, n_processes=2, n_devices=1, own=None, folders=None):
    """Start ``python -m neurojax`` in processes, with words and working folders of their own where given."""
    words = [*words, "--distributed"] if n_processes > 1 else words
    return [
        subprocess.Popen(
            [sys.executable, "-m", "neurojax", *words, *(own or {}).get(i, [])],
            env=environment, cwd=(folders or {}).get(i),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i, environment in enumerate(environments(n_processes, n_devices))
    ]  # fmt: skip


def ends(processes, timeout=300):
    """Return exit codes, and what was printed to either stream, but for what the network library says."""
    texts = [process.communicate(timeout=timeout) for process in processes]
    out, err = ([re.sub(r"^\[Gloo\].*\n", "", text[i], flags=re.MULTILINE) for text in texts] for i in (0, 1))
    return [process.returncode for process in processes], out, err


def arrays(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files if file[name].dtype.kind == "f"}


def assert_same_models(came, expected, tolerance):
    came, expected = arrays(came), arrays(expected)
    assert came.keys() == expected.keys() and came
    for name, values in expected.items():
        np.testing.assert_allclose(came[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def run_in_two(words, tmp_path, **topology):
    """Run a command in two processes; check what was left and said, and return its folder and its summary."""
    command, root = words[0], tmp_path / "many"
    codes, out, err = ends(start([*words, f"--runs={root}"], **topology))
    assert not any(codes), err
    assert [path.name for path in root.iterdir()] == [command]
    folder = root / command
    assert out[0].count("run folder: ") == 1 and str(folder) in out[0].splitlines()[-1]
    assert not out[1], "only one process prints"
    assert_pictures(folder, PICTURES[command])
    return folder, numbers(out[0])


def assert_same_history(folder, one, tolerance):
    came, expected = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (folder, one)
    )
    assert len(came) == len(expected) and came
    for row, other in zip(came, expected, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"inference_steps", "evaluation/inference_steps"}:
            assert row[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance), name


def numbers(summary):
    """Return the numbers in each line of a summary by its name, but for the time and the place."""
    lines = dict(line.strip().split("  ", 1) for line in summary.splitlines() if "  " in line.strip())
    apart = ("time", "run folder")
    return {
        n: [float(x) for x in re.findall(r"-?\d+(?:\.\d+)?", t)] for n, t in lines.items() if n not in apart
    }


@pytest.mark.slow
def test_two_processes_leave_one_folder_and_the_dictionary_of_one(learned_alone, tmp_path):
    folder, said = run_in_two(SPARSE, tmp_path)
    assert said["worst relative duality gap"][-2:] == [9, 9], "all converged"
    tolerance = TOLERANCE["sparse-coding"]
    assert_same_models(folder / "dictionary.npz", learned_alone / "d.npz", tolerance)
    assert_same_history(folder, learned_alone, tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "model"), [(RBM, "rbm.npz"), (VARIATIONAL, "autoencoder.npz")])
def test_rows_and_chains_in_two_processes_are_learned_from_as_in_one(words, model, digits, tmp_path, capsys):
    words, tolerance = [*words, f"--data={digits}"], TOLERANCE[words[0]]
    folder, said = run_in_two(words, tmp_path, n_devices=2)
    capsys.readouterr()
    assert main([*words, f"--runs={tmp_path / 'one'}"]) == 0
    one = tmp_path / "one" / words[0]
    assert {path.name for path in folder.iterdir()} == {path.name for path in one.iterdir()}
    assert_same_models(folder / model, one / model, tolerance)
    assert_same_history(folder, one, tolerance)
    expected = numbers(capsys.readouterr().out)
    assert said.keys() == expected.keys() and said
    for name, values in expected.items():
        assert said[name] == pytest.approx(values, rel=1e-3, abs=0.1), name
    if words[0] == "rbm":
        np.testing.assert_array_equal(*(np.load(path / "samples.npy") for path in (folder, one)))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--devices=2"], ["--devices=all", "--model-devices=2"]], ids=str)
def test_one_process_with_many_devices(flags, learned_alone, tmp_path):
    codes, _, err = ends(start([*SPARSE, *flags, f"--runs={tmp_path}"], n_processes=1, n_devices=4))
    assert codes == [0], err
    assert_same_models(tmp_path / "sparse-coding" / "dictionary.npz", learned_alone / "d.npz", 1e-4)


@pytest.mark.slow
def test_a_flag_that_differs_is_named_in_both(tmp_path):
    codes, _, err = ends(start([*SPARSE, f"--runs={tmp_path / 'runs'}"], own={1: ["--n-atoms=7"]}))
    assert codes == [2, 2], err
    assert all("settings: expected the same" in text for text in err), err
    assert all("n_atoms is 6 in process 0 and 7 in process 1" in text for text in err), err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share_is_named_in_both(tmp_path):
    codes, _, err = ends(start([*SPARSE, "--batch-size=15", f"--runs={tmp_path / 'runs'}"]))
    assert codes == [2, 2], err
    assert all("batch_size: expected a multiple of the 2 devices" in text for text in err), err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (_sparse_coding, [*SPARSE, "--batch-size=15"], "batch_size: expected a multiple of the 2 .*got 15"),
        (_rbm, [*RBM, "--batch-size=15"], "batch_size: expected a multiple of the 2 devices .*, got 15"),
        (_rbm, [*RBM, "--n-chains=11"], "n_chains: expected a multiple of the 2 devices .*, got 11"),
        (
            _autoencoder,
            [*VARIATIONAL, "--batch-size=15"],
            "batch_size: expected a multiple of the 2 .*got 15",
        ),
        (_autoencoder, ["autoencoder", "--kind=stacked"], "kind: expected one that .*, got stacked"),
    ],
    ids=["patches", "rows", "chains", "images", "stacked"],
)
def test_what_devices_cannot_share_leaves_no_folder(command, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "start_devices", lambda *_, **__: make_mesh())
    monkeypatch.setattr(_devices, "n_shards", lambda mesh: 2)
    assert main([*words, f"--runs={tmp_path / 'runs'}"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_what_one_process_lacks_is_told_in_all(digits, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "rows.npy").write_bytes(digits.read_bytes())
    folders = {0: tmp_path / "here", 1: tmp_path / "there"}
    words = [*RBM, "--data=rows.npy", f"--runs={tmp_path / 'runs'}"]
    codes, _, err = ends(start(words, folders=folders))
    assert codes == [2, 2], err
    assert "rbm: process 1: data: expected a file, but there is none at rows.npy" in err[0]
    assert "rbm: data: expected a file, but there is none at rows.npy" in err[1]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_sigterm_in_one_of_two_saves_and_one_process_goes_on(tmp_path):
    # Codes to a tight gap: at the default one their rounding grows over 80 updates.
    words = [*SPARSE, "--n-steps=80", "--evaluate-every=1", "--tol=1e-6"]
    processes = start([*words, f"--runs={tmp_path / 'runs'}"])
    folder = tmp_path / "runs" / "sparse-coding"
    try:
        deadline = time.monotonic() + 200
        while not n_lines(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        codes, _, err = ends(processes)
    finally:
        for process in processes:
            process.kill()
    assert codes == [143, 143], err
    assert err[0].count("terminated: step") == 1
    again = f"neurojax sparse-coding --resume {folder} --distributed"
    message = f"neurojax sparse-coding: terminated. This goes on: {again}"
    assert (err[0].count(message), err[1].count(message)) == (1, 0), err
    n_done = n_lines(folder)
    assert 0 < n_done < 80 and not (folder / "dictionary.npz").exists()
    # One process goes on: its config says what it ran on, and the flags of processes are not kept.
    assert main(["sparse-coding", "--resume", str(folder)]) == 0
    assert n_lines(folder) == 80
    assert json.loads((folder / "config.json").read_text())["devices"]["distributed"] is False
    assert main([*words, f"--runs={tmp_path / 'one'}"]) == 0
    one = tmp_path / "one" / "sparse-coding"
    assert_same_models(folder / "dictionary.npz", one / "dictionary.npz", 1e-3)


def n_lines(folder):
    metrics = folder / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*SPARSE, "--devices=0"], "devices: expected a whole number ≥ 1, got 0"),
        ([*SPARSE, "--devices=9"], f"devices: expected at most the {len(jax.devices())} there are, got 9"),
        ([*SPARSE, "--model-devices=7"], "model_devices: expected a divisor of the 1 devices, got 7"),
        ([*SPARSE, "--model-devices=0"], "model_devices: expected a whole number ≥ 1, got 0"),
        ([*SPARSE, "--distributed", "--devices=2"], "devices: expected all with --distributed"),
        ([*SPARSE, "--distributed"], "JAX_NUM_PROCESSES: expected a whole number, got 'two'"),
        ([*RBM, "--model-devices=2"], "model_devices: expected 1, as only sparse-coding has atoms"),
        (
            ["decode", "--distributed"],
            "decode: --distributed: expected one of sparse-coding, autoencoder, rbm",
        ),
        (["encode", "--devices=all"], "encode: --devices: expected one of sparse-coding, autoencoder, rbm"),
    ],
)
def test_devices_that_there_are_not_are_named(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "two")
    assert main([*words, f"--runs={tmp_path / 'runs'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_does_not_say_on_what_it_ran_goes_on_on_one_device(tmp_path):
    run = create_run(tmp_path, "old", Settings())
    config = run.read_config()
    config["devices"] = {"devices": "all", "distributed": True, "model_devices": 4}
    for devices in (config.pop("devices"), None):
        run.config_path.write_text(json.dumps(config | ({} if devices is None else {"devices": devices})))
        settings, found = parse(Settings, "sparse-coding", ["--resume", str(run.path)])
        assert settings.devices == Devices()
        assert start_run("sparse-coding", settings, found).path == run.path
        let_go()
