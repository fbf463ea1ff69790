"""The Inception score (Salimans et al. 2016): images of one clear class each, and of many classes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from sg3.errors import UsageError
from sg3.metrics import functional
from sg3.metrics.detectors import Detector
from sg3.metrics.features import FeatureMetric, Findings
from sg3.metrics.intervals import over_splits
from sg3.metrics.statistics import Statistics

SPLITS = 10


@runtime_checkable
class Classifier(Protocol):
    """A detector that turns its features into probabilities of classes."""

    def probabilities_from(self, features: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [N, classes]."""


@dataclass(frozen=True)
class InceptionScore(FeatureMetric):
    """A mean over ten parts of the images, and its spread over these."""

    detector: str = "inception"

    @property
    def least_gen(self) -> int:
        """One for each part."""
        return SPLITS

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """Mean and standard deviation. Raises UsageError if the detector has no classes."""
        assert isinstance(gen, torch.Tensor)
        if not isinstance(detector, Classifier):
            raise UsageError(f"metric {self.name}: the detector {detector.name} has no classes")
        with torch.no_grad():
            probabilities = torch.cat([detector.probabilities_from(part) for part in gen.split(1024)])
        mean, std = functional.inception_score(probabilities, SPLITS)
        values = {f"{self.name}_mean": mean, f"{self.name}_std": std}
        return Findings(values, intervals={f"{self.name}_mean": over_splits(mean, std, SPLITS)} if intervals else {})
