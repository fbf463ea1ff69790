"""What stands for a detector where a metric looks at the pixels themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

PIXELS = "pixels"


@dataclass(frozen=True)
class Pixels:
    """Stands where a detector stands: the features of an image are its pixels, [C, H, W] in uint8."""

    shape: tuple[int, int, int]

    @property
    def name(self) -> str:
        """`pixels`."""
        return PIXELS

    @property
    def sha256(self) -> str:
        """There are no weights."""
        return "none"

    @property
    def dim(self) -> int:
        """Numbers of an image."""
        return math.prod(self.shape)

    @property
    def resize(self) -> str | None:
        """Images keep their size."""
        return None

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The images themselves, uint8 [N, C, H, W]."""
        return images
