"""The training images nearest to others, in a detector's features, and what follows from their distances.

An image and its mirror image count as one, at the smaller of the two distances, where training saw both.

    authentic   farther from its nearest training image x than that is from its own nearest other one (Alaa et al.,
                arXiv 2102.08921): a copy is not, garbage always is
    memorised   nearer to its nearest training image than a third of the distance to the second nearest
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sg3.metrics.functional import distances_to_nearest

SAME = 0.01  # of the median distance between neighbours: what is nearer is a duplicate
RATIO = 1 / 3


@dataclass(frozen=True)
class Nearest:
    """For N images the nearest training images, nearest first."""

    distances: torch.Tensor  # [N, k]
    places: torch.Tensor  # int64 [N, k], among the training images
    mirrored: torch.Tensor  # bool [N, k], whether the mirror image is the nearer one


@dataclass(frozen=True)
class Training:
    """Features of training images [N, D], and of their mirror images, if training saw those."""

    features: torch.Tensor
    mirrored: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def part(self, kept: torch.Tensor) -> Training:
        """Those at the places `kept`."""
        return Training(self.features[kept], None if self.mirrored is None else self.mirrored[kept])

    def nearest(self, rows: torch.Tensor, k: int) -> Nearest:
        """Of rows [M, D], the k nearest images. Raises ValueError if there are fewer."""
        distances, places = distances_to_nearest(rows, self.features, k)
        flipped = torch.zeros_like(places, dtype=torch.bool)
        if self.mirrored is None:
            return Nearest(distances, places, flipped)
        others, other_places = distances_to_nearest(rows, self.mirrored, k)
        distances, order = torch.cat([distances, others], dim=1).sort(dim=1, stable=True)
        places = torch.cat([places, other_places], dim=1).gather(1, order)
        flipped = torch.cat([flipped, ~flipped], dim=1).gather(1, order)
        # Of an image that comes twice the second, farther one goes to the end.
        again = torch.stack([(places[:, :j] == places[:, j : j + 1]).any(dim=1) for j in range(2 * k)], dim=1)
        kept = again.to(torch.uint8).sort(dim=1, stable=True).indices[:, :k]
        return Nearest(distances.gather(1, kept), places.gather(1, kept), flipped.gather(1, kept))

    def nearest_others(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Distance [N] from each image to the nearest other one, and which that is, int64 [N]. At least two images."""
        near = self.nearest(self.features, 2)
        own = torch.arange(len(self), device=self.features.device)
        column = (near.places[:, 0] == own).long()[:, None]  # the first is itself, but for duplicates
        return near.distances.gather(1, column)[:, 0], near.places.gather(1, column)[:, 0]

    def without_duplicates(self) -> torch.Tensor:
        """Places of the images that are no duplicates of an earlier one, int64."""
        kept = torch.arange(len(self), device=self.features.device)
        while len(kept) > 2:
            distances, others = self.part(kept).nearest_others()
            own = torch.arange(len(kept), device=kept.device)
            duplicate = (distances <= SAME * distances.median()) & (others < own)
            if not bool(duplicate.any()):
                break
            kept = kept[~duplicate]
        return kept


def scores(near: Nearest, between: torch.Tensor) -> torch.Tensor:
    """How far images [M] are from their nearest training image, relative to how far that is, by `between` [N], from its
    nearest other one: above 1 means authentic."""
    return near.distances[:, 0] / between[near.places[:, 0]].clamp(min=torch.finfo(between.dtype).tiny)


def memorised(near: Nearest) -> torch.Tensor:
    """Which images [M] pass the ratio test, bool; two nearest images are needed."""
    return near.distances[:, 0] < RATIO * near.distances[:, 1]
