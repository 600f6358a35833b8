"""Run the benchmark scripts, one after another, each in a process of its own.

    python -m benchmarks [NAMES ...] [--quick] [--list] [--results DIR]

Flags, threads, compiled programs and memory are thus each script's own. Exits with 1 if a script failed.
With one script named, further options are passed on to it, and the exit status is its own. Where all scripts
run, one that needs another machine may end with status 77, and is shown as skipped.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent
SKIPPED = 77  # as automake and meson have it


def scripts(folder: Path = FOLDER) -> dict[str, Path]:
    """Return the scripts that run by themselves, by name."""
    found = (path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_"))
    return {path.stem: path for path in found if 'if __name__ == "__main__":' in path.read_text("utf-8")}


def question(path: Path) -> str:
    """Return the first line of a script's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n")[0]


def run(path: Path, options: Sequence[str], is_one_of_all: bool) -> dict[str, str]:
    """Run a script; return a row of the summary. ``NEUROJAX_BENCHMARKS=all`` tells it that it may skip."""
    print(f"\n== {path.stem}: {question(path)}", flush=True)
    environment = os.environ | ({"NEUROJAX_BENCHMARKS": "all"} if is_one_of_all else {})
    start = time.perf_counter()
    code = subprocess.run([sys.executable, str(path), *options], check=False, env=environment).returncode
    is_skipped = is_one_of_all and code == SKIPPED
    seconds = time.perf_counter() - start
    return {
        "benchmark": path.stem,
        "seconds": f"{seconds:.1f}",
        "result": "skipped" if is_skipped else "failed" if code else "ok",
        "exit": str(code),
    }


def print_summary(rows: Sequence[dict[str, str]]) -> None:
    """Print one line a script; a script's exit status where it failed."""
    width = max(len(row["benchmark"]) for row in rows)
    print(f"\n{'benchmark':{width}}  {'seconds':>8}  result")
    for row in rows:
        status = f" (exit status {row['exit']})" if row["result"] == "failed" else ""
        print(f"{row['benchmark']:{width}}  {row['seconds']:>8}  {row['result']}{status}")


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Read the command line, run, and return the exit status."""
    known = scripts(folder)
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=question(Path(__file__)), allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAMES", help="which to run; all, if none is named")
    parser.add_argument("--quick", action="store_true", help="short settings that show that they work")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--results", type=Path, help="folder of the tables and the pictures")
    chosen, further = parser.parse_known_args(arguments)
    if further and len(chosen.names) != 1:
        parser.error(f"expected options of one script after its name, got {' '.join(further)}.")
    if unknown := [name for name in chosen.names if name not in known]:
        parser.error(f"NAMES: expected some of {', '.join(known)}; got {', '.join(unknown)}.")
    names = chosen.names or list(known)
    if chosen.list:
        for name in names:
            print(f"{name:{max(map(len, names))}}  {question(known[name])}")
        return 0
    options = ["--quick"] * chosen.quick
    options += ["--results", str(chosen.results)] if chosen.results else []
    rows = [run(known[name], [*options, *further], not chosen.names) for name in names]
    print_summary(rows)
    if len(chosen.names) == 1:
        return int(rows[0]["exit"])
    return int(any(row["result"] == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
