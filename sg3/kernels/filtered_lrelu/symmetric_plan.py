"""What a marching program needs of two filters that are symmetric, f[y, x] = f[x, y]: one small matrix for either.

As in `marching_plan.py`, filters are banded Toeplitz matrices, cut into blocks of which only a handful are distinct. If
a filter does along x what it does along y, and if both axes begin at the same place of its pattern, they share them:

    matrix   rows             columns           block (row, column) is number    unit
    up       samples          pixels            16 m, 16 k      m - up * k       16 samples
    down     outputs          samples           16 j, 16 m      m - down * j     16 samples

A symmetric filter's separable terms are the same taps along both axes, of which some are subtracted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sg3.kernels.filtered_lrelu.banded import banded, record_stream, round_taps, separable_taps
from sg3.kernels.filtered_lrelu.geometry import Resampling
from sg3.kernels.filtered_lrelu.marching_plan import (
    HEADROOM,
    MODES,
    MOST_TAPS,
    Axis,
    Kind,
    Layout,
    Pointwise,
    Shape,
    Shapes,
    factors,
    in_fragment_order,
    numbers,
    widest_step,
)
from sg3.kernels.filtered_lrelu.powers import Powers, in_parts, scaled_taps
from sg3.kernels.triton_launch import architecture

# Within a block of 16 samples, row r of a matrix is sample QUADS[r]: what a thread holds of a row of a product's
# result, columns 2 c, 2 c + 1, 2 c + 8 and 2 c + 9, are neighbours in the image.
QUADS = np.array([4 * (r % 8 // 2) + 2 * (r // 8) + r % 2 for r in range(16)])


@dataclass(frozen=True)
class Terms:
    """The distinct blocks of a matrix, one after another, by term, number and part; numbers go from the first up to,
    but not including, the second of `numbers`. For each term, how many parts it has, and whether it is subtracted. If
    they are not `held` in registers, but read a term at a time, a block's numbers stand `in_thread_order`."""

    numbers: tuple[int, int]
    parts: tuple[int, ...]
    negative: tuple[int, ...]
    held: bool
    data: torch.Tensor

    def of_loop(self) -> tuple[int, int, int]:
        """How many terms there are, how many of them, the first ones, have two parts, and bits of the negative ones."""
        return len(self.parts), self.parts.count(2), sum(bit << t for t, bit in enumerate(self.negative))


@dataclass(frozen=True)
class SymmetricPlan:
    """Layout and matrices of one op, and what samples are multiplied by, positive ones and others. What lies between
    the filters is `scale` times what it is."""

    layout: Layout
    shape: Shape
    above: float
    below: float
    scale: float
    up: Terms
    down: Terms
    powers: Powers | None
    streams: set[torch.cuda.Stream] = field(default_factory=set, repr=False, compare=False)  # of `used_by`

    def used_by(self, stream: torch.cuda.Stream) -> None:
        """Work that is queued on this stream reads the matrices, which may have been allocated for another one."""
        record_stream(stream, self.streams, (self.up.data, self.down.data))


# The rule, as in marching_plan.py, for what does not march there.
SHAPES: Shapes = {
    (4, 1, 2, 2): ((3, 1), (3, 1), (3, 1)),
    (4, 1, 2, 3): ((3, 1), (3, 1), (3, 1)),
    (2, 2, 4, 1): ((3, 1), (3, 1), (3, 1)),
    (2, 3, 4, 1): ((3, 1), (3, 1), (3, 1)),
}
SHAPES_FLOAT32: Shapes = {
    (4, 1, 2, 1): ((3, 1), (3, 1), (3, 1)),
    (2, 1, 4, 1): ((2, 1), (2, 1), (2, 1)),
}
# What else, or more columns, an architecture's compiler fits into a thread's registers, in float32. 2 stands for any
# number of terms beyond one, which takes as many registers as two do.
ON_SERVERS: Shapes = {
    (2, 1, 4, 1): ((2, 1), (2, 1), (3, 1)),
    (2, 1, 2, 2): ((3, 1), (3, 1), (3, 1)),
    (2, 2, 2, 1): ((3, 1), (3, 1), (3, 1)),
    (4, 1, 2, 2): ((3, 1), (3, 1), (3, 1)),
    (2, 2, 4, 1): ((3, 1), (3, 1), (4, 1)),
}
OF_ARCHITECTURE: dict[int, Shapes] = {80: ON_SERVERS, 90: ON_SERVERS}


def shape_by_rule(kind: Kind, arch: int) -> Shape | None:
    """For sm_`arch`; None where programs do not march."""
    shapes = SHAPES.get(kind[:4])
    if kind.dtype == "float32":
        key = kind.up, min(kind.up_terms, 2), kind.down, min(kind.down_terms, 2)
        shapes = OF_ARCHITECTURE.get(arch, {}).get(key, SHAPES_FLOAT32.get(key))
    if shapes is None:
        return None
    shape = Shape(*shapes[MODES.index(kind.mode)])
    if arch in (86, 89) and kind.mode == "plain" and kind.dtype != "float32":
        return replace(shape, registers=255)  # by itself ptxas spills two of 170, to fit more programs
    return shape


