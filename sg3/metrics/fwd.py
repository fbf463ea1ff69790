"""FWD, the Frechet wavelet distance (arXiv 2312.15289): no network looks at the images, so none has to be downloaded,
and none can have been trained against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.errors import MachineError, UsageError
from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.intervals import groups, jackknife
from sg3.metrics.pixels import PIXELS, Pixels
from sg3.metrics.statistics import Kind, Statistics
from sg3.metrics.wavelets import PacketMoments, packet_distance, packet_level
from sg3.resources import memory


@dataclass(frozen=True)
class WaveletDistance(RealComparison):
    """FWD."""

    kind: ClassVar[Kind] = "packets"
    less_is_better: ClassVar[bool] = True

    @property
    def source(self) -> str:
        """The pixels."""
        return PIXELS

    @property
    def least_gen(self) -> int:
        """A covariance needs two."""
        return 2

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """The distance, with a note where there are too few images."""
        assert isinstance(real, PacketMoments)
        whole = PacketMoments.of(gen) if isinstance(gen, torch.Tensor) else gen
        assert isinstance(whole, PacketMoments)
        dim, fewest = real.total.shape[1], min(real.count, whole.count)
        notes = () if fewest > dim else (
            f"{fewest} images for packets of {dim} numbers: their covariance is singular, the distance depends on the "
            "number of images; take more than that, or compare equal numbers only",
        )  # fmt: skip
        distance = packet_distance(real, whole)
        if not isinstance(gen, torch.Tensor):
            return Findings({self.name: distance}, notes)
        parts = groups(len(gen))
        left_out = [packet_distance(real, whole.without(PacketMoments.of(gen[part]))) for part in parts] \
            if len(gen) - len(gen[parts[0]]) >= self.least_gen else []
        return Findings({self.name: distance}, notes, intervals={self.name: jackknife(distance, left_out)})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Wavelet, level and what is divided by."""
        assert isinstance(detector, Pixels)
        channels, height, width = detector.shape
        level = packet_level(height, width)
        packet = [channels, height >> level, width >> level]
        return {"wavelet": "haar", "level": level, "packet": packet, "ddof": 1}


def check_shape(name: str, shape: tuple[int, int, int]) -> None:
    """Raises UsageError for images that FWD cannot split, MachineError if there is no memory for their moments."""
    channels, height, width = shape
    level = packet_level(height, width)
    if height % 2**level or width % 2**level:
        raise UsageError(
            f"{name}: splits images {level} times in halves, and {width} x {height} cannot be; it takes sides "
            f"divisible by {2**level}"
        )
    needed = 2 * 4**level * (channels * height * width // 4**level) ** 2 * 8
    available = memory()
    if available is not None and needed > available[0]:
        raise MachineError(
            f"{name}: covariances of {4**level} packets take {needed / 2**30:.0f} GB, this machine has "
            f"{available[0] / 2**30:.0f} GB"
        )
