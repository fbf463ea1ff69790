"""FID, KID, precision and recall, density and coverage, Inception score: what compares features of images.

One pass over generated images serves all of them, with every detector looking at each batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

from sg3.data.dataset import ImageFolderDataset
from sg3.errors import UsageError
from sg3.metrics.detectors import Detector
from sg3.metrics.functional import (
    density_coverage,
    frechet_from_moments,
    inception_score,
    kernel_distance,
    precision_recall,
)
from sg3.metrics.gather import Gathered, Statistics, Want
from sg3.metrics.moments import Moments
from sg3.metrics.names import Metric
from sg3.metrics.samples import Samples, one_class
from sg3.metrics.statistics import RealStatistics
from sg3.metrics.watch import Watch
from sg3.processes import World

Values = dict[str, float]
BY_MOMENTS = ("fid", "fd_efflite")


@runtime_checkable
class Classifier(Protocol):
    """A detector that turns its features into probabilities of classes."""

    def probabilities_from(self, features: torch.Tensor) -> torch.Tensor:
        """[N, D] -> [N, classes]."""


def real_want(metric: Metric, num_real: int, mirrored: bool = False) -> Want:
    """The statistics of real images that a metric compares with."""
    assert metric.detector is not None
    kind = "moments" if metric.family in BY_MOMENTS and not metric.per_class else "features"
    return Want(metric.detector, kind, mirrored, num_real)


def generated_statistics(
    wants: set[Want], samples: Samples, detectors: Mapping[str, Detector], world: World, watch: Watch, what: str
) -> dict[Want, Statistics | None]:
    """Statistics of generated images, made once for all; features in the first process only."""
    order = sorted(wants, key=repr)
    gathered = {want: Gathered(detectors[want.detector], want.kind, want.count, samples.device) for want in order}
    parts = world.mine(samples.chunks(max(want.count for want in order)))

    def generate() -> None:
        for part in watch.each(what, parts):
            images = samples.images(part)
            for name in sorted({want.detector for want in order}):
                due = [want for want in order if want.detector == name and want.count > part.start]
                if due:
                    features = detectors[name].features(images)
                    for want in due:
                        gathered[want].add(part, features)

    with torch.no_grad():
        world.together(generate)
    return {want: each.result(world) for want, each in gathered.items()}


def generated_want(metric: Metric) -> Want:
    """The statistics of generated images that a metric needs."""
    assert metric.detector is not None
    kind = "moments" if metric.family in BY_MOMENTS else "features"
    return Want(metric.detector, kind, mirrored=False, count=metric.num_gen)


def evaluate(
    metric: Metric, real: Statistics | None, gen: Statistics | None, detector: Detector, seed: int
) -> Values:
    """The numbers of a metric from its statistics, under the original's names. Runs in the first process."""
    name = metric.name
    if metric.family in BY_MOMENTS:
        assert isinstance(real, Moments)
        assert isinstance(gen, Moments)
        return {name: frechet_from_moments(*real.mean_and_covariance(), *gen.mean_and_covariance())}
    assert isinstance(gen, torch.Tensor)
    if metric.family == "is":
        if not isinstance(detector, Classifier):
            raise UsageError(f"metric {name}: the detector {detector.name} has no classes")
        with torch.no_grad():
            mean, std = inception_score(torch.cat([detector.probabilities_from(part) for part in gen.split(1024)]))
        return {f"{name}_mean": mean, f"{name}_std": std}
    assert isinstance(real, torch.Tensor)
    if metric.family == "kid":
        mean, std = kernel_distance(real, gen, seed=seed)
        return {name: mean, f"{name}_std": std}
    if metric.family == "pr":
        precision, recall = precision_recall(real, gen, k=metric.k)
        return {f"{name}_precision": precision, f"{name}_recall": recall}
    density, coverage = density_coverage(real, gen, k=metric.k)
    return {f"{name}_density": density, f"{name}_coverage": coverage}


def per_class(
    metric: Metric, samples: Samples, data: ImageFolderDataset, statistics: RealStatistics, watch: Watch
) -> Values:
    """FID of every class that has at least two real images, and the mean of them.

    Each class gets metric.num_gen generated images, made from the same latents. A class with few real images has a
    larger FID for that alone: compare classes with care, and each with itself freely.
    """
    world, detector = statistics.world, statistics.detectors["inception"]
    want = real_want(metric, len(data))
    features = statistics.get({want})[want]
    classes = torch.tensor([int(data.get_label(index).argmax()) for index in range(len(data))])
    counts = torch.bincount(classes, minlength=samples.G.c_dim)
    used = [index for index in range(samples.G.c_dim) if counts[index] >= 2]
    if not used:
        raise UsageError(f"metric {metric.name}: no class has two real images")
    values: Values = {}
    for index in used:
        of_class = Samples(samples.G, one_class(samples.G, index), samples.seed, samples.batch)
        due = generated_want(metric)
        what = f"generated images of class {index} ({len(used)} classes)"
        gen = generated_statistics({due}, of_class, {detector.name: detector}, world, watch, what)[due]

        def distance(index: int = index, gen: Statistics | None = gen) -> float:
            assert isinstance(features, torch.Tensor)
            assert isinstance(gen, Moments)
            real = Moments.of(features[(classes == index).to(features.device)])
            return frechet_from_moments(*real.mean_and_covariance(), *gen.mean_and_covariance())

        values[f"{metric.name}_{index}"] = world.on_main(distance)
    return {metric.name: sum(values.values()) / len(values), **values}
