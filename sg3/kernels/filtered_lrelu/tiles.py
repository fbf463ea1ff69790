"""filtered_lrelu in tiles, each by itself: four small matrix products around a pointwise step.

    V = Uy X Ux^T      upsample: X are input pixels, U the banded matrices of a `FilterPlan`
    V = act(gain V)    leaky ReLU and clamp, or, in the gradient op, times 1, the slope or 0 by the signs
    Y = Dy V Dx^T      downsample

V, which has up^2 times the samples, never leaves the chip but for its signs, two bits a sample: 0 where it passed, 1
where it took the slope, 2 where it was clamped; four neighbours in a byte, the first in the lowest bits. A plane of
signs begins at the first sample that the second filter reads and ends with the last; what fills its last byte up is 2.

Non-finite input spoils its tile rather than only its surroundings (0 * inf in the products).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.banded import InParts, Tile, fit, plans
from sg3.kernels.filtered_lrelu.geometry import MARCHING, Resampling, both_sides
from sg3.kernels.filtered_lrelu.marching_float32 import largest, power, powers, times_power
from sg3.kernels.filtered_lrelu.powers import Powers
from sg3.kernels.triton_launch import dot_precision, exact_float32, launch, operand
from sg3.kernels.tuning import Tunable
from sg3.kernels.upfirdn2d.impl_torch import forward as resample

DO_NOT_SPECIALIZE = [
    "pixels_power", "samples_power", "up_power", "both_power",
    "channels", "x_height", "x_width", "y_height", "y_width", "s_height", "s_width", "x_n", "x_c", "x_h",
    "y_n", "y_c", "y_h", "tiles_x", "tiles_y", "step", "x_step", "s_step", "x_origin_x", "x_origin_y", "s_origin_x",
    "s_origin_y",
]  # fmt: skip


@triton.jit(do_not_specialize=DO_NOT_SPECIALIZE)
def _filtered_lrelu_kernel(
    x_ptr, b_ptr, y_ptr, signs_ptr, largest_ptr, up_x_ptr, up_y_ptr, down_x_ptr, down_y_ptr,
    channels, x_height, x_width, y_height, y_width, s_height, s_width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides
    tiles_x, tiles_y, step, x_step, s_step, x_origin_x, x_origin_y, s_origin_x, s_origin_y,
    gain, slope, clamp,
    pixels_power, samples_power, up_power, both_power,  # of float32 in parts: see powers.py
    UP_TERMS: tl.constexpr, DOWN_TERMS: tl.constexpr,  # 0: the step passes its input through
    WRITE: tl.constexpr, READ: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_CLAMP: tl.constexpr,
    X: tl.constexpr, S: tl.constexpr, Y: tl.constexpr, X_BLOCK: tl.constexpr, Y_BLOCK: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0) % (tiles_x * tiles_y)
    tile_x, tile_y = tile % tiles_x, tile // tiles_x
    plane = (tl.program_id(0) // (tiles_x * tiles_y)).to(tl.int64)

    n, c = plane // channels, plane % channels
    i_b, i_s, i_y = tl.arange(0, X_BLOCK), tl.arange(0, S), tl.arange(0, Y)
    i_byte = tl.arange(0, S // 4)
    quarter = 2 * tl.arange(0, 4)[None, None, :]  # where a sample's bits lie in its byte
    # Offsets within a tile are 32 bit, those of the tile and the plane 64 bit.

    if WRITE or READ:
        s_bytes = (s_width + 3) // 4
        row, byte_column = tile_y * s_step + s_origin_y, (tile_x * s_step + s_origin_x) // 4
        in_s = ((row + i_s >= 0) & (row + i_s < s_height))[:, None]
        in_s = in_s & ((byte_column + i_byte >= 0) & (byte_column + i_byte < s_bytes))[None, :]
        o_s = i_s[:, None] * s_bytes + i_byte[None, :]  # [S, S / 4]
        signs_ptr += row.to(tl.int64) * s_bytes + byte_column
    if WRITE:
        # Neighbouring tiles overlap. A sample belongs to the first tile that holds it but for the halo on the right
        # and below, which belongs to the next tile, unless there is none.
        own_rows = tl.where(tile_y == tiles_y - 1, S, s_step)
        own_columns = tl.where(tile_x == tiles_x - 1, S, s_step)
        in_s = in_s & (i_s < own_rows)[:, None] & (i_byte * 4 < own_columns)[None, :]
        filler = byte_column * 4 + i_s >= s_width

    row, column = tile_y * x_step + x_origin_y, tile_x * x_step + x_origin_x
    x_ptr += n * x_n + c * x_c + row.to(tl.int64) * x_h + column.to(tl.int64) * x_w
    bias = 0.0
    if HAS_BIAS:
        bias = tl.load(b_ptr + c).to(tl.float32)
    if PARTS == 2:
        bias, clamp = tl.cast(bias, tl.float32), tl.cast(clamp, tl.float32)
        scale, lift, clamp = powers(tl.load(largest_ptr + plane), bias, clamp, pixels_power, samples_power, up_power,
                                    HAS_CLAMP)  # fmt: skip
        gain, back, scale = power(lift), -(scale + lift + both_power), power(scale)
    if UP_TERMS == 0:
        in_x = ((row + i_s >= 0) & (row + i_s < x_height))[:, None]
        in_x = in_x & ((column + i_s >= 0) & (column + i_s < x_width))[None, :]
        v = tl.load(x_ptr + i_s[:, None] * x_h + i_s[None, :] * x_w, mask=in_x, other=0).to(tl.float32)
        v = tl.where(in_x, v + bias, 0.0)
    else:
        v = tl.zeros([S, S], dtype=tl.float32)
        for t in range(UP_TERMS):
            for i in range(0, X, X_BLOCK):  # a block of pixel rows
                wide = tl.zeros([X_BLOCK, S], dtype=tl.float32)
                for j in range(0, X, X_BLOCK):  # a block of pixel columns
                    i_row, i_column = i + i_b, j + i_b
                    in_x = ((row + i_row >= 0) & (row + i_row < x_height))[:, None]
                    in_x = in_x & ((column + i_column >= 0) & (column + i_column < x_width))[None, :]
                    x = tl.load(x_ptr + i_row[:, None] * x_h + i_column[None, :] * x_w, mask=in_x, other=0)
                    if HAS_BIAS:
                        x = tl.where(in_x, x.to(tl.float32) + bias, 0.0)
                    up_x_ptrs = up_x_ptr + t * X * S + i_column[:, None] * S + i_s[None, :]  # [X_BLOCK, S]
                    if PARTS == 2:
                        wide = _three_products(_in_parts(x * scale), _load_parts(up_x_ptrs, UP_TERMS * X * S), wide)
                    else:
                        up_x = tl.load(up_x_ptrs)
                        wide = tl.dot(x.to(OPERAND), up_x.to(OPERAND), acc=wide, input_precision=PRECISION)
                up_y_ptrs = up_y_ptr + t * S * X + i_s[:, None] * X + (i + i_b)[None, :]  # [S, X_BLOCK]
                if PARTS == 2:
                    v = _three_products(_load_parts(up_y_ptrs, UP_TERMS * S * X), _in_parts(wide), v)
                else:
                    up_y = tl.load(up_y_ptrs)
                    v = tl.dot(up_y.to(OPERAND), wide.to(OPERAND), acc=v, input_precision=PRECISION)
    v = v * gain

    if READ:
        byte = tl.load(signs_ptr + plane * s_height * s_bytes + o_s, mask=in_s, other=0xAA)
        signs = (byte.to(tl.int32)[:, :, None] >> quarter) & 3
        signs = tl.reshape(signs, [S, S])
        v = tl.where(signs == 0, v, tl.where(signs == 1, v * slope, 0.0))
    else:
        positive = v > 0
        signs = tl.where(positive, 0, 1)
        v = tl.where(positive, v, v * slope)
        if HAS_CLAMP:
            signs = tl.where(tl.abs(v) <= clamp, signs, 2)  # NaN, too
            v = tl.where(v > clamp, clamp, tl.where(v < -clamp, -clamp, v))  # NaN stays
    if WRITE:
        signs = tl.where(filler[None, :], 2, signs)
        byte = tl.sum(tl.reshape(signs, [S, S // 4, 4]) << quarter, axis=2)
        tl.store(signs_ptr + plane * s_height * s_bytes + o_s, byte.to(tl.uint8), mask=in_s)

    row, column = tile_y * step, tile_x * step
    y_ptr += n * y_n + c * y_c + row.to(tl.int64) * y_h + column.to(tl.int64) * y_w
    y_height, y_width = tl.minimum(y_height - row, step), tl.minimum(y_width - column, step)  # what is left of it
    if DOWN_TERMS == 0:
        in_y = (i_s < y_height)[:, None] & (i_s < y_width)[None, :]
        tl.store(y_ptr + i_s[:, None] * y_h + i_s[None, :] * y_w, v.to(y_ptr.dtype.element_ty), mask=in_y)
    else:
        if PARTS == 2:
            v = _in_parts(v)
        else:
            v = v.to(OPERAND)
        for j in range(0, Y, Y_BLOCK):  # a block of output columns
            i_column = j + tl.arange(0, Y_BLOCK)
            y = tl.zeros([Y, Y_BLOCK], dtype=tl.float32)
            for t in range(DOWN_TERMS):
                down_x_ptrs = down_x_ptr + t * S * Y + i_s[:, None] * Y + i_column[None, :]  # [S, Y_BLOCK]
                down_y_ptrs = down_y_ptr + t * Y * S + i_y[:, None] * S + i_s[None, :]  # [Y, S]
                if PARTS == 2:
                    narrow = tl.zeros([S, Y_BLOCK], dtype=tl.float32)
                    narrow = _three_products(v, _load_parts(down_x_ptrs, DOWN_TERMS * S * Y), narrow)
                    y = _three_products(_load_parts(down_y_ptrs, DOWN_TERMS * Y * S), _in_parts(narrow), y)
                else:
                    down_x = tl.load(down_x_ptrs)
                    narrow = tl.dot(v, down_x.to(OPERAND), input_precision=PRECISION)
                    down_y = tl.load(down_y_ptrs)
                    y = tl.dot(down_y.to(OPERAND), narrow.to(OPERAND), acc=y, input_precision=PRECISION)
            if PARTS == 2:
                y = times_power(y, back)
            in_y = (i_y < y_height)[:, None] & (i_column < y_width)[None, :]
            tl.store(y_ptr + i_y[:, None] * y_h + i_column[None, :] * y_w, y.to(y_ptr.dtype.element_ty), mask=in_y)


# float32 numbers in two half-precision parts, whose sum is meant.


@triton.jit
def _in_parts(a):
    high = a.to(tl.float16)
    return high, (a - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _load_parts(ptrs, step):
    return tl.load(ptrs), tl.load(ptrs + step)


@triton.jit
def _three_products(a, b, total):
    """total + a b, without the product of the low parts."""
    total = tl.dot(a[0], b[0], acc=total, input_precision="ieee")
    total = tl.dot(a[0], b[1], acc=total, input_precision="ieee")
    return tl.dot(a[1], b[0], acc=total, input_precision="ieee")


@dataclass(frozen=True)
class Config:
    """The tile, its input and output pixels multiplied at a time along an axis, warps, and the most registers that a
    thread may take, None for the compiler's choice."""

    tile: Tile
    x_block: int
    y_block: int
    warps: int
    registers: int | None = None


