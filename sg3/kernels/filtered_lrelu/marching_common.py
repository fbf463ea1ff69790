"""What both kinds of marching programs share, `marching.py` and `symmetric.py`: the nonlinearity, the grid, the values
that `sg3 tune` compares with."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from sg3.kernels.filtered_lrelu import impl_torch
from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.filtered_lrelu.marching_plan import Layout, Pointwise


@triton.jit
def leaky_relu(v, above, below, STEEP: tl.constexpr):
    """The larger of v * above and v * below, or, for a slope beyond 1, the smaller. NaN stays, for both are."""
    if STEEP:
        return tl.minimum(v * above, v * below)
    else:
        return tl.maximum(v * above, v * below)


@triton.jit
def clamped(v, limit):
    return tl.clamp(v, -limit, limit, propagate_nan=tl.PropagateNan.ALL)


# Programs that fill a large GPU: with fewer, planes are split along y, at the price of a strip for each part.
ENOUGH_PROGRAMS = 4096


def grid(layout: Layout, y: torch.Tensor) -> tuple[int, int, int]:
    """Programs side by side that make the outputs y [N, C, OH, OW], programs below one another, and how many blocks of
    output rows each of these makes."""
    tiles, blocks = math.ceil(y.shape[3] / layout.step), math.ceil((layout.y.skipped + y.shape[2]) / 16)
    wanted = math.ceil(ENOUGH_PROGRAMS / max(y.shape[0] * y.shape[1] * tiles, 1))
    blocks_each = math.ceil(max(blocks // wanted, 1) / layout.output_blocks) * layout.output_blocks
    return tiles, math.ceil(blocks / blocks_each), blocks_each


def vector(x: torch.Tensor) -> int:
    """How many neighbours in a row one load or store may take: 2 where all rows begin and end at whole pairs."""
    pairs = x.stride(3) == 1 and x.shape[3] % 2 == 0 and all(stride % 2 == 0 for stride in x.stride()[:3])
    return 2 if pairs and x.data_ptr() % (2 * x.element_size()) == 0 else 1


def expected(
    dtype: torch.dtype, x: torch.Tensor, plan: object, b: torch.Tensor | None, y: torch.Tensor,
    signs: torch.Tensor | None, middle: tuple[int, int], clamp: float | None, fu: torch.Tensor | None,
    fd: torch.Tensor | None, resampling: Resampling, pointwise: Pointwise,
) -> tuple[torch.Tensor | None, ...]:  # fmt: skip
    """The first image of y by impl='torch'; signs and gradients are not said."""
    if pointwise.read:
        return (None,)
    result = y[:1].to(dtype)
    impl_torch.forward(x[:1].to(dtype), None if b is None else b.to(dtype), result, None, fu, fd, resampling,
                       pointwise.gain, pointwise.slope, clamp)  # fmt: skip
    return result, None, None
