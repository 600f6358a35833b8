"""How near do 16 layers of learned inference come to the codes that made the data?

The setting of Behrens, Sauder & Jung 2021 (NA-ALISTA): 250 features, 500 atoms of unit length with Gaussian
directions, each coefficient non-zero with probability 0.1 and then standard normal, noise at 40 dB below each
datum. NMSE = 10·log₁₀(Σ‖ẑ − z‖²/Σ‖z‖²) over 10,000 held-out data; their figures stand beside ours. Their ISTA
and FISTA run at λ = 0.4; here also at their best λ, swept on data of its own. Their FISTA is plain, without
restart; the library's, which restarts, is a row of its own.

LISTA and ALISTA are trained on fresh data by Adam. ALISTA grows from one layer: a new layer starts as a copy
of the last, and all are trained on the error of the newest; then the whole network is, on larger batches.
Layer k trusts its 1.2·k % largest coefficients, at most 13 % (Liu, Chen, Wang & Yin 2019). LISTA starts as
ISTA and is trained as a whole, its weights shared by all layers.

    python benchmarks/lista.py [--repeats 1] [--quick | --full]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax.convergence import AbstractSolver, trace
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    ALISTA,
    FISTA,
    ISTA,
    LISTA,
    CodedData,
    CodeRegressionObjective,
    Dictionary,
    make_problem,
    random_dictionary,
)
from neurojax.training import fit

STRENGTH = 0.4
SWEPT = (0.4, 0.3, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05)
PUBLISHED = {"ISTA": -5.8, "FISTA": -7.6, "ALISTA": -39.1}
AGREEMENT = 0.7
Layers = Callable[..., jax.Array]  # a datum (and λ) -> its code after each layer


class Setting(NamedTuple):
    """Sizes of the problem and of the training."""

    n_features: int = 250
    n_atoms: int = 500
    n_layers: int = 16
    n_held_out: int = 10_000
    growing: tuple[int, int, float] = (100, 128, 1e-2)  # steps (a layer), batch, step size
    finishing: tuple[int, int, float] = (500, 512, 2e-3)
    lista: tuple[int, int, float] = (2500, 256, 1e-3)


FULL = Setting(growing=(150, 256, 1e-2), finishing=(2000, 512, 2e-3), lista=(5000, 512, 1e-3))
QUICK = Setting(50, 100, 3, 500, growing=(20, 64, 2e-2), finishing=(20, 64, 2e-3), lista=(40, 64, 3e-3))


class Sampler(eqx.Module):
    """Draw codes and the data that they make."""

    atoms: jax.Array
    n_samples: int = eqx.field(static=True)

    def __call__(self, key: jax.Array) -> CodedData:
        """Draw one batch."""
        keys = jax.random.split(key, 3)
        is_on = jax.random.bernoulli(keys[0], 0.1, (self.n_samples, self.atoms.shape[0]))
        codes = jnp.where(is_on, jax.random.normal(keys[1], is_on.shape), 0)
        clean = jnp.matmul(codes, self.atoms, precision=jax.lax.Precision.HIGHEST)
        scale = 10 ** (-40 / 20) * jnp.std(clean, axis=1, keepdims=True)
        return CodedData(clean + scale * jax.random.normal(keys[2], clean.shape), codes)


class PlainFISTA(AbstractSolver):
    """Beck & Teboulle 2009 without restart: what the published row ran."""

    def init(self, problem: Any, value: jax.Array) -> tuple[jax.Array, ...]:
        """Start without momentum."""
        return value, value, jnp.ones((), value.dtype)

    def step(self, problem: Any, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Take one accelerated step."""
        value, point, age = state
        new = problem.fixed_point(point)
        new_age = (1 + jnp.sqrt(1 + 4 * age**2)) / 2
        return new, new + (age - 1) / new_age * (new - value), new_age

    def value(self, state: tuple[jax.Array, ...]) -> jax.Array:
        """Return the iterate."""
        return state[0]


