"""The Frechet distance of features: FID on Inception's (Heusel et al. 2017), `fd_NAME` on any detector's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.functional import frechet_from_moments
from sg3.metrics.intervals import groups, jackknife
from sg3.metrics.moments import Moments
from sg3.metrics.statistics import Kind, Statistics


@dataclass(frozen=True)
class FrechetDistance(RealComparison):
    """FID; of another detector, a distance that is not comparable with it."""

    detector: str = "inception"

    kind: ClassVar[Kind] = "moments"
    less_is_better: ClassVar[bool] = True

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """The distance."""
        assert isinstance(real, Moments)
        if isinstance(gen, Moments):
            return Findings({self.name: _between(real, gen)})
        assert isinstance(gen, torch.Tensor)
        parts = [Moments.of(gen[group]) for group in groups(len(gen))]
        whole = Moments.of(gen)
        distance = _between(real, whole)
        left_out = [_between(real, whole.without(part)) for part in parts if part.count < whole.count]
        return Findings({self.name: distance}, intervals={self.name: jackknife(distance, left_out)})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Covariances are divided by N."""
        return {"ddof": 0}


def _between(real: Moments, gen: Moments) -> float:
    return frechet_from_moments(*real.mean_and_covariance(), *gen.mean_and_covariance())
