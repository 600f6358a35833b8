"""Selection of the active units of a sparse autoencoder from its activations."""

from abc import abstractmethod
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._arrays import check_same_shape, real_array
from .._checks import check_at_least, check_positive, is_concrete
from .._precision import at_least_single
from .._types import Scalar
from ._layers import setting

__all__ = ["AbstractSelection", "BatchTopK", "JumpReLU", "ReLU", "TopK", "jump_relu", "top_k", "top_k_batch"]

Units = Float[Array, " units"]
UnitsOfBatch = Float[Array, "batch units"]


def top_k(activations: Units, k: int) -> Units:
    """Keep the k largest activations as they are, and put 0 for the others.

    Exactly k units are kept; of equal ones those that come first. Nothing is cut off at 0.

    Args:
        activations: of one datum.
        k: from 1 to the number of units.

    Gradient: 1 for the units kept, 0 for the others.

    Reference:
        Makhzani & Frey 2014, k-sparse autoencoders.

    Example:
        >>> import jax.numpy as jnp
        >>> top_k(jnp.array([3.0, 1.0, 2.0, 2.0]), 2)
        Array([3., 0., 2., 0.], dtype=float32)
    """
    activations = real_array("activations", activations, "units")
    _check_k(k, activations.shape[0])
    values, places = lax.top_k(activations, k)
    return jnp.zeros_like(activations).at[places].set(values, unique_indices=True)


def top_k_batch(activations: UnitsOfBatch, k: int) -> UnitsOfBatch:
    """Keep the k·batch largest activations of a whole batch, so k a datum on average; 0 for the others.

    Args:
        activations: of a batch.
        k: from 1 to the number of units.

    Reference:
        Bussmann, Leask & Nanda 2024, BatchTopK sparse autoencoders.

    Example:
        >>> import jax.numpy as jnp
        >>> top_k_batch(jnp.array([[3.0, 4.0, 5.0], [0.0, 2.0, 1.0]]), 1)
        Array([[0., 4., 5.],
               [0., 0., 0.]], dtype=float32)
    """
    activations = real_array("activations", activations, "batch units")
    n_rows, n_units = activations.shape
    _check_k(k, n_units)
    return top_k(activations.reshape(-1), k * n_rows).reshape(activations.shape)


def _check_k(k: int, n_units: int) -> None:
    check_at_least("k", k, 1)
    if k > n_units:
        raise ValueError(f"k: expected at most the {n_units} units there are, got {k}.")


def jump_relu(activations: Units, threshold: Units, bandwidth: Scalar | float) -> Units:
    """Compute a where a > threshold, else 0.

    Args:
        activations: a.
        threshold: of each unit.
        bandwidth: ε of the pseudo-gradient, > 0.

    Raises:
        ValueError: at trace time, for other than one axis, and for unequal shapes.

    Gradient: in a, 1 where a > threshold; in the threshold, which the function jumps at, the
    pseudo-gradient −(threshold/ε)·[|a − threshold| < ε/2]: its mean over data is the derivative of the mean,
    −threshold·p(threshold), with the density p of a told by a box of width ε.

    Reference:
        Rajamanoharan et al. 2024, Jumping ahead: improving reconstruction fidelity with JumpReLU sparse
        autoencoders.
    """
    activations = real_array("activations", activations, "units")
    threshold = real_array("threshold", threshold, "units")
    check_same_shape("threshold", threshold, "activations", activations)
    # A pseudo-gradient must have its value's dtype.
    return _jump_relu(activations, threshold.astype(activations.dtype), real_array("bandwidth", bandwidth))


@jax.custom_jvp
def _jump_relu(activations, threshold, bandwidth):
    return jnp.where(activations > threshold, activations, 0)


@_jump_relu.defjvp
def _jump_relu_jvp(primals, tangents):
    (a, threshold, bandwidth), (d_a, d_threshold, _) = primals, tangents
    slope = -threshold * _box(a - threshold, bandwidth)
    return _jump_relu(a, threshold, bandwidth), jnp.where(a > threshold, d_a, 0) + slope * d_threshold


@jax.custom_jvp
def _is_above(activations, threshold, bandwidth):
    return (activations > threshold).astype(activations.dtype)


@_is_above.defjvp
def _is_above_jvp(primals, tangents):
    (a, threshold, bandwidth), (_, d_threshold, _) = primals, tangents
    return _is_above(a, threshold, bandwidth), -_box(a - threshold, bandwidth) * d_threshold


def _box(distance, bandwidth):
    inside = jnp.asarray(1 / bandwidth, distance.dtype)
    return jnp.where(jnp.abs(distance) < bandwidth / 2, inside, 0)


class AbstractSelection(eqx.Module):
    """From the encoder's numbers to a code that is mostly 0."""

    @abstractmethod
    def __call__(self, activations: Units) -> Units:
        """Return the code of one datum."""

    @abstractmethod
    def select_batch(self, activations: UnitsOfBatch) -> UnitsOfBatch:
        """Return the codes of a batch as learning takes them."""

    @abstractmethod
    def check_size(self, n_units: int) -> None:
        """Raise ``ValueError`` for a number of units that it cannot select from."""


