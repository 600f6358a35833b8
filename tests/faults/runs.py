"""Faults of training runs and their folders, each with the input that showed it and its right value."""

import asyncio
import dataclasses
import datetime
import decimal
import functools
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import DISTANCE, ROWS, Counting, n_rows, newest, rows_of, simple

from neurojax.data import ShardedRows, load_images, read_array, write_shards
from neurojax.runs import _lock as locks
from neurojax.runs import create_run, load, open_run, plain_settings, save
from neurojax.training import Checkpoint, InterruptedRunError, NonFiniteLossError


def end(model, folder, **changed):
    return simple(jnp.full(2, model), n_steps=4, checkpoint=Checkpoint(folder, 2), **changed).model


def test_C29_a_run_is_not_resumed_as_another(tmp_path):
    expected = end(0.0, tmp_path)
    with pytest.raises(ValueError, match=r"model: the array differs, \[0, 0\] before and \[100, 100\] now"):
        end(100.0, tmp_path)
    with pytest.raises(ValueError, match=r"optimizer: computes with other numbers: -0.1 before and -0.3 now"):
        end(0.0, tmp_path, optimizer=optax.sgd(0.3))

    def objective(scale):
        return lambda model, state, batch, key: (scale * DISTANCE(model, state, batch, key)[0], (state, {}))

    end(0.0, tmp_path / "plain", objective=objective(1.0))
    with pytest.raises(ValueError, match="objective: computes "):
        end(0.0, tmp_path / "plain", objective=objective(2.0))
    with pytest.warns(UserWarning, match="had taken all its steps; it is returned as it is"):
        np.testing.assert_array_equal(end(0.0, tmp_path), expected)


def breaking(model, state, batch, key):
    """Carry a number that overflows at the fifth update, while loss and model stay finite."""
    return DISTANCE(model, None, batch, key)[0], (state * 1e10, {})


def test_C30_numbers_that_break_anywhere_in_the_learner_are_not_saved(tmp_path):
    with pytest.raises(NonFiniteLossError, match=r"step 4: expected a finite state, got inf; .* step 2 in"):
        simple(
            objective=breaking, state=jnp.float32(1), n_steps=9, steps_per_block=50,
            checkpoint=Checkpoint(tmp_path, 2),
        )  # fmt: skip
    assert (newest(tmp_path), n_rows(tmp_path)) == (2, 2)

    def broken_update(updates, state, params=None):
        count = state["count"]
        return updates, {"count": count + 1, "memory": state["memory"] + 1 / (2 - count)}

    started = {"count": jnp.zeros(()), "memory": jnp.zeros(())}
    optimizer = optax.GradientTransformation(lambda params: started, broken_update)
    with pytest.raises(NonFiniteLossError, match=r"step 3: expected a finite opt_state\['memory'\], got inf"):
        simple(model=jnp.zeros(2), optimizer=optimizer, n_steps=9)
    for data, batch_size in ((Counting(), None), (ROWS, 2)):
        with pytest.raises(NonFiniteLossError) as raised:
            simple(objective=breaking, state=jnp.float32(1), data=data, batch_size=batch_size, n_steps=9)
        assert (raised.value.step, raised.value.metric) == (4, "state")


def test_C30_a_state_that_begins_infinite_may_stay_so(tmp_path):
    """Optax's plateau keeps the best loss so far, which begins at infinity."""
    optimizer = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(accumulation_size=4))
    result = simple(optimizer=optimizer, n_steps=6, checkpoint=Checkpoint(tmp_path, 1))
    assert newest(tmp_path) == 6 and np.all(np.isfinite(result.model))


