"""Images from a trained generator: latents from seeds, labels, transforms, conversion to pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from math import cos, radians, sin
from typing import Protocol

import numpy as np
import torch
from torch import nn

from sg3.canvas import size_of, units_of
from sg3.errors import NumericalError, UsageError
from sg3.models import Generator, stylegan3
from sg3.models.repeated import Repeated
from sg3.side_by_side import MANY, side_by_side
from sg3.transparency import has_alpha, straight

SMALL_IMAGE = 64 * 64  # pixels
SMALL_NETWORK = 2_000_000  # weights; full ones have ten times as many, the demos a quarter


def seed_latents(seeds: Sequence[int], z_dim: int) -> torch.Tensor:
    """Latents [len(seeds), z_dim], float64, the same for a seed as in the original's tools. Raises UsageError for a
    seed that is none of 32 bits."""
    rows = np.empty((len(seeds), z_dim))
    for row, seed in zip(rows, seeds, strict=True):
        if not 0 <= seed < 2**32:
            raise UsageError(f"seed {seed}: expected a whole number from 0 to {2**32 - 1}")
        row[:] = np.random.RandomState(seed).randn(z_dim)
    return torch.from_numpy(rows)


class Labelled(Protocol):
    """What has labels of a width; 0 where there are none."""

    @property
    def c_dim(self) -> int:
        """How many classes."""
        ...


def class_labels(G: Labelled, class_idx: int | None, count: int) -> torch.Tensor:
    """One-hot labels [count, c_dim], empty for an unconditional generator.

    Raises UsageError if a conditional generator gets no class, or one outside its range.
    """
    labels = torch.zeros(count, G.c_dim)
    if G.c_dim == 0:
        return labels
    if class_idx is None:
        raise UsageError(f"--class: needed, this network is conditional; choose 0 to {G.c_dim - 1}")
    if not 0 <= class_idx < G.c_dim:
        raise UsageError(f"--class={class_idx}: out of range, this network has classes 0 to {G.c_dim - 1}")
    labels[:, class_idx] = 1
    return labels


def set_transform(
    G: Generator, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0, scale: float = 1.0
) -> None:
    """Move what a StyleGAN3 generator draws: scale, rotate by degrees, then translate by fractions of the image (x, y).

    Raises UsageError for a generator without an input transform, unless there is nothing to do.
    """
    layer = G.synthesis.input if isinstance(G, stylegan3.Generator) else None
    if layer is None:
        if translate != (0.0, 0.0) or rotate != 0.0 or scale != 1.0:
            raise UsageError("--translate, --rotate: this network cannot move its image, only StyleGAN3 can")
        return
    c, s = scale * cos(radians(rotate)), scale * sin(radians(rotate))
    wide, high = units_of(G)
    forward = np.array([[c, s, translate[0] * wide], [-s, c, translate[1] * high], [0, 0, 1]])
    # The network transforms the plane that it samples, which is the inverse of moving the picture.
    layer.transform.copy_(torch.from_numpy(np.linalg.inv(forward)))


@contextmanager
def transformed(
    G: Generator, translate: tuple[float, float] = (0.0, 0.0), rotate: float = 0.0, scale: float = 1.0
) -> Iterator[None]:
    """Inside, what `set_transform` does; afterwards the generator is as it was before."""
    layer = G.synthesis.input if isinstance(G, stylegan3.Generator) else None
    before = None if layer is None else layer.transform.clone()
    set_transform(G, translate, rotate, scale)
    try:
        yield
    finally:
        if layer is not None and before is not None:
            layer.transform.copy_(before)


def is_small(G: nn.Module) -> bool:
    """Whether several images at a time are faster than one by one, and memory is no question: the images are small, or
    the network is and they are not large."""
    height, width = size_of(G)
    is_narrow = sum(weights.numel() for weights in G.parameters()) <= SMALL_NETWORK
    return height * width <= (16 * SMALL_IMAGE if is_narrow else SMALL_IMAGE)


def pieces_of(G: nn.Module, batch: int, device: torch.device) -> tuple[int, int]:
    """How many images to make in a piece, and how many pieces may be made side by side (see `side_by_side`) so that no
    more than `batch` images are at work, but for small ones. On a CPU others are made one by one."""
    if device.type != "cpu" or is_small(G):
        return batch, MANY
    return 1, batch


@torch.no_grad()
def generate(
    G: Generator,
    z: torch.Tensor,
    c: torch.Tensor,
    *,
    truncation_psi: float = 1.0,
    noise_mode: str = "const",
    batch: int = 4,
    graphs: bool = True,
) -> Iterator[np.ndarray]:
    """Yield uint8 images [H, W, C] for z [N, z_dim] and c [N, c_dim], `batch` at a time, on G's device; on a CPU side
    by side, see `pieces_of`.

    `graphs`: by CUDA graphs on a GPU, see `Repeated`.
    """
    device = next(G.parameters()).device
    repeated = Repeated(G, graphs)
    # Random noise is drawn from torch's generator, one batch after the other.
    piece, most = (batch, 1) if noise_mode == "random" else pieces_of(G, batch, device)
    parts = list(zip(z.split(piece), c.split(piece), strict=True))

    def make(part: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
        z, c = (tensor.to(device) for tensor in part)
        return to_uint8(repeated(z, c, truncation_psi=truncation_psi, noise_mode=noise_mode))

    with closing(side_by_side(make, parts, len(parts), device, most)) as made:
        for images in made:
            yield from images


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """[N, C, H, W] in -1..1 -> uint8 [N, H, W, C] on the host; with alpha, straight (see `sg3.transparency`). Raises
    NumericalError for NaN and infinite pixels, which would be black."""
    bytes_of = straight if has_alpha(images.shape[1]) else quantized
    pixels = bytes_of(images).permute(0, 2, 3, 1).cpu().numpy()
    if not bool(images.isfinite().all()):
        raise NumericalError(
            "the network's pictures have NaN or infinite pixels: its weights, its latents or --trunc are too large"
        )
    return pixels


def quantized(images: torch.Tensor) -> torch.Tensor:
    """[N, C, H, W] in -1..1 -> uint8, truncating as the original's tools and metrics do."""
    return (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
