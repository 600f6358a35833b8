"""The tests marked ``gpu``, in a process of their own, each outcome recorded as soon as it is known."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from _gpu_report import Part

ROOT = Path(__file__).parents[1]
_OUTCOME = re.compile(r"::(\S+) (PASSED|FAILED|SKIPPED|ERROR)")


def command() -> list[str]:
    """Return the command of the tests: one process, no plugins, and none of the fixtures of other tests."""
    options = ["-o", "addopts=", "-o", "filterwarnings=default", "--noconftest", "-p", "no:cacheprovider"]
    return [sys.executable, "-u", "-m", "pytest", *options, "-m", "gpu", "-v", str(ROOT / "tests" / "gpu")]


def environment(has_gpu: bool) -> dict[str, str]:
    """Return the environment: memory as needed, both platforms, and the CPU in both roles without a GPU."""
    variables = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    variables["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    platforms = variables.get("JAX_PLATFORMS", "")
    if platforms and "cpu" not in platforms.split(","):
        variables["JAX_PLATFORMS"] = f"{platforms},cpu"
    if not has_gpu:
        variables["NEUROJAX_GPU_TESTS"] = "cpu"
    return variables


def measure(part: Part, *, has_gpu: bool) -> None:
    """Run the tests until the part's time is over."""
    if importlib.util.find_spec("pytest") is None:
        part.leave_out("tests (pytest is not installed)")
        return
    process = subprocess.Popen(
        command(), cwd=ROOT, env=environment(has_gpu), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    timer = threading.Timer(max(part.left(), 1), process.kill)
    timer.start()
    before, lines = time.perf_counter(), []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if found := _OUTCOME.search(line):
            now = time.perf_counter()
            row = {"test": found[1], "outcome": found[2].lower(), "seconds": now - before}
            part.add("agreement with the CPU", row)
            before = now
    code = process.wait()
    timer.cancel()
    if code:
        print("".join(lines))
    judge(part, code)


def judge(part: Part, code: int) -> None:
    """Record what did not pass."""
    outcomes = part.tables.get("agreement with the CPU", [])
    for row in outcomes:
        if row["outcome"] != "passed":
            part.fail(f"{row['test']}: {row['outcome']}")
    if code < 0 and part.left() <= 1:
        part.fail(f"the tests were ended when their time was over, after {len(outcomes)} outcomes")
    elif code and not part.errors:
        part.fail(f"pytest ended with status {code}")
    if not outcomes and not code:
        part.fail("pytest ran no test")