@pytest.mark.parametrize("has_locks", [True, False])
def test_C31_one_call_at_a_time_writes_into_a_folder(tmp_path, monkeypatch, has_locks):
    """A second call, begun while the first was at step 2, either is refused or takes the folder over."""
    monkeypatch.setattr(locks, "fcntl", locks.fcntl if has_locks else None)
    monkeypatch.setattr(locks, "_told", [])
    ends = []

    def begin_another(step, *_):
        if step == 2 and not ends:
            try:
                ends.append(simple(n_steps=6, checkpoint=Checkpoint(tmp_path, 2)).model)
            except OSError as error:
                ends.append(str(error))

    def first():
        return simple(n_steps=6, checkpoint=Checkpoint(tmp_path, 2), callback=begin_another)

    if has_locks:
        result = first()
        assert f"written by process {os.getpid()} on " in ends[0] and "which is this one" in ends[0]
    else:
        with (
            pytest.warns(UserWarning, match="has no file locks"),
            pytest.raises(OSError, match=r"another process has begun to write .* the last one is of step 2"),
        ):
            first()
        (model,) = ends
        result = simple(n_steps=6, checkpoint=Checkpoint(tmp_path, 2))
        np.testing.assert_array_equal(result.model, model)
    np.testing.assert_array_equal(result.model, simple(n_steps=6).model)
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_C31_a_step_that_another_process_saved_stops_this_one(tmp_path):
    def save_another(step, *_):
        (tmp_path / "checkpoint" / "3").mkdir(exist_ok=True)

    with pytest.raises(OSError, match=r"another process has saved there, at step 3\. Step 4 is not saved"):
        simple(n_steps=6, checkpoint=Checkpoint(tmp_path, 2), callback=save_another, steps_per_block=2)


NAMES = [
    "lr=[0.1]", "a[!b]*?", "back\\slash", "gs:", "x:y", "quote's\"", "new\nline", "%41#?&;$",
    "é日\U0001f600", "-x", "b" * 255,
]  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES[:4], *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES[4:])])
def test_C32_a_folder_may_have_any_name(tmp_path, name, monkeypatch):
    for n_steps in (2, 4):
        result = simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path / name, 2))
    np.testing.assert_array_equal(result.model, simple(n_steps=4).model)
    assert newest(tmp_path / name) == 4
    save(tmp_path / name / name, {"w": jnp.ones(2)})
    assert np.sum(load(tmp_path / name / name, {"w": jnp.zeros(2)})["w"]) == 2


def test_C32_home_folders_links_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    assert create_run("~/runs", "first", {}).path == tmp_path / "home" / "runs" / "first"
    assert open_run("~/runs/first").read_config() == {}
    for n_steps, folder in enumerate(["~/run", "home/run", "./home/../home/run"], start=2):
        simple(n_steps=n_steps, checkpoint=Checkpoint(folder, 1))
    assert newest(tmp_path / "home" / "run") == 4 and not (tmp_path / "~").exists()
    np.save(tmp_path / "home" / "rows.npy", np.ones((3, 4, 5), np.float32))
    assert load_images("~/rows.npy").shape == read_array("~/rows.npy").shape == (3, 4, 5)
    assert len(write_shards("~/shards", np.ones((3, 2)), 2)) == len(ShardedRows("~/shards")) == 3
    (tmp_path / "link").symlink_to("home/model.npz")
    save("link", {"w": jnp.ones(2)})
    assert (tmp_path / "link").is_symlink() and (tmp_path / "home" / "model.npz").is_file()
    assert np.sum(load("~/model.npz", {"w": jnp.zeros(2)})["w"]) == 2


