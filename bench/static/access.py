"""What a warp's access to memory asks of the memory unit: rounds through the banks of shared memory, cache lines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.static.registers import Warp, operands
from bench.static.sass import Instruction

SHARED = {"LDS", "STS", "LDSM", "STSM"}
GLOBAL = {"LDG", "STG", "LDGSTS"}
LINE = 128  # bytes of a cache line, and of one round through the 32 banks of 4 bytes


@dataclass(frozen=True)
class Access:
    """`rounds`: of the memory unit, at least; `ideal`: what they would be without bank conflicts and with lanes side by
    side. Both are 0 where no lane takes part. `known`: whether the addresses are."""

    rounds: int
    ideal: int
    known: bool = True


def width(op: str) -> int:
    """Bytes of a lane."""
    kinds = op.split(".")
    for name, size in (("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1)):
        if name in kinds:
            return size
    return 4


def access(i: Instruction, warp: Warp) -> Access | None:
    """None for instructions that touch no memory."""
    if i.name not in SHARED and i.name not in GLOBAL:
        return None
    matrices = int(i.op[-1]) if i.name in ("LDSM", "STSM") and i.op[-1] in "24" else 1
    ideal = matrices if i.name in ("LDSM", "STSM") else max(width(i.op) * 32 // LINE, 1)
    places = [p for p in operands(i.operands) if "[" in p.text]
    lanes = warp.guard(i)
    for place in operands(i.operands):
        if i.name == "LDGSTS" and place.is_predicate and lanes is not None:
            copied = warp.predicate(place)
            lanes = None if copied is None else lanes & copied
    if lanes is not None and not lanes.any():
        return Access(0, 0)
    addresses = warp.address(places[-1])  # of a copy the second one, in global memory
    if addresses is None:
        return Access(ideal, ideal, known=False)
    lanes = warp.active if lanes is None else lanes
    if i.name in GLOBAL:
        size = width(i.op)
        first, last = addresses[lanes] // LINE, (addresses[lanes] + size - 1) // LINE
        return Access(max(ideal, len(np.union1d(first, last))), ideal)
    if i.name in ("LDSM", "STSM"):  # eight lanes name the rows of one matrix, 16 bytes each
        groups = [addresses[8 * m : 8 * m + 8] for m in range(matrices)]
        return Access(sum(_bank_rounds(g, 16) for g in groups), ideal)
    size = width(i.op)
    parts = max(size // 4, 1)  # 8 and 16 bytes: half and quarter warps
    together = np.split(np.arange(32), parts)
    total = sum(_bank_rounds(addresses[g][lanes[g]], size) for g in together if lanes[g].any())
    return Access(total, ideal)


def _bank_rounds(addresses: np.ndarray, size: int) -> int:
    """How often the busiest bank must be read: one round serves one word of every bank, to any number of lanes."""
    words = np.unique((addresses[:, None] // 4 + np.arange(max(size // 4, 1))).ravel())
    return int(np.bincount(words % 32).max())