def solver_layers(solver: AbstractSolver, dictionary: Dictionary, n_steps: int) -> Layers:
    """Return a solver's iterates, for a datum and λ, as if its steps were layers."""

    def layers(x: jax.Array, strength: jax.Array) -> jax.Array:
        problem = make_problem(dictionary, x, L1(strength))
        states = trace(solver, problem, jnp.zeros(dictionary.n_atoms, x.dtype), n_steps)
        return jax.vmap(solver.value)(states)[1:]

    return layers


def nmse_of(layers: Layers) -> Callable[..., np.ndarray]:
    """Return what measures the NMSE in dB after each layer, on data and with λ where that is needed."""

    @jax.jit
    def squared_errors(data: CodedData, *strength: jax.Array) -> jax.Array:
        def one(d: CodedData) -> jax.Array:
            return jnp.sum((layers(d.x, *strength) - d.code) ** 2, axis=1)

        return jax.lax.map(one, data, batch_size=250)

    def nmse(data: CodedData, *strength: float) -> np.ndarray:
        errors = np.asarray(squared_errors(data, *map(jnp.float32, strength)), np.float64)
        return 10 * np.log10(errors.sum(axis=0) / np.sum(np.asarray(data.code, np.float64) ** 2))

    return nmse


def train(
    network: Any, dictionary: Dictionary, plan: tuple[int, int, float], seed: int, trainable: Any
) -> Any:
    """Train a network's last layer's codes on fresh data, by Adam with a cosine schedule."""
    n_steps, batch_size, step_size = plan
    return fit(
        network,
        CodeRegressionObjective(),
        Sampler(dictionary.atoms, batch_size),
        optimizer=optax.adam(optax.cosine_decay_schedule(step_size, n_steps)),
        n_steps=n_steps,
        key=jax.random.key(seed),
        trainable=trainable,
        progress=False,
    ).model


def train_lista(dictionary: Dictionary, setting: Setting) -> tuple[LISTA, int]:
    """Train LISTA with one W and one S from its start as ISTA; return it and its number of parameters."""
    network = LISTA(dictionary, STRENGTH, setting.n_layers, tied=True)
    network = train(network, dictionary, setting.lista, 200, eqx.is_inexact_array)
    return network, count(network)


def train_alista(dictionary: Dictionary, setting: Setting, *, learn_blend: bool) -> tuple[ALISTA, int]:
    """Grow ALISTA layer by layer, then train it as a whole; return it and its number of parameters."""

    def learned(network: ALISTA) -> tuple[jax.Array, jax.Array, jax.Array]:
        return network.step_sizes, network.thresholds, network.blends

    def make(values: tuple[jax.Array, ...]) -> ALISTA:
        n_layers = len(values[0])
        share = np.minimum(0.012 * np.arange(1, n_layers + 1), 0.13)
        n_trusted = [int(count) for count in np.round(share * dictionary.n_atoms)]
        network = ALISTA(dictionary, STRENGTH, n_layers, n_trusted=n_trusted, blend=1.0)
        return eqx.tree_at(learned, network, values)

    def mask(network: ALISTA) -> ALISTA:
        return eqx.tree_at(lambda m: m.blends, network.trainable(), learn_blend)

    # With W, for which wᵢ·aᵢ = 1, the natural step is 1.
    network = make((jnp.ones(1), jnp.full(1, 0.2), jnp.ones(1)))
    for n_layers in range(1, setting.n_layers + 1):
        if n_layers > 1:
            network = make(tuple(jnp.append(value, value[-1]) for value in learned(network)))
        network = train(network, dictionary, setting.growing, n_layers, mask(network))
    network = train(network, dictionary, setting.finishing, 100, mask(network))
    return network, count(eqx.filter(network, mask(network)))


