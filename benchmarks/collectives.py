"""What do devices send each other in a training step, and how far does that let training scale?

Programs are compiled for eight devices (of the host, in a child process), and every collective is read from
the optimised program: what it moves, over how many devices, once a block, each step, or in a loop within it;
conditional ones (dead atoms are replaced) are listed but not counted into a step. The efficiency of weak
scaling is then predicted, not measured: share of a step's time that is not communication,

    step / (step + Σ over all-reduces: 2(n − 1)/n · bytes/bandwidth + hops · latency),

nothing overlapped, every device as fast as the slowest, no contention between nodes. Rings take 2(n − 1)
hops, trees 2·⌈log₂ n⌉. Within a node of 8 a ring over NVLink; between nodes each device carries an eighth
of the bytes. The step is one device's share, timed in this run on this machine's CPU; the step of an
accelerator is that divided by an assumed factor.

    python benchmarks/collectives.py [--speed-up 50] [--repeats 5] [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _programs import Collective, collectives, n_bytes
from matplotlib.figure import Figure

from neurojax import autoencoder, boltzmann, distributed
from neurojax.chains import sample_chains
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    AtomUsage,
    DictionaryUpkeep,
    SparseCodingObjective,
    encode_batch,
    random_dictionary,
)
from neurojax.training import _block, _fit, _sources

N_DEVICES = 8


class Sizes(NamedTuple):
    """Sizes of the programs; a share is what one device does."""

    n_atoms: int = 512
    side: int = 16
    n_pixels: int = 784
    n_hidden: int = 500
    layers: tuple[int, ...] = (200,)
    n_latent: int = 20
    share: int = 256  # rows of a batch, or chains
    tol: float = 1e-2
    replace_after: int | None = 100  # steps without use after which an atom is replaced


QUICK = Sizes(n_atoms=96, side=8, n_pixels=60, n_hidden=40, layers=(24,), n_latent=6, share=16)


class Workload(NamedTuple):
    """What `fit` is given for one kind of training."""

    model: Any
    objective: Any
    rows: Any
    optimizer: Any
    state: Any = None
    after_update: Any = None


def dictionary(sizes: Sizes, n: int, patches: np.ndarray | None = None) -> Workload:
    """Dictionary learning by Adam; atoms without use are replaced."""
    rows = np.random.default_rng(0).normal(size=(4 * n, sizes.side**2)) if patches is None else patches
    model = random_dictionary(jax.random.key(0), sizes.n_atoms, sizes.side**2)
    objective, optimizer = SparseCodingObjective(L1(common.STRENGTH), tol=sizes.tol), optax.adam(0.01)
    upkeep = DictionaryUpkeep(objective, optimizer, sizes.replace_after)
    rows = rows.astype(np.float32)
    return Workload(model, objective, rows, optimizer, AtomUsage.init(model), upkeep)


def _binary_rows(sizes: Sizes, n: int) -> np.ndarray:
    return (np.random.default_rng(0).random((4 * n, sizes.n_pixels)) < 0.3).astype(np.float32)


def machine(sizes: Sizes, n: int) -> Workload:
    """Persistent contrastive divergence, as many chains as rows."""
    rows = _binary_rows(sizes, n)
    rbm = boltzmann.BernoulliRBM.from_data(rows, sizes.n_hidden, jax.random.key(0))
    rule = boltzmann.ContrastiveObjective()
    return Workload(rbm, rule, rows, optax.sgd(0.05), rule.init(rbm, n, jax.random.key(1)))


def variational(sizes: Sizes, n: int) -> Workload:
    """A variational autoencoder by Adam."""
    rows, key = _binary_rows(sizes, n), jax.random.key(0)
    model = autoencoder.VariationalAutoencoder.from_sizes(
        sizes.n_pixels, list(sizes.layers), sizes.n_latent, key
    )
    return Workload(model, autoencoder.ELBOObjective(is_binarized=True), rows, optax.adam(0.001))


TRAINING: dict[str, Callable[[Sizes, int], Workload]] = {
    "dictionary": dictionary, "RBM": machine, "VAE": variational
}  # fmt: skip
OVER_MODEL = "dictionary, atoms over 2"  # where none is replaced


def block(work: Workload, batch_size: int | None, mesh: Any, n_steps: int = 10) -> tuple:
    """Return the arguments of the compiled block of steps that `fit` runs."""
    model, state = work.model, work.state
    if mesh is not None and mesh.shape[distributed.MODEL] > 1:
        model = distributed.shard_atoms(model, mesh)
    elif mesh is not None and isinstance(model, boltzmann.BernoulliRBM):
        state = distributed.shard_rows(state, mesh)
    with distributed.set_mesh(mesh):
        learner, program = _fit._start(
            model, work.objective, state, work.optimizer, jax.random.key(0),
            trainable=eqx.is_inexact_array, after_update=work.after_update, mesh=mesh,
        )  # fmt: skip
        source: Any = _sources.as_source(work.rows, batch_size, mesh)
        buffers = _block.metric_buffers(program, source, learner, n_steps)
        buffers = distributed.place(buffers, mesh)
    return program, source, learner, buffers, jnp.int32(0), jnp.int32(n_steps)


def compiled(name: str, sizes: Sizes, mesh: Any) -> str:
    """Compile a program for a mesh, or for one device without; return it as text."""
    n = sizes.share * distributed.n_shards(mesh)
    kind = name.partition(",")[0]
    if kind in TRAINING:
        with distributed.set_mesh(mesh):
            return (
                _block.run_block.lower(*block(TRAINING[kind](sizes, n), n, mesh)).compile().compiled.as_text()
            )
    place = (lambda rows: rows) if mesh is None else (lambda rows: distributed.shard_rows(rows, mesh))
    if name == "encode_batch":
        work = dictionary(sizes, n)

        def encode(model, rows):
            return encode_batch(model, rows, L1(common.STRENGTH), tol=sizes.tol, mesh=mesh)

        return jax.jit(encode).lower(work.model, place(work.rows)).compile().as_text() or ""
    rbm = machine(sizes, n).model

    def sample(rbm, v, key):
        return sample_chains(lambda v, key: boltzmann.gibbs_step(rbm, v, key), v, key, n_samples=5, mesh=mesh)

    starts = place(_binary_rows(sizes, n)[:n])
    return jax.jit(sample).lower(rbm, starts, jax.random.key(2)).compile().as_text() or ""


PROGRAMS = (*TRAINING, OVER_MODEL, "encode_batch", "sample_chains")


def child(names: Sequence[str], sizes: Sizes) -> None:
    """Compile for all devices of this process; print the collectives as JSON."""
    found = {}
    for name in names:
        mesh = distributed.make_mesh(n_model=2 if name == OVER_MODEL else 1)
        chosen = sizes._replace(replace_after=None) if name == OVER_MODEL else sizes
        found[name] = [asdict(one) for one in collectives(compiled(name, chosen, mesh))]
    print(json.dumps(found))


def start_child(names: Sequence[str], sizes: Sizes, flags: str = "") -> subprocess.Popen:
    """Start a process that compiles for eight devices."""
    options = ["--child", json.dumps(names), "--sizes", json.dumps(sizes)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={N_DEVICES} {flags}"
    environment["JAX_PLATFORMS"] = "cpu"
    return subprocess.Popen(
        [sys.executable, __file__, *options], env=environment, stdout=subprocess.PIPE, text=True
    )


def result_of(process: subprocess.Popen) -> dict[str, list[Collective]]:
    """Wait for such a process; return the collectives of each program."""
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"The process for {N_DEVICES} devices ended with {process.returncode}.")

    def collective(one: dict) -> Collective:
        operands = tuple((dtype, tuple(shape)) for dtype, shape in one.pop("operands"))
        return Collective(operands=operands, **one)

    found = json.loads(output.splitlines()[-1])
    return {name: [collective(one) for one in ones] for name, ones in found.items()}


def parameter_sizes(model: Any) -> list[int]:
    """Return the number of entries of each trained array."""
    return [leaf.size for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))]


def of_a_step(found: Sequence[Collective]) -> list[Collective]:
    """Return those that run in every step, whatever happens in it."""
    return [one for one in found if one.n_loops == 1 and not one.is_conditional]


def summary(
    name: str, found: Sequence[Collective], sizes: Sequence[int], n_data: int = N_DEVICES
) -> dict[str, Any]:
    """Return a row of the table: what is as large as a trained array, over "data", is the gradient's."""
    step = of_a_step(found)
    reduced = [one for one in step if one.kind == "all-reduce"]
    operands = [(n_bytes(array), array[1], one.n_together) for one in reduced for array in one.operands]
    gradient = sum(n for n, s, over in operands if s and math.prod(s) in sizes and over == n_data)
    scalars = sum(n for n, shape, _ in operands if not shape)
    return {
        "program": name, "parameter bytes": 4 * sum(sizes),
        "all-reduces a step": len(reduced), "gradient bytes": gradient, "scalar bytes": scalars,
        "other all-reduced bytes": sum(n for n, *_ in operands) - gradient - scalars,
        "other collectives a step": len(step) - len(reduced),
        "in loops within a step": sum(one.n_loops > 1 and not one.is_conditional for one in found),
        "only where atoms are replaced": sum(one.is_conditional and one.n_loops == 1 for one in found),
        "once a block": sum(one.n_loops == 0 for one in found),
    }  # fmt: skip


