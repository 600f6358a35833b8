"""Paths as users write them."""

from pathlib import Path

__all__ = ["user_path"]


def user_path(path: str | Path) -> Path:
    """Return a path with its leading ``~`` replaced by the home folder, where there is such a home folder."""
    path = Path(path)
    try:
        return path.expanduser()
    except RuntimeError:
        return path
