"""Statistics of what a detector sees in many images, gathered over batches and processes: the features themselves, or
their moments, or those of their wavelet packets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.moments import Moments
from sg3.metrics.pixels import Pixels
from sg3.metrics.views import AS_THEY_ARE
from sg3.metrics.wavelets import PacketMoments
from sg3.processes import World

Kind = Literal["moments", "features", "packets"]  # packets are of images, which are the features of `Pixels`


@dataclass(frozen=True)
class TrainingSet:
    """Features of what training saw, and of real images that it did not see."""

    train: torch.Tensor  # [N, D]
    mirrored: torch.Tensor | None  # [N, D], of the same images mirrored, if training saw those
    places: torch.Tensor  # int64 [N]: of the images in the data set
    held_out: torch.Tensor | None  # [M, D]
    held_out_places: torch.Tensor | None  # int64 [M]: in the data set; None where they are all of another one
    held_out_from: str | None  # for the record: what they are


# Of the kind moments; of the kind features, [count, D]; of packets; of features, told apart.
Statistics = Moments | torch.Tensor | PacketMoments | TrainingSet


@dataclass(frozen=True)
class StatisticsSpec:
    """Which statistics: of the first `count` images (mirrored ones last), in a detector's features, in a view."""

    detector: str
    kind: Kind
    mirrored: bool
    count: int
    view: str = AS_THEY_ARE


def empty_moments(detector: Detector, kind: Kind, device: torch.device) -> Moments | PacketMoments | None:
    """What moments of this kind are added to; None for features."""
    if kind == "packets":
        assert isinstance(detector, Pixels)
        return PacketMoments(detector.shape, device)
    return Moments(detector.dim, device) if kind == "moments" else None


class Gathered:
    """Features of one detector for images or samples 0 .. count - 1: their moments, or themselves."""

    def __init__(self, detector: Detector, kind: Kind, count: int, device: torch.device) -> None:
        self.detector = detector
        self.kind = kind
        self.count = count
        self.device = device
        self._moments = empty_moments(detector, kind, device)
        # Precision and recall see VGG16's features in float16; the others are compared as they are.
        self._dtype = torch.uint8 if isinstance(detector, Pixels) else \
            torch.float16 if detector.name == "vgg16" else torch.float32
        self._rows: list[torch.Tensor] = []
        self._positions: list[int] = []

    def add(self, which: range, features: torch.Tensor) -> None:
        """Features [len(which), D] of these numbers; those from `count` on are not wanted."""
        kept = range(which.start, min(which.stop, self.count))
        if not kept:
            return
        if self._moments is not None:
            self._moments.add(features[: len(kept)])
        else:
            self._rows.append(features[: len(kept)].to(self.device, self._dtype))
            self._positions.extend(kept)

    def result(self, world: World) -> Statistics | None:
        """What all processes have gathered; features in the first process only."""
        if self._moments is not None:
            return self._moments.add_up(world)
        shape = self.detector.shape if isinstance(self.detector, Pixels) else (self.detector.dim,)
        rows = self._rows or [torch.zeros(0, *shape, dtype=self._dtype, device=self.device)]
        positions = torch.tensor(self._positions, dtype=torch.int64, device=self.device)
        return world.in_order(torch.cat(rows), positions, self.count)
