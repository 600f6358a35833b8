"""Mutation testing: does the default run catch the faults of `tests/mutants.toml`?

    python tests/mutants.py check                       # every entry can still be run
    python tests/mutants.py run                         # all of them: at least 95 % must be caught
    python tests/mutants.py run --sample 15             # as many, chosen at random, for a quick look
    python tests/mutants.py run --until part            # only the tests of each fault's own sub-package
    python tests/mutants.py draw --seed 1 --number 20   # propose new faults; --add stores them

Each fault is written into its own copy of the tree, whose tests then run until one fails: the test that
caught the fault last time, those nearest to its module, those of its sub-package, the rest of the default
run, and, if it survives these, the slow tests. A test that does not end has failed, too. At the end, the
tests that failed run once more without any fault, because a test that fails there catches nothing.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

from mutant_drawing import draw
from mutant_table import ROOT, TABLE, Fault, complaints, read_table, write_table

LEAST_SHARE = 0.95
# Seconds of processor time for each stage, so that a busy machine catches nothing.
LIMITS = {"known": 60, "near": 200, "part": 600, "rest": 1500, "slow": 2400}
BUSY = 10  # times as long on the clock
N_NEAR = 3  # test files
OWN_TESTS = "tests/test_mutants.py"  # it reads the faulty lines themselves, and would catch every fault
# The tests of each sub-package, besides those in a folder or in files of its own name.
TESTS = {
    "autoencoder": ["*/test_ae_*"],
    "boltzmann": ["*/test_rbm_*"],
    "convergence": ["*/test_gradients*"],
    "distributed": ["*/test_collectives*"],
    "ground": [
        "*/test_random*",
        "*/test_untrusted*",
        "*/test_*bad_input*",
        "*/test_rbm_learning*",
        "*/test_ae_losses*",
        "*/test_ae_sparse*",
    ],
    "proximal": [
        "*/test_minimize*",
        "*/test_proximal*",
        "*/test_solvers*",
        "*/test_sparsa*",
        "*/test_gradients*",
        "*/test_encode*",
    ],
    "runs": ["*/test_training_resume*"],
    "training": ["*/test_distributed*"],
}
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
UNFINISHED = re.compile(r"^(\S+\.py::.*?) *\Z", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The stage that caught a fault ("" if none did), the test that did, and the seconds taken."""

    fault: Fault
    stage: str
    test: str
    seconds: float

    @property
    def is_caught_by_default(self) -> bool:
        return self.stage not in ("", "slow")


@contextlib.contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Return a new folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def copy_tree(target: Path, library: Path, tests: Path) -> None:
    """Copy what a run may change, and link what it only reads."""
    shutil.copytree(library / "neurojax", target / "neurojax")
    shutil.copytree(tests / "tests", target / "tests")
    shutil.copy(tests / "pyproject.toml", target)
    for name in ("README.md", "benchmarks", "notebooks"):
        (target / name).symlink_to(library / name)


def pytest_in(tree: Path, cache: Path, limit: int, arguments: Iterable[str]) -> tuple[int, str]:
    """Run pytest in one process on a tree; return its exit status (< 0 if the time is up) and its output."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(tree),
        "TMPDIR": str(tree / "tmp"),
    }
    (tree / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", "-v", "-n0", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    with (tree / "output.txt").open("w+", encoding="utf-8") as output:
        run = subprocess.Popen(
            [*command, *arguments],
            cwd=tree, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_CPU, (limit, limit)),
        )  # fmt: skip
        try:
            status = run.wait(BUSY * limit)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            stop_group(run)
        output.seek(0)
        return status, output.read()


def stop_group(run: subprocess.Popen) -> None:
    """End a run and the processes that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, 9)
    run.wait()


def first_tests(fault: Fault, tree: Path) -> list[str]:
    """Return the test files of a fault's sub-package, those that name its module and its names first."""
    part, module = fault.part, Path(fault.file).stem.strip("_")
    patterns = [f"tests/{part}/*", f"tests/test_{part}*", *TESTS.get(part, [])]
    found = {file for file in files_of_tests(tree) if any(fnmatch(file, pattern) for pattern in patterns)}
    text = (tree / fault.file).read_text(encoding="utf-8")
    names = set(re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE))

    def closeness(file: str) -> tuple[bool, float]:
        words = words_of(tree / file)
        return module in Path(file).stem, len(names & words) / len(words) ** 0.5

    return [*doctests(tree, [fault.file]), *sorted(sorted(found), key=closeness, reverse=True)]


