"""The kernel distance of features: KID on Inception's (Binkowski et al. 2018), `kd_NAME` on any detector's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.functional import kernel_distance, kernel_distances_without
from sg3.metrics.intervals import groups, jackknife
from sg3.metrics.statistics import Statistics

SUBSETS = 100
SUBSET_SIZE = 1000


@dataclass(frozen=True)
class KernelDistance(RealComparison):
    """A mean over random subsets, and its spread over these."""

    detector: str = "inception"

    most_real: ClassVar[int | None] = 1_000_000
    less_is_better: ClassVar[bool] = True

    @property
    def least_gen(self) -> int:
        """A pair."""
        return 2

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """The distance, and with _std its standard deviation."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        mean, std = kernel_distance(real, gen, SUBSETS, SUBSET_SIZE, seed)
        values = {self.name: mean, f"{self.name}_std": std}
        if not intervals:
            return Findings(values)
        # What the mean over subsets scatters by: with the images, and with the subsets.
        left_out = kernel_distances_without(real, gen, groups(len(gen)), seed)
        return Findings(values, intervals={self.name: jackknife(mean, left_out, variance=std**2 / SUBSETS)})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """The subsets, which are smaller where there are fewer images."""
        return {"subsets": SUBSETS, "subset_size": SUBSET_SIZE}
