"""Certificates bound how far a code is from the minimum; a penalty in another unit is the same penalty."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.penalties import (
    L0,
    L1,
    MCP,
    SCAD,
    SLOPE,
    AbstractValuedPenalty,
    Cauchy,
    ElasticNet,
    GroupL2,
    NonNegativeL1,
    Quadratic,
    SparseGroupL2,
    TopK,
    ridge_slack,
)

RISING = np.linspace(0.1, 0.8, 6)
# For each class of penalties the settings with which it is tested: in the last of some, a coefficient is not
# penalized, so that the gap need not close; but it bounds.
CASES = {
    "L1": (L1, [(0.4,), (RISING,)], [([0.4, 0, 0.4, 0.4, 0.4, 0.4],)]),
    "NonNegativeL1": (NonNegativeL1, [(0.4,)], []),
    "ElasticNet": (ElasticNet, [(0.4, 0.3), (0.0, 0.7)], []),
    "Quadratic": (Quadratic, [(0.7,), (RISING,)], [([0.0, 1, 1, 1, 1, 1],)]),
    "GroupL2": (partial(GroupL2, group_size=3), [([0.4, 0.7],)], []),
    "SparseGroupL2": (
        partial(SparseGroupL2, group_size=2),
        [
            (0.2, [0.5, 0.5, 0.5]),
            (RISING[::-1], [0.3, 0.6, 0.2]),
            (0.0, [0.5, 0.7, 0.9]),
            (0.3, [0.0, 0.0, 0.0]),
            ([0.3, 0.3, 0.0, 0.0, 0.0, 0.4], [0.0, 0.5, 0.2]),
        ],
        [([0.4, 0.4, 0.0, 0.2, 0.2, 0.2], [1.0, 0.0, 1.0])],
    ),
    "SLOPE": (SLOPE, [([1.0, 0.7, 0.5, 0.3, 0.2, 0.1],), (0.4,), ([1.2, 0, 0, 0, 0, 0],)], [(0.0,)]),
}
NORMS = ("L1", "GroupL2", "SparseGroupL2", "SLOPE")


def stacked(name):
    """Return the penalties of a class as one, whose leaves have a leading axis, and whether each closes."""
    make, closing, others = CASES[name]
    rows = [
        [np.broadcast_to(x, np.size(x) if np.size(x) > 1 else 6) for x in row] for row in closing + others
    ]
    parameters = [np.array(column, float) for column in zip(*rows, strict=True)]
    return make(*parameters), np.arange(len(rows)) < len(closing)


def alone(penalty, i):
    return jax.tree.map(lambda leaf: leaf[i], penalty)


def problem(seed):
    """Return well-conditioned atoms and several data."""
    rng = np.random.default_rng(seed)
    atoms = np.linalg.qr(rng.normal(size=(8, 6)))[0].T + 0.2 * rng.normal(size=(6, 8))
    return atoms, rng.normal(size=(4, 8)) * np.array([[0.3], [1], [2], [4]])


@jax.jit
def solve(penalties, atoms, xs):
    """Return the solution of ½‖x − z·atoms‖² + penalty(z), for each penalty and datum, to the last digits."""
    step_size = 1 / jnp.linalg.norm(atoms, 2) ** 2

    def one(penalty, x):
        def improve(_, z):
            return penalty.prox(z + step_size * atoms @ (x - z @ atoms), step_size)

        return jax.lax.fori_loop(0, 1000, improve, jnp.zeros(6))

    return jax.vmap(lambda penalty: jax.vmap(lambda x: one(penalty, x))(xs))(penalties)


@jax.jit
def measures(penalties, atoms, xs, codes):
    """Return energy, gap and certificate of each penalty at each code of each datum."""

    def one(penalty, x, z):
        error = x - z @ atoms
        certificate = penalty.certificate(z, atoms @ error)
        squares = jnp.sum(error**2)
        return squares / 2 + penalty.value(z), certificate.gap(squares), certificate

    def row(penalty, codes):
        return jax.vmap(lambda x, zs: jax.vmap(lambda z: one(penalty, x, z))(zs))(xs, codes)

    return jax.vmap(row)(penalties, codes)


@pytest.mark.parametrize("name", CASES)
def test_gaps_bound_the_excess_and_close_at_the_solution(name, x64):
    penalties, closes = stacked(name)
    atoms, xs = problem(0)
    z = np.asarray(solve(penalties, atoms, xs))[:, :, None]
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(len(z), len(xs), 40, 6)) * 10 ** rng.uniform(-6, 0.5, (40, 1))
    sparse = noise * rng.integers(0, 2, noise.shape)
    codes = np.concatenate([z, z + noise, z + sparse, sparse, 0 * z, np.round(2 * z)], 2)
    codes = np.abs(codes) if name == "NonNegativeL1" else codes
    energies, gaps, (scale, rest, can_close) = jax.device_get(measures(penalties, atoms, xs, codes))
    size = np.sum(xs**2, 1)[:, None] / 2
    excess = energies - energies[:, :, :1]
    assert np.all(excess >= -1e-12 * size)  # the solver's solution is the minimum
    assert np.all(gaps >= excess - 1e-12 * size)
    assert np.all((scale >= 0) & (scale <= 1)) and np.all(rest >= 0) and np.all(np.isfinite(gaps))
    np.testing.assert_array_equal(can_close, np.broadcast_to(closes[:, None, None], can_close.shape))
    assert np.all(gaps[closes, :, 0] < 1e-10 * size[:, 0])
    assert np.mean(gaps[closes] < 0.1 * size) > 0.3  # near a solution the bound is no vain one


def dual_excess(penalty, c):
    """Return what is negative where g*(c) is 0, and 0 on the edge, from the textbooks' formulas."""
    c = np.abs(c)
    if isinstance(penalty, L1):
        return np.max(c - penalty.strength)
    if isinstance(penalty, SLOPE):
        return np.max(np.cumsum(-np.sort(-c)) - np.cumsum(penalty.strengths))
    groups = c.reshape(-1, penalty.group_size)
    if isinstance(penalty, GroupL2):
        return np.max(np.linalg.norm(groups, axis=1) - penalty.strength)
    soft = np.maximum(c - penalty.l1, 0).reshape(groups.shape)
    return np.max(np.linalg.norm(soft, axis=1) - penalty.l2)