class Link(NamedTuple):
    """How devices are joined; bandwidths in bytes a second, latencies in seconds a hop."""

    name: str
    per_node: int
    inside: tuple[float, float]  # bandwidth and latency within a node
    between: tuple[float, float]  # of each device, between nodes


LINKS = (
    Link("NVLink 4 within 8, InfiniBand NDR a device", 8, (450e9, 1e-6), (50e9, 3e-6)),
    Link("10 GbE, workstations of one device", 1, (1.0, 0.0), (1.25e9, 20e-6)),
)
DEVICES = tuple(2**i for i in range(13))


def reduction_seconds(n_bytes: float, n: int, link: Link, is_tree: bool) -> float:
    """Return the time of one all-reduce over ``n`` devices."""

    def over(n_bytes: float, n: int, speed: tuple[float, float], n_hops: int) -> float:
        bandwidth, latency = speed
        return 2 * (n - 1) / n * n_bytes / bandwidth + n_hops * latency

    here = min(n, link.per_node)
    nodes = -(-n // here)
    n_hops = 2 * math.ceil(math.log2(nodes)) if is_tree else 2 * (nodes - 1)
    within = over(n_bytes, here, link.inside, 2 * (here - 1))
    return within + over(n_bytes / here, nodes, link.between, n_hops)


def predict(name: str, found: Sequence[Collective], seconds: dict[str, float], share: int) -> list[dict]:
    """Return the predicted efficiencies: a row for each step time, link and way of reducing."""
    table = []
    for step_of, step in seconds.items():
        for link in LINKS:
            for is_tree in (False, True):
                moved = {
                    n: sum(reduction_seconds(one.n_bytes, n, link, is_tree) for one in of_a_step(found))
                    for n in DEVICES
                }
                table.append({
                    "program": name, "step of": step_of, "ms a step": 1e3 * step, "link": link.name,
                    "reduced by": "trees" if is_tree else "rings",
                    **{str(n): step / (step + moved[n]) for n in DEVICES},
                    "rows a device for 90 % at 4096": math.ceil(9 * share * moved[DEVICES[-1]] / step),
                })  # fmt: skip
    return table


def step_seconds(sizes: Sizes, n_steps: int, repeats: int) -> dict[str, float]:
    """Return the median time of a step of one device's share, without a mesh, compiled and warm."""
    images, _ = common.whitened_images()
    patches = common.patches(images, 8 * sizes.share, seed=3, patch_size=sizes.side)
    given = {"dictionary": dictionary(sizes, sizes.share, patches)}
    given |= {name: make(sizes, sizes.share) for name, make in TRAINING.items() if name not in given}

    def timed(work: Workload) -> Callable[[], Any]:
        program, source, learner, buffers, *_ = block(work, sizes.share, None, n_steps)
        learner, *_ = _block.run_block(program, source, learner, buffers, jnp.int32(0), jnp.int32(n_steps))
        arguments = program, source, learner, buffers, jnp.int32(n_steps), jnp.int32(n_steps)
        return lambda: jax.block_until_ready(eqx.filter(_block.run_block(*arguments), eqx.is_array))

    seconds = common.interleaved_medians({name: timed(work) for name, work in given.items()}, repeats)
    return {name: value / n_steps for name, value in seconds.items()}


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--speed-up", type=float, default=50, help="assumed, of an accelerator over this CPU")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child, Sizes(*arguments.sizes))
        return
    sizes, n_steps, repeats = (QUICK, 5, 1) if arguments.quick else (Sizes(), 20, arguments.repeats)
    setting = {
        "devices compiled for": N_DEVICES, **sizes._asdict(), "steps": n_steps, "repeats": repeats,
        "links": [link._asdict() for link in LINKS], "assumed speed-up of an accelerator": arguments.speed_up,
        "assumptions": "weak scaling, no overlap, equal steps on all devices, no contention",
    }  # fmt: skip
    print(setting, common.machine(), sep="\n")
    found = result_of(start_child(PROGRAMS, sizes))
    seconds = step_seconds(sizes, n_steps, repeats)
    trained = {name: parameter_sizes(make(sizes, N_DEVICES).model) for name, make in TRAINING.items()}
    trained[OVER_MODEL] = [sizes.n_atoms * sizes.side**2 // 2]
    n_data = {OVER_MODEL: N_DEVICES // 2}
    moved = [
        summary(name, found[name], trained.get(name, []), n_data.get(name, N_DEVICES)) for name in PROGRAMS
    ]
    predicted = []
    for name in TRAINING:
        times = {"this CPU": seconds[name], "assumed accelerator": seconds[name] / arguments.speed_up}
        predicted += predict(name, found[name], times, sizes.share)
    for table in (moved, predicted):
        common.print_table(table)
    listed = {name: [asdict(one) | {"bytes": one.n_bytes} for one in found[name]] for name in PROGRAMS}
    common.save_results(
        arguments.results, "collectives", [*moved, *predicted], {**setting, "collectives": listed},
        _plot(predicted),
    )  # fmt: skip


def _plot(predicted: list[dict]) -> Figure:
    figure = Figure((12, 4.4), layout="constrained")
    panels = figure.subplots(1, len(TRAINING), sharey=True)
    shown = {("assumed accelerator", LINKS[0].name): "#0072B2", ("this CPU", LINKS[1].name): "#D55E00"}
    for axes, name in zip(panels, TRAINING, strict=True):
        rows = [row for row in predicted if row["program"] == name]
        steps = {row["step of"]: row["ms a step"] for row in rows}
        for row in rows:
            if colour := shown.get((row["step of"], row["link"])):
                label = f"{row['link']}; step of {row['step of']}; {row['reduced by']}"
                style = "-" if row["reduced by"] == "trees" else "--"
                values = [100 * row[str(n)] for n in DEVICES]
                axes.semilogx(DEVICES, values, style, color=colour, base=2, label=label)
        described = ", ".join(f"{ms:.2g} ms ({of})" for of, ms in steps.items())
        axes.set_title(f"{name}\nstep: {described}", fontsize=9)
        axes.set(xlabel="devices", ylim=(0, 103))
        axes.set_xticks(DEVICES[::3], [f"{n:,}" for n in DEVICES[::3]])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("predicted efficiency (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
