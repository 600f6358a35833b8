"""Writing files so that nothing is ever seen half written."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    """Let ``write`` fill a temporary binary file beside ``path``, then put it in the place of ``path``."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
