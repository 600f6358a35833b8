"""SIGTERM, as schedulers send it before they take a machine away: save, then leave."""

import signal
import sys
import threading
from typing import Any

from neurojax.distributed import any_process, is_main_process

__all__ = ["TerminatedError", "Termination"]

_CODE = 128 + signal.SIGTERM  # as a shell reports it


class TerminatedError(SystemExit):
    """The run was asked to stop, and has saved: where nobody catches it, the process ends with code 143.

    Attributes:
        step: the updates made, all of them saved.
        folder: the run's folder; the same call goes on from there.
    """

    def __init__(self, step: int, folder: str):
        super().__init__(_CODE)
        self.step, self.folder = step, folder

    def __str__(self) -> str:
        return f"terminated: step {self.step} is saved in {self.folder}; the same call goes on from there."


class Termination:
    """A context in which SIGTERM is kept for the loop to ask for; in any process it is meant for all."""

    def __init__(self, *, is_watched: bool):
        """Watch, if asked to, where signals can be watched: in the main thread."""
        self.is_watched = is_watched
        self._is_mine = is_watched and threading.current_thread() is threading.main_thread()
        self._came, self._before = False, None

    def __enter__(self) -> "Termination":
        """Begin to watch."""
        if self._is_mine:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Give the signal back to who had it, with what came too late to be asked for; say what happened."""
        if self._is_mine:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
        if isinstance(error, TerminatedError) and is_main_process():
            print(error, file=sys.stderr, flush=True)
        if self._came and error is None:
            signal.raise_signal(signal.SIGTERM)

    def is_asked(self) -> bool:
        """Return whether the signal came, in this process or in another."""
        return self.is_watched and any_process(self._came)

    def _note(self, *_: Any) -> None:
        self._came = True
