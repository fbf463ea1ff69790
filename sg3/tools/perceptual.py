"""Perceptual distances for projection: how different two pictures look.

A `Perceptual` maps pictures to vectors whose squared difference is the distance; so the target's vector is computed
once. Gradients flow back to the pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from pathlib import Path

import torch
import torch.nn.functional as F

Perceptual = Callable[[torch.Tensor], torch.Tensor]  # [N, 3, H, W], 0..255 -> [N, D]

SIDE = 256  # pixels that the feature networks look at (Karras et al. 2020, Appendix D)


def open_perceptual(name: str, device: torch.device | str = "cpu", folder: Path | None = None) -> Perceptual:
    """'vgg16': LPIPS, as the original projects with; needs its weights. 'efflite': `efflite_embedding`, installable.

    `folder` is where weight files are looked for. Raises MissingInputError if there are none.
    """
    from sg3.metrics.detectors import open_detector

    if name == "vgg16":
        vgg16 = open_detector("vgg16", device, folder)
        return lambda images: vgg16.lpips(shrink(images))
    efflite = open_detector("efflite", device, folder)
    return lambda images: efflite_embedding(images, efflite.maps)


def efflite_embedding(
    images: torch.Tensor, maps: Callable[[torch.Tensor], list[torch.Tensor]], pixel_weight: float = 1.0
) -> torch.Tensor:
    """LPIPS without its learned weights: [N, 3, H, W], 0..255 -> [N, D].

    The features of each place are scaled to length 1; the distance is their squared difference, averaged over the
    places of each map and summed over the maps (Zhang et al. 2018, Equation 1 with unit weights). The squared
    difference of the pixels, -1..1, is added: the finest map has a quarter of the resolution and is blind to colours
    that even out. Small pictures are enlarged, as the network knows things at a certain size.
    """
    images = shrink(images)
    if min(images.shape[2:]) < SIDE:
        images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    pixels = (images / 127.5 - 1) * sqrt(pixel_weight / images[0].numel())
    parts = [pixels.flatten(1)]
    for x in maps(images):
        unit = x / (x.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()
        parts.append(unit.flatten(1) / sqrt(x.shape[2] * x.shape[3]))
    return torch.cat(parts, dim=1)


def shrink(images: torch.Tensor) -> torch.Tensor:
    """Average pictures down to 256 pixels a side, each by itself; smaller sides stay."""
    height, width = images.shape[2:]
    if max(height, width) <= SIDE:
        return images
    return F.interpolate(images, size=(min(height, SIDE), min(width, SIDE)), mode="area")
