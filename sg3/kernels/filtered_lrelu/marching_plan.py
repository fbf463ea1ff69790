"""What a marching program of filtered_lrelu needs of two filters: small blocks of their matrices, and where it starts.

A program of `marching.py` owns some columns of one plane of samples, those between the filters, and walks down their
rows in strips. Both filters are banded Toeplitz matrices (`banded.py`), cut into blocks of 16 x 16 (16 x 8 where
samples become columns of outputs). Most blocks are zero, and the others depend on nothing but their distance from the
diagonal, so that a handful of distinct blocks serves all columns and all strips:

    matrix   rows            columns         block (row, column) is number          unit
    up_x     sample columns  pixel columns   16 m, 16 k      m - up * k             16 samples
    up_y     sample rows     pixel rows      16 h, 16 a      h - up * a             16 samples
    down_y   output rows     sample rows     16 j, 16 h      h - down * j           16 samples
    down_x   output columns  sample columns  8 q, 16 m       2 m - down * q         8 samples

Everything here is a function of sizes alone except the blocks themselves, whose number of separable terms is the
filter's rank.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from sg3.kernels.filtered_lrelu.banded import banded, record_stream, round_taps, separable_taps
from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.filtered_lrelu.powers import Powers, in_parts, scaled_taps

# Within a block of 16 sample columns, row r of the matrices is column PAIRS[r]: the two rows that one thread holds of
# an accumulator, r and r + 8, are neighbours in the image, and their signs share a word.
PAIRS = np.array([2 * (r % 8) + r // 8 for r in range(16)])


@dataclass(frozen=True)
class Axis:
    """One direction of the march, in whole numbers.

    The first sample lies at `s_origin` of the plane between the filters, the first pixel at `x_origin` of the image;
    `phase` is the distance from the one to the other in samples, `lead` the samples before those that the first
    output reads, of which `skipped` come before the image's own.
    """

    s_origin: int
    x_origin: int
    phase: int
    lead: int
    skipped: int


@dataclass(frozen=True)
class Layout:
    """How a program walks: everything but the taps.

    A program has `columns` blocks of 16 sample columns and makes `step` outputs a row; a strip has `halves` blocks of
    16 sample rows, for which it takes `pixel_blocks` new blocks of 16 pixel rows and finishes `output_blocks` blocks
    of 16 rows of outputs. `pieces` are eights of pixel columns. Program t of a row starts t * step outputs,
    t * x_step pixels, t * step * down samples further right.
    """

    up: int
    down: int
    columns: int
    halves: int
    step: int
    x_step: int
    pieces: int
    pixel_blocks: int
    output_blocks: int
    x: Axis
    y: Axis


@dataclass(frozen=True)
class Blocks:
    """The distinct blocks of a matrix, [terms, numbers, parts, 16 or 8, 16]; numbers go from the first up to, but not
    including, the second of `numbers`."""

    numbers: tuple[int, int]
    terms: int
    data: torch.Tensor


@dataclass(frozen=True)
class Shape:
    """Blocks of sample columns of a program, how many of them are looked through together for samples beyond the clamp,
    and the most registers that a thread may take, None for the compiler's choice."""

    columns: int
    together: int
    registers: int | None = None


@dataclass(frozen=True)
class MarchingPlan:
    """Layout and matrices of one op, and what samples are multiplied by, positive ones and others.

    The gain of the nonlinearity is part of the matrices. `powers` is None unless numbers are float32, which are
    multiplied in two parts.
    """

    layout: Layout
    shape: Shape
    above: float
    below: float
    up_x: Blocks
    up_y: Blocks
    down_x: Blocks
    down_y: Blocks
    powers: Powers | None
    streams: set[torch.cuda.Stream] = field(default_factory=set, repr=False, compare=False)  # of `used_by`

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Work that is queued on this stream reads the matrices, which may have been allocated for another one."""
        record_stream(stream, self.streams, (m.data for m in (self.up_x, self.up_y, self.down_x, self.down_y)))


@dataclass(frozen=True)
class Pointwise:
    """What a plan depends on beside filters and resampling: the nonlinearity, what becomes of signs, and the shape, if
    it is not the rule's."""

    gain: float
    slope: float
    write: bool
    read: bool
    shape: Shape | None = None

    @property
    def mode(self) -> str:
        return MODES[1 if self.write else 2 if self.read else 0]


