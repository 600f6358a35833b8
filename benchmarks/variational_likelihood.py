"""What log-likelihood does a variational autoencoder reach on MNIST, and how sure is it?

50 latent units, two hidden layers of 200 tanh units on each side, dynamic binarisation of the training
digits, as in Burda, Grosse & Salakhutdinov (2016); test digits binarised once, by a fixed key. Learned by
the ELBO (k = 1) or the importance-weighted bound (k > 1, doubly reparameterised gradient) with Adam, its
step size falling along a cosine. Reported: minus log p(x) of the test digits by importance sampling with
5,000 draws a digit (an upper bound in expectation), with the standard error over digits and that over
draws. Published for this model after 3,280 epochs: 86.76 (k = 1), 85.54 (k = 5) and 84.78 (k = 50).

    python benchmarks/variational_likelihood.py [--draws 1] [--minutes 10 | --epochs N] [--quick]
"""

from __future__ import annotations

import time

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax.autoencoder import (
    ELBOObjective,
    ImportanceWeightedObjective,
    LogLikelihood,
    VariationalAutoencoder,
    log_likelihood,
)
from neurojax.training import Evaluation, FitResult, fit

BATCH, STEP_SIZE = 100, 1e-3
PUBLISHED = {1: 86.76, 5: 85.54, 50: 84.78}


def digits(is_quick: bool) -> tuple[jax.Array, jax.Array, str]:
    """Return grey training digits, test digits binarised once, and their name."""
    train, test, name = common.digits(is_quick)
    grey = test.images.reshape(-1, 784)
    binary = jax.random.bernoulli(jax.random.key(2016), grey).astype(grey.dtype)
    return train.images.reshape(-1, 784), binary, f"{name}, training digits binarised dynamically"


def objective(n_draws: int) -> ELBOObjective | ImportanceWeightedObjective:
    """Return the bound that is raised."""
    if n_draws == 1:
        return ELBOObjective(is_binarized=True)
    return ImportanceWeightedObjective(n_draws, is_binarized=True)


@eqx.filter_jit
def log_likelihoods(
    vae: VariationalAutoencoder, rows: jax.Array, key: jax.Array, n_samples: int
) -> LogLikelihood:
    """Estimate log p(x) for each row, a few rows at a time."""
    keys = jax.random.split(key, len(rows))

    def estimate(row_and_key):
        return log_likelihood(vae, *row_and_key, n_samples=n_samples, n_at_once=100)

    return jax.lax.map(estimate, (rows, keys), batch_size=8)


def learn(train: jax.Array, test: jax.Array, n_draws: int, n_steps: int, optimizer) -> FitResult:
    """Train; the course is recorded on 500 test digits with 50 draws."""
    model_key, fit_key = jax.random.split(jax.random.key(0))

    def evaluate(vae, state, key):
        return {"nll": -jnp.mean(log_likelihoods(vae, test[:500], key, 50).value)}

    return fit(
        VariationalAutoencoder.from_sizes(784, [200, 200], 50, model_key), objective(n_draws), train,
        optimizer=optimizer, n_steps=n_steps, batch_size=BATCH, key=fit_key,
        evaluate=Evaluation(evaluate, max(n_steps // 25, 1)),
    )  # fmt: skip


def steps_in(minutes: float, train: jax.Array, n_draws: int) -> int:
    """Return how many updates fit in a time, by timing some."""
    vae = VariationalAutoencoder.from_sizes(784, [200, 200], 50, jax.random.key(0))
    optimizer, bound, seconds = optax.adam(STEP_SIZE), objective(n_draws), []
    n_steps = 300
    for _ in range(2):
        begin = time.perf_counter()
        result = fit(
            vae, bound, train, optimizer=optimizer, n_steps=n_steps, batch_size=BATCH, key=jax.random.key(1),
            progress=False,
        )  # fmt: skip
        jax.block_until_ready(result.model)
        seconds.append(time.perf_counter() - begin)
    return max(int(0.95 * 60 * minutes / seconds[-1] * n_steps), 1)


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=1)
    parser.add_argument("--draws", type=int, default=1, help="of the bound that is raised")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, if --epochs is not given")
    parser.add_argument("--epochs", type=int, default=None)
    parser.add_argument("--n-test", type=int, default=10_000, help="test digits that are measured")
    arguments = parser.parse_args()
    train, test, name = digits(arguments.quick)
    n_test, n_samples = (20, 200) if arguments.quick else (arguments.n_test, 5000)
    minutes = 0.05 if arguments.quick else arguments.minutes
    if arguments.epochs is not None:
        n_steps = arguments.epochs * (len(train) // BATCH)
    else:
        n_steps = steps_in(minutes, train, arguments.draws)
    setting = {
        "data": name, "model": "784-200-200-50, tanh", "draws of the bound": arguments.draws,
        "epochs": n_steps * BATCH / len(train), "batch": BATCH, "step size": STEP_SIZE, "dtype": "float32",
        "draws of the likelihood": n_samples, "test digits": n_test,
    }  # fmt: skip
    print(setting, common.machine(), sep="\n", flush=True)
    begin = time.perf_counter()
    optimizer = optax.adam(optax.cosine_decay_schedule(STEP_SIZE, n_steps))
    result = learn(train, test, arguments.draws, n_steps, optimizer)
    minutes_of_training = (time.perf_counter() - begin) / 60
    estimates = log_likelihoods(result.model, test[:n_test], jax.random.key(3), n_samples)
    values = -np.asarray(estimates.value, np.float64)
    table: list[dict] = [{
        "draws of the bound": arguments.draws, "epochs": setting["epochs"],
        "minutes of training": minutes_of_training, "test NLL, nats": float(values.mean()),
        "standard error over digits": float(values.std(ddof=1) / len(values) ** 0.5),
        "standard error over draws":
            float(np.sqrt(np.sum(np.square(np.asarray(estimates.standard_error, np.float64)))) / len(values)),
        "median ESS": float(np.median(np.asarray(estimates.effective_sample_size))),
        "published": PUBLISHED.get(arguments.draws),
        "minutes of measuring": (time.perf_counter() - begin) / 60 - minutes_of_training,
    }]  # fmt: skip
    common.print_table(table)
    label = f"variational_likelihood_{arguments.draws}"
    common.save_results(arguments.results, label, table, setting, _plot(result.history, arguments.draws))


def _plot(history, n_draws: int) -> Figure:
    figure = Figure((6, 3), layout="constrained")
    axes = figure.subplots()
    epochs = np.asarray(history.evaluation_steps) * BATCH
    axes.plot(epochs, history.evaluation["nll"], "o-", ms=3, label="500 test digits, 50 draws")
    if n_draws in PUBLISHED:
        axes.axhline(PUBLISHED[n_draws], color="0.6", ls="--", label="published, 3,280 epochs, 5,000 draws")
    axes.set(xlabel="digits seen", ylabel="−log p(x), nats", xscale="log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
