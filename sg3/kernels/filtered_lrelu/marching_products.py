"""The four products of a marching program, in a warp's registers from the pixels' load to the outputs' store.

Thread 4 i + c of a warp has of a product's result [16, 16] rows i and i + 8, columns 2 c, 2 c + 1, 2 c + 8, 2 c + 9.
The same is what it must bring of the next product's left operand, and, rows and columns exchanged, of a right one. So
with

    W[m, a] = up_x[m, k] X[a, k]^T        [sample columns, pixel rows]
    V[m, h] = W[m, a] up_y[h, a]^T        [sample columns, sample rows]
    N[j, m] = down_y[j, h] V[m, h]^T      [output rows, sample columns]
    Y[j, q] = N[j, m] down_x[q, m]^T      [output rows, output columns]

every result goes into the next product as it is. Pixels are loaded, and outputs stored, in eights of columns, where a
thread has two neighbours of a row; two such pieces side by side are an operand. All that stands here is written so that
Triton finds this out: `tests/kernels/test_marching_layouts.py` looks into what it compiles for shared memory.

Operands are tuples of parts, whose sum is meant; blocks of matrices are tuples of operands, those of one term after
those of another, of which block number d stands at d - NUMBERS[0] (`marching_plan.py`); NUMBERS are its first number
and the one after its last.
"""

# ruff: noqa: RUF005  (Triton's language does not unpack tuples)

from __future__ import annotations

import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.signs import INTERPRETED


@triton.jit
def inside(i, size):
    """0 <= i < size, in one comparison: a negative number is a large one without a sign."""
    return i.to(tl.uint32, bitcast=True) < size.to(tl.uint32, bitcast=True)


@triton.jit
def transposed(a, ROWS: tl.constexpr):
    """[ROWS, 16] -> [16, ROWS]. As three axes: a plain transpose Triton would send through shared memory."""
    return tl.reshape(tl.permute(tl.reshape(a, [ROWS, 2, 8]), (1, 2, 0)), [16, ROWS])


@triton.jit
def parts(a, TYPE: tl.constexpr, PARTS: tl.constexpr):
    """An operand: the numbers in TYPE, and, if PARTS is 2, what that leaves of them."""
    if PARTS == 1:
        return (a.to(TYPE),)
    else:
        high = a.to(TYPE)
        return (high, (a - high.to(tl.float32)).to(TYPE))


MOVE = tl.constexpr("mov.b32 $0, $1;")