def lay_out(resampling: Resampling, up_taps: int, down_taps: int, columns: int) -> Layout:
    """The layout for filters of so many taps; `like_axes` holds. Samples begin at a multiple of 4 along x and of 32
    along y, as the plane of signs is packed, columns of pixels at an even one."""
    up, down = resampling.up, resampling.down
    (pad_x, pad_y), (wanted_x, wanted_y) = resampling.up_padding, (-p for p in resampling.down_padding)
    lead = wanted_x % 4
    x_samples, y_samples = wanted_x - lead, wanted_y // 32 * 32
    x_pixels = -(-(x_samples - pad_x) // up) // 2 * 2
    phase = x_samples - pad_x - x_pixels * up
    x = Axis(x_samples, x_pixels, phase, lead, 0)
    y = Axis(y_samples, (y_samples - pad_y - phase) // up, phase, lead, (wanted_y - lead - y_samples) // down)
    halves = math.lcm(up, down, 2)
    step = widest_step(up, down, lead + down_taps, columns)
    last_sample = lead + (step - 1) * down + down_taps - 1
    pixels = (last_sample + phase + up_taps - 1) // up + 1
    return Layout(
        up, down, columns, halves, step, step * down // up, math.ceil(pixels / 8), halves // up, halves // down, x, y
    )


def like_axes(resampling: Resampling) -> bool:
    """Whether both axes can begin at the same place of the filters' patterns."""
    return all((x - y) % 4 == 0 for x, y in (resampling.up_padding, resampling.down_padding))


def signs_of_terms(taps_x: np.ndarray, taps_y: np.ndarray) -> tuple[int, ...] | None:
    """Of a filter's terms [terms, taps] along x and y, for each term whether it is subtracted if the second are as the
    first; None if they are not the same."""
    if taps_x.shape != taps_y.shape:
        return None
    negative = []
    for x, y in zip(taps_x, taps_y, strict=True):
        near = 1e-6 * np.abs(x).max()
        ways = [sign for sign in (0, 1) if np.abs((-y if sign else y) - x).max() <= near]
        if not ways:
            return None
        negative.append(ways[0])
    return tuple(negative)


def in_thread_order(matrices: np.ndarray) -> np.ndarray:
    """[..., 16, 16] with, one thread after another, the eight that one holds of a left operand in its registers' order:
    rows i and i + 8 of columns 2 c and 2 c + 1, then of columns 2 c + 8 and 2 c + 9."""
    parted = matrices.reshape(*matrices.shape[:-2], 2, 8, 2, 4, 2)  # row 8 r + i, column 8 k + 2 c + e
    ordered = np.moveaxis(parted, (-4, -2, -3, -5, -1), range(-5, 0))  # i, c, k, r, e
    return np.ascontiguousarray(ordered).reshape(matrices.shape)


SMALL = 2.0**-12  # beside the first one, a term that needs no second part


def build(
    fu: torch.Tensor | None, fd: torch.Tensor | None, resampling: Resampling, pointwise: Pointwise, dtype: torch.dtype,
    device: torch.device,
) -> SymmetricPlan | None:  # fmt: skip
    """The plan, None where there is none. Reads the filters back to the host."""
    up, down = resampling.up, resampling.down
    above, below = factors(pointwise.slope, dtype)
    before, after = resampling.filter_gains
    u, u_y = separable_taps(fu, before * pointwise.gain / above, resampling.flip_filter, dtype)
    d, d_y = separable_taps(fd, after, resampling.flip_filter, dtype)
    kind = Kind(up, len(u), down, len(d), str(dtype)[6:], pointwise.mode)
    by_rule = shape_by_rule(kind, architecture(device))
    up_negative, down_negative = signs_of_terms(u, u_y), signs_of_terms(d, d_y)
    if (
        by_rule is None or up_negative is None or down_negative is None or not like_axes(resampling)
        or u.shape[1] > MOST_TAPS * up or d.shape[1] > MOST_TAPS * down
    ):  # fmt: skip
        return None
    shape = pointwise.shape or by_rule
    powers, scale = None, 1.0
    if dtype == torch.float32:
        (u, _, d, _), powers = scaled_taps(u, u, d, d, up, pointwise.slope)
    else:
        u, d = round_taps(u, up, dtype), round_taps(d, down, dtype)
        if not pointwise.read:
            scale = 1 / HEADROOM
    layout = lay_out(resampling, u.shape[1], d.shape[1], shape.columns)

    # Of several terms in two parts the matrices leave no room in registers, nor does one of six blocks beside them.
    up_held = powers is None or len(u) == 1
    down_held = powers is None or (len(d) == 1 and (up_held or down == 2))

    def terms(taps: np.ndarray, negative: tuple[int, ...], held: bool, lead: int, unit: int, row_step: int,
              column_step: int) -> Terms:  # fmt: skip
        offset = lead + taps.shape[1] - 1
        first, end = numbers(taps.shape[1], offset, unit, row_step, column_step, 16)
        matrices = [banded(taps, 16, 16, offset + n * unit, row_step, column_step) for n in range(first, end)]
        stack = np.stack(matrices, axis=1)  # [terms, numbers, 16, 16]
        stack = stack[:, :, QUADS] if taps is u else stack[:, :, :, QUADS]
        ordered = in_fragment_order(stack) if held else in_thread_order(stack)
        if powers is None:
            data = torch.as_tensor(ordered).to(dtype).to(device)
            return Terms((first, end), (1,) * len(taps), negative, held, data)
        largest = np.abs(taps).max(axis=1)
        exact = max((t + 1 for t, most in enumerate(largest) if most**2 > SMALL * largest[0] ** 2), default=0)
        parts = tuple(2 if t < exact else 1 for t in range(len(taps)))
        of_terms = [in_parts(t)[:n].movedim(0, 1).flatten() for t, n in zip(ordered, parts, strict=True)]
        return Terms((first, end), parts, negative, held, torch.cat(of_terms).to(device))

    return SymmetricPlan(
        layout, shape, above, below, scale,
        terms(u, up_negative, up_held, layout.x.phase, 16, 1, up),
        terms(d, down_negative, down_held, layout.x.lead, -16, down, 1),
        powers,
    )  # fmt: skip
