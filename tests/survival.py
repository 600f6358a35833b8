"""Runs that are killed, interrupted and started twice at random moments: ``survival.py --times 20``.

Each trial begins real processes, strikes at a random moment, starts the same thing again, and compares the
end with that of a run that nobody touched, bit for bit. Processes are forked from a server that has imported
everything, so that a start costs a compilation and not an import.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["survival", "killed_training", "neurojax.cli._settings", "orbax.checkpoint"]
)
SMALL = {
    "sparse-coding": "--n-atoms 16 --patch-size 6 --batch-size 20 --n-steps 120 --checkpoint-every 20 "
    "--evaluate-every 40 --n-evaluation 20",
    "autoencoder": "--n-steps 150 --checkpoint-every 30 --evaluate-every 50",
    "rbm": "--n-hidden 8 --n-steps 200 --checkpoint-every 40 --evaluate-every 100 --ais-temperatures 20 "
    "--ais-chains 10",
    "decode": "--n-neurons 20 --n-trials 120 --n-steps 60 --n-folds 2 --n-permutations 2 "
    "--decoders sincos-ridge network-regression",
    "encode": "--n-neurons 4 --n-steps 60 --encoders convolutional",
}
MODELS = {
    "sparse-coding": ["dictionary.npz"],
    "autoencoder": ["autoencoder.npz"],
    "rbm": ["rbm.npz"],
    "decode": ["decoders/sincos-ridge.npz", "decoders/network-regression.npz"],
    "encode": ["encoders/convolutional/model.npz"],
}


def _train(folder: str, has_locks: bool, pause: float, report: str) -> None:
    """Be a script that calls `fit`, with the exit status of one."""
    import killed_training

    from neurojax.runs import _lock

    if not has_locks:
        _lock.fcntl = None
    sys.stderr = Path(report).open("w", encoding="utf-8")  # noqa: SIM115
    try:
        result = killed_training.run(folder, pause=pause)
        np.savez(f"{report}.npz", *killed_training.numbers(result))
    except SystemExit as error:
        os._exit(error.code)
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def _command(words: list[str], folder: str, report: str) -> None:
    """Be a command in a folder of its own, with its exit status."""
    from neurojax.cli import main

    os.chdir(folder)
    sys.stderr = Path(report).open("w", encoding="utf-8")  # noqa: SIM115
    with contextlib.redirect_stdout(io.StringIO()):
        status = main(words)
    sys.stderr.flush()
    os._exit(status)


def _start(function, *arguments):
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    return process


def _end(process) -> int:
    process.join(300)
    assert process.exitcode is not None, "a process that does not end"
    return process.exitcode


def _strike(process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)


def _arrays(path: Path) -> list[np.ndarray]:
    with np.load(path) as file:
        return [file[name] for name in file.files if name != "seconds"]


def _same(one: Path, other: Path) -> bool:
    pairs = zip(_arrays(one), _arrays(other), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def script(folder: Path, pause: float = 0.0) -> Path:
    """Take the training run to its end, whatever is there of it; return its numbers."""
    report = folder.parent / f"{folder.name}-end"
    process = _start(_train, str(folder), True, pause, str(report))
    assert _end(process) == 0, report.read_text()
    return Path(f"{report}.npz")


def double_starts(n_times: int, *, has_locks: bool) -> dict[str, int]:
    """Start a run twice at random moments, and kill one of the two."""
    counts = {"killed": 0, "refused": 0, "stopped unsaved": 0, "finished": 0}
    with tempfile.TemporaryDirectory() as place:
        expected = script(Path(place, "whole"))
        for trial in range(n_times):
            folder = Path(place, f"twice-{trial}")
            pair = []
            for number in range(2):
                report = str(Path(place, f"{trial}-{number}"))
                pair.append((_start(_train, str(folder), has_locks, 0.02, report), Path(report)))
                time.sleep(random.uniform(0, 1.5))
            time.sleep(random.uniform(0, 1.5))
            alive = [process for process, _ in pair if process.is_alive()]
            if alive:
                _strike(random.choice(alive), signal.SIGKILL)
            for process, report in pair:
                status, text = _end(process), report.read_text() if report.exists() else ""
                if status == -signal.SIGKILL:
                    counts["killed"] += 1
                elif status == 0:
                    counts["finished"] += 1
                elif "expected a run that nobody else writes" in text:
                    counts["refused"] += 1
                else:
                    # The one that loses may notice it anywhere in a save or a restore; it names the folder.
                    unsaved = (
                        "as this run left it, but",
                        "another process has begun to write there",
                        "unfinished save left there",
                        "checkpoint.folder: the checkpoint of step",
                        "checkpoint.folder: expected a checkpoint that can be read",
                    )
                    assert not has_locks and any(words in text for words in unsaved), text
                    counts["stopped unsaved"] += 1
            assert _same(script(folder), expected)
            assert _steps(folder) == list(range(1, 201))
    return counts


def interrupted_scripts(n_times: int, number: int) -> dict[str, int]:
    """Send a signal to a script that calls `fit`, and start it again."""
    counts = {"saved": 0, "before it listened": 0, "finished": 0}
    with tempfile.TemporaryDirectory() as place:
        script(Path(place, "first"))  # which compiles
        begin = time.monotonic()
        expected = script(Path(place, "whole"), pause=0.02)
        seconds = time.monotonic() - begin
        for trial in range(n_times):
            folder, report = Path(place, f"run-{trial}"), Path(place, f"report-{trial}")
            process = _start(_train, str(folder), True, 0.02, str(report))
            time.sleep(random.uniform(0.1, 1) * seconds)
            _strike(process, number)
            status, text = _end(process), report.read_text() if report.exists() else ""
            if status == 0:
                counts["finished"] += 1
            elif "is saved in" in text:
                assert status == 128 + number
                counts["saved"] += 1
            else:
                assert status in (128 + number, -number, 1) and "Traceback" not in text, (status, text)
                counts["before it listened"] += 1
            assert _same(script(folder), expected)
            assert _steps(folder) == list(range(1, 201))
    return counts


def interrupted_commands(n_times: int, command: str, number: int) -> dict[str, int]:
    """Send a signal to a command, and type what it says then."""
    counts = {"to go on": 0, "to begin again": 0, "before it listened": 0, "finished": 0}
    words = [command, *SMALL[command].split()]
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place, "whole")
        whole.mkdir()
        begin = time.monotonic()
        assert _end(_start(_command, words, str(whole), f"{place}/whole-report")) == 0
        begin = time.monotonic()
        shutil.rmtree(whole / "runs")
        assert _end(_start(_command, words, str(whole), f"{place}/whole-report")) == 0
        seconds = time.monotonic() - begin
        for trial in range(n_times):
            folder, report = Path(place, f"run-{trial}"), Path(place, f"report-{trial}")
            folder.mkdir()
            process = _start(_command, words, str(folder), str(report))
            time.sleep(random.uniform(0.2, 1.1 * seconds))
            _strike(process, number)
            status, text = _end(process), report.read_text() if report.exists() else ""
            again = words
            if status == 0:
                counts["finished"] += 1
            elif "This goes on: neurojax " in text:
                assert status == 128 + number
                again = shlex.split(text.split("This goes on: neurojax ")[1].splitlines()[0])
                counts["to go on"] += 1
            elif "before anything was saved; the same command begins again" in text:
                assert status == 128 + number
                shutil.rmtree(folder / "runs", ignore_errors=True)
                counts["to begin again"] += 1
            else:
                assert status in (-number, 1) and not text, (status, text)
                counts["before it listened"] += 1
            if status != 0:
                assert _end(_start(_command, again, str(folder), str(report))) == 0, report.read_text()
            for name in MODELS[command]:
                paths = [each / "runs" / command / name for each in (whole, folder)]
                assert _same(*paths), name
    return counts


def interrupted_pairs(n_times: int, number: int) -> dict[str, int]:
    """Send a signal to one of two processes that train together, and start both again."""
    import mesh_programs

    counts = {"saved": 0, "before it listened": 0, "finished": 0}
    settings = {"n_steps": 40, "every": 4, "n_processes": 2}
    with tempfile.TemporaryDirectory() as place:
        begin = time.monotonic()
        expected = mesh_programs.run("centres", Path(place, "whole.npz"), pause=0.1, **settings)
        seconds = time.monotonic() - begin
        for trial in range(n_times):
            folder = str(Path(place, f"run-{trial}"))
            pair = mesh_programs.run(
                "centres", Path(place, "never.npz"), wait=False, pause=0.1, folder=folder, **settings
            )
            time.sleep(random.uniform(0.1, 1) * seconds)
            chosen = random.choice(pair)
            _strike(chosen, number)
            try:
                chosen.wait(20)
            except subprocess.TimeoutExpired:
                chosen.kill()  # as a scheduler does after a grace
            if chosen.returncode not in (0, 128 + number):
                for process in pair:  # which has lost its other part
                    process.kill()
            texts = [process.communicate(timeout=120)[1] for process in pair]
            if all(process.returncode == 0 for process in pair):
                counts["finished"] += 1
            elif any("is saved in" in text for text in texts):
                counts["saved"] += 1
            else:
                counts["before it listened"] += 1
            came = mesh_programs.run("centres", Path(place, "end.npz"), folder=folder, **settings)
            assert all(came[name].tobytes() == expected[name].tobytes() for name in expected)
            assert _steps(Path(folder)) == list(range(1, 41))
    return counts


IMPORTS = """
import sys; sys.path.insert(0, {here!r})
import killed_training, numpy as np
"""
CELL = """
result = killed_training.run({folder!r}, pause={pause})
np.savez({report!r}, *killed_training.numbers(result))
"""


def interrupted_cells(n_times: int) -> dict[str, int]:
    """Interrupt a notebook's cell that calls `fit`, and run the same cell again in the same kernel."""
    from jupyter_client.manager import start_new_kernel

    counts = {"saved": 0, "before it listened": 0, "finished": 0}
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        with tempfile.TemporaryDirectory() as place:
            expected = script(Path(place, "whole"))
            # An import that is interrupted leaves Python with half a module.
            assert _reply(client, client.execute(IMPORTS.format(here=str(HERE))))["status"] == "ok"
            for trial in range(n_times):
                folder, report = Path(place, f"run-{trial}"), Path(place, f"report-{trial}.npz")
                cell = {"folder": str(folder), "report": str(report)}
                asked = client.execute(CELL.format(pause=0.02, **cell))
                time.sleep(random.uniform(0.1, 2.5))
                manager.interrupt_kernel()
                reply = _reply(client, asked)
                if reply["status"] == "ok":
                    counts["finished"] += 1
                else:
                    assert reply["ename"] in ("InterruptedRunError", "KeyboardInterrupt"), reply
                    is_saved = reply["ename"] == "InterruptedRunError"
                    counts["saved" if is_saved else "before it listened"] += 1
                reply = _reply(client, client.execute(CELL.format(pause=0, **cell)))
                assert reply["status"] == "ok", reply
                assert _same(report, expected) and _steps(folder) == list(range(1, 201))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    return counts


def _reply(client, asked: str) -> dict:
    while (reply := client.get_shell_msg(timeout=120))["parent_header"]["msg_id"] != asked:
        pass
    return reply["content"]


def main() -> None:
    """Make the trials, and print how each ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", help="a word in the names of the trials to be made")
    asked = parser.parse_args()
    trials = {
        "double starts": lambda n: double_starts(n, has_locks=True),
        "double starts without locks": lambda n: double_starts(n, has_locks=False),
        "notebook cells, SIGINT": interrupted_cells,
    }
    for number in (signal.SIGINT, signal.SIGTERM):
        name = signal.Signals(number).name
        trials[f"scripts, {name}"] = lambda n, number=number: interrupted_scripts(n, number)
        trials[f"one of two processes, {name}"] = lambda n, number=number: interrupted_pairs(n, number)
        for command in SMALL:
            trials[f"{command}, {name}"] = lambda n, number=number, command=command: interrupted_commands(
                n, command, number
            )
    for name, trial in trials.items():
        if asked.only in name:
            begin = time.monotonic()
            print(f"{name}: {trial(asked.times)} in {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    import survival  # by its name, under which the server knows it

    survival.main()
