"""Precision and recall of generated images (Kynkaanniemi et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.functional import within_manifolds
from sg3.metrics.intervals import share
from sg3.metrics.statistics import Statistics


@dataclass(frozen=True)
class NeighbourMetric(RealComparison):
    """A metric of balls around images, each of which reaches to the `k`-th nearest other image of its kind."""

    k: int
    detector: str = "vgg16"

    most_real: ClassVar[int | None] = 200_000

    @property
    def least_gen(self) -> int:
        """An image and its neighbours."""
        return self.k + 1

    @property
    def least_real(self) -> int:
        """The same."""
        return max(self.k + 1, 2)


@dataclass(frozen=True)
class PrecisionRecall(NeighbourMetric):
    """The share of generated images inside balls of real ones, and the other way round."""

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """Both, from 0 to 1."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        names = (f"{self.name}_precision", f"{self.name}_recall")
        flags = within_manifolds(real, gen, k=self.k)
        values = {name: float(inside.double().mean()) for name, inside in zip(names, flags, strict=True)}
        if not intervals:
            return Findings(values)
        asked = ("generated images", "real images")
        return Findings(values, intervals={n: share(f, of) for n, f, of in zip(names, flags, asked, strict=True)})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Neighbours, and that the surface belongs to a ball."""
        return {"k": self.k, "inside": "distance <= radius, in float16"}
