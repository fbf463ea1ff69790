"""Images with alpha: gray and alpha (2 channels), or RGB and alpha (4).

Files hold straight alpha: colour C and alpha a are independent, and what C is where a = 0 means nothing. Networks get
and make the premultiplied pair c = a C and a, both scaled to -1..1 (p = 2 c - 1, s = 2 a - 1). There invisible colours
are all -1, whatever is linear (resampling, blurs, warps, averages) has no fringes, and a discriminator sees what shows
on every background: c is the picture over black, c + 1 - a the picture over white.

Real images have 0 <= c <= a. A generator may leave that set; it is brought back where its pictures are shown or
measured, not where it learns.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageColor

from sg3.errors import UsageError

Colour = tuple[float, float, float]  # RGB, 0..1
WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
CELL = 8  # pixels of a checkerboard's square
SQUARES = (153, 102)  # their greys: neither white nor black is lost on them
RULE = "straight alpha: round(255 a), round(255 c / a), 0 where alpha is"
"""How 8-bit pixels come from a network's a and c, for the record."""


def has_alpha(channels: int) -> bool:
    """Whether images of so many channels have alpha, as their last one."""
    return channels in (2, 4)


def colour(text: str, option: str = "--background") -> Colour:
    """A colour by its name or as #rrggbb. Raises UsageError."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise UsageError(f"{option}={text}: not a colour; use a name or #rrggbb") from None
    return red / 255, green / 255, blue / 255


def network_values(images: torch.Tensor) -> torch.Tensor:
    """Pixels as files hold them, 0..255 and straight, [N, C, H, W] -> what networks see, float32 in -1..1."""
    values = images.to(torch.float32)
    if has_alpha(images.shape[1]):
        alpha = values[:, -1:]
        values = torch.cat([values[:, :-1] * alpha / 255, alpha], dim=1)
    return values / 127.5 - 1


def possible(images: torch.Tensor) -> torch.Tensor:
    """Premultiplied images [N, 2 or 4, H, W] in -1..1, brought to 0 <= a <= 1 and 0 <= c <= a."""
    alpha = images[:, -1:].clamp(-1, 1)
    return torch.cat([images[:, :-1].clamp(min=-1).minimum(alpha), alpha], dim=1)


def straight(images: torch.Tensor) -> torch.Tensor:
    """Premultiplied images [N, 2 or 4, H, W] in -1..1 -> uint8 pixels with straight alpha, by `RULE`."""
    c, a = ((possible(images) + 1) / 2).split([images.shape[1] - 1, 1], dim=1)
    alpha = (a * 255).round()
    colours = torch.where(alpha > 0, c / a.clamp(min=1e-6) * 255, 0).round().clamp(0, 255)
    return torch.cat([colours, alpha], dim=1).to(torch.uint8)


def over(images: torch.Tensor, background: Colour) -> torch.Tensor:
    """Premultiplied images [N, 2 or 4, H, W] in -1..1 laid over a background -> [N, 3, H, W] in -1..1, or [N, 1, H, W]
    of gray ones over a gray. Linear in the images."""
    gray = images.shape[1] == 2 and len(set(background)) == 1
    behind = images.new_tensor(background[:1] if gray else background)[:, None, None]
    return images[:, :-1] + (1 - images[:, -1:]) * behind


def checkerboard(height: int, width: int) -> NDArray[np.uint8]:
    """[H, W, 1], squares of CELL pixels in two greys."""
    rows, columns = np.arange(height) // CELL, np.arange(width) // CELL
    return np.array(SQUARES, np.uint8)[(rows[:, None] + columns) % 2][:, :, None]


def opaque(pixels: NDArray[np.uint8], background: Colour | None = None) -> NDArray[np.uint8]:
    """Pixels [H, W, C] without their alpha: those that have one, over a background or (None) over a checkerboard,
    [H, W, C - 1], of gray ones over a colour [H, W, 3]; others as they are."""
    height, width, channels = pixels.shape
    if not has_alpha(channels):
        return pixels
    if background is None:
        behind: NDArray[np.float32] = checkerboard(height, width).astype(np.float32)
    else:
        gray = channels == 2 and len(set(background)) == 1
        behind = np.array(background[:1] if gray else background, np.float32) * 255
    alpha = pixels[:, :, -1:].astype(np.float32) / 255
    return np.rint(pixels[:, :, :-1] * alpha + behind * (1 - alpha)).astype(np.uint8)


def extended(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Straight pixels [H, W, 4] whose colours go on where alpha is 0, as those of the nearest that show: for what
    blurs or shares colours of neighbours, as video does. Averages over ever larger squares fill the gaps (Gortler et
    al. 1996, "The Lumigraph", push-pull)."""
    shows = (pixels[:, :, 3:] > 0).astype(np.float32)
    if shows.all() or not shows.any():
        return pixels
    colours = _filled(pixels[:, :, :3] * shows, shows)
    return np.concatenate([np.rint(colours).clip(0, 255).astype(np.uint8), pixels[:, :, 3:]], axis=2)


def _filled(weighted: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Averages weighted / weights [H, W, 3]; where weights [H, W, 1] are 0, those of the next coarser level."""
    known: NDArray[np.float32] = (weighted / np.maximum(weights, 1e-9)).astype(np.float32)
    if weights.all():
        return known
    height, width = weights.shape[:2]
    even = ((0, height % 2), (0, width % 2), (0, 0))
    halves = []
    for array in (weighted, weights):
        padded = np.pad(array, even)
        halves.append(padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2, -1).sum(axis=(1, 3)))
    coarse = _filled(halves[0], halves[1]).repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    return np.where(weights > 0, known, coarse)
