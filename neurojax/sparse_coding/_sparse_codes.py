"""Codes that are mostly zero, held by their active units."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int
from scipy.sparse import csr_array

from .._arrays import native, real_array
from .._checks import check_at_least, check_rank, check_shape, is_concrete
from ..convergence import Solution, Status

__all__ = ["SparseCodes", "keep_largest", "sparse_codes"]


class SparseCodes(eqx.Module):
    """Codes by their active units: ``width`` places a sample, the largest coefficients by magnitude first.

    Places that a code does not need hold the index ``n_atoms``, one past the last atom, and the value 0.

    Attributes:
        indices: the active atoms of each sample.
        values: their coefficients.
        n_atoms: how many coefficients a dense code has.

    Raises:
        ValueError: at construction, for axes that are not samples and width, for indices and values of
            different shapes, and for n_atoms < 1.
    """

    indices: Int[Array | np.ndarray, "samples width"] = eqx.field(converter=partial(native, "indices"))
    values: Float[Array | np.ndarray, "samples width"] = eqx.field(converter=partial(native, "values"))
    n_atoms: int = eqx.field(static=True)

    def __check_init__(self):
        check_rank("values", self.values, "samples width")
        check_shape("indices", self.indices, np.shape(self.values), "one for each value")
        check_at_least("n_atoms", self.n_atoms, 1)

    def to_dense(self) -> Float[Array, "samples atoms"]:
        """Return the codes with their zeros.

        Gradient: each value has that of its coefficient.
        """
        return _dense(jnp.asarray(self.values), self.indices, self.n_atoms)

    def to_scipy(self) -> csr_array:
        """Return the codes as a matrix of compressed rows on the host; not for ``jit``."""
        indices, values = np.asarray(self.indices), np.asarray(self.values)
        is_used = indices < self.n_atoms
        ends = np.concatenate([[0], np.cumsum(np.sum(is_used, axis=1))])
        codes = csr_array((values[is_used], indices[is_used], ends), shape=(len(values), self.n_atoms))
        codes.sort_indices()
        return codes


def sparse_codes(codes: Float[ArrayLike, "samples atoms"], width: int) -> SparseCodes:
    """Keep the ``width`` coefficients of largest magnitude of each code, and where they are.

    Whatever is beyond them is dropped: ``encode_batch(..., max_active=width)`` says where that happens. NaN
    counts as largest. Of equal magnitudes the earlier atom is kept.

    Args:
        codes: dense codes.
        width: places a sample, from 1 to the number of atoms.

    Returns:
        The codes by their active units.

    Raises:
        ValueError: at trace time, for codes that are not a real matrix and for a width out of range.

    Gradient: a value has that of its coefficient; which ones are kept is taken as constant.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.sparse_coding import sparse_codes
        >>> codes = sparse_codes(jnp.array([[0.0, 2.0, 0.0, -3.0], [0.0, 0.0, 1.0, 0.0]]), 2)
        >>> codes.indices.tolist(), codes.values.tolist()
        ([[3, 1], [2, 4]], [[-3.0, 2.0], [1.0, 0.0]])
        >>> codes.to_dense().tolist()
        [[0.0, 2.0, 0.0, -3.0], [0.0, 0.0, 1.0, 0.0]]
    """
    codes = real_array("codes", codes, "samples atoms")
    n_atoms = codes.shape[1]
    _check_width("width", width, n_atoms)
    _, indices = lax.top_k(jnp.abs(lax.stop_gradient(codes)), width)
    values = jnp.take_along_axis(codes, indices, axis=1)
    is_used = values != 0
    return SparseCodes(jnp.where(is_used, indices, n_atoms), jnp.where(is_used, values, 0), n_atoms)


def keep_largest(solution: Solution, max_active: int) -> Solution:
    """Return a solution of dense codes with `SparseCodes` in their place; nothing is lost in silence.

    Args:
        solution: what `encode_batch` found, with dense codes.
        max_active: the width.

    Returns:
        The solution; inside ``jit`` the rows whose codes have more non-zero coefficients are
        ``Status.truncated``, but for those that are ``Status.nonfinite``.

    Raises:
        ValueError: for a width out of range; outside ``jit``, for the first row that would be truncated.
    """
    _check_width("max_active", max_active, solution.value.shape[1])
    sparse, n_active = _truncate(solution, max_active)
    if is_concrete(sparse.status):
        truncated = np.flatnonzero(np.asarray(sparse.status) == Status.truncated)
        if truncated.size:
            raise ValueError(
                f"max_active: expected codes of at most {max_active} non-zero coefficients, got "
                f"{np.asarray(n_active)[truncated[0]]} in row {truncated[0]}, the first of {truncated.size} "
                "such rows."
            )
    return sparse


def _check_width(name: str, width: int, n_atoms: int) -> None:
    check_at_least(name, width, 1)
    if width > n_atoms:
        raise ValueError(f"{name}: expected at most the number of atoms, {n_atoms}, got {width}.")


@partial(jax.jit, static_argnames="n_atoms")
def _dense(values: Array, indices: Array, n_atoms: int) -> Array:
    dense = jnp.zeros((values.shape[0], n_atoms), values.dtype)
    return dense.at[jnp.arange(values.shape[0])[:, None], indices].set(values, mode="drop")


@eqx.filter_jit
def _truncate(solution: Solution, width: int) -> tuple[Solution, Array]:
    n_active = jnp.sum(solution.value != 0, axis=1)
    is_cut = (n_active > width) & (solution.status != Status.nonfinite)
    status = jnp.where(is_cut, Status.truncated, solution.status).astype(jnp.int32)
    codes = sparse_codes(solution.value, width)
    return Solution(codes, status, solution.n_steps, solution.residual), n_active
