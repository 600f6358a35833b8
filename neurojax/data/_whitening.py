"""Whitening: the filter of 1996 for whole images, and ZCA and PCA for patches, each with its inverse.

Half precision is computed and returned in float32.
"""

from typing import Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import (
    check_at_least,
    check_finite,
    check_nonnegative,
    check_positive,
    check_size,
    is_concrete,
)
from .._precision import at_least_single
from .._rows import centered, unit_of

__all__ = ["Whitening", "fit_whitening", "rescale_variance", "unwhiten_1996", "whiten_1996"]

Image = Float[ArrayLike, "*images rows columns"]
Kind = Literal["zca", "pca"]


def whiten_1996(images: Image, cutoff: float = 0.4) -> Float[Array, "*images rows columns"]:
    """Flatten the spectrum of natural images, and cut its corners off, as in the 1996 sparse coding paper.

    Multiplies the two-dimensional Fourier transform of each image by R(f) = f·exp(−(f/f₀)⁴), with f the
    radial frequency in cycles per image and f₀ = cutoff·N cycles per image for N × N pixels. For another
    shape, f is the frequency in cycles per pixel times √(rows·columns), and f₀ = cutoff·√(rows·columns). The
    image is taken as periodic: where opposite edges differ, a seam of a few pixels stands out along them.

    Args:
        images: one image or several, any scale.
        cutoff: f₀ in cycles per pixel, > 0; the paper's 0.4 is 80 % of the Nyquist frequency.

    Returns:
        The filtered images, each with mean 0 (R(0) = 0) and with a variance that the filter leaves as it
        comes out; see `rescale_variance`.

    Raises:
        ValueError: at trace time, for a rank below 2, numbers that are not real, or a cutoff not above 0.

    Gradient: linear in ``images``.

    Reference: Olshausen, Field (1997), Sparse coding with an overcomplete basis set: a strategy employed by
    V1?, Vision Research 37, 3311-3325, "Methods".

    Example:
        >>> import jax
        >>> image = jax.random.uniform(jax.random.key(0), (64, 64))
        >>> white = whiten_1996(image)
        >>> back = unwhiten_1996(white)
        >>> bool(jnp.allclose(back, image - image.mean(), atol=1e-3))
        True
    """
    images = _check_image(images, cutoff)
    return _filtered(images, _response(images.shape[-2:], cutoff).astype(images.dtype))


def unwhiten_1996(images: Image, cutoff: float = 0.4) -> Float[Array, "*images rows columns"]:
    """Undo `whiten_1996`, but for the mean of each image, which it does not keep.

    Divides the two-dimensional Fourier transform by R(f), and sets its zero frequency to 0. At the default
    cutoff R's smallest value, in the corners of the spectrum, is about 5,400 times below its largest:
    whitening and unwhitening a photograph in float32 returns it to 1e-4 of its standard deviation
    everywhere (1e-5 on average), but what was added in between (a reconstruction's error, rounding to few
    digits) is amplified by R's inverse, up to 50 in the corners and 1 at the lowest frequency. A lower cutoff
    makes this worse fast: the ratio is 6e12 at 0.3.

    Args:
        images: one whitened image or several.
        cutoff: as given to `whiten_1996`.

    Returns:
        The images with a natural spectrum and with mean 0, on the scale from before whitening if that scale
        was kept.

    Raises:
        ValueError: at trace time, as `whiten_1996`, and for a cutoff so low that the filter is not
            invertible in the images' precision (its values span more than 1/eps).

    Gradient: linear in ``images``.

    Reference: Olshausen, Field (1997), as `whiten_1996`.
    """
    images = _check_image(images, cutoff)
    response = _response(images.shape[-2:], cutoff)
    ratio = np.max(response) / np.min(response, where=response > 0, initial=np.inf)
    if not ratio * jnp.finfo(images.dtype).eps < 1:
        raise ValueError(
            f"cutoff: expected a filter that {images.dtype} can invert, got one whose values span a factor "
            f"of {ratio:.2g} at cutoff {cutoff}."
        )
    response[0, 0] = np.inf
    return _filtered(images, np.asarray(1 / response, images.dtype))


