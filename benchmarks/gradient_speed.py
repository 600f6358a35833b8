"""What does a gradient through sparse inference cost, and how right is it?

64 data of 256 features, 512 atoms, ½‖x − z @ atoms‖² + λ‖z‖₁ solved to a relative gap of 1e-5 in float32; the
derivative of Σ w·z (w random) with respect to atoms, data and λ at once. Two problems: sparse sums of random
atoms, and whitened patches with learned atoms. The truth is the closed form on the support, in NumPy and
float64. Times include the forward solve; the ratio is to the forward solve alone, each library's own. JAXopt,
where it is installed, runs its accelerated method to its own stop (on the step, not a gap) or, unrolled, for
100 steps; it is given 1/L, which the library estimates in its own time. What misses the gap is not timed.

    python benchmarks/gradient_speed.py [--repeats 7] [--quick]
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import _common as common
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from neurojax.convergence import AbstractGradient, Detached, Implicit, Truncated, Unrolled
from neurojax.penalties import L1
from neurojax.sparse_coding import Dictionary, encode, random_dictionary

TOL = 1e-5
Problem = tuple[np.ndarray, np.ndarray, float, np.ndarray]  # atoms, data, strength, weights of the loss
Solve = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def random_problem(n_samples: int, n_atoms: int, n_features: int) -> Problem:
    """Sums of one atom in twelve, and a little noise."""
    numbers = np.random.default_rng(0)
    atoms = np.asarray(random_dictionary(jax.random.key(0), n_atoms, n_features).atoms)
    codes = numbers.normal(size=(n_samples, n_atoms)) * (numbers.random((n_samples, n_atoms)) < 1 / 12)
    xs = codes @ atoms + 0.05 * numbers.normal(size=(n_samples, n_features))
    return atoms, xs.astype(np.float32), 0.1, numbers.normal(size=(n_samples, n_atoms)).astype(np.float32)


def patch_problem(n_samples: int, n_atoms: int, n_steps: int) -> Problem:
    """Whitened patches, atoms learned from others."""
    images, _ = common.whitened_images()
    train, test = common.split_rows(images)
    atoms = np.asarray(common.learned_dictionary(train, n_atoms, n_steps).atoms)
    weights = np.random.default_rng(1).normal(size=(n_samples, n_atoms)).astype(np.float32)
    return atoms, common.patches(test, n_samples, seed=5), common.STRENGTH, weights


def library(gradient: AbstractGradient, max_steps: int = 2000) -> Solve:
    """``jax.vmap(encode)`` with FISTA."""

    def solve(atoms: jax.Array, xs: jax.Array, strength: jax.Array) -> jax.Array:
        one = partial(encode, tol=TOL, max_steps=max_steps, gradient=gradient)
        return jax.vmap(lambda x: one(Dictionary(atoms), x, L1(strength)).value)(xs)

    return solve


def jaxopt_solve(step_size: float, *, implicit: bool = True, max_steps: int = 2000) -> Solve:
    """JAXopt's accelerated proximal gradient with step 1/L; its tolerance is on the step, and not a gap."""
    jaxopt: Any = importlib.import_module("jaxopt")

    def energy(code: jax.Array, x: jax.Array, atoms: jax.Array) -> jax.Array:
        return 0.5 * jnp.sum((x - code @ atoms) ** 2)

    solver = jaxopt.ProximalGradient(
        energy,
        jaxopt.prox.prox_lasso,
        stepsize=step_size,
        maxiter=max_steps,
        tol=2e-5 if implicit else 0.0,
        acceleration=True,
        implicit_diff=implicit,
    )

    def solve(atoms: jax.Array, xs: jax.Array, strength: jax.Array) -> jax.Array:
        start = jnp.zeros(atoms.shape[0])
        run = lambda x: solver.run(start, hyperparams_prox=strength, x=x, atoms=atoms).params  # noqa: E731
        return jax.vmap(run)(xs)

    return solve


def contenders(problem: Problem) -> dict[str, Solve]:
    """Return every solve with its name; those named "forward" are not differentiated."""
    step_size = float(1 / np.linalg.norm(problem[0], 2) ** 2)
    solves = {
        "neurojax forward": library(Detached()),
        "neurojax Implicit": library(Implicit()),
        "neurojax Unrolled": library(Unrolled()),
        "neurojax Truncated(10)": library(Truncated(10)),
        "neurojax Truncated(50)": library(Truncated(50)),
    }
    if importlib.util.find_spec("jaxopt") is not None:
        solves["JAXopt forward"] = jaxopt_solve(step_size)
        solves["JAXopt implicit"] = jaxopt_solve(step_size, implicit=True)
        solves["JAXopt unrolled, 100 steps"] = jaxopt_solve(step_size, implicit=False, max_steps=100)
    return solves


def truth(problem: Problem) -> tuple[np.ndarray, ...]:
    """Return the codes and their exact derivatives (atoms, data, strength), NumPy and float64.

    With S the support, s its signs, u = (A_S A_Sᵀ)⁻¹ w_S and r the error, the derivatives of w·z are
    u ⊗ r − z_S ⊗ uA_S, uA_S and −u·s. The optimality conditions of the codes are checked.
    """
    atoms, xs, strength, weights = (np.asarray(a, np.float64) for a in problem)
    with jax.enable_x64(True):
        run = jax.vmap(lambda x: encode(Dictionary(atoms), x, L1(strength), tol=1e-12, max_steps=20000).value)
        codes = np.array(run(jnp.asarray(xs)))
    by_atoms, by_xs, by_strength = np.zeros_like(atoms), np.zeros_like(xs), 0.0
    for code, x, weight, by_x in zip(codes, xs, weights, by_xs, strict=True):
        active = np.flatnonzero(code)
        signs, rows = np.sign(code[active]), atoms[active]
        code[active] = np.linalg.solve(rows @ rows.T, rows @ x - strength * signs)
        error = x - code @ atoms
        kept_signs = np.array_equal(np.sign(code[active]), signs)
        if not kept_signs or np.abs(atoms @ error).max() > strength * (1 + 1e-9):
            raise SystemExit("The float64 codes are not optimal.")
        u = np.linalg.solve(rows @ rows.T, weight[active])
        by_x[:] = u @ rows
        by_atoms[active] += np.outer(u, error) - np.outer(code[active], u @ rows)
        by_strength -= u @ signs
    return codes, by_atoms, by_xs, np.asarray(by_strength)


