"""Learned inference: ISTA unrolled into a network of few layers, whose weights or step sizes are trained."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int, Real

from .._arrays import real_array
from .._checks import check_at_least, check_rank, check_shape, check_size
from .._precision import product
from .._trees import constant
from .._types import PRNGKey, Scalar
from ..metrics import n_active
from ..penalties import L1, AbstractValuedPenalty, soft_threshold
from ._dictionary import AbstractDictionary, Dictionary, energy
from ._problem import make_problem

__all__ = [
    "ALISTA",
    "LISTA",
    "AmortizedInferenceObjective",
    "CodeRegressionObjective",
    "CodedData",
    "analytic_weights",
]


class _AbstractNetwork(eqx.Module):
    """A network whose layers each hold a code."""

    @abstractmethod
    def layers(self, x: Float[ArrayLike, " features"]) -> Float[Array, "layers atoms"]:
        """Return the code after each layer.

        Raises:
            ValueError: at trace time, for an x of the wrong width or of integers.
        """

    def __call__(
        self, x: Float[ArrayLike, " features"], *, key: PRNGKey | None = None
    ) -> Float[Array, " atoms"]:
        """Return the code of one datum: the last layer's. ``key`` is not used."""
        return self.layers(x)[-1]


class LISTA(_AbstractNetwork):
    """Learned ISTA: a recurrent network whose layers have the form of an ISTA step, all weights learned.

    z₀ = 0,  zₖ₊₁ = soft(x @ Wₖ + zₖ @ Sₖ, |θₖ|), with soft(v, t) = sign(v)·max(|v| − t, 0). Before training
    W = atomsᵀ/L, S = I − atoms @ atomsᵀ/L and θ = strength/L, so that the network equals ``n_layers`` steps
    of `ISTA` on ½‖x − z @ atoms‖² + strength·‖z‖₁ from zero, with the same L.

    Attributes:
        encoders: Wₖ; a single one where layers share it.
        recurrences: Sₖ, likewise.
        thresholds: θₖ, for each layer and atom; the sign has no meaning.

    Args:
        dictionary: where training starts from; it is not kept.
        strength: of the L1 penalty, ≥ 0: a number, or one for each atom.
        n_layers: the number of layers, ≥ 1.
        tied: whether all layers share one W and one S; the thresholds are always each layer's own.

    Raises:
        ValueError: at construction, for a count below 1 and a negative strength.

    Reference:
        Gregor & LeCun 2010, Learning fast approximations of sparse coding; there the thresholds are tied too.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.sparse_coding import LISTA, random_dictionary
        >>> dictionary = random_dictionary(jax.random.key(0), 6, 4)
        >>> network = LISTA(dictionary, 0.1, 3)
        >>> network.layers(jnp.ones(4)).shape  # the last of them is network(jnp.ones(4))
        (3, 6)
    """

    encoders: Float[Array, "shared_or_layers features atoms"]
    recurrences: Float[Array, "shared_or_layers atoms atoms"]
    thresholds: Float[Array, "layers atoms"]

    def __init__(
        self, dictionary: Dictionary, strength: Real[ArrayLike, "..."], n_layers: int, *, tied: bool = False
    ):
        n_atoms, n_weights = dictionary.n_atoms, 1 if tied else n_layers
        if np.ndim(strength):
            check_shape("strength", strength, (n_atoms,), "one for each atom")
        step_size, threshold = _first_step(dictionary, strength, n_layers)
        identity = jnp.eye(n_atoms, dtype=step_size.dtype)
        self.encoders = _repeat(step_size * dictionary.atoms.T, n_weights)
        self.recurrences = _repeat(identity - step_size * dictionary.gram(), n_weights)
        self.thresholds = _repeat(jnp.broadcast_to(threshold, (n_atoms,)), n_layers)

    def layers(self, x: Float[ArrayLike, " features"]) -> Float[Array, "layers atoms"]:
        """Return the code after each layer."""
        x = _datum(x, self.encoders.shape[1])
        start = jnp.zeros(self.thresholds.shape[1], jnp.result_type(x, self.encoders))
        is_tied = self.encoders.shape[0] == 1

        def step(code, layer):
            weights, thresholds = layer
            encoder, recurrence = (self.encoders[0], self.recurrences[0]) if is_tied else weights
            code = soft_threshold(product(x, encoder) + product(code, recurrence), _positive(thresholds))
            return code, code

        weights = None if is_tied else (self.encoders, self.recurrences)
        return lax.scan(step, start, (weights, self.thresholds))[1]


