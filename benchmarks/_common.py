"""What the benchmarks share: data, dictionaries, the exact certificate, interleaved timing, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax import data, training
from neurojax.convergence import run_in_slots
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    Dictionary,
    DictionaryUpkeep,
    SpaRSA,
    SparseCodingObjective,
    random_dictionary,
)

PATCH_SIZE = 16
STRENGTH = 0.5
RESULTS = Path(__file__).parent / "results"


def whitened_images() -> tuple[np.ndarray, str]:
    """Return whitened images (image, row, column) and their name: the 1996 set where it is at hand."""
    try:
        return np.asarray(data.olshausen_images(), np.float64), "the 1996 images"
    except Exception as error:
        print(f"1996 images not at hand ({type(error).__name__}); the bundled photographs take their place.")
    images = data.rescale_variance(data.whiten_1996(data.natural_images()), 0.079)
    return np.asarray(images, np.float64), "the bundled photographs, whitened"


def digits(is_quick: bool = False) -> tuple[data.LabelledImages, data.LabelledImages, str]:
    """Return training and test digits and their name: all of MNIST where it is at hand and wanted."""
    if not is_quick:
        try:
            return data.mnist("train"), data.mnist("test"), "MNIST"
        except Exception as error:
            print(f"MNIST not at hand ({type(error).__name__}); its bundled part takes its place.")
    return data.mnist_subset("train"), data.mnist_subset("test"), "part of MNIST"


def split_rows(images: np.ndarray, n_held_out: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Keep the bottom rows of every image apart."""
    return images[:, :-n_held_out], images[:, -n_held_out:]


def patches(images: np.ndarray, n_patches: int, seed: int, patch_size: int = PATCH_SIZE) -> np.ndarray:
    """Draw mean-free patches, float32."""
    sampler = data.PatchSampler(images.astype(np.float32), patch_size, n_patches)
    return np.asarray(sampler(jax.random.key(seed)))


def learned_dictionary(
    images: np.ndarray, n_atoms: int, n_steps: int = 400, seed: int = 0, patch_size: int = PATCH_SIZE
) -> Dictionary:
    """Learn unit-length atoms by Adam on codes of relative gap 1e-2."""
    return training.fit(
        random_dictionary(jax.random.key(seed), n_atoms, patch_size**2),
        SparseCodingObjective(L1(STRENGTH), tol=1e-2),
        data.PatchSampler(images.astype(np.float32), patch_size, 250),
        optimizer=optax.adam(0.01),
        n_steps=n_steps,
        key=jax.random.key(seed + 1),
        after_update=DictionaryUpkeep(),
    ).model


def certify(atoms: np.ndarray, xs: np.ndarray, codes: np.ndarray, strength: float) -> tuple[float, float]:
    """Return the worst relative duality gap and the mean objective, in NumPy and float64."""
    atoms, xs, codes = (np.asarray(a, np.float64) for a in (atoms, xs, codes))
    error = xs - codes @ atoms
    correlation = error @ atoms.T
    scale = np.minimum(1, strength / np.abs(correlation).max(axis=1))
    slack = strength * np.abs(codes) - scale[:, None] * codes * correlation
    gap = 0.5 * (1 - scale) ** 2 * np.sum(error**2, axis=1) + slack.sum(axis=1)
    objective = 0.5 * np.sum(error**2, axis=1) + strength * np.abs(codes).sum(axis=1)
    return float(np.max(gap / (0.5 * np.sum(xs**2, axis=1)))), float(objective.mean())


def interleaved_medians(contenders: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Time each contender ``repeats`` times, turn by turn; return median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def longest_first(dictionary: Dictionary, xs: np.ndarray) -> np.ndarray:
    """Return rows in the order in which `encode_batch` takes them: by Σ|prox(x @ atomsᵀ)|."""
    excess = np.maximum(np.abs(np.asarray(xs) @ np.asarray(dictionary.atoms).T) - STRENGTH, 0)
    return np.argsort(-excess.sum(axis=1), kind="stable")


def blocks_of(n_steps: np.ndarray, solver: SpaRSA) -> np.ndarray:
    """Return how many blocks of gradients each row took; steps are counted in gradients."""
    return -(-np.asarray(n_steps) // solver.n_gradients)


def steps_in_slots(counts: np.ndarray, n_slots: int, order: np.ndarray) -> int:
    """Return how often the slots step if row i takes ``counts[i]`` steps: a clock ticks once a step."""
    n_ticks = 0

    def tick(count):
        nonlocal n_ticks
        n_ticks += 1
        return count + 1

    def step(state):
        taken, needed = state
        like = jax.ShapeDtypeStruct((), jnp.int32)
        return jax.pure_callback(tick, like, taken, vmap_method="broadcast_all"), needed

    taken = run_in_slots(
        lambda count: (jnp.int32(0), count), step, lambda state: state[0] >= state[1],
        jnp.asarray(counts, jnp.int32), n_slots=n_slots, order=order, finish=lambda state: state[0],
    )  # fmt: skip
    if not np.array_equal(np.asarray(taken), counts):
        raise SystemExit("The slots took other numbers of steps than the rows need.")
    return n_ticks


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the exponent of the power law fitted to (x, y): the slope in log–log axes, by least squares."""
    return float(np.polyfit(np.log(xs), np.log(ys), 1)[0])


def machine() -> dict[str, str]:
    """Describe what the figures were measured on."""
    return {
        "devices": ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def print_table(rows: list[dict[str, object]]) -> None:
    """Print rows with common keys as a table."""
    names = list(rows[0])
    cells = [names, *[[f"{r[n]:.4g}" if isinstance(r[n], float) else str(r[n]) for n in names] for r in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def save_results(
    folder: Path, name: str, rows: list[dict[str, object]], setting: dict[str, object], figure: Figure
) -> None:
    """Write the table as JSON, and the picture, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"setting": setting, "machine": machine(), "rows": rows}, indent=2) + "\n")
    figure.savefig(path.with_suffix(".png"), dpi=150)
    print(f"written: {path.name}, {path.with_suffix('.png').name} in {folder}")


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the flags that every benchmark has."""
    result = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--repeats", type=int, default=repeats, help="runs of each contender, turn by turn")
    result.add_argument("--quick", action="store_true", help="a short setting that shows that it works")
    result.add_argument("--results", type=Path, default=RESULTS, help="folder of the table and the picture")
    return result
