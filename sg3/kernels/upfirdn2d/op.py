"""upfirdn2d: upsample by zero insertion, pad or crop, filter, decimate.

For one axis of length W, with factors up and down, padding (p0, p1) and an n-tap filter f:

    u[i]  = x[i / up] if up divides i else 0          0 <= i < W * up
    p[i]  = u[i - p0]                                 zero outside; negative padding crops
    v[i]  = sum_k f[k] p[i + n - 1 - k]               a true convolution; a correlation if flip_filter
    y[i]  = gain * v[i * down]                        (W * up + p0 + p1 - n + down) // down samples

Linear in x, so every order of gradient exists. The filter is a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import (
    Padding,
    Scaling,
    check_filter,
    check_image,
    filter_size,
    no_autocast,
    parse_padding,
    parse_scaling,
)
from sg3.kernels.dispatch import resolve
from sg3.kernels.fir import setup_filter
from sg3.kernels.memory_format import is_channels_last, new_image
from sg3.kernels.registration import register
from sg3.kernels.upfirdn2d import impl_torch

__all__ = ["downsample2d", "filter2d", "setup_filter", "upfirdn2d", "upsample2d"]

# Where impl='torch' is faster than 'numba' (`python -m bench.resampling calls`).
SHORT_ROW = 32   # numbers
MANY_ROWS = 512  # of all planes of one image of the result: an image is the same in a batch of any size


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
    pads = (pad_x0, pad_x1, pad_y0, pad_y1)
    out_h, out_w = output_size(x, f, (up_x, up_y), (down_x, down_y), pads)
    if out_w < 1 or out_h < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels from x of shape "
            f"{list(x.shape)} (up {up!r}, down {down!r}, {taps_y} x {taps_x} taps); expected at least 1 x 1"
        )

    function = implementation("upfirdn2d", impl, x)
    with no_autocast(x):
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


def output_size(
    x: torch.Tensor, f: torch.Tensor | None, up: Sequence[int], down: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """[OH, OW], see the module."""
    taps_x, taps_y = filter_size(f)
    x0, x1, y0, y1 = padding
    return (x.shape[2] * up[1] + y0 + y1 - taps_y + down[1]) // down[1], \
        (x.shape[3] * up[0] + x0 + x1 - taps_x + down[0]) // down[0]


# ---- impl='triton', 'numba' and 'torch': an op for each, registered with PyTorch, and its own gradient op ----

SCHEMA = (
    "(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] padding, bool flip_filter, float gain, bool channels_last) "
    "-> Tensor"
)


class _Registration:
    """`sg3::upfirdn2d_IMPL`. `channels_last` is the memory format of the result."""

    def __init__(self, impl: str) -> None:
        self.impl = impl
        self.op = register(f"upfirdn2d_{impl}{SCHEMA}", self.forward, self.allocate, self.save, self.backward)

    def __call__(
        self, x: torch.Tensor, f: torch.Tensor | None, up: tuple[int, int], down: tuple[int, int],
        padding: tuple[int, int, int, int], flip_filter: bool, gain: float,
    ) -> torch.Tensor:  # fmt: skip
        """As `upfirdn2d_ref`. channels_last in, channels_last out."""
        y: torch.Tensor = self.op(x, f, up, down, padding, flip_filter, gain, is_channels_last(x))
        return y

    def forward(
        self, x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], padding: list[int],
        flip_filter: bool, gain: float, channels_last: bool,
    ) -> torch.Tensor:  # fmt: skip
        size = output_size(x, f, up, down, padding)
        rates = (up[0], up[1]), (down[0], down[1])
        if self.impl == "triton":
            from sg3.kernels.upfirdn2d import impl_triton

            return impl_triton.forward(x, f, *rates, (padding[0], padding[2]), flip_filter, gain, size, channels_last)
        if self.impl == "numba":
            from sg3.kernels.upfirdn2d import impl_numba

            return impl_numba.forward(x, f, *rates, (padding[0], padding[2]), flip_filter, gain, size, channels_last)
        x0, x1, y0, y1 = padding
        return impl_torch.forward(x, f, *rates, (x0, x1, y0, y1), flip_filter, gain, size, channels_last)

    def allocate(
        self, x: torch.Tensor, f: torch.Tensor | None, up: list[int], down: list[int], padding: list[int],
        flip_filter: bool, gain: float, channels_last: bool,
    ) -> torch.Tensor:  # fmt: skip
        return new_image(x, *output_size(x, f, up, down, padding), channels_last=channels_last)

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, f, *ctx.settings = inputs
        ctx.save_for_backward(f)
        ctx.input_size, ctx.output_size = x.shape[2:], output.shape[2:]

    def backward(self, ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Decimation and zero insertion are each other's transpose, and so are a filter and its mirror image: the op
        itself again, padded to give back exactly x's size."""
        (f,) = ctx.saved_tensors
        up, down, padding, flip_filter, gain, channels_last = ctx.settings
        dx = None
        if ctx.needs_input_grad[0]:
            pads: list[int] = []
            for axis, taps in enumerate(filter_size(f)):
                before, size, out = padding[2 * axis], ctx.input_size[1 - axis], ctx.output_size[1 - axis]
                pads += [taps - 1 - before, size * up[axis] - out * down[axis] + before - up[axis] + 1]
            dx = self.op(dy, f, down, up, pads, not flip_filter, gain, channels_last)
        return dx, None, None, None, None, None, None, None


upfirdn2d_numba = _Registration("numba")
upfirdn2d_torch = _Registration("torch")
upfirdn2d_triton = _Registration("triton")


def implementation(op: str, impl: str, x: torch.Tensor) -> Callable[..., torch.Tensor]:
    """The function that `impl` means for images like x; all take (x, f, up, down, padding, flip_filter, gain). `op` is
    upfirdn2d, or one that calls it. Raises as `resolve` does."""
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "triton": upfirdn2d_triton, "numba": upfirdn2d_numba, "torch": upfirdn2d_torch, "ref": upfirdn2d_ref,
    }  # fmt: skip
    resolved = resolve(op, impl, x.device, x.dtype)
    return upfirdn2d_cpu if resolved == "numba" and impl != "numba" else functions[resolved]


def upfirdn2d_cpu(
    x: torch.Tensor, f: torch.Tensor | None, up: tuple[int, int], down: tuple[int, int],
    padding: tuple[int, int, int, int], flip_filter: bool, gain: float,
) -> torch.Tensor:  # fmt: skip
    """What 'auto' means where `resolve` says Numba: Numba, but PyTorch for many short rows, the planes of NCHW
    features.

    Numba starts anew with every row, unless the channels lie side by side in it; PyTorch takes longer to start a call.
    """
    height, width = output_size(x, f, up, down, padding)
    short = width < SHORT_ROW and x.shape[1] * height >= MANY_ROWS and not is_channels_last(x)
    return (upfirdn2d_torch if short else upfirdn2d_numba)(x, f, up, down, padding, flip_filter, gain)


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
