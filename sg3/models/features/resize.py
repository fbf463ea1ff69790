"""Resizing as published metrics do it: bilinear as in TensorFlow 1, bicubic as in Pillow."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from sg3.kernels.bias_act.activations import clamped


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


def resize_bicubic(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[N, C, H, W] with values 0..255 -> float32 [N, C, height, width], bicubic and antialiased.

    uint8 goes through Pillow and comes back rounded, as in dgm-eval (arXiv 2306.04675). Other images, which may want
    gradients, are interpolated by the same weights and cut off at 0 and 255, not rounded.
    """
    if images.dtype != torch.uint8:
        resized = F.interpolate(images, (height, width), mode="bicubic", align_corners=False, antialias=True)
        return clamped(resized, 0, 255)
    planes = [
        [np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC)) for plane in image]
        for image in images.cpu().numpy()
    ]
    flat = np.array(planes, dtype=np.float32).reshape(*images.shape[:2], height, width)
    return torch.from_numpy(flat).to(images.device)
