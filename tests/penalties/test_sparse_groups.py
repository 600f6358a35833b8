"""The sparse group penalty: optimality conditions, special cases, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import jacobians, prox, support, value

from neurojax.penalties import L1, GroupL2, SparseGroupL2

N, ROWS = 40, 30


def groups_of(array, size=4):
    return np.asarray(array, float).reshape(*np.shape(array)[:-1], -1, size)


GROUPS = [(0.5, 0.8), (0.0, 0.8), (0.5, 0.0), (np.linspace(0, 1, N), np.linspace(0, 2, N // 4)), (0.0, 0.0)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_groups_satisfy_their_optimality_conditions(dtype, x64):
    eps = np.finfo(dtype).eps
    v = (np.random.default_rng(8).normal(size=(ROWS, N)) * np.repeat([0.4, 1, 3], 10)[:, None]).astype(dtype)
    t = dtype(0.9)
    n_zero = 0
    for l1, l2 in GROUPS:
        penalty = SparseGroupL2(np.asarray(l1, dtype), np.asarray(l2, dtype), 4)
        u = prox(penalty, v, t)
        assert u.dtype == dtype
        l1, l2 = (np.asarray(x, dtype).astype(float) for x in (l1, l2))
        lengths = np.linalg.norm(groups_of(v), axis=-1)
        expected = np.sum(l1 * np.abs(v.astype(float))) + np.sum(l2 * lengths)
        np.testing.assert_allclose(value(penalty, v), expected, rtol=10 * eps)
        thresholds = float(t) * np.broadcast_to(l1, (ROWS, N))
        l1, v_g, u_g, l2 = groups_of(thresholds), groups_of(v), groups_of(u), float(t) * l2
        length = np.linalg.norm(u_g, axis=-1, keepdims=True)
        shrunk = np.linalg.norm(np.maximum(np.abs(v_g) - l1, 0), axis=-1)
        is_zero = length[..., 0] == 0
        assert np.all(np.where(is_zero, shrunk, 0) <= l2 * (1 + 4 * eps))
        direction = u_g / np.where(length == 0, 1, length)
        pull = v_g - u_g - np.broadcast_to(l2, length.shape[:-1])[..., None] * direction
        lack = np.where(u_g == 0, np.maximum(np.abs(pull) - l1, 0), pull - l1 * np.sign(u_g))
        assert np.all(np.abs(np.where(is_zero[..., None], 0, lack)) <= 8 * eps * (np.abs(v_g) + l1 + 1))
        n_zero += is_zero.sum()
        half = prox(penalty, jnp.asarray(v, jnp.bfloat16), t)
        np.testing.assert_allclose(np.asarray(half, float), u, atol=0.05)
    assert n_zero > 100


def test_sparse_groups_are_groups_without_l1_and_l1_in_groups_of_one():
    v = np.random.default_rng(9).normal(size=(ROWS, N)).astype(np.float32)
    l2 = np.linspace(0, 2, N // 4).astype(np.float32)
    np.testing.assert_array_equal(prox(SparseGroupL2(0.0, l2, 4), v, 0.7), prox(GroupL2(l2, 4), v, 0.7))
    np.testing.assert_allclose(prox(SparseGroupL2(0.3, 0.4, 1), v, 0.7), prox(L1(0.7), v, 0.7), atol=3e-7)
    for scale in np.float32([1e-30, 1e30]):
        found = prox(SparseGroupL2(0.3 * scale, scale * l2, 4), scale * v, 0.7)
        right = prox(SparseGroupL2(0.3, l2, 4), v, 0.7)
        np.testing.assert_allclose(found / scale, right, rtol=1e-5, atol=1e-6)
    broken = prox(SparseGroupL2(0.3, 0.4, 2), np.array([np.nan, 1.0, 1.0, 2.0], np.float32), 1.0)
    assert np.isnan(broken[0]) and np.isfinite(broken[2:]).all()
    assert not prox(SparseGroupL2([np.inf] * 4, 0.4, 2), v[0, :4], 1.0).any()
    assert not prox(SparseGroupL2(0.1, np.inf, 2), v[0, :4], 1.0).any()
    stepped = prox(SparseGroupL2(0.3, 0.4, 4), v[:2], np.array([[0.5], [1.5]], np.float32))
    np.testing.assert_allclose(stepped[1], prox(SparseGroupL2(0.3, 0.4, 4), v[1], 1.5), rtol=1e-6)


def test_sparse_group_supports():
    code = np.array([0.0, -2.0, 0.0, 0.0, 0.0, 0.0])
    l1, l2 = np.array([0.0, 1, 0, 1, 0, 1]), np.array([1.0, 1, 0])
    for sign in (1, -1):
        found = support(SparseGroupL2(l1, l2, 2), sign * code)
        np.testing.assert_array_equal(found, [True, True, False, False, True, False])


def moved(penalty, step):
    return jax.tree.map(lambda leaf: leaf + step, penalty)


@pytest.mark.parametrize(
    "penalty",
    [SparseGroupL2(0.4, 0.9, 4), SparseGroupL2(np.linspace(0.1, 1, 8), 0.0, 4)],
    ids=["both", "l2=0"],
)
def test_derivatives_are_those_of_differences(penalty, x64):
    penalty = jax.tree.map(lambda leaf: np.asarray(leaf, float), penalty)
    v, h = np.array([0.3, -2.1, 2.0, 1.0, -0.9, 0.05, 4.0, 0.2]), 1e-6
    by_penalty, by_v, by_t = jacobians(penalty, v, 0.8)
    numeric = [(prox(penalty, v + h * e, 0.8) - prox(penalty, v - h * e, 0.8)) / (2 * h) for e in np.eye(8)]
    np.testing.assert_allclose(by_v, np.transpose(numeric), atol=1e-8)
    numeric = (prox(penalty, v, 0.8 + h) - prox(penalty, v, 0.8 - h)) / (2 * h)
    np.testing.assert_allclose(by_t, numeric, atol=1e-8)
    along = sum(leaf.reshape(8, -1).sum(1) for leaf in jax.tree.leaves(by_penalty))
    numeric = (prox(moved(penalty, h), v, 0.8) - prox(penalty, v, 0.8)) / h  # to one side, for l2 = 0
    np.testing.assert_allclose(along, numeric, atol=1e-5)
    # At zeros, ties and thresholds, and for infinite strengths, the derivatives are finite.
    edges = np.array([0.0, 0.0, 1.2, 1.2, -1.2, 0.32, 0.32, 0.0])
    for one in (penalty, moved(penalty, np.inf), jax.tree.map(np.zeros_like, penalty)):
        for z in (edges, 0 * edges, v):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jacobians(one, z, 0.8)))
    np.testing.assert_allclose(jacobians(one, edges, 0.8)[1], np.eye(8), atol=1e-15)


def test_interfaces():
    penalty = SparseGroupL2(1.0, 1.0, 1)
    assert not penalty.is_separable and not penalty.is_smooth
    assert [leaf.shape for leaf in jax.tree.leaves(SparseGroupL2(1, [1.0], 2))] == [(), (1,)]


MESSAGES = [
    (lambda: SparseGroupL2(-1.0, 1.0, 2), r"l1: expected a number ≥ 0"),
    (lambda: SparseGroupL2(1.0, -1.0, 2), r"l2: expected a number ≥ 0"),
    (lambda: SparseGroupL2(1.0, 1.0, 0), r"group_size: expected a whole number ≥ 1"),
    (lambda: SparseGroupL2(1.0, 1.0, 2).value(np.ones(3)), r"code: .* that group_size 2 divides"),
    (lambda: SparseGroupL2(1.0, 1.0, 2).prox(np.ones(2), np.ones(2)), r"step_size: expected one for all"),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES)
def test_messages(call, message, untyped):
    with pytest.raises(ValueError, match=message):
        call()
