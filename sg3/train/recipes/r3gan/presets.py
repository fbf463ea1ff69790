"""The published configurations: Huang et al. 2024 (arXiv 2501.05441), by data set and resolution."""

from __future__ import annotations

from sg3.train.recipes.r3gan.options import R3GANOptions
from sg3.train.recipes.recipe import Preset


def _preset(title: str, **said: object) -> Preset:
    return Preset(title, R3GANOptions(cfg="r3gan", mirror=True, **said))  # type: ignore[arg-type]


_IMAGENET = {"cond": True, "batch": 4096, "cmax": 1536, "group": 32, "ema_kimg": 50000.0, "schedule_kimg": 200000.0}

PRESETS = {
    "r3gan-cifar10": _preset(
        "R3GAN paper, CIFAR-10 at 32 x 32", cond=True, batch=512, gamma=0.05, final_p=0.55, ema_kimg=5000.0
    ),
    "r3gan-ffhq64": _preset("R3GAN paper, FFHQ at 64 x 64", batch=256, gamma=2.0),
    "r3gan-ffhq256": _preset("R3GAN paper, FFHQ at 256 x 256", batch=256, gamma=150.0),
    "r3gan-imagenet32": _preset(
        "R3GAN paper, ImageNet at 32 x 32", cbase=1536 * 32, gamma=0.5, final_p=0.5, **_IMAGENET
    ),
    "r3gan-imagenet64": _preset(
        "R3GAN paper, ImageNet at 64 x 64", cbase=1536 * 64, gamma=1.0, final_p=0.4, **_IMAGENET
    ),
}
