"""Online dictionary learning: what all codes so far say about the atoms, and the atoms that fit it best."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._arrays import native, real_array
from .._checks import check_at_least, check_kind, check_nonnegative, check_rank, check_real, check_size
from .._precision import product
from .._rows import unit_of
from .._types import Count, PRNGKey, Scalar
from ..convergence import AbstractSolver
from ..penalties import AbstractPenalty
from ..training import AbstractGradientObjective, FitResult, fit
from ._dictionary import Dictionary
from ._learning import CodedBatch, SparseCodingObjective, WeightedData, count_unused, worst_explained

__all__ = [
    "BlockCoordinateUpdate",
    "DictionaryStatistics",
    "OnlineDictionaryObjective",
    "fit_dictionary_online",
    "update_atoms",
]

_N_CANDIDATES = 8
_NO_GRADIENT = optax.set_to_zero()


class DictionaryStatistics(NamedTuple):
    """The sufficient statistics of online learning: all that the codes so far say about the atoms.

    Attributes:
        code_products: A, the weighted mean of zᵀz over the data so far.
        data_products: B, the weighted mean of zᵀx.
        weight: the sum of the weights of these data.
        n_unused_steps: for each atom, the steps since any datum used it.
        n_steps: how many batches there were.
        candidates: the worst explained data of the last batch, at unit length, which unused atoms become.
        unit: of data and codes in A and B, which hold squares divided by unit²: 1, but for data so small or
            so large (beyond 1e±9) that squares would leave the range of numbers.
    """

    code_products: Float[Array, "atoms atoms"]
    data_products: Float[Array, "atoms features"]
    weight: Scalar
    n_unused_steps: Int[Array, " atoms"]
    n_steps: Count
    candidates: Float[Array, "candidates features"]
    unit: Scalar

    @classmethod
    def init(cls, dictionary: Dictionary) -> "DictionaryStatistics":
        """Start with nothing seen, and every atom counted as just used."""
        n_atoms, dtype = dictionary.n_atoms, dictionary.atoms.dtype
        return cls(
            jnp.zeros((n_atoms, n_atoms), dtype),
            jnp.zeros_like(dictionary.atoms),
            jnp.zeros((), dtype),
            jnp.zeros(n_atoms, jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.zeros((_N_CANDIDATES, dictionary.n_features), dtype),
            jnp.ones((), dtype),
        )

    def surrogate(self, atoms: Float[Array, "atoms features"]) -> Scalar:
        """Compute ½tr(DᵀAD) − tr(DᵀB): half the mean squared error at the codes so far, up to a constant.

        In unit².

        Args:
            atoms: D.

        Reference:
            Mairal et al. 2010, eq. 6.
        """
        atoms = real_array("atoms", atoms, "atoms features")
        return jnp.sum(atoms * (0.5 * product(self.code_products, atoms) - self.data_products))


class OnlineDictionaryObjective(AbstractGradientObjective):
    """Collect the statistics of a batch's codes. Its gradient is zero: `BlockCoordinateUpdate` moves atoms.

    With n the data of batch t that converged, at codes z of the dictionary as it stands:
    W ← βW + n, A ← A + Σ(zᵀz − A)/W, B ← B + Σ(zᵀx − B)/W, β = (1 − 1/t)^forgetting.
    So a datum of batch s has a weight of (s/t)^forgetting at batch t. A and B are means: neither grows with
    the batch, and splitting the same data into other batches changes only how often the atoms move.
    Samples that did not converge, or are not finite, are left out. Of `WeightedData`, x in B is replaced by
    r + (w/m)(x − r), with the reconstruction r and the largest weight m of the batch: the surrogate is above
    the weighted error and touches it at the present atoms, so that its minimum is a step down.

    Attributes:
        objective: gives inference, loss (the batch's mean energy, at the atoms before they move) and
            metrics. A relative gap of 1e-2 is enough to learn from.
        forgetting: ρ ≥ 0; at 0 all data weigh the same, whatever the dictionary was that coded them; at ρ
            about the last 1/(ρ + 1) of them count. Codes of old atoms hold the atoms back: on natural patches
            (100 atoms, 195 batches of 512) 16 learned more than 8, 4 and 2; batches of 128 were
            too few for 16.

    Reference:
        Mairal, Bach, Ponce & Sapiro 2010, Online learning for matrix factorization and sparse coding,
        algorithm 1 and section 3.4.
    """

    objective: SparseCodingObjective
    forgetting: Float[Array, ""] | float | int = 8.0

    def __check_init__(self):
        check_kind("objective", self.objective, SparseCodingObjective)
        check_nonnegative("forgetting", self.forgetting)

    def check_data(self, model: Dictionary, data: Any) -> None:
        """Raise ``ValueError`` unless rows have as many features as the dictionary."""
        data = native("data", data[0] if isinstance(data, tuple) else data)
        check_rank("data", data, "samples features")
        check_real("data", data)
        check_size("data", data, 1, model.n_features, "features of the dictionary")

    def value_and_grad(
        self,
        model: Dictionary,
        state: DictionaryStatistics,
        batch: Float[Array, "batch features"] | WeightedData,
        key: PRNGKey,
    ) -> tuple[tuple[Scalar, tuple[DictionaryStatistics, dict[str, Array]]], Dictionary]:
        """Return ``((loss, (state, metrics)), gradient)``, the gradient zero."""
        del key  # inference is deterministic
        _check_state(state)
        loss, metrics, coded = self.objective.judge(model, batch)
        gradient = jax.tree.map(jnp.zeros_like, eqx.filter(model, eqx.is_inexact_array))
        return (loss, (_collect(state, coded, self.forgetting), metrics)), gradient


class BlockCoordinateUpdate(eqx.Module):
    """The update of the atoms after each batch: `update_atoms`, then replace those that nothing uses.

    Pass it as ``after_update`` beside an `OnlineDictionaryObjective`.

    An atom that no datum has used for ``replace_after`` steps becomes the datum of the batch with the largest
    reconstruction error (the next such atom the next datum, up to 8 a step), and what the statistics hold
    of it is forgotten.

    Attributes:
        n_sweeps: how often each atom is visited, ≥ 1.
        unit_length: as in `update_atoms`.
        replace_after: steps without use after which an atom is replaced, ≥ 1; ``None``: never.
    """

    n_sweeps: int = eqx.field(default=1, static=True)
    unit_length: bool = eqx.field(default=False, static=True)
    replace_after: int | None = eqx.field(default=20, static=True)

    def __check_init__(self):
        check_at_least("n_sweeps", self.n_sweeps, 1)
        if self.replace_after is not None:
            check_at_least("replace_after", self.replace_after, 1)

    def __call__(
        self,
        model: Dictionary,
        opt_state: Any,
        state: DictionaryStatistics,
        batch: Float[Array, "batch features"] | WeightedData,
        key: PRNGKey,
    ) -> tuple[Dictionary, Any, DictionaryStatistics]:
        """Return ``(model, opt_state, state)`` after the sweeps."""
        del batch, key
        _check_state(state)
        model = update_atoms(model, state, n_sweeps=self.n_sweeps, unit_length=self.unit_length)
        if self.replace_after is not None:
            is_dead = state.n_unused_steps >= self.replace_after
            model, is_replaced = model.replace_atoms(is_dead, state.candidates)
            state = _forget(state, is_replaced)
        return model, opt_state, state


def fit_dictionary_online(
    dictionary: Dictionary,
    penalty: AbstractPenalty,
    data: Any,
    *,
    n_steps: int,
    key: PRNGKey,
    batch_size: int | None = None,
    state: DictionaryStatistics | None = None,
    solver: AbstractSolver | None = None,
    tol: float | None = 1e-2,
    max_steps: int = 5000,
    forgetting: Float[Array, ""] | float | int = 8.0,
    n_sweeps: int = 1,
    unit_length: bool = False,
    replace_after: int | None = 20,
    **settings: Any,
) -> FitResult:
    """Learn a dictionary online: ``fit`` with `OnlineDictionaryObjective` and `BlockCoordinateUpdate`.

    Each step codes a batch, adds to the statistics, and moves every atom to where they want it. There is no
    step size.

    Args:
        dictionary: where to start.
        penalty: the penalty of the codes.
        data: as for ``fit``: rows (samples, features) or `WeightedData` of such rows, a sampler
            ``key -> batch``, or an iterator.
        n_steps: batches in all, ≥ 1.
        key: a typed PRNG key.
        batch_size: rows a batch; ``None``: all rows at each step. Only for arrays.
        state: statistics to go on from; ``None``: none.
        solver: the inference's solver; ``None``: that of `encode_batch`.
        tol: the inference's tolerance, a relative duality gap where there is one.
        max_steps: the most solver steps a datum.
        forgetting: as in `OnlineDictionaryObjective`.
        n_sweeps: as in `BlockCoordinateUpdate`.
        unit_length: as in `update_atoms`.
        replace_after: as in `BlockCoordinateUpdate`.
        **settings: of ``fit``: ``checkpoint``, ``evaluate``, ``callback``, ``progress``, ``steps_per_block``.

    Returns:
        What ``fit`` returns; ``state`` is the statistics. ``fit(..., state=result.state)`` from
        ``result.model`` goes on where this ended.

    Raises:
        ValueError: before the first step, for settings out of range and data of another width.

    Example:
        >>> import jax
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import fit_dictionary_online, random_dictionary
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> rows = jax.random.normal(keys[0], (64, 8))
        >>> start = random_dictionary(keys[1], 12, 8)
        >>> fitted = fit_dictionary_online(start, L1(0.5), rows, n_steps=4, batch_size=16, key=keys[2])
        >>> fitted.model.atoms.shape, bool(fitted.history["loss"][-1] < fitted.history["loss"][0])
        ((12, 8), True)
    """
    check_kind("dictionary", dictionary, Dictionary)
    inference = SparseCodingObjective(penalty, solver, tol, max_steps)
    return fit(
        dictionary,
        OnlineDictionaryObjective(inference, forgetting),
        data,
        optimizer=_NO_GRADIENT,
        n_steps=n_steps,
        key=key,
        batch_size=batch_size,
        state=DictionaryStatistics.init(dictionary) if state is None else state,
        after_update=BlockCoordinateUpdate(n_sweeps, unit_length, replace_after),
        **settings,
    )


def update_atoms(
    dictionary: Dictionary, statistics: DictionaryStatistics, *, n_sweeps: int = 1, unit_length: bool = False
) -> Dictionary:
    """Minimize the statistics' surrogate over one atom after the other, ``n_sweeps`` times over all.

    u = atomⱼ + (Bⱼ − Aⱼ @ atoms)/Aⱼⱼ, atomⱼ ← u/max(‖u‖, 1): the exact minimum within the unit ball, the
    other atoms held, so the surrogate never rises. With ``unit_length`` atomⱼ ← u/‖u‖, the minimum on the
    sphere. An atom shorter than 1 needs larger coefficients, which every penalty here that grows with them
    makes dearer, so at the end of learning the used atoms are of length 1 either way; the sphere keeps
    their codes comparable before that too. Atoms that no code has used stay as they are.

    Args:
        dictionary: the atoms; of length at most 1 (or 1) if the surrogate is not to rise.
        statistics: A and B.
        n_sweeps: how often each atom is visited, ≥ 1.
        unit_length: whether atoms have length 1, or at most 1.

    Reference:
        Mairal et al. 2010, algorithm 2.
    """
    check_at_least("n_sweeps", n_sweeps, 1)
    products = real_array("code_products", statistics.code_products, "atoms atoms")
    pulls = real_array("data_products", statistics.data_products, "atoms features")
    diagonal = jnp.diag(products)
    is_used = diagonal > jnp.finfo(diagonal.dtype).eps * jnp.max(diagonal)

    def visit(i, atoms):
        j = i % dictionary.n_atoms
        target = atoms[j] + (pulls[j] - product(products[j], atoms)) / jnp.where(is_used[j], diagonal[j], 1)
        length = jnp.sqrt(jnp.sum(target**2))
        divisor = length if unit_length else jnp.maximum(length, 1)
        may_move = is_used[j] & (length > 0)
        return atoms.at[j].set(jnp.where(may_move, target / jnp.where(length > 0, divisor, 1), atoms[j]))

    atoms = lax.fori_loop(0, n_sweeps * dictionary.n_atoms, visit, dictionary.atoms)
    return eqx.tree_at(lambda d: d.atoms, dictionary, atoms)


def _collect(statistics: DictionaryStatistics, coded: CodedBatch, forgetting) -> DictionaryStatistics:
    """Add a coded batch to the statistics."""
    products, pulls, dtype = statistics.code_products, statistics.data_products, statistics.weight.dtype
    data, codes = coded.filled().astype(dtype), coded.codes.astype(dtype)
    n_steps = statistics.n_steps + 1
    n_new = jnp.sum(coded.is_converged).astype(dtype)
    kept = (1 - 1 / n_steps.astype(dtype)) ** jnp.asarray(forgetting, dtype)
    weight = kept * statistics.weight + n_new
    per_datum = 1 / jnp.maximum(weight, 1)
    unit = _unit_of(statistics, data)
    change = jnp.where(statistics.weight > 0, statistics.unit / unit, 1)
    products, pulls = products * change**2, pulls * change**2
    rows = codes / unit
    return DictionaryStatistics(
        products + (product(rows.T, rows) - n_new * products) * per_datum,
        pulls + (product(rows.T, data / unit) - n_new * pulls) * per_datum,
        weight,
        count_unused(statistics.n_unused_steps, coded.solution.value),
        n_steps,
        worst_explained(coded, _N_CANDIDATES).astype(dtype),
        unit,
    )


def _unit_of(statistics: DictionaryStatistics, data: Array) -> Scalar:
    """Return the unit of the statistics with a batch: the larger one of what has been seen and this."""
    largest, unit = jnp.max(jnp.abs(data)), unit_of(data)
    new = jnp.where((unit < 1e-9) | (unit > 1e9), unit, 1)
    new = jnp.where(statistics.weight > 0, jnp.maximum(statistics.unit, new), new)
    return jnp.where(largest > 0, new, statistics.unit)


def _forget(statistics: DictionaryStatistics, is_gone: Bool[Array, " atoms"]) -> DictionaryStatistics:
    """Drop what is known of some atoms."""
    return statistics._replace(
        code_products=jnp.where(is_gone[:, None] | is_gone, 0, statistics.code_products),
        data_products=jnp.where(is_gone[:, None], 0, statistics.data_products),
        n_unused_steps=jnp.where(is_gone, 0, statistics.n_unused_steps),
    )


def _check_state(state) -> None:
    if not isinstance(state, DictionaryStatistics):
        raise ValueError(
            "state: expected DictionaryStatistics, from DictionaryStatistics.init(dictionary), "
            f"got {type(state).__name__}."
        )
