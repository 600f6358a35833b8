"""Reading XLA's optimised programs: their instructions, and the collectives among them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Array", "Collective", "Instruction", "Module", "arrays", "collectives", "n_bytes", "parse"]

KINDS = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
    "reduce-scatter",
)
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8,
          "u64": 8}  # fmt: skip
Array = tuple[str, tuple[int, ...]]  # dtype and shape


def n_bytes(array: Array) -> int:
    """Return how many bytes an array of this dtype and shape takes."""
    dtype, shape = array
    return _BYTES[dtype] * math.prod(shape)


class Instruction(NamedTuple):
    """One line of an optimised program."""

    name: str
    opcode: str
    result: str  # dtype and shape, or several in parentheses, with layouts
    line: str


class Module(NamedTuple):
    """An optimised program: its computations by name, and which is entered first."""

    computations: dict[str, list[Instruction]]
    entry: str


@dataclass(frozen=True)
class Collective:
    """One collective: what a device gives to it, over how many, and how often it runs."""

    kind: str
    operands: tuple[Array, ...]
    n_together: int  # devices of a group
    n_loops: int  # loops around it: 0 is once a block of steps, 1 each step, 2 in a loop within a step
    is_conditional: bool

    @property
    def n_bytes(self) -> int:
        """Bytes that each device gives."""
        return sum(n_bytes(array) for array in self.operands)


_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\(")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def parse(text: str) -> Module:
    """Read an optimised program as XLA prints it."""
    computations: dict[str, list[Instruction]] = {}
    current, entry = [], ""
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line)
        if header := _HEADER.match(line):
            current = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        elif found := _INSTRUCTION.match(line):
            current.append(Instruction(found[1], found[3], found[2], line))
    if not entry:
        raise ValueError("text: expected a program with an entry computation, got none.")
    return Module(computations, entry)


def arrays(result: str) -> tuple[Array, ...]:
    """Return dtypes and shapes, layouts aside."""
    found = _ARRAY.findall(re.sub(r"\{[^}]*\}", "", result))
    return tuple((dtype, tuple(int(n) for n in shape.split(",") if n)) for dtype, shape in found)


def group_size(line: str) -> int:
    """Return how many devices a collective joins, in each notation that XLA has; 0 if it says none."""
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\].*? \{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(iota[2])
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return len(listed[1].split(","))
    return 0


def collectives(text: str) -> list[Collective]:
    """Return all collectives of an optimised program, with the loops and conditions around them."""
    module = parse(text)
    found = []

    def visit(name: str, n_loops: int, is_conditional: bool) -> None:
        results = {one.name: one.result for one in module.computations[name]}
        for one in module.computations[name]:
            kind = one.opcode.removesuffix("-start")
            if kind in KINDS:
                given = re.findall(r"%([\w.\-]+)", one.line.split(f" {one.opcode}(", 1)[1].split(")", 1)[0])
                operands = tuple(array for operand in given for array in arrays(results[operand]))
                found.append(Collective(kind, operands, group_size(one.line), n_loops, is_conditional))
            elif one.opcode in ("while", "call", "conditional"):
                called = [name for _, name in _CALLED.findall(one.line)]
                branches = _BRANCHES.search(one.line)
                called += re.findall(r"[\w.\-]+", branches[1]) if branches else []
                for callee in called:
                    visit(
                        callee,
                        n_loops + (one.opcode == "while"),
                        is_conditional or one.opcode == "conditional",
                    )

    visit(module.entry, 0, False)
    return found