def count(parameters: Any) -> int:
    """Return how many numbers a tree holds."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


class Result(NamedTuple):
    """What one contender reached on one problem."""

    curve: np.ndarray
    strength: float | str
    n_parameters: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def compare(setting: Setting, seed: int) -> dict[str, Result]:
    """Run all contenders on one random problem."""
    keys = jax.random.split(jax.random.key(seed), 3)
    dictionary = random_dictionary(keys[0], setting.n_atoms, setting.n_features)
    held_out = Sampler(dictionary.atoms, setting.n_held_out)(keys[1])
    apart = Sampler(dictionary.atoms, setting.n_held_out // 5)(keys[2])
    results: dict[str, Result] = {}
    for name, solver in {"ISTA": ISTA(), "FISTA": PlainFISTA(), "FISTA with restart": FISTA()}.items():
        nmse = nmse_of(solver_layers(solver, dictionary, setting.n_layers))
        best = min(SWEPT, key=lambda strength, nmse=nmse: nmse(apart, strength)[-1])
        results[name] = Result(nmse(held_out, STRENGTH), STRENGTH)
        results[f"{name}, best λ"] = Result(nmse(held_out, best), best)
    trained = {
        "LISTA": train_lista,
        "ALISTA": partial(train_alista, learn_blend=False),
        "ALISTA, learned blend": partial(train_alista, learn_blend=True),
    }
    for name, run in trained.items():
        start, cpu_start = time.perf_counter(), time.process_time()
        network, n_parameters = jax.block_until_ready(run(dictionary, setting))
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        curve = nmse_of(network.layers)(held_out)
        results[name] = Result(curve, "learned", n_parameters, seconds, cpu_seconds)
        print(f"problem {seed}: {name}: {curve[-1]:.2f} dB after {seconds:.0f} s of training", flush=True)
    return results


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=1)
    parser.add_argument("--full", action="store_true", help="longer training")
    arguments = parser.parse_args()
    setting = QUICK if arguments.quick else FULL if arguments.full else Setting()
    start = time.perf_counter()
    problems = [compare(setting, seed) for seed in range(arguments.repeats)]
    for name in () if arguments.quick else ("ISTA", "FISTA"):
        reached = np.median([problem[name].curve[-1] for problem in problems])
        if abs(reached - PUBLISHED[name]) > AGREEMENT:
            raise SystemExit(f"Not the published problem: {name} reaches {reached:.2f} dB.")
    rows: list[dict[str, object]] = []
    for title in problems[0]:
        results = [problem[title] for problem in problems]
        curve = np.median([result.curve for result in results], axis=0)
        rows.append({
            "contender": title, "λ": results[0].strength, "NMSE (dB)": round(float(curve[-1]), 2),
            "published": "–" if arguments.quick else PUBLISHED.get(title, "–"),
            "parameters": results[0].n_parameters,
            "training (s)": round(float(np.median([result.seconds for result in results])), 1),
            "CPU (s)": round(float(np.median([result.cpu_seconds for result in results])), 1),
            "by layer": [round(float(value), 2) for value in curve],
        })  # fmt: skip
    described = setting._asdict() | {"problems": arguments.repeats, "seconds": time.perf_counter() - start}
    print(described, common.machine(), sep="\n")
    common.print_table([{name: row[name] for name in row if name != "by layer"} for row in rows])
    common.save_results(arguments.results, "lista", rows, described, _plot(rows))


def _plot(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure((7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    colours = {"ISTA": "0.6", "FISTA": "tab:blue", "FISTA with restart": "tab:cyan", "LISTA": "tab:orange"}
    colours |= {"ALISTA": "tab:red", "ALISTA, learned blend": "tab:purple"}
    n_layers = len(rows[0]["by layer"])
    for row in rows:
        name, is_best = row["contender"].removesuffix(", best λ"), row["contender"].endswith("best λ")
        label = name
        if row["λ"] != "learned":
            label = f"{name}, λ = {row['λ']}" + (" (best)" if is_best else "")
        # Both kinds of FISTA all but coincide.
        width, alpha = (4, 0.5) if name.endswith("restart") else (1.5, 1)
        style = {"color": colours[name], "linewidth": width, "alpha": alpha, "label": label}
        axes.plot(range(n_layers + 1), [0.0, *row["by layer"]], "--" if is_best else "-", **style)
        if row["published"] != "–":
            axes.plot(n_layers, row["published"], "o", mfc="none", color=colours[name], clip_on=False)
    axes.plot([], [], "o", mfc="none", color="k", label="published, 16 layers")
    axes.set(xlabel="layer", ylabel="NMSE (dB)", xlim=(0, n_layers))
    figure.legend(loc="outside right upper", frameon=False)
    return figure


if __name__ == "__main__":
    main()
