"""Sparse coding as a layer of a network: inference whose derivative is the layer's derivative."""

from functools import lru_cache
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

from .._arrays import real_array
from .._checks import check_at_least, check_kind, check_positive
from .._trees import constant
from .._types import PRNGKey
from ..convergence import AbstractGradient, AbstractSolver, Implicit, Solution, Status
from ..penalties import AbstractPenalty
from ..proximal import FISTA
from ._dictionary import AbstractDictionary
from ._encode import encode
from ._solvers import Gradient

__all__ = ["SparseCodingLayer", "rmsprop_inference"]


class SparseCodingLayer(eqx.Module):
    """A layer that answers a datum with its sparse code, or with what that code stands for.

    z(x) = argmin_z ½‖x − z @ atoms‖² + penalty(z), found by `encode`; the output is z ("code") or z @ atoms
    ("reconstruction", of this same z). One datum a call: ``jax.vmap`` makes batches, and
    ``equinox.nn.Sequential`` chains it with other layers.

    What is trained: the dictionary. The penalty's arrays have a zero gradient unless ``learn_penalty``, the
    solver's always. An optimizer that decays weights moves them all the same: give it a mask, as in
    ``optax.adamw(η, mask=f)`` with f(model) the tree ``jax.tree.map(equinox.is_array, model)`` with False in
    place of the penalty. Nothing here holds atoms at a length, or a strength that is trained at or above
    0; below 0 it rewards large codes, and inside ``jit`` nothing raises. ``after_update`` in ``fit`` is the
    place for both: ``equinox.tree_at(lambda m: m.dictionary, model, replace_fn=normalize_atoms)`` and
    ``equinox.tree_at(lambda m: m.penalty.strength, model, replace_fn=jax.nn.relu)``.

    Attributes:
        dictionary: the dictionary.
        penalty: the penalty.
        solver: the inference's solver; smooth penalties take `Gradient`, such as `rmsprop_inference`.
        gradient: how derivatives pass through the inference: ``Implicit()`` gives those of the minimizer,
            ``Unrolled()`` those of the iterate, ``Truncated(k)`` those of its last k steps, ``Detached()``
            none (a reconstruction still has that of z @ atoms with z constant).
        returns: "code" or "reconstruction".
        tol: the inference's tolerance; see `encode`.
        max_steps: the most solver steps a datum, ≥ 1.
        steps_per_check: solver steps between two looks at the residual, ≥ 1. With
            ``steps_per_check=max_steps`` a datum gets exactly that many, or none if zero is its code.
        learn_penalty: whether derivatives reach the penalty's arrays, all of them (of a `SmoothL1` also
            epsilon, which must stay positive).

    Gradient:
        With respect to the dictionary and the datum, as ``gradient`` says. A datum that did not converge
        gives its last iterate, and the derivative that the mode documents for that: exact for the iterate
        under ``Unrolled``, of nothing under ``Implicit``. `infer` tells which these are. A datum that is not
        finite, and one whose inference ended as ``nonfinite``, gives NaN throughout, as another layer would;
        where the caller masks that, its derivative is zero.

    Raises:
        ValueError: at construction, for arguments of another kind or out of range; at trace time, as
            `encode`.

    Reference:
        Mairal, Bach & Ponce 2012, Task-driven dictionary learning, for the implicit derivative.

    Example:
        >>> import equinox as eqx, jax, jax.numpy as jnp
        >>> from neurojax.penalties import L1
        >>> from neurojax.sparse_coding import Dictionary, SparseCodingLayer
        >>> layer = SparseCodingLayer(Dictionary(jnp.eye(3)), L1(0.5))
        >>> print(jax.jit(jax.vmap(layer))(jnp.array([[2.0, -1.5, 0.25]])).round(4))
        [[ 1.5 -1.   0. ]]
        >>> network = eqx.nn.Sequential([layer, eqx.nn.Linear(3, 2, key=jax.random.key(0))])
        >>> jax.eval_shape(jax.vmap(network), jnp.ones((10, 3))).shape
        (10, 2)
    """

    dictionary: AbstractDictionary
    penalty: AbstractPenalty
    solver: AbstractSolver = FISTA()
    gradient: AbstractGradient = Implicit()
    returns: Literal["code", "reconstruction"] = eqx.field(default="code", static=True)
    tol: float | None = eqx.field(default=None, static=True)
    max_steps: int = eqx.field(default=5000, static=True)
    steps_per_check: int = eqx.field(default=10, static=True)
    learn_penalty: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        check_kind("dictionary", self.dictionary, AbstractDictionary)
        check_kind("penalty", self.penalty, AbstractPenalty)
        check_kind("solver", self.solver, AbstractSolver)
        check_kind("gradient", self.gradient, AbstractGradient)
        check_kind("learn_penalty", self.learn_penalty, bool)
        if self.returns not in ("code", "reconstruction"):
            raise ValueError(f'returns: expected "code" or "reconstruction", got {self.returns!r}.')
        if self.tol is not None:
            check_positive("tol", self.tol)
        check_at_least("max_steps", self.max_steps, 1)
        check_at_least("steps_per_check", self.steps_per_check, 1)

    def __call__(self, x: Float[ArrayLike, "*datum"], *, key: PRNGKey | None = None) -> Float[Array, "..."]:
        """Return the code of one datum, or its reconstruction. ``key`` is not used.

        Raises:
            ValueError: at trace time, for an x of the wrong shape or of complex numbers.
        """
        x = real_array("x", x, self.dictionary.datum_axes)
        is_finite = jnp.all(jnp.isfinite(x))
        # A derivative of zero times NaN would be NaN for the whole dictionary.
        solution = self.infer(jnp.where(is_finite, x, 0))
        is_sound = is_finite & (solution.status != Status.nonfinite)
        output = jnp.where(is_sound, solution.value, 0)
        if self.returns == "reconstruction":
            output = self.dictionary.reconstruct(output)
        return jnp.where(is_sound, output, jnp.nan)

    def infer(self, x: Float[ArrayLike, "*datum"]) -> Solution:
        """Return the code of one datum with its status, steps and residual; differentiable as the layer."""
        return encode(
            self.dictionary,
            x,
            self.penalty if self.learn_penalty else constant(self.penalty),
            solver=constant(self.solver),
            tol=self.tol,
            max_steps=self.max_steps,
            steps_per_check=self.steps_per_check,
            gradient=self.gradient,
        )


