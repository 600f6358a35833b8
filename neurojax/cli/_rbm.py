"""``neurojax rbm``: train a restricted Boltzmann machine, bracket its likelihood, show what was learned."""

import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jax.sharding import Mesh
from tqdm import tqdm

from .. import boltzmann, training
from ..boltzmann import BernoulliRBM
from ..distributed import is_main_process, place, shard_rows
from ..runs import RunFolder, save, write_atomically
from ._devices import check_divides, fetch, only_on_main, start_devices, together
from ._rbm_pictures import draw
from ._rbm_published import BatchesInOrder, Reader, Reading, WithReading
from ._rbm_settings import (
    PUBLISHED,
    Learning,
    Rows,
    Settings,
    check,
    make_machine,
    make_objective,
    make_optimizer,
    read_rows,
)
from ._settings import decisive, is_progress_shown, parse, start_run, table, write_json

__all__ = ["main"]

_ROWS_AT_ONCE = 50
_NOTES = {"exact": "summed over all states", "AIS": "flatters", "reverse AIS": "as good as its samples"}
_N_SHOWN_CHAINS, _N_SNAPSHOTS = 10, 10


class Samples(NamedTuple):
    """Samples of the machine: states at the end of all chains, and the later course of the first of them."""

    states: Array
    snapshots: Array


class Task(NamedTuple):
    """A learning task: the machine, its data and its settings.

    Attributes:
        rows: the data.
        rbm: the machine as learning starts.
        objective: the learning rule.
        state: its state, chains included.
        optimizer: of the parameters.
        keys: by what they are for.
    """

    rows: Rows
    rbm: BernoulliRBM
    objective: Any
    state: Any
    optimizer: optax.GradientTransformation
    keys: dict[str, Array]


def main(arguments: Sequence[str]) -> None:
    """Learn, sample, measure, draw, and print a summary."""
    start = time.perf_counter()
    settings, run = parse(Settings, "rbm", arguments, PUBLISHED if "--published" in arguments else None)
    mesh = start_devices(settings)
    with together():
        task = _prepare(settings, mesh)
    run = start_run("rbm", settings, run, may_change=("likelihood",))

    result = _learn(settings, run, task, mesh)
    result = result._replace(model=fetch(result.model, mesh), state=fetch(result.state, mesh), opt_state=None)
    with only_on_main() as is_main:
        if is_main:
            measured = _show(settings, run, result, task)
            print(_summary(settings, run, task.rows, measured, time.perf_counter() - start))


def _prepare(settings: Settings, mesh: Mesh | None) -> Task:
    """Read the rows and make the machine, before there is a folder."""
    check(settings)
    learning, keys = settings.learning, _keys(settings.learning.seed)
    if learning.order == "file" and mesh is not None:
        raise ValueError("order: expected random on several devices, which share equal batches, got file.")
    check_divides("batch_size", learning.batch_size, mesh)
    if learning.rule == "pcd":
        check_divides("n_chains", learning.n_chains, mesh)
    rows = read_rows(settings, keys["data"])
    rbm = make_machine(settings.model, rows.train, keys["model"])
    objective, state = make_objective(learning, rbm, rows.train, keys["chains"])
    return Task(rows, rbm, objective, state, make_optimizer(learning), keys)


def _show(settings: Settings, run: RunFolder, result: training.FitResult, task: Task) -> dict[str, Any]:
    """Sample, measure, write and draw; return what was measured."""
    rows, keys = task.rows, task.keys
    samples = _sample(settings, result.model, result.state, rows.train, keys["samples"])
    measured = _measure(settings, result.model, rows, samples.states, keys["measure"])
    if settings.learning.pseudo_likelihood == "one-flip":
        measured |= _published_figures(settings, result, rows)
    _write(run, result.model, samples.states, measured)
    is_crossed = measured.get("log_partition_bracket", {}).get("is_crossed", False)
    draw(run, result, rows, samples.snapshots, settings, is_crossed)
    return measured


def _published_figures(settings: Settings, result: training.FitResult, rows: Rows) -> dict[str, Any]:
    """Return the readings between evaluations: as published, times the batch size; and the last in nats."""
    values = result.history.evaluation["pseudo_log_likelihood"]
    share = settings.learning.batch_size / rows.train.shape[1]
    return {
        "pseudo_log_likelihood_of_batches": float(values[-1]),
        "pseudo_likelihood_as_published": [float(value * share) for value in values],
    }