# The rule: by what multiplies (tensor cores, or the float32 units one product at a time) and by (up, down), the first
# row with room for the taps. Chosen for occupancy (no spills, at most 190 registers on sm_80 and sm_90) and few
# products an output. Radial filters have the rows of separable ones, and more terms.
TENSOR_CORES = {
    (2, 2): (Config(Tile(64, 64, 32), 64, 32, 4),),
    (4, 2): (Config(Tile(32, 64, 32), 32, 32, 4),),
    (2, 4): (Config(Tile(64, 64, 16), 64, 16, 4),),
}
TENSOR_CORES_OTHER = (Config(Tile(64, 64, 32), 64, 32, 4), Config(Tile(128, 64, 32), 64, 32, 8))
TENSOR_CORES_FLOAT32 = (Config(Tile(64, 64, 32), 32, 32, 8), Config(Tile(128, 64, 32), 32, 32, 8))
IN_PARTS = {  # float32
    (2, 2): (Config(Tile(64, 64, 32), 32, 32, 8),),
    (4, 2): (Config(Tile(32, 64, 32), 32, 32, 8),),
    (2, 4): (Config(Tile(64, 64, 16), 32, 16, 8),),
}
EXACT = {
    (2, 2): (Config(Tile(32, 64, 32), 32, 16, 8),),
    (4, 2): (Config(Tile(32, 64, 32), 32, 16, 8),),
    (2, 4): (Config(Tile(64, 64, 16), 16, 16, 4),),
}
EXACT_OTHER = (Config(Tile(128, 64, 32), 32, 16, 8),)
# Of a thread, on other architectures than those two: by itself ptxas spills a register or two there, to fit one more
# program onto a multiprocessor. Told these numbers it does not, for any class of sm_86, 89, 100 and 120.
MOST_REGISTERS = 240
MOST_REGISTERS_RADIAL = 248  # of float32 in parts


