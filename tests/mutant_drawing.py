"""Faults drawn at random over the syntax tree of the package, the same for the same seed.

Each kind of fault is a function from a node to replacements of a stretch of its line. Messages, annotations,
and docstrings are left alone, and so are nodes that span lines and lines that occur twice in their file.
"""

import ast
import random
import re
from collections.abc import Iterator
from pathlib import Path

from mutant_table import ROOT, Fault, library_files, part_of

SWAPPED_OPERATORS = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
SWAPPED_COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
SWAPPED_NAMES = {
    "minimum": "maximum",
    "maximum": "minimum",
    "sum": "mean",
    "mean": "sum",
    "any": "all",
    "all": "any",
}
SWAPPED_NAMES |= {"cos": "sin", "sin": "cos", "exp": "expm1", "log1p": "log", "argmax": "argmin"}
AXES = {"0": "-1", "1": "0", "-1": "0", "-2": "-1"}

Edit = tuple[str, int, int, str]  # kind, first and last column in bytes, replacement


def sign_edits(node: ast.AST, line: bytes) -> Iterator[Edit]:
    """Swap + with -, and * with /; drop a minus."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED_OPERATORS and is_arithmetic(node):
        old, new = SWAPPED_OPERATORS[type(node.op)]
        yield from operator_edit("sign" if old in "+-" else "factor", node.left, node.right, old, new, line)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not is_number(node.operand):
        yield "sign", node.col_offset, node.col_offset + 1, ""


def comparison_edits(node: ast.AST, line: bytes) -> Iterator[Edit]:
    """Move the bound of a comparison: < becomes <=."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPPED_COMPARISONS:
        old, new = SWAPPED_COMPARISONS[type(node.ops[0])]
        yield from operator_edit("comparison", node.left, node.comparators[0], old, new, line)


def operator_edit(kind, left: ast.expr, right: ast.expr, old: str, new: str, line: bytes) -> Iterator[Edit]:
    """Replace the operator between two operands of one line."""
    if left.end_lineno == right.lineno:
        start = line.find(old.encode(), left.end_col_offset, right.col_offset)
        if start >= 0:
            yield kind, start, start + len(old), new


def constant_edits(node: ast.AST, line: bytes) -> Iterator[Edit]:
    """Add one to an integer, double a float, and swap True with False."""
    if not isinstance(node, ast.Constant) or node.end_lineno != node.lineno:
        return
    if isinstance(node.value, bool):
        yield "constant", node.col_offset, node.end_col_offset, str(not node.value)
    elif isinstance(node.value, int):
        yield "constant", node.col_offset, node.end_col_offset, str(node.value + 1)
    elif isinstance(node.value, float) and node.value:
        yield "constant", node.col_offset, node.end_col_offset, repr(2 * node.value)


def axis_edits(node: ast.AST, line: bytes) -> Iterator[Edit]:
    """Take another axis."""
    is_axis = isinstance(node, ast.keyword) and node.arg in ("axis", "in_axes", "out_axes")
    if is_axis and is_number(node.value):
        old = line[node.value.col_offset : node.value.end_col_offset].decode()
        if old in AXES:
            yield "axis", node.value.col_offset, node.value.end_col_offset, AXES[old]


def call_edits(node: ast.AST, line: bytes) -> Iterator[Edit]:
    """Drop a stop_gradient, reuse a key, and call a function's sibling."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
        return
    name, argument = node.func.attr, line[node.args[0].col_offset : node.args[0].end_col_offset].decode()
    if node.end_lineno == node.lineno and node.args[0].end_lineno == node.lineno:
        if name == "stop_gradient":
            yield "stop_gradient", node.col_offset, node.end_col_offset, f"({argument})"
        elif name == "fold_in":
            yield "key", node.col_offset, node.end_col_offset, argument
        elif name == "split" and re.search(r"\bkeys?\b|key$", argument) and len(node.args) == 1:
            yield "key", node.col_offset, node.end_col_offset, f"({argument}, {argument})"
    if name in SWAPPED_NAMES and node.func.end_lineno == node.lineno:
        end = node.func.end_col_offset
        yield "function", end - len(name), end, SWAPPED_NAMES[name]


EDITS = (sign_edits, comparison_edits, constant_edits, axis_edits, call_edits)


def is_arithmetic(node: ast.BinOp) -> bool:
    """Whether both operands may be numbers: no text, paths, lists, or sets, where any test would stumble."""
    operands = (node.left, node.right)
    is_text = any(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in operands)
    return not is_text and not any(isinstance(each, ast.List | ast.Set | ast.JoinedStr) for each in operands)


def is_number(node: ast.AST) -> bool:
    """Whether a node is a number, with or without a minus."""
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def visited(node: ast.AST) -> Iterator[ast.AST]:
    """Walk the nodes that compute something: no messages, annotations, decorators, or docstrings."""
    yield node
    skipped: list[ast.AST] = []
    if isinstance(node, ast.FunctionDef):
        skipped = [*node.decorator_list, *([node.returns] if node.returns else [])]
    elif isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
        skipped = [node.annotation]
    silent = ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom
    for child in ast.iter_child_nodes(node):
        if child not in skipped and not isinstance(child, silent):
            yield from visited(child)


def candidates(file: str, root: Path = ROOT) -> list[tuple[str, str, str]]:
    """Return every fault that can be drawn in a file, as its kind and the line before and after."""
    text = (root / file).read_text(encoding="utf-8")
    lines = text.encode().splitlines()
    found = []
    for node in visited(ast.parse(text)):
        if not hasattr(node, "lineno"):
            continue
        line = lines[node.lineno - 1]
        before = line.decode().strip()
        for kind, start, end, new in (edit for edits in EDITS for edit in edits(node, line)):
            after = (line[:start] + new.encode() + line[end:]).decode().strip()
            if text.count(before) == 1 and after != before:
                found.append((kind, before, after))
    return sorted(set(found))


def draw(seed: int, number: int, parts: tuple[str, ...] = (), root: Path = ROOT) -> list[Fault]:
    """Draw faults, spread evenly over the sub-packages, and over the kinds within one.

    Args:
        seed: The same seed draws the same faults from the same tree.
        number: The number of faults.
        parts: The sub-packages to draw from; all by default.
        root: The tree.

    Returns:
        The faults, with names that tell the sub-package, the kind, and the seed.
    """
    files: dict[str, list[str]] = {}
    for file in library_files(root):
        if not parts or part_of(file) in parts:
            files.setdefault(part_of(file), []).append(file)
    rng = random.Random(seed)
    order = sorted(files)
    rng.shuffle(order)
    pools = {part: [(f, *fault) for f in files[part] for fault in candidates(f, root)] for part in order}
    drawn: list[Fault] = []
    for turn in range(number):
        part = order[turn % len(order)]
        kind = rng.choice(sorted({kind for _, kind, _, _ in pools[part]}))
        file, kind, before, after = rng.choice([fault for fault in pools[part] if fault[1] == kind])
        # One fault a line.
        pools[part] = [fault for fault in pools[part] if (fault[0], fault[2]) != (file, before)]
        drawn.append(Fault(f"{part}-{kind}-{seed}.{turn}", file, before, after, "drawn"))
    return drawn
