"""conv2d_resample: a convolution with up- or downsampling folded in (the resampling layers of StyleGAN2).

Mathematically: upsample with f, convolve with w, downsample with f. Filtering and convolution commute, so each case
takes the order that touches the fewest pixels: a 1x1 kernel works at the lower of the two rates, and upsampling
becomes a transposed convolution that never multiplies the inserted zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import (
    Padding,
    cast_parameter,
    check_filter,
    check_image,
    check_same,
    filter_size,
    integer,
    no_autocast,
    parse_padding,
)
from sg3.kernels.upfirdn2d.op import implementation


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
    impl: str = "auto",
) -> torch.Tensor:
    """Convolve `x` [N, I, H, W] with `w` [O, I / groups, kh, kw], upsampling before or downsampling after.

    `f` is the float32 resampling filter ([taps], [taps_y, taps_x] or None); `padding` is relative to the upsampled
    image, an integer, [x, y] or [x0, x1, y0, y1]. `flip_weight=True` correlates, as torch's conv2d does; False
    convolves. `flip_filter` likewise for f, with False (convolution) as the default.

    Returns [N, O, OH, OW] of x's dtype. Gradients of any order for x and w.
    Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    check_filter("f", f, like=x)
    up, down, groups = integer("up", up), integer("down", down), integer("groups", groups)
    if up < 1 or down < 1:
        raise ValueError(f"up, down: got {up}, {down}, expected factors of at least 1")
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"groups: got {groups}, expected a divisor of x's {x.shape[1]} channels")
    if w.ndim != 4 or w.shape[1] * groups != x.shape[1] or w.shape[0] % groups:
        raise ValueError(
            f"w: got shape {list(w.shape)}, expected [O, {x.shape[1] // groups}, kh, kw] with O divisible by "
            f"groups = {groups}"
        )
    w = cast_parameter(w, like=x)
    check_same("w", w, like=x)
    pads = parse_padding(padding)
    for axis, size, kernel, before, after in (
        ("width", x.shape[3], w.shape[3], *pads[:2]), ("height", x.shape[2], w.shape[2], *pads[2:])
    ):  # fmt: skip
        # The resampling filters bring the padding that they take, but for the samples that decimation would skip.
        if size * up + before + after - (down - 1) - (kernel - 1) < 1:
            raise ValueError(f"padding: got {padding!r}, which leaves no output pixel along the {axis}")

    resampling = implementation("conv2d_resample", impl, x)
    with no_autocast(x):
        return conv2d_resample_with(resampling, x, w, f, up, down, pads, groups, flip_weight, flip_filter)


def conv2d_resample_with(
    upfirdn: Callable[..., torch.Tensor],
    x: torch.Tensor,
    w: torch.Tensor,
    f: torch.Tensor | None,
    up: int,
    down: int,
    padding: tuple[int, int, int, int],
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> torch.Tensor:
    """One case per combination of factors; see the module docstring. padding = (x0, x1, y0, y1).

    `upfirdn` is one of the implementations of upfirdn2d; the convolutions are torch's own in any case.
    """
    kh, kw = int(w.shape[2]), int(w.shape[3])  # torch.jit.trace has tensors there
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = padding
    # Padding that keeps the image centred under the resampling filter, as in upsample2d and downsample2d.
    if up > 1:
        x0, x1 = x0 + (taps_x + up - 1) // 2, x1 + (taps_x - up) // 2
        y0, y1 = y0 + (taps_y + up - 1) // 2, y1 + (taps_y - up) // 2
    if down > 1:
        x0, x1 = x0 + (taps_x - down + 1) // 2, x1 + (taps_x - down) // 2
        y0, y1 = y0 + (taps_y - down + 1) // 2, y1 + (taps_y - down) // 2
    ones, nothing = (1, 1), (0, 0, 0, 0)
    correlated = w if flip_weight else w.flip([2, 3])

    if kw == kh == 1 and down > 1 and up == 1:
        x = upfirdn(x, f, ones, (down, down), (x0, x1, y0, y1), flip_filter, gain=1.0)
        return F.conv2d(x, w, groups=groups)

    if kw == kh == 1 and up > 1 and down == 1:
        x = F.conv2d(x, w, groups=groups)
        return upfirdn(x, f, (up, up), ones, (x0, x1, y0, y1), flip_filter, gain=up**2)

    if up == 1 and down > 1:
        x = upfirdn(x, f, ones, ones, (x0, x1, y0, y1), flip_filter, gain=1.0)
        return F.conv2d(x, correlated, stride=down, groups=groups)

    if up > 1:
        # A transposed convolution spreads each sample over kh x kw pixels, that is, it pads by k - 1 on either side
        # (minus the up - 1 zeros that would follow the last sample); the filter step makes up the difference.
        o, i = w.shape[:2]
        spread = w.flip([2, 3]) if flip_weight else w
        spread = spread.reshape(groups, o // groups, i, kh, kw).transpose(1, 2).reshape(groups * i, o // groups, kh, kw)
        x = F.conv_transpose2d(x, spread, stride=up, groups=groups)
        rest = (x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up))
        x = upfirdn(x, f, ones, ones, rest, flip_filter, gain=up**2)
        return upfirdn(x, f, ones, (down, down), nothing, flip_filter, gain=1.0) if down > 1 else x

    if x0 == x1 >= 0 and y0 == y1 >= 0:
        return F.conv2d(x, correlated, padding=(y0, x0), groups=groups)
    return F.conv2d(F.pad(x, [x0, x1, y0, y1]), correlated, groups=groups)
