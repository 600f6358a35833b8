"""How long do certified codes take, against scikit-learn, SPAMS, celer, skglm, JAXopt and PyTorch?

Whitened 16 × 16 patches, 1000 and 20,000 of them, 100, 512 and 1024 learned atoms, ½‖x − z @ atoms‖² +
0.5‖z‖₁. Everyone codes the same patches; slow contenders code the first of them only (the column "rows"),
and all times are per 1000 rows. Codes are certified in float64 before any time is printed: the objectives
must agree, and who misses a relative duality gap of 1e-4 on any row is marked. Gram matrices and copies in
a peer's layout are made before its time begins. Absent peers are shown.

Then stragglers: one datum in a hundred is so much larger than the others that it takes 15 to 20 times as
many steps. How near do steps in slots come to the total work, and how long does a plain vmap take (on the
first 1000 rows)?

    python benchmarks/inference_speed.py [--n-atoms 100 512 1024] [--n-patches 1000 20000] [--quick]
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, SpaRSA, encode, encode_batch, random_dictionary

TOL = 1e-4
FEW = 200  # rows for contenders that take long
FEW_IN_VMAP = 1000  # rows for plain vmaps, whose time per row grows with their number


class Run(NamedTuple):
    """What is timed, and what makes a dense matrix of its codes afterwards."""

    call: Callable[[], Any]
    dense: Callable[[Any], np.ndarray] = np.asarray


def library(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """`encode_batch`, float32."""
    batch, penalty = jnp.asarray(xs), L1(common.STRENGTH)
    return Run(lambda: encode_batch(dictionary, batch, penalty, tol=TOL).value.block_until_ready())


def plain_vmap(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """``vmap(encode)`` with the same solver, float32: all rows until the slowest ends."""
    batch, penalty = jnp.asarray(xs), L1(common.STRENGTH)
    return Run(lambda: _vmapped(dictionary, batch, penalty).value.block_until_ready())


@jax.jit
def _vmapped(dictionary: Dictionary, xs: jax.Array, penalty: L1):
    solver = SpaRSA()
    return jax.vmap(lambda x: encode(dictionary, x, penalty, solver=solver, tol=TOL, steps_per_check=1))(xs)


def scikit_learn(algorithm: str, n_jobs: int) -> Callable[[Dictionary, np.ndarray], Run]:
    """`sparse_encode`, float64; its tolerance cannot be set, and is tighter."""

    def make(dictionary: Dictionary, xs: np.ndarray) -> Run:
        from sklearn.decomposition import sparse_encode

        atoms, rows = np.asarray(dictionary.atoms, np.float64), np.asarray(xs, np.float64)
        settings: dict[str, Any] = {
            "gram": atoms @ atoms.T, "cov": atoms @ rows.T, "algorithm": algorithm, "alpha": common.STRENGTH,
            "max_iter": 5000, "check_input": False, "n_jobs": n_jobs,
        }  # fmt: skip
        return Run(lambda: sparse_encode(rows, atoms, **settings))

    return make


def spams_lars(dtype: type) -> Callable[[Dictionary, np.ndarray], Run]:
    """SPAMS' homotopy, two threads."""

    def make(dictionary: Dictionary, xs: np.ndarray) -> Run:
        spams: Any = importlib.import_module("spams")
        atoms = np.asfortranarray(np.asarray(dictionary.atoms, dtype).T)
        rows = np.asfortranarray(np.asarray(xs, dtype).T)
        return Run(
            lambda: spams.lasso(rows, D=atoms, lambda1=common.STRENGTH, mode=2, numThreads=2),
            lambda codes: codes.toarray().T,
        )

    return make


