"""Certified codes on an accelerator, beside peers on the same machine's CPU cores."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import _common as common
import inference_speed
import jax
import jax.numpy as jnp
import numpy as np
import roofline
from _gpu_report import Part

from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, SpaRSA, encode_batch, random_dictionary

TOLS = (1e-4, 1e-5)
OURS, OURS_ON_CPU = "neurojax encode_batch, float32", "neurojax encode_batch, float32, CPU"
CODES, SLOTS = "certified codes", "slots"


class Setting(NamedTuple):
    """Sizes of the part."""

    n_patches: int = 100_000
    sizes: tuple[int, ...] = (512, 1024)
    n_slots: tuple[int, ...] = (4096, 16_384, 2048, 32_768)  # besides the default; the likely ones first
    n_learning_steps: int = 200  # of the dictionaries; 0: random atoms
    n_cpu: int = 5000  # rows of the peers that work through many rows quickly
    n_few: int = 200  # rows of the others
    cpu_slots: int | None = 768  # of the library's own codes on the CPU
    repeats: int = 3
    side: int = 8192  # of the matrices whose product gives the rate


QUICK = Setting(256, (100,), (64,), 0, 256, 20, None, 1, 256)


class Job(NamedTuple):
    """A dictionary, its data, and what a block of steps costs."""

    atoms: np.ndarray
    xs: np.ndarray
    flops_a_block: int  # for one row
    way: str  # how gradients are taken


def on_cpu() -> AbstractContextManager[Any]:
    """Return a context in which arrays and programs are on the CPU; it changes nothing if they are anyway."""
    is_there = jax.default_backend() == "cpu"
    return nullcontext() if is_there else jax.default_device(jax.devices("cpu")[0])


def seconds_of(run: Callable[[], Any], repeats: int) -> tuple[Any, float, float]:
    """Return the result, the median seconds, and what the first call took beyond that: its compilation."""
    start = time.perf_counter()
    result = run()
    first = time.perf_counter() - start
    median = common.interleaved_medians({"run": run}, repeats)["run"]
    return result, median, max(first - median, 0.0)


def product_rate(side: int, repeats: int) -> float:
    """Return the floating-point operations per second of a large float32 product at full precision."""
    left, right = jax.random.normal(jax.random.key(0), (2, side, side), jnp.float32)
    multiply = jax.jit(roofline.multiply)
    n_products = 10

    def run() -> None:
        jax.block_until_ready([multiply(left, right) for _ in range(n_products)])

    run()
    return 2 * side**3 * n_products / common.interleaved_medians({"run": run}, max(repeats, 3))["run"]


def make_job(train: np.ndarray, test: np.ndarray, n_atoms: int, setting: Setting) -> Job:
    """Learn a dictionary on the CPU, where its programs compile in less time, and draw the patches."""
    with on_cpu():
        dictionary = random_dictionary(jax.random.key(0), n_atoms, common.PATCH_SIZE**2)
        if setting.n_learning_steps:
            dictionary = common.learned_dictionary(train, n_atoms, setting.n_learning_steps)
        xs = common.patches(test, setting.n_patches, seed=11)
        job = roofline.make_job(dictionary, xs[:64], 64)
        flops = roofline.flops_a_block(job, SpaRSA().block_size)
        return Job(np.asarray(dictionary.atoms), xs, flops, roofline.way_of(job))


def certify(job: Job, codes: np.ndarray) -> float:
    """Return the worst relative gap in float64, a few rows at a time."""
    parts = [slice(i, i + 5000) for i in range(0, len(codes), 5000)]
    return max(common.certify(job.atoms, job.xs[p], codes[p], common.STRENGTH)[0] for p in parts)


def row_of(job: Job, name: str, n_rows: int, seconds: float, gap: float, tol: float | None) -> dict:
    """Return a row of the table; the columns that only our own codes have are blank."""
    return {
        "atoms": len(job.atoms), "contender": name, "tol": tol or "its own", "rows": n_rows,
        "ms per 1000 rows": 1e6 * seconds / n_rows, "worst gap": gap,
        "gap ≤ 1e-4": "yes" if gap <= 1.01e-4 else "no", "gap ≤ 1e-5": "yes" if gap <= 1.01e-5 else "no",
        "steps a row": "–", "TFLOP/s": "–", "share of product rate": "–", "compilation, s": "–",
    }  # fmt: skip


def encode_and_certify(
    job: Job, name: str, tol: float, repeats: int, rate: float, n_slots: int | None = None, **settings: Any
) -> tuple[dict, np.ndarray]:
    """Encode all rows, certify them, then return a row of the table and the codes."""
    # Tolerances are arrays, so that another one compiles nothing.
    dictionary, xs, limit = Dictionary(jnp.asarray(job.atoms)), jnp.asarray(job.xs), jnp.float32(tol)

    def run() -> Any:
        penalty = L1(common.STRENGTH)
        return jax.block_until_ready(
            encode_batch(dictionary, xs, penalty, tol=limit, n_slots=n_slots, **settings)
        )  # type: ignore[arg-type]

    solution, seconds, compilation = seconds_of(run, repeats)
    codes = np.asarray(solution.value)
    gap = certify(job, codes)
    if gap > 1.01 * tol:
        raise SystemExit(f"{name}: expected gaps of at most {tol}, got {gap:.3g}.")
    n_blocks = common.blocks_of(np.asarray(solution.n_steps), SpaRSA())
    reached = job.flops_a_block * float(n_blocks.sum()) / seconds
    row = row_of(job, name, len(job.xs), seconds, gap, tol)
    row |= {
        "steps a row": float(np.mean(solution.n_steps)), "TFLOP/s": reached / 1e12,
        "share of product rate": reached / rate, "compilation, s": compilation,
    }  # fmt: skip
    return row, codes


def peers(n_cores: int, setting: Setting) -> dict[str, tuple[list[Any], str, int]]:
    """Return the peers by name: their ways of working, their module, and the number of rows."""
    return {
        f"SPAMS LARS, float64, {n_cores} threads": ([_spams(n_cores)], "spams", setting.n_cpu),
        f"scikit-learn lasso_cd, best of 1 and {n_cores} jobs": (
            [inference_speed.scikit_learn("lasso_cd", n) for n in (1, n_cores)], "sklearn", setting.n_cpu,
        ),
        f"scikit-learn lasso_lars, {n_cores} jobs": (
            [inference_speed.scikit_learn("lasso_lars", n_cores)], "sklearn", setting.n_few,
        ),
    }  # fmt: skip


def _spams(n_threads: int) -> Callable[[Dictionary, np.ndarray], inference_speed.Run]:
    def make(dictionary: Dictionary, xs: np.ndarray) -> inference_speed.Run:
        spams: Any = importlib.import_module("spams")
        atoms = np.asfortranarray(np.asarray(dictionary.atoms, np.float64).T)
        rows = np.asfortranarray(xs.astype(np.float64).T)
        return inference_speed.Run(
            lambda: spams.lasso(rows, D=atoms, lambda1=common.STRENGTH, mode=2, numThreads=n_threads),
            lambda codes: codes.toarray().T,
        )

    return make


def measure_peer(part: Part, job: Job, name: str, ways: list[Any], truth: np.ndarray, repeats: int) -> None:
    """Certify a peer's codes of the rows that ``truth`` has, then time its quickest way."""
    xs, dictionary = job.xs[: len(truth)], Dictionary(job.atoms)
    expected = common.certify(job.atoms, xs, truth, common.STRENGTH)[1]
    timed = []
    for make in ways:
        run = make(dictionary, xs)
        codes = run.dense(run.call())
        gap, objective = common.certify(job.atoms, xs, codes, common.STRENGTH)
        if not np.isclose(objective, expected, rtol=1e-3):
            raise SystemExit(f"The answers differ: {name} has {objective}, expected {expected}.")
        timed.append((common.interleaved_medians({"run": run.call}, repeats)["run"], gap))
    seconds, gap = min(timed)
    part.add(CODES, row_of(job, name, len(xs), seconds, gap, None))


