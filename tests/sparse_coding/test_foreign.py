"""Lists, integers, other byte orders and masks at the entry points of sparse coding."""

import jax
import numpy as np
import pytest

from neurojax.convergence import Detached
from neurojax.penalties import L1
from neurojax.sparse_coding import (
    Dictionary,
    correlate,
    duality_gap,
    encode,
    encode_batch,
    encode_path,
    encode_stream,
    energy,
    matching_pursuit,
    max_strength,
    orthogonal_matching_pursuit,
    reconstruct,
    sparse_codes,
)

ATOMS = np.array([[2, 0, 1], [0, 3, -1], [1, 1, 1], [0, -1, 2]])
XS = np.array([[1, -2, 3], [0, 4, 1]])
CODES = np.array([[1, 0, -2, 0], [0, 3, 0, 1]])
PENALTY = L1(0.5)

CALLS = {
    "encode": lambda atoms, xs, codes: encode(
        Dictionary(atoms), xs[0], PENALTY, init=codes[0], gradient=Detached()
    ),
    "encode_batch": lambda atoms, xs, codes: encode_batch(Dictionary(atoms), xs, PENALTY, init=codes),
    "encode_path": lambda atoms, xs, codes: encode_path(Dictionary(atoms), xs[0], L1(np.array([1, 0.5]))),
    "encode_stream": lambda atoms, xs, codes: encode_stream(Dictionary(atoms), xs, PENALTY),
    "pursuit": lambda atoms, xs, codes: matching_pursuit(Dictionary(atoms), xs[0], n_steps=2),
    "orthogonal": lambda atoms, xs, codes: orthogonal_matching_pursuit(Dictionary(atoms), xs[0], n_steps=2),
    "energy": lambda atoms, xs, codes: energy(Dictionary(atoms), xs[0], codes[0], PENALTY),
    "duality_gap": lambda atoms, xs, codes: duality_gap(Dictionary(atoms), xs[0], codes[0], PENALTY),
    "max_strength": lambda atoms, xs, codes: max_strength(Dictionary(atoms), xs[0]),
    "reconstruct": lambda atoms, xs, codes: reconstruct(Dictionary(atoms), codes),
    "correlate": lambda atoms, xs, codes: correlate(Dictionary(atoms), xs),
    "sparse_codes": lambda atoms, xs, codes: sparse_codes(codes, 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_foreign_arrays_are_converted_or_refused(name, untyped):
    call, given = CALLS[name], (ATOMS, XS, CODES)
    expected = jax.tree.leaves(call(*(a.astype(np.float32) for a in given)))
    for foreign in (lambda a: a.tolist(), lambda a: a.astype(">f4"), lambda a: a):
        found = jax.tree.leaves(call(*map(foreign, given)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
            assert np.asarray(one).dtype == np.asarray(other).dtype
    with pytest.raises(ValueError, match="expected an array without a mask"):
        call(*(np.ma.array(a.astype(np.float32)) for a in given))
    if name != "sparse_codes":
        with pytest.raises(ValueError, match=r"^(xs?|rows|codes?): expected an array without a mask"):
            call(ATOMS, np.ma.array(XS.astype(float)), np.ma.array(CODES.astype(float)))


def test_sizes_that_must_agree_are_compared(untyped):
    dictionary = Dictionary(ATOMS)
    cases = [
        (lambda: reconstruct(dictionary, np.ones(3)), "code: expected 4 coefficients"),
        (lambda: reconstruct(dictionary, 1.0), "code: expected 4 coefficients"),
        (lambda: correlate(dictionary, np.ones((3, 1))), "x: expected 3 features"),
        (lambda: energy(dictionary, np.ones(3), np.ones((4, 1)), PENALTY), "code: expected shape"),
        (lambda: duality_gap(dictionary, np.ones(3), np.ones(1), PENALTY), "code: expected shape"),
        (lambda: max_strength(dictionary, np.ones((3, 1))), "x: expected 3 features"),
        (lambda: matching_pursuit(dictionary, np.ones((3, 1)), n_steps=1), "x: expected 1 axes"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
