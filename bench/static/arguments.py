"""A launch's arguments as the kernel finds them: in constant bank 0, behind what the driver puts there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from bench.static.registers import LANES, MASK, Warp
from sg3.kernels.triton_aot import Launch

FIRST = {80: 0x160, 90: 0x210, 100: 0x380}  # offset of the first argument, by the architecture and those after it
SIZES = {"i1": 1, "u1": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "i32": 4, "u32": 4, "fp32": 4, "i64": 8, "u64": 8,
         "fp64": 8}  # fmt: skip
APART = 1 << 36  # bytes between the tensors' made-up addresses


def constants(launch: Launch, kernel: Any, arch: int) -> dict[int, int]:
    """Words of constant bank 0 by offset: the size of a program and of the grid, and all arguments that are integers or
    pointers."""
    grid = (*launch.grid, 1, 1)[:3]
    bank = {0x0: 32 * kernel.metadata.num_warps, 0x4: 1, 0x8: 1, 0xC: grid[0], 0x10: grid[1], 0x14: grid[2]}
    values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False)) | launch.options
    offset = FIRST[max(first for first in FIRST if first <= arch)]
    tensors = 0
    for name, kind in kernel.src.signature.items():
        if kind == "constexpr":
            continue
        size = 8 if kind.startswith("*") else SIZES[kind]
        offset = -(-offset // size) * size
        value = values[name]
        if isinstance(value, torch.Tensor):
            tensors += 1
            value = tensors * APART
        if isinstance(value, int):
            whole = (value & (1 << 8 * size) - 1) << 8 * (offset % 4)
            for place in range(offset // 4 * 4, offset + size, 4):
                bank[place] = bank.get(place, 0) | whole & MASK
                whole >>= 32
        offset += size
    return bank


def warp_of(bank: Mapping[int, int], number: int, program: tuple[int, int, int]) -> Warp:
    """Warp `number` of a program, before its first instruction."""
    special = {f"SR_CTAID.{axis}": np.full(32, p) for axis, p in zip("XYZ", program, strict=True)}
    special |= {"SR_TID.X": 32 * number + LANES, "SR_TID.Y": 0 * LANES, "SR_TID.Z": 0 * LANES, "SR_LANEID": LANES}
    special["SR_CgaCtaId"] = 0 * LANES  # a cluster of one program
    return Warp(bank, special)
