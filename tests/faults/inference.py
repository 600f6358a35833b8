"""Faults of inference, each with the input that showed it and the right value from an independent truth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from neurojax.convergence import Detached, Status, raise_unless_converged
from neurojax.penalties import L1, Cauchy, ElasticNet, GroupL2, SmoothL1
from neurojax.proximal import largest_eigenvalue
from neurojax.sparse_coding import (
    FISTA,
    ISTA,
    LCA,
    CoordinateDescent,
    Dictionary,
    SpaRSA,
    encode,
    encode_batch,
    encode_stream,
    matching_pursuit,
    orthogonal_matching_pursuit,
)

ATOMS = np.random.default_rng(0).normal(size=(12, 8))
ATOMS /= np.linalg.norm(ATOMS, axis=1, keepdims=True)
DATA = np.random.default_rng(1).normal(size=(5, 8))


@jax.jit
def by_every_solver(dictionary, xs, l1, l2):
    """Encode one datum by each solver, and several at once."""
    penalty = ElasticNet(l1, l2)
    solvers = ISTA(), FISTA(), SpaRSA(), LCA(), CoordinateDescent()
    alone = [encode(dictionary, xs[0], penalty, solver=s, gradient=Detached()) for s in solvers]
    return alone, encode_batch(dictionary, xs, penalty, gradient=Detached())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_A04_the_elastic_net_at_every_l2(dtype, x64):
    dictionary, xs = Dictionary(ATOMS.astype(dtype)), DATA.astype(dtype)
    tolerance = 1e-2 if dtype == np.float32 else 1e-4  # about √tol, where the gap alone is asked for
    for l2 in 0.1 * 10.0 ** np.arange(0, 11, 2):
        expected = np.linalg.solve(ATOMS @ ATOMS.T + l2 * np.eye(12), ATOMS @ DATA.T).T
        size = np.linalg.norm(expected, axis=1)
        for l1 in (0.0, 1e-9):
            alone, batch = by_every_solver(dictionary, xs, dtype(l1), dtype(l2))
            for solution in alone:
                assert solution.status == Status.converged, (l1, l2)
                assert np.linalg.norm(solution.value - expected[0]) <= tolerance * size[0], (l1, l2)
            assert np.all(batch.status == Status.converged)
            assert np.all(np.linalg.norm(batch.value - expected, axis=1) <= tolerance * size), (l1, l2)


def test_A04_the_snippet():
    dictionary, x = Dictionary(ATOMS.astype(np.float32)), DATA[0].astype(np.float32)
    solution = encode(dictionary, x, ElasticNet(0.0, 1e7))
    expected = np.linalg.solve(ATOMS @ ATOMS.T + 1e7 * np.eye(12), ATOMS @ DATA[0])
    np.testing.assert_allclose(solution.value, expected, rtol=1e-4, atol=1e-12)
    assert solution.status == Status.converged and solution.n_steps > 0


@eqx.filter_jit
def two_picks(pursuit, atoms, x):
    return pursuit(Dictionary(atoms), x, n_steps=2)


@pytest.mark.parametrize("pursuit", [matching_pursuit, orthogonal_matching_pursuit])
def test_A06_pursuits_at_any_scale(pursuit):
    x = np.array([3, 2, 1], np.float32)
    for of_data in (1.0, 1e-22, 1e19, 1e-30, 1e30):
        for of_atoms in (1.0, 1e-22, 1e-19, 1e-30, 1e19, 1e30):
            if not 1e-35 < of_data / of_atoms < 1e35:
                continue  # codes that the dtype does not hold
            atoms = np.eye(3, dtype=np.float32) * np.float32(of_atoms)
            found = two_picks(pursuit, atoms, x * np.float32(of_data))
            expected = np.array([3, 2, 0]) * (of_data / of_atoms)
            np.testing.assert_allclose(found.value, expected, rtol=1e-5)
            np.testing.assert_allclose(found.residual, 1 / np.sqrt(14), rtol=1e-5)
            assert found.n_steps == 2 and found.status == Status.converged


@pytest.mark.slow
def test_A06_codes_at_any_scale():
    """The restart of FISTA is a product of small numbers, so are the energies of SpaRSA."""
    one = at_scale(np.float32(1.0))
    for scale in (1e-30, 1e-22, 1e19, 1e30):
        for found, right in zip(at_scale(np.float32(scale)), one, strict=True):
            assert np.all(found.status == Status.converged)
            np.testing.assert_allclose(found.value / np.float32(scale), right.value, rtol=1e-3, atol=1e-4)
            assert np.all(abs(found.n_steps - right.n_steps) <= 10)


@jax.jit
def at_scale(scale):
    dictionary, xs = Dictionary(ATOMS.astype(np.float32)), scale * DATA.astype(np.float32)
    penalty, gradient = GroupL2(0.3 * scale, 2), Detached()
    return (
        encode(dictionary, xs[0], penalty, solver=FISTA(), gradient=gradient),
        encode(dictionary, xs[0], penalty, solver=SpaRSA(), gradient=gradient),
        encode_batch(dictionary, xs, penalty, gradient=gradient),
    )


@pytest.mark.parametrize("pursuit", [matching_pursuit, orthogonal_matching_pursuit])
def test_A07_the_steps_that_were_asked_for_are_no_failure(pursuit):
    solution = two_picks(pursuit, ATOMS.astype(np.float32), DATA[0].astype(np.float32))
    assert raise_unless_converged(solution).n_steps == 2
    assert np.sum(solution.value != 0) == 2
    broken = two_picks(pursuit, ATOMS.astype(np.float32), np.full(8, np.nan, np.float32))
    assert broken.status == Status.nonfinite


@pytest.mark.slow
def test_A08_infinite_strengths_at_zero():
    zeros = jnp.zeros(2)
    assert L1(jnp.inf).gradient(zeros).tolist() == [0, 0]
    assert L1(jnp.array([jnp.inf, 1.0])).gradient(zeros).tolist() == [0, 0]
    for penalty in (Cauchy(jnp.inf, 1.0), GroupL2(jnp.inf, 2), ElasticNet(1.0, jnp.inf)):
        assert penalty.value(zeros) == 0 and not np.any(penalty.gradient(zeros)), penalty


@pytest.mark.parametrize("max_steps", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (150, 2000))])
def test_A09_no_row_takes_more_steps_than_it_may(max_steps):
    """Hard rows: nearly equal atoms, and a weak penalty."""
    rng = np.random.default_rng(0)
    atoms = np.ones((24, 12)) + 0.05 * rng.normal(size=(24, 12))
    xs, penalty = rng.normal(size=(4, 12)).astype(np.float32), L1(1e-3)
    dictionary = Dictionary(atoms.astype(np.float32))
    batch = encode_batch(dictionary, xs, penalty, max_steps=max_steps, gradient=Detached())
    stream = encode_stream(dictionary, xs, penalty, max_steps=max_steps, batch_size=4)
    for solution in (batch, stream):
        is_spent = solution.status == Status.max_steps_reached
        assert np.any(is_spent) and np.all(solution.n_steps <= max_steps)
        assert np.all(solution.n_steps[is_spent] > max_steps - 10)


def test_A09_a_block_of_sparsa_counts_its_gradients():
    dictionary, x = Dictionary(ATOMS.astype(np.float32)), DATA[0].astype(np.float32)
    solution = encode(dictionary, x, L1(1e-3), solver=SpaRSA(block_size=3), max_steps=11, steps_per_check=5)
    assert solution.n_steps == 9 and solution.status == Status.max_steps_reached
    with pytest.raises(
        ValueError, match="max_steps: expected at least 4, the gradients of one step of SpaRSA"
    ):
        encode(dictionary, x, L1(0.1), solver=SpaRSA(), max_steps=3)


@pytest.mark.slow
def test_A13_a_tighter_tolerance_buys_closer_codes(x64):
    """From 1e-4 to 1e-6, which is near the floor of the gap in float32."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(32, 16))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    xs = rng.normal(size=(40, 16)).astype(np.float32)
    exact = np.stack([lasso(atoms.astype(float), x.astype(float), np.float32(0.3)) for x in xs])
    errors = []
    for tol in (1e-4, 1e-5, 1e-6):
        codes = encode_batch(Dictionary(atoms), xs, L1(0.3), tol=tol, gradient=Detached()).value
        errors.append(np.linalg.norm(codes - exact) / np.linalg.norm(exact))
    assert np.all(np.array(errors) <= [2e-3, 3e-4, 4e-5])
    assert np.all(np.divide(errors[:-1], errors[1:]) > 2)


