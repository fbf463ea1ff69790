"""filtered_lrelu: the alias-free nonlinearity of StyleGAN3 (Karras et al. 2021, Figure 4b).

    x -> + b -> upsample by fu -> * gain -> leaky ReLU -> clamp -> downsample by fd -> y

The pointwise nonlinearity runs at a higher sampling rate, where the frequencies that it creates can still be told
apart from aliases, and the second filter removes them before the rate goes down again. The bias is added before the
zero padding, so the padded border holds 0, not b.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import Any

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import (
    Padding,
    check_bias,
    check_filter,
    check_image,
    filter_size,
    integer,
    parse_padding,
)
from sg3.kernels.bias_act import bias_act_ref
from sg3.kernels.dispatch import resolve
from sg3.kernels.upfirdn2d import upfirdn2d_ref, upfirdn2d_torch


def filtered_lrelu(
    x: torch.Tensor,
    fu: torch.Tensor | None = None,
    fd: torch.Tensor | None = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> torch.Tensor:
    """Upsample, leaky ReLU, downsample.

    `x` is [N, C, H, W]; `b`, if given, [C] of x's dtype. `fu` and `fd` are float32 filters, [taps] for both axes,
    [taps_y, taps_x], or None. `padding`, in pixels of the upsampled image, is an integer, [x, y] or [x0, x1, y0, y1];
    negative numbers crop. `flip_filter` makes both filters correlate instead of convolve.

    Returns [N, C, OH, OW] of x's dtype with OW = (W * up + x0 + x1 - (fu_taps - 1) - (fd_taps - 1) + down - 1) // down.
    Gradients of any order for x and b. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    check_filter("fu", fu, like=x)
    check_filter("fd", fd, like=x)
    if b is not None:
        check_bias(b, x.shape[1], like=x)
    up, down = integer("up", up), integer("down", down)
    if up < 1 or down < 1:
        raise ValueError(f"up, down: got {up}, {down}, expected factors of at least 1")
    x0, x1, y0, y1 = parse_padding(padding)
    if not gain > 0:
        raise ValueError(f"gain: got {gain}, expected a number > 0")
    if not slope >= 0:
        raise ValueError(f"slope: got {slope}, expected a number >= 0")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: got {clamp}, expected None or a number >= 0")
    (fu_x, fu_y), (fd_x, fd_y) = filter_size(fu), filter_size(fd)
    out_w = (x.shape[3] * up + x0 + x1 - (fu_x - 1) - (fd_x - 1) + down - 1) // down
    out_h = (x.shape[2] * up + y0 + y1 - (fu_y - 1) - (fd_y - 1) + down - 1) // down
    if out_w < 1 or out_h < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels from x of shape "
            f"{list(x.shape)} (up {up}, down {down}); expected at least 1 x 1"
        )

    function = filtered_lrelu_torch if resolve("filtered_lrelu", impl, x.device) == "torch" else filtered_lrelu_ref
    return function(x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter)


def filtered_lrelu_ref(
    x: torch.Tensor,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    b: torch.Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> torch.Tensor:
    """The chain of the module docstring, one op after the other. Zero insertion costs energy, hence the gain up^2."""
    x = bias_act_ref(x, b, dim=1, act="linear", alpha=0.0, gain=1.0, clamp=None)
    x = upfirdn2d_ref(x, fu, (up, up), (1, 1), padding, flip_filter, gain=up**2)
    x = bias_act_ref(x, None, dim=1, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    return upfirdn2d_ref(x, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, gain=1.0)


def filtered_lrelu_torch(
    x: torch.Tensor,
    fu: torch.Tensor | None,
    fd: torch.Tensor | None,
    b: torch.Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip_filter: bool,
) -> torch.Tensor:
    """The same on the fast resampling; of the upsampled signal only the pointwise step's input is kept for backward.

    The gain moves into the upsampling: a positive factor passes through a leaky ReLU.
    """
    if b is not None:
        x = x + b[:, None, None]
    v = upfirdn2d_torch(x, fu, (up, up), (1, 1), padding, flip_filter, gain=up**2, post_gain=gain)
    y: torch.Tensor = _LeakyClamp.apply(v, slope, clamp)
    return upfirdn2d_torch(y, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter, gain=1.0)


class _LeakyClamp(torch.autograd.Function):
    """Leaky ReLU, then clamp; gradients as torch's own: the slope at 0, 1 at the clamp's edge.

    One tensor is kept, the value before the clamp: its sign is that of the input, its size tells what was clamped.
    """

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor, slope: float, clamp: float | None) -> torch.Tensor:
        y = F.leaky_relu(v, slope)
        ctx.save_for_backward(y)
        ctx.slope, ctx.clamp = slope, clamp
        return y if clamp is None else y.clamp(-clamp, clamp)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return _LeakyClampGrad.apply(grads[0], y, ctx.slope, ctx.clamp), None, None


class _LeakyClampGrad(torch.autograd.Function):
    """The gradient above: linear in g, piecewise constant in y."""

    @staticmethod
    def forward(ctx: Any, g: torch.Tensor, y: torch.Tensor, slope: float, clamp: float | None) -> torch.Tensor:
        ctx.save_for_backward(y)
        ctx.slope, ctx.clamp = slope, clamp
        g = torch.ops.aten.leaky_relu_backward(g, y, slope, True)
        if clamp is None:
            return g
        # hardtanh's gradient is 0 at its bounds and beyond, clamp's only beyond: move the bounds by one number.
        edge = torch.tensor([clamp, inf], dtype=torch.float64 if y.dtype == torch.float64 else torch.float32)
        bound = float(torch.nextafter(edge[0], edge[1]))
        return torch.ops.aten.hardtanh_backward(g, y, -bound, bound)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (y,) = ctx.saved_tensors
        return _LeakyClampGrad.apply(grads[0], y, ctx.slope, ctx.clamp), None, None, None