def rescale_variance(images: Image, variance: float = 0.1) -> Float[Array, "*images rows columns"]:
    """Multiply a whole set of images by one number, so that their variances have a given mean.

    Computes images·√(variance / mean over images of var(image)), var about the image's own mean.

    Args:
        images: one image or several.
        variance: the mean variance wanted, > 0. The 1996 software's text asks for 0.1; the 1996 images as
            distributed have 0.079.

    Returns:
        The images on the new scale.

    Raises:
        ValueError: for a variance that is not above 0, and (where values are known) for constant images.

    Example:
        >>> images = jnp.stack([jnp.eye(4), 3 * jnp.eye(4)])
        >>> round(float(jnp.var(rescale_variance(images), axis=(1, 2)).mean()), 6)
        0.1
    """
    check_positive("variance", variance)
    images = _check_image(images, cutoff=1.0)
    moved = images - images[..., :1, :1]  # exactly 0 for constant images
    unit = unit_of(moved)
    present = jnp.mean(jnp.var(moved / unit, axis=(-2, -1)))
    if is_concrete(present) and not present > 0:
        raise ValueError(f"images: expected a mean variance above 0, got {present}.")
    return images / unit * jnp.sqrt(jnp.asarray(variance, images.dtype) / present)


class Whitening(eqx.Module):
    """An affine map that makes patches white, and its inverse; see `fit_whitening`.

    Attributes:
        mean: the mean that is subtracted first.
        matrix: applied from the right.
        inverse_matrix: its inverse; with fewer components than features, its pseudo-inverse.
    """

    mean: Float[Array, " features"]
    matrix: Float[Array, "features components"]
    inverse_matrix: Float[Array, "components features"]

    def whiten(self, patches: Float[ArrayLike, "*batch features"]) -> Float[Array, "*batch components"]:
        """Return (patches − mean) @ matrix."""
        patches = real_array("patches", patches)
        check_size("patches", patches, -1, len(self.mean), "features")
        return jnp.matmul(patches - self.mean, self.matrix, precision="highest")

    def unwhiten(self, white: Float[ArrayLike, "*batch components"]) -> Float[Array, "*batch features"]:
        """Return white @ inverse_matrix + mean."""
        white = real_array("white", white)
        check_size("white", white, -1, len(self.inverse_matrix), "components")
        return jnp.matmul(white, self.inverse_matrix, precision="highest") + self.mean


