"""Dictionary learning: the objective for `neurojax.training.fit`, and the upkeep of the atoms."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._checks import check_at_least
from .._rows import unit_rows
from .._types import PRNGKey, Scalar
from ..convergence import AbstractSolver, Solution, Status
from ..metrics import explained_variance, n_active
from ..penalties import AbstractPenalty, AbstractValuedPenalty
from ._batch import default_solver, encode_batch
from ._dictionary import Dictionary, normalize_atoms

__all__ = ["AtomUsage", "DictionaryUpkeep", "SparseCodingObjective"]


class AtomUsage(NamedTuple):
    """What learning carries along: for each atom, the steps since any datum used it."""

    n_unused_steps: Int[Array, " atoms"]

    @classmethod
    def init(cls, dictionary: Dictionary) -> "AtomUsage":
        """Start with every atom counted as just used."""
        return cls(jnp.zeros(dictionary.n_atoms, jnp.int32))


class CodedBatch(NamedTuple):
    """A batch and its codes, rows of zeros where a sample did not converge."""

    data: Float[Array, "batch features"]
    codes: Float[Array, "batch atoms"]
    is_converged: Bool[Array, " batch"]
    solution: Solution

    @classmethod
    def of(cls, batch: Float[Array, "batch features"], solution: Solution) -> "CodedBatch":
        """Blank what did not converge."""
        is_converged = solution.status == Status.converged
        data, codes = (jnp.where(is_converged[:, None], rows, 0) for rows in (batch, solution.value))
        return cls(data, codes, is_converged, solution)


class SparseCodingObjective(eqx.Module):
    """The mean energy of a batch at its own codes, which are constants for the gradient.

    loss = meanₙ ½‖xₙ − zₙ @ atoms‖² + penalty(zₙ), zₙ = argmin_z of the same. By the envelope theorem its
    gradient in the atoms is −meanₙ zₙᵀ(xₙ − zₙ @ atoms), so plain SGD of step size B·η on batches of B is
    Olshausen & Field's ΔΦ = η Σₙ (xₙ − Φzₙ)zₙᵀ. Samples that did not converge are left out of the gradient
    (the mean is over the others); ``converged`` reports their share. For a penalty without a value (Log)
    the loss is the squared error alone; its gradient is the same.

    Called as ``objective(dictionary, state, batch, key)`` by ``fit``; ``state`` is ``None`` or an
    `AtomUsage`.

    Attributes:
        penalty: the penalty.
        solver: the inference's solver; ``None``: `SpaRSA` for the penalties with a duality gap, else `FISTA`.
        tol: the inference's tolerance; see `encode`.
        max_steps: the most solver steps a datum.
        steps_per_check: solver steps between two looks at the residual; ``None``: that of `encode_batch`.

    Metrics: over the converged samples ``squared_error`` (mean of ‖x − z @ atoms‖²), ``explained_variance``
    (1 − Σ‖x − z @ atoms‖²/Σ‖x‖², 0 where Σ‖x‖² is) and ``n_active`` (mean number of non-zero coefficients);
    over all samples ``converged`` (share), ``worst_residual`` (largest relative gap, or movement, of the
    finite ones) and ``inference_steps`` (mean).

    Reference:
        Olshausen & Field 1996, eqs. 2–5.
    """

    penalty: AbstractPenalty
    solver: AbstractSolver | None = None
    tol: float | None = eqx.field(default=None, static=True)
    max_steps: int = eqx.field(default=1000, static=True)
    steps_per_check: int | None = eqx.field(default=None, static=True)

    def infer(self, dictionary: Dictionary, batch: Float[Array, "batch features"]) -> Solution:
        """Encode a batch; the codes carry no gradient."""
        return encode_batch(
            dictionary,
            batch,
            self.penalty,
            solver=default_solver(self.penalty) if self.solver is None else self.solver,
            tol=self.tol,
            max_steps=self.max_steps,
            steps_per_check=self.steps_per_check,
        )

    def __call__(
        self, model: Dictionary, state: AtomUsage | None, batch: Float[Array, "batch features"], key: PRNGKey
    ) -> tuple[Scalar, tuple[AtomUsage | None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        del key  # inference is deterministic
        loss, metrics, coded = self.judge(model, batch)
        if state is not None:
            state = AtomUsage(count_unused(state.n_unused_steps, coded.solution.value))
        return loss, (state, metrics)

    def judge(
        self, model: Dictionary, batch: Float[Array, "batch features"]
    ) -> tuple[Scalar, dict[str, Array], CodedBatch]:
        """Return the loss of a batch, the metrics, and the codes that both are of."""
        coded = CodedBatch.of(batch, self.infer(model, batch))
        total = 0.5 * jnp.sum((coded.data - model.reconstruct(coded.codes)) ** 2)
        if isinstance(self.penalty, AbstractValuedPenalty):
            values = jax.vmap(self.penalty.value)(coded.codes)
            total = total + jnp.sum(jnp.where(coded.is_converged, values, 0))
        return total / jnp.maximum(jnp.sum(coded.is_converged), 1), _metrics(model, coded), coded


class DictionaryUpkeep(eqx.Module):
    """What ``fit`` does to the atoms after each update: replace the unused, then normalise.

    Pass it as ``after_update``. Normalising is Olshausen & Field's length constraint. An atom that no datum
    has used for ``replace_after`` steps becomes the datum of the batch with the largest reconstruction
    error (the next such atom the next datum), and its rows of the optimiser's state are as at the start.

    Attributes:
        objective: the objective that ``fit`` minimises; needed for replacement.
        optimizer: the optimiser given to ``fit``; needed for replacement.
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
        self, model: Dictionary, opt_state, state, batch: Float[Array, "batch features"], key: PRNGKey
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
        return normalize_atoms(model), opt_state, state

    def _replace(self, model, opt_state, state, batch):
        assert self.objective is not None and self.optimizer is not None
        codes = self.objective.infer(model, batch).value
        candidates = worst_explained(model, batch, codes, batch.shape[0])
        is_dead = state.n_unused_steps >= self.replace_after
        model, is_replaced = replace_atoms(model, is_dead, candidates)
        opt_state = _reset_rows(
            opt_state, self.optimizer.init(eqx.filter(model, eqx.is_inexact_array)), is_replaced
        )
        return model, opt_state, AtomUsage(jnp.where(is_replaced, 0, state.n_unused_steps))


