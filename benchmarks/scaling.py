"""How does the cost of certified codes grow with rows, atoms, features and tolerance?

Whitened patches, learned atoms, ½‖x − z @ atoms‖² + 0.5‖z‖₁, float32. Rows: 1e3 to 1e6 of them through
`encode_stream`, in blocks whose codes are counted and dropped; each number in a process of its own, which
also reports its peak resident memory, and what it was after one block. Atoms, features
(patches of 8 to 24 pixels a side) and tolerance: `encode_batch` on 4000 patches, medians of several turns.
Compilation is not counted. Every code's gap is checked. Slopes are those in log–log axes, by least squares;
beyond the growth of the products (atoms · features, or atoms²) they hold the growth of the steps.

    python benchmarks/scaling.py [--most-rows 1000000] [--n-atoms 512] [--repeats 3] [--quick]
"""

from __future__ import annotations

import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from neurojax import data
from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, encode_batch, encode_stream

TOL = 1e-4
BLOCK = 20_000  # rows that are drawn at once, and handed to one call of `encode_stream`

ROWS = (1000, 10_000, 100_000, 1_000_000)  # each at most a block, or whole blocks


class Setting(NamedTuple):
    """What is varied."""

    rows: tuple[int, ...]
    atoms: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    sides: tuple[int, ...] = (8, 12, 16, 24)
    tols: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5, 2e-6)
    n_atoms: int = 512  # where it is not varied
    n_patches: int = 4000
    n_learning: int = 200
    repeats: int = 3


def peak_memory() -> float:
    """Return the peak resident memory of this process, MB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would start from what the parent had when it forked
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def stream(atoms: np.ndarray, images: np.ndarray, n_rows: int) -> dict[str, float]:
    """Encode so many rows, block by block, in a process of its own; few rows several times over."""
    dictionary, penalty = Dictionary(jnp.asarray(atoms)), L1(common.STRENGTH)
    n_block = min(BLOCK, n_rows)
    sampler = data.PatchSampler(images.astype(np.float32), common.PATCH_SIZE, n_block)
    draw = eqx.filter_jit(lambda seed: sampler(jax.random.key(seed)))
    encode_stream(dictionary, np.asarray(draw(0)), penalty, tol=TOL)  # compiles
    before = peak_memory()
    n_all = n_rows * max(1, BLOCK // n_rows)
    seconds, n_active, n_steps, worst = 0.0, 0, 0, 0.0
    for seed in range(1, n_all // n_block + 1):
        block = np.asarray(draw(seed))
        start = time.perf_counter()
        solution = encode_stream(dictionary, block, penalty, tol=TOL)
        seconds += time.perf_counter() - start
        n_active += int(np.count_nonzero(solution.value))
        n_steps += int(np.sum(solution.n_steps))
        worst = max(worst, float(np.max(solution.residual)))
    return {
        "seconds": seconds * n_rows / n_all, "ms per 1000 rows": 1e6 * seconds / n_all,
        "peak MB": peak_memory(), "MB after 1 block": before, "active": n_active / n_all,
        "mean steps": n_steps / n_all, "worst gap": worst,
    }  # fmt: skip


def against_rows(setting: Setting, train: np.ndarray, test: np.ndarray) -> list[dict[str, Any]]:
    """Measure each number of rows in a process of its own."""
    atoms = np.asarray(common.learned_dictionary(train, setting.n_atoms, setting.n_learning).atoms)
    table = []
    for n_rows in setting.rows:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            table.append({"rows": n_rows, **pool.submit(stream, atoms, test, n_rows).result()})
    return table


def measure(name: str, value: float, dictionary: Dictionary, xs: np.ndarray, tol: float, repeats: int):
    """Return a row of a table: the median time of `encode_batch`, steps and gap."""
    batch, penalty = jnp.asarray(xs), L1(common.STRENGTH)

    def run():
        return jax.block_until_ready(encode_batch(dictionary, batch, penalty, tol=tol))

    solution = run()
    gap, _ = common.certify(np.asarray(dictionary.atoms), xs, np.asarray(solution.value), common.STRENGTH)
    if gap > max(1.01 * tol, tol + 3e-6):
        raise SystemExit(f"{name} = {value}: the worst relative gap is {gap}, above {tol}.")
    seconds = common.interleaved_medians({"": run}, repeats)[""]
    return {
        name: value, "ms per 1000 rows": 1e6 * seconds / len(xs),
        "mean steps": float(np.mean(solution.n_steps)),
        "active": float((np.asarray(solution.value) != 0).sum(1).mean()), "worst gap": gap,
    }  # fmt: skip


def sweeps(setting: Setting, train: np.ndarray, test: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Vary atoms, features and tolerance, one at a time."""
    tables: dict[str, list[dict[str, Any]]] = {"atoms": [], "features": [], "tolerance": []}

    @cache
    def learned(n_atoms: int, side: int) -> Dictionary:
        return common.learned_dictionary(train, n_atoms, setting.n_learning, patch_size=side)

    @cache
    def drawn(side: int) -> np.ndarray:
        return common.patches(test, setting.n_patches, seed=11, patch_size=side)

    side = common.PATCH_SIZE
    for n in setting.atoms:
        row = measure("atoms", n, learned(n, side), drawn(side), TOL, setting.repeats)
        tables["atoms"].append(row)
    for n in setting.sides:
        row = measure("features", n**2, learned(setting.n_atoms, n), drawn(n), TOL, setting.repeats)
        tables["features"].append(row)
    for tol in setting.tols:
        dictionary = learned(setting.n_atoms, side)
        tables["tolerance"].append(measure("tolerance", tol, dictionary, drawn(side), tol, setting.repeats))
    return tables


