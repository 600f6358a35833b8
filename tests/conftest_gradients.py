"""What the tests of gradients share: quick compilation, and batches as trees of NumPy arrays."""

from functools import partial

import jax
import numpy as np

from neurojax.convergence import Implicit, Truncated, Unrolled

assert_close = partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11)


def modes(n_steps):
    """Return the modes that differentiate a solution, by name, for `pytest.mark.parametrize`."""
    return {"implicit": Implicit(), "unrolled": Unrolled(), "truncated": Truncated(n_steps)}


def compiled(function):
    """Compile a function of trees of NumPy arrays, in a hurry: its compilation takes longer than its run."""
    run = jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
    return lambda *args: jax.device_get(run(*args))


def row(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


def stack(trees):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def repeat(tree, n_rows):
    return jax.tree.map(lambda leaf: np.repeat(leaf[None], n_rows, 0), tree)


def dot(a, b):
    return sum(np.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def moved(tree, direction, step):
    return jax.tree.map(lambda leaf, d: leaf + step * d, tree, direction)