@functools.cache
def words_of(path: Path) -> frozenset[str]:
    """Return the words of a file."""
    return frozenset(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def files_of_tests(tree: Path) -> list[str]:
    """Return all files of tests of a tree but the one that reads the table of faults."""
    files = (path.relative_to(tree).as_posix() for path in (tree / "tests").rglob("test_*.py"))
    return sorted(file for file in files if file != OWN_TESTS)


def doctests(tree: Path, files: Iterable[str] | None = None) -> list[str]:
    """Return the files of the package, or of those given, that hold examples."""
    if files is None:
        files = sorted(path.relative_to(tree).as_posix() for path in (tree / "neurojax").rglob("*.py"))
    return [file for file in files if ">>>" in (tree / file).read_text(encoding="utf-8")]


def stages(fault: Fault, tree: Path, until: str) -> Iterable[tuple[str, list[str]]]:
    """Yield the stages of a fault in their order, each with the arguments of pytest."""
    first = first_tests(fault, tree)
    n_near = N_NEAR + (fault.file in first)
    rest = [file for file in (*files_of_tests(tree), *doctests(tree)) if file not in first]
    for stage, arguments in (
        ("known", [fault.caught_by] if fault.caught_by.startswith("tests/") else []),  # examples are slow
        ("near", first[:n_near]),
        ("part", first[n_near:]),
        ("rest", rest),
        ("slow", ["-m", "slow", *first, *rest]),
    ):
        if arguments:
            yield stage, arguments
        if stage == until:
            return


def run_fault(fault: Fault, master: Path, cache: Path, until: str) -> Outcome:
    """Run the tests on a copy of the tree that has the fault, until one fails."""
    start = time.monotonic()
    stage, test = "", ""
    with scratch_folder(master.parent) as folder:
        tree = folder / "tree"
        shutil.copytree(master, tree, symlinks=True)
        text = (tree / fault.file).read_text(encoding="utf-8")
        (tree / fault.file).write_text(fault.apply(text), encoding="utf-8")
        for name, arguments in stages(fault, tree, until):
            status, output = pytest_in(tree, cache, LIMITS[name], ["-x", *arguments])
            if status < 0 or status in (1, 2, 3):  # time is up or a crash, a failure, a broken import
                failed = FAILED.search(output) or UNFINISHED.search(output)
                stage, test = name, failed[1] if failed else f"exit status {status}"
                break
            if name != "known" and status not in (0, 5):
                raise RuntimeError(f"{fault.name}: pytest cannot run {name} tests:\n{output[-2000:]}")
    return Outcome(fault, stage, test, time.monotonic() - start)


def check_catchers(outcomes: list[Outcome], master: Path, cache: Path) -> list[Outcome]:
    """Run the tests that caught faults on the tree as it is; who fails there caught nothing."""
    failing: set[str] = set()
    for mark in ("not slow", "slow"):
        caught = [outcome for outcome in outcomes if (outcome.stage == "slow") == (mark == "slow")]
        if tests := sorted({outcome.test for outcome in caught if "::" in outcome.test}):
            _, output = pytest_in(master, cache, LIMITS["rest"], ["-m", mark, *tests])
            failing |= set(FAILED.findall(output))
    for test in failing:
        print(f"{test} fails without any fault, so it catches none")
    return [
        dataclasses.replace(outcome, stage="", test="") if outcome.test in failing else outcome
        for outcome in outcomes
    ]


def run_all(faults: list[Fault], arguments: argparse.Namespace) -> list[Outcome]:
    """Run the faults side by side, with a line for each as it ends."""
    outcomes = []
    with scratch_folder() as folder:
        master = folder / "master"
        master.mkdir()
        copy_tree(master, ROOT, arguments.tests_from)
        cache = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ROOT / ".pytest_cache" / "compiled"))
        with concurrent.futures.ThreadPoolExecutor(arguments.workers) as pool:
            runs = [pool.submit(run_fault, fault, master, cache, arguments.until) for fault in faults]
            for done in concurrent.futures.as_completed(runs):
                outcomes.append(outcome := done.result())
                print(f"{len(outcomes):3}/{len(runs)} {line_of(outcome)}", flush=True)
        return check_catchers(outcomes, master, cache)


def line_of(outcome: Outcome) -> str:
    """Return the line that is printed when a fault is done with."""
    end = f"{outcome.stage}: {outcome.test}" if outcome.stage else "SURVIVED"
    return f"{outcome.seconds:6.1f} s {outcome.fault.name}: {end}"


