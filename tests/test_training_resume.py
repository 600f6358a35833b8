"""Checkpoints: bit-exact resume after SIGKILL, damaged, foreign and changed runs."""

import random
import shutil
import signal
import subprocess
import sys
import time
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import killed_training
import numpy as np
import optax
import pytest
from orbax.checkpoint import CheckpointManager
from training_runs import DISTANCE, ROWS, Counting, Distance, n_rows, newest, rows_of, same, simple, watch

from neurojax.distributed import make_mesh
from neurojax.training import Checkpoint, Evaluation, NonFiniteLossError
from neurojax.training._checkpoint import CheckpointStore


@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_iterator_goes_on_from_its_position(tmp_path, as_bytes):
    settings = {"objective": watch, "state": jnp.zeros((3, 2)), "checkpoint": Checkpoint(tmp_path, 2)}
    simple(data=Counting(as_bytes=as_bytes), n_steps=4, **settings)
    resumed = simple(data=Counting(as_bytes=as_bytes), n_steps=7, **settings)
    np.testing.assert_array_equal(resumed.state[:, 0], [4, 5, 6])


def test_a_position_that_cannot_be_stored_is_named(tmp_path):
    class Odd(Counting):
        def get_state(self):
            return {"position": {self.position}}

    with pytest.raises(ValueError, match=r"data: expected a get_state that returns bytes or what JSON"):
        simple(data=Odd(), checkpoint=Checkpoint(tmp_path, 2))


@pytest.fixture(scope="module")
def uninterrupted():
    return killed_training.run(None)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, uninterrupted):
    with subprocess.Popen([sys.executable, killed_training.__file__, str(tmp_path)]) as process:
        wait_for_a_checkpoint(tmp_path, process)
        time.sleep(random.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert 0 < newest(tmp_path) < killed_training.N_STEPS
    assert n_rows(tmp_path) <= newest(tmp_path)
    assert same(*map(killed_training.numbers, (killed_training.run(tmp_path), uninterrupted)))
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, killed_training.N_STEPS + 1))


def assert_begins(whole, result):
    """Assert that every series of a shorter run is the beginning of the whole run's, bit for bit."""
    for name, series in result.history.to_arrays().items():
        assert len(series) > 0 and same([series], [whole.history.to_arrays()[name][: len(series)]])


class Died(BaseException):
    """What stands for the process's end."""


def die(*arguments, **options):
    raise Died


def save_and_die(*arguments, save=CheckpointManager.save, **options):
    save(*arguments, **options)
    raise Died


