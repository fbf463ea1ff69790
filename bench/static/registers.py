"""A warp's registers and how instructions name them.

A register's value is 32 numbers from 0 to 2^32 - 1, or None where it is not known: whatever comes from memory, from
floating point or from another lane. Kernels compute their loops' bounds and their addresses from arguments, the
program's number and the thread's, so these are known, down to integer divisions by way of a reciprocal.

Register names are the assembler's: R4 of a lane, UR4 of the warp, P0 and UP0 of one bit; RZ is 0 and PT is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from bench.static.sass import Instruction

PREDICATES = {f"{kind}{n}" for kind in ("P", "UP") for n in (*range(8), "T")}
REGISTERS = {f"{kind}{n}" for kind in ("R", "UR") for n in range(256)}
LANES = np.arange(32)
MASK = 0xFFFFFFFF
Value = np.ndarray | None

CONSTANT = re.compile(r"c\[(0x[0-9a-f]+)\]\[(0x[0-9a-f]+)\]")
TERM = re.compile(r"([+-]?)\s*(U?R\d+|U?RZ|0x[0-9a-f]+)((?:\.\w+)*)")


@dataclass(frozen=True)
class Operand:
    """`text` without sign, bars and suffixes: a register, a predicate, 'c[0x0][0x160]', a number."""

    text: str
    sign: str = ""
    absolute: bool = False

    @property
    def is_predicate(self) -> bool:
        return self.text in PREDICATES

    @property
    def is_register(self) -> bool:
        """But for RZ."""
        return self.text in REGISTERS


@cache
def operands(text: str) -> tuple[Operand, ...]:
    """The operands of an instruction; addresses in brackets are kept as they stand."""
    parts = re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text)
    result = []
    for part in (p.strip() for p in parts):
        if "[" in part and not part.lstrip("-~!|").startswith("c["):
            result.append(Operand(part))
            continue
        sign = part[0] if part[0] in "-~!" else ""
        body = part.removeprefix(sign)
        absolute = body.startswith("|")
        body = body.strip("|")
        if body[0] in "RUP":  # without .reuse, .H0_H0 and the like
            body = body.partition(".")[0].strip("|")
        result.append(Operand(body, sign, absolute))
    return tuple(result)


@cache
def neighbour(register: str, distance: int = 1) -> str:
    """The register `distance` above, as those of a pair: R5 of R4."""
    if register.endswith("RZ"):
        return register
    kind, number = re.fullmatch(r"(U?R)(\d+)", register).groups()
    return f"{kind}{int(number) + distance}"


def signed(value: np.ndarray) -> np.ndarray:
    return (value ^ 0x80000000) - 0x80000000


def wide(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Of 64 bits, as int64."""
    return (low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)).astype(np.int64)


@dataclass
class Warp:
    """The registers of a warp. `constants`: bytes of the constant bank 0 by their offsets, in words; `special`: of the
    registers that name the thread and the program."""

    constants: Mapping[int, int]
    special: Mapping[str, np.ndarray]
    registers: dict[str, Value] = field(default_factory=dict)
    active: np.ndarray = field(default_factory=lambda: np.ones(32, np.bool_))  # lanes that have not ended

    # ---- reading

    def word(self, operand: Operand) -> Value:
        """An operand's 32 bits; a sign counts modulo 2^32 (see `addend` where carries matter)."""
        value = self.addend(operand)
        return None if value is None else value & MASK

    def addend(self, operand: Operand) -> Value:
        """What an operand adds to a sum: -x is 2^32 - x, so that the sum of x and -x carries."""
        value = self.plain(operand.text)
        if value is None:
            return None
        if operand.absolute:
            value = np.abs(signed(value))
        if operand.sign == "-":
            value = 2**32 - value
        if operand.sign == "~":
            value = MASK - value
        return value

    def plain(self, text: str) -> Value:
        if text in ("RZ", "URZ", "SRZ"):
            return np.zeros(32, np.int64)
        if text[0] in "RU" and text[-1].isdigit():
            # Compilers pack predicates into a register bit by bit, without having written it before.
            return self.registers.get(text, np.zeros(32, np.int64))
        if constant := CONSTANT.match(text):
            known = self.constants.get(int(constant[2], 16)) if int(constant[1], 16) == 0 else None
            return None if known is None else np.full(32, known, np.int64)
        try:
            return np.full(32, int(text, 16) & MASK, np.int64)
        except ValueError:
            return None

    def pair(self, operand: Operand) -> Value:
        """64 bits: of a register and the one above, of a constant, or a number."""
        low = self.word(operand)
        if operand.is_register:
            high = self.plain(neighbour(operand.text))
        elif constant := CONSTANT.match(operand.text):
            high = self.plain(f"c[{constant[1]}][{int(constant[2], 16) + 4:#x}]")
        else:
            high = np.zeros(32, np.int64)
        return None if low is None or high is None else wide(low, high)

    def predicate(self, operand: Operand) -> Value:
        if operand.text in ("PT", "UPT"):
            value: Value = np.ones(32, np.bool_)
        else:
            value = self.registers.get(operand.text)
        if value is None:
            return None
        return ~value if operand.sign == "!" else value

    def guard(self, instruction: Instruction) -> Value:
        """The lanes in which an instruction is executed."""
        if not instruction.predicate:
            return self.active
        lanes = self.predicate(operands(instruction.predicate[1:])[0])
        return None if lanes is None else lanes & self.active

    # ---- writing

    def write(self, register: str, value: Value, lanes: Value) -> None:
        """In some lanes. Where those are not known, neither is the result; lanes never written before hold anything."""
        if register in ("RZ", "URZ", "PT", "UPT"):
            return
        old = self.registers.get(register)
        if lanes is None:
            value = None
        elif old is not None and value is not None and not lanes.all():
            value = np.where(lanes, value, old)
        elif value is None and old is not None and not lanes.any():
            value = old
        self.registers[register] = value

    # ---- memory

    def address(self, operand: Operand) -> Value:
        """Of '[R2.64+UR4+0x10]' or the like, in each lane."""
        inside = operand.text.rpartition("[")[2].rstrip("]")
        total: Value = np.zeros(32, np.int64)
        is_wide = ".64" in inside
        for sign, text, suffix in TERM.findall(inside):
            if is_wide and text.startswith(("R", "UR")) and ".U32" not in suffix:
                value = self.pair(Operand(text))
            else:
                value = self.plain(text)
            if value is None:
                return None
            if factor := re.search(r"\.X(\d+)", suffix):
                value = value * int(factor[1])
            total = total - value if sign == "-" else total + value
        return total
