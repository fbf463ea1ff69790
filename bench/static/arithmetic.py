"""The rules of integer instructions: what each writes, from what it reads.

A rule takes the warp, the instruction's modifiers and its operands, and returns the registers that it writes with their
new values. Where an operand is not known, neither is the result, unless the operand cannot matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.static.registers import MASK, Operand, Value, Warp, neighbour, operands, signed, wide
from bench.static.sass import Instruction

Results = list[tuple[str, Value]]
Rule = Callable[[Warp, Sequence[str], Sequence[Operand]], Results]


def _known(*values: Value) -> bool:
    return all(value is not None for value in values)


def _split(places: Sequence[Operand]) -> tuple[Operand, list[Operand], list[Operand], list[Operand]]:
    """An arithmetic instruction's result, its predicate results, its operands, its predicate operands. Where there is
    no register to write, as in 'LOP3.LUT P0, RZ, R3, ...', predicates come first."""
    rest = list(places)
    outs: list[Operand] = []
    while rest[0].is_predicate:
        outs.append(rest.pop(0))
    result = rest.pop(0)
    while rest and rest[0].is_predicate:
        outs.append(rest.pop(0))
    ins = []
    while rest and rest[-1].is_predicate:
        ins.insert(0, rest.pop())
    return result, outs, rest, ins


def _add(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    result, outs, terms, carries = _split(places)
    values: list[Value] = [warp.addend(t) for t in terms]
    if "X" in kinds:
        values += [None if (p := warp.predicate(c)) is None else p.astype(np.int64) for c in carries]
    if not _known(*values):
        return [(result.text, None), *((o.text, None) for o in outs)]
    total = np.sum(values, axis=0)
    return [(result.text, total & MASK), *((o.text, total >> 32 > n) for n, o in enumerate(outs))]


def _multiply_add(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    result, outs, (a, b, c), carries = _split(places)
    x, y = warp.word(a), warp.word(b)
    is_wide = "WIDE" in kinds or "HI" in kinds
    z = warp.pair(c) if is_wide else warp.addend(c)
    carry = warp.predicate(carries[0]) if "X" in kinds else np.zeros(32, np.bool_)
    # A factor of zero or one is how values are moved, whatever the other one is.
    if z is None or carry is None or ((x is None or y is None) and not (a.text == "RZ" or b.text == "RZ")):
        registers = [result.text, neighbour(result.text)] if "WIDE" in kinds else [result.text]
        return [(r, None) for r in registers] + [(o.text, None) for o in outs]
    x = np.zeros(32, np.int64) if x is None else x
    y = np.zeros(32, np.int64) if y is None else y
    if not is_wide:
        return [(result.text, (x * y + z + carry) & MASK)]
    if "U32" in kinds:
        total = x.astype(np.uint64) * y.astype(np.uint64) + z.astype(np.uint64)
        total = total.astype(np.int64)
    else:
        total = signed(x) * signed(y) + z
    if c.sign == "-":
        return [(result.text, None)]
    high = (total >> 32) & MASK
    if "HI" in kinds:
        return [(result.text, high)]
    return [(result.text, total & MASK), (neighbour(result.text), high), *((o.text, None) for o in outs)]


def _shift_add(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """LEA: (a << n) + b, or with HI the upper half of a 64-bit a shifted, plus b."""
    result, outs, rest, carries = _split(places)
    n = warp.word(rest[-1])
    a, b = warp.word(rest[0]), warp.addend(rest[1])
    carry = warp.predicate(carries[0]) if "X" in kinds else np.zeros(32, np.bool_)
    if "HI" in kinds:
        if "SX32" in kinds:
            upper = None if a is None else np.where(a >> 31, MASK, 0)
        else:
            upper = warp.word(rest[2])
        if not _known(a, b, n, carry, upper):
            return [(result.text, None), *((o.text, None) for o in outs)]
        shifted = ((upper << n) | (a >> (32 - n))) & MASK
    else:
        if not _known(a, b, n, carry):
            return [(result.text, None), *((o.text, None) for o in outs)]
        shifted = (a << n) & MASK
    total = shifted + b + carry
    return [(result.text, total & MASK), *((o.text, total >> 32 > k) for k, o in enumerate(outs))]


def _funnel_shift(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    low, n, high = (warp.word(p) for p in places[1:4])
    if not _known(low, n, high):
        # The half that is shifted out entirely does not matter.
        if "HI" in kinds and "R" in kinds and _known(n, high):
            low = np.zeros(32, np.int64)
        elif "L" in kinds and "HI" not in kinds and _known(low, n):
            high = np.zeros(32, np.int64)
        else:
            return [(places[0].text, None)]
    both = wide(low, high)
    n = np.minimum(n, 63)
    if "L" in kinds:
        both = both << n
    elif "S32" in kinds or "S64" in kinds:
        both = both >> n
    else:
        both = (both.astype(np.uint64) >> n.astype(np.uint64)).astype(np.int64)
    return [(places[0].text, (both >> 32 if "HI" in kinds else both) & MASK)]


def _lookup(table: int, values: Sequence[np.ndarray], ones: int) -> np.ndarray:
    """The bitwise function of three inputs whose truth table is `table`."""
    result = np.zeros(32, np.int64)
    for row in range(8):
        if table >> row & 1:
            a, b, c = (v if row >> bit & 1 else ones - v for v, bit in zip(values, (2, 1, 0), strict=True))
            result |= a & b & c
    return result


def _logic(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    result, outs, rest, _ = _split(places)
    values = [warp.word(p) for p in rest[:3]]
    if not _known(*values):
        return [(result.text, None), *((o.text, None) for o in outs)]
    bits = _lookup(int(rest[3].text, 16), values, MASK)
    return [(result.text, bits), *((o.text, bits != 0) for o in outs[:1])]


def _predicate_logic(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    predicates = [p for p in places if p.is_predicate]
    tables = [int(p.text, 16) for p in places if not p.is_predicate]
    values = [warp.predicate(p) for p in predicates[2:5]]
    results: Results = []
    for place, table in zip(predicates[:2], tables, strict=True):
        if table in (0x00, 0xFF):
            results.append((place.text, np.full(32, table == 0xFF)))
        elif not _known(*values):
            results.append((place.text, None))
        else:
            numbers = [v.astype(np.int64) for v in values]
            results.append((place.text, _lookup(table, numbers, 1) != 0))
    return results


COMPARE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal, "NE": np.not_equal,
}  # fmt: skip


def _compare(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """ISETP: compare, combine with a predicate; EX: the upper half, after the lower one's result."""
    outs, (a, b), ins = places[:2], places[2:4], places[4:]
    x, y = warp.word(a), warp.word(b)
    if not _known(x, y):
        return [(o.text, None) for o in outs]
    if "U32" not in kinds:
        x, y = signed(x), signed(y)
    found = COMPARE[kinds[0]](x, y)
    if "EX" in kinds:
        lower = warp.predicate(ins[1])
        if lower is None:
            return [(o.text, None) for o in outs]
        strict = {"LE": "LT", "GE": "GT"}.get(kinds[0], kinds[0])
        if strict == "EQ":
            found = found & lower
        else:
            found = COMPARE[strict](x, y) | (x == y) & lower
    other = warp.predicate(ins[0])
    results: Results = []
    for place, own in zip(outs, (found, ~found), strict=True):
        if "OR" in kinds:
            value = None if other is None else own | other
        elif "XOR" in kinds:
            value = None if other is None else own ^ other
        else:
            value = (None if own.any() else own) if other is None else own & other
        results.append((place.text, value))
    return results


