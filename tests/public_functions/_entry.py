"""The form of an entry of the table, and the small arrays that entries are called with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

COMPUTATION = "computation"
KINDS = {
    COMPUTATION: "a pure function of arrays, which can be traced",
    "eager": "a function that looks at the values of its arguments, so that it cannot be traced",
    "host program": "a loop on the host, which calls compiled blocks, reports and saves between them",
    "files": "a function that reads or writes files",
    "pictures": "a function that draws with matplotlib",
    "devices": "a function of devices or processes, whose work is to place or exchange arrays",
    "abstract class": "a class to subclass",
    "record": "a container of arrays that functions take or return",
    "settings": "an object that chooses what another function does",
    "exception": "an exception",
    "constant": "a constant",
    "type": "a type for annotations",
}
PLATFORMS = ("cuda", "tpu")


@dataclass(frozen=True)
class Entry:
    """One way to call one public name.

    Attributes:
        name: the public name, as ``module.name``.
        call: the function to test; it takes ``arguments`` by keyword. Counts, shapes and choices, which are
            static, are written into it.
        arguments: makes the arguments, a dictionary from names to NumPy arrays, typed keys or pytrees of
            them. Every array leaf can be traced. Some functions take JAX arrays alone under type checks, so
            jit the call or convert the leaves first.
        case: tells apart the entries of one name.
        kind: a key of ``KINDS``. Only a ``COMPUTATION`` can be jitted.
        differentiable: the arguments in which the outputs have a derivative.
        platforms: the platforms that the computation can be lowered for.
        why: the reason for every transformation that the entry does not take, or where it is tested instead.
    """

    name: str
    call: Callable[..., Any] | None = None
    arguments: Callable[[], dict[str, Any]] = dict
    case: str = ""
    kind: str = COMPUTATION
    differentiable: tuple[str, ...] = ()
    platforms: tuple[str, ...] = PLATFORMS
    why: str = ""

    def __str__(self) -> str:
        """Return a stable identifier of the entry."""
        return f"{self.name}-{self.case}" if self.case else self.name

    @property
    def is_jittable(self) -> bool:
        """Whether the call can be traced."""
        return self.kind == COMPUTATION

    @property
    def is_lowerable(self) -> bool:
        """Whether the call has a program for some accelerator."""
        return self.is_jittable and bool(self.platforms)

    @property
    def is_differentiable(self) -> bool:
        """Whether the call has a derivative in some argument."""
        return bool(self.differentiable)


def others(module: str, kind: str, names: str, why: str = "") -> list[Entry]:
    """Return entries for names, divided by spaces, that are not called here."""
    return [Entry(f"{module}.{name}", kind=kind, why=why or KINDS[kind]) for name in names.split()]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Return standard normal numbers in single precision."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def positive(*shape: int, seed: int = 0) -> np.ndarray:
    """Return numbers between 0.5 and 1.5 in single precision."""
    return np.random.default_rng([seed, *shape]).uniform(0.5, 1.5, size=shape).astype(np.float32)


def binary(*shape: int, seed: int = 0) -> np.ndarray:
    """Return zeros and ones in single precision."""
    return np.random.default_rng([seed, *shape]).integers(0, 2, size=shape).astype(np.float32)


def counts(*shape: int, seed: int = 0) -> np.ndarray:
    """Return Poisson counts of mean 3 in single precision."""
    return np.random.default_rng([seed, *shape]).poisson(3, size=shape).astype(np.float32)


def classes(size: int, n_classes: int) -> np.ndarray:
    """Return every class by turns."""
    return (np.arange(size) % n_classes).astype(np.int32)


def angles(size: int, period_degrees: float = 360) -> np.ndarray:
    """Return evenly spaced angles in degrees, the first of them zero."""
    return (np.arange(size) * period_degrees / size).astype(np.float32)


def number(value: float) -> np.ndarray:
    """Return a scalar array in single precision."""
    return np.array(value, np.float32)


def key(seed: int = 0) -> jax.Array:
    """Return a typed PRNG key."""
    return jax.random.key(seed)
