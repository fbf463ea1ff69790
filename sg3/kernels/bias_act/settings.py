"""How bias_act's registered ops are called, and how their kernels see a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from sg3.kernels.bias_act.activations import PIECEWISE_LINEAR
from sg3.kernels.memory_format import new_image


@dataclass(frozen=True)
class Settings:
    """What a call's registered ops share, in the order of their arguments. channels_last is the layout of y and of
    gradients."""

    dim: int
    act: str
    alpha: float
    gain: float
    clamp: float | None
    channels_last: bool

    @property
    def smooth(self) -> bool:
        return self.act not in PIECEWISE_LINEAR

    def in_memory_order(self, x: torch.Tensor) -> torch.Tensor:
        """x with its dimensions in the order of the layout."""
        return x.permute(0, 2, 3, 1) if self.channels_last else x

    def matrix(self, x: torch.Tensor) -> tuple[int, int, bool]:
        """x as the kernels see it: rows, columns, and whether columns are channels (otherwise each row is in one)."""
        order = [0, 2, 3, 1] if self.channels_last else list(range(x.ndim))
        sizes, axis = [x.shape[i] for i in order], order.index(self.dim)
        outer, channels, inner = prod(sizes[:axis]), sizes[axis], prod(sizes[axis + 1 :])
        return (outer, channels, True) if inner == 1 else (outer * channels, inner, False)

    def new_like(self, x: torch.Tensor) -> torch.Tensor:
        """An empty tensor like x, in the layout of the settings."""
        if not self.channels_last:
            return x.new_empty(x.shape)
        return new_image(x, x.shape[2], x.shape[3], channels_last=True)

    def new_signs(self, x: torch.Tensor, wanted: bool) -> torch.Tensor:
        """Room for the signs of x, those of four elements in a byte; none if not wanted."""
        rows, columns, _ = self.matrix(x)
        return x.new_empty(((rows + 3) // 4, columns) if wanted else (0, 0), dtype=torch.uint8)