class ReLU(AbstractSelection):
    """max(a, 0); how many units are active is left to an L1 penalty."""

    def __call__(self, activations):
        """Return max(a, 0)."""
        return jax.nn.relu(real_array("activations", activations, "units"))

    def select_batch(self, activations):
        """Return max(a, 0)."""
        return jax.nn.relu(real_array("activations", activations, "batch units"))

    def check_size(self, n_units):
        """Do nothing: any number will do."""


class TopK(AbstractSelection):
    """The k largest activations of each datum, as they are (`top_k`).

    Attributes:
        k: active units a datum.

    Reference:
        Makhzani & Frey 2014; Gao et al. 2024, Scaling and evaluating sparse autoencoders.
    """

    k: int = eqx.field(static=True)

    def __check_init__(self):
        check_at_least("k", self.k, 1)

    def __call__(self, activations):
        """Return the code of one datum."""
        return top_k(activations, self.k)

    def select_batch(self, activations):
        """Return the code of each datum."""
        return jax.vmap(self)(real_array("activations", activations, "batch units"))

    def check_size(self, n_units):
        """Raise ``ValueError`` if k is larger than the number of units."""
        _check_k(self.k, n_units)


class BatchTopK(AbstractSelection):
    """While learning, the k·batch largest positive activations of a batch; of one datum, those above a limit.

    Attributes:
        k: active units a datum, on average.
        threshold: at inference; below 0 until `SparseAutoencoderUpkeep` sets it to the mean over batches of
            the smallest activation that was kept. Learning's gradient does not see it.

    Raises:
        ValueError: where the code of one datum is asked for and the threshold is a concrete number below 0;
            where it is traced, such a code is NaN.

    Reference:
        Bussmann et al. 2024.
    """

    k: int = eqx.field(static=True)
    threshold: Float[Array, ""] = eqx.field(
        default_factory=lambda: jnp.full((), -1.0), converter=partial(real_array, "threshold")
    )

    def __check_init__(self):
        check_at_least("k", self.k, 1)

    def __call__(self, activations):
        """Return a where a is positive and at least the threshold, else 0."""
        if is_concrete(self.threshold) and not np.asarray(self.threshold) >= 0:
            raise ValueError(
                "threshold: expected one ≥ 0, as learning sets it by fit(..., "
                f"after_update=SparseAutoencoderUpkeep()), got {self.threshold}."
            )
        activations = real_array("activations", activations, "units")
        threshold = lax.stop_gradient(self.threshold)  # not rounded to the activations, which may be half
        code = jnp.where((activations >= threshold) & (activations > 0), activations, 0)
        return jnp.where(threshold >= 0, code, jnp.nan)

    def select_batch(self, activations):
        """Return max(a, 0) of the k·batch largest."""
        return top_k_batch(jax.nn.relu(real_array("activations", activations, "batch units")), self.k)

    def check_size(self, n_units):
        """Raise ``ValueError`` if k is larger than the number of units."""
        _check_k(self.k, n_units)


class JumpReLU(AbstractSelection):
    """a where a is above its unit's threshold, else 0, the thresholds learned (`jump_relu`).

    Attributes:
        log_threshold: log of each threshold, so that they stay positive.
        bandwidth: of the pseudo-gradient, > 0, in units of a. Too narrow a one sees no data and the
            thresholds stay where they are.

    Reference:
        Rajamanoharan et al. 2024.
    """

    log_threshold: Float[Array, " units"] = eqx.field(converter=partial(real_array, "log_threshold"))
    bandwidth: Scalar | float = eqx.field(default=0.05, converter=setting("bandwidth"))

    def __check_init__(self):
        check_positive("bandwidth", self.bandwidth)

    @classmethod
    def from_threshold(cls, n_units: int, threshold: float = 0.05, bandwidth: float = 0.05) -> "JumpReLU":
        """Start all thresholds at one number > 0."""
        check_at_least("n_units", n_units, 1)
        check_positive("threshold", threshold)
        return cls(jnp.full(n_units, jnp.log(threshold)), bandwidth)

    @property
    def threshold(self) -> Units:
        """The threshold of each unit."""
        return jnp.exp(self.log_threshold)

    def __call__(self, activations):
        """Return the code of one datum."""
        activations = real_array("activations", activations, "units")
        return jump_relu(activations, self._threshold(activations), self.bandwidth)

    def select_batch(self, activations):
        """Return the code of each datum."""
        return jax.vmap(self)(real_array("activations", activations, "batch units"))

    def n_active(self, activations: Units) -> Scalar:
        """Count the units above their thresholds, with the pseudo-gradient −(1/ε)·[|a − threshold| < ε/2].

        In float32 at least, which half precision could not count in.
        """
        activations = at_least_single(real_array("activations", activations, "units"))
        return jnp.sum(_is_above(activations, self._threshold(activations), self.bandwidth))

    def _threshold(self, activations: Units) -> Units:
        # A pseudo-gradient must have its value's dtype, and data of float32 may come under x64.
        return self.threshold.astype(activations.dtype)

    def check_size(self, n_units):
        """Raise ``ValueError`` for another number of units."""
        if self.log_threshold.shape != (n_units,):
            raise ValueError(
                f"log_threshold: expected shape ({n_units},), one for each unit, got "
                f"{self.log_threshold.shape}."
            )
