"""filtered_lrelu with symmetric filters by programs of one warp that march down a plane.

As `marching.py`, where there is more about the march, but with filters that do along both axes the same, so that one
matrix serves both, and with other products (`symmetric_products.py`) around the pointwise step:

    W = up X^T        upsample along x: X are the strip's pixel rows, and the last block of the strip before
    V = up W^T        upsample along y
    V = leaky ReLU, clamp, or, in the gradient op, times 1, the slope or 0 by the signs
    N = down V^T      downsample along x
    Y = down N^T      downsample along y, on top of what the strip before began

What a strip leaves to the next is then no larger for a filter of several terms than for one. Two blocks of sample rows
at a time, a line of signs, are taken from pixels to outputs.
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
from sg3.kernels.filtered_lrelu.marching_plan import Kind, Pointwise, Shape
from sg3.kernels.filtered_lrelu.marching_products import inside, load_pixels
from sg3.kernels.filtered_lrelu.powers import Powers
from sg3.kernels.filtered_lrelu.signs import bytes_of_word, factors_of_bytes, word_of_signs
from sg3.kernels.filtered_lrelu.symmetric_plan import SymmetricPlan, build, shape_by_rule
from sg3.kernels.filtered_lrelu.symmetric_products import (
    downsample,
    downsample_columns,
    load_terms,
    pixel_operands,
    sample_operands,
    samples_of_two,
    upsampled_columns,
    with_outputs_of,
    with_samples_of,
    zeros,
)
from sg3.kernels.filtered_lrelu.symmetric_signs import (
    any_flag,
    clamped_and_noted,
    without_clamped,
    words_of,
    words_of_line,
)
from sg3.kernels.triton_launch import architecture, launch, operand
from sg3.kernels.tuning import Tunable

DO_NOT_SPECIALIZE = [
    "channels", "x_height", "x_width", "y_height", "y_width", "x_n", "x_c", "x_h", "y_n", "y_c", "y_h",
    "tiles", "segments", "blocks_each", "x_step", "x_origin_x", "x_origin_y", "step", "skipped",
    "lines", "quads", "first_quad", "quad_step", "first_line",
    "pixels_power", "samples_power", "up_power", "both_power",
    "up_terms", "up_exact", "up_negative", "down_terms", "down_exact", "down_negative",
]  # fmt: skip


@triton.jit(do_not_specialize=DO_NOT_SPECIALIZE)
def _symmetric_kernel(
    x_ptr, b_ptr, y_ptr, signs_ptr, largest_ptr, up_ptr, down_ptr,
    channels, x_height, x_width, y_height, y_width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides; all that counts columns comes in vectors, but x_w and y_w
    tiles, segments, blocks_each,            # programs side by side, below one another, and each one's output blocks
    x_step, x_origin_x, x_origin_y, step, skipped,
    lines, quads, first_quad, quad_step, first_line,  # of signs
    above, below, clamp,                     # what positive and other samples are multiplied by
    scale, unscale,                          # what pixels and outputs are multiplied by
    pixels_power, samples_power, up_power, both_power,  # of float32: see powers.py
    up_terms, up_exact, up_negative, down_terms, down_exact, down_negative,  # of what is not
    UP: tl.constexpr, DOWN: tl.constexpr, UP_NUMBERS: tl.constexpr, DOWN_NUMBERS: tl.constexpr,
    UP_PARTS: tl.constexpr, DOWN_PARTS: tl.constexpr,        # for each term, of what is HELD
    UP_NEGATIVE: tl.constexpr, DOWN_NEGATIVE: tl.constexpr,  # likewise
    COLUMNS: tl.constexpr, HALVES: tl.constexpr,  # blocks of sample columns, and of sample rows of a strip
    OUTPUT_BLOCKS: tl.constexpr, PIECES: tl.constexpr, OUTPUT_PIECES: tl.constexpr,
    WRITE: tl.constexpr, READ: tl.constexpr, HAS_BIAS: tl.constexpr, CLAMP: tl.constexpr, STEEP: tl.constexpr,
    TOGETHER: tl.constexpr, KEPT: tl.constexpr, AHEAD: tl.constexpr, BY_COLUMN: tl.constexpr,
    UP_HELD: tl.constexpr, DOWN_HELD: tl.constexpr,  # whether matrices are in registers all the time
    UNSEEN: tl.constexpr,                            # whether Triton may not see where pixels come from
    X_VECTOR: tl.constexpr, Y_VECTOR: tl.constexpr,
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

    up, down = (), ()
    if UP_HELD:
        up = load_terms(up_ptr, UP_NUMBERS, UP_PARTS, TYPE)
    if DOWN_HELD:
        down = load_terms(down_ptr, DOWN_NUMBERS, DOWN_PARTS, TYPE)

    # Strip s finishes output blocks s * OUTPUT_BLOCKS - 1, which the strip before began, and on, but begins its last.
    # So a segment needs one strip more than its blocks make, the next segment's first one.
    first_block = segment * blocks_each
    first_strip = first_block // OUTPUT_BLOCKS
    last_strip = first_strip + blocks_each // OUTPUT_BLOCKS
    i_8, i_16 = tl.arange(0, 8), tl.arange(0, 16)
    column, out_column = tile * x_step + x_origin_x, tile * step
    row = x_origin_y + first_strip * (HALVES // UP * 16)
    x_ptrs = x_ptr + row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    x_ptrs = x_ptrs + (i_16[:, None] * x_h + i_8[None, :] * x_w)
    y_ptrs = y_ptr + out_column.to(tl.int64) * y_w + (i_16[:, None] * y_h + i_8[None, :] * y_w)

    own_quads, own_strips = 0, 0
    if WRITE or READ:
        first_quad += tile * quad_step
        line_words = quads * 17
        signs_ptr += plane * lines * line_words
    if WRITE:
        # Neighbours overlap. A sample belongs to the first program that has it, but what this one has beyond its step
        # to the next, unless there is none; likewise for strips.
        own_quads = tl.minimum(tl.where(tile == tiles - 1, 4 * COLUMNS, quad_step), quads - first_quad)
        own_strips = tl.where(segment == segments - 1, last_strip + 1, last_strip)

    bias = 0.0
    nothing = tl.cast(0.0, x_ptr.dtype.element_ty)
    if HAS_BIAS:
        bias = tl.load(b_ptr + c).to(tl.float32)
        nothing = (-bias).to(x_ptr.dtype.element_ty)  # what is added before the border must not be in the border
    bias, scale = tl.cast(bias, tl.float32), tl.cast(scale, tl.float32)
    above, below, clamp = tl.cast(above, VALUE), tl.cast(below, VALUE), tl.cast(clamp, VALUE)
    back = 0
    if PARTS == 2:
        exponent, lift, clamp = powers(tl.load(largest_ptr + plane), bias, clamp, pixels_power, samples_power,
                                       up_power, CLAMP and not READ)  # fmt: skip
        above, below = above * power(lift), below * power(lift)
        scale, back = power(exponent), -(exponent + lift + both_power)
    bias, scale = (bias * scale).to(VALUE), scale.to(VALUE)

    # What the strip before the first one would have left: its last block of pixel rows; of outputs nothing. Where the
    # up filter's matrix is not HELD, blocks of pixel rows begin half a block earlier, and it leaves sums of samples.
    if not UP_HELD:
        row -= 8
        x_ptrs -= 8 * x_h
    pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, 1)
    carried = pixel_operands(pixels, scale, bias, PIECES, TYPE, PARTS, VALUE, UNSEEN)
    if KEPT:
        carried = upsampled_columns(carried, up, COLUMNS, UP, UP_NUMBERS, UP_PARTS, UP_NEGATIVE, PIECES, TYPE)
    if not UP_HELD:
        before, carried = carried, zeros(COLUMNS)
        for t in range(0, up_exact):
            carried = with_samples_of(t, carried, before, up_ptr, up_exact, up_negative, COLUMNS, 1, UP_NUMBERS, 2,
                                      PIECES, TYPE)  # fmt: skip
        for t in range(up_exact, up_terms):
            carried = with_samples_of(t, carried, before, up_ptr, up_exact, up_negative, COLUMNS, 1, UP_NUMBERS, 1,
                                      PIECES, TYPE)  # fmt: skip
    WIDTH: tl.constexpr = (OUTPUT_PIECES + 1) // 2
    begun = zeros(WIDTH)
    row += 16
    x_ptrs += 16 * x_h
    if AHEAD:
        pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, 1)

    for strip in range(first_strip, last_strip + 1):
        rows = (carried,)
        outputs = begun + zeros(OUTPUT_BLOCKS * WIDTH)
        for g in tl.static_range(HALVES // 2):
            if 2 * g % UP == 0:
                if not AHEAD:
                    pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, 1)
                block = pixel_operands(pixels, scale, bias, PIECES, TYPE, PARTS, VALUE, UNSEEN)
                if KEPT:
                    block = upsampled_columns(block, up, COLUMNS, UP, UP_NUMBERS, UP_PARTS, UP_NEGATIVE, PIECES, TYPE)
                if UP_HELD:
                    rows = rows + (block,)
                row += 16
                x_ptrs += 16 * x_h
                if AHEAD:  # The next block's pixels are asked for now, and arrive while this one is worked on.
                    pixels = load_pixels(x_ptrs, row, column, x_height, x_width, x_h, x_w, nothing, PIECES, 1)

            line_ptr, own = signs_ptr, 0  # this line of signs, and how many quads of it are this program's
            if WRITE or READ:
                line = first_line + strip * (HALVES // 2) + g
                line_ptr = signs_ptr + tl.minimum(tl.maximum(line, 0), lines - 1).to(tl.int64) * line_words
            if WRITE:
                own = tl.where((line < lines) & (strip < own_strips), own_quads, 0)
            flagged = False
            if READ and CLAMP and not UP_HELD:
                flagged = any_flag(line_ptr, first_quad, quads, COLUMNS)
            elif READ and CLAMP:
                quad = tl.minimum(tl.maximum(first_quad + tl.arange(0, 16), 0), quads - 1)
                flagged = tl.max((tl.load(line_ptr + quads * 16 + quad) != 0).to(tl.int32)) != 0
            words = ()
            line_samples = ()
            if not UP_HELD:
                if READ:  # before the products, so that the words are there when samples are
                    words = words_of_line(line_ptr, first_quad, quads, COLUMNS)
                for m in tl.static_range(COLUMNS):
                    line_samples = line_samples + (carried[m],) + zeros(2)
                for t in range(0, up_exact):
                    line_samples = with_samples_of(t, line_samples, block, up_ptr, up_exact, up_negative, COLUMNS, -1,
                                                   UP_NUMBERS, 2, PIECES, TYPE)  # fmt: skip
                for t in range(up_exact, up_terms):
                    line_samples = with_samples_of(t, line_samples, block, up_ptr, up_exact, up_negative, COLUMNS, -1,
                                                   UP_NUMBERS, 1, PIECES, TYPE)  # fmt: skip
                carried = ()
                for m in tl.static_range(COLUMNS):
                    carried = carried + (line_samples[3 * m + 2],)
            operands = ()
            sums = ()
            if DOWN_HELD:
                sums = zeros(2 * WIDTH * len(DOWN_PARTS))
            for first in tl.static_range(0, COLUMNS, TOGETHER):
                samples = ()
                for m in tl.static_range(first, first + TOGETHER):
                    if UP_HELD:
                        upper, lower = samples_of_two(rows, up, m, 2 * g, KEPT, UP, UP_NUMBERS, UP_PARTS, UP_NEGATIVE,
                                                      PIECES, 2 * g // UP + 2, TYPE)  # fmt: skip
                    else:
                        upper, lower = line_samples[3 * m], line_samples[3 * m + 1]
                    upper, lower = upper.to(VALUE), lower.to(VALUE)
                    if READ:
                        word = words[m] if not UP_HELD else tl.load(line_ptr + words_of(first_quad, quads, m))
                        signs = bytes_of_word(word)
                        upper = upper * factors_of_bytes(signs, above, below, 0, VALUE)
                        lower = lower * factors_of_bytes(signs, above, below, 1, VALUE)
                    else:
                        if WRITE:
                            mine = (4 * m + tl.arange(0, 4) < own)[None, :]
                            tl.store(line_ptr + words_of(first_quad, quads, m), word_of_signs(upper, lower, VALUE),
                                     mask=mine)  # fmt: skip
                        upper, lower = leaky_relu(upper, above, below, STEEP), leaky_relu(lower, above, below, STEEP)
                        if CLAMP and not WRITE:
                            upper, lower = clamped(upper, clamp), clamped(lower, clamp)
                    samples = samples + (upper, lower)
                if READ and CLAMP:  # noqa: SIM102  (known when the kernel is compiled, unlike what follows)
                    if flagged:  # rare
                        samples = without_clamped(samples, line_ptr, quads, first_quad, first, TOGETHER)
                if WRITE and CLAMP:
                    samples = clamped_and_noted(samples, clamp, line_ptr, own, quads, first_quad, first, TOGETHER)
                if BY_COLUMN:
                    for m in tl.static_range(TOGETHER):
                        of_column = sample_operands(samples, 2 * m, 2, TYPE, PARTS)
                        sums = downsample_columns(sums, of_column, down, first + m, DOWN, DOWN_NUMBERS, DOWN_PARTS,
                                                  WIDTH)  # fmt: skip
                else:
                    operands = operands + sample_operands(samples, 0, 2 * TOGETHER, TYPE, PARTS)
            if DOWN_HELD:
                outputs = downsample(outputs, sums, operands, down, 2 * g, COLUMNS, BY_COLUMN, DOWN, DOWN_NUMBERS,
                                     DOWN_PARTS, DOWN_NEGATIVE, OUTPUT_BLOCKS + 1, WIDTH, TYPE)  # fmt: skip
            else:
                for t in range(0, down_exact):
                    outputs = with_outputs_of(t, outputs, operands, down_ptr, down_exact, down_negative, COLUMNS, 2 * g,
                                              DOWN, DOWN_NUMBERS, 2, OUTPUT_BLOCKS + 1, WIDTH, TYPE)  # fmt: skip
                for t in range(down_exact, down_terms):
                    outputs = with_outputs_of(t, outputs, operands, down_ptr, down_exact, down_negative, COLUMNS, 2 * g,
                                              DOWN, DOWN_NUMBERS, 1, OUTPUT_BLOCKS + 1, WIDTH, TYPE)  # fmt: skip

        for j in tl.static_range(OUTPUT_BLOCKS):
            block = strip * OUTPUT_BLOCKS + j - 1
            height = tl.where((block >= first_block) & (block < first_block + blocks_each), y_height, 0)
            out_row = 16 * block - skipped
            mine = inside(out_row + i_16, height)
            for q in tl.static_range(OUTPUT_PIECES):
                halves = tl.split(tl.permute(tl.reshape(outputs[j * WIDTH + q // 2], [16, 2, 8]), (0, 2, 1)))
                y = halves[q % 2]
                if PARTS == 2:
                    y = times_power(y, back)
                else:
                    y *= unscale
                columns = (8 * q + i_8 < step) & (out_column + 8 * q + i_8 < y_width)
                if UP_HELD:
                    at = y_ptrs + out_row.to(tl.int64) * y_h
                else:  # made anew for every strip, lest it take registers all the time
                    at = y_ptr + ((out_row + i_16).to(tl.int64)[:, None] * y_h + (out_column + i_8)[None, :] * y_w)
                tl.store(at + 8 * q * y_w, y.to(y_ptr.dtype.element_ty), mask=mine[:, None] & columns[None, :])
        if UP_HELD:
            carried = rows[HALVES // UP]
        begun = ()
        for q in tl.static_range(WIDTH):
            begun = begun + (outputs[OUTPUT_BLOCKS * WIDTH + q],)


plans = PlanCache(MOST_PLANS, build)


def _class_of(
    x: torch.Tensor, plan: SymmetricPlan, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None,
    middle: tuple[int, int], clamp: float | None, fu: torch.Tensor | None, fd: torch.Tensor | None,
    resampling: Resampling, pointwise: Pointwise,
) -> Kind:  # fmt: skip
    return Kind(plan.layout.up, len(plan.up.parts), plan.layout.down, len(plan.down.parts), str(x.dtype)[6:],
                pointwise.mode)  # fmt: skip


def rule(kind: Kind, arch: int) -> Shape:
    """The table's shape, that of plans for which none is asked."""
    shape = shape_by_rule(kind, arch)
    assert shape is not None
    return shape


