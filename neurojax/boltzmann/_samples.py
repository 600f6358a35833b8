"""A two-sample test of what a machine draws: adversarial accuracy."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_size
from .._precision import at_least_single, product
from .._rows import unit_of
from .._types import Scalar
from ._checks import check_data

__all__ = ["AdversarialAccuracy", "adversarial_accuracy"]


class AdversarialAccuracy(NamedTuple):
    """Shares of rows whose nearest neighbour is of their own set: each ½ for samples like the data.

    Attributes:
        value: the mean of the two; 1 where sets lie apart (underfitting), 0 where samples copy the data.
        data: the share among the data; near 1 means that samples do not cover the data.
        samples: the share among the samples; near 1 means that samples do not look like data.
    """

    value: Scalar
    data: Scalar
    samples: Scalar


def adversarial_accuracy(
    data: Float[ArrayLike, "n features"], samples: Float[ArrayLike, "n features"]
) -> AdversarialAccuracy:
    """Compute the nearest-neighbour adversarial accuracy of samples against data (AATS).

    ½·(mean 1[d_TS(i) > d_TT(i)] + mean 1[d_ST(i) > d_SS(i)]), d_AB(i) the distance of row i of A to the
    nearest row of B, itself left out; a tie counts half.

    Args:
        data: T, held-out rows.
        samples: S, as many rows: the two terms are comparable only for sets of one size.

    Raises:
        ValueError: for sets of other sizes, or of fewer than 2 rows.

    Reference:
        Yale et al. 2020, Generation and evaluation of privacy preserving synthetic health data.
    """
    data, samples = check_data("data", data), check_data("samples", samples)
    check_size("samples", samples, 0, data.shape[0], "rows, as many as data,")
    check_size("samples", samples, 1, data.shape[1], "features, as data,")
    if len(data) < 2:
        raise ValueError(f"data: expected at least 2 rows, got shape {data.shape}.")
    real, drawn = _in_their_own_unit(data, samples)
    across = _squared_distances(real, drawn)
    own_data = _share(jnp.min(across, axis=1), _nearest_other(real))
    own_samples = _share(jnp.min(across, axis=0), _nearest_other(drawn))
    return AdversarialAccuracy((own_data + own_samples) / 2, own_data, own_samples)


@jax.jit
def _in_their_own_unit(data: Array, samples: Array) -> tuple[Array, Array]:
    """Return both sets in a unit whose squares are finite: a power of two, which rounds nothing."""
    data, samples = at_least_single((data, samples))
    unit = jnp.maximum(unit_of(data), unit_of(samples))
    return data / unit, samples / unit


def _share(to_other: Array, to_own: Array) -> Scalar:
    return jnp.mean((jnp.sign(to_other - to_own) + 1) / 2)


def _nearest_other(rows: Array) -> Array:
    distances = _squared_distances(rows, rows)
    return jnp.min(jnp.where(jnp.eye(len(rows), dtype=bool), jnp.inf, distances), axis=1)


@jax.jit
def _squared_distances(rows: Array, others: Array) -> Array:
    # About a row, so that a common offset does not cancel; binary rows stay multiples of the unit, and exact.
    rows, others = rows - rows[0], others - rows[0]
    squares = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)
    return squares - 2 * product(rows, others.T)
