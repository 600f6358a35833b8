"""Energy, correlation and the certificate, against NumPy and against scikit-learn's duality gap."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import duality_gap, energy, lasso
from scipy.optimize import minimize

from neurojax.penalties import L1, ElasticNet, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import (
    Dictionary,
    correlate,
    max_strength,
    normalize_atoms,
    random_dictionary,
    reconstruct,
)


def test_energy_is_the_docstring_formula(small, x64):
    atoms, xs = small
    code = np.random.default_rng(1).normal(size=30)
    expected = 0.5 * np.sum((xs[0] - code @ atoms) ** 2) + 0.3 * np.abs(code).sum()
    np.testing.assert_allclose(energy(Dictionary(atoms), xs[0], code, L1(0.3)), expected, rtol=1e-12)
    np.testing.assert_allclose(reconstruct(Dictionary(atoms), code), code @ atoms, rtol=1e-12)
    np.testing.assert_allclose(correlate(Dictionary(atoms), xs[0]), atoms @ xs[0], rtol=1e-12)


@eqx.filter_jit
def energies_and_gaps(atoms, x, codes, penalty):
    dictionary = Dictionary(atoms)
    return jax.vmap(lambda z: (energy(dictionary, x, z, penalty), duality_gap(dictionary, x, z, penalty)))(
        codes
    )


PENALTIES = [
    (L1(np.full(30, 0.2)), lambda z: 0.2 * np.abs(z).sum()),
    (NonNegativeL1(0.2), lambda z: 0.2 * z.sum()),
    (ElasticNet(0.2, 0.5), lambda z: 0.2 * np.abs(z).sum() + 0.25 * np.sum(z**2)),
    (L1(np.linspace(0.1, 0.4, 30)), lambda z: np.sum(np.linspace(0.1, 0.4, 30) * np.abs(z))),
]


@pytest.mark.parametrize(("penalty", "value"), PENALTIES)
def test_gap_bounds_the_excess_and_vanishes_at_the_minimum(penalty, value, small, x64):
    """The minimum is found by SciPy on the split z = p − q with p, q ≥ 0, a smooth bounded problem."""
    atoms, xs = small
    x, n = xs[0], 30
    has_negative = not isinstance(penalty, NonNegativeL1)

    def split_energy(pq):
        z = pq[:n] - (pq[n:] if has_negative else 0)
        magnitude = pq[:n] + (pq[n:] if has_negative else 0)
        l2 = 0.25 * np.sum(z**2) if isinstance(penalty, ElasticNet) else 0.0
        strength = np.asarray(penalty.l1 if isinstance(penalty, ElasticNet) else penalty.strength)
        return 0.5 * np.sum((x - z @ atoms) ** 2) + np.sum(strength * magnitude) + l2

    size = 2 * n if has_negative else n
    found = minimize(split_energy, np.full(size, 0.1), bounds=[(0, None)] * size, method="L-BFGS-B",
                     options={"maxiter": 20000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-9})  # fmt: skip
    solved = found.x[:n] - (found.x[n:] if has_negative else 0)
    # SciPy leaves the last digits, which coordinate descent finds.
    l1, l2 = (penalty.l1, 0.5) if isinstance(penalty, ElasticNet) else (penalty.strength, 0)
    l1 = np.broadcast_to(l1, n)
    for i in np.tile(np.arange(n), 1000):
        pull = (x - solved @ atoms) @ atoms[i] + solved[i]  # for an atom of length 1
        size = max((abs(pull) if has_negative else pull) - l1[i], 0)
        solved[i] = np.sign(pull) * size / (1 + l2)
    drawn = [np.abs(np.random.default_rng(i).normal(size=n)) * 10.0 ** (i % 5 - 3) for i in range(20)]
    energies, gaps = energies_and_gaps(atoms, x, np.array([solved, *drawn]), penalty)
    np.testing.assert_allclose(energies[0], 0.5 * np.sum((x - solved @ atoms) ** 2) + value(solved))
    np.testing.assert_allclose(energies[0], found.fun, rtol=1e-5)
    assert energies[0] <= found.fun + 1e-10
    assert 0 <= gaps[0] <= 1e-12 * np.sum(x**2)
    assert np.all(gaps >= (energies - found.fun) * (1 - 1e-9) - 1e-12)


def test_l1_gap_equals_scikit_learns(small, x64):
    from sklearn.linear_model import enet_path

    atoms, xs = small
    for strength in (0.05, 0.3):
        _, coefficients, gaps = enet_path(
            atoms.T, xs[1], l1_ratio=1.0, alphas=[strength / 20], max_iter=3, tol=1e-30
        )
        gap = duality_gap(Dictionary(atoms), xs[1], coefficients[:, 0], L1(strength))
        np.testing.assert_allclose(gap, gaps[0] * 20, rtol=1e-6)


def test_gap_is_never_negative_in_float32(small):
    """Next to the minimum, where rounding decides."""
    atoms, xs = (a.astype(np.float32) for a in small)
    codes = np.array([lasso(*(a.astype(float) for a in (atoms, x)), 0.1) for x in xs]).astype(np.float32)
    near = codes * (1 + 1e-6 * np.random.default_rng(0).normal(size=(50, 1, 30))).astype(np.float32)
    for x, some in zip(xs, np.swapaxes(near, 0, 1), strict=True):
        gaps = energies_and_gaps(atoms, x, some, L1(np.full(30, 0.1, np.float32)))[1]
        assert gaps.dtype == np.float32 and np.all(gaps >= 0)


def test_gap_of_a_negative_code_under_nonnegative_l1_is_infinite(small):
    atoms, xs = small
    assert duality_gap(Dictionary(atoms), xs[0], -jnp.ones(30), NonNegativeL1(0.1)) == jnp.inf


def test_max_strength_is_where_the_code_vanishes(small, x64):
    """At z = 0 no atom's pull is above it, and the strongest is at it."""
    atoms, xs = small
    for x in xs[:3]:
        pull = atoms @ x
        assert np.any(pull < 0)
        np.testing.assert_allclose(max_strength(Dictionary(atoms), x), np.max(np.abs(pull)), rtol=1e-12)
        only_positive = max_strength(Dictionary(atoms), x, nonnegative=True)
        np.testing.assert_allclose(only_positive, np.max(pull), rtol=1e-12)
    assert not np.any(lasso(atoms, xs[2], np.max(np.abs(atoms @ xs[2])) * (1 + 1e-9)))
    assert np.any(lasso(atoms, xs[2], np.max(np.abs(atoms @ xs[2])) * 0.999))


