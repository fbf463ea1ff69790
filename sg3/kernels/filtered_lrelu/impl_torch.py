"""filtered_lrelu on plain PyTorch (impl='torch'): fast resampling around the pointwise step, a few planes at a time.

Between the filters there are up^2 times the samples. They exist for one portion of planes only, forward and backward:
the gradient computes them again from the input. On a CPU this is not only smaller but faster than to keep them, as
memory that is new costs more than the filter (first touch of 4 kB: as long as filtering 1,000 samples).
"""

from __future__ import annotations

from math import inf

import torch

from sg3.kernels.filtered_lrelu.geometry import Resampling, both_sides, middle_size
from sg3.kernels.upfirdn2d.impl_torch import Pass, Portion, passes, portions, prepared, resample


def forward(
    x: torch.Tensor,
    b: torch.Tensor | None,
    y: torch.Tensor,
    signs: None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    gain: float,
    slope: float,
    clamp: float | None,
) -> None:
    """Fill y [N, C, OH, OW] from x [N, C, H, W].

    The gain moves into the upsampling: a positive factor passes through a leaky ReLU.
    """
    middle = middle_size(y.shape[2:], fd, resampling.down)
    before, after = _steps(x, y, middle, fu, fd, resampling, gain)
    for place in portions(x, middle[0] * middle[1]):
        v = resample(_biased(x, b, place), before)
        v = torch.ops.aten.leaky_relu_(v, slope)
        if clamp is not None:
            v = v.clamp_(-clamp, clamp)
        place.write(y, resample(v, after))


def grad(
    g: torch.Tensor,
    y: torch.Tensor,
    signs: None,
    x: torch.Tensor,
    b: torch.Tensor | None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    resampling: Resampling,
    gain: float,
    slope: float,
    clamp: float | None,
    transposed: bool,
) -> None:
    """Fill y from g. The signal between the filters is made again from x and b, as the op made it that is derived.

    The gradients of the formula: the slope at 0, 1 at the clamp's edge.
    """
    # That op went through the filters in the same order, or in the opposite one.
    if transposed:
        derived, first = resampling.transposed(fu, fd), fd
        middle = middle_size(g.shape[2:], fu, resampling.up)
    else:
        derived, first = resampling, fu
        middle = middle_size(y.shape[2:], fd, resampling.down)
    again = _upsampling(x, middle, first, derived, gain)
    before, after = _steps(g, y, middle, fu, fd, resampling, gain)
    if clamp is not None:
        # hardtanh's gradient is 0 at its bounds and beyond, ours only beyond: move the bounds by one number.
        edge = torch.tensor([clamp, inf], dtype=torch.float64 if g.dtype == torch.float64 else torch.float32)
        bound = float(torch.nextafter(edge[0], edge[1]))
    for place in portions(g, middle[0] * middle[1]):
        bent = torch.ops.aten.leaky_relu_(resample(_biased(x, b, place), again), slope)
        v = resample(prepared(place.read(g)), before)
        torch.ops.aten.leaky_relu_backward(v, bent, slope, True, grad_input=v)
        if clamp is not None:
            torch.ops.aten.hardtanh_backward(v, bent, -bound, bound, grad_input=v)
        place.write(y, resample(v, after))


def _upsampling(
    x: torch.Tensor, middle: tuple[int, int], fu: torch.Tensor | None, resampling: Resampling, gain: float
) -> list[Pass]:
    """The first filter step, from x to a middle of that size, times the gain."""
    up = resampling.up
    margins = both_sides(resampling.up_padding, x.shape[2:], up, 1, fu, middle)
    return passes(fu, (up, up), (1, 1), margins, resampling.flip_filter, resampling.filter_gains[0], x, post_gain=gain)


def _steps(
    x: torch.Tensor, y: torch.Tensor, middle: tuple[int, int], fu: torch.Tensor | None, fd: torch.Tensor | None,
    resampling: Resampling, gain: float,
) -> tuple[list[Pass], list[Pass]]:  # fmt: skip
    """Both filter steps, from x to the middle and on to y."""
    down = resampling.down
    margins = both_sides(resampling.down_padding, middle, 1, down, fd, y.shape[2:])
    after = passes(fd, (1, 1), (down, down), margins, resampling.flip_filter, resampling.filter_gains[1], x)
    return _upsampling(x, middle, fu, resampling, gain), after


def _biased(x: torch.Tensor, b: torch.Tensor | None, place: Portion) -> torch.Tensor:
    """A portion of x plus the bias of its channels, ready for `resample`."""
    planes = place.read(x)
    return prepared(planes if b is None else planes + place.of_channels(b))