MODES = ("plain", "with signs", "grad")


class Kind(NamedTuple):
    """What the choice of a shape depends on."""

    up: int
    up_terms: int
    down: int
    down_terms: int
    dtype: str
    mode: str


# The rule: shapes, columns and together, as large as a thread's registers allow on all architectures. By up, its
# filter's terms, down, its filter's terms; in each row, of programs that have nothing to do with signs, that write and
# that read them. Chosen by the static model.
Shapes = dict[tuple[int, int, int, int], tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]
SHAPES: Shapes = {
    (2, 1, 2, 1): ((4, 1), (4, 2), (4, 2)),
    (4, 1, 2, 1): ((4, 1), (3, 1), (3, 1)),
    (2, 1, 4, 1): ((3, 1), (3, 1), (3, 1)),
    (2, 1, 2, 2): ((3, 1), (2, 1), (2, 1)),
    (2, 2, 2, 1): ((3, 1), (2, 1), (2, 1)),
    (2, 1, 2, 3): ((3, 1), (2, 1), (2, 1)),
    (2, 3, 2, 1): ((2, 1), (2, 1), (2, 1)),
}
SHAPES_FLOAT32: Shapes = {
    (2, 1, 2, 1): ((3, 1), (2, 1), (2, 1)),
}


def shape_by_rule(kind: Kind) -> Shape | None:
    """None where programs do not march."""
    shapes = (SHAPES_FLOAT32 if kind.dtype == "float32" else SHAPES).get(kind[:4])
    return None if shapes is None else Shape(*shapes[MODES.index(kind.mode)])


# Of a factor: the taps that its filter may have, which are what StyleGAN3's filters have. Then one block of pixel rows
# and one of output rows are all that strips have in common, and every program has room for outputs.
MOST_TAPS = 6


def lay_out(resampling: Resampling, up_taps: int, down_taps: int, columns: int) -> Layout:
    """The layout for filters of so many taps along x."""
    up, down = resampling.up, resampling.down
    halves = math.lcm(up, down, 2)
    x, y = (_axis(resampling, axis, unit) for axis, unit in ((0, 2), (1, 32)))
    step = widest_step(up, down, x.lead + down_taps, columns)
    last_sample = x.lead + (step - 1) * down + down_taps - 1
    pixels = (last_sample + x.phase + up_taps - 1) // up + 1
    return Layout(
        up, down, columns, halves, step, step * down // up, math.ceil(pixels / 8), halves // up, halves // down, x, y
    )


