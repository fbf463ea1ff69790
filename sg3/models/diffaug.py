"""Differentiable augmentation (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training",
arXiv 2006.10738), as Projected GAN's discriminator applies it to every image it sees, always:

    brightness -> saturation -> contrast -> translation -> cutout

Numbers are drawn on the host, seven for each sample from its own generator, so a sample meets the same augmentation
however samples are batched. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sg3.device import upload
from sg3.kernels.bias_act.activations import clamped
from sg3.transparency import has_alpha

SHIFT = 0.125  # of the size, at most
CUTOUT = 0.2  # of the size


@dataclass(frozen=True)
class DiffAugDraws:
    """What happens to N images.

    brightness, saturation, contrast   [N] float32, uniform in 0..1
    shift                              [N, 2] int64, output (y, x) shows input (y + shift[0], x + shift[1])
    cutout                             [N, 2] int64, row and column of the square's centre
    """

    brightness: torch.Tensor
    saturation: torch.Tensor
    contrast: torch.Tensor
    shift: torch.Tensor
    cutout: torch.Tensor

    @classmethod
    def random(cls, rngs: Sequence[np.random.Generator], height: int, width: int) -> DiffAugDraws:
        """One sample from each generator, for images of height x width."""
        rows = np.stack([rng.random(7) for rng in rngs]) if rngs else np.empty([0, 7])
        sizes = np.array([height, width])
        reach = (sizes * SHIFT + 0.5).astype(np.int64)
        centres = sizes + 1 - cutout_sides(height, width) % 2  # an even square has its centre between pixels
        shift = np.floor(rows[:, 3:5] * (2 * reach + 1)) - reach
        cutout = np.floor(rows[:, 5:7] * centres)
        color = torch.from_numpy(rows[:, :3].astype(np.float32))
        return cls(
            color[:, 0], color[:, 1], color[:, 2],
            torch.from_numpy(shift.astype(np.int64)), torch.from_numpy(cutout.astype(np.int64)),
        )  # fmt: skip

    @classmethod
    def from_torch(cls, count: int, height: int, width: int) -> DiffAugDraws:
        """`count` samples whose generators are seeded by torch's default one on the host."""
        seeds = torch.randint(2**62, [count]).tolist()
        return cls.random([np.random.Generator(np.random.Philox(seed)) for seed in seeds], height, width)

    def to(self, device: torch.device) -> DiffAugDraws:
        """The same on a device; copies to a GPU are asynchronous."""
        return DiffAugDraws(
            upload(self.brightness, device), upload(self.saturation, device), upload(self.contrast, device),
            upload(self.shift, device), upload(self.cutout, device),
        )  # fmt: skip


def diff_augment(x: torch.Tensor, draws: DiffAugDraws) -> torch.Tensor:
    """The images x [N, C, H, W] augmented; differentiable any number of times with respect to them.

    With alpha they are premultiplied (`sg3.transparency`).
    """
    draws = draws.to(x.device)
    if has_alpha(x.shape[1]):
        return _with_alpha(x, draws)
    x = brighten(x, draws.brightness)
    x = saturate(x, draws.saturation)
    x = change_contrast(x, draws.contrast)
    x = translate(x, draws.shift)
    return cut_out(x, draws.cutout)


def _with_alpha(x: torch.Tensor, draws: DiffAugDraws) -> torch.Tensor:
    """The same for straight colours, applied to premultiplied ones [N, 2 or 4, H, W]; the mean is that of what shows,
    and what comes in from outside or is cut out is transparent."""
    color, alpha = x[:, :-1] + 1, (x[:, -1:] + 1) / 2  # colours times alpha, 0 where nothing shows
    color = color + alpha * (draws.brightness.to(x.dtype) - 0.5)[:, None, None, None]
    color = saturate(color, draws.saturation)
    shows = clamped(alpha.sum(dim=(1, 2, 3), keepdim=True), low=1e-3) * color.shape[1]
    level = alpha * (color.sum(dim=(1, 2, 3), keepdim=True) / shows)
    color = (color - level) * (draws.contrast.to(x.dtype) + 0.5)[:, None, None, None] + level
    moved = translate(torch.cat([color, 2 * alpha], dim=1), draws.shift)
    return cut_out(moved, draws.cutout) - 1


def brighten(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Adds u - 1/2, u [N]."""
    return x + (u.to(x.dtype) - 0.5)[:, None, None, None]


def saturate(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Scales the distance from grey, the mean of a pixel's channels, by 2 u, u [N]."""
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (2 * u.to(x.dtype))[:, None, None, None] + grey


def change_contrast(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Scales the distance from the image's mean by u + 1/2, u [N]."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (u.to(x.dtype) + 0.5)[:, None, None, None] + mean


def translate(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Output (y, x) is input (y + shift[0], x + shift[1]), zero where that lies outside; shift [N, 2]."""
    n, c, h, w = x.shape
    rows = torch.arange(h, device=x.device) + shift[:, :1]  # [N, H]
    columns = torch.arange(w, device=x.device) + shift[:, 1:]  # [N, W]
    # Where the source lies outside, any will do: it is multiplied by zero, in the gradient as well.
    x = x.gather(2, rows.clamp(0, h - 1)[:, None, :, None].expand(n, c, h, w))
    x = x.gather(3, columns.clamp(0, w - 1)[:, None, None, :].expand(n, c, h, w))
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    return x * inside[:, None].to(x.dtype)


def cut_out(x: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """Sets a square to zero; what of it would lie beyond a border is not there. centre [N, 2], row and column."""
    h, w = x.shape[2:]
    side_y, side_x = cutout_sides(h, w)
    top, left = centre[:, :1] - side_y // 2, centre[:, 1:] - side_x // 2
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    hit_rows = (rows >= top) & (rows < top + side_y)  # [N, H]
    hit_columns = (columns >= left) & (columns < left + side_x)  # [N, W]
    hit = hit_rows[:, :, None] & hit_columns[:, None, :]
    return x * (~hit)[:, None].to(x.dtype)


def cutout_sides(height: int, width: int) -> np.ndarray:
    """Rows and columns of the square, [2]."""
    return (np.array([height, width]) * CUTOUT + 0.5).astype(np.int64)
