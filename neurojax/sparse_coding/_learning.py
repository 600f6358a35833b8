"""Dictionary learning: the objective for `neurojax.training.fit`, and the upkeep of the atoms."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._arrays import real_array
from .._checks import check_at_least
from .._rows import unit_of, unit_rows
from .._types import PRNGKey, Scalar
from ..convergence import AbstractSolver, Detached, Solution, Status
from ..metrics import explained_energy, n_active
from ..penalties import AbstractPenalty, AbstractValuedPenalty
from ..proximal._least_squares import checked_weights, without_lost
from ._batch import default_solver, encode_batch
from ._dictionary import AbstractDictionary

__all__ = ["AtomUsage", "DictionaryUpkeep", "SparseCodingObjective", "WeightedData"]

Rows = Float[Array, " batch *datum"]
GivenRows = Float[ArrayLike, " batch *datum"]


class AtomUsage(NamedTuple):
    """The state of learning: for each atom, the steps since any datum used it."""

    n_unused_steps: Int[Array, " atoms"]

    @classmethod
    def init(cls, dictionary: AbstractDictionary) -> "AtomUsage":
        """Start with every atom counted as just used."""
        return cls(jnp.zeros(dictionary.n_atoms, jnp.int32))


class WeightedData(NamedTuple):
    """Data with a weight for each entry, to learn from in place of plain rows.

    Attributes:
        x: the data, one per row; where a weight is 0 they may be NaN.
        weights: w ≥ 0, of the same shape. 0 is a missing entry.
    """

    x: Float[ArrayLike, " samples *datum"]
    weights: Float[ArrayLike, " samples *datum"]


def _parts(batch: GivenRows | WeightedData) -> tuple[Array, Array | None]:
    """Return data, 0 where they are missing, and weights, ``None`` for plain rows."""
    if not isinstance(batch, tuple):
        return real_array("batch", batch), None
    x = real_array("batch.x", batch[0])
    return without_lost(x, checked_weights("batch.weights", batch[1], x))


class CodedBatch(NamedTuple):
    """A batch and its codes, rows of zeros where a sample did not converge.

    Attributes:
        data: x, 0 where it is missing.
        weights: w, or ``None``.
        codes: z.
        reconstructions: r, of the codes.
        is_converged: which rows count.
        solution: of the inference.
    """

    data: Rows
    weights: Rows | None
    codes: Float[Array, " batch *code"]
    reconstructions: Rows
    is_converged: Bool[Array, " batch"]
    solution: Solution

    @classmethod
    def of(
        cls, dictionary: AbstractDictionary, data: Array, weights: Array | None, solution: Solution
    ) -> "CodedBatch":
        """Blank what did not converge."""
        is_converged = solution.status == Status.converged
        data, codes = (_where_rows(is_converged, rows) for rows in (data, solution.value))
        weights = None if weights is None else _where_rows(is_converged, weights)
        reconstructions = jax.vmap(dictionary.reconstruct)(codes)
        return cls(data, weights, codes, reconstructions, is_converged, solution)

    def squared_errors(self) -> Float[Array, " batch"]:
        """Return Σ w·(x − r)² of each row."""
        squares = (self.data - self.reconstructions) ** 2
        squares = squares if self.weights is None else self.weights * squares
        return jnp.sum(squares.reshape(len(squares), -1), axis=1)

    def filled(self) -> Rows:
        """Return r + (w/m)(x − r), with the largest weight m: x where it is known, and r where it is missing.

        ½m‖filled − z @ atoms‖² is above ½Σ w·(x − z @ atoms)² but for a constant, and touches it at these
        atoms.
        """
        if self.weights is None:
            return self.data
        most = jnp.max(self.weights)
        share = self.weights / jnp.where(most > 0, most, 1)
        return self.reconstructions + share * (self.data - self.reconstructions)


def _where_rows(condition: Bool[Array, " batch"], rows: Float[Array, " batch *any"]) -> Array:
    """Return the rows for which a condition holds, and zeros for the others."""
    return jnp.where(condition.reshape(-1, *[1] * (rows.ndim - 1)), rows, 0)


class SparseCodingObjective(eqx.Module):
    """The mean energy of a batch at its own codes, which are constants for the gradient.

    loss = meanₙ ½‖xₙ − zₙ @ atoms‖² + penalty(zₙ), zₙ = argmin_z of the same. By the envelope theorem its
    gradient in the atoms is −meanₙ zₙᵀ(xₙ − zₙ @ atoms), so plain SGD of step size B·η on batches of B is
    Olshausen & Field's ΔΦ = η Σₙ (xₙ − Φzₙ)zₙᵀ. Samples that did not converge are left out of the gradient
    (the mean is over the others); ``converged`` reports their share. For a penalty without a value (Log)
    the loss is the squared error alone; its gradient is the same.

    Called as ``objective(dictionary, state, batch, key)`` by ``fit``; ``state`` is ``None`` or an
    `AtomUsage`, a batch is rows, or `WeightedData`, whose squared errors are weighted throughout.

    Attributes:
        penalty: the penalty.
        solver: the inference's solver; ``None``: `SpaRSA` for the penalties with a certificate, else `FISTA`.
        tol: the inference's tolerance; see `encode`.
        max_steps: the most solver steps a datum.
        steps_per_check: solver steps between two looks at the residual; ``None``: that of `encode_batch`.

    Metrics: over the converged samples ``squared_error`` (mean of ‖x − z @ atoms‖²), ``explained_energy``
    (1 − Σ‖x − z @ atoms‖²/Σ‖x‖², 0 where Σ‖x‖² is) and ``n_active`` (mean number of non-zero coefficients);
    over all samples ``converged`` (share), ``worst_residual`` (largest relative gap, or movement, of the
    finite ones) and ``inference_steps`` (mean).

    Reference:
        Olshausen & Field 1996, eqs. 2–5.
    """

    penalty: AbstractPenalty
    solver: AbstractSolver | None = None
    tol: float | None = eqx.field(default=None, static=True)
    max_steps: int = eqx.field(default=5000, static=True)
    steps_per_check: int | None = eqx.field(default=None, static=True)

    def infer(self, dictionary: AbstractDictionary, batch: GivenRows | WeightedData) -> Solution:
        """Encode a batch; the codes are constants, as the envelope theorem allows."""
        data, weights = _parts(batch)
        gradient = Detached()
        return encode_batch(
            dictionary,
            data,
            self.penalty,
            solver=default_solver(self.penalty, gradient)[0] if self.solver is None else self.solver,
            tol=self.tol,
            max_steps=self.max_steps,
            steps_per_check=self.steps_per_check,
            gradient=gradient,
            weights=weights,
        )

    def __call__(
        self,
        model: AbstractDictionary,
        state: AtomUsage | None,
        batch: GivenRows | WeightedData,
        key: PRNGKey,
    ) -> tuple[Scalar, tuple[AtomUsage | None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        del key  # inference is deterministic
        loss, metrics, coded = self.judge(model, batch)
        if state is not None:
            state = AtomUsage(count_unused(state.n_unused_steps, coded.solution.value, model.atom_axis))
        return loss, (state, metrics)

    def judge(
        self, model: AbstractDictionary, batch: GivenRows | WeightedData
    ) -> tuple[Scalar, dict[str, Array], CodedBatch]:
        """Return the loss of a batch, the metrics, and the codes that both are of."""
        coded = CodedBatch.of(model, *_parts(batch), self.infer(model, batch))
        total = 0.5 * jnp.sum(coded.squared_errors())
        if isinstance(self.penalty, AbstractValuedPenalty):
            values = jax.vmap(self.penalty.value)(coded.codes)
            total = total + jnp.sum(jnp.where(coded.is_converged, values, 0))
        return total / jnp.maximum(jnp.sum(coded.is_converged), 1), _metrics(coded), coded


class DictionaryUpkeep(eqx.Module):
    """The upkeep of the atoms after each update: replace the unused, then normalize.

    Pass it as ``after_update``. Normalizing is Olshausen & Field's length constraint. An atom that no datum
    has used for ``replace_after`` steps becomes the datum of the batch with the largest reconstruction
    error (the next such atom the next datum), and its rows of the optimizer's state are as at the start.
    Missing entries of such a datum are filled in from its reconstruction. Other dictionaries than
    `Dictionary` take part by ``normalize`` and ``replace_atoms``.

    Attributes:
        objective: the objective that ``fit`` minimizes; needed for replacement.
        optimizer: the optimizer given to ``fit``; needed for replacement.
        replace_after: steps without use after which an atom is replaced, ≥ 1; ``None`` (the default):
            never. Needs ``state=AtomUsage.init(dictionary)`` in ``fit``.
    """

    objective: SparseCodingObjective | None = None
    optimizer: optax.GradientTransformation | None = eqx.field(default=None, static=True)
    replace_after: int | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if self.replace_after is None:
            return
        check_at_least("replace_after", self.replace_after, 1)
        if self.objective is None or self.optimizer is None:
            raise ValueError("replace_after: expected objective and optimizer beside it, got None.")

    def __call__(
        self, model: AbstractDictionary, opt_state, state, batch: GivenRows | WeightedData, key: PRNGKey
    ):
        """Return ``(model, opt_state, state)`` after the upkeep."""
        del key
        if self.replace_after is not None:
            if not isinstance(state, AtomUsage):
                raise ValueError(f"state: expected AtomUsage for replace_after, got {type(state).__name__}.")
            is_dead = state.n_unused_steps >= self.replace_after
            model, opt_state, state = lax.cond(
                jnp.any(is_dead),
                lambda dictionary, rows, usage: self._replace(dictionary, rows, usage, batch),
                lambda *learner: learner,
                model,
                opt_state,
                state,
            )
        return model.normalize(), opt_state, state

    def _replace(self, model, opt_state, state, batch):
        assert self.objective is not None and self.optimizer is not None
        coded = CodedBatch.of(model, *_parts(batch), self.objective.infer(model, batch))
        candidates = worst_explained(coded, len(coded.data))
        is_dead = state.n_unused_steps >= self.replace_after
        replaced, is_replaced = model.replace_atoms(is_dead, candidates)
        opt_state = _reset(self.optimizer, opt_state, model, replaced)
        return replaced, opt_state, AtomUsage(jnp.where(is_replaced, 0, state.n_unused_steps))


def worst_explained(coded: CodedBatch, n_data: int) -> Float[Array, " data *datum"]:
    """Return data at unit length, largest reconstruction error first; zeros where a batch has no more."""
    batch = coded.filled()
    unit = unit_of(batch)  # the squares of very small data underflow
    scaled = coded._replace(data=coded.data / unit, reconstructions=coded.reconstructions / unit)
    errors = scaled.squared_errors()
    rows = batch.reshape(len(batch), -1) / unit
    # A datum that is zero or broken makes no atom.
    is_usable = jnp.isfinite(errors) & jnp.any(rows != 0, axis=1)
    largest, source = lax.top_k(jnp.where(is_usable, errors, -1), min(n_data, len(rows)))
    rows = jnp.where(largest[:, None] >= 0, unit_rows(rows[source]), 0)
    return jnp.pad(rows, [(0, n_data - len(rows)), (0, 0)]).reshape(n_data, *batch.shape[1:])


def _reset(optimizer: optax.GradientTransformation, opt_state, before, after):
    """Put a fresh optimizer's state where atoms were replaced: in the rows of each parameter that changed."""
    before, after = (eqx.filter(model, eqx.is_inexact_array) for model in (before, after))

    def changed(old: Array, new: Array) -> Array:
        axes = tuple(range(1, old.ndim))
        return jnp.broadcast_to(jnp.any(old != new, axis=axes, keepdims=True), old.shape)

    is_changed = optax.tree_map_params(
        optimizer,
        lambda _, mask: mask,
        opt_state,
        jax.tree.map(changed, before, after),
        transform_non_params=lambda _: False,
    )
    return jax.tree.map(jnp.where, is_changed, optimizer.init(after), opt_state)


