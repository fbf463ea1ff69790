"""`torch_utils.ops.conv2d_resample` on `sg3.kernels.conv2d_resample`."""

from __future__ import annotations

import torch

from sg3 import kernels
from sg3.kernels.arguments import Padding

from . import conv2d_gradfix


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
) -> torch.Tensor:
    """Convolution with up- or downsampling; see `sg3.kernels.conv2d_resample`. Heeds the flags of `conv2d_gradfix`."""
    return kernels.conv2d_resample(
        x, conv2d_gradfix._guarded(w), f, up, down, padding, groups, flip_weight, flip_filter
    )
