"""The products of a marching program for symmetric filters: one matrix for both axes, always on the left.

Thread 4 i + c of a warp holds of a product's result [16, 16] rows i and i + 8, columns 2 c, 2 c + 1, 2 c + 8, 2 c + 9.
The same, rows and columns exchanged, it must bring of the next product's right operand. So in

    W[m, a] = up[m, k] X[a, k]^T          [sample columns, pixel rows]
    V[h, m] = up[h, a] W[m, a]^T          [sample rows, sample columns]
    N[j, h] = down[j, m] V[h, m]^T        [output columns, sample rows]
    Y[i, j] = down[i, h] N[j, h]^T        [output rows, output columns]

every result goes into the next product as it is, and what is up and down along x is so along y. Pixels are loaded, and
outputs stored, in eights of columns, where a thread has two neighbours of a row. All that stands here is written so
that Triton finds this out: `tests/kernels/test_marching_layouts.py` looks into what it compiles for shared memory.

Operands are tuples of parts, whose sum is meant. A matrix is a tuple of blocks, operands, those of one term after those
of another, of which block number d stands at d - NUMBERS[0] (`symmetric_plan.py`); NUMBERS are its first number and the
one after its last, PARTS the number of parts in each term; NEGATIVE terms are subtracted.

A matrix that is not HELD in registers is read for every line of signs, a term at a time, in a loop that is one when the
program runs, or the compiler would ask for all terms at once. Its first terms, `exact` of them, have two parts, the
others one. `negative` has a bit for each. Such an up filter has one block of pixel rows for a line of signs: it ends
one block of sample rows, makes the next, and begins a third, which the line after this one ends (`with_samples_of`).
"""

# ruff: noqa: RUF005  (Triton's language does not unpack tuples)

from __future__ import annotations

import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.marching_products import parts, product, transposed, unseen


@triton.jit
def load_terms(p, NUMBERS: tl.constexpr, PARTS: tl.constexpr, TYPE: tl.constexpr):
    """All blocks of a matrix.

    In memory, the four numbers that a thread needs of a row stand together. (The offsets are written so that Triton
    sees four neighbours, and no more, and has every thread load its own.)
    """
    column = tl.arange(0, 16)
    offsets = tl.arange(0, 16)[:, None] * 16 + (column // 4 * 4 + column % 4)[None, :]
    blocks = ()
    for t in tl.static_range(len(PARTS)):
        for i in tl.static_range(NUMBERS[1] - NUMBERS[0]):
            blocks = blocks + (load_operand(p + offsets, i, PARTS[t], TYPE),)
        p += 256 * PARTS[t] * (NUMBERS[1] - NUMBERS[0])
    return blocks


@triton.jit
def load_term(p, t, exact, NUMBERS: tl.constexpr, PARTS: tl.constexpr, TYPE: tl.constexpr):
    """All blocks of term t of a matrix that is not HELD, which has so many PARTS, as the first `exact` terms have two.

    In memory, the eight numbers of a block that a thread needs stand together, in the order of a product's registers:
    each block is one load, and nothing is moved before a product.
    """
    size: tl.constexpr = (NUMBERS[1] - NUMBERS[0]) * 256
    p += tl.minimum(t, exact) * (2 * size) + tl.maximum(t - exact, 0) * size
    blocks = ()
    for _ in tl.static_range(NUMBERS[1] - NUMBERS[0]):
        operand = ()
        for _ in tl.static_range(PARTS):
            block = tl.reshape(tl.load(p + tl.arange(0, 256)).to(TYPE), [8, 4, 2, 2, 2])
            operand = operand + (tl.reshape(tl.permute(block, (3, 0, 2, 1, 4)), [16, 16]),)
            p += 256
        blocks = blocks + (operand,)
    return blocks


@triton.jit
def load_operand(p, NUMBER: tl.constexpr, PARTS: tl.constexpr, TYPE: tl.constexpr):
    """Block NUMBER of those with so many PARTS. (In Triton 3.6 a tuple's element is constant only as an argument.)"""
    operand = ()
    for j in tl.static_range(PARTS):
        operand = operand + (load_block(p + (NUMBER * PARTS + j) * 256, TYPE),)
    return operand


@triton.jit
def load_block(p, TYPE: tl.constexpr):
    """Of 16 x 16 numbers, as they stand in memory, a left operand."""
    return tl.reshape(tl.permute(tl.reshape(tl.load(p).to(TYPE), [16, 4, 2, 2]), (0, 2, 1, 3)), [16, 16])


@triton.jit
def sign(negative, t):
    """-1.0 if bit t is set, else 1.0."""
    return 1.0 - 2.0 * ((negative >> t) & 1).to(tl.float32)


@triton.jit
def _right(a, NEGATIVE: tl.constexpr, TYPE: tl.constexpr, PARTS: tl.constexpr):
    """A product's result as the right operand of the next one."""
    if NEGATIVE:
        a = -a
    return parts(transposed(a, 16), TYPE, PARTS)


@triton.jit
def pixel_operands(pixels, scale, bias, PIECES: tl.constexpr, TYPE: tl.constexpr, PARTS: tl.constexpr,
                   VALUE: tl.constexpr, UNSEEN: tl.constexpr):  # fmt: skip
    """A block of pixel rows times `scale`, plus `bias` -> X^T, a tuple over blocks of 16 pixel columns."""
    operands = ()
    for k in tl.static_range((PIECES + 1) // 2):
        left = pixels[2 * k].to(VALUE) * scale + bias
        right = tl.zeros([16, 8], VALUE)
        if 2 * k + 1 < PIECES:
            right = pixels[2 * k + 1].to(VALUE) * scale + bias
        both = tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), [16, 16])
        if UNSEEN:
            both = unseen(both)
        operands = operands + (parts(transposed(both, 16), TYPE, PARTS),)
    return operands


