"""Training objectives and their gradients."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

__all__ = ["AbstractGradientObjective", "AbstractObjective", "check_rows", "loss_and_gradient"]

_RESERVED = ("loss", "step")


class _CheckedObjective(eqx.Module):
    def check_data(self, model: Any, data: Any) -> None:
        """Raise ``ValueError`` for arrays that cannot be learned from; here none.

        ``fit`` calls it once, before the first update, with all rows. A sampler or an iterator has no rows to
        show.

        Args:
            model: the model to be learned.
            data: what ``fit`` was given.
        """


class AbstractObjective(_CheckedObjective):
    """A loss whose gradient is computed by automatic differentiation.

    Any callable of the same form will do; a module keeps its settings (strengths, tolerances)
    as array leaves, so that they are arguments of the compiled step and part of what a resumed
    run is checked against.
    """

    @abstractmethod
    def __call__(
        self, model: Any, state: Any, batch: Any, key: Any
    ) -> tuple[Any, tuple[Any, dict[str, Any]]]:
        """Return the loss of one batch.

        Args:
            model: the model being learned.
            state: what learning carries along, or ``None``.
            batch: rows of the data, on the device.
            key: a PRNG key of this step's own.

        Returns:
            ``(loss, (state, metrics))``: a real scalar, the state for the next step (same shapes
            and dtypes) and a dict of scalars to record, not named ``"loss"`` or ``"step"``.
        """


class AbstractGradientObjective(_CheckedObjective):
    """A learning rule that supplies its own gradient, where that is not its loss's derivative.

    The loss is recorded and watched, and nothing differentiates it.
    """

    @abstractmethod
    def value_and_grad(
        self, model: Any, state: Any, batch: Any, key: Any
    ) -> tuple[tuple[Any, tuple[Any, dict[str, Any]]], Any]:
        """Return the loss and the gradient to descend.

        Args:
            model: the model being learned.
            state: what learning carries along, or ``None``.
            batch: rows of the data, on the device.
            key: a PRNG key of this step's own.

        Returns:
            ``((loss, (state, metrics)), gradient)``, the gradient a tree like the model with an
            array for each trainable leaf; other leaves are not looked at.
        """


def check_rows(objective: Any, model: Any, data: Any) -> None:
    """Let an objective that is one of the library's look at the rows."""
    if isinstance(objective, _CheckedObjective):
        objective.check_data(model, data)


def _checked(output):
    """Raise ``ValueError`` unless an objective returned ``(loss, (state, dict of scalars))``."""
    try:
        loss, (state, metrics) = output
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"objective: expected (loss, (state, metrics)), got {type(output).__name__}."
        ) from error
    loss = jnp.asarray(loss)
    if loss.shape != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise ValueError(f"objective: expected a real scalar loss, got {loss.dtype}{list(loss.shape)}.")
    if not isinstance(metrics, dict):
        raise ValueError(f"objective: expected metrics as a dict, got {type(metrics).__name__}.")
    for name, value in metrics.items():
        if name in _RESERVED:
            raise ValueError(f"objective: expected metrics with names other than {_RESERVED}, got {name!r}.")
        if jnp.shape(value) != ():
            raise ValueError(f"objective: expected scalar metrics, got {name!r} of shape {jnp.shape(value)}.")
    return loss, (state, {name: jnp.asarray(value) for name, value in metrics.items()})


def loss_and_gradient(objective: Any, mask: Any, model: Any, state: Any, batch: Any, key: Any) -> Any:
    """Return ``((loss, (state, metrics)), gradient)``, the gradient ``None`` where ``mask`` is false."""
    if isinstance(objective, AbstractGradientObjective):
        output, gradient = objective.value_and_grad(model, state, batch, key)
        output = _checked(output)
        try:
            return output, eqx.filter(gradient, mask)
        except (TypeError, ValueError) as error:
            raise ValueError(f"objective: gradient: expected a tree like the model ({error}).") from error
    trained, fixed = eqx.partition(model, mask)

    def loss_of(trained):
        return _checked(objective(eqx.combine(trained, fixed), state, batch, key))

    return jax.value_and_grad(loss_of, has_aux=True)(trained)
