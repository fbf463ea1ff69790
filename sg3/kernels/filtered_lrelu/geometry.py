"""Sizes and paddings of filtered_lrelu, and the room that signs take, for all of its implementations.

Between the filters lies the middle: the upsampled signal, as far as the second filter reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, lcm, log2

import torch

from sg3.kernels.arguments import filter_size


def output_size(
    x: torch.Tensor, fu: torch.Tensor | None, fd: torch.Tensor | None, up: int, down: int, padding: Sequence[int]
) -> tuple[int, int]:
    """[OH, OW] of filtered_lrelu, as its docstring says."""
    (fu_x, fu_y), (fd_x, fd_y) = filter_size(fu), filter_size(fd)
    x0, x1, y0, y1 = padding
    out_w = (x.shape[3] * up + x0 + x1 - (fu_x - 1) - (fd_x - 1) + down - 1) // down
    out_h = (x.shape[2] * up + y0 + y1 - (fu_y - 1) - (fd_y - 1) + down - 1) // down
    return out_h, out_w


def middle_size(size: Sequence[int], fd: torch.Tensor | None, down: int) -> tuple[int, int]:
    """[height, width] of what the second filter reads to make an output of `size`."""
    taps_x, taps_y = filter_size(fd)
    return (size[0] - 1) * down + taps_y, (size[1] - 1) * down + taps_x


@dataclass(frozen=True)
class Resampling:
    """An upsampling and then a downsampling filter step: the factors, the padding of either, [x, y] on the left and
    above, a factor that goes with either filter, and whether the filters correlate instead of convolve.

    The size of the result is given beside it, so that nothing need be said of the padding on the right and below.
    """

    up: int
    down: int
    up_padding: tuple[int, int]
    down_padding: tuple[int, int]
    filter_gains: tuple[float, float]
    flip_filter: bool

    @classmethod
    def of(
        cls, up: int, down: int, up_padding: Sequence[int], down_padding: Sequence[int],
        filter_gains: Sequence[float], flip_filter: bool,
    ) -> Resampling:  # fmt: skip
        """From a registered op's arguments, in which pairs are lists."""
        (up_x, up_y), (down_x, down_y), (before, after) = up_padding, down_padding, filter_gains
        return cls(up, down, (up_x, up_y), (down_x, down_y), (before, after), flip_filter)

    @classmethod
    def forward(cls, up: int, down: int, padding: Sequence[int], flip_filter: bool) -> Resampling:
        """That of the op itself, `padding` being its [x0, x1, y0, y1]. Zero insertion costs energy, hence up^2."""
        return cls(up, down, (padding[0], padding[2]), (0, 0), (up**2, 1.0), flip_filter)

    def transposed(self, fu: torch.Tensor | None, fd: torch.Tensor | None) -> Resampling:
        """That of the transpose, with filters fd and fu: either step becomes the other, with its filter reversed."""
        return Resampling(
            self.down, self.up, opposite_padding(self.down_padding, fd), opposite_padding(self.up_padding, fu),
            self.filter_gains[::-1], not self.flip_filter,
        )  # fmt: skip

    def balanced(self) -> Resampling:
        """The same, if what lies between the steps is linear, but with a first step that keeps a signal's size.

        The gain of the transpose comes last, after a first step that makes a signal up^2 times smaller, too small for
        half precision where gradients are. Moved by powers of 4, so that taps are rounded as before.
        """
        moved = 4.0 ** round(log2(self.up**2 / self.filter_gains[0]) / 2)
        gains = self.filter_gains[0] * moved, self.filter_gains[1] / moved
        return replace(self, filter_gains=gains)

    def arguments(self) -> list[object]:
        """As a registered op takes them."""
        return [self.up, self.down, list(self.up_padding), list(self.down_padding), list(self.filter_gains),
                self.flip_filter]  # fmt: skip


def opposite_padding(padding: tuple[int, int], f: torch.Tensor | None) -> tuple[int, int]:
    """The padding [x, y] on the left and above of the transpose of a filter step that has `padding` there."""
    taps_x, taps_y = filter_size(f)
    return taps_x - 1 - padding[0], taps_y - 1 - padding[1]


def both_sides(
    first: Sequence[int], size: Sequence[int], up: int, down: int, f: torch.Tensor | None, result: Sequence[int]
) -> tuple[int, int, int, int]:
    """The padding that makes `result` of `size`, both [height, width], from that on the left and above, [x, y]."""
    taps_x, taps_y = filter_size(f)
    x1 = (result[1] - 1) * down + taps_x - size[1] * up - first[0]
    y1 = (result[0] - 1) * down + taps_y - size[0] * up - first[1]
    return first[0], x1, first[1], y1


# The signs of a middle of [height, width]: what a sample's is, and two ways to lay them out.

PASSED, SLOPED, CLAMPED = 0, 1, 2


def signs_in_bits(height: int, width: int, up: int, down: int) -> tuple[int, int]:
    """Triton's: two bits for every sample, four samples in a byte, the first in the lowest bits."""
    return height, (width + 3) // 4


MARCHING = ((2, 2), (4, 2), (2, 4))  # up and down for which Triton's programs march


def signs_in_lines(height: int, width: int, up: int, down: int) -> tuple[int, int]:
    """Triton's where its programs may march: a line for 32 rows, see signs.py; with room for what tiles keep, too."""
    if (up, down) not in MARCHING:
        return signs_in_bits(height, width, up, down)
    return ceil(height / 32), max(34 * ceil(width / 4), 32 * signs_in_bits(height, width, up, down)[1])


def signs_by_phase(height: int, width: int, up: int, down: int) -> tuple[int, int]:
    """Numba's: a byte for every sample, with a row's end filled up to a multiple of the period of its phases."""
    period = lcm(up, down)
    return height, (width + period - 1) // period * period
