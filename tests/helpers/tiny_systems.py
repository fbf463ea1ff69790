"""Tiny runs of the systems beside StyleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sg3.train.config import DatasetFacts
from sg3.train.recipes import resolve
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
