"""What goes wrong in many processes: kills, SIGTERM, damaged checkpoints, arguments that differ."""

import random
import signal
import time

import mesh_programs
import numpy as np
import pytest
from mesh_programs import assert_same

from neurojax.data import write_shards


def kill_and_go_on(tmp_path, seconds, **topology):
    """Start a run, kill one of its processes, let a scheduler's part be played for the others; go on."""
    settings = {"folder": str(tmp_path / "run"), "n_steps": 40, **topology}
    processes = mesh_programs.run("centres", tmp_path / "killed.npz", wait=False, pause=0.05, **settings)
    time.sleep(seconds)
    processes[random.randrange(len(processes))].send_signal(signal.SIGKILL)
    for process in processes:
        process.kill()
        process.communicate()
    return mesh_programs.run("centres", tmp_path / "whole.npz", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("topology", [{"n_devices": 1}, {"n_processes": 2}], ids=["one", "one-of-two"])
def test_kills_at_random_moments_change_nothing(topology, tmp_path):
    """Bit for bit on the same topology: two kills of each, at moments from start-up to the end."""
    n_processes = topology.get("n_processes", 1)
    settings = {"n_steps": 40, **topology}
    began = time.monotonic()
    expected = mesh_programs.run("centres", tmp_path / "expected.npz", pause=0.05, **settings)
    whole = time.monotonic() - began
    moments = random.Random(n_processes)
    for turn in range(2):
        folder = tmp_path / str(turn)
        folder.mkdir()
        came = kill_and_go_on(folder, moments.uniform(0.2, 1.0) * whole, **topology)
        assert came.keys() == expected.keys()
        assert all(came[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.slow
def test_sigterm_saves_and_the_same_call_goes_on(tmp_path):
    folder = tmp_path / "run"
    settings = {"folder": str(folder), "n_steps": 60, "every": 1000, "without_mesh": True}
    (process,) = mesh_programs.run("centres", tmp_path / "a.npz", wait=False, pause=0.2, **settings)
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    process.send_signal(signal.SIGTERM)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "terminated: step" in message
    assert f"is saved in {folder}; the same call goes on" in message
    came = mesh_programs.run("centres", tmp_path / "b.npz", **settings)
    assert len(came["history metrics/loss"]) == 60
    expected = mesh_programs.run("centres", tmp_path / "c.npz", n_steps=60, without_mesh=True)
    assert all(came[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.slow
def test_sigterm_in_one_process_is_meant_for_all(tmp_path):
    folder = tmp_path / "run"
    settings = {"folder": str(folder), "n_steps": 60, "every": 4, "n_processes": 2}
    processes = mesh_programs.run("centres", tmp_path / "a.npz", wait=False, pause=0.3, **settings)
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint" / "4").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    messages = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143]
    assert ["the same call goes on" in message for message in messages] == [True, False]
    came = mesh_programs.run("centres", tmp_path / "b.npz", **settings)
    expected = mesh_programs.run("centres", tmp_path / "c.npz", n_processes=2, n_steps=60)
    assert all(came[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.slow
def test_sigterm_ends_a_process_that_is_not_in_fit(tmp_path):
    settings = {"wait": False, "n_processes": 2, "folder": str(tmp_path)}
    processes = mesh_programs.run("wait", tmp_path / "never.npz", **settings)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("waiting-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        process.communicate(timeout=20)
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["data_seed", "seed", "n_steps", "every", "folder", "shards"])
def test_other_settings_in_another_process_are_named(what, tmp_path):
    settings, others = {"folder": str(tmp_path / "run")}, {"folder": None, "shards": str(tmp_path / "other")}
    if what == "shards":  # one more of as many rows
        settings |= {"shards": str(tmp_path / "shards")}
        write_shards(tmp_path / "shards", mesh_programs._data(), 48)
        write_shards(tmp_path / "other", mesh_programs._data(96 + 48), 48)
    processes = mesh_programs.run(
        "centres", tmp_path / "never.npz", wait=False, n_processes=2,
        per_process={"1": {what: others.get(what, 7)}}, **settings,
    )  # fmt: skip
    messages = [process.communicate(timeout=120)[1] for process in processes]
    wanted = {
        "seed": "key is",
        "data_seed": "data",
        "n_steps": "n_steps is 12 in process 0 and 7 in process 1",
        "every": "checkpoint.every is 5 in process 0 and 7 in process 1",
        "folder": "checkpoint.every is 5 in process 0 and 'nothing' in process 1",
        "shards": "data.",
    }
    assert all(process.returncode for process in processes)
    for message in messages:
        assert "fit: expected the same in all processes, but" in message
        assert wanted[what] in message


@pytest.mark.slow
def test_a_missing_piece_is_seen_and_the_checkpoint_before_is_used(tmp_path):
    folder = {"folder": str(tmp_path / "run"), "n_model": 2, "over_atoms": True, "n_devices": 2}
    mesh_programs.run("centres", tmp_path / "a.npz", n_steps=10, **folder)
    mesh_programs.damage(tmp_path / "run" / "checkpoint" / "10", is_missing=True)
    came = mesh_programs.run("centres", tmp_path / "b.npz", **folder)
    assert (tmp_path / "run" / "corrupt_checkpoint_10").exists()
    assert_same(came, mesh_programs.run("centres", tmp_path / "c.npz", without_mesh=True), 1e-5)


@pytest.mark.slow
def test_a_piece_that_one_process_cannot_read_is_used_by_none(tmp_path):
    settings = {"folder": str(tmp_path / "run"), "n_processes": 2, "n_model": 2, "over_atoms": True}
    mesh_programs.run("centres", tmp_path / "a.npz", n_steps=10, **settings)
    pieces = [
        path for path in (tmp_path / "run/checkpoint/10").rglob("ocdbt.process_1/**/*") if path.is_file()
    ]
    assert pieces
    for piece in pieces:
        piece.unlink()
    came = mesh_programs.run("centres", tmp_path / "b.npz", timeout=60, **settings)
    assert (tmp_path / "run" / "corrupt_checkpoint_10").exists()
    assert_same(came, mesh_programs.run("centres", tmp_path / "c.npz", without_mesh=True), 1e-5)


@pytest.mark.slow
def test_typed_keys_in_pieces_are_saved_and_read(tmp_path):
    settings = {"folder": str(tmp_path / "run"), "n_devices": 2, "n_keys": 4}
    mesh_programs.run("centres", tmp_path / "a.npz", n_steps=7, **settings)
    came = mesh_programs.run("centres", tmp_path / "b.npz", **settings)
    expected = mesh_programs.run("centres", tmp_path / "c.npz", without_mesh=True, n_keys=4)
    assert came["leaf 5"].shape == (4, 2)
    assert_same(came, expected, 1e-5)


@pytest.mark.slow
def test_rows_of_each_process_are_not_joined_where_two_would_give_the_same(tmp_path):
    came = mesh_programs.run("join", tmp_path / "a.npz", n_processes=2)
    np.testing.assert_array_equal(came["rows"], [[1], [1], [2], [2]])
    processes = mesh_programs.run("join", tmp_path / "b.npz", wait=False, n_processes=2, n_model=2)
    for process in processes:
        message = process.communicate(timeout=60)[1]
        assert "mesh: expected the devices at one place along 'data' in one process" in message
        assert "got processes [0, 1] at place 0" in message


@pytest.mark.slow
def test_the_others_end_when_one_is_killed(tmp_path):
    settings = {"folder": str(tmp_path / "run"), "n_steps": 400, "every": 4, "n_processes": 2, "pause": 0.1}
    processes = mesh_programs.run("centres", tmp_path / "a.npz", wait=False, **settings)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run/checkpoint/4").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes[1].kill()
    processes[1].communicate()
    processes[0].communicate(timeout=60)
    assert processes[0].returncode
