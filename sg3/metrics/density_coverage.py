"""Density and coverage of generated images (Naeem et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.functional import density_coverage
from sg3.metrics.metric import Values
from sg3.metrics.precision_recall import NeighbourMetric
from sg3.metrics.statistics import Statistics


@dataclass(frozen=True)
class DensityCoverage(NeighbourMetric):
    """In how many balls of real images a generated one lies, relative to k, and the share of those balls that hold
    one: less moved by outliers than precision and recall."""

    def numbers(self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int) -> Values:
        """Density, which may exceed 1, and coverage, from 0 to 1."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        density, coverage = density_coverage(real, gen, k=self.k)
        return {f"{self.name}_density": density, f"{self.name}_coverage": coverage}
