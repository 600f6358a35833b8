"""How long does an epoch of a plain autoencoder take, against PyTorch and its matrix products alone?

784-500-784, tied weights, sigmoid units, cross-entropy summed over pixels and averaged over the batch, SGD
of step size 0.1, 50,000 MNIST digits, float32, batches of 20 and of 256. Everyone starts from the same
weights; on the same five batches everyone must take the same five steps (to 1e-5) before any time is
printed. Each epoch visits rows in a random order, gathered by the contender itself. "Products alone" are
the five matrix products of an update, looped on the device. PyTorch that is not installed is shown as
absent (`pip install torch==2.13.0`).

    python benchmarks/autoencoder_speed.py [--repeats 5] [--quick]
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax.autoencoder import Autoencoder, ReconstructionObjective
from neurojax.training import fit

N_HIDDEN, STEP_SIZE = 500, 0.1
BATCH_SIZES = (20, 256)
OPTIMIZER = optax.sgd(STEP_SIZE)


class Contender(NamedTuple):
    """An epoch, and the weights that a few steps on given batches lead to."""

    epoch: Callable[[], object]
    follow: Callable[[np.ndarray], np.ndarray] | None


def digits(n_rows: int | None) -> tuple[np.ndarray, str]:
    """Return training digits and what they are."""
    train, _, name = common.digits()
    rows = np.asarray(train.images[:50_000], np.float32).reshape(-1, 784)[:n_rows]
    return rows, f"{name}, {len(rows)} digits"


def start() -> Autoencoder:
    """Return the autoencoder that everyone starts from."""
    return Autoencoder.from_sizes(784, [N_HIDDEN], jax.random.key(0))


def library(rows: np.ndarray, batch_size: int) -> Contender:
    """`training.fit`, a whole call an epoch."""
    model, objective, device_rows = start(), ReconstructionObjective(), jnp.asarray(rows)
    n_steps = len(rows) // batch_size

    def epoch() -> object:
        result = fit(
            model, objective, device_rows, optimizer=OPTIMIZER, n_steps=n_steps, batch_size=batch_size,
            key=jax.random.key(1), progress=False, steps_per_block=n_steps,
        )  # fmt: skip
        return jax.block_until_ready(result.model)

    def follow(batches: np.ndarray) -> np.ndarray:
        given = iter(jnp.asarray(batches))
        result = fit(
            model, objective, given, optimizer=OPTIMIZER, n_steps=len(batches), key=jax.random.key(1),
            progress=False,
        )  # fmt: skip
        return np.asarray(result.model.encoder[0].weight)

    return Contender(epoch, follow)


def pytorch(rows: np.ndarray, batch_size: int) -> Contender:
    """The usual loop: a gathered batch, a loss on logits, backward, step."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    data_rows, first = torch.from_numpy(np.array(rows)), start().encoder[0]

    def parameters() -> list[Any]:
        arrays = (first.weight, first.bias, np.zeros(784, np.float32))
        return [torch.nn.Parameter(torch.from_numpy(np.array(array))) for array in arrays]

    def learn(given: Any) -> Any:
        weight, hidden_bias, visible_bias = parameters()
        optimizer = torch.optim.SGD([weight, hidden_bias, visible_bias], lr=STEP_SIZE)
        for x in given:
            code = torch.sigmoid(torch.nn.functional.linear(x, weight, hidden_bias))
            logits = torch.nn.functional.linear(code, weight.t(), visible_bias)
            total = torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
            optimizer.zero_grad()
            (total / len(x)).backward()
            optimizer.step()
        return weight.detach()

    def epoch() -> object:
        order = torch.randperm(len(data_rows))[: len(data_rows) // batch_size * batch_size]
        return learn(data_rows[chosen] for chosen in order.view(-1, batch_size))

    return Contender(epoch, lambda batches: learn(torch.from_numpy(np.array(batches))).numpy())


def products_alone(rows: np.ndarray, batch_size: int) -> Contender:
    """The products of an update and nothing else: up, down, up again, and the two of the gradient."""
    weight = start().encoder[0].weight
    x = jnp.asarray(rows[:batch_size])
    n_steps = len(rows) // batch_size

    @jax.jit
    def run(x, weight):
        def body(_, carry):
            x, weight = carry
            code = x @ weight.T
            out = code @ weight
            back = out @ weight.T
            # Small factors keep numbers finite; they cost one pass over each result.
            return x + 1e-9 * out, weight + 1e-12 * (back.T @ x + code.T @ out)

        return jax.lax.fori_loop(0, n_steps, body, (x, weight))

    return Contender(lambda: jax.block_until_ready(run(x, weight)), None)


def compare(rows: np.ndarray, batch_size: int, repeats: int) -> list[dict]:
    """Check that steps agree, then time epochs turn by turn."""
    found = {"neurojax": library(rows, batch_size), "products alone": products_alone(rows, batch_size)}
    if importlib.util.find_spec("torch") is None:
        print("PyTorch: absent")
    else:
        found["PyTorch"] = pytorch(rows, batch_size)
    batches = rows[: 5 * batch_size].reshape(5, batch_size, 784)
    ends = {name: c.follow(batches) for name, c in found.items() if c.follow is not None}
    for name, end in ends.items():
        if not np.allclose(end, ends["neurojax"], rtol=1e-5, atol=1e-6):
            raise SystemExit(f"{name} took other steps: {np.abs(end - ends['neurojax']).max():.2g} apart")
    for contender in found.values():
        contender.epoch()
    seconds = common.interleaved_medians({name: c.epoch for name, c in found.items()}, repeats)
    return [
        {"batch size": batch_size, "contender": name, "s an epoch": seconds[name],
         "ms an update": 1e3 * seconds[name] / (len(rows) // batch_size),
         "times neurojax": seconds[name] / seconds["neurojax"]}
        for name in found
    ]  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=5).parse_args()
    rows, name = digits(2000 if arguments.quick else None)
    repeats = 1 if arguments.quick else arguments.repeats
    setting = {
        "data": name, "model": f"784-{N_HIDDEN}, tied", "step size": STEP_SIZE, "repeats": repeats,
        "dtype": str(eqx.filter(start(), eqx.is_array).encoder[0].weight.dtype),
    }  # fmt: skip
    print(setting, common.machine(), sep="\n")
    table = [row for batch_size in BATCH_SIZES for row in compare(rows, batch_size, repeats)]
    common.print_table(table)
    common.save_results(arguments.results, "autoencoder_speed", table, setting, _plot(table))


def _plot(table: list[dict]) -> Figure:
    figure = Figure((8, 2.6), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(BATCH_SIZES)), BATCH_SIZES, strict=True):
        rows = [row for row in table if row["batch size"] == size][::-1]
        axes.barh([row["contender"] for row in rows], [row["s an epoch"] for row in rows], color="#0072B2")
        axes.set(title=f"784-{N_HIDDEN}, batch {size}", xlabel="s an epoch")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
