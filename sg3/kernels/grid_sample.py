"""grid_sample: bilinear sampling of an image at arbitrary points, with gradients of any order for the image.

    y[n,c,h,w] = sum over the four pixels around grid[n,h,w] of weight * input[n,c,pixel]

Zeros outside the image, align_corners=False: -1 and 1 are the outer edges of the border pixels. torch's own op has no
second derivative; R1 regularisation through augmentations needs one. Linear in the input, so every order exists.
"""

from __future__ import annotations

import torch

from sg3.kernels.arguments import check_image, check_same
from sg3.kernels.dispatch import resolve


def grid_sample(input: torch.Tensor, grid: torch.Tensor, impl: str = "auto") -> torch.Tensor:
    """Sample `input` [N, C, H, W] at `grid` [N, OH, OW, 2], whose last axis is (x, y) in -1..1.

    Returns [N, C, OH, OW] of the input's dtype. Raises TypeError or ValueError naming the argument that does not fit.
    """
    check_image("input", input)
    if grid.ndim != 4 or grid.shape[3] != 2 or grid.shape[0] != input.shape[0]:
        raise ValueError(f"grid: got shape {list(grid.shape)}, expected [{input.shape[0]}, OH, OW, 2]")
    check_same("grid", grid, like=input, like_name="input")

    resolve("grid_sample", impl, input.device)
    return grid_sample_ref(input, grid)


def grid_sample_ref(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Gather the four neighbours and blend them. input: [N, C, H, W], grid: [N, OH, OW, 2]."""
    n, c, h, w = input.shape
    out_h, out_w = grid.shape[1:3]
    x = ((grid[..., 0] + 1) * w - 1) / 2  # pixel coordinates, [N, OH, OW]
    y = ((grid[..., 1] + 1) * h - 1) / 2
    left, top = x.floor(), y.floor()
    flat = input.reshape(n, c, h * w)

    result = input.new_zeros(n, c, out_h, out_w)
    for px, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
        for py, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
            inside = (px >= 0) & (px < w) & (py >= 0) & (py < h)
            row, column = (p.nan_to_num().clamp(0, size - 1).long() for p, size in ((py, h), (px, w)))
            index = row * w + column
            pixels = flat.gather(2, index.reshape(n, 1, out_h * out_w).expand(n, c, -1)).reshape(n, c, out_h, out_w)
            result = result + pixels * (wx * wy * inside)[:, None]
    return result
