"""`torch_utils.ops.conv2d_gradfix`: PyTorch's convolutions, which are differentiable to any order by now.

The flags keep their meaning. While `weight_gradients_disabled` is set, as inside `no_weight_gradients()`, a backward
pass through a convolution made with `enabled` gives its weight no gradient. Gradients of that gradient, taken later,
reach the weight again: that is how path length regularisation saves time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

enabled = False
weight_gradients_disabled = False


@contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Within it, backward passes leave out the gradients of weights (if `disable`)."""
    global weight_gradients_disabled  # the interface is this flag
    before = weight_gradients_disabled
    weight_gradients_disabled = weight_gradients_disabled or disable
    try:
        yield
    finally:
        weight_gradients_disabled = before


class _StopGradientOnDemand(torch.autograd.Function):
    """The tensor itself, whose gradient is dropped where the flag is set when it arrives."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor | None:
        return None if weight_gradients_disabled else grad


def _guarded(weight: torch.Tensor) -> torch.Tensor:
    if not (enabled and weight.requires_grad and torch.is_grad_enabled()):
        return weight
    guarded: torch.Tensor = _StopGradientOnDemand.apply(weight)
    return guarded


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> torch.Tensor:
    """torch.nn.functional.conv2d."""
    return F.conv2d(input, _guarded(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> torch.Tensor:
    """torch.nn.functional.conv_transpose2d."""
    return F.conv_transpose2d(input, _guarded(weight), bias, stride, padding, output_padding, groups, dilation)
