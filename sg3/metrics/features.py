"""Metrics that compare features of images: one pass over generated images serves all of them, with every detector
looking at each batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from sg3.metrics.detectors import Detector
from sg3.metrics.intervals import Interval
from sg3.metrics.metric import Metric, Values
from sg3.metrics.progress import Progress
from sg3.metrics.real_images import RealSelection
from sg3.metrics.samples import Samples
from sg3.metrics.statistics import Gathered, Kind, Statistics, StatisticsSpec
from sg3.metrics.views import seen
from sg3.processes import World
from sg3.side_by_side import side_by_side


@dataclass(frozen=True)
class Examples:
    """An image, `generated` or `held out`, by its number among those, and the training images nearest to it: for each
    its index in the data set, whether mirrored, and the distance."""

    kind: str
    index: int
    score: float
    neighbours: list[tuple[int, bool, float]]


@dataclass(frozen=True)
class Findings:
    """What a metric has found."""

    values: Values
    notes: tuple[str, ...] = ()  # what whoever reads the numbers has to know, a sentence each
    facts: dict[str, Any] = field(default_factory=dict)  # for the record
    intervals: dict[str, Interval] = field(default_factory=dict)  # of some of the values, if asked for
    examples: list[Examples] = field(default_factory=list)  # for a sheet of pictures


@dataclass(frozen=True)
class FeatureMetric(Metric, ABC):
    """A metric of the statistics that a detector gives, whatever made the images."""

    kind: ClassVar[Kind] = "features"  # of the statistics that it takes

    @property
    def source(self) -> str:
        """What it sees images through: its detector, unless it does without."""
        assert self.detector is not None
        return self.detector

    def generated_statistics(self, intervals: bool) -> StatisticsSpec:
        """What it needs of generated images: for an interval, every image by itself."""
        kind: Kind = "features" if intervals else self.kind
        return StatisticsSpec(self.source, kind, mirrored=False, count=self.num_gen)

    @abstractmethod
    def evaluate(
        self, real: Statistics | None, gen: Statistics, detector: Detector, seed: int, intervals: bool
    ) -> Findings:
        """From the statistics of real images, if it compares with them, and of generated ones; with confidence
        intervals, if asked for."""

    def definition(self, detector: Detector) -> dict[str, Any]:
        """For the record: numbers that its name does not say, and which of several definitions it follows."""
        return {}


@dataclass(frozen=True)
class RealComparison(FeatureMetric):
    """One that compares with real images: with all of them, not mirrored, if `full`; else with the first `num_gen` of
    those that training saw, mirrored ones too."""

    full: bool

    most_real: ClassVar[int | None] = None  # the first ones, where a full one takes no more

    @property
    def least_real(self) -> int:
        """Real images without which it has no meaning."""
        return 2

    @property
    def real(self) -> RealSelection:
        """Which real images it takes."""
        return RealSelection(not self.full, self.most_real if self.full else self.num_gen, self.least_real)

    def real_statistics(self, count: int, mirrored: bool) -> StatisticsSpec:
        """What it needs of real images."""
        return StatisticsSpec(self.source, self.kind, mirrored, count)


def generated_statistics(
    specs: set[StatisticsSpec], samples: Samples, detectors: Mapping[str, Detector], world: World, progress: Progress,
    what: str,
) -> dict[StatisticsSpec, Statistics | None]:  # fmt: skip
    """Statistics of generated images, made once for all; features in the first process only."""
    order = sorted(specs, key=repr)
    views = sorted({(spec.detector, spec.view) for spec in order})
    most = {view: max(spec.count for spec in order if (spec.detector, spec.view) == view) for view in views}
    gathered = {spec: Gathered(detectors[spec.detector], spec.kind, spec.count, samples.device) for spec in order}
    parts = world.mine(samples.chunks(max(spec.count for spec in order)))

    def look(part: range) -> dict[tuple[str, str], torch.Tensor]:
        images = samples.images(part)
        due = [(name, view) for name, view in views if most[name, view] > part.start]
        return {(name, view): detectors[name].features(seen(images, view)) for name, view in due}

    def generate() -> None:
        with closing(side_by_side(look, parts, len(parts), samples.device, samples.most_at_a_time)) as looks:
            for part, features in zip(progress.each(what, parts), looks, strict=True):
                for spec in order:
                    if spec.count > part.start:
                        gathered[spec].add(part, features[spec.detector, spec.view])

    with torch.no_grad():
        world.together(generate)
    return {spec: each.result(world) for spec, each in gathered.items()}