def _launch(
    shape: Shape,
    x: torch.Tensor,
    plan: SymmetricPlan,
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

    # W or X, and sums of outputs or samples, whatever takes fewer registers. Pixels in two parts leave none to wait in,
    # nor do three terms on sm_100 (where else they fit, the compiler leaves two or three).
    up_held, down_held = plan.up.held, plan.down.held
    kept = len(plan.up.parts) == 1 and (plan.powers is None or layout.up == 2)
    by_column = down_held and \
        len(plan.down.parts) * math.ceil(layout.step / 16) * 2 < layout.columns * (2 if plan.powers else 1)
    ahead = plan.powers is None and not (len(plan.up.parts) == 3 and 100 <= architecture(x.device) < 120)
    unseen = layout.down == 4 or plan.powers is not None
    matrices = plan.up.data, plan.down.data
    launch(
        _symmetric_kernel, (tiles * segments * n * c,),
        x, None if b is None else b.contiguous(), y, None if signs is None else signs.view(torch.int16),
        None if plan.powers is None else largest(x), *matrices,
        c, height, width // x_vector, out_height, out_width // y_vector,
        *in_vectors(x, x_vector), *in_vectors(y, y_vector),
        tiles, segments, blocks_each,
        layout.x_step // x_vector, layout.x.x_origin // x_vector, layout.y.x_origin, layout.step // y_vector,
        layout.y.skipped,
        math.ceil(middle[0] / 32), math.ceil(middle[1] / 4), layout.x.s_origin // 4,
        layout.step * layout.down // 4, layout.y.s_origin // 32,
        plan.above, plan.below, 0.0 if clamp is None else clamp * plan.scale, plan.scale, 1 / plan.scale,
        powers_.pixels, powers_.samples, powers_.up, powers_.both,
        *plan.up.of_loop(), *plan.down.of_loop(),
        like=x, fixed=matrices, UP=layout.up, DOWN=layout.down, UP_NUMBERS=plan.up.numbers,
        DOWN_NUMBERS=plan.down.numbers,
        UP_PARTS=plan.up.parts if up_held else (), DOWN_PARTS=plan.down.parts if down_held else (),
        UP_NEGATIVE=plan.up.negative if up_held else (), DOWN_NEGATIVE=plan.down.negative if down_held else (),
        COLUMNS=layout.columns, HALVES=layout.halves,
        OUTPUT_BLOCKS=layout.output_blocks, PIECES=layout.pieces, OUTPUT_PIECES=math.ceil(layout.step / 8),
        WRITE=write, READ=read, HAS_BIAS=b is not None, CLAMP=clamp is not None, STEEP=plan.below > plan.above,
        TOGETHER=shape.together, KEPT=kept, AHEAD=ahead, BY_COLUMN=by_column, UP_HELD=up_held, DOWN_HELD=down_held,
        UNSEEN=unseen,
        X_VECTOR=x_vector, Y_VECTOR=y_vector,
        TYPE=tl.float16 if plan.powers else value, PARTS=2 if plan.powers else 1, VALUE=value,
        num_warps=1, num_stages=1, maxnreg=shape.registers,
    )  # fmt: skip
    return (y,) if signs is None or read else (y, signs)


def _others(kind: Kind, arch: int) -> Iterator[Shape]:
    """Narrower and wider programs, and the rule's with fewer registers, which leaves room for more of them."""
    for columns in (2, 3, 4):
        for together in (1, columns) if kind.mode != "plain" else (1,):
            yield Shape(columns, together)
    yield from (replace(rule(kind, arch), registers=most) for most in (200, 168, 128))


def _parts(
    written: Sequence[torch.Tensor], x: torch.Tensor, plan: SymmetricPlan, b: torch.Tensor | None, y: torch.Tensor,
    signs: torch.Tensor | None, middle: tuple[int, int], *rest: object,
) -> Sequence[torch.Tensor]:  # fmt: skip
    """The result, and of the signs the slopes and the flags; where a flag is 0, nothing need be written beside it."""
    lines, quads = math.ceil(middle[0] / 32), math.ceil(middle[1] / 4)
    in_lines = [t.view(-1)[: y.shape[0] * y.shape[1] * lines * 34 * quads].view(-1, 34 * quads) for t in written[1:]]
    return [y, *(part for t in in_lines for part in (t[:, : 16 * quads], t[:, 32 * quads :]))]


SYMMETRIC = Tunable("filtered_lrelu symmetric", _launch, _class_of, rule, _others, expected, _parts)
