"""The table of `neurojax.proximal`."""

import jax.numpy as jnp

from neurojax import penalties, proximal

from ._entry import Entry, normal, number, others, positive


def _design():
    return {"matrix": normal(7, 4), "target": normal(7, seed=1), "strength": number(0.2)}


def _solved(smooth, strength, like):
    tol = 3e-15 if like.dtype == "float64" else 1e-4
    penalty, start = penalties.ElasticNet(strength, strength), jnp.zeros(4, like.dtype)
    return proximal.minimize(smooth, penalty, start, tol=tol, max_steps=20_000)


def _least_squares(matrix, target, strength):
    smooth = proximal.LeastSquares(matrix, target)
    dtype = smooth.target.dtype
    tol = 1e-14 if dtype == "float64" else 1e-4
    return proximal.minimize(smooth, penalties.L1(strength), jnp.zeros(4, dtype), tol=tol, max_steps=20_000)


def _logistic(xs, targets, l1):
    smooth = proximal.Logistic(xs, targets)
    return _solved(smooth, l1, smooth.xs)


def _poisson(xs, counts, l1):
    smooth = proximal.Poisson(xs, counts)
    return _solved(smooth, l1, smooth.xs)


def _function(args, strength):
    def loss(z, x):
        return jnp.sum(jnp.cosh(z - x[0])) + jnp.sum(z) * x[1, 0]

    dtype = penalties.L1(strength).strength.dtype
    tol = 1e-13 if dtype == "float64" else 1e-4
    return proximal.minimize(loss, penalties.L1(strength), jnp.zeros(4, dtype), args=(args,), tol=tol)


def _tree(args, strength):
    def loss(z, x):
        return jnp.sum((z["w"] - x[0]) ** 2) + (z["b"] - x[1, 0]) ** 2

    dtype = penalties.L1(strength).strength.dtype
    start = {"w": jnp.zeros(4, dtype), "b": jnp.zeros((), dtype)}
    tol = 1e-13 if dtype == "float64" else 1e-4
    return proximal.minimize(loss, {"w": penalties.L1(strength), "b": None}, start, args=(args,), tol=tol)


def _batch(matrix, args, strength):
    matrix = proximal.Matrix(matrix)
    dtype = matrix.matrix.dtype
    return proximal.minimize_batch(
        lambda row: proximal.LeastSquares(matrix, row),
        penalties.L1(strength),
        jnp.zeros((3, 4), dtype),
        args=(args,),
        tol=1e-14 if dtype == "float64" else 1e-4,
        n_slots=2,
    )


def _matrix(matrix, y):
    linear = proximal.Matrix(matrix)
    return linear.apply(linear.transpose(y))


def _problem(matrix, target, strength):
    smooth = proximal.LeastSquares(matrix, target)
    value = jnp.ones(4, smooth.target.dtype)
    problem = proximal.make_composite(smooth, penalties.L1(strength), value)
    return problem.fixed_point(value), problem.stationarity(value)


def _eigenvalue(matrix):
    linear = proximal.Matrix(matrix)
    return proximal.largest_eigenvalue(lambda z: linear.transpose(linear.apply(z)), linear.matrix[0])


def _of_squares(matrix, target, weights):
    smooth = proximal.LeastSquares(matrix, target, weights)
    z = jnp.ones(4, smooth.target.dtype)
    return smooth.value(z), smooth.gradient(z), smooth.misfit(smooth.point(z))


def _weighted():
    return {"matrix": normal(7, 4), "target": normal(7, seed=1), "weights": positive(7)}


def _likelihood(target):
    return lambda: {"xs": normal(7, 4), target: positive(7), "l1": number(0.2)}


def _of_rows():
    return {"matrix": normal(7, 4), "args": normal(3, 7), "strength": number(0.2)}


def _of_a_function():
    return {"args": normal(2, 4), "strength": number(0.2)}


ENTRIES = [
    Entry("proximal.minimize", _function, _of_a_function, "function", differentiable=("args", "strength")),
    Entry("proximal.minimize", _tree, _of_a_function, "tree", differentiable=("args", "strength")),
    Entry(
        "proximal.LeastSquares",
        _least_squares,
        _design,
        differentiable=("matrix", "target", "strength"),
    ),
    Entry(
        "proximal.LeastSquares",
        _of_squares,
        _weighted,
        "weighted",
        differentiable=("matrix", "target", "weights"),
    ),
    Entry("proximal.Logistic", _logistic, _likelihood("targets"), differentiable=("xs", "targets", "l1")),
    Entry("proximal.Poisson", _poisson, _likelihood("counts"), differentiable=("xs", "counts", "l1")),
    Entry(
        "proximal.Matrix",
        _matrix,
        lambda: {"matrix": normal(7, 4), "y": normal(7)},
        differentiable=("matrix", "y"),
    ),
    Entry("proximal.minimize_batch", _batch, _of_rows, differentiable=("matrix", "args", "strength")),
    Entry("proximal.make_composite", _problem, _design, differentiable=("matrix", "target", "strength")),
    Entry(
        "proximal.largest_eigenvalue",
        _eigenvalue,
        lambda: {"matrix": normal(7, 4)},
        why="It is a constant.",
    ),
    *others(
        "proximal",
        "abstract class",
        "AbstractCompositeProblem AbstractLinearMap AbstractProximalGradient AbstractSmooth",
    ),
    *others("proximal", "record", "CompositeProblem FunctionSmooth Misfit Point SpaRSAState"),
    *others("proximal", "settings", "ISTA FISTA SpaRSA", "They are tested with sparse_coding.encode."),
]
