"""Detectors that cost nothing."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class PixelDetector:
    """A detector whose features are fixed mixtures of blurred pixels."""

    def __init__(self, name: str, dim: int = 12) -> None:
        self.name = name
        self.sha256 = f"{name}-{dim}"
        self.dim = dim
        self.resize = "4x4 average"
        self.seen = 0  # images
        rng = torch.Generator().manual_seed(len(name))
        self._mix = torch.randn(48, dim, generator=rng)
        self._classes = torch.randn(dim, 5, generator=rng)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return torch.tanh(F.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1) @ self._mix)

    def probabilities_from(self, features: torch.Tensor) -> torch.Tensor:
        return (features @ self._classes).softmax(dim=1)

    def lpips(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(images.double() / 255).flatten(1)


def pixel_detectors() -> dict[str, PixelDetector]:
    return {name: PixelDetector(name) for name in ("inception", "vgg16", "efflite", "lite1")}
