"""KID, the kernel inception distance (Binkowski et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import RealComparison
from sg3.metrics.functional import kernel_distance
from sg3.metrics.metric import Values
from sg3.metrics.statistics import Statistics


@dataclass(frozen=True)
class KernelDistance(RealComparison):
    """KID, a mean over random subsets, and its spread over these."""

    detector: ClassVar[str] = "inception"
    most_real: ClassVar[int | None] = 1_000_000
    less_is_better: ClassVar[bool] = True

    @property
    def least_gen(self) -> int:
        """A pair."""
        return 2

    def numbers(self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int) -> Values:
        """The distance, and with _std its standard deviation."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        mean, std = kernel_distance(real, gen, seed=seed)
        return {self.name: mean, f"{self.name}_std": std}
