"""Words to the user on standard error, wherever that leads: to a terminal, a file, or nowhere."""

import contextlib
import sys
import warnings

__all__ = ["is_shown", "tell", "warn"]


def is_shown(progress: bool | None) -> bool:
    """Return whether to draw a progress bar: as asked, or by default on a terminal; never with none open."""
    try:
        sys.stderr.write("")
        return bool(sys.stderr.isatty() if progress is None else progress)
    except (AttributeError, TypeError, ValueError):  # it may be absent, an object without a say, or closed
        return False


def tell(text: str) -> None:
    """Print a line to standard error, or nothing where that is absent or closed."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    # RuntimeError: a signal came while this stream was being written to.
    except (AttributeError, ValueError, OSError, RuntimeError):
        return


def warn(text: str, *, stacklevel: int) -> None:
    """Issue a ``UserWarning``; one that cannot be shown, as standard error is closed, breaks nothing."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        warnings.warn(text, stacklevel=stacklevel + 1)
