"""What commands share: settings as nested dataclasses, read from flags and from a run's ``config.json``."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from ..runs import RunFolder, changed_settings, open_run, plain_settings, write_atomically

__all__ = ["from_plain", "parse", "resumed"]

_Settings = TypeVar("_Settings")


def parse(
    kind: type[_Settings], command: str, arguments: Sequence[str]
) -> tuple[_Settings, RunFolder | None]:
    """Read flags into ``kind``; with ``--resume RUN`` the run's own settings are the defaults.

    Raises:
        ValueError: for a run whose ``config.json`` does not fit.
        FileNotFoundError: if ``RUN`` is no run folder.
    """
    words = list(arguments)
    run, default = None, kind()
    at = next((i for i, word in enumerate(words) if word.split("=")[0] == "--resume"), None)
    if at is not None and at + 1 < len(words) + ("=" in words[at]):
        folder = words[at].split("=", 1)[1] if "=" in words[at] else words[at + 1]
        run = open_run(folder)
        default = from_plain(kind, run.read_config(), str(run.config_path))
    settings = tyro.cli(
        kind, args=words, prog=f"neurojax {command}", default=default, config=(tyro.conf.OmitArgPrefixes,)
    )
    return settings, run


def resumed(run: RunFolder, settings: Any, *, may_change: Sequence[str]) -> None:
    """Check the settings of a resumed run against its ``config.json``, and note what may change.

    Raises:
        ValueError: if a setting differs that may not; says which, from what to what.
    """
    plain = plain_settings(settings)
    changes = changed_settings(run.read_config(), plain)
    fixed = {name: pair for name, pair in changes.items() if name not in may_change}
    if fixed:
        text = ", ".join(f"{name.split('.')[-1]} {old!r} → {new!r}" for name, (old, new) in fixed.items())
        raise ValueError(f"--resume: expected the settings of the run, got changes: {text}.")
    text = json.dumps(plain, indent=2) + "\n"
    write_atomically(run.config_path, lambda file: file.write(text.encode()))


def from_plain(kind: type[_Settings], plain: Mapping[str, Any], source: str) -> _Settings:
    """Build a nested dataclass from the dict that ``plain_settings`` made of one.

    Raises:
        ValueError: at the first name that is missing or unknown.
    """
    hints = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if not isinstance(plain, Mapping) or fields != set(plain):
        came = sorted(plain) if isinstance(plain, Mapping) else type(plain).__name__
        raise ValueError(f"{source}: expected the settings {sorted(fields)}, got {came}.")
    values = {}
    for name, value in plain.items():
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            value = from_plain(hint, value, source)  # type: ignore[arg-type]
        elif hint is Path or (value is not None and Path in getattr(hint, "__args__", ())):
            value = Path(value)
        values[name] = value
    return kind(**values)
