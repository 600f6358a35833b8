"""Two dictionaries that the library knows nothing of: kernels at every position, and rows times columns."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from neurojax.sparse_coding import AbstractDictionary


class Convolution(AbstractDictionary):
    """x[c, t] = Σ code[k, p]·kernels[k, c, t − p]: each kernel wherever it lies inside the datum."""

    kernels: Array  # kernels channels window
    atom_axis: ClassVar[int] = 0
    datum_axes: ClassVar[str | None] = "channels time"

    def reconstruct(self, code):
        code = jnp.pad(code, [(0, 0), (self.kernels.shape[2] - 1,) * 2])
        flipped = jnp.moveaxis(self.kernels, 0, 1)[..., ::-1]
        return lax.conv_general_dilated(code[None], flipped, (1,), "VALID", precision="highest")[0]

    def correlate(self, x):
        return lax.conv_general_dilated(x[None], self.kernels, (1,), "VALID", precision="highest")[0]

    def gram(self):
        return None

    def empty_code(self, x):
        n_positions = x.shape[1] - self.kernels.shape[2] + 1
        return jnp.zeros((len(self.kernels), n_positions), jnp.result_type(x, self.kernels))

    @property
    def n_atoms(self):
        return len(self.kernels)

    def normalize(self):
        lengths = jnp.sqrt(jnp.sum(self.kernels**2, axis=(1, 2), keepdims=True))
        return Convolution(self.kernels / lengths)

    def replace_atoms(self, is_unused, data):
        """Take the middle of a datum for a kernel."""
        first = (data.shape[2] - self.kernels.shape[2]) // 2
        windows = data[..., first : first + self.kernels.shape[2]]
        rank = jnp.cumsum(is_unused) - 1
        fresh = windows[jnp.minimum(rank, len(windows) - 1)]
        is_replaced = is_unused & (rank < len(windows)) & jnp.any(fresh != 0, axis=(1, 2))
        return Convolution(jnp.where(is_replaced[:, None, None], fresh, self.kernels)), is_replaced


class Separable(AbstractDictionary):
    """x = rowsᵀ @ code @ columns: atoms that are outer products; an atom is a row with any column."""

    rows: Array  # atoms height
    columns: Array  # columns width
    atom_axis: ClassVar[int] = 0

    def reconstruct(self, code):
        return jnp.einsum("ah,ab,bw->hw", self.rows, code, self.columns, precision="highest")

    def correlate(self, x):
        return jnp.einsum("ah,hw,bw->ab", self.rows, x, self.columns, precision="highest")

    def gram(self):
        return None

    def empty_code(self, x):
        assert x.shape == (self.rows.shape[1], self.columns.shape[1])
        return jnp.zeros((len(self.rows), len(self.columns)), jnp.result_type(x, self.rows))

    @property
    def n_atoms(self):
        return len(self.rows)

    def normalize(self):
        rows, columns = (f / jnp.linalg.norm(f, axis=1, keepdims=True) for f in (self.rows, self.columns))
        return Separable(rows, columns)

    def replace_atoms(self, is_unused, data):
        """Take the profile of a datum along its rows."""
        profiles = jnp.sum(data, axis=2)
        rank = jnp.cumsum(is_unused) - 1
        fresh = profiles[jnp.minimum(rank, len(profiles) - 1)]
        is_replaced = is_unused & (rank < len(profiles)) & jnp.any(fresh != 0, axis=1)
        return eqx.tree_at(
            lambda d: d.rows, self, jnp.where(is_replaced[:, None], fresh, self.rows)
        ), is_replaced
