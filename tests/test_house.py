"""The house: imports run downwards only, domains keep apart, each public name has one public path."""

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import jaxtyping
import pytest

import neurojax
from neurojax import convergence, penalties, plotting, proximal, sparse_coding

PACKAGE = Path(neurojax.__file__).parent
FLOORS = {
    "_types": 0, "_paths": 0, "_terminal": 0,
    "_checks": 0, "_arrays": 0, "_trees": 0, "_precision": 0, "_compensated": 0, "_terms": 0,
    "_random": 0, "_final": 0, "_gabor": 0, "_rows": 0, "_uncertainty": 0, "_untrusted": 0, "distributed": 0,
    "penalties": 1, "convergence": 1, "proximal": 1, "chains": 1, "training": 1, "metrics": 1,
    "runs": 1, "data": 1,
    "sparse_coding": 2, "boltzmann": 2, "autoencoder": 2, "neural_coding": 2, "decomposition": 2,
    "receptive_fields": 2,
    "plotting": 3,
    "cli": 4, "__main__": 4, "__init__": 4,
}  # fmt: skip
# On one floor a module may use another only as listed.
WITHIN_A_FLOOR = {
    ("_checks", "_types"),
    ("_arrays", "_checks"),
    ("_untrusted", "_paths"),
    ("distributed", "_arrays"),
    ("_terms", "_types"),
    ("distributed", "_checks"),
    ("_random", "_types"),
    ("_rows", "_compensated"),
    ("_uncertainty", "_precision"),
    ("_rows", "_precision"),
    ("_rows", "_types"),
    ("proximal", "penalties"),
    ("proximal", "convergence"),
    ("training", "runs"),
    ("training", "data"),
    ("data", "runs"),
    ("__main__", "cli"),
}

# A domain may offer the solvers that its users need under its own name too.
RE_EXPORTED = {("neurojax.sparse_coding", "neurojax.proximal")}


def part_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Return the parts of the package that a file imports, wherever in the file."""
    package = ("neurojax", *path.relative_to(PACKAGE).parts[:-1])
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            modules |= {f"{prefix}.{alias.name}" for alias in node.names}
    parts = {tuple(name.split("."))[1] for name in modules if name.startswith("neurojax.")}
    return {part for part in parts if part in FLOORS}


FILES = sorted(PACKAGE.rglob("*.py"))


def test_imports_run_downwards():
    assert len(FILES) > 100
    for path in FILES:
        part = part_of(path)
        assert part in FLOORS, f"{path}: {part} has no floor in the house"
        for used in imported_parts(path) - {part, "__init__"}:
            is_below = FLOORS[used] < FLOORS[part]
            assert is_below or (part, used) in WITHIN_A_FLOOR, f"{path}: floor {FLOORS[part]} imports {used}"


def test_the_layering_test_sees_relative_and_absolute_imports():
    assert {"_rows", "convergence", "penalties"} <= imported_parts(PACKAGE / "proximal" / "_problem.py")
    assert "proximal" in imported_parts(PACKAGE / "sparse_coding" / "__init__.py")
    assert "runs" in imported_parts(PACKAGE / "training" / "_checkpoint.py")


def test_types_are_checked_in_tests():
    with pytest.raises(jaxtyping.TypeCheckError):
        plotting.code_stem("no array")


def public_modules():
    names = [m.name for m in pkgutil.iter_modules(neurojax.__path__)]
    public = [name for name in names if not name.startswith("_") and name != "cli"]
    return [importlib.import_module(f"neurojax.{name}") for name in public]


def test_every_public_name_has_one_public_path_and_a_docstring():
    paths: dict[int, str] = {}
    for module in public_modules():
        assert module.__doc__, module.__name__
        for name in module.__all__:
            thing = getattr(module, name)
            path = f"{module.__name__}.{name}"
            if (module.__name__, getattr(thing, "__module__", "").split("._")[0]) in RE_EXPORTED:
                continue
            if not callable(thing) or not getattr(thing, "__module__", "").startswith("neurojax"):
                continue  # type aliases
            assert thing.__doc__, f"{path} has no docstring"
            assert paths.setdefault(id(thing), path) == path, f"{path} is also {paths[id(thing)]}"


CLOSED = ("sparse_coding", "proximal", "convergence")


def test_no_class_of_ours_decides_what_a_strangers_may_do():
    """Nothing asks whether a penalty, a solver, a smooth term or a dictionary is of a concrete class."""
    roots = (
        penalties.AbstractPenalty,
        convergence.AbstractSolver,
        proximal.AbstractSmooth,
        sparse_coding.AbstractDictionary,
    )
    modules = (penalties, convergence, proximal, sparse_coding)
    concrete = {
        name
        for module in modules
        for name, thing in vars(module).items()
        if inspect.isclass(thing) and issubclass(thing, roots) and not name.startswith("Abstract")
    }
    assert {"L1", "FISTA", "LeastSquares", "Dictionary"} <= concrete
    found = []
    for path in FILES:
        if part_of(path) not in CLOSED:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
                asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                found += [f"{path}:{node.lineno}: {name}" for name in asked & concrete]
    assert not found


def test_files_stay_short():
    long = {str(path): n for path in FILES if (n := len(path.read_text("utf-8").splitlines())) > 420}
    assert not long


def test_nothing_says_to_install_another_project():
    """The name ``neurojax`` on the public package index belongs to somebody else."""
    root = PACKAGE.parent
    texts = [root / "README.md", *FILES, *root.glob("benchmarks/*.*"), *root.glob("notebooks/*.ipynb")]
    named = re.compile(r"(pip|uv|pipx) (pip )?install [^\n`&;]*\bneurojax\b")
    assert not [path for path in texts if path.suffix != ".png" and named.search(path.read_text("utf-8"))]