def worst_explained(
    model: Dictionary, batch: Float[Array, "batch features"], codes: Float[Array, "batch atoms"], n_data: int
) -> Float[Array, "data features"]:
    """Return data at unit length, largest reconstruction error first; zeros where a batch has no more."""
    errors = jnp.sum((batch - model.reconstruct(codes)) ** 2, axis=1)
    # A datum that is zero or broken makes no atom.
    is_usable = jnp.isfinite(errors) & jnp.any(batch != 0, axis=1)
    largest, source = lax.top_k(jnp.where(is_usable, errors, -1), min(n_data, batch.shape[0]))
    rows = jnp.where(largest[:, None] >= 0, unit_rows(batch[source]), 0)
    return jnp.pad(rows, [(0, n_data - rows.shape[0]), (0, 0)])


def replace_atoms(
    model: Dictionary, is_dead: Bool[Array, " atoms"], candidates: Float[Array, "data features"]
) -> tuple[Dictionary, Bool[Array, " atoms"]]:
    """Put candidates, as they come and each once, in the places of dead atoms; say which were replaced."""
    rank = jnp.cumsum(is_dead) - 1
    fresh = candidates[jnp.minimum(rank, candidates.shape[0] - 1)].astype(model.atoms.dtype)
    is_replaced = is_dead & (rank < candidates.shape[0]) & jnp.any(fresh != 0, axis=1)
    atoms = jnp.where(is_replaced[:, None], fresh, model.atoms)
    return eqx.tree_at(lambda d: d.atoms, model, atoms), is_replaced


def _reset_rows(opt_state, fresh_state, is_replaced):
    """Put fresh rows of the optimiser's state where atoms were replaced, in leaves with a row per atom."""

    def reset(leaf, fresh):
        if jnp.ndim(leaf) != 2 or leaf.shape[0] != is_replaced.shape[0]:
            return leaf
        return jnp.where(is_replaced[:, None], fresh, leaf)

    return jax.tree.map(reset, opt_state, fresh_state)


def count_unused(
    n_unused_steps: Int[Array, " atoms"], codes: Float[Array, "batch atoms"]
) -> Int[Array, " atoms"]:
    """Count one more step for each atom that no code uses, and begin again for the others."""
    is_used = jnp.any((codes != 0) & jnp.isfinite(codes), axis=0)
    return jnp.where(is_used, 0, n_unused_steps + 1)


def _metrics(model: Dictionary, coded: CodedBatch) -> dict[str, Array]:
    data, codes, is_converged, solution = coded
    n_converged = jnp.maximum(jnp.sum(is_converged), 1)
    reconstructions = model.reconstruct(codes)
    return {
        "squared_error": jnp.sum((data - reconstructions) ** 2) / n_converged,
        "explained_variance": explained_variance(data, reconstructions),
        "n_active": jnp.sum(n_active(codes)) / n_converged,
        "converged": jnp.mean(is_converged, dtype=data.dtype),
        "worst_residual": jnp.max(jnp.where(solution.status == Status.nonfinite, 0, solution.residual)),
        "inference_steps": jnp.mean(solution.n_steps, dtype=data.dtype),
    }
