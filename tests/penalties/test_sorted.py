"""SLOPE and TopK: independent algorithms, ties, derivatives, the tangent space of a solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import jacobians, prox, support, value
from sklearn.isotonic import isotonic_regression

from neurojax.penalties import L1, SLOPE, TopK

N, ROWS = 40, 30


def pooled(v, thresholds):
    """Return SLOPE's operator by the textbook's stack of pools, one number after the other."""
    order = np.argsort(-np.abs(v), kind="stable")
    pools = []
    for y in np.abs(v)[order] - thresholds:
        pools.append((y, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] < pools[-1][0] / pools[-1][1]:
            (a, n), (b, m) = pools.pop(), pools.pop()
            pools.append((a + b, n + m))
    u = np.zeros_like(v)
    u[order] = np.concatenate([np.full(n, max(total / n, 0)) for total, n in pools])
    return np.sign(v) * u


def strengths(n, dtype):
    """Return strengths that fall evenly, at one step, at random and with ties, and those of L1."""
    rng = np.random.default_rng(0)
    rows = [np.linspace(2, 0, n), np.where(np.arange(n) < n // 3, 1.5, 0.5), np.full(n, 0.7)]
    rows += [-np.sort(-rng.exponential(size=n)), -np.sort(-rng.integers(0, 3, n).astype(float))]
    return np.array(rows).astype(dtype)


@pytest.mark.parametrize(
    ("dtype", "n", "tol"), [(np.float32, N, 1e-6), (np.float64, N, 1e-14), (np.float32, 1024, 1e-6)]
)
def test_slope_is_the_stack_of_pools_and_isotonic_regression(dtype, n, tol, x64):
    rng = np.random.default_rng(1)
    for row in strengths(n, dtype):
        v = (rng.normal(size=(ROWS if n == N else 2, n)) * 2).astype(dtype)
        v[-1] = np.round(v[-1])  # ties and zeros
        t = dtype(0.7)
        u = np.asarray(prox(SLOPE(row), v, t))
        assert u.dtype == dtype
        thresholds = float(t) * row.astype(float)
        for one, found in zip(v.astype(float), u, strict=True):
            expected = pooled(one, thresholds)
            np.testing.assert_allclose(found, expected, rtol=0, atol=tol * np.abs(one).max())
            sizes = -np.sort(-np.abs(one))
            regression = isotonic_regression(sizes - thresholds, increasing=False)
            ours, atol = -np.sort(-np.abs(found)), tol * sizes[0]
            np.testing.assert_allclose(ours, np.maximum(regression, 0), rtol=0, atol=atol)
            # What is tied there has the same bits here.
            n_values = len(np.unique(np.round(np.abs(expected), 9)))
            assert len(np.unique(np.abs(found))) <= n_values


def test_slope_of_equal_strengths_is_l1_bit_for_bit():
    v = np.random.default_rng(2).normal(size=(ROWS, N)).astype(np.float32)
    v[0, :4] = [0.0, -0.0, 0.21, -0.21]
    for strength in (0.3, 0.0):
        penalty = SLOPE(np.full(N, strength, np.float32))
        np.testing.assert_array_equal(prox(penalty, v, 0.77), prox(L1(strength), v, 0.77))
        np.testing.assert_allclose(value(penalty, v), value(L1(strength), v), rtol=1e-6)
    ours, v_slopes, t_slopes = jacobians(penalty, v[0], 0.77)
    np.testing.assert_array_equal(v_slopes, np.eye(N))
    assert np.isfinite(ours.strengths).all() and not t_slopes.any()


def test_slope_by_hand():
    penalty = SLOPE([3.0, 1.0, 1.0, 0.5])
    code = np.array([[1.0, -2.0, 0.0, 4.0], [1.0, 1.0, -1.0, 1.0]], np.float32)
    np.testing.assert_allclose(value(penalty, code), 12 + 2 + 1 + 5.5)
    gradient = jax.jit(lambda z: penalty.gradient(z))(code)
    np.testing.assert_allclose(gradient, [[1, -1, 0, 3], [3, 1, -1, 0.5]])
    # The first two are pooled at (4.2 + 4 − 3 − 1)/2, the last falls to 0.
    u = prox(penalty, np.array([-4.0, 4.2, 1.5, 0.4], np.float32), 1.0)
    np.testing.assert_allclose(u, [-2.1, 2.1, 0.5, 0.0], rtol=1e-6)
    # An infinite first strength forbids all; infinite numbers and NaN keep to themselves.
    assert not prox(SLOPE([np.inf, 1.0, 0.0, 0.0]), np.array([2.0, -4, 5, 3], np.float32), 1.0).any()
    assert value(SLOPE([np.inf, 1.0, 0.0, 0.0]), 0 * code) == 0
    u = prox(penalty, np.array([np.nan, 4.2, np.inf, -4.0], np.float32), 1.0)
    np.testing.assert_allclose(u, [np.nan, 3.2, np.inf, -3.0], rtol=1e-6)


def test_slope_of_batches_leading_axes_and_scales():
    rng = np.random.default_rng(3)
    rows, v = strengths(N, np.float32)[:3], rng.normal(size=(4, 3, N)).astype(np.float32)
    t = np.array([0.4, 0.9, 2.0], np.float32)
    whole = prox(SLOPE(rows), v, t[:, None])
    mapped = jax.jit(jax.vmap(lambda row, v, t: SLOPE(row).prox(v, t), (0, 1, 0), 1))(rows, v, t)
    np.testing.assert_array_equal(whole, mapped)
    for i in range(3):
        np.testing.assert_allclose(whole[0, i], pooled(v[0, i].astype(float), t[i] * rows[i]), atol=3e-6)
    for scale in np.float32([1e-30, 1e30]):
        found = prox(SLOPE(scale * rows), scale * v, t[:, None])
        np.testing.assert_allclose(found / scale, whole, rtol=1e-5, atol=1e-6)
    half = prox(SLOPE(rows[0]), jnp.asarray(v[0, 0], jnp.bfloat16), 0.5)
    assert half.dtype == jnp.bfloat16 and value(SLOPE(rows[0]), half).dtype == np.float32


def test_slope_derivatives_are_those_of_differences(x64):
    penalty, steps = SLOPE(np.linspace(1.5, 0.1, 8)), 1e-6 * np.eye(8)
    v, t = np.array([0.3, -2.1, 2.0, 1.0, -0.9, 0.05, 4.0, 0.2]), 0.8

    def difference(ahead, behind):
        return np.transpose((ahead - behind) / 2e-6)

    by_penalty, by_v, by_t = jacobians(penalty, v, t)
    numeric = difference(prox(penalty, v + steps, t), prox(penalty, v - steps, t))
    np.testing.assert_allclose(by_v, numeric, atol=1e-8)
    ends = [[prox(SLOPE(penalty.strengths + sign * e), v, t) for e in steps] for sign in (1, -1)]
    np.testing.assert_allclose(by_penalty.strengths, difference(*map(np.array, ends)), atol=1e-8)
    numeric = difference(prox(penalty, v, t + 1e-6), prox(penalty, v, t - 1e-6))
    np.testing.assert_allclose(by_t, numeric, atol=1e-8)
    assert np.count_nonzero(by_v) > 8, "the example has pools"
    # At zeros, ties and thresholds, and for infinite strengths, the derivatives are finite.
    edges = np.array([0.0, 0.0, 1.2, 1.2, -1.2, 0.08, 0.24, 0.0])
    for strengths in (penalty.strengths, np.full(8, np.inf), np.append(np.inf, np.zeros(7)), np.zeros(8)):
        for z in (edges, 0 * edges, v):
            found = jacobians(SLOPE(np.asarray(strengths)), z, t)
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    np.testing.assert_array_equal(found[1], np.eye(8))


def matrix(penalty, code):
    """Return the projector of the tangent space as a matrix."""
    return np.array(jax.jit(lambda z: jax.vmap(penalty.tangent(z))(jnp.eye(z.size)))(code)).T


def test_slope_tangents(x64):
    code = np.array([2.0, 0.0, -3.0, -2.0, 3.0, 2.0, 0.0])
    tied = matrix(SLOPE([3.0, 2.0, 1.5, 1.5, 1.0, 0.5, 0.0]), code)
    sign, expected = np.sign(code), np.zeros((7, 7))
    for cluster in ([2, 4], [0, 3, 5]):
        expected[np.ix_(cluster, cluster)] = np.outer(sign[cluster], sign[cluster]) / len(cluster)
    np.testing.assert_allclose(tied, expected, atol=1e-15)
    np.testing.assert_allclose(tied @ tied, tied, atol=1e-15)
    np.testing.assert_allclose(tied, tied.T, atol=1e-15)
    # Equal strengths tie nothing, and zeros without any strength are free.
    free = matrix(SLOPE([3.0, 2.0, 1.5, 1.5, 1.5, 0.0, 0.0]), code)
    expected[np.ix_([0, 3, 5], [0, 3, 5])] = np.eye(3)
    expected[np.ix_([1, 6], [1, 6])] = np.eye(2)
    np.testing.assert_allclose(free, expected, atol=1e-15)
    np.testing.assert_array_equal(matrix(SLOPE(np.full(7, 0.5)), code), np.diag(code != 0))
    np.testing.assert_array_equal(support(SLOPE([3.0, 2, 2, 2, 2, 1, 0]), code), code != 0)
    np.testing.assert_array_equal(support(SLOPE([3.0, 2, 2, 2, 2, 0, 0]), code), True)


def test_a_solution_moves_in_its_tangent_space(x64):
    """The derivative of a tied solution in its datum, dz = P(PHP)⁺P·atoms·dx, is that of differences."""
    rng = np.random.default_rng(21)
    atoms = np.linalg.qr(rng.normal(size=(10, 8)))[0].T + 0.1 * rng.normal(size=(8, 10))
    penalty = SLOPE(np.linspace(1.2, 0.4, 8))
    hessian = atoms @ atoms.T
    step_size = 1 / np.linalg.eigvalsh(hessian)[-1]
    x, dx = rng.normal(size=10) * 2, rng.normal(size=10)

    @jax.jit
    def solve(xs):
        def improve(_, z):
            return penalty.prox(z + step_size * (xs - z @ atoms) @ atoms.T, step_size)

        return jax.lax.fori_loop(0, 400, improve, jnp.zeros((len(xs), 8)))

    h = 1e-5
    code, ahead, behind = np.array(solve(np.stack([x, x + h * dx, x - h * dx])))
    sizes = np.abs(code)[np.abs(code) > 0]
    assert len(np.unique(sizes)) < len(sizes) < 8, "the example has a tie and a zero"
    projector = matrix(penalty, code)
    change = projector @ np.linalg.pinv(projector @ hessian @ projector) @ projector @ atoms @ dx
    np.testing.assert_allclose(change, (ahead - behind) / (2 * h), atol=1e-6 * np.abs(change).max())


def test_top_k_keeps_the_largest_of_all_axes(untyped):
    rng = np.random.default_rng(6)
    v = np.round(rng.normal(size=(4, 3, 5)) * 3).astype(np.float32)  # with ties
    kept = np.zeros(60, bool)
    kept[np.argsort(-np.abs(v).ravel(), kind="stable")[:7]] = True
    for t in (0.1, 9.0):
        np.testing.assert_array_equal(prox(TopK(7), v, t), np.where(kept.reshape(v.shape), v, 0))
    u = prox(TopK(1), np.array([1.0, np.nan, -2.0, np.nan], np.float32), 1.0)
    np.testing.assert_array_equal(np.isnan(u), [False, True, False, True])
    np.testing.assert_array_equal(TopK(2).prox([3, -1, 0, 1], 1.0), [3.0, -1, 0, 0])
    half = prox(TopK(2), jnp.asarray(v[0], jnp.float16), 1.0)
    assert half.dtype == jnp.float16 and np.count_nonzero(half) == 2
    slopes = jax.jit(jax.jacobian(lambda v: TopK(2).prox(v, 1.0)))(np.array([3.0, -1, 0, 1], np.float32))
    np.testing.assert_array_equal(slopes, np.diag([1.0, 1, 0, 0]))
    np.testing.assert_array_equal(TopK(2).gradient(v), np.zeros_like(v))
    np.testing.assert_array_equal(support(TopK(2), v), v != 0)


def test_top_k_under_ista_is_iterative_hard_thresholding():
    """Step by step as in the paper; and small steps have other fixed points than large ones."""
    rng = np.random.default_rng(7)
    atoms, x = rng.normal(size=(6, 5)), rng.normal(size=5)
    step_size = 0.9 / np.linalg.norm(atoms, 2) ** 2
    z = ours = np.zeros(6)
    for _ in range(30):
        z = z + step_size * (x - z @ atoms) @ atoms.T
        z[np.argsort(-np.abs(z))[2:]] = 0
        gradient = -(x - np.asarray(ours, float) @ atoms) @ atoms.T
        ours = prox(TopK(2), (ours - step_size * gradient).astype(np.float32), step_size)
    np.testing.assert_allclose(ours, z, atol=1e-5)
    code = np.array([1.0, -2.0, 0.0], np.float32)
    for step_size, is_fixed in ((0.5, True), (2.0, False)):
        moved = prox(TopK(2), code + step_size * np.array([0, 0, 0.8], np.float32), step_size)
        assert np.array_equal(moved, code) == is_fixed


def test_interfaces():
    for penalty in (SLOPE([1.0]), TopK(1)):
        assert not penalty.is_separable and not penalty.is_smooth
    assert not hasattr(TopK(1), "value")
    assert [leaf.shape for leaf in jax.tree.leaves([SLOPE([2, 1]), TopK(3)])] == [(2,)]


MESSAGES = [
    (lambda: SLOPE(1.0), r"strengths: expected one for each coefficient, largest first, got a single number"),
    (lambda: SLOPE([1.0, -1.0]), r"strengths: expected a number ≥ 0, got \[ 1. -1.\]"),
    (lambda: SLOPE([1.0, 2.0]), r"strengths: expected numbers that do not rise, .* got \[1. 2.\]"),
    (
        lambda: SLOPE([2.0, 1.0]).value(np.ones(3)),
        r"strengths: .* last axis of code, whose shape is \(3,\), got shape \(2,\)",
    ),
    (lambda: SLOPE([2.0, 1.0]).prox(np.ones(3), 1.0), r"strengths: .* last axis of v"),
    (lambda: SLOPE([2.0]).support(1.0), r"strengths: .* last axis of code, whose shape is \(\)"),
    (lambda: SLOPE([2.0, 1.0]).prox(np.ones(2), np.ones(2)), r"step_size: expected one .* got shape \(2,\)"),
    (lambda: SLOPE([2.0, 1.0]).prox(np.ones(2), -1.0), r"step_size: expected a number ≥ 0"),
    (lambda: TopK(0), r"k: expected a whole number ≥ 1, got 0"),
    (lambda: TopK(1.0), r"k: expected a whole number ≥ 1, got 1.0"),
    (lambda: TopK(3).prox(np.ones(2), 1.0), r"k: expected at most the 2 coefficients of a code, got 3"),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES)
def test_messages(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()


def test_strengths_of_a_sweep_are_not_checked():
    swept = jax.jit(jax.vmap(lambda s: SLOPE(s * jnp.array([1.0, 0.5])).prox(np.array([3.0, 1.0]), 1.0)))
    np.testing.assert_allclose(swept(np.array([1.0, 2.0], np.float32)), [[2.0, 0.5], [1.0, 0.0]])
