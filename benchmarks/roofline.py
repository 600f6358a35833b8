"""How near does inference come to the machine's matrix products, and where does the rest of its time go?

Whitened 16 × 16 patches, learned atoms, `encode_batch` with SpaRSA to a relative gap of 1e-4, float32. The
rate of products of the same shapes (slots × atoms by atoms × atoms, or through the features, or half of
their axes, and back) is measured in the same run. Each part is then timed alone, on the numbers and states
of this very job: steps without their looks, the products of these steps, looks, the slots (holding, writing
results, refilling) around a step that only counts, setting up, and the last certificate. "Elementwise" is
steps minus products; "idle slots" are steps of slots that are done, above all at the end, when few rows are
left: counted, and charged like full ones. What the parts do not add up to is shown as such.

    python benchmarks/roofline.py [--n-atoms 100 512 1024] [--n-patches 4000] [--repeats 5] [--quick]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import _common as common
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from matplotlib.figure import Figure

from neurojax.convergence import run_in_slots
from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, SpaRSA, duality_gap, encode_batch, make_problem
from neurojax.sparse_coding._leading import LeadingSquares, leading_axes

TOL = 1e-4
N_TURNS = 20  # how often a part is repeated on the device within one timing
PARTS = (
    "products",
    "elementwise",
    "looks",
    "idle slots",
    "slots",
    "set-up",
    "certificate",
    "not accounted for",
)


class Job(NamedTuple):
    """What is measured: the problem, the rows, and the number of blocks of steps that each row took."""

    dictionary: Dictionary
    xs: jax.Array
    n_slots: int
    problem: Any  # of the first row; the others share all but x and drive
    counts: np.ndarray


def make_job(dictionary: Dictionary, xs: np.ndarray, n_slots: int) -> Job:
    """Encode once, to know how many steps each row takes."""
    rows = jnp.asarray(xs)
    solution = encode_batch(dictionary, rows, L1(common.STRENGTH), tol=TOL, n_slots=n_slots)
    problem = make_problem(dictionary, rows[0], L1(common.STRENGTH))
    squares: Any = problem.smooth
    if squares.gram is None:
        axes = leading_axes(dictionary.atoms)
        smooth = LeadingSquares(squares, axes, rows[0] @ axes.basis)
        problem = eqx.tree_at(lambda p: p.smooth, problem, smooth)
    return Job(dictionary, rows, n_slots, problem, common.blocks_of(np.asarray(solution.n_steps), SpaRSA()))


def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the product at full precision."""
    return jnp.matmul(a, b, precision="highest")


def has_axes(job: Job) -> bool:
    """Return whether all steps of a block but the last take their products along the leading axes."""
    return gram_of(job) is None and bool(job.problem.smooth.axes.is_steep)


def gram_of(job: Job) -> Any:
    """Return the Gram matrix that gradients go through, or ``None``."""
    return getattr(job.problem.smooth, "gram", None)


def way_of(job: Job) -> str:
    """Return how gradients are taken."""
    if gram_of(job) is not None:
        return "Gram"
    return "leading axes" if has_axes(job) else "features"


def products(job: Job, code: jax.Array, block_size: int) -> jax.Array:
    """Apply the products of a block of proximal-gradient steps."""
    factor = 1e-2  # keeps numbers in range, and is one cheap pass
    for i in range(block_size):
        if gram_of(job) is not None:
            code = factor * multiply(code, gram_of(job))
        else:
            is_near = has_axes(job) and i < block_size - 1
            atoms = job.problem.smooth.axes.atoms if is_near else job.dictionary.atoms
            code = factor * multiply(multiply(code, atoms), atoms.T)
    return code


def flops_a_block(job: Job, block_size: int) -> int:
    """Return the floating-point operations of a block's products, for one row."""
    n_atoms, n_features = job.dictionary.atoms.shape
    if gram_of(job) is not None:
        return 2 * n_atoms**2 * block_size
    n_axes = job.problem.smooth.axes.atoms.shape[1] if has_axes(job) else n_features
    return 4 * n_atoms * (n_axes * (block_size - 1) + n_features)


