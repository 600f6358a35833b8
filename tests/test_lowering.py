"""Every public computation is lowered for a GPU and a TPU, which needs neither, and its program is read.

The programs are made with double precision enabled and arguments in single precision, since a 64-bit number
could not arise otherwise.
"""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_functions import ENTRIES, PLATFORMS, Entry
from public_functions._entry import normal

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|dot|convolution)\b.*-> tensor<(?:[\dx]*x)?(?:f|bf)\d+>")
HIGHEST = re.compile(r"precision = \[HIGHEST, HIGHEST\]|precision HIGHEST>, #stablehlo<precision HIGHEST>")
CUSTOM_CALL = re.compile(r"custom_call @([\w.$]+)")
CUSTOM_CALLS = {
    "cuda": {
        "cu_lu_pivots_to_permutation",
        "cusolver_geqrf_ffi",
        "cusolver_gesvdj_ffi",
        "cusolver_getrf_ffi",
        "cusolver_orgqr_ffi",
        "cusolver_potrf_ffi",
        "cusolver_syevd_ffi",
    },
    "tpu": {"Eigh", "LuDecomposition", "ProductOfElementaryHouseholderReflectors", "Qr"},
}
# Scalars in double precision are left out: the compiler rounds Python's numbers once.
DOUBLES = re.compile(r"tensor<\d[\dx]*xf64>|func public @main.*->.*f64")
# JAX's own decompositions hold tables of constants in double precision, which they round at once.
ROUNDED = re.compile(r"stablehlo\.constant|stablehlo\.convert .*xf64>\) -> tensor<[\dx]*xf32>")

COMPUTATIONS = [entry for entry in ENTRIES if entry.is_lowerable]
# Their values are contained in other entries' programs, so that the default run passes them over.
CONTAINED = {
    "autoencoder.log_weights",
    "boltzmann.PersistentContrastiveDivergence",
    "convergence.Loop",
    "convergence.Truncated",
    "convergence.Unrolled",
    "convergence.iterate-detached",
    "convergence.iterate_rows",
    "decomposition.fast_ica",
    "decomposition.pca",
    "neural_coding.ConvolutionalEncoder",
    "neural_coding.DecodingNetwork",
    "neural_coding.SimulatedPopulation",
    "neural_coding.fit_von_mises",
    "neural_coding.simulate",
    "receptive_fields.fit_gabor",
    "sparse_coding.OnlineDictionaryObjective",
    "sparse_coding.SpaRSA",
    "sparse_coding.SparseCodingLayer",
    "sparse_coding.encode-detached",
    "sparse_coding.encode_batch",
    "sparse_coding.encode_batch-sparse",
    "sparse_coding.encode_batch-unrolled",
    "sparse_coding.encode_path",
    "neural_coding.fit_poisson",
}
# Little is multiplied in these modules, so that the default run passes them over as well.
WITHOUT_PRODUCTS = ("chains", "data", "distributed", "metrics", "penalties")
# Products of a derivative have the precision of those they come from, but for rules that we write ourselves:
# the derivatives of these entries are in the default run, those of all others among the slow tests.
WITH_OWN_RULES = {
    "autoencoder.VariationalAutoencoder",
    "autoencoder.jacobian_norm",
    "convergence.Implicit",
    "decomposition.PCA",
    "neural_coding.RowSpaceNetwork",
    "neural_coding.fit_poisson-sparse",
    "penalties.GroupL2-prox",
    "sparse_coding.encode",
}


def is_array(leaf):
    return isinstance(leaf, np.ndarray | np.generic | jax.Array | jax.ShapeDtypeStruct)


def is_float(leaf):
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)


def parts(entry):
    """Return an entry's arguments that are differentiated, those that are only traced, and the rest.

    Nothing is computed: arrays are known by their shapes.
    """
    arguments = eqx.filter_eval_shape(entry.arguments)
    is_moving = {
        name: jax.tree.map(lambda leaf, name=name: name in entry.differentiable and is_float(leaf), argument)
        for name, argument in arguments.items()
    }
    moving, rest = eqx.partition(arguments, is_moving)
    return moving, *eqx.partition(rest, is_array)


def traceable(entry, with_gradient):
    """Return the function of an entry, or its value and gradient, and the arguments as shapes."""
    moving, held, static = parts(entry)

    def call(moving, held):
        result = entry.call(**eqx.combine(moving, held, static))
        return [leaf for leaf in jax.tree.leaves(result) if is_array(leaf)]

    def total(moving, held):
        return sum(jnp.sum(leaf) for leaf in call(moving, held) if is_float(leaf))

    return (jax.value_and_grad(total) if with_gradient else call), (moving, held)


def program(entry, with_gradient, platforms=PLATFORMS):
    """Return the StableHLO program of an entry, or of its value and gradient."""
    function, arguments = traceable(entry, with_gradient)
    with jax.enable_x64(True):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=platforms).as_text()


def faults(text, platforms=PLATFORMS, may_be_double=False):
    """Return the lines of a program that no library function may have."""
    lines = [line.partition(" loc(")[0].strip() for line in text.splitlines()]
    allowed = set().union(*(CUSTOM_CALLS[platform] for platform in platforms))
    found = [line for line in lines if PRODUCT.search(line) and not HIGHEST.search(line)]
    found += [line for line in lines if not set(CUSTOM_CALL.findall(line)) <= allowed]
    if not may_be_double:
        found += [line for line in lines if DOUBLES.search(line) and not ROUNDED.search(line)]
    return found