def _keys(seed: int) -> dict[str, Array]:
    names = ("data", "model", "chains", "fit", "samples", "measure")
    return dict(zip(names, jax.random.split(jax.random.key(seed), len(names)), strict=True))


def _learn(settings: Settings, run: RunFolder, task: Task, mesh: Mesh | None) -> training.FitResult:
    learning, rows, last = settings.learning, task.rows, {}
    is_shown = is_main_process() and is_progress_shown(settings.output)
    train, watched = place((rows.train[: len(rows.watched)], rows.watched), mesh)
    is_read, is_ordered = learning.pseudo_likelihood == "one-flip", learning.order == "file"
    objective, state = task.objective, _laid_out(task.state, learning, mesh)
    if is_read:
        objective, state = WithReading(objective), Reading(state, jnp.zeros(()), jnp.int32(0))

    def evaluation(model: BernoulliRBM, state: Any, key: Array) -> dict[str, Array]:
        measured = _course(model, train, watched, rows.is_binary and not is_read, rows.is_held_out)
        if is_read:
            measured = {"pseudo_log_likelihood": state.value * rows.train.shape[1], **measured}
        last.update(measured)
        known = "pseudo_log_likelihood" in measured
        return {"loss": -measured["pseudo_log_likelihood"], **measured} if known else measured

    def report(step: int, model: BernoulliRBM, state: Any, metrics: Any) -> None:
        if is_shown and step % learning.evaluate_every == 0:
            values = ", ".join(f"{name.replace('_', ' ')} {float(v):.1f} nats" for name, v in last.items())
            tqdm.write(f"step {step}, {'learned' if is_read else 'held out'}: {values}", file=sys.stderr)

    result = training.fit(
        task.rbm,
        objective,
        BatchesInOrder(rows.train, learning.batch_size) if is_ordered else rows.train,
        optimizer=task.optimizer,
        n_steps=learning.n_steps,
        batch_size=None if is_ordered else learning.batch_size,
        key=task.keys["fit"],
        state=state,
        after_update=Reader(learning.evaluate_every) if is_read else None,
        evaluate=training.Evaluation(
            evaluation, learning.evaluate_every, learning.patience, keep_best=learning.patience is not None
        ),
        checkpoint=training.Checkpoint(run.path, learning.checkpoint_every, settings=decisive(settings)),
        callback=report,
        progress=is_shown,
        mesh=mesh,
    )
    return result._replace(state=result.state.state) if is_read else result


def _laid_out(state: Any, learning: Learning, mesh: Mesh | None) -> Any:
    """Return the state with persistent chains shared out among the devices; tempering's swap, and stay."""
    if mesh is None or learning.rule != "pcd":
        return state
    if learning.centred:
        return state._replace(chains=shard_rows(state.chains, mesh, name="chains"))
    return shard_rows(state, mesh, name="chains")


@eqx.filter_jit
def _course(
    rbm: BernoulliRBM, train: Array, watched: Array, has_states: bool, is_held_out: bool
) -> dict[str, Array]:
    """Measure what needs no partition function; of grey values there is no exact pseudo-likelihood."""
    measured = {"free_energy_gap": boltzmann.free_energy_gap(rbm, train, watched)} if is_held_out else {}
    if has_states:
        # In pieces: the whole would be rows × visible × hidden numbers.
        values = lax.map(
            lambda v: boltzmann.pseudo_log_likelihood_exact(rbm, v), watched, batch_size=_ROWS_AT_ONCE
        )
        measured = {"pseudo_log_likelihood": jnp.mean(values), **measured}
    return measured


