"""Image grids: reals.png and fakes*.png of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sg3.data.dataset import ImageFolderDataset
from sg3.formats.atomic import write_atomic
from sg3.train.randomness import host_rng


def grid_size(resolution: int) -> tuple[int, int]:
    """Columns and rows that fill an 8K frame, between 7 x 4 and 32 x 32."""
    return int(np.clip(7680 // resolution, 7, 32)), int(np.clip(4320 // resolution, 4, 32))


def grid_indices(dataset: ImageFolderDataset, size: tuple[int, int], seed: int) -> list[int]:
    """Dataset indices for a grid, row by row. With labels, each row shows one label."""
    columns, rows = size
    order = host_rng(seed, "grid").permutation(len(dataset)).tolist()
    if dataset.label_dim == 0:
        return [order[i % len(order)] for i in range(columns * rows)]
    groups: dict[tuple[float, ...], list[int]] = {}
    for index in order:
        groups.setdefault(tuple(dataset.get_label(index).tolist()), []).append(index)
    labels = sorted(groups, reverse=True)  # one-hot labels: class 0 first
    picked = []
    for row in range(rows):
        members = groups[labels[row % len(labels)]]
        first = row // len(labels) * columns
        picked += [members[(first + column) % len(members)] for column in range(columns)]
    return picked


def save_grid(images: torch.Tensor | np.ndarray, path: Path, size: tuple[int, int], drange: tuple[float, float]) -> None:
    """Write images [columns * rows, C, H, W], C = 1 or 3, with values in `drange`, as one PNG."""
    low, high = drange
    values = np.asarray(images, dtype=np.float32)
    pixels = np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    columns, rows = size
    _, c, h, w = pixels.shape
    sheet = pixels.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    picture = Image.fromarray(sheet[:, :, 0] if c == 1 else sheet)
    write_atomic(path, lambda file: picture.save(file, format="PNG"))
