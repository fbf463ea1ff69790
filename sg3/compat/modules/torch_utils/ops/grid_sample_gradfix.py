"""`torch_utils.ops.grid_sample_gradfix` on `sg3.kernels.grid_sample`."""

from __future__ import annotations

import torch

from sg3 import kernels

enabled = False  # set by training scripts; either way the op has gradients of any order for the input


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Bilinear, zeros outside, align_corners False; see `sg3.kernels.grid_sample`."""
    return kernels.grid_sample(input, grid)
