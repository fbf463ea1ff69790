"""Convolution with a scale per sample and channel before and after it, as an implicit matrix product.

    y[n,o,p] = so[n,o] * sum_{tap,i} (w[o,tap,i] * si[n,i]) * x[n, i, p + tap - padding]

One program computes a tile of [output channels, pixels] of one image and walks the inner dimension (tap, input channel)
with the channels fastest. The weights are the left factor and take si on the way from memory: a left factor may come to
Hopper's matrix units out of registers, while the pixels, the right factor, go to shared memory untouched; and the
packed weights are aligned and padded whatever the number of channels, so that what is multiplied loads widely. so
multiplies the accumulator. Pixels are read through strides, in whichever layout they lie: 16 bytes at a time along the
channels of a channels_last image whose channels are a multiple of 16, otherwise one at a time (a row's neighbours in
NCHW move by one with every tap), and again 16 bytes where a 1x1 kernel makes the whole image one row.

The transposed convolution of the derivatives is the same program with other weights. It can also reduce its result,
before the second scale, against an image: sum_p g[n,o,p] * image[n,o,p] is the gradient of that scale. Each tile
writes its own partial sum, which torch adds up in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from sg3.kernels.memory_format import new_image
from sg3.kernels.triton_launch import dot_precision, launch, operand
from sg3.kernels.tuning import Tunable


@dataclass(frozen=True)
class Tile:
    """Output channels x pixels of a program, input channels of one step, and how the program is run."""

    outs: int
    pixels: int
    ins: int
    warps: int
    stages: int
    registers: int | None = None  # the most that a thread may take, None for the compiler's choice


# The rule, by (bytes per element, architecture, whether pixels load 16 bytes at a time) and size class. Chosen by the
# resources that they take when compiled, on Triton 3.6 and 3.9, without spills.
TILES: Mapping[tuple[int, int, bool], Mapping[str, Tile]] = {
    (2, 80, True): {
        "wide": Tile(128, 128, 32, warps=8, stages=3), "medium": Tile(64, 128, 32, warps=4, stages=3),
        "narrow": Tile(16, 128, 32, warps=4, stages=3), "small": Tile(64, 64, 32, warps=4, stages=3),
        "huge": Tile(64, 64, 32, warps=8, stages=3),
    },
    (2, 80, False): {
        "wide": Tile(128, 128, 32, warps=8, stages=3), "medium": Tile(64, 128, 32, warps=8, stages=3),
        "narrow": Tile(16, 64, 32, warps=4, stages=3), "small": Tile(64, 64, 32, warps=4, stages=3),
        "huge": Tile(64, 64, 16, warps=8, stages=2),
    },
    (2, 90, True): {
        "wide": Tile(128, 128, 64, warps=8, stages=3), "medium": Tile(64, 128, 64, warps=4, stages=3),
        "narrow": Tile(16, 128, 64, warps=4, stages=3), "small": Tile(64, 64, 64, warps=4, stages=3),
        "huge": Tile(64, 64, 32, warps=8, stages=3),
    },
    (2, 90, False): {
        "wide": Tile(128, 128, 32, warps=8, stages=3), "medium": Tile(64, 128, 32, warps=8, stages=3),
        "narrow": Tile(16, 64, 32, warps=4, stages=3), "small": Tile(64, 64, 32, warps=4, stages=3),
        "huge": Tile(64, 64, 16, warps=8, stages=2),
    },
    **{
        (4, arch, wide_loads): {
            "wide": Tile(64, 64, 16, warps=4, stages=2), "medium": Tile(64, 64, 16, warps=4, stages=2),
            "narrow": Tile(16, 64, 16, warps=4, stages=2), "small": Tile(32, 64, 16, warps=4, stages=2),
            "huge": Tile(32, 64, 16, warps=4, stages=2),
        }
        for arch in (80, 90) for wide_loads in (True, False)
    },
}  # fmt: skip
MOST_REGISTERS = 255  # of a thread, on Blackwell: by itself ptxas spills a register or two there, to fit more programs
MULTIPROCESSORS = 108  # of an A100, the smallest GPU that the table is for; an H100 has 132


def scaled_conv2d(
    x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None, padding: list[int]
) -> torch.Tensor:
    """so * conv(si * x, w): x [N, I, H, W], w [O, I, kh, kw] of x's dtype, si [N, I], so [N, O] float32 ->
    [N, O, H + 2 py - kh + 1, W + 2 px - kw + 1] in x's memory format. padding = [py, px], negative ones crop."""
    o, _, kh, kw = w.shape
    y = new_image(x, x.shape[2] + 2 * padding[0] - kh + 1, x.shape[3] + 2 * padding[1] - kw + 1, o)
    CONVOLUTION(x, w, si, so, padding, y, None)
    return y


