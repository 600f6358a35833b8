"""Class-conditional use: visible units of which the last ones say the class."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._arrays import real_array, whole_array
from .._checks import check_at_least, check_shape, is_concrete
from .._types import PRNGKey
from ._checks import truth_array, visible_sample
from ._energy import free_energies, gibbs_step
from ._models import AbstractRBM

__all__ = ["append_labels", "clamped_gibbs_step", "class_log_probabilities"]


def append_labels(
    rows: Float[ArrayLike, "samples features"], labels: Int[ArrayLike, " samples"], n_classes: int
) -> Float[Array, "samples visible"]:
    """Put one unit a class behind each row, 1 at the row's label: data for a machine of features and classes.

    Args:
        rows: the features.
        labels: classes, from 0.
        n_classes: ≥ 2.

    Raises:
        ValueError: for another number of labels than rows, and labels that are not integers; for (concrete)
            labels outside 0 to n_classes − 1.
    """
    check_at_least("n_classes", n_classes, 2)
    rows, labels = real_array("rows", rows, "samples features"), whole_array("labels", labels)
    check_shape("labels", labels, rows.shape[:1], "one for each row")
    if is_concrete(labels) and labels.size:
        least, most = np.min(np.asarray(labels)), np.max(np.asarray(labels))
        if least < 0 or most >= n_classes:
            raise ValueError(f"labels: expected 0 to {n_classes - 1} (n_classes), got {least} to {most}.")
    return jnp.concatenate([rows, jax.nn.one_hot(labels, n_classes, dtype=rows.dtype)], axis=1)


def clamped_gibbs_step(
    rbm: AbstractRBM, v: Float[ArrayLike, " visible"], is_clamped: Bool[ArrayLike, " visible"], key: PRNGKey
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
    v = visible_sample("v", rbm, v)
    return jnp.where(truth_array("is_clamped", is_clamped, rbm.n_visible), v, gibbs_step(rbm, v, key))


def class_log_probabilities(
    rbm: AbstractRBM, features: Float[ArrayLike, " features"], n_classes: int
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
    shape, features = (rbm.n_visible - n_classes,), real_array("features", features)
    check_shape("features", features, shape, f"{rbm.n_visible} visible units less {n_classes} classes")
    rows = jnp.broadcast_to(features, (n_classes, features.shape[0]))
    v = jnp.concatenate([rows, jnp.eye(n_classes, dtype=features.dtype)], axis=1)
    return jax.nn.log_softmax(-free_energies(rbm, v))