class ALISTA(_AbstractNetwork):
    """ISTA with analytic weights: of each layer only a step size, a threshold and a blend are learned.

    z₀ = 0,  zₖ₊₁ = soft(zₖ + γₖ(x − zₖ @ atoms) @ Bₖᵀ, |θₖ|),  Bₖ = atoms + βₖ(W − atoms), W the
    `analytic_weights`. Before training γ = 1/L, θ = strength/L and β = ``blend``. With β = 0 and no support
    selection, the defaults, the network equals ``n_layers`` steps of `ISTA` from zero. The paper's network
    has β = 1, which is not learned there.

    Support selection (Chen et al. 2018): in layer k the coefficients with the ``n_trusted[k]`` largest
    magnitudes (all that tie with the last) are not shrunk where they pass the threshold. This takes the bias
    of soft thresholding off large coefficients; which ones are trusted carries no gradient.

    The dictionary and W are constants: no gradient reaches them, so that Adam or plain descent leaves them
    alone. Weight decay would shrink them all the same; with ``trainable=network.trainable()`` in ``fit`` no
    optimizer sees them.

    Attributes:
        dictionary: the dictionary.
        weights: W.
        step_sizes: γₖ.
        thresholds: θₖ; the sign has no meaning.
        blends: βₖ.
        n_trusted: coefficients trusted by each layer, or ``None``.

    Args:
        dictionary: the dictionary.
        strength: of the L1 penalty, ≥ 0.
        n_layers: the number of layers, ≥ 1.
        n_trusted: for each layer, how many coefficients to trust, between 0 and the number of atoms;
            ``None``: no support selection.
        blend: β before training.

    Raises:
        ValueError: at construction, for counts out of range, a negative strength and one that is not a
            single number.

    Reference:
        Liu, Chen, Wang & Yin 2019, ALISTA: Analytic weights are as good as learned weights in LISTA; Chen,
        Liu, Wang & Yin 2018, Theoretical linear convergence of unfolded ISTA, for support selection.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.sparse_coding import ALISTA, random_dictionary
        >>> dictionary = random_dictionary(jax.random.key(0), 6, 4)
        >>> network = ALISTA(dictionary, 0.1, 3, n_trusted=(0, 1, 2))
        >>> network(jnp.ones(4)).shape
        (6,)
    """

    dictionary: Dictionary
    weights: Float[Array, "atoms features"]
    step_sizes: Float[Array, " layers"]
    thresholds: Float[Array, " layers"]
    blends: Float[Array, " layers"]
    n_trusted: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        dictionary: Dictionary,
        strength: Real[ArrayLike, ""],
        n_layers: int,
        *,
        n_trusted: Sequence[int] | None = None,
        blend: float = 0.0,
    ):
        check_rank("strength", strength, "")
        step_size, threshold = _first_step(dictionary, strength, n_layers)
        self.dictionary = dictionary
        self.weights = analytic_weights(dictionary)
        self.step_sizes = _repeat(step_size, n_layers)
        self.thresholds = _repeat(threshold, n_layers)
        self.blends = jnp.full(n_layers, blend, step_size.dtype)
        self.n_trusted = (
            None if n_trusted is None else _trusted_counts(n_trusted, n_layers, dictionary.n_atoms)
        )

    def layers(self, x: Float[ArrayLike, " features"]) -> Float[Array, "layers atoms"]:
        """Return the code after each layer."""
        x = _datum(x, self.dictionary.n_features)
        atoms, weights = constant((self.dictionary.atoms, self.weights))

        def step(code, layer):
            step_size, threshold, blend, n_trusted = layer
            back = atoms + blend * (weights - atoms)
            v = code + step_size * product(x - product(code, atoms), back.T)
            threshold = _positive(threshold)
            shrunk = soft_threshold(v, threshold)
            if n_trusted is not None:
                shrunk = jnp.where(_is_among_largest(v, n_trusted) & (jnp.abs(v) > threshold), v, shrunk)
            return shrunk, shrunk

        counts = None if self.n_trusted is None else jnp.asarray(self.n_trusted, jnp.int32)
        start = jnp.zeros(atoms.shape[0], jnp.result_type(x, atoms))
        return lax.scan(step, start, (self.step_sizes, self.thresholds, self.blends, counts))[1]

    def trainable(self) -> "ALISTA":
        """Return truth values for ``fit``: step sizes, thresholds and blends, not the dictionary and W."""
        return eqx.tree_at(
            lambda n: (n.dictionary, n.weights, n.step_sizes, n.thresholds, n.blends),
            self,
            (False, False, True, True, True),
        )


