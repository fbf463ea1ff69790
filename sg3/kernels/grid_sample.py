"""grid_sample: bilinear sampling of an image at arbitrary points, with gradients of any order for the image.

    y[n,c,h,w] = sum over the four pixels around grid[n,h,w] of weight * input[n,c,pixel]

Zeros outside the image, align_corners=False: -1 and 1 are the outer edges of the border pixels. torch's own op has no
second derivative; R1 regularisation through augmentations needs one. Linear in the input, so every order exists.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from sg3.kernels.arguments import check_image, check_same, no_autocast
from sg3.kernels.dispatch import resolve
from sg3.kernels.registration import may_be_differentiated, register


def grid_sample(input: torch.Tensor, grid: torch.Tensor, impl: str = "auto") -> torch.Tensor:
    """Sample `input` [N, C, H, W] at `grid` [N, OH, OW, 2], whose last axis is (x, y) in -1..1.

    Returns [N, C, OH, OW] of the input's dtype. Gradients of any order for the input; for the grid those of impl='ref',
    which 'auto' takes for a grid that requires one. Forward-mode derivatives exist with impl='ref' only. Raises
    TypeError or ValueError naming the argument that does not fit.
    """
    check_image("input", input)
    if grid.ndim != 4 or grid.shape[3] != 2 or grid.shape[0] != input.shape[0]:
        raise ValueError(f"grid: got shape {list(grid.shape)}, expected [{input.shape[0]}, OH, OW, 2]")
    check_same("grid", grid, like=input, like_name="input")

    is_constant = not may_be_differentiated(grid)
    if resolve("grid_sample", impl, input.device) == "torch" and (is_constant or impl == "torch"):
        y: torch.Tensor = grid_sample_torch(input, grid)
        return y
    with no_autocast(input):
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


# ---- impl='torch': torch's own op and its gradient op, each the other's gradient op ----


def _sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _sample_fake(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return input.new_empty([*input.shape[:2], *grid.shape[1:3]])


def _sample_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    input, grid = inputs
    ctx.save_for_backward(grid)
    ctx.size = list(input.shape)


def _sample_backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (grid,) = ctx.saved_tensors
    if ctx.needs_input_grad[1]:
        raise RuntimeError("grid_sample: impl='torch' has no gradient for the grid; use impl='ref'")
    return _grad_op(g, grid, ctx.size), None


def _grad(g: torch.Tensor, grid: torch.Tensor, size: list[int]) -> torch.Tensor:
    """Spread g [N, C, OH, OW] over the pixels of an image of `size` that it was sampled from."""
    image = g.new_empty(size)  # only its size counts
    bilinear, zeros, align_corners, wanted = 0, 0, False, [True, False]
    dx: torch.Tensor
    dx, _ = torch.ops.aten.grid_sampler_2d_backward(g, image, grid, bilinear, zeros, align_corners, wanted)
    return dx


def _grad_fake(g: torch.Tensor, grid: torch.Tensor, size: list[int]) -> torch.Tensor:
    return g.new_empty(size)


def _grad_save(ctx: Any, inputs: tuple[Any, ...], output: object) -> None:
    ctx.save_for_backward(inputs[1])


def _grad_backward(ctx: Any, u: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (grid,) = ctx.saved_tensors
    return grid_sample_torch(u, grid), None, None


grid_sample_torch = register(
    "grid_sample_torch(Tensor input, Tensor grid) -> Tensor",
    _sample, _sample_fake, _sample_save, _sample_backward,
)  # fmt: skip
_grad_op = register(
    "grid_sample_grad_torch(Tensor g, Tensor grid, SymInt[] size) -> Tensor",
    _grad, _grad_fake, _grad_save, _grad_backward,
)  # fmt: skip