def celer_looped(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """Run celer's working sets row by row, float64; its tol is the gap over ‖x‖², hence TOL/2."""
    celer: Any = importlib.import_module("celer")
    columns = np.asfortranarray(np.asarray(dictionary.atoms, np.float64).T)
    rows, alphas = np.asarray(xs, np.float64), [common.STRENGTH / len(columns)]

    def one(x: np.ndarray) -> np.ndarray:
        return celer.celer_path(columns, x, "lasso", alphas=alphas, tol=TOL / 2, max_iter=100)[1][:, 0]

    return Run(lambda: np.stack([one(x) for x in rows]))


def skglm_looped(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """Run skglm's working sets row by row, float64; its tol, which bounds no gap, was tried out."""
    datafits, penalties, solvers = (
        importlib.import_module(f"skglm.{name}") for name in ("datafits", "penalties", "solvers")
    )
    compiled_clone: Any = importlib.import_module("skglm.utils.jit_compilation").compiled_clone
    columns = np.asfortranarray(np.asarray(dictionary.atoms, np.float64).T)
    datafit = compiled_clone(datafits.Quadratic())
    penalty = compiled_clone(penalties.L1(common.STRENGTH / len(columns)))
    solver = solvers.AndersonCD(tol=3e-7, fit_intercept=False)
    rows = np.asarray(xs, np.float64)
    return Run(
        lambda: np.stack([solver.solve(columns, x, datafit, penalty, run_checks=False)[0] for x in rows])
    )


def jaxopt_vmapped(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """JAXopt's accelerated proximal gradient, float32, fixed step 1/L (its fastest form), vmapped."""
    jaxopt: Any = importlib.import_module("jaxopt")
    atoms, batch = dictionary.atoms, jnp.asarray(xs)
    step = float(1 / np.linalg.norm(np.asarray(atoms), 2) ** 2)

    def energy(code: jax.Array, x: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((x - code @ atoms) ** 2)

    solver = jaxopt.ProximalGradient(
        energy, jaxopt.prox.prox_lasso, stepsize=step, maxiter=5000, tol=5e-5, acceleration=True
    )
    start = jnp.zeros(atoms.shape[0])
    run = jax.jit(jax.vmap(lambda x: solver.run(start, hyperparams_prox=common.STRENGTH, x=x).params))
    return Run(lambda: run(batch).block_until_ready())


def pytorch_fista(dictionary: Dictionary, xs: np.ndarray) -> Run:
    """FISTA with restarts a row, batched, float32, through the Gram matrix; certified every 10 steps."""
    torch: Any = importlib.import_module("torch")
    atoms, rows = torch.tensor(np.asarray(dictionary.atoms)), torch.tensor(np.asarray(xs))
    gram, drive, strength = atoms @ atoms.T, rows @ atoms.T, common.STRENGTH
    squared_x = (rows**2).sum(1)
    step = float(1 / np.linalg.norm(np.asarray(dictionary.atoms), 2) ** 2)

    def worst_gap(code: Any) -> float:
        error = rows - code @ atoms
        pull = error @ atoms.T
        scale = (strength / pull.abs().amax(1)).clamp(max=1)
        slack = (strength * code.abs() - scale[:, None] * code * pull).clamp(min=0).sum(1)
        return float(((0.5 * (1 - scale) ** 2 * (error**2).sum(1) + slack) / (0.5 * squared_x)).max())

    def run() -> Any:
        code = point = torch.zeros_like(drive)
        age = torch.ones(len(rows), 1)
        for n_steps in range(1, 5001):
            moved = torch.nn.functional.softshrink(point - step * (point @ gram - drive), step * strength)
            change = moved - code
            is_uphill = ((point - moved) * change).sum(1, keepdim=True) > 0
            older = torch.where(is_uphill, 1.0, (1 + torch.sqrt(1 + 4 * age**2)) / 2)
            point = moved + torch.where(is_uphill, 0.0, (age - 1) / older) * change
            code, age = moved, older
            if n_steps % 10 == 0 and worst_gap(code) <= TOL:
                break
        return code

    return Run(run, lambda code: code.numpy())


class Contender(NamedTuple):
    """How to set a contender up (the quickest of several ways counts), its module, and the most rows."""

    ways: tuple[Callable[[Dictionary, np.ndarray], Run], ...]
    module: str
    most_rows: int | None = None


SPAMS = "SPAMS LARS, float64, 2 threads"
CONTENDERS = {
    "neurojax encode_batch, float32": Contender((library,), "neurojax"),
    "neurojax vmap(encode), float32": Contender((plain_vmap,), "neurojax", FEW_IN_VMAP),
    SPAMS: Contender((spams_lars(np.float64),), "spams"),
    "SPAMS LARS, float32, 2 threads": Contender((spams_lars(np.float32),), "spams"),
    "scikit-learn lasso_cd, best of 1, 2 jobs": Contender(
        (scikit_learn("lasso_cd", 1), scikit_learn("lasso_cd", 2)), "sklearn"
    ),
    "scikit-learn lasso_lars, best of 1, 2 jobs": Contender(
        (scikit_learn("lasso_lars", 1), scikit_learn("lasso_lars", 2)), "sklearn", FEW
    ),
    "celer, looped, float64": Contender((celer_looped,), "celer", FEW),
    "skglm, looped, float64": Contender((skglm_looped,), "skglm", FEW),
    "JAXopt, vmapped, float32": Contender((jaxopt_vmapped,), "jaxopt", FEW),
    "PyTorch FISTA, batched, float32": Contender((pytorch_fista,), "torch", 1000),
}


def quickest(contender: Contender, dictionary: Dictionary, xs: np.ndarray) -> Run:
    """Return the way that takes least time on the second call."""
    runs = [make(dictionary, xs[: contender.most_rows]) for make in contender.ways]
    if len(runs) == 1:
        return runs[0]
    for run in runs:
        run.call()
    seconds = common.interleaved_medians({str(i): run.call for i, run in enumerate(runs)}, 1)
    return runs[int(min(seconds, key=lambda name: seconds[name]))]


def compare(dictionary: Dictionary, xs: np.ndarray, repeats: int) -> list[dict[str, Any]]:
    """Certify every contender's codes, then time them turn by turn."""
    atoms = np.asarray(dictionary.atoms)
    truth = encode_batch(dictionary, xs, L1(common.STRENGTH), tol=1e-6).value
    runs, checks = {}, {}
    for name, contender in CONTENDERS.items():
        if importlib.util.find_spec(contender.module) is None:
            continue
        runs[name] = run = quickest(contender, dictionary, xs)
        codes = run.dense(run.call())
        n = len(codes)
        gap, objective = common.certify(atoms, xs[:n], codes, common.STRENGTH)
        expected = common.certify(atoms, xs[:n], np.asarray(truth[:n]), common.STRENGTH)[1]
        if not np.isclose(objective, expected, rtol=1e-3):
            raise SystemExit(f"The answers differ: {name} has {objective}, expected {expected}.")
        checks[name] = {"rows": n, "worst gap": gap, "active": float((codes != 0).sum(1).mean())}
    seconds = common.interleaved_medians({name: run.call for name, run in runs.items()}, repeats)
    per_1000 = {name: 1e6 * seconds[name] / checks[name]["rows"] for name in runs}
    return [
        {
            "contender": name, "atoms": len(atoms), "patches": len(xs), "rows": checks[name]["rows"],
            "ms per 1000 rows": per_1000[name],
            "time / SPAMS": per_1000[name] / per_1000[SPAMS] if SPAMS in runs else "–",
            "worst gap": checks[name]["worst gap"],
            "gap ≤ 1e-4": "yes" if checks[name]["worst gap"] <= 1.01 * TOL else "no",
            "active": checks[name]["active"],
        }
        if name in runs
        else {"contender": f"{name} (absent)"} | dict.fromkeys(_COLUMNS, "–")
        for name in CONTENDERS
    ]  # fmt: skip


_COLUMNS = (
    "atoms",
    "patches",
    "rows",
    "ms per 1000 rows",
    "time / SPAMS",
    "worst gap",
    "gap ≤ 1e-4",
    "active",
)


def straggling_rows(dictionary: Dictionary, n_rows: int, scale: float) -> np.ndarray:
    """Return sums of three atoms with noise; every hundredth is ``scale`` times as large.

    To a large datum the same λ is a weak penalty: more units become active, and more steps are needed.
    """
    random = np.random.default_rng(5)
    atoms = np.asarray(dictionary.atoms)
    codes = np.zeros((n_rows, len(atoms)))
    for code in codes:
        code[random.choice(len(atoms), 3, replace=False)] = random.normal(size=3)
    rows = codes @ atoms + 0.05 * random.normal(size=(n_rows, atoms.shape[1]))
    rows[::100] *= scale
    return rows.astype(np.float32)


def stragglers(n_rows: int, repeats: int, n_slots: int = 256, scale: float = 30.0) -> list[dict[str, Any]]:
    """Measure without stragglers, and with them."""
    dictionary = random_dictionary(jax.random.key(3), 256, 128)
    rows = straggling_rows(dictionary, n_rows, scale)
    is_large = np.arange(n_rows) % 100 == 0
    return [
        {
            "stragglers": "none",
            **in_slots(dictionary, rows[~is_large], is_large[~is_large], repeats, n_slots),
        },
        {"stragglers": "1 in 100", **in_slots(dictionary, rows, is_large, repeats, n_slots)},
    ]


def in_slots(
    dictionary: Dictionary, xs: np.ndarray, is_large: np.ndarray, repeats: int, n_slots: int
) -> dict[str, Any]:
    """Count the steps that rows need and that slots take; time slots, and the vmap on the first rows."""
    data, few, penalty = jnp.asarray(xs), jnp.asarray(xs[:FEW_IN_VMAP]), L1(common.STRENGTH)

    def slots():
        return jax.block_until_ready(encode_batch(dictionary, data, penalty, tol=TOL, n_slots=n_slots))

    def plain():
        return jax.block_until_ready(_vmapped(dictionary, few, penalty))

    solution = slots()
    plain()
    counts, codes = np.asarray(solution.n_steps), np.asarray(solution.value)
    blocks = common.blocks_of(counts, SpaRSA())
    n_taken = common.steps_in_slots(blocks, n_slots, common.longest_first(dictionary, xs))
    seconds = common.interleaved_medians({"slots": slots, "vmap": plain}, repeats)
    return {
        "rows": len(xs), "steps, others": float(counts[~is_large].mean()),
        "steps, large": float(counts[is_large].mean()) if is_large.any() else "–",
        "most": int(counts.max()),
        "slot steps / work": n_taken * min(n_slots, len(xs)) / int(blocks.sum()),
        "vmap steps / work": int(counts.max()) * len(xs) / int(counts.sum()),
        "slots, ms per 1000": 1e6 * seconds["slots"] / len(xs),
        "vmap, ms per 1000": 1e6 * seconds["vmap"] / len(few),
        "worst gap": common.certify(np.asarray(dictionary.atoms), xs, codes, common.STRENGTH)[0],
    }  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=3)
    parser.add_argument("--n-atoms", type=int, nargs="+", default=[100, 512, 1024])
    parser.add_argument("--n-patches", type=int, nargs="+", default=[1000, 20_000])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    sizes, numbers, repeats = arguments.n_atoms, arguments.n_patches, arguments.repeats
    if arguments.quick:
        sizes, numbers, repeats = [100], [100], 1
    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    setting: dict[str, object] = {
        "data": name,
        "features": 256,
        "strength": common.STRENGTH,
        "tol": TOL,
        "repeats": repeats,
    }
    print(setting, common.machine(), sep="\n")
    table: list[dict[str, Any]] = []
    for n_atoms in sizes:
        dictionary = common.learned_dictionary(train, n_atoms, 20 if arguments.quick else 400)
        for n_patches in numbers:
            rows = compare(dictionary, common.patches(test, n_patches, seed=11), repeats)
            common.print_table(rows)
            table += rows
    straggling = stragglers(500 if arguments.quick else 20_000, repeats)
    print("Stragglers: 128 features, 256 random atoms; steps are blocks of SpaRSA")
    common.print_table(straggling)
    setting["stragglers"] = straggling
    common.save_results(arguments.results, "inference_speed", table, setting, _plot(table))


def _plot(table: list[dict[str, Any]]) -> Figure:
    table = [row for row in table if row["rows"] != "–"]
    groups = sorted({(row["patches"], row["atoms"]) for row in table})
    names = [name for name in CONTENDERS if any(row["contender"] == name for row in table)]
    width = 0.85 / len(names)
    figure = Figure((6 + 1.2 * len(groups), 4), layout="constrained")
    axes = figure.subplots()
    for i, name in enumerate(names):
        rows = [row for row in table if row["contender"] == name]
        places = [
            groups.index((row["patches"], row["atoms"])) + (i - (len(names) - 1) / 2) * width for row in rows
        ]
        bars = axes.bar(places, [row["ms per 1000 rows"] for row in rows], width, label=name, color=f"C{i}")
        for bar, row in zip(bars, rows, strict=True):
            bar.set_hatch("" if row["gap ≤ 1e-4"] == "yes" else "///")
    axes.set(yscale="log", ylabel="ms per 1000 rows (hatched: gap above 1e-4)")
    axes.set_xticks(range(len(groups)), [f"{atoms} atoms\n{patches} patches" for patches, atoms in groups])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    main()