@triton.jit
def upsampled_column(
    x, up, M: tl.constexpr, T: tl.constexpr, UP: tl.constexpr, NUMBERS: tl.constexpr, PARTS: tl.constexpr,
    NEGATIVE: tl.constexpr, PIECES: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """X of a block of pixel rows -> W^T of column M and term T."""
    w = tl.zeros([16, 16], tl.float32)
    for k in tl.static_range((PIECES + 1) // 2):
        if M - UP * k >= NUMBERS[0] and M - UP * k < NUMBERS[1]:
            w = product(up[T * (NUMBERS[1] - NUMBERS[0]) + M - UP * k - NUMBERS[0]], x[k], w, PARTS[T])
    return _right(w, NEGATIVE[T], TYPE, PARTS[T])


@triton.jit
def upsampled_columns(x, up, COLUMNS: tl.constexpr, UP: tl.constexpr, NUMBERS: tl.constexpr, PARTS: tl.constexpr,
                      NEGATIVE: tl.constexpr, PIECES: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """The same for all columns and terms, those of a column side by side."""
    wide = ()
    for m in tl.static_range(COLUMNS):
        for t in tl.static_range(len(PARTS)):
            wide = wide + (upsampled_column(x, up, m, t, UP, NUMBERS, PARTS, NEGATIVE, PIECES, TYPE),)
    return wide


@triton.jit
def samples_of_two(rows, up, M: tl.constexpr, H: tl.constexpr, KEPT: tl.constexpr, UP: tl.constexpr,
                   NUMBERS: tl.constexpr, PARTS: tl.constexpr, NEGATIVE: tl.constexpr, PIECES: tl.constexpr,
                   BLOCKS: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """V[H, M] and V[H + 1, M] of a strip with BLOCKS of pixel rows, the first of which the strip before had as its
    last. `rows` are, for each of them, its W if that is KEPT, or X, and W is made where it is used."""
    upper, lower = tl.zeros([16, 16], tl.float32), tl.zeros([16, 16], tl.float32)
    for t in tl.static_range(len(PARTS)):
        for a in tl.static_range(BLOCKS):
            if H + 1 - UP * a >= NUMBERS[0] and H - UP * a < NUMBERS[1]:
                if KEPT:
                    w = rows[a][M * len(PARTS) + t]
                else:
                    w = upsampled_column(rows[a], up, M, t, UP, NUMBERS, PARTS, NEGATIVE, PIECES, TYPE)
                if H - UP * a >= NUMBERS[0]:
                    block = up[t * (NUMBERS[1] - NUMBERS[0]) + H - UP * a - NUMBERS[0]]
                    upper = product(block, w, upper, PARTS[t])
                if H + 1 - UP * a < NUMBERS[1]:
                    block = up[t * (NUMBERS[1] - NUMBERS[0]) + H + 1 - UP * a - NUMBERS[0]]
                    lower = product(block, w, lower, PARTS[t])
    return upper, lower


@triton.jit
def sample_operands(samples, FIRST: tl.constexpr, COUNT: tl.constexpr, TYPE: tl.constexpr, PARTS: tl.constexpr):
    """COUNT blocks of samples from FIRST on -> V^T."""
    operands = ()
    for i in tl.static_range(FIRST, FIRST + COUNT):
        operands = operands + (parts(transposed(samples[i], 16), TYPE, PARTS),)
    return operands


@triton.jit
def zeros(COUNT: tl.constexpr):
    """COUNT blocks of sums of nothing."""
    sums = ()
    for _ in tl.static_range(COUNT):
        sums = sums + (tl.zeros([16, 16], tl.float32),)
    return sums


@triton.jit
def _downsampled(n, samples, down, M: tl.constexpr, J: tl.constexpr, T: tl.constexpr, DOWN: tl.constexpr,
                 NUMBERS: tl.constexpr, PARTS: tl.constexpr):  # fmt: skip
    """N[J] of a term and what column M adds to it."""
    number: tl.constexpr = M - DOWN * J
    if number >= NUMBERS[0] and number < NUMBERS[1]:
        n = product(down[T * (NUMBERS[1] - NUMBERS[0]) + number - NUMBERS[0]], samples, n, PARTS[T])
    return n


@triton.jit
def downsample_columns(sums, samples, down, M: tl.constexpr, DOWN: tl.constexpr, NUMBERS: tl.constexpr,
                       PARTS: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """N of two rows, of WIDTH blocks, of all terms, and what column M, two operands, adds to them."""
    result = ()
    for h in tl.static_range(2):
        for j in tl.static_range(WIDTH):
            for t in tl.static_range(len(PARTS)):
                n = sums[(h * WIDTH + j) * len(PARTS) + t]
                result = result + (_downsampled(n, samples[h], down, M, j, t, DOWN, NUMBERS, PARTS),)
    return result


@triton.jit
def downsample(outputs, sums, samples, down, H: tl.constexpr, COLUMNS: tl.constexpr, BY_COLUMN: tl.constexpr,
               DOWN: tl.constexpr, NUMBERS: tl.constexpr, PARTS: tl.constexpr, NEGATIVE: tl.constexpr,
               BLOCKS: tl.constexpr, WIDTH: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """`outputs` and what rows H and H + 1 of V add to them: `sums` are their N, if these were made BY_COLUMN, otherwise
    `samples` are their operands, the two of a column side by side.

    Outputs are BLOCKS times WIDTH blocks, first those that the strip before began, row -1, then the strip's own rows.
    """
    for h in tl.static_range(2):
        for j in tl.static_range(WIDTH):
            for t in tl.static_range(len(PARTS)):
                n = sums[(h * WIDTH + j) * len(PARTS) + t]
                if not BY_COLUMN:
                    for m in tl.static_range(COLUMNS):
                        n = _downsampled(n, samples[2 * m + h], down, m, j, t, DOWN, NUMBERS, PARTS)
                narrow = _right(n, NEGATIVE[t], TYPE, PARTS[t])
                added = ()
                for i in tl.static_range(BLOCKS):
                    for q in tl.static_range(WIDTH):
                        y = outputs[i * WIDTH + q]
                        if q == j and H + h - DOWN * (i - 1) >= NUMBERS[0] and H + h - DOWN * (i - 1) < NUMBERS[1]:
                            block = down[t * (NUMBERS[1] - NUMBERS[0]) + H + h - DOWN * (i - 1) - NUMBERS[0]]
                            y = product(block, narrow, y, PARTS[t])
                        added = added + (y,)
                outputs = added
    return outputs


@triton.jit
def with_samples_of(t, samples, x, up_ptr, exact, negative, COLUMNS: tl.constexpr, FIRST: tl.constexpr,
                    NUMBERS: tl.constexpr, PARTS: tl.constexpr, PIECES: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """Samples and what term t, which is not HELD, adds to them of a block of pixel rows, whose X is given.

    The block reaches three blocks of sample rows, number -1 to 1, as columns of pixels do of samples: one that the
    block before began, one whose samples are all its own, one that it begins. FIRST is the first that is wanted;
    `samples` are those of a column side by side.
    """
    up, factor = load_term(up_ptr, t, exact, NUMBERS, PARTS, TYPE), sign(negative, t)
    result = ()
    for m in tl.static_range(COLUMNS):
        w = tl.zeros([16, 16], tl.float32)
        for k in tl.static_range((PIECES + 1) // 2):
            if m - 2 * k >= NUMBERS[0] and m - 2 * k < NUMBERS[1]:
                w = product(up[m - 2 * k - NUMBERS[0]], x[k], w, PARTS)
        w = _right(w * factor, False, TYPE, PARTS)
        for number in tl.static_range(FIRST, 2):
            v = samples[(2 - FIRST) * m + number - FIRST]
            if number >= NUMBERS[0] and number < NUMBERS[1]:
                v = product(up[number - NUMBERS[0]], w, v, PARTS)
            result = result + (v,)
    return result


@triton.jit
def with_outputs_of(t, outputs, samples, down_ptr, exact, negative, COLUMNS: tl.constexpr, H: tl.constexpr,
                    DOWN: tl.constexpr, NUMBERS: tl.constexpr, PARTS: tl.constexpr, BLOCKS: tl.constexpr,
                    WIDTH: tl.constexpr, TYPE: tl.constexpr):  # fmt: skip
    """`outputs`, as those of `downsample`, and what rows H and H + 1 add by term t, which is not HELD."""
    down, factor = load_term(down_ptr, t, exact, NUMBERS, PARTS, TYPE), sign(negative, t)
    for h in tl.static_range(2):
        for j in tl.static_range(WIDTH):
            n = tl.zeros([16, 16], tl.float32)
            for m in tl.static_range(COLUMNS):
                if m - DOWN * j >= NUMBERS[0] and m - DOWN * j < NUMBERS[1]:
                    n = product(down[m - DOWN * j - NUMBERS[0]], samples[2 * m + h], n, PARTS)
            narrow = _right(n * factor, False, TYPE, PARTS)
            added = ()
            for i in tl.static_range(BLOCKS):
                for q in tl.static_range(WIDTH):
                    y = outputs[i * WIDTH + q]
                    if q == j and H + h - DOWN * (i - 1) >= NUMBERS[0] and H + h - DOWN * (i - 1) < NUMBERS[1]:
                        y = product(down[H + h - DOWN * (i - 1) - NUMBERS[0]], narrow, y, PARTS)
                    added = added + (y,)
            outputs = added
    return outputs
