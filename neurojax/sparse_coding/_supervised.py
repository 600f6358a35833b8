"""Sparse coding for a task: a linear classifier of codes, and a dictionary trained through the inference."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import real_array, whole_array
from .._checks import check_nonnegative, check_size
from .._precision import product
from .._types import PRNGKey, Scalar
from ..convergence import AbstractGradient, AbstractSolver, Implicit, Solution, Status
from ..metrics import n_active
from ..penalties import AbstractPenalty
from ._batch import encode_batch
from ._dictionary import Dictionary, normalize_atoms

__all__ = ["SparseClassifier", "TaskDrivenObjective", "normalize_classifier"]

Labelled = tuple[Float[Array, "batch features"], Int[Array, " batch"]]


class SparseClassifier(eqx.Module):
    """A linear classifier of codes, and the dictionary that the codes are of.

    p(class | x) = softmax(z @ weights + bias), z the code of x.

    Attributes:
        dictionary: the dictionary.
        weights: of the classifier; a column a class.
        bias: of the classifier.

    Raises:
        ValueError: at construction, for weights without a row for each atom, a bias without a number for
            each column, and numbers that are not real.

    Reference:
        Mairal, Bach & Ponce 2012, Task-driven dictionary learning.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.sparse_coding import Dictionary, SparseClassifier
        >>> model = SparseClassifier(Dictionary(jnp.eye(2)), 3 * jnp.eye(2), jnp.zeros(2))
        >>> codes = jnp.array([[0.9, 0.2], [0.1, 1.4]])  # found with `encode_batch`
        >>> jnp.argmax(model.logits(codes), axis=1).tolist()
        [0, 1]
    """

    dictionary: Dictionary
    weights: Float[Array, "atoms classes"]
    bias: Float[Array, " classes"]

    def __init__(
        self,
        dictionary: Dictionary,
        weights: Float[ArrayLike, "atoms classes"],
        bias: Float[ArrayLike, " classes"],
    ):
        self.dictionary = dictionary
        self.weights = real_array("weights", weights, "atoms classes")
        self.bias = real_array("bias", bias, "classes")

    def __check_init__(self):
        check_size("weights", self.weights, 0, self.dictionary.n_atoms, "atoms of the dictionary")
        check_size("bias", self.bias, 0, self.n_classes, "classes, as weights has columns,")

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return self.weights.shape[1]

    def logits(self, code: Float[ArrayLike, "*batch atoms"]) -> Float[Array, "*batch classes"]:
        """Return ``code @ weights + bias``: the log-probability of each class, up to a constant a code."""
        return product(real_array("code", code), self.weights) + self.bias


class TaskDrivenObjective(eqx.Module):
    """The mean cross-entropy of a classifier of codes, which teaches the dictionary through the inference.

    loss = meanₙ −log softmax(zₙ @ weights + bias)[labelₙ] + ½·weight_penalty·‖weights‖²,
    zₙ = argmin_z ½‖xₙ − z @ atoms‖² + penalty(z). Nothing asks the codes to reconstruct. Samples that did not
    converge are left out (the mean is over the others); ``converged`` reports their share. A label that is no
    class makes the loss NaN, at which `fit` stops.

    Called as ``objective(classifier, state, (xs, labels), key)`` by ``fit``, which passes ``state`` on
    untouched; with `normalize_classifier` as its ``after_update``, or the atoms' lengths grow to undo the
    penalty.

    Attributes:
        penalty: of the code; an elastic net with l2 > 0 keeps the gradient bounded.
        weight_penalty: of the classifier's weights, ≥ 0; for N training samples, scikit-learn's 1/(N·C).
        gradient: how derivatives pass through the inference.
        solver: the inference's solver; ``None``: that of `encode_batch`.
        tol: the inference's tolerance; see `encode`.
        max_steps: the most solver steps a datum.
        steps_per_check: solver steps between two looks at the residual; ``None``: that of `encode_batch`.

    Metrics: over the converged samples ``cross_entropy`` (mean, nats), ``error`` (share misclassified) and
    ``n_active`` (mean number of non-zero coefficients); over all samples ``converged`` (share),
    ``worst_residual`` (largest relative gap, or movement, of the finite ones) and ``inference_steps`` (mean).

    Raises:
        ValueError: at construction, for a negative ``weight_penalty``; at trace time, for labels that are not
            whole numbers, one a row.

    Gradient:
        With `Implicit`, as in the reference: with r = x − z @ atoms, Λ the support of z, g = ∂loss/∂z and
        β_Λ = (atoms_Λ atoms_Λᵀ + l2·I)⁻¹ g_Λ, zero elsewhere, a sample's is βᵀr − zᵀ(β @ atoms).

    Reference:
        Mairal, Bach & Ponce 2012, Task-driven dictionary learning, proposition 1.
    """

    penalty: AbstractPenalty
    weight_penalty: Float[Array, ""] = eqx.field(default=0.0, converter=partial(jnp.asarray, dtype=float))
    gradient: AbstractGradient = Implicit()
    solver: AbstractSolver | None = None
    tol: float | None = eqx.field(default=None, static=True)
    max_steps: int = eqx.field(default=1000, static=True)
    steps_per_check: int | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        check_nonnegative("weight_penalty", self.weight_penalty)

    def infer(self, dictionary: Dictionary, batch: Float[Array, "batch features"]) -> Solution:
        """Encode a batch; the codes are functions of the dictionary as ``gradient`` says."""
        return encode_batch(
            dictionary,
            batch,
            self.penalty,
            solver=self.solver,
            tol=self.tol,
            max_steps=self.max_steps,
            steps_per_check=self.steps_per_check,
            gradient=self.gradient,
        )

    def __call__(
        self, model: SparseClassifier, state, batch: Labelled, key: PRNGKey
    ) -> tuple[Scalar, tuple[object, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        del key  # inference is deterministic
        xs, labels = batch
        xs, labels = real_array("xs", xs, "samples features"), whole_array("labels", labels, "samples")
        check_size("labels", labels, 0, xs.shape[0], "labels, one a row of xs,")
        solution = self.infer(model.dictionary, xs)
        is_converged = solution.status == Status.converged
        codes = jnp.where(is_converged[:, None], solution.value, 0)
        logits = model.logits(codes)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        # A negative label would count from the last class.
        losses = jnp.where((labels >= 0) & (labels < model.n_classes), losses, jnp.nan)
        # A batch of which nothing converged has no error: 0/0, at which ``fit`` stops.
        n_converged = jnp.sum(is_converged).astype(losses.dtype)

        def mean(values):
            return jnp.sum(jnp.where(is_converged, values, 0).astype(losses.dtype)) / n_converged

        cross_entropy = mean(losses)
        weight_penalty = self.weight_penalty.astype(model.weights.dtype)
        loss = cross_entropy + 0.5 * weight_penalty * jnp.sum(model.weights**2)
        metrics = {
            "cross_entropy": cross_entropy,
            "error": mean(jnp.argmax(logits, axis=1) != labels),
            "n_active": mean(n_active(codes)),
            "converged": jnp.mean(is_converged, dtype=xs.dtype),
            "worst_residual": jnp.max(jnp.where(solution.status == Status.nonfinite, 0, solution.residual)),
            "inference_steps": jnp.mean(solution.n_steps, dtype=xs.dtype),
        }
        return loss, (state, metrics)


def normalize_classifier(model: SparseClassifier, opt_state, state, batch, key: PRNGKey):
    """Scale a classifier's atoms to unit length; an ``after_update`` for ``fit``.

    Returns:
        ``(model, opt_state, state)``, the last two as they came.
    """
    del batch, key
    return eqx.tree_at(lambda m: m.dictionary, model, normalize_atoms(model.dictionary)), opt_state, state
