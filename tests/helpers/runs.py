"""Tiny runs: 16 x 16 images, a few channels, a handful of steps."""

from __future__ import annotations

from pathlib import Path

from sg3.train.config import DatasetFacts
from sg3.train.recipes import resolve
from sg3.train.recipes.stylegan.config import StyleGANConfig
from sg3.train.recipes.stylegan.options import StyleGANOptions

TINY = StyleGANOptions(
    batch=4, mbstd_group=2, cbase=128, cmax=8, latent=8, layers=4, margin=4, map_depth=2, ema_kimg=0.01, kimg=1,
    tick=1, snap=1, grid=(2, 2), workers=0, device="cpu", aug="noaug",
)  # fmt: skip
# The same for the command line, but with two or three things smaller still.
TINY_ARGS = [
    "--batch=4", "--mbstd-group=2", "--cbase=128", "--cmax=8", "--latent=8", "--layers=3", "--margin=4",
    "--map-depth=1", "--tick=1", "--snap=1", "--grid=3x2", "--workers=0", "--device=cpu",
]  # fmt: skip


def tiny_options(data: Path | str | None = None, **said) -> StyleGANOptions:
    return StyleGANOptions(**{"data": None if data is None else str(data), **said}).over(TINY)


def facts(**said) -> DatasetFacts:
    known = {"path": "x.zip", "name": "x", "resolution": 16, "channels": 3, "size": 12, "label_dim": 0,
             "has_labels": False, "content": ""}  # fmt: skip
    return DatasetFacts(**{**known, **said})


def tiny_config(data: Path | str = "x.zip", dataset: DatasetFacts | None = None, **said) -> StyleGANConfig:
    config = resolve(tiny_options(data, **said), dataset or facts(path=str(data)))
    assert isinstance(config, StyleGANConfig)
    return config