def fit_whitening(
    patches: Float[ArrayLike, "patches features"],
    kind: Kind = "zca",
    *,
    epsilon: float = 1e-6,
    n_components: int | None = None,
) -> Whitening:
    """Fit ZCA or PCA whitening to the covariance of patches.

    With C = (x − mean)ᵀ(x − mean)/n = V diag(λ) Vᵀ, λ in descending order, cut to the first
    ``n_components``, and e = epsilon·λ₁: PCA has matrix V diag(1/√(λ + e)) and inverse diag(√(λ + e)) Vᵀ; ZCA
    has V diag(1/√(λ + e)) Vᵀ and V diag(√(λ + e)) Vᵀ, so that white patches still look like patches.
    The whitened variance along an eigenvector is λ/(λ + e).

    Args:
        patches: one patch a row, in any unit.
        kind: ``"zca"`` or ``"pca"``.
        epsilon: ridge as a fraction of the largest eigenvalue, ≥ 0. It bounds the gain: directions without
            variance (patches minus their own mean have one) come out as 0. In float32 keep it ≥ 1e-6.
        n_components: how many leading eigenvectors to keep, 1 to features; all if not given. Fewer make the
            map a projection: what is left out does not come back.

    Returns:
        The whitening. All its components kept, ``unwhiten(whiten(x))`` is x up to rounding, amplified by at
        most √(1 + 1/epsilon).

    Raises:
        ValueError: for patches of another rank, fewer than two, not real or not finite, for settings out
            of range, and (where values are known) for patches that do not vary at all, or not in every
            direction kept where epsilon is 0. Under ``jit`` such patches give NaN.

    Reference: Bell, Sejnowski (1997), The "independent components" of natural scenes are edge filters, Vision
    Research 37, 3327-3338 (ZCA).

    Example:
        >>> import jax
        >>> patches = jax.random.normal(jax.random.key(0), (500, 4)) * jnp.array([1.0, 2.0, 3.0, 4.0])
        >>> white = jax.jit(lambda patches: fit_whitening(patches).whiten(patches))(patches)
        >>> bool(jnp.allclose(white.T @ white / 500, jnp.eye(4), atol=1e-3))
        True
    """
    patches = _check_fit(patches, kind, epsilon, n_components)
    rows, mean = centered(patches)
    unit = unit_of(rows)
    rows = rows / unit
    covariance = jnp.matmul(rows.T, rows, precision="highest") / patches.shape[0]
    values, vectors = jnp.linalg.eigh(covariance)
    values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
    # Rounding leaves the eigenvalues of empty directions slightly off zero, on either side.
    is_empty = values <= values.size * jnp.finfo(values.dtype).eps * values[0]
    _check_variance(values, is_empty, epsilon)
    deviations = jnp.sqrt(jnp.maximum(values, 0) + jnp.asarray(epsilon, values.dtype) * values[0])
    is_undefined = is_empty & ((jnp.asarray(epsilon) == 0) | (values[0] <= 0))
    deviations = jnp.where(is_undefined, jnp.nan, deviations)
    matrix, inverse = vectors / deviations, deviations[:, None] * vectors.T
    if kind == "zca":
        matrix = jnp.matmul(matrix, vectors.T, precision="highest")
        inverse = jnp.matmul(vectors, inverse, precision="highest")
    return Whitening(mean, matrix / unit, inverse * unit)


def _check_fit(patches, kind, epsilon, n_components) -> Float[Array, "patches features"]:
    patches = at_least_single(real_array("patches", patches, "patches features"))
    check_finite("patches", patches)
    check_nonnegative("epsilon", epsilon)
    n_patches, n_features = np.shape(patches)
    if n_patches < 2 or n_features < 1:
        raise ValueError(f"patches: expected at least two patches and one feature, got {np.shape(patches)}.")
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {get_args(Kind)}, got {kind!r}.")
    if n_components is not None:
        check_at_least("n_components", n_components, 1)
        if n_components > n_features:
            raise ValueError(f"n_components: expected at most {n_features} features, got {n_components}.")
    return patches


def _check_variance(values, is_empty, epsilon) -> None:
    if not (is_concrete(values) and is_concrete(epsilon)):
        return
    if not values[0] > 0:
        raise ValueError("patches: expected patches that vary, got the same patch throughout.")
    n_empty = int(np.sum(np.asarray(is_empty)))
    if epsilon == 0 and n_empty:
        raise ValueError(
            f"epsilon: expected a number > 0 for patches without variance in {n_empty} of {values.size} "
            f"directions, got {epsilon}."
        )


def _filtered(images, response):
    # Not compiled whole: the transforms of such a program round otherwise from call to call, by where its
    # buffers lie, and batches of patches would no longer be the same bit for bit.
    return jnp.fft.irfft2(jnp.fft.rfft2(images) * response, s=images.shape[-2:])


def _check_image(images, cutoff) -> Float[Array, "*images rows columns"]:
    check_positive("cutoff", cutoff)
    images = at_least_single(real_array("images", images))
    if np.ndim(images) < 2 or 0 in np.shape(images):
        raise ValueError(f"images: expected (…, rows, columns) with pixels, got shape {np.shape(images)}.")
    return images


def _response(shape: tuple[int, ...], cutoff: float) -> np.ndarray:
    rows, columns = shape
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns))
    return frequency * np.sqrt(rows * columns) * np.exp(-((frequency / cutoff) ** 4))
