"""Penalties as modules: values by hand, operators by brute force, sweeps, derivatives, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax.penalties import (
    L0,
    L1,
    AbstractProximalPenalty,
    AbstractValuedPenalty,
    Cauchy,
    ElasticNet,
    Gaussian,
    GroupL2,
    Log,
    NonNegativeL1,
    SmoothL1,
    log_threshold,
)

SEPARABLE = [L1(0.7), NonNegativeL1(0.7), ElasticNet(0.7, 0.4), L0(0.7), Cauchy(3.0, 0.6), Cauchy(0.7, 2.0)]
GROUPED = GroupL2(0.7, 2)
SMOOTH = [SmoothL1(0.7, 0.01), Gaussian(0.7, 0.5), Cauchy(0.7, 0.5)]
CODE = np.array([0.3, -1.2, 0.0, 2.5, 0.0, 0.0])

# Many penalties make one program, which is compiled once for all that follows in double precision.
VALUED, PROXIMAL = jax.tree.map(
    lambda leaf: np.asarray(leaf, float),
    ([*SEPARABLE, *SMOOTH, GROUPED], [*SEPARABLE, Cauchy(0.7, 0.5), Log(0.7), GROUPED]),
)


prox = jax.jit(lambda penalty, v, step_size: penalty.prox(v, step_size))
value = jax.jit(lambda penalty, code: penalty.value(code))


@jax.jit
def values(penalties, code):
    return [penalty.value(code) for penalty in penalties]


@jax.jit
def proxes(penalties, v, step_size):
    return [penalty.prox(v, step_size) for penalty in penalties]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_value(dtype, x64):
    cases = [
        (L1(0.7), 0.7 * (0.3 + 1.2 + 2.5)),
        (NonNegativeL1(0.7), np.inf),
        (ElasticNet(0.7, 0.4), 0.7 * 4.0 + 0.2 * (0.09 + 1.44 + 6.25)),
        (L0(0.7), 0.7 * 3),
        (Cauchy(0.7, 0.5), 0.7 * (np.log(1.36) + np.log(6.76) + np.log(26.0))),
        (SmoothL1(0.7, 0.01), 0.7 * (np.sqrt(0.1) + np.sqrt(1.45) + np.sqrt(6.26) + 3 * 0.1)),
        (Gaussian(0.7, 0.5), 0.7 * (3 - np.exp(-0.36) - np.exp(-5.76) - np.exp(-25.0))),
        (GroupL2(0.7, 2), 0.7 * (np.sqrt(1.53) + 2.5)),
        (GroupL2(np.array([1.0, 2.0]), 3), np.sqrt(1.53) + 5.0),
        (L1(np.arange(6)), 1.2 + 7.5),
    ]
    penalties, expected = zip(*cases, strict=True)
    for penalty, found, one in zip(penalties, values(penalties, CODE.astype(dtype)), expected, strict=True):
        assert found.dtype == dtype, penalty
        np.testing.assert_allclose(found, one, rtol=10 * np.finfo(dtype).eps, err_msg=repr(penalty))


def test_value_of_a_nonnegative_code():
    found = values([NonNegativeL1(0.7)], np.abs(CODE)), values([NonNegativeL1(0.0)], CODE)
    np.testing.assert_allclose(np.ravel(found), [0.7 * 4.0, np.inf])


@jax.jit
def objectives(penalties, v, step_size, trials):
    """Return ½(u − v)² + step_size·value(u) of each penalty, for each v and its trials."""

    def one(penalty, trials):
        cost = jax.vmap(jax.vmap(lambda u: penalty.value(u[None])))(trials)
        return (trials - v[:, None]) ** 2 / 2 + step_size * cost

    return jnp.stack([one(penalty, u) for penalty, u in zip(penalties, trials, strict=True)])


def zoomed_minimisers(penalties, v, step_size):
    """argmin_u ½(u − v)² + step_size·value(u), by grids that shrink around the best point."""
    u, width = np.zeros((len(penalties), len(v))), 1.01 * np.abs(v)
    for _ in range(14):
        grid = u[..., None] + np.linspace(-1, 1, 2001) * width[:, None]
        grid = np.append(grid, np.zeros_like(u)[..., None], -1)
        best = np.argmin(objectives(penalties, v, step_size, grid), -1)
        u, width = np.take_along_axis(grid, best[..., None], -1)[..., 0], width / 20
    return u


def test_prox_minimises_with_its_value(x64):
    v = np.array([-9.3, -1.9, -0.6, -0.2, 0.11, 0.31, 0.75, 1.4, 2.2, 3.1, 7.7, 12.0])
    separable = PROXIMAL[: len(SEPARABLE)]
    for step_size in (0.3, 1.7):
        expected = zoomed_minimisers(separable, v, step_size)
        found = proxes(PROXIMAL, v.reshape(2, 6), step_size)
        for penalty, u, least in zip(separable, found, expected, strict=False):
            np.testing.assert_allclose(np.ravel(u), least, rtol=1e-6, atol=1e-7, err_msg=repr(penalty))


@jax.jit
def group_objectives(v, trials):
    return jnp.sum((trials - v) ** 2, -1) / 2 + 0.9 * jax.vmap(GROUPED.value)(trials)


def test_group_prox_minimises_with_its_value(x64):
    vs = np.array([[1.3, -0.4], [0.2, 0.3], [0.0, 2.0], [-5.0, -4.0]])
    for v, found in zip(vs, prox(GROUPED, vs, 0.9), strict=True):
        u, width = np.zeros(2), 6.0
        for _ in range(20):
            side = np.linspace(-1, 1, 41) * width
            grid = np.concatenate(
                [u + np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), np.zeros((1, 2))]
            )
            u, width = grid[np.argmin(group_objectives(v, grid))], width / 3
        np.testing.assert_allclose(found, u, rtol=1e-5, atol=1e-7)


def test_group_strengths_and_batches():
    v = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    penalty = GroupL2(np.array([0.1, 0.5, 0.9]), 2)
    batch = prox(penalty, v, 0.8)
    for row, u in zip(v, batch, strict=True):
        for g, strength in enumerate([0.1, 0.5, 0.9]):
            group = row[2 * g : 2 * g + 2]
            expected = group * max(1 - 0.8 * strength / np.linalg.norm(group), 0)
            np.testing.assert_allclose(u[2 * g : 2 * g + 2], expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_group_prox_is_exact_next_to_its_threshold(size):
    rng = np.random.default_rng(1)
    v = (10 ** rng.uniform(-3, 4, (5000, 1)) * rng.normal(size=(5000, size))).astype(np.float32)
    length = np.linalg.norm(v.astype(np.longdouble), axis=1)
    t = (length * (1 - 10 ** rng.uniform(-6, 0, 5000))).astype(np.float32)
    u = np.asarray(prox(GroupL2(t[:, None], size), v, 1.0))
    expected = v * np.maximum(1 - t / length, 0)[:, None]
    np.testing.assert_array_less(np.abs(u - expected), 1e-6 * np.abs(expected) + 1e-30)


def test_group_strengths_may_have_leading_axes():
    v = np.array([3.0, 4.0, 0.0, 1.0], np.float32)
    u = prox(GroupL2(np.array([[0.5], [2.0]]), 2), v, 1.0)
    np.testing.assert_allclose(u, [[2.7, 3.6, 0, 0.5], [1.8, 2.4, 0, 0]], rtol=1e-6)


def test_log_prox_is_the_log_operator():
    v = np.array([0.5, -2.0, 3.0], np.float32)
    np.testing.assert_allclose(prox(Log(0.5), v, 0.8), jax.jit(log_threshold)(v, np.float32(0.4)), rtol=1e-6)


def scaled(penalty, factor):
    return jax.tree.map(lambda leaf: leaf * factor, penalty)


def test_prox_of_a_batch_and_a_sweep(x64):
    v, factors = np.random.default_rng(0).normal(size=(2, 6)) * 3, np.array([0.2, 9.0])

    @jax.jit
    def swept(v, factors):
        return [jax.vmap(lambda f, p=penalty: scaled(p, f).prox(v, 0.4))(factors) for penalty in PROXIMAL]

    batch, rows = proxes(PROXIMAL, v, 0.4), [proxes(PROXIMAL, row, 0.4) for row in v]
    alone = [proxes(scaled(PROXIMAL, factor), v[0], 0.4) for factor in factors]
    for i, (penalty, sweep) in enumerate(zip(PROXIMAL, swept(v[0], factors), strict=True)):
        np.testing.assert_allclose(batch[i], [row[i] for row in rows], rtol=1e-12, err_msg=repr(penalty))
        np.testing.assert_allclose(sweep, [one[i] for one in alone], rtol=1e-12, err_msg=repr(penalty))
        assert not np.allclose(sweep[0], sweep[1]), penalty


def test_strength_made_inside_a_sweep():
    v = np.array([-2.0, 0.3, 1.0], np.float32)
    swept = jax.jit(jax.vmap(lambda s: L1(s).prox(v, 0.5)))(np.array([0.0, 1.0, 4.0], np.float32))
    np.testing.assert_allclose(swept, [[-2.0, 0.3, 1.0], [-1.5, 0, 0.5], [0, 0, 0]])
    per_coefficient = prox(L1(np.array([0.0, 1.0, 4.0])), v, 0.5)
    np.testing.assert_allclose(per_coefficient, [-2.0, 0, 0])
    slope = jax.jit(jax.grad(lambda s: ElasticNet(s, 1.0).prox(v[2:] + 2, 0.5)[0]))(1.0)
    np.testing.assert_allclose(slope, -0.5 / 1.5, rtol=1e-6)


@jax.jit
def value_gradients(penalties, code):
    return [jax.grad(penalty.value)(code) for penalty in penalties]


def test_gradient_of_the_value(x64):
    steps = 1e-6 * np.eye(6)[[0, 1, 3]]
    ends = [[values(VALUED, CODE + sign * step) for sign in (1, -1)] for step in steps]
    gradients = jax.device_get(value_gradients(VALUED, CODE))
    for i, (penalty, gradient) in enumerate(zip(VALUED, gradients, strict=True)):
        np.testing.assert_array_equal(gradient[4:], 0, err_msg=repr(penalty))
        if not isinstance(penalty, NonNegativeL1):
            numeric = [(above[i] - below[i]) / 2e-6 for above, below in ends]
            found = gradient[[0, 1, 3]]
            np.testing.assert_allclose(found, numeric, rtol=1e-7, atol=1e-8, err_msg=repr(penalty))
    # Where the value is infinite, coefficients below zero have no slope.
    np.testing.assert_allclose(gradients[1], 0.7 * (CODE > 0), rtol=1e-6)


def test_derivatives_with_respect_to_strengths_and_scales(x64):
    code = np.array([0.3, 1.2, 0.0, 2.5, 4.0, 1.9])

    @jax.jit
    def derivatives(valued, proximal):
        by_value = [jax.grad(lambda penalty: penalty.value(code))(penalty) for penalty in valued]
        return by_value, [
            jax.jacfwd(lambda penalty: penalty.prox(code, 0.4))(penalty) for penalty in proximal
        ]

    def moved(penalty, i, step):
        leaves, form = jax.tree.flatten(penalty)
        return form.unflatten([leaf + step * (i == j) for j, leaf in enumerate(leaves)])

    gradients, jacobians = derivatives(VALUED, PROXIMAL)
    for i in range(2):  # the first and, where there is one, the second leaf
        for penalties, slopes, evaluate, settings in (
            (VALUED, gradients, lambda some: values(some, code), {"rtol": 1e-7}),
            (PROXIMAL, jacobians, lambda some: proxes(some, code, 0.4), {"rtol": 1e-6, "atol": 1e-8}),
        ):
            ends = [evaluate([moved(penalty, i, h) for penalty in penalties]) for h in (1e-6, -1e-6)]
            for penalty, slope, above, below in zip(penalties, slopes, *ends, strict=True):
                if i < len(jax.tree.leaves(penalty)):
                    numeric, ours = (above - below) / 2e-6, jax.tree.leaves(slope)[i]
                    np.testing.assert_allclose(ours, numeric, err_msg=repr(penalty), **settings)


@jax.jit
def group_derivatives(penalty, v):
    jacobian = jax.jacrev(lambda v: penalty.prox(v, 0.5))(v)
    by_strength = jax.jacfwd(lambda s: GroupL2(s, 2).prox(v, 0.5))(penalty.strength)
    return jacobian, by_strength, jax.hessian(lambda v: jnp.sum(penalty.prox(v, 0.5) ** 2))(v)


@pytest.mark.parametrize("strength", [0.7, 0.0])
def test_group_derivatives(strength, x64):
    penalty = GroupL2(strength, 2)
    v, steps = np.array([1.3, -0.4, 0.0, 0.0, 1e-3, 2e-3]), 1e-6 * np.eye(6)
    jacobian, by_strength, curvature = group_derivatives(penalty, v)
    difference = (prox(penalty, v + steps, 0.5) - prox(penalty, v - steps, 0.5)) / 2e-6
    np.testing.assert_allclose(jacobian, np.transpose(difference), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(by_strength[:2], -0.5 * v[:2] / np.linalg.norm(v[:2]), rtol=1e-6)
    assert np.all(np.isfinite(by_strength)) and np.all(np.isfinite(curvature))


def test_group_lengths_neither_overflow_nor_vanish():
    for size in (1e-25, 1e25):
        v = size * np.array([3.0, 4.0], np.float32)
        np.testing.assert_allclose(prox(GroupL2(size, 2), v, 1.0), 0.8 * v, rtol=1e-6)
        np.testing.assert_allclose(value(GroupL2(1.0, 2), v), 5 * size, rtol=1e-6)
    assert value(GroupL2(1.0, 2), np.array([np.inf, 1.0], np.float32)) == np.inf
    assert np.isnan(prox(GroupL2(1.0, 2), np.array([np.nan, 1.0], np.float32), 1.0)).all()


def test_nan_is_never_replaced(x64):
    code = np.where(np.arange(6) == 0, np.nan, CODE)
    assert np.all(np.isnan(values(VALUED, code)))
    for u in proxes(PROXIMAL, code, 0.1):
        assert np.isnan(u[0]) and np.all(np.isfinite(u[2:]))


def test_interfaces():
    assert not isinstance(Log(1.0), AbstractValuedPenalty)
    assert not any(isinstance(penalty, AbstractProximalPenalty) for penalty in SMOOTH[:2])
    assert [p.is_smooth for p in [*SEPARABLE, Log(1.0), GROUPED, *SMOOTH]] == [False] * 4 + [True] * 2 + [
        False
    ] * 2 + [True] * 3
    assert not GROUPED.is_separable and L1(1).is_separable
    with pytest.raises(AttributeError):
        L1(1.0).strength = jnp.ones(())
    with pytest.raises(TypeError):
        AbstractProximalPenalty()


def test_strength_is_an_array_leaf():
    leaves = jax.tree.leaves([L1(1), Cauchy(np.ones(3), 2), GROUPED])
    assert [leaf.shape for leaf in leaves] == [(), (3,), (), ()]
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in leaves)


MESSAGES = [
    (lambda: L1(-1.0), r"strength: expected a number ≥ 0, got -1.0"),
    (lambda: L1(np.array([1.0, -2.0])), r"strength: expected a number ≥ 0, got \[ 1. -2.\]"),
    (lambda: L1(float("nan")), r"strength: expected a number ≥ 0, got nan"),
    (lambda: NonNegativeL1(-1), r"strength: expected a number ≥ 0, got -1"),
    (lambda: ElasticNet(-1.0, 1.0), r"l1: expected a number ≥ 0"),
    (lambda: ElasticNet(1.0, -1.0), r"l2: expected a number ≥ 0"),
    (lambda: L0(-1.0), r"strength: expected a number ≥ 0"),
    (lambda: Cauchy(-1.0, 1.0), r"strength: expected a number ≥ 0"),
    (lambda: Cauchy(1.0, 0.0), r"scale: expected a number > 0, got 0.0"),
    (lambda: Log(-1.0), r"strength: expected a number ≥ 0"),
    (lambda: SmoothL1(1.0, 0.0), r"epsilon: expected a number > 0"),
    (lambda: Gaussian(1.0, -2.0), r"scale: expected a number > 0"),
    (lambda: GroupL2(-1.0, 2), r"strength: expected a number ≥ 0"),
    (lambda: GroupL2(1.0, 0), r"group_size: expected a whole number ≥ 1, got 0"),
    (lambda: GROUPED.value(np.ones(5)), r"code: expected .* group_size 2 divides, got shape \(5,\)"),
    (lambda: GROUPED.prox(np.ones(5), 0.1), r"v: expected .* group_size 2 divides, got shape \(5,\)"),
    (lambda: L1(1j), r"strength: expected real numbers, got dtype complex"),
    (lambda: ElasticNet(1.0, np.ma.array([1.0])), r"l2: expected an array without a mask"),
    (lambda: L1(1.0).prox(np.ones(3) + 0j, 0.1), r"v: expected real numbers, got dtype complex"),
    (lambda: L1(1.0).value(np.array([None])), r"code: expected numbers, got an array of dtype object"),
    (lambda: GROUPED.prox(np.ones(4), 1j), r"step_size: expected real numbers, got dtype complex"),
    (lambda: L1(1.0).prox(np.ones(3), -0.1), r"step_size: expected a number ≥ 0, got -0.1"),
    (lambda: jax.jit(lambda v: L1(-1.0).prox(v, 0.1))(np.ones(3)), r"strength: expected a number ≥ 0"),
]


def test_messages(untyped):
    for make, message in MESSAGES:
        with pytest.raises(ValueError, match=message):
            make()


def test_foreign_numbers_are_converted(untyped):
    expected = jax.tree.leaves(
        answers(L1(np.array([1.0, 0.5, 2.0], np.float32)), jnp.array([-3.0, 0.0, 2.0]))
    )
    for strength, code in (
        ([1, 0.5, 2], [-3, 0, 2]),
        (np.array([1, 0.5, 2], ">f8"), np.array([-3, 0, 2], ">i2")),
        (np.array([1, 0.5, 2], np.longdouble), np.array([-3, 0, 2], np.int64)),
    ):
        for found, right in zip(jax.tree.leaves(answers(L1(strength), code)), expected, strict=True):
            np.testing.assert_array_equal(found, right)


def answers(penalty, code):
    return penalty.value(code), penalty.gradient(code), penalty.support(code), penalty.prox(code, 1)


INFINITE = [
    L1(np.inf), L1([np.inf, 1.0]), NonNegativeL1(np.inf), ElasticNet(np.inf, 1.0), ElasticNet(1.0, np.inf),
    ElasticNet(np.inf, np.inf), ElasticNet([np.inf, 0.0], 0.0), L0(np.inf), L0([np.inf, 1.0]),
    Cauchy(np.inf, 1.0), Cauchy([np.inf, 1.0], 0.1), GroupL2(np.inf, 2), GroupL2([np.inf, 1.0], 1),
    Gaussian(np.inf, 1.0), Gaussian([1.0, np.inf], 2.0), Log(np.inf), SmoothL1([np.inf, 0.0], 0.01),
]  # fmt: skip


@jax.jit
def at_zero_and_beyond(penalties, code):
    """Return gradient, value and its slopes at zero, the proximal operator and its Jacobian at a code."""
    zeros = jnp.zeros_like(code)
    valued = [p for p in penalties if isinstance(p, AbstractValuedPenalty)]
    proximal = [p for p in penalties if isinstance(p, AbstractProximalPenalty)]
    return (
        [p.gradient(zeros) for p in penalties],
        [p.value(zeros) for p in valued if not isinstance(p, SmoothL1)],
        [jax.grad(lambda p: p.value(zeros))(p) for p in valued],
        [(p.prox(code, 0.5), jax.jacobian(p.prox)(code, 0.5)) for p in proximal],
    )


def test_an_infinite_strength_allows_zero_and_nothing_else():
    code = jnp.array([1.5, -2.0])
    gradients, values, slopes, moved = at_zero_and_beyond(INFINITE, code)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradients, values)))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slopes, moved)))
    proximal = [p for p in INFINITE if isinstance(p, AbstractProximalPenalty)]
    for penalty, (u, jacobian) in zip(proximal, moved, strict=True):
        is_held = np.broadcast_to(np.max(np.isinf(jax.tree.leaves(penalty)[0])), 2)
        if jax.tree.leaves(penalty)[0].shape == (2,):
            is_held = np.isinf(jax.tree.leaves(penalty)[0])
        is_held = is_held | np.isinf(np.broadcast_to(getattr(penalty, "l2", 0.0), 2))
        assert not np.any(u[is_held]) and not np.any(jacobian[is_held]), penalty
        assert np.all(u[~is_held]), penalty


@jax.jit
def smooth_at_scale(code):
    penalties = SmoothL1(1.0, 1e-7), SmoothL1(2.0, 9.0), Cauchy(1.0, 1.0)
    return [(jax.vmap(p.value)(code[:, None]), p.gradient(code)) for p in penalties]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_smooth_penalties_at_any_scale(dtype, x64):
    scales = 10.0 ** np.arange(-30, 31)
    code = np.concatenate([-scales, scales, [0.0, 1e38]]).astype(dtype)
    z = code.astype(np.longdouble)
    expected = []
    for strength, epsilon in ((1, 1e-7), (2, 9)):
        size = np.sqrt(z**2 + np.asarray(epsilon, dtype).astype(np.longdouble))
        expected.append((strength * size, strength * z / size))
    expected.append((np.log1p(z**2), 2 * z / (1 + z**2)))
    tiny = np.finfo(dtype).tiny
    for found, right in zip(jax.tree.leaves(smooth_at_scale(code)), sum(expected, ()), strict=True):
        np.testing.assert_allclose(found, right.astype(float), rtol=8 * np.finfo(dtype).eps, atol=tiny)


def test_half_precision_is_summed_in_single():
    for dtype in (jnp.bfloat16, jnp.float16):
        code = jnp.full(4096, 300.0, dtype)
        found = [
            value(p, code) for p in (L1(1.0), ElasticNet(1.0, 1.0), Cauchy(1.0, 1.0), SmoothL1(1.0, 0.01))
        ]
        z, n = float(code[0]), 4096
        right = n * np.array([z, z + z**2 / 2, np.log1p(z**2), np.sqrt(z**2 + 0.01)])
        np.testing.assert_allclose(found, right, rtol=1e-5)
        assert all(one.dtype == np.float32 for one in found)
        assert L1(1.0).gradient(code).dtype == GroupL2(1.0, 2).prox(code, 1.0).dtype == dtype