def rmsprop_inference(
    step_size: float = 1e-3, decay: float = 0.9, momentum: float = 0.9, epsilon: float = 1e-8
) -> Gradient:
    """Make the solver of a published differentiable layer: RMSprop with a Nesterov-like momentum.

    With g the gradient of *twice* this library's energy, ‖x − z @ atoms‖² + 2·penalty(z), from v = m = 0:
    v ← ρv + (1 − ρ)g²;  m ← μm − ηg/√(v + ε);  z ← z + μm − ηg/√(v + ε), m being the new one. For the energy
    ‖x − z @ atoms‖² + γ Σ √(zᵢ² + 1e-7) of that layer the penalty is ``SmoothL1(γ/2, 1e-7)``.

    It was run for a fixed number n of steps, ``max_steps=n, steps_per_check=n``: the residual is then looked
    at before the first and after the last step only. A coefficient moves by about ηn/(1 − μ) at most in n
    steps, however large the data, and by steps of about η near the minimum: whether this converges depends on
    the data's scale, and statuses tell. Near the minimum a step also magnifies what it starts from: rounding
    alone decides the last few η of a code.

    Gradient:
        The published layer held z constant before its last step, and returned z @ atoms of that same z: its
        reconstruction is one step behind its code. Where reconstructions are returned, as published, its
        gradient is therefore that of a constant code after n − 1 steps: ``gradient=Detached(),
        max_steps=n − 1, steps_per_check=n − 1``. Where codes are returned it is that of the last step,
        ``Truncated(1)``; with reconstructions that is another gradient. Through all steps, `Unrolled`, it is
        exact and useless: it explodes with the steps near the minimum, by ten orders of magnitude and more.
        `Implicit` does not, and is that of the minimizer as far as this was reached.

    Args:
        step_size: η, > 0.
        decay: ρ, in [0, 1).
        momentum: μ, in [0, 1).
        epsilon: ε, > 0, inside the root.

    Returns:
        The solver, for smooth penalties; the same object for the same settings.

    Raises:
        ValueError: for settings out of range.

    Reference:
        Tieleman & Hinton 2012, lecture 6.5, for RMSprop; Bengio, Boulanger-Lewandowski & Pascanu 2013,
        section 3.5, for this form of Nesterov's momentum.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.penalties import SmoothL1
        >>> from neurojax.sparse_coding import Dictionary, SparseCodingLayer, rmsprop_inference
        >>> settings = {"solver": rmsprop_inference(), "max_steps": 100, "steps_per_check": 100}
        >>> layer = SparseCodingLayer(Dictionary(jnp.eye(2)), SmoothL1(0.05, 1e-7), **settings)
        >>> solution = jax.jit(lambda x: layer.infer(x))(jnp.array([0.3, -0.2]))
        >>> [round(z, 2) for z in solution.value.tolist()], int(solution.n_steps)
        ([0.25, -0.15], 100)
    """
    check_positive("step_size", step_size)
    for name, value in (("decay", decay), ("momentum", momentum)):
        if not 0 <= value < 1:
            raise ValueError(f"{name}: expected a number in [0, 1), got {value}.")
    check_positive("epsilon", epsilon)
    return _rmsprop(float(step_size), float(decay), float(momentum), float(epsilon))


@lru_cache
def _rmsprop(step_size: float, decay: float, momentum: float, epsilon: float) -> Gradient:
    # One object for equal settings: an Optax transformation is compared by identity, so that a new one would
    # compile everything again.
    rmsprop = optax.rmsprop(
        step_size, decay=decay, eps=epsilon, eps_in_sqrt=True, momentum=momentum, nesterov=True
    )
    return Gradient(optax.chain(optax.scale(2.0), rmsprop))
