"""The command line: ``neurojax COMMAND [flags]``, a file a command."""

import importlib
import signal
import sys
from collections.abc import Sequence

from .._terminal import tell
from ._continuation import OF_DEVICES, continuing_command, let_go, terminable

__all__ = ["main"]

_COMMANDS = {
    "sparse-coding": ("_sparse_coding", "learn a dictionary of receptive fields from natural images"),
    "autoencoder": ("_autoencoder", "train an autoencoder, of six kinds, on digits or photographs"),
    "rbm": ("_rbm", "train a restricted Boltzmann machine on handwritten digits"),
    "decode": ("_decode", "decode what was shown from a population of neurons, cross-validated"),
    "encode": ("_encode", "predict a population of neurons from the images shown"),
}

_ON_ONE_DEVICE = ("decode", "encode")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after ``neurojax``; ``None`` takes those of the process.

    Returns:
        The exit status: 0, 1 for a run that broke, 2 for arguments that cannot work, 130 if interrupted, 143
        if terminated.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    name, *rest = words
    if name == "--version":
        from .. import __version__

        print(f"neurojax {__version__}")
        return 0
    if name not in _COMMANDS:
        tell(f"neurojax: command: expected one of {', '.join(_COMMANDS)}, got {name!r}.")
        return 2
    asked = next((word.split("=")[0] for word in rest if word.split("=")[0] in OF_DEVICES), None)
    if name in _ON_ONE_DEVICE and asked is not None:
        able = ", ".join(other for other in _COMMANDS if other not in _ON_ONE_DEVICE)
        tell(f"neurojax {name}: {asked}: expected one of {able}, got {name}.")
        return 2
    return _run(name, rest)


def _run(name: str, words: Sequence[str]) -> int:
    """Return the exit status of a command, having said what went wrong and how to go on."""
    try:
        with terminable():
            # Imported when asked for, so that --help does not wait for JAX.
            importlib.import_module(f".{_COMMANDS[name][0]}", __name__).main(words)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        tell(f"neurojax {name}: {error}")
        return 2 if isinstance(error, ValueError | OSError) else 1
    except KeyboardInterrupt:
        _say_how_to_go_on(name, words, "interrupted")
        return 128 + signal.SIGINT  # as a shell reports it
    except SystemExit as error:
        if error.code != 128 + signal.SIGTERM:
            raise
        _say_how_to_go_on(name, words, "terminated")
        return 128 + signal.SIGTERM
    finally:
        let_go()
    return 0


def _say_how_to_go_on(name: str, words: Sequence[str], what: str) -> None:
    from ..distributed import is_main_process

    if not is_main_process():
        return
    command = continuing_command(name, words)
    if command is None:
        begins = "goes on" if any(word.split("=")[0] == "--resume" for word in words) else "begins again"
        tell(f"neurojax {name}: {what} before anything was saved; the same command {begins}.")
    else:
        tell(f"neurojax {name}: {what}. This goes on: {command}")


def _usage() -> str:
    lines = [f"  {name:<16}{purpose}" for name, (_, purpose) in _COMMANDS.items()]
    return "\n".join(
        ["usage: neurojax COMMAND [flags]", "", *lines, "", "neurojax COMMAND --help lists its flags."]
    )
