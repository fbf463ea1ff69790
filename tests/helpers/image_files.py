"""Images on disk: discs for a tiny run, and files, folders and zips of any content."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_dataset(path: Path, count: int = 12, size: int = 16, labels: int = 0) -> Path:
    """Coloured discs on white, as a dataset zip."""
    rng = np.random.default_rng(0)
    yy, xx = np.mgrid[:size, :size]
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            (cy, cx), r = rng.uniform(size * 0.35, size * 0.65, 2), rng.uniform(size * 0.2, size * 0.35)
            pixels = np.full((size, size, 3), 255, dtype=np.uint8)
            pixels[(yy - cy) ** 2 + (xx - cx) ** 2 < r * r] = rng.integers(0, 255, 3)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(f"00000/img{i:08d}.png", buffer.getvalue())
        if labels:
            table = [[f"00000/img{i:08d}.png", i % labels] for i in range(count)]
            archive.writestr("dataset.json", json.dumps({"labels": table}))
    return path


def soft_discs(count: int, size: int = 16, channels: int = 4, invisible: int | None = 0) -> list[np.ndarray]:
    """Discs of one colour with a soft edge on nothing, uint8 [size, size, 2 or 4], straight. Where alpha is 0, colours
    are `invisible`, or at random (None)."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1)
    yy, xx = np.mgrid[:size, :size] + 0.5
    images = []
    for _ in range(count):
        (cy, cx), r = rng.uniform(size * 0.35, size * 0.65, 2), rng.uniform(size * 0.2, size * 0.35)
        alpha = (r - np.hypot(yy - cy, xx - cx) + 0.5).clip(0, 1)
        image = np.empty((size, size, channels), np.uint8)
        image[...] = rng.integers(0, 256, channels)
        image[:, :, -1] = np.rint(255 * alpha)
        hidden = image[:, :, -1] == 0
        image[hidden, :-1] = noise.integers(0, 256, (hidden.sum(), channels - 1)) if invisible is None else invisible
        images.append(image)
    return images


def write_transparent(path: Path, images: list[np.ndarray]) -> Path:
    """A dataset zip of these images."""
    return write_zip(path, {f"00000/img{i:08d}.png": encoded(image) for i, image in enumerate(images)})


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
