"""SpaRSA: proximal gradient with the step size that the last curvature suggests, and a safeguard."""

from functools import partial
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._checks import check_at_least
from .._rows import unit_of
from .._types import Scalar
from ..convergence import AbstractSolver
from ._problem import AbstractCompositeProblem, require_prox, require_value
from ._smooth import Point

__all__ = ["NEGLECTED", "SpaRSA", "SpaRSAState"]

Value = Float[Array, "*value"]

NEGLECTED = 1 / 8  # of L: the most curvature that a smooth term may leave out near a point

_EXACT_EVERY = int(1 / NEGLECTED)  # steps: so many at 1/L cannot raise F in spite of that
_LEAST = 1e-3  # the least curvature tried, relative to L
_PATIENCE = 64.0  # blocks after which a rise may be a sixteenth of what it might at first


class SpaRSAState(NamedTuple):
    """The state of SpaRSA, as `neurojax.convergence.trace` records it.

    Attributes:
        point: the iterate zᵗ, and what is known of f there.
        curvature: α_t, the inverse of the next step size.
        movement: ‖d‖, the length of the last step.
        energies: F after the last blocks, up to the problem's constant; the newest first.
        ceiling: F at the start or at 0, whichever is larger.
        n_blocks: how many blocks have been tried.
        is_careful: whether the next block takes steps of 1/L.
    """

    point: Point
    curvature: Array
    movement: Array
    energies: Array
    ceiling: Array
    n_blocks: Array
    is_careful: Array