class Kind(NamedTuple):
    """What the choice of a configuration depends on. Taps are negative for a two-dimensional filter."""

    up: int
    up_taps: int
    down: int
    down_taps: int
    dtype: str
    precision: str  # of float32 products
    mode: str       # 'plain', 'with signs', 'grad'


def _class_of(
    x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, middle: tuple[int, int],
    read: bool, fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, gain: float, slope: float,
    clamp: float | None,
) -> Kind:  # fmt: skip
    mode = "grad" if read else "plain" if signs is None else "with signs"
    precision = precision_of(x, resampling)
    return Kind(resampling.up, _taps(fu), resampling.down, _taps(fd), str(x.dtype)[6:], precision, mode)


def precision_of(x: torch.Tensor, resampling: Resampling) -> str:
    """How tensor cores may treat float32 products: as PyTorch's switches say, or, where these ask for exact ones, in
    half-precision parts, if the factors are those of StyleGAN3's filters (others have no configuration for it)."""
    precision = dot_precision(x.dtype)
    in_parts = x.dtype == torch.float32 and precision == "ieee" and not exact_float32()
    return "fp16x3" if in_parts and (resampling.up, resampling.down) in MARCHING else precision


def _taps(f: torch.Tensor | None) -> int:
    return 1 if f is None else f.shape[0] if f.ndim == 1 else -max(f.shape)


