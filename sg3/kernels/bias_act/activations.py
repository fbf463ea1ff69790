"""The nine activation functions, with their defaults, and a clamp with the same gradient on every PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Activation:
    """An activation function, its default slope parameter and its default gain."""

    function: Callable[[torch.Tensor, float], torch.Tensor]
    alpha: float
    gain: float


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda x, _: x, 0.0, 1.0),
    "relu": Activation(lambda x, _: F.relu(x), 0.0, sqrt(2)),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), 0.2, sqrt(2)),
    "tanh": Activation(lambda x, _: torch.tanh(x), 0.0, 1.0),
    "sigmoid": Activation(lambda x, _: torch.sigmoid(x), 0.0, 1.0),
    "elu": Activation(lambda x, _: F.elu(x), 0.0, 1.0),
    "selu": Activation(lambda x, _: F.selu(x), 0.0, 1.0),
    "softplus": Activation(lambda x, _: F.softplus(x), 0.0, 1.0),
    "swish": Activation(lambda x, _: torch.sigmoid(x) * x, 0.0, sqrt(2)),
}
PIECEWISE_LINEAR = ("linear", "relu", "lrelu")  # the others are called smooth


def _passes_at_its_bounds() -> bool:
    """Whether the gradient of PyTorch's own clamp is 1 at exactly its bounds (2.13 and older) or 0 (2.14.1, 2.15).

    Asks the node of the graph by itself: the engine that runs whole graphs would start a thread for every GPU, after
    which a process must not fork.
    """
    with torch.inference_mode(False), torch.enable_grad():
        clamp: Any = torch.ones((), device="cpu", requires_grad=True).clamp(-1, 1).grad_fn
        return bool(clamp(torch.ones((), device="cpu")) == 1)


_TORCHS_PASSES = _passes_at_its_bounds()


def clamped(x: torch.Tensor, low: float | None = None, high: float | None = None) -> torch.Tensor:
    """x, floating-point and of any shape, clamped from `low` to `high` (None: no bound on that side).

    The gradient is 1 where low <= x <= high, bounds included, else 0; a NaN stays a NaN and lets none through. For
    gradients of any order, on every version of PyTorch: use this instead of `Tensor.clamp` wherever a gradient flows.
    """
    if _TORCHS_PASSES or not torch.is_grad_enabled():
        return x.clamp(low, high)
    return selected(x, low, high)


def selected(x: torch.Tensor, low: float | None, high: float | None) -> torch.Tensor:
    """`clamped` where PyTorch's own clamp has another gradient: x itself where it lies within the bounds."""
    passes = x >= (-inf if low is None else low)
    if high is not None:
        passes = passes & (x <= high)
    return torch.where(passes, x, x.detach().clamp(low, high))