@jax.jit
def values_and_certificates(penalties, points, codes, pulls):
    return jax.vmap(lambda p: (jax.vmap(p.value)(points), jax.vmap(p.certificate)(codes, pulls)))(penalties)


@pytest.mark.parametrize("name", NORMS)
def test_scales_are_feasible_and_as_large_as_can_be(name, x64):
    rng = np.random.default_rng(2)
    codes, pulls = rng.normal(size=(2, 60, 6)) * 10 ** rng.uniform(-2, 2, (2, 60, 1))
    pulls[0], codes[1], pulls[2, :3] = 0, 0, 0
    points = rng.normal(size=(4000, 6)) * 10 ** rng.uniform(-1, 1, (4000, 6)) * rng.integers(0, 2, (4000, 6))
    points = np.concatenate([codes, points])
    penalties, closes = stacked(name)
    values, found = jax.device_get(values_and_certificates(penalties, points, codes, pulls))
    for i in np.flatnonzero(closes):
        feasible = found.scale[i][:, None] * pulls
        # By sampling: g*(s·c) is 0, so that no point gains more than it costs. By formula: on the edge.
        assert np.all(points @ feasible.T <= values[i][:, None] * (1 + 1e-12))
        for s, c in zip(found.scale[i], pulls, strict=True):
            excess = dual_excess(jax.device_get(alone(penalties, i)), s * c) / max(
                np.linalg.norm(s * c), 1e-9
            )
            assert excess <= 1e-13 and (s == 1 or excess >= -1e-13)
        assert np.any(found.scale[i] == 1) and np.any(found.scale[i] < 0.5)
        rest = values[i, : len(codes)] - np.sum(codes * feasible, 1)
        np.testing.assert_allclose(found.rest[i], rest, rtol=1e-10, atol=1e-10)


