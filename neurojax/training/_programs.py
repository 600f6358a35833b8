"""Descriptions of traced programs, which are equal where the programs compute the same.

A program is described by its jaxpr: its operations, their settings, the shapes and dtypes between them. The
names, comments and places of the source are no part of it, nor are memory addresses, devices or layouts.
Numbers that appear in it are listed beside it, and arrays that it closes over are described as data are, so
that a difference can be told by name. Of functions that run on the host, no jaxpr says what they compute.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend import core
from jax.sharding import AbstractMesh

from ._fingerprints import changed_arrays, fingerprint, kind_of

__all__ = ["changed_program", "describe_program", "shapes_of"]

_MOST_NUMBERS = 256
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_LAYOUT = {
    "name", "inline", "keep_unused", "donated_invars", "compiler_options_kvs", "ctx_mesh", "mesh", "sharding",
    "out_sharding", "in_shardings", "out_shardings", "in_layouts", "out_layouts", "layout", "debug_info",
}  # fmt: skip
_OPAQUE = re.compile("callback|ffi|custom_call")


def shapes_of(tree: Any) -> Any:
    """Return the tree with shapes in place of its arrays, which are then of no device."""

    def shape(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)

    return jax.tree.map(lambda leaf: shape(leaf) if isinstance(leaf, (jax.Array, np.ndarray)) else leaf, tree)


def describe_program(function: Callable[..., Any], *arguments: Any) -> dict[str, Any] | None:
    """Describe what a function computes of arguments of these shapes, in a form that JSON can hold.

    Args:
        function: traced, never run; without a mesh, unless it needs the one that is set.
        *arguments: pytrees; arrays count by shape and dtype, all else by what it does in the program.

    Returns:
        ``structure``, a digest of the operations; ``inputs``, the kinds of the arrays; ``numbers``, those in
        the program, or their digest where they are many; ``constants``, the fingerprints of arrays that
        it closes over; ``is_opaque``, whether part of it runs where no jaxpr tells what it does. ``None`` for
        a function that cannot be traced.
    """
    arguments = shapes_of(arguments)
    closed = _traced(function, arguments)
    if closed is None:
        return None
    reader = _Reader()
    structure = reader.program(closed)
    numbers: Any = [repr(number) for number in reader.numbers]
    if len(numbers) > _MOST_NUMBERS:
        numbers = _digest(numbers)
    inputs = [kind_of(leaf) for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.ShapeDtypeStruct)]
    return {
        "structure": structure,
        "inputs": inputs,
        "numbers": numbers,
        "constants": fingerprint(reader.constants),
        "is_opaque": reader.is_opaque,
    }


def _traced(function: Callable[..., Any], arguments: tuple) -> core.ClosedJaxpr | None:
    """Return the jaxpr without a mesh, or else with the one that is set; ``None`` where there is neither."""
    for context in (jax.sharding.use_abstract_mesh(AbstractMesh((), ())), contextlib.nullcontext()):
        # Whatever a user's function raises: an update that cannot be traced was told of before.
        with contextlib.suppress(Exception), context:
            return eqx.filter_make_jaxpr(function)(*arguments)[0]
    return None


def changed_program(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str | None:
    """Return in words how two described programs differ, or ``None`` where they compute the same.

    Programs of arrays of other shapes are not compared: they cannot be the same.
    """
    if old is None or new is None:
        text = "is new" if old is None else "is no longer there, or cannot be traced"
        return None if old is new else text
    if old["inputs"] != new["inputs"]:
        return None
    if old["structure"] != new["structure"]:
        return "computes something else"
    before, after = old["numbers"], new["numbers"]
    if before != after:
        are_listed = isinstance(before, list) and isinstance(after, list) and len(before) == len(after)
        pairs = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] if are_listed else []
        shown = ", ".join(f"{_short(one)} before and {_short(other)} now" for one, other in pairs[:3])
        return f"computes with other numbers{f': {shown}' if shown else ''}"
    constants = changed_arrays(old["constants"], new["constants"])
    return f"computes with another array that it closes over ({constants[0].text})" if constants else None


def _short(number: str) -> str:
    try:
        return f"{float(number):.7g}"
    except ValueError:  # a truth value, or a complex number
        return number


class _Reader:
    """A walk over a jaxpr and all within it, which collects its numbers and arrays in their order."""

    def __init__(self):
        self.numbers: list[Any] = []
        self.constants: list[Any] = []
        self.is_opaque = False
        self.known: dict[int, tuple[Any, str]] = {}  # by identity; holds what it names, so that it lives

    def program(self, closed: core.ClosedJaxpr) -> str:
        return _digest([self._jaxpr(closed.jaxpr), *(self._value(value) for value in closed.consts)])

    def _jaxpr(self, jaxpr: core.Jaxpr) -> str:
        if id(jaxpr) in self.known:
            return self.known[id(jaxpr)][1]
        numbers: dict[Any, int] = {}

        def name(variable) -> str:
            if isinstance(variable, core.Literal):
                return f"{_kind(variable.aval)}={self._value(variable.val)}"
            return f"{numbers.setdefault(variable, len(numbers))}:{_kind(variable.aval)}"

        lines = [" ".join(map(name, [*jaxpr.constvars, *jaxpr.invars]))]
        for equation in jaxpr.eqns:
            settings = [
                f"{key}={self._setting(value)}"
                for key, value in sorted(equation.params.items())
                if key not in _LAYOUT
            ]
            self.is_opaque |= bool(_OPAQUE.search(equation.primitive.name))
            inputs, outputs = (" ".join(map(name, part)) for part in (equation.invars, equation.outvars))
            lines.append(f"{equation.primitive.name} {inputs} -> {outputs} {' '.join(settings)}")
        lines.append(" ".join(map(name, jaxpr.outvars)))
        digest = _digest(lines)
        self.known[id(jaxpr)] = jaxpr, digest
        return digest

    def _value(self, value: Any) -> str:
        """Return the place of a number or array among those found."""
        if np.ndim(value) == 0 and not isinstance(value, jax.Array):
            self.numbers.append(np.asarray(value).item())
            return "number"
        self.constants.append(value if isinstance(value, jax.Array) else np.asarray(value))
        return f"array {np.shape(value)}"

    def _setting(self, value: Any) -> str:
        if isinstance(value, core.ClosedJaxpr):
            return self.program(value)
        if isinstance(value, core.Jaxpr):
            return self._jaxpr(value)
        if isinstance(value, (tuple, list)):
            return f"({','.join(map(self._setting, value))})"
        if isinstance(value, Mapping):
            return f"({','.join(f'{key}:{self._setting(item)}' for key, item in value.items())})"
        if isinstance(value, (set, frozenset)):
            return f"{{{','.join(sorted(map(self._setting, value)))}}}"
        if isinstance(value, (jax.Array, np.ndarray)):
            return self._value(value)
        # A function here makes a derivative that nobody asked for, or runs on the host, without a jaxpr.
        is_function = callable(value) and not isinstance(value, type)
        return "function" if is_function else _ADDRESS.sub("", repr(value))


def _kind(aval: Any) -> str:
    weak = "~" if getattr(aval, "weak_type", False) else ""
    return f"{getattr(aval, 'dtype', type(aval).__name__)}{list(getattr(aval, 'shape', ()))}{weak}"


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