def analytic_weights(dictionary: Dictionary) -> Float[Array, "atoms features"]:
    """Compute the W of least ‖W @ atomsᵀ‖_F² with wᵢ·aᵢ = 1: the weights that make atoms least alike.

    wᵢ = M⁺aᵢ/(aᵢᵀM⁺aᵢ) with M = atomsᵀ @ atoms; of several minimizers, the one of least length. Computed as
    wᵢ = pᵢ/(pᵢ·aᵢ), pᵢ the rows of (atoms⁺)ᵀ = atoms @ M⁺: by singular values, without forming M, whose
    condition is the square of the dictionary's.

    Args:
        dictionary: the dictionary; singular values below max(shape)·eps of the largest count as zero.

    Gradient: through the pseudo-inverse; meaningful while its rank does not change.

    Reference:
        Liu, Chen, Wang & Yin 2019, where a projected gradient method solves this; the closed form is that of
        its Lagrange multipliers.

    Example:
        >>> import jax.numpy as jnp
        >>> from neurojax.sparse_coding import Dictionary, analytic_weights
        >>> atoms = jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> print(jnp.round(analytic_weights(Dictionary(atoms)) @ atoms.T, 4) + 0.0)
        [[1. 0.]
         [0. 1.]]
    """
    atoms = dictionary.atoms
    cutoff = max(atoms.shape) * jnp.finfo(atoms.dtype).eps
    dual = jnp.linalg.pinv(atoms, rtol=cutoff).T
    return dual / jnp.sum(dual * atoms, axis=1, keepdims=True)


class CodedData(NamedTuple):
    """Data with the codes a network shall learn to find, for `CodeRegressionObjective`."""

    x: Float[Array, "samples features"]
    code: Float[Array, "samples atoms"]


