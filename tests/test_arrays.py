"""The gate for foreign arrays: what passes, as what, and what is refused by name."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy import sparse

from neurojax._arrays import check_same_shape, host_array, native, real_array, whole_array
from neurojax.training._sources import on_device

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)


class Table:
    """What pandas' tables have in common with it: they can be made an array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize(
    "given",
    [ROWS, ROWS.astype(">f4"), ROWS.tolist(), Table(ROWS), ROWS.astype(int), ROWS.astype(np.uint8),
     ROWS.astype(">i8"), ROWS.astype(np.longdouble), np.asfortranarray(ROWS), jnp.asarray(ROWS),
     [jnp.asarray(row) for row in ROWS], ROWS.astype(">f8")],
)  # fmt: skip
def test_numbers_come_out_the_same_in_single_precision(given):
    array = real_array("xs", given, "samples features")
    assert isinstance(array, jax.Array)
    assert array.dtype == jnp.float32
    np.testing.assert_array_equal(array, ROWS)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_floating_precision_is_kept(x64, dtype):
    assert real_array("xs", ROWS.astype(dtype)).dtype == dtype
    assert host_array("xs", ROWS.astype(dtype)).dtype == dtype


def test_integers_take_the_default_precision(x64):
    assert real_array("xs", ROWS.astype(np.int8)).dtype == jnp.float64
    assert real_array("xs", np.array([True, False])).dtype == jnp.float64
    assert host_array("xs", [1, 2]).dtype == np.float64


def test_numbers_of_python_do_not_raise_the_precision(x64):
    for number in (1, 0.5, True):
        assert (real_array("strength", number) * jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ma.masked_array(ROWS, ROWS > 3), "xs: expected an array without a mask"),
        ([[1.0, 2.0], [3.0]], "xs: expected an array, got a list"),
        (np.array([1.0, None]), "xs: expected numbers, got an array of dtype object"),
        (["a", "b"], "xs: expected numbers, got a list of dtype <U1"),
        (ROWS.astype(complex), "xs: expected real numbers, got dtype complex"),
        (np.array(["2026-01-01"], "datetime64[D]"), "xs: expected numbers, got an array of dtype datetime64"),
        (sparse.csr_matrix(ROWS), r"xs: expected numbers, got .*convert it with \.toarray\(\)"),
        (None, "xs: expected numbers, got a NoneType"),
    ],
)
def test_what_holds_no_real_numbers_is_refused_by_name(given, message):
    for gate in (real_array, host_array):
        with pytest.raises(ValueError, match=message):
            gate("xs", given)


def test_the_number_of_axes_and_whole_numbers_are_checked():
    with pytest.raises(ValueError, match=r"xs: expected 2 axes \(samples features\), got shape \(2,\)"):
        real_array("xs", [1.0, 2.0], "samples features")
    assert whole_array("labels", np.array([1, 2], ">i4"), "samples").dtype == jnp.int32
    with pytest.raises(ValueError, match=r"labels: expected integers, got dtype float32"):
        whole_array("labels", ROWS[0])
    with pytest.raises(ValueError, match=r"labels: expected 1 axes \(samples\), got shape \(2, 1\)"):
        whole_array("labels", [[1], [2]], "samples")
    with pytest.raises(ValueError, match=r"targets: expected shape \(3, 2\), as outputs, got shape \(3,\)"):
        check_same_shape("targets", ROWS[:, 0], "outputs", ROWS)


def test_traced_arrays_pass():
    assert jax.jit(lambda xs: real_array("xs", xs, "samples features") + 1)(ROWS).dtype == jnp.float32
    assert jax.jit(lambda xs: real_array("xs", xs))(np.arange(3)).dtype == jnp.float32
    with pytest.raises(ValueError, match="xs: expected real numbers"):
        jax.jit(lambda xs: real_array("xs", xs))(ROWS.astype(np.complex64))
    assert native("xs", 0.5) == 0.5


@pytest.mark.parametrize("take", [lambda a: real_array("a", a), on_device], ids=["gate", "learner"])
def test_an_array_may_be_changed_after_it_was_given(take):
    """JAX shares the memory of NumPy arrays that begin where its own would."""
    memory = np.zeros(32 + 16, np.float32)
    begin = -memory.ctypes.data % 64 // memory.itemsize
    given = memory[begin : begin + 32].reshape(8, 4)
    taken = take(given)
    given[:] = 7
    np.testing.assert_array_equal(taken, 0)
