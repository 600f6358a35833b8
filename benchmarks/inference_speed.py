"""How long do certified codes of 1000 patches take, against scikit-learn, SPAMS and JAXopt?

Whitened 16 × 16 patches, 100, 512 and 1024 learned atoms, ½‖x − z @ atoms‖² + 0.5‖z‖₁. Everyone codes the
same patches; codes are certified afterwards in float64, and a contender whose worst relative duality gap is
above 1e-4 is marked. Peers that are not installed are shown as absent.

    python benchmarks/inference_speed.py [--n-atoms 100 512 1024] [--repeats 5] [--quick]
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
from matplotlib.figure import Figure

from neurojax.penalties import L1
from neurojax.sparse_coding import FISTA, Dictionary, encode

TOL = 1e-4


def library(dictionary: Dictionary, xs: np.ndarray) -> Callable[[], np.ndarray]:
    """``jax.vmap(encode)`` with FISTA, float32."""
    batch = jnp.asarray(xs)
    run = jax.jit(
        jax.vmap(lambda x: encode(dictionary, x, L1(common.STRENGTH), solver=FISTA(), tol=TOL).value)
    )
    return lambda: np.asarray(run(batch))


def scikit_learn(dictionary: Dictionary, xs: np.ndarray) -> Callable[[], np.ndarray]:
    """Coordinate descent, float64; its tolerance is chosen so that the gap is reached."""
    from sklearn.decomposition import sparse_encode

    atoms, xs = np.asarray(dictionary.atoms, np.float64), np.asarray(xs, np.float64)
    gram, covariance = atoms @ atoms.T, atoms @ xs.T

    def run() -> np.ndarray:
        return sparse_encode(
            xs,
            atoms,
            gram=gram,
            cov=covariance,
            algorithm="lasso_cd",
            alpha=common.STRENGTH,
            max_iter=5000,
            check_input=False,
        )

    return run


def spams_lars(dictionary: Dictionary, xs: np.ndarray) -> Callable[[], np.ndarray]:
    """SPAMS' homotopy, float64, two threads."""
    spams: Any = importlib.import_module("spams")

    atoms = np.asfortranarray(np.asarray(dictionary.atoms, np.float64).T)
    data = np.asfortranarray(np.asarray(xs, np.float64).T)

    def run() -> np.ndarray:
        codes = spams.lasso(data, D=atoms, lambda1=common.STRENGTH, mode=2, numThreads=2)
        return codes.toarray().T

    return run


def jaxopt_vmapped(dictionary: Dictionary, xs: np.ndarray) -> Callable[[], np.ndarray]:
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
    return lambda: np.asarray(run(batch))


CONTENDERS = {
    "neurojax vmap(encode) FISTA, float32": (library, "neurojax"),
    "scikit-learn lasso_cd, float64": (scikit_learn, "sklearn"),
    "SPAMS LARS, float64, 2 threads": (spams_lars, "spams"),
    "JAXopt, vmapped, float32": (jaxopt_vmapped, "jaxopt"),
}


def compare(dictionary: Dictionary, xs: np.ndarray, repeats: int) -> list[dict[str, object]]:
    """Certify every contender's codes, then time them turn by turn."""
    runs, rows = {}, []
    for name, (make, module) in CONTENDERS.items():
        if importlib.util.find_spec(module) is None:
            rows.append({"contender": f"{name} (absent)"})
            continue
        runs[name] = make(dictionary, xs)
    checks = {
        name: common.certify(np.asarray(dictionary.atoms), xs, run(), common.STRENGTH)
        for name, run in runs.items()
    }
    objectives = [objective for _, objective in checks.values()]
    if not np.allclose(objectives, objectives[0], rtol=1e-3):
        raise SystemExit(f"The answers differ: {checks}")
    seconds = common.interleaved_medians(runs, repeats)
    for name, (gap, objective) in checks.items():
        rows.append({
            "contender": name, "atoms": dictionary.n_atoms, "ms": 1e3 * seconds[name], "worst gap": gap,
            "gap ≤ 1e-4": "yes" if gap <= 1.01 * TOL else "no", "objective": objective,
        })  # fmt: skip
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, repeats=5)
    parser.add_argument("--n-atoms", type=int, nargs="+", default=[100, 512, 1024])
    arguments = parser.parse_args()
    sizes, repeats, n_patches = arguments.n_atoms, arguments.repeats, 1000
    if arguments.quick:
        sizes, repeats, n_patches = [100], 1, 100
    images, name = common.whitened_images()
    train, test = common.split_rows(images)
    xs = common.patches(test, n_patches, seed=11)
    setting = {"data": name, "patches": n_patches, "features": 256, "strength": common.STRENGTH, "tol": TOL,
               "repeats": repeats}  # fmt: skip
    print(setting, common.machine(), sep="\n")
    table: list[dict[str, object]] = []
    for n_atoms in sizes:
        dictionary = common.learned_dictionary(train, n_atoms, 20 if arguments.quick else 400)
        rows = [row for row in compare(dictionary, xs, repeats) if "ms" in row or print(row)]
        common.print_table(rows)
        table += rows
    common.save_results(arguments.results, "inference_speed", table, setting, _plot(table, sizes))


def _plot(table: list[dict[str, object]], sizes: list[int]) -> Figure:
    figure = Figure((6, 4), layout="constrained")
    axes = figure.subplots()
    for name in CONTENDERS:
        points = [(row["atoms"], row["ms"]) for row in table if row["contender"] == name]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="atoms", ylabel="time for the patches (ms)", xticks=sizes)
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
