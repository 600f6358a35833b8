"""Selections: how many are kept, which, and what a gradient passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from autoencoder_truth import (
    array,
    quick,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from neurojax import autoencoder as ae


@partial(quick, static_argnames="k")
def kept(a, weight, k):
    """Codes, their weighted sum and its slope."""

    def weighted(a):
        code = ae.top_k(a, k)
        return jnp.sum(weight * code), code

    (value, code), slope = jax.value_and_grad(weighted, has_aux=True)(a)
    return code, value, slope


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=6, max_size=6),
    st.sampled_from([1, 2, 4, 6]),
)
def test_top_k_keeps_exactly_k_the_first_of_equals(numbers, k):
    """Few different numbers, so that most rows have ties; negatives and zeros among them."""
    a = np.array(numbers, "float32")
    chosen = np.sort(np.argsort(-a, kind="stable")[:k])
    expected = np.zeros_like(a)
    expected[chosen] = a[chosen]
    weight = np.arange(1.0, 7.0, dtype="float32")
    code, value, slope = kept(a, weight, k=k)
    np.testing.assert_array_equal(code, expected)
    np.testing.assert_allclose(value, weight @ expected, rtol=1e-6)
    # Who is kept shows in the gradient, at an activation of 0 as well.
    np.testing.assert_array_equal(np.flatnonzero(slope), chosen)
    np.testing.assert_array_equal(np.asarray(slope)[chosen], weight[chosen])


def test_top_k_of_a_batch_keeps_k_times_its_rows():
    a = np.random.default_rng(0).normal(size=(8, 10)).astype("float32")
    a[3], a[5, 2:] = 1.0, -5.0  # ties, and a row with little to offer
    select = quick(lambda a: (jax.grad(lambda a: jnp.sum(ae.top_k_batch(a, 3)))(a), ae.top_k_batch(a, 3)))
    mask, codes = map(np.asarray, select(a))
    assert mask.sum() == 24 and np.isin(mask, [0, 1]).all()
    assert a[mask == 1].min() >= a[mask == 0].max()
    assert len(set(mask.sum(axis=1))) > 1  # rows share
    np.testing.assert_array_equal(codes, np.where(mask == 1, a, 0))


def test_selections_of_a_batch_are_those_of_its_rows_but_for_batch_top_k():
    a = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    alike = (ae.ReLU(), ae.TopK(2), ae.JumpReLU.from_threshold(6, 0.3))
    batch, all_of_it = ae.BatchTopK(2, array(0.4, "float32")), ae.BatchTopK(6)

    @quick
    def everything(a, threshold):
        slope = jax.grad(lambda threshold: jnp.sum(ae.BatchTopK(2, threshold)(jnp.ones(6))))(threshold)
        both = [(jnp.stack([selection(row) for row in a]), selection.select_batch(a)) for selection in alike]
        return both, batch(a[0]), batch.select_batch(a), all_of_it.select_batch(a), slope

    both, of_one, of_batch, of_all, slope = jax.tree.map(np.asarray, everything(a, 0.4))
    for alone, together in both:
        np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(both[0][0], np.maximum(a, 0))
    np.testing.assert_array_equal(both[1][0], np.where(a >= np.sort(a, axis=1)[:, [-2]], a, 0))
    np.testing.assert_array_equal(of_one, np.where(a[0] >= np.float32(0.4), a[0], 0))
    expected = np.where(a >= np.sort(a, axis=None)[-10], np.maximum(a, 0), 0)
    np.testing.assert_array_equal(of_batch, expected)
    np.testing.assert_array_equal(of_all, np.maximum(a, 0))  # positive ones alone
    assert slope == 0


A = np.array([0.1, 0.26, 0.29, 0.3, 0.31, 0.34, 0.8, -0.3])
THRESHOLD, WIDTH = 0.3, 0.1
NEAR = np.array([0, 1, 1, 1, 1, 1, 0, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_jump_relu_and_its_pseudo_gradient(x64, dtype):
    a, threshold = array(A, dtype), array(np.full(8, THRESHOLD, dtype))
    upstream = np.linspace(1, 2, 8).astype(dtype)

    @quick
    def pull(a, threshold, upstream):
        code, back = jax.vjp(lambda a, t: ae.jump_relu(a, t, WIDTH), a, threshold)
        return code, back(upstream)

    code, (of_a, of_threshold) = pull(a, threshold, upstream)
    is_above = np.asarray(a) > np.asarray(threshold)
    np.testing.assert_array_equal(is_above, [0, 0, 0, 0, 1, 1, 1, 0])
    np.testing.assert_array_equal(code, np.where(is_above, a, 0))
    np.testing.assert_array_equal(of_a, is_above * upstream)
    np.testing.assert_allclose(of_threshold, -THRESHOLD / WIDTH * NEAR * upstream, rtol=1e-6)


def test_jump_relu_in_logs_and_the_count(x64):
    selection = ae.JumpReLU(array(np.full(8, np.log(THRESHOLD))), WIDTH)
    value_and_slopes = quick(
        lambda s: (
            *jax.value_and_grad(lambda s: s.n_active(jnp.asarray(A)))(s),
            jax.grad(lambda s: jnp.sum(s(jnp.asarray(A))))(s),
        )
    )
    value, slope, of_sum = value_and_slopes(selection)
    assert value == 3
    # d/dlog θ = θ·d/dθ.
    np.testing.assert_allclose(slope.log_threshold, -THRESHOLD / WIDTH * NEAR, rtol=1e-12)
    np.testing.assert_allclose(of_sum.log_threshold, -(THRESHOLD**2) / WIDTH * NEAR, rtol=1e-12)
    started = ae.JumpReLU.from_threshold(5, 0.2)
    np.testing.assert_allclose(np.exp(started.log_threshold), np.full(5, 0.2), rtol=1e-6)


def test_pseudo_gradients_are_derivatives_of_means_over_data(x64):
    """Of a with density 2a on [0, 1]: E[a; a > θ] has slope −θ·2θ, P(a > θ) has −2θ."""
    data = array(np.sqrt((np.arange(200_000) + 0.5) / 200_000)[:, None])
    selection = ae.JumpReLU(array(np.log([0.6])), 0.1)

    @quick
    def slopes(selection):
        mean = jax.grad(lambda s: jnp.mean(jnp.sum(jax.vmap(s)(data), axis=1)))(selection)
        count = jax.grad(lambda s: jnp.mean(jax.vmap(s.n_active)(data)))(selection)
        return mean.log_threshold[0] / 0.6, count.log_threshold[0] / 0.6

    np.testing.assert_allclose(slopes(selection), [-0.6 * 1.2, -1.2], rtol=1e-3)


def test_a_selection_in_double_precision_takes_single_activations(x64):
    selection = ae.JumpReLU(array(np.full(4, np.log(0.3))), 0.1)
    a = array([0.1, 0.29, 0.31, 0.9], "float32")
    code, slope = quick(lambda s: (s(a), jax.grad(lambda s: jnp.sum(s(a)) + s.n_active(a))(s)))(selection)
    assert code.dtype == "float32" and slope.log_threshold.dtype == "float64"
    np.testing.assert_allclose(slope.log_threshold, -0.3 * 1.3 / 0.1 * np.array([0, 1, 1, 0]), rtol=1e-6)
