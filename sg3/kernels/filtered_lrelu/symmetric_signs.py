"""Where a marching program for symmetric filters keeps signs (`signs.py`), and what it does about the clamp."""

# ruff: noqa: RUF005  (Triton's language does not unpack tuples)

from __future__ import annotations

import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.marching_common import clamped
from sg3.kernels.filtered_lrelu.marching_products import inside
from sg3.kernels.filtered_lrelu.signs import bits_of_bytes, bytes_of_word, word_of_bits


@triton.jit
def words_of(first_quad, quads, M: tl.constexpr):
    """Where in a line the words of block M of columns are, [8, 4]. Beyond the plane, where only reading can come,
    samples are 0 or not used, so that any signs will do."""
    quad = tl.minimum(tl.maximum(first_quad + 4 * M + tl.arange(0, 4), 0), quads - 1)
    return quad[None, :] * 8 + tl.arange(0, 8)[:, None]


@triton.jit
def words_of_line(line_ptr, first_quad, quads, COLUMNS: tl.constexpr):
    """The words of all columns, 0 beyond the plane: a tuple of [8, 4], all by one pointer, or each would take its own
    from line to line."""
    quad = first_quad + tl.arange(0, 4)
    p = line_ptr + (quad[None, :] * 8 + tl.arange(0, 8)[:, None])
    words = ()
    for m in tl.static_range(COLUMNS):
        there = tl.broadcast_to(inside(quad + 4 * m, quads)[None, :], (8, 4))
        words = words + (tl.load(p + 32 * m, mask=there, other=0),)
    return words


@triton.jit
def any_flag(line_ptr, first_quad, quads, COLUMNS: tl.constexpr):
    """Whether any sample of the line's columns, or of others beside them, may be beyond the clamp."""
    quad = first_quad + tl.arange(0, 16 if COLUMNS <= 4 else 32)
    flags = tl.load(line_ptr + quads * 16 + quad, mask=inside(quad, quads), other=0)
    return tl.max((flags != 0).to(tl.int32)) != 0


@triton.jit
def clamped_and_noted(samples, limit, line_ptr, own, quads, first_quad, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """Clamp COUNT columns of samples from column FIRST on; note which were, and in the flags whether any."""
    most = tl.abs(samples[0])
    for i in tl.static_range(1, 2 * COUNT):
        most = tl.maximum(most, tl.abs(samples[i]))
    most = tl.max(tl.max(tl.max(tl.reshape(most, [2, 8, 2, 4, 2]), axis=0), axis=1), axis=2)  # [8, 4]: one a thread
    beyond = tl.max(tl.reshape((most > limit).to(tl.int32), [32])) != 0
    i_flag = 4 * FIRST + tl.arange(0, 16)
    tl.store(line_ptr + quads * 16 + first_quad + i_flag, tl.zeros([16], tl.int16) + beyond.to(tl.int16),
             mask=i_flag < tl.minimum(own, 4 * (FIRST + COUNT)))  # fmt: skip
    if beyond:  # rare
        result = ()
        for m in tl.static_range(COUNT):
            upper, lower = samples[2 * m], samples[2 * m + 1]
            tl.store(line_ptr + quads * 8 + words_of(first_quad, quads, FIRST + m),
                     word_of_bits(tl.abs(upper) > limit, tl.abs(lower) > limit),
                     mask=(4 * (FIRST + m) + tl.arange(0, 4) < own)[None, :])  # fmt: skip
            result = result + (clamped(upper, limit), clamped(lower, limit))
        samples = result
    return samples


@triton.jit
def without_clamped(samples, line_ptr, quads, first_quad, FIRST: tl.constexpr, COUNT: tl.constexpr):
    """COUNT columns of samples from column FIRST on, with 0 where they were clamped."""
    passed = ()
    for m in tl.static_range(COUNT):
        words = words_of(first_quad, quads, FIRST + m)
        there = tl.load(line_ptr + quads * 16 + words // 8) != 0  # 8 words, a quad, share a flag
        beyond = bytes_of_word(tl.load(line_ptr + quads * 8 + words, mask=there, other=0))
        for h in tl.static_range(2):
            v = samples[2 * m + h]
            passed = passed + (tl.where(bits_of_bytes(beyond, h), tl.zeros_like(v), v),)
    return passed
