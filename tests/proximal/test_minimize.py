"""`minimize`: against scikit-learn, closed forms and finite differences, for functions and smooth terms."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor

from neurojax import proximal
from neurojax.convergence import Detached, Implicit, Status, Truncated, Unrolled
from neurojax.penalties import L1, AbstractProximalPenalty, ElasticNet, SmoothL1
from neurojax.proximal import FISTA, ISTA, LeastSquares, Logistic, Poisson, SpaRSA, minimize_batch

minimize = eqx.filter_jit(proximal.minimize)
RNG = np.random.default_rng(0)
MATRIX, TARGET = RNG.normal(size=(30, 8)), RNG.normal(size=30)
STRENGTH = 3.0


def lasso(matrix, target, strength):
    return (
        Lasso(strength / len(target), fit_intercept=False, tol=1e-14, max_iter=10**6)
        .fit(matrix, target)
        .coef_
    )


@pytest.mark.parametrize("solver", [FISTA(), ISTA(), SpaRSA()], ids=["fista", "ista", "sparsa"])
def test_least_squares_are_certified_lassos(solver, x64):
    solution = minimize(LeastSquares(MATRIX, TARGET), L1(STRENGTH), jnp.zeros(8), solver=solver, tol=1e-12)
    assert solution.status == Status.converged
    expected = lasso(MATRIX, TARGET, STRENGTH)
    assert 0 < np.sum(expected == 0) < 8
    np.testing.assert_allclose(solution.value, expected, atol=1e-6)
    primal = 0.5 * np.sum((MATRIX @ expected - TARGET) ** 2) + STRENGTH * np.sum(np.abs(expected))
    found = 0.5 * np.sum((MATRIX @ solution.value - TARGET) ** 2) + STRENGTH * np.sum(np.abs(solution.value))
    assert -1e-12 < found - primal <= 1e-12 * 0.5 * TARGET @ TARGET


def test_weights_of_data_are_those_of_repeated_rows(x64):
    weights = np.arange(30) % 3.0
    repeated = np.repeat(np.arange(30), weights.astype(int))
    target = np.where(weights == 0, np.nan, TARGET)
    solution = minimize(LeastSquares(MATRIX, target, weights), L1(STRENGTH), jnp.zeros(8), tol=1e-12)
    assert solution.status == Status.converged
    np.testing.assert_allclose(solution.value, lasso(MATRIX[repeated], TARGET[repeated], STRENGTH), atol=1e-6)
    with pytest.raises(ValueError, match=r"weights: expected .* ≥ 0"):
        LeastSquares(MATRIX, TARGET, -weights)


def test_logistic_and_poisson_are_scikit_learns(x64):
    xs = RNG.normal(size=(60, 4))
    classes = RNG.integers(0, 3, 60)
    ridge = ElasticNet(0.0, 0.7)
    found = minimize(Logistic(xs, jax.nn.one_hot(classes, 3)), ridge, jnp.zeros((4, 3)))
    model = LogisticRegression(C=1 / 0.7, fit_intercept=False, tol=1e-10, max_iter=10**4).fit(xs, classes)
    assert found.status == Status.converged
    np.testing.assert_allclose(found.value.T, model.coef_, atol=1e-5)
    binary = (classes > 0).astype(float)
    weights = RNG.uniform(0.5, 2, 60)
    found = minimize(Logistic(xs, binary, weights), ridge, jnp.zeros(4))
    model.fit(xs, binary, weights)
    np.testing.assert_allclose(found.value, model.coef_[0], atol=1e-5)
    counts = RNG.poisson(np.exp(xs @ np.array([0.5, 0, -0.5, 1.0])))
    found = minimize(Poisson(xs, counts, np.full(60, 1 / 60)), ridge, jnp.zeros(4))
    model = PoissonRegressor(alpha=0.7, fit_intercept=False, tol=1e-12, max_iter=10**4).fit(xs, counts)
    assert found.status == Status.converged
    np.testing.assert_allclose(found.value, model.coef_, atol=1e-5)


@pytest.mark.parametrize("kind", ["logistic", "multinomial", "poisson", "softplus", "squares"])
def test_smooth_terms_have_the_gradients_and_curvatures_of_their_values(kind, x64):
    xs, weights = MATRIX[:, :4], np.abs(TARGET)
    smooth = {
        "logistic": lambda: Logistic(xs, (TARGET > 0).astype(float), weights),
        "multinomial": lambda: Logistic(xs, jax.nn.one_hot(np.arange(30) % 3, 4), weights),
        "poisson": lambda: Poisson(xs, np.arange(30) % 4, weights),
        "softplus": lambda: Poisson(xs, np.arange(30) % 4, weights, "softplus"),
        "squares": lambda: LeastSquares(xs, TARGET, weights),
    }[kind]()
    shape = (4, 4) if kind == "multinomial" else (4,)
    z, step = RNG.normal(size=(2, *shape))

    @jax.jit
    def look(z, step):
        point = proximal.Point(z, smooth.gradient(z))
        hessian = jax.hessian(smooth.value)(z)
        answers = smooth.gradient(z), smooth.hessian_product(z, step), smooth.curvature_along(point, step)
        expected = jax.grad(smooth.value)(z), jnp.tensordot(hessian, step, step.ndim)
        excess = 2 * (smooth.value(z + step) - smooth.value(z) - jnp.sum(point.gradient * step))
        bound = smooth.curvature_bound(z)
        return answers, expected, excess, jnp.inf if bound is None else bound, hessian

    (gradient, product, along), expected, excess, bound, hessian = look(z, step)
    np.testing.assert_allclose(gradient, expected[0], atol=1e-10)
    np.testing.assert_allclose(product, expected[1], atol=1e-10)
    assert along >= excess * (1 - 1e-9)
    assert bound >= np.linalg.eigvalsh(np.reshape(hessian, (z.size, z.size)))[-1]
    assert np.isinf(bound) == (kind in ("poisson", "softplus"))


def bowl(z, center, depth):
    return depth * jnp.sum(jnp.cosh(z - center) - 1) + 0.1 * jnp.sum(z**2)


CENTER = np.array([1.0, -2.0, 0.05, 0.5])


def shrunk(center, depth, strength):
    """Return the minimizer of the bowl under L1: where its derivative is ±strength, or 0."""

    def one(c):
        slope = lambda z: depth * np.sinh(z - c) + 0.2 * z  # noqa: E731
        if abs(slope(0)) <= strength:
            return 0.0
        return brentq(lambda z: slope(z) + np.sign(c) * strength, -3, 3, xtol=1e-14)

    return np.array([one(c) for c in center])


@pytest.mark.parametrize("solver", [FISTA(), ISTA()], ids=["fista", "ista"])
def test_a_function_is_minimized_by_backtracking(solver, x64):
    solution = minimize(bowl, L1(0.3), jnp.full(4, 8.0), args=(CENTER, 2.0), solver=solver)
    assert solution.status == Status.converged
    np.testing.assert_allclose(solution.value, shrunk(CENTER, 2.0, 0.3), atol=1e-6)


def test_flat_and_far_starts_are_left(x64):
    quartic = minimize(lambda z: jnp.sum(z**4 - z), None, jnp.zeros(2))
    np.testing.assert_allclose(quartic.value, 0.25 ** (1 / 3), atol=1e-6)
    flat = minimize(lambda z: jnp.sum((z - 1) ** 4), L1(0.1), jnp.ones(2), tol=1e-6)
    assert flat.status == Status.converged
    far = minimize(lambda z: jnp.sum(jax.nn.softplus(-z) + jax.nn.softplus(z - 1)), None, jnp.full(2, 120.0))
    np.testing.assert_allclose(far.value, 0.5, atol=1e-6)
    long = FISTA(step_size=1.0)
    stepped = minimize(lambda z: jnp.sum(jnp.cosh(z - 1)), L1(0.1), jnp.full(2, 4.0), solver=long)
    np.testing.assert_allclose(stepped.value, 1 - np.arcsinh(0.1), atol=1e-6)
    fenced = minimize(lambda z: jnp.sum(z - jnp.log(z)), None, jnp.full(2, 0.01))  # infinite from 0 down
    np.testing.assert_allclose(fenced.value, 1, atol=1e-6)


def test_derivatives_in_what_is_closed_over_are_those_in_arguments(x64):
    seen = RNG.normal(size=4)

    def by_argument(center, depth, strength, gradient=Implicit()):  # noqa: B008
        init = jnp.zeros(4)
        solution = proximal.minimize(
            bowl, L1(strength), init, args=(center, depth), tol=1e-13, gradient=gradient
        )
        return jnp.sum(solution.value * seen)

    def closed_over(center, depth, strength):
        def loss(z):
            return bowl(z, center, depth)

        return jnp.sum(proximal.minimize(loss, L1(strength), jnp.zeros(4), tol=1e-13).value * seen)

    point = CENTER, 2.0, 0.3
    expected = jax.jit(jax.grad(by_argument, (0, 1, 2)))(*point)
    for way in (jax.jit(jax.grad(closed_over, (0, 1, 2))), jax.grad(jax.jit(closed_over), (0, 1, 2))):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), way(*point), expected)
    value, size = jax.jit(by_argument), 1e-5
    for i in range(3):
        moved = [[p + s * size * (i == j) for j, p in enumerate(point)] for s in (1, -1)]
        difference = (value(*moved[0]) - value(*moved[1])) / (2 * size)
        np.testing.assert_allclose(np.sum(expected[i]), difference, rtol=1e-5)
    for gradient in (Unrolled(), Truncated(400)):
        found = jax.jit(jax.grad(lambda c, g=gradient: by_argument(c, 2.0, 0.3, g)))(CENTER)
        np.testing.assert_allclose(found, expected[0], atol=1e-5)
    assert not np.any(jax.jit(jax.grad(lambda c: by_argument(c, 2.0, 0.3, Detached())))(CENTER))


def test_trees_have_penalties_by_prefix(x64):
    def loss(z):
        return bowl(z["w"]["a"], CENTER, 2.0) + bowl(z["w"]["b"], -CENTER, 2.0) + (z["bias"] - 3) ** 2

    start = {"w": {"a": jnp.zeros(4), "b": jnp.zeros(4)}, "bias": jnp.zeros(())}
    solution = minimize(loss, {"w": L1(0.3), "bias": None}, start)
    assert solution.status == Status.converged
    expected = shrunk(CENTER, 2.0, 0.3)
    np.testing.assert_allclose(solution.value["w"]["a"], expected, atol=1e-6)
    np.testing.assert_allclose(solution.value["w"]["b"], -expected, atol=1e-6)
    np.testing.assert_allclose(solution.value["bias"], 3, atol=1e-6)
    everywhere = minimize(loss, L1(0.3), start)
    np.testing.assert_allclose(everywhere.value["bias"], 3 - 0.15, atol=1e-6)

    @jax.jit
    def sensitivity(target, strength):
        def loss(z):
            return jnp.sum((z["w"] - target) ** 2) + (z["b"] - target[0]) ** 2

        start = {"w": jnp.zeros(2), "b": jnp.zeros(())}
        value = proximal.minimize(loss, {"w": L1(strength), "b": None}, start).value
        return value["w"].sum() + value["b"]

    slopes = jax.grad(sensitivity, (0, 1))(jnp.array([3.0, 0.1]), 0.5)
    np.testing.assert_allclose(slopes[0], [2.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(slopes[1], -0.5, atol=1e-6)


def test_rows_in_slots_are_those_of_vmap_with_a_status_each():
    targets = np.stack([TARGET, 2 * TARGET, TARGET * np.nan, 0 * TARGET]).astype(np.float32)
    matrix = MATRIX.astype(np.float32)

    @jax.jit
    def both(targets):
        smooth = lambda y: LeastSquares(matrix, y)  # noqa: E731
        starts = jnp.zeros((len(targets), 8))
        one = jax.vmap(lambda y: proximal.minimize(smooth(y), L1(STRENGTH), jnp.zeros(8)))(targets)
        return minimize_batch(smooth, L1(STRENGTH), starts, args=(targets,), n_slots=2), one

    batch, one = both(targets)
    np.testing.assert_array_equal(batch.status, [0, 0, Status.nonfinite, 0])
    np.testing.assert_array_equal(one.status, batch.status)
    np.testing.assert_allclose(batch.value[:2], one.value[:2], atol=1e-3)
    np.testing.assert_allclose(batch.value[0], lasso(MATRIX, TARGET, STRENGTH), atol=2e-3)

    def total(targets, strength):
        def smooth(y):
            return lambda z: jnp.sum((z - y) ** 2)

        return jnp.sum(minimize_batch(smooth, L1(strength), jnp.zeros((2, 3)), args=(targets,)).value)

    slopes = jax.jit(jax.grad(total, (0, 1)))(jnp.array([[3.0, 0.1, -2.0], [0.0, 1.0, 0.2]]), 0.5)
    np.testing.assert_allclose(slopes[0], [[1, 0, 1], [0, 1, 0]], atol=1e-4)
    np.testing.assert_allclose(slopes[1], -0.5, atol=1e-4)  # two positive, one negative entries move


class ProxAlone(AbstractProximalPenalty):
    is_smooth = False
    is_separable = True

    def prox(self, v, step_size):
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - 0.3 * step_size, 0)


def test_what_cannot_work_is_named(untyped):
    start, squares = jnp.zeros(4), lambda z: jnp.sum((z - 1) ** 2)
    np.testing.assert_allclose(minimize(squares, ProxAlone(), start).value, 0.85, atol=1e-4)
    plain = partial(proximal.minimize, squares, L1(0.1))
    rows = partial(minimize_batch, lambda x: squares, L1(0.1), start[None])

    def sensitive(c):
        return proximal.minimize(lambda z: jnp.sum((z - c) ** 2), ProxAlone(), start).value[0]

    cases = [
        (lambda: proximal.minimize(lambda z: z, L1(0.1), start), "smooth: expected a function whose value"),
        (lambda: proximal.minimize(squares, SmoothL1(0.1, 1.0), start), "expected a penalty with a proximal"),
        (lambda: plain(jnp.zeros(4, int)), "init: expected arrays of one floating"),
        (
            lambda: proximal.minimize(squares, {"w": L1(0.1)}, start),
            "penalty: expected one penalty, None, or",
        ),
        (lambda: proximal.minimize(squares, 0.1, start), "penalty: expected penalties or None, got float"),
        (lambda: plain(start, solver=SpaRSA()), "SpaRSA expected a smooth term with"),
        (lambda: plain(start, tol=1e-9), "tol: expected at least 8"),
        (
            lambda: proximal.minimize(LeastSquares(MATRIX, TARGET), None, start, args=(1,)),
            "args: expected none",
        ),
        (lambda: jax.grad(sensitive)(1.0), "got ProxAlone, which does not; pass gradient=Detached"),
        (
            lambda: rows(args=(start[None],), gradient=Unrolled()),
            r"gradient: expected Implicit\(\) or Detached",
        ),
        (lambda: rows(args=(start,)), "inits: expected"),
        (lambda: LeastSquares(MATRIX, TARGET, TARGET[:3] ** 2), r"weights: expected .*\(30,\).*\(3,\)"),
        (
            lambda: proximal.minimize(LeastSquares(MATRIX, TARGET[:, None]), L1(0.1), jnp.zeros(8)),
            "init: expected .* the form of the smooth",
        ),
        (
            lambda: LeastSquares(MATRIX, TARGET, TARGET**2, gram=MATRIX.T @ MATRIX),
            "gram: expected None beside",
        ),
        (lambda: Poisson(MATRIX, np.ones(30), nonlinearity="exq"), "nonlinearity: expected one of"),
        (lambda: Poisson(MATRIX, -np.ones(30)), "counts: expected"),
        (lambda: Poisson(MATRIX, TARGET[:3]), r"counts: expected .*\(30,\).* got shape \(3,\)"),
        (lambda: Logistic(MATRIX, TARGET[:3]), "targets: expected 30 targets"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_half_precision_is_computed_in_single_and_rounded():
    solution = minimize(LeastSquares(np.eye(2, dtype=np.float16), np.array([3, 0.2], np.float16)), L1(0.5),
                        jnp.zeros(2, jnp.float16))  # fmt: skip
    assert solution.value.dtype == jnp.float16 and solution.status == Status.converged
    np.testing.assert_allclose(solution.value, [2.5, 0], atol=2e-3)
