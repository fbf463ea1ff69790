"""Haar wavelet packets of images and their moments: what the Frechet wavelet distance compares.

Veeramacheneni et al., "Frechet Wavelet Distance" (arXiv 2312.15289). One level of the transform turns every 2 x 2 block
a b / c d of a band into a value of each of four bands,

    (a + b + c + d) / 2   (a + b - c - d) / 2   (a - b + c - d) / 2   (a - b - c + d) / 2

and the next level splits all four again: 4^l bands, called packets, of side r / 2^l. Nothing is lost, nothing learned.
"""

from __future__ import annotations

import math

import torch

from sg3.metrics.functional import frechet_from_moments
from sg3.processes import World

SIDE = 16  # of a packet, about: level 4 at 256 pixels, as published
BLOCK = 2**25  # numbers that are transformed at a time: 256 MB


def packet_level(height: int, width: int) -> int:
    """How often images of this size are split so that the shorter side of a packet is 16 pixels, or up to 31."""
    return max(int(math.log2(min(height, width) / SIDE)), 0)


def haar_packets(images: torch.Tensor, level: int) -> torch.Tensor:
    """Images [N, C, H, W] of a floating-point type -> packets [N, 4^level, C, H / 2^level, W / 2^level].

    Raises ValueError if a side is not divisible by 2^level.
    """
    return _sums(images, level) / 2**level


def _sums(images: torch.Tensor, level: int) -> torch.Tensor:
    """The same times 2^level: sums and differences of pixels, integers if those are."""
    if any(size % 2**level for size in images.shape[2:]):
        raise ValueError(f"images: got shape {list(images.shape)}, expected sides divisible by {2**level}")
    bands = images[:, None]  # [N, packets, C, H, W]
    for _ in range(level):
        a, b = bands[..., ::2, ::2], bands[..., ::2, 1::2]
        c, d = bands[..., 1::2, ::2], bands[..., 1::2, 1::2]
        bands = torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], dim=1)
    return bands


class PacketMoments:
    """Number, sum and sum of outer products of each packet of uint8 images [C, H, W], a vector of D = C h w numbers.

    All sums are of integers below 2^53 and therefore exact, whatever the order: neither batches nor processes show.
    They take 18 kB times H W for three channels: 1.2 GB at 256 pixels.
    """

    def __init__(self, shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        channels, height, width = shape
        self.shape = shape
        self.level = packet_level(height, width)
        packets, dim = 4**self.level, channels * height * width // 4**self.level
        self.count = 0
        self.total = torch.zeros(packets, dim, dtype=torch.float64, device=device)
        self.outer = torch.zeros(packets, dim, dim, dtype=torch.float64, device=device)
        self._waiting: list[torch.Tensor] = []  # images: adding to all outer products costs as much for one as for many

    @classmethod
    def of(cls, images: torch.Tensor) -> PacketMoments:
        """Of uint8 images [N, C, H, W]."""
        channels, height, width = images.shape[1:]
        moments = cls((channels, height, width), images.device)
        moments.add(images)
        return moments.flush()

    def add(self, images: torch.Tensor) -> None:
        """Take in uint8 images [N, C, H, W]. Raises ValueError for others."""
        if images.dtype != torch.uint8 or images.shape[1:] != self.shape:
            raise ValueError(f"images: got {images.dtype} {list(images.shape)}, expected uint8 [N, {self.shape}]")
        size = max(BLOCK // math.prod(self.shape), 1)
        for part in images.split(size):
            self._waiting.append(part.to(self.total.device))
            if sum(map(len, self._waiting)) >= size:
                self.flush()

    def flush(self) -> PacketMoments:
        """Add up what waits."""
        if self._waiting:
            images = torch.cat(self._waiting).double()
            self._waiting = []
            x = _sums(images, self.level).flatten(2).transpose(0, 1)  # [packets, N, D]
            self.count += len(images)
            self.total += x.sum(dim=1)
            self.outer.baddbmm_(x.transpose(1, 2), x)
        return self

    def without(self, part: PacketMoments) -> PacketMoments:
        """Those of the images that are not in `part`, which are some of these."""
        rest = PacketMoments(self.shape, self.total.device)
        rest.count = self.count - part.count
        rest.total = self.total - part.total
        rest.outer = self.outer - part.outer
        return rest

    def add_up(self, world: World) -> PacketMoments:
        """Make them those of what all processes have seen."""
        self.flush()
        count = torch.tensor(self.count, dtype=torch.float64, device=self.total.device)
        self.count = int(world.add_up(count))
        world.add_up(self.total)
        world.add_up(self.outer)
        return self

    def mean_and_covariance(self, packet: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean [D] and covariance [D, D], divided by N - 1, of one packet of images in 0..1. Needs two images."""
        total = self.total[packet]
        covariance = (self.outer[packet] - torch.outer(total, total / self.count)) / (self.count - 1)
        scale = 1 / (255 * 2**self.level)
        return total / self.count * scale, covariance * scale**2


def packet_distance(real: PacketMoments, gen: PacketMoments) -> float:
    """The Frechet wavelet distance: the mean, over the packets, of the Frechet distance of their normal distributions.

    Raises ValueError for images of different shapes, or fewer than two.
    """
    if real.shape != gen.shape:
        raise ValueError(f"real, gen: images of {list(real.shape)} and {list(gen.shape)}, expected one shape")
    if min(real.count, gen.count) < 2:
        raise ValueError(f"real, gen: got {real.count} and {gen.count} images, expected at least 2 of each")
    distances = [
        frechet_from_moments(*real.mean_and_covariance(packet), *gen.mean_and_covariance(packet))
        for packet in range(len(real.total))
    ]
    return sum(distances) / len(distances)


def frechet_wavelet_distance(real: torch.Tensor, gen: torch.Tensor) -> float:
    """The same of uint8 images [N, C, H, W] and [M, C, H, W]."""
    return packet_distance(PacketMoments.of(real), PacketMoments.of(gen))
