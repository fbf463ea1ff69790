"""float32 in half-precision parts: the powers of two of a plane (`powers.py` says what for), on the GPU."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from sg3.kernels.triton_launch import launch


@triton.jit
def exponent(v):
    """e of a number in [2^e, 2^(e + 1)); -127 of 0 and what is smaller than normal numbers, 128 of infinity."""
    return (v.to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def power(e):
    """2^e for -127 < e < 128."""
    return ((e + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def times_power(v, e):
    """v * 2^e for -253 < e < 254, in two steps, since 2^e may be no number where the result is one."""
    return v * power(e >> 1) * power(e - (e >> 1))


@triton.jit
def powers(largest, bias, clamp, pixels, samples, up, CLAMP: tl.constexpr):
    """Exponents of two for the pixels of a plane and for its samples after the clamp, and the clamp among these."""
    scale = tl.minimum(pixels - 1 - exponent(largest + tl.abs(bias)), 126)
    lift = scale * 0
    if CLAMP:
        lift = tl.minimum(tl.maximum(samples - 1 - (exponent(clamp) + up + scale), 0), 126)
        clamp = times_power(clamp, up + scale + lift)
    return scale, lift, clamp


@triton.jit(do_not_specialize=["channels", "height", "width", "x_n", "x_c", "x_h"])
def _largest_kernel(x_ptr, largest_ptr, channels, height, width, x_n, x_c, x_h, x_w,
                    ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    plane = tl.program_id(0).to(tl.int64)
    x_ptr += plane // channels * x_n + plane % channels * x_c
    i_row, i_column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    most = tl.zeros([ROWS, COLUMNS], tl.float32)
    for row in range(0, height, ROWS):
        rows = (row + i_row).to(tl.int64)[:, None] * x_h
        for column in range(0, width, COLUMNS):
            mask = (row + i_row < height)[:, None] & (column + i_column < width)[None, :]
            x = tl.abs(tl.load(x_ptr + rows + (column + i_column)[None, :] * x_w, mask=mask, other=0))
            most = tl.maximum(most, tl.where(x < float("inf"), x, 0.0))
    tl.store(largest_ptr + plane, tl.max(tl.max(most, axis=1), axis=0))


def largest(x: torch.Tensor) -> torch.Tensor:
    """The largest finite magnitude of every plane of x [N, C, H, W], float32 [N * C]."""
    n, c, height, width = x.shape
    result = x.new_empty([n * c])
    launch(_largest_kernel, (n * c,), x, result, c, height, width, *x.stride(), like=x, room=(result,),
           ROWS=8, COLUMNS=128, num_warps=4, num_stages=1)  # fmt: skip
    return result