@pytest.mark.parametrize(
    "value",
    [
        {1, 2}, frozenset(), b"bytes", decimal.Decimal("0.1"), datetime.date(2020, 1, 1), lambda x: x,
        functools.partial(print), range(3), {1: "a"}, {"inner": [object()]}, 10**5000, np.datetime64("2020"),
        np.array([object()]), iter([]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_C33_settings_that_json_cannot_keep_are_refused_by_name(tmp_path, value):
    with pytest.raises(ValueError, match=r"^optimizer\.rates(\.inner)?(\[0\])*: expected .* got "):
        plain_settings({"optimizer": {"rates": value}})
    with pytest.raises(ValueError, match=r"rates"):
        simple(checkpoint=Checkpoint(tmp_path, 2, settings={"rates": value}))
    assert not list(tmp_path.iterdir())


@dataclasses.dataclass
class Config:
    path: pathlib.Path = pathlib.Path("a/b")
    rates: tuple = (1e-3, float("inf"), True, None, 10**30)


def test_C33_settings_that_json_keeps_come_back(tmp_path):
    kept = {"path": "a/b", "rates": [1e-3, float("inf"), True, None, 10**30]}
    assert plain_settings(Config()) == kept == create_run(tmp_path, "run", Config()).read_config()
    others = {"x": np.float32(0.5), "y": jnp.arange(2), "z": "\udcff", "f": np.sin, "c": dict, "n": np.nan}
    read = create_run(tmp_path, "run", others).read_config()
    assert {**read, "n": 0} == {"x": 0.5, "y": [0, 1], "z": "\udcff", "f": "sin", "c": "dict", "n": 0}


class NoTerminal:
    def write(self, text):
        return len(text)


@pytest.mark.parametrize("kind", ["absent", "closed", "no terminal"])
@pytest.mark.parametrize("progress", [None, True])
def test_C34_standard_error_may_be_anything(tmp_path, monkeypatch, kind, progress):
    stream = {"absent": None, "closed": io.StringIO(), "no terminal": NoTerminal()}[kind]
    if kind == "closed":
        stream.close()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        for n_steps in (2, 4, 4):
            simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path, 2), progress=progress)
    assert newest(tmp_path) == 4


def test_C34_event_loops_and_threads_may_run(tmp_path):
    async def run():
        return simple(n_steps=4, checkpoint=Checkpoint(tmp_path / "loop", 2))

    expected, came = simple(n_steps=4).model, [asyncio.run(run()).model]

    def in_thread(number):
        came.append(simple(n_steps=4, checkpoint=Checkpoint(tmp_path / f"{number}", 2)).model)

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(came) == 3 and all(np.array_equal(model, expected) for model in came)


def test_C35_the_interrupt_key_saves(tmp_path, capfd):
    kept = {"checkpoint": Checkpoint(tmp_path, 100), "steps_per_block": 2}

    def interrupt(step, *_):
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedRunError) as raised:
        simple(callback=interrupt, **kept)
    assert isinstance(raised.value, KeyboardInterrupt) and (raised.value.step, newest(tmp_path)) == (2, 2)
    assert "interrupted: step 2 is saved in" in capfd.readouterr().err
    np.testing.assert_array_equal(simple(**kept).model, simple().model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_C35_a_second_time_it_leaves_at_once(tmp_path):
    def interrupt_twice(*_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as raised:
        simple(callback=interrupt_twice, checkpoint=Checkpoint(tmp_path, 100), steps_per_block=2)
    assert not isinstance(raised.value, InterruptedRunError) and newest(tmp_path) == 0


FULL = """
import resource, sys
from training_runs import simple
from neurojax.training import Checkpoint
def fill(step, *_):
    if step == 4:  # what is written from now on is as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    simple(n_steps=8, checkpoint=Checkpoint(sys.argv[1], 2), callback=fill, steps_per_block=2)
except OSError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_full_disk_names_the_last_good_state(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert "checkpoint of step 6 could not be written" in done.stdout and "is of step 4" in done.stdout
    assert (newest(tmp_path), n_rows(tmp_path)) == (4, 4)
    np.testing.assert_array_equal(
        simple(n_steps=8, checkpoint=Checkpoint(tmp_path, 2)).model, simple(n_steps=8).model
    )


def test_a_folder_that_vanishes_names_the_last_good_state(tmp_path):
    def take_away(step, *_):
        if step == 4:
            (tmp_path / "run").rename(tmp_path / "elsewhere")

    with pytest.raises(OSError, match=r"it is no longer there\. Step 6 is not saved; .* is of step 4"):
        simple(n_steps=8, checkpoint=Checkpoint(tmp_path / "run", 2), callback=take_away, steps_per_block=2)
    result = simple(n_steps=8, checkpoint=Checkpoint(tmp_path / "elsewhere", 2))
    np.testing.assert_array_equal(result.model, simple(n_steps=8).model)


FORK = """
import os, sys, time
from pathlib import Path
from neurojax.runs import _lock as locks
lock = locks.FolderLock(Path(sys.argv[1]), ".lock", "folder")
if os.fork() == 0:
    time.sleep(5)
    os._exit(0)
time.sleep(1)  # until the child has begun
lock.release()
locks.FolderLock(Path(sys.argv[1]), ".lock", "folder").release()
print("free")
"""


@pytest.mark.slow
def test_C31_a_forked_child_does_not_hold_the_lock(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "free\n", done.stderr
