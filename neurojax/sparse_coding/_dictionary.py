"""Dictionaries: the linear map from a code to a datum, its transpose, and the energy they define."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._checks import (
    check_at_least,
    check_rank,
    check_real,
    check_shape,
    check_size,
    is_concrete,
    is_elsewhere,
)
from .._precision import product
from .._proximal import require_value
from .._rows import unit_rows
from .._types import PRNGKey, Scalar
from ..distributed import gather
from ..penalties import AbstractPenalty

__all__ = [
    "AbstractDictionary",
    "Dictionary",
    "correlate",
    "energy",
    "normalize_atoms",
    "random_dictionary",
    "reconstruct",
]


class AbstractDictionary(eqx.Module):
    """A linear map from codes to data. Solvers know a dictionary by these four methods only."""

    @abstractmethod
    def reconstruct(self, code: Float[ArrayLike, "..."]) -> Array:
        """Return the datum that a code stands for."""

    @abstractmethod
    def correlate(self, x: Float[ArrayLike, "..."]) -> Array:
        """Apply the transpose: the correlation of a datum with every atom."""

    @abstractmethod
    def gram(self) -> Array | None:
        """Return the matrix of ``correlate(reconstruct(·))``, or ``None`` where it is too large to hold."""

    @abstractmethod
    def empty_code(self, x: Array) -> Array:
        """Return the zero code of a datum, after checking the datum's shape and dtype."""


class Dictionary(AbstractDictionary):
    """One atom per row: x ≈ code @ atoms.

    Attributes:
        atoms: the atoms (scikit-learn's ``components_``, the transpose of the Φ of Olshausen & Field).

    Raises:
        ValueError: at construction, for atoms that are not a real matrix and, where the values are known,
            for a row that is zero or not finite.
    """

    atoms: Float[Array, "atoms features"]

    def __init__(self, atoms: Float[ArrayLike, "atoms features"]):
        self.atoms = jnp.asarray(atoms)

    def __check_init__(self):
        check_rank("atoms", self.atoms, "atoms features")
        check_real("atoms", self.atoms)
        check_atoms(self.atoms)

    @property
    def n_atoms(self) -> int:
        """The number of atoms, hence of coefficients in a code."""
        return self.atoms.shape[0]

    @property
    def n_features(self) -> int:
        """The number of features of a datum."""
        return self.atoms.shape[1]

    def reconstruct(self, code: Float[ArrayLike, "*batch atoms"]) -> Float[Array, "*batch features"]:
        """Return ``code @ atoms``."""
        return product(code, self.atoms)

    def correlate(self, x: Float[ArrayLike, "*batch features"]) -> Float[Array, "*batch atoms"]:
        """Return ``x @ atomsᵀ``."""
        return product(x, self.atoms.T)

    def gram(self) -> Float[Array, "atoms atoms"]:
        """Return ``atoms @ atomsᵀ``."""
        return product(self.atoms, self.atoms.T)

    def empty_code(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch atoms"]:
        """Return zeros of the code's shape, in the dtype that ``x`` and the atoms promote to."""
        check_real("x", x)
        check_size("x", x, -1, self.n_features, "features of the dictionary")
        return jnp.zeros((*x.shape[:-1], self.n_atoms), jnp.result_type(x, self.atoms))


def check_atoms(atoms) -> None:
    """Raise ``ValueError`` for the first row of concrete ``atoms`` that is zero or not finite."""
    if not is_concrete(atoms):
        return
    rows, xp = (atoms, jnp) if is_elsewhere(atoms) else (np.asarray(atoms), np)
    for fault, bad in (("not finite", ~xp.isfinite(rows).all(axis=1)), ("zero", ~rows.any(axis=1))):
        bad = gather(bad)
        if bad.any():
            raise ValueError(
                f"atoms: expected finite, non-zero rows, got {bad.sum()} that are {fault}; "
                f"the first is row {np.flatnonzero(bad)[0]}."
            )


def random_dictionary(key: PRNGKey, n_atoms: int, n_features: int, dtype=jnp.float32) -> Dictionary:
    """Draw atoms uniformly from the unit sphere.

    Args:
        key: a typed PRNG key.
        n_atoms: how many, ≥ 1.
        n_features: their length, ≥ 1.
        dtype: of the atoms.
    """
    check_at_least("n_atoms", n_atoms, 1)
    check_at_least("n_features", n_features, 1)
    return normalize_atoms(Dictionary(jax.random.normal(key, (n_atoms, n_features), dtype)))


def normalize_atoms(dictionary: Dictionary, *, floor: float = 1e-8) -> Dictionary:
    """Scale every atom to unit length: a / max(‖a‖₂, floor).

    Args:
        dictionary: the dictionary.
        floor: the least divisor, so that a vanished atom stays finite.

    Gradient: through the length; at a vanished atom that of a/floor.
    """
    return eqx.tree_at(lambda d: d.atoms, dictionary, unit_rows(dictionary.atoms, floor))


def reconstruct(dictionary: AbstractDictionary, code: Float[ArrayLike, "*code"]) -> Float[Array, "*datum"]:
    """Return the datum that a code stands for, ``code @ atoms``.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.sparse_coding import Dictionary, reconstruct
        >>> reconstruct(Dictionary(jnp.eye(2)), jnp.array([3.0, 4.0])).tolist()
        [3.0, 4.0]
    """
    return dictionary.reconstruct(code)


def correlate(dictionary: AbstractDictionary, x: Float[ArrayLike, "*datum"]) -> Float[Array, "*code"]:
    """Return the correlation of a datum with every atom, ``x @ atomsᵀ``."""
    return dictionary.correlate(x)


def energy(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    code: Float[ArrayLike, "*code"],
    penalty: AbstractPenalty,
) -> Scalar:
    """Compute E = ½‖x − code @ atoms‖² + penalty.value(code).

    Args:
        dictionary: the dictionary.
        x: one datum.
        code: its code.
        penalty: a penalty that has a value.

    Raises:
        ValueError: at trace time, for a penalty without a value (``Log``) and for mismatched shapes.

    Reference:
        Olshausen & Field 1996, eq. 2, with the factor ½.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, energy
        >>> float(energy(Dictionary(jnp.eye(2)), jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]), L1(0.5)))
        1.5
    """
    x = jnp.asarray(x)
    check_shape("code", code, dictionary.empty_code(x).shape, "a coefficient for each atom")
    error = x - dictionary.reconstruct(code)
    return 0.5 * jnp.sum(error**2) + require_value("energy", penalty).value(code)
