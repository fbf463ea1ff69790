"""Networks, a perceptual function and pictures for the tests of the tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import sg3
from sg3.formats import Snapshot
from sg3.models import Generator, stylegan2, stylegan3


def tiny3(resolution: int = 16, **kwargs: int) -> stylegan3.Generator:
    """StyleGAN3-T of 4 layers."""
    torch.manual_seed(1)
    shape = {"c_dim": 0, "img_channels": 3, "channel_base": 256, "channel_max": 16, "num_layers": 3, "margin_size": 4}
    G = stylegan3.Generator(z_dim=8, w_dim=8, img_resolution=resolution, **{**shape, **kwargs})
    return G.eval().requires_grad_(False)


def tiny2(resolution: int = 16, **kwargs: int) -> stylegan2.Generator:
    """StyleGAN2 whose noise has some strength, as it has after training."""
    torch.manual_seed(1)
    shape = {"c_dim": 0, "img_channels": 3, "channel_base": 256, "channel_max": 16}
    G = stylegan2.Generator(z_dim=8, w_dim=8, img_resolution=resolution, **{**shape, **kwargs})
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.02)
    return G.eval().requires_grad_(False)


def saved(G: Generator, path: Path) -> Path:
    sg3.save(Snapshot(G_ema=G), path)
    return path


def pixels(path: Path) -> np.ndarray:
    """[H, W] or [H, W, C]"""
    return np.asarray(Image.open(path))


def pyramid(images: torch.Tensor) -> torch.Tensor:
    """A distance to project with: squared difference of the pixels, averaged over squares of 1, 2, 4 and 8."""
    images = images / 127.5 - 1
    levels = [F.avg_pool2d(images, side) for side in (1, 2, 4, 8)]
    return torch.cat([level.flatten(1) / level[0].numel() ** 0.5 for level in levels], dim=1)
