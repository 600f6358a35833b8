"""How long does it take to train the source's decoders on a population of the course's size?

A simulated population (`neural_coding.simulate`) of 360 trials and 23,589 neurons, float32; 216 trials to
learn from. Two networks, each by 1000 full-batch steps of gradient descent: the regression on degrees (10
hidden units, squared error, step size 1e-4) and the classifier (20 hidden units, 20 bins, step size 0.1),
without penalty and, the classifier, with L2 1e-2. Contenders: `fit` in the direct form, `fit` in the span of
the trials (`RowSpaceNetwork`), and PyTorch's loop. All start from the same weights. Before any time is
printed the losses of all steps must agree to 1e-4 of that loss, and a millionth of the first, and the last
input weights to 1e-3: in float32 each contender, PyTorch too, ends 4e-4 from the float64 trajectory with the
L2 penalty; in float64 both forms agree to 1e-10 (tests/neural_coding/test_decoding_network.py). Products of
the span are counted in its time, and so is compilation in "s, first call". Then a ridge onto bumps in the
dual: five strengths, five folds each, and the best fitted (`Tuned(BumpRidge)`), cold and warm. PyTorch that
is not installed is shown as absent (`pip install torch==2.13.0`).

    python benchmarks/decoding_speed.py [--repeats 3] [--quick]
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from neurojax import neural_coding as nc

N_NEURONS, N_TRIALS, N_TRAIN = 23_589, 360, 216
TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-3
STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 10.0)


Trainer = Callable[[], tuple[np.ndarray, np.ndarray]]


class Task(NamedTuple):
    """What is learned, and by which steps."""

    name: str
    n_hidden: int
    n_outputs: int
    targets: jax.Array
    step_size: float
    l2: float


def tasks(angles: jax.Array) -> list[Task]:
    """Return the source's two decoders, and the second with its L2 penalty."""
    classes = nc.AngleBins(20).index(angles)
    return [
        Task("regression", 10, 1, angles[:, None], 1e-4, 0.0),
        Task("softmax", 20, 20, classes, 0.1, 0.0),
        Task("softmax, L2", 20, 20, classes, 0.1, 1e-2),
    ]


def start(task: Task, n_neurons: int) -> nc.DecodingNetwork:
    """Return the network that everyone starts from."""
    return nc.DecodingNetwork.from_sizes(n_neurons, task.n_hidden, task.n_outputs, jax.random.key(0))


def library(task: Task, responses: jax.Array, n_steps: int, in_row_space: bool) -> Trainer:
    """Train by the library; return the data loss of every step, and W_in."""
    network = start(task, responses.shape[1])

    def run() -> tuple[np.ndarray, np.ndarray]:
        trained, history = nc.fit_decoding_network(
            network, responses, task.targets, step_size=task.step_size, n_steps=n_steps, l2=task.l2,
            key=jax.random.key(1), in_row_space=in_row_space,
        )  # fmt: skip
        jax.block_until_ready(trained)
        return history["data_loss"], np.asarray(trained.input_weights)

    return run


