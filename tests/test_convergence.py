"""The convergence loop against closed forms, and its statuses sample by sample."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, ArrayLike

from neurojax.convergence import (
    AbstractProblem,
    AbstractStationaryProblem,
    Detached,
    Implicit,
    NotConvergedError,
    Picard,
    Status,
    Tangent,
    Truncated,
    Unrolled,
    iterate,
    masked,
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


def solve(rate, offset, init: ArrayLike = 0.0, **settings):
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
def test_steps_and_value_are_those_of_the_plain_loop(every, x64):
    rates = np.array([0.5, 0.9, 0.99])
    settings = {"tol": 1e-6, "max_steps": 123, "steps_per_check": every}
    solution = jax.jit(jax.vmap(partial(solve, **settings), (0, None)))(rates, 1.0)
    for i, rate in enumerate(rates):
        n_steps, value = steps_needed(rate, 1.0, 1e-6, every, 123)
        assert solution.n_steps[i] == n_steps
        np.testing.assert_allclose(solution.value[i], value, rtol=1e-12)
        expected = Status.converged if solution.residual[i] <= 1e-6 else Status.max_steps_reached
        assert solution.status[i] == expected


def solve_200(rate, offset, init):
    return solve(rate, offset, init, max_steps=200)


alone, mapped = jax.jit(solve_200), jax.jit(jax.vmap(solve_200))


def test_a_start_that_is_the_solution_takes_no_step():
    solution = alone(0.5, 1.0, 2.0)
    assert solution.n_steps == 0 and solution.status == Status.converged


def test_every_sample_has_its_own_end_under_vmap():
    rates = np.array([0.5, 2.0, 0.9, 0.999, np.nan, 0.5], np.float32)
    offsets = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.inf], np.float32)
    batch = mapped(rates, offsets, np.zeros(6, np.float32))
    names = [Status(int(s)).name for s in batch.status]
    assert names == [
        "converged", "nonfinite", "converged", "max_steps_reached", "nonfinite", "nonfinite",
    ]  # fmt: skip
    for i, (rate, offset) in enumerate(zip(rates, offsets, strict=True)):
        one = alone(rate, offset, 0.0)
        np.testing.assert_array_equal(batch.value[i], one.value)
        assert batch.n_steps[i] == one.n_steps and batch.status[i] == one.status
    np.testing.assert_allclose(batch.value[0], 2, rtol=1e-6)


def test_works_inside_jit_scan_and_grad_with_a_zero_derivative():
    def loss(rate):
        def add(total, offset):
            return total + solve(rate, offset, gradient=Detached()).value * rate, None

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

    @jax.jit
    def solution_of(rates):
        return iterate(Picard(), Together(rates), jnp.zeros(2), tol=1e-5, max_steps=500, steps_per_check=1)

    solution = solution_of(np.array([0.5, 0.9], np.float32))
    assert solution.status.shape == () and solution.status == Status.converged
    np.testing.assert_allclose(solution.value, [2, 10], rtol=1e-4)


@pytest.mark.parametrize("n_steps", [1, 20])
def test_truncated_falls_short_by_the_rate_to_the_number_of_steps(n_steps, x64):
    """k steps of z ← rate·z + offset give the share 1 − rateᵏ of the solution's derivative."""
    rates = np.array([0.3, 0.9, -0.5])

    def value(offset, rate):
        return solve(rate, offset, tol=1e-14, max_steps=1000, gradient=Truncated(n_steps)).value

    slope = jax.jit(jax.vmap(jax.grad(value)))(np.ones(3), rates)
    np.testing.assert_allclose(1 - slope * (1 - rates), rates**n_steps, atol=1e-12)


class Separable(AbstractStationaryProblem):
    """Solve z + z³ = target, entry by entry: as large as one likes, and quick to compile."""

    target: Array

    def stationarity(self, value):
        return value + value**3 - self.target

    def fixed_point(self, value):
        return value - 0.1 * self.stationarity(value)

    def residual(self, value):
        return jnp.max(jnp.abs(self.stationarity(value)))

    def tangent(self, value):
        diagonal = 1 + 3 * value**2
        return Tangent(lambda v: v, lambda v: diagonal * v, diagonal)


def temporary_states(gradient, max_steps, size=1000):
    """Return the temporary memory of a compiled gradient, in states of the solver."""

    def value(target):
        settings = {"tol": 1e-5, "max_steps": max_steps, "steps_per_check": 1, "gradient": gradient}
        return jnp.sum(iterate(Picard(), Separable(target), jnp.zeros(size), **settings).value)

    program = jax.jit(jax.grad(value)).lower(jnp.ones(size)).compile()
    analysis = program.memory_analysis()
    assert analysis is not None
    return analysis.temp_size_in_bytes / (4 * size)


def test_memory_grows_with_the_root_of_the_steps_or_not_at_all():
    assert temporary_states(Implicit(), 40000) < 10
    # Checkpoints, and one stretch between two of them: 2·√max_steps and ½·√max_steps states.
    np.testing.assert_allclose(temporary_states(Unrolled(), 40000), 2.5 * 200, rtol=0.05)