def rule(kind: Kind, arch: int) -> Config:
    """The row of the table for these filters. Raises ValueError if no tile has room for them."""
    factors = kind.up, kind.down
    if kind.dtype != "float32":
        rows = *TENSOR_CORES.get(factors, ()), *TENSOR_CORES_OTHER
    elif kind.precision == "fp16x3":
        rows = *IN_PARTS[factors], *TENSOR_CORES_FLOAT32
    elif kind.precision == "ieee":
        rows = *EXACT.get(factors, ()), *EXACT_OTHER
    else:
        rows = TENSOR_CORES_FLOAT32
    for row in rows:
        if _has_room(row, kind):
            in_parts = kind.precision == "fp16x3" and kind.down_taps < 0
            most = MOST_REGISTERS_RADIAL if in_parts else MOST_REGISTERS
            return row if arch in (80, 90) else replace(row, registers=most)
    raise ValueError(
        f"fu, fd: got {abs(kind.up_taps)} and {abs(kind.down_taps)} taps with up={kind.up}, down={kind.down}; "
        "impl='triton' has room for 32 with factors up to 4; use impl='torch'"
    )


def _has_room(row: Config, kind: Kind) -> bool:
    return fit(row.tile, abs(kind.up_taps), abs(kind.down_taps), kind.up, kind.down, lead=3) > 0


def _others(kind: Kind, arch: int) -> Iterator[Config]:
    """The rule's with other warps; tiles with room for the filters, multiplied in blocks and at once, with fewer
    registers, too."""
    chosen = rule(kind, arch)
    yield replace(chosen, warps=12 - chosen.warps)
    exact = kind.dtype == "float32" and kind.precision == "ieee"
    y = 16 if kind.down == 4 else 32
    for x, x_block in ((32, 32), (48, 16), (64, 32), (64, 64)):
        row = Config(Tile(x, 64, y), x_block, 16 if exact else y, chosen.warps)
        if _has_room(row, kind):
            yield from (row, replace(row, registers=128))


