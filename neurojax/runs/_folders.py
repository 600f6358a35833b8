"""Run folders: where the settings, metrics, checkpoints and pictures of a run lie."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from .._paths import user_path
from .._untrusted import read_json, read_json_lines
from ._settings import plain_settings
from ._writing import check_writable, write_atomically

__all__ = ["RunFolder", "create_run", "open_run"]


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The paths of one run's files.

    Attributes:
        path: the folder; ``training.Checkpoint(run.path, ...)`` puts ``checkpoint/`` and ``metrics.jsonl``
            there.
    """

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", user_path(self.path))

    @property
    def config_path(self) -> Path:
        """The settings of the run, ``config.json``."""
        return self.path / "config.json"

    @property
    def metrics_path(self) -> Path:
        """One JSON object a step, ``metrics.jsonl``."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_path(self) -> Path:
        """The checkpoints, ``checkpoint/``."""
        return self.path / "checkpoint"

    def picture_path(self, name: str) -> Path:
        """Return where the picture ``name`` goes, ``<name>.png``."""
        return self.path / f"{name}.png"

    def read_config(self) -> dict[str, Any]:
        """Return the settings that ``create_run`` wrote.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if the file is no JSON object, or has more than 16 MiB or 64 levels.
        """
        settings = read_json(self.config_path)
        if not isinstance(settings, dict):
            kind = type(settings).__name__
            raise ValueError(f"{self.config_path}: expected settings, a JSON object, got {kind}.")
        return settings

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of ``metrics.jsonl``, one dict a step; a last line cut short is left out.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a line is no JSON object, or has more than 16 MiB or 64 levels; says which.
        """
        return read_json_lines(self.metrics_path)


def create_run(root: str | Path, name: str, config) -> RunFolder:
    """Make a fresh folder for a run and write its settings to ``config.json``.

    Args:
        root: the folder that holds runs; made if need be.
        name: the run's name. If it is taken, ``name-2``, ``name-3``, … is used: nothing is overwritten.
        config: a dataclass instance or a mapping (see ``plain_settings``).

    Returns:
        The new folder.

    Raises:
        OSError: if ``root`` cannot be written to; the message names it.
        ValueError: if ``name`` is no plain folder name.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> create_run(root, "digits", {"seed": 0}).read_config()
        {'seed': 0}
        >>> create_run(root, "digits", {"seed": 1}).path.name
        'digits-2'
    """
    if name in ("", "..") or Path(name).name != name:
        raise ValueError(f"name: expected a plain folder name, got {name!r}.")
    settings, root = plain_settings(config), user_path(root)
    check_writable("root", root)
    path, number = root / name, 1
    while True:
        try:
            path.mkdir()
            break
        except FileExistsError:
            number += 1
            path = root / f"{name}-{number}"
    run = RunFolder(path)
    text = json.dumps(settings, indent=2) + "\n"
    write_atomically(run.config_path, lambda file: file.write(text.encode()))
    return run


def open_run(path: str | Path) -> RunFolder:
    """Return the folder of a run that ``create_run`` made.

    Raises:
        FileNotFoundError: if there is no ``config.json`` in it; the message names the folder.
    """
    run = RunFolder(user_path(path))
    if not run.config_path.is_file():
        raise FileNotFoundError(f"path: expected a run folder (with config.json), got {path}.")
    return run
