"""The convergence loop against closed forms, and its statuses sample by sample."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from neurojax.convergence import (
    AbstractProblem,
    NotConvergedError,
    Picard,
    Status,
    iterate,
    raise_unless_converged,
    trace,
)


class Contraction(AbstractProblem):
    """z = rate·z + offset, with the solution offset/(1 − rate)."""

    rate: Array
    offset: Array

    def fixed_point(self, value):
        return self.rate * value + self.offset

    def residual(self, value):
        return jnp.abs(self.fixed_point(value) - value)


def solve(rate, offset, init=0.0, **settings):
    settings = {"tol": 1e-6, "max_steps": 100, **settings}
    problem = Contraction(jnp.asarray(rate, float), jnp.asarray(offset, float))
    return iterate(Picard(), problem, jnp.asarray(init, float), **settings)


def steps_needed(rate, offset, tol, every, most):
    """The loop restated: residuals are looked at after 0, every, 2·every, … and after the last step."""
    value, n = 0.0, 0
    while abs(rate * value + offset - value) > tol and n < most:
        for _ in range(min(every, most - n)):
            value, n = rate * value + offset, n + 1
    return n, value


@pytest.mark.parametrize("every", [1, 7, 10, 1000])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.99])
def test_steps_and_value_are_those_of_the_plain_loop(rate, every, x64):
    solution = solve(rate, 1.0, tol=1e-6, max_steps=123, steps_per_check=every)
    n_steps, value = steps_needed(rate, 1.0, 1e-6, every, 123)
    assert solution.n_steps == n_steps
    np.testing.assert_allclose(solution.value, value, rtol=1e-12)
    expected = Status.converged if solution.residual <= 1e-6 else Status.max_steps_reached
    assert solution.status == expected


def test_a_start_that_is_the_solution_takes_no_step():
    solution = solve(0.5, 1.0, init=2.0)
    assert solution.n_steps == 0 and solution.status == Status.converged


def test_every_sample_has_its_own_end_under_vmap():
    rates = jnp.array([0.5, 2.0, 0.9, 0.999, jnp.nan, 0.5])
    offsets = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0, jnp.inf])
    batch = jax.vmap(partial(solve, max_steps=200))(rates, offsets)
    names = [Status(int(s)).name for s in batch.status]
    assert names == [
        "converged", "nonfinite", "converged", "max_steps_reached", "nonfinite", "nonfinite",
    ]  # fmt: skip
    for i, (rate, offset) in enumerate(zip(rates, offsets, strict=True)):
        alone = solve(rate, offset, max_steps=200)
        np.testing.assert_array_equal(batch.value[i], alone.value)
        assert batch.n_steps[i] == alone.n_steps and batch.status[i] == alone.status
    np.testing.assert_allclose(batch.value[0], 2, rtol=1e-6)


def test_works_inside_jit_scan_and_grad_with_a_zero_derivative():
    def loss(rate):
        def add(total, offset):
            return total + solve(rate, offset).value * rate, None

        return jax.lax.scan(add, 0.0, jnp.arange(1.0, 4.0))[0]

    value, slope = jax.jit(jax.value_and_grad(loss))(0.5)
    np.testing.assert_allclose(value, 6.0, rtol=1e-5)
    # The solutions are constants: only the explicit factor is differentiated.
    np.testing.assert_allclose(slope, 12.0, rtol=1e-5)


def test_residual_of_a_whole_batch_is_the_callers_own_choice():
    class Together(AbstractProblem):
        rate: Array

        def fixed_point(self, value):
            return self.rate * value + 1

        def residual(self, value):
            return jnp.linalg.norm(self.fixed_point(value) - value)

    problem = Together(jnp.array([0.5, 0.9]))
    solution = iterate(Picard(), problem, jnp.zeros(2), tol=1e-5, max_steps=500, steps_per_check=1)
    assert solution.status.shape == () and solution.status == Status.converged
    np.testing.assert_allclose(solution.value, [2, 10], rtol=1e-4)


def test_values_may_be_trees_and_a_residual_must_be_one_number(untyped):
    class Pair(AbstractProblem):
        target: Array

        def fixed_point(self, value):
            return {"a": 0.5 * (value["a"] + self.target), "b": (0.5 * value["b"][0],)}

        def residual(self, value):
            return jnp.max(jnp.abs(value["a"] - self.target)) + jnp.abs(value["b"][0])

    init = {"a": jnp.zeros(3), "b": (jnp.ones(()),)}
    targets = jnp.arange(6.0).reshape(2, 3)
    solution = jax.vmap(lambda t: iterate(Picard(), Pair(t), init, tol=1e-5, max_steps=100))(targets)
    assert np.all(solution.status == Status.converged)
    np.testing.assert_allclose(solution.value["a"], targets, atol=1e-4)
    with pytest.raises(ValueError, match=r"residual: expected shape \(\), .* got shape \(3,\)"):
        solve(jnp.zeros(3), 1.0, init=jnp.zeros(3))


def test_trace_records_the_start_and_every_step(x64):
    problem = Contraction(jnp.asarray(0.5), jnp.asarray(1.0))
    states = trace(Picard(), problem, jnp.asarray(0.0), 5)
    np.testing.assert_allclose(states, 2 * (1 - 0.5 ** np.arange(6)))
    slope = jax.grad(
        lambda offset: trace(Picard(), Contraction(jnp.asarray(0.5), offset), jnp.asarray(0.0), 5)[-1]
    )
    np.testing.assert_allclose(slope(1.0), 2 * (1 - 0.5**5))


def test_raise_unless_converged_names_the_first_failure():
    good = solve(0.5, 1.0)
    assert raise_unless_converged(good) is good
    batch = jax.vmap(solve)(jnp.array([0.5, 0.9999, jnp.nan]), jnp.ones(3))
    with pytest.raises(NotConvergedError, match=r"1 converged, 1 max_steps_reached, 1 nonfinite.*sample 1"):
        raise_unless_converged(batch)
    with pytest.raises(Exception, match="at least one sample did not converge"):
        jax.block_until_ready(jax.jit(lambda rate: raise_unless_converged(solve(rate, 1.0)))(0.9999))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tol": 0.0}, "tol: expected a number > 0, got 0.0"),
        ({"tol": -1.0}, "tol: expected a number > 0, got -1.0"),
        ({"tol": float("nan")}, "tol: expected a number > 0, got nan"),
        ({"tol": 1e-8}, "tol: expected at least 8 machine epsilons of float32"),
        ({"max_steps": 0}, "max_steps: expected a whole number ≥ 1, got 0"),
        ({"max_steps": 2.5}, "max_steps: expected a whole number ≥ 1, got 2.5"),
        ({"steps_per_check": 0}, "steps_per_check: expected a whole number ≥ 1, got 0"),
    ],
)
def test_bad_settings_are_named(settings, message, untyped):
    with pytest.raises(ValueError, match=message):
        solve(0.5, 1.0, **settings)
    with pytest.raises(ValueError, match="n_steps: expected a whole number ≥ 1, got 0"):
        trace(Picard(), Contraction(jnp.asarray(0.5), jnp.asarray(1.0)), jnp.asarray(0.0), 0)
