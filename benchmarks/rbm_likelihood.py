"""What log-likelihood do machines of 16 and 500 hidden units reach on MNIST, and how sure is it?

16 hidden units, exact: 50 epochs of PCD-1 (batches and chains of 100) over several seeds, plain and centred
gradient, on digits thresholded at 0.5 (60,000/10,000) and on the fixed stochastic binarisation
(50,000/10,000). The two data sets are not comparable. Published for thresholded digits and the same budget
(PyDeep): centred -142.56, uncentred -149.05 nats.

500 hidden units: the committed recipe, with AIS (which flatters) and reverse AIS from long chains as a
bracket; `--updates` sets its length. Published: fixed binarisation, CD-25, AIS: -86.34 (Salakhutdinov &
Murray 2008); thresholded, centred PCD-1, 200 epochs: AIS -84.86, reverse AIS -96.61 (PyDeep).

    python benchmarks/rbm_likelihood.py exact [--seeds 5] [--quick]
    python benchmarks/rbm_likelihood.py recipe [--data fixed|thresholded] [--updates 60000] [--quick]
"""

from __future__ import annotations

import time

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from neurojax import data
from neurojax.boltzmann import (
    BernoulliRBM,
    CentredGradient,
    ContrastiveObjective,
    PersistentContrastiveDivergence,
    free_energy,
    gibbs_step,
    log_partition_ais,
    log_partition_exact,
    log_partition_reverse_ais,
)
from neurojax.chains import sample_chains
from neurojax.training import fit

BATCH = 100
PUBLISHED = {"centred": -142.56, "plain": -149.05}


def read(name: str, quick: bool) -> tuple[jax.Array, jax.Array]:
    """Return binary training and test rows."""
    if quick or name == "thresholded":
        load = data.mnist_subset if quick else data.mnist
        train, test = (load(split).images.reshape(-1, 784) >= 0.5 for split in ("train", "test"))
        return train.astype(jnp.float32), test.astype(jnp.float32)
    return data.binarized_mnist("train"), data.binarized_mnist("test")


def objective(rule: str, n_gibbs: int = 1) -> ContrastiveObjective | CentredGradient:
    """Return PCD with the plain or the centred gradient."""
    plain = ContrastiveObjective(PersistentContrastiveDivergence(n_gibbs))
    return CentredGradient(plain) if rule == "centred" else plain


