"""Encoding one datum, batches, paths and streams: certificates, statuses, composition, messages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_data import whitened_patches
from conftest_encode import duality_gap, encode, encode_path, energy

from neurojax.convergence import Status
from neurojax.penalties import L1, GroupL2, NonNegativeL1
from neurojax.sparse_coding import (
    FISTA,
    AbstractDictionary,
    CoordinateDescent,
    Dictionary,
    encode_batch,
    encode_stream,
    max_strength,
)


@pytest.mark.parametrize("n_atoms", [100, 1024])
def test_float32_certifies_whitened_patches(n_atoms):
    """Atoms that are patches themselves: far more alike than learned ones."""
    patches = whitened_patches(n_atoms + 32, 16)
    atoms = patches[32:] / np.linalg.norm(patches[32:], axis=1, keepdims=True)
    dictionary, xs, penalty = Dictionary(atoms), jnp.asarray(patches[:32]), L1(0.5)
    solution = encode_batch(dictionary, xs, penalty, tol=1e-5)
    assert solution.value.dtype == jnp.float32
    assert np.all(solution.status == Status.converged)
    with jax.enable_x64(True):
        exact = Dictionary(np.asarray(atoms, np.float64))
        gaps = jax.vmap(lambda x, z: duality_gap(exact, x, z, L1(0.5)))(
            np.asarray(xs, np.float64), np.asarray(solution.value, np.float64)
        )
        relative = gaps / (0.5 * np.sum(np.asarray(xs, np.float64) ** 2, axis=1))
    # The float32 gap has a floor of about 3e-7; beyond it the certificate holds in float64.
    assert np.max(np.asarray(relative)) <= 1e-5 + 5e-7


def test_vmap_is_the_loop_and_the_batch(small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    batch = encode_batch(dictionary, xs, L1(0.1), solver=FISTA())
    mapped = jax.jit(jax.vmap(lambda x: encode(dictionary, x, L1(0.1))))(xs)
    for i, x in enumerate(xs):
        alone = encode(dictionary, x, L1(0.1))
        for other in (batch, mapped):
            np.testing.assert_allclose(other.value[i], alone.value, atol=1e-12)
            assert other.n_steps[i] == alone.n_steps


def test_a_broken_row_ends_alone(small):
    atoms, xs = (np.asarray(a, np.float32) for a in small)
    dictionary = Dictionary(atoms)
    broken = xs.copy()
    broken[2, 3], broken[5, 0] = np.nan, np.inf
    clean, dirty = encode_batch(dictionary, xs, L1(0.1)), encode_batch(dictionary, broken, L1(0.1))
    bad = np.isin(np.arange(8), [2, 5])
    assert np.all(dirty.status == np.where(bad, Status.nonfinite, Status.converged))
    np.testing.assert_array_equal(dirty.value[~bad], clean.value[~bad])


def test_zero_datum_and_zero_strength(small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    nothing = encode(dictionary, np.zeros(20), L1(0.1))
    assert nothing.status == Status.converged and not np.any(nothing.value)
    forgotten = encode(dictionary, np.zeros(20), L1(0.1), init=np.ones(30))
    assert forgotten.status == Status.converged and np.max(np.abs(forgotten.value)) < 1e-8
    free = encode(dictionary, xs[0], L1(0.0), max_steps=50000)
    assert free.status == Status.converged
    np.testing.assert_allclose(free.value @ atoms, xs[0], atol=1e-6)


def test_running_out_of_steps_is_a_status(small):
    atoms, xs = small
    solution = encode(Dictionary(atoms), xs[0], L1(0.01), max_steps=3)
    assert solution.status == Status.max_steps_reached and solution.n_steps == 3
    assert solution.residual > 1e-5


def test_sweep_over_strengths_is_one_vmap_and_path_agrees(small, x64):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    strengths = jnp.geomspace(max_strength(dictionary, xs[0]), 0.02, 8)
    swept = jax.vmap(lambda s: encode(dictionary, xs[0], L1(s)))(strengths)
    path = encode_path(dictionary, xs[0], L1(strengths))
    np.testing.assert_allclose(path.value, swept.value, atol=1e-5)
    assert not np.any(path.value[0]) and np.all(path.status == Status.converged)
    assert np.sum(path.n_steps) <= np.sum(swept.n_steps)


def test_gradient_through_a_detached_code_is_the_envelope(small, x64):
    atoms, xs = small

    def optimum(a):
        dictionary = Dictionary(a)
        return energy(dictionary, xs[0], encode(dictionary, xs[0], L1(0.1), tol=1e-13).value, L1(0.1))

    slope = jax.grad(optimum)(jnp.asarray(atoms))
    step = np.random.default_rng(0).normal(size=atoms.shape)
    numeric = (optimum(atoms + 1e-5 * step) - optimum(atoms - 1e-5 * step)) / 2e-5
    np.testing.assert_allclose(np.sum(slope * step), numeric, rtol=1e-6)
    code_slope = jax.grad(lambda a: jnp.sum(encode(Dictionary(a), xs[0], L1(0.1)).value))(jnp.asarray(atoms))
    assert not np.any(code_slope)


def test_encode_batch_composes_under_jit_and_grad(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)

    @jax.jit
    @jax.value_and_grad
    def loss_and_slope(a):
        dictionary = Dictionary(a)
        codes = encode_batch(dictionary, xs, L1(0.1)).value
        return jnp.sum(jax.vmap(energy, (None, 0, 0, None))(dictionary, xs, codes, L1(0.1)))

    loss, slope = loss_and_slope(atoms)
    assert np.isfinite(loss) and np.all(np.isfinite(slope)) and np.any(slope)


@pytest.mark.parametrize("kind", ["matrix", "generator", "file"])
def test_stream_gives_the_codes_of_the_batch(kind, small, tmp_path):
    atoms, xs = (np.asarray(a, np.float32) for a in small)
    dictionary = Dictionary(atoms)
    expected = encode_batch(dictionary, xs, L1(0.1))
    rows = iter(xs) if kind == "generator" else xs
    output = tmp_path / "codes.npy" if kind == "file" else None
    stream = encode_stream(dictionary, rows, L1(0.1), output=output, batch_size=3)
    np.testing.assert_allclose(stream.value, expected.value, atol=1e-5)
    np.testing.assert_array_equal(stream.status, expected.status)
    assert stream.n_steps.shape == stream.residual.shape == (8,)
    if output is not None:
        np.testing.assert_array_equal(np.load(output), stream.value)


def test_bad_input_is_named(small, untyped):
    atoms, xs = small
    dictionary = Dictionary(atoms)
    cases = [
        (lambda: encode(dictionary, xs, L1(0.1)), r"x: expected 1 axes \(features\), got shape \(8, 20\)"),
        (lambda: encode(dictionary, xs[0][:5], L1(0.1)), r"x: expected 20 features .* got shape \(5,\)"),
        (lambda: encode(dictionary, np.ones(20, np.uint8), L1(0.1)), "x: expected real .* got dtype uint8"),
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
        (
            lambda: encode_stream(dictionary, [*xs[:2], xs[0][:4]], L1(0.1), batch_size=2),
            r"got \(4,\) at row 2",
        ),
        (lambda: encode_stream(dictionary, [], L1(0.1)), "rows: expected at least one row, got none"),
        (
            lambda: encode_stream(dictionary, iter(xs), L1(0.1), output="codes.npy"),
            "output: expected rows to be",
        ),
        (
            lambda: encode_stream(dictionary, xs, L1(0.1), batch_size=0),
            "batch_size: expected a whole number ≥ 1",
        ),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    # A dictionary that went bad after its construction is caught by the entry point that sees values.
    broken = jax.tree.map(lambda a: a.at[3].set(0), dictionary)
    with pytest.raises(ValueError, match="got 1 that are zero; the first is row 3"):
        encode_batch(broken, xs, L1(0.1))


def test_solver_can_be_a_traced_argument(small):
    """A sweep over step sizes is a vmap like any other."""
    atoms, xs = small
    dictionary = Dictionary(atoms)
    codes = jax.vmap(lambda eta: encode(dictionary, xs[0], L1(0.1), solver=FISTA(step_size=eta)).value)
    np.testing.assert_allclose(*codes(jnp.array([0.05, 0.1])), atol=1e-2)
    assert CoordinateDescent() == CoordinateDescent()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_the_unit_of_the_data_changes_nothing(scale, small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    for kind, solver in ((L1, FISTA(backtracking=True)), (GroupL2, FISTA())):
        extra = () if kind is L1 else (3,)
        plain = encode(Dictionary(atoms), xs[0], kind(0.1, *extra), solver=solver)
        scaled = encode(
            Dictionary(atoms), xs[0] * scale, kind(jnp.float32(0.1 * scale), *extra), solver=solver
        )
        assert scaled.status == Status.converged and np.any(plain.value)
        np.testing.assert_allclose(scaled.value / np.float32(scale), plain.value, atol=2e-3)


def test_mixed_precision_is_certified_in_the_wider_one(small, x64):
    atoms, xs = small
    dictionary, strengths = Dictionary(np.asarray(atoms, np.float32)), L1(jnp.array([0.3, 0.1]))
    solution = encode_path(dictionary, xs[0], strengths, init=np.zeros(30, np.float32))
    assert solution.value.dtype == jnp.float64 and np.all(solution.status == Status.converged)


def test_a_start_outside_the_domain_is_left_not_broken(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)
    dictionary, penalty = Dictionary(atoms), NonNegativeL1(0.1)
    solution = encode(dictionary, xs[0], penalty, init=-jnp.ones(30, jnp.float32))
    assert solution.status == Status.converged and np.all(solution.value >= 0)
    np.testing.assert_allclose(solution.value, encode(dictionary, xs[0], penalty).value, atol=1e-3)


def test_an_infinite_strength_forbids_an_atom(small, x64):
    atoms, xs = small
    free = np.arange(30) != 7
    solution = encode(Dictionary(atoms), xs[0], L1(jnp.where(free, 0.1, jnp.inf)))
    without = encode(Dictionary(atoms[free]), xs[0], L1(0.1))
    assert solution.status == Status.converged and solution.value[7] == 0
    np.testing.assert_allclose(solution.value[free], without.value, atol=1e-4)


def test_detached_is_zero_in_forward_mode_and_dictionaries_batch(small):
    atoms, xs = (jnp.asarray(a, jnp.float32) for a in small)

    def code(a, strength):
        return encode(Dictionary(a), xs[0], L1(strength), tol=1e-6).value

    value, tangent = jax.jvp(code, (atoms, jnp.float32(0.1)), (jnp.ones_like(atoms), jnp.float32(1)))
    assert np.any(value) and not np.any(tangent)
    both = jax.vmap(code, (0, None))(jnp.stack([atoms, 2 * atoms]), jnp.float32(0.1))
    np.testing.assert_allclose(both[0], value, atol=1e-4)
    np.testing.assert_allclose(both[1], code(2 * atoms, 0.1), atol=1e-4)


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
    reference = encode(Dictionary(matrix), x, L1(0.1))
    np.testing.assert_allclose(solution.value.ravel(), reference.value, atol=1e-4)
