"""Principal and independent components, to set learned features beside.

Example:
    >>> import jax, jax.numpy as jnp
    >>> sources = jax.random.laplace(jax.random.key(0), (2000, 2))
    >>> xs = sources @ jnp.array([[1.0, 0.5], [0.3, 1.0]])
    >>> ica = jax.jit(fast_ica)(xs, jax.random.key(1))
    >>> correlation = jnp.abs(jnp.corrcoef(sources, ica.unmix(xs), rowvar=False)[:2, 2:])
    >>> bool(jnp.all(correlation.max(axis=1) > 0.99))
    True
"""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from ._arrays import real_array
from ._checks import check_at_least, check_finite, check_size, is_concrete
from ._precision import at_least_single
from ._rows import centered, unit_of
from ._types import Count, PRNGKey, Scalar
from .convergence import AbstractProblem, Picard, iterate

__all__ = ["ICA", "PCA", "fast_ica", "pca"]

Data = Float[ArrayLike, "samples features"]
Rows = Float[ArrayLike, "*batch features"]
Scores = Float[ArrayLike, "*batch components"]
Nonlinearity = Literal["logcosh", "cube"]


class PCA(eqx.Module):
    """Principal components; see `pca`.

    Attributes:
        mean: mean of the data.
        components: orthonormal rows, by falling variance; the entry of largest magnitude in each is positive.
        explained_variance: variance along each component, about the mean, with divisor samples − 1; infinite
            or 0 where that number is out of the dtype's range.
        explained_variance_ratio: the same as a fraction of the variance of all features, whatever the unit of
            the data; NaN for data that do not vary.
    """

    mean: Float[Array, " features"]
    components: Float[Array, "components features"]
    explained_variance: Float[Array, " components"]
    explained_variance_ratio: Float[Array, " components"]

    def project(self, xs: Rows) -> Float[Array, "*batch components"]:
        """Return the scores (x − mean) @ componentsᵀ."""
        return _product(_rows("xs", xs, self.mean) - self.mean, self.components.T)

    def reconstruct(self, scores: Scores) -> Float[Array, "*batch features"]:
        """Return scores @ components + mean: the nearest point to x in the components' span."""
        return _product(_rows("scores", scores, self.components), self.components) + self.mean


class ICA(eqx.Module):
    """Independent components; see `fast_ica`.

    Attributes:
        mean: mean of the data.
        components: the unmixing filters, sources = (x − mean) @ componentsᵀ; in the model of natural images
            these are the receptive fields.
        mixing: the features that the sources add up, x ≈ sources @ mixingᵀ + mean: the pseudo-inverse of
            ``components``.
        whitening: the whitening that was rotated, white = (x − mean) @ whiteningᵀ.
        status: how the search ended, a `neurojax.convergence.Status` as int32.
        n_steps: fixed-point steps taken.
        residual: the stopping measure at the end.
    """

    mean: Float[Array, " features"]
    components: Float[Array, "components features"]
    mixing: Float[Array, "features components"]
    whitening: Float[Array, "components features"]
    status: Count
    n_steps: Count
    residual: Scalar

    def unmix(self, xs: Rows) -> Float[Array, "*batch components"]:
        """Return the sources (x − mean) @ componentsᵀ."""
        return _product(_rows("xs", xs, self.mean) - self.mean, self.components.T)

    def mix(self, sources: Scores) -> Float[Array, "*batch features"]:
        """Return sources @ mixingᵀ + mean."""
        return _product(_rows("sources", sources, self.components), self.mixing.T) + self.mean


def pca(xs: Data, n_components: int | None = None) -> PCA:
    """Find the directions of largest variance, by a singular value decomposition of the centred data.

    Args:
        xs: one sample a row, in any unit. Half precision is computed and returned in float32.
        n_components: how many to keep, 1 to min(samples, features); all of these if not given.

    Returns:
        The components. Each component's sign is chosen so that its entry of largest magnitude is positive.

    Raises:
        ValueError: for data of another rank, with fewer than two samples, not real or (where values are
            known) not finite, and for ``n_components`` out of range.

    Gradient: that of the singular value decomposition; not finite where singular values coincide.

    Example:
        >>> fitted = pca(jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]), n_components=1)
        >>> bool(jnp.allclose(fitted.components, jnp.array([[0.6, 0.8]]), atol=1e-6))
        True
    """
    xs, n_components = _check(xs, n_components)
    axes = _principal_axes(xs)
    variance = axes.deviations**2 * (xs.shape[0] / (xs.shape[0] - 1))
    kept, components = variance[:n_components], axes.directions[:n_components]
    # By the unit twice: its square alone may be out of range.
    explained = kept * axes.unit * axes.unit
    return PCA(axes.mean, components * _signs(components), explained, kept / jnp.sum(variance))


