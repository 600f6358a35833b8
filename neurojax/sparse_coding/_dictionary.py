"""Dictionaries: the linear map from a code to a datum, its transpose, and the energy they define."""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .._arrays import real_array
from .._checks import (
    check_at_least,
    check_rank,
    check_real,
    check_shape,
    check_size,
    is_concrete,
    is_elsewhere,
)
from .._final import check_bases
from .._precision import at_least_single, product
from .._rows import unit_rows
from .._types import PRNGKey, Scalar
from ..distributed import gather
from ..penalties import AbstractPenalty
from ..proximal._least_squares import checked_weights, without_lost
from ..proximal._problem import require_value

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
    """A linear map from codes to data, both of any shape, for one sample.

    Inference needs four methods: ``reconstruct``, its exact transpose ``correlate``, ``empty_code`` and
    ``gram``. With them a dictionary is encoded, in batches and streams, certified and differentiated.
    Learning needs ``n_atoms``, ``atom_axis`` and ``normalize`` beside; replacement of unused atoms also
    ``replace_atoms``. What a dictionary does not offer is refused by name where it is needed. Concrete
    dictionaries are final: a subclass of one raises ``TypeError`` when it is defined.

    Attributes:
        atom_axis: the axis of a code along which its atoms are numbered; all other axes are places where an
            atom is used, such as the positions of a kernel.
        datum_axes: the names of a datum's axes, divided by spaces, if their number is fixed: other data are
            then refused by these names.
    """

    atom_axis: ClassVar[int] = -1
    datum_axes: ClassVar[str | None] = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        check_bases(cls, AbstractDictionary)

    @abstractmethod
    def reconstruct(self, code: Float[ArrayLike, "..."]) -> Array:
        """Return the datum that a code stands for."""

    @abstractmethod
    def correlate(self, x: Float[ArrayLike, "..."]) -> Array:
        """Apply the transpose: the correlation of a datum with every atom."""

    @abstractmethod
    def gram(self) -> Array | None:
        """Return the matrix of ``correlate(reconstruct(·))``, or ``None`` where it is too large to hold.

        A matrix is for codes of one axis, as rows: ``correlate(reconstruct(code))`` is ``code @ gram``.
        """

    @abstractmethod
    def empty_code(self, x: Array) -> Array:
        """Return the zero code of a datum, after checking the datum's shape and dtype."""

    @property
    def n_atoms(self) -> int:
        """The number of atoms, which is the size of a code along ``atom_axis``."""
        raise ValueError(self._lack("n_atoms", "learning"))

    def normalize(self) -> "AbstractDictionary":
        """Return the dictionary with atoms of unit length.

        Raises:
            ValueError: here, for a dictionary that does not say how.
        """
        raise ValueError(self._lack("normalize()", "learning"))

    def replace_atoms(
        self, is_unused: Bool[Array, " atoms"], data: Float[Array, " data *datum"]
    ) -> tuple["AbstractDictionary", Bool[Array, " atoms"]]:
        """Put data in the places of unused atoms; return the dictionary, and which atoms were replaced.

        Args:
            is_unused: which atoms to replace.
            data: the worst explained data of a batch, worst first, at unit length; zeros where there are no
                more. Each is to be used once.

        Raises:
            ValueError: here, for a dictionary that does not say how.
        """
        del is_unused, data
        raise ValueError(self._lack("replace_atoms()", "the replacement of unused atoms"))

    def dense_atoms(self) -> Float[Array, "atoms features"] | None:
        """Return the matrix of the atoms if it is at hand, for short cuts, else ``None``, as here."""
        return None

    def check_values(self) -> None:
        """Raise ``ValueError`` for concrete atoms that no inference can use; here: do nothing."""

    def _lack(self, method: str, purpose: str) -> str:
        return (
            f"dictionary: expected one with {method}, which {purpose} needs, got {type(self).__name__}, "
            "which has none."
        )


