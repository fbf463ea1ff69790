"""The signs that marching programs keep: as bits, one for the slope and one for the clamp, and as factors again.

A block of samples is a tensor [16, 16]. In `marching.py` its rows are sample columns, in the order of
`marching_plan.PAIRS`, and its columns sample rows. As the result of a matrix product, thread 4 i + c of a warp holds
its rows i and i + 8, columns 2 c, 2 c + 1, 2 c + 8, 2 c + 9. Two blocks below one another, 32 sample rows, are 16
samples a thread and they share a word of 16 bits: of a pair of blocks there are [8, 4] words [i, c], and

    bit 8 e + 4 h + 2 k + r   is of row i + 8 r, column 2 c + 8 k + e, block h

so that the two bytes of a word can be made, and used, as the halves of one register: neighbours e = 0 and 1.
Nothing but speed depends on who holds what: all of this is elementwise operations and reshapes.

A plane of signs is a line for every 32 sample rows:

    slope    4 words for each pair of sample columns: 1 where a sample was not positive
    clamp    4 words for each pair: 1 where its magnitude was beyond the clamp; only written where the flag is 1
    flags    1 word for each four columns: whether any of their samples may be beyond the clamp

In `symmetric.py` a block's rows are sample rows and its columns sample columns, both in the order of
`symmetric_plan.QUADS`, so that a word is of four neighbouring columns and has 8 words [i] for each four of columns
where a line above has 4 words [c] for each pair: as many in all.

Triton has no name for the instructions that compare, or make factors of, both halves of a register at once. They are
written in PTX here; each has a substitute for the interpreter, which has no assembler, and tests compare the two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sg3.kernels.triton_launch import INTERPRETING

INTERPRETED = tl.constexpr(INTERPRETING)

# $0: the result; $1, then from $2 on two registers for each argument of 32 bits, one for either half.
NOT_POSITIVE = tl.constexpr("{ .reg .b32 zero; mov.b32 zero, 0; set.le.f16x2.f16x2 $0, $1, zero; }")
# Not all GPUs compare bfloat16. So: minus the smallest number there is, negative zero and zero are negative, too.
NOT_POSITIVE_BFLOAT16 = tl.constexpr(
    "{ .reg .b32 t, one, least; mov.b32 one, 0x3F803F80; mov.b32 least, 0x80018001;"
    " fma.rn.bf16x2 t, $1, one, least; shr.u32 t, t, 15; and.b32 t, t, 0x00010001; mul.lo.u32 $0, t, 0x3C00; }"
)
FACTORS = tl.constexpr(
    "{ .reg .b32 t; not.b32 t, $1; shr.u32 t, t, $2; and.b32 t, t, 0x00010001; mad.lo.u32 $0, t, $4, $6; }"
)


@triton.jit
def _over_block(bits):
    """[2 r, 1, 2 k, 1, 1] -> [16, 16]: what depends on where in its byte a sample's bit lies."""
    return tl.reshape(tl.broadcast_to(bits, (2, 8, 2, 4, 2)), [16, 16])


@triton.jit
def _position():
    """[16, 16] int32: 2 k + r."""
    return _over_block(tl.arange(0, 2)[:, None, None, None, None] + 2 * tl.arange(0, 2)[None, None, :, None, None])


@triton.jit
def not_positive(v, TYPE: tl.constexpr):
    """float16 or bfloat16 (in the interpreter float32) -> float16: 1 where v <= 0, 0 where v > 0."""
    if INTERPRETED:
        return tl.where(v <= 0, 1.0, 0.0).to(tl.float16)
    elif TYPE == tl.bfloat16:  # noqa: SIM300
        return tl.inline_asm_elementwise(NOT_POSITIVE_BFLOAT16, "=r,r", [v], dtype=tl.float16, is_pure=True, pack=2)
    else:
        return tl.inline_asm_elementwise(NOT_POSITIVE, "=r,r", [v], dtype=tl.float16, is_pure=True, pack=2)


@triton.jit
def word_of_flags(upper, lower):
    """Two float16 tensors [16, 16] of 0 and 1, one for each block -> int16 [8, 4].

    Sums of the bits' values are exact in float16 up to 2048; on 1024 they are the low bits of the mantissa.
    """
    value = (1 << _position()).to(tl.float16)
    total = upper * value + lower * (value * 16)
    total = tl.sum(tl.sum(tl.reshape(total, [2, 8, 2, 4, 2]), axis=0), axis=1)  # [8, 4, 2]
    first, second = tl.split((total + 1024).to(tl.float16).to(tl.int16, bitcast=True))
    return (first & 255) | (second << 8)


@triton.jit
def word_of_bits(upper, lower):
    """Two boolean tensors [16, 16], one for each block -> int16 [8, 4]."""
    value = 1 << _position()
    total = tl.where(upper, value, 0) + tl.where(lower, value * 16, 0)
    total = tl.sum(tl.sum(tl.reshape(total, [2, 8, 2, 4, 2]), axis=0), axis=1)  # [8, 4, 2]
    first, second = tl.split(total)
    return (first | (second << 8)).to(tl.int16)


@triton.jit
def word_of_signs(upper, lower, TYPE: tl.constexpr):
    """Of the samples of two blocks, [16, 16] of TYPE -> int16 [8, 4]: set where they are not positive."""
    if TYPE == tl.float32 and not INTERPRETED:  # noqa: SIM300
        return word_of_bits(upper <= 0, lower <= 0)
    else:
        return word_of_flags(not_positive(upper, TYPE), not_positive(lower, TYPE))


@triton.jit
def bytes_of_word(word):
    """int16 [8, 4] -> int16 [16, 16]: for each sample of a block its byte."""
    both = tl.join(word & 255, (word >> 8) & 255)  # [8, 4, 2]
    return tl.reshape(tl.broadcast_to(both[None, :, None, :, :], (2, 8, 2, 4, 2)), [16, 16])


@triton.jit
def bits_of_bytes(field, LOWER: tl.constexpr):
    """Whether the samples' bits are set, of the upper or the lower block, [16, 16]."""
    return ((field.to(tl.int32) >> (_position() + 4 * LOWER)) & 1) != 0


@triton.jit
def factors_of_bytes(field, above, below, LOWER: tl.constexpr, TYPE: tl.constexpr):
    """`below` where a sample's bit is set, else `above`, [16, 16] of TYPE, neither negative.

    The factors' own bits grow with their value, so the one is the other plus a whole number times the bit. That both
    halves of a register are shifted alike is right because they are of e = 0 and 1 (of any pair in the last axis).
    """
    if INTERPRETED or TYPE == tl.float32:  # noqa: SIM300
        return tl.where(bits_of_bytes(field, LOWER), below, above).to(TYPE)
    else:
        low = tl.cast(below, TYPE).to(tl.int16, bitcast=True).to(tl.int32)
        more = tl.cast(above, TYPE).to(tl.int16, bitcast=True).to(tl.int32) - low
        factors = tl.inline_asm_elementwise(
            FACTORS, "=r,r,r,r,r,r,r,r", [field, _position() + 4 * LOWER, more, low * 0x10001], dtype=tl.int16,
            is_pure=True, pack=2,
        )  # fmt: skip
        return factors.to(TYPE, bitcast=True)
