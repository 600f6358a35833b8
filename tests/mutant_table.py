"""The table of faults that the tests must catch: `tests/mutants.toml`, read, checked, and written.

A fault is one edit of one file of the package: a snippet that occurs exactly once, and its replacement. A
fault that changes nothing a caller can see, or with which nothing would run, is struck out with the reason.
"""

import ast
import dataclasses
import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = Path(__file__).with_name("mutants.toml")
ORIGINS = ("drawn", "hand")
HEADER = """# Faults that the tests must catch; see the docstring of tests/mutants.py.
# origin: drawn by the seeded mutator, or by hand.  struck: why the fault changes nothing a caller can see.
# caught_by: the test that caught it last, which is run first; any other test may catch it as well.
"""


@dataclasses.dataclass(frozen=True)
class Fault:
    """One edit of one file, with what it stands for and the test that caught it last."""

    name: str
    file: str
    before: str
    after: str
    origin: str
    why: str = ""
    struck: str = ""
    caught_by: str = ""

    @property
    def part(self) -> str:
        return part_of(self.file)

    def apply(self, text: str) -> str:
        """Return the faulty text of the file."""
        return text.replace(self.before, self.after)


def part_of(file: str) -> str:
    """Return the sub-package of a file; the private helpers at the top are the ground."""
    part = Path(file).parts[1].removesuffix(".py")
    return "ground" if part.startswith("_") else part


def library_files(root: Path = ROOT) -> list[str]:
    """Return the files that may hold a fault, as paths from the root of the tree."""
    paths = (path.relative_to(root).as_posix() for path in (root / "neurojax").rglob("*.py"))
    return sorted(path for path in paths if not path.endswith(("__init__.py", "__main__.py")))


def read_table(path: Path = TABLE) -> list[Fault]:
    """Return the faults of a table, struck ones among them."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("fault", [])
    return [Fault(**entry) for entry in entries]


def write_table(faults: list[Fault], path: Path = TABLE) -> None:
    """Write the faults, sorted by origin and file, with empty fields left out."""
    blocks = [HEADER]
    for fault in sorted(faults, key=lambda fault: (fault.origin, fault.file, fault.name)):
        fields = {key: value for key, value in dataclasses.asdict(fault).items() if value}
        blocks.append("[[fault]]\n" + "".join(f"{key} = {quoted(value)}\n" for key, value in fields.items()))
    path.write_text("\n".join(blocks), encoding="utf-8")


def quoted(value: str) -> str:
    """Return a TOML string, literal where the value allows it, so that code reads as it stands."""
    is_plain = "'" not in value and value.isprintable()
    return f"'{value}'" if is_plain else json.dumps(value, ensure_ascii=False)


def complaints(faults: list[Fault], root: Path = ROOT) -> list[str]:
    """Return what is wrong with the entries of a table, one line each; none if every fault can be run."""
    found = [f"{name}: expected one entry of this name" for name in repeated([f.name for f in faults])]
    texts: dict[str, str] = {}
    for fault in faults:
        path = root / fault.file
        if fault.file not in texts:
            texts[fault.file] = path.read_text(encoding="utf-8") if path.exists() else ""
        found += [f"{fault.name}: {complaint}" for complaint in complaints_of(fault, texts[fault.file])]
    return found


def complaints_of(fault: Fault, text: str) -> list[str]:
    """Return what is wrong with one entry, given the text of its file."""
    if fault.origin not in ORIGINS:
        return [f"expected an origin of {ORIGINS}, got {fault.origin!r}"]
    if (count := text.count(fault.before)) != 1:
        return [
            f"{fault.file} holds {count} times, not once: {fault.before!r}; if the line moved or changed, "
            "write the fault anew, or draw another (python tests/mutants.py draw --help)"
        ]
    if fault.before.split() == fault.after.split():
        return ["the faulty file is the same program"]
    try:
        ast.parse(fault.apply(text))
    except SyntaxError as error:
        return [f"the faulty file does not parse: {error}"]
    return []


def repeated(names: list[str]) -> list[str]:
    """Return the names that occur more than once."""
    return sorted({name for name in names if names.count(name) > 1})
