"""What all metrics of one call work with, and the results that it makes: each with its recipe, everything that another
number could come from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sg3.canvas import Size, size_of, spelled
from sg3.data.dataset import ImageFolderDataset
from sg3.metrics.detectors import Detector
from sg3.metrics.equivariance_psnr import Equivariance
from sg3.metrics.intervals import Interval
from sg3.metrics.memorization import TrainingSetMetric
from sg3.metrics.metric import Metric, Values
from sg3.metrics.progress import Progress
from sg3.metrics.real_images import RealImages
from sg3.metrics.results import MetricResult, versions
from sg3.metrics.samples import Labels, has_noise
from sg3.metrics.views import AS_THEY_ARE, OVER, over_colour
from sg3.models import Generator
from sg3.processes import World
from sg3.transparency import has_alpha


@dataclass(frozen=True)
class Call:
    """What all metrics of one call work with."""

    G: Generator
    labels: Labels
    dataset: RealImages | None
    data: ImageFolderDataset | None  # the dataset, opened without mirroring
    detectors: dict[str, Detector]  # and the pixels themselves
    seed: int
    world: World
    progress: Progress
    intervals: bool
    background: str  # of images with alpha
    test: RealImages | None
    tests: ImageFolderDataset | None  # the same, opened
    sheet: Path | None
    visible: Size | None  # the part of images that is looked at, if not all
    bars: str | None  # for the record

    @property
    def view(self) -> str:
        """How detectors see images."""
        return over_colour(self.background) if has_alpha(self.G.img_channels) else AS_THEY_ARE


class Recorder:
    """Makes results with the recipe that they share."""

    def __init__(self, call: Call, facts: dict[str, Any]) -> None:
        self._call = call
        self._facts = facts

    def __call__(
        self, metric: Metric, values: Values, began: float, num_real: int | None = None,
        definition: dict[str, Any] | None = None, intervals: dict[str, Interval] | None = None,
    ) -> MetricResult:  # fmt: skip
        recipe: dict[str, Any] = {"num_gen": metric.num_gen, "num_real": num_real, **self._facts}
        if not needs_dataset([metric], self._call.G):  # it was named for another metric
            recipe["dataset"] = None
        if metric.detector is not None:
            detector = self._call.detectors[metric.detector]
            recipe |= {"detector": detector.name, "detector_sha256": detector.sha256, "resize": self._resize(detector)}
        if isinstance(metric, TrainingSetMetric):
            recipe["test_dataset"] = None if self._call.tests is None else self._call.tests.content_hash()
        if metric.real is not None and self._call.dataset is not None:
            recipe["mirrored"] = self._call.dataset.is_mirrored(metric.real)
        if self._call.view and not isinstance(metric, Equivariance):  # which compares all channels
            recipe["background"] = self._call.view.removeprefix(OVER)
        if self._call.bars is not None and not isinstance(metric, Equivariance):  # which compares all of the images
            recipe["bars"] = self._call.bars
        recipe |= definition or {}
        seconds = time.monotonic() - began
        asked = (intervals or {}) if self._call.intervals else None
        return MetricResult(metric, values, seconds, self._call.world.size, recipe, asked)

    def _resize(self, detector: Detector) -> str | None:
        """What a detector does to images; those that are not square are stretched to its own."""
        size = self._call.visible or size_of(self._call.G)
        if size[0] == size[1] or detector.resize is None:
            return detector.resize
        return f"{detector.resize}, stretched from {spelled(size)}"


def shared_facts(call: Call, device: torch.device, batch: int) -> dict[str, Any]:
    """The part of the recipe that all metrics of a call share."""
    on_gpu = device.type == "cuda"
    return {
        "seed": call.seed,
        "dataset": None if call.dataset is None or call.data is None else call.dataset.facts(call.data),
        "device": torch.cuda.get_device_name(device) if on_gpu else device.type,
        "batch": batch,
        "layer_noise": "random" if has_noise(call.G) else None,
        "versions": versions(),
    }


def bars_in_record(shown: Size | None, bars: bool) -> str | None:
    """What a record says of black bars, for images that have some."""
    return None if shown is None else "measured" if bars else f"cut off, {spelled(shown)} left"


def needs_dataset(metrics: Sequence[Metric], G: Generator) -> bool:
    """Whether real images matter, or their labels."""
    return G.c_dim > 0 or any(metric.real is not None for metric in metrics)
