"""Does the total work a row stay the same when rows are spread over more devices?

One to eight devices of the host, as many rows on each: `encode_batch` on 4096 patches of 16×16 a device (the
same patches on every device, so that each has the same work), and a training step of a dictionary with 256
rows a device: one epoch of 32,768 rows, whatever the devices, by Adam of step size 0, so that all rows meet
the same dictionary (inference takes longer as it is learned). Two cores cannot show speed-up; they can show
whether anything is done more often than need be. So what is measured is CPU time, user and system, of a
process for each number of devices, all on one core (`sched_setaffinity`) and with
`--xla_cpu_multi_thread_eigen=false`, so that no thread waits by spinning beside another; each turn does the
same number of rows in every process, after compilation. Medians of interleaved turns. Linux only.

    python benchmarks/weak_scaling.py [--n-atoms 128] [--repeats 9] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import _common as common
import collectives
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax import distributed
from neurojax.penalties import L1
from neurojax.sparse_coding import encode_batch, random_dictionary
from neurojax.training import _block

DEVICES = (1, 2, 4, 8)
TASKS = ("encode_batch", "training step")
QUARTILES = (("lower", 25), ("upper", 75))
FLAGS = "--xla_cpu_multi_thread_eigen=false"


class Setting(NamedTuple):
    """Sizes; rows and batch are those of one device."""

    n_atoms: int = 128
    n_rows: int = 4096
    batch_size: int = 256
    n_steps: int = 16  # of training for eight devices; fewer devices take as many times more
    tol: float = 1e-4


def encoder(setting: Setting, mesh: Any) -> Callable[[], dict[str, float]]:
    """Return a function that encodes eight devices' rows and says what the codes are like."""
    n = distributed.n_shards(mesh)
    images, _ = common.whitened_images()
    patches = common.patches(images, setting.n_rows, seed=3)
    model = random_dictionary(jax.random.key(0), setting.n_atoms, common.PATCH_SIZE**2)
    rows = distributed.shard_rows(np.tile(patches, (n, 1)), mesh)

    def run() -> dict[str, float]:
        for _ in range(DEVICES[-1] // n):
            solution = encode_batch(model, rows, L1(common.STRENGTH), tol=setting.tol, mesh=mesh)
            jax.block_until_ready(solution)
        return {
            "mean |code|": float(jnp.mean(jnp.abs(solution.value))),
            "mean steps": float(jnp.mean(solution.n_steps)),
            "worst gap": float(jnp.max(solution.residual)),
        }

    return run


def learner(setting: Setting, mesh: Any) -> Callable[[], dict[str, float]]:
    """Return a function that takes steps on as many rows as eight devices take in ``n_steps``: an epoch."""
    n = distributed.n_shards(mesh)
    n_steps = setting.n_steps * DEVICES[-1] // n
    batch_size = setting.batch_size * n
    sizes = collectives.Sizes(n_atoms=setting.n_atoms, share=setting.batch_size, replace_after=None)
    images, _ = common.whitened_images()
    patches = common.patches(images, setting.n_steps * DEVICES[-1] * setting.batch_size, seed=4)
    work = collectives.dictionary(sizes, batch_size, patches)._replace(optimizer=optax.adam(0.0))
    program, source, learner, buffers, *_ = collectives.block(work, batch_size, mesh, n_steps)

    def run() -> dict[str, float]:
        steps = jnp.int32(n_steps)
        with distributed.set_mesh(mesh):
            new: Any = _block.run_block(program, source, learner, buffers, jnp.int32(0), steps)
            jax.block_until_ready(eqx.filter(new, eqx.is_array))
        _, metrics, _ = new
        return {
            "loss": float(jnp.mean(metrics["loss"][:n_steps])),
            "mean steps": float(jnp.mean(metrics["inference_steps"][:n_steps])),
            "worst gap": float(jnp.max(metrics["worst_residual"])),
        }

    return run


def child(setting: Setting, core: int) -> None:
    """Answer each name of a task, read from standard input, with the CPU time that it took."""
    mesh = distributed.make_mesh()
    tasks: dict[str, Callable[[], dict[str, float]]] = dict(
        zip(TASKS, (encoder(setting, mesh), learner(setting, mesh)), strict=True)
    )
    for run in tasks.values():
        run()  # compiles
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.process_time()
        said = tasks[line.strip()]()
        print(json.dumps({"seconds": time.process_time() - start, **said}), flush=True)


@contextlib.contextmanager
def children(setting: Setting) -> Iterator[dict[int, subprocess.Popen]]:
    """Start a process for each number of devices; wait until all have compiled."""
    core = str(min(os.sched_getaffinity(0)))
    options = ["--child", core, "--setting", json.dumps(setting)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")} | {"JAX_PLATFORMS": "cpu"}
    processes = {
        n: subprocess.Popen(
            [sys.executable, __file__, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n} {FLAGS}"},
        )
        for n in DEVICES
    }  # fmt: skip
    try:
        for n, process in processes.items():
            while (line := _read(process, n)) != "ready":
                print(line)
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


def _read(process: subprocess.Popen, n: int) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"The process of {n} devices ended.")
    return line.strip()


def ask(process: subprocess.Popen, n: int, task: str) -> dict[str, float]:
    """Have a process do a task once."""
    assert process.stdin is not None
    process.stdin.write(f"{task}\n")
    process.stdin.flush()
    return json.loads(_read(process, n))


def measure(setting: Setting, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each task and number of devices; turns are interleaved."""
    answers: dict[tuple[str, int], list[dict[str, float]]] = {}
    with children(setting) as processes:
        for _ in range(repeats):
            for task in TASKS:
                for n, process in processes.items():
                    answers.setdefault((task, n), []).append(ask(process, n, task))
    rows_of = dict.fromkeys(TASKS, setting.batch_size * setting.n_steps) | {TASKS[0]: setting.n_rows}
    table = []
    for (task, n), said in answers.items():
        n_rows = DEVICES[-1] * rows_of[task]
        seconds = [one.pop("seconds") for one in said]
        one = float(np.median(seconds)) / n_rows
        reference = table[-DEVICES.index(n)]["CPU µs a row"] if n > 1 else 1e6 * one
        table.append({
            "task": task, "devices": n, "CPU µs a row": 1e6 * one, "over one device": 1e6 * one / reference,
            **{f"{q} quartile, µs": 1e6 * float(np.percentile(seconds, p)) / n_rows for q, p in QUARTILES},
        })  # fmt: skip
        check(task, said[0], answers[task, 1][0], setting)
    return table


def check(task: str, came: dict[str, float], expected: dict[str, float], setting: Setting) -> None:
    """End unless codes are certified, and codes, loss and steps of inference are those of one device."""
    tol = setting.tol if task == TASKS[0] else collectives.Sizes().tol
    outcome = "mean |code|" if task == TASKS[0] else "loss"
    is_same = np.isclose(came[outcome], expected[outcome], rtol=1e-3)
    is_same_work = np.isclose(came["mean steps"], expected["mean steps"], rtol=0.02)
    if not (came["worst gap"] <= tol and is_same and is_same_work):
        raise SystemExit(f"{task}: expected gaps up to {tol}, else {expected} as on one device, got {came}.")


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=9)
    parser.add_argument("--n-atoms", type=int, default=Setting().n_atoms)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(Setting(*arguments.setting), arguments.child)
        return
    setting, repeats = Setting(n_atoms=arguments.n_atoms), arguments.repeats
    if arguments.quick:
        setting, repeats = Setting(16, 64, 32, 1, 1e-2), 1
    described = {
        "data": common.whitened_images()[1], **setting._asdict(), "repeats": repeats,
        "XLA_FLAGS": FLAGS, "cores": "each process on one and the same core",
    }  # fmt: skip
    print(described, common.machine(), sep="\n")
    table = measure(setting, repeats)
    common.print_table(table)
    common.save_results(arguments.results, "weak_scaling", table, described, _plot(table))


def _plot(table: list[dict[str, Any]]) -> Figure:
    figure = Figure((8, 3.2), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(TASKS)), TASKS, strict=True):
        rows = [row for row in table if row["task"] == task]
        first = rows[0]["CPU µs a row"]
        axes.axhspan(0.9, 1.1, color="0.9", lw=0, label="within 10 %")
        middle = [row["over one device"] for row in rows]
        spread = [
            [abs(row[f"{q} quartile, µs"] / first - row["over one device"]) for row in rows]
            for q, _ in QUARTILES
        ]
        axes.errorbar(
            DEVICES, middle, spread, fmt="o-", color="#0072B2", capsize=3, label="median, quartiles"
        )
        axes.set_xscale("log", base=2)
        axes.set_xticks(DEVICES, [str(n) for n in DEVICES])
        axes.set(xlabel="devices", ylim=(0, max(1.3, 1.05 * (middle[-1] + spread[1][-1]))))
        axes.set_title(f"{task}: {first:.3g} µs a row on one device", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("CPU time a row / that on one device")
    figure.axes[0].legend(frameon=False, loc="lower left")
    return figure


if __name__ == "__main__":
    main()