def fast_ica(
    xs: Data,
    key: PRNGKey,
    *,
    n_components: int | None = None,
    nonlinearity: Nonlinearity = "logcosh",
    tol: float = 1e-5,
    max_steps: int = 500,
) -> ICA:
    """Find independent components by FastICA with symmetric decorrelation.

    The data are projected on their leading principal components and scaled to unit variance (divisor:
    samples), giving z. From a random orthogonal W, each step computes
    W ← E[g(Wz) zᵀ] − diag(E[g′(Wz)]) W, then W ← (W Wᵀ)^(−½) W, with
    g(u) = tanh u for ``"logcosh"`` and g(u) = u³ for ``"cube"``. It stops when
    maxᵢ |1 − |⟨wᵢ(next), wᵢ⟩|| ≤ tol: half of the square of the largest angle by which a row still turns.

    Args:
        xs: one sample a row, in any unit. Half precision is computed and returned in float32.
        key: randomness of the start.
        n_components: how many, 1 to min(samples, features); all of these if not given. Patches that had their
            own mean removed have one fewer than features.
        nonlinearity: ``"logcosh"`` (for all kinds of source) or ``"cube"`` (kurtosis: fast, not robust).
        tol: where to stop, at least 8 machine epsilons.
        max_steps: the most fixed-point steps.

    Returns:
        The components, the sources scaled to variance 1 over ``xs``. Their order is arbitrary; in each row
        of ``components`` the entry of largest magnitude is positive. Look at ``status``: natural patches may
        turn on for hundreds of steps.

    Raises:
        ValueError: as `pca`; and for an unknown nonlinearity, a ``tol`` or ``max_steps`` out of range,
            and (where values are known) fewer directions with variance than components, as with a feature
            that is constant or repeats another. Under ``jit`` such data give ``Status.nonfinite`` and NaN.

    Gradient: none; the result is a constant.

    Reference: Hyvärinen (1999), Fast and robust fixed-point algorithms for independent component analysis,
    IEEE Trans. Neural Networks 10, 626-634.
    """
    xs, n_components = _check(xs, n_components)
    if nonlinearity not in get_args(Nonlinearity):
        raise ValueError(f"nonlinearity: expected one of {get_args(Nonlinearity)}, got {nonlinearity!r}.")
    xs = lax.stop_gradient(xs)
    axes = _principal_axes(xs)
    directions, deviations = axes.directions[:n_components], _checked(axes.deviations[:n_components], xs)
    directions = directions * _signs(directions)
    whitening = directions / deviations[:, None]  # of data in their unit
    white = _product(axes.rows, whitening.T)
    start = _decorrelate(jax.random.normal(key, (n_components, n_components), xs.dtype))
    problem = _Rotation(white, nonlinearity)
    solution = iterate(Picard(), problem, start, tol=tol, max_steps=max_steps, steps_per_check=5)
    rotation = solution.value * _signs(_product(solution.value, whitening))
    # The rows of the whitening are orthogonal, so its pseudo-inverse is a rescaled transpose.
    mixing = axes.unit * _product(directions.T * deviations, rotation.T)
    components, whitening = _product(rotation, whitening) / axes.unit, whitening / axes.unit
    end = (jnp.asarray(part) for part in (solution.status, solution.n_steps, solution.residual))
    return ICA(axes.mean, components, mixing, whitening, *end)


class _Axes(NamedTuple):
    """The principal axes of data in a unit of their own, in which no square is out of range."""

    mean: Float[Array, " features"]
    unit: Scalar
    rows: Float[Array, "samples features"]  # (x − mean)/unit
    deviations: Float[Array, " axes"]  # of these rows along each axis, with divisor samples
    directions: Float[Array, "axes features"]


