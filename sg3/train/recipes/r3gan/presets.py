"""The published configurations: Huang et al. 2024 (arXiv 2501.05441), by data set and resolution; and a small one."""

from __future__ import annotations

from sg3.train.recipes.r3gan.options import R3GANOptions
from sg3.train.recipes.recipe import Preset


def _preset(title: str, **said: object) -> Preset:
    return Preset(title, R3GANOptions(cfg="r3gan", mirror=True, **said))  # type: ignore[arg-type]


_IMAGENET = {"cond": True, "batch": 4096, "cmax": 1536, "group": 32, "ema_kimg": 50000.0, "schedule_kimg": 200000.0}

_DEMO = R3GANOptions(  # every schedule as long as the run: over the first few kimg of a longer one nothing moves
    cfg="r3gan", batch=16, cbase=512, cmax=64, blocks=1, group=8, gamma=0.1, glr=0.002, dlr=0.002, clamp_images=True,
    schedule_kimg=8.0, ema_kimg=1.0, aug="noaug", fp32=True, kimg=8, tick=1, snap=2, grid=(8, 8), workers=0,
    metrics="fd_lite1_500_full",
)  # fmt: skip

PRESETS = {
    "demo-r3gan": Preset("R3GAN on a few thousand small pictures of --data, minutes on a CPU", _DEMO),
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
