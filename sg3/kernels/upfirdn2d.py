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

MOST_TAPS_2D = 12  # of a separable filter, up to which one two-dimensional pass is faster than two (CPU)

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
    if f is not None and f.ndim == 1 and not gain >= 0:
        raise ValueError(f"gain: got {gain}, expected a number >= 0 with a separable filter (each axis takes its root)")
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

    function = upfirdn2d_torch if resolve("upfirdn2d", impl, x.device) == "torch" else upfirdn2d_ref
    pads = (pad_x0, pad_x1, pad_y0, pad_y1)
    return function(x, f, (up_x, up_y), (down_x, down_y), pads, flip_filter, gain)


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


def upfirdn2d_torch(
    x: torch.Tensor,
    f: torch.Tensor | None,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    post_gain: float = 1.0,
) -> torch.Tensor:
    """The same without inserted zeros and discarded samples: transposed and strided depthwise convolutions.

    x: [N, C, H, W]. A separable filter of few taps runs as its outer product: with the vector units of a CPU, one pass
    of 12 x 12 taps is faster than two of 12 (measured, as was the alternative of banded matrix products).
    `post_gain` multiplies the result, in x's precision rather than in the filter's.
    """
    n, c = x.shape[:2]
    if n * c == 0:  # no such thing as a convolution in 0 groups
        return upfirdn2d_ref(x, f, up, down, padding, flip_filter, gain)
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)  # scaled in the filter's own precision, as in the reference
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    # All planes become channels, so that the vector units are full however few channels there are.
    planes = x.reshape(1, n * c, *x.shape[2:])
    if f.ndim == 1 and f.shape[0] > MOST_TAPS_2D:
        x0, x1, y0, y1 = padding
        planes = _depthwise(planes, f[None, :], (up[0], 1), (down[0], 1), (x0, x1, 0, 0))
        planes = _depthwise(planes, f[:, None] * post_gain, (1, up[1]), (1, down[1]), (0, 0, y0, y1))
    else:
        kernel = f if f.ndim == 2 else torch.outer(f, f)
        planes = _depthwise(planes, kernel * post_gain, up, down, padding)
    return planes.reshape(n, c, *planes.shape[2:])


def _depthwise(
    x: torch.Tensor, f: torch.Tensor, up: tuple[int, int], down: tuple[int, int], padding: tuple[int, int, int, int]
) -> torch.Tensor:
    """upfirdn2d of [1, P, H, W] with a 2-D filter (true convolution)."""
    planes = x.shape[1]
    taps_y, taps_x = f.shape
    x0, x1, y0, y1 = padding
    if up == (1, 1):
        kernel = f.flip([0, 1]).expand(planes, 1, -1, -1)  # conv2d correlates
        even = 0 <= x0 == x1 <= taps_x // 2 and 0 <= y0 == y1 <= taps_y // 2  # beyond that, oneDNN is slow
        x = x if even else _pad_or_crop(x, padding)
        return F.conv2d(x, kernel, stride=(down[1], down[0]), padding=(y0, x0) if even else 0, groups=planes)

    # A transposed convolution spreads every sample over the taps, so its output begins taps - 1 samples before the
    # first one of an unpadded upfirdn2d and ends at the last sample's last tap. This is what has to go on each side.
    left, top = taps_x - 1 - x0, taps_y - 1 - y0
    right, bottom = taps_x - up[0] - x1, taps_y - up[1] - y1
    # The convolution leaves some of it out itself; more than half a kernel has no fast code in oneDNN.
    inner_x, inner_y = max(min(left, right, taps_x // 2), 0), max(min(top, bottom, taps_y // 2), 0)
    kernel = f.expand(planes, 1, -1, -1)
    x = F.conv_transpose2d(x, kernel, stride=(up[1], up[0]), padding=(inner_y, inner_x), groups=planes)
    x = _pad_or_crop(x, (inner_x - left, inner_x - right, inner_y - top, inner_y - bottom))
    return x[:, :, :: down[1], :: down[0]]


def _pad_or_crop(x: torch.Tensor, padding: tuple[int, int, int, int]) -> torch.Tensor:
    """As in the reference, but without a copy where nothing is padded."""
    x0, x1, y0, y1 = padding
    if max(padding) > 0:
        x = F.pad(x, [max(x0, 0), max(x1, 0), max(y0, 0), max(y1, 0)])
    return x[:, :, max(-y0, 0) : x.shape[2] - max(-y1, 0), max(-x0, 0) : x.shape[3] - max(-x1, 0)]


def filter2d(
    x: torch.Tensor,
    f: torch.Tensor | None,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> torch.Tensor:
    """Filter `x` [N, C, H, W], keeping its size; `padding` is added to what that takes. See `upfirdn2d`."""
    check_filter("f", f, like=x)
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
    check_filter("f", f, like=x)
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
    check_filter("f", f, like=x)
    down_x, down_y = parse_scaling("down", down)
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    total = [
        x0 + (taps_x - down_x + 1) // 2, x1 + (taps_x - down_x) // 2,
        y0 + (taps_y - down_y + 1) // 2, y1 + (taps_y - down_y) // 2,
    ]
    return upfirdn2d(x, f, down=down, padding=total, flip_filter=flip_filter, gain=gain, impl=impl)
