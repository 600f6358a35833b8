"""A small problem whose derivatives are known in closed form, and a solver of it, for `test_gradients`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from conftest_gradients import repeat
from jaxtyping import Array

from neurojax.convergence import AbstractSolver, AbstractStationaryProblem, Tangent, iterate, masked


class Bowl(AbstractStationaryProblem):
    """Minimise ½‖z·root‖² + bend·Σ ln cosh zᵢ − target·z over the entries that are free; the others are 0.

    The residual is in units of ``tol``: one compiled function serves every tolerance.
    """

    root: Array
    target: Array
    bend: Array
    free: Array
    tol: Array

    def stationarity(self, value):
        return value @ self.root @ self.root.T + self.bend * jnp.tanh(value) - self.target

    def fixed_point(self, value):
        bound = jnp.sum(self.root**2) + self.bend
        return jnp.where(self.free, value - self.stationarity(value) / bound, 0)

    def residual(self, value):
        return jnp.max(jnp.abs(jnp.where(self.free, self.stationarity(value), 0))) / self.tol

    def tangent(self, value):
        _, hessian = jax.linearize(self.stationarity, value)
        return Tangent(masked(self.free), hessian, jnp.sum(self.root**2, axis=-1) + self.bend)


class HeavyBallState(NamedTuple):
    value: Array
    velocity: Array
    count: Array


class HeavyBall(AbstractSolver):
    """z ← T(z) + rate·(last change), with a count beside it that no derivative passes through."""

    rate: Array

    def init(self, problem, value):
        return HeavyBallState(value, jnp.zeros_like(value), jnp.int32(0))

    def step(self, problem, state):
        velocity = problem.fixed_point(state.value) - state.value + self.rate * state.velocity
        return HeavyBallState(state.value + velocity, velocity, state.count + 1)

    def value(self, state):
        return state.value


class Learner(NamedTuple):
    """Everything that a solution may depend on."""

    root: Any
    target: Any
    bend: Any
    init: Any
    rate: Any


class Case(NamedTuple):
    """A problem, and where and how well it is solved; under ``vmap`` every leaf has a leading axis."""

    learner: Learner
    free: Any
    tol: Any
    weight: Any


N, BATCH = 4, 12
WEIGHT = np.random.default_rng(9).normal(size=N)


def cases() -> Case:
    """Return one healthy case ``BATCH`` times, for tests to change some rows of it."""
    rng = np.random.default_rng(0)
    root, target = rng.normal(size=(N, N)) / 2 + np.eye(N), rng.normal(size=N)
    learner = Learner(root, target, np.array(0.5), rng.normal(size=N) * [1, 1, 0, 1], np.array(0.3))
    case = Case(learner, np.array([True, True, False, True]), np.array(1e-13), WEIGHT)
    return repeat(case, BATCH)


def cases_of_all_lengths() -> Case:
    """Return cases that run out of steps (the first), end at once (the next), and after ever more steps."""
    batch = cases()
    batch.tol[1:] = [1e3, *np.logspace(-1, -12, BATCH - 2)]
    batch.learner.root[0], batch.learner.bend[0] = np.diag([1, 0.01, 1, 0.02]), 0
    return batch


def solve(learner, free, tol, gradient, max_steps=399, every=3):
    problem = Bowl(learner.root, learner.target, learner.bend, free, tol)
    settings = {"tol": 1.0, "max_steps": max_steps, "steps_per_check": every, "gradient": gradient}
    return iterate(HeavyBall(learner.rate), problem, learner.init, **settings)


def hessian_of(learner, value):
    return learner.root @ learner.root.T + np.diag(learner.bend / np.cosh(value) ** 2)
