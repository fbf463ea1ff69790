"""FID, the Frechet inception distance (Heusel et al. 2017), and the same distance of EfficientNet-Lite0's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sg3.metrics.detectors import Detector
from sg3.metrics.features import RealComparison
from sg3.metrics.functional import frechet_from_moments
from sg3.metrics.metric import Values
from sg3.metrics.moments import Moments
from sg3.metrics.statistics import Kind, Statistics


@dataclass(frozen=True)
class FrechetDistance(RealComparison):
    """FID."""

    detector: ClassVar[str] = "inception"
    kind: ClassVar[Kind] = "moments"
    less_is_better: ClassVar[bool] = True

    def numbers(self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int) -> Values:
        """The distance."""
        assert isinstance(real, Moments)
        assert isinstance(gen, Moments)
        return {self.name: frechet_from_moments(*real.mean_and_covariance(), *gen.mean_and_covariance())}


@dataclass(frozen=True)
class EffliteDistance(FrechetDistance):
    """Of features that need no download. Its numbers are not comparable with FID."""

    detector: ClassVar[str] = "efflite"
