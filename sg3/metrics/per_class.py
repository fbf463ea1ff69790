"""Metrics of every class by itself: the Frechet distance, density and coverage, of any detector's features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import UsageError
from sg3.metrics.density_coverage import DensityCoverage
from sg3.metrics.detectors import Detector
from sg3.metrics.features import Findings, RealComparison, generated_statistics
from sg3.metrics.fid import FrechetDistance
from sg3.metrics.intervals import Interval
from sg3.metrics.metric import Metric, Values
from sg3.metrics.moments import Moments
from sg3.metrics.progress import Progress
from sg3.metrics.real_images import RealSelection
from sg3.metrics.real_statistics import RealStatistics
from sg3.metrics.samples import Samples, one_class
from sg3.metrics.statistics import Statistics, StatisticsSpec
from sg3.metrics.views import ALPHA, AS_THEY_ARE

Made = Mapping[StatisticsSpec, Statistics | None]


@dataclass(frozen=True)
class PerClass(Metric, ABC):
    """A metric between all real images of a class and `num_gen` generated ones of it, for every class, and the mean."""

    @property
    @abstractmethod
    def of_class(self) -> RealComparison:
        """The metric of one class, with the same name."""

    @property
    def real(self) -> RealSelection:
        """All of them, not mirrored."""
        return RealSelection(mirrored=False, most=None)

    @property
    def least_gen(self) -> int:
        """As many as one class needs."""
        return self.of_class.least_gen


@dataclass(frozen=True)
class FrechetDistancePerClass(PerClass):
    """FID of every class; of another detector, a distance that is not comparable with it."""

    detector: str = "inception"

    less_is_better: ClassVar[bool] = True

    @property
    def of_class(self) -> FrechetDistance:
        """The distance of one class."""
        return FrechetDistance(self.name, self.num_gen, True, self.detector)


@dataclass(frozen=True)
class DensityCoveragePerClass(PerClass):
    """Density and coverage of every class, with balls around the real images of this class."""

    k: int
    detector: str = "vgg16"

    @property
    def of_class(self) -> DensityCoverage:
        """Those of one class."""
        return DensityCoverage(self.name, self.num_gen, True, self.k, self.detector)


def per_class(
    metrics: Sequence[PerClass], samples: Samples, data: ImageFolderDataset, statistics: RealStatistics,
    progress: Progress, view: str = AS_THEY_ARE, intervals: bool = False,
) -> list[Findings]:  # fmt: skip
    """For each metric the numbers of every class that has enough real images, NAME_0 and so on, and before them their
    means; how many real images each class has.

    Each class gets metric.num_gen generated images, made from the same latents, in one pass for all metrics. A class
    with few real images has a larger distance and another coverage for that alone: compare classes with care, and each
    with itself freely. Images seen over a background are compared once more by their alpha alone.
    """
    world = statistics.world
    seen = {name: statistics.detectors[name] for name in sorted({metric.of_class.source for metric in metrics})}
    views = [view, ALPHA] if view else [view]
    specs = {(name, one): StatisticsSpec(name, "features", False, len(data), one) for name in seen for one in views}
    features = statistics.get(set(specs.values()))
    classes = torch.tensor([int(data.get_label(index).argmax()) for index in range(len(data))])
    counts = torch.bincount(classes, minlength=samples.G.c_dim)
    due = {(metric, one): replace(metric.of_class.generated_statistics(intervals), view=one)
           for metric in metrics for one in views}  # fmt: skip
    tables = [Table(metric, counts) for metric in metrics]
    for index in sorted({index for table in tables for index in table.used}):
        labels = one_class(samples.G, index)
        of_class = Samples(samples.G, labels, samples.seed, samples.batch, samples.graphs, samples.visible)
        what = f"generated images of class {index} ({samples.G.c_dim} classes)"
        made = generated_statistics(set(due.values()), of_class, seen, world, progress, what)

        def numbers(metric: PerClass, one: str, index: int = index, made: Made = made) -> Findings:
            formula, gen = metric.of_class, made[due[metric, one]]
            all_rows = features[specs[formula.source, one]]
            assert isinstance(all_rows, torch.Tensor)
            assert gen is not None
            rows = all_rows[(classes == index).to(all_rows.device)]
            real = Moments.of(rows) if formula.kind == "moments" else rows
            return formula.evaluate(real, gen, seen[formula.source], samples.seed, intervals)

        for table, one in ((table, one) for table in tables if index in table.used for one in views):
            table.add(index, "_alpha" if one == ALPHA else "", world.on_main(partial(numbers, table.metric, one)))
    return [table.findings(seen[table.metric.of_class.source]) for table in tables]


class Table:
    """What a metric finds, class by class. Raises UsageError if no class has enough real images."""

    def __init__(self, metric: PerClass, counts: torch.Tensor) -> None:
        self.metric = metric
        least = metric.of_class.least_real
        self.used = [index for index, count in enumerate(counts.tolist()) if count >= least]
        if not self.used:
            raise UsageError(f"metric {metric.name}: no class has {'two' if least == 2 else least} real images")
        self._counts = counts.tolist()
        self._found: dict[tuple[int, str], Findings] = {}

    def add(self, index: int, suffix: str, found: Findings) -> None:
        """The numbers of a class, of images as they are seen or, with a suffix, otherwise."""
        self._found[index, suffix] = found

    def findings(self, detector: Detector) -> Findings:
        """Means, the numbers of all classes, and what is to be known of them."""
        means: Values = {}
        values: Values = {}
        found: dict[str, Interval] = {}
        notes: list[str] = []
        for suffix in dict.fromkeys(suffix for _, suffix in self._found):
            of_classes = {index: self._found[index, suffix] for index in self.used}
            for name in of_classes[self.used[0]].values:
                means[name + suffix] = sum(one.values[name] for one in of_classes.values()) / len(of_classes)
            for index, one in of_classes.items():
                values |= {f"{name}_{index}{suffix}": value for name, value in one.values.items()}
                found |= {f"{name}_{index}{suffix}": interval for name, interval in one.intervals.items()}
                notes += [f"class {index}{' (alpha)' if suffix else ''}: {note}" for note in one.notes]
        facts = {
            **self.metric.of_class.definition(detector),
            "real_images_of_class": {str(index): self._counts[index] for index in self.used},
            "classes_left_out": [index for index in range(len(self._counts)) if index not in self.used],
            **({"notes": notes} if notes else {}),
        }  # fmt: skip
        return Findings(means | values, facts=facts, intervals=found)