def problem_of(job: Job, x: jax.Array, drive: jax.Array) -> Any:
    """Return the problem of another row."""
    smooth = job.problem.smooth
    if gram_of(job) is not None:
        return eqx.tree_at(lambda p: (p.smooth.target, p.smooth.drive), job.problem, (x, drive))
    squares = eqx.tree_at(lambda s: (s.target, s.drive), smooth.squares, (x, drive))
    moved = LeadingSquares(squares, smooth.axes, multiply(x, smooth.axes.basis))
    return eqx.tree_at(lambda p: p.smooth, job.problem, moved)


def seconds_a_turn(turn: Callable[[Any], Any], start: Any) -> Callable[[], object]:
    """Return a run of ``N_TURNS`` turns on the device, each from what the one before left."""
    run = jax.jit(lambda carry: lax.fori_loop(0, N_TURNS, lambda _, c: turn(c), carry))
    return lambda: jax.block_until_ready(run(start))


def parts_of_a_step(job: Job, solver: SpaRSA) -> dict[str, Callable[[], object]]:
    """Return runs of products, block steps, and looks, each ``N_TURNS`` times on full slots."""
    xs = job.xs[: job.n_slots]
    drives = xs @ job.dictionary.atoms.T

    def begin(x, drive):
        problem = problem_of(job, x, drive)
        return solver.step(problem, solver.init(problem, jnp.zeros_like(drive)))

    states = jax.jit(jax.vmap(begin))(xs, drives)

    def step(states):
        return jax.vmap(lambda x, d, s: solver.step(problem_of(job, x, d), s))(xs, drives, states)

    def look(residuals):
        # The states differ from turn to turn, or the compiler would look once.
        def one(x, drive, state, residual):
            point = state.point._replace(value=state.point.value + 1e-30 * residual)
            return solver.estimate(problem_of(job, x, drive), state._replace(point=point))

        return jax.vmap(one)(xs, drives, states, residuals)

    return {
        "products": seconds_a_turn(lambda codes: products(job, codes, solver.block_size), states.point.value),
        "steps": seconds_a_turn(step, states),
        "looks": seconds_a_turn(look, jnp.zeros(len(xs))),
    }


def parts_of_the_whole(job: Job, solver: SpaRSA) -> dict[str, Callable[[], object]]:
    """Return runs of the whole, of slots around a step that only counts, of the set-up and certificate."""
    atoms, penalty = job.dictionary.atoms, L1(common.STRENGTH)
    codes = encode_batch(job.dictionary, job.xs, penalty, tol=TOL, n_slots=job.n_slots).value

    @jax.jit
    def set_up(xs):
        if gram_of(job) is None:
            axes = leading_axes(atoms)
            return xs @ atoms.T, axes, xs @ axes.basis
        return xs @ atoms.T, job.dictionary.gram(), make_problem(job.dictionary, xs[0], penalty).lipschitz

    @jax.jit
    def certificates(xs, codes):
        return jax.vmap(lambda x, code: duality_gap(job.dictionary, x, code, penalty))(xs, codes)

    @jax.jit
    def count(xs, drives, counts):
        def begin(row):
            x, drive, count = row
            start: Any = problem_of(job, x, drive).smooth
            return x, drive, solver.init_at(job.problem, start.point_at_zero()), count

        def step(work):
            x, drive, state, count = work
            return x, drive, state._replace(movement=state.movement + 1), count - 1

        return run_in_slots(
            begin, step, lambda work: work[3] <= 0, (xs, drives, counts), n_slots=job.n_slots,
            finish=lambda work: work[2].point.value, order=order,
        )  # fmt: skip

    order = common.longest_first(job.dictionary, np.asarray(job.xs))
    drives, counts = job.xs @ atoms.T, jnp.asarray(job.counts)
    return {
        "whole": lambda: jax.block_until_ready(
            encode_batch(job.dictionary, job.xs, penalty, tol=TOL, n_slots=job.n_slots)
        ),
        "slots": lambda: count(job.xs, drives, counts).block_until_ready(),
        "set-up": lambda: jax.block_until_ready(set_up(job.xs)),
        "certificate": lambda: certificates(job.xs, codes).block_until_ready(),
    }