def megabytes(program: Any) -> float:
    """Return the temporary memory of a compiled program."""
    return program.memory_analysis().temp_size_in_bytes / 1e6


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Return ‖a − b‖/‖b‖."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b))


def compare(name: str, problem: Problem, repeats: int) -> list[dict[str, object]]:
    """Check every contender's codes and gradients, then time them turn by turn."""
    arguments = (jnp.asarray(problem[0]), jnp.asarray(problem[1]), jnp.float32(problem[2]))
    weights = jnp.asarray(problem[3])
    exact_codes, *exact = truth(problem)
    runs: dict[str, Callable[[], object]] = {}
    rows: dict[str, dict[str, object]] = {}
    for contender, solve in contenders(problem).items():

        def loss(atoms, xs, strength, solve=solve):
            codes = solve(atoms, xs, strength)
            return jnp.sum(weights * codes), codes

        is_forward = contender.endswith("forward")
        differentiated = loss if is_forward else jax.value_and_grad(loss, (0, 1, 2), has_aux=True)
        program = jax.jit(differentiated).lower(*arguments).compile()
        out = program(*arguments)
        codes = np.asarray(out[1] if is_forward else out[0][1])
        errors = (
            [] if is_forward else [relative(np.asarray(g), e) for g, e in zip(out[1], exact, strict=True)]
        )
        gap, _ = common.certify(problem[0], problem[1], codes, problem[2])
        if contender.startswith("neurojax") and gap > 1.5 * TOL:
            raise SystemExit(f"{contender}: codes of relative gap {gap:.2g}.")
        is_solved = gap <= 1.5 * TOL
        if is_solved:
            runs[contender] = partial(lambda program: jax.block_until_ready(program(*arguments)), program)
        rows[contender] = {
            "problem": name, "contender": contender, "worst gap": gap,
            "solved": "yes" if is_solved else "no",
            "code error": relative(codes, exact_codes),
            **dict(zip(("by atoms", "by data", "by strength"), errors or ["-"] * 3, strict=True)),
            "MB": megabytes(program),
        }  # fmt: skip
    seconds = common.interleaved_medians(runs, repeats)
    for contender, row in rows.items():
        forward = seconds.get(f"{contender.split()[0]} forward")
        took = seconds.get(contender)
        row["ms"] = "-" if took is None else 1e3 * took
        row["× forward"] = "-" if took is None or forward is None else took / forward
    return list(rows.values())


def memory(problem: Problem, all_max_steps: list[int]) -> list[dict[str, object]]:
    """Return the temporary memory of a compiled gradient against the most steps it may take."""
    arguments = (jnp.asarray(problem[0]), jnp.asarray(problem[1]), jnp.float32(problem[2]))
    table: list[dict[str, object]] = []
    for name, gradient in (("Implicit", Implicit()), ("Unrolled", Unrolled())):
        for n in all_max_steps:
            solve = library(gradient, n)
            program = jax.jit(jax.grad(lambda *a, solve=solve: jnp.sum(solve(*a)), (0, 1, 2)))
            compiled = program.lower(*arguments).compile()
            table.append({"mode": name, "max_steps": n, "MB": megabytes(compiled)})
    return table


def main() -> None:
    """Run the benchmark."""
    arguments = common.parser(__doc__, repeats=7).parse_args()
    n_samples, n_atoms, n_learning, repeats = 64, 512, 400, arguments.repeats
    if arguments.quick:
        n_samples, n_atoms, n_learning, repeats = 4, 64, 20, 1
    problems = {
        "random": random_problem(n_samples, n_atoms, 256),
        "patches": patch_problem(n_samples, n_atoms, n_learning),
    }
    strengths = {name: problem[2] for name, problem in problems.items()}
    setting = {"samples": n_samples, "features": 256, "atoms": n_atoms, "tol": TOL, "dtype": "float32",
               "strength": strengths, "repeats": repeats}  # fmt: skip
    print(setting, common.machine(), sep="\n")
    table: list[dict[str, object]] = []
    for name, problem in problems.items():
        rows = compare(name, problem, repeats)
        common.print_table(rows)
        table += rows
    memories = memory(problems["random"], [100, 1000, 10000])
    common.print_table(memories)
    common.save_results(
        arguments.results, "gradient_speed", table, {**setting, "memory": memories}, _plot(table)
    )


def _plot(table: list[dict[str, object]]) -> Figure:
    figure = Figure((8, 3.6), layout="constrained")
    for axes, problem in zip(figure.subplots(1, 2, sharey=True), ("random", "patches"), strict=True):
        for row in table:
            if row["problem"] == problem and row["by atoms"] != "-" and row["solved"] == "yes":
                axes.plot(row["× forward"], row["by atoms"], "o", label=row["contender"])
        axes.axvline(2, color="0.8", zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="time / forward solve", title=problem)
        axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        axes.minorticks_off()
    figure.axes[0].set_ylabel("relative error of the gradient in the atoms")
    figure.axes[1].legend(frameon=False, fontsize="small")
    return figure


if __name__ == "__main__":
    main()
