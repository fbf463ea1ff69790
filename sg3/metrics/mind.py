"""MIND, the Monge inception distance (arXiv 2605.06797); `mind_NAME` is the same on another detector's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison
from sg3.metrics.intervals import groups, jackknife
from sg3.metrics.monge import monge_distance, monge_distances_without
from sg3.metrics.statistics import Statistics

DIRECTIONS = 1000


@dataclass(frozen=True)
class MongeDistance(RealComparison):
    """How far features have to be moved along a random direction, squared."""

    detector: str = "inception"

    most_real: ClassVar[int | None] = 1_000_000
    less_is_better: ClassVar[bool] = True

    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """The distance between equal numbers of images."""
        assert isinstance(real, torch.Tensor)
        assert isinstance(gen, torch.Tensor)
        facts = {"n": min(len(real), len(gen))}
        distance = monge_distance(real, gen, DIRECTIONS, seed)
        if not intervals:
            return Findings({self.name: distance}, facts=facts)
        left_out = monge_distances_without(real, gen, groups(facts["n"]), DIRECTIONS, seed)
        return Findings({self.name: distance}, facts=facts, intervals={self.name: jackknife(distance, left_out)})

    def definition(self, detector: Detector) -> dict[str, Any]:
        """How many directions."""
        return {"directions": DIRECTIONS}