def pytorch(task: Task, responses: jax.Array, n_steps: int) -> Trainer:
    """Train by the course's loop."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    x = torch.from_numpy(np.array(responses))
    targets = torch.from_numpy(np.array(task.targets))
    network = start(task, responses.shape[1])

    def run() -> tuple[np.ndarray, np.ndarray]:
        hidden = torch.nn.Linear(responses.shape[1], task.n_hidden)
        out = torch.nn.Linear(task.n_hidden, task.n_outputs)
        with torch.no_grad():
            hidden.weight.copy_(torch.from_numpy(np.array(network.input_weights)))
            hidden.bias.copy_(torch.from_numpy(np.array(network.input_bias)))
            out.weight.copy_(torch.from_numpy(np.array(network.output_weights)))
            out.bias.copy_(torch.from_numpy(np.array(network.output_bias)))
        optimizer = torch.optim.SGD([*hidden.parameters(), *out.parameters()], lr=task.step_size)
        losses = []
        for _ in range(n_steps):
            outputs = out(torch.relu(hidden(x)))
            if task.n_outputs == 1:
                fitted = torch.nn.functional.mse_loss(outputs, targets)
            else:
                fitted = torch.nn.functional.cross_entropy(outputs, targets.long())
            loss = fitted + task.l2 * torch.square(hidden.weight).sum() if task.l2 else fitted
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(fitted.item())
        return np.asarray(losses), hidden.weight.detach().numpy().copy()

    return run


def compare(task: Task, responses: jax.Array, n_steps: int, repeats: int) -> list[dict]:
    """Check that the losses agree, then time turn by turn."""
    found = {
        "direct": library(task, responses, n_steps, False),
        "row space": library(task, responses, n_steps, True),
    }
    if importlib.util.find_spec("torch") is not None:
        found["PyTorch"] = pytorch(task, responses, n_steps)
    losses, first, weights = {}, {}, {}
    for name, run in found.items():
        begin = time.perf_counter()
        losses[name], weights[name] = run()
        first[name] = time.perf_counter() - begin
    apart = {name: _apart(losses[name], losses["direct"]) for name in found}
    distance = {name: _distance(weights[name], weights["direct"]) for name in found}
    if max(apart.values()) > TOLERANCE or max(distance.values()) > WEIGHT_TOLERANCE:
        raise SystemExit(f"{task.name}: the trajectories differ: losses {apart}, weights {distance}")
    seconds = common.interleaved_medians(found, repeats)
    reference = seconds.get("PyTorch", float("nan"))
    return [
        {"task": task.name, "contender": name, "s": seconds[name], "ms a step": 1e3 * seconds[name] / n_steps,
         "s, first call": first[name], "PyTorch/this": reference / seconds[name],
         "direct/this": seconds["direct"] / seconds[name], "losses apart": apart[name],
         "weights apart": distance[name], "last loss": float(losses[name][-1])}
        for name in found
    ]  # fmt: skip


def _apart(losses: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference of a step's losses over that loss plus a hundredth of the first."""
    return float(np.max(np.abs(losses - reference) / (reference + 0.01 * reference[0])))


def _distance(weights: np.ndarray, reference: np.ndarray) -> float:
    """Return ‖W − W'‖/‖W'‖ of the last input weights."""
    return float(np.linalg.norm(weights - reference) / np.linalg.norm(reference))


def dual_ridge(population: nc.SimulatedPopulation, repeats: int) -> dict[str, object]:
    """Choose among five strengths by five folds, and fit the best, in one compiled program."""
    decoder = nc.Tuned(nc.BumpRidge(), jnp.asarray(STRENGTHS), n_folds=5)
    jitted = jax.jit(lambda x, y: decoder.fit(x, y))

    def run() -> Any:
        return jax.block_until_ready(jitted(population.responses, population.angles_degrees))

    begin = time.perf_counter()
    fitted = run()
    first = time.perf_counter() - begin
    warm = common.interleaved_medians({"ridge": run}, repeats)["ridge"]
    return {
        "task": f"dual ridge, {len(STRENGTHS)} strengths × 5 folds", "s": warm, "s, first call": first,
        "strength": float(fitted.strength), "mean error (degrees)": -float(jnp.max(fitted.scores)),
    }  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=3).parse_args()
    n_neurons, n_steps = (2000, 50) if arguments.quick else (N_NEURONS, 1000)
    repeats = 1 if arguments.quick else arguments.repeats
    population = nc.simulate(jax.random.key(0), n_trials=N_TRIALS, n_neurons=n_neurons)
    train = np.random.default_rng(0).permutation(N_TRIALS)[:N_TRAIN]
    responses, angles = population.responses[train], population.angles_degrees[train]
    setting: dict[str, object] = {
        "population": f"simulated, {N_TRIALS} trials, {n_neurons} neurons", "training trials": N_TRAIN,
        "steps": n_steps, "repeats": repeats, "dtype": str(responses.dtype),
    }  # fmt: skip
    print(setting, common.machine(), sep="\n")
    if importlib.util.find_spec("torch") is None:
        print("PyTorch: absent")
    table = [row for task in tasks(angles) for row in compare(task, responses, n_steps, repeats)]
    common.print_table(table)
    ridge = dual_ridge(population, repeats)
    common.print_table([ridge])
    setting["dual ridge"] = ridge
    common.save_results(arguments.results, "decoding_speed", table, setting, _plot(table))


def _plot(table: list[dict]) -> Figure:
    names = list(dict.fromkeys(row["task"] for row in table))
    figure = Figure((9, 2.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        rows = [row for row in table if row["task"] == name][::-1]
        axes.barh([row["contender"] for row in rows], [row["ms a step"] for row in rows], color="#0072B2")
        axes.set(title=name, xlabel="ms a step")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
