"""The Frechet distance of features: FID on Inception's (Heusel et al. 2017), `fd_NAME` on any detector's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.functional import frechet_from_moments
from sg3.metrics.moments import Moments
from sg3.metrics.statistics import Kind, Statistics


@dataclass(frozen=True)
class FrechetDistance(RealComparison):
    """FID; of another detector, a distance that is not comparable with it."""

    detector: str = "inception"

    kind: ClassVar[Kind] = "moments"
    less_is_better: ClassVar[bool] = True

    def evaluate(self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int) -> Findings:
        """The distance."""
        assert isinstance(real, Moments)
        assert isinstance(gen, Moments)
        distance = frechet_from_moments(*real.mean_and_covariance(), *gen.mean_and_covariance())
        return Findings({self.name: distance})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """Covariances are divided by N."""
        return {"ddof": 0}
