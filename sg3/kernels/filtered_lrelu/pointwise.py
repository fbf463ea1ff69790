"""filtered_lrelu without filters and padding, as StyleGAN3's last layer has it: sample by sample.

    v = act(gain (x + b))    leaky ReLU and clamp, or, in the gradient op, times 1, the slope or 0 by the signs

Signs are those of tiles (`tiles.py`): two bits a sample, four neighbours in a byte. A program works on a rectangle of
them. What limits is how fast memory is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.triton_launch import launch
from sg3.kernels.tuning import Tunable

DO_NOT_SPECIALIZE = ["channels", "height", "width", "x_n", "x_c", "x_h", "y_n", "y_c", "y_h", "across", "down"]


@triton.jit(do_not_specialize=DO_NOT_SPECIALIZE)
def _pointwise_kernel(
    x_ptr, b_ptr, y_ptr, signs_ptr,
    channels, height, width,
    x_n, x_c, x_h, x_w, y_n, y_c, y_h, y_w,  # strides; these and the width, but for x_w and y_w, counted in VECTORs
    across, down,  # programs of a plane
    before, after, slope, clamp,
    WRITE: tl.constexpr, READ: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_CLAMP: tl.constexpr,
    VECTOR: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // (across * down)).to(tl.int64)
    n, c = plane // channels, plane % channels
    width, x_h, y_h = width * VECTOR, x_h * VECTOR, y_h * VECTOR
    row, byte = tl.program_id(0) // across % down * ROWS, tl.program_id(0) % across * BYTES
    i_row, i_byte, i_sample = tl.arange(0, ROWS), tl.arange(0, BYTES), tl.arange(0, 4)[None, None, :]
    i_column = i_byte[None, :, None] * 4 + i_sample  # [1, BYTES, 4]
    row_bytes = (width + 3) // 4
    in_height, in_width = row + i_row < height, byte * 4 + i_column < width
    mask = in_height[:, None, None] & in_width
    mask_of_bytes = in_height[:, None] & (byte + i_byte < row_bytes)[None, :]
    # Offsets within a program are 32 bit, those of the program and the plane 64 bit.
    row, byte = row.to(tl.int64), byte.to(tl.int64)
    i_row = i_row[:, None, None]

    x_ptr += (n * x_n + c * x_c) * VECTOR + row * x_h + byte * 4 * x_w
    v = tl.load(x_ptr + (i_row * x_h + i_column * x_w), mask=mask, other=0)
    v = v.to(tl.float32)
    if HAS_BIAS:
        v += tl.load(b_ptr + c).to(tl.float32)
    v *= before

    sign_ptrs = signs_ptr
    if WRITE or READ:
        sign_ptrs = signs_ptr + (plane * height + row) * row_bytes + byte
        sign_ptrs += tl.arange(0, ROWS)[:, None] * row_bytes + i_byte[None, :]
    if READ:
        signs = (tl.load(sign_ptrs, mask=mask_of_bytes, other=0).to(tl.int32)[:, :, None] >> (2 * i_sample)) & 3
        v = tl.where(signs == 0, v, tl.where(signs == 1, v * slope, 0.0))
    else:
        signs = tl.where(v > 0, 0, 1)
        if HAS_CLAMP:
            bent = tl.where(v > 0, v, v * slope)
            signs = tl.where(tl.abs(bent) <= clamp, signs, 2)  # NaN, too
            v = tl.clamp(bent, -clamp, clamp, propagate_nan=tl.PropagateNan.ALL)
        else:
            v = tl.where(v > 0, v, v * slope)
        if WRITE:
            signs = tl.where(in_width, signs, 2)
            tl.store(sign_ptrs, tl.sum(signs << (2 * i_sample), axis=2).to(tl.uint8), mask=mask_of_bytes)

    y_ptr += (n * y_n + c * y_c) * VECTOR + row * y_h + byte * 4 * y_w
    tl.store(y_ptr + (i_row * y_h + i_column * y_w), (v * after).to(y_ptr.dtype.element_ty), mask=mask)


def applies(
    x: torch.Tensor, y: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling
) -> bool:
    """Whether samples of y are made of one of x each, in the same place."""
    plain = fu is None and fd is None and resampling.up == resampling.down == 1
    return plain and resampling.up_padding == resampling.down_padding == (0, 0) and x.shape == y.shape


@dataclass(frozen=True)
class Config:
    """Rows of a program, bytes of signs in each, and warps."""

    rows: int
    bytes: int
    warps: int


class Kind(NamedTuple):
    """What the choice of a configuration depends on. `fours`: whether rows are whole fours of neighbours."""

    dtype: str
    mode: str
    fours: bool


def _class_of(
    x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, read: bool,
    resampling: Resampling, gain: float, slope: float, clamp: float | None,
) -> Kind:  # fmt: skip
    return Kind(str(x.dtype)[6:], "grad" if read else "plain" if signs is None else "with signs", _fours(x, y))


def rule(kind: Kind, arch: int) -> Config:
    """The same for all: 16 samples a thread."""
    return Config(8, 64, 4)


def _others(kind: Kind, arch: int) -> Iterator[Config]:
    for warps in (2, 4, 8):
        for rows, bytes in ((4, 64), (8, 64), (4, 128), (16, 64)):
            yield Config(rows, bytes, warps)


def _launch(
    config: Config, x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None, read: bool,
    resampling: Resampling, gain: float, slope: float, clamp: float | None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """Fill y [N, C, H, W] from x, both of any strides; `signs` are written, or read, unless they are None."""
    n, c, height, width = x.shape
    across, down = triton.cdiv(width, 4 * config.bytes), triton.cdiv(height, config.rows)
    vector = 4 if _fours(x, y) else 1
    before, after = resampling.filter_gains

    def in_vectors(t: torch.Tensor) -> tuple[int, ...]:
        return t.stride(0) // vector, t.stride(1) // vector, t.stride(2) // vector, t.stride(3)

    launch(
        _pointwise_kernel, (across * down * n * c,), x, None if b is None else b.contiguous(), y, signs,
        c, height, width // vector, *in_vectors(x), *in_vectors(y), across, down,
        before * gain, after, slope, 0.0 if clamp is None else clamp,
        like=x, WRITE=signs is not None and not read, READ=read, HAS_BIAS=b is not None,
        HAS_CLAMP=clamp is not None and not read, VECTOR=vector, ROWS=config.rows, BYTES=config.bytes,
        num_warps=config.warps, num_stages=1,
    )  # fmt: skip
    return (y,) if signs is None or read else (y, signs)


def _fours(*tensors: torch.Tensor) -> bool:
    """Whether all rows begin and end at whole fours of neighbours."""
    return all(
        t.stride(3) == 1 and t.shape[3] % 4 == 0 and all(stride % 4 == 0 for stride in t.stride()[:3])
        and t.data_ptr() % (4 * t.element_size()) == 0 for t in tensors
    )  # fmt: skip


def _expected(
    dtype: torch.dtype, x: torch.Tensor, b: torch.Tensor | None, y: torch.Tensor, signs: torch.Tensor | None,
    read: bool, resampling: Resampling, gain: float, slope: float, clamp: float | None,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """The first image of y, step by step; of the signs nothing."""
    before, after = resampling.filter_gains
    v = x[:1].to(dtype)
    v = (v if b is None else v + b.to(dtype)[:, None, None]) * (before * gain)
    if read and signs is not None:
        packed = signs.flatten()[: v.shape[1] * v.shape[2] * ((v.shape[3] + 3) // 4)].reshape(*v.shape[:3], -1)
        of_samples = torch.stack([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], dim=-1).flatten(-2)
        factors = torch.tensor([1.0, slope, 0.0, 0.0], dtype=dtype, device=x.device)
        v = v * factors[of_samples[..., : v.shape[3]].long()]
    else:
        v = torch.nn.functional.leaky_relu(v, slope)
        v = v if clamp is None else v.clamp(-clamp, clamp)
    return v * after, None


def _parts(written: Sequence[torch.Tensor], x: torch.Tensor, *rest: object) -> Sequence[torch.Tensor]:
    """Of the room for signs only what is used."""
    count = x.shape[0] * x.shape[1] * x.shape[2] * ((x.shape[3] + 3) // 4)
    return [written[0], *(t.view(-1)[:count] for t in written[1:])]


POINTWISE = Tunable("filtered_lrelu pointwise", _launch, _class_of, rule, _others, _expected, _parts)