def test_values_may_be_trees_and_a_residual_must_be_one_number(untyped):
    class Pair(AbstractProblem):
        target: Array

        def fixed_point(self, value):
            return {"a": 0.5 * (value["a"] + self.target), "b": (0.5 * value["b"][0],)}

        def residual(self, value):
            return jnp.max(jnp.abs(value["a"] - self.target)) + jnp.abs(value["b"][0])

    init = {"a": np.zeros(3, np.float32), "b": (np.float32(1),)}
    targets = np.arange(6, dtype=np.float32).reshape(2, 3)
    run = jax.jit(jax.vmap(lambda t: iterate(Picard(), Pair(t), init, tol=1e-5, max_steps=100)))
    solution = run(targets)
    assert np.all(solution.status == Status.converged)
    np.testing.assert_allclose(solution.value["a"], targets, atol=1e-4)
    with pytest.raises(ValueError, match=r"residual: expected shape \(\), .* got shape \(3,\)"):
        jax.eval_shape(solve, jnp.zeros(3), 1.0, jnp.zeros(3))


class PairOfMeans(AbstractStationaryProblem):
    """a = target, and b = coupling·Σ target, in a tree."""

    target: Array
    coupling: float = eqx.field(static=True)

    def stationarity(self, value):
        return {"a": value["a"] - self.target, "b": value["b"] - self._sum()}

    def _sum(self):
        return self.coupling * jnp.sum(self.target) if self.coupling else jnp.zeros(())

    def fixed_point(self, value):
        return jax.tree.map(lambda leaf, slope: leaf - 0.5 * slope, value, self.stationarity(value))

    def residual(self, value):
        return sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(self.stationarity(value)))

    def tangent(self, value):
        every = jax.tree.map(jnp.ones_like, value)
        return Tangent(masked(jax.tree.map(lambda leaf: leaf > 0, every)), lambda v: v, every)


@pytest.mark.parametrize(
    ("gradient", "coupling"),
    [(Implicit(), 2.0), (Implicit(), 0.0), (Unrolled(), 0.0), (Truncated(30), 0.0)],
    ids=repr,
)
def test_trees_are_differentiated(gradient, coupling):
    init = {"a": jnp.zeros(3), "b": jnp.ones(())}

    def total(target):
        settings = {"tol": 1e-5, "max_steps": 100, "gradient": gradient}
        value = iterate(Picard(), PairOfMeans(target, coupling), init, **settings).value
        return value["a"][1] + value["b"]

    slope = jax.jit(jax.grad(total))(jnp.arange(3.0))
    np.testing.assert_allclose(slope, np.array([0, 1, 0]) + coupling, atol=1e-4)


def test_trace_records_the_start_and_every_step(x64):
    @jax.jit
    @partial(jax.value_and_grad, has_aux=True)
    def last(offset):
        states = trace(Picard(), Contraction(jnp.asarray(0.5), offset), jnp.asarray(0.0), 5)
        return states[-1], states

    (_, states), slope = last(1.0)
    np.testing.assert_allclose(states, 2 * (1 - 0.5 ** np.arange(6)))
    np.testing.assert_allclose(slope, 2 * (1 - 0.5**5))


def test_raise_unless_converged_names_the_first_failure():
    good = alone(0.5, 1.0, 0.0)
    assert raise_unless_converged(good) is good
    batch = mapped(*np.array([[0.5, 0.9999, np.nan, 0.5, 0.5, 0.5], [1] * 6, [0] * 6], np.float32))
    with pytest.raises(NotConvergedError, match=r"4 converged, 1 max_steps_reached, 1 nonfinite.*sample 1"):
        raise_unless_converged(batch)
    with pytest.raises(Exception, match="at least one sample did not converge"):
        jax.block_until_ready(jax.jit(lambda rate: raise_unless_converged(solve_200(rate, 1.0, 0.0)))(0.9999))


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
        jax.eval_shape(partial(solve, **settings), 0.5, 1.0)
    with pytest.raises(ValueError, match="n_steps: expected a whole number ≥ 1, got 0"):
        trace(Picard(), Contraction(jnp.asarray(0.5), jnp.asarray(1.0)), jnp.asarray(0.0), 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Truncated(0), "n_steps: expected a whole number ≥ 1, got 0"),
        (lambda: Truncated(True), r"n_steps: expected a whole number ≥ 1, got True"),
        (lambda: Implicit(tol=0.0), r"tol: expected a number > 0, got 0\.0"),
        (lambda: Implicit(tol=-1e-6), "tol: expected a number > 0, got -1e-06"),
        (lambda: Implicit(damping=0.0), r"damping: expected a number > 0, got 0\.0"),
        (lambda: Implicit(damping=-1.0), r"damping: expected a number > 0, got -1\.0"),
        (lambda: Implicit(max_steps=0), "max_steps: expected a whole number ≥ 1, got 0"),
    ],
)
def test_bad_gradients_are_named(make, message, untyped):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd, lambda f: jax.vmap(jax.grad(f))])
def test_a_problem_without_a_tangent_is_solved_and_not_differentiated(transform, untyped):
    """By default: the forward pass works, and a derivative names the choices when it is traced."""
    assert jax.eval_shape(solve, 0.5, 1.0).value.shape == ()
    rate = jnp.full(() if transform in (jax.grad, jax.jacfwd) else 3, 0.5)
    with pytest.raises(ValueError, match=r"got Contraction; pass gradient=Detached\(\) for a constant"):
        jax.eval_shape(transform(lambda rate: solve(rate, 1.0).value), rate)