def _expected(
    dtype: torch.dtype, x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None,
    middle: tuple[int, int], read: bool, fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling,
    gain: float, slope: float, clamp: float | None,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """The first image of y by impl='torch', step by step; of the signs nothing."""
    up, down, flip, (before, after) = resampling.up, resampling.down, resampling.flip_filter, resampling.filter_gains
    size = y.shape[2], y.shape[3]
    x = x[:1].to(dtype)
    if b is not None:
        x = x + b.to(dtype)[:, None, None]
    margins = both_sides(resampling.up_padding, x.shape[2:], up, 1, fu, middle)
    v = resample(x, fu, (up, up), (1, 1), margins, flip, before, middle, False) * gain
    if read and signs is not None:
        width = (middle[1] + 3) // 4  # bytes; plane follows plane
        packed = signs.flatten()[: x.shape[1] * middle[0] * width].reshape(1, x.shape[1], middle[0], width)
        of_samples = torch.stack([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], dim=-1).flatten(-2)
        factors = torch.tensor([1.0, slope, 0.0, 0.0], dtype=dtype, device=x.device)
        v = v * factors[of_samples[..., : middle[1]].long()]
    else:
        v = torch.nn.functional.leaky_relu(v, slope)
        v = v if clamp is None else v.clamp(-clamp, clamp)
    margins = both_sides(resampling.down_padding, middle, 1, down, fd, size)
    return resample(v, fd, (1, 1), (down, down), margins, flip, after, size, False), None


def _launch(
    config: Config,
    x: torch.Tensor,
    b: torch.Tensor | None,
    y: torch.Tensor,
    signs: torch.Tensor | None,
    middle: tuple[int, int],
    read: bool,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    gain: float,
    slope: float,
    clamp: float | None,
) -> tuple[torch.Tensor, ...]:
    """Fill y [N, C, OH, OW] from x [N, C, H, W], both of any strides (of x up to 2^23 within a plane).

    `signs`, of a plane of `middle` [height, width], are written, or instead read, unless they are None.
    """
    in_parts = precision_of(x, resampling) == "fp16x3"
    kind = InParts(config.tile, gain, slope) if in_parts else config.tile
    plan = plans.get(fu, fd, resampling, kind, x.dtype, x.device)
    powers_ = plan.powers or Powers(0, 0, 0, 0)
    n, c, height, width = x.shape
    out_height, out_width = y.shape[2:]
    tiles_x, tiles_y = triton.cdiv(out_width, plan.step), triton.cdiv(out_height, plan.step)
    matrices = plan.up_x, plan.up_y, plan.down_x, plan.down_y
    launch(
        _filtered_lrelu_kernel, (tiles_x * tiles_y * n * c,),
        x, None if b is None else b.contiguous(), y, signs, largest(x) if in_parts else None, *matrices,
        c, height, width, out_height, out_width, *middle,
        *x.stride(), *y.stride(),
        tiles_x, tiles_y, plan.step, plan.x_step, plan.s_step, *plan.x_origin, *plan.s_origin,
        gain, slope, 0.0 if clamp is None else clamp,
        powers_.pixels, powers_.samples, powers_.up, powers_.both,
        like=x, fixed=tuple(m for m in matrices if m is not None),
        UP_TERMS=plan.up_terms, DOWN_TERMS=plan.down_terms, WRITE=signs is not None and not read, READ=read,
        HAS_BIAS=b is not None, HAS_CLAMP=clamp is not None and not read, X=plan.tile.x, S=plan.tile.s, Y=plan.tile.y,
        X_BLOCK=config.x_block, Y_BLOCK=config.y_block, OPERAND=operand(x.dtype), PRECISION=dot_precision(x.dtype),
        PARTS=2 if in_parts else 1, num_warps=config.warps, num_stages=1, maxnreg=config.registers,
    )  # fmt: skip
    return (y,) if signs is None or read else (y, signs)


def _parts(
    written: Sequence[torch.Tensor], x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor,
    signs: torch.Tensor | None, middle: tuple[int, int], *rest: object,
) -> Sequence[torch.Tensor]:  # fmt: skip
    """Of the room for signs only what is used."""
    return [y, *(t.view(-1)[: y.shape[0] * y.shape[1] * middle[0] * ((middle[1] + 3) // 4)] for t in written[1:])]


TILES = Tunable("filtered_lrelu tiles", _launch, _class_of, rule, _others, _expected, _parts)
