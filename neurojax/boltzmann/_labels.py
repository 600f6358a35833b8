"""Class-conditional use: visible units of which the last ones say the class."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._checks import check_at_least, check_rank, check_shape, is_concrete
from .._types import PRNGKey
from ._checks import check_visible
from ._energy import free_energies, gibbs_step
from ._models import AbstractRBM

__all__ = ["append_labels", "clamped_gibbs_step", "class_log_probabilities"]


def append_labels(
    rows: Float[Array, "samples features"], labels: Int[Array, " samples"], n_classes: int
) -> Float[Array, "samples visible"]:
    """Put one unit a class behind each row, 1 at the row's label: data for a machine of features and classes.

    Args:
        rows: the features.
        labels: classes, from 0.
        n_classes: ≥ 2.

    Raises:
        ValueError: for another number of labels than rows; for (concrete) labels outside 0 to n_classes − 1.
    """
    check_at_least("n_classes", n_classes, 2)
    check_rank("rows", rows, "samples features")
    check_shape("labels", labels, rows.shape[:1], "one for each row")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(f"labels: expected whole numbers, got dtype {jnp.result_type(labels)}.")
    if is_concrete(labels) and labels.size and not (int(labels.min()) >= 0 and int(labels.max()) < n_classes):
        raise ValueError(
            f"labels: expected 0 to {n_classes - 1} (n_classes), got {labels.min()} to {labels.max()}."
        )
    return jnp.concatenate([rows, jax.nn.one_hot(labels, n_classes, dtype=rows.dtype)], axis=1)


def clamped_gibbs_step(
    rbm: AbstractRBM, v: Float[Array, " visible"], is_clamped: Bool[Array, " visible"], key: PRNGKey
) -> Float[Array, " visible"]:
    """Take a `gibbs_step` that leaves the clamped units as they are: it samples the others given these.

    Args:
        rbm: the machine.
        v: the visible units, one sample.
        is_clamped: the units that are held; of a categorical site all its states or none.
        key: a typed PRNG key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from neurojax.boltzmann import BernoulliRBM, clamped_gibbs_step
        >>> rbm = BernoulliRBM(jnp.ones((4, 2)), jnp.zeros(4), jnp.zeros(2))
        >>> v = jnp.array([0.0, 1.0, 0.0, 1.0])
        >>> is_label = jnp.array([False, False, True, True])
        >>> jax.jit(clamped_gibbs_step)(rbm, v, is_label, jax.random.key(0)).tolist()[2:]
        [0.0, 1.0]
    """
    check_visible("v", rbm, v)
    check_shape("is_clamped", is_clamped, (rbm.n_visible,), "a truth value for each visible unit")
    return jnp.where(is_clamped, v, gibbs_step(rbm, v, key))


def class_log_probabilities(
    rbm: AbstractRBM, features: Float[Array, " features"], n_classes: int
) -> Float[Array, " classes"]:
    """Compute log p(class | features) exactly, for a machine whose last units say the class.

    log softmax of −F(features, unit y on), one free energy a class; the normalisation is over the states with
    exactly one unit on.

    Args:
        rbm: the machine, trained on rows of `append_labels`.
        features: of one sample.
        n_classes: the number of its label units.

    Raises:
        ValueError: at trace time, if features and classes are not the machine's visible units.

    Reference:
        Larochelle & Bengio 2008, Classification using discriminative restricted Boltzmann machines, eq. 2.
    """
    check_at_least("n_classes", n_classes, 2)
    shape = (rbm.n_visible - n_classes,)
    check_shape("features", features, shape, f"{rbm.n_visible} visible units less {n_classes} classes")
    rows = jnp.broadcast_to(features, (n_classes, features.shape[0]))
    v = jnp.concatenate([rows, jnp.eye(n_classes, dtype=features.dtype)], axis=1)
    return jax.nn.log_softmax(-free_energies(rbm, v))