def test_normalized_atoms_have_unit_length_and_finite_slopes():
    drawn = eqx.filter_jit(random_dictionary)(jax.random.key(0), 50, 40)
    np.testing.assert_allclose(np.linalg.norm(drawn.atoms, axis=1), 1, rtol=1e-6)
    assert abs(float(np.mean(drawn.atoms))) < 4 / np.sqrt(2000 * 40)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def slope(atoms):
        atoms = normalize_atoms(eqx.tree_at(lambda d: d.atoms, drawn, atoms)).atoms
        return jnp.sum(atoms), atoms

    is_third = np.arange(50)[:, None] == 3
    slopes, normal = slope(np.where(is_third, 0, 3 * np.asarray(drawn.atoms)))
    assert np.all(np.isfinite(slopes))
    np.testing.assert_allclose(np.delete(normal, 3, 0), np.delete(drawn.atoms, 3, 0), rtol=1e-5)


def test_dictionary_keeps_its_dtype_and_works_under_transformations(small, x64):
    atoms, xs = small
    for dtype in (jnp.float32, jnp.float64):
        code, energy_of = np.ones(30, dtype), partial(energy, Dictionary(atoms.astype(dtype)))
        assert jax.eval_shape(energy_of, xs[0].astype(dtype), code, L1(0.1)).dtype == dtype
    slope = jax.jit(jax.grad(lambda a: energy(Dictionary(a), xs[0], jnp.ones(30), L1(0.1))))(atoms)
    np.testing.assert_allclose(slope, -np.outer(np.ones(30), xs[0] - atoms.sum(0)), rtol=1e-10)


def test_bad_dictionaries_and_arguments_are_named(small, untyped):
    atoms, xs = small
    with pytest.raises(ValueError, match=r"atoms: expected 2 axes \(atoms features\), got shape \(20,\)"):
        Dictionary(atoms[0])
    with pytest.raises(ValueError, match="atoms: expected real numbers, got dtype complex"):
        Dictionary(np.ones((3, 2), complex))
    with pytest.raises(ValueError, match="got 1 that are zero; the first is row 2"):
        Dictionary(atoms * (np.arange(30) != 2)[:, None])
    with pytest.raises(ValueError, match="got 2 that are not finite; the first is row 4"):
        Dictionary(np.where(np.isin(np.arange(30), [4, 9])[:, None], np.nan, atoms))
    dictionary = Dictionary(atoms)
    with pytest.raises(
        ValueError, match=r"x: expected 20 features of the dictionary on axis -1, got shape \(7,\)"
    ):
        energy(dictionary, np.ones(7), np.ones(30), L1(0.1))
    for function in (energy, duality_gap):
        with pytest.raises(ValueError, match=r"code: expected shape \(30,\), .* got shape \(8, 30\)"):
            function(dictionary, xs[0], np.ones((8, 30)), L1(0.1))
    with pytest.raises(ValueError, match="energy: expected a penalty with a value, got Log"):
        energy(dictionary, xs[0], np.ones(30), Log(0.1))
    with pytest.raises(ValueError, match=r"penalty: expected one with a duality gap .*got SmoothL1"):
        duality_gap(dictionary, xs[0], np.ones(30), SmoothL1(0.1, 1e-7))
