"""What the forms of modulated_conv2d are made of: weights for each sample, or scales of channels before and after.

Modulating the weights of an input channel equals scaling that channel, and demodulation scales output channels:

    y = demodulation * conv(s * x, w)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def modulated_weights(
    w: torch.Tensor, s: torch.Tensor, demodulate: bool, input_gain: torch.Tensor | None
) -> torch.Tensor:
    """The weights of each sample, demodulated and times the input gain, [N, O, I, kh, kw]."""
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()

    weights = w[None] * s[:, None, :, None, None]
    if demodulate:
        weights = weights * (weights.square().sum([2, 3, 4], keepdim=True) + 1e-8).rsqrt()
    if input_gain is not None:
        weights = weights * input_gain.expand(s.shape)[:, None, :, None, None]
    return weights


def conv2d_per_sample(x: torch.Tensor, weights: torch.Tensor, padding: tuple[int, int]) -> torch.Tensor:
    """x [N, I, H, W] with weights [N, O, I, kh, kw], as one convolution with N groups. padding = (y, x)."""
    n, o, i, kh, kw = weights.shape
    x = x.contiguous().reshape(1, n * i, *x.shape[2:])
    x = F.conv2d(x, weights.reshape(n * o, i, kh, kw).to(x.dtype), padding=padding, groups=n)
    return x.reshape(n, o, *x.shape[2:])


def normalized(w: torch.Tensor, s: torch.Tensor, demodulate: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and styles in one dtype and, where demodulation cancels the factors, of a size that sums cannot overflow:
    half precision must also hold what is not demodulated yet, hence the 1 / fan_in."""
    common = torch.promote_types(w.dtype, s.dtype)
    w, s = w.to(common), s.to(common)
    if demodulate:
        w = w * (w.square().mean([1, 2, 3], keepdim=True) * w[0].numel()).rsqrt()
        s = s * s.square().mean().rsqrt()
    return w, s


def demodulation(w: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """1 / norm of the modulated weights, [N, O], for the weights and styles of `normalized`."""
    squared = s.square() @ w.square().sum([2, 3]).t()
    return (squared + 1e-8 / w[0].numel()).rsqrt()


def scaled(x: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """x [N, C, H, W] times scale [N, C], in x's dtype."""
    if scale is None:
        return x
    if x.dtype == torch.float16:  # demodulating a style of zeros: 0 * large is 0, 0 * inf is not
        scale = scale.clamp(max=torch.finfo(x.dtype).max)
    return x * scale.to(x.dtype)[:, :, None, None]
