"""upfirdn2d: upsample by zero insertion, pad or crop, filter, decimate.

For one axis of length W, with factors up and down, padding (p0, p1) and an n-tap filter f:

    u[i]  = x[i / up] if up divides i else 0          0 <= i < W * up
    p[i]  = u[i - p0]                                 zero outside; negative padding crops
    v[i]  = sum_k f[k] p[i + n - 1 - k]               a true convolution; a correlation if flip_filter
    y[i]  = gain * v[i * down]                        (W * up + p0 + p1 - n + down) // down samples

Linear in x, so every order of gradient exists. The filter is a constant.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import (
    Padding,
    Scaling,
    check_filter,
    check_image,
    filter_size,
    parse_padding,
    parse_scaling,
)
from sg3.kernels.dispatch import resolve
from sg3.kernels.fir import setup_filter

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]


def upfirdn2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 1,
    down: Scaling = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Resample the images `x` [N, C, H, W] with the FIR filter `f`.

    `f` is float32 [taps] (applied along x and y), [taps_y, taps_x], or None for a single tap of 1. `up` and `down` are
    integers or [x, y]; `padding`, in upsampled pixels, is an integer, [x, y] or [x0, x1, y0, y1], and crops where it
    is negative. `gain` multiplies the result.

    Returns [N, C, OH, OW] of x's dtype, see the module for the sizes. Gradients of any order for x.
    Raises TypeError or ValueError naming the argument that does not fit, also where no output pixel is left.
    """
    check_image("x", x)
    check_filter("f", f, like=x)
    up_x, up_y = parse_scaling("up", up)
    down_x, down_y = parse_scaling("down", down)
    pad_x0, pad_x1, pad_y0, pad_y1 = parse_padding(padding)
    taps_x, taps_y = filter_size(f)
    out_w = (x.shape[3] * up_x + pad_x0 + pad_x1 - taps_x + down_x) // down_x
    out_h = (x.shape[2] * up_y + pad_y0 + pad_y1 - taps_y + down_y) // down_y
    if out_w < 1 or out_h < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels from x of shape "
            f"{list(x.shape)} (up {up!r}, down {down!r}, {taps_y} x {taps_x} taps); expected at least 1 x 1"
        )

    resolve("upfirdn2d", impl, x.device)
    return upfirdn2d_ref(
        x, f, (up_x, up_y), (down_x, down_y), (pad_x0, pad_x1, pad_y0, pad_y1), flip_filter, gain
    )


def upfirdn2d_ref(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> torch.Tensor:
    """The formula of the module, step by step, on plain PyTorch. x: [N, C, H, W]."""
    n, c, h, w = x.shape
    up_x, up_y = up

    # Zero insertion: up - 1 zeros after each sample.
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    x = x.reshape(n, c, h * up_y, w * up_x)

    # Padding where positive, then cropping where negative (in this order a crop may reach into the padding).
    x0, x1, y0, y1 = padding
    x = F.pad(x, [max(x0, 0), max(x1, 0), max(y0, 0), max(y1, 0)])
    x = x[:, :, max(-y0, 0) : x.shape[2] - max(-y1, 0), max(-x0, 0) : x.shape[3] - max(-x1, 0)]

    # A separable filter carries half of the gain along each axis.
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if not flip_filter:  # conv2d correlates; a convolution is a correlation with the reversed filter
        f = f.flip(list(range(f.ndim)))

    # The same filter for every channel: grouped convolution, one axis at a time where the filter is separable.
    if f.ndim == 2:
        x = F.conv2d(x, f.expand(c, 1, -1, -1), groups=c)
    else:
        x = F.conv2d(x, f[None, :].expand(c, 1, 1, -1), groups=c)
        x = F.conv2d(x, f[:, None].expand(c, 1, -1, 1), groups=c)

    return x[:, :, :: down[1], :: down[0]]


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Filter `x` [N, C, H, W], keeping its size; `padding` is added to what that takes. See `upfirdn2d`."""
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    total = [x0 + taps_x // 2, x1 + (taps_x - 1) // 2, y0 + taps_y // 2, y1 + (taps_y - 1) // 2]
    return upfirdn2d(x, f, padding=total, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Upsample `x` [N, C, H, W] to [N, C, H * up, W * up]; brightness is kept if the filter sums to 1."""
    up_x, up_y = parse_scaling("up", up)
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    total = [
        x0 + (taps_x + up_x - 1) // 2, x1 + (taps_x - up_x) // 2,
        y0 + (taps_y + up_y - 1) // 2, y1 + (taps_y - up_y) // 2,
    ]
    return upfirdn2d(
        x, f, up=up, padding=total, flip_filter=flip_filter, gain=gain * up_x * up_y, impl=impl
    )


def downsample2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    down: Scaling = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Downsample `x` [N, C, H, W] to [N, C, H / down, W / down]."""
    down_x, down_y = parse_scaling("down", down)
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    total = [
        x0 + (taps_x - down_x + 1) // 2, x1 + (taps_x - down_x) // 2,
        y0 + (taps_y - down_y + 1) // 2, y1 + (taps_y - down_y) // 2,
    ]
    return upfirdn2d(x, f, down=down, padding=total, flip_filter=flip_filter, gain=gain, impl=impl)
