"""modulated_conv2d on plain PyTorch (impl='torch'): one dense convolution between scales, or weights per sample."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sg3.kernels.kept import Kept
from sg3.kernels.memory_format import is_channels_last
from sg3.kernels.modulated_conv2d.modulation import conv2d_per_sample, modulated_weights, modulation

# Weights per sample, as a share of the activations of a sample (input and output), up to which they are the faster form
# on a CPU, if not channels_last: measured 1.0 times the other's time at 0.4, 0.6 to 0.8 below 0.1.
SMALL_WEIGHTS = 0.25

def modulated_conv2d_torch(
    x: torch.Tensor,
    w: torch.Tensor,
    s: torch.Tensor,
    demodulate: bool,
    padding: tuple[int, int],
    input_gain: torch.Tensor | None,
    fused: bool,
    kept: Kept | None,
) -> torch.Tensor:
    """Scale -> one dense convolution for all samples -> scale. padding = (y, x); `fused`, `kept`: see `modulation`.

    On a CPU, weights per sample are faster where they are much smaller than the activations that would be scaled, if
    they are a 1x1 kernel's, which make a batch of matrix products, or the image is not channels_last.
    """
    o, i, kh, kw = w.shape
    if x.device.type == "cpu" and x.shape[0] > 0 and w.numel() <= SMALL_WEIGHTS * (o + i) * x.shape[2] * x.shape[3]:
        if kh * kw == 1 and padding == (0, 0):
            return _pointwise(x, modulated_weights(w, s, demodulate, input_gain).reshape(-1, o, i).to(x.dtype))
        if not is_channels_last(x):
            return conv2d_per_sample(x, modulated_weights(w, s, demodulate, input_gain), padding)
    weights, before, after = modulation(w, s, demodulate, input_gain, (x.dtype, x.dtype), fused, kept)
    y = F.conv2d(x * before[:, :, None, None], weights, padding=padding)
    return y if after is None else y * after()[:, :, None, None]


def _pointwise(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """weights [N, O, I] times the pixels of x [N, I, H, W], in x's memory format."""
    if is_channels_last(x):
        y = x.permute(0, 2, 3, 1).flatten(1, 2) @ weights.mT  # [N, H * W, O]
        return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return (weights @ x.flatten(2)).unflatten(2, x.shape[2:])
