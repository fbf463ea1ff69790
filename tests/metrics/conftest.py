"""Datasets, networks and detectors that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sg3.metrics import RealImages
from tests.formats.tiny import stylegan2_generator, stylegan3_generator
from tests.train.conftest import write_dataset


class PixelDetector:
    """A detector whose features are fixed mixtures of blurred pixels."""

    def __init__(self, name: str, dim: int = 12) -> None:
        self.name = name
        self.sha256 = f"{name}-{dim}"
        self.dim = dim
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
    return {name: PixelDetector(name) for name in ("inception", "vgg16", "efflite")}


def generator3(seed: int = 0) -> nn.Module:
    """StyleGAN3, 16 px, no labels."""
    torch.manual_seed(seed)
    return stylegan3_generator().eval().requires_grad_(False)


def generator2(seed: int = 0) -> nn.Module:
    """StyleGAN2, 8 px, 3 classes, with strong noise in its layers."""
    torch.manual_seed(seed)
    G = stylegan2_generator().eval().requires_grad_(False)
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(0.5)
    return G


@pytest.fixture
def detectors() -> dict[str, PixelDetector]:
    return pixel_detectors()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def discs16(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("real") / "discs.zip", count=20)


@pytest.fixture(scope="session")
def labelled8(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("real") / "labelled.zip", count=18, size=8, labels=3)


@pytest.fixture
def real16(discs16: Path) -> RealImages:
    return RealImages(discs16, resolution=16)


@pytest.fixture
def real8(labelled8: Path) -> RealImages:
    return RealImages(labelled8, use_labels=True)
