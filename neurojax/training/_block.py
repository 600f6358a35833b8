"""A block of steps on the device, compiled once for blocks of any length."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from .._checks import is_key
from ..distributed import constrain_everywhere
from ..runs import check_description, describe_tree
from ._objectives import loss_and_gradient
from ._sources import AbstractSource

__all__ = [
    "Learner",
    "Program",
    "finite_leaves",
    "gradient_of",
    "laid_out",
    "layout_of",
    "metric_buffers",
    "new_parameters",
    "numbers_of",
    "run_block",
]


class Learner(eqx.Module):
    """Model, optimizer state and objective state: the carry of the updates."""

    model: Any
    opt_state: Any
    state: Any


class Program(eqx.Module):
    """Constants of a run: objective, optimizer, hook after an update, trainable mask, keys and layout."""

    objective: Any
    optimizer: optax.GradientTransformation
    after_update: Callable | None
    mask: Any
    step_key: jax.Array
    epoch_key: jax.Array
    layout: tuple | None = eqx.field(default=None, static=True)  # where the learner's arrays lie on a mesh


def _check_same(old, new, name: str) -> None:
    """Raise ``ValueError`` at the first leaf whose shape or dtype an update would change."""
    check_description(describe_tree(old), describe_tree(new), name)


def _strong(old, new):
    """Return ``new`` without weak types, which a loop's carry must not pick up."""

    def convert(before, after):
        is_number = eqx.is_array(before) and not is_key(before)
        return jax.lax.convert_element_type(after, before.dtype) if is_number else after

    return jax.tree.map(convert, old, new)


def layout_of(learner: Learner) -> tuple:
    """Return where the learner's arrays lie."""
    return tuple(leaf.sharding for leaf in jax.tree.leaves(eqx.filter(learner, eqx.is_array)))


def laid_out(layout: tuple | None, learner: Learner, put=jax.device_put) -> Learner:
    """Return the learner with its arrays where the layout says."""
    if layout is None:
        return learner
    arrays, static = eqx.partition(learner, eqx.is_array)
    leaves, form = jax.tree.flatten(arrays)
    leaves = [put(leaf, place) for leaf, place in zip(leaves, layout, strict=True)]
    return eqx.combine(jax.tree.unflatten(form, leaves), static)


# Compiled by themselves too, so that describing a run traces them once for both.
gradient_of = eqx.filter_jit(loss_and_gradient)


@eqx.filter_jit
def new_parameters(optimizer: optax.GradientTransformation, mask, model, opt_state, gradient, loss):
    """Return the model and the optimizer's state after a step along the gradient."""
    optimizer, trained = optax.with_extra_args_support(optimizer), eqx.filter(model, mask)
    updates, opt_state = optimizer.update(gradient, opt_state, trained, value=loss)
    return eqx.apply_updates(model, updates), opt_state


@eqx.filter_jit
def _take_step(program: Program, source: AbstractSource, learner: Learner, step):
    """Return ``(learner, metrics)`` after one update."""
    keys = jax.random.split(jax.random.fold_in(program.step_key, step), 3)
    batch = source.take(step, program.epoch_key, keys[0])
    model, opt_state = learner.model, learner.opt_state
    output = gradient_of(program.objective, program.mask, model, learner.state, batch, keys[1])
    (loss, (state, metrics)), gradient = output
    _check_same(learner.state, state, "objective: state")
    _check_same(eqx.filter(model, program.mask), gradient, "objective: gradient")
    model, opt_state = new_parameters(program.optimizer, program.mask, model, opt_state, gradient, loss)
    if program.after_update is not None:
        output = program.after_update(model, opt_state, state, batch, keys[2])
        if not isinstance(output, tuple) or len(output) != 3:
            raise ValueError(
                f"after_update: expected (model, opt_state, state), got {type(output).__name__}."
            )
        model, opt_state, state = output
    new = Learner(model, opt_state, state)
    _check_same(learner, new, "optimizer" if program.after_update is None else "after_update")
    new = laid_out(program.layout, _strong(learner, new), jax.lax.with_sharding_constraint)
    return new, {"loss": loss, **metrics}


def metric_buffers(program: Program, source: AbstractSource, learner: Learner, n_slots: int):
    """Return room for the metrics of ``n_slots`` steps; it traces one step, and so checks the objective."""
    shapes = eqx.filter_eval_shape(_take_step, program, source, learner, jnp.int32(0))[1]
    return {name: jnp.zeros(n_slots, shape.dtype) for name, shape in shapes.items()}


@eqx.filter_jit
def run_block(program: Program, source: AbstractSource, learner: Learner, buffers, start, n_steps):
    """Take ``n_steps`` updates (a traced number: one compilation serves every length).

    Returns:
        ``(learner, metrics, finite)``: ``metrics`` fills the first ``n_steps`` slots of ``buffers``,
        ``finite`` is what `finite_leaves` says of the learner.
    """
    arrays, static = eqx.partition(learner, eqx.is_array)

    def body(i, carry):
        arrays, buffers = carry
        new, metrics = _take_step(program, source, eqx.combine(arrays, static), start + i)
        buffers = {name: buffers[name].at[i].set(value) for name, value in metrics.items()}
        return eqx.filter(new, eqx.is_array), buffers

    arrays, buffers = jax.lax.fori_loop(0, n_steps, body, (arrays, buffers))
    learner = eqx.combine(arrays, static)
    return learner, *constrain_everywhere((buffers, finite_leaves(learner)))


def numbers_of(learner: Learner) -> dict[str, jax.Array]:
    """Return the arrays of real or complex numbers in a learner, by path: parameters and all states."""
    flat = jax.tree_util.tree_flatten_with_path(eqx.filter(learner, eqx.is_inexact_array))[0]
    return {jax.tree_util.keystr(keys).lstrip("."): leaf for keys, leaf in flat}


@eqx.filter_jit
def finite_leaves(learner: Learner) -> jax.Array:
    """Return for each of these arrays whether all numbers are finite, and whether none is NaN."""
    leaves = numbers_of(learner).values()
    is_finite = [jnp.all(jnp.isfinite(leaf)) for leaf in leaves]
    return jnp.stack([jnp.stack(is_finite), jnp.stack([~jnp.any(jnp.isnan(leaf)) for leaf in leaves])])
