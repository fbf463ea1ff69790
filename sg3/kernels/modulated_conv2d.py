"""modulated_conv2d: convolution whose input channels are scaled per sample by a style (Karras et al. 2020, Eq. 1-3).

    w'[n,o,i] = s[n,i] * w[o,i]                            modulate
    w"[n,o]   = w'[n,o] / sqrt(sum_i,k w'[n,o,i,k]^2 + eps)  demodulate: unit gain for unit-variance input
    y[n,o]    = sum_i conv(x[n,i], input_gain[i] * w"[n,o,i])

This is StyleGAN3's form, in which weights and styles are also normalised beforehand, so that nothing overflows in
half precision; demodulation cancels both factors (up to eps). The style's factor spans the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import Padding, check_image, parse_padding
from sg3.kernels.dispatch import resolve


def modulated_conv2d(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool = True,
    padding: Padding = 0,
    input_gain: torch.Tensor | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """Convolve each image with its own modulated weights.

    `x` [N, I, H, W]; `w` [O, I, kh, kw] and `s` [N, I] in any floating-point dtype on x's device; `input_gain`, applied
    after demodulation, is a scalar, [I] or [N, I]; `padding` is an integer or [x, y] of zeros.

    Returns [N, O, H + 2 py - kh + 1, W + 2 px - kw + 1] of x's dtype. Gradients of any order for x, w, s and
    input_gain. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("x", x)
    n, i = x.shape[:2]
    if w.ndim != 4 or w.shape[1] != i:
        raise ValueError(f"w: got shape {list(w.shape)}, expected [O, {i}, kh, kw] for x of shape {list(x.shape)}")
    if s.shape != (n, i):
        raise ValueError(f"s: got shape {list(s.shape)}, expected [{n}, {i}] for x of shape {list(x.shape)}")
    for name, tensor in (("w", w), ("s", s), ("input_gain", input_gain)):
        if tensor is None:
            continue
        if not tensor.is_floating_point():
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating-point tensor")
        if tensor.device != x.device:
            raise ValueError(f"{name}: is on {tensor.device}, expected {x.device} as x")
    if input_gain is not None and input_gain.shape not in ((), (1,), (i,), (1, i), (n, 1), (n, i)):
        raise ValueError(f"input_gain: got shape {list(input_gain.shape)}, expected [], [{i}] or [{n}, {i}]")
    x0, x1, y0, y1 = parse_padding(padding)
    if x0 != x1 or y0 != y1 or x0 < 0 or y0 < 0:
        raise ValueError(f"padding: got {padding!r}, expected non-negative symmetric padding, an integer or [x, y]")
    out_h, out_w = x.shape[2] + 2 * y0 - w.shape[2] + 1, x.shape[3] + 2 * x0 - w.shape[3] + 1
    if out_h < 1 or out_w < 1:
        raise ValueError(
            f"padding: got {padding!r}, which leaves an output of {out_h} x {out_w} pixels; expected at least 1 x 1"
        )

    fast = resolve("modulated_conv2d", impl, x.device) == "torch" or n == 0  # there are no convolutions in 0 groups
    function = modulated_conv2d_torch if fast else modulated_conv2d_ref
    return function(x, w, s, demodulate, (y0, x0), input_gain)


def modulated_conv2d_ref(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    padding: tuple[int, int],
    input_gain: torch.Tensor | None,
) -> torch.Tensor:
    """The formula with one set of weights per sample, as a convolution with N groups. padding = (y, x)."""
    n, i = s.shape
    o, _, kh, kw = w.shape

    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()

    weights = w[None] * s[:, None, :, None, None]  # [N, O, I, kh, kw]
    if demodulate:
        weights = weights * (weights.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        weights = weights * input_gain.expand(n, i)[:, None, :, None, None]

    x = x.reshape(1, n * i, *x.shape[2:])
    x = F.conv2d(x, weights.reshape(n * o, i, kh, kw).to(x.dtype), padding=padding, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def modulated_conv2d_torch(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    padding: tuple[int, int],
    input_gain: torch.Tensor | None,
) -> torch.Tensor:
    """The same as scale -> one dense convolution for all samples -> scale: modulating the weights of an input channel
    equals scaling that channel, and demodulation scales output channels."""
    common = torch.promote_types(w.dtype, s.dtype)
    w, s = w.to(common), s.to(common)
    fan_in = w[0].numel()
    if demodulate:
        # Half precision must also hold what is not demodulated yet, hence the 1 / fan_in in here and in eps below.
        w = w * (w.square().mean([1, 2, 3], keepdim=True) * fan_in).rsqrt()
        s = s * s.square().mean().rsqrt()
    scale = s if input_gain is None else s * input_gain
    y = F.conv2d(x * scale.to(x.dtype)[:, :, None, None], w.to(x.dtype), padding=padding)
    if demodulate:
        squared = s.square() @ w.square().sum([2, 3]).t()  # [N, O]: sum of squares of the modulated weights
        y = y * (squared + 1e-8 / fan_in).rsqrt().to(x.dtype)[:, :, None, None]
    return y
