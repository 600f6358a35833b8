"""Runs of commands that share what they compiled, and what a run prints and draws."""

import contextlib
import dataclasses
import io

import numpy as np
import pytest
from saved_figures import keep_figures

from neurojax import data


def write_digits(folder, n_rows):
    """Write the first digits, every other pixel, as grey images of 14 by 14; return the file."""
    np.save(folder / "digits.npy", np.asarray(data.mnist_subset("train").images[:n_rows])[:, ::2, ::2])
    return folder / "digits.npy"


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


def watch(command, run, written=()):
    """Run a command; return its output, its errors, its figures, and what it gave to be drawn."""
    drawn, draw, out, err = [], command.draw, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, keep_figures(*written) as kept:
        patch.setattr(command, "draw", lambda *args: drawn.append(args) or draw(*args))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert run() == 0, err.getvalue()
    (given,) = drawn
    return out.getvalue(), err.getvalue(), kept.figures, given
