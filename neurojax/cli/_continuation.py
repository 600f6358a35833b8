"""The run that a command has begun: who may write into it, and the command that goes on with it."""

import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["OF_DEVICES", "claim", "continuing_command", "let_go", "terminable"]

OF_DEVICES = ("--devices", "--distributed", "--model-devices")


_begun: list[tuple[Path, Any]] = []  # the folder and its lock, of the command of this process


def claim(folder: Path, flag: str) -> None:
    """Let no other command write into a run's folder until this one ends.

    Raises:
        OSError: if another command does; the message names the ``flag`` that gave the folder.
    """
    from ..runs._lock import FolderLock  # which waits for JAX

    _begun.append((folder, FolderLock(folder, ".command.lock", flag)))


def continuing_command(name: str, words: Sequence[str]) -> str | None:
    """Return what to type to go on with the run that was begun, or ``None`` where there is none."""
    if not _begun:
        return None
    return shlex.join(["neurojax", name, "--resume", str(_begun[-1][0]), *_of_devices(words)])


def _of_devices(words: Sequence[str]) -> list[str]:
    """Return the words about devices, which no run keeps."""
    kept = []
    for i, word in enumerate(words):
        if word.split("=")[0] in OF_DEVICES:
            has_value = "=" not in word and word != "--distributed"
            kept += words[i : i + 1 + has_value]
    return kept


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an error where nobody else handles it."""
    is_default = threading.current_thread() is threading.main_thread()
    is_default = is_default and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if is_default:
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if is_default:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def let_go() -> None:
    """Let others write into the run that was begun."""
    while _begun:
        _begun.pop()[1].release()


def _terminate(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)
