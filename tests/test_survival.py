"""A few of the trials of `survival`, which makes as many as it is asked for."""

import signal

import pytest
import survival

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("has_locks", [True, False])
def test_runs_that_are_started_twice_end_as_one(has_locks):
    counts = survival.double_starts(2, has_locks=has_locks)
    assert sum(counts.values()) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_scripts_that_are_interrupted_go_on(number):
    assert sum(survival.interrupted_scripts(2, number).values()) == 2


def test_commands_say_how_they_go_on():
    assert sum(survival.interrupted_commands(2, "encode", signal.SIGINT).values()) == 2


def test_a_notebook_cell_that_is_interrupted_goes_on():
    pytest.importorskip("ipykernel")
    pytest.importorskip("jupyter_client")
    assert sum(survival.interrupted_cells(2).values()) == 2