def report(outcomes: list[Outcome], seconds: float) -> float:
    """Print the outcomes by sub-package, and what escaped the default run; return the share it caught."""
    print(f"\n{'sub-package':18}{'faults':>8}{'default':>9}{'slow only':>11}{'survived':>10}")
    for part in [*sorted({outcome.fault.part for outcome in outcomes}), "all"]:
        own = [outcome for outcome in outcomes if part in (outcome.fault.part, "all")]
        n_default = sum(outcome.is_caught_by_default for outcome in own)
        n_slow = sum(outcome.stage == "slow" for outcome in own)
        print(f"{part:18}{len(own):8}{n_default:9}{n_slow:11}{len(own) - n_default - n_slow:10}")
    for outcome in outcomes:
        if not outcome.is_caught_by_default:
            kind = f"caught by {outcome.test} alone" if outcome.stage else "survived"
            print(f"\n{outcome.fault.name} ({outcome.fault.file}) {kind}")
            print(f"  - {outcome.fault.before}\n  + {outcome.fault.after}")
    share = n_default / len(outcomes)
    print(f"\n{share:.1%} of {len(outcomes)} faults caught by the default run, in {seconds / 60:.1f} minutes")
    return share


def remember(outcomes: list[Outcome]) -> None:
    """Store with each fault the test that caught it."""
    caught = {outcome.fault.name: outcome.test for outcome in outcomes if outcome.is_caught_by_default}
    write_table([dataclasses.replace(f, caught_by=caught.get(f.name, f.caught_by)) for f in read_table()])


def chosen(faults: list[Fault], arguments: argparse.Namespace) -> list[Fault]:
    """Return the faults to run: the live ones, or those named, or a sample."""
    live = [fault for fault in faults if not fault.struck]
    if arguments.names:
        return [fault for fault in live if any(fnmatch(fault.name, pattern) for pattern in arguments.names)]
    rng = random.Random(arguments.seed)
    return rng.sample(live, min(arguments.sample or len(live), len(live)))


def command_run(arguments: argparse.Namespace) -> int:
    faults = read_table()
    if found := complaints(faults):
        print("\n".join(found))
        return 1
    start = time.monotonic()
    outcomes = run_all(chosen(faults, arguments), arguments)
    share = report(outcomes, time.monotonic() - start)
    if arguments.json:
        rows = {o.fault.name: {"stage": o.stage, "test": o.test, "seconds": o.seconds} for o in outcomes}
        arguments.json.write_text(json.dumps({"share": share, "faults": rows}, indent=1) + "\n")
    if arguments.remember:
        remember(outcomes)
    return int(share < LEAST_SHARE)


def command_check(arguments: argparse.Namespace) -> int:
    faults = read_table()
    found = complaints(faults)
    print("\n".join(found) or f"{len(faults)} entries of {TABLE.name} can be run")
    return int(bool(found))


def command_draw(arguments: argparse.Namespace) -> int:
    known = read_table()
    lines = {(fault.file, fault.before) for fault in known}
    drawn = draw(arguments.seed, arguments.number, tuple(arguments.parts))
    drawn = [fault for fault in drawn if (fault.file, fault.before) not in lines]
    for fault in drawn:
        print(f"{fault.name} ({fault.file})\n  - {fault.before}\n  + {fault.after}")
    if arguments.add:
        write_table([*known, *drawn])
    return 0


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line asks for."""
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=kind)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run the tests on each fault")
    run.set_defaults(command=command_run)
    add = run.add_argument
    add("--sample", type=int, help="number of faults, chosen at random")
    add("--seed", type=int, default=0, help="seed of the sample")
    add("--names", nargs="+", default=[], help="only these faults; * and ? match as in a shell")
    add("--workers", type=int, default=2, help="number of faults that run side by side")
    add("--until", choices=list(LIMITS), default="slow", help="the last tests that a fault meets")
    add("--tests-from", type=Path, default=ROOT, help="another tree, whose tests meet the faults of this one")
    add("--json", type=Path, help="file for the outcomes")
    add("--remember", action="store_true", help="store which test caught each fault, to run it first")
    commands.add_parser("check", help="check every entry").set_defaults(command=command_check)
    propose = commands.add_parser("draw", help="draw faults over the syntax tree")
    propose.set_defaults(command=command_draw)
    propose.add_argument("--seed", type=int, required=True)
    propose.add_argument("--number", type=int, default=19)
    propose.add_argument("--parts", nargs="+", default=[], help="sub-packages to draw from; all by default")
    propose.add_argument("--add", action="store_true", help="store the faults in the table")
    return parser.parse_args(words)


if __name__ == "__main__":
    options = parse()
    sys.exit(options.command(options))
