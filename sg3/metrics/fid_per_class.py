"""The Frechet distance of every class by itself: FID, or that of another detector's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import UsageError
from sg3.metrics.features import Findings, generated_statistics
from sg3.metrics.fid import FrechetDistance
from sg3.metrics.intervals import Interval
from sg3.metrics.metric import Metric, Values
from sg3.metrics.moments import Moments
from sg3.metrics.progress import Progress
from sg3.metrics.real_images import RealSelection
from sg3.metrics.real_statistics import RealStatistics
from sg3.metrics.samples import Samples, one_class
from sg3.metrics.statistics import Kind, Statistics, StatisticsSpec
from sg3.metrics.views import ALPHA, AS_THEY_ARE


@dataclass(frozen=True)
class FrechetDistancePerClass(Metric):
    """FID between all real images of a class and `num_gen` generated ones of it, for every class, and the mean."""

    detector: str = "inception"

    less_is_better: ClassVar[bool] = True

    @property
    def real(self) -> RealSelection:
        """All of them, not mirrored."""
        return RealSelection(mirrored=False, most=None)


def fid_per_class(
    metric: FrechetDistancePerClass, samples: Samples, data: ImageFolderDataset, statistics: RealStatistics,
    progress: Progress, view: str = AS_THEY_ARE, intervals: bool = False,
) -> Findings:  # fmt: skip
    """FID of every class that has at least two real images, and the mean of them; how many real images each class has.

    Each class gets metric.num_gen generated images, made from the same latents. A class with few real images has a
    larger FID for that alone: compare classes with care, and each with itself freely. Images seen over a background are
    compared once more by their alpha alone.
    """
    world, detector = statistics.world, statistics.detectors[metric.detector]
    views = [view, ALPHA] if view else [view]
    of_real = {one: StatisticsSpec(metric.detector, "features", False, len(data), one) for one in views}
    features = statistics.get(set(of_real.values()))
    classes = torch.tensor([int(data.get_label(index).argmax()) for index in range(len(data))])
    counts = torch.bincount(classes, minlength=samples.G.c_dim)
    used = [index for index in range(samples.G.c_dim) if counts[index] >= 2]
    if not used:
        raise UsageError(f"metric {metric.name}: no class has two real images")
    kind: Kind = "features" if intervals else "moments"
    due = {one: StatisticsSpec(metric.detector, kind, False, metric.num_gen, one) for one in views}
    values: dict[str, Values] = {one: {} for one in views}
    found: dict[str, Interval] = {}
    for index in used:
        labels = one_class(samples.G, index)
        of_class = Samples(samples.G, labels, samples.seed, samples.batch, samples.graphs, samples.visible)
        what = f"generated images of class {index} ({len(used)} classes)"
        made = generated_statistics(set(due.values()), of_class, {detector.name: detector}, world, progress, what)
        for one in views:

            def distance(index: int = index, one: str = one, gen: Statistics | None = made[due[one]]) -> Findings:
                rows = features[of_real[one]]
                assert isinstance(rows, torch.Tensor)
                assert gen is not None
                real = Moments.of(rows[(classes == index).to(rows.device)])
                name = f"{metric.name}_{index}{'_alpha' if one == ALPHA else ''}"
                of_one = FrechetDistance(name, metric.num_gen, True, metric.detector)
                return of_one.evaluate(real, gen, detector, samples.seed, intervals)

            of_class_found = world.on_main(distance)
            values[one] |= of_class_found.values
            found |= of_class_found.intervals
    facts = {
        "ddof": 0, "real_images_of_class": {str(index): int(counts[index]) for index in used},
        "classes_left_out": [index for index in range(samples.G.c_dim) if index not in used],
    }  # fmt: skip
    means = {f"{metric.name}{'_alpha' if one == ALPHA else ''}": sum(of_one.values()) / len(of_one)
             for one, of_one in values.items()}  # fmt: skip
    return Findings(means | {name: value for of_one in values.values() for name, value in of_one.items()},
                    facts=facts, intervals=found)  # fmt: skip