class CodeRegressionObjective(eqx.Module):
    """The squared error of a network's codes: learned inference with a teacher.

    loss = meanₙ ‖f(xₙ) − zₙ‖², or with ``layer_weights`` w the sum over layers Σₖ wₖ·meanₙ ‖fₖ(xₙ) − zₙ‖²,
    which trains early layers directly (w = 1), or up to a layer (w = 0 elsewhere).

    Called as ``objective(network, state, batch, key)`` by ``fit``; a batch is a `CodedData`. The codes are
    those that made the data, or what `encode` found.

    Attributes:
        layer_weights: w; ``None``: the network's output alone, for any network ``x -> code``.

    Raises:
        ValueError: at trace time, for codes of another shape than the network's, a wrong number of weights.

    Metrics: ``nmse`` in dB, 10·log₁₀(Σ‖f(x) − z‖²/Σ‖z‖²) of the last layer over the batch.
    """

    layer_weights: Float[Array, " layers"] | None = None

    def __call__(
        self, model: Callable[[Array], Array] | Any, state: Any, batch: CodedData, key: PRNGKey
    ) -> tuple[Scalar, tuple[Any, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        del key  # inference is deterministic
        x, code = real_array("x", batch[0], "samples features"), real_array("code", batch[1], "samples atoms")
        if self.layer_weights is None:
            codes, weights = jax.vmap(model)(x)[:, None], jnp.ones(1, code.dtype)
        else:
            codes, weights = jax.vmap(model.layers)(x), self.layer_weights
            check_shape("layer_weights", weights, codes.shape[1:2], "a weight for each layer")
        check_shape("code", code, (codes.shape[0], codes.shape[2]), "a code of the network's size a datum")
        errors = jnp.sum((codes - code[:, None]) ** 2, axis=2)
        loss = jnp.sum(jnp.mean(errors, axis=0) * weights.astype(errors.dtype))
        return loss, (state, {"nmse": _decibels(jnp.sum(errors[:, -1]), jnp.sum(code**2))})


class AmortizedInferenceObjective(eqx.Module):
    """The mean energy of a network's codes: learned inference without a teacher.

    loss = meanₙ ½‖xₙ − f(xₙ) @ atoms‖² + penalty(f(xₙ)), for any network ``x -> code``. The dictionary is a
    constant. Called as ``objective(network, state, batch, key)`` by ``fit``.

    Attributes:
        dictionary: the dictionary.
        penalty: a penalty that has a value.

    Raises:
        ValueError: at trace time, for a penalty without a value (``Log``) and codes of the wrong shape.

    Metrics: ``squared_error`` (mean of ‖x − f(x) @ atoms‖²) and ``n_active`` (mean number of non-zero
    coefficients).
    """

    dictionary: AbstractDictionary
    penalty: AbstractValuedPenalty

    def __call__(
        self,
        model: Callable[[Array], Array],
        state: Any,
        batch: Float[Array, "samples features"],
        key: PRNGKey,
    ) -> tuple[Scalar, tuple[Any, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        del key  # inference is deterministic
        batch = real_array("batch", batch, "samples features")
        codes = jax.vmap(model)(batch)
        energies = jax.vmap(lambda x, code: energy(self.dictionary, x, code, self.penalty))(batch, codes)
        errors = batch - jax.vmap(self.dictionary.reconstruct)(codes)
        metrics = {
            "squared_error": jnp.mean(jnp.sum(errors**2, axis=1)),
            "n_active": jnp.mean(n_active(codes)),
        }
        return jnp.mean(energies), (state, metrics)


def _first_step(dictionary: Dictionary, strength, n_layers: int) -> tuple[Scalar, Array]:
    """Return the step size and the threshold of an ISTA step, in the atoms' dtype."""
    check_at_least("n_layers", n_layers, 1)
    penalty = L1(strength)
    nothing = jnp.zeros(dictionary.n_features, dictionary.atoms.dtype)
    step_size = 1 / make_problem(dictionary, nothing, penalty).lipschitz
    return step_size, step_size * penalty.strength.astype(step_size.dtype)


def _repeat(array: Array, n_layers: int) -> Array:
    return jnp.tile(array, (n_layers,) + (1,) * array.ndim)


def _trusted_counts(n_trusted: Sequence[int], n_layers: int, n_atoms: int) -> tuple[int, ...]:
    check_shape("n_trusted", n_trusted, (n_layers,), "a count for each layer")
    for count in n_trusted:
        check_at_least("n_trusted", count, 0)
        if count > n_atoms:
            raise ValueError(f"n_trusted: expected at most {n_atoms}, the number of atoms, got {count}.")
    return tuple(int(count) for count in n_trusted)


def _datum(x, n_features: int) -> Array:
    """Return one datum as an array, after checking its shape and dtype."""
    x = real_array("x", x, "features")
    check_size("x", x, 0, n_features, "features of the dictionary")
    return x


def _positive(threshold: Array) -> Array:
    """Return |threshold|, with slope 1 at 0, so that training may leave 0."""
    return jnp.where(threshold < 0, -threshold, threshold)


def _is_among_largest(v: Float[Array, " atoms"], n_trusted: Int[Array, ""]) -> Array:
    """Return which entries are not smaller in magnitude than the ``n_trusted``-th largest."""
    # Non-negative floats are ordered as their bits, so the cut is found bit by bit: faster than sorting.
    n_bits = 8 * v.dtype.itemsize - 1
    bits = lax.bitcast_convert_type(jnp.abs(constant(v)), jnp.dtype(f"int{n_bits + 1}"))

    def refine(i, cut):
        candidate = cut | (jnp.ones_like(cut) << (n_bits - 1 - i).astype(cut.dtype))
        return jnp.where(jnp.sum(bits >= candidate) >= n_trusted, candidate, cut)

    cut = lax.fori_loop(0, n_bits, refine, jnp.zeros((), bits.dtype))
    return (bits >= cut) & (n_trusted > 0)


def _decibels(error: Scalar, power: Scalar) -> Scalar:
    """Return 10·log₁₀(error/power), finite also where one of them is 0."""
    tiny = jnp.finfo(error.dtype).tiny
    return 10 * (jnp.log10(jnp.maximum(error, tiny)) - jnp.log10(jnp.maximum(power, tiny)))
