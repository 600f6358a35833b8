"""Solvers that know the sparse-coding problem: the LCA, coordinate descent, and Optax on smooth energies."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, ArrayLike, Float

from .._checks import check_positive
from ..convergence import AbstractSolver
from ..proximal import AbstractCompositeProblem
from ..proximal._problem import require_prox

__all__ = ["LCA", "CoordinateDescent", "Gradient", "LCAState"]

Code = Float[Array, "*code"]


class LCAState(NamedTuple):
    """The state of the LCA, as `neurojax.convergence.trace` records it.

    Attributes:
        potential: membrane potentials u.
        activity: activities a = T(u), the code.
        step: time_step/time_constant.
    """

    potential: Array
    activity: Array
    step: Array


class LCA(AbstractSolver):
    """The locally competitive algorithm: leaky integrators that inhibit each other.

    τ du/dt = −u + c(a) + a,  a = T(u),  with c(a) = atoms·(x − a@atoms) and T = prox of the penalty at
    step 1, by forward Euler: u ← u + (Δt/τ)(c + a − u). For atoms of unit length this is
    τ du/dt = b − u − (G − I)a with b = atoms·x and G the Gram matrix. Its fixed points are the stationary
    points of the energy, for atoms of any length. L1 gives Rozell's soft threshold; L0(λ²/2) the hard one,
    T(u) = u for |u| > λ. Atoms much shorter than 1 make it slow, and where L < 1 the fixed points that a
    penalty which is not convex has here need not satisfy `encode`: normalize the atoms.

    Attributes:
        time_constant: τ in ms, > 0.
        time_step: Δt in ms, > 0. ``None`` takes τ·min(0.1, 1/L), within the stability limit 2τ/max(1, L).

    Raises:
        ValueError: at trace time, where the penalty has no proximal operator.

    Reference:
        Rozell, Johnson, Baraniuk & Olshausen 2008, eqs. 2.5 and 3.1; τ = 10 ms there.
    """

    time_constant: ArrayLike = 10.0
    time_step: ArrayLike | None = None

    def __check_init__(self):
        check_positive("time_constant", self.time_constant)
        if self.time_step is not None:
            check_positive("time_step", self.time_step)

    def init(self, problem: AbstractCompositeProblem, value: Code) -> LCAState:
        """Start from the potentials that hold the code ``value``: u = a + ∇penalty(a) where a ≠ 0, else 0."""
        penalty = require_prox("LCA", problem.penalty)
        potential = jnp.where(value == 0, 0, value + penalty.gradient(value))
        if self.time_step is None:
            step = jnp.minimum(0.1, 1 / problem.lipschitz)
        else:
            step = jnp.asarray(self.time_step / self.time_constant)
        return LCAState(potential, value, step.astype(value.dtype))

    def step(self, problem: AbstractCompositeProblem, state: LCAState) -> LCAState:
        """Integrate over one time step."""
        drive = state.activity - problem.smooth.gradient(state.activity)
        potential = state.potential + state.step * (drive - state.potential)
        activity = require_prox("LCA", problem.penalty).prox(potential, jnp.ones((), potential.dtype))
        return LCAState(potential, activity, state.step)

    def value(self, state: LCAState) -> Code:
        """Return the activities."""
        return state.activity


class CoordinateDescent(AbstractSolver):
    """Cyclic coordinate descent on the Gram matrix; one step is one sweep over all atoms.

    zᵢ ← prox of penalty/Gᵢᵢ at zᵢ + cᵢ/Gᵢᵢ, with the correlations c = atoms·(x − z@atoms) kept up to date
    by rows of the Gram matrix, and computed afresh at the start of each sweep.

    Raises:
        ValueError: at trace time, for a penalty that has no proximal operator or is not a sum over
            coefficients, and for a dictionary without a Gram matrix.

    Reference:
        Friedman, Hastie & Tibshirani 2010, section 2 ("covariance updates").
    """

    needs_gram: ClassVar[bool] = True

    def init(self, problem: AbstractCompositeProblem, value: Code) -> Code:
        """Start from ``value``."""
        require_prox("CoordinateDescent", problem.penalty)
        if not problem.penalty.is_separable:
            kind = type(problem.penalty).__name__
            raise ValueError(
                f"CoordinateDescent: expected a separable penalty, got {kind}, which couples atoms."
            )
        _require_gram(problem)
        return value

    def step(self, problem: AbstractCompositeProblem, state: Code) -> Code:
        """Sweep over the atoms once."""
        gram = _require_gram(problem)

        def update(i, carry):
            code, correlation = carry
            old, curvature = code[..., i], gram[i, i]
            penalty = _coordinate(problem.penalty, i, code.shape)
            new = penalty.prox(old + correlation[..., i] / curvature, 1 / curvature)
            correlation = correlation - (new - old)[..., None] * gram[i]
            return code.at[..., i].set(new), correlation

        carry = state, -problem.smooth.gradient(state)
        return lax.fori_loop(0, state.shape[-1], update, carry)[0]

    def value(self, state: Code) -> Code:
        """Return the code."""
        return state


class _GradientState(NamedTuple):
    value: Any
    optimizer: Any


class Gradient(AbstractSolver):
    """An Optax transformation that asks for the gradient alone, run on a smooth energy.

    Attributes:
        transform: the transformation; its learning rate is this solver's step size. It is static: it may not
            close over a value that is being differentiated or traced.

    Gradient:
        Of `Unrolled` and `Truncated`: through the transformation's own derivative. Adam and RMSprop divide
        by √v; where a gradient entry stays 0 or nearly so, as for a zero datum or at the minimum, that
        derivative is infinite or explodes with the steps. A large ``eps`` tames it; `Implicit` does not
        meet it.

    Raises:
        ValueError: at trace time, for a penalty that is not smooth: its sub-gradient never settles.
    """

    transform: optax.GradientTransformation = eqx.field(static=True)

    def init(self, problem: AbstractCompositeProblem, value: Code) -> _GradientState:
        """Start from ``value`` with a fresh optimizer state."""
        if not problem.penalty.is_smooth:
            raise ValueError(
                f"Gradient: expected a smooth penalty (SmoothL1, Gaussian, Cauchy), "
                f"got {type(problem.penalty).__name__}; ISTA and FISTA take that one."
            )
        return _GradientState(value, self.transform.init(value))

    def step(self, problem: AbstractCompositeProblem, state: _GradientState) -> _GradientState:
        """Update once along the energy's gradient."""
        gradient = problem.stationarity(state.value)
        change, optimizer = self.transform.update(gradient, state.optimizer, state.value)
        return _GradientState(optax.apply_updates(state.value, change), optimizer)

    def value(self, state: _GradientState) -> Code:
        """Return the code."""
        return state.value


def _require_gram(problem: AbstractCompositeProblem) -> Array:
    gram = getattr(problem.smooth, "gram", None)
    if gram is None:
        kind = type(problem.smooth).__name__
        raise ValueError(
            "CoordinateDescent: expected a problem that holds its dictionary's Gram matrix, got none "
            f"in its {kind}; dictionaries without one, and weights of the data, take another solver."
        )
    return gram


def _coordinate(penalty, i, shape):
    """Return the penalty as it acts on coefficient ``i``: its strengths may differ from atom to atom."""

    def pick(strength):
        return strength if jnp.ndim(strength) == 0 else jnp.broadcast_to(strength, shape)[..., i]

    return jax.tree.map(pick, penalty)
