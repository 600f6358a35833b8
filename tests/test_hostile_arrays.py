"""Foreign arrays at every public entry: converted to the same result, or refused by the argument's name."""

import re

import equinox as eqx
import jax
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from public_functions import COMPUTATION, ENTRIES

CALLED = [entry for entry in ENTRIES if entry.call is not None and entry.kind in (COMPUTATION, "eager")]
MODULES = sorted({entry.name.split(".")[0] for entry in CALLED})


def numbers(arguments: dict) -> list[str]:
    """Return the names of the arguments that are plain arrays of numbers."""
    return [name for name, value in arguments.items() if type(value) is np.ndarray]


def refusal(entry, name: str, hostile) -> str:
    """Return how an entry fails to refuse an argument by its name, or nothing."""
    try:
        entry.call(**(entry.arguments() | {name: hostile}))
    except ValueError as error:
        named = re.match(r"\w*", str(error)).group()
        is_named = named and (named in name or name in named)  # "response" of the "responses" of a batch
        return "" if is_named else f"{entry}: {name}: {error!s:.80}"
    except Exception as error:
        return f"{entry}: {name}: {type(error).__name__}: {error!s:.80}"
    return f"{entry}: {name} was taken"


def masked(array: np.ndarray) -> np.ma.MaskedArray:
    """Return the array under a mask that hides its first number."""
    mask = np.zeros(array.shape, bool)
    mask.flat[:1] = True
    return np.ma.masked_array(array, mask)


LONG = {"autoencoder", "boltzmann", "neural_coding", "sparse_coding"}


@pytest.mark.parametrize(
    "module", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in MODULES]
)
def test_masked_arrays_are_refused_by_the_name_of_the_argument(module, untyped):
    faults = []
    for entry in CALLED:
        if entry.name.split(".")[0] == module:
            arguments = entry.arguments()
            faults += [refusal(entry, name, masked(arguments[name])) for name in numbers(arguments)]
    assert not any(faults), "\n".join(["foreign arrays:", *filter(None, faults)])


def foreign(value):
    """Return an array in the other byte order, and of one axis as a list."""
    if type(value) is not np.ndarray:
        return value
    return value.tolist() if value.ndim == 1 else value.astype(value.dtype.newbyteorder())


def computed(entry, arguments: dict) -> tuple[str, list]:
    """Return what an entry computes, as a program and its numbers: no need to compile and run it."""
    if not entry.is_jittable:
        return "", jax.tree.leaves(entry.call(**arguments))
    program, *_ = eqx.filter_make_jaxpr(lambda: entry.call(**arguments))()
    return re.sub("0x[0-9a-f]+", "", str(program.jaxpr)), list(constants(program))


def constants(program):
    """Yield the numbers that a program holds, those of the programs within it too."""
    if isinstance(program, ClosedJaxpr):
        yield from program.consts
        program = program.jaxpr
    for equation in program.eqns:
        is_program = lambda value: isinstance(value, (ClosedJaxpr, Jaxpr))  # noqa: E731
        for value in jax.tree.leaves(equation.params, is_leaf=is_program):
            if is_program(value):
                yield from constants(value)


def difference(entry) -> str:
    """Return how an entry's result differs where its arrays are foreign, or nothing."""
    program, numbers = computed(entry, entry.arguments())
    try:
        other, others = computed(entry, {name: foreign(value) for name, value in entry.arguments().items()})
    except Exception as error:
        return f"{entry}: {type(error).__name__}: {error!s:.80}"
    is_same = program == other and len(numbers) == len(others)
    is_same = is_same and all(map(same_numbers, numbers, others))
    return "" if is_same else f"{entry}: another result"


def same_numbers(one, other) -> bool:
    if isinstance(one, jax.Array) and jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    if not eqx.is_array(one):
        return True
    is_alike = one.shape == np.shape(other) and one.dtype == jax.numpy.result_type(other)
    return is_alike and np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_lists_and_other_byte_orders_give_the_same_result(module, untyped):
    faults = [difference(entry) for entry in CALLED if entry.name.split(".")[0] == module]
    assert not any(faults), "\n".join(["foreign arrays:", *filter(None, faults)])