@pytest.mark.parametrize(
    ("owner", "name", "death", "step", "rows"),
    [
        (CheckpointManager, "save", die, 11, 11),
        (CheckpointManager, "save", save_and_die, 22, 11),
        (CheckpointStore, "_rewrite_metrics", die, 22, 22),
        (CheckpointStore, "_set_aside", die, 22, 11),
    ],
)
def test_metrics_are_never_ahead_of_the_checkpoint(
    tmp_path, monkeypatch, uninterrupted, owner, name, death, step, rows
):
    """Die before a checkpoint is written, after it, and at two places of a resume from a corrupt one."""
    killed_training.run(tmp_path, n_steps=11)
    if owner is CheckpointStore:
        killed_training.run(tmp_path, n_steps=22)
        shutil.rmtree(tmp_path / "checkpoint" / "22" / "arrays")
    with monkeypatch.context() as patch, warnings.catch_warnings(), pytest.raises(Died):
        warnings.simplefilter("ignore")
        patch.setattr(owner, name, death)
        killed_training.run(tmp_path, n_steps=33)
    assert (newest(tmp_path), n_rows(tmp_path)) == (step, rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_begins(uninterrupted, killed_training.run(tmp_path, n_steps=33))
    np.testing.assert_array_equal([row["step"] for row in rows_of(tmp_path)], 1 + np.arange(33))


def wait_for_a_checkpoint(folder, process):
    deadline = time.monotonic() + 90
    while newest(folder) == 0:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_finished_run_continues_to_more_steps(tmp_path, uninterrupted):
    for n_steps in (50, 51, killed_training.N_STEPS, killed_training.N_STEPS):
        result = killed_training.run(tmp_path, n_steps=n_steps)
        assert len(result.history) == n_steps
    assert same(*map(killed_training.numbers, (result, uninterrupted)))
    rows = rows_of(tmp_path)
    np.testing.assert_array_equal([row["loss"] for row in rows], result.history["loss"].astype(float))
    assert rows[8]["evaluation/loss"] == result.history.evaluation["loss"][0]


def overwrite(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size > 100:
            path.write_bytes(path.read_bytes()[:-60] + bytes(60))


def truncate(folder):
    path = max((folder / "arrays").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    path.write_bytes(path.read_bytes()[:-60])


def edit_description(old, new):
    def edit(folder):
        path = folder / "meta" / "metadata"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        overwrite,
        lambda folder: (folder / "meta" / "metadata").unlink(),
        edit_description('"step": 50', '"step": 40'),
        pytest.param(truncate, marks=pytest.mark.slow),
        pytest.param(
            edit_description('"batch_size": {"value": 5', '"batch_size": {"value": 4'), marks=pytest.mark.slow
        ),
    ],
)
def test_a_corrupt_checkpoint_is_reported_and_the_one_before_used(tmp_path, uninterrupted, damage):
    killed_training.run(tmp_path, n_steps=50)
    damage(tmp_path / "checkpoint" / "50")
    with pytest.warns(UserWarning, match=r"checkpoint of step 50 in .* is corrupt .* the one before it"):
        result = killed_training.run(tmp_path, n_steps=60)
    assert_begins(uninterrupted, result)
    assert (tmp_path / "corrupt_checkpoint_50").is_dir()


def test_only_corrupt_checkpoints_are_an_error_and_stay(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=3)
    simple(checkpoint=checkpoint)
    for step in ("3", "6"):
        shutil.rmtree(tmp_path / "checkpoint" / step / "arrays")
    with (
        pytest.warns(UserWarning, match="corrupt"),
        pytest.raises(RuntimeError, match=r"expected a checkpoint that can be read in .*steps \[6, 3\]"),
    ):
        simple(checkpoint=checkpoint, n_steps=9)
    assert newest(tmp_path) == 6


def test_a_checkpoint_that_another_process_replaces_is_looked_for_again(tmp_path, uninterrupted, monkeypatch):
    killed_training.run(tmp_path, n_steps=50)
    look, gone = CheckpointStore._steps, [[45]]
    monkeypatch.setattr(CheckpointStore, "_steps", lambda self: gone.pop() if gone else look(self))
    with pytest.warns(UserWarning, match=r"checkpoint of step 45 in .* is corrupt"):
        result = killed_training.run(tmp_path, n_steps=60)
    assert not gone
    assert_begins(uninterrupted, result)


def test_a_foreign_checkpoint_is_refused_with_the_first_mismatch(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=3)
    simple(checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"model: the array differs, \[0, 0\] before and \[0\] now"):
        simple(jnp.zeros(1), checkpoint=checkpoint, n_steps=9)
    with pytest.raises(ValueError, match=r"optimizer: 0 arrays before and 3 now"):
        simple(optimizer=optax.adam(0.1), checkpoint=checkpoint, n_steps=9)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"checkpoint": {"settings": {"seed": 1}}}, "settings: seed from 0 to 1"),
        ({"batch_size": 3}, r"changed: batch_size: from 2 to 3\. Give"),
        ({"key": jax.random.key(1)}, r"key: from \[0, 0\] to \[0, 1\]"),
        (
            {"objective": Distance(jnp.array(2.0))},
            r"objective: leaf .strength differs, 1 before and 2 now",
        ),
        ({"data": ROWS + 1}, "changed: data: the array differs. Give"),
        ({"evaluate": Evaluation(dict, every=5)}, r"evaluate: from None to \[5, None, False\]"),
        ({"after_update": lambda m, o, s, *_: (m, o, s)}, "after_update: is new"),
        ({"data": lambda key: ROWS, "batch_size": None}, "data: 1 arrays before and 0 now"),
    ],
)
def test_a_resume_with_changed_settings_says_which(tmp_path_factory, changed, message):
    folder = tmp_path_factory.getbasetemp() / "settings"
    settings = {"settings": {"seed": 0, "n_steps": 6}}
    simple(batch_size=2, checkpoint=Checkpoint(folder, every=3, **settings))
    settings = {"settings": {"seed": 0, "n_steps": 9}} | changed.pop("checkpoint", {})
    with pytest.raises(ValueError, match=message):
        simple(**({"batch_size": 2, "n_steps": 9, "checkpoint": Checkpoint(folder, 3, **settings)} | changed))


