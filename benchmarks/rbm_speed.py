"""How long does an update of PCD-1 take, against scikit-learn, rbms, and its matrix products alone?

784 visible units, 64 and 500 hidden, batches and chains of 64 and 100, thresholded digits, float32. Everyone
learns by the same rule at the same step size on the same batches; the machines must agree on held-out digits
(exact pseudo-log-likelihood) before any time is printed. "Products alone" are the five matrix products of an
update, looped on the device. The library's time is that of a whole call of `fit`. Peers that are not
installed are shown as absent (`pip install rbms torch==2.13.0` brings rbms).

    python benchmarks/rbm_speed.py [--repeats 5] [--n-updates 1000] [--quick]
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax.boltzmann import (
    BernoulliRBM,
    CentredGradient,
    ContrastiveObjective,
    pseudo_log_likelihood_exact,
)
from neurojax.training import fit

STEP_SIZE = 0.05
SIZES = {"784-64, batch 64": (64, 64), "784-500, batch 100": (500, 100)}
# A contender: the updates as a function, and the machine that it has after them.
Contender = tuple[Callable[[], Any], Callable[[Any], BernoulliRBM]]


def digits() -> tuple[np.ndarray, np.ndarray, str]:
    """Return thresholded training and test digits and their name: all of MNIST where it is at hand."""
    train, test, name = common.digits()
    rows = [np.asarray(images.images >= 0.5, np.float32).reshape(-1, 784) for images in (train, test)]
    return rows[0], rows[1], f"{name}, thresholded at 0.5"


def start(rows: np.ndarray, n_hidden: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights and biases that everyone starts from: small weights, the base rate of the data."""
    weights = 0.01 * np.random.default_rng(0).standard_normal((784, n_hidden), dtype=np.float32)
    mean = (rows.sum(axis=0) + 1) / (len(rows) + 2)
    return weights, np.log(mean / (1 - mean)).astype(np.float32), np.zeros(n_hidden, np.float32)


def library(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int, centre: bool) -> Contender:
    """`training.fit` with PCD-1, or its centred gradient, batches by `fit` itself."""
    rbm = BernoulliRBM(*start(rows, n_hidden))
    device_rows, optimizer = jnp.asarray(rows), optax.sgd(STEP_SIZE)
    plain = ContrastiveObjective()
    objective = CentredGradient(plain) if centre else plain
    extra = {"data_mean": rows.mean(axis=0)} if centre else {}
    state = objective.init(rbm, batch_size, jax.random.key(1), **extra)

    def run() -> Any:
        result = fit(
            rbm, objective, device_rows, optimizer=optimizer, n_steps=n_updates, batch_size=batch_size,
            key=jax.random.key(2), state=state, progress=False, steps_per_block=n_updates,
        )  # fmt: skip
        return jax.block_until_ready(result.model)

    return run, lambda model: model


def products_alone(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int) -> Contender:
    """The products of an update and nothing else: up twice, down, and the two of the gradient."""
    weights = jnp.asarray(start(rows, n_hidden)[0])
    v = jnp.ones((batch_size, 784), jnp.float32)

    @jax.jit
    def run(v, weights):
        def body(_, carry):
            v, weights = carry
            positive = v @ weights
            down = positive @ weights.T
            negative = down @ weights
            # Small factors keep numbers finite; they cost one pass over each result.
            return v + 1e-9 * down, 0.5 * weights + 1e-9 * (v.T @ positive - down.T @ negative)

        return jax.lax.fori_loop(0, n_updates, body, (v, weights))

    return lambda: jax.block_until_ready(run(v, weights)), lambda _: None  # type: ignore[return-value]


def batches(rows: np.ndarray, batch_size: int, n_updates: int) -> np.ndarray:
    """Return batches drawn beforehand, so that peers spend no time on it."""
    rng = np.random.default_rng(1)
    return np.stack([rows[rng.integers(0, len(rows), batch_size)] for _ in range(n_updates)])


def scikit_learn(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int) -> Contender:
    """BernoulliRBM's own update, float32."""
    neural_network: Any = importlib.import_module("sklearn.neural_network")
    given = batches(rows, batch_size, n_updates)

    def run() -> Any:
        rbm = neural_network.BernoulliRBM(
            n_components=n_hidden, learning_rate=STEP_SIZE, batch_size=batch_size
        )
        weights, rbm.intercept_visible_, rbm.intercept_hidden_ = start(rows, n_hidden)
        rbm.components_ = np.asfortranarray(weights.T)
        rbm.h_samples_ = np.zeros((batch_size, n_hidden), np.float32)
        generator = np.random.RandomState(0)
        for batch in given:
            rbm._fit(batch, generator)
        return rbm

    def machine(rbm: Any) -> BernoulliRBM:
        return BernoulliRBM(rbm.components_.T, rbm.intercept_visible_, rbm.intercept_hidden_)

    return run, machine


