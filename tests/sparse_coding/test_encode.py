"""Encoding one datum, batches and paths: certificates, statuses, composition, messages."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_data import whitened_patches
from conftest_encode import encode, encode_path, encode_rows, energy, lasso, relative_gap

from neurojax import sparse_coding
from neurojax.convergence import Detached, Status
from neurojax.penalties import L1, GroupL2, NonNegativeL1
from neurojax.sparse_coding import FISTA, AbstractDictionary, Dictionary, encode_batch


@pytest.mark.slow
def test_float32_certifies_whitened_patches():
    """Atoms that are patches themselves: far more alike than learned ones."""
    patches = whitened_patches(256 + 32, 8)
    atoms = patches[32:] / np.linalg.norm(patches[32:], axis=1, keepdims=True)
    solution = encode_batch(Dictionary(atoms), patches[:32], L1(0.5), tol=1e-5)
    assert solution.value.dtype == jnp.float32
    assert np.all(solution.status == Status.converged)
    rows = zip(patches, solution.value, strict=False)
    gaps = [relative_gap(atoms.astype(float), x, code, 0.5) for x, code in rows]
    # The float32 gap has a floor of about 3e-7; beyond it the certificate holds in float64.
    assert np.max(gaps) <= 1e-5 + 5e-7


def one(atoms, x, strength, init):
    """Encode by the default solver; return the solution, and the tangent of its value in all arguments."""

    def code(*point):
        atoms, x, strength, init = point
        solution = sparse_coding.encode(
            Dictionary(atoms), x, L1(strength), init=init, max_steps=50000, gradient=Detached()
        )
        return solution.value, solution

    point = atoms, x, strength, init
    _, tangent, solution = jax.jvp(code, point, jax.tree.map(jnp.ones_like, point), has_aux=True)
    return solution, tangent


alone, mapped = jax.jit(one), jax.jit(jax.vmap(one))


def eight(atoms, xs, strengths=0.1, init=0.0):
    """Encode eight data, each with its own dictionary, strengths and start; return the solutions."""
    shapes = (8, 30, 20), (8, 20), (8, 30), (8, 30)
    arguments = zip((atoms, xs, strengths, init), shapes, strict=True)
    solution, tangent = mapped(*(np.array(np.broadcast_to(a, shape), float) for a, shape in arguments))
    assert not np.any(tangent)  # detached
    return jax.device_get(solution)


def test_vmap_is_the_loop_and_the_batch(small, x64):
    """Also under ``vmap`` over dictionaries, which the batch does not take."""
    atoms, xs = small
    scales = np.linspace(0.8, 2, 8)
    own = atoms * scales[:, None, None]
    found, same = eight(own, xs), eight(atoms, xs)
    for i, x in enumerate(xs):
        one_code, tangent = alone(own[i], x, np.full(30, 0.1), np.zeros(30))
        np.testing.assert_allclose(found.value[i], one_code.value, atol=1e-12)
        assert found.n_steps[i] == one_code.n_steps and not np.any(tangent)
    batch = encode_batch(Dictionary(atoms), xs, L1(0.1), solver=FISTA(), max_steps=50000)
    np.testing.assert_allclose(batch.value, same.value, atol=1e-12)
    np.testing.assert_array_equal(batch.n_steps, same.n_steps)
    exact = np.array([lasso(atoms, x, 0.1) for x in xs])
    np.testing.assert_allclose(same.value, exact, atol=1e-4)
    np.testing.assert_array_equal(eight(atoms, xs, init=exact).n_steps, 0)


def test_broken_and_zero_data_zero_and_infinite_strengths(small, x64):
    atoms, xs = small
    strengths, init, data = np.full((8, 30), 0.1), np.zeros((8, 30)), xs.copy()
    data[0] = data[1] = 0
    init[1] = 1
    data[2, 3], data[3, 0] = np.nan, np.inf
    strengths[4] = 0
    strengths[5, 7] = np.inf
    solution = eight(atoms, data, strengths, init)
    expected = [0, 0, Status.nonfinite, Status.nonfinite, 0, 0, 0, 0]
    np.testing.assert_array_equal(solution.status, expected)
    assert not np.any(solution.value[0]) and np.max(np.abs(solution.value[1])) < 1e-8
    np.testing.assert_allclose(solution.value[4] @ atoms, xs[4], atol=1e-6)
    # An infinite strength forbids an atom.
    free = np.arange(30) != 7
    assert solution.value[5, 7] == 0
    np.testing.assert_allclose(solution.value[5, free], lasso(atoms[free], xs[5], 0.1), atol=1e-4)
    np.testing.assert_array_equal(solution.value[6:], eight(atoms, xs).value[6:])


def test_a_path_is_the_sweep_in_fewer_steps_and_in_the_wider_precision(small, x64):
    """With atoms and a start in single precision, and a datum in double precision."""
    atoms, x = small[0].astype(np.float32), small[1][0]
    strengths = np.geomspace(np.max(np.abs(atoms @ x)) * (1 + 1e-9), 0.02, 8)
    path = encode_path(Dictionary(atoms), x, L1(strengths), init=np.zeros(30, np.float32))
    assert path.value.dtype == jnp.float64
    assert not np.any(path.value[0]) and np.all(path.status == Status.converged)
    rows = zip(path.value, strengths, strict=True)
    assert max(relative_gap(atoms.astype(float), x, code, strength) for code, strength in rows) <= 1.01e-10
    swept = eight(atoms, x, strengths[:, None])
    np.testing.assert_allclose(path.value, swept.value, atol=1e-5)
    assert np.sum(path.n_steps) <= np.sum(swept.n_steps)


def test_gradient_through_a_detached_code_is_the_envelope(small, x64):
    """The code counts as a constant: the energy's slope is the minimum's, and a code by itself has none."""
    atoms, xs = small
    probe = np.random.default_rng(1).normal(size=30)

    @jax.jit
    @jax.vmap
    @partial(jax.value_and_grad, has_aux=True)
    def optimum(atoms):
        dictionary = Dictionary(atoms)
        code = sparse_coding.encode(dictionary, xs[0], L1(0.1), tol=1e-13, gradient=Detached()).value
        least = energy(dictionary, xs[0], code, L1(0.1))
        return least + probe @ code, (least, code)

    step = np.random.default_rng(0).normal(size=atoms.shape)
    (_, (least, codes)), slopes = optimum(np.stack([atoms, atoms + 1e-5 * step, atoms - 1e-5 * step]))
    code = np.asarray(codes[0])
    np.testing.assert_allclose(slopes[0], -np.outer(code, xs[0] - code @ atoms), atol=1e-12)
    np.testing.assert_allclose(np.sum(slopes[0] * step), (least[1] - least[2]) / 2e-5, rtol=1e-6)


def test_bad_input_is_named(small, untyped):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    cases = [
        (lambda: encode(dictionary, xs, L1(0.1)), r"x: expected 1 axes \(features\), got shape \(8, 20\)"),
        (lambda: encode(dictionary, xs[0][:5], L1(0.1)), r"x: expected 20 features .* got shape \(5,\)"),
        (lambda: encode(dictionary, np.ones(20) + 0j, L1(0.1)), "x: expected real .* got dtype complex"),
        (lambda: encode(dictionary, xs[0], L1(0.1), tol=0.0), "tol: expected a number > 0, got 0.0"),
        (lambda: encode(dictionary, xs[0], L1(0.1), tol=1e-7), "tol: expected at least 8 machine epsilons"),
        (lambda: encode(dictionary, xs[0], L1(0.1), max_steps=0), "max_steps: expected a whole number ≥ 1"),
        (lambda: encode(dictionary, xs[0], L1(-0.1)), "strength: .*-0.1"),
        (
            lambda: encode(dictionary, xs[0], L1(0.1), init=np.ones(7)),
            r"init: expected shape \(30,\), .*\(7,\)",
        ),
        (lambda: encode(dictionary, xs[0], GroupL2(0.1, 7)), "group_size"),
        (lambda: encode_batch(dictionary, xs[0], L1(0.1)), r"xs: expected 2 axes .* got shape \(20,\)"),
        (lambda: encode_batch(dictionary, xs[:0], L1(0.1)), r"xs: expected at least one row"),
        (lambda: encode_batch(dictionary, xs[:, :3], L1(0.1)), r"expected 20 features .* got shape"),
        (
            lambda: encode_batch(dictionary, xs, L1(0.1), init=np.ones((3, 30))),
            "init: expected 8 rows as in xs",
        ),
        (lambda: encode_path(dictionary, xs[0], L1(0.1)), "penalties: expected strengths with one common"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    # A dictionary that went bad after its construction is caught by the entry point that sees values.
    broken = eqx.tree_at(lambda d: d.atoms, dictionary, atoms * (np.arange(30) != 3)[:, None])
    with pytest.raises(ValueError, match="got 1 that are zero; the first is row 3"):
        encode_batch(broken, xs, L1(0.1))


@pytest.mark.parametrize(
    ("solver", "penalty"),
    [
        (FISTA(backtracking=True), L1),
        pytest.param(FISTA(), partial(GroupL2, group_size=3), marks=pytest.mark.slow),
    ],
    ids=["backtracking", "group"],
)
def test_the_unit_of_the_data_changes_nothing(solver, penalty, small):
    atoms, xs = (np.asarray(a, np.float32) for a in small)

    @jax.jit
    @jax.vmap
    def scaled(unit):
        return encode(Dictionary(atoms), xs[0] * unit, penalty(0.1 * unit), solver=solver)

    units = np.float32([1, 1e-20, 1e20])
    solution = scaled(units)
    assert np.all(solution.status == Status.converged) and np.any(solution.value[0])
    codes = np.asarray(solution.value) / units[:, None]
    np.testing.assert_allclose(codes[1:], codes[[0, 0]], atol=2e-3)


def test_a_start_outside_the_domain_is_left_not_broken(small, x64):
    atoms, xs = small
    start = -np.ones((8, 30))
    solution = encode_rows(atoms, xs, NonNegativeL1(0.1), start, tol=1e-13)
    assert np.all(solution.status == Status.converged)
    expected = [lasso(atoms, x, 0.1, positive=True) for x in xs]
    np.testing.assert_allclose(solution.value, expected, atol=1e-6)


class Circular(AbstractDictionary):
    """Every shift of every kernel, on a ring: codes have two axes, and there is no Gram matrix."""

    kernels: jax.Array

    def reconstruct(self, code):
        return jnp.sum(
            jnp.fft.irfft(jnp.fft.rfft(code) * jnp.fft.rfft(self.kernels), self.kernels.shape[1]), 0
        )

    def correlate(self, x):
        return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.conj(jnp.fft.rfft(self.kernels)), self.kernels.shape[1])

    def gram(self):
        return None

    def empty_code(self, x):
        return jnp.zeros(self.kernels.shape, x.dtype)


def test_a_dictionary_needs_no_more_than_its_four_methods(small, x64):
    kernels = np.random.default_rng(0).normal(size=(3, 20)) / 4
    matrix = np.concatenate([[np.roll(kernel, shift) for shift in range(20)] for kernel in kernels])
    x = small[1][0]
    solution = encode(Circular(jnp.asarray(kernels)), x, L1(0.1))
    assert solution.status == Status.converged and solution.value.shape == (3, 20)
    assert relative_gap(matrix, x, np.ravel(solution.value), 0.1) <= 1.01e-10