def _sample(settings: Settings, rbm: BernoulliRBM, state: Any, train: Array, key: Array) -> Samples:
    """Go on with the chains of learning, or from data where there are none."""
    start_key, burn_in_key, course_key = jax.random.split(key, 3)
    chains = state.chains if settings.learning.centred else state
    n_chains = settings.likelihood.ais_chains
    if chains is None:
        row_key, hidden_key = jax.random.split(start_key)
        rows = jax.random.choice(row_key, train, (n_chains,))
        keys = jax.random.split(hidden_key, n_chains)
        hidden = jax.vmap(boltzmann.sample_hidden, (None, 0, 0))(rbm, rows, keys)
    else:
        # Of tempering the last are those of the machine itself.
        hidden = chains.hidden[-1] if settings.learning.rule == "tempering" else chains.hidden
        hidden = hidden[jnp.arange(n_chains) % len(hidden)]
    states, hidden = _gibbs(rbm, hidden, burn_in_key, settings.likelihood.n_burn_in)
    hidden, snapshots = hidden[:_N_SHOWN_CHAINS], []
    for snapshot_key in jax.random.split(course_key, _N_SNAPSHOTS):
        hidden = _gibbs(rbm, hidden, snapshot_key, settings.likelihood.snapshot_every)[1]
        snapshots.append(rbm.visible_mean(rbm.visible_input(hidden)))
    return Samples(states, jnp.stack(snapshots, axis=1))


@eqx.filter_jit
def _gibbs(rbm: BernoulliRBM, hidden: Array, key: Array, n_steps: int) -> tuple[Array, Array]:
    """Return visible and hidden states of all chains after ``n_steps`` transitions from hidden ones."""
    phase = boltzmann.PersistentContrastiveDivergence(n_steps)
    no_batch = jnp.zeros((0, rbm.n_visible))
    states, chains, _ = phase.draw(rbm, boltzmann.PersistentChains(hidden), no_batch, key)
    return states, chains.hidden


def _measure(settings: Settings, rbm: BernoulliRBM, rows: Rows, states: Array, key: Array) -> dict[str, Any]:
    """Return what ``likelihood.json`` holds, log-likelihoods and free energies in nats."""
    train = rows.train[: len(rows.watched)]
    course = _course(rbm, train, rows.watched, rows.is_binary, rows.is_held_out)
    measured: dict[str, Any] = {name: float(value) for name, value in course.items()}
    base, reported = rbm.base_visible_bias(rows.train), rows.reported
    estimates, bracket = _log_partition(rbm, base, states, settings.likelihood.ais_temperatures, key)
    measured["log_partition"] = {
        name: {part: float(value) for part, value in estimate.items()} for name, estimate in estimates.items()
    }
    if bracket is not None:
        parts = {name: float(getattr(bracket, name)) for name in ("gap", "gap_standard_error")}
        measured["log_partition_bracket"] = {**parts, "is_crossed": bool(bracket.is_crossed)}
    if rows.is_binary:
        mean = -jnp.mean(jax.vmap(boltzmann.free_energy, (None, 0))(rbm, reported))
        of_base = jnp.mean(jnp.sum(reported * base, axis=1)) - jnp.sum(jax.nn.softplus(base))
        measured["log_likelihood"] = {name: float(mean - e["value"]) for name, e in estimates.items()}
        measured["log_likelihood_of_base_rate"] = float(of_base)
        n = min(len(states), len(reported))
        accuracy = boltzmann.adversarial_accuracy(reported[:n], states[:n])
        shares = {name: float(value) for name, value in accuracy._asdict().items()}
        measured["adversarial_accuracy"] = {"n_rows": n, **shares}
    return measured


def _log_partition(
    rbm: BernoulliRBM, base: Array, states: Array, n_temperatures: int, key: Array
) -> tuple[dict[str, dict[str, Array]], boltzmann.Bracket | None]:
    """Return log Z where it can be summed, else its estimates from both ends and their bracket."""
    if min(rbm.n_hidden, rbm.n_visible) <= boltzmann.MOST_ENUMERATED_UNITS:
        return {"exact": {"value": eqx.filter_jit(boltzmann.log_partition_exact)(rbm)}}, None
    settings = {"base_visible_bias": base, "n_chains": len(states), "n_temperatures": n_temperatures}
    bracket = eqx.filter_jit(boltzmann.log_partition_bracket)(rbm, states, key, **settings)
    return {"AIS": bracket.lower._asdict(), "reverse AIS": bracket.upper._asdict()}, bracket


def _write(run: RunFolder, rbm: BernoulliRBM, states: Array, measured: dict[str, Any]) -> None:
    save(run.path / "rbm.npz", rbm)
    bits = np.asarray(states, np.uint8)
    write_atomically(run.path / "samples.npy", lambda file: np.save(file, bits))
    write_json(run.path / "likelihood.json", measured)