def measure_ours(part: Part, job: Job, rate: float, setting: Setting) -> np.ndarray | None:
    """Measure `encode_batch` as called by default, there and on the CPU; return codes of the first rows."""
    n_atoms, repeats, truth = len(job.atoms), setting.repeats, None
    for tol in TOLS:
        found = part.attempt(
            f"codes, {n_atoms} atoms, gap {tol}", "codes", 30.0,
            lambda tol=tol: encode_and_certify(job, OURS, tol, repeats, rate),
        )  # fmt: skip
        if found is not None:
            part.add(CODES, found[0])
            truth = found[1][: setting.n_cpu]
    few = job._replace(xs=job.xs[: setting.n_cpu])
    with on_cpu():
        found = part.attempt(
            f"codes on the CPU, {n_atoms} atoms", "codes on the CPU", 20.0,
            lambda: encode_and_certify(few, OURS_ON_CPU, TOLS[1], repeats, rate, setting.cpu_slots),
        )  # fmt: skip
    if found is not None:
        part.add(CODES, found[0] | {"share of product rate": "–"})
        truth = found[1]
    return truth


def measure_peers(part: Part, job: Job, setting: Setting, truth: np.ndarray) -> None:
    """Measure the peers that are installed."""
    for name, (ways, module, n_rows) in peers(os.cpu_count() or 1, setting).items():
        if importlib.util.find_spec(module) is None:
            part.leave_out(f"{name} (not installed)")
            continue
        part.attempt(
            f"{name}, {len(job.atoms)} atoms", name, 20.0,
            lambda name=name, ways=ways, n_rows=n_rows: measure_peer(
                part, job, name, ways, truth[:n_rows], setting.repeats
            ),
        )  # fmt: skip


