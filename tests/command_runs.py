"""Runs of commands that share what they compiled."""

import contextlib
import dataclasses

import pytest


@contextlib.contextmanager
def one_optimizer(command):
    """Give runs of a command that differ in length alone one optimizer, and so one compiled update."""
    make, made = command.make_optimizer, {}

    def make_once(settings):
        learning = dataclasses.replace(getattr(settings, "learning", settings), n_steps=1)
        if learning not in made:
            made[learning] = make(settings)
        return made[learning]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "make_optimizer", make_once)
        yield
