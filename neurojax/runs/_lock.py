"""One writer at a time in a folder."""

import datetime
import json
import os
import socket
import uuid
import weakref
from pathlib import Path

from .._terminal import warn
from .._untrusted import read_json

try:
    import fcntl
except ImportError:  # as on Windows
    fcntl = None

__all__ = ["FolderLock"]

_open: weakref.WeakSet["FolderLock"] = weakref.WeakSet()
_told: list[bool] = []  # of a file system without locks, once a process


def _let_go() -> None:
    """Close the locks in a forked child, which would hold them when this process has died."""
    for lock in _open:
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


class FolderLock:
    """A claim to be the only one who writes into a folder.

    The operating system's lock on a hidden file, which is freed when the process ends, however it ends. The
    file says who holds it. Where the file system has no locks, a warning says so; then, as on file systems
    that lock for each machine alone, `is_mine` tells that somebody else has claimed the folder since.
    """

    def __init__(self, folder: Path, name: str, argument: str):
        """Claim the folder.

        Args:
            folder: which exists.
            name: of the file.
            argument: that named the folder, for messages.

        Raises:
            OSError: if another process, or another call in this one, holds it; says which, since when. Also
                if the file cannot be written.
        """
        self.path, self._token, self._file = folder / name, uuid.uuid4().hex, None
        try:
            self._file = self.path.open("a+b")
            self._lock(argument)
            self._write()
        except BaseException as error:
            self.release()
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(f"{argument}: expected to be able to write {self.path} ({error}).") from error
            raise
        _open.add(self)

    def _lock(self, argument: str) -> None:
        assert self._file is not None
        try:
            if fcntl is None:
                raise OSError("this system has none")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(
                f"{argument}: expected a run that nobody else writes, but {self.path.parent} is written "
                f"{_holder(self.path)}. Wait until it ends, or give another folder."
            ) from None
        except OSError as error:
            if not _told:
                _told.append(True)
                warn(
                    f"{self.path.parent} has no file locks ({error}): take care that no other process writes "
                    "there. If one begins to, this one stops before its next save.",
                    stacklevel=4,
                )

    def _write(self) -> None:
        started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        claim = {"host": socket.gethostname(), "pid": os.getpid(), "started": started, "token": self._token}
        assert self._file is not None
        self._file.truncate(0)
        self._file.write(json.dumps(claim).encode())
        self._file.flush()

    def is_mine(self) -> bool:
        """Return whether nobody else has claimed the folder since.

        A file that was removed, or cannot be read, claims nothing.
        """
        try:
            claim = read_json(self.path)
        except (OSError, ValueError):
            return True
        return not isinstance(claim, dict) or claim.get("token") == self._token

    def release(self) -> None:
        """Give the folder up."""
        if self._file is not None:
            self._file.close()


def _holder(path: Path) -> str:
    try:
        claim = read_json(path)
        who = f"by process {claim['pid']} on {claim['host']}, since {claim['started']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "by another process"
    is_own = claim["pid"] == os.getpid() and claim["host"] == socket.gethostname()
    return who + (", which is this one" if is_own else "")
