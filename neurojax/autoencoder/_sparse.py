"""Sparse autoencoders of many units: the model, its objective, and the upkeep of its decoder."""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from .._arrays import finite_rows, real_array
from .._checks import check_at_least, check_kind, check_nonnegative, check_rank, check_shape
from .._precision import at_least_single, network_product
from .._rows import unit_rows
from .._terms import is_zero
from .._types import Count, PRNGKey, Scalar
from ..metrics import explained_variance, n_active
from ..training import AbstractGradientObjective
from ._layers import affine, vector
from ._models import AbstractAutoencoder
from ._objectives import check_data
from ._selection import AbstractSelection, BatchTopK, JumpReLU, top_k

__all__ = [
    "SparseAutoencoder",
    "SparseAutoencoderObjective",
    "SparseAutoencoderState",
    "SparseAutoencoderUpkeep",
]

Features = Float[Array, " features"]
Units = Float[Array, " units"]
Rows = Float[Array, "batch features"]


class SparseAutoencoder(AbstractAutoencoder):
    """z = selection((x − decoder_bias) @ weightᵀ + bias), x̂ = z @ atoms + decoder_bias.

    Attributes:
        encoder: weight and bias of the units.
        atoms: the decoder, a row for each unit; learning keeps them at length 1.
        decoder_bias: what is reconstructed where no unit is active.
        selection: which units are active: `TopK`, `BatchTopK`, `JumpReLU` or `ReLU`.

    Raises:
        ValueError: at construction, for sizes that do not fit, such as k larger than the number of units.

    Reference:
        Gao et al. 2024, Scaling and evaluating sparse autoencoders, eq. 1; Bricken et al. 2023.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.autoencoder import TopK
        >>> data = jax.random.normal(jax.random.key(0), (100, 8))
        >>> sae = SparseAutoencoder.from_data(data, 32, jax.random.key(1), selection=TopK(3))
        >>> jax.jit(lambda x: jnp.sum(sae.encode(x) != 0))(data[0]).item()
        3
    """

    encoder: eqx.nn.Linear
    atoms: Float[Array, "units features"] = eqx.field(converter=partial(real_array, "atoms"))
    decoder_bias: Float[Array, " features"] = eqx.field(converter=partial(real_array, "decoder_bias"))
    selection: AbstractSelection

    def __check_init__(self):
        check_rank("atoms", self.atoms, "units features")
        n_units, n_features = self.atoms.shape
        sizes = (self.encoder.in_features, self.encoder.out_features)
        if sizes != (n_features, n_units):
            raise ValueError(
                f"encoder: expected a layer from {n_features} features to {n_units} units, as atoms have, "
                f"got {sizes[0]} to {sizes[1]}."
            )
        check_shape("decoder_bias", self.decoder_bias, (n_features,), "a number for each column of atoms")
        self.selection.check_size(n_units)

    @classmethod
    def from_data(
        cls,
        data: Float[ArrayLike, "samples features"],
        n_units: int,
        key: PRNGKey,
        *,
        selection: AbstractSelection,
    ) -> "SparseAutoencoder":
        """Start with atoms in random directions, the encoder their transpose, the bias at the data's mean.

        Args:
            data: rows that the mean is taken of; their dtype is that of the parameters.
            n_units: of the code.
            key: a typed PRNG key.
            selection: which units are active.

        Raises:
            ValueError: for rows that are empty, not finite or not real; for k larger than ``n_units``.
        """
        check_at_least("n_units", n_units, 1)
        rows = finite_rows("data", data)
        atoms = unit_rows(jax.random.normal(key, (n_units, rows.shape[1]), rows.dtype))
        layer = eqx.nn.Linear(rows.shape[1], n_units, dtype=rows.dtype, key=key)
        bias = jnp.zeros(n_units, rows.dtype)
        layer = eqx.tree_at(lambda new: (new.weight, new.bias), layer, (atoms, bias))
        return cls(layer, atoms, jnp.mean(rows, axis=0), selection)

    @property
    def n_features(self) -> int:
        """The number of features of a datum."""
        return self.atoms.shape[1]

    @property
    def n_code(self) -> int:
        """The number of units."""
        return self.atoms.shape[0]

    @property
    def limits(self) -> tuple[float, float] | None:
        """None: any real number."""
        return None

    def activations(self, x: Features) -> Units:
        """Return (x − decoder_bias) @ weightᵀ + bias, before units are selected."""
        x = vector("x", x, self.n_features, "a number for each feature of a datum")
        return affine(self.encoder, x - self.decoder_bias)

    def encode(self, x: Features) -> Units:
        """Return the code of one datum."""
        return self.selection(self.activations(x))

    def decode(self, code: Units) -> Features:
        """Return code @ atoms + decoder_bias."""
        code = vector("code", code, self.n_code, "a number for each unit")
        return network_product(code, self.atoms) + self.decoder_bias


