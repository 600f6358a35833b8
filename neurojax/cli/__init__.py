"""The command line: ``neurojax COMMAND [flags]``, a file a command."""

import importlib
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]

_COMMANDS = {
    "sparse-coding": ("_sparse_coding", "learn a dictionary of receptive fields from natural images"),
    "autoencoder": ("_autoencoder", "train an autoencoder, of six kinds, on digits or photographs"),
    "rbm": ("_rbm", "train a restricted Boltzmann machine on handwritten digits"),
    "decode": ("_decode", "decode what was shown from a population of neurons, cross-validated"),
    "encode": ("_encode", "predict a population of neurons from the images shown"),
}

_ON_ONE_DEVICE = ("decode", "encode")
_OF_DEVICES = ("--devices", "--distributed", "--model-devices")
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


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
        print(f"neurojax: command: expected one of {', '.join(_COMMANDS)}, got {name!r}.", file=sys.stderr)
        return 2
    asked = next((word.split("=")[0] for word in rest if word.split("=")[0] in _OF_DEVICES), None)
    if name in _ON_ONE_DEVICE and asked is not None:
        able = ", ".join(other for other in _COMMANDS if other not in _ON_ONE_DEVICE)
        print(f"neurojax {name}: {asked}: expected one of {able}, got {name}.", file=sys.stderr)
        return 2
    # Imported when asked for, so that --help does not wait for JAX.
    command = importlib.import_module(f".{_COMMANDS[name][0]}", __name__)
    return _run(name, command.main, rest)


def _run(name: str, command: Callable[[Sequence[str]], None], words: Sequence[str]) -> int:
    """Return the exit status of a command, having said what went wrong."""
    from ..distributed import is_main_process
    from ..training import TerminatedError

    try:
        command(words)
    except TerminatedError as error:  # which has said itself that all is saved
        if is_main_process():
            print(f"neurojax {name}: --resume {error.folder} goes on from there.", file=sys.stderr)
        return int(error.code or 0)
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        print(f"neurojax {name}: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | OSError) else 1
    except KeyboardInterrupt:
        print(f"\nneurojax {name}: interrupted; --resume goes on from the last checkpoint.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _usage() -> str:
    lines = [f"  {name:<16}{purpose}" for name, (_, purpose) in _COMMANDS.items()]
    return "\n".join(
        ["usage: neurojax COMMAND [flags]", "", *lines, "", "neurojax COMMAND --help lists its flags."]
    )