@triton.jit
def unseen(a):
    """The same numbers, of which Triton cannot see where they come from.

    By that it chooses how many neighbours a thread brings of an operand: of pixels, which were joined, twice as many as
    it has. Then they are shuffled, and so is the matrix, of which a program then holds two copies.
    """
    if INTERPRETED:
        return a
    else:  # a register holds one number of 32 bits or two of 16
        return tl.inline_asm_elementwise(MOVE, "=r,r", [a], dtype=a.dtype, is_pure=False,
                                         pack=32 // a.dtype.primitive_bitwidth)  # fmt: skip


@triton.jit
def product(a, b, total, PARTS: tl.constexpr):
    """total + a b of operands, without the product of two low parts."""
    for i in tl.static_range(PARTS):
        for j in tl.static_range(PARTS - i):
            total = tl.dot(a[i], b[j], total, input_precision="ieee")
    return total


@triton.jit
def load_blocks(p, NUMBERS: tl.constexpr, TERMS: tl.constexpr, ROWS: tl.constexpr, TRANSPOSED: tl.constexpr,
                TYPE: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """All blocks of a matrix, as left operands [ROWS, 16] or, transposed, as right ones [16, ROWS].

    In memory, the four numbers that a thread needs of a row stand together. (The offsets are written so that Triton
    sees four neighbours, and no more, and has every thread load its own.)
    """
    column = tl.arange(0, 16)
    offsets = tl.arange(0, ROWS)[:, None] * 16 + (column // 4 * 4 + column % 4)[None, :]
    blocks = ()
    for i in tl.static_range(TERMS * (NUMBERS[1] - NUMBERS[0])):
        operand = ()
        for j in tl.static_range(PARTS):
            block = tl.load(p + (i * PARTS + j) * ROWS * 16 + offsets).to(TYPE)
            block = tl.reshape(tl.permute(tl.reshape(block, [ROWS, 4, 2, 2]), (0, 2, 1, 3)), [ROWS, 16])
            if TRANSPOSED:
                block = transposed(block, ROWS)
            operand = operand + (block,)
        blocks = blocks + (operand,)
    return blocks


@triton.jit
def load_pixels(x_ptrs, row, column, height, width, x_h, x_w, nothing, PIECES: tl.constexpr, BLOCKS: tl.constexpr):
    """BLOCKS times PIECES of pixels [16 rows, 8 columns] from (row, column) on; `nothing` beyond the image."""
    pixels = ()
    for a in tl.static_range(BLOCKS):
        rows = inside(row + 16 * a + tl.arange(0, 16), height)
        for k in tl.static_range(PIECES):
            columns = column + 8 * k + tl.arange(0, 8)
            mask = rows[:, None] & ((columns >= 0) & (columns < width))[None, :]
            pixels = pixels + (tl.load(x_ptrs + 16 * a * x_h + 8 * k * x_w, mask=mask, other=nothing),)
    return pixels


@triton.jit
def upsample_columns(
    pixels, bias, scale, up_x, A: tl.constexpr, UP: tl.constexpr, NUMBERS: tl.constexpr, TERMS: tl.constexpr,
    COLUMNS: tl.constexpr, PIECES: tl.constexpr, TYPE: tl.constexpr, PARTS: tl.constexpr, VALUE: tl.constexpr,
):  # fmt: skip
    """Block A of pixel rows -> W, a tuple over sample columns m of tuples over terms."""
    operands = ()
    for k in tl.static_range((PIECES + 1) // 2):
        left = pixels[A * PIECES + 2 * k].to(VALUE) + bias
        right = tl.zeros([16, 8], VALUE)
        if 2 * k + 1 < PIECES:
            right = pixels[A * PIECES + 2 * k + 1].to(VALUE) + bias
        both = tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), [16, 16])
        if PARTS == 2:
            both = unseen(both * scale)
        operands = operands + (parts(transposed(both, 16), TYPE, PARTS),)
    wide = ()
    for m in tl.static_range(COLUMNS):
        of_terms = ()
        for t in tl.static_range(TERMS):
            w = tl.zeros([16, 16], tl.float32)
            for k in tl.static_range((PIECES + 1) // 2):
                if m - UP * k >= NUMBERS[0] and m - UP * k < NUMBERS[1]:
                    w = product(up_x[t * (NUMBERS[1] - NUMBERS[0]) + m - UP * k - NUMBERS[0]], operands[k], w, PARTS)
            of_terms = of_terms + (parts(w, TYPE, PARTS),)
        wide = wide + (of_terms,)
    return wide


@triton.jit
def upsample_rows(
    carried, wide, up_y, M: tl.constexpr, H: tl.constexpr, UP: tl.constexpr, NUMBERS: tl.constexpr,
    TERMS: tl.constexpr, BLOCKS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """V[M, H] of a strip whose pixel rows are, as block 0, what the strip before left, and BLOCKS of its own."""
    v = tl.zeros([16, 16], tl.float32)
    for t in tl.static_range(TERMS):
        for a in tl.static_range(BLOCKS + 1):
            if H - UP * a >= NUMBERS[0] and H - UP * a < NUMBERS[1]:
                block = up_y[t * (NUMBERS[1] - NUMBERS[0]) + H - UP * a - NUMBERS[0]]
                if a == 0:
                    v = product(carried[M][t], block, v, PARTS)
                else:
                    v = product(wide[a - 1][M][t], block, v, PARTS)
    return v


@triton.jit
def downsample_rows(
    begun, samples, down_y, M: tl.constexpr, DOWN: tl.constexpr, NUMBERS: tl.constexpr, TERMS: tl.constexpr,
    BLOCKS: tl.constexpr, HALVES: tl.constexpr, TYPE: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Column M of `samples` -> BLOCKS blocks of N that are finished, for each term, and for each the one begun.

    The strip's own output rows are blocks 0 to BLOCKS - 1, of which the last is left to the next strip; block -1 is
    what the strip before left, `begun`, a tuple over terms.
    """
    operands = ()
    for h in tl.static_range(HALVES):
        operands = operands + (parts(transposed(samples[M * HALVES + h], 16), TYPE, PARTS),)
    finished = ()
    left = ()
    for t in tl.static_range(TERMS):
        for j in tl.static_range(-1, BLOCKS):
            n = tl.zeros([16, 16], tl.float32)
            if j == -1:
                n = begun[t]
            for h in tl.static_range(HALVES):
                if h - DOWN * j >= NUMBERS[0] and h - DOWN * j < NUMBERS[1]:
                    block = down_y[t * (NUMBERS[1] - NUMBERS[0]) + h - DOWN * j - NUMBERS[0]]
                    n = product(block, operands[h], n, PARTS)
            if j == BLOCKS - 1:
                left = left + (n,)
            else:
                finished = finished + (parts(n, TYPE, PARTS),)
    return finished, left


@triton.jit
def downsample_columns(
    finished, down_x, J: tl.constexpr, Q: tl.constexpr, DOWN: tl.constexpr, NUMBERS: tl.constexpr, TERMS: tl.constexpr,
    BLOCKS: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Y[J, Q], [16 rows, 8 columns]; `finished` is a tuple over sample columns of what downsample_rows returns."""
    y = tl.zeros([16, 8], tl.float32)
    for m in tl.static_range(COLUMNS):
        for t in tl.static_range(TERMS):
            if 2 * m - DOWN * Q >= NUMBERS[0] and 2 * m - DOWN * Q < NUMBERS[1]:
                block = down_x[t * (NUMBERS[1] - NUMBERS[0]) + 2 * m - DOWN * Q - NUMBERS[0]]
                y = product(finished[m][t * BLOCKS + J], block, y, PARTS)
    return y