class SparseAutoencoderState(NamedTuple):
    """State of learning: use of the units, and the threshold.

    Attributes:
        n_unused_steps: for each unit, the steps since any datum used it.
        threshold: the sliding mean of the smallest activation kept in a batch (`BatchTopK`), in float32 at
            least: in half precision it would stop moving before it is there.
        n_steps: steps so far.
    """

    n_unused_steps: Int[Array, " units"]
    threshold: Scalar
    n_steps: Count


class SparseAutoencoderObjective(AbstractGradientObjective):
    """The squared error of a batch, the price of its codes, and what wakes dead units.

    loss = meanₙ [‖xₙ − x̂ₙ‖² + l1·‖zₙ‖₁ + l0·‖zₙ‖₀ + auxiliary·‖eₙ − êₙ‖²], e = x − x̂ (a constant) and ê
    the reconstruction of it, without the bias, by the ``n_auxiliary`` largest positive activations among the
    units that no datum has used for ``dead_after`` steps; no such unit, no such term. ‖z‖₀ has the
    pseudo-gradient of `JumpReLU`. The gradient in an atom is its part at right angles to the atom, so that an
    update turns it and `SparseAutoencoderUpkeep` has little to undo.

    Called as ``objective.value_and_grad(sae, state, batch, key)`` by ``fit``, with
    ``state=objective.init(sae)`` and ``after_update=SparseAutoencoderUpkeep()``.

    Attributes:
        l1: strength, ≥ 0; for `ReLU`.
        l0: strength, ≥ 0; for `JumpReLU` alone.
        auxiliary: strength, ≥ 0.
        n_auxiliary: dead units that may explain the error of a datum, ≥ 1; ``None``: half the features.
        dead_after: steps without use after which a unit is dead, ≥ 1.

    Metrics: ``squared_error`` (mean of ‖x − x̂‖²), ``explained_variance`` (of the variance about the batch's
    mean), ``n_active`` (mean L0),
    ``dead_fraction`` (share of units unused for ``dead_after`` steps).

    Reference:
        Gao et al. 2024, section 2 and appendix A.2 (AuxK); Bricken et al. 2023 (gradients at right angles).

    Example:
        >>> import jax, optax
        >>> from neurojax import autoencoder as ae, training
        >>> data = jax.random.normal(jax.random.key(0), (100, 8))
        >>> sae = ae.SparseAutoencoder.from_data(data, 32, jax.random.key(1), selection=ae.TopK(3))
        >>> objective = ae.SparseAutoencoderObjective()
        >>> result = training.fit(sae, objective, data, state=objective.init(sae), n_steps=50,
        ...                       optimizer=optax.adam(1e-2), key=jax.random.key(2),
        ...                       after_update=ae.SparseAutoencoderUpkeep())
        >>> bool(result.history["squared_error"][-1] < result.history["squared_error"][0])
        True
    """

    l1: Scalar | float = 0.0
    l0: Scalar | float = 0.0
    auxiliary: Scalar | float = 1 / 32
    n_auxiliary: int | None = eqx.field(static=True, default=None)
    dead_after: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        for name in ("l1", "l0", "auxiliary"):
            check_nonnegative(name, getattr(self, name))
        if self.n_auxiliary is not None:
            check_at_least("n_auxiliary", self.n_auxiliary, 1)
        check_at_least("dead_after", self.dead_after, 1)

    def init(self, sae: SparseAutoencoder) -> SparseAutoencoderState:
        """Return the state to begin with: every unit counted as just used."""
        zero = jnp.zeros((), jnp.promote_types(sae.atoms.dtype, jnp.float32))
        return SparseAutoencoderState(jnp.zeros(sae.n_code, jnp.int32), zero, jnp.int32(0))

    def check_data(self, model: SparseAutoencoder, data: Any) -> None:
        """Raise ``ValueError`` for rows that are empty, not finite or of another size."""
        check_data(model, data)

    def value_and_grad(
        self, model: SparseAutoencoder, state: SparseAutoencoderState, batch: Rows, key: PRNGKey
    ) -> tuple[tuple[Scalar, tuple[SparseAutoencoderState, dict[str, Array]]], SparseAutoencoder]:
        """Return ``((loss, (state, metrics)), gradient)``."""
        del key
        check_kind("model", model, SparseAutoencoder)
        if not isinstance(state, SparseAutoencoderState):
            raise ValueError(
                "state: expected SparseAutoencoderState, from objective.init(sae), "
                f"got {type(state).__name__}."
            )
        check_shape("state.n_unused_steps", state.n_unused_steps, (model.n_code,), "a number for each unit")
        if not is_zero(self.l0) and not isinstance(model.selection, JumpReLU):
            raise ValueError(
                f"l0: expected 0 where units are not selected by JumpReLU, got {self.l0} with "
                f"{type(model.selection).__name__}."
            )
        batch = real_array("batch", batch, "batch features")
        output, gradient = eqx.filter_value_and_grad(self._loss, has_aux=True)(model, state, batch)
        # To first order a length is changed by the part along the atom alone.
        directions = unit_rows(model.atoms)
        along = jnp.sum(gradient.atoms * directions, axis=1, keepdims=True)
        atoms = gradient.atoms - along * directions
        return output, eqx.tree_at(lambda g: g.atoms, gradient, atoms)

    def _loss(self, model: SparseAutoencoder, state: SparseAutoencoderState, batch: Array):
        activations = jax.vmap(model.activations)(batch)
        codes = model.selection.select_batch(activations)
        reconstructions = jax.vmap(model.decode)(codes)
        errors = at_least_single(batch - reconstructions)
        squared = jnp.mean(jnp.sum(errors**2, axis=1))
        loss = squared
        if not is_zero(self.l1):
            loss = loss + self.l1 * jnp.mean(jnp.sum(jnp.abs(at_least_single(codes)), axis=1))
        if not is_zero(self.l0) and isinstance(model.selection, JumpReLU):
            loss = loss + self.l0 * jnp.mean(jax.vmap(model.selection.n_active)(activations))
        is_dead = state.n_unused_steps >= self.dead_after
        if not is_zero(self.auxiliary):
            loss = loss + self.auxiliary * self._left_over(model, activations, errors, is_dead)
        metrics = {
            "squared_error": squared,
            "explained_variance": explained_variance(batch, reconstructions),
            "n_active": jnp.mean(n_active(codes)),
            "dead_fraction": jnp.mean(is_dead, dtype=squared.dtype),
        }
        return loss, (_counted(state, codes), metrics)

    def _left_over(self, model: SparseAutoencoder, activations: Array, errors: Array, is_dead: Array):
        """Return meanₙ ‖eₙ − êₙ‖², or 0 without dead units."""
        n_auxiliary = model.n_features // 2 if self.n_auxiliary is None else self.n_auxiliary
        n_auxiliary = max(1, min(n_auxiliary, model.n_code))
        errors = lax.stop_gradient(errors)

        def explained_by_dead(activations, atoms):
            of_dead = jnp.where(is_dead, jax.nn.relu(activations), 0)
            codes = jax.vmap(lambda a: top_k(a, n_auxiliary))(of_dead)
            return jnp.mean(jnp.sum((errors - network_product(codes, atoms)) ** 2, axis=1))

        def nothing(activations, atoms):
            return jnp.zeros((), errors.dtype)

        return lax.cond(jnp.any(is_dead), explained_by_dead, nothing, activations, model.atoms)


