"""The thresholding operators against brute-force minimisation in double precision."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from neurojax.penalties import (
    cauchy_threshold,
    hard_threshold,
    log_threshold,
    nonnegative_soft_threshold,
    soft_threshold,
)

OPERATORS = [soft_threshold, nonnegative_soft_threshold, hard_threshold, cauchy_threshold, log_threshold]
PENALTIES = {
    soft_threshold: np.abs,
    nonnegative_soft_threshold: lambda u: np.where(u < 0, np.inf, u),
    hard_threshold: lambda u: 1.0 * (u != 0),
    cauchy_threshold: lambda u: np.log1p(u**2),
}
STEEP_V, STEEP_T = 3 * np.sqrt(3), 4.0

N_POINTS = 2000  # of each kind in a sweep

# These tests are about rounding, which optimized code may do in another way: compile it as users do.
AS_FOR_USERS: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
if jax.__version_info__ < (0, 11):
    AS_FOR_USERS["xla_cpu_use_fusion_emitters"] = True  # as later versions always do


class Padded:
    """A jitted function of points (v, t), given as many as a sweep has: it is compiled once for a dtype."""

    def __init__(self, function):
        self.function = jax.jit(function, compiler_options=AS_FOR_USERS)

    def __call__(self, v, t):
        v = np.atleast_1d(v)
        t = np.broadcast_to(np.asarray(t, v.dtype), v.shape)
        missing = len(sweep(v.dtype.type)[0]) - v.size
        with jax.enable_x64(True):
            found = self.function(*(np.pad(a, (0, missing), constant_values=1) for a in (v, t)))
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: v.size], found)


jitted = {operator: Padded(operator) for operator in OPERATORS}
jitted_derivatives = {
    operator: Padded(jax.vmap(jax.value_and_grad(operator, argnums=(0, 1)))) for operator in OPERATORS
}
jitted_curvatures = {
    operator: Padded(jax.vmap(jax.hessian(operator, argnums=(0, 1)))) for operator in OPERATORS
}


def objective(operator, u, v, t):
    return (u - v) ** 2 / 2 + t * PENALTIES[operator](u)


def cubic_roots(v, t):
    """The stationary points of ½(u − v)² + t·ln(1 + u²), v ≥ 0: companion eigenvalues, then Newton."""
    companion = np.zeros((len(v), 3, 3))
    companion[:, 1, 0] = companion[:, 2, 1] = 1
    companion[:, :, 2] = np.stack([v, -(1 + 2 * t), v], -1)
    u = np.clip(np.linalg.eigvals(companion).real, 0, v[:, None])
    v, t = v[:, None], t[:, None]
    for _ in range(60):
        slope = 1 + 2 * t * (1 - u**2) / (1 + u**2) ** 2
        step = (u - v + 2 * t * u / (1 + u**2)) / np.where(np.abs(slope) > 1e-14, slope, 1)
        u = np.clip(u - np.clip(step, -0.1 * v, 0.1 * v), 0, v)
    return u


def candidates(operator, v, t):
    """Points among which the exact minimiser is: every stationary point and every kink."""
    sign, size = np.sign(v)[:, None], np.abs(v)[:, None]
    if operator is cauchy_threshold:
        return sign * cubic_roots(np.abs(v), t)
    shrunk = sign * np.maximum(size - t[:, None], 0)
    if operator is nonnegative_soft_threshold:
        shrunk = np.maximum(shrunk, 0)
    points = {soft_threshold: shrunk, nonnegative_soft_threshold: shrunk, hard_threshold: v[:, None]}
    return np.concatenate([points[operator], np.zeros_like(size)], -1)


def minimiser(operator, v, t):
    """The minimiser in float64; whether it is well-posed there (no tie, no infinite slope)."""
    points = candidates(operator, v, t)
    values = objective(operator, points, v[:, None], t[:, None])
    best = np.argmin(values, -1)[:, None]
    u = np.take_along_axis(points, best, -1)[:, 0]
    least = np.take_along_axis(values, best, -1)
    is_tied = (values <= least * (1 + 1e-6)) & (np.abs(points - u[:, None]) > 1e-5 * np.abs(u[:, None]))
    # Points next to each other whose objectives differ by rounding alone are no tie.
    is_tied &= np.abs(points - u[:, None]) > 1e-3 * np.abs(v[:, None])
    well_posed = ~np.any(is_tied, -1)
    if operator is cauchy_threshold:
        well_posed &= 1 + 2 * t * (1 - u**2) / (1 + u**2) ** 2 > 1e-4
    return u, well_posed


@cache
def sweep(dtype):
    """v and t as the given dtype holds them: the whole range, tiny v, and everything that is critical."""
    rng = np.random.default_rng(0)
    n = N_POINTS
    t = 10 ** rng.uniform(-6, 3, n)
    near = 1 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-7, -0.5, n)
    grid_v, grid_t = np.meshgrid(np.geomspace(1e-9, 1e4, 53), np.geomspace(1e-6, 1e3, 37))
    steep_t = STEEP_T * (1 + rng.choice([-1, 1], n) * 10 ** rng.uniform(-7, -0.5, n))
    v = [10 ** rng.uniform(-6, 4, n), t * near, np.sqrt(2 * t) * near, 2 * np.sqrt(t) * near]
    v += [np.minimum(np.sqrt(1 + 2 * t) * 10 ** rng.uniform(-1, 1, n), 1e4), STEEP_V * near, grid_v.ravel()]
    v += [np.array([STEEP_V, 0.0, 1e4, 1e4]), np.float64(np.float32(2 * np.sqrt(np.arange(1, 5))))]
    ts = [t, t, t, t, t, steep_t, grid_t.ravel(), np.array([4.0, 1.0, 1e-6, 1e3]), np.arange(1.0, 5)]
    v, t = np.concatenate(v).astype(dtype), np.concatenate(ts).astype(dtype)
    v = v * rng.choice([-1, 1], len(v)).astype(dtype)
    return v, t


def assert_minimises(operator, v, t, tol):
    u = np.asarray(jitted[operator](v, t))
    assert u.dtype == v.dtype
    u, v, t = u.astype(np.float64), v.astype(np.float64), t.astype(np.float64)
    expected, well_posed = minimiser(operator, v, t)
    assert np.mean(well_posed) > 0.8
    error = np.abs(u - expected) - tol * np.abs(expected)
    worst = np.argmax(np.where(well_posed, error, -np.inf))
    assert not np.any(well_posed & ~(error <= 0)), (v[worst], t[worst], u[worst], expected[worst])
    least = objective(operator, expected, v, t)
    excess = objective(operator, u, v, t) - least * (1 + 1e-6)
    assert np.all(well_posed | (excess <= 0))


@pytest.mark.parametrize("operator", PENALTIES)
def test_minimises_in_single_precision(operator):
    assert_minimises(operator, *sweep(np.float32), 1e-6)


@pytest.mark.parametrize("operator", PENALTIES)
def test_minimises_in_double_precision(operator, x64):
    assert_minimises(operator, *sweep(np.float64), 1e-10)


@pytest.mark.parametrize("operator", PENALTIES)
def test_no_point_of_a_fine_grid_is_better(operator):
    v, t = sweep(np.float32)
    v, t = v[::23].astype(np.float64), t[::23].astype(np.float64)
    grid = np.concatenate([np.linspace(0, 1, 2001), np.geomspace(1e-7, 1, 2001)])
    u = np.asarray(jitted[operator](v.astype(np.float32), t.astype(np.float32)), np.float64)
    best = np.min(objective(operator, v[:, None] * grid, v[:, None], t[:, None]), -1)
    ours = objective(operator, u, v, t)
    assert np.all(ours <= best * (1 + 1e-6) + 0.5 * (1e-6 * v) ** 2)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(list(PENALTIES)),
    st.floats(-1e4, 1e4, width=32),
    st.floats(-6, 3).map(lambda power: float(np.float32(10**power))),
)
def test_no_trial_point_is_better(operator, v, t):
    u = float(jitted[operator](np.float32(v), np.float32(t))[0])
    trials = u + np.outer([-1, 1], np.append(np.geomspace(1e-6, 1, 50), 0)).ravel() * abs(v)
    best = np.min(objective(operator, np.append(trials, [0.0, v]), v, t))
    rounding = 0.5 * max(1e-6 * abs(v), 1e-30) ** 2
    assert objective(operator, u, v, t) <= best * (1 + 1e-6) + rounding


@pytest.mark.parametrize("t", [4.5, 8.0, 40.0, 1000.0])
def test_cauchy_jumps_where_two_minima_tie(t):
    folds = np.sqrt(np.roots([1, 2 - 2 * t, 1 + 2 * t]))

    def stationary(v):
        roots = cubic_roots(np.array([v]), np.array([t]))[0]
        return np.array([roots.min(), roots.max()])

    def advantage(v):
        return np.subtract(*objective(cauchy_threshold, stationary(v), v, t))

    limits = np.sort(folds + 2 * t * folds / (1 + folds**2))
    tie = brentq(advantage, limits[0] * (1 + 1e-9), limits[1] * (1 - 1e-9), xtol=1e-13)
    u = np.asarray(
        jitted[cauchy_threshold](np.float32(tie * np.array([1 - 3e-7, 1 + 3e-7])), np.float32([t, t]))
    )
    np.testing.assert_allclose(u, stationary(tie), rtol=1e-5)
    assert u[1] > 1.5 * u[0]


def test_cauchy_is_continuous_below_four():
    v = np.linspace(0, 10, 10_001, dtype=np.float32)
    u = jitted[cauchy_threshold](v, 3.9)
    assert np.all(np.diff(u) > 0)
    assert np.max(np.diff(u)) < 40.1 * 1e-3


@pytest.mark.parametrize(("dtype", "tol"), [(np.float32, 1e-6), (np.float64, 1e-13)])
def test_log_takes_the_outer_stationary_branch(dtype, tol, x64):
    v, t = sweep(dtype)
    u = np.asarray(jitted[log_threshold](v, t))
    assert u.dtype == dtype
    u, v, t = u.astype(np.longdouble), v.astype(np.longdouble), t.astype(np.longdouble)
    excess = v**2 - 4 * t
    outside = excess > 0 if dtype == np.float64 else excess >= 0
    expected = np.where(outside, (v + np.sign(v) * np.sqrt(np.maximum(excess, 0))) / 2, 0)
    is_clear = np.abs(excess) > np.finfo(dtype).eps ** 2 * v**2
    assert np.all((np.abs(u - expected) <= tol * np.abs(expected)) | ~is_clear)
    kept = u[is_clear & outside], v[is_clear & outside], t[is_clear & outside]
    np.testing.assert_array_less(np.abs(kept[0] - kept[1] + kept[2] / kept[0]), 4 * tol * np.abs(kept[1]))
    assert np.all(np.abs(kept[0]) >= np.abs(kept[1]) / 2 * (1 - tol))


def test_log_keeps_the_threshold_itself():
    t = np.array([1.0, 4.0, 0.25, 2.0**-20, 256.0], np.float32)
    np.testing.assert_array_equal(jitted[log_threshold](2 * np.sqrt(t), t), np.sqrt(t))
    inside = np.nextafter(2 * np.sqrt(t), np.float32(0))
    np.testing.assert_array_equal(jitted[log_threshold](inside, t), np.zeros(5))


def far_from_jumps(operator, v, t, h):
    """Whether the operator is smooth within a relative distance h of (v, t)."""
    size = np.abs(v)
    if operator in (soft_threshold, nonnegative_soft_threshold):
        return np.abs(size / t - 1) > 4 * h
    if operator is hard_threshold:
        return np.abs(size / np.sqrt(2 * t) - 1) > 4 * h
    if operator is log_threshold:
        return np.abs(size / (2 * np.sqrt(t)) - 1) > 1e-3
    u, well_posed = minimiser(operator, v, t)
    nearby = [
        minimiser(operator, v * (1 + a), t * (1 + b))[0] for a in (-4 * h, 4 * h) for b in (-4 * h, 4 * h)
    ]
    is_steep = 1 + 2 * t * (1 - u**2) / (1 + u**2) ** 2 < 0.03
    return well_posed & ~is_steep & (np.ptp(nearby, 0) < 0.1 * np.abs(u))


@pytest.mark.parametrize("operator", OPERATORS)
def test_derivatives_agree_with_differences(operator, x64):
    v, t = (x[::2] for x in sweep(np.float64))
    v, t = v[np.abs(v) > 1e-3], t[np.abs(v) > 1e-3]
    h = 1e-6
    keep = far_from_jumps(operator, v, t, h)
    assert np.mean(keep) > 0.6
    v, t = v[keep], t[keep]
    by_v, by_t = jitted_derivatives[operator](v, t)[1]
    f = jitted[operator]
    difference_v = (f(v * (1 + h), t) - f(v * (1 - h), t)) / (2 * h * v)
    difference_t = (f(v, t * (1 + h)) - f(v, t * (1 - h))) / (2 * h * t)
    noise = 1e-9 * np.abs(v)
    np.testing.assert_array_less(np.abs(by_v - difference_v), 1e-4 * (1 + np.abs(by_v)))
    np.testing.assert_array_less(np.abs(by_t - difference_t), 1e-4 * (1e-6 + np.abs(by_t)) + noise / t)
    single = jitted_derivatives[operator](np.float32(v), np.float32(t))[1]
    exact = jitted_derivatives[operator](np.float64(np.float32(v)), np.float64(np.float32(t)))[1]
    clear = far_from_jumps(operator, v, t, 1e-3)
    np.testing.assert_allclose(single[0][clear], exact[0][clear], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(single[1][clear], exact[1][clear], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("operator", "v", "t", "below", "above"),
    [
        (soft_threshold, 1.0, 1.0, (0, 0), (1, -1)),
        (soft_threshold, -1.0, 1.0, (0, 0), (1, 1)),
        (nonnegative_soft_threshold, 1.0, 1.0, (0, 0), (1, -1)),
        (hard_threshold, 2.0, 2.0, (0, 0), (1, 0)),
    ],
)
def test_derivatives_on_both_sides_of_a_threshold(operator, v, t, below, above):
    points = v * np.array([1 - 1e-6, 1 + 1e-6, 1.0], np.float32)
    by_v, by_t = jitted_derivatives[operator](points, t)[1]
    np.testing.assert_allclose(np.stack([by_v, by_t], -1)[:2], [below, above])
    assert np.all(np.isfinite([by_v[2], by_t[2]]))


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_nan(operator, dtype, x64):
    """Second derivatives in single precision only, whose range is the smaller one."""
    v, t = (x[::2] for x in sweep(dtype))
    special_v, special_t = np.meshgrid(
        [0, -0.0, 1e-30, 1e-12, 2, 1, 4, STEEP_V, np.sqrt(2), 1e4, 1e15], [0, 1e-30, 1e-6, 1, 4, 1e3, 1e12]
    )
    v = np.concatenate([v, special_v.ravel().astype(dtype), -special_v.ravel().astype(dtype)])
    t = np.concatenate([t, special_t.ravel().astype(dtype), special_t.ravel().astype(dtype)])
    u, (by_v, by_t) = jitted_derivatives[operator](v, t)
    assert u.dtype == by_v.dtype == by_t.dtype == dtype
    assert np.all(np.isfinite(u)) and np.all(np.isfinite(by_v)) and not np.any(np.isnan(by_t))
    assert np.all(np.abs(u) <= np.abs(v)) and np.all(u * v >= 0)
    if dtype == np.float32:
        moderate = (np.abs(v) < 1e10) & (t > 1e-20) & (t < 1e10)
        curvatures = jitted_curvatures[operator](v[moderate], t[moderate])
        assert not any(np.any(np.isnan(leaf)) for leaf in jax.tree.leaves(curvatures))


@pytest.mark.parametrize("operator", OPERATORS)
def test_zero_threshold_is_the_identity(operator):
    v = np.array([-3.0, 0.0, 1e-20, 7.3, 1e4], np.float32)
    expected = np.maximum(v, 0) if operator is nonnegative_soft_threshold else v
    u, (by_v, _) = jitted_derivatives[operator](v, 0)
    np.testing.assert_array_equal(u, expected)
    if operator is not nonnegative_soft_threshold:
        np.testing.assert_array_equal(by_v, np.ones(5))


@pytest.mark.parametrize("operator", OPERATORS)
def test_nan_stays_and_infinity_is_kept(operator):
    u = jitted[operator](np.array([np.nan, 1.0, np.inf, 1.0], np.float32), [1, 1, 1, np.nan])
    np.testing.assert_array_equal(np.isnan(u), [True, False, False, True])
    assert u[2] == np.inf
    far = jitted_derivatives[operator](np.array([np.inf, 1.0, 1e30], np.float32), [1.0, np.inf, 1.0])[1]
    assert np.all(np.isfinite(far))
    np.testing.assert_array_equal(far[0], [1, 0, 1])


@pytest.mark.parametrize("operator", OPERATORS)
def test_shapes_and_dtypes(operator):
    v, t = np.linspace(-4, 4, 6, dtype=np.float32).reshape(2, 3), np.array([0.1, 0.5, 2.0])
    for found in (
        jax.eval_shape(operator, v, t),
        jax.eval_shape(jax.vmap(operator, (1, 0), 1), v, t),
    ):
        assert found.shape == (2, 3) and found.dtype == np.float32
    assert jax.eval_shape(operator, 2.0, 1).shape == ()
    assert jax.eval_shape(operator, jnp.asarray(v, jnp.bfloat16), t).dtype == jnp.bfloat16


def test_thresholds_are_broadcast_and_mapped():
    v, t = np.linspace(-4, 4, 6, dtype=np.float32).reshape(2, 3), np.array([0.1, 0.5, 2.0], np.float32)
    u, mapped = jax.jit(lambda v, t: (hard_threshold(v, t), jax.vmap(hard_threshold, (1, 0), 1)(v, t)))(v, t)
    np.testing.assert_array_equal(u, np.where(v**2 > 2 * t, v, 0))
    np.testing.assert_array_equal(mapped, u)


@pytest.mark.parametrize("operator", OPERATORS)
def test_messages(operator, untyped):
    with pytest.raises(ValueError, match=r"v: expected real numbers, got dtype complex64"):
        operator(jnp.arange(3) + 0j, 1.0)
    with pytest.raises(ValueError, match=r"t: expected an array without a mask"):
        operator(jnp.ones(3), np.ma.array([1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match=r"t: expected a number ≥ 0, got -1.0"):
        operator(jnp.ones(3), -1.0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_foreign_numbers_are_converted(operator, untyped):
    expected = operator(jnp.array([-3.0, 0.0, 2.0]), 1.0)
    for v in ([-3, 0, 2], np.array([-3, 0, 2]), np.array([-3, 0, 2], ">f4"), jnp.array([-3, 0, 2])):
        np.testing.assert_array_equal(operator(v, 1), expected)
        assert operator(v, 1).dtype == expected.dtype
