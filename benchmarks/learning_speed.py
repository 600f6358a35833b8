"""How much faster than the published loop is learning with certified inference, and is it as good?

Both learn 100 atoms of 16 × 16 on the same whitened images, 500 steps of 250 patches, ΔΦ = 0.01 Σ error·code,
atoms of unit length. The library's codes have a relative duality gap of at most 1e-3; those of the published
loop stop by its own rule. Judged by the objective of certified codes
of held-out patches, ½‖x − z @ atoms‖² + 0.5‖z‖₁.

    python benchmarks/learning_speed.py [--n-steps 500] [--repeats 3] [--quick]
"""

from __future__ import annotations

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import published_loop
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

from neurojax import data, training
from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, DictionaryUpkeep, SparseCodingObjective, encode_batch

TOL = 1e-3


PUBLISHED = "published loop (NumPy, float64)"
COMPILING = "neurojax (float32, certified), compilation included"
COMPILED = "neurojax (float32, certified), compiled before"


def make_optimizer() -> optax.GradientTransformation:
    """Return the published update: its step is for a sum over the batch, the objective is a mean."""
    settings = published_loop.Settings()
    return optax.sgd(settings.atom_step * settings.batch_size)


def learn(images: np.ndarray, n_steps: int, optimizer: optax.GradientTransformation) -> training.FitResult:
    """Learn from the published start, in float32, on random patches drawn on the device.

    A program is compiled once for each optimiser object, so a new one means a new compilation.
    """
    settings = published_loop.Settings()
    phi, _ = published_loop.random_sequence(images, settings)
    return training.fit(
        Dictionary(jnp.asarray(phi.T / np.linalg.norm(phi.T, axis=1, keepdims=True))),
        SparseCodingObjective(L1(common.STRENGTH), tol=TOL),
        data.PatchSampler(images.astype(np.float32), settings.patch_size, settings.batch_size),
        optimizer=optimizer,
        n_steps=n_steps,
        key=jax.random.key(0),
        after_update=DictionaryUpkeep(),
        progress=False,
    )


def held_out_objective(atoms: np.ndarray, xs: np.ndarray) -> tuple[float, float]:
    """Return the worst relative gap and the mean objective of certified codes in float64."""
    with jax.enable_x64(True):
        dictionary = Dictionary(np.asarray(atoms, np.float64))
        codes = encode_batch(
            dictionary, np.asarray(xs, np.float64), L1(jnp.float64(common.STRENGTH)), tol=1e-8
        )
    return common.certify(atoms, xs, np.asarray(codes.value), common.STRENGTH)


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--n-steps", type=int, default=500)
    arguments = parser.parse_args()
    n_steps, repeats = (30, 1) if arguments.quick else (arguments.n_steps, arguments.repeats)

    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    xs = common.patches(test, 1000, seed=7)
    compiled_optimizer = make_optimizer()
    learn(train, 1, compiled_optimizer)
    learned: dict[str, np.ndarray] = {}
    worst_gaps: dict[str, float] = {}

    def published() -> None:
        # One thread is this loop's best: its SVDs are too small for two.
        with threadpool_limits(1):
            learned[PUBLISHED] = published_loop.run(train, n_steps=n_steps).phi.T

    def library(contender: str, optimizer: optax.GradientTransformation) -> None:
        result = learn(train, n_steps, optimizer)
        learned[contender] = np.asarray(result.model.atoms)
        worst_gaps[contender] = float(np.max(result.history["worst_residual"]))

    contenders = {
        PUBLISHED: published,
        COMPILING: lambda: library(COMPILING, make_optimizer()),
        COMPILED: lambda: library(COMPILED, compiled_optimizer),
    }
    seconds = common.interleaved_medians(contenders, repeats)
    rows = []
    for contender, atoms in learned.items():
        atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
        gap, objective = held_out_objective(atoms, xs)
        rows.append({
            "contender": contender,
            "seconds": seconds[contender],
            "ratio": seconds[PUBLISHED] / seconds[contender],
            "worst gap while learning": worst_gaps.get(contender, "not certified"),
            "held-out objective": objective,
            "its gap": gap,
        })  # fmt: skip
    setting = {
        "data": name, "n_steps": n_steps, "batch_size": 250, "n_atoms": 100, "features": 256, "tol": TOL,
        "repeats": repeats,
    }  # fmt: skip
    print(setting, common.machine(), sep="\n")
    common.print_table(rows)
    common.save_results(arguments.results, "learning_speed", rows, setting, _plot(rows, n_steps))


def _plot(rows: list[dict[str, object]], n_steps: int) -> Figure:
    figure = Figure((9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [str(row["contender"]).replace("), ", "),\n") for row in rows]
    bars = left.barh(names, [row["seconds"] for row in rows], color=["0.6", "tab:blue", "tab:cyan"])
    left.bar_label(bars, [f"{row['seconds']:.1f} s" for row in rows], padding=3)
    left.set(xlabel="time (s)", title=f"{n_steps} learning steps")
    left.margins(x=0.2)
    bars = right.barh(
        names, [row["held-out objective"] for row in rows], color=["0.6", "tab:blue", "tab:cyan"]
    )
    right.bar_label(bars, [f"{row['held-out objective']:.2f}" for row in rows], padding=3)
    right.set(xlabel="held-out objective", title="certified codes, float64", yticks=[])
    right.margins(x=0.2)
    return figure


if __name__ == "__main__":
    main()