def _counted(state: SparseAutoencoderState, codes: Array) -> SparseAutoencoderState:
    is_used = jnp.any(codes != 0, axis=0)
    least = jnp.min(jnp.where(codes > 0, codes, jnp.inf)).astype(state.threshold.dtype)
    # The plain mean of the first hundred steps, then one that forgets.
    rate = 1 / jnp.minimum(state.n_steps + 1, 100).astype(least.dtype)
    threshold = state.threshold + rate * (least - state.threshold)
    return SparseAutoencoderState(
        jnp.where(is_used, 0, state.n_unused_steps + 1),
        lax.stop_gradient(jnp.where(jnp.isfinite(least), threshold, state.threshold)),
        state.n_steps + 1,
    )


class SparseAutoencoderUpkeep(eqx.Module):
    """Upkeep after each update of ``fit``: scale atoms to length 1 and set the threshold of `BatchTopK`.

    Pass it as ``after_update``.
    """

    def __call__(
        self,
        model: SparseAutoencoder,
        opt_state: Any,
        state: SparseAutoencoderState,
        batch: Rows,
        key: PRNGKey,
    ) -> tuple[SparseAutoencoder, Any, SparseAutoencoderState]:
        """Return ``(model, opt_state, state)`` after the upkeep."""
        del batch, key
        model = eqx.tree_at(lambda sae: sae.atoms, model, unit_rows(model.atoms))
        if isinstance(model.selection, BatchTopK):
            threshold = state.threshold.astype(model.selection.threshold.dtype)
            model = eqx.tree_at(lambda sae: sae.selection.threshold, model, threshold)
        return model, opt_state, state
