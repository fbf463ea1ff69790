"""The two small kernels behind a modulated convolution: one reads the weights, the other the styles.

Both sum in float32 and in a fixed order. The weights' takes a program for each output channel; the styles' one for a
sample and some output channels, each of which adds up the whole batch again: that is a few thousand numbers from L2,
and saves a launch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import triton
import triton.language as tl

from sg3.kernels.triton_launch import launch

INS = 64    # input channels at a time
OUTS = 32   # output channels of a program of the styles
ROW = 1024  # numbers at a time where only their squares are added up
TAPS = 16   # of a kernel at a time


def normalize_weights(w: torch.Tensor, normalized: torch.Tensor, squares: torch.Tensor) -> None:
    """Fill `normalized`, contiguous [O, I, kh, kw], with w over the norm of each output channel, and `squares` [O, I],
    float32, with the sums of its squares over a kernel."""
    w = w.contiguous()
    o, i, kh, kw = w.shape
    launch(_normalize_weights, (o,), w, normalized, squares, i, kh * kw, like=w, ROW=ROW, INS=INS, TAPS=TAPS,
           num_warps=4, num_stages=1)  # fmt: skip


def modulation_scales(
    s: torch.Tensor,
    input_gain: torch.Tensor | None,
    squares: torch.Tensor | None,
    before: torch.Tensor,
    after: torch.Tensor | None,
    eps: float,
) -> None:
    """Fill `before` [N, I] and, with `squares` [O, I], `after` [N, O] from s [N, I] and an input gain [N, I]."""
    s = s.contiguous()
    n, i = s.shape
    o = 0 if squares is None else squares.shape[0]
    largest = torch.finfo(before.dtype).max
    launch(
        _modulation_scales, (n * max(triton.cdiv(o, OUTS), 1),), s, input_gain, squares, before, after,
        n * i, i, o, max(triton.cdiv(o, OUTS), 1), *((0, 0) if input_gain is None else input_gain.stride()), eps,
        largest, like=s, DEMODULATE=squares is not None, HAS_GAIN=input_gain is not None,
        ROW=ROW, INS=INS, OUTS=OUTS, num_warps=4, num_stages=1,
    )  # fmt: skip


@triton.jit(do_not_specialize=["ins", "taps"])
def _normalize_weights(
    w_ptr, normalized_ptr, squares_ptr, ins, taps, ROW: tl.constexpr, INS: tl.constexpr, TAPS: tl.constexpr
):  # fmt: skip
    o = tl.program_id(0).to(tl.int64)
    size = ins * taps
    w_ptr += o * size
    normalized_ptr += o * size
    i_row, i_in, i_tap = tl.arange(0, ROW), tl.arange(0, INS), tl.arange(0, TAPS)

    sums = tl.zeros([ROW], tl.float32)
    for start in range(0, size, ROW):
        values = tl.load(w_ptr + start + i_row, mask=start + i_row < size, other=0.0).to(tl.float32)
        sums += values * values
    scale = 1.0 / tl.sqrt(tl.sum(sums, axis=0))

    for start in range(0, ins, INS):
        i = start + i_in  # [INS]
        squares = tl.zeros([INS], tl.float32)
        for first in range(0, taps, TAPS):
            tap = first + i_tap  # [TAPS]
            inside = (i < ins)[:, None] & (tap < taps)[None, :]
            offsets = i[:, None] * taps + tap[None, :]
            values = tl.load(w_ptr + offsets, mask=inside, other=0.0).to(tl.float32) * scale
            tl.store(normalized_ptr + offsets, values.to(normalized_ptr.dtype.element_ty), mask=inside)
            squares += tl.sum(tl.where(inside, values * values, 0.0), axis=1)
        tl.store(squares_ptr + o * ins + i, squares, mask=i < ins)


@triton.jit(do_not_specialize=["styles", "ins", "outs", "tiles", "gain_n", "gain_i"])
def _modulation_scales(
    s_ptr, gain_ptr, squares_ptr, before_ptr, after_ptr, styles, ins, outs, tiles, gain_n, gain_i, eps, largest,
    DEMODULATE: tl.constexpr, HAS_GAIN: tl.constexpr, ROW: tl.constexpr, INS: tl.constexpr, OUTS: tl.constexpr,
):  # fmt: skip
    n = (tl.program_id(0) // tiles).to(tl.int64)
    tile = tl.program_id(0) % tiles
    i_row, i_in, o = tl.arange(0, ROW), tl.arange(0, INS), tile * OUTS + tl.arange(0, OUTS)

    scale = 1.0
    if DEMODULATE:
        sums = tl.zeros([ROW], tl.float32)
        for start in range(0, styles, ROW):
            values = tl.load(s_ptr + start + i_row, mask=start + i_row < styles, other=0.0).to(tl.float32)
            sums += values * values
        scale = 1.0 / tl.sqrt(tl.sum(sums, axis=0) / styles)

    squared = tl.zeros([OUTS], tl.float32)
    for start in range(0, ins, INS):
        i = start + i_in  # [INS]
        s = tl.load(s_ptr + n * ins + i, mask=i < ins, other=0.0).to(tl.float32) * scale
        before = s
        if HAS_GAIN:
            before *= tl.load(gain_ptr + n * gain_n + i * gain_i, mask=i < ins, other=0.0).to(tl.float32)
        before = tl.where(before > largest, largest, before)  # NaN stays
        if tile == 0:
            tl.store(before_ptr + n * ins + i, before.to(before_ptr.dtype.element_ty), mask=i < ins)
        if DEMODULATE:
            inside = (o < outs)[:, None] & (i < ins)[None, :]
            squares = tl.load(squares_ptr + o[:, None].to(tl.int64) * ins + i[None, :], mask=inside, other=0.0)
            squared += tl.sum(tl.where(inside, squares * (s * s)[None, :], 0.0), axis=1)
    if DEMODULATE:
        after = 1.0 / tl.sqrt(squared + eps)
        after = tl.where(after > largest, largest, after)
        tl.store(after_ptr + n * outs + o, after.to(after_ptr.dtype.element_ty), mask=o < outs)


def compile_cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Both kernels in the types that they give: (name, a launch)."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        w, s, squares = torch.empty(48, 96, 3, 3), torch.empty(2, 96), torch.empty(48, 96)
        before, after = torch.empty(2, 96, dtype=dtype), torch.empty(2, 48, dtype=dtype)
        gain = torch.empty([]).expand(s.shape)
        yield f"modulation/weights {name}", partial(normalize_weights, w, w.to(dtype), squares)
        yield f"modulation/styles {name}", partial(modulation_scales, s, gain, squares, before, after, 1e-11)
        yield f"modulation/styles alone {name}", partial(modulation_scales, s, gain, None, before, None, 1e-11)