def slopes(tables: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Return the slope of the time against each quantity."""
    return {
        name: common.slope([row[name] for row in rows], [_time(row) for row in rows])
        for name, rows in tables.items()
    }


def _time(row: dict[str, Any]) -> float:
    return row.get("seconds", row["ms per 1000 rows"])


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--most-rows", type=int, default=1_000_000)
    parser.add_argument("--n-atoms", type=int, default=512)
    arguments = parser.parse_args()
    rows = tuple(n for n in ROWS if n <= arguments.most_rows)
    setting = Setting(rows, n_atoms=arguments.n_atoms, repeats=arguments.repeats)
    if arguments.quick:
        setting = Setting((1000, 10_000), (32, 64), (8, 16), (1e-2, 1e-4), 64, 500, 20, 1)
    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    print({"data": name, **setting._asdict()}, common.machine(), sep="\n")
    tables = {"rows": against_rows(setting, train, test), **sweeps(setting, train, test)}
    fitted = slopes(tables)
    for quantity, table in tables.items():
        print(f"\nagainst {quantity}: slope {fitted[quantity]:.3f}")
        common.print_table(table)
    flat = [{"against": quantity, **row} for quantity, table in tables.items() for row in table]
    described = {"data": name, "tol": TOL, "slopes": fitted, **setting._asdict()}
    common.save_results(arguments.results, "scaling", flat, described, _plot(tables, fitted))


def _plot(tables: dict[str, list[dict[str, Any]]], fitted: dict[str, float]) -> Figure:
    figure = Figure((13, 3.2), layout="constrained")
    panels = figure.subplots(1, len(tables) + 1)
    for axes, (quantity, table) in zip(panels, tables.items(), strict=False):
        xs, ys = [row[quantity] for row in table], [_time(row) for row in table]
        axes.loglog(xs, ys, "o", color="C0")
        offset = np.mean(np.log(ys)) - fitted[quantity] * np.mean(np.log(xs))
        axes.loglog(xs, np.exp(offset) * np.power(xs, fitted[quantity]), "-", color="0.6", zorder=0)
        if quantity in ("atoms", "features"):
            axes.set_xticks(xs, [str(x) for x in xs])
            axes.set_xticks([], minor=True)
        label = "seconds" if quantity == "rows" else "ms per 1000 rows"
        axes.set(xlabel=quantity, ylabel=label, title=f"slope {fitted[quantity]:.2f}")
    rows = [row["rows"] for row in tables["rows"]]
    panels[-1].semilogx(rows, [row["peak MB"] for row in tables["rows"]], "o-", label="peak")
    panels[-1].semilogx(
        rows, [row["MB after 1 block"] for row in tables["rows"]], "o:", label="after the first block"
    )
    panels[-1].set(xlabel="rows", ylabel="resident memory (MB)", title="memory")
    panels[-1].set_ylim(0, 1.15 * max(row["peak MB"] for row in tables["rows"]))
    panels[-1].legend(frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
