"""Image grids: the real images that a run shows of itself, and what its generator makes of fixed latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from sg3.atomic import write_atomic
from sg3.data.dataset import ImageFolderDataset
from sg3.randomness import host_rng, latents
from sg3.train.feed import read_item
from sg3.transparency import has_alpha, opaque, straight


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Columns and rows of images that fill an 8K frame, between 7 x 4 and 32 x 32."""
    return int(np.clip(7680 // width, 7, 32)), int(np.clip(4320 // height, 4, 32))


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


class Grid:
    """The images that a run shows of itself: fixed real images, and fixed latents (and their labels) to compare."""

    def __init__(
        self,
        dataset: ImageFolderDataset,
        size: tuple[int, int] | None,
        *,
        z_dim: int,
        label_dim: int,
        seed: int,
        skip: bool = False,
    ) -> None:
        self.size = size or grid_size(*dataset.size)
        indices = grid_indices(dataset, self.size, seed)
        # [columns * rows, C, H, W]; `skip` passes over unreadable images
        self.reals = np.stack([read_item(dataset, i, skip)[0] for i in indices])
        labels = np.stack([dataset.get_label(i) for i in indices])
        self.z = latents(seed, "grid/z", 0, len(indices), z_dim)
        self.c = torch.from_numpy(labels[:, :label_dim]).to(torch.float32)

    def save_reals(self, path: Path) -> None:
        """Write the real images."""
        save_sheet(self.reals, path, self.size, (0, 255))

    @torch.no_grad()
    def save_fakes(self, G: nn.Module, path: Path, batch: int) -> None:
        """Write what G makes of the grid's latents."""
        device = next(G.parameters()).device
        pairs = zip(self.z.split(batch), self.c.split(batch), strict=True)
        images = torch.cat([G(z.to(device), c.to(device), noise_mode="const").cpu() for z, c in pairs])
        if has_alpha(images.shape[1]):
            save_sheet(straight(images.nan_to_num(nan=-1)).numpy(), path, self.size, (0, 255))
        else:
            save_sheet(images.numpy(), path, self.size, (-1, 1))


def save_sheet(images: np.ndarray, path: Path, size: tuple[int, int], drange: tuple[float, float]) -> None:
    """Write images [columns * rows, C, H, W] with values in `drange` as one PNG; those with (straight) alpha over a
    checkerboard."""
    low, high = drange
    values = np.nan_to_num(images.astype(np.float32), nan=low)  # a network may have gone bad
    pixels = np.rint((values - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    columns, rows = size
    _, c, h, w = pixels.shape
    sheet = pixels.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    sheet = opaque(sheet)
    picture = Image.fromarray(sheet[:, :, 0] if sheet.shape[2] == 1 else sheet)
    write_atomic(path, lambda file: picture.save(file, format="PNG"))
