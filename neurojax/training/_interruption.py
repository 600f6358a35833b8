"""Ctrl-C, and SIGTERM as schedulers send it before they take a machine away: save, then leave."""

import signal
import threading
from typing import Any

from .._terminal import tell
from ..distributed import all_processes, is_main_process

__all__ = ["InterruptedRunError", "Interruption", "TerminatedError"]


class _SavedError(BaseException):
    """A run that was asked to stop, and has saved.

    Attributes:
        step: the updates made, all of them saved.
        folder: the run's folder; the same call goes on from there.
    """

    word = "stopped"

    def __init__(self, step: int, folder: str):
        super().__init__(step, folder)
        self.step, self.folder = step, folder

    def __str__(self) -> str:
        return f"{self.word}: step {self.step} is saved in {self.folder}; the same call goes on from there."


class TerminatedError(_SavedError, SystemExit):
    """The run was terminated, and has saved: where nobody catches it, the process ends with code 143.

    Attributes:
        step: the updates made, all of them saved.
        folder: the run's folder; the same call goes on from there.
    """

    word = "terminated"

    def __init__(self, step: int, folder: str):
        _SavedError.__init__(self, step, folder)
        self.code = 128 + signal.SIGTERM  # as a shell reports it


class InterruptedRunError(_SavedError, KeyboardInterrupt):
    """The run was interrupted by Ctrl-C, and has saved; a ``KeyboardInterrupt``.

    Attributes:
        step: the updates made, all of them saved.
        folder: the run's folder; the same call goes on from there.
    """

    word = "interrupted"


_ERRORS = {signal.SIGTERM: TerminatedError, signal.SIGINT: InterruptedRunError}


class Interruption:
    """A context in which signals are kept for the loop to ask for; in any process they are meant for all.

    A second Ctrl-C is not kept: it interrupts at once.
    """

    def __init__(self, *, is_watched: bool):
        """Watch, if asked to, where signals can be watched: in the main thread."""
        self.is_watched = is_watched
        self._is_mine = is_watched and threading.current_thread() is threading.main_thread()
        self._came: int = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        """Begin to watch, but for signals that this process was told to ignore."""
        for number in _ERRORS if self._is_mine else ():
            # One that a program around Python handles is its own.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Give the signals back, with what came too late to be asked for; say what happened."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(error, _SavedError) and is_main_process():
            tell(str(error))
        if self._came and (error is None or isinstance(error, Exception)):
            signal.raise_signal(self._came)

    def asked(self) -> type[_SavedError] | None:
        """Return what to raise if a signal came, in this process or in another. Collective."""
        came = next((each for each in all_processes(self._came) if each), 0) if self.is_watched else 0
        return _ERRORS[signal.Signals(came)] if came else None

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if self._came == signal.SIGINT:
                raise KeyboardInterrupt
            tell("interrupted: the steps under way are finished and saved; Ctrl-C again leaves at once.")
        self._came = number
