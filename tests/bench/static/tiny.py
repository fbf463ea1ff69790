"""A small kernel's machine code, for tests of what reads it.

The listings are what `nvdisasm -hex -c` of Triton 3.9 prints for this kernel with 2 warps:

    @triton.jit
    def tiny(x_ptr, y_ptr, n, width):
        i = tl.program_id(0) * 64 + tl.arange(0, 64)
        total = tl.zeros([64], tl.float32)
        for row in range(n):
            total += tl.load(x_ptr + row * width + i, mask=i < width, other=0.0)
        if tl.max(total, 0) > 100.0:  # data decides
            for k in tl.static_range(2):
                total += tl.exp(total) * tl.sqrt(total + k)
        tl.store(y_ptr + i // 3 * 4, total, mask=i < width)

The compiler has unrolled its loop by four, with rests of two and one.
"""

from __future__ import annotations

from pathlib import Path

from bench.static.arguments import FIRST, warp_of
from bench.static.registers import Warp
from bench.static.sass import Instruction, parse

X, Y = 1 << 36, 2 << 36  # addresses of the tensors


def listing(arch: int) -> str:
    return Path(__file__).with_name(f"tiny_sm{arch}.sass").read_text()


def code(arch: int) -> list[Instruction]:
    return parse(listing(arch))


def warp(arch: int, number: int, program: int, n: int, width: int) -> Warp:
    """One of the kernel's warps before its first instruction."""
    words = 0, X >> 32, 0, Y >> 32, n, width
    bank = {FIRST[arch] + 4 * place: word for place, word in enumerate(words)}
    return warp_of(bank, number, (program, 0, 0))