def _summary(settings: Settings, run: RunFolder, rows: Rows, measured: dict[str, Any], seconds: float) -> str:
    lines = _pseudo_likelihood_lines(settings, rows, measured)
    if "free_energy_gap" in measured:
        gap, n_watched = measured["free_energy_gap"], len(rows.watched)
        lines["free-energy gap"] = f"{gap:.1f} nats between {n_watched} held-out and as many training rows"
    lines |= _likelihood_lines(settings, rows, measured)
    if "log_likelihood" in measured:
        lines["log-likelihood, base rate"] = f"{measured['log_likelihood_of_base_rate']:.1f} nats"
        shares = measured["adversarial_accuracy"]
        lines["adversarial accuracy"] = (
            f"{shares['value']:.2f} (data {shares['data']:.2f}, samples {shares['samples']:.2f}; 0.5 is "
            f"best), {shares['n_rows']} samples and {rows.kind} rows"
        )
    lines["binarization"] = _binarization(settings, rows.is_binary)
    if not rows.is_held_out:
        lines["held out"] = "nothing: all rows were learned from"
    return table({**lines, "time": f"{seconds:.1f} s", "run folder": str(run.path)})


def _pseudo_likelihood_lines(settings: Settings, rows: Rows, measured: dict[str, Any]) -> dict[str, str]:
    lines = {}
    if "pseudo_log_likelihood" in measured:
        value, n_watched = measured["pseudo_log_likelihood"], len(rows.watched)
        lines["pseudo-log-likelihood"] = f"{value:.1f} nats, {n_watched} {rows.kind} rows"
    if "pseudo_likelihood_as_published" in measured:
        size, n_visible = settings.learning.batch_size, rows.train.shape[1]
        figures = " ".join(f"{value:.2f}" for value in measured["pseudo_likelihood_as_published"])
        lines["pseudo-likelihood, as published"] = (
            f"{figures} ({size} times the mean log-probability of one unit, on batches just learned from, a "
            f"figure for each {settings.learning.evaluate_every} updates)"
        )
        lines["the last of them, in nats"] = (
            f"{measured['pseudo_log_likelihood_of_batches']:.1f}, over all {n_visible} units: "
            f"{n_visible / size:g} times as much"
        )
    return lines


def _likelihood_lines(settings: Settings, rows: Rows, measured: dict[str, Any]) -> dict[str, str]:
    n_chains, lines = settings.likelihood.ais_chains, {}
    for name, estimate in measured["log_partition"].items():
        note = _NOTES[name]
        if "standard_error" in estimate:
            error, size = estimate["standard_error"], estimate["effective_sample_size"]
            note += f"; log Z ± {error:.2f}, ESS {size:.0f} of {n_chains}"
        if "log_likelihood" in measured:
            value = measured["log_likelihood"][name]
            lines[f"log-likelihood, {name}"] = (
                f"{value:.1f} nats, {len(rows.reported)} {rows.kind} rows ({note})"
            )
        else:
            lines[f"log Z, {name}"] = f"{estimate['value']:.1f} nats ({note})"
    if "log_partition_bracket" in measured:
        lines["bracket"] = _bracket_line(**measured["log_partition_bracket"])
        lines["annealing"] = (
            f"{settings.likelihood.ais_temperatures} temperatures and {n_chains} chains each way, "
            "from the base rate of the training rows"
        )
    return lines


def _bracket_line(gap: float, gap_standard_error: float, is_crossed: bool) -> str:
    size = f"{abs(gap):.1f} ± {gap_standard_error:.1f} nats"
    if not is_crossed:
        return f"reverse AIS lies {size} {'above' if gap >= 0 else 'below'} AIS in log Z; not crossed"
    return (
        f"CROSSED: reverse AIS lies {size} below AIS in log Z, so the chains of the samples have not mixed "
        "and neither likelihood is a bound; raise --n-burn-in, or learn with --rule=tempering"
    )


def _binarization(settings: Settings, is_binary: bool) -> str:
    if not is_binary:
        return "none: grey values are no states, so they have no likelihood and no exact pseudo-likelihood"
    if settings.data.data == "binarized-mnist":
        return "fixed, as published"
    return {
        "threshold": "threshold at 0.5",
        "stochastic": f"stochastic, drawn once (seed {settings.learning.seed})",
        "none": "none: states as they came",
    }[settings.data.binarize]
