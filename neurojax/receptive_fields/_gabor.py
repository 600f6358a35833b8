"""The Gabor function and its parameters."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._arrays import check_same_shape, real_array
from .._gabor import envelope_and_phase

__all__ = ["Gabor", "gabor", "gabor_batch"]


class Gabor(eqx.Module):
    """Parameters of a Gabor function; under ``vmap`` every field gains the batch's axes.

    Attributes:
        row: the envelope's centre, in pixels from the middle of the top row.
        column: the envelope's centre, in pixels from the middle of the leftmost column.
        orientation: of the bars, in degrees in [0, 180), counter-clockwise from horizontal as drawn.
        frequency: of the grating, in cycles per pixel.
        width_across: standard deviation of the envelope across the bars, in pixels.
        width_along: standard deviation of the envelope along the bars, in pixels.
        phase: of the grating at the centre, in degrees in (−180, 180]: 0 is an even, ±90 an odd function.
        amplitude: the envelope's height, ≥ 0, in the atom's units.

    Raises:
        ValueError: at construction, for numbers that are not real and for unequal shapes.
    """

    row: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "row"))
    column: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "column"))
    orientation: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "orientation"))
    frequency: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "frequency"))
    width_across: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "width_across"))
    width_along: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "width_along"))
    phase: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "phase"))
    amplitude: Float[Array, "*batch"] = eqx.field(converter=partial(real_array, "amplitude"))

    def __check_init__(self):
        for name, field in vars(self).items():
            check_same_shape(name, field, "row", self.row)


def gabor(parameters: Gabor, patch_shape: tuple[int, int]) -> Float[Array, "rows columns"]:
    """Draw one Gabor function (the formula of `neurojax.receptive_fields`) on a grid of pixels.

    Args:
        parameters: of one function; batch with ``jax.vmap``.
        patch_shape: rows and columns, in pixels.

    Returns:
        The function's values at the pixels' centres.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.receptive_fields import Gabor, gabor
        >>> parameters = Gabor(3, 3, 90, 0.25, 1.5, 2, 0, 1)
        >>> patch = jax.jit(gabor, static_argnums=1)(parameters, (7, 7))
        >>> float(patch[3, 3]), bool(patch[3, 5] < 0), bool(patch[5, 3] > 0)
        (1.0, True, True)
    """
    grid = pixel_grid(patch_shape, parameters.row.dtype)
    angle = jnp.deg2rad(parameters.orientation)
    shape = Shape(
        parameters.row,
        parameters.column,
        angle,
        jnp.log(parameters.frequency),
        jnp.log(parameters.width_across),
        jnp.log(parameters.width_along),
    )
    cosine, sine = quadrature_pair(jnp.stack(shape), grid)
    phase = jnp.deg2rad(parameters.phase)
    values = parameters.amplitude * (jnp.cos(phase) * cosine - jnp.sin(phase) * sine)
    return values.reshape(patch_shape)


def gabor_batch(parameters: Gabor, patch_shape: tuple[int, int]) -> Float[Array, "atoms features"]:
    """Draw a batch of Gabor functions as flattened patches, as a dictionary holds its atoms.

    Args:
        parameters: each field with one axis, of atoms.
        patch_shape: rows and columns, in pixels.

    Returns:
        One function a row, pixels row-major.
    """
    drawn = jax.vmap(lambda one: gabor(one, patch_shape))(parameters)
    return drawn.reshape(len(drawn), -1)


class Shape(NamedTuple):
    """Parameters that are iterated, as the entries of one vector: pixels, radians, logarithms."""

    row: Array
    column: Array
    angle: Array
    log_frequency: Array
    log_across: Array
    log_along: Array


def quadrature_pair(value, grid):
    """Return the envelope times the cosine, and times the sine, of the grating's phase."""
    shape = Shape(*value)
    envelope, phase = envelope_and_phase(
        (grid[0] - shape.row, grid[1] - shape.column),
        (jnp.cos(shape.angle), jnp.sin(shape.angle)),
        across_scale=jnp.exp(-shape.log_across),
        along_scale=jnp.exp(-shape.log_along),
        frequency=jnp.exp(shape.log_frequency),
    )
    return envelope * jnp.cos(phase), envelope * jnp.sin(phase)


def pixel_grid(patch_shape, dtype):
    rows, columns = jnp.indices(patch_shape, dtype)
    return rows.reshape(-1), columns.reshape(-1)