def test_a_setting_explains_a_difference_of_shapes(tmp_path):
    simple(checkpoint=Checkpoint(tmp_path, every=3, settings={"n_units": 2}))
    with pytest.raises(
        ValueError, match=r"these changed: settings: n_units from 2 to 1; model: .* \[0\] now\. Give"
    ):
        simple(jnp.zeros(1), checkpoint=Checkpoint(tmp_path, every=3, settings={"n_units": 1}))


def test_fewer_steps_than_taken_are_refused(tmp_path):
    simple(checkpoint=Checkpoint(tmp_path, every=3))
    with pytest.raises(ValueError, match=r"n_steps: expected at least 6, .* got 5"):
        simple(checkpoint=Checkpoint(tmp_path, every=3), n_steps=5)


def test_an_unwritable_folder_is_named_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "run"
    with pytest.raises(OSError, match=rf"checkpoint.folder: expected a writable folder, got {folder}"):
        simple(checkpoint=Checkpoint(folder, every=3))


def test_a_checkpoint_that_cannot_be_written_is_named(tmp_path):
    def spoil(step, *_):
        shutil.rmtree(tmp_path / "checkpoint")
        (tmp_path / "checkpoint").write_text("")

    with pytest.raises(OSError, match=r"it is no longer there. Step 6 is not saved; .* is of step 3"):
        simple(checkpoint=Checkpoint(tmp_path, every=3), callback=spoil)
    assert n_rows(tmp_path) == 3


def test_other_metrics_than_before_are_refused(tmp_path):
    def objective(metrics):
        return lambda model, state, batch, key: (jnp.sum(model**2), (state, metrics))

    simple(objective=objective({}), n_steps=6, checkpoint=Checkpoint(tmp_path, 3))
    allowed = Checkpoint(tmp_path, 3, may_change=("objective",))
    with pytest.raises(ValueError, match=r"objective: metrics: expected \['loss'\] as before, got"):
        simple(objective=objective({"rate": 1.0}), n_steps=9, checkpoint=allowed)


def test_sigterm_in_the_last_block_is_not_lost(tmp_path):
    settings = {"checkpoint": Checkpoint(tmp_path, 100)}
    with pytest.raises(SystemExit) as ended:
        simple(callback=lambda *_: signal.raise_signal(signal.SIGTERM), **settings)
    assert ended.value.code == 143
    assert newest(tmp_path) == 6
    assert len(simple(**settings).history) == 6


def test_checkpoints_of_another_version_are_refused_and_stay(tmp_path):
    simple(checkpoint=Checkpoint(tmp_path, 3))
    for path in tmp_path.glob("checkpoint/*/meta/*"):
        path.write_text(path.read_text().replace("neurojax training 3", "neurojax training 2"))
    with pytest.raises(
        ValueError,
        match=r"format 'neurojax training 3' .* got 'neurojax training 2', .*with the version that began",
    ):
        simple(checkpoint=Checkpoint(tmp_path, 3))
    assert newest(tmp_path) == 6


def test_metrics_that_cannot_be_written_are_told_with_what_is_safe(tmp_path):
    def block(*_):
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        (tmp_path / "metrics.jsonl").mkdir(exist_ok=True)

    with pytest.raises(OSError, match=r"metrics.jsonl could not be written .* checkpoint of step 6 is whole"):
        simple(checkpoint=Checkpoint(tmp_path, 3), callback=block, steps_per_block=3)


def test_old_checkpoints_are_removed(tmp_path):
    simple(checkpoint=Checkpoint(tmp_path, every=1, keep=3))
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == ["4", "5", "6"]


