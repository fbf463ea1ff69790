"""filtered_lrelu on plain PyTorch (impl='torch'): fast resampling around the pointwise step, a few planes at a time.

Between the filters there are up^2 times the samples. They exist for one portion of planes only, forward and backward:
the derivative computes them again from the input. On a CPU this is not only smaller but faster than to keep them, as
memory that is new costs more than the filter (first touch of 4 kB: as long as filtering 1,000 samples).
"""

from __future__ import annotations

from math import inf

import torch

from sg3.kernels.filtered_lrelu.geometry import both_sides, middle_size, opposite_padding, output_size
from sg3.kernels.memory_format import new_image
from sg3.kernels.upfirdn2d.impl_torch import Portion, passes, portions, prepared, resample


def forward(
    x: torch.Tensor,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    b: torch.Tensor | None,
    up: int,
    down: int,
    padding: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
    keep: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The op of `sg3.kernels.filtered_lrelu`, on fast resampling; keeps nothing, so its second result is empty.

    The gain moves into the upsampling: a positive factor passes through a leaky ReLU.
    """
    y = new_image(x, *output_size(x, fu, fd, up, down, padding))
    middle = middle_size(y.shape[2:], fd, down)
    margins = both_sides([padding[0], padding[2]], x.shape[2:], up, 1, fu, middle)
    before = passes(fu, (up, up), (1, 1), margins, flip_filter, up**2, x, post_gain=gain)
    after = passes(fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, 1.0, x)
    for place in portions(x, middle[0] * middle[1]):
        v = resample(_biased(x, b, place), before)
        v = torch.ops.aten.leaky_relu_(v, slope)
        if clamp is not None:
            v = v.clamp_(-clamp, clamp)
        place.write(y, resample(v, after))
    return y, x.new_empty([0])


def linear(
    x: torch.Tensor,
    kept: torch.Tensor,
    b: torch.Tensor | None,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    up: int,
    down: int,
    up_padding: list[int],
    down_padding: list[int],
    size: list[int],
    filter_gains: list[float],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
    adjoint: bool,
) -> torch.Tensor:
    """The derivative on fast resampling. `kept` is the input of the op that is derived, from which the signal between
    the filters is computed again. As torch's own gradients: the slope at 0, 1 at the clamp's edge."""
    y = new_image(x, size[0], size[1])
    # The op that is derived went through the filters in the same order, or in the opposite one.
    if adjoint:
        middle = middle_size(x.shape[2:], fu, up)
        padding = opposite_padding(down_padding, fd)
        first, factor, first_gain = fd, down, filter_gains[1]
    else:
        middle = middle_size(size, fd, down)
        padding, first, factor, first_gain = up_padding, fu, up, filter_gains[0]
    margins = both_sides(padding, kept.shape[2:], factor, 1, first, middle)
    again = passes(first, (factor, factor), (1, 1), margins, flip_filter != adjoint, first_gain, x, post_gain=gain)
    margins = both_sides(up_padding, x.shape[2:], up, 1, fu, middle)
    before = passes(fu, (up, up), (1, 1), margins, flip_filter, filter_gains[0], x, post_gain=gain)
    margins = both_sides(down_padding, middle, 1, down, fd, size)
    after = passes(fd, (1, 1), (down, down), margins, flip_filter, filter_gains[1], x)
    if clamp is not None:
        # hardtanh's gradient is 0 at its bounds and beyond, clamp's only beyond: move the bounds by one number.
        edge = torch.tensor([clamp, inf], dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
        bound = float(torch.nextafter(edge[0], edge[1]))
    for place in portions(x, middle[0] * middle[1]):
        result = torch.ops.aten.leaky_relu_(resample(_biased(kept, b, place), again), slope)
        v = resample(prepared(place.read(x)), before)
        torch.ops.aten.leaky_relu_backward(v, result, slope, True, grad_input=v)
        if clamp is not None:
            torch.ops.aten.hardtanh_backward(v, result, -bound, bound, grad_input=v)
        place.write(y, resample(v, after))
    return y


def _biased(x: torch.Tensor, b: torch.Tensor | None, place: Portion) -> torch.Tensor:
    """A portion of x plus the bias of its channels, ready for `resample`."""
    planes = place.read(x)
    return prepared(planes if b is None else planes + place.of_channels(b))