def lasso(atoms, x, strength):
    """Return the minimizer of ½‖x − z @ atoms‖² + strength·‖z‖₁, by scikit-learn."""
    model = Lasso(strength / len(x), fit_intercept=False, tol=1e-14, max_iter=100_000)
    return model.fit(atoms.T, x).coef_


def test_A15_smooth_l1_of_large_coefficients():
    penalty = SmoothL1(1, 1e-7)
    assert penalty.gradient(1e20) == 1
    np.testing.assert_array_equal(penalty.gradient(jnp.array([1e20, -1e30])), [1, -1])
    np.testing.assert_allclose(penalty.value(jnp.array([1e20, -1e30])), 1e30, rtol=1e-6)


def test_A16_the_bound_of_the_largest_eigenvalue_is_close():
    """Random, coherent, low-rank, repeated and spread: above the truth, by half a percent at most."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(30, 20))
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    kinds = np.stack([
        unit, unit + 1, unit[:, :2] @ rng.normal(size=(2, 20)), np.eye(30, 20), np.zeros((30, 20)),
        plain * 10 ** rng.uniform(-3, 3, (30, 1)), np.repeat(unit[:3], 10, 0), 1e-9 * unit, 1e9 * unit,
    ]).astype(np.float32)  # fmt: skip
    found = bounds(kinds)
    for atoms, bound in zip(kinds.astype(float), found, strict=True):
        largest = np.linalg.eigvalsh(atoms @ atoms.T)[-1]
        assert largest <= bound <= 1.005 * largest + 1e-30


@jax.jit
@jax.vmap
def bounds(atoms):
    gram = jnp.matmul(atoms, atoms.T, precision="highest")
    return largest_eigenvalue(lambda u: gram @ u, atoms[:, 0])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)])
def test_B20_codes_in_half_precision(dtype):
    dictionary, xs = Dictionary(jnp.asarray(ATOMS, dtype)), jnp.asarray(DATA, dtype)
    atoms, data = (np.asarray(a.astype(jnp.float32), float) for a in (dictionary.atoms, xs))
    least = energies(atoms, data, [lasso(atoms, x, 0.1) for x in data])
    one = encode(dictionary, xs[0], L1(0.1), gradient=Detached())
    batch = encode_batch(dictionary, xs, L1(0.1), gradient=Detached())
    tol = 8 * float(jnp.finfo(dtype).eps)
    for solution, n in ((one, 1), (batch, 5)):
        assert solution.value.dtype == dtype and np.all(solution.status == Status.converged)
        assert solution.residual.dtype == jnp.float32 and np.all(solution.residual <= tol)
        codes = np.atleast_2d(np.asarray(solution.value.astype(jnp.float32), float))
        excess = energies(atoms, data[:n], codes) - least[:n]
        assert np.all(excess <= tol * np.sum(data[:n] ** 2, axis=1) / 2)
    for pursuit in (matching_pursuit, orthogonal_matching_pursuit):
        found = two_picks(pursuit, jnp.eye(3, dtype=dtype), jnp.array([3, 2, 1], dtype))
        assert found.value.dtype == dtype and found.value.tolist() == [3, 2, 0]
    for call, x in ((encode, xs[0]), (encode_batch, xs)):
        with pytest.raises(ValueError, match="tol: expected at least 8 machine epsilons of"):
            call(dictionary, x, L1(0.1), tol=1e-5)


def energies(atoms, xs, codes):
    return 0.5 * np.sum((xs - codes @ atoms) ** 2, axis=1) + 0.1 * np.sum(np.abs(codes), axis=1)
