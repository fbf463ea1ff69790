"""Sizes and paddings of filtered_lrelu, for all of its implementations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lcm

import torch

from sg3.kernels.arguments import filter_size


@dataclass(frozen=True)
class Resampling:
    """The geometry of one op: factors, padding [x, y] on the left and above, factors that go with the filters."""

    up: int
    down: int
    up_padding: tuple[int, int]
    down_padding: tuple[int, int]
    filter_gains: tuple[float, float]
    flip_filter: bool


def middle_size(size: Sequence[int], fd: torch.Tensor | None, down: int) -> tuple[int, int]:
    """[height, width] of what the second filter reads to make an output of `size`."""
    taps_x, taps_y = filter_size(fd)
    return (size[0] - 1) * down + taps_y, (size[1] - 1) * down + taps_x


def output_size(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[int, int]:
    """[OH, OW] of filtered_lrelu, as its docstring says."""
    (fu_x, fu_y), (fd_x, fd_y) = filter_size(fu), filter_size(fd)
    x0, x1, y0, y1 = padding
    out_w = (x.shape[3] * up + x0 + x1 - (fu_x - 1) - (fd_x - 1) + down - 1) // down
    out_h = (x.shape[2] * up + y0 + y1 - (fu_y - 1) - (fd_y - 1) + down - 1) // down
    return out_h, out_w


def opposite_padding(padding: Sequence[int], f: torch.Tensor | None) -> list[int]:
    """The padding [x, y] on the left and above of the transpose of a filter step that has `padding` there."""
    return [taps - 1 - pad for taps, pad in zip(filter_size(f), padding, strict=True)]


def both_sides(
    first: Sequence[int], size: Sequence[int], up: int, down: int, f: torch.Tensor | None, result: Sequence[int]
) -> tuple[int, int, int, int]:
    """The padding that makes `result` of `size`, both [height, width], from that on the left and above, [x, y]."""
    taps_x, taps_y = filter_size(f)
    x1 = (result[1] - 1) * down + taps_x - size[1] * up - first[0]
    y1 = (result[0] - 1) * down + taps_y - size[0] * up - first[1]
    return first[0], x1, first[1], y1


# Room for the signs that a kernel keeps of a plane between the filters: [rows, columns] for its [height, width], up,
# down.
SignsSize = Callable[[tuple[int, int], int, int], list[int]]


def packed_signs(middle: tuple[int, int], up: int, down: int) -> list[int]:
    """Triton's: two bits for every sample that the second filter reads, four samples in a byte."""
    return [middle[0], (middle[1] + 3) // 4]


def whole_signs(middle: tuple[int, int], up: int, down: int) -> list[int]:
    """Numba's: a byte for every sample, with a row's end filled up to a multiple of the period of its phases."""
    period = lcm(up, down)
    return [middle[0], (middle[1] + period - 1) // period * period]


def signs_shape(size: SignsSize, y: torch.Tensor, fd: torch.Tensor | None, up: int, down: int) -> list[int]:
    return [*y.shape[:2], *size(middle_size(y.shape[2:], fd, down), up, down)]
