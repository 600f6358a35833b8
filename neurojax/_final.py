"""The rule that a class is abstract or final."""

import inspect

__all__ = ["check_bases"]


def check_bases(cls: type, root: type) -> None:
    """Raise if a new class extends a concrete subclass of ``root``.

    Functions that ask a concrete class for its closed forms (a duality gap, a Gram matrix) would trust a
    subclass that has changed what these are derived from. A class counts as abstract if its name begins with
    "Abstract" or it has abstract methods.

    Raises:
        TypeError: when the class is defined; it names the classes to start from.
    """
    for base in cls.__mro__[1:]:
        if not issubclass(base, root) or _is_abstract(base):
            continue
        starts = " and ".join(_public_bases(base, root))
        raise TypeError(
            f"{cls.__name__}: expected only abstract bases, got {base.__name__}, which is concrete and "
            f"therefore final. Start from {starts} instead, and keep any {base.__name__} you need in a field."
        )


def _is_abstract(cls: type) -> bool:
    return cls.__name__.lstrip("_").startswith("Abstract") or inspect.isabstract(cls)


def _public_bases(cls: type, root: type) -> list[str]:
    """Return the names of the nearest public bases; private ones are not for others to build on."""
    names: list[str] = []
    for base in cls.__bases__:
        if issubclass(base, root):
            names += _public_bases(base, root) if base.__name__.startswith("_") else [base.__name__]
    return names