class SpaRSA(AbstractSolver):
    """Sparse reconstruction by separable approximation: Barzilai–Borwein steps with a non-monotone safeguard.

    One call of ``step`` is a block of ``block_size`` proximal-gradient steps (counted singly)
    z⁺ = prox_{g/α}(z − ∇f(z)/α), each with the curvature of the one before, α = ⟨d, ∇f(z⁺) − ∇f(z)⟩/‖d‖² for
    d = z⁺ − z, within [L/1000, L]; the first α is L/2. Block number k is kept if it ends at an energy F of
    at most E + (F₀ − E)/(1 + k/64)⁴, where E is the largest of the last ``memory`` blocks' and F₀ that of the
    start, or of 0 if larger (and up to rounding). Else it is undone, and the next takes steps of 1/L, which
    cannot raise F. Barzilai–Borwein steps converge by way of such rises; those allowed have a finite sum.

    Within a block a smooth term may give gradients that leave out curvature of up to L/8 (``point_near``).
    The block ends at an exact one, and there is one after 8 steps at most.

    In the paper each step is tested, and shortened until it passes; with a block at a time a step costs one
    gradient and two sums beside it. On L1 problems of natural images half as many steps do as FISTA takes.
    Where the strength is a thousand times smaller than the data, FISTA is the faster. For convex penalties:
    under L0, whose fixed points depend on the step size, it need not settle.

    Gradient:
        Through `convergence.trace`: exact, the step sizes included. It does not tend to that of the solution,
        for step sizes depend on the direction of the last move, which goes on turning: so `Unrolled` and
        `Truncated` refuse this solver. `Implicit` does not look at steps.

    Attributes:
        block_size: proximal-gradient steps in a block, ≥ 1.
        memory: how many blocks the safeguard looks back over, ≥ 1.

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator or no value, and for a smooth
            term without a bound on its curvature.

    Reference:
        Wright, Nowak & Figueiredo 2009, Sparse reconstruction by separable approximation, section II;
        the safeguard by blocks: Grippo, Lampariello & Lucidi 1991, A class of nonmonotone stabilization
        methods in unconstrained optimization (the watchdog); the sum: Li & Fukushima 2000.
    """

    block_size: int = eqx.field(default=4, static=True)
    memory: int = eqx.field(default=8, static=True)
    has_smooth_steps: ClassVar[bool] = False

    def __check_init__(self):
        check_at_least("block_size", self.block_size, 1)
        check_at_least("memory", self.memory, 1)

    @property
    def n_gradients(self) -> int:
        """The steps of a block, which has a gradient for each."""
        return self.block_size

    def init(self, problem: AbstractCompositeProblem, value: Value) -> SpaRSAState:
        """Start from ``value``."""
        return self.init_at(problem, problem.smooth.point(value))

    def init_at(self, problem: AbstractCompositeProblem, point: Point) -> SpaRSAState:
        """Start from a point where f has been evaluated already."""
        require_prox("SpaRSA", problem.penalty)
        if not problem.is_bounded:
            kind = type(problem.smooth).__name__
            raise ValueError(
                f"solver: SpaRSA expected a smooth term with a bound on its curvature (curvature_bound), "
                f"got {kind}, which has none; FISTA() backtracks."
            )
        curvature = (problem.lipschitz / 2).astype(point.value.dtype)
        energy = _energy(problem, point)
        far, energies = jnp.full_like(curvature, jnp.inf), jnp.full(self.memory, energy)
        ceiling = jnp.maximum(energy, 0)
        return SpaRSAState(point, curvature, far, energies, ceiling, jnp.int32(0), jnp.zeros((), bool))

    def step(self, problem: AbstractCompositeProblem, state: SpaRSAState) -> SpaRSAState:
        """Take a block of steps; keep it, or undo it and be careful."""
        largest = problem.lipschitz.astype(state.curvature.dtype)
        prox = require_prox("SpaRSA", problem.penalty).prox
        point = exact = state.point
        curvature, squared, unit = state.curvature, jnp.zeros_like(largest), jnp.ones_like(largest)
        for n_steps in range(1, self.block_size + 1):  # in line: a loop would copy its carry
            # The paper's subproblem: z⁺ is the prox of g/α_t (there τφ/α_t) at z − ∇f(z)/α_t.
            used = jnp.where(state.is_careful, largest, curvature)
            value = prox(point.value - point.gradient / used, 1 / used)
            is_exact = n_steps == self.block_size or n_steps % _EXACT_EVERY == 0
            new = problem.smooth.point(value) if is_exact else problem.smooth.point_near(exact, value)
            exact = new if is_exact else exact
            # Barzilai and Borwein's α_{t+1} = ‖A s_t‖²/‖s_t‖², with s_t = z⁺ − z.
            unit = lax.stop_gradient(unit_of(new.value - point.value))  # the squares of short steps underflow
            squared = jnp.sum(((new.value - point.value) / unit) ** 2)
            bent = problem.smooth.curvature_between(point, new, unit)
            measured = jnp.clip(bent / jnp.where(squared > 0, squared, 1), _LEAST * largest, largest)
            curvature = jnp.where(squared > 0, measured, curvature)
            point = new
        # The paper's acceptance test, of a block: φ at most the largest of the last M, plus what it may rise.
        energy, highest = _energy(problem, point), jnp.max(state.energies)
        rise = (state.ceiling - highest) / (1 + state.n_blocks.astype(energy.dtype) / _PATIENCE) ** 4
        rounding = 8 * jnp.finfo(energy.dtype).eps * jnp.abs(highest)
        is_kept = (energy <= highest + rise + rounding) | state.is_careful
        keep = partial(jnp.where, is_kept)
        return SpaRSAState(
            jax.tree.map(keep, point, state.point),
            curvature,
            lax.stop_gradient(unit * jnp.sqrt(squared)),
            keep(jnp.concatenate([energy[None], state.energies[:-1]]), state.energies),
            state.ceiling,
            state.n_blocks + 1,
            ~is_kept,
        )

    def value(self, state: SpaRSAState) -> Value:
        """Return the iterate."""
        return state.point.value

    def estimate(self, problem: AbstractCompositeProblem, state: SpaRSAState) -> Scalar:
        """Return the residual, from what the state carries."""
        return problem.residual_at(state.point, state.movement)


def _energy(problem: AbstractCompositeProblem, point: Point) -> Scalar:
    """Return F at a point, up to a constant."""
    return problem.smooth.value_at(point) + require_value("SpaRSA", problem.penalty).value(point.value)
