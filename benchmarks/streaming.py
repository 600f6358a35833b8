"""Does encoding rows that memory does not hold take more memory as it goes on, or more time than from memory?

Synthetic patches of 16×16 (sparse mixtures of 64 atoms, and noise), made on the fly and written as shards of
250,000 rows into a temporary folder; 20 GB of them, if three times that is free on the disk, else as much as
is. `encode_batch` codes them from `ShardedRows`, batch by batch, with one on the device while the next is
read; the codes are counted and dropped. One process streams all and reports its resident memory as it goes;
another holds the first rows in memory (at most 4 GB) and codes them in turns from there and from the shards,
part by part. The system's cache of the files is dropped first (`posix_fadvise`), so that they come from the
disk. Compilation is not counted; the codes from both must agree. Linux only.

    python benchmarks/streaming.py [--gigabytes 20] [--folder DIR] [--quick]
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import _common as common
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from neurojax import data
from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, encode_batch

N_FEATURES = common.PATCH_SIZE**2
ROW_BYTES = 4 * N_FEATURES
MEMORY, SHARDS = "rows in memory", "shards on disk"


class Setting(NamedTuple):
    """Sizes of the data and of the inference."""

    n_rows: int
    n_held: int  # of which both ways of reading are timed
    n_parts: int = 16  # in which they take turns
    rows_per_shard: int = 250_000
    batch_size: int = 8192
    n_atoms: int = 64
    n_active: int = 3  # atoms in a patch
    strength: float = 0.5
    tol: float = 1e-3


def true_atoms(setting: Setting) -> np.ndarray:
    """Return the atoms that the patches are made of, unit length."""
    atoms = np.random.default_rng(0).normal(size=(setting.n_atoms, N_FEATURES))
    return (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)


def patches(setting: Setting) -> Iterator[np.ndarray]:
    """Make the rows block by block."""
    atoms, size = true_atoms(setting), 50_000
    for start in range(0, setting.n_rows, size):
        rng, n = np.random.default_rng([1, start]), min(size, setting.n_rows - start)
        codes = np.zeros((n, setting.n_atoms), np.float32)
        chosen = rng.integers(0, setting.n_atoms, (n, setting.n_active))
        coefficients = rng.normal(0, 2, chosen.shape)
        np.put_along_axis(codes, chosen, coefficients.astype(np.float32), axis=1)
        yield codes @ atoms + np.float32(0.05) * rng.standard_normal((n, N_FEATURES), np.float32)


def drop_cache(folder: Path) -> None:
    """Have the system forget what it holds of the files, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        for path in folder.glob("*.npy"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def memory(name: str) -> float:
    """Return ``VmRSS`` or ``VmHWM`` of this process, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


class Tally:
    """What is kept of the codes."""

    def __init__(self) -> None:
        self.n_rows, self.n_active, self.n_steps, self.worst = 0, 0, 0, 0.0

    def add(self, solution: Any) -> None:
        """Count a batch of codes."""
        self.n_rows += len(solution.n_steps)
        self.n_active += int(np.count_nonzero(np.asarray(solution.value)))
        self.n_steps += int(np.sum(solution.n_steps))
        self.worst = max(self.worst, float(np.max(solution.residual)))


def encode(rows: Any, start: int, stop: int, setting: Setting, note: Any = None) -> Tally:
    """Encode a range of rows, of an array or a folder; whole batches only, so that there is one program."""
    model, penalty = Dictionary(jnp.asarray(true_atoms(setting))), L1(setting.strength)
    tally, pending = Tally(), None
    for first in range(start, stop - setting.batch_size + 1, setting.batch_size):
        batch = rows[first : first + setting.batch_size]
        coming = encode_batch(model, batch, penalty, tol=setting.tol)
        if pending is not None:
            tally.add(pending)
        pending = coming
        if note is not None:
            note(first + setting.batch_size)
    if pending is not None:
        tally.add(pending)
    return tally


def stream(folder: str, setting: Setting) -> dict[str, Any]:
    """Encode all rows from the shards, in a process of its own; watch its memory."""
    rows = data.ShardedRows(folder)
    encode(rows, 0, setting.batch_size, setting)  # compiles
    track, every = [], max(1, setting.n_rows // 200)

    def note(n_done: int) -> None:
        if n_done // every > (n_done - setting.batch_size) // every:
            track.append((n_done * ROW_BYTES / 1e9, memory("VmRSS")))

    start = time.perf_counter()
    tally = encode(rows, 0, len(rows), setting, note)
    return {"seconds": time.perf_counter() - start, **vars(tally), "peak": memory("VmHWM"), "track": track}


def compare(folder: str, setting: Setting) -> dict[str, Any]:
    """Time the first rows from memory and from the shards, part by part in turns."""
    shards = data.ShardedRows(folder)
    held = shards[: setting.n_held]
    drop_cache(Path(folder))
    encode(held, 0, setting.batch_size, setting)
    sources = {MEMORY: held, SHARDS: shards}
    seconds: dict[str, list[float]] = {name: [] for name in sources}
    tallies: dict[str, list[dict]] = {name: [] for name in sources}
    size = setting.n_held // setting.n_parts
    for part in range(setting.n_parts):
        for name in (MEMORY, SHARDS) if part % 2 else (SHARDS, MEMORY):
            start = time.perf_counter()
            tally = encode(sources[name], part * size, (part + 1) * size, setting)
            seconds[name].append(time.perf_counter() - start)
            tallies[name].append(vars(tally))
    if tallies[MEMORY] != tallies[SHARDS]:
        raise SystemExit("The shards gave other codes than the same rows in memory.")
    n_rows = tallies[MEMORY][0]["n_rows"]
    ratio = float(np.median(np.divide(seconds[SHARDS], seconds[MEMORY])))
    return {
        "µs a row": {name: 1e6 * float(np.median(s)) / n_rows for name, s in seconds.items()},
        "ratio": ratio,
    }


def size_for(wanted: float, folder: Path) -> float:
    """Return how many gigabytes there is room for, with three times that free."""
    free = shutil.disk_usage(folder).free / 1e9
    if 3 * wanted > free:
        print(f"{free:.0f} GB are free in {folder}; {free / 3:.3g} GB in place of {wanted:g}.")
    return min(wanted, free / 3)


def apart(function: Any, *arguments: Any) -> dict[str, Any]:
    """Run a function in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=1)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where shards go")
    arguments = parser.parse_args()
    n_rows = int(size_for(arguments.gigabytes, arguments.folder) * 1e9 / ROW_BYTES)
    setting = Setting(n_rows, min(n_rows, int(4e9 / ROW_BYTES)))
    if arguments.quick:
        setting = Setting(20_000, 20_000, n_parts=2, rows_per_shard=7_000, batch_size=1024, n_atoms=16)
    described = {"gigabytes": setting.n_rows * ROW_BYTES / 1e9, **setting._asdict()}
    print(described, common.machine(), sep="\n")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        start = time.perf_counter()
        data.write_shards(Path(folder) / "rows", patches(setting), setting.rows_per_shard)
        print(f"made and written in {time.perf_counter() - start:.0f} s")
        drop_cache(Path(folder) / "rows")
        streamed = apart(stream, str(Path(folder) / "rows"), setting)
        compared = apart(compare, str(Path(folder) / "rows"), setting)
    if max(streamed["worst"], 0) > setting.tol:
        raise SystemExit(f"The worst relative gap is {streamed['worst']}, above {setting.tol}.")
    track = streamed.pop("track")
    early = [mb for gb, mb in track if gb <= 0.1 * track[-1][0]] or [track[0][1]]
    table: list[dict[str, Any]] = [
        {"source": SHARDS, "GB": streamed["n_rows"] * ROW_BYTES / 1e9, "seconds": streamed["seconds"],
         "µs a row": 1e6 * streamed["seconds"] / streamed["n_rows"], "peak MB": streamed["peak"],
         "MB after a tenth": early[-1], "MB at the end": track[-1][1],
         "active": streamed["n_active"] / streamed["n_rows"],
         "mean steps": streamed["n_steps"] / streamed["n_rows"], "worst gap": streamed["worst"]},
    ]  # fmt: skip
    turns: list[dict[str, Any]] = [
        {"source, in turns": name, "GB": setting.n_held * ROW_BYTES / 1e9, "median µs a row": value,
         "time over memory": compared["ratio"] if name == SHARDS else 1.0}
        for name, value in compared["µs a row"].items()
    ]  # fmt: skip
    common.print_table(table)
    common.print_table(turns)
    described["resident memory, (GB, MB)"] = track
    common.save_results(
        arguments.results, "streaming", [*table, *turns], described, _plot(track, turns, streamed["peak"])
    )


def _plot(track: list[tuple[float, float]], turns: list[dict], peak: float) -> Figure:
    figure = Figure((8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*track, strict=True), color="#0072B2", label="resident (VmRSS)")
    left.axhline(peak, color="0.5", ls="--", lw=1, label="peak (VmHWM)")
    left.set(xlabel="streamed (GB)", ylabel="memory (MB)", ylim=(0, 1.15 * peak), title="memory")
    left.legend(frameon=False, loc="lower right")
    times = [row["median µs a row"] for row in turns]
    bars = right.barh([row["source, in turns"] for row in turns], times, color=["0.6", "#0072B2"])
    right.bar_label(bars, [f"{value:.3g}" for value in times], padding=3)
    right.set(xlabel="µs a row", title=f"shards over memory: {turns[-1]['time over memory']:.3f}")
    right.margins(x=0.15)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