def _select(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    a, b, which = warp.word(places[1]), warp.word(places[2]), warp.predicate(places[3])
    if which is not None and which.all():
        return [(places[0].text, a)]
    if which is not None and not which.any():
        return [(places[0].text, b)]
    return [(places[0].text, np.where(which, a, b) if _known(a, b, which) else None)]


def _permute(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """PRMT: four bytes out of eight, a selector's bit 3 asks for the sign instead."""
    a, selector, b = (warp.word(p) for p in places[1:4])
    if kinds or not _known(a, selector, b):
        return [(places[0].text, None)]
    both = wide(a, b).astype(np.uint64)
    total = np.zeros(32, np.int64)
    for n in range(4):
        choice = selector >> 4 * n & 0xF
        byte = (both >> (8 * (choice & 7)).astype(np.uint64)).astype(np.int64) & 0xFF
        total |= np.where(choice & 8, np.where(byte & 0x80, 0xFF, 0), byte) << 8 * n
    return [(places[0].text, total)]


def _smaller_or_larger(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """IMNMX, VIMNMX, and with a sum before it VIADDMNMX: the predicate asks for the smaller one."""
    result, _, rest, ins = _split(places)
    values = [warp.word(p) for p in rest]
    smaller = warp.predicate(ins[0]) if ins else None
    if not _known(smaller, *values):
        return [(result.text, None)]
    if len(values) == 3:
        values = [(values[0] + values[1]) & MASK, values[2]]
    if "U32" not in kinds:
        values = [signed(v) for v in values]
    a, b = values
    chosen = np.where(smaller, np.minimum(a, b), np.maximum(a, b))
    return [(result.text, chosen & MASK)]


def _one(function: Callable[[Warp, Sequence[str], np.ndarray], np.ndarray]) -> Rule:
    """The rule of an instruction with one operand."""

    def rule(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
        value = warp.word(places[1])
        return [(places[0].text, None if value is None else function(warp, kinds, value) & MASK)]

    return rule


def _move(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    if "64" not in kinds:
        return [(places[0].text, warp.word(places[1]))]
    both = warp.pair(places[1])
    low, high = (None, None) if both is None else (both & MASK, both >> 32 & MASK)
    return [(places[0].text, low), (neighbour(places[0].text), high)]


def _half_constants(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """HFMA2: compilers also write it as 0 * 0 plus two constants, to set a register. Real products are not known."""
    try:
        halves = [float(place.sign.replace("~", "") + place.text) for place in places[3:5]]
    except ValueError:
        halves = []
    if len(halves) < 2 or [place.text for place in places[1:3]] != ["RZ", "RZ"]:
        return [(places[0].text, None)]
    high, low = (int(bits) for bits in np.array(halves, np.float16).view(np.uint16))
    return [(places[0].text, np.full(32, high << 16 | low))]


def _special(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    return [(places[0].text, warp.special.get(places[1].text))]


def _clear_pair(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """CS2R: mostly the way to set two registers to zero; clocks are not known."""
    zero = np.zeros(32, np.int64) if places[1].text == "SRZ" else None
    return [(places[0].text, zero)] + ([] if "32" in kinds else [(neighbour(places[0].text), zero)])


def _extend(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """SGXT: the sign of the lowest n bits, or zeros, above them."""
    value, n = warp.word(places[1]), warp.word(places[2])
    if not _known(value, n):
        return [(places[0].text, None)]
    low = value & ((1 << n) - 1)
    if "U32" not in kinds:
        low = np.where(low >> (n - 1) & 1, low - (1 << n), low)
    return [(places[0].text, low & MASK)]


def _float_bits(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32).view(np.uint32).astype(np.int64)


def _as_float(value: np.ndarray) -> np.ndarray:
    return value.astype(np.uint32).view(np.float32)


def _to_float(warp: Warp, kinds: Sequence[str], value: np.ndarray) -> np.ndarray:
    """I2F.RP, rounding up: the start of an integer division."""
    exact = (value if "U32" in kinds else signed(value)).astype(np.float64)
    near = exact.astype(np.float32)
    return _float_bits(np.where(near.astype(np.float64) < exact, np.nextafter(near, np.float32(np.inf)), near))


@np.errstate(divide="ignore", over="ignore")  # of 0, as in a lane that does not take part
def _reciprocal(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    value = warp.word(places[1]) if "RCP" in kinds else None
    return [(places[0].text, None if value is None else _float_bits(1 / _as_float(value)))]


def _to_integer(warp: Warp, kinds: Sequence[str], value: np.ndarray) -> np.ndarray:
    return np.nan_to_num(_as_float(value).astype(np.float64)).clip(0, MASK).astype(np.int64)


def _pack_predicates(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """P2R: predicates as bits of a byte of a register."""
    old, wanted = warp.word(places[2]), warp.word(places[3])
    shift = 8 * int(kinds[0][1]) if kinds else 0
    if not _known(old, wanted):
        return [(places[0].text, None)]
    total = old & ~(wanted << shift)
    for n in range(7):
        if wanted[0] >> n & 1:
            value = warp.registers.get(f"P{n}")
            if value is None:
                return [(places[0].text, None)]
            total = total | value.astype(np.int64) << (shift + n)
    return [(places[0].text, total & MASK)]


def _unpack_predicates(warp: Warp, kinds: Sequence[str], places: Sequence[Operand]) -> Results:
    """R2P: the reverse."""
    value, wanted = warp.word(places[1]), warp.word(places[2])
    shift = 8 * int(kinds[0][1]) if kinds else 0
    if wanted is None:
        return []
    return [(f"P{n}", None if value is None else (value >> shift + n & 1) != 0) for n in range(7) if wanted[0] >> n & 1]


# By name; those that begin with U, of a whole warp, are the same.
ARITHMETIC: dict[str, Rule] = {
    "IADD3": _add, "VIADD": _add, "IADD": _add, "IMAD": _multiply_add, "LEA": _shift_add, "SHF": _funnel_shift,
    "LOP3": _logic, "PLOP3": _predicate_logic, "ISETP": _compare, "SEL": _select, "PRMT": _permute,
    "IMNMX": _smaller_or_larger, "VIMNMX": _smaller_or_larger, "VIADDMNMX": _smaller_or_larger,
    "IABS": _one(lambda warp, kinds, value: np.abs(signed(value))), "SGXT": _extend,
    "MOV": _move, "LDC": _move, "LDCU": _move, "R2UR": _move, "S2R": _special, "S2UR": _special, "CS2R": _clear_pair,
    "HFMA2": _half_constants, "I2F": _one(_to_float), "MUFU": _reciprocal, "F2I": _one(_to_integer),
    "P2R": _pack_predicates, "R2P": _unpack_predicates,
}  # fmt: skip

STORES = {"STG", "STS", "STSM", "STL", "ST", "RED", "BAR", "LDGSTS", "LDGDEPBAR", "DEPBAR", "EXIT", "NOP"}


def execute(warp: Warp, i: Instruction) -> None:
    """One instruction that is no branch."""
    lanes = warp.guard(i)
    places = operands(i.operands)
    whole_warp = i.name.startswith("U") and i.name[1:] in ARITHMETIC
    rule = ARITHMETIC.get(i.name[1:] if whole_warp else i.name)
    if rule is None:
        _forget(warp, i, places, lanes)
        return
    for register, value in rule(warp, i.op.split(".")[1:], places):
        warp.write(register, value, lanes)


def _forget(warp: Warp, i: Instruction, places: Sequence[Operand], lanes: Value) -> None:
    """An instruction whose result is not known: a load, floating point, an exchange between lanes."""
    if not places or i.name in STORES:
        return
    for place in places[:2]:
        if place.is_predicate:
            warp.write(place.text, None, lanes)
    for place in places[:2]:  # the second where predicates come first
        if place.is_register:
            for n in range(_registers_written(i.op)):
                warp.write(neighbour(place.text, n), None, lanes)
            break


def _registers_written(op: str) -> int:
    if op.startswith("HMMA"):
        return 4 if "F32" in op else 2
    if op.startswith("LDSM"):
        return int(op[-1]) if op[-1] in "24" else 1
    return 4 if ".128" in op else 2 if ".64" in op or ".WIDE" in op else 1
