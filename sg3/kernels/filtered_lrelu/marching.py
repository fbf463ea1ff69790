"""filtered_lrelu by programs of one warp that march down a plane: strips share what they have in common, in registers.

A program owns some blocks of 16 sample columns of one plane and walks down their rows in strips. A strip is four
products with small banded matrices (`marching_products.py`) around a pointwise step:

    W = up_x X^T            upsample along x: X are the strip's new pixel rows
    V = W up_y^T            upsample along y, with the last block of W of the strip before
    V = leaky ReLU, clamp   or, in the gradient op, times 1, the slope or 0 by the signs
    N = down_y V^T          downsample along y, on top of what the strip before began
    Y = N down_x^T          downsample along x

So no row of samples is made twice but where a plane is split among programs, and samples never leave the registers but
for their signs (`signs.py`).

Non-finite input spoils its strips rather than only its surroundings (0 * inf in the products).
"""

# ruff: noqa: RUF005  (Triton's language does not unpack tuples)

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.banded import MOST_PLANS, PlanCache
from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.filtered_lrelu.marching_common import clamped, expected, grid, leaky_relu, vector
from sg3.kernels.filtered_lrelu.marching_float32 import largest, power, powers, times_power
from sg3.kernels.filtered_lrelu.marching_plan import Kind, MarchingPlan, Pointwise, Shape, build, shape_by_rule
from sg3.kernels.filtered_lrelu.marching_products import (
    downsample_columns,
    downsample_rows,
    inside,
    load_blocks,
    load_pixels,
    upsample_columns,
    upsample_rows,
)
from sg3.kernels.filtered_lrelu.powers import Powers
from sg3.kernels.filtered_lrelu.signs import (
    bits_of_bytes,
    bytes_of_word,
    factors_of_bytes,
    word_of_bits,
    word_of_signs,
)
from sg3.kernels.triton_launch import launch, operand
from sg3.kernels.tuning import Tunable

DO_NOT_SPECIALIZE = [
    "channels", "x_height", "x_width", "y_height", "y_width", "x_n", "x_c", "x_h", "y_n", "y_c", "y_h",
    "tiles", "segments", "blocks_each", "x_step", "x_origin_x", "x_origin_y", "step", "skipped",
    "lines", "pairs", "first_pair", "pair_step", "first_line",
    "pixels_power", "samples_power", "up_power", "both_power",
]  # fmt: skip