def largest_scale_by_halves(pulls, l1, l2):
    """Return the largest s ≤ 1 with ‖soft(s·pulls_g, l1)‖ ≤ l2 in every group, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        soft = np.maximum(middle * np.abs(pulls) - l1, 0)
        is_over = np.any(np.linalg.norm(soft / soft.max(initial=1e-300), axis=-1) * soft.max() > l2)
        low, high = (low, middle) if is_over else (middle, high)
    return low


@pytest.mark.parametrize(("dtype", "tol"), [(np.float32, 3e-6), (np.float64, 1e-13)])
def test_the_scale_of_sparse_groups_at_any_spread(dtype, tol, x64):
    rng = np.random.default_rng(3)
    n = 60
    l1, l2, pulls = rng.exponential(size=(3, n, 3, 16))
    spread = 10 ** rng.uniform(-4, 4, (n, 3, 16)) ** rng.integers(0, 2, (n, 1, 1))
    pulls, l1, l2 = 0.3 * pulls * spread, l1 * 10 ** rng.uniform(-3, 1, (n, 1, 1)), 3 * l2[..., 0]
    pulls[30:40] *= 0.1
    l1[:10], l2[10:20], pulls[20:25, 0], l1[25:30, :, ::2] = 0, 0, 0, 0
    l1, l2, pulls = (x.astype(dtype) for x in (l1, l2, pulls))
    found = scales(l1.reshape(n, -1), l2, pulls.reshape(n, -1))
    expected = [
        largest_scale_by_halves(*(x.astype(float) for x in row)) for row in zip(pulls, l1, l2, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=tol)
    assert np.any(found == 1) and np.any(found < 1e-3) and np.ptp(found[found < 1]) > 0.5


@jax.jit
def scales(l1, l2, pulls):
    return jax.vmap(lambda l1, l2, c: SparseGroupL2(l1, l2, 16).certificate(c, c).scale)(l1, l2, pulls)


def test_infinite_strengths_hold_what_is_zero(x64):
    z, c = np.array([0.0, 2.0, 1.0, 0.0]), np.array([9.0, 0.3, 0.3, 0.1])
    held = np.array([np.inf, 0.3, 0.3, np.inf])
    certificates = jax.jit(
        lambda penalties, z: [penalty.certificate(z, jnp.asarray(c)) for penalty in penalties]
    )
    fitting = [
        Quadratic(held),
        SparseGroupL2(held, 0.0, 2),
        SparseGroupL2(0.1, [np.inf, 0.2, 0.2, np.inf], 1),
    ]
    for found in certificates(fitting, z):
        assert found.scale == 1 and np.isfinite(found.rest) and found.can_close
    (found,) = certificates([SLOPE([np.inf, 1.0, 1.0, 1.0])], 0 * z)
    assert found.scale == 1 and found.rest == 0
    for found in certificates(
        [Quadratic(held), SparseGroupL2(held, 0.0, 2), SLOPE(held[[0, 1, 2, 2]])], z[::-1] + 1
    ):
        assert found.rest == np.inf


def test_the_conjugate_of_squares(x64):
    strength, c = np.array([0.5, 2.0, 1.0]), np.array([1.0, -3.0, 0.0])
    conjugate = jax.jit(lambda strength: Quadratic(strength).conjugate_bound(jnp.asarray(c)))
    points = np.random.default_rng(4).normal(size=(5000, 3)) * 3
    gains = points @ c - points**2 @ strength / 2
    at_best = c @ (c / strength) - (c / strength) ** 2 @ strength / 2
    assert np.max(gains) <= at_best == conjugate(strength)
    assert conjugate(np.array([0.5, 2.0, 0.0])) == conjugate(strength)  # 0 gains nothing, penalized or not
    assert conjugate(np.array([0.5, 0.0, 1.0])) == np.inf
    found = jax.jit(ridge_slack)(np.array([2.0, 0, 0, np.inf, np.inf]), np.array([3.0, 0, 1, 1, np.inf]))
    np.testing.assert_array_equal(found, [2.25, 0, np.inf, 0, np.inf])


@jax.jit
def in_another_unit(penalties, z, unit):
    """Return values and operators, of each penalty and by way of the unit."""

    def both(penalty):
        other = penalty.in_units(unit)
        pairs = [(penalty.prox(z, 0.6), unit * other.prox(z / unit, 0.6))]
        if isinstance(penalty, AbstractValuedPenalty):
            pairs.append((penalty.value(jnp.abs(z)), unit**2 * other.value(jnp.abs(z) / unit)))
        return pairs

    return [both(penalty) for penalty in penalties]


def test_a_penalty_in_another_unit_is_the_same_penalty(x64):
    z = np.array([0.3, -1.2, 0.9, 2.5, -0.4, 0.1])
    penalties = [alone(stacked(name)[0], 0) for name in CASES] + [MCP(0.5, 1.7), SCAD(0.5, 2.9), TopK(2)]
    for penalty, pairs in zip(penalties, in_another_unit(penalties, z, 0.37), strict=True):
        for one, other in pairs:
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-12, err_msg=repr(penalty))
    assert all(penalty.in_units(jnp.ones(())) is None for penalty in (L0(1.0), Cauchy(1.0, 1.0)))