def _principal_axes(xs: Float[Array, "samples features"]) -> _Axes:
    rows, mean = centered(xs)
    unit = unit_of(rows)
    rows = rows / unit
    # The triangular factor has the data's singular values and directions, and at most features² entries.
    _, lengths, directions = jnp.linalg.svd(_triangular_factor(rows), full_matrices=False)
    return _Axes(mean, unit, rows, lengths / xs.shape[0] ** 0.5, directions)


class _Rotation(AbstractProblem):
    """The rotation of white data that makes its coordinates independent."""

    white: Float[Array, "samples components"]
    nonlinearity: Nonlinearity = eqx.field(static=True)

    def residual(self, value: Float[Array, "components components"]) -> Scalar:
        turned = jnp.sum(self.fixed_point(value) * value, axis=1)
        return jnp.max(jnp.abs(1 - jnp.abs(turned)))

    def fixed_point(
        self, value: Float[Array, "components components"]
    ) -> Float[Array, "components components"]:
        sources = _product(self.white, value.T)
        if self.nonlinearity == "logcosh":
            activity = jnp.tanh(sources)
            slope = 1 - activity**2
        else:
            activity, slope = sources**3, 3 * sources**2
        pull = _product(activity.T, self.white) / self.white.shape[0]
        return _decorrelate(pull - jnp.mean(slope, axis=0)[:, None] * value)


def _decorrelate(rows: Float[Array, "components components"]) -> Float[Array, "components components"]:
    values, vectors = jnp.linalg.eigh(_product(rows, rows.T))
    values = jnp.maximum(values, jnp.finfo(rows.dtype).tiny)
    return _product(vectors / jnp.sqrt(values), _product(vectors.T, rows))


def _signs(rows: Float[Array, "components features"]) -> Float[Array, "components 1"]:
    """Return the sign of each row's entry of largest magnitude."""
    largest = jnp.argmax(jnp.abs(rows), axis=1)
    return jnp.where(jnp.take_along_axis(rows, largest[:, None], axis=1) < 0, -1, 1).astype(rows.dtype)


@jax.custom_jvp
def _triangular_factor(rows):
    """Return R of the QR decomposition."""
    return jnp.linalg.qr(rows, mode="r")


@_triangular_factor.defjvp
def _triangular_factor_jvp(primals, tangents):
    # JAX's own rule multiplies at the default precision, which is tf32 on a GPU.
    with jax.default_matmul_precision("highest"):
        return jax.jvp(partial(jnp.linalg.qr, mode="r"), primals, tangents)


def _product(left, right) -> Array:
    return jnp.matmul(left, right, precision="highest")


def _check(xs, n_components) -> tuple[Float[Array, "samples features"], int]:
    xs = at_least_single(real_array("xs", xs, "samples features"))
    check_finite("xs", xs)
    n_samples, n_features = np.shape(xs)
    if n_samples < 2 or n_features < 1:
        raise ValueError(f"xs: expected at least two samples and one feature, got shape {np.shape(xs)}.")
    most = min(n_samples, n_features)
    n_components = most if n_components is None else n_components
    check_at_least("n_components", n_components, 1)
    if n_components > most:
        raise ValueError(
            f"n_components: expected at most min(samples, features) = {most}, got {n_components}."
        )
    return xs, n_components


def _rows(name: str, rows: Any, like: Float[Array, "*_"]) -> Array:
    """Return rows of as many numbers as ``like`` has along its first axis, or raise ``ValueError``."""
    rows = real_array(name, rows)
    if not rows.ndim:
        raise ValueError(f"{name}: expected an axis of {len(like)} numbers, got a single number.")
    check_size(name, rows, -1, len(like), "numbers")
    return rows


def _checked(deviations: Array, xs: Array) -> Array:
    """Return deviations, or raise ``ValueError`` where rounding is all there is; in a trace these are NaN."""
    rounding = (8 + xs.shape[1]) * float(jnp.finfo(deviations.dtype).eps)
    is_varied = deviations > deviations[0] * rounding
    if not is_concrete(deviations):
        return jnp.where(is_varied, deviations, jnp.nan)
    n_directions = int(np.sum(np.asarray(is_varied)))
    if not n_directions:
        raise ValueError("xs: expected data that vary, got the same row throughout.")
    if n_directions < deviations.size:
        raise ValueError(
            f"n_components: expected at most {n_directions}, the directions in which xs varies, "
            f"got {deviations.size}."
        )
    return deviations
