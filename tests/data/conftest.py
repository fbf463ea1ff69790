"""Small images on disk, and the command line in-process."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from sg3.cli import _run


def pixels(seed: int, side: int = 8, channels: int = 3) -> np.ndarray:
    """Random uint8 [side, side, channels], or [side, side] for one channel."""
    shape = (side, side) if channels == 1 else (side, side, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, kind, **options)
    return file.getvalue()


def write_zip(path: Path, files: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def read_zip(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Images by name, and dataset.json."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name != "dataset.json"]
        images = {name: np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names}
        return images, json.loads(archive.read("dataset.json"))


def files_below(path: Path) -> list[str]:
    return sorted(str(entry.relative_to(path)) for entry in path.rglob("*"))


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def sg3(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `sg3 dataset ARGS` -> exit code, stdout, stderr."""
    def run(*args: str) -> Outcome:
        capsys.readouterr()
        code = _run(["dataset", *args], debug=False)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "out.zip"
