"""No derivative is silently zero: those of the public functions against finite differences.

Each entry of the table is called at its small arguments in double precision, and once more with each
argument moved to both sides. Derivatives in the arguments that the table calls differentiable are those of
finite differences; where another argument moves the outputs otherwise than its derivative says, the entry
says why.
"""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_functions import ENTRIES

pytestmark = pytest.mark.usefixtures("x64")
STEP = 1e-5
COMPUTATIONS = [entry for entry in ENTRIES if entry.is_jittable]
# One of each mechanism: rules of our own, and functions that iterate. The others are slow tests.
QUICK = {
    "convergence.Unrolled",
    "penalties.GroupL2-prox",
    "sparse_coding.encode",
    "sparse_coding.orthogonal_matching_pursuit",
}
# Reports of an iteration, and metrics of codes that learning takes as constants.
REPORTS = {"residual", "n_steps", "status", "worst_residual", "inference_steps", "converged"}
REPORTS |= {"squared_error", "explained_energy", "n_active"}


def is_float(leaf):
    return eqx.is_array_like(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def in_double(tree):
    def convert(leaf):
        if is_float(leaf):
            return jnp.asarray(leaf, float)
        return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf

    return jax.tree.map(convert, tree)


def numbers(result):
    """Return the floating-point outputs, as one vector; NaN and infinity as 0."""
    leaves = jax.tree_util.tree_leaves_with_path(result)
    kept = [leaf for path, leaf in leaves if is_float(leaf) and not REPORTS & set(map(name_of, path))]
    flat = jnp.concatenate([jnp.ravel(leaf).astype(float) for leaf in kept]) if kept else jnp.zeros(0)
    return jnp.where(jnp.isfinite(flat), flat, 0)


def name_of(key):
    return getattr(key, "name", getattr(key, "key", None))


def directions_of(arguments):
    """Return a direction for each argument with floating-point numbers: relative to their size."""
    rng = np.random.default_rng(7)
    found = {}
    for name, argument in arguments.items():
        moving = eqx.filter(argument, is_float)
        if jax.tree.leaves(moving):
            found[name] = jax.tree.map(lambda leaf: rng.uniform(0.5, 1, np.shape(leaf)) * leaf, moving)
    return found


@cache
def derivatives(entry):
    """Return, by argument, the derivative of a weighted sum of the outputs, and finite differences of it."""
    arguments = in_double(entry.arguments())
    directions = directions_of(arguments)
    names = list(directions)

    def total(steps):
        moved = dict(arguments)
        for i, name in enumerate(names):
            moving, held = eqx.partition(arguments[name], is_float)
            moving = jax.tree.map(lambda leaf, d, i=i: leaf + steps[i] * d, moving, directions[name])
            moved[name] = eqx.combine(moving, held)
        flat = numbers(entry.call(**moved))
        return flat @ np.random.default_rng(8).normal(size=flat.size)

    n = len(names)
    points = np.concatenate([np.zeros((1, n)), STEP * np.eye(n), -STEP * np.eye(n)])
    slope = jax.jit(jax.grad(total))(points[0])
    values = jax.jit(lambda points: jax.lax.map(total, points))(points)
    numeric = (values[1 : n + 1] - values[n + 1 :]) / (2 * STEP)
    scale = np.abs(values[0])
    return {name: (slope[i], numeric[i], scale) for i, name in enumerate(names)}


def agrees(found):
    slope, numeric, scale = found
    return abs(slope - numeric) <= 1e-5 * max(abs(numeric), 1e-2 * scale, 1e-6)


def cases():
    for entry in COMPUTATIONS:
        is_quick = str(entry) in QUICK
        yield pytest.param(entry, id=str(entry), marks=[] if is_quick else [pytest.mark.slow])


@pytest.mark.parametrize("entry", list(cases()))
def test_derivatives_are_those_of_finite_differences_or_the_table_says_why(entry):
    try:
        found = derivatives(entry)
    except ValueError as error:  # a loop that has no reverse mode is not silent
        assert "Reverse-mode differentiation does not work" in str(error)
        assert entry.why and not entry.differentiable
        return
    wrong = {name: pair for name, pair in found.items() if not agrees(pair)}
    assert not wrong.keys() & set(entry.differentiable), wrong
    assert not wrong or entry.why, wrong


def test_entries_that_are_named_exist():
    assert {str(entry) for entry in COMPUTATIONS} >= QUICK
