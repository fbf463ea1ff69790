"""Bilinear resizing as TensorFlow 1 does it."""

from __future__ import annotations

import torch


def resize_tf1(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[N, C, H, W] -> [N, C, height, width], as `tf.image.resize_bilinear` with its defaults in TensorFlow 1.

    Output pixel i is interpolated at input position i * H / height: corners are not aligned, pixel centres lie on
    whole numbers, and shrinking averages nothing, so it aliases. The published FID and IS rest on exactly this.
    """
    # TensorFlow interpolates along rows first; the order shows in the last bit.
    return _along(_along(images, 3, width), 2, height)


def _along(images: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    have = images.shape[dim]
    scale = torch.tensor(have / size, dtype=torch.float32)  # rounded to float32 before use, as in the original
    position = torch.arange(size, dtype=torch.float32) * scale
    low = position.long()
    part = (position - low).to(images)
    low, high = low.to(images.device), (low + 1).clamp(max=have - 1).to(images.device)
    shape = [1] * images.ndim
    shape[dim] = size
    near = images.index_select(dim, low)
    return near + (images.index_select(dim, high) - near) * part.view(shape)
