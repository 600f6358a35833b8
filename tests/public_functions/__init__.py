"""One table of the public interface: small arguments for every public name, and the transformations it takes.

``ENTRIES`` lists each name of each public module at least once. A name that can be called in several ways has
an entry for each, told apart by ``case``. Building the table is cheap: the arguments are made when an entry
is used, and importing this package starts no backend.
"""

import importlib
import pkgutil
from types import ModuleType

import neurojax

from ._entry import COMPUTATION, KINDS, PLATFORMS, Entry

__all__ = ["COMPUTATION", "ENTRIES", "KINDS", "PLATFORMS", "Entry", "public_modules", "public_names"]

TABLES = [
    importlib.import_module(f"{__name__}.{module.name}")
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
]
ENTRIES: tuple[Entry, ...] = tuple(entry for table in TABLES for entry in table.ENTRIES)


def public_modules() -> list[ModuleType]:
    """Return the public modules of the library; the command line is not one."""
    names = [module.name for module in pkgutil.iter_modules(neurojax.__path__)]
    public = [name for name in names if not name.startswith("_") and name != "cli"]
    return [importlib.import_module(f"neurojax.{name}") for name in public]


def public_names() -> dict[str, object]:
    """Return every public name, as ``module.name``, and the object that it stands for."""
    return {
        f"{module.__name__.removeprefix('neurojax.')}.{name}": getattr(module, name)
        for module in public_modules()
        for name in module.__all__
    }
