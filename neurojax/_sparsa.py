"""SpaRSA: proximal gradient with the step size that the last curvature suggests, and a safeguard."""

from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ._checks import check_at_least
from ._proximal import AbstractCompositeProblem, Code, Point, require_prox, require_value
from ._types import Scalar
from .convergence import AbstractSolver

__all__ = ["NEGLECTED", "SpaRSA", "SpaRSAState"]

NEGLECTED = 1 / 8  # of L: the most curvature that a problem may leave out near a point

_LEAST = 1e-3  # the least curvature tried, relative to L
_EXACT_EVERY = int(1 / NEGLECTED)  # steps: so many at 1/L cannot raise F in spite of that
_PATIENCE = 64.0  # blocks after which a rise may be a sixteenth of what it might at first


class SpaRSAState(NamedTuple):
    """The state of SpaRSA, as `neurojax.convergence.trace` records it.

    Attributes:
        point: the iterate z, and what is known of f there.
        curvature: α, the inverse of the next step size.
        penalty: g(z).
        movement: ‖d‖, the length of the last step.
        energies: F after the last blocks, up to the problem's constant; the newest first.
        ceiling: F at the start or at 0, whichever is larger.
        n_blocks: how many blocks have been tried.
        is_careful: whether the next block takes steps of 1/L.
    """

    point: Point
    curvature: Array
    penalty: Array
    movement: Array
    energies: Array
    ceiling: Array
    n_blocks: Array
    is_careful: Array


class SpaRSA(AbstractSolver):
    """Sparse reconstruction by separable approximation: Barzilai–Borwein steps with a non-monotone safeguard.

    A step of this solver is a block of ``block_size`` proximal-gradient steps
    z⁺ = prox_{g/α}(z − ∇f(z)/α), each with the curvature of the one before, α = ⟨d, ∇f(z⁺) − ∇f(z)⟩/‖d‖² for
    d = z⁺ − z, within [L/1000, L]; the first α is L/2. Block number k is kept if it ends at an energy F of
    at most E + (F₀ − E)/(1 + k/64)⁴, where E is the largest of the last ``memory`` blocks' and F₀ that of the
    start, or of 0 if larger (and up to rounding). Else it is undone, and the next takes steps of 1/L, which
    cannot raise F. Barzilai–Borwein steps converge by way of such rises; those allowed have a finite sum.
    Within a block a problem may give gradients that leave out curvature of up to L/8 (``point_near``);
    the block ends at an exact one, and there is one after 8 steps at most.

    In the paper each step is tested, and shortened until it passes; with a block at a time a step costs one
    gradient and two sums beside it. On L1 problems of natural images half as many steps do as FISTA takes.
    Where the strength is a thousand times smaller than the data, FISTA is the faster. For convex penalties:
    under L0, whose fixed points depend on the step size, it need not settle.

    Gradient:
        The step sizes are constants for derivatives.

    Attributes:
        block_size: proximal-gradient steps in a block, ≥ 1.
        memory: how many blocks the safeguard looks back over, ≥ 1.

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator or no value, and for a problem
            that does not give the value of f.

    Reference:
        Wright, Nowak & Figueiredo 2009, Sparse reconstruction by separable approximation, section II;
        the safeguard by blocks: Grippo, Lampariello & Lucidi 1991, A class of nonmonotone stabilization
        methods in unconstrained optimization (the watchdog); the sum: Li & Fukushima 2000.
    """

    block_size: int = eqx.field(default=4, static=True)
    memory: int = eqx.field(default=8, static=True)

    def __check_init__(self):
        check_at_least("block_size", self.block_size, 1)
        check_at_least("memory", self.memory, 1)

    def init(self, problem: AbstractCompositeProblem, value: Code) -> SpaRSAState:
        """Start from ``value``."""
        return self.init_at(problem, problem.point(value))

    def init_at(self, problem: AbstractCompositeProblem, point: Point) -> SpaRSAState:
        """Start from a point where f has been evaluated already."""
        require_prox("SpaRSA", problem.penalty)
        curvature = (problem.lipschitz / 2).astype(point.value.dtype)
        energy, penalty = _energy(problem, point)
        far, energies = jnp.full_like(curvature, jnp.inf), jnp.full(self.memory, energy)
        ceiling = jnp.maximum(energy, 0)
        return SpaRSAState(
            point, curvature, penalty, far, energies, ceiling, jnp.int32(0), jnp.zeros((), bool)
        )

    def step(self, problem: AbstractCompositeProblem, state: SpaRSAState) -> SpaRSAState:
        """Take a block of steps; keep it, or undo it and be careful."""
        largest = problem.lipschitz.astype(state.curvature.dtype)
        prox = require_prox("SpaRSA", problem.penalty).prox
        point = exact = state.point
        curvature, squared = state.curvature, jnp.zeros_like(largest)
        for n_steps in range(1, self.block_size + 1):  # in line: a loop would copy its carry
            used = jnp.where(state.is_careful, largest, curvature)
            value = prox(point.value - point.gradient / used, 1 / used)
            is_exact = n_steps == self.block_size or n_steps % _EXACT_EVERY == 0
            new = problem.point(value) if is_exact else problem.point_near(exact, value)
            exact = new if is_exact else exact
            squared = jnp.sum((new.value - point.value) ** 2)
            measured = problem.bending(point, new) / jnp.where(squared > 0, squared, 1)
            measured = jnp.clip(lax.stop_gradient(measured), _LEAST * largest, largest)
            curvature = jnp.where(squared > 0, measured, curvature)
            point = new
        (energy, penalty), highest = _energy(problem, point), jnp.max(state.energies)
        rise = (state.ceiling - highest) / (1 + state.n_blocks.astype(energy.dtype) / _PATIENCE) ** 4
        rounding = 8 * jnp.finfo(energy.dtype).eps * jnp.abs(highest)
        is_kept = (energy <= highest + rise + rounding) | state.is_careful
        keep = partial(jnp.where, is_kept)
        return SpaRSAState(
            jax.tree.map(keep, point, state.point),
            curvature,
            keep(penalty, state.penalty),
            jnp.sqrt(lax.stop_gradient(squared)),
            keep(jnp.concatenate([energy[None], state.energies[:-1]]), state.energies),
            state.ceiling,
            state.n_blocks + 1,
            ~is_kept,
        )

    def value(self, state: SpaRSAState) -> Code:
        """Return the iterate."""
        return state.point.value

    def estimate(self, problem: AbstractCompositeProblem, state: SpaRSAState) -> Scalar:
        """Return the residual, from what the state carries."""
        return problem.residual_at(state.point, state.penalty, state.movement)


def _energy(problem: AbstractCompositeProblem, point: Point) -> tuple[Scalar, Scalar]:
    """Return F and g at a point."""
    penalty = require_value("SpaRSA", problem.penalty).value(point.value)
    return problem.smooth_value_at(point) + penalty, penalty
