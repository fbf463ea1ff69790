"""bias_act on Triton: one elementwise pass forward and one for each order of gradient.

    u = scale * x + noise + b          v = gain * act(u)          y = clamp(v)

The tensor is a matrix [rows, columns] in the order of memory: its columns are the pixels of one channel plane or, where
channels lie closest together (channels_last, [N, C]), the channels. Either way one division per row finds bias and
scale, and columns are read 16 bytes at a time.

relu and lrelu, and every clamp, have a derivative that is one of a few constants. So that nothing else need be saved
for backward, the forward pass can write signs, 2 bits per element: bit 0 says that u is on the slope, bit 1 that v was
clamped. A byte holds the signs of four elements of one column, a quarter of the rows apart: a program works on four
tiles of rows at once, and packing takes no exchange between threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from sg3.kernels.bias_act.activations import ACTIVATIONS
from sg3.kernels.bias_act.activations_triton import activation, derivative, second_derivative
from sg3.kernels.bias_act.settings import Settings
from sg3.kernels.triton_launch import launch
from sg3.kernels.tuning import Tunable

NARROWEST = 16  # columns of a tile; wider is the next power of two


@triton.jit
def _forward_kernel(
    x_ptr, b_ptr, scale_ptr, noise_ptr, y_ptr, signs_ptr,
    rows, columns, channels, pixels, noise_step, alpha, gain, clamp,
    ACT: tl.constexpr, CLAMPED: tl.constexpr, CHANNELS_ARE_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    first_row, column = _tile(columns, ROWS, COLUMNS)
    in_columns, quarter = column < columns, tl.cdiv(rows, 4)
    signs = tl.zeros([ROWS, COLUMNS], tl.uint8)
    for k in tl.static_range(4):
        row, in_rows = _rows(first_row, k, quarter, rows)
        at, wanted = row * columns + column, in_rows & in_columns
        u = _preactivation(x_ptr, b_ptr, scale_ptr, noise_ptr, at, row, column, in_rows, in_columns, channels, pixels,
                           noise_step, CHANNELS_ARE_COLUMNS)
        v = activation(u, alpha, ACT) * gain
        y = v
        if CLAMPED:
            y = tl.where(v > clamp, clamp, tl.where(v < -clamp, -clamp, v))  # NaN stays
        tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), mask=wanted)
        if signs_ptr is not None:
            if ACT == "relu":  # so that at NaN, too, it is as in torch
                signs |= tl.where(u <= 0, 1 << 2 * k, 0).to(tl.uint8)
            if ACT == "lrelu":
                signs |= tl.where(u > 0, 0, 1 << 2 * k).to(tl.uint8)
            if CLAMPED:
                signs |= tl.where(_within(v, clamp), 0, 2 << 2 * k).to(tl.uint8)
    if signs_ptr is not None:
        row = first_row.to(tl.int64)
        tl.store(signs_ptr + (row * columns + column), signs, mask=(row < quarter) & in_columns)


@triton.jit
def _grad_kernel(
    dy_ptr, signs_ptr, x_ptr, b_ptr, scale_ptr, noise_ptr, du_ptr,
    rows, columns, channels, pixels, noise_step, alpha, gain, clamp,
    ACT: tl.constexpr, CLAMPED: tl.constexpr, CHANNELS_ARE_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """du = dy * dv/du where not clamped; from the signs, or for smooth activations from x."""
    first_row, column = _tile(columns, ROWS, COLUMNS)
    in_columns, quarter = column < columns, tl.cdiv(rows, 4)
    if signs_ptr is not None:
        row = first_row.to(tl.int64)
        signs = tl.load(signs_ptr + (row * columns + column), mask=(row < quarter) & in_columns, other=0)
    for k in tl.static_range(4):
        row, in_rows = _rows(first_row, k, quarter, rows)
        at, wanted = row * columns + column, in_rows & in_columns
        du = tl.load(dy_ptr + at, mask=wanted, other=0.0).to(tl.float32) * gain
        if x_ptr is not None:
            u = _preactivation(x_ptr, b_ptr, scale_ptr, noise_ptr, at, row, column, in_rows, in_columns, channels,
                               pixels, noise_step, CHANNELS_ARE_COLUMNS)
            du *= derivative(u, ACT)
            if CLAMPED:
                du = tl.where(_within(activation(u, alpha, ACT) * gain, clamp), du, 0.0)
        if signs_ptr is not None:
            if ACT == "relu":
                du = tl.where((signs & 1 << 2 * k) != 0, 0.0, du)
            if ACT == "lrelu":
                du = tl.where((signs & 1 << 2 * k) != 0, du * alpha, du)
            if CLAMPED:
                du = tl.where((signs & 2 << 2 * k) != 0, 0.0, du)
        tl.store(du_ptr + at, du.to(du_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def _second_grad_kernel(
    g_ptr, dy_ptr, x_ptr, b_ptr, scale_ptr, noise_ptr, out_ptr,
    rows, columns, channels, pixels, noise_step, alpha, gain, clamp,
    ACT: tl.constexpr, CLAMPED: tl.constexpr, CHANNELS_ARE_COLUMNS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """g * dy * d2v/du2 where not clamped: what the gradient g of du means for u. Smooth activations only."""
    first_row, column = _tile(columns, ROWS, COLUMNS)
    in_columns, quarter = column < columns, tl.cdiv(rows, 4)
    for k in tl.static_range(4):
        row, in_rows = _rows(first_row, k, quarter, rows)
        at, wanted = row * columns + column, in_rows & in_columns
        u = _preactivation(x_ptr, b_ptr, scale_ptr, noise_ptr, at, row, column, in_rows, in_columns, channels, pixels,
                           noise_step, CHANNELS_ARE_COLUMNS)
        g = tl.load(g_ptr + at, mask=wanted, other=0.0).to(tl.float32)
        dy = tl.load(dy_ptr + at, mask=wanted, other=0.0).to(tl.float32)
        out = g * dy * gain * second_derivative(u, ACT)
        if CLAMPED:
            out = tl.where(_within(activation(u, alpha, ACT) * gain, clamp), out, 0.0)
        tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def _tile(columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """This program's rows of the first quarter [ROWS, 1] and its columns [1, COLUMNS]."""
    blocks = tl.cdiv(columns, COLUMNS)
    program = tl.program_id(0)
    row = (program // blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    column = (program % blocks) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return row, column


@triton.jit
def _rows(first_row, k, quarter, rows):
    """The rows of quarter k, as int64, and which of them exist."""
    row = first_row.to(tl.int64) + k * quarter
    return row, (first_row < quarter) & (row < rows)


@triton.jit
def _preactivation(
    x_ptr, b_ptr, scale_ptr, noise_ptr, at, row, column, in_rows, in_columns, channels, pixels, noise_step,
    CHANNELS_ARE_COLUMNS: tl.constexpr,
):  # fmt: skip
    """u = scale * x + noise + b in float32. scale is [N, C]; noise [N, pixels], or [pixels] if noise_step is 0."""
    wanted = in_rows & in_columns
    row = row.to(tl.int32)  # there are fewer than 2^31 rows, and a division of 64 bits is a long way
    if CHANNELS_ARE_COLUMNS:
        n, pixel, channel = row // pixels, row % pixels, column
        scale_mask, noise_mask, channel_mask = wanted, in_rows, in_columns
    else:
        n, pixel, channel = row // channels, column, row % channels
        scale_mask, noise_mask, channel_mask = in_rows, wanted, in_rows
    u = tl.load(x_ptr + at, mask=wanted, other=0.0).to(tl.float32)
    if scale_ptr is not None:
        u *= tl.load(scale_ptr + (n.to(tl.int64) * channels + channel), mask=scale_mask, other=0.0).to(tl.float32)
    if noise_ptr is not None:
        u += tl.load(noise_ptr + (n.to(tl.int64) * noise_step + pixel), mask=noise_mask, other=0.0).to(tl.float32)
    if b_ptr is not None:
        u += tl.load(b_ptr + channel, mask=channel_mask, other=0.0).to(tl.float32)
    return u


@triton.jit
def _within(v, clamp):
    """Where the clamp's gradient is 1: up to and including its bounds; not at NaN. As in `clamped`."""
    return (v >= -clamp) & (v <= clamp)


def forward(
    x: torch.Tensor,
    b: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    settings: Settings,
    with_signs: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y, in the layout of the settings, and the signs, uint8 [ceil(rows / 4), columns] ([0, 0] if not wanted)."""
    y, signs = settings.new_like(x), settings.new_signs(x, with_signs)
    ELEMENTWISE(y, "forward", [x, b, scale, noise, y, signs if with_signs else None], noise, settings)
    return y, signs


def grad(
    dy: torch.Tensor,
    signs: torch.Tensor,
    x: torch.Tensor | None,
    b: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    settings: Settings,
) -> torch.Tensor:
    """du from dy and the signs or, for smooth activations, what the forward pass was given."""
    du = settings.new_like(dy)
    tensors = [dy, signs if signs.numel() else None, x, b, scale, noise, du]
    ELEMENTWISE(du, "grad", tensors, noise, settings)
    return du


def second_grad(
    g: torch.Tensor,
    dy: torch.Tensor,
    x: torch.Tensor,
    b: torch.Tensor | None,
    scale: torch.Tensor | None,
    noise: torch.Tensor | None,
    settings: Settings,
) -> torch.Tensor:
    """The gradient of u from the gradient g of du; for smooth activations."""
    out = settings.new_like(dy)
    tensors = [g, dy, x, b, scale, noise, out]
    ELEMENTWISE(out, "second grad", tensors, noise, settings)
    return out


@dataclass(frozen=True)
class Config:
    """Bytes of a tile, of which a program has four, and warps."""

    tile_bytes: int
    warps: int


RULE = Config(16 * 32 * 4, 4)  # the widest load for each thread
OTHERS = (Config(16 * 32 * 2, 2), Config(16 * 32 * 4, 8), Config(16 * 32 * 8, 4), Config(16 * 32 * 8, 8))


KERNELS: dict[str, Any] = {"forward": _forward_kernel, "grad": _grad_kernel, "second grad": _second_grad_kernel}


class Kind(NamedTuple):
    """What the choice of a configuration depends on. `given`: which tensors the kernel has, in the order of its
    arguments."""

    order: str
    act: str
    clamped: bool
    channels_are_columns: bool
    dtype: str
    given: str


def _class_of(
    image: torch.Tensor, order: str, tensors: list[torch.Tensor | None], noise: torch.Tensor | None, settings: Settings
) -> Kind:
    given = "".join("-" if tensor is None else "x" for tensor in tensors)
    by_channel = settings.matrix(image)[2]
    return Kind(order, settings.act, settings.clamp is not None, by_channel, str(image.dtype)[6:], given)


def _launch(
    config: Config, image: torch.Tensor, order: str, tensors: list[torch.Tensor | None], noise: torch.Tensor | None,
    settings: Settings,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Run a kernel. What has `image`'s shape is put into its layout, everything else made contiguous."""
    rows, columns, channels_are_columns = settings.matrix(image)
    assert rows < 2**31
    dense = [t if t is None else settings.in_memory_order(t).contiguous() if t.shape == image.shape else t.contiguous()
             for t in tensors]
    tile = config.tile_bytes // image.element_size()
    tile_columns = min(max(triton.next_power_of_2(columns), NARROWEST), tile)
    tile_rows = tile // tile_columns
    grid = (triton.cdiv(triton.cdiv(rows, 4), tile_rows) * triton.cdiv(columns, tile_columns),)
    pixels = prod(image.shape[2:])
    noise_step = 0 if noise is None or noise.shape[0] == 1 else pixels
    launch(
        KERNELS[order], grid, *dense, rows, columns, image.shape[settings.dim], pixels, noise_step,
        settings.alpha, settings.gain, 0.0 if settings.clamp is None else settings.clamp, like=image,
        ACT=settings.act, CLAMPED=settings.clamp is not None, CHANNELS_ARE_COLUMNS=channels_are_columns,
        ROWS=tile_rows, COLUMNS=tile_columns, num_warps=config.warps,
    )  # fmt: skip
    return tuple(t for t in tensors[4 if order == "forward" else -1 :] if t is not None)


def _expected(
    dtype: torch.dtype, image: torch.Tensor, order: str, tensors: list[torch.Tensor | None],
    noise: torch.Tensor | None, settings: Settings,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The first image of y by the formula of the module's docstring; signs and derivatives are not said."""
    if order != "forward":
        return (None,)
    first = slice(1 if settings.dim else None)
    x, b, scale, noise = (None if t is None else t.to(dtype) for t in tensors[:4])
    assert x is not None
    u = x[first]
    if scale is not None:
        u = u * scale[first, :, None, None]
    if noise is not None:
        u = u + noise[first]
    if b is not None:
        u = u + b.reshape([-1 if i == settings.dim else 1 for i in range(x.ndim)])
    v = ACTIVATIONS[settings.act].function(u, settings.alpha) * settings.gain
    return v if settings.clamp is None else v.clamp(-settings.clamp, settings.clamp), None


ELEMENTWISE = Tunable(
    "bias_act", _launch, _class_of, lambda kind, arch: RULE, lambda kind, arch: OTHERS, _expected
)  # fmt: skip


def compile_cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """A name and a launch for every activation, layout and set of inputs, for ahead-of-time compilation."""
    for act in ACTIVATIONS:
        common = act in ("lrelu", "swish")
        for dtype in (torch.float16, torch.bfloat16, torch.float32) if common else (torch.float16,):
            for layout in ("contiguous", "channels_last") if common and dtype == torch.float16 else ("contiguous",):
                x = torch.empty((2, 64, 32, 64), dtype=dtype)
                x = x.to(memory_format=torch.channels_last) if layout == "channels_last" else x
                b, scale, noise = torch.empty(64, dtype=dtype), torch.empty(2, 64), torch.empty(2, 1, 32, 64)
                settings = Settings(1, act, 0.2, 1.5, 256.0, layout == "channels_last")
                name = f"{act}/{str(dtype).removeprefix('torch.')}/{layout}"
                signs = settings.new_signs(x, wanted=not settings.smooth)
                yield f"bias_act/{name}", partial(forward, x, b, None, None, settings, not settings.smooth)
                if not settings.smooth:
                    yield f"bias_act_grad/{name}", partial(grad, x, signs, None, None, None, None, settings)
                else:
                    yield f"bias_act_grad/{name}", partial(grad, x, signs, x, b, None, None, settings)
                    yield f"bias_act_second_grad/{name}", partial(second_grad, x, x, x, b, None, None, settings)
                if common:
                    yield f"scaled_bias_act/{name}", partial(forward, x, b, scale, noise, settings, not settings.smooth)
