"""filtered_lrelu: the alias-free nonlinearity of StyleGAN3 (Karras et al. 2021, Figure 4b).

    x -> + b -> upsample by fu -> * gain -> leaky ReLU -> clamp -> downsample by fd -> y

The pointwise nonlinearity runs at a higher sampling rate, where the frequencies that it creates can still be told
apart from aliases, and the second filter removes them before the rate goes down again. The bias is added before the
zero padding, so the padded border holds 0, not b.
"""

from __future__ import annotations

from math import sqrt

import torch

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
from sg3.kernels.upfirdn2d import upfirdn2d_ref


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

    resolve("filtered_lrelu", impl, x.device)
    return filtered_lrelu_ref(x, fu, fd, b, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip_filter)


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
