"""A softmax head on the layers of an encoder, and what fine-tuning minimises."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._arrays import finite_rows, native, real_array, whole_array
from .._checks import check_at_least, check_kind, check_size
from .._precision import at_least_single
from .._types import Count, PRNGKey, Scalar
from ..metrics import classification_error
from ..training import AbstractObjective
from ._layers import affine, check_layers, run_layers, vector
from ._models import Autoencoder
from ._noise import AbstractNoise

__all__ = ["ClassificationObjective", "Classifier"]

Features = Float[Array, " features"]


class Classifier(eqx.Module):
    """p(class | x) = softmax(y @ headᵀ + bias), y the code of the layers.

    Attributes:
        layers: from the datum to the code.
        head: from the code to the classes.
        activation: of the layers.

    Raises:
        ValueError: at construction, for sizes that do not fit.

    Reference:
        Bengio et al. 2007; Vincent et al. 2010.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.autoencoder import Autoencoder
        >>> autoencoder = Autoencoder.from_sizes(784, [100], jax.random.key(0))
        >>> classifier = Classifier.from_autoencoder(autoencoder, 10)
        >>> classifier.log_probabilities(jnp.zeros(784)).shape
        (10,)
    """

    layers: tuple[eqx.nn.Linear, ...]
    head: eqx.nn.Linear
    activation: Callable = eqx.field(static=True, default=jax.nn.sigmoid)

    def __check_init__(self):
        check_at_least("layers: number of layers", len(self.layers), 1)
        check_layers("layers", self.layers)
        n_code = self.layers[-1].out_features
        if self.head.in_features != n_code:
            raise ValueError(
                f"head: expected a layer from the {n_code} units of the code, got one from "
                f"{self.head.in_features}."
            )
        check_at_least("head: number of classes", self.n_classes, 2)

    @classmethod
    def from_autoencoder(cls, autoencoder: Autoencoder, n_classes: int) -> "Classifier":
        """Put a head on the encoder of an autoencoder, its weights and biases 0.

        Args:
            autoencoder: whose encoder is fine-tuned; a copy, the autoencoder stays as it is.
            n_classes: at least 2.
        """
        check_at_least("n_classes", n_classes, 2)
        dtype = autoencoder.encoder[0].weight.dtype
        head = eqx.nn.Linear(autoencoder.n_code, n_classes, dtype=dtype, key=jax.random.key(0))
        zeros = (jnp.zeros((n_classes, autoencoder.n_code), dtype), jnp.zeros(n_classes, dtype))
        head = eqx.tree_at(lambda new: (new.weight, new.bias), head, zeros)
        return cls(autoencoder.encoder, head, autoencoder.activation)

    @property
    def n_features(self) -> int:
        """The number of features of a datum."""
        return int(self.layers[0].in_features)

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return int(self.head.out_features)

    def encode(self, x: Features) -> Float[Array, " code"]:
        """Return the code of a datum."""
        x = vector("x", x, self.n_features, "a number for each feature of a datum")
        return run_layers(self.layers, self.activation, x)

    def log_probabilities(self, x: Features) -> Float[Array, " classes"]:
        """Return log p(class | x), in nats, in float32 at least."""
        return jax.nn.log_softmax(at_least_single(affine(self.head, self.encode(x))))

    def predict(self, x: Features) -> Count:
        """Return the most probable class."""
        return jnp.argmax(self.log_probabilities(x))


class ClassificationObjective(AbstractObjective):
    """Minus the log-probability of the right class, averaged over the batch, in nats.

    loss = meanₙ −log p(labelₙ | corruption(xₙ)).

    Called as ``objective(classifier, state, batch, key)`` by ``fit``, with ``data=(rows, labels)``; ``state``
    is ``None``.

    Attributes:
        corruption: noise ``(x, key) -> x``, or ``None``.

    Metrics: ``classification_error`` of the batch, a share.
    """

    corruption: AbstractNoise | None = None

    def check_data(self, model: Classifier, data: Any) -> None:
        """Raise ``ValueError`` for rows of another size or not finite, and labels that are no class."""
        check_kind("model", model, Classifier)
        try:
            rows, labels = data
        except (TypeError, ValueError) as error:
            raise ValueError(f"data: expected (rows, labels), got {type(data).__name__}.") from error
        finite_rows("data[0]", rows, model.n_features, "numbers, one for each feature of the classifier,")
        _check_labels(labels, model.n_classes)

    def __call__(
        self,
        model: Classifier,
        state: None,
        batch: tuple[Float[Array, "batch features"], Int[Array, " batch"]],
        key: PRNGKey,
    ) -> tuple[Scalar, tuple[None, dict[str, Array]]]:
        """Return ``(loss, (state, metrics))``."""
        check_kind("model", model, Classifier)
        rows = real_array("rows", batch[0], "batch features")
        labels = whole_array("labels", batch[1], "batch")
        check_size("labels", labels, 0, len(rows), "labels, one for each row,")
        rows = rows if self.corruption is None else self.corruption(rows, key)
        log_probabilities = jax.vmap(model.log_probabilities)(rows)
        loss = -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))
        return loss, (state, {"classification_error": classification_error(log_probabilities, labels)})


def _check_labels(labels, n_classes: int) -> None:
    labels = np.asarray(native("labels", labels))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels: expected one axis of whole numbers, got {labels.dtype} of shape {labels.shape}."
        )
    if labels.size and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(
            f"labels: expected 0 to {n_classes - 1}, a class each of the head's {n_classes}, got "
            f"{labels.min()} to {labels.max()}."
        )
