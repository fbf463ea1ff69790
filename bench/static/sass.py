"""Machine code of a compiled kernel as a list of instructions with their control bits.

The compiler decides most of a multiprocessor's timing and writes it into every instruction (volta and newer, 16 bytes
each): how many cycles the warp pauses after it (stall), which of six scoreboards it raises until its result is there
(write) or its operands are read (read), and which scoreboards must be down before it may start (wait).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import triton

NO_SCOREBOARD = 7  # in the fields `write` and `read`

SECTION = re.compile(r"\s*\.section\s+\.text\.(\S+?),")
LABEL = re.compile(r"(\.L_x_\d+):")
FIRST_LINE = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?(.*?)\s*;?\s*/\* 0x([0-9a-f]{16}) \*/")
SECOND_LINE = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/\s*$")
TARGET = re.compile(r"`\((\.L_x_\d+)\)")


@dataclass(frozen=True)
class Instruction:
    """One machine instruction; `target` is the number of the instruction that a branch leads to."""

    op: str  # with its modifiers, 'HMMA.16816.F32'
    operands: str = ""
    predicate: str = ""  # '@P0', '@!UP1' or nothing
    stall: int = 1
    write: int = NO_SCOREBOARD
    read: int = NO_SCOREBOARD
    wait: int = 0  # a bit for each scoreboard
    target: int | None = None
    name: str = field(init=False, repr=False)  # the op without modifiers

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.op.partition(".")[0])

    def __str__(self) -> str:
        return " ".join(part for part in (self.predicate, self.op, self.operands) if part)


def parse(listing: str) -> list[Instruction]:
    """The instructions of the first function in what `nvdisasm -hex -c` prints. Raises ValueError if there are none."""
    labels: dict[str, int] = {}
    found: list[tuple[str, str, int]] = []  # predicate, text, the upper 8 bytes
    sections = 0
    for line in listing.splitlines():
        if SECTION.match(line):
            sections += 1
        if sections != 1:
            continue
        if label := LABEL.match(line):
            labels[label[1]] = len(found)
        elif first := FIRST_LINE.match(line):
            found.append(((first[1] or "").strip(), first[2], 0))
        elif (second := SECOND_LINE.match(line)) and found:
            found[-1] = (*found[-1][:2], int(second[1], 16))
    if not found:
        raise ValueError("no machine code in this listing; expected what `nvdisasm -hex -c` prints for a kernel")
    instructions = []
    for predicate, text, upper in found:
        op, _, operands = text.partition(" ")
        control = upper >> 41  # the highest 23 bits, below 4 that only concern the register cache
        target = TARGET.search(operands)
        instructions.append(Instruction(
            op, operands.strip(), predicate, stall=control & 0xF, write=control >> 5 & 7, read=control >> 8 & 7,
            wait=control >> 11 & 0x3F, target=labels[target[1]] if target else None,
        ))  # fmt: skip
    return instructions


def tool(name: str) -> Path:
    """One of the programs that come with Triton."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name


@dataclass(frozen=True)
class Binary:
    """A kernel's code, and what it takes: registers a thread, bytes of stack a thread (spilled registers)."""

    instructions: list[Instruction]
    registers: int
    stack: int


def disassemble(cubin: bytes) -> Binary:
    """Take a kernel's binary apart with the tools that come with Triton."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)

        def run(program: str, *options: str) -> str:
            return subprocess.run([tool(program), *options, file], capture_output=True, text=True, check=True).stdout

        listing, usage = run("nvdisasm", "-hex", "-c"), run("cuobjdump", "--dump-resource-usage")
    registers, stack = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK"))
    return Binary(parse(listing), registers, stack)
