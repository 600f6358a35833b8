"""Does the device ever wait for its input, where data come from files and patches are cut on the fly?

Supply: how fast batches of 512 patches of 16 × 16 come from an array, from a folder of shards
(`ShardedRows` and `batches`), and from 8-bit photographs that are decoded, whitened and cut on the fly,
kept in memory or decoded anew. Demand: what a training step of dictionary learning (512 atoms) and
`encode_stream` consume. Waiting: the time that `fit` spends in the iterator's `next`, the first batch aside,
and its time over that with the same batches ready in a list; both runs must end with the same dictionary, bit
for bit. Encoding from the shards must give the codes from memory.

    python benchmarks/input_pipeline.py [--n-rows 200000] [--n-steps 40] [--repeats 3] [--quick]
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import _common as common
import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from PIL import Image

from neurojax import data, training
from neurojax.penalties import L1
from neurojax.sparse_coding import DictionaryUpkeep, SparseCodingObjective, encode_stream, random_dictionary

BATCH, ATOMS, FEATURES = 512, 512, common.PATCH_SIZE**2
ARRAY, SHARDS = "array in memory", "shards on disk"
PATCHES, DECODED = "patches on the fly, images kept", "patches on the fly, 8 images decoded a batch"
OPTIMIZER = optax.adam(0.01)


class Watched(Iterator):
    """Batches, and the seconds that their consumer waited for them."""

    def __init__(self, batches: Iterator):
        self.batches, self.seconds = batches, 0.0

    def __next__(self) -> np.ndarray:
        start = time.perf_counter()
        batch = next(self.batches)
        self.seconds += time.perf_counter() - start
        return batch


def photographs(images: np.ndarray, folder: Path) -> Path:
    """Write the images as 8-bit files."""
    folder.mkdir()
    low, high = images.min(), images.max()
    for number, image in enumerate(images):
        Image.fromarray(np.uint8(255 * (image - low) / (high - low))).save(folder / f"{number}.png")
    return folder


def sources(
    rows: np.ndarray, shards: data.ShardedRows, folder: Path
) -> dict[str, Callable[[], data.Batches]]:
    """Return the pipelines by name; patches on the fly have the variance of the rows."""
    loaded = data.load_images(folder)
    scale = np.float32(rows.std() / np.mean([data.whiten_1996(image).std() for image in loaded]))

    def whiten(image: np.ndarray) -> jax.Array:
        return scale * data.whiten_1996(image)

    def patches(**settings: Any) -> data.Batches:
        size = common.PATCH_SIZE
        return data.patch_batches(folder, BATCH, patch_size=size, seed=0, prepare=whiten, **settings)

    return {
        ARRAY: lambda: data.batches(rows, BATCH, seed=0),
        SHARDS: lambda: data.batches(shards, BATCH, seed=0),
        PATCHES: lambda: patches(),
        DECODED: lambda: patches(cache_bytes=0, images_per_batch=8),
    }


def supply(stream: data.Batches, n_batches: int) -> float:
    """Return rows a second, warm, with nobody else at work."""
    for batch in itertools.islice(stream, 8):
        assert batch.shape == (BATCH, FEATURES)
    start = time.perf_counter()
    for _ in range(n_batches):
        next(stream)
    seconds = time.perf_counter() - start
    stream.close()
    return n_batches * BATCH / seconds


def learn(batches: Any, n_steps: int) -> np.ndarray:
    """Return the atoms after ``n_steps`` updates."""
    result = training.fit(
        random_dictionary(jax.random.key(0), ATOMS, FEATURES),
        SparseCodingObjective(L1(common.STRENGTH), tol=1e-2),
        batches,
        optimizer=OPTIMIZER,
        n_steps=n_steps,
        key=jax.random.key(1),
        after_update=DictionaryUpkeep(),
        progress=False,
    )
    return np.asarray(result.model.atoms)


def training_rows(
    pipelines: dict[str, Callable[[], data.Batches]], n_steps: int, repeats: int
) -> list[dict[str, object]]:
    """Time `fit` with each input against its batches in a list, which must give the same dictionary."""
    ready: dict[str, list[np.ndarray]] = {}
    for name, make in pipelines.items():
        stream = make()
        ready[name] = list(itertools.islice(stream, n_steps + 1))
        stream.close()
    atoms: dict[str, np.ndarray] = {}

    def through(name: str, is_ready: bool) -> tuple[float, float, float]:
        stream: Any = iter(ready[name]) if is_ready else pipelines[name]()
        start = time.perf_counter()
        next(stream)
        first = time.perf_counter() - start
        watched = Watched(stream)
        start = time.perf_counter()
        learned = learn(watched, n_steps)
        seconds = time.perf_counter() - start
        if isinstance(stream, data.Batches):
            stream.close()
        if not np.array_equal(atoms.setdefault(name, learned), learned):
            raise SystemExit(f"The same batches gave another dictionary through the pipeline ({name}).")
        return seconds, first, watched.seconds

    learn(iter(ready[SHARDS]), 2)
    measured: dict[str, list] = {name: [] for name in pipelines}
    for _ in range(repeats):
        for name in pipelines:
            measured[name].append([through(name, True), through(name, False)])
    table = []
    for name, runs in measured.items():
        (at_hand, _, _), (seconds, first, waited) = np.median(runs, axis=0).tolist()
        table.append({
            "input of fit": name,
            "ms a step, batches ready": 1e3 * at_hand / n_steps,
            "ms a step": 1e3 * seconds / n_steps,
            "ratio": seconds / at_hand,
            "share of time in next": waited / seconds,
            "ms to the first batch": 1e3 * first,
        })  # fmt: skip
    return table


def encoding_rows(rows: np.ndarray, shards: data.ShardedRows, repeats: int) -> list[dict[str, object]]:
    """Time `encode_stream` from memory and from the shards; check that the codes are the same."""
    dictionary = random_dictionary(jax.random.key(0), ATOMS, FEATURES)
    codes: dict[str, Any] = {}

    def encode(name: str, source: Any) -> None:
        solution = encode_stream(dictionary, source, L1(common.STRENGTH), tol=1e-3, sparse=True)
        codes[name] = solution.value

    encode("warm", rows[:4096])
    contenders = {ARRAY: lambda: encode(ARRAY, rows), SHARDS: lambda: encode(SHARDS, shards)}
    seconds = common.interleaved_medians(contenders, repeats)
    if (codes[ARRAY] != codes[SHARDS]).nnz:
        raise SystemExit("The shards gave other codes than the same rows in memory.")
    return [
        {
            "input of encode_stream": name,
            "rows a second": len(rows) / seconds[name],
            "time over memory": seconds[name] / seconds[ARRAY],
        }
        for name in contenders
    ]


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--n-rows", type=int, default=200_000)
    parser.add_argument("--n-encoded", type=int, default=30_000)
    parser.add_argument("--n-steps", type=int, default=40)
    arguments = parser.parse_args()
    n_rows, n_encoded, n_steps = arguments.n_rows, arguments.n_encoded, arguments.n_steps
    repeats, n_supplied = arguments.repeats, 200
    if arguments.quick:
        n_rows, n_encoded, n_steps, repeats, n_supplied = 6_000, 5_000, 4, 1, 20

    images, name = common.whitened_images()
    rows = common.patches(images, n_rows, seed=3)
    setting = {
        "data": name, "images": f"{len(images)} of {images.shape[1]} × {images.shape[2]}, 8-bit PNG",
        "n_rows": n_rows, "n_encoded": n_encoded, "features": FEATURES, "n_atoms": ATOMS,
        "batch_size": BATCH, "n_steps": n_steps, "repeats": repeats, "rows per shard": 20_000,
    }  # fmt: skip
    print(setting, common.machine(), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        shards = data.write_shards(Path(folder) / "rows", rows, 20_000)
        some = data.write_shards(Path(folder) / "some", rows[:n_encoded], 20_000)
        pipelines = sources(rows, shards, photographs(images, Path(folder) / "images"))
        rates = {
            kind: float(
                np.median(
                    [supply(make(), n_supplied // (10 if kind == DECODED else 1)) for _ in range(repeats)]
                )
            )
            for kind, make in pipelines.items()
        }
        trained = training_rows(pipelines, n_steps, repeats)
        encoded = encoding_rows(rows[:n_encoded], some, repeats)
    demand = 1e3 * BATCH / float(str(trained[0]["ms a step, batches ready"]))
    supplied = [
        {
            "supply": kind, "rows a second": rate, "MB a second": rate * FEATURES * 4 / 1e6,
            "supply over the demand of fit": rate / demand,
        }
        for kind, rate in rates.items()
    ]  # fmt: skip
    for table in (supplied, trained, encoded):
        common.print_table(table)
    table = [*supplied, *trained, *encoded]
    common.save_results(
        arguments.results, "input_pipeline", table, setting, _plot(supplied, trained, encoded, demand)
    )


def _plot(supplied: list[dict], trained: list[dict], encoded: list[dict], demand: float) -> Figure:
    figure = Figure((11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    rates = {row["supply"]: row["rows a second"] for row in supplied}
    rates |= {"demand: fit": demand, "demand: encode_stream": encoded[0]["rows a second"]}
    colours = ["tab:blue"] * len(supplied) + ["0.6"] * 2
    bars = left.barh(list(rates), list(rates.values()), color=colours)
    left.bar_label(bars, [f"{rate:,.0f}" for rate in rates.values()], padding=3)
    left.set(xlabel="rows a second", xscale="log", title="supply and demand")
    left.set_xlim(1e3, 20 * max(rates.values()))
    shares = {row["input of fit"]: 100 * row["share of time in next"] for row in trained}
    bars = right.barh(list(shares), list(shares.values()), color="tab:orange")
    right.bar_label(bars, [f"{share:.2g} %" for share in shares.values()], padding=3)
    right.set(
        xlabel="% of the time of fit", title="waiting for a batch", xlim=(0, 1.5 * max(shares.values()))
    )
    for axes in (left, right):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
