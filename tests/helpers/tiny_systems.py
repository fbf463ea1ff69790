"""Tiny runs of the systems beside StyleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sg3.train.config import DatasetFacts
from sg3.train.recipes import resolve
from sg3.train.recipes.projected.config import ProjectedConfig
from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.r3gan.config import R3GANConfig
from sg3.train.recipes.r3gan.options import R3GANOptions
from tests.helpers.runs import facts

R3GAN = R3GANOptions(
    cfg="r3gan", batch=4, cbase=64, cmax=8, group=8, blocks=1, latent=8, gamma=0.5, ema_kimg=0.02, schedule_kimg=0.05,
    kimg=1, tick=1, snap=1, grid=(2, 2), workers=0, device="cpu",
)  # fmt: skip


class Reports(dict[str, torch.Tensor]):
    """What a system reports, by the name without `Loss/`."""

    def report(self, name: str, value: torch.Tensor) -> None:
        self[name.removeprefix("Loss/")] = value.detach()


def r3gan_config(data: Path | str = "x.zip", dataset: DatasetFacts | None = None, **said: Any) -> R3GANConfig:
    config = resolve(R3GANOptions(data=str(data), **said).over(R3GAN), dataset or facts(path=str(data)))
    assert isinstance(config, R3GANConfig)
    return config


PROJECTED = ProjectedOptions(
    cfg="fastgan", batch=4, cbase=512, cmax=64, cout=4, ndf=4, z_dim=8, w_dim=8, layers=4, margin=4, ema_kimg=0.01,
    kimg=1, tick=1, snap=1, grid=(2, 2), workers=0, device="cpu",
)  # fmt: skip


def projected_config(
    data: Path | str = "x.zip", dataset: DatasetFacts | None = None, **said: Any
) -> ProjectedConfig:
    """FastGAN at 32 x 32, unless it is said otherwise."""
    known = dataset or facts(path=str(data), resolution=32)
    config = resolve(ProjectedOptions(data=str(data), **said).over(PROJECTED), known)
    assert isinstance(config, ProjectedConfig)
    return config