def wander(model, state, batch, key):
    """Move every entry of the state, each in its own type."""
    new, now = jax.random.split(state["key"])
    moved = {name: jnp.asarray(x * 1.1 + 1, x.dtype) for name, x in state.items() if name != "key"}
    loss = jnp.sum((model - batch) ** 2) + jax.random.normal(now)
    return loss, ({**moved, "key": new}, {name: state[name][0] for name in ("int32", "bool", "bfloat16")})


@pytest.mark.parametrize("is_double", [pytest.param(False, marks=pytest.mark.slow), True])
def test_states_of_every_type_come_back_bit_for_bit(tmp_path, is_double):
    with jax.enable_x64(is_double):
        types = ("int32", "uint8", "bool", "float16", "bfloat16", "float32", "complex64")
        types += ("float64", "int64") if is_double else ()
        state = {name: jnp.ones(2, name) for name in types} | {"empty": jnp.zeros((0, 3), jnp.int8)}
        settings = {
            "objective": wander,
            "state": state | {"key": jax.random.key(5)},
            "data": np.asarray(ROWS, float),
            "optimizer": optax.adam(0.1),
        }
        whole = simple(n_steps=8, **settings)
        for n_steps in (3, 8):
            parts = simple(n_steps=n_steps, checkpoint=Checkpoint(tmp_path, 2), **settings)
        assert eqx.tree_equal(whole[:3], parts[:3], typematch=True)
    assert parts.state["int32"].dtype == jnp.int32 and int(parts.state["int32"][0]) > 8
    assert same(*(list(result.history.to_arrays().values()) for result in (whole, parts)))


def test_numpy_integers_will_do(untyped, tmp_path):
    evaluate = Evaluation(lambda *_: {"loss": 1.0}, np.int32(2))
    for n_steps in np.array([3, 6]):
        checkpoint = Checkpoint(tmp_path, np.int64(2))
        result = simple(n_steps=n_steps, batch_size=np.int64(2), evaluate=evaluate, checkpoint=checkpoint)
    assert len(result.history) == 6


def test_a_lock_is_let_go_of_when_a_run_cannot_begin(tmp_path, monkeypatch):
    kept = []
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "_open", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError) as raised:
            simple(checkpoint=Checkpoint(tmp_path, 2))
        kept.append(raised.value)  # as a notebook keeps it
    assert len(simple(checkpoint=Checkpoint(tmp_path, 2)).history) == 6


def test_what_people_tidy_up_stops_no_run(tmp_path):
    def tidy(step, *_):
        (tmp_path / ".training.lock").unlink(missing_ok=True)
        if step == 4:
            shutil.rmtree(tmp_path / "checkpoint" / "4")
            (tmp_path / "checkpoint" / "7").write_text("a note")

    result = simple(checkpoint=Checkpoint(tmp_path, 2), callback=tidy, steps_per_block=2)
    assert len(result.history) == 6 and (tmp_path / "checkpoint" / "6").is_dir()


def test_termination_is_not_forgotten_for_an_error(tmp_path, monkeypatch):
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("asked"))

    def callback(*_):
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("a fault of its own")

    with pytest.raises(ValueError, match="a fault of its own"):
        simple(checkpoint=Checkpoint(tmp_path, 2), callback=callback)
    signal.signal(signal.SIGTERM, before)
    assert came == ["asked"]


def test_a_state_that_begins_infinite_may_not_become_nan():
    def objective(model, state, batch, key):
        return DISTANCE(model, None, batch, key)[0], (state - jnp.inf, {})

    with pytest.raises(NonFiniteLossError, match="step 1: expected a finite state, got nan"):
        simple(objective=objective, state=jnp.array([jnp.inf, 0]))


def test_objectives_may_need_the_mesh(tmp_path):
    mesh = make_mesh()

    def objective(model, state, batch, key):
        batch = jax.lax.with_sharding_constraint(batch, jax.sharding.PartitionSpec("data"))
        return DISTANCE(model, state, batch, key)

    for n_steps in (2, 4):
        simple(objective=objective, mesh=mesh, n_steps=n_steps, checkpoint=Checkpoint(tmp_path, 2))
    assert newest(tmp_path) == 4
