"""Gratings: full field and in a patch, sinusoidal and square, and those of the course to the pixel.

Images are (rows, columns), row 0 at the top, in units of the mean luminance about it: 0 is mean grey.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._arrays import device_array, real_array
from .._checks import check_at_least, check_finite, check_positive, check_rank, check_share, is_concrete
from ._angles import warn_unless_degrees

__all__ = [
    "check_image_shape",
    "cos_sin_degrees",
    "course_grating",
    "course_gratings",
    "finite_number",
    "grating",
    "offsets",
    "positive_number",
]

Waveform = Literal["sinusoidal", "square"]
Scalar = Real[ArrayLike, ""]

_COURSE_SHAPE = (480, 640)  # at resolution 1
_RADIANS_PER_PIXEL = 1 / 28
_PATCH_TURN_RADIANS = 0.1


def grating(
    direction_degrees: Scalar,
    shape: tuple[int, int],
    *,
    period: Scalar,
    phase_degrees: Scalar = 0,
    contrast: Scalar = 1,
    waveform: Waveform = "sinusoidal",
    center: tuple[Scalar, Scalar] | None = None,
    radius: Scalar | None = None,
    pixels_per_degree: Scalar = 1,
) -> Float[Array, "rows columns"]:
    """Draw one grating, sinusoidal or square, over the whole image or in a circular patch.

    With d the direction, (y, x) the way down and to the right from the centre, and u = x·cos d − y·sin d, the
    turns are t = u/period − phase/360, and the value is contrast·cos(2πt), or for a square wave
    contrast·sign(cos(2πt)), which is 0 exactly on an edge. So the direction is the way from bar to bar, at a
    right angle to the bars, counter-clockwise from rightward as drawn (0° right, 90° up), and a growing phase
    moves the grating that way, a period for 360°. At phase 0, where a bright bar lies on the centre, d and
    d + 180° are the same image, pixel for pixel.

    Lengths (``period``, ``center``, ``radius``) are degrees of visual angle, or pixels as long as
    ``pixels_per_degree`` is 1. Batch with ``jax.vmap`` over any of the numbers.

    Args:
        direction_degrees: d; fixes the dtype (a Python number: JAX's default).
        shape: rows and columns, in pixels.
        period: of a bright and a dark bar together, > 0.
        phase_degrees: of the grating at the centre.
        contrast: Michelson's, 0 to 1.
        waveform: ``"sinusoidal"`` or ``"square"``.
        center: (row, column) where the phase is counted from and the patch lies, from the middle of the top
            left pixel; by default the middle of the image.
        radius: of the patch, > 0: where √(x² + y²) ≥ radius the image is 0. By default there is none.
        pixels_per_degree: how many pixels a degree of visual angle has, > 0.

    Returns:
        The image, in [−contrast, contrast].

    Raises:
        ValueError: for a shape, a length, a contrast or a waveform that is not one.

    Gradient: with respect to every number for sinusoids; zero for the edges of a square wave and of a patch.

    Example:
        >>> print(grating(0.0, (2, 4), period=4, center=(0, 0)).round(3) + 0)
        [[ 1.  0. -1.  0.]
         [ 1.  0. -1.  0.]]
    """
    check_image_shape(shape)
    direction = real_array("direction_degrees", direction_degrees)
    check_finite("direction_degrees", direction_degrees)
    period = positive_number("period", period)
    phase_degrees = finite_number("phase_degrees", phase_degrees)
    contrast = real_array("contrast", contrast)
    check_share("contrast", contrast)
    pixels_per_degree = positive_number("pixels_per_degree", pixels_per_degree)
    if waveform not in get_args(Waveform):
        raise ValueError(f"waveform: expected one of {get_args(Waveform)}, got {waveform!r}.")
    rows, columns = offsets(shape, center, pixels_per_degree, direction.dtype)
    cos, sin = cos_sin_degrees(direction)
    turns = (columns * cos - rows * sin) / period - phase_degrees / 360
    from_bright = jnp.abs(turns - jnp.round(turns))  # 0 on a bright bar, 1/2 on a dark one
    wave = jnp.sign(0.25 - from_bright) if waveform == "square" else jnp.cos(2 * jnp.pi * from_bright)
    image = jnp.multiply(contrast, wave)
    if radius is not None:
        radius = positive_number("radius", radius)
        image = jnp.where(rows**2 + columns**2 < radius**2, image, 0)
    return image.astype(direction.dtype)


def course_grating(
    angle_degrees: Scalar, resolution: float | int = 1.0, *, is_patch: bool = False
) -> Float[Array, "rows columns"]:
    """Draw one square-wave grating of the course's decoding tutorial, to the pixel.

    With a the angle, s = 1/28 radian, and x, y = 0, 1, 2, … the column and the row, the value is ½ where
    cos((s·x/resolution)·cos a + (s·y/resolution)·sin a) > 0 and −½ elsewhere: a period of 176 pixels at full
    resolution. The patch adds 0.1 to a in radians (which turns the grating) and shows it where the distance
    from (0.75·columns, 0.5·rows) is less than (640/6)·resolution, with 0 outside. Rows run downwards, so the
    angle is clockwise from rightward as drawn, unlike in `grating`; a and a + 180° are the same full-field
    image.

    An angle that is known now is worked on in double precision, as in the course. One that JAX traces (under
    ``jit``, ``vmap``, ``grad``) is worked on in its own dtype, so that in float32 a few pixels in ten
    million, next to an edge, come out on the other side of it; `course_gratings` draws many without that.

    Args:
        angle_degrees: a; fixes the dtype of the image (a Python number: JAX's default).
        resolution: 1 for 480 × 640 pixels, 0.025 for the 12 × 16 that the course's encoder sees.
        is_patch: whether to show it in a patch on the right.

    Returns:
        The image, −½, 0 or ½. Its gradient is zero.

    Raises:
        ValueError: for an angle that is not finite or a resolution that is not in (0, 1].

    Reference: Neuromatch Academy (2021), Computational Neuroscience, Deep Learning 1 (decoding and encoding).

    Example:
        >>> image = course_grating(0.0, 0.025)
        >>> image.shape, [float(value) for value in image[0, :6]]
        ((12, 16), [0.5, 0.5, -0.5, -0.5, 0.5, 0.5])
    """
    angle = real_array("angle_degrees", angle_degrees)
    check_finite("angle_degrees", angle_degrees)
    check_resolution(resolution)
    if is_concrete(angle_degrees):
        return course_gratings(np.asarray(angle_degrees)[None], resolution, is_patch=is_patch)[0]
    rows, columns = (jnp.asarray(steps, angle.dtype) for steps in _course_radians(resolution))
    cos, sin = cos_sin_degrees(angle + float(np.rad2deg(_PATCH_TURN_RADIANS)) * is_patch)
    half = jnp.asarray(0.5, angle.dtype)
    image = jnp.where(jnp.cos(columns * cos + rows * sin) > 0, half, -half)
    return jnp.where(_course_patch(resolution), image, 0) if is_patch else image


def course_gratings(
    angles_degrees: Real[ArrayLike, " images"], resolution: float | int = 1.0, *, is_patch: bool = False
) -> Float[Array, "images rows columns"]:
    """Draw `course_grating` for each of many angles, in double precision if they are known now.

    Args:
        angles_degrees: the angles; they fix the dtype of the images.
        resolution: as in `course_grating`.
        is_patch: as in `course_grating`.

    Raises:
        ValueError: as `course_grating`.

    Example:
        >>> course_gratings(np.arange(-180, 180, 6), 0.025).shape  # the stimuli of the course's encoder
        (60, 12, 16)
    """
    dtype = real_array("angles_degrees", angles_degrees, "images").dtype
    check_finite("angles_degrees", angles_degrees)
    warn_unless_degrees("angles_degrees", angles_degrees, np.inf)
    if not is_concrete(angles_degrees):
        return jax.vmap(lambda angle: course_grating(angle, resolution, is_patch=is_patch))(angles_degrees)
    check_resolution(resolution)
    rows, columns = _course_radians(resolution)
    images = np.empty((np.size(angles_degrees), len(rows), len(columns)), dtype)
    angles = np.deg2rad(np.asarray(angles_degrees, np.float64)) + _PATCH_TURN_RADIANS * is_patch
    for image, angle in zip(images, angles, strict=True):
        image[:] = np.where(np.cos(columns * np.cos(angle) + rows * np.sin(angle)) > 0, 0.5, -0.5)
    if is_patch:
        images *= _course_patch(resolution)
    return device_array(images)


def _course_pixels(resolution):
    """Return the rows (rows, 1) and columns there are at a resolution, as NumPy's float64 ranges."""
    rows, columns = (np.arange(0, size * resolution) for size in _COURSE_SHAPE)
    return rows[:, None], columns


def _course_radians(resolution):
    rows, columns = _course_pixels(resolution)
    return _RADIANS_PER_PIXEL * rows / resolution, _RADIANS_PER_PIXEL * columns / resolution


def _course_patch(resolution):
    rows, columns = _course_pixels(resolution)
    distance = np.sqrt((columns - 0.75 * len(columns)) ** 2 + (rows - len(rows) / 2) ** 2)
    return distance < _COURSE_SHAPE[1] / 6 * resolution


def check_resolution(resolution) -> None:
    """Raise ``ValueError`` unless the resolution is a number in (0, 1]."""
    if not 0 < resolution <= 1:
        raise ValueError(f"resolution: expected a number in (0, 1], got {resolution!r}.")


def check_image_shape(shape) -> None:
    """Raise ``ValueError`` unless ``shape`` is two whole numbers ≥ 1."""
    check_rank("shape", shape, "sizes")
    if len(shape) != 2:
        raise ValueError(f"shape: expected 2 sizes (rows, columns), got {shape!r}.")
    for size in shape:
        check_at_least("shape", size, 1)


def positive_number(name: str, value) -> Array:
    """Return a real number as an array, or raise ``ValueError`` unless it is above zero."""
    number = real_array(name, value)
    check_positive(name, value)
    return number


def finite_number(name: str, value) -> Array:
    """Return a real number as an array, or raise ``ValueError`` unless it is finite."""
    number = real_array(name, value)
    check_finite(name, value)
    return number


@jax.jit
def cos_sin_degrees(angle: Array) -> tuple[Array, Array]:
    """Return cosine and sine, exact at multiples of 90° and exactly odd under half a turn."""
    quarters = jax.lax.stop_gradient(jnp.round(angle / 90))
    rest = jnp.deg2rad(angle - 90 * quarters)
    cos, sin = jnp.cos(rest), jnp.sin(rest)
    quarter = jnp.mod(quarters, 4)
    return (
        jnp.select([quarter == 0, quarter == 1, quarter == 2], [cos, -sin, -cos], sin),
        jnp.select([quarter == 0, quarter == 1, quarter == 2], [sin, cos, -sin], -cos),
    )


def offsets(shape, center, pixels_per_degree, dtype) -> tuple[Array, Array]:
    """Return how far down (rows, 1) and to the right (columns) of the centre each pixel lies, in degrees."""
    down, right = (jnp.arange(size, dtype=dtype) for size in shape)
    if center is None:
        down, right = down - (shape[0] - 1) / 2, right - (shape[1] - 1) / 2
        return (down / pixels_per_degree)[:, None], right / pixels_per_degree
    if len(center) != 2:
        raise ValueError(f"center: expected a row and a column, got {center!r}.")
    row, column = (finite_number("center", place) for place in center)
    return (down / pixels_per_degree - row)[:, None], right / pixels_per_degree - column