def learn(train, n_hidden: int, rule: str, step_size: float, n_updates: int, seed: int, callback=None):
    """Train by PCD-1, the step size falling linearly to 0."""
    model_key, chain_key, fit_key = jax.random.split(jax.random.key(seed), 3)
    rbm = BernoulliRBM.from_data(train, n_hidden, model_key)
    learner = objective(rule)
    extra = {"data_mean": jnp.mean(train, axis=0)} if isinstance(learner, CentredGradient) else {}
    return fit(
        rbm, learner, train, batch_size=BATCH, n_steps=n_updates, key=fit_key,
        state=learner.init(rbm, BATCH, chain_key, **extra),
        optimizer=optax.sgd(optax.linear_schedule(step_size, 0.0, n_updates)),
        steps_per_block=max(n_updates // 12, 1), callback=callback, progress=None,
    )  # fmt: skip


@jax.jit
def mean_free_energy(rbm: BernoulliRBM, rows) -> jax.Array:
    """Return the mean free energy of rows."""
    return jnp.mean(jax.vmap(free_energy, (None, 0))(rbm, rows))


def exact(n_seeds: int, quick: bool) -> tuple[list[dict], Figure]:
    """Exact test log-likelihood of 16 hidden units."""
    log_partition = jax.jit(log_partition_exact)
    n_epochs = 1 if quick else 50
    table = []
    for name in ("bundled",) if quick else ("thresholded", "fixed"):
        train, test = read(name, quick)
        for rule, step_size in (("plain", 0.1), ("centred", 0.2)):
            values, start = [], time.perf_counter()
            for seed in range(1 if quick else n_seeds):
                rbm = learn(train, 16, rule, step_size, n_epochs * len(train) // BATCH, seed).model
                values.append(float(-mean_free_energy(rbm, test) - log_partition(rbm)))
            table.append({
                "data": name, "gradient": rule, "step size": step_size, "epochs": n_epochs,
                "seeds": len(values),
                "test log-likelihood, nats": float(np.mean(values)), "worst seed": min(values),
                "standard deviation": float(np.std(values)),
                "published": PUBLISHED[rule] if name == "thresholded" else None,
                "s a seed": (time.perf_counter() - start) / len(values),
            })  # fmt: skip
            common.print_table(table[-1:])
    return table, plot_exact(table)


def plot_exact(table: list[dict]) -> Figure:
    """Draw each rule's mean over seeds, its worst seed, and what was published."""
    figure = Figure((7, 2.6), layout="constrained")
    axes = figure.subplots()
    names = [f"{row['data']}, {row['gradient']}" for row in table]
    for marker, key, label in (
        ("o", "test log-likelihood, nats", "mean over seeds"),
        ("|", "worst seed", "worst seed"),
        ("D", "published", "published"),
    ):
        found = [(row[key], name) for row, name in zip(table, names, strict=True) if row[key] is not None]
        if found:
            axes.plot(*zip(*found, strict=True), marker, label=label)
    axes.set(xlabel="exact test log-likelihood, nats")
    axes.locator_params(axis="x", nbins=5)
    axes.margins(y=0.2)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def bracket(
    rbm: BernoulliRBM, test, base, hidden, key, n_chains: int, n_temperatures: int, n_sweeps: int
) -> dict[str, float]:
    """Return test log-likelihoods by AIS and by reverse AIS from the ends of long chains."""
    energy = float(mean_free_energy(rbm, test))
    ais_key, start_key, chain_key, reverse_key = jax.random.split(key, 4)
    ais = jax.jit(
        lambda rbm: log_partition_ais(
            rbm, ais_key, base_visible_bias=base, n_chains=n_chains, n_temperatures=n_temperatures
        )
    )(rbm)
    hidden = hidden[jnp.arange(n_chains) % len(hidden)]
    v = rbm.sample_visible(rbm.visible_input(hidden), start_key)
    long = jax.jit(
        lambda rbm, v: (
            sample_chains(
                lambda v, key: gibbs_step(rbm, v, key), v, chain_key, n_samples=1, n_burn_in=n_sweeps
            ).state
        )
    )(rbm, v)
    reverse = jax.jit(
        lambda rbm, v: log_partition_reverse_ais(
            rbm, v, reverse_key, base_visible_bias=base, n_temperatures=n_temperatures
        )
    )(rbm, long)
    return {
        "AIS": -energy - float(ais.value), "its standard error": float(ais.standard_error),
        "its ESS": float(ais.effective_sample_size), "reverse AIS": -energy - float(reverse.value),
        "standard error": float(reverse.standard_error), "ESS": float(reverse.effective_sample_size),
        "bracket": float(reverse.value - ais.value),
    }  # fmt: skip


def recipe(arguments) -> tuple[list[dict], Figure]:
    """500 hidden units by the committed recipe; the curve over time, then the bracket."""
    rule, step_size = arguments.gradient, arguments.step_size
    train, test = read(arguments.data, arguments.quick)
    name = "bundled" if arguments.quick else arguments.data
    n_updates, n_chains, n_temperatures, n_sweeps = (
        (60, 10, 200, 100)
        if arguments.quick
        else (arguments.updates, arguments.ais_chains, arguments.ais_temperatures, 10_000)
    )
    base = BernoulliRBM.from_data(train, 1, jax.random.key(0)).base_visible_bias(train)
    curve: list[tuple[float, float]] = []
    seconds, begin = 0.0, time.perf_counter()
    quick_ais = jax.jit(
        lambda rbm: (
            log_partition_ais(
                rbm, jax.random.key(1), base_visible_bias=base, n_chains=100, n_temperatures=1000
            ).value
        )
    )

    def watch(step, rbm, state, metrics) -> None:
        nonlocal seconds, begin
        jax.block_until_ready(rbm)
        seconds += time.perf_counter() - begin
        curve.append((seconds, float(-mean_free_energy(rbm, test) - quick_ais(rbm))))
        print(
            f"{step:7d} updates, {seconds:6.0f} s: AIS of 1000 temperatures {curve[-1][1]:.2f}",
            flush=True,
        )
        begin = time.perf_counter()

    result = learn(train, 500, rule, step_size, n_updates, 0, watch)
    state = result.state.chains if rule == "centred" else result.state
    start = time.perf_counter()
    found = bracket(
        result.model, test, base, state.hidden, jax.random.key(2), n_chains, n_temperatures, n_sweeps
    )
    row = {
        "data": name, "gradient": rule, "step size": step_size, "updates": n_updates, "s learning": seconds,
        **found, "temperatures": n_temperatures, "chains": n_chains, "sweeps before reverse": n_sweeps,
        "s evaluating": time.perf_counter() - start,
    }  # fmt: skip
    common.print_table([row])
    figure = Figure((6, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*curve, strict=True), "o-", color="#0072B2", label="AIS, 1000 temperatures (flatters)")
    axes.axhspan(found["reverse AIS"], found["AIS"], color="#D55E00", alpha=0.3, label="final bracket")
    axes.set(xlabel="seconds of learning", ylabel="test log-likelihood, nats")
    axes.legend(frameon=False)
    return [row | {"curve": curve}], figure


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=1)
    parser.add_argument("what", choices=["exact", "recipe"], nargs="?", default="exact")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", choices=["fixed", "thresholded"], default="fixed")
    parser.add_argument("--updates", type=int, default=60_000)
    parser.add_argument("--step-size", type=float, default=0.1)
    parser.add_argument("--ais-chains", type=int, default=100)
    parser.add_argument("--ais-temperatures", type=int, default=10_000)
    parser.add_argument("--gradient", choices=["centred", "plain"], default="centred")
    arguments = parser.parse_args()
    quick = arguments.quick
    setting: dict[str, object] = {
        "rule": "PCD-1, SGD, step size linearly to 0",
        "batch": BATCH,
        "chains": BATCH,
        "dtype": "float32",
    }
    print(setting, common.machine(), sep="\n")
    if arguments.what == "exact" or quick:
        table, figure = exact(arguments.seeds, quick)
        common.save_results(arguments.results, "rbm_likelihood_exact", table, setting, figure)
    if arguments.what == "recipe" or quick:
        table, figure = recipe(arguments)
        name = f"rbm_likelihood_{table[0]['data']}_{table[0]['updates']}"
        common.save_results(arguments.results, name, table, setting, figure)


if __name__ == "__main__":
    main()
