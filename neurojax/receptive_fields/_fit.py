"""Fits of Gabor functions to atoms."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import real_array
from .._checks import check_at_least, check_size
from .._precision import at_least_single
from .._rows import hypot
from ..convergence import Detached, iterate
from ._errors import standard_errors
from ._gabor import Gabor, Shape, pixel_grid, quadrature_pair
from ._projection import LevenbergMarquardt, Projection, bounds, project, solve_pair

__all__ = ["GaborFit", "fit_gabor", "fit_gabor_batch"]


class GaborFit(eqx.Module):
    """The best Gabor function found for an atom; under ``vmap`` every field gains the batch's axes.

    Attributes:
        gabor: its parameters.
        r_squared: 1 − Σ(atom − g)²/Σ(atom − mean atom)², at most 1; 0 for an atom that is constant. As g
            has no offset it can be negative, where an atom is little but an offset.
        status: a `neurojax.convergence.Status` as int32, of the start that won.
        n_steps: the steps which that start took.
        standard_errors: the standard error of each parameter, in its unit: √diag(σ²(JᵀJ)⁻¹), J the derivative
            of the pixels of g in the eight parameters and σ² = Σ(atom − g)²/(pixels − 8). This is the
            Gauss-Newton curvature of the fit; it holds for an atom that is a Gabor function and independent
            noise of one variance. A learned atom's misfit is not such noise: there it says how sharply the
            atom determines a parameter. A parameter at one of the fit's bounds is held there: its own error
            is NaN, and those of the others are conditional on it (and pixels − 7 stands for pixels − 8). NaN
            too where nothing determines a parameter, as the phase of an atom of zeros. ``None`` in a fit
            that was put together by hand.
    """

    gabor: Gabor
    r_squared: Float[Array, "*batch"]
    status: Int[Array, "*batch"]
    n_steps: Int[Array, "*batch"]
    standard_errors: Gabor | None = None


def fit_gabor(
    atom: Float[ArrayLike, "rows columns"],
    *,
    n_starts: int = 6,
    tol: float = 1e-3,
    max_steps: int = 60,
) -> GaborFit:
    """Fit a Gabor function to one atom by least squares, from several starts; ``jit`` it for speed.

    Minimizes Σ(atom − g)². Amplitude and phase enter linearly and are eliminated in closed form (variable
    projection); Levenberg-Marquardt steps find the other six parameters, within bounds: the centre in the
    patch, 1/(4 · longer side) ≤ frequency ≤ 0.5 cycles per pixel, 0.5 pixels ≤ widths ≤ longer side. The
    starts are the best matches in a bank of Gabor functions at all places, orientations and frequencies,
    and the best end of them is returned. An atom of one lobe or one edge is fitted ever better by ever lower
    frequencies: it ends at the lowest, which says no more than that it is low-pass.

    Args:
        atom: one filter, at least 4 × 4 pixels, in any unit; half precision is fitted in float32. Batch with
            ``jax.vmap``, or use `fit_gabor_batch`.
        n_starts: how many starts, 1 to 40.
        tol: a start has converged when one projected gradient step, scaled by the curvature, would move
            no parameter (pixels, radians, log frequency, log widths) by more than this; > 0.
        max_steps: the most Levenberg-Marquardt steps for each start, ≥ 1.

    Returns:
        The fit. An atom of zeros has R² = 0 and amplitude 0; one with NaN has ``Status.nonfinite``.

    Raises:
        ValueError: at trace time, for an atom that is not a two-dimensional array of real numbers or is
            smaller than 4 × 4, and for counts and tolerances out of range.

    Gradient:
        The six parameters that are found by iteration are constants; amplitude, phase and R² are
        differentiated with respect to the atom as functions of it at those constants. As R² is at a
        maximum in the six, its derivative is the true one (the envelope theorem). Standard errors are
        constants.

    Reference:
        Golub & Pereyra 1973, SIAM J. Numer. Anal. 10, 413-432 (variable projection).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.receptive_fields import Gabor, fit_gabor, gabor
        >>> truth = Gabor(*map(jnp.float32, (5, 7, 30, 0.15, 2, 3, 45, 0.5)))
        >>> fit = jax.jit(lambda truth: fit_gabor(gabor(truth, (12, 12))))(truth)
        >>> round(float(fit.gabor.orientation), 2), round(float(fit.r_squared), 3)
        (30.0, 1.0)
    """
    atom = at_least_single(real_array("atom", atom, "rows columns"))
    patch_shape = _check_patch_shape("atom", atom.shape)
    _check_starts(n_starts)
    values = atom.reshape(-1)
    size = lax.stop_gradient(_size(values))
    values = values / size
    grid = pixel_grid(patch_shape, values.dtype)
    lower, upper = bounds(patch_shape, values.dtype)
    problem = Projection(values, *grid, lower, upper)
    starts = _starts(problem, patch_shape, n_starts)
    settings = {"tol": tol, "max_steps": max_steps, "gradient": Detached()}
    solve = partial(iterate, LevenbergMarquardt(), problem, **settings)
    solutions = jax.vmap(solve)(starts)
    r_squared = jax.vmap(lambda value: _r_squared(values, project(value, values, grid)[1]))(solutions.value)
    best = jnp.argmax(r_squared)
    solution = jax.tree.map(lambda field: field[best], solutions)
    weights, _ = project(solution.value, values, grid)
    errors = standard_errors(problem, solution.value, weights)
    errors = eqx.tree_at(lambda gabor: gabor.amplitude, errors, size * errors.amplitude)
    fitted = physical(solution.value, [size * weight for weight in weights])
    return GaborFit(fitted, r_squared[best], solution.status, solution.n_steps, errors)


def fit_gabor_batch(
    atoms: Float[ArrayLike, "atoms features"],
    patch_shape: tuple[int, int],
    *,
    n_starts: int = 6,
    tol: float = 1e-3,
    max_steps: int = 60,
) -> GaborFit:
    """Fit a Gabor function to each atom of a dictionary; compiled inside.

    Args:
        atoms: one flattened patch (row-major) a row.
        patch_shape: rows and columns of a patch, in pixels, at least 4 × 4.
        n_starts: as in `fit_gabor`.
        tol: as in `fit_gabor`.
        max_steps: as in `fit_gabor`.

    Returns:
        The fits, each field with a leading axis of atoms.

    Raises:
        ValueError: at trace time, for atoms whose width is not ``rows · columns``, and as in
            `fit_gabor`.
    """
    atoms = real_array("atoms", atoms, "atoms features")
    rows, columns = _check_patch_shape("patch_shape", patch_shape)
    check_size("atoms", atoms, 1, rows * columns, f"features (patch_shape {rows} x {columns})")
    return _fit_patches(atoms.reshape(-1, rows, columns), n_starts, tol, max_steps)


@eqx.filter_jit
def _fit_patches(patches, n_starts, tol, max_steps) -> GaborFit:
    fit = partial(fit_gabor, n_starts=n_starts, tol=tol, max_steps=max_steps)
    return jax.vmap(fit)(patches)


def _starts(problem, patch_shape, n_starts):
    """Return the best matches in a bank, each of another orientation or frequency."""
    bank = _bank(patch_shape, problem.atom.dtype)
    grid = (problem.rows, problem.columns)
    cosine, sine = jax.vmap(lambda value: quadrature_pair(value, grid))(bank.reshape(-1, 6))
    dots = (jnp.sum(cosine**2, 1), jnp.sum(cosine * sine, 1), jnp.sum(sine**2, 1))
    matches = [jnp.matmul(part, problem.atom, precision=lax.Precision.HIGHEST) for part in (cosine, sine)]
    weights = solve_pair(*dots, *matches)
    explained = (weights[0] * matches[0] + weights[1] * matches[1]).reshape(bank.shape[:2])
    place = jnp.argmax(explained, 1)
    best = jnp.take_along_axis(bank, place[:, None, None], 1)[:, 0]
    _, chosen = lax.top_k(jnp.max(explained, 1), n_starts)
    return problem.clip(best[chosen])


def _bank(patch_shape, dtype):
    """Return parameters of Gabor functions: 40 pairs of orientation and frequency × place and width."""
    longer = max(patch_shape)
    angles = jnp.arange(8, dtype=dtype) * (jnp.pi / 8)
    log_frequencies = jnp.linspace(jnp.log(1 / longer), jnp.log(0.4), 5, dtype=dtype)
    log_widths = jnp.log(longer * jnp.array([0.09, 0.18], dtype))
    rows, columns = ((jnp.arange(8, dtype=dtype) + 0.5) * (size / 8) - 0.5 for size in patch_shape)
    angle, frequency, row, column, width = jnp.meshgrid(
        angles, log_frequencies, rows, columns, log_widths, indexing="ij"
    )
    bank = jnp.stack(Shape(row, column, angle, frequency, width, width), -1).reshape(40, -1, 6)
    # Without the barrier the compiler evaluates the whole bank while it compiles.
    return lax.optimization_barrier(bank)


def physical(value, weights):
    """Return units and ranges as `Gabor` states them."""
    shape = Shape(*value)
    turned = jnp.rad2deg(shape.angle)
    half_turns = jnp.floor(turned / 180)
    orientation = turned - 180 * half_turns
    is_rounded_up = orientation >= 180  # just below 0
    is_flipped = jnp.mod(half_turns + is_rounded_up, 2) == 1
    orientation = jnp.where(is_rounded_up, 0, orientation)
    phase = jnp.rad2deg(jnp.arctan2(-weights[1], weights[0]))
    phase = jnp.where(is_flipped, -phase, phase)
    phase = jnp.where(phase <= -180, 180, phase)
    frequency, across, along = jnp.exp(value[3:])
    amplitude = hypot(weights[0], weights[1])
    return Gabor(shape.row, shape.column, orientation, frequency, across, along, phase, amplitude)


def _r_squared(atom, fitted):
    spread = jnp.sum((atom - jnp.mean(atom)) ** 2)
    is_constant = spread <= (8 * jnp.finfo(atom.dtype).eps) ** 2 * jnp.sum(atom**2)
    explained = 1 - jnp.sum((atom - fitted) ** 2) / jnp.where(is_constant, 1, spread)
    return jnp.where(is_constant, 0, explained)


def _size(atom):
    """Return ‖atom‖₂, without overflow or underflow, or 1 where it is 0."""
    largest = jnp.max(jnp.abs(atom))
    largest = jnp.where(largest == 0, 1, largest)
    norm = largest * jnp.linalg.norm(atom / largest)
    return jnp.where(norm == 0, 1, norm)


def _check_patch_shape(name, patch_shape) -> tuple[int, int]:
    if len(patch_shape) != 2 or min(patch_shape) < 4:
        raise ValueError(f"{name}: expected at least 4 x 4 pixels (rows, columns), got {tuple(patch_shape)}.")
    return int(patch_shape[0]), int(patch_shape[1])


def _check_starts(n_starts) -> None:
    check_at_least("n_starts", n_starts, 1)
    if n_starts > 40:
        raise ValueError(f"n_starts: expected at most 40, got {n_starts}.")
