"""Which way of learning a dictionary reaches a held-out objective first?

All contenders learn from the same 100,000 mean-free patches (16 × 16) of the whitened images and start from
the same random atoms; λ = 0.5. Judged by the objective of certified codes of 1000 other patches,
½‖x − z @ atoms‖² + 0.5‖z‖₁, atoms scaled to unit length for all alike, against the seconds of learning. Each
point is a run of its own, from the start. JAX programs are compiled before; what that takes is told apart.

    python benchmarks/dictionary_learning.py [--quick] [--results FOLDER]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from importlib.util import find_spec
from typing import Any

import _common as common
import jax
import numpy as np
import optax
import published_loop
from learning_speed import held_out_objective
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from neurojax.penalties import L1
from neurojax.sparse_coding import (
    Dictionary,
    DictionaryUpkeep,
    SparseCodingObjective,
    fit_dictionary_online,
    random_dictionary,
)
from neurojax.training import fit

BATCH_SIZE = 512
ONLINE, ADAM = "neurojax, online", "neurojax, Adam"
SPAMS, SKLEARN = "SPAMS trainDL, 2 threads", "scikit-learn MiniBatchDictionaryLearning"
PUBLISHED = "published loop (NumPy)"
PENALTY = L1(common.STRENGTH)
ADAM_OPTIMIZER = optax.adam(0.01)
ADAM_OBJECTIVE = SparseCodingObjective(PENALTY, tol=1e-2)

Learn = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def online(start: np.ndarray, patches: np.ndarray, n_steps: int) -> np.ndarray:
    settings = {"batch_size": BATCH_SIZE, "key": jax.random.key(1), "progress": False}
    result = fit_dictionary_online(Dictionary(start), PENALTY, patches, n_steps=n_steps, **settings)
    return np.asarray(result.model.atoms)


def adam(start: np.ndarray, patches: np.ndarray, n_steps: int) -> np.ndarray:
    settings = {"batch_size": BATCH_SIZE, "key": jax.random.key(1), "progress": False}
    result = fit(
        Dictionary(start), ADAM_OBJECTIVE, patches, optimizer=ADAM_OPTIMIZER, n_steps=n_steps,
        after_update=_upkeep, **settings,
    )  # fmt: skip
    return np.asarray(result.model.atoms)


_upkeep = DictionaryUpkeep()


def spams_online(start: np.ndarray, patches: np.ndarray, n_steps: int) -> np.ndarray:
    import spams  # pyright: ignore[reportMissingImports]

    atoms = spams.trainDL(
        np.asfortranarray(patches.T, np.float64), D=np.asfortranarray(start.T, np.float64),
        lambda1=common.STRENGTH, mode=2, modeD=0, iter=n_steps, batchsize=BATCH_SIZE, numThreads=2,
        verbose=False,
    )  # fmt: skip
    return np.asarray(atoms).T


def sklearn_online(start: np.ndarray, patches: np.ndarray, n_steps: int) -> np.ndarray:
    from sklearn.decomposition import MiniBatchDictionaryLearning

    seen = patches[: n_steps * BATCH_SIZE]
    settings: dict[str, Any] = {
        "alpha": common.STRENGTH, "batch_size": BATCH_SIZE, "max_iter": 1, "shuffle": False,
        "dict_init": start.astype(np.float64), "fit_algorithm": "cd", "max_no_improvement": None, "tol": 0.0,
    }  # fmt: skip
    return MiniBatchDictionaryLearning(len(start), **settings).fit(seen.astype(np.float64)).components_


def published(start: np.ndarray, patches: np.ndarray, n_steps: int) -> np.ndarray:
    """Run the published steps on the given patches, 250 at a time, on one thread, which is its best."""
    settings = published_loop.Settings()
    rng, phi = np.random.default_rng(0), start.T.astype(np.float32)
    with threadpool_limits(1):
        for _ in range(n_steps):
            batch = patches[rng.integers(len(patches), size=settings.batch_size)].astype(np.float64)
            phi = phi / np.maximum(np.linalg.norm(phi, axis=0, keepdims=True), 1e-8)
            codes, _, has_converged = published_loop.infer(batch, phi, settings)
            if has_converged:
                phi = (phi + settings.atom_step * (batch - codes @ phi.T).T @ codes).astype(np.float32)
    return phi.T


def judge(atoms: np.ndarray, xs: np.ndarray) -> tuple[float, float]:
    """Return the worst gap and the held-out objective, at unit length."""
    return held_out_objective(atoms / np.linalg.norm(atoms, axis=1, keepdims=True), xs)


def measure(
    learn: Learn, start, patches, xs, points: Iterable[int], is_compiled: bool
) -> list[dict[str, float]]:
    """Run a contender from the start to each of its points."""
    compiling = 0.0
    if is_compiled:
        first = time.perf_counter()
        learn(start, patches, 1)
        again = time.perf_counter()
        learn(start, patches, 1)
        compiling = 2 * again - first - time.perf_counter()
    rows = []
    for n_steps in points:
        begun = time.perf_counter()
        atoms = learn(start, patches, n_steps)
        seconds = time.perf_counter() - begun
        gap, objective = judge(atoms, xs)
        rows.append({
            "steps": n_steps, "seconds": seconds, "compilation": compiling, "held-out objective": objective,
            "its gap": gap,
        })  # fmt: skip
    return rows


def contenders(n_atoms: int, last: int, is_quick: bool) -> dict[str, tuple[Learn, list[int], bool]]:
    """Return what learns, for how many steps, and whether it compiles; what is not installed is left out."""
    points = sorted({min(last, n) for n in (10, 40, 80, last)})
    chosen: dict[str, tuple[Learn, list[int], bool]] = {
        ONLINE: (online, points, True),
        ADAM: (adam, points, True),
    }
    if find_spec("spams"):
        chosen[SPAMS] = (spams_online, points, False)
    if find_spec("sklearn") and (n_atoms <= 100 or not is_quick):
        # At 512 atoms it is slow; its first part is enough to be seen.
        chosen[SKLEARN] = (sklearn_online, points if n_atoms <= 100 else points[:2], False)
    if n_atoms == 100:
        n_steps = 4 if is_quick else published_loop.Settings().n_steps
        chosen[PUBLISHED] = (published, [n_steps], False)
    return chosen


def seconds_to(rows: list[dict[str, object]], target: float) -> float:
    """Return the seconds after which an objective was first seen reached; infinity where it was not."""
    return min(
        (float(str(r["seconds"])) for r in rows if float(str(r["held-out objective"])) <= target),
        default=np.inf,
    )


def compare(rows: list[dict[str, object]], n_atoms: int) -> list[dict[str, object]]:
    """Hold the online learner's time to each other's last objective against the other's time for it."""
    of = partial(_of, rows, n_atoms)
    result: list[dict[str, object]] = []
    for name in dict.fromkeys(str(row["contender"]) for row in rows):
        theirs = of(name)
        if name == ONLINE or not theirs:
            continue
        ours = seconds_to(of(ONLINE), float(str(theirs[-1]["held-out objective"])))
        is_reached = np.isfinite(ours)
        result.append({
            "atoms": n_atoms, "against": name, "objective": theirs[-1]["held-out objective"],
            "its seconds": theirs[-1]["seconds"], "online seconds": ours if is_reached else "not reached",
            "ratio": float(str(theirs[-1]["seconds"])) / ours if is_reached else "not reached",
        })  # fmt: skip
    return result


