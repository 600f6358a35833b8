"""The table of `neurojax.convergence`."""

import jax

from neurojax import convergence, penalties, sparse_coding

from ._entry import Entry, normal, number, others


def _problem(atoms, x, strength):
    return sparse_coding.make_problem(sparse_coding.Dictionary(atoms), x, penalties.L1(strength))


def _arguments():
    return {"atoms": normal(8, 5), "x": normal(5), "strength": number(0.2)}


def _rows():
    return {"atoms": normal(8, 5), "data": normal(6, 5), "strength": number(0.2)}


def _solved():
    codes, zeros = jax.numpy.zeros((6, 8)), jax.numpy.zeros(6, jax.numpy.int32)
    return {"solution": convergence.Solution(codes, zeros, zeros, codes[:, 0])}


def _dtype(atoms):
    return sparse_coding.Dictionary(atoms).atoms.dtype


def _iterate(solver, gradient):
    def call(atoms, x, strength):
        problem = _problem(atoms, x, strength)
        init = jax.numpy.zeros(8, _dtype(atoms))
        tol = 1e-13 if _dtype(atoms) == "float64" else 1e-4
        return convergence.iterate(solver, problem, init, tol=tol, max_steps=1000, gradient=gradient)

    return call


def _trace(atoms, x, strength):
    problem = _problem(atoms, x, strength)
    return convergence.trace(sparse_coding.FISTA(), problem, jax.numpy.zeros(8, _dtype(atoms)), 5)


def _conditioning(atoms, x, strength):
    return convergence.conditioning(_problem(atoms, x, strength), jax.numpy.ones(8, _dtype(atoms)))


def _loop(atoms, x, strength):
    problem = _problem(atoms, x, strength)
    loop = convergence.Loop(1e-4, 100, 10)
    return loop.run(sparse_coding.ISTA(), problem, jax.numpy.zeros(8, _dtype(atoms)))


def _iterate_rows(atoms, data, strength):
    return convergence.iterate_rows(
        sparse_coding.ISTA(),
        lambda x: _problem(atoms, x, strength),
        data,
        jax.numpy.zeros((6, 8), _dtype(atoms)),
        tol=1e-4,
        max_steps=100,
        steps_per_check=10,
        n_slots=3,
    )


def _run_in_slots(rows):
    return convergence.run_in_slots(
        lambda row: row, lambda value: value / 2, lambda value: abs(value).max() < 1, rows, n_slots=2
    )


ATOMS_AND_DATA = ("atoms", "x", "strength")
ISTA = sparse_coding.ISTA()

ENTRIES = [
    Entry(
        "convergence.iterate",
        _iterate(ISTA, convergence.Detached()),
        _arguments,
        "detached",
        why="Detached solutions are constants.",
    ),
    Entry(
        "convergence.Implicit",
        _iterate(ISTA, convergence.Implicit()),
        _arguments,
        differentiable=ATOMS_AND_DATA,
    ),
    Entry(
        "convergence.Unrolled",
        _iterate(ISTA, convergence.Unrolled()),
        _arguments,
        differentiable=ATOMS_AND_DATA,
    ),
    Entry(
        "convergence.Truncated",
        _iterate(ISTA, convergence.Truncated(1000)),
        _arguments,
        differentiable=ATOMS_AND_DATA,
    ),
    Entry(
        "convergence.Picard",
        _iterate(convergence.Picard(), convergence.Unrolled()),
        _arguments,
        differentiable=ATOMS_AND_DATA,
    ),
    Entry("convergence.trace", _trace, _arguments, differentiable=ATOMS_AND_DATA),
    Entry("convergence.conditioning", _conditioning, _arguments, why="The report is a constant."),
    Entry("convergence.Loop", _loop, _arguments, why="The loop ends at a time that only the values show."),
    Entry("convergence.iterate_rows", _iterate_rows, _rows, why="The loop ends where the values say."),
    Entry(
        "convergence.run_in_slots",
        _run_in_slots,
        lambda: {"rows": normal(6, 3)},
        why="The loop ends where the values say.",
    ),
    Entry(
        "convergence.raise_unless_converged",
        convergence.raise_unless_converged,
        _solved,
        platforms=(),
        why="Its exception is raised by a callback to the host, and a check has no derivative.",
    ),
    *others("convergence", "settings", "Detached", "It is tested with iterate."),
    *others(
        "convergence",
        "abstract class",
        "AbstractGradient AbstractProblem AbstractSolver AbstractStationaryProblem",
    ),
    *others("convergence", "settings", "masked", "It is tested with Implicit."),
    *others("convergence", "record", "Conditioning Solution Tangent"),
    *others("convergence", "exception", "NotConvergedError"),
    *others("convergence", "constant", "Status"),
]
