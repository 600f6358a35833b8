"""The report of the GPU benchmark: a clock, and files that are rewritten whenever something was measured."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _common as common

Row = dict[str, Any]
STARTED = time.perf_counter()


class Part:
    """One part of the benchmark: its tables, what was left out of it, and when it must end.

    Attributes:
        name: the part's name.
        status: ``running``, ``ok``, ``failed`` or ``skipped``. A file with a part that is ``running`` is that
            of a command that was killed during it.
        tables: rows by the title of their table.
        left_out: what there was no time for, or what is not installed.
        errors: what failed, as one line each.
        facts: single figures by name.
    """

    def __init__(self, name: str, seconds: float, write: Callable[[], None]):
        self.name, self.status = name, "running"
        self.tables: dict[str, list[Row]] = {}
        self.left_out: list[str] = []
        self.errors: list[str] = []
        self.facts: dict[str, Any] = {}
        self._begun, self._seconds, self._write = time.perf_counter(), seconds, write
        self._longest: dict[str, float] = {}

    def elapsed(self) -> float:
        """Return the seconds since the part began."""
        return time.perf_counter() - self._begun

    def left(self) -> float:
        """Return the seconds that the part still has."""
        return self._seconds - self.elapsed()

    def add(self, title: str, row: Row) -> None:
        """Add a row to a table, and write the files."""
        self.tables.setdefault(title, []).append(row)
        self._write()
        print(f"[{time.perf_counter() - STARTED:5.0f} s] {title}: {_line(row)}", flush=True)

    def note(self, name: str, value: Any) -> None:
        """Keep a single figure, and write the files."""
        self.facts[name] = value
        self._write()
        print(f"[{time.perf_counter() - STARTED:5.0f} s] {name}: {value}", flush=True)

    def leave_out(self, what: str) -> None:
        """Record what is not measured, and say so."""
        self.left_out.append(what)
        self._write()
        print(f"left out: {what}", flush=True)

    def fail(self, error: str) -> None:
        """Record a failure, and say so."""
        self.errors.append(error)
        self._write()
        print(f"FAILED: {error}", flush=True)

    def attempt(self, what: str, kind: str, seconds: float, run: Callable[[], Any]) -> Any:
        """Run a step if there is time for it; a step that fails is recorded, and costs no other step.

        Args:
            what: the step's name.
            kind: steps of one kind are expected to take as long as the longest of them so far.
            seconds: what the first step of the kind is expected to take.
            run: the step.

        Returns:
            What ``run`` returns; ``None`` if it was left out or failed.
        """
        expected = self._longest.get(kind, seconds)
        if expected > self.left():
            self.leave_out(
                f"{what} (no time: needs about {expected:.0f} s, {max(self.left(), 0):.0f} s left)"
            )
            return None
        begun = time.perf_counter()
        try:
            return run()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            self.fail(f"{what}: {type(error).__name__}: {_first_line(error)}")
            return None
        finally:
            taken = time.perf_counter() - begun
            self._longest[kind] = max(taken, self._longest.get(kind, 0.0))

    def summary(self) -> Row:
        """Return all of it, for the file."""
        return {
            "status": self.status, "seconds": round(self.elapsed(), 1), "errors": self.errors,
            "left out": self.left_out, "facts": self.facts, "tables": self.tables,
        }  # fmt: skip


class Report:
    """The parts so far, and the files that they are written to: ``gpu.json`` and ``gpu.md`` in ``folder``."""

    def __init__(self, folder: Path, setting: Row):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.setting, self.machine = folder, setting, common.machine()
        self.parts: dict[str, Part] = {}
        self._ended: dict[str, Row] = {}

    def run(self, name: str, seconds: float, measure: Callable[[Part], None]) -> None:
        """Run a part that may take so many seconds; whatever it raises is printed and recorded."""
        print(f"\n-- {name} (has {seconds:.0f} s)", flush=True)
        part = self.parts[name] = Part(name, seconds, self.write)
        self.write()
        part.attempt(name, "part", 0.0, lambda: measure(part))
        part.status = "failed" if part.errors else "ok" if part.tables else "skipped"
        self._ended[name] = part.summary()
        self.write()

    def skip(self, name: str, why: str) -> None:
        """Record a part that is not run."""
        part = self.parts[name] = Part(name, 0.0, self.write)
        part.status = "skipped"
        part.leave_out(f"{name} ({why})")
        self._ended[name] = part.summary()
        self.write()

    def has_failed(self) -> bool:
        """Return whether any part failed."""
        return any(part.status == "failed" for part in self.parts.values())

    def content(self) -> Row:
        """Return what the JSON file holds."""
        parts = {name: self._ended.get(name) or part.summary() for name, part in self.parts.items()}
        total = round(time.perf_counter() - STARTED, 1)
        return {"setting": self.setting, "machine": self.machine, "seconds": total, "parts": parts}

    def write(self) -> None:
        """Rewrite both files; a kill at any moment leaves whole ones."""
        content = self.content()
        _replace(self.folder / "gpu.json", json.dumps(content, indent=2, default=str) + "\n")
        _replace(self.folder / "gpu.md", markdown(content))


def markdown(content: Row) -> str:
    """Return the tables as Markdown."""
    lines = ["# Measured on a GPU" if not content["setting"]["quick"] else "# A quick run, not a measurement"]
    lines += ["", *(f"- {name}: {value}" for name, value in content["machine"].items())]
    lines += [f"- {name}: {value}" for name, value in content["setting"].items()]
    for name, part in content["parts"].items():
        lines += ["", f"## {name}: {part['status']}, {part['seconds']} s", ""]
        lines += [f"- failed: {error}" for error in part["errors"]]
        lines += [f"- left out: {what}" for what in part["left out"]]
        lines += [f"- {fact}: {_cell(value)}" for fact, value in part["facts"].items()]
        for title, rows in part["tables"].items():
            names = list(dict.fromkeys(key for row in rows for key in row))
            lines += ["", f"### {title}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
            lines += [f"| {' | '.join(_cell(row.get(key, '–')) for key in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


def _line(row: Row) -> str:
    return ", ".join(f"{name} {_cell(value)}" for name, value in row.items())


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:500]


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105
