"""`torch_utils.ops.fma`."""

from __future__ import annotations

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """a * b + c in one pass, broadcast against each other; gradients of any order, each in its argument's shape."""
    return torch.addcmul(c, a, b)