def count_unused(
    n_unused_steps: Int[Array, " atoms"], codes: Float[Array, " batch *code"], atom_axis: int = -1
) -> Int[Array, " atoms"]:
    """Count one more step for each atom that no code uses, and begin again for the others."""
    axis = atom_axis % (codes.ndim - 1) + 1  # after that of the batch
    others = tuple(k for k in range(codes.ndim) if k != axis)
    is_used = jnp.any((codes != 0) & jnp.isfinite(codes), axis=others)
    return jnp.where(is_used, 0, n_unused_steps + 1)


def _metrics(coded: CodedBatch) -> dict[str, Array]:
    n_converged = jnp.maximum(jnp.sum(coded.is_converged), 1)
    weights = 1 if coded.weights is None else jnp.sqrt(coded.weights)
    data, reconstructions = (
        (weights * rows).reshape(len(rows), -1) for rows in (coded.data, coded.reconstructions)
    )
    solution, dtype = coded.solution, coded.data.dtype
    return {
        "squared_error": jnp.sum(coded.squared_errors()) / n_converged,
        "explained_energy": explained_energy(data, reconstructions),
        "n_active": jnp.sum(n_active(coded.codes.reshape(len(coded.codes), -1))) / n_converged,
        "converged": jnp.mean(coded.is_converged, dtype=dtype),
        "worst_residual": jnp.max(jnp.where(solution.status == Status.nonfinite, 0, solution.residual)),
        "inference_steps": jnp.mean(solution.n_steps, dtype=dtype),
    }