class Dictionary(AbstractDictionary):
    """One atom per row: x ≈ code @ atoms.

    Attributes:
        atoms: the atoms (scikit-learn's ``components_``, the transpose of the Φ of Olshausen & Field).

    Raises:
        ValueError: at construction, for atoms that are not a real matrix and, where the values are known,
            for a row that is zero or not finite.
    """

    atoms: Float[Array, "atoms features"]
    datum_axes: ClassVar[str | None] = "features"

    def __init__(self, atoms: Float[ArrayLike, "atoms features"]):
        self.atoms = real_array("atoms", atoms)

    def __check_init__(self):
        check_rank("atoms", self.atoms, "atoms features")
        check_real("atoms", self.atoms)
        self.check_values()

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
        code = real_array("code", code)
        _check_last("code", code, self.n_atoms, "coefficients, one for each atom")
        return product(code, self.atoms)

    def correlate(self, x: Float[ArrayLike, "*batch features"]) -> Float[Array, "*batch atoms"]:
        """Return ``x @ atomsᵀ``."""
        x = real_array("x", x)
        _check_last("x", x, self.n_features, "features of the dictionary")
        return product(x, self.atoms.T)

    def gram(self) -> Float[Array, "atoms atoms"]:
        """Return ``atoms @ atomsᵀ``."""
        return product(self.atoms, self.atoms.T)

    def empty_code(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch atoms"]:
        """Return zeros of the code's shape, in the dtype that ``x`` and the atoms promote to."""
        x = real_array("x", x)
        _check_last("x", x, self.n_features, "features of the dictionary")
        return jnp.zeros((*x.shape[:-1], self.n_atoms), jnp.result_type(x, self.atoms))

    def normalize(self) -> "Dictionary":
        """Return the dictionary with atoms of unit length, by `normalize_atoms`."""
        return normalize_atoms(self)

    def replace_atoms(
        self, is_unused: Bool[Array, " atoms"], data: Float[Array, "data features"]
    ) -> tuple["Dictionary", Bool[Array, " atoms"]]:
        """Put data, as they come and each once, in the places of unused atoms; say which were replaced."""
        rank = jnp.cumsum(is_unused) - 1
        fresh = data[jnp.minimum(rank, data.shape[0] - 1)].astype(self.atoms.dtype)
        is_replaced = is_unused & (rank < data.shape[0]) & jnp.any(fresh != 0, axis=1)
        atoms = jnp.where(is_replaced[:, None], fresh, self.atoms)
        return eqx.tree_at(lambda d: d.atoms, self, atoms), is_replaced

    def dense_atoms(self) -> Float[Array, "atoms features"]:
        """Return the atoms."""
        return self.atoms

    def check_values(self) -> None:
        """Raise ``ValueError`` for the first row of concrete atoms that is zero or not finite."""
        if not is_concrete(self.atoms):
            return
        rows, xp = (self.atoms, jnp) if is_elsewhere(self.atoms) else (np.asarray(self.atoms), np)
        for fault, bad in (("not finite", ~xp.isfinite(rows).all(axis=1)), ("zero", ~rows.any(axis=1))):
            bad = gather(bad)
            if bad.any():
                raise ValueError(
                    f"atoms: expected finite, non-zero rows, got {bad.sum()} that are {fault}; "
                    f"the first is row {np.flatnonzero(bad)[0]}."
                )


def _check_last(name: str, value: Array, size: int, meaning: str) -> None:
    """Raise ``ValueError`` unless an array has a last axis of this size."""
    if value.ndim == 0:
        raise ValueError(f"{name}: expected {size} {meaning}, got a single number.")
    check_size(name, value, -1, size, meaning)


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
    *,
    weights: Float[ArrayLike, "*datum"] | None = None,
) -> Scalar:
    """Compute E = ½‖x − code @ atoms‖² + penalty.value(code); with weights ½ Σ w·(x − code @ atoms)² + ….

    Args:
        dictionary: the dictionary.
        x: one datum.
        code: its code.
        penalty: a penalty that has a value.
        weights: w ≥ 0 of the datum's shape; ``None``: 1. Where it is 0 the datum may be NaN.

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
    x, code = real_array("x", x), real_array("code", code)
    check_shape("code", code, dictionary.empty_code(x).shape, "a coefficient for each atom")
    error = at_least_single(x - dictionary.reconstruct(code))
    if weights is None:
        squares = error**2
    else:
        error, w = without_lost(error, checked_weights("weights", weights, error))
        squares = w * error**2
    return 0.5 * jnp.sum(squares) + require_value("energy", penalty).value(code)