def has_no_float(entry):
    """Whether no argument could say which precision is wanted, so that it is JAX's default."""
    moving, held, _ = parts(entry)
    return not any(map(is_float, jax.tree.leaves((moving, held))))


def cases():
    """Yield each entry's program, or that of its value and gradient too, which contains the former."""
    for entry in COMPUTATIONS:
        name = str(entry)
        marks = [] if name in WITH_OWN_RULES else [pytest.mark.slow]
        if entry.is_differentiable:
            yield pytest.param(entry, True, id=f"{name}, gradient", marks=marks)
        if name not in WITH_OWN_RULES:
            is_slow = name in CONTAINED or name.startswith(WITHOUT_PRODUCTS)
            yield pytest.param(entry, False, id=name, marks=[pytest.mark.slow] * is_slow)


def test_entries_that_are_named_exist():
    assert {str(entry) for entry in COMPUTATIONS} >= CONTAINED
    assert {str(entry) for entry in COMPUTATIONS if entry.is_differentiable} >= WITH_OWN_RULES


@pytest.mark.parametrize(("entry", "with_gradient"), list(cases()))
def test_programs_for_accelerators_are_sound(entry, with_gradient):
    text = program(entry, with_gradient, entry.platforms)
    assert faults(text, entry.platforms, has_no_float(entry)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entry", "platform"),
    [
        pytest.param(entry, platform, id=f"{entry}, {platform}")
        for entry in COMPUTATIONS[::8]
        for platform in entry.platforms
    ],
)
def test_programs_are_exported_for_each_platform_alone(entry, platform):
    """A sample: the programs of both platforms together were read above."""
    function, arguments = traceable(entry, with_gradient=False)
    with jax.enable_x64(True):
        exported = jax.export.export(jax.jit(function), platforms=[platform])(*arguments)
    assert faults(exported.mlir_module(), [platform], has_no_float(entry)) == []


def _entry(call):
    return Entry("test", lambda x: call(x), lambda: {"x": normal(4, 4)}, differentiable=("x",))


def _lapack(x):
    return jax.ffi.ffi_call("lapack_spotrf_ffi", jax.ShapeDtypeStruct(x.shape, x.dtype))(x)


def _convolution(precision):
    def call(x):
        return jax.lax.conv_general_dilated(x[None, None], x[None, None], (1, 1), "SAME", precision=precision)

    return call


BAD = {
    "product at the default precision": (lambda x: x @ x, "dot_general"),
    "product at a higher precision": (lambda x: jnp.matmul(x, x, precision="high"), "dot_general"),
    "convolution at the default precision": (_convolution(None), "convolution"),
    "double precision": (lambda x: x * jnp.linspace(0, 1, 4), "f64"),
    "scalar in double precision": (lambda x: jnp.sum(x) * np.float64(2), "f64"),
    "routine of a CPU": (_lapack, "lapack_spotrf_ffi"),
}
GOOD = {
    "product at full precision": lambda x: jnp.matmul(x, x, precision="highest"),
    "convolution at full precision": _convolution("highest"),
    "product of whole numbers": lambda x: jnp.sum(x.astype(int) @ x.astype(int)),
    "scalar of Python": lambda x: jnp.where(x > 0, jnp.nan, 2.0 * x),
    "decomposition": lambda x: jnp.linalg.svd(x)[1],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_program_is_caught(name):
    call, expected = BAD[name]
    found = faults(program(_entry(call), False))
    assert found
    assert all(expected in line for line in found)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_program_is_not_caught(name):
    assert faults(program(_entry(GOOD[name]), False)) == []


def test_a_bad_gradient_is_caught():
    @jax.custom_jvp
    def square(x):
        return jnp.matmul(x, x, precision="highest")

    @square.defjvp
    def _(primals, tangents):
        return square(*primals), primals[0] @ tangents[0] + tangents[0] @ primals[0]

    assert faults(program(_entry(square), False)) == []
    assert faults(program(_entry(square), True))


NETWORKS = {
    "autoencoder.Autoencoder",
    "autoencoder.Autoencoder-untied",
    "autoencoder.SparseAutoencoder",
    "autoencoder.VariationalAutoencoder",
    "autoencoder.Classifier",
    "neural_coding.ConvolutionalEncoder",
    "neural_coding.ConvolutionalEncoder-factorized",
    "neural_coding.DecodingNetwork",
    "neural_coding.RowSpaceNetwork",
}


@pytest.mark.parametrize("entry", [entry for entry in COMPUTATIONS if str(entry) in NETWORKS], ids=str)
def test_networks_multiply_at_the_precision_that_the_user_has_set(entry):
    with jax.default_matmul_precision("bfloat16"):
        text = program(entry, True)
    products = [line for line in text.splitlines() if PRODUCT.search(line)]
    assert products
    assert not any(HIGHEST.search(line) for line in products)


@pytest.mark.parametrize(
    "name", ["sparse_coding.duality_gap", "boltzmann.free_energy", "neural_coding.ridge"]
)
def test_inference_multiplies_at_full_precision_whatever_the_user_has_set(name):
    (entry,) = [entry for entry in COMPUTATIONS if str(entry) == name]
    with jax.default_matmul_precision("bfloat16"):
        assert faults(program(entry, True)) == []


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.is_jittable and not e.is_lowerable], ids=str)
def test_entries_that_cannot_be_lowered_are_traced_all_the_same(entry):
    function, arguments = traceable(entry, with_gradient=False)
    assert jax.eval_shape(function, *arguments)
    with pytest.raises((ValueError, NotImplementedError), match="platform"):
        program(entry, False)
