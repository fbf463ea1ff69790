"""upfirdn2d on Triton: a polyphase FIR, one program per block of output pixels and channels.

The upsampled image is never formed. Along an axis, output o sees the upsampled coordinates i + j with i = o * down - p0
and 0 <= j < taps, of which only the multiples of up hold samples: the first is at sample s = ceil(i / up) and meets tap
j = s * up - i, every further sample comes up taps later. So an output costs ceil(taps / up) products.

The taps are data and their number is an argument: a filter that changes its length from step to step is not compiled
anew. Only the few sizes in `UNROLLED` are constants, so that their loops vanish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from sg3.kernels.memory_format import new_image
from sg3.kernels.triton_launch import launch
from sg3.kernels.tuning import Tunable
from sg3.kernels.upfirdn2d import impl_torch

# (taps_y, taps_x) that are compiled as constants: StyleGAN2's 4 x 4 and the usual 1-D filters, one axis at a time.
UNROLLED = {(1, 1), (4, 4), (1, 4), (4, 1), (1, 8), (8, 1), (1, 12), (12, 1)}


@dataclass(frozen=True)
class Config:
    """Outputs of a program, the most channels among which they may be, warps."""

    outputs: int
    channels: int
    warps: int


# The rule, by layout. Across channels a thread loads 16 bytes of half precision. In a row a load can start at any
# sample, so there it is of single samples, side by side in a warp.
RULE = {"channels_last": Config(1024, 128, 4), "contiguous": Config(512, 1, 4)}
OTHERS = {
    "channels_last": (Config(512, 64, 4), Config(1024, 64, 4), Config(1024, 128, 8), Config(2048, 128, 8)),
    "contiguous": (Config(256, 1, 4), Config(512, 1, 2), Config(1024, 1, 4), Config(1024, 1, 8), Config(2048, 1, 8)),
}


# Sizes, padding and taps change from call to call; specialised on their values, every change would compile. Strides are
# specialised, since loads of 16 bytes need to know that they are 1 or a multiple of 16.
@triton.jit(do_not_specialize=["h", "w", "out_h", "out_w", "taps_y", "taps_x", "pad_y", "pad_x"])
def _upfirdn2d_kernel(
    x_ptr, f_ptr, y_ptr,
    channels, h, w, out_h, out_w, taps_y, taps_x, pad_y, pad_x, gain,
    stride_xn, stride_xc, stride_xh, stride_xw, stride_yn, stride_yc, stride_yh, stride_yw,
    UP_Y: tl.constexpr, UP_X: tl.constexpr, DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, FLIP: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """y[n, c, oy, ox] = gain * sum over taps. f is [taps_y, taps_x], float32; TAPS = 0 means as many as taps says."""
    pixel_blocks = tl.cdiv(out_h * out_w, PIXELS)
    channel_blocks = tl.cdiv(channels, CHANNELS)
    program = tl.program_id(0)
    plane = program // pixel_blocks
    n = (plane // channel_blocks).to(tl.int64)
    c = (plane % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)[None, :]  # [1, C]
    pixel = (program % pixel_blocks) * PIXELS + tl.arange(0, PIXELS)[:, None]  # [P, 1]
    oy, ox = pixel // out_w, pixel % out_w
    wanted_c, wanted = c < channels, pixel < out_h * out_w

    sy, first_y = _first_sample(oy, pad_y, UP_Y, DOWN_Y)
    sx, first_x = _first_sample(ox, pad_x, UP_X, DOWN_X)
    c = c.to(tl.int64)
    x_ptrs = x_ptr + n * stride_xn + c * stride_xc + (sy.to(tl.int64) * stride_xh + sx.to(tl.int64) * stride_xw)

    UNROLL_Y: tl.constexpr = (TAPS_Y + UP_Y - 1) // UP_Y if TAPS_Y > 0 else 1
    UNROLL_X: tl.constexpr = (TAPS_X + UP_X - 1) // UP_X if TAPS_X > 0 else 1
    if TAPS_Y > 0:
        taps_y, taps_x = TAPS_Y, TAPS_X
    step_h, step_w = tl.cast(stride_xh, tl.int64), tl.cast(stride_xw, tl.int64)
    acc = tl.zeros([PIXELS, CHANNELS], tl.float32)
    for ty in tl.range((taps_y + UP_Y - 1) // UP_Y, loop_unroll_factor=UNROLL_Y):
        for tx in tl.range((taps_x + UP_X - 1) // UP_X, loop_unroll_factor=UNROLL_X):
            tap = _tap(f_ptr, first_y, first_x, ty, tx, taps_y, taps_x, UP_Y, UP_X, FLIP)
            inside = wanted & (sy + ty >= 0) & (sy + ty < h) & (sx + tx >= 0) & (sx + tx < w)
            sample = tl.load(x_ptrs + (ty * step_h + tx * step_w), mask=inside & wanted_c, other=0.0)
            acc += tap * sample.to(tl.float32)

    y_ptrs = y_ptr + n * stride_yn + c * stride_yc + (oy.to(tl.int64) * stride_yh + ox.to(tl.int64) * stride_yw)
    tl.store(y_ptrs, (acc * gain).to(y_ptr.dtype.element_ty), mask=wanted & wanted_c)


@triton.jit
def _first_sample(o, pad, UP: tl.constexpr, DOWN: tl.constexpr):
    """For outputs o along one axis: the first sample that their taps reach, and the tap that it meets."""
    i = o * DOWN - pad
    if UP == 1:
        s, first = i, 0
    else:
        periods = tl.maximum(pad, 0) // UP + 1  # keeps the dividend positive, for `//` rounds towards 0
        s = (i + periods * UP + UP - 1) // UP - periods
        first = s * UP - i
    return s, first


@triton.jit
def _tap(
    f_ptr, first_y, first_x, ty, tx, taps_y, taps_x, UP_Y: tl.constexpr, UP_X: tl.constexpr, FLIP: tl.constexpr
):
    """The tap of step (ty, tx): one number where nothing is upsampled, otherwise one per pixel; 0 beyond the filter."""
    jy, jx = first_y + ty * UP_Y, first_x + tx * UP_X
    index = jy * taps_x + jx
    if not FLIP:  # a convolution: the last tap meets the first sample
        index = taps_y * taps_x - 1 - index
    if UP_Y == 1 and UP_X == 1:
        tap = tl.load(f_ptr + index)
    else:  # without upsampling along an axis there is no step beyond the filter
        reached = (jy < taps_y) if UP_X == 1 else (jx < taps_x)
        if UP_Y > 1 and UP_X > 1:
            reached = reached & (jy < taps_y)
        tap = tl.load(f_ptr + index, mask=reached, other=0.0)
    return tap


def forward(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    flip_filter: bool,
    gain: float,
    size: tuple[int, int],
    channels_last: bool,
) -> torch.Tensor:
    """[N, C, H, W] with any strides -> [N, C, *size] of x's dtype, dense, channels_last or contiguous.

    up, down = (x, y) and pad = (x0, y0) as in the op; f is [taps], [taps_y, taps_x] or None. A separable filter takes
    two passes with a float32 image between them, so that there is one rounding.
    """
    f = x.new_ones((1, 1), dtype=torch.float32) if f is None else f.to(torch.float32).contiguous()
    if f.ndim == 2:
        y = new_image(x, *size, channels_last=channels_last)
        filter_into(y, x, f, up, down, pad, flip_filter, gain)
        return y
    rows = new_image(x, x.shape[2], size[1], dtype=torch.float32, channels_last=channels_last)
    filter_into(rows, x, f[None, :], (up[0], 1), (down[0], 1), (pad[0], 0), flip_filter, 1.0)
    y = new_image(x, *size, channels_last=channels_last)
    filter_into(y, rows, f[:, None], (1, up[1]), (1, down[1]), (0, pad[1]), flip_filter, gain)
    return y


def filter_into(
    y: torch.Tensor,
    x: torch.Tensor,
    f: torch.Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    pad: tuple[int, int],
    flip_filter: bool,
    gain: float,
) -> None:
    """One pass: write y [N, C, OH, OW] from x [N, C, H, W], any strides; f contiguous [taps_y, taps_x], float32."""
    PASS(y, x, f, up, down, pad, flip_filter, gain)


class Kind(NamedTuple):
    """What the choice of a configuration depends on. Pairs are (x, y); taps are 0 where their number is an argument."""

    layout: str
    dtype: str   # of the image
    result: str  # that of the result: between two passes it is float32
    taps: tuple[int, int]
    up: tuple[int, int]
    down: tuple[int, int]


def _class_of(
    y: torch.Tensor, x: torch.Tensor, f: torch.Tensor, up: tuple[int, int], down: tuple[int, int],
    pad: tuple[int, int], flip_filter: bool, gain: float,
) -> Kind:  # fmt: skip
    layout = "channels_last" if y.shape[1] > 1 and y.stride(1) == 1 else "contiguous"
    return Kind(layout, str(x.dtype)[6:], str(y.dtype)[6:], _unrolled(f), up, down)


def _unrolled(f: torch.Tensor) -> tuple[int, int]:
    taps = f.shape[0], f.shape[1]
    return taps if taps in UNROLLED else (0, 0)


def _launch(
    config: Config, y: torch.Tensor, x: torch.Tensor, f: torch.Tensor, up: tuple[int, int], down: tuple[int, int],
    pad: tuple[int, int], flip_filter: bool, gain: float,
) -> tuple[torch.Tensor]:  # fmt: skip
    n, channels, out_h, out_w = y.shape
    block_c = min(triton.next_power_of_2(channels), config.channels)
    block_p = config.outputs // block_c
    if block_c == 1 and out_h * out_w < block_p:  # a small image: channels fill the program
        block_p = max(triton.next_power_of_2(out_h * out_w), 16)
        block_c = min(triton.next_power_of_2(channels), config.outputs // block_p)
    grid = (n * triton.cdiv(channels, block_c) * triton.cdiv(out_h * out_w, block_p),)
    unrolled = _unrolled(f)
    launch(
        _upfirdn2d_kernel, grid, x, f, y, channels, x.shape[2], x.shape[3], out_h, out_w, *f.shape, pad[1], pad[0],
        float(gain), *x.stride(), *y.stride(), like=x,
        UP_Y=up[1], UP_X=up[0], DOWN_Y=down[1], DOWN_X=down[0], TAPS_Y=unrolled[0], TAPS_X=unrolled[1],
        FLIP=flip_filter, PIXELS=block_p, CHANNELS=block_c, num_warps=config.warps,
    )  # fmt: skip
    return (y,)


def _expected(
    dtype: torch.dtype, y: torch.Tensor, x: torch.Tensor, f: torch.Tensor, up: tuple[int, int], down: tuple[int, int],
    pad: tuple[int, int], flip_filter: bool, gain: float,
) -> tuple[torch.Tensor]:  # fmt: skip
    """The first image, by impl='torch'."""
    x1, y1 = ((y.shape[3 - i] - 1) * down[i] + f.shape[1 - i] - x.shape[3 - i] * up[i] - pad[i] for i in (0, 1))
    size = y.shape[2], y.shape[3]
    return (impl_torch.forward(x[:1].to(dtype), f, up, down, (pad[0], x1, pad[1], y1), flip_filter, gain, size, False),)


PASS = Tunable(
    "upfirdn2d pass", _launch, _class_of, lambda kind, arch: RULE[kind.layout],
    lambda kind, arch: OTHERS[kind.layout], _expected,
)  # fmt: skip


def compile_cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """A name and a launch for every kind of kernel that the tables lead to, for ahead-of-time compilation."""
    shape, runtime = (1, 128, 32, 32), [(7, 7), (1, 61)]
    common = [(4, 4), (1, 12), *runtime]
    for dtype, layout, every_taps, factors in (
        (torch.float16, "contiguous", [*sorted(UNROLLED), *runtime], [(1, 1)]),
        (torch.float16, "channels_last", [*sorted(UNROLLED), *runtime], [(1, 1)]),
        (torch.float16, "contiguous", common, [(2, 1), (1, 2)]),
        (torch.float16, "channels_last", common, [(2, 1), (1, 2)]),
        (torch.float16, "small", common, [(1, 1)]),
        (torch.bfloat16, "contiguous", [(4, 4)], [(1, 1)]),
        (torch.float32, "contiguous", common, [(1, 1), (2, 1)]),
        (torch.float32, "channels_last", common, [(1, 1)]),
    ):
        x = torch.empty((1, 128, 2, 2) if layout == "small" else shape, dtype=dtype)
        x = x.to(memory_format=torch.channels_last) if layout == "channels_last" else x
        for taps, (up, down) in product(every_taps, factors):
            along_y = 1 if taps[0] == 1 else up, 1 if taps[0] == 1 else down  # a 1-D filter is a pass along one axis
            name = f"upfirdn2d/{str(dtype).removeprefix('torch.')}/{layout}/{taps[0]}x{taps[1]}/up{up}down{down}"
            yield name, partial(
                filter_into, torch.empty_like(x), x, torch.ones(taps), (up, along_y[0]), (down, along_y[1]), (1, 1),
                False, 1.0,
            )  # fmt: skip