def profile(job: Job, repeats: int) -> dict[str, Any]:
    """Time the whole and its parts turn by turn; return a row of the table."""
    solver = SpaRSA()
    runs = parts_of_a_step(job, solver) | parts_of_the_whole(job, solver)
    for run in runs.values():
        run()
    seconds = common.interleaved_medians(runs, repeats)
    n_rows, turns = len(job.xs), job.counts.sum() / job.n_slots  # block steps, were all slots always full
    order = common.longest_first(job.dictionary, np.asarray(job.xs))
    idle_turns = common.steps_in_slots(job.counts, job.n_slots, order) - turns
    product, step, look = (seconds[name] / N_TURNS for name in ("products", "steps", "looks"))
    flops = flops_a_block(job, solver.block_size)
    parts = {
        "products": product * turns, "elementwise": (step - product) * turns, "looks": look * turns,
        "idle slots": (step + look) * idle_turns,
        "slots": seconds["slots"], "set-up": seconds["set-up"], "certificate": seconds["certificate"],
    }  # fmt: skip
    parts["not accounted for"] = seconds["whole"] - sum(parts.values())
    rate, reached = flops * job.n_slots / product, flops * job.counts.sum() / seconds["whole"]
    return {
        "atoms": job.dictionary.n_atoms,
        "products by": way_of(job),
        "ms per 1000 rows": 1e6 * seconds["whole"] / n_rows,
        "steps a row": float(solver.block_size * job.counts.mean()),
        "GFLOP/s of products": rate / 1e9, "GFLOP/s reached": reached / 1e9, "share": reached / rate,
        **{f"{name}, ms": 1e6 * parts[name] / n_rows for name in PARTS},
    }  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--n-atoms", type=int, nargs="+", default=[100, 512, 1024])
    parser.add_argument("--n-patches", type=int, default=4000)
    parser.add_argument("--n-slots", type=int, default=256)
    arguments = parser.parse_args()
    sizes, n_patches, repeats = arguments.n_atoms, arguments.n_patches, arguments.repeats
    if arguments.quick:
        sizes, n_patches, repeats = [100], 500, 1
    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    xs = common.patches(test, n_patches, seed=11)
    setting = {"data": name, "patches": n_patches, "slots": arguments.n_slots, "features": 256,
               "strength": common.STRENGTH, "tol": TOL, "repeats": repeats}  # fmt: skip
    print(setting, common.machine(), sep="\n")
    table = []
    for n_atoms in sizes:
        dictionary = common.learned_dictionary(train, n_atoms, 20 if arguments.quick else 400)
        table.append(profile(make_job(dictionary, xs, arguments.n_slots), repeats))
    common.print_table([{k: v for k, v in row.items() if not k.endswith(", ms")} for row in table])
    print("\nms per 1000 rows, by part")
    common.print_table([{"atoms": row["atoms"], **{p: row[f"{p}, ms"] for p in PARTS}} for row in table])
    common.save_results(arguments.results, "roofline", table, setting, _plot(table))


def _plot(table: list[dict[str, Any]]) -> Figure:
    figure = Figure((8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    places, bottom = np.arange(len(table)), np.zeros(len(table))
    names = [str(row["atoms"]) for row in table]
    for i, part in enumerate(PARTS):
        shares = np.array([max(row[f"{part}, ms"], 0) / row["ms per 1000 rows"] for row in table])
        left.bar(places, shares, 0.6, bottom, label=part, color="0.85" if i == len(PARTS) - 1 else f"C{i}")
        bottom += shares
    left.set(xlabel="atoms", ylabel="share of the time", xlim=(-0.6, len(table) - 0.4))
    left.axhline(1, color="0.3", linewidth=0.8)
    left.set_xticks(places, names)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False, fontsize=8)
    right.bar(
        places - 0.2, [row["GFLOP/s of products"] for row in table], 0.4, label="products alone", color="0.7"
    )
    right.bar(places + 0.2, [row["GFLOP/s reached"] for row in table], 0.4, label="inference", color="C0")
    right.set(xlabel="atoms", ylabel="GFLOP/s, float32")
    right.set_xticks(places, names)
    right.legend(frameon=False, fontsize=8)
    right.margins(y=0.3)
    return figure


if __name__ == "__main__":
    main()