def scaled_conv2d_reduced(
    x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None, padding: list[int],
    image: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """`scaled_conv2d`, in the memory format of an image of its shape, and sum_p conv(si * x, w) * image, [N, O]."""
    y = new_image(image, *image.shape[2:])
    _, sums = CONVOLUTION(x, w, si, so, padding, y, image)
    return y, sums


class Kind(NamedTuple):
    """What the choice of a tile depends on."""

    dtype: str
    precision: str    # of float32 products
    wide_loads: bool  # of pixels, 16 bytes at a time
    size: str         # a row of the table
    taps: int
    reduced: bool     # whether sums over pixels come with the result


def _class_of(
    x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None, padding: list[int],
    y: torch.Tensor, image: torch.Tensor | None,
) -> Kind:  # fmt: skip
    outs, pixels, taps = w.shape[0], y.shape[2] * y.shape[3], w.shape[2] * w.shape[3]
    s_n, s_c, s_h, s_w = x.stride()
    along_channels = s_c == 1 and all(size % 16 == 0 for size in (x.shape[1], s_n, s_h, s_w))
    one_row = _is_one_row(x, w, padding, image)
    along_pixels = one_row and s_w == 1 and all(size % 16 == 0 for size in (pixels, s_n, s_c))
    wide = TILES[x.element_size(), 90, True]["wide"]  # has the same outputs for all
    programs = x.shape[0] * triton.cdiv(outs, wide.outs) * triton.cdiv(pixels, wide.pixels)
    size = "wide" if programs >= MULTIPROCESSORS else "small"
    if outs <= 64:
        size = "narrow" if outs <= 16 else "medium"
    if _is_far(x, y, image):
        size = "huge"
    return Kind(str(x.dtype)[6:], dot_precision(x.dtype), along_channels or along_pixels, size, taps, image is not None)


def _is_far(*images: torch.Tensor | None) -> bool:
    """Whether the elements of an image lie too far apart for 32-bit offsets."""
    return any(_extent(t) >= 2**31 for t in images if t is not None)


def _is_one_row(x: torch.Tensor, w: torch.Tensor, padding: list[int], image: torch.Tensor | None) -> bool:
    """Whether one stride walks the whole image."""
    pointwise = w.shape[2] == w.shape[3] == 1 and padding == [0, 0]
    return pointwise and all(_rows_join(t) for t in (x, image) if t is not None)


def rule(kind: Kind, arch: int) -> Tile:
    """The table's entry."""
    row = 90 if 90 <= arch < 120 else 80  # 120 has the matrix instructions of 80
    tile = TILES[4 if kind.dtype == "float32" else 2, row, kind.wide_loads][kind.size]
    return tile if arch < 100 else replace(tile, registers=MOST_REGISTERS)


def _others(kind: Kind, arch: int) -> Iterator[Tile]:
    """The table's tiles for as many channels, of either architecture, and the rule's with a stage more or with other
    warps."""
    chosen = rule(kind, arch)
    yield from (replace(chosen, stages=chosen.stages + 1), replace(chosen, warps=12 - chosen.warps))
    alike = {"wide": ("wide", "medium", "small"), "small": ("wide", "medium", "small"), "medium": ("medium", "small")}
    for row in (80, 90):
        tiles = TILES[4 if kind.dtype == "float32" else 2, row, kind.wide_loads]
        yield from (tiles[size] for size in alike.get(kind.size, (kind.size,)))


def _launch(
    tile: Tile, x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None,
    padding: list[int], y: torch.Tensor, image: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Write so * conv(si * x, w) to y. With an image of y's shape, also the sum of conv(si * x, w) * image over all
    pixels, [N, O] float32."""
    n, ins, h, wd = x.shape
    o, _, kh, kw = w.shape
    pixels = y.shape[2] * y.shape[3]
    far, one_row = _is_far(x, y, image), _is_one_row(x, w, padding, image)
    tiles_o, tiles_p = triton.cdiv(o, tile.outs), triton.cdiv(pixels, tile.pixels)
    packed = pack(w, tile)
    sums = None if image is None else x.new_empty([n, tiles_p, o], dtype=torch.float32)
    launch(
        _scaled_conv2d_kernel, (n * tiles_p * tiles_o,),
        x, packed, si, so, y, image, sums,
        ins, o, h, wd, y.shape[3], pixels, padding[0], padding[1], packed.stride(0), tiles_o, tiles_p,
        *x.stride(), y.stride(0), y.stride(1), y.stride(3), *(y if image is None else image).stride(),
        *((0, 0) if si is None else si.stride()), *((0, 0) if so is None else so.stride()),
        like=x, KH=kh, KW=kw, ONE_ROW=one_row, SCALE_IN=si is not None, SCALE_OUT=so is not None,
        REDUCE=image is not None, BO=tile.outs, BP=tile.pixels, BI=tile.ins, OFFSET=tl.int64 if far else tl.int32,
        OPERAND=operand(x.dtype), PRECISION=dot_precision(x.dtype), num_warps=tile.warps, num_stages=tile.stages,
        maxnreg=tile.registers,
    )  # fmt: skip
    return (y,) if sums is None else (y, sums.sum(1))


def _expected(
    dtype: torch.dtype, x: torch.Tensor, w: torch.Tensor, si: torch.Tensor | None, so: torch.Tensor | None,
    padding: list[int], y: torch.Tensor, image: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """The first image, and its sums, by torch's own convolution."""
    crop, pad = [min(p, 0) for p in reversed(padding) for _ in (0, 1)], [max(p, 0) for p in padding]
    x = F.pad(x[:1].to(dtype), crop)
    x = x if si is None else x * si[:1, :, None, None].to(dtype)
    result = F.conv2d(x, w.to(dtype), padding=pad)
    scaled = result if so is None else result * so[:1, :, None, None].to(dtype)
    return (scaled,) if image is None else (scaled, (result * image[:1].to(dtype)).sum([2, 3]))


CONVOLUTION = Tunable("modulated_conv2d", _launch, _class_of, rule, _others, _expected)


def _extent(x: torch.Tensor) -> int:
    """How far apart the elements of one image lie in memory."""
    return sum((size - 1) * stride for size, stride in zip(x.shape[1:], x.stride()[1:], strict=True))


def _rows_join(x: torch.Tensor) -> bool:
    """Whether each row begins one step after the end of the row above: then one stride walks the whole image."""
    return x.stride(2) == x.shape[3] * x.stride(3)


def pack(w: torch.Tensor, tile: Tile) -> torch.Tensor:
    """w [O, I, kh, kw] -> [O, kh, kw, I], with zeros up to whole tiles."""
    o, i, kh, kw = w.shape
    rows, columns = (-(-size // step) * step for size, step in ((o, tile.outs), (i, tile.ins)))
    packed = (w.new_empty if (rows, columns) == (o, i) else w.new_zeros)([rows, kh, kw, columns])
    packed[:o, :, :, :i] = w.permute(0, 2, 3, 1)
    return packed


# What only takes part in index arithmetic need not have a kernel compiled for each divisibility.
@triton.jit(do_not_specialize=["height", "width", "out_width", "pad_y", "pad_x", "tiles_o", "tiles_p"])
def _scaled_conv2d_kernel(
    x_ptr, w_ptr, si_ptr, so_ptr, y_ptr, image_ptr, sums_ptr,
    ins, outs, height, width, out_width, pixels, pad_y, pad_x, w_row, tiles_o, tiles_p,
    x_n, x_c, x_h, x_w, y_n, y_c, y_p, image_n, image_c, image_h, image_w, si_n, si_c, so_n, so_c,
    KH: tl.constexpr, KW: tl.constexpr, ONE_ROW: tl.constexpr, SCALE_IN: tl.constexpr, SCALE_OUT: tl.constexpr,
    REDUCE: tl.constexpr, BO: tl.constexpr, BP: tl.constexpr, BI: tl.constexpr,
    OFFSET: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # Neighbouring programs share their pixels; the weights they all need fit into L2.
    program = tl.program_id(0)
    n = (program // tiles_o // tiles_p).to(tl.int64)
    tile_p = program // tiles_o % tiles_p
    o = program % tiles_o * BO + tl.arange(0, BO)  # [BO]
    p = tile_p * BP + tl.arange(0, BP)  # [BP]
    i = tl.arange(0, BI)  # [BI]
    if ONE_ROW:
        y_out, x_out = p * 0, p
        y_in, x_in = y_out, x_out
    else:
        y_out, x_out = p // out_width, p % out_width
        y_in, x_in = y_out - pad_y, x_out - pad_x

    w_tile = w_ptr + o[:, None] * w_row + i[None, :]  # [BO, BI]
    x_image = x_ptr + n * x_n
    x_offsets = i[:, None].to(OFFSET) * x_c + (y_in.to(OFFSET) * x_h + x_in.to(OFFSET) * x_w)[None, :]  # [BI, BP]
    channel_steps = tl.cdiv(ins, BI)
    sums = tl.zeros([BO, BP], tl.float32)
    for step in range(KH * KW * channel_steps):
        tap = step // channel_steps
        c = (step - tap * channel_steps) * BI
        dy, dx = tap // KW, tap % KW
        inside = c + i < ins  # [BI]
        valid = p < pixels  # [BP]
        corner = x_image + c.to(tl.int64) * x_c
        if not ONE_ROW:
            valid &= (y_in + dy >= 0) & (y_in + dy < height) & (x_in + dx >= 0) & (x_in + dx < width)
            corner += dy.to(tl.int64) * x_h + dx.to(tl.int64) * x_w
        weights = tl.load(w_tile + step * BI)
        values = tl.load(corner + x_offsets, mask=inside[:, None] & valid[None, :], other=0.0)
        if SCALE_IN:
            scale = tl.load(si_ptr + n * si_n + (c + i) * si_c, mask=inside, other=0.0)
            weights = weights.to(tl.float32) * scale[None, :]
        sums = tl.dot(weights.to(OPERAND), values.to(OPERAND), sums, input_precision=PRECISION)

    written = (o < outs)[:, None] & (p < pixels)[None, :]
    if REDUCE:
        offsets = o[:, None].to(OFFSET) * image_c + (y_out.to(OFFSET) * image_h + x_out.to(OFFSET) * image_w)[None, :]
        image = tl.load(image_ptr + n * image_n + offsets, mask=written, other=0.0)
        reduced = tl.sum(sums * image.to(tl.float32), axis=1)
        tl.store(sums_ptr + (n * tiles_p + tile_p) * outs + o, reduced, mask=o < outs)
    if SCALE_OUT:
        sums *= tl.load(so_ptr + n * so_n + o * so_c, mask=o < outs, other=0.0)[:, None]
    offsets = o[:, None].to(OFFSET) * y_c + p[None, :].to(OFFSET) * y_p
    tl.store(y_ptr + n * y_n + offsets, sums.to(y_ptr.dtype.element_ty), mask=written)


def channel_dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """sum_p a[n,c,p] * b[n,c,p] in float32: two images [N, C, H, W] -> [N, C]."""
    a, b = a.flatten(2), b.flatten(2)  # copies only what has gaps between its rows
    n, channels, pixels = a.shape
    chunks, tiles_c = triton.cdiv(pixels, 128 * 8), triton.cdiv(channels, 16)
    sums = a.new_empty([n, chunks, channels], dtype=torch.float32)
    launch(
        _channel_dot_kernel, (n * chunks * tiles_c,), a, b, sums, channels, pixels, chunks, tiles_c,
        *a.stride(), *b.stride(), like=a, BC=16, BP=128, STEPS=8, num_warps=4, num_stages=2,
    )  # fmt: skip
    return sums.sum(1)


@triton.jit(do_not_specialize=["chunks", "tiles_c"])
def _channel_dot_kernel(
    a_ptr, b_ptr, sums_ptr, channels, pixels, chunks, tiles_c, a_n, a_c, a_p, b_n, b_c, b_p,
    BC: tl.constexpr, BP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    n = (program // tiles_c // chunks).to(tl.int64)
    chunk = program // tiles_c % chunks
    c = (program % tiles_c * BC + tl.arange(0, BC)).to(tl.int64)  # [BC]
    sums = tl.zeros([BC, BP], tl.float32)
    for step in range(STEPS):
        p = ((chunk * STEPS + step) * BP + tl.arange(0, BP)).to(tl.int64)  # [BP]
        inside = (c < channels)[:, None] & (p < pixels)[None, :]
        a = tl.load(a_ptr + n * a_n + c[:, None] * a_c + p[None, :] * a_p, mask=inside, other=0.0)
        b = tl.load(b_ptr + n * b_n + c[:, None] * b_c + p[None, :] * b_p, mask=inside, other=0.0)
        sums += a.to(tl.float32) * b.to(tl.float32)
    tl.store(sums_ptr + (n * chunks + chunk) * channels + c, tl.sum(sums, axis=1), mask=c < channels)


def compile_cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Every entry of the table for the architecture being compiled for: (name, a launch that uses it).

    The launches are gradients, which do all that the kernel can do, with ragged channels in the result; 'ragged' ones
    have them in the operand too.
    """
    shapes = {  # size class: images, channels of the result and the operand, those of a ragged operand
        "wide": (16, 323, 512, 203), "medium": (16, 51, 64, 81), "narrow": (16, 15, 16, 51),
        "small": (1, 203, 256, 323), "huge": (1, 81, 128, 51),
    }  # fmt: skip
    for dtype in (torch.float16, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for size, (n, i, o, ragged) in shapes.items():
            for layout, last, outs in (("nhwc", True, o), ("nhwc ragged", True, ragged), ("nchw", False, o)):
                run = partial(_compile_gradient, dtype, n, i, outs, channels_last=last, far=size == "huge")
                yield f"modulated_conv2d/{size} {name} {layout}", run
        yield f"channel_dot/{name}", partial(channel_dot, *torch.empty(2, 1, 32, 64, 64, dtype=dtype, device="meta"))


def _compile_gradient(dtype: torch.dtype, n: int, i: int, o: int, channels_last: bool, far: bool) -> None:
    def image(channels: int, size: int) -> torch.Tensor:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return torch.empty(n, channels, size, size, dtype=dtype, device="meta").to(memory_format=layout)

    dy, x = image(o, 38), image(i, 36)
    if far:
        dy = torch.empty_strided(dy.shape, (2**40, dy.stride(1), 2**30, dy.stride(3)), dtype=dtype, device="meta")
    w, si, so = (torch.empty(shape, device="meta") for shape in ((i, o, 3, 3), (n, i), (n, o)))
    scaled_conv2d_reduced(dy, w.to(dtype), so, si, [0, 0], image=x)