def _axis(resampling: Resampling, axis: int, unit: int) -> Axis:
    """Samples begin at a multiple of `unit`, as the plane of signs is packed, columns of pixels at an even one."""
    wanted = -resampling.down_padding[axis]
    s_origin = wanted // unit * unit
    first_pixel = -(-(s_origin - resampling.up_padding[axis]) // resampling.up)
    if axis == 0:
        first_pixel = first_pixel // 2 * 2
    phase = s_origin - resampling.up_padding[axis] - first_pixel * resampling.up
    if axis == 0:
        return Axis(s_origin, first_pixel, phase, wanted - s_origin, 0)
    skipped, lead = divmod(wanted - s_origin, resampling.down)
    return Axis(s_origin, first_pixel, phase, lead, skipped)


def widest_step(up: int, down: int, reach: int, columns: int) -> int:
    """The most outputs a row, the first of which reaches over `reach` samples; both resampling phases, pairs of pixels
    and of outputs, and fours of samples repeat."""
    steps = range((16 * columns - reach) // down + 1, 0, -1)
    return next(n for n in steps if n % 2 == 0 and n * down % (2 * up) == 0 and n * down % 4 == 0)


def numbers(taps: int, offset: int, unit: int, row_step: int, column_step: int, rows: int) -> tuple[int, int]:
    """The numbers of the first block of a matrix that is not zero, and of the one after the last. Number d is `banded`
    with an offset of offset + d * unit."""
    least, most = offset - 15 * column_step, offset + (rows - 1) * row_step  # indices into the taps
    meets = [d for d in range(-64, 65) if most + d * unit >= 0 and least + d * unit < taps]
    return meets[0], meets[-1] + 1


# W and N, which are rounded to the type that is multiplied, can be larger than what they come from: by the sum of the
# taps' magnitudes, which is less than 2 for low-pass filters, and the gain. So they are kept smaller by a power of two
# (not those of gradients, where numbers are small rather than large).
HEADROOM = 4.0


def build(
    fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, pointwise: Pointwise, dtype: torch.dtype,
    device: torch.device,
) -> MarchingPlan | None:  # fmt: skip
    """The plan, None where there is none. Reads the filters back to the host."""
    up, down = resampling.up, resampling.down
    above, below = factors(pointwise.slope, dtype)
    before, after = resampling.filter_gains
    ux, uy = separable_taps(fu, before * pointwise.gain / above, resampling.flip_filter, dtype)
    dx, dy = separable_taps(fd, after, resampling.flip_filter, dtype)
    by_rule = shape_by_rule(Kind(up, len(ux), down, len(dx), str(dtype)[6:], pointwise.mode))
    taps = [t.shape[1] for t in (ux, uy, dx, dy)]
    if by_rule is None or max(taps[:2]) > MOST_TAPS * up or max(taps[2:]) > MOST_TAPS * down:
        return None
    shape = pointwise.shape or by_rule
    powers = None
    if dtype == torch.float32:
        (ux, uy, dx, dy), powers = scaled_taps(ux, uy, dx, dy, up, pointwise.slope)
    else:
        ux, uy, dx, dy = (round_taps(t, n, dtype) for t, n in ((ux, up), (uy, up), (dx, down), (dy, down)))
        if not pointwise.read:
            ux, uy, dx, dy = ux / HEADROOM, uy * HEADROOM, dx * HEADROOM, dy / HEADROOM
    layout = lay_out(resampling, ux.shape[1], dx.shape[1], shape.columns)

    def blocks(taps: np.ndarray, lead: int, unit: int, row_step: int, column_step: int, rows: int = 16) -> Blocks:
        offset = lead + taps.shape[1] - 1
        first, end = numbers(taps.shape[1], offset, unit, row_step, column_step, rows)
        matrices = [banded(taps, rows, 16, offset + d * unit, row_step, column_step) for d in range(first, end)]
        stack = np.stack(matrices, axis=1)  # [terms, numbers, rows, 16]
        if taps is ux:
            stack = stack[:, :, PAIRS]
        if taps is dx:
            stack = stack[:, :, :, PAIRS]
        ordered = in_fragment_order(stack)
        parts = torch.as_tensor(ordered).to(dtype)[None] if powers is None else in_parts(ordered)
        return Blocks((first, end), len(taps), parts.movedim(0, 2).contiguous().to(device))

    return MarchingPlan(
        layout, shape, above, below,
        blocks(ux, layout.x.phase, 16, 1, up),
        blocks(uy, layout.y.phase, 16, 1, up),
        blocks(dx, layout.x.lead, -8, down, 1, rows=8),
        blocks(dy, layout.y.lead, -16, down, 1),
        powers,
    )  # fmt: skip


def factors(slope: float, dtype: torch.dtype) -> tuple[float, float]:
    """Two numbers of half precision, the first in [1, 2), whose ratio is closer to the slope than any one number is.

    The slope rounded alone is off by up to 2e-4 (bfloat16: 2e-3), and by as much in every layer.
    """
    if dtype.itemsize > 2 or slope in (0, 1):
        return 1.0, slope
    above = torch.arange(1, 2, torch.finfo(dtype).eps, dtype=torch.float64)
    below = (above * slope).to(dtype).double()
    best = (below / above - slope).abs().argmin()
    return float(above[best]), float(below[best])


def in_fragment_order(matrices: np.ndarray) -> np.ndarray:
    """[..., 16] with columns 0 1 8 9, 2 3 10 11, ... side by side: the four that one thread holds of a row."""
    return np.ascontiguousarray(
        matrices.reshape(*matrices.shape[:-1], 2, 4, 2).swapaxes(-3, -2).reshape(matrices.shape)
    )