def _of(rows: list[dict[str, object]], n_atoms: int, contender: str) -> list[dict[str, object]]:
    return [row for row in rows if row["atoms"] == n_atoms and row["contender"] == contender]


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=1).parse_args()
    n_patches, sizes = (4096, [100]) if arguments.quick else (100_000, [100, 512])
    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    patches, xs = common.patches(train, n_patches, seed=1), common.patches(test, 1000, seed=7)
    rows: list[dict[str, object]] = []
    for n_atoms in sizes:
        start = np.asarray(random_dictionary(jax.random.key(0), n_atoms, patches.shape[1]).atoms)
        for contender, (learn, points, is_compiled) in contenders(
            n_atoms, n_patches // BATCH_SIZE, arguments.quick
        ).items():
            measured = measure(learn, start, patches, xs, points, is_compiled)
            rows += [{"atoms": n_atoms, "contender": contender, **row} for row in measured]
            print(f"{n_atoms} atoms, {contender}: {measured[-1]['held-out objective']:.3f}", flush=True)
    comparison = [row for n_atoms in sizes for row in compare(rows, n_atoms)]
    absent = [package for package in ("spams", "sklearn") if not find_spec(package)]
    setting = {
        "data": name, "patches": n_patches, "features": patches.shape[1], "strength": common.STRENGTH,
        "batch_size": BATCH_SIZE, "absent": absent, "time to the other's last objective": comparison,
    }  # fmt: skip
    print(name, common.machine(), f"absent: {absent}", sep="\n")
    common.print_table(rows)
    common.print_table(comparison)
    common.save_results(arguments.results, "dictionary_learning", rows, setting, _plot(rows, sizes))


def _plot(rows: list[dict[str, object]], sizes: list[int]) -> Figure:
    figure = Figure((5 * len(sizes), 3.5), layout="constrained")
    for axes, n_atoms in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        for name in dict.fromkeys(str(row["contender"]) for row in rows):
            points = _of(rows, n_atoms, name)
            axes.plot(
                [p["seconds"] for p in points], [p["held-out objective"] for p in points], ".-", label=name
            )
        axes.set(xlabel="seconds of learning", title=f"{n_atoms} atoms", xscale="log")
        axes.set(ylabel="held-out objective")
    figure.axes[0].legend(fontsize="small")
    return figure


if __name__ == "__main__":
    main()
