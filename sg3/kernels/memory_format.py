"""How images lie in memory, NCHW or channels_last, and room for more in the same way."""

from __future__ import annotations

import torch


def new_image(
    like: torch.Tensor,
    height: int,
    width: int,
    channels: int | None = None,
    dtype: torch.dtype | None = None,
    channels_last: bool | None = None,
) -> torch.Tensor:
    """Room for [N, C, height, width], N and by default C, dtype and memory format being those of `like`."""
    n, c = like.shape[0], like.shape[1] if channels is None else channels
    if is_channels_last(like) if channels_last is None else channels_last:
        strides = (height * width * c, 1, width * c, c)
    else:
        strides = (c * height * width, height * width, width, 1)
    return like.new_empty_strided([n, c, height, width], strides, dtype=dtype or like.dtype)


def is_channels_last(x: torch.Tensor) -> bool:
    """Whether [N, C, H, W] has its channels side by side in memory; no where both formats are the same."""
    if x.is_contiguous():
        return False
    try:
        return x.is_contiguous(memory_format=torch.channels_last)
    except RuntimeError:  # within torch.vmap PyTorch does not say
        return False
