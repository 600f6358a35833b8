"""MCP, SCAD and the quadratic penalty: formulas, operators by brute force, derivatives, extreme numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.penalties import L1, MCP, SCAD, Gaussian, Quadratic


def mcp(z, strength, gamma):
    z = np.abs(z)
    return np.where(z <= gamma * strength, strength * z - z**2 / (2 * gamma), gamma * strength**2 / 2)


def scad(z, strength, gamma):
    z = np.abs(z)
    bent = (2 * gamma * strength * z - z**2 - strength**2) / (2 * (gamma - 1))
    beyond = np.where(z <= gamma * strength, bent, strength**2 * (gamma + 1) / 2)
    return np.where(z <= strength, strength * z, beyond)


def quadratic(z, strength, gamma):
    del gamma
    return strength * z**2 / 2


SLOPES = {
    MCP: lambda u, strength, gamma: np.sign(u) * np.maximum(strength - np.abs(u) / gamma, 0),
    SCAD: lambda u, strength, gamma: (
        np.sign(u) * np.minimum(strength, np.maximum(gamma * strength - np.abs(u), 0) / (gamma - 1))
    ),
    Quadratic: lambda u, strength, gamma: strength * u,
}
FORMULAS = {MCP: mcp, SCAD: scad, Quadratic: quadratic}
LEAST_GAMMA = {MCP: 0.1, SCAD: 2.01, Quadratic: 1.0}
KINDS = list(FORMULAS)


def make(kind, strength, gamma):
    return Quadratic(strength) if kind is Quadratic else kind(strength, gamma)


@partial(jax.jit, static_argnums=0)
def answers(kind, v, strength, gamma, t):
    """Return values, operators and their derivatives in everything, of one penalty for each number."""

    def value(z, strength, gamma):
        return make(kind, strength, gamma).value(z)

    def prox(v, strength, gamma, t):
        return make(kind, strength, gamma).prox(v, t)

    values = jax.vmap(jax.value_and_grad(value, argnums=(0, 1, 2)))(v, strength, gamma)
    _, slopes = jax.vmap(jax.value_and_grad(prox, argnums=(0, 1, 2, 3)))(v, strength, gamma, t)
    return *values, make(kind, strength, gamma).prox(v, t), slopes


def doubles(*arrays):
    return [np.asarray(array, float) for array in arrays]


def sample(kind, n, dtype):
    """Return v, strength, gamma and t that reach every branch, as the dtype holds them."""
    rng = np.random.default_rng(0)
    strength, gamma = rng.uniform(0.1, 2, n), LEAST_GAMMA[kind] + 10 ** rng.uniform(-2, 1, n)
    v, t = rng.normal(size=n) * 4 * strength, gamma * 10 ** rng.uniform(-2, 1, n)
    return [x.astype(dtype) for x in (v, strength, gamma, t)]


def least_of(formula, v, strength, gamma, t):
    """Return min_u ½(u − v)² + t·formula(u) over a grid that shrinks, over 0 and over v, and its place."""
    v, strength, gamma, t = (x[:, None] for x in (v, strength, gamma, t))
    u, width, ends = 0 * v, 1.01 * np.abs(v), np.concatenate([0 * v, v], 1)
    for _ in range(6):
        grid = np.concatenate([u + np.linspace(-1, 1, 401) * width, ends], 1)
        values = (grid - v) ** 2 / 2 + t * formula(grid, strength, gamma)
        best = np.argmin(values, 1)[:, None]
        u, width = np.take_along_axis(grid, best, 1), width / 40
    return np.take_along_axis(values, best, 1)[:, 0], u[:, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_operators_are_those_of_the_formula(kind, dtype, x64):
    given = sample(kind, 2000, dtype)
    values, _, u, _ = answers(kind, *given)
    assert values.dtype == u.dtype == dtype
    eps = np.finfo(dtype).eps
    v, strength, gamma, t = doubles(*given)
    u = np.asarray(u, float)
    np.testing.assert_allclose(values, FORMULAS[kind](v, strength, gamma), rtol=20 * eps)
    # No other point is better, and the operator is a stationary point to the last digits.
    least, best = least_of(FORMULAS[kind], v, strength, gamma, t)
    ours = (u - v) ** 2 / 2 + t * FORMULAS[kind](u, strength, gamma)
    np.testing.assert_array_less(ours, least + (20 * eps) * (v**2 + t * strength**2))
    assert np.mean(np.abs(u - best) < 1e-3 * np.abs(v)) > 0.98
    lack = np.where(u == 0, 0, u - v + t * SLOPES[kind](u, strength, gamma))
    np.testing.assert_array_less(np.abs(lack), 8 * eps * (np.abs(v) + t * strength))


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_those_of_differences(kind, x64):
    given = sample(kind, 2000, np.float64)
    _, by_value, _, by_prox = answers(kind, *given)
    assert all(np.isfinite(slope).all() for slope in (*by_value, *by_prox))
    for i in range(4):
        ends = [answers(kind, *(x + sign * 1e-6 * (i == j) for j, x in enumerate(given))) for sign in (1, -1)]
        at = {"rtol": 1e-5, "atol": 1e-5}
        if i < 3:
            near = np.isclose(by_value[i], (ends[0][0] - ends[1][0]) / 2e-6, **at)
            assert near.mean() > 0.999
        # Where a branch ends within the step, there is no derivative to compare with.
        assert np.isclose(by_prox[i], (ends[0][2] - ends[1][2]) / 2e-6, **at).mean() > 0.995


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_nan_where_a_branch_ends(kind):
    strength, gamma = np.float32(0.5), np.float32(3.0)
    t = np.array([0, 0.25, 1, 2, 2.5, 3, 4, 5, 1e15], np.float32)[:, None]
    edges = [0 * t, t * strength, (1 + t) * strength, strength * gamma + 0 * t, strength * np.sqrt(gamma * t)]
    edges += [strength * (gamma + 1 + t) / 2, strength * np.sqrt((gamma + 1) * t)]
    v, t = (x.ravel() for x in np.broadcast_arrays(np.concatenate([*edges, -edges[1]], 1), t))
    for one in np.float32([strength, 0, np.inf]):
        t = np.where(np.isinf(one) & (t == 0), 1, t)
        found = answers(kind, v, *(np.full(v.size, x) for x in (one, gamma)), t)
        values, slopes, u, by = jax.tree.map(np.asarray, found)
        assert np.isfinite(u).all() and all(np.isfinite(slope).all() for slope in by)
        is_zero = (v == 0) | ~np.isinf(one)
        assert all(np.isfinite(x[is_zero]).all() for x in (values, *slopes))
        if one == 0:
            np.testing.assert_array_equal(u, v)
            np.testing.assert_array_equal(by[0], 1)
        if np.isinf(one):
            assert not u.any() and np.isinf(values[~is_zero]).all()
            assert not any(x[is_zero].any() for x in (values, *slopes))


def test_the_operators_at_their_thresholds():
    """By hand, with λ = 1: below, at and above each jump or bend."""
    for penalty, t, v, expected in (
        (MCP(1.0, 2.0), 1.0, [1.0, 1.5, 2.0, 2.5], [0.0, 1.0, 2.0, 2.5]),
        (MCP(1.0, 2.0), 8.0, [3.9, 4.0, 4.1], [0.0, 0.0, 4.1]),
        (MCP(1.0, np.inf), 0.5, [0.5, 9.0], [0.0, 8.5]),
        (SCAD(1.0, 4.0), 1.0, [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.5, 4.0, 5.0]),
        (SCAD(1.0, 4.0), 4.0, [4.0, 4.4, 4.6], [0.0, 0.4, 4.6]),
        (SCAD(1.0, 3.0), 9.0, [5.9, 6.0, 6.1], [0.0, 0.0, 6.1]),
        (SCAD(1.0, np.inf), 0.5, [0.5, 9.0], [0.0, 8.5]),
    ):
        found = operator(penalty, np.array(v, np.float32), t)
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=repr((penalty, t)))


operator = jax.jit(lambda penalty, v, t: penalty.prox(v, t))
everything = jax.jit(lambda p, v: (p.value(v), p.gradient(v), p.support(v), p.prox(v, 0.5)))


@pytest.mark.parametrize("kind", [MCP, SCAD])
def test_any_scale(kind):
    v = np.array([0.3, -0.8, 1.7, 2.4, -9.0], np.float32)
    u = operator(kind(0.6, 3.5), v, 0.9)
    for scale in np.float32([1e-30, 1e30]):
        found = operator(kind(0.6 * scale, 3.5), scale * v, 0.9)
        np.testing.assert_allclose(found / scale, u, rtol=2e-6)
    assert len(set(np.asarray(u).tolist())) >= 4


@pytest.mark.parametrize("penalty", [MCP(0.6), SCAD(0.6), Quadratic(0.6)], ids=lambda p: type(p).__name__)
def test_foreign_and_broken_numbers(penalty, untyped):
    v = np.array([0.2, -1.1, 0.0, 7.0])
    right = everything(penalty, v.astype(np.float32))
    foreign = v.tolist(), v.astype(">f4")
    for value, u in jax.jit(lambda: [(penalty.value(x), penalty.prox(x, 0.5)) for x in foreign])():
        np.testing.assert_allclose(value, right[0], rtol=1e-6)
        np.testing.assert_allclose(u, right[3], rtol=1e-6)
    np.testing.assert_array_equal(right[2], (v != 0) | penalty.is_smooth)
    half = everything(penalty, jnp.asarray(v, jnp.bfloat16))
    assert half[0].dtype == np.float32 and half[1].dtype == half[3].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half[3], float), right[3], rtol=2e-2)
    value, slope, _, u = everything(penalty, np.array([np.nan, 1.0], np.float32))
    assert np.isnan(value) and np.isnan(u[0]) and np.isfinite(u[1]) and np.isfinite(slope[1])
    unknown = jax.tree.map(lambda leaf: np.float32(np.nan) + leaf, penalty)
    assert np.isnan(operator(unknown, v.astype(np.float32), 0.5)).all()


def test_defaults_and_support():
    assert MCP(1.0).gamma == 3 and np.isclose(SCAD(1.0).gamma, 3.7)
    strength = np.array([0.0, 1.0, 1.0])
    for kind in (MCP, SCAD):
        np.testing.assert_array_equal(kind(strength).support(np.array([0.0, 0, -1])), [True, False, True])
    # In the limit of a large gamma both are L1, which is nothing like the bell.
    z = np.array([0.3, -2.0], np.float32)
    for kind in (MCP, SCAD):
        np.testing.assert_allclose(kind(0.4, np.inf).value(z), L1(0.4).value(z), rtol=1e-6)
    assert Quadratic(2.0).value(z) > Gaussian(2.0, 1.0).value(z)


MESSAGES = [
    (lambda: MCP(-1.0), r"strength: expected a number ≥ 0, got -1.0"),
    (lambda: MCP(1.0, 0.0), r"gamma: expected a number > 0, got 0.0"),
    (lambda: SCAD(-1.0), r"strength: expected a number ≥ 0"),
    (lambda: SCAD(1.0, 2), r"gamma: expected a number > 2, got 2"),
    (lambda: SCAD(1.0, [3.0, np.nan]), r"gamma: expected a number > 2, got \[ 3. nan\]"),
    (lambda: Quadratic(-1.0), r"strength: expected a number ≥ 0"),
    (lambda: MCP(1.0).prox([1.0], -1.0), r"step_size: expected a number ≥ 0"),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES)
def test_messages(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_gamma_of_a_sweep_is_not_checked():
    swept = jax.jit(jax.vmap(lambda gamma: SCAD(1.0, gamma).prox(np.float32(2.5), 1.0)))
    np.testing.assert_allclose(swept(np.array([3.0, 4.0], np.float32)), [2.0, 1.75], rtol=1e-6)