def rbms(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int) -> Contender:
    """The PCD update of rbms, plain and without its division by the gradient's norm, float32."""
    torch: Any = importlib.import_module("torch")
    classes: Any = importlib.import_module("rbms.bernoulli_bernoulli.classes")
    given, ones = torch.from_numpy(batches(rows, batch_size, n_updates)), torch.ones(batch_size)

    def run() -> Any:
        torch.manual_seed(0)
        params = classes.BBRBM(*map(torch.from_numpy, start(rows, n_hidden)))
        params.init_grad()
        optimizer = torch.optim.SGD(params.parameters(), lr=STEP_SIZE, maximize=True)
        chains = params.init_chains(batch_size)
        with torch.no_grad():
            for batch in given:
                optimizer.zero_grad(set_to_none=False)
                data_chains = params.init_chains(num_samples=batch_size, weights=ones, start_v=batch)
                chains = params.sample_state(chains=chains, n_steps=1, beta=1.0)
                params.compute_gradient(data=data_chains, chains=chains, centered=False)
                optimizer.step()
        return params

    def machine(params: Any) -> BernoulliRBM:
        arrays = params.weight_matrix, params.vbias, params.hbias
        return BernoulliRBM(*(array.detach().numpy() for array in arrays))

    return run, machine


def contenders(rows: np.ndarray, n_hidden: int, batch_size: int, n_updates: int) -> dict[str, Contender]:
    """Return all that are installed."""
    sizes = n_hidden, batch_size, n_updates
    found = {
        "neurojax PCD-1": library(rows, *sizes, centre=False),
        "neurojax PCD-1, centred": library(rows, *sizes, centre=True),
        "products alone": products_alone(rows, *sizes),
    }
    for name, make, module in (("scikit-learn", scikit_learn, "sklearn"), ("rbms", rbms, "rbms")):
        if importlib.util.find_spec(module) is None:
            print(f"{name}: absent")
        else:
            found[name] = make(rows, *sizes)
    return found


def compare(size: str, rows: np.ndarray, held_out: np.ndarray, n_updates: int, repeats: int) -> list[dict]:
    """Check that the machines agree, then time the contenders turn by turn."""
    n_hidden, batch_size = SIZES[size]
    found = contenders(rows, n_hidden, batch_size, n_updates)
    measure = jax.jit(jax.vmap(pseudo_log_likelihood_exact, (None, 0)))
    scores = {}
    for name, (run, machine) in found.items():
        rbm = machine(run())
        if rbm is not None:
            scores[name] = float(jnp.mean(measure(rbm, held_out[:200])))
    plain = [score for name, score in scores.items() if "centred" not in name]
    if not np.allclose(plain, plain[0], rtol=0.05):
        raise SystemExit(f"The machines differ on held-out digits: {scores}")
    seconds = common.interleaved_medians({name: run for name, (run, _) in found.items()}, repeats)
    products = seconds["products alone"]
    return [
        {"size": size, "contender": name, "ms an update": 1e3 * seconds[name] / n_updates,
         "times products": seconds[name] / products,
         "times neurojax": seconds[name] / seconds["neurojax PCD-1"],
         "held-out pseudo-log-likelihood": scores.get(name, float("nan"))}
        for name in found
    ]  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--n-updates", type=int, default=1000)
    arguments = parser.parse_args()
    n_updates, repeats = (20, 1) if arguments.quick else (arguments.n_updates, arguments.repeats)
    rows, held_out, name = digits()
    setting = {
        "data": name,
        "updates": n_updates,
        "repeats": repeats,
        "step size": STEP_SIZE,
        "dtype": "float32",
    }
    print(setting, common.machine(), sep="\n")
    table = [row for size in SIZES for row in compare(size, rows, held_out, n_updates, repeats)]
    common.print_table(table)
    common.save_results(arguments.results, "rbm_speed", table, setting, _plot(table))


def _plot(table: list[dict]) -> Figure:
    figure = Figure((8, 3.4), layout="constrained")
    for axes, size in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        rows = [row for row in table if row["size"] == size][::-1]
        axes.barh([row["contender"] for row in rows], [row["ms an update"] for row in rows], color="#0072B2")
        axes.set(title=size, xlabel="ms an update")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
