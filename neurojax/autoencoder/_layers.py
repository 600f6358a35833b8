"""Dense layers of the family: Equinox's, started as the literature does, and their transposes."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._arrays import real_array
from .._checks import check_at_least, check_shape
from .._precision import network_precision, network_product
from .._types import PRNGKey

__all__ = [
    "TiedLinear",
    "affine",
    "check_layers",
    "dense_layer",
    "dense_layers",
    "run_layers",
    "setting",
    "vector",
]


class TiedLinear(eqx.Module):
    """A decoder's layer whose weights are the transpose of an encoder's; only the bias is its own.

    Attributes:
        bias: one number for each unit that it feeds.
    """

    bias: Float[Array, " features"] = eqx.field(converter=partial(real_array, "bias"))

    def __call__(self, y: Float[Array, " units"], layer: eqx.nn.Linear) -> Float[Array, " features"]:
        """Return y @ layer.weight + bias; the gradient reaches ``layer.weight`` from here as well."""
        y = vector("y", y, int(layer.out_features), "a number for each unit of the layer")
        return network_product(y, layer.weight) + self.bias


def vector(name: str, value: Any, size: int, meaning: str) -> Float[Array, " _"]:
    """Return real numbers, one for each of what a model has, or raise ``ValueError``."""
    value = real_array(name, value)
    check_shape(name, value, (size,), meaning)
    return value


def setting(name: str) -> Callable[[Any], Any]:
    """Return the converter of a module's number: a Python number stays one, an array passes the gate."""
    return lambda value: value if isinstance(value, (int, float)) else real_array(name, value)


def dense_layer(n_in: int, n_out: int, key: PRNGKey, gain: float, dtype) -> eqx.nn.Linear:
    """Return a layer with weights uniform in ±gain·√(6/(n_in + n_out)) and biases 0."""
    bound = gain * (6 / (n_in + n_out)) ** 0.5
    weight = jax.random.uniform(key, (n_out, n_in), dtype, -bound, bound)
    # Equinox's own start would be drawn only to be thrown away.
    layer = eqx.filter_eval_shape(eqx.nn.Linear, n_in, n_out, dtype=dtype, key=key)
    return eqx.tree_at(lambda new: (new.weight, new.bias), layer, (weight, jnp.zeros(n_out, dtype)))


def dense_layers(
    sizes: Sequence[int], key: PRNGKey, activation: Callable, dtype, *, last: Callable | None
) -> tuple[eqx.nn.Linear, ...]:
    """Return layers between neighbouring sizes, started for what follows each: ``last`` follows the last.

    Reference:
        Glorot & Bengio 2010, eq. 16, and four times that for the logistic sigmoid.
    """
    for size in sizes:
        check_at_least("sizes", size, 1)
    pairs = list(itertools.pairwise(sizes))
    followers = [activation] * (len(pairs) - 1) + [last]
    return tuple(
        dense_layer(
            n_in, n_out, jax.random.fold_in(key, i), 4.0 if follower is jax.nn.sigmoid else 1.0, dtype
        )
        for i, ((n_in, n_out), follower) in enumerate(zip(pairs, followers, strict=False))
    )


def affine(layer: eqx.nn.Linear, x: Float[Array, " in"]) -> Float[Array, " out"]:
    """Return layer.weight @ x + layer.bias, value and gradient at the precision of a network."""
    if network_precision() is None:
        return layer(x)
    with jax.default_matmul_precision("highest"):
        return layer(x)


def run_layers(layers: Sequence[eqx.nn.Linear], activation: Callable, x: Float[Array, " in"]) -> Array:
    """Return what comes out of layers that are each followed by the activation."""
    for layer in layers:
        x = activation(affine(layer, x))
    return x


def check_layers(name: str, layers: Sequence[eqx.nn.Linear]) -> None:
    """Raise ``ValueError`` unless each layer takes as many numbers as the one before it gives."""
    for i, (one, next_one) in enumerate(itertools.pairwise(layers)):
        if next_one.in_features != one.out_features:
            raise ValueError(
                f"{name}: expected layer {i + 1} to take {one.out_features} numbers, as layer {i} gives, "
                f"got {next_one.in_features}."
            )
