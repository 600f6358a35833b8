"""The arrays of a learner in order: what is stored of them, and how they come back."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax

from ..runs._trees import ARRAYS, fill_leaf

__all__ = ["filled", "kinds_of", "with_fresh_state"]


def kinds_of(tree: Any) -> list[list[str]]:
    """Return path and kind of each array of a tree, in order."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = ((jax.tree_util.keystr(keys), leaf) for keys, leaf in flat if isinstance(leaf, ARRAYS))
    return [[path, f"{leaf.dtype}{list(leaf.shape)}"] for path, leaf in arrays]


def filled(like: Any, leaves: list[list[str]], arrays: Mapping[str, Any], where: str) -> Any:
    """Put the stored arrays into a tree, by their order; the names of fields may be others."""
    wanted = kinds_of(like)
    for i, (path, kind) in enumerate(wanted):
        came = leaves[i][1] if i < len(leaves) else "nothing"
        if came != kind:
            hint = "; another kind of optimizer begins another run, from the model of this one"
            raise ValueError(
                f"{where}: first mismatch at leaf {path}: expected {kind}, got {came}"
                f"{hint if '.opt_state' in path else ''}."
            )
    if len(leaves) > len(wanted):
        path, kind = leaves[len(wanted)]
        raise ValueError(f"{where}: first mismatch at leaf {path}: expected nothing, got {kind}.")
    stored = iter([arrays[path] for path, _ in leaves])
    flat, form = jax.tree.flatten(like)
    flat = [fill_leaf(leaf, next(stored)) if isinstance(leaf, ARRAYS) else leaf for leaf in flat]
    return jax.tree.unflatten(form, flat)


def with_fresh_state(learner: Any, fresh: Any, changed: Collection[str]) -> Any:
    """Return the learner with those leaves of the optimizer's state fresh that have these paths."""
    if learner is None:
        return None

    def choose(keys, old, new):
        return new if jax.tree_util.keystr(keys) in changed else old

    opt_state = jax.tree_util.tree_map_with_path(choose, learner.opt_state, fresh.opt_state)
    return dataclasses.replace(learner, opt_state=opt_state)