@triton.jit(do_not_specialize=DO_NOT_SPECIALIZE)
def _marching_kernel(
    x_ptr, b_ptr, y_ptr, signs_ptr, largest_ptr, up_x_ptr, up_y_ptr, down_x_ptr, down_y_ptr,
    channels, x_height, x_width, y_height, y_width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides; all that counts columns comes in vectors, but x_w and y_w
    tiles, segments, blocks_each,            # programs side by side, below one another, and each one's output blocks
    x_step, x_origin_x, x_origin_y, step, skipped,
    lines, pairs, first_pair, pair_step, first_line,  # of signs
    above, below, clamp,                     # what positive and other samples are multiplied by
    pixels_power, samples_power, up_power, both_power,  # of float32: see powers.py
    UP: tl.constexpr, DOWN: tl.constexpr, UP_TERMS: tl.constexpr, DOWN_TERMS: tl.constexpr,
    UP_X: tl.constexpr, UP_Y: tl.constexpr, DOWN_X: tl.constexpr, DOWN_Y: tl.constexpr,  # the blocks' numbers
    COLUMNS: tl.constexpr, HALVES: tl.constexpr,  # blocks of sample columns, and of sample rows of a strip
    PIXEL_BLOCKS: tl.constexpr, OUTPUT_BLOCKS: tl.constexpr, PIECES: tl.constexpr, OUTPUT_PIECES: tl.constexpr,
    WRITE: tl.constexpr, READ: tl.constexpr, HAS_BIAS: tl.constexpr, CLAMP: tl.constexpr, STEEP: tl.constexpr,
    TOGETHER: tl.constexpr, X_VECTOR: tl.constexpr, Y_VECTOR: tl.constexpr,
    TYPE: tl.constexpr, PARTS: tl.constexpr, VALUE: tl.constexpr,  # what is multiplied, and what samples are
):  # fmt: skip
    tile = tl.program_id(0) % tiles
    segment = tl.program_id(0) // tiles % segments
    plane = (tl.program_id(0) // tiles // segments).to(tl.int64)
    n, c = plane // channels, plane % channels
    # Counted in vectors and made again from them, these are seen to be multiples, and vectors to be aligned.
    x_width, x_step, x_origin_x, x_h = x_width * X_VECTOR, x_step * X_VECTOR, x_origin_x * X_VECTOR, x_h * X_VECTOR
    y_width, step, y_h = y_width * Y_VECTOR, step * Y_VECTOR, y_h * Y_VECTOR
    x_ptr += (n * x_n + c * x_c) * X_VECTOR  # 64 bits, as n and c have
    y_ptr += (n * y_n + c * y_c) * Y_VECTOR

    up_x = load_blocks(up_x_ptr, UP_X, UP_TERMS, 16, False, TYPE, PARTS)
    up_y = load_blocks(up_y_ptr, UP_Y, UP_TERMS, 16, True, TYPE, PARTS)
    down_y = load_blocks(down_y_ptr, DOWN_Y, DOWN_TERMS, 16, False, TYPE, PARTS)
    down_x = load_blocks(down_x_ptr, DOWN_X, DOWN_TERMS, 8, True, TYPE, PARTS)

    # Strip s finishes output blocks s * OUTPUT_BLOCKS - 1, which the strip before began, and on, but begins its last.
    # So a segment needs one strip more than its blocks make, the next segment's first one.
    first_block = segment * blocks_each
    first_strip = first_block // OUTPUT_BLOCKS
    last_strip = first_strip + blocks_each // OUTPUT_BLOCKS
    i_8, i_16 = tl.arange(0, 8), tl.arange(0, 16)
    column, out_column = tile * x_step + x_origin_x, tile * step
    row = x_origin_y + first_strip * (16 * PIXEL_BLOCKS)
    x_ptrs = x_ptr + row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    x_ptrs = x_ptrs + (i_16[:, None] * x_h + i_8[None, :] * x_w)
    y_ptrs = y_ptr + out_column.to(tl.int64) * y_w + (i_16[:, None] * y_h + i_8[None, :] * y_w)

    words = ()  # where in a line this program's signs are, for each block of columns
    if WRITE or READ:
        first_pair += tile * pair_step
        line_words = pairs * 8 + (pairs + 1) // 2
        signs_ptr += plane * lines * line_words
        for m in tl.static_range(COLUMNS):
            # Beyond the plane, where only reading can come, samples are 0 or not used, so that any signs will do.
            pair = tl.minimum(tl.maximum(first_pair + 8 * m + i_8, 0), pairs - 1)
            words = words + (pair[:, None] * 4 + tl.arange(0, 4)[None, :],)
    if WRITE:
        # Neighbours overlap. A sample belongs to the first program that has it, but what this one has beyond its step
        # to the next, unless there is none; likewise for strips.
        own_pairs = tl.minimum(tl.where(tile == tiles - 1, 8 * COLUMNS, pair_step), pairs - first_pair)
        own_strips = tl.where(segment == segments - 1, last_strip + 1, last_strip)
    if READ and CLAMP:
        flags = pairs * 8 + tl.minimum(tl.maximum(first_pair // 2 + tl.arange(0, 32), 0), (pairs - 1) // 2)

    bias = 0.0
    nothing = tl.cast(0.0, x_ptr.dtype.element_ty)
    if HAS_BIAS:
        bias = tl.load(b_ptr + c).to(tl.float32)
        nothing = (-bias).to(x_ptr.dtype.element_ty)  # what is added before the border must not be in the border
    bias = tl.cast(bias, VALUE)
    above, below, clamp = tl.cast(above, VALUE), tl.cast(below, VALUE), tl.cast(clamp, VALUE)
    scale, back = 1.0, 0
    if PARTS == 2:
        scale, lift, clamp = powers(tl.load(largest_ptr + plane), bias, clamp, pixels_power, samples_power, up_power,
                                    CLAMP and not READ)  # fmt: skip
        above, below = above * power(lift), below * power(lift)
        scale, back = power(scale), -(scale + lift + both_power)

    # What the strip before the first one would have left: its last block of pixel rows; of outputs nothing.
    pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, 1)
    carried = upsample_columns(pixels, bias, scale, up_x, 0, UP, UP_X, UP_TERMS, COLUMNS, PIECES, TYPE, PARTS, VALUE)
    begun = ()
    for _ in tl.static_range(COLUMNS):
        of_terms = ()
        for _ in tl.static_range(DOWN_TERMS):
            of_terms = of_terms + (tl.zeros([16, 16], tl.float32),)
        begun = begun + (of_terms,)
    row += 16
    x_ptrs += 16 * x_h
    pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, PIXEL_BLOCKS)

    for strip in range(first_strip, last_strip + 1):
        wide = ()
        for a in tl.static_range(PIXEL_BLOCKS):
            wide = wide + (upsample_columns(pixels, bias, scale, up_x, a, UP, UP_X, UP_TERMS, COLUMNS, PIECES, TYPE,
                                            PARTS, VALUE),)  # fmt: skip
        # The next strip's pixels are asked for now, and arrive while this one is worked on.
        row += 16 * PIXEL_BLOCKS
        x_ptrs += 16 * PIXEL_BLOCKS * x_h
        pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, PIXEL_BLOCKS)

        line_ptrs, own = (), ()  # for each line of signs of this strip, and how many pairs of it are this program's
        if WRITE or READ:
            for g in tl.static_range(HALVES // 2):
                line = first_line + strip * (HALVES // 2) + g
                line_there = tl.minimum(tl.maximum(line, 0), lines - 1).to(tl.int64)
                line_ptrs = line_ptrs + (signs_ptr + line_there * line_words,)
                if WRITE:
                    own = own + (tl.where((line < lines) & (strip < own_strips), own_pairs, 0),)
        clamped_here = False
        if READ and CLAMP:
            flag = tl.load(line_ptrs[0] + flags)
            for g in tl.static_range(1, HALVES // 2):
                flag |= tl.load(line_ptrs[g] + flags)
            clamped_here = tl.max((flag != 0).to(tl.int32)) != 0

        finished, next_begun = (), ()
        for first in tl.static_range(0, COLUMNS, TOGETHER):
            samples = ()
            for m in tl.static_range(first, first + TOGETHER):
                for g in tl.static_range(HALVES // 2):
                    upper = upsample_rows(carried, wide, up_y, m, 2 * g, UP, UP_Y, UP_TERMS, PIXEL_BLOCKS, PARTS)
                    lower = upsample_rows(carried, wide, up_y, m, 2 * g + 1, UP, UP_Y, UP_TERMS, PIXEL_BLOCKS, PARTS)
                    upper, lower = upper.to(VALUE), lower.to(VALUE)
                    if READ:
                        signs = bytes_of_word(tl.load(line_ptrs[g] + words[m]))
                        upper = upper * factors_of_bytes(signs, above, below, 0, VALUE)
                        lower = lower * factors_of_bytes(signs, above, below, 1, VALUE)
                    else:
                        if WRITE:
                            mine = (8 * m + i_8 < own[g])[:, None]
                            tl.store(line_ptrs[g] + words[m], word_of_signs(upper, lower, VALUE), mask=mine)
                        upper, lower = leaky_relu(upper, above, below, STEEP), leaky_relu(lower, above, below, STEEP)
                        if CLAMP and not WRITE:
                            upper, lower = clamped(upper, clamp), clamped(lower, clamp)
                    samples = samples + (upper, lower)
            if READ and CLAMP:  # noqa: SIM102  (known when the kernel is compiled, unlike what follows)
                if clamped_here:  # rare
                    samples = _without_clamped(samples, line_ptrs, words, pairs, first, TOGETHER, HALVES)
            if WRITE and CLAMP:
                samples = _clamped_and_noted(samples, clamp, line_ptrs, words, own, pairs, first_pair, first, TOGETHER,
                                             HALVES)  # fmt: skip
            for m in tl.static_range(TOGETHER):
                done, left = downsample_rows(begun[first + m], samples, down_y, m, DOWN, DOWN_Y, DOWN_TERMS,
                                             OUTPUT_BLOCKS, HALVES, TYPE, PARTS)  # fmt: skip
                finished, next_begun = finished + (done,), next_begun + (left,)

        for j in tl.static_range(OUTPUT_BLOCKS):
            block = strip * OUTPUT_BLOCKS + j - 1
            height = tl.where((block >= first_block) & (block < first_block + blocks_each), y_height, 0)
            out_row = 16 * block - skipped
            rows = inside(out_row + i_16, height)
            for q in tl.static_range(OUTPUT_PIECES):
                y = downsample_columns(finished, down_x, j, q, DOWN, DOWN_X, DOWN_TERMS, OUTPUT_BLOCKS, COLUMNS, PARTS)
                if PARTS == 2:
                    y = times_power(y, back)
                columns = (8 * q + i_8 < step) & (out_column + 8 * q + i_8 < y_width)
                tl.store(y_ptrs + out_row.to(tl.int64) * y_h + 8 * q * y_w, y.to(y_ptr.dtype.element_ty),
                         mask=rows[:, None] & columns[None, :])  # fmt: skip
        carried, begun = wide[PIXEL_BLOCKS - 1], next_begun


@triton.jit
def _clamped_and_noted(
    samples, limit, line_ptrs, words, own, pairs, first_pair, FIRST: tl.constexpr, COUNT: tl.constexpr,
    HALVES: tl.constexpr,
):  # fmt: skip
    """Clamp COUNT columns of samples from column FIRST on; note which were, and in the flags whether any."""
    most = tl.abs(samples[0])
    for i in tl.static_range(1, COUNT * HALVES):
        most = tl.maximum(most, tl.abs(samples[i]))
    most = tl.max(tl.max(tl.max(tl.reshape(most, [2, 8, 2, 4, 2]), axis=0), axis=1), axis=2)  # [8, 4]: one a thread
    beyond = tl.max(tl.reshape((most > limit).to(tl.int32), [32])) != 0
    i_flag = 4 * FIRST + tl.arange(0, 16)
    for g in tl.static_range(HALVES // 2):
        tl.store(line_ptrs[g] + pairs * 8 + first_pair // 2 + i_flag, tl.zeros([16], tl.int16) + beyond.to(tl.int16),
                 mask=2 * i_flag < tl.minimum(own[g], 8 * (FIRST + COUNT)))  # fmt: skip
    if beyond:  # rare
        for m in tl.static_range(COUNT):
            for g in tl.static_range(HALVES // 2):
                upper, lower = samples[m * HALVES + 2 * g], samples[m * HALVES + 2 * g + 1]
                tl.store(line_ptrs[g] + pairs * 4 + words[FIRST + m],
                         word_of_bits(tl.abs(upper) > limit, tl.abs(lower) > limit),
                         mask=(8 * (FIRST + m) + tl.arange(0, 8) < own[g])[:, None])  # fmt: skip
        result = ()
        for i in tl.static_range(COUNT * HALVES):
            result = result + (clamped(samples[i], limit),)
        samples = result
    return samples


@triton.jit
def _without_clamped(
    samples, line_ptrs, words, pairs, FIRST: tl.constexpr, COUNT: tl.constexpr, HALVES: tl.constexpr
):  # fmt: skip
    """COUNT columns of samples from column FIRST on, with 0 where they were clamped."""
    passed = ()
    for m in tl.static_range(COUNT):
        for g in tl.static_range(HALVES // 2):
            flagged = tl.load(line_ptrs[g] + pairs * 8 + words[FIRST + m] // 8) != 0  # 8 words, two pairs, share a flag
            clamped = bytes_of_word(tl.load(line_ptrs[g] + pairs * 4 + words[FIRST + m], mask=flagged, other=0))
            for h in tl.static_range(2):
                v = samples[m * HALVES + 2 * g + h]
                passed = passed + (tl.where(bits_of_bytes(clamped, h), tl.zeros_like(v), v),)
    return passed


plans = PlanCache(MOST_PLANS, build)


def _class_of(
    x: torch.Tensor, plan: MarchingPlan, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None,
    middle: tuple[int, int], clamp: float | None, fu: torch.Tensor | None, fd: torch.Tensor | None,
    resampling: Resampling, pointwise: Pointwise,
) -> Kind:  # fmt: skip
    return Kind(plan.layout.up, plan.up_x.terms, plan.layout.down, plan.down_x.terms, str(x.dtype)[6:], pointwise.mode)


def rule(kind: Kind, arch: int) -> Shape:
    """The table's shape, that of plans for which none is asked."""
    shape = shape_by_rule(kind)
    assert shape is not None
    return shape


def _others(kind: Kind, arch: int) -> Iterator[Shape]:
    """Narrower and wider programs, and the rule's with fewer registers, which leaves room for more of them."""
    for columns in (2, 3, 4):
        for together in (1, 2, columns) if kind.mode != "plain" else (1,):
            if columns % together == 0:
                yield Shape(columns, together)
    yield from (replace(rule(kind, arch), registers=most) for most in (200, 168, 128))


def _parts(
    written: Sequence[torch.Tensor], x: torch.Tensor, plan: MarchingPlan, b: torch.Tensor | None, y: torch.Tensor,
    signs: torch.Tensor | None, middle: tuple[int, int], *rest: object,
) -> Sequence[torch.Tensor]:  # fmt: skip
    """The result, and of the signs the slopes and the flags; where a flag is 0, nothing need be written beside it."""
    lines, pairs = math.ceil(middle[0] / 32), math.ceil(middle[1] / 2)
    length = 2 * (8 * pairs + math.ceil(pairs / 2))  # of a line, in bytes
    in_lines = [t.view(-1)[: y.shape[0] * y.shape[1] * lines * length].view(-1, length) for t in written[1:]]
    return [y, *(part for t in in_lines for part in (t[:, : 8 * pairs], t[:, 16 * pairs :]))]


def _launch(
    shape: Shape,
    x: torch.Tensor,
    plan: MarchingPlan,
    b: torch.Tensor | None,
    y: torch.Tensor,
    signs: torch.Tensor | None,
    middle: tuple[int, int],
    clamp: float | None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    pointwise: Pointwise,
) -> tuple[torch.Tensor, ...]:
    """Fill y [N, C, OH, OW] from x [N, C, H, W], both of any strides; `signs`, of a `middle` [height, width], are
    written or read unless they are None. `plan` is for the rule's shape, another is made from the last four arguments.
    """
    if shape != plan.shape:
        other = plans.get(fu, fd, resampling, replace(pointwise, shape=shape), x.dtype, x.device)
        assert other is not None
        plan = other
    read = pointwise.read
    layout = plan.layout
    n, c, height, width = x.shape
    out_height, out_width = y.shape[2:]
    tiles, segments, blocks_each = grid(layout, y)
    write = signs is not None and not read
    value = operand(x.dtype)
    powers_ = plan.powers or Powers(0, 0, 0, 0)
    if clamp is None and not read and x.dtype == torch.float16:
        clamp = torch.finfo(x.dtype).max  # what is beyond would be inf, and spoil its strips
    x_vector, y_vector = vector(x), vector(y)

    def in_vectors(t: torch.Tensor, size: int) -> tuple[int, ...]:
        return t.stride(0) // size, t.stride(1) // size, t.stride(2) // size, t.stride(3)

    matrices = plan.up_x.data, plan.up_y.data, plan.down_x.data, plan.down_y.data
    launch(
        _marching_kernel, (tiles * segments * n * c,),
        x, None if b is None else b.contiguous(), y, None if signs is None else signs.view(torch.int16),
        None if plan.powers is None else largest(x), *matrices,
        c, height, width // x_vector, out_height, out_width // y_vector,
        *in_vectors(x, x_vector), *in_vectors(y, y_vector),
        tiles, segments, blocks_each,
        layout.x_step // x_vector, layout.x.x_origin // x_vector, layout.y.x_origin, layout.step // y_vector,
        layout.y.skipped,
        math.ceil(middle[0] / 32), math.ceil(middle[1] / 2), layout.x.s_origin // 2,
        layout.step * layout.down // 2, layout.y.s_origin // 32,
        plan.above, plan.below, 0.0 if clamp is None else clamp,
        powers_.pixels, powers_.samples, powers_.up, powers_.both,
        like=x, fixed=matrices, UP=layout.up, DOWN=layout.down, UP_TERMS=plan.up_x.terms, DOWN_TERMS=plan.down_x.terms,
        UP_X=plan.up_x.numbers, UP_Y=plan.up_y.numbers, DOWN_X=plan.down_x.numbers, DOWN_Y=plan.down_y.numbers,
        COLUMNS=layout.columns, HALVES=layout.halves, PIXEL_BLOCKS=layout.pixel_blocks,
        OUTPUT_BLOCKS=layout.output_blocks, PIECES=layout.pieces, OUTPUT_PIECES=math.ceil(layout.step / 8),
        WRITE=write, READ=read, HAS_BIAS=b is not None, CLAMP=clamp is not None, STEEP=plan.below > plan.above,
        TOGETHER=shape.together, X_VECTOR=x_vector, Y_VECTOR=y_vector,
        TYPE=tl.float16 if plan.powers else value, PARTS=2 if plan.powers else 1, VALUE=value,
        num_warps=1, num_stages=1, maxnreg=shape.registers,
    )  # fmt: skip
    return (y,) if signs is None or read else (y, signs)


MARCH = Tunable("filtered_lrelu marching", _launch, _class_of, rule, _others, expected, _parts)
