"""Tiny runs: 16 x 16 images, a few channels, a handful of steps."""

from __future__ import annotations

import json
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sg3.train.config import DatasetFacts
from sg3.train.recipes import resolve
from sg3.train.recipes.stylegan.config import StyleGANConfig
from sg3.train.recipes.stylegan.options import StyleGANOptions


def write_dataset(path: Path, count: int = 12, size: int = 16, labels: int = 0) -> Path:
    """Coloured discs on white, as a dataset zip."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:size, :size]
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            (cy, cx), r = rng.uniform(size * 0.35, size * 0.65, 2), rng.uniform(size * 0.2, size * 0.35)
            pixels = np.full((size, size, 3), 255, dtype=np.uint8)
            pixels[(yy - cy) ** 2 + (xx - cx) ** 2 < r * r] = rng.integers(0, 255, 3)
            buffer = BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(f"00000/img{i:08d}.png", buffer.getvalue())
        if labels:
            table = [[f"00000/img{i:08d}.png", i % labels] for i in range(count)]
            archive.writestr("dataset.json", json.dumps({"labels": table}))
    return path


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs.zip")


@pytest.fixture(scope="session")
def labelled_discs(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "labelled.zip", labels=3)


TINY = StyleGANOptions(
    batch=4, mbstd_group=2, cbase=128, cmax=8, latent=8, layers=4, margin=4, map_depth=2, ema_kimg=0.01, kimg=1,
    tick=1, snap=1, grid=(2, 2), workers=0, device="cpu", aug="noaug",
)  # fmt: skip


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
