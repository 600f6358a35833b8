"""Energy, correlation and the certificate, against NumPy and against scikit-learn's duality gap."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_encode import duality_gap, encode, energy
from scipy.optimize import minimize

from neurojax.penalties import L1, ElasticNet, Log, NonNegativeL1, SmoothL1
from neurojax.sparse_coding import (
    Dictionary,
    correlate,
    encode_batch,
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


PENALTIES = [
    (L1(0.2), lambda z: 0.2 * np.abs(z).sum()),
    (NonNegativeL1(0.2), lambda z: 0.2 * z.sum()),
    (ElasticNet(0.2, 0.5), lambda z: 0.2 * np.abs(z).sum() + 0.25 * np.sum(z**2)),
    (L1(jnp.linspace(0.1, 0.4, 30)), lambda z: np.sum(np.linspace(0.1, 0.4, 30) * np.abs(z))),
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
    dictionary = Dictionary(atoms)
    solution = encode(dictionary, x, penalty)
    best = energy(dictionary, x, solution.value, penalty)
    np.testing.assert_allclose(best, 0.5 * np.sum((x - solution.value @ atoms) ** 2) + value(solution.value))
    assert best <= found.fun + 1e-10
    np.testing.assert_allclose(best, found.fun, rtol=1e-5)
    assert 0 <= duality_gap(dictionary, x, solution.value, penalty) <= 1e-10 * 0.5 * np.sum(x**2)
    for seed in range(20):
        code = np.abs(np.random.default_rng(seed).normal(size=n)) * 10.0 ** (seed % 5 - 3)
        excess = energy(dictionary, x, code, penalty) - best
        gap = duality_gap(dictionary, x, code, penalty)
        assert gap >= excess * (1 - 1e-9) - 1e-12


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
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    dictionary = Dictionary(atoms)
    codes = encode_batch(dictionary, xs, L1(0.1)).value
    gaps = jax.vmap(lambda x, z: duality_gap(dictionary, x, z, L1(0.1)))(xs, codes)
    assert gaps.dtype == jnp.float32 and bool(jnp.all(gaps >= 0))


def test_gap_of_a_negative_code_under_nonnegative_l1_is_infinite(small):
    atoms, xs = small
    assert duality_gap(Dictionary(atoms), xs[0], -jnp.ones(30), NonNegativeL1(0.1)) == jnp.inf


def test_max_strength_is_where_the_code_vanishes(small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    for penalty, strength in [
        (L1, max_strength(dictionary, xs[2])),
        (NonNegativeL1, max_strength(dictionary, xs[2], nonnegative=True)),
    ]:
        assert not np.any(encode(dictionary, xs[2], penalty(strength * (1 + 1e-9))).value)
        assert np.any(encode(dictionary, xs[2], penalty(strength * 0.999)).value)


def test_normalized_atoms_have_unit_length(small):
    atoms, _ = small
    lengths = jnp.linalg.norm(normalize_atoms(Dictionary(3 * atoms)).atoms, axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    drawn = random_dictionary(jax.random.key(0), 50, 40)
    np.testing.assert_allclose(jnp.linalg.norm(drawn.atoms, axis=1), 1, rtol=1e-6)
    slope = jax.grad(lambda a: jnp.sum(normalize_atoms(eqx.tree_at(lambda d: d.atoms, drawn, a)).atoms))
    assert np.all(np.isfinite(slope(drawn.atoms.at[3].set(0))))
    assert abs(float(jnp.mean(drawn.atoms))) < 4 / np.sqrt(2000 * 40)


def test_dictionary_keeps_its_dtype_and_works_under_transformations(small, x64):
    atoms, xs = small
    for dtype in (jnp.float32, jnp.float64):
        dictionary = Dictionary(jnp.asarray(atoms, dtype))
        assert energy(dictionary, jnp.asarray(xs[0], dtype), jnp.ones(30, dtype), L1(0.1)).dtype == dtype
    slope = jax.grad(lambda a: energy(Dictionary(a), xs[0], jnp.ones(30), L1(0.1)))(jnp.asarray(atoms))
    np.testing.assert_allclose(slope, -np.outer(np.ones(30), xs[0] - atoms.sum(0)), rtol=1e-10)


def test_bad_dictionaries_and_arguments_are_named(small, untyped):
    atoms, xs = small
    with pytest.raises(ValueError, match=r"atoms: expected 2 axes \(atoms features\), got shape \(20,\)"):
        Dictionary(atoms[0])
    with pytest.raises(ValueError, match="atoms: expected real floating-point numbers, got dtype int"):
        Dictionary(np.ones((3, 2), int))
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
