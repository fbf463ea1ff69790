"""Density and coverage of generated images (Naeem et al., arXiv 2002.09797)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings
from sg3.metrics.functional import balls_around_real
from sg3.metrics.intervals import groups, jackknife, mean
from sg3.metrics.precision_recall import NeighbourMetric
from sg3.metrics.statistics import Statistics

TINY = 0.01  # of the median radius: what is nearer is the same image, but for rounding


@dataclass(frozen=True)
class DensityCoverage(NeighbourMetric):
    """In how many balls of real images a generated one lies, relative to k, and the share of those balls that hold
    one: less moved by outliers than precision and recall."""

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """Density, which may exceed 1, and coverage, from 0 to 1."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        parts = groups(len(gen)) if intervals else [slice(None)]
        balls = balls_around_real(real, gen, self.k, parts)
        values = {
            f"{self.name}_density": float(balls.hits.double().mean() / self.k),
            f"{self.name}_coverage": _share(balls.covered),
        }
        same = int((balls.radii <= TINY * balls.radii.median()).sum())
        notes = () if not same else (
            f"{same} of {len(real)} real images have {self.k} copies or more among the others: no image can be nearer "
            "than these, so they count as not covered; remove duplicates from the data set",
        )  # fmt: skip
        if not intervals:
            return Findings(values, notes)
        of_density = mean(balls.hits / self.k, "generated images")
        others = [[h for h in range(len(parts)) if h != g] for g in range(len(parts))]
        of_coverage = jackknife(_share(balls.covered), [_share(balls.covered[:, rest]) for rest in others])
        return Findings(values, notes, intervals=dict(zip(values, (of_density, of_coverage), strict=True)))

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Neighbours, and that the surface does not belong to a ball."""
        return {"k": self.k, "inside": "distance < radius"}


def _share(covered: torch.Tensor) -> float:
    """Of the balls that hold an image of any group, from bool [N, groups]."""
    return float(covered.any(dim=1).double().mean())
