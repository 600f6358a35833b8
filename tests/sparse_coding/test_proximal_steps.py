"""FISTA step by step against a plain loop; the unit of movements, and the gap that solvers watch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax._rows import relative_norm
from neurojax.convergence import trace
from neurojax.penalties import L1, ElasticNet, NonNegativeL1
from neurojax.sparse_coding import FISTA, Dictionary
from neurojax.sparse_coding._problem import make_problem

N_STEPS, STRENGTH = 12, 0.1
FAR = jnp.asarray(jnp.inf)  # a movement, which certified penalties do not look at


def fista_in_numpy(gram, drive, lipschitz):
    """Beck & Teboulle 2009, eqs. 4.1 to 4.3, restarted where the momentum points uphill."""
    value = point = np.zeros_like(drive)
    age, values = 1.0, [value]
    for _ in range(N_STEPS):
        v = point - (point @ gram - drive) / lipschitz
        new = np.sign(v) * np.maximum(np.abs(v) - STRENGTH / lipschitz, 0)
        is_uphill = (point - new) @ (new - value) > 0
        next_age = 1.0 if is_uphill else (1 + np.sqrt(1 + 4 * age**2)) / 2
        momentum = 0.0 if is_uphill else (age - 1) / next_age
        point, value, age = new + momentum * (new - value), new, next_age
        values.append(value)
    return np.stack(values)


def test_fista_takes_the_published_steps(x64):
    rng = np.random.default_rng(0)
    atoms, x = rng.normal(size=(5, 8)), rng.normal(size=8)
    problem = make_problem(Dictionary(atoms), x, L1(STRENGTH), use_gram=True)
    expected = fista_in_numpy(atoms @ atoms.T, atoms @ x, float(problem.lipschitz))
    found = trace(FISTA(), problem, jnp.zeros(5), N_STEPS).value
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lengths, expected", [((10.0, 2.0), 0.5), ((2.0, 10.0), 0.5), ((0.0, 0.0), 5.0)])
def test_a_movement_is_measured_in_the_largest_length(lengths, expected):
    found = relative_norm(jnp.array([3.0, 4.0]), *map(jnp.asarray, lengths))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("penalty", [L1(0.3), NonNegativeL1(0.3), ElasticNet(0.3, 0.2)], ids=repr)
@pytest.mark.parametrize("use_gram", [True, False])
def test_the_gap_that_solvers_watch_is_the_gap_that_certifies(penalty, use_gram, x64):
    rng = np.random.default_rng(1)
    atoms, x = rng.normal(size=(4, 6)), rng.normal(size=6)
    shrunk = np.linalg.lstsq(atoms.T, x)[0]  # its pulls are below the strength
    codes = [np.zeros(4), np.abs(shrunk), rng.uniform(size=4), 100 * np.abs(shrunk)]
    if not isinstance(penalty, NonNegativeL1):
        assert np.all(np.abs((x - shrunk @ atoms) @ atoms.T) < 0.3)
        codes.append(shrunk)

    @jax.jit
    def both(codes):
        problem = make_problem(Dictionary(atoms), x, penalty, use_gram=use_gram)

        def one(code):
            watched = problem.residual_at(problem.smooth.point(code), FAR)
            return watched, problem.residual(code)

        return jax.vmap(one)(codes)

    watched, certified = both(np.array(codes))
    np.testing.assert_allclose(watched, certified, rtol=1e-9, atol=1e-12)
