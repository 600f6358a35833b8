"""Writing files so that nothing is ever seen half written."""

import os
import stat
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._paths import user_path

__all__ = ["check_writable", "write_atomically"]


def check_writable(name: str, folder: Path) -> None:
    """Make a folder if need be, and raise ``OSError`` that names it unless a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"{name}: expected a writable folder, got {folder} ({error.strerror}).") from error


def write_atomically(path: Path, write: Callable[[Any], None]) -> None:
    """Let ``write`` fill a temporary binary file beside ``path``, then put it in the place of ``path``.

    A symbolic link stays one: the file that it names is replaced, and keeps its permissions.
    """
    try:
        path = user_path(path).resolve()
    except RuntimeError as error:  # links that lead in a circle
        raise OSError(f"{path}: expected a path to a file ({error}).") from error
    if path.exists() and not path.is_file():
        raise OSError(f"{path}: expected a file or nothing there, got a folder, a pipe or a device.")
    # A short name of its own: that of the file may be as long as names can be.
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