def sweep(part: Part, job: Job, rate: float, setting: Setting) -> None:
    """Measure several numbers of slots with the solver that an accelerator takes; name the best."""
    n_atoms = len(job.atoms)
    for n_slots in setting.n_slots:
        found = part.attempt(
            f"{n_slots} slots, {n_atoms} atoms", f"slots, {n_atoms}", 15.0,
            lambda n_slots=n_slots: encode_and_certify(
                job, f"{n_slots} slots", TOLS[0], setting.repeats, rate, n_slots=n_slots, solver=SpaRSA()
            ),
        )  # fmt: skip
        if found is None:
            continue
        kept = ("ms per 1000 rows", "worst gap", "TFLOP/s", "share of product rate", "compilation, s")
        part.add(SLOTS, {"atoms": n_atoms, "slots": n_slots, **{name: found[0][name] for name in kept}})
    rows = [row for row in part.tables.get(SLOTS, []) if row["atoms"] == n_atoms]
    if rows:
        best = min(rows, key=lambda row: row["ms per 1000 rows"])
        part.note(f"best number of slots measured, {n_atoms} atoms", best["slots"])


def measure(part: Part, setting: Setting, train: np.ndarray, test: np.ndarray) -> None:
    """Measure rate, codes, peers and slots, the essential figures of all sizes first."""
    rate = product_rate(setting.side, setting.repeats)
    part.note("TFLOP/s of a float32 product at full precision", rate / 1e12)
    jobs = []
    for n_atoms in setting.sizes:
        job = part.attempt(
            f"dictionary of {n_atoms} atoms", "dictionary", 15.0,
            lambda n_atoms=n_atoms: make_job(train, test, n_atoms, setting),
        )  # fmt: skip
        if job is None:
            continue
        jobs.append(job)
        part.note(f"products of {n_atoms} atoms by", job.way)
        truth = measure_ours(part, job, rate, setting)
        if truth is not None:
            measure_peers(part, job, setting, truth)
    for job in jobs:
        sweep(part, job, rate, setting)
