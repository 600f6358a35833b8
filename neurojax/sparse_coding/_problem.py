"""The inference problem of one datum, and the certificate of its solution."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_shape
from .._types import Scalar
from ..penalties import AbstractCertifiedPenalty, AbstractPenalty
from ..proximal import AbstractLinearMap, CompositeProblem, LeastSquares
from ..proximal._least_squares import checked_weights, without_lost
from ..proximal._problem import gap_of, make_composite
from ._dictionary import AbstractDictionary

__all__ = ["Reconstruction", "duality_gap", "make_problem", "max_strength"]


class Reconstruction(AbstractLinearMap):
    """A dictionary as a linear map: ``reconstruct``, and its transpose ``correlate``.

    Attributes:
        dictionary: the dictionary.
    """

    dictionary: AbstractDictionary

    def apply(self, z: Float[Array, "*code"]) -> Float[Array, "*datum"]:
        """Return ``reconstruct(z)``."""
        return self.dictionary.reconstruct(z)

    def transpose(self, y: Float[Array, "*datum"]) -> Float[Array, "*code"]:
        """Return ``correlate(y)``."""
        return self.dictionary.correlate(y)


def make_problem(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    penalty: AbstractPenalty,
    *,
    weights: Float[ArrayLike, "*datum"] | None = None,
    use_gram: bool | None = None,
    step_size: ArrayLike | None = None,
) -> CompositeProblem:
    """Set up the inference problem of one datum: ½‖x − reconstruct(z)‖² + penalty(z), over its code z.

    Args:
        dictionary: the dictionary.
        x: the datum (or, for a measure over a whole batch, several as one).
        penalty: the penalty.
        weights: w ≥ 0 of the datum's shape, for the data term ½Σ w·(x − reconstruct(z))²; ``None``: 1.
        use_gram: take gradients through the Gram matrix (atoms² products a step) or through the
            dictionary (2·atoms·features). ``None`` takes the cheaper: Gram where atoms < 2·features. Weights
            of the data leave no choice: through the dictionary.
        step_size: the step of the fixed-point map. ``None``: 1/L, with L by Lanczos's method. It matters for
            penalties that are not convex, whose fixed points depend on it.

    Returns:
        The problem, for `neurojax.convergence.iterate`; ``smooth`` is its data term.

    Raises:
        ValueError: at trace time, for an x of the wrong shape, and for one that is not of real numbers.
    """
    x = real_array("x", x)
    code = dictionary.empty_code(x)
    # A Gram matrix of lower precision than the residual would never satisfy it.
    dictionary, x, code = _in_one_dtype(dictionary, x, code)
    if use_gram is None:
        use_gram = code.size < 2 * x.size
    gram = dictionary.gram() if use_gram and weights is None else None
    smooth = LeastSquares(Reconstruction(dictionary), x, weights, gram=gram)
    return make_composite(smooth, penalty, code, step_size=step_size)


def _in_one_dtype(dictionary: AbstractDictionary, x: Array, code: Array):
    """Return a dictionary, a datum and a code in the dtype that they promote to, float32 at least."""
    arrays, rest = eqx.partition(dictionary, eqx.is_inexact_array)
    dtype = jnp.result_type(jnp.float32, x, code, *jax.tree.leaves(arrays))
    arrays, x, code = jax.tree.map(lambda leaf: leaf.astype(dtype), (arrays, x, code))
    return eqx.combine(arrays, rest), x, code


def duality_gap(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    code: Float[ArrayLike, "*code"],
    penalty: AbstractCertifiedPenalty,
    *,
    weights: Float[ArrayLike, "*datum"] | None = None,
) -> Scalar:
    """Bound how far a code's energy is above the minimum: energy(code) − min energy ≤ gap.

    gap = ½(1 − s)²·Σ w·r² + rest, with r = x − reconstruct(code), and with s and the rest from the penalty's
    ``certificate`` at the correlation c = correlate(w·r): for L1 of strength λ these are
    s = min(1, minᵢ λᵢ/|cᵢ|) and Σᵢ (λᵢ|zᵢ| − s·zᵢcᵢ), a sum of non-negative terms.

    Args:
        dictionary: the dictionary.
        x: one datum.
        code: its code.
        penalty: a penalty with a certificate: L1, non-negative L1, elastic net, `Quadratic`, `GroupL2`,
            `SparseGroupL2`, `SLOPE`, or one of your own.
        weights: w of the data term, of the datum's shape; ``None``: 1.

    Returns:
        The gap; infinite for a code that the penalty forbids. Where strengths are 0 it is a bound still, but
        need not fall to 0 at the solution.

    Raises:
        ValueError: at trace time, for a penalty without a certificate and for mismatched shapes.

    Reference:
        Kim, Koh, Lustig, Boyd & Gorinevsky 2007, section III, with the dual point s·r.
    """
    if not isinstance(penalty, AbstractCertifiedPenalty):
        kind = type(penalty).__name__
        raise ValueError(
            f"penalty: expected one with a duality gap (an AbstractCertifiedPenalty, such as L1), got {kind}."
        )
    x, code = real_array("x", x), real_array("code", code)
    check_shape("code", code, dictionary.empty_code(x).shape, "a coefficient for each atom")
    dictionary, x, code = _in_one_dtype(dictionary, x, code)
    smooth = LeastSquares(Reconstruction(dictionary), x, weights)
    return gap_of(penalty, code, smooth.misfit(smooth.exact_point(code)))[0]


def max_strength(
    dictionary: AbstractDictionary,
    x: Float[ArrayLike, "*datum"],
    *,
    nonnegative: bool = False,
    weights: Float[ArrayLike, "*datum"] | None = None,
) -> Scalar:
    """Return λ_max, the least L1 strength for which the zero code is optimal: maxᵢ |x·aᵢ|.

    Args:
        dictionary: the dictionary.
        x: one datum.
        nonnegative: whether codes are non-negative; then maxᵢ max(x·aᵢ, 0).
        weights: w of the data term, of the datum's shape; then maxᵢ |(w·x)·aᵢ|. ``None``: 1.
    """
    x = real_array("x", x)
    if weights is not None:
        x, weights = without_lost(x, checked_weights("weights", weights, x))
        x = weights * x
    dictionary.empty_code(x)
    correlation = dictionary.correlate(x)
    return jnp.max(jnp.maximum(correlation, 0) if nonnegative else jnp.abs(correlation))
